//! Where the services hand in what they get, and ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fabric::v1;
use ledger::effect::StreamState;
use ledger::watchers::AttachId;
use model::{NodeId, StreamKey};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use super::peers::{Book, Dial};
use super::queue::Queue;

/// What the member must deal with.
pub(crate) enum Input {
    /// Messages of another origin.
    Peer {
        from: NodeId,
        messages: Vec<Bytes>,
        /// Told what is wrong with them; the stream then ends.
        fault: mpsc::Sender<Status>,
    },
    /// A state from another origin.
    Snapshot {
        from: NodeId,
        message: Bytes,
        contents: Bytes,
        answer: oneshot::Sender<Result<(), Status>>,
    },
    /// An edge attaches; what it is told goes to the queue.
    Attach { attach: AttachId, queue: Queue },
    /// Messages of an edge.
    Edge {
        attach: AttachId,
        messages: Vec<Bytes>,
    },
    /// An edge's stream has ended.
    Detach { attach: AttachId },
    /// Somebody asks how the member stands.
    Status {
        /// A walk through the state is wanted as well.
        digest: bool,
        answer: oneshot::Sender<v1::ClusterStatus>,
    },
    /// Somebody asks who publishes what, up to so many streams.
    Streams {
        max: usize,
        answer: oneshot::Sender<Vec<(StreamKey, StreamState)>>,
    },
    /// Somebody changes the cluster.
    Change {
        change: Change,
        answer: oneshot::Sender<Result<Changed, Refused>>,
    },
    /// The process is about to end.
    Leave,
}

/// A change of the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add(v1::AddRequest),
    Remove(v1::RemoveRequest),
    Transfer(Option<NodeId>),
}

/// What became of a change.
#[derive(Clone, Debug)]
pub(crate) enum Changed {
    Added(v1::AddReply),
    Removed(v1::RemoveReply),
    /// Another was asked to lead.
    Asked,
}

/// Why a change is not made here.
#[derive(Debug)]
pub(crate) enum Refused {
    /// That one leads.
    Leads(NodeId),
    /// For good, or for now.
    Status(Status),
}

/// How far the member is.
#[derive(Clone)]
pub(crate) enum Stage {
    /// Its log is being read.
    Starting,
    /// It has an empty folder, and looks whether there is a cluster.
    Blank {
        node: u64,
        stamp: u64,
        founders: Vec<v1::Member>,
        /// For what, for people.
        waiting: String,
    },
    /// It was removed.
    Removed {
        node: NodeId,
        stamp: u64,
        /// What it does about that, for people.
        then: String,
    },
    /// It takes part.
    Running {
        node: NodeId,
        stamp: u64,
        inputs: mpsc::Sender<Input>,
    },
}

/// See the [module](self). Clones are the same desk.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Inner>);

struct Inner {
    name: String,
    address: String,
    cluster: u64,
    stage: watch::Sender<Stage>,
    attachments: AtomicU64,
    book: Book,
    dial: Dial,
}

impl Desk {
    pub(crate) fn new(name: String, address: String, cluster: u64, book: Book, dial: Dial) -> Self {
        Self(Arc::new(Inner {
            name,
            address,
            cluster,
            stage: watch::Sender::new(Stage::Starting),
            attachments: AtomicU64::new(1),
            book,
            dial,
        }))
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.0.stage.send_replace(stage);
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.0.cluster
    }

    pub(crate) fn book(&self) -> &Book {
        &self.0.book
    }

    pub(crate) fn dial(&self) -> &Dial {
        &self.0.dial
    }

    /// A number that no attachment had.
    pub(crate) fn attach_id(&self) -> AttachId {
        AttachId(self.0.attachments.fetch_add(1, Ordering::Relaxed))
    }

    /// The member's number and its inputs.
    pub(crate) fn running(&self) -> Result<(NodeId, mpsc::Sender<Input>), Status> {
        match &*self.0.stage.borrow() {
            Stage::Running { node, inputs, .. } => Ok((*node, inputs.clone())),
            Stage::Starting | Stage::Blank { .. } => Err(Status::unavailable(
                "this origin does not take part in the cluster yet",
            )),
            Stage::Removed { .. } => Err(Status::unavailable(
                "this origin was removed from the cluster",
            )),
        }
    }

    /// Hands in an input.
    pub(crate) async fn give(&self, input: Input) -> Result<(), Status> {
        let (_, inputs) = self.running()?;
        inputs.send(input).await.map_err(|_| gone())
    }

    /// How the member stands, with a digest of its state if that is wanted.
    pub(crate) async fn status(&self, digest: bool) -> Result<v1::ClusterStatus, Status> {
        let mut status = v1::ClusterStatus {
            name: self.0.name.clone(),
            cluster: self.0.cluster,
            ..v1::ClusterStatus::default()
        };
        let stage = self.0.stage.borrow().clone();
        match stage {
            Stage::Starting => return Err(Status::unavailable("this origin starts")),
            Stage::Blank {
                node,
                stamp,
                founders,
                waiting,
            } => {
                status.node = node;
                status.stamp = stamp;
                status.members = founders;
                status.blank = true;
                status.waiting = waiting;
            }
            Stage::Removed { node, stamp, then } => {
                status.node = node.0.get();
                status.stamp = stamp;
                status.removed = true;
                status.waiting = then;
            }
            Stage::Running { stamp, inputs, .. } => {
                let (answer, told) = oneshot::channel();
                inputs
                    .send(Input::Status { digest, answer })
                    .await
                    .map_err(|_| gone())?;
                let said = told.await.map_err(|_| gone())?;
                status = v1::ClusterStatus {
                    name: status.name,
                    cluster: status.cluster,
                    stamp,
                    ..said
                };
            }
        }
        Ok(status)
    }

    /// Who publishes what, up to so many streams in the order of their names.
    pub(crate) async fn streams(
        &self,
        max: usize,
    ) -> Result<Vec<(StreamKey, StreamState)>, Status> {
        let (answer, told) = oneshot::channel();
        self.give(Input::Streams { max, answer }).await?;
        told.await.map_err(|_| gone())
    }

    /// Changes the cluster, if this origin leads it.
    pub(crate) async fn change(&self, change: Change) -> Result<Changed, Refused> {
        let (answer, told) = oneshot::channel();
        self.give(Input::Change { change, answer })
            .await
            .map_err(Refused::Status)?;
        told.await.map_err(|_| Refused::Status(gone()))?
    }
}

pub(crate) fn gone() -> Status {
    Status::unavailable("this origin is leaving")
}
