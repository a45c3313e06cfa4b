//! How a node is configured, refuses what it does not understand, and leaves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use selvage_cluster_tests::lab::process::selvage;
use selvage_cluster_tests::lab::raw::{Raw, dial, until_closed};
use selvage_cluster_tests::lab::{
    Cluster, Finished, Live, Pace, Process, SOON, Viewer, http, until,
};

/// What a refused configuration ends with (`EX_USAGE` of sysexits).
const REFUSED: Option<i32> = Some(64);

/// A run that is to end by itself.
struct Run {
    args: Vec<String>,
    environment: Vec<(&'static str, &'static str)>,
    file: Option<tempfile::NamedTempFile>,
    /// An origin's data.
    _folder: Option<tempfile::TempDir>,
}

impl Run {
    fn of(role: &str) -> Self {
        let mut args = vec![role.to_owned()];
        if role == "edge" {
            args.extend(["--origins", "127.0.0.1:9", "--rtmp", "127.0.0.1:0"].map(str::to_owned));
        }
        args.extend(["--http", "127.0.0.1:0"].map(str::to_owned));
        let folder = (role == "origin").then(|| tempfile::tempdir().unwrap());
        if let Some(folder) = &folder {
            args.extend(["--data".to_owned(), folder.path().display().to_string()]);
        }
        Self {
            args,
            environment: Vec::new(),
            file: None,
            _folder: folder,
        }
    }

    fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    fn file(mut self, text: &str) -> Self {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.args
            .extend(["--config".to_owned(), file.path().display().to_string()]);
        self.file = Some(file);
        self
    }

    fn start(&self) -> Process {
        let mut command = selvage();
        command
            .args(&self.args)
            .envs(self.environment.iter().copied());
        Process::spawn("selvage", &command)
    }

    /// The run is refused, in words that name all of these.
    #[track_caller]
    fn is_refused_naming(&self, words: &[&str]) {
        let Finished { status, stderr, .. } = self.start().wait(SOON);
        assert_eq!(status.code(), REFUSED, "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word:?} is not named in: {stderr}");
        }
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_key_that_may_be_meant() {
    let file = "[play]\ncoalesc = '20ms'\n";
    Run::of("edge")
        .file(file)
        .is_refused_naming(&["play.coalesc", "coalesce"]);
    Run::of("origin")
        .file("lisen = '127.0.0.1:0'\n")
        .is_refused_naming(&["lisen", "listen"]);
}

#[test]
fn a_bad_value_is_refused_with_key_value_and_what_would_be_right() {
    let file = "[play]\nchunk_size = 7\n";
    Run::of("edge")
        .file(file)
        .is_refused_naming(&["play.chunk_size", "7", "128"]);
    let file = "[play]\ncoalesce = 'soon'\n";
    Run::of("edge")
        .file(file)
        .is_refused_naming(&["play.coalesce", "soon", "ms"]);
    let run = Run::of("origin").with(&["--listen", "nowhere"]);
    run.is_refused_naming(&["listen", "nowhere"]);
    let run = Run::of("edge").with(&["--rtmps", "127.0.0.1:0"]);
    run.is_refused_naming(&["tls"]);
}

#[test]
fn the_environment_is_refused_like_a_file() {
    let run = Run::of("edge").variable("SELVAGE_PLAY__COALESCE", "soon");
    run.is_refused_naming(&["SELVAGE_PLAY__COALESCE", "soon"]);
    let run = Run::of("edge").variable("SELVAGE_PLAY__COALESC", "20ms");
    run.is_refused_naming(&["SELVAGE_PLAY__COALESC", "coalesce"]);
}

#[test]
fn an_unknown_flag_and_an_unknown_command_are_refused() {
    Run::of("edge")
        .with(&["--rtnp", "127.0.0.1:0"])
        .is_refused_naming(&["--rtnp"]);
    let finished = Process::selvage("selvage", ["serve"]).wait(SOON);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("serve"), "{}", finished.stderr);
}

#[test]
fn an_edge_without_origins_is_refused() {
    let finished = Process::selvage("selvage", ["edge", "--rtmp", "127.0.0.1:0"]).wait(SOON);
    assert_eq!(finished.status.code(), REFUSED, "{}", finished.stderr);
    assert!(finished.stderr.contains("origins"), "{}", finished.stderr);
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let file = "id = 'from-file'\n";
    Run::of("origin")
        .with(&["--listen", "127.0.0.1:0"])
        .file(file)
        .start()
        .listening("from-file", "grpc");
    let run = || {
        Run::of("origin")
            .with(&["--listen", "127.0.0.1:0"])
            .file(file)
            .variable("SELVAGE_ID", "from-environment")
    };
    run().start().listening("from-environment", "grpc");
    run()
        .with(&["--id", "from-flag"])
        .start()
        .listening("from-flag", "grpc");
}

#[test]
fn an_address_that_is_taken_is_named_and_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let finished = Run::of("origin")
        .with(&["--listen", &addr])
        .start()
        .wait(SOON);
    assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains(&addr), "{}", finished.stderr);
}

#[test]
fn a_node_is_ready_when_it_can_serve() {
    let mut cluster = Cluster::start(1, 1);
    let [edge, origin] = [cluster.edges[0].http, cluster.origins[0].http];
    for http in [edge, origin] {
        until("the node is ready", SOON, || {
            status(http, "/readyz") == Some(200)
        });
        assert_eq!(status(http, "/livez"), Some(200));
        assert_eq!(status(http, "/startupz"), Some(200));
    }
    // An edge without an origin is alive, and of no use.
    cluster.origins[0].process.kill();
    until("the edge is not ready", SOON, || {
        status(edge, "/readyz") == Some(503)
    });
    assert_eq!(status(edge, "/livez"), Some(200));
}

#[test]
fn a_draining_edge_takes_nobody_and_ends_when_its_people_have_left() {
    let mut cluster = Cluster::start(1, 1);
    let (rtmp, health) = (cluster.edges[0].addr, cluster.edges[0].http);
    let live = Live::publish(rtmp, "live", "a", Pace::default());
    let viewer = Viewer::play(rtmp, "live", "a");
    live.go_on(100);
    cluster.edges[0].process.terminate();
    until("the edge is not ready", SOON, || {
        status(health, "/readyz") == Some(503)
    });
    until("the edge takes nobody", SOON, || {
        Raw::connect(rtmp, "live").is_err()
    });
    // Those who are there go on.
    live.go_on(100);
    assert_eq!(viewer.ended(), None);
    let sent = live.leave();
    viewer.until_got(sent.last().unwrap());
    viewer.judge(&sent);
    drop(viewer);
    until("the edge has ended", SOON, || {
        cluster.edges[0].process.ended().is_some()
    });
    assert_eq!(cluster.edges[0].process.ended().unwrap().code(), Some(0));
}

#[test]
fn when_the_grace_time_is_over_connections_are_closed_with_a_status() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, "drain_grace = '1s'\n").unwrap();
    let mut cluster = Cluster::start_with(1, 1, &["--config", file.to_str().unwrap()]);
    let rtmp = cluster.edges[0].addr;
    let mut idle = Raw::connect(rtmp, "live").unwrap();
    cluster.edges[0].process.terminate();
    let told = idle.next_status().expect("a status before the end");
    assert!(told.starts_with("NetConnection.Connect."), "{told}");
    until_closed(idle.socket(), SOON);
    until("the edge has ended", SOON, || {
        cluster.edges[0].process.ended().is_some()
    });
    assert_eq!(cluster.edges[0].process.ended().unwrap().code(), Some(0));
}

#[test]
fn dev_leaves_with_everything_when_it_is_asked_to() {
    let mut dev = selvage_cluster_tests::lab::Dev::start(2, 2);
    let addr = dev.rtmp(0);
    dev.process.terminate();
    until("dev has ended", SOON, || dev.process.ended().is_some());
    assert_eq!(dev.process.ended().unwrap().code(), Some(0));
    assert!(dial(addr).is_err());
}

#[test]
fn dev_prints_what_to_type() {
    let mut dev = selvage_cluster_tests::lab::Dev::start(1, 2);
    let (first, second) = (dev.url(0, "live", ""), dev.url(1, "live", ""));
    until(
        "dev says what to type into OBS and a player",
        Duration::from_secs(10),
        || {
            let said = dev.process.stdout() + &dev.process.stderr();
            let names = |url: &str| said.contains(url.trim_end_matches('/'));
            names(&first) && names(&second) && said.contains("OBS")
        },
    );
}

fn status(http: std::net::SocketAddr, path: &str) -> Option<u16> {
    http::get(http, path).ok().map(|(status, _)| status)
}
