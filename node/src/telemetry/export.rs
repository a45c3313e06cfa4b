//! Whether, where and which traces leave the process.

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};

use super::frames::ChosenFrames;
use super::{Error, Trace};
use crate::limits;

/// What the variables and the configuration together ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Export {
    /// Nothing leaves.
    Off,
    /// To where the exporter finds in the variables, or the port 4317 of this host.
    AsVariablesSay,
    /// To the endpoint of the configuration.
    To(String),
}

impl Export {
    pub(super) fn decide(
        trace: &Trace,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        if variable("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Ok(Self::Off);
        }
        let exporter = variable("OTEL_TRACES_EXPORTER");
        match exporter.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(Self::Off),
            Some(other) => {
                return Err(Error::Variable {
                    variable: "OTEL_TRACES_EXPORTER",
                    value: other.into(),
                    expected: "otlp or none",
                });
            }
        }
        let endpoint = [
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ]
        .iter()
        .any(|name| variable(name).is_some());
        let export = match &trace.endpoint {
            _ if endpoint => Self::AsVariablesSay,
            Some(endpoint) => Self::To(endpoint.clone()),
            None if exporter.is_some() => Self::AsVariablesSay,
            None => return Ok(Self::Off),
        };
        for name in [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ] {
            if let Some(value) = variable(name).filter(|protocol| protocol != "grpc") {
                return Err(Error::Variable {
                    variable: name,
                    value,
                    expected: "grpc",
                });
            }
        }
        Ok(export)
    }
}

/// The provider of spans, and whether it exports them.
pub(super) fn provider(
    trace: &Trace,
    service: &str,
    node: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(SdkTracerProvider, bool), Error> {
    let builder = SdkTracerProvider::builder().with_resource(resource(service, node, variable));
    let exporter = SpanExporter::builder().with_tonic();
    let exporter = match Export::decide(trace, variable)? {
        // Nobody records here, so nobody further down the call shall think so. What a caller
        // decided is passed on.
        Export::Off => {
            let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
            return Ok((builder.with_sampler(sampler).build(), false));
        }
        Export::AsVariablesSay => exporter,
        Export::To(endpoint) => exporter.with_endpoint(endpoint),
    };
    crate::tls::install_provider();
    let exporter = exporter
        .build()
        .map_err(|source| Error::Exporter { source })?;
    let mut batch = BatchConfigBuilder::default();
    if variable("OTEL_BSP_MAX_QUEUE_SIZE").is_none() {
        batch = batch.with_max_queue_size(limits::SPANS_WAITING);
    }
    if variable("OTEL_BSP_SCHEDULE_DELAY").is_none() {
        batch = batch.with_scheduled_delay(limits::SPANS_EVERY);
    }
    let processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(batch.build())
        .build();
    let builder = builder.with_span_processor(processor);
    let builder = if variable("OTEL_TRACES_SAMPLER").is_some() {
        builder
    } else {
        let ours = ChosenFrames(Sampler::TraceIdRatioBased(trace.sample));
        builder.with_sampler(Sampler::ParentBased(Box::new(ours)))
    };
    Ok((builder.build(), true))
}

fn resource(service: &str, node: &str, variable: &dyn Fn(&str) -> Option<String>) -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|a| a.contains("service.name="));
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.instance.id", node.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if named {
        builder.build()
    } else {
        builder.with_service_name(service.to_owned()).build()
    }
}
