//! How an origin is set up.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use model::OriginId;
use node::config::{Invalid, Validate};
use node::telemetry::{Log, Trace};
use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// The configuration of one origin. Every key has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What this origin is called, unique in the cluster.
    pub id: String,
    /// Where edges come in (gRPC). Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where health is asked for (HTTP). Port 0 takes a free one.
    pub http: SocketAddr,
    /// How long a name is kept for a publisher whose edge's link is lost.
    #[serde(with = "node::config::duration")]
    pub publish_grace: Duration,
    /// How long a draining origin waits for its publications to move.
    #[serde(with = "node::config::duration")]
    pub drain_grace: Duration,
    /// Windows and pings of the links.
    pub link: node::link::Settings,
    /// What edges may make this node hold.
    pub limits: Limits,
    /// What is logged, and how.
    pub log: Log,
    /// Where traces go.
    pub trace: Trace,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: "origin-0".into(),
            listen: (Ipv4Addr::UNSPECIFIED, 9350).into(),
            http: (Ipv4Addr::UNSPECIFIED, 9351).into(),
            publish_grace: Duration::from_secs(3),
            drain_grace: Duration::from_secs(20),
            link: node::link::Settings::default(),
            limits: Limits::default(),
            log: Log::default(),
            trace: Trace::default(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Invalid> {
        if let Err(error) = OriginId::new(&self.id) {
            let expected = format!("a name of up to 64 bytes ({error})");
            return Err(Invalid::new("id", format!("{:?}", self.id), expected));
        }
        self.limits
            .validate()
            .map_err(|invalid| invalid.within("limits"))?;
        self.link
            .validate()
            .map_err(|invalid| invalid.within("link"))?;
        self.log
            .validate()
            .map_err(|invalid| invalid.within("log"))?;
        self.trace
            .validate()
            .map_err(|invalid| invalid.within("trace"))
    }
}

impl Validate for Limits {
    fn validate(&self) -> Result<(), Invalid> {
        let counts = [
            ("links", self.links),
            ("streams", self.streams),
            ("publications_per_link", self.publications_per_link),
            ("subscriptions_per_link", self.subscriptions_per_link),
            ("control_per_link", self.control_per_link),
        ];
        for (key, count) in counts {
            if count == 0 {
                return Err(Invalid::new(key, count, "at least 1"));
            }
        }
        if self.publication_credit == 0 {
            return Err(Invalid::new(
                "publication_credit",
                0,
                "at least one byte, such as 4MiB",
            ));
        }
        if self.backlog_total < self.backlog_bytes {
            return Err(Invalid::new(
                "backlog_total",
                node::config::format_bytes(self.backlog_total as u64),
                "at least backlog_bytes",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use node::config::Sources;

    fn refused(text: &str) -> String {
        Sources::new()
            .text("origin.toml", text)
            .load::<Config>()
            .map(|_| ())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn every_table_refuses_unknown_keys() {
        assert_eq!(
            node::config::lenient_tables::<Config>(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn the_defaults_are_valid_and_values_are_written_for_people() {
        let text = "id = 'origin-7'\npublish_grace = '250ms'\n[limits]\nbacklog_bytes = '1MiB'\n";
        let config = Sources::new()
            .text("origin.toml", text)
            .load::<Config>()
            .unwrap()
            .value;
        assert_eq!(config.id, "origin-7");
        assert_eq!(config.publish_grace, Duration::from_millis(250));
        assert_eq!(config.limits.backlog_bytes, 1 << 20);
        assert_eq!(config.limits.streams, Limits::default().streams);
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        assert!(
            refused("id = 'a/b'").contains("`id`"),
            "{}",
            refused("id = 'a/b'")
        );
        let text = "[limits]\nbacklog_total = '1MiB'";
        assert!(
            refused(text).contains("limits.backlog_total"),
            "{}",
            refused(text)
        );
        let text = "[limits]\nstreams = 0";
        assert!(
            refused(text).contains("limits.streams"),
            "{}",
            refused(text)
        );
    }
}
