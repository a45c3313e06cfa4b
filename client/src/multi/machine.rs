//! The decisions of a facade over several servers, without sockets and clocks.
//!
//! ```text
//!   up, down, heard, resumed, update ─┐              ┌─▶ Dial, HangUp, Ping   (per server)
//!   object, set, send, close ─────────┼─▶ Machine ───┼─▶ Resume, Ask          (to the primary)
//!   handle_timeout ───────────────────┘              └─▶ Tell, Settle         (to the program)
//! ```
//!
//! Every method is followed by draining [`Machine::poll_output`]; [`Machine::handle_timeout`]
//! is called when [`Machine::deadline`] has come.
//!
//! * Every server has a subscription of every object and a [`Mirror`] of it. What the
//!   program is told is the [`History`], which follows the primary's mirror.
//! * Requests are numbered from 1, in one row for all objects, and go through the primary.
//!   When it is lost the next one is told the number of the oldest that is not known to be
//!   applied ([`Output::Resume`]), and is asked for all from there on, in the same words:
//!   what was applied before is answered again and not applied again.

mod leaving;
mod requests;
mod server;
#[cfg(test)]
mod tests;
mod word;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use model::object::{ObjectAsk, ObjectEvent, ObjectUpdate};
use model::{ObjectKind, ObjectName, SlotName, SlotValue, Version};

use self::requests::Requests;
use self::server::{Link, Resume, Server};
use super::history::{Dirty, History, Queued};
use super::limits::{ANSWER_PATIENCE, PING_AFTER, SETUP_PATIENCE, SILENCE_MAX, WAITING_MAX};
use super::mirror::{Folded, Mirror};

pub(super) use self::word::{Full, Output, Settled, Step, StepCode, Ticket, Told};
pub use self::word::{Need, ServerState};

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    need: Need,
    phase: Phase,
    servers: Vec<Server>,
    primary: Option<usize>,
    /// The program publishes, through the primary.
    publishes: bool,
    objects: BTreeMap<ObjectName, History>,
    /// The copies of the primary that was lost last, for whoever comes next.
    last: BTreeMap<ObjectName, Mirror>,
    requests: Requests,
    output: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Setup { until: Instant },
    Running,
    Over,
}

impl Machine {
    /// A facade over so many servers, all of which are dialled at once.
    pub(super) fn new(servers: usize, need: Need, now: Instant) -> Self {
        let mut machine = Self {
            need,
            phase: Phase::Setup {
                until: now + SETUP_PATIENCE,
            },
            servers: Vec::new(),
            primary: None,
            publishes: false,
            objects: BTreeMap::new(),
            last: BTreeMap::new(),
            requests: Requests::default(),
            output: VecDeque::new(),
        };
        for server in 0..servers {
            machine.servers.push(Server {
                link: Link::Dialling,
                attempts: 0,
                answers: false,
                mirrors: BTreeMap::new(),
            });
            machine.output.push_back(Output::Dial(server));
        }
        machine
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// A server is connected.
    pub(super) fn up(&mut self, server: usize, now: Instant) {
        if self.phase == Phase::Over {
            // Too late: there is no facade any more that it could belong to.
            self.output.push_back(Output::HangUp(server));
            return;
        }
        let Some(this) = self.servers.get_mut(server) else {
            return;
        };
        this.answers = false;
        this.link = Link::Up {
            since: now,
            leaving: false,
            heard: now,
            pinged: true,
            resume: Resume::No,
        };
        // The first ping shows whether it answers any.
        self.output.push_back(Output::Ping(server));
        self.tell_server(server, ServerState::Standby);
        let objects: Vec<ObjectName> = self.objects.keys().cloned().collect();
        for object in objects {
            self.subscribe(server, &object);
        }
        if let Phase::Setup { .. } = self.phase {
            let missing = self.servers.iter().any(|s| !s.is_up());
            if !missing || self.need == Need::One {
                self.phase = Phase::Running;
                self.tell(Told::Setup { complete: true });
            }
        }
        self.leave(now);
        self.elect(now);
    }

    /// A server could not be connected to, or its connection has ended.
    pub(super) fn down(&mut self, server: usize, why: &str, now: Instant) {
        if self.phase == Phase::Over {
            return;
        }
        let Some(this) = self.servers.get_mut(server) else {
            return;
        };
        this.lost(now);
        let mirrors = std::mem::take(&mut this.mirrors);
        self.tell_server(server, ServerState::Lost(why.to_owned()));
        if self.primary == Some(server) {
            self.primary = None;
            for (object, mirror) in mirrors {
                if mirror.live {
                    self.last.insert(object, mirror);
                }
            }
            self.elect(now);
        }
    }

    /// Something came from a server; perhaps the answer to a ping.
    pub(super) fn heard(&mut self, server: usize, pong: bool, at: Instant) {
        if let Some(this) = self.servers.get_mut(server)
            && let Link::Up { heard, pinged, .. } = &mut this.link
        {
            *heard = at.max(*heard);
            *pinged = false;
            this.answers |= pong;
        }
    }

    /// A server has answered whether it continues the numbers.
    pub(super) fn resumed(&mut self, server: usize, answer: Result<(), String>, now: Instant) {
        let Some(Link::Up { resume, .. }) = self.servers.get_mut(server).map(|s| &mut s.link)
        else {
            return;
        };
        if !matches!(resume, Resume::Asked { .. }) {
            return;
        }
        let numbered = answer.is_ok();
        *resume = Resume::Done { numbered };
        if let Err(why) = answer {
            self.tell_server(server, ServerState::Unnumbered(why));
        }
        if self.primary == Some(server) {
            if numbered && let Some((object, history)) = self.objects.first_key_value() {
                self.requests.take_along(object, history, now);
            }
            let (again, heard) = self.requests.again(numbered, now);
            for request in again {
                self.output.push_back(request.output(server));
            }
            for (object, ticket) in heard {
                self.settle_send(&object, Some(ticket));
            }
            self.flush(now);
        }
    }

    /// A server says something about an object.
    pub(super) fn update(&mut self, server: usize, update: &ObjectUpdate, now: Instant) {
        let is_primary = self.primary == Some(server);
        let own = if is_primary {
            self.requests.open_write(&update.name)
        } else {
            &[]
        };
        let Some(mirror) = self
            .servers
            .get_mut(server)
            .and_then(|s| s.mirrors.get_mut(&update.name))
        else {
            return;
        };
        let folded = mirror.fold(update, own);
        for event in &update.events {
            if let ObjectEvent::Status(status) = event
                && !requests::is_of_nothing(update)
            {
                let told = Told::Status {
                    object: update.name.clone(),
                    server,
                    status: *status,
                };
                self.output.push_back(Output::Tell(told));
            }
        }
        if is_primary {
            self.follow(&update.name, Some((update, &folded)), now);
            for event in &update.events {
                if let ObjectEvent::Sent { seq } = event {
                    self.sent(&update.name, *seq);
                }
            }
            self.flush(now);
        }
    }

    /// The program wants to use an object; from now on it is told of it.
    pub(super) fn object(&mut self, name: &ObjectName, kind: ObjectKind) {
        if self.objects.contains_key(name) {
            return;
        }
        self.objects.insert(name.clone(), History::new(kind));
        for server in 0..self.servers.len() {
            if self.servers.get(server).is_some_and(Server::is_up) {
                self.subscribe(server, name);
            }
        }
    }

    /// How many objects are set up.
    pub(super) fn objects(&self) -> usize {
        self.objects.len()
    }

    /// Whether the object is set up.
    pub(super) fn has_object(&self, name: &ObjectName) -> bool {
        self.objects.contains_key(name)
    }

    /// The program wants a slot to have a value, or none.
    pub(super) fn set(
        &mut self,
        object: &ObjectName,
        slot: SlotName,
        value: Option<SlotValue>,
        ticket: Ticket,
        now: Instant,
    ) -> Result<(), Full> {
        let waiting = self.waiting();
        let Some(history) = self.objects.get_mut(object) else {
            return Err(Full);
        };
        let replaces = history.dirty.iter().any(|d| d.slot == slot);
        if waiting >= WAITING_MAX && !replaces {
            return Err(Full);
        }
        let change = Dirty {
            slot,
            value,
            ticket,
            since: now,
        };
        if let Some(before) = history.want(change) {
            self.output
                .push_back(Output::Settle(before, Settled::Replaced));
        }
        self.flush(now);
        Ok(())
    }

    /// The program sends a message to all subscribers.
    pub(super) fn send(
        &mut self,
        object: &ObjectName,
        payload: Bytes,
        ticket: Ticket,
        now: Instant,
    ) -> Result<(), Full> {
        let waiting = self.waiting();
        let Some(history) = self.objects.get_mut(object) else {
            return Err(Full);
        };
        if waiting >= WAITING_MAX {
            return Err(Full);
        }
        history.queue.push_back(Queued {
            payload,
            ticket,
            since: now,
        });
        self.flush(now);
        Ok(())
    }

    /// What the program sees of a slot: its own newest value, or what it was told.
    pub(super) fn value(&self, object: &ObjectName, slot: &SlotName) -> Option<SlotValue> {
        let history = self.objects.get(object)?;
        if let Some(dirty) = history.dirty.iter().find(|d| d.slot == *slot) {
            return dirty.value.clone();
        }
        match self.requests.wanted(object, slot) {
            Some(wanted) => wanted,
            None => history.told.get(slot).cloned(),
        }
    }

    /// All slots of an object as the program was told them.
    pub(super) fn told(
        &self,
        object: &ObjectName,
    ) -> Option<(Version, &BTreeMap<SlotName, SlotValue>)> {
        let history = self.objects.get(object)?;
        Some((history.version, &history.told))
    }

    /// The server that writes go through.
    pub(super) const fn primary(&self) -> Option<usize> {
        self.primary
    }

    /// Whether it has ended, by itself or by [`Self::close`].
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Ends everything.
    pub(super) fn close(&mut self) {
        if self.is_over() {
            return;
        }
        self.phase = Phase::Over;
        self.primary = None;
        for server in 0..self.servers.len() {
            self.output.push_back(Output::HangUp(server));
            self.tell_server(server, ServerState::Closed);
        }
        for (ticket, settled) in self.requests.abandon() {
            self.output.push_back(Output::Settle(ticket, settled));
        }
        for history in self.objects.values_mut() {
            let dirty = history.dirty.drain(..).map(|d| d.ticket);
            for ticket in dirty.chain(history.queue.drain(..).map(|q| q.ticket)) {
                self.output
                    .push_back(Output::Settle(ticket, Settled::Unreachable));
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.phase == Phase::Over {
            return None;
        }
        let setup = match self.phase {
            Phase::Setup { until } => Some(until),
            Phase::Running | Phase::Over => None,
        };
        let servers = self.servers.iter().filter_map(Server::deadline);
        let waiting = self.objects.values().flat_map(|history| {
            let dirty = history.dirty.iter().map(|d| d.since);
            dirty.chain(history.queue.iter().map(|q| q.since))
        });
        let requests = self
            .requests
            .deadline(self.primary.is_some(), self.others() > 0);
        servers
            .chain(setup)
            .chain(waiting.map(|since| since + super::limits::SETTLE_PATIENCE))
            .chain(requests)
            .min()
    }

    /// Acts upon the time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Setup { until } = self.phase
            && until <= now
        {
            self.setup_over();
        }
        if self.phase == Phase::Over {
            return;
        }
        for server in 0..self.servers.len() {
            self.look_after(server, now);
        }
        if let Some(primary) = self.primary
            && self.others() > 0
            && self.requests.overdue(now)
        {
            self.give_up(primary, "it does not answer requests", now);
        }
        for object in self.requests.merged(now) {
            self.follow(&object, None, now);
        }
        for (ticket, settled) in self.requests.expire(now) {
            self.output.push_back(Output::Settle(ticket, settled));
        }
        self.expire_waiting(now);
        self.flush(now);
    }

    fn setup_over(&mut self) {
        let complete = self.need == Need::One && self.servers.iter().any(Server::is_up);
        self.tell(Told::Setup { complete });
        if complete {
            self.phase = Phase::Running;
        } else {
            self.close();
        }
    }

    fn look_after(&mut self, server: usize, now: Instant) {
        let Some(this) = self.servers.get_mut(server) else {
            return;
        };
        match &mut this.link {
            Link::Dialling => {}
            Link::Down { again } => {
                if *again <= now {
                    this.link = Link::Dialling;
                    self.output.push_back(Output::Dial(server));
                    self.tell_server(server, ServerState::Dialling);
                }
            }
            Link::Up {
                heard,
                pinged,
                resume,
                ..
            } => {
                let silent = this.answers && *heard + SILENCE_MAX <= now;
                let mute = matches!(resume, Resume::Asked { at } if *at + ANSWER_PATIENCE <= now);
                if silent || mute {
                    self.give_up(server, "it says nothing", now);
                } else if !*pinged && *heard + PING_AFTER <= now {
                    *pinged = true;
                    self.output.push_back(Output::Ping(server));
                }
            }
        }
    }

    fn give_up(&mut self, server: usize, why: &str, now: Instant) {
        self.output.push_back(Output::HangUp(server));
        self.down(server, why, now);
    }

    fn expire_waiting(&mut self, now: Instant) {
        let late = |since: &Instant| *since + super::limits::SETTLE_PATIENCE <= now;
        let mut over = Vec::new();
        for history in self.objects.values_mut() {
            history.dirty.retain(|d| {
                let late = late(&d.since);
                over.extend(late.then_some(d.ticket));
                !late
            });
            history.queue.retain(|q| {
                let late = late(&q.since);
                over.extend(late.then_some(q.ticket));
                !late
            });
        }
        for ticket in over {
            self.output
                .push_back(Output::Settle(ticket, Settled::Unreachable));
        }
    }

    /// How many servers could take over.
    fn others(&self) -> usize {
        let up = self.servers.iter().filter(|s| s.is_up()).count();
        up.saturating_sub(usize::from(self.primary.is_some()))
    }

    fn waiting(&self) -> usize {
        self.objects
            .values()
            .map(|history| history.dirty.len() + history.queue.len())
            .sum()
    }

    fn subscribe(&mut self, server: usize, object: &ObjectName) {
        let Some(history) = self.objects.get(object) else {
            return;
        };
        let known = self
            .primary
            .and_then(|primary| self.servers.get(primary)?.mirrors.get(object))
            .filter(|mirror| mirror.live)
            .or_else(|| self.last.get(object));
        let mut mirror = known.map(Mirror::handed_on).unwrap_or_default();
        mirror.passed = history.messages;
        self.output.push_back(Output::Ask {
            server,
            object: object.clone(),
            kind: history.kind,
            version: mirror.version,
            ask: ObjectAsk::Use,
        });
        if let Some(this) = self.servers.get_mut(server) {
            this.mirrors.insert(object.clone(), mirror);
        }
    }

    /// Makes a server the primary if there is none.
    fn elect(&mut self, now: Instant) {
        if self.primary.is_some() || self.phase != Phase::Running {
            return;
        }
        // Who has the most of what the program uses; among equals the first.
        let live = |server: &Server| server.mirrors.values().filter(|m| m.live).count();
        let best = self
            .servers
            .iter()
            .enumerate()
            .filter(|(_, server)| server.is_up())
            .max_by_key(|(index, server)| (live(server), std::cmp::Reverse(*index)));
        let Some((server, _)) = best else {
            return;
        };
        self.primary = Some(server);
        if let Some(this) = self.servers.get_mut(server)
            && let Link::Up { resume, .. } = &mut this.link
        {
            *resume = Resume::Asked { at: now };
        }
        self.tell_server(server, ServerState::Primary);
        self.requests.unsent();
        let objects: Vec<ObjectName> = self.objects.keys().cloned().collect();
        for object in objects {
            self.switch(server, &object, now);
        }
        self.output.push_back(Output::Resume {
            server,
            next: self.requests.first(),
        });
    }

    fn switch(&mut self, server: usize, object: &ObjectName, now: Instant) {
        let Some(mirror) = self.servers.get(server).and_then(|s| s.mirrors.get(object)) else {
            return;
        };
        let Some(history) = self.objects.get_mut(object) else {
            return;
        };
        for payload in history.switch(mirror) {
            self.tell_send(object, payload);
        }
        self.follow(object, None, now);
    }

    /// Tells what the primary's copy has and was not told.
    fn follow(
        &mut self,
        object: &ObjectName,
        news: Option<(&ObjectUpdate, &Folded)>,
        now: Instant,
    ) {
        let Some(mirror) = self
            .primary
            .and_then(|primary| self.servers.get(primary)?.mirrors.get(object))
        else {
            return;
        };
        let Some(history) = self.objects.get_mut(object) else {
            return;
        };
        let (verdicts, settled) = match news {
            Some((update, folded)) => self.requests.answer(update, folded, now),
            None => self.requests.judge(object, mirror, now),
        };
        let open = self.requests.open_slots(object);
        let named = news.map(|(_, folded)| folded.named.as_slice());
        let cleared = news.is_some_and(|(_, folded)| folded.cleared);
        let steps = history.follow(mirror, named, cleared, verdicts, &open);
        let mut sends = Vec::new();
        for payload in news.iter().flat_map(|(_, folded)| &folded.sends) {
            if history.is_news(payload) {
                sends.push(payload.clone());
            }
        }
        if let Some(steps) = steps {
            let version = history.version;
            self.tell(Told::Sync {
                object: object.clone(),
                version,
                steps,
            });
        }
        for payload in sends {
            self.tell_send(object, payload);
        }
        for (ticket, settled) in settled {
            self.output.push_back(Output::Settle(ticket, settled));
        }
    }

    /// The primary says that our message was given out.
    fn sent(&mut self, object: &ObjectName, seq: u64) {
        let (ticket, unheard) = self.requests.sent(seq);
        if let Some(payload) = unheard {
            if let Some(history) = self.objects.get_mut(object) {
                history.keep(&payload);
            }
            self.tell(Told::Send {
                object: object.clone(),
                payload,
            });
        }
        self.settle_send(object, ticket);
    }

    fn settle_send(&mut self, object: &ObjectName, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            let version = self.objects.get(object).map(|history| history.version);
            let settled = Settled::Success(version.unwrap_or_default());
            self.output.push_back(Output::Settle(ticket, settled));
        }
    }

    fn tell_send(&mut self, object: &ObjectName, payload: Bytes) {
        let ticket = self.requests.echoed(object, &payload);
        self.settle_send(object, ticket);
        self.tell(Told::Send {
            object: object.clone(),
            payload,
        });
    }

    /// Asks for what waits, as far as the primary can be asked.
    fn flush(&mut self, now: Instant) {
        let Some(server) = self.primary else {
            return;
        };
        let Some(this) = self.servers.get(server) else {
            return;
        };
        if !matches!(
            this.link,
            Link::Up {
                resume: Resume::Done { .. },
                ..
            }
        ) {
            return;
        }
        for (object, history) in &mut self.objects {
            if history.behind {
                continue;
            }
            for request in self.requests.take(object, history, now) {
                self.output.push_back(request.output(server));
            }
        }
    }

    fn tell(&mut self, told: Told) {
        self.output.push_back(Output::Tell(told));
    }

    fn tell_server(&mut self, server: usize, state: ServerState) {
        self.tell(Told::Server { server, state });
    }
}
