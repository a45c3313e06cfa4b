//! The whole way of a span: our subscriber, the batch, OTLP over gRPC, a collector.
//!
//! Alone in its file, because a process sets up logging once.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::routing::post;
use node::link::{self, Listener};
use node::telemetry::{self, Log, Trace};

/// The path of `Export` in opentelemetry/proto/collector/trace/v1/trace_service.proto.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

type Received = Arc<Mutex<Vec<Bytes>>>;

async fn export(Extension(received): Extension<Received>, body: Bytes) -> http::Response<Body> {
    received
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(body);
    // An empty ExportTraceServiceResponse: no compression, no bytes.
    let mut response = http::Response::new(Body::from([0u8; 5].as_slice()));
    let headers = response.headers_mut();
    headers.insert(
        "content-type",
        http::HeaderValue::from_static("application/grpc"),
    );
    headers.insert("grpc-status", http::HeaderValue::from_static("0"));
    response
}

fn contains(haystack: &Bytes, needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_before_the_process_ends() {
    let received = Received::default();
    let collector = Router::new()
        .route(EXPORT, post(export))
        .layer(Extension(received.clone()));
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let endpoint = format!("http://{listener}");
    let serving = link::server(&link::Settings::default())
        .add_routes(tonic::service::Routes::from(collector))
        .serve_with_incoming(listener.incoming());
    tokio::spawn(async move { serving.await.unwrap() });

    let trace = Trace {
        endpoint: Some(endpoint),
        ..Trace::default()
    };
    let guard = telemetry::init(&Log::default(), &trace, "selvage-edge", "edge-7").unwrap();
    assert!(guard.exports());
    tracing::info_span!("rtmp.publish", stream = "live/a").in_scope(|| ());
    guard.shutdown().await;

    let received = received.lock().unwrap();
    assert_eq!(received.len(), 1);
    for word in ["rtmp.publish", "live/a", "selvage-edge", "edge-7"] {
        assert!(contains(&received[0], word), "{word}");
    }
    let again = telemetry::init(&Log::default(), &trace, "selvage-edge", "edge-7");
    assert!(matches!(again, Err(telemetry::Error::AlreadySet { .. })));
}
