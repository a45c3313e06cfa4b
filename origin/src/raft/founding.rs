//! How an origin with an empty folder comes to its cluster.
//!
//! ```text
//!   no peers, none to join ───────────────────────────▶ found one alone
//!   else ask all of both, again and again:
//!     one belongs to a cluster that knows this folder ─▶ wait for its leader
//!     one belongs to a cluster that does not ──────────▶ be added, under a new number
//!     this is none of the peers ───────────────────────▶ ask again
//!     all have answered, and all have empty folders ───▶ the peers found one together
//! ```
//!
//! An origin that has lost its folder therefore never speaks as the one that it was: what
//! that one had promised is forgotten, and its number is taken out of the cluster in the
//! step that adds the new one. And it founds no second cluster while one that it was told of
//! is silent, since that one may belong to the first.

mod rules;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use fabric::v1::cluster_client::ClusterClient;
use fabric::v1::{AddRequest, ClusterStatus, StatusRequest};
use member::{Restored, about};
use model::NodeId;
use node::link::Address;
use node::resolve::Entry;

use super::desk::{Desk, Stage};
use super::{Error, record};
use crate::log::Log;
use rules::{Answer, Me, Verdict, Why};

/// How long after an answer others are asked again: as long as something comes of it, and at
/// most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// How long an answer may take, and the look-up of a name.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a change of the cluster may take.
const ADDED: Duration = Duration::from_secs(10);

/// Addresses of one name that are asked: more than a cluster has origins.
const ASKED_PER_NAME: usize = 64;

/// Where others may be found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    /// The founders.
    pub(crate) founders: BTreeMap<NodeId, Address>,
    /// Where a cluster may be found, whoever founded it.
    pub(crate) join: Vec<Entry>,
}

impl Ways {
    /// The same places for one that founds nothing.
    pub(super) fn joining(mut self) -> Self {
        let founders = std::mem::take(&mut self.founders).into_values();
        for founder in founders.map(Entry::Fixed) {
            if !self.join.contains(&founder) {
                self.join.push(founder);
            }
        }
        self
    }

    /// Whether this origin, which is reached at `address`, was told of nobody but itself, and
    /// may found a cluster.
    fn alone(&self, me: NodeId, address: &str) -> bool {
        let itself = |entry: &Entry| entry.to_string() == address;
        let founds = self.founders.contains_key(&me) || self.join.is_empty();
        founds && self.founders.keys().all(|id| *id == me) && self.join.iter().all(itself)
    }
}

/// Asks everybody who is known at all, and gives what they answer.
pub(super) async fn ask_everybody(
    ways: &Ways,
    me: NodeId,
    desk: &Desk,
) -> Vec<(Address, ClusterStatus)> {
    let mut ways = ways.clone();
    let members = desk.book().everybody().into_iter();
    let members = members.filter(|address| address.to_string() != desk.address());
    ways.join.extend(members.map(Entry::Fixed));
    let heard = ask(&ways, me, desk).await;
    heard.into_iter().filter_map(|answer| answer.said).collect()
}

/// Finds or founds the cluster. The log holds what must be remembered of it when this
/// returns.
pub(super) async fn settle(ways: &Ways, log: &mut Log, desk: &Desk) -> Result<Restored, Error> {
    let me = Me {
        node: number(log.node()).ok_or(Error::Number)?,
        stamp: log.instance(),
        name: desk.name(),
        address: desk.address(),
    };
    if ways.alone(me.node, me.address) {
        tracing::info!(node = %me.node, "founding a cluster of one");
        let about = about::write(me.stamp, me.name, me.address);
        return found([(me.node, about)], log);
    }
    let blank = |waiting: String| {
        desk.enter(Stage::Blank {
            node: me.node.0.get(),
            stamp: me.stamp,
            founders: rules::listed(&ways.founders),
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
        let heard = ask(ways, me.node, desk).await;
        let pause = match rules::judge(&me, &ways.founders, &heard) {
            Verdict::Belong(address, status) => match belong(status, address, log, desk).await {
                Ok(()) => return Ok(Restored::default()),
                Err(why) => say(Why::NotYet(why)),
            },
            Verdict::Found(founders) => {
                tracing::info!(node = %me.node, founders = founders.len(), "founding a cluster");
                return found(founders, log);
            }
            Verdict::Wait(why) => say(why),
        };
        tokio::time::sleep(pause).await;
    }
}

fn found(
    founders: impl IntoIterator<Item = (NodeId, consensus::About)>,
    log: &mut Log,
) -> Result<Restored, Error> {
    let restored = Restored::founding(founders);
    log.append(&[record::founding(&restored)])
        .map_err(Error::Log)?;
    Ok(restored)
}

/// Asks everybody at once: the other founders, and those to join that are none of them.
async fn ask(ways: &Ways, me: NodeId, desk: &Desk) -> Vec<Answer> {
    let mut asked: Vec<(Option<NodeId>, String, Option<Address>)> = Vec::new();
    for (id, address) in ways.founders.iter().filter(|(id, _)| **id != me) {
        asked.push((Some(*id), address.to_string(), Some(address.clone())));
    }
    for entry in &ways.join {
        match entry {
            Entry::Fixed(address) if ways.founders.values().any(|known| known == address) => {}
            Entry::Fixed(address) => {
                asked.push((None, address.to_string(), Some(address.clone())));
            }
            Entry::Name { host, port } => {
                let found = look_up(host, *port).await;
                if found.is_empty() {
                    asked.push((None, entry.to_string(), None));
                }
                for address in found {
                    asked.push((None, address.to_string(), Some(address)));
                }
            }
        }
    }
    let answers = asked.into_iter().map(|(founder, at, address)| async move {
        let said = match address {
            Some(address) => status(&address, desk).await.map(|status| (address, status)),
            None => None,
        };
        Answer { at, founder, said }
    });
    futures_util::future::join_all(answers).await
}

/// Every address of a name; none while it has none, which DNS says of services whose first pod
/// is being made.
async fn look_up(host: &str, port: u16) -> Vec<Address> {
    let found = tokio::time::timeout(ANSWER, tokio::net::lookup_host((host, port))).await;
    let Ok(Ok(found)) = found else {
        return Vec::new();
    };
    let addresses = found.map(|addr| Address::Tcp(addr.to_string()));
    addresses.take(ASKED_PER_NAME).collect()
}

async fn status(address: &Address, desk: &Desk) -> Option<ClusterStatus> {
    let channel = desk.dial().channel(address).ok()?;
    let mut client = ClusterClient::new(channel);
    let answer = tokio::time::timeout(ANSWER, client.status(StatusRequest::default())).await;
    let status = answer.ok()?.ok()?.into_inner();
    let ours = status.cluster == desk.cluster();
    if !ours {
        tracing::warn!(%address, "belongs to another cluster");
    }
    ours.then_some(status)
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
