//! RTMFP: one socket and one endpoint per shard, and the clients that came through it.
//!
//! ```text
//!  socket ─▶ endpoint ─▶ session events ─▶ flows ─▶ connection (as for RTMP)
//!         ◀─ datagrams ◀──────────────────  flows ◀─ connection, walk of the shard
//! ```
//!
//! All shards listen at the same address; the kernel gives each its clients, by their
//! addresses. A session's number tells its shard, so that a client whose address changed is
//! still found: the shard that gets its datagram hands it on.

mod flows;
mod socket;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rtmfp::crypto::identity::{Discriminator, Fingerprint, Identity};
use rtmfp::crypto::{Entropy, Group};
use rtmfp::endpoint::{self, Endpoint, Event, Output, SessionId};
use rtmfp::packet::session_of;
use rtmfp::session::{self, Session};
use rtmfp::startup::Cookies;
use tokio::sync::Notify;
use tokio_rustls::rustls::crypto::SecureRandom;
use tracing::{debug, warn};

pub(crate) use self::flows::{Flows, Told};
use self::socket::{BATCH, Room, Socket};
use crate::accept::{Permit, Permits, next_seed};
use crate::connection::Connection;
use crate::limits::FLOW_QUEUE;
use crate::metrics::Protocol;
use crate::peers::{Hello, Introduce, Seat, ToPeers};
use crate::shard::Shard;
use crate::upstream::sleep_until;

/// What all shards of an edge share.
#[derive(Clone)]
pub(crate) struct Common {
    /// Who the edge is.
    identity: Identity,
    /// With what cookies are made.
    secret: [u8; 32],
    /// The right to be connected.
    permits: Permits,
    /// For what sessions draw.
    seed: u64,
    begin: Instant,
    sessions_max: usize,
}

impl Common {
    /// A new identity, for this run.
    ///
    /// # Errors
    /// The keys cannot be made.
    pub(crate) fn new(
        permits: Permits,
        seed: u64,
        sessions_max: usize,
    ) -> Result<Self, rtmfp::Error> {
        let mut chance = Chance::new();
        let identity = Identity::ephemeral(GROUPS, true, None, &mut chance)?;
        let mut secret = [0; 32];
        chance.fill(&mut secret);
        Ok(Self {
            identity,
            secret,
            permits,
            seed,
            begin: Instant::now(),
            sessions_max,
        })
    }
}

/// The key agreements that clients may choose from. Keys are new for every session, so that
/// none of them tells what was said in another.
const GROUPS: &[Group] = &[Group::Modp2048, Group::Modp1024];

/// Randomness of the operating system.
struct Chance(&'static dyn SecureRandom);

impl Chance {
    fn new() -> Self {
        Self(tokio_rustls::rustls::crypto::ring::default_provider().secure_random)
    }
}

impl Entropy for Chance {
    fn fill(&mut self, out: &mut [u8]) {
        if self.0.fill(out).is_err() {
            // Going on would mean keys that anybody can guess.
            std::process::abort();
        }
    }
}

/// Where clients come in by datagrams.
pub(crate) struct Door {
    endpoint: RefCell<Endpoint>,
    /// Wakes the door's task: there may be something to send.
    wake: Notify,
    clients: RefCell<HashMap<SessionId, Rc<Connection>>>,
    permits: Permits,
    seed: Cell<u64>,
    /// Clients that were taken in, and that were not.
    came: Cell<(u64, u64)>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door")
    }
}

/// How far clients have come that came by datagrams, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handshakes {
    /// Hellos answered.
    pub(crate) begun: u64,
    /// Key agreements made.
    pub(crate) agreed: u64,
    /// Sessions of clients that were taken in.
    pub(crate) completed: u64,
    /// Sessions that were not: there are too many, or the edge drains.
    pub(crate) refused: u64,
    /// Cookies that were forged or too old.
    pub(crate) forged: u64,
    /// What was not done because it was done too often.
    pub(crate) limited: u64,
}

impl std::ops::AddAssign for Handshakes {
    fn add_assign(&mut self, other: Self) {
        self.begun += other.begun;
        self.agreed += other.agreed;
        self.completed += other.completed;
        self.refused += other.refused;
        self.forged += other.forged;
        self.limited += other.limited;
    }
}

/// A client that came, for its connection to take over.
pub(crate) struct Guest {
    /// Its flows.
    pub(crate) flows: Flows,
    /// Where it is.
    pub(crate) peer: SocketAddr,
    /// Given back when it leaves.
    pub(crate) permit: Permit,
    /// For what its session draws.
    pub(crate) seed: u64,
}

/// After an error of the socket that is not about one datagram.
const PAUSE: Duration = Duration::from_millis(50);

impl Door {
    /// The door of the shard `index` of `count`.
    pub(crate) fn new(common: Common, index: u32, count: u32) -> Self {
        let mut config = endpoint::Config::new(common.identity);
        config.session.queue_max = FLOW_QUEUE;
        config.sessions_max = common.sessions_max;
        config.numbers = endpoint::Numbers { index, count };
        let cookies = Cookies::new(common.secret, common.begin);
        let chance = Box::new(Chance::new());
        Self {
            endpoint: RefCell::new(Endpoint::new(config, cookies, chance, common.begin)),
            wake: Notify::new(),
            clients: RefCell::default(),
            permits: common.permits,
            seed: Cell::new(common.seed ^ u64::from(index) << 32),
            came: Cell::default(),
        }
    }

    /// Serves the socket until the future is dropped.
    pub(crate) async fn run(self: &Rc<Self>, socket: std::net::UdpSocket, shard: &Rc<Shard>) {
        let socket = match Socket::new(socket) {
            Ok(socket) => socket,
            Err(error) => {
                warn!(%error, "no RTMFP in this shard");
                return;
            }
        };
        let (mut room, mut batch) = (Room::new(), vec![0; BATCH]);
        loop {
            let due = self.drain(&socket, &mut batch, shard).await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep_until(due.map(Into::into)) => {}
                received = socket.receive(&mut room) => match received {
                    Ok(count) => {
                        for (from, datagram) in room.datagrams(count) {
                            shard.counts.received(Protocol::Rtmfp, datagram.len());
                            // Senders go by the number of acknowledgements: one for all
                            // that came at once would slow them down.
                            if self.take(from, datagram, shard) {
                                self.drain(&socket, &mut batch, shard).await;
                            }
                        }
                    }
                    Err(error) => {
                        debug!(%error, "cannot receive datagrams");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// A datagram of a session of this shard, which came to another.
    pub(crate) fn handed_on(&self, from: SocketAddr, datagram: &mut [u8]) {
        let now = Instant::now();
        self.endpoint
            .borrow_mut()
            .handle_datagram(from, datagram, now);
        self.wake.notify_one();
    }

    /// A session, to do something with it. None when it is gone.
    pub(crate) fn session(&self, id: SessionId) -> Option<RefMut<'_, Session>> {
        self.wake.notify_one();
        RefMut::filter_map(self.endpoint.borrow_mut(), |it| it.session_mut(id)).ok()
    }

    /// A client's task is over.
    pub(crate) fn forget(&self, session: SessionId) {
        self.clients.borrow_mut().remove(&session);
        self.wake.notify_one();
    }

    /// Looks at a session, which gives nobody anything to do.
    fn look<T>(&self, id: SessionId, look: impl FnOnce(&Session) -> T) -> Option<T> {
        self.endpoint.borrow().session(id).map(look)
    }

    /// Says whether its sender waits for an answer.
    fn take(&self, from: SocketAddr, datagram: &mut [u8], shard: &Shard) -> bool {
        let mut endpoint = self.endpoint.borrow_mut();
        if let Some(other) = endpoint.other_index(datagram) {
            shard.hand_on(other, from, datagram);
            return false;
        }
        let session = session_of(datagram).map(SessionId);
        endpoint.handle_datagram(from, datagram, Instant::now());
        session.is_some_and(|session| endpoint.owes_at_once(session))
    }

    /// Sends what there is to send and acts on what happened. Says when to come back.
    async fn drain(
        self: &Rc<Self>,
        socket: &Socket,
        batch: &mut [u8],
        shard: &Rc<Shard>,
    ) -> Option<Instant> {
        let max = socket.batch_max();
        loop {
            let endpoint::Batch { output, segment } =
                self.endpoint
                    .borrow_mut()
                    .poll_batch(Instant::now(), batch, max);
            match output {
                Output::Transmit { to, len } => {
                    shard.counts.sent(Protocol::Rtmfp, len);
                    socket.send(to, &batch[..len], segment).await;
                }
                Output::Event(event) => self.act(event, shard),
                Output::Timeout(due) => return due,
            }
        }
    }

    fn act(self: &Rc<Self>, event: Event, shard: &Rc<Shard>) {
        match event {
            Event::Opened {
                session,
                far,
                fingerprint,
                ..
            } => self.opened(session, (far, fingerprint), shard),
            Event::Session { session, event } => {
                if let session::Event::Moved { to, .. } = event {
                    let seat = seat(shard, session);
                    shard.ways.peers.send(ToPeers::Moved { seat, to });
                }
                let client = self.clients.borrow().get(&session).cloned();
                if let Some(client) = client {
                    client.flow_event(shard, event);
                }
            }
            Event::Introduce {
                target,
                from,
                tag,
                room,
                ..
            } => {
                shard.ways.peers.send(ToPeers::Hello(Hello {
                    shard: shard.handle.index(),
                    target,
                    from,
                    tag,
                    room,
                }));
            }
            // We begin no sessions.
            Event::OpenFailed { .. } => {}
        }
    }

    /// How far clients have come.
    pub(crate) fn handshakes(&self) -> Handshakes {
        let stats = self.endpoint.borrow().stats();
        let (completed, refused) = self.came.get();
        Handshakes {
            begun: stats.hellos,
            agreed: stats.keyings,
            completed,
            refused,
            forged: stats.cookies_refused,
            limited: stats.limited,
        }
    }

    /// Tells one who asked where a peer is, or a peer of who asked.
    pub(crate) fn introduce(&self, what: Introduce) {
        let mut endpoint = self.endpoint.borrow_mut();
        match what {
            Introduce::Redirect { hello, addresses } => {
                let Hello {
                    from, tag, room, ..
                } = hello;
                endpoint.redirect(from, &tag, &addresses, room, Instant::now());
            }
            Introduce::Forward {
                session,
                target,
                from,
                tag,
            } => {
                let target = Discriminator::canonical(&target);
                for address in from {
                    endpoint.forward(session, &target, address, &tag);
                }
            }
        }
        self.wake.notify_one();
    }

    fn opened(
        self: &Rc<Self>,
        session: SessionId,
        (peer, id): (SocketAddr, Fingerprint),
        shard: &Rc<Shard>,
    ) {
        let (completed, turned_away) = self.came.get();
        let permit = match self.permits.take(peer.ip()) {
            Ok(permit) if shard.takes_clients() => permit,
            refused => {
                self.came.set((completed, turned_away + 1));
                if let Err(full) = refused {
                    shard.settings.figures.refused(full);
                }
                debug!(%peer, full = ?refused.err(), "session refused");
                if let Some(mut session) = self.session(session) {
                    session.close(Instant::now());
                }
                return;
            }
        };
        self.came.set((completed + 1, turned_away));
        let seed = next_seed(self.seed.get());
        self.seed.set(seed);
        let client = shard.welcome(Guest {
            flows: Flows::new(self.clone(), session, id),
            peer,
            permit,
            seed,
        });
        self.clients.borrow_mut().insert(session, client);
    }
}

/// Where a session is, for those outside the shard.
fn seat(shard: &Shard, session: SessionId) -> Seat {
    Seat {
        shard: shard.handle.index(),
        session,
    }
}
