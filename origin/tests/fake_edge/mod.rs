//! An origin that runs in this process, and an edge without a mind of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fabric::v1::media_client::MediaClient;
use fabric::v1::refused::Reason;
use fabric::v1::source::State;
use fabric::v1::{self, ToEdge, ToOrigin, to_edge, to_origin};
use model::{Class, Kind};
use node::link::{Address, Listener, Settings, duplex};
use node::shutdown::Drain;
use selvage_origin::hub::Hub;
use selvage_origin::{Config, Origin, RunError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Nothing here takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Above what the log of an origin in a test comes to, which would know what it has granted.
pub(crate) const EPOCH: u64 = 1 << 32;

pub(crate) struct Running {
    pub(crate) hub: Arc<Hub>,
    pub(crate) drain: Drain,
    address: Address,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (address, listener) = duplex("origin-0");
        let mut config = Config::default();
        change(&mut config);
        let origin = Origin::build_on(config, Listener::duplex(listener)).unwrap();
        let (hub, drain) = (origin.hub(), Drain::new());
        let task = tokio::spawn(origin.run(drain.clone()));
        Self {
            hub,
            drain,
            address,
            task,
        }
    }

    /// Waits for a state, by letting everybody else run.
    pub(crate) async fn until(&self, state: impl Fn(&Hub) -> bool) {
        tokio::time::timeout(PATIENCE, async {
            while !state(&self.hub) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("the origin never came to the state");
    }

    pub(crate) async fn ended(&mut self) {
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        ended.expect("the origin runs on").unwrap().unwrap();
    }
}

pub(crate) struct Edge {
    to: mpsc::Sender<ToOrigin>,
    from: Streaming<ToEdge>,
    /// Frames that came in one batch and were not asked for yet.
    ahead: Vec<v1::Frame>,
}

impl Edge {
    /// A link that has said nothing.
    pub(crate) async fn silent(origin: &Running) -> Self {
        Self::open(origin).await.unwrap()
    }

    /// What an origin says that takes no link.
    pub(crate) async fn refused(origin: &Running) -> Status {
        Self::open(origin).await.err().expect("it was taken")
    }

    async fn open(origin: &Running) -> Result<Self, Status> {
        Self::open_with(origin, &Settings::default()).await
    }

    async fn open_with(origin: &Running, settings: &Settings) -> Result<Self, Status> {
        let channel = node::link::connect(&origin.address, settings).unwrap();
        let mut client = MediaClient::new(channel)
            .max_decoding_message_size(fabric::GRPC_MESSAGE_MAX)
            .max_encoding_message_size(usize::MAX);
        let (to, outgoing) = mpsc::channel(16);
        let from = client
            .link(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        Ok(Self {
            to,
            from,
            ahead: Vec::new(),
        })
    }

    /// A link that has greeted.
    pub(crate) async fn connect(origin: &Running, name: &str) -> Self {
        Self::silent(origin).await.greet(name).await
    }

    /// A link that has greeted and takes no more than 64 KiB that nobody reads.
    pub(crate) async fn narrow(origin: &Running, name: &str) -> Self {
        let settings = Settings {
            stream_window: 1 << 16,
            ..Settings::default()
        };
        Self::open_with(origin, &settings)
            .await
            .unwrap()
            .greet(name)
            .await
    }

    async fn greet(self, name: &str) -> Self {
        let mut edge = self;
        edge.say(to_origin::Body::Hello(v1::Hello {
            edge: name.into(),
            incarnation: 1,
        }))
        .await;
        let welcome = to_edge::Body::Welcome(v1::Welcome {
            origin: "origin-0".into(),
        });
        assert_eq!(edge.next().await.unwrap(), welcome);
        edge
    }

    pub(crate) async fn say(&mut self, body: to_origin::Body) {
        self.to
            .send(ToOrigin { body: Some(body) })
            .await
            .expect("the link has ended");
    }

    /// As [`Self::say`], on a link that may end before.
    pub(crate) async fn try_say(&mut self, body: to_origin::Body) {
        let _ = self.to.send(ToOrigin { body: Some(body) }).await;
    }

    /// As [`Self::try_say`], for a message that may lack its body.
    pub(crate) async fn say_raw(&mut self, message: ToOrigin) {
        let _ = self.to.send(message).await;
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<to_edge::Body, Status> {
        let message = tokio::time::timeout(PATIENCE, self.from.message()).await;
        let message = message.expect("the origin says nothing")?;
        Ok(message.expect("the link was closed").body.unwrap())
    }

    /// How the link ends; what comes before is passed over.
    pub(crate) async fn status(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    /// A publish that the log granted under an epoch that is later for a greater number.
    pub(crate) async fn publish(&mut self, id: u32, name: &str) -> Result<v1::Granted, Reason> {
        let epoch = EPOCH + u64::from(id);
        self.resume(id, name, v1::Resume { epoch, next: 0 }).await
    }

    pub(crate) async fn resume(
        &mut self,
        id: u32,
        name: &str,
        resume: v1::Resume,
    ) -> Result<v1::Granted, Reason> {
        self.say(publish(id, name, Some(resume))).await;
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Result<v1::Granted, Reason> {
        match self.next().await.unwrap() {
            to_edge::Body::Granted(granted) => Ok(granted),
            to_edge::Body::Refused(refused) => Err(refused.reason()),
            other => panic!("{other:?} is no answer to a publish"),
        }
    }

    pub(crate) async fn unpublish(&mut self, id: u32, moved: bool) {
        self.say(to_origin::Body::Unpublish(v1::Unpublish { id, moved }))
            .await;
    }

    pub(crate) async fn subscribe(&mut self, id: u32, name: &str, credit: u64) {
        self.say(subscribe(id, name, credit)).await;
    }

    pub(crate) async fn source(&mut self, id: u32) -> (State, u64) {
        assert!(self.ahead.is_empty(), "frames come first: {:?}", self.ahead);
        match self.next().await.unwrap() {
            to_edge::Body::Source(source) if source.id == id => (source.state(), source.epoch),
            other => panic!("{other:?} is not about the source of {id}"),
        }
    }

    /// Sends a batch.
    pub(crate) async fn send(&mut self, id: u32, ingest_micros: u64, mut frames: Vec<v1::Frame>) {
        for frame in &mut frames {
            frame.id = id;
        }
        self.say(to_origin::Body::Frames(v1::Frames {
            frames,
            ingest_micros,
            traces: Vec::new(),
        }))
        .await;
    }

    /// The next `count` frames, and when the last batch of them was received.
    pub(crate) async fn frames(&mut self, count: usize) -> (Vec<v1::Frame>, u64) {
        let mut ingest = 0;
        while self.ahead.len() < count {
            match self.next().await.unwrap() {
                to_edge::Body::Frames(batch) => {
                    ingest = batch.ingest_micros;
                    self.ahead.extend(batch.frames);
                }
                other => panic!("{other:?} is no batch of frames"),
            }
        }
        (self.ahead.drain(..count).collect(), ingest)
    }
}

fn key(name: &str) -> v1::StreamKey {
    v1::StreamKey {
        vhost: "_defaultVHost_".into(),
        app: "live".into(),
        instance: "_definst_".into(),
        name: name.into(),
    }
}

pub(crate) fn publish(id: u32, name: &str, resume: Option<v1::Resume>) -> to_origin::Body {
    let key = Some(key(name));
    let began = resume.as_ref().map_or(0, |resume| resume.epoch);
    to_origin::Body::Publish(v1::Publish {
        id,
        began,
        key,
        resume,
        ..v1::Publish::default()
    })
}

pub(crate) fn subscribe(id: u32, name: &str, credit: u64) -> to_origin::Body {
    let (key, traceparent) = (Some(key(name)), String::new());
    to_origin::Body::Subscribe(v1::Subscribe {
        id,
        key,
        credit,
        resume: None,
        traceparent,
    })
}

fn video(class: Class, mark: u64) -> v1::Frame {
    v1::Frame {
        time: mark * 40,
        verdict: fabric::convert::verdict(Kind::Video, class),
        codec: u32::from_be_bytes(*b"avc1"),
        payload: Bytes::from(vec![mark.to_le_bytes()[0]; 100]),
        ..v1::Frame::default()
    }
}

pub(crate) fn config(mark: u64) -> v1::Frame {
    video(Class::Config, mark)
}

pub(crate) fn key_frame(mark: u64) -> v1::Frame {
    video(Class::Key, mark)
}

pub(crate) fn delta(mark: u64) -> v1::Frame {
    video(Class::Delta, mark)
}

/// The frame with another payload.
pub(crate) fn sized(frame: v1::Frame, len: usize) -> v1::Frame {
    v1::Frame {
        payload: Bytes::from(vec![1; len]),
        ..frame
    }
}

/// The frames, numbered from `first`.
pub(crate) fn numbered(first: u64, frames: &[v1::Frame]) -> Vec<v1::Frame> {
    (first..)
        .zip(frames)
        .map(|(seq, frame)| v1::Frame {
            seq,
            ..frame.clone()
        })
        .collect()
}
