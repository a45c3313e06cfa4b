//! The streams that viewers of this edge watch: where each is subscribed.

use std::sync::Arc;
use std::time::Duration;

use ledger::effect::StreamState;
use model::{Epoch, StreamKey};
use node::telemetry::{Kind, Phase, SpanPlace};
use tokio::time::Instant;
use tracing::debug;

use super::{Link, Patience, Upstream};
use crate::channel::{Channel, ChannelId, Source};
use crate::link::{Command, LinkId, Vacancy};
use crate::shard::ShardHandle;
use crate::shared::ToShared;

/// A subscription that an origin refused is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// An origin says that the publisher left, and the log still names it: whether another
/// takes over at once is known a moment later. Viewers are told of the end after this time
/// at the latest.
const HANDOVER: Duration = Duration::from_millis(500);

/// One stream.
pub(super) struct Subscribed {
    channel: Arc<Channel>,
    /// The span of the first viewer's wish.
    span: Option<SpanPlace>,
    /// The link and the number there.
    at: Option<(LinkId, u32)>,
    /// How it stands, as the log says.
    state: Option<StreamState>,
    /// The origin that the log names had nothing of it, or no longer: the owner is asked
    /// until the log says something else.
    astray: bool,
    /// Nobody has watched since.
    idle_since: Option<Instant>,
    /// The stream is interrupted, and over if it has not come back by then.
    patience_ends: Option<Instant>,
    /// Ask again then.
    retry_at: Option<Instant>,
}

impl Upstream {
    pub(super) fn join(&mut self, key: StreamKey, shard: &ShardHandle, span: Option<SpanPlace>) {
        let id = *self.by_key.entry(key.clone()).or_insert_with(|| {
            self.next_channel += 1;
            let id = ChannelId(self.next_channel);
            self.shared.send(ToShared::Follow(key.clone()));
            let channel = Arc::new(Channel::new(id, key));
            self.channels.insert(
                id,
                Subscribed {
                    channel,
                    span,
                    at: None,
                    state: None,
                    astray: false,
                    idle_since: None,
                    patience_ends: None,
                    retry_at: None,
                },
            );
            id
        });
        if let Some(entry) = self.channels.get_mut(&id) {
            entry.idle_since = None;
            entry.channel.join(shard);
            self.subscribe(id);
        }
    }

    pub(super) fn leave(&mut self, channel: ChannelId, shard: usize) {
        if let Some(entry) = self.channels.get_mut(&channel)
            && entry.channel.leave(shard)
        {
            let now = Instant::now();
            entry.idle_since = Some(now);
            self.wake_by(now + self.patience.linger);
        }
    }

    /// The log says how a stream stands.
    pub(super) fn stream_stands(&mut self, key: &StreamKey, state: StreamState) {
        let Some(id) = self.by_key.get(key).copied() else {
            return;
        };
        let interrupted = self.patience.interrupted;
        let Some(entry) = self.channels.get_mut(&id) else {
            return;
        };
        debug!(stream = %key, epoch = %state.epoch, held = state.holder.is_some(), "stream stands");
        // The origin that the log names knows of the log itself, and what it sends keeps its
        // order: an older publish that it still hands on was whole before the newer began.
        // What any other sends of an older one is from the dead.
        let from = entry.at.and_then(|(at, _)| self.links.get(&at));
        let named = from.is_some_and(|from| {
            let origin = state.origin.as_ref();
            origin.is_none_or(|origin| *origin == from.origin)
        });
        if !named {
            entry.channel.raise(state.epoch);
        }
        if let Source::Interrupted(epoch) = entry.channel.source() {
            if state.holder.is_none() {
                entry.patience_ends = None;
                entry.channel.unpublished(Some(epoch));
            } else if epoch < state.epoch {
                // Another goes on with it.
                let until = Instant::now() + interrupted;
                entry.patience_ends = Some(until);
                self.wake_by(until);
            }
        }
        if let Some(entry) = self.channels.get_mut(&id) {
            if entry.state.as_ref() != Some(&state) {
                entry.astray = false;
                entry.state = Some(state);
            }
            self.subscribe(id);
        }
    }

    /// An origin says that a stream is not, or no longer, published there.
    pub(super) fn vacant(&mut self, link: LinkId, channel: ChannelId, epoch: Epoch, how: Vacancy) {
        let origin = self.links.get(&link).map(|link| &link.origin);
        let Some(entry) = self.channels.get_mut(&channel) else {
            return;
        };
        if entry.at.is_none_or(|(at, _)| at != link) {
            return;
        }
        let state = entry.state.as_ref();
        entry.astray |= state.and_then(|state| state.origin.as_ref()) == origin;
        let now = Instant::now();
        match how {
            Vacancy::Unpublished => match state {
                Some(state) if state.holder.is_none() && state.epoch >= epoch => {
                    entry.channel.unpublished(Some(epoch));
                    entry.patience_ends = None;
                }
                Some(state) if state.epoch > epoch => {
                    entry.interrupt(Some(epoch), now + self.patience.interrupted);
                }
                Some(_) | None => entry.interrupt(Some(epoch), now + HANDOVER),
            },
            Vacancy::Moved => entry.interrupt(Some(epoch), now + self.patience.interrupted),
            Vacancy::Waiting => {}
            Vacancy::Refused => {
                entry.at = None;
                entry.retry_at = Some(now + RETRY);
                self.wake_by(now + RETRY);
                return;
            }
        }
        if let Some(until) = entry.patience_ends {
            self.wake_by(until);
        }
        self.subscribe(channel);
    }

    /// A link is gone.
    pub(super) fn detach_channels(&mut self, link: LinkId) {
        let until = Instant::now() + self.patience.interrupted;
        for entry in self.channels.values_mut() {
            if entry.at.is_some_and(|(at, _)| at == link) {
                entry.at = None;
                entry.interrupt(None, until);
            }
        }
    }

    /// Subscribes a channel where its stream is, unless it stands well where it is.
    pub(super) fn subscribe(&mut self, channel: ChannelId) {
        let Some(entry) = self.channels.get(&channel) else {
            return;
        };
        if entry.retry_at.is_some() {
            return;
        }
        let here = entry
            .at
            .and_then(|(at, id)| Some((at, id, self.links.get(&at)?)));
        let recorded = self.recorded(entry);
        if here.is_some()
            && let Source::Live(epoch) = entry.channel.source()
        {
            // A newer publish that is at another origin has taken its place.
            let newest = entry.state.as_ref().map_or(epoch, |state| state.epoch);
            if recorded.is_none() || newest <= epoch {
                return;
            }
        }
        let Some((link, to)) = recorded.or_else(|| self.owner(entry.channel.key(), None)) else {
            return;
        };
        if here.as_ref().is_some_and(|(at, ..)| *at == link) {
            return;
        }
        if let Some((_, id, old)) = here {
            old.handle.send(Command::Unsubscribe { id });
        }
        let handle = to.handle.clone();
        let id = handle.wire_id();
        debug!(stream = %entry.channel.key(), origin = %to.origin, "subscribing");
        let former = entry.channel.publish();
        let links = former.as_slice();
        let mut phase = Phase::linked("fabric.subscribe", Kind::Client, entry.span, links);
        phase.show("selvage.stream.key", entry.channel.key());
        phase.show("selvage.owner", &to.origin);
        phase.set("rpc.system.name", "grpc");
        phase.set("rpc.method", "selvage.fabric.v1.Media/Link");
        handle.send(Command::Subscribe {
            id,
            channel: entry.channel.clone(),
            phase,
        });
        if let Some(entry) = self.channels.get_mut(&channel) {
            entry.at = Some((link, id));
            if let Some(state) = &entry.state {
                entry.channel.raise(state.epoch);
            }
        }
    }

    /// The link to where the log says that the media is.
    fn recorded(&self, entry: &Subscribed) -> Option<(LinkId, &Link)> {
        let state = entry
            .state
            .as_ref()
            .filter(|_| self.open && !entry.astray)?;
        self.link_to(state.origin.as_ref()?)
    }

    /// When channels must be looked at again.
    pub(super) fn channel_deadlines(&self) -> impl Iterator<Item = Instant> {
        let linger = self.patience.linger;
        let channels = self.channels.values().flat_map(move |entry| {
            [
                entry.idle_since.map(|t| t + linger),
                entry.patience_ends,
                entry.retry_at,
            ]
        });
        channels.flatten()
    }

    /// Ends what has been waited for too long.
    pub(super) fn settle_channels(&mut self, now: Instant) {
        let Patience { linger, .. } = self.patience;
        let links = &self.links;
        let by_key = &mut self.by_key;
        let shared = &self.shared;
        self.channels.retain(|_, entry| {
            if entry.patience_ends.is_some_and(|at| now >= at) {
                entry.patience_ends = None;
                // It came back in the meantime, or it is lost for good.
                if !matches!(entry.channel.source(), Source::Live(_)) {
                    entry.channel.unpublished(None);
                }
            }
            let idle = entry.idle_since.is_some_and(|t| now >= t + linger);
            if !idle || entry.channel.is_wanted() {
                return true;
            }
            debug!(stream = %entry.channel.key(), "letting go of the subscription");
            if let Some((link, id)) = entry.at
                && let Some(link) = links.get(&link)
            {
                link.handle.send(Command::Unsubscribe { id });
            }
            shared.send(ToShared::Unfollow(entry.channel.key().clone()));
            by_key.remove(entry.channel.key());
            false
        });
        for entry in self.channels.values_mut() {
            if entry.retry_at.is_some_and(|at| now >= at) {
                entry.retry_at = None;
            }
        }
    }
}

impl Subscribed {
    /// The newest publish of it that was seen.
    pub(super) fn newest(&self) -> Epoch {
        self.channel.newest()
    }

    /// The publish of this epoch, or whichever there is, can come no more from where the
    /// channel is subscribed. Viewers are told of its end at `until`.
    fn interrupt(&mut self, epoch: Option<Epoch>, until: Instant) {
        if self.channel.interrupted(epoch) {
            self.patience_ends = Some(until);
        }
    }
}
