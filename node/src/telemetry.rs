//! Logs, traces, and the context that ties the traces of several processes together.
//!
//! * Logs go to standard error, for people or as JSON, filtered by `log.filter` or `RUST_LOG`.
//! * Traces go by OTLP over gRPC, when the standard `OTEL_*` variables or `trace.endpoint` say
//!   where. Without, spans still get identifiers, so that a context that came in goes out again.
//! * [`Inject`] and [`Extract`] carry the W3C context in the metadata of every gRPC call; a
//!   [`SpanPlace`] is its text for anything else.
//! * A [`Phase`] is a span without a task around it, with times of its own. What is done for
//!   clients is told in phases: a trace is looked at while the stream is live, and a span that
//!   has not ended is not there.
//! * [`frames`] makes the spans of single media frames, from times that were measured before.
//!
//! A span costs about two microseconds when it is exported. Spans belong to requests, and to the
//! few media frames that somebody chose to follow.
//!
//! | variable | meaning |
//! |---|---|
//! | `OTEL_SDK_DISABLED=true`, `OTEL_TRACES_EXPORTER=none` | no export, whatever else is said |
//! | `OTEL_TRACES_EXPORTER=otlp` | export, to `http://localhost:4317` unless told otherwise |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | export to there |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who we are |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | which traces; wins over `trace.sample`, and over the choice of frames |
//! | `OTEL_BSP_*`, `OTEL_EXPORTER_OTLP_{HEADERS,TIMEOUT}` | as the specification says |

mod context;
mod export;
pub mod frames;
mod phase;

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Invalid, Validate};

pub use context::{Extract, Extracting, Inject, Injecting};
pub use context::{extract, extract_headers, inject, inject_headers};
pub use phase::{Kind, Phase, SpanPlace, is_traced};

/// The target of spans that give log lines their context and are no part of a trace: they last
/// as long as a connection does.
pub const UNTRACED: &str = "selvage::untraced";

/// How long the last spans have to leave when the process ends.
const FLUSH: Duration = Duration::from_secs(3);

/// The table `log` of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged, as in `info,edge=debug`. The variable `RUST_LOG` wins over it.
    pub filter: String,
    /// How lines look.
    pub format: Format,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info".into(),
            format: Format::Human,
        }
    }
}

impl Validate for Log {
    fn validate(&self) -> Result<(), Invalid> {
        match EnvFilter::builder().parse(&self.filter) {
            Ok(_) => Ok(()),
            Err(_) => Err(Invalid::new(
                "filter",
                format!("{:?}", self.filter),
                "levels by module, such as info or warn,edge=debug",
            )),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line for a person, in colour when standard error is a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// The table `trace` of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// The OTLP/gRPC collector, such as `http://collector:4317`. None exports nothing unless the
    /// `OTEL_*` variables ask for it.
    pub endpoint: Option<String>,
    /// The share of traces that start here and are exported, 0 to 1. A trace that a caller
    /// started follows the caller's choice.
    pub sample: f64,
    /// Whether clients may say which trace their requests belong to. Whoever may decides that
    /// these are exported, so it is nothing for an edge that strangers reach.
    pub clients: bool,
    /// An edge traces one in so many key frames of each stream that is published there, on its
    /// way to the viewers; 0 is none of them, but those that an operator asks for. `sample`
    /// does not thin them out. It means nothing to an origin.
    pub frames: u32,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample: 1.0,
            clients: false,
            frames: 0,
        }
    }
}

impl Validate for Trace {
    fn validate(&self) -> Result<(), Invalid> {
        if !(0.0..=1.0).contains(&self.sample) {
            return Err(Invalid::new("sample", self.sample, "a share from 0 to 1"));
        }
        if let Some(endpoint) = &self.endpoint
            && !endpoint
                .parse::<http::Uri>()
                .is_ok_and(|uri| uri.scheme().is_some())
        {
            let expected = "a URL such as http://collector:4317";
            return Err(Invalid::new("endpoint", format!("{endpoint:?}"), expected));
        }
        Ok(())
    }
}

/// Why logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filter of the log is not one.
    #[error(
        "{from} = {filter:?} is no log filter, expected levels by module such as info,edge=debug"
    )]
    Filter {
        /// `RUST_LOG` or `log.filter`.
        from: &'static str,
        /// The filter.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// An `OTEL_*` variable asks for what this program does not have.
    #[error("{variable}={value} is not supported, expected {expected}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is supported.
        expected: &'static str,
    },
    /// The exporter cannot be made.
    #[error("cannot set up the export of traces")]
    Exporter {
        /// Why.
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// Somebody else has set up logging in this process.
    #[error("logging is set up already")]
    AlreadySet {
        /// What the subscriber said.
        source: tracing_subscriber::util::TryInitError,
    },
}

/// Ends the export of traces in an orderly way.
#[derive(Debug)]
#[must_use = "dropping the guard ends the export of traces"]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
    exports: bool,
}

/// Sets up logs and traces for the whole process. Must be called within the tokio runtime that
/// lives until the guard is gone: the exporter's connection belongs to it.
///
/// `service` is what traces call this program unless `OTEL_SERVICE_NAME` does; `node` is which of
/// them this is.
///
/// # Errors
/// See [`Error`].
pub fn init(log: &Log, trace: &Trace, service: &str, node: &str) -> Result<Guard, Error> {
    let (provider, exports) = export::provider(trace, service, node, &variable)?;
    let filter = log_filter(log, variable("RUST_LOG"))?;
    let human = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        Format::Human => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            human.with_ansi(colour).boxed()
        }
        Format::Json => human.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces(&provider))
        .try_init()
        .map_err(|source| Error::AlreadySet { source })?;
    if exports {
        phase::trace_with(provider.tracer("selvage"));
    }
    Ok(Guard {
        provider: Some(provider),
        exports,
    })
}

/// Whether the variables and the configuration ask for traces to leave.
///
/// # Errors
/// They ask for what there is not.
pub fn exports(trace: &Trace) -> Result<bool, Error> {
    Ok(export::Export::decide(trace, &variable)? != export::Export::Off)
}

impl Guard {
    /// Whether traces leave this process.
    pub fn exports(&self) -> bool {
        self.exports
    }

    /// Sends what is left, for at most three seconds, off the runtime's threads.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.provider.take() {
            let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH));
            if let Ok(Err(error)) = ended.await {
                tracing::warn!(%error, "the last traces may be lost");
            }
        }
    }
}

impl Drop for Guard {
    /// Sends what is left without waiting for it: a drop may happen on a thread that the exporter
    /// needs. [`Guard::shutdown`] waits.
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            std::thread::spawn(move || {
                let _ = provider.shutdown_with_timeout(FLUSH);
            });
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn log_filter(log: &Log, rust_log: Option<String>) -> Result<EnvFilter, Error> {
    let (from, filter) = rust_log.map_or(("log.filter", log.filter.clone()), |filter| {
        ("RUST_LOG", filter)
    });
    EnvFilter::builder()
        .parse(&filter)
        .map_err(|source| Error::Filter {
            from,
            filter,
            source,
        })
}

/// The layer that turns our spans into traces. The libraries below the exporter are left out:
/// an export that traces itself never ends.
fn traces<S>(provider: &SdkTracerProvider) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let ours = Targets::new().with_default(LevelFilter::INFO).with_targets(
        [
            "h2",
            "hyper",
            "hyper_util",
            "tonic",
            "tower",
            "opentelemetry",
            "opentelemetry_sdk",
            "opentelemetry_otlp",
            UNTRACED,
        ]
        .map(|target| (target, LevelFilter::OFF)),
    );
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("selvage"))
        .with_filter(ours)
}

#[cfg(test)]
mod tests;
