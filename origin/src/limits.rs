//! What a peer can make an origin hold, each bound with its reason.
//!
//! Those in [`Limits`] are settings; their defaults suit a node with 4 GiB of memory and
//! two cores. The others are what the code relies upon.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The bounds an operator may set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Links at once. An edge needs one, a few when it is very busy; the rest is room for
    /// links that are dead and not yet known to be.
    pub links: usize,
    /// Streams that are published or watched on this node. A stream that is only waited
    /// for costs some hundred bytes; this many published ones at 100 kbit/s are the 1 Gbit/s
    /// that one node carries.
    pub streams: usize,
    /// Publications of one link. As many as streams: one edge may hold all publishers.
    pub publications_per_link: usize,
    /// Subscriptions of one link. As many as streams: one edge may watch everything.
    pub subscriptions_per_link: usize,
    /// Control messages waiting to be sent on one link. An edge that asks faster than it
    /// reads the answers is cut off; honest bursts (every stream re-attached after a
    /// failure) stay below.
    pub control_per_link: usize,
    /// What is kept of one stream: 16 MiB hold 13 s at 10 Mbit/s, so a group of pictures of
    /// up to 10 s.
    #[serde(with = "node::config::bytes")]
    pub backlog_bytes: usize,
    /// How far back frames are kept in front of the newest key frame.
    #[serde(with = "node::config::duration")]
    pub backlog_time: Duration,
    /// What is kept of all streams together. When it is reached, the streams that hold more
    /// than their share forget their past: those who lag or join there wait for the
    /// next key frame.
    #[serde(with = "node::config::bytes")]
    pub backlog_total: usize,
    /// Payload that may be under way to this node for one publication.
    #[serde(with = "node::config::bytes")]
    pub publication_credit: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: 256,
            streams: 10_000,
            publications_per_link: 10_000,
            subscriptions_per_link: 10_000,
            control_per_link: 32_768,
            backlog_bytes: media::Limits::DEFAULT.bytes,
            backlog_time: Duration::from_millis(media::Limits::DEFAULT.time_ms),
            backlog_total: 2 << 30,
            publication_credit: fabric::LINK_CREDIT,
        }
    }
}

impl Limits {
    /// The bounds of one backlog.
    #[must_use]
    pub fn backlog(&self) -> media::Limits {
        media::Limits {
            bytes: self.backlog_bytes,
            time_ms: u64::try_from(self.backlog_time.as_millis()).unwrap_or(u64::MAX),
            ..media::Limits::DEFAULT
        }
    }
}

/// Bytes that may wait for one edge to read them. An edge that attaches may be sent all the
/// objects that it has open; one that lags further than this is cheaper to bring up to date
/// anew.
pub const ATTACHMENT_BYTES: usize = 64 << 20;

// All objects of an edge that attaches wait at once, and what was applied meanwhile.
const _: () = assert!(
    ledger::limits::ATTACHED_BYTES_MAX + 2 * ledger::limits::MESSAGE_BYTES_MAX < ATTACHMENT_BYTES
);
// A message of the ledger fits into one of the link.
const _: () = assert!(ledger::limits::MESSAGE_BYTES_MAX + 1024 <= fabric::GRPC_MESSAGE_MAX);

/// Messages that may wait for one edge to read them.
pub const ATTACHMENT_MESSAGES: usize = 256 << 10;

/// Publishes of one stream that are kept while somebody has not read them to their end. A
/// publisher that comes and goes faster than its watchers read costs them the oldest.
pub const INCARNATIONS_MAX: usize = 4;

/// Batches whose time of receipt is remembered for each publish. At 30 batches a second
/// this is as long as the backlog's 8 s; readers who lag further measure no latency.
pub const INGEST_TIMES_MAX: usize = 256;

/// What a frame counts beside its payload where work is shared out: about its size on the
/// wire without payload. Without it, a reader of empty frames would never have its turn.
pub const FRAME_OVERHEAD: usize = 64;

/// What one subscription may read before the next has its turn. A quarter of a batch: four
/// busy streams share every batch, and a lock is taken once for some tens of frames.
pub const QUANTUM: usize = fabric::BATCH_BYTES / 4;

/// An edge that does not greet within this is no edge.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(QUANTUM > 0 && QUANTUM <= fabric::BATCH_BYTES);

/// How long the last frames of a publish may be under way after the log has said that it is
/// over. The log takes a path of its own between an edge and its origin and may be the
/// faster; a link that is a second late is measured in lost viewers by other rules.
pub const LAST_FRAMES_GRACE: Duration = Duration::from_secs(1);

/// Commands under way whose traces are remembered, each with some 200 bytes: what an edge has under
/// way for sixteen busy clients. Of more, the oldest are not told to their end.
pub const TRACED_COMMANDS_MAX: usize = 1024;

/// Runs of entries under way that a leader measures. It writes one in each turn, and turns that wait
/// for a majority are few: of more, the oldest are not measured.
pub const COMMITS_MAX: usize = 4096;

/// RTMFP peers that an origin knows of: thirty edges with as many clients as they may have. An
/// entry has some 300 bytes, so all of them have 150 MB.
pub const PEERS_MAX: usize = 500_000;

/// Those of one edge: four times as many clients as an edge takes by its own default.
pub const PEERS_PER_EDGE: usize = 64_000;

/// Introductions that edges were asked for and have not answered. They answer in some
/// milliseconds.
pub const INTRODUCTIONS_MAX: usize = 4096;

/// How long such an answer is waited for. Who asked gives up before.
pub const INTRODUCTION_TIME: Duration = Duration::from_secs(1);

/// Messages about peers that wait for one edge to read them. What finds no room is not said:
/// who wants to talk with a peer asks again.
pub const PEERS_QUEUE: usize = 1024;
