//! A client's SharedObjects: what it asks goes to the task that speaks to the replicated
//! log, what it is told comes from there.
//!
//! What all subscribers are told is drawn once per shard and encoding ([`Drawn`]). A client
//! whose socket does not keep up is told of each object what is new when there is room
//! ([`Collapse`]); it holds nobody else.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amf::Value;
use bytes::Bytes;
use ledger::replica::{Access, CallId, CallResult, Subscriber, SubscriberId};
use model::object::{ObjectAsk, ObjectEvent, ObjectUpdate};
use model::{AppInstance, ObjectKey, ObjectKind, ObjectName, Policy, SessionId, Version};
use session::event::ObjectEncoding;
use session::object::{Collapse, ObjectAccess, ObjectRequest, Pressure};
use session::{Connect, Reply, RequestId};

use super::Connection;
use super::state::{Ending, State};
use crate::config::Conflict;
use crate::limits::{OBJECTS_HIGH_WATER, OUTBOX_MAX};
use crate::shard::Shard;
use crate::shared::ToShared;

/// What a client has to do with objects.
pub(super) struct Objects {
    /// Where it is connected.
    at: Option<AppInstance>,
    policy: Policy,
    session: SessionId,
    durable: bool,
    /// It asked for something once.
    spoke: bool,
    /// What is under way, oldest first.
    waiting: VecDeque<Waiting>,
    /// How many that may be.
    waiting_max: usize,
    /// What it has asked to use, and has no answer about. Whoever asks twice gets one answer:
    /// it tells of the whole object, and a question is a few bytes.
    asking: BTreeSet<ObjectName>,
    /// How often it may still say which is its next request, and since when it counts.
    resumes: (u32, Option<Instant>),
    /// What it uses, and what it may do with it. The session bounds how many.
    uses: BTreeMap<ObjectName, Access>,
    /// What it is to be told when its socket has room.
    behind: BTreeMap<ObjectName, Collapse>,
}

/// Something that the client asked.
struct Waiting {
    since: Instant,
    /// Set when it is a message to all, which comes back as it is; anything else is answered.
    message: Option<Bytes>,
}

impl Objects {
    pub(super) fn new(session: SessionId) -> Self {
        Self {
            at: None,
            policy: Policy::default(),
            session,
            durable: false,
            spoke: false,
            waiting: VecDeque::new(),
            waiting_max: usize::MAX,
            asking: BTreeSet::new(),
            resumes: (RESUMES_MAX, None),
            uses: BTreeMap::new(),
            behind: BTreeMap::new(),
        }
    }

    /// Whether the log's task knows of the client.
    pub(super) fn spoke(&self) -> bool {
        self.spoke
    }

    /// Whether so much is under way that the client is not read.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.waiting_max
    }

    /// Who a publisher is: what it says, or the session that it brought.
    pub(super) fn token(&self, said: Bytes) -> Bytes {
        if said.is_empty() && self.durable {
            return Bytes::copy_from_slice(&self.session.0.to_be_bytes());
        }
        said
    }

    /// When [`Self::forget_before`] is to be called, if the client is held.
    pub(super) fn wait_ends(&self, wait: Duration) -> Option<Instant> {
        let first = self.waiting.front().filter(|_| self.is_full())?;
        Some(first.since + wait + SLACK)
    }

    /// What was asked so long ago is answered, or will never be: messages have no answer
    /// when their sender does not use the object.
    pub(super) fn forget_before(&mut self, now: Instant, wait: Duration) {
        while self
            .waiting
            .front()
            .is_some_and(|asked| now >= asked.since + wait + SLACK)
        {
            self.waiting.pop_front();
        }
    }

    /// Whether the client may go on in this session.
    fn may_resume(&mut self, session: SessionId, now: Instant) -> Result<(), &'static str> {
        if self.durable && session != self.session {
            return Err("this connection speaks in another session");
        }
        let (left, since) = &mut self.resumes;
        let begun = *since.get_or_insert(now);
        let seconds = now.saturating_duration_since(begun).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX);
            *left = left.saturating_add(more).min(RESUMES_MAX);
            *since = Some(now);
        }
        *left = left
            .checked_sub(1)
            .ok_or("the client begins anew too often")?;
        Ok(())
    }

    /// The client is answered.
    fn answered(&mut self, shard: &Shard) {
        let first = self.waiting.iter().position(|one| one.message.is_none());
        if let Some(asked) = self.waiting.remove(first.unwrap_or_default()) {
            let took = asked.since.elapsed().as_secs_f64();
            shard.counts.requests.observe(took);
        }
    }

    /// All are told something, perhaps what this client said.
    fn heard(&mut self, update: &ObjectUpdate) {
        if self.waiting.is_empty() {
            return;
        }
        for event in &update.events {
            if let ObjectEvent::Send(payload) = event
                && let Some(own) = self
                    .waiting
                    .iter()
                    .position(|one| one.message.as_ref() == Some(payload))
            {
                self.waiting.remove(own);
            }
        }
    }
}

/// What is answered is answered within the time for it, and this.
const SLACK: Duration = Duration::from_millis(500);

/// The lease of a lock whose client did not say for how long.
const LEASE_MS: u32 = 10_000;

/// The longest lease of a lock: who holds it stops everybody else's writes.
const LEASE_MS_MAX: u32 = 60_000;

/// How often in succession a client may say which is its next request; it may once a second
/// in the long run. One that goes on at another server says it once.
const RESUMES_MAX: u32 = 8;

/// The call whose asker wants no answer.
const UNASKED: CallId = CallId(u64::MAX);

impl State {
    /// The client is accepted.
    pub(super) fn begin_objects(&mut self, connect: &Connect, shard: &Shard) {
        let settings = &shard.settings.objects;
        let app = connect.at.app.as_str();
        self.objects.at = Some(connect.at.clone());
        self.objects.waiting_max = settings.under_way;
        self.objects.policy = match settings.policy {
            Conflict::LastWriterWins => Policy::LastWriterWins,
            Conflict::Optimistic if settings.last_writer_wins.iter().any(|a| a == app) => {
                Policy::LastWriterWins
            }
            Conflict::Optimistic => Policy::Optimistic,
        };
        if let Some(session) = connect.session {
            self.objects.session = session;
            self.objects.durable = true;
        }
        self.session
            .set_object_access(settings.read.clone(), settings.write.clone());
    }

    pub(super) fn ask_object(
        &mut self,
        own: &Rc<Connection>,
        shard: &Rc<Shard>,
        mut request: Box<ObjectRequest>,
        now: Instant,
    ) {
        let Some(at) = self.objects.at.clone() else {
            return;
        };
        let asking = &mut self.objects.asking;
        request.asks.retain(|ask| match ask {
            ObjectAsk::Use => asking.insert(request.name.clone()),
            ObjectAsk::Release => {
                asking.remove(&request.name);
                true
            }
            ObjectAsk::Write(_) | ObjectAsk::Send(_) => true,
        });
        if request.asks.is_empty() {
            return;
        }
        for ask in &request.asks {
            let mut wait = |message| {
                let since = now;
                self.objects.waiting.push_back(Waiting { since, message });
            };
            match ask {
                ObjectAsk::Use => {
                    let access = Access {
                        read: request.access.read,
                        write: request.access.write,
                    };
                    wait(None);
                    self.objects.uses.insert(request.name.clone(), access);
                }
                ObjectAsk::Release => {
                    self.objects.uses.remove(&request.name);
                    self.objects.behind.remove(&request.name);
                }
                ObjectAsk::Write(_) => wait(None),
                ObjectAsk::Send(payload) => wait(Some(payload.clone())),
            }
        }
        let key = ObjectKey {
            at,
            name: request.name.clone(),
        };
        let (by, policy) = (self.subscriber(own), self.objects.policy);
        let trace = self.traces.writes(&request, &key, now);
        shard.ways.shared.send(ToShared::Ask {
            by,
            key,
            request,
            policy,
            trace,
        });
    }

    pub(super) fn resume_objects(
        &mut self,
        own: &Rc<Connection>,
        shard: &Rc<Shard>,
        request: Option<RequestId>,
        (session, next): (SessionId, u64),
        now: Instant,
    ) {
        if let Err(why) = self.objects.may_resume(session, now) {
            match request {
                Some(request) => self.reply(request, Reply::Failed(why.to_owned()), now),
                None => self.end(Ending::Broken(why.into())),
            }
            return;
        }
        self.objects.session = session;
        self.objects.durable = true;
        let client = self.subscriber(own).id;
        shard.ways.shared.send(ToShared::Resume {
            client,
            session,
            next,
        });
        if let Some(request) = request {
            self.reply(request, Reply::Result(Value::Boolean(true)), now);
        }
    }

    /// `selvage.lock(name, leaseMs)` and `selvage.unlock(name)`. Says whether it was one of
    /// them.
    pub(super) fn call_object(
        &mut self,
        own: &Rc<Connection>,
        shard: &Rc<Shard>,
        (request, name, args): (Option<RequestId>, &str, &[Value]),
        now: Instant,
    ) -> bool {
        let lock = match name {
            "selvage.lock" => true,
            "selvage.unlock" => false,
            _ => return false,
        };
        let object = args.first().and_then(Value::as_str).map(ObjectName::new);
        let (Some(Ok(object)), Some(at)) = (object, self.objects.at.clone()) else {
            return false;
        };
        let mut phase = self.traces.call(name);
        let name = object;
        // Who does not use it is told so, whatever he may do with it.
        let access = self
            .objects
            .uses
            .get(&name)
            .copied()
            .unwrap_or(Access::FULL);
        let by = self.subscriber(own);
        let key = ObjectKey { at, name };
        phase.show("selvage.object.key", &key);
        let trace = phase.sampled().map(|place| place.text());
        let trace = trace.map_or_else(Bytes::new, Bytes::from);
        if let Some(request) = request {
            self.traces.called(request, phase);
        }
        let call = request.map_or(UNASKED, |request| CallId(request.0));
        if call == UNASKED {
            // The session bounds the calls that it answers, and nobody else these.
            let (since, message) = (now, None);
            self.objects.waiting.push_back(Waiting { since, message });
        }
        shard.ways.shared.send(if lock {
            let lease = args.get(1).and_then(Value::as_f64);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, and is bounded"
            )]
            let lease_ms = lease.map_or(LEASE_MS, |ms| (ms as u32).clamp(1, LEASE_MS_MAX));
            ToShared::Lock {
                by,
                key,
                access,
                lease_ms,
                call,
                trace,
            }
        } else {
            ToShared::Unlock {
                by,
                key,
                call,
                trace,
            }
        });
        true
    }

    fn subscriber(&mut self, own: &Rc<Connection>) -> Subscriber {
        self.objects.spoke = true;
        Subscriber {
            id: SubscriberId(own.number),
            session: self.objects.session,
            durable: self.objects.durable,
        }
    }

    /// Tells the client what it is behind with, if there is room.
    pub(super) fn flush_objects(&mut self) {
        while self.waiting() < OBJECTS_HIGH_WATER
            && let Some((_, mut behind)) = self.objects.behind.pop_first()
        {
            if let Some(update) = behind.take() {
                self.session.handle_object(&update, Instant::now());
                self.pass_messages();
            }
        }
    }

    /// Whether what is to be said about an object must wait behind what waits already.
    fn is_behind(&self, name: &ObjectName) -> bool {
        self.waiting() >= OBJECTS_HIGH_WATER || self.objects.behind.contains_key(name)
    }
}

impl Connection {
    /// Marks the client as told something; says whether that is news.
    pub(crate) fn touch(&self) -> bool {
        !self.touched.replace(true)
    }

    /// Writes what the client was told.
    pub(crate) fn pump_touched(self: &Rc<Self>, shard: &Rc<Shard>) {
        self.touched.set(false);
        self.pump_from_walk(shard);
        if self.state.borrow().ending.is_some() {
            self.wake.notify_one();
        }
    }

    /// What this client alone is told: what it asked for is done, or is not.
    pub(crate) fn answer(self: &Rc<Self>, shard: &Rc<Shard>, update: &ObjectUpdate) {
        let mut state = self.state.borrow_mut();
        let slept = !state.wants_input();
        state.objects.answered(shard);
        state.traces.answered(update);
        let used =
            |event: &ObjectEvent| matches!(event, ObjectEvent::UseSuccess | ObjectEvent::Status(_));
        if update.events.iter().any(used) {
            state.objects.asking.remove(&update.name);
        }
        if state.is_behind(&update.name) {
            let behind = state.objects.behind.entry(update.name.clone());
            let pressure = behind.or_default().push_answer(update.clone());
            self.relieve(shard, &mut state, update, pressure);
        } else {
            let now = Instant::now();
            state.session.handle_object(update, now);
            state.pass_messages();
        }
        if slept && state.wants_input() {
            self.wake.notify_one();
        }
    }

    /// What all subscribers are told.
    pub(crate) fn tell(self: &Rc<Self>, shard: &Rc<Shard>, drawn: &Drawn) {
        let mut state = self.state.borrow_mut();
        let slept = !state.wants_input();
        state.objects.heard(&drawn.update);
        state.traces.heard(&drawn.update);
        if state.is_behind(&drawn.update.name) {
            let behind = state.objects.behind.entry(drawn.update.name.clone());
            let pressure = behind.or_default().push((*drawn.update).clone());
            self.relieve(shard, &mut state, &drawn.update, pressure);
        } else {
            let encoding = state.session.object_encoding();
            let now = Instant::now();
            state
                .session
                .handle_object_body(drawn.body(encoding), encoding, now);
            state.pass_messages();
        }
        if slept && state.wants_input() {
            self.wake.notify_one();
        }
    }

    /// A client that is too far behind is told the whole object instead, or is closed.
    fn relieve(
        &self,
        shard: &Rc<Shard>,
        state: &mut State,
        update: &ObjectUpdate,
        pressure: Pressure,
    ) {
        let behind = state.objects.behind.values().map(Collapse::bytes);
        if behind.sum::<usize>() > OUTBOX_MAX {
            state.end(Ending::Broken(
                "the client does not take its objects".into(),
            ));
            return;
        }
        match pressure {
            Pressure::Fine => {}
            Pressure::Resync => self.ask_again(shard, state, update.name.clone(), update.kind),
            Pressure::Overflow => {
                state.end(Ending::Broken(
                    "the client does not take its objects".into(),
                ));
            }
        }
    }

    /// Asks for the whole object, as if the client had begun to use it anew.
    fn ask_again(&self, shard: &Rc<Shard>, state: &State, name: ObjectName, kind: ObjectKind) {
        let Some(at) = state.objects.at.clone() else {
            return;
        };
        let request = ObjectRequest {
            name: name.clone(),
            kind,
            version: Version(0),
            access: ObjectAccess {
                read: true,
                write: false,
            },
            asks: vec![ObjectAsk::Use],
        };
        shard.ways.shared.send(ToShared::Ask {
            by: Subscriber {
                id: SubscriberId(self.number),
                session: state.objects.session,
                durable: state.objects.durable,
            },
            key: ObjectKey { at, name },
            request: Box::new(request),
            policy: state.objects.policy,
            trace: Bytes::new(),
        });
    }

    /// The numbers of the client's requests cannot be kept any more: it must come back and
    /// say which is its next.
    pub(crate) fn dismiss(self: &Rc<Self>) {
        let why = "too many of the client's requests wait";
        self.state.borrow_mut().end(Ending::Broken(why.into()));
        self.wake.notify_one();
    }

    /// A lock or an unlock is answered.
    pub(crate) fn called(self: &Rc<Self>, shard: &Rc<Shard>, call: CallId, result: CallResult) {
        if call == UNASKED {
            let mut state = self.state.borrow_mut();
            let slept = !state.wants_input();
            state.objects.answered(shard);
            if slept && state.wants_input() {
                self.wake.notify_one();
            }
            return;
        }
        let failed = |why: &str| Reply::Failed(why.to_owned());
        let reply = match result {
            CallResult::Locked { .. } | CallResult::Unlocked => Reply::Result(Value::Boolean(true)),
            CallResult::NotLocked => Reply::Result(Value::Boolean(false)),
            CallResult::NotSubscribed => failed("The object is not in use."),
            CallResult::NoAccess => failed("No access."),
            CallResult::Full => failed("Too many wait for the object."),
            CallResult::Unavailable => failed("No majority of the origins is reachable."),
            CallResult::Undecided => failed("It was not decided in time."),
        };
        let wrong = match result {
            CallResult::Locked { .. } | CallResult::Unlocked => None,
            CallResult::NotLocked => Some("not_locked"),
            CallResult::NotSubscribed => Some("not_subscribed"),
            CallResult::NoAccess => Some("no_access"),
            CallResult::Full => Some("full"),
            CallResult::Unavailable => Some("unavailable"),
            CallResult::Undecided => Some("undecided"),
        };
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        state.traces.returned(RequestId(call.0), wrong);
        state.reply(RequestId(call.0), reply, now);
        state.settle(self, shard, now);
        drop(state);
        self.wake.notify_one();
    }
}

/// An update and its bodies, each drawn when the first client needs it.
pub(crate) struct Drawn {
    update: Arc<ObjectUpdate>,
    amf0: OnceCell<Bytes>,
    amf3: OnceCell<Bytes>,
}

impl Drawn {
    /// Nothing is drawn yet.
    pub(crate) fn new(update: Arc<ObjectUpdate>) -> Self {
        Self {
            update,
            amf0: OnceCell::new(),
            amf3: OnceCell::new(),
        }
    }

    /// How long the longest body is that was drawn.
    pub(crate) fn bytes(&self) -> usize {
        let drawn = [&self.amf0, &self.amf3].into_iter();
        drawn
            .filter_map(OnceCell::get)
            .map(Bytes::len)
            .max()
            .unwrap_or(0)
    }

    fn body(&self, encoding: ObjectEncoding) -> Bytes {
        let cell = match encoding {
            ObjectEncoding::Amf0 => &self.amf0,
            ObjectEncoding::Amf3 => &self.amf3,
        };
        cell.get_or_init(|| session::object::body(&self.update, encoding))
            .clone()
    }
}
