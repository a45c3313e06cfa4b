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
    Error, NetConnection, NetEvents, NetStream, NetStreamEvents, Options, PeerId, PlayRequest,
    PublishMode, StreamEvent, Target,
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
    tokio::spawn(introducer.run(socket));
    (addr, received)
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
    _events: NetEvents,
}

fn options(max: usize) -> Options {
    Options::player().with_peers(max)
}

async fn connected(server: SocketAddr, options: &Options) -> (NetConnection, NetEvents) {
    let target: Target = format!("rtmfp://{server}/chat").parse().unwrap();
    NetConnection::connect(&target, options).await.unwrap()
}

async fn person(server: SocketAddr, max: usize) -> Person {
    let (nc, events) = connected(server, &options(max)).await;
    let (own, told) = NetStream::open_direct(&nc, |_| true).await.unwrap();
    own.publish("chat", PublishMode::Live).await.unwrap();
    Person {
        nc,
        own,
        told,
        _events: events,
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
