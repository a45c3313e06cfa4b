//! Packets that go out.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Event, Manners, Session, State, Transmit};
use crate::chunk::Chunk;
use crate::congestion::is_recent;
use crate::flow::{Filled, Priority};
use crate::packet::{HEADER_MAX, Header, PacketWriter};

impl Session {
    /// Writes the next packet into `buffer`, which has room for
    /// [`Config::packet_max`](super::Config::packet_max) bytes. Nothing when there is none
    /// to send for the time being.
    pub fn poll_transmit(&mut self, buffer: &mut [u8], now: Instant) -> Option<Transmit> {
        let transmit = if self.state == State::Open {
            self.write_check(buffer, now)
                .or_else(|| self.write_open(buffer, now))
        } else {
            self.write_closing(buffer, now)
        };
        if let Some(transmit) = transmit {
            self.stats.packets_sent += 1;
            self.stats.bytes_sent += transmit.len as u64;
        }
        transmit
    }

    /// Begins a packet. A header of full length has room, whatever this one has: a fragment
    /// that filled one packet has to fit the packet that carries it again.
    fn begin<'a>(&self, buffer: &'a mut [u8], now: Instant) -> Option<PacketWriter<'a>> {
        let header = Header {
            mode: self.mode,
            time_critical: false,
            time_critical_reverse: is_recent(self.neighbours.received, now),
            timestamp: Some(self.clock.timestamp(now)),
            timestamp_echo: self.clock.echo(now),
        };
        let len = buffer.len().min(self.config.packet_max) + header.wire_len();
        let buffer = buffer.get_mut(..len.checked_sub(HEADER_MAX)?)?;
        PacketWriter::new(buffer, &header).ok()
    }

    fn write_only(
        &self,
        buffer: &mut [u8],
        to: SocketAddr,
        chunk: &Chunk<'_>,
        now: Instant,
    ) -> Option<Transmit> {
        let mut packet = self.begin(buffer, now)?;
        packet.chunk(chunk).ok()?;
        let len = packet.finish();
        Some(Transmit { to, len })
    }

    fn write_check(&mut self, buffer: &mut [u8], now: Instant) -> Option<Transmit> {
        let (to, message) = self.mobility.poll_check(now)?;
        self.write_only(buffer, to, &Chunk::Ping(&message), now)
    }

    fn write_closing(&mut self, buffer: &mut [u8], now: Instant) -> Option<Transmit> {
        if std::mem::take(&mut self.close_ack_due) {
            return self.write_only(buffer, self.far, &Chunk::CloseAck, now);
        }
        if self.take_close_due(now) {
            return self.write_only(buffer, self.far, &Chunk::Close, now);
        }
        None
    }

    fn write_open(&mut self, buffer: &mut [u8], now: Instant) -> Option<Transmit> {
        let mut flow = self.select(now);
        if self.acks.is_empty() {
            self.acked();
        }
        let anything = flow.is_some()
            || self.ack_now
            || self.ping_due
            || self.probe_due
            || !self.replies.is_empty()
            || !self.control.is_empty();
        if !anything {
            return None;
        }
        let mut packet = self.begin(buffer, now)?;
        self.write_acks(&mut packet);
        self.write_control(&mut packet, now);
        self.write_probes(&mut packet, now);
        let (mut data, mut critical) = (false, false);
        while let Some(at) = flow {
            let empty = packet.is_empty();
            let before = packet.room();
            let send = &mut self.sends[at];
            let filled = send.fill(packet.writer(), &mut self.outstanding, empty);
            let wrote = packet.room() < before;
            data |= wrote;
            critical |= wrote && send.is_time_critical();
            if filled == Filled::NoRoom {
                self.put_back(at, wrote, now);
                break;
            }
            flow = self.select(now);
        }
        if critical {
            packet.mark_time_critical();
            self.critical_sent = Some(now);
        }
        if data {
            self.congestion.handle_sent();
            self.resend_at = Some(now + self.trip.timeout());
            self.unacknowledged_since.get_or_insert(now);
        }
        if packet.is_empty() {
            return None;
        }
        let len = packet.finish();
        Some(Transmit { to: self.far, len })
    }

    /// Acknowledges what is owed, in this packet as far as it goes (§3.6.3.4.5). Only the
    /// first one may be cut short.
    fn write_acks(&mut self, packet: &mut PacketWriter<'_>) {
        let mut first = true;
        while let Some(flow) = self.acks.front().copied() {
            if let Some(at) = self.receive_at(flow) {
                let may_close = self.may_close_window();
                let receive = &mut self.receives[at];
                if receive
                    .write_ack(packet.writer(), !first, may_close)
                    .is_err()
                {
                    return;
                }
                first = false;
            }
            self.acks.pop_front();
        }
        self.acked();
    }

    fn acked(&mut self) {
        self.ack_now = false;
        self.ack_at = None;
        self.data_packets = 0;
    }

    fn write_control(&mut self, packet: &mut PacketWriter<'_>, now: Instant) {
        while let Some(message) = self.replies.front() {
            if packet.chunk(&Chunk::PingReply(message)).is_err() {
                return;
            }
            self.replies.pop_front();
        }
        while let Some(chunk) = self.control.front() {
            if packet.writer().bytes(chunk).is_err() {
                return;
            }
            self.control.pop_front();
        }
        if self.ping_due && packet.chunk(&Chunk::Ping(&[])).is_ok() {
            self.ping_due = false;
            self.pinged = Some(now);
            self.pings_unanswered = self.pings_unanswered.saturating_add(1);
        }
    }

    fn write_probes(&mut self, packet: &mut PacketWriter<'_>, now: Instant) {
        if !self.probe_due {
            return;
        }
        let standard = self.config.manners == Manners::Standard;
        let timeout = self.trip.timeout();
        for send in &mut self.sends {
            if send.probe_at().is_some_and(|at| at <= now)
                && send
                    .write_probe(now, timeout, standard, packet.writer())
                    .is_err()
            {
                return;
            }
        }
        self.probe_due = false;
        self.probe_at = self.next_probe();
    }

    /// Takes the flow off its list whose turn it is, if the network may be sent anything.
    fn select(&mut self, now: Instant) -> Option<usize> {
        let outstanding = self.outstanding.bytes();
        let near = self.trip.is_near();
        if !self.congestion.allows(outstanding, near) {
            // Without a measure of the path the next acknowledgement is waited for.
            let paced = self.congestion.has_room(outstanding)
                && self.trip.smoothed().is_some()
                && self.ready.iter().any(|list| !list.is_empty());
            if paced && self.pace_at.is_none() {
                self.pace_at = Some(now + self.pace());
            }
            return None;
        }
        'from_the_top: loop {
            for priority in Priority::ALL {
                while let Some((flow, ticket)) = self.ready[priority.index()].pop_front() {
                    let Some(at) = self.send_at(flow) else {
                        continue;
                    };
                    let (send, events) = (&mut self.sends[at], &mut self.events);
                    if send.ticket != ticket || send.listed != Some(priority) {
                        continue;
                    }
                    send.listed = None;
                    let flow = send.id();
                    let late = |message| events.push_back(Event::Late { flow, message });
                    match send.ready(now, late) {
                        Some(found) if found == priority => return Some(at),
                        Some(_) => {
                            self.list(at, now);
                            continue 'from_the_top;
                        }
                        None => {}
                    }
                }
            }
            return None;
        }
    }

    /// Lists a flow again that has more than there was room for. It waits for its next
    /// turn, unless it got nothing of this one.
    fn put_back(&mut self, at: usize, had_turn: bool, now: Instant) {
        self.list(at, now);
        let send = &self.sends[at];
        if let Some(priority) = send.listed
            && !had_turn
        {
            let list = &mut self.ready[priority.index()];
            if list.back() == Some(&(send.id().0, send.ticket)) {
                list.rotate_right(1);
            }
        }
    }
}
