//! What those who run a cluster see of it and tell it: metrics, probes, status, drain.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::process::Finished;
use selvage_cluster_tests::lab::{Cluster, Live, Pace, Process, SOON, Viewer, http, until};

/// Patience for a command of an operator.
const COMMAND: Duration = Duration::from_secs(30);

/// Nodes with a listener for operators.
const OPERATED: &[&str] = &["--admin", "127.0.0.1:0"];

#[test]
fn every_node_is_scraped_and_says_what_it_does() {
    let cluster = Cluster::start(3, 2);
    let live = Live::publish(cluster.edges[0].addr, "live", "a", Pace::real());
    let viewers: Vec<_> = (0..3)
        .map(|_| Viewer::play(cluster.edges[1].addr, "live", "a"))
        .collect();
    live.go_on(50);
    let last = live.sent().pop().expect("something was sent");
    for viewer in &viewers {
        viewer.until_got(&last);
    }

    let ingest = scrape(&cluster.edges[0]);
    assert_eq!(sum(&ingest, "selvage_connections{protocol=\"rtmp\"}"), 1.0);
    assert_eq!(sum(&ingest, "selvage_streams{role=\"published\"}"), 1.0);
    assert!(sum(&ingest, "selvage_media_frames_published_total") >= 50.0);
    let playout = scrape(&cluster.edges[1]);
    assert_eq!(sum(&playout, "selvage_viewers"), 3.0);
    assert_eq!(sum(&playout, "selvage_origins_reachable"), 3.0);
    let delivered = sum(&playout, "selvage_media_delivery_seconds_count");
    assert!(delivered >= 1.0, "{delivered} deliveries");
    let took = sum(&playout, "selvage_media_delivery_seconds_sum") / delivered;
    assert!(took < 1.0, "a delivery took {took} s");
    let bytes = |page: &str, direction| {
        let labels = format!("{{direction=\"{direction}\",protocol=\"rtmp\"}}");
        sum(page, &format!("selvage_client_bytes_total{labels}"))
    };
    assert!(bytes(&playout, "out") > bytes(&ingest, "in"), "fanned out");

    let origins: Vec<_> = cluster.origins.iter().map(scrape).collect();
    let all = |name: &str| origins.iter().map(|page| sum(page, name)).sum::<f64>();
    assert_eq!(all("selvage_raft_leader"), 1.0);
    assert_eq!(all("selvage_raft_leader_known"), 3.0);
    assert_eq!(all("selvage_raft_members{role=\"voter\"}"), 9.0);
    assert_eq!(all("selvage_origin_streams_published"), 1.0);
    assert_eq!(all("selvage_edges_attached"), 2.0);
    assert_eq!(all("selvage_ledger_entries{kind=\"stream\"}"), 3.0);
    for disk in ["append", "sync"] {
        assert!(all(&format!("selvage_raft_{disk}_seconds_count")) >= 3.0);
    }
    // The leader knows how long what it decided took: the claim of the name, at least.
    assert!(all("selvage_raft_commit_seconds_count") >= 1.0);
    assert!(all("selvage_origin_frames_total{what=\"taken\"}") >= 50.0);

    for page in [&ingest, &playout].into_iter().chain(&origins) {
        check(page);
    }
}

#[test]
fn as_many_streams_as_one_wants_have_series_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("node.toml");
    std::fs::write(&config, "[metrics]\nstreams = 2\n").unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let cluster = Cluster::start_configured(1, &config, 2, &config);
    let series = |stream: &str| {
        format!(
            "{{app=\"live\",instance=\"_definst_\",stream=\"{stream}\",vhost=\"_defaultVHost_\"}}"
        )
    };
    let publish = |name| Live::publish(cluster.edges[0].addr, "live", name, Pace::real());
    let watch = |name| Viewer::play(cluster.edges[1].addr, "live", name);
    let lives = ["a", "b"].map(publish);
    let viewers = [watch("a"), watch("a"), watch("b")];
    for (live, viewer) in lives.iter().zip([&viewers[0], &viewers[2]]) {
        live.go_on(20);
        viewer.until_got(&live.sent().pop().expect("something was sent"));
    }
    let page = scrape(&cluster.edges[1]);
    let viewing = |page: &str, name| sum(page, &format!("selvage_stream_viewers{}", series(name)));
    assert_eq!((viewing(&page, "a"), viewing(&page, "b")), (2.0, 1.0));
    let page = scrape(&cluster.origins[0]);
    for name in ["a", "b"] {
        let of = |figure: &str| sum(&page, &format!("selvage_stream_{figure}{}", series(name)));
        assert_eq!((of("published"), of("edges")), (1.0, 1.0));
        assert!(of("frames_total") >= 20.0);
        assert!(of("media_bytes_total") > of("frames_total"));
    }
    check(&page);
    // A third has none, whatever it is called, until one of them ends.
    let third = publish("\"} 1 selvage_stream_viewers 7");
    third.go_on(2);
    let page = scrape(&cluster.origins[0]);
    assert_eq!(sum(&page, "selvage_streams_without_series"), 1.0);
    let [first, second] = lives;
    first.leave();
    drop(viewers);
    until("the third has taken the place of the first", SOON, || {
        let page = scrape(&cluster.origins[0]);
        check(&page);
        sum(&page, "selvage_streams_without_series") == 0.0
            && page.contains(r#"stream="\"} 1 selvage_stream_viewers 7","#)
    });
    second.leave();
    third.leave();
}

#[test]
fn an_operator_sees_the_cluster_and_drains_an_edge() {
    let mut cluster = Cluster::start_configured(3, OPERATED, 2, OPERATED);
    let live = Live::publish(cluster.edges[0].addr, "live", "a", Pace::real());
    live.go_on(10);
    let admin = operators(&mut cluster.origins[1]);
    until("the origin has heard of the publisher", SOON, || {
        let told = status(admin);
        let lists = |list: &str, key: &str, value: &serde_json::Value| {
            let rows = told[list].as_array().expect("a list");
            rows.iter().filter(|row| row[key] == *value).count()
        };
        told["role"] == "origin"
            && lists("origins", "role", &"leader".into()) == 1
            && lists("streams", "edge", &"edge-0".into()) == 1
            && lists("edges", "published", &1.into()) == 1
    });
    let table = selvage(&["status", "--admin", &admin.to_string()]).well("status");
    assert!(table.stdout.contains("origins (3)"), "{}", table.stdout);
    assert!(table.stdout.contains("edges (2)"), "{}", table.stdout);

    let http = cluster.edges[0].http.to_string();
    selvage(&["probe", "ready", "--http", &http]).well("probe");
    let admin = operators(&mut cluster.edges[0]);
    assert_eq!(status(admin)["published"], 1);
    // The publisher does not leave: the operator is told that it is there.
    let at = admin.to_string();
    let drained = selvage(&["drain", "--admin", &at, "--wait", "300ms"]);
    assert_eq!(drained.status.code(), Some(4), "{}", drained.stderr);
    assert!(drained.stderr.contains("1 are left"), "{}", drained.stderr);
    let unready = selvage(&["probe", "--http", &http]);
    assert_eq!(unready.status.code(), Some(1));
    assert!(unready.stderr.contains("draining"), "{}", unready.stderr);
    selvage(&["probe", "live", "--http", &http]).well("probe");
    live.leave();
    let edge = cluster.edges.remove(0);
    let ended = edge.process.wait(COMMAND);
    assert!(ended.status.success(), "{}", ended.stderr);
    // Who drains what has ended already is done.
    let again = selvage(&["drain", "--admin", &at]);
    assert_eq!(again.status.code(), Some(3), "{}", again.stderr);
}

#[test]
fn operators_from_elsewhere_need_a_token() {
    let refused = selvage(&["edge", "--origins", "127.0.0.1:1", "--admin", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(
        refused.stderr.contains("admin.listen"),
        "{}",
        refused.stderr
    );

    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "open sesame\n").unwrap();
    let config = folder.path().join("edge.toml");
    let text = format!("[admin]\nlisten = \"0.0.0.0:0\"\ntoken_file = {token:?}\n");
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let mut cluster = Cluster::start_with(1, 1, &["--config", config]);
    let port = operators(&mut cluster.edges[0]).port();
    let at = format!("127.0.0.1:{port}");
    let asked = selvage(&["status", "--admin", &at]);
    assert_eq!(asked.status.code(), Some(1), "{}", asked.stdout);
    assert!(asked.stderr.contains("token"), "{}", asked.stderr);
    let token = token.to_str().unwrap();
    let told = selvage(&["status", "--admin", &at, "--token-file", token]).well("status");
    assert!(told.stdout.contains("role=edge"), "{}", told.stdout);
}

/// What a node's listener for operators says of the cluster.
#[track_caller]
fn status(admin: SocketAddr) -> serde_json::Value {
    let at = admin.to_string();
    let told = selvage(&["status", "--json", "--admin", &at]).well("status");
    serde_json::from_str(&told.stdout).expect("JSON")
}

#[track_caller]
fn operators(node: &mut Node) -> SocketAddr {
    let id = node.id.clone();
    node.process.listening(&id, "admin")
}

#[track_caller]
fn selvage(args: &[&str]) -> Finished {
    Process::selvage(&args.join(" "), args).wait(COMMAND)
}

#[track_caller]
fn scrape(node: &Node) -> String {
    let (status, page) = http::get(node.http, "/metrics").expect("a page");
    assert_eq!(status, 200);
    page
}

/// The sum of the samples whose names and labels begin so.
#[track_caller]
fn sum(page: &str, sample: &str) -> f64 {
    let mut found = page.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let same = name == sample || name.split('{').next() == Some(sample);
        same.then(|| value.parse::<f64>().expect("a number"))
    });
    let first = found
        .next()
        .unwrap_or_else(|| panic!("no {sample} in {page}"));
    first + found.sum::<f64>()
}

/// Has Prometheus's own tool look at a page.
#[track_caller]
fn check(page: &str) {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; cluster-tests/peers/install installs it");
    tool.stdin
        .take()
        .expect("piped")
        .write_all(page.as_bytes())
        .expect("it reads");
    let said = tool.wait_with_output().expect("it ends");
    let words = [said.stdout, said.stderr].concat();
    let words = String::from_utf8_lossy(&words);
    assert!(said.status.success(), "promtool: {words}");
}
