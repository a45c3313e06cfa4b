//! A network of two ends in virtual time. Everything that happens follows from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use selvage_rtmfp::limits::DATAGRAM_MAX;
use selvage_rtmfp::packet::Mode;
use selvage_rtmfp::session::{Config, Event, Session};

/// Chance from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(pub u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True so many times in a thousand.
    pub(crate) fn per_mille(&mut self, often: u64) -> bool {
        self.below(1000) < often
    }
}

/// What the network does to packets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) loss_per_mille: u64,
    pub(crate) duplicate_per_mille: u64,
    pub(crate) delay_ms: u64,
    pub(crate) jitter_ms: u64,
    /// The initiator's address changes so often; packets to the old one are lost.
    pub(crate) rebind_every_ms: Option<u64>,
    /// A third party repeats packets from an address of its own.
    pub(crate) stranger_per_mille: u64,
    /// Nothing passes from the first to the second of these, in ms.
    pub(crate) outage: Option<(u64, u64)>,
    /// Ends take in at one time what came in so many milliseconds, and answer then.
    pub(crate) batch_ms: Option<u64>,
    /// Bytes a millisecond in each direction, and how many bytes may wait.
    pub(crate) bottleneck: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Initiator,
    Responder,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Initiator, Self::Responder];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: Instant,
    number: u64,
    to: Side,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// Two sessions and what is between them.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) weather: Weather,
    pub(crate) chance: Chance,
    pub(crate) ends: [Session; 2],
    pub(crate) packets: u64,
    pub(crate) moves: u64,
    addresses: [SocketAddr; 2],
    flying: BinaryHeap<Reverse<Flying>>,
    free_at: [Instant; 2],
    rebind_at: Option<Instant>,
    rebinds: u16,
    sent: u64,
}

pub(crate) const STRANGER: ([u8; 4], u16) = ([203, 0, 113, 66], 666);

impl Network {
    pub(crate) fn new(weather: Weather, config: &Config, seed: u64) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "a test needs some instant to start from"
        )]
        let start = Instant::now();
        let addresses = [
            SocketAddr::from(([192, 0, 2, 1], 1000)),
            SocketAddr::from(([198, 51, 100, 1], 1935)),
        ];
        let end = |mode, far| Session::new(config.clone(), mode, far, [7; 32], start);
        Self {
            start,
            now: start,
            weather,
            chance: Chance(seed),
            ends: [
                end(Mode::Initiator, addresses[1]),
                end(Mode::Responder, addresses[0]),
            ],
            packets: 0,
            moves: 0,
            addresses,
            flying: BinaryHeap::new(),
            free_at: [start; 2],
            rebind_at: weather
                .rebind_every_ms
                .map(|every| start + Duration::from_millis(every)),
            rebinds: 0,
            sent: 0,
        }
    }

    pub(crate) fn end(&mut self, side: Side) -> &mut Session {
        &mut self.ends[side as usize]
    }

    /// Milliseconds since the start.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    /// Goes on to the next thing that happens, at latest to `until`, and gives the events
    /// of both ends.
    pub(crate) fn step(&mut self, until: Instant) -> Vec<(Side, Event)> {
        self.transmit();
        let deadlines = self.ends.iter().filter_map(|end| end.next_deadline());
        let next = deadlines
            .map(|deadline| deadline.at)
            .chain(self.flying.peek().map(|Reverse(flying)| flying.at))
            .chain(self.rebind_at)
            .chain([until])
            .min()
            .unwrap();
        self.now = self.now.max(next);
        if self.rebind_at.is_some_and(|at| at <= self.now) {
            self.rebinds += 1;
            self.addresses[0].set_port(1000 + self.rebinds);
            self.rebind_at = self
                .weather
                .rebind_every_ms
                .map(|every| self.now + Duration::from_millis(every));
        }
        let mut events = Vec::new();
        while self
            .flying
            .peek()
            .is_some_and(|Reverse(flying)| flying.at <= self.now)
        {
            let Reverse(packet) = self.flying.pop().unwrap();
            self.packets += 1;
            let now = self.now;
            self.end(packet.to)
                .handle_packet(packet.from, &packet.bytes, now);
            events.extend(self.events());
            if self.weather.batch_ms.is_none() {
                self.transmit();
            }
        }
        for end in &mut self.ends {
            if end.next_deadline().is_some_and(|due| due.at <= self.now) {
                end.handle_timeout(self.now);
            }
        }
        events.extend(self.events());
        self.transmit();
        events
    }

    fn events(&mut self) -> Vec<(Side, Event)> {
        let mut events = Vec::new();
        for side in Side::BOTH {
            while let Some(event) = self.end(side).poll_event() {
                if let Event::Moved { to, .. } = event {
                    assert_ne!(to, SocketAddr::from(STRANGER), "moved to a stranger");
                    self.moves += 1;
                }
                events.push((side, event));
            }
        }
        events
    }

    fn transmit(&mut self) {
        for side in Side::BOTH {
            let mut buffer = [0; DATAGRAM_MAX];
            let now = self.now;
            let mut count = 0;
            while let Some(packet) = self.end(side).poll_transmit(&mut buffer, now) {
                let bytes = buffer[..packet.len].to_vec();
                // What authentication and padding add still fits a datagram.
                assert!(packet.len + 44 <= DATAGRAM_MAX, "{} bytes", packet.len);
                self.send(side, packet.to, bytes);
                count += 1;
                assert!(count < 10_000, "an end never stops sending");
            }
        }
    }

    fn send(&mut self, side: Side, to: SocketAddr, bytes: Vec<u8>) {
        let far = side.other();
        let arrives = to == self.addresses[far as usize];
        let elapsed = self.elapsed_ms();
        let out = |(from, to)| (from..to).contains(&elapsed);
        if !arrives
            || self.weather.outage.is_some_and(out)
            || self.chance.per_mille(self.weather.loss_per_mille)
        {
            return;
        }
        let mut at = self.now;
        if let Some((rate, queue)) = self.weather.bottleneck {
            let free = &mut self.free_at[side as usize];
            let begin = (*free).max(self.now);
            let waiting = u64::try_from((begin - self.now).as_millis()).unwrap() * rate;
            if waiting + bytes.len() as u64 > queue {
                return;
            }
            *free = begin + Duration::from_micros(bytes.len() as u64 * 1000 / rate);
            at = *free;
        }
        let from = self.addresses[side as usize];
        if self.chance.per_mille(self.weather.duplicate_per_mille) {
            self.fly(at, far, from, bytes.clone());
        }
        if self.chance.per_mille(self.weather.stranger_per_mille) {
            self.fly(at, far, STRANGER.into(), bytes.clone());
        }
        self.fly(at, far, from, bytes);
    }

    fn fly(&mut self, at: Instant, to: Side, from: SocketAddr, bytes: Vec<u8>) {
        let jitter = self.chance.below(self.weather.jitter_ms + 1);
        let mut at = at + Duration::from_millis(self.weather.delay_ms + jitter);
        if let Some(batch) = self.weather.batch_ms {
            let after = u64::try_from((at - self.start).as_millis()).unwrap() + 1;
            at = self.start + Duration::from_millis(after.next_multiple_of(batch));
        }
        self.sent += 1;
        let number = self.sent;
        self.flying.push(Reverse(Flying {
            at,
            number,
            to,
            from,
            bytes,
        }));
    }
}
