//! Clients that come through a load balancer are seen as who they are: the PROXY protocol, spoken
//! by HAProxy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use selvage_cluster_tests::lab::raw::{Raw, dial, until_closed};
use selvage_cluster_tests::lab::{Cluster, PLAYER, Process, SOON, http, ports, until, until_some};

/// An edge that wants the header on both of its listeners, and lets an address in twice.
const CONFIG: &[u8] = b"
[listen]
proxy_protocol = ['127.0.0.0/8', '::1']
[tls]
self_signed = true
[limits]
connections_per_address = 2
[log]
filter = 'info,selvage_edge=debug'
";

fn cluster(config: &[u8]) -> Cluster {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(config).unwrap();
    let path = file.path().display().to_string();
    Cluster::start_with(1, 1, &["--config", &path, "--rtmps", "127.0.0.1:0"])
}

fn refused(cluster: &Cluster) -> u64 {
    let (_, text) = http::get(cluster.edges[0].http, "/metrics").unwrap();
    let line = r#"selvage_connections_refused_total{reason="proxy_header"}"#;
    let found = text.lines().find_map(|each| each.strip_prefix(line));
    found.expect("the figure").trim().parse().expect("a number")
}

#[track_caller]
fn until_seen(cluster: &Cluster, client: &str) {
    until(&format!("the edge sees {client}"), SOON, || {
        let log = cluster.edges[0].process.stderr();
        log.lines()
            .any(|line| line.contains("connected") && line.contains(&format!("peer={client}")))
    });
}

/// HAProxy with a port for each version before RTMP, and for each before RTMPS.
fn haproxy(folder: &Path, rtmp: SocketAddr, rtmps: SocketAddr) -> (Process, Vec<SocketAddr>) {
    let ports = ports::free(4);
    let mut text = "global\n  maxconn 200\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
                    timeout client 60s\n  timeout server 60s\n"
        .to_owned();
    // Its health checks send a header of their own, and TLVs follow the addresses.
    let two = "send-proxy-v2 proxy-v2-options crc32c,unique-id check check-send-proxy inter 200ms";
    for (port, (to, how)) in ports.iter().zip([
        (rtmp, "send-proxy"),
        (rtmp, two),
        (rtmps, "send-proxy"),
        (rtmps, two),
    ]) {
        let name = port.port();
        text += &format!(
            "listen at{name}\n  bind {port}\n  unique-id-format %rt\n  server edge {to} {how}\n"
        );
    }
    let config = folder.join("haproxy.cfg");
    std::fs::write(&config, text).unwrap();
    let program = match Path::new("/usr/sbin/haproxy") {
        path if path.exists() => path,
        _ => Path::new("haproxy"),
    };
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&config);
    (Process::spawn("haproxy", &command), ports)
}

#[test]
fn haproxy_says_who_a_client_is_by_either_version_and_before_tls() {
    let mut cluster = cluster(CONFIG);
    let folder = tempfile::tempdir().unwrap();
    let rtmp = cluster.edges[0].addr;
    let rtmps = cluster.edges[0].process.listening("edge-0", "rtmps");
    let (mut haproxy, ports) = haproxy(folder.path(), rtmp, rtmps);
    for (version, port) in ports[..2].iter().enumerate() {
        let mut raw = until_some("HAProxy lets a client in", SOON, || {
            assert!(haproxy.ended().is_none(), "{}", haproxy.stderr());
            Raw::connect(*port, "live").ok()
        });
        // It is the client's port that tells: HAProxy has another.
        let client = raw.socket().local_addr().unwrap().to_string();
        until_seen(&cluster, &client);
        assert!(raw.create_stream().unwrap() > 0, "version {}", version + 1);
    }
    // What a person publishes and plays over TLS.
    let film = selvage_cluster_tests::fixture::Fixture::H264.path();
    for (port, other) in [(ports[2], ports[3]), (ports[3], ports[2])] {
        let out = folder
            .path()
            .join(format!("{}.flv", port.port()))
            .display()
            .to_string();
        let url = |at: SocketAddr| format!("rtmps://{at}/live/a{}", port.port());
        let film = film.display().to_string();
        let play = [
            "play",
            "--insecure",
            "--linger",
            "1",
            "-o",
            &out,
            &url(other),
        ];
        let player = Process::selvage("play", play);
        // The player is there before the first picture.
        until("the player has opened its file", SOON, || {
            Path::new(&out).is_file()
        });
        let publish = ["publish", "--insecure", &film, &url(port)];
        let published = Process::selvage("publish", publish).wait(PLAYER);
        assert!(published.status.success(), "{}", published.stderr);
        let played = player.wait(PLAYER);
        assert!(played.status.success(), "{}", played.stderr);
        assert!(
            std::fs::metadata(&out).unwrap().len() > 10_000,
            "{}",
            played.stderr
        );
    }
    assert_eq!(refused(&cluster), 0, "what HAProxy sends is well");
}

#[test]
fn the_clients_own_address_is_counted_and_others_do_not_get_in() {
    let cluster = cluster(CONFIG);
    let edge = cluster.edges[0].addr;
    let header = |ip: &str, port: u16| format!("PROXY TCP4 {ip} 127.0.0.1 {port} 1935\r\n");
    let open = |ip: &str, port| Raw::open_behind(edge, header(ip, port).as_bytes());
    let held = [
        open("203.0.113.7", 1).unwrap(),
        open("203.0.113.7", 2).unwrap(),
    ];
    assert!(
        open("203.0.113.7", 3).is_err(),
        "two are all that an address may have"
    );
    let _other = open("203.0.113.8", 4).unwrap();
    until_seen(&cluster, "203.0.113.8:4");
    drop(held);
    until("its place is free again", SOON, || {
        open("203.0.113.7", 5).is_ok()
    });

    // RTMP without a header, a malformed one, and none at all.
    assert_eq!(refused(&cluster), 0);
    for (said, count) in [
        (&b"\x03\0\0\0\0\0\0\0"[..], 1),
        (b"PROXY TCP4 nonsense\r\n", 2),
    ] {
        let mut socket = dial(edge).unwrap();
        socket.write_all(said).unwrap();
        until_closed(&mut socket, SOON);
        until("it is counted", SOON, || refused(&cluster) == count);
    }
    let mut silent = dial(edge).unwrap();
    until_closed(&mut silent, SOON);
    until("it is counted", SOON, || refused(&cluster) == 3);
}

#[test]
fn who_is_no_load_balancer_of_ours_is_not_believed() {
    let text = std::str::from_utf8(CONFIG).unwrap();
    let text = text.replace("127.0.0.0/8", "192.0.2.0/24");
    let cluster = cluster(text.as_bytes());
    let header = b"PROXY TCP4 203.0.113.7 127.0.0.1 1 1935\r\n";
    assert!(Raw::open_behind(cluster.edges[0].addr, header).is_err());
    until("it is counted", SOON, || refused(&cluster) == 1);
}
