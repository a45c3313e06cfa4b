//! The serving side of a link.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

use super::{Address, DuplexListener, Io};
use crate::limits;

/// A bound listener that accepts nobody yet.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
    Duplex(DuplexListener),
}

/// The file of a Unix socket, removed with its listener.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds a TCP address. Port 0 is given a free port.
    ///
    /// # Errors
    /// The system refuses the address.
    pub async fn tcp(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Self {
            socket: Socket::Tcp(listener, addr),
            tls: None,
        })
    }

    /// Binds a Unix socket. A socket file that a dead process left is replaced; one that somebody
    /// serves is not.
    ///
    /// # Errors
    /// The system refuses the path, or the socket is in use.
    pub async fn unix(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        if is_socket(path)
            && let Err(error) = tokio::net::UnixStream::connect(path).await
            // Any other failure, such as a full backlog, comes from somebody who lives.
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        Ok(Self {
            socket: Socket::Unix(listener, SocketFile(path.to_owned())),
            tls: None,
        })
    }

    /// Serves the in-process link whose other half this is.
    pub fn duplex(listener: DuplexListener) -> Self {
        Self {
            socket: Socket::Duplex(listener),
            tls: None,
        }
    }

    /// Binds what `address` says. TCP names are resolved, and the first address is taken.
    ///
    /// # Errors
    /// Those of [`Listener::tcp`] and [`Listener::unix`]; in-process addresses cannot be bound.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(host_port) => {
                let addr = tokio::net::lookup_host(host_port.as_str()).await?.next();
                Self::tcp(addr.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?).await
            }
            Address::Unix(path) => Self::unix(path).await,
            Address::Duplex(_) => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    /// Requires TLS of TCP peers; see [`crate::tls::server_config`].
    #[must_use]
    pub fn with_tls(self, config: Arc<ServerConfig>) -> Self {
        Self {
            tls: Some(config),
            ..self
        }
    }

    /// The TCP address it got.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(_, addr) => Some(*addr),
            Socket::Unix(..) | Socket::Duplex(_) => None,
        }
    }

    /// Starts accepting. Must be called within a tokio runtime.
    pub fn incoming(self) -> Incoming {
        let (accepted, connections) = mpsc::channel(limits::ACCEPTED_WAITING);
        let tls = self.tls.map(TlsAcceptor::from);
        let accepting = match self.socket {
            Socket::Tcp(listener, _) => tokio::spawn(accept_tcp(listener, tls, accepted)),
            Socket::Unix(listener, file) => tokio::spawn(accept_unix(listener, file, accepted)),
            Socket::Duplex(listener) => tokio::spawn(accept_duplex(listener, accepted)),
        };
        Incoming {
            connections,
            accepting,
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Socket::Tcp(_, addr) => addr.fmt(f),
            Socket::Unix(_, file) => write!(f, "unix:{}", file.0.display()),
            Socket::Duplex(_) => f.write_str("duplex"),
        }
    }
}

/// The accepted connections, for `serve_with_incoming`. Failed accepts and handshakes are logged
/// and do not end it. Dropping it closes the listener.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Io>,
    accepting: JoinHandle<()>,
}

impl Stream for Incoming {
    type Item = io::Result<Io>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|io| io.map(Ok))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_tcp(listener: TcpListener, tls: Option<TlsAcceptor>, accepted: mpsc::Sender<Io>) {
    let mut handshakes = JoinSet::new();
    loop {
        let accept = async {
            // Room first: whoever cannot be taken waits in the kernel.
            let room = accepted.reserve().await;
            (room, listener.accept().await)
        };
        let (room, io) = tokio::select! {
            (room, io) = accept, if handshakes.len() < limits::HANDSHAKES => (room, io),
            Some(_) = handshakes.join_next() => continue,
        };
        let Ok(room) = room else { return };
        let io = match io {
            Ok((io, _)) => io,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        // `serve_with_incoming` does not set it, and delayed window updates cost a factor of ten.
        if let Err(error) = io.set_nodelay(true) {
            tracing::debug!(%error, "a link was gone before it was accepted");
            continue;
        }
        match &tls {
            None => room.send(Io::tcp(io)),
            Some(tls) => {
                drop(room);
                handshakes.spawn(shake_hands(tls.clone(), io, accepted.clone()));
            }
        }
    }
}

async fn shake_hands(tls: TlsAcceptor, io: TcpStream, accepted: mpsc::Sender<Io>) {
    let peer = io.peer_addr().ok();
    match tokio::time::timeout(limits::HANDSHAKE_TIME, tls.accept(io)).await {
        Ok(Ok(io)) => {
            // Nobody takes it only when the server is gone.
            let _ = accepted.send(Io::tls_server(io)).await;
        }
        Ok(Err(error)) => tracing::warn!(?peer, %error, "a TLS handshake on a link failed"),
        Err(_) => tracing::warn!(?peer, "a TLS handshake on a link took too long"),
    }
}

async fn accept_unix(listener: UnixListener, _file: SocketFile, accepted: mpsc::Sender<Io>) {
    while let Ok(room) = accepted.reserve().await {
        match listener.accept().await {
            Ok((io, _)) => room.send(Io::unix(io)),
            Err(error) => pause(&error).await,
        }
    }
}

async fn accept_duplex(mut listener: DuplexListener, accepted: mpsc::Sender<Io>) {
    while let Some(io) = listener.dials.recv().await {
        if accepted.send(Io::duplex(io)).await.is_err() {
            return;
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a link");
    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}
