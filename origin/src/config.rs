//! How an origin is set up.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use model::{NodeId, OriginId};
use node::config::{Invalid, Validate};
use node::link::Address;
use node::resolve::Entry;
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
    /// Where the replicated log is kept; `selvage-data/<id>` if nothing is said. One folder
    /// for each origin.
    pub data: Option<PathBuf>,
    /// This origin's number among its founders, from 1; if nothing is said, the number at
    /// the end of its id and one. A log that exists knows it better.
    pub node: Option<NonZeroU64>,
    /// The other origins.
    pub cluster: Cluster,
    /// How long a name is kept for a publisher whose edge's link is lost.
    #[serde(with = "node::config::duration")]
    pub publish_grace: Duration,
    /// How long a draining origin waits for its publications to move.
    #[serde(with = "node::config::duration")]
    pub drain_grace: Duration,
    /// Windows, pings and certificates of the links, from edges and between origins.
    pub link: node::link::Settings,
    /// What edges may make this node hold.
    pub limits: Limits,
    /// What operators may tell it.
    pub admin: node::admin::Settings,
    /// What is scraped beyond what always is.
    pub metrics: node::metrics::Settings,
    /// What is logged, and how.
    pub log: Log,
    /// Where traces go.
    pub trace: Trace,
}

/// How an origin belongs to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The cluster's name. Origins of clusters with different names do not listen to each
    /// other.
    pub name: String,
    /// The founders, this one among them, as `number=host:port`; none for a single origin.
    /// All founders must be given the same.
    pub peers: Vec<String>,
    /// Where a cluster may be found: `host:port` of each origin, this one and ones that are
    /// not there yet among them if that is easier; without `peers` also `dns:NAME:PORT`, every
    /// address of a name. One with an empty folder that is not among the founders joins
    /// whatever cluster is there, and a founder founds nothing before all of them have said
    /// that they belong to none.
    pub join: Vec<String>,
    /// Where the others reach this origin; if nothing is said, its address among the peers,
    /// or what it listens on.
    pub advertise: Option<String>,
    /// How often a leader says that it lives.
    #[serde(with = "node::config::duration")]
    pub heartbeat: Duration,
    /// A leader that is not heard of for one to two of these is replaced.
    #[serde(with = "node::config::duration")]
    pub election: Duration,
    /// An edge that no origin hears of for this long is lost.
    #[serde(with = "node::config::duration")]
    pub edge_lease: Duration,
    /// An origin whose disk has not come back from a write for this long ends: whoever is
    /// attached to it, or led by it, is served by the others.
    #[serde(with = "node::config::duration")]
    pub disk_patience: Duration,
    /// The state is saved whenever so many entries were added.
    pub snapshot_entries: u64,
    /// An origin that starts, finds that it was removed from the cluster and has `join` sets
    /// its old files aside and joins anew after this. Meanwhile whoever removed it can end it.
    #[serde(with = "node::config::duration")]
    pub rejoin_after: Duration,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "selvage".into(),
            peers: Vec::new(),
            join: Vec::new(),
            advertise: None,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(500),
            edge_lease: Duration::from_secs(5),
            disk_patience: Duration::from_secs(10),
            snapshot_entries: 100_000,
            rejoin_after: Duration::from_secs(30),
        }
    }
}

impl Cluster {
    /// The founders and where they are.
    ///
    /// # Errors
    /// Names the key.
    pub fn founders(&self) -> Result<BTreeMap<NodeId, Address>, Invalid> {
        let mut founders = BTreeMap::new();
        for peer in &self.peers {
            let parsed = peer.split_once('=').and_then(|(number, address)| {
                let node = NodeId(number.trim().parse().ok()?);
                Some((node, address.trim().parse().ok()?))
            });
            let Some((node, address)) = parsed else {
                let expected = "number=host:port, such as 1=10.0.0.1:9350";
                return Err(Invalid::new("peers", format!("{peer:?}"), expected));
            };
            if founders.insert(node, address).is_some() {
                return Err(Invalid::new("peers", peer, "every number once"));
            }
        }
        Ok(founders)
    }

    /// Where a cluster may be found.
    ///
    /// # Errors
    /// Names the key.
    pub fn to_join(&self) -> Result<Vec<Entry>, Invalid> {
        let entries = self.join.iter();
        entries
            .map(|entry| {
                let expected = "host:port, or dns:NAME:PORT";
                let parsed = entry.trim().parse();
                parsed.map_err(|_| Invalid::new("join", format!("{entry:?}"), expected))
            })
            .collect()
    }

    /// What its messages bear, so that clusters are told apart.
    #[must_use]
    pub fn id(&self) -> u64 {
        // FNV-1a: it must be the same in every version.
        self.name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

impl Validate for Cluster {
    fn validate(&self) -> Result<(), Invalid> {
        if self.name.is_empty() || self.name.len() > 64 || self.name.chars().any(char::is_control) {
            let value = format!("{:?}", self.name);
            return Err(Invalid::new("name", value, "1 to 64 bytes of text"));
        }
        self.founders()?;
        let names = self.to_join()?;
        let mut names = names.iter().filter(|entry| match entry {
            Entry::Name { .. } => true,
            Entry::Fixed(_) => false,
        });
        if !self.peers.is_empty()
            && let Some(name) = names.next()
        {
            // It founds nothing before it has heard of all, and a name does not say of how
            // many.
            let expected = "host:port of each origin beside peers";
            return Err(Invalid::new(
                "join",
                format!("{:?}", name.to_string()),
                expected,
            ));
        }
        if let Some(advertise) = &self.advertise
            && advertise.parse::<Address>().is_err()
        {
            let value = format!("{advertise:?}");
            return Err(Invalid::new("advertise", value, "host:port"));
        }
        let format = node::config::format_duration;
        if self.heartbeat < Duration::from_millis(10) {
            return Err(Invalid::new(
                "heartbeat",
                format(self.heartbeat),
                "at least 10ms",
            ));
        }
        if self.election < self.heartbeat * 3 || self.election > Duration::from_secs(60) {
            let expected = "at least three heartbeats, and at most 60s";
            return Err(Invalid::new("election", format(self.election), expected));
        }
        if self.edge_lease < Duration::from_secs(2) {
            let expected = "at least 2s: edges are heard of twice a second";
            return Err(Invalid::new(
                "edge_lease",
                format(self.edge_lease),
                expected,
            ));
        }
        if self.disk_patience < Duration::from_secs(1) {
            let expected = "at least 1s: disks are slow now and then";
            let value = format(self.disk_patience);
            return Err(Invalid::new("disk_patience", value, expected));
        }
        if self.snapshot_entries == 0 {
            return Err(Invalid::new("snapshot_entries", 0, "at least 1"));
        }
        Ok(())
    }
}

impl Config {
    /// This origin's number before its log says another.
    #[must_use]
    pub fn number(&self) -> Option<NodeId> {
        let configured = self.node.map(NodeId);
        configured.or_else(|| crate::raft::number_of(&self.id))
    }

    /// Where its log is.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let default = || std::path::Path::new("selvage-data").join(&self.id);
        self.data.clone().unwrap_or_else(default)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: "origin-0".into(),
            listen: (Ipv4Addr::UNSPECIFIED, 9350).into(),
            http: (Ipv4Addr::UNSPECIFIED, 9351).into(),
            data: None,
            node: None,
            cluster: Cluster::default(),
            publish_grace: Duration::from_secs(3),
            drain_grace: Duration::from_secs(20),
            link: node::link::Settings::default(),
            limits: Limits::default(),
            admin: node::admin::Settings::default(),
            metrics: node::metrics::Settings::default(),
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
        self.cluster
            .validate()
            .map_err(|invalid| invalid.within("cluster"))?;
        let founders = self.cluster.founders()?;
        // Who is not among the founders joins.
        let free = founders.is_empty() || !self.cluster.join.is_empty();
        match self.number() {
            Some(number) if free || founders.contains_key(&number) => {}
            Some(number) => {
                let expected = "a number that is among cluster.peers, or cluster.join";
                return Err(Invalid::new("node", number, expected));
            }
            None if free => {}
            None => {
                let expected = "a number from 1, because the id ends with none";
                return Err(Invalid::new("node", "absent", expected));
            }
        }
        self.limits
            .validate()
            .map_err(|invalid| invalid.within("limits"))?;
        self.link
            .validate()
            .map_err(|invalid| invalid.within("link"))?;
        self.admin
            .validate()
            .map_err(|invalid| invalid.within("admin"))?;
        self.metrics
            .validate()
            .map_err(|invalid| invalid.within("metrics"))?;
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
    fn a_cluster_is_given_by_its_founders() {
        let text = "id = 'origin-1'\n[cluster]\npeers = ['1=a:1', '2=b:2', '3=c:3']\n";
        let config = Sources::new()
            .text("origin.toml", text)
            .load::<Config>()
            .unwrap()
            .value;
        assert_eq!(config.number().map(|number| number.0.get()), Some(2));
        assert_eq!(config.cluster.founders().unwrap().len(), 3);
        assert_eq!(config.folder(), PathBuf::from("selvage-data/origin-1"));
        for (wrong, key) in [
            ("[cluster]\npeers = ['a:1']", "cluster.peers"),
            ("[cluster]\npeers = ['1=a:1', '1=b:1']", "cluster.peers"),
            ("node = 7\n[cluster]\npeers = ['1=a:1', '2=b:1']", "node"),
            ("id = 'x'\n[cluster]\npeers = ['1=a:1', '2=b:1']", "node"),
            ("[cluster]\njoin = ['b']", "cluster.join"),
            (
                "[cluster]\npeers = ['1=a:1']\njoin = ['dns:b:1']",
                "cluster.join",
            ),
            ("id = 'origin-1'\n[cluster]\npeers = ['1=a:1']", "node"),
            ("[cluster]\nelection = '200ms'", "cluster.election"),
            ("[cluster]\nedge_lease = '1s'", "cluster.edge_lease"),
            ("[cluster]\ndisk_patience = '0s'", "cluster.disk_patience"),
            ("[cluster]\nname = ''", "cluster.name"),
        ] {
            let text = refused(wrong);
            assert!(text.contains(&format!("`{key}`")), "{wrong}: {text}");
        }
    }

    #[test]
    fn one_configuration_serves_founders_and_those_who_join() {
        let text = "[cluster]\npeers = ['1=a:1']\njoin = ['a:1', 'b:1', 'c:1']\n";
        for id in ["origin-0", "origin-2", "without-number"] {
            let text = format!("id = '{id}'\n{text}");
            let loaded = Sources::new().text("origin.toml", &text).load::<Config>();
            assert_eq!(loaded.unwrap().value.cluster.to_join().unwrap().len(), 3);
        }
        let text = "[cluster]\njoin = ['dns:origins.media.svc:9350']\n";
        Sources::new()
            .text("origin.toml", text)
            .load::<Config>()
            .unwrap();
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
