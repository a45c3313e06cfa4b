//! How a gRPC connection between edge and origin is made.
//!
//! ```text
//!   Address ── connect(&address, &settings) ──> tonic Channel
//!      │  tcp host:port (TCP_NODELAY, optionally TLS with certificates on both sides)
//!      │  unix:/path
//!      └  duplex: in this process, over tokio::io::duplex
//!   Listener ── incoming() ──> Incoming: a stream of Io ──> server(&settings)…serve_with_incoming
//! ```
//!
//! Both ends get the windows of [`crate::limits`] and pings that notice a dead peer. The services
//! and the code around them are the same whatever carries the bytes.
//!
//! TLS is done here rather than by tonic, so that certificates are replaced without a restart.

mod address;
mod io;
mod listen;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::limits;

pub use address::{Address, BadAddress, Duplex, DuplexListener, duplex};
pub use io::{Io, Peer};
pub use listen::{Incoming, Listener};
pub use tls::{Mutual, Tls};

/// How links behave. One value serves clients and servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Time for a connection, TLS included, to come about.
    #[serde(with = "crate::config::duration")]
    pub connect_timeout: Duration,
    /// How often a quiet link is pinged.
    #[serde(with = "crate::config::duration")]
    pub ping_interval: Duration,
    /// How long the answer to a ping may take before the link counts as dead.
    #[serde(with = "crate::config::duration")]
    pub ping_timeout: Duration,
    /// HTTP/2 window of a stream, in bytes.
    #[serde(with = "crate::config::bytes")]
    pub stream_window: u32,
    /// HTTP/2 window of a connection, in bytes.
    #[serde(with = "crate::config::bytes")]
    pub connection_window: u32,
    /// Largest HTTP/2 frame, in bytes, 16 KiB to 16 MiB.
    #[serde(with = "crate::config::bytes")]
    pub frame_size: u32,
    /// Certificates of links over TCP.
    pub tls: Tls,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            ping_interval: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(3),
            stream_window: limits::STREAM_WINDOW,
            connection_window: limits::CONNECTION_WINDOW,
            frame_size: limits::FRAME_SIZE,
            tls: Tls::default(),
        }
    }
}

impl crate::config::Validate for Settings {
    fn validate(&self) -> Result<(), crate::config::Invalid> {
        use crate::config::{Invalid, format_bytes, format_duration};
        self.tls
            .validate()
            .map_err(|invalid| invalid.within("tls"))?;
        // RFC 9113, 6.5.2: SETTINGS_MAX_FRAME_SIZE and SETTINGS_INITIAL_WINDOW_SIZE.
        if !(16_384..=16_777_215).contains(&self.frame_size) {
            let value = format_bytes(self.frame_size.into());
            return Err(Invalid::new("frame_size", value, "16KiB up to 16777215"));
        }
        for (key, window) in [
            ("stream_window", self.stream_window),
            ("connection_window", self.connection_window),
        ] {
            if !(65_535..=0x7fff_ffff).contains(&window) {
                let value = format_bytes(window.into());
                return Err(Invalid::new(key, value, "65535 up to 2147483647"));
            }
        }
        if self.connection_window < self.stream_window {
            let value = format_bytes(self.connection_window.into());
            return Err(Invalid::new(
                "connection_window",
                value,
                "at least stream_window",
            ));
        }
        for (key, time) in [
            ("connect_timeout", self.connect_timeout),
            ("ping_interval", self.ping_interval),
            ("ping_timeout", self.ping_timeout),
        ] {
            if time.is_zero() {
                return Err(Invalid::new(key, format_duration(time), "more than 0"));
            }
        }
        Ok(())
    }
}

/// What a client shows and trusts on TLS links.
#[derive(Clone)]
pub struct ClientTls {
    /// Trusted roots and, for servers that ask, this side's certificate; see
    /// [`crate::tls::client_config`].
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the server's certificate must bear. None takes the host of the address,
    /// which does not do for addresses that were resolved from a name.
    pub server_name: Option<String>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Why no channel can be made. A peer that does not answer is not among the reasons: a channel
/// connects when it is first used, and again after a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name in the certificate cannot be a DNS name or IP address.
    #[error("{name:?} cannot be the name of a TLS server")]
    ServerName {
        /// The name as configured or taken from the address.
        name: String,
    },
    /// The connection was tried and failed.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// Who was dialled.
        address: Address,
        /// What failed.
        source: tonic::transport::Error,
    },
}

/// A channel to `address` in the clear, which connects when it is first used. Must be called
/// within a tokio runtime.
///
/// # Errors
/// None for addresses that were parsed; see [`connect_tls`].
pub fn connect(address: &Address, settings: &Settings) -> Result<Channel, Error> {
    connect_tls(address, settings, None)
}

/// [`connect`], with TLS when `tls` is given and the address is TCP. Unix sockets and in-process
/// links stay in the clear.
///
/// # Errors
/// The server name that follows from `tls` or the address is not one.
pub fn connect_tls(
    address: &Address,
    settings: &Settings,
    tls: Option<&ClientTls>,
) -> Result<Channel, Error> {
    let dialler = Dialler::new(address, tls)?;
    Ok(endpoint(settings).connect_with_connector_lazy(dialler.into_service()))
}

/// Like [`connect_tls`], and connects before it returns.
///
/// # Errors
/// Those of [`connect_tls`], and whatever keeps the connection from coming about.
pub async fn dial(
    address: &Address,
    settings: &Settings,
    tls: Option<&ClientTls>,
) -> Result<Channel, Error> {
    let dialler = Dialler::new(address, tls)?;
    endpoint(settings)
        .connect_with_connector(dialler.into_service())
        .await
        .map_err(|source| Error::Unreachable {
            address: address.clone(),
            source,
        })
}

/// A server with the windows and pings of a link. TLS, if any, is the [`Listener`]'s.
pub fn server(settings: &Settings) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(settings.ping_interval))
        .http2_keepalive_timeout(Some(settings.ping_timeout))
}

fn endpoint(settings: &Settings) -> Endpoint {
    // The dialler decides where to connect; the URI is only what requests carry as authority.
    Endpoint::from_static("http://link.selvage.internal")
        .connect_timeout(settings.connect_timeout)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .http2_keep_alive_interval(settings.ping_interval)
        .keep_alive_timeout(settings.ping_timeout)
        .keep_alive_while_idle(true)
}

#[derive(Clone)]
struct Dialler {
    address: Address,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialler {
    fn new(address: &Address, tls: Option<&ClientTls>) -> Result<Self, Error> {
        let tls = match (address, tls) {
            (Address::Tcp(_), Some(tls)) => {
                let name = tls.server_name.as_deref().unwrap_or_else(|| address.host());
                let server_name =
                    ServerName::try_from(name.to_owned()).map_err(|_| Error::ServerName {
                        name: name.to_owned(),
                    })?;
                Some((TlsConnector::from(Arc::clone(&tls.config)), server_name))
            }
            (Address::Tcp(_) | Address::Unix(_) | Address::Duplex(_), _) => None,
        };
        Ok(Self {
            address: address.clone(),
            tls,
        })
    }

    async fn dial(self) -> std::io::Result<Io> {
        match &self.address {
            Address::Tcp(host_port) => {
                let tcp = TcpStream::connect(host_port.as_str()).await?;
                tcp.set_nodelay(true)?;
                match self.tls {
                    None => Ok(Io::tcp(tcp)),
                    Some((tls, name)) => Ok(Io::tls_client(tls.connect(name, tcp).await?)),
                }
            }
            Address::Unix(path) => Ok(Io::unix(UnixStream::connect(path).await?)),
            Address::Duplex(duplex) => Ok(Io::duplex(duplex.dial().await?)),
        }
    }

    fn into_service(
        self,
    ) -> impl tower::Service<
        http::Uri,
        Response = TokioIo<Io>,
        Error = std::io::Error,
        Future: Send + 'static,
    > + Send
    + 'static {
        service_fn(move |_: http::Uri| {
            let dialler = self.clone();
            async move { dialler.dial().await.map(TokioIo::new) }
        })
    }
}

#[cfg(test)]
mod tests;
