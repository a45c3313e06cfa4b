//! RTMFP clients in bad weather: what is reliable arrives whole and in order, media are in
//! time or not at all, and a session goes on where its client is now.
//!
//! The weather is [`Weather`], a seeded proxy; the comparison with TCP goes over the links of
//! a netlab, which needs its rights (see the manual of `selvage-netlab`) and fails without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlab::Impairment;
use rtmfp::session;
use selvage_cluster_tests::lab::datagrams::Datagrams;
use selvage_cluster_tests::lab::field::Field;
use selvage_cluster_tests::lab::raw::amf::{self, Amf};
use selvage_cluster_tests::lab::raw::{Message, Raw, kind};
use selvage_cluster_tests::lab::weather::{Stranger, Weather};
use selvage_cluster_tests::lab::{Dev, SOON, pace};

/// The longest time that a client is waited for before something else has its turn.
const TURN: Duration = Duration::from_millis(5);

/// The clock of a stream goes on by so much with every step: a picture and two sounds.
const STEP: Duration = Duration::from_millis(40);

/// A key frame comes so often, in steps.
const KEY_EVERY: u32 = 25;

/// What comes first: two configurations and a key frame.
const FIRST: usize = 3;

/// Data come so often, in steps.
const DATA_EVERY: u32 = 5;

/// What is published.
#[derive(Clone, Copy, Debug)]
struct Stream {
    steps: u32,
    /// Bytes of a picture; a key frame has four times as many.
    picture: usize,
}

const SMALL: Stream = Stream {
    steps: 75,
    picture: 2_500,
};

/// About 1.6 Mbit/s.
const LARGE: Stream = Stream {
    steps: 200,
    picture: 6_500,
};

fn rtmfp(dev: &mut Dev, edge: usize) -> SocketAddr {
    dev.process.listening(&format!("edge-{edge}"), "rtmfp")
}

/// Messages of one step, stamped with their number and when that is.
fn step(stream: Stream, number: u32, began: Instant) -> Vec<Message> {
    let stamp = |kind, prefix: &[u8], place: u32, len: usize| {
        let mut body = prefix.to_vec();
        body.extend((number * 2 + place).to_be_bytes());
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap();
        body.extend(micros.to_be_bytes());
        let salt = number.to_be_bytes()[3];
        let bytes = (0_u8..=255)
            .cycle()
            .map(|at| at.wrapping_mul(31).wrapping_add(salt));
        body.extend(bytes.take(len));
        Message {
            kind,
            stream: 1,
            time: number * 40 + place * 20,
            body,
        }
    };
    let mut messages = Vec::new();
    if number == 0 {
        let config = |kind, body: &[u8]| Message {
            kind,
            stream: 1,
            time: 0,
            body: body.to_vec(),
        };
        messages.push(config(kind::VIDEO, &[0x17, 0, 0, 0, 0, 1, 2, 3, 4]));
        messages.push(config(kind::AUDIO, &[0xaf, 0, 0x12, 0x10]));
    }
    let picture = stream.picture;
    messages.push(if number.is_multiple_of(KEY_EVERY) {
        stamp(kind::VIDEO, &[0x17, 1, 0, 0, 0], 0, picture * 4)
    } else {
        stamp(kind::VIDEO, &[0x27, 1, 0, 0, 0], 0, picture)
    });
    messages.push(stamp(kind::AUDIO, &[0xaf, 1], 0, 120));
    messages.push(stamp(kind::AUDIO, &[0xaf, 1], 1, 120));
    if number.is_multiple_of(DATA_EVERY) {
        let words = [Amf::text("onStep"), Amf::Number(f64::from(number))];
        messages.push(Message {
            kind: kind::DATA,
            stream: 1,
            time: number * 40,
            body: amf::bytes(&words),
        });
    }
    messages
}

/// The microseconds of a stamped message.
fn stamped(message: &Message) -> Option<Duration> {
    let prefix = match (message.kind, message.body.get(1)) {
        (kind::VIDEO, Some(1)) => 5,
        (kind::AUDIO, Some(1)) => 2,
        _ => return None,
    };
    let micros = message.body[prefix + 4..].first_chunk::<8>()?;
    Some(Duration::from_micros(u64::from_be_bytes(*micros)))
}

fn is_key(message: &Message) -> bool {
    message.kind == kind::VIDEO && message.body[..2] == [0x17, 1]
}

fn is_delta(message: &Message) -> bool {
    message.kind == kind::VIDEO && message.body[0] == 0x27
}

/// What a publisher says after its last step.
fn is_last(stream: Stream, message: &Message) -> bool {
    let last = stream.steps.next_multiple_of(DATA_EVERY) - DATA_EVERY;
    let words = [Amf::text("onStep"), Amf::Number(f64::from(last))];
    message.kind == kind::DATA && message.body == amf::bytes(&words)
}

/// Publishes by RTMP, on a path without fault, in real time.
fn publish_well(edge: SocketAddr, name: &str, stream: Stream, began: Instant) -> Publishing {
    let mut raw = Raw::connect(edge, "live").unwrap();
    let id = raw.create_stream().unwrap();
    assert_eq!(raw.publish(id, name).unwrap(), "NetStream.Publish.Start");
    Publishing(std::thread::spawn(move || {
        let mut sent = Vec::new();
        let first = Instant::now();
        for number in 0..stream.steps {
            pace((STEP * number).saturating_sub(first.elapsed()));
            for message in step(stream, number, began) {
                if raw
                    .send(message.kind, id, message.time, &message.body)
                    .is_err()
                {
                    // The test is over.
                    return (sent, None);
                }
                sent.push(message);
            }
        }
        // It stays, so that nobody is told that the stream is over.
        (sent, Some(raw))
    }))
}

struct Publishing(JoinHandle<(Vec<Message>, Option<Raw>)>);

/// A client of datagrams that plays, from a weather.
fn play(mut player: Datagrams, name: &str) -> Datagrams {
    let stream = player.create_stream().unwrap();
    let code = player.ask(stream, "play", name).unwrap();
    assert_eq!(code, "NetStream.Play.Start");
    player
}

/// Everything that a player gets until that is enough, by what comes or by the time.
fn watch(
    player: &mut Datagrams,
    began: Instant,
    patience: Duration,
    mut enough: impl FnMut(Option<&Message>) -> bool,
) -> Vec<(Duration, Message)> {
    let mut got = Vec::new();
    let started = Instant::now();
    while !enough(None) {
        player.turn(TURN).unwrap();
        while let Some(message) = player.take() {
            let done = enough(Some(&message));
            got.push((began.elapsed(), message));
            if done {
                return got;
            }
        }
        assert!(!player.is_closed(), "the session ended");
        assert!(
            started.elapsed() < patience,
            "the player waits in vain: {} messages",
            got.len()
        );
    }
    got
}

/// Everything that a player gets of a stream, whatever of its media is given up.
fn watch_all(player: &mut Datagrams, began: Instant, stream: Stream) -> Vec<(Duration, Message)> {
    let (mut over, mut sounds) = (None, 0);
    watch(player, began, SOON * 2, |message| {
        match message {
            Some(message) if is_last(stream, message) => over = Some(Instant::now()),
            Some(message) if message.kind == kind::AUDIO => sounds += 1,
            Some(_) | None => {}
        }
        // The last pictures are worth as much.
        let grace = if sounds > stream.steps * 2 {
            2500
        } else {
            6000
        };
        over.is_some_and(|over: Instant| over.elapsed() > ms(grace))
    })
}

/// The bodies of one kind.
fn bodies<'a>(messages: impl IntoIterator<Item = &'a Message>, wanted: u8) -> Vec<&'a [u8]> {
    let wanted = messages.into_iter().filter(|it| it.kind == wanted);
    wanted.map(|message| &message.body[..]).collect()
}

/// Whether these are some of those, in their order.
fn is_part(part: &[&[u8]], whole: &[&[u8]]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|body| rest.any(|other| other == body))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn path(delay: u64) -> Impairment {
    Impairment::delay(ms(delay))
}

/// A weather, and the longest datagram that passes it.
fn weathers() -> Vec<(&'static str, Impairment, usize)> {
    let whole = usize::MAX;
    let share = |loss: f64, reorder: f64, duplicate: f64, rule: Impairment| Impairment {
        loss,
        reorder,
        duplicate,
        ..rule
    };
    let uneven = Impairment {
        jitter: ms(40),
        ..path(60)
    };
    vec![
        ("loss of 2 %", share(0.02, 0.0, 0.0, path(20)), whole),
        ("loss of 10 %", share(0.10, 0.0, 0.0, path(20)), whole),
        ("disorder", share(0.0, 0.2, 0.0, path(20)), whole),
        ("doubles", share(0.0, 0.0, 0.2, path(20)), whole),
        ("200 ms", path(200), whole),
        // What is left of the 1280 bytes that every path of IPv6 has.
        ("a black hole", path(20), 1280 - 48),
        ("everything", share(0.03, 0.1, 0.1, uneven), 1280 - 48),
    ]
}

#[test]
fn what_is_reliable_arrives_whole_and_in_order_in_any_weather() {
    let mut dev = Dev::start(1, 2);
    let (near, far, clean) = (rtmfp(&mut dev, 0), rtmfp(&mut dev, 1), dev.rtmp(1));
    let began = Instant::now();
    let tests = weathers().into_iter().zip(1..);
    let running: Vec<_> = tests
        .map(|((what, rule, longest), seed)| {
            std::thread::spawn(move || {
                let weather = |server| {
                    let weather = Weather::before(server, &rule, seed);
                    weather.swallows_above(longest);
                    weather
                };
                let (up, down) = (weather(near), weather(far));
                reliable_in(what, &up, &down, clean, began);
            })
        })
        .collect();
    for test in running {
        test.join().unwrap();
    }
}

/// A publisher behind one weather, a player behind another, and one on a good path.
fn reliable_in(what: &str, up: &Weather, down: &Weather, clean: SocketAddr, began: Instant) {
    let name = what.replace(' ', "-").replace('%', "percent");
    let mut publisher = Datagrams::connect(up.addr(), "live").unwrap();
    let stream = publisher.create_stream().unwrap();
    let code = publisher.ask(stream, "publish", &name).unwrap();
    assert_eq!(code, "NetStream.Publish.Start", "{what}");
    let mut well = Raw::connect(clean, "live").unwrap();
    let well_stream = well.create_stream().unwrap();
    let code = well.play(well_stream, &name).unwrap();
    assert_eq!(code, "NetStream.Play.Start", "{what}");
    let player = play(Datagrams::connect(down.addr(), "live").unwrap(), &name);

    let [there, over] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (are_there, told) = (Arc::clone(&there), Arc::clone(&over));
    let publishing = std::thread::spawn(move || {
        let (mut sent, mut first) = (Vec::new(), Instant::now());
        for number in 0..SMALL.steps {
            while first.elapsed() < STEP * number {
                publisher.turn(TURN).unwrap();
            }
            for message in step(SMALL, number, began) {
                publisher
                    .send(message.kind, stream, message.time, &message.body)
                    .unwrap();
                // Sound overtakes a picture that takes many packets, and who is not there yet
                // begins with the picture: the rest follows when both players are there.
                if sent.len() + 1 == FIRST {
                    while !are_there.load(Ordering::Relaxed) {
                        publisher.turn(TURN).unwrap();
                    }
                    first = Instant::now();
                }
                sent.push(message);
            }
        }
        // What was lost is sent again while the players are read.
        while !told.load(Ordering::Relaxed) {
            publisher.turn(TURN).unwrap();
        }
        sent
    });
    let total = SMALL.steps as usize * 3 + 2 + SMALL.steps.div_ceil(DATA_EVERY) as usize;
    let (mut all, mut watching): (Vec<Message>, _) = (Vec::new(), Some(player));
    let mut watched = None;
    while all.len() < total {
        if all.len() == FIRST
            && let Some(mut player) = watching.take()
        {
            let mut got = watch(&mut player, began, SOON, |message| {
                message.is_some_and(is_key)
            });
            there.store(true, Ordering::Relaxed);
            watched = Some(std::thread::spawn(move || {
                got.extend(watch_all(&mut player, began, SMALL));
                got
            }));
        }
        let message = well.read_media().unwrap();
        let is_ours = message.kind != kind::DATA || message.body.starts_with(b"\x02\0\x06onStep");
        if is_ours {
            all.push(message);
        }
    }
    let took = began.elapsed();
    let got = watched.expect("it began").join().unwrap();
    over.store(true, Ordering::Relaxed);
    let sent = publishing.join().unwrap();
    let got: Vec<_> = got.into_iter().map(|(_, message)| message).collect();
    for kind in [kind::AUDIO, kind::VIDEO, kind::DATA] {
        assert_eq!(bodies(&all, kind), bodies(&sent, kind), "{what}");
        let (part, whole) = (bodies(&got, kind), bodies(&sent, kind));
        if kind == kind::DATA {
            let part: Vec<_> = part
                .into_iter()
                .filter(|body| whole.contains(body))
                .collect();
            assert_eq!(part, whole, "{what}");
        } else {
            assert!(is_part(&part, &whole), "{what}: kind {kind}");
        }
    }
    let share = bodies(&got, kind::VIDEO).len() * 100 / bodies(&sent, kind::VIDEO).len();
    println!(
        "{what}: all after {} ms, {share} % of the pictures in time; up {:?}, down {:?}",
        took.as_millis(),
        up.counted(),
        down.counted()
    );
}

#[test]
fn sound_is_whole_and_pictures_are_in_time_or_not_at_all() {
    let mut dev = Dev::start(1, 2);
    let (clean, far) = (dev.rtmp(0), rtmfp(&mut dev, 1));
    let narrow = Impairment {
        rate: Some(900_000),
        queue: 64 << 10,
        ..path(20)
    };
    let lossy = |loss| Impairment { loss, ..path(20) };
    let tests = [
        ("clear", path(20)),
        ("loss-of-2", lossy(0.02)),
        ("loss-of-10", lossy(0.10)),
        ("narrow", narrow),
    ];
    let began = Instant::now();
    let running = tests.into_iter().zip(1..).map(|((name, rule), seed)| {
        std::thread::spawn(move || {
            let weather = Weather::before(far, &rule, seed);
            let player = Datagrams::connect(weather.addr(), "live").unwrap();
            let mut player = play(player, name);
            let Publishing(sent) = publish_well(clean, name, LARGE, began);
            let got = watch_all(&mut player, began, LARGE);
            let (sent, _stays) = sent.join().unwrap();
            judge_in_time(name, &sent, &got);
        })
    });
    for test in running.collect::<Vec<_>>() {
        test.join().unwrap();
    }
}

/// What is looked at together: its name, how many there are, and which.
type Kind<'a> = (&'a str, u64, &'a dyn Fn(&Message) -> bool);

/// A message that is given up is not sent again, but what is under way arrives, after the
/// queue of the narrow path and with what it takes to be put in order.
const UNDER_WAY: Duration = Duration::from_millis(1500);

fn judge_in_time(name: &str, sent: &[Message], got: &[(Duration, Message)]) {
    let messages = || got.iter().map(|(_, message)| message);
    assert_eq!(
        bodies(messages(), kind::AUDIO),
        bodies(sent, kind::AUDIO),
        "{name}"
    );
    let (part, whole) = (bodies(messages(), kind::VIDEO), bodies(sent, kind::VIDEO));
    assert!(is_part(&part, &whole), "{name}");
    let late = |of: &dyn Fn(&Message) -> bool| -> Vec<Duration> {
        let stamped = got
            .iter()
            .filter(|(_, message)| of(message))
            .filter_map(|(at, message)| Some(at.saturating_sub(stamped(message)?)));
        let mut late: Vec<Duration> = stamped.collect();
        late.sort();
        late
    };
    let kinds: [Kind<'_>; 3] = [
        ("sound", 3, &|message| message.kind == kind::AUDIO),
        ("key frames", 5, &is_key),
        // They are worth sending for two seconds, and wait where they are for the key frame
        // that they lean on.
        ("other pictures", 5, &is_delta),
    ];
    for (what, seconds, of) in kinds {
        let late = late(of);
        let wanted = sent.iter().filter(|message| of(message));
        let wanted = wanted.filter_map(stamped).count();
        let at = |share: usize| {
            late.get(late.len() * share / 100)
                .map_or(0, Duration::as_millis)
        };
        let most = late.last().copied().unwrap_or_default();
        println!(
            "{name}: {what}: {} of {wanted}; ms late: {} (half), {} (95 %), {} (all)",
            late.len(),
            at(50),
            at(95),
            most.as_millis()
        );
        let life = Duration::from_secs(seconds);
        assert!(most <= life + UNDER_WAY, "{name}: {what}: {most:?} late");
        if name == "clear" {
            assert_eq!(late.len(), wanted, "{name}: {what}");
        }
    }
}

/// The longest time without media after a moment, as a player saw it.
fn silence_after(moment: Duration, got: &[(Duration, Message)]) -> Duration {
    let media = got.iter().filter(|(_, message)| message.is_media());
    let after: Vec<Duration> = media
        .map(|(at, _)| *at)
        .filter(|at| *at >= moment)
        .collect();
    let first = after.first().map(|first| *first - moment);
    let steps = after.windows(2).map(|pair| pair[1] - pair[0]);
    steps.chain(first).max().unwrap_or(Duration::MAX)
}

/// How long media may be away after the address of their player has changed.
const RESUME: Duration = Duration::from_secs(1);

/// Media of some seconds go on after each of some changes of address. Gives the longest
/// silences.
fn silences(player: &mut Datagrams, weather: &Weather, began: Instant) -> Vec<Duration> {
    let mut silences = Vec::new();
    for number in 0..6_u64 {
        // At another moment between two messages each time.
        let until = began.elapsed() + ms(700 + number * 7);
        watch(player, began, SOON, |message| {
            message.is_some_and(Message::is_media) && began.elapsed() >= until
        });
        let moment = began.elapsed();
        weather.rebind();
        let until = moment + RESUME + ms(500);
        let got = watch(player, began, SOON, |message| {
            message.is_some_and(Message::is_media) && began.elapsed() >= until
        });
        silences.push(silence_after(moment, &got));
    }
    silences
}

#[test]
fn media_go_on_within_a_second_where_their_player_is_now() {
    let mut dev = Dev::start(1, 2);
    let (clean, far) = (dev.rtmp(0), rtmfp(&mut dev, 1));
    let began = Instant::now();
    let running = [10, 50].map(|delay| {
        std::thread::spawn(move || {
            let name = format!("wanderer-{delay}");
            let weather = Weather::before(far, &path(delay), delay);
            let player = Datagrams::connect(weather.addr(), "live").unwrap();
            let mut player = play(player, &name);
            let long = Stream {
                steps: 600,
                ..SMALL
            };
            let _publishing = publish_well(clean, &name, long, began);
            let silences = silences(&mut player, &weather, began);
            println!("{delay} ms each way: silent for {silences:?}");
            // Who asks for something is the same client to the edge as before.
            player.create_stream().unwrap();
            let longest = silences.into_iter().max().unwrap();
            assert!(longest <= RESUME, "{delay} ms: silent for {longest:?}");
        })
    });
    for test in running {
        test.join().unwrap();
    }
}

#[test]
fn nobody_is_moved_by_a_third_address() {
    let mut dev = Dev::start(1, 2);
    let (clean, far) = (dev.rtmp(0), rtmfp(&mut dev, 1));
    let began = Instant::now();
    let weather = Weather::before(far, &path(10), 1);
    let mut player = play(Datagrams::connect(weather.addr(), "live").unwrap(), "fixed");
    let long = Stream {
        steps: 600,
        ..SMALL
    };
    let _publishing = publish_well(clean, "fixed", long, began);
    watch(&mut player, began, SOON, |message| {
        message.is_some_and(Message::is_media)
    });
    for does in [Stranger::Copies, Stranger::Captures] {
        let before = weather.counted();
        let moment = began.elapsed();
        weather.stranger(does);
        let until = moment + Duration::from_secs(3);
        let got = watch(&mut player, began, SOON, |message| {
            message.is_some_and(Message::is_media) && began.elapsed() >= until
        });
        weather.stranger(Stranger::Absent);
        let silence = silence_after(moment, &got);
        let after = weather.counted();
        let (sent, strange) = (
            after.strange_sent - before.strange_sent,
            after.strange_got - before.strange_got,
        );
        println!(
            "{does:?}: silent for {silence:?}; the stranger sent {sent} bytes and got {strange}, \
             {} at most at once",
            after.strange_longest
        );
        assert!(silence < RESUME, "{does:?}: silent for {silence:?}");
        assert!(sent > 0, "{does:?}");
        // A ping at a time, of which it understands nothing; no media.
        assert!(after.strange_longest <= 100, "{}", after.strange_longest);
        assert!(strange <= sent, "{does:?}: {strange} for {sent} bytes");
    }
    player.create_stream().unwrap();
}

/// What the kernel has.
const CONGESTION_CONTROLS: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Bytes that are sent for a comparison.
const BULK: usize = 2 << 20;

/// The same bytes from a publisher by RTMFP and from one by RTMP, over the same links with
/// a loss of 1 % and 100 ms there and back: how long until a player beside the edge has them.
#[test]
fn what_loss_and_delay_cost_is_compared_with_tcp() {
    let field = Field::start(1, 1, 5, false);
    let (edge, at) = (&field.edges[0].host, field.edges[0].addr);
    let lossy = Impairment {
        loss: 0.01,
        ..path(50)
    };
    field.lab.set_between(&field.here, edge, &lossy);
    let bulk = u32::try_from(BULK / 8192).unwrap();
    let message = |number: u32| {
        let mut body = amf::bytes(&[Amf::text("onBulk"), Amf::Number(f64::from(number))]);
        let rest = "x".repeat(8192 - body.len() - 3);
        body.extend(amf::bytes(&[Amf::text(&rest)]));
        body
    };
    let watch = |name: &str| {
        let name = name.to_owned();
        let player = edge.inside(|| Raw::connect(at, "live")).unwrap();
        let mut player = player.unwrap();
        let stream = player.create_stream().unwrap();
        assert_eq!(player.play(stream, &name).unwrap(), "NetStream.Play.Start");
        std::thread::spawn(move || {
            for number in 0..bulk {
                let next = loop {
                    let next = player.read_media().unwrap();
                    if next.body.starts_with(b"\x02\0\x06onBulk") {
                        break next;
                    }
                };
                assert_eq!(next.body, message(number), "{name}: message {number}");
            }
            Instant::now()
        })
    };
    let by_datagrams = watch("datagrams");
    let known = std::fs::read_to_string(CONGESTION_CONTROLS).unwrap();
    let rivals = known.split_whitespace().map(|name| {
        let (name, watching) = (name.to_owned(), watch(name));
        std::thread::spawn(move || {
            let mut raw = Raw::connect(at, "live").unwrap();
            rustix::net::sockopt::set_tcp_congestion(raw.socket(), &name).unwrap();
            let stream = raw.create_stream().unwrap();
            let code = raw.publish(stream, &name).unwrap();
            assert_eq!(code, "NetStream.Publish.Start");
            raw.set_chunk_size(60_000).unwrap();
            let began = Instant::now();
            for number in 0..bulk {
                raw.send(kind::DATA, stream, number, &message(number))
                    .unwrap();
            }
            (name, began, watching.join().unwrap())
        })
    });
    let rivals: Vec<_> = rivals.collect();
    let socket = UdpSocket::bind((field.here.addr(), 0)).unwrap();
    let identity = Datagrams::identity().unwrap();
    let habits = session::Config::default();
    let client = Datagrams::connect_from(socket, habits, identity, at, "live", &[]);
    let mut client = client.unwrap();
    let stream = client.create_stream().unwrap();
    let code = client.ask(stream, "publish", "datagrams").unwrap();
    assert_eq!(code, "NetStream.Publish.Start");
    let began = Instant::now();
    for number in 0..bulk {
        client
            .send(kind::DATA, stream, number, &message(number))
            .unwrap();
    }
    while !by_datagrams.is_finished() {
        client.turn(TURN).unwrap();
    }
    let rate = |began: Instant, done: Instant| BULK as f64 / (done - began).as_secs_f64() / 1000.0;
    let datagrams = rate(began, by_datagrams.join().unwrap());
    println!("loss of 1 %, 100 ms: RTMFP {datagrams:.0} kB/s");
    for rival in rivals {
        let (name, began, done) = rival.join().unwrap();
        println!(
            "the same by RTMP over TCP, {name}: {:.0} kB/s",
            rate(began, done)
        );
    }
}
