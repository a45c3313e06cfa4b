//! The receiving side of a flow (RFC 7016 §3.6.3).
//!
//! Fragments that come in order are appended to the message in progress and never stored.
//! The others wait by number; in the order of arrival a message leaves as soon as a run of
//! them is whole. Data are copied once, out of the packet.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ReceiveId;
use super::seen::{Seen, SequenceSet};
use crate::chunk::{Chunk, Fragment, UserData, write_ack};
use crate::limits;
use crate::wire::{NoRoom, Writer};

/// In which order a flow's messages are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they were written; a message waits for what is before it.
    #[default]
    Original,
    /// As they become whole.
    Arrival,
}

/// A message that a flow handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its bytes.
    pub bytes: Bytes,
    /// The number of its first fragment: later messages have larger ones.
    pub sequence: u64,
    /// In original order: something before it was given up by the sender.
    pub gap: bool,
    /// When its first fragment came.
    pub began: Instant,
}

/// What a fragment tells besides its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// It has to be acknowledged at once (§3.6.3.4.1).
    pub(crate) urgent: bool,
    /// It was not taken for want of room: it counts as not received.
    pub(crate) dropped: bool,
}

/// A change of a flow's life that its owner is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Everything was received and handed out.
    Complete,
    /// It was rejected because a message became longer than is allowed.
    TooLong,
}

/// The receiver keeps the number of a flow for so long after it ended (§3.6.3.8).
const LINGER: Duration = Duration::from_secs(120);

/// The window that a sender has before the first acknowledgement, in bytes (§3.6.2).
const WINDOW_INITIAL: usize = 65_536;

/// What a stored fragment costs besides its data, in bytes.
const FRAGMENT_COST: usize = 64;

/// A sender may have sent a full window before it heard of a smaller one, and counts
/// headers where costs are counted here. Beyond so many times the buffer it ignores us.
const PATIENCE: usize = 4;

#[derive(Debug)]
struct Stored {
    fragment: Fragment,
    data: Bytes,
    came: Instant,
}

/// The message in progress at the head of the flow.
#[derive(Debug)]
struct Assembly {
    sequence: u64,
    data: Vec<u8>,
    began: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Open,
    Rejected,
    /// Everything came. The number is kept until then.
    Lingering(Instant),
}

/// The receiving side of one flow.
#[derive(Debug)]
pub(crate) struct Receive {
    id: u64,
    life: Life,
    /// What to tell the sender when the flow is not wanted.
    exception: Option<u64>,
    order: Order,
    suspended: bool,
    seen: SequenceSet,
    last: Option<u64>,
    /// The next number to hand to the message in progress.
    head: u64,
    assembly: Option<Assembly>,
    gap: bool,
    stored: BTreeMap<u64, Stored>,
    /// For the order of arrival: runs of stored fragments that belong together, first and
    /// last number.
    runs: BTreeMap<u64, u64>,
    /// What is ready; it stays here while the flow is suspended.
    ready: VecDeque<Delivered>,
    buffered: usize,
    capacity: usize,
    /// The window in the last acknowledgement, in blocks.
    advertised: Option<u64>,
    complete_told: bool,
    too_long: bool,
    /// An acknowledgement is due sooner or later.
    pub(crate) owes: bool,
}

impl Receive {
    pub(crate) fn new(id: ReceiveId, capacity: usize) -> Self {
        Self {
            id: id.0,
            life: Life::Open,
            exception: None,
            order: Order::Original,
            suspended: false,
            seen: SequenceSet::default(),
            last: None,
            head: 1,
            assembly: None,
            gap: false,
            stored: BTreeMap::new(),
            runs: BTreeMap::new(),
            ready: VecDeque::new(),
            buffered: 0,
            capacity,
            advertised: None,
            complete_told: false,
            too_long: false,
            owes: false,
        }
    }

    pub(crate) const fn id(&self) -> ReceiveId {
        ReceiveId(self.id)
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.life, Life::Open)
    }

    pub(crate) const fn lingers_until(&self) -> Option<Instant> {
        match self.life {
            Life::Lingering(until) => Some(until),
            Life::Open | Life::Rejected => None,
        }
    }

    /// Bytes held here, costs included.
    pub(crate) const fn buffered(&self) -> usize {
        self.buffered
    }

    /// Hands out in another order from now on.
    pub(crate) fn set_order(&mut self, order: Order) {
        if self.order == order {
            return;
        }
        self.order = order;
        self.runs = BTreeMap::new();
        if order == Order::Arrival {
            let stored: Vec<_> = self.stored.keys().copied().collect();
            for sequence in stored {
                self.join_runs(sequence);
            }
        }
    }

    /// Keeps messages here, or no longer.
    pub(crate) const fn suspend(&mut self, suspended: bool) {
        self.suspended = suspended;
    }

    /// The sender is told that the flow is not wanted (§3.6.3.7).
    pub(crate) fn reject(&mut self, code: u64) {
        if self.is_open() {
            self.life = Life::Rejected;
            self.exception = Some(code);
            self.complete_told = true;
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.assembly = None;
        self.stored = BTreeMap::new();
        self.runs = BTreeMap::new();
        self.ready = VecDeque::new();
        self.buffered = 0;
    }

    /// A fragment came. `room` is what the session has left for all its flows.
    pub(crate) fn handle_data(
        &mut self,
        data: &UserData<'_>,
        room: usize,
        now: Instant,
    ) -> Arrival {
        let mut urgent = !self.is_open()
            || self.advertised.is_some_and(|blocks| blocks < 2)
            || data.abandoned
            || self.seen.has_gaps();
        // Nothing follows the last number.
        if self.last.is_some_and(|last| data.sequence > last) {
            return Arrival {
                urgent: true,
                dropped: true,
            };
        }
        // A last number that the forward number covers is new all the same.
        let new = !self.seen.contains(data.sequence);
        self.advance(data.forward);
        let in_order = data.sequence == self.seen.cumulative().saturating_add(1);
        if new && !self.takes(data, in_order, room) {
            return Arrival {
                urgent: true,
                dropped: true,
            };
        }
        if new && data.last && self.last.is_none() {
            self.last = Some(data.sequence);
            urgent = true;
        }
        match self.seen.insert(data.sequence) {
            Seen::New => {}
            Seen::Before => {
                self.finish(now);
                return Arrival {
                    urgent: true,
                    dropped: false,
                };
            }
        }
        if self.is_open() {
            if data.abandoned {
                self.drain();
            } else if in_order {
                self.feed(data.sequence, data.fragment, data.data, now);
                self.drain();
            } else {
                self.store(data, now);
            }
        }
        urgent |= self.seen.has_gaps() || self.capacity < self.buffered + 1024;
        urgent |= self.finish(now);
        Arrival {
            urgent,
            dropped: false,
        }
    }

    /// The next message that is ready.
    pub(crate) fn poll_message(&mut self) -> Option<Delivered> {
        if self.suspended {
            return None;
        }
        let delivered = self.ready.pop_front()?;
        self.buffered -= delivered.bytes.len();
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        Some(delivered)
    }

    /// What happened to the flow and was not told yet. Ask when no message is ready.
    pub(crate) fn poll_told(&mut self) -> Option<Told> {
        if self.too_long {
            self.too_long = false;
            return Some(Told::TooLong);
        }
        if self.lingers_until().is_some() && !self.complete_told && self.ready.is_empty() {
            self.complete_told = true;
            return Some(Told::Complete);
        }
        None
    }

    /// Writes what is due to the sender: an exception, if there is one, and an
    /// acknowledgement. With `whole` it is not written unless all of it has room.
    pub(crate) fn write_ack(
        &mut self,
        out: &mut Writer<'_>,
        whole: bool,
        may_close: bool,
    ) -> Result<(), NoRoom> {
        let begun = out.len();
        if let Some(code) = self.exception {
            Chunk::FlowException {
                flow: self.id,
                code,
            }
            .write(out)?;
        }
        let blocks = self.window_blocks(may_close);
        let ranges = self.seen.beyond();
        let runs = ranges.clone().count();
        let written = write_ack(out, self.id, blocks, self.seen.cumulative(), ranges);
        if written.is_err() || (whole && written.is_ok_and(|written| written < runs)) {
            out.truncate(begun);
            return Err(NoRoom);
        }
        self.advertised = Some(blocks);
        self.owes = false;
        Ok(())
    }

    /// Whether the sender believes the window to be all but closed, and it is not.
    pub(crate) fn window_opened(&self, may_close: bool) -> bool {
        self.is_open()
            && self.advertised.is_some_and(|blocks| blocks < 2)
            && self.window_blocks(may_close) >= 2
    }

    /// §3.6.3.5. At least one block, so that a message that is longer than the buffer gets
    /// whole; none only when the messages are not taken.
    fn window_blocks(&self, may_close: bool) -> u64 {
        let free = self.capacity.saturating_sub(self.buffered);
        let least = u64::from(!(may_close && self.suspended));
        (free.div_ceil(1024) as u64).max(least)
    }

    fn limit(&self) -> usize {
        self.capacity.max(WINDOW_INITIAL)
    }

    /// Whether there is a place for a fragment that was not seen before. What is next in
    /// order always has one, so that the flow moves on, as long as messages are taken.
    fn takes(&self, data: &UserData<'_>, in_order: bool, room: usize) -> bool {
        let cost = data.data.len() + FRAGMENT_COST;
        let kept = self.is_open() && !data.abandoned;
        if in_order {
            return !kept
                || (room > 0 && (!self.suspended || self.buffered < PATIENCE * self.limit()));
        }
        self.seen.has_room(data.sequence)
            && (!kept || (cost <= room && self.buffered + cost <= PATIENCE * self.limit()))
    }

    /// Everything up to `forward` will not be sent any more.
    fn advance(&mut self, forward: u64) {
        if forward > self.seen.cumulative() {
            self.seen.advance(forward);
            if self.is_open() {
                self.drain();
            }
        }
    }

    /// Moves on when all is received. Says whether it did.
    fn finish(&mut self, now: Instant) -> bool {
        let complete = self.lingers_until().is_none()
            && self.last.is_some_and(|last| last <= self.seen.cumulative());
        if complete {
            self.life = Life::Lingering(now + LINGER);
            self.assembly = None;
            self.stored = BTreeMap::new();
            self.runs = BTreeMap::new();
            self.buffered = self.ready.iter().map(|ready| ready.bytes.len()).sum();
        }
        complete
    }

    fn store(&mut self, data: &UserData<'_>, now: Instant) {
        self.buffered += data.data.len() + FRAGMENT_COST;
        self.stored.insert(
            data.sequence,
            Stored {
                fragment: data.fragment,
                data: Bytes::copy_from_slice(data.data),
                came: now,
            },
        );
        if self.order == Order::Arrival {
            self.join_runs(data.sequence);
        }
    }

    fn take_stored(&mut self, sequence: u64) -> Option<Stored> {
        let stored = self.stored.remove(&sequence)?;
        self.buffered -= stored.data.len() + FRAGMENT_COST;
        Some(stored)
    }

    /// Hands the head what there is without a gap. What is missing there was given up, or
    /// left before in the order of arrival.
    fn drain(&mut self) {
        while self.head <= self.seen.cumulative() {
            if let Some(stored) = self.take_stored(self.head) {
                if let Some(to) = self.runs.remove(&self.head)
                    && to > self.head
                {
                    self.runs.insert(self.head + 1, to);
                }
                self.feed(self.head, stored.fragment, &stored.data, stored.came);
                continue;
            }
            self.drop_assembly();
            self.gap |= self.order == Order::Original;
            let cumulative = self.seen.cumulative();
            let next = self.stored.keys().next().copied();
            self.head = match next {
                Some(next) if next <= cumulative => next,
                Some(_) | None => cumulative.saturating_add(1),
            };
            if cumulative == u64::MAX {
                break;
            }
        }
    }

    /// The fragment at the head, which came then.
    fn feed(&mut self, sequence: u64, fragment: Fragment, data: &[u8], came: Instant) {
        self.head = sequence.saturating_add(1);
        match fragment {
            Fragment::Whole => {
                self.drop_assembly();
                self.deliver(sequence, Bytes::copy_from_slice(data), came);
            }
            Fragment::Begin => {
                self.drop_assembly();
                self.assembly = Some(Assembly {
                    sequence,
                    data: Vec::new(),
                    began: came,
                });
                self.append(data);
            }
            Fragment::Middle => self.append(data),
            Fragment::End => {
                self.append(data);
                if let Some(mut assembly) = self.assembly.take() {
                    self.buffered -= assembly.data.len();
                    // It may be kept for long, and is to take no more than it has.
                    assembly.data.shrink_to_fit();
                    self.deliver(assembly.sequence, assembly.data.into(), assembly.began);
                }
            }
        }
    }

    fn append(&mut self, data: &[u8]) {
        let Some(assembly) = &mut self.assembly else {
            return;
        };
        if assembly.data.len() + data.len() > limits::MESSAGE_MAX {
            self.reject(0);
            self.too_long = true;
            return;
        }
        assembly.data.extend_from_slice(data);
        self.buffered += data.len();
    }

    /// What the message in progress lacks will not come.
    fn drop_assembly(&mut self) {
        if let Some(assembly) = self.assembly.take() {
            self.buffered -= assembly.data.len();
            self.gap |= self.order == Order::Original;
        }
    }

    fn deliver(&mut self, sequence: u64, bytes: Bytes, began: Instant) {
        self.buffered += bytes.len();
        self.ready.push_back(Delivered {
            bytes,
            sequence,
            gap: std::mem::take(&mut self.gap),
            began,
        });
    }

    /// Joins a stored fragment with its neighbours, and hands the message out that this
    /// makes whole.
    fn join_runs(&mut self, sequence: u64) {
        let Some(own) = self.fragment_at(Some(sequence)) else {
            return;
        };
        let (mut from, mut to) = (sequence, sequence);
        let before = self.fragment_at(sequence.checked_sub(1));
        if continues(own)
            && before.is_some_and(is_continued)
            && let Some((begun, _)) = self.runs.range(..sequence).next_back()
        {
            from = *begun;
            self.runs.remove(&from);
        }
        let after = self.fragment_at(sequence.checked_add(1));
        if is_continued(own)
            && after.is_some_and(continues)
            && let Some(end) = self.runs.remove(&(sequence + 1))
        {
            to = end;
        }
        let has_begin = self
            .fragment_at(Some(from))
            .is_some_and(|it| !continues(it));
        let has_end = self
            .fragment_at(Some(to))
            .is_some_and(|it| !is_continued(it));
        if !has_begin || !has_end {
            self.runs.insert(from, to);
            return;
        }
        let Some(began) = self.stored.get(&from).map(|first| first.came) else {
            return;
        };
        let mut parts: Vec<Bytes> = Vec::new();
        for number in from..=to {
            parts.extend(self.take_stored(number).map(|stored| stored.data));
        }
        let whole = match parts.as_slice() {
            [only] => only.clone(),
            several => Bytes::from(several.concat()),
        };
        self.deliver(from, whole, began);
    }

    fn fragment_at(&self, number: Option<u64>) -> Option<Fragment> {
        self.stored.get(&number?).map(|stored| stored.fragment)
    }
}

/// Whether a fragment goes on with the message of the one before it.
const fn continues(fragment: Fragment) -> bool {
    match fragment {
        Fragment::Middle | Fragment::End => true,
        Fragment::Whole | Fragment::Begin => false,
    }
}

/// Whether the message of a fragment goes on in the one after it.
const fn is_continued(fragment: Fragment) -> bool {
    match fragment {
        Fragment::Begin | Fragment::Middle => true,
        Fragment::Whole | Fragment::End => false,
    }
}
