//! Several servers as one: the MultiConnection of the early 2000s, without its faults.
//!
//! | then | here |
//! |---|---|
//! | `new MultiConnection()` | [`MultiConnection::new`] |
//! | `connect([url, ...])` | [`MultiConnection::connect`] |
//! | `onStatus(info)` | [`MultiEvent::OnStatus`], and [`MultiEvent::Server`] for each |
//! | `sharedObjectSetup(name, persistent)` | [`MultiConnection::shared_object_setup`] |
//! | `<name>_sync(list)` | [`MultiEvent::Sync`] |
//! | `setSoValue`, `getSoValue` | [`MultiConnection::set_so_value`], [`MultiConnection::get_so_value`] |
//! | `setNetStreams()` | [`MultiConnection::set_net_streams`] |
//! | `attachAudio`, `attachVideo` | [`MultiConnection::attach_audio`], [`MultiConnection::attach_video`] |
//! | `publish(name, "live")` | [`MultiConnection::publish`] |
//! | `nsStatus(info)` | [`MultiEvent::NsStatus`] |
//! | `nsSend`, `nsTime`, `nsClose` | [`MultiConnection::ns_send`], [`MultiConnection::ns_time`], [`MultiConnection::ns_close`] |
//! | `callRemote(method, callback, server, args)` | [`MultiConnection::call_remote`] |
//! | `ncClose()` | [`MultiConnection::nc_close`] |
//!
//! The original wrote to every server, and each ordered the writes for itself: two writers
//! could leave two servers with different values for good. Here the servers are edges of one
//! fabric. Writes and the publish go through one of them, the primary; the others stand by,
//! each with a subscription of its own. When the primary is lost another takes over, and what
//! was under way is asked for again under the same numbers, so it is made exactly once. What
//! the program is told of an object is one history, by version: no version is told twice, and
//! none after a later one, whichever server it comes from.
//!
//! A server that asks its clients to leave is left as soon as another of the list is there, if
//! that is wanted ([`Options::following`](crate::Options::following)), instead of at its end. The
//! one that a publish goes through is kept until the publish is closed, or the server ends.
//!
//! With servers that are not ours it still works, as well as they allow: writes that were
//! under way when a server was lost may be made twice ([`ServerState::Unnumbered`]).

mod driver;
mod history;
mod limits;
mod machine;
mod mirror;
mod publish;
mod server;
mod source;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use amf::Value;
use bytes::Bytes;
use model::{ObjectKind, ObjectName, SessionId, SlotName};
use session::client::Status;
use session::{PublishMode, RequestId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::rustls::crypto::ring;

use self::driver::{Driver, Primary, Turn};
use self::publish::Studio;
use crate::limits::{EVENTS_MAX, TURNS_MAX};
use crate::sync::{Data, SyncEvent};
use crate::{Error, Options, Target};

pub use self::machine::{Need, ServerState};
pub use self::source::{Source, SourceFrame};

/// Several servers as one. Clones are handles to the same facade; it ends with the last.
#[derive(Clone, Debug)]
pub struct MultiConnection {
    turns: mpsc::Sender<Turn>,
    primary: watch::Receiver<Primary>,
    events: mpsc::Sender<MultiEvent>,
    studio: Arc<tokio::sync::Mutex<Option<Studio>>>,
    session: SessionId,
}

/// What happens at a facade. Read it or drop it: while it is full, the servers are not
/// listened to, and nothing that waits for them gets on.
#[derive(Debug)]
pub struct MultiEvents {
    events: mpsc::Receiver<MultiEvent>,
}

/// How a facade connects.
#[derive(Clone, Debug)]
pub struct MultiOptions {
    /// As every connection does.
    pub connect: Options,
    /// How many servers the setup needs.
    pub need: Need,
}

impl Default for MultiOptions {
    fn default() -> Self {
        Self {
            connect: Options::player(),
            need: Need::All,
        }
    }
}

/// Something that happens at a facade. Servers are named by their place in the list that
/// [`MultiConnection::connect`] was given.
#[derive(Clone, Debug, PartialEq)]
pub enum MultiEvent {
    /// The setup is over.
    OnStatus(SetupStatus),
    /// A server stands differently.
    Server {
        /// Which.
        server: usize,
        /// How.
        state: ServerState,
    },
    /// A shared object changed, or writes to it were answered.
    Sync {
        /// Which.
        name: String,
        /// How.
        event: SyncEvent,
    },
    /// Somebody, perhaps we, sent a message to all who use a shared object.
    Message {
        /// Which.
        name: String,
        /// The method.
        handler: String,
        /// Its arguments.
        args: Vec<Value>,
    },
    /// A server has refused a shared object, or something about it.
    SoStatus {
        /// Which.
        name: String,
        /// Which server.
        server: usize,
        /// `SharedObject.BadPersistence` and the like.
        code: String,
    },
    /// A status of the stream that is published.
    NsStatus {
        /// Which server says it.
        server: usize,
        /// What.
        status: Box<Status>,
    },
    /// A status of a connection.
    NetStatus {
        /// Which server says it.
        server: usize,
        /// What.
        status: Box<Status>,
    },
    /// A server calls a method of ours.
    Call {
        /// Which server.
        server: usize,
        /// To be answered by [`MultiConnection::answer`]; absent when no answer is wanted.
        request: Option<RequestId>,
        /// The method's name.
        name: String,
        /// The arguments.
        args: Vec<Value>,
    },
}

/// How a setup ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupStatus {
    /// Whether the facade can be used. If not, everything is closed.
    pub complete: bool,
    /// What happened at each server, by its address.
    pub servers: Vec<(String, ServerState)>,
}

impl SetupStatus {
    /// As ActionScript is told: `NetConnection.Setup.Success` or `NetConnection.Setup.Failed`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        if self.complete {
            "NetConnection.Setup.Success"
        } else {
            "NetConnection.Setup.Failed"
        }
    }
}

/// What became of a write or a message.
#[derive(Clone, Debug, PartialEq)]
pub enum SoOutcome {
    /// It is made.
    Success {
        /// The object's version after it.
        version: u32,
    },
    /// Somebody else wrote first.
    Reject {
        /// What the slot has; `None` when it is gone.
        value: Option<Value>,
    },
    /// It is not made.
    Refused {
        /// `SharedObject.NoWriteAccess` and the like.
        code: String,
    },
    /// It is not known whether it is made. If it is, it comes as a change.
    Undecided,
    /// It was not asked for, because no server could be reached.
    Unreachable,
    /// It was not asked for, because another write of the slot by this program took its
    /// place.
    Replaced,
}

impl MultiConnection {
    /// A facade with the usual options. Must be called within a tokio runtime.
    #[must_use]
    pub fn new() -> (Self, MultiEvents) {
        Self::with(MultiOptions::default())
    }

    /// A facade.
    #[must_use]
    pub fn with(options: MultiOptions) -> (Self, MultiEvents) {
        let (turns, inbox) = mpsc::channel(TURNS_MAX);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (primary, watch) = watch::channel(None);
        let session = identity();
        let driver = Driver::new(Arc::new(options), session, sender.clone(), primary);
        tokio::spawn(driver.run(inbox));
        let this = Self {
            turns,
            primary: watch,
            events: sender,
            studio: Arc::default(),
            session,
        };
        (this, MultiEvents { events })
    }

    /// Connects to all of them; [`MultiEvent::OnStatus`] says how it went. What the facade
    /// did before is over.
    ///
    /// # Errors
    /// A wrong address, none, or too many.
    pub async fn connect<S: AsRef<str>>(&self, urls: &[S]) -> Result<(), Error> {
        let targets: Vec<Target> = urls
            .iter()
            .map(|url| Target::connection(url.as_ref()))
            .collect::<Result<_, _>>()?;
        self.connect_to(targets).await
    }

    /// As [`Self::connect`], with addresses that are taken apart already.
    ///
    /// # Errors
    /// None, or too many.
    pub async fn connect_to(&self, targets: Vec<Target>) -> Result<(), Error> {
        if targets.is_empty() || targets.len() > limits::SERVERS_MAX {
            return Err(Error::Overloaded("servers"));
        }
        self.with_driver(|driver| {
            driver.connect(targets);
            Ok(())
        })
        .await
    }

    /// Uses a shared object on every server. Its first [`MultiEvent::Sync`] says what is in
    /// it.
    ///
    /// # Errors
    /// A name that is none, too many objects, or no [`Self::connect`] before.
    pub async fn shared_object_setup(&self, name: &str, persistent: bool) -> Result<(), Error> {
        let name = ObjectName::new(name)?;
        let kind = if persistent {
            ObjectKind::Persistent
        } else {
            ObjectKind::Temporary
        };
        self.with_driver(move |driver| driver.object(&name, kind))
            .await
    }

    /// Gives the slot of a path `name.data.key` a value; null and undefined take it away.
    /// Waits for what becomes of it. If it is dropped meanwhile, the write goes on.
    ///
    /// # Errors
    /// A wrong path, an object that is not set up, a value that cannot be sent, or too much
    /// that waits already.
    pub async fn set_so_value(&self, path: &str, value: Value) -> Result<SoOutcome, Error> {
        let (object, slot) = split(path)?;
        let value = if value.is_nothing() {
            None
        } else {
            let value = session::object::encode_value(&value);
            Some(value.map_err(session::client::Error::Unwritable)?)
        };
        self.settled(move |driver, answer| driver.set(&object, slot, value, answer))
            .await
    }

    /// The value of the slot of a path `name.data.key`, our own writes included.
    ///
    /// # Errors
    /// A wrong path, or an object that is not set up.
    pub async fn get_so_value(&self, path: &str) -> Result<Option<Value>, Error> {
        let (object, slot) = split(path)?;
        self.with_driver(move |driver| driver.value(&object, &slot))
            .await
    }

    /// All slots of a shared object as they were told.
    ///
    /// # Errors
    /// An object that is not set up.
    pub async fn so_data(&self, name: &str) -> Result<Data, Error> {
        let name = ObjectName::new(name)?;
        self.with_driver(move |driver| driver.data(&name)).await
    }

    /// Calls a method of a shared object at everybody who uses it, ourselves included. Waits
    /// until it came back.
    ///
    /// # Errors
    /// An object that is not set up, a value that cannot be sent, or too much that waits
    /// already.
    pub async fn so_send(
        &self,
        name: &str,
        handler: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<SoOutcome, Error> {
        let name = ObjectName::new(name)?;
        let values: Vec<Value> = std::iter::once(handler.into()).chain(args).collect();
        let payload: Bytes =
            amf::amf0::write_all(&values).map_err(session::client::Error::Unwritable)?;
        self.settled(move |driver, answer| driver.send(&name, payload, answer))
            .await
    }

    /// Makes ready to publish.
    pub async fn set_net_streams(&self) {
        let mut studio = self.studio.lock().await;
        if studio.is_none() {
            *studio = Some(Studio::new(self.primary.clone(), self.events.clone()));
        }
    }

    /// Where the audio comes from.
    ///
    /// # Errors
    /// No [`Self::set_net_streams`] before.
    pub async fn attach_audio(&self, source: Source) -> Result<(), Error> {
        self.studio(|studio| studio.audio = Some(source)).await
    }

    /// Where the video comes from, and metadata with it.
    ///
    /// # Errors
    /// No [`Self::set_net_streams`] before.
    pub async fn attach_video(&self, source: Source) -> Result<(), Error> {
        self.studio(|studio| studio.video = Some(source)).await
    }

    /// Publishes what is attached, through the primary; when that is lost, the next one goes
    /// on, under the same name and identity. How it goes is told by [`MultiEvent::NsStatus`].
    ///
    /// # Errors
    /// No [`Self::set_net_streams`] before.
    pub async fn publish(&self, name: &str, mode: PublishMode) -> Result<(), Error> {
        let mut studio = self.studio.lock().await;
        let studio = studio.as_mut().ok_or(Error::NotPublishing)?;
        // Before it begins, so that the server it begins at is not left.
        self.publishes(true).await?;
        studio.publish(name.to_owned(), mode);
        Ok(())
    }

    /// Sends a data message on the stream that is published.
    ///
    /// # Errors
    /// Nothing is published.
    pub async fn ns_send(
        &self,
        handler: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        let say = self.studio(|studio| studio.say()).await??;
        let said = (handler.to_owned(), Vec::from_iter(args));
        say.send(said).await.map_err(|_| Error::NotPublishing)
    }

    /// How far the stream that is published is, in seconds.
    ///
    /// # Errors
    /// No [`Self::set_net_streams`] before.
    pub async fn ns_time(&self) -> Result<f64, Error> {
        self.studio(|studio| studio.time()).await
    }

    /// Ends the publish.
    ///
    /// # Errors
    /// No [`Self::set_net_streams`] before.
    pub async fn ns_close(&self) -> Result<(), Error> {
        let mut studio = self.studio.lock().await;
        studio.as_mut().ok_or(Error::NotPublishing)?.close();
        self.publishes(false).await
    }

    /// Calls a method of one server's and waits for the answer.
    ///
    /// # Errors
    /// No such server, no connection to it, or its refusal.
    pub async fn call_remote(
        &self,
        method: &str,
        server: usize,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<Value, Error> {
        let nc = self.with_driver(move |driver| driver.nc(server)).await?;
        nc.call(method, args).await
    }

    /// Answers a call of a server's ([`MultiEvent::Call`]).
    ///
    /// # Errors
    /// No such server, or no connection to it.
    pub async fn answer(
        &self,
        server: usize,
        request: RequestId,
        answer: Result<Value, String>,
    ) -> Result<(), Error> {
        let nc = self.with_driver(move |driver| driver.nc(server)).await?;
        nc.answer(request, answer).await
    }

    /// Closes all connections. What was under way is undecided.
    ///
    /// # Errors
    /// None that matters: the facade has ended.
    pub async fn nc_close(&self) -> Result<(), Error> {
        let mut studio = self.studio.lock().await;
        if let Some(studio) = &mut *studio {
            studio.close();
        }
        self.with_driver(|driver| {
            driver.close();
            driver.publishes(false);
            Ok(())
        })
        .await
    }

    /// Who this facade says it is, to every server.
    #[must_use]
    pub const fn session(&self) -> SessionId {
        self.session
    }

    async fn publishes(&self, publishes: bool) -> Result<(), Error> {
        self.with_driver(move |driver| {
            driver.publishes(publishes);
            Ok(())
        })
        .await
    }

    async fn studio<T>(&self, act: impl FnOnce(&mut Studio) -> T) -> Result<T, Error> {
        self.studio
            .lock()
            .await
            .as_mut()
            .map(act)
            .ok_or(Error::NotPublishing)
    }

    async fn settled(
        &self,
        act: impl FnOnce(&mut Driver, oneshot::Sender<SoOutcome>) -> Result<(), Error> + Send + 'static,
    ) -> Result<SoOutcome, Error> {
        let (sender, answer) = oneshot::channel();
        self.with_driver(move |driver| act(driver, sender)).await?;
        answer.await.map_err(|_| Error::Disconnected)
    }

    async fn with_driver<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Driver) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, answer) = oneshot::channel();
        let turn: Turn = Box::new(move |driver| {
            // Whoever asked may have gone.
            let _ = sender.send(act(driver));
        });
        self.turns
            .send(turn)
            .await
            .map_err(|_| Error::Disconnected)?;
        answer.await.map_err(|_| Error::Disconnected)?
    }
}

impl MultiEvents {
    /// The next thing that happens; `None` when the facade has ended. May be dropped and
    /// called again.
    pub async fn next(&mut self) -> Option<MultiEvent> {
        self.events.recv().await
    }
}

/// `name.data.key`. The key may hold dots, and so may the name, as long as it does not hold
/// `.data.`.
fn split(path: &str) -> Result<(ObjectName, SlotName), Error> {
    let (object, slot) = path
        .split_once(".data.")
        .ok_or_else(|| Error::Path(path.to_owned()))?;
    Ok((ObjectName::new(object)?, SlotName::new(slot)?))
}

/// A number that nobody else has or can guess: whoever knows it is this client.
fn identity() -> SessionId {
    let mut bytes = [0; 16];
    if ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .is_ok()
    {
        return SessionId(u128::from_be_bytes(bytes));
    }
    let half = || u128::from(RandomState::new().hash_one(0));
    SessionId(half() << 64 | half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_an_object_and_a_slot() {
        let (object, slot) = split("chat/room.1.data.a.data.b").unwrap();
        assert_eq!(
            (object.as_str(), slot.as_str()),
            ("chat/room.1", "a.data.b")
        );
        assert!(matches!(split("a.b"), Err(Error::Path(_))));
        assert!(matches!(split(".data.b"), Err(Error::Name(_))));
    }

    #[test]
    fn no_two_facades_are_one() {
        assert_ne!(identity(), identity());
    }
}
