//! A real Prometheus scrapes a real cluster under load, and has an answer to everything that the
//! dashboard, the alerts and the autoscaler of the chart ask.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use selvage_cluster_tests::judge::Recorder;
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::datagrams::Datagrams;
use selvage_cluster_tests::lab::objects::Member;
use selvage_cluster_tests::lab::{Cluster, Live, Pace, Process, SOON, Viewer, http, ports, until};
use serde_json::Value;

/// Where the chart keeps what it asks of Prometheus.
const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/selvage/monitoring");

/// How the release and its namespace are called.
const RELEASE: &str = "webcast-selvage";
const NAMESPACE: &str = "media";

/// What Grafana would put in for a scrape each second: several scrapes lie in it.
const RATE_INTERVAL: &str = "20s";

/// Until every query has data: several scrapes, and a machine that does other things besides.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_of_the_chart_has_an_answer_of_a_real_prometheus() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("origin.toml");
    // Often enough that one falls into the test.
    let streams = "[metrics]\nstreams = 10\n";
    std::fs::write(
        &config,
        format!("[cluster]\nsnapshot_entries = 20\n{streams}"),
    )
    .unwrap();
    let config = ["--config", config.to_str().unwrap()];
    let edge = folder.path().join("edge.toml");
    std::fs::write(&edge, streams).unwrap();
    let edge = ["--config", edge.to_str().unwrap()];
    let mut cluster = Cluster::start_configured(3, &config, 2, &edge);
    let load = Load::start(&mut cluster).await;

    let kubelet = kubelet();
    let prometheus = Prometheus::start(folder.path(), &cluster, kubelet);
    let targets = cluster.origins.len() + cluster.edges.len();
    until("Prometheus has scraped every node", SOON, || {
        let up = prometheus.ask(&format!("sum(up{{namespace=\"{NAMESPACE}\"}})"));
        numbers(&up) == [targets as f64]
    });

    let panels = panels();
    assert!(panels.len() > 50, "{} panels ask", panels.len());
    let mut open = panels;
    open.extend(autoscaling());
    let all = open.len();
    let started = Instant::now();
    while !open.is_empty() {
        open.retain(|(_, query)| {
            let found = numbers(&prometheus.ask(query));
            // A quantile of nothing is no number: an edge without viewers delivers nothing.
            found.iter().all(|number| number.is_nan())
        });
        assert!(
            open.is_empty() || started.elapsed() < PATIENCE,
            "these have no data after {PATIENCE:?}: {open:#?}"
        );
    }
    println!("{all} queries had data after {:?}", started.elapsed());

    let rules = rules(&prometheus);
    assert!(rules.len() > 15, "{} rules", rules.len());
    for (name, query, state) in &rules {
        prometheus.ask(query);
        assert_ne!(state, "firing", "{name}, of a cluster that is well");
        for selector in selectors(query) {
            let found = prometheus.ask(&format!("count({selector})"));
            assert!(!numbers(&found).is_empty(), "{name}: {selector} is nothing");
        }
    }
    load.end().await;
}

/// What the cluster has to do meanwhile: something of everything that is shown.
struct Load {
    live: Live,
    _viewers: Vec<Viewer>,
    writer: tokio::task::JoinHandle<()>,
    peers: std::thread::JoinHandle<()>,
    operator: std::thread::JoinHandle<()>,
    over: Arc<AtomicBool>,
}

impl Load {
    async fn start(cluster: &mut Cluster) -> Self {
        let live = Live::publish(cluster.edges[0].addr, "live", "a", Pace::real());
        let viewers = (0..4).map(|_| Viewer::play(cluster.edges[1].addr, "live", "a"));
        let viewers = viewers.collect();
        let recorder = Recorder::new("prometheus", 0);
        let edge = cluster.edges[1].addr;
        let member = Member::join(edge, "board", 0, &recorder).await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let writer = tokio::spawn(async move {
            let mut round = 0;
            let mut turn = tokio::time::interval(Duration::from_millis(20));
            while !told.load(Ordering::Relaxed) {
                let _answer = member.set("slot", &round.to_string()).await;
                round += 1;
                turn.tick().await;
            }
        });
        let doors: Vec<_> = cluster.edges.iter_mut().map(rtmfp).collect();
        let told = Arc::clone(&over);
        let peers = std::thread::spawn(move || seek(&doors, &told));
        let origins: Vec<_> = cluster.origins.iter().map(|origin| origin.addr).collect();
        let told = Arc::clone(&over);
        let operator = std::thread::spawn(move || operate(&origins, &told));
        Self {
            live,
            _viewers: viewers,
            writer,
            peers,
            operator,
            over,
        }
    }

    async fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.writer.await.expect("the writer did not fail");
        self.peers.join().expect("the peers did not fail");
        self.operator.join().expect("the operator did not fail");
        self.live.leave();
    }
}

fn rtmfp(edge: &mut Node) -> SocketAddr {
    let id = edge.id.clone();
    edge.process.listening(&id, "rtmfp")
}

/// An operator wants a member to go that is none, of one origin after the other. Those that do not
/// lead hand it on, so that there are short gRPC calls from origin to origin.
fn operate(origins: &[SocketAddr], over: &AtomicBool) {
    for origin in origins.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let origin = origin.to_string();
        let args = ["cluster", "remove", "--origin", &origin, "99"];
        Process::selvage("the operator", args).wait(SOON);
    }
}

/// RTMFP clients come, one looks for the other, and go, again and again.
fn seek(doors: &[SocketAddr], over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let met = doors.iter().map(|door| Datagrams::connect(*door, "live"));
        let Ok([mut a, mut b]) = <[Datagrams; 2]>::try_from(met.flatten().collect::<Vec<_>>())
        else {
            continue;
        };
        let peer = b.peer_id();
        let asked = Instant::now();
        while a.is_talking_with(&peer).is_none()
            && asked.elapsed() < Duration::from_secs(1)
            && !over.load(Ordering::Relaxed)
        {
            a.seek(&peer, doors[0]);
            for _ in 0..50 {
                a.turn(Duration::from_millis(2)).unwrap();
                b.turn(Duration::from_millis(2)).unwrap();
            }
        }
    }
}

/// A Prometheus that scrapes as a ServiceMonitor of the chart has it done.
struct Prometheus {
    addr: SocketAddr,
    _process: Process,
}

impl Prometheus {
    #[track_caller]
    fn start(folder: &Path, cluster: &Cluster, kubelet: SocketAddr) -> Self {
        let mut config = String::from(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n\
             rule_files: [rules.yaml]\n\
             scrape_configs:\n\
             - job_name: selvage\n  static_configs:\n",
        );
        let services = [("origin", &cluster.origins), ("edge-http", &cluster.edges)];
        for (service, nodes) in services {
            for node in nodes {
                let (http, id) = (node.http, &node.id);
                writeln!(
                    config,
                    "  - targets: ['{http}']\n    labels: {{namespace: {NAMESPACE}, \
                     service: {RELEASE}-{service}, pod: {RELEASE}-{id}}}"
                )
                .unwrap();
            }
        }
        writeln!(
            config,
            "- job_name: kubelet\n  honor_labels: true\n  static_configs:\n  \
             - targets: ['{kubelet}']"
        )
        .unwrap();
        let mut rules = read("rules.yaml");
        for (blank, filled) in [
            ("NAMESPACE", NAMESPACE),
            ("FULLNAME", RELEASE),
            ("MAJORITY", "2"),
            ("ORIGIN_MEMORY", "4294967296"),
            ("EDGE_MEMORY", "4294967296"),
        ] {
            rules = rules.replace(blank, filled);
        }
        std::fs::write(folder.join("rules.yaml"), rules).unwrap();
        let file = folder.join("prometheus.yaml");
        std::fs::write(&file, config).unwrap();
        let addr = ports::free(1)[0];
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=warn");
        let mut process = Process::spawn("prometheus", &command);
        until("Prometheus is there", SOON, || {
            assert_eq!(process.ended(), None, "{}", process.tail());
            http::get(addr, "/-/ready").is_ok_and(|(status, _)| status == 200)
        });
        Self {
            addr,
            _process: process,
        }
    }

    /// The result of a query.
    #[track_caller]
    fn ask(&self, query: &str) -> Value {
        let mut path = String::from("/api/v1/query?query=");
        for byte in query.bytes() {
            write!(path, "%{byte:02x}").unwrap();
        }
        self.get(&path)["result"].take()
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let (status, page) = http::get(self.addr, path).expect("Prometheus answers");
        let mut page: Value = serde_json::from_str(&page).expect("JSON");
        assert_eq!(
            (status, &page["status"]),
            (200, &"success".into()),
            "{page}"
        );
        page["data"].take()
    }
}

/// The numbers of an instant vector.
#[track_caller]
fn numbers(result: &Value) -> Vec<f64> {
    let series = result.as_array().expect("a vector");
    let number = |one: &Value| one["value"][1].as_str()?.parse().ok();
    series
        .iter()
        .map(|one| number(one).expect("a number"))
        .collect()
}

/// What the panels of the dashboard ask, with Grafana's variables filled in.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let none = Vec::new();
        for target in panel["targets"].as_array().unwrap_or(&none) {
            let query = target["expr"]
                .as_str()
                .unwrap()
                .replace("$__rate_interval", RATE_INTERVAL)
                .replace("$namespace", NAMESPACE)
                .replace("$service", &format!("{RELEASE}-origin|{RELEASE}-edge-http"));
            assert!(!query.contains('$'), "a variable is left: {query}");
            found.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    found
}

/// What prometheus-adapter asks for the autoscaler.
fn autoscaling() -> Vec<(String, String)> {
    let adapter = read("adapter.yaml");
    let asked = adapter.lines().filter_map(|line| {
        let query = line.trim().strip_prefix("metricsQuery: ")?;
        let query = query
            .replace("<<.GroupBy>>", "pod")
            .replace("<<.LabelMatchers>>", &format!("namespace=\"{NAMESPACE}\""));
        Some(("autoscaling".to_owned(), query))
    });
    let asked: Vec<_> = asked.collect();
    assert_eq!(asked.len(), 2);
    asked
}

/// The name, expression and state of every alert, once Prometheus has evaluated all.
#[track_caller]
fn rules(prometheus: &Prometheus) -> Vec<(String, String, String)> {
    let mut told = Value::Null;
    until("every rule has been evaluated", SOON, || {
        told = prometheus.get("/api/v1/rules");
        every_rule(&told).all(|rule| {
            assert_ne!(rule["health"], "err", "{rule}");
            rule["health"] == "ok"
        })
    });
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap().to_owned();
    every_rule(&told)
        .map(|rule| (text(rule, "name"), text(rule, "query"), text(rule, "state")))
        .collect()
}

fn every_rule(told: &Value) -> impl Iterator<Item = &Value> {
    let groups = told["groups"].as_array().expect("groups").iter();
    groups.flat_map(|group| group["rules"].as_array().expect("rules"))
}

/// The figures that an expression asks for, with their labels: `name{…}`.
fn selectors(query: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let opened = query.match_indices('{').map(|(at, _)| at);
    opened
        .map(|at| {
            let name = query[..at]
                .chars()
                .rev()
                .take_while(|c| is_name(*c))
                .count();
            let end = query[at..].find('}').expect("labels end");
            &query[at - name..=at + end]
        })
        .collect()
}

/// Stands in for the kubelet's listener, which knows how full the disks are.
fn kubelet() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut page = String::new();
    for (figure, bytes) in [("available", 8e9), ("capacity", 1e10)] {
        for origin in 0..3 {
            writeln!(
                page,
                "kubelet_volume_stats_{figure}_bytes{{namespace=\"{NAMESPACE}\",\
                 persistentvolumeclaim=\"data-{RELEASE}-origin-{origin}\"}} {bytes}"
            )
            .unwrap();
        }
    }
    let length = page.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    );
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            let mut asked = [0; 4096];
            let _asked = socket.read(&mut asked);
            let _not_taken = socket.write_all(answer.as_bytes());
        }
    });
    addr
}

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(MONITORING).join(file)).unwrap()
}
