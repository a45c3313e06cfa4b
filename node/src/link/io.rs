//! The byte stream of a link, whatever carries it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};
use tonic::transport::server::Connected;

/// One connection of a link.
#[derive(Debug)]
pub struct Io {
    carrier: Carrier,
}

#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    // Boxed: the state of a TLS connection is a hundred times the size of a socket.
    TlsClient(Box<client::TlsStream<TcpStream>>),
    TlsServer(Box<server::TlsStream<TcpStream>>),
    Unix(UnixStream),
    Duplex(DuplexStream),
}

/// Who is at the other end, as a service finds it among the extensions of a request.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The address of a TCP peer.
    pub addr: Option<SocketAddr>,
    /// The certificates that the peer proved to have, its own first.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}

impl Io {
    pub(super) fn tcp(io: TcpStream) -> Self {
        Self {
            carrier: Carrier::Tcp(io),
        }
    }

    pub(super) fn tls_client(io: client::TlsStream<TcpStream>) -> Self {
        Self {
            carrier: Carrier::TlsClient(Box::new(io)),
        }
    }

    pub(super) fn tls_server(io: server::TlsStream<TcpStream>) -> Self {
        Self {
            carrier: Carrier::TlsServer(Box::new(io)),
        }
    }

    pub(super) fn unix(io: UnixStream) -> Self {
        Self {
            carrier: Carrier::Unix(io),
        }
    }

    pub(super) fn duplex(io: DuplexStream) -> Self {
        Self {
            carrier: Carrier::Duplex(io),
        }
    }

    #[cfg(test)]
    pub(super) fn tcp_ref(&self) -> Option<&TcpStream> {
        match &self.carrier {
            Carrier::Tcp(io) => Some(io),
            Carrier::TlsClient(io) => Some(io.get_ref().0),
            Carrier::TlsServer(io) => Some(io.get_ref().0),
            Carrier::Unix(_) | Carrier::Duplex(_) => None,
        }
    }
}

impl Connected for Io {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match &self.carrier {
            Carrier::Tcp(io) => Peer {
                addr: io.peer_addr().ok(),
                certificates: None,
            },
            Carrier::TlsClient(io) => {
                let (tcp, tls) = io.get_ref();
                let certificates = tls.peer_certificates().map(Into::into);
                Peer {
                    addr: tcp.peer_addr().ok(),
                    certificates,
                }
            }
            Carrier::TlsServer(io) => {
                let (tcp, tls) = io.get_ref();
                let certificates = tls.peer_certificates().map(Into::into);
                Peer {
                    addr: tcp.peer_addr().ok(),
                    certificates,
                }
            }
            Carrier::Unix(_) | Carrier::Duplex(_) => Peer::default(),
        }
    }
}

/// Calls a poll function of whichever carrier this is.
macro_rules! on_carrier {
    ($this:expr, $io:ident => $call:expr) => {
        match &mut $this.get_mut().carrier {
            Carrier::Tcp($io) => {
                let $io = Pin::new($io);
                $call
            }
            Carrier::TlsClient($io) => {
                let $io = Pin::new($io.as_mut());
                $call
            }
            Carrier::TlsServer($io) => {
                let $io = Pin::new($io.as_mut());
                $call
            }
            Carrier::Unix($io) => {
                let $io = Pin::new($io);
                $call
            }
            Carrier::Duplex($io) => {
                let $io = Pin::new($io);
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        on_carrier!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        on_carrier!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        on_carrier!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Tcp(io) => io.is_write_vectored(),
            Carrier::TlsClient(io) => io.is_write_vectored(),
            Carrier::TlsServer(io) => io.is_write_vectored(),
            Carrier::Unix(io) => io.is_write_vectored(),
            Carrier::Duplex(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        on_carrier!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        on_carrier!(self, io => io.poll_shutdown(cx))
    }
}
