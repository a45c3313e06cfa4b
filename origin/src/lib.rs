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
//! * [`directory`] knows which RTMFP peer is at which edge, as far as edges say so.
//! * [`log`] keeps the replicated log on disk, and [`raft`] is this origin's seat in the
//!   cluster: the shell around the machine that decides who holds which name.
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
pub mod directory;
mod flags;
pub mod hub;
pub mod limits;
pub mod log;
mod metrics;
pub mod outbox;
pub mod raft;
pub mod service;
mod status;
pub mod stream;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::{NameError, NodeId, OriginId};
use node::admin::Admin;
use node::health::{Condition, Health, Server};
use node::link::{Address, Listener, Mutual};
use node::metrics::{Calls, Metrics};
use node::resolve::Entry;
use node::shutdown::Drain;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use config::Config;
pub use flags::{Flags, main};
use hub::Hub;
use log::{Disk, Folder, Log, Owner, Ram};
use raft::{Book, Desk, Dial, Lead, Seat, Standing, Times, Ways};

/// An origin whose listeners are bound and that serves nobody yet.
pub struct Origin {
    /// Where edges come in, if that is a TCP address.
    pub grpc_addr: Option<SocketAddr>,
    /// Where health is asked for, if anywhere.
    pub http_addr: Option<SocketAddr>,
    /// Where operators come in, if anywhere.
    pub admin_addr: Option<SocketAddr>,
    id: OriginId,
    config: Config,
    listener: Listener,
    tls: Option<Mutual>,
    http: Option<(Server, Health, Drain)>,
    admin: Option<Server>,
    /// Started by an operator.
    asked: Drain,
    hub: Arc<Hub>,
    desk: Desk,
    seat: Seat,
    lead: watch::Receiver<Lead>,
    metrics: Metrics,
}

/// What an origin is composed of, for those who compose it themselves.
pub struct Parts {
    /// Where edges and other origins come in, such as an in-process pipe.
    pub listener: Listener,
    /// The founders and where they are, in the place of `cluster.peers`.
    pub founders: BTreeMap<NodeId, Address>,
    /// Where a cluster may be found, in the place of `cluster.join`.
    pub join: Vec<Entry>,
    /// Where the log is kept.
    pub disk: Box<dyn Disk>,
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
    /// The configuration says what cannot be.
    #[error("the configuration: {what}")]
    Config {
        /// What is wrong.
        what: String,
    },
    /// Operators cannot be served.
    #[error(transparent)]
    Admin(#[from] node::admin::Error),
    /// The certificates of links are unusable.
    #[error("link.tls")]
    Tls(#[source] node::tls::Error),
    /// The log cannot be used.
    #[error("the log in {folder}")]
    Log {
        /// Where it is.
        folder: String,
        /// What is wrong with it.
        source: log::Error,
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
    /// The log failed: what this origin acknowledged may not be written.
    #[error("taking part in the cluster failed")]
    Raft(#[from] raft::Error),
}

/// When everything has ended, how long connections have to close.
const CLOSING: Duration = Duration::from_secs(2);

/// How long an origin that leaves waits for another to lead.
const HANDING_OVER: Duration = Duration::from_secs(2);

impl Origin {
    /// Opens the log and binds both listeners of the configuration.
    ///
    /// # Errors
    /// The id is no name, the log is not whole or in use, or an address is in use or not
    /// ours.
    pub async fn build(config: Config) -> Result<Self, BuildError> {
        let folder = config.folder();
        let disk = Folder::open(&folder).map_err(|source| BuildError::Log {
            folder: folder.display().to_string(),
            source,
        })?;
        let addr = config.listen;
        let listener = Listener::tcp(addr)
            .await
            .map_err(|source| BuildError::Listen {
                what: "grpc",
                addr,
                source,
            })?;
        let addr = config.http;
        let parts = Parts {
            listener,
            founders: config.cluster.founders().map_err(wrong)?,
            join: config.cluster.to_join().map_err(wrong)?,
            disk: Box::new(disk),
        };
        let origin = Self::compose(config, parts)?;
        let drain = Drain::new();
        let health = Health::new(drain.clone());
        let probes = health.router().merge(origin.metrics.router());
        let server = Server::bind(addr, probes)
            .await
            .map_err(|source| BuildError::Listen {
                what: "http",
                addr,
                source,
            })?;
        let http_addr = Some(server.addr());
        let admin = origin.operators().bind(&origin.config.admin).await?;
        Ok(Self {
            http_addr,
            admin_addr: admin.as_ref().map(Server::addr),
            admin,
            http: Some((server, health, drain)),
            ..origin
        })
    }

    /// A single origin that keeps nothing, on a listener such as an in-process one, without
    /// health.
    ///
    /// # Errors
    /// The id is no name.
    pub fn build_on(config: Config, listener: Listener) -> Result<Self, BuildError> {
        let parts = Parts {
            listener,
            founders: BTreeMap::new(),
            join: Vec::new(),
            disk: Box::new(Ram::new()),
        };
        Self::compose(config, parts)
    }

    /// An origin of these parts, without health.
    ///
    /// # Errors
    /// The id is no name, or the log is not whole.
    pub fn compose(config: Config, parts: Parts) -> Result<Self, BuildError> {
        let Parts {
            listener,
            founders,
            join,
            disk,
        } = parts;
        let id = OriginId::new(&config.id).map_err(|source| BuildError::Id {
            id: config.id.clone(),
            source,
        })?;
        let tls = config.link.tls.load().map_err(BuildError::Tls)?;
        let listener = match &tls {
            Some(tls) => listener.with_tls(Arc::clone(&tls.server)),
            None => listener,
        };
        let number = config.number().map_or(1, |number| number.0.get());
        let cluster = config.cluster.id();
        let owner = Owner {
            name: config.id.clone(),
            node: number,
            cluster,
        };
        let (log, recovered) =
            Log::open(disk, owner, chance()).map_err(|source| BuildError::Log {
                folder: config.folder().display().to_string(),
                source,
            })?;
        let grpc_addr = listener.local_addr();
        let advertised = config.cluster.advertise.clone().or_else(|| {
            let among = founders.iter().find(|(id, _)| id.0.get() == number);
            let listens = grpc_addr.filter(|addr| !addr.ip().is_unspecified());
            among
                .map(|(_, address)| address.to_string())
                .or_else(|| listens.map(|addr| addr.to_string()))
        });
        let hub = Arc::new(Hub::new(config.limits.clone(), config.publish_grace));
        let metrics = Metrics::new("origin", &config.id);
        let dial = Dial {
            settings: config.link.clone(),
            tls: tls.as_ref().map(|tls| tls.client.clone()),
            calls: Calls::made(&metrics),
        };
        let book = Book::new(founders.clone());
        let address = advertised.unwrap_or_default();
        let desk = Desk::new(config.id.clone(), address, cluster, book, dial);
        let (told, lead) = watch::channel(Lead::default());
        metrics::of_hub(&metrics, &hub);
        metrics::of_streams(&metrics, config.metrics, &hub);
        metrics::of_raft(&metrics, &desk, &lead);
        let seat = Seat {
            log,
            recovered,
            ways: Ways { founders, join },
            times: Times {
                heartbeat: config.cluster.heartbeat,
                election: config.cluster.election,
                edge_lease: config.cluster.edge_lease,
                disk: config.cluster.disk_patience,
                snapshot_entries: config.cluster.snapshot_entries,
                rejoin: config.cluster.rejoin_after,
            },
            desk: desk.clone(),
            hub: Arc::clone(&hub),
            lead: told,
            timing: metrics::timing(&metrics),
            commits: metrics::commits(&metrics),
        };
        Ok(Self {
            grpc_addr,
            http_addr: None,
            admin_addr: None,
            id,
            hub,
            config,
            listener,
            tls,
            http: None,
            admin: None,
            asked: Drain::new(),
            desk,
            seat,
            lead,
            metrics,
        })
    }

    /// What operators are shown and may do.
    fn operators(&self) -> Admin {
        let (hub, desk) = (Arc::clone(&self.hub), self.desk.clone());
        let published = Arc::clone(&hub);
        Admin {
            drain: self.asked.clone(),
            left: Arc::new(move || published.published()),
            status: Arc::new(move || {
                let (hub, desk) = (Arc::clone(&hub), desk.clone());
                Box::pin(async move { status::told(&desk, &hub).await })
            }),
            follow: None,
        }
    }

    /// Who leads the cluster, as far as this origin knows, while it runs.
    #[must_use]
    pub fn lead(&self) -> watch::Receiver<Lead> {
        self.lead.clone()
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
        for (what, addr) in [
            ("grpc", self.grpc_addr),
            ("http", self.http_addr),
            ("admin", self.admin_addr),
        ] {
            if let Some(addr) = addr {
                node::announce::listening(&self.id, what, addr);
            }
        }
    }

    /// Serves until `drain` starts and is done: another origin leads, every edge is told,
    /// nothing new is granted, publications have the configured grace to move, and then the
    /// links are closed.
    ///
    /// # Errors
    /// A listener failed, or the log.
    pub async fn run(self, drain: Drain) -> Result<(), RunError> {
        let Self {
            id,
            config,
            listener,
            tls,
            http,
            admin,
            asked,
            hub,
            desk,
            seat,
            mut lead,
            metrics: figures,
            ..
        } = self;
        if let Some(tls) = tls {
            tls.watch();
        }
        let stopped = Drain::new();
        let health = http.map(|(server, health, not_ready)| {
            health.started();
            let condition = health.condition("level with the cluster");
            tokio::spawn(watch_lead(lead.clone(), condition));
            let stop = stopped.draining();
            (tokio::spawn(server.run(stop)), not_ready)
        });
        // In sets, so that they end with this future.
        let mut operators = JoinSet::new();
        if let Some(server) = admin {
            operators.spawn(server.run(stopped.draining()));
        }
        let mut sitting = JoinSet::new();
        let (told, admitted) = (drain.draining(), asked.draining());
        let leaving = async {
            tokio::select! {
                () = told => {}
                () = admitted => {}
            }
        };
        sitting.spawn(seat.run(leaving, stopped.draining()));

        let board = service::peers::Board::default();
        metrics::of_directory(&figures, board.clone());
        let grpc = node::link::server(&config.link)
            .layer(node::telemetry::Extract)
            .layer(Calls::answered(&figures))
            .add_service(service::media::Service::server(
                id.clone(),
                Arc::clone(&hub),
            ))
            .add_service(service::peers::Service::server(board.clone()))
            .add_service(service::shared::Service::server(desk.clone()))
            .add_service(service::raft::Service::server(desk.clone()))
            .add_service(service::cluster::Service::server(desk.clone()))
            .serve_with_incoming_shutdown(listener.incoming(), stopped.draining());
        tokio::pin!(grpc);
        let leave = async {
            tokio::select! {
                () = drain.draining() => {}
                () = asked.draining() => {}
            }
            if let Some((_, not_ready)) = &health {
                not_ready.start();
            }
            tracing::info!(origin = %id, published = hub.published(), "draining");
            // First the lead, so that what the edges then ask is answered elsewhere.
            if desk.give(raft::Input::Leave).await.is_ok() {
                let elsewhere = lead.wait_for(|lead| !lead.here);
                let alone = lead_is_lonely(&desk).await;
                if !alone {
                    let _ = tokio::time::timeout(HANDING_OVER, elsewhere).await;
                }
            }
            hub.drain();
            let _ = tokio::time::timeout(config.drain_grace, hub.until_unpublished()).await;
            hub.close_links();
            tracing::info!(peers = ?board.counts(), "the directory of peers closes");
            board.close();
            stopped.start();
        };
        let mut sat = None;
        let served = tokio::select! {
            served = &mut grpc => served.map_err(RunError::Grpc),
            Some(ended) = sitting.join_next() => {
                sat = Some(ended);
                Ok(())
            }
            () = leave => match tokio::time::timeout(CLOSING, grpc).await {
                Ok(served) => served.map_err(RunError::Grpc),
                // Connections that do not close are cut.
                Err(_) => Ok(()),
            },
        };
        stopped.start();
        if sat.is_none() {
            sat = sitting.join_next().await;
        }
        let served = match sat {
            Some(Ok(Err(error))) => Err(RunError::Raft(error)),
            Some(Ok(Ok(())) | Err(_)) | None => served,
        };
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

/// A configuration that was loaded has been validated; one that was made may not be.
fn wrong(invalid: node::config::Invalid) -> BuildError {
    let node::config::Invalid {
        key,
        value,
        expected,
    } = invalid;
    BuildError::Config {
        what: format!("`{key}` is {value}, expected {expected}"),
    }
}

/// Whether there is nobody to hand the lead to.
async fn lead_is_lonely(desk: &Desk) -> bool {
    match desk.status(false).await {
        Ok(status) => status.members.iter().filter(|member| member.voter).count() < 2,
        Err(_) => true,
    }
}

async fn watch_lead(mut lead: watch::Receiver<Lead>, condition: Condition) {
    loop {
        let Lead {
            leader, standing, ..
        } = *lead.borrow_and_update();
        match (standing, leader) {
            (Standing::Level, _) => condition.hold(),
            (Standing::Removed, _) => condition.break_with("it was removed from the cluster"),
            (_, None) => condition.break_with("no leader is known"),
            (Standing::Learning, Some(_)) => condition.break_with("it does not vote yet"),
            (Standing::Outside | Standing::Behind, Some(_)) => {
                condition.break_with("it has not applied what was decided lately");
            }
        }
        if lead.changed().await.is_err() {
            return;
        }
    }
}

/// A number that nobody can foresee, and never 0.
fn chance() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish().max(1)
}
