//! A client of several edges at once, whose requests and news are written down.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amf::Value;
use client::{
    MultiConnection, MultiEvent, MultiEvents, MultiOptions, Need, SetupStatus, SoOutcome, SyncEvent,
};
use tokio::time::timeout;

use super::crowd::{FACADES_FROM, Shared};
use super::until::SOON;
use crate::dice::Dice;
use crate::judge::history::Connection;
use crate::judge::{Answer, Ask, Event, Object, Op, Slots};

/// How long a facade may take to answer: longer than it tries by itself.
const PATIENCE: Duration = Duration::from_secs(45);

/// A facade with all edges.
#[derive(Debug)]
pub struct Facade {
    mc: MultiConnection,
    desk: Arc<Mutex<Desk>>,
    /// The objects that it uses.
    pub objects: Vec<String>,
}

#[derive(Debug, Default)]
struct Desk {
    setup: Option<SetupStatus>,
    seats: BTreeMap<String, Seat>,
}

/// What it was told of one object.
///
/// While a write is under way an edge tells what others do and holds the version back, and
/// which of its writes an edge still knows after a fail-over a facade does not tell. So its
/// states are not written down by version; that versions do not go back is seen here, and that
/// the facade ends with what all others have at the end of the test.
#[derive(Debug)]
struct Seat {
    pen: Connection,
    object: Object,
    /// The number of the use, until it is answered.
    used: Option<u64>,
    /// The version at which that was.
    began: u32,
    version: u32,
    /// Versions that it went back from and to.
    back: Option<(u32, u32)>,
}

impl Facade {
    /// Lives until all are told to stop.
    pub(super) async fn run(
        shared: Arc<Shared>,
        client: usize,
        objects: Vec<String>,
        mut dice: Dice,
    ) -> Self {
        let options = MultiOptions {
            need: Need::One,
            ..MultiOptions::default()
        };
        let desk: Arc<Mutex<Desk>> = Arc::default();
        let mc = loop {
            let (mc, events) = MultiConnection::with(options.clone());
            tokio::spawn(listen(events, Arc::clone(&desk)));
            let urls: Vec<String> = shared
                .edges
                .iter()
                .map(|edge| format!("rtmp://{edge}/live"))
                .collect();
            mc.connect(&urls).await.expect("the facade is there");
            let set_up = || lock(&desk).setup.take();
            let setup = loop {
                if let Some(setup) = set_up() {
                    break setup;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            if setup.complete || shared.stopped() {
                break mc;
            }
        };
        for name in &objects {
            let object = Object {
                name: name.clone(),
                incarnation: 0,
            };
            let pen = shared.recorder.open(FACADES_FROM + shared.seat(), None);
            let used = Some(pen.ask(&object, Ask::Use));
            let seat = Seat {
                pen,
                object,
                used,
                began: 0,
                version: 0,
                back: None,
            };
            lock(&desk).seats.insert(name.clone(), seat);
            if let Err(error) = mc.shared_object_setup(name, true).await {
                shared.complain(format!("facade {client} cannot use {name}: {error}"));
            }
        }
        let this = Self { mc, desk, objects };
        let lives = this.objects.iter().enumerate().map(|(place, name)| {
            let dice = Dice::new(dice.roll(), u64::try_from(place).unwrap_or_default());
            this.live(&shared, client, name, dice)
        });
        join_all(lives.collect()).await;
        this
    }

    async fn live(&self, shared: &Shared, client: usize, name: &str, mut dice: Dice) {
        let mut values = 0;
        while !shared.stopped() {
            values += 1;
            let value = format!("f{client}.{name}.{values}");
            let answer = match dice.below(100) {
                0..50 => self.set(name, &format!("own{client}"), Some(value)).await,
                50..80 => {
                    let slot = format!("common{}", dice.below(3));
                    self.set(name, &slot, Some(value)).await
                }
                80..85 => self.set(name, &format!("own{client}"), None).await,
                _ => self.send(name, value).await,
            };
            match answer {
                None => shared.complain(format!(
                    "facade {client} was not answered about {name} for {PATIENCE:?}"
                )),
                Some(answer) => {
                    shared.count(&answer);
                    let done = matches!(answer, Answer::Made { .. } | Answer::Done);
                    let done = usize::from(done);
                    shared.tally.faced.fetch_add(done, Ordering::Relaxed);
                }
            }
            shared.think(&mut dice).await;
        }
    }

    async fn set(&self, name: &str, slot: &str, value: Option<String>) -> Option<Answer> {
        let op = match &value {
            Some(value) => Op::Set {
                slot: slot.to_owned(),
                value: value.clone(),
            },
            None => Op::Remove {
                slot: slot.to_owned(),
            },
        };
        // Which version the facade has seen when it asks is its own affair.
        let what = Ask::Write {
            base: None,
            ops: vec![op],
        };
        let (pen, ask) = self.ask(name, what);
        let path = format!("{name}.data.{slot}");
        let value = value.map_or(Value::Null, |value| value.as_str().into());
        let outcome = timeout(PATIENCE, self.mc.set_so_value(&path, value)).await;
        let answer = match outcome.ok()? {
            // After a fail-over the answer comes later than the write.
            Ok(SoOutcome::Success { version }) => Answer::Made { version },
            Ok(outcome) => other(&outcome),
            Err(_) => Answer::Undecided,
        };
        pen.answer(ask, answer.clone());
        Some(answer)
    }

    async fn send(&self, name: &str, id: String) -> Option<Answer> {
        let (pen, ask) = self.ask(name, Ask::Send { id: id.clone() });
        let sent = self.mc.so_send(name, "said", [Value::from(id.as_str())]);
        let answer = match timeout(PATIENCE, sent).await.ok()? {
            Ok(SoOutcome::Success { .. }) => Answer::Done,
            Ok(outcome) => other(&outcome),
            Err(_) => Answer::Undecided,
        };
        pen.answer(ask, answer.clone());
        Some(answer)
    }

    fn ask(&self, name: &str, what: Ask) -> (Connection, u64) {
        let desk = lock(&self.desk);
        let seat = desk.seats.get(name).expect("it is used");
        let ask = seat.pen.ask(&seat.object, what);
        (seat.pen.clone(), ask)
    }

    /// Of which object it was told an older version after a newer one.
    pub fn went_back(&self) -> Option<String> {
        let desk = lock(&self.desk);
        let mut seats = desk.seats.iter();
        seats.find_map(|(name, seat)| {
            let (from, to) = seat.back?;
            Some(format!("{name} went back from version {from} to {to}"))
        })
    }

    /// The version of an object that it knows.
    pub async fn version(&self, name: &str) -> Option<u32> {
        Some(self.mc.so_data(name).await.ok()?.version)
    }

    /// What it knows of an object.
    pub async fn slots(&self, name: &str) -> Option<Slots> {
        let data = self.mc.so_data(name).await.ok()?;
        let slots = data.slots.iter();
        Some(
            slots
                .map(|(slot, value)| (slot.clone(), text(value)))
                .collect(),
        )
    }

    /// Leaves.
    pub async fn leave(self) {
        let _gone = timeout(SOON, self.mc.nc_close()).await;
    }
}

fn other(outcome: &SoOutcome) -> Answer {
    match outcome {
        // Which version it was refused at is not told.
        SoOutcome::Reject { .. }
        | SoOutcome::Refused { .. }
        | SoOutcome::Unreachable
        | SoOutcome::Replaced => Answer::Unavailable,
        SoOutcome::Undecided | SoOutcome::Success { .. } => Answer::Undecided,
    }
}

async fn listen(mut events: MultiEvents, desk: Arc<Mutex<Desk>>) {
    while let Some(event) = events.next().await {
        let mut desk = lock(&desk);
        match event {
            MultiEvent::OnStatus(status) => desk.setup = Some(status),
            MultiEvent::Sync { name, event } => {
                if let Some(seat) = desk.seats.get_mut(&name) {
                    seat.hear(&event);
                }
            }
            MultiEvent::Message { name, args, .. } => {
                let id = args.first().and_then(Value::as_str);
                if let (Some(seat), Some(id)) = (desk.seats.get_mut(&name), id)
                    // Members send others, to know when they were answered.
                    && id.contains('.')
                {
                    let event = Event::Send { id: id.to_owned() };
                    seat.pen.seen(&seat.object, seat.began, vec![event]);
                }
            }
            MultiEvent::Server { .. }
            | MultiEvent::SoStatus { .. }
            | MultiEvent::NsStatus { .. }
            | MultiEvent::NetStatus { .. }
            | MultiEvent::Call { .. } => {}
        }
    }
}

impl Seat {
    fn hear(&mut self, event: &SyncEvent) {
        if event.version < self.version {
            self.back = Some((self.version, event.version));
        }
        self.version = event.version;
        if let Some(used) = self.used.take() {
            let slots = event.list.iter().filter_map(|change| {
                let value = change.value.as_ref().map(text)?;
                Some((change.name.clone(), value))
            });
            let (version, slots) = (event.version, slots.collect());
            self.began = version;
            self.pen.answer(used, Answer::Used { version, slots });
        }
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| format!("{value:?}"), str::to_owned)
}

async fn join_all<F: Future<Output = ()>>(lives: Vec<F>) {
    let mut lives: Vec<_> = lives.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        lives.retain_mut(|life| life.as_mut().poll(context).is_pending());
        if lives.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}
