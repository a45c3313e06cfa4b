//! What an edge says on its link, and what follows from it.
//!
//! It is synchronous: a message in, calls to the hub, answers into the outbox. Reading
//! therefore never waits for writing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use fabric::limits::{BATCH_FRAMES_TOLERATED, BATCH_TRACES_MAX};
use fabric::v1::refused::Reason;
use fabric::v1::source::State;
use fabric::v1::{self, ToOrigin, to_edge, to_origin};
use fabric::{Invalid, LinkError, Owed, convert};
use model::{EdgeId, EdgeLife, Epoch, OriginId, Position};
use node::telemetry::frames::{KeyValue, Passing, figure, wall_micros};
use node::telemetry::{Kind, Phase, SpanPlace};
use tracing::Span;

use crate::hub::{Cell, Hub, Refusal};
use crate::outbox::Outbox;
use crate::stream::{Claimed, LinkId, OnLink};

/// One link's reading half.
pub(super) struct Session {
    id: OriginId,
    hub: Arc<Hub>,
    link: LinkId,
    outbox: Arc<Outbox>,
    /// Who it is; None before its Hello.
    life: Option<EdgeLife>,
    publications: HashMap<u32, Publication>,
    subscriptions: HashMap<u32, Subscription>,
}

struct Publication {
    cell: Arc<Cell>,
    owed: Owed,
    /// From the grant to the first frame.
    first: Option<Phase>,
}

/// How a publication ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Its publisher wants no more.
    Unpublished,
    /// It goes on at another origin.
    Moved,
    /// Another has the name.
    Superseded,
    /// Nothing is heard of its edge, which may come back.
    LinkLost,
}

impl Over {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unpublished => "unpublished",
            Self::Moved => "moved",
            Self::Superseded => "superseded",
            Self::LinkLost => "link_lost",
        }
    }
}

impl Publication {
    /// Nobody waits for the first frame any more, if it did not come.
    fn end(&mut self, over: Over) {
        let Some(mut first) = self.first.take() else {
            return;
        };
        first.count("selvage.frames", 0);
        first.count("selvage.bytes", 0);
        first.set("selvage.reason", over.as_str());
        // One that goes on elsewhere may have frames there.
        if over == Over::Unpublished {
            first.set("error.type", over.as_str());
            first.fail("the publish is over, and no frame came");
        }
        first.end();
    }
}

struct Subscription {
    cell: Arc<Cell>,
}

impl Session {
    pub(super) fn new(id: OriginId, hub: Arc<Hub>, link: LinkId, outbox: Arc<Outbox>) -> Self {
        Self {
            id,
            hub,
            link,
            outbox,
            life: None,
            publications: HashMap::new(),
            subscriptions: HashMap::new(),
        }
    }

    pub(super) const fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Takes one message.
    ///
    /// # Errors
    /// What the edge did wrong. The link cannot go on.
    pub(super) fn handle(&mut self, message: ToOrigin) -> Result<(), LinkError> {
        use to_origin::Body;
        let body = message.body.ok_or(Invalid::Missing {
            field: "ToOrigin.body",
        })?;
        let Some(life) = self.life.clone() else {
            let Body::Hello(hello) = body else {
                return Err(LinkError::OutOfOrder(
                    "the first message must be Hello".into(),
                ));
            };
            return self.hello(&hello);
        };
        match body {
            Body::Hello(_) => Err(LinkError::OutOfOrder("a second Hello".into())),
            Body::Publish(publish) => self.publish(publish, life),
            Body::Frames(batch) => self.frames(batch, &life.edge),
            Body::Unpublish(unpublish) => {
                self.unpublish(&unpublish);
                Ok(())
            }
            Body::Subscribe(subscribe) => self.subscribe(subscribe),
            Body::Unsubscribe(v1::Unsubscribe { id }) => {
                if let Some(subscription) = self.subscriptions.remove(&id) {
                    self.hub
                        .unsubscribe(&subscription.cell, self.on_link(id), &self.outbox);
                }
                Ok(())
            }
            Body::Credit(v1::Credit { id, bytes }) => {
                // What is unknown was unsubscribed while the credit was under way.
                if let Some(subscription) = self.subscriptions.get(&id) {
                    self.hub.give(&subscription.cell, self.on_link(id), bytes);
                }
                Ok(())
            }
            Body::Load(load) => {
                self.hub.heard_of(self.link, &life.edge, load);
                Ok(())
            }
        }
    }

    /// The link is gone: subscriptions end, publications wait for a new link. Returns when
    /// that wait is over, if anything waits.
    pub(super) fn close(mut self, now: Instant) -> Option<Instant> {
        let mut until = None;
        for (id, mut publication) in std::mem::take(&mut self.publications) {
            publication.end(Over::LinkLost);
            let by = self.on_link(id);
            until = until.max(self.hub.link_lost(&publication.cell, by, now));
        }
        for (id, subscription) in std::mem::take(&mut self.subscriptions) {
            self.hub
                .unsubscribe(&subscription.cell, self.on_link(id), &self.outbox);
        }
        self.hub.disconnect(self.link);
        until
    }

    fn hello(&mut self, hello: &v1::Hello) -> Result<(), LinkError> {
        let edge = EdgeId::new(&hello.edge).map_err(|error| Invalid::Name {
            field: "Hello.edge",
            error,
        })?;
        Span::current().record("edge", edge.as_str());
        tracing::info!(%edge, incarnation = hello.incarnation, "link to edge is up");
        self.life = Some(EdgeLife {
            edge,
            incarnation: hello.incarnation,
        });
        self.answer(to_edge::Body::Welcome(v1::Welcome {
            origin: self.id.to_string(),
        }));
        if self.hub.is_draining() {
            self.answer(to_edge::Body::Draining(v1::Draining {}));
        }
        Ok(())
    }

    fn publish(&mut self, publish: v1::Publish, life: EdgeLife) -> Result<(), LinkError> {
        let id = publish.id;
        if self.publications.contains_key(&id) {
            return Err(LinkError::OutOfOrder(format!("Publish.id {id} is in use")));
        }
        let key = match convert::key(publish.key, "Publish.key") {
            Ok(key) => key,
            Err(invalid) => {
                self.refuse(id, Reason::Invalid, invalid.to_string());
                return Ok(());
            }
        };
        let Some(v1::Resume { epoch, .. }) = publish.resume else {
            self.refuse(id, Reason::Invalid, "Publish.resume is missing".into());
            return Ok(());
        };
        let most = self.hub.limits().publications_per_link;
        if self.publications.len() >= most {
            let (hub, link) = (&self.hub, self.link);
            self.publications.retain(|&id, publication| {
                let held = hub.is_held_by(&publication.cell, OnLink { link, id });
                if !held {
                    publication.end(Over::Superseded);
                }
                held
            });
        }
        if self.publications.len() >= most {
            self.refuse(
                id,
                Reason::Limit,
                format!("{most} publications on one link"),
            );
            return Ok(());
        }
        let follows = SpanPlace::parse(publish.follows.as_bytes());
        let mut phase = Phase::linked(
            "origin.publish",
            Kind::Server,
            SpanPlace::parse(publish.traceparent.as_bytes()),
            follows.as_slice(),
        );
        phase.show("selvage.stream.key", &key);
        phase.show("selvage.edge", &life.edge);
        phase.show("selvage.owner", &self.id);
        phase.count("selvage.epoch", epoch);
        let said = tracing::info_span!(target: node::telemetry::UNTRACED, "publish", stream = %key, edge = %life.edge, epoch = %Epoch(epoch));
        let claimed = Claimed {
            life,
            epoch: Epoch(epoch),
            began: Epoch(publish.began),
            trace: phase.place(),
        };
        match self.hub.publish(self.on_link(id), key, claimed) {
            Ok((cell, grant)) => {
                said.in_scope(|| tracing::info!(next = grant.next, "granted"));
                phase.count("selvage.frame.next", grant.next);
                let credit = self.hub.limits().publication_credit;
                let first = Phase::child("origin.first_frame", Kind::Internal, phase.place());
                let publication = Publication {
                    cell,
                    owed: Owed::new(credit),
                    first: first.is_wanted().then_some(first),
                };
                self.publications.insert(id, publication);
                self.answer(to_edge::Body::Granted(v1::Granted {
                    id,
                    epoch: grant.epoch.0,
                    next: grant.next,
                    credit,
                    traceparent: phase.traceparent(),
                }));
            }
            Err(Refusal { reason, text }) => {
                said.in_scope(|| tracing::info!(reason = reason.as_str_name(), "refused"));
                phase.set("error.type", reason.as_str_name());
                phase.fail(text);
                self.refuse(id, reason, text.into());
            }
        }
        Ok(())
    }

    fn unpublish(&mut self, unpublish: &v1::Unpublish) {
        // What is unknown was ended by this side while the message was under way.
        if let Some(mut publication) = self.publications.remove(&unpublish.id) {
            let by = self.on_link(unpublish.id);
            let held = self.hub.unpublish(&publication.cell, by, unpublish.moved);
            publication.end(match held {
                _ if unpublish.moved => Over::Moved,
                true => Over::Unpublished,
                false => Over::Superseded,
            });
        }
    }

    fn frames(&mut self, batch: v1::Frames, from: &EdgeId) -> Result<(), LinkError> {
        let v1::Frames {
            mut frames,
            ingest_micros,
            traces,
        } = batch;
        if frames.len() > BATCH_FRAMES_TOLERATED {
            return Err(LinkError::LimitExceeded(format!(
                "{} frames in one batch, at most {BATCH_FRAMES_TOLERATED} are allowed",
                frames.len()
            )));
        }
        // Who reads a frame has to find that it is traced.
        if !traces.is_empty() {
            self.traced(traces, from, frames.len());
        }
        // A stream is locked, and its readers are woken, once for each batch. The sort is
        // stable, so the order within a publication is kept.
        if !frames.is_sorted_by_key(|frame| frame.id) {
            frames.sort_by_key(|frame| frame.id);
        }
        let mut frames = frames.into_iter().peekable();
        while let Some(first) = frames.next() {
            let id = first.id;
            let mut run = vec![first];
            while let Some(frame) = frames.next_if(|frame| frame.id == id) {
                run.push(frame);
            }
            self.frames_of(id, run, ingest_micros)?;
        }
        Ok(())
    }

    /// Frames that have just arrived are traced.
    fn traced(&self, traces: Vec<v1::FrameTrace>, from: &EdgeId, batch: usize) {
        let now = wall_micros();
        for trace in traces.into_iter().take(BATCH_TRACES_MAX) {
            let times = (trace.read_micros, trace.until_micros);
            let passing = Passing::received(&trace.traceparent, times, now);
            let (Some(mut passing), Some(publication)) =
                (passing, self.publications.get(&trace.id))
            else {
                continue;
            };
            let here = Passing {
                until_micros: now.max(passing.until_micros),
                ..passing
            };
            let by = self.on_link(trace.id);
            let Some(epoch) = self.hub.trace(&publication.cell, by, trace.seq, here) else {
                continue;
            };
            passing.pass(
                "frame.hop.origin",
                now,
                vec![
                    KeyValue::new("selvage.edge", from.to_string()),
                    KeyValue::new("selvage.owner", self.id.to_string()),
                    figure("selvage.epoch", epoch.0),
                    figure("selvage.batch.frames", batch),
                ],
            );
        }
    }

    /// Takes the frames that a batch brought for one publication.
    fn frames_of(
        &mut self,
        id: u32,
        frames: Vec<v1::Frame>,
        ingest_micros: u64,
    ) -> Result<(), LinkError> {
        let counters = self.hub.counters();
        let (count, bytes) = (frames.len() as u64, convert::payload_bytes(&frames));
        counters.bytes_in.add(bytes as u64);
        let by = self.on_link(id);
        let Some(publication) = self.publications.get_mut(&id) else {
            // They were under way when the publication ended.
            counters.frames_ignored.add(count);
            return Ok(());
        };
        if publication.owed.receive(bytes).is_err() {
            return Err(LinkError::LimitExceeded(format!(
                "the credit of publication {id}"
            )));
        }
        let frames = frames
            .into_iter()
            .map(convert::arrival)
            .collect::<Result<Vec<_>, _>>()?;
        match self
            .hub
            .append(&publication.cell, by, frames, ingest_micros)
        {
            Ok(taken) => {
                if let Some(mut first) = publication.first.take() {
                    first.count("selvage.frames", count);
                    first.count("selvage.bytes", bytes as u64);
                    first.end();
                }
                counters.frames_in.add(taken.frames);
                counters.frames_ignored.add(taken.duplicates);
                if let Some(bytes) = publication.owed.take_due() {
                    self.answer(to_edge::Body::Credit(v1::Credit { id, bytes }));
                }
            }
            Err(_) => {
                // Another took its place, and the edge is told so where it matters.
                counters.frames_ignored.add(count);
                publication.end(Over::Superseded);
                self.publications.remove(&id);
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, subscribe: v1::Subscribe) -> Result<(), LinkError> {
        let id = subscribe.id;
        if self.subscriptions.contains_key(&id) {
            return Err(LinkError::OutOfOrder(format!(
                "Subscribe.id {id} is in use"
            )));
        }
        let key = match convert::key(subscribe.key, "Subscribe.key") {
            Ok(key) => key,
            Err(error) => {
                tracing::warn!(%error, "subscription refused");
                self.refuse_subscription(id);
                return Ok(());
            }
        };
        let parent = SpanPlace::parse(subscribe.traceparent.as_bytes());
        let mut phase = Phase::child("origin.subscribe", Kind::Server, parent);
        phase.show("selvage.stream.key", &key);
        phase.show("selvage.owner", &self.id);
        phase.set("selvage.resumed", subscribe.resume.is_some());
        let most = self.hub.limits().subscriptions_per_link;
        if self.subscriptions.len() >= most {
            tracing::warn!(stream = %key, most, "refused: too many subscriptions of one link");
            phase.fail("too many subscriptions of one link");
            self.refuse_subscription(id);
            return Ok(());
        }
        let resume = subscribe.resume.map(|resume| Position {
            epoch: Epoch(resume.epoch),
            seq: resume.next,
        });
        let by = self.on_link(id);
        match self
            .hub
            .subscribe(by, key.clone(), resume, subscribe.credit, &self.outbox)
        {
            Ok(cell) => {
                tracing::debug!(stream = %key, "subscribed");
                self.subscriptions.insert(id, Subscription { cell });
            }
            Err(Refusal { text, .. }) => {
                tracing::warn!(stream = %key, text, "refused");
                phase.fail(text);
                self.refuse_subscription(id);
            }
        }
        Ok(())
    }

    fn refuse(&self, id: u32, reason: Reason, text: String) {
        self.answer(to_edge::Body::Refused(v1::Refused {
            id,
            reason: reason.into(),
            text,
        }));
    }

    fn refuse_subscription(&self, id: u32) {
        let state = State::Refused.into();
        self.answer(to_edge::Body::Source(v1::Source {
            id,
            state,
            ..v1::Source::default()
        }));
    }

    fn answer(&self, body: to_edge::Body) {
        self.outbox.push(body);
    }

    const fn on_link(&self, id: u32) -> OnLink {
        OnLink {
            link: self.link,
            id,
        }
    }
}
