//! Messages to all subscribers: one order, each once.

use std::collections::{BTreeMap, BTreeSet};

use super::account::Account;
use super::history::{Answer, Ask, Event, History, Object, Record};
use super::verdict::{Verdict, Violation};

/// Judges what was sent to all.
pub(super) fn judge(history: &History, account: &Account, verdict: &mut Verdict) {
    let mut heard: BTreeMap<(&Object, u32), Vec<&str>> = BTreeMap::new();
    let mut closed = BTreeSet::new();
    for record in &history.records {
        match record {
            Record::Seen {
                connection,
                object,
                events,
                ..
            } => {
                let ids = events.iter().filter_map(|event| match event {
                    Event::Send { id } => Some(id.as_str()),
                    Event::Clear | Event::Set { .. } | Event::Remove { .. } => None,
                });
                heard.entry((object, *connection)).or_default().extend(ids);
            }
            Record::Close { connection, .. } => {
                closed.insert(*connection);
            }
            Record::Open { .. } | Record::Ask { .. } | Record::Answer { .. } => {}
        }
    }
    let sent = sent(account);
    for ((object, connection), ids) in &heard {
        judge_one(*connection, object, ids, &sent, verdict);
    }
    judge_order(&heard, verdict);
    judge_loss(account, &heard, &closed, verdict);
}

/// By object and text, what became of it.
fn sent(account: &Account) -> BTreeMap<(&Object, &str), &Answer> {
    let sends = account.requests.values().filter_map(|request| {
        let Ask::Send { id } = &request.what else {
            return None;
        };
        Some(((&request.object, id.as_str()), &request.answer))
    });
    sends.collect()
}

fn judge_one(
    connection: u32,
    object: &Object,
    ids: &[&str],
    sent: &BTreeMap<(&Object, &str), &Answer>,
    verdict: &mut Verdict,
) {
    let mut known = BTreeSet::new();
    for id in ids {
        let text = (*id).to_owned();
        if !known.insert(id) {
            let id = text.clone();
            verdict.found(Violation::SendTwice { connection, id });
        }
        match sent.get(&(object, *id)) {
            None => verdict.found(Violation::SendFromNowhere {
                connection,
                id: text,
            }),
            Some(Answer::Unavailable) => verdict.found(Violation::SendRefusedButSeen {
                connection,
                id: text,
            }),
            Some(_) => {}
        }
    }
}

/// All connections agree on one order: what follows what at any of them has no circle.
fn judge_order(heard: &BTreeMap<(&Object, u32), Vec<&str>>, verdict: &mut Verdict) {
    let objects: BTreeSet<&Object> = heard.keys().map(|(object, _)| *object).collect();
    for object in objects {
        let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut before: BTreeMap<&str, usize> = BTreeMap::new();
        let lists = heard.iter().filter(|((of, _), _)| *of == object);
        for (_, ids) in lists {
            // The first time counts; that it came again is another fault.
            let mut known = BTreeSet::new();
            let ids: Vec<&str> = ids.iter().copied().filter(|id| known.insert(*id)).collect();
            for id in &ids {
                before.entry(id).or_default();
            }
            for pair in ids.windows(2) {
                if next.entry(pair[0]).or_default().insert(pair[1]) {
                    *before.entry(pair[1]).or_default() += 1;
                }
            }
        }
        let mut free: Vec<&str> = before
            .iter()
            .filter(|(_, count)| **count == 0)
            .map(|(id, _)| *id)
            .collect();
        while let Some(id) = free.pop() {
            before.remove(id);
            for after in next.get(id).into_iter().flatten() {
                if let Some(count) = before.get_mut(after) {
                    *count -= 1;
                    if *count == 0 {
                        free.push(after);
                    }
                }
            }
        }
        if !before.is_empty() {
            verdict.found(Violation::SendOrder {
                object: object.clone(),
                ids: before.into_keys().take(8).map(str::to_owned).collect(),
            });
        }
    }
}

/// Who subscribed before something was sent, and stayed to the end, was told.
fn judge_loss(
    account: &Account,
    heard: &BTreeMap<(&Object, u32), Vec<&str>>,
    closed: &BTreeSet<u32>,
    verdict: &mut Verdict,
) {
    let mut since: BTreeMap<(&Object, u32), u64> = BTreeMap::new();
    let mut left = BTreeSet::new();
    for request in account.requests.values() {
        let key = (&request.object, request.connection);
        match (&request.what, &request.answer) {
            (Ask::Use, Answer::Used { .. }) => {
                let first = since.entry(key).or_insert(request.returned);
                *first = (*first).min(request.returned);
            }
            (Ask::Release, _) => {
                left.insert(key);
            }
            _ => {}
        }
    }
    for ((object, connection), since) in &since {
        if closed.contains(connection) || left.contains(&(*object, *connection)) {
            continue;
        }
        let none = Vec::new();
        let ids = heard.get(&(*object, *connection)).unwrap_or(&none);
        let ids: BTreeSet<&str> = ids.iter().copied().collect();
        for request in account.requests.values() {
            let Ask::Send { id } = &request.what else {
                continue;
            };
            let must = request.object == **object
                && request.answer == Answer::Done
                && request.called > *since;
            if must && !ids.contains(id.as_str()) {
                verdict.found(Violation::SendLost {
                    connection: *connection,
                    id: id.clone(),
                });
            }
        }
    }
}
