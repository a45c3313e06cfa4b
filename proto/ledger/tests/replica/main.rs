//! Edges and origins together, without a network: what clients are told, whatever happens
//! in between.

mod asks;
mod claims;
mod faults;
mod lab;
mod random;
