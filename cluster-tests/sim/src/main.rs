//! Runs the simulation: one seed with everything it does, or many.
//!
//! ```text
//! sim --seed 7 --trace
//! sim --from 0 --seeds 10000
//! sim --from 0 --seeds 10000 --first   # ends with the first failure
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
    let mut first = false;
    while let Some(flag) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
        match flag.as_str() {
            "--seed" => seed = number(),
            "--from" => from = number().unwrap_or(0),
            "--seeds" => seeds = number().unwrap_or(200),
            "--seconds" => seconds = number(),
            "--trace" => trace = true,
            "--first" => first = true,
            other => {
                eprintln!(
                    "unknown: {other}\nusage: sim [--seed N [--trace]] [--from N] [--seeds N] [--seconds S] [--first]"
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
    let (done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
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
                    let played = std::panic::catch_unwind(|| run(options(seed)));
                    let error = match played {
                        Ok(Ok(report)) => {
                            done.fetch_add(1, Ordering::Relaxed);
                            total.lock().unwrap().add(&report);
                            continue;
                        }
                        Ok(Err(error)) => error,
                        Err(what) => format!("seed {seed} panicked: {}", text(what.as_ref())),
                    };
                    done.fetch_add(1, Ordering::Relaxed);
                    if failed.fetch_add(1, Ordering::Relaxed) == 0 || !first {
                        println!("{error}\n");
                    }
                    if first {
                        next.store(from + seeds, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!(
        "{} seeds from {from} in {:.1} s, {failed} failed: {:?}",
        done.into_inner(),
        begun.elapsed().as_secs_f64(),
        total.into_inner().unwrap()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What a panic says.
fn text(what: &(dyn std::any::Any + Send)) -> &str {
    let text = what.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| what.downcast_ref::<&str>().copied())
        .unwrap_or("without a word")
}
