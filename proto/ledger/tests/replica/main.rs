//! Edges and origins together, without a network: what clients are told, whatever happens
//! in between.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds what it does not expect has failed"
)]

mod asks;
mod claims;
mod durable;
mod faults;
mod lab;
mod lost;
mod many;
mod random;
