//! What one session has in flight, over all its flows, in the order it was sent
//! (RFC 7016 §3.6.2.5).

use std::collections::VecDeque;

/// After so many negative acknowledgements a fragment counts as lost.
const NEGATIVES: u8 = 3;

/// Below this many places, memory that stands empty is not worth giving back.
const KEPT_PLACES: usize = 16;

/// One transmission of one fragment.
#[derive(Clone, Copy, Debug)]
struct Transmission {
    flow: u64,
    sequence: u64,
    size: u16,
    negatives: u8,
    in_flight: bool,
}

/// A fragment that is lost in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) flow: u64,
    pub(crate) sequence: u64,
    pub(crate) transmission: u64,
    /// Bytes of its chunk.
    pub(crate) size: u64,
}

/// Transmissions in flight. Numbers of transmissions begin with 1 and have no holes.
#[derive(Debug)]
pub(crate) struct Outstanding {
    /// The number of the first one in `log`, or of the next one when it is empty.
    first: u64,
    /// Never begins with one that is not in flight.
    log: VecDeque<Transmission>,
    bytes: u64,
    /// The newest one that was acknowledged since [`Self::take_negatives`].
    newest: u64,
}

impl Default for Outstanding {
    fn default() -> Self {
        Self {
            first: 1,
            log: VecDeque::new(),
            bytes: 0,
            newest: 0,
        }
    }
}

impl Outstanding {
    /// Bytes in flight, chunk headers included.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// The number that the next transmission will get.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// A fragment goes out in a chunk of `size` bytes. Returns the number of this
    /// transmission.
    pub(crate) fn send(&mut self, flow: u64, sequence: u64, size: u16) -> u64 {
        let number = self.next();
        self.log.push_back(Transmission {
            flow,
            sequence,
            size,
            negatives: 0,
            in_flight: true,
        });
        self.bytes += u64::from(size);
        number
    }

    /// A transmission arrived. Returns how many bytes it had in flight.
    pub(crate) fn acknowledge(&mut self, number: u64) -> u64 {
        let found = number
            .checked_sub(self.first)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.log.get_mut(at))
            .filter(|transmission| transmission.in_flight);
        let Some(transmission) = found else {
            return 0;
        };
        transmission.in_flight = false;
        let size = u64::from(transmission.size);
        self.bytes -= size;
        self.newest = self.newest.max(number);
        self.trim();
        size
    }

    /// Counts what was sent before the newest transmission that was acknowledged since the
    /// last call. Gives what is lost by that to `lost`, and says whether anything was counted.
    pub(crate) fn take_negatives(&mut self, mut lost: impl FnMut(Lost)) -> bool {
        let before = std::mem::take(&mut self.newest).saturating_sub(self.first);
        let before = usize::try_from(before).map_or(self.log.len(), |n| n.min(self.log.len()));
        let first = self.first;
        let mut any = false;
        for (number, transmission) in (first..).zip(self.log.iter_mut()).take(before) {
            if !transmission.in_flight {
                continue;
            }
            any = true;
            transmission.negatives += 1;
            if transmission.negatives >= NEGATIVES {
                transmission.in_flight = false;
                self.bytes -= u64::from(transmission.size);
                lost(Lost {
                    flow: transmission.flow,
                    sequence: transmission.sequence,
                    transmission: number,
                    size: u64::from(transmission.size),
                });
            }
        }
        self.trim();
        any
    }

    /// Everything in flight is lost: gives it to `lost`. Says whether there was anything.
    pub(crate) fn take_all(&mut self, mut lost: impl FnMut(Lost)) -> bool {
        let next = self.next();
        let any = self.bytes > 0;
        for (number, transmission) in (self.first..).zip(self.log.drain(..)) {
            if transmission.in_flight {
                lost(Lost {
                    flow: transmission.flow,
                    sequence: transmission.sequence,
                    transmission: number,
                    size: u64::from(transmission.size),
                });
            }
        }
        self.first = next;
        self.bytes = 0;
        self.newest = 0;
        any
    }

    /// Gives memory back that a burst needed.
    pub(crate) fn shrink(&mut self) {
        if self.log.is_empty() && self.log.capacity() > KEPT_PLACES {
            self.log = VecDeque::new();
        }
    }

    fn trim(&mut self) {
        while self.log.front().is_some_and(|front| !front.in_flight) {
            self.log.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negatives(outstanding: &mut Outstanding) -> (bool, Vec<u64>) {
        let mut lost = Vec::new();
        let any = outstanding.take_negatives(|found| lost.push(found.sequence));
        (any, lost)
    }

    #[test]
    fn a_fragment_is_lost_at_the_third_later_acknowledgement_and_not_before() {
        let mut outstanding = Outstanding::default();
        for sequence in 31..=36 {
            outstanding.send(3, sequence, 100);
        }
        outstanding.acknowledge(2);
        assert_eq!(negatives(&mut outstanding), (true, vec![]));
        outstanding.acknowledge(4);
        assert_eq!(negatives(&mut outstanding), (true, vec![]));
        outstanding.acknowledge(5);
        assert_eq!(negatives(&mut outstanding), (true, vec![31]));
        outstanding.acknowledge(6);
        assert_eq!(negatives(&mut outstanding), (true, vec![33]));
        assert_eq!(outstanding.bytes(), 0);
        assert_eq!(outstanding.next(), 7);
    }

    #[test]
    fn packets_that_acknowledge_nothing_new_count_nothing() {
        let mut outstanding = Outstanding::default();
        outstanding.send(1, 1, 10);
        outstanding.send(1, 2, 10);
        outstanding.acknowledge(2);
        for _ in 0..5 {
            assert!(negatives(&mut outstanding).1.is_empty());
            assert_eq!(outstanding.acknowledge(0), 0);
        }
        assert_eq!(outstanding.bytes(), 10);
    }

    #[test]
    fn what_is_removed_twice_is_counted_once() {
        let mut outstanding = Outstanding::default();
        let number = outstanding.send(1, 1, 10);
        outstanding.send(1, 2, 7);
        assert_eq!(outstanding.acknowledge(number), 10);
        assert_eq!(outstanding.acknowledge(number), 0);
        assert_eq!(outstanding.acknowledge(99), 0);
        assert_eq!(outstanding.bytes(), 7);
        assert!(outstanding.take_all(|lost| assert_eq!(lost.sequence, 2)));
        assert!(!outstanding.take_all(|_| ()));
        assert_eq!(outstanding.next(), 3);
    }
}
