//! What every process needs: configuration, telemetry, TLS, health, drain, links.

pub mod announce;
pub mod config;
pub mod health;
pub mod limits;
pub mod link;
pub mod process;
pub mod rate;
pub mod resolve;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
