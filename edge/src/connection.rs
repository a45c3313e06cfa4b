//! One client: socket or flows, session, and what it publishes and plays.
//!
//! The client's task sleeps until the socket has something to read, until a full socket
//! has room again, or until a deadline. Media is written by the shard's walk
//! ([`Connection::pump_from_walk`]) without waking it.

mod admission;
mod objects;
mod publishing;
mod state;
mod traces;
mod wire;

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ledger::replica::SubscriberId;
use rtmp::Carrier;
use session::{Notice, Refusal, Reply};
use tokio::sync::Notify;
use tracing::{debug, info};

pub(crate) use self::objects::Drawn;
use self::state::{Ending, Role, State};
use self::wire::Wire;
use crate::accept::{Accepted, Permit};
use crate::channel::Change;
use crate::datagram::{Flows, Guest, Told};
use crate::follow::Viewed;
use crate::io::Io;
use crate::limits::{READ_BUFFER, WRITE_SLICES, WRITE_STALL};
use crate::metrics::Connected;
use crate::play::LocalChannel;
use crate::shard::Shard;
use crate::shared::ToShared;
use crate::upstream::Ask;

/// A client.
pub(crate) struct Connection {
    number: u64,
    peer: SocketAddr,
    io: Io,
    /// Wakes the client's task.
    wake: Notify,
    /// The socket took less than we had; its task waits for room.
    blocked: Cell<bool>,
    /// It was told of objects, and is on its shard's list to be written to.
    touched: Cell<bool>,
    state: RefCell<State>,
    _permit: Permit,
    _counted: Connected,
}

/// A client that connects and says nothing is closed after this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads after which the shard's other clients get a turn.
const READS_IN_A_ROW: u32 = 4;

/// A client whose session is over gets this long to take what is queued.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a client until it is gone, then cleans up after it.
pub(crate) async fn drive(connection: &Rc<Connection>, shard: &Rc<Shard>) {
    let mut turns = 0_u32;
    loop {
        connection.pump(shard, None);
        if connection.is_over() {
            break;
        }
        let deadline = connection.deadline(shard);
        tokio::select! {
            biased;
            () = connection.wake.notified() => {}
            () = std::future::poll_fn(|cx| connection.poll_io(cx, shard)) => {
                // A client that always has more to say must not keep the thread from the
                // others.
                turns = turns.wrapping_add(1);
                if turns.is_multiple_of(READS_IN_A_ROW) {
                    tokio::task::yield_now().await;
                }
            }
            () = tokio::time::sleep_until(deadline.into()) => connection.handle_timeout(shard),
        }
    }
    connection.leave(shard);
    connection.part(shard).await;
}

impl Connection {
    /// Takes over an accepted socket: for RTMPS this includes the TLS handshake.
    ///
    /// # Errors
    /// The socket cannot be registered, or TLS fails or takes too long.
    pub(crate) async fn open(
        shard: &Rc<Shard>,
        number: u64,
        accepted: Accepted,
    ) -> io::Result<Rc<Self>> {
        let Accepted {
            socket,
            peer,
            tls,
            permit,
            seed,
        } = accepted;
        let socket = tokio::net::TcpStream::from_std(socket)?;
        let io = match tls {
            None => Io::Plain(socket),
            Some(acceptor) => {
                let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket))
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                Io::Tls(Box::new(RefCell::new(stream)))
            }
        };
        debug!(client = number, %peer, "connected");
        let wire = Wire::Chunks(Box::new(Carrier::server(seed)));
        let now = Instant::now();
        let state = State::new(wire, shard, seed, now);
        Ok(Self::with(shard, (number, peer), io, state, permit))
    }

    /// Takes over a client that came by datagrams.
    pub(crate) fn welcome(shard: &Rc<Shard>, number: u64, guest: Guest) -> Rc<Self> {
        let Guest {
            flows,
            peer,
            permit,
            seed,
        } = guest;
        debug!(client = number, %peer, "connected");
        let wire = Wire::Flows(Box::new(flows));
        let state = State::new(wire, shard, seed, Instant::now());
        Self::with(shard, (number, peer), Io::Datagrams, state, permit)
    }

    fn with(
        shard: &Shard,
        (number, peer): (u64, SocketAddr),
        io: Io,
        state: State,
        permit: Permit,
    ) -> Rc<Self> {
        let counted = shard.settings.figures.connected(io.protocol());
        Rc::new(Self {
            number,
            peer,
            io,
            wake: Notify::new(),
            blocked: Cell::new(false),
            touched: Cell::new(false),
            state: RefCell::new(state),
            _permit: permit,
            _counted: counted,
        })
    }

    // ----- the client's task

    /// Reads while the session may take more, and writes when a full socket has room.
    /// Ready when something was done.
    fn poll_io(self: &Rc<Self>, cx: &mut Context<'_>, shard: &Rc<Shard>) -> Poll<()> {
        if self.blocked.get() {
            self.pump(shard, Some(cx));
            if !self.blocked.get() || self.is_over() {
                return Poll::Ready(());
            }
        }
        if !self.state.borrow().wants_input() {
            return Poll::Pending;
        }
        let mut shared = shard.read_buffer.borrow_mut();
        let mut state = self.state.borrow_mut();
        // A client with nothing half-read borrows the shard's buffer: thousands of idle
        // players need none of their own.
        let own = !state.rest.is_empty();
        let mut rest = std::mem::take(&mut state.rest);
        let buffer = if own { &mut rest } else { &mut *shared };
        buffer.reserve(READ_BUFFER);
        let Poll::Ready(outcome) = self.io.poll_read(cx, buffer) else {
            if own {
                state.rest = rest;
            }
            return Poll::Pending;
        };
        match outcome {
            Ok(0) => state.end(Ending::Broken("closed by the client".into())),
            Ok(read) => {
                shard.counts.received(self.io.protocol(), read);
                state.heard(shard, Instant::now());
                state.stamp();
                if let Wire::Chunks(carrier) = &mut state.carrier
                    && let Err(error) = carrier.handle_bytes(buffer)
                {
                    state.end(Ending::Broken(error.to_string()));
                }
                // What is left is copied out of the shared buffer, which an idle client
                // must not pin; a buffer of its own is kept only while it is needed.
                state.rest = match (own, buffer.is_empty()) {
                    (_, true) => BytesMut::new(),
                    (true, false) => rest,
                    (false, false) => BytesMut::from(&buffer[..]),
                };
                shared.clear();
            }
            Err(error) => state.end(Ending::Broken(error.to_string())),
        }
        drop(shared);
        drop(state);
        self.handle_messages(shard);
        Poll::Ready(())
    }

    /// Gives the carrier's messages to the session, and acts on what comes out.
    fn handle_messages(self: &Rc<Self>, shard: &Rc<Shard>) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        while state.ending.is_none() {
            let Some(message) = state.carrier.poll_message() else {
                break;
            };
            if let Err(error) = state.session.handle_message(message, now) {
                state.end(Ending::Broken(error.to_string()));
            }
            state.settle(self, shard, now);
        }
        for role in state.streams.values_mut() {
            if let Role::Publishing(uplink) = role {
                uplink.pump();
            }
        }
    }

    fn handle_timeout(self: &Rc<Self>, shard: &Rc<Shard>) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        // Packets that carry no message are a sign of life too.
        if let Wire::Flows(flows) = &mut state.carrier
            && flows.was_heard()
        {
            state.heard(shard, now);
        }
        if !state.carrier.is_open() && now >= state.opened + HANDSHAKE_TIMEOUT {
            state.end(Ending::Broken("no handshake in time".into()));
        }
        if state
            .stalled
            .is_some_and(|since| now >= since + WRITE_STALL)
        {
            state.end(Ending::Broken("the client takes nothing".into()));
        }
        if state.ended.is_some_and(|at| now >= at + CLOSE_TIMEOUT) {
            state.end(Ending::Broken("the client does not take the end".into()));
        }
        let mut late = Vec::new();
        for (stream, role) in &state.streams {
            match role {
                Role::Asking { since, .. } if now >= *since + shard.settings.publish_wait => {
                    late.push((*stream, false));
                }
                Role::Publishing(uplink)
                    if uplink
                        .detached_since()
                        .is_some_and(|t| now >= t + shard.settings.publish_keep) =>
                {
                    late.push((*stream, true));
                }
                Role::Asking { .. } | Role::Publishing(_) | Role::Playing(_) => {}
            }
        }
        for (stream, begun) in late {
            match state.streams.remove(&stream) {
                Some(Role::Asking {
                    publication,
                    request,
                    key,
                    mut phase,
                    ..
                }) => {
                    info!(client = self.number, stream = %key, "no origin answered a publish");
                    shard.forget(publication);
                    shard.ask(Ask::Unpublish { publication });
                    phase.set("error.type", "timeout");
                    phase.fail("no origin answered");
                    let description = "No origin is reachable.".to_owned();
                    state.reply(request, Reply::Refuse(Refusal::Failed { description }), now);
                }
                Some(Role::Publishing(uplink)) if begun => {
                    info!(client = self.number, "a publish could not be kept");
                    state.end_publish(shard, *uplink, "lost");
                    state.session.handle_notice(stream, Notice::Lost, now);
                }
                Some(Role::Publishing(_) | Role::Playing(_)) | None => {}
            }
        }
        if state.challenged.iter().any(|(_, until)| now >= *until) {
            state.lose_to_challenger(self, shard, now);
        }
        state
            .objects
            .forget_before(now, shard.settings.objects.write_wait);
        state.traces.handle_timeout(now);
        state.session.handle_timeout(now);
        state.settle(self, shard, now);
    }

    /// When [`Self::handle_timeout`] is to be called.
    fn deadline(&self, shard: &Shard) -> Instant {
        let state = self.state.borrow();
        let streams = state.streams.values().filter_map(|role| match role {
            Role::Asking { since, .. } => Some(*since + shard.settings.publish_wait),
            Role::Publishing(uplink) => uplink
                .detached_since()
                .map(|t| t + shard.settings.publish_keep),
            Role::Playing(_) => None,
        });
        // Nothing may be due: wake once an hour.
        let idle = Instant::now() + Duration::from_secs(3600);
        streams
            .chain((!state.carrier.is_open()).then(|| state.opened + HANDSHAKE_TIMEOUT))
            .chain(state.stalled.map(|since| since + WRITE_STALL))
            .chain(state.ended.map(|at| at + CLOSE_TIMEOUT))
            .chain(state.challenged.iter().map(|(_, until)| *until))
            .chain(state.objects.wait_ends(shard.settings.objects.write_wait))
            .chain(state.traces.deadline())
            .chain(state.session.deadline())
            .min()
            .unwrap_or(idle)
    }

    fn is_over(&self) -> bool {
        let state = self.state.borrow();
        match &state.ending {
            None => false,
            Some(Ending::Session(_)) => state.waiting() == 0,
            Some(Ending::Broken(_)) => true,
        }
    }

    /// Gives back all that the client held.
    fn leave(self: &Rc<Self>, shard: &Rc<Shard>) {
        let mut state = self.state.borrow_mut();
        for role in std::mem::take(&mut state.streams).into_values() {
            state.drop_role(self, shard, role);
        }
        if let Wire::Flows(flows) = &state.carrier {
            flows.leave(shard);
        }
        if state.objects.spoke() {
            shard
                .ways
                .shared
                .send(ToShared::Left(SubscriberId(self.number)));
        }
        match &state.ending {
            Some(Ending::Broken(reason)) => {
                debug!(client = self.number, peer = %self.peer, %reason, "disconnected");
            }
            Some(Ending::Session(reason)) => {
                debug!(client = self.number, peer = %self.peer, ?reason, "session ended");
            }
            None => {}
        }
    }

    /// Ends the byte stream in order, where the session ended in order: a socket that is
    /// closed with unread input resets the connection, and the client would lose the status
    /// that told it why.
    async fn part(&self, shard: &Shard) {
        if let Io::Datagrams = self.io {
            return self.part_with_flows().await;
        }
        if !matches!(self.state.borrow().ending, Some(Ending::Session(_))) {
            return;
        }
        let parted = std::future::poll_fn(|cx| {
            std::task::ready!(self.io.poll_shutdown(cx))?;
            let mut ignored = shard.read_buffer.borrow_mut();
            ignored.reserve(READ_BUFFER);
            let read = std::task::ready!(self.io.poll_read(cx, &mut ignored))?;
            ignored.clear();
            if read == 0 {
                return Poll::Ready(Ok::<(), io::Error>(()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        });
        // Whether the client closes too is its affair.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, parted).await;
    }

    /// Ends the session behind what its flows hold, where it ended in order.
    async fn part_with_flows(&self) {
        let end = |act: fn(&mut Flows)| match &mut self.state.borrow_mut().carrier {
            Wire::Flows(flows) => {
                act(flows);
                flows.is_finished()
            }
            Wire::Chunks(_) => true,
        };
        if matches!(self.state.borrow().ending, Some(Ending::Session(_))) {
            end(|flows| flows.finish(Instant::now()));
            let finished = async {
                while !end(|_| {}) {
                    self.wake.notified().await;
                }
            };
            // Whether the client takes it all is its affair.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, finished).await;
        }
        end(|flows| flows.close(Instant::now()));
    }

    /// Something happened in the session of a client that came by datagrams.
    pub(crate) fn flow_event(self: &Rc<Self>, shard: &Rc<Shard>, event: rtmfp::session::Event) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let Wire::Flows(flows) = &mut state.carrier else {
            return;
        };
        match flows.handle_event(event, now) {
            Told::Nothing => return,
            Told::Go => {}
            Told::Message => {
                state.heard(shard, now);
                drop(state);
                self.handle_messages(shard);
            }
            Told::Over(why) => state.end(Ending::Broken(why.into())),
        }
        // A client that always has more to say gets its answers in its own task, and does
        // not keep the door from the others.
        self.wake.notify_one();
    }

    // ----- the shard's messages

    /// Writes what the client's views find, from the shard's walk.
    pub(crate) fn pump_from_walk(self: &Rc<Self>, shard: &Rc<Shard>) {
        if self.blocked.get() {
            return;
        }
        self.pump(shard, None);
        if self.blocked.get() || self.state.borrow().ending.is_some() {
            self.wake.notify_one();
        }
    }

    /// Watches it for a traced frame of a stream that it plays.
    pub(crate) fn follow(&self, channel: &LocalChannel, viewed: &Rc<Viewed>) {
        let mut state = self.state.borrow_mut();
        let awaiting = state.streams.iter().find_map(|(stream, role)| match role {
            Role::Playing(viewer) if std::ptr::eq(&raw const *viewer.channel, channel) => {
                viewer.awaits(viewed.at).then_some(*stream)
            }
            Role::Playing(_) | Role::Asking { .. } | Role::Publishing(_) => None,
        });
        if let Some(stream) = awaiting {
            let client = (self.number, self.io.protocol());
            state.followed.follow(viewed.clone(), client, stream);
        }
    }

    /// The publisher of a stream that the client plays came or left.
    pub(crate) fn source_changed(
        self: &Rc<Self>,
        shard: &Rc<Shard>,
        channel: &Rc<LocalChannel>,
        change: Change,
    ) {
        let notice = match change {
            Change::Published => Notice::Published,
            Change::Unpublished => Notice::Unpublished,
        };
        // What arrived before the change is written before it.
        self.pump(shard, None);
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let watching: Vec<_> = state
            .streams
            .iter()
            .filter(|(_, role)| matches!(role, Role::Playing(v) if Rc::ptr_eq(&v.channel, channel)))
            .map(|(stream, _)| *stream)
            .collect();
        for stream in watching {
            state.session.handle_notice(stream, notice, now);
        }
        state.settle(self, shard, now);
        drop(state);
        self.wake.notify_one();
    }

    /// The edge drains: a client that can is asked to connect elsewhere.
    pub(crate) fn drain(self: &Rc<Self>, shard: &Rc<Shard>) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        state.session.request_reconnect(None, now);
        state.settle(self, shard, now);
        drop(state);
        self.wake.notify_one();
    }

    /// The edge ends.
    pub(crate) fn close(self: &Rc<Self>, shard: &Rc<Shard>) {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        if !state.carrier.is_open() {
            state.end(Ending::Broken("the server is shutting down".into()));
        }
        state.session.close(Refusal::AppShutdown, now);
        state.settle(self, shard, now);
        drop(state);
        self.wake.notify_one();
    }

    // ----- writing

    /// Writes until the socket is full or there is nothing to write.
    fn pump(self: &Rc<Self>, shard: &Rc<Shard>, mut cx: Option<&mut Context<'_>>) {
        let mut state = self.state.borrow_mut();
        self.blocked.set(false);
        loop {
            state.fill(self, shard);
            state.hold_flows();
            if matches!(state.ending, Some(Ending::Broken(_))) {
                return;
            }
            let outcome = if state.outbox.is_empty() {
                self.io.flush(cx.as_deref_mut()).map(|()| None)
            } else {
                let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
                let count = state.outbox.slices(&mut slices);
                self.io.write(cx.as_deref_mut(), &slices[..count]).map(Some)
            };
            match outcome {
                Ok(None) => {
                    state.stalled = None;
                    return;
                }
                Ok(Some(0)) => return state.end(Ending::Broken("closed by the client".into())),
                Ok(Some(written)) => {
                    shard.counts.sent(self.io.protocol(), written);
                    state.outbox.advance(written);
                    if !state.followed.is_empty() {
                        state.followed.written(written);
                    }
                    state.stalled = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked.set(true);
                    state.stalled.get_or_insert_with(Instant::now);
                    return;
                }
                Err(error) => return state.end(Ending::Broken(error.to_string())),
            }
        }
    }
}
