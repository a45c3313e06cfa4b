//! `selvage cluster`: who belongs to a cluster, and changes of it.

use std::process::ExitCode;
use std::time::Duration;

use fabric::v1::cluster_client::ClusterClient;
use fabric::v1::{AddRequest, ClusterStatus, RemoveRequest, StatusRequest, TransferRequest};
use node::link::{Address, Settings};
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
}

/// How long an answer may take: a change needs a majority.
const PATIENCE: Duration = Duration::from_secs(15);

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
            complain(status.message());
            let unreachable = status.code() == tonic::Code::Unavailable;
            ExitCode::from(if unreachable { 3 } else { 1 })
        }
    }
}

async fn run(command: &Command) -> Result<String, tonic::Status> {
    let work = async {
        match command {
            Command::Status(at) => {
                let status = client(&at.origin)?
                    .status(StatusRequest { digest: true })
                    .await?;
                Ok(table(status.get_ref()))
            }
            Command::Add { at, new } => {
                let newcomer = client(new)?
                    .status(StatusRequest::default())
                    .await?
                    .into_inner();
                let request = AddRequest {
                    node: 0,
                    address: new.to_string(),
                    name: newcomer.name,
                    stamp: newcomer.stamp,
                };
                let reply = client(&at.origin)?.add(request).await?;
                Ok(format!("added node={}\n", reply.get_ref().node))
            }
            Command::Remove { at, node } => {
                let node = *node;
                client(&at.origin)?.remove(RemoveRequest { node }).await?;
                Ok(format!("removed node={node}\n"))
            }
            Command::Transfer { at, to } => {
                let to = *to;
                client(&at.origin)?.transfer(TransferRequest { to }).await?;
                Ok("asked to hand over\n".to_owned())
            }
        }
    };
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(tonic::Status::unavailable("no answer in time")))
}

fn client(address: &Address) -> Result<ClusterClient<Channel>, tonic::Status> {
    let channel = node::link::connect(address, &Settings::default())
        .map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
    Ok(ClusterClient::new(channel))
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
