//! The directory of peers for edges: each link is a task that reads, and a queue out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fabric::limits::PEER_NEWS_MAX;
use fabric::peers::{id, initiator, observed, reported};
use fabric::v1::peers_server::{Peers, PeersServer};
use fabric::v1::{
    FromDirectory, Greeting, Introduction, Outcome, PeerPresence, ToDirectory, from_directory,
    to_directory,
};
use fabric::{GRPC_MESSAGE_MAX, Invalid, LinkError};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::directory::{Counts, Directory, Life, LinkId, Output, Presence};
use crate::limits::{HELLO_TIMEOUT, PEERS_QUEUE};

/// The directory of an origin, and the ways to the edges that speak to it. Clones are the
/// same one.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    directory: Directory,
    ways: BTreeMap<LinkId, Way>,
    next: u64,
    closed: bool,
}

struct Way {
    out: mpsc::Sender<Result<FromDirectory, Status>>,
    /// Dropped with the way: its reader ends.
    _over: oneshot::Sender<()>,
}

impl Board {
    /// What was counted.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().directory.counts()
    }

    /// Ends every link, and takes no other.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.ways.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the directory, and sends what it says.
    fn with<T>(&self, act: impl FnOnce(&mut Directory) -> T) -> T {
        let mut state = self.lock();
        let done = act(&mut state.directory);
        while let Some(output) = state.directory.poll_output() {
            let (link, body) = match output {
                Output::Introduction {
                    link,
                    id,
                    peer,
                    initiator,
                } => {
                    let introduction = Introduction {
                        id,
                        peer: peer.to_vec().into(),
                        initiator: Some(initiator),
                    };
                    (link, from_directory::Body::Introduction(introduction))
                }
                Output::Outcome {
                    link,
                    id,
                    state,
                    presence,
                } => {
                    let mut outcome = Outcome {
                        id,
                        state: state.into(),
                        ..Outcome::default()
                    };
                    if let Some(presence) = presence {
                        outcome.observed = Some(presence.observed.into());
                        outcome.reported = presence.reported.into_iter().map(Into::into).collect();
                    }
                    (link, from_directory::Body::Outcome(outcome))
                }
                Output::End { link } => {
                    state.ways.remove(&link);
                    continue;
                }
            };
            if let Some(way) = state.ways.get(&link) {
                // What has no room is lost, and asked for again.
                let _ = way.out.try_send(Ok(FromDirectory { body: Some(body) }));
            }
        }
        done
    }
}

/// Serves the directory.
#[derive(Clone)]
pub(crate) struct Service {
    board: Board,
}

impl Service {
    pub(crate) fn server(board: Board) -> PeersServer<Self> {
        PeersServer::new(Self { board })
            .max_decoding_message_size(GRPC_MESSAGE_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_MAX)
    }
}

#[tonic::async_trait]
impl Peers for Service {
    type KeepStream = Pin<Box<dyn Stream<Item = Result<FromDirectory, Status>> + Send>>;

    async fn keep(
        &self,
        request: Request<Streaming<ToDirectory>>,
    ) -> Result<Response<Self::KeepStream>, Status> {
        let (out, outgoing) = mpsc::channel(PEERS_QUEUE);
        let (over, ended) = oneshot::channel();
        let link = {
            let mut state = self.board.lock();
            if state.closed {
                return Err(LinkError::Leaving.into());
            }
            state.next += 1;
            let link = LinkId(state.next);
            let way = Way {
                out: out.clone(),
                _over: over,
            };
            state.ways.insert(link, way);
            link
        };
        let (board, mut incoming) = (self.board.clone(), request.into_inner());
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = read(&board, link, &mut incoming) => outcome,
                // It is replaced, or was silent, or this origin leaves.
                _ = ended => Ok(()),
                // Nobody listens.
                () = out.closed() => Ok(()),
            };
            board.with(|directory| directory.link_down(link));
            board.lock().ways.remove(&link);
            if let Err(error) = outcome {
                tracing::warn!(%error, "a link of the directory ended because of the edge");
                let _ = out.try_send(Err(error.into()));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// Reads until the edge ends the link or is silent.
async fn read(
    board: &Board,
    link: LinkId,
    incoming: &mut Streaming<ToDirectory>,
) -> Result<(), LinkError> {
    let first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await;
    let Ok(Ok(Some(first))) = first else {
        return Ok(());
    };
    let Some(to_directory::Body::Greeting(greeting)) = first.body else {
        return Err(LinkError::OutOfOrder("the first is no Greeting".to_owned()));
    };
    let Greeting { edge, incarnation } = greeting;
    tracing::debug!(edge, "edge tells of its peers");
    let life = Life { edge, incarnation };
    board.with(|directory| directory.link_up(link, life, now()));
    while let Some(dies_at) = board.with(|directory| directory.dies_at(link)) {
        tokio::select! {
            message = incoming.message() => match message {
                Ok(Some(message)) => handle(board, link, message)?,
                Ok(None) | Err(_) => return Ok(()),
            },
            () = tokio::time::sleep_until(dies_at.into()) => {
                board.with(|directory| directory.handle_timeout(now()));
            }
        }
    }
    Ok(())
}

fn handle(board: &Board, link: LinkId, message: ToDirectory) -> Result<(), LinkError> {
    let now = now();
    match message.body {
        Some(to_directory::Body::News(news)) => {
            if news.peers.len() > PEER_NEWS_MAX {
                let text = format!("{} peers in one message", news.peers.len());
                return Err(LinkError::LimitExceeded(text));
            }
            let peers: Result<Vec<_>, Invalid> = news.peers.iter().map(presence).collect();
            let peers = peers?;
            board.with(|directory| {
                directory.heard(link, now);
                for (peer, presence) in peers {
                    directory.news(link, peer, presence, now);
                }
            });
        }
        Some(to_directory::Body::Seek(seek)) => {
            let (peer, initiator) = (id(&seek.peer)?, initiator(seek.initiator)?);
            board.with(|directory| {
                directory.heard(link, now);
                directory.seek((link, seek.id), peer, initiator, now);
            });
        }
        Some(to_directory::Body::Verdict(verdict)) => board.with(|directory| {
            directory.heard(link, now);
            directory.verdict(link, verdict.id, verdict.state());
        }),
        Some(to_directory::Body::Greeting(_)) => {
            return Err(LinkError::OutOfOrder("a second Greeting".to_owned()));
        }
        Some(to_directory::Body::Alive(_)) | None => {
            board.with(|directory| directory.heard(link, now));
        }
    }
    Ok(())
}

fn presence(wire: &PeerPresence) -> Result<(fabric::peers::PeerId, Option<Presence>), Invalid> {
    let peer = id(&wire.peer)?;
    if wire.observed.is_none() {
        return Ok((peer, None));
    }
    let presence = Presence {
        observed: observed(wire.observed.as_ref())?,
        reported: reported(&wire.reported)?,
        age: Duration::from_millis(wire.age_millis),
    };
    Ok((peer, Some(presence)))
}

/// The time as tokio sees it, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
