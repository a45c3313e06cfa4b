//! What an edge knows of peers and decides about introductions, without sockets or clocks.
//!
//! The book holds the peers of this edge, whichever shard they are at. A hello for one of
//! them becomes [`Output::Redirect`] and [`Output::Forward`]; a hello for another is asked for
//! at one origin after the other ([`Output::Seek`]), and what origins ask on behalf of other
//! edges is answered ([`Output::Verdict`]).
//!
//! Towards each origin the book keeps which peers have changed since it was last told; a link
//! that comes up is told of all. So what waits for a slow origin is never more than one notice
//! for each peer that came or left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use node::metrics::Histogram;
use rtmfp::address::{Address, Origin};
use rtmfp::crypto::identity::Fingerprint;
use rtmfp::endpoint::SessionId;

use super::rates::Rates;
use crate::config::Introductions;
use crate::limits::{
    ABSENT_MAX, ABSENT_TIME, FORWARD_AGAIN, FORWARDED_ADDRESSES_MAX, PAIR_RATE, PEER_RATE,
    PEERS_RATED_MAX, PUT_OFF_MAX, REDIRECT_AFTER, SEEK_TIMEOUT, SEEKS_MAX, SOURCE_RATE,
};

/// A link to an origin's directory, and which one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// Where a peer is at this edge. The numbers of sessions are unlike in all shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seat {
    pub(crate) shard: usize,
    pub(crate) session: SessionId,
}

/// Someone at a shard wants to talk with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Which shard heard it.
    pub(crate) shard: usize,
    /// Whom it is for.
    pub(crate) target: Fingerprint,
    /// Where it came from.
    pub(crate) from: SocketAddr,
    /// What the answer is to repeat.
    pub(crate) tag: Vec<u8>,
    /// No answer may be longer.
    pub(crate) room: usize,
}

/// Who wants to talk, as the edge that holds the peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Initiator {
    /// Where it was seen.
    pub(crate) observed: SocketAddr,
    /// Where it says it is itself.
    pub(crate) reported: Vec<SocketAddr>,
    /// The application it is connected to; empty when it is connected to none.
    pub(crate) app: String,
    /// What the answer is to repeat.
    pub(crate) tag: Vec<u8>,
}

/// A peer as directories are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) observed: SocketAddr,
    pub(crate) reported: Vec<SocketAddr>,
    /// For how long it has been here.
    pub(crate) age: Duration,
}

/// What the edge of a peer says to a hello for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is told.
    Forwarded,
    /// It is not to be told.
    Refused,
    /// It is not here.
    Gone,
}

/// What an origin says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The peer is told, and is at these addresses.
    Found {
        observed: SocketAddr,
        reported: Vec<SocketAddr>,
    },
    /// Nobody is to be told of the peer.
    Refused,
    /// The peer is nowhere.
    Unknown,
    /// It could not be found out.
    Busy,
}

/// What the book wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Tell who asked where the peer is.
    Redirect {
        hello: Hello,
        addresses: Vec<Address>,
    },
    /// Hand the hello to the peer, once for each address.
    Forward {
        seat: Seat,
        target: Fingerprint,
        from: Vec<Address>,
        tag: Vec<u8>,
    },
    /// Ask an origin.
    Seek {
        link: LinkId,
        id: u64,
        target: Fingerprint,
        initiator: Initiator,
    },
    /// Answer an origin.
    Verdict {
        link: LinkId,
        id: u64,
        verdict: Verdict,
    },
}

/// What became of hellos for peers. Each figure only grows.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Hellos heard at this edge.
    pub(crate) lookups: AtomicU64,
    /// Whose peer was here.
    pub(crate) here: AtomicU64,
    /// Whose peer was at another edge.
    pub(crate) elsewhere: AtomicU64,
    /// Whose peer was nowhere.
    pub(crate) misses: AtomicU64,
    /// Hellos that were handed to peers of this edge.
    pub(crate) forwarded: AtomicU64,
    /// Hellos that a peer was not to be told of.
    pub(crate) refused: AtomicU64,
    /// What was not done because it was done too often, or because nobody answered.
    pub(crate) limited: AtomicU64,
    /// How long origins take to say where a peer is, where that is shown.
    pub(crate) answers: Answers,
}

/// Set where somebody can see it.
#[derive(Default)]
pub(crate) struct Answers(pub(crate) OnceLock<Histogram>);

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.0.get().map_or(0, Histogram::get_sample_count);
        count.fmt(f)
    }
}

impl Counts {
    fn add(figure: &AtomicU64) {
        figure.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Peer {
    id: Fingerprint,
    app: String,
    observed: SocketAddr,
    reported: Vec<SocketAddr>,
    came: Instant,
    /// Orders those of one peer.
    turn: u64,
}

#[derive(Debug)]
struct Link {
    preference: u64,
    /// Whom the origin is to be told of.
    dirty: BTreeSet<Fingerprint>,
}

#[derive(Debug)]
struct Seek {
    hello: Hello,
    at: LinkId,
    /// Where it was asked before.
    tried: BTreeSet<LinkId>,
    /// Somebody did not answer: that it is unknown is not certain.
    doubt: bool,
    until: Instant,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Book {
    policy: Introductions,
    peers: BTreeMap<Seat, Peer>,
    by_id: BTreeMap<Fingerprint, BTreeSet<(u64, Seat)>>,
    by_address: BTreeMap<SocketAddr, Seat>,
    turns: u64,
    links: BTreeMap<LinkId, Link>,
    seeks: BTreeMap<u64, Seek>,
    next_seek: u64,
    /// Who was found nowhere, and until when that is believed.
    absent: BTreeMap<Fingerprint, Instant>,
    sources: Rates<IpAddr>,
    targets: Rates<Fingerprint>,
    pairs: Rates<(IpAddr, Fingerprint)>,
    /// What is to be done later, by when and number.
    later: BTreeMap<(Instant, u64), Output>,
    next_later: u64,
    outputs: VecDeque<Output>,
    counts: Arc<Counts>,
}

impl Book {
    pub(crate) fn new(policy: Introductions, counts: Arc<Counts>) -> Self {
        Self {
            policy,
            peers: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_address: BTreeMap::new(),
            turns: 0,
            links: BTreeMap::new(),
            seeks: BTreeMap::new(),
            next_seek: 0,
            absent: BTreeMap::new(),
            sources: Rates::new(SOURCE_RATE, PEERS_RATED_MAX),
            targets: Rates::new(PEER_RATE, PEERS_RATED_MAX),
            pairs: Rates::new(PAIR_RATE, PEERS_RATED_MAX),
            later: BTreeMap::new(),
            next_later: 0,
            outputs: VecDeque::new(),
            counts,
        }
    }

    /// A client is connected.
    pub(crate) fn came(
        &mut self,
        seat: Seat,
        id: Fingerprint,
        app: String,
        observed: SocketAddr,
        now: Instant,
    ) {
        self.left(seat);
        self.turns += 1;
        let (turn, observed) = (self.turns, canonical(observed));
        self.by_id.entry(id).or_default().insert((turn, seat));
        self.by_address.insert(observed, seat);
        let peer = Peer {
            id,
            app,
            observed,
            reported: Vec::new(),
            came: now,
            turn,
        };
        self.peers.insert(seat, peer);
        self.absent.remove(&id);
        self.changed(id);
    }

    /// A client says where it is itself.
    pub(crate) fn reported(&mut self, seat: Seat, addresses: Vec<SocketAddr>) {
        if let Some(peer) = self.peers.get_mut(&seat) {
            peer.reported = addresses.into_iter().map(canonical).collect();
            let observed = peer.observed;
            peer.reported.retain(|at| usable(at, observed));
            let id = peer.id;
            self.changed(id);
        }
    }

    /// A client's address changed.
    pub(crate) fn moved(&mut self, seat: Seat, to: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(&seat) {
            let to = canonical(to);
            let (id, from) = (peer.id, std::mem::replace(&mut peer.observed, to));
            self.forget_address(from, seat);
            self.by_address.insert(to, seat);
            self.changed(id);
        }
    }

    /// A client is gone.
    pub(crate) fn left(&mut self, seat: Seat) {
        let Some(peer) = self.peers.remove(&seat) else {
            return;
        };
        self.forget_address(peer.observed, seat);
        if let Some(seats) = self.by_id.get_mut(&peer.id) {
            seats.remove(&(peer.turn, seat));
            if seats.is_empty() {
                self.by_id.remove(&peer.id);
            }
        }
        self.changed(peer.id);
    }

    /// Someone wants to talk with a peer.
    pub(crate) fn hello(&mut self, hello: Hello, now: Instant) {
        Counts::add(&self.counts.lookups);
        let from = network(hello.from);
        let allowed = self.sources.take(from, now) && self.pairs.take((from, hello.target), now);
        if self.policy == Introductions::None {
            return Counts::add(&self.counts.refused);
        }
        if !allowed {
            return Counts::add(&self.counts.limited);
        }
        let initiator = self.initiator(&hello);
        if let Some(seat) = self.seat_of(&hello.target) {
            Counts::add(&self.counts.here);
            let target = hello.target;
            if let Some(addresses) = self.may_be_told(seat, &initiator, now) {
                // First the one who asked: its own hello opens the way for the answer.
                self.outputs
                    .push_back(Output::Redirect { hello, addresses });
                self.forward(seat, target, initiator);
            }
            return;
        }
        if self
            .absent
            .get(&hello.target)
            .is_some_and(|until| now < *until)
        {
            return Counts::add(&self.counts.misses);
        }
        if !self.targets.take(hello.target, now) || self.seeks.len() >= SEEKS_MAX {
            return Counts::add(&self.counts.limited);
        }
        self.seek(hello, BTreeSet::new(), false, now);
    }

    /// Another edge asks, through an origin.
    pub(crate) fn asked(
        &mut self,
        (link, id): (LinkId, u64),
        target: Fingerprint,
        initiator: Initiator,
        now: Instant,
    ) {
        let verdict = match self.seat_of(&target) {
            None => Verdict::Gone,
            // Somebody may ask at all edges.
            Some(_) if !self.pairs.take((network(initiator.observed), target), now) => {
                Counts::add(&self.counts.limited);
                Verdict::Refused
            }
            Some(seat) => match self.may_be_told(seat, &initiator, now) {
                None => Verdict::Refused,
                Some(_) => {
                    self.forward_again(seat, target, &initiator, now);
                    self.forward(seat, target, initiator);
                    Verdict::Forwarded
                }
            },
        };
        self.outputs
            .push_back(Output::Verdict { link, id, verdict });
    }

    /// An origin answers [`Output::Seek`].
    pub(crate) fn answered(&mut self, link: LinkId, id: u64, answer: Answer, now: Instant) {
        if self.seeks.get(&id).is_none_or(|seek| seek.at != link) {
            return;
        }
        let Some(seek) = self.seeks.remove(&id) else {
            return;
        };
        if let Some(answers) = self.counts.answers.0.get() {
            let asked = seek.until.checked_sub(SEEK_TIMEOUT);
            let took = asked.map(|asked| now.saturating_duration_since(asked));
            answers.observe(took.unwrap_or_default().as_secs_f64());
        }
        match answer {
            Answer::Found { observed, reported } => {
                Counts::add(&self.counts.elsewhere);
                let addresses = addresses(observed, &reported);
                let hello = seek.hello;
                // The peer was told just before, by its own edge: its answer opens the way
                // for a hello that comes from another port than was known of.
                let redirect = Output::Redirect { hello, addresses };
                self.put_off(now + REDIRECT_AFTER, redirect);
            }
            Answer::Refused => Counts::add(&self.counts.refused),
            Answer::Unknown => self.seek_on(seek, false, now),
            Answer::Busy => self.seek_on(seek, true, now),
        }
    }

    /// An origin that did not take [`Output::Seek`].
    pub(crate) fn not_taken(&mut self, link: LinkId, id: u64, now: Instant) {
        self.answered(link, id, Answer::Busy, now);
    }

    /// An origin's directory is there. Those with the greatest preference are asked first.
    pub(crate) fn link_up(&mut self, link: LinkId, preference: u64) {
        let dirty = self.by_id.keys().copied().collect();
        self.links.insert(link, Link { preference, dirty });
    }

    /// It is gone.
    pub(crate) fn link_down(&mut self, link: LinkId, now: Instant) {
        self.links.remove(&link);
        let lost = self.seeks.iter().filter(|(_, seek)| seek.at == link);
        let lost: Vec<_> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            self.not_taken(link, id, now);
        }
    }

    /// Whether an origin is to be told of anybody.
    pub(crate) fn has_news(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|it| !it.dirty.is_empty())
    }

    /// Whom an origin is to be told of next, at most `max`: where they are, or that they are
    /// gone.
    pub(crate) fn news(
        &mut self,
        link: LinkId,
        max: usize,
        now: Instant,
    ) -> Vec<(Fingerprint, Option<Presence>)> {
        let Some(link) = self.links.get_mut(&link) else {
            return Vec::new();
        };
        let mut news = Vec::new();
        while news.len() < max
            && let Some(id) = link.dirty.pop_first()
        {
            let newest = self.by_id.get(&id).and_then(BTreeSet::last);
            let peer = newest.and_then(|(_, seat)| self.peers.get(seat));
            let presence = peer.map(|peer| Presence {
                observed: peer.observed,
                reported: peer.reported.clone(),
                age: now.saturating_duration_since(peer.came),
            });
            news.push((id, presence));
        }
        news
    }

    /// When to call [`Self::handle_timeout`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let later = self.later.keys().next().map(|(at, _)| *at);
        let seeks = self.seeks.values().map(|seek| seek.until);
        seeks.chain(later).min()
    }

    /// Origins that have not answered in time are passed over, and what was put off is done.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry().filter(|it| it.key().0 <= now) {
            let due = first.remove();
            let is_there = |seat: &Seat, target: &Fingerprint| {
                let peer = self.peers.get(seat);
                peer.is_some_and(|peer| peer.id == *target)
            };
            let stale =
                matches!(&due, Output::Forward { seat, target, .. } if !is_there(seat, target));
            if !stale {
                self.outputs.push_back(due);
            }
        }
        let late = self.seeks.iter().filter(|(_, seek)| seek.until <= now);
        let late: Vec<_> = late.map(|(id, seek)| (*id, seek.at)).collect();
        for (id, link) in late {
            self.not_taken(link, id, now);
        }
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn changed(&mut self, id: Fingerprint) {
        for link in self.links.values_mut() {
            link.dirty.insert(id);
        }
    }

    fn forget_address(&mut self, address: SocketAddr, seat: Seat) {
        if self.by_address.get(&address) == Some(&seat) {
            self.by_address.remove(&address);
        }
    }

    /// Where a peer is here. Who is here twice is where it came last.
    fn seat_of(&self, id: &Fingerprint) -> Option<Seat> {
        let newest = self.by_id.get(id)?.last()?;
        Some(newest.1)
    }

    /// Who asks: one of our clients, by its address, or somebody that nothing is known of.
    fn initiator(&self, hello: &Hello) -> Initiator {
        let observed = canonical(hello.from);
        let seat = self.by_address.get(&observed);
        let peer = seat.and_then(|seat| self.peers.get(seat));
        Initiator {
            observed,
            reported: peer.map(|peer| peer.reported.clone()).unwrap_or_default(),
            app: peer.map(|peer| peer.app.clone()).unwrap_or_default(),
            tag: hello.tag.clone(),
        }
    }

    /// The addresses of a peer, if it is to be told of who asks.
    fn may_be_told(
        &mut self,
        seat: Seat,
        initiator: &Initiator,
        now: Instant,
    ) -> Option<Vec<Address>> {
        let peer = self.peers.get(&seat)?;
        let allowed = match self.policy {
            Introductions::All => true,
            Introductions::SameApp => !initiator.app.is_empty() && initiator.app == peer.app,
            Introductions::None => false,
        };
        if !allowed {
            Counts::add(&self.counts.refused);
            return None;
        }
        if !self.targets.take(peer.id, now) {
            Counts::add(&self.counts.limited);
            return None;
        }
        Some(addresses(peer.observed, &peer.reported))
    }

    fn forward(&mut self, seat: Seat, target: Fingerprint, initiator: Initiator) {
        Counts::add(&self.counts.forwarded);
        let mut from = addresses(initiator.observed, &initiator.reported);
        from.truncate(FORWARDED_ADDRESSES_MAX);
        let tag = initiator.tag;
        self.outputs.push_back(Output::Forward {
            seat,
            target,
            from,
            tag,
        });
    }

    /// The answer of the peer may be there before the one who asked knows where the peer is,
    /// and before its own hello has opened the way: an address translator lets nothing in
    /// from where nothing was sent. Who asks would do so again after 1.5 seconds.
    fn forward_again(
        &mut self,
        seat: Seat,
        target: Fingerprint,
        initiator: &Initiator,
        now: Instant,
    ) {
        let from = addresses(initiator.observed, &[]);
        let tag = initiator.tag.clone();
        let again = Output::Forward {
            seat,
            target,
            from,
            tag,
        };
        self.put_off(now + FORWARD_AGAIN, again);
    }

    /// When too much is put off, it is left to who asks to do so again.
    fn put_off(&mut self, until: Instant, what: Output) {
        if self.later.len() < PUT_OFF_MAX {
            self.later.insert((until, self.next_later), what);
            self.next_later += 1;
        }
    }

    fn seek_on(&mut self, seek: Seek, doubt: bool, now: Instant) {
        let mut tried = seek.tried;
        tried.insert(seek.at);
        self.seek(seek.hello, tried, seek.doubt || doubt, now);
    }

    /// Asks the next origin, if there is one that was not asked.
    fn seek(&mut self, hello: Hello, tried: BTreeSet<LinkId>, doubt: bool, now: Instant) {
        let left = self.links.iter().filter(|(link, _)| !tried.contains(link));
        let next = left.max_by_key(|(_, link)| link.preference);
        let Some(at) = next.map(|(link, _)| *link) else {
            if doubt || tried.is_empty() {
                return Counts::add(&self.counts.limited);
            }
            Counts::add(&self.counts.misses);
            self.is_absent(hello.target, now);
            return;
        };
        let initiator = self.initiator(&hello);
        let (id, target) = (self.next_seek, hello.target);
        self.next_seek += 1;
        let seek = Seek {
            hello,
            at,
            tried,
            doubt,
            until: now + SEEK_TIMEOUT,
        };
        self.seeks.insert(id, seek);
        self.outputs.push_back(Output::Seek {
            link: at,
            id,
            target,
            initiator,
        });
    }

    fn is_absent(&mut self, id: Fingerprint, now: Instant) {
        if self.absent.len() >= ABSENT_MAX {
            self.absent.retain(|_, until| now < *until);
        }
        if self.absent.len() < ABSENT_MAX {
            self.absent.insert(id, now + ABSENT_TIME);
        }
    }
}

/// Where a peer can be reached. Where it was seen comes first, because what does not fit is
/// left out from the end.
fn addresses(observed: SocketAddr, reported: &[SocketAddr]) -> Vec<Address> {
    let first = Address {
        at: observed,
        origin: Origin::Observed,
    };
    let others = reported.iter().filter(|at| **at != observed);
    let others = others.map(|at| Address {
        at: *at,
        origin: Origin::Reported,
    });
    std::iter::once(first).chain(others).collect()
}

/// An IPv4 address that a socket of both families shows is one of IPv4 to others.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether a peer that was seen at `observed` can be there at all. Only who is on the machine of
/// the edge is at a loopback address: others would send those who look for them to themselves.
fn usable(address: &SocketAddr, observed: SocketAddr) -> bool {
    let ip = address.ip();
    address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
        && (!ip.is_loopback() || observed.ip().is_loopback())
}

/// Whose an address is, for what is counted by sender: an IPv6 client has a whole network.
fn network(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => {
            let bits = u128::from(ip) & !u128::from(u64::MAX);
            Ipv6Addr::from(bits).into()
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
