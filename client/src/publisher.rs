//! A connection that publishes.

use amf::Value;
use bytes::Bytes;
use rtmp::{Message, MessageKind, StreamId};
use session::client::{Event, Status};

use crate::limits::UNSENT_MAX;
use crate::{Connection, Error};

/// A connection that publishes one stream.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    stream: StreamId,
}

impl Publisher {
    pub(crate) const fn new(connection: Connection, stream: StreamId) -> Self {
        Self { connection, stream }
    }

    /// Connects to the target and publishes its stream live.
    ///
    /// # Errors
    /// Says which step failed.
    pub async fn open(target: &crate::Target, options: &crate::Options) -> Result<Self, Error> {
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
        self.connection
            .session()
            .send_data(self.stream, time, handler, args)?;
        self.connection.flush_to(UNSENT_MAX).await?;
        self.notice_events()
    }

    /// Writes all that waits to be sent.
    ///
    /// # Errors
    /// What the server said, or why the connection failed.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.connection.flush().await?;
        self.notice_events()
    }

    /// Sends and answers what is due while there is nothing to publish; returns only when
    /// the publish is over. To be raced against the time of the next message.
    ///
    /// # Errors
    /// Always: what the server said, or why the connection failed.
    pub async fn idle(&mut self) -> Result<std::convert::Infallible, Error> {
        loop {
            let (event, _) = self.connection.next_event().await?;
            self.judge(&event)?;
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

    fn judge(&self, event: &Event) -> Result<(), Error> {
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

fn judge_status(status: &Status) -> Result<(), Error> {
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
