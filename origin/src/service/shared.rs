//! The replicated state for edges: each attachment is a stream in, which is handed to the
//! member, and a queue out.

use std::pin::Pin;

use fabric::limits::LEDGER_MESSAGES_MAX;
use fabric::v1::shared_server::{Shared, SharedServer};
use fabric::v1::{ToLedger, ToReplica};
use fabric::{GRPC_MESSAGE_MAX, LinkError};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::limits::{ATTACHMENT_BYTES, ATTACHMENT_MESSAGES};
use crate::raft::{Desk, End, Input, Queue};

/// Serves attachments.
#[derive(Clone)]
pub(crate) struct Service {
    desk: Desk,
}

impl Service {
    pub(crate) fn server(desk: Desk) -> SharedServer<Self> {
        SharedServer::new(Self { desk })
            .max_decoding_message_size(GRPC_MESSAGE_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_MAX)
    }
}

/// Detaches the edge when its stream is dropped, from whichever side.
struct Attachment {
    queue: Queue,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.queue.end(End::Finished);
    }
}

#[tonic::async_trait]
impl Shared for Service {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ToReplica, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<ToLedger>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let attach = self.desk.attach_id();
        let queue = Queue::new(ATTACHMENT_BYTES, ATTACHMENT_MESSAGES);
        let given = Input::Attach {
            attach,
            queue: queue.clone(),
        };
        self.desk.give(given).await?;
        tracing::debug!(attach = attach.0, "edge attaches");
        let (desk, mut incoming, reading) =
            (self.desk.clone(), request.into_inner(), queue.clone());
        tokio::spawn(async move {
            let end = tokio::select! {
                end = read(&desk, attach, &mut incoming) => end,
                () = reading.ended() => End::Finished,
            };
            reading.end(end);
            // Nobody listens when this origin ends.
            let _ = desk.give(Input::Detach { attach }).await;
        });
        let attachment = Attachment { queue };
        let messages = futures_util::stream::unfold(attachment, |attachment| async {
            let next = attachment.queue.next().await?;
            Some((next.map(|messages| ToReplica { messages }), attachment))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

async fn read(
    desk: &Desk,
    attach: ledger::watchers::AttachId,
    incoming: &mut Streaming<ToLedger>,
) -> End {
    loop {
        let messages = match incoming.message().await {
            Ok(Some(batch)) => batch.messages,
            Ok(None) | Err(_) => return End::Finished,
        };
        if messages.len() > LEDGER_MESSAGES_MAX {
            let text = format!("{} messages in one batch", messages.len());
            return End::Broken(LinkError::LimitExceeded(text).into());
        }
        if let Err(status) = desk.give(Input::Edge { attach, messages }).await {
            return End::Broken(status);
        }
    }
}
