//! The origin: owns streams and hands them to edges.
//!
//! ```text
//!   edge ══ Media.Link ══▶ service::media ──▶ hub ──▶ Stream: who may publish, backlog
//!                            session (reads)          │
//!   edge ◀═ Media.Link ══════ writer ◀── outbox ◀─────┘ wakes, once per batch
//! ```
//!
//! * [`stream`] is the machine that decides: one stream, its publisher, what is kept of
//!   it, its subscribers. It is synchronous and has the time as an argument.
//! * [`hub`] holds all of them and the bounds on all of them together.
//! * [`service`] is what edges call: per link, one task reads, and the response is written
//!   from the backlogs when the transport has room.
//!
//! A subscriber is a cursor and a credit: an edge that does not read lags in its own
//! cursor and costs nobody else anything.
//!
//! An origin is assembled first, with its listeners bound, and then run:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use selvage_origin::{Config, Origin};
//!
//! let origin = Origin::build(Config::default()).await?;
//! println!("edges may come to {:?}", origin.grpc_addr);
//! origin.run(node::shutdown::Drain::new()).await?;
//! # Ok(())
//! # }
//! ```

pub mod config;
pub mod counters;
mod flags;
pub mod hub;
pub mod limits;
pub mod log;
pub mod outbox;
pub mod service;
pub mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{NameError, OriginId};
use node::health::{Health, Server};
use node::link::Listener;
use node::shutdown::Drain;

pub use config::Config;
pub use flags::{Flags, main};
use hub::Hub;

/// An origin whose listeners are bound and that serves nobody yet.
pub struct Origin {
    /// Where edges come in, if that is a TCP address.
    pub grpc_addr: Option<SocketAddr>,
    /// Where health is asked for, if anywhere.
    pub http_addr: Option<SocketAddr>,
    id: OriginId,
    config: Config,
    listener: Listener,
    http: Option<(Server, Health, Drain)>,
    hub: Arc<Hub>,
}

/// Why an origin cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The id is no name.
    #[error("the origin's id {id:?} cannot be a name")]
    Id {
        /// The id.
        id: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} for {what}")]
    Listen {
        /// `grpc` or `http`.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// Why an origin stopped that was not told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The listener for edges failed.
    #[error("serving edges failed")]
    Grpc(#[source] tonic::transport::Error),
    /// The listener for health failed.
    #[error("serving health failed")]
    Http(#[source] io::Error),
}

/// When everything has ended, how long connections have to close.
const CLOSING: Duration = Duration::from_secs(2);

impl Origin {
    /// Binds both listeners of the configuration.
    ///
    /// # Errors
    /// The id is no name, or an address is in use or not ours.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let addr = config.listen;
        let listener = Listener::tcp(addr)
            .await
            .map_err(|source| BuildError::Listen {
                what: "grpc",
                addr,
                source,
            })?;
        let addr = config.http;
        let drain = Drain::new();
        let health = Health::new(drain.clone());
        let server = health
            .bind(addr)
            .await
            .map_err(|source| BuildError::Listen {
                what: "http",
                addr,
                source,
            })?;
        let origin = Self::build_on(config, listener)?;
        let http_addr = Some(server.addr());
        Ok(Self {
            http_addr,
            http: Some((server, health, drain)),
            ..origin
        })
    }

    /// Takes a listener for edges, such as an in-process one, and none for health.
    ///
    /// # Errors
    /// The id is no name.
    pub fn build_on(config: Config, listener: Listener) -> Result<Self, BuildError> {
        let id = OriginId::new(&config.id).map_err(|source| BuildError::Id {
            id: config.id.clone(),
            source,
        })?;
        Ok(Self {
            grpc_addr: listener.local_addr(),
            http_addr: None,
            id,
            hub: Arc::new(Hub::new(config.limits.clone(), config.publish_grace)),
            config,
            listener,
            http: None,
        })
    }

    /// What it is called.
    #[must_use]
    pub const fn id(&self) -> &OriginId {
        &self.id
    }

    /// Its streams, to look at from outside while it runs.
    #[must_use]
    pub fn hub(&self) -> Arc<Hub> {
        Arc::clone(&self.hub)
    }

    /// Prints where it listens, a line each, on standard output.
    pub fn announce(&self) {
        for (what, addr) in [("grpc", self.grpc_addr), ("http", self.http_addr)] {
            if let Some(addr) = addr {
                node::announce::listening(&self.id, what, addr);
            }
        }
    }

    /// Serves until `drain` starts and is done: every edge is told, nothing new is granted,
    /// publications have the configured grace to move, and then the links are closed.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn run(self, drain: Drain) -> Result<(), RunError> {
        let Self {
            id,
            config,
            listener,
            http,
            hub,
            ..
        } = self;
        let stopped = Drain::new();
        let health = http.map(|(server, health, not_ready)| {
            health.started();
            let stop = stopped.draining();
            (tokio::spawn(server.run(stop)), not_ready)
        });

        let grpc = node::link::server(&config.link)
            .layer(node::telemetry::Extract)
            .add_service(service::media::Service::server(
                id.clone(),
                Arc::clone(&hub),
            ))
            .serve_with_incoming_shutdown(listener.incoming(), stopped.draining());
        tokio::pin!(grpc);
        let leave = async {
            drain.draining().await;
            if let Some((_, not_ready)) = &health {
                not_ready.start();
            }
            tracing::info!(origin = %id, published = hub.published(), "draining");
            hub.drain();
            let _ = tokio::time::timeout(config.drain_grace, hub.until_unpublished()).await;
            hub.close_links();
            stopped.start();
        };
        let served = tokio::select! {
            served = &mut grpc => served.map_err(RunError::Grpc),
            () = leave => match tokio::time::timeout(CLOSING, grpc).await {
                Ok(served) => served.map_err(RunError::Grpc),
                // Connections that do not close are cut.
                Err(_) => Ok(()),
            },
        };
        stopped.start();
        if let Some((server, _)) = health {
            match server.await {
                Ok(Err(error)) => served.and(Err(RunError::Http(error))),
                Ok(Ok(())) | Err(_) => served,
            }
        } else {
            served
        }
    }
}
