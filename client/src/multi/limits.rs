//! What a facade over several servers holds at most, and how long it waits.

use std::time::Duration;

/// Servers of one facade. Each costs a connection and a copy of every object.
pub(super) const SERVERS_MAX: usize = 16;

/// Objects of one facade.
pub(super) const OBJECTS_MAX: usize = 256;

/// Requests under way. The ledger remembers the answers of 64 requests of a session; what it
/// does not remember could not be asked again.
pub(super) const WINDOW: usize = 64;

/// Sets and sends that wait to be asked for. While no server can be reached a program that
/// goes on writing learns here that it writes in vain.
pub(super) const WAITING_MAX: usize = 1024;

/// Slots of one batch; the ledger takes 1024.
pub(super) const BATCH_SLOTS_MAX: usize = 256;

/// Messages to all subscribers of an object that are remembered of each server, to find out
/// after a loss which of them were told already: those of the time in which the loss is not
/// noticed yet ([`SILENCE_MAX`]), of a busy room.
pub(super) const SENDS_KEPT_MAX: usize = 512;

/// What they may be long together.
pub(super) const SENDS_KEPT_BYTES: usize = 256 << 10;

/// How long all servers may take to answer `connect` (the value of the original).
pub(super) const SETUP_PATIENCE: Duration = Duration::from_secs(3);

/// After how much silence a server is asked whether it lives.
pub(super) const PING_AFTER: Duration = Duration::from_secs(1);

/// After how much silence a server that has answered such a question before is given up.
/// A pause of a busy machine is shorter, and an operator's patience longer.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(4);

/// How long a request may be under way before another server is asked, if there is one. An
/// edge that cannot decide says so itself within this time.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a set or a send may wait altogether before it counts as undecided.
pub(super) const SETTLE_PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait for an answer after a change by another that may be one: a server may
/// merge the refusal with the change that is the reason for it.
pub(super) const MERGED_PATIENCE: Duration = Duration::from_millis(1500);

/// The first pause before a lost server is dialled again; each is twice the one before.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// The longest pause before a lost server is dialled again.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(8);

const _: () = assert!(PING_AFTER.as_millis() * 2 < SILENCE_MAX.as_millis());
const _: () = assert!(ANSWER_PATIENCE.as_millis() < SETTLE_PATIENCE.as_millis());
