//! A connection that plays.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Instant;

use model::{Frame, Kind, Unwrapper};
use rtmp::{Message, MessageKind, StreamId};
use session::client::{Event, PlayRequest, Progress, Status};

use crate::handover::play::{Heard, Moving};
use crate::handover::splice::{Lasts, Splice};
use crate::handover::{self, Home};
use crate::{Connection, Error};

/// A connection that plays one stream.
pub struct Player {
    connection: Connection,
    stream: StreamId,
    clock: Unwrapper,
    ended: Option<Ended>,
    /// Where it goes on when the server asks it to leave.
    home: Option<Box<Home>>,
    moving: Option<Box<Moving>>,
    splice: Splice,
    /// What came by the new connection while the old one was left.
    ready: VecDeque<Arrival>,
    /// The times of the last messages.
    last: Lasts,
    /// The old connection says goodbye.
    leaving: Option<Leaving>,
}

type Leaving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A message and when it was read from the socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// The message.
    pub message: Message,
    /// When.
    pub at: Instant,
}

/// What a player is given.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Audio, video or data.
    Message(Arrival),
    /// A status of the stream: `NetStream.Play.UnpublishNotify` and the like.
    Status(Box<Status>),
    /// Nothing more will come on the stream; the connection is still there.
    Ended(Ended),
}

/// How a play ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// What was asked for was played (`NetStream.Play.Stop`, `Play.Complete`).
    Complete,
    /// The server ended it by an error; its status code.
    Failed(String),
}

impl Player {
    pub(crate) fn new(connection: Connection, stream: StreamId) -> Self {
        Self {
            connection,
            stream,
            clock: Unwrapper::default(),
            ended: None,
            home: None,
            moving: None,
            splice: Splice::default(),
            ready: VecDeque::new(),
            last: Lasts::default(),
            leaving: None,
        }
    }

    /// Connects to the target and plays its stream: live if there is one, else recorded,
    /// else live when it begins.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn open(target: &crate::Target, options: &crate::Options) -> Result<Self, Error> {
        let mut player = Self::open_once(target, options).await?;
        player.home = Home::of(target, options);
        Ok(player)
    }

    /// As [`Self::open`], to stay there.
    pub(crate) async fn open_once(
        target: &crate::Target,
        options: &crate::Options,
    ) -> Result<Self, Error> {
        let name = target.stream()?;
        let connection = Connection::open(target, options).await?;
        connection.play(name, PlayRequest::default()).await
    }

    pub(crate) fn into_parts(self) -> (Connection, StreamId) {
        (self.connection, self.stream)
    }

    /// The next thing that the server says about the stream.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn next(&mut self) -> Result<Item, Error> {
        loop {
            if let Some(arrival) = self.ready.pop_front() {
                self.note(&arrival.message);
                return Ok(Item::Message(arrival));
            }
            let heard = match &mut self.moving {
                Some(moving) => moving.hear(&mut self.connection).await,
                None => {
                    let (event, at) = self.hear().await?;
                    Heard::Old(event, at)
                }
            };
            if let Some(item) = self.take(heard)? {
                return Ok(item);
            }
        }
    }

    /// The next event, while the goodbye to an old connection gets on.
    async fn hear(&mut self) -> Result<(Event, Instant), Error> {
        if let Some(leaving) = &mut self.leaving {
            tokio::select! {
                biased;
                heard = self.connection.next_event() => return heard,
                () = leaving => self.leaving = None,
            }
        }
        self.connection.next_event().await
    }

    fn take(&mut self, heard: Heard) -> Result<Option<Item>, Error> {
        match heard {
            Heard::Lost(error) => Err(error),
            Heard::Go(gone) => {
                self.stream = gone.stream;
                if let Some(home) = &mut self.home {
                    home.pace = gone.pace;
                }
                let old = std::mem::replace(&mut self.connection, gone.connection);
                if gone.leave {
                    self.leaving = Some(Box::pin(async move {
                        // It is left however the goodbye goes.
                        let _ = old.close().await;
                    }));
                }
                self.splice = gone.splice;
                self.ready.extend(gone.ready);
                self.moving = None;
                Ok(None)
            }
            Heard::Old(event, at) => {
                if self.moving.is_none()
                    && let Some(home) = &self.home
                    && let Some(tc_url) = handover::request(&event)
                {
                    self.moving = Some(Box::new(Moving::begin(home, tc_url, self.last)));
                }
                let item = self.sort(event, at);
                if let (Some(Item::Message(arrival)), Some(moving)) = (&item, &mut self.moving)
                    && let Some(heard) = moving.note(&arrival.message)
                {
                    self.take(heard)?;
                }
                Ok(item)
            }
        }
    }

    /// The next message of the stream; `None` when the play is over.
    ///
    /// # Errors
    /// Why the connection failed.
    pub async fn next_message(&mut self) -> Result<Option<Arrival>, Error> {
        while self.ended.is_none() {
            match self.next().await? {
                Item::Message(arrival) => return Ok(Some(arrival)),
                Item::Status(_) | Item::Ended(_) => {}
            }
        }
        Ok(None)
    }

    /// The next audio, video or data message as a classified frame, with the time
    /// unwrapped, and when it was read from the socket; `None` when the play is over.
    ///
    /// # Errors
    /// Why the connection failed, or [`Error::Media`].
    pub async fn next_frame(&mut self) -> Result<Option<(Frame, Instant)>, Error> {
        while let Some(arrival) = self.next_message().await? {
            let kind = match arrival.message.kind {
                MessageKind::Audio => Kind::Audio,
                MessageKind::Video => Kind::Video,
                MessageKind::DataAmf0 | MessageKind::DataAmf3 => Kind::Data,
                MessageKind::UserControl
                | MessageKind::SharedObjectAmf3
                | MessageKind::CommandAmf3
                | MessageKind::SharedObjectAmf0
                | MessageKind::CommandAmf0 => continue,
            };
            let time = self.clock.unwrap(arrival.message.time);
            let frame = flv::frame(kind, time, arrival.message.payload).map_err(Error::Media)?;
            if let Some(frame) = frame {
                return Ok(Some((frame, arrival.at)));
            }
        }
        Ok(None)
    }

    /// How the play ended, if it did.
    #[must_use]
    pub const fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// The message stream.
    #[must_use]
    pub const fn stream(&self) -> StreamId {
        self.stream
    }

    /// The connection.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Stops playing and closes the connection.
    ///
    /// # Errors
    /// Why it could not be done in good order; the connection is closed anyway.
    pub async fn close(self) -> Result<(), Error> {
        self.connection.close().await
    }

    /// Drops the connection without a word; TCP is reset.
    pub fn close_abruptly(self) {
        self.connection.close_abruptly();
    }

    fn sort(&mut self, event: Event, at: Instant) -> Option<Item> {
        if let Event::Message(message) = event {
            if message.stream != self.stream {
                return None;
            }
            let arrival = self.splice.pass(Arrival { message, at })?;
            self.note(&arrival.message);
            return Some(Item::Message(arrival));
        }
        if let Event::Progress {
            stream,
            progress: Progress::Begin,
        } = event
            && stream == self.stream
        {
            // A server that plays a list begins again.
            self.ended = None;
        }
        let Event::Status { stream, status } = event else {
            return None;
        };
        if stream != self.stream {
            return None;
        }
        match status.code.as_str() {
            "NetStream.Play.Stop" | "NetStream.Play.Complete" => self.end(Ended::Complete),
            code if status.is_error() => self.end(Ended::Failed(code.to_owned())),
            _ => Some(Item::Status(status)),
        }
    }

    /// Only who may go elsewhere needs to know.
    fn note(&mut self, message: &Message) {
        if self.home.is_some() {
            self.last.note(message);
        }
    }

    /// The end is told once, however many ways the server has of saying it.
    fn end(&mut self, how: Ended) -> Option<Item> {
        if self.ended.is_some() {
            return None;
        }
        self.ended = Some(how.clone());
        Some(Item::Ended(how))
    }
}

impl std::fmt::Debug for Player {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Player")
            .field("connection", &self.connection)
            .field("stream", &self.stream)
            .field("moving", &self.moving)
            .finish_non_exhaustive()
    }
}
