//! Spans of single media frames, made from times that were measured before.
//!
//! A media loop makes no spans: it notes times, and only of the few frames that were chosen.
//! At the end of each hop those times become a span with [`hop`], in one go. The
//! hops pass on a [`Passing`]: the context of the frame's first span, and when the hop ended.
//! A span begins where the one before it ended, so together they take as long as the frame did.
//!
//! Times are microseconds since 1970. Where two machines' clocks disagree, a hop that seems to
//! end before it began takes no time, and the next one begins where it did.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::Context;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, TraceId,
};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, SdkTracer, ShouldSample, Span};

use super::phase::{SpanPlace, tracer};

pub use opentelemetry::KeyValue;

/// By how much another machine's clock may be ahead. What says to come from further ahead has a
/// broken clock, or means harm: every later span of its trace would begin there.
const SKEW_MAX_MICROS: u64 = 60_000_000;

/// The name of a frame's first span, the parent of all others.
pub const ROOT: &str = "frame";

/// Microseconds since 1970, as this machine's clock has it.
pub fn wall_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

/// A count as an attribute.
pub fn figure(key: &'static str, count: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(key, count.try_into().unwrap_or(i64::MAX))
}

fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

/// The first span of a frame, which is not over. Dropped, it ends then.
#[derive(Debug)]
pub struct Root(Span);

/// A traced frame between two hops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passing {
    /// The frame's first span.
    pub root: SpanPlace,
    /// When its first byte was read from the publisher.
    pub read_micros: u64,
    /// When the hop before ended, and the next span begins.
    pub until_micros: u64,
}

impl Root {
    /// Begins a trace with a frame that was read from `micros` on. What `links` name came
    /// before it. `None` where nobody wants it.
    pub fn begin(
        micros: u64,
        attributes: Vec<KeyValue>,
        links: impl IntoIterator<Item = SpanPlace>,
    ) -> Option<Self> {
        Self::begin_by(tracer()?, micros, attributes, links)
    }

    fn begin_by(
        tracer: &SdkTracer,
        micros: u64,
        attributes: Vec<KeyValue>,
        links: impl IntoIterator<Item = SpanPlace>,
    ) -> Option<Self> {
        let links = links.into_iter().filter_map(SpanPlace::sampled);
        let links = links.map(|to| Link::with_context(to.context()));
        let span = SpanBuilder::from_name(ROOT)
            .with_kind(SpanKind::Internal)
            .with_start_time(at(micros))
            .with_attributes(attributes)
            .with_links(links.collect())
            .start_with_context(tracer, &Context::new());
        span.span_context().is_sampled().then_some(Self(span))
    }

    /// Where it stands, for the spans below it.
    pub fn place(&self) -> SpanPlace {
        SpanPlace::of(self.0.span_context())
    }

    /// It is over.
    pub fn end(mut self, micros: u64) {
        self.0.end_with_timestamp(at(micros));
    }
}

/// Makes a span below `root` that is over. Says where it stands, for others to link to; `None`
/// where traces do not leave the process.
pub fn hop(
    root: SpanPlace,
    name: &'static str,
    times: (u64, u64),
    attributes: Vec<KeyValue>,
    outcome: Outcome,
) -> Option<SpanPlace> {
    Some(hop_by(tracer()?, root, name, times, attributes, outcome))
}

fn hop_by(
    tracer: &SdkTracer,
    root: SpanPlace,
    name: &'static str,
    (from, to): (u64, u64),
    attributes: Vec<KeyValue>,
    outcome: Outcome,
) -> SpanPlace {
    let parent = Context::new().with_remote_span_context(root.context());
    let mut builder = SpanBuilder::from_name(name)
        .with_kind(SpanKind::Internal)
        .with_start_time(at(from))
        .with_attributes(attributes);
    if let Outcome::Again(before) = outcome {
        builder = builder.with_links(vec![Link::with_context(before.context())]);
    }
    let mut span = builder.start_with_context(tracer, &parent);
    if let Outcome::Failed(why) = outcome {
        span.set_status(Status::error(why));
    }
    span.end_with_timestamp(at(to.max(from)));
    SpanPlace::of(span.span_context())
}

impl Passing {
    /// What another process says of a frame that arrived here at `now`. `None` if nobody records
    /// the trace, or the times are none.
    pub fn received(traceparent: &str, times: (u64, u64), now: u64) -> Option<Self> {
        let (read_micros, until_micros) = times;
        let likely = read_micros <= until_micros && until_micros <= now + SKEW_MAX_MICROS;
        let root = SpanPlace::parse(traceparent.as_bytes()).filter(|_| likely)?;
        Some(Self {
            root: root.sampled()?,
            read_micros,
            until_micros,
        })
    }

    /// Ends a hop now: makes its span, and stands at the beginning of the next.
    pub fn pass(&mut self, name: &'static str, now: u64, attributes: Vec<KeyValue>) {
        let times = self.until(now);
        hop(self.root, name, times, attributes, Outcome::Done);
    }

    /// The times of a hop that ends now.
    fn until(&mut self, now: u64) -> (u64, u64) {
        let from = self.until_micros;
        self.until_micros = now.max(from);
        (from, self.until_micros)
    }
}

/// How a hop ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Well.
    Done,
    /// It had to be done again: what was done before.
    Again(SpanPlace),
    /// The frame did not get there, and why.
    Failed(&'static str),
}

/// Takes all frames that were chosen to be traced, and asks another about all else: who chose
/// them has decided already.
#[derive(Clone, Debug)]
pub(super) struct ChosenFrames(pub(super) Sampler);

impl ShouldSample for ChosenFrames {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = if name == ROOT {
            &Sampler::AlwaysOn
        } else {
            &self.0
        };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_nobody_records_or_nobodys_clock_says_is_passed_over() {
        let received = |text: &str, times| Passing::received(text, times, 2_000);
        assert!(received(PARENT, (1_000, 1_500)).is_some());
        assert_eq!(received(PARENT, (1_600, 1_500)), None);
        assert_eq!(received(PARENT, (1_000, 3_000 + SKEW_MAX_MICROS)), None);
        assert_eq!(
            received(&PARENT.replace("-01", "-00"), (1_000, 1_500)),
            None
        );
        assert_eq!(received("", (1_000, 1_500)), None);
    }

    #[test]
    fn hops_join_without_a_gap_also_where_clocks_disagree() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(Sampler::ParentBased(Box::new(ChosenFrames(
                Sampler::AlwaysOff,
            ))))
            .build();
        let tracer = provider.tracer("test");
        let other = tracer.start_with_context("other", &Context::new());
        assert!(!other.span_context().is_sampled());

        let before = SpanPlace::parse(PARENT.as_bytes()).unwrap();
        let root = Root::begin_by(&tracer, 1_000, Vec::new(), [before]).unwrap();
        let said = root.place().text();
        let mut passing = Passing::received(&said, (1_000, 1_000), 1_000).unwrap();
        // The second machine's clock is behind.
        for (name, now) in [("a", 1_700), ("b", 1_200), ("c", 2_500)] {
            let (root, times) = (passing.root, passing.until(now));
            hop_by(&tracer, root, name, times, Vec::new(), Outcome::Done);
        }
        let times = (passing.until_micros, 3_000);
        let why = Outcome::Failed("skipped");
        hop_by(&tracer, passing.root, "d", times, Vec::new(), why);
        root.end(1_700);

        let spans = exporter.get_finished_spans().unwrap();
        let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "frame"]);
        let (hops, frame) = (&spans[..4], &spans[4]);
        assert_eq!(SpanPlace::of(&frame.links.links[0].span_context), before);
        let mut until = frame.start_time;
        for hop in hops {
            assert_eq!(hop.start_time, until, "{}", hop.name);
            assert!(hop.end_time >= hop.start_time);
            assert_eq!(hop.parent_span_id, frame.span_context.span_id());
            assert_eq!(hop.span_context.trace_id(), frame.span_context.trace_id());
            until = hop.end_time;
        }
        assert_eq!(until, at(3_000));
        assert_eq!(hops[3].status, Status::error("skipped"));
    }
}
