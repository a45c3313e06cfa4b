//! One connection: a socket, a carrier and a session, driven together.

mod dial;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use amf::Value;
use bytes::{Buf, Bytes, BytesMut};
use rtmp::{Carrier, Message, StreamId};
use session::ClientSession;
use session::PublishMode;
use session::client::{CallId, Closed, Event, Output, PlayRequest};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use crate::limits::{CLOSE_PATIENCE, EVENTS_WAITING_MAX, READ_SIZE, SLICES_MAX};
use crate::{Error, Options, Player, Publisher, Target, Transport};

/// A connection whose `connect` was accepted.
///
/// [`Connection::publish`] and [`Connection::play`] turn it into a [`Publisher`] or a
/// [`Player`]. For anything else (several streams, calls both ways) tell the session what
/// to do by [`Connection::session`], and then await [`Connection::next_event`] or
/// [`Connection::flush`].
pub struct Connection {
    io: Box<dyn Transport>,
    carrier: Carrier,
    session: ClientSession,
    input: BytesMut,
    unsent: VecDeque<Bytes>,
    unsent_len: usize,
    /// TLS holds bytes back until it is flushed.
    unflushed: bool,
    events: VecDeque<(Event, Instant)>,
    over: Option<Over>,
    patience: Duration,
    encoder_manners: bool,
}

/// Why nothing more will come.
#[derive(Clone, Debug)]
enum Over {
    Session(Closed),
    Disconnected,
    Io(io::ErrorKind, String),
    Carrier(rtmp::Error),
    Misbehaved(session::client::Error),
}

impl Connection {
    /// Connects to the host, over TLS if the target says so, and waits until `connect` is
    /// accepted.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn open(target: &Target, options: &Options) -> Result<Self, Error> {
        let io = dial::dial(target, options).await?;
        Self::over(io, target, options).await
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
        let session = ClientSession::new(&options.setup_for(target), Instant::now())?;
        let mut connection = Self {
            io,
            carrier: Carrier::client(seed),
            session,
            input: BytesMut::new(),
            unsent: VecDeque::new(),
            unsent_len: 0,
            unflushed: false,
            events: VecDeque::new(),
            over: None,
            patience: options.patience,
            encoder_manners: options.encoder_manners,
        };
        connection
            .wait("connect", |event| match event {
                Event::Connected(_) => Some(Ok(())),
                Event::Rejected(rejection) => Some(Err(Error::Rejected(rejection.clone()))),
                _ => None,
            })
            .await??;
        connection.carrier.set_chunk_size(options.chunk_size);
        Ok(connection)
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
        self.session.publish(stream, name, mode)?;
        self.wait_for_start("publish", stream, &["NetStream.Publish.Start"])
            .await?;
        Ok(Publisher::new(self, stream))
    }

    /// Plays on a new stream and returns when the server says that it began. What has
    /// arrived by then is not lost.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, or why the connection failed.
    pub async fn play(mut self, name: &str, request: PlayRequest) -> Result<Player, Error> {
        let stream = self.create_stream().await?;
        self.session.play(stream, name, request)?;
        let started = ["NetStream.Play.Start", "NetStream.Data.Start"];
        self.wait_for_start("play", stream, &started).await?;
        Ok(Player::new(self, stream))
    }

    /// Makes a message stream.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, or why the connection failed.
    pub async fn create_stream(&mut self) -> Result<StreamId, Error> {
        let call = self.session.create_stream()?;
        self.wait("createStream", |event| match event {
            Event::StreamReady {
                call: answered,
                stream,
            } if *answered == call => Some(Ok(*stream)),
            Event::Failed {
                call: answered,
                status,
            } if *answered == call => Some(Err(Error::Refused {
                step: "createStream",
                status: status.clone(),
            })),
            _ => None,
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
        let call = self.session.call(name, args)?;
        self.answer_to(call).await
    }

    /// Waits for the answer to a call that was made by [`Self::session`].
    ///
    /// # Errors
    /// [`Error::CallFailed`] with the server's words, or why the connection failed.
    pub async fn answer_to(&mut self, call: CallId) -> Result<Value, Error> {
        self.wait("the call", |event| match event {
            Event::Result {
                call: answered,
                value,
            } if *answered == call => Some(Ok(value.clone())),
            Event::Failed {
                call: answered,
                status,
            } if *answered == call => Some(Err(Error::CallFailed(status.clone()))),
            _ => None,
        })
        .await?
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
        while self.unsent_len > rest || (rest == 0 && self.unflushed) {
            let _ = self.progress().await?;
        }
        Ok(())
    }

    /// How many bytes wait to be sent.
    pub fn unsent(&mut self) -> usize {
        self.collect();
        self.unsent_len
    }

    /// Bytes received so far, the handshake among them.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.carrier.bytes_received()
    }

    /// Says goodbye for every stream, sends all that waits and closes the connection.
    ///
    /// # Errors
    /// Why it could not be done in good order; the connection is closed anyway.
    pub async fn close(mut self) -> Result<(), Error> {
        self.session.close();
        timeout(self.patience, self.last_words())
            .await
            .map_err(|_| Error::Timeout {
                step: "closing",
                patience: self.patience,
            })?
    }

    /// Drops the connection without a word; TCP is reset.
    pub fn close_abruptly(mut self) {
        self.io.abandon();
    }

    async fn last_words(&mut self) -> Result<(), Error> {
        self.flush_writes().await.map_err(Error::Io)?;
        self.io.shutdown().await.map_err(Error::Io)?;
        // Closing with unread bytes in the receive buffer would reset the connection and
        // could take the goodbye from the server's buffer.
        let drain = async {
            loop {
                self.input.clear();
                match poll_fn(|cx| self.poll_read(cx)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        };
        // A server that keeps its side open is not waited for any longer.
        let _ = timeout(CLOSE_PATIENCE, drain).await;
        Ok(())
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
        self.wait(step, |event| match event {
            Event::Status { stream: of, status } if *of == stream || status.is_error() => {
                if codes.contains(&status.code.as_str()) {
                    Some(Ok(()))
                } else if status.is_error() {
                    Some(Err(Error::Refused {
                        step,
                        status: status.clone(),
                    }))
                } else {
                    None
                }
            }
            _ => None,
        })
        .await?
    }

    /// Writes and reads until something was moved.
    async fn progress(&mut self) -> Result<(), Error> {
        if let Some(over) = &self.over {
            return Err(over.to_error());
        }
        self.collect();
        let waiting = self.events.len();
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
        let moved = async { poll_fn(|cx| self.poll_move(cx)).await };
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
        match moved {
            Ok(Moved::Read) => self
                .carrier
                .handle_bytes(&mut self.input)
                .map_err(Over::Carrier),
            Ok(Moved::Written) => Ok(()),
            Ok(Moved::End) => Err(Over::Disconnected),
            Err(error) => Err(Over::Io(error.kind(), error.to_string())),
        }
    }

    /// Takes messages from the carrier through the session, and what they send back.
    fn collect(&mut self) {
        let now = Instant::now();
        while let Some(message) = self.carrier.poll_message() {
            if let Err(error) = self.session.handle_message(message) {
                self.over.get_or_insert(Over::Misbehaved(error));
                break;
            }
            self.collect_session(now);
        }
        self.collect_session(now);
        while let Some(bytes) = self.carrier.poll_transmit() {
            self.unsent_len += bytes.len();
            self.unsent.push_back(bytes);
        }
    }

    fn collect_session(&mut self, now: Instant) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Message(message) => self.carrier.write_message(&message),
                Output::Event(event) => {
                    if let Event::Closed { reason } = &event {
                        self.over.get_or_insert(Over::Session(reason.clone()));
                    }
                    self.events.push_back((event, now));
                }
            }
        }
    }

    async fn flush_writes(&mut self) -> io::Result<()> {
        self.collect();
        poll_fn(|cx| {
            while !self.unsent.is_empty() {
                ready!(self.poll_write(cx))?;
            }
            Pin::new(&mut *self.io).poll_flush(cx)
        })
        .await
    }

    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Moved>> {
        let mut written = false;
        while !self.unsent.is_empty() {
            match self.poll_write(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
            written = true;
            self.unflushed = true;
        }
        if self.unflushed && self.unsent.is_empty() {
            match Pin::new(&mut *self.io).poll_flush(cx) {
                Poll::Ready(result) => {
                    result?;
                    self.unflushed = false;
                    written = true;
                }
                Poll::Pending => {}
            }
        }
        if self.events.len() < EVENTS_WAITING_MAX
            && let Poll::Ready(read) = self.poll_read(cx)
        {
            return Poll::Ready(Ok(if read? == 0 { Moved::End } else { Moved::Read }));
        }
        if written {
            Poll::Ready(Ok(Moved::Written))
        } else {
            Poll::Pending
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ_SIZE / 8 {
            self.input.reserve(READ_SIZE);
        }
        poll_read_buf(Pin::new(&mut *self.io), cx, &mut self.input)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.unsent) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let io = Pin::new(&mut *self.io);
        let mut rest = ready!(io.poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?;
        if rest == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unsent_len -= rest;
        while let Some(front) = self.unsent.front_mut() {
            if front.len() > rest {
                front.advance(rest);
                break;
            }
            rest -= front.len();
            self.unsent.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn send(&mut self, message: Message) -> Result<(), Error> {
        Ok(self.session.send(message)?)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("session", &self.session)
            .field("unsent", &self.unsent_len)
            .field("events", &self.events.len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum Moved {
    Read,
    Written,
    End,
}

impl Over {
    fn to_error(&self) -> Error {
        match self {
            Self::Session(reason) => Error::Closed(reason.clone()),
            Self::Disconnected => Error::Disconnected,
            Self::Io(kind, text) => Error::Io(io::Error::new(*kind, text.clone())),
            Self::Carrier(error) => Error::Carrier(*error),
            Self::Misbehaved(error) => Error::Session(error.clone()),
        }
    }
}
