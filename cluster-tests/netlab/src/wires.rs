//! What becomes of a frame: a machine without sockets and clocks.
//!
//! There is one wire for each ordered pair of hosts. A frame is judged when it comes in,
//! waits in one heap for its time, and is looked at again when it leaves: a wire that was
//! cut meanwhile loses what is on it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::limits::IN_FLIGHT_BYTES_MAX;
use crate::link::{Impairment, LinkStats};
use crate::nat::{Nat, Translator};

/// The number of a host in its lab: 0 is the outside one.
pub(crate) type Port = u8;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// The address of a lab's host.
pub(crate) fn mac(port: Port) -> Mac {
    // Locally administered, for one.
    [0x02, 0x73, 0x6c, 0x76, 0x00, port]
}

/// All wires of a lab and what is on them.
#[derive(Debug)]
pub(crate) struct Wires {
    seed: u64,
    names: Vec<String>,
    /// `wires[from][to]`.
    wires: Vec<Vec<Wire>>,
    everywhere: Impairment,
    translators: Vec<Translator>,
    flying: BinaryHeap<Reverse<Flight>>,
    frames: u64,
}

/// One direction between two hosts: what becomes of one packet after another. A machine
/// without sockets, for those as well who carry packets between other places than hosts.
#[derive(Debug)]
pub struct Wire {
    rule: Impairment,
    cut: bool,
    dice: Dice,
    /// When the last frame that was taken has been sent, by the rate.
    busy_until: Option<Instant>,
    /// When the last frame that keeps its place arrives.
    last_due: Option<Instant>,
    in_flight: usize,
    stats: LinkStats,
}

/// A frame on a wire, ordered by when it arrives.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    number: u64,
    from: Port,
    to: Port,
    frame: Arc<[u8]>,
}

impl Wires {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            names: Vec::new(),
            wires: Vec::new(),
            everywhere: Impairment::default(),
            translators: Vec::new(),
            flying: BinaryHeap::new(),
            frames: 0,
        }
    }

    /// Wires a host to all others. Its port is the number of hosts so far.
    pub(crate) fn add(&mut self, name: &str) {
        self.names.push(name.to_owned());
        let rows = self.wires.iter_mut().zip(&self.names);
        for (row, from) in rows {
            row.push(Wire::new(self.seed, from, name, &self.everywhere));
        }
        let row = self.names.iter();
        let row = row.map(|to| Wire::new(self.seed, name, to, &self.everywhere));
        self.wires.push(row.collect());
    }

    /// Puts a translator before hosts. What comes to it takes the way to the first of them;
    /// what they send takes their own.
    pub(crate) fn translate(&mut self, kind: Nat, number: Port, addr: Ipv4Addr, hosts: &[Port]) {
        let translator = Translator::new(kind, number, addr, hosts, self.seed);
        self.translators.push(translator);
    }

    /// The translator before a host forgets everything.
    pub(crate) fn forget(&mut self, host: Port) {
        let mut before = self.translators.iter_mut();
        if let Some(translator) = before.find(|translator| translator.is_before(host)) {
            translator.forget();
        }
    }

    /// Whether there is a translator before a host.
    pub(crate) fn is_translated(&self, host: Port) -> bool {
        self.translators.iter().any(|it| it.is_before(host))
    }

    pub(crate) fn set(&mut self, from: Port, to: Port, rule: Impairment) {
        if let Some(wire) = self.wire(from, to) {
            wire.rule = rule;
        }
    }

    /// Sets all wires, and those of hosts that come later.
    pub(crate) fn set_everywhere(&mut self, rule: &Impairment) {
        self.everywhere = rule.clone();
        for wire in self.wires.iter_mut().flatten() {
            wire.rule = rule.clone();
        }
    }

    pub(crate) fn cut(&mut self, from: Port, to: Port, cut: bool) {
        if let Some(wire) = self.wire(from, to) {
            wire.cut = cut;
        }
    }

    /// Mends every cut.
    pub(crate) fn heal(&mut self) {
        for wire in self.wires.iter_mut().flatten() {
            wire.cut = false;
        }
    }

    pub(crate) fn rule(&self, from: Port, to: Port) -> Impairment {
        self.wires[usize::from(from)][usize::from(to)].rule.clone()
    }

    pub(crate) fn stats(&self, from: Port, to: Port) -> LinkStats {
        self.wires[usize::from(from)][usize::from(to)].stats
    }

    /// A host sends a frame. What arrives at once is handed to `deliver`.
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        from: Port,
        frame: &[u8],
        mut deliver: impl FnMut(Port, &[u8]),
    ) {
        let Some(destination) = frame.first_chunk::<6>() else {
            return;
        };
        // What has arrived by now arrived before this.
        self.poll_arrivals(now, &mut deliver);
        let resolves = finds_addresses(frame);
        let recipients = self.recipients(from, destination, resolves);
        let mut sent = Cow::Borrowed(frame);
        if resolves {
            let answer = self.translators.iter().find_map(|it| it.answer(frame));
            if let Some(answer) = answer {
                deliver(from, &answer);
                return;
            }
        } else if !self.is_among_neighbours(from, destination)
            && let Some(before) = self.translators.iter_mut().find(|it| it.is_before(from))
            // What comes back to the translator from behind it is not turned round.
            && (before.mac() == *destination || !before.send(from, sent.to_mut()))
        {
            return;
        }
        let frame = &*sent;
        let mut shared = None;
        for to in recipients {
            if resolves {
                deliver(to, frame);
                continue;
            }
            let Some(wire) = self.wires[usize::from(from)].get_mut(usize::from(to)) else {
                continue;
            };
            for due in wire.judge(now, frame.len()).into_iter().flatten() {
                // What waits on this wire already goes first: `last_due` saw to that.
                if due <= now {
                    wire.stats.delivered += 1;
                    arrive(&self.translators, to, frame, &mut deliver);
                    continue;
                }
                wire.in_flight += frame.len();
                self.frames += 1;
                self.flying.push(Reverse(Flight {
                    due,
                    number: self.frames,
                    from,
                    to,
                    frame: Arc::clone(shared.get_or_insert_with(|| frame.into())),
                }));
            }
        }
    }

    /// Hands out what has arrived by now.
    pub(crate) fn poll_arrivals(&mut self, now: Instant, mut deliver: impl FnMut(Port, &[u8])) {
        while self.flying.peek().is_some_and(|first| first.0.due <= now) {
            let Some(Reverse(flight)) = self.flying.pop() else {
                return;
            };
            let Some(wire) = self.wire(flight.from, flight.to) else {
                continue;
            };
            wire.in_flight = wire.in_flight.saturating_sub(flight.frame.len());
            if wire.cut {
                wire.stats.cut += 1;
            } else {
                wire.stats.delivered += 1;
                arrive(&self.translators, flight.to, &flight.frame, &mut deliver);
            }
        }
    }

    /// When the next frame arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.flying.peek().map(|first| first.0.due)
    }

    fn wire(&mut self, from: Port, to: Port) -> Option<&mut Wire> {
        self.wires
            .get_mut(usize::from(from))?
            .get_mut(usize::from(to))
    }

    /// Who gets a frame for this address: its owner, or everybody else for a group's
    /// address and for one that is nobody's (a bridge's, say, inside a host). A host behind
    /// a translator gets what its neighbours send, and questions for addresses.
    fn recipients(&self, from: Port, destination: &Mac, resolves: bool) -> Vec<Port> {
        let mut translators = self.translators.iter();
        if let Some(owner) = translators.find(|it| it.mac() == *destination) {
            return owner.hosts().first().copied().into_iter().collect();
        }
        let all = Port::try_from(self.names.len()).unwrap_or(Port::MAX);
        let owner = destination[5];
        let range = if *destination == mac(owner) && owner < all {
            owner..owner + 1
        } else {
            0..all
        };
        let reaches = |to: &Port| {
            *to != from && (resolves || !self.is_translated(*to) || self.are_neighbours(from, *to))
        };
        range.filter(reaches).collect()
    }

    /// Whether both are behind one translator.
    fn are_neighbours(&self, one: Port, other: Port) -> bool {
        let mut translators = self.translators.iter();
        translators.any(|it| it.is_before(one) && it.is_before(other))
    }

    /// Whether an address is that of a host behind the same translator.
    fn is_among_neighbours(&self, from: Port, destination: &Mac) -> bool {
        *destination == mac(destination[5]) && self.are_neighbours(from, destination[5])
    }
}

/// Hands a frame to its host, through the translator before that if there is one.
fn arrive(
    translators: &[Translator],
    to: Port,
    frame: &[u8],
    deliver: &mut impl FnMut(Port, &[u8]),
) {
    let Some(before) = translators.iter().find(|it| frame.starts_with(&it.mac())) else {
        deliver(to, frame);
        return;
    };
    let mut frame = frame.to_vec();
    if let Some(host) = before.receive(&mut frame) {
        deliver(host, &frame);
    }
}

impl Wire {
    /// The wire between two who are called so.
    #[must_use]
    pub fn new(seed: u64, from: &str, to: &str, rule: &Impairment) -> Self {
        Self {
            rule: rule.clone(),
            cut: false,
            dice: Dice::of_link(seed, from, to),
            busy_until: None,
            last_due: None,
            in_flight: 0,
            stats: LinkStats::default(),
        }
    }

    /// From now on, packets are treated like this.
    pub fn set(&mut self, rule: &Impairment) {
        self.rule = rule.clone();
    }

    /// What it has done so far. Only those who carry packets know what was delivered.
    #[must_use]
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// When a packet that is sent now arrives, and when its double does.
    pub fn judge(&mut self, now: Instant, len: usize) -> [Option<Instant>; 2] {
        // Every frame rolls as often, so that the fate of the next does not depend on
        // the rules that this one met.
        let [lost, doubled, overtakes, late, later] = [(); 5].map(|()| self.dice.share());
        self.stats.frames += 1;
        self.stats.bytes += u64::try_from(len).unwrap_or(u64::MAX);
        if self.cut {
            self.stats.cut += 1;
            return [None; 2];
        }
        if lost < self.rule.loss {
            self.stats.lost += 1;
            return [None; 2];
        }
        let Some(sent) = self.send(now, len) else {
            self.stats.overflowed += 1;
            return [None; 2];
        };
        if overtakes < self.rule.reorder {
            self.stats.overtook += 1;
            return [Some(sent), None];
        }
        let first = self.arrival(sent, late);
        let second = (doubled < self.rule.duplicate).then(|| {
            self.stats.doubled += 1;
            self.arrival(sent, later)
        });
        [Some(first), second]
    }

    /// When the frame has left by the link's rate, if it fits the queue.
    fn send(&mut self, now: Instant, len: usize) -> Option<Instant> {
        if self.in_flight + len > IN_FLIGHT_BYTES_MAX {
            return None;
        }
        let Some(rate) = self.rule.rate.filter(|rate| *rate > 0) else {
            return Some(now);
        };
        let begin = self.busy_until.map_or(now, |until| until.max(now));
        if begin.duration_since(now) > sending_time(self.rule.queue, rate) {
            return None;
        }
        let end = begin + sending_time(len, rate);
        self.busy_until = Some(end);
        Some(end)
    }

    fn arrival(&mut self, sent: Instant, share_of_jitter: f64) -> Instant {
        let due = sent + self.rule.delay + self.rule.jitter.mul_f64(share_of_jitter);
        let due = self.last_due.map_or(due, |last| last.max(due));
        self.last_due = Some(due);
        due
    }
}

/// How long so many bytes take at so many bits per second.
fn sending_time(bytes: usize, rate: u64) -> Duration {
    let bits = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(8);
    let nanos = bits.saturating_mul(1_000_000_000) / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Whether a frame only asks who owns an address, or tells: ARP (RFC 826), or IPv6
/// neighbour discovery (RFC 4861, ICMPv6 types 133 to 137).
fn finds_addresses(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => {
            let next_header = frame.get(20);
            let kind = frame.get(54);
            next_header == Some(&58) && kind.is_some_and(|kind| (133..=137).contains(kind))
        }
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Two hosts and a clock.
    struct Bench {
        wires: Wires,
        start: Instant,
    }

    impl Bench {
        fn new(seed: u64, rule: Impairment) -> Self {
            let mut wires = Wires::new(seed);
            for name in ["a", "b", "c"] {
                wires.add(name);
            }
            wires.set(0, 1, rule);
            let start = Instant::now();
            Self { wires, start }
        }

        /// Sends frames, one each so often, and gives when which arrives at `b`.
        fn send(&mut self, count: u8, every: Duration) -> Vec<(Duration, u8)> {
            let start = self.start;
            let mut got = Vec::new();
            for number in 0..count {
                let now = start + every * u32::from(number);
                let frame = frame(mac(1), number);
                self.wires.handle_frame(now, 0, &frame, |_, frame| {
                    got.push((now - start, frame[14]));
                });
            }
            while let Some(due) = self.wires.poll_timeout() {
                self.wires
                    .poll_arrivals(due, |_, frame| got.push((due - start, frame[14])));
            }
            got
        }
    }

    fn frame(to: Mac, number: u8) -> Vec<u8> {
        let mut frame = vec![0; 100];
        frame[..6].copy_from_slice(&to);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = number;
        frame
    }

    fn recipients(wires: &mut Wires, from: Port, frame: &[u8]) -> Vec<Port> {
        let mut got = Vec::new();
        wires.handle_frame(Instant::now(), from, frame, |to, _| got.push(to));
        got
    }

    #[test]
    fn a_frame_takes_as_long_as_its_link_says() {
        let mut bench = Bench::new(1, Impairment::delay(50 * MS));
        assert_eq!(bench.send(2, MS), [(50 * MS, 0), (51 * MS, 1)]);
    }

    #[test]
    fn jitter_keeps_the_order_and_its_bounds() {
        let rule = Impairment {
            delay: 10 * MS,
            jitter: 20 * MS,
            ..Impairment::default()
        };
        let got = Bench::new(1, rule).send(200, MS);
        assert!(got.iter().map(|got| got.1).eq(0..200));
        let took = |(at, number): &(Duration, u8)| *at - MS * u32::from(*number);
        assert!(got.iter().all(|got| took(got) >= 10 * MS));
        assert!(got.iter().all(|got| took(got) <= 30 * MS));
        assert!(got.iter().any(|got| took(got) > 25 * MS));
    }

    #[test]
    fn the_same_seed_loses_the_same_frames() {
        let lost = |seed| Bench::new(seed, Impairment::loss(0.2)).send(250, MS);
        assert_eq!(lost(1), lost(1));
        assert_ne!(lost(1), lost(2));
        assert!((180..220).contains(&lost(1).len()), "{}", lost(1).len());
    }

    #[test]
    fn some_frames_arrive_twice_and_some_overtake() {
        let rule = Impairment {
            delay: 10 * MS,
            duplicate: 0.1,
            reorder: 0.1,
            ..Impairment::default()
        };
        let mut bench = Bench::new(3, rule);
        let got = bench.send(250, MS);
        let stats = bench.wires.stats(0, 1);
        assert!((10..40).contains(&stats.doubled) && (10..40).contains(&stats.overtook));
        assert_eq!(got.len() as u64, 250 + stats.doubled);
        assert!(!got.is_sorted_by_key(|got| got.1));
    }

    #[test]
    fn a_rate_spaces_frames_and_its_queue_drops_the_rest() {
        let rule = Impairment {
            rate: Some(800_000), // 100 bytes in 1 ms
            queue: 1_000,
            ..Impairment::default()
        };
        let mut bench = Bench::new(1, rule);
        let got = bench.send(20, Duration::ZERO);
        let expected: Vec<_> = (0..11).map(|n| (MS * u32::from(n + 1), n)).collect();
        assert_eq!(got, expected);
        assert_eq!(bench.wires.stats(0, 1).overflowed, 9);
    }

    #[test]
    fn a_cut_loses_what_is_on_its_way() {
        let mut bench = Bench::new(1, Impairment::delay(50 * MS));
        let start = bench.start;
        let sent = frame(mac(1), 0);
        bench.wires.handle_frame(start, 0, &sent, |_, _| ());
        bench.wires.cut(0, 1, true);
        assert_eq!(bench.send(1, MS), []);
        assert_eq!(bench.wires.stats(0, 1).cut, 2);
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut bench = Bench::new(1, Impairment::delay(Duration::from_secs(10)));
        let big = [frame(mac(1), 0), vec![0; 1900]].concat();
        for _ in 0..20_000 {
            bench.wires.handle_frame(bench.start, 0, &big, |_, _| ());
        }
        let stats = bench.wires.stats(0, 1);
        let under_way = (stats.frames - stats.overflowed) * big.len() as u64;
        assert!(stats.overflowed > 0 && under_way <= IN_FLIGHT_BYTES_MAX as u64);
    }

    #[test]
    fn a_group_is_everybody_else_and_a_strangers_address_too() {
        let mut wires = Bench::new(1, Impairment::default()).wires;
        assert_eq!(recipients(&mut wires, 0, &frame([0xff; 6], 0)), [1, 2]);
        assert_eq!(recipients(&mut wires, 1, &frame(mac(7), 0)), [0, 2]);
        assert_eq!(recipients(&mut wires, 1, &frame(mac(2), 0)), [2]);
        assert_eq!(recipients(&mut wires, 1, &frame(mac(1), 0)), []);
        assert_eq!(recipients(&mut wires, 1, &[0; 3]), []);
    }

    #[test]
    fn addresses_are_found_through_a_cut() {
        let mut wires = Bench::new(1, Impairment::default()).wires;
        wires.cut(0, 1, true);
        let mut arp = frame(mac(1), 0);
        assert_eq!(recipients(&mut wires, 0, &arp), []);
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(recipients(&mut wires, 0, &arp), [1]);
        let mut solicitation = frame(mac(1), 0);
        solicitation[12..14].copy_from_slice(&[0x86, 0xdd]);
        solicitation[20] = 58;
        solicitation[54] = 135;
        assert_eq!(recipients(&mut wires, 0, &solicitation), [1]);
        solicitation[54] = 128; // An echo request is traffic.
        assert_eq!(recipients(&mut wires, 0, &solicitation), []);
    }
}
