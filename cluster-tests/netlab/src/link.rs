//! One direction between two hosts.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::limits::QUEUE_BYTES;
use crate::wires::{Port, Wires};

/// What a link does to frames. The default does nothing: a frame is handed on as soon as
/// it is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Impairment {
    /// How long every frame takes.
    pub delay: Duration,
    /// How much longer it may take: evenly between nothing and this. Frames keep their
    /// order all the same.
    pub jitter: Duration,
    /// The share of frames that are lost, 0 to 1.
    pub loss: f64,
    /// The share of frames that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// The share of frames that overtake: they arrive without delay and jitter, before
    /// what was sent earlier. Has no effect on a link without delay.
    pub reorder: f64,
    /// Bits per second, counted with Ethernet's header; `None` is without limit.
    pub rate: Option<u64>,
    /// How many bytes wait for the rate before frames are dropped.
    pub queue: usize,
}

impl Default for Impairment {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            rate: None,
            queue: QUEUE_BYTES,
        }
    }
}

impl Impairment {
    /// Nothing but a delay.
    #[must_use]
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Nothing but a loss: a share of 0 to 1.
    #[must_use]
    pub fn loss(loss: f64) -> Self {
        Self {
            loss,
            ..Self::default()
        }
    }

    /// Nothing but a rate, in bits per second.
    #[must_use]
    pub fn rate(bits_per_second: u64) -> Self {
        Self {
            rate: Some(bits_per_second),
            ..Self::default()
        }
    }
}

/// What a link has done so far. Frames that only find addresses are not counted. Once
/// nothing is under way, `frames + doubled` is the sum of what was `delivered`, `lost`,
/// `cut` and `overflowed`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames that were sent over it.
    pub frames: u64,
    /// Their bytes, with Ethernet's header.
    pub bytes: u64,
    /// Frames that arrived.
    pub delivered: u64,
    /// Lost by [`Impairment::loss`].
    pub lost: u64,
    /// Lost because the link was cut, when they were sent or on their way.
    pub cut: u64,
    /// Dropped because a queue was full.
    pub overflowed: u64,
    /// Sent twice.
    pub doubled: u64,
    /// Sent ahead of others.
    pub overtook: u64,
}

/// One direction between two hosts of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Link<'lab> {
    wires: &'lab Mutex<Wires>,
    from: Port,
    to: Port,
}

impl<'lab> Link<'lab> {
    pub(crate) fn new(wires: &'lab Mutex<Wires>, from: Port, to: Port) -> Self {
        Self { wires, from, to }
    }

    /// From now on, frames are treated like this. Those on their way are not concerned.
    pub fn set(&self, rule: Impairment) {
        self.wires().set(self.from, self.to, rule);
    }

    /// What frames are treated like.
    #[must_use]
    pub fn impairment(&self) -> Impairment {
        self.wires().rule(self.from, self.to)
    }

    /// Nothing gets through any more, not even what is on its way.
    pub fn cut(&self) {
        self.wires().cut(self.from, self.to, true);
    }

    /// Undoes [`Self::cut`].
    pub fn mend(&self) {
        self.wires().cut(self.from, self.to, false);
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.wires().stats(self.from, self.to)
    }

    fn wires(&self) -> MutexGuard<'lab, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
