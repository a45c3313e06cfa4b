//! The judge of shared objects: was what clients saw what one object in one place would
//! have shown them?
//!
//! A test writes down what its clients ask and are told ([`Recorder`]), or with a clock of
//! its own ([`History::push`]), and at the end [`demand`]s that it holds. The judge knows
//! nothing of how the cluster works inside; it looks at the history alone:
//!
//! * every request is answered exactly once, also through faults;
//! * on a connection versions never go back, nor over to the one that resumes it;
//! * equal versions of an object are equal slots, whoever looks;
//! * what was acknowledged is never lost, and what was refused is never seen; nothing is seen
//!   that nobody asked for, nor before it happened, nor as news twice;
//! * what was answered before something else was asked has no greater version;
//! * each slot is a linearizable register with conditional writes (a search, [`Model`]s in
//!   `register`), and each lock a mutex;
//! * messages to all have one order, and each comes once.
//!
//! Values must be unique within a slot for the judge to be strict: a value that two
//! requests wrote explains itself by either.
//!
//! [`Model`]: porcupine_rs::Model
//!
//! # When it does not hold
//!
//! The history is written to `target/judge/<title>-<seed>.jsonl`, one [`Record`] a line,
//! and the path and the seed are in the failure's text.
//! `cargo run -p selvage-cluster-tests --bin judge -- FILE` judges it again.

mod account;
mod delivery;
pub mod history;
mod lock;
mod register;
mod verdict;
mod views;

use std::time::{Duration, Instant};

pub use history::{
    Answer, Ask, Connection, Event, History, Object, Op, Record, Recorder, Slots, Why,
};
pub use verdict::{Verdict, Violation};

use account::Account;

/// How long one search may take. A history that cannot be decided in that time is
/// [`Verdict::undecided`].
pub const SEARCH_TIME: Duration = Duration::from_secs(10);

/// How many operations are searched at a time: the search is exponential in what happens
/// at once, and a thousand take milliseconds when they are in order.
pub const WINDOW_OPS: usize = 1_000;

/// Judges a history.
#[must_use]
pub fn judge(history: &History) -> Verdict {
    let started = Instant::now();
    let mut verdict = Verdict::default();
    let account = Account::of(history, &mut verdict);
    views::judge(history, &account, &mut verdict);
    delivery::judge(history, &account, &mut verdict);
    account.judge_real_time(&mut verdict);
    lock::judge(&account, &mut verdict);
    register::judge(&account, &mut verdict);
    verdict.took = started.elapsed();
    verdict
}

/// Judges a history and keeps it in a file if it does not hold.
///
/// # Panics
/// When it does not hold.
#[track_caller]
pub fn demand(history: &History) -> Verdict {
    let verdict = judge(history);
    if verdict.holds() {
        println!("{verdict}");
        return verdict;
    }
    let folder = crate::lab::process::target_dir().join("judge");
    let path = folder.join(format!("{}-{}.jsonl", history.title, history.seed));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| history.write(&path));
    let kept = match kept {
        Ok(()) => format!("kept in {}", path.display()),
        Err(error) => format!("not kept: {}: {error}", path.display()),
    };
    panic!(
        "the history of {:?} with seed {} does not hold ({kept})\n{verdict}",
        history.title, history.seed
    );
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
