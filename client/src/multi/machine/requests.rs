//! Numbered requests: what is under way, and how answers are told from news.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use model::object::{ObjectAsk, ObjectEvent, ObjectStatus, ObjectUpdate};
use model::{ObjectKind, ObjectName, SlotName, SlotOp, SlotValue, Version};

use super::super::history::{History, Verdict};
use super::super::limits::{
    ANSWER_PATIENCE, BATCH_SLOTS_MAX, MERGED_PATIENCE, SETTLE_PATIENCE, WINDOW,
};
use super::super::mirror::{Folded, Mirror};
use super::{Output, Settled, Ticket};

/// A slot that no program has: to take it away changes nothing and uses up a number.
const NO_SLOT: &str = "\u{0}selvage.void";

/// What is under way, in the order of the numbers, without gaps.
#[derive(Debug)]
pub(super) struct Requests {
    next: u64,
    rows: VecDeque<Request>,
    /// Every request up to this number is applied: a later one was answered.
    applied: u64,
    /// The primary does not count requests.
    plain: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    seq: u64,
    object: ObjectName,
    kind: ObjectKind,
    /// The version that was known when it was asked for.
    base: Version,
    ask: Ask,
    state: State,
    tickets: Vec<(Option<SlotName>, Ticket)>,
    first: Instant,
    /// When the present primary was asked.
    sent: Option<Instant>,
    /// It was asked for before, of another server.
    again: bool,
    /// A change by another that may be the answer was seen; when it is taken for one.
    merged: Option<Instant>,
    /// A message like it came back. It may be somebody else's.
    heard: bool,
}

#[derive(Clone, Debug)]
enum Ask {
    Write(Vec<SlotOp>),
    Send(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not answered.
    Open,
    /// Answered. It is kept until it is known to be applied, because numbers have no gaps.
    Done,
    /// Answered with the word that it is not made. Its number must be used up by nothing.
    Void,
}

/// What became of a request.
pub(super) type Answered = (Vec<Verdict>, Vec<(Ticket, Settled)>);

impl Default for Requests {
    fn default() -> Self {
        Self {
            next: 1,
            rows: VecDeque::new(),
            applied: 0,
            plain: false,
        }
    }
}

impl Requests {
    /// The number of the oldest request that is not known to be applied.
    pub(super) fn first(&self) -> u64 {
        self.rows.front().map_or(self.next, |row| row.seq)
    }

    /// Another server is the primary, and was asked for nothing yet.
    pub(super) fn unsent(&mut self) {
        self.plain = false;
        for row in &mut self.rows {
            row.again |= row.sent.take().is_some();
            row.merged = None;
        }
    }

    /// All that the present primary must be asked for again. Without numbers only what has no
    /// answer, and what came back has: its tickets are given.
    pub(super) fn again(
        &mut self,
        numbered: bool,
        now: Instant,
    ) -> (Vec<Request>, Vec<(ObjectName, Ticket)>) {
        self.plain = !numbered;
        let mut heard = Vec::new();
        if !numbered {
            heard = self.heard();
            self.rows.retain(|row| row.state == State::Open);
        }
        for row in &mut self.rows {
            row.sent = Some(now);
        }
        (self.rows.iter().cloned().collect(), heard)
    }

    /// Takes what waits of an object.
    pub(super) fn take(
        &mut self,
        object: &ObjectName,
        history: &mut History,
        now: Instant,
    ) -> Vec<Request> {
        let begin = self.rows.len();
        let mut room = WINDOW.saturating_sub(self.rows.iter().filter(|r| r.is_open()).count());
        while room > 0
            && let Some(queued) = history.queue.pop_front()
        {
            room -= 1;
            let ask = Ask::Send(queued.payload);
            self.push(object, history, ask, vec![(None, queued.ticket)], now);
        }
        // A batch at a time: every player waits for the answer before it asks again.
        let busy = self.rows.iter().any(|row| row.is_write_of(object));
        if room > 0 && !busy && !history.dirty.is_empty() {
            let some = history.dirty.len().min(BATCH_SLOTS_MAX);
            let mut ops = Vec::with_capacity(some);
            let mut tickets = Vec::with_capacity(some);
            for dirty in history.dirty.drain(..some) {
                tickets.push((Some(dirty.slot.clone()), dirty.ticket));
                ops.push(match dirty.value {
                    Some(value) => SlotOp::Set {
                        slot: dirty.slot,
                        value,
                    },
                    None => SlotOp::Remove { slot: dirty.slot },
                });
            }
            self.push(object, history, Ask::Write(ops), tickets, now);
        }
        self.rows.iter().skip(begin).cloned().collect()
    }

    /// Another server goes on with the numbers, and has nothing to ask again. It asks for
    /// nothing under the next number: the log counts the session among those of the edge
    /// that spoke last, and the last one will report its client gone for good.
    pub(super) fn take_along(&mut self, object: &ObjectName, history: &History, now: Instant) {
        if !self.rows.is_empty() || self.next == 1 {
            return;
        }
        self.push(object, history, Ask::Write(Vec::new()), Vec::new(), now);
        if let Some(row) = self.rows.back_mut() {
            row.state = State::Void;
        }
    }

    fn push(
        &mut self,
        object: &ObjectName,
        history: &History,
        ask: Ask,
        tickets: Vec<(Option<SlotName>, Ticket)>,
        now: Instant,
    ) {
        self.rows.push_back(Request {
            seq: self.next,
            object: object.clone(),
            kind: history.kind,
            base: history.version,
            ask,
            state: State::Open,
            tickets,
            first: now,
            sent: Some(now),
            again: false,
            merged: None,
            heard: false,
        });
        self.next += 1;
    }

    /// The changes of an object that the primary was asked for and has not answered.
    pub(super) fn open_write(&self, object: &ObjectName) -> &[SlotOp] {
        self.rows
            .iter()
            .find(|row| row.sent.is_some() && row.is_write_of(object))
            .map_or(&[], Request::ops)
    }

    /// The slots of an object whose own change is not answered.
    pub(super) fn open_slots(&self, object: &ObjectName) -> BTreeSet<SlotName> {
        self.rows
            .iter()
            .filter(|row| row.is_write_of(object))
            .flat_map(|row| row.ops().iter().filter_map(slot_of))
            .map(|(slot, _)| slot.clone())
            .collect()
    }

    /// What this program wants a slot to have, if it is not answered yet.
    pub(super) fn wanted(&self, object: &ObjectName, slot: &SlotName) -> Option<Option<SlotValue>> {
        self.rows
            .iter()
            .filter(|row| row.is_write_of(object))
            .flat_map(|row| row.ops().iter().rev().filter_map(slot_of))
            .find_map(|(of, value)| (of == slot).then(|| value.cloned()))
    }

    /// Looks for the answer to a request in an update of the primary.
    ///
    /// An answer has no mark. It is told from news by what the server must do: an acceptance
    /// names a slot that only we asked for; a refusal changes nothing, so the version is what
    /// it was; news has a new version. What is neither (the server has merged a refusal with
    /// its reason) is taken for an answer when no other comes.
    pub(super) fn answer(
        &mut self,
        update: &ObjectUpdate,
        folded: &Folded,
        now: Instant,
    ) -> Answered {
        let status = update.events.iter().find_map(|event| match event {
            ObjectEvent::Status(
                status @ (ObjectStatus::NoWriteAccess
                | ObjectStatus::Unavailable
                | ObjectStatus::Undecided),
            ) => Some(*status),
            ObjectEvent::Status(_)
            | ObjectEvent::UseSuccess
            | ObjectEvent::Clear
            | ObjectEvent::Change { .. }
            | ObjectEvent::Success { .. }
            | ObjectEvent::Remove { .. }
            | ObjectEvent::Send(_)
            | ObjectEvent::Sent { .. } => None,
        });
        let found = self
            .rows
            .iter_mut()
            .find(|row| row.sent.is_some() && row.is_write_of(&update.name));
        if let Some(row) = found {
            let subscribed = update.events.contains(&ObjectEvent::UseSuccess);
            let said: Vec<Said<'_>> = row
                .ops()
                .iter()
                .filter_map(slot_of)
                .map(|(slot, wanted)| Said::of(slot, wanted, update))
                .collect();
            let all = said.iter().all(|said| said.how != How::Nothing);
            let any = said.iter().any(|said| said.how != How::Nothing);
            let grown = folded.grown;
            let accepted = said.iter().any(|said| said.how == How::Accepted);
            let gone = said
                .iter()
                .all(|said| said.wanted.is_none() && said.how == How::Gone);
            if accepted || (status.is_some() && any) || (!subscribed && all && (gone || !grown)) {
                let answered = verdicts(&said, row, update, status);
                row.close(status);
                let seq = row.seq;
                self.applied(seq, status);
                return answered;
            }
            if all && !subscribed {
                row.merged.get_or_insert(now + MERGED_PATIENCE);
            }
        }
        let Some(status) = status else {
            return Answered::default();
        };
        if is_of_nothing(update) {
            return Answered::default();
        }
        let refused = self
            .rows
            .iter_mut()
            .find(|row| row.is_open() && row.sent.is_some() && row.object == update.name);
        let Some(row) = refused else {
            return Answered::default();
        };
        let settled = Settled::refused(status);
        let tickets = std::mem::take(&mut row.tickets);
        let settled = tickets
            .into_iter()
            .map(|(_, ticket)| (ticket, settled.clone()))
            .collect();
        let verdicts = row
            .ops()
            .iter()
            .filter_map(slot_of)
            .map(|(slot, wanted)| Verdict {
                slot: slot.clone(),
                wanted: wanted.cloned(),
                accepted: false,
            })
            .collect();
        row.close(Some(status));
        let seq = row.seq;
        self.applied(seq, Some(status));
        (verdicts, settled)
    }

    /// The objects of which a change must now be taken for the answer.
    pub(super) fn merged(&mut self, now: Instant) -> Vec<ObjectName> {
        self.rows
            .iter()
            .filter(|row| row.is_open() && row.merged.is_some_and(|at| at <= now))
            .map(|row| row.object.clone())
            .collect()
    }

    /// Takes the copy as it stands for the answer, where that is due.
    pub(super) fn judge(&mut self, object: &ObjectName, mirror: &Mirror, now: Instant) -> Answered {
        let due = self
            .rows
            .iter_mut()
            .find(|row| row.is_write_of(object) && row.merged.is_some_and(|at| at <= now));
        let Some(row) = due else {
            return Answered::default();
        };
        let mut verdicts = Vec::new();
        let mut settled = Vec::new();
        let tickets = std::mem::take(&mut row.tickets);
        for (slot, wanted) in row.ops().iter().filter_map(slot_of) {
            let now = mirror.slots.get(slot);
            let accepted = now == wanted;
            verdicts.push(Verdict {
                slot: slot.clone(),
                wanted: wanted.cloned(),
                accepted,
            });
            let how = if accepted {
                Settled::Success(mirror.version)
            } else {
                Settled::Reject(now.cloned())
            };
            for (_, ticket) in tickets.iter().filter(|(of, _)| of.as_ref() == Some(slot)) {
                settled.push((*ticket, how.clone()));
            }
        }
        row.close(None);
        (verdicts, settled)
    }

    /// A message came back that may be one of ours, or somebody else's in the same words: it
    /// proves nothing. Where nothing better comes it is taken for ours.
    pub(super) fn echoed(&mut self, object: &ObjectName, payload: &Bytes) -> Option<Ticket> {
        let plain = self.plain;
        let row = self.rows.iter_mut().find(|row| {
            row.is_open()
                && !row.heard
                && row.object == *object
                && matches!(&row.ask, Ask::Send(ours) if ours == payload)
        })?;
        row.heard = true;
        if !plain {
            return None;
        }
        let ticket = row.end();
        let seq = row.seq;
        self.applied(seq, None);
        ticket
    }

    /// The message with this number was given out: who waits for it, and the message itself
    /// if it never came back, because it was given out where and when nobody listened for us.
    pub(super) fn sent(&mut self, seq: u64) -> (Option<Ticket>, Option<Bytes>) {
        let Some(row) = self.rows.iter_mut().find(|row| row.seq == seq) else {
            return (None, None);
        };
        let Ask::Send(payload) = &row.ask else {
            return (None, None);
        };
        let unheard = (!row.heard && row.state != State::Void).then(|| payload.clone());
        row.heard = true;
        let ticket = match row.state {
            State::Open => row.end(),
            State::Done | State::Void => None,
        };
        self.applied(seq, None);
        (ticket, unheard)
    }

    /// The primary does not tell senders apart: what came back must do for an answer.
    fn heard(&mut self) -> Vec<(ObjectName, Ticket)> {
        let open = self.rows.iter_mut().filter(|row| row.is_open());
        open.filter(|row| row.heard)
            .filter_map(|row| Some((row.object.clone(), row.end()?)))
            .collect()
    }

    /// When there is something to do.
    pub(super) fn deadline(&self, primary: bool, others: bool) -> Option<Instant> {
        let open = || self.rows.iter().filter(|row| row.is_open());
        let merged = open().filter_map(|row| row.merged);
        let expire = open()
            .filter(|row| !row.tickets.is_empty())
            .map(|row| row.first + SETTLE_PATIENCE);
        let overdue = open()
            .filter(|row| primary && others && row.must_be_answered())
            .filter_map(|row| row.sent)
            .map(|sent| sent + ANSWER_PATIENCE);
        merged.chain(expire).chain(overdue).min()
    }

    /// Whether the primary should have answered long ago.
    pub(super) fn overdue(&self, now: Instant) -> bool {
        self.rows.iter().any(|row| {
            row.is_open()
                && row.must_be_answered()
                && row.sent.is_some_and(|sent| sent + ANSWER_PATIENCE <= now)
        })
    }

    /// Whoever has waited for too long is told that nothing is known. The requests stay: they
    /// may be applied, and their numbers are taken.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(Ticket, Settled)> {
        let mut settled = Vec::new();
        for row in &mut self.rows {
            if row.is_open() && row.first + SETTLE_PATIENCE <= now {
                let tickets = row.tickets.drain(..);
                settled.extend(tickets.map(|(_, ticket)| (ticket, Settled::Undecided)));
                if let Ask::Send(_) = row.ask {
                    // There is nothing more to tell of it.
                    row.state = State::Done;
                }
            }
        }
        settled
    }

    /// Ends everything.
    pub(super) fn abandon(&mut self) -> Vec<(Ticket, Settled)> {
        let rows = self.rows.drain(..);
        rows.flat_map(|row| row.tickets)
            .map(|(_, ticket)| (ticket, Settled::Undecided))
            .collect()
    }

    /// A request was answered: if it is applied, all before it are.
    fn applied(&mut self, seq: u64, status: Option<ObjectStatus>) {
        if status.is_none() {
            self.applied = self.applied.max(seq);
        }
        while self.rows.front().is_some_and(|row| {
            !row.is_open() && (row.seq <= self.applied || self.rows.len() > ROWS_MAX)
        }) {
            self.rows.pop_front();
        }
    }
}

/// Requests that are remembered altogether. While no majority can be reached every answer is
/// a refusal that proves nothing; the edge uses their numbers up.
const ROWS_MAX: usize = WINDOW * 8;

impl Request {
    /// As it is asked. One that was answered is asked for again only because of its number:
    /// in its own words it would be answered again, and that would be taken for the answer to
    /// a later one.
    pub(super) fn output(&self, server: usize) -> Output {
        let ask = match (&self.ask, self.state) {
            (_, State::Void | State::Done) => {
                let slot = SlotName::new(NO_SLOT);
                ObjectAsk::Write(
                    slot.map(|slot| SlotOp::Remove { slot })
                        .into_iter()
                        .collect(),
                )
            }
            (Ask::Write(ops), State::Open) => ObjectAsk::Write(ops.clone()),
            (Ask::Send(payload), State::Open) => ObjectAsk::Send(payload.clone()),
        };
        Output::Ask {
            server,
            object: self.object.clone(),
            kind: self.kind,
            version: self.base,
            ask,
        }
    }

    fn ops(&self) -> &[SlotOp] {
        match &self.ask {
            Ask::Write(ops) => ops,
            Ask::Send(_) => &[],
        }
    }

    fn is_open(&self) -> bool {
        self.state == State::Open
    }

    fn is_write_of(&self, object: &ObjectName) -> bool {
        self.is_open() && matches!(self.ask, Ask::Write(_)) && self.object == *object
    }

    /// Who does not count requests does not give out again a message that was applied before,
    /// so silence means nothing.
    const fn must_be_answered(&self) -> bool {
        matches!(self.ask, Ask::Write(_)) || !self.again
    }

    /// A message has its answer. Who waits for it?
    fn end(&mut self) -> Option<Ticket> {
        self.state = State::Done;
        self.tickets.pop().map(|(_, ticket)| ticket)
    }

    fn close(&mut self, status: Option<ObjectStatus>) {
        self.merged = None;
        self.tickets.clear();
        self.state = match status {
            Some(ObjectStatus::Unavailable | ObjectStatus::Undecided) => State::Void,
            Some(
                ObjectStatus::BadPersistence
                | ObjectStatus::NoReadAccess
                | ObjectStatus::NoWriteAccess
                | ObjectStatus::CreationFailed,
            )
            | None => State::Done,
        };
    }
}

/// What an update says about one slot of a request.
struct Said<'a> {
    slot: &'a SlotName,
    wanted: Option<&'a SlotValue>,
    how: How,
    now: Option<&'a SlotValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Nothing,
    Accepted,
    Changed,
    Gone,
}

impl<'a> Said<'a> {
    fn of(slot: &'a SlotName, wanted: Option<&'a SlotValue>, update: &'a ObjectUpdate) -> Self {
        let mut said = Self {
            slot,
            wanted,
            how: How::Nothing,
            now: None,
        };
        for event in &update.events {
            match event {
                ObjectEvent::Success { slot: of } if of == slot => said.how = How::Accepted,
                ObjectEvent::Change { slot: of, value } if of == slot => {
                    // News about a slot may follow the acceptance in one message.
                    if said.how != How::Accepted {
                        said.how = How::Changed;
                    }
                    said.now = Some(value);
                }
                ObjectEvent::Remove { slot: of } if of == slot => {
                    if said.how != How::Accepted {
                        said.how = How::Gone;
                    }
                    said.now = None;
                }
                ObjectEvent::Success { .. }
                | ObjectEvent::Change { .. }
                | ObjectEvent::Remove { .. }
                | ObjectEvent::UseSuccess
                | ObjectEvent::Clear
                | ObjectEvent::Send(_)
                | ObjectEvent::Sent { .. }
                | ObjectEvent::Status(_) => {}
            }
        }
        said
    }
}

fn verdicts(
    said: &[Said<'_>],
    row: &Request,
    update: &ObjectUpdate,
    status: Option<ObjectStatus>,
) -> Answered {
    let mut verdicts = Vec::new();
    let mut settled = Vec::new();
    for said in said {
        let accepted = match said.how {
            How::Accepted => true,
            How::Gone => said.wanted.is_none() && status.is_none(),
            How::Changed | How::Nothing => false,
        };
        verdicts.push(Verdict {
            slot: said.slot.clone(),
            wanted: said.wanted.cloned(),
            accepted,
        });
        let how = match (accepted, status) {
            (true, _) => Settled::Success(update.version),
            (false, Some(status)) => Settled::refused(status),
            (false, None) => Settled::Reject(said.now.cloned()),
        };
        let tickets = row.tickets.iter();
        for (_, ticket) in tickets.filter(|(of, _)| of.as_ref() == Some(said.slot)) {
            settled.push((*ticket, how.clone()));
        }
    }
    (verdicts, settled)
}

impl Settled {
    const fn refused(status: ObjectStatus) -> Self {
        match status {
            ObjectStatus::Undecided => Self::Undecided,
            ObjectStatus::BadPersistence
            | ObjectStatus::NoReadAccess
            | ObjectStatus::NoWriteAccess
            | ObjectStatus::CreationFailed
            | ObjectStatus::Unavailable => Self::Refused(status),
        }
    }
}

/// Whether it is about a number that is used up, and of which nobody waits to hear.
pub(super) fn is_of_nothing(update: &ObjectUpdate) -> bool {
    let of_nothing = |event: &ObjectEvent| match event {
        ObjectEvent::Remove { slot } => slot.as_str() == NO_SLOT,
        ObjectEvent::UseSuccess
        | ObjectEvent::Clear
        | ObjectEvent::Change { .. }
        | ObjectEvent::Success { .. }
        | ObjectEvent::Send(_)
        | ObjectEvent::Sent { .. }
        | ObjectEvent::Status(_) => false,
    };
    update.events.iter().any(of_nothing)
}

/// The slot of a step and what it is to have.
const fn slot_of(op: &SlotOp) -> Option<(&SlotName, Option<&SlotValue>)> {
    match op {
        SlotOp::Set { slot, value } => Some((slot, Some(value))),
        SlotOp::Remove { slot } => Some((slot, None)),
        SlotOp::Clear => None,
    }
}
