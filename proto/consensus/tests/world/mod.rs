//! A world for nodes: one clock, links that lose and delay, disks that take their time and
//! forget what was not synced. Whatever happens is drawn from one seed.
//!
//! The world is also the judge: it stops at the first entry that is decided twice, at two
//! leaders of one term, and at logs that agree in one place and differ before it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test uses its own part of the world"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{LogIndex, NodeId};
use selvage_consensus::{
    About, Change, Entry, Error, HardState, Membership, Node, Output, Restored, Role, Setup,
    SnapshotMeta, Status, Ticket, Write,
};

pub fn id(number: u64) -> NodeId {
    NodeId(NonZeroU64::new(number).unwrap())
}

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What the nodes have applied: every command with its place.
pub type State = Vec<(u64, Bytes)>;

/// How the world is.
#[derive(Clone, Copy)]
pub struct Weather {
    /// Messages lost, of a thousand.
    pub loss: u64,
    /// A message takes from one millisecond to this.
    pub delay_max: u64,
    /// A sync takes from nothing to this many milliseconds.
    pub sync_max: u64,
}

pub const CALM: Weather = Weather {
    loss: 0,
    delay_max: 2,
    sync_max: 3,
};

pub const ROUGH: Weather = Weather {
    loss: 100,
    delay_max: 40,
    sync_max: 60,
};

enum Packet {
    Message(Bytes),
    Snapshot(Bytes, LogIndex, State),
}

/// What survives a crash.
#[derive(Clone, Default)]
pub struct Disk {
    hard_state: HardState,
    snapshot: Option<(SnapshotMeta, State)>,
    pub entries: Vec<Entry>,
}

impl Disk {
    fn write(&mut self, write: Write, state: Option<State>) {
        if let Some(snapshot) = write.snapshot {
            self.snapshot = Some((snapshot, state.expect("a snapshot comes with its state")));
            self.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
        }
        self.entries.extend(write.entries);
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
    }
}

struct Seat {
    node: Option<Node>,
    disk: Disk,
    /// Handed to the disk and not synced; with the time when a sync is done.
    unsynced: VecDeque<(Option<Instant>, Ticket, Write, Option<State>)>,
    state: State,
    applied: u64,
    /// States that have arrived and are being written.
    arrived: BTreeMap<u64, State>,
    life: u64,
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    seed: u64,
    dice: u64,
    pub weather: Weather,
    seats: BTreeMap<u64, Seat>,
    links: BTreeMap<(u64, u64), VecDeque<(Instant, Packet)>>,
    cut: BTreeSet<(u64, u64)>,
    /// The judge's memory.
    decided: BTreeMap<u64, (u64, Bytes)>,
    leaders: BTreeMap<u64, u64>,
    /// What was answered: by whom and by what number it was asked.
    pub reads: BTreeMap<(u64, u64), u64>,
    pub roles: Vec<(u64, Role, u64)>,
    pub snapshots_sent: u64,
    pub misbehaved: Vec<Error>,
    /// Whether everything that happens goes into the trace, which takes its time.
    pub tracing: bool,
    trace: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant is a start")]
        let start = Instant::now();
        Self {
            start,
            now: start,
            seed,
            dice: seed,
            weather: CALM,
            seats: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            decided: BTreeMap::new(),
            leaders: BTreeMap::new(),
            reads: BTreeMap::new(),
            roles: Vec::new(),
            snapshots_sent: 0,
            misbehaved: Vec::new(),
            tracing: false,
            trace: 0,
        }
    }

    /// A cluster of nodes that found it together.
    pub fn founded_by(seed: u64, nodes: u64) -> Self {
        let mut world = Self::new(seed);
        let founders = (1..=nodes).map(|number| (id(number), About::default()));
        let restored = Restored::founding(Membership::of(founders));
        for number in 1..=nodes {
            let disk = Disk {
                hard_state: restored.hard_state,
                snapshot: restored.snapshot.clone().map(|meta| (meta, Vec::new())),
                entries: Vec::new(),
            };
            world.seat(number, disk);
        }
        world
    }

    /// One that knows nothing.
    pub fn newcomer(&mut self, number: u64) {
        self.seat(number, Disk::default());
    }

    fn seat(&mut self, number: u64, disk: Disk) {
        self.seats.insert(
            number,
            Seat {
                node: None,
                disk,
                unsynced: VecDeque::new(),
                state: Vec::new(),
                applied: 0,
                arrived: BTreeMap::new(),
                life: 0,
            },
        );
        self.start(number);
    }

    pub fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn note(&mut self, number: u64, what: &dyn std::fmt::Debug) {
        if !self.tracing {
            return;
        }
        let at = self.now.duration_since(self.start).as_micros();
        for byte in format!("{at} {number} {what:?}").bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// How many terms had a leader.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }

    /// Everything that happened, as one number.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// A node begins a life with what its disk holds.
    pub fn start(&mut self, number: u64) {
        let seat = self.seats.get_mut(&number).unwrap();
        assert!(seat.node.is_none(), "{number} runs");
        seat.life += 1;
        let setup = Setup::new(id(number), self.seed ^ (number << 8) ^ (seat.life << 32));
        let (snapshot, state) = seat.disk.snapshot.clone().unzip();
        seat.state = state.unwrap_or_default();
        seat.applied = snapshot.as_ref().map_or(0, |meta| meta.index.0);
        let restored = Restored {
            hard_state: seat.disk.hard_state,
            snapshot,
            entries: seat.disk.entries.clone(),
        };
        seat.node = Some(Node::new(&setup, restored, self.now).unwrap());
        self.take(number);
    }

    /// A node's life ends. Of what it had not synced a part may be on the disk.
    pub fn crash(&mut self, number: u64) {
        let seat = self.seats.get_mut(&number).unwrap();
        let unsynced = std::mem::take(&mut seat.unsynced);
        seat.node = None;
        seat.arrived.clear();
        let survive = usize::try_from(self.roll(unsynced.len() as u64 + 1)).unwrap();
        let seat = self.seats.get_mut(&number).unwrap();
        for (_, _, write, state) in unsynced.into_iter().take(survive) {
            seat.disk.write(write, state);
        }
        self.links
            .retain(|(from, to), _| *from != number && *to != number);
        self.note(number, &"crash");
    }

    pub fn is_up(&self, number: u64) -> bool {
        self.seats[&number].node.is_some()
    }

    /// Nodes on one side hear nothing of the others.
    pub fn part(&mut self, side: &[u64]) {
        let all: Vec<u64> = self.seats.keys().copied().collect();
        for &a in &all {
            for &b in &all {
                if side.contains(&a) != side.contains(&b) {
                    self.cut.insert((a, b));
                }
            }
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn node(&mut self, number: u64) -> &mut Node {
        self.seats.get_mut(&number).unwrap().node.as_mut().unwrap()
    }

    pub fn status(&self, number: u64) -> Status {
        self.seats[&number].node.as_ref().unwrap().status()
    }

    pub fn state(&self, number: u64) -> &State {
        &self.seats[&number].state
    }

    pub fn disk(&self, number: u64) -> &Disk {
        &self.seats[&number].disk
    }

    pub fn leader(&self) -> Option<u64> {
        let leads = |(_, seat): &(&u64, &Seat)| {
            seat.node
                .as_ref()
                .is_some_and(|node| node.role().0 == Role::Leader)
        };
        // A leader that is cut off may not know of its successor.
        let leading = self.seats.iter().filter(leads);
        leading
            .max_by_key(|(_, seat)| seat.node.as_ref().map(|node| node.role().1))
            .map(|(number, _)| *number)
    }

    pub fn propose(&mut self, number: u64, data: impl Into<Bytes>) -> Result<(), Error> {
        let result = self.node(number).handle_proposal(data.into());
        self.take(number);
        result
    }

    pub fn propose_all(&mut self, number: u64, batch: Vec<Bytes>) -> Result<(), Error> {
        let result = self.node(number).handle_proposals(batch);
        self.take(number);
        result
    }

    pub fn read(&mut self, number: u64, ctx: u64) -> Result<(), Error> {
        let result = self.node(number).handle_read(ctx);
        self.take(number);
        result
    }

    pub fn change(&mut self, number: u64, changes: &[Change]) -> Result<(), Error> {
        let result = self.node(number).propose_membership(changes);
        self.take(number);
        result
    }

    pub fn transfer(&mut self, number: u64, to: u64) -> Result<(), Error> {
        let result = self.node(number).transfer_leadership(id(to));
        self.take(number);
        result
    }

    /// The state is saved and what came before it forgotten, if all that was decided is on
    /// the disk.
    pub fn compact_some(&mut self, number: u64) {
        if self.seats[&number].unsynced.is_empty() {
            self.compact(number);
        }
    }

    /// The state is saved and what came before it forgotten.
    pub fn compact(&mut self, number: u64) {
        let seat = self.seats.get_mut(&number).unwrap();
        let node = seat.node.as_mut().unwrap();
        let meta = node.applied().clone();
        node.compact(meta.index);
        seat.disk.entries.retain(|entry| entry.index > meta.index);
        seat.disk.snapshot = Some((meta, seat.state.clone()));
    }

    /// Lets time pass.
    pub fn run(&mut self, millis: u64) {
        let end = self.now + ms(millis);
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.events();
        }
        self.now = end;
    }

    /// Lets time pass until something is so.
    pub fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        for _ in 0..2_000 {
            if so(self) {
                return;
            }
            self.run(10);
        }
        panic!("seed {}: never {what}", self.seed);
    }

    fn next_event(&self) -> Option<Instant> {
        let links = self.links.values().filter_map(|link| link.front());
        let arrivals = links.map(|(at, _)| *at);
        let nodes = self.seats.values().filter_map(|seat| {
            let syncs = seat.unsynced.iter().filter_map(|(at, ..)| *at).min();
            let tick = seat.node.as_ref().map(Node::deadline);
            syncs.into_iter().chain(tick).min()
        });
        arrivals.chain(nodes).min()
    }

    fn events(&mut self) {
        let now = self.now;
        let numbers: Vec<u64> = self.seats.keys().copied().collect();
        for number in numbers {
            self.sync(number);
            let seat = self.seats.get_mut(&number).unwrap();
            if let Some(node) = &mut seat.node
                && node.deadline() <= now
            {
                node.handle_timeout(now);
                self.take(number);
            }
        }
        let pairs: Vec<(u64, u64)> = self.links.keys().copied().collect();
        for (from, to) in pairs {
            while let Some(link) = self.links.get_mut(&(from, to))
                && link.front().is_some_and(|(at, _)| *at <= now)
            {
                let (_, packet) = link.pop_front().unwrap();
                self.deliver(from, to, packet);
            }
        }
    }

    /// A sync that is done has written everything before it, and is told of once.
    fn sync(&mut self, number: u64) {
        let now = self.now;
        let seat = self.seats.get_mut(&number).unwrap();
        let done = |(at, ..): &(Option<Instant>, _, _, _)| at.is_some_and(|at| at <= now);
        let Some(last) = seat.unsynced.iter().rposition(done) else {
            return;
        };
        let mut ticket = None;
        for (_, one, write, state) in seat.unsynced.drain(..=last) {
            seat.disk.write(write, state);
            ticket = Some(one);
        }
        seat.node
            .as_mut()
            .unwrap()
            .handle_persisted(ticket.unwrap());
        self.take(number);
    }

    fn deliver(&mut self, from: u64, to: u64, packet: Packet) {
        let lost = self.cut.contains(&(from, to)) || !self.is_up(to);
        match packet {
            Packet::Message(message) => {
                if lost {
                    return;
                }
                let handled = self.node(to).handle_message(id(from), &message);
                self.misbehaved.extend(handled.err());
                self.take(to);
            }
            Packet::Snapshot(message, index, state) => {
                if !lost {
                    let handled = self.node(to).handle_snapshot(id(from), &message, index);
                    if handled == Ok(true) {
                        let seat = self.seats.get_mut(&to).unwrap();
                        seat.arrived.insert(index.0, state);
                    }
                    self.misbehaved.extend(handled.err());
                    self.take(to);
                }
                if self.is_up(from) {
                    self.node(from).handle_snapshot_sent(id(to), !lost);
                    self.take(from);
                }
            }
        }
    }

    /// Does what a node asks for.
    fn take(&mut self, number: u64) {
        while let Some(output) = self.node(number).poll_output() {
            self.note(number, &output);
            match output {
                Output::Send { to, message } => {
                    self.post(number, to.0.get(), Packet::Message(message));
                }
                Output::SendSnapshot { to, message, index } => {
                    self.snapshots_sent += 1;
                    let seat = &self.seats[&number];
                    assert_eq!(seat.applied, index.0, "the state is the one that is named");
                    let packet = Packet::Snapshot(message, index, seat.state.clone());
                    self.post(number, to.0.get(), packet);
                }
                Output::Persist { ticket, write } => {
                    let wait = self.roll(self.weather.sync_max + 1);
                    let due = write.must_sync.then(|| self.now + ms(wait));
                    let seat = self.seats.get_mut(&number).unwrap();
                    // The last sync is done last.
                    let before = seat.unsynced.iter().filter_map(|(at, ..)| *at).max();
                    let due = due.map(|due| before.map_or(due, |before| before.max(due)));
                    let state = write
                        .snapshot
                        .as_ref()
                        .map(|snapshot| seat.arrived[&snapshot.index.0].clone());
                    seat.unsynced.push_back((due, ticket, write, state));
                }
                Output::Apply { index, term, data } => {
                    self.judge(number, index.0, term, &data);
                    let seat = self.seats.get_mut(&number).unwrap();
                    seat.state.push((index.0, data));
                }
                Output::Skip { index, term } | Output::Membership { index, term, .. } => {
                    self.judge(number, index.0, term, &Bytes::new());
                }
                Output::Restore { snapshot } => {
                    let seat = self.seats.get_mut(&number).unwrap();
                    assert!(snapshot.index.0 > seat.applied, "the state goes forward");
                    seat.state = seat.arrived.remove(&snapshot.index.0).unwrap();
                    seat.applied = snapshot.index.0;
                }
                Output::ReadReady { ctx, index } => {
                    let applied = self.seats[&number].applied;
                    assert!(applied >= index.0, "what is read is applied");
                    let before = self.reads.insert((number, ctx), index.0);
                    assert!(before.is_none(), "one question, two answers");
                }
                Output::Role { role, term, .. } => {
                    self.roles.push((number, role, term));
                    if role == Role::Leader {
                        let before = self.leaders.insert(term, number);
                        assert!(before.is_none_or(|one| one == number), "two lead {term}");
                        // Leader completeness.
                        let last = self.status(number).last.0;
                        let newest = self.decided.keys().last().copied().unwrap_or_default();
                        assert!(last >= newest, "{number} leads without {newest}");
                    }
                }
            }
        }
    }

    fn post(&mut self, from: u64, to: u64, packet: Packet) {
        let lost = self.roll(1000) < self.weather.loss;
        let delay = ms(1 + self.roll(self.weather.delay_max));
        if lost && matches!(packet, Packet::Message(_)) {
            return;
        }
        let link = self.links.entry((from, to)).or_default();
        // Nothing overtakes on a link.
        let before = link.back().map(|(at, _)| *at);
        let at = before.map_or(self.now + delay, |before| before.max(self.now + delay));
        link.push_back((at, packet));
    }

    fn judge(&mut self, number: u64, index: u64, term: u64, data: &Bytes) {
        let seed = self.seed;
        let seat = self.seats.get_mut(&number).unwrap();
        assert_eq!(
            index,
            seat.applied + 1,
            "seed {seed}: {number} leaves a gap"
        );
        seat.applied = index;
        let decided = self.decided.entry(index);
        let decided = decided.or_insert_with(|| (term, data.clone()));
        assert_eq!(
            (decided.0, &decided.1),
            (term, data),
            "seed {seed}: {number} decides {index} once more"
        );
    }

    /// Logs that agree in one place agree before it; and what is decided is on the disks
    /// of as many as it takes.
    pub fn judge_logs(&self) {
        let logs: Vec<BTreeMap<u64, (u64, &Bytes)>> = self
            .seats
            .values()
            .map(|seat| {
                let entries = seat.disk.entries.iter();
                entries.map(|e| (e.index.0, (e.term, &e.data))).collect()
            })
            .collect();
        for (place, one) in logs.iter().enumerate() {
            for other in &logs[place + 1..] {
                let mut same = false;
                for (index, (term, data)) in one.iter().rev() {
                    if let Some((term_there, data_there)) = other.get(index) {
                        same |= term == term_there;
                        assert!(
                            !same || (term, data) == (term_there, data_there),
                            "seed {}: logs agree behind {index} and differ there",
                            self.seed
                        );
                    }
                }
            }
        }
    }

    /// All nodes that run have applied the same, and nothing more will come.
    pub fn settled(&self) -> bool {
        let up: Vec<&Seat> = self
            .seats
            .values()
            .filter(|seat| seat.node.is_some())
            .collect();
        up.iter().all(|seat| {
            let status = seat.node.as_ref().unwrap().status();
            seat.applied == up[0].applied && status.last.0 == seat.applied
        })
    }
}
