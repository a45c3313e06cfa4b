//! Streams between peers, without a server on their way (RFC 7425 §5.4).
//!
//! A subscriber opens a session with the publisher, whom the server introduces, and in it a
//! flow for its stream, on which it says `play`. The publisher answers with flows for data,
//! sound and pictures. Many streams may share a session.
//!
//! It is a plain machine: it is given what happens in sessions with peers, and acts on the
//! endpoint. What it has to say is fetched by [`Peers::poll_event`].

mod count;
mod id;
mod outgoing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::session::client::Status;
use amf::Value;
use rtmfp::crypto::identity::Discriminator;
use rtmfp::endpoint::{Endpoint, Event, OpeningId, SessionId};
use rtmfp::flow::{Options, Order, Priority, ReceiveId, SendId};
use rtmfp::session;
use rtmfp::tc::{self, Metadata};
use rtmp::{Message, MessageKind, StreamId, UserControl};

use self::count::Count;
use self::outgoing::{Listening, Subscriber};
use crate::limits::{KEEPALIVE_MIN, PLAYS_MAX};

pub use self::id::{NotAPeerId, PeerId};

/// Whether a peer may play a stream of ours (`onPeerConnect`).
pub(crate) type OnPeerConnect = Box<dyn FnMut(PeerId) -> bool + Send>;

/// Something that happened between peers. The stream is ours.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    Status {
        stream: StreamId,
        status: Box<Status>,
    },
    Message(Message),
}

/// The first number of a stream between peers, as Flash Player has it. Servers count from 1.
const FIRST_STREAM: u32 = 2_000_001;

/// The sessions of an endpoint that may have so many peer connections: there is one with the
/// server, and there are some that are closing or have just come.
pub(crate) const fn sessions_max(peers: usize) -> usize {
    peers.saturating_add(8)
}

/// A session that nobody uses is closed after so long.
const IDLE: Duration = Duration::from_secs(10);

/// All that a connection has to do with peers.
pub(crate) struct Peers {
    max: usize,
    /// How long it may take until a peer is reached.
    patience: Duration,
    next_stream: u32,
    keepalive: Duration,
    listening: BTreeMap<StreamId, Listening>,
    subscriptions: BTreeMap<StreamId, Subscription>,
    subscribers: BTreeMap<(SessionId, ReceiveId), Subscriber>,
    /// Who opened a flow and has not said what it wants to play.
    asking: BTreeMap<(SessionId, ReceiveId), StreamId>,
    /// What is being received, for which of our streams.
    receiving: BTreeMap<(SessionId, ReceiveId), StreamId>,
    sessions: BTreeMap<SessionId, Peer>,
    events: VecDeque<PeerEvent>,
    held: bool,
}

/// The far end of a session.
#[derive(Clone, Copy, Debug)]
struct Peer {
    id: PeerId,
    /// Since when nobody has used the session.
    idle: Option<Instant>,
}

/// A stream of a peer's that we want to play.
#[derive(Debug)]
struct Subscription {
    peer: PeerId,
    name: Option<String>,
    opening: Option<OpeningId>,
    /// The peer came to us meanwhile; it goes on when it has shown to be it.
    waits: bool,
    session: Option<SessionId>,
    control: Option<SendId>,
    /// Until when it has to begin; none once it did.
    until: Option<Instant>,
}

impl Subscription {
    /// Whether there is no session with the peer yet, and one is to come.
    const fn is_looked_for(&self) -> bool {
        self.waits || self.opening.is_some()
    }
}

impl Peers {
    pub(crate) const fn new(max: usize, patience: Duration) -> Self {
        Self {
            max,
            patience,
            next_stream: FIRST_STREAM,
            keepalive: KEEPALIVE_MIN,
            listening: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            asking: BTreeMap::new(),
            receiving: BTreeMap::new(),
            sessions: BTreeMap::new(),
            events: VecDeque::new(),
            held: false,
        }
    }

    /// Changes how many peer connections there may be. Those that there are stay.
    pub(crate) const fn set_max(&mut self, endpoint: &mut Endpoint, max: usize) {
        self.max = max;
        endpoint.set_sessions_max(sessions_max(max));
    }

    pub(crate) fn set_keepalive(&mut self, keepalive: Duration) {
        self.keepalive = keepalive.max(KEEPALIVE_MIN);
    }

    /// The next thing that happened.
    pub(crate) fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    /// How many things wait to be fetched.
    pub(crate) fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether a stream is between peers.
    pub(crate) fn has(&self, stream: StreamId) -> bool {
        self.listening.contains_key(&stream) || self.subscriptions.contains_key(&stream)
    }

    /// How many streams there are between peers.
    pub(crate) fn streams(&self) -> usize {
        self.listening.len() + self.subscriptions.len()
    }

    /// A stream that peers may play (`DIRECT_CONNECTIONS`).
    pub(crate) fn listen(&mut self, accept: OnPeerConnect) -> StreamId {
        let stream = self.fresh();
        self.listening.insert(stream, Listening::new(accept));
        stream
    }

    /// A stream on which a peer's may be played.
    pub(crate) fn reach(&mut self, peer: PeerId) -> StreamId {
        let stream = self.fresh();
        let subscription = Subscription {
            peer,
            name: None,
            opening: None,
            waits: false,
            session: None,
            control: None,
            until: None,
        };
        self.subscriptions.insert(stream, subscription);
        stream
    }

    /// Gives a stream for peers its name. Says whether it is one.
    pub(crate) fn publish(
        &mut self,
        endpoint: &mut Endpoint,
        stream: StreamId,
        name: &str,
        now: Instant,
    ) -> bool {
        if !self.listening.contains_key(&stream) {
            return false;
        }
        // Who plays what it was before is not given something else.
        self.unpublish(endpoint, stream, now);
        if let Some(listening) = self.listening.get_mut(&stream) {
            listening.begin(name);
        }
        self.tell(stream, "NetStream.Publish.Start", "status", None);
        true
    }

    /// Begins to play a peer's stream. Says whether it is a stream for that; what becomes of
    /// it is told by a status.
    pub(crate) fn play(
        &mut self,
        endpoint: &mut Endpoint,
        server: &[SocketAddr],
        stream: StreamId,
        name: &str,
        now: Instant,
    ) -> bool {
        let Some(subscription) = self.subscriptions.get(&stream) else {
            return false;
        };
        let peer = subscription.peer;
        if !self.has_room_for(peer) {
            let code = "NetStream.Connect.Rejected";
            self.tell(stream, code, "error", Some(peer));
            return true;
        }
        self.leave(endpoint, stream, now);
        let held = self.session_with(endpoint, peer);
        let comes = self.sessions.values().any(|it| it.id == peer);
        let Some(subscription) = self.subscriptions.get_mut(&stream) else {
            return false;
        };
        subscription.name = Some(name.to_owned());
        subscription.until = Some(now + self.patience);
        match held {
            Some(session) => self.ask(endpoint, stream, session, now),
            None if comes => subscription.waits = true,
            None => {
                let wanted = Discriminator::canonical(&peer.0);
                subscription.opening = Some(endpoint.open(&wanted, server, now));
            }
        }
        self.retire(now);
        true
    }

    /// There is another server: it is asked for those whom the one before did not introduce.
    pub(crate) fn ask_anew(&mut self, endpoint: &mut Endpoint, server: SocketAddr, now: Instant) {
        for subscription in self.subscriptions.values_mut() {
            if let Some(opening) = subscription.opening.take() {
                endpoint.cancel(opening);
                let wanted = Discriminator::canonical(&subscription.peer.0);
                subscription.opening = Some(endpoint.open(&wanted, &[server], now));
            }
        }
    }

    /// Whether there is a session with any peer.
    pub(crate) fn is_with_any(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// Ends what a stream does.
    pub(crate) fn close(&mut self, endpoint: &mut Endpoint, stream: StreamId, now: Instant) {
        self.leave(endpoint, stream, now);
        if self.listening.contains_key(&stream) {
            self.unpublish(endpoint, stream, now);
        }
        self.retire(now);
    }

    /// A stream is gone.
    pub(crate) fn delete(&mut self, endpoint: &mut Endpoint, stream: StreamId, now: Instant) {
        self.close(endpoint, stream, now);
        self.subscriptions.remove(&stream);
        self.listening.remove(&stream);
    }

    /// Holds back what peers send, or lets it come.
    pub(crate) fn hold(&mut self, endpoint: &mut Endpoint, held: bool) {
        if self.held == held {
            return;
        }
        self.held = held;
        for (session, flow) in self.receiving.keys() {
            if let Some(session) = endpoint.session_mut(*session) {
                session.suspend(*flow, held);
            }
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let begun = self.subscriptions.values().filter_map(|it| it.until);
        let idle = self.sessions.values().filter_map(|it| it.idle);
        begun.chain(idle.map(|since| since + IDLE)).min()
    }

    /// Acts upon the time.
    pub(crate) fn handle_timeout(&mut self, endpoint: &mut Endpoint, now: Instant) {
        self.retire(now);
        let late = |it: &Subscription| it.until.is_some_and(|until| until <= now);
        let late: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|(_, it)| late(it))
            .collect();
        let late: Vec<_> = late.into_iter().map(|(stream, _)| *stream).collect();
        for stream in late {
            self.fail(endpoint, stream, "NetStream.Connect.Failed", now);
        }
        self.sessions.retain(|id, peer| {
            let over = peer.idle.is_some_and(|since| since + IDLE <= now);
            if over && let Some(session) = endpoint.session_mut(*id) {
                session.close(now);
            }
            !over
        });
    }

    /// Something happened that is not about the server.
    pub(crate) fn handle_event(&mut self, endpoint: &mut Endpoint, event: Event, now: Instant) {
        match event {
            Event::Opened {
                session,
                opening,
                fingerprint,
                ..
            } => {
                let peer = PeerId(fingerprint);
                self.opened(endpoint, (session, peer), opening, now);
            }
            Event::OpenFailed { opening } => {
                let failed = self
                    .subscriptions
                    .iter()
                    .find(|(_, it)| it.opening == Some(opening));
                if let Some((stream, _)) = failed {
                    self.fail(endpoint, *stream, "NetStream.Connect.Failed", now);
                }
            }
            Event::Session { session, event } => {
                self.session_event(endpoint, session, event, now);
                self.retire(now);
            }
            // It is for servers.
            Event::Introduce { .. } => {}
        }
    }

    fn fresh(&mut self) -> StreamId {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        stream
    }

    fn opened(
        &mut self,
        endpoint: &mut Endpoint,
        (session, id): (SessionId, PeerId),
        opening: Option<OpeningId>,
        now: Instant,
    ) {
        let ours = opening.is_some();
        if !ours && self.listening.is_empty() && !self.wants(id) {
            // There is nothing to be had here.
            if let Some(session) = endpoint.session_mut(session) {
                session.abort();
            }
            return;
        }
        if let Some(session) = endpoint.session_mut(session) {
            session.set_keepalive(self.keepalive);
        }
        let idle = Some(now);
        self.sessions.insert(session, Peer { id, idle });
        if ours {
            self.ask_all(endpoint, session, id, now);
        } else {
            // One session is enough: a second one from the same address would end the first.
            let wanted = self.subscriptions.values_mut();
            for subscription in wanted.filter(|it| it.peer == id) {
                if let Some(opening) = subscription.opening.take() {
                    endpoint.cancel(opening);
                    subscription.waits = true;
                }
            }
        }
        self.retire(now);
    }

    /// Whether a peer is being looked for.
    fn wants(&self, peer: PeerId) -> bool {
        let mut all = self.subscriptions.values();
        all.any(|it| it.peer == peer && it.is_looked_for())
    }

    /// What waits for a session with this peer goes on in this one.
    fn ask_all(&mut self, endpoint: &mut Endpoint, session: SessionId, id: PeerId, now: Instant) {
        let mut waiting = Vec::new();
        for (stream, it) in &mut self.subscriptions {
            if it.peer == id && it.is_looked_for() {
                it.waits = false;
                waiting.push((*stream, it.opening.take()));
            }
        }
        for (stream, opening) in waiting {
            if let Some(opening) = opening {
                endpoint.cancel(opening);
            }
            self.ask(endpoint, stream, session, now);
        }
    }

    /// A session with the peer, which has shown to be it.
    fn session_with(&self, endpoint: &Endpoint, peer: PeerId) -> Option<SessionId> {
        endpoint
            .session_of(&peer.0)
            .filter(|session| self.sessions.contains_key(session))
    }

    /// Says `play` on a flow of its own.
    fn ask(&mut self, endpoint: &mut Endpoint, stream: StreamId, id: SessionId, now: Instant) {
        let Some(subscription) = self.subscriptions.get_mut(&stream) else {
            return;
        };
        let name = subscription.name.clone().unwrap_or_default();
        let Some(session) = endpoint.session_mut(id) else {
            return;
        };
        let words = ["play".into(), 0.0.into(), Value::Null, name.into()];
        let asked = session
            .open_flow(&metadata(stream), Options::default())
            .ok()
            .zip(command(stream, &words))
            .and_then(|(flow, play)| {
                let payload = tc::encode(&play);
                let written = session.write(flow, payload, Priority::Control, None, now);
                written.ok().map(|_| flow)
            });
        subscription.session = Some(id);
        subscription.control = asked;
        if asked.is_none() {
            self.fail(endpoint, stream, "NetStream.Connect.Failed", now);
        }
    }

    fn session_event(
        &mut self,
        endpoint: &mut Endpoint,
        id: SessionId,
        event: session::Event,
        now: Instant,
    ) {
        match event {
            session::Event::FlowOpened {
                flow,
                metadata,
                association,
            } => {
                // Whoever says something has shown to hold its keys.
                if let Some(peer) = self.sessions.get(&id).copied() {
                    self.ask_all(endpoint, id, peer.id, now);
                }
                if !self.flow_opened((id, flow), &metadata, association)
                    && let Some(session) = endpoint.session_mut(id)
                {
                    session.reject(flow, 0);
                }
                if self.held
                    && self.receiving.contains_key(&(id, flow))
                    && let Some(session) = endpoint.session_mut(id)
                {
                    session.suspend(flow, true);
                }
            }
            session::Event::Message { flow, message } => {
                let at = (id, flow);
                if let Some(stream) = self.receiving.get(&at).copied() {
                    if let Ok(Some(message)) = tc::decode(stream, &message.bytes) {
                        self.received(stream, message);
                    }
                } else if let Some(far) = self.asking.get(&at).copied()
                    && let Ok(Some(message)) = tc::decode(far, &message.bytes)
                {
                    self.asked(endpoint, at, far, &message, now);
                }
            }
            session::Event::FlowComplete { flow } | session::Event::FlowBroken { flow } => {
                self.asking.remove(&(id, flow));
                self.receiving.remove(&(id, flow));
                self.drop_subscriber(endpoint, (id, flow), now);
            }
            session::Event::FlowRejected { flow, .. } => self.rejected(endpoint, id, flow, now),
            session::Event::Closed { .. } => self.session_closed(endpoint, id, now),
            session::Event::FlowFinished { .. }
            | session::Event::Writable { .. }
            | session::Event::Late { .. }
            | session::Event::ForwardedHello { .. }
            | session::Event::Moved { .. } => {}
        }
    }

    /// Says whether the flow is wanted.
    fn flow_opened(
        &mut self,
        at: (SessionId, ReceiveId),
        metadata: &[u8],
        association: Option<SendId>,
    ) -> bool {
        let Ok(metadata) = Metadata::parse(metadata) else {
            return false;
        };
        if metadata.stream == StreamId::CONNECTION {
            return false;
        }
        if association.is_some() {
            let found = self
                .subscriptions
                .iter()
                .find(|(_, it)| it.session == Some(at.0) && it.control == association);
            let stream = found.map(|(stream, _)| *stream);
            self.receiving.extend(stream.map(|stream| (at, stream)));
            return stream.is_some();
        }
        let of_it = (at.0, ReceiveId(0))..=(at.0, ReceiveId(u64::MAX));
        let asking = self.asking.range(of_it.clone()).count();
        let plays = asking + self.subscribers.range(of_it).count();
        let wanted = !self.listening.is_empty() && plays < PLAYS_MAX;
        if wanted {
            self.asking.insert(at, metadata.stream);
        }
        wanted
    }

    fn received(&mut self, stream: StreamId, message: Message) {
        let Some(subscription) = self.subscriptions.get_mut(&stream) else {
            return;
        };
        // The first word of the publisher's shows that it publishes (RFC 7425 §5.4.2).
        if subscription.until.take().is_some() {
            let peer = subscription.peer;
            self.tell(stream, "NetStream.Play.Start", "status", Some(peer));
        }
        match message.kind {
            // What there is to say about it was said.
            MessageKind::UserControl | MessageKind::CommandAmf0 | MessageKind::CommandAmf3 => {}
            MessageKind::Audio
            | MessageKind::Video
            | MessageKind::DataAmf0
            | MessageKind::DataAmf3 => self.events.push_back(PeerEvent::Message(message)),
            MessageKind::SharedObjectAmf0 | MessageKind::SharedObjectAmf3 => {}
        }
    }

    fn rejected(&mut self, endpoint: &mut Endpoint, id: SessionId, flow: SendId, now: Instant) {
        let found = self
            .subscriptions
            .iter()
            .find(|(_, it)| it.session == Some(id) && it.control == Some(flow));
        if let Some((stream, subscription)) = found {
            let code = match subscription.until {
                Some(_) => "NetStream.Connect.Rejected",
                None => "NetStream.Connect.Closed",
            };
            self.fail(endpoint, *stream, code, now);
            return;
        }
        for ((session, _), subscriber) in &mut self.subscribers {
            if *session == id {
                subscriber.refuse(flow);
            }
        }
    }

    fn session_closed(&mut self, endpoint: &mut Endpoint, id: SessionId, now: Instant) {
        self.sessions.remove(&id);
        self.asking.retain(|(session, _), _| *session != id);
        self.receiving.retain(|(session, _), _| *session != id);
        let gone = self
            .subscribers
            .keys()
            .filter(|(session, _)| *session == id);
        for at in gone.copied().collect::<Vec<_>>() {
            self.drop_subscriber(endpoint, at, now);
        }
        let of_it = self
            .subscriptions
            .iter()
            .filter(|(_, it)| it.session == Some(id));
        for stream in of_it.map(|(stream, _)| *stream).collect::<Vec<_>>() {
            self.fail(endpoint, stream, "NetStream.Connect.Closed", now);
        }
    }

    /// A subscription came to nothing, or is over.
    fn fail(&mut self, endpoint: &mut Endpoint, stream: StreamId, code: &str, now: Instant) {
        let peer = self.subscriptions.get(&stream).map(|it| it.peer);
        self.leave(endpoint, stream, now);
        self.tell(stream, code, "error", peer);
    }

    /// A subscription is given up.
    fn leave(&mut self, endpoint: &mut Endpoint, stream: StreamId, now: Instant) {
        let Some(subscription) = self.subscriptions.get_mut(&stream) else {
            return;
        };
        subscription.until = None;
        subscription.waits = false;
        if let Some(opening) = subscription.opening.take() {
            endpoint.cancel(opening);
        }
        let (session, control) = (subscription.session.take(), subscription.control.take());
        if let Some((session, control)) = session.zip(control)
            && let Some(session) = endpoint.session_mut(session)
        {
            session.finish(control, now);
        }
        self.receiving.retain(|_, to| *to != stream);
    }

    /// The count of peer connections, as the limit means it.
    fn count(&self) -> (Count, BTreeSet<PeerId>) {
        let subscribers = self.subscribers.values().map(|it| it.peer);
        let played = self.subscriptions.values().filter(|it| it.name.is_some());
        let played = played.filter(|it| it.session.is_some() || it.is_looked_for());
        let peers: BTreeSet<_> = subscribers.chain(played.map(|it| it.peer)).collect();
        let count = Count {
            listening: self.listening.len(),
            incoming: peers.len(),
        };
        (count, peers)
    }

    fn has_room_for(&self, peer: PeerId) -> bool {
        let (count, peers) = self.count();
        peers.contains(&peer) || count.has_room(self.max)
    }

    /// Notes which sessions nobody uses.
    fn retire(&mut self, now: Instant) {
        let used: BTreeSet<_> = self
            .subscribers
            .keys()
            .map(|(session, _)| *session)
            .chain(self.subscriptions.values().filter_map(|it| it.session))
            .collect();
        for (id, peer) in &mut self.sessions {
            peer.idle = match peer.idle {
                _ if used.contains(id) => None,
                Some(since) => Some(since),
                None => Some(now),
            };
        }
    }

    fn tell(&mut self, stream: StreamId, code: &str, level: &str, peer: Option<PeerId>) {
        let status = Box::new(status(code, level, peer));
        self.events.push_back(PeerEvent::Status { stream, status });
    }
}

fn status(code: &str, level: &str, peer: Option<PeerId>) -> Status {
    let description = peer.map(|peer| peer.to_string()).unwrap_or_default();
    let info = Value::object([
        ("level", Value::from(level)),
        ("code", code.into()),
        ("description", description.as_str().into()),
    ]);
    Status {
        code: code.to_owned(),
        level: level.to_owned(),
        description,
        info,
    }
}

fn command(stream: StreamId, values: &[Value]) -> Option<Message> {
    Some(Message {
        kind: MessageKind::CommandAmf0,
        stream,
        time: 0,
        payload: amf::amf0::write_all(values).ok()?,
    })
}

fn stream_begin(stream: StreamId) -> Message {
    Message {
        kind: MessageKind::UserControl,
        stream,
        time: 0,
        payload: UserControl::StreamBegin(stream).encode(),
    }
}

fn metadata(stream: StreamId) -> bytes::Bytes {
    let order = Order::Original;
    Metadata { stream, order }.encode()
}
