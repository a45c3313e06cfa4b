//! What a session tells its owner.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::address::Address;
use crate::flow::{Delivered, MessageId, ReceiveId, SendId};

/// What happened in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The far end opened a flow. Its messages follow in original order, until
    /// [`crate::session::Session::set_order`] says otherwise.
    FlowOpened {
        /// The flow.
        flow: ReceiveId,
        /// What the far end says it is.
        metadata: Bytes,
        /// The flow of ours that it answers.
        association: Option<SendId>,
    },
    /// A message came.
    Message {
        /// In which flow.
        flow: ReceiveId,
        /// The message.
        message: Delivered,
    },
    /// A flow of the far end's is over and all of its messages were handed out.
    FlowComplete {
        /// The flow.
        flow: ReceiveId,
    },
    /// A flow of the far end's was rejected here, because a message in it was too long or
    /// an option of it is not understood.
    FlowBroken {
        /// The flow.
        flow: ReceiveId,
    },
    /// The far end does not want a flow of ours: it is closed, and what waited in it is
    /// given up.
    FlowRejected {
        /// The flow.
        flow: SendId,
        /// What the far end's application says about it; zero otherwise.
        code: u64,
    },
    /// A flow of ours that was closed is over, and the far end knows.
    FlowFinished {
        /// The flow.
        flow: SendId,
    },
    /// A flow that refused a message has room again.
    Writable {
        /// The flow.
        flow: SendId,
    },
    /// A message was given up because it was late. Fragments of it may have been sent.
    Late {
        /// In which flow.
        flow: SendId,
        /// The message.
        message: MessageId,
    },
    /// The far end forwards someone who wants to talk with us.
    ForwardedHello {
        /// Whom it is for.
        discriminator: Bytes,
        /// Where the initiator was seen.
        reply: Address,
        /// What the answer is to repeat.
        tag: Bytes,
    },
    /// The far end's address changed, and it was proved that it did.
    Moved {
        /// Where it was.
        from: SocketAddr,
        /// Where it is.
        to: SocketAddr,
    },
    /// The session is over; no other event follows. It may still have packets to send and
    /// to answer for a while: see [`crate::session::Session::is_closed`].
    Closed {
        /// Why.
        why: Closed,
    },
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It was closed here.
    Here,
    /// The far end closed it.
    There,
    /// Nothing came from the far end for too long.
    Silent,
    /// The far end is there, but acknowledges nothing.
    Unacknowledged,
}
