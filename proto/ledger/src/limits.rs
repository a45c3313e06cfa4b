//! What the replicated state may hold. Every origin must have the same limits, so they are
//! constants: a limit that is changed changes what the log means.

/// Slots of one object. A room of a few hundred users with some slots each fits.
pub const SLOTS_MAX: usize = 4096;

/// Bytes of one slot's value: a nested object with a few thousand fields.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of all slots of one object, names and values: what a newcomer must be sent at once.
pub const OBJECT_BYTES_MAX: usize = 1024 * 1024;

/// Objects in the cluster.
pub const OBJECTS_MAX: usize = 100_000;

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

/// Bytes of one message between an edge and its origin. An edge that attaches may be
/// brought up to date about all it holds at once.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What [`Answer::Full`](crate::Answer::Full) can name, as it is written down: a new name
/// goes to the end.
pub const LIMIT_NAMES: [&str; 15] = [
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
];

const _: () = assert!(VALUE_BYTES_MAX < OBJECT_BYTES_MAX && VALUE_BYTES_MAX < COMMAND_BYTES_MAX);
