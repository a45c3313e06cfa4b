//! The `selvage` command.

mod bench;
mod cluster;
mod dev;
mod exit;
mod operate;
mod pace;
mod peer;
mod play;
mod progress;
mod publish;
mod remote;
mod so;
mod tracer;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Look at a cluster of origins, or change it.
    #[command(subcommand)]
    Cluster(cluster::Command),
    Probe(operate::Probe),
    Drain(operate::Drain),
    Status(operate::Status),
    Trace(operate::Trace),
    Publish(publish::Flags),
    Play(play::Flags),
    /// Talk with others directly, by RTMFP.
    #[command(subcommand)]
    Peer(peer::Command),
    /// Watch, read and write shared objects.
    #[command(subcommand)]
    So(so::Command),
    /// Measure.
    #[command(subcommand)]
    Bench(bench::Command),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match arguments.command {
        Command::Dev(flags) => dev::main(&flags),
        Command::Origin(flags) => origin::main(&flags),
        Command::Edge(flags) => edge::main(&flags),
        Command::Cluster(command) => cluster::main(&command),
        Command::Probe(flags) => operate::probe(&flags),
        Command::Drain(flags) => operate::drain(&flags),
        Command::Status(flags) => operate::status(&flags),
        Command::Trace(flags) => operate::trace(&flags),
        Command::Publish(flags) => publish::main(&flags),
        Command::Play(flags) => play::main(&flags),
        Command::Peer(command) => peer::main(&command),
        Command::So(command) => so::main(&command),
        Command::Bench(command) => bench::main(&command),
    }
}

/// A wrong command line is a refused configuration (64) for the roles, and a wrong use (2)
/// for everything else.
fn usage(error: &clap::Error) -> ExitCode {
    let code = node::process::usage(error);
    let role = std::env::args()
        .nth(1)
        .is_some_and(|name| ["dev", "origin", "edge"].contains(&name.as_str()));
    if role || !error.use_stderr() {
        code
    } else {
        ExitCode::from(exit::USAGE)
    }
}
