//! What travels on a link: commands out in batches of whatever is ready, and what the
//! origin says to the channel or the publisher it concerns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fabric::convert::owned;
use fabric::limits::BATCH_TRACES_MAX;
use fabric::v1::{self, to_edge, to_origin};
use fabric::{Arrival, Owed};
use model::{EdgeId, Epoch, OriginId, Position, Sequenced};
use node::process::Failure;
use node::telemetry::frames::{KeyValue, Passing, figure, wall_micros};
use node::telemetry::{Kind, Phase, SpanPlace};
use tokio::sync::mpsc;

use super::{COMMAND_BATCH, Command, Grant, LinkEvent, LinkHandle, LinkId, Vacancy};
use crate::channel::{Channel, Item};
use crate::follow::Leaving;
use crate::shard::{PublicationId, ShardHandle, ToShard};
use crate::traces::Fanout;

/// Who is behind the numbers of this incarnation.
#[derive(Default)]
pub(super) struct Routes {
    publications: HashMap<u32, (PublicationId, ShardHandle)>,
    subscriptions: HashMap<u32, Subscription>,
    /// What was asked under a number and is not answered, where anybody wants to see it.
    asked: HashMap<u32, Phase>,
}

impl Routes {
    fn ask(&mut self, id: u32, phase: Phase) {
        if phase.is_wanted() {
            self.asked.insert(id, phase);
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        for phase in self.asked.values_mut() {
            phase.fail("the link broke");
        }
    }
}

struct Subscription {
    channel: Arc<Channel>,
    /// The span of the question.
    span: Option<SpanPlace>,
    /// What the origin said last; the numbers of the frames that follow belong to it.
    epoch: Epoch,
    debt: Arc<Debt>,
}

fn lock(routes: &Mutex<Routes>) -> std::sync::MutexGuard<'_, Routes> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is at the two ends of a link.
pub(super) struct Ends {
    pub(super) edge: EdgeId,
    pub(super) origin: OriginId,
}

/// Frames that leave together.
#[derive(Default)]
struct Batch {
    frames: v1::Frames,
    bytes: usize,
    traced: Vec<Leaving>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= fabric::BATCH_BYTES || self.frames.frames.len() >= fabric::BATCH_FRAMES_MAX
    }

    /// Goes into the transport, before so many commands that wait.
    async fn leave(
        &mut self,
        out: &mpsc::Sender<v1::ToOrigin>,
        origin: &OriginId,
        waiting: usize,
    ) -> Result<(), Failure> {
        if self.frames.frames.is_empty() {
            return Ok(());
        }
        let place = out.reserve().await?;
        let Self {
            mut frames, traced, ..
        } = std::mem::take(self);
        if !traced.is_empty() {
            let now = wall_micros();
            let leaving = traced.into_iter().take(BATCH_TRACES_MAX);
            frames.traces.extend(leaving.map(|frame| {
                let passing = frame.departure.leave(now, origin, waiting);
                v1::FrameTrace {
                    id: frame.id,
                    seq: frame.seq,
                    traceparent: passing.root.text(),
                    read_micros: passing.read_micros,
                    until_micros: passing.until_micros,
                }
            }));
        }
        place.send(v1::ToOrigin {
            body: Some(to_origin::Body::Frames(frames)),
        });
        Ok(())
    }
}

/// Sends commands, joining the frames that are ready into one message.
pub(super) async fn write(
    inbox: &mut mpsc::UnboundedReceiver<Command>,
    out: &mpsc::Sender<v1::ToOrigin>,
    routes: &Mutex<Routes>,
    commands: &mpsc::UnboundedSender<Command>,
    ends: &Ends,
) -> Result<(), Failure> {
    let mut ready = Vec::with_capacity(COMMAND_BATCH);
    loop {
        if inbox.recv_many(&mut ready, COMMAND_BATCH).await == 0 {
            return Ok(());
        }
        let mut batch = Batch::default();
        let mut left = ready.len();
        for command in ready.drain(..) {
            left -= 1;
            match command {
                Command::Frames {
                    mut frames,
                    ingest_micros,
                    mut traced,
                } => {
                    if batch.frames.frames.is_empty() {
                        batch.frames.ingest_micros = ingest_micros;
                    }
                    batch.bytes += fabric::convert::payload_bytes(&frames);
                    batch.frames.frames.append(&mut frames);
                    batch.traced.append(&mut traced);
                    if batch.is_full() {
                        batch.leave(out, &ends.origin, left + inbox.len()).await?;
                    }
                }
                other @ (Command::Publish { .. }
                | Command::Unpublish { .. }
                | Command::Subscribe { .. }
                | Command::Unsubscribe { .. }
                | Command::Credit { .. }
                | Command::Load(_)) => {
                    // Whatever is behind frames stays behind them.
                    batch.leave(out, &ends.origin, left + inbox.len()).await?;
                    let body = Some(control(other, routes, commands));
                    out.send(v1::ToOrigin { body }).await?;
                }
            }
        }
        batch.leave(out, &ends.origin, inbox.len()).await?;
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
            began,
            follows,
            phase,
        } => {
            let traceparent = phase.traceparent();
            let mut routes = lock(routes);
            routes.publications.insert(id, (publication, shard));
            routes.ask(id, phase);
            to_origin::Body::Publish(v1::Publish {
                id,
                key: Some((&key).into()),
                resume: Some(v1::Resume {
                    epoch: resume.0.0,
                    next: resume.1,
                }),
                traceparent,
                began: began.0,
                follows: follows.map_or_else(String::new, |place| place.text()),
            })
        }
        Command::Unpublish { id, moved } => {
            let mut routes = lock(routes);
            routes.publications.remove(&id);
            routes.asked.remove(&id);
            to_origin::Body::Unpublish(v1::Unpublish { id, moved })
        }
        Command::Subscribe { id, channel, phase } => {
            let traceparent = phase.traceparent();
            let resume = channel.resume();
            let key = Some(channel.key().into());
            let subscription = Subscription {
                channel,
                span: phase.sampled(),
                epoch: Epoch::default(),
                debt: Arc::new(Debt::new(id, commands.clone())),
            };
            let mut routes = lock(routes);
            routes.subscriptions.insert(id, subscription);
            routes.ask(id, phase);
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
            let mut routes = lock(routes);
            routes.subscriptions.remove(&id);
            routes.asked.remove(&id);
            to_origin::Body::Unsubscribe(v1::Unsubscribe { id })
        }
        Command::Credit { id, bytes } => to_origin::Body::Credit(v1::Credit { id, bytes }),
        Command::Load(load) => to_origin::Body::Load(load),
        // Frames go by way of a batch.
        Command::Frames {
            frames,
            ingest_micros,
            traced: _,
        } => to_origin::Body::Frames(v1::Frames {
            frames,
            ingest_micros,
            traces: Vec::new(),
        }),
    }
}

/// Hands on what the origin says.
pub(super) async fn read(
    incoming: &mut tonic::Streaming<v1::ToEdge>,
    routes: &Mutex<Routes>,
    (link, ends): (LinkId, &Ends),
    commands: &mpsc::UnboundedSender<Command>,
    events: &mpsc::UnboundedSender<LinkEvent>,
) -> Result<(), Failure> {
    while let Some(message) = incoming.message().await? {
        match message.body {
            Some(to_edge::Body::Frames(frames)) => deliver(frames, routes, ends)?,
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
                traceparent,
            })) => {
                let (route, asked) = {
                    let mut routes = lock(routes);
                    let asked = routes.asked.remove(&id);
                    (routes.publications.get(&id).cloned(), asked)
                };
                if let Some(mut asked) = asked {
                    asked.count("selvage.epoch", epoch);
                    asked.count("selvage.frame.next", next);
                }
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
                    events.send(LinkEvent::Granted {
                        link,
                        id,
                        publication,
                        span: SpanPlace::parse(traceparent.as_bytes()),
                    })?;
                }
            }
            Some(to_edge::Body::Refused(refused)) => {
                let reason = refused.reason();
                let mut routes = lock(routes);
                if let Some(mut asked) = routes.asked.remove(&refused.id) {
                    asked.set("error.type", reason.as_str_name());
                    asked.fail(refused.text);
                }
                if let Some((publication, _)) = routes.publications.remove(&refused.id) {
                    events.send(LinkEvent::Refused {
                        link,
                        id: refused.id,
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
                        id: ended.id,
                        publication,
                        reason,
                    })?;
                }
            }
            Some(to_edge::Body::Source(source)) => {
                let mut routes = lock(routes);
                if let Some(mut asked) = routes.asked.remove(&source.id) {
                    asked.set("selvage.source.state", source.state().as_str_name());
                }
                if let Some(subscription) = routes.subscriptions.get_mut(&source.id) {
                    let channel = &subscription.channel;
                    let how = match source.state() {
                        v1::source::State::Published => {
                            subscription.epoch = Epoch(source.epoch);
                            let publish = SpanPlace::parse(source.traceparent.as_bytes());
                            let told = notify(&source, publish, subscription, &ends.origin);
                            let began = Epoch(source.began);
                            channel.published(subscription.epoch, began, publish, told);
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

/// A publish reaches the viewers of this edge.
fn notify(
    source: &v1::Source,
    publish: Option<SpanPlace>,
    subscription: &Subscription,
    owner: &OriginId,
) -> Option<Arc<Fanout>> {
    let mut phase = Phase::linked(
        "stream.notify",
        Kind::Consumer,
        publish,
        subscription.span.as_slice(),
    );
    phase.show("selvage.stream.key", subscription.channel.key());
    phase.count("selvage.epoch", source.epoch);
    phase.show("selvage.owner", owner);
    let resumed = subscription.channel.resume().is_some();
    phase.set("selvage.resumed", resumed);
    Fanout::new(phase, "selvage.viewers")
}

/// Splits a batch by subscription and hands each part to its channel.
fn deliver(batch: v1::Frames, routes: &Mutex<Routes>, ends: &Ends) -> Result<(), Failure> {
    let v1::Frames {
        frames,
        ingest_micros,
        traces,
    } = batch;
    let arrived = arrived(traces, frames.len(), ends);
    // The frames of one subscription lie together, as the origin drains them.
    let mut frames = frames.into_iter().peekable();
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
        if let Some((channel, epoch, debt)) = route {
            debt.receive(bytes)?;
            let credit: Arc<dyn Send + Sync> = Arc::new(Returned { bytes, debt });
            let traced = arrived.iter().filter(|(to, ..)| *to == id);
            let traced = traced.map(|(_, seq, passing)| {
                let at = Position { epoch, seq: *seq };
                (at, *passing)
            });
            channel.push(items, traced.collect(), ingest_micros, &credit);
        }
    }
    Ok(())
}

/// The traced frames of a batch that has just arrived: the subscription, the frame's number and
/// the rest.
fn arrived(traces: Vec<v1::FrameTrace>, batch: usize, ends: &Ends) -> Vec<(u32, u64, Passing)> {
    if traces.is_empty() {
        return Vec::new();
    }
    let now = wall_micros();
    let arrived = traces.into_iter().take(BATCH_TRACES_MAX);
    let arrived = arrived.filter_map(|trace| {
        let times = (trace.read_micros, trace.until_micros);
        let mut passing = Passing::received(&trace.traceparent, times, now)?;
        passing.pass(
            "frame.hop.edge",
            now,
            vec![
                KeyValue::new("selvage.owner", ends.origin.to_string()),
                KeyValue::new("selvage.edge", ends.edge.to_string()),
                figure("selvage.batch.frames", batch),
            ],
        );
        Some((trace.id, trace.seq, passing))
    });
    arrived.collect()
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
