//! Which origin carries what: one task per edge that knows the links, the publications
//! and the channels, and places each stream at its owner.
//!
//! Only control passes here. Frames go straight from a publisher's shard to its link
//! and from a link to its channel.
//!
//! *A publication* is asked for at the owner among the origins that are up. When its
//! link breaks or its origin drains, its shard is asked to re-attach it at the new
//! owner; when the true owner is (back) up and has stayed up for [`SETTLE`], it moves
//! there, so that edges agree again.
//!
//! *A channel* follows its stream: it stays where the stream is published, and looks
//! for the owner again whenever the stream is not (or no longer) published there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fabric::v1::refused::Reason;
use model::{Epoch, OriginId, StreamKey};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, info_span};

use crate::channel::{Channel, ChannelId, Source};
use crate::link::{Command, LinkEvent, LinkHandle, LinkId, LinkSetup, Vacancy};
use crate::route::owner;
use crate::shard::{PublicationId, ShardHandle, ToShard};

/// An origin that has been up for this long draws its streams back to itself. Long
/// enough for the other edges to have seen it too.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// An edge that has just started sees some origins before others, and would place streams
/// where no other edge looks. It places none until it has seen all it knows of, or until
/// this time has passed and those that answer must do.
pub(crate) const FIRST_SIGHT: Duration = Duration::from_secs(3);

/// A subscription that an origin refused is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// What shards ask.
#[derive(Debug)]
pub(crate) enum Ask {
    /// A client wants to publish.
    Publish {
        /// Its number.
        publication: PublicationId,
        /// What.
        key: StreamKey,
        /// Who holds the client.
        shard: ShardHandle,
        /// Trace context.
        traceparent: String,
    },
    /// Answers [`ToShard::Reattach`]: where the publish stands.
    Reattach {
        /// Which.
        publication: PublicationId,
        /// Its incarnation.
        epoch: Epoch,
        /// The next frame number.
        next: u64,
    },
    /// A publish is over. The shard has told the link that granted it, if any.
    Unpublish {
        /// Which.
        publication: PublicationId,
    },
    /// A shard's first viewer of a stream came.
    Join {
        /// The stream.
        key: StreamKey,
        /// Who.
        shard: ShardHandle,
    },
    /// A shard's last viewer of a stream left.
    Leave {
        /// The stream.
        channel: ChannelId,
        /// Who.
        shard: usize,
    },
}

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// A channel without viewers.
    pub(crate) linger: Duration,
    /// Viewers of a stream whose publisher is being re-attached somewhere.
    pub(crate) interrupted: Duration,
}

/// The task's state.
pub(crate) struct Upstream {
    setup: LinkSetup,
    patience: Patience,
    asks: mpsc::UnboundedReceiver<Ask>,
    events: (
        mpsc::UnboundedSender<LinkEvent>,
        mpsc::UnboundedReceiver<LinkEvent>,
    ),
    addresses: watch::Receiver<node::resolve::Addresses>,
    dialling: BTreeMap<node::link::Address, tokio::task::JoinHandle<()>>,
    link_ids: Arc<AtomicU64>,
    links: BTreeMap<LinkId, Link>,
    publications: HashMap<PublicationId, Publication>,
    channels: HashMap<ChannelId, Subscribed>,
    by_key: HashMap<StreamKey, ChannelId>,
    next_channel: u64,
    /// Whether streams are placed yet, see [`FIRST_SIGHT`].
    open: bool,
    wake_at: Option<Instant>,
    reachable: watch::Sender<usize>,
}

struct Link {
    handle: LinkHandle,
    origin: OriginId,
    /// When it may draw streams that others hold.
    settled: Instant,
    draining: bool,
}

struct Publication {
    key: StreamKey,
    shard: ShardHandle,
    traceparent: String,
    /// The link that granted it.
    granted: Option<LinkId>,
    /// The link that was asked, and the number there.
    asked: Option<(LinkId, u32)>,
    /// An origin granted it once: the shard knows where it stands.
    begun: bool,
    /// The shard was asked where it stands.
    reattaching: bool,
    /// It stands here; known once the shard has answered.
    resume: Option<(Epoch, u64)>,
}

struct Subscribed {
    channel: Arc<Channel>,
    /// From the first viewer until the stream is let go.
    span: tracing::Span,
    /// The link and the number there.
    at: Option<(LinkId, u32)>,
    /// Nobody has watched since.
    idle_since: Option<Instant>,
    /// The stream was interrupted then.
    interrupted_since: Option<Instant>,
    /// Ask again then.
    retry_at: Option<Instant>,
}

impl Upstream {
    /// A task that will dial `addresses`. `reachable` tells how many origins
    /// can be given streams.
    pub(crate) fn new(
        setup: LinkSetup,
        patience: Patience,
        asks: mpsc::UnboundedReceiver<Ask>,
        addresses: watch::Receiver<node::resolve::Addresses>,
        reachable: watch::Sender<usize>,
    ) -> Self {
        Self {
            setup,
            patience,
            asks,
            events: mpsc::unbounded_channel(),
            addresses,
            dialling: BTreeMap::new(),
            link_ids: Arc::default(),
            links: BTreeMap::new(),
            publications: HashMap::new(),
            channels: HashMap::new(),
            by_key: HashMap::new(),
            next_channel: 0,
            open: false,
            wake_at: None,
            reachable,
        }
    }

    /// Runs until no shard is left.
    pub(crate) async fn run(mut self) {
        self.dial();
        let first_sight = Instant::now() + FIRST_SIGHT;
        self.wake_by(first_sight);
        loop {
            let deadline = self.wake_at;
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.handle_ask(ask),
                    None => break,
                },
                Some(event) = self.events.1.recv() => self.handle_event(event),
                Ok(()) = self.addresses.changed() => self.dial(),
                () = sleep_until(deadline) => {
                    let now = Instant::now();
                    self.open |= now >= first_sight;
                    self.handle_timeout(now);
                }
            }
        }
        for task in self.dialling.values() {
            task.abort();
        }
    }

    /// Dials what is new in the list and lets go of what has left it.
    fn dial(&mut self) {
        let wanted = self.addresses.borrow_and_update().clone();
        // An address that left the list keeps its link while it is up: a resolver that
        // forgets an origin must not tear down what works. It is only not redialled.
        self.dialling
            .retain(|address, task| wanted.contains(address) || !task.is_finished());
        for address in wanted.iter().cloned() {
            let (ids, events) = (self.link_ids.clone(), self.events.0.clone());
            let wanted = self.addresses.clone();
            let link = crate::link::keep(self.setup.clone(), address.clone(), wanted, ids, events);
            self.dialling
                .entry(address)
                .or_insert_with(|| tokio::spawn(link));
        }
    }

    fn handle_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Publish {
                publication,
                key,
                shard,
                traceparent,
            } => {
                self.publications.insert(
                    publication,
                    Publication {
                        key,
                        shard,
                        traceparent,
                        granted: None,
                        asked: None,
                        begun: false,
                        reattaching: false,
                        resume: None,
                    },
                );
                self.place(publication);
            }
            Ask::Reattach {
                publication,
                epoch,
                next,
            } => {
                if let Some(entry) = self.publications.get_mut(&publication) {
                    entry.reattaching = false;
                    entry.resume = Some((epoch, next));
                    self.place(publication);
                }
            }
            Ask::Unpublish { publication } => {
                if let Some(entry) = self.publications.remove(&publication)
                    && let Some((link, id)) = entry.asked
                    && let Some(link) = self.links.get(&link)
                {
                    link.handle.send(Command::Unpublish { id, moved: false });
                }
            }
            Ask::Join { key, shard } => self.join(key, &shard),
            Ask::Leave { channel, shard } => {
                if let Some(entry) = self.channels.get_mut(&channel)
                    && entry.channel.leave(shard)
                {
                    let now = Instant::now();
                    entry.idle_since = Some(now);
                    self.wake_by(now + self.patience.linger);
                }
            }
        }
    }

    fn join(&mut self, key: StreamKey, shard: &ShardHandle) {
        let id = *self.by_key.entry(key.clone()).or_insert_with(|| {
            self.next_channel += 1;
            let id = ChannelId(self.next_channel);
            let span = info_span!("rtmp.subscribe", stream = %key);
            let channel = Arc::new(Channel::new(id, key));
            self.channels.insert(
                id,
                Subscribed {
                    channel,
                    span,
                    at: None,
                    idle_since: None,
                    interrupted_since: None,
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

    fn handle_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { link, origin } => {
                let id = link.id();
                // Origins that an edge finds when it starts are what it starts from.
                let now = Instant::now();
                let settled = if self.open { now + SETTLE } else { now };
                self.links.insert(
                    id,
                    Link {
                        handle: link,
                        origin,
                        settled,
                        draining: false,
                    },
                );
                self.count();
                self.place_all();
                self.wake_by(settled);
            }
            LinkEvent::Down { link } => {
                self.links.remove(&link);
                self.count();
                for (publication, entry) in &mut self.publications {
                    if entry.granted == Some(link) {
                        entry.granted = None;
                        entry.shard.send(ToShard::Detached {
                            publication: *publication,
                            link,
                        });
                    }
                    if entry.asked.is_some_and(|(asked, _)| asked == link) {
                        entry.asked = None;
                    }
                }
                for entry in self.channels.values_mut() {
                    if entry.at.is_some_and(|(at, _)| at == link) {
                        entry.at = None;
                        entry.interrupt(None);
                    }
                }
                self.place_all();
                self.wake_by(Instant::now() + self.patience.interrupted);
            }
            LinkEvent::Draining { link } => {
                if let Some(entry) = self.links.get_mut(&link) {
                    info!(origin = %entry.origin, "origin drains: moving its streams");
                    entry.draining = true;
                }
                self.count();
                self.place_all();
            }
            LinkEvent::Granted { link, publication } => {
                if let Some(entry) = self.publications.get_mut(&publication)
                    && entry.asked.is_some_and(|(asked, _)| asked == link)
                {
                    entry.asked = None;
                    entry.granted = Some(link);
                    entry.begun = true;
                    // A better place may have come up while this one was asked.
                    self.place(publication);
                }
            }
            LinkEvent::Refused {
                link,
                publication,
                reason,
            } => {
                self.refused(link, publication, reason);
            }
            LinkEvent::Ended {
                link,
                publication,
                reason,
            } => {
                if self
                    .publications
                    .get(&publication)
                    .is_some_and(|p| p.granted == Some(link))
                {
                    self.end(publication, reason);
                }
            }
            LinkEvent::Vacant {
                link,
                channel,
                epoch,
                how,
            } => self.vacant(link, channel, epoch, how),
        }
    }

    fn refused(&mut self, link: LinkId, publication: PublicationId, reason: Reason) {
        let Some(entry) = self.publications.get_mut(&publication) else {
            return;
        };
        if entry.asked.is_none_or(|(asked, _)| asked != link) {
            return;
        }
        entry.asked = None;
        // It stands well where it is, and only could not move.
        if entry.granted.is_some() && !matches!(reason, Reason::Superseded | Reason::Draining) {
            return;
        }
        if reason == Reason::Draining {
            if let Some(link) = self.links.get_mut(&link) {
                link.draining = true;
            }
            self.place(publication);
        } else {
            self.end(publication, reason);
        }
    }

    fn end(&mut self, publication: PublicationId, reason: Reason) {
        if let Some(entry) = self.publications.remove(&publication) {
            entry.shard.send(ToShard::Ended {
                publication,
                reason,
            });
        }
    }

    fn vacant(&mut self, link: LinkId, channel: ChannelId, epoch: Epoch, how: Vacancy) {
        let Some(entry) = self.channels.get_mut(&channel) else {
            return;
        };
        if entry.at.is_none_or(|(at, _)| at != link) {
            return;
        }
        match how {
            Vacancy::Unpublished => {
                entry.interrupted_since = None;
                entry.channel.unpublished(Some(epoch));
            }
            Vacancy::Moved => {
                entry.interrupt(Some(epoch));
                self.wake_by(Instant::now() + self.patience.interrupted);
            }
            Vacancy::Waiting => {}
            Vacancy::Refused => {
                let retry = Instant::now() + RETRY;
                entry.at = None;
                entry.retry_at = Some(retry);
                self.wake_by(retry);
                return;
            }
        }
        self.subscribe(channel);
    }

    /// Looks at everything again after the set of origins changed.
    fn place_all(&mut self) {
        if !self.open {
            return;
        }
        let publications: Vec<_> = self.publications.keys().copied().collect();
        for publication in publications {
            self.place(publication);
        }
        let channels: Vec<_> = self.channels.keys().copied().collect();
        for channel in channels {
            self.subscribe(channel);
        }
    }

    /// The link to the owner of a stream among the origins that are settled, and the one
    /// that holds it now; among all, when none is.
    fn owner(&self, key: &StreamKey, held: Option<LinkId>) -> Option<(LinkId, &Link)> {
        if !self.open {
            return None;
        }
        let now = Instant::now();
        let usable = || self.links.iter().filter(|(_, link)| !link.draining);
        let settled = usable().filter(|(id, link)| held == Some(**id) || now >= link.settled);
        let name = owner(key, settled.map(|(_, link)| &link.origin))
            .or_else(|| owner(key, usable().map(|(_, link)| &link.origin)))?;
        // The same origin under two addresses, or its next incarnation before the loss of
        // the last was noticed: the newest link counts.
        let newest = usable().rfind(|(_, link)| link.origin == *name);
        newest.map(|(id, link)| (*id, link))
    }

    /// Brings a publication to its owner, if it is not there or on its way.
    fn place(&mut self, publication: PublicationId) {
        let Some(entry) = self.publications.get(&publication) else {
            return;
        };
        let Some((link, to)) = self.owner(&entry.key, entry.granted) else {
            return;
        };
        let busy = entry.reattaching || entry.asked.is_some();
        if busy || entry.granted == Some(link) {
            return;
        }
        let handle = to.handle.clone();
        let origin = to.origin.clone();
        let Some(entry) = self.publications.get_mut(&publication) else {
            return;
        };
        if !entry.begun || entry.resume.is_some() {
            let id = handle.wire_id();
            debug!(stream = %entry.key, %origin, "asking for the right to publish");
            entry.asked = Some((link, id));
            handle.send(Command::Publish {
                id,
                publication,
                shard: entry.shard.clone(),
                key: entry.key.clone(),
                resume: entry.resume.take(),
                traceparent: entry.traceparent.clone(),
            });
        } else {
            entry.reattaching = true;
            entry.shard.send(ToShard::Reattach { publication });
        }
    }

    /// Subscribes a channel at the owner of its stream, unless it stands well where it is.
    fn subscribe(&mut self, channel: ChannelId) {
        let Some(entry) = self.channels.get(&channel) else {
            return;
        };
        if entry.retry_at.is_some() {
            return;
        }
        let here = entry
            .at
            .and_then(|(at, id)| Some((at, id, self.links.get(&at)?)));
        let live = matches!(entry.channel.source(), Source::Live(_));
        if here.is_some() && live {
            return;
        }
        let Some((link, to)) = self.owner(entry.channel.key(), None) else {
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
        handle.send(Command::Subscribe {
            id,
            channel: entry.channel.clone(),
            traceparent: node::telemetry::traceparent_of(&entry.span),
        });
        if let Some(entry) = self.channels.get_mut(&channel) {
            entry.at = Some((link, id));
        }
    }

    /// Notes how many origins are up, of how many addresses.
    fn count(&mut self) {
        let usable = self.links.values().filter(|link| !link.draining);
        let up = usable
            .map(|link| &link.origin)
            .collect::<BTreeSet<_>>()
            .len();
        self.open |= up >= self.dialling.len();
        self.reachable.send_replace(if self.open { up } else { 0 });
    }

    /// Looks at everything again by `at` at the latest.
    fn wake_by(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// When something must be looked at again.
    fn next_wake(&self, now: Instant) -> Option<Instant> {
        let Patience {
            linger,
            interrupted,
        } = self.patience;
        let settling = self.links.values().map(|link| link.settled);
        let channels = self.channels.values().flat_map(|entry| {
            [
                entry.idle_since.map(|t| t + linger),
                entry.interrupted_since.map(|t| t + interrupted),
                entry.retry_at,
            ]
        });
        settling
            .chain(channels.flatten())
            .filter(|at| *at > now)
            .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        let Patience {
            linger,
            interrupted,
        } = self.patience;
        let links = &self.links;
        let by_key = &mut self.by_key;
        self.channels.retain(|_, entry| {
            if entry
                .interrupted_since
                .is_some_and(|t| now >= t + interrupted)
            {
                entry.interrupted_since = None;
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
            by_key.remove(entry.channel.key());
            false
        });
        for entry in self.channels.values_mut() {
            if entry.retry_at.is_some_and(|at| now >= at) {
                entry.retry_at = None;
            }
        }
        self.count();
        self.place_all();
        self.wake_at = self.next_wake(now);
    }
}

impl Subscribed {
    /// The publish of this epoch, or whichever there is, can come no more from where the
    /// channel is subscribed.
    fn interrupt(&mut self, epoch: Option<Epoch>) {
        if self.channel.interrupted(epoch) {
            self.interrupted_since = Some(Instant::now());
        }
    }
}

/// Resolves then; never, when there is no then.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
