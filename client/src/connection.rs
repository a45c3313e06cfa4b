//! One connection: a socket, a carrier and a session, driven together.

mod datagrams;
mod dial;
mod line;
mod pipe;
mod rejoin;
mod wire;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use amf::Value;
use rtmfp::endpoint::Endpoint;
use rtmp::{Message, MessageKind, StreamId, UserControl};
use session::client::{CallId, Closed, Event, Output, PlayRequest, Welcome};
use session::{ClientSession, PublishMode};
use tokio::time::timeout;

use self::datagrams::Datagrams;
use self::pipe::{Moved, Reading};
use self::rejoin::Home;
use self::wire::Wire;
use crate::limits::EVENTS_WAITING_MAX;
use crate::peers::Peers;
use crate::traces::{Traced, Traces};
use crate::{Error, Fallback, Options, PeerId, Player, Publisher, Scheme, Target, Transport, What};

/// A connection whose `connect` was accepted.
///
/// [`Connection::publish`] and [`Connection::play`] turn it into a [`Publisher`] or a
/// [`Player`]. For anything else (several streams, calls both ways) tell the session what
/// to do by [`Connection::session`], and then await [`Connection::next_event`] or
/// [`Connection::flush`].
pub struct Connection {
    wire: Wire,
    scheme: Scheme,
    fell_back: Option<Box<FellBack>>,
    session: ClientSession,
    events: VecDeque<(Event, Instant)>,
    over: Option<Over>,
    welcome: Option<Box<Welcome>>,
    pongs: u64,
    heard: Instant,
    patience: Duration,
    encoder_manners: bool,
    /// Where it goes on when the server is lost.
    home: Option<Box<Home>>,
    /// Makes spans of what is asked.
    traces: Traces,
}

/// Why a connection is not by datagrams, though its address asked for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FellBack {
    /// Where it is connected to instead.
    pub to: Target,
    /// What became of the datagrams.
    pub why: String,
}

/// Why nothing more will come.
#[derive(Clone, Debug)]
pub(crate) enum Over {
    Session(Closed),
    Disconnected,
    Io(io::ErrorKind, String),
    Carrier(rtmp::Error),
    Misbehaved(session::client::Error),
}

impl Connection {
    /// Connects to the host, in the way that the target says, and waits until `connect` is
    /// accepted. Where datagrams do not get through it goes another way, as
    /// [`Options::fallback`] says, and [`Self::fell_back`] tells. Where the server cannot be
    /// reached it tries [`Options::others`], and goes another way at the last of them only.
    ///
    /// # Errors
    /// Says which step failed, at the last of them.
    pub async fn open(target: &Target, options: &Options) -> Result<Self, Error> {
        if options.others.is_empty() {
            return Self::open_one(target, options).await;
        }
        let targets: Vec<_> = [target].into_iter().chain(&options.others).collect();
        let only = options.clone().with_fallback(Fallback::Never);
        let last = targets.len() - 1;
        for (at, target) in targets.iter().enumerate() {
            let options = if at == last { options } else { &only };
            match Self::open_one(target, options).await {
                Ok(mut connection) => {
                    connection.home = connection.near_id().map(|_| {
                        let targets = targets.into_iter().cloned().collect();
                        Box::new(Home::new(targets, options.clone(), at))
                    });
                    return Ok(connection);
                }
                Err(error) if at == last => return Err(error),
                Err(_) => {}
            }
        }
        Err(Error::Disconnected)
    }

    async fn open_one(target: &Target, options: &Options) -> Result<Self, Error> {
        if target.scheme.without_datagrams().is_none() {
            let io = dial::dial(target, options).await?;
            return Self::over(io, target, options).await;
        }
        let addrs = dial::resolve(target).await?;
        let error = match Datagrams::open(target, &addrs, options).await {
            Ok(datagrams) => {
                let wire = Wire::Flows(Box::new(datagrams));
                return Self::begin(wire, target, options).await;
            }
            Err(error) => error,
        };
        let Some(to) = options.fallback_of(target) else {
            return Err(error);
        };
        let io = dial::dial(&to, options).await?;
        let mut connection = Self::over(io, &to, options).await?;
        let why = error.to_string();
        connection.fell_back = Some(Box::new(FellBack { to, why }));
        Ok(connection)
    }

    /// As [`Self::open`], over something that is connected already. The target only says
    /// what the server is told.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn over(
        io: Box<dyn Transport>,
        target: &Target,
        options: &Options,
    ) -> Result<Self, Error> {
        // The seed fills the random parts of the handshake and guards no secret.
        let seed = RandomState::new().hash_one(target.host.as_str());
        Self::begin(Wire::chunks(io, seed), target, options).await
    }

    async fn begin(wire: Wire, target: &Target, options: &Options) -> Result<Self, Error> {
        let session = ClientSession::new(&options.setup_for(target), Instant::now())?;
        let mut connection = Self {
            wire,
            scheme: target.scheme,
            fell_back: None,
            session,
            events: VecDeque::new(),
            over: None,
            welcome: None,
            pongs: 0,
            heard: Instant::now(),
            patience: options.patience,
            encoder_manners: options.encoder_manners,
            home: None,
            traces: Traces::new(options.tracer.clone(), target.host.clone()),
        };
        let welcome = connection
            .wait("connect", |event| {
                if let Event::Rejected(rejection) = event {
                    return Some(Err(Error::Rejected(rejection.clone())));
                }
                let Event::Connected(welcome) = event else {
                    return None;
                };
                Some(Ok(welcome.clone()))
            })
            .await??;
        connection.traces.welcome(&welcome);
        connection.welcome = Some(welcome);
        connection.wire.set_chunk_size(options.chunk_size);
        connection.report()?;
        Ok(connection)
    }

    /// Says where peers may find us. It completes the handshake (RFC 7425 §5.3.3).
    fn report(&mut self) -> Result<(), session::client::Error> {
        if let Wire::Flows(datagrams) = &mut self.wire {
            let reported = datagrams.reported().into_iter().map(Value::from);
            self.session.notify("setPeerInfo", reported)?;
        }
        Ok(())
    }

    /// Publishes on a new stream. `name` may carry a type prefix and a query.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, or why the connection failed.
    pub async fn publish(mut self, name: &str, mode: PublishMode) -> Result<Publisher, Error> {
        if self.encoder_manners {
            self.session.release_stream(name)?;
            self.session.fc_publish(name)?;
        }
        let stream = self.create_stream().await?;
        let traced = self.trace(What::Publish, name);
        self.session.publish(stream, name, mode)?;
        let begun = self
            .wait_for_start("publish", stream, &["NetStream.Publish.Start"])
            .await;
        traced.end(&begun);
        begun?;
        Ok(Publisher::new(self, stream))
    }

    /// Plays on a new stream and returns when the server says that it began. What has
    /// arrived by then is not lost.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, or why the connection failed.
    pub async fn play(mut self, name: &str, request: PlayRequest) -> Result<Player, Error> {
        let stream = self.create_stream().await?;
        let traced = self.trace(What::Play, name);
        self.session.play(stream, name, request)?;
        let started = ["NetStream.Play.Start", "NetStream.Data.Start"];
        let begun = self.wait_for_start("play", stream, &started).await;
        traced.end(&begun);
        begun?;
        Ok(Player::new(self, stream))
    }

    /// Makes a message stream.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, or why the connection failed.
    pub async fn create_stream(&mut self) -> Result<StreamId, Error> {
        let call = self.session.create_stream()?;
        self.wait("createStream", |event| {
            if let Event::Failed {
                call: answered,
                status,
            } = event
                && *answered == call
            {
                let status = status.clone();
                return Some(Err(Error::Refused {
                    step: "createStream",
                    status,
                }));
            }
            let Event::StreamReady {
                call: answered,
                stream,
            } = event
            else {
                return None;
            };
            (*answered == call).then_some(Ok(*stream))
        })
        .await?
    }

    /// Calls a method of the server's and waits for the answer.
    ///
    /// # Errors
    /// [`Error::CallFailed`] with the server's words, or why the connection failed.
    pub async fn call(
        &mut self,
        name: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<Value, Error> {
        let traced = self.trace(What::Call, name);
        let call = self.session.call(name, args)?;
        let answer = self.answer_to(call).await;
        traced.end(&answer);
        answer
    }

    /// Waits for the answer to a call that was made by [`Self::session`].
    ///
    /// # Errors
    /// [`Error::CallFailed`] with the server's words, or why the connection failed.
    pub async fn answer_to(&mut self, call: CallId) -> Result<Value, Error> {
        self.wait("the call", |event| {
            if let Event::Failed {
                call: answered,
                status,
            } = event
                && *answered == call
            {
                return Some(Err(Error::CallFailed(status.clone())));
            }
            let Event::Result {
                call: answered,
                value,
            } = event
            else {
                return None;
            };
            (*answered == call).then(|| Ok(value.clone()))
        })
        .await?
    }

    /// Something is about to be asked.
    pub(crate) fn trace(&mut self, what: What, name: &str) -> Traced {
        self.traces.begin(&mut self.session, what, name)
    }

    /// The session, to be told what to do. What it has to send leaves when a method of
    /// the connection is awaited.
    pub fn session(&mut self) -> &mut ClientSession {
        &mut self.session
    }

    /// The next event and when it was read from the socket.
    ///
    /// # Errors
    /// Why no further event will come; the same again when called again.
    pub async fn next_event(&mut self) -> Result<(Event, Instant), Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.progress().await?;
        }
    }

    /// The next event that has arrived already.
    pub fn poll_event(&mut self) -> Option<(Event, Instant)> {
        self.events.pop_front()
    }

    /// Writes all that waits to be sent. Reads what comes meanwhile.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.flush_to(0).await
    }

    /// Writes until no more than `rest` bytes wait.
    pub(crate) async fn flush_to(&mut self, rest: usize) -> Result<(), Error> {
        self.collect();
        while self.wire.unsent() > rest || (rest == 0 && self.wire.is_unflushed()) {
            self.progress().await?;
        }
        Ok(())
    }

    /// How many bytes wait to be sent; of RTMFP, to be acknowledged.
    pub fn unsent(&mut self) -> usize {
        self.collect();
        self.wire.unsent()
    }

    /// How it is carried.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Why it is not by datagrams, though its address asked for them.
    #[must_use]
    pub fn fell_back(&self) -> Option<&FellBack> {
        self.fell_back.as_deref()
    }

    /// What the server said when it accepted `connect`.
    #[must_use]
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_deref()
    }

    /// Asks for a sign of life: a PingRequest, which the server answers below everything
    /// that an application does (RTMP 1.0 §7.1.7). [`Self::pongs`] counts the answers.
    pub fn ping(&mut self, stamp: u32) {
        self.collect();
        let ping = Message::user_control(UserControl::PingRequest(stamp));
        self.wire.write_message(&ping);
    }

    /// How many pings were answered.
    #[must_use]
    pub const fn pongs(&self) -> u64 {
        self.pongs
    }

    /// When anything came from the server last.
    #[must_use]
    pub const fn heard(&self) -> Instant {
        self.heard
    }

    /// Bytes received so far, the handshake of RTMP among them.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.wire.bytes_received()
    }

    /// Says goodbye for every stream, sends all that waits and closes the connection.
    ///
    /// # Errors
    /// Why it could not be done in good order; the connection is closed anyway.
    pub async fn close(mut self) -> Result<(), Error> {
        timeout(self.patience, self.last_words())
            .await
            .map_err(|_| Error::Timeout {
                step: "closing",
                patience: self.patience,
            })?
    }

    /// Drops the connection without a word; TCP is reset, and a session of RTMFP ended.
    pub fn close_abruptly(mut self) {
        self.wire.abandon();
    }

    async fn last_words(&mut self) -> Result<(), Error> {
        if let Wire::Flows(_) = self.wire {
            // The goodbye must not overtake what was sent in other flows.
            self.flush().await?;
        }
        self.session.close();
        self.collect();
        self.wire.finish().await.map_err(Error::Io)
    }

    /// Who we are to peers (`nearID`). None without RTMFP.
    #[must_use]
    pub fn near_id(&self) -> Option<PeerId> {
        match &self.wire {
            Wire::Chunks(_) => None,
            Wire::Flows(datagrams) => Some(datagrams.near_id()),
        }
    }

    /// Who the server is (`farID`). None without RTMFP.
    #[must_use]
    pub fn far_id(&self) -> Option<PeerId> {
        match &self.wire {
            Wire::Chunks(_) => None,
            Wire::Flows(datagrams) => Some(datagrams.far_id()),
        }
    }

    /// Does something about peers; where the server is goes along. None without RTMFP.
    pub(crate) fn with_peers<T>(
        &mut self,
        act: impl FnOnce(&mut Peers, &mut Endpoint, &[SocketAddr]) -> T,
    ) -> Option<T> {
        match &mut self.wire {
            Wire::Chunks(_) => None,
            Wire::Flows(datagrams) => Some(datagrams.with_peers(act)),
        }
    }

    fn peer_events(&mut self) -> usize {
        self.with_peers(|peers, _, _| peers.events())
            .unwrap_or_default()
    }

    /// Waits for an event; others keep their place in the queue.
    async fn wait<T>(
        &mut self,
        step: &'static str,
        mut wanted: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T, Error> {
        let patience = self.patience;
        let search = async {
            let mut seen = 0;
            loop {
                while let Some((event, _)) = self.events.get(seen) {
                    if let Some(found) = wanted(event) {
                        self.events.remove(seen);
                        return Ok(found);
                    }
                    seen += 1;
                }
                self.progress().await?;
            }
        };
        match timeout(patience, search).await {
            Ok(found) => found,
            Err(_) => Err(Error::Timeout { step, patience }),
        }
    }

    async fn wait_for_start(
        &mut self,
        step: &'static str,
        stream: StreamId,
        codes: &[&str],
    ) -> Result<(), Error> {
        self.wait(step, |event| {
            let Event::Status { stream: of, status } = event else {
                return None;
            };
            if *of == stream && codes.contains(&status.code.as_str()) {
                return Some(Ok(()));
            }
            // Some servers refuse in the name of the connection.
            status.is_error().then(|| {
                Err(Error::Refused {
                    step,
                    status: status.clone(),
                })
            })
        })
        .await?
    }

    /// Why nothing more will come, if that is so.
    pub(crate) const fn ending(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    /// Writes and reads until something was moved.
    pub(crate) async fn progress(&mut self) -> Result<(), Error> {
        if let Some(over) = &self.over {
            return Err(over.to_error());
        }
        let waiting = self.events.len();
        self.collect();
        if self.events.len() > waiting {
            return Ok(());
        }
        if let Err(over) = self.move_bytes().await {
            self.over = Some(over);
        }
        self.collect();
        // Events that came with the end are given out before the end is reported.
        match &self.over {
            Some(over) if self.events.len() == waiting => Err(over.to_error()),
            _ => Ok(()),
        }
    }

    async fn move_bytes(&mut self) -> Result<(), Over> {
        let deadline = self.session.deadline();
        let waiting = self.events.len() + self.peer_events();
        let reading = if waiting < EVENTS_WAITING_MAX {
            Reading::Wanted
        } else {
            Reading::Paused
        };
        let moved = poll_fn(|cx| self.wire.poll_move(cx, reading));
        let moved = match deadline {
            None => moved.await,
            Some(at) => match tokio::time::timeout_at(at.into(), moved).await {
                Ok(moved) => moved,
                Err(_) => {
                    self.session.handle_timeout(Instant::now());
                    return Ok(());
                }
            },
        };
        match moved? {
            Moved::Read => self.heard = Instant::now(),
            Moved::Written => {}
            Moved::End => return Err(Over::Disconnected),
        }
        Ok(())
    }

    /// Takes messages from the wire through the session, and what they send back.
    fn collect(&mut self) {
        let now = Instant::now();
        self.greet(now);
        while let Some(message) = self.wire.poll_message() {
            if is_pong(&message) {
                self.pongs += 1;
            }
            if let Err(error) = self.session.handle_message(message) {
                self.over.get_or_insert(Over::Misbehaved(error));
                break;
            }
            self.collect_session(now);
        }
        self.collect_session(now);
        self.wire.collect();
    }

    fn collect_session(&mut self, now: Instant) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Message(message) => self.wire.write_message(&message),
                Output::Event(event) => {
                    if let Event::Closed { reason } = &event {
                        self.over.get_or_insert(Over::Session(reason.clone()));
                    }
                    if let Event::Connected(welcome) = &event {
                        self.arrived(welcome);
                    }
                    self.events.push_back((event, now));
                }
            }
        }
    }

    pub(crate) fn send(&mut self, message: Message) -> Result<(), Error> {
        Ok(self.session.send(message)?)
    }
}

fn is_pong(message: &Message) -> bool {
    message.kind == MessageKind::UserControl
        && matches!(
            UserControl::decode(&message.payload),
            Ok(UserControl::PingResponse(_))
        )
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("session", &self.session)
            .field("unsent", &self.wire.unsent())
            .field("events", &self.events.len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

impl Over {
    pub(crate) fn to_error(&self) -> Error {
        match self {
            Self::Session(reason) => Error::Closed(reason.clone()),
            Self::Disconnected => Error::Disconnected,
            Self::Io(kind, text) => Error::Io(io::Error::new(*kind, text.clone())),
            Self::Carrier(error) => Error::Carrier(*error),
            Self::Misbehaved(error) => Error::Session(error.clone()),
        }
    }
}
