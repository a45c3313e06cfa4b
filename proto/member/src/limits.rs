//! What a member holds for others at most.

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
