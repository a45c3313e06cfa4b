//! Clients that share objects as long as they are told to, at whichever edge takes them,
//! and write down everything they ask and are told.
//!
//! A client uses some of the objects, each on a connection of its own, and asks of all of
//! them at once; of one object it asks one thing at a time. A facade
//! ([`MultiConnection`](client::MultiConnection)) has all edges at once.
//!
//! What a client asks follows from the seed; which edge it is at, and when, does not.
//! Every value is unique. A removal or a clear comes with a value of the client's own in the
//! same batch, so that others tell which version it was made in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::ObjectKind;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::facade::Facade;
use super::objects::{Member, remove, set};
use crate::dice::Dice;
use crate::judge::{Answer, Op, Recorder};

/// How many of which.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Clients.
    pub clients: usize,
    /// As many of them are facades.
    pub facades: usize,
    /// Objects.
    pub objects: usize,
    /// Objects that each client uses.
    pub each: usize,
    /// Milliseconds that a client thinks between an answer and the next request, at most.
    pub think: u64,
}

/// Clients at work.
#[derive(Debug)]
pub struct Crowd {
    shared: Arc<Shared>,
    members: Vec<JoinHandle<Option<Member>>>,
    facades: Vec<JoinHandle<Facade>>,
}

/// Those that are still there at the end.
#[derive(Debug)]
pub struct Remaining {
    /// By object.
    pub members: BTreeMap<String, Vec<Member>>,
    /// The facades.
    pub facades: Vec<Facade>,
}

/// What clients share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    pub(super) edges: Vec<SocketAddr>,
    pub(super) recorder: Recorder,
    pub(super) tally: Tally,
    pub(super) complaints: Mutex<Vec<String>>,
    size: Size,
    seed: u64,
    /// Every connection is another client to the judge.
    seats: AtomicU32,
}

/// What became of requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Writes that were made, at least in part.
    pub made: AtomicUsize,
    /// Writes that were refused because of others' writes.
    pub refused: AtomicUsize,
    /// Requests that were certainly not done.
    pub unavailable: AtomicUsize,
    /// Requests that may have been done.
    pub undecided: AtomicUsize,
    /// Messages that came back.
    pub sent: AtomicUsize,
    /// Locks that were held.
    pub locked: AtomicUsize,
    /// Requests of facades that were done.
    pub faced: AtomicUsize,
    /// Connections after the first.
    pub reconnects: AtomicUsize,
}

/// To the judge, facades are clients with this number and those above it.
pub const FACADES_FROM: u32 = 1 << 20;

/// How long a lock holds at most.
const LEASE_MS: u32 = 1_000;

/// How long the patient wait for a lock: many may be before them, and faults besides.
const LOCK_PATIENCE: Duration = Duration::from_secs(40);

/// How long clients try to come back when nothing is wrong any more.
const BACK_PATIENCE: Duration = Duration::from_secs(30);

/// How long a client that leaves waits for its goodbye to be sent.
const GOODBYE: Duration = Duration::from_millis(200);

/// Slots of each object that everybody writes.
const COMMON_SLOTS: usize = 3;

impl Crowd {
    /// Begins.
    #[must_use]
    pub fn start(size: Size, edges: Vec<SocketAddr>, recorder: &Recorder, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            edges,
            recorder: recorder.clone(),
            tally: Tally::default(),
            complaints: Mutex::default(),
            size,
            seed,
            seats: AtomicU32::new(0),
        });
        let mut crowd = Self {
            shared: Arc::clone(&shared),
            members: Vec::new(),
            facades: Vec::new(),
        };
        for client in 0..size.clients {
            // Each uses some that are next to each other, so all are used equally.
            let first = client * size.each;
            let objects: Vec<String> = (first..first + size.each)
                .map(|object| object_name(object % size.objects))
                .collect();
            if client < size.facades {
                let dice = Dice::new(seed, u64::try_from(client).unwrap_or_default());
                let facade = Facade::run(Arc::clone(&shared), client, objects, dice);
                crowd.facades.push(tokio::spawn(facade));
            } else {
                for object in objects {
                    let life = Life::new(Arc::clone(&shared), client, object);
                    crowd.members.push(tokio::spawn(life.run()));
                }
            }
        }
        crowd
    }

    /// What became of requests so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// What clients complain about: that they were not answered, or cannot come back.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let complaints = self.shared.complaints.lock();
        complaints.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets everybody end what is under way.
    ///
    /// # Errors
    /// Who does not end, or has a fault of its own.
    pub async fn stop(&mut self, patience: Duration) -> Result<Remaining, String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut remaining = Remaining {
            members: BTreeMap::new(),
            facades: Vec::new(),
        };
        let deadline = tokio::time::Instant::now() + patience;
        for task in self.members.drain(..) {
            let member = ended(tokio::time::timeout_at(deadline, task).await)?;
            if let Some(member) = member {
                let object = member.object().to_owned();
                remaining.members.entry(object).or_default().push(member);
            }
        }
        for task in self.facades.drain(..) {
            let facade = ended(tokio::time::timeout_at(deadline, task).await)?;
            remaining.facades.push(facade);
        }
        Ok(remaining)
    }
}

/// What the objects are called.
#[must_use]
pub fn object_name(number: usize) -> String {
    format!("object-{number}")
}

fn ended<T>(
    task: Result<Result<T, tokio::task::JoinError>, tokio::time::error::Elapsed>,
) -> Result<T, String> {
    match task {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(fault)) => Err(format!("a client failed: {fault}")),
        Err(_) => Err("a client was not answered after everything was well again".to_owned()),
    }
}

impl Shared {
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn complain(&self, text: String) {
        let complaints = self.complaints.lock();
        complaints
            .unwrap_or_else(PoisonError::into_inner)
            .push(text);
    }

    /// The number of a client's seat at an object.
    pub(super) fn seat(&self) -> u32 {
        self.seats.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) async fn think(&self, dice: &mut Dice) {
        let pause = dice.millis(0, self.size.think);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) fn count(&self, answer: &Answer) {
        let tally = &self.tally;
        let counter = match answer {
            Answer::Unavailable => &tally.unavailable,
            Answer::Undecided => &tally.undecided,
            Answer::Done => &tally.sent,
            Answer::Used { .. }
            | Answer::Written { .. }
            | Answer::Made { .. }
            | Answer::Locked { .. }
            | Answer::NotLocked => &tally.made,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One client at one object.
struct Life {
    shared: Arc<Shared>,
    client: usize,
    seat: u32,
    object: String,
    dice: Dice,
    /// Who does not wait long for an answer goes elsewhere instead.
    patience: Option<Duration>,
    values: usize,
}

/// What a client does next.
enum Act {
    Write(Vec<Op>),
    Send,
    /// It locks the object, writes, and unlocks.
    Hold(Vec<Op>),
    /// It goes to another edge.
    Move,
}

impl Life {
    fn new(shared: Arc<Shared>, client: usize, object: String) -> Self {
        let seat = shared.seat();
        let mut dice = Dice::new(shared.seed, 1_000 + u64::from(seat));
        let patience = client.is_multiple_of(3).then(|| dice.millis(1_000, 4_000));
        Self {
            shared,
            client,
            seat,
            object,
            dice,
            patience,
            values: 0,
        }
    }

    async fn run(mut self) -> Option<Member> {
        let mut member = self.come(None).await?;
        while !self.shared.stopped() {
            if member.over().is_some() {
                member = self.come(Some(member)).await?;
            }
            let act = self.next();
            let moves = matches!(act, Act::Move);
            let done = match self.patience {
                Some(patience) => timeout(patience, self.act(&member, act)).await.is_ok(),
                None => {
                    self.act(&member, act).await;
                    true
                }
            };
            if !done || moves {
                member = self.come(Some(member)).await?;
            }
            let shared = Arc::clone(&self.shared);
            shared.think(&mut self.dice).await;
        }
        // Of a connection that was lost in silence one only hears when one says something.
        loop {
            if member.over().is_none() {
                let last = self.value();
                let answer = member.set(&self.own(), &last).await;
                self.shared.count(&answer);
                if member.over().is_none() {
                    return Some(member);
                }
            }
            member = self.come(Some(member)).await?;
        }
    }

    /// Uses the object at some edge that takes the client, from where it was before if there
    /// was one. `None` when none does although nothing is wrong any more.
    async fn come(&mut self, before: Option<Member>) -> Option<Member> {
        let shared = Arc::clone(&self.shared);
        let mut gone = before;
        if let Some(before) = &mut gone {
            shared.tally.reconnects.fetch_add(1, Ordering::Relaxed);
            let _lost = timeout(GOODBYE, before.hang_up()).await;
        }
        let mut well = None;
        loop {
            let edge = *self.dice.pick(&shared.edges);
            let entered = async {
                match &gone {
                    Some(before) => {
                        before
                            .again(edge, ObjectKind::Persistent, &shared.recorder)
                            .await
                    }
                    None => {
                        Member::join_kept(edge, &self.object, self.seat, &shared.recorder).await
                    }
                }
            };
            match entered.await {
                Ok(member) => return Some(member),
                Err(error) if shared.stopped() => {
                    let since: &Instant = well.get_or_insert_with(Instant::now);
                    if since.elapsed() > BACK_PATIENCE {
                        shared.complain(format!(
                            "client {} cannot use {} although everything is well: {error}",
                            self.client, self.object
                        ));
                        return None;
                    }
                }
                Err(_) => {}
            }
            tokio::time::sleep(self.dice.millis(20, 200)).await;
        }
    }

    async fn act(&mut self, member: &Member, act: Act) {
        let tally = &self.shared.tally;
        let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
        match act {
            Act::Write(ops) => {
                let steps = ops.len();
                let answer = member.write(ops).await;
                if matches!(&answer, Answer::Written { refused, .. } if refused.len() == steps) {
                    count(&tally.refused);
                } else {
                    self.shared.count(&answer);
                }
            }
            Act::Send => {
                let id = self.value();
                let answer = member.send(&id).await;
                self.shared.count(&answer);
            }
            Act::Hold(ops) => {
                let held = timeout(LOCK_PATIENCE, member.lock(LEASE_MS)).await;
                match held {
                    Ok(Ok(_)) => count(&tally.locked),
                    Ok(Err(_)) => count(&tally.undecided),
                    Err(_) => {
                        self.shared.complain(format!(
                            "client {} waited for the lock of {} for {LOCK_PATIENCE:?}",
                            self.client, self.object
                        ));
                        return;
                    }
                };
                let answer = member.write(ops).await;
                self.shared.count(&answer);
                if timeout(LOCK_PATIENCE, member.unlock()).await.is_err() {
                    self.shared.complain(format!(
                        "client {} was not answered when it unlocked {}",
                        self.client, self.object
                    ));
                }
            }
            Act::Move => {}
        }
    }

    fn next(&mut self) -> Act {
        let mark = |this: &mut Self| set(&format!("mark{}", this.client), &this.value());
        match self.dice.below(1000) {
            0..380 => {
                let value = self.value();
                Act::Write(vec![set(&self.own(), &value)])
            }
            380..700 => {
                let op = self.common();
                Act::Write(vec![op])
            }
            700..800 => {
                let (one, value) = (self.common(), self.value());
                let own = self.own();
                Act::Write(vec![one, set(&own, &value), mark(self)])
            }
            800..860 => {
                let slot = if self.dice.percent(50) {
                    self.own()
                } else {
                    self.common_slot()
                };
                Act::Write(vec![remove(&slot), mark(self)])
            }
            860..870 => Act::Write(vec![Op::Clear, mark(self)]),
            870..980 => Act::Send,
            980..995 => {
                let op = self.common();
                Act::Hold(vec![op, mark(self)])
            }
            _ => Act::Move,
        }
    }

    fn own(&self) -> String {
        format!("own{}", self.client)
    }

    fn common_slot(&mut self) -> String {
        format!("common{}", self.dice.below(COMMON_SLOTS))
    }

    fn common(&mut self) -> Op {
        let (slot, value) = (self.common_slot(), self.value());
        set(&slot, &value)
    }

    fn value(&mut self) -> String {
        self.values += 1;
        format!("{}.{}", self.seat, self.values)
    }
}
