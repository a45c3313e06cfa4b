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
