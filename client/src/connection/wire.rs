//! How messages travel: as chunks of one byte stream, or each in a flow.

use std::task::{Context, Poll};

use rtmp::{Carrier, Message};

use super::Over;
use super::datagrams::Datagrams;
use super::pipe::{Moved, Pipe, Reading};
use super::rejoin::Seek;
use crate::Transport;

/// The two ways. What the server says and is told is the same in both.
pub(super) enum Wire {
    /// RTMP and RTMPS.
    Chunks(Box<(Pipe, Carrier)>),
    /// RTMFP.
    Flows(Box<Datagrams>),
}

impl Wire {
    pub(super) fn chunks(io: Box<dyn Transport>, seed: u64) -> Self {
        Self::Chunks(Box::new((Pipe::new(io), Carrier::client(seed))))
    }

    /// Writes what can be written and takes in what came. Pending only if neither is
    /// possible.
    pub(super) fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        reading: Reading,
    ) -> Poll<Result<Moved, Over>> {
        match self {
            Self::Chunks(chunks) => {
                let (pipe, carrier) = &mut **chunks;
                let moved = std::task::ready!(pipe.poll_move(cx, reading));
                Poll::Ready(match moved {
                    Ok(Moved::Read) => carrier
                        .handle_bytes(pipe.input())
                        .map(|()| Moved::Read)
                        .map_err(Over::Carrier),
                    Ok(Moved::Written) => Ok(Moved::Written),
                    Ok(Moved::End) => Err(Over::Disconnected),
                    Err(error) => Err(Over::Io(error.kind(), error.to_string())),
                })
            }
            Self::Flows(datagrams) => datagrams.poll_move(cx, reading),
        }
    }

    /// The next message of the server.
    pub(super) fn poll_message(&mut self) -> Option<Message> {
        match self {
            Self::Chunks(chunks) => chunks.1.poll_message(),
            Self::Flows(datagrams) => datagrams.poll_message(),
        }
    }

    /// A message for the server. It leaves when [`Self::poll_move`] is called.
    pub(super) fn write_message(&mut self, message: &Message) {
        match self {
            Self::Chunks(chunks) => chunks.1.write_message(message),
            Self::Flows(datagrams) => datagrams.write_message(message),
        }
    }

    /// Takes what was written to where it leaves.
    pub(super) fn collect(&mut self) {
        if let Self::Chunks(chunks) = self {
            let (pipe, carrier) = &mut **chunks;
            while let Some(bytes) = carrier.poll_transmit() {
                pipe.queue(bytes);
            }
        }
    }

    /// The connection is accepted: from now on chunks have this size.
    pub(super) fn set_chunk_size(&mut self, size: u32) {
        if let Self::Chunks(chunks) = self {
            chunks.1.set_chunk_size(size);
        }
    }

    /// Bytes that have not left: of flows, those that the server has not acknowledged.
    pub(super) fn unsent(&self) -> usize {
        match self {
            Self::Chunks(chunks) => chunks.0.unsent(),
            Self::Flows(datagrams) => datagrams.unsent(),
        }
    }

    /// Whether TLS holds bytes back.
    pub(super) fn is_unflushed(&self) -> bool {
        match self {
            Self::Chunks(chunks) => chunks.0.is_unflushed(),
            Self::Flows(_) => false,
        }
    }

    /// Looks for another server, if that is possible.
    pub(super) fn seek(&mut self, seek: Seek) {
        if let Self::Flows(datagrams) = self {
            datagrams.seek(seek);
        }
    }

    /// Which server was found, once.
    pub(super) fn take_found(&mut self) -> Option<usize> {
        match self {
            Self::Chunks(_) => None,
            Self::Flows(datagrams) => datagrams.take_found(),
        }
    }

    /// Bytes received so far.
    pub(super) fn bytes_received(&self) -> u64 {
        match self {
            Self::Chunks(chunks) => chunks.1.bytes_received(),
            Self::Flows(datagrams) => datagrams.bytes_received(),
        }
    }

    /// Writes all and closes in good order.
    pub(super) async fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Self::Chunks(chunks) => chunks.0.finish().await,
            Self::Flows(datagrams) => {
                datagrams.finish().await;
                Ok(())
            }
        }
    }

    /// Prepares for being dropped without a goodbye.
    pub(super) fn abandon(&mut self) {
        match self {
            Self::Chunks(chunks) => chunks.0.abandon(),
            // Being dropped is all there is to it.
            Self::Flows(_) => {}
        }
    }
}
