//! How an origin with an empty folder comes to its cluster.
//!
//! ```text
//!   no peers, none to join ───────────────────────────▶ found one alone
//!   else ask all of them, again and again:
//!     one belongs to a cluster that knows this folder ─▶ wait for its leader
//!     one belongs to a cluster that does not ──────────▶ be added, under a new number
//!     all peers are there, and all have empty folders ─▶ found one together
//! ```
//!
//! An origin that has lost its folder therefore never speaks as the one that it was: what
//! that one had promised is forgotten, and its number is taken out of the cluster in the
//! step that adds the new one.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use fabric::v1::cluster_client::ClusterClient;
use fabric::v1::{AddRequest, ClusterStatus, StatusRequest};
use member::{Restored, about};
use model::NodeId;
use node::link::Address;

use super::desk::{Desk, Stage};
use super::{Error, record};
use crate::log::Log;

/// How long after an answer others are asked again: as long as something comes of it, and at
/// most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a change of the cluster may take.
const ADDED: Duration = Duration::from_secs(10);

/// Where others may be found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    /// The founders, this one among them.
    pub(crate) founders: BTreeMap<NodeId, Address>,
    /// Any members of a cluster that exists.
    pub(crate) join: Vec<Address>,
}

/// Finds or founds the cluster. The log holds what must be remembered of it when this
/// returns.
pub(super) async fn settle(ways: &Ways, log: &mut Log, desk: &Desk) -> Result<Restored, Error> {
    let me = number(log.node()).ok_or(Error::Number)?;
    let stamp = log.instance();
    if ways.join.is_empty() && ways.founders.keys().all(|id| *id == me) {
        tracing::info!(node = %me, "founding a cluster of one");
        let restored = Restored::founding([(me, about::write(stamp, desk.name(), desk.address()))]);
        log.append(&[record::founding(&restored)])
            .map_err(Error::Log)?;
        return Ok(restored);
    }
    let blank = |waiting: String| {
        desk.enter(Stage::Blank {
            node: me.0.get(),
            stamp,
            founders: listed(ways),
            waiting,
        });
    };
    blank(String::new());
    let mut said = String::new();
    let mut again = AGAIN.0;
    // The same reason again and again is said once, and asked after less often.
    let mut say = |why: Why| {
        let text = why.to_string();
        if said == text {
            again = (again * 2).min(AGAIN.1);
        } else {
            again = AGAIN.0;
            match why {
                Why::NotYet(_) => tracing::info!(why = text, "waiting for the cluster"),
                Why::Never(_) => tracing::error!(why = text, "no cluster comes about like this"),
            }
            blank(text.clone());
            said = text;
        }
        again
    };
    loop {
        let others = ask(ways, me, desk).await;
        let pause = if let Some((address, status)) = others.cluster() {
            match belong(status, address, log, desk).await {
                Ok(()) => return Ok(Restored::default()),
                Err(why) => say(Why::NotYet(why)),
            }
        } else if !ways.join.is_empty() {
            say(Why::NotYet("no cluster to join answers".into()))
        } else {
            match others.founders(ways, me, stamp, desk) {
                Ok(founders) => {
                    tracing::info!(node = %me, founders = founders.len(), "founding a cluster");
                    let restored = Restored::founding(founders);
                    log.append(&[record::founding(&restored)])
                        .map_err(Error::Log)?;
                    return Ok(restored);
                }
                Err(why) => say(why),
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Why there is no cluster.
enum Why {
    /// It may come about by itself.
    NotYet(String),
    /// Somebody is set up wrongly.
    Never(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet(why) | Self::Never(why) => f.write_str(why),
        }
    }
}

fn listed(ways: &Ways) -> Vec<fabric::v1::Member> {
    let founders = ways.founders.iter();
    founders
        .map(|(id, address)| fabric::v1::Member {
            node: id.0.get(),
            address: address.to_string(),
            ..fabric::v1::Member::default()
        })
        .collect()
}

/// What the others said.
struct Others {
    founders: BTreeMap<NodeId, Option<ClusterStatus>>,
    found: Vec<(Address, ClusterStatus)>,
}

async fn ask(ways: &Ways, me: NodeId, desk: &Desk) -> Others {
    let founders = ways.founders.iter().filter(|(id, _)| **id != me);
    let asked: Vec<(Option<NodeId>, Address)> = founders
        .map(|(id, address)| (Some(*id), address.clone()))
        .chain(ways.join.iter().map(|address| (None, address.clone())))
        .collect();
    let answers = asked.iter().map(|(_, address)| status(address, desk));
    let answers = futures_util::future::join_all(answers).await;
    let mut others = Others {
        founders: BTreeMap::new(),
        found: Vec::new(),
    };
    for ((id, address), answer) in asked.into_iter().zip(answers) {
        let answer = answer.filter(|status| {
            let ours = status.cluster == desk.cluster();
            if !ours {
                tracing::warn!(%address, "belongs to another cluster");
            }
            ours
        });
        if let Some(id) = id {
            others.founders.insert(id, answer.clone());
        }
        if let Some(answer) = answer {
            others.found.push((address, answer));
        }
    }
    others
}

async fn status(address: &Address, desk: &Desk) -> Option<ClusterStatus> {
    let channel = desk.dial().channel(address).ok()?;
    let mut client = ClusterClient::new(channel);
    let answer = tokio::time::timeout(ANSWER, client.status(StatusRequest::default())).await;
    Some(answer.ok()?.ok()?.into_inner())
}

impl Others {
    /// One that belongs to a cluster, preferably one that knows who leads it.
    fn cluster(&self) -> Option<(&Address, &ClusterStatus)> {
        let standing = self
            .found
            .iter()
            .filter(|(_, status)| !status.blank && !status.members.is_empty());
        standing
            .max_by_key(|(_, status)| (status.leader != 0, status.applied))
            .map(|(address, status)| (address, status))
    }

    /// All founders, if all are there and ready.
    fn founders(
        &self,
        ways: &Ways,
        me: NodeId,
        stamp: u64,
        desk: &Desk,
    ) -> Result<Vec<(NodeId, consensus::About)>, Why> {
        if !ways.founders.contains_key(&me) {
            let why = format!("this origin, {me}, is not among its peers");
            return Err(Why::Never(why));
        }
        let mut founders = Vec::new();
        for (id, address) in &ways.founders {
            let text = address.to_string();
            if *id == me {
                founders.push((me, about::write(stamp, desk.name(), &text)));
                continue;
            }
            let status = self
                .founders
                .get(id)
                .and_then(Option::as_ref)
                .ok_or_else(|| Why::NotYet(format!("peer {id} at {address} does not answer")))?;
            if !status.blank {
                return Err(Why::NotYet(format!(
                    "peer {id} at {address} has begun, and has no members yet"
                )));
            }
            if status.node != id.0.get() {
                return Err(Why::Never(format!(
                    "{address} is configured as peer {id}, and says that it is {}",
                    status.node
                )));
            }
            if status.members != listed(ways) {
                return Err(Why::Never(format!(
                    "peer {id} at {address} is configured with other peers"
                )));
            }
            founders.push((*id, about::write(status.stamp, &status.name, &text)));
        }
        Ok(founders)
    }
}

/// Becomes a member of a cluster that exists, unless it is one already.
async fn belong(
    status: &ClusterStatus,
    address: &Address,
    log: &mut Log,
    desk: &Desk,
) -> Result<(), String> {
    let stamp = log.instance();
    if let Some(at) = number(status.node) {
        desk.book().learned(at, address.clone());
    }
    let known = status
        .members
        .iter()
        .find(|member| member.name == desk.name() && member.stamp == stamp);
    let node = match known {
        Some(member) => member.node,
        None => {
            tracing::info!(%address, "asking to be added to the cluster");
            let channel = desk.dial().channel(address).map_err(|e| e.to_string())?;
            let request = AddRequest {
                node: 0,
                address: desk.address().to_owned(),
                name: desk.name().to_owned(),
                stamp,
            };
            let mut client = ClusterClient::new(channel);
            let added = tokio::time::timeout(ADDED, client.add(request)).await;
            let reply = added
                .map_err(|_| "being added takes too long".to_owned())?
                .map_err(|status| format!("cannot be added: {}", status.message()))?
                .into_inner();
            for member in &reply.members {
                if let Some(id) = number(member.node) {
                    desk.book().heard(id, &member.address);
                }
            }
            reply.node
        }
    };
    for member in &status.members {
        if let Some(id) = number(member.node) {
            desk.book().heard(id, &member.address);
        }
    }
    log.renumber(node).map_err(|error| error.to_string())?;
    tracing::info!(node, "belongs to the cluster");
    Ok(())
}

pub(super) fn number(number: u64) -> Option<NodeId> {
    NonZeroU64::new(number).map(NodeId)
}
