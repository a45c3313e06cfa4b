//! The streams to the other origins.
//!
//! One task for each peer keeps an Exchange open and sends what waits. What does not fit
//! into its queue is dropped, newest first: the log asks for it again, and what is in order
//! is worth more than what is new. What waits when a stream breaks is dropped too. Snapshots
//! travel beside, one at a time for each peer.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fabric::GRPC_MESSAGE_MAX;
use fabric::limits::SNAPSHOT_PIECE_BYTES;
use fabric::v1::raft_client::RaftClient;
use fabric::v1::{RaftBatch, RaftHello, SnapshotHead, SnapshotPiece};
use model::NodeId;
use node::link::{Address, ClientTls, Settings};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::queue::Queue;

/// Bytes that may wait for one peer: what the leader may have under way to one follower.
const WAITING_BYTES: usize = 64 << 20;

/// Messages that may wait for one peer.
const WAITING_COUNT: usize = 8192;

/// Delays before a stream is opened again: the first and the longest. A peer that comes back
/// is told within the time of an election.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Where the other origins are, from the surest source that says it: the configuration, then
/// what they said themselves, then what the membership says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book(Arc<Mutex<Addresses>>);

#[derive(Debug, Default)]
struct Addresses {
    configured: BTreeMap<NodeId, Address>,
    heard: BTreeMap<NodeId, Address>,
    members: BTreeMap<NodeId, Address>,
}

impl Book {
    pub(crate) fn new(configured: BTreeMap<NodeId, Address>) -> Self {
        Self(Arc::new(Mutex::new(Addresses {
            configured,
            ..Addresses::default()
        })))
    }

    pub(crate) fn heard(&self, node: NodeId, address: &str) {
        if let Ok(address) = Address::from_str(address) {
            self.lock().heard.insert(node, address);
        }
    }

    /// The configuration's addresses were given by numbers of a founding; this node was never
    /// one of them.
    pub(crate) fn forget_configured(&self) {
        self.lock().configured.clear();
    }

    pub(crate) fn learned(&self, node: NodeId, address: Address) {
        self.lock().heard.insert(node, address);
    }

    pub(crate) fn members(&self, members: impl IntoIterator<Item = (NodeId, String)>) {
        self.lock().members = members
            .into_iter()
            .filter_map(|(node, address)| Some((node, Address::from_str(&address).ok()?)))
            .collect();
    }

    pub(crate) fn find(&self, node: NodeId) -> Option<Address> {
        let book = self.lock();
        [&book.configured, &book.heard, &book.members]
            .into_iter()
            .find_map(|known| known.get(&node).cloned())
    }

    /// Every address that is known.
    pub(crate) fn everybody(&self) -> Vec<Address> {
        let book = self.lock();
        let known = [&book.configured, &book.heard, &book.members];
        let mut all: Vec<_> = known
            .into_iter()
            .flat_map(|of| of.values().cloned())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who this origin is when it speaks to others.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    pub(crate) node: NodeId,
    pub(crate) cluster: u64,
    pub(crate) name: String,
    pub(crate) address: String,
}

/// How connections to other origins are made.
#[derive(Clone)]
pub(crate) struct Dial {
    pub(crate) settings: Settings,
    pub(crate) tls: Option<ClientTls>,
}

impl Dial {
    pub(crate) fn channel(&self, address: &Address) -> Result<Channel, node::link::Error> {
        node::link::connect_tls(address, &self.settings, self.tls.as_ref())
    }
}

/// What became of a state that was sent.
#[derive(Debug)]
pub(crate) struct SnapshotSent {
    pub(crate) to: NodeId,
    /// Which of those to this peer.
    pub(crate) nth: u64,
    pub(crate) arrived: bool,
}

/// The streams to all peers that were ever written to and still belong to the cluster.
pub(crate) struct Peers {
    voice: Voice,
    dial: Dial,
    book: Book,
    streams: BTreeMap<NodeId, Peer>,
    sent: tokio::sync::mpsc::UnboundedSender<SnapshotSent>,
}

struct Peer {
    queue: Queue,
    task: JoinHandle<()>,
    snapshot: Option<JoinHandle<()>>,
    /// States that were sent to it, the last one included.
    snapshots: u64,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(snapshot) = &self.snapshot {
            snapshot.abort();
        }
    }
}

impl Peers {
    pub(crate) fn new(
        voice: Voice,
        dial: Dial,
        book: Book,
        sent: tokio::sync::mpsc::UnboundedSender<SnapshotSent>,
    ) -> Self {
        Self {
            voice,
            dial,
            book,
            streams: BTreeMap::new(),
            sent,
        }
    }

    /// Sends a message, or drops it. Says whether it was taken.
    pub(crate) fn send(&mut self, to: NodeId, message: Bytes) -> bool {
        self.peer(to).queue.push(message).is_ok()
    }

    /// Sends a state; what became of it is told.
    pub(crate) fn send_snapshot(&mut self, to: NodeId, message: Bytes, index: u64, state: Bytes) {
        let hello = self.hello(to);
        let (book, dial, sent) = (self.book.clone(), self.dial.clone(), self.sent.clone());
        let peer = self.peer(to);
        if let Some(earlier) = peer.snapshot.take() {
            earlier.abort();
        }
        peer.snapshots += 1;
        let nth = peer.snapshots;
        peer.snapshot = Some(tokio::spawn(async move {
            let bytes = state.len();
            tracing::info!(%to, index, bytes, "sending a state");
            let delivered = match book.find(to) {
                Some(address) => deliver(&dial, &address, hello, message, index, state).await,
                None => Err(tonic::Status::unavailable("its address is not known")),
            };
            if let Err(status) = &delivered {
                tracing::warn!(%to, index, %status, "the state did not arrive");
            }
            let arrived = delivered.is_ok();
            // Nobody asks any more when the origin is gone.
            let _ = sent.send(SnapshotSent { to, nth, arrived });
        }));
    }

    /// Whether it is the last state that was sent to that peer.
    pub(crate) fn is_last(&self, sent: &SnapshotSent) -> bool {
        let peer = self.streams.get(&sent.to);
        peer.is_some_and(|peer| peer.snapshots == sent.nth)
    }

    /// Ends the streams to those who do not belong to the cluster any more.
    pub(crate) fn retain(&mut self, belongs: impl Fn(NodeId) -> bool) {
        self.streams.retain(|node, _| belongs(*node));
    }

    fn hello(&self, to: NodeId) -> RaftHello {
        RaftHello {
            from: self.voice.node.0.get(),
            to: to.0.get(),
            cluster: self.voice.cluster,
            name: self.voice.name.clone(),
            address: self.voice.address.clone(),
        }
    }

    fn peer(&mut self, to: NodeId) -> &mut Peer {
        let hello = self.hello(to);
        self.streams.entry(to).or_insert_with(|| {
            let queue = Queue::new(WAITING_BYTES, WAITING_COUNT);
            let stream = keep_open(
                self.book.clone(),
                self.dial.clone(),
                to,
                hello,
                queue.clone(),
            );
            Peer {
                queue,
                task: tokio::spawn(stream),
                snapshot: None,
                snapshots: 0,
            }
        })
    }
}

async fn keep_open(book: Book, dial: Dial, to: NodeId, hello: RaftHello, queue: Queue) {
    let mut delay = RETRY.0;
    let mut said = String::new();
    loop {
        let began = tokio::time::Instant::now();
        let why = match book.find(to) {
            Some(address) => exchange(&dial, &address, hello.clone(), queue.clone()).await,
            None => "its address is not known".to_owned(),
        };
        // The same reason again and again is said once.
        if why == said {
            tracing::debug!(%to, why, "still no stream to origin");
        } else {
            tracing::info!(%to, why, "no stream to origin");
            said = why;
        }
        if began.elapsed() > RETRY.1 {
            delay = RETRY.0;
        }
        queue.clear();
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

/// Speaks until the stream breaks, and says why it did.
async fn exchange(dial: &Dial, address: &Address, hello: RaftHello, queue: Queue) -> String {
    let channel = match dial.channel(address) {
        Ok(channel) => channel,
        Err(error) => return error.to_string(),
    };
    let mut client = RaftClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_MAX);
    let hello = RaftBatch {
        hello: Some(hello),
        messages: Vec::new(),
    };
    let batches = futures_util::stream::unfold((Some(hello), queue), |(hello, queue)| async {
        if let Some(hello) = hello {
            return Some((hello, (None, queue)));
        }
        let messages = queue.next().await?.ok()?;
        let batch = RaftBatch {
            hello: None,
            messages,
        };
        Some((batch, (None, queue)))
    });
    match client.exchange(batches).await {
        Ok(_) => "the other side ended it".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

async fn deliver(
    dial: &Dial,
    address: &Address,
    hello: RaftHello,
    message: Bytes,
    index: u64,
    state: Bytes,
) -> Result<(), tonic::Status> {
    let channel = dial
        .channel(address)
        .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let mut client = RaftClient::new(channel);
    let head = SnapshotHead {
        hello: Some(hello),
        message,
        index,
        bytes: state.len() as u64,
        crc32c: crc32c::crc32c(&state),
    };
    let first = SnapshotPiece {
        head: Some(head),
        ..SnapshotPiece::default()
    };
    let count = state.len().div_ceil(SNAPSHOT_PIECE_BYTES);
    let pieces = (0..count).map(move |nth| {
        let from = nth * SNAPSHOT_PIECE_BYTES;
        let data = state.slice(from..state.len().min(from + SNAPSHOT_PIECE_BYTES));
        SnapshotPiece {
            head: None,
            crc32c: crc32c::crc32c(&data),
            data,
        }
    });
    let pieces = tokio_stream::iter(std::iter::once(first).chain(pieces));
    client.snapshot(pieces).await.map(|_| ())
}
