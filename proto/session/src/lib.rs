//! NetConnection and NetStream semantics, server and client role.
//!
//! A carrier (RTMP over TCP, HTTP or TLS) yields [`rtmp::Message`]s. This crate knows
//! what they mean: which command answers which, in what order the status messages of a
//! play come, what a publisher may send and when a peer is gone. It does not know where
//! streams are; that is asked.
//!
//! ```text
//!            messages, time               events
//!   carrier ───────────────▶ ServerSession ──────────▶ shell ──▶ the fabric
//!           ◀───────────────               ◀──────────       ◀──
//!               messages                replies, notices
//! ```
//!
//! [`ServerSession`] is the server's half and the subject of this page, [`ClientSession`]
//! the client's. Both are pure: bytes and the time come in as arguments.
//!
//! # Driving a server session
//!
//! 1. Make it when the carrier's handshake is done.
//! 2. Change it by one call: a message ([`ServerSession::handle_message`]), a reply
//!    ([`ServerSession::handle_reply`]), a notice ([`ServerSession::handle_notice`]), the
//!    time ([`ServerSession::handle_timeout`]), or a command of the shell
//!    ([`ServerSession::close`]). `now` never goes back.
//! 3. Drain [`ServerSession::poll_output`] until it is `None`, and do what it says in
//!    that order: messages go to the carrier, events to whoever can decide. A reply may
//!    be given at once, in the middle of the draining; what it causes is queued behind.
//! 4. Read [`ServerSession::deadline`], and wait for whatever comes first.
//!
//! The session is over after [`Event::Closed`] or after an error that
//! [is fatal](Error::is_fatal): write what is queued, close the connection, and clean up
//! what its streams held. It ignores everything from then on.
//!
//! # Questions and answers
//!
//! An event with a [`RequestId`] is a question. It is answered at most once by
//! `handle_reply`; an answer to a question that the peer withdrew in the meantime
//! ([`Event::Finished`]) is ignored, so the shell need not care about the race.
//!
//! A publish or a play begins with its event and ends in exactly one way:
//!
//! | it ends by | the shell hears |
//! |---|---|
//! | the shell's `Refuse` | nothing more |
//! | the peer (`closeStream`, `deleteStream`, another play) | [`Event::Finished`] |
//! | a notice ([`Notice::Complete`], `Superseded`, `Lost`) | nothing more |
//! | the end of the session | nothing more |
//!
//! # What is the carrier's
//!
//! Window, bandwidth and chunk size are carrier matters. Flash Media Server announces
//! them between `connect` and its `_result`, so the shell does so on the carrier right
//! before it replies `Accept` to [`Event::Connect`]. What follows (StreamBegin of stream
//! 0, `_result`, `onBWDone`) is the session's.
//!
//! # Example
//!
//! A client connects and publishes.
//!
//! ```
//! # use selvage_session as session;
//! use amf::Value;
//! use rtmp::{Message, MessageKind, StreamId};
//! use session::{Event, Output, Reply, ServerSession, ServerSetup};
//!
//! fn command(stream: u32, values: &[Value]) -> Message {
//!     Message {
//!         kind: MessageKind::CommandAmf0,
//!         stream: StreamId(stream),
//!         time: 0,
//!         payload: amf::amf0::write_all(values).unwrap(),
//!     }
//! }
//!
//! let now = std::time::Instant::now();
//! let mut session = ServerSession::new(ServerSetup::new(7), now);
//! let client = [
//!     command(
//!         0,
//!         &["connect".into(), 1.0.into(), Value::object([("app", Value::from("live"))])],
//!     ),
//!     command(0, &["createStream".into(), 2.0.into(), Value::Null]),
//!     command(1, &["publish".into(), 0.0.into(), Value::Null, "cam?key=s3cret".into()]),
//! ];
//! let mut published = None;
//! for message in client {
//!     session.handle_message(message, now)?;
//!     while let Some(output) = session.poll_output() {
//!         match output {
//!             Output::Message(_) => {} // carrier.write_message(..)
//!             Output::Event(Event::Connect { request, connect }) => {
//!                 assert_eq!(connect.at.to_string(), "live/_definst_");
//!                 session.handle_reply(request, Reply::Accept, now)?;
//!             }
//!             Output::Event(Event::Publish { request, key, query, .. }) => {
//!                 assert_eq!(query, "key=s3cret");
//!                 published = Some(key.to_string());
//!                 session.handle_reply(request, Reply::Accept, now)?;
//!             }
//!             Output::Event(_) => {}
//!         }
//!     }
//! }
//! assert_eq!(published.as_deref(), Some("live/_definst_/cam"));
//! # Ok::<(), session::Error>(())
//! ```
//!
//! # What it is deliberately not
//!
//! It does not authenticate, look up streams, or judge media: it asks. It does not keep
//! shared objects either: what a client asks of one goes out as [`Event::Object`], and
//! what a subscriber is to be told comes in by [`ServerSession::handle_object`].

mod call;
pub mod client;
mod command;
mod connect;
mod connection;
pub mod error;
pub mod event;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod name;
pub mod object;
mod outbox;
mod ping;
mod refusal;
mod request;
pub mod server;
pub mod status;
mod stream;

pub use client::ClientSession;
pub use error::{Error, Limit, Misbehaviour, Misuse};
pub use event::{
    Capabilities, CloseReason, Connect, Event, Notice, ObjectEncoding, Output, PlayStart,
    PlayWindow, Playback, PublishMode, Refusal, Reply, RequestId,
};
pub use server::{SampleAccess, ServerSession, ServerSetup};
