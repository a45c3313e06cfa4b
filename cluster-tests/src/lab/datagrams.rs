//! A small RTMFP client: the product's endpoint behind a blocking socket, and the commands
//! of [`raw`](super::raw) in its flows.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rtmfp::crypto::Group;
use rtmfp::crypto::identity::{Discriminator, Fingerprint, Identity};
use rtmfp::endpoint::{Config, Endpoint, Event, OpeningId, Output, SessionId};
use rtmfp::flow::{Options, Priority, ReceiveId, SendId};
use rtmfp::session;
use rtmfp::startup::Cookies;
use rtmfp::tc::Metadata;

use super::raw::amf::Amf;
use super::raw::commands;
use super::raw::{Message, kind};
use super::until::SOON;

/// One session with a server.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    endpoint: Endpoint,
    /// The attempt to reach the server.
    asked: OpeningId,
    session: Option<SessionId>,
    /// The server's first flow.
    control: Option<ReceiveId>,
    receiving: BTreeMap<ReceiveId, u32>,
    /// By stream and type of message.
    sending: BTreeMap<(u32, u8), SendId>,
    messages: VecDeque<Message>,
    /// Sessions with others than the server: who, and where.
    peers: Vec<(Fingerprint, SocketAddr)>,
    /// Those of them that are open, and the flow to each.
    lines: BTreeMap<SessionId, (Fingerprint, Option<SendId>)>,
    /// What peers say.
    heard: VecDeque<(Fingerprint, Vec<u8>)>,
    closed: bool,
    transaction: f64,
}

/// The longest time that a socket is waited for at once.
const TURN: Duration = Duration::from_millis(100);

impl Datagrams {
    /// Opens a session and connects to an application.
    ///
    /// # Errors
    /// When nobody answers or the application is refused.
    pub fn connect(addr: SocketAddr, app: &str) -> io::Result<Self> {
        Self::connect_as(Self::identity()?, addr, app, &[])
    }

    /// Somebody whom nobody has met.
    ///
    /// # Errors
    /// When there is no port.
    pub fn identity() -> io::Result<Identity> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        Identity::ephemeral(&[Group::Modp1024], false, None, &mut chance(&socket)?)
            .map_err(io::Error::other)
    }

    /// As [`Self::connect`], as somebody, with arguments behind the command object.
    ///
    /// # Errors
    /// When nobody answers or the application is refused.
    pub fn connect_as(
        identity: Identity,
        addr: SocketAddr,
        app: &str,
        args: &[Amf],
    ) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let habits = session::Config::default();
        Self::connect_from(socket, habits, identity, addr, app, args)
    }

    /// As [`Self::connect_as`], from a socket of one's own, and with other habits.
    ///
    /// # Errors
    /// When nobody answers or the application is refused.
    pub fn connect_from(
        socket: UdpSocket,
        habits: session::Config,
        identity: Identity,
        addr: SocketAddr,
        app: &str,
        args: &[Amf],
    ) -> io::Result<Self> {
        let now = Instant::now();
        let chance = chance(&socket)?;
        let cookies = Cookies::new([1; 32], now);
        let mut config = Config::new(identity);
        config.session = habits;
        config.begin.0 = Group::Modp1024;
        let mut endpoint = Endpoint::new(config, cookies, Box::new(chance), now);
        let url = format!("rtmfp://{addr}/{app}");
        let asked = endpoint.open(&Discriminator::server(url.as_bytes()), &[addr], now);
        let mut client = Self {
            socket,
            endpoint,
            asked,
            session: None,
            control: None,
            receiving: BTreeMap::new(),
            sending: BTreeMap::new(),
            messages: VecDeque::new(),
            peers: Vec::new(),
            lines: BTreeMap::new(),
            heard: VecDeque::new(),
            closed: false,
            transaction: 0.0,
        };
        client.join(&url, app, args)?;
        Ok(client)
    }

    /// Leaves the server to itself and comes to another one, as the same client: sessions
    /// with peers go on.
    ///
    /// # Errors
    /// When nobody answers or the application is refused.
    pub fn come_to(&mut self, addr: SocketAddr, app: &str) -> io::Result<()> {
        let url = format!("rtmfp://{addr}/{app}");
        self.session = None;
        self.control = None;
        self.receiving.clear();
        self.sending.clear();
        self.closed = false;
        let discriminator = Discriminator::server(url.as_bytes());
        let now = Instant::now();
        self.asked = self.endpoint.open(&discriminator, &[addr], now);
        self.join(&url, app, &[])
    }

    /// `connect`, once the session is open.
    fn join(&mut self, url: &str, app: &str, args: &[Amf]) -> io::Result<()> {
        self.run_until(|it| it.session.is_some())?;
        let object = Amf::Object(vec![
            ("app".into(), Amf::text(app)),
            ("flashVer".into(), Amf::text("LNX 9,0,124,2")),
            ("tcUrl".into(), Amf::text(url)),
            ("objectEncoding".into(), Amf::Number(0.0)),
        ]);
        let mut values = vec![object];
        values.extend(args.iter().cloned());
        self.call(0, "connect", &values)?;
        Ok(())
    }

    /// `createStream`.
    ///
    /// # Errors
    /// When the session ends or the server refuses.
    pub fn create_stream(&mut self) -> io::Result<u32> {
        let result = self.call(0, "createStream", &[Amf::Null])?;
        commands::stream_number(&result)
    }

    /// `publish` or `play`, and the code of the first status that is not
    /// `NetStream.Play.Reset`.
    ///
    /// # Errors
    /// When the session ends.
    pub fn ask(&mut self, stream: u32, command: &str, name: &str) -> io::Result<String> {
        self.command(stream, command, 0.0, &[Amf::Null, Amf::text(name)])?;
        loop {
            match self.read()?.status() {
                Some(code) if code != "NetStream.Play.Reset" => return Ok(code),
                _ => {}
            }
        }
    }

    /// Sends a message in the flow for its stream and type.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn send(&mut self, kind: u8, stream: u32, time: u32, body: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        let association = self.control;
        let id = self.session.ok_or(io::ErrorKind::NotConnected)?;
        let session = self.endpoint.session_mut(id);
        let session = session.ok_or(io::ErrorKind::NotConnected)?;
        let flow = match self.sending.get(&(stream, kind)) {
            Some(flow) => *flow,
            None => {
                let metadata = Metadata {
                    stream: rtmp::StreamId(stream),
                    order: rtmfp::flow::Order::Original,
                };
                let options = Options {
                    association,
                    time_critical: false,
                };
                let flow = session.open_flow(&metadata.encode(), options);
                let flow = flow.map_err(io::Error::other)?;
                self.sending.insert((stream, kind), flow);
                flow
            }
        };
        let mut message = vec![kind];
        message.extend(time.to_be_bytes());
        message.extend(body);
        session
            .write(flow, message, Priority::Data, None, now)
            .map_err(io::Error::other)?;
        self.turn(Duration::ZERO)
    }

    /// The next message.
    ///
    /// # Errors
    /// When the session ends, or nothing comes for long.
    pub fn read(&mut self) -> io::Result<Message> {
        self.run_until(|it| !it.messages.is_empty())?;
        self.messages
            .pop_front()
            .ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// The next message, if it is here.
    pub fn take(&mut self) -> Option<Message> {
        self.messages.pop_front()
    }

    /// Whether the session with the server is over.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next audio, video or data message.
    ///
    /// # Errors
    /// When the session ends, or nothing comes for long.
    pub fn read_media(&mut self) -> io::Result<Message> {
        loop {
            let message = self.read()?;
            if message.is_media() {
                return Ok(message);
            }
        }
    }

    /// Sends a chunk of any kind in the session, whatever it says, as soon as a few are
    /// there. Says whether there still is a session.
    pub fn send_chunk(&mut self, chunk: &[u8]) -> bool {
        let chunk = bytes::Bytes::copy_from_slice(chunk);
        loop {
            let id = self.session;
            let Some(session) = id.and_then(|id| self.endpoint.session_mut(id)) else {
                return false;
            };
            if session.send_chunk(chunk.clone()) {
                return true;
            }
            if self.closed || self.turn(Duration::ZERO).is_err() {
                return false;
            }
        }
    }

    /// Moves to another port, as behind an address translator that has forgotten the old one.
    ///
    /// # Errors
    /// When there is no port.
    pub fn move_away(&mut self) -> io::Result<()> {
        self.socket = UdpSocket::bind("127.0.0.1:0")?;
        Ok(())
    }

    /// Who it is to its peers.
    pub fn peer_id(&self) -> Fingerprint {
        *self.endpoint.identity().fingerprint()
    }

    /// Where it is.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Says where it can be reached.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn set_peer_info(&mut self, addresses: &[SocketAddr]) -> io::Result<()> {
        let mut args = vec![Amf::Null];
        args.extend(addresses.iter().map(|at| Amf::text(&at.to_string())));
        self.command(0, "setPeerInfo", 0.0, &args)
    }

    /// Begins to open a session with a peer that somebody at `via` may know.
    pub fn seek(&mut self, peer: &Fingerprint, via: SocketAddr) {
        let discriminator = Discriminator::canonical(peer);
        self.endpoint.open(&discriminator, &[via], Instant::now());
    }

    /// Where a peer is with whom it has a session.
    pub fn is_talking_with(&self, peer: &Fingerprint) -> Option<SocketAddr> {
        let found = self.peers.iter().find(|(id, _)| id == peer);
        found.map(|(_, at)| *at)
    }

    /// Says something to a peer with whom there is a session. It arrives, however often it
    /// has to be sent.
    ///
    /// # Errors
    /// When there is no such session, or it takes nothing.
    pub fn tell(&mut self, peer: &Fingerprint, what: &[u8]) -> io::Result<()> {
        let mut lines = self.lines.iter_mut();
        let line = lines.find(|(_, (id, _))| id == peer);
        let (session, (_, flow)) = line.ok_or(io::ErrorKind::NotConnected)?;
        let session = self.endpoint.session_mut(*session);
        let session = session.ok_or(io::ErrorKind::NotConnected)?;
        let to = match flow {
            Some(flow) => *flow,
            None => {
                let opened = session.open_flow(b"words", Options::default());
                *flow.insert(opened.map_err(io::Error::other)?)
            }
        };
        let now = Instant::now();
        session
            .write(to, what.to_vec(), Priority::Data, None, now)
            .map_err(io::Error::other)?;
        self.turn(Duration::ZERO)
    }

    /// What a peer has said, and who.
    pub fn listen(&mut self) -> Option<(Fingerprint, Vec<u8>)> {
        self.heard.pop_front()
    }

    /// Lets the session do what it has to do, for so long.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let due = self.drain()?;
        let wait = due.map_or(wait, |due| {
            wait.min(due.saturating_duration_since(Instant::now()))
        });
        // A socket cannot be told to wait for no time at all.
        self.socket
            .set_read_timeout(Some(wait.max(Duration::from_micros(1))))?;
        let mut datagram = [0; 4096];
        match self.socket.recv_from(&mut datagram) {
            Ok((len, from)) => {
                let now = Instant::now();
                self.endpoint
                    .handle_datagram(from, &mut datagram[..len], now);
            }
            Err(error) if super::raw::is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
        self.drain().map(drop)
    }

    fn run_until(&mut self, holds: impl Fn(&Self) -> bool) -> io::Result<()> {
        let started = Instant::now();
        while !holds(self) {
            if self.closed {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if started.elapsed() > SOON {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.turn(TURN)?;
        }
        Ok(())
    }

    fn call(&mut self, stream: u32, name: &str, args: &[Amf]) -> io::Result<Vec<Amf>> {
        self.transaction += 1.0;
        let transaction = self.transaction;
        self.command(stream, name, transaction, args)?;
        commands::result(transaction, || self.read())
    }

    fn command(
        &mut self,
        stream: u32,
        name: &str,
        transaction: f64,
        args: &[Amf],
    ) -> io::Result<()> {
        let body = commands::body(name, transaction, args);
        self.send(kind::COMMAND, stream, 0, &body)
    }

    fn drain(&mut self) -> io::Result<Option<Instant>> {
        let mut buffer = [0; 4096];
        loop {
            match self.endpoint.poll_output(Instant::now(), &mut buffer) {
                Output::Transmit { to, len } => {
                    // Where a peer says it is there may be no way to; that is a loss like others.
                    let _ = self.socket.send_to(&buffer[..len], to);
                }
                Output::Event(event) => self.act(event),
                Output::Timeout(due) => return Ok(due),
            }
        }
    }

    fn act(&mut self, event: Event) {
        let event = match event {
            Event::Opened {
                session,
                far,
                fingerprint,
                opening,
            } => {
                if opening == Some(self.asked) {
                    self.session = Some(session);
                } else {
                    self.peers.push((fingerprint, far));
                    self.lines.insert(session, (fingerprint, None));
                }
                return;
            }
            Event::Session { session, event } if Some(session) == self.session => event,
            Event::OpenFailed { opening } => {
                self.closed |= opening == self.asked;
                return;
            }
            Event::Session { session, event } => {
                self.act_for_peer(session, event);
                return;
            }
            Event::Introduce { .. } => return,
        };
        match event {
            session::Event::FlowOpened { flow, metadata, .. } => {
                if let Ok(metadata) = Metadata::parse(&metadata) {
                    self.control.get_or_insert(flow);
                    self.receiving.insert(flow, metadata.stream.0);
                }
            }
            session::Event::Message { flow, message } => {
                let stream = self.receiving.get(&flow).copied();
                let header = message.bytes.split_first_chunk::<5>();
                if let (Some(stream), Some(([kind, a, b, c, d], body))) = (stream, header) {
                    self.messages.push_back(Message {
                        kind: *kind,
                        stream,
                        time: u32::from_be_bytes([*a, *b, *c, *d]),
                        body: body.to_vec(),
                    });
                }
            }
            session::Event::Closed { .. } => self.closed = true,
            session::Event::FlowComplete { .. }
            | session::Event::FlowBroken { .. }
            | session::Event::FlowRejected { .. }
            | session::Event::FlowFinished { .. }
            | session::Event::Writable { .. }
            | session::Event::Late { .. }
            | session::Event::ForwardedHello { .. }
            | session::Event::Moved { .. } => {}
        }
    }
}

impl Datagrams {
    /// A session with a peer has something.
    fn act_for_peer(&mut self, session: SessionId, event: session::Event) {
        let Some((peer, _)) = self.lines.get(&session) else {
            return;
        };
        match event {
            session::Event::Message { message, .. } => {
                self.heard.push_back((*peer, message.bytes.to_vec()));
            }
            session::Event::Closed { .. } => {
                self.lines.remove(&session);
            }
            session::Event::FlowOpened { .. }
            | session::Event::FlowComplete { .. }
            | session::Event::FlowBroken { .. }
            | session::Event::FlowRejected { .. }
            | session::Event::FlowFinished { .. }
            | session::Event::Writable { .. }
            | session::Event::Late { .. }
            | session::Event::ForwardedHello { .. }
            | session::Event::Moved { .. } => {}
        }
    }
}

/// Numbers that are not the same for two clients of a test.
fn chance(socket: &UdpSocket) -> io::Result<impl FnMut(&mut [u8]) + Send + use<>> {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    let nanos = u64::from(since.map_or(0, |since| since.subsec_nanos()));
    let port = u64::from(socket.local_addr()?.port());
    let mut seed = port ^ u64::from(std::process::id()) << 16 ^ nanos << 32;
    Ok(move |out: &mut [u8]| {
        for byte in out {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = seed.to_be_bytes()[0];
        }
    })
}
