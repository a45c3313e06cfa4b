//! One link to one origin: the gRPC stream that carries all media of the pair.
//!
//! A link task dials, greets, and then runs two loops side by side: commands of the
//! edge go out in batches of whatever is ready, and what the origin says goes to the
//! channel or the publisher it concerns. When the stream breaks the task says so and
//! dials again, with a delay that grows; every incarnation of the stream is a new
//! [`LinkHandle`], so nothing meant for the old one can reach the new.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fabric::convert::owned;
use fabric::v1::{self, media_client::MediaClient, to_edge, to_origin};
use fabric::{Arrival, Owed};
use model::{EdgeId, Epoch, OriginId, Position, Sequenced, StreamKey};
use node::link::Address;
use node::process::{Failure, chain};
use node::resolve::Addresses;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, info, info_span, warn};

use crate::channel::{Channel, ChannelId, Item};
use crate::shard::{PublicationId, ShardHandle, ToShard};

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
        /// Set when it carries on an earlier grant: the epoch and the next frame number.
        resume: Option<(Epoch, u64)>,
        /// Trace context of the publisher's span.
        traceparent: String,
    },
    /// Frames of a granted publication.
    Frames {
        /// Already in wire form, ids set.
        frames: Vec<v1::Frame>,
        /// When the oldest of them was read: microseconds since 1970.
        ingest_micros: u64,
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
        /// Trace context of the channel's span.
        traceparent: String,
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
        /// Which.
        publication: PublicationId,
    },
    /// A publication is refused.
    Refused {
        /// By whom.
        link: LinkId,
        /// Which.
        publication: PublicationId,
        /// Why.
        reason: v1::refused::Reason,
    },
    /// A granted publication is over by the origin's decision.
    Ended {
        /// By whom.
        link: LinkId,
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
    loop {
        match run(&setup, &address, &ids, &events).await {
            // It was up: the next attempt is worth making at once.
            Ok(()) => pause = BACKOFF.0,
            Err(error) => {
                debug!(origin = %address, error = %chain(&*error), "no link to origin");
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
    let channel = node::link::dial(address, &setup.settings, None).await?;
    let mut client = MediaClient::new(channel)
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
    // Lives as long as the stream: what happens on it has a place in a trace.
    let span = info_span!("fabric.link", edge = %setup.edge, %address);
    span.in_scope(|| node::telemetry::inject(request.metadata_mut()));
    let (origin, mut incoming) = tokio::time::timeout(WELCOME_TIMEOUT, async {
        let mut incoming = client.link(request).await?.into_inner();
        let first = incoming.message().await?.and_then(|m| m.body);
        let Some(to_edge::Body::Welcome(welcome)) = first else {
            return Err(Failure::from("the origin did not greet"));
        };
        Ok((OriginId::new(&welcome.origin)?, incoming))
    })
    .await
    .map_err(|_| "the origin did not greet in time")??;

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

    let routes = Mutex::new(Routes::default());
    let outcome = tokio::select! {
        outcome = write(&mut inbox, &out, &routes, &commands) => outcome,
        outcome = read(&mut incoming, &routes, id, &commands, events) => outcome,
    };
    match outcome {
        Ok(()) => info!(%origin, "origin closed the link"),
        Err(error) => warn!(%origin, error = %chain(&*error), "link to origin broke"),
    }
    events.send(LinkEvent::Down { link: id })?;
    Ok(())
}

/// Who is behind the numbers of this incarnation.
#[derive(Default)]
struct Routes {
    publications: HashMap<u32, (PublicationId, ShardHandle)>,
    subscriptions: HashMap<u32, Subscription>,
}

struct Subscription {
    channel: Arc<Channel>,
    /// What the origin said last; the numbers of the frames that follow belong to it.
    epoch: Epoch,
    debt: Arc<Debt>,
}

fn lock(routes: &Mutex<Routes>) -> std::sync::MutexGuard<'_, Routes> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends commands, joining the frames that are ready into one message.
async fn write(
    inbox: &mut mpsc::UnboundedReceiver<Command>,
    out: &mpsc::Sender<v1::ToOrigin>,
    routes: &Mutex<Routes>,
    commands: &mpsc::UnboundedSender<Command>,
) -> Result<(), Failure> {
    let mut ready = Vec::with_capacity(COMMAND_BATCH);
    loop {
        if inbox.recv_many(&mut ready, COMMAND_BATCH).await == 0 {
            return Ok(());
        }
        let mut batch = v1::Frames::default();
        let mut batch_bytes = 0;
        for command in ready.drain(..) {
            let body = match command {
                Command::Frames {
                    mut frames,
                    ingest_micros,
                } => {
                    if batch.frames.is_empty() {
                        batch.ingest_micros = ingest_micros;
                    }
                    batch_bytes += frames.iter().map(|f| f.payload.len()).sum::<usize>();
                    batch.frames.append(&mut frames);
                    if batch_bytes < fabric::BATCH_BYTES
                        && batch.frames.len() < fabric::BATCH_FRAMES_MAX
                    {
                        continue;
                    }
                    batch_bytes = 0;
                    to_origin::Body::Frames(std::mem::take(&mut batch))
                }
                other @ (Command::Publish { .. }
                | Command::Unpublish { .. }
                | Command::Subscribe { .. }
                | Command::Unsubscribe { .. }
                | Command::Credit { .. }) => {
                    // Whatever is behind frames stays behind them.
                    if !batch.frames.is_empty() {
                        batch_bytes = 0;
                        let body = to_origin::Body::Frames(std::mem::take(&mut batch));
                        out.send(v1::ToOrigin { body: Some(body) }).await?;
                    }
                    control(other, routes, commands)
                }
            };
            out.send(v1::ToOrigin { body: Some(body) }).await?;
        }
        if !batch.frames.is_empty() {
            let body = to_origin::Body::Frames(batch);
            out.send(v1::ToOrigin { body: Some(body) }).await?;
        }
    }
}

/// A command that is not frames, in wire form; registers who is behind its number.
fn control(
    command: Command,
    routes: &Mutex<Routes>,
    commands: &mpsc::UnboundedSender<Command>,
) -> to_origin::Body {
    match command {
        Command::Publish {
            id,
            publication,
            shard,
            key,
            resume,
            traceparent,
        } => {
            lock(routes).publications.insert(id, (publication, shard));
            to_origin::Body::Publish(v1::Publish {
                id,
                key: Some((&key).into()),
                resume: resume.map(|(epoch, next)| v1::Resume {
                    epoch: epoch.0,
                    next,
                }),
                traceparent,
            })
        }
        Command::Unpublish { id, moved } => {
            lock(routes).publications.remove(&id);
            to_origin::Body::Unpublish(v1::Unpublish { id, moved })
        }
        Command::Subscribe {
            id,
            channel,
            traceparent,
        } => {
            let resume = channel.resume();
            let key = Some(channel.key().into());
            let subscription = Subscription {
                channel,
                epoch: Epoch::default(),
                debt: Arc::new(Debt::new(id, commands.clone())),
            };
            lock(routes).subscriptions.insert(id, subscription);
            to_origin::Body::Subscribe(v1::Subscribe {
                id,
                key,
                credit: fabric::LINK_CREDIT,
                resume: resume.map(|at| v1::Resume {
                    epoch: at.epoch.0,
                    next: at.seq.saturating_add(1),
                }),
                traceparent,
            })
        }
        Command::Unsubscribe { id } => {
            lock(routes).subscriptions.remove(&id);
            to_origin::Body::Unsubscribe(v1::Unsubscribe { id })
        }
        Command::Credit { id, bytes } => to_origin::Body::Credit(v1::Credit { id, bytes }),
        Command::Frames {
            frames,
            ingest_micros,
        } => to_origin::Body::Frames(v1::Frames {
            frames,
            ingest_micros,
        }),
    }
}

/// Hands on what the origin says.
async fn read(
    incoming: &mut tonic::Streaming<v1::ToEdge>,
    routes: &Mutex<Routes>,
    link: LinkId,
    commands: &mpsc::UnboundedSender<Command>,
    events: &mpsc::UnboundedSender<LinkEvent>,
) -> Result<(), Failure> {
    while let Some(message) = incoming.message().await? {
        match message.body {
            Some(to_edge::Body::Frames(frames)) => deliver(frames, routes)?,
            Some(to_edge::Body::Credit(v1::Credit { id, bytes })) => {
                if let Some((publication, shard)) = lock(routes).publications.get(&id) {
                    shard.send(ToShard::Credit {
                        publication: *publication,
                        link,
                        bytes,
                    });
                }
            }
            Some(to_edge::Body::Granted(v1::Granted {
                id,
                epoch,
                next,
                credit,
            })) => {
                let route = lock(routes).publications.get(&id).cloned();
                if let Some((publication, shard)) = route {
                    shard.send(ToShard::Granted {
                        publication,
                        grant: Grant {
                            link: LinkHandle {
                                id: link,
                                commands: commands.clone(),
                                next_wire_id: Arc::default(),
                            },
                            wire_id: id,
                            epoch: Epoch(epoch),
                            next,
                            credit,
                        },
                    });
                    events.send(LinkEvent::Granted { link, publication })?;
                }
            }
            Some(to_edge::Body::Refused(refused)) => {
                let reason = refused.reason();
                if let Some((publication, _)) = lock(routes).publications.remove(&refused.id) {
                    events.send(LinkEvent::Refused {
                        link,
                        publication,
                        reason,
                    })?;
                }
            }
            Some(to_edge::Body::Ended(ended)) => {
                let reason = ended.reason();
                if let Some((publication, _)) = lock(routes).publications.remove(&ended.id) {
                    events.send(LinkEvent::Ended {
                        link,
                        publication,
                        reason,
                    })?;
                }
            }
            Some(to_edge::Body::Source(source)) => {
                let mut routes = lock(routes);
                if let Some(subscription) = routes.subscriptions.get_mut(&source.id) {
                    let channel = &subscription.channel;
                    let how = match source.state() {
                        v1::source::State::Published => {
                            subscription.epoch = Epoch(source.epoch);
                            channel.published(subscription.epoch);
                            continue;
                        }
                        v1::source::State::Waiting => Vacancy::Waiting,
                        v1::source::State::Unpublished => Vacancy::Unpublished,
                        v1::source::State::Moved => Vacancy::Moved,
                        v1::source::State::Refused => Vacancy::Refused,
                        v1::source::State::Unspecified => continue,
                    };
                    let (channel, epoch) = (channel.id(), subscription.epoch);
                    if how == Vacancy::Refused {
                        routes.subscriptions.remove(&source.id);
                    }
                    events.send(LinkEvent::Vacant {
                        link,
                        channel,
                        epoch,
                        how,
                    })?;
                }
            }
            Some(to_edge::Body::Draining(v1::Draining {})) => {
                events.send(LinkEvent::Draining { link })?;
            }
            // A second greeting, or a message of a newer origin: nothing depends on it.
            Some(to_edge::Body::Welcome(_)) | None => {}
        }
    }
    Ok(())
}

/// Splits a batch by subscription and hands each part to its channel.
fn deliver(frames: v1::Frames, routes: &Mutex<Routes>) -> Result<(), Failure> {
    // The frames of one subscription lie together, as the origin drains them.
    let mut frames = frames.frames.into_iter().peekable();
    while let Some(id) = frames.peek().map(|frame| frame.id) {
        let route = lock(routes)
            .subscriptions
            .get(&id)
            .map(|s| (s.channel.clone(), s.epoch, s.debt.clone()));
        let mut items = Vec::new();
        let mut bytes = 0;
        while let Some(wire) = frames.next_if(|frame| frame.id == id) {
            bytes += wire.payload.len();
            let epoch = route
                .as_ref()
                .map_or(Epoch::default(), |(_, epoch, _)| *epoch);
            items.push(match fabric::convert::arrival(wire)? {
                Arrival::InForce { seq, frame } => {
                    Item::InForce(Position { epoch, seq }, owned(frame))
                }
                Arrival::Numbered { seq, frame } => Item::Frame(Sequenced {
                    at: Position { epoch, seq },
                    frame: owned(frame),
                }),
            });
        }
        // What comes for a subscription that we let go has no taker.
        if let Some((channel, _, debt)) = route {
            debt.receive(bytes)?;
            let credit: Arc<dyn Send + Sync> = Arc::new(Returned { bytes, debt });
            channel.push(items, &credit);
        }
    }
    Ok(())
}

/// What a subscription has sent and has not got back.
struct Debt {
    id: u32,
    commands: mpsc::UnboundedSender<Command>,
    state: Mutex<(u64, Owed)>,
}

impl Debt {
    fn new(id: u32, commands: mpsc::UnboundedSender<Command>) -> Self {
        Self {
            id,
            commands,
            state: Mutex::new((0, Owed::new(fabric::LINK_CREDIT))),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (u64, Owed)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes arrived. This is the bound on what waits for the shards.
    fn receive(&self, bytes: usize) -> Result<(), Failure> {
        let mut state = self.state();
        state.0 += bytes as u64;
        if state.0 > OUTSTANDING_MAX {
            return Err("the origin sends more than it has credit for".into());
        }
        Ok(())
    }

    /// The shards have taken bytes.
    fn taken(&self, bytes: usize) {
        let mut state = self.state();
        state.0 -= bytes as u64;
        // Its own check is against more than has arrived, which was made above.
        let _ = state.1.receive(bytes);
        if let Some(bytes) = state.1.take_due() {
            let _ = self.commands.send(Command::Credit { id: self.id, bytes });
        }
    }
}

/// What an honest origin can have under way: its credit, the frame that crosses it, and
/// what we keep back until a quarter of the credit is due.
const OUTSTANDING_MAX: u64 = 2 * fabric::LINK_CREDIT + fabric::limits::FRAME_PAYLOAD_MAX as u64;

/// Bytes that are given back to the origin when the last shard has taken them.
struct Returned {
    bytes: usize,
    debt: Arc<Debt>,
}

impl Drop for Returned {
    fn drop(&mut self) {
        self.debt.taken(self.bytes);
    }
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
    /// Gives the right back unused: the publisher has left meanwhile.
    pub(crate) fn decline(self) {
        self.link.send(Command::Unpublish {
            id: self.wire_id,
            moved: false,
        });
    }
}
