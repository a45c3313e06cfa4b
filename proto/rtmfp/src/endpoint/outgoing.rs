//! Datagrams that go out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{BATCH_MAX, Batch, Endpoint, Entry, Event, Output, SessionId, queue};
use crate::crypto::{Shape, Suite};
use crate::limits;
use crate::packet::{SESSION_ID_LEN, seal_multiplex};
use crate::session;
use crate::startup::Opening;

/// What is due no sooner than this is not urgent: idle sessions wait for such things.
const FAR: Duration = Duration::from_secs(5);

/// What is not urgent waits for the next moment of these, so that the pings of many sessions
/// cost one awakening.
const TOGETHER: Duration = Duration::from_millis(125);

/// When to do what is due at `at`.
fn together(origin: Instant, at: Instant, now: Instant) -> Instant {
    if at < now + FAR {
        return at;
    }
    let late = at.saturating_duration_since(origin).as_millis() % TOGETHER.as_millis();
    let rest = TOGETHER.saturating_sub(Duration::from_millis(u64::try_from(late).unwrap_or(0)));
    // Whole milliseconds, of the clock too.
    let part = at.saturating_duration_since(origin).subsec_nanos() % 1_000_000;
    at + rest - Duration::from_nanos(u64::from(part))
}

impl Endpoint {
    /// The next datagram, event or deadline. `buffer` has room for
    /// [`limits::STARTUP_DATAGRAM_MAX`] bytes.
    pub fn poll_output(&mut self, now: Instant, buffer: &mut [u8]) -> Output {
        self.poll_batch(now, buffer, 1).output
    }

    /// The same, with up to `max` datagrams of a session at once, as far as `buffer` has
    /// room and no more than [`BATCH_MAX`].
    pub fn poll_batch(&mut self, now: Instant, buffer: &mut [u8], max: usize) -> Batch {
        self.run_openings(now);
        let alone = |output, segment| Batch { output, segment };
        loop {
            if let Some(event) = self.events.pop_front() {
                return alone(Output::Event(event), 0);
            }
            if let Some((to, datagram)) = self.outbox.pop_front() {
                let len = datagram.len();
                if let Some(room) = buffer.get_mut(..len) {
                    room.copy_from_slice(&datagram);
                    return alone(Output::Transmit { to, len }, len);
                }
                continue;
            }
            if let Some(id) = self.ready.pop_front() {
                if let Some(batch) = self.poll_session(id, now, buffer, max) {
                    return batch;
                }
                continue;
            }
            match self.timers.first() {
                Some(&(at, id)) if at <= now => {
                    self.timers.pop_first();
                    if let Some(entry) = self.sessions.get_mut(&id) {
                        entry.deadline = None;
                        entry.session.handle_timeout(now);
                        queue(&mut self.ready, id, entry);
                    }
                }
                first => {
                    let session = first.map(|(at, _)| *at);
                    let opening = self.openings.values().map(Opening::next_deadline).min();
                    let due = match (session, opening) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    };
                    return alone(Output::Timeout(due), 0);
                }
            }
        }
    }

    /// What a session on the list has. Nothing when it has nothing for the owner itself.
    fn poll_session(
        &mut self,
        id: u32,
        now: Instant,
        buffer: &mut [u8],
        max: usize,
    ) -> Option<Batch> {
        let entry = self.sessions.get_mut(&id)?;
        entry.queued = false;
        if let Some(event) = entry.session.poll_event() {
            queue(&mut self.ready, id, entry);
            let output = self.session_event(id, event, now).map(Output::Event)?;
            return Some(Batch { output, segment: 0 });
        }
        if let Some((batch, rest)) = entry.transmit(buffer, max, now) {
            queue(&mut self.ready, id, entry);
            self.outbox.extend(rest);
            return Some(batch);
        }
        if entry.session.is_closed() {
            self.forget(id);
            return None;
        }
        let due = entry.session.next_deadline().map(|deadline| deadline.at);
        let due = due.map(|at| together(self.origin, at, now));
        let changes = match (due, entry.deadline) {
            // One that moves on is looked at again when it would have been due: it moves
            // with every packet. An idle session is not to be woken for that.
            (Some(due), Some(before)) => due < before || due > before + FAR,
            (due, before) => due != before,
        };
        if changes {
            if let Some(before) = entry.deadline {
                self.timers.remove(&(before, id));
            }
            entry.deadline = due;
            self.timers.extend(due.map(|at| (at, id)));
        }
        None
    }

    /// Acts on what concerns the endpoint, and hands the rest on.
    fn session_event(&mut self, id: u32, event: session::Event, now: Instant) -> Option<Event> {
        if let session::Event::ForwardedHello {
            discriminator,
            reply,
            tag,
        } = &event
        {
            let hello = crate::chunk::InitiatorHello { discriminator, tag };
            if !self.forwarded.take(now) {
                self.stats.limited += 1;
                return None;
            }
            self.answer_hello(&hello, reply.at, limits::DATAGRAM_MAX, now);
            return None;
        }
        if let session::Event::Moved { to, .. } = &event
            && let Some(entry) = self.sessions.get_mut(&id)
        {
            if self.by_address.get(&entry.bound) == Some(&id) {
                self.by_address.remove(&entry.bound);
            }
            entry.bound = *to;
            self.by_address.insert(*to, id);
        }
        let session = SessionId(id);
        let told = self.sessions.get(&id).is_some_and(|entry| entry.told);
        told.then_some(Event::Session { session, event })
    }
}

/// A datagram that goes after a batch: where, and all of it.
type Straggler = (SocketAddr, Vec<u8>);

impl Entry {
    /// Writes up to `max` datagrams in a row, all of one length but for the last. One that
    /// turned out to be longer, or goes elsewhere, is sent by itself after them.
    fn transmit(
        &mut self,
        buffer: &mut [u8],
        max: usize,
        now: Instant,
    ) -> Option<(Batch, Option<Straggler>)> {
        let plain_max = self.suite.plain_max(limits::DATAGRAM_MAX - SESSION_ID_LEN);
        let (mut to, mut stride) = (None, 0);
        let mut plain = [0; BATCH_MAX];
        let (mut count, mut rest) = (0, None);
        while count < max.clamp(1, BATCH_MAX) {
            let at = count * stride;
            let Some(room) = buffer.get_mut(at..at + limits::DATAGRAM_MAX) else {
                break;
            };
            let begin = SESSION_ID_LEN + self.suite.head_len_ahead(count);
            let end = room.len().min(begin + plain_max);
            let Some(packet) = self.session.poll_transmit(&mut room[begin..end], now) else {
                break;
            };
            let len = SESSION_ID_LEN + self.suite.sealed_len(count, packet.len);
            if count == 0 {
                (to, stride) = (Some(packet.to), len);
            } else if to != Some(packet.to) || len > stride {
                rest = Some((at, packet));
                break;
            }
            plain[count] = packet.len;
            count += 1;
            if len < stride {
                break;
            }
        }
        let to = to?;
        let skip = SESSION_ID_LEN;
        let row_len = rest.map_or(count * stride, |(at, _)| at);
        let row = buffer.get_mut(..row_len)?;
        let len = self
            .suite
            .seal_row(row, Shape { stride, skip }, &plain[..count]);
        let len = len.ok()?;
        for datagram in row[..len].chunks_mut(stride) {
            seal_multiplex(datagram, self.far_id);
        }
        let rest = rest.and_then(|(at, packet)| {
            let sealed = buffer.get_mut(at + skip..)?;
            let len = skip + self.suite.seal(sealed, packet.len).ok()?;
            let datagram = buffer.get_mut(at..at + len)?;
            seal_multiplex(datagram, self.far_id);
            Some((packet.to, datagram.to_vec()))
        });
        let output = Output::Transmit { to, len };
        let segment = stride;
        Some((Batch { output, segment }, rest))
    }
}
