//! The task of one connection.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use amf::Value;
use model::ObjectName;
use rtmp::StreamId;
use session::ClientSession;
use session::client::{CallId, Event};
use session::object::{ObjectMessage, WireEvent};
use tokio::sync::{mpsc, oneshot};

use super::object::Seat;
use super::stream::Lane;
use super::{Leave, NetEvent, Tenure};
use crate::connection::Over;
use crate::limits::{UNSENT_MAX, WRITES_TRACED_MAX};
use crate::peers::PeerEvent;
use crate::traces::Traced;
use crate::{Connection, Error, What};

/// A piece of work that a handle gives to the task.
pub(crate) type Turn = Box<dyn FnOnce(&mut Task) + Send>;

/// The connection and who waits for what of it.
pub(crate) struct Task {
    pub(super) connection: Connection,
    over: Arc<OnceLock<Over>>,
    events: mpsc::Sender<NetEvent>,
    tap: Option<mpsc::Sender<Box<ObjectMessage>>>,
    calls: BTreeMap<CallId, oneshot::Sender<Result<Value, Error>>>,
    opening: BTreeMap<CallId, Opening>,
    /// Calls that somebody wants to see.
    traced: BTreeMap<CallId, Traced>,
    /// Writes to objects that are not answered and somebody wants to see.
    writes: VecDeque<(Arc<str>, Traced)>,
    pub(super) streams: BTreeMap<StreamId, Lane>,
    pub(super) objects: BTreeMap<ObjectName, Seat>,
    pings: VecDeque<(u64, oneshot::Sender<()>)>,
    asked: u64,
    pub(super) tenure: Tenure,
    /// Another server is looked for.
    lost: bool,
    closing: Option<oneshot::Sender<Result<(), Error>>>,
    /// What a receiver has no room for yet. Nothing behind it is given out before.
    held: Option<Held>,
}

struct Opening {
    lane: Lane,
    answer: oneshot::Sender<Result<StreamId, Error>>,
}

type Held = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Task {
    pub(super) fn new(
        connection: Connection,
        events: mpsc::Sender<NetEvent>,
        tap: Option<mpsc::Sender<Box<ObjectMessage>>>,
        over: Arc<OnceLock<Over>>,
    ) -> Self {
        Self {
            connection,
            over,
            events,
            tap,
            calls: BTreeMap::new(),
            opening: BTreeMap::new(),
            traced: BTreeMap::new(),
            writes: VecDeque::new(),
            streams: BTreeMap::new(),
            objects: BTreeMap::new(),
            pings: VecDeque::new(),
            asked: 0,
            tenure: 0,
            lost: false,
            closing: None,
            held: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut turns: mpsc::Receiver<Turn>,
        mut left: mpsc::UnboundedReceiver<(Leave, Option<Tenure>)>,
    ) {
        while self.closing.is_none() {
            self.give_out();
            if self.goes_on_elsewhere() {
                continue;
            }
            if let Some(over) = self.connection.ending() {
                // Whoever waits for an answer waits in vain; what came before the end is
                // still given out.
                let _ = self.over.set(over.clone());
                turns.close();
                self.calls.clear();
                self.opening.clear();
                self.pings.clear();
                match self.held.take() {
                    Some(held) => held.await,
                    None => return,
                }
                continue;
            }
            let room = self.connection.unsent() <= UNSENT_MAX;
            tokio::select! {
                () = wait(&mut self.held) => self.held = None,
                turn = turns.recv(), if room => match turn {
                    Some(turn) => turn(&mut self),
                    None => break,
                },
                Some((who, of)) = left.recv() => {
                    // What another server had is gone with it.
                    if of.is_none_or(|of| of == self.tenure) {
                        self.let_go(&who);
                    }
                }
                // Why it ended is looked up at the next turn.
                _ = self.connection.progress() => {}
            }
        }
        let _ = self.over.set(Over::Session(session::client::Closed::Here));
        let closed = self.connection.close().await;
        if let Some(answer) = self.closing {
            let _ = answer.send(closed);
        }
    }

    /// Whether the connection outlives the server that it has just lost.
    fn goes_on_elsewhere(&mut self) -> bool {
        let Some(over) = self.connection.ending().cloned() else {
            return false;
        };
        // Several servers as one have their own ways when one of them is lost.
        if self.tap.is_some() || !self.connection.seek_another() {
            return false;
        }
        self.tenure += 1;
        self.calls.clear();
        self.opening.clear();
        self.traced.clear();
        self.writes.clear();
        self.pings.clear();
        self.asked = self.connection.pongs();
        self.objects.clear();
        let (connection, streams) = (&mut self.connection, &mut self.streams);
        connection.with_peers(|peers, _, _| streams.retain(|stream, _| peers.has(*stream)));
        if !std::mem::replace(&mut self.lost, true) {
            let error = over.to_error();
            let why = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string);
            self.give(&self.events.clone(), NetEvent::Lost { why });
        }
        true
    }

    pub(crate) fn session(&mut self) -> &mut ClientSession {
        self.connection.session()
    }

    /// Remembers who waits for the answer to a call.
    pub(super) fn expect(
        &mut self,
        call: Result<CallId, session::client::Error>,
        answer: oneshot::Sender<Result<Value, Error>>,
    ) {
        match call {
            Ok(call) => {
                self.calls.insert(call, answer);
            }
            Err(error) => {
                let _ = answer.send(Err(error.into()));
            }
        }
    }

    /// Ends a call's span with its answer.
    pub(super) fn follow(
        &mut self,
        call: &Result<CallId, session::client::Error>,
        mut traced: Traced,
    ) {
        match call {
            Ok(call) if traced.is_wanted() => {
                self.traced.insert(*call, traced);
            }
            Ok(_) => {}
            Err(error) => traced.fail(&error.to_string()),
        }
    }

    /// Says something about an object.
    pub(super) fn say_object(&mut self, message: &ObjectMessage) -> Result<(), Error> {
        let writes = message.events.iter().any(|event| {
            matches!(
                event,
                WireEvent::RequestChange { .. }
                    | WireEvent::RequestRemove { .. }
                    | WireEvent::Clear
                    | WireEvent::Send(_)
            )
        });
        if writes {
            let traced = self.connection.trace(What::Write, &message.name);
            if traced.is_wanted() {
                if self.writes.len() >= WRITES_TRACED_MAX {
                    self.writes.pop_front();
                }
                self.writes.push_back((message.name.clone(), traced));
            }
        }
        Ok(self.session().send_object(message)?)
    }

    /// The server says something of an object: perhaps what became of the oldest write.
    fn hear_object(&mut self, message: &ObjectMessage) {
        let of = |(name, _): &(Arc<str>, Traced)| *name == message.name;
        let Some(at) = self.writes.iter().position(of) else {
            return;
        };
        for event in &message.events {
            if let WireEvent::Status { code, .. } = event {
                if let Some((_, mut traced)) = self.writes.remove(at) {
                    traced.fail(code);
                }
                return;
            }
            if matches!(
                event,
                WireEvent::Success { .. } | WireEvent::Remove { .. } | WireEvent::Send(_)
            ) {
                self.writes.remove(at);
                return;
            }
        }
    }

    /// Makes a message stream.
    pub(super) fn open(&mut self, lane: Lane, answer: oneshot::Sender<Result<StreamId, Error>>) {
        match self.session().create_stream() {
            Ok(call) => {
                self.opening.insert(call, Opening { lane, answer });
            }
            Err(error) => {
                let _ = answer.send(Err(error.into()));
            }
        }
    }

    pub(super) fn ping(&mut self, answer: oneshot::Sender<()>) {
        if self.lost {
            return;
        }
        self.asked += 1;
        self.connection
            .ping(u32::try_from(self.asked & 0xffff_ffff).unwrap_or_default());
        self.pings.push_back((self.asked, answer));
    }

    pub(super) fn close(&mut self, answer: oneshot::Sender<Result<(), Error>>) {
        self.closing = Some(answer);
    }

    /// Gives something to a receiver, now or when it has room.
    pub(super) fn give<T: Send + 'static>(&mut self, to: &mpsc::Sender<T>, what: T) {
        match to.try_send(what) {
            // Whoever has dropped the receiver does not want to know.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(what)) => {
                let to = to.clone();
                let before = self.held.take();
                self.held = Some(Box::pin(async move {
                    if let Some(before) = before {
                        before.await;
                    }
                    let _ = to.send(what).await;
                }));
            }
        }
    }

    /// Gives out what has arrived, until a receiver has no room.
    fn give_out(&mut self) {
        while self
            .pings
            .front()
            .is_some_and(|(number, _)| *number <= self.connection.pongs())
        {
            if let Some((_, answer)) = self.pings.pop_front() {
                let _ = answer.send(());
            }
        }
        while self.held.is_none() {
            let Some((event, at)) = self.connection.poll_event() else {
                break;
            };
            self.sort(event, at);
        }
        while self.held.is_none() {
            let event = self.connection.with_peers(|peers, _, _| peers.poll_event());
            match event.flatten() {
                None => return,
                Some(PeerEvent::Status { stream, status }) => self.stream_status(stream, status),
                Some(PeerEvent::Message(message)) => self.stream_message(message, Instant::now()),
            }
        }
    }

    fn sort(&mut self, event: Event, at: Instant) {
        match event {
            Event::StreamReady { call, stream } => self.opened(call, stream),
            Event::Result { call, value } => {
                self.traced.remove(&call);
                if let Some(answer) = self.calls.remove(&call) {
                    let _ = answer.send(Ok(value));
                }
            }
            Event::Failed { call, status } => {
                if let Some(mut traced) = self.traced.remove(&call) {
                    traced.fail(&status.code);
                }
                if let Some(answer) = self.calls.remove(&call) {
                    let _ = answer.send(Err(Error::CallFailed(status)));
                } else if let Some(opening) = self.opening.remove(&call) {
                    let step = "createStream";
                    let _ = opening.answer.send(Err(Error::Refused { step, status }));
                }
            }
            Event::Call {
                request,
                name,
                args,
            } => {
                let call = NetEvent::Call {
                    request,
                    name,
                    args,
                };
                self.give(&self.events.clone(), call);
            }
            Event::Status { stream, status } if stream == StreamId::CONNECTION => {
                // Some servers refuse in the name of the connection.
                if status.is_error() {
                    for lane in self.streams.values_mut() {
                        lane.refuse(&status);
                    }
                }
                self.give(&self.events.clone(), NetEvent::Status(status));
            }
            Event::Status { stream, status } => self.stream_status(stream, status),
            Event::Message(message) => self.stream_message(message, at),
            Event::Progress { stream, progress } => self.stream_progress(stream, progress),
            Event::Object(message) => {
                self.hear_object(&message);
                if !self.object_message(&message)
                    && let Some(tap) = self.tap.clone()
                {
                    self.give(&tap, message);
                }
            }
            Event::Connected(_) => {
                self.lost = false;
                if let Some(to) = self.connection.server().cloned() {
                    self.give(&self.events.clone(), NetEvent::Rejoined { to });
                }
            }
            Event::Rejected(_) | Event::Closed { .. } => {}
        }
    }

    fn opened(&mut self, call: CallId, stream: StreamId) {
        let Some(opening) = self.opening.remove(&call) else {
            return;
        };
        self.streams.insert(stream, opening.lane);
        if opening.answer.send(Ok(stream)).is_err() {
            // Whoever wanted it has gone.
            self.let_go(&Leave::Stream(stream));
        }
    }

    fn let_go(&mut self, who: &Leave) {
        match who {
            Leave::Stream(stream) => {
                let known = self.streams.remove(stream).is_some();
                if known && !self.delete_between_peers(*stream) {
                    // It is ours as long as the session is not over, and then it is gone.
                    let _ = self.session().delete_stream(*stream);
                }
            }
            Leave::Object(name) => self.release(name),
        }
    }
}

async fn wait(held: &mut Option<Held>) {
    match held {
        Some(held) => held.await,
        None => std::future::pending().await,
    }
}
