//! How long gRPC calls take: layers for servers and clients.
//!
//! A call is timed until the head of its answer has come: all of a short one, and of a stream the
//! time until it is taken.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{Request, Response};
use tower::{Layer, Service};

use super::{Histograms, Metrics, SECONDS};

/// What is called, and what became of it.
const LABELS: &[&str] = &["service", "method", "outcome"];

/// The gRPC status of a method that the server does not have.
const UNIMPLEMENTED: &str = "12";

/// Times the calls of one server, or those to all servers of one kind.
///
/// ```
/// # use tonic::transport::Channel;
/// # fn f(channel: Channel, metrics: &node::metrics::Metrics) {
/// let timed = node::metrics::Calls::made(metrics).timed(channel); // for MyClient::new(timed)
/// # let _ = timed; }
/// ```
#[derive(Debug, Clone)]
pub struct Calls {
    seconds: Histograms,
}

impl Calls {
    /// Those that are answered here: `selvage_grpc_server_seconds`. Once for a [`Metrics`].
    #[must_use]
    pub fn answered(metrics: &Metrics) -> Self {
        Self {
            seconds: metrics.histograms(
                "selvage_grpc_server_seconds",
                "From a gRPC call to the head of our answer.",
                LABELS,
                SECONDS,
            ),
        }
    }

    /// Those that are made here: `selvage_grpc_client_seconds`. Once for a [`Metrics`].
    #[must_use]
    pub fn made(metrics: &Metrics) -> Self {
        Self {
            seconds: metrics.histograms(
                "selvage_grpc_client_seconds",
                "From a gRPC call of ours to the head of its answer.",
                LABELS,
                SECONDS,
            ),
        }
    }

    /// A client, or a server, whose calls are timed.
    pub fn timed<S>(&self, inner: S) -> Timed<S> {
        let calls = self.clone();
        Timed { inner, calls }
    }

    fn note<B, E>(&self, path: &str, began: Instant, answer: &Result<Response<B>, E>) {
        let status = match answer {
            Ok(answer) => answer.headers().get("grpc-status"),
            Err(_) => None,
        };
        let (service, method) = match status {
            // Anybody may ask for what is not there, by any name.
            Some(status) if status == UNIMPLEMENTED => ("other", "other"),
            _ => named(path),
        };
        let good = answer.is_ok() && status.is_none_or(|status| status == "0");
        let outcome = if good { "ok" } else { "failed" };
        let labels = [service, method, outcome];
        let seconds = self.seconds.with_label_values(&labels);
        seconds.observe(began.elapsed().as_secs_f64());
    }
}

/// `Media` and `Link` of `/selvage.v1.Media/Link`.
fn named(path: &str) -> (&str, &str) {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let service = parts.next().unwrap_or_default();
    let method = parts.next().unwrap_or_default();
    (service.rsplit('.').next().unwrap_or_default(), method)
}

impl<S> Layer<S> for Calls {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        self.timed(inner)
    }
}

/// A client or a server under [`Calls`].
#[derive(Debug, Clone)]
pub struct Timed<S> {
    inner: S,
    calls: Calls,
}

impl<S, A, B> Service<Request<A>> for Timed<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let (calls, began) = (self.calls.clone(), Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            calls.note(&path, began, &answer);
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Option<&str>) -> Result<Response<()>, ()> {
        let mut answer = Response::builder();
        if let Some(status) = status {
            answer = answer.header("grpc-status", status);
        }
        answer.body(()).map_err(drop)
    }

    #[tokio::test]
    async fn calls_are_told_apart_and_what_is_not_there_has_one_name() {
        let metrics = Metrics::new("edge", "edge-0");
        let calls = Calls::answered(&metrics);
        let began = Instant::now();
        calls.note("/selvage.v1.Media/Link", began, &answer(None));
        calls.note("/selvage.v1.Media/Link", began, &answer(Some("14")));
        calls.note("/selvage.v1.Media/Link", began, &Err::<Response<()>, _>(()));
        for name in ["/a/b", "/c/d", "nonsense"] {
            calls.note(name, began, &answer(Some(UNIMPLEMENTED)));
        }
        let text = metrics.text().await;
        for (service, method, outcome, count) in [
            ("Media", "Link", "ok", 1),
            ("Media", "Link", "failed", 2),
            ("other", "other", "failed", 3),
        ] {
            let line = format!(
                "selvage_grpc_server_seconds_count{{method=\"{method}\",outcome=\"{outcome}\",\
                 service=\"{service}\"}} {count}\n"
            );
            assert!(text.contains(&line), "no {line} in {text}");
        }
    }
}
