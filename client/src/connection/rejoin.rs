//! Where a connection goes on when its server is lost.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use rtmfp::crypto::identity::Discriminator;
use rtmfp::endpoint::{Endpoint, OpeningId};
use session::ClientSession;
use session::client::{Closed, Welcome};

use super::{Connection, Over, dial};
use crate::limits::{SEEK_NEXT, SEEK_ROUND};
use crate::{Options, Target};

/// The servers that a connection may have.
pub(super) struct Home {
    pub(super) targets: Vec<Target>,
    pub(super) options: Options,
    /// Which of them it has, or had last.
    pub(super) at: usize,
    /// Since when there is none that accepted `connect`.
    pub(super) lost: Option<Instant>,
}

impl Home {
    pub(super) const fn new(targets: Vec<Target>, options: Options, at: usize) -> Self {
        let lost = None;
        Self {
            targets,
            options,
            at,
            lost,
        }
    }

    /// The next server, then those after it, and the one that was lost last of all.
    fn seek(&self, now: Instant, until: Instant) -> Seek {
        let count = self.targets.len();
        let order = (1..=count).map(|step| (self.at + step) % count.max(1));
        let targets = order.filter_map(|at| {
            let target = self.targets.get(at)?;
            let speaks = target.scheme.without_datagrams().is_some();
            speaks.then(|| (at, target.clone()))
        });
        // Servers that all refuse us are not asked without a pause.
        let again = self.lost.is_some_and(|lost| lost < now);
        let begin = if again { now + SEEK_NEXT } else { now };
        Seek::new(targets.collect(), begin, until)
    }
}

impl Connection {
    /// The server is lost, and there may be others: looks for one of them, while what is
    /// with peers goes on. Says whether it does. What the server was asked and has not
    /// answered, and the streams and objects that it had for us, are gone.
    pub(crate) fn seek_another(&mut self) -> bool {
        let with_peers = self.with_peers(|peers, _, _| peers.is_with_any());
        let now = Instant::now();
        let Some(home) = &mut self.home else {
            return false;
        };
        if matches!(self.over, None | Some(Over::Session(Closed::Here))) {
            return false;
        }
        let until = *home.lost.get_or_insert(now) + home.options.patience;
        // Whoever has peers has something to wait for.
        if until <= now && with_peers != Some(true) {
            return false;
        }
        let seek = home.seek(now, until);
        self.wire.seek(seek);
        self.over = None;
        self.events.clear();
        self.session.close();
        while self.session.poll_output().is_some() {}
        true
    }

    /// Which server it is connected to, if there are others that it may go to.
    pub(crate) fn server(&self) -> Option<&Target> {
        let home = self.home.as_ref()?;
        home.targets.get(home.at)
    }

    /// Says `connect` to a server that was found.
    pub(super) fn greet(&mut self, now: Instant) {
        let Some(at) = self.wire.take_found() else {
            return;
        };
        let Some(home) = &mut self.home else {
            return;
        };
        let Some(target) = home.targets.get(at) else {
            return;
        };
        home.at = at;
        match ClientSession::new(&home.options.setup_for(target), now) {
            Ok(session) => self.session = session,
            Err(error) => self.over = Some(Over::Misbehaved(error)),
        }
    }

    /// The server accepted `connect`.
    pub(super) fn arrived(&mut self, welcome: &Welcome) {
        let again = self.home.as_mut().and_then(|home| home.lost.take());
        if again.is_none() {
            return;
        }
        self.welcome = Some(Box::new(welcome.clone()));
        self.traces.welcome(welcome);
        if let Err(error) = self.report() {
            self.over = Some(Over::Misbehaved(error));
        }
    }
}

/// A search for a server on a line that is there: each is asked a little after the one before,
/// and the first that answers is it.
pub(super) struct Seek {
    targets: Vec<(usize, Target)>,
    resolving: Vec<Resolving>,
    /// Who is to be asked, by the place in `targets`.
    places: Vec<Place>,
    openings: Vec<(OpeningId, usize)>,
    next: Instant,
    /// When all are asked anew: a hello is repeated ever less often.
    anew: Instant,
    /// When it is over, for one who has no peers.
    until: Instant,
}

struct Place {
    rank: usize,
    at: usize,
    url: Vec<u8>,
    addrs: Vec<SocketAddr>,
}

type Resolving = Pin<Box<dyn Future<Output = Option<Place>> + Send>>;

impl Seek {
    fn new(targets: Vec<(usize, Target)>, begin: Instant, until: Instant) -> Self {
        let mut seek = Self {
            targets,
            resolving: Vec::new(),
            places: Vec::new(),
            openings: Vec::new(),
            next: begin,
            anew: begin,
            until,
        };
        seek.resolve(begin);
        seek
    }

    fn resolve(&mut self, now: Instant) {
        self.anew = now + SEEK_ROUND;
        self.next = now;
        let targets = self.targets.iter().cloned().enumerate();
        self.resolving = targets
            .map(|(rank, (at, target))| -> Resolving { Box::pin(place(rank, at, target)) })
            .collect();
        self.places.clear();
    }

    /// Asks whom it is time to ask. Says whether anybody was.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &mut Endpoint,
        now: Instant,
    ) -> bool {
        if self.anew <= now {
            self.give_up(endpoint);
            self.resolve(now);
        }
        let places = &mut self.places;
        self.resolving
            .retain_mut(|resolving| match resolving.as_mut().poll(cx) {
                Poll::Ready(place) => {
                    places.extend(place);
                    false
                }
                Poll::Pending => true,
            });
        if self.next > now {
            return false;
        }
        let ranks = self.places.iter().enumerate();
        let Some((first, _)) = ranks.min_by_key(|(_, place)| place.rank) else {
            return false;
        };
        let place = self.places.swap_remove(first);
        let opening = endpoint.open(&Discriminator::server(&place.url), &place.addrs, now);
        self.openings.push((opening, place.at));
        self.next = now + SEEK_NEXT;
        true
    }

    /// When [`Self::poll`] is to be called, whatever wakes it otherwise.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        let next = Some(self.next).filter(|_| !self.places.is_empty());
        let until = Some(self.until).filter(|until| *until > now);
        let others = next.into_iter().chain(until);
        others.fold(self.anew, Instant::min)
    }

    /// Whether it is over for one who has no peers.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.until <= now
    }

    /// Which server it is that an attempt reached.
    pub(super) fn found(&self, opening: Option<OpeningId>) -> Option<usize> {
        let mut all = self.openings.iter();
        all.find(|(id, _)| Some(*id) == opening).map(|(_, at)| *at)
    }

    /// Ends all attempts.
    pub(super) fn give_up(&mut self, endpoint: &mut Endpoint) {
        for (opening, _) in self.openings.drain(..) {
            endpoint.cancel(opening);
        }
    }
}

async fn place(rank: usize, at: usize, target: Target) -> Option<Place> {
    let addrs = dial::resolve(&target).await.ok()?;
    let url = target.tc_url().into_bytes();
    Some(Place {
        rank,
        at,
        url,
        addrs,
    })
}
