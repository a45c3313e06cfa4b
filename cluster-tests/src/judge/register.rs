//! Each slot is a linearizable register with conditional writes.
//!
//! The search looks for one order of a slot's operations that agrees with real time, in
//! which every read finds what was written last, every accepted write was allowed to be,
//! and every refusal had a reason. Versions order what is far apart, so a long history is
//! searched in windows: one begins with the last value that the versions before it left.

use std::collections::BTreeMap;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

use super::account::{Account, Fate, Request, SlotAccount};
use super::history::{Answer, Ask, Object, Op};
use super::verdict::{Verdict, Violation};
use super::{SEARCH_TIME, WINDOW_OPS};

/// Searches every slot of every object.
pub(super) fn judge(account: &Account, verdict: &mut Verdict) {
    for ((object, name), slot) in &account.slots {
        let requests = account.requests.values();
        let requests: Vec<_> = requests.filter(|of| of.object == *object).collect();
        search(object, name, slot, &requests, verdict);
    }
}

fn search(
    object: &Object,
    name: &str,
    slot: &SlotAccount,
    requests: &[&Request],
    verdict: &mut Verdict,
) {
    let mut values = Values::default();
    let mut placed = Vec::new();
    let mut floating = Vec::new();
    for request in requests {
        collect(request, name, slot, &mut values, &mut placed, &mut floating);
    }
    // What writes comes before what finds it written.
    placed.sort_by_key(|(version, op)| (*version, op.op.is_look(), op.call_time));
    let mut before = Register::default();
    let mut rest = placed.as_slice();
    while !rest.is_empty() {
        let (window, after) = rest.split_at(window_end(rest));
        rest = after;
        let begin = i64::MIN;
        let mut operations = vec![Operation {
            client_id: None,
            call_time: begin,
            return_time: begin,
            op: Step::Begin(before),
            metadata: None,
        }];
        operations.extend(window.iter().map(|(_, op)| op.clone()));
        let end = window.iter().map(|(_, op)| op.return_time).max();
        let may = |op: &&Operation<Slot>| end.is_some_and(|end| op.call_time <= end);
        operations.extend(floating.iter().filter(may).cloned());
        verdict.searches += 1;
        let what = format!("slot {name}");
        let ops = operations.len();
        match check_operations_timeout(&operations, SEARCH_TIME) {
            CheckResult::Ok => {}
            CheckResult::Unknown => {
                let text = format!("{what} of {object}: {ops} operations");
                verdict.undecided.push(text);
            }
            CheckResult::Illegal => {
                let asks = window.iter().filter_map(|(_, op)| op.metadata);
                let least = asks.clone().min().unwrap_or(0);
                let most = asks.max().unwrap_or(0);
                verdict.found(Violation::NotLinearizable {
                    object: object.clone(),
                    what,
                    asks: [least, most],
                    ops,
                });
            }
        }
        for (_, op) in window {
            before = op.op.leaves(before);
        }
    }
}

/// How many of these are one window: versions are not torn apart.
fn window_end(placed: &[(u32, Operation<Slot>)]) -> usize {
    let Some((last, _)) = placed.get(WINDOW_OPS - 1) else {
        return placed.len();
    };
    let begins = placed.partition_point(|(version, _)| version < last);
    if begins > 0 {
        begins
    } else {
        placed.partition_point(|(version, _)| version <= last)
    }
}

/// What a request does to the slot: by version if it is known, else among the floating.
fn collect(
    request: &Request,
    name: &str,
    slot: &SlotAccount,
    values: &mut Values,
    placed: &mut Vec<(u32, Operation<Slot>)>,
    floating: &mut Vec<Operation<Slot>>,
) {
    let by = request.connection;
    let base = match &request.what {
        // A clear is made whatever was seen, and so is what its batch writes after it.
        Ask::Write { ops, .. } if ops.contains(&Op::Clear) => None,
        Ask::Write { base, .. } => *base,
        Ask::Use | Ask::Release | Ask::Send { .. } | Ask::Lock { .. } | Ask::Unlock => None,
    };
    if let Answer::Used { version, slots } = &request.answer {
        let value = values.number(slots.get(name));
        let op = Step::Read {
            value,
            version: *version,
        };
        placed.push((*version, operation(request, op)));
        return;
    }
    let steps = request.steps_of(name);
    let Some(step) = steps.iter().find(|step| step.last) else {
        if let (Some(value), Some(version)) = (request.refusal_of(name), request.version()) {
            let op = Step::Refused {
                value: values.number(value.as_ref()),
                version,
                base,
                by,
            };
            placed.push((version, operation(request, op)));
        }
        return;
    };
    let value = values.number(step.value.as_ref());
    let write = |low, high| Step::Write {
        value,
        low,
        high,
        base,
        by,
        certain: true,
    };
    match step.fate {
        Fate::Written { version } => {
            placed.push((version, operation(request, write(Some(version), version))));
        }
        Fate::Made { version } => {
            let seen = step
                .value
                .as_ref()
                .and_then(|text| slot.first_seen.get(text));
            let latest = seen.map_or(version, |seen| seen.version.min(version));
            placed.push((latest, operation(request, write(None, latest))));
        }
        Fate::Undecided => {
            let op = Step::Write {
                value,
                low: None,
                high: u32::MAX,
                base,
                by,
                certain: false,
            };
            let op = operation(request, op);
            let Some(text) = &step.value else {
                // Nobody can tell whose removal was seen.
                floating.push(op);
                return;
            };
            let alone = slot
                .wanted
                .get(&step.value)
                .is_some_and(|wants| wants.len() == 1);
            match slot.first_seen.get(text) {
                // It has happened, as was seen.
                Some(seen) if alone => {
                    let mut op = operation(request, write(None, seen.version));
                    op.return_time = time(seen.at).max(op.call_time);
                    placed.push((seen.version, op));
                }
                Some(_) => floating.push(op),
                // Whether it happened makes no difference to anybody.
                None => {}
            }
        }
        Fate::Refused => {}
    }
}

fn operation(request: &Request, op: Step) -> Operation<Slot> {
    Operation {
        client_id: Some(request.connection),
        call_time: time(request.called),
        return_time: time(request.returned),
        op,
        metadata: Some(request.number),
    }
}

fn time(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// Values as numbers; 0 is none.
#[derive(Debug, Default)]
struct Values(BTreeMap<String, u32>);

impl Values {
    fn number(&mut self, value: Option<&String>) -> u32 {
        let Some(value) = value else {
            return 0;
        };
        let next = u32::try_from(self.0.len() + 1).unwrap_or(u32::MAX);
        *self.0.entry(value.clone()).or_insert(next)
    }
}

#[derive(Debug, Clone)]
struct Slot;

/// What a slot holds, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Register {
    value: u32,
    /// It was written in this version at the earliest,
    low: u32,
    /// and in this at the latest.
    high: u32,
    /// By whom, if that is certain.
    by: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// What the window begins with.
    Begin(Register),
    /// It was written: in the version `low`, if that is known, and no later than `high`.
    Write {
        value: u32,
        low: Option<u32>,
        high: u32,
        base: Option<u32>,
        by: u32,
        /// Or it was refused, or is yet to come.
        certain: bool,
    },
    /// It was found at this version.
    Read { value: u32, version: u32 },
    /// A write was refused at this version, because it was found.
    Refused {
        value: u32,
        version: u32,
        base: Option<u32>,
        by: u32,
    },
}

impl Step {
    fn is_look(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Refused { .. })
    }

    /// What the slot holds after it.
    fn leaves(&self, before: Register) -> Register {
        match *self {
            Self::Begin(register) => register,
            Self::Read { .. } | Self::Refused { .. } => before,
            // Writing what is there changes nothing; whether it counts as a write is up to
            // the implementation.
            Self::Write { value, high, .. } if value == before.value => Register {
                high: before.high.max(high),
                by: None,
                ..before
            },
            Self::Write {
                value,
                low,
                high,
                by,
                ..
            } => Register {
                value,
                low: low.unwrap_or(before.low.saturating_add(1)),
                high,
                by: Some(by),
            },
        }
    }

    fn is_allowed(&self, on: Register) -> bool {
        match *self {
            Self::Begin(_) => true,
            Self::Read { value, version } => value == on.value && on.low <= version,
            Self::Write {
                value,
                high,
                base,
                by,
                low: _,
                certain: _,
            } => {
                if value == on.value {
                    return on.low <= high;
                }
                let seen = base.is_none_or(|base| on.low <= base);
                on.low < high && (seen || on.by.is_none_or(|last| last == by))
            }
            Self::Refused {
                value,
                version,
                base,
                by,
            } => {
                // Who has not seen the newest value is refused, unless it is his own. When a
                // slot was removed is forgotten some time, and then all who are behind are refused.
                let behind = base.is_some_and(|base| on.high > base);
                let reason = value == 0 || behind && on.by != Some(by) || on.by.is_none();
                value == on.value && on.low <= version && reason
            }
        }
    }
}

impl Model for Slot {
    type State = Register;
    type Op = Step;
    type Metadata = u64;

    fn init() -> Register {
        Register::default()
    }

    fn step(state: &Register, op: &Step) -> (bool, Register) {
        if op.is_allowed(*state) {
            (true, op.leaves(*state))
        } else {
            let may_be_refused = matches!(op, Step::Write { certain: false, .. });
            (may_be_refused, *state)
        }
    }
}
