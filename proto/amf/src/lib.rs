//! AMF0 and AMF3 values: bounded reading, canonical writing.

pub mod amf0;
pub mod amf3;
pub mod command;
pub mod error;
mod graph;
mod input;
pub mod limits;
mod meter;
pub mod value;

pub use error::Error;
pub use value::Value;
