//! The publish of a facade: one stream, through whichever server is the primary.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use amf::Value;
use bytes::Bytes;
use model::Class;
use rtmp::{Message, MessageKind, StreamId};
use session::PublishMode;
use session::client::Status;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::driver::Primary;
use super::source::{self, Piece, Source};
use super::{MultiEvent, limits};
use crate::Error;
use crate::handover::publish::Kept;
use crate::net::{NetConnection, NetStream, StreamEvent};

/// Pieces that wait to be published; beyond them the sources wait.
const PIECES_MAX: usize = 32;

/// Data messages that wait to be published.
const SAID_MAX: usize = 64;

type Said = (String, Vec<Value>);

/// What is attached, and the publish if there is one.
#[derive(Debug)]
pub(super) struct Studio {
    pub(super) audio: Option<Source>,
    pub(super) video: Option<Source>,
    primary: watch::Receiver<Primary>,
    events: mpsc::Sender<MultiEvent>,
    show: Option<Show>,
    time: Arc<AtomicU32>,
}

#[derive(Debug)]
struct Show {
    task: JoinHandle<()>,
    pours: Vec<JoinHandle<()>>,
    say: mpsc::Sender<Said>,
}

impl Studio {
    pub(super) fn new(primary: watch::Receiver<Primary>, events: mpsc::Sender<MultiEvent>) -> Self {
        Self {
            audio: None,
            video: None,
            primary,
            events,
            show: None,
            time: Arc::default(),
        }
    }

    /// Publishes what is attached, in the place of what was published before.
    pub(super) fn publish(&mut self, name: String, mode: PublishMode) {
        self.close();
        let (pieces, waiting) = mpsc::channel(PIECES_MAX);
        let (say, said) = mpsc::channel(SAID_MAX);
        let began = Instant::now();
        let sources = [
            (self.audio.take(), MessageKind::Audio),
            (self.video.take(), MessageKind::Video),
        ];
        let mut pours = Vec::new();
        for (source, kind) in sources {
            let Some(source) = source else { continue };
            let pieces = pieces.clone();
            let events = self.events.clone();
            pours.push(tokio::spawn(async move {
                if let Err(why) = source::pour(source, kind, began, pieces).await {
                    let status = Status {
                        code: "NetStream.Publish.SourceFailed".to_owned(),
                        level: "error".to_owned(),
                        description: why,
                        info: Value::Undefined,
                    };
                    let status = Box::new(status);
                    // Nobody may be listening.
                    let _ = events
                        .send(MultiEvent::NsStatus { server: 0, status })
                        .await;
                }
            }));
        }
        let pump = Pump {
            name,
            mode,
            primary: self.primary.clone(),
            events: self.events.clone(),
            time: Arc::clone(&self.time),
            pieces: waiting,
            said,
            kept: Kept::default(),
        };
        self.show = Some(Show {
            task: tokio::spawn(pump.run()),
            pours,
            say,
        });
    }

    pub(super) fn say(&self) -> Result<mpsc::Sender<Said>, Error> {
        let show = self.show.as_ref().ok_or(Error::NotPublishing)?;
        Ok(show.say.clone())
    }

    pub(super) fn time(&mut self) -> f64 {
        f64::from(self.time.load(Ordering::Relaxed)) / 1000.0
    }

    /// Ends the publish: its stream is deleted when the task is gone.
    pub(super) fn close(&mut self) {
        if let Some(show) = self.show.take() {
            show.task.abort();
            for pour in show.pours {
                pour.abort();
            }
        }
    }
}

impl Drop for Studio {
    fn drop(&mut self) {
        self.close();
    }
}

struct Pump {
    name: String,
    mode: PublishMode,
    primary: watch::Receiver<Primary>,
    events: mpsc::Sender<MultiEvent>,
    time: Arc<AtomicU32>,
    pieces: mpsc::Receiver<Piece>,
    said: mpsc::Receiver<Said>,
    kept: Kept,
}

impl Pump {
    async fn run(mut self) {
        loop {
            let primary = self.primary.borrow_and_update().clone();
            let Some((server, nc)) = primary else {
                if !self.idle().await {
                    return;
                }
                continue;
            };
            match self.publish(server, &nc).await {
                Ok(()) => return,
                Err(error) => {
                    let refused = error.blame() == crate::Blame::Stream;
                    self.failed(server, &error).await;
                    // The same server again after a while, or the next one at once.
                    let pause = tokio::time::sleep(limits::BACKOFF_MAX / 4);
                    let wait = async {
                        if refused || nc.is_open() {
                            pause.await;
                        } else {
                            // It is gone; the driver says who is next.
                            std::future::pending::<()>().await;
                        }
                    };
                    tokio::select! {
                        () = wait => {}
                        changed = self.primary.changed() => if changed.is_err() { return },
                    }
                }
            }
        }
    }

    /// Waits for a server. What a source gives out meanwhile is over; false at the end.
    async fn idle(&mut self) -> bool {
        loop {
            tokio::select! {
                changed = self.primary.changed() => return changed.is_ok(),
                Some(piece) = self.pieces.recv() => {
                    self.kept.note(piece.kind, &piece.payload);
                }
            }
        }
    }

    /// Publishes until the sources end, or until it fails.
    async fn publish(&mut self, server: usize, nc: &NetConnection) -> Result<(), Error> {
        let (stream, mut events) = NetStream::open(nc).await?;
        let started = stream.publish(&self.name, self.mode);
        tokio::pin!(started);
        loop {
            tokio::select! {
                biased;
                event = events.next() => self.tell(server, event?).await,
                started = &mut started => {
                    started?;
                    break;
                }
            }
        }
        for (kind, payload) in self.kept.all() {
            self.send(&stream, kind, self.time.load(Ordering::Relaxed), payload)
                .await?;
        }
        let mut key_seen = false;
        let mut quiet = false;
        loop {
            tokio::select! {
                biased;
                event = events.next() => {
                    let event = event?;
                    let over = ended(&event);
                    self.tell(server, event).await;
                    if let Some(error) = over {
                        return Err(error);
                    }
                }
                Some((handler, args)) = self.said.recv() => {
                    stream.send(self.time.load(Ordering::Relaxed), &handler, args).await?;
                }
                piece = self.pieces.recv(), if !quiet => match piece {
                    Some(piece) => {
                        let class = self.kept.note(piece.kind, &piece.payload);
                        key_seen |= class == Some(Class::Key);
                        // Pictures that need others begin with a key frame.
                        if key_seen || class != Some(Class::Delta) {
                            self.time.fetch_max(piece.time, Ordering::Relaxed);
                            self.send(&stream, piece.kind, piece.time, piece.payload).await?;
                        }
                    }
                    // Data messages may still come: the stream stays until it is closed.
                    None => quiet = true,
                },
            }
        }
    }

    async fn send(
        &self,
        stream: &NetStream,
        kind: MessageKind,
        time: u32,
        payload: Bytes,
    ) -> Result<(), Error> {
        let message = Message {
            kind,
            stream: StreamId::CONNECTION,
            time,
            payload,
        };
        stream.send_message(message).await
    }

    async fn tell(&self, server: usize, event: StreamEvent) {
        if let StreamEvent::Status(status) = event {
            // Nobody may be listening.
            let _ = self
                .events
                .send(MultiEvent::NsStatus { server, status })
                .await;
        }
    }

    async fn failed(&self, server: usize, error: &Error) {
        let status = Status {
            code: error
                .code()
                .unwrap_or("NetStream.Publish.Interrupted")
                .to_owned(),
            level: "warning".to_owned(),
            description: error.to_string(),
            info: Value::Undefined,
        };
        self.tell(server, StreamEvent::Status(Box::new(status)))
            .await;
    }
}

fn ended(event: &StreamEvent) -> Option<Error> {
    let StreamEvent::Status(status) = event else {
        return None;
    };
    if status.is_error() {
        return Some(Error::Refused {
            step: "the publish",
            status: status.clone(),
        });
    }
    let over = status.code == "NetStream.Unpublish.Success";
    over.then(|| Error::Unpublished(status.code.clone()))
}
