//! Ours: three origins and two edges on this machine, and writers and subscribers that are
//! RTMP clients.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use amf::Value;
use client::{NetConnection, ObjectEvent, Options, SharedObject, SharedObjectEvents, Target};
use model::ObjectKind;
use node::announce::Listening;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Sample, here};
use crate::bench::peer::this_program;
use crate::exit::Failure;

/// How long the cluster may take to serve.
const PATIENCE: Duration = Duration::from_secs(30);

/// Five processes. They are killed when this is dropped.
pub(super) struct Ours {
    processes: Vec<Child>,
    edges: Vec<SocketAddr>,
    _folder: TempDir,
}

/// What a fan-out showed.
pub(super) struct Fanout {
    /// From the wish to write to the writer's own answer.
    pub(super) committed: Vec<u64>,
    /// From the wish to write until the last subscriber was told.
    pub(super) last: Vec<u64>,
    /// CPU microseconds of all processes for each change that was told.
    pub(super) cpu: f64,
    /// Changes that were told.
    pub(super) told: u64,
}

impl Ours {
    /// Starts three origins, with their logs in a folder, and two edges.
    pub(super) async fn start() -> Result<Self, Failure> {
        let folder = TempDir::new().map_err(|source| here("cannot make a folder", source))?;
        let mut held = Vec::new();
        let mut origins = Vec::new();
        for _ in 0..3 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .map_err(|source| here("no free port", source))?;
            origins.push(
                listener
                    .local_addr()
                    .map_err(|source| here("no free port", source))?
                    .to_string(),
            );
            held.push(listener);
        }
        drop(held);
        let peers: Vec<_> = origins
            .iter()
            .enumerate()
            .map(|(place, addr)| format!("{}={addr}", place + 1))
            .collect();
        let mut processes = Vec::new();
        for (place, addr) in origins.iter().enumerate() {
            let mut command = Command::new(this_program()?);
            command
                .args(["origin", "--id", &format!("origin-{place}")])
                .args(["--listen", addr, "--http", "127.0.0.1:0"])
                .args(["--peers", &peers.join(",")])
                .arg("--data")
                .arg(folder.path().join(format!("origin-{place}")));
            processes.push(spawn(command)?);
        }
        let mut edges = Vec::new();
        for place in 0..2 {
            let mut command = Command::new(this_program()?);
            command
                .args(["edge", "--id", &format!("edge-{place}")])
                .args(["--origins", &origins.join(",")])
                .args(["--rtmp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
            let mut edge = spawn(command)?;
            edges.push(listening(&mut edge).await?);
            processes.push(edge);
        }
        let ours = Self {
            processes,
            edges,
            _folder: folder,
        };
        ours.first_write().await?;
        Ok(ours)
    }

    async fn first_write(&self) -> Result<(), Failure> {
        let tried = async {
            for place in 0..self.edges.len() {
                loop {
                    let answered = async {
                        let nc = self.connect(place).await?;
                        let (object, mut events) = use_object(&nc, "first").await?;
                        object.set("a", Value::from("b")).await?;
                        answered(&mut events).await
                    };
                    match answered.await {
                        Ok(()) => break,
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
            }
        };
        timeout(PATIENCE, tried).await.map_err(|_| {
            here(
                "the cluster takes no write",
                std::io::ErrorKind::TimedOut.into(),
            )
        })
    }

    /// The processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.iter().filter_map(Child::id).collect()
    }

    async fn connect(&self, turn: usize) -> Result<NetConnection, Failure> {
        let addr = self.edges[turn % self.edges.len()];
        let target: Target = format!("rtmp://{addr}/bench")
            .parse()
            .map_err(|error| Failure::Client(client::Error::Url(error)))?;
        let (nc, _) = NetConnection::connect(&target, &Options::player()).await?;
        Ok(nc)
    }

    /// So many writers, each with an object of its own, each waiting for its answer before
    /// it writes again, until `until`.
    pub(super) async fn write(
        &self,
        writers: usize,
        value: usize,
        seconds: Duration,
        warm_up: Duration,
    ) -> Result<Sample, Failure> {
        let mut objects = Vec::new();
        for writer in 0..writers {
            let nc = self.connect(writer).await?;
            let object = use_object(&nc, &format!("writer-{writer}")).await?;
            objects.push((nc, object));
        }
        let from = Instant::now() + warm_up;
        let until = from + seconds;
        let mut tasks = JoinSet::new();
        for (nc, (object, mut events)) in objects {
            tasks.spawn(async move {
                let _open = nc;
                let mut sample = Sample::default();
                let mut turn = 0_u64;
                while Instant::now() < until {
                    turn += 1;
                    let text = super::text(value, turn);
                    let begun = Instant::now();
                    object.set("value", Value::from(text)).await?;
                    answered(&mut events).await?;
                    sample.note(begun, from, until);
                }
                Ok::<_, Failure>(sample)
            });
        }
        let mut all = Sample::default();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(sample) => all.add(sample?),
                Err(error) => return Err(Failure::Ended(error.to_string())),
            }
        }
        Ok(all)
    }

    /// One writer, so many subscribers on both edges, a write every `every`.
    pub(super) async fn fan_out(
        &self,
        subscribers: usize,
        value: usize,
        writes: usize,
        every: Duration,
    ) -> Result<Fanout, Failure> {
        let (told, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for subscriber in 0..subscribers {
            let nc = self.connect(subscriber).await?;
            let (object, mut events) = use_object(&nc, "fanout").await?;
            let told = told.clone();
            tasks.spawn(async move {
                let _open = (nc, object);
                while let Ok(event) = events.next().await {
                    if let ObjectEvent::Sync(sync) = event
                        && told.send((sync.version, Instant::now())).is_err()
                    {
                        return;
                    }
                }
            });
        }
        let nc = self.connect(0).await?;
        let (object, mut events) = use_object(&nc, "fanout").await?;
        while arrivals.try_recv().is_ok() {}
        let before = super::cpu_of(&self.pids());
        let mut fanout = Fanout {
            committed: Vec::new(),
            last: Vec::new(),
            cpu: 0.0,
            told: 0,
        };
        for turn in 0..writes {
            let begun = Instant::now();
            object
                .set("value", Value::from(super::text(value, turn as u64)))
                .await?;
            answered(&mut events).await?;
            let version = object.data().version;
            fanout.committed.push(micros(begun.elapsed()));
            let mut left = subscribers;
            while left > 0 {
                let next = timeout(PATIENCE, arrivals.recv()).await;
                let Ok(Some((told, at))) = next else {
                    return Err(Failure::Ended(format!("{left} subscribers were not told")));
                };
                if told >= version {
                    left -= 1;
                    if left == 0 {
                        fanout.last.push(micros(at.duration_since(begun)));
                    }
                }
            }
            fanout.told += subscribers as u64;
            tokio::time::sleep(every.saturating_sub(begun.elapsed())).await;
        }
        let spent = super::cpu_of(&self.pids()).saturating_sub(before);
        fanout.cpu = spent.as_secs_f64() * 1e6 / fanout.told.max(1) as f64;
        Ok(fanout)
    }
}

async fn use_object(
    nc: &NetConnection,
    name: &str,
) -> Result<(SharedObject, SharedObjectEvents), Failure> {
    let (object, mut events) = SharedObject::connect(nc, name, ObjectKind::Persistent).await?;
    // The first event says what is in it.
    while !matches!(events.next().await?, ObjectEvent::Sync(_)) {}
    Ok((object, events))
}

/// Waits for the answer to a write.
async fn answered(events: &mut SharedObjectEvents) -> Result<(), Failure> {
    loop {
        match events.next().await? {
            ObjectEvent::Sync(sync) => {
                if sync
                    .list
                    .iter()
                    .any(|change| change.code == client::SyncCode::Success)
                {
                    return Ok(());
                }
                if sync
                    .list
                    .iter()
                    .any(|change| change.code == client::SyncCode::Reject)
                {
                    return Err(Failure::Ended("a write was refused".to_owned()));
                }
            }
            ObjectEvent::Status { code } => return Err(Failure::Ended(code)),
            ObjectEvent::Message { .. } => {}
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn spawn(mut command: Command) -> Result<Child, Failure> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .env("SELVAGE_LOG__FILTER", "warn")
        .spawn()
        .map_err(|source| here("cannot start this program", source))
}

/// Where an edge says that it takes RTMP.
async fn listening(edge: &mut Child) -> Result<SocketAddr, Failure> {
    let stdout = edge.stdout.take();
    let wait = async {
        let mut lines = BufReader::new(stdout?).lines();
        loop {
            let line = lines.next_line().await.ok()??;
            if let Some(listening) = Listening::parse(&line)
                && listening.what == "rtmp"
            {
                return listening.addr.parse().ok();
            }
        }
    };
    let addr = timeout(PATIENCE, wait).await.ok().flatten();
    addr.ok_or_else(|| {
        here(
            "an edge does not listen",
            std::io::ErrorKind::TimedOut.into(),
        )
    })
}
