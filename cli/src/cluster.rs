//! `selvage cluster`: who belongs to a cluster, and changes of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fabric::v1::cluster_client::ClusterClient;
use fabric::v1::{
    AddRequest, ClusterStatus, RemoveReply, RemoveRequest, StatusRequest, TransferRequest,
};
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
    /// Remove origins for good, all of them in one step: their numbers are not given again. What
    /// is not there any more is no error.
    #[command(after_help = REMOVE_HELP)]
    Remove {
        #[command(flatten)]
        at: Where,
        /// Also when those who would be left were not heard of lately.
        #[arg(long)]
        force: bool,
        /// Their names, or their numbers.
        #[arg(value_name = "NAME|NODE", required = true)]
        origins: Vec<String>,
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

const REMOVE_HELP: &str =
    "One that leads hands over first. The last origin is not removed, nor one \
without which a majority of those who are left is not there (unless --force). To go from three \
origins to one name both in one command: between two commands there would be two voters, of which \
none may fail. A majority of those before must be there in any case.

Exit codes:
  0   they are removed, or were before
  1   refused
  2   the command line is wrong
  3   no connection, nobody leads, or no answer in time
  4   there was never such an origin, or it left too long ago to be remembered";

/// How long it is asked again whether those who would be left are there: a leader that has just
/// been elected has not heard of all yet.
const THERE: Duration = Duration::from_secs(2);

/// How long an answer may take: a change needs a majority.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is looked whether somebody leads, and how many times: longer than an
/// election takes, shorter than the patience.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LOOKS: u32 = 25;

/// Runs it. Exit code 1 is a refusal, 3 no connection, 4 that there is no such origin.
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
            let unknown = status.code() == tonic::Code::NotFound;
            let unreachable = status.code() == tonic::Code::Unavailable;
            ExitCode::from(match (unknown, unreachable) {
                (true, _) => 4,
                (_, true) => 3,
                (false, false) => 1,
            })
        }
    }
}

async fn run(command: &Command) -> Result<String, tonic::Status> {
    // Said when the time is over, since it says more than that.
    let mut refused = None;
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
            Command::Remove { at, force, origins } => {
                remove(at, *force, origins, &mut refused).await
            }
            Command::Transfer { at, to } => {
                let to = *to;
                at.led().await?.transfer(TransferRequest { to }).await?;
                Ok("asked to hand over\n".to_owned())
            }
        }
    };
    let done = tokio::time::timeout(PATIENCE, work).await;
    let late = || tonic::Status::unavailable("no answer in time");
    done.unwrap_or_else(|_| Err(refused.unwrap_or_else(late)))
}

/// Asks again while somebody is about to lead: the one that did may be among them, and hands
/// over first. Who was removed by an earlier answer that was lost is no error.
async fn remove(
    at: &Where,
    force: bool,
    origins: &[String],
    refused: &mut Option<tonic::Status>,
) -> Result<String, tonic::Status> {
    let started = tokio::time::Instant::now();
    loop {
        let request = RemoveRequest {
            origins: origins.to_vec(),
            force,
        };
        let why = match at.led().await?.remove(request).await {
            Ok(reply) => return Ok(told(reply.get_ref())),
            Err(why) => why,
        };
        let again = match why.code() {
            tonic::Code::Unavailable => true,
            tonic::Code::Aborted => started.elapsed() < THERE,
            _ => false,
        };
        if !again {
            return Err(why);
        }
        *refused = Some(why);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn told(reply: &RemoveReply) -> String {
    let mut text = String::new();
    for one in &reply.removed {
        let what = if one.before { "gone" } else { "removed" };
        text.push_str(&format!("{what} node={} name={}\n", one.node, one.name));
    }
    text
}

impl Where {
    /// The origin, as soon as it knows who leads: it hands a change on to there by itself, and
    /// can reach that address where we perhaps cannot. After some time it is left to it to say
    /// that nobody does.
    async fn led(&self) -> Result<ClusterClient<Channel>, tonic::Status> {
        let mut client = self.client(&self.origin)?;
        for _ in 0..LOOKS {
            let status = client.status(StatusRequest::default()).await?;
            let status = status.get_ref();
            if status.leader != 0 || status.blank || status.removed {
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
    if status.removed {
        text.push_str(&format!(
            "it was removed from the cluster: {}\n",
            status.waiting
        ));
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
