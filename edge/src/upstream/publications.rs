//! The publishes of this edge's clients: claimed in the replicated log, placed at an
//! origin.
//!
//! ```text
//!            granted                  granted by an origin
//!   asked ───────────▶ held ─ placed ──────────────────────▶ running
//!     │ standby          ▲                                      │
//!     └──────────▶ standing by        a new grant of the log ───┘
//! ```
//!
//! The log decides who holds a name and gives the epoch; an origin takes any publish whose
//! epoch is not older than what it knows. A publish that runs is not disturbed when the log
//! is out of reach.

use bytes::Bytes;
use fabric::v1::refused::Reason;
use ledger::replica::ClaimOutcome;
use model::{Epoch, StreamKey};
use node::telemetry::{Kind, Phase, SpanPlace};
use tracing::{debug, info};

use super::Upstream;
use super::channels::Subscribed;
use crate::link::{Command, LinkId};
use crate::shard::{PublicationId, ShardHandle, ToShard};
use crate::shared::ToShared;

/// One publish.
pub(super) struct Publication {
    key: StreamKey,
    shard: ShardHandle,
    /// The span of the wish.
    span: Option<SpanPlace>,
    /// From the wish until the log has decided.
    claiming: Phase,
    /// The span of the origin that holds it, or did.
    owner: Option<SpanPlace>,
    claim: Claim,
    /// The epoch from which on it is one stream to its viewers; the first grant says it.
    began: Option<Epoch>,
    /// The link that granted it, and the number there.
    granted: Option<(LinkId, u32)>,
    /// The link that was asked, and the number there.
    asked: Option<(LinkId, u32)>,
    /// The shard has an uplink, and knows where it stands.
    begun: bool,
    /// The shard was asked where it stands.
    reattaching: bool,
    /// It stands here; known once the shard has answered.
    resume: Option<(Epoch, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// The log has not said that it holds the name.
    Open,
    /// It holds the name.
    Held(Epoch),
}

impl Upstream {
    pub(super) fn publish(
        &mut self,
        publication: PublicationId,
        key: StreamKey,
        token: Bytes,
        shard: ShardHandle,
        span: Option<SpanPlace>,
    ) {
        let mut claiming = Phase::child("fabric.claim", Kind::Client, span);
        claiming.show("selvage.stream.key", &key);
        let trace = claiming.sampled().map(|place| place.text());
        self.shared.send(ToShared::Claim {
            publication,
            key: key.clone(),
            token,
            above: self.known(&key),
            trace: trace.map_or_else(Bytes::new, Bytes::from),
        });
        self.publications.insert(
            publication,
            Publication {
                key,
                shard,
                span,
                claiming,
                owner: None,
                claim: Claim::Open,
                began: None,
                granted: None,
                asked: None,
                begun: false,
                reattaching: false,
                resume: None,
            },
        );
    }

    /// The newest publish of the name that this edge has seen. A log that was lost with all
    /// its origins counts from 1 again; viewers here would refuse what it grants.
    fn known(&self, key: &StreamKey) -> Epoch {
        let channel = self.by_key.get(key).and_then(|id| self.channels.get(id));
        channel.map_or(Epoch::default(), Subscribed::newest)
    }

    /// The log has decided about a claim.
    pub(super) fn claimed(&mut self, publication: PublicationId, outcome: ClaimOutcome) {
        let Some(entry) = self.publications.get_mut(&publication) else {
            // Its release is under way.
            return;
        };
        let mut claiming = std::mem::take(&mut entry.claiming);
        match outcome {
            ClaimOutcome::Granted { epoch, takeover } => {
                claiming.count("selvage.epoch", epoch.0);
                claiming.set("selvage.takeover", takeover);
                claiming.end();
                entry.claim = Claim::Held(epoch);
                // Whom it takes over from may have taken over, too: it follows whatever was.
                let first = if takeover { Epoch::default() } else { epoch };
                entry.began.get_or_insert(first);
                // What was asked under another epoch must not be answered.
                if let Some((link, id)) = entry.asked.take()
                    && let Some(link) = self.links.get(&link)
                {
                    link.handle.send(Command::Unpublish { id, moved: true });
                }
                if entry.begun {
                    info!(stream = %entry.key, %epoch, takeover, "publish begins anew");
                    entry.granted = None;
                    entry.resume = None;
                    entry.reattaching = true;
                    entry.shard.send(ToShard::Incarnate { publication, epoch });
                } else {
                    entry.resume = Some((epoch, 0));
                    self.place(publication);
                }
            }
            ClaimOutcome::Standby => {
                claiming.set("selvage.standby", true);
                entry.begun = true;
                entry.shard.send(ToShard::Standby { publication });
            }
            ClaimOutcome::Refused => {
                claiming.set("error.type", "in_use");
                claiming.fail("somebody else holds the name");
                self.publications
                    .remove(&publication)
                    .into_iter()
                    .for_each(|entry| entry.end(publication, Reason::InUse));
            }
            ClaimOutcome::Lost => {
                info!(stream = %entry.key, "the log lost a publish: claiming it anew");
                entry.claim = Claim::Open;
            }
            ClaimOutcome::Ended { .. } => {
                self.publications
                    .remove(&publication)
                    .into_iter()
                    .for_each(|entry| entry.end(publication, Reason::Superseded));
            }
        }
    }

    /// Somebody else wants the name: is the publisher alive?
    pub(super) fn challenged(&mut self, publication: PublicationId) {
        match self.publications.get(&publication) {
            Some(entry) => entry.shard.send(ToShard::Challenged { publication }),
            None => self.shared.send(ToShared::Release(publication)),
        }
    }

    pub(super) fn reattach(&mut self, publication: PublicationId, epoch: Epoch, next: u64) {
        if let Some(entry) = self.publications.get_mut(&publication)
            // Another answer follows when the publish began anew meanwhile.
            && entry.claim == Claim::Held(epoch)
        {
            entry.reattaching = false;
            entry.resume = Some((epoch, next));
            self.place(publication);
        }
    }

    pub(super) fn unpublish(&mut self, publication: PublicationId) {
        if let Some(entry) = self.publications.remove(&publication) {
            if let Some((link, id)) = entry.asked
                && let Some(link) = self.links.get(&link)
            {
                link.handle.send(Command::Unpublish { id, moved: false });
            }
            self.shared.send(ToShared::Release(publication));
        }
    }

    /// An origin has taken a publish.
    pub(super) fn granted(
        &mut self,
        at: (LinkId, u32),
        publication: PublicationId,
        span: Option<SpanPlace>,
    ) {
        let Some(entry) = self.publications.get_mut(&publication) else {
            return;
        };
        if entry.asked != Some(at) {
            return;
        }
        entry.asked = None;
        entry.granted = Some(at);
        entry.owner = span;
        entry.begun = true;
        if let Some(link) = self.links.get(&at.0) {
            self.shared
                .send(ToShared::Place(publication, link.origin.clone()));
        }
        // A better place may have come up while this one was asked.
        self.place(publication);
    }

    /// An origin does not take a publish.
    pub(super) fn refused(
        &mut self,
        at: (LinkId, u32),
        publication: PublicationId,
        reason: Reason,
    ) {
        let Some(entry) = self.publications.get_mut(&publication) else {
            return;
        };
        if entry.asked != Some(at) {
            return;
        }
        entry.asked = None;
        // It stands well where it is, and only could not move.
        if entry.granted.is_some() && !matches!(reason, Reason::Superseded | Reason::Draining) {
            return;
        }
        if reason == Reason::Draining {
            if let Some(link) = self.links.get_mut(&at.0) {
                link.draining = true;
            }
            // It was taken along with the question.
            if let Claim::Held(epoch) = entry.claim
                && !entry.begun
            {
                entry.resume = Some((epoch, 0));
            }
            self.place(publication);
        } else {
            self.end_publish(publication, reason);
        }
    }

    /// An origin ends a publish.
    pub(super) fn ended(&mut self, at: (LinkId, u32), publication: PublicationId, reason: Reason) {
        let entry = self.publications.get(&publication);
        if entry.is_some_and(|entry| entry.granted == Some(at)) {
            self.end_publish(publication, reason);
        }
    }

    fn end_publish(&mut self, publication: PublicationId, reason: Reason) {
        if let Some(entry) = self.publications.remove(&publication) {
            self.shared.send(ToShared::Release(publication));
            entry.end(publication, reason);
        }
    }

    /// A link is gone.
    pub(super) fn detach_publications(&mut self, link: LinkId) {
        for (publication, entry) in &mut self.publications {
            if entry.granted.is_some_and(|(at, _)| at == link) {
                entry.granted = None;
                entry.shard.send(ToShard::Detached {
                    publication: *publication,
                    link,
                });
            }
            if entry.asked.is_some_and(|(at, _)| at == link) {
                entry.asked = None;
                if let Claim::Held(epoch) = entry.claim
                    && !entry.begun
                {
                    entry.resume = Some((epoch, 0));
                }
            }
        }
    }

    /// Brings a publication to its owner, if it is not there or on its way.
    pub(super) fn place(&mut self, publication: PublicationId) {
        let Some(entry) = self.publications.get(&publication) else {
            return;
        };
        if entry.claim == Claim::Open {
            return;
        }
        let held = entry.granted.map(|(link, _)| link);
        let Some((link, to)) = self.owner(&entry.key, held) else {
            return;
        };
        let busy = entry.reattaching || entry.asked.is_some();
        if busy || held == Some(link) {
            return;
        }
        let handle = to.handle.clone();
        let origin = to.origin.clone();
        let Some(entry) = self.publications.get_mut(&publication) else {
            return;
        };
        if let Some(resume) = entry.resume.take() {
            let id = handle.wire_id();
            debug!(stream = %entry.key, %origin, "asking to take a publish");
            entry.asked = Some((link, id));
            let former = entry.owner.as_slice();
            let mut phase = Phase::linked("fabric.publish", Kind::Client, entry.span, former);
            phase.show("selvage.stream.key", &entry.key);
            phase.show("selvage.owner", &origin);
            phase.set("rpc.system.name", "grpc");
            phase.set("rpc.method", "selvage.fabric.v1.Media/Link");
            handle.send(Command::Publish {
                id,
                publication,
                shard: entry.shard.clone(),
                key: entry.key.clone(),
                resume,
                began: entry.began.unwrap_or(resume.0),
                follows: entry.owner,
                phase,
            });
        } else {
            entry.reattaching = true;
            entry.shard.send(ToShard::Reattach { publication });
        }
    }
}

impl Publication {
    fn end(self, publication: PublicationId, reason: Reason) {
        self.shard.send(ToShard::Ended {
            publication,
            reason,
        });
    }
}
