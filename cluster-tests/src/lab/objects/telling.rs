//! What a message of an object says about the request that a client has under way.

use amf::Value;
use client::{Change, SyncCode, SyncEvent};

use super::Asked;
use crate::judge::{Answer, Ask, Event, Op, Why};

pub(super) fn told(change: &Change, asked: Option<&Asked>) -> Event {
    let slot = change.name.clone();
    let wanted = asked.and_then(|asked| {
        let Ask::Write { ops, .. } = &asked.what else {
            return None;
        };
        ops.iter().rev().find(|op| slot_of(op) == Some(&*slot))
    });
    let seemed = asked.is_some_and(|asked| asked.seeming.is_some());
    // A clear that was not made: what it would have taken away is told again.
    let restored = asked.is_some_and(|asked| {
        let clears = matches!(&asked.what, Ask::Write { ops, .. } if ops.contains(&Op::Clear));
        clears && asked.status.is_some()
    });
    let why = match change.code {
        SyncCode::Clear => return Event::Clear,
        SyncCode::Delete => return Event::Remove { slot },
        SyncCode::Success => Why::Accepted,
        SyncCode::Reject => Why::Refused,
        // It seemed to be refused, and now it is.
        SyncCode::Change if seemed && wanted.is_some() || restored => Why::Refused,
        SyncCode::Change => Why::Changed,
    };
    // Our own writes that are under way show in the object before they are made.
    let value = match wanted {
        Some(Op::Set { value, .. }) if why == Why::Accepted => Some(value.clone()),
        _ => change.value.as_ref().map(text),
    };
    match value {
        Some(value) => Event::Set { slot, value, why },
        None => Event::Remove { slot },
    }
}

fn slot_of(op: &Op) -> Option<&str> {
    match op {
        Op::Set { slot, .. } | Op::Remove { slot } => Some(slot),
        Op::Clear => None,
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| format!("{value:?}"), str::to_owned)
}

/// What a message has to do with a request.
pub(super) enum About {
    /// It answers.
    Answer,
    /// It tells of slots that were asked for: a refusal, or a change that crossed the request.
    Slots,
    /// Nothing.
    Others,
}

pub(super) fn is_about(asked: &Ask, sync: &SyncEvent) -> About {
    let Ask::Write { ops, .. } = asked else {
        return About::Others;
    };
    let of = |op: &Op, code: SyncCode| {
        let mut list = sync.list.iter();
        list.any(|change| change.code == code && slot_of(op).unwrap_or_default() == change.name)
    };
    let sets = ops.iter().any(|op| matches!(op, Op::Set { .. }));
    let answers = |op: &Op| match op {
        Op::Set { .. } => of(op, SyncCode::Success),
        // Another may clear the object just now. What is set after a clear is always made.
        Op::Clear => !sets && of(op, SyncCode::Clear),
        Op::Remove { .. } => false,
    };
    if ops.iter().any(answers) {
        return About::Answer;
    }
    let told = |op: &Op| {
        sync.list
            .iter()
            .any(|change| Some(&*change.name) == slot_of(op))
    };
    if ops.iter().any(told) {
        About::Slots
    } else {
        About::Others
    }
}

/// What a message that answers says about each step.
pub(super) fn written(asked: &Ask, sync: &SyncEvent) -> Answer {
    let ops: &[Op] = if let Ask::Write { ops, .. } = asked {
        ops
    } else {
        &[]
    };
    let refused = ops.iter().enumerate().filter_map(|(place, op)| {
        let slot = slot_of(op)?;
        let told = sync.list.iter().rev().find(|change| change.name == slot);
        let of = |code| {
            let mut list = sync.list.iter();
            list.any(|change| change.name == slot && change.code == code)
        };
        // It may have been written over by now.
        let is_made = match op {
            Op::Set { .. } => of(SyncCode::Success),
            Op::Remove { .. } => of(SyncCode::Delete),
            Op::Clear => true,
        };
        let holds = told.and_then(|told| told.value.as_ref().map(text));
        (!is_made).then_some((place, holds))
    });
    Answer::Written {
        version: sync.version,
        refused: refused.collect(),
    }
}
