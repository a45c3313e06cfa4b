//! From an address to something that carries bytes.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::{Error, Options, Scheme, Target, Transport, tls};

pub(super) async fn dial(target: &Target, options: &Options) -> Result<Box<dyn Transport>, Error> {
    // Before the network is bothered: a bad CA file is the caller's mistake.
    let tls = match target.scheme {
        Scheme::Rtmp | Scheme::Rtmfp => None,
        Scheme::Rtmps | Scheme::Rtmfps => Some(tls::connector(&options.trust)?),
    };
    let patience = options.patience;
    let tcp = timeout(patience, tcp(target, options))
        .await
        .map_err(|_| Error::Timeout {
            step: "connecting",
            patience,
        })??;
    let Some(tls) = tls else {
        return Ok(Box::new(tcp));
    };
    let wrap = |source| Error::Tls {
        host: target.host.clone(),
        source,
    };
    let name = ServerName::try_from(target.host.clone())
        .map_err(|error| wrap(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let tls = timeout(patience, tls.connect(name, tcp))
        .await
        .map_err(|_| Error::Timeout {
            step: "the TLS handshake",
            patience,
        })?
        .map_err(wrap)?;
    Ok(Box::new(tls))
}

/// The addresses of the target's host.
pub(super) async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, Error> {
    let wrap = |source| Error::Resolve {
        host: target.host.clone(),
        source,
    };
    let addrs = lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(|source| wrap(Some(source)))?;
    let addrs: Vec<_> = addrs.collect();
    if addrs.is_empty() {
        return Err(wrap(None));
    }
    Ok(addrs)
}

async fn tcp(target: &Target, options: &Options) -> Result<TcpStream, Error> {
    let mut failed = Error::Resolve {
        host: target.host.clone(),
        source: None,
    };
    for addr in resolve(target).await? {
        match connect(addr, options).await {
            Ok(stream) => return Ok(stream),
            Err(source) => failed = Error::Connect { addr, source },
        }
    }
    Err(failed)
}

async fn connect(addr: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
