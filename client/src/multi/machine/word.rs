//! The words that the machine is spoken to in, and speaks.

use bytes::Bytes;
use model::object::{ObjectAsk, ObjectStatus};
use model::{ObjectKind, ObjectName, SlotName, SlotValue, Version};

/// Names a set or a send of the program until it is settled.
pub(in crate::multi) type Ticket = u64;

/// How many servers must be there for the setup to succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Need {
    /// All, in time; otherwise the facade is closed again. As the original does.
    #[default]
    All,
    /// One. The others are dialled until they are there.
    One,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::multi) enum Output {
    /// Connect to the server; [`Machine::up`] or [`Machine::down`] answers.
    Dial(usize),
    /// Give the server's connection up, or the attempt to make one.
    HangUp(usize),
    /// Ask the server for a sign of life.
    Ping(usize),
    /// Tell the server which number the next request has; [`Machine::resumed`] answers.
    Resume { server: usize, next: u64 },
    /// Ask the server for something about an object.
    Ask {
        server: usize,
        object: ObjectName,
        kind: ObjectKind,
        version: Version,
        ask: ObjectAsk,
    },
    /// Tell the program.
    Tell(Told),
    /// A set or a send is settled.
    Settle(Ticket, Settled),
}

/// What the program is told.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::multi) enum Told {
    Setup {
        complete: bool,
    },
    Server {
        server: usize,
        state: ServerState,
    },
    Sync {
        object: ObjectName,
        version: Version,
        steps: Vec<Step>,
    },
    Send {
        object: ObjectName,
        payload: Bytes,
    },
    Status {
        object: ObjectName,
        server: usize,
        status: ObjectStatus,
    },
}

/// How a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It is being connected to.
    Dialling,
    /// It is connected and stands by.
    Standby,
    /// Writes go through it, and what is told comes from it.
    Primary,
    /// There is no connection to it, and why; it is dialled again after a pause.
    Lost(String),
    /// It is connected and does not continue numbered requests: what was under way when
    /// another server was lost may be applied twice.
    Unnumbered(String),
    /// It is closed.
    Closed,
}

/// One change of a sync event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::multi) struct Step {
    pub(in crate::multi) code: StepCode,
    pub(in crate::multi) slot: Option<SlotName>,
    pub(in crate::multi) value: Option<SlotValue>,
    pub(in crate::multi) old: Option<SlotValue>,
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::multi) enum StepCode {
    Clear,
    Success,
    Reject,
    Change,
    Delete,
}

/// How a set or a send ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::multi) enum Settled {
    /// It is made; the object's version after it.
    Success(Version),
    /// Somebody else was first; what the slot has.
    Reject(Option<SlotValue>),
    /// The server refused it with this status; it is not made, unless that is `Undecided`.
    Refused(ObjectStatus),
    /// Nobody answered in time. If it is made nevertheless, it comes as a change.
    Undecided,
    /// It was never asked for, because no server could be reached.
    Unreachable,
    /// Another set of the slot by this program took its place before it was asked for.
    Replaced,
}

/// Too much waits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::multi) struct Full;
