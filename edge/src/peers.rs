//! Clients that came by RTMFP and want to talk with one another.
//!
//! ```text
//!  shard: hello for a peer ─▶ book ─▶ shard of the peer: forwarded hello
//!                              │  └──▶ shard that asked:  redirect
//!                              └─────▶ an origin's directory ─▶ the peer's edge, its book
//! ```
//!
//! One task per edge reads what shards tell, feeds it to the [`Book`](book::Book), which
//! decides, and carries out what that says.

mod book;
mod link;
mod rates;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use fabric::v1::{ToDirectory, to_directory};
use node::metrics::{Metrics, SECONDS, catch_up};
use node::resolve::Addresses;
use rtmfp::address::Address;
use rtmfp::crypto::identity::Fingerprint;
use rtmfp::endpoint::SessionId;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info};

use self::book::{Book, Counts, LinkId, Output};
pub(crate) use self::book::{Hello, Seat};
use self::link::LinkEvent;
use crate::config::Introductions;
use crate::limits::{INBOX_BATCH, PEERS_BATCH, PEERS_PACE};
use crate::link::{Dialling, LinkSetup};
use crate::shard::{ShardHandle, ToShard};
use crate::upstream::sleep_until;

/// What the task is told.
#[derive(Debug)]
pub(crate) enum ToPeers {
    /// A client is connected.
    Came {
        /// Where it is.
        seat: Seat,
        /// Who it is.
        id: Fingerprint,
        /// The instance of an application.
        app: String,
        /// Where it was seen.
        observed: SocketAddr,
    },
    /// A client says where it is itself.
    Reported {
        /// Which.
        seat: Seat,
        /// What it says.
        report: Report,
    },
    /// A client's address changed.
    Moved {
        /// Which.
        seat: Seat,
        /// Its new address.
        to: SocketAddr,
    },
    /// A client is gone.
    Left(Seat),
    /// Someone wants to talk with a peer.
    Hello(Hello),
}

/// What a shard is to do.
#[derive(Debug)]
pub(crate) enum Introduce {
    /// Tell who asked where the peer is.
    Redirect {
        /// What was asked.
        hello: Hello,
        /// Where the peer is.
        addresses: Vec<Address>,
    },
    /// Hand a hello to a peer.
    Forward {
        /// The peer's session.
        session: SessionId,
        /// Who the peer is.
        target: Fingerprint,
        /// Where who asks is.
        from: Vec<Address>,
        /// What the answer is to repeat.
        tag: Vec<u8>,
    },
}

/// The addresses that a client says it has. However often it says them, one notice of it waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report(Arc<Mutex<Option<Vec<SocketAddr>>>>);

impl Report {
    /// Puts addresses in place of those before. Says whether the task is to be told.
    pub(crate) fn say(&self, addresses: Vec<SocketAddr>) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.replace(addresses).is_none()
    }

    fn take(&self) -> Vec<SocketAddr> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.take().unwrap_or_default()
    }
}

/// The way to the task.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    inbox: mpsc::UnboundedSender<ToPeers>,
}

impl Handle {
    /// Queues a message. Hellos are bounded by what each endpoint lets through, reports and the
    /// coming and going by the number of clients.
    pub(crate) fn send(&self, message: ToPeers) {
        let _ = self.inbox.send(message);
    }
}

/// The way to the task, and what it will read.
pub(crate) fn inbox() -> (Handle, mpsc::UnboundedReceiver<ToPeers>) {
    let (inbox, receiver) = mpsc::unbounded_channel();
    (Handle { inbox }, receiver)
}

/// Events of all links that wait to be looked at.
const EVENTS_QUEUE: usize = 1024;

/// The way to an origin's directory.
struct Way {
    out: mpsc::Sender<ToDirectory>,
    /// Before this it is not told of what changed.
    news_at: Instant,
}

/// The task.
pub(crate) struct Peers {
    book: Book,
    inbox: mpsc::UnboundedReceiver<ToPeers>,
    shards: Vec<ShardHandle>,
    counts: Arc<Counts>,
    setup: LinkSetup,
    dialling: Dialling,
    link_ids: Arc<AtomicU64>,
    links: BTreeMap<LinkId, Way>,
    events: (mpsc::Sender<LinkEvent>, mpsc::Receiver<LinkEvent>),
}

impl Peers {
    /// A task for the clients of these shards, which will dial the origins at `addresses`.
    pub(crate) fn new(
        policy: Introductions,
        inbox: mpsc::UnboundedReceiver<ToPeers>,
        shards: Vec<ShardHandle>,
        setup: LinkSetup,
        addresses: watch::Receiver<Addresses>,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        Self {
            book: Book::new(policy, counts.clone()),
            inbox,
            shards,
            counts,
            setup,
            dialling: Dialling::new(addresses),
            link_ids: Arc::default(),
            links: BTreeMap::new(),
            events: mpsc::channel(EVENTS_QUEUE),
        }
    }

    /// Has what became of introductions shown at every scrape.
    pub(crate) fn watch(&self, metrics: &Metrics) {
        let shown = metrics.counters(
            "selvage_rtmfp_introductions_total",
            "Hellos for peers heard here, and what became of them: the peer was at this edge, at \
             another, nowhere; a peer here was told; not to be told; too often, or nobody knew.",
            &["what"],
        );
        self.counts.answers.0.get_or_init(|| {
            metrics.histogram(
                "selvage_rtmfp_lookup_seconds",
                "From asking an origin where a peer is to its answer, or until it is given up.",
                SECONDS,
            )
        });
        let counts = self.counts.clone();
        metrics.on_scrape(move || {
            for (what, counted) in [
                ("lookup", &counts.lookups),
                ("here", &counts.here),
                ("elsewhere", &counts.elsewhere),
                ("miss", &counts.misses),
                ("forwarded", &counts.forwarded),
                ("refused", &counts.refused),
                ("limited", &counts.limited),
            ] {
                let counted = counted.load(std::sync::atomic::Ordering::Relaxed);
                catch_up(&shown.with_label_values(&[what]), counted);
            }
            std::future::ready(())
        });
    }

    /// Runs until no shard is left.
    pub(crate) async fn run(mut self) {
        self.dial();
        let mut batch = Vec::with_capacity(INBOX_BATCH);
        loop {
            self.carry_out();
            let again = self.tell_news();
            let deadline = self.book.deadline().map(Instant::from);
            let deadline = deadline.into_iter().chain(again).min();
            tokio::select! {
                count = self.inbox.recv_many(&mut batch, INBOX_BATCH) => {
                    if count == 0 {
                        break;
                    }
                    for message in batch.drain(..) {
                        self.handle(message);
                    }
                }
                Some(event) = self.events.1.recv() => self.handle_link(event),
                Ok(()) = self.dialling.changed() => self.dial(),
                () = sleep_until(deadline) => self.book.handle_timeout(now()),
            }
        }
        info!(introductions = ?self.counts, "no more introductions");
    }

    /// Dials what is new in the list and lets go of what has left it.
    fn dial(&mut self) {
        let (setup, ids, events) = (&self.setup, &self.link_ids, &self.events.0);
        self.dialling.dial(|address, wanted| {
            link::keep(setup.clone(), address, wanted, ids.clone(), events.clone())
        });
    }

    fn handle(&mut self, message: ToPeers) {
        let now = now();
        match message {
            ToPeers::Came {
                seat,
                id,
                app,
                observed,
            } => self.book.came(seat, id, app, observed, now),
            ToPeers::Reported { seat, report } => self.book.reported(seat, report.take()),
            ToPeers::Moved { seat, to } => self.book.moved(seat, to),
            ToPeers::Left(seat) => self.book.left(seat),
            ToPeers::Hello(hello) => self.book.hello(hello, now),
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        let now = now();
        match event {
            LinkEvent::Up {
                link,
                preference,
                out,
            } => {
                let news_at = Instant::now();
                self.links.insert(link, Way { out, news_at });
                self.book.link_up(link, preference);
            }
            LinkEvent::Down { link } => {
                self.links.remove(&link);
                self.book.link_down(link, now);
            }
            LinkEvent::Heard { link, message } => match wire::heard(message) {
                Ok(Some(wire::Heard::Asked {
                    id,
                    peer,
                    initiator,
                })) => self.book.asked((link, id), peer, initiator, now),
                Ok(Some(wire::Heard::Answered { id, answer })) => {
                    self.book.answered(link, id, answer, now);
                }
                // A message of a newer origin: nothing depends on it.
                Ok(None) => {}
                Err(error) => debug!(%error, "an origin says what cannot be"),
            },
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.book.poll_output() {
            match output {
                Output::Redirect { hello, addresses } => {
                    let shard = hello.shard;
                    self.tell(shard, Introduce::Redirect { hello, addresses });
                }
                Output::Forward {
                    seat,
                    target,
                    from,
                    tag,
                } => {
                    let session = seat.session;
                    let forward = Introduce::Forward {
                        session,
                        target,
                        from,
                        tag,
                    };
                    self.tell(seat.shard, forward);
                }
                Output::Seek {
                    link,
                    id,
                    target,
                    initiator,
                } => {
                    if !self.send(link, wire::seek(id, &target, initiator)) {
                        self.book.not_taken(link, id, now());
                    }
                }
                // An answer that finds no room is not waited for.
                Output::Verdict { link, id, verdict } => {
                    self.send(link, wire::verdict(id, verdict));
                }
            }
        }
    }

    /// Tells origins what they do not know yet. Says when there is more to tell.
    fn tell_news(&mut self) -> Option<Instant> {
        let now = Instant::now();
        for (link, way) in &mut self.links {
            if way.news_at > now || !self.book.has_news(*link) {
                continue;
            }
            way.news_at = now + PEERS_PACE;
            while self.book.has_news(*link) {
                // One without room is looked at again; one that is gone will be let go of.
                let Ok(room) = way.out.try_reserve() else {
                    break;
                };
                let news = self.book.news(*link, PEERS_BATCH, now.into());
                room.send(ToDirectory {
                    body: Some(wire::news(news)),
                });
            }
        }
        let waiting = self.links.iter();
        let waiting = waiting.filter(|(link, _)| self.book.has_news(**link));
        waiting.map(|(_, way)| way.news_at).min()
    }

    fn send(&self, link: LinkId, body: to_directory::Body) -> bool {
        let way = self.links.get(&link);
        way.is_some_and(|way| way.out.try_send(ToDirectory { body: Some(body) }).is_ok())
    }

    fn tell(&self, shard: usize, what: Introduce) {
        if let Some(shard) = self.shards.get(shard) {
            shard.send(ToShard::Introduce(what));
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into()
}
