//! Headers of load balancers before what clients send (`listen.proxy_protocol`): who may send
//! them, and how they are read off a socket.

mod trust;

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

pub use ::proxy::Source;
use ::proxy::{Fault, Parsed, parse};
pub use trust::{Network, Trust};

/// How long a header may take. It is sent together, before anything else, and load balancers
/// are near; the protocol asks for at least three seconds (§2).
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why a connection is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Who made it sent something else.
    #[error(transparent)]
    Header(#[from] Fault),
    /// It ended, or failed.
    #[error("the connection was lost before its PROXY header")]
    Lost(#[from] std::io::Error),
    /// Nothing, or not enough, came for [`PATIENCE`].
    #[error("no PROXY header came in time")]
    Late,
}

/// Reads the header and nothing else.
///
/// # Errors
/// There is none.
pub async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Result<Source, Error> {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            match parse(&bytes)? {
                Parsed::Whole(source) => return Ok(source),
                Parsed::Wants(len) => {
                    let have = bytes.len();
                    bytes.resize(len, 0);
                    socket.read_exact(&mut bytes[have..]).await?;
                }
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    read.unwrap_or(Err(Error::Late))
}

#[cfg(test)]
mod tests;
