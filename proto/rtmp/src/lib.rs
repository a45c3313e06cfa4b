//! The RTMP byte carrier: handshake, chunks, messages.
//!
//! A [`Carrier`] turns the bytes of one TCP connection into [`Message`]s and back. It owns
//! no socket and no clock: the shell that reads and writes the socket feeds it.
//!
//! ```text
//!  socket ──bytes──▶ handle_bytes ─▶ handshake ─▶ chunk reader ─▶ control │ aggregate ─▶ poll_message
//!  socket ◀─bytes── poll_transmit ◀─ handshake ◀─ chunk writer ◀──────────┴──────── write_message
//! ```
//!
//! # What goes on inside
//!
//! * The [`handshake`], as a client or as a server, plain or with digests.
//! * Chunks: every header format, interleaving, chunk sizes of both directions.
//! * Protocol control messages (types 1, 2, 3, 5, 6): they act here and never leave.
//!   Acknowledgements are sent on time.
//! * Aggregates (type 22) leave as the messages they hold.
//! * A message of an unknown type is counted and forgotten.
//!
//! What is above (commands, streams, pings) is not known here. There is no RTMPE and no
//! RTMPT; TLS is the shell's.
//!
//! # How it is driven
//!
//! 1. Append what the socket gives to a `BytesMut` and call [`Carrier::handle_bytes`]. It
//!    takes bytes off the front; keep what it leaves.
//! 2. Drain [`Carrier::poll_message`].
//! 3. Drain [`Carrier::poll_transmit`] to the socket, also after every write. When more
//!    than a high-water mark waits in [`Carrier::transmit_len`], stop reading.
//!
//! An error is final: the connection is to be closed.
//!
//! # Memory and copies
//!
//! The body of a message that came in one chunk and in one read is a slice of the read
//! buffer; others are put together with one copy. Bodies below
//! [`limits::COPY_BELOW`] are copied so that they do not keep the buffer alive. On the way
//! out a long part of a body is queued by reference. Whatever a header announces, memory
//! grows only with bytes that came: see [`limits`].
//!
//! For many readers of one message, build its bytes once with [`chunk::image`]. They
//! depend on nothing that was sent before.
//!
//! # Example
//!
//! ```
//! # use selvage_rtmp as rtmp;
//! use bytes::{Bytes, BytesMut};
//! use rtmp::{Carrier, Message, MessageKind, StreamId};
//!
//! /// Carries over all that one side has to send.
//! fn deliver(from: &mut Carrier, to: &mut Carrier, wire: &mut BytesMut) {
//!     while let Some(bytes) = from.poll_transmit() {
//!         wire.extend_from_slice(&bytes);
//!     }
//!     to.handle_bytes(wire).unwrap();
//! }
//!
//! let (mut client, mut server) = (Carrier::client(1), Carrier::server(2));
//! let (mut up, mut down) = (BytesMut::new(), BytesMut::new());
//! let sent = Message {
//!     kind: MessageKind::Audio,
//!     stream: StreamId(1),
//!     time: 40,
//!     payload: Bytes::from_static(&[0xaf, 1, 2, 3]),
//! };
//! client.write_message(&sent);
//! while !(client.is_open() && server.is_open()) {
//!     deliver(&mut client, &mut server, &mut up);
//!     deliver(&mut server, &mut client, &mut down);
//! }
//! deliver(&mut client, &mut server, &mut up);
//! assert_eq!(server.poll_message(), Some(sent));
//! ```

mod aggregate;
mod carrier;
pub mod chunk;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
pub mod limits;
pub mod message;
mod window;

pub use carrier::Carrier;
pub use error::{Blame, Error};
pub use message::{Message, MessageKind, StreamId, UserControl};
