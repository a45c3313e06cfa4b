//! The spans of the client commands, where the `OTEL_*` variables say that there are any.

use std::sync::Arc;

use client::{Options, Request, Span, Tracer, What};
use node::telemetry::{self, Guard, Kind, Log, Phase, Trace};

/// Begins the export, if there is one. Must be called within the runtime.
///
/// # Errors
/// The variables ask for what there is not.
pub(crate) fn begin() -> Result<Option<Guard>, telemetry::Error> {
    let trace = Trace::default();
    if !telemetry::exports(&trace)? {
        return Ok(None);
    }
    let log = Log {
        filter: "warn".into(),
        ..Log::default()
    };
    let node = format!("selvage-{}", std::process::id());
    telemetry::init(&log, &trace, "selvage-client", &node).map(Some)
}

/// The same, with spans if they leave this process.
pub(crate) fn traced(options: Options) -> Options {
    if telemetry::is_traced() {
        options.with_tracer(Arc::new(Spans))
    } else {
        options
    }
}

/// The beginning of something that a command does without the library's making a span of it;
/// of no cost where none leave this process.
pub(crate) fn begin_phase(name: &'static str, kind: Kind) -> Phase {
    Phase::root(name, kind, None)
}

#[derive(Debug)]
struct Spans;

impl Tracer for Spans {
    fn begin(&self, request: &Request<'_>) -> Box<dyn Span> {
        let (name, key) = match request.what {
            What::Publish => ("client.publish", "selvage.stream.name"),
            What::Play => ("client.play", "selvage.stream.name"),
            What::Write => ("client.write", "selvage.object.name"),
            What::Call => ("client.call", "rpc.method"),
        };
        // What stands behind a stream's name may be a secret.
        let shown = match request.what {
            What::Publish | What::Play => request.name.split('?').next().unwrap_or_default(),
            What::Write | What::Call => request.name,
        };
        let mut phase = Phase::root(name, Kind::Client, None);
        phase.show(key, shown);
        phase.show("server.address", request.server);
        Box::new(One(phase))
    }
}

struct One(Phase);

impl Span for One {
    fn context(&self) -> Option<String> {
        self.0.sampled().map(|place| place.text())
    }

    fn fail(&mut self, why: &str) {
        self.0.fail(why.to_owned());
    }
}
