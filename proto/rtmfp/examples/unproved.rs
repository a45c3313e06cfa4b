//! Measures what datagrams cost of those who have proved nothing, in time and in memory.
//!
//! `cargo run --release -p selvage-rtmfp --example unproved`
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement"
)]

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rtmfp::chunk::{Chunk, InitiatorHello, InitiatorKeying, PacketFragment};
use rtmfp::crypto::identity::{Discriminator, Identity};
use rtmfp::crypto::{FlashSuite, Group};
use rtmfp::endpoint::{Config, Endpoint, Output};
use rtmfp::packet::seal_multiplex;
use rtmfp::startup::{Cookies, write_datagram};
use selvage_rtmfp as rtmfp;

/// Datagrams of each kind.
const COUNT: u32 = 1_000_000;

fn main() {
    let mut state = 1_u64;
    let mut chance = move |out: &mut [u8]| {
        for byte in out {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
    };
    let now = Instant::now();
    let groups = &[Group::Modp2048, Group::Modp1024];
    let identity = Identity::ephemeral(groups, true, None, &mut chance).unwrap();
    let certificate = identity.as_bytes().to_vec();
    let mut config = Config::new(identity);
    config.hellos_per_second = u32::MAX;
    let mut unlimited = Endpoint::new(config, Cookies::new([1; 32], now), Box::new(chance), now);
    let identity = Identity::ephemeral(groups, true, None, &mut chance).unwrap();
    let mut limited = Endpoint::new(
        Config::new(identity),
        Cookies::new([1; 32], now),
        Box::new(chance),
        now,
    );

    let url = Discriminator::server(b"rtmfp://media.example.net/live");
    let sealed = |chunk: &Chunk<'_>| {
        let mut buffer = [0; 4096];
        let len = write_datagram(&mut FlashSuite::startup(), &mut buffer, 0, 1, chunk).unwrap();
        buffer[..len].to_vec()
    };
    let hello = |wanted: &[u8]| {
        sealed(&Chunk::InitiatorHello(InitiatorHello {
            discriminator: wanted,
            tag: &[7; 16],
        }))
    };
    let mut forged = [0; 64];
    chance(&mut forged);
    let keying = sealed(&Chunk::InitiatorKeying(InitiatorKeying {
        session: 9,
        cookie: &forged,
        certificate: &certificate,
        component: &[1; 270],
        signature: b"X",
    }));
    let old = Cookies::new([1; 32], now).make(far(0), now);
    let other = sealed(&Chunk::InitiatorKeying(InitiatorKeying {
        session: 9,
        cookie: &old,
        certificate: &certificate,
        component: &[1; 270],
        signature: b"X",
    }));
    let fragment = sealed(&Chunk::PacketFragment(PacketFragment {
        more: true,
        packet: 1,
        index: 3,
        bytes: &[1; 600],
    }));
    // As many blocks as there can be, so that all of it is opened before it is found wrong.
    let mut noise = vec![0; 4 + 1200];
    chance(&mut noise);
    seal_multiplex(&mut noise, 0);
    let mut nobody = vec![0; 1200];
    chance(&mut nobody);
    seal_multiplex(&mut nobody, 77);

    println!("kind, bytes in, bytes out, ns a datagram, KiB grown");
    let before = resident();
    let told = hello(&Discriminator::canonical(&[3; 32]));
    let nobodys = hello(b"\x02\0h");
    for (name, datagram, is_limited) in [
        ("hello, answered", &hello(&url), false),
        ("hello, beyond the limit", &hello(&url), true),
        ("hello for another, told", &told, true),
        ("hello for nobody", &nobodys, true),
        ("keying, forged cookie", &keying, true),
        ("keying, cookie of another", &other, false),
        ("fragment", &fragment, true),
        ("noise to the startup", &noise, true),
        ("noise to no session", &nobody, true),
    ] {
        let endpoint = if is_limited {
            &mut limited
        } else {
            &mut unlimited
        };
        flood(name, datagram, endpoint, now, before);
    }
}

/// Addresses without end.
fn far(number: u32) -> SocketAddr {
    let [a, b, c, d] = number.to_be_bytes();
    SocketAddr::from(([10, b, c, d], 1024 + u16::from(a)))
}

fn flood(name: &str, datagram: &[u8], endpoint: &mut Endpoint, now: Instant, before: u64) {
    let mut buffer = [0; 4096];
    let mut room = datagram.to_vec();
    let (mut sent, mut answers) = (0, 0);
    let begin = on_processor();
    for number in 1..=COUNT {
        room.copy_from_slice(datagram);
        // As many come in a system call as a socket of an edge takes at once.
        let now = now + Duration::from_micros(u64::from(number) * 5);
        endpoint.handle_datagram(far(number), &mut room, now);
        if number % 8 == 0 {
            loop {
                match endpoint.poll_output(now, &mut buffer) {
                    Output::Transmit { len, .. } => {
                        sent += len;
                        answers += 1;
                    }
                    Output::Event(_) => {}
                    Output::Timeout(_) => break,
                }
            }
        }
    }
    let each = (on_processor() - begin) / COUNT;
    let answer = sent.checked_div(answers).unwrap_or_default();
    let grown = resident().saturating_sub(before);
    println!(
        "{name:26} {:5} {answer:5} {:6} ns {grown:6}",
        datagram.len(),
        each.as_nanos()
    );
}

/// How long this process was on a processor, where the system tells: others may keep the
/// machine busy meanwhile.
fn on_processor() -> Duration {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let first = told
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok());
    first.map_or_else(|| BEGIN.elapsed(), Duration::from_nanos)
}

/// Resident memory in KiB, where the system tells.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
