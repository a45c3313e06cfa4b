//! A cluster in one process and one thread: the machines that origins and edges run
//! (`member::Member`, `ledger::replica::Replica`), with a network, disks, a clock and
//! clients that are made from one seed.
//!
//! ```text
//!   Client ─ask─▶ Replica ═ net ═▶ Member ── net ── Member
//!          ◀told─  (edge)          (origin)│
//!             │                          Disk: safe, or not yet
//!             ▼                            ▼ applied
//!           what it was told  ──held against── Truth
//! ```
//!
//! Clients write, remove, clear and send, under both policies; they lock objects and let
//! the lease run out, use objects and let go of them, and some come back at another edge
//! with the session that they had. Publishers claim names, take over from each other and
//! demand epochs above what was.
//!
//! Meanwhile processes are killed and paused, disks are slow and forget what was not
//! synced, or are lost; clocks differ and run at different speeds; the network delays,
//! loses and is cut in one or both directions; leads are handed over; members are added,
//! removed and exchanged. Then it heals, everything must become quiet, and this must hold:
//!
//! * a majority has on its disks what is applied, and the votes of who leads; one leads in
//!   a term;
//! * all origins applied the same, entry by entry, and end with the same digest;
//! * equal versions of an object have equal slots, everywhere and at all times;
//! * what a client was told is a state that was, and its versions never go back; who asks
//!   for an object is shown all that anybody had been told is written;
//! * every request is answered once, with its own answer; what was accepted is there, what
//!   was refused is not; nothing is refused where the last writer wins;
//! * messages come at most once, in one order, and none is missing while an edge can go on
//!   where it stopped;
//! * a lock has one holder, whose lease is not cut short, others change nothing meanwhile,
//!   and it ends;
//! * a name has one holder for each epoch, and epochs rise; nobody holds it in the end;
//! * a temporary object is gone when nobody uses it any more.
//!
//! ```text
//! cargo test -p selvage-sim                                    200 seeds, the short form
//! cargo run --release -p selvage-sim -- --seeds 10000          the long form
//! cargo run --release -p selvage-sim -- --seed N --trace       one failure, event by event
//! cluster-tests/mutants/run                                    what is broken on purpose is caught
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "a laboratory: a failure is a panic, and what happens is printed"
)]

mod client;
mod clock;
mod dice;
mod disk;
mod locks;
mod net;
mod publisher;
mod truth;
mod world;

use std::time::Duration;

pub use client::Tally;
pub use dice::Dice;
pub use world::World;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything follows from it.
    pub seed: u64,
    /// Origins.
    pub origins: usize,
    /// Edges.
    pub edges: usize,
    /// Clients.
    pub clients: usize,
    /// How long things go wrong, in the time of the simulation.
    pub trouble: Duration,
    /// Print every event.
    pub trace: bool,
}

impl Options {
    /// A size that follows from the seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5e1f_a6e5);
        Self {
            seed,
            origins: [1, 3, 3, 3, 5][dice.below(5)],
            edges: 1 + dice.below(3),
            clients: 3 + dice.below(8),
            trouble: Duration::from_secs([3, 5, 8, 20][dice.below(4)]),
            trace: false,
        }
    }

    /// The same with little trouble, for the test command.
    #[must_use]
    pub fn short(seed: u64) -> Self {
        Self {
            trouble: SHORT_TROUBLE,
            ..Self::of(seed)
        }
    }
}

/// How long things go wrong in the short form.
const SHORT_TROUBLE: Duration = Duration::from_secs(2);

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Entries of the log that did something.
    pub entries: usize,
    /// Updates that clients were told.
    pub updates: u64,
    /// What became of the clients' requests.
    pub tally: Tally,
    /// Publishes that were granted.
    pub granted: u64,
    /// Kills of processes.
    pub kills: u64,
    /// Changes of who leads.
    pub elections: u64,
    /// Cuts of the network.
    pub partitions: u64,
    /// Changes of the membership.
    pub memberships: u64,
    /// Leads that were to be handed over.
    pub transfers: u64,
    /// Disks that were lost.
    pub disks_lost: u64,
    /// A hash of all that happened: the same for the same seed.
    pub fingerprint: u64,
}

/// Runs one seed.
///
/// # Errors
/// What did not hold, and when.
pub fn run(options: Options) -> Result<Report, String> {
    let mut world = World::new(options);
    world.run().map_err(|error| {
        format!(
            "seed {} ({} origins, {} edges, {} clients), at {:?}: {error} -- again: \
             cargo run --release -p selvage-sim -- --seed {} --seconds {} --trace",
            options.seed,
            options.origins,
            options.edges,
            options.clients,
            world.time(),
            options.seed,
            options.trouble.as_secs(),
        )
    })
}

impl Report {
    /// Sums up.
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.updates += other.updates;
        self.tally.accepted += other.tally.accepted;
        self.tally.refused += other.tally.refused;
        self.tally.undecided += other.tally.undecided;
        self.tally.lost += other.tally.lost;
        self.tally.sent += other.tally.sent;
        self.granted += other.granted;
        self.tally.locked += other.tally.locked;
        self.kills += other.kills;
        self.elections += other.elections;
        self.partitions += other.partitions;
        self.memberships += other.memberships;
        self.transfers += other.transfers;
        self.disks_lost += other.disks_lost;
        self.fingerprint ^= other.fingerprint;
    }
}
