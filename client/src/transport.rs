//! What carries the bytes.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A two-way stream of bytes.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {
    /// Prepares for being dropped without a goodbye: a TCP connection is reset rather
    /// than closed.
    fn abandon(&mut self) {}
}

impl Transport for TcpStream {
    fn abandon(&mut self) {
        // If it fails the peer sees an ordinary end, which is no worse for it.
        let _ = self.set_zero_linger();
    }
}

impl Transport for TlsStream<TcpStream> {
    fn abandon(&mut self) {
        self.get_mut().0.abandon();
    }
}

impl Transport for tokio::io::DuplexStream {}
