//! The servers that are measured, as child processes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use node::announce::Listening;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::exit::Failure;

/// Where traces go, by the standard of OpenTelemetry.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which server.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// One origin and one edge, joined by gRPC, in one process.
    Ours {
        coalesce_ms: u64,
        shards: u16,
        watched: Watched,
    },
    /// The bare loop.
    Floor { coalesce_ms: u64 },
    /// nginx with its rtmp module, one worker, as the module is set up by default.
    Nginx,
    /// SRS with its defaults.
    Srs { program: PathBuf },
}

/// How ours is observed while it is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    /// One in so many key frames is traced, and traces go there. Without, nothing is exported.
    pub traces: Option<(u32, SocketAddr)>,
    /// It is scraped every second.
    pub scraped: bool,
}

impl Kind {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ours { .. } => "selvage",
            Self::Floor { .. } => "floor",
            Self::Nginx => "nginx-rtmp",
            Self::Srs { .. } => "srs",
        }
    }

    pub(super) const fn coalesce_ms(&self) -> Option<u64> {
        match self {
            Self::Ours { coalesce_ms, .. } | Self::Floor { coalesce_ms } => Some(*coalesce_ms),
            Self::Nginx | Self::Srs { .. } => None,
        }
    }

    /// Whether it relays a stream that is published to it; the floor makes its own.
    pub(super) const fn relays(&self) -> bool {
        match self {
            Self::Ours { .. } | Self::Nginx | Self::Srs { .. } => true,
            Self::Floor { .. } => false,
        }
    }
}

/// A running server. It is killed when this is dropped.
pub(super) struct Peer {
    pub addr: SocketAddr,
    /// Where ours is scraped.
    pub http: Option<SocketAddr>,
    pub pid: u32,
    child: Child,
    /// Configuration and logs, for as long as it runs.
    _folder: Option<TempDir>,
}

impl Peer {
    /// Starts a server and waits until it listens.
    pub(super) async fn start(kind: &Kind, bits: u64) -> Result<Self, Failure> {
        match kind {
            Kind::Ours {
                coalesce_ms,
                shards,
                watched,
            } => {
                let mut command = Command::new(this_program()?);
                command.args(["dev", "--origins", "1", "--edges", "1", "--rtmp-port", "0"]);
                command.args(["--rtmps-port", "0", "--http-port", "0"]);
                command.args(["--coalesce-ms", &coalesce_ms.to_string()]);
                command.args(["--shards", &shards.to_string()]);
                for name in ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"] {
                    command.env_remove(name);
                }
                match watched.traces {
                    Some((every, to)) => {
                        command.args(["--trace-frames", &every.to_string()]);
                        command.env(ENDPOINT, format!("http://{to}"));
                    }
                    None => {
                        command.env_remove(ENDPOINT);
                    }
                }
                Self::announced(command, "rtmp").await
            }
            Kind::Floor { coalesce_ms } => {
                let mut command = Command::new(this_program()?);
                command.args(["bench", "floor", "--coalesce-ms", &coalesce_ms.to_string()]);
                command.args(["--bits", &bits.to_string()]);
                Self::announced(command, "rtmp").await
            }
            Kind::Nginx => {
                let program = Path::new("nginx");
                Self::configured(program, nginx_config, |folder, file| {
                    vec!["-p".into(), folder.into(), "-c".into(), file.into()]
                })
                .await
            }
            Kind::Srs { program } => {
                Self::configured(program, srs_config, |_, file| {
                    vec!["-c".into(), file.into()]
                })
                .await
            }
        }
    }

    pub(super) async fn stop(mut self) {
        // It is dropped, and so killed, in any case.
        let _ = self.child.kill().await;
    }

    /// One that says on standard output where it listens for `what`.
    pub(super) async fn announced(mut command: Command, what: &str) -> Result<Self, Failure> {
        let is_ours = command
            .as_std()
            .get_args()
            .any(|argument| argument == "dev");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = spawn(command)?;
        let stdout = child.stdout.take();
        let wait = async {
            let mut lines = BufReader::new(stdout?).lines();
            let mut http = None;
            let mut addr = None;
            // Ours says last where it is asked for its health.
            while addr.is_none() || (what == "rtmp" && is_ours && http.is_none()) {
                let line = lines.next_line().await.ok()??;
                match Listening::parse(&line) {
                    Some(listening) if listening.what == what => {
                        addr = Some(listening.addr.parse().ok()?);
                    }
                    Some(listening) if listening.what == "http" => {
                        http = listening.addr.parse().ok();
                    }
                    Some(_) | None => {}
                }
            }
            // What it says later must not fill the pipe.
            tokio::task::spawn_local(
                async move { while let Ok(Some(_)) = lines.next_line().await {} },
            );
            Some((addr?, http))
        };
        let found = timeout(PATIENCE, wait).await.ok().flatten();
        let (addr, http) = found.ok_or_else(|| here("the server does not listen", timed_out()))?;
        let peer = Self::of(child, addr, None)?;
        Ok(Self { http, ..peer })
    }

    /// One that is told by its arguments where to listen, and does so within a moment.
    pub(super) fn told(mut command: Command, addr: SocketAddr) -> Result<Self, Failure> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self::of(spawn(command)?, addr, None)
    }

    /// One that is told by a file where to listen.
    async fn configured(
        program: &Path,
        config: impl Fn(u16, &Path) -> String,
        args: impl Fn(&Path, &Path) -> Vec<PathBuf>,
    ) -> Result<Self, Failure> {
        let wrap = |source| here("cannot prepare a folder for the server", source);
        let folder = TempDir::new().map_err(wrap)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| Ok(listener.local_addr()?.port()))
            .map_err(wrap)?;
        let file = folder.path().join("server.conf");
        std::fs::write(&file, config(port, folder.path())).map_err(wrap)?;
        let mut command = Command::new(program);
        command.args(args(folder.path(), &file));
        command.current_dir(folder.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = spawn(command)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listens = async {
            while TcpStream::connect(addr).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let what = format!(
            "{} does not listen; is its rtmp support installed?",
            program.display()
        );
        timeout(PATIENCE, listens)
            .await
            .map_err(|_| here(&what, timed_out()))?;
        Self::of(child, addr, Some(folder))
    }

    fn of(child: Child, addr: SocketAddr, folder: Option<TempDir>) -> Result<Self, Failure> {
        let pid = child
            .id()
            .ok_or_else(|| here("the server has ended", timed_out()))?;
        Ok(Self {
            addr,
            http: None,
            pid,
            child,
            _folder: folder,
        })
    }
}

fn spawn(mut command: Command) -> Result<Child, Failure> {
    let name = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    command
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| here(&format!("cannot start {name}"), source))
}

pub(super) fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|source| here("cannot find this program", source))
}

fn here(what: &str, source: io::Error) -> Failure {
    Failure::Here {
        what: what.to_owned(),
        source,
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// One process (`master_process off`), so that its figures are all there is; the module's
/// defaults otherwise.
fn nginx_config(port: u16, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections 19900; }}
rtmp {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        application live {{ live on; }}
    }}
}}
"
    )
}

fn srs_config(port: u16, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "listen {port};
max_connections 19000;
daemon off;
pid {folder}/srs.pid;
srs_log_tank console;
srs_log_level error;
vhost __defaultVhost__ {{ }}
"
    )
}
