//! What stands before the edges, as a Service of Kubernetes does: a new connection goes to an edge
//! that says it is ready, and stays there until one of its ends closes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

use super::http;
use super::until::pace;

/// How often edges are asked whether they are ready.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One address for several edges. Lives as long as the runtime that it was started on.
#[derive(Clone, Debug)]
pub struct Front {
    /// Where clients come in.
    pub addr: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    edges: Vec<Edge>,
    /// Whose turn it is.
    turn: AtomicUsize,
    /// At which edge a client is, by the address that it comes from.
    at: Mutex<BTreeMap<SocketAddr, usize>>,
    taken: AtomicUsize,
}

#[derive(Debug)]
struct Edge {
    rtmp: SocketAddr,
    http: SocketAddr,
    ready: AtomicBool,
}

impl Front {
    /// Stands before edges at these addresses: where they speak RTMP, and where they say
    /// whether they are ready.
    ///
    /// # Panics
    /// When there is no port.
    pub async fn start(edges: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("it is bound");
        let edges = edges.into_iter().map(|(rtmp, http)| Edge {
            rtmp,
            http,
            ready: AtomicBool::new(is_ready(http)),
        });
        let inner = Arc::new(Inner {
            edges: edges.collect(),
            turn: AtomicUsize::new(0),
            at: Mutex::default(),
            taken: AtomicUsize::new(0),
        });
        let looked_at = Arc::downgrade(&inner);
        std::thread::spawn(move || {
            while let Some(inner) = looked_at.upgrade() {
                for edge in &inner.edges {
                    edge.ready.store(is_ready(edge.http), Ordering::Relaxed);
                }
                drop(inner);
                pace(LOOK_EVERY);
            }
        });
        let front = Self { addr, inner };
        let this = front.clone();
        tokio::spawn(async move {
            while let Ok((client, from)) = listener.accept().await {
                tokio::spawn(this.clone().carry(client, from));
            }
        });
        front
    }

    /// At which edge the client is that comes from this address, or was last.
    pub fn edge_of(&self, client: SocketAddr) -> Option<usize> {
        self.at().get(&client).copied()
    }

    /// How many connections were carried so far.
    pub fn taken(&self) -> usize {
        self.inner.taken.load(Ordering::Relaxed)
    }

    /// Carries what both say to the end. A client that no edge takes is closed.
    async fn carry(self, mut client: TcpStream, from: SocketAddr) {
        let Some((edge, mut server)) = self.server().await else {
            return;
        };
        self.at().insert(from, edge);
        self.inner.taken.fetch_add(1, Ordering::Relaxed);
        let _only_slower = client.set_nodelay(true).and(server.set_nodelay(true));
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        // Whatever breaks or ends is the end of that direction.
        let up = async {
            let _ended = copy(&mut from_client, &mut to_server).await;
            let _gone = to_server.shutdown().await;
        };
        let down = async {
            let _ended = copy(&mut from_server, &mut to_client).await;
            let _gone = to_client.shutdown().await;
        };
        tokio::join!(up, down);
    }

    async fn server(&self) -> Option<(usize, TcpStream)> {
        let edges = &self.inner.edges;
        let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed);
        for place in 0..edges.len() {
            let number = (turn + place) % edges.len();
            let edge = edges.get(number)?;
            if !edge.ready.load(Ordering::Relaxed) {
                continue;
            }
            // It may have ended since it was asked.
            if let Ok(server) = TcpStream::connect(edge.rtmp).await {
                return Some((number, server));
            }
        }
        None
    }

    fn at(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, usize>> {
        self.inner.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_ready(http: SocketAddr) -> bool {
    http::get(http, "/readyz").is_ok_and(|(status, _)| status == 200)
}
