//! One message stream: a publisher, a player, or neither.
//!
//! ```text
//!            publish            Accept
//!   Idle ───────────▶ AwaitingPublish ──▶ Publishing
//!    ▲  ◀── Refuse ───┘                      │
//!    ├◀── closeStream, publish(false), Superseded, Lost
//!    │        play              Accept
//!    ├───────────────▶ AwaitingPlay ─────▶ Playing
//!    ├◀── Refuse ──────┘                     │
//!    └◀── closeStream, play(false), Complete
//! ```

use amf::Value;
use bytes::Bytes;
use model::{AppInstance, Kind, StreamKey, Unwrapper};
use rtmp::{StreamId, UserControl};

use crate::call::{Asked, Requests};
use crate::command::Command;
use crate::event::{Event, Notice, Playback, PublishMode, Refusal, RequestId};
use crate::name::{self, Address};
use crate::outbox::Outbox;
use crate::refusal;
use crate::request::{PlayRequest, Switch, publish_mode};
use crate::status::{Code, Status};

/// What a stream needs of its session.
pub(crate) struct Desk<'a> {
    pub(crate) out: &'a mut Outbox,
    pub(crate) requests: &'a mut Requests,
    pub(crate) at: &'a AppInstance,
    pub(crate) sample_access: SampleAccess,
}

/// Whether players may read the samples of what they play (`audioSampleAccess` and
/// `videoSampleAccess` of Flash Media Server).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleAccess {
    /// `SoundMixer.computeSpectrum()`.
    pub audio: bool,
    /// `BitmapData.draw()`.
    pub video: bool,
}

/// One message stream of a connection.
#[derive(Debug)]
pub(crate) struct Stream {
    id: StreamId,
    wants: Wants,
    state: State,
}

/// What a player said about how it wants to play; it may say so before `play`, and it
/// holds for later plays of the same stream.
#[derive(Clone, Copy, Debug)]
struct Wants {
    audio: bool,
    video: bool,
    buffer_ms: Option<u32>,
}

#[derive(Debug)]
enum State {
    Idle,
    AwaitingPublish {
        request: RequestId,
        publish: Publish,
    },
    Publishing {
        publish: Publish,
        clock: Unwrapper,
    },
    AwaitingPlay {
        request: RequestId,
        play: Play,
    },
    Playing {
        name: String,
        flow: Flow,
    },
}

#[derive(Debug)]
struct Publish {
    /// The name as the client wrote it, without query.
    name: String,
    mode: PublishMode,
}

#[derive(Debug)]
struct Play {
    /// The name as the client wrote it, without query.
    name: String,
    switch: Switch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Running,
    Paused,
}

/// How a client ends what it does on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The stream stays: `closeStream`, `publish(false)`, `play(false)`.
    Stop,
    /// The stream goes: `deleteStream`. A player gets no answer, it has nowhere to put it.
    Delete,
    /// Another play follows at once.
    Replace,
}

impl Stream {
    pub(crate) const fn new(id: StreamId) -> Self {
        Self {
            id,
            wants: Wants {
                audio: true,
                video: true,
                buffer_ms: None,
            },
            state: State::Idle,
        }
    }

    /// A command on this stream that is one of NetStream's. False when it is none.
    pub(crate) fn handle_command(&mut self, command: &Command, desk: &mut Desk<'_>) -> bool {
        match command.name.as_str() {
            "publish" => self.publish(command, desk),
            "play" => self.play(command, desk),
            "play2" => self.play2(command, desk),
            "pause" | "pauseRaw" => self.pause(command, desk),
            "seek" => self.seek(command, desk),
            "receiveAudio" => self.receive(command, desk, Track::Audio),
            "receiveVideo" => self.receive(command, desk, Track::Video),
            "closeStream" => self.end(End::Stop, desk),
            _ => return false,
        }
        true
    }

    /// Ends whatever the stream does. The shell hears of it once.
    pub(crate) fn end(&mut self, how: End, desk: &mut Desk<'_>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => return,
            State::AwaitingPublish { request, .. } | State::AwaitingPlay { request, .. } => {
                desk.requests.close(request);
            }
            State::Publishing { publish, .. } => self.say_unpublished(&publish, desk),
            State::Playing { name, .. } => match how {
                End::Stop => self.say_stopped(&name, desk),
                End::Delete | End::Replace => {}
            },
        }
        desk.out.event(Event::Finished { stream: self.id });
    }

    /// Audio, video or data. False when there is no publish to take it.
    pub(crate) fn handle_media(
        &mut self,
        kind: Kind,
        time: u32,
        payload: Bytes,
        desk: &mut Desk<'_>,
    ) -> bool {
        match &mut self.state {
            State::Publishing { clock, .. } => {
                let time = clock.unwrap(time);
                match flv::frame(kind, time, payload) {
                    Ok(Some(frame)) => desk.out.event(Event::Frame {
                        stream: self.id,
                        frame,
                    }),
                    Ok(None) => {}
                    Err(_) => return false,
                }
                true
            }
            State::Idle
            | State::AwaitingPublish { .. }
            | State::AwaitingPlay { .. }
            | State::Playing { .. } => false,
        }
    }

    /// SetBufferLength.
    pub(crate) fn set_buffer(&mut self, millis: u32, desk: &mut Desk<'_>) {
        self.wants.buffer_ms = Some(millis);
        self.tell(Playback::Buffer(millis), desk);
    }

    /// The shell accepts the publish or play of `request`.
    pub(crate) fn accept(&mut self, request: RequestId, desk: &mut Desk<'_>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::AwaitingPublish {
                request: open,
                publish,
            } if open == request => {
                self.say_published(&publish, desk);
                self.state = State::Publishing {
                    publish,
                    clock: Unwrapper::default(),
                };
            }
            State::AwaitingPlay {
                request: open,
                play,
            } if open == request => {
                self.say_playing(&play, desk);
                self.state = State::Playing {
                    name: play.name,
                    flow: Flow::Running,
                };
                self.tell_wants(desk);
            }
            other @ (State::Idle
            | State::AwaitingPublish { .. }
            | State::Publishing { .. }
            | State::AwaitingPlay { .. }
            | State::Playing { .. }) => self.state = other,
        }
    }

    /// The shell refuses the publish or play of `request`.
    pub(crate) fn refuse(&mut self, request: RequestId, refusal: Refusal, desk: &mut Desk<'_>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::AwaitingPublish {
                request: open,
                publish,
            } if open == request => {
                let status = refusal::publish(&publish.name, publish.mode, refusal);
                desk.out.status(self.id, status);
            }
            State::AwaitingPlay {
                request: open,
                play,
            } if open == request => {
                let status = refusal::play(&play.name, refusal);
                desk.out.status(self.id, status);
            }
            other @ (State::Idle
            | State::AwaitingPublish { .. }
            | State::Publishing { .. }
            | State::AwaitingPlay { .. }
            | State::Playing { .. }) => self.state = other,
        }
    }

    /// What the fabric says. A notice that does not fit crossed the peer's change of
    /// mind, and there is nobody left to tell.
    pub(crate) fn handle_notice(&mut self, notice: Notice, desk: &mut Desk<'_>) {
        match (&self.state, notice) {
            (State::Playing { name, .. }, Notice::Published) => {
                desk.out
                    .status(self.id, Status::stream(Code::PlayPublishNotify, name));
            }
            (State::Playing { name, .. }, Notice::Unpublished) => {
                desk.out
                    .status(self.id, Status::stream(Code::PlayUnpublishNotify, name));
            }
            (State::Playing { name, .. }, Notice::InsufficientBandwidth) => {
                desk.out.status(
                    self.id,
                    Status::stream(Code::PlayInsufficientBandwidth, name),
                );
            }
            (State::Playing { name, .. }, Notice::Complete) => {
                let complete = Status::stream(Code::PlayComplete, name)
                    .with("duration", 0.0)
                    .with("bytes", 0.0)
                    .info(desk.out.client_id());
                desk.out.data(self.id, &["onPlayStatus".into(), complete]);
                self.say_stopped(name, desk);
                self.state = State::Idle;
            }
            (State::Publishing { publish, .. }, Notice::Superseded) => {
                desk.out
                    .status(self.id, Status::stream(Code::PublishBadName, &publish.name));
                self.state = State::Idle;
            }
            (State::Publishing { publish, .. }, Notice::Lost) => {
                desk.out
                    .status(self.id, Status::stream(Code::Failed, &publish.name));
                self.say_unpublished(publish, desk);
                self.state = State::Idle;
            }
            (
                State::Idle
                | State::AwaitingPublish { .. }
                | State::Publishing { .. }
                | State::AwaitingPlay { .. }
                | State::Playing { .. },
                Notice::Published
                | Notice::Unpublished
                | Notice::InsufficientBandwidth
                | Notice::Complete
                | Notice::Superseded
                | Notice::Lost,
            ) => {}
        }
    }

    fn publish(&mut self, command: &Command, desk: &mut Desk<'_>) {
        let text = match command.arg(0) {
            Some(Value::Boolean(false)) => {
                if self.is_publisher() {
                    self.end(End::Stop, desk);
                }
                return;
            }
            Some(Value::String(text)) => text,
            Some(_) | None => return self.invalid("publish", desk),
        };
        let name = name::shown(text);
        let refuse = |why: String| Status::stream(Code::PublishBadName, name).describe(why);
        if !matches!(self.state, State::Idle) {
            let why = "This stream is in use; close it first.".to_owned();
            return desk.out.status(self.id, refuse(why));
        }
        let address = match Address::parse(text) {
            Ok(address) => address,
            Err(why) => {
                return desk
                    .out
                    .status(self.id, refuse(format!("Bad name: {why}.")));
            }
        };
        let mode = publish_mode(command.arg(1));
        let request = desk.requests.open(Asked::Publish(self.id));
        desk.out.event(Event::Publish {
            request,
            stream: self.id,
            key: StreamKey {
                at: desk.at.clone(),
                name: address.name,
            },
            query: address.query,
            mode,
        });
        let publish = Publish {
            name: name.to_owned(),
            mode,
        };
        self.state = State::AwaitingPublish { request, publish };
    }

    fn play(&mut self, command: &Command, desk: &mut Desk<'_>) {
        match command.arg(0) {
            Some(Value::Boolean(false)) => self.stop_playing(desk),
            Some(Value::String(_)) => match PlayRequest::of_play(command) {
                Some(request) => self.start_playing(request, desk),
                None => self.invalid("play", desk),
            },
            Some(_) | None => self.invalid("play", desk),
        }
    }

    fn play2(&mut self, command: &Command, desk: &mut Desk<'_>) {
        match PlayRequest::of_play2(command) {
            Some(request) if request.switch == Switch::Stop => self.stop_playing(desk),
            Some(request) => self.start_playing(request, desk),
            None => {
                let status = Status::stream(Code::PlayFailed, "")
                    .describe("play2 needs a stream name and a known transition.");
                desk.out.status(self.id, status);
            }
        }
    }

    fn start_playing(&mut self, play: PlayRequest<'_>, desk: &mut Desk<'_>) {
        let name = name::shown(play.text);
        if self.is_publisher() {
            let status = Status::stream(Code::PlayFailed, name)
                .describe("This stream publishes; play on another one.");
            return desk.out.status(self.id, status);
        }
        let Ok(address) = Address::parse(play.text) else {
            return desk
                .out
                .status(self.id, Status::stream(Code::PlayStreamNotFound, name));
        };
        // A live stream has no end to wait for, so an appended play replaces as well.
        self.end(End::Replace, desk);
        let request = desk.requests.open(Asked::Play(self.id));
        desk.out.event(Event::Play {
            request,
            stream: self.id,
            key: StreamKey {
                at: desk.at.clone(),
                name: address.name,
            },
            query: address.query,
            window: play.window,
            reset: play.switch.resets(),
        });
        let play = Play {
            name: name.to_owned(),
            switch: play.switch,
        };
        self.state = State::AwaitingPlay { request, play };
    }

    fn stop_playing(&mut self, desk: &mut Desk<'_>) {
        if !self.is_publisher() {
            self.end(End::Stop, desk);
        }
    }

    /// RTMP 1.0 §7.2.2.8. Before `play` is accepted there is nothing to pause.
    fn pause(&mut self, command: &Command, desk: &mut Desk<'_>) {
        let State::Playing { name, flow } = &mut self.state else {
            return;
        };
        let next = match command.arg(0) {
            Some(Value::Boolean(true)) => Flow::Paused,
            Some(Value::Boolean(false)) => Flow::Running,
            Some(_) | None => return self.invalid("pause", desk),
        };
        match next {
            Flow::Paused => {
                desk.out
                    .status(self.id, Status::stream(Code::PauseNotify, name));
                desk.out.control(UserControl::StreamEof(self.id));
            }
            Flow::Running => {
                desk.out.control(UserControl::StreamBegin(self.id));
                desk.out
                    .status(self.id, Status::stream(Code::UnpauseNotify, name));
            }
        }
        if *flow != next {
            *flow = next;
            self.tell(Playback::Paused(next == Flow::Paused), desk);
        }
    }

    /// RTMP 1.0 §7.2.2.7. What is played is live, so there is nowhere to go.
    fn seek(&mut self, command: &Command, desk: &mut Desk<'_>) {
        let State::Playing { name, .. } = &self.state else {
            return;
        };
        let code = match command.number(0) {
            Some(millis) if millis >= 0.0 && millis.is_finite() => Code::SeekFailed,
            Some(_) | None => Code::SeekInvalidTime,
        };
        desk.out.status(self.id, Status::stream(code, name));
    }

    /// RTMP 1.0 §7.2.2.4 and §7.2.2.5: switching off is not answered, switching on is.
    fn receive(&mut self, command: &Command, desk: &mut Desk<'_>, track: Track) {
        let on = match command.arg(0) {
            Some(Value::Boolean(on)) => *on,
            // receiveVideo(fps): any rate but 0 is taken as full.
            Some(value) => match value.as_f64() {
                Some(rate) if !rate.is_nan() => rate > 0.0,
                Some(_) | None => return self.invalid(&command.name, desk),
            },
            None => return self.invalid(&command.name, desk),
        };
        let change = match track {
            Track::Audio => {
                self.wants.audio = on;
                Playback::Audio(on)
            }
            Track::Video => {
                self.wants.video = on;
                Playback::Video(on)
            }
        };
        if let State::Playing { name, .. } = &self.state {
            if on {
                desk.out
                    .status(self.id, Status::stream(Code::SeekNotify, name));
                desk.out
                    .status(self.id, Status::stream(Code::PlayStart, name));
            }
            self.tell(change, desk);
        }
    }

    const fn is_publisher(&self) -> bool {
        match self.state {
            State::AwaitingPublish { .. } | State::Publishing { .. } => true,
            State::Idle | State::AwaitingPlay { .. } | State::Playing { .. } => false,
        }
    }

    /// Tells the shell about a player's wish, if there is a player.
    fn tell(&self, change: Playback, desk: &mut Desk<'_>) {
        if let State::Playing { .. } = self.state {
            desk.out.event(Event::Playback {
                stream: self.id,
                change,
            });
        }
    }

    /// Tells what the player said before it played.
    fn tell_wants(&self, desk: &mut Desk<'_>) {
        if let Some(millis) = self.wants.buffer_ms {
            self.tell(Playback::Buffer(millis), desk);
        }
        if !self.wants.audio {
            self.tell(Playback::Audio(false), desk);
        }
        if !self.wants.video {
            self.tell(Playback::Video(false), desk);
        }
    }

    fn say_published(&self, publish: &Publish, desk: &mut Desk<'_>) {
        desk.out.control(UserControl::StreamBegin(self.id));
        desk.out
            .status(self.id, Status::stream(Code::PublishStart, &publish.name));
        if publish.mode.records() {
            desk.out
                .status(self.id, Status::stream(Code::RecordStart, &publish.name));
        }
    }

    fn say_unpublished(&self, publish: &Publish, desk: &mut Desk<'_>) {
        if publish.mode.records() {
            desk.out
                .status(self.id, Status::stream(Code::RecordStop, &publish.name));
        }
        desk.out.status(
            self.id,
            Status::stream(Code::UnpublishSuccess, &publish.name),
        );
    }

    /// The order of Flash Media Server for a live stream.
    fn say_playing(&self, play: &Play, desk: &mut Desk<'_>) {
        let id = self.id;
        desk.out.control(UserControl::StreamBegin(id));
        if let Switch::Transition { reason, .. } = play.switch {
            let status = Status::stream(Code::PlayTransition, &play.name).with("reason", reason);
            desk.out.status(id, status);
        }
        if play.switch.resets() {
            desk.out
                .status(id, Status::stream(Code::PlayReset, &play.name));
        }
        desk.out
            .status(id, Status::stream(Code::PlayStart, &play.name));
        let access = desk.sample_access;
        desk.out.data(
            id,
            &[
                "|RtmpSampleAccess".into(),
                access.audio.into(),
                access.video.into(),
            ],
        );
        if let Switch::Transition { .. } = play.switch {
            let done =
                Status::stream(Code::PlayTransitionComplete, &play.name).info(desk.out.client_id());
            desk.out.data(id, &["onPlayStatus".into(), done]);
        }
    }

    fn say_stopped(&self, name: &str, desk: &mut Desk<'_>) {
        desk.out.control(UserControl::StreamEof(self.id));
        desk.out
            .status(self.id, Status::stream(Code::PlayStop, name));
    }

    fn invalid(&self, command: &str, desk: &mut Desk<'_>) {
        let status = Status::connection(Code::InvalidArgument)
            .describe(Code::InvalidArgument.description(command));
        desk.out.status(self.id, status);
    }
}

#[derive(Clone, Copy, Debug)]
enum Track {
    Audio,
    Video,
}
