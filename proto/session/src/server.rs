//! The server role: from the first message of a connection to its end.

mod object;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amf::Value;
use rtmp::{Message, MessageKind, StreamId, UserControl};

use crate::call::{Asked, Requests};
use crate::command::{Command, Transaction};
use crate::connect;
use crate::connection::Connection;
use crate::error::{Error, Limit, Misbehaviour, Misuse};
use crate::event::{
    Capabilities, CloseReason, Connect, Event, Notice, Output, Refusal, Reply, RequestId,
};
use crate::limits::{COMMAND_BYTES_MAX, WAITING_BYTES_MAX, WAITING_MESSAGES_MAX};
use crate::ping::Ping;
use crate::refusal;
use crate::status::{Code, Status};
pub use crate::stream::SampleAccess;

/// How a server session behaves.
#[derive(Clone, Debug)]
pub struct ServerSetup {
    /// Where chance comes from: the `clientid` in status messages. Not a secret.
    pub seed: u64,
    /// The server's version as clients see it, comma-separated; `fmsVer` is `FMS/` and
    /// this. Some clients compare the first number.
    pub version: String,
    /// How long a client may take until `connect` is there.
    pub connect_timeout: Duration,
    /// How long a client may be silent before it is pinged.
    pub ping_interval: Duration,
    /// How long a pinged client may stay silent. It must allow for what is queued in
    /// front of the ping.
    pub ping_timeout: Duration,
    /// Whether players may read the samples of what they play.
    pub sample_access: SampleAccess,
    /// Whether clients are told that they may say which trace their requests belong to.
    pub traceparent: bool,
}

impl ServerSetup {
    /// The usual behaviour.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            version: "5,0,17,0".into(),
            connect_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(30),
            sample_access: SampleAccess::default(),
            traceparent: false,
        }
    }
}

impl Default for ServerSetup {
    fn default() -> Self {
        Self::new(0)
    }
}

/// One client's NetConnection with its streams, as a server sees it.
///
/// The crate's documentation states how to drive it.
#[derive(Debug)]
pub struct ServerSession {
    setup: ServerSetup,
    out: crate::outbox::Outbox,
    requests: Requests,
    phase: Phase,
    objects: object::Objects,
    dropped: u64,
}

#[derive(Debug)]
enum Phase {
    /// Nothing but `connect` may come.
    AwaitingConnect { until: Option<Instant> },
    /// The shell decides.
    Connecting(Box<Connecting>),
    /// Accepted.
    Connected(Box<Connection>),
    /// Over; whatever still comes is ignored.
    Closed,
}

#[derive(Debug)]
struct Connecting {
    request: RequestId,
    transaction: Transaction,
    at: model::AppInstance,
    capabilities: Capabilities,
    /// Commands, user control and asks of objects of a client that does not wait for the
    /// answer.
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
}

impl ServerSession {
    /// A session whose carrier is ready: the handshake is done.
    #[must_use]
    pub fn new(setup: ServerSetup, now: Instant) -> Self {
        let out = crate::outbox::Outbox::new(client_id(setup.seed));
        let until = now.checked_add(setup.connect_timeout);
        Self {
            setup,
            out,
            requests: Requests::default(),
            phase: Phase::AwaitingConnect { until },
            objects: object::Objects::default(),
            dropped: 0,
        }
    }

    /// The `clientid` that status messages carry.
    #[must_use]
    pub fn client_id(&self) -> &str {
        self.out.client_id()
    }

    /// Messages that came and were of no use: media without a publish, unreadable data,
    /// message kinds that are not served.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether `connect` is accepted and the session is not over.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        match self.phase {
            Phase::Connected(_) => true,
            Phase::AwaitingConnect { .. } | Phase::Connecting(_) | Phase::Closed => false,
        }
    }

    /// Whether the session is over.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::AwaitingConnect { .. } | Phase::Connecting(_) | Phase::Connected(_) => false,
        }
    }

    /// The next thing to do, in order. Drain it after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// When [`Self::handle_timeout`] is due, if nothing comes before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::AwaitingConnect { until } => *until,
            Phase::Connected(connection) => connection.ping.deadline(),
            Phase::Connecting(_) | Phase::Closed => None,
        }
    }

    /// A message of the peer.
    ///
    /// # Errors
    /// The peer misbehaved or exceeded a limit: the session is over, without an
    /// [`Event::Closed`]. Write what is queued, then close the connection. A session
    /// that is over ignores messages.
    pub fn handle_message(&mut self, message: Message, now: Instant) -> Result<(), Error> {
        let result = self.take(message, now);
        if result.is_err() {
            self.phase = Phase::Closed;
        }
        result
    }

    /// The answer to a request. An answer to a request that is answered or withdrawn is
    /// ignored, because it may cross the peer's change of mind.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`]: the request was never made or does not take this reply;
    /// nothing happened. Anything else: as for [`Self::handle_message`], caused by a
    /// message that waited for this answer.
    pub fn handle_reply(
        &mut self,
        request: RequestId,
        reply: Reply,
        now: Instant,
    ) -> Result<(), Error> {
        if self.is_closed() {
            return Ok(());
        }
        let Some(asked) = self.requests.get(request).map_err(Error::ApiMisuse)? else {
            return Ok(());
        };
        if !takes(asked, &reply) {
            return Err(Error::ApiMisuse(Misuse::WrongReply(request)));
        }
        self.requests.close(request);
        match (asked, reply) {
            (Asked::Connect, Reply::Accept) => return self.accept_connect(now),
            (Asked::Connect, Reply::Refuse(refusal)) => self.refuse_connect(request, refusal),
            (Asked::Call(stream, transaction), Reply::Result(value)) => {
                let transaction = Some(transaction);
                if !self.out.result(stream, transaction, Value::Null, value) {
                    let why = "The result cannot be written.".to_owned();
                    self.call_failed(stream, transaction, why);
                }
            }
            (Asked::Call(stream, transaction), Reply::Failed(description)) => {
                self.call_failed(stream, Some(transaction), description);
            }
            (Asked::Publish(stream) | Asked::Play(stream), reply) => {
                if let Phase::Connected(connection) = &mut self.phase {
                    connection.decide(stream, request, reply, &mut self.out, &mut self.requests);
                }
            }
            // `takes` let none of these through.
            (Asked::Connect, Reply::Result(_) | Reply::Failed(_))
            | (Asked::Call(..), Reply::Accept | Reply::Refuse(_)) => {}
        }
        Ok(())
    }

    /// What the fabric has to say to a stream.
    pub fn handle_notice(&mut self, stream: StreamId, notice: Notice, _now: Instant) {
        if let Phase::Connected(connection) = &mut self.phase {
            connection.handle_notice(stream, notice, &mut self.out, &mut self.requests);
        }
    }

    /// Bytes came from the peer, though perhaps no whole message yet: a sign of life.
    pub fn handle_traffic(&mut self, now: Instant) {
        if let Phase::Connected(connection) = &mut self.phase {
            connection.ping.heard(now);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::AwaitingConnect { until } => {
                if until.is_some_and(|until| until <= now) {
                    self.over(CloseReason::ConnectTimeout);
                }
            }
            Phase::Connected(connection) => {
                if connection.handle_timeout(&mut self.out, now) {
                    self.over(CloseReason::PingTimeout);
                }
            }
            Phase::Connecting(_) | Phase::Closed => {}
        }
    }

    /// Ends the session from our side: the peer is told why, and [`Event::Closed`]
    /// follows. Streams get no [`Event::Finished`].
    ///
    /// Of the refusals, `AppShutdown` says that the application or the process ends,
    /// `Redirected` where to go, and `Failed` is told as `NetConnection.Connect.Closed`
    /// with its description.
    pub fn close(&mut self, reason: Refusal, _now: Instant) {
        match &self.phase {
            Phase::Closed => return,
            Phase::AwaitingConnect { .. } => {}
            Phase::Connecting(connecting) => {
                let status = refusal::connect(reason, &connecting.at.to_string());
                let transaction = Some(connecting.transaction);
                self.out
                    .error(StreamId::CONNECTION, transaction, Value::Null, status);
                self.ask_to_close();
            }
            Phase::Connected(connection) => {
                let status = match reason {
                    Refusal::Failed { description } => {
                        Status::connection(Code::ConnectClosed).describe(description)
                    }
                    reason @ (Refusal::Rejected { .. }
                    | Refusal::Redirected { .. }
                    | Refusal::InvalidApp
                    | Refusal::AppShutdown
                    | Refusal::BadName
                    | Refusal::StreamNotFound) => {
                        refusal::connect(reason, &connection.at.to_string())
                    }
                };
                self.out.status(StreamId::CONNECTION, status);
                self.ask_to_close();
            }
        }
        self.over(CloseReason::Closed);
    }

    /// Asks the client to connect anew, to another address or to the same one, at a
    /// moment that suits it (enhanced RTMP v2, "Reconnect Request"). The session goes on
    /// until the client leaves.
    ///
    /// False, and nothing happens, when the client did not announce that it follows.
    pub fn request_reconnect(&mut self, tc_url: Option<&str>, _now: Instant) -> bool {
        let Phase::Connected(connection) = &self.phase else {
            return false;
        };
        if !connection.capabilities.reconnect() {
            return false;
        }
        let mut status = Status::connection(Code::ConnectReconnectRequest);
        if let Some(url) = tc_url {
            status = status.with("tcUrl", url);
        }
        self.out.status(StreamId::CONNECTION, status);
        true
    }

    /// Calls a method of the client and wants no answer.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`]: the session is not connected, or an argument cannot be
    /// written.
    pub fn call(
        &mut self,
        name: &str,
        args: impl IntoIterator<Item = Value>,
        _now: Instant,
    ) -> Result<(), Error> {
        if !self.is_connected() {
            return Err(Error::ApiMisuse(Misuse::NotConnected));
        }
        if !self.out.command(StreamId::CONNECTION, name, args) {
            return Err(Error::ApiMisuse(Misuse::Unwritable));
        }
        Ok(())
    }

    fn take(&mut self, message: Message, now: Instant) -> Result<(), Error> {
        if is_command(message.kind) && message.payload.len() > COMMAND_BYTES_MAX {
            let len = message.payload.len();
            return Err(Error::LimitExceeded(Limit::CommandBytes { len }));
        }
        match &mut self.phase {
            Phase::AwaitingConnect { .. } => self.take_connect(&message),
            Phase::Connecting(connecting) => {
                if waits_for_connect(message.kind) {
                    return connecting.hold(message);
                }
                self.dropped += 1;
                Ok(())
            }
            Phase::Connected(_) if is_object(message.kind) => {
                let done = self.take_object(&message, now)?;
                self.dropped += u64::from(!done);
                Ok(())
            }
            Phase::Connected(connection) => {
                let done =
                    connection.handle_message(message, &mut self.out, &mut self.requests, now)?;
                self.dropped += u64::from(!done);
                Ok(())
            }
            Phase::Closed => Ok(()),
        }
    }

    /// The first message. User control is let through, because some clients announce
    /// their buffer before they connect.
    fn take_connect(&mut self, message: &Message) -> Result<(), Error> {
        if message.kind == MessageKind::UserControl {
            return Ok(());
        }
        let before = |what: String| Error::PeerMisbehaved(Misbehaviour::BeforeConnect { what });
        if !is_command(message.kind) {
            return Err(before(format!("{:?}", message.kind)));
        }
        let command = read_command(message)?;
        if command.name != "connect" {
            return Err(before(crate::status::cut(&command.name).to_owned()));
        }
        let transaction = command.transaction.unwrap_or(Transaction::CONNECT);
        let app = command
            .object
            .get("app")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        match connect::parse(command) {
            Ok(connect) => self.ask_connect(transaction, connect),
            Err(_) => {
                let status = Status::connection(Code::ConnectInvalidApp)
                    .describe(Code::ConnectInvalidApp.description(&app));
                self.reject(transaction, status);
            }
        }
        Ok(())
    }

    fn ask_connect(&mut self, transaction: Transaction, connect: Connect) {
        self.out.encoding = connect.encoding;
        let request = self.requests.open(Asked::Connect);
        self.phase = Phase::Connecting(Box::new(Connecting {
            request,
            transaction,
            at: connect.at.clone(),
            capabilities: connect.capabilities.clone(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
        }));
        self.out.event(Event::Connect {
            request,
            connect: Box::new(connect),
        });
    }

    /// The order of Flash Media Server; what comes before StreamBegin (window, bandwidth,
    /// chunk size) is the carrier's.
    fn accept_connect(&mut self, now: Instant) -> Result<(), Error> {
        let connecting = match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Connecting(connecting) => connecting,
            other @ (Phase::AwaitingConnect { .. } | Phase::Connected(_) | Phase::Closed) => {
                self.phase = other;
                return Ok(());
            }
        };
        let (properties, status) = connect::accepted(
            &self.setup.version,
            self.out.encoding,
            &connecting.capabilities,
            self.setup.traceparent,
        );
        self.out
            .control(UserControl::StreamBegin(StreamId::CONNECTION));
        let info = status.info(self.out.client_id());
        self.out.result(
            StreamId::CONNECTION,
            Some(connecting.transaction),
            properties,
            info,
        );
        self.out.command(StreamId::CONNECTION, "onBWDone", []);
        let ping = Ping::new(self.setup.ping_interval, self.setup.ping_timeout, now);
        self.phase = Phase::Connected(Box::new(Connection::new(
            connecting.at,
            connecting.capabilities,
            self.setup.sample_access,
            ping,
            now,
        )));
        for message in connecting.waiting {
            self.handle_message(message, now)?;
        }
        Ok(())
    }

    fn refuse_connect(&mut self, request: RequestId, refusal: Refusal) {
        let (transaction, app) = match &self.phase {
            Phase::Connecting(connecting) if connecting.request == request => {
                (connecting.transaction, connecting.at.to_string())
            }
            Phase::AwaitingConnect { .. }
            | Phase::Connecting(_)
            | Phase::Connected(_)
            | Phase::Closed => return,
        };
        self.reject(transaction, refusal::connect(refusal, &app));
    }

    /// `_error`, the wish that the client close, and the end.
    fn reject(&mut self, transaction: Transaction, status: Status) {
        self.out
            .error(StreamId::CONNECTION, Some(transaction), Value::Null, status);
        self.ask_to_close();
        self.over(CloseReason::Refused);
    }

    fn call_failed(&mut self, stream: StreamId, transaction: Option<Transaction>, why: String) {
        let status = Status::connection(Code::CallFailed).describe(why);
        self.out.error(stream, transaction, Value::Null, status);
    }

    fn ask_to_close(&mut self) {
        self.out.command(StreamId::CONNECTION, "close", []);
    }

    fn over(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed;
        self.out.event(Event::Closed { reason });
    }
}

impl Connecting {
    fn hold(&mut self, message: Message) -> Result<(), Error> {
        self.waiting_bytes += message.payload.len();
        if self.waiting.len() >= WAITING_MESSAGES_MAX || self.waiting_bytes > WAITING_BYTES_MAX {
            return Err(Error::LimitExceeded(Limit::WaitingForConnect));
        }
        self.waiting.push_back(message);
        Ok(())
    }
}

/// Reads a command and blames the peer when it cannot be read.
pub(crate) fn read_command(message: &Message) -> Result<Command, Error> {
    Command::read(message).map_err(|cause| {
        Error::PeerMisbehaved(Misbehaviour::MalformedCommand {
            stream: message.stream,
            cause,
        })
    })
}

pub(crate) const fn is_command(kind: MessageKind) -> bool {
    match kind {
        MessageKind::CommandAmf0 | MessageKind::CommandAmf3 => true,
        MessageKind::UserControl
        | MessageKind::Audio
        | MessageKind::Video
        | MessageKind::DataAmf3
        | MessageKind::SharedObjectAmf3
        | MessageKind::DataAmf0
        | MessageKind::SharedObjectAmf0 => false,
    }
}

const fn is_object(kind: MessageKind) -> bool {
    match kind {
        MessageKind::SharedObjectAmf0 | MessageKind::SharedObjectAmf3 => true,
        MessageKind::UserControl
        | MessageKind::Audio
        | MessageKind::Video
        | MessageKind::DataAmf3
        | MessageKind::CommandAmf3
        | MessageKind::DataAmf0
        | MessageKind::CommandAmf0 => false,
    }
}

/// What a client may send before it knows that it is connected. Media belongs to a stream,
/// and a stream to the answer.
fn waits_for_connect(kind: MessageKind) -> bool {
    is_command(kind) || is_object(kind) || kind == MessageKind::UserControl
}

/// Which replies a question takes.
const fn takes(asked: Asked, reply: &Reply) -> bool {
    match asked {
        Asked::Connect | Asked::Publish(_) | Asked::Play(_) => {
            matches!(reply, Reply::Accept | Reply::Refuse(_))
        }
        Asked::Call(..) => matches!(reply, Reply::Result(_) | Reply::Failed(_)),
    }
}

/// Eight characters, as Flash Media Server's: `oAAGAAAA`.
fn client_id(seed: u64) -> Arc<str> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // SplitMix64: neighbouring seeds give unlike ids.
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    let text: String = (0..8)
        .map(|i| {
            let digit = z >> (6 * i) & 63;
            ALPHABET
                .get(usize::try_from(digit).unwrap_or(0))
                .map_or('A', |c| char::from(*c))
        })
        .collect();
    text.into()
}
