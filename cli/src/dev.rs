//! `selvage dev`: a whole cluster in this process.
//!
//! The origins and edges are the real ones, joined by the real gRPC services over
//! in-process pipes instead of TCP; there is no second code path.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use edge::{Edge, Origins};
use model::NodeId;
use node::link::Listener;
use node::process::{Failure, Identity};
use node::shutdown::Drain;
use origin::log::Folder;
use origin::{Origin, Parts};
use tokio::task::JoinSet;

/// A cluster for trying things out.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    /// How many origins.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    origins: u16,
    /// How many edges. Edge i listens on the given ports plus i.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    edges: u16,
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Edge 0's port for RTMP; 0 takes free ports.
    #[arg(long, default_value_t = 1935)]
    rtmp_port: u16,
    /// Edge 0's port for RTMPS (with a certificate of its own); 0 takes free ports.
    #[arg(long, default_value_t = 19350)]
    rtmps_port: u16,
    /// Edge 0's port for health; 0 takes free ports.
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// Where the RTMPS certificate is kept (cert.pem, key.pem), so that a client that
    /// trusts it once trusts it again, and the replicated log of each origin. Without it every
    /// run makes a new certificate and begins with an empty log.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long media may wait so that more of it leaves in one system call, ms.
    #[arg(long, value_name = "MS")]
    coalesce_ms: Option<u32>,
    /// Threads that hold connections, per edge; 0 takes one per core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    shards: usize,
    /// Trace one in so many key frames of each stream on its way to the viewers; 0 is none. The
    /// variables OTEL_* say where traces go.
    #[arg(long, default_value_t = 0, value_name = "N")]
    trace_frames: u32,
    /// What is logged.
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    log: String,
}

/// Runs the cluster until it is told to end.
pub(crate) fn main(flags: &Flags) -> ExitCode {
    let identity = Identity {
        service: "selvage-dev",
        node: "dev".into(),
        log: node::telemetry::Log {
            filter: flags.log.clone(),
            ..node::telemetry::Log::default()
        },
        trace: node::telemetry::Trace::default(),
        threads: Some(1),
    };
    node::process::run(&identity, run(flags))
}

async fn run(flags: &Flags) -> Result<(), Failure> {
    let drain = Drain::new();
    node::shutdown::on_signals(drain.clone())?;
    let certificate = match &flags.data {
        Some(dir) => Some(node::certificate::kept(dir)?),
        None => None,
    };

    let mut entries = Vec::new();
    let mut origins = JoinSet::new();
    // The edges leave first: their streams need the origins until then.
    let leave = Drain::new();
    let scratch = tempfile::tempdir()?;
    let logs = flags.data.as_deref().unwrap_or(scratch.path());
    let mut pipes = Vec::new();
    for index in 0..flags.origins {
        let (address, listener) = node::link::duplex(format!("origin-{index}"));
        pipes.push((address, listener));
    }
    let founders: BTreeMap<_, _> =
        std::iter::successors(Some(NonZeroU64::MIN), |number| number.checked_add(1))
            .map(NodeId)
            .zip(pipes.iter().map(|(address, _)| address.clone()))
            .collect();
    for (index, (address, listener)) in pipes.into_iter().enumerate() {
        let id = format!("origin-{index}");
        let parts = Parts {
            listener: Listener::duplex(listener),
            founders: founders.clone(),
            join: Vec::new(),
            disk: Box::new(Folder::open(&logs.join(&id))?),
        };
        let config = origin::Config {
            id,
            ..origin::Config::default()
        };
        let origin = Origin::compose(config, parts)?;
        entries.push(address.into());
        origins.spawn(origin.run(leave.clone()));
    }

    let mut built = Vec::new();
    for index in 0..flags.edges {
        let mut config = edge::Config {
            id: format!("edge-{index}"),
            ..edge::Config::default()
        };
        config.shards = flags.shards;
        config.trace.frames = flags.trace_frames;
        config.drain_grace = GRACE;
        config.listen.rtmp = flags.listen(flags.rtmp_port, index)?;
        config.listen.rtmps = Some(flags.listen(flags.rtmps_port, index)?);
        config.listen.http = flags.listen(flags.http_port, index)?;
        match &certificate {
            Some(files) => {
                config.tls.cert = Some(files.cert.clone());
                config.tls.key = Some(files.key.clone());
            }
            None => config.tls.self_signed = true,
        }
        if let Some(ms) = flags.coalesce_ms {
            config.play.coalesce = Duration::from_millis(ms.into());
        }
        built.push(Edge::build(config, Origins::Given(entries.clone()), &drain).await?);
    }
    let mut edges = JoinSet::new();
    let mut hints = String::new();
    for edge in built {
        let health = edge.health();
        hints.push_str(&hint(&edge));
        let announce = edge.listeners();
        edges.spawn(edge.run(drain.clone()));
        // What is printed can be used at once.
        health.until_ready().await;
        announce.announce();
    }
    say(&hints);

    while let Some(ended) = edges.join_next().await {
        ended??;
    }
    leave.start();
    while let Some(ended) = origins.join_next().await {
        ended??;
    }
    Ok(())
}

/// How long clients may stay when a trial ends.
const GRACE: Duration = Duration::from_secs(2);

impl Flags {
    fn listen(&self, port: u16, index: u16) -> Result<SocketAddr, Failure> {
        let port = match port {
            0 => 0,
            port => port.checked_add(index).ok_or_else(|| {
                format!("edge {index} has no port: {port} + {index} is too large")
            })?,
        };
        Ok((self.bind, port).into())
    }
}

fn hint(edge: &Edge) -> String {
    let (id, rtmp) = (&edge.id, edge.rtmp_addr);
    format!(
        "\n{id}\n  OBS     server  rtmp://{rtmp}/live    stream key  a\n  \
         publish         ffmpeg -re -i FILE -c copy -f flv rtmp://{rtmp}/live/a\n  \
         play            ffplay rtmp://{rtmp}/live/a\n"
    )
}

#[allow(
    clippy::print_stderr,
    reason = "standard output is for what programs read"
)]
fn say(text: &str) {
    eprintln!("{text}");
}
