//! AMF0 and AMF3 values: bounded reading, canonical writing.

pub mod value;

pub use value::Value;
