//! Everything a client or an origin can make an edge hold has a bound here.

use std::time::Duration;

/// Bytes waiting for one client above which nothing more is read from it and no more
/// media is taken for it: its lag stays in its cursor, where it costs nothing.
pub const OUTBOX_HIGH_WATER: usize = 256 * 1024;

/// Bytes waiting for one client above which it is closed. Media stops at the high-water mark
/// and the one frame that crosses it; what goes beyond are replies to its own commands.
pub const OUTBOX_MAX: usize = 16 * 1024 * 1024;
const _: () = assert!(OUTBOX_HIGH_WATER + rtmp::limits::MESSAGE_MAX < OUTBOX_MAX);

/// Bytes waiting for one client above which changes of its objects are merged instead of
/// queued. Below it everybody is given the same bytes.
pub const OBJECTS_HIGH_WATER: usize = 64 * 1024;
const _: () = assert!(OBJECTS_HIGH_WATER < OUTBOX_HIGH_WATER);

// What a publisher may send in one message must fit into one frame of the fabric.
const _: () = assert!(rtmp::limits::MESSAGE_MAX <= fabric::limits::FRAME_PAYLOAD_MAX);

/// Slices handed to one `writev`. Linux takes 1,024; beyond some dozens nothing is won.
pub const WRITE_SLICES: usize = 64;

/// The shared read buffer of a shard. One read takes at most this.
pub const READ_BUFFER: usize = 64 * 1024;

/// Over how long the clients of an edge that drains are asked to go elsewhere, or over a quarter
/// of the grace time if that is less. Ten thousand then come to the others at two thousand in a
/// second, which one of them alone could take.
pub const RECONNECT_SPREAD: Duration = Duration::from_secs(5);

/// A client that takes no byte for this long while we have some for it is gone.
pub const WRITE_STALL: Duration = Duration::from_secs(30);

/// Bytes of a publisher that are read but not yet given to an origin, above which its
/// socket is not read: TCP then slows the encoder.
pub const UPLINK_LAG_MAX: u64 = 4 * 1024 * 1024;

/// What a publisher's replay keeps: enough to bridge the loss of an origin.
pub const REPLAY_BYTES: usize = 16 * 1024 * 1024;

/// How far back the replay reaches before the newest key frame, milliseconds of media. A
/// hung origin is noticed after the link's ping interval and timeout, 5 s by default; the
/// replay must reach further back, or its subscribers lack frames.
pub const REPLAY_TIME_MS: u64 = 8_000;

/// Messages a shard takes from its inbox before it looks at its viewers: bounds the
/// delay that a flood of one stream can cause to another.
pub const INBOX_BATCH: usize = 256;

/// Viewers of one shard that are watched for one traced frame: enough to tell those who are
/// slow from a slow edge, few enough to cost nothing beside the writes to all.
pub const TRACED_VIEWERS_MAX: usize = 8;

/// Operators who wait for traces of one publish at a time.
pub const TRACES_ASKED_MAX: usize = 16;

/// Frames of one stream that are traced because `trace.frames` says so are at least so far apart: a
/// publisher that sends nothing but key frames is not to fill our exporter.
pub const TRACES_APART: Duration = Duration::from_millis(250);

/// Key frames that an operator may ask for at once. Who wants more sets `trace.frames`.
pub const TRACE_FRAMES_MAX: u32 = 100;

/// How long an operator waits for the key frames that are to be traced. Encoders send one every
/// ten seconds at least, nearly all of them.
pub const TRACE_PATIENCE: Duration = Duration::from_secs(15);

/// Writes of one client whose traces are told to their end. More are under way only of a client that
/// does not wait for answers; of these the oldest are given up.
pub const TRACED_WRITES_MAX: usize = 64;

/// Messages to all of one request whose coming back is waited for in its trace. More come of nobody but one
/// who wants to keep us busy.
pub const TRACED_MESSAGES_MAX: usize = 16;

/// Calls of methods that do not exist are shown in traces so often in a row, and then once in a while: they
/// cost a client nothing, and would drive the spans of others out of the queue.
pub const STRAY_CALLS_SHOWN: u32 = 64;

/// Connections whose PROXY header has not come yet. A load balancer sends it at once, so this many
/// only wait when somebody sends none; each costs a socket and a buffer of its header.
pub const PROXY_HEADERS_MAX: usize = 1024;

/// Connections that the kernel has completed and that are not accepted yet.
pub const ACCEPT_QUEUE: u32 = 1024;

/// What may wait in one flow to a client, in bytes: two seconds of a good picture, after
/// which what is late is given up. More waits where it is read from.
pub const FLOW_QUEUE: usize = 1024 * 1024;

/// Datagrams that came to another shard than their session's and wait to be taken. A client
/// whose address changed sends some dozen at once.
pub const STRAYS_MAX: usize = 1024;

/// Hellos for peers that one address may send in a second. A client that joins a group asks
/// for some twenty peers at once, and there may be several behind one address translator.
pub const SOURCE_RATE: u32 = 100;

/// Hellos that are handed to one peer in a second. Whoever is left out asks again, and a
/// peer that everybody wants at once could not answer more.
pub const PEER_RATE: u32 = 32;

/// Those of one address for one peer: an initiator asks again after 1.5 s, and nobody is to use up
/// alone what a peer is told.
pub const PAIR_RATE: u32 = 8;

/// Senders, and peers, whose hellos are counted at a time. A shard hears a thousand such hellos
/// in a second at most, and who has sent none for a second is forgotten.
pub const PEERS_RATED_MAX: usize = 1 << 16;

/// Addresses of who asks that a peer is told: where it was seen, and the first it reports of
/// itself. The peer answers each, and anybody's address may be reported.
pub const FORWARDED_ADDRESSES_MAX: usize = 4;

// All hellos of a second may come at once.
const _: () =
    assert!(PEER_RATE as usize * FORWARDED_ADDRESSES_MAX <= rtmfp::limits::OWNERS_CHUNKS_MAX);

/// When a peer is handed a hello from another edge once more. By then who asked has been told
/// where the peer is, and has sent something there.
pub const FORWARD_AGAIN: Duration = Duration::from_millis(200);

/// By how much a peer at another edge is told of who asks before that one is told of the peer:
/// longer than a busy shard or client takes to do something, and little to one who waits.
pub const REDIRECT_AFTER: Duration = Duration::from_millis(40);

/// Introductions of which something is put off. Beyond that who asks has to do so again.
pub const PUT_OFF_MAX: usize = 1024;

const _: () = assert!(REDIRECT_AFTER.as_millis() < FORWARD_AGAIN.as_millis());

/// Peers that are being looked for at origins. An answer takes some milliseconds.
pub const SEEKS_MAX: usize = 1024;

/// How long an origin has to say where a peer is before another is asked. Between them lie
/// two ways through a network of the cluster's own; who asks does so again after 1.5 s.
pub const SEEK_TIMEOUT: Duration = Duration::from_millis(300);

/// How long it is believed that a peer is nowhere. Less than the 1.5 s after which a client
/// asks again.
pub const ABSENT_TIME: Duration = Duration::from_millis(500);

/// Peers of whom that is remembered.
pub const ABSENT_MAX: usize = 4096;

/// How often an origin is told of what changed, so that a client that changes again and again
/// costs no more than others. Much less than the two seconds in which a change must be known.
pub const PEERS_PACE: Duration = Duration::from_millis(20);

/// Peers that an origin is told of in one message.
pub const PEERS_BATCH: usize = 256;
const _: () = assert!(PEERS_BATCH <= fabric::limits::PEER_NEWS_MAX);
