//! What peers play of ours.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use amf::Value;
use model::{Class, Kind, MediaTime, Slot};
use rtmfp::endpoint::{Endpoint, SessionId};
use rtmfp::flow::{Options, ReceiveId, SendId};
use rtmfp::session::{Refused, Session};
use rtmfp::tc;
use rtmfp::tc::flows::Lane;
use rtmp::{Message, MessageKind, StreamId};

use super::{OnPeerConnect, PeerId, Peers, command, metadata, stream_begin};
use crate::limits::CONFIGS_MAX;

/// How long a picture that no other needs is worth sending.
const DELTA_LIFE: Duration = Duration::from_secs(2);

/// How long sound is: a gap is heard, and it is small.
const AUDIO_LIFE: Duration = Duration::from_secs(3);

/// How long a picture is that others need. By then the next one is there.
const KEY_LIFE: Duration = Duration::from_secs(5);

/// A stream of ours that peers may play.
pub(super) struct Listening {
    accept: OnPeerConnect,
    name: Option<String>,
    /// What one who comes late has to be told first.
    configs: BTreeMap<(Kind, Slot), Message>,
}

impl Listening {
    pub(super) const fn new(accept: OnPeerConnect) -> Self {
        Self {
            accept,
            name: None,
            configs: BTreeMap::new(),
        }
    }

    pub(super) fn begin(&mut self, name: &str) {
        self.name = Some(name.to_owned());
        self.configs.clear();
    }
}

/// A peer that plays a stream of ours.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) peer: PeerId,
    /// Our stream.
    stream: StreamId,
    /// How the peer calls it.
    far: StreamId,
    flows: [Flow; Lane::ALL.len()],
    /// Pictures mean nothing to it before the next key frame.
    wants_key: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    id: Option<SendId>,
    refused: bool,
}

/// A message and how long it is worth sending.
struct Letter<'a> {
    message: &'a Message,
    class: Class,
}

impl Letter<'_> {
    fn life(&self) -> Option<Duration> {
        match self.class {
            Class::Config | Class::Clear | Class::Data => None,
            Class::Key => Some(KEY_LIFE),
            Class::Delta => Some(DELTA_LIFE),
            Class::Audio => Some(AUDIO_LIFE),
        }
    }
}

impl Subscriber {
    /// The peer does not want what comes in this flow.
    pub(super) fn refuse(&mut self, id: SendId) {
        for flow in self.flows.iter_mut().filter(|flow| flow.id == Some(id)) {
            flow.id = None;
            flow.refused = true;
        }
    }

    /// Says whether the peer still takes what it is sent.
    fn send(
        &mut self,
        session: &mut Session,
        control: ReceiveId,
        letter: &Letter<'_>,
        now: Instant,
    ) -> bool {
        match letter.class {
            Class::Delta if self.wants_key => return true,
            Class::Key => self.wants_key = false,
            Class::Config | Class::Clear | Class::Data | Class::Delta | Class::Audio => {}
        }
        let lane = Lane::of(letter.message.kind, self.far);
        let Some(flow) = self.flows.get_mut(lane as usize) else {
            return true;
        };
        if flow.refused {
            return true;
        }
        let id = match flow.id {
            Some(id) => Ok(id),
            None => session.open_flow(
                &metadata(self.far),
                Options {
                    association: Some(control),
                    time_critical: lane != Lane::Data,
                },
            ),
        };
        let deadline = letter.life().map(|life| now + life);
        let is_key = letter.class != Class::Delta;
        let priority = tc::priority(letter.message.kind, is_key);
        let written = id.and_then(|id| {
            flow.id = Some(id);
            session.write(id, tc::encode(letter.message), priority, deadline, now)
        });
        match written {
            Ok(_) | Err(Refused::TooLong { .. }) => true,
            Err(Refused::Full) => {
                // Pictures go on at the next key frame, sound has a gap. Words are never
                // left out: who does not take them is let go.
                self.wants_key |= letter.message.kind == MessageKind::Video;
                deadline.is_some()
            }
            Err(Refused::NoFlow | Refused::Closed | Refused::TooManyFlows) => false,
        }
    }
}

impl Peers {
    /// Sends a message to all who play a stream. Says whether it is one for peers.
    pub(crate) fn send(
        &mut self,
        endpoint: &mut Endpoint,
        message: &Message,
        now: Instant,
    ) -> bool {
        let Some(listening) = self.listening.get_mut(&message.stream) else {
            return self.subscriptions.contains_key(&message.stream);
        };
        let (class, slot) = classify(message);
        if class == Class::Config && listening.configs.len() < CONFIGS_MAX {
            let kind = kind_of(message.kind);
            listening.configs.insert((kind, slot), message.clone());
        }
        let letter = Letter { message, class };
        let mut lost = Vec::new();
        for (at, subscriber) in &mut self.subscribers {
            if subscriber.stream == message.stream
                && let Some(session) = endpoint.session_mut(at.0)
                && !subscriber.send(session, at.1, &letter, now)
            {
                lost.push(*at);
            }
        }
        for at in lost {
            if let Some(session) = endpoint.session_mut(at.0) {
                session.reject(at.1, 0);
            }
            self.drop_subscriber(endpoint, at, now);
        }
        true
    }

    /// Somebody said something on a flow on which nothing was said before.
    pub(super) fn asked(
        &mut self,
        endpoint: &mut Endpoint,
        at: (SessionId, ReceiveId),
        far: StreamId,
        message: &Message,
        now: Instant,
    ) {
        let Some(name) = played(message) else {
            return;
        };
        self.asking.remove(&at);
        let peer = self.sessions.get(&at.0).map(|peer| peer.id);
        let stream = self.listening.iter().find_map(|(stream, listening)| {
            (listening.name.as_deref() == Some(name.as_str())).then_some(*stream)
        });
        let accepted = peer.zip(stream).filter(|(peer, stream)| {
            self.has_room_for(*peer)
                && self
                    .listening
                    .get_mut(stream)
                    .is_some_and(|listening| (listening.accept)(*peer))
        });
        let Some(session) = endpoint.session_mut(at.0) else {
            return;
        };
        let Some((peer, stream)) = accepted else {
            session.reject(at.1, 0);
            return;
        };
        let mut subscriber = Subscriber {
            peer,
            stream,
            far,
            flows: [Flow::default(); Lane::ALL.len()],
            wants_key: true,
        };
        let status = super::status("NetStream.Play.Start", "status", None);
        let words = ["onStatus".into(), 0.0.into(), Value::Null, status.info];
        let mut first = vec![stream_begin(far)];
        first.extend(command(far, &words));
        let configs = self.listening.get(&stream).map(|it| &it.configs);
        first.extend(configs.into_iter().flat_map(BTreeMap::values).cloned());
        for message in &first {
            let class = Class::Config;
            subscriber.send(session, at.1, &Letter { message, class }, now);
        }
        self.subscribers.insert(at, subscriber);
        self.tell(stream, "NetStream.Connect.Success", "status", Some(peer));
    }

    /// Nobody plays a stream of ours any more.
    pub(super) fn unpublish(&mut self, endpoint: &mut Endpoint, stream: StreamId, now: Instant) {
        if let Some(listening) = self.listening.get_mut(&stream) {
            listening.name = None;
        }
        let of_it = self.subscribers.iter();
        let of_it = of_it.filter(|(_, subscriber)| subscriber.stream == stream);
        for at in of_it.map(|(at, _)| *at).collect::<Vec<_>>() {
            if let Some(session) = endpoint.session_mut(at.0) {
                session.reject(at.1, 0);
            }
            self.drop_subscriber(endpoint, at, now);
        }
    }

    /// A peer does not play any more.
    pub(super) fn drop_subscriber(
        &mut self,
        endpoint: &mut Endpoint,
        at: (SessionId, ReceiveId),
        now: Instant,
    ) {
        let Some(subscriber) = self.subscribers.remove(&at) else {
            return;
        };
        if let Some(session) = endpoint.session_mut(at.0) {
            for flow in subscriber.flows.iter().filter_map(|flow| flow.id) {
                session.finish(flow, now);
            }
        }
        let (stream, peer) = (subscriber.stream, Some(subscriber.peer));
        self.tell(stream, "NetStream.Connect.Closed", "status", peer);
    }

    /// Who plays a stream of ours (`NetStream.peerStreams`).
    pub(crate) fn players(&self, stream: StreamId) -> Vec<PeerId> {
        let of_it = self.subscribers.values();
        of_it
            .filter(|subscriber| subscriber.stream == stream)
            .map(|subscriber| subscriber.peer)
            .collect()
    }
}

/// The name that a message asks to play.
fn played(message: &Message) -> Option<String> {
    let body = match message.kind {
        MessageKind::CommandAmf0 => message.payload.clone(),
        // One selector byte stands before the values.
        MessageKind::CommandAmf3 => message.payload.slice(1.min(message.payload.len())..),
        MessageKind::UserControl
        | MessageKind::Audio
        | MessageKind::Video
        | MessageKind::DataAmf0
        | MessageKind::DataAmf3
        | MessageKind::SharedObjectAmf0
        | MessageKind::SharedObjectAmf3 => return None,
    };
    let values = amf::command::read(&body).ok()?;
    let is_play = values.first().and_then(Value::as_str) == Some("play");
    let name = values.get(3).and_then(Value::as_str)?;
    is_play.then(|| name.to_owned())
}

fn kind_of(kind: MessageKind) -> Kind {
    match kind {
        MessageKind::Audio => Kind::Audio,
        MessageKind::Video => Kind::Video,
        MessageKind::UserControl
        | MessageKind::CommandAmf0
        | MessageKind::CommandAmf3
        | MessageKind::DataAmf0
        | MessageKind::DataAmf3
        | MessageKind::SharedObjectAmf0
        | MessageKind::SharedObjectAmf3 => Kind::Data,
    }
}

/// What others need a message for. Data are never kept: they are what is said, once.
fn classify(message: &Message) -> (Class, Slot) {
    let kind = kind_of(message.kind);
    if kind == Kind::Data {
        return (Class::Data, Slot::default());
    }
    let time = MediaTime(message.time.into());
    match flv::frame(kind, time, message.payload.clone()) {
        Ok(Some(frame)) => (frame.class, frame.slot),
        Ok(None) | Err(_) => (Class::Data, Slot::default()),
    }
}
