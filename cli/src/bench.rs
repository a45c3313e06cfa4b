//! `selvage bench`: what it costs, beside others and beside the least that it can cost.

mod fanout;
mod floor;
mod observed;
mod peer;
mod players;
mod publisher;
mod report;
mod rtmfp;
mod so;
mod stream;
mod usage;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Measure.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    Fanout(fanout::Flags),
    Rtmfp(rtmfp::Flags),
    So(so::Flags),
    #[command(hide = true)]
    Players(players::Flags),
    #[command(hide = true)]
    Floor(floor::Flags),
    #[command(hide = true)]
    RtmfpFloor(rtmfp::floor::Flags),
}

pub(crate) fn main(command: &Command) -> ExitCode {
    match command {
        Command::Fanout(flags) => fanout::main(flags),
        Command::Rtmfp(flags) => rtmfp::main(flags),
        Command::So(flags) => so::main(flags),
        Command::Players(flags) => players::main(flags),
        Command::Floor(flags) => floor::main(flags),
        Command::RtmfpFloor(flags) => rtmfp::floor::main(flags),
    }
}

/// The clock that all processes of a measurement share, in microseconds.
fn wall_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
