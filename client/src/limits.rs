//! What a connection holds at most, and how long it waits.

use std::time::Duration;

/// Bytes that a publisher leaves unsent before it waits: half a second of a 2.5 Mbit/s
/// stream, so that a short stall of the network does not stop the encoder.
pub const UNSENT_MAX: usize = 160 * 1024;

/// Events that wait to be fetched. When there are more, the socket is not read, and TCP
/// slows the server down.
pub const EVENTS_WAITING_MAX: usize = 1024;

/// Room made for one read. A 2.5 Mbit/s key frame is about this big.
pub const READ_SIZE: usize = 32 * 1024;

/// Slices of one vectored write; Linux takes at most 1024.
pub const SLICES_MAX: usize = 64;

/// How long a graceful close waits for the server to close its side. Long enough for a
/// far server; a server that takes longer misses nothing.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

const _: () = assert!(SLICES_MAX <= 1024);

/// Pieces of work that wait for a connection's task. One may be a key frame; whoever has
/// more waits.
pub const TURNS_MAX: usize = 16;

/// Events that wait for the one who asked for them. When there are more, those behind
/// wait in the connection ([`EVENTS_WAITING_MAX`]).
pub const EVENTS_MAX: usize = 256;

/// How long an RTMFP handshake may take before the client goes another way. Hellos are sent
/// again after 1.5 seconds, so one may be lost; and what is left of three seconds is enough
/// for a far server to accept a connection by TCP.
pub const DATAGRAM_PATIENCE: Duration = Duration::from_millis(1800);

/// Datagrams that are taken in before others get a turn.
pub const DATAGRAMS_IN_A_ROW: usize = 64;

/// The least interval at which a server may ask us to say that we are there: RFC 7425
/// §5.3.4 has five seconds.
pub const KEEPALIVE_MIN: Duration = Duration::from_secs(5);

/// What may wait in one flow, in bytes: more than [`UNSENT_MAX`], which is what a publisher
/// waits at.
pub const FLOW_QUEUE: usize = 1024 * 1024;

const _: () = assert!(FLOW_QUEUE > UNSENT_MAX);

/// `maxPeerConnections` unless the program says otherwise, as Flash Player has it.
pub const PEERS_MAX: usize = 8;

/// What one peer may play from us at a time, and ask for. A program has a few streams.
pub const PLAYS_MAX: usize = 16;

/// Streams that one connection has for peers, of ours and of theirs.
pub const PEER_STREAMS_MAX: usize = 64;

/// Configurations of one stream that peers who come late are told: a codec's for each track.
pub const CONFIGS_MAX: usize = 16;

/// How long a client that has other servers to go to leaves its server in peace when nothing
/// comes. With [`SILENCE_MAX`] three questions are asked before it is given up, so that one
/// lost datagram does not matter.
pub const ASK_AFTER: Duration = Duration::from_secs(1);

/// A client that has other servers to go to gives up one that is silent for so long. Two
/// seconds are left then for another to be found, if it is to take no more than five.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// How long one server may take to answer before the next is asked too: longer than the way
/// to any, and the time that a server costs that is lost as well.
pub const SEEK_NEXT: Duration = Duration::from_millis(500);

/// When all servers are looked up and asked anew, while none answers.
pub const SEEK_ROUND: Duration = Duration::from_secs(4);

/// How many servers a connection may have. All of a large cluster.
pub const SERVERS_MAX: usize = 64;

/// Writes to objects that are shown until they are answered. A program that does not wait for
/// answers may have more under way; of these the oldest are shown as if they were.
pub const WRITES_TRACED_MAX: usize = 64;

/// How long a client that was asked to go elsewhere waits before it tries again, when nobody
/// takes it, or whoever takes it turns it away or sends it on. Twice as long each time.
pub const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// And at most so long. What lasts that long is well, and the pauses begin anew.
pub const FOLLOW_PAUSE_MAX: Duration = Duration::from_secs(3);

/// How long a player that has two connections waits for a frame that comes by both, before it
/// goes over without: several groups of pictures.
pub const SEAM_PATIENCE: Duration = Duration::from_secs(10);

/// Messages of the old connection that a player compares with those of the new one: some ten
/// seconds of pictures and sound.
pub const SEEN_MAX: usize = 2048;

/// And so many bytes of them.
pub const SEEN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Messages of the new connection that wait for that. When there are more, it is not read.
pub const FRESH_MAX: usize = SEEN_MAX;

/// And so many bytes of them, beside the message that is one too many: as many as of those they
/// are compared with.
pub const FRESH_BYTES_MAX: usize = SEEN_BYTES_MAX;

/// Configurations of a publish that the next server is told: as many as a server keeps of a
/// stream, which is enough for a ladder of tracks. What does not fit is published all the same,
/// but not told again.
pub const KEPT_CONFIGS_MAX: usize = 32;

/// And so many bytes of them, as a server has it too: real ones have some hundred bytes, a cover
/// picture in a data frame some hundred thousand.
pub const KEPT_CONFIG_BYTES_MAX: usize = 1024 * 1024;

/// Milliseconds, by the publisher's clock, of sound without any picture after which a publisher
/// that goes elsewhere waits for no key frame any more: the camera is off. So too for data
/// without sound and pictures. Slow cameras have a picture a second, a pause of an encoder is
/// shorter, and an old server that ends at once takes no more than this along.
pub const SEAM_SILENCE_MS: u32 = 3_000;
