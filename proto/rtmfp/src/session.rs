//! An established session (RFC 7016 §3.5.2 to §3.6).
//!
//! Plain packets go in and come out; who seals and opens them is not known here. Startup
//! has made the keys and knows the far end's address.
//!
//! # How it is driven
//!
//! 1. Give every packet that was opened to [`Session::handle_packet`], and call
//!    [`Session::handle_timeout`] when [`Session::next_deadline`] is reached.
//! 2. Write, open, close, reject as one likes.
//! 3. After any of these drain [`Session::poll_event`] and then [`Session::poll_transmit`].
//!    Nothing else makes either of them have something.
//!
//! # What goes first
//!
//! Acknowledgements, replies and pings stand at the front of a packet; then come flows by
//! the [`Priority`](crate::flow::Priority) of the message whose turn it is, and flows of one
//! priority in turns. A packet is filled as far as it goes.
//!
//! # When a queue is full
//!
//! A message is refused when its flow holds more than [`Config::queue_max`] bytes with it
//! and is not empty, or too many messages. What is late is given up first. The owner hears
//! of it by [`Event::Writable`] when half of it has gone.

mod clock;
mod config;
mod event;
#[doc(hidden)]
pub mod fuzzing;
mod incoming;
mod mobility;
mod timers;
mod transmit;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::congestion::{Congestion, Neighbours, RoundTrip};
use crate::flow::{
    MessageId, Options, Order, Outstanding, Payload, Priority, Receive, ReceiveId, Send, SendId,
    SendStats,
};
use crate::limits;
use crate::packet::Mode;
use crate::reassembly::Reassembly;

use clock::Clock;
pub use config::{Config, Manners};
pub use event::{Closed, Event};
use mobility::Mobility;

/// Where a packet that was written has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The address.
    pub to: SocketAddr,
    /// Its length in the buffer.
    pub len: usize,
}

/// When to call [`Session::handle_timeout`], and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When.
    pub at: Instant,
    /// What is due then.
    pub reason: &'static str,
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such flow, or it is closed.
    NoFlow,
    /// The session is over.
    Closed,
    /// Too much waits in the flow. [`Event::Writable`] follows.
    Full,
    /// There are too many flows.
    TooManyFlows,
    /// The message or the metadata are longer than can be sent.
    TooLong {
        /// Their length in bytes.
        len: usize,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFlow => f.write_str("no such flow is open"),
            Self::Closed => f.write_str("the session is over"),
            Self::Full => f.write_str("the flow's queue is full"),
            Self::TooManyFlows => f.write_str("too many flows in the session"),
            Self::TooLong { len } => write!(f, "{len} bytes are too many"),
        }
    }
}

impl std::error::Error for Refused {}

/// What a session has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets written.
    pub packets_sent: u64,
    /// Bytes of packets written.
    pub bytes_sent: u64,
    /// Packets taken in.
    pub packets_received: u64,
    /// Bytes of packets taken in.
    pub bytes_received: u64,
    /// Packets of a wrong mode or without a proper header.
    pub packets_ignored: u64,
    /// Chunks that were not understood or had no place where they stood.
    pub chunks_ignored: u64,
    /// Fragments of flows that were not taken for want of room.
    pub fragments_dropped: u64,
    /// Fragments that were found lost.
    pub fragments_lost: u64,
    /// Times the retransmission timer fired with something in flight.
    pub timeouts: u64,
}

/// §3.5.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// We asked to close: the request goes out again and again until it is answered.
    NearClose {
        since: Instant,
        due: Instant,
    },
    /// The far end closed: its requests are answered for a while.
    FarCloseLinger {
        until: Instant,
    },
    Closed,
}

/// One open session.
#[derive(Debug)]
pub struct Session {
    config: Config,
    mode: Mode,
    far: SocketAddr,
    state: State,
    clock: Clock,
    trip: RoundTrip,
    congestion: Congestion,
    outstanding: Outstanding,
    /// By number.
    sends: Vec<Send>,
    /// By number.
    receives: Vec<Receive>,
    ended_receives: usize,
    received_bytes: usize,
    next_flow: u64,
    /// Flows with something to send, by priority: number and ticket.
    ready: [VecDeque<(u64, u32)>; Priority::ALL.len()],
    /// Receiving flows that owe an acknowledgement.
    acks: VecDeque<u64>,
    ack_now: bool,
    ack_at: Option<Instant>,
    data_packets: u8,
    resend_at: Option<Instant>,
    /// A burst was sent and not answered, and the window has room: more may go out then.
    pace_at: Option<Instant>,
    unacknowledged_since: Option<Instant>,
    /// No message of any flow is late before this.
    expire_at: Option<Instant>,
    /// No closed window is to be probed before this.
    probe_at: Option<Instant>,
    probe_due: bool,
    /// No ended receiving flow is to be forgotten before this.
    forget_at: Option<Instant>,
    heard: Instant,
    pinged: Option<Instant>,
    pings_unanswered: u32,
    /// Data came, or are in flight, and no ping was answered since.
    alert: bool,
    ping_due: bool,
    replies: VecDeque<Bytes>,
    control: VecDeque<Bytes>,
    close_ack_due: bool,
    mobility: Mobility,
    reassembly: Reassembly<()>,
    neighbours: Neighbours,
    critical_sent: Option<Instant>,
    critical_received: Option<Instant>,
    yield_asked: Option<Instant>,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Session {
    /// A session that opens at `now`.
    ///
    /// `mode` is what this end's packets are marked with: it began the session, or it
    /// answered. `secret` is random and no one else's; it guards changes of address.
    #[must_use]
    pub fn new(
        config: Config,
        mode: Mode,
        far: SocketAddr,
        secret: [u8; 32],
        now: Instant,
    ) -> Self {
        Self {
            config,
            mode,
            far,
            state: State::Open,
            clock: Clock::new(now),
            trip: RoundTrip::default(),
            congestion: Congestion::default(),
            outstanding: Outstanding::default(),
            sends: Vec::new(),
            receives: Vec::new(),
            ended_receives: 0,
            received_bytes: 0,
            next_flow: FIRST_FLOW,
            ready: Default::default(),
            acks: VecDeque::new(),
            ack_now: false,
            ack_at: None,
            data_packets: 0,
            resend_at: None,
            pace_at: None,
            unacknowledged_since: None,
            expire_at: None,
            probe_at: None,
            probe_due: false,
            forget_at: None,
            heard: now,
            pinged: None,
            pings_unanswered: 0,
            alert: false,
            ping_due: false,
            replies: VecDeque::new(),
            control: VecDeque::new(),
            close_ack_due: false,
            mobility: Mobility::new(secret, now),
            reassembly: reassembly(),
            neighbours: Neighbours::default(),
            critical_sent: None,
            critical_received: None,
            yield_asked: None,
            events: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Opens a flow. The far end learns of it with the first message, or when it is closed.
    ///
    /// # Errors
    /// When the session is over, the metadata are too long or there are too many flows.
    pub fn open_flow(&mut self, metadata: &[u8], options: Options) -> Result<SendId, Refused> {
        self.check_open()?;
        if metadata.len() > limits::METADATA_MAX {
            let len = metadata.len();
            return Err(Refused::TooLong { len });
        }
        if self.sends.len() >= limits::SEND_FLOWS_MAX {
            return Err(Refused::TooManyFlows);
        }
        let id = SendId(self.next_flow);
        self.next_flow += 1;
        if self.sends.len() < FEW_FLOWS {
            self.sends.reserve_exact(1);
        }
        self.sends.push(Send::new(id, metadata, options));
        Ok(id)
    }

    /// Queues a message. It is given up when it is not delivered by `deadline`.
    ///
    /// # Errors
    /// When the flow is not open, the message is longer than [`limits::MESSAGE_MAX`] or the
    /// queue is full.
    pub fn write(
        &mut self,
        flow: SendId,
        payload: impl Into<Payload>,
        priority: Priority,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Result<MessageId, Refused> {
        self.check_open()?;
        let payload = payload.into();
        let len = payload.len();
        if len > limits::MESSAGE_MAX {
            return Err(Refused::TooLong { len });
        }
        let at = self.send_at(flow.0).ok_or(Refused::NoFlow)?;
        let (send, events) = (&mut self.sends[at], &mut self.events);
        if !send.is_open() {
            return Err(Refused::NoFlow);
        }
        let is_full = |send: &Send| {
            let queued = send.queued_bytes();
            (queued > 0 && queued + len > self.config.queue_max)
                || send.queued_messages() >= limits::QUEUED_MESSAGES_MAX
        };
        if is_full(send) {
            send.expire(now, |message| {
                events.push_back(Event::Late { flow, message });
            });
            if is_full(send) {
                send.wanted = true;
                return Err(Refused::Full);
            }
        }
        let message = send.write(payload, priority, deadline);
        self.expire_at = earliest(self.expire_at, deadline);
        self.list(at, now);
        Ok(message)
    }

    /// Gives a message up, whatever of it was sent. Says whether that was still possible.
    pub fn abandon(&mut self, flow: SendId, message: MessageId, now: Instant) -> bool {
        let Some(at) = self.send_at(flow.0) else {
            return false;
        };
        let abandoned = self.sends[at].abandon(message);
        if abandoned {
            self.list(at, now);
        }
        abandoned
    }

    /// No message follows in a flow. What waits is still sent; [`Event::FlowFinished`]
    /// follows. A flow that the far end does not know of is just gone.
    pub fn finish(&mut self, flow: SendId, now: Instant) {
        let Some(at) = self.send_at(flow.0) else {
            return;
        };
        let send = &mut self.sends[at];
        if send.is_open() && send.is_unknown() && send.queued_messages() == 0 {
            self.sends.remove(at);
            self.events.push_back(Event::FlowFinished { flow });
            return;
        }
        send.close();
        self.list(at, now);
    }

    /// Tells the far end that one of its flows is not wanted. Zero says that no
    /// application had a part in it.
    pub fn reject(&mut self, flow: ReceiveId, code: u64) {
        if let Some(at) = self.receive_at(flow.0) {
            self.with_receive(at, |receive| receive.reject(code));
            self.owe(at);
            self.ack_now = true;
        }
    }

    /// Hands the messages of a flow out in another order from now on.
    pub fn set_order(&mut self, flow: ReceiveId, order: Order) {
        if let Some(at) = self.receive_at(flow.0) {
            self.with_receive(at, |receive| receive.set_order(order));
            self.hand_out(at);
        }
    }

    /// Holds the messages of a flow back, or hands them out again. Its sender has to wait
    /// when the buffer is full.
    pub fn suspend(&mut self, flow: ReceiveId, suspended: bool) {
        if let Some(at) = self.receive_at(flow.0) {
            self.with_receive(at, |receive| receive.suspend(suspended));
            self.hand_out(at);
            if self.receives[at].window_opened(self.may_close_window()) {
                self.owe(at);
                self.ack_now = true;
            }
        }
    }

    /// Closes the session: the far end is told until it answers. All flows are gone at once.
    pub fn close(&mut self, now: Instant) {
        if self.state == State::Open {
            self.end(Closed::Here);
            self.state = State::NearClose {
                since: now,
                due: now,
            };
        }
    }

    /// Ends the session at once: the far end is told once, and no answer is waited for.
    pub fn abort(&mut self) {
        if self.state == State::Open {
            self.end(Closed::Here);
            self.close_ack_due = true;
        }
        self.state = State::Closed;
    }

    /// Sends a chunk that is none of the session's own, such as a hello that is forwarded.
    /// `chunk` has its header. Says whether there is room for it.
    pub fn send_chunk(&mut self, chunk: Bytes) -> bool {
        let room = self.state == State::Open
            && self.control.len() < limits::OWNERS_CHUNKS_MAX
            && chunk.len() + crate::packet::HEADER_MAX <= self.config.packet_max;
        if room {
            self.control.push_back(chunk);
        }
        room
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        // Most sessions are idle, and there are many.
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        event
    }

    /// Where the far end is.
    #[must_use]
    pub const fn far(&self) -> SocketAddr {
        self.far
    }

    /// Whether flows can be written and opened.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether there is nothing left to do: the session can be dropped once
    /// [`Self::poll_transmit`] has nothing either.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether an acknowledgement is due now.
    #[must_use]
    pub const fn owes_at_once(&self) -> bool {
        self.ack_now
    }

    /// What was counted.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// What became of the messages of a flow.
    #[must_use]
    pub fn flow_stats(&self, flow: SendId) -> Option<SendStats> {
        self.send_at(flow.0).map(|at| self.sends[at].stats())
    }

    /// Bytes that receiving flows hold, and what it costs to hold them.
    #[must_use]
    pub const fn buffered(&self) -> usize {
        self.received_bytes
    }

    /// The smoothed round-trip time, once one was measured.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.trip.smoothed()
    }

    /// How many bytes may be in flight, and how many are.
    #[must_use]
    pub const fn in_flight(&self) -> (u64, u64) {
        (self.congestion.window(), self.outstanding.bytes())
    }

    /// Time critical traffic of this session, for its [`Neighbours`]: when it was last
    /// sent and received.
    #[must_use]
    pub const fn time_critical(&self) -> Neighbours {
        Neighbours {
            sent: self.critical_sent,
            received: self.critical_received,
        }
    }

    /// Tells what time critical traffic other sessions have. Optional: without it this
    /// session neither yields to them nor asks others to.
    pub const fn set_neighbours(&mut self, neighbours: Neighbours) {
        self.neighbours = neighbours;
    }

    /// Sets how long the far end may be silent before the session is dead.
    pub const fn set_silence_max(&mut self, silence_max: Duration) {
        self.config.silence_max = silence_max;
    }

    /// Sets how long to wait before a ping when nothing comes.
    pub const fn set_keepalive(&mut self, keepalive: Duration) {
        self.config.keepalive = keepalive;
    }

    fn check_open(&self) -> Result<(), Refused> {
        if self.is_open() {
            Ok(())
        } else {
            Err(Refused::Closed)
        }
    }

    const fn may_close_window(&self) -> bool {
        matches!(self.config.manners, Manners::Standard)
    }

    fn send_at(&self, id: u64) -> Option<usize> {
        self.sends
            .binary_search_by_key(&id, |send| send.id().0)
            .ok()
    }

    fn receive_at(&self, id: u64) -> Option<usize> {
        self.receives
            .binary_search_by_key(&id, |receive| receive.id().0)
            .ok()
    }

    /// Puts a flow that has something to send on the list of its priority.
    fn list(&mut self, at: usize, now: Instant) {
        let (send, events) = (&mut self.sends[at], &mut self.events);
        let flow = send.id();
        let late = |message| events.push_back(Event::Late { flow, message });
        let Some(priority) = send.ready(now, late) else {
            self.probe_at = earliest(self.probe_at, send.probe_at());
            return;
        };
        if send.listed.is_none_or(|listed| listed < priority) {
            send.listed = Some(priority);
            send.ticket = send.ticket.wrapping_add(1);
            self.ready[priority.index()].push_back((flow.0, send.ticket));
        }
    }

    /// A receiving flow owes an acknowledgement.
    fn owe(&mut self, at: usize) {
        let receive = &mut self.receives[at];
        if !receive.owes {
            receive.owes = true;
            self.acks.push_back(receive.id().0);
        }
    }

    /// Changes a receiving flow and counts what all of them hold.
    fn with_receive<T>(&mut self, at: usize, change: impl FnOnce(&mut Receive) -> T) -> T {
        let receive = &mut self.receives[at];
        let before = receive.buffered();
        let result = change(receive);
        self.received_bytes = self.received_bytes + receive.buffered() - before;
        result
    }

    /// Hands out what a receiving flow has ready.
    fn hand_out(&mut self, at: usize) {
        let flow = self.receives[at].id();
        while let Some(message) = self.with_receive(at, Receive::poll_message) {
            self.events.push_back(Event::Message { flow, message });
        }
        while let Some(told) = self.receives[at].poll_told() {
            self.events.push_back(match told {
                crate::flow::Told::Complete => Event::FlowComplete { flow },
                crate::flow::Told::TooLong => Event::FlowBroken { flow },
            });
        }
    }

    /// Everything but closing ends.
    fn end(&mut self, why: Closed) {
        self.sends = Vec::new();
        self.receives = Vec::new();
        self.received_bytes = 0;
        self.ready = Default::default();
        self.acks = VecDeque::new();
        self.ack_now = false;
        self.outstanding = Outstanding::default();
        self.replies = VecDeque::new();
        self.control = VecDeque::new();
        self.reassembly = reassembly();
        self.events.push_back(Event::Closed { why });
    }
}

/// The number of the first flow. The number means nothing, but zero and one are special to
/// some peers.
const FIRST_FLOW: u64 = 2;

const fn reassembly() -> Reassembly<()> {
    Reassembly::new(
        limits::FRAGMENTED_PACKETS_MAX,
        limits::FRAGMENTED_PACKET_MAX,
    )
}
/// Up to so many flows a session takes memory for each as it comes: most sessions are idle,
/// with one in each direction.
const FEW_FLOWS: usize = 4;

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
