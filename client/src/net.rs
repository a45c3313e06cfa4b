//! NetConnection: one task per connection, and handles to it that may be cloned.
//!
//! ```text
//!   NetConnection ─┐                      ┌─▶ NetEvents           calls, statuses
//!   NetStream ─────┼─ turns ─▶ the task ──┼─▶ NetStreamEvents     messages, statuses
//!   SharedObject ──┘     (Connection)     └─▶ SharedObjectEvents  sync events, sends
//! ```
//!
//! All queues are bounded. A receiver that is not read holds up what comes behind it, and
//! in the end the socket; one that is dropped holds up nothing.

mod direct;
mod object;
mod stream;
mod task;

use std::sync::{Arc, OnceLock};

use amf::Value;
use model::SessionId;
use session::RequestId;
use session::client::{Status, Welcome};
use session::object::ObjectMessage;
use tokio::sync::{mpsc, oneshot};

use self::task::{Task, Turn};
use crate::connection::Over;
use crate::limits::{EVENTS_MAX, TURNS_MAX};
use crate::{Connection, Error, FellBack, Options, PeerId, Scheme, Target, What};

pub use self::object::{ObjectEvent, SharedObject, SharedObjectEvents};
pub use self::stream::{NetStream, NetStreamEvents, StreamEvent};

/// A connection whose `connect` was accepted, driven by a task of its own.
///
/// Clones are handles to the same connection. It is closed by [`Self::close`], or when the
/// last handle to it and to its streams and objects is gone.
#[derive(Clone, Debug)]
pub struct NetConnection {
    desk: Desk,
}

/// What the server says to the connection itself. It ends when the connection does.
#[derive(Debug)]
pub struct NetEvents {
    events: mpsc::Receiver<NetEvent>,
    over: Arc<OnceLock<Over>>,
}

/// Something that the server says to the connection itself.
#[derive(Clone, Debug, PartialEq)]
pub enum NetEvent {
    /// `onStatus` of the connection.
    Status(Box<Status>),
    /// The server calls a method of ours.
    Call {
        /// To be answered by [`NetConnection::answer`]; absent when the server wants no
        /// answer.
        request: Option<RequestId>,
        /// The method's name.
        name: String,
        /// The arguments.
        args: Vec<Value>,
    },
    /// The server is lost, and another is looked for ([`Options::others`]). What is with peers
    /// goes on; the streams and shared objects that the server had for us are over, and
    /// what it was asked is not answered. Until [`Self::Rejoined`] nothing can be asked.
    ///
    /// The search ends, and the connection with it, when none is found within
    /// [`Options::patience`] and there is no peer either.
    Lost {
        /// What became of the server.
        why: String,
    },
    /// Another server is found, or the same again. Peers know us by the ID that we had.
    Rejoined {
        /// Which one.
        to: Target,
    },
}

impl NetConnection {
    /// Connects and waits until `connect` is accepted.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn connect(target: &Target, options: &Options) -> Result<(Self, NetEvents), Error> {
        Ok(Self::drive(Connection::open(target, options).await?))
    }

    /// Gives a connection to a task of its own. Must be called within a tokio runtime.
    #[must_use]
    pub fn drive(connection: Connection) -> (Self, NetEvents) {
        Self::start(connection, None)
    }

    /// As [`Self::drive`]; what the server says about objects that are not in use goes to
    /// `tap` as it came.
    pub(crate) fn tapped(
        connection: Connection,
        tap: mpsc::Sender<Box<ObjectMessage>>,
    ) -> (Self, NetEvents) {
        Self::start(connection, Some(tap))
    }

    fn start(
        connection: Connection,
        tap: Option<mpsc::Sender<Box<ObjectMessage>>>,
    ) -> (Self, NetEvents) {
        let (turns, inbox) = mpsc::channel(TURNS_MAX);
        let (leave, left) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let over = Arc::new(OnceLock::new());
        let desk = Desk {
            turns,
            leave,
            over: Arc::clone(&over),
            welcome: connection.welcome().cloned().map(Arc::new),
            carried: Arc::new(Carried {
                scheme: connection.scheme(),
                fell_back: connection.fell_back().cloned(),
                near_id: connection.near_id(),
                far_id: connection.far_id(),
            }),
            of: None,
        };
        let task = Task::new(connection, sender, tap, Arc::clone(&over));
        tokio::spawn(task.run(inbox, left));
        (Self { desk }, NetEvents { events, over })
    }

    /// What the server said when it accepted `connect`; the first one, if there were several.
    #[must_use]
    pub fn welcome(&self) -> Option<&Welcome> {
        self.desk.welcome.as_deref()
    }

    /// How it is carried (`NetConnection.protocol`).
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.desk.carried.scheme
    }

    /// Why it is not by datagrams, though its address asked for them.
    #[must_use]
    pub fn fell_back(&self) -> Option<&FellBack> {
        self.desk.carried.fell_back.as_ref()
    }

    /// Who we are to peers (`NetConnection.nearID`). None without RTMFP.
    #[must_use]
    pub fn near_id(&self) -> Option<PeerId> {
        self.desk.carried.near_id
    }

    /// Who the server is (`NetConnection.farID`); the first one, if there were several. None
    /// without RTMFP.
    #[must_use]
    pub fn far_id(&self) -> Option<PeerId> {
        self.desk.carried.far_id
    }

    /// Changes how many peer connections there may be (`maxPeerConnections`). Those that
    /// there are stay.
    ///
    /// # Errors
    /// [`Error::NoPeers`] without RTMFP, or why the connection failed.
    pub async fn set_max_peer_connections(&self, max: usize) -> Result<(), Error> {
        self.desk
            .with(move |task| task.with_peers(|peers, endpoint, _| peers.set_max(endpoint, max)))
            .await
    }

    /// Whether the connection has not ended yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.desk.over.get().is_none()
    }

    /// Calls a method of the server's and waits for the answer.
    ///
    /// # Errors
    /// [`Error::CallFailed`] with the server's words, or why the connection failed.
    pub async fn call(
        &self,
        name: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<Value, Error> {
        let (name, args) = (name.to_owned(), Vec::from_iter(args));
        self.desk
            .ask(move |task, answer| {
                let traced = task.connection.trace(What::Call, &name);
                let call = task.session().call(&name, args);
                task.follow(&call, traced);
                task.expect(call, answer);
            })
            .await?
    }

    /// Calls a method of the server's without wanting an answer.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn notify(
        &self,
        name: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        let (name, args) = (name.to_owned(), Vec::from_iter(args));
        self.desk
            .with(move |task| Ok(task.session().notify(&name, args)?))
            .await
    }

    /// Answers a call of the server's ([`NetEvent::Call`]).
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn answer(
        &self,
        request: RequestId,
        answer: Result<Value, String>,
    ) -> Result<(), Error> {
        self.desk
            .with(move |task| Ok(task.session().answer(request, answer)?))
            .await
    }

    /// Waits for a sign that the server lives: the answer to a PingRequest. Servers that do
    /// not answer any are as silent as dead ones.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn ping(&self) -> Result<(), Error> {
        self.desk.ask(Task::ping).await
    }

    /// Says goodbye for every stream, sends all that waits and closes the connection, for
    /// every handle to it.
    ///
    /// # Errors
    /// Why it could not be done in good order; the connection is closed anyway.
    pub async fn close(&self) -> Result<(), Error> {
        match self.desk.ask(Task::close).await {
            Ok(closed) => closed,
            // It has ended already, which is what was wanted.
            Err(_) => Ok(()),
        }
    }

    /// Continues a session that other connections share, at this number.
    pub(crate) async fn resume(&self, session: SessionId, next: u64) -> Result<Value, Error> {
        self.desk
            .ask(move |task, answer| {
                let call = task.session().resume(session, next);
                task.expect(call, answer);
            })
            .await?
    }

    /// Sends a message about an object as it stands.
    pub(crate) async fn send_object(&self, message: ObjectMessage) -> Result<(), Error> {
        self.desk.with(move |task| task.say_object(&message)).await
    }

    /// Whether it is a handle to the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.desk.over, &other.desk.over)
    }

    pub(crate) const fn desk(&self) -> &Desk {
        &self.desk
    }
}

impl NetEvents {
    /// The next thing that the server says. May be dropped and called again.
    ///
    /// # Errors
    /// Why no further event will come; the same again when called again.
    pub async fn next(&mut self) -> Result<NetEvent, Error> {
        self.events.recv().await.ok_or_else(|| gone(&self.over))
    }
}

/// Where work is given to a connection's task.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    turns: mpsc::Sender<Turn>,
    /// One word from each stream and object that is dropped: so many and no more.
    leave: mpsc::UnboundedSender<(Leave, Option<Tenure>)>,
    over: Arc<OnceLock<Over>>,
    welcome: Option<Arc<Welcome>>,
    carried: Arc<Carried>,
    /// What is asked here means nothing to another server than this.
    of: Option<Tenure>,
}

/// The time of one server, by how many were lost before it.
pub(crate) type Tenure = u64;

/// How a connection is carried.
#[derive(Debug)]
struct Carried {
    scheme: Scheme,
    fell_back: Option<FellBack>,
    near_id: Option<PeerId>,
    far_id: Option<PeerId>,
}

/// Who is dropped.
#[derive(Clone, Debug)]
pub(crate) enum Leave {
    Stream(rtmp::StreamId),
    Object(model::ObjectName),
}

impl Desk {
    /// Does something on the task.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Task) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.ask(move |task, answer| {
            // Whoever asked may have gone.
            let _ = answer.send(act(task));
        })
        .await?
    }

    /// Does something on the task that is answered when it is.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Task, oneshot::Sender<T>) + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answer) = oneshot::channel();
        let of = self.of;
        let turn: Turn = Box::new(move |task| {
            if of.is_none_or(|of| of == task.tenure) {
                act(task, sender);
            }
        });
        self.turns.send(turn).await.map_err(|_| gone(&self.over))?;
        answer.await.map_err(|_| gone(&self.over))
    }

    /// A desk for something that the server has, and no other.
    pub(crate) async fn of_server(&self) -> Result<Self, Error> {
        let of = Some(self.with(|task| Ok(task.tenure)).await?);
        Ok(Self { of, ..self.clone() })
    }

    pub(crate) fn leave(&self, who: Leave) {
        // A task that has ended needs no goodbye.
        let _ = self.leave.send((who, self.of));
    }

    pub(crate) fn over(&self) -> &Arc<OnceLock<Over>> {
        &self.over
    }
}

fn gone(over: &OnceLock<Over>) -> Error {
    over.get().map_or(Error::Disconnected, Over::to_error)
}
