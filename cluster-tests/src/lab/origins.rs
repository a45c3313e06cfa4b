//! What origins say of their cluster, and changes of it, by the commands for operators.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::cluster::Node;
use super::process::{Finished, Process};
use super::until::{SOON, until_some};

/// Patience for an operator's command.
const COMMAND: Duration = Duration::from_secs(40);

/// What an origin says of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Its number.
    pub node: u64,
    /// The number of the one that leads; 0 if it knows none.
    pub leader: u64,
    /// How far its log is applied.
    pub applied: u64,
    /// What the state of its ledger comes to.
    pub digest: String,
    /// The members: number and role.
    pub members: BTreeMap<u64, String>,
}

/// `selvage cluster …` at an origin.
///
/// # Panics
/// When it does not end.
#[track_caller]
pub fn command(origin: SocketAddr, words: &[&str]) -> Finished {
    let at = origin.to_string();
    let (first, rest) = words.split_first().expect("a command");
    let args = ["cluster", first, "--origin", &at];
    let name = format!("cluster {words:?}");
    Process::selvage(&name, args.iter().chain(rest)).wait(COMMAND)
}

/// How the cluster stands, if the origin answers and belongs to one.
#[track_caller]
pub fn standing(origin: SocketAddr) -> Option<Standing> {
    let said = command(origin, &["status"]);
    if !said.status.success() {
        return None;
    }
    let mut standing = Standing::default();
    for line in said.stdout.lines() {
        let fields: BTreeMap<&str, &str> = line
            .split_whitespace()
            .filter_map(|field| field.split_once('='))
            .collect();
        let number = |key| fields.get(key).and_then(|value| value.parse().ok());
        if let Some(member) = number("member") {
            let role = fields.get("role").copied().unwrap_or_default();
            standing.members.insert(member, role.to_owned());
        } else if fields.contains_key("origin") {
            standing.node = number("node").unwrap_or_default();
            standing.leader = number("leader").unwrap_or_default();
            standing.applied = number("applied").unwrap_or_default();
            standing.digest = fields.get("digest").copied().unwrap_or_default().to_owned();
        }
    }
    (!standing.members.is_empty()).then_some(standing)
}

/// Which of these origins leads, by its own account.
///
/// # Panics
/// When none does for long.
#[track_caller]
pub fn leader_of(origins: &[Node]) -> usize {
    until_some("an origin leads", SOON, || {
        origins.iter().position(|origin| {
            standing(origin.addr).is_some_and(|s| s.node != 0 && s.leader == s.node)
        })
    })
}

/// Waits until the one that leads says that the cluster has so many voters and no learners.
///
/// # Panics
/// When it has not after `patience`; tells how it stands then.
#[track_caller]
pub fn until_voters(origins: &[Node], voters: usize, patience: Duration) -> Standing {
    let mut last = None;
    let started = std::time::Instant::now();
    loop {
        for origin in origins {
            let Some(standing) = standing(origin.addr) else {
                continue;
            };
            let learners = standing.members.values().any(|role| role == "learner");
            if standing.leader == standing.node && standing.members.len() == voters && !learners {
                return standing;
            }
            last = Some(standing);
        }
        assert!(
            started.elapsed() < patience,
            "the cluster has not got {voters} voters: {last:?}"
        );
    }
}
