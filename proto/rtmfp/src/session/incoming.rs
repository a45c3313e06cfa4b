//! Packets that come in.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Closed, Event, FEW_FLOWS, Session, State, earliest};
use crate::chunk::{self, Ack, Chunk, UserData};
use crate::congestion::{ACKNOWLEDGEMENT_DELAY, Circumstances, News, is_recent};
use crate::flow::{Receive, ReceiveId, SendId};
use crate::limits;
use crate::option::FlowOption;
use crate::packet::{HEADER_MAX, Packet};

/// An end that was told to close goes on answering for so long (§3.5.5).
const CLOSE_LINGER: Duration = Duration::from_secs(19);

/// So many packets with data are acknowledged at once (§3.6.3.4.1).
const PACKETS_PER_ACK: u8 = 2;

/// What one packet brought.
struct Brought {
    news: News,
    data: bool,
    /// It came out of fragments: fragments in it mean nothing.
    was_fragmented: bool,
}

impl Session {
    /// Takes a plain packet in, which came from `from`.
    pub fn handle_packet(&mut self, from: SocketAddr, plain: &[u8], now: Instant) {
        let packet = match Packet::parse(plain) {
            Ok(packet) if packet.header.mode == self.mode.other() => packet,
            Ok(_) | Err(_) => {
                self.stats.packets_ignored += 1;
                return;
            }
        };
        self.stats.packets_received += 1;
        self.stats.bytes_received += plain.len() as u64;
        if self.state == State::Open {
            self.handle_header(&packet, now);
        }
        let mut brought = Brought {
            news: News {
                outstanding_before: self.outstanding.bytes(),
                ..News::default()
            },
            data: false,
            was_fragmented: false,
        };
        self.handle_chunks(&packet, from, now, &mut brought);
        if self.state != State::Open {
            return;
        }
        self.handle_news(brought.news, now);
        if brought.data {
            self.alert = true;
            self.data_packets = self.data_packets.saturating_add(1);
            self.ack_now |= self.data_packets >= PACKETS_PER_ACK;
            if !self.ack_now && self.ack_at.is_none() {
                self.ack_at = Some(now + ACKNOWLEDGEMENT_DELAY);
            }
        }
        if from != self.far {
            self.mobility.handle_stranger(from, now);
        }
    }

    fn handle_header(&mut self, packet: &Packet<'_>, now: Instant) {
        let header = &packet.header;
        self.heard = now;
        self.pings_unanswered = 0;
        if let Some(timestamp) = header.timestamp {
            self.clock.handle_timestamp(timestamp, now);
        }
        let measured = header
            .timestamp_echo
            .and_then(|echo| self.clock.handle_echo(echo, now));
        if let Some(measured) = measured {
            self.trip.handle_sample(measured);
        }
        if header.time_critical {
            self.critical_received = Some(now);
        }
        if header.time_critical_reverse {
            self.yield_asked = Some(now);
        }
    }

    fn handle_chunks(
        &mut self,
        packet: &Packet<'_>,
        from: SocketAddr,
        now: Instant,
        brought: &mut Brought,
    ) {
        let mut chunks = packet.chunks();
        for chunk in chunks.by_ref() {
            match chunk {
                Chunk::Close => self.handle_close(now),
                Chunk::CloseAck => self.handle_close_ack(),
                _ if self.state != State::Open => {}
                Chunk::UserData(data) | Chunk::NextUserData(data) => {
                    brought.data = true;
                    self.handle_data(&data, now);
                }
                Chunk::Ack(ack) => self.handle_ack(&ack, now, &mut brought.news),
                Chunk::BufferProbe { flow } => {
                    if let Some(at) = self.receive_at(flow) {
                        self.owe(at);
                        self.ack_now = true;
                    }
                }
                Chunk::FlowException { flow, code } => self.handle_exception(flow, code, now),
                Chunk::Ping(message) => {
                    let fits =
                        message.len() + chunk::HEADER_LEN + HEADER_MAX <= self.config.packet_max;
                    if fits && self.replies.len() < limits::CONTROL_MAX {
                        self.replies.push_back(Bytes::copy_from_slice(message));
                    }
                }
                Chunk::PingReply(message) => {
                    self.alert = false;
                    if self.mobility.handle_reply(message, from, now) {
                        self.move_to(from, now);
                    }
                }
                Chunk::ForwardedHello(hello) => {
                    self.events.push_back(Event::ForwardedHello {
                        discriminator: Bytes::copy_from_slice(hello.discriminator),
                        reply: hello.reply,
                        tag: Bytes::copy_from_slice(hello.tag),
                    });
                }
                Chunk::PacketFragment(fragment) if !brought.was_fragmented => {
                    let mode = packet.header.mode;
                    let whole = self.reassembly.handle_fragment((), mode, &fragment, now);
                    if let Some(whole) = whole {
                        match Packet::parse(&whole) {
                            Ok(inner) if inner.header.mode == mode => {
                                brought.was_fragmented = true;
                                self.handle_chunks(&inner, from, now, brought);
                                brought.was_fragmented = false;
                            }
                            Ok(_) | Err(_) => self.stats.packets_ignored += 1,
                        }
                    }
                }
                Chunk::PacketFragment(_)
                | Chunk::InitiatorHello(_)
                | Chunk::ResponderHello(_)
                | Chunk::Redirect(_)
                | Chunk::CookieChange(_)
                | Chunk::InitiatorKeying(_)
                | Chunk::ResponderKeying(_) => self.stats.chunks_ignored += 1,
            }
        }
        self.stats.chunks_ignored += u64::from(chunks.skipped());
    }

    /// §3.5.5.
    fn handle_close(&mut self, now: Instant) {
        match self.state {
            State::Open => {
                self.end(Closed::There);
                self.state = State::FarCloseLinger {
                    until: now + CLOSE_LINGER,
                };
                self.close_ack_due = true;
            }
            State::NearClose { .. } | State::FarCloseLinger { .. } => self.close_ack_due = true,
            State::Closed => {}
        }
    }

    fn handle_close_ack(&mut self) {
        if self.state == State::Open {
            self.end(Closed::There);
        }
        self.state = State::Closed;
    }

    fn handle_data(&mut self, data: &UserData<'_>, now: Instant) {
        let found = self
            .receive_at(data.flow)
            .or_else(|| self.accept_flow(data));
        let Some(at) = found else {
            self.stats.fragments_dropped += 1;
            return;
        };
        let receive = &self.receives[at];
        let (was_open, was_over) = (receive.is_open(), receive.lingers_until().is_some());
        if was_open
            && options(data).any(|option| matches!(option, FlowOption::NotUnderstood { .. }))
        {
            let flow = receive.id();
            self.with_receive(at, |receive| receive.reject(0));
            self.events.push_back(Event::FlowBroken { flow });
        }
        let room = limits::RECEIVED_MAX.saturating_sub(self.received_bytes);
        let arrival = self.with_receive(at, |receive| receive.handle_data(data, room, now));
        self.stats.fragments_dropped += u64::from(arrival.dropped);
        self.ack_now |= arrival.urgent;
        self.owe(at);
        if !was_over && let Some(until) = self.receives[at].lingers_until() {
            self.ended_receives += 1;
            self.forget_at = earliest(self.forget_at, Some(until));
        }
        self.hand_out(at);
    }

    /// Makes a receiving flow of the fragment that begins it (§3.6.3.1).
    fn accept_flow(&mut self, data: &UserData<'_>) -> Option<usize> {
        if self.receives.len() - self.ended_receives >= limits::RECEIVE_FLOWS_MAX {
            return None;
        }
        if self.ended_receives >= limits::RECEIVE_FLOWS_ENDED_MAX {
            self.forget_oldest();
        }
        let flow = ReceiveId(data.flow);
        let (mut metadata, mut association, mut broken) = (None, None, false);
        for option in options(data) {
            match option {
                FlowOption::Metadata(bytes) => metadata = Some(Bytes::copy_from_slice(bytes)),
                FlowOption::ReturnFlow(flow) => association = Some(SendId(flow)),
                FlowOption::NotUnderstood { .. } => broken = true,
                FlowOption::Ignorable { .. } => {}
            }
        }
        let associated = association.is_none_or(|flow| {
            self.send_at(flow.0)
                .is_some_and(|at| self.sends[at].is_open())
        });
        let mut receive = Receive::new(flow, self.config.receive_buffer);
        match metadata {
            Some(metadata) if associated && !broken => {
                self.events.push_back(Event::FlowOpened {
                    flow,
                    metadata,
                    association,
                });
            }
            Some(_) | None => receive.reject(0),
        }
        self.ack_now = true;
        let at = self.receives.partition_point(|receive| receive.id() < flow);
        if self.receives.len() < FEW_FLOWS {
            self.receives.reserve_exact(1);
        }
        self.receives.insert(at, receive);
        Some(at)
    }

    fn handle_ack(&mut self, ack: &Ack<'_>, now: Instant, news: &mut News) {
        news.any_acknowledgement = true;
        let Some(at) = self.send_at(ack.flow) else {
            return;
        };
        let send = &mut self.sends[at];
        let mut answered = send.acknowledge(0, ack.cumulative, &mut self.outstanding);
        for range in ack.received() {
            answered += send.acknowledge(*range.start(), *range.end(), &mut self.outstanding);
        }
        news.acknowledged += answered;
        send.handle_window(ack.cumulative, ack.buffer_bytes(), now, self.trip.timeout());
        if send.is_over() {
            let flow = send.id();
            self.sends.remove(at);
            self.events.push_back(Event::FlowFinished { flow });
            return;
        }
        self.tell_writable(at);
        self.list(at, now);
    }

    fn handle_exception(&mut self, flow: u64, code: u64, now: Instant) {
        let Some(at) = self.send_at(flow) else {
            return;
        };
        if self.sends[at].handle_exception() {
            let flow = SendId(flow);
            self.events.push_back(Event::FlowRejected { flow, code });
        }
        self.list(at, now);
    }

    /// What a packet told of what is in flight (§3.6.2.5, appendix A).
    fn handle_news(&mut self, mut news: News, now: Instant) {
        if !news.any_acknowledgement {
            return;
        }
        self.pace_at = None;
        let mut lost_flows = Vec::new();
        let (sends, stats) = (&mut self.sends, &mut self.stats);
        news.any_negative = self.outstanding.take_negatives(|lost| {
            stats.fragments_lost += 1;
            news.lost = news.lost.max(Some(lost.transmission));
            if let Ok(at) = sends.binary_search_by_key(&lost.flow, |send| send.id().0) {
                sends[at].handle_lost(lost);
                if lost_flows.last() != Some(&lost.flow) {
                    lost_flows.push(lost.flow);
                }
            }
        });
        for flow in lost_flows {
            if let Some(at) = self.send_at(flow) {
                self.list(at, now);
            }
        }
        let around = self.circumstances(now);
        let next = self.outstanding.next();
        self.congestion.handle_news(news, around, next);
        if news.acknowledged > 0 {
            self.unacknowledged_since = (!self.outstanding.is_empty()).then_some(now);
        }
        if self.resend_at.is_some() {
            self.resend_at = Some(now + self.trip.timeout());
        }
    }

    fn circumstances(&self, now: Instant) -> Circumstances {
        Circumstances {
            sends_time_critical: is_recent(self.critical_sent, now),
            must_yield: is_recent(self.yield_asked, now)
                || is_recent(self.critical_sent, now)
                || is_recent(self.neighbours.sent, now),
        }
    }
}

fn options<'a>(data: &UserData<'a>) -> impl Iterator<Item = FlowOption<'a>> {
    data.options.into_iter().flatten().map(FlowOption::from)
}
