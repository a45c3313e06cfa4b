//! An RTMP, RTMPS and RTMFP client on tokio: a [`Player`] that yields messages, a [`Publisher`] that
//! takes them, shared objects, and several servers as one.
//!
//! The protocol lives in two pure machines, `rtmp::Carrier` (bytes to messages) and
//! `session::ClientSession` (messages to events). This crate owns the socket and drives
//! them:
//!
//! ```text
//!   socket ──bytes──▶ Carrier ──messages──▶ ClientSession ──events──▶ you
//!          ◀──bytes──         ◀──messages──               ◀──calls───
//! ```
//!
//! An address of the form `rtmfp://` takes the datagram carrier instead: the same messages
//! travel in the flows of a session (`rtmfp::Endpoint`). Where nobody answers datagrams the
//! client connects by a byte stream, and says so ([`Connection::fell_back`]).
//!
//! * No task is spawned and no thread is held for them: a [`Connection`] makes progress while one
//!   of its methods is awaited, so hundreds of them in one process cost what their
//!   sockets cost. A connection that nobody awaits reads nothing, which is how a test
//!   plays the slow viewer.
//! * Every method may be dropped between two polls and called again; nothing is lost.
//! * Back-pressure: [`Publisher::send`] waits while more than [`limits::UNSENT_MAX`] bytes are unsent.
//! * Any `AsyncRead + AsyncWrite` will do instead of a socket: [`Connection::over`].
//!
//! A server that is about to end asks its clients to go elsewhere. A [`Player`] and a
//! [`Publisher`] that were opened with [`Options::following`] do so by themselves: they make the
//! new connection before they leave the old one, and what is played or published has no gap.
//!
//! Where several things share a connection, a task drives it: [`NetConnection`] is a handle to
//! it, and [`NetStream`] and [`SharedObject`] are what is on it. [`MultiConnection`] is one
//! facade over several servers of one fabric, and survives the loss of any of them. Whoever
//! drops the receiver of events does not want to know; whoever keeps it must read it.
//!
//! ```no_run
//! # use selvage_client as client;
//! # async fn demo() -> Result<(), client::Error> {
//! use client::{Options, Player, Target};
//!
//! let target: Target = "rtmp://127.0.0.1/live/a".parse()?;
//! let mut player = Player::open(&target, &Options::player()).await?;
//! while let Some(arrival) = player.next_message().await? {
//!     println!("{:?} of {} bytes", arrival.message.kind, arrival.message.payload.len());
//! }
//! # Ok(())
//! # }
//! ```

mod connection;
mod error;
mod handover;
pub mod limits;
mod multi;
mod net;
mod options;
mod peers;
mod player;
mod publisher;
mod sync;
mod tls;
mod traces;
mod transport;
mod url;

pub use connection::{Connection, FellBack};
pub use error::{Blame, Error};
pub use multi::{
    MultiConnection, MultiEvent, MultiEvents, MultiOptions, Need, ServerState, SetupStatus,
    SoOutcome, Source, SourceFrame,
};
pub use net::{
    NetConnection, NetEvent, NetEvents, NetStream, NetStreamEvents, ObjectEvent, SharedObject,
    SharedObjectEvents, StreamEvent,
};
pub use options::{Fallback, Options, Trust};
pub use peers::{NotAPeerId, PeerId};
pub use player::{Arrival, Ended, Item, Player};
pub use publisher::Publisher;
pub use session::client::{Closed, Event, PlayRequest, Rejection, Status};
pub use session::{PlayStart, PublishMode};
pub use sync::{Change, Data, SyncCode, SyncEvent, code_name};
pub use traces::{Request, Span, Tracer, What};
pub use transport::Transport;
pub use url::{Scheme, Target, UrlError};
