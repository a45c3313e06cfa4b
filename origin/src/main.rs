//! One origin as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use node::config::Sources;
use node::process::{Failure, Identity};
use node::shutdown::{Drain, on_signals};
use selvage_origin::{Config, Origin};

/// Owns streams and hands them to edges.
#[derive(Parser)]
#[command(name = "selvage-origin", version)]
struct Flags {
    /// The configuration file (TOML). Variables SELVAGE_* and flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What this origin is called, unique in the cluster.
    #[arg(long)]
    id: Option<String>,
    /// Where edges come in. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where health is asked for.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            let code = if error.use_stderr() {
                node::process::BAD_CONFIG
            } else {
                0
            };
            return ExitCode::from(code);
        }
    };
    let sources = flags
        .config
        .iter()
        .fold(Sources::new(), |sources, path| sources.file(path));
    let config = sources
        .environment()
        .flag("id", "--id", flags.id)
        .flag("listen", "--listen", flags.listen)
        .flag("http", "--http", flags.http)
        .load::<Config>();
    match config {
        Ok(loaded) => {
            let config = loaded.value;
            let identity = Identity {
                service: "selvage-origin",
                node: config.id.clone(),
                log: config.log.clone(),
                trace: config.trace.clone(),
            };
            node::process::run(&identity, serve(config))
        }
        Err(error) => node::process::refuse(&error),
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    let drain = Drain::new();
    on_signals(drain.clone())?;
    let origin = Origin::build(config).await?;
    origin.announce();
    Ok(origin.run(drain).await?)
}
