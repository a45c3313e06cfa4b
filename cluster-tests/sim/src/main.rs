//! Runs the simulation: one seed with everything it does, or many.
//!
//! ```text
//! sim --seed 7 --trace
//! sim --from 0 --seeds 10000
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command of the tests"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use selvage_sim::{Options, Report, run};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut seed, mut from, mut seeds, mut trace, mut seconds) = (None, 0, 200, false, None);
    while let Some(flag) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
        match flag.as_str() {
            "--seed" => seed = number(),
            "--from" => from = number().unwrap_or(0),
            "--seeds" => seeds = number().unwrap_or(200),
            "--seconds" => seconds = number(),
            "--trace" => trace = true,
            other => {
                eprintln!(
                    "unknown: {other}\nusage: sim [--seed N [--trace]] [--from N] [--seeds N] [--seconds S]"
                );
                return ExitCode::from(64);
            }
        }
    }
    let options = |seed| {
        let mut options = Options::of(seed);
        options.trace = trace;
        if let Some(seconds) = seconds {
            options.trouble = Duration::from_secs(seconds);
        }
        options
    };
    if let Some(seed) = seed {
        return match run(options(seed)) {
            Ok(report) => {
                println!("seed {seed}: {report:?}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let failed = AtomicUsize::new(0);
    let total = std::sync::Mutex::new(Report::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    match std::panic::catch_unwind(|| run(options(seed))) {
                        Ok(Ok(report)) => total.lock().unwrap().add(&report),
                        Ok(Err(error)) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("{error}\n");
                        }
                        Err(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("seed {seed} panicked\n");
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!(
        "{seeds} seeds from {from} in {:.1} s, {failed} failed: {:?}",
        begun.elapsed().as_secs_f64(),
        total.into_inner().unwrap()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
