//! The way to the directory of one origin: the gRPC stream on which this edge says which
//! peers it holds, asks for others, and is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fabric::limits::PEERS_ALIVE;
use fabric::v1::{self, FromDirectory, ToDirectory, peers_client::PeersClient, to_directory};
use node::link::{Address, Settings};
use node::process::{Failure, chain};
use node::resolve::Addresses;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, debug, info_span};

use super::book::LinkId;
use crate::link::LinkSetup;
use crate::route::preference;

/// A hung origin is left as soon as one that holds the log: peers must be found elsewhere.
const PING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(1));

/// The first and the longest pause between two attempts to dial. Short, because what an origin
/// does not know of cannot be found there.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// An origin that does not take the stream within this does not serve it.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(2);

/// gRPC messages queued in front of HTTP/2. A burst of seeks fits, and news go in batches.
const OUT_QUEUE: usize = 256;

/// What becomes of a link.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The origin serves the directory.
    Up {
        link: LinkId,
        /// What this edge thinks of it.
        preference: u64,
        out: mpsc::Sender<ToDirectory>,
    },
    /// It said something.
    Heard {
        link: LinkId,
        message: FromDirectory,
    },
    /// It is gone.
    Down { link: LinkId },
}

/// Keeps a link to one address up until the future is dropped, or until the link is down and
/// nobody wants the address any more.
pub(super) async fn keep(
    setup: LinkSetup,
    address: Address,
    wanted: watch::Receiver<Addresses>,
    ids: Arc<AtomicU64>,
    events: mpsc::Sender<LinkEvent>,
) {
    let mut pause = BACKOFF.0;
    loop {
        let link = LinkId(ids.fetch_add(1, Ordering::Relaxed));
        let was_up = match run(&setup, &address, link, &events).await {
            Ok(()) => true,
            Err((was_up, error)) => {
                debug!(origin = %address, error = %chain(&*error), "no directory");
                was_up
            }
        };
        if was_up {
            pause = BACKOFF.0;
            let _ = events.send(LinkEvent::Down { link }).await;
        }
        if events.is_closed() || !wanted.borrow().contains(&address) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// One life of the link. A failure tells whether it had been up.
async fn run(
    setup: &LinkSetup,
    address: &Address,
    link: LinkId,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), (bool, Failure)> {
    let before = |error: Failure| (false, error);
    let settings = Settings {
        ping_interval: PING.0,
        ping_timeout: PING.1,
        connect_timeout: ACCEPT_TIMEOUT,
        ..setup.settings.clone()
    };
    let channel = node::link::dial(address, &settings, setup.tls.as_ref())
        .await
        .map_err(|error| before(error.into()))?;
    let mut client = PeersClient::new(setup.calls.timed(channel))
        .max_decoding_message_size(fabric::GRPC_MESSAGE_MAX)
        .max_encoding_message_size(fabric::GRPC_MESSAGE_MAX);
    let (out, outgoing) = mpsc::channel(OUT_QUEUE);
    let greeting = v1::Greeting {
        edge: setup.edge.to_string(),
        incarnation: setup.incarnation,
    };
    let message = |body| ToDirectory { body: Some(body) };
    let sent = out
        .send(message(to_directory::Body::Greeting(greeting)))
        .await;
    sent.map_err(|error| before(error.into()))?;
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    let span = info_span!("fabric.peers", otel.kind = "client", edge = %setup.edge, %address);
    span.in_scope(|| node::telemetry::inject(request.metadata_mut()));
    let mut incoming = tokio::time::timeout(ACCEPT_TIMEOUT, client.keep(request))
        .instrument(span)
        .await
        .map_err(|_| before("the origin did not take the stream in time".into()))?
        .map_err(|status| before(status.into()))?
        .into_inner();
    debug!(%address, "directory is up");
    let after = |error: Failure| (true, error);
    let up = LinkEvent::Up {
        link,
        preference: preference(setup.edge.as_str(), &address.to_string()),
        out: out.clone(),
    };
    let sent = events.send(up).await;
    sent.map_err(|error| after(error.into()))?;
    let mut alive = tokio::time::interval(PEERS_ALIVE);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            heard = incoming.message() => {
                let Some(message) = heard.map_err(|status| after(status.into()))? else {
                    return Ok(());
                };
                let heard = events.send(LinkEvent::Heard { link, message }).await;
                heard.map_err(|error| after(error.into()))?;
            }
            // What waits in a full queue says as much.
            _ = alive.tick() => {
                let _ = out.try_send(message(to_directory::Body::Alive(v1::Alive {})));
            }
        }
    }
}
