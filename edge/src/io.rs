//! A client's byte stream, as a shard uses it: from the client's own task with a waker,
//! and from the fan-out walk without one.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::metrics::Protocol;

/// What one read of TLS takes at most: a record.
const TLS_READ: usize = 16 * 1024;

/// Plain TCP, or TLS over it.
pub(crate) enum Io {
    /// RTMP.
    Plain(TcpStream),
    /// RTMPS.
    Tls(Box<RefCell<TlsStream<TcpStream>>>),
    /// RTMFP: there is no byte stream, and nothing to read or write here.
    Datagrams,
}

impl Io {
    /// How the client came in.
    pub(crate) const fn protocol(&self) -> Protocol {
        match self {
            Self::Plain(_) => Protocol::Rtmp,
            Self::Tls(_) => Protocol::Rtmps,
            Self::Datagrams => Protocol::Rtmfp,
        }
    }

    /// Reads what is there into `buffer`; 0 at the end of the stream.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => loop {
                match tcp.try_read_buf(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        std::task::ready!(tcp.poll_read_ready(cx))?;
                    }
                    done => return Poll::Ready(done),
                }
            },
            Self::Tls(tls) => {
                // rustls copies out of its own buffer: give it initialised room.
                let start = buffer.len();
                buffer.resize(start + TLS_READ, 0);
                let mut room = ReadBuf::new(&mut buffer[start..]);
                let outcome = Pin::new(&mut *tls.borrow_mut()).poll_read(cx, &mut room);
                let filled = room.filled().len();
                buffer.truncate(start + filled);
                outcome.map_ok(|()| filled)
            }
            Self::Datagrams => Poll::Pending,
        }
    }

    /// Writes what the socket takes now. Without a context nobody is woken when a
    /// socket that was full has room again; the client's task asks again with one.
    ///
    /// # Errors
    /// `WouldBlock` when nothing was taken.
    pub(crate) fn write(
        &self,
        cx: Option<&mut Context<'_>>,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => match (tcp.try_write_vectored(slices), cx) {
                (Err(error), Some(cx)) if error.kind() == io::ErrorKind::WouldBlock => {
                    match tcp.poll_write_ready(cx) {
                        Poll::Pending => Err(error),
                        Poll::Ready(Err(error)) => Err(error),
                        // Room appeared in between: the task is polled again.
                        Poll::Ready(Ok(())) => {
                            cx.waker().wake_by_ref();
                            Err(error)
                        }
                    }
                }
                (done, _) => done,
            },
            Self::Tls(tls) => {
                let mut idle = Context::from_waker(Waker::noop());
                let cx = cx.unwrap_or(&mut idle);
                match Pin::new(&mut *tls.borrow_mut()).poll_write_vectored(cx, slices) {
                    Poll::Ready(done) => done,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
            Self::Datagrams => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Pushes out what TLS has encrypted.
    ///
    /// # Errors
    /// `WouldBlock` when some of it is left.
    pub(crate) fn flush(&self, cx: Option<&mut Context<'_>>) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Datagrams => Ok(()),
            Self::Tls(tls) => {
                let mut idle = Context::from_waker(Waker::noop());
                let cx = cx.unwrap_or(&mut idle);
                match Pin::new(&mut *tls.borrow_mut()).poll_flush(cx) {
                    Poll::Ready(done) => done,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Says that nothing more will be written.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => {
                Poll::Ready(socket2::SockRef::from(tcp).shutdown(std::net::Shutdown::Write))
            }
            Self::Tls(tls) => Pin::new(&mut *tls.borrow_mut()).poll_shutdown(cx),
            Self::Datagrams => Poll::Ready(Ok(())),
        }
    }
}
