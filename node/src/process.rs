//! How a role's process begins and ends: runtime, telemetry, exit code.

use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::process::ExitCode;

use crate::telemetry::{self, Log, Trace};

/// The configuration is refused (`EX_USAGE` of sysexits).
pub const BAD_CONFIG: u8 = 64;

/// What a role's future may fail with.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Who runs, and how it speaks.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What traces call the program, such as `selvage-edge`.
    pub service: &'static str,
    /// Which of them this is.
    pub node: String,
    /// The table `log`.
    pub log: Log,
    /// The table `trace`.
    pub trace: Trace,
    /// Threads of the runtime; `None` is one per core.
    ///
    /// Tasks of one thread wake each other without a system call. A process whose media
    /// threads are its own, and whose runtime only carries links, is better off with one:
    /// it carries about 1 GB/s.
    pub threads: Option<usize>,
}

/// Says on standard error why a configuration is refused, and gives the exit code 64.
pub fn refuse(error: &dyn Error) -> ExitCode {
    complain("configuration refused", &chain(error));
    ExitCode::from(BAD_CONFIG)
}

/// Prints what the parser of the command line says: help and version are no failure, a
/// wrong flag is a refused configuration.
pub fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(BAD_CONFIG)
    } else {
        ExitCode::SUCCESS
    }
}

/// Runs `role` on a runtime of its own with telemetry set up. Exit code 1 says that it failed.
pub fn run(identity: &Identity, role: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    crate::tls::install_provider();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = identity.threads {
        builder.worker_threads(threads);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain("cannot start the runtime", &error);
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let Identity {
            service,
            node,
            log,
            trace,
            threads: _,
        } = identity;
        let guard = match telemetry::init(log, trace, service, node) {
            Ok(guard) => guard,
            Err(error) => return refuse(&error),
        };
        let outcome = role.await;
        let code = match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(service, &chain(&*error));
                ExitCode::FAILURE
            }
        };
        guard.shutdown().await;
        code
    })
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[allow(clippy::print_stderr, reason = "telemetry may be what failed")]
fn complain(what: &str, why: &dyn Display) {
    eprintln!("{what}: {why}");
}
