//! What lies between the processes: delays, losses and cuts, per directed pair.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::dice::Dice;

/// A process: origins first, then edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Host {
    /// By its place in the world.
    Origin(usize),
    /// By its place in the world.
    Edge(usize),
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Origin(place) => write!(f, "o{place}"),
            Self::Edge(place) => write!(f, "e{place}"),
        }
    }
}

/// The network.
#[derive(Debug)]
pub(super) struct Net {
    dice: Dice,
    /// Nothing passes from the first to the second.
    cut: BTreeSet<(Host, Host)>,
    /// When the last message of the pair arrives: what is sent later arrives later.
    busy: BTreeMap<(Host, Host), Duration>,
    /// Of a thousand messages between origins, so many are lost.
    pub(super) loss: u64,
    /// The shortest and the longest way.
    pub(super) delay: (Duration, Duration),
}

impl Net {
    /// A network where everything passes, in a fraction of a millisecond.
    #[must_use]
    pub(super) fn new(dice: Dice) -> Self {
        Self {
            dice,
            cut: BTreeSet::new(),
            busy: BTreeMap::new(),
            loss: 0,
            delay: (Duration::from_micros(50), Duration::from_micros(400)),
        }
    }

    /// When a message that is sent at `now` arrives; `None` if it does not.
    pub(super) fn arrival(&mut self, from: Host, to: Host, now: Duration) -> Option<Duration> {
        if self.is_cut(from, to) || self.dice.in_thousand(self.loss) {
            return None;
        }
        Some(self.in_order(from, to, now))
    }

    /// When a byte of a connection that is sent at `now` arrives: behind what was sent
    /// before. Connections lose nothing; they break.
    pub(super) fn in_order(&mut self, from: Host, to: Host, now: Duration) -> Duration {
        let at = now + self.dice.between(self.delay.0, self.delay.1);
        let busy = self.busy.entry((from, to)).or_default();
        *busy = at.max(*busy + Duration::from_nanos(1));
        *busy
    }

    /// Whether nothing passes.
    #[must_use]
    pub(super) fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Cuts one direction.
    pub(super) fn cut(&mut self, from: Host, to: Host) {
        self.cut.insert((from, to));
    }

    /// Everything passes again.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
        self.delay = (Duration::from_micros(50), Duration::from_micros(400));
    }
}
