//! The command line of an edge, shared by `selvage-edge` and `selvage edge`.

use std::path::PathBuf;
use std::process::ExitCode;

use node::config::{Loaded, Sources};
use node::shutdown::Drain;
use tracing::info;

use crate::{Config, Edge, Origins};

/// Flags win over the environment, which wins over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// TOML file.
    #[arg(long, env = "SELVAGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The edge's name, unique in the cluster.
    #[arg(long)]
    pub id: Option<String>,
    /// Origins: host:port, unix:/path or dns:name:port, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub origins: Option<Vec<String>>,
    /// Where RTMP clients come in (port 0 takes a free port).
    #[arg(long, value_name = "ADDR")]
    pub rtmp: Option<String>,
    /// Where RTMPS clients come in.
    #[arg(long, value_name = "ADDR")]
    pub rtmps: Option<String>,
    /// Where RTMFP clients come in, over UDP; where RTMP is if it is not given.
    #[arg(long, value_name = "ADDR")]
    pub rtmfp: Option<String>,
    /// Where health is asked.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Where operators come in.
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Make a certificate for this run.
    #[arg(long)]
    pub tls_self_signed: bool,
    /// How long media may wait so that more of it leaves in one system call, ms.
    #[arg(long, value_name = "MS")]
    pub coalesce_ms: Option<u32>,
}

impl Flags {
    /// The configuration they result in.
    ///
    /// # Errors
    /// Names the key, its value and what would be right.
    pub fn load(&self) -> Result<Loaded<Config>, node::config::Error> {
        let mut sources = Sources::new()
            .environment()
            .ignore_variable("SELVAGE_CONFIG");
        if let Some(path) = &self.config {
            sources = sources.file(path);
        }
        sources
            .flag("id", "--id", &self.id)
            .flag("origins", "--origins", &self.origins)
            .flag("listen.rtmp", "--rtmp", &self.rtmp)
            .flag("listen.rtmps", "--rtmps", &self.rtmps)
            .flag("listen.rtmfp", "--rtmfp", &self.rtmfp)
            .flag("listen.http", "--http", &self.http)
            .flag("admin.listen", "--admin", &self.admin)
            .flag(
                "tls.self_signed",
                "--tls-self-signed",
                self.tls_self_signed.then_some(true),
            )
            .flag(
                "play.coalesce",
                "--coalesce-ms",
                self.coalesce_ms.map(|ms| format!("{ms}ms")),
            )
            .load()
    }
}

/// Runs an edge until it is told to end. Exit code 64 is a bad configuration, 1 a failed
/// start.
pub fn main(flags: &Flags) -> ExitCode {
    let loaded = match flags.load() {
        Ok(loaded) => loaded,
        Err(error) => return node::process::refuse(&error),
    };
    let identity = node::process::Identity {
        service: "selvage-edge",
        node: loaded.value.id.clone(),
        log: loaded.value.log.clone(),
        trace: loaded.value.trace.clone(),
        threads: Some(1),
    };
    node::process::run(&identity, async {
        info!("configuration\n{loaded}");
        let drain = Drain::new();
        node::shutdown::on_signals(drain.clone())?;
        let edge = Edge::build(loaded.value, Origins::Configured, &drain).await?;
        edge.listeners().announce();
        edge.run(drain).await?;
        Ok(())
    })
}
