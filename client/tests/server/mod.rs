//! The server's end of a connection, for tests.

use std::time::Instant;

use bytes::BytesMut;
use rtmp::{Carrier, StreamId};
use session::{Event, Output, Reply, ServerSession, ServerSetup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// It does what the test says.
pub(crate) struct Server<T> {
    pub(crate) io: T,
    pub(crate) carrier: Carrier,
    pub(crate) session: ServerSession,
    input: BytesMut,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Server<T> {
    pub(crate) fn new(io: T) -> Self {
        Self {
            io,
            carrier: Carrier::server(1),
            session: ServerSession::new(ServerSetup::new(1), Instant::now()),
            input: BytesMut::new(),
        }
    }

    /// The next event; `None` when the client has gone.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            while let Some(output) = self.session.poll_output() {
                match output {
                    Output::Message(message) => self.carrier.write_message(&message),
                    Output::Event(event) => return Some(event),
                }
            }
            self.flush().await;
            if let Some(message) = self.carrier.poll_message() {
                self.session
                    .handle_message(message, Instant::now())
                    .unwrap();
                continue;
            }
            if self.io.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                let _ = self.io.shutdown().await;
                return None;
            }
            self.carrier.handle_bytes(&mut self.input).unwrap();
        }
    }

    pub(crate) async fn flush(&mut self) {
        while let Some(bytes) = self.carrier.poll_transmit() {
            // The client may have gone, which the next read shows.
            let _ = self.io.write_all(&bytes).await;
        }
        let _ = self.io.flush().await;
    }

    /// Says yes to everything until a publish or a play, and gives that out.
    pub(crate) async fn welcome(&mut self) -> Event {
        loop {
            match self.event().await.unwrap() {
                Event::Connect { request, .. } => self.reply(request, Reply::Accept),
                event @ (Event::Publish { .. } | Event::Play { .. }) => return event,
                _ => {}
            }
        }
    }

    pub(crate) fn reply(&mut self, request: session::RequestId, reply: Reply) {
        self.session
            .handle_reply(request, reply, Instant::now())
            .unwrap();
    }

    /// Sends what was said so far.
    pub(crate) async fn settle(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Message(message) => self.carrier.write_message(&message),
                Output::Event(event) => panic!("{event:?}"),
            }
        }
        self.flush().await;
    }

    /// As [`Self::welcome`], and says yes to that too: its stream.
    pub(crate) async fn accept(&mut self) -> StreamId {
        let (request, stream) = request_of(self.welcome().await);
        self.reply(request, Reply::Accept);
        self.settle().await;
        stream
    }
}

pub(crate) fn request_of(event: Event) -> (session::RequestId, rtmp::StreamId) {
    match event {
        Event::Publish {
            request, stream, ..
        }
        | Event::Play {
            request, stream, ..
        } => (request, stream),
        other => panic!("{other:?}"),
    }
}
