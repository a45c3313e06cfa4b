//! Edges and origins around a log that is a list: whatever is proposed is committed, unless
//! it is lost on the way.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::object::{ObjectAsk, ObjectEvent, ObjectUpdate};
use model::{
    AppInstance, AppName, EdgeId, Epoch, InstanceName, LogIndex, NodeId, ObjectKey, ObjectKind,
    ObjectName, Policy, SessionId, SlotName, SlotOp, SlotValue, Version, VhostName,
};
use selvage_ledger::effect::{Answer, Applied, Effect, ObjectChange};
use selvage_ledger::replica::{Access, Output, Replica, Setup, Subscriber, SubscriberId};
use selvage_ledger::watchers::{self, AttachId, Refusal, Watchers};
use selvage_ledger::wire::{ToEdge, ToOrigin};
use selvage_ledger::{Command, Ledger, LogName};

pub(crate) type Slots = BTreeMap<SlotName, SlotValue>;

/// Chance from a seed.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    pub(crate) fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

pub(crate) struct Origin {
    pub(crate) ledger: Ledger,
    pub(crate) watchers: Watchers,
    /// Whether it applies what is committed at once.
    pub(crate) keeps_up: bool,
    pub(crate) leader: bool,
}

pub(crate) struct Edge {
    pub(crate) replica: Replica,
    pub(crate) link: Option<Link>,
    pub(crate) told: VecDeque<Output>,
    pub(crate) refusals: Vec<Refusal>,
}

pub(crate) struct Link {
    pub(crate) origin: usize,
    pub(crate) id: AttachId,
    pub(crate) up: VecDeque<ToOrigin>,
    pub(crate) down: VecDeque<Bytes>,
}

/// The whole arrangement.
pub(crate) struct Lab {
    pub(crate) now: Instant,
    pub(crate) dice: Dice,
    /// Committed, from index 1.
    pub(crate) log: Vec<Bytes>,
    /// A ledger that has applied all of the log.
    pub(crate) truth: Ledger,
    /// What each object was in each of its versions.
    pub(crate) history: BTreeMap<(ObjectKey, Epoch, Version), Slots>,
    /// Batches that were applied, by session and number: how many times, and what of them
    /// was accepted.
    pub(crate) answers: BTreeMap<(SessionId, u64), Vec<Answer>>,
    /// How many times each value was written.
    pub(crate) values: BTreeMap<SlotValue, usize>,
    /// Messages to all, in order.
    pub(crate) sends: Vec<(ObjectKey, Bytes)>,
    pub(crate) origins: Vec<Origin>,
    pub(crate) edges: Vec<Edge>,
    /// Percent of proposals that are lost, and that are committed twice.
    pub(crate) lose: u64,
    pub(crate) twice: u64,
    links: u64,
}

impl Lab {
    pub(crate) fn new(seed: u64, origins: usize, edges: usize) -> Self {
        // The only clock read: all else is counted from here.
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant must come from somewhere"
        )]
        let now = Instant::now();
        let mut lab = Self {
            now,
            dice: Dice(seed),
            log: Vec::new(),
            truth: Ledger::founded(LogName(1)),
            history: BTreeMap::new(),
            answers: BTreeMap::new(),
            values: BTreeMap::new(),
            sends: Vec::new(),
            origins: Vec::new(),
            edges: Vec::new(),
            lose: 0,
            twice: 0,
            links: 0,
        };
        for _ in 0..origins {
            let mut watchers = Watchers::new();
            watchers.handle_leader(Some(leader()));
            lab.origins.push(Origin {
                ledger: Ledger::founded(LogName(1)),
                watchers,
                keeps_up: true,
                leader: true,
            });
        }
        for n in 0..edges {
            let id = EdgeId::new(&format!("edge-{n}")).unwrap();
            let setup = Setup::new(id, seed ^ (n as u64 + 1) << 32);
            lab.edges.push(Edge {
                replica: Replica::new(setup, now),
                link: None,
                told: VecDeque::new(),
                refusals: Vec::new(),
            });
        }
        lab
    }

    /// All edges attached to the first origin.
    pub(crate) fn attached(seed: u64, origins: usize, edges: usize) -> Self {
        let mut lab = Self::new(seed, origins, edges);
        for edge in 0..edges {
            lab.attach(edge, edge % origins);
        }
        lab.run();
        lab
    }

    pub(crate) fn attach(&mut self, edge: usize, origin: usize) {
        self.detach(edge);
        self.links += 1;
        let id = AttachId(self.links);
        let now = self.now;
        self.origins[origin].watchers.handle_attach(id, now);
        self.edges[edge].link = Some(Link {
            origin,
            id,
            up: VecDeque::new(),
            down: VecDeque::new(),
        });
        self.edges[edge].replica.handle_attached_link(now);
    }

    /// The link breaks, and what is on it is lost.
    pub(crate) fn detach(&mut self, edge: usize) {
        self.collect(edge);
        if let Some(link) = self.edges[edge].link.take() {
            self.origins[link.origin].watchers.handle_detach(link.id);
            let now = self.now;
            self.edges[edge].replica.handle_detached(now);
        }
    }

    /// All origins lose their folders and found another log. Whoever was attached is not.
    pub(crate) fn lose_log(&mut self, name: LogName) {
        for edge in 0..self.edges.len() {
            self.detach(edge);
        }
        self.log.clear();
        self.history.clear();
        self.answers.clear();
        self.truth = Ledger::founded(name);
        for origin in &mut self.origins {
            origin.ledger = Ledger::founded(name);
            origin.watchers = Watchers::new();
            origin.watchers.handle_leader(Some(leader()));
        }
    }

    pub(crate) fn set_leader(&mut self, origin: usize, leads: bool) {
        self.origins[origin].leader = leads;
        let who = leads.then(leader);
        self.origins[origin].watchers.handle_leader(who);
    }

    pub(crate) fn commit(&mut self, bytes: Bytes) {
        self.log.push(bytes.clone());
        let index = LogIndex(self.log.len() as u64);
        let command = Command::decode(&bytes).unwrap();
        let applied = self.truth.apply(index, &command);
        self.record(&applied);
    }

    fn record(&mut self, applied: &Applied) {
        for effect in &applied.effects {
            match effect {
                Effect::Answer {
                    session,
                    seq,
                    answer,
                    ..
                } => {
                    let answers = self.answers.entry((*session, *seq)).or_default();
                    answers.push(answer.clone());
                    if let Answer::Opened(_) = answer
                        && let Some(sync) = self.truth.sync(&key("chat"), None)
                    {
                        let slots = sync.slots.into_iter().map(|(n, v, _)| (n, v)).collect();
                        self.history
                            .insert((key("chat"), sync.epoch, sync.version), slots);
                    }
                }
                Effect::Object {
                    key,
                    epoch,
                    change: ObjectChange::Slots { version, slots, .. },
                    ..
                } => {
                    for value in slots.iter().filter_map(|(_, value)| value.clone()) {
                        *self.values.entry(value).or_default() += 1;
                    }
                    let sync = self.truth.sync(key, None).unwrap();
                    let slots = sync.slots.into_iter().map(|(n, v, _)| (n, v)).collect();
                    if sync.version == *version {
                        self.history.insert((key.clone(), *epoch, *version), slots);
                    }
                }
                Effect::Object {
                    key,
                    change: ObjectChange::Send { payload },
                    ..
                } => self.sends.push((key.clone(), payload.clone())),
                _ => {}
            }
        }
    }

    /// Takes the replica's outputs.
    fn collect(&mut self, edge: usize) -> bool {
        let edge = &mut self.edges[edge];
        let mut moved = false;
        while let Some(output) = edge.replica.poll_output() {
            moved = true;
            match output {
                Output::ToOrigin(message) => {
                    let message = ToOrigin::decode(message.encode()).unwrap();
                    if let Some(link) = &mut edge.link {
                        link.up.push_back(message);
                    }
                }
                other => edge.told.push_back(other),
            }
        }
        moved
    }

    /// One message from an edge to its origin.
    pub(crate) fn step_up(&mut self, edge: usize) -> bool {
        let mut moved = self.collect(edge);
        let now = self.now;
        if let Some(link) = &mut self.edges[edge].link
            && let Some(message) = link.up.pop_front()
        {
            let (origin, id) = (link.origin, link.id);
            let origin = &mut self.origins[origin];
            origin
                .watchers
                .handle_message(id, message, &origin.ledger, now);
            moved = true;
        }
        for origin in 0..self.origins.len() {
            moved |= self.serve(origin);
        }
        moved
    }

    /// One message from an origin to an edge.
    pub(crate) fn step_down(&mut self, edge: usize) -> bool {
        let now = self.now;
        let Some(link) = &mut self.edges[edge].link else {
            return false;
        };
        let Some(bytes) = link.down.pop_front() else {
            return false;
        };
        let message = ToEdge::decode(bytes).unwrap();
        self.edges[edge]
            .replica
            .handle_message(message, now)
            .unwrap();
        self.collect(edge);
        true
    }

    /// Carries out what the watchers of an origin want.
    fn serve(&mut self, origin: usize) -> bool {
        let mut moved = false;
        while let Some(output) = self.origins[origin].watchers.poll_output() {
            moved = true;
            match output {
                watchers::Output::ToEdge { id, message } => {
                    for edge in &mut self.edges {
                        if let Some(link) = edge.link.as_mut().filter(|link| link.id == id) {
                            link.down.push_back(message.clone());
                        }
                    }
                }
                watchers::Output::Propose(bytes) => {
                    if self.dice.percent(self.lose) || !self.origins[origin].leader {
                        continue;
                    }
                    if self.dice.percent(self.twice) {
                        self.commit(bytes.clone());
                    }
                    self.commit(bytes);
                }
                watchers::Output::ReadIndex { ctx } => {
                    if self.origins[origin].leader {
                        let index = LogIndex(self.log.len() as u64);
                        let now = self.now;
                        let origin = &mut self.origins[origin];
                        origin.watchers.handle_read_index(ctx, index, now);
                    }
                }
                watchers::Output::Refuse { id, why } => {
                    for n in 0..self.edges.len() {
                        if self.edges[n]
                            .link
                            .as_ref()
                            .is_some_and(|link| link.id == id)
                        {
                            self.edges[n].refusals.push(why);
                            self.edges[n].link = None;
                            let now = self.now;
                            self.edges[n].replica.handle_detached(now);
                        }
                    }
                }
            }
        }
        moved
    }

    /// An origin applies the next entry.
    pub(crate) fn apply_one(&mut self, origin: usize) -> bool {
        let at = self.origins[origin].ledger.applied().0;
        let Some(bytes) = self.log.get(usize::try_from(at).unwrap()) else {
            return false;
        };
        let command = Command::decode(bytes).unwrap();
        let it = &mut self.origins[origin];
        let applied = it.ledger.apply(LogIndex(at + 1), &command);
        it.watchers.handle_applied(&it.ledger, &applied);
        self.serve(origin);
        true
    }

    /// Everything that can happen without time passing happens.
    pub(crate) fn run(&mut self) {
        for _ in 0..100_000 {
            let mut moved = false;
            for edge in 0..self.edges.len() {
                moved |= self.step_up(edge);
                moved |= self.step_down(edge);
            }
            for origin in 0..self.origins.len() {
                if self.origins[origin].keeps_up {
                    moved |= self.apply_one(origin);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Time passes, and all that it brings.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.run();
            let next = self.deadline().filter(|at| *at <= end);
            let Some(next) = next else {
                break;
            };
            self.now = self.now.max(next);
            self.due();
        }
        self.now = end;
    }

    fn deadline(&self) -> Option<Instant> {
        let edges = self.edges.iter().filter_map(|edge| edge.replica.deadline());
        let origins = self
            .origins
            .iter()
            .filter_map(|one| one.watchers.deadline());
        edges.chain(origins).min()
    }

    pub(crate) fn due(&mut self) {
        let now = self.now;
        for edge in &mut self.edges {
            edge.replica.handle_timeout(now);
        }
        for origin in &mut self.origins {
            origin.watchers.handle_timeout(now);
        }
    }

    // ----- clients

    pub(crate) fn ask(&mut self, who: Who, version: u32, asks: Vec<ObjectAsk>) {
        self.ask_as(who, version, Access::FULL, Policy::Optimistic, asks);
    }

    pub(crate) fn ask_as(
        &mut self,
        who: Who,
        version: u32,
        access: Access,
        policy: Policy,
        asks: Vec<ObjectAsk>,
    ) {
        let now = self.now;
        self.edges[who.edge].replica.handle_ask(
            who.subscriber(),
            key(who.object),
            who.kind,
            Version(version),
            access,
            policy,
            asks,
            Bytes::new(),
            now,
        );
    }

    /// What the clients of an edge were told since the last call.
    pub(crate) fn updates(&mut self, edge: usize) -> Vec<(SubscriberId, ObjectUpdate)> {
        self.collect(edge);
        let mut updates = Vec::new();
        self.edges[edge].told.retain(|output| match output {
            Output::Update { to, update, .. } => {
                updates.extend(to.iter().map(|who| (who, ObjectUpdate::clone(update))));
                false
            }
            _ => true,
        });
        updates
    }

    /// What one client was told since the last call of this or of `updates`, one line each.
    pub(crate) fn told(&mut self, who: Who) -> Vec<String> {
        self.updates(who.edge)
            .into_iter()
            .filter(|(id, _)| *id == who.id)
            .map(|(_, update)| text(&update))
            .collect()
    }

    /// What else came out of an edge.
    pub(crate) fn rest(&mut self, edge: usize) -> Vec<Output> {
        self.collect(edge);
        let updates = std::mem::take(&mut self.edges[edge].told);
        let (updates, rest) = updates
            .into_iter()
            .partition(|output| matches!(output, Output::Update { .. }));
        self.edges[edge].told = updates;
        Vec::from(rest)
    }
}

/// A client somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) edge: usize,
    pub(crate) id: SubscriberId,
    pub(crate) session: SessionId,
    pub(crate) durable: bool,
    pub(crate) kind: ObjectKind,
    /// What it speaks of.
    pub(crate) object: &'static str,
}

impl Who {
    pub(crate) fn new(edge: usize, id: u64) -> Self {
        Self {
            edge,
            id: SubscriberId(id),
            session: SessionId(0xc11e_0000 + u128::from(id)),
            durable: false,
            kind: ObjectKind::Temporary,
            object: "chat",
        }
    }

    pub(crate) fn subscriber(self) -> Subscriber {
        Subscriber {
            id: self.id,
            session: self.session,
            durable: self.durable,
        }
    }
}

pub(crate) fn leader() -> NodeId {
    NodeId(NonZeroU64::MIN)
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey {
        at: at(),
        name: ObjectName::new(name).unwrap(),
    }
}

pub(crate) fn at() -> AppInstance {
    AppInstance {
        vhost: VhostName::default_vhost(),
        app: AppName::new("app").unwrap(),
        instance: InstanceName::default_instance(),
    }
}

pub(crate) fn slot(name: &str) -> SlotName {
    SlotName::new(name).unwrap()
}

pub(crate) fn set(name: &str, value: &str) -> SlotOp {
    SlotOp::Set {
        slot: slot(name),
        value: SlotValue(Bytes::copy_from_slice(value.as_bytes())),
    }
}

pub(crate) fn remove(name: &str) -> SlotOp {
    SlotOp::Remove { slot: slot(name) }
}

pub(crate) fn write(ops: Vec<SlotOp>) -> Vec<ObjectAsk> {
    vec![ObjectAsk::Write(ops)]
}

pub(crate) fn send(text: &'static str) -> Vec<ObjectAsk> {
    vec![ObjectAsk::Send(Bytes::from_static(text.as_bytes()))]
}

pub(crate) fn text(update: &ObjectUpdate) -> String {
    let events: Vec<String> = update.events.iter().map(event).collect();
    format!("v{} {}", update.version, events.join(" "))
}

fn event(event: &ObjectEvent) -> String {
    match event {
        ObjectEvent::UseSuccess => "use".into(),
        ObjectEvent::Clear => "clear".into(),
        ObjectEvent::Change { slot, value } => {
            format!("{slot}={}", String::from_utf8_lossy(&value.0))
        }
        ObjectEvent::Success { slot } => format!("ok:{slot}"),
        ObjectEvent::Remove { slot } => format!("-{slot}"),
        ObjectEvent::Send(payload) => format!("send:{}", String::from_utf8_lossy(payload)),
        ObjectEvent::Sent { seq } => format!("sent:{seq}"),
        ObjectEvent::Status(status) => format!("{status:?}"),
    }
}
