//! One client's messages in flows.
//!
//! A stream has three flows to the client: commands and data, sound, pictures. All of them
//! answer the client's control flow (RFC 7425 §5.3.1), and none is opened before it is
//! needed. A message that its flow has no room for waits here; media are not read from their
//! cursor meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use model::{Class, Frame, MediaTime};
use rtmfp::endpoint::SessionId;
use rtmfp::flow::{Options, Payload, Priority, ReceiveId, SendId};
use rtmfp::session::{Closed, Event, Refused};
use rtmfp::tc::{self, Metadata};
use rtmp::{Message, MessageKind, StreamId};

use super::Door;
use crate::play::message_kind;

/// How long a picture that no other needs is worth sending. Who sees it later than this sees
/// it after its time.
const DELTA_LIFE: Duration = Duration::from_secs(2);

/// How long sound is: a gap is heard, and it is small.
const AUDIO_LIFE: Duration = Duration::from_secs(3);

/// How long a picture is that others need. By then the next one is there.
const KEY_LIFE: Duration = Duration::from_secs(5);

/// How often clients are to ask whether we are there, and how often peers, in milliseconds:
/// what keeps the usual address translators from forgetting them.
const KEEPALIVE_MS: (u32, u32) = (15_000, 10_000);

/// What came of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing for the client's session.
    Nothing,
    /// The client's task has something to do: there is room, or a flow is over.
    Go,
    /// A message came.
    Message,
    /// The client is gone, and how.
    Over(&'static str),
}

/// What kind of messages of a stream a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Data,
    Audio,
    Video,
}

impl Lane {
    fn of(kind: MessageKind, stream: StreamId) -> Self {
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
    /// The client does not want it. It is not opened again while the stream lasts.
    refused: bool,
    waiting: VecDeque<Letter>,
}

/// The flows of one session.
#[derive(Debug)]
pub(crate) struct Flows {
    door: Rc<Door>,
    session: SessionId,
    /// The client's first flow: commands of the connection.
    control: Option<ReceiveId>,
    receiving: BTreeMap<ReceiveId, StreamId>,
    incoming: VecDeque<Message>,
    sending: BTreeMap<(StreamId, Lane), Sending>,
    waiting: usize,
    /// Flows that are closed and not over.
    finishing: BTreeSet<SendId>,
    held: bool,
    /// Packets that had come when the client was last found alive.
    packets: u64,
}

impl Flows {
    pub(super) fn new(door: Rc<Door>, session: SessionId) -> Self {
        Self {
            door,
            session,
            control: None,
            receiving: BTreeMap::new(),
            incoming: VecDeque::new(),
            sending: BTreeMap::new(),
            waiting: 0,
            finishing: BTreeSet::new(),
            held: false,
            packets: 0,
        }
    }

    /// Which session it is.
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    /// Bytes that have no room in their flows.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The client is accepted.
    pub(crate) fn begin(&mut self) {
        self.write_message(&tc::keepalive(KEEPALIVE_MS.0, KEEPALIVE_MS.1));
    }

    /// The next message of the client.
    pub(crate) fn poll_message(&mut self) -> Option<Message> {
        self.incoming.pop_front()
    }

    /// A message for the client.
    pub(crate) fn write_message(&mut self, message: &Message) {
        let letter = Letter {
            payload: tc::encode(message),
            priority: tc::priority(message.kind, true),
            deadline: None,
        };
        let lane = Lane::of(message.kind, message.stream);
        self.write((message.stream, lane), letter, Instant::now());
    }

    /// Media for the client, at their time in the stream.
    pub(crate) fn write_frame(
        &mut self,
        stream: StreamId,
        frame: &Frame,
        time: MediaTime,
        now: Instant,
    ) {
        let kind = message_kind(frame.kind);
        let life = match frame.class {
            Class::Config | Class::Clear | Class::Data => None,
            Class::Key => Some(KEY_LIFE),
            Class::Delta => Some(DELTA_LIFE),
            Class::Audio => Some(AUDIO_LIFE),
        };
        let letter = Letter {
            payload: tc::encode(&Message {
                kind,
                stream,
                time: time.wire(),
                payload: frame.payload.clone(),
            }),
            priority: tc::priority(kind, frame.class != Class::Delta),
            deadline: life.map(|life| now + life),
        };
        self.write((stream, Lane::of(kind, stream)), letter, now);
    }

    /// Whether media of the stream that are read now can go on.
    pub(crate) fn has_room_for_media(&self, stream: StreamId) -> bool {
        let lanes = (stream, Lane::Data)..=(stream, Lane::Video);
        self.sending
            .range(lanes)
            .all(|(_, sending)| sending.waiting.is_empty())
    }

    /// Holds back what the client sends, or lets it come.
    pub(crate) fn hold(&mut self, held: bool) {
        if self.held == held {
            return;
        }
        self.held = held;
        if let Some(mut session) = self.door.session(self.session) {
            for flow in self.receiving.keys() {
                session.suspend(*flow, held);
            }
        }
    }

    /// Whether packets came since the last call.
    pub(crate) fn was_heard(&mut self) -> bool {
        let packets = self
            .door
            .session(self.session)
            .map_or(self.packets, |session| session.stats().packets_received);
        std::mem::replace(&mut self.packets, packets) != packets
    }

    /// Something happened in the session.
    pub(crate) fn handle_event(&mut self, event: Event, now: Instant) -> Told {
        match event {
            Event::FlowOpened { flow, metadata, .. } => self.opened(flow, &metadata),
            Event::Message { flow, message } => {
                let Some(stream) = self.receiving.get(&flow) else {
                    return Told::Nothing;
                };
                match tc::decode(*stream, &message.bytes) {
                    Ok(Some(message)) => {
                        self.incoming.push_back(message);
                        Told::Message
                    }
                    // It is too short to be a message, or of a kind that is not for us.
                    Ok(None) | Err(_) => Told::Nothing,
                }
            }
            Event::FlowComplete { flow } | Event::FlowBroken { flow } => self.complete(flow, now),
            Event::FlowRejected { flow, .. } => self.rejected(flow),
            Event::FlowFinished { flow } => {
                self.finishing.remove(&flow);
                Told::Go
            }
            Event::Writable { flow } => {
                let lane = self.lane_of(flow);
                if let Some(lane) = lane {
                    self.flush(lane, now);
                }
                Told::Go
            }
            Event::Closed { why } => Told::Over(match why {
                Closed::Here => "closed",
                Closed::There => "closed by the client",
                Closed::Silent => "nothing is heard of the client",
                Closed::Unacknowledged => "the client takes nothing",
            }),
            Event::Late { .. } | Event::ForwardedHello { .. } | Event::Moved { .. } => {
                Told::Nothing
            }
        }
    }

    /// No message follows. What waits in flows is still sent.
    pub(crate) fn finish(&mut self, now: Instant) {
        let streams: BTreeSet<_> = self.sending.keys().map(|(stream, _)| *stream).collect();
        for stream in streams {
            self.finish_stream(stream, now);
        }
    }

    /// Whether all that was sent arrived, after [`Self::finish`].
    pub(crate) fn is_finished(&self) -> bool {
        self.finishing.is_empty()
    }

    /// Ends the session.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(mut session) = self.door.session(self.session) {
            session.close(now);
        }
        self.finishing.clear();
    }

    fn opened(&mut self, flow: ReceiveId, metadata: &[u8]) -> Told {
        let Some(mut session) = self.door.session(self.session) else {
            return Told::Nothing;
        };
        // Whose first flow is not the connection's is no client of ours.
        let metadata = Metadata::parse(metadata)
            .ok()
            .filter(|it| self.control.is_some() || it.stream == StreamId::CONNECTION);
        let Some(metadata) = metadata else {
            session.reject(flow, 0);
            return Told::Nothing;
        };
        self.control.get_or_insert(flow);
        self.receiving.insert(flow, metadata.stream);
        if self.held {
            session.suspend(flow, true);
        }
        Told::Nothing
    }

    fn complete(&mut self, flow: ReceiveId, now: Instant) -> Told {
        if self.control == Some(flow) {
            return Told::Over("closed by the client");
        }
        if let Some(stream) = self.receiving.remove(&flow)
            && !self.receiving.values().any(|other| *other == stream)
        {
            self.finish_stream(stream, now);
        }
        Told::Nothing
    }

    fn rejected(&mut self, flow: SendId) -> Told {
        self.finishing.remove(&flow);
        match self.lane_of(flow) {
            Some((StreamId::CONNECTION, _)) => Told::Over("the client rejects commands"),
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

    fn finish_stream(&mut self, stream: StreamId, now: Instant) {
        for lane in [Lane::Data, Lane::Audio, Lane::Video] {
            self.finish_lane((stream, lane), now);
        }
    }

    /// Closes the flow of a lane behind what it holds.
    fn finish_lane(&mut self, lane: (StreamId, Lane), now: Instant) {
        self.flush(lane, now);
        let Some(sending) = self.sending.remove(&lane) else {
            return;
        };
        let dropped = sending.waiting.iter();
        self.waiting -= dropped.map(|letter| letter.payload.len()).sum::<usize>();
        if let Some(flow) = sending.flow
            && let Some(mut session) = self.door.session(self.session)
        {
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

    fn write(&mut self, lane: (StreamId, Lane), letter: Letter, now: Instant) {
        let sending = self.sending.entry(lane).or_default();
        if sending.refused {
            return;
        }
        self.waiting += letter.payload.len();
        sending.waiting.push_back(letter);
        if sending.waiting.len() == 1 {
            self.flush(lane, now);
        }
    }

    /// Puts what waits into its flow, as far as there is room.
    fn flush(&mut self, lane: (StreamId, Lane), now: Instant) {
        let Some(sending) = self.sending.get_mut(&lane) else {
            return;
        };
        let Some(mut session) = self.door.session(self.session) else {
            return;
        };
        while let Some(letter) = sending.waiting.front() {
            let flow = match sending.flow {
                Some(flow) => Ok(flow),
                None => session.open_flow(
                    &metadata(lane.0),
                    Options {
                        association: self.control,
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
                    drop(session);
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
    }
}

fn metadata(stream: StreamId) -> bytes::Bytes {
    Metadata {
        stream,
        order: rtmfp::flow::Order::Original,
    }
    .encode()
}
