//! A client of a shared object that writes down everything it asks and is told, for the
//! [`judge`](crate::judge).
//!
//! It waits for the answer to each request before it asks for the next, as a program does
//! that wants to know, and has at most one request under way.
//!
//! While a write is under way an edge holds back what others do to its slots, and with it
//! the version: what is told meanwhile belongs to the version of the answer, and is written
//! down then.
//!
//! A change by another that crosses a request looks like its refusal: nothing in the format
//! tells them apart. Where that may be, the member sends a message to all and waits for it
//! to come back; the answer has come by then.

mod telling;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use amf::Value;
use client::{
    Error, NetConnection, ObjectEvent, Options, SharedObject, SharedObjectEvents, SyncEvent, Target,
};
use model::{ObjectKind, SlotName};
use tokio::sync::oneshot;

use self::telling::{About, is_about, told, written};
use crate::judge::history::Connection;
use crate::judge::{Answer, Ask, Event, History, Object, Op, Record, Recorder, Slots};

/// How long an answer may take at all: longer than any edge of a test lets a write wait.
pub const ANSWER: Duration = Duration::from_secs(30);

/// One client with one object.
#[derive(Debug)]
pub struct Member {
    nc: NetConnection,
    so: Arc<SharedObject>,
    desk: Arc<Mutex<Desk>>,
    pen: Connection,
    client: u32,
    object: Object,
}

/// What a member was told.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The version it knows.
    pub version: u32,
    /// The slots at it.
    pub slots: Slots,
    /// Statuses, in order.
    pub statuses: Vec<String>,
    /// Messages to all, in order.
    pub messages: Vec<String>,
    /// Every version it was told, with all that was said of slots then.
    pub events: Vec<(Instant, u32, Vec<Event>)>,
    /// Why the connection ended, if it did.
    pub over: Option<String>,
}

#[derive(Debug, Default)]
struct Desk {
    seen: Seen,
    /// What was told since the request that is under way.
    held: Vec<Event>,
    /// The version that was written down last: messages that come while others are held
    /// belong to it.
    noted: u32,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    what: Ask,
    /// What was said just now, in the same message perhaps.
    status: Option<String>,
    /// What looks like the answer, and may be another's change that crossed the request.
    seeming: Option<Answer>,
    answer: oneshot::Sender<Answer>,
}

/// The method by which a member learns that everything before was answered.
const FENCE: &str = "fence";

/// How long a member waits for what looked like an answer to be followed by one, before it
/// sends another message.
const AGAIN: Duration = Duration::from_secs(3);

/// `slot` is to have `value`.
pub fn set(slot: &str, value: &str) -> Op {
    Op::Set {
        slot: slot.to_owned(),
        value: value.to_owned(),
    }
}

/// `slot` is to go.
pub fn remove(slot: &str) -> Op {
    Op::Remove {
        slot: slot.to_owned(),
    }
}

/// Whether a write was made as a whole.
pub fn is_made(answer: &Answer) -> bool {
    matches!(answer, Answer::Written { refused, .. } if refused.is_empty())
}

impl Member {
    /// Connects to an edge and uses a temporary object of the application `live`.
    ///
    /// # Errors
    /// When the connection or the use is refused.
    pub async fn join(
        edge: SocketAddr,
        name: &str,
        client: u32,
        recorder: &Recorder,
    ) -> Result<Self, Error> {
        Self::enter(edge, name, ObjectKind::Temporary, client, recorder, None).await
    }

    /// As [`Self::join`], with a persistent object.
    ///
    /// # Errors
    /// When the connection or the use is refused.
    pub async fn join_kept(
        edge: SocketAddr,
        name: &str,
        client: u32,
        recorder: &Recorder,
    ) -> Result<Self, Error> {
        Self::enter(edge, name, ObjectKind::Persistent, client, recorder, None).await
    }

    /// As this client, on a new connection to an edge; what was known must not be taken back.
    ///
    /// # Errors
    /// When the connection or the use is refused.
    pub async fn again(
        &self,
        edge: SocketAddr,
        kind: ObjectKind,
        recorder: &Recorder,
    ) -> Result<Self, Error> {
        let name = &self.object.name;
        Self::enter(edge, name, kind, self.client, recorder, Some(&self.pen)).await
    }

    async fn enter(
        edge: SocketAddr,
        name: &str,
        kind: ObjectKind,
        client: u32,
        recorder: &Recorder,
        resumes: Option<&Connection>,
    ) -> Result<Self, Error> {
        let target = Target::connection(&format!("rtmp://{edge}/live"))?;
        let (nc, _unread) = NetConnection::connect(&target, &Options::player()).await?;
        let object = Object {
            name: name.to_owned(),
            incarnation: 0,
        };
        let pen = recorder.open(client, resumes);
        let ask = pen.ask(&object, Ask::Use);
        let used = match SharedObject::connect(&nc, name, kind).await {
            Ok(used) => used,
            Err(error) => {
                pen.answer(ask, Answer::Unavailable);
                pen.close();
                return Err(error);
            }
        };
        let (so, mut events) = used;
        let first = loop {
            if let ObjectEvent::Sync(first) = events.next().await? {
                break first;
            }
        };
        let mut seen = Seen::default();
        let told = seen.fold(&first, None);
        seen.events.push((Instant::now(), first.version, told));
        let (version, slots) = (seen.version, seen.slots.clone());
        pen.answer(ask, Answer::Used { version, slots });
        let desk = Arc::new(Mutex::new(Desk {
            noted: version,
            seen,
            ..Desk::default()
        }));
        let reader = Reader {
            desk: Arc::clone(&desk),
            pen: pen.clone(),
            object: object.clone(),
        };
        tokio::spawn(reader.run(events));
        Ok(Self {
            nc,
            so: Arc::new(so),
            desk,
            pen,
            client,
            object,
        })
    }

    /// Asks for changes, as one batch, and waits for what becomes of them. They are based on
    /// what the client knows at that moment. `Undecided` when the connection ends first.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn write(&self, ops: Vec<Op>) -> Answer {
        let (sender, answer) = oneshot::channel();
        let (desk, pen, object) = (
            Arc::clone(&self.desk),
            self.pen.clone(),
            self.object.clone(),
        );
        let text = format!("client {} asked for {ops:?}", self.client);
        let asked = self.so.batch(move |remote| {
            let what = Ask::Write {
                base: Some(remote.version()),
                ops,
            };
            let mut desk = lock(&desk);
            assert!(desk.asked.is_none(), "one request at a time");
            let Ask::Write { ops, .. } = &what else {
                return Ok(());
            };
            for op in ops {
                match op {
                    Op::Set { slot, value } => {
                        remote.set(SlotName::new(slot)?, value.as_str().into())?;
                    }
                    Op::Remove { slot } => remote.remove(SlotName::new(slot)?)?,
                    Op::Clear => remote.clear(),
                }
            }
            let number = pen.ask(&object, what.clone());
            desk.asked = Some(Asked {
                number,
                what,
                status: None,
                seeming: None,
                answer: sender,
            });
            Ok(())
        });
        self.settle(&text, asked.await, answer).await
    }

    /// Gives one slot a value.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn set(&self, slot: &str, value: &str) -> Answer {
        self.write(vec![set(slot, value)]).await
    }

    /// Sends a message to all and waits until it comes back.
    ///
    /// # Panics
    /// When it does not.
    pub async fn send(&self, id: &str) -> Answer {
        let (sender, answer) = oneshot::channel();
        let what = Ask::Send { id: id.to_owned() };
        {
            let mut desk = lock(&self.desk);
            assert!(desk.asked.is_none(), "one request at a time");
            let number = self.pen.ask(&self.object, what.clone());
            desk.asked = Some(Asked {
                number,
                what,
                status: None,
                seeming: None,
                answer: sender,
            });
        }
        let asked = self.so.send("said", [Value::from(id)]).await;
        let text = format!("client {} sent {id}", self.client);
        self.settle(&text, asked, answer).await
    }

    /// Waits until the object is this client's alone, for a number of milliseconds at most.
    ///
    /// # Errors
    /// The edge's words, or why the connection failed.
    pub async fn lock(&self, lease_ms: u32) -> Result<Value, Error> {
        let ask = self.pen.ask(&self.object, Ask::Lock { lease_ms });
        let args = [
            Value::from(self.object.name.as_str()),
            f64::from(lease_ms).into(),
        ];
        let result = self.nc.call("selvage.lock", args).await;
        let answer = match &result {
            Ok(_) => Answer::Locked { token: ask },
            Err(_) => Answer::Undecided,
        };
        self.pen.answer(ask, answer);
        result
    }

    /// Gives the object back.
    ///
    /// # Errors
    /// The edge's words, or why the connection failed.
    pub async fn unlock(&self) -> Result<Value, Error> {
        let ask = self.pen.ask(&self.object, Ask::Unlock);
        let args = [Value::from(self.object.name.as_str())];
        let result = self.nc.call("selvage.unlock", args).await;
        let answer = match &result {
            Ok(Value::Boolean(true)) => Answer::Done,
            Ok(_) => Answer::NotLocked,
            Err(_) => Answer::Undecided,
        };
        self.pen.answer(ask, answer);
        result
    }

    async fn settle(
        &self,
        text: &str,
        asked: Result<(), Error>,
        answer: oneshot::Receiver<Answer>,
    ) -> Answer {
        if asked.is_err() {
            return Answer::Undecided;
        }
        let started = Instant::now();
        let mut answer = answer;
        let mut fenced: Option<Instant> = None;
        while started.elapsed() < ANSWER {
            let look = Duration::from_millis(5);
            if let Ok(answer) = tokio::time::timeout(look, &mut answer).await {
                return answer.unwrap_or(Answer::Undecided);
            }
            let seems = {
                let desk = lock(&self.desk);
                let asked = desk.asked.as_ref().filter(|asked| asked.seeming.is_some());
                asked.map(|asked| asked.number)
            };
            if let Some(number) = seems
                && fenced.is_none_or(|at| at.elapsed() > AGAIN)
            {
                fenced = Some(Instant::now());
                // The connection may have ended, which is told otherwise.
                let _ = self.so.send(FENCE, [fence(number)]).await;
            }
        }
        panic!(
            "{text} and was not answered for {ANSWER:?}; it has seen {:?}",
            self.look(Clone::clone)
        );
    }

    /// Looks at everything it was told so far.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&lock(&self.desk).seen)
    }

    /// The version it knows.
    pub fn version(&self) -> u32 {
        self.look(|seen| seen.version)
    }

    /// What it knows of a slot.
    pub fn slot(&self, slot: &str) -> Option<String> {
        self.look(|seen| seen.slots.get(slot).cloned())
    }

    /// Why its connection ended, if it did.
    pub fn over(&self) -> Option<String> {
        self.look(|seen| seen.over.clone())
    }

    /// Which client it is.
    pub fn client(&self) -> u32 {
        self.client
    }

    /// The name of its object.
    pub fn object(&self) -> &str {
        &self.object.name
    }

    /// Leaves, in good order.
    pub async fn leave(self) {
        self.hang_up().await;
    }

    /// Leaves, in good order; what it has seen can still be looked at.
    pub async fn hang_up(&self) {
        self.pen.close();
        let _already_over = self.nc.close().await;
    }
}

/// Waits until all of these know the same version.
///
/// # Panics
/// When they do not get there.
pub async fn until_level(members: &[&Member]) {
    let versions = || -> Vec<u32> { members.iter().map(|member| member.version()).collect() };
    let started = Instant::now();
    loop {
        let versions = versions();
        if versions.windows(2).all(|two| two[0] == two[1]) {
            return;
        }
        assert!(
            started.elapsed() < ANSWER,
            "the clients stay at the versions {versions:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The same history, with the versions of writes as others saw them. An edge that was attached
/// anew answers with the object's newest version, which may be later than the one that the
/// write made; whoever was told of the write tells which that was.
#[must_use]
pub fn with_exact_versions(mut history: History) -> History {
    let mut first: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut asked: BTreeMap<u64, Vec<(String, String)>> = BTreeMap::new();
    for record in &history.records {
        match record {
            Record::Seen {
                version, events, ..
            } => {
                for event in events {
                    if let Event::Set { slot, value, .. } = event {
                        let seen = first.entry((slot.clone(), value.clone()));
                        let seen = seen.or_insert(*version);
                        *seen = (*seen).min(*version);
                    }
                }
            }
            Record::Answer {
                answer: Answer::Used { version, slots },
                ..
            } => {
                for (slot, value) in slots {
                    let seen = first.entry((slot.clone(), value.clone()));
                    let seen = seen.or_insert(*version);
                    *seen = (*seen).min(*version);
                }
            }
            Record::Ask {
                ask,
                what: Ask::Write { ops, .. },
                ..
            } => {
                let sets = ops.iter().filter_map(|op| match op {
                    Op::Set { slot, value } => Some((slot.clone(), value.clone())),
                    Op::Remove { .. } | Op::Clear => None,
                });
                asked.insert(*ask, sets.collect());
            }
            Record::Ask { .. }
            | Record::Answer { .. }
            | Record::Open { .. }
            | Record::Close { .. } => {}
        }
    }
    for record in &mut history.records {
        if let Record::Answer {
            ask,
            answer: Answer::Written { version, .. },
            ..
        } = record
        {
            let sets = asked.get(ask).into_iter().flatten();
            let seen = sets.filter_map(|set| first.get(set)).min();
            *version = seen.copied().unwrap_or(*version).min(*version);
        }
    }
    history
}

/// What tells the fence of one request from all others.
fn fence(number: u64) -> Value {
    format!("fence {number}").as_str().into()
}

struct Reader {
    desk: Arc<Mutex<Desk>>,
    pen: Connection,
    object: Object,
}

impl Reader {
    async fn run(self, mut events: SharedObjectEvents) {
        let over = loop {
            match events.next().await {
                Ok(event) => self.hear(event),
                Err(error) => break error.to_string(),
            }
        };
        let mut desk = lock(&self.desk);
        desk.seen.over = Some(over);
        // Whoever waits is told that it is undecided.
        desk.asked = None;
        drop(desk);
        self.pen.close();
    }

    fn hear(&self, event: ObjectEvent) {
        let mut desk = lock(&self.desk);
        let desk = &mut *desk;
        match event {
            ObjectEvent::Sync(sync) => {
                let told = desk.seen.fold(&sync, desk.asked.as_ref());
                desk.seen
                    .events
                    .push((Instant::now(), sync.version, told.clone()));
                desk.held.extend(told);
                let Some(mut asked) = desk.asked.take() else {
                    self.note(desk);
                    return;
                };
                match (is_about(&asked.what, &sync), asked.status.take().as_deref()) {
                    (About::Answer, None) => {
                        let answer = written(&asked.what, &sync);
                        self.answer(desk, asked, answer);
                        return;
                    }
                    (About::Slots | About::Answer, Some("SharedObject.Undecided")) => {
                        self.answer(desk, asked, Answer::Undecided);
                        return;
                    }
                    (About::Slots | About::Answer, Some(_)) => {
                        self.answer(desk, asked, Answer::Unavailable);
                        return;
                    }
                    (About::Slots, None) => asked.seeming = Some(written(&asked.what, &sync)),
                    (About::Others, _) => {}
                }
                desk.asked = Some(asked);
            }
            ObjectEvent::Message { handler, args } if handler == FENCE => {
                // One for an earlier request may come back late.
                let own = |asked: &mut Asked| {
                    asked.seeming.is_some() && args.first() == Some(&fence(asked.number))
                };
                if let Some(asked) = desk.asked.take_if(own) {
                    let answer = asked.seeming.clone().unwrap_or(Answer::Undecided);
                    self.answer(desk, asked, answer);
                }
            }
            ObjectEvent::Message { args, .. } => {
                let id = args.first().and_then(Value::as_str).unwrap_or("?");
                let id = id.to_owned();
                let event = Event::Send { id: id.clone() };
                self.pen.seen(&self.object, desk.noted, vec![event]);
                desk.seen.messages.push(id.clone());
                let own = Ask::Send { id };
                if let Some(asked) = desk.asked.take_if(|asked| asked.what == own) {
                    self.answer(desk, asked, Answer::Done);
                }
            }
            ObjectEvent::Status { code } => {
                desk.seen.statuses.push(code.clone());
                let Some(mut asked) = desk.asked.take() else {
                    return;
                };
                // A write's slots follow in the same message; others have none.
                let told = matches!(&asked.what, Ask::Write { ops, .. }
                    if ops.iter().any(|op| *op != Op::Clear));
                if told {
                    asked.status = Some(code);
                    desk.asked = Some(asked);
                } else if code == "SharedObject.Undecided" {
                    self.answer(desk, asked, Answer::Undecided);
                } else {
                    self.answer(desk, asked, Answer::Unavailable);
                }
            }
        }
    }

    /// Writes down what is held.
    fn note(&self, desk: &mut Desk) {
        let held = std::mem::take(&mut desk.held);
        desk.noted = desk.seen.version;
        self.pen.seen(&self.object, desk.seen.version, held);
    }

    fn answer(&self, desk: &mut Desk, asked: Asked, answer: Answer) {
        self.note(desk);
        self.pen.answer(asked.number, answer.clone());
        // Whoever asked may have given up.
        let _ = asked.answer.send(answer);
    }
}

impl Seen {
    /// Takes in what a message says; gives it in the judge's words.
    fn fold(&mut self, sync: &SyncEvent, asked: Option<&Asked>) -> Vec<Event> {
        self.version = sync.version;
        let events = sync.list.iter().map(|change| told(change, asked));
        let events: Vec<Event> = events.collect();
        for event in &events {
            match event {
                Event::Clear => self.slots.clear(),
                Event::Set { slot, value, .. } => {
                    self.slots.insert(slot.clone(), value.clone());
                }
                Event::Remove { slot } => {
                    self.slots.remove(slot);
                }
                Event::Send { .. } => {}
            }
        }
        events
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}
