//! A connection by RTMFP: the session with the server, and its flows.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rtmfp::crypto::identity::Discriminator;
use rtmfp::endpoint::{Endpoint, Event, OpeningId, SessionId};
use rtmfp::session::Session;
use rtmfp::tc::flows::{self, Flows, Told};
use rtmfp::{session, tc};
use rtmp::Message;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Over;
use super::line::{Line, Woken, interface_to};
use super::pipe::{Moved, Reading};
use super::rejoin::Seek;
use crate::limits::{
    ASK_AFTER, CLOSE_PATIENCE, DATAGRAM_PATIENCE, DATAGRAMS_IN_A_ROW, KEEPALIVE_MIN, SILENCE_MAX,
};
use crate::peers::{Peers, sessions_max};
use crate::{Error, Options, PeerId, Target};

/// A connection's datagrams.
pub(crate) struct Datagrams {
    line: Line,
    server: SessionId,
    far_id: PeerId,
    flows: Flows,
    peers: Peers,
    over: Option<Over>,
    /// There are other servers to go to.
    may_go: bool,
    /// There is no server, and one is looked for.
    seek: Option<Seek>,
    /// Which one was found.
    found: Option<usize>,
}

impl Datagrams {
    /// Opens a session with the server, at any of its addresses.
    ///
    /// # Errors
    /// Nobody answers within [`DATAGRAM_PATIENCE`], or the port is closed at all addresses.
    pub(super) async fn open(
        target: &Target,
        addrs: &[SocketAddr],
        options: &Options,
    ) -> Result<Self, Error> {
        let first = addrs.first().copied();
        let failed = |source| match first {
            Some(addr) => Error::Connect { addr, source },
            None => Error::Resolve {
                host: target.host.clone(),
                source: Some(source),
            },
        };
        let mut line = Line::new(sessions_max(options.peers_max)).map_err(failed)?;
        let url = Discriminator::server(target.tc_url().as_bytes());
        let opening = line.endpoint.open(&url, addrs, Instant::now());
        let mut hello = Hello {
            line,
            opening,
            addrs,
            probes: Vec::new(),
        };
        let patience = DATAGRAM_PATIENCE.min(options.patience);
        let (server, far_id) = timeout(patience, poll_fn(|cx| hello.poll(cx)))
            .await
            .map_err(|_| Error::Timeout {
                step: "the RTMFP handshake",
                patience,
            })?
            .map_err(failed)?;
        let mut this = Self {
            line: hello.line,
            server,
            far_id,
            flows: Flows::client(),
            peers: Peers::new(options.peers_max, options.patience),
            over: None,
            may_go: !options.others.is_empty(),
            seek: None,
            found: None,
        };
        this.watch_server();
        Ok(this)
    }

    /// Whoever has another server to go to finds out soon that one is lost.
    fn watch_server(&mut self) {
        if self.may_go
            && let Some(session) = self.line.endpoint.session_mut(self.server)
        {
            session.set_keepalive(ASK_AFTER);
            session.set_silence_max(SILENCE_MAX);
        }
    }

    /// The server is lost: another is looked for. What is with peers goes on.
    pub(super) fn seek(&mut self, seek: Seek) {
        if let Some(session) = self.line.endpoint.session_mut(self.server) {
            session.abort();
        }
        self.flows = Flows::client();
        self.over = None;
        self.found = None;
        self.seek = Some(seek);
    }

    /// Which server was found, once.
    pub(super) const fn take_found(&mut self) -> Option<usize> {
        self.found.take()
    }

    /// Says whether the session is one with a server that was looked for.
    fn opened(&mut self, event: &Event) -> bool {
        let Event::Opened {
            session,
            opening,
            far,
            fingerprint,
        } = event
        else {
            return false;
        };
        let Some(mut seek) = self.seek.take() else {
            return false;
        };
        let Some(at) = seek.found(*opening) else {
            self.seek = Some(seek);
            return false;
        };
        seek.give_up(&mut self.line.endpoint);
        self.server = *session;
        self.far_id = PeerId(*fingerprint);
        self.found = Some(at);
        self.watch_server();
        self.peers
            .ask_anew(&mut self.line.endpoint, *far, Instant::now());
        true
    }

    /// Where we may be found, for `setPeerInfo`.
    pub(super) fn reported(&mut self) -> Vec<String> {
        let server = self.line.endpoint.session_mut(self.server);
        let ip = server.and_then(|session| interface_to(session.far()));
        ip.zip(self.line.port())
            .map(|(ip, port)| SocketAddr::new(ip, port).to_string())
            .into_iter()
            .collect()
    }

    pub(super) fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        reading: Reading,
    ) -> Poll<Result<Moved, Over>> {
        if let Some(session) = self.line.endpoint.session_mut(self.server) {
            let held = matches!(reading, Reading::Paused);
            self.flows.hold(session, held);
            self.peers.hold(&mut self.line.endpoint, held);
        }
        let (mut received, heard) = (0, self.bytes_received());
        let told = self.peers.events();
        // What peers send says nothing about the server.
        let moved = |it: &Self| {
            Poll::Ready(Ok(if it.bytes_received() > heard {
                Moved::Read
            } else {
                Moved::Written
            }))
        };
        loop {
            let mut happened = false;
            while let Some(event) = self.line.poll_event(cx, |_, _| {}) {
                happened |= self.act(event);
            }
            if let Some(over) = &self.over {
                return Poll::Ready(Err(over.clone()));
            }
            let now = Instant::now();
            if let Some(seek) = &mut self.seek {
                if seek.poll(cx, &mut self.line.endpoint, now) {
                    continue;
                }
                if seek.is_late(now) && !self.peers.is_with_any() {
                    let text = "no other server answers".to_owned();
                    self.over = Some(Over::Io(io::ErrorKind::TimedOut, text));
                    continue;
                }
            }
            let due = self.peers.deadline();
            if due.is_some_and(|at| at <= now) {
                self.peers.handle_timeout(&mut self.line.endpoint, now);
                continue;
            }
            let next = self.seek.as_ref().map(|seek| seek.deadline(now));
            self.line.alarm = due.into_iter().chain(next).min();
            happened |= self.peers.events() > told;
            if happened || received >= DATAGRAMS_IN_A_ROW {
                return moved(self);
            }
            match self.line.poll_receive(cx) {
                Poll::Ready(Woken::Datagram) => received += 1,
                Poll::Ready(Woken::Time) => {}
                // What was acknowledged makes room.
                Poll::Pending if received > 0 => return moved(self),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    pub(super) fn poll_message(&mut self) -> Option<Message> {
        let message = self.flows.poll_message()?;
        if let Some((server, peer)) = tc::read_keepalive(&message) {
            self.peers.set_keepalive(Duration::from_millis(peer.into()));
            if !self.may_go
                && let Some(session) = self.line.endpoint.session_mut(self.server)
            {
                session.set_keepalive(Duration::from_millis(server.into()).max(KEEPALIVE_MIN));
            }
        }
        Some(message)
    }

    pub(super) fn write_message(&mut self, message: &Message) {
        if let Some(session) = self.line.endpoint.session_mut(self.server) {
            self.flows.write(session, message, Instant::now());
        }
    }

    pub(super) fn unsent(&self) -> usize {
        let session = self.line.endpoint.session(self.server);
        session.map_or(0, |session| self.flows.unsent(session))
    }

    pub(super) fn bytes_received(&self) -> u64 {
        let session = self.line.endpoint.session(self.server);
        session.map_or(0, |session| session.stats().bytes_received)
    }

    /// Closes the flows behind what they hold, and then the session (RFC 7425 §5.3.6).
    pub(super) async fn finish(&mut self) {
        if self.seek.is_some() {
            return;
        }
        if let Some(session) = self.line.endpoint.session_mut(self.server) {
            self.flows.finish(session, Instant::now());
        }
        let finished = poll_fn(|cx| {
            while self.over.is_none() && !self.flows.is_finished() {
                if ready!(self.poll_move(cx, Reading::Wanted)).is_err() {
                    break;
                }
            }
            Poll::Ready(())
        });
        // A server that takes nothing any more is not waited for any longer.
        let _ = timeout(CLOSE_PATIENCE, finished).await;
        let (line, server) = (&mut self.line, self.server);
        match line.endpoint.session_mut(server) {
            Some(session) if session.is_open() => session.close(Instant::now()),
            Some(_) | None => return,
        }
        let closed = poll_fn(|cx| {
            loop {
                while line.poll_event(cx, |_, _| {}).is_some() {}
                if line.endpoint.session(server).is_none() {
                    return Poll::Ready(());
                }
                ready!(line.poll_receive(cx));
            }
        });
        let _ = timeout(CLOSE_PATIENCE, closed).await;
    }

    /// Who we are to peers.
    pub(super) fn near_id(&self) -> PeerId {
        PeerId(*self.line.endpoint.identity().fingerprint())
    }

    /// Who the server is.
    pub(super) const fn far_id(&self) -> PeerId {
        self.far_id
    }

    /// Does something about peers; where the server is goes along.
    pub(super) fn with_peers<T>(
        &mut self,
        act: impl FnOnce(&mut Peers, &mut Endpoint, &[SocketAddr]) -> T,
    ) -> T {
        let server = self.line.endpoint.session(self.server);
        let server = server.filter(|_| self.seek.is_none());
        let server: Vec<_> = server.map(Session::far).into_iter().collect();
        act(&mut self.peers, &mut self.line.endpoint, &server)
    }

    /// Says whether it was about the connection.
    fn act(&mut self, event: Event) -> bool {
        if self.opened(&event) {
            return true;
        }
        match event {
            Event::Session { session, event } if session == self.server => {
                self.server_event(event);
                true
            }
            other @ (Event::Session { .. }
            | Event::Opened { .. }
            | Event::OpenFailed { .. }
            | Event::Introduce { .. }) => {
                let now = Instant::now();
                self.peers.handle_event(&mut self.line.endpoint, other, now);
                false
            }
        }
    }

    fn server_event(&mut self, event: session::Event) {
        let Some(session) = self.line.endpoint.session_mut(self.server) else {
            return;
        };
        let told = self.flows.handle_event(session, event, Instant::now());
        if let Told::Over(over) = told {
            let silent = |text: &str| Over::Io(io::ErrorKind::TimedOut, text.to_owned());
            self.over.get_or_insert(match over {
                flows::Over::Here | flows::Over::There | flows::Over::Rejected => {
                    Over::Disconnected
                }
                flows::Over::Silent => silent("nothing is heard of the server"),
                flows::Over::Unacknowledged => silent("the server takes nothing"),
            });
        }
    }
}

impl Drop for Datagrams {
    /// Whoever is at the other end should not wait for us.
    fn drop(&mut self) {
        self.line.endpoint.abort_all();
        self.line.hurry();
    }
}

/// An attempt to open a session.
struct Hello<'a> {
    line: Line,
    opening: OpeningId,
    addrs: &'a [SocketAddr],
    /// Sockets that each sent the same hello to one address, and are told when nobody listens
    /// there. The socket of the line is not, because it is for all addresses.
    probes: Vec<(SocketAddr, Option<Probe>)>,
}

impl Hello<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(SessionId, PeerId)>> {
        loop {
            let (addrs, probes) = (self.addrs, &mut self.probes);
            let sent = |to: SocketAddr, hello: &[u8]| {
                if addrs.contains(&to) && !probes.iter().any(|(at, _)| *at == to) {
                    probes.push((to, probe(to, hello).ok()));
                }
            };
            match self.line.poll_event(cx, sent) {
                Some(Event::Opened {
                    session,
                    opening,
                    fingerprint,
                    ..
                }) if opening == Some(self.opening) => {
                    return Poll::Ready(Ok((session, PeerId(fingerprint))));
                }
                Some(Event::OpenFailed { opening }) if opening == self.opening => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Some(_) => continue,
                None => {}
            }
            if self.is_refused(cx) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
            }
            ready!(self.line.poll_receive(cx));
        }
    }

    /// Whether the port is closed at all addresses.
    fn is_refused(&mut self, cx: &mut Context<'_>) -> bool {
        for (_, probe) in &mut self.probes {
            if let Some(refused) = probe
                && refused.as_mut().poll(cx).is_ready()
            {
                *probe = None;
            }
        }
        self.probes.len() >= self.addrs.len() && self.probes.iter().all(|(_, it)| it.is_none())
    }
}

/// Ends when nobody listens where a hello was sent.
type Probe = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Sends the hello once more from a socket that hears what becomes of it.
fn probe(to: SocketAddr, hello: &[u8]) -> io::Result<Probe> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    socket.send(hello)?;
    let socket = UdpSocket::from_std(socket)?;
    Ok(Box::pin(async move {
        // A refusal does not make a socket readable. Answers are of no use here.
        while socket.ready(Interest::ERROR).await.is_ok() {
            let error = socket.try_io(Interest::ERROR, || {
                let error = socket.take_error()?;
                error.ok_or_else(|| io::ErrorKind::WouldBlock.into())
            });
            if error.is_ok_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
                return;
            }
        }
    }))
}
