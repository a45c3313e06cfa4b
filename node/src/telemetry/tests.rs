use std::collections::HashMap;

use http::{HeaderMap, Request};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SpanData};
use tonic::metadata::MetadataMap;
use tower::{Layer as _, ServiceExt as _, service_fn};
use tracing::Instrument as _;

use super::export::Export;
use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn recording() -> (InMemorySpanExporter, SdkTracerProvider) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    (exporter, provider)
}

/// Runs `test` with our layer over an exporter into memory and gives the spans that left.
fn spans(test: impl FnOnce()) -> HashMap<String, SpanData> {
    let (exporter, provider) = recording();
    let subscriber = tracing_subscriber::registry().with(traces(&provider));
    tracing::subscriber::with_default(subscriber, test);
    let finished = exporter.get_finished_spans().unwrap();
    finished
        .into_iter()
        .map(|span| (span.name.to_string(), span))
        .collect()
}

/// The context of a span as text.
fn text_of(span: &tracing::Span) -> String {
    let mut headers = HeaderMap::new();
    span.in_scope(|| inject_headers(&mut headers));
    let text = headers
        .get("traceparent")
        .map(|text| text.to_str().unwrap());
    text.unwrap_or_default().to_owned()
}

/// The span, below the one that a text names.
fn below(text: &str, span: tracing::Span) -> tracing::Span {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", text.parse().unwrap());
    context::adopt(&span, extract_headers(&headers));
    span
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn the_context_goes_through_client_and_server_layers() {
    let spans = spans(|| {
        let server = Extract.layer(service_fn(async |request: Request<()>| {
            assert!(request.headers().contains_key("traceparent"));
            async { tracing::info_span!("work").in_scope(|| ()) }.await;
            Ok::<_, std::io::Error>(http::Response::new(()))
        }));
        let client = Inject.layer(server);
        let call = async {
            let request = Request::get("http://x/fabric.v1.Media/Link")
                .body(())
                .unwrap();
            client.oneshot(request).await.unwrap();
        };
        block_on(call.instrument(tracing::info_span!("publish")));
    });
    let (publish, server, work) = (
        &spans["publish"],
        &spans["fabric.v1.Media/Link"],
        &spans["work"],
    );
    assert_eq!(
        server.span_context.trace_id(),
        publish.span_context.trace_id()
    );
    assert_eq!(server.parent_span_id, publish.span_context.span_id());
    assert_eq!(server.span_kind, opentelemetry::trace::SpanKind::Server);
    assert_eq!(work.parent_span_id, server.span_context.span_id());
}

#[test]
fn the_context_goes_through_metadata_and_headers() {
    let spans = spans(|| {
        let mut metadata = MetadataMap::new();
        let edge = tracing::info_span!("edge");
        edge.in_scope(|| inject(&mut metadata));
        let text = text_of(&edge);
        assert_eq!(metadata.get("traceparent").unwrap().to_str().unwrap(), text);
        let caller = extract(&metadata).span().span_context().clone();
        assert!(caller.is_valid() && caller.is_remote());
        let origin = below(&text, tracing::info_span!("origin"));
        assert_eq!(text_of(&origin)[..36], text[..36]);
    });
    assert_eq!(
        spans["origin"].parent_span_id,
        spans["edge"].span_context.span_id()
    );
}

#[test]
fn a_missing_or_broken_context_starts_a_trace_of_its_own() {
    for broken in [
        "",
        "00-0-0-01",
        "nonsense",
        &PARENT.to_uppercase(),
        &PARENT[..52],
    ] {
        let spans = spans(|| {
            let _ = below(broken, tracing::info_span!("alone")).entered();
        });
        let alone = &spans["alone"];
        assert_eq!(
            alone.parent_span_id,
            opentelemetry::trace::SpanId::INVALID,
            "{broken:?}"
        );
        assert!(alone.span_context.is_valid());
    }
    let mut headers = HeaderMap::new();
    headers.insert(
        "traceparent",
        "\u{1}"
            .parse()
            .unwrap_or(http::HeaderValue::from_static("x")),
    );
    assert!(!extract_headers(&headers).span().span_context().is_valid());
}

#[test]
fn without_any_span_nothing_is_written() {
    assert!(
        spans(|| {
            let mut metadata = MetadataMap::new();
            inject(&mut metadata);
            assert!(metadata.is_empty());
        })
        .is_empty()
    );
}

#[test]
fn the_libraries_under_the_exporter_are_not_traced() {
    let spans = spans(|| {
        tracing::info_span!(target: "h2::proto", "h2").in_scope(|| ());
        tracing::info_span!(target: "hyper::client", "hyper").in_scope(|| ());
        tracing::info_span!(target: "tonic", "tonic").in_scope(|| ());
        tracing::info_span!(target: "tower::buffer", "tower").in_scope(|| ());
        tracing::info_span!(target: "opentelemetry_sdk", "opentelemetry").in_scope(|| ());
        tracing::debug_span!(target: "edge", "detail").in_scope(|| ());
        tracing::info_span!(target: "edge", "ours").in_scope(|| ());
    });
    assert_eq!(spans.keys().collect::<Vec<_>>(), ["ours"]);
}

fn no_variables(_: &str) -> Option<String> {
    None
}

#[test]
fn without_an_exporter_the_decision_of_the_caller_is_passed_on() {
    let (provider, exports) =
        export::provider(&Trace::default(), "selvage", "edge-0", &no_variables).unwrap();
    assert!(!exports);
    let subscriber = tracing_subscriber::registry().with(traces(&provider));
    tracing::subscriber::with_default(subscriber, || {
        let child = below(PARENT, tracing::info_span!("relay"));
        let passed_on = text_of(&child);
        assert_eq!(passed_on[..36], PARENT[..36]);
        assert!(passed_on.ends_with("-01"), "{passed_on}");
        let ours = text_of(&tracing::info_span!("start"));
        assert!(ours.ends_with("-00"), "{ours}");
    });
}

#[test]
fn the_sample_of_the_configuration_applies_to_traces_that_start_here() {
    let (exporter, _) = recording();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            0.0,
        ))))
        .build();
    let subscriber = tracing_subscriber::registry().with(traces(&provider));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("ours").in_scope(|| ());
        below(PARENT, tracing::info_span!("theirs")).in_scope(|| ());
    });
    let names: Vec<_> = exporter
        .get_finished_spans()
        .unwrap()
        .into_iter()
        .map(|span| span.name)
        .collect();
    assert_eq!(names, ["theirs"]);
}

#[test]
fn variables_and_configuration_decide_together_whether_traces_leave() {
    let here = Trace::default();
    let there = Trace {
        endpoint: Some("http://c:4317".into()),
        ..Trace::default()
    };
    let decide = |trace: &Trace, variables: &[(&str, &str)]| {
        Export::decide(trace, &|name| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        })
    };
    let off = |trace, variables: &[(&str, &str)]| {
        assert_eq!(
            decide(trace, variables).unwrap(),
            Export::Off,
            "{variables:?}"
        );
    };
    let as_said = |trace, variables: &[(&str, &str)]| {
        assert_eq!(
            decide(trace, variables).unwrap(),
            Export::AsVariablesSay,
            "{variables:?}"
        );
    };
    off(&here, &[]);
    off(&there, &[("OTEL_SDK_DISABLED", "true")]);
    off(&there, &[("OTEL_TRACES_EXPORTER", "none")]);
    off(&here, &[("OTEL_SERVICE_NAME", "x")]);
    as_said(&here, &[("OTEL_TRACES_EXPORTER", "otlp")]);
    as_said(&here, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://d:4317")]);
    as_said(
        &there,
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d:4317")],
    );
    as_said(
        &here,
        &[
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ],
    );
    assert_eq!(
        decide(&there, &[]).unwrap(),
        Export::To("http://c:4317".into())
    );
    let refused = |variables: &[(&str, &str)]| {
        decide(&there, variables)
            .expect_err("it is refused")
            .to_string()
    };
    assert_eq!(
        refused(&[("OTEL_TRACES_EXPORTER", "zipkin")]),
        "OTEL_TRACES_EXPORTER=zipkin is not supported, expected otlp or none"
    );
    assert_eq!(
        refused(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]),
        "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf is not supported, expected grpc"
    );
}

#[test]
fn rust_log_wins_over_the_configuration_and_bad_filters_are_named() {
    let log = Log {
        filter: "warn".into(),
        format: Format::Human,
    };
    assert_eq!(log_filter(&log, None).unwrap().to_string(), "warn");
    assert_eq!(
        log_filter(&log, Some("edge=debug".into()))
            .unwrap()
            .to_string(),
        "edge=debug"
    );
    let refused = log_filter(&log, Some("edge=loud".into())).expect_err("it is refused");
    assert!(
        refused
            .to_string()
            .starts_with("RUST_LOG = \"edge=loud\" is no log filter")
    );
    let bad = Log {
        filter: "a=b=c".into(),
        ..log
    };
    assert_eq!(bad.validate().expect_err("it is refused").key, "filter");
}

#[test]
fn a_share_beyond_one_and_an_endpoint_without_scheme_are_refused() {
    assert_eq!(Trace::default().validate(), Ok(()));
    let bad = Trace {
        sample: 1.5,
        ..Trace::default()
    };
    assert_eq!(bad.validate().expect_err("it is refused").key, "sample");
    let bad = Trace {
        endpoint: Some("collector".into()),
        ..Trace::default()
    };
    assert_eq!(bad.validate().expect_err("it is refused").key, "endpoint");
}
