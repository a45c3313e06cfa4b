//! One client's messages in flows of its session.
//!
//! Which message goes into which flow is [`rtmfp::tc::flows`]; here is how long media are
//! worth sending. Media are not read from their cursor while a message waits for its flow.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use model::{AppInstance, Class, Frame, MediaTime};
use node::telemetry::frames::wall_micros;
use rtmfp::crypto::identity::Fingerprint;
use rtmfp::endpoint::SessionId;
use rtmfp::session::{Event, Session};
use rtmfp::tc;
use rtmfp::tc::flows::Over;
use rtmp::{Message, StreamId};

use super::Door;
use crate::peers::{Report, ToPeers};
use crate::play::message_kind;
use crate::shard::Shard;

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

/// The same for clients that play. One whose address changes while it has nothing to
/// acknowledge is where nobody sends to until it says something by itself; this is the
/// shortest that RFC 7425 §5.3.4 lets clients take to heart.
const KEEPALIVE_PLAYING_MS: (u32, u32) = (5_000, 10_000);

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

/// The flows of one session.
#[derive(Debug)]
pub(crate) struct Flows {
    door: Rc<Door>,
    session: SessionId,
    inner: tc::flows::Flows,
    /// The client's peer ID.
    id: Fingerprint,
    /// Peers that ask for it are introduced.
    entered: Cell<bool>,
    /// Where it says it is itself.
    report: Report,
    /// Packets that had come when the client was last found alive.
    packets: u64,
    /// It was given media.
    plays: bool,
}

impl Flows {
    pub(super) fn new(door: Rc<Door>, session: SessionId, id: Fingerprint) -> Self {
        Self {
            door,
            session,
            inner: tc::flows::Flows::server(),
            id,
            entered: Cell::new(false),
            report: Report::default(),
            packets: 0,
            plays: false,
        }
    }

    /// Which session it is.
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    /// The client is connected to an application: who asks for its peer ID is introduced.
    pub(crate) fn enter(&self, shard: &Shard, at: &AppInstance) {
        let Some(observed) = self.door.look(self.session, Session::far) else {
            return;
        };
        self.entered.set(true);
        shard.ways.peers.send(ToPeers::Came {
            seat: super::seat(shard, self.session),
            id: self.id,
            // The name alone leaves the virtual host out.
            app: format!("{}/{at}", at.vhost.as_str()),
            observed,
        });
    }

    /// The client says where it is itself.
    pub(crate) fn report(&self, shard: &Shard, addresses: Vec<SocketAddr>) {
        if self.entered.get() && self.report.say(addresses) {
            let seat = super::seat(shard, self.session);
            let report = self.report.clone();
            shard.ways.peers.send(ToPeers::Reported { seat, report });
        }
    }

    /// The client is gone, or as good as gone.
    pub(crate) fn leave(&self, shard: &Shard) {
        if self.entered.replace(false) {
            let seat = super::seat(shard, self.session);
            shard.ways.peers.send(ToPeers::Left(seat));
        }
    }

    /// Bytes that have no room in their flows.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.waiting()
    }

    /// The client is accepted.
    pub(crate) fn begin(&mut self) {
        self.write_message(&tc::keepalive(KEEPALIVE_MS.0, KEEPALIVE_MS.1));
    }

    /// The next message of the client.
    pub(crate) fn poll_message(&mut self) -> Option<Message> {
        self.inner.poll_message()
    }

    /// When the first fragment of the last message came: microseconds since 1970, or 0 where
    /// there was none.
    pub(crate) fn polled_stamp(&self) -> u64 {
        let began = self.inner.polled_began();
        began.map_or(0, |began| {
            let since = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            wall_micros().saturating_sub(since)
        })
    }

    /// A message for the client.
    pub(crate) fn write_message(&mut self, message: &Message) {
        if let Some(mut session) = self.door.session(self.session) {
            self.inner.write(&mut session, message, Instant::now());
        }
    }

    /// Media for the client, at their time in the stream.
    pub(crate) fn write_frame(
        &mut self,
        stream: StreamId,
        frame: &Frame,
        time: MediaTime,
        now: Instant,
    ) {
        if !std::mem::replace(&mut self.plays, true) {
            let (server, peer) = KEEPALIVE_PLAYING_MS;
            self.write_message(&tc::keepalive(server, peer));
        }
        let life = match frame.class {
            Class::Config | Class::Clear | Class::Data => None,
            Class::Key => Some(KEY_LIFE),
            Class::Delta => Some(DELTA_LIFE),
            Class::Audio => Some(AUDIO_LIFE),
        };
        let message = Message {
            kind: message_kind(frame.kind),
            stream,
            time: time.wire(),
            payload: frame.payload.clone(),
        };
        let (is_key, deadline) = (frame.class != Class::Delta, life.map(|life| now + life));
        if let Some(mut session) = self.door.session(self.session) {
            self.inner
                .write_media(&mut session, &message, is_key, deadline, now);
        }
    }

    /// Whether media of the stream that are read now can go on.
    pub(crate) fn has_room_for_media(&self, stream: StreamId) -> bool {
        self.inner.has_room_for_media(stream)
    }

    /// Holds back what the client sends, or lets it come.
    pub(crate) fn hold(&mut self, held: bool) {
        // Asked for at every write, and rarely anything new.
        if held != self.inner.is_held()
            && let Some(mut session) = self.door.session(self.session)
        {
            self.inner.hold(&mut session, held);
        }
    }

    /// Whether packets came since the last call.
    pub(crate) fn was_heard(&mut self) -> bool {
        let packets = self
            .door
            .look(self.session, |session| session.stats().packets_received)
            .unwrap_or(self.packets);
        std::mem::replace(&mut self.packets, packets) != packets
    }

    /// Something happened in the session.
    pub(crate) fn handle_event(&mut self, event: Event, now: Instant) -> Told {
        let Some(mut session) = self.door.session(self.session) else {
            return Told::Over("closed");
        };
        match self.inner.handle_event(&mut session, event, now) {
            tc::flows::Told::Nothing => Told::Nothing,
            tc::flows::Told::Go => Told::Go,
            tc::flows::Told::Message => Told::Message,
            tc::flows::Told::Over(over) => Told::Over(match over {
                Over::Here => "closed",
                Over::There => "closed by the client",
                Over::Silent => "nothing is heard of the client",
                Over::Unacknowledged => "the client takes nothing",
                Over::Rejected => "the client rejects commands",
            }),
        }
    }

    /// No message follows. What waits in flows is still sent.
    pub(crate) fn finish(&mut self, now: Instant) {
        match self.door.session(self.session) {
            Some(mut session) => self.inner.finish(&mut session, now),
            None => self.inner.drop_all(),
        }
    }

    /// Whether all that was sent arrived, after [`Self::finish`].
    pub(crate) fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }

    /// Ends the session.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(mut session) = self.door.session(self.session) {
            session.close(now);
        }
        self.inner.drop_all();
    }
}
