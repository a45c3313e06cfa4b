//! A connection that publishes.

use amf::Value;
use bytes::Bytes;
use rtmp::{Message, MessageKind, StreamId};
use session::client::{Event, Status};

use crate::handover::publish::{Kept, Seams, Standby, with_token};
use crate::handover::{self, Home};
use crate::limits::UNSENT_MAX;
use crate::{Blame, Connection, Error};

/// A connection that publishes one stream.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    stream: StreamId,
    /// Where it goes on when the server asks it to leave.
    home: Option<Box<Home>>,
    kept: Kept,
    seams: Seams,
    /// The server has asked it to leave.
    standby: Option<Box<Standby>>,
    /// Why the server has gone before we have.
    lost: Option<Error>,
}

impl Publisher {
    pub(crate) fn new(connection: Connection, stream: StreamId) -> Self {
        Self {
            connection,
            stream,
            home: None,
            kept: Kept::default(),
            seams: Seams::default(),
            standby: None,
            lost: None,
        }
    }

    /// Connects to the target and publishes its stream live.
    ///
    /// One that goes elsewhere when it is asked ([`Options::following`](crate::Options)) says who
    /// it is by `publisher=` in the query of the stream's name, and makes that up if it is not
    /// there.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn open(target: &crate::Target, options: &crate::Options) -> Result<Self, Error> {
        if !options.follow {
            return Self::open_once(target, options).await;
        }
        let target = target.clone().with_stream(with_token(target.stream()?));
        let mut publisher = Self::open_once(&target, options).await?;
        publisher.home = Home::of(&target, options);
        Ok(publisher)
    }

    /// As [`Self::open`], to stay there.
    pub(crate) async fn open_once(
        target: &crate::Target,
        options: &crate::Options,
    ) -> Result<Self, Error> {
        let name = target.stream()?;
        let connection = Connection::open(target, options).await?;
        connection.publish(name, session::PublishMode::Live).await
    }

    /// Sends one message body at a time in milliseconds. Waits while the network is too
    /// slow for what was sent before.
    ///
    /// # Errors
    /// What the server said, or why the connection failed.
    pub async fn send(
        &mut self,
        kind: MessageKind,
        time: u32,
        payload: Bytes,
    ) -> Result<(), Error> {
        if self.home.is_some() && !self.steer(kind, time, &payload).await? {
            return Ok(());
        }
        let sent = self.put(kind, time, payload).await;
        self.outlive(sent)
    }

    async fn put(&mut self, kind: MessageKind, time: u32, payload: Bytes) -> Result<(), Error> {
        self.notice_events()?;
        self.connection.send(Message {
            kind,
            stream: self.stream,
            time,
            payload,
        })?;
        self.connection.flush_to(UNSENT_MAX).await?;
        self.notice_events()
    }

    /// Goes over to another server if we were asked to, it is there, and this is where it can
    /// begin. False when nothing is left to be done with the message.
    async fn steer(
        &mut self,
        kind: MessageKind,
        time: u32,
        payload: &Bytes,
    ) -> Result<bool, Error> {
        let class = self.kept.note(kind, payload);
        let seam = class.is_some_and(|class| self.seams.note(kind, class, time));
        let lost = self.lost.is_some();
        let Some(standby) = &mut self.standby else {
            return Ok(true);
        };
        standby.nudge().await;
        if lost && !standby.is_open() {
            let patience = self.home.as_ref().map(|home| home.options.patience);
            let opened = tokio::time::timeout(patience.unwrap_or_default(), standby.opened());
            if opened.await.is_err() {
                return Err(self.lost.take().unwrap_or(Error::Disconnected));
            }
        }
        if !seam || !standby.is_open() {
            return Ok(!lost);
        }
        if let Some(opened) = self.standby.take().and_then(|s| s.into_open()) {
            self.stream = opened.stream;
            let old = std::mem::replace(&mut self.connection, opened.connection);
            if let Some(home) = &mut self.home {
                home.pace = opened.pace;
            }
            if self.lost.take().is_none() {
                // It returns when the server has taken everything, so that nothing of it comes
                // behind what the next one is told. What it says to that does not matter.
                let _ = old.close().await;
            }
            // The message may be one of those that are kept.
            let mut told = false;
            for (kept, config) in self.kept.all() {
                told |= kept == kind && config == *payload;
                self.put(kept, time, config).await?;
            }
            if told {
                return Ok(false);
            }
            // By datagrams sounds overtake pictures, and the next server begins with this one:
            // whatever comes to it before is lost.
            if self.connection.near_id().is_some() {
                self.connection.flush().await?;
                self.put(kind, time, payload.clone()).await?;
                self.connection.flush().await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A server that has asked us to leave may end before we have left.
    fn outlive(&mut self, sent: Result<(), Error>) -> Result<(), Error> {
        match sent {
            Err(error) if self.standby.is_some() && error.blame() == Blame::Interruption => {
                self.lost.get_or_insert(error);
                Ok(())
            }
            sent => sent,
        }
    }

    /// Sends a data message: the handler's name, then values. What is to be kept for late
    /// joiners goes by `@setDataFrame` with the name as the first value.
    ///
    /// # Errors
    /// What the server said, or why the connection failed.
    pub async fn send_data(
        &mut self,
        time: u32,
        handler: &str,
        args: impl IntoIterator<Item = Value>,
    ) -> Result<(), Error> {
        let values: Vec<Value> = std::iter::once(handler.into()).chain(args).collect();
        let payload = amf::amf0::write_all(&values).map_err(session::client::Error::Unwritable)?;
        self.send(MessageKind::DataAmf0, time, payload).await
    }

    /// Writes all that waits to be sent.
    ///
    /// # Errors
    /// What the server said, or why the connection failed.
    pub async fn flush(&mut self) -> Result<(), Error> {
        if self.lost.is_some() {
            return Ok(());
        }
        let flushed = match self.connection.flush().await {
            Ok(()) => self.notice_events(),
            Err(error) => Err(error),
        };
        self.outlive(flushed)
    }

    /// Sends and answers what is due while there is nothing to publish; returns only when
    /// the publish is over. To be raced against the time of the next message.
    ///
    /// # Errors
    /// Always: what the server said, or why the connection failed.
    pub async fn idle(&mut self) -> Result<std::convert::Infallible, Error> {
        loop {
            let heard = match &mut self.standby {
                Some(standby) => {
                    let lost = self.lost.is_some();
                    tokio::select! {
                        heard = self.connection.next_event(), if !lost => heard,
                        () = standby.advance() => continue,
                    }
                }
                None => self.connection.next_event().await,
            };
            let judged = match heard {
                Ok((event, _)) => self.judge(&event),
                Err(error) => Err(error),
            };
            self.outlive(judged)?;
        }
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

    /// Unpublishes and closes the connection.
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

    fn notice_events(&mut self) -> Result<(), Error> {
        while let Some((event, _)) = self.connection.poll_event() {
            self.judge(&event)?;
        }
        Ok(())
    }

    pub(crate) fn into_parts(self) -> (Connection, StreamId) {
        (self.connection, self.stream)
    }

    fn judge(&mut self, event: &Event) -> Result<(), Error> {
        if self.standby.is_none()
            && let Some(home) = &self.home
            && let Some(tc_url) = handover::request(event)
        {
            self.standby = Some(Box::new(Standby::begin(home, tc_url)));
        }
        if let Event::Closed { reason } = event {
            return Err(Error::Closed(reason.clone()));
        }
        if let Event::Status { stream, status } = event
            && *stream == self.stream
        {
            return judge_status(status);
        }
        Ok(())
    }
}

pub(crate) fn judge_status(status: &Status) -> Result<(), Error> {
    if status.is_error() {
        return Err(Error::Refused {
            step: "the publish",
            status: Box::new(status.clone()),
        });
    }
    if status.code == "NetStream.Unpublish.Success" {
        return Err(Error::Unpublished(status.code.clone()));
    }
    Ok(())
}
