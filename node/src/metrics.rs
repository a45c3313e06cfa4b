//! What a Prometheus scrapes: `/metrics`, in the text format 0.0.4.
//!
//! A [`Metrics`] is the set of one node. Figures are of three makes, by what they cost:
//!
//! * What happens seldom is counted where it happens ([`Counter`], [`Gauge`], [`Histogram`]):
//!   one atomic addition.
//! * What happens for every message is counted by its thread alone ([`Counter::local`],
//!   [`Histogram::local`]) and added up when somebody scrapes.
//! * What somebody knows anyway is asked for when somebody scrapes: [`Metrics::on_scrape`].
//!
//! Names begin with `selvage_`, say their unit, and end in `_total` when they only grow. Labels
//! have few values, all of them known when this is compiled: nothing that a client says is a label,
//! but the names of streams if somebody asks for that ([`PerStream`]), and then of so many.

mod calls;
mod single;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus::{Encoder as _, HistogramOpts, Opts, TextEncoder};
use tracing::warn;

pub use calls::{Calls, Timed};
pub use single::{About, Named, PerStream, STREAMS_MAX, Settings};

/// A sum that only grows.
pub type Counter = prometheus::IntCounter;
/// Sums that only grow, told apart by labels.
pub type Counters = prometheus::IntCounterVec;
/// What is at present.
pub type Gauge = prometheus::IntGauge;
/// What is at present, told apart by labels.
pub type Gauges = prometheus::IntGaugeVec;
/// How often what took how long, in seconds.
pub type Histogram = prometheus::Histogram;
/// How often what took how long, told apart by labels.
pub type Histograms = prometheus::HistogramVec;
/// A counter of one thread, which is added up by `flush`.
pub type LocalCounter = prometheus::local::LocalIntCounter;
/// A histogram of one thread, which is added up by `flush`.
pub type LocalHistogram = prometheus::local::LocalHistogram;

/// From 0.1 ms to 10 s: what happens inside one process, between two of them, and what a
/// viewer notices.
pub const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// What is asked when somebody scrapes has to answer within this: the scrape goes on without.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

type Asked = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The figures of one node. Clones are the same set.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: prometheus::Registry,
    asked: Mutex<Vec<Arc<Asked>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// The figures of a node of this role, with what the system knows of the process
    /// (`process_*`) and which version it is (`selvage_build_info`).
    #[must_use]
    pub fn new(role: &str, id: &str) -> Self {
        let metrics = Self {
            inner: Arc::new(Inner {
                registry: prometheus::Registry::new(),
                asked: Mutex::default(),
            }),
        };
        metrics.register(prometheus::process_collector::ProcessCollector::for_self());
        let info = metrics.gauges(
            "selvage_build_info",
            "Which version runs as what: always 1.",
            &["role", "id", "version"],
        );
        info.with_label_values(&[role, id, env!("CARGO_PKG_VERSION")])
            .set(1);
        metrics
    }

    /// A new sum that only grows.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.made(Counter::new(name, help))
    }

    /// New sums that only grow, told apart by `labels`.
    #[must_use]
    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&'static str],
    ) -> Counters {
        self.made(Counters::new(Opts::new(name, help), labels))
    }

    /// A new figure of what is at present.
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.made(Gauge::new(name, help))
    }

    /// New figures of what is at present, told apart by `labels`.
    #[must_use]
    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&'static str],
    ) -> Gauges {
        self.made(Gauges::new(Opts::new(name, help), labels))
    }

    /// A new histogram; `buckets` are their upper bounds, such as [`SECONDS`].
    #[must_use]
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: &'static [f64],
    ) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.made(Histogram::with_opts(opts))
    }

    /// New histograms, told apart by `labels`.
    #[must_use]
    pub fn histograms(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[&'static str],
        buckets: &'static [f64],
    ) -> Histograms {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.made(Histograms::new(opts, labels))
    }

    /// Has `ask` called at every scrape, and waits a second for what it returns: it sets gauges
    /// and adds up what threads have counted for themselves.
    pub fn on_scrape<F, A>(&self, ask: A)
    where
        A: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let asked: Asked = Box::new(move || Box::pin(ask()));
        self.asked().push(Arc::new(asked));
    }

    /// Everything, as Prometheus reads it.
    pub async fn text(&self) -> String {
        let asked = self.asked().clone();
        for ask in asked {
            if tokio::time::timeout(ANSWER_WITHIN, ask()).await.is_err() {
                warn!("figures are missing from a scrape: who knows them does not answer");
            }
        }
        let mut text = Vec::new();
        // Families are encoded one by one: one that cannot be is left out with its reason.
        for family in self.inner.registry.gather() {
            let before = text.len();
            if let Err(error) = TextEncoder::new().encode(&[family], &mut text) {
                text.truncate(before);
                warn!(%error, "a figure cannot be scraped");
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The path `/metrics`, to be merged into a router that serves more.
    pub fn router(&self) -> Router {
        let metrics = self.clone();
        Router::new().route(
            "/metrics",
            get(move || async move { answer(metrics.text().await) }),
        )
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Asked>>> {
        let asked = &self.inner.asked;
        asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names, labels and buckets are written in the code: one that is wrong, or there twice, is
    /// a mistake of ours that the first test finds.
    #[allow(clippy::expect_used, reason = "see above")]
    fn made<M>(&self, made: prometheus::Result<M>) -> M
    where
        M: prometheus::core::Collector + Clone + 'static,
    {
        let made = made.expect("a figure's name is one");
        self.register(made.clone());
        made
    }

    #[allow(clippy::expect_used, reason = "as in `made`")]
    fn register(&self, collector: impl prometheus::core::Collector + 'static) {
        let registry = &self.inner.registry;
        registry
            .register(Box::new(collector))
            .expect("a figure is registered once");
    }
}

/// Sets a counter to what somebody else has counted. What is less than before is left alone.
pub fn catch_up(counter: &Counter, counted: u64) {
    counter.inc_by(counted.saturating_sub(counter.get()));
}

/// A gauge's value of any number.
#[must_use]
pub fn level<N: TryInto<i64>>(number: N) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn answer(text: String) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4");
    (StatusCode::OK, [kind], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_scrape_shows_what_was_counted_and_asks_for_the_rest() {
        let metrics = Metrics::new("edge", "edge-0");
        let counted = metrics.counter("selvage_things_total", "Things.");
        counted.inc_by(3);
        let level = metrics.gauge("selvage_level", "Level.");
        metrics.on_scrape({
            let level = level.clone();
            move || {
                let level = level.clone();
                async move { level.set(7) }
            }
        });
        let text = metrics.text().await;
        assert!(text.contains("# TYPE selvage_things_total counter\nselvage_things_total 3\n"));
        assert!(text.contains("selvage_level 7\n"));
        assert!(text.contains("process_resident_memory_bytes "));
        assert!(text.contains("selvage_build_info{id=\"edge-0\",role=\"edge\""));
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_does_not_keep_the_scrape() {
        let metrics = Metrics::new("edge", "edge-0");
        metrics.on_scrape(std::future::pending);
        let counted = metrics.counter("selvage_things_total", "Things.");
        counted.inc();
        assert!(metrics.text().await.contains("selvage_things_total 1\n"));
    }

    #[tokio::test]
    async fn what_a_thread_counts_for_itself_is_added_up() {
        let metrics = Metrics::new("edge", "edge-0");
        let counted = metrics.counter("selvage_things_total", "Things.");
        let local = counted.local();
        local.inc_by(2);
        assert_eq!(counted.get(), 0);
        local.flush();
        assert_eq!(counted.get(), 2);
        catch_up(&counted, 5);
        catch_up(&counted, 4);
        assert_eq!(counted.get(), 5);
    }
}
