//! The part of the command line that says where to and how.

use std::path::PathBuf;
use std::time::Duration;

use client::{Connection, Fallback, Options, Target, Trust};

use crate::exit::Failure;
use crate::tracer;

/// Where to connect and what to accept there.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Remote {
    /// rtmp://host[:port]/app[/instance]/stream[?query], or rtmps://, rtmfp://, rtmfps://. The
    /// application is the first segment, or the first two when there are three or more; the
    /// rest is the stream.
    #[arg(value_name = "URL")]
    url: String,
    /// The application, where the address does not say it by the rule above.
    #[arg(long)]
    app: Option<String>,
    /// The stream, where the address does not say it by the rule above.
    #[arg(long)]
    stream: Option<String>,
    /// Where to go when datagrams do not get through (rtmfp, rtmfps); otherwise the same host
    /// and port, by rtmp or rtmps.
    #[arg(long, value_name = "URL")]
    fallback: Option<String>,
    /// Accept any certificate (rtmps).
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// Accept certificates signed by the authorities in this PEM file (rtmps).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Seconds that the server may take for each step of the beginning.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    patience: Duration,
}

impl Remote {
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let mut target: Target = self.url.parse().map_err(client::Error::Url)?;
        if let Some(app) = &self.app {
            target = target.with_app(app);
        }
        if let Some(stream) = &self.stream {
            target = target.with_stream(stream);
        }
        target.stream().map_err(client::Error::Url)?;
        Ok(target)
    }

    pub(crate) fn options(&self, options: Options) -> Result<Options, Failure> {
        let fallback = match &self.fallback {
            Some(url) => Fallback::To(url.parse().map_err(client::Error::Url)?),
            None => Fallback::SameHost,
        };
        let trust = match &self.ca {
            Some(file) => Trust::File(file.clone()),
            None if self.insecure => Trust::Anything,
            None => Trust::WellKnown,
        };
        Ok(tracer::traced(Options {
            trust,
            fallback,
            ..options.with_patience(self.patience)
        }))
    }
}

/// Says on standard error when a connection is not of the kind that was asked for.
#[allow(clippy::print_stderr, reason = "what a command line has to say")]
pub(crate) fn tell_fallback(connection: &Connection) {
    if let Some(fell) = connection.fell_back() {
        eprintln!(
            "selvage: no RTMFP ({}), connected to {} instead",
            fell.why, fell.to
        );
    }
}

/// Parses seconds, `2` or `0.5`.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "a number of seconds is needed, 2 or 0.5".to_owned())
}
