//! The world: who lives in it, what happens next.

mod edges;
mod events;
mod faults;
mod operator;
mod origins;
mod people;
mod safety;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consensus::{About, Membership};
use ledger::replica::{Replica, SubscriberId};
use member::{Member, Restored, Saved};
use model::{
    AppInstance, Epoch, LogIndex, NodeId, ObjectKey, ObjectKind, ObjectName, Policy, StreamKey,
    StreamName,
};

use super::client::{Client, Habits, Subject, Verdict};
use super::clock::Clock;
use super::dice::Dice;
use super::disk::Disk;
use super::net::{Host, Net};
use super::publisher::Publisher;
use super::truth::Truth;
use super::{Options, Report};

/// How long everything may take to become quiet after it has healed.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// Between two faults, at most.
const FAULTS_EVERY: Duration = Duration::from_millis(1500);

/// Steps that may happen at one moment: what was waiting for a stopped process, and more.
const STILL_MAX: u32 = 100_000;

/// The world of one seed.
pub struct World {
    options: Options,
    base: Instant,
    now: Duration,
    dice: Dice,
    net: Net,
    agenda: BTreeMap<(Duration, u64), Event>,
    events: u64,
    origins: Vec<Origin>,
    edges: Vec<Edge>,
    clients: Vec<Client>,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    next_subscriber: u64,
    objects: Vec<Subject>,
    streams: Vec<StreamKey>,
    truth: Truth,
    verdicts: Vec<Verdict>,
    report: Report,
    hasher: DefaultHasher,
    healed: bool,
    /// What whoever runs the cluster has to do.
    tasks: VecDeque<operator::Task>,
    /// Who led in each term.
    leaders: BTreeMap<u64, NodeId>,
    /// Who was granted each publish: the edge, its life, and its number for it.
    grants: BTreeMap<(StreamKey, Epoch), (usize, u64, u64)>,
    /// When the membership changed last.
    changed: Duration,
    /// A state is saved after so many entries, and so many are kept beside it.
    saves: (u64, u64),
    /// Steps since time went on.
    still: u32,
}

struct Origin {
    id: NodeId,
    member: Option<Member>,
    disk: Disk,
    life: u64,
    /// While it is stopped: what came meanwhile.
    paused: Option<VecDeque<Event>>,
    sync: (Duration, Duration),
    syncing: bool,
    leader_seen: Option<NodeId>,
    clock: Clock,
    /// Of its data folder.
    stamp: u64,
    /// It has lost what it had promised.
    disk_lost: bool,
    /// It belongs to the cluster no more.
    gone: bool,
    membership: Option<Membership>,
    /// What happened behind this it remembers, since it runs.
    remembers: Option<LogIndex>,
}

struct Edge {
    replica: Option<Replica>,
    life: u64,
    conn: Option<u64>,
    dialling: bool,
    paused: Option<VecDeque<Event>>,
    /// Who is connected: the place of each client.
    subscribers: BTreeMap<SubscriberId, usize>,
    publishers: Vec<Publisher>,
    clock: Clock,
    /// How often it may have missed messages.
    holes: u64,
    /// What it had seen when it attached.
    seen: LogIndex,
}

/// One attachment of an edge to an origin.
struct Conn {
    edge: usize,
    origin: usize,
    /// Which life of each.
    lives: (u64, u64),
    /// Nothing more arrives in this direction (up, down); it breaks soon.
    doomed: (bool, bool),
}

#[derive(Clone, Debug)]
enum Event {
    /// A message between origins arrives.
    Peer {
        from: usize,
        to: usize,
        message: Bytes,
        /// The state, its sender's life and what it includes.
        state: Option<(Bytes, u64)>,
    },
    /// The sender learns what became of a state that it sent.
    StateSent {
        origin: usize,
        life: u64,
        to: NodeId,
        arrived: bool,
    },
    /// A sync of a disk is done.
    Synced { origin: usize, life: u64 },
    /// A state is saved.
    StateSaved {
        origin: usize,
        life: u64,
        saved: Saved,
    },
    /// An origin sees the connection come.
    Accepted { conn: u64 },
    /// A message of an edge arrives at its origin.
    Up { conn: u64, message: Bytes },
    /// A message of an origin arrives at its edge.
    Down { conn: u64, message: Bytes },
    /// A connection breaks, for both sides.
    Break { conn: u64 },
    /// An edge tries to attach.
    Dial { edge: usize, life: u64 },
    /// A client connects.
    Connect { client: usize },
    /// A client thinks.
    Think { client: usize },
    /// Somebody publishes, somebody stops.
    Publishers,
    /// Whoever runs the cluster looks at it.
    Operate,
    /// Something goes wrong.
    Fault,
    /// Something is mended.
    Mend(Mend),
}

#[derive(Clone, Copy, Debug)]
enum Mend {
    Restart(Host),
    /// It is stopped, if it has not been since.
    Stop(usize, u64),
    Resume(Host),
    Heal,
    Disk(usize),
}

type Outcome = Result<(), String>;

impl World {
    /// A world that has just begun.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let mut dice = Dice::new(options.seed);
        let at: AppInstance = AppInstance {
            vhost: model::VhostName::default_vhost(),
            app: "sim".parse().unwrap(),
            instance: model::InstanceName::default_instance(),
        };
        let objects: Vec<_> = (0..2 + dice.below(3))
            .map(|number| {
                let name = ObjectName::new(&format!("object{number}")).unwrap();
                let kind = [ObjectKind::Temporary, ObjectKind::Persistent][number % 2];
                let at = at.clone();
                let key = ObjectKey { at, name };
                let policy = match dice.below(3) {
                    0 => Policy::LastWriterWins,
                    _ => Policy::Optimistic,
                };
                Subject { key, kind, policy }
            })
            .collect();
        let streams = (0..2)
            .map(|number| StreamKey {
                at: at.clone(),
                name: StreamName::new(&format!("stream{number}")).unwrap(),
            })
            .collect();
        let founders: Vec<_> = (0..options.origins)
            .map(|place| {
                let about = About {
                    stamp: stamp(place),
                    text: Bytes::new(),
                };
                (node(place), about)
            })
            .collect();
        let base = Instant::now();
        let origins = (0..options.origins)
            .map(|place| {
                let restored = Restored::founding(founders.clone());
                Origin::new(place, restored, Clock::new(base, &mut dice))
            })
            .collect();
        let edges = (0..options.edges)
            .map(|_| Edge::new(Clock::new(base, &mut dice)))
            .collect();
        let clients = (0..options.clients)
            .map(|number| {
                let habits = Habits {
                    think: (Duration::from_millis(1), Duration::from_millis(60)),
                    durable: number % 3 == 2,
                    slots: 4,
                };
                let mut uses = objects.clone();
                while uses.len() > 1 && dice.in_thousand(400) {
                    uses.remove(dice.below(uses.len()));
                }
                Client::new(format!("c{number}"), dice.split(), habits, uses)
            })
            .collect();
        let net = Net::new(dice.split());
        let saves = [(40, 5), (120, 20), (300, 50)][dice.below(3)];
        let mut world = Self {
            options,
            base,
            now: Duration::ZERO,
            dice,
            net,
            agenda: BTreeMap::new(),
            events: 0,
            origins,
            edges,
            clients,
            conns: BTreeMap::new(),
            next_conn: 0,
            next_subscriber: 0,
            objects,
            streams,
            truth: Truth::default(),
            verdicts: Vec::new(),
            report: Report::default(),
            hasher: DefaultHasher::new(),
            healed: false,
            tasks: VecDeque::new(),
            leaders: BTreeMap::new(),
            grants: BTreeMap::new(),
            changed: Duration::ZERO,
            saves,
            still: 0,
        };
        for place in 0..options.origins {
            world.start_origin(place);
        }
        for place in 0..options.edges {
            world.start_edge(place);
        }
        for client in 0..options.clients {
            let pause = world
                .dice
                .between(Duration::ZERO, Duration::from_millis(300));
            world.at(pause, Event::Connect { client });
        }
        world.at(Duration::from_secs(1), Event::Operate);
        let peace = match options.trouble > Duration::from_secs(2) {
            true => Duration::from_secs(2),
            false => Duration::from_millis(400),
        };
        world.at(peace, Event::Fault);
        world.at(Duration::from_millis(500), Event::Publishers);
        world
    }

    /// How long it has been.
    #[must_use]
    pub const fn time(&self) -> Duration {
        self.now
    }

    /// Lives through trouble and healing, and judges.
    ///
    /// # Errors
    /// What did not hold.
    pub fn run(&mut self) -> Result<Report, String> {
        while self.now < self.options.trouble {
            self.step()?;
        }
        self.heal();
        let until = self.now + QUIET_WITHIN;
        // Clients think no more: what is asked must be answered.
        let mut quiet_since = None;
        loop {
            self.step()?;
            let disquiet = self.disquiet();
            match (&disquiet, quiet_since) {
                (Ok(()), None) => quiet_since = Some(self.now),
                (Ok(()), Some(since)) if self.now > since + Duration::from_secs(2) => break,
                (Ok(()), Some(_)) => {}
                (Err(_), _) => quiet_since = None,
            }
            if self.now > until {
                return Err(format!(
                    "not quiet {QUIET_WITHIN:?} after everything was healed: {}",
                    disquiet.err().unwrap_or_default()
                ));
            }
        }
        self.judge()?;
        self.report.entries = self.truth.entries();
        for client in &self.clients {
            let (all, one) = (&mut self.report.tally, client.tally);
            all.accepted += one.accepted;
            all.refused += one.refused;
            all.undecided += one.undecided;
            all.lost += one.lost;
            all.sent += one.sent;
            all.locked += one.locked;
        }
        self.report.fingerprint = self.hasher.finish();
        Ok(self.report)
    }

    fn judge(&mut self) -> Outcome {
        for verdict in &self.verdicts {
            verdict.check(&self.truth)?;
        }
        let mut digests = BTreeMap::new();
        for place in self.present() {
            let Some(member) = &self.origins[place].member else {
                continue;
            };
            let ledger = member.ledger();
            digests.insert(place, (ledger.applied(), ledger.digest()));
        }
        digests.hash(&mut self.hasher);
        if digests
            .values()
            .any(|digest| Some(digest) != digests.values().next())
        {
            return Err(format!("the origins end with other digests: {digests:?}"));
        }
        for client in &mut self.clients {
            client.check_told(&self.truth)?;
            for (key, version, slots) in client.sees() {
                let Some((newest, right)) = self.truth.newest(key) else {
                    continue;
                };
                if (newest, right) != (version, slots) {
                    return Err(format!(
                        "{} ends with {key} at version {version} as {slots:?}; it is {newest}, {right:?}",
                        client.name()
                    ));
                }
            }
        }
        Ok(())
    }

    fn disquiet(&self) -> Outcome {
        for client in &self.clients {
            if client.connection.is_none() {
                return Err(format!("{} is not connected", client.name()));
            }
            client.check_quiet()?;
        }
        self.check_settled()?;
        for (place, edge) in self.edges.iter().enumerate() {
            let replica = edge.replica.as_ref();
            if !replica.is_some_and(Replica::is_connected) {
                return Err(format!("e{place} is not attached"));
            }
        }
        let mut applied = None;
        for place in self.present() {
            let Some(member) = &self.origins[place].member else {
                return Err(format!("o{place} does not run"));
            };
            let here = member.ledger().applied();
            if applied.is_some_and(|there| there != here) {
                return Err(format!("o{place} has applied up to {here}"));
            }
            applied = Some(here);
            if let Some((key, token, _)) = member.ledger().locks().next() {
                return Err(format!("lock {token} of {key} never ends"));
            }
            for Subject { key, kind, .. } in &self.objects {
                let used = self.clients.iter().any(|client| client.uses(key));
                let exists = member.ledger().sync(key, None).is_some();
                if exists && !used && *kind == ObjectKind::Temporary {
                    return Err(format!("{key} is there, and nobody uses it"));
                }
            }
            let mut streams = member.ledger().streams();
            if let Some((key, state)) = streams.find(|(_, state)| state.holder.is_some()) {
                return Err(format!("{key} is held, and nobody publishes: {state:?}"));
            }
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.trace(format_args!("everything heals"));
        self.healed = true;
        self.net.heal();
        for place in 0..self.origins.len() {
            self.origins[place].sync = (Duration::from_micros(100), Duration::from_micros(900));
            self.mend(Mend::Resume(Host::Origin(place)));
            self.mend(Mend::Restart(Host::Origin(place)));
        }
        for place in 0..self.edges.len() {
            self.mend(Mend::Resume(Host::Edge(place)));
            self.mend(Mend::Restart(Host::Edge(place)));
        }
    }

    // ----- time

    fn at(&mut self, after: Duration, event: Event) {
        self.events += 1;
        self.agenda.insert((self.now + after, self.events), event);
    }

    /// What a host's clock shows.
    fn instant(&self, host: Host) -> Instant {
        self.clock(host).at(self.now)
    }

    fn clock(&self, host: Host) -> &Clock {
        match host {
            Host::Origin(place) => &self.origins[place].clock,
            Host::Edge(place) => &self.edges[place].clock,
        }
    }

    /// The next thing happens.
    fn step(&mut self) -> Outcome {
        let before = self.now;
        self.next()?;
        self.still = if self.now == before {
            self.still + 1
        } else {
            0
        };
        if self.still > STILL_MAX {
            return Err("time stands still: something is due again and again".into());
        }
        Ok(())
    }

    fn next(&mut self) -> Outcome {
        let event = self.agenda.keys().next().map(|(at, _)| *at);
        let mut due: Option<(Duration, Host)> = None;
        for (place, origin) in self.origins.iter().enumerate() {
            if let (Some(member), None) = (&origin.member, &origin.paused) {
                let at = origin.clock.when(member.deadline());
                if due.is_none_or(|(first, _)| at < first) {
                    due = Some((at, Host::Origin(place)));
                }
            }
        }
        for (place, edge) in self.edges.iter().enumerate() {
            if let (Some(replica), None) = (&edge.replica, &edge.paused)
                && let Some(deadline) = replica.deadline()
            {
                let at = edge.clock.when(deadline);
                if due.is_none_or(|(first, _)| at < first) {
                    due = Some((at, Host::Edge(place)));
                }
            }
        }
        match (event, due) {
            (Some(at), due) if due.is_none_or(|(other, _)| at <= other) => {
                self.now = self.now.max(at);
                if let Some((_, event)) = self.agenda.pop_first() {
                    self.handle(event)?;
                }
            }
            (_, Some((at, host))) => {
                self.now = self.now.max(at);
                let now = self.instant(host);
                match host {
                    Host::Origin(place) => {
                        if let Some(member) = &mut self.origins[place].member {
                            member.handle_timeout(now);
                        }
                        self.drain_origin(place)?;
                    }
                    Host::Edge(place) => {
                        if let Some(replica) = &mut self.edges[place].replica {
                            replica.handle_timeout(now);
                        }
                        self.drain_edge(place)?;
                    }
                }
            }
            _ => return Err("nothing will ever happen again".into()),
        }
        Ok(())
    }

    fn trace(&mut self, what: std::fmt::Arguments<'_>) {
        self.now.hash(&mut self.hasher);
        if self.options.trace {
            let text = what.to_string();
            println!("{:>12.6} {text}", self.now.as_secs_f64());
        }
    }
}

impl Origin {
    fn new(place: usize, restored: Restored, clock: Clock) -> Self {
        Self {
            id: node(place),
            member: None,
            disk: Disk::new(restored),
            life: 0,
            paused: None,
            sync: (Duration::from_micros(100), Duration::from_micros(900)),
            syncing: false,
            leader_seen: None,
            clock,
            stamp: stamp(place),
            disk_lost: false,
            gone: false,
            membership: None,
            remembers: None,
        }
    }
}

impl Edge {
    fn new(clock: Clock) -> Self {
        Self {
            replica: None,
            life: 0,
            conn: None,
            dialling: false,
            paused: None,
            subscribers: BTreeMap::new(),
            publishers: Vec::new(),
            clock,
            holes: 0,
            seen: LogIndex(0),
        }
    }
}

fn node(place: usize) -> NodeId {
    NodeId(NonZeroU64::MIN.saturating_add(place as u64))
}

const fn stamp(place: usize) -> u64 {
    1000 + place as u64
}
