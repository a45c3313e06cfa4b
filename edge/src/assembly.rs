//! Puts an edge together: listeners bound first, nothing served until it runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::EdgeId;
use node::health::{Condition, Health, Server};
use node::link::Mutual;
use node::metrics::{Calls, Metrics};
use node::resolve::{Addresses, Entry};
use node::shutdown::Drain;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::accept::{self, Permits};
use crate::config::Config;
use crate::datagram::{self, Door};
use crate::follow::Tracing;
use crate::limits::RECONNECT_SPREAD;
use crate::link::LinkSetup;
use crate::metrics::{self, Figures};
use crate::peers::{self, Peers};
use crate::shard::{self, Datagrams, Settings, ShardHandle, ToShard, Ways};
use crate::shared::{self, Shared};
use crate::status::Operators;
use crate::upstream::{Patience, Reachable, Sources, Upstream};

/// How often certificate files are looked at.
const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);

/// How long shards get to write their farewells.
const FAREWELL: Duration = Duration::from_secs(3);

/// How often origins are told how much the edge has to do, if that changes.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// How long the log is told that the clients are gone.
const PARTING: Duration = Duration::from_secs(1);

/// Where origins are.
pub enum Origins {
    /// As the configuration says.
    Configured,
    /// These: the in-process composition.
    Given(Vec<Entry>),
}

/// An edge with its listeners bound.
pub struct Edge {
    /// The edge's name.
    pub id: EdgeId,
    /// Where RTMP clients come in.
    pub rtmp_addr: SocketAddr,
    /// Where RTMPS clients come in.
    pub rtmps_addr: Option<SocketAddr>,
    /// Where RTMFP clients come in.
    pub rtmfp_addr: Option<SocketAddr>,
    /// Where health is asked.
    pub http_addr: SocketAddr,
    /// Where operators come in.
    pub admin_addr: Option<SocketAddr>,
    config: Config,
    link_tls: Option<Mutual>,
    rtmp: TcpListener,
    rtmps: Option<(TcpListener, TlsAcceptor)>,
    /// One for each shard, or none.
    rtmfp: Vec<std::net::UdpSocket>,
    http: Server,
    admin: Option<Server>,
    operators: Operators,
    health: Health,
    metrics: Metrics,
    addresses: watch::Receiver<Addresses>,
}

/// Why an edge could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A listener could not be bound.
    #[error("cannot listen for {what} on {addr}")]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Operators cannot be served.
    #[error(transparent)]
    Admin(#[from] node::admin::Error),
    /// The TLS material is unusable.
    #[error("cannot serve rtmps")]
    Tls(#[source] node::tls::Error),
    /// The certificate that origins are shown is unusable, or the roots of theirs.
    #[error("link.tls")]
    LinkTls(#[source] node::tls::Error),
    /// An origin's address is none.
    #[error("origins")]
    Origin(#[source] node::link::BadAddress),
    /// No origin is configured.
    #[error("origins: at least one is needed, as host:port, unix:/path or dns:name:port")]
    NoOrigins,
    /// The name is none.
    #[error("id: {0}")]
    Id(model::NameError),
    /// The keys for RTMFP could not be made.
    #[error("cannot serve rtmfp")]
    Rtmfp(#[source] rtmfp::Error),
    /// A shard's thread could not be started.
    #[error("cannot start a shard")]
    Shard(#[source] io::Error),
}

impl Edge {
    /// Binds everything. `drain` makes it not ready once it starts.
    ///
    /// # Errors
    /// Names what could not be bound or read.
    pub async fn build(
        config: Config,
        origins: Origins,
        drain: &Drain,
    ) -> Result<Self, BuildError> {
        let id = EdgeId::new(&config.id).map_err(BuildError::Id)?;
        let entries = match origins {
            Origins::Given(entries) => entries,
            Origins::Configured => config
                .origins
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()
                .map_err(BuildError::Origin)?,
        };
        if entries.is_empty() {
            return Err(BuildError::NoOrigins);
        }
        let link_tls = config.link.tls.load().map_err(BuildError::LinkTls)?;
        let (rtmp, rtmp_addr) = bind("rtmp", config.listen.rtmp)?;
        let rtmps = match config.listen.rtmps {
            None => None,
            Some(addr) => {
                let acceptor = tls(&config).map_err(BuildError::Tls)?;
                let (listener, addr) = bind("rtmps", addr)?;
                Some((listener, addr, acceptor))
            }
        };
        let (rtmfp, rtmfp_addr) = if config.rtmfp.enabled {
            let addr = config.listen.rtmfp.unwrap_or(config.listen.rtmp);
            let (sockets, addr) = bind_datagrams(addr, shard_count(&config)).map_err(|source| {
                let what = "rtmfp";
                BuildError::Listen { what, addr, source }
            })?;
            (sockets, Some(addr))
        } else {
            (Vec::new(), None)
        };
        let health = Health::new(drain.clone());
        let metrics = Metrics::new("edge", &config.id);
        let paths = health.router().merge(metrics.router());
        let http = Server::bind(config.listen.http, paths)
            .await
            .map_err(|source| BuildError::Listen {
                what: "http",
                addr: config.listen.http,
                source,
            })?;
        let operators = Operators::new(id.clone(), drain.clone());
        let admin = operators.admin().bind(&config.admin).await?;
        Ok(Self {
            id,
            rtmp_addr,
            rtmps_addr: rtmps.as_ref().map(|(_, addr, _)| *addr),
            rtmfp_addr,
            http_addr: http.addr(),
            admin_addr: admin.as_ref().map(Server::addr),
            addresses: node::resolve::follow(entries, &node::resolve::Settings::default()),
            rtmp,
            rtmps: rtmps.map(|(listener, _, acceptor)| (listener, acceptor)),
            rtmfp,
            http,
            admin,
            operators,
            health,
            metrics,
            link_tls,
            config,
        })
    }

    /// What to print about its listeners.
    pub fn listeners(&self) -> Listeners {
        let mut addrs = vec![("rtmp", self.rtmp_addr)];
        addrs.extend(self.rtmps_addr.map(|addr| ("rtmps", addr)));
        addrs.extend(self.rtmfp_addr.map(|addr| ("rtmfp", addr)));
        addrs.push(("http", self.http_addr));
        addrs.extend(self.admin_addr.map(|addr| ("admin", addr)));
        Listeners {
            id: self.id.clone(),
            addrs,
        }
    }

    /// Its health, for the composition to wait for.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves until `drain` starts, and then until the clients have left or the grace time
    /// is over.
    ///
    /// # Errors
    /// A shard could not be started.
    pub async fn run(self, drain: Drain) -> Result<(), BuildError> {
        let Self {
            id,
            config,
            link_tls,
            rtmp,
            rtmps,
            rtmfp,
            http,
            admin,
            operators,
            health,
            metrics,
            addresses,
            ..
        } = self;
        let seed = seed();
        let (asks, receiver) = mpsc::unbounded_channel();
        let (shared, shared_inbox) = shared::inbox();
        let (news, heard) = mpsc::unbounded_channel();
        let (reachable, watching) = watch::channel(Reachable::new());
        let (told, load) = watch::channel(fabric::v1::Load::default());
        let setup = LinkSetup {
            edge: id.clone(),
            incarnation: seed,
            settings: config.link.clone(),
            tls: link_tls.map(|tls| {
                tls.watch();
                tls.client
            }),
            calls: Calls::made(&metrics),
            load,
        };
        let link = setup.clone();
        let patience = Patience {
            linger: config.play.linger,
            interrupted: config.play.interrupted,
        };

        let mut session = session::ServerSetup::new(seed);
        session.connect_timeout = config.limits.connect_time;
        session.traceparent = config.trace.clients;
        let count = shard_count(&config);
        let figures = Figures::new(&metrics);
        let settings = Settings {
            coalesce: config.play.coalesce,
            chunk_size: config.play.chunk_size,
            publish_keep: config.publish.keep,
            publish_wait: config.publish.wait,
            publish_timeout: config.publish.timeout,
            streams: config.limits.streams.div_ceil(count),
            objects: Arc::new(config.objects.clone()),
            developer_key: config.rtmfp.developer_key.clone().map(Arc::new),
            session,
            trace_clients: config.trace.clients,
            figures: figures.clone(),
            tracing: Tracing {
                edge: id.clone(),
                every: config.trace.frames,
            },
        };
        let (peers, peers_inbox) = peers::inbox();
        let ways = Ways {
            upstream: asks,
            shared: shared.clone(),
            peers,
        };
        let permits = Permits::new(
            config.limits.connections,
            config.limits.connections_per_address,
        );
        let sessions_max = config.limits.connections;
        let common = config.rtmfp.enabled.then(|| {
            datagram::Common::new(permits.clone(), seed, sessions_max).map_err(BuildError::Rtmfp)
        });
        let common = common.transpose()?;
        let mut rtmfp = rtmfp.into_iter();
        let mut shards: Vec<ShardHandle> = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        let (alive, mut ended) = mpsc::channel(1);
        for index in 0..count {
            let datagrams = common.clone().zip(rtmfp.next()).map(|(common, socket)| {
                let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let (index, count) = (number(index), number(count));
                let door = Box::new(move || Door::new(common, index, count));
                Datagrams { door, socket }
            });
            let (settings, ways) = (settings.clone(), ways.clone());
            let (shard, thread) = shard::start(index, settings, ways, datagrams, alive.clone())
                .map_err(BuildError::Shard)?;
            shards.push(shard);
            threads.push(thread);
        }
        for shard in &shards {
            shard.send(ToShard::Others(shards.clone()));
        }
        drop((ways, alive));
        figures.watch(&metrics, shards.clone(), watching.clone());
        crate::metrics::watch_streams(&metrics, config.metrics, shards.clone());
        operators.run(shards.clone(), permits.clone(), watching.clone());

        let mut tasks = JoinSet::new();
        tasks.spawn(report(told, shards.clone(), permits.clone()));
        let mut replica = ledger::replica::Setup::new(id, seed);
        replica.born = born();
        replica.write_wait = config.objects.write_wait;
        replica.linger = config.objects.linger;
        let shared_task = tokio::spawn(
            Shared::new(
                replica,
                shared_inbox,
                link,
                addresses.clone(),
                shards.clone(),
                news,
            )
            .run(),
        );
        let policy = config.rtmfp.peers;
        let at = addresses.clone();
        let peers = Peers::new(policy, peers_inbox, shards.clone(), setup.clone(), at);
        peers.watch(&metrics);
        tasks.spawn(peers.run());
        let sources = Sources {
            asks: receiver,
            news: heard,
            addresses,
        };
        tasks.spawn(Upstream::new(setup, patience, sources, shared, reachable).run());
        tasks.spawn(watch_origins(
            watching,
            health.condition("an origin is reachable"),
        ));
        let stop = Drain::new();
        let stopped = stop.draining();
        tasks.spawn(async move {
            if let Err(error) = http.run(stopped).await {
                warn!(%error, "the health listener failed");
            }
        });
        if let Some(server) = admin {
            let stopped = stop.draining();
            tasks.spawn(async move {
                if let Err(error) = server.run(stopped).await {
                    warn!(%error, "the listener for operators failed");
                }
            });
        }
        let mut listeners = JoinSet::new();
        let door = |tls, seed| accept::Door {
            tls,
            permits: permits.clone(),
            shards: shards.clone(),
            seed,
            figures: figures.clone(),
            // What was not validated, and cannot be read, lets nobody in.
            proxies: config
                .listen
                .proxy_protocol
                .networks()
                .unwrap_or(Some(Vec::new())),
        };
        listeners.spawn(accept::run(rtmp, door(None, seed)));
        if let Some((listener, acceptor)) = rtmps {
            listeners.spawn(accept::run(listener, door(Some(acceptor), !seed)));
        }
        health.started();

        drain.draining().await;
        info!(clients = permits.held(), "draining");
        listeners.shutdown().await;
        let spread = RECONNECT_SPREAD.min(config.drain_grace / 4);
        for shard in &shards {
            shard.send(ToShard::Drain(spread));
        }
        let waited = tokio::time::timeout(config.drain_grace, permits.idle()).await;
        if waited.is_err() {
            info!(
                clients = permits.held(),
                "grace time is over: closing what is left"
            );
        }
        for shard in &shards {
            shard.send(ToShard::Close);
        }
        // A thread that does not end must not keep the process: it is left behind.
        if tokio::time::timeout(FAREWELL, ended.recv()).await.is_err() {
            warn!("clients did not take the farewell in time");
        }
        let ended = threads.into_iter().filter(|thread| thread.is_finished());
        if ended.filter_map(|thread| thread.join().err()).count() > 0 {
            warn!("a shard panicked");
        }
        // What the log must hear of the end of this edge. Its lease ends the rest.
        let _ = tokio::time::timeout(PARTING, shared_task).await;
        stop.start();
        tasks.shutdown().await;
        Ok(())
    }
}

/// The bound addresses of an edge, by what they are for.
#[derive(Clone, Debug)]
pub struct Listeners {
    id: EdgeId,
    addrs: Vec<(&'static str, SocketAddr)>,
}

impl Listeners {
    /// Prints one line per listener on standard output.
    pub fn announce(&self) {
        for (what, addr) in &self.addrs {
            node::announce::listening(&self.id, what, addr);
        }
    }
}

fn bind(what: &'static str, addr: SocketAddr) -> Result<(TcpListener, SocketAddr), BuildError> {
    let failed = |source| BuildError::Listen { what, addr, source };
    let socket = if addr.is_ipv4() {
        tokio::net::TcpSocket::new_v4()
    } else {
        tokio::net::TcpSocket::new_v6()
    }
    .map_err(failed)?;
    // A restart must not wait for the connections of its predecessor to be forgotten.
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(addr).map_err(failed)?;
    let listener = socket.listen(crate::limits::ACCEPT_QUEUE).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

fn shard_count(config: &Config) -> usize {
    match config.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// Sockets at one address, among which the kernel shares out what comes.
fn bind_datagrams(
    addr: SocketAddr,
    count: usize,
) -> io::Result<(Vec<std::net::UdpSocket>, SocketAddr)> {
    // Sockets that share a port share it with those of another process, too, which then
    // takes a part of our clients. One that does not share finds out.
    let alone = std::net::UdpSocket::bind(addr)?;
    let addr = alone.local_addr()?;
    if count == 1 {
        return Ok((vec![alone], addr));
    }
    drop(alone);
    let bind = |_| -> io::Result<std::net::UdpSocket> {
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        Ok(socket.into())
    };
    let sockets = (0..count).map(bind).collect::<io::Result<_>>()?;
    Ok((sockets, addr))
}

fn tls(config: &Config) -> Result<TlsAcceptor, node::tls::Error> {
    let identity = match (&config.tls.cert, &config.tls.key) {
        (Some(cert), Some(key)) => {
            let identity = node::tls::Identity::from_files(node::tls::Files {
                cert: cert.clone(),
                key: key.clone(),
            })?;
            identity.watch(CERTIFICATE_CHECK);
            identity
        }
        _ => node::tls::Identity::for_development()?,
    };
    node::tls::acceptor(&identity)
}

/// Keeps what the origins are told of the edge's load up to date.
async fn report(told: watch::Sender<fabric::v1::Load>, shards: Vec<ShardHandle>, permits: Permits) {
    let mut due = tokio::time::interval(REPORT_EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        let now = metrics::load(&shards, &permits).await;
        told.send_if_modified(|load| std::mem::replace(load, now) != now);
    }
}

async fn watch_origins(mut reachable: watch::Receiver<Reachable>, condition: Condition) {
    loop {
        if reachable.borrow_and_update().is_empty() {
            condition.break_with("none answers");
        } else {
            condition.hold();
        }
        if reachable.changed().await.is_err() {
            return;
        }
    }
}

/// When this process began, in seconds of the clock on the wall.
fn born() -> u32 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    time.map_or(0, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}

/// Differs from run to run and from edge to edge. It feeds handshake noise and client
/// ids, which are no secrets.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u128(time);
    hasher.write_u32(std::process::id());
    hasher.finish()
}
