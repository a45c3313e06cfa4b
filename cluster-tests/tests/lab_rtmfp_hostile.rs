//! What no honest end sends to an edge by datagrams. Those who watch, by both protocols, do
//! not miss anything, newcomers are served, memory stays bounded, and nobody whose address
//! was forged is sent more than was sent in its name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rtmfp::chunk::{Ack, AckForm, Chunk, ForwardedHello, Fragment, UserData};
use rtmfp::crypto::identity::Discriminator;
use rtmfp::wire::Writer;
use selvage_cluster_tests::lab::datagrams::Datagrams;
use selvage_cluster_tests::lab::raw::{Message, kind};
use selvage_cluster_tests::lab::strangers::{Mangler, Stranger, Wish, hello, startup};
use selvage_cluster_tests::lab::{Arena, SOON, pace};

/// Somebody who watches the bystander's stream by datagrams all the while.
struct Watcher {
    stop: Arc<AtomicBool>,
    /// Messages that came, and the longest time without one.
    thread: JoinHandle<(usize, Duration)>,
}

impl Watcher {
    fn start(edge: SocketAddr) -> Self {
        let mut player = Datagrams::connect(edge, "live").unwrap();
        let stream = player.create_stream().unwrap();
        let code = player.ask(stream, "play", "bystander").unwrap();
        assert_eq!(code, "NetStream.Play.Start");
        player.read_media().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut count, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                player.read_media().unwrap();
                longest = longest.max(last.elapsed());
                last = Instant::now();
                count += 1;
            }
            (count, longest)
        });
        Self { stop, thread }
    }

    /// It got media all the while.
    fn was_undisturbed(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (count, longest) = self.thread.join().unwrap();
        println!("{count} messages, {longest:?} at most between two");
        assert!(count > 0 && longest < Duration::from_secs(3), "{longest:?}");
    }
}

/// One who was not there before connects and gets a stream.
fn a_newcomer_is_served(edge: SocketAddr) {
    let begun = Instant::now();
    let mut client = Datagrams::connect(edge, "live").unwrap();
    client.create_stream().unwrap();
    println!("a newcomer was served after {:?}", begun.elapsed());
    assert!(begun.elapsed() < SOON);
}

#[test]
fn hellos_from_many_addresses_cost_neither_memory_nor_anybody_else_the_service() {
    let mut arena = Arena::open();
    let edge = arena.rtmfp();
    let watcher = Watcher::start(edge);
    let strangers: Vec<_> = (2..=120)
        .map(|host| Stranger::new(host, edge).unwrap())
        .collect();
    let hello = hello();
    let mut sent = 0;
    let newcomer = std::thread::spawn(move || a_newcomer_is_served(edge));
    let (mut answers, mut bytes) = (0, 0);
    // Some ten thousand in a second.
    for _ in 0..400 {
        for stranger in &strangers {
            stranger.send(&hello).unwrap();
            sent += 1;
            let (count, len) = stranger.heard();
            answers += count;
            bytes += len;
        }
        pace(Duration::from_millis(10));
    }
    newcomer.join().unwrap();
    a_newcomer_is_served(edge);
    for (count, len) in strangers.iter().map(Stranger::heard) {
        answers += count;
        bytes += len;
    }
    println!(
        "{sent} hellos of {} bytes, {answers} answers of {} bytes heard",
        hello.len(),
        bytes / answers.max(1)
    );
    assert!(answers <= sent);
    // A cookie, a certificate, and what is around them.
    assert!(bytes <= answers * 200, "{bytes}");
    watcher.was_undisturbed();
    arena.is_unharmed();
}

#[test]
fn what_is_forged_and_what_is_noise_is_not_answered() {
    let mut arena = Arena::open();
    let edge = arena.rtmfp();
    let watcher = Watcher::start(edge);
    let stranger = Stranger::new(2, edge).unwrap();
    let wish = Wish::new(&stranger.certificate().unwrap());
    let forged = wish.keying(&[9; 64], 77);
    let fingerprint = Discriminator::canonical(&[3; 32]);
    let for_nobody = startup(&Chunk::InitiatorHello(rtmfp::chunk::InitiatorHello {
        discriminator: &fingerprint,
        tag: &[1; 16],
    }));
    for round in 0..2000_usize {
        stranger.send(&forged).unwrap();
        stranger.send(&for_nobody).unwrap();
        stranger.send(&forged[..round % forged.len()]).unwrap();
        let mut flipped = hello();
        let bit = round % (flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        stranger.send(&flipped).unwrap();
        stranger
            .send(&vec![round.to_le_bytes()[0]; round % 1400])
            .unwrap();
        if round % 20 == 0 {
            pace(Duration::from_millis(2));
        }
    }
    a_newcomer_is_served(edge);
    assert_eq!(stranger.heard(), (0, 0));
    watcher.was_undisturbed();
    arena.is_unharmed();
}

#[test]
fn many_half_open_sessions_keep_nobody_out() {
    let mut arena = Arena::open();
    let edge = arena.rtmfp();
    let watcher = Watcher::start(edge);
    let first = Stranger::new(2, edge).unwrap();
    let wish = Wish::new(&first.certificate().unwrap());
    let mut agreed = 0;
    for number in 0..600_u32 {
        let host = u8::try_from(2 + number % 7).unwrap();
        let stranger = Stranger::new(host, edge).unwrap();
        agreed += usize::from(stranger.half_open(&wish, number + 1).unwrap());
    }
    println!("{agreed} sessions half open");
    assert!(agreed >= 500);
    a_newcomer_is_served(edge);
    watcher.was_undisturbed();
    arena.is_unharmed();
}

#[test]
fn a_session_whose_packets_come_cut_changed_and_again_as_well_carries_all() {
    let mut arena = Arena::open();
    let edge = arena.rtmfp();
    let watcher = Watcher::start(edge);
    let mangler = Mangler::new(edge, |datagram| {
        let at = datagram
            .iter()
            .map(|byte| usize::from(*byte))
            .sum::<usize>();
        let mut changed = datagram.to_vec();
        changed[at % datagram.len()] ^= 1 << (at % 8);
        let cut = datagram[..at % datagram.len()].to_vec();
        vec![changed, cut, datagram.to_vec()]
    });
    let mangler = mangler.unwrap();
    let mut client = Datagrams::connect(mangler.addr, "live").unwrap();
    let stream = client.create_stream().unwrap();
    let code = client.ask(stream, "play", "bystander").unwrap();
    assert_eq!(code, "NetStream.Play.Start");
    let mut last: Option<Message> = None;
    for _ in 0..200 {
        let message = client.read_media().unwrap();
        if message.kind != kind::VIDEO {
            continue;
        }
        if let Some(last) = last {
            // The configuration has the time of the picture after it.
            assert!(last.time <= message.time, "out of order");
            assert_ne!(last.body, message.body, "twice");
        }
        last = Some(message);
    }
    drop(mangler);
    watcher.was_undisturbed();
    arena.is_unharmed();
}

#[test]
fn a_client_that_breaks_every_rule_of_flows_is_a_nuisance_to_itself_only() {
    let mut arena = Arena::open();
    let edge = arena.rtmfp();
    let watcher = Watcher::start(edge);
    let victim = Stranger::new(9, edge).unwrap();
    let mut client = Datagrams::connect(edge, "live").unwrap();
    client.create_stream().unwrap();
    let metadata = [5, 0, b'T', b'C', 4, 1];
    let options = rtmfp::option::Options::parse_all(&metadata);
    let data = vec![0; 900];
    let fragment = |flow, sequence| {
        Chunk::UserData(UserData {
            flow,
            sequence,
            forward: 0,
            fragment: Fragment::Middle,
            abandoned: false,
            last: false,
            options,
            data: &data,
        })
    };
    let reply = rtmfp::address::Address {
        at: victim.address(),
        origin: rtmfp::address::Origin::Observed,
    };
    let forwarded = Discriminator::server(b"rtmfp://edge/live");
    let (begun, mut answers) = (Instant::now(), 0);
    for number in 1..3000_u64 {
        answers += victim.heard().0;
        let beyond = [0xff; 40];
        for chunk in [
            // Flows without end, fragments with every other missing, numbers without bound.
            fragment(1000 + number, 1),
            fragment(900, number * 2),
            fragment(901, u64::MAX - number * 2),
            // What was never sent, and windows of any size.
            Chunk::Ack(Ack {
                flow: number % 9,
                buffer_blocks: u64::MAX >> (number % 64),
                cumulative: u64::MAX - number,
                form: AckForm::Bitmap,
                beyond: &beyond,
            }),
            Chunk::BufferProbe { flow: number },
            Chunk::FlowException {
                flow: 4000 + number,
                code: number,
            },
            // Somebody else is to be answered.
            Chunk::ForwardedHello(ForwardedHello {
                discriminator: &forwarded,
                reply,
                tag: &[1; 16],
            }),
        ] {
            let mut buffer = [0; 1100];
            let mut out = Writer::new(&mut buffer);
            chunk.write(&mut out).unwrap();
            // It may be over by now, which is a way to deal with it.
            client.send_chunk(out.written());
        }
    }
    a_newcomer_is_served(edge);
    answers += victim.heard().0;
    // A hundred in a second, and as many at once to begin with.
    let most = 100 * (2 + usize::try_from(begun.elapsed().as_secs()).unwrap());
    println!("{answers} of {most} answers to one who never asked");
    assert!(answers <= most);
    watcher.was_undisturbed();
    arena.is_unharmed();
}
