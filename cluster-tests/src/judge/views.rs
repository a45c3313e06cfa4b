//! What each connection believed an object to be, and whether that can be.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::account::{Account, Fate, slot_of};
use super::history::{Answer, Event, History, Object, Record, Slots, Why};
use super::verdict::{Verdict, Violation};

/// Folds what each connection was told and judges every state it settled in.
pub(super) fn judge(history: &History, account: &Account, verdict: &mut Verdict) {
    let mut views = Views {
        account,
        verdict,
        views: BTreeMap::new(),
        settled: BTreeMap::new(),
        closed: BTreeSet::new(),
    };
    for record in &history.records {
        views.handle(record);
    }
    views.finish();
}

struct Views<'a> {
    account: &'a Account,
    verdict: &'a mut Verdict,
    views: BTreeMap<(u32, Object), View>,
    /// The first that settled at a version, and its connection.
    settled: BTreeMap<(Object, u32), (Slots, u32)>,
    closed: BTreeSet<u32>,
}

/// What one connection knows of one object.
#[derive(Debug, Default)]
struct View {
    version: u32,
    /// Whether `slots` is all of it: it began with all of it.
    whole: bool,
    /// The version at which it was last told everything.
    told_all: Option<u32>,
    slots: Slots,
}

impl Views<'_> {
    fn handle(&mut self, record: &Record) {
        match record {
            Record::Open {
                connection,
                resumes: Some(earlier),
                ..
            } => self.resume(*connection, *earlier),
            Record::Close { connection, .. } => {
                // It may have been in the middle of a version.
                self.closed.insert(*connection);
                self.views.retain(|(of, _), _| of != connection);
            }
            Record::Answer { ask, answer, .. } => self.answer(*ask, answer),
            Record::Seen {
                connection,
                object,
                version,
                events,
                ..
            } if !self.closed.contains(connection) => {
                self.go_to(*connection, object, *version);
                for event in events {
                    self.tell(*connection, object, *version, event);
                }
            }
            Record::Open { .. } | Record::Ask { .. } | Record::Seen { .. } => {}
        }
    }

    /// A new connection must not fall behind the one that it goes on from.
    fn resume(&mut self, connection: u32, earlier: u32) {
        let known = self.views.iter().filter(|((of, _), _)| *of == earlier);
        let known: Vec<_> = known
            .map(|((_, object), view)| (object.clone(), view.version))
            .collect();
        for (object, version) in known {
            let view = self.views.entry((connection, object)).or_default();
            view.version = version;
        }
    }

    fn answer(&mut self, ask: u64, answer: &Answer) {
        let Some(request) = self.account.requests.get(&ask) else {
            return;
        };
        let key = (request.connection, request.object.clone());
        if self.closed.contains(&key.0) {
            return;
        }
        match answer {
            Answer::Used { version, slots } => {
                self.go_to(key.0, &key.1, *version);
                self.settle(key.0, &key.1, *version, slots);
                let view = self.views.entry(key).or_default();
                view.slots = slots.clone();
                view.whole = true;
                view.told_all = Some(*version);
            }
            Answer::Done if matches!(request.what, super::Ask::Release) => {
                self.leave_version(&key);
                self.views.remove(&key);
            }
            Answer::Written { version, refused } => {
                let super::Ask::Write { ops, .. } = &request.what else {
                    return;
                };
                for (place, value) in refused {
                    if let (Some(slot), Some(value)) = (slot_of(ops.get(*place)), value) {
                        self.judge_value(key.0, &key.1, *version, slot, value);
                    }
                }
            }
            Answer::Made { .. }
            | Answer::Done
            | Answer::Locked { .. }
            | Answer::NotLocked
            | Answer::Unavailable
            | Answer::Undecided => {}
        }
    }

    /// The header of a message says this version.
    fn go_to(&mut self, connection: u32, object: &Object, version: u32) {
        let key = (connection, object.clone());
        let from = self.views.get(&key).map_or(0, |view| view.version);
        if version < from {
            self.verdict.found(Violation::WentBack {
                connection,
                object: object.clone(),
                from,
                to: version,
            });
        }
        if version > from {
            self.leave_version(&key);
        }
        self.views.entry(key).or_default().version = version;
    }

    fn tell(&mut self, connection: u32, object: &Object, version: u32, event: &Event) {
        if let Event::Set { slot, value, .. } = event {
            self.judge_value(connection, object, version, slot, value);
        }
        let view = self.views.entry((connection, object.clone())).or_default();
        match event {
            Event::Clear => view.slots.clear(),
            Event::Remove { slot } => {
                view.slots.remove(slot);
            }
            Event::Set { slot, value, why } => {
                let held = view.slots.insert(slot.clone(), value.clone());
                let news = *why == Why::Changed && view.told_all != Some(version);
                let unique = self
                    .account
                    .slots
                    .get(&(object.clone(), slot.clone()))
                    .and_then(|account| account.wanted.get(&Some(value.clone())))
                    .is_some_and(|wants| wants.len() == 1);
                if news && unique && view.whole && held.as_ref() == Some(value) {
                    self.verdict.found(Violation::ToldTwice {
                        connection,
                        object: object.clone(),
                        version,
                        slot: slot.clone(),
                        value: value.clone(),
                    });
                }
            }
            Event::Send { .. } => {}
        }
    }

    /// What a connection knows is a version's state once it hears of the next.
    fn leave_version(&mut self, key: &(u32, Object)) {
        let Some(view) = self.views.get(key) else {
            return;
        };
        if view.whole {
            let (version, slots) = (view.version, view.slots.clone());
            self.settle(key.0, &key.1, version, &slots);
        }
    }

    fn settle(&mut self, connection: u32, object: &Object, version: u32, slots: &Slots) {
        match self.settled.entry((object.clone(), version)) {
            Entry::Vacant(first) => {
                first.insert((slots.clone(), connection));
            }
            Entry::Occupied(first) => {
                let (known, other) = first.get();
                if known == slots {
                    return;
                }
                let names = known.keys().chain(slots.keys());
                let differs = names.into_iter().find(|n| known.get(*n) != slots.get(*n));
                if let Some(slot) = differs {
                    self.verdict.found(Violation::NotTheSame {
                        object: object.clone(),
                        version,
                        slot: slot.clone(),
                        connections: [*other, connection],
                        values: [known.get(slot).cloned(), slots.get(slot).cloned()],
                    });
                }
            }
        }
        self.judge_state(connection, object, version, slots);
    }

    /// Whether everything that was acknowledged by a version is there.
    fn judge_state(&mut self, connection: u32, object: &Object, version: u32, slots: &Slots) {
        let first = (object.clone(), String::new());
        let of_object = self.account.slots.range(first..);
        for ((_, slot), account) in of_object.take_while(|((of, _), _)| of == object) {
            let found = slots.get(slot).cloned();
            let newest = account.acknowledged.range(..=version).next_back();
            let Some((written, (value, ask))) = newest else {
                // What is there is judged by itself.
                if let Some(value) = &found {
                    self.judge_value(connection, object, version, slot, value);
                }
                continue;
            };
            let wants = account.wanted.get(&found);
            // It may have been written over at some time that is not known.
            let vague = |want: &super::account::Want| {
                matches!(want.fate, Fate::Undecided | Fate::Made { .. })
            };
            if *value == found || wants.is_some_and(|wants| wants.iter().any(vague)) {
                continue;
            }
            self.verdict.found(Violation::Lost {
                ask: *ask,
                slot: slot.clone(),
                written: *written,
                connection,
                version,
                found,
            });
        }
        for slot in slots.keys() {
            let known = (object.clone(), slot.clone());
            if !self.account.slots.contains_key(&known) {
                self.judge_value(connection, object, version, slot, &slots[slot]);
            }
        }
    }

    /// Whether a value may be seen at a version at all.
    fn judge_value(
        &mut self,
        connection: u32,
        object: &Object,
        version: u32,
        slot: &str,
        value: &str,
    ) {
        let key = (object.clone(), slot.to_owned());
        let account = self.account.slots.get(&key);
        let wants = account.and_then(|account| account.wanted.get(&Some(value.to_owned())));
        let Some(wants) = wants else {
            self.verdict.found(Violation::FromNowhere {
                connection,
                object: object.clone(),
                version,
                slot: slot.to_owned(),
                value: value.to_owned(),
            });
            return;
        };
        let mut early = None;
        let mut refused = None;
        for want in wants {
            match want.fate {
                Fate::Undecided | Fate::Made { .. } => return,
                Fate::Written { version: written } if written <= version => return,
                Fate::Written { version: written } => early = Some((want.ask, written)),
                Fate::Refused => refused = Some(want.ask),
            }
        }
        let slot = slot.to_owned();
        if let Some((ask, written)) = early {
            self.verdict.found(Violation::TooEarly {
                ask,
                slot,
                written,
                connection,
                version,
            });
        } else if let Some(ask) = refused {
            self.verdict.found(Violation::RefusedButSeen {
                ask,
                slot,
                connection,
                version,
            });
        }
    }

    /// The last state of each connection that is still there; and whether anybody got as
    /// far as what was acknowledged.
    fn finish(mut self) {
        let keys: Vec<_> = self.views.keys().cloned().collect();
        let mut reached: BTreeMap<Object, u32> = BTreeMap::new();
        for key in keys {
            self.leave_version(&key);
            let view = &self.views[&key];
            let reached = reached.entry(key.1).or_default();
            *reached = (*reached).max(view.version);
        }
        for ((object, _), account) in &self.account.slots {
            let reached = reached.get(object).copied().unwrap_or(0);
            if let Some((written, (_, ask))) = account.acknowledged.last_key_value()
                && *written > reached
            {
                let (ask, written) = (*ask, *written);
                self.verdict.found(Violation::NeverSeen { ask, written });
            }
        }
    }
}
