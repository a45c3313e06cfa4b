//! SharedObject: one remote object of a connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use amf::Value;
use model::{ObjectKind, ObjectName, SlotName};
use session::client::RemoteObject;
use session::client::object::{Event, Output, Sync};
use session::object::ObjectMessage;
use tokio::sync::{mpsc, oneshot};

use super::task::Task;
use super::{Desk, Leave, NetConnection};
use crate::connection::Over;
use crate::limits::EVENTS_MAX;
use crate::sync::{Change, Data, SyncCode, SyncEvent};
use crate::{Error, What};

/// A remote SharedObject: the handle to write with.
///
/// Writes show in [`Self::data`] at once and travel in batches, one at a time, as players
/// send them: what is written before the answer to the last batch goes with the next. What
/// became of them comes as [`ObjectEvent::Sync`]. The object is released when the handle is
/// dropped. A connection that is lost takes its objects with it; [`Self::connect`] again.
#[derive(Debug)]
pub struct SharedObject {
    desk: Desk,
    name: ObjectName,
    view: View,
}

/// What the server says about an object.
#[derive(Debug)]
pub struct SharedObjectEvents {
    events: mpsc::Receiver<ObjectEvent>,
    over: Arc<OnceLock<Over>>,
}

/// Something that the server says about an object.
#[derive(Clone, Debug, PartialEq)]
pub enum ObjectEvent {
    /// Slots changed, or writes were answered.
    Sync(SyncEvent),
    /// Somebody, perhaps we, sent a message to all.
    Message {
        /// The method.
        handler: String,
        /// Its arguments.
        args: Vec<Value>,
    },
    /// `SharedObject.BadPersistence` and the like; all are errors.
    Status {
        /// The code.
        code: String,
    },
}

type View = Arc<Mutex<Data>>;

impl SharedObject {
    /// Uses an object, and returns when the server says that it can be used. Its first
    /// event is the sync that says what is in it.
    ///
    /// # Errors
    /// [`Error::Object`] with the server's words, a name that is none, or why the connection
    /// failed.
    pub async fn connect(
        nc: &NetConnection,
        name: &str,
        kind: ObjectKind,
    ) -> Result<(Self, SharedObjectEvents), Error> {
        let name = ObjectName::new(name)?;
        let desk = nc.desk().of_server().await?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let view = View::default();
        let seat = Seat::new(
            RemoteObject::new(name.clone(), kind),
            sender,
            Arc::clone(&view),
        );
        let to = name.clone();
        let over = Arc::clone(desk.over());
        desk.ask(move |task, answer| task.use_object(to, seat, answer))
            .await??;
        let this = Self { desk, name, view };
        Ok((this, SharedObjectEvents { events, over }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The object as it is now, our own writes included.
    #[must_use]
    pub fn data(&self) -> Data {
        lock(&self.view).clone()
    }

    /// The value of a slot, our own writes included.
    #[must_use]
    pub fn get(&self, slot: &str) -> Option<Value> {
        lock(&self.view).slots.get(slot).cloned()
    }

    /// Gives a slot a value; null and undefined take it away.
    ///
    /// # Errors
    /// A value or name that cannot be sent, or why the connection failed.
    pub async fn set(&self, slot: &str, value: Value) -> Result<(), Error> {
        let slot = SlotName::new(slot)?;
        self.write(move |object| Ok(object.set(slot, value)?)).await
    }

    /// Takes a slot away.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn remove(&self, slot: &str) -> Result<(), Error> {
        let slot = SlotName::new(slot)?;
        self.write(move |object| Ok(object.remove(slot)?)).await
    }

    /// Takes every slot away. Only our servers know this request from a client.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn clear(&self) -> Result<(), Error> {
        self.write(|object| {
            object.clear();
            Ok(())
        })
        .await
    }

    /// Sends what was written by several calls at once, as one batch: the closure is given
    /// the object and writes to it.
    ///
    /// # Errors
    /// What the closure says, or why the connection failed.
    pub async fn batch(
        &self,
        write: impl FnOnce(&mut RemoteObject) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        self.write(write).await
    }

    /// Calls a method of the object at everybody who uses it, ourselves included.
    ///
    /// # Errors
    /// A value that cannot be sent, or why the connection failed.
    pub async fn send(
        &self,
        handler: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        let (handler, args) = (handler.to_owned(), Vec::from_iter(args));
        self.write(move |object| Ok(object.send(&handler, args)?))
            .await
    }

    /// Waits until everything that was written is answered.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn flush(&self) -> Result<(), Error> {
        let name = self.name.clone();
        self.desk
            .ask(move |task, answer| {
                if let Some(seat) = task.objects.get_mut(&name) {
                    seat.flushed.push_back(answer);
                    seat.note();
                }
            })
            .await
    }

    /// Holds the object for this client: others' changes wait. Nests.
    ///
    /// # Errors
    /// [`Error::CallFailed`] with the server's words, or why the connection failed.
    pub async fn lock(&self) -> Result<Value, Error> {
        self.call("selvage.lock").await
    }

    /// Gives one level of the lock back.
    ///
    /// # Errors
    /// [`Error::CallFailed`] with the server's words, or why the connection failed.
    pub async fn unlock(&self) -> Result<Value, Error> {
        self.call("selvage.unlock").await
    }

    async fn call(&self, method: &'static str) -> Result<Value, Error> {
        let name = Value::from(self.name.as_str());
        self.desk
            .ask(move |task, answer| {
                let traced = task.connection.trace(What::Call, method);
                let call = task.session().call(method, [name]);
                task.follow(&call, traced);
                task.expect(call, answer);
            })
            .await?
    }

    async fn write(
        &self,
        act: impl FnOnce(&mut RemoteObject) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let name = self.name.clone();
        self.desk
            .with(move |task| {
                let Some(seat) = task.objects.get_mut(&name) else {
                    return Err(Error::Disconnected);
                };
                act(&mut seat.object)?;
                seat.object.flush();
                task.drain_object(&name)
            })
            .await
    }
}

impl Drop for SharedObject {
    fn drop(&mut self) {
        self.desk.leave(Leave::Object(self.name.clone()));
    }
}

impl SharedObjectEvents {
    /// The next thing that the server says about the object. May be dropped and called
    /// again.
    ///
    /// # Errors
    /// Why no further event will come; the same again when called again.
    pub async fn next(&mut self) -> Result<ObjectEvent, Error> {
        self.events
            .recv()
            .await
            .ok_or_else(|| super::gone(&self.over))
    }
}

/// The task's side of an object.
#[derive(Debug)]
pub(super) struct Seat {
    object: RemoteObject,
    events: mpsc::Sender<ObjectEvent>,
    view: View,
    used: Option<oneshot::Sender<Result<(), Error>>>,
    flushed: VecDeque<oneshot::Sender<()>>,
}

impl Seat {
    const fn new(object: RemoteObject, events: mpsc::Sender<ObjectEvent>, view: View) -> Self {
        Self {
            object,
            events,
            view,
            used: None,
            flushed: VecDeque::new(),
        }
    }

    /// Lets the handles see how it stands.
    fn note(&mut self) {
        {
            let mut data = lock(&self.view);
            data.version = self.object.version();
            data.slots.clear();
            let slots = self.object.slots();
            data.slots
                .extend(slots.map(|(slot, value)| (slot.as_str().to_owned(), value.clone())));
        }
        if self.object.is_used()
            && let Some(used) = self.used.take()
        {
            let _ = used.send(Ok(()));
        }
        if !self.object.is_dirty() && !self.object.is_waiting() {
            for flushed in self.flushed.drain(..) {
                let _ = flushed.send(());
            }
        }
    }

    fn translate(&mut self, event: Event) -> ObjectEvent {
        match event {
            Event::Sync(list) => {
                let list = list.into_iter().map(|sync| self.change(sync)).collect();
                let version = self.object.version();
                ObjectEvent::Sync(SyncEvent { list, version })
            }
            Event::Message { handler, args } => ObjectEvent::Message {
                handler: handler.as_ref().to_owned(),
                args,
            },
            Event::Status { code, .. } => {
                let code = code.as_ref().to_owned();
                if !self.object.is_used()
                    && let Some(used) = self.used.take()
                {
                    let _ = used.send(Err(Error::Object(code.clone())));
                }
                ObjectEvent::Status { code }
            }
        }
    }

    fn change(&self, sync: Sync) -> Change {
        let value = match (sync.code, &sync.name) {
            (SyncCode::Clear | SyncCode::Delete, _) | (_, None) => None,
            (SyncCode::Success | SyncCode::Reject | SyncCode::Change, Some(name)) => {
                self.object.get(name).cloned()
            }
        };
        Change {
            code: sync.code,
            name: sync
                .name
                .map_or_else(String::new, |name| name.as_str().to_owned()),
            value,
            old_value: sync.old_value,
        }
    }
}

impl Task {
    fn use_object(
        &mut self,
        name: ObjectName,
        mut seat: Seat,
        answer: oneshot::Sender<Result<(), Error>>,
    ) {
        if self.objects.contains_key(&name) {
            let _ = answer.send(Err(Error::InUse(name.as_str().to_owned())));
            return;
        }
        seat.object.use_it();
        seat.used = Some(answer);
        self.objects.insert(name.clone(), seat);
        if let Err(error) = self.drain_object(&name)
            && let Some(mut seat) = self.objects.remove(&name)
            && let Some(used) = seat.used.take()
        {
            let _ = used.send(Err(error));
        }
    }

    pub(super) fn release(&mut self, name: &ObjectName) {
        if let Some(seat) = self.objects.get_mut(name) {
            seat.object.release();
            // Why the connection failed is told to those who are still there.
            let _ = self.drain_object(name);
            self.objects.remove(name);
        }
    }

    /// False if nobody uses the object.
    pub(super) fn object_message(&mut self, message: &ObjectMessage) -> bool {
        let Ok(name) = ObjectName::new(&message.name) else {
            return false;
        };
        let Some(seat) = self.objects.get_mut(&name) else {
            return false;
        };
        // What is above its limits is left out; the rest is good.
        let _ = seat.object.handle_update(message);
        let _ = self.drain_object(&name);
        let gave_up = self
            .objects
            .get(&name)
            .is_some_and(|seat| seat.used.as_ref().is_some_and(oneshot::Sender::is_closed));
        if gave_up {
            self.release(&name);
        }
        true
    }

    /// Sends what an object has to say, and gives out what happened to it.
    fn drain_object(&mut self, name: &ObjectName) -> Result<(), Error> {
        let mut sent = Ok(());
        loop {
            let Some(seat) = self.objects.get_mut(name) else {
                return sent;
            };
            match seat.object.poll_output() {
                None => {
                    seat.note();
                    return sent;
                }
                Some(Output::Message(message)) => {
                    if let Err(error) = self.say_object(&message) {
                        sent = Err(error);
                    }
                }
                Some(Output::Event(event)) => {
                    let event = seat.translate(event);
                    let events = seat.events.clone();
                    self.give(&events, event);
                }
            }
        }
    }
}

fn lock(view: &View) -> MutexGuard<'_, Data> {
    // Whoever panicked with it left whole values behind.
    view.lock().unwrap_or_else(PoisonError::into_inner)
}
