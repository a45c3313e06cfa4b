//! A client of a measurement: the product's endpoint behind a socket, and its commands.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtmfp::crypto::Group;
use rtmfp::crypto::identity::{Discriminator, Identity};
use rtmfp::crypto::keying::{Policy, Wish};
use rtmfp::endpoint::{Config, Endpoint, Event, Output, SessionId};
use rtmfp::session::Session;
use rtmfp::startup::Cookies;
use rtmfp::tc::flows::{Flows, Told};
use rtmp::{Message, MessageKind, StreamId};
use session::client::{Event as Said, Output as Says, PlayRequest, Setup};
use session::{ClientSession, PublishMode};

use super::socket::{Room, Socket};
use crate::bench::{stream, wall_micros};

/// What all clients of a measurement share.
#[derive(Debug)]
pub(super) struct Common {
    /// The server.
    pub(super) addr: SocketAddr,
    /// Whether packets are authenticated and numbered, in both directions.
    pub(super) secure: bool,
    room: RefCell<Room>,
    window: Cell<(u64, u64)>,
    /// In the window: bytes of media, and pictures.
    pub(super) bytes: Cell<u64>,
    pub(super) pictures: Cell<u64>,
    /// From publishing to here, of the pictures in the window, microseconds.
    pub(super) latency: RefCell<Vec<u64>>,
    seed: Cell<u64>,
}

impl Common {
    pub(super) fn new(addr: SocketAddr, secure: bool) -> Rc<Self> {
        Rc::new(Self {
            addr,
            secure,
            room: RefCell::default(),
            window: Cell::new((u64::MAX, u64::MAX)),
            bytes: Cell::default(),
            pictures: Cell::default(),
            latency: RefCell::default(),
            seed: Cell::new(wall_micros()),
        })
    }

    /// What is counted, in microseconds of the wall clock.
    pub(super) fn set_window(&self, from: u64, to: u64) {
        self.window.set((from, to));
    }

    pub(super) fn is_in_window(&self) -> bool {
        let (from, to) = self.window.get();
        // Saves the clock before the window is known.
        from != u64::MAX && (from..to).contains(&wall_micros())
    }

    /// What all clients receive into.
    pub(super) const fn room(&self) -> &RefCell<Room> {
        &self.room
    }

    fn look_at(&self, message: &Message) {
        if !self.is_in_window() {
            return;
        }
        self.bytes
            .set(self.bytes.get() + message.payload.len() as u64);
        if message.kind == MessageKind::Video
            && let Some(stamp) = stream::stamp_of(message.kind, &message.payload)
        {
            self.pictures.set(self.pictures.get() + 1);
            self.latency
                .borrow_mut()
                .push(wall_micros().saturating_sub(stamp));
        }
    }
}

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Only a session.
    Session,
    /// A session that is connected to an application.
    Connect,
    Play,
    Publish,
}

/// One session with a server, at a socket of its own.
pub(super) struct Client {
    common: Rc<Common>,
    errand: Errand,
    socket: Socket,
    endpoint: Endpoint,
    id: Option<SessionId>,
    flows: Flows,
    session: ClientSession,
    stream: Option<StreamId>,
    is_ready: bool,
    over: Option<String>,
}

const NAME: &str = "bench";

impl Client {
    /// Begins to open a session.
    pub(super) fn new(common: &Rc<Common>, errand: Errand) -> io::Result<Self> {
        let addr = common.addr;
        let socket = Socket::new()?;
        let now = Instant::now();
        // Nobody has to be kept from guessing the keys of a measurement.
        let mut seed = common.seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        common.seed.set(seed);
        let mut chance = move |out: &mut [u8]| {
            for byte in out {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *byte = seed.to_be_bytes()[0];
            }
        };
        let groups = [Group::Modp1024, Group::Modp2048];
        let identity =
            Identity::ephemeral(&groups, false, None, &mut chance).map_err(io::Error::other)?;
        let wanted = if common.secure {
            Wish::Always
        } else {
            Wish::Never
        };
        let mut config = Config::new(identity);
        let policy = Policy {
            hmac: wanted,
            hmac_len: 16,
            sequence: wanted,
        };
        config.begin = (Group::Modp1024, policy);
        let cookies = Cookies::new([1; 32], now);
        let mut endpoint = Endpoint::new(config, cookies, Box::new(chance), now);
        let url = format!("rtmfp://{addr}/live");
        endpoint.open(&Discriminator::server(url.as_bytes()), &[addr], now);
        let setup = Setup::new("live", url);
        let session = ClientSession::new(&setup, now).map_err(io::Error::other)?;
        Ok(Self {
            common: Rc::clone(common),
            errand,
            socket,
            endpoint,
            id: None,
            flows: Flows::client(),
            session,
            stream: None,
            is_ready: false,
            over: None,
        })
    }

    /// Goes on until what it is there for is reached.
    pub(super) async fn ready(&mut self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        while !self.is_ready {
            if Instant::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.turn(until).await?;
        }
        Ok(())
    }

    /// Goes on until `until`.
    pub(super) async fn run(&mut self, until: Instant) -> io::Result<()> {
        while Instant::now() < until {
            self.turn(until).await?;
        }
        Ok(())
    }

    /// Ends the session: the server is told once.
    pub(super) async fn leave(mut self) {
        if let Some(session) = self.session_of_id() {
            session.abort();
        }
        // Whatever else happens is of no interest.
        let _ = self.drain().await;
    }

    /// Publishes a message.
    pub(super) fn publish(&mut self, kind: MessageKind, time: u32, payload: Bytes) {
        let (Some(stream), Some(id)) = (self.stream, self.id) else {
            return;
        };
        let message = Message {
            kind,
            stream,
            time,
            payload,
        };
        if let Some(session) = self.endpoint.session_mut(id) {
            self.flows.write(session, &message, Instant::now());
        }
    }

    /// Does what there is to do, and waits for more no longer than until `until`.
    async fn turn(&mut self, until: Instant) -> io::Result<()> {
        let due = self.drain().await?;
        let wake = due.map_or(until, |due| due.min(until));
        let endpoint = &mut self.endpoint;
        let take = |from, datagram: &mut [u8]| {
            endpoint.handle_datagram(from, datagram, Instant::now());
        };
        tokio::select! {
            biased;
            received = self.socket.receive(&self.common.room, take) => received?,
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        self.drain().await.map(drop)
    }

    async fn drain(&mut self) -> io::Result<Option<Instant>> {
        let mut buffer = [0; rtmfp::limits::STARTUP_DATAGRAM_MAX];
        loop {
            match self.endpoint.poll_output(Instant::now(), &mut buffer) {
                Output::Transmit { to, len } => self.socket.send(to, &buffer[..len]).await,
                Output::Event(event) => self.act(event)?,
                Output::Timeout(due) => match &self.over {
                    Some(why) => return Err(io::Error::other(why.clone())),
                    None => return Ok(due),
                },
            }
        }
    }

    fn session_of_id(&mut self) -> Option<&mut Session> {
        self.endpoint.session_mut(self.id?)
    }

    fn act(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Opened { session, .. } => {
                self.id = Some(session);
                if self.errand == Errand::Session {
                    self.is_ready = true;
                    return Ok(());
                }
                self.settle()
            }
            Event::OpenFailed { .. } => Err(io::ErrorKind::TimedOut.into()),
            Event::Introduce { .. } => Ok(()),
            Event::Session { session, event } => {
                let Some(open) = self.endpoint.session_mut(session) else {
                    return Ok(());
                };
                let told = self.flows.handle_event(open, event, Instant::now());
                if let Told::Over(over) = told {
                    self.over = Some(format!("{over:?}"));
                }
                while let Some(message) = self.flows.poll_message() {
                    match message.kind {
                        MessageKind::Audio | MessageKind::Video => self.common.look_at(&message),
                        MessageKind::UserControl
                        | MessageKind::CommandAmf0
                        | MessageKind::CommandAmf3
                        | MessageKind::DataAmf0
                        | MessageKind::DataAmf3
                        | MessageKind::SharedObjectAmf0
                        | MessageKind::SharedObjectAmf3 => {
                            self.session
                                .handle_message(message)
                                .map_err(io::Error::other)?;
                        }
                    }
                }
                self.settle()
            }
        }
    }

    /// Carries out what the commands' side says.
    fn settle(&mut self) -> io::Result<()> {
        while let Some(output) = self.session.poll_output() {
            match output {
                Says::Message(message) => {
                    if let Some(id) = self.id
                        && let Some(session) = self.endpoint.session_mut(id)
                    {
                        self.flows.write(session, &message, Instant::now());
                    }
                }
                Says::Event(Said::Connected(_)) => {
                    if self.errand == Errand::Connect {
                        self.is_ready = true;
                    } else {
                        self.session.create_stream().map_err(io::Error::other)?;
                    }
                }
                Says::Event(Said::StreamReady { stream, .. }) => {
                    self.stream = Some(stream);
                    let asked = if self.errand == Errand::Publish {
                        self.session.publish(stream, NAME, PublishMode::Live)
                    } else {
                        self.session.play(stream, NAME, PlayRequest::default())
                    };
                    asked.map_err(io::Error::other)?;
                }
                Says::Event(Said::Status { status, .. }) => {
                    self.is_ready |= status.code.ends_with(".Start");
                }
                Says::Event(Said::Closed { reason }) => {
                    self.over = Some(format!("{reason:?}"));
                }
                Says::Event(_) => {}
            }
        }
        Ok(())
    }
}
