//! Writes what the fuzz targets begin with: captured packets, and what two ends of this
//! crate say to each other.
//!
//! `cargo run -p selvage-rtmfp --example seeds -- proto/fuzz/corpus`
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a tool that may end at the first thing that is wrong"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rtmfp::address::{Address, Origin};
use rtmfp::chunk::{Chunk, InitiatorHello, PacketFragment, Redirect, Redirects, ResponderHello};
use rtmfp::crypto::identity::{Discriminator, Identity};
use rtmfp::crypto::{FlashSuite, Group, KeyPair, Suite};
use rtmfp::endpoint::{Config, Endpoint, Output};
use rtmfp::flow::{Options, Order, Priority};
use rtmfp::fuzzing::{far, startup_endpoint};
use rtmfp::packet::{Header, Mode, Packet, PacketWriter, open_multiplex};
use rtmfp::session::{self, Event, Session};
use rtmfp::startup::Cookies;
use selvage_rtmfp as rtmfp;

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap());
    packets(&folder.join("rtmfp_packet"));
    startups(&folder.join("rtmfp_startup"));
    sessions(&folder.join("rtmfp_session"));
    flows(&folder.join("rtmfp_flow"));
}

fn save(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn hex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

fn chance(seed: u64) -> impl FnMut(&mut [u8]) + Send + Clone {
    let mut state = seed;
    move |out: &mut [u8]| {
        for byte in out {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0];
        }
    }
}

fn captured() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let text = include_str!("../tests/vectors/packets.txt");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(kinds, wire)| (kinds, hex(wire)))
}

fn packets(folder: &Path) {
    for (number, (_, packet)) in captured().enumerate() {
        save(folder, &format!("captured-{number}"), &packet);
    }
}

/// One packet as the startup target takes it.
fn record(into: &mut Vec<u8>, opening: bool, from: u8, quarters: u8, plain: &[u8]) {
    into.push(quarters << 3 | from << 1 | u8::from(opening));
    into.extend(u16::try_from(plain.len()).unwrap().to_be_bytes());
    into.extend(plain);
}

fn plain(chunk: &Chunk<'_>) -> Vec<u8> {
    let mut buffer = [0; 2000];
    let mut packet = PacketWriter::new(&mut buffer, &Header::startup(7)).unwrap();
    packet.chunk(chunk).unwrap();
    let len = packet.finish();
    buffer[..len].to_vec()
}

fn unsealed(datagram: &[u8]) -> (u32, Vec<u8>) {
    let mut datagram = datagram.to_vec();
    let (id, sealed) = open_multiplex(&mut datagram).unwrap();
    (id, FlashSuite::startup().open(sealed).unwrap().to_vec())
}

fn transmits(endpoint: &mut Endpoint, now: Instant) -> Vec<Vec<u8>> {
    let mut buffer = [0; 4096];
    let mut all = Vec::new();
    loop {
        match endpoint.poll_output(now, &mut buffer) {
            Output::Transmit { len, .. } => all.push(buffer[..len].to_vec()),
            Output::Event(_) => {}
            Output::Timeout(_) => return all,
        }
    }
}

fn client(identity: Identity, seed: u64, now: Instant) -> Endpoint {
    let mut config = Config::new(identity);
    config.begin.0 = Group::Modp1024;
    Endpoint::new(
        config,
        Cookies::new([2; 32], now),
        Box::new(chance(seed)),
        now,
    )
}

fn startups(folder: &Path) {
    let now = Instant::now();
    let pair = KeyPair::generate(Group::Modp1024, &mut chance(3)).unwrap();
    let ephemeral = Identity::ephemeral(&[Group::Modp1024], false, None, &mut chance(4));
    let fixed = Identity::with_static_keys(vec![pair], false, None);
    let identities = [
        ("ephemeral", ephemeral.unwrap()),
        ("static", fixed.unwrap()),
    ];
    // The one of the target answers.
    for (name, identity) in identities.clone() {
        let (mut target, _) = startup_endpoint(now).unwrap();
        let mut client = client(identity, 5, now);
        client.open(&Discriminator::server(b"rtmfp://h/a"), &[far(1)], now);
        transmits(&mut target, now);
        let mut all = Vec::new();
        for round in 0..2 {
            for datagram in transmits(&mut client, now) {
                let (_, plain) = unsealed(&datagram);
                for from in [1, 1, 2] {
                    record(&mut all, false, from, 0, &plain);
                }
                target.handle_datagram(far(1), &mut datagram.clone(), now);
            }
            for mut datagram in transmits(&mut target, now) {
                client.handle_datagram(far(0), &mut datagram, now);
            }
            save(folder, &format!("answers-{name}-{round}"), &all);
        }
    }
    // The one of the target begins.
    for (name, identity) in identities {
        let (mut target, opening) = startup_endpoint(now).unwrap();
        let mut server = client(identity, 6, now);
        let mut all = Vec::new();
        for round in 0..2 {
            for mut datagram in transmits(&mut target, now) {
                server.handle_datagram(far(0), &mut datagram, now);
            }
            for mut datagram in transmits(&mut server, now) {
                let (id, plain) = unsealed(&datagram);
                record(&mut all, id == opening.0, 0, round, &plain);
                target.handle_datagram(far(0), &mut datagram, now);
            }
            save(folder, &format!("begins-{name}-{round}"), &all);
        }
    }
    // What else its hello may be answered with.
    let (mut target, _) = startup_endpoint(now).unwrap();
    let (_, hello) = unsealed(&transmits(&mut target, now)[0]);
    let hello = Packet::parse(&hello).unwrap();
    let Some(Chunk::InitiatorHello(hello)) = hello.chunks().next() else {
        return;
    };
    let tag = hello.tag.to_vec();
    let list: Vec<_> = (0..4)
        .map(|index| Address {
            at: far(index),
            origin: Origin::Observed,
        })
        .collect();
    for (name, to) in [("list", &list[..]), ("implied", &[])] {
        let to = Redirects::List(to);
        let mut all = Vec::new();
        let redirect = plain(&Chunk::Redirect(Redirect { tag: &tag, to }));
        for wait in [0, 8, 8, 31] {
            record(&mut all, false, 3, wait, &redirect);
        }
        save(folder, &format!("redirect-{name}"), &all);
    }
    let answer = ResponderHello {
        tag: &tag,
        cookie: &[9; 64],
        certificate: &[2, 0x15, 2],
    };
    let mut all = Vec::new();
    record(
        &mut all,
        false,
        0,
        0,
        &plain(&Chunk::ResponderHello(answer)),
    );
    let change = rtmfp::chunk::ResponderHelloCookieChange {
        old: &[9; 64],
        new: &[8; 64],
    };
    record(&mut all, true, 0, 1, &plain(&Chunk::CookieChange(change)));
    save(folder, "cookie-change", &all);
    let wanted = Discriminator::canonical(&[7; 32]);
    let asked = plain(&Chunk::InitiatorHello(InitiatorHello {
        discriminator: &wanted,
        tag: &[1; 16],
    }));
    let mut all = Vec::new();
    record(&mut all, false, 1, 0, &asked);
    save(folder, "introduction", &all);
    let mut all = Vec::new();
    for (index, bytes) in asked
        .chunks(20)
        .enumerate()
        .collect::<Vec<_>>()
        .iter()
        .rev()
    {
        let part = PacketFragment {
            more: *index < asked.len().div_ceil(20) - 1,
            packet: 1,
            index: *index as u64,
            bytes,
        };
        record(&mut all, false, 1, 0, &plain(&Chunk::PacketFragment(part)));
    }
    save(folder, "fragments", &all);
    for (number, (_, packet)) in captured()
        .filter(|(kinds, _)| kinds.contains("Hello") || kinds.contains("Keying"))
        .enumerate()
    {
        let mut all = Vec::new();
        record(&mut all, number % 2 == 1, 1, 0, &packet);
        save(folder, &format!("captured-{number}"), &all);
    }
}

/// Sessions whose initiator's packets are what the target's session gets.
fn sessions(folder: &Path) {
    for seed in 0..24_u64 {
        save(folder, &format!("pair-{seed}"), &one_session(seed));
    }
    for (number, (_, packet)) in captured()
        .filter(|(_, packet)| packet[0] & 3 == 1 && packet.len() < 256)
        .enumerate()
        .step_by(4)
    {
        let mut bytes = vec![u8::try_from(packet.len()).unwrap(), 1];
        bytes.extend(packet);
        save(folder, &format!("captured-{number}"), &bytes);
    }
}

fn one_session(seed: u64) -> Vec<u8> {
    let start = Instant::now();
    let mut now = start;
    let here = SocketAddr::from(([192, 0, 2, 1], 1000));
    let there = SocketAddr::from(([198, 51, 100, 1], 1935));
    let config = || session::Config {
        packet_max: 250,
        receive_buffer: 3000,
        ..session::Config::default()
    };
    let mut near = Session::new(config(), Mode::Initiator, there, [1; 32], start);
    let mut far = Session::new(config(), Mode::Responder, here, [1; 32], start);
    let mut bytes = Vec::new();
    let mut dice = chance(seed);
    let mut die = move |sides: u8| {
        let mut byte = [0];
        dice(&mut byte);
        byte[0] % sides
    };
    let answered = far.open_flow(b"fuzz", Options::default()).unwrap();
    far.write(answered, vec![7; 900], Priority::Key, None, now)
        .unwrap();
    let mut flows = Vec::new();
    for _ in 0..60 {
        match die(8) {
            0 if flows.len() < 4 => flows.extend(near.open_flow(b"TC\x04\0", Options::default())),
            1..4 => {
                let len = usize::from(die(200)) * 3;
                let late = (die(3) == 0).then(|| now + Duration::from_millis(100));
                if let Some(flow) = flows.last() {
                    let _ = near.write(
                        *flow,
                        vec![seed.to_be_bytes()[7]; len],
                        Priority::Data,
                        late,
                        now,
                    );
                }
            }
            4 if die(4) == 0 => {
                if let Some(flow) = flows.pop() {
                    near.finish(flow, now);
                }
            }
            5 if die(6) == 0 => near.close(now),
            _ => {}
        }
        let wait = die(12);
        now += Duration::from_millis(u64::from(wait) * 16);
        let mut buffer = [0; 1200];
        for _ in 0..4 {
            for end in [&mut near, &mut far] {
                if end.next_deadline().is_some_and(|due| due.at <= now) {
                    end.handle_timeout(now);
                }
            }
            let mut first = true;
            while let Some(packet) = near.poll_transmit(&mut buffer, now) {
                if die(7) == 0 {
                    continue;
                }
                bytes.push(u8::try_from(packet.len).unwrap());
                bytes.push(if first { wait } else { 0 });
                first = false;
                bytes.extend(&buffer[..packet.len]);
                far.handle_packet(here, &buffer[..packet.len], now);
            }
            while let Some(packet) = far.poll_transmit(&mut buffer, now) {
                near.handle_packet(there, &buffer[..packet.len], now);
            }
            while near.poll_event().is_some() {}
            while let Some(event) = far.poll_event() {
                if let Event::FlowOpened { flow, .. } = event {
                    match die(5) {
                        0 => far.set_order(flow, Order::Arrival),
                        1 => far.suspend(flow, true),
                        2 => far.reject(flow, 3),
                        _ => {}
                    }
                }
            }
        }
    }
    bytes.truncate(6000);
    bytes
}

/// Operations of which some open, write, lose and repeat more than chance would.
fn flows(folder: &Path) {
    for seed in 0..24 {
        let mut dice = chance(seed + 100);
        let mut bytes = vec![0, 1, 0, 2];
        for _ in 0..20 + seed * 6 {
            let mut pair = [0; 2];
            dice(&mut pair);
            let kind = match (seed % 4, pair[0] % 16) {
                (_, 0..5) => 1,
                (_, 5..7) => 2,
                (_, 7..10) => 9,
                (0, _) => 5,
                (1, _) => 6,
                (2, _) => 7,
                (_, 10) => 3,
                (_, 11) => 8,
                _ => 4,
            };
            bytes.extend([kind, pair[1]]);
        }
        save(folder, &format!("operations-{seed}"), &bytes);
    }
}
