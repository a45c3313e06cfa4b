//! `selvage cluster`: who belongs to a cluster, and changes of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fabric::v1::cluster_client::ClusterClient;
use fabric::v1::{AddRequest, ClusterStatus, RemoveRequest, StatusRequest, TransferRequest};
use node::config::Validate;
use node::link::{Address, Settings, Tls};
use node::process::chain;
use tonic::transport::Channel;

/// Look at a cluster of origins, or change it.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show who belongs to it, who leads, and how far each is.
    Status(Where),
    /// Add an origin that waits to be added. One that is started with --join does this by
    /// itself.
    Add {
        #[command(flatten)]
        at: Where,
        /// Where the new origin is.
        #[arg(value_name = "ADDR")]
        new: Address,
    },
    /// Remove an origin for good: its number is not given again.
    Remove {
        #[command(flatten)]
        at: Where,
        /// Its number.
        #[arg(value_name = "NODE")]
        node: u64,
    },
    /// Hand the lead to another origin.
    Transfer {
        #[command(flatten)]
        at: Where,
        /// Its number; the one that is furthest if nothing is said.
        #[arg(value_name = "NODE", default_value_t = 0)]
        to: u64,
    },
}

/// Whom to ask.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Where {
    /// Any origin of the cluster.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9350")]
    origin: Address,
    #[command(flatten)]
    tls: Certificates,
}

/// What an origin with `link.tls` asks for: the same files that another origin has.
#[derive(Clone, Debug, clap::Args)]
struct Certificates {
    /// PEM certificate to show.
    #[arg(long, env = "SELVAGE_LINK__TLS__CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM key of that certificate.
    #[arg(long, env = "SELVAGE_LINK__TLS__KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// PEM roots that sign the origins' certificates.
    #[arg(long, env = "SELVAGE_LINK__TLS__CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The name in the origins' certificates, if it is not the host of the address.
    #[arg(long, env = "SELVAGE_LINK__TLS__NAME", value_name = "NAME")]
    tls_name: Option<String>,
}

/// How long an answer may take: a change needs a majority.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked whether somebody leads, and how many times: longer than an
/// election takes, shorter than the patience.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOKS: u32 = 25;

/// Runs it. Exit code 1 is a refusal, 3 no connection.
pub(crate) fn main(command: &Command) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(command)),
        Err(error) => Err(tonic::Status::internal(error.to_string())),
    };
    match done {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err(status) => {
            // What lies below a failed connection says more than that it failed.
            match std::error::Error::source(&status) {
                Some(cause) => complain(&chain(cause)),
                None => complain(status.message()),
            }
            let unreachable = status.code() == tonic::Code::Unavailable;
            ExitCode::from(if unreachable { 3 } else { 1 })
        }
    }
}

async fn run(command: &Command) -> Result<String, tonic::Status> {
    let work = async {
        match command {
            Command::Status(at) => {
                let status = at
                    .client(&at.origin)?
                    .status(StatusRequest { digest: true })
                    .await?;
                Ok(table(status.get_ref()))
            }
            Command::Add { at, new } => {
                let newcomer = at
                    .client(new)?
                    .status(StatusRequest::default())
                    .await?
                    .into_inner();
                let request = AddRequest {
                    node: 0,
                    address: new.to_string(),
                    name: newcomer.name,
                    stamp: newcomer.stamp,
                };
                let reply = at.led().await?.add(request).await?;
                Ok(format!("added node={}\n", reply.get_ref().node))
            }
            Command::Remove { at, node } => {
                let node = *node;
                at.led().await?.remove(RemoveRequest { node }).await?;
                Ok(format!("removed node={node}\n"))
            }
            Command::Transfer { at, to } => {
                let to = *to;
                at.led().await?.transfer(TransferRequest { to }).await?;
                Ok("asked to hand over\n".to_owned())
            }
        }
    };
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(tonic::Status::unavailable("no answer in time")))
}

impl Where {
    /// The origin, as soon as it knows who leads: it hands a change on to there by itself, and
    /// can reach that address where we perhaps cannot. After some time it is left to it to say
    /// that nobody does.
    async fn led(&self) -> Result<ClusterClient<Channel>, tonic::Status> {
        let mut client = self.client(&self.origin)?;
        for _ in 0..LOOKS {
            let status = client.status(StatusRequest::default()).await?;
            if status.get_ref().leader != 0 || status.get_ref().blank {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(client)
    }

    fn client(&self, address: &Address) -> Result<ClusterClient<Channel>, tonic::Status> {
        let wrong = |text: String| tonic::Status::invalid_argument(text);
        let files = Tls {
            cert: self.tls.tls_cert.clone(),
            key: self.tls.tls_key.clone(),
            ca: self.tls.tls_ca.clone(),
            name: self.tls.tls_name.clone(),
        };
        files.validate().map_err(|invalid| {
            let node::config::Invalid { key, expected, .. } = invalid;
            wrong(format!("--tls-{key}: expected {expected}"))
        })?;
        let loaded = files.load().map_err(|error| wrong(chain(&error)))?;
        let tls = loaded.map(|mutual| mutual.client);
        let channel = node::link::connect_tls(address, &Settings::default(), tls.as_ref())
            .map_err(|error| wrong(error.to_string()))?;
        Ok(ClusterClient::new(channel))
    }
}

/// One line for the origin that was asked and one for each member, as words that programs
/// read.
fn table(status: &ClusterStatus) -> String {
    let mut text = format!(
        "origin={} node={} leader={} term={} last={} committed={} applied={} digest={}\n",
        status.name,
        status.node,
        status.leader,
        status.term,
        status.last,
        status.committed,
        status.applied,
        status.digest
    );
    if status.blank {
        text.push_str("it does not belong to a cluster yet");
        if !status.waiting.is_empty() {
            text.push_str(&format!(": {}", status.waiting));
        }
        text.push('\n');
        return text;
    }
    let leads = status.leader == status.node;
    for member in &status.members {
        let role = match (member.node == status.leader, member.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        text.push_str(&format!(
            "member={} name={} address={} role={role}",
            member.node, member.name, member.address
        ));
        // Only the leader knows.
        if leads {
            let active = if member.active { "yes" } else { "no" };
            text.push_str(&format!(" matched={} active={active}", member.matched));
        }
        text.push('\n');
    }
    text
}

#[allow(clippy::print_stdout, reason = "the answer is what the command is for")]
fn say(text: &str) {
    print!("{text}");
}

#[allow(clippy::print_stderr, reason = "people read why it failed")]
fn complain(text: &str) {
    eprintln!("selvage: {text}");
}
