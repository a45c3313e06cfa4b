//! Spans of phases: short, with times of our own choosing, and without a task around them.
//!
//! A [`Phase`] is made where something begins and ended where it is done, which may be in
//! another task or another message; [`SpanPlace`] says where in which trace it stands, as 55
//! characters of W3C text to other processes. Whoever is not sampled pays for a few copied
//! bytes; whoever is not traced at all, for a look at an option.
//!
//! A phase without a parent that is given is no trace of its own, unless it is said to be a
//! [root](Phase::root): only whoever a client speaks to begins traces.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags,
    TraceId, TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};

pub use opentelemetry::trace::SpanKind as Kind;

/// Where a span stands: in which trace, as which span.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanPlace {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
}

/// Length of a traceparent of version 00: `00-<32 digits>-<16 digits>-<2 digits>`.
const TEXT_LEN: usize = 55;

impl SpanPlace {
    /// What a traceparent says. None when it says nothing, or is not of version 00.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT_LEN || text.get(..3)? != b"00-" {
            return None;
        }
        if text.get(35)? != &b'-' || text.get(52)? != &b'-' {
            return None;
        }
        let trace = TraceId::from_bytes(number(text.get(3..35)?)?);
        let span = SpanId::from_bytes(number(text.get(36..52)?)?);
        let [flags] = number(text.get(53..55)?)?;
        (trace != TraceId::INVALID && span != SpanId::INVALID).then_some(Self {
            trace,
            span,
            sampled: flags & 1 == 1,
        })
    }

    /// The place as a traceparent.
    #[must_use]
    pub fn text(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", self.trace, self.span)
    }

    /// Whether whoever began the trace wants to see it.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// The place, if its trace is wanted.
    #[must_use]
    pub fn sampled(self) -> Option<Self> {
        self.sampled.then_some(self)
    }

    /// The trace's number, as backends show it.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.trace.to_string()
    }

    pub(super) fn of(context: &SpanContext) -> Self {
        Self {
            trace: context.trace_id(),
            span: context.span_id(),
            sampled: context.is_sampled(),
        }
    }

    pub(super) fn context(self) -> SpanContext {
        let flags = if self.sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        SpanContext::new(self.trace, self.span, flags, true, TraceState::NONE)
    }
}

impl fmt::Debug for SpanPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Lower-case hexadecimal digits, as the specification wants them.
fn number<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut number = [0; N];
    for (byte, [high, low]) in number.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(number)
}

/// Makes the spans of this process. Set when traces leave it.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

pub(super) fn trace_with(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// Whether traces leave this process: without, nothing that is gathered for one is of use.
#[must_use]
pub fn is_traced() -> bool {
    TRACER.get().is_some()
}

/// A part of what is done for somebody, from its beginning to its end. One that is dropped
/// ends then.
#[derive(Default)]
#[must_use = "a phase ends when it is dropped"]
pub struct Phase {
    /// None when it is not wanted.
    span: Option<Box<Span>>,
    place: Option<SpanPlace>,
}

impl Phase {
    /// The beginning of a trace, or of what a client's trace goes on with.
    pub fn root(name: &'static str, kind: Kind, client: Option<SpanPlace>) -> Self {
        match TRACER.get() {
            Some(tracer) => Self::begin(tracer, name, kind, client, None, &[]),
            // What a caller decided is passed on.
            None => Self {
                span: None,
                place: client,
            },
        }
    }

    /// A part of what stands there. Nothing, if nothing stands there.
    pub fn child(name: &'static str, kind: Kind, parent: Option<SpanPlace>) -> Self {
        Self::linked(name, kind, parent, &[])
    }

    /// As [`Self::child`], with links to what it follows from.
    pub fn linked(
        name: &'static str,
        kind: Kind,
        parent: Option<SpanPlace>,
        links: &[SpanPlace],
    ) -> Self {
        Self::of(name, kind, parent, None, links)
    }

    /// As [`Self::child`], of what began some time ago.
    pub fn since(
        name: &'static str,
        kind: Kind,
        parent: Option<SpanPlace>,
        began: SystemTime,
    ) -> Self {
        Self::of(name, kind, parent, Some(began), &[])
    }

    fn of(
        name: &'static str,
        kind: Kind,
        parent: Option<SpanPlace>,
        began: Option<SystemTime>,
        links: &[SpanPlace],
    ) -> Self {
        match (TRACER.get(), parent) {
            (Some(tracer), Some(SpanPlace { sampled: true, .. })) => {
                Self::begin(tracer, name, kind, parent, began, links)
            }
            (_, place) => Self { span: None, place },
        }
    }

    fn begin(
        tracer: &SdkTracer,
        name: &'static str,
        kind: Kind,
        parent: Option<SpanPlace>,
        began: Option<SystemTime>,
        links: &[SpanPlace],
    ) -> Self {
        let mut builder = SpanBuilder::from_name(name).with_kind(kind);
        if let Some(began) = began {
            builder = builder.with_start_time(began);
        }
        let links = links.iter().filter(|place| place.sampled);
        let links: Vec<_> = links
            .map(|place| Link::new(place.context(), Vec::new(), 0))
            .collect();
        if !links.is_empty() {
            builder = builder.with_links(links);
        }
        let context = parent.map_or_else(Context::new, |place| {
            Context::new().with_remote_span_context(place.context())
        });
        let span = tracer.build_with_context(builder, &context);
        let place = Some(SpanPlace::of(span.span_context()));
        Self {
            span: span.is_recording().then(|| Box::new(span)),
            place,
        }
    }

    /// Whether anybody will see it: without, attributes need not be put together.
    #[must_use]
    pub const fn is_wanted(&self) -> bool {
        self.span.is_some()
    }

    /// Where it stands, for its parts.
    #[must_use]
    pub const fn place(&self) -> Option<SpanPlace> {
        self.place
    }

    /// Where it stands, if anybody will see it.
    #[must_use]
    pub fn sampled(&self) -> Option<SpanPlace> {
        self.place.and_then(SpanPlace::sampled)
    }

    /// Where it stands, as a traceparent for other processes; empty if nowhere.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.place.map_or_else(String::new, |place| place.text())
    }

    /// Says something about it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.span {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Says something about it that costs a text.
    pub fn show(&mut self, key: &'static str, value: impl fmt::Display) {
        if self.is_wanted() {
            self.set(key, value.to_string());
        }
    }

    /// Says a number about it. One that is too large for the format counts as the largest.
    pub fn count(&mut self, key: &'static str, number: u64) {
        self.set(key, i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Ties it to a span of another trace, or another one of its own.
    pub fn link(&mut self, to: Option<SpanPlace>) {
        if let (Some(span), Some(to)) = (&mut self.span, to.and_then(SpanPlace::sampled)) {
            span.add_link(to.context(), Vec::new());
        }
    }

    /// It went wrong.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.span {
            span.set_status(Status::error(why));
        }
    }

    /// It is done.
    pub fn end(self) {}

    /// It was done then.
    pub fn end_at(mut self, when: SystemTime) {
        if let Some(mut span) = self.span.take() {
            span.end_with_timestamp(when);
        }
    }
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.place, f)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};

    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is_one() {
        let place = SpanPlace::parse(TEXT.as_bytes()).unwrap();
        assert_eq!(place.text(), TEXT);
        assert!(place.is_sampled());
        let off = TEXT.replace("-01", "-00");
        assert!(!SpanPlace::parse(off.as_bytes()).unwrap().is_sampled());
        for broken in [
            String::new(),
            TEXT.to_uppercase(),
            format!("{TEXT}0"),
            TEXT.replace("00-0a", "01-0a"),
            TEXT.replace('-', "_"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16)),
            TEXT.replace("-01", "-+1"),
            "é".repeat(28),
        ] {
            assert_eq!(SpanPlace::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn phases_have_the_times_and_links_they_are_given() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
            .build();
        let tracer = provider.tracer("test");
        let parent = SpanPlace::parse(TEXT.as_bytes());
        let began = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7);
        let mut phase = Phase::begin(
            &tracer,
            "work",
            Kind::Internal,
            parent,
            Some(began),
            &[parent.unwrap()],
        );
        phase.count("bytes", u64::MAX);
        phase.fail("broken");
        let done = began + std::time::Duration::from_secs(1);
        let place = phase.place().unwrap();
        phase.end_at(done);
        let root = Phase::begin(&tracer, "root", Kind::Server, None, None, &[]);
        assert!(!root.is_wanted(), "the sampler says so");
        assert!(root.traceparent().ends_with("-00"), "others are told so");
        drop(root);
        let spans = exporter.get_finished_spans().unwrap();
        let [span] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!((span.start_time, span.end_time), (began, done));
        assert_eq!(span.links.len(), 1);
        assert_eq!(span.parent_span_id, parent.unwrap().span);
        assert_eq!(span.span_context.span_id(), place.span);
        assert_eq!(span.status, Status::error("broken"));
        assert_eq!(span.attributes[0].value, Value::I64(i64::MAX));
    }

    #[test]
    fn without_an_export_what_a_caller_decided_is_passed_on() {
        let parent = SpanPlace::parse(TEXT.as_bytes());
        assert_eq!(Phase::root("a", Kind::Server, parent).traceparent(), TEXT);
        assert_eq!(Phase::child("b", Kind::Server, parent).traceparent(), TEXT);
        assert_eq!(Phase::child("c", Kind::Server, None).traceparent(), "");
        assert_eq!(Phase::root("d", Kind::Server, None).traceparent(), "");
    }
}
