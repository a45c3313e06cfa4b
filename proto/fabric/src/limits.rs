//! Sizes that both sides of a link rely upon, each with its reason.

use std::time::Duration;

/// Bytes of payload that may be under way for one publication or subscription when the
/// reader names no other figure.
///
/// The product of bandwidth and delay: 4 MiB keep a 50 Mbit/s stream going across 600 ms,
/// and a stalled stream holds no more than this in a link's buffers.
pub const LINK_CREDIT: u64 = 4 << 20;

/// A batch of frames is closed when it holds this many bytes of payload.
///
/// Measured: at 64 KiB the cost of a gRPC message is spread far enough (0.13 cores for
/// 1.12 Gbit/s in 100 k frames a second); larger batches gain nothing and add latency.
pub const BATCH_BYTES: usize = 64 << 10;

/// A batch of frames is closed when it holds this many frames, however small they are.
///
/// 64 KiB of the smallest usual frames (AAC at 32 kbit/s, about 90 bytes) are 730.
pub const BATCH_FRAMES_MAX: usize = 1024;

/// A batch with more frames than this is an attack: an empty frame has two bytes on the
/// wire and about a hundred in memory. Far above [`BATCH_FRAMES_MAX`], so that a sender that
/// closes its batches by bytes alone is never hit.
pub const BATCH_FRAMES_TOLERATED: usize = 64 << 10;

/// The most bytes of one frame's payload: the largest message that an edge accepts from
/// a publisher.
pub const FRAME_PAYLOAD_MAX: usize = 8 << 20;

/// The most bytes of one gRPC message, to be set on both sides for both directions
/// (`max_decoding_message_size`, `max_encoding_message_size`; tonic's own limit is 4 MiB).
///
/// A batch is closed after the frame that fills it, so it may hold nearly [`BATCH_BYTES`]
/// and one of the largest frames behind them, with up to 64 bytes around each.
pub const GRPC_MESSAGE_MAX: usize = FRAME_PAYLOAD_MAX + (1 << 20);

const _: () = assert!(
    FRAME_PAYLOAD_MAX + BATCH_BYTES + BATCH_FRAMES_MAX * 64 <= GRPC_MESSAGE_MAX,
    "the fullest batch must fit into one message"
);

/// Traced frames in one batch; the traces of others end where they came from. A batch rarely
/// holds two key frames, and a peer that claims to trace every frame is not to fill our exporter.
pub const BATCH_TRACES_MAX: usize = 64;

/// A payload below this many bytes is copied out of the batch it arrived in. A batch of
/// 64 KiB is kept as long as one of its frames is, and a ring holds the audio frames of ten
/// seconds longer than their batches are worth; above it the copy costs more than it saves.
pub const COPY_BELOW: usize = 2 << 10;

/// Messages of the ledger in one gRPC message, at most. They are closed by bytes first; this
/// bounds what a peer can make us hold with empty ones.
pub const LEDGER_MESSAGES_MAX: usize = 4096;

/// A batch of the ledger's or the log's messages is closed when it holds this many bytes.
pub const LEDGER_BATCH_BYTES: usize = 256 << 10;

/// Bytes of the state in one piece of a snapshot: large enough that a piece costs little,
/// small enough that a slow link shows progress.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;

/// Bytes of a snapshot that an origin takes from another: what the ledger may hold is less.
pub const SNAPSHOT_BYTES_MAX: u64 = 4 << 30;

/// Bytes of one message between origins. An entry has at most half a megabyte, and a message
/// that is sent anew holds as many as fit into one.
pub const RAFT_MESSAGE_MAX: usize = 4 << 20;

/// Addresses that a peer may report of itself; what it reports beyond is left out.
pub const PEER_ADDRESSES_MAX: usize = 16;

/// Bytes of the name of an instance of an application, in an introduction: three names of 255
/// bytes each, and what stands between them.
pub const PEER_APP_MAX: usize = 1024;

/// Bytes of what the answer to a hello repeats. Known clients send 16.
pub const PEER_TAG_MAX: usize = 64;

/// Peers in one message of news. Each has at most a few hundred bytes.
pub const PEER_NEWS_MAX: usize = 1024;

/// An edge that says nothing for this long holds no peers any more. Its introductions would
/// come to nothing, and its peers are to be found elsewhere within two seconds.
pub const PEERS_SILENCE: Duration = Duration::from_millis(1500);

/// How often an edge says that it is there: a late message does not cost it its peers.
pub const PEERS_ALIVE: Duration = Duration::from_millis(400);
