//! `selvage-origin`: one origin, configured by file, environment and flags.

use std::process::ExitCode;

use clap::Parser;
use selvage_origin as origin;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "A Selvage origin")]
struct Arguments {
    #[command(flatten)]
    flags: origin::Flags,
}

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => origin::main(&arguments.flags),
        Err(error) => node::process::usage(&error),
    }
}
