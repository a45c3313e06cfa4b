//! What happens when nothing comes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Closed, Deadline, Event, Session, State, earliest};
use crate::congestion::BURST;
use crate::limits;

/// A request to close is repeated after so long, and given up after so long (§3.5.5).
const CLOSE_EVERY: Duration = Duration::from_secs(5);
pub(super) const CLOSE_FOR: Duration = Duration::from_secs(90);

impl Session {
    /// When [`Self::handle_timeout`] has to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Deadline> {
        let (first, rest): (Option<Deadline>, &[_]) = match self.state {
            State::Closed => (None, &[]),
            State::FarCloseLinger { until } => (due(Some(until), "the far end closed"), &[]),
            State::NearClose { since, due: at } => (
                due(Some(at.min(since + CLOSE_FOR)), "closing is not answered"),
                &[],
            ),
            State::Open => (
                due(Some(self.heard + self.config.silence_max), "silence"),
                &[
                    due(Some(self.ping_at()), "ping"),
                    due(self.ack_at, "delayed acknowledgement"),
                    due(self.resend_at, "retransmission"),
                    due(self.pace_at, "more after a burst"),
                    due(self.expire_at, "message deadline"),
                    due(self.probe_at, "closed window"),
                    due(self.forget_at, "ended flow"),
                    due(self.mobility.deadline(), "address check"),
                    due(
                        self.unacknowledged_since
                            .map(|since| since + self.config.unacknowledged_max),
                        "nothing is acknowledged",
                    ),
                ],
            ),
        };
        rest.iter()
            .copied()
            .chain([first])
            .flatten()
            .min_by_key(|deadline| deadline.at)
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Open => self.handle_open_timeout(now),
            State::NearClose { since, .. } if since + CLOSE_FOR <= now => {
                self.state = State::Closed;
            }
            State::FarCloseLinger { until } if until <= now => self.state = State::Closed,
            State::NearClose { .. } | State::FarCloseLinger { .. } | State::Closed => {}
        }
    }

    fn handle_open_timeout(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if self.heard + self.config.silence_max <= now {
            return self.give_up(Closed::Silent);
        }
        let unacknowledged = self.unacknowledged_since;
        if is_due(unacknowledged.map(|since| since + self.config.unacknowledged_max)) {
            return self.give_up(Closed::Unacknowledged);
        }
        if is_due(self.ack_at) {
            self.ack_at = None;
            self.ack_now = true;
        }
        if is_due(self.resend_at) {
            self.handle_resend(now);
        }
        if let Some(at) = self.pace_at.filter(|at| *at <= now) {
            self.handle_pace(at, now);
        }
        if is_due(self.expire_at) {
            self.expire_messages(now);
        }
        if is_due(self.probe_at) {
            self.probe_at = None;
            self.probe_due = true;
        }
        if is_due(self.forget_at) {
            self.forget_ended(now);
        }
        if self.ping_at() <= now {
            self.ping_due = true;
            self.save_memory(now);
        }
    }

    fn give_up(&mut self, why: Closed) {
        self.end(why);
        self.close_ack_due = why == Closed::Unacknowledged;
        self.state = State::Closed;
    }

    /// Asks whether the far end is there with the next packet, whatever else is in it.
    pub(crate) fn ask_at_once(&mut self) {
        self.ping_due = true;
    }

    /// When to ask whether the far end is there. Silence while data are under way is
    /// looked into early, and later questions follow at growing distances.
    pub(super) fn ping_at(&self) -> Instant {
        let alert = self.alert || !self.outstanding.is_empty();
        match self.pinged {
            Some(pinged) if self.pings_unanswered > 0 => {
                let doubled = (self.pings_unanswered - 1).min(6);
                let wait = self.config.stall.max(self.trip.timeout()) * (1 << doubled);
                pinged + wait.min(self.config.keepalive)
            }
            Some(_) | None if alert => self.heard + self.config.stall.min(self.config.keepalive),
            Some(_) | None => self.heard + self.config.keepalive,
        }
    }

    /// Everything in flight is lost (§3.6.2.6).
    fn handle_resend(&mut self, now: Instant) {
        self.resend_at = None;
        let lost = self.lose_all(now);
        if lost {
            self.stats.timeouts += 1;
            self.trip.back_off();
        }
        let next = self.outstanding.next();
        self.congestion.handle_timeout(lost, next);
    }

    /// As much may follow a burst as the time allows: timers are coarser than a fast path.
    fn handle_pace(&mut self, at: Instant, now: Instant) {
        self.pace_at = None;
        let pace = self.pace();
        let late = now.saturating_duration_since(at).as_nanos();
        let more = late.checked_div(pace.as_nanos()).unwrap_or(u128::MAX);
        let packets = more.saturating_add(1).min(BURST.into());
        self.congestion
            .handle_pace(u8::try_from(packets).unwrap_or(BURST));
    }

    /// The time from packet to packet when a window goes out evenly.
    pub(super) fn pace(&self) -> Duration {
        self.congestion
            .pace(self.trip.smoothed().unwrap_or_default())
    }

    fn lose_all(&mut self, now: Instant) -> bool {
        let (sends, stats) = (&mut self.sends, &mut self.stats);
        let any = self.outstanding.take_all(|lost| {
            stats.fragments_lost += 1;
            if let Ok(at) = sends.binary_search_by_key(&lost.flow, |send| send.id().0) {
                sends[at].handle_lost(lost);
            }
        });
        if any {
            for at in 0..self.sends.len() {
                self.list(at, now);
            }
        }
        any
    }

    /// The far end is at another address, which was proved.
    pub(super) fn move_to(&mut self, to: SocketAddr, now: Instant) {
        if to == self.far {
            return;
        }
        let from = std::mem::replace(&mut self.far, to);
        self.events.push_back(Event::Moved { from, to });
        // What is in flight went to where nobody is, and the path is another one.
        self.resend_at = None;
        self.lose_all(now);
        self.trip.restore();
        let next = self.outstanding.next();
        self.congestion.reset(next);
    }

    fn expire_messages(&mut self, now: Instant) {
        for at in 0..self.sends.len() {
            let (send, events) = (&mut self.sends[at], &mut self.events);
            if send.expires.is_some_and(|expires| expires <= now) {
                let flow = send.id();
                send.expire(now, |message| {
                    events.push_back(Event::Late { flow, message });
                });
                self.tell_writable(at);
                self.list(at, now);
            }
        }
        self.expire_at = self.sends.iter().filter_map(|send| send.expires).min();
    }

    /// Tells the owner of a flow that refused a message when half of its queue has gone.
    pub(super) fn tell_writable(&mut self, at: usize) {
        let send = &mut self.sends[at];
        if send.wanted
            && send.is_open()
            && send.queued_bytes() <= self.config.queue_max / 2
            && send.queued_messages() <= limits::QUEUED_MESSAGES_MAX / 2
        {
            send.wanted = false;
            let flow = send.id();
            self.events.push_back(Event::Writable { flow });
        }
    }

    fn forget_ended(&mut self, now: Instant) {
        let is_past = |until: Instant| until <= now;
        self.receives
            .retain(|receive| !receive.lingers_until().is_some_and(is_past));
        let ended = self
            .receives
            .iter()
            .filter_map(|receive| receive.lingers_until());
        self.ended_receives = ended.clone().count();
        self.forget_at = ended.min();
        self.received_bytes = self.receives.iter().map(|receive| receive.buffered()).sum();
    }

    /// Makes room for another flow that ended.
    pub(super) fn forget_oldest(&mut self) {
        let ended = self
            .receives
            .iter()
            .filter_map(|receive| receive.lingers_until());
        if let Some(oldest) = ended.min() {
            self.forget_ended(oldest);
        }
    }

    /// The session is quiet: gives memory back that a burst needed.
    fn save_memory(&mut self, now: Instant) {
        self.outstanding.shrink();
        for send in &mut self.sends {
            send.shrink();
        }
        for list in &mut self.ready {
            if list.is_empty() {
                *list = std::collections::VecDeque::new();
            }
        }
        self.reassembly.expire(now);
    }

    /// A request to close goes out, if it is due.
    pub(super) fn take_close_due(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::NearClose { due, .. } if *due <= now => {
                *due = now + CLOSE_EVERY;
                true
            }
            State::Open
            | State::NearClose { .. }
            | State::FarCloseLinger { .. }
            | State::Closed => false,
        }
    }

    /// When a closed window of some flow is to be probed.
    pub(super) fn next_probe(&self) -> Option<Instant> {
        self.sends
            .iter()
            .map(|send| send.probe_at())
            .fold(None, earliest)
    }
}

fn due(at: Option<Instant>, reason: &'static str) -> Option<Deadline> {
    at.map(|at| Deadline { at, reason })
}
