//! The client library over RTMFP at real edges: streams, calls and shared objects as over
//! RTMP, and RTMP where datagrams do not get through.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use amf::Value;
use bytes::Bytes;
use client::{
    Connection, Error, Fallback, Item, NetConnection, NetStream, Options, Player, Publisher,
    Scheme, SharedObject, StreamEvent, Target,
};
use model::ObjectKind;
use rtmp::{Message, MessageKind, StreamId};
use selvage_cluster_tests::lab::{Cluster, Dev, SOON};
use tokio::time::timeout;

/// What a client is to be within, with or without datagrams.
const CONNECTED: Duration = Duration::from_secs(3);

fn rtmfp(dev: &mut Dev, edge: usize, rest: &str) -> Target {
    let addr = dev.process.listening(&format!("edge-{edge}"), "rtmfp");
    format!("rtmfp://{addr}/{rest}").parse().unwrap()
}

/// A group of pictures with sound: a key frame of some packets, and what follows it.
fn frames() -> Vec<(MessageKind, u32, Bytes)> {
    let mut key = vec![0x17, 1, 0, 0, 0];
    key.extend((0..60_000_u32).map(|n| n.to_be_bytes()[3]));
    let avc = Bytes::from_static(&[0x17, 0, 0, 0, 0, 1, 2, 3, 4]);
    let aac = Bytes::from_static(&[0xaf, 0, 0x12, 0x10]);
    let mut frames = vec![
        (MessageKind::Video, 0, avc),
        (MessageKind::Audio, 0, aac),
        (MessageKind::Video, 0, Bytes::from(key)),
    ];
    for number in 1..40_u32 {
        let [.., low] = number.to_be_bytes();
        let delta = vec![0x27, 1, 0, 0, 0, low];
        let sound = vec![0xaf, 1, low];
        frames.push((MessageKind::Audio, number * 40, Bytes::from(sound)));
        frames.push((MessageKind::Video, number * 40, Bytes::from(delta)));
    }
    frames
}

/// The server's word that the stream is published. What is sent from then on comes.
const PUBLISHED: &str = "NetStream.Play.PublishNotify";

async fn until_published(player: &mut Player) {
    let told = async {
        loop {
            if let Item::Status(status) = player.next().await.unwrap()
                && status.code == PUBLISHED
            {
                return;
            }
        }
    };
    timeout(SOON, told).await.expect(PUBLISHED);
}

async fn next_media(player: &mut Player) -> Message {
    loop {
        let next = timeout(SOON, player.next_message()).await;
        let next = next.expect("a message in time").unwrap();
        let message = next.expect("the stream goes on").message;
        if matches!(message.kind, MessageKind::Audio | MessageKind::Video) {
            return message;
        }
    }
}

#[tokio::test]
async fn what_a_client_publishes_by_datagrams_is_played_at_another_edge_by_both() {
    let mut dev = Dev::start(2, 2);
    let target = rtmfp(&mut dev, 0, "live/a");
    let far = rtmfp(&mut dev, 1, "live/a");
    let near: Target = dev.url(1, "live", "a").parse().unwrap();
    let mut players = Vec::new();
    for target in [far, near] {
        players.push(Player::open(&target, &Options::player()).await.unwrap());
    }
    let mut publisher = Publisher::open(&target, &Options::publisher())
        .await
        .unwrap();
    assert_eq!(publisher.connection().scheme(), Scheme::Rtmfp);
    assert_eq!(publisher.connection().fell_back(), None);
    for player in &mut players {
        until_published(player).await;
    }
    let frames = frames();
    let mut got = [Vec::new(), Vec::new()];
    for (kind, time, body) in &frames {
        publisher.send(*kind, *time, body.clone()).await.unwrap();
        // One after the other: an edge gives up what it cannot send in time.
        for (player, got) in players.iter_mut().zip(&mut got) {
            tokio::select! {
                message = next_media(player) => got.push(message),
                ended = publisher.idle() => panic!("the publisher ended: {ended:?}"),
            }
        }
    }
    for (player, got) in players.into_iter().zip(got) {
        let same = |(m, (kind, time, body)): (&Message, &(MessageKind, u32, Bytes))| {
            (m.kind, m.time, &m.payload) == (*kind, *time, body)
        };
        assert!(got.iter().zip(&frames).all(same), "{got:?}");
        player.close().await.unwrap();
    }
    let began = Instant::now();
    publisher.close().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "a prompt goodbye");
}

#[tokio::test]
async fn streams_calls_and_objects_of_one_connection_are_as_by_rtmp() {
    let mut dev = Dev::start(1, 2);
    let target = rtmfp(&mut dev, 0, "chat");
    let (nc, _events) = NetConnection::connect(&target, &Options::player())
        .await
        .unwrap();
    let other: Target = format!("rtmp://{}/chat", dev.rtmp(1)).parse().unwrap();
    let (far, _far_events) = NetConnection::connect(&other, &Options::player())
        .await
        .unwrap();

    let error = nc.call("nothing", []).await.unwrap_err();
    assert!(matches!(error, Error::CallFailed(_)), "{error}");
    nc.ping().await.unwrap();

    let (there, mut heard) = NetStream::open(&far).await.unwrap();
    there.play("words", Default::default()).await.unwrap();
    let (ns, _statuses) = NetStream::open(&nc).await.unwrap();
    ns.publish("words", client::PublishMode::Live)
        .await
        .unwrap();
    let told = async {
        loop {
            if let StreamEvent::Status(status) = heard.next().await.unwrap()
                && status.code == PUBLISHED
            {
                return;
            }
        }
    };
    timeout(SOON, told).await.expect(PUBLISHED);
    ns.send(0, "onWords", ["hello".into()]).await.unwrap();
    let words = async {
        loop {
            if let StreamEvent::Message(arrival) = heard.next().await.unwrap()
                && let Ok(values) = amf::amf0::read_all(&arrival.message.payload)
                && values.first() == Some(&Value::from("onWords"))
            {
                return values;
            }
        }
    };
    let words = timeout(SOON, words).await.unwrap();
    assert_eq!(words.get(1), Some(&Value::from("hello")));

    let (here, _changes) = SharedObject::connect(&nc, "room", ObjectKind::Temporary)
        .await
        .unwrap();
    let (_there, mut told) = SharedObject::connect(&far, "room", ObjectKind::Temporary)
        .await
        .unwrap();
    here.set("topic", "datagrams".into()).await.unwrap();
    let seen = async {
        loop {
            let event = told.next().await.unwrap();
            if format!("{event:?}").contains("datagrams") {
                return;
            }
        }
    };
    timeout(SOON, seen).await.expect("the change is told");
    nc.close().await.unwrap();
}

/// An edge without RTMFP.
fn without_datagrams() -> (Cluster, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[rtmfp]\nenabled = false\n").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (Cluster::start_with(1, 1, &["--config", &path]), file)
}

fn at(addr: SocketAddr) -> Target {
    format!("rtmfp://{addr}/live").parse().unwrap()
}

#[tokio::test]
async fn where_the_port_is_closed_to_datagrams_a_client_goes_another_way_at_once() {
    let (cluster, _file) = without_datagrams();
    let target = at(cluster.edges[0].addr);
    let began = Instant::now();
    let connection = Connection::open(&target, &Options::player()).await.unwrap();
    assert!(began.elapsed() < CONNECTED / 3, "{:?}", began.elapsed());
    assert_eq!(connection.scheme(), Scheme::Rtmp);
    let fell = connection.fell_back().expect("it says so");
    assert_eq!(Some(&fell.to), target.without_datagrams().as_ref());

    let never = Options::player().with_fallback(Fallback::Never);
    let error = Connection::open(&target, &never).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[tokio::test]
async fn where_nobody_answers_datagrams_a_client_is_connected_within_three_seconds() {
    let (cluster, _file) = without_datagrams();
    let addr = cluster.edges[0].addr;
    // As behind a firewall: what comes is taken and never answered.
    let _silent = UdpSocket::bind(addr).unwrap();
    let began = Instant::now();
    let (nc, _events) = NetConnection::connect(&at(addr), &Options::player())
        .await
        .unwrap();
    assert!(began.elapsed() < CONNECTED, "{:?}", began.elapsed());
    assert_eq!(nc.scheme(), Scheme::Rtmp);
    let fell = nc.fell_back().expect("it says so");
    assert!(fell.why.contains("RTMFP"), "{}", fell.why);
    let error = NetStream::open_direct(&nc, |_| true).await.unwrap_err();
    assert!(matches!(error, Error::NoPeers), "{error}");

    let other = Fallback::To(format!("rtmp://{addr}/other").parse().unwrap());
    let options = Options::player()
        .with_fallback(other.clone())
        .with_patience(CONNECTED);
    let connection = Connection::open(&at(addr), &options).await.unwrap();
    let to = connection.fell_back().map(|fell| fell.to.clone());
    assert_eq!(to.map(Fallback::To), Some(other));
}

#[tokio::test]
async fn an_edge_learns_at_once_that_a_client_has_gone() {
    let mut dev = Dev::start(1, 1);
    let target = rtmfp(&mut dev, 0, "live/left");
    let first = Publisher::open(&target, &Options::publisher())
        .await
        .unwrap();
    assert_eq!(first.stream(), StreamId(1));
    first.close_abruptly();
    let began = Instant::now();
    // The name is free again: nobody waits for a session to fall silent.
    loop {
        match Publisher::open(&target, &Options::publisher()).await {
            Ok(_) => return,
            Err(error) => assert!(began.elapsed() < SOON, "{error}"),
        }
    }
}
