//! What goes into a [`Replica`](super::Replica) and what comes out.

use std::sync::Arc;
use std::time::Duration;

use model::object::ObjectUpdate;
use model::{EdgeId, Epoch, ObjectKey, SessionId, StreamKey};

use crate::effect::StreamState;
use crate::wire::ToOrigin;

/// How a replica is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The edge's name.
    pub edge: EdgeId,
    /// Where incarnations and the edge's own sessions are drawn from. Different in each
    /// life of the process.
    pub seed: u64,
    /// When the process began, in seconds of any clock that seldom goes back: a later life
    /// is known as such at once. One that seems to be earlier is told so and takes longer.
    pub born: u32,
    /// How long a client waits for what became of a write, a message or a lock.
    pub write_wait: Duration,
    /// How long a client waits for its subscription.
    pub open_wait: Duration,
    /// How long an object stays open after its last subscriber here left.
    pub linger: Duration,
}

impl Setup {
    /// The usual times: 5 s for a write, 10 s for a subscription, 5 s of lingering.
    #[must_use]
    pub fn new(edge: EdgeId, seed: u64) -> Self {
        Self {
            edge,
            seed,
            born: 0,
            write_wait: Duration::from_secs(5),
            open_wait: Duration::from_secs(10),
            linger: Duration::from_secs(5),
        }
    }
}

/// One client connection, numbered by the shell. A number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u64);

/// A remote call of a client, numbered by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The connection.
    pub id: SubscriberId,
    /// The client's own session, if it is durable. It speaks in it from
    /// [`handle_resume`](super::Replica::handle_resume) on; any other has one from the edge.
    pub session: SessionId,
    /// Whether the session is the client's own, with which it may come back at another edge.
    pub durable: bool,
}

/// What the client may do with the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Subscribe.
    pub read: bool,
    /// Change it, send to it, lock it.
    pub write: bool,
}

impl Access {
    /// Everything.
    pub const FULL: Self = Self {
        read: true,
        write: true,
    };
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the origin, in order.
    ToOrigin(ToOrigin),
    /// Tell these subscribers.
    Update {
        /// Whom.
        to: Recipients,
        /// Of which object.
        key: ObjectKey,
        /// What.
        update: Arc<ObjectUpdate>,
    },
    /// A call is answered.
    CallAnswer {
        /// Whose.
        subscriber: SubscriberId,
        /// Which.
        call: CallId,
        /// How.
        result: CallResult,
    },
    /// Something became of a claim.
    Claim {
        /// The shell's number for it.
        publication: u64,
        /// What.
        outcome: ClaimOutcome,
    },
    /// Somebody else wants the name: ask the publisher whether it lives, then call
    /// [`affirm`](super::Replica::affirm) or [`release`](super::Replica::release).
    Challenged {
        /// The shell's number for it.
        publication: u64,
    },
    /// Close this client's connection: it numbers its requests itself, and so many wait that
    /// the next would be lost count of. It was told nothing of that one, and whatever else it
    /// asks is not heard. It is still to be said that it [left](super::Replica::handle_left).
    Dismiss(SubscriberId),
    /// A followed stream stands like this.
    Stream {
        /// Which.
        key: StreamKey,
        /// How.
        state: StreamState,
    },
    /// Another origin may do better: attach there if there is one. The attachment goes on
    /// until then.
    Reattach,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// One.
    One(SubscriberId),
    /// All of these but for one. The list is shared by all updates of the object until a
    /// subscriber comes or goes.
    Many {
        /// These, ascending.
        subscribers: Arc<[SubscriberId]>,
        /// Not this one.
        except: Option<SubscriberId>,
    },
}

impl Recipients {
    /// Them, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = SubscriberId> {
        let (list, except) = match self {
            Self::One(one) => (std::slice::from_ref(one), None),
            Self::Many {
                subscribers,
                except,
            } => (&subscribers[..], *except),
        };
        list.iter().copied().filter(move |id| Some(*id) != except)
    }
}

/// What became of a lock or an unlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// The lock is the client's.
    Locked {
        /// Which.
        token: u64,
    },
    /// One level is given back.
    Unlocked,
    /// The client has no lock to give back (any more).
    NotLocked,
    /// The client does not subscribe to the object.
    NotSubscribed,
    /// The client may not write to the object.
    NoAccess,
    /// A limit; nothing happened.
    Full,
    /// Nothing happened, because no majority of the origins is in reach.
    Unavailable,
    /// It was not decided in time. A lock that is granted later is given back; that of a
    /// durable session, whose numbers are its client's, ends with its lease.
    Undecided,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The name is the publisher's. Said again with another epoch when the ledger lost it
    /// and granted it anew: the publish starts anew.
    Granted {
        /// The publish.
        epoch: Epoch,
        /// Whether it follows a publisher with the same token, whose viewers go on.
        takeover: bool,
    },
    /// Another publisher with the same token has it; this one is next.
    Standby,
    /// Another has it, or a limit is reached. The claim is over.
    Refused,
    /// It was held and is not any more: another may hold it. The claim is over.
    Ended {
        /// The publish.
        epoch: Epoch,
    },
    /// The ledger forgot this edge, and with it the grant. The name is claimed anew, and
    /// another outcome follows; until then nothing may be published.
    Lost,
}

/// What an origin must not do. The shell ends the attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// It spoke before it said that the edge is attached.
    NotAttached,
    /// It said twice that the edge is attached.
    AttachedTwice,
    /// Its state is older than what the edge has seen.
    Behind,
    /// It said more than there can be.
    TooMuch,
    /// It answered a question that was not asked.
    UnknownBarrier(u64),
    /// It answered a request with what cannot be an answer to it.
    WrongAnswer {
        /// Whose request.
        session: SessionId,
        /// Its number.
        seq: u64,
    },
}

impl std::fmt::Display for Misbehaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAttached => f.write_str("the origin spoke before it attached the edge"),
            Self::AttachedTwice => f.write_str("the origin attached the edge twice"),
            Self::Behind => f.write_str("the origin's state is older than what the edge has seen"),
            Self::TooMuch => f.write_str("the origin said more than there can be"),
            Self::UnknownBarrier(id) => {
                write!(f, "the origin answered barrier {id}, which was not asked")
            }
            Self::WrongAnswer { session, seq } => write!(
                f,
                "the origin answered request {seq} of session {session} with what is no answer to it"
            ),
        }
    }
}

impl std::error::Error for Misbehaviour {}
