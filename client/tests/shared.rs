//! Shared objects, calls and publishes over several connections and several servers, which
//! speak through server sessions and agree by a ledger in the test.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test looks for the one variant it expects, and its helpers fail loudly"
)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use amf::Value;
use bytes::{Bytes, BytesMut};
use client::{
    MultiConnection, MultiEvent, MultiEvents, MultiOptions, NetConnection, NetStream, ObjectEvent,
    Options, PublishMode, ServerState, SharedObject, SoOutcome, Source, SourceFrame, SyncCode,
    Target,
};
use model::object::{ObjectAsk, ObjectUpdate};
use model::{Class, ObjectKind, ObjectName, SessionId, SlotName, SlotOp, SlotValue, Version};
use rtmp::Carrier;
use selvage_client as client;
use session::{Event, Output, Reply, ServerSession, ServerSetup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type Wire = model::object::ObjectEvent;

/// What all edges agree on. One object; the last writer wins.
#[derive(Default)]
struct Ledger {
    version: u32,
    slots: BTreeMap<SlotName, SlotValue>,
    applied: BTreeMap<SessionId, u64>,
    subscribers: BTreeMap<u64, mpsc::UnboundedSender<Arc<ObjectUpdate>>>,
    next: u64,
    published: Vec<String>,
    frames: Vec<Class>,
}

impl Ledger {
    fn update(&self, name: &ObjectName, events: Vec<Wire>) -> Arc<ObjectUpdate> {
        Arc::new(ObjectUpdate {
            name: name.clone(),
            kind: ObjectKind::Temporary,
            version: Version(self.version),
            events,
        })
    }

    /// Whether a numbered request is new.
    fn take(&mut self, session: SessionId, seq: u64) -> bool {
        let applied = self.applied.entry(session).or_default();
        if seq <= *applied {
            return false;
        }
        assert_eq!(seq, *applied + 1, "a number is left out");
        *applied = seq;
        true
    }

    fn write(&mut self, ops: &[SlotOp]) {
        // To remove what is not there changes nothing.
        let changes = ops.iter().any(|op| match op {
            SlotOp::Remove { slot } => self.slots.contains_key(slot),
            SlotOp::Set { .. } | SlotOp::Clear => true,
        });
        self.version += u32::from(changes);
        for op in ops {
            match op {
                SlotOp::Set { slot, value } => {
                    drop(self.slots.insert(slot.clone(), value.clone()));
                }
                SlotOp::Remove { slot } => drop(self.slots.remove(slot)),
                SlotOp::Clear => self.slots.clear(),
            }
        }
    }

    fn tell(&self, update: &Arc<ObjectUpdate>, except: Option<u64>) {
        for (id, subscriber) in &self.subscribers {
            if Some(*id) != except {
                let _ = subscriber.send(Arc::clone(update));
            }
        }
    }
}

/// An edge on the loopback.
struct Edge {
    url: String,
    accepting: JoinHandle<()>,
    serving: Arc<Mutex<Vec<JoinHandle<()>>>>,
    manner: Arc<Mutex<Manner>>,
}

/// How an edge behaves.
#[derive(Clone, Copy, Default)]
struct Manner {
    /// It applies the next write, and its connections end before the answer.
    dies_at_write: bool,
    /// It asks whoever sends it a frame to leave.
    drains: bool,
}

impl Edge {
    async fn start(ledger: &Arc<Mutex<Ledger>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_on(listener, ledger)
    }

    fn start_on(listener: TcpListener, ledger: &Arc<Mutex<Ledger>>) -> Self {
        let url = format!("rtmp://{}/chat/room", listener.local_addr().unwrap());
        let serving: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let manner: Arc<Mutex<Manner>> = Arc::default();
        let accepting = {
            let (ledger, serving, manner) = (
                Arc::clone(ledger),
                Arc::clone(&serving),
                Arc::clone(&manner),
            );
            tokio::spawn(async move {
                while let Ok((io, _)) = listener.accept().await {
                    let desk = Desk::new(io, Arc::clone(&ledger), Arc::clone(&manner));
                    serving.lock().unwrap().push(tokio::spawn(desk.run()));
                }
            })
        };
        Self {
            url,
            accepting,
            serving,
            manner,
        }
    }

    fn kill(&self) {
        self.accepting.abort();
        for task in self.serving.lock().unwrap().drain(..) {
            task.abort();
        }
    }
}

/// One connection of an edge.
struct Desk {
    io: TcpStream,
    carrier: Carrier,
    session: ServerSession,
    input: BytesMut,
    ledger: Arc<Mutex<Ledger>>,
    manner: Arc<Mutex<Manner>>,
    id: u64,
    told: mpsc::UnboundedReceiver<Arc<ObjectUpdate>>,
    tell: mpsc::UnboundedSender<Arc<ObjectUpdate>>,
    who: SessionId,
    seq: u64,
}

impl Desk {
    fn new(io: TcpStream, ledger: Arc<Mutex<Ledger>>, manner: Arc<Mutex<Manner>>) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        let id = {
            let mut ledger = ledger.lock().unwrap();
            ledger.next += 1;
            ledger.next
        };
        Self {
            io,
            carrier: Carrier::server(id),
            session: ServerSession::new(ServerSetup::new(id), Instant::now()),
            input: BytesMut::new(),
            ledger,
            manner,
            id,
            told,
            tell,
            who: SessionId(id.into()),
            seq: 1,
        }
    }

    async fn run(mut self) {
        loop {
            while let Some(output) = self.session.poll_output() {
                match output {
                    Output::Message(message) => self.carrier.write_message(&message),
                    Output::Event(event) => {
                        if !self.act(event) {
                            return;
                        }
                    }
                }
            }
            while let Some(bytes) = self.carrier.poll_transmit() {
                if self.io.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            if let Some(message) = self.carrier.poll_message() {
                self.session
                    .handle_message(message, Instant::now())
                    .unwrap();
                continue;
            }
            tokio::select! {
                update = self.told.recv() => {
                    self.session.handle_object(&update.unwrap(), Instant::now());
                }
                read = self.io.read_buf(&mut self.input) => {
                    if read.unwrap_or(0) == 0 {
                        self.ledger.lock().unwrap().subscribers.remove(&self.id);
                        return;
                    }
                    self.carrier.handle_bytes(&mut self.input).unwrap();
                }
            }
        }
    }

    /// False when the connection is to end.
    fn act(&mut self, event: Event) -> bool {
        match event {
            Event::Connect { request, connect } => {
                self.who = connect.session.unwrap_or(self.who);
                self.reply(request, Reply::Accept);
            }
            Event::Resume {
                request,
                session,
                next,
            } => {
                assert_eq!(session, self.who);
                self.seq = next;
                self.reply(request.unwrap(), Reply::Result(Value::Null));
            }
            Event::Call {
                request: Some(request),
                args,
                ..
            } => self.reply(request, Reply::Result(args[0].clone())),
            Event::Publish { request, key, .. } => {
                let name = key.to_string();
                self.ledger.lock().unwrap().published.push(name);
                self.reply(request, Reply::Accept);
            }
            Event::Frame { frame, .. } => {
                self.ledger.lock().unwrap().frames.push(frame.class);
                if std::mem::take(&mut self.manner.lock().unwrap().drains) {
                    assert!(self.session.request_reconnect(None, Instant::now()));
                }
            }
            Event::Object(request) => {
                for ask in request.asks {
                    if !self.ask(&request.name, ask) {
                        return false;
                    }
                }
            }
            Event::Closed { .. } => return false,
            _ => {}
        }
        true
    }

    fn ask(&mut self, name: &ObjectName, ask: ObjectAsk) -> bool {
        let mut ledger = self.ledger.lock().unwrap();
        match ask {
            ObjectAsk::Use => {
                ledger.version = ledger.version.max(1);
                let slots = ledger.slots.iter().map(|(slot, value)| Wire::Change {
                    slot: slot.clone(),
                    value: value.clone(),
                });
                let events = [Wire::UseSuccess, Wire::Clear].into_iter().chain(slots);
                let _ = self.tell.send(ledger.update(name, events.collect()));
                ledger.subscribers.insert(self.id, self.tell.clone());
            }
            ObjectAsk::Release => drop(ledger.subscribers.remove(&self.id)),
            ObjectAsk::Write(ops) => {
                if ledger.take(self.who, self.seq) {
                    ledger.write(&ops);
                    let changes = ops.iter().map(|op| match op.clone() {
                        SlotOp::Set { slot, value } => Wire::Change { slot, value },
                        SlotOp::Remove { slot } => Wire::Remove { slot },
                        SlotOp::Clear => Wire::Clear,
                    });
                    let update = ledger.update(name, changes.collect());
                    ledger.tell(&update, Some(self.id));
                }
                self.seq += 1;
                if self.manner.lock().unwrap().dies_at_write {
                    return false;
                }
                let answers = ops.into_iter().map(|op| match op {
                    SlotOp::Set { slot, .. } => Wire::Success { slot },
                    SlotOp::Remove { slot } => Wire::Remove { slot },
                    SlotOp::Clear => Wire::Clear,
                });
                let _ = self.tell.send(ledger.update(name, answers.collect()));
            }
            ObjectAsk::Send(payload) => {
                if ledger.take(self.who, self.seq) {
                    let update = ledger.update(name, vec![Wire::Send(payload)]);
                    ledger.tell(&update, None);
                }
                let sent = Wire::Sent { seq: self.seq };
                let _ = self.tell.send(ledger.update(name, vec![sent]));
                self.seq += 1;
            }
        }
        true
    }

    fn reply(&mut self, request: session::RequestId, reply: Reply) {
        self.session
            .handle_reply(request, reply, Instant::now())
            .unwrap();
    }
}

async fn connect(edge: &Edge) -> NetConnection {
    let target = Target::connection(&edge.url).unwrap();
    NetConnection::connect(&target, &Options::player())
        .await
        .unwrap()
        .0
}

#[tokio::test]
async fn two_connections_share_an_object_and_messages() {
    let edge = Edge::start(&Arc::default()).await;
    let (a, b) = (connect(&edge).await, connect(&edge).await);
    let kind = ObjectKind::Temporary;
    let (ours, mut seen) = SharedObject::connect(&a, "chat", kind).await.unwrap();
    let (theirs, mut heard) = SharedObject::connect(&b, "chat", kind).await.unwrap();
    let twice = SharedObject::connect(&a, "chat", kind).await;
    assert!(matches!(twice, Err(client::Error::InUse(_))));

    ours.set("who", "amy".into()).await.unwrap();
    assert_eq!(ours.get("who"), Some("amy".into()), "it shows at once");
    ours.flush().await.unwrap();
    theirs.send("hello", [1.0.into()]).await.unwrap();
    let mut codes = Vec::new();
    loop {
        match seen.next().await.unwrap() {
            ObjectEvent::Sync(event) => codes.extend(event.list.into_iter().map(|c| c.code)),
            ObjectEvent::Message { handler, args } => {
                assert_eq!((handler.as_str(), args), ("hello", vec![1.0.into()]));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(codes, [SyncCode::Clear, SyncCode::Success]);
    let change = loop {
        if let ObjectEvent::Sync(event) = heard.next().await.unwrap()
            && let Some(change) = event.list.into_iter().find(|c| c.name == "who")
        {
            break change;
        }
    };
    assert_eq!(change.code, SyncCode::Change);
    assert_eq!(theirs.data().slots["who"], "amy".into());
    assert_eq!(a.call("echo", ["x".into()]).await.unwrap(), "x".into());
    a.close().await.unwrap();
    assert!(seen.next().await.is_err());
    assert!(ours.set("who", Value::Null).await.is_err());
}

#[tokio::test]
async fn a_stream_and_an_object_share_a_connection() {
    let ledger = Arc::default();
    let edge = Edge::start(&ledger).await;
    let nc = connect(&edge).await;
    let (object, _events) = SharedObject::connect(&nc, "o", ObjectKind::Temporary)
        .await
        .unwrap();
    let (stream, _statuses) = NetStream::open(&nc).await.unwrap();
    stream.publish("cam", PublishMode::Live).await.unwrap();
    object.set("live", true.into()).await.unwrap();
    object.flush().await.unwrap();
    nc.ping().await.unwrap();
    assert_eq!(ledger.lock().unwrap().published, ["chat/room/cam"]);
}

struct Facade {
    mc: MultiConnection,
    events: MultiEvents,
    seen: VecDeque<MultiEvent>,
}

impl Facade {
    async fn open(urls: &[&str]) -> Self {
        Self::with(MultiOptions::default(), urls).await
    }

    async fn with(options: MultiOptions, urls: &[&str]) -> Self {
        let (mc, events) = MultiConnection::with(options);
        mc.connect(urls).await.unwrap();
        let seen = VecDeque::new();
        Self { mc, events, seen }
    }

    async fn wait<T>(&mut self, mut wanted: impl FnMut(&MultiEvent) -> Option<T>) -> T {
        loop {
            let event = self.events.next().await.unwrap();
            let found = wanted(&event);
            self.seen.push_back(event);
            if let Some(found) = found {
                return found;
            }
        }
    }

    async fn settled(&mut self, path: &str, value: Value) -> SoOutcome {
        let (mc, path) = (self.mc.clone(), path.to_owned());
        let mut write = tokio::spawn(async move { mc.set_so_value(&path, value).await });
        loop {
            tokio::select! {
                // What was told before it was settled is seen before.
                biased;
                event = self.events.next() => self.seen.push_back(event.unwrap()),
                done = &mut write => return done.unwrap().unwrap(),
            }
        }
    }

    fn steps(&self) -> Vec<(u32, SyncCode, String)> {
        let mut steps = Vec::new();
        for event in &self.seen {
            if let MultiEvent::Sync { event, .. } = event {
                let list = event.list.iter();
                steps.extend(list.map(|c| (event.version, c.code, c.name.clone())));
            }
        }
        steps
    }
}

fn setup(event: &MultiEvent) -> Option<client::SetupStatus> {
    match event {
        MultiEvent::OnStatus(status) => Some(status.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_write_survives_the_server_that_applied_it_and_is_made_once() {
    let ledger = Arc::default();
    let (one, two) = (Edge::start(&ledger).await, Edge::start(&ledger).await);
    let mut facade = Facade::open(&[&one.url, &two.url]).await;
    let status = facade.wait(setup).await;
    assert_eq!(status.code(), "NetConnection.Setup.Success");
    facade.mc.shared_object_setup("info", false).await.unwrap();
    let first = facade.settled("info.data.a", 1.0.into()).await;
    assert_eq!(first, SoOutcome::Success { version: 2 });

    one.manner.lock().unwrap().dies_at_write = true;
    let second = facade.settled("info.data.a", 2.0.into()).await;
    one.kill();
    assert_eq!(second, SoOutcome::Success { version: 3 });
    let third = facade.settled("info.data.b", 3.0.into()).await;
    assert_eq!(third, SoOutcome::Success { version: 4 });
    assert_eq!(
        facade.steps(),
        [
            (1, SyncCode::Clear, String::new()),
            (2, SyncCode::Success, "a".to_owned()),
            (3, SyncCode::Success, "a".to_owned()),
            (4, SyncCode::Success, "b".to_owned()),
        ]
    );
    let value = facade.mc.get_so_value("info.data.a").await.unwrap();
    assert_eq!(value, Some(2.0.into()));
    let echo = facade.mc.call_remote("echo", 1, ["x".into()]).await;
    assert_eq!(echo.unwrap(), "x".into());
    assert!(facade.mc.call_remote("echo", 0, []).await.is_err());
}

#[tokio::test]
async fn a_server_that_comes_back_stands_by() {
    let ledger = Arc::default();
    let one = Edge::start(&ledger).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let two = Edge::start_on(listener, &ledger);
    let mut facade = Facade::open(&[&two.url, &one.url]).await;
    facade.wait(setup).await;
    facade.mc.shared_object_setup("o", false).await.unwrap();
    facade.settled("o.data.a", 1.0.into()).await;
    two.kill();
    let _ = two.accepting.await;
    let lost = |event: &MultiEvent| {
        matches!(
            event,
            MultiEvent::Server {
                server: 0,
                state: ServerState::Lost(_)
            }
        )
        .then_some(())
    };
    facade.wait(lost).await;
    facade.settled("o.data.a", 2.0.into()).await;
    let two = Edge::start_on(TcpListener::bind(address).await.unwrap(), &ledger);
    let back = |event: &MultiEvent| {
        let standby = ServerState::Standby;
        (*event
            == MultiEvent::Server {
                server: 0,
                state: standby,
            })
        .then_some(())
    };
    facade.wait(back).await;
    one.kill();
    let outcome = facade.settled("o.data.a", 3.0.into()).await;
    assert_eq!(outcome, SoOutcome::Success { version: 4 });
    let codes: Vec<_> = facade.steps().into_iter().map(|step| step.1).collect();
    use SyncCode::{Clear, Success};
    assert_eq!(codes, [Clear, Success, Success, Success]);
    two.kill();
}

#[tokio::test]
async fn a_setup_says_which_server_it_failed_at() {
    let edge = Edge::start(&Arc::default()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rtmp://{}/chat", silent.local_addr().unwrap());
    let mut facade = Facade::open(&[&edge.url, &url]).await;
    let status = facade.wait(setup).await;
    assert_eq!(status.code(), "NetConnection.Setup.Failed");
    let states: Vec<_> = status.servers.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [ServerState::Standby, ServerState::Dialling]);
    let set = facade.mc.set_so_value("o.data.a", Value::Null).await;
    assert!(set.is_err());
}

/// The publish has begun at this server.
fn started(server: usize) -> impl Fn(&MultiEvent) -> Option<()> {
    move |event| match event {
        MultiEvent::NsStatus { server: of, status } if *of == server => {
            (status.code == "NetStream.Publish.Start").then_some(())
        }
        _ => None,
    }
}

fn key(time: u32) -> SourceFrame {
    SourceFrame {
        time,
        payload: Bytes::from_static(&[0x17, 1, 0, 0, 0, 1]),
    }
}

#[tokio::test]
async fn a_publish_goes_on_through_the_next_server() {
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let (one, two) = (Edge::start(&ledger).await, Edge::start(&ledger).await);
    let mut facade = Facade::open(&[&one.url, &two.url]).await;
    facade.wait(setup).await;
    let (frames, source) = mpsc::channel(1);
    assert!(facade.mc.ns_time().await.is_err());
    facade.mc.set_net_streams().await;
    facade
        .mc
        .attach_video(Source::Frames(source))
        .await
        .unwrap();
    facade.mc.publish("cam", PublishMode::Live).await.unwrap();
    facade.wait(started(0)).await;
    for config in [&b"\x90hvc1\x01"[..], b"\x94hvc1\x02"] {
        let payload = Bytes::copy_from_slice(config);
        frames.send(SourceFrame { time: 0, payload }).await.unwrap();
    }
    frames.send(key(40)).await.unwrap();
    facade.mc.ns_send("onCue", [1.0.into()]).await.unwrap();
    for class in [Class::Key, Class::Data] {
        while !ledger.lock().unwrap().frames.contains(&class) {
            tokio::task::yield_now().await;
        }
    }
    ledger.lock().unwrap().frames.clear();
    one.kill();
    facade.wait(started(1)).await;
    // The queue holds one: that the third is taken says that the first is sent.
    for time in [80, 120, 160] {
        frames.send(key(time)).await.unwrap();
    }
    while !ledger.lock().unwrap().frames.contains(&Class::Key) {
        tokio::task::yield_now().await;
    }
    // How the pictures are to be decoded and how to be shown.
    let told = ledger.lock().unwrap().frames.clone();
    assert!(
        told.starts_with(&[Class::Config, Class::Config, Class::Key]),
        "{told:?}"
    );
    assert!(facade.mc.ns_time().await.unwrap() >= 0.08);
    assert_eq!(ledger.lock().unwrap().published.len(), 2);
    facade.mc.ns_close().await.unwrap();
    facade.mc.nc_close().await.unwrap();
}

#[tokio::test]
async fn a_server_that_a_publish_goes_through_is_left_when_it_is_closed() {
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let (one, two) = (Edge::start(&ledger).await, Edge::start(&ledger).await);
    let options = MultiOptions {
        connect: Options::player().following(),
        ..MultiOptions::default()
    };
    let mut facade = Facade::with(options, &[&one.url, &two.url]).await;
    facade.wait(setup).await;
    let (frames, source) = mpsc::channel(1);
    facade.mc.set_net_streams().await;
    let video = Source::Frames(source);
    facade.mc.attach_video(video).await.unwrap();
    facade.mc.publish("cam", PublishMode::Live).await.unwrap();
    facade.wait(started(0)).await;
    one.manner.lock().unwrap().drains = true;
    frames.send(key(40)).await.unwrap();
    let asked = |event: &MultiEvent| {
        let asked = matches!(event, MultiEvent::NetStatus { server: 0, status }
            if status.code == "NetConnection.Connect.ReconnectRequest");
        asked.then_some(())
    };
    facade.wait(asked).await;
    // The driver has heard it before, so whom it leaves it has left.
    let echo = facade.mc.call_remote("echo", 0, ["x".into()]).await;
    assert_eq!(echo.unwrap(), "x".into());
    let before = ledger.lock().unwrap().frames.len();
    frames.send(key(80)).await.unwrap();
    while ledger.lock().unwrap().frames.len() == before {
        tokio::task::yield_now().await;
    }
    assert_eq!(ledger.lock().unwrap().published.len(), 1);
    facade.mc.ns_close().await.unwrap();
    let left = |event: &MultiEvent| match event {
        MultiEvent::Server { server, state } => {
            matches!(state, ServerState::Lost(_)).then_some(*server)
        }
        _ => None,
    };
    assert_eq!(facade.wait(left).await, 0);
    let outcome = facade.mc.shared_object_setup("o", false).await;
    outcome.unwrap();
    let outcome = facade.settled("o.data.a", 1.0.into()).await;
    assert!(matches!(outcome, SoOutcome::Success { .. }), "{outcome:?}");
}
