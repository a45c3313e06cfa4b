//! A cluster of which every process is a host of its own in a [`Netlab`], with a disk of
//! its own.
//!
//! ```text
//!   origin-0   origin-1   origin-2        edge-0   edge-1   edge-2     here: clients
//!   memory     machine    memory                                       and the test
//!      └──────────┴──────────┴──────── the switch ─┴────────┴─────────────┘
//! ```
//!
//! Ports are a host's own, so they need not be free anywhere else.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use netlab::{Host, Netlab};
use tempfile::TempDir;

use super::disk::Disk;
use super::http;
use super::process::{Process, selvage};
use super::until::pace;

/// Where an origin speaks gRPC.
const GRPC: u16 = 9350;

/// Where an edge speaks RTMP.
const RTMP: u16 = 1935;

/// Where health is asked for.
const HTTP: u16 = 8080;

/// Patience for a whole cluster to be there.
const START: Duration = Duration::from_secs(30);

/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How many entries are added between two states that are saved, where they are saved
/// often: logs are cut off then, and those who were away are sent states.
const SAVED_OFTEN: u32 = 4_000;

/// As many otherwise: more than any test adds.
const SAVED_NEVER: u32 = 10_000_000;

/// How long an edge of a field lets a write wait.
pub const WRITE_WAIT: Duration = Duration::from_secs(2);

/// Origins and edges on hosts.
#[derive(Debug)]
pub struct Field {
    /// The origins, `origin-0` first.
    pub origins: Vec<Post>,
    /// The edges, `edge-0` first. Every edge knows every origin.
    pub edges: Vec<Post>,
    /// What is between them.
    pub lab: Netlab,
    /// Where the clients are.
    pub here: Host,
    _config: TempDir,
}

/// One host and what runs on it.
#[derive(Debug)]
pub struct Post {
    /// `edge-0` and the like; the host's name, too.
    pub id: String,
    /// The host.
    pub host: Host,
    /// Where RTMP (an edge) or gRPC (an origin) is spoken.
    pub addr: SocketAddr,
    /// Where health and metrics are asked for.
    pub http: SocketAddr,
    process: Option<Process>,
    /// An origin's data lies on it.
    pub disk: Option<Disk>,
    args: Vec<String>,
    frozen: bool,
    /// What those said that were there before.
    past: String,
}

/// What an origin says of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Its number.
    pub node: u64,
    /// The number of the one that leads; 0 if it knows none.
    pub leader: u64,
    /// How often a leader was looked for.
    pub term: u64,
    /// How far its log is applied.
    pub applied: u64,
    /// What the state of its ledger comes to.
    pub digest: String,
}

impl Field {
    /// Starts so many of each and waits until they know each other. What links do by chance
    /// follows from the seed. Origins save their states often, or never.
    ///
    /// # Panics
    /// When something is missing for a netlab, and when one does not start.
    #[track_caller]
    pub fn start(origins: usize, edges: usize, seed: u64, saved_often: bool) -> Self {
        let lab = Netlab::new(seed).unwrap_or_else(|error| {
            panic!(
                "no network for this test: {error}; run it as root or with \
                 cluster-tests/netlab/rootless"
            )
        });
        let config = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            let path = config.path().join(name);
            std::fs::write(&path, text).expect("a configuration");
            path
        };
        let entries = if saved_often {
            SAVED_OFTEN
        } else {
            SAVED_NEVER
        };
        let origin_text = format!("[cluster]\nsnapshot_entries = {entries}\n");
        let edge_text = format!("[objects]\nwrite_wait = '{}ms'\n", WRITE_WAIT.as_millis());
        let (origin_config, edge_config) = (
            write("origin.toml", &origin_text),
            write("edge.toml", &edge_text),
        );

        let named = |what: &str, count: usize| -> Vec<Host> {
            let hosts = (0..count).map(|number| lab.host(&format!("{what}-{number}")));
            hosts
                .map(|host| host.unwrap_or_else(|error| panic!("no host: {error}")))
                .collect()
        };
        let (origin_hosts, edge_hosts) = (named("origin", origins), named("edge", edges));
        let here = lab
            .here()
            .unwrap_or_else(|error| panic!("no way in: {error}"));
        let at = |host: &Host, port: u16| SocketAddr::from((host.addr(), port));
        let known: Vec<String> = origin_hosts
            .iter()
            .map(|host| at(host, GRPC).to_string())
            .collect();
        let peers: Vec<String> = (1..)
            .zip(&known)
            .map(|(node, addr)| format!("{node}={addr}"))
            .collect();

        let mut field = Self {
            origins: Vec::new(),
            edges: Vec::new(),
            lab,
            here,
            _config: config,
        };
        for (number, host) in origin_hosts.into_iter().enumerate() {
            let disk = if number % 2 == 0 {
                Disk::memory()
            } else {
                Disk::machine()
            };
            let data = disk.path().join("data");
            let more = [
                ("--data", text(&data)),
                ("--listen", at(&host, GRPC).to_string()),
                ("--peers", peers.join(",")),
            ];
            let mut post = Post::new("origin", host, GRPC, &origin_config, &more);
            post.disk = Some(disk);
            field.origins.push(post);
        }
        for host in edge_hosts {
            let more = [
                ("--rtmp", at(&host, RTMP).to_string()),
                ("--origins", known.join(",")),
            ];
            let post = Post::new("edge", host, RTMP, &edge_config, &more);
            field.edges.push(post);
        }
        for post in field.origins.iter_mut().chain(&mut field.edges) {
            post.start();
        }
        if let Err(who) = field.until_ready() {
            panic!("no cluster: {who}");
        }
        field
    }

    /// Waits until every origin knows a leader and every edge an origin.
    ///
    /// # Errors
    /// Who does not get there.
    pub fn until_ready(&mut self) -> Result<(), String> {
        let started = Instant::now();
        for post in self.origins.iter_mut().chain(&mut self.edges) {
            while !http::get(post.http, "/readyz").is_ok_and(|(status, _)| status == 200) {
                if let Some(how) = post.ended_by_itself() {
                    return Err(how);
                }
                if started.elapsed() > START {
                    return Err(format!("{} is not ready after {START:?}", post.id));
                }
                pace(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// All posts, origins first.
    pub fn posts(&mut self) -> impl Iterator<Item = &mut Post> {
        self.origins.iter_mut().chain(&mut self.edges)
    }

    /// The post of that name.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn post(&mut self, id: &str) -> &mut Post {
        let mut posts = self.posts();
        posts.find(|post| post.id == id).expect("a post")
    }

    /// The place of the origin that leads, by its own account.
    pub fn leader(&self) -> Option<usize> {
        let words: Vec<Option<Word>> = self.origins.iter().map(Post::word).collect();
        // A leader that was cut off may still think that it leads.
        let leads = |word: &Word| word.node != 0 && word.node == word.leader;
        let of = |place: &usize| words[*place].as_ref().filter(|word| leads(word));
        let places = (0..words.len()).filter(|place| of(place).is_some());
        places.max_by_key(|place| of(place).map(|word| word.term))
    }

    /// Keeps what all processes have said, a file for each, and the data of those that
    /// have ended by themselves.
    pub fn keep(&self, folder: &Path) {
        let kept = std::fs::create_dir_all(folder).and_then(|()| {
            self.origins.iter().chain(&self.edges).try_for_each(|post| {
                let path = folder.join(format!("{}.log", post.id));
                std::fs::write(path, post.said())?;
                match &post.disk {
                    Some(disk) if post.process.is_none() => copy(
                        &disk.path().join("data"),
                        &folder.join(format!("{}.data", post.id)),
                    ),
                    _ => Ok(()),
                }
            })
        });
        if let Err(error) = kept {
            eprintln!("not everything is kept in {}: {error}", folder.display());
        }
    }
}

impl Post {
    fn new(role: &str, host: Host, port: u16, config: &Path, more: &[(&str, String)]) -> Self {
        let id = host.name().to_owned();
        let addr = SocketAddr::from((host.addr(), port));
        let http = SocketAddr::from((host.addr(), HTTP));
        let mut args = vec![role.to_owned()];
        let pairs = [
            ("--id", id.clone()),
            ("--http", http.to_string()),
            ("--config", text(config)),
        ];
        for (flag, value) in pairs.iter().chain(more) {
            args.extend([(*flag).to_owned(), value.clone()]);
        }
        Self {
            id,
            host,
            addr,
            http,
            process: None,
            disk: None,
            args,
            frozen: false,
            past: String::new(),
        }
    }

    /// Starts what runs here, with the data that is there.
    ///
    /// # Panics
    /// When something runs already, or it does not start.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.id);
        let mut command = selvage();
        command.args(&self.args);
        let process = Process::spawn(&self.id, &self.host.place(&command));
        if let Some(disk) = &self.disk {
            disk.serve(process.id());
        }
        self.process = Some(process);
        self.frozen = false;
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
            self.remember(&process, "killed");
        }
    }

    /// Whether a process is there that can do something.
    pub fn runs(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| process.ended().is_none()) && !self.frozen
    }

    /// Whether a process is there, be it stopped.
    pub fn is_there(&self) -> bool {
        self.process.is_some()
    }

    /// If its process has ended without having been killed, how; it is gone then.
    pub fn ended_by_itself(&mut self) -> Option<String> {
        let status = self.process.as_mut()?.ended()?;
        let process = self.process.take()?;
        self.remember(&process, &status.to_string());
        Some(format!("{} ended ({status}):\n{}", self.id, process.tail()))
    }

    /// Stops it for a while, with all its connections.
    pub fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.freeze();
            self.frozen = true;
        }
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        if let Some(process) = &mut self.process {
            process.thaw();
        }
        self.frozen = false;
    }

    /// What an origin says of its cluster, asked on its own host: no fault of the network
    /// is in the way.
    pub fn word(&self) -> Option<Word> {
        self.process.as_ref()?;
        if self.frozen {
            return None;
        }
        let selvage = selvage();
        let at = self.addr.to_string();
        // One that stands still would be waited for.
        let mut command = Command::new("timeout");
        command.arg("2").arg(selvage.get_program());
        command.args(["cluster", "status", "--origin", &at]);
        for (name, _) in selvage.get_envs() {
            command.env_remove(name);
        }
        let said = self.host.place(&command).output().ok()?;
        let said = String::from_utf8(said.stdout).ok()?;
        let line = said.lines().find(|line| line.starts_with("origin="))?;
        let field = |key: &str| {
            let mut words = line.split_whitespace();
            words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let number = |key| field(key).and_then(|value| value.parse().ok());
        Some(Word {
            node: number("node")?,
            leader: number("leader")?,
            term: number("term")?,
            applied: number("applied")?,
            digest: field("digest")?.to_owned(),
        })
    }

    /// Everything that was said here, also by those that were there before.
    pub fn said(&self) -> String {
        let mut said = self.past.clone();
        if let Some(process) = &self.process {
            said.push_str(&process.stderr());
        }
        said
    }

    fn remember(&mut self, process: &Process, how: &str) {
        self.past.push_str(&process.stderr());
        let _to_a_string = writeln!(self.past, "=== {how}");
    }
}

/// A folder with everything in it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (from, to) = (from.join(entry?.file_name()), to);
        let to = to.join(from.file_name().unwrap_or_default());
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
