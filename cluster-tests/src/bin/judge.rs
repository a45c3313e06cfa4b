//! Judges a recorded history again: `judge FILE`. Ends with 1 if it does not hold, with 2 if
//! there is none.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that says what it found"
)]

use std::path::Path;
use std::process::ExitCode;

use selvage_cluster_tests::judge::{History, judge};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(file), None) = (args.next(), args.next()) else {
        eprintln!("usage: judge FILE");
        return ExitCode::from(2);
    };
    let history = match History::read(Path::new(&file)) {
        Ok(history) => history,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let verdict = judge(&history);
    println!("{} with seed {}: {verdict}", history.title, history.seed);
    if verdict.holds() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
