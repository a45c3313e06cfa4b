//! This origin's seat in the cluster: the shell around [`member::Member`].
//!
//! ```text
//!   other origins ══ Raft.Exchange ══▶ desk ─▶ driver ─▶ log's thread ─▶ disk
//!   edges ══════════ Shared.Attach ══▶  (owns the        │ written
//!   people ═════════ Cluster.* ══════▶   Member)  ◀──────┘
//!                                          │ └─▶ peers ══ Raft.Exchange ══▶ other origins
//!                                          └──▶ queues ══ Shared.Attach ══▶ edges
//!                                          └──▶ hub: who may publish
//! ```
//!
//! Where the others are is said by three sources, the surest first: the configuration
//! (`cluster.peers`), what an origin says of itself when it speaks, and the membership, which
//! holds the address that each was founded or added with.

mod commits;
mod desk;
mod driver;
mod expulsion;
mod founding;
mod patience;
mod peers;
mod queue;
mod record;
mod removal;
mod traces;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use member::{Member, about};
use model::{LogIndex, NodeId};
use tokio::sync::{mpsc, watch};

use crate::hub::Hub;
use crate::log::worker::{Timing, Worker};
use crate::log::{Log, Recovered};

pub use driver::{Lead, Standing};

pub(crate) use commits::Commits;
pub(crate) use desk::{Change, Changed, Desk, Input, Refused, Stage};
pub(crate) use founding::Ways;
pub(crate) use peers::{Book, Dial};
pub(crate) use queue::{End, Queue};

/// Inputs that wait for the driver. Each is a batch, and who hands in one waits for room.
const INPUTS: usize = 256;

/// Why the seat cannot be taken, or was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log on the disk.
    #[error(transparent)]
    Log(crate::log::Error),
    /// The log is whole, and holds what cannot be.
    #[error("the log does not fit together: {0}")]
    Restore(member::RestoreError),
    /// The log holds what this version never writes.
    #[error("the log holds entries of an unknown kind")]
    Unknown,
    /// The disk takes a write and does not come back from it.
    #[error("the disk has not come back from a write for {} s", .0.as_secs_f32())]
    Hung(Duration),
    /// A node's number is not 0.
    #[error("0 is no node's number")]
    Number,
}

/// How patient a member is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) heartbeat: Duration,
    pub(crate) election: Duration,
    pub(crate) edge_lease: Duration,
    /// How long one write to the log may take.
    pub(crate) disk: Duration,
    pub(crate) snapshot_entries: u64,
    /// How long one that was removed waits before it joins anew.
    pub(crate) rejoin: Duration,
}

/// A seat that is not taken yet.
pub(crate) struct Seat {
    pub(crate) log: Log,
    pub(crate) recovered: Recovered,
    pub(crate) ways: Ways,
    pub(crate) times: Times,
    pub(crate) desk: Desk,
    pub(crate) hub: Arc<Hub>,
    pub(crate) lead: watch::Sender<Lead>,
    pub(crate) timing: Timing,
    pub(crate) commits: Commits,
}

impl Seat {
    /// Comes to the cluster and takes part in it until `stop`. One that was removed may come
    /// back as another member. Nobody becomes a member who is `leaving`: it would be one that
    /// never answers.
    pub(crate) async fn run(
        self,
        leaving: impl Future<Output = ()>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let Self {
            mut log,
            mut recovered,
            mut ways,
            times,
            desk,
            hub,
            lead,
            timing,
            commits,
        } = self;
        tokio::pin!(leaving, stop);
        let configured = log.node();
        loop {
            let blank = recovered.is_blank();
            let restored = if blank {
                tokio::select! {
                    restored = founding::settle(&ways, &mut log, &desk) => restored?,
                    () = &mut leaving => {
                        stop.await;
                        return Ok(());
                    }
                    () = &mut stop => return Ok(()),
                }
            } else {
                record::restored(std::mem::take(&mut recovered)).ok_or(Error::Unknown)?
            };
            let node = founding::number(log.node()).ok_or(Error::Number)?;
            let stamp = log.instance();
            if !ways.founders.contains_key(&node) {
                desk.book().forget_configured();
            }
            let driver = Start {
                log,
                restored,
                times,
                desk: &desk,
                hub: &hub,
                lead: &lead,
                timing: &timing,
                commits: &commits,
            };
            let driver = driver.driver(node)?;
            let mut counted_on = lead.subscribe();
            let until = async {
                tokio::select! {
                    () = &mut stop => driver::Ended::Told,
                    () = expulsion::noticed(&ways, &desk, (node, stamp), lead.subscribe()) => {
                        driver::Ended::Removed
                    }
                }
            };
            // Whether it was one of the cluster in this life of the process.
            let mut was_level = blank;
            let watch = async {
                let level = |lead: &Lead| lead.standing == Standing::Level;
                if counted_on.wait_for(level).await.is_ok() {
                    was_level = true;
                }
                std::future::pending::<()>().await;
            };
            let (ended, left) = tokio::select! {
                ended = driver.run(until) => ended?,
                () = watch => return Ok(()),
            };
            let (driver::Ended::Removed, Some(old)) = (ended, left) else {
                return Ok(());
            };
            let tell = |then| expulsion::tell(&desk, &lead, node, stamp, then);
            if ways.join.is_empty() {
                tell(
                    "it stays out: empty its folder, or name cluster.join, and it joins anew"
                        .into(),
                );
                stop.await;
                return Ok(());
            }
            if was_level {
                tell("it stays out until it is started again, and then joins anew".into());
                stop.await;
                return Ok(());
            }
            let after = node::config::format_duration(times.rejoin);
            tell(format!(
                "it joins anew after {after}, and sets its old files aside"
            ));
            tokio::select! {
                () = tokio::time::sleep(times.rejoin) => {}
                () = &mut leaving => {
                    stop.await;
                    return Ok(());
                }
                () = &mut stop => return Ok(()),
            }
            // Its name must not be that of a founder's number any more: it founds nothing.
            ways = ways.joining();
            log = old
                .set_aside(configured, crate::chance())
                .map_err(Error::Log)?;
            recovered = Recovered::default();
            lead.send_replace(Lead::default());
            tracing::warn!(
                was = %node,
                "the files of the member that was removed are set aside, with the ending .removed-{node}-{stamp:016x}"
            );
        }
    }
}

/// What a driver is made of.
struct Start<'a> {
    log: Log,
    restored: member::Restored,
    times: Times,
    desk: &'a Desk,
    hub: &'a Arc<Hub>,
    lead: &'a watch::Sender<Lead>,
    timing: &'a Timing,
    commits: &'a Commits,
}

impl Start<'_> {
    fn driver(self, node: NodeId) -> Result<driver::Driver, Error> {
        let Self {
            log,
            restored,
            times,
            desk,
            hub,
            lead,
            timing,
            commits,
        } = self;
        let stamp = log.instance();
        let (last, saved) = (
            log.last(),
            restored.saved.as_ref().map(|saved| saved.index.0),
        );
        tracing::info!(%node, last, saved, "log replayed");
        // Chance must differ between nodes and between their lives.
        let mut setup = member::Setup::new(node, stamp, crate::chance());
        setup.consensus.heartbeat = times.heartbeat;
        setup.consensus.election = times.election;
        setup.consensus.tick = times.heartbeat / 2;
        setup.edge_lease = times.edge_lease;
        setup.snapshot_entries = times.snapshot_entries;
        let now = tokio::time::Instant::now().into_std();
        let member = Member::new(setup, restored, now).map_err(Error::Restore)?;

        let (inputs, inputs_in) = mpsc::channel(INPUTS);
        let (done, done_in) = mpsc::unbounded_channel();
        let (sent, sent_in) = mpsc::unbounded_channel();
        let worker = Worker::start(log, done, timing.clone()).map_err(Error::Log)?;
        let voice = peers::Voice {
            node,
            cluster: desk.cluster(),
            name: desk.name().to_owned(),
            address: desk.address().to_owned(),
        };
        let peers = peers::Peers::new(voice, desk.dial().clone(), desk.book().clone(), sent);
        desk.enter(Stage::Running {
            node,
            stamp,
            inputs,
        });
        Ok(driver::Driver {
            membership: member.status().log.membership,
            member,
            node,
            desk: desk.clone(),
            inputs: inputs_in,
            worker,
            done: done_in,
            peers,
            sent: sent_in,
            hub: Arc::clone(hub),
            lead: lead.clone(),
            edges: BTreeMap::new(),
            changes: Vec::new(),
            disowned: false,
            traces: traces::Traces::new(node, last),
            commits: commits.of(LogIndex(last)),
            disk: patience::Patience::new(times.disk, tokio::time::Instant::now()),
        })
    }
}

/// The membership for people.
fn roster(membership: &consensus::Membership) -> Vec<fabric::v1::Member> {
    let members = membership.about.iter();
    members
        .map(|(id, about)| {
            let (name, address) = about::read(&about.text);
            fabric::v1::Member {
                node: id.0.get(),
                address: address.to_owned(),
                name: name.to_owned(),
                voter: membership.is_voter(*id),
                stamp: about.stamp,
                ..fabric::v1::Member::default()
            }
        })
        .collect()
}

/// Those who have left, for people and for themselves.
fn gone(membership: &consensus::Membership) -> Vec<fabric::v1::Member> {
    let departed = membership.departed.iter();
    departed
        // While a change is under way their votes still count.
        .filter(|(id, _)| !membership.has(**id))
        .map(|(id, about)| fabric::v1::Member {
            node: id.0.get(),
            name: about::read(&about.text).0.to_owned(),
            stamp: about.stamp,
            ..fabric::v1::Member::default()
        })
        .collect()
}

/// The number of an origin by its name: `origin-2` is 3.
pub(crate) fn number_of(name: &str) -> Option<NodeId> {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let ordinal: u64 = name.get(name.len() - digits..)?.parse().ok()?;
    founding::number(ordinal.checked_add(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_the_number_behind_its_ordinal() {
        let of = |name| number_of(name).map(|node| node.0.get());
        assert_eq!(of("origin-0"), Some(1));
        assert_eq!(of("media-origin-12"), Some(13));
        assert_eq!(of("origin"), None);
        assert_eq!(of("origin-18446744073709551615"), None);
    }
}
