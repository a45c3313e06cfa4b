//! Listeners: permits first, then the shard with the fewest connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::limits::PROXY_HEADERS_MAX;
use crate::metrics::Figures;
use crate::proxy::{self, Source};
use crate::shard::{ShardHandle, ToShard};

/// A socket on its way to a shard.
pub(crate) struct Accepted {
    /// The socket, not yet registered with a reactor.
    pub(crate) socket: std::net::TcpStream,
    /// Who came.
    pub(crate) peer: SocketAddr,
    /// Set for RTMPS.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Given back when the connection ends.
    pub(crate) permit: Permit,
    /// For what the session and the handshake draw.
    pub(crate) seed: u64,
}

/// Counts connections.
#[derive(Clone, Debug)]
pub(crate) struct Permits {
    total: usize,
    per_address: usize,
    held: Arc<Mutex<Held>>,
    /// Woken when the last one is given back.
    idle: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// The right to be connected.
#[derive(Debug)]
pub(crate) struct Permit {
    address: IpAddr,
    held: Arc<Mutex<Held>>,
    idle: Arc<Notify>,
}

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The edge holds as many as it may.
    Total,
    /// The address holds as many as it may.
    Address,
    /// It did not begin with the PROXY header that is due, or came from nobody who may send one.
    Header,
}

impl Permits {
    /// At most `total` connections, `per_address` from each address.
    pub(crate) fn new(total: usize, per_address: usize) -> Self {
        Self {
            total,
            per_address,
            held: Arc::default(),
            idle: Arc::default(),
        }
    }

    /// Takes a permit.
    ///
    /// # Errors
    /// Says which bound is reached.
    pub(crate) fn take(&self, address: IpAddr) -> Result<Permit, Refused> {
        // An IPv4 client has one address, whichever kind of socket it came through.
        let address = address.to_canonical();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.total >= self.total {
            return Err(Refused::Total);
        }
        let here = held.by_address.entry(address).or_insert(0);
        if *here >= self.per_address {
            return Err(Refused::Address);
        }
        *here += 1;
        held.total += 1;
        Ok(Permit {
            address,
            held: self.held.clone(),
            idle: self.idle.clone(),
        })
    }

    /// Resolves when no connection is held.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.held() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Connections held.
    pub(crate) fn held(&self) -> usize {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total -= 1;
        if held.total == 0 {
            self.idle.notify_waiters();
        }
        if let Some(here) = held.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                held.by_address.remove(&self.address);
            }
        }
    }
}

/// When a descriptor or the like has run out, accepting again at once would only spin.
const PAUSE: Duration = Duration::from_millis(50);

/// What every connection passes that comes to one listener.
pub(crate) struct Door {
    /// Looks its certificate up for every client, so one that changed is used by the next.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) permits: Permits,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) seed: u64,
    pub(crate) figures: Figures,
    /// From where a PROXY header is wanted, and believed; none is if there is nothing.
    pub(crate) proxies: Option<Vec<proxy::Network>>,
}

/// Who came through a load balancer: on whose behalf, or why it is not taken.
type Introduced = (TcpStream, SocketAddr, Result<Source, proxy::Error>);

/// Accepts until the future is dropped.
pub(crate) async fn run(listener: TcpListener, mut door: Door) {
    let mut introduced: JoinSet<Introduced> = JoinSet::new();
    let strangers = node::rate::Counter::new("connections without the PROXY header that is due");
    loop {
        let (socket, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(introduced) = introduced.join_next() => {
                match introduced {
                    Ok((socket, _, Ok(Source::Client(client)))) => door.take(socket, client),
                    Ok((socket, proxy, Ok(Source::Itself))) => door.take(socket, proxy),
                    Ok((_, proxy, Err(error))) => {
                        strangers.add(1);
                        door.figures.refused(Refused::Header);
                        debug!(%proxy, %error, "connection refused");
                    }
                    // Nothing ends these tasks but the end of all.
                    Err(_) => {}
                }
                continue;
            }
        };
        let Some(proxies) = &door.proxies else {
            door.take(socket, peer);
            continue;
        };
        if !proxies.iter().any(|network| network.has(peer.ip())) {
            strangers.add(1);
            door.figures.refused(Refused::Header);
            debug!(%peer, "connection refused: it comes from no load balancer of ours");
        } else if introduced.len() >= PROXY_HEADERS_MAX {
            door.figures.refused(Refused::Total);
            debug!(%peer, "connection refused: too many owe their PROXY header");
        } else {
            introduced.spawn(async move {
                let mut socket = socket;
                let source = proxy::read(&mut socket).await;
                (socket, peer, source)
            });
        }
    }
}

impl Door {
    /// Hands a client to a shard, if it may be connected.
    fn take(&mut self, socket: TcpStream, peer: SocketAddr) {
        let permit = match self.permits.take(peer.ip()) {
            Ok(permit) => permit,
            Err(refused) => {
                self.figures.refused(refused);
                debug!(%peer, ?refused, "connection refused: limit reached");
                return;
            }
        };
        let Some(shard) = self.shards.iter().min_by_key(|shard| shard.load()) else {
            return;
        };
        self.seed = next_seed(self.seed);
        match prepare(socket) {
            Ok(socket) => {
                shard.expect();
                let accepted = Accepted {
                    socket,
                    peer,
                    tls: self.tls.clone(),
                    permit,
                    seed: self.seed,
                };
                shard.send(ToShard::Accept(Box::new(accepted)));
            }
            Err(error) => debug!(%peer, %error, "connection lost before it was taken"),
        }
    }
}

/// What the next client's session and handshake draw from.
pub(crate) const fn next_seed(seed: u64) -> u64 {
    seed.wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}

/// Media is written in whole batches: Nagle's algorithm could only delay them.
fn prepare(socket: TcpStream) -> io::Result<std::net::TcpStream> {
    socket.set_nodelay(true)?;
    socket.into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_in_total_and_per_address_and_come_back() {
        let permits = Permits::new(3, 2);
        let a: IpAddr = [127, 0, 0, 1].into();
        let b: IpAddr = [127, 0, 0, 2].into();
        let first = permits.take(a).unwrap();
        let _second = permits.take("::ffff:127.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(permits.take(a).unwrap_err(), Refused::Address);
        let _third = permits.take(b).unwrap();
        assert_eq!(permits.take(b).unwrap_err(), Refused::Total);
        drop(first);
        assert_eq!(permits.held(), 2);
        let _again = permits.take(a).unwrap();
    }
}
