//! What an origin does that was removed from its cluster.
//!
//! Who is removed is told nothing more, so it has to ask: while it is not level with the
//! cluster it asks the others again and again whether they know of its removal. That cannot be
//! mistaken: they name the stamp of this folder, and what they know of removals was decided.
//!
//! It then takes no part any more, and is not ready. Where `cluster.join` says where the
//! cluster is, an origin that *starts* and finds that it was removed comes back as a new member,
//! after `cluster.rejoin_after`; its old files are set aside in its folder, not deleted. One that
//! is removed while it runs stays out until it is started again: whoever removed it is about to
//! end it, and two voters of which one ends are no cluster.

use std::time::Duration;

use fabric::v1::ClusterStatus;
use model::NodeId;
use tokio::sync::watch;

use super::desk::{Desk, Stage};
use super::driver::{Lead, Standing};
use super::founding::{self, Ways};

/// How long an origin may be out of touch with its cluster before it asks whether it was
/// removed, and how long before it asks again. Longer than an election and a usual start.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Returns when others say that the origin with this folder was removed.
pub(super) async fn noticed(
    ways: &Ways,
    desk: &Desk,
    (me, stamp): (NodeId, u64),
    mut lead: watch::Receiver<Lead>,
) {
    loop {
        let away = |lead: &Lead| lead.standing != Standing::Level;
        if lead.wait_for(away).await.is_err() {
            // The member is gone, and with it who wants to know.
            return std::future::pending().await;
        }
        let back = tokio::time::timeout(ASK_EVERY, lead.wait_for(|lead| !away(lead)));
        if back.await.is_ok() {
            continue;
        }
        let heard = founding::ask_everybody(ways, me, desk).await;
        if let Some((address, _)) = heard.iter().find(|(_, said)| departed(said, me, stamp)) {
            tracing::debug!(%address, "says that this origin was removed");
            return;
        }
    }
}

/// Whether the cluster of who says this has removed the node with this folder.
fn departed(said: &ClusterStatus, me: NodeId, stamp: u64) -> bool {
    let mut departed = said.departed.iter();
    departed.any(|one| one.node == me.0.get() && one.stamp == stamp)
}

/// Says to everybody that this origin was removed, and what it does about that.
pub(super) fn tell(desk: &Desk, lead: &watch::Sender<Lead>, me: NodeId, stamp: u64, then: String) {
    tracing::warn!(node = %me, then, "this origin was removed from the cluster");
    lead.send_replace(Lead {
        standing: Standing::Removed,
        ..Lead::default()
    });
    desk.enter(Stage::Removed {
        node: me,
        stamp,
        then,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_that_was_removed_is_meant() {
        let me = NodeId(std::num::NonZeroU64::new(3).unwrap());
        let member = |node, stamp| fabric::v1::Member {
            node,
            stamp,
            ..fabric::v1::Member::default()
        };
        let said = |departed: Vec<_>| ClusterStatus {
            departed,
            members: vec![member(3, 33)],
            ..ClusterStatus::default()
        };
        assert!(departed(&said(vec![member(2, 22), member(3, 33)]), me, 33));
        assert!(!departed(&said(vec![member(3, 34)]), me, 33));
        assert!(!departed(&said(vec![member(4, 33)]), me, 33));
        assert!(!departed(&said(Vec::new()), me, 33));
    }
}
