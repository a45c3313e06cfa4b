//! A UDP socket and the endpoint behind it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use rtmfp::crypto::identity::Identity;
use rtmfp::crypto::{Entropy, Group, KeyPair};
use rtmfp::endpoint::{Config, Endpoint, Event, Output};
use rtmfp::limits::STARTUP_DATAGRAM_MAX;
use rtmfp::startup::Cookies;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::time::Sleep;
use tokio_rustls::rustls::crypto::SecureRandom;

use crate::limits::FLOW_QUEUE;

/// A socket with its endpoint.
pub(crate) struct Line {
    io: UdpSocket,
    /// The socket is of IPv6, and takes IPv4 as well.
    six: bool,
    pub(crate) endpoint: Endpoint,
    buffer: Box<[u8]>,
    /// A datagram in the buffer that the socket had no room for.
    stuck: Option<(SocketAddr, usize)>,
    room: Box<[u8]>,
    timer: Pin<Box<Sleep>>,
    due: Option<Instant>,
    /// When the owner has something to do.
    pub(crate) alarm: Option<Instant>,
}

/// The key agreements that we take part in. The keys are in the certificate, so that nobody
/// else can be who has our ID; they are new for every connection.
const GROUPS: &[Group] = &[Group::Modp2048, Group::Modp1024];

/// Randomness of the operating system.
struct Chance(&'static dyn SecureRandom);

impl Entropy for Chance {
    fn fill(&mut self, out: &mut [u8]) {
        if self.0.fill(out).is_err() {
            // Going on would mean keys that anybody can guess.
            std::process::abort();
        }
    }
}

impl Line {
    /// Binds a socket and makes an identity, which no other connection has (RFC 7425 §5.3).
    ///
    /// # Errors
    /// There is no socket, or no identity.
    pub(crate) fn new(sessions_max: usize) -> io::Result<Self> {
        let (socket, six) = match StdSocket::bind((Ipv6Addr::UNSPECIFIED, 0)) {
            Ok(socket) => (socket, true),
            Err(_) => (StdSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?, false),
        };
        socket.set_nonblocking(true)?;
        let io = UdpSocket::from_std(socket)?;
        let random = tokio_rustls::rustls::crypto::ring::default_provider().secure_random;
        let mut chance = Chance(random);
        let pairs: Result<_, _> = GROUPS
            .iter()
            .map(|group| KeyPair::generate(*group, &mut chance))
            .collect();
        let identity = pairs
            .and_then(|pairs| Identity::with_static_keys(pairs, false, None))
            .map_err(io::Error::other)?;
        let mut secret = [0; 32];
        chance.fill(&mut secret);
        let now = Instant::now();
        let mut config = Config::new(identity);
        config.session.queue_max = FLOW_QUEUE;
        config.sessions_max = sessions_max;
        let endpoint = Endpoint::new(config, Cookies::new(secret, now), Box::new(chance), now);
        Ok(Self {
            io,
            six,
            endpoint,
            buffer: vec![0; STARTUP_DATAGRAM_MAX].into_boxed_slice(),
            stuck: None,
            room: vec![0; STARTUP_DATAGRAM_MAX].into_boxed_slice(),
            timer: Box::pin(tokio::time::sleep_until(now.into())),
            due: None,
            alarm: None,
        })
    }

    /// The port that datagrams leave from.
    pub(crate) fn port(&self) -> Option<u16> {
        self.io.local_addr().ok().map(|addr| addr.port())
    }

    /// Sends what there is to send, up to the next event. Nothing when there is none, or
    /// when the socket has no room. `sent` is shown every datagram.
    pub(crate) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        mut sent: impl FnMut(SocketAddr, &[u8]),
    ) -> Option<Event> {
        loop {
            if let Some((to, len)) = self.stuck {
                let datagram = &self.buffer[..len];
                match self.io.poll_send_to(cx, datagram, self.reached_as(to)) {
                    Poll::Pending => {
                        // The socket wakes us; what is due meanwhile cannot leave anyway.
                        self.due = None;
                        return None;
                    }
                    // One that cannot be sent is lost, as it may be on its way.
                    Poll::Ready(_) => sent(to, datagram),
                }
                self.stuck = None;
            }
            match self.endpoint.poll_output(Instant::now(), &mut self.buffer) {
                Output::Transmit { to, len } => self.stuck = Some((to, len)),
                Output::Event(event) => return Some(event),
                Output::Timeout(due) => {
                    self.due = due;
                    return None;
                }
            }
        }
    }

    /// Takes one datagram in. Ready when there was one, or when it is time to ask
    /// [`Self::poll_event`] again.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        let mut room = ReadBuf::new(&mut self.room);
        match self.io.poll_recv_from(cx, &mut room) {
            Poll::Ready(Ok(from)) => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let datagram = room.filled_mut();
                self.endpoint
                    .handle_datagram(from, datagram, Instant::now());
                return Poll::Ready(Woken::Datagram);
            }
            // It is about a datagram that was sent, which is lost then.
            Poll::Ready(Err(_)) => return Poll::Ready(Woken::Time),
            Poll::Pending => {}
        }
        let Some(due) = self.due.into_iter().chain(self.alarm).min() else {
            return Poll::Pending;
        };
        if self.timer.deadline() != due.into() {
            self.timer.as_mut().reset(due.into());
        }
        std::task::ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Woken::Time)
    }

    /// Sends what can be sent at once, and forgets the rest.
    pub(crate) fn hurry(&mut self) {
        let now = Instant::now();
        loop {
            match self.endpoint.poll_output(now, &mut self.buffer) {
                Output::Transmit { to, len } => {
                    let _ = self
                        .io
                        .try_send_to(&self.buffer[..len], self.reached_as(to));
                }
                Output::Event(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }

    fn reached_as(&self, to: SocketAddr) -> SocketAddr {
        match to.ip() {
            IpAddr::V4(ip) if self.six => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            IpAddr::V4(_) | IpAddr::V6(_) => to,
        }
    }
}

/// Why a line was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Datagram,
    Time,
}

/// The address of ours that datagrams to `server` leave from, for those who are to find us.
/// None when it means nothing to others (RFC 7425 §5.3.3).
pub(crate) fn interface_to(server: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = StdSocket::bind(any).ok()?;
    // Nothing is sent by this.
    socket.connect(server).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    (!ip.is_loopback() && !ip.is_unspecified() && !link_local).then_some(ip)
}
