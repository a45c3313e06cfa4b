//! One link to one origin: the gRPC stream that carries all media of the pair.
//!
//! A link task dials, greets, and then runs two loops side by side: commands of the
//! edge go out in batches of whatever is ready, and what the origin says goes to the
//! channel or the publisher it concerns. When the stream breaks the task says so and
//! dials again, with a delay that grows; every incarnation of the stream is a new
//! [`LinkHandle`], so nothing meant for the old one can reach the new.

mod dialling;
mod traffic;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fabric::v1::{self, media_client::MediaClient, to_edge, to_origin};
use model::{EdgeId, Epoch, OriginId, StreamKey};
use node::link::Address;
use node::metrics::Calls;
use node::process::{Failure, chain};
use node::resolve::Addresses;
use node::telemetry::{Phase, SpanPlace};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, debug, info, info_span, warn};

pub(crate) use self::dialling::Dialling;
use crate::channel::{Channel, ChannelId};
use crate::follow::Leaving;
use crate::shard::{PublicationId, ShardHandle};

/// Names one incarnation of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub u64);

/// The way to a connected origin.
#[derive(Clone, Debug)]
pub(crate) struct LinkHandle {
    id: LinkId,
    commands: mpsc::UnboundedSender<Command>,
    next_wire_id: Arc<AtomicU32>,
}

impl LinkHandle {
    /// Which incarnation.
    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    /// A number for a new publication or subscription on this link.
    pub(crate) fn wire_id(&self) -> u32 {
        self.next_wire_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues a command. Frames are bounded by their publication's credit, everything
    /// else by the number of streams a node may hold. A link that has broken drops it:
    /// the upstream task learns of the break on its own.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

/// What the edge tells an origin.
#[derive(Debug)]
pub(crate) enum Command {
    /// Ask for the right to publish.
    Publish {
        /// The number on the link.
        id: u32,
        /// Who asks.
        publication: PublicationId,
        /// The shard that holds the publisher.
        shard: ShardHandle,
        /// What.
        key: StreamKey,
        /// The epoch that the ledger granted, and the next frame number.
        resume: (Epoch, u64),
        /// The epoch from which on it is one stream to its viewers.
        began: Epoch,
        /// The span of the origin that held it before.
        follows: Option<SpanPlace>,
        /// From the question to the answer.
        phase: Phase,
    },
    /// Frames of a granted publication.
    Frames {
        /// Already in wire form, ids set.
        frames: Vec<v1::Frame>,
        /// When the oldest of them was read: microseconds since 1970.
        ingest_micros: u64,
        /// Those among them that are traced.
        traced: Vec<Leaving>,
    },
    /// The publication is over, or goes on elsewhere.
    Unpublish {
        /// The number on the link.
        id: u32,
        /// It goes on elsewhere.
        moved: bool,
    },
    /// Ask for a stream.
    Subscribe {
        /// The number on the link.
        id: u32,
        /// Where its frames go.
        channel: Arc<Channel>,
        /// From the question to what the origin says of the stream.
        phase: Phase,
    },
    /// Let go of a stream.
    Unsubscribe {
        /// The number on the link.
        id: u32,
    },
    /// Give back bytes of a subscription.
    Credit {
        /// The number on the link.
        id: u32,
        /// How many.
        bytes: u64,
    },
    /// Say how much the edge has to do.
    Load(v1::Load),
}

/// What a link tells the upstream task.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The origin answered.
    Up {
        /// The way to it.
        link: LinkHandle,
        /// Who it is.
        origin: OriginId,
    },
    /// This incarnation is gone.
    Down {
        /// Which.
        link: LinkId,
    },
    /// The origin leaves: give it nothing more.
    Draining {
        /// Which.
        link: LinkId,
    },
    /// A publication is granted.
    Granted {
        /// By whom.
        link: LinkId,
        /// The number there.
        id: u32,
        /// Which.
        publication: PublicationId,
        /// The origin's span for it.
        span: Option<SpanPlace>,
    },
    /// A publication is refused.
    Refused {
        /// By whom.
        link: LinkId,
        /// The number there.
        id: u32,
        /// Which.
        publication: PublicationId,
        /// Why.
        reason: v1::refused::Reason,
    },
    /// A granted publication is over by the origin's decision.
    Ended {
        /// By whom.
        link: LinkId,
        /// The number there.
        id: u32,
        /// Which.
        publication: PublicationId,
        /// Why.
        reason: v1::refused::Reason,
    },
    /// A subscription's stream is not, or no longer, published at this origin.
    Vacant {
        /// By whom.
        link: LinkId,
        /// Which.
        channel: ChannelId,
        /// Whose end it is: what the origin had said to be published.
        epoch: Epoch,
        /// How.
        how: Vacancy,
    },
}

/// Why a subscription brings nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vacancy {
    /// Not published here (yet).
    Waiting,
    /// The publisher left.
    Unpublished,
    /// The publisher goes on at another origin.
    Moved,
    /// The origin does not take the subscription.
    Refused,
}

/// How a link behaves.
#[derive(Clone, Debug)]
pub(crate) struct LinkSetup {
    /// This edge.
    pub(crate) edge: EdgeId,
    /// Drawn once per process.
    pub(crate) incarnation: u64,
    /// Windows, timeouts.
    pub(crate) settings: node::link::Settings,
    /// What origins are shown, and whom this edge trusts.
    pub(crate) tls: Option<node::link::ClientTls>,
    /// How long calls take.
    pub(crate) calls: Calls,
    /// How much the edge has to do.
    pub(crate) load: watch::Receiver<v1::Load>,
}

/// The first and the longest pause between two attempts to dial.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// An origin that accepts the stream but does not greet within this is not one.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(3);

/// gRPC messages queued in front of HTTP/2. Short, or latency hides here.
const OUT_QUEUE: usize = 8;

/// Commands taken at once.
const COMMAND_BATCH: usize = 256;

/// Keeps a link to one address up until the future is dropped, or until the link is down
/// and nobody wants the address any more.
pub(crate) async fn keep(
    setup: LinkSetup,
    address: Address,
    wanted: watch::Receiver<Addresses>,
    ids: Arc<std::sync::atomic::AtomicU64>,
    events: mpsc::UnboundedSender<LinkEvent>,
) {
    let mut pause = BACKOFF.0;
    let mut said = String::new();
    loop {
        match run(&setup, &address, &ids, &events).await {
            // It was up: the next attempt is worth making at once.
            Ok(()) => {
                pause = BACKOFF.0;
                said.clear();
            }
            Err(error) => {
                let error = chain(&*error);
                // The same reason again and again is said once.
                if error == said {
                    debug!(origin = %address, error, "still no link to origin");
                } else {
                    warn!(origin = %address, error, "no link to origin");
                    said = error;
                }
            }
        }
        if events.is_closed() || !wanted.borrow().contains(&address) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// One incarnation, from dialling to the end of the stream. `Ok` when it had been up.
async fn run(
    setup: &LinkSetup,
    address: &Address,
    ids: &std::sync::atomic::AtomicU64,
    events: &mpsc::UnboundedSender<LinkEvent>,
) -> Result<(), Failure> {
    let channel = node::link::dial(address, &setup.settings, setup.tls.as_ref()).await?;
    let mut client = MediaClient::new(setup.calls.timed(channel))
        .max_decoding_message_size(fabric::GRPC_MESSAGE_MAX)
        .max_encoding_message_size(fabric::GRPC_MESSAGE_MAX);

    let (out, outgoing) = mpsc::channel(OUT_QUEUE);
    out.send(v1::ToOrigin {
        body: Some(to_origin::Body::Hello(v1::Hello {
            edge: setup.edge.to_string(),
            incarnation: setup.incarnation,
        })),
    })
    .await?;
    let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
    // From the dialling to the greeting: a link that stands is no span.
    let span = info_span!("fabric.link", otel.kind = "client", edge = %setup.edge, %address);
    span.in_scope(|| node::telemetry::inject(request.metadata_mut()));
    let greeted = tokio::time::timeout(WELCOME_TIMEOUT, async {
        let mut incoming = client.link(request).await?.into_inner();
        let first = incoming.message().await?.and_then(|m| m.body);
        let Some(to_edge::Body::Welcome(welcome)) = first else {
            return Err(Failure::from("the origin did not greet"));
        };
        Ok((OriginId::new(&welcome.origin)?, incoming))
    });
    let greeted = greeted.instrument(span).await;
    let (origin, mut incoming) = greeted.map_err(|_| "the origin did not greet in time")??;

    let (commands, mut inbox) = mpsc::unbounded_channel();
    let link = LinkHandle {
        id: LinkId(ids.fetch_add(1, Ordering::Relaxed)),
        commands: commands.clone(),
        next_wire_id: Arc::new(AtomicU32::new(1)),
    };
    let id = link.id;
    info!(%origin, %address, "link to origin is up");
    events.send(LinkEvent::Up {
        link,
        origin: origin.clone(),
    })?;

    let routes = Mutex::new(traffic::Routes::default());
    let ends = traffic::Ends {
        edge: setup.edge.clone(),
        origin: origin.clone(),
    };
    let outcome = tokio::select! {
        outcome = traffic::write(&mut inbox, &out, &routes, &commands, &ends) => outcome,
        () = report(setup.load.clone(), &commands) => Ok(()),
        outcome = traffic::read(&mut incoming, &routes, (id, &ends), &commands, events) => outcome,
    };
    match outcome {
        Ok(()) => info!(%origin, "origin closed the link"),
        Err(error) => warn!(%origin, error = %chain(&*error), "link to origin broke"),
    }
    events.send(LinkEvent::Down { link: id })?;
    Ok(())
}

/// Says how much the edge has to do, now and at every change.
async fn report(mut load: watch::Receiver<v1::Load>, commands: &mpsc::UnboundedSender<Command>) {
    load.mark_changed();
    while load.changed().await.is_ok() {
        let now = *load.borrow_and_update();
        if commands.send(Command::Load(now)).is_err() {
            break;
        }
    }
    // The edge ends, and its links with it.
    std::future::pending::<()>().await;
}

/// The right to publish, as an uplink holds it.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// The way to the origin.
    pub(crate) link: LinkHandle,
    /// The publication's number on it.
    pub(crate) wire_id: u32,
    /// The publish's incarnation.
    pub(crate) epoch: Epoch,
    /// The first frame number the origin lacks; 0 when it has nothing.
    pub(crate) next: u64,
    /// Bytes that may be under way.
    pub(crate) credit: u64,
}

impl Grant {
    /// Gives it back unused: the publisher has left meanwhile, or has moved on to another
    /// origin or another incarnation.
    pub(crate) fn decline(self, moved: bool) {
        self.link.send(Command::Unpublish {
            id: self.wire_id,
            moved,
        });
    }
}
