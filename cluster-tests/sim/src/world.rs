//! The world: who lives in it, what happens next.

mod edges;
mod faults;
mod origins;
mod people;

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use consensus::About;
use ledger::replica::{Replica, SubscriberId};
use ledger::watchers::AttachId;
use ledger::wire::ToEdge;
use member::{Member, Restored, Saved};
use model::{AppInstance, NodeId, ObjectKey, ObjectKind, ObjectName, StreamKey, StreamName};

use super::client::{Client, Habits, Verdict};
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
    objects: Vec<(ObjectKey, ObjectKind)>,
    streams: Vec<StreamKey>,
    truth: Truth,
    verdicts: Vec<Verdict>,
    report: Report,
    hasher: DefaultHasher,
    healed: bool,
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
    /// Something goes wrong.
    Fault,
    /// Something is mended.
    Mend(Mend),
}

#[derive(Clone, Copy, Debug)]
enum Mend {
    Restart(Host),
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
                (ObjectKey { at, name }, kind)
            })
            .collect();
        let streams = (0..2)
            .map(|number| StreamKey {
                at: at.clone(),
                name: StreamName::new(&format!("stream{number}")).unwrap(),
            })
            .collect();
        let founders: Vec<_> = (0..options.origins)
            .map(|place| (node(place), about(place)))
            .collect();
        let origins = (0..options.origins)
            .map(|place| Origin {
                id: node(place),
                member: None,
                disk: Disk::new(Restored::founding(founders.clone())),
                life: 0,
                paused: None,
                sync: (Duration::from_micros(100), Duration::from_micros(900)),
                syncing: false,
                leader_seen: None,
            })
            .collect();
        let edges = (0..options.edges)
            .map(|_| Edge {
                replica: None,
                life: 0,
                conn: None,
                dialling: false,
                paused: None,
                subscribers: BTreeMap::new(),
                publishers: Vec::new(),
            })
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
        let mut world = Self {
            options,
            base: Instant::now(),
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
        world.at(Duration::from_secs(2), Event::Fault);
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
        self.report.fingerprint = self.hasher.finish();
        for client in &self.clients {
            let (all, one) = (&mut self.report.tally, client.tally);
            all.accepted += one.accepted;
            all.refused += one.refused;
            all.undecided += one.undecided;
            all.lost += one.lost;
            all.sent += one.sent;
        }
        Ok(self.report)
    }

    fn judge(&mut self) -> Outcome {
        for verdict in &self.verdicts {
            verdict.check(&self.truth)?;
        }
        let mut digests = BTreeMap::new();
        for origin in &self.origins {
            let Some(member) = &origin.member else {
                continue;
            };
            let ledger = member.ledger();
            digests.insert(origin.id, (ledger.applied(), ledger.digest()));
        }
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
        let mut applied = None;
        for origin in &self.origins {
            let Some(member) = &origin.member else {
                return Err(format!("origin {} does not run", origin.id));
            };
            let here = member.ledger().applied();
            if applied.is_some_and(|there| there != here) {
                return Err(format!("origin {} has applied up to {here}", origin.id));
            }
            applied = Some(here);
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

    fn instant(&self) -> Instant {
        self.base + self.now
    }

    fn offset(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.base)
    }

    /// The next thing happens.
    fn step(&mut self) -> Outcome {
        let event = self.agenda.keys().next().map(|(at, _)| *at);
        let mut due: Option<(Duration, Host)> = None;
        for (place, origin) in self.origins.iter().enumerate() {
            if let (Some(member), None) = (&origin.member, &origin.paused) {
                let at = self.offset(member.deadline());
                if due.is_none_or(|(first, _)| at < first) {
                    due = Some((at, Host::Origin(place)));
                }
            }
        }
        for (place, edge) in self.edges.iter().enumerate() {
            if let (Some(replica), None) = (&edge.replica, &edge.paused)
                && let Some(deadline) = replica.deadline()
            {
                let at = self.offset(deadline);
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
                let now = self.instant();
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

    // ----- events

    fn handle(&mut self, event: Event) -> Outcome {
        // Whoever is stopped hears it later.
        let host = match &event {
            Event::Peer { to, .. } => Some(Host::Origin(*to)),
            Event::Up { conn, .. } | Event::Accepted { conn } => {
                self.conns.get(conn).map(|conn| Host::Origin(conn.origin))
            }
            Event::Down { conn, .. } => self.conns.get(conn).map(|conn| Host::Edge(conn.edge)),
            Event::Synced { origin, .. }
            | Event::StateSaved { origin, .. }
            | Event::StateSent { origin, .. } => Some(Host::Origin(*origin)),
            Event::Dial { edge, .. } => Some(Host::Edge(*edge)),
            Event::Break { .. }
            | Event::Connect { .. }
            | Event::Think { .. }
            | Event::Publishers
            | Event::Fault
            | Event::Mend(_) => None,
        };
        let paused = match host {
            Some(Host::Origin(place)) => self.origins[place].paused.as_mut(),
            Some(Host::Edge(place)) => self.edges[place].paused.as_mut(),
            None => None,
        };
        if let Some(waiting) = paused {
            waiting.push_back(event);
            return Ok(());
        }
        let now = self.instant();
        match event {
            Event::Peer {
                from,
                to,
                message,
                state,
            } => {
                let sender = self.origins[from].id;
                let arrived = self.origins[to].member.is_some();
                if let Some(member) = &mut self.origins[to].member {
                    let taken = match &state {
                        None => member.handle_peer(sender, &message, now),
                        Some((contents, _)) => {
                            member.handle_snapshot(sender, &message, contents, now)
                        }
                    };
                    if let Err(error) = taken {
                        return Err(format!("o{to} refuses what o{from} sent: {error}"));
                    }
                    self.drain_origin(to)?;
                }
                if let Some((_, life)) = state {
                    let to = self.origins[to].id;
                    let event = Event::StateSent {
                        origin: from,
                        life,
                        to,
                        arrived,
                    };
                    self.at(Duration::from_millis(1), event);
                }
            }
            Event::StateSent {
                origin,
                life,
                to,
                arrived,
            } => {
                if let Some(member) = self.living(origin, life) {
                    member.handle_snapshot_sent(to, arrived);
                    self.drain_origin(origin)?;
                }
            }
            Event::Synced { origin, life } => {
                if self.living(origin, life).is_some() {
                    let last = self.origins[origin].disk.end_sync();
                    self.origins[origin].syncing = false;
                    if let (Some(ticket), Some(member)) = (last, self.living(origin, life)) {
                        member.handle_persisted(ticket, now);
                    }
                    self.drain_origin(origin)?;
                }
            }
            Event::StateSaved {
                origin,
                life,
                saved,
            } => {
                if self.living(origin, life).is_some() {
                    let index = saved.index;
                    self.origins[origin].disk.save(saved);
                    if let Some(member) = self.living(origin, life) {
                        member.handle_snapshot_saved(index);
                    }
                    self.drain_origin(origin)?;
                }
            }
            Event::Accepted { conn } => {
                if let Some((origin, member)) = self.attached(conn) {
                    member.handle_attach(AttachId(conn), now);
                    self.drain_origin(origin)?;
                }
            }
            Event::Up { conn, message } => {
                if let Some((origin, member)) = self.attached(conn) {
                    member
                        .handle_edge(AttachId(conn), message, now)
                        .map_err(|error| format!("o{origin} cannot read an edge: {error}"))?;
                    self.drain_origin(origin)?;
                }
            }
            Event::Down { conn, message } => {
                let Some((edge, lives)) = self.conns.get(&conn).map(|c| (c.edge, c.lives)) else {
                    return Ok(());
                };
                if self.edges[edge].conn == Some(conn) && self.edges[edge].life == lives.0 {
                    let message = ToEdge::decode(message)
                        .map_err(|error| format!("e{edge} cannot read an origin: {error}"))?;
                    self.trace(format_args!("e{edge} hears {message:?}"));
                    if let Some(replica) = &mut self.edges[edge].replica {
                        replica
                            .handle_message(message, now)
                            .map_err(|error| format!("e{edge} blames its origin: {error}"))?;
                    }
                    self.drain_edge(edge)?;
                }
            }
            Event::Break { conn } => self.break_conn(conn)?,
            Event::Dial { edge, life } => self.dial(edge, life)?,
            Event::Connect { client } => self.connect(client)?,
            Event::Think { client } => {
                let leave = !self.healed;
                if !self.healed {
                    let wishes = self.clients[client].think(self.now, leave);
                    self.grant(client, wishes)?;
                    let pause = self.clients[client].pause();
                    self.at(pause, Event::Think { client });
                }
            }
            Event::Publishers => self.publish()?,
            Event::Fault => {
                if !self.healed {
                    self.fault()?;
                    let pause = self.dice.between(Duration::from_millis(50), FAULTS_EVERY);
                    self.at(pause, Event::Fault);
                }
            }
            Event::Mend(mend) => self.mend(mend),
        }
        Ok(())
    }

    fn living(&mut self, origin: usize, life: u64) -> Option<&mut Member> {
        let origin = &mut self.origins[origin];
        origin.member.as_mut().filter(|_| origin.life == life)
    }

    fn attached(&mut self, conn: u64) -> Option<(usize, &mut Member)> {
        let conn = self.conns.get(&conn)?;
        let (origin, life) = (conn.origin, conn.lives.1);
        Some((origin, self.living(origin, life)?))
    }
}

fn node(place: usize) -> NodeId {
    NodeId(NonZeroU64::MIN.saturating_add(place as u64))
}

fn about(place: usize) -> About {
    About {
        stamp: 1000 + place as u64,
        text: Bytes::new(),
    }
}
