//! Streams between peers that a server introduces to each other: who is let in, what they
//! are given, and that the server carries none of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use amf::Value;
use bytes::Bytes;
use client::{
    Error, NetConnection, NetEvent, NetEvents, NetStream, NetStreamEvents, Options, PeerId,
    PlayRequest, PublishMode, StreamEvent, Target,
};
use rtmfp::address::{Address, Origin};
use rtmfp::crypto::Group;
use rtmfp::crypto::identity::{Discriminator, Identity};
use rtmfp::endpoint::{Config, Endpoint, Event, Output, SessionId};
use rtmfp::startup::Cookies;
use rtmfp::tc::flows::{Flows, Told};
use rtmp::{Message, MessageKind, StreamId};
use selvage_client as client;
use session::{Reply, ServerSession, ServerSetup};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// A server that accepts everybody and introduces them to each other, and does nothing else.
struct Introducer {
    endpoint: Endpoint,
    clients: BTreeMap<SessionId, (Flows, ServerSession)>,
    received: Arc<AtomicU64>,
}

/// Where it is, and the bytes of sessions that it received.
async fn introducer() -> (SocketAddr, Arc<AtomicU64>) {
    let (addr, received, _) = mortal_introducer().await;
    (addr, received)
}

/// One that can be ended, without a word to anybody.
async fn mortal_introducer() -> (SocketAddr, Arc<AtomicU64>, AbortHandle) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (addr, received) = (socket.local_addr().unwrap(), Arc::<AtomicU64>::default());
    let mut seed = u64::from(addr.port());
    let mut chance = move |out: &mut [u8]| {
        for byte in out {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = seed.to_be_bytes()[0];
        }
    };
    let identity = Identity::ephemeral(&[Group::Modp1024], true, None, &mut chance).unwrap();
    let now = Instant::now();
    let cookies = Cookies::new([3; 32], now);
    let endpoint = Endpoint::new(Config::new(identity), cookies, Box::new(chance), now);
    let introducer = Introducer {
        endpoint,
        clients: BTreeMap::new(),
        received: Arc::clone(&received),
    };
    let life = tokio::spawn(introducer.run(socket)).abort_handle();
    (addr, received, life)
}

impl Introducer {
    async fn run(mut self, socket: UdpSocket) {
        let (mut buffer, mut room) = (vec![0; 4096], vec![0; 4096]);
        loop {
            let now = Instant::now();
            let due = loop {
                match self.endpoint.poll_output(now, &mut buffer) {
                    Output::Transmit { to, len } => {
                        socket.send_to(&buffer[..len], to).await.unwrap();
                    }
                    Output::Event(event) => self.act(event, now),
                    Output::Timeout(due) => break due,
                }
            };
            let due = due.unwrap_or(now + Duration::from_secs(60));
            tokio::select! {
                got = socket.recv_from(&mut room) => if let Ok((len, from)) = got {
                    self.endpoint.handle_datagram(from, &mut room[..len], Instant::now());
                },
                () = tokio::time::sleep_until(due.into()) => {}
            }
            let all = self
                .clients
                .keys()
                .filter_map(|id| self.endpoint.session(*id));
            let bytes: u64 = all.map(|session| session.stats().bytes_received).sum();
            self.received.store(bytes, Ordering::Relaxed);
        }
    }

    fn act(&mut self, event: Event, now: Instant) {
        match event {
            Event::Opened { session, .. } => {
                let client = ServerSession::new(ServerSetup::new(session.0.into()), now);
                self.clients.insert(session, (Flows::server(), client));
            }
            Event::Session { session, event } => self.session_event(session, event, now),
            Event::Introduce {
                target,
                held,
                from,
                tag,
                room,
            } => {
                let Some(held) = held else { return };
                let addresses = self.endpoint.addresses_of(held);
                self.endpoint.redirect(from, &tag, &addresses, room, now);
                let wanted = Discriminator::canonical(&target);
                let from = Address {
                    at: from,
                    origin: Origin::Observed,
                };
                assert!(self.endpoint.forward(held, &wanted, from, &tag));
            }
            Event::OpenFailed { .. } => {}
        }
    }

    fn session_event(&mut self, id: SessionId, event: rtmfp::session::Event, now: Instant) {
        let Some((flows, client)) = self.clients.get_mut(&id) else {
            return;
        };
        let Some(session) = self.endpoint.session_mut(id) else {
            return;
        };
        if let Told::Over(_) = flows.handle_event(session, event, now) {
            session.close(now);
            self.clients.remove(&id);
            return;
        }
        while let Some(message) = flows.poll_message() {
            client.handle_message(message, now).unwrap();
            while let Some(output) = client.poll_output() {
                match output {
                    session::Output::Message(message) => flows.write(session, &message, now),
                    session::Output::Event(session::Event::Connect { request, .. }) => {
                        client.handle_reply(request, Reply::Accept, now).unwrap();
                    }
                    session::Output::Event(_) => {}
                }
            }
        }
    }
}

/// One who is connected and publishes to others.
struct Person {
    nc: NetConnection,
    own: NetStream,
    told: NetStreamEvents,
    events: NetEvents,
}

fn options(max: usize) -> Options {
    Options::player().with_peers(max)
}

fn at(server: SocketAddr) -> Target {
    format!("rtmfp://{server}/chat").parse().unwrap()
}

async fn connected(server: SocketAddr, options: &Options) -> (NetConnection, NetEvents) {
    NetConnection::connect(&at(server), options).await.unwrap()
}

async fn person(server: SocketAddr, max: usize) -> Person {
    person_with(server, &options(max)).await
}

async fn person_with(server: SocketAddr, options: &Options) -> Person {
    let (nc, events) = connected(server, options).await;
    let (own, told) = NetStream::open_direct(&nc, |_| true).await.unwrap();
    own.publish("chat", PublishMode::Live).await.unwrap();
    Person {
        nc,
        own,
        told,
        events,
    }
}

impl Person {
    fn id(&self) -> PeerId {
        self.nc.near_id().unwrap()
    }
}

async fn play(nc: &NetConnection, peer: PeerId) -> Result<(NetStream, NetStreamEvents), Error> {
    let (stream, events) = NetStream::open_peer(nc, peer).await?;
    stream.play("chat", PlayRequest::default()).await?;
    Ok((stream, events))
}

/// Waits for a status; other things are let pass.
async fn until_told(events: &mut NetStreamEvents, code: &str) -> String {
    let told = async {
        loop {
            if let StreamEvent::Status(status) = events.next().await.unwrap()
                && status.code == code
            {
                return status.description;
            }
        }
    };
    timeout(SOON, told).await.expect(code)
}

async fn next_message(events: &mut NetStreamEvents) -> Message {
    let heard = async {
        loop {
            if let StreamEvent::Message(arrival) = events.next().await.unwrap() {
                return arrival.message;
            }
        }
    };
    timeout(SOON, heard).await.expect("a message")
}

fn code(error: &Error) -> &str {
    error.code().unwrap_or_default()
}

#[tokio::test]
async fn two_talk_directly_and_the_server_carries_nothing() {
    let (server, received) = introducer().await;
    let (mut a, b) = (person(server, 8).await, person(server, 8).await);
    assert_ne!(a.id(), b.id());
    assert_eq!(a.nc.far_id(), b.nc.far_id());
    let began = Instant::now();
    let (_stream, mut heard) = play(&b.nc, a.id()).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let who = until_told(&mut a.told, "NetStream.Connect.Success").await;
    assert_eq!(who.parse(), Ok(b.id()));
    assert_eq!(a.own.peers().await.unwrap(), [b.id()]);
    // The session is there, so that the way back needs nobody's help.
    let (_back, mut heard_back) = play(&a.nc, b.id()).await.unwrap();

    let before = received.load(Ordering::Relaxed);
    let long = "x".repeat(50_000);
    for number in 0..20 {
        let words = [Value::from(f64::from(number)), long.as_str().into()];
        a.own.send(0, "onChat", words).await.unwrap();
        let message = next_message(&mut heard).await;
        let values = amf::amf0::read_all(&message.payload).unwrap();
        assert_eq!(values[..2], ["onChat".into(), f64::from(number).into()]);
    }
    b.own.send(0, "onChat", ["back".into()]).await.unwrap();
    next_message(&mut heard_back).await;
    let carried = received.load(Ordering::Relaxed) - before;
    assert!(carried < 2000, "{carried} bytes went to the server");
}

#[tokio::test]
async fn one_who_is_refused_and_one_who_finds_nobody_are_told_so() {
    let (server, _) = introducer().await;
    let (nc, _events) = connected(server, &options(8)).await;
    let (asked, mut who) = tokio::sync::mpsc::unbounded_channel();
    let (own, _told) = NetStream::open_direct(&nc, move |peer| {
        asked.send(peer).unwrap();
        false
    })
    .await
    .unwrap();
    own.publish("chat", PublishMode::Live).await.unwrap();

    let patient = options(8).with_patience(Duration::from_secs(2));
    let (other, _other_events) = connected(server, &patient).await;
    let error = play(&other, nc.near_id().unwrap()).await.unwrap_err();
    assert_eq!(code(&error), "NetStream.Connect.Rejected");
    assert_eq!(who.recv().await, other.near_id());
    let nobody = play(&other, PeerId([7; 32])).await.unwrap_err();
    assert_eq!(code(&nobody), "NetStream.Connect.Failed");
}

#[tokio::test]
async fn whoever_goes_is_missed_on_both_sides() {
    let (server, _) = introducer().await;
    let (mut a, b) = (person(server, 8).await, person(server, 8).await);
    let (stream, _heard) = play(&b.nc, a.id()).await.unwrap();
    until_told(&mut a.told, "NetStream.Connect.Success").await;
    drop(stream);
    let who = until_told(&mut a.told, "NetStream.Connect.Closed").await;
    assert_eq!(who.parse(), Ok(b.id()));
    let (_stream, mut heard) = play(&b.nc, a.id()).await.unwrap();
    a.own.close().await.unwrap();
    until_told(&mut heard, "NetStream.Connect.Closed").await;

    a.own.publish("chat", PublishMode::Live).await.unwrap();
    let (_stream, mut heard) = play(&b.nc, a.id()).await.unwrap();
    a.nc.close().await.unwrap();
    until_told(&mut heard, "NetStream.Connect.Closed").await;
}

#[tokio::test]
async fn who_comes_late_is_given_the_configuration_and_begins_at_a_key_frame() {
    let (server, _) = introducer().await;
    let (mut a, b) = (person(server, 8).await, person(server, 8).await);
    let video = |time, body: &'static [u8]| Message {
        kind: MessageKind::Video,
        stream: StreamId::CONNECTION,
        time,
        payload: Bytes::from_static(body),
    };
    let config: &[u8] = &[0x17, 0, 0, 0, 0, 1, 2, 3];
    let (key, delta): (&[u8], &[u8]) = (&[0x17, 1, 0, 0, 0, 9], &[0x27, 1, 0, 0, 0, 9]);
    for (time, body) in [(0, config), (0, key), (40, delta)] {
        a.own.send_message(video(time, body)).await.unwrap();
    }
    let (_stream, mut heard) = play(&b.nc, a.id()).await.unwrap();
    until_told(&mut a.told, "NetStream.Connect.Success").await;
    for (time, body) in [(80, delta), (120, key), (160, delta)] {
        a.own.send_message(video(time, body)).await.unwrap();
    }
    for (time, body) in [(0, config), (120, key), (160, delta)] {
        let message = next_message(&mut heard).await;
        assert_eq!((message.time, &message.payload[..]), (time, body));
    }
}

/// A newcomer and all who are there play each other.
async fn join(room: &[Person], new: &Person) -> Result<Vec<(NetStream, NetStreamEvents)>, Error> {
    let mut streams = Vec::new();
    for other in room {
        streams.push(play(&new.nc, other.id()).await?);
        streams.push(play(&other.nc, new.id()).await?);
    }
    Ok(streams)
}

#[tokio::test]
async fn the_sixth_of_a_chat_fails_with_the_usual_limit_and_comes_in_with_twelve() {
    let (server, _) = introducer().await;
    let (mut room, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let new = person(server, 8).await;
        streams.extend(join(&room, &new).await.unwrap());
        room.push(new);
    }
    let sixth = person(server, 8).await;
    let error = join(&room, &sixth).await.unwrap_err();
    assert_eq!(code(&error), "NetStream.Connect.Rejected");
    // Those who are in the chat can still have more streams from each other.
    streams.push(play(&room[0].nc, room[1].id()).await.unwrap());

    for person in room.iter().chain([&sixth]) {
        person.nc.set_max_peer_connections(12).await.unwrap();
    }
    streams.extend(join(&room, &sixth).await.unwrap());
    assert_eq!(sixth.own.peers().await.unwrap().len(), 5);
}

/// A port that takes what comes and answers nothing, and one where nobody listens.
fn deaf() -> (std::net::UdpSocket, SocketAddr, SocketAddr) {
    let bound = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (deaf, closed) = (bound(), bound().local_addr().unwrap());
    let addr = deaf.local_addr().unwrap();
    (deaf, addr, closed)
}

async fn until_rejoined(events: &mut NetEvents) -> Target {
    let mut lost = false;
    let rejoined = async {
        loop {
            match events.next().await.unwrap() {
                NetEvent::Lost { .. } => lost = true,
                NetEvent::Rejoined { to } => return to,
                NetEvent::Status(_) | NetEvent::Call { .. } => {}
            }
        }
    };
    let to = timeout(SOON, rejoined).await.expect("another server");
    assert!(lost, "it is told that the server is lost");
    to
}

/// How long a server may be missed.
const MISSED: Duration = Duration::from_secs(5);

#[tokio::test]
async fn peers_talk_on_without_their_server_and_are_found_at_another_by_the_same_id() {
    let (server, _, life) = mortal_introducer().await;
    let (other, _) = introducer().await;
    let (_deaf, deaf, closed) = deaf();
    let options = options(8).with_others([at(deaf), at(closed), at(other)]);
    let mut a = person_with(server, &options).await;
    let b = person_with(server, &options).await;
    let c = person(other, 8).await;
    let (_stream, mut heard) = play(&b.nc, a.id()).await.unwrap();
    until_told(&mut a.told, "NetStream.Connect.Success").await;
    let (id, nc) = (a.id(), a.nc.clone());
    let asked = tokio::spawn(async move { nc.call("what", []).await });
    tokio::task::yield_now().await;

    let killed = Instant::now();
    life.abort();
    let own = &a.own;
    let talk = async {
        let mut gap = Duration::ZERO;
        loop {
            let said = Instant::now();
            own.send(0, "onChat", ["there?".into()]).await.unwrap();
            next_message(&mut heard).await;
            gap = gap.max(said.elapsed());
            assert!(gap < Duration::from_secs(2), "{gap:?}");
            tokio::task::yield_now().await;
        }
    };
    let to = tokio::select! {
        () = talk => unreachable!("they have much to say"),
        to = until_rejoined(&mut a.events) => to,
    };
    assert_eq!(to, at(other));
    assert_eq!(a.id(), id);
    let (_stream, mut heard_by_c) = play(&c.nc, id).await.unwrap();
    assert!(killed.elapsed() < MISSED, "{:?}", killed.elapsed());
    // Whom the server had, it has no more; whom peers have, they have.
    assert!(matches!(asked.await.unwrap(), Err(Error::Disconnected)));
    a.own.send(0, "onChat", ["back".into()]).await.unwrap();
    next_message(&mut heard_by_c).await;
    next_message(&mut heard).await;
    // And by it others are found.
    play(&a.nc, c.id()).await.unwrap();
    let mut all = a.own.peers().await.unwrap();
    all.sort_unstable();
    let mut wanted = [b.id(), c.id()];
    wanted.sort_unstable();
    assert_eq!(all, wanted);
}

#[tokio::test]
async fn who_looks_for_a_peer_when_the_server_is_lost_finds_it_by_the_next() {
    let (server, _, life) = mortal_introducer().await;
    let (other, _) = introducer().await;
    let (nc, mut events) = connected(server, &options(8).with_others([at(other)])).await;
    let c = person(other, 8).await;
    life.abort();
    let (found, _) = tokio::join!(play(&nc, c.id()), until_rejoined(&mut events));
    found.unwrap();
}

#[tokio::test]
async fn who_finds_no_server_and_has_no_peer_is_told_that_it_is_over() {
    let (server, _, life) = mortal_introducer().await;
    let (_deaf, deaf, _) = deaf();
    let options = options(8).with_patience(Duration::from_secs(1));
    let (nc, mut events) = connected(server, &options.with_others([at(deaf)])).await;
    life.abort();
    // What the server said while it was there comes first.
    let lost = async { while !matches!(events.next().await.unwrap(), NetEvent::Lost { .. }) {} };
    timeout(SOON, lost).await.unwrap();
    // Nothing can be asked of nobody.
    nc.call("what", []).await.unwrap_err();
    nc.ping().await.unwrap_err();
    let error = timeout(SOON, events.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Io(_)), "{error}");
    assert!(!nc.is_open());
}

#[tokio::test]
async fn the_next_server_is_tried_where_the_first_cannot_be_reached() {
    let (server, _) = introducer().await;
    let (_deaf, _, closed) = deaf();
    let began = Instant::now();
    let (nc, _events) = connected(closed, &options(8).with_others([at(server)])).await;
    assert!(nc.near_id().is_some() && nc.fell_back().is_none());
    assert!(began.elapsed() < Duration::from_secs(2));
}
