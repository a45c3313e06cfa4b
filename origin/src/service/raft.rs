//! What other origins say: one stream of messages from each, and states beside them.

use bytes::BytesMut;
use fabric::GRPC_MESSAGE_MAX;
use fabric::limits::{LEDGER_MESSAGES_MAX, SNAPSHOT_BYTES_MAX, SNAPSHOT_PIECE_BYTES};
use fabric::v1::raft_server::{Raft, RaftServer};
use fabric::v1::{RaftBatch, RaftHello, RaftTaken, SnapshotPiece, SnapshotTaken};
use model::NodeId;
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

use crate::raft::{Desk, Input};

/// Serves other origins.
#[derive(Clone)]
pub(crate) struct Service {
    desk: Desk,
}

impl Service {
    pub(crate) fn server(desk: Desk) -> RaftServer<Self> {
        RaftServer::new(Self { desk })
            .max_decoding_message_size(GRPC_MESSAGE_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_MAX)
    }

    /// Who speaks, if it means this origin.
    fn meet(&self, hello: Option<&RaftHello>) -> Result<NodeId, Status> {
        let hello = hello.ok_or_else(|| Status::invalid_argument("the hello is missing"))?;
        let (me, _) = self.desk.running()?;
        let from = std::num::NonZeroU64::new(hello.from)
            .map(NodeId)
            .ok_or_else(|| Status::invalid_argument("RaftHello.from is 0"))?;
        if hello.cluster != self.desk.cluster() {
            return Err(Status::failed_precondition(format!(
                "this origin belongs to cluster {:016x}, not to {:016x}",
                self.desk.cluster(),
                hello.cluster
            )));
        }
        if hello.to != me.0.get() {
            return Err(Status::failed_precondition(format!(
                "this is node {me}, not {}",
                hello.to
            )));
        }
        if from == me {
            return Err(Status::failed_precondition(format!(
                "{} says that it is node {me}, which is this one",
                hello.name
            )));
        }
        if hello.name.len() > model::OriginId::MAX_LEN || hello.address.len() > ADDRESS_MAX {
            return Err(Status::invalid_argument("the hello is too long"));
        }
        if !hello.address.is_empty() {
            self.desk.book().heard(from, &hello.address);
        }
        Ok(from)
    }
}

/// Bytes of an address: a DNS name, a colon and a port, or the path of a socket.
const ADDRESS_MAX: usize = 512;

#[tonic::async_trait]
impl Raft for Service {
    async fn exchange(
        &self,
        request: Request<Streaming<RaftBatch>>,
    ) -> Result<Response<RaftTaken>, Status> {
        let mut incoming = request.into_inner();
        let Some(first) = incoming.message().await? else {
            return Err(Status::invalid_argument("the hello is missing"));
        };
        let from = self.meet(first.hello.as_ref())?;
        tracing::info!(%from, "stream from origin is up");
        let (fault, mut faults) = mpsc::channel(1);
        loop {
            let batch = tokio::select! {
                Some(status) = faults.recv() => return Err(status),
                batch = incoming.message() => batch?,
            };
            let Some(batch) = batch else {
                return Ok(Response::new(RaftTaken {}));
            };
            if batch.hello.is_some() || batch.messages.len() > LEDGER_MESSAGES_MAX {
                return Err(Status::invalid_argument(
                    "a second hello, or too many messages in one batch",
                ));
            }
            let messages = batch.messages;
            let fault = fault.clone();
            self.desk
                .give(Input::Peer {
                    from,
                    messages,
                    fault,
                })
                .await?;
        }
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<SnapshotTaken>, Status> {
        let mut incoming = request.into_inner();
        let head = incoming
            .message()
            .await?
            .and_then(|first| first.head)
            .ok_or_else(|| Status::invalid_argument("the head of the snapshot is missing"))?;
        let from = self.meet(head.hello.as_ref())?;
        if head.bytes > SNAPSHOT_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "a state of {} bytes, at most {SNAPSHOT_BYTES_MAX} are taken",
                head.bytes
            )));
        }
        let expected = usize::try_from(head.bytes)
            .map_err(|_| Status::resource_exhausted("the state is too large"))?;
        let mut contents = BytesMut::new();
        while let Some(piece) = incoming.message().await? {
            let crc = crc32c::crc32c(&piece.data);
            if piece.head.is_some()
                || piece.data.len() > SNAPSHOT_PIECE_BYTES
                || crc != piece.crc32c
            {
                return Err(Status::data_loss(format!(
                    "the piece at byte {} is not as it was sent",
                    contents.len()
                )));
            }
            if contents.len() + piece.data.len() > expected {
                return Err(Status::invalid_argument("more bytes than were announced"));
            }
            contents.extend_from_slice(&piece.data);
        }
        if contents.len() != expected || crc32c::crc32c(&contents) != head.crc32c {
            return Err(Status::data_loss("the state is not as it was sent"));
        }
        let (answer, told) = oneshot::channel();
        self.desk
            .give(Input::Snapshot {
                from,
                message: head.message,
                contents: contents.freeze(),
                answer,
            })
            .await?;
        told.await
            .map_err(|_| Status::unavailable("this origin is leaving"))??;
        Ok(Response::new(SnapshotTaken {}))
    }
}
