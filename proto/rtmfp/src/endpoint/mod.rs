//! Many sessions on one socket.
//!
//! # How it is driven
//!
//! 1. Give every datagram to [`Endpoint::handle_datagram`].
//! 2. Call [`Endpoint::poll_output`] until it gives [`Output::Timeout`]: send what it wrote,
//!    act on the events. Then sleep until then or until the next datagram.
//!    [`Endpoint::poll_batch`] gives several datagrams to one address at once, for a socket
//!    that takes them so: they are also sealed together, which is cheaper.
//! 3. Whatever is done to a session goes through [`Endpoint::session_mut`]; poll afterwards.
//!
//! # Who is not proved
//!
//! Nothing is stored for a sender until it has repeated our cookie, but for some fragments of
//! startup packets, and what is done for it is limited by [`Config`]: answers to hellos, key
//! agreements, introductions. One that asks for more than others leaves them their share. A
//! session that we answered is half open until a packet comes that shows that its keys are
//! held: nothing is told of it before, it does not last, and there are not many. No answer to
//! one who may have another's address is longer than what it answers, but for a
//! Responder Hello, which has to hold a cookie and our certificate.
//!
//! # Introductions
//!
//! A hello for a fingerprint that is not ours becomes [`Event::Introduce`]. The owner, who
//! may know where that peer is, calls [`Endpoint::redirect`] and, where it holds the peer's
//! session, [`Endpoint::forward`].

mod incoming;
mod outgoing;
mod rate;
mod tables;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use crate::address::{Address, Origin};
use crate::chunk::{Chunk, ForwardedHello, Redirect, Redirects};
use crate::crypto::identity::{Fingerprint, Identity};
use crate::crypto::keying::Policy;
use crate::crypto::{Entropy, FlashSuite, Group};
use crate::limits;
use crate::packet::{STARTUP_SESSION, session_of};
use crate::reassembly::Reassembly;
use crate::session::{self, Session};
use crate::startup::{self, Cookies, Opening};
use crate::wire::Writer;
use rate::{Rate, Shares};

/// A session of an endpoint: the id of packets to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

/// An attempt to open a session. The session that comes of it has the same number, unless
/// the far end began one at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpeningId(pub u32);

/// Which numbers an endpoint gives its sessions: those that leave the rest `index` when they
/// are divided by `count`. Endpoints that share an address can tell by it whose a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Which of them this endpoint is. Less than `count`.
    pub index: u32,
    /// How many there are, at least one.
    pub count: u32,
}

/// What an endpoint is to be.
#[derive(Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// What it wants negotiated when it answers.
    pub answer: Policy,
    /// What it wants negotiated when it begins, and the strongest group.
    pub begin: (Group, Policy),
    /// How its sessions behave.
    pub session: session::Config,
    /// Which numbers its sessions have.
    pub numbers: Numbers,
    /// When not empty, hellos for us are sent to these addresses: the front port of shards.
    pub redirect: Vec<Address>,
    /// The most sessions.
    pub sessions_max: usize,
    /// Hellos that are answered in a second.
    pub hellos_per_second: u32,
    /// Key agreements in a second. They are the dear part.
    pub keyings_per_second: u32,
    /// Introductions that are told in a second.
    pub introductions_per_second: u32,
    /// Hellos that are forwarded to us and answered in a second. Whoever has a session can
    /// make us answer anybody.
    pub forwarded_per_second: u32,
}

impl Config {
    /// A server or a peer with limits for one shard.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            answer: Policy::MIRROR,
            begin: (Group::Modp2048, Policy::ALWAYS),
            session: session::Config::default(),
            numbers: Numbers { index: 0, count: 1 },
            redirect: Vec::new(),
            sessions_max: 20_000,
            hellos_per_second: 20_000,
            keyings_per_second: 500,
            introductions_per_second: 1000,
            forwarded_per_second: 100,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is open. One that we answered is when a packet has come in it: the far end
    /// holds its keys.
    Opened {
        /// The session.
        session: SessionId,
        /// The attempt that it came of, if we made one.
        opening: Option<OpeningId>,
        /// Where the far end is.
        far: SocketAddr,
        /// Who it is.
        fingerprint: Fingerprint,
    },
    /// An attempt came to nothing in 95 seconds.
    OpenFailed {
        /// The attempt.
        opening: OpeningId,
    },
    /// Something happened in a session.
    Session {
        /// The session.
        session: SessionId,
        /// What happened.
        event: session::Event,
    },
    /// Someone wants to talk with a peer that is not us.
    Introduce {
        /// Whom it wants.
        target: Fingerprint,
        /// That peer's session here, if it has one.
        held: Option<SessionId>,
        /// Where the one who asks was seen.
        from: SocketAddr,
        /// What the answer is to repeat.
        tag: Vec<u8>,
        /// The length of the datagram that asked. No answer to it may be longer.
        room: usize,
    },
}

/// What an endpoint has for its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// The buffer holds a datagram.
    Transmit {
        /// Where it goes.
        to: SocketAddr,
        /// Its length.
        len: usize,
    },
    /// Something happened.
    Event(Event),
    /// Nothing until then, or until something comes.
    Timeout(Option<Instant>),
}

/// What an endpoint has for an owner whose socket takes several datagrams at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// As always; what is transmitted may be several datagrams in a row.
    pub output: Output,
    /// The length of each datagram but the last, which may be shorter.
    pub segment: usize,
}

/// The most datagrams of a batch: what the system calls take.
pub const BATCH_MAX: usize = 64;

/// What an endpoint has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams taken in.
    pub datagrams: u64,
    /// Datagrams that were not authentic, came before, or were broken.
    pub dropped: u64,
    /// Datagrams to a session that is not.
    pub unknown_session: u64,
    /// Hellos answered.
    pub hellos: u64,
    /// Key agreements made.
    pub keyings: u64,
    /// Cookies that were forged or too old.
    pub cookies_refused: u64,
    /// What was not done because it was done too often.
    pub limited: u64,
}

struct Entry {
    session: Session,
    suite: FlashSuite,
    far_id: u32,
    certificate: Vec<u8>,
    fingerprint: Fingerprint,
    /// The initiator's keying and our component, when we answered.
    answered: Option<(startup::Request, Vec<u8>)>,
    /// Where it is in the table of addresses.
    bound: SocketAddr,
    reported: Vec<SocketAddr>,
    deadline: Option<Instant>,
    queued: bool,
    /// A packet came that only the holder of the keys can have made.
    proved: bool,
    /// The owner knows of it.
    told: bool,
}

/// Many sessions on one socket.
pub struct Endpoint {
    config: Config,
    cookies: Cookies,
    entropy: Box<dyn Entropy + Send>,
    origin: Instant,
    startup: FlashSuite,
    /// Boxed: a tree has room for more than it holds, and these are large.
    sessions: BTreeMap<u32, Box<Entry>>,
    openings: BTreeMap<u32, Opening>,
    by_address: BTreeMap<SocketAddr, u32>,
    by_fingerprint: BTreeMap<Fingerprint, BTreeSet<u32>>,
    timers: BTreeSet<(Instant, u32)>,
    ready: VecDeque<u32>,
    events: VecDeque<Event>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    hellos: Shares,
    keyings: Shares,
    introductions: Rate,
    forwarded: Rate,
    /// Sessions that we answered, the oldest first. Those that were proved since are among
    /// them until their turn comes.
    half_open: VecDeque<u32>,
    /// Where the search for sessions that are over goes on.
    searched: u32,
    fragments: Reassembly<SocketAddr>,
    stats: Stats,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("sessions", &self.sessions.len())
            .field("openings", &self.openings.len())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint that begins at `now`. Shards that may see one another's cookies are given
    /// the same `cookies`.
    #[must_use]
    pub fn new(
        config: Config,
        cookies: Cookies,
        mut entropy: Box<dyn Entropy + Send>,
        now: Instant,
    ) -> Self {
        let mut secret = [0; 8];
        entropy.fill(&mut secret);
        let secret = u64::from_be_bytes(secret);
        Self {
            hellos: Shares::new(config.hellos_per_second, secret, now),
            keyings: Shares::new(config.keyings_per_second, secret, now),
            introductions: Rate::new(config.introductions_per_second, now),
            forwarded: Rate::new(config.forwarded_per_second, now),
            half_open: VecDeque::new(),
            searched: 0,
            fragments: Reassembly::new(
                limits::FRAGMENTED_STARTUPS_MAX,
                limits::STARTUP_DATAGRAM_MAX,
            ),
            config,
            cookies,
            entropy,
            origin: now,
            startup: FlashSuite::startup(),
            sessions: BTreeMap::new(),
            openings: BTreeMap::new(),
            by_address: BTreeMap::new(),
            by_fingerprint: BTreeMap::new(),
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            events: VecDeque::new(),
            outbox: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Who it is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.config.identity
    }

    /// What was counted.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// How many sessions there are, closing ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Sends hellos for us elsewhere from now on; with none, answers them.
    pub fn set_redirect(&mut self, to: Vec<Address>) {
        self.config.redirect = to;
    }

    /// Changes how many sessions there may be. Those that there are stay.
    pub const fn set_sessions_max(&mut self, max: usize) {
        self.config.sessions_max = max;
    }

    /// Begins to open a session with `discriminator`, which may be at any of `to`.
    pub fn open(&mut self, discriminator: &[u8], to: &[SocketAddr], now: Instant) -> OpeningId {
        let id = self.fresh_id();
        let begin = self.config.begin;
        let opening = Opening::new(discriminator, to, id, begin, &mut *self.entropy, now);
        self.openings.insert(id, opening);
        OpeningId(id)
    }

    /// Gives an attempt up.
    pub fn cancel(&mut self, opening: OpeningId) {
        self.openings.remove(&opening.0);
    }

    /// Whose datagram it is, when it belongs to a session of another endpoint at this address.
    #[must_use]
    pub fn other_index(&self, datagram: &[u8]) -> Option<u32> {
        let Numbers { index, count } = self.config.numbers;
        let id = session_of(datagram).filter(|id| *id != STARTUP_SESSION)?;
        let other = id % count.max(1);
        (other != index).then_some(other)
    }

    /// A session, to look at.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id.0).map(|entry| &entry.session)
    }

    /// Ends all sessions and attempts at once; see [`Session::abort`].
    pub fn abort_all(&mut self) {
        self.openings.clear();
        for (id, entry) in &mut self.sessions {
            entry.session.abort();
            queue(&mut self.ready, *id, entry);
        }
    }

    /// Whether a session owes an acknowledgement that is not to be put off: its far end
    /// sends by them. An owner who takes many datagrams in at a time polls here and there.
    #[must_use]
    pub fn owes_at_once(&self, id: SessionId) -> bool {
        let entry = self.sessions.get(&id.0);
        entry.is_some_and(|entry| entry.session.owes_at_once())
    }

    /// A session, to do something with it.
    pub fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let entry = self.sessions.get_mut(&id.0)?;
        queue(&mut self.ready, id.0, entry);
        Some(&mut entry.session)
    }

    /// Where the far end of a session says it is itself, from `setPeerInfo`.
    pub fn set_reported(&mut self, id: SessionId, mut addresses: Vec<SocketAddr>) {
        addresses.truncate(limits::REPORTED_MAX);
        if let Some(entry) = self.sessions.get_mut(&id.0) {
            entry.reported = addresses;
        }
    }

    /// Where the far end of a session can be reached: where it was seen, and where it says
    /// it is.
    #[must_use]
    pub fn addresses_of(&self, id: SessionId) -> Vec<Address> {
        let Some(entry) = self.sessions.get(&id.0) else {
            return Vec::new();
        };
        let seen = Address {
            at: entry.session.far(),
            origin: Origin::Observed,
        };
        let reported = entry.reported.iter().map(|at| Address {
            at: *at,
            origin: Origin::Reported,
        });
        std::iter::once(seen).chain(reported).collect()
    }

    /// The newest session with a peer that has shown to hold its keys.
    #[must_use]
    pub fn session_of(&self, fingerprint: &Fingerprint) -> Option<SessionId> {
        let ids = self.by_fingerprint.get(fingerprint)?;
        let open = |id: &&u32| {
            let entry = self.sessions.get(id);
            entry.is_some_and(|entry| entry.proved && entry.session.is_open())
        };
        ids.iter().rev().find(open).map(|id| SessionId(*id))
    }

    /// Tells one who asked where to ask. As many addresses go as make no longer datagram
    /// than the `room` bytes that asked.
    pub fn redirect(
        &mut self,
        to: SocketAddr,
        tag: &[u8],
        addresses: &[Address],
        room: usize,
        now: Instant,
    ) {
        let mut addresses = addresses;
        while let Some((_, fewer)) = addresses.split_last() {
            let chunk = Chunk::Redirect(Redirect {
                tag,
                to: Redirects::List(addresses),
            });
            if self.send_startup(to, 0, &chunk, room, now) {
                return;
            }
            // No address at all would mean our own.
            addresses = fewer;
        }
    }

    /// Forwards a hello to the peer it is for, over its session, which is to answer it at
    /// `reply`. Says whether it could.
    pub fn forward(
        &mut self,
        held: SessionId,
        discriminator: &[u8],
        reply: Address,
        tag: &[u8],
    ) -> bool {
        let mut buffer = [0; limits::DATAGRAM_MAX];
        let mut out = Writer::new(&mut buffer);
        let chunk = Chunk::ForwardedHello(ForwardedHello {
            discriminator,
            reply,
            tag,
        });
        let written = chunk.write(&mut out).is_ok();
        let bytes = bytes::Bytes::copy_from_slice(out.written());
        written && self.session_mut(held).is_some_and(|s| s.send_chunk(bytes))
    }

    fn run_openings(&mut self, now: Instant) {
        let (identity, timestamp) = (&self.config.identity, self.timestamp(now));
        let (startup, outbox) = (&mut self.startup, &mut self.outbox);
        let mut failed = Vec::new();
        for (id, opening) in &mut self.openings {
            if opening.has_failed(now) {
                failed.push(*id);
                continue;
            }
            while opening.next_send(identity, now, |to, chunk| {
                push_startup(startup, outbox, to, 0, timestamp, &chunk);
            }) {}
        }
        for id in failed {
            self.openings.remove(&id);
            let opening = OpeningId(id);
            self.events.push_back(Event::OpenFailed { opening });
        }
    }

    fn timestamp(&self, now: Instant) -> u16 {
        let ticks = now.saturating_duration_since(self.origin).as_millis() / 4;
        #[allow(clippy::cast_possible_truncation, reason = "the low 16 bits (§2.2.4)")]
        let low = ticks as u16;
        low
    }

    /// Queues a startup datagram of at most `room` bytes. Says whether it was short enough.
    fn send_startup(
        &mut self,
        to: SocketAddr,
        session: u32,
        chunk: &Chunk<'_>,
        room: usize,
        now: Instant,
    ) -> bool {
        let timestamp = self.timestamp(now);
        let mut buffer = [0; limits::STARTUP_DATAGRAM_MAX];
        let room = &mut buffer[..room.min(limits::STARTUP_DATAGRAM_MAX)];
        let written = startup::write_datagram(&mut self.startup, room, session, timestamp, chunk);
        let Ok(len) = written else { return false };
        if self.outbox.len() < limits::STARTUP_QUEUE_MAX {
            self.outbox.push_back((to, buffer[..len].to_vec()));
        } else {
            self.stats.limited += 1;
        }
        true
    }

    /// An id that no session and no attempt has; zero is the startup's.
    fn fresh_id(&mut self) -> u32 {
        loop {
            let mut bytes = [0; 4];
            self.entropy.fill(&mut bytes);
            let Numbers { index, count } = self.config.numbers;
            let id = u32::from_le_bytes(bytes);
            let Some(id) = (id - id % count.max(1)).checked_add(index) else {
                continue;
            };
            let free = !self.sessions.contains_key(&id) && !self.openings.contains_key(&id);
            if id != 0 && free {
                return id;
            }
        }
    }
}

fn queue(ready: &mut VecDeque<u32>, id: u32, entry: &mut Entry) {
    if !entry.queued {
        entry.queued = true;
        ready.push_back(id);
    }
}

fn push_startup(
    suite: &mut FlashSuite,
    outbox: &mut VecDeque<(SocketAddr, Vec<u8>)>,
    to: SocketAddr,
    session: u32,
    timestamp: u16,
    chunk: &Chunk<'_>,
) {
    let mut buffer = [0; limits::STARTUP_DATAGRAM_MAX];
    let written = startup::write_datagram(suite, &mut buffer, session, timestamp, chunk);
    if let Ok(len) = written {
        outbox.push_back((to, buffer[..len].to_vec()));
    }
}

#[cfg(test)]
mod tests;
