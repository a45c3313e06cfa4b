//! Real sockets on the hosts of real labs. They need what labs need (see the manual of
//! the crate), and fail when it is not there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::{Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket,
};
use std::time::{Duration, Instant};

use selvage_netlab::{Host, Impairment, Nat, Netlab};

const MS: Duration = Duration::from_millis(1);

/// Patience for what happens at once.
const SOON: Duration = Duration::from_secs(10);

fn udp(host: &Host) -> UdpSocket {
    udp_at(host, host.addr().into())
}

fn udp_at(host: &Host, addr: IpAddr) -> UdpSocket {
    let socket = host.inside(|| UdpSocket::bind((addr, 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < SOON, "waited in vain until {what}");
        std::thread::sleep(MS);
    }
}

/// Whether a datagram gets from one host to another: it arrives, or is seen to be cut off.
fn reaches(lab: &Netlab, from: &Host, to: &Host) -> bool {
    let (sender, receiver) = (udp(from), udp(to));
    receiver.set_read_timeout(Some(MS)).unwrap();
    let cut = lab.link(from, to).stats().cut;
    sender
        .send_to(b"?", receiver.local_addr().unwrap())
        .unwrap();
    let mut arrived = false;
    until("a datagram arrives or is cut off", || {
        arrived = receiver.recv(&mut [0; 8]).is_ok();
        arrived || lab.link(from, to).stats().cut > cut
    });
    arrived
}

#[test]
fn a_round_trip_takes_twice_the_delay() {
    let lab = Netlab::new(1).unwrap();
    let [a, b] = lab.hosts_named(["a", "b"]).unwrap();
    lab.set_between(&a, &b, &Impairment::delay(50 * MS));
    let (asks, answers) = (udp(&a), udp(&b));
    asks.connect(answers.local_addr().unwrap()).unwrap();
    let mut took: Vec<Duration> = (0..9)
        .map(|_| {
            let started = Instant::now();
            asks.send(b"ping").unwrap();
            let (len, from) = answers.recv_from(&mut [0; 8]).unwrap();
            answers.send_to(&b"pong"[..len], from).unwrap();
            asks.recv(&mut [0; 8]).unwrap();
            started.elapsed()
        })
        .collect();
    took.sort();
    assert!(took[0] >= 100 * MS, "{took:?}");
    // A loaded machine is late now and then, not always.
    assert!(took[0] < 120 * MS, "{took:?}");
}

#[test]
fn tcp_from_outside_passes_through_the_switch() {
    let lab = Netlab::new(2).unwrap();
    let server = lab.host("server").unwrap();
    let here = lab.here().unwrap();
    let rule = Impairment {
        delay: 2 * MS,
        jitter: MS,
        loss: 0.01,
        ..Impairment::default()
    };
    lab.set_everywhere(&rule);
    let addr = (server.addr(), 0);
    let listener = server.inside(|| TcpListener::bind(addr)).unwrap().unwrap();
    let to = listener.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
        from
    });
    let sent: Vec<u8> = (0..500_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(&sent).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got == sent, "{} bytes came back", got.len());
    assert_eq!(echo.join().unwrap().ip(), IpAddr::from(here.addr()));
    let stats = lab.link(&here, &server).stats();
    assert!(stats.lost > 0 && stats.delivered > 0, "{stats:?}");
}

#[test]
fn a_program_runs_on_its_host_and_ends_with_the_lab() {
    let lab = Netlab::new(3).unwrap();
    let [a, b] = lab.hosts_named(["a", "b"]).unwrap();
    let script = "ip -4 -o addr show dev eth0; echo $WORD; pwd";
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", script])
        .env("WORD", "kept")
        .current_dir("/");
    let said = a.place(&command).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains(&format!("{}/24", a.addr())), "{said}");
    assert!(said.contains("\nkept\n/\n"), "{said}");

    let mut stays = b.command("sleep").arg("1000").spawn().unwrap();
    let namespace = b.namespace().unwrap().as_ref().to_owned();
    assert!(namespace.exists());
    // It is on its host once the launcher has become it.
    until("the program runs", || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", stays.id()));
        name.is_ok_and(|name| name.trim() == "sleep")
    });
    drop(lab);
    assert!(!stays.wait().unwrap().success());
    assert!(!namespace.exists());
}

#[test]
fn so_many_frames_are_lost_as_the_link_says() {
    let lab = Netlab::new(4).unwrap();
    let [a, b] = lab.hosts_named(["a", "b"]).unwrap();
    let (sender, receiver) = (udp(&a), udp(&b));
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let before = lab.link(&a, &b).stats();
    lab.link(&a, &b).set(Impairment::loss(0.2));
    for sent in 1..=1_000 {
        sender.send(&[0; 100]).unwrap();
        // Not faster than the switch can take them.
        until("the frame is judged", || {
            lab.link(&a, &b).stats().frames >= before.frames + sent
        });
    }
    let lost = lab.link(&a, &b).stats().lost;
    assert!((150..250).contains(&lost), "{lost} of 1000 lost");
}

#[test]
fn a_link_can_be_cut_one_way() {
    let lab = Netlab::new(5).unwrap();
    let [a, b] = lab.hosts_named(["a", "b"]).unwrap();
    assert!(reaches(&lab, &a, &b) && reaches(&lab, &b, &a));
    lab.cut(&a, &b);
    assert!(!reaches(&lab, &a, &b) && reaches(&lab, &b, &a));
    lab.link(&a, &b).mend();
    assert!(reaches(&lab, &a, &b));
}

#[test]
fn partitions_isolation_and_bridges_part_whom_they_should() {
    let lab = Netlab::new(6).unwrap();
    let [a, b, c, d] = lab.hosts_named(["a", "b", "c", "d"]).unwrap();
    let both = |one, other| {
        let there = reaches(&lab, one, other);
        assert_eq!(there, reaches(&lab, other, one));
        there
    };
    lab.partition(&[&[&a], &[&b, &c]]);
    assert!(!both(&a, &b) && !both(&a, &c) && both(&b, &c));
    assert!(both(&a, &d) && both(&b, &d), "{} was not named", d.name());
    lab.partition(&[&[&a, &b], &[&b, &c]]);
    assert!(both(&a, &b) && both(&b, &c) && !both(&a, &c));
    lab.heal();
    assert!(both(&a, &c));
    lab.isolate(&a);
    assert!(!both(&a, &b) && !both(&a, &c) && !both(&a, &d) && both(&c, &d));
    lab.rejoin(&a);
    assert!(both(&a, &b));
}

#[test]
fn a_connection_outlives_a_partition() {
    let lab = Netlab::new(7).unwrap();
    let [a, b] = lab.hosts_named(["a", "b"]).unwrap();
    let addr = (b.addr(), 0);
    let listener = b.inside(|| TcpListener::bind(addr)).unwrap().unwrap();
    let to = listener.local_addr().unwrap();
    let mut one = a.inside(|| TcpStream::connect(to)).unwrap().unwrap();
    let (mut other, _) = listener.accept().unwrap();
    other.set_read_timeout(Some(SOON)).unwrap();
    lab.cut_between(&a, &b);
    one.write_all(b"later").unwrap();
    until("the bytes are cut off", || lab.link(&a, &b).stats().cut > 0);
    lab.mend_between(&a, &b);
    let mut got = [0; 5];
    other.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"later");
}

#[test]
fn a_rate_is_kept() {
    const FRAMES: u32 = 150;
    let lab = Netlab::new(8).unwrap();
    let [a, b] = lab.hosts_named(["a", "b"]).unwrap();
    // The kernel keeps few datagrams while it asks for an address.
    assert!(reaches(&lab, &a, &b));
    let (sender, receiver) = (udp(&a), udp(&b));
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    // 1208 bytes and 42 of headers are 10 kbit: one each ms.
    lab.link(&a, &b).set(Impairment::rate(10_000_000));
    for _ in 0..FRAMES {
        sender.send(&[0; 1208]).unwrap();
    }
    receiver.recv(&mut [0; 2048]).unwrap();
    let first = Instant::now();
    for _ in 1..FRAMES {
        receiver.recv(&mut [0; 2048]).unwrap();
    }
    let took = first.elapsed();
    let expected = (FRAMES - 1) * MS;
    assert!(took > expected * 9 / 10 && took < expected * 2, "{took:?}");
    // A router with no room drops.
    lab.link(&a, &b).set(Impairment {
        queue: 5_000,
        ..Impairment::rate(10_000_000)
    });
    for _ in 0..FRAMES {
        sender.send(&[0; 1208]).unwrap();
    }
    until("the queue is full", || {
        lab.link(&a, &b).stats().overflowed > u64::from(FRAMES) / 2
    });
}

#[test]
fn groups_and_both_kinds_of_addresses_work() {
    let lab = Netlab::new(9).unwrap();
    let [a, b, c] = lab.hosts_named(["a", "b", "c"]).unwrap();
    let sender = udp(&a);
    sender.set_broadcast(true).unwrap();
    let mut got = [0; 8];
    for everybody in [Ipv4Addr::BROADCAST, "224.0.0.1".parse().unwrap()] {
        for receiver in [&b, &c].map(|host| udp_at(host, Ipv4Addr::UNSPECIFIED.into())) {
            let port = receiver.local_addr().unwrap().port();
            sender.send_to(b"all", (everybody, port)).unwrap();
            assert_eq!(receiver.recv(&mut got).unwrap(), 3);
        }
    }
    let (Some(a6), Some(b6)) = (a.addr6(), b.addr6()) else {
        panic!("this kernel has no IPv6");
    };
    let (sender, receiver) = (udp_at(&a, a6.into()), udp_at(&b, b6.into()));
    let to = receiver.local_addr().unwrap();
    sender.send_to(b"six", to).unwrap();
    let (_, from) = receiver.recv_from(&mut got).unwrap();
    assert_eq!(from.ip(), IpAddr::from(a6));

    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let receiver = udp_at(&c, Ipv6Addr::UNSPECIFIED.into());
    let port = receiver.local_addr().unwrap().port();
    let scope = interface_index(&a);
    let to = SocketAddr::V6(SocketAddrV6::new(all, port, 0, scope));
    sender.send_to(b"all six", to).unwrap();
    assert_eq!(receiver.recv(&mut got).unwrap(), 7);
}

fn interface_index(host: &Host) -> u32 {
    let args = ["-o", "link", "show", "dev", host.interface()];
    let said = host.command("ip").args(args).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    said.split(':').next().unwrap().parse().unwrap()
}

#[test]
fn what_the_dead_left_is_cleared_away_and_the_living_are_let_alone() {
    let living = Netlab::new(10).unwrap();
    let host = living.host("living").unwrap();
    // Nobody holds the last number: 512 labs at once are not to be had here.
    let left = std::path::Path::new("/run/netns/selvage-511-left");
    let added = std::process::Command::new("ip")
        .args(["netns", "add", "selvage-511-left"])
        .status();
    assert!(added.unwrap().success());
    let next = Netlab::new(11).unwrap();
    assert!(!left.exists());
    assert!(host.namespace().unwrap().as_ref().exists());
    let same = next.host("living").unwrap();
    assert_ne!(same.addr(), host.addr());
    assert!(reaches(&next, &same, &next.here().unwrap()));
}

#[test]
fn a_name_is_a_short_word_of_its_own() {
    let lab = Netlab::new(12).unwrap();
    lab.host("a").unwrap();
    for name in ["", "a", "here", "A", "a/b", &"a".repeat(41)] {
        let error = lab.host(name).unwrap_err();
        assert!(
            matches!(error, selvage_netlab::Error::Name { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_host_behind_a_translator_is_seen_at_its_address_and_reached_by_whom_it_sent_to() {
    let lab = Netlab::new(1).unwrap();
    let [a, b, c, d] = lab.hosts_named(["a", "b", "c", "d"]).unwrap();
    let outside = lab.translate(Nat::PortRestricted, &[&a, &d]).unwrap();
    let (inside, friend, stranger) = (udp(&a), udp(&b), udp(&c));
    let mut got = [0; 8];
    inside
        .send_to(b"hello", friend.local_addr().unwrap())
        .unwrap();
    let (_, seen) = friend.recv_from(&mut got).unwrap();
    assert_eq!(seen.ip(), IpAddr::from(outside));
    // What was never asked for does not pass; what comes later from elsewhere does.
    stranger.send_to(b"psst", seen).unwrap();
    let direct = inside.local_addr().unwrap();
    stranger.send_to(b"psst", direct).unwrap();
    friend.send_to(b"hi", seen).unwrap();
    let (len, from) = inside.recv_from(&mut got).unwrap();
    assert_eq!(
        (&got[..len], from),
        (&b"hi"[..], friend.local_addr().unwrap())
    );
    // Neighbours know each other as they are.
    let neighbour = udp(&d);
    neighbour.send_to(b"hey", direct).unwrap();
    let (_, from) = inside.recv_from(&mut got).unwrap();
    assert_eq!(from, neighbour.local_addr().unwrap());
    // After a power cut it is seen at another port.
    lab.forget_ports(&a);
    inside
        .send_to(b"again", friend.local_addr().unwrap())
        .unwrap();
    let (_, again) = friend.recv_from(&mut got).unwrap();
    assert_eq!(again.ip(), IpAddr::from(outside));
    assert_ne!(again, seen);
}
