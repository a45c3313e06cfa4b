//! What a client's session says and what becomes of it: events to publish and play,
//! messages and media to the outbox.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use model::StreamKey;
use node::telemetry::Phase;
use node::telemetry::frames::wall_micros;
use rtmp::StreamId;
use session::{
    CloseReason, Event, Notice, Output, PlayStart, Playback, Refusal, Reply, RequestId,
    ServerSession,
};
use tracing::{debug, info};

use super::objects::Objects;
use super::traces::{CONTEXT, Traces};
use super::wire::Wire;
use super::{Connection, admission};
use crate::follow::Followed;
use crate::limits::{OUTBOX_HIGH_WATER, OUTBOX_MAX};
use crate::outbox::Outbox;
use crate::play::{LocalChannel, Next, Viewer};
use crate::publish::Uplink;
use crate::shard::{PublicationId, Shard};
use crate::upstream::Ask;

/// All of a client but its socket.
pub(super) struct State {
    pub(super) carrier: Wire,
    pub(super) session: ServerSession,
    /// Input that is not a whole chunk yet.
    pub(super) rest: BytesMut,
    pub(super) outbox: Outbox,
    pub(super) streams: BTreeMap<StreamId, Role>,
    /// Since when the socket has taken nothing while we had something.
    pub(super) stalled: Option<Instant>,
    /// When it came.
    pub(super) opened: Instant,
    /// When it was last heard of.
    pub(super) heard: Instant,
    /// Publishes that others want, and until when the client may show that it is alive.
    pub(super) challenged: Vec<(PublicationId, Instant)>,
    /// Its SharedObjects.
    pub(super) objects: Objects,
    /// What is told in spans.
    pub(super) traces: Traces,
    /// The traced frames that it is watched for.
    pub(super) followed: Followed,
    /// It publishes frames that may be traced: it is noted when its bytes are read.
    pub(super) stamps: bool,
    pub(super) ending: Option<Ending>,
    /// Since when.
    pub(super) ended: Option<Instant>,
}

/// What a message stream does.
pub(super) enum Role {
    Asking {
        publication: PublicationId,
        request: RequestId,
        key: StreamKey,
        since: Instant,
        /// From the wish to publish until the answer.
        phase: Phase,
    },
    Publishing(Box<Uplink>),
    Playing(Box<Viewer>),
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// The session is over; what is queued is still written.
    Session(CloseReason),
    /// Nothing more can be done with it.
    Broken(String),
}

impl State {
    pub(super) fn new(carrier: Wire, shard: &Shard, seed: u64, now: Instant) -> Self {
        let mut setup = shard.settings.session.clone();
        setup.seed = seed;
        Self {
            carrier,
            session: ServerSession::new(setup, now),
            rest: BytesMut::new(),
            outbox: Outbox::default(),
            streams: BTreeMap::new(),
            stalled: None,
            opened: now,
            heard: now,
            challenged: Vec::new(),
            objects: Objects::new(shard.session()),
            traces: Traces::new(shard.settings.trace_clients),
            followed: Followed::default(),
            stamps: false,
            ending: None,
            ended: None,
        }
    }

    /// The client is alive.
    pub(super) fn heard(&mut self, shard: &Shard, now: Instant) {
        self.session.handle_traffic(now);
        self.heard = now;
        for (publication, _) in std::mem::take(&mut self.challenged) {
            shard.ask(Ask::Affirm { publication });
        }
    }

    /// Bytes have been read: notes when, if somebody may want to know of a frame among them.
    pub(super) fn stamp(&mut self) {
        if self.stamps {
            self.carrier.stamp(wall_micros());
        }
    }

    /// Lets flows wait while the client may not be read.
    pub(super) fn hold_flows(&mut self) {
        let held = !self.wants_input();
        if let Wire::Flows(flows) = &mut self.carrier {
            flows.hold(held && self.ending.is_none());
        }
    }

    /// Whether the client may be read: it takes what we answer, its publishes get on,
    /// and it is not being closed.
    pub(super) fn wants_input(&self) -> bool {
        self.ending.is_none()
            && self.waiting() < OUTBOX_HIGH_WATER
            && !self.objects.is_full()
            && self.streams.values().all(|role| match role {
                Role::Publishing(uplink) => uplink.wants_frames(),
                Role::Asking { .. } | Role::Playing(_) => true,
            })
    }

    /// Bytes of ours that the client has not taken.
    pub(super) fn waiting(&self) -> usize {
        self.outbox.len() + self.carrier.waiting()
    }

    pub(super) fn end(&mut self, ending: Ending) {
        if !matches!(self.ending, Some(Ending::Broken(_))) {
            self.ending = Some(ending);
            self.ended.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn reply(&mut self, request: RequestId, reply: Reply, now: Instant) {
        if let Err(error) = self.session.handle_reply(request, reply, now) {
            // We answered what was not asked: a bug of ours, and this client's alone.
            self.end(Ending::Broken(error.to_string()));
        }
    }

    /// The client may publish on the stream.
    pub(super) fn accept_publish(
        &mut self,
        stream: StreamId,
        request: RequestId,
        uplink: Uplink,
        now: Instant,
    ) {
        self.stamps |= uplink.is_watched();
        self.streams
            .insert(stream, Role::Publishing(Box::new(uplink)));
        self.reply(request, Reply::Accept, now);
    }

    /// Nothing was heard of the publisher while somebody else wants its name: it is gone,
    /// and its socket does not know it yet.
    pub(super) fn lose_to_challenger(
        &mut self,
        own: &Rc<Connection>,
        shard: &Rc<Shard>,
        now: Instant,
    ) {
        let mut lost = false;
        for (publication, _) in std::mem::take(&mut self.challenged) {
            if let Some((stream, Role::Publishing(_))) = self.publish(publication)
                && let Some(Role::Publishing(uplink)) = self.streams.remove(&stream)
            {
                info!(client = own.number, "a silent publisher loses its name");
                self.end_publish(shard, *uplink, "silent");
                self.session.handle_notice(stream, Notice::Superseded, now);
                lost = true;
            }
        }
        if lost {
            let description = "The publisher was silent.".to_owned();
            self.session.close(Refusal::Failed { description }, now);
        }
    }

    pub(super) fn publish(&mut self, wanted: PublicationId) -> Option<(StreamId, &mut Role)> {
        self.streams.iter_mut().find_map(|(stream, role)| {
            let found = match role {
                Role::Asking { publication, .. } => *publication == wanted,
                Role::Publishing(uplink) => uplink.publication() == wanted,
                Role::Playing(_) => false,
            };
            found.then_some((*stream, role))
        })
    }

    /// Carries out what the session puts out, until it has nothing more to say.
    pub(super) fn settle(&mut self, own: &Rc<Connection>, shard: &Rc<Shard>, now: Instant) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Message(message) => self.carrier.write_message(&message),
                Output::Event(event) => self.act(own, shard, event, now),
            }
        }
        self.collect();
    }

    /// Carries what the session says to the client, where it says nothing else.
    pub(super) fn pass_messages(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Message(message) => self.carrier.write_message(&message),
                Output::Event(Event::Closed { reason }) => self.end(Ending::Session(reason)),
                Output::Event(event) => {
                    debug_assert!(false, "telling of objects asks for nothing: {event:?}");
                }
            }
        }
        self.collect();
    }

    /// Moves what the carrier has to send into the outbox.
    pub(super) fn collect(&mut self) {
        while let Some(bytes) = self.carrier.poll_transmit() {
            self.outbox.push(bytes);
        }
        if self.waiting() > OUTBOX_MAX {
            self.end(Ending::Broken(
                "the client asks and does not take the answers".into(),
            ));
        }
    }

    /// Takes media for the client's plays, as much as one write can carry.
    pub(super) fn fill(&mut self, own: &Rc<Connection>, shard: &Rc<Shard>) {
        self.collect();
        // A session that is over gets its status out, and no more media.
        if self.ending.is_some() {
            return;
        }
        self.flush_objects();
        let streams: Vec<StreamId>;
        // Nearly every player plays one stream, and needs no list of them.
        let only = match self.streams.first_key_value() {
            Some((stream, Role::Playing(_))) if self.streams.len() == 1 => Some(*stream),
            _ => None,
        };
        let turns: &[StreamId] = match &only {
            Some(stream) => std::slice::from_ref(stream),
            None => {
                streams = self.streams.keys().copied().collect();
                &streams
            }
        };
        for stream in turns {
            while self.has_room_for_media(*stream) {
                let Some(Role::Playing(viewer)) = self.streams.get_mut(stream) else {
                    break;
                };
                let next = match &mut self.carrier {
                    Wire::Chunks(carrier) => match viewer.next(carrier.send_chunk_size()) {
                        Next::Media(image) => {
                            self.traces.media(*stream, &viewer.channel);
                            if !self.followed.is_empty() {
                                let lag = (viewer.lag(), self.outbox.len());
                                let end = |at| viewer.end_of(at, &image);
                                self.followed
                                    .read(*stream, viewer.next_position(), lag, end);
                            }
                            self.outbox.push(image);
                            continue;
                        }
                        Next::Notice(notice) => Some(notice),
                        Next::Nothing => None,
                    },
                    Wire::Flows(flows) => match viewer.next_frame() {
                        Next::Media((frame, time)) => {
                            self.traces.media(*stream, &viewer.channel);
                            flows.write_frame(*stream, &frame, time, Instant::now());
                            if !self.followed.is_empty() {
                                let lag = (viewer.lag(), flows.waiting());
                                let end = |at| viewer.end_of(at, &frame.payload);
                                self.followed
                                    .read(*stream, viewer.next_position(), lag, end);
                                // It is in its flow, which is not followed further.
                                self.followed.written(usize::MAX);
                            }
                            continue;
                        }
                        Next::Notice(notice) => Some(notice),
                        Next::Nothing => None,
                    },
                };
                let Some(notice) = next else { break };
                let now = Instant::now();
                if notice == Notice::InsufficientBandwidth {
                    shard.counts.skips.inc();
                    let lag = (viewer.lag(), self.outbox.len());
                    self.followed
                        .read(*stream, viewer.next_position(), lag, |_| None);
                }
                if notice == Notice::Complete
                    && let Some(role) = self.streams.remove(stream)
                {
                    self.drop_role(own, shard, role);
                }
                self.session.handle_notice(*stream, notice, now);
                self.settle(own, shard, now);
            }
        }
    }

    fn has_room_for_media(&self, stream: StreamId) -> bool {
        match &self.carrier {
            Wire::Chunks(_) => {
                !self.outbox.fills_a_write() && self.outbox.len() < OUTBOX_HIGH_WATER
            }
            Wire::Flows(flows) => flows.has_room_for_media(stream),
        }
    }

    pub(super) fn act(
        &mut self,
        own: &Rc<Connection>,
        shard: &Rc<Shard>,
        event: Event,
        now: Instant,
    ) {
        match event {
            Event::Connect { request, connect } => {
                debug!(client = own.number, at = %connect.at, flash = connect.flash_ver, "connect");
                if let (Wire::Flows(_), Some(key)) = (&self.carrier, &shard.settings.developer_key)
                    && !admission::brings(&connect, key)
                {
                    let refusal = admission::refusal();
                    return self.reply(request, Reply::Refuse(refusal), now);
                }
                self.carrier.begin(shard.settings.chunk_size);
                self.begin_objects(&connect, shard);
                self.reply(request, Reply::Accept, now);
                if let Wire::Flows(flows) = &self.carrier {
                    flows.enter(shard, &connect.at);
                }
                // The others were asked before it had said whether it can.
                if !shard.takes_clients() {
                    self.session.request_reconnect(None, now);
                }
            }
            Event::Object(request) => self.ask_object(own, shard, request, now),
            Event::Resume {
                request,
                session,
                next,
            } => self.resume_objects(own, shard, request, (session, next), now),
            Event::Call {
                request,
                name,
                args,
            } => {
                if name == CONTEXT && request.is_none() {
                    return self.traces.context(&args);
                }
                if self.call_object(own, shard, (request, &name, &args), now) {
                    return;
                }
                self.traces.stray_call(&name, now);
                if let Some(request) = request {
                    self.reply(
                        request,
                        Reply::Failed(format!("Method not found ({name}).")),
                        now,
                    );
                }
            }
            Event::Publish {
                request,
                stream,
                key,
                query,
                ..
            } => {
                if shard.publications.borrow().len() >= shard.settings.streams {
                    let mut phase = self.traces.root("publish");
                    self.describe(own, &mut phase, &key);
                    phase.fail(FULL);
                    let description = FULL.to_owned();
                    self.reply(request, Reply::Refuse(Refusal::Failed { description }), now);
                    return;
                }
                let publication = shard.publication();
                let mut phase = self.traces.root("publish");
                self.describe(own, &mut phase, &key);
                shard
                    .publications
                    .borrow_mut()
                    .insert(publication, own.clone());
                shard.ask(Ask::Publish {
                    publication,
                    key: key.clone(),
                    token: self.objects.token(publisher(&query)),
                    shard: shard.handle.clone(),
                    span: phase.place(),
                });
                let role = Role::Asking {
                    publication,
                    request,
                    key,
                    since: now,
                    phase,
                };
                if let Some(old) = self.streams.insert(stream, role) {
                    self.drop_role(own, shard, old);
                }
            }
            Event::Play {
                request,
                stream,
                key,
                window,
                ..
            } => {
                if let Some(old) = self.streams.remove(&stream) {
                    self.drop_role(own, shard, old);
                }
                let mut phase = self.traces.root("play");
                self.describe(own, &mut phase, &key);
                if let PlayStart::Recorded(_) = window.start {
                    phase.fail("nothing is recorded");
                    self.reply(request, Reply::Refuse(Refusal::StreamNotFound), now);
                    return;
                }
                let Some(channel) = shard.channel(&key, phase.place()) else {
                    phase.fail(FULL);
                    let description = FULL.to_owned();
                    self.reply(request, Reply::Refuse(Refusal::Failed { description }), now);
                    return;
                };
                debug!(client = own.number, stream = %key, "playing");
                self.traces.plays(stream, phase, now);
                self.reply(request, Reply::Accept, now);
                if !self.plays(&channel) {
                    channel.add(own.clone());
                }
                let viewer = Viewer::new(stream, channel, window);
                self.streams.insert(stream, Role::Playing(Box::new(viewer)));
            }
            Event::Frame { stream, frame } => {
                if let Some(Role::Publishing(uplink)) = self.streams.get_mut(&stream) {
                    shard.counts.frames.inc();
                    let read = if self.stamps {
                        self.carrier.polled_stamp()
                    } else {
                        0
                    };
                    uplink.push(frame, read);
                    if self.stamps && !uplink.is_watched() {
                        self.stamps = false;
                        self.carrier.unstamp();
                    }
                }
            }
            Event::Playback { stream, change } => {
                if let Some(Role::Playing(viewer)) = self.streams.get_mut(&stream) {
                    if let Playback::Video(_) | Playback::Paused(_) = change {
                        self.followed.let_go(stream);
                    }
                    match change {
                        Playback::Audio(wanted) => viewer.receive_audio(wanted),
                        Playback::Video(wanted) => viewer.receive_video(wanted),
                        Playback::Paused(paused) => viewer.pause(paused),
                        // How much a client buffers is its own affair for live streams.
                        Playback::Buffer(_) => {}
                    }
                }
            }
            Event::Finished { stream } => {
                if let Some(role) = self.streams.remove(&stream) {
                    self.drop_role(own, shard, role);
                }
            }
            Event::PeerInfo { addresses } => {
                if let Wire::Flows(flows) = &self.carrier {
                    flows.report(shard, addresses);
                }
            }
            Event::Closed { reason } => self.end(Ending::Session(reason)),
        }
    }

    /// Whether any of the client's streams plays what comes through `channel`.
    fn plays(&self, channel: &Rc<LocalChannel>) -> bool {
        self.streams
            .values()
            .any(|role| matches!(role, Role::Playing(v) if Rc::ptr_eq(&v.channel, channel)))
    }

    pub(super) fn drop_role(&mut self, own: &Rc<Connection>, shard: &Rc<Shard>, role: Role) {
        match role {
            Role::Asking {
                publication,
                mut phase,
                ..
            } => {
                phase.set("error.type", "cancelled");
                phase.fail("the client left before the answer");
                shard.forget(publication);
                shard.ask(Ask::Unpublish { publication });
            }
            Role::Publishing(uplink) => {
                let why = match &self.ending {
                    None => "unpublished",
                    Some(Ending::Session(_)) => "session",
                    Some(Ending::Broken(_)) => "disconnected",
                };
                self.end_publish(shard, *uplink, why);
            }
            Role::Playing(viewer) => {
                self.traces.play_ends(viewer.stream);
                self.followed.play_ends(viewer.stream);
                if !self.plays(&viewer.channel) {
                    shard.leave(viewer.channel, own.clone());
                }
            }
        }
    }

    /// Says whose request a span tells of.
    fn describe(&self, own: &Connection, phase: &mut Phase, key: &StreamKey) {
        if phase.is_wanted() {
            phase.show("selvage.stream.key", key);
            phase.count("selvage.client", own.number);
            phase.set("network.protocol.name", own.io.protocol().name());
        }
    }

    /// `why` is a word for it.
    pub(super) fn end_publish(&mut self, shard: &Rc<Shard>, mut uplink: Uplink, why: &'static str) {
        let publication = uplink.publication();
        uplink.pump();
        shard.forget(publication);
        uplink.unpublish(why);
        shard.ask(Ask::Unpublish { publication });
    }
}

/// Who a publisher says it is: `publisher` in the query of its stream's name. Who brings
/// the same stands by for the other instead of being refused. At most
/// [`TOKEN_BYTES_MAX`](ledger::limits::TOKEN_BYTES_MAX) bytes; a longer one counts as none.
fn publisher(query: &str) -> Bytes {
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("publisher="))
        .unwrap_or_default();
    // One that is cut could be another's.
    let usable = value.len() <= ledger::limits::TOKEN_BYTES_MAX;
    Bytes::copy_from_slice(if usable { value.as_bytes() } else { &[] })
}

/// What a client is told when a limit on streams is reached.
pub(super) const FULL: &str = "The server holds as many streams as it may.";
