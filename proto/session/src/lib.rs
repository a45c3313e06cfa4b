//! NetConnection and NetStream semantics, server and client role.

pub mod event;

pub use event::{
    Capabilities, CloseReason, Connect, Event, Notice, ObjectEncoding, Output, PlayStart,
    PlayWindow, Playback, PublishMode, Refusal, Reply, RequestId,
};
