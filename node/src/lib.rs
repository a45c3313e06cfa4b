//! What every process needs: configuration, telemetry, TLS, health, drain, links.
