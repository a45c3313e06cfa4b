//! What a member holds for others at most, and how long it waits for them.

use std::time::Duration;

/// Commands that wait to be proposed, while nobody leads or the leader is busy. An edge has
/// 64 requests of each session under way, and asks again.
pub const WAITING_MAX: usize = 16 * 1024;

/// Bytes of these commands.
pub const WAITING_BYTES_MAX: usize = 8 << 20;

/// Edges in one list of contacts: as many as one origin can have attached.
pub const CONTACTS_MAX: usize = 16 * 1024;

/// A learner votes when it lacks no more entries than this: what a voter may lack as well,
/// at the pace at which entries are written.
pub const PROMOTE_LAG: u64 = 64;

/// A state that is on its way for longer than this, and than its size takes, is given up and
/// sent anew: meanwhile its receiver is told nothing. As long as a healthy receiver may take
/// to look into its queue, many times over.
pub const STATE_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a state that arrive in a second at least. A slower line cannot carry the log
/// either.
pub const STATE_BYTES_PER_SECOND: u64 = 1 << 20;
