//! NetConnection and NetStream semantics, server and client role.

mod call;
pub mod client;
mod command;
mod connect;
mod connection;
pub mod error;
pub mod event;
pub mod limits;
pub mod name;
mod outbox;
mod ping;
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
