//! The media link: one task reads what the edge says, and the response stream is written
//! from the streams' backlogs when the transport has room.

mod session;
mod writer;

use std::pin::Pin;
use std::sync::Arc;

use fabric::v1::media_server::{Media, MediaServer};
use fabric::v1::{ToEdge, ToOrigin};
use fabric::{GRPC_MESSAGE_MAX, LinkError};
use model::OriginId;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use crate::hub::Hub;
use crate::limits::HELLO_TIMEOUT;
use crate::outbox::{End, Outbox};
use session::Session;
use writer::Writer;

/// Serves links.
#[derive(Clone)]
pub struct Service {
    id: OriginId,
    hub: Arc<Hub>,
}

impl Service {
    /// The gRPC service of the origin `id`.
    #[must_use]
    pub fn server(id: OriginId, hub: Arc<Hub>) -> MediaServer<Self> {
        MediaServer::new(Self { id, hub })
            .max_decoding_message_size(GRPC_MESSAGE_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_MAX)
    }
}

#[tonic::async_trait]
impl Media for Service {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<ToEdge, Status>> + Send>>;

    async fn link(
        &self,
        request: Request<Streaming<ToOrigin>>,
    ) -> Result<Response<Self::LinkStream>, Status> {
        let outbox = Arc::new(Outbox::new(self.hub.limits().control_per_link));
        let link = self
            .hub
            .connect(Arc::clone(&outbox))
            .map_err(Status::from)?;
        let span = tracing::info_span!(target: node::telemetry::UNTRACED, "link", link = link.0, edge = tracing::field::Empty);
        let session = Session::new(self.id.clone(), Arc::clone(&self.hub), link, outbox.clone());
        // The task ends with the link: the writer's end, whoever drops it, is the outbox's.
        tokio::spawn(read(session, Arc::clone(&outbox), request.into_inner()).instrument(span));
        let writer = Writer::new(self.id.clone(), Arc::clone(&self.hub), link, outbox);
        Ok(Response::new(Box::pin(writer.into_stream())))
    }
}

/// Reads until either side ends the link, then gives back what it held.
async fn read(mut session: Session, outbox: Arc<Outbox>, mut incoming: Streaming<ToOrigin>) {
    let how = tokio::select! {
        biased;
        () = outbox.ended() => outbox.how().unwrap_or(End::Closed),
        how = converse(&mut session, &mut incoming) => how,
    };
    match &how {
        End::Closed => tracing::info!("link closed"),
        End::Broken(status) => tracing::info!(%status, "link broke"),
        End::Error(LinkError::Leaving) => tracing::info!("link closed, this origin is leaving"),
        End::Error(error) => {
            session.hub().counters().links_faulted.add(1);
            tracing::warn!(%error, "link ended because of what the edge did");
        }
    }
    outbox.end(how);
    let hub = Arc::clone(session.hub());
    if let Some(until) = session.close(now()) {
        // The names wait for their publishers; somebody must look when the wait is over.
        let hub = Arc::downgrade(&hub);
        tokio::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            if let Some(hub) = hub.upgrade() {
                hub.expire(until);
            }
        });
    }
}

async fn converse(session: &mut Session, incoming: &mut Streaming<ToOrigin>) -> End {
    let Ok(mut message) = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()).await else {
        let text = format!("no Hello within {} s", HELLO_TIMEOUT.as_secs());
        return End::Error(LinkError::OutOfOrder(text));
    };
    loop {
        match message {
            Ok(Some(message)) => {
                if let Err(error) = session.handle(message) {
                    return End::Error(error);
                }
            }
            Ok(None) => return End::Closed,
            Err(status) => return End::Broken(status),
        }
        message = incoming.message().await;
    }
}

/// The time as tokio sees it, which tests can stop.
fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
