//! What every process needs: configuration, telemetry, TLS, health, drain, links.
//!
//! This crate knows no protocol. An edge and an origin are different programs that start, listen,
//! report and end in the same way; what is the same is here, once.
//!
//! # The life of a process
//!
//! ```text
//!   config::Sources ──load──> Loaded<Config>          file < environment < flags
//!        │                                             (wrong: one line that names the key; exit 64)
//!   telemetry::init ──────────> Guard                  logs to stderr, traces by OTLP
//!        │
//!   Drain ── shutdown::on_signals                      1st SIGTERM drains, 2nd ends at once
//!        │
//!   Health ── bind ── announce::listening              /livez /readyz /startupz /metrics
//!        │
//!   link::Listener ── incoming ── link::server         gRPC for the other role
//!   resolve::follow ── link::connect                   …and to it
//!        │
//!   drain.draining() ── drain.idle_within(grace) ── guard.shutdown()
//! ```
//!
//! # The modules
//!
//! | module | one idea |
//! |---|---|
//! | [`config`] | layers of values that know where they were written |
//! | [`telemetry`] | logs, traces, and the context that crosses processes |
//! | [`tls`] | certificates that are replaced while they serve |
//! | [`certificate`] | a certificate for development that is kept on disk |
//! | [`admin`] | what an operator tells a node |
//! | [`health`] | what an orchestrator asks |
//! | [`metrics`] | what a Prometheus scrapes |
//! | [`process`] | runtime, telemetry and exit code around a role |
//! | [`shutdown`] | the wish to stop and the count of what is left |
//! | [`link`] | how a gRPC connection is made: TCP, TLS, Unix socket, memory |
//! | [`resolve`] | which origins there are |
//! | [`announce`] | the only lines on standard output |
//! | [`rate`] | counters that speak once a second |
//! | [`limits`] | what all this may hold, and why that much |
//!
//! # A server in full
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use node::health::Health;
//! use node::link::{self, Listener};
//! use node::shutdown::Drain;
//! use node::{announce, telemetry};
//! use std::time::Duration;
//!
//! let drain = Drain::new();
//! let health = Health::new(drain.clone());
//! let probes = health.bind(([127, 0, 0, 1], 0).into()).await?;
//! announce::listening("origin-0", "http", probes.addr());
//! let probing = tokio::spawn(probes.run(std::future::pending()));
//!
//! let settings = link::Settings::default();
//! let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await?;
//! announce::listening("origin-0", "fabric", &listener);
//! let serving = link::server(&settings)
//!     .layer(telemetry::Extract)
//!     .add_routes(tonic::service::Routes::default()) // .add_service(MediaServer::new(..))
//!     .serve_with_incoming_shutdown(listener.incoming(), drain.draining());
//! health.started();
//!
//! # drain.start(); // The first SIGTERM does this, by way of `shutdown::on_signals`.
//! serving.await?;
//! let left = drain.idle_within(Duration::from_secs(30)).await;
//! assert_eq!(left, Ok(()));
//! probing.abort();
//! # Ok(()) }
//! ```

pub mod admin;
pub mod announce;
pub mod certificate;
pub mod config;
pub mod health;
pub mod limits;
pub mod link;
pub mod metrics;
pub mod process;
pub mod rate;
pub mod resolve;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
