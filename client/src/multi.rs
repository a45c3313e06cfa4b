//! Several servers as one.
#![allow(dead_code)]

mod history;
pub mod limits;
mod machine;
mod mirror;
