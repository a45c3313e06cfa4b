//! What an orchestrator asks: `/livez`, `/readyz`, `/startupz`.
//!
//! | path | 200 when | otherwise 503 with the reason |
//! |---|---|---|
//! | `/livez` | the process answers and nobody called [`Health::fail`] | restart it |
//! | `/startupz` | [`Health::started`] was called | wait longer |
//! | `/readyz` | started, not draining, and every [`Condition`] holds | send it no one |
//!
//! A drain makes the node not ready and leaves it alive.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::shutdown::Drain;

/// The state of this node's health. Clones are the same state.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Inner>,
    drain: Drain,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    failed: Option<String>,
    /// What does not hold, and why, by the name of the condition.
    conditions: BTreeMap<&'static str, Option<String>>,
}

/// A 200 or a 503, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It is not, because of this.
    Not(String),
}

impl Health {
    /// A node that is alive, has not started, and will be not ready once `drain` starts.
    pub fn new(drain: Drain) -> Self {
        let inner = Inner {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
        };
        Self {
            inner: Arc::new(inner),
            drain,
        }
    }

    /// Says that start-up is complete: every listener is bound.
    pub fn started(&self) {
        self.change(|state| state.started = true);
    }

    /// Says that only a restart helps.
    pub fn fail(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.change(|state| state.failed = Some(reason));
    }

    /// Adds a condition of readiness, such as `origins reachable`. It does not hold until
    /// [`Condition::hold`] is called. Two handles of one name are the same condition.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.change(|state| {
            state
                .conditions
                .entry(name)
                .or_insert_with(|| Some("not known yet".into()));
        });
        Condition {
            health: self.clone(),
            name,
        }
    }

    /// The answer to `/livez`.
    pub fn live(&self) -> Verdict {
        self.read(|state| state.failed.clone().map_or(Verdict::Ok, Verdict::Not))
    }

    /// The answer to `/startupz`.
    pub fn startup(&self) -> Verdict {
        self.read(|state| {
            if state.started {
                Verdict::Ok
            } else {
                Verdict::Not("starting".into())
            }
        })
    }

    /// The answer to `/readyz`.
    pub fn ready(&self) -> Verdict {
        if self.drain.is_draining() {
            return Verdict::Not("draining".into());
        }
        self.read(|state| {
            let unmet = state
                .conditions
                .iter()
                .filter_map(|(name, why)| why.as_ref().map(|why| format!("not {name}: {why}")));
            let starting = (!state.started).then(|| "starting".to_owned());
            let reasons: Vec<_> = state
                .failed
                .iter()
                .cloned()
                .chain(starting)
                .chain(unmet)
                .collect();
            if reasons.is_empty() {
                Verdict::Ok
            } else {
                Verdict::Not(reasons.join("; "))
            }
        })
    }

    /// Resolves when the node is ready.
    pub async fn until_ready(&self) {
        let mut changes = self.inner.changes.subscribe();
        while self.ready() != Verdict::Ok {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// The three paths, to be merged into a router that serves more.
    pub fn router(&self) -> Router {
        let route = |ask: fn(&Self) -> Verdict| {
            let health = self.clone();
            get(move || std::future::ready(answer(&ask(&health))))
        };
        Router::new()
            .route("/livez", route(Self::live))
            .route("/readyz", route(Self::ready))
            .route("/startupz", route(Self::startup))
    }

    /// Binds the listener of the three paths. Port 0 is given a free port.
    ///
    /// # Errors
    /// The system refuses the address.
    pub async fn bind(&self, addr: SocketAddr) -> io::Result<Server> {
        Server::bind(addr, self.router()).await
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(
            &mut self
                .inner
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        self.inner.changes.send_modify(|version| *version += 1);
    }

    fn read<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(
            &self
                .inner
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// One thing that must hold for the node to be ready.
#[derive(Debug, Clone)]
pub struct Condition {
    health: Health,
    name: &'static str,
}

impl Condition {
    /// It holds.
    pub fn hold(&self) {
        self.set(None);
    }

    /// It does not, for this reason.
    pub fn break_with(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, why: Option<String>) {
        self.health.change(|state| {
            state.conditions.insert(self.name, why);
        });
    }
}

/// A bound HTTP listener that does not answer yet.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    listener: TcpListener,
    router: Router,
}

impl Server {
    /// Binds a listener for any router.
    ///
    /// # Errors
    /// The system refuses the address.
    pub async fn bind(addr: SocketAddr, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        Ok(Self {
            addr: listener.local_addr()?,
            listener,
            router,
        })
    }

    /// The address it got.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until `stop` resolves, and then ends the requests that are under way.
    ///
    /// A draining node must still say that it is not ready, so `stop` is the end of the process
    /// rather than the start of its drain.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let listener = self.listener.tap_io(|io| {
            // Delay costs a little time and nothing else here.
            let _ = io.set_nodelay(true);
        });
        axum::serve(listener, self.router)
            .with_graceful_shutdown(stop)
            .await
    }
}

fn answer(verdict: &Verdict) -> (StatusCode, String) {
    match verdict {
        Verdict::Ok => (StatusCode::OK, "ok\n".into()),
        Verdict::Not(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(addr: SocketAddr, path: &str) -> (u16, String) {
        let mut io = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        io.read_to_string(&mut response).await.unwrap();
        let status = response.split(' ').nth(1).unwrap().parse().unwrap();
        (
            status,
            response.split_once("\r\n\r\n").unwrap().1.to_owned(),
        )
    }

    #[tokio::test]
    async fn a_node_starts_becomes_ready_and_drains_as_an_orchestrator_sees_it() {
        let drain = Drain::new();
        let health = Health::new(drain.clone());
        let origins = health.condition("origins reachable");
        let server = health.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = server.addr();
        assert_ne!(addr.port(), 0);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server.run(async { stopped.await.unwrap_or_default() }));

        assert_eq!(ask(addr, "/livez").await, (200, "ok\n".into()));
        assert_eq!(ask(addr, "/startupz").await, (503, "starting\n".into()));
        let unready = "starting; not origins reachable: not known yet\n";
        assert_eq!(ask(addr, "/readyz").await, (503, unready.into()));

        health.started();
        assert_eq!(ask(addr, "/startupz").await, (200, "ok\n".into()));
        origins.break_with("origin-0: connection refused");
        let unready = "not origins reachable: origin-0: connection refused\n";
        assert_eq!(ask(addr, "/readyz").await, (503, unready.into()));
        origins.hold();
        assert_eq!(ask(addr, "/readyz").await, (200, "ok\n".into()));

        drain.start();
        assert_eq!(ask(addr, "/readyz").await, (503, "draining\n".into()));
        assert_eq!(ask(addr, "/livez").await, (200, "ok\n".into()));

        health.fail("the log cannot be written");
        assert_eq!(
            ask(addr, "/livez").await,
            (503, "the log cannot be written\n".into())
        );
        assert_eq!(ask(addr, "/nonsense").await.0, 404);
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn whoever_waits_for_readiness_learns_of_the_last_condition() {
        let health = Health::new(Drain::new());
        let (a, b) = (health.condition("a"), health.condition("b"));
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.until_ready().await }
        });
        b.hold();
        health.started();
        assert_eq!(health.ready(), Verdict::Not("not a: not known yet".into()));
        a.hold();
        waiting.await.unwrap();
    }
}
