//! How the client commands end.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use client::Blame;

use crate::tracer;

/// What `--help` says about it.
pub(crate) const HELP: &str = "Exit codes:
  0   it worked
  1   a file or something else on this side failed
  2   the command line is wrong
  3   no connection: unreachable, no TLS, refused or no answer
  4   the server has no such stream, or refused it (NetStream.Publish.BadName)
  5   the stream or the connection ended before its time";

/// Why a client command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong in a way that its parser does not see.
    #[error("{0}")]
    Usage(String),
    /// A file.
    #[error("{path}")]
    File {
        /// Its name.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The FLV file makes no sense.
    #[error("{path} cannot be read as FLV")]
    Flv {
        /// Its name.
        path: String,
        /// Why.
        #[source]
        source: flv::Error,
    },
    /// This process.
    #[error("{what}")]
    Here {
        /// What failed.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The variables of the traces.
    #[error(transparent)]
    Traces(node::telemetry::Error),
    /// The connection or the server.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// No connection came about.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The server refused what was asked of it, or does not have it.
    #[error("{0}")]
    Refused(String),
    /// A node says that it is not well, or refuses to do what it is told.
    #[error("{0}")]
    Unwell(String),
    /// Nothing ever came of the stream.
    #[error("nothing came of the stream within {0} s")]
    NoStream(f64),
    /// The stream stopped.
    #[error("the stream ended: {0}")]
    Ended(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::File { .. } | Self::Flv { .. } | Self::Here { .. } | Self::Unwell(_) => 1,
            Self::Usage(_) | Self::Traces(_) => USAGE,
            Self::NoConnection(_) => 3,
            Self::NoStream(_) | Self::Refused(_) => 4,
            Self::Ended(_) => 5,
            Self::Client(error) => match error.blame() {
                Blame::Caller if matches!(error, client::Error::Url(_)) => USAGE,
                Blame::Caller => 1,
                Blame::Connection => 3,
                Blame::Stream => 4,
                Blame::Interruption => 5,
            },
        }
    }
}

/// The command line is wrong.
pub(crate) const USAGE: u8 = 2;

/// Says on standard error what failed.
#[allow(clippy::print_stderr, reason = "what a command line has to say")]
pub(crate) fn report(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("selvage: {}", node::process::chain(&failure as &dyn Error));
            ExitCode::from(failure.code())
        }
    }
}

/// Runs a client command on one thread.
pub(crate) fn run(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    report(match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(source) => Err(Failure::Here {
            what: "cannot start the runtime".to_owned(),
            source,
        }),
    })
}

/// As [`run`], for a command whose requests are told in spans where the variables say so.
pub(crate) fn run_traced(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    run(async {
        let traces = tracer::begin().map_err(Failure::Traces)?;
        let outcome = command.await;
        if let Some(traces) = traces {
            traces.shutdown().await;
        }
        outcome
    })
}

/// Resolves at the first Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let wrap = |source| Failure::Here {
        what: "cannot listen for signals".to_owned(),
        source,
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(wrap)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(wrap)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_ends_with_the_code_that_help_names() {
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let url = "http://h".parse::<client::Target>().unwrap_err();
        let refused = || client::Error::Refused {
            step: "publish",
            status: Box::default(),
        };
        for (failure, code) in [
            (
                Failure::File {
                    path: "x".into(),
                    source: io(),
                },
                1,
            ),
            (Failure::Usage("x".into()), 2),
            (Failure::Client(url.into()), 2),
            (
                Failure::Client(client::Error::Resolve {
                    host: "h".into(),
                    source: None,
                }),
                3,
            ),
            (Failure::Client(refused()), 4),
            (Failure::NoConnection("x".into()), 3),
            (Failure::Refused("x".into()), 4),
            (Failure::NoStream(1.0), 4),
            (Failure::Client(client::Error::Disconnected), 5),
            (Failure::Ended("x".into()), 5),
        ] {
            assert_eq!(failure.code(), code, "{failure}");
        }
    }
}
