//! Clients that follow a server's request to go elsewhere, and what they find there.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test looks for the one variant it expects, and its helpers fail loudly"
)]

mod server;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::limits::{FOLLOW_PAUSE, SEAM_SILENCE_MS};
use client::{Options, Player, Publisher, Target};
use model::{Class, Frame, Kind};
use rtmp::{Message, MessageKind, StreamId};
use selvage_client as client;
use session::{Event, Notice};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use self::server::Server;

/// Far more than any of it takes: a test that hangs says so.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a client is turned away.
const TURNED_AWAY: u32 = 4;

const KEY: Bytes = Bytes::from_static(&[0x17, 1, 0, 0, 0, 1, 2, 3]);

/// A place where clients connect.
struct Place {
    listener: TcpListener,
    url: String,
}

impl Place {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("rtmp://{}/live", listener.local_addr().unwrap());
        Self { listener, url }
    }

    fn target(&self) -> Target {
        format!("{}/a", self.url).parse().unwrap()
    }

    /// The next client, whose publish or play has begun, and when it came.
    async fn accept(&self) -> (Server<TcpStream>, StreamId, Instant) {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let came = Instant::now();
        let mut server = Server::new(tcp);
        let stream = server.accept().await;
        (server, stream, came)
    }
}

async fn ask(server: &mut Server<TcpStream>, tc_url: Option<&str>) {
    let asked = server.session.request_reconnect(tc_url, Instant::now());
    assert!(asked, "the client says that it follows");
    server.settle().await;
}

async fn show(server: &mut Server<TcpStream>, stream: StreamId, time: u32) {
    server.carrier.write_message(&Message {
        kind: MessageKind::Video,
        stream,
        time,
        payload: KEY,
    });
    server.flush().await;
}

/// Plays until there is a picture.
async fn see(target: Target) -> Bytes {
    let options = Options::player().following();
    let mut player = Player::open(&target, &options).await.unwrap();
    let seen = picture(&mut player).await;
    player.close_abruptly();
    seen
}

async fn picture(player: &mut Player) -> Bytes {
    loop {
        let message = player.next_message().await.unwrap().unwrap().message;
        if message.kind == MessageKind::Video {
            return message.payload;
        }
    }
}

/// Publishes for as long as the server's side takes.
async fn publish_during<T>(target: Target, server: impl Future<Output = T>) -> T {
    let publisher = async {
        let options = Options::publisher().following();
        let mut publisher = Publisher::open(&target, &options).await.unwrap();
        publisher.idle().await.unwrap_err()
    };
    tokio::select! {
        error = publisher => panic!("{error}"),
        done = server => done,
    }
}

/// Has the client come again and again, to be turned away each time, and sees that it comes
/// later each time. Gives the last that came.
async fn turn_away(
    place: &Place,
    away: impl AsyncFn(Server<TcpStream>, StreamId) -> Option<Server<TcpStream>>,
) -> (Server<TcpStream>, StreamId) {
    let (mut new, mut stream, _) = place.accept().await;
    for times in 0..TURNED_AWAY {
        let before = Instant::now();
        let _kept = away(new, stream).await;
        let came;
        (new, stream, came) = place.accept().await;
        // Half of the pause, which doubles each time.
        let least = FOLLOW_PAUSE * 2_u32.pow(times) / 2;
        let waited = came - before;
        assert!(waited >= least, "{waited:?} at {times}");
    }
    (new, stream)
}

async fn within<T>(all: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, all).await.unwrap()
}

#[tokio::test]
async fn a_player_that_is_closed_each_time_comes_back_ever_later() {
    let place = Place::new().await;
    let server = async {
        let (mut old, ..) = place.accept().await;
        ask(&mut old, None).await;
        let (mut new, stream) = turn_away(&place, async |_, _| None).await;
        // There is nothing to wait for at the old one.
        drop(old);
        show(&mut new, stream, 40).await;
        while new.event().await.is_some() {}
    };
    let (seen, ()) = within(async { tokio::join!(see(place.target()), server) }).await;
    assert_eq!(seen, KEY);
}

#[tokio::test]
async fn a_publisher_that_is_refused_each_time_comes_back_ever_later() {
    let place = Place::new().await;
    let server = async {
        let (mut old, ..) = place.accept().await;
        ask(&mut old, None).await;
        let refuse = async |mut new: Server<TcpStream>, stream| {
            new.session
                .handle_notice(stream, Notice::Superseded, Instant::now());
            new.settle().await;
            // It is left open: only the status says that it is of no use.
            Some(new)
        };
        turn_away(&place, refuse).await;
    };
    within(publish_during(place.target(), server)).await;
}

#[tokio::test]
async fn a_player_that_goes_over_and_is_sent_on_each_time_comes_back_ever_later() {
    let place = Place::new().await;
    let over = Notify::new();
    let server = async {
        let (mut old, ..) = place.accept().await;
        ask(&mut old, None).await;
        drop(old);
        let time = Cell::new(0);
        let send_on = async |mut new: Server<TcpStream>, stream| {
            // The one before has gone, so it goes over with the first picture.
            time.set(time.get() + 40);
            show(&mut new, stream, time.get()).await;
            over.notified().await;
            ask(&mut new, None).await;
            None
        };
        turn_away(&place, send_on).await;
    };
    let player = async || -> Infallible {
        let options = Options::player().following();
        let mut player = Player::open(&place.target(), &options).await.unwrap();
        loop {
            picture(&mut player).await;
            over.notify_one();
        }
    };
    within(async {
        tokio::select! {
            never = player() => match never {},
            () = server => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_player_that_is_sent_on_while_it_goes_over_goes_on() {
    let (place, next) = (Place::new().await, Place::new().await);
    let server = async {
        let (mut old, ..) = place.accept().await;
        ask(&mut old, None).await;
        let (mut new, ..) = place.accept().await;
        ask(&mut new, Some(&next.url)).await;
        let (mut last, stream, _) = next.accept().await;
        drop((old, new));
        show(&mut last, stream, 40).await;
        while last.event().await.is_some() {}
    };
    let (seen, ()) = within(async { tokio::join!(see(place.target()), server) }).await;
    assert_eq!(seen, KEY);
}

#[tokio::test]
async fn a_publisher_that_is_sent_on_while_it_stands_by_goes_on() {
    let (place, next) = (Place::new().await, Place::new().await);
    let server = async {
        let (mut old, ..) = place.accept().await;
        ask(&mut old, None).await;
        let (mut new, ..) = place.accept().await;
        ask(&mut new, Some(&next.url)).await;
        next.accept().await;
    };
    within(publish_during(place.target(), server)).await;
}

/// Publishes to a server that asks the publisher to leave and ends before it could. Then
/// publishes only one thing, again and again, until the next server has it twice: all that it
/// gets.
async fn publish_through_the_end(
    before: &[(MessageKind, Bytes)],
    again: (MessageKind, Bytes),
) -> Vec<Frame> {
    let place = Place::new().await;
    let accepted = Notify::new();
    let server = async {
        let (mut old, ..) = place.accept().await;
        for _ in before {
            frame(&mut old).await;
        }
        ask(&mut old, None).await;
        let (mut new, ..) = place.accept().await;
        drop(old);
        accepted.notify_one();
        let mut got = Vec::new();
        while got.iter().filter(|f: &&Frame| f.payload == again.1).count() < 2 {
            got.push(frame(&mut new).await);
        }
        got
    };
    let publisher = async || -> Infallible {
        let options = Options::publisher().following();
        let mut publisher = Publisher::open(&place.target(), &options).await.unwrap();
        for (kind, payload) in before {
            publisher.send(*kind, 0, payload.clone()).await.unwrap();
        }
        tokio::select! {
            error = publisher.idle() => panic!("{}", error.unwrap_err()),
            () = accepted.notified() => {}
        }
        let (kind, payload) = again.clone();
        for time in (0..).step_by(100) {
            publisher.send(kind, time, payload.clone()).await.unwrap();
            // It goes on at its own pace, faster than time does.
            let pace = Duration::from_millis(1);
            let idle = tokio::time::timeout(pace, publisher.idle()).await;
            assert!(idle.is_err(), "the publish goes on");
        }
        panic!("nothing of it has come")
    };
    within(async {
        tokio::select! {
            never = publisher() => match never {},
            got = server => got,
        }
    })
    .await
}

/// The next of a publish.
async fn frame(server: &mut Server<TcpStream>) -> Frame {
    loop {
        if let Event::Frame { frame, .. } = server.event().await.unwrap() {
            return frame;
        }
    }
}

#[tokio::test]
async fn a_publisher_of_data_alone_goes_on_elsewhere() {
    const CUE: Bytes = Bytes::from_static(b"\x02\x00\x05onCue\x05");
    // What is kept for those who come late is told the next server anyway, and only once.
    const METADATA: Bytes = Bytes::from_static(b"\x02\x00\x0aonMetaData\x05");
    for again in [CUE, METADATA] {
        let [cue, again] = [CUE, again].map(|payload| (MessageKind::DataAmf0, payload));
        let got = publish_through_the_end(&[cue], again).await;
        let times: Vec<_> = got.into_iter().map(|frame| frame.time.0).collect();
        assert!(
            matches!(times[..], [first, second] if second == first + 100),
            "{times:?}"
        );
    }
}

#[tokio::test]
async fn a_publisher_whose_camera_is_off_goes_on_elsewhere_with_its_sound() {
    const START: Bytes = Bytes::from_static(&[0x17, 0, 0, 0, 0, 1]);
    const SOUND: Bytes = Bytes::from_static(&[0xaf, 1, 1, 2]);
    let before = [
        (MessageKind::Video, START),
        (MessageKind::Video, KEY),
        (MessageKind::Audio, SOUND),
    ];
    let got = publish_through_the_end(&before, (MessageKind::Audio, SOUND)).await;
    let got: Vec<_> = got
        .into_iter()
        .map(|f| (f.kind, f.class, f.time.0))
        .collect();
    let [
        (Kind::Video, Class::Config, _),
        (Kind::Audio, Class::Audio, time),
        (Kind::Audio, ..),
    ] = got[..]
    else {
        panic!("{got:?}");
    };
    assert!(time >= u64::from(SEAM_SILENCE_MS), "{time}");
}
