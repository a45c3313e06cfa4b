//! The sending side of a flow (RFC 7016 §3.6.2).
//!
//! ```text
//!  messages   ─ in order, with a deadline each; cut when their turn comes ─▶
//!  fragments  ─ numbered; waiting, in flight, or done ─▶ acknowledged in front: gone
//! ```
//!
//! A message whose deadline passes is abandoned, whatever became of its fragments so far.
//! Its numbers stay as gaps, and the far end is told by the forward sequence number that
//! nothing will come for them: with the next fragment that goes out, or, when there is none,
//! in a chunk of its own that is repeated until it is acknowledged. No gap is without such
//! news, so that no flow gets stuck behind one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::queue::{Life, Message, Piece, State, position};
use super::{Lost, MessageId, Options, Outstanding, Payload, Priority, SendId, SendStats};
use crate::chunk::{self, Chunk, Fragment, UserData};
use crate::limits;
use crate::option::{self, Options as WireOptions};
use crate::vlu;
use crate::wire::{NoRoom, Writer};

/// What filling a packet came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// All that may be sent was.
    Done,
    /// The packet is full and there is more.
    NoRoom,
}

/// The first window, before the far end told one (§3.6.2), in bytes.
const WINDOW_INITIAL: u64 = 65_536;

/// A message is not begun in a packet with less room than this, unless it fits whole: a
/// chunk has a header of its own.
const CUT_MIN: usize = 160;

/// Between two probes of a closed window: at first, and at most (§3.6.2.9.1).
const PROBE_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Instant,
    every: Duration,
}

/// The sending side of one flow.
#[derive(Debug)]
pub(crate) struct Send {
    id: u64,
    /// Encoded options, until the first acknowledgement.
    startup: Option<Bytes>,
    time_critical: bool,
    life: Life,
    rejected: bool,
    messages: VecDeque<Message>,
    /// The number of the first one in `messages`.
    first_message: u64,
    /// The message to cut next, and how much of it was cut.
    cut: (u64, usize),
    pieces: VecDeque<Piece>,
    /// The sequence number of the first one in `pieces`.
    first: u64,
    /// No piece before this number waits, except abandoned ones.
    resend_from: u64,
    last: Option<u64>,
    /// The far end has or gave up everything up to this number.
    acknowledged: u64,
    window: u64,
    outstanding: u64,
    probe: Option<Probe>,
    /// No message that is not over has a deadline before this.
    pub(crate) expires: Option<Instant>,
    /// Someone was refused and is to be told when there is room.
    pub(crate) wanted: bool,
    /// In which list of ready flows of the session this one is, and under which ticket:
    /// entries with another one are stale.
    pub(crate) listed: Option<Priority>,
    pub(crate) ticket: u32,
    stats: SendStats,
}

impl Send {
    pub(crate) fn new(id: SendId, metadata: &[u8], options: Options) -> Self {
        let mut buffer = [0; limits::METADATA_MAX + 4 * vlu::LEN_MAX];
        let mut out = Writer::new(&mut buffer);
        let association = options.association.map(|flow| flow.0);
        // The room is enough for any metadata that the session lets pass.
        let _ = option::write_flow_options(&mut out, metadata, association);
        Self {
            id: id.0,
            startup: Some(Bytes::copy_from_slice(out.written())),
            time_critical: options.time_critical,
            life: Life::Open,
            rejected: false,
            messages: VecDeque::new(),
            first_message: 0,
            cut: (0, 0),
            pieces: VecDeque::new(),
            first: 1,
            resend_from: 1,
            last: None,
            acknowledged: 0,
            window: WINDOW_INITIAL,
            outstanding: 0,
            probe: None,
            expires: None,
            wanted: false,
            listed: None,
            ticket: 0,
            stats: SendStats::default(),
        }
    }

    pub(crate) const fn id(&self) -> SendId {
        SendId(self.id)
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.life, Life::Open)
    }

    /// Whether the far end has all of it, the end included.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.life, Life::Over)
    }

    pub(crate) const fn is_time_critical(&self) -> bool {
        self.time_critical
    }

    pub(crate) const fn queued_bytes(&self) -> usize {
        self.stats.queued_bytes
    }

    pub(crate) fn queued_messages(&self) -> usize {
        self.messages.len()
    }

    pub(crate) const fn stats(&self) -> SendStats {
        let mut stats = self.stats;
        stats.outstanding_bytes = self.outstanding;
        stats
    }

    /// Whether nothing of it was ever sent: the far end does not know of it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.first == 1 && self.pieces.iter().all(|piece| !piece.ever_sent)
    }

    /// Queues a message.
    pub(crate) fn write(
        &mut self,
        payload: Payload,
        priority: Priority,
        deadline: Option<Instant>,
    ) -> MessageId {
        let len = payload.len();
        self.messages.push_back(Message {
            payload,
            len,
            priority,
            deadline,
            first: None,
            open: 0,
            wholly_cut: false,
            abandoned: false,
        });
        self.stats.queued_bytes += len;
        self.expires = match (self.expires, deadline) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
        MessageId(self.first_message + self.messages.len() as u64 - 1)
    }

    /// Gives a message up. One that is over already stays as it is.
    pub(crate) fn abandon(&mut self, message: MessageId) -> bool {
        let Some(found) = position(message.0, self.first_message)
            .and_then(|at| self.messages.get_mut(at))
            .filter(|found| !found.is_over())
        else {
            return false;
        };
        found.abandoned = true;
        found.payload = Payload::EMPTY;
        self.stats.queued_bytes -= found.len;
        self.stats.abandoned += 1;
        let cut_to_the_end = found.wholly_cut;
        if let Some(at) = found.first.map(|first| first.max(self.first)) {
            let from = position(at, self.first).unwrap_or(0);
            for piece in self.pieces.range_mut(from.min(self.pieces.len())..) {
                if piece.message != message.0 {
                    break;
                }
                piece.abandoned = true;
            }
        }
        if !cut_to_the_end && message.0 == self.cut.0 {
            self.skip_abandoned();
        }
        self.forget_messages();
        true
    }

    /// Gives up what is late at `now` and tells `late` of each.
    pub(crate) fn expire(&mut self, now: Instant, mut late: impl FnMut(MessageId)) {
        if self.expires.is_none_or(|expires| expires > now) {
            return;
        }
        let mut number = self.first_message;
        while let Some(message) =
            position(number, self.first_message).and_then(|at| self.messages.get(at))
        {
            if message.is_late(now) {
                self.abandon(MessageId(number));
                late(MessageId(number));
            }
            number = (number + 1).max(self.first_message);
        }
        self.expires = self
            .messages
            .iter()
            .filter(|message| !message.is_over())
            .filter_map(|message| message.deadline)
            .min();
    }

    /// No message follows (§3.6.2.11).
    pub(crate) fn close(&mut self) {
        if self.is_open() {
            self.life = Life::Closing;
            self.settle_last();
        }
    }

    /// The far end wants none of it (§3.6.2.10). Says whether that is news.
    pub(crate) fn handle_exception(&mut self) -> bool {
        let news = self.is_open();
        self.rejected = true;
        self.probe = None;
        for number in self.first_message..self.first_message + self.messages.len() as u64 {
            self.abandon(MessageId(number));
        }
        for piece in &mut self.pieces {
            piece.abandoned = true;
        }
        self.close();
        news
    }

    /// The far end has these numbers. Returns how many bytes in flight that answers.
    pub(crate) fn acknowledge(&mut self, from: u64, to: u64, outstanding: &mut Outstanding) -> u64 {
        let before = self.outstanding;
        let from = position(from.max(self.first), self.first).unwrap_or(usize::MAX);
        let to = match to.checked_sub(self.first) {
            Some(to) => usize::try_from(to).map_or(usize::MAX, |to| to.saturating_add(1)),
            None => 0,
        };
        let to = to.min(self.pieces.len());
        if from >= to {
            return 0;
        }
        for piece in self.pieces.range_mut(from..to) {
            match piece.state {
                State::InFlight(transmission) => {
                    self.outstanding -= outstanding.acknowledge(transmission);
                }
                // It was taken for lost, but came.
                State::Waiting if piece.ever_sent => {}
                State::Waiting | State::Done => continue,
            }
            piece.state = State::Done;
            let message = position(piece.message, self.first_message)
                .and_then(|at| self.messages.get_mut(at))
                .filter(|message| !message.abandoned);
            if let Some(message) = message {
                message.open -= 1;
                if message.is_over() {
                    message.payload = Payload::EMPTY;
                    self.stats.queued_bytes -= message.len;
                    self.stats.delivered += 1;
                }
            }
        }
        before - self.outstanding
    }

    /// What an acknowledgement tells besides the numbers: how far there is no gap and what
    /// may be in flight.
    pub(crate) fn handle_window(
        &mut self,
        cumulative: u64,
        window: u64,
        now: Instant,
        timeout: Duration,
    ) {
        self.startup = None;
        let highest = self.next_sequence() - 1;
        // An acknowledgement that was overtaken by another one tells an old window.
        if cumulative >= self.acknowledged {
            self.acknowledged = cumulative.min(highest);
            self.window = window;
            if window > 0 || self.rejected {
                self.probe = None;
            } else if self.probe.is_none() {
                let every = PROBE_EVERY.0.max(timeout);
                self.probe = Some(Probe {
                    at: now + every,
                    every,
                });
            }
        }
        self.forget_pieces();
        self.forget_messages();
        self.repeat_news();
        if self.life == Life::Closing && self.last.is_some() && self.pieces.is_empty() {
            self.life = Life::Over;
        }
    }

    /// A transmission is lost.
    pub(crate) fn handle_lost(&mut self, lost: Lost) {
        let found = position(lost.sequence, self.first).and_then(|at| self.pieces.get_mut(at));
        if let Some(piece) = found
            && piece.state == State::InFlight(lost.transmission)
        {
            piece.state = State::Waiting;
            self.outstanding -= lost.size;
            self.resend_from = self.resend_from.min(lost.sequence);
        }
    }

    /// When a probe of the closed window is due.
    pub(crate) fn probe_at(&self) -> Option<Instant> {
        let probe = self.probe.filter(|_| self.has_unsent())?;
        Some(probe.at)
    }

    /// Asks how large the window is (§3.6.2.9.1). A peer that takes the chunk for this amiss
    /// gets a repetition of the forward sequence number, which it has to acknowledge.
    pub(crate) fn write_probe(
        &mut self,
        now: Instant,
        timeout: Duration,
        understands_probe: bool,
        out: &mut Writer<'_>,
    ) -> Result<(), NoRoom> {
        let Some(probe) = &mut self.probe else {
            return Ok(());
        };
        probe.every = (probe.every * 2).min(PROBE_EVERY.1.max(timeout));
        probe.at = now + probe.every;
        if understands_probe {
            return Chunk::BufferProbe { flow: self.id }.write(out);
        }
        if self.acknowledged == 0 {
            return Ok(());
        }
        Chunk::UserData(UserData {
            flow: self.id,
            sequence: self.acknowledged,
            forward: self.acknowledged,
            fragment: Fragment::Whole,
            abandoned: true,
            last: self.last == Some(self.acknowledged),
            options: None,
            data: &[],
        })
        .write(out)
    }

    /// The priority of what is next, when something may be sent.
    pub(crate) fn ready(&mut self, now: Instant, late: impl FnMut(MessageId)) -> Option<Priority> {
        self.expire(now, late);
        let message = match self.next()? {
            Next::Piece(at) => self.pieces.get(at).map(|piece| piece.message),
            Next::Cut => Some(self.cut.0),
        };
        let message = message
            .and_then(|number| position(number, self.first_message))
            .and_then(|at| self.messages.get(at));
        // News without a message: small, and the far end waits for them.
        Some(message.map_or(Priority::Control, |message| message.priority))
    }

    /// Writes what may be sent into a packet, and records it in `outstanding`.
    ///
    /// The rest of the packet has room for a whole fragment when `empty` is said of it.
    pub(crate) fn fill(
        &mut self,
        out: &mut Writer<'_>,
        outstanding: &mut Outstanding,
        mut empty: bool,
    ) -> Filled {
        let mut before: Option<UserData<'static>> = None;
        while let Some(next) = self.next() {
            let begun = out.len();
            let at = match next {
                Next::Piece(at) => at,
                Next::Cut => {
                    let room = self.room_to_cut(out.room(), before.as_ref());
                    match self.cut_next(room, empty) {
                        Some(at) => at,
                        None => return Filled::NoRoom,
                    }
                }
            };
            match self.write_piece(at, before.as_ref(), out) {
                Ok(header) => before = Some(header),
                Err(NoRoom) => {
                    out.truncate(begun);
                    return Filled::NoRoom;
                }
            }
            let size = u16::try_from(out.len() - begun).unwrap_or(u16::MAX);
            let sequence = self.first + at as u64;
            if let Some(piece) = self.pieces.get_mut(at) {
                self.stats.resent += u64::from(piece.ever_sent && !piece.abandoned);
                piece.state = State::InFlight(outstanding.send(self.id, sequence, size));
                piece.ever_sent = true;
                piece.sent_abandoned = piece.abandoned;
            }
            self.outstanding += u64::from(size);
            empty = false;
        }
        Filled::Done
    }

    fn next_sequence(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    fn has_unsent(&self) -> bool {
        self.has_uncut()
            || self
                .pieces
                .iter()
                .any(|piece| piece.state == State::Waiting)
    }

    fn has_uncut(&self) -> bool {
        self.cut.0 < self.first_message + self.messages.len() as u64
    }

    /// What may be sent next (§3.6.2.3).
    fn next(&mut self) -> Option<Next> {
        if self.window <= self.outstanding && !self.rejected {
            return None;
        }
        self.trim();
        let front = self.pieces.front();
        if front.is_some_and(|piece| piece.state == State::Waiting && piece.abandoned) {
            return Some(Next::Piece(0));
        }
        let from = position(self.resend_from.max(self.first), self.first).unwrap_or(0);
        for at in from..self.pieces.len() {
            let piece = &self.pieces[at];
            let sequence = self.first + at as u64;
            let last = self.last == Some(sequence);
            if piece.state == State::Waiting && (!piece.abandoned || last) {
                self.resend_from = sequence;
                return Some(Next::Piece(at));
            }
        }
        self.resend_from = self.next_sequence();
        self.has_uncut().then_some(Next::Cut)
    }

    /// Drops what is given up in front, as long as something that is still to be sent will
    /// carry the news. Otherwise the front stays, to be sent itself.
    fn trim(&mut self) {
        loop {
            self.forget_pieces();
            let Some(front) = self.pieces.front() else {
                return;
            };
            if front.state != State::Waiting || !front.abandoned {
                return;
            }
            let following = self
                .pieces
                .iter()
                .skip(1)
                .find(|piece| piece.state != State::Done);
            match following {
                Some(piece) if piece.state == State::Waiting => {}
                None if self.has_uncut() => {}
                Some(_) | None => return,
            }
            self.pieces.pop_front();
            self.first += 1;
        }
    }

    /// A fragment that carried the news of a gap can be acknowledged because an earlier
    /// transmission of it arrived, which did not carry them. When nothing is left that could
    /// and the far end still waits, the last number goes out once more, abandoned.
    fn repeat_news(&mut self) {
        if self.pieces.is_empty() && self.acknowledged + 1 < self.first {
            self.pieces.push_front(Piece::gap());
            self.first -= 1;
        }
    }

    /// The number up to which nothing will be sent again (§3.6.2.3).
    fn forward(&self) -> u64 {
        match self.pieces.front() {
            Some(front) if front.abandoned => match front.state {
                State::InFlight(_) if !front.sent_abandoned => self.first - 1,
                State::InFlight(_) | State::Waiting | State::Done => self.first,
            },
            Some(_) | None => self.first - 1,
        }
    }

    /// How many bytes of a message fit in `room` with a chunk's header.
    fn room_to_cut(&self, room: usize, before: Option<&UserData<'_>>) -> usize {
        let sequence = self.next_sequence();
        let forward = self.forward();
        let follows = before
            .is_some_and(|before| before.sequence + 1 == sequence && before.forward == forward);
        let mut header = chunk::HEADER_LEN + 1;
        if !follows {
            header += vlu::len(self.id) + vlu::len(sequence) + vlu::len(sequence - forward);
        }
        if before.is_none()
            && let Some(startup) = &self.startup
        {
            header += startup.len() + 1;
        }
        room.saturating_sub(header)
    }

    /// Cuts a fragment of at most `room` bytes off the message whose turn it is. Nothing
    /// when there is too little room to begin with it, unless `empty`: then there never is
    /// more.
    fn cut_next(&mut self, room: usize, empty: bool) -> Option<usize> {
        let (number, offset) = self.cut;
        let sequence = self.next_sequence();
        let message =
            position(number, self.first_message).and_then(|at| self.messages.get_mut(at))?;
        let rest = message.len - offset;
        if rest > room && (room == 0 || (room < CUT_MIN && !empty)) {
            return None;
        }
        let taken = rest.min(room).min(usize::from(u16::MAX));
        let ends = taken == rest;
        let fragment = match (offset == 0, ends) {
            (true, true) => Fragment::Whole,
            (true, false) => Fragment::Begin,
            (false, true) => Fragment::End,
            (false, false) => Fragment::Middle,
        };
        message.first.get_or_insert(sequence);
        message.open += 1;
        message.wholly_cut = ends;
        self.pieces.push_back(Piece {
            message: number,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            len: u16::try_from(taken).unwrap_or(u16::MAX),
            fragment,
            state: State::Waiting,
            ever_sent: false,
            abandoned: false,
            sent_abandoned: false,
        });
        if ends {
            self.cut = (number + 1, 0);
            self.skip_abandoned();
            if self.life == Life::Closing && !self.has_uncut() && self.last.is_none() {
                self.last = Some(self.next_sequence() - 1);
            }
        } else {
            self.cut.1 += taken;
        }
        usize::try_from(sequence - self.first).ok()
    }

    /// Steps over messages that were given up before all of them was cut, and leaves a
    /// number in their place: the far end has to see the gap.
    fn skip_abandoned(&mut self) {
        let mut any = false;
        while position(self.cut.0, self.first_message)
            .and_then(|at| self.messages.get(at))
            .is_some_and(|message| message.abandoned)
        {
            self.cut = (self.cut.0 + 1, 0);
            any = true;
        }
        if any {
            let gap_before = self
                .pieces
                .back()
                .is_some_and(|piece| piece.abandoned && !piece.ever_sent);
            if !gap_before {
                self.pieces.push_back(Piece::gap());
            }
            self.settle_last();
        }
    }

    /// Decides the last number of a flow that closes, once every message was cut.
    fn settle_last(&mut self) {
        if self.life != Life::Closing || self.has_uncut() || self.last.is_some() {
            return;
        }
        if self.pieces.back().is_none_or(|piece| piece.ever_sent) {
            self.pieces.push_back(Piece::gap());
        }
        let last = self.next_sequence() - 1;
        self.last = Some(last);
        self.resend_from = self.resend_from.min(last);
    }

    /// Writes the chunk of a piece and returns its header for the one after it.
    fn write_piece(
        &self,
        at: usize,
        before: Option<&UserData<'_>>,
        out: &mut Writer<'_>,
    ) -> Result<UserData<'static>, NoRoom> {
        let piece = self.pieces.get(at).ok_or(NoRoom)?;
        let sequence = self.first + at as u64;
        let begun = out.len();
        let header = UserData {
            flow: self.id,
            sequence,
            forward: self.forward(),
            fragment: piece.fragment,
            abandoned: piece.abandoned,
            last: self.last == Some(sequence),
            options: None,
            data: &[],
        };
        if before.is_some_and(|before| header.follows(before)) {
            Chunk::NextUserData(header).write(out)?;
        } else {
            let options = self
                .startup
                .as_ref()
                .filter(|_| before.is_none())
                .and_then(|startup| WireOptions::parse_all(startup));
            Chunk::UserData(UserData { options, ..header }).write(out)?;
        }
        if !piece.abandoned {
            let message = position(piece.message, self.first_message)
                .and_then(|at| self.messages.get(at))
                .ok_or(NoRoom)?;
            let offset = usize::try_from(piece.offset).map_err(|_| NoRoom)?;
            let range = offset..offset + usize::from(piece.len);
            message.payload.write(range, out)?;
            let len = out.len() - begun - chunk::HEADER_LEN;
            out.patch_u16(begun + 1, u16::try_from(len).map_err(|_| NoRoom)?);
        }
        Ok(header)
    }

    fn forget_pieces(&mut self) {
        while self
            .pieces
            .front()
            .is_some_and(|piece| piece.state == State::Done)
        {
            self.pieces.pop_front();
            self.first += 1;
        }
    }

    fn forget_messages(&mut self) {
        while self.cut.0 > self.first_message && self.messages.front().is_some_and(Message::is_over)
        {
            self.messages.pop_front();
            self.first_message += 1;
        }
        // Most flows are idle, and there are many.
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    /// Gives memory back that a burst needed.
    pub(crate) fn shrink(&mut self) {
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }
}

enum Next {
    /// A piece that was cut before.
    Piece(usize),
    /// The message whose turn it is to be cut.
    Cut,
}
