//! Spans of single media frames, made from times that were measured before.
//!
//! A media loop makes no spans: it notes times, and only of the few frames that were chosen.
//! At the end of each hop those times become a span with [`FrameContext::span`], in one go. The
//! hops pass on a [`Passing`]: the context of the frame's first span, and when the hop ended.
//! A span begins where the one before it ended, so together they take as long as the frame did.
//!
//! Times are microseconds since 1970. Where two machines' clocks disagree, a hop that seems to
//! end before it began takes no time, and the next one begins where it did.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::Context;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _,
    TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, SdkTracer, ShouldSample, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

pub use opentelemetry::KeyValue;

/// By how much another machine's clock may be ahead. What says to come from further ahead has a
/// broken clock, or means harm: every later span of its trace would begin there.
const SKEW_MAX_MICROS: u64 = 60_000_000;

/// The name of a frame's first span, the parent of all others.
pub const ROOT: &str = "frame";

/// Set once, where traces leave the process.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

pub(super) fn install(tracer: SdkTracer) {
    // A process sets up telemetry once, and is refused when it tries again.
    let _ = TRACER.set(tracer);
}

/// Whether frames can be traced: traces leave this process.
pub fn are_exported() -> bool {
    TRACER.get().is_some()
}

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

/// In whose trace a frame's spans are.
#[derive(Clone, Debug, PartialEq)]
pub struct FrameContext(SpanContext);

/// A traced frame between two hops.
#[derive(Clone, Debug, PartialEq)]
pub struct Passing {
    /// Whose trace.
    pub context: FrameContext,
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
        links: impl IntoIterator<Item = FrameContext>,
    ) -> Option<Self> {
        let links = links
            .into_iter()
            .map(|FrameContext(to)| Link::with_context(to));
        let span = SpanBuilder::from_name(ROOT)
            .with_kind(SpanKind::Internal)
            .with_start_time(at(micros))
            .with_attributes(attributes)
            .with_links(links.collect())
            .start_with_context(TRACER.get()?, &Context::new());
        span.span_context().is_sampled().then_some(Self(span))
    }

    /// Its context, for the spans below it.
    pub fn context(&self) -> FrameContext {
        FrameContext(self.0.span_context().clone())
    }

    /// It is over.
    pub fn end(mut self, micros: u64) {
        self.0.end_with_timestamp(at(micros));
    }
}

impl FrameContext {
    /// The context of a `tracing` span, if that is exported: something to link to.
    pub fn of_span(span: &tracing::Span) -> Option<Self> {
        let context = span.context();
        let context = context.span().span_context().clone();
        context.is_sampled().then_some(Self(context))
    }

    /// Reads `00-<trace>-<span>-<flags>`; `None` if it is broken, or nobody records the trace.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut fields = traceparent.split('-');
        let mut next = |len| fields.next().filter(|field| field.len() == len);
        let version = next(2)?;
        let (trace, span, flags) = (next(32)?, next(16)?, next(2)?);
        // A later version may append (W3C Trace Context §4).
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            TraceState::NONE,
        );
        (context.is_valid() && context.is_sampled()).then_some(Self(context))
    }

    /// The trace's number, as backends show it.
    pub fn trace_id(&self) -> String {
        self.0.trace_id().to_string()
    }

    /// `00-<trace>-<span>-01`.
    pub fn traceparent(&self) -> String {
        let (trace, span) = (self.0.trace_id(), self.0.span_id());
        format!("00-{trace}-{span}-01")
    }

    /// Makes a span of this trace that is over. Gives its own context, which others can link
    /// to; `None` where traces do not leave the process.
    pub fn span(
        &self,
        name: &'static str,
        (from, to): (u64, u64),
        attributes: Vec<KeyValue>,
        outcome: Outcome<'_>,
    ) -> Option<Self> {
        let parent = Context::new().with_remote_span_context(self.0.clone());
        let mut builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_start_time(at(from))
            .with_attributes(attributes);
        if let Outcome::Again(before) = outcome {
            builder = builder.with_links(vec![Link::with_context(before.0.clone())]);
        }
        let mut span = builder.start_with_context(TRACER.get()?, &parent);
        if let Outcome::Failed(why) = outcome {
            span.set_status(Status::error(why));
        }
        span.end_with_timestamp(at(to.max(from)));
        Some(Self(span.span_context().clone()))
    }
}

impl Passing {
    /// What another process says of a frame that arrived here at `now`. `None` if nobody records
    /// the trace, or the times are none.
    pub fn received(traceparent: &str, times: (u64, u64), now: u64) -> Option<Self> {
        let (read_micros, until_micros) = times;
        let likely = read_micros <= until_micros && until_micros <= now + SKEW_MAX_MICROS;
        let context = FrameContext::parse(traceparent).filter(|_| likely)?;
        Some(Self {
            context,
            read_micros,
            until_micros,
        })
    }

    /// Ends a hop now: makes its span, and stands at the beginning of the next.
    pub fn pass(&mut self, name: &'static str, now: u64, attributes: Vec<KeyValue>) {
        let from = self.until_micros;
        self.until_micros = now.max(from);
        self.context
            .span(name, (from, self.until_micros), attributes, Outcome::Done);
    }
}

/// How a hop ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// Well.
    Done,
    /// It had to be done again: what was done before.
    Again(&'a FrameContext),
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
    fn a_context_comes_back_from_its_text_and_a_broken_one_does_not() {
        let context = FrameContext::parse(PARENT).unwrap();
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        for broken in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319Ä-b7ad6b7169203331-01",
        ] {
            assert_eq!(FrameContext::parse(broken), None, "{broken}");
        }
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(FrameContext::parse(later).is_some());
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
        install(tracer.clone());
        assert!(are_exported());
        let other = tracer.start_with_context("other", &Context::new());
        assert!(!other.span_context().is_sampled());

        let before = FrameContext::parse(PARENT).unwrap();
        let root = Root::begin(1_000, Vec::new(), [before.clone()]).unwrap();
        let context = root.context();
        let mut passing = Passing {
            context: FrameContext::parse(&context.traceparent()).unwrap(),
            read_micros: 1_000,
            until_micros: 1_000,
        };
        passing.pass("a", 1_700, vec![KeyValue::new("n", 1)]);
        // The next machine's clock is behind.
        passing.pass("b", 1_200, Vec::new());
        passing.pass("c", 2_500, Vec::new());
        let why = Outcome::Failed("skipped");
        context.span("d", (passing.until_micros, 3_000), Vec::new(), why);
        root.end(1_700);

        let spans = exporter.get_finished_spans().unwrap();
        let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["a", "b", "c", "d", "frame"]);
        let (hops, frame) = (&spans[..4], &spans[4]);
        assert_eq!(frame.links.links[0].span_context, before.0);
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
