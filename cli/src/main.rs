//! The `selvage` command.

mod dev;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A cluster-aware edge/origin media fabric.
#[derive(Parser)]
#[command(name = "selvage", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole cluster in this process, for trying things out.
    Dev(dev::Flags),
    /// Run one origin.
    Origin(origin::Flags),
    /// Run one edge.
    Edge(edge::Flags),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return node::process::usage(&error),
    };
    match arguments.command {
        Command::Dev(flags) => dev::main(&flags),
        Command::Origin(flags) => origin::main(&flags),
        Command::Edge(flags) => edge::main(&flags),
    }
}
