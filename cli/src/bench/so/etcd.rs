//! etcd beside us: three members on this machine, and writers that put.
//!
//! The two messages of its API that are needed are written here as `prost` structs; their
//! numbers are those of `etcdserverpb`.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::transport::{Channel, Endpoint};

use super::{Sample, here};
use crate::exit::Failure;

/// How long three members may take to elect a leader and take a first write.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that the writers of one measurement share, as etcd's own benchmark has it:
/// one connection for each writer would cost etcd more.
const CONNECTIONS: usize = 16;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// Three members. They are killed when this is dropped.
pub(super) struct Etcd {
    members: Vec<Child>,
    clients: Vec<String>,
    _folder: TempDir,
}

impl Etcd {
    /// Starts three members with their defaults and waits for the first write.
    pub(super) async fn start() -> Result<Self, Failure> {
        let folder = TempDir::new().map_err(|source| here("cannot make a folder", source))?;
        let mut ports = Vec::new();
        // Held until all are drawn, so that none is drawn twice.
        let mut held = Vec::new();
        for _ in 0..6 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .map_err(|source| here("no free port", source))?;
            let addr = listener
                .local_addr()
                .map_err(|source| here("no free port", source))?;
            ports.push(addr.port());
            held.push(listener);
        }
        drop(held);
        let (peers, clients) = ports.split_at(3);
        let cluster: Vec<_> = peers
            .iter()
            .enumerate()
            .map(|(member, port)| format!("m{member}=http://127.0.0.1:{port}"))
            .collect();
        let mut members = Vec::new();
        for (member, (peer, port)) in peers.iter().zip(clients).enumerate() {
            let mut command = Command::new("etcd");
            command
                .args(["--name", &format!("m{member}")])
                .arg("--data-dir")
                .arg(folder.path().join(format!("m{member}")))
                .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
                .args([
                    "--initial-advertise-peer-urls",
                    &format!("http://127.0.0.1:{peer}"),
                ])
                .args(["--listen-client-urls", &format!("http://127.0.0.1:{port}")])
                .args([
                    "--advertise-client-urls",
                    &format!("http://127.0.0.1:{port}"),
                ])
                .args(["--initial-cluster", &cluster.join(",")])
                .args(["--initial-cluster-state", "new"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .kill_on_drop(true);
            let child = command.spawn().map_err(|source| {
                here("cannot start etcd (Debian's etcd-server has it)", source)
            })?;
            members.push(child);
        }
        let etcd = Self {
            members,
            clients: clients
                .iter()
                .map(|port| format!("http://127.0.0.1:{port}"))
                .collect(),
            _folder: folder,
        };
        etcd.first_write().await?;
        Ok(etcd)
    }

    async fn first_write(&self) -> Result<(), Failure> {
        let tried = async {
            loop {
                if let Ok(channel) = self.channel(0).await
                    && put(channel, Bytes::from_static(b"first"), Bytes::new())
                        .await
                        .is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, tried)
            .await
            .map_err(|_| here("etcd takes no write", std::io::ErrorKind::TimedOut.into()))
    }

    /// The processes.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(Child::id).collect()
    }

    async fn channel(&self, turn: usize) -> Result<Channel, tonic::transport::Error> {
        let url = self.clients.get(turn % self.clients.len()).cloned();
        Endpoint::from_shared(url.unwrap_or_default())?
            .tcp_nodelay(true)
            .connect()
            .await
    }

    /// So many writers, each with a key of its own, each waiting for its answer before it
    /// writes again, until `until`.
    pub(super) async fn write(
        &self,
        writers: usize,
        value: usize,
        from: Instant,
        until: Instant,
    ) -> Result<Sample, Failure> {
        let mut channels = Vec::new();
        for turn in 0..CONNECTIONS.min(writers) {
            let channel = self.channel(turn).await;
            channels.push(channel.map_err(|error| Failure::Ended(error.to_string()))?);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            let Some(channel) = channels.get(writer % channels.len()).cloned() else {
                continue;
            };
            let key = Bytes::from(format!("bench/writer-{writer}"));
            tasks.spawn(async move {
                let mut sample = Sample::default();
                let mut turn = 0_u64;
                while Instant::now() < until {
                    turn += 1;
                    let begun = Instant::now();
                    put(channel.clone(), key.clone(), super::value(value, turn)).await?;
                    sample.note(begun, from, until);
                }
                Ok::<_, tonic::Status>(sample)
            });
        }
        let mut all = Sample::default();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(Ok(sample)) => all.add(sample),
                Ok(Err(status)) => return Err(Failure::Ended(format!("etcd: {status}"))),
                Err(error) => return Err(Failure::Ended(error.to_string())),
            }
        }
        Ok(all)
    }
}

async fn put(channel: Channel, key: Bytes, value: Bytes) -> Result<(), tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec: tonic_prost::ProstCodec<PutRequest, PutResponse> =
        tonic_prost::ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let request = tonic::Request::new(PutRequest { key, value });
    grpc.unary(request, path, codec).await.map(|_| ())
}
