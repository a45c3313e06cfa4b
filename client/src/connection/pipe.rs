//! The bytes of one connection, in both directions at once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use crate::Transport;
use crate::limits::{CLOSE_PATIENCE, READ_SIZE, SLICES_MAX};

/// A transport with what was read from it and what is to be written.
pub(super) struct Pipe {
    io: Box<dyn Transport>,
    input: BytesMut,
    unsent: VecDeque<Bytes>,
    unsent_len: usize,
    /// TLS holds bytes back until it is flushed.
    unflushed: bool,
}

/// What one turn did.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moved {
    Read,
    Written,
    End,
}

/// Whether the socket is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    Wanted,
    Paused,
}

impl Pipe {
    pub(super) fn new(io: Box<dyn Transport>) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            unsent: VecDeque::new(),
            unsent_len: 0,
            unflushed: false,
        }
    }

    pub(super) fn queue(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.unsent_len += bytes.len();
            self.unsent.push_back(bytes);
        }
    }

    pub(super) const fn unsent(&self) -> usize {
        self.unsent_len
    }

    pub(super) const fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// What was read and not yet taken.
    pub(super) const fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Writes what can be written and reads once. Pending only if neither is possible.
    pub(super) fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        reading: Reading,
    ) -> Poll<io::Result<Moved>> {
        let mut written = false;
        while !self.unsent.is_empty() {
            match self.poll_write(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => break,
            }
            written = true;
        }
        if self.unflushed
            && self.unsent.is_empty()
            && let Poll::Ready(result) = Pin::new(&mut *self.io).poll_flush(cx)
        {
            result?;
            self.unflushed = false;
            written = true;
        }
        match reading {
            Reading::Wanted => {
                if let Poll::Ready(read) = self.poll_read(cx) {
                    return Poll::Ready(Ok(if read? == 0 { Moved::End } else { Moved::Read }));
                }
            }
            Reading::Paused => {}
        }
        if written {
            Poll::Ready(Ok(Moved::Written))
        } else {
            Poll::Pending
        }
    }

    /// Writes all, closes our side and waits a little for the other to close.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            while !self.unsent.is_empty() {
                ready!(self.poll_write(cx))?;
            }
            Pin::new(&mut *self.io).poll_flush(cx)
        })
        .await?;
        self.io.shutdown().await?;
        // Closing with unread bytes in the receive buffer would reset the connection and
        // could take the goodbye out of the server's buffer.
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

    pub(super) fn abandon(&mut self) {
        self.io.abandon();
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ_SIZE / 8 {
            self.input.reserve(READ_SIZE);
        }
        poll_read_buf(Pin::new(&mut *self.io), cx, &mut self.input)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.unsent.len().min(SLICES_MAX);
        for (slice, bytes) in slices.iter_mut().zip(&self.unsent) {
            *slice = IoSlice::new(bytes);
        }
        let slices = slices.get(..count).unwrap_or_default();
        let mut rest = ready!(Pin::new(&mut *self.io).poll_write_vectored(cx, slices))?;
        if rest == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
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
}
