//! The short form of the simulation: seeds that everybody plays, with little trouble each.
//! The long form is `cargo run --release -p selvage-sim -- --seeds 10000`.

use std::sync::atomic::{AtomicU64, Ordering};

use selvage_sim::{Options, run};

const SEEDS: u64 = 200;

#[test]
fn two_hundred_seeds_hold_what_is_promised() {
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let play = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= SEEDS {
                    return Ok(());
                }
                run(Options::short(seed))?;
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(play)).collect();
        for worker in workers {
            let played: Result<(), String> = worker.join().unwrap();
            if let Err(error) = played {
                // Nothing more is begun; one line says how to see it again.
                next.store(SEEDS, Ordering::Relaxed);
                panic!("{error}");
            }
        }
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 5, 8] {
        let first = run(Options::short(seed)).unwrap();
        let second = run(Options::short(seed)).unwrap();
        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}");
        let other = run(Options::short(seed + 100)).unwrap();
        assert_ne!(first.fingerprint, other.fingerprint, "seed {seed}");
    }
}
