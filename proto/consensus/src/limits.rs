//! What a node holds, sends and takes at most.

/// Bytes of one message between nodes. It holds [`APPEND_BYTES`] of entries, or one entry of
/// the greatest size, and their heads.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes of one entry's data. A command of the ledger has at most half of it.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Entries of one message. [`APPEND_BYTES`] of the smallest commands are fewer; without this
/// bound a message of empty entries would take fifty times its bytes when it is decoded.
pub const MESSAGE_ENTRIES_MAX: usize = 1 << 16;

/// A message is closed when its entries have this many bytes: large enough that a follower
/// which catches up is limited by its disk, small enough that a heartbeat does not wait.
pub const APPEND_BYTES: usize = 1 << 20;

/// Messages with entries that may be under way to one follower. With [`APPEND_BYTES`] that is
/// what one slow follower can make the leader's sockets hold.
pub const INFLIGHT_MAX: usize = 64;

/// Bytes of proposals that are in the leader's log and not yet decided. Above it proposals
/// are dropped, so that a leader without a majority does not fill its memory and its disk.
pub const UNCOMMITTED_BYTES: usize = 16 << 20;

/// Bytes of decided entries that are handed on in one step, so that a replay of a long log
/// does not copy all of it at once.
pub const APPLY_BYTES: usize = 4 << 20;

/// Reads that wait for a majority at the leader. They are asked again when they are dropped.
pub const READS_MAX: usize = 4096;

/// Nodes of a cluster, voters and learners. A vote asks all voters, an entry goes to all.
pub const MEMBERS_MAX: usize = 64;

/// Numbers of removed nodes that are remembered, so that none is given twice. 8 bytes each
/// in every snapshot; when it is reached no more nodes can be removed.
pub const REMOVED_MAX: usize = 4096;

/// Removed nodes of which it is remembered who they were: those with the greatest numbers, so
/// that one that comes back can be told, and one that is removed twice is no error. With
/// [`ABOUT_BYTES_MAX`] each they are 64 KiB in every snapshot.
pub const DEPARTED_MAX: usize = 64;

/// Bytes that the membership holds about a node: its name and its address.
pub const ABOUT_BYTES_MAX: usize = 1024;

/// The greatest index and term. They are counted from 0 by one, so what is greater was never
/// counted; below it sums do not overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

const _: () = assert!(APPEND_BYTES + ENTRY_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () = assert!(UNCOMMITTED_BYTES >= APPEND_BYTES + ENTRY_BYTES_MAX);
