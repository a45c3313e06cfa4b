//! NetStream: one message stream of a connection.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use amf::Value;
use rtmp::{Message, StreamId};
use session::PublishMode;
use session::client::{PlayRequest, Progress, Status};
use tokio::sync::{mpsc, oneshot};

use super::direct::data;
use super::task::Task;
use super::{Desk, Leave, NetConnection};
use crate::connection::Over;
use crate::limits::EVENTS_MAX;
use crate::peers::Peers;
use crate::traces::Traced;
use crate::{Arrival, Error, PeerId, What};

/// One message stream, to publish or to play on. It is deleted when the handle is dropped.
#[derive(Debug)]
pub struct NetStream {
    desk: Desk,
    stream: StreamId,
}

/// What the server says on one stream.
#[derive(Debug)]
pub struct NetStreamEvents {
    events: mpsc::Receiver<StreamEvent>,
    over: Arc<OnceLock<Over>>,
}

/// Something that the server says on a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamEvent {
    /// Audio, video or data.
    Message(Arrival),
    /// `onStatus` or `onPlayStatus`.
    Status(Box<Status>),
    /// The server has begun, ended or run dry of it.
    Progress(Progress),
}

impl NetStream {
    /// Makes a message stream (`createStream`).
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, or why the connection failed.
    pub async fn open(nc: &NetConnection) -> Result<(Self, NetStreamEvents), Error> {
        let desk = nc.desk().of_server().await?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let lane = Lane::new(sender);
        let stream = desk
            .ask(move |task, answer| task.open(lane, answer))
            .await??;
        let events = NetStreamEvents {
            events,
            over: Arc::clone(desk.over()),
        };
        Ok((Self { desk, stream }, events))
    }

    /// Makes a stream that peers play from us, without a server on its way (`new
    /// NetStream(nc, NetStream.DIRECT_CONNECTIONS)`). Publish on it, and send.
    ///
    /// `on_peer_connect` is asked whether a peer may play. Who may is told by the status
    /// `NetStream.Connect.Success`, who goes by `NetStream.Connect.Closed`, both with the
    /// peer's ID for a description. How many may is [`Options::peers_max`](crate::Options):
    /// one for publishing, one for sending, one that is kept for who is connecting, and one
    /// for each peer that plays from us or that we play from have to be fewer.
    ///
    /// # Errors
    /// [`Error::NoPeers`] without RTMFP, too many streams, or why the connection failed.
    pub async fn open_direct(
        nc: &NetConnection,
        on_peer_connect: impl FnMut(PeerId) -> bool + Send + 'static,
    ) -> Result<(Self, NetStreamEvents), Error> {
        let accept = Box::new(on_peer_connect);
        Self::between_peers(nc, move |peers| peers.listen(accept)).await
    }

    /// Makes a stream to play a peer's (`new NetStream(nc, peerID)`), which the server
    /// introduces to us. It is told by [`Self::play`] when the peer cannot be reached
    /// (`NetStream.Connect.Failed`) or refuses (`NetStream.Connect.Rejected`), and by the
    /// status `NetStream.Connect.Closed` when it goes later.
    ///
    /// # Errors
    /// [`Error::NoPeers`] without RTMFP, too many streams, or why the connection failed.
    pub async fn open_peer(
        nc: &NetConnection,
        peer: PeerId,
    ) -> Result<(Self, NetStreamEvents), Error> {
        Self::between_peers(nc, move |peers| peers.reach(peer)).await
    }

    async fn between_peers(
        nc: &NetConnection,
        make: impl FnOnce(&mut Peers) -> StreamId + Send + 'static,
    ) -> Result<(Self, NetStreamEvents), Error> {
        let desk = nc.desk().clone();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let lane = Lane::new(sender);
        let stream = desk
            .with(move |task| task.open_between_peers(lane, make))
            .await?;
        let events = NetStreamEvents {
            events,
            over: Arc::clone(desk.over()),
        };
        Ok((Self { desk, stream }, events))
    }

    /// Who plays a stream of [`Self::open_direct`] (`NetStream.peerStreams`).
    ///
    /// # Errors
    /// [`Error::NoPeers`] without RTMFP, or why the connection failed.
    pub async fn peers(&self) -> Result<Vec<PeerId>, Error> {
        let stream = self.stream;
        self.desk
            .with(move |task| task.with_peers(|peers, _, _| peers.players(stream)))
            .await
    }

    /// Publishes, and returns when the server says that it began. `name` may carry a type
    /// prefix and a query.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, or why the connection failed.
    pub async fn publish(&self, name: &str, mode: PublishMode) -> Result<(), Error> {
        let (name, stream) = (name.to_owned(), self.stream);
        self.begin("publish", &["NetStream.Publish.Start"], move |task| {
            if task.publish_to_peers(stream, &name) {
                return Ok(None);
            }
            let traced = task.connection.trace(What::Publish, &name);
            task.session().publish(stream, &name, mode)?;
            Ok(Some(traced))
        })
        .await
    }

    /// Plays, and returns when the server says that it began.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, or why the connection failed.
    pub async fn play(&self, name: &str, request: PlayRequest) -> Result<(), Error> {
        let (name, stream) = (name.to_owned(), self.stream);
        let codes = &["NetStream.Play.Start", "NetStream.Data.Start"];
        self.begin("play", codes, move |task| {
            if task.play_from_peer(stream, &name) {
                return Ok(None);
            }
            let traced = task.connection.trace(What::Play, &name);
            task.session().play(stream, &name, request)?;
            Ok(Some(traced))
        })
        .await
    }

    /// Sends a message of media. Waits while the network is too slow for what was sent
    /// before. The stream of the message is set.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn send_message(&self, message: Message) -> Result<(), Error> {
        let stream = self.stream;
        self.desk
            .with(move |task| {
                let message = Message { stream, ..message };
                if task.send_to_peers(&message) {
                    return Ok(());
                }
                Ok(task.session().send(message)?)
            })
            .await
    }

    /// `NetStream.send`: a data message at a time in milliseconds.
    ///
    /// # Errors
    /// A value that AMF0 cannot carry, or why the connection failed.
    pub async fn send(
        &self,
        time: u32,
        handler: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        let (stream, handler, args) = (self.stream, handler.to_owned(), Vec::from_iter(args));
        self.desk
            .with(move |task| {
                if task.is_between_peers(stream) {
                    let message = data(stream, time, &handler, args)?;
                    task.send_to_peers(&message);
                    return Ok(());
                }
                Ok(task.session().send_data(stream, time, &handler, args)?)
            })
            .await
    }

    /// Pauses what is played, or goes on, at a position in milliseconds.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn pause(&self, pause: bool, millis: f64) -> Result<(), Error> {
        let stream = self.stream;
        self.desk
            .with(move |task| Ok(task.session().pause(stream, pause, millis)?))
            .await
    }

    /// Ends what the stream does and keeps it for another use.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn close(&self) -> Result<(), Error> {
        let stream = self.stream;
        self.desk
            .with(move |task| {
                if task.close_between_peers(stream) {
                    return Ok(());
                }
                Ok(task.session().close_stream(stream)?)
            })
            .await
    }

    /// The message stream's number.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    async fn begin(
        &self,
        step: &'static str,
        codes: &'static [&'static str],
        act: impl FnOnce(&mut Task) -> Result<Option<Traced>, Error> + Send + 'static,
    ) -> Result<(), Error> {
        let stream = self.stream;
        self.desk
            .ask(move |task, answer| {
                let traced = match act(task) {
                    Ok(traced) => traced,
                    Err(error) => {
                        let _ = answer.send(Err(error));
                        return;
                    }
                };
                if let Some(lane) = task.streams.get_mut(&stream) {
                    lane.starts.push_back(Start {
                        step,
                        codes,
                        answer,
                        traced,
                    });
                }
            })
            .await?
    }
}

impl Drop for NetStream {
    fn drop(&mut self) {
        self.desk.leave(Leave::Stream(self.stream));
    }
}

impl NetStreamEvents {
    /// The next thing that the server says on the stream. May be dropped and called again.
    ///
    /// # Errors
    /// Why no further event will come; the same again when called again.
    pub async fn next(&mut self) -> Result<StreamEvent, Error> {
        self.events
            .recv()
            .await
            .ok_or_else(|| super::gone(&self.over))
    }
}

/// The task's side of a stream.
#[derive(Debug)]
pub(super) struct Lane {
    events: mpsc::Sender<StreamEvent>,
    starts: VecDeque<Start>,
}

/// Somebody waits for a publish or a play to begin.
#[derive(Debug)]
struct Start {
    step: &'static str,
    codes: &'static [&'static str],
    answer: oneshot::Sender<Result<(), Error>>,
    /// Ends with it.
    traced: Option<Traced>,
}

impl Lane {
    const fn new(events: mpsc::Sender<StreamEvent>) -> Self {
        Self {
            events,
            starts: VecDeque::new(),
        }
    }

    /// An error answers the one who has waited longest.
    pub(super) fn refuse(&mut self, status: &Status) {
        if let Some(start) = self.starts.pop_front() {
            if let Some(mut traced) = start.traced {
                traced.fail(&status.code);
            }
            let _ = start.answer.send(Err(Error::Refused {
                step: start.step,
                status: Box::new(status.clone()),
            }));
        }
    }

    fn notice(&mut self, status: &Status) {
        if status.is_error() {
            self.refuse(status);
        } else if let Some(at) = self
            .starts
            .iter()
            .position(|start| start.codes.contains(&status.code.as_str()))
            && let Some(start) = self.starts.remove(at)
        {
            let _ = start.answer.send(Ok(()));
        }
    }
}

impl Task {
    pub(super) fn stream_status(&mut self, stream: StreamId, status: Box<Status>) {
        if let Some(lane) = self.streams.get_mut(&stream) {
            lane.notice(&status);
        }
        self.give_stream(stream, StreamEvent::Status(status));
    }

    pub(super) fn stream_message(&mut self, message: Message, at: std::time::Instant) {
        self.give_stream(
            message.stream,
            StreamEvent::Message(Arrival { message, at }),
        );
    }

    pub(super) fn stream_progress(&mut self, stream: StreamId, progress: Progress) {
        self.give_stream(stream, StreamEvent::Progress(progress));
    }

    fn give_stream(&mut self, stream: StreamId, event: StreamEvent) {
        if let Some(lane) = self.streams.get(&stream) {
            let events = lane.events.clone();
            self.give(&events, event);
        }
    }
}
