//! The command line of an origin, shared by `selvage-origin` and `selvage origin`.

use std::path::PathBuf;
use std::process::ExitCode;

use node::config::{Loaded, Sources};
use node::process::Identity;
use node::shutdown::{Drain, on_signals};
use tracing::info;

use crate::{Config, Origin};

/// Flags win over the environment, which wins over the file.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// TOML file.
    #[arg(long, env = "SELVAGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The origin's name, unique in the cluster.
    #[arg(long)]
    pub id: Option<String>,
    /// Where edges come in (port 0 takes a free port).
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Where health is asked.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Where operators come in.
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Where the replicated log is kept (default selvage-data/<id>).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// This origin's number among its peers (default: the number at the end of its id, and 1).
    #[arg(long, value_name = "N")]
    pub node: Option<std::num::NonZeroU64>,
    /// The founders of the cluster, this one among them: 1=host:port,2=host:port,...
    #[arg(long, value_name = "N=ADDR,...", value_delimiter = ',')]
    pub peers: Option<Vec<String>>,
    /// Join the cluster that any of these belong to. Beside --peers: founders found nothing
    /// before all of these have said that they belong to none, and the others join.
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',')]
    pub join: Option<Vec<String>>,
    /// Where the other origins reach this one.
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<String>,
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
            .flag("listen", "--listen", &self.listen)
            .flag("http", "--http", &self.http)
            .flag("admin.listen", "--admin", &self.admin)
            .flag("data", "--data", &self.data)
            .flag("node", "--node", self.node)
            .flag("cluster.peers", "--peers", &self.peers)
            .flag("cluster.join", "--join", &self.join)
            .flag("cluster.advertise", "--advertise", &self.advertise)
            .load()
    }
}

/// Runs an origin until it is told to end. Exit code 64 is a bad configuration, 1 a failed
/// start.
#[must_use]
pub fn main(flags: &Flags) -> ExitCode {
    let loaded = match flags.load() {
        Ok(loaded) => loaded,
        Err(error) => return node::process::refuse(&error),
    };
    let identity = Identity {
        service: "selvage-origin",
        node: loaded.value.id.clone(),
        log: loaded.value.log.clone(),
        trace: loaded.value.trace.clone(),
        threads: None,
    };
    node::process::run(&identity, async {
        info!("configuration\n{loaded}");
        let drain = Drain::new();
        on_signals(drain.clone())?;
        let origin = Origin::build(loaded.value).await?;
        origin.announce();
        Ok(origin.run(drain).await?)
    })
}
