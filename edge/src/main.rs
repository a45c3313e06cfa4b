//! `selvage-edge`: one edge, configured by file, environment and flags.

use std::process::ExitCode;

use clap::Parser;
use selvage_edge as edge;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "A Selvage edge")]
struct Arguments {
    #[command(flatten)]
    flags: edge::Flags,
}

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => edge::main(&arguments.flags),
        Err(error) => node::process::usage(&error),
    }
}
