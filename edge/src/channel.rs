//! One stream as this edge receives it: subscribed once, however many shards and
//! viewers want it.
//!
//! The link that carries the subscription pushes into the channel; the channel keeps a
//! backlog (so that a further shard can start at the newest key frame at once) and
//! hands what is new to every shard that listens. The lock is taken once per batch and
//! when a shard joins, never per viewer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use media::{Backlog, Pushed, Rebase};
use model::{Epoch, Frame, Position, Sequenced, StreamKey};
use node::telemetry::SpanPlace;
use node::telemetry::frames::Passing;

use crate::shard::{ShardHandle, ToShard};
use crate::traces::Fanout;

/// A channel's number at this edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChannelId(pub u64);

/// A subscribed stream.
pub(crate) struct Channel {
    id: ChannelId,
    key: StreamKey,
    state: Mutex<State>,
}

struct State {
    backlog: Backlog,
    rebase: Rebase,
    shards: Vec<ShardHandle>,
    source: Source,
    /// Where its publish stands in a trace.
    publish: Option<SpanPlace>,
    /// The newest publish that the ledger knows of. Nothing older comes back.
    floor: Epoch,
}

/// What is known of the stream's publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody publishes it, as far as we know.
    Absent,
    /// Published, and the subscription stands.
    Live(Epoch),
    /// It was published when the subscription broke or moved.
    Interrupted(Epoch),
}

/// One thing that arrived on a subscription.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A configuration in force before the frame at this place.
    InForce(Position, Frame),
    /// The next frame.
    Frame(Sequenced),
}

/// A change that players are told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Somebody began to publish.
    Published,
    /// The publisher left.
    Unpublished,
}

impl Channel {
    /// A channel without subscription, publisher or listener.
    pub(crate) fn new(id: ChannelId, key: StreamKey) -> Self {
        Self {
            id,
            key,
            state: Mutex::new(State {
                backlog: Backlog::new(media::Limits::default()),
                rebase: Rebase::default(),
                shards: Vec::new(),
                source: Source::Absent,
                publish: None,
                floor: Epoch::default(),
            }),
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> ChannelId {
        self.id
    }

    /// The stream.
    pub(crate) fn key(&self) -> &StreamKey {
        &self.key
    }

    /// Where a new subscription should continue.
    pub(crate) fn resume(&self) -> Option<Position> {
        let state = self.lock();
        match state.source {
            Source::Absent => None,
            Source::Live(_) | Source::Interrupted(_) => state.backlog.head(),
        }
    }

    /// What is known of the publisher.
    pub(crate) fn source(&self) -> Source {
        self.lock().source
    }

    /// Where the newest publish stands in a trace.
    pub(crate) fn publish(&self) -> Option<SpanPlace> {
        self.lock().publish
    }

    /// The newest publish that was seen, though it may be over.
    pub(crate) fn newest(&self) -> Epoch {
        self.lock().backlog.epoch()
    }

    /// Adds a listening shard and sends it all that a viewer may join at.
    pub(crate) fn join(&self, shard: &ShardHandle) {
        let mut state = self.lock();
        if !state.shards.iter().any(|s| s.index() == shard.index()) {
            state.shards.push(shard.clone());
        }
        shard.send(ToShard::Joined {
            channel: self.id,
            key: self.key.clone(),
            backlog: Box::new(state.backlog.clone()),
            publish: state.publish,
        });
    }

    /// Removes a shard; says whether none is left.
    pub(crate) fn leave(&self, shard: usize) -> bool {
        let mut state = self.lock();
        state.shards.retain(|s| s.index() != shard);
        state.shards.is_empty()
    }

    /// Whether any shard listens.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.lock().shards.is_empty()
    }

    /// Takes what arrived, some of it traced, and passes it on. `credit` is given back when the last shard
    /// has taken it too.
    pub(crate) fn push(
        &self,
        items: Vec<Item>,
        mut traced: Vec<(Position, Passing)>,
        ingest_micros: u64,
        credit: &Arc<dyn Send + Sync>,
    ) {
        let mut state = self.lock();
        let State {
            backlog,
            rebase,
            shards,
            source,
            floor,
            publish: _,
        } = &mut *state;
        let (source, floor) = (*source, *floor);
        let admitted = |epoch: Epoch| epoch >= floor || source == Source::Live(epoch);
        let mut taken = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::InForce(at, _) if !admitted(at.epoch) => {}
                Item::Frame(frame) if !admitted(frame.at.epoch) => {}
                Item::InForce(at, frame) => {
                    backlog.prime_at(at, frame.clone());
                    taken.push(Item::InForce(at, frame));
                }
                Item::Frame(mut sequenced) => {
                    sequenced.frame.time = rebase.map(sequenced.at.epoch, sequenced.frame.time);
                    // What a former link had already brought is dropped here.
                    let pushed = backlog.push(sequenced.at, sequenced.frame.clone());
                    if let Ok(Pushed::Appended | Pushed::Restarted) = pushed {
                        taken.push(Item::Frame(sequenced));
                    }
                }
            }
        }
        traced.retain(|(at, _)| {
            let mut frames = taken.iter();
            frames.any(|item| matches!(item, Item::Frame(frame) if frame.at == *at))
        });
        let items: Arc<[Item]> = taken.into();
        for shard in shards.iter() {
            shard.send(ToShard::Media {
                channel: self.id,
                items: items.clone(),
                traced: traced.clone(),
                ingest_micros,
                credit: credit.clone(),
            });
        }
    }

    /// The stream is published under `epoch`, and has been without a break since `began`: of
    /// a takeover, or an edge that had to claim the name anew, viewers see a stream that goes
    /// on. Whatever was before has ended, though nobody may have said so yet. A publish older
    /// than the newest that the ledger knows of is from the dead.
    ///
    /// `publish` is where it stands in a trace, and `told` goes through the hands of all who
    /// are told of it.
    pub(crate) fn published(
        &self,
        epoch: Epoch,
        began: Epoch,
        publish: Option<SpanPlace>,
        told: Option<Arc<Fanout>>,
    ) {
        let mut state = self.lock();
        if epoch < state.floor {
            return;
        }
        match state.source {
            Source::Live(known) | Source::Interrupted(known) => {
                state.source = Source::Live(epoch);
                if known < began {
                    state.backlog.end();
                    self.tell(&state, Change::Unpublished);
                    self.tell(&state, Change::Published);
                }
            }
            Source::Absent => {
                state.source = Source::Live(epoch);
                self.tell(&state, Change::Published);
            }
        }
        // Who comes later is shown it too.
        let known = std::mem::replace(&mut state.publish, publish);
        if known.or(publish).is_some_and(|place| place.is_sampled()) {
            for shard in &state.shards {
                let (channel, told) = (self.id, told.clone());
                shard.send(ToShard::Notified {
                    channel,
                    publish,
                    told,
                });
            }
        }
    }

    /// The publisher of `epoch` has left; without one, whoever it was did not come back in
    /// time. News of an epoch that another has followed says nothing.
    pub(crate) fn unpublished(&self, epoch: Option<Epoch>) {
        let mut state = self.lock();
        let (Source::Live(known) | Source::Interrupted(known)) = state.source else {
            return;
        };
        if epoch.is_none_or(|epoch| epoch == known) {
            state.source = Source::Absent;
            // Nobody joins a stream that has ended.
            state.backlog.end();
            self.tell(&state, Change::Unpublished);
        }
    }

    /// The subscription broke, or the publisher of `epoch` moves to another origin. Says
    /// whether that is news.
    pub(crate) fn interrupted(&self, epoch: Option<Epoch>) -> bool {
        let mut state = self.lock();
        match state.source {
            Source::Live(known) if epoch.is_none_or(|epoch| epoch == known) => {
                state.source = Source::Interrupted(known);
                true
            }
            Source::Live(_) | Source::Interrupted(_) | Source::Absent => false,
        }
    }

    /// The ledger knows of this publish. One that is live here stays so until its end is
    /// heard of; nothing older comes back.
    pub(crate) fn raise(&self, floor: Epoch) {
        let mut state = self.lock();
        state.floor = state.floor.max(floor);
    }

    fn tell(&self, state: &State, change: Change) {
        for shard in &state.shards {
            shard.send(ToShard::Source {
                channel: self.id,
                change,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug of ours; the state behind it is still whole
        // frames, and other viewers should not pay for it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AppInstance, AppName, InstanceName, StreamName, VhostName};

    fn channel() -> Channel {
        let at = AppInstance {
            vhost: VhostName::default_vhost(),
            app: AppName::new("live").unwrap(),
            instance: InstanceName::default_instance(),
        };
        let name = StreamName::new("a").unwrap();
        Channel::new(ChannelId(1), StreamKey { at, name })
    }

    #[test]
    fn a_publish_older_than_the_ledgers_newest_does_not_come_back() {
        let channel = channel();
        channel.published(Epoch(5), Epoch(5), None, None);
        channel.raise(Epoch(9));
        assert_eq!(
            channel.source(),
            Source::Live(Epoch(5)),
            "its end is not heard of"
        );
        assert!(channel.interrupted(Some(Epoch(5))));
        channel.published(Epoch(5), Epoch(5), None, None);
        assert_eq!(channel.source(), Source::Interrupted(Epoch(5)));
        channel.published(Epoch(9), Epoch(5), None, None);
        assert_eq!(channel.source(), Source::Live(Epoch(9)));
    }

    #[test]
    fn the_end_of_a_publish_that_another_has_followed_says_nothing() {
        let channel = channel();
        channel.published(Epoch(5), Epoch(5), None, None);
        channel.published(Epoch(9), Epoch(5), None, None);
        channel.unpublished(Some(Epoch(5)));
        assert_eq!(channel.source(), Source::Live(Epoch(9)));
        assert!(!channel.interrupted(Some(Epoch(5))));
        channel.unpublished(Some(Epoch(9)));
        assert_eq!(channel.source(), Source::Absent);
    }
}
