//! Where a link leads.

use std::cmp::Ordering;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use crate::limits;

/// Where a link leads. Addresses are ordered and compared by how they print, which is also what a
/// choice among origins hashes.
#[derive(Debug, Clone)]
pub enum Address {
    /// `host:port`; an IPv6 address is in brackets.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// A server in this process.
    Duplex(Duplex),
}

impl Address {
    /// The host of a TCP address without port and brackets; empty for others.
    pub fn host(&self) -> &str {
        match self {
            Self::Tcp(host_port) => {
                let host = host_port
                    .rsplit_once(':')
                    .map_or(host_port.as_str(), |(host, _)| host);
                host.trim_start_matches('[').trim_end_matches(']')
            }
            Self::Unix(_) | Self::Duplex(_) => "",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host_port) => f.write_str(host_port),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Duplex(duplex) => write!(f, "duplex:{}", duplex.name),
        }
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Address {}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl std::hash::Hash for Address {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.to_string().hash(state);
    }
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address; expected host:port, [ipv6]:port or unix:/path")]
pub struct BadAddress {
    /// The text.
    pub text: String,
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress { text: text.into() };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(bad())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        port.parse::<u16>().map_err(|_| bad())?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let sound = match bracketed {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
            }
        };
        if sound {
            Ok(Self::Tcp(text.into()))
        } else {
            Err(bad())
        }
    }
}

/// The connecting side of an in-process link. It can be dialled any number of times; clones dial
/// the same server.
#[derive(Clone)]
pub struct Duplex {
    name: String,
    /// Behind a door, because an address is a key in sets and maps, and a channel there would be
    /// a part of the key that changes. Only the name is compared.
    dials: Arc<dyn Accept>,
}

impl Duplex {
    /// Opens one more connection.
    ///
    /// # Errors
    /// The server's half is gone: `ConnectionRefused`, as for a port where nobody listens.
    pub async fn dial(&self) -> io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(limits::DUPLEX_BUFFER);
        if self.dials.accept(theirs).await {
            return Ok(ours);
        }
        let text = format!("nobody serves duplex:{}", self.name);
        Err(io::Error::new(io::ErrorKind::ConnectionRefused, text))
    }
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Duplex").field(&self.name).finish()
    }
}

/// Hands a connection to a server. False when there is none.
trait Accept: Send + Sync {
    fn accept(&self, io: DuplexStream) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

impl Accept for mpsc::Sender<DuplexStream> {
    fn accept(&self, io: DuplexStream) -> Pin<Box<dyn Future<Output = bool> + Send + '_>> {
        Box::pin(async move { self.send(io).await.is_ok() })
    }
}

/// The serving side of an in-process link.
#[derive(Debug)]
pub struct DuplexListener {
    pub(super) dials: mpsc::Receiver<DuplexStream>,
}

/// An in-process link: an address to dial and a listener to serve. `name` is how the address
/// prints, and so what it is compared by.
pub fn duplex(name: impl Into<String>) -> (Address, DuplexListener) {
    let (sender, dials) = mpsc::channel(limits::ACCEPTED_WAITING);
    (
        Address::Duplex(Duplex {
            name: name.into(),
            dials: Arc::new(sender),
        }),
        DuplexListener { dials },
    )
}
