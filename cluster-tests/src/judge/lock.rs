//! Locks: a mutex with a lease that nests, and nobody else's writes under it.

use std::collections::BTreeMap;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

use super::account::{Account, Request};
use super::history::{Answer, Ask, Object};
use super::verdict::{Verdict, Violation};
use super::{SEARCH_TIME, WINDOW_OPS};

/// Judges the locks of every object.
pub(super) fn judge(account: &Account, verdict: &mut Verdict) {
    let mut by_object: BTreeMap<&Object, Vec<&Request>> = BTreeMap::new();
    for request in account.requests.values() {
        by_object.entry(&request.object).or_default().push(request);
    }
    for (object, requests) in by_object {
        let held = held(account, &requests);
        judge_writes(&requests, &held, verdict);
        search(object, account, &requests, verdict);
    }
}

/// One hold of an object.
struct Held<'a> {
    lock: &'a Request,
    /// It is certain that it is held until then.
    until: u64,
}

/// For each token: from when the first lock was answered, to when anything asked to let it
/// go, or its lease was over.
fn held<'a>(account: &Account, requests: &[&'a Request]) -> Vec<Held<'a>> {
    let mut by_token: BTreeMap<u64, &Request> = BTreeMap::new();
    for request in requests {
        if let Answer::Locked { token } = request.answer {
            let first = by_token.entry(token).or_insert(request);
            if request.returned < first.returned {
                *first = request;
            }
        }
    }
    let holds = by_token.into_values().map(|lock| {
        let unlocks = requests.iter().filter(|request| {
            request.what == Ask::Unlock
                && request.connection == lock.connection
                && request.returned > lock.returned
        });
        let unlocked = unlocks.map(|request| request.called).min();
        let until = unlocked.unwrap_or(u64::MAX).min(end_of(lock, account));
        Held { lock, until }
    });
    holds.collect()
}

/// From when on a lock may have ended by itself: its lease is over, or its session, or the
/// client uses the object no more. When it was taken is not known more exactly than that it
/// was asked for.
fn end_of(lock: &Request, account: &Account) -> u64 {
    let lease = match lock.what {
        Ask::Lock { lease_ms } => u64::from(lease_ms) * 1_000_000,
        Ask::Use | Ask::Release | Ask::Write { .. } | Ask::Send { .. } | Ask::Unlock => 0,
    };
    let leases = lock.called.saturating_add(lease);
    let closed = account.closed.get(&lock.connection).copied();
    let releases = account.requests.values().filter(|request| {
        request.what == Ask::Release
            && request.connection == lock.connection
            && request.object == lock.object
            && request.returned > lock.called
    });
    let released = releases.map(|release| release.called).min();
    let ends = [Some(leases), closed, released];
    ends.into_iter().flatten().min().unwrap_or(leases)
}

fn judge_writes(requests: &[&Request], held: &[Held<'_>], verdict: &mut Verdict) {
    for request in requests {
        let Ask::Write { ops, .. } = &request.what else {
            continue;
        };
        let Answer::Written { refused, .. } = &request.answer else {
            continue;
        };
        if refused.len() == ops.len() {
            continue;
        }
        for hold in held {
            let inside = hold.lock.connection != request.connection
                && hold.lock.returned < request.called
                && request.returned < hold.until;
            if inside {
                verdict.found(Violation::WrittenUnderLock {
                    write: request.number,
                    lock: hold.lock.number,
                });
            }
        }
    }
}

fn search(object: &Object, account: &Account, requests: &[&Request], verdict: &mut Verdict) {
    let mut operations: Vec<Operation<Mutex>> = Vec::new();
    let mut unknown = 0;
    for request in requests {
        let by = request.connection;
        let op = match (&request.what, &request.answer) {
            (Ask::Lock { .. }, Answer::Locked { token }) => Some(Step::Lock { by, token: *token }),
            (Ask::Lock { .. }, Answer::Undecided) => {
                // A token that nobody was told.
                unknown += 1;
                let token = u64::MAX - unknown;
                operations.push(expiry(request, token, account));
                Some(Step::Lock { by, token })
            }
            (Ask::Unlock, Answer::Done) => Some(Step::Unlock { by }),
            (Ask::Unlock, Answer::NotLocked) => Some(Step::Refused { by }),
            (Ask::Unlock, Answer::Undecided) => Some(Step::MaybeUnlock { by }),
            _ => None,
        };
        if let Some(op) = op {
            operations.push(operation(request, op));
        }
        if let (Ask::Lock { .. }, Answer::Locked { token }) = (&request.what, &request.answer) {
            operations.push(expiry(request, *token, account));
        }
    }
    if operations.is_empty() {
        return;
    }
    verdict.searches += 1;
    let numbers = operations.iter().map(|op| op.metadata.unwrap_or(0));
    let asks = [
        numbers.clone().min().unwrap_or(0),
        numbers.max().unwrap_or(0),
    ];
    let ops = operations.len();
    let result = if ops > WINDOW_OPS {
        CheckResult::Unknown
    } else {
        check_operations_timeout(&operations, SEARCH_TIME)
    };
    match result {
        CheckResult::Ok => {}
        CheckResult::Unknown => verdict
            .undecided
            .push(format!("the lock of {object}: {ops} operations")),
        CheckResult::Illegal => verdict.found(Violation::NotLinearizable {
            object: object.clone(),
            what: "the lock".to_owned(),
            asks,
            ops,
        }),
    }
}

fn operation(request: &Request, op: Step) -> Operation<Mutex> {
    Operation {
        client_id: Some(request.connection),
        call_time: i64::try_from(request.called).unwrap_or(i64::MAX),
        return_time: i64::try_from(request.returned).unwrap_or(i64::MAX),
        op,
        metadata: Some(request.number),
    }
}

/// A lock may end by itself.
fn expiry(lock: &Request, token: u64, account: &Account) -> Operation<Mutex> {
    let mut expiry = operation(lock, Step::Expire { token });
    expiry.call_time = i64::try_from(end_of(lock, account)).unwrap_or(i64::MAX);
    expiry.return_time = i64::MAX;
    expiry
}

#[derive(Debug, Clone)]
struct Mutex;

#[derive(Debug, Clone, Copy)]
enum Step {
    Lock { by: u32, token: u64 },
    Unlock { by: u32 },
    MaybeUnlock { by: u32 },
    Refused { by: u32 },
    Expire { token: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Hold {
    by: u32,
    token: u64,
    depth: u32,
}

impl Hold {
    fn let_go(self) -> Option<Self> {
        (self.depth > 1).then(|| Self {
            depth: self.depth - 1,
            ..self
        })
    }
}

impl Model for Mutex {
    type State = Option<Hold>;
    type Op = Step;
    type Metadata = u64;

    fn init() -> Option<Hold> {
        None
    }

    fn step(state: &Option<Hold>, op: &Step) -> (bool, Option<Hold>) {
        match (*op, *state) {
            (Step::Lock { by, token }, None) => {
                let depth = 1;
                (true, Some(Hold { by, token, depth }))
            }
            (Step::Lock { by, token }, Some(hold)) => {
                let depth = hold.depth + 1;
                let nests = hold.by == by && hold.token == token;
                (nests, Some(Hold { depth, ..hold }))
            }
            (Step::Unlock { by }, Some(hold)) => (hold.by == by, hold.let_go()),
            (Step::Unlock { .. }, None) => (false, None),
            (Step::MaybeUnlock { by }, Some(hold)) if hold.by == by => (true, hold.let_go()),
            (Step::MaybeUnlock { .. }, state) => (true, state),
            (Step::Refused { by }, state) => (state.is_none_or(|hold| hold.by != by), state),
            (Step::Expire { token }, Some(hold)) if hold.token == token => (true, None),
            (Step::Expire { .. }, state) => (true, state),
        }
    }
}
