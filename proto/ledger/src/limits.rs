//! What the replicated state may hold. Every origin must have the same limits, so they are
//! constants: a limit that is changed changes what the log means.

use model::SlotName;

/// Slots of one object. A room of a few hundred users with some slots each fits.
pub const SLOTS_MAX: usize = 4096;

/// Bytes of one slot's value: a nested object with a few thousand fields.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of all slots of one object, names and values: what a newcomer must be sent at once.
pub const OBJECT_BYTES_MAX: usize = 1024 * 1024;

/// Objects in the cluster.
pub const OBJECTS_MAX: usize = 100_000;

/// Objects of one application instance: what its clients may fill.
pub const INSTANCE_OBJECTS_MAX: usize = 20_000;

/// Bytes of the objects of one application instance, and of what waits for their locks.
pub const INSTANCE_BYTES_MAX: usize = TOTAL_BYTES_MAX / 4;

/// Operations of one batch: more than a script sets between two frames.
pub const BATCH_OPS_MAX: usize = 1024;

/// Bytes of one command in its canonical form.
pub const COMMAND_BYTES_MAX: usize = 512 * 1024;

/// Removed slots that an object remembers, so that who comes back can be told of them
/// instead of being sent everything. 64 bytes each, with usual names.
pub const TOMBSTONES_MAX: usize = 1024;

/// Requests of one session that may be under way. Answers of this many are remembered.
pub const WINDOW: u64 = 64;

/// Sessions that are remembered. The one that was silent for longest is forgotten first.
pub const SESSIONS_MAX: usize = 200_000;

/// Bytes of what is remembered of refusals in all sessions: a bit for each operation up to
/// the last that was refused. Without room it is forgotten which they were.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Entries after which a session is forgotten whose edge was lost, and whose client did not
/// come back at another. At ten thousand a second, minutes.
pub const ADRIFT_ENTRIES: u64 = 2_000_000;

/// Requests that wait for one object's lock.
pub const LOCK_QUEUE_MAX: usize = 256;

/// Names of removed temporary objects whose last version is remembered, so that a new
/// object of that name starts above it.
pub const GRAVES_MAX: usize = 4096;

/// Streams that may be claimed at once in the cluster.
pub const STREAMS_MAX: usize = 100_000;

/// Publishers that wait for one name, or stand by for it.
pub const CONTENDERS_MAX: usize = 32;

/// Instances that have a home.
pub const HOMES_MAX: usize = 100_000;

/// Bytes of a publisher's token.
pub const TOKEN_BYTES_MAX: usize = 64;

/// Edges that are registered. Each costs an origin a connection, so there are never many.
pub const EDGES_MAX: usize = 4096;

/// Edges that are gone whose last life is remembered. Behind them stands a floor, so none of
/// these is ever registered again.
pub const LIVES_OVER_MAX: usize = 4096;

/// Bytes of all slots and of all that waits for locks, in the cluster: every origin holds
/// them in memory, and a snapshot is made of them in one piece.
pub const TOTAL_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Bytes of what waits for one object's lock.
pub const LOCK_QUEUE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Streams that nobody publishes whose last epoch is remembered, so that who asks can be
/// told. Epochs never go back, remembered or not.
pub const ENDED_STREAMS_MAX: usize = 4096;

/// Epochs that an edge may demand to be exceeded. Above it there is room for more publishes
/// than a log can hold.
pub const EPOCH_ABOVE_MAX: u64 = u64::MAX / 2;

/// Bytes of a trace context: a W3C traceparent has 55.
pub const TRACE_BYTES_MAX: usize = 64;

/// Bytes of one message between an edge and its origin, which must fit into one of the link
/// that carries it. What is larger goes in [parts](PART_BYTES).
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A part of what is too much for one message is closed when it holds this many bytes:
/// large enough that a part costs little, small enough that one that is nearly full has room
/// for the largest thing there is.
pub const PART_BYTES: usize = 1024 * 1024;

/// Bytes of one thing that is not split: an object as it stands with the names of removed
/// slots, or what one batch changed of it, and what stands around it.
pub const ITEM_BYTES_MAX: usize = OBJECT_BYTES_MAX
    + COMMAND_BYTES_MAX
    + (SLOTS_MAX + BATCH_OPS_MAX) * 16
    + TOMBSTONES_MAX * (SlotName::MAX_LEN + 16)
    + 8 * 1024;

/// Parts of what one entry did: the end of an edge lets in all that waited for the locks of
/// its clients, at most everything there is, each with its answer.
pub const APPLIED_PARTS_MAX: usize = 2 * TOTAL_BYTES_MAX / PART_BYTES;

/// Bytes of the objects that an edge is brought up to date about when it attaches, roughly.
/// They wait at the origin until the edge reads them. What has no room is opened anew, some
/// objects at a time.
pub const ATTACHED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Objects that an edge may hold.
pub const HELD_MAX: usize = 65_536;

/// What [`Answer::Full`](crate::Answer::Full) can name, as it is written down: a new name
/// goes to the end.
pub const LIMIT_NAMES: [&str; 17] = [
    "a limit",
    "edges",
    "objects",
    "slots of the object",
    "bytes of the value",
    "bytes of the object",
    "bytes of the message",
    "bytes of all objects",
    "operations of the batch",
    "requests waiting for the lock",
    "bytes waiting for the lock",
    "streams",
    "bytes of the token",
    "epochs",
    "homes",
    "objects of the instance",
    "bytes of the instance",
];

const _: () = assert!(PART_BYTES + ITEM_BYTES_MAX + 1024 <= MESSAGE_BYTES_MAX);
const _: () = assert!(VALUE_BYTES_MAX < OBJECT_BYTES_MAX && VALUE_BYTES_MAX < COMMAND_BYTES_MAX);
