//! What lies at the edges of the ordinary: bytes that come a few at a time, frames that
//! come with the very first segment, messages as large as they may be, a name published
//! again. None of it costs a viewer a message.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use selvage_cluster_tests::lab::raw::amf::{self, Amf};
use selvage_cluster_tests::lab::raw::{Message, Raw, header, kind};
use selvage_cluster_tests::lab::{Cluster, Live, Pace, SOON, Viewer, pace, until};

/// The largest message that the product takes.
const MESSAGE_MAX: usize = 8 << 20;

/// A little less than that.
const NEARLY_MAX: usize = MESSAGE_MAX - 100;

/// The chunk size of a connection that has not agreed on another.
const FIRST_CHUNK: usize = 128;

const START: &str = "NetStream.Publish.Start";
const PUBLISHED: &str = "NetStream.Play.PublishNotify";
const UNPUBLISHED: &str = "NetStream.Play.UnpublishNotify";
const INSUFFICIENT: &str = "NetStream.Play.InsufficientBW";

#[test]
fn a_publisher_whose_bytes_come_a_few_at_a_time_publishes_intact() {
    let cluster = Cluster::start(2, 2);
    for piece in [1, 3] {
        let name = format!("drip{piece}");
        let viewer = Viewer::play(cluster.edges[1].addr, "live", &name);
        let drip = Drip::of(piece, Duration::from_millis(1));
        let by_drips = relay(cluster.edges[0].addr, Some(drip), None);
        let mut publisher = Publisher::publish(by_drips, &name);
        let sent = [opening(1), pictures(1, 20)].concat();
        sent.iter().for_each(|message| publisher.send(message));
        viewer.until_got(sent.last().unwrap());
        assert_eq!(viewer.judge(&sent), 3, "the viewer missed the beginning");
    }
}

#[test]
fn frames_in_the_first_segment_reach_viewers_who_are_there() {
    let cluster = Cluster::start(2, 2);
    let sound = |number: u8| message(kind::AUDIO, 23 * u32::from(number), sound_body(number));
    let configs = [
        message(kind::AUDIO, 0, vec![0xaf, 0, 0x12, 0x10]),
        message(kind::VIDEO, 0, vec![0x17, 0, 0, 0, 0, 1]),
    ];
    let cue = |number: u32| {
        let values = [Amf::text("onCuePoint"), Amf::Number(number.into())];
        message(kind::DATA, number, amf::bytes(&values))
    };
    let cases = [
        (
            "sound",
            configs[..1]
                .iter()
                .cloned()
                .chain((0..10).map(sound))
                .collect::<Vec<_>>(),
        ),
        ("data", (0..5).map(cue).collect()),
        (
            "sound before the key frame",
            configs
                .iter()
                .cloned()
                .chain((0..5).map(sound))
                .chain([picture(120, true, 100, 0), picture(160, false, 100, 1)])
                .collect(),
        ),
    ];
    // Several names, so that both origins own some of them.
    for round in 0..6 {
        for (what, sent) in &cases {
            let name = format!("{}{round}", what.replace(' ', "_"));
            let viewer = Viewer::play(cluster.edges[1].addr, "live", &name);
            let mut publisher = Publisher::publish(cluster.edges[0].addr, &name);
            publisher.send_at_once(sent);
            viewer.until_got(sent.last().unwrap());
            is_all_of(&viewer, sent, what);
        }
    }
}

#[test]
fn the_largest_key_frames_reach_viewers_who_read_slowly() {
    let cluster = Cluster::start(1, 2);
    let paces = [
        None,
        Some(Drip::of(16 << 10, Duration::from_millis(1))),
        Some(Drip::of(64 << 10, Duration::from_millis(10))),
    ];
    let viewers: Vec<Viewer> = paces
        .iter()
        .flat_map(|pace| [0, 1].map(|edge| relay(cluster.edges[edge].addr, None, *pace)))
        .map(|slow| Viewer::play(slow, "live", "a"))
        .collect();
    let mut publisher = Publisher::publish(cluster.edges[0].addr, "a");
    publisher.enlarge_chunks();
    let mut sent = opening(1);
    sent.iter().for_each(|message| publisher.send(message));
    for number in 0..2 {
        let time = u32::from(number) * 2000;
        let group = [
            picture(time, true, NEARLY_MAX, number * 2),
            picture(time + 40, false, 2_000, number * 2 + 1),
        ];
        group.iter().for_each(|message| publisher.send(message));
        sent.extend(group);
        for viewer in &viewers {
            viewer.until_got(sent.last().unwrap());
        }
    }
    for viewer in &viewers {
        assert_eq!(viewer.judge(&sent), 3, "the viewer missed the beginning");
        assert!(!viewer.was_told(INSUFFICIENT));
    }
}

#[test]
fn two_large_messages_that_end_in_one_segment_disturb_nobody() {
    let cluster = Cluster::start(1, 2);
    let edge = |number: usize| cluster.edges[number].addr;
    let bystanders = [0, 1].map(|number| Viewer::play(edge(number), "live", "bystander"));
    let live = Live::publish(edge(0), "live", "bystander", Pace::real());
    let viewers = [0, 1].map(|number| Viewer::play(edge(number), "live", "a"));
    live.go_on(50);
    let mut publisher = Publisher::publish(edge(0), "a");
    publisher.enlarge_chunks();
    let mut sent = opening(1);
    sent.extend(pictures(1, 1));
    sent.iter().for_each(|message| publisher.send(message));
    for round in 0..2 {
        let time = 1000 * (u32::from(round) + 1);
        let both = [
            picture(time, true, (3 << 20) + 50, 10 + round * 3),
            picture(time, true, MESSAGE_MAX - 65_000, 11 + round * 3),
        ];
        publisher.send_interleaved(&both);
        sent.extend(both);
        let small = picture(time + 40, false, 500, 12 + round * 3);
        publisher.send(&small);
        sent.push(small);
        for viewer in &viewers {
            viewer.until_got(sent.last().unwrap());
        }
        live.go_on(25);
    }
    let bystanders_sent = live.sent();
    for (viewer, sent) in bystanders
        .iter()
        .map(|viewer| (viewer, &bystanders_sent))
        .chain(viewers.iter().map(|viewer| (viewer, &sent)))
    {
        viewer.until_got(sent.last().unwrap());
        for code in [INSUFFICIENT, UNPUBLISHED] {
            assert!(!viewer.was_told(code), "{code}");
        }
    }
    let bystanders_sent = live.leave();
    for viewer in &bystanders {
        viewer.until_got(bystanders_sent.last().unwrap());
        assert_eq!(viewer.judge(&bystanders_sent), 3);
    }
    for viewer in &viewers {
        assert_eq!(viewer.judge(&sent), 3, "the viewer missed the beginning");
    }
}

#[test]
fn a_name_published_again_on_the_same_connection_is_told_and_begins_anew() {
    let cluster = Cluster::start(2, 2);
    for name in ["a", "b", "c", "d"] {
        let edge = |number: usize| cluster.edges[number].addr;
        let stay = [0, 1].map(|number| Viewer::play(edge(number), "live", name));
        let mut publisher = Publisher::publish(edge(0), name);
        let mut all = Vec::new();
        for number in 1..=4 {
            if number > 1 {
                publisher.close();
                publisher.publish_again(name);
            }
            let sent = [opening(number), pictures(number, 5)].concat();
            sent.iter().for_each(|message| publisher.send(message));
            // At first everybody keeps up, then the publisher does not wait for them.
            if number < 3 {
                for viewer in &stay {
                    viewer.until_got(sent.last().unwrap());
                }
            }
            all.extend(sent);
        }
        for viewer in &stay {
            viewer.until_got(all.last().unwrap());
            let told = viewer.look(|seen| seen.statuses.clone());
            let again = [UNPUBLISHED, PUBLISHED];
            let expected = [&[PUBLISHED][..], &again, &again, &again].concat();
            assert_eq!(told, expected, "{name}");
            let bodies = |messages: &mut dyn Iterator<Item = &Message>| {
                messages
                    .map(|message| message.body.clone())
                    .collect::<Vec<_>>()
            };
            viewer.look(|seen| {
                let got = bodies(&mut seen.media.iter().map(|(_, message)| message));
                assert_eq!(got, bodies(&mut all.iter()), "{name}");
            });
        }
    }
}

#[test]
fn who_joins_after_the_publisher_left_gets_nothing_of_the_ended_publish() {
    let cluster = Cluster::start(2, 2);
    for name in ["a", "b", "c", "d"] {
        let edge = |number: usize| cluster.edges[number].addr;
        let stay = [0, 1].map(|number| Viewer::play(edge(number), "live", name));
        let mut publisher = Publisher::publish(edge(0), name);
        let ended = [opening(1), pictures(1, 30)].concat();
        ended.iter().for_each(|message| publisher.send(message));
        publisher.close();
        until("everybody knows that the publisher left", SOON, || {
            stay.iter().all(|viewer| viewer.was_told(UNPUBLISHED))
        });
        let late = [0, 1].map(|number| Viewer::play(edge(number), "live", name));
        // What the late ones get first is of the next publish.
        publisher.publish_again(name);
        let sent = [opening(2), pictures(2, 5)].concat();
        sent.iter().for_each(|message| publisher.send(message));
        for viewer in stay.iter().chain(&late) {
            viewer.until_got(sent.last().unwrap());
            assert!(!viewer.was_told(INSUFFICIENT));
        }
        for viewer in &late {
            assert_eq!(viewer.judge(&sent), 3, "the viewer missed the beginning");
            is_all_of(viewer, &sent, name);
            let told = viewer.look(|seen| seen.statuses.clone());
            assert_eq!(told, [PUBLISHED], "{name}");
        }
    }
}

/// A publisher that sends what it is told, as it is told.
#[derive(Debug)]
struct Publisher {
    raw: Raw,
    stream: u32,
    chunk: usize,
}

impl Publisher {
    #[track_caller]
    fn publish(edge: SocketAddr, name: &str) -> Self {
        let mut raw = Raw::connect(edge, "live").expect("the edge takes a publisher");
        let stream = raw.create_stream().expect("the edge gives a stream");
        let mut publisher = Self {
            raw,
            stream,
            chunk: FIRST_CHUNK,
        };
        publisher.publish_again(name);
        publisher
    }

    #[track_caller]
    fn publish_again(&mut self, name: &str) {
        let mut code = self.raw.publish(self.stream, name).unwrap();
        // The status of a close comes first.
        if code == "NetStream.Unpublish.Success" {
            code = self.raw.next_status().unwrap();
        }
        assert_eq!(code, START);
    }

    #[track_caller]
    fn close(&mut self) {
        self.raw
            .command(self.stream, "closeStream", 0.0, &[Amf::Null])
            .expect("the edge reads");
    }

    #[track_caller]
    fn enlarge_chunks(&mut self) {
        self.chunk = 65_536;
        self.raw.set_chunk_size(65_536).expect("the edge reads");
    }

    #[track_caller]
    fn send(&mut self, message: &Message) {
        let body = as_sent(message);
        self.raw
            .send(message.kind, self.stream, message.time, &body)
            .expect("the edge reads");
    }

    /// All of them with one write.
    #[track_caller]
    fn send_at_once(&mut self, messages: &[Message]) {
        let chunks = messages.iter().flat_map(|message| {
            let chunk_stream = if message.kind == kind::AUDIO { 4 } else { 6 };
            self.chunks(chunk_stream, message)
        });
        let bytes = chunks.collect::<Vec<_>>().concat();
        self.raw.socket().write_all(&bytes).expect("the edge reads");
    }

    /// Chunk by chunk on chunk streams of their own; the last chunk of each goes out
    /// with one write, in the given order.
    #[track_caller]
    fn send_interleaved(&mut self, messages: &[Message; 2]) {
        let [mut short, mut long] =
            [(6, &messages[0]), (7, &messages[1])].map(|(id, message)| self.chunks(id, message));
        let last = [short.pop().unwrap(), long.pop().unwrap()].concat();
        assert!(last.len() < 65_000, "this is more than a segment");
        let mut short = short.into_iter();
        for chunk in long {
            let both = [chunk, short.next().unwrap_or_default()].concat();
            self.raw.socket().write_all(&both).expect("the edge reads");
        }
        assert_eq!(short.next(), None, "the second message is the longer one");
        self.raw.socket().write_all(&last).expect("the edge reads");
    }

    fn chunks(&self, chunk_stream: u8, message: &Message) -> Vec<Vec<u8>> {
        let body = as_sent(message);
        let first = header(
            chunk_stream,
            message.kind,
            self.stream,
            message.time,
            body.len(),
        );
        body.chunks(self.chunk)
            .enumerate()
            .map(|(number, part)| {
                let head = if number == 0 {
                    first.clone()
                } else {
                    vec![0xc0 | chunk_stream]
                };
                [&head[..], part].concat()
            })
            .collect()
    }
}

/// How bytes are passed on: so many, then a pause.
#[derive(Clone, Copy, Debug)]
struct Drip {
    piece: usize,
    pause: Duration,
}

impl Drip {
    fn of(piece: usize, pause: Duration) -> Self {
        Self { piece, pause }
    }

    fn pass_on(self, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
        let mut bytes = vec![0; self.piece];
        loop {
            let count = from.read(&mut bytes)?;
            if count == 0 {
                return to.shutdown(Shutdown::Write);
            }
            to.write_all(&bytes[..count])?;
            pace(self.pause);
        }
    }
}

/// A listener for one client of the edge, whose bytes it passes on at a pace of its own:
/// those of the client, and those for it. Where the client reads slowly, little waits in
/// buffers of the kernel on its side.
#[track_caller]
fn relay(edge: SocketAddr, upward: Option<Drip>, downward: Option<Drip>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the system gives a port");
    let addr = listener.local_addr().expect("it has an address");
    let server = narrow(edge).expect("the edge takes connections");
    let at_once = Drip::of(65_536, Duration::ZERO);
    std::thread::spawn(move || {
        let (client, _) = listener.accept()?;
        for socket in [&client, &server] {
            socket.set_nodelay(true)?;
        }
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            let pace = upward.unwrap_or(at_once);
            pace.pass_on(&mut from_client, &mut to_server)
        });
        let (mut server, mut client) = (server, client);
        downward
            .unwrap_or(at_once)
            .pass_on(&mut server, &mut client)
    });
    addr
}

/// A connection with a small receive buffer.
fn narrow(edge: SocketAddr) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let socket = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(16_384)?;
        socket.connect(edge).await?.into_std()
    })?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// The viewer got all of it, nothing else, in order, with the same steps of time.
#[track_caller]
fn is_all_of(viewer: &Viewer, sent: &[Message], what: &str) {
    let plain = |messages: &mut dyn Iterator<Item = &Message>| {
        let mut start = None;
        messages
            .map(|message| {
                let start = *start.get_or_insert(message.time);
                (
                    message.kind,
                    message.time.wrapping_sub(start),
                    message.body.clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    let got = viewer.look(|seen| plain(&mut seen.media.iter().map(|(_, message)| message)));
    assert_eq!(got, plain(&mut sent.iter()), "{what}");
}

fn message(kind: u8, time: u32, body: Vec<u8>) -> Message {
    Message {
        kind,
        stream: 1,
        time,
        body,
    }
}

/// What a publisher says before its first picture. The number tells publishes apart.
fn opening(publish: u8) -> Vec<Message> {
    let properties = Amf::Object(vec![("width".into(), Amf::Number(publish.into()))]);
    vec![
        message(
            kind::DATA,
            0,
            amf::bytes(&[Amf::text("onMetaData"), properties]),
        ),
        message(kind::VIDEO, 0, vec![0x17, 0, 0, 0, 0, publish]),
        message(kind::AUDIO, 0, vec![0xaf, 0, 0x12, publish]),
    ]
}

/// So many pictures, every tenth a key frame, with sound between them.
fn pictures(publish: u8, count: u8) -> Vec<Message> {
    (0..count)
        .flat_map(|number| {
            let time = u32::from(number) * 40;
            let mut sound = sound_body(number);
            sound.push(publish);
            let mut picture = picture(time, number % 10 == 0, 200, number);
            picture.body.push(publish);
            [picture, message(kind::AUDIO, time + 11, sound)]
        })
        .collect()
}

/// A picture of so many bytes, none like that of another number.
fn picture(time: u32, key: bool, length: usize, number: u8) -> Message {
    let head = if key { 0x17 } else { 0x27 };
    let mut body = vec![head, 1, 0, 0, 0, number];
    body.extend(
        (0..=250)
            .map(|byte: u8| byte ^ number)
            .cycle()
            .take(length - 6),
    );
    message(kind::VIDEO, time, body)
}

fn sound_body(number: u8) -> Vec<u8> {
    [&[0xaf, 1][..], &[number; 30]].concat()
}

/// Stream properties are sent with `@setDataFrame` before them.
fn as_sent(message: &Message) -> Vec<u8> {
    let properties = amf::bytes(&[Amf::text("onMetaData")]);
    if message.kind == kind::DATA && message.body.starts_with(&properties) {
        [
            amf::bytes(&[Amf::text("@setDataFrame")]),
            message.body.clone(),
        ]
        .concat()
    } else {
        message.body.clone()
    }
}
