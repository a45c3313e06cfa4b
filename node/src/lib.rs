//! What every process needs: configuration, telemetry, TLS, health, drain, links.

pub mod announce;
pub mod config;
pub mod health;
pub mod limits;
pub mod link;
pub mod shutdown;
