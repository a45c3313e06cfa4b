//! What befalls a cluster: processes killed and stopped, disks full and slow, networks
//! parted, late and lossy.
//!
//! The plan follows from a seed alone: what, when and for how long. Who leads is found out
//! when it matters. At each moment there is at most one fault of a process or disk and one of
//! the network, so that all kinds of both meet.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use netlab::{Host, Impairment};

use crate::dice::Dice;
use crate::lab::field::{Field, Post};
use crate::lab::pace;

/// How often processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long one that is slow by pulses stands still, and how long it runs between.
const PULSE: Duration = Duration::from_millis(80);

/// Some processes or hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The origin that leads when it happens.
    Leader,
    /// One origin.
    Origin(usize),
    /// One edge.
    Edge(usize),
    /// More than half of the origins, from this one on.
    Majority(usize),
    /// All origins.
    AllOrigins,
}

/// Something that befalls a cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// kill -9; started again when it is over.
    Kill(Who),
    /// SIGSTOP; SIGCONT when it is over.
    Freeze(Who),
    /// An origin's disk is full.
    FullDisk(usize),
    /// An origin's disk is slow, by the kernel's rule for block devices; where that is
    /// not to be had, the origin is stopped and goes on in pulses.
    SlowDisk(usize),
    /// Two sides that do not reach each other; these origins and edges are one.
    Split(Vec<Who>),
    /// Two sides that both reach one origin, and not each other.
    Bridge(usize, Vec<Who>),
    /// It reaches nobody and nobody reaches it. Clients reach edges.
    Alone(Who),
    /// Nothing that others send reaches it.
    Deaf(Who),
    /// Nothing that it sends reaches others.
    Mute(Who),
    /// Nothing gets from one to the other.
    OneWay(Who, Who),
    /// Clients and one edge do not reach each other.
    NoClients(usize),
    /// All links are like this.
    Links(Impairment),
    /// The links of one are like this.
    LinksOf(Who, Impairment),
}

/// A fault with its time.
#[derive(Clone, Debug)]
pub struct Step {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

/// A plan, and what became of it.
#[derive(Debug)]
pub struct Nemesis {
    /// What is to happen.
    pub plan: Vec<Step>,
    /// What happened, with times.
    pub log: Vec<String>,
    /// How often each kind happened.
    pub counts: BTreeMap<&'static str, usize>,
    /// Processes that ended and should not have.
    pub fallen: Vec<String>,
    /// The origin that the step under way is about.
    under_way: BTreeMap<usize, Vec<String>>,
    pulsing: Option<String>,
}

/// How fast faults follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Tempo {
    /// A fault lasts so many milliseconds.
    pub lasts: (u64, u64),
    /// Between two of the same sort are so many.
    pub between: (u64, u64),
}

impl Nemesis {
    /// What a seed has in store for a cluster of this size in this time.
    #[must_use]
    pub fn new(seed: u64, origins: usize, edges: usize, time: Duration, tempo: Tempo) -> Self {
        let mut plan = Vec::new();
        type Draw = fn(&mut Dice, usize, usize) -> Fault;
        let sorts: [Draw; 2] = [of_processes, of_network];
        for (sort, draw) in (1..).zip(sorts) {
            let mut dice = Dice::new(seed, sort);
            let mut at = dice.millis(200, 1500);
            loop {
                let lasts = dice.millis(tempo.lasts.0, tempo.lasts.1);
                if at + lasts > time {
                    break;
                }
                let fault = draw(&mut dice, origins, edges);
                plan.push(Step { at, lasts, fault });
                at += lasts + dice.millis(tempo.between.0, tempo.between.1);
            }
        }
        plan.sort_by_key(|step| step.at);
        Self {
            plan,
            log: Vec::new(),
            counts: BTreeMap::new(),
            fallen: Vec::new(),
            under_way: BTreeMap::new(),
            pulsing: None,
        }
    }

    /// Does it all, beginning now, and returns when `time` is over or a process has fallen.
    pub fn haunt(&mut self, field: &mut Field, time: Duration) {
        let started = Instant::now();
        let begins = self.plan.iter().enumerate();
        let mut moments: Vec<(Duration, usize, bool)> = begins
            .flat_map(|(n, step)| [(step.at, n, true), (step.at + step.lasts, n, false)])
            .collect();
        moments.sort();
        for (at, n, begins) in moments {
            if !self.wait(field, started, at) {
                return;
            }
            let step = self.plan[n].clone();
            if begins {
                let whom = self.begin(field, n, &step.fault);
                let line = format!(
                    "{:7.3} s: {}{whom}",
                    started.elapsed().as_secs_f64(),
                    step.fault
                );
                self.log.push(line);
                *self.counts.entry(step.fault.kind()).or_default() += 1;
            } else {
                self.end(field, n, &step.fault);
                let line = format!(
                    "{:7.3} s: over: {}",
                    started.elapsed().as_secs_f64(),
                    step.fault
                );
                self.log.push(line);
            }
        }
        self.wait(field, started, time);
    }

    /// Ends everything that is under way. Processes that are not there are started.
    pub fn calm(&mut self, field: &mut Field) {
        self.pulsing = None;
        for post in field.posts() {
            post.thaw();
            if let Some(disk) = &post.disk {
                disk.empty();
                disk.slow(false);
            }
            if !post.runs() {
                let _said = post.ended_by_itself();
                post.start();
            }
        }
        heal(field);
    }

    /// Waits for a moment; false if something fell meanwhile.
    fn wait(&mut self, field: &mut Field, started: Instant, at: Duration) -> bool {
        let mut stopped = false;
        while started.elapsed() < at {
            let left = at.saturating_sub(started.elapsed());
            if let Some(id) = self.pulsing.clone() {
                stopped = !stopped;
                let post = field.post(&id);
                if stopped {
                    post.freeze();
                } else {
                    post.thaw();
                }
                pace(PULSE.min(left));
            } else {
                pace(LOOK_EVERY.min(left));
            }
            self.look(field);
        }
        if stopped && let Some(id) = &self.pulsing {
            field.post(id).thaw();
        }
        self.fallen.is_empty()
    }

    /// Looks for processes that have ended by themselves. One whose disk was full may.
    fn look(&mut self, field: &mut Field) {
        for post in field.posts() {
            let Some(how) = post.ended_by_itself() else {
                continue;
            };
            if !how.contains("the disk is full") {
                self.fallen.push(how);
                continue;
            }
            let how = how.lines().next().unwrap_or_default().to_owned();
            self.log.push(format!("           {how} its disk is full"));
            *self.counts.entry("ends on a full disk").or_default() += 1;
            // It may have found out just when the fault was over.
            let full = |n: &usize| matches!(self.plan[*n].fault, Fault::FullDisk(_));
            if !self.under_way.keys().any(full) {
                post.start();
            }
        }
    }

    /// Begins a step; names those that it befalls if the plan does not.
    fn begin(&mut self, field: &mut Field, n: usize, fault: &Fault) -> String {
        let ids = match fault {
            Fault::Kill(who) | Fault::Freeze(who) => {
                let ids = self.free(n, names(field, who));
                for id in &ids {
                    let post = field.post(id);
                    if matches!(fault, Fault::Kill(_)) {
                        post.kill();
                    } else {
                        post.freeze();
                    }
                }
                ids
            }
            Fault::FullDisk(origin) => {
                let post = &field.origins[*origin];
                if let Some(disk) = &post.disk {
                    disk.fill();
                }
                vec![post.id.clone()]
            }
            Fault::SlowDisk(origin) => {
                let post = &field.origins[*origin];
                match &post.disk {
                    Some(disk) if disk.can_be_slow() => disk.slow(true),
                    _ => self.pulsing = Some(post.id.clone()),
                }
                vec![post.id.clone()]
            }
            Fault::Split(side) => {
                let side = all_names(field, side);
                let (one, other) = sides(field, &side);
                let groups = [one.iter().collect::<Vec<_>>(), other.iter().collect()];
                field.lab.partition(&[&groups[0], &groups[1]]);
                side
            }
            Fault::Bridge(origin, side) => {
                let bridge = field.origins[*origin].host.clone();
                let side = all_names(field, side);
                let (mut one, mut other) = sides(field, &side);
                for group in [&mut one, &mut other] {
                    group.retain(|host| host.name() != bridge.name());
                    group.push(bridge.clone());
                }
                let groups = [one.iter().collect::<Vec<_>>(), other.iter().collect()];
                field.lab.partition(&[&groups[0], &groups[1]]);
                side
            }
            Fault::Alone(who) | Fault::Deaf(who) | Fault::Mute(who) => {
                let ids = names(field, who);
                for (one, other) in pairs(field, &ids) {
                    if !matches!(fault, Fault::Deaf(_)) {
                        field.lab.cut(&one, &other);
                    }
                    if !matches!(fault, Fault::Mute(_)) {
                        field.lab.cut(&other, &one);
                    }
                }
                ids
            }
            Fault::OneWay(from, to) => {
                let (from, to) = (names(field, from), names(field, to));
                for (a, b) in from.iter().zip(&to).filter(|(a, b)| a != b) {
                    let (a, b) = (field.post(a).host.clone(), field.post(b).host.clone());
                    field.lab.cut(&a, &b);
                }
                [from, to].concat()
            }
            Fault::NoClients(edge) => {
                field.lab.cut_between(&field.here, &field.edges[*edge].host);
                Vec::new()
            }
            Fault::Links(rule) => {
                field.lab.set_everywhere(rule);
                Vec::new()
            }
            Fault::LinksOf(who, rule) => {
                let ids = names(field, who);
                for (one, other) in pairs(field, &ids) {
                    field.lab.set_between(&one, &other, rule);
                }
                ids
            }
        };
        let named = format!(" [{}]", ids.join(" "));
        self.under_way.insert(n, ids);
        named
    }

    fn end(&mut self, field: &mut Field, n: usize, fault: &Fault) {
        let ids = self.under_way.remove(&n).unwrap_or_default();
        match fault {
            Fault::Kill(_) => {
                for id in ids {
                    field.post(&id).start();
                }
            }
            Fault::Freeze(_) => {
                for id in ids {
                    field.post(&id).thaw();
                }
            }
            Fault::FullDisk(origin) => {
                let post = &mut field.origins[*origin];
                if let Some(disk) = &post.disk {
                    disk.empty();
                }
                let fell = post.ended_by_itself().is_some() || !post.is_there();
                if fell {
                    post.start();
                }
            }
            Fault::SlowDisk(origin) => {
                self.pulsing = None;
                let post = &mut field.origins[*origin];
                post.thaw();
                if let Some(disk) = &post.disk {
                    disk.slow(false);
                }
            }
            Fault::Split(_)
            | Fault::Bridge(..)
            | Fault::Alone(_)
            | Fault::Deaf(_)
            | Fault::Mute(_)
            | Fault::OneWay(..)
            | Fault::NoClients(_)
            | Fault::Links(_)
            | Fault::LinksOf(..) => heal(field),
        }
    }

    /// Those of them that nothing else befalls.
    fn free(&self, n: usize, mut ids: Vec<String>) -> Vec<String> {
        let process = |fault: &Fault| fault.is_of_processes();
        let busy = self
            .under_way
            .iter()
            .filter(|(other, _)| **other != n && process(&self.plan[**other].fault));
        let busy: Vec<&String> = busy.flat_map(|(_, ids)| ids).collect();
        ids.retain(|id| !busy.contains(&id));
        ids
    }
}

fn heal(field: &Field) {
    field.lab.heal();
    field.lab.set_everywhere(&Impairment::default());
}

/// The ids of those that are meant. Who leads if nobody does: the first origin.
fn names(field: &Field, who: &Who) -> Vec<String> {
    let count = field.origins.len();
    let id = |post: &Post| post.id.clone();
    match who {
        Who::Leader => vec![id(&field.origins[field.leader().unwrap_or(0)])],
        Who::Origin(origin) => vec![id(&field.origins[*origin])],
        Who::Edge(edge) => vec![id(&field.edges[*edge])],
        Who::Majority(first) => (0..count / 2 + 1)
            .map(|n| id(&field.origins[(first + n) % count]))
            .collect(),
        Who::AllOrigins => field.origins.iter().map(id).collect(),
    }
}

fn all_names(field: &Field, side: &[Who]) -> Vec<String> {
    side.iter().flat_map(|who| names(field, who)).collect()
}

/// The named hosts and the others; clients belong to neither.
fn sides(field: &Field, ids: &[String]) -> (Vec<Host>, Vec<Host>) {
    let hosts = field.origins.iter().chain(&field.edges);
    let hosts = hosts.map(|post| post.host.clone());
    hosts.partition(|host| ids.iter().any(|id| id == host.name()))
}

/// Each of the named hosts with each of the others; clients are not among them.
fn pairs(field: &Field, ids: &[String]) -> Vec<(Host, Host)> {
    let (named, others) = sides(field, ids);
    let all: Vec<Host> = named.iter().chain(&others).cloned().collect();
    let of = |one: &Host| {
        let others = all.iter().filter(|other| other.name() != one.name());
        others
            .map(|other| (one.clone(), other.clone()))
            .collect::<Vec<_>>()
    };
    named.iter().flat_map(of).collect()
}

fn of_processes(dice: &mut Dice, origins: usize, edges: usize) -> Fault {
    let who = |dice: &mut Dice| match dice.below(10) {
        0..4 => Who::Leader,
        4..7 => Who::Origin(dice.below(origins)),
        _ => Who::Edge(dice.below(edges)),
    };
    match dice.below(20) {
        0..8 => Fault::Kill(who(dice)),
        8 => Fault::Kill(Who::Majority(dice.below(origins))),
        9 => Fault::Kill(Who::AllOrigins),
        10..14 => Fault::Freeze(who(dice)),
        14 => Fault::Freeze(Who::Majority(dice.below(origins))),
        // Disks in memory are those of even origins.
        15..18 => Fault::FullDisk(dice.below(origins.div_ceil(2)) * 2),
        _ => Fault::SlowDisk(dice.below(origins)),
    }
}

fn of_network(dice: &mut Dice, origins: usize, edges: usize) -> Fault {
    let anybody = |dice: &mut Dice| match dice.below(6) {
        0 | 1 => Who::Leader,
        2 | 3 => Who::Origin(dice.below(origins)),
        _ => Who::Edge(dice.below(edges)),
    };
    let half = |dice: &mut Dice, origins_there: usize| -> Vec<Who> {
        let mut numbers: Vec<usize> = (0..origins).collect();
        dice.shuffle(&mut numbers);
        let mut side: Vec<Who> = numbers[..origins_there]
            .iter()
            .copied()
            .map(Who::Origin)
            .collect();
        side.extend((0..edges).filter(|_| dice.percent(40)).map(Who::Edge));
        side
    };
    match dice.below(16) {
        0..3 => {
            let there = 1 + dice.below(origins / 2);
            Fault::Split(half(dice, there))
        }
        3 | 4 => Fault::Alone(Who::Leader),
        5 => Fault::Alone(anybody(dice)),
        6 => Fault::Deaf(anybody(dice)),
        7 => Fault::Mute(anybody(dice)),
        8 => Fault::OneWay(anybody(dice), anybody(dice)),
        9 => Fault::OneWay(Who::Edge(dice.below(edges)), Who::Leader),
        10 | 11 => Fault::Bridge(dice.below(origins), half(dice, origins / 2)),
        12 => Fault::NoClients(dice.below(edges)),
        13 => Fault::Links(weather(dice, 1, 20, 3)),
        14 => Fault::LinksOf(Who::Leader, weather(dice, 20, 120, 15)),
        _ => Fault::LinksOf(anybody(dice), weather(dice, 5, 60, 30)),
    }
}

/// Delay in milliseconds, and loss in percent.
fn weather(dice: &mut Dice, least: u64, most: u64, loss: usize) -> Impairment {
    let delay = dice.millis(least, most);
    let loss = u32::try_from(dice.below(loss + 1)).unwrap_or_default();
    Impairment {
        delay,
        jitter: delay / 2,
        loss: f64::from(loss) / 100.0,
        ..Impairment::default()
    }
}

impl Fault {
    /// For counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kills",
            Self::Freeze(_) => "pauses",
            Self::FullDisk(_) => "full disks",
            Self::SlowDisk(_) => "slow disks",
            Self::Split(_) => "splits",
            Self::Bridge(..) => "bridges",
            Self::Alone(_) => "isolations",
            Self::Deaf(_) | Self::Mute(_) | Self::OneWay(..) => "one-way cuts",
            Self::NoClients(_) => "cuts from clients",
            Self::Links(_) | Self::LinksOf(..) => "slow or lossy links",
        }
    }

    fn is_of_processes(&self) -> bool {
        matches!(
            self,
            Self::Kill(_) | Self::Freeze(_) | Self::FullDisk(_) | Self::SlowDisk(_)
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, rule) = match self {
            Self::Links(rule) => ("all links".to_owned(), rule),
            Self::LinksOf(who, rule) => (format!("links of {who:?}"), rule),
            Self::Kill(_)
            | Self::Freeze(_)
            | Self::FullDisk(_)
            | Self::SlowDisk(_)
            | Self::Split(_)
            | Self::Bridge(..)
            | Self::Alone(_)
            | Self::Deaf(_)
            | Self::Mute(_)
            | Self::OneWay(..)
            | Self::NoClients(_) => return write!(f, "{self:?}"),
        };
        let percent = rule.loss * 100.0;
        write!(
            f,
            "{who}: {:?} +{:?}, {percent} % lost",
            rule.delay, rule.jitter
        )
    }
}
