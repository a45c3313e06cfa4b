//! The selvage command.
fn main() {}
