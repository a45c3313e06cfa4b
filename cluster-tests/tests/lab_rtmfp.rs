//! RTMFP clients at real edges: what they publish is what RTMP players get at another edge,
//! and the other way round.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::SocketAddr;
use std::sync::mpsc::{self, TryRecvError};
use std::time::{Duration, Instant};

use selvage_cluster_tests::lab::datagrams::Datagrams;
use selvage_cluster_tests::lab::raw::{Message, Raw, kind};
use selvage_cluster_tests::lab::{Dev, SOON};

/// A group of pictures with sound: a key frame of some packets, and what follows it.
fn frames() -> Vec<Message> {
    let message = |kind, time, body| Message {
        kind,
        stream: 1,
        time,
        body,
    };
    let mut key = vec![0x17, 1, 0, 0, 0];
    key.extend((0..40_000_u32).map(|n| n.to_be_bytes()[3]));
    let mut frames = vec![
        message(kind::VIDEO, 0, vec![0x17, 0, 0, 0, 0, 1, 2, 3, 4]),
        message(kind::AUDIO, 0, vec![0xaf, 0, 0x12, 0x10]),
        message(kind::VIDEO, 0, key),
    ];
    for number in 1..20 {
        let [.., low] = number_bytes(number);
        frames.push(message(kind::AUDIO, number * 40, vec![0xaf, 1, low]));
        frames.push(message(
            kind::VIDEO,
            number * 40,
            vec![0x27, 1, 0, 0, 0, low],
        ));
    }
    frames
}

fn number_bytes(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// All but the time, which every player has its own of, in the order of each kind.
fn bodies(messages: &[Message], wanted: u8) -> Vec<&[u8]> {
    messages
        .iter()
        .filter(|message| message.kind == wanted)
        .map(|message| &message.body[..])
        .collect()
}

/// Takes what a player is given, as many messages of sound and pictures as were sent.
fn collect(count: usize, mut next: impl FnMut() -> Message) -> Vec<Message> {
    let mut got = Vec::new();
    while got.len() < count {
        let message = next();
        if message.kind != kind::DATA {
            got.push(message);
        }
    }
    got
}

#[track_caller]
fn same(sent: &[Message], got: &[Message]) {
    for kind in [kind::AUDIO, kind::VIDEO] {
        assert_eq!(bodies(got, kind), bodies(sent, kind));
    }
}

fn rtmfp(dev: &mut Dev, edge: usize) -> SocketAddr {
    dev.process.listening(&format!("edge-{edge}"), "rtmfp")
}

#[test]
fn a_publisher_of_datagrams_is_played_from_another_edge_by_both_protocols() {
    let mut dev = Dev::start(2, 2);
    let (near, far) = (rtmfp(&mut dev, 0), rtmfp(&mut dev, 1));
    let mut publisher = Datagrams::connect(near, "live").unwrap();
    let stream = publisher.create_stream().unwrap();
    let code = publisher.ask(stream, "publish", "a").unwrap();
    assert_eq!(code, "NetStream.Publish.Start");

    let mut player = Raw::connect(dev.rtmp(1), "live").unwrap();
    let raw_stream = player.create_stream().unwrap();
    assert_eq!(
        player.play(raw_stream, "a").unwrap(),
        "NetStream.Play.Start"
    );
    let mut other = Datagrams::connect(far, "live").unwrap();
    let other_stream = other.create_stream().unwrap();
    let code = other.ask(other_stream, "play", "a").unwrap();
    assert_eq!(code, "NetStream.Play.Start");

    // Sound overtakes a picture that takes many packets, and who is not there yet begins with
    // the picture: the rest follows when both are there.
    let frames = frames();
    let (first, rest) = frames.split_at(3);
    let (go_on, told) = mpsc::channel();
    let mut parts = [first.to_vec(), rest.to_vec()].into_iter();
    go_on.send(()).unwrap();
    let going = std::thread::spawn(move || {
        // The publisher's session sends again what is lost while the players are read.
        loop {
            match told.try_recv() {
                Ok(()) => {
                    for frame in parts.next().unwrap() {
                        publisher
                            .send(frame.kind, stream, frame.time, &frame.body)
                            .unwrap();
                    }
                }
                Err(TryRecvError::Empty) => publisher.turn(Duration::from_millis(20)).unwrap(),
                Err(TryRecvError::Disconnected) => return,
            }
        }
    });
    let mut got = collect(first.len(), || player.read_media().unwrap());
    let mut other_got = collect(first.len(), || other.read_media().unwrap());
    go_on.send(()).unwrap();
    got.extend(collect(rest.len(), || player.read_media().unwrap()));
    same(&frames, &got);
    other_got.extend(collect(rest.len(), || other.read_media().unwrap()));
    same(&frames, &other_got);
    drop(go_on);
    going.join().unwrap();
}

#[test]
fn a_player_of_datagrams_gets_what_rtmp_publishes_and_goes_on_at_another_port() {
    let mut dev = Dev::start(2, 2);
    let far = rtmfp(&mut dev, 1);
    let mut player = Datagrams::connect(far, "live").unwrap();
    let stream = player.create_stream().unwrap();
    let code = player.ask(stream, "play", "b").unwrap();
    assert_eq!(code, "NetStream.Play.Start");

    let mut publisher = Raw::connect(dev.rtmp(0), "live").unwrap();
    let raw_stream = publisher.create_stream().unwrap();
    let code = publisher.publish(raw_stream, "b").unwrap();
    assert_eq!(code, "NetStream.Publish.Start");
    let frames = frames();
    let mut publish = |part: &[Message]| {
        for frame in part {
            publisher
                .send(frame.kind, raw_stream, frame.time, &frame.body)
                .unwrap();
        }
    };
    let (first, second) = frames.split_at(frames.len() / 2);
    publish(first);
    let mut got = collect(first.len(), || player.read_media().unwrap());
    // The edge finds the player where it is: the shard that gets its packets may be another.
    player.move_away().unwrap();
    publish(second);
    let began = Instant::now();
    got.extend(collect(second.len(), || player.read_media().unwrap()));
    same(&frames, &got);
    assert!(began.elapsed() < SOON);
}

#[test]
fn a_name_is_refused_to_a_second_publisher_whatever_it_speaks() {
    let mut dev = Dev::start(1, 1);
    let mut first = Datagrams::connect(rtmfp(&mut dev, 0), "live").unwrap();
    let stream = first.create_stream().unwrap();
    let code = first.ask(stream, "publish", "c").unwrap();
    assert_eq!(code, "NetStream.Publish.Start");
    let mut second = Raw::connect(dev.rtmp(0), "live").unwrap();
    let stream = second.create_stream().unwrap();
    let going = std::thread::spawn(move || {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(5) {
            first.turn(Duration::from_millis(20)).unwrap();
        }
    });
    let code = second.publish(stream, "c").unwrap();
    assert_eq!(code, "NetStream.Publish.BadName");
    going.join().unwrap();
}
