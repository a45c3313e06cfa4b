//! One connection's messages in flows (RFC 7425 §5.3).
//!
//! A stream has three flows in each direction: commands and data, sound, pictures. The
//! client's first flow, for stream 0, is the connection's; all flows of the server answer it,
//! and all other flows of the client answer the server's first one. None is opened before it
//! is needed. A message that its flow has no room for waits here.

mod barrier;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use rtmp::{Message, MessageKind, StreamId};

use super::Metadata;
use crate::flow::{Options, Order, Payload, Priority, ReceiveId, SendId};
use crate::session::{Closed, Event, Refused, Session};
use barrier::Barriers;

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing for the owner.
    Nothing,
    /// There is room in a flow, or a flow is over.
    Go,
    /// A message came: see [`Flows::poll_message`].
    Message,
    /// The connection is over, and how.
    Over(Over),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Closed here.
    Here,
    /// The far end closed it.
    There,
    /// Nothing is heard of the far end.
    Silent,
    /// The far end takes nothing.
    Unacknowledged,
    /// The far end rejects commands.
    Rejected,
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// What kind of messages of a stream a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Commands, data and shared objects.
    Data,
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Data, Self::Audio, Self::Video];

    /// Where messages of a kind go.
    #[must_use]
    pub fn of(kind: MessageKind, stream: StreamId) -> Self {
        match kind {
            _ if stream == StreamId::CONNECTION => Self::Data,
            MessageKind::Audio => Self::Audio,
            MessageKind::Video => Self::Video,
            MessageKind::UserControl
            | MessageKind::CommandAmf0
            | MessageKind::CommandAmf3
            | MessageKind::DataAmf0
            | MessageKind::DataAmf3
            | MessageKind::SharedObjectAmf0
            | MessageKind::SharedObjectAmf3 => Self::Data,
        }
    }
}

#[derive(Debug)]
struct Letter {
    payload: Payload,
    priority: Priority,
    deadline: Option<Instant>,
}

#[derive(Debug, Default)]
struct Sending {
    flow: Option<SendId>,
    /// The far end does not want it. It is not opened again while the stream lasts.
    refused: bool,
    waiting: VecDeque<Letter>,
}

/// The flows of one connection.
#[derive(Debug)]
pub struct Flows {
    role: Role,
    /// The far end's first flow: commands of the connection.
    control: Option<ReceiveId>,
    receiving: BTreeMap<ReceiveId, StreamId>,
    barriers: Barriers,
    /// Messages, and when they began to come.
    incoming: VecDeque<(Message, Instant)>,
    /// When the last one that was handed out began to come.
    polled_began: Option<Instant>,
    sending: BTreeMap<(StreamId, Lane), Sending>,
    waiting: usize,
    /// Flows that are closed and not over.
    finishing: BTreeSet<SendId>,
    held: bool,
}

impl Flows {
    /// For the one who connected.
    #[must_use]
    pub fn client() -> Self {
        Self::new(Role::Client)
    }

    /// For the one who is connected to.
    #[must_use]
    pub fn server() -> Self {
        Self::new(Role::Server)
    }

    fn new(role: Role) -> Self {
        Self {
            role,
            control: None,
            receiving: BTreeMap::new(),
            barriers: Barriers::default(),
            incoming: VecDeque::new(),
            polled_began: None,
            sending: BTreeMap::new(),
            waiting: 0,
            finishing: BTreeSet::new(),
            held: false,
        }
    }

    /// Bytes that have no room in their flows.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes that are written and that the far end does not have yet.
    #[must_use]
    pub fn unsent(&self, session: &Session) -> usize {
        let flows = self.sending.values().filter_map(|sending| sending.flow);
        let queued = flows
            .chain(self.finishing.iter().copied())
            .filter_map(|flow| session.flow_stats(flow))
            .map(|stats| stats.queued_bytes);
        self.waiting + queued.sum::<usize>()
    }

    /// The next message of the far end.
    pub fn poll_message(&mut self) -> Option<Message> {
        let (message, began) = self.incoming.pop_front()?;
        self.polled_began = Some(began);
        if self.incoming.is_empty() {
            self.incoming = VecDeque::new();
        }
        Some(message)
    }

    /// When the first fragment of the last message came that [`Self::poll_message`] gave.
    #[must_use]
    pub const fn polled_began(&self) -> Option<Instant> {
        self.polled_began
    }

    /// Messages of the far end that wait.
    #[must_use]
    pub fn incoming(&self) -> usize {
        self.incoming.len()
    }

    /// A message for the far end, whatever time it takes.
    pub fn write(&mut self, session: &mut Session, message: &Message, now: Instant) {
        self.write_media(session, message, true, None, now);
    }

    /// A message for the far end that is given up at `deadline`. `is_key` says whether
    /// messages after it need it.
    pub fn write_media(
        &mut self,
        session: &mut Session,
        message: &Message,
        is_key: bool,
        deadline: Option<Instant>,
        now: Instant,
    ) {
        let letter = Letter {
            payload: super::encode(message),
            priority: super::priority(message.kind, is_key),
            deadline,
        };
        let lane = (message.stream, Lane::of(message.kind, message.stream));
        let sending = self.sending.entry(lane).or_default();
        if sending.refused {
            return;
        }
        self.waiting += letter.payload.len();
        sending.waiting.push_back(letter);
        if sending.waiting.len() == 1 {
            self.flush(session, lane, now);
        }
    }

    /// Whether media of the stream that are written now can go on.
    #[must_use]
    pub fn has_room_for_media(&self, stream: StreamId) -> bool {
        let lanes = (stream, Lane::Data)..=(stream, Lane::Video);
        self.sending
            .range(lanes)
            .all(|(_, sending)| sending.waiting.is_empty())
    }

    /// Holds back what the far end sends, or lets it come.
    pub fn hold(&mut self, session: &mut Session, held: bool) {
        if self.held == held {
            return;
        }
        self.held = held;
        for flow in self.receiving.keys() {
            session.suspend(*flow, held || self.barriers.holds(*flow));
        }
    }

    /// Whether they are held.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.held
    }

    /// Something happened in the session.
    pub fn handle_event(&mut self, session: &mut Session, event: Event, now: Instant) -> Told {
        let told = self.act_on(session, event, now);
        let came = self.pass_barriers(session, now);
        match told {
            Told::Nothing | Told::Go if came => Told::Message,
            Told::Nothing | Told::Go | Told::Message | Told::Over(_) => told,
        }
    }

    fn act_on(&mut self, session: &mut Session, event: Event, now: Instant) -> Told {
        match event {
            Event::FlowOpened {
                flow,
                metadata,
                association,
            } => {
                self.opened(session, flow, &metadata, association);
                Told::Nothing
            }
            Event::Message { flow, message } => {
                self.message(session, flow, message.bytes, message.began, now)
            }
            Event::FlowComplete { flow } | Event::FlowBroken { flow } => {
                self.complete(session, flow, now)
            }
            Event::FlowRejected { flow, .. } => self.rejected(flow),
            Event::FlowFinished { flow } => {
                self.finishing.remove(&flow);
                Told::Go
            }
            Event::Writable { flow } => {
                if let Some(lane) = self.lane_of(flow) {
                    self.flush(session, lane, now);
                }
                Told::Go
            }
            Event::Closed { why } => Told::Over(match why {
                Closed::Here => Over::Here,
                Closed::There => Over::There,
                Closed::Silent => Over::Silent,
                Closed::Unacknowledged => Over::Unacknowledged,
            }),
            Event::Late { .. } | Event::ForwardedHello { .. } | Event::Moved { .. } => {
                Told::Nothing
            }
        }
    }

    /// No message follows. What waits in flows is still sent.
    pub fn finish(&mut self, session: &mut Session, now: Instant) {
        let streams: BTreeSet<_> = self.sending.keys().map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.finish_stream(session, stream, now);
        }
    }

    /// Whether all that was sent arrived, after [`Self::finish`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finishing.is_empty()
    }

    /// The session is gone, and its flows with it.
    pub fn drop_all(&mut self) {
        self.sending.clear();
        self.finishing.clear();
        self.waiting = 0;
    }

    fn opened(
        &mut self,
        session: &mut Session,
        flow: ReceiveId,
        metadata: &[u8],
        association: Option<SendId>,
    ) {
        let metadata = Metadata::parse(metadata).ok().filter(|it| match self.role {
            // Whose first flow is not the connection's is no client of ours.
            Role::Server => self.control.is_some() || it.stream == StreamId::CONNECTION,
            // Whoever else may be in the session is not the server of this connection.
            Role::Client => association.is_some() && association == self.near_control(),
        });
        let Some(metadata) = metadata else {
            session.reject(flow, 0);
            return;
        };
        if metadata.stream == StreamId::CONNECTION {
            self.control.get_or_insert(flow);
        }
        self.receiving.insert(flow, metadata.stream);
        if self.held {
            session.suspend(flow, true);
        }
    }

    fn message(
        &mut self,
        session: &mut Session,
        flow: ReceiveId,
        bytes: Bytes,
        began: Instant,
        now: Instant,
    ) -> Told {
        let Some(stream) = self.receiving.get(&flow).copied() else {
            return Told::Nothing;
        };
        if self.barriers.holds(flow) {
            self.barriers.keep(flow, bytes, began);
            return Told::Nothing;
        }
        match super::decode(stream, &bytes) {
            Ok(Some(message)) => {
                if let Some((id, count)) = super::read_flow_sync(&message) {
                    self.barriers.come(flow, id, count, now);
                    session.suspend(flow, true);
                    return Told::Nothing;
                }
                self.incoming.push_back((message, began));
                Told::Message
            }
            // It is too short to be a message, or of a kind that is not for us.
            Ok(None) | Err(_) => Told::Nothing,
        }
    }

    /// Lets flows go on whose barrier opens. Says whether messages came of it.
    fn pass_barriers(&mut self, session: &mut Session, now: Instant) -> bool {
        let before = self.incoming.len();
        while let Some(freed) = self.barriers.poll_opened(self.receiving.keys(), now) {
            for (flow, kept) in freed {
                session.suspend(flow, self.held);
                for (bytes, began) in kept {
                    // One of them may be the next barrier.
                    self.message(session, flow, bytes, began, now);
                }
            }
        }
        self.incoming.len() > before
    }

    fn complete(&mut self, session: &mut Session, flow: ReceiveId, now: Instant) -> Told {
        if self.control == Some(flow) {
            return Told::Over(Over::There);
        }
        // Flows come and go as an end likes (§5.3.5.3); only a client that has no more of a
        // stream is given no more of it.
        if let Some(stream) = self.receiving.remove(&flow)
            && self.role == Role::Server
            && !self.receiving.values().any(|other| *other == stream)
        {
            self.finish_stream(session, stream, now);
        }
        Told::Nothing
    }

    fn rejected(&mut self, flow: SendId) -> Told {
        self.finishing.remove(&flow);
        match self.lane_of(flow) {
            Some((StreamId::CONNECTION, _)) => Told::Over(Over::Rejected),
            Some(lane) => {
                self.refuse(lane);
                Told::Go
            }
            None => Told::Go,
        }
    }

    fn refuse(&mut self, lane: (StreamId, Lane)) {
        if let Some(sending) = self.sending.get_mut(&lane) {
            sending.refused = true;
            sending.flow = None;
            let dropped = sending.waiting.drain(..);
            self.waiting -= dropped.map(|letter| letter.payload.len()).sum::<usize>();
        }
    }

    fn finish_stream(&mut self, session: &mut Session, stream: StreamId, now: Instant) {
        for lane in Lane::ALL {
            self.finish_lane(session, (stream, lane), now);
        }
    }

    /// Closes the flow of a lane behind what it holds.
    fn finish_lane(&mut self, session: &mut Session, lane: (StreamId, Lane), now: Instant) {
        self.flush(session, lane, now);
        let Some(sending) = self.sending.remove(&lane) else {
            return;
        };
        let dropped = sending.waiting.iter();
        self.waiting -= dropped.map(|letter| letter.payload.len()).sum::<usize>();
        if let Some(flow) = sending.flow {
            session.finish(flow, now);
            self.finishing.insert(flow);
        }
    }

    fn lane_of(&self, flow: SendId) -> Option<(StreamId, Lane)> {
        self.sending
            .iter()
            .find(|(_, sending)| sending.flow == Some(flow))
            .map(|(lane, _)| *lane)
    }

    fn near_control(&self) -> Option<SendId> {
        self.sending.get(&CONTROL)?.flow
    }

    /// What a new flow answers.
    fn association(&self, lane: (StreamId, Lane)) -> Option<ReceiveId> {
        match self.role {
            Role::Client if lane == CONTROL => None,
            Role::Client | Role::Server => self.control,
        }
    }

    /// Puts what waits into its flow, as far as there is room.
    fn flush(&mut self, session: &mut Session, lane: (StreamId, Lane), now: Instant) {
        let association = self.association(lane);
        let Some(sending) = self.sending.get_mut(&lane) else {
            return;
        };
        while let Some(letter) = sending.waiting.front() {
            let flow = match sending.flow {
                Some(flow) => Ok(flow),
                None => session.open_flow(
                    &metadata(lane.0),
                    Options {
                        association,
                        time_critical: lane.1 != Lane::Data,
                    },
                ),
            };
            let written = flow.and_then(|flow| {
                sending.flow = Some(flow);
                // A payload shares its bytes.
                let payload = letter.payload.clone();
                session.write(flow, payload, letter.priority, letter.deadline, now)
            });
            match written {
                Err(Refused::Full) => return,
                Err(Refused::NoFlow | Refused::Closed | Refused::TooManyFlows) => {
                    self.refuse(lane);
                    return;
                }
                // One that is too long cannot go at all.
                Ok(_) | Err(Refused::TooLong { .. }) => {
                    self.waiting -= letter.payload.len();
                    sending.waiting.pop_front();
                }
            }
        }
        // Most connections are idle, and there are many.
        sending.waiting = VecDeque::new();
    }
}

/// The connection's own lane.
const CONTROL: (StreamId, Lane) = (StreamId::CONNECTION, Lane::Data);

fn metadata(stream: StreamId) -> Bytes {
    Metadata {
        stream,
        order: Order::Original,
    }
    .encode()
}

#[cfg(test)]
mod tests;
