//! The W3C trace context: who called, carried in headers and metadata.

use std::task::{Context as TaskContext, Poll};

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tower::{Layer, Service};
use tracing::instrument::{Instrument as _, Instrumented};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Writes the context of the current span into the metadata of a call. Without a context, nothing
/// is written.
pub fn inject(metadata: &mut MetadataMap) {
    propagate(&tracing::Span::current().context(), &mut Metadata(metadata));
}

/// [`inject`] for plain HTTP headers.
pub fn inject_headers(headers: &mut HeaderMap) {
    propagate(&tracing::Span::current().context(), &mut Headers(headers));
}

/// Reads the context of the caller from the metadata of a call. A caller without one, or with a
/// broken one, gives the empty context.
pub fn extract(metadata: &MetadataMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &MetadataRef(metadata))
}

/// [`extract`] for plain HTTP headers.
pub fn extract_headers(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeadersRef(headers))
}

pub(super) fn adopt(span: &tracing::Span, parent: Context) {
    if parent.span().span_context().is_valid() {
        // Refused only where nobody traces.
        let _ = span.set_parent(parent);
    }
}

fn propagate(context: &Context, into: &mut dyn Injector) {
    TraceContextPropagator::new().inject_context(context, into);
}

/// A layer for clients that writes the context of the current span into each request.
///
/// ```
/// # use tonic::transport::Channel;
/// use tower::Layer as _;
/// # fn f(channel: Channel) {
/// let traced = node::telemetry::Inject.layer(channel); // for MyClient::new(traced)
/// # let _ = traced; }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Inject;

impl<S> Layer<S> for Inject {
    type Service = Injecting<S>;

    fn layer(&self, inner: S) -> Injecting<S> {
        Injecting { inner }
    }
}

/// A client under [`Inject`].
#[derive(Debug, Clone)]
pub struct Injecting<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Injecting<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        inject_headers(request.headers_mut());
        self.inner.call(request)
    }
}

/// A layer for servers that runs each request in a span whose parent is the caller's.
///
/// `node::link::server(&settings).layer(node::telemetry::Extract)`. The span ends with the head
/// of the response; what goes on after that opens its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extract;

impl<S> Layer<S> for Extract {
    type Service = Extracting<S>;

    fn layer(&self, inner: S) -> Extracting<S> {
        Extracting { inner }
    }
}

/// A server under [`Extract`].
#[derive(Debug, Clone)]
pub struct Extracting<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Extracting<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.uri().path().trim_start_matches('/');
        let span = tracing::info_span!("grpc.server", otel.name = method, otel.kind = "server");
        adopt(&span, extract_headers(request.headers()));
        let future = span.in_scope(|| self.inner.call(request));
        future.instrument(span)
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        // The propagator sets lower-case names and visible values.
        if let (Ok(key), Ok(value)) = (
            AsciiMetadataKey::from_bytes(key.as_bytes()),
            AsciiMetadataValue::try_from(value),
        ) {
            self.0.insert(key, value);
        }
    }
}

struct MetadataRef<'a>(&'a MetadataMap);

impl Extractor for MetadataRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (
            HeaderName::from_bytes(key.as_bytes()),
            HeaderValue::try_from(value),
        ) {
            self.0.insert(key, value);
        }
    }
}

struct HeadersRef<'a>(&'a HeaderMap);

impl Extractor for HeadersRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
