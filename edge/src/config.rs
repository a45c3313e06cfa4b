//! What an edge can be told: TOML file, then `SELVAGE_` environment, then flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::EdgeId;
use node::config::{Invalid, Secret, Validate};
use serde::{Deserialize, Serialize};

use crate::proxy::Trust;

/// The configuration of an edge. Every key has a default but `origins`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The edge's name, unique in the cluster.
    pub id: String,
    /// Where origins are: `host:port`, `unix:/path`, or `dns:name:port` for all records of
    /// a name, which is resolved again and again.
    pub origins: Vec<String>,
    /// Threads that hold connections; 0 takes one per core.
    pub shards: usize,
    /// How long clients may stay when the edge drains.
    #[serde(with = "node::config::duration")]
    pub drain_grace: Duration,
    /// Where clients come in.
    pub listen: Listen,
    /// RTMPS certificates.
    pub tls: Tls,
    /// Clients that come by datagrams.
    pub rtmfp: Rtmfp,
    /// Players.
    pub play: Play,
    /// Publishers.
    pub publish: Publish,
    /// SharedObjects.
    pub objects: Objects,
    /// Windows, pings and certificates of the links to origins.
    pub link: node::link::Settings,
    /// Bounds.
    pub limits: Limits,
    /// What operators may tell it.
    pub admin: node::admin::Settings,
    /// What is scraped beyond what always is.
    pub metrics: node::metrics::Settings,
    /// What is logged.
    pub log: node::telemetry::Log,
    /// Where traces go.
    pub trace: node::telemetry::Trace,
}

/// Where clients come in. Port 0 takes a free port, which is printed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// RTMP.
    pub rtmp: SocketAddr,
    /// RTMP over TLS; absent is off.
    pub rtmps: Option<SocketAddr>,
    /// Whether RTMP and RTMPS come through load balancers that say who the client is, by the
    /// PROXY protocol (version 1 or 2): true, or the networks of the load balancers. Whoever
    /// sends no header is then refused.
    pub proxy_protocol: Trust,
    /// RTMFP, over UDP; absent is where RTMP is.
    pub rtmfp: Option<SocketAddr>,
    /// Health, over HTTP.
    pub http: SocketAddr,
}

/// Clients that come by datagrams.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rtmfp {
    /// Whether they may come.
    pub enabled: bool,
    /// Who is told of a client of this edge that wants to talk with it directly.
    pub peers: Introductions,
    /// What clients must bring when they connect: as an argument of `connect`, as a part of the
    /// path of their URL, or as `developerKey` in its query. Absent asks for nothing.
    pub developer_key: Option<Secret>,
}

/// Which peers are told of one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Introductions {
    /// Whoever knows a peer's ID is introduced to it.
    #[default]
    All,
    /// Only clients of the same instance of an application are.
    SameApp,
    /// Nobody is.
    None,
}

/// RTMPS certificates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM certificate chain; read again when it changes.
    pub cert: Option<PathBuf>,
    /// PEM private key.
    pub key: Option<PathBuf>,
    /// Make a certificate for this run. For trials: clients cannot verify it.
    pub self_signed: bool,
}

/// Players.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Play {
    /// How long what arrives for a stream may wait for more, so that both leave in one
    /// system call. Costs up to this much delay; 0 sends everything at once.
    #[serde(with = "node::config::duration")]
    pub coalesce: Duration,
    /// Chunk size towards clients, bytes.
    pub chunk_size: u32,
    /// How long a stream stays subscribed after its last viewer.
    #[serde(with = "node::config::duration")]
    pub linger: Duration,
    /// How long viewers wait for a publisher that is being re-attached before they are told
    /// that it is gone.
    #[serde(with = "node::config::duration")]
    pub interrupted: Duration,
}

/// Publishers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Publish {
    /// How long a publisher's session is kept while no origin holds its stream.
    #[serde(with = "node::config::duration")]
    pub keep: Duration,
    /// How long a client waits for the right to publish when no origin answers.
    #[serde(with = "node::config::duration")]
    pub wait: Duration,
    /// How long a publisher may be silent when somebody else wants its name; then it counts
    /// as gone.
    #[serde(with = "node::config::duration")]
    pub timeout: Duration,
}

/// SharedObjects.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objects {
    /// Who wins when two clients write one slot.
    pub policy: Conflict,
    /// Applications whose objects take the last writer's word, whatever `policy` says.
    pub last_writer_wins: Vec<String>,
    /// How long a write may wait to be decided before the client is told that it was refused.
    #[serde(with = "node::config::duration")]
    pub write_wait: Duration,
    /// How long an object stays open after its last user here left.
    #[serde(with = "node::config::duration")]
    pub linger: Duration,
    /// Requests of one client that may be under way before it is read no further.
    pub under_way: usize,
    /// Objects and folders of objects that clients may use; `/` is all of them.
    pub read: Vec<String>,
    /// Objects and folders of objects that clients may change; `/` is all of them.
    pub write: Vec<String>,
}

/// Who wins when two clients write one slot of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    /// The first: who has not seen the newest value is refused, and told it.
    #[default]
    Optimistic,
    /// The last.
    LastWriterWins,
}

/// Bounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections in total.
    pub connections: usize,
    /// Connections from one address.
    pub connections_per_address: usize,
    /// Streams that clients may publish, and streams that they may watch, at once. A client
    /// that invents names makes the edge ask for each; one that is live costs up to 16 MiB.
    pub streams: usize,
    /// A client that has not sent its `connect` by then is closed; so is one whose TLS or
    /// RTMP handshake takes longer than ten seconds.
    #[serde(with = "node::config::duration")]
    pub connect_time: Duration,
}

/// Nothing that waits on a client or an origin waits longer.
const PATIENCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A good delay against the cost of system calls: a video frame of a 30 Hz stream and the
/// audio around it leave together.
const COALESCE: Duration = Duration::from_millis(20);

impl Default for Config {
    fn default() -> Self {
        Self {
            id: "edge-0".into(),
            origins: Vec::new(),
            shards: 0,
            drain_grace: Duration::from_secs(30),
            listen: Listen::default(),
            tls: Tls::default(),
            rtmfp: Rtmfp::default(),
            play: Play::default(),
            publish: Publish::default(),
            objects: Objects::default(),
            link: node::link::Settings::default(),
            limits: Limits::default(),
            admin: node::admin::Settings::default(),
            metrics: node::metrics::Settings::default(),
            log: node::telemetry::Log::default(),
            trace: node::telemetry::Trace::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            rtmp: ([0, 0, 0, 0], 1935).into(),
            rtmps: None,
            proxy_protocol: Trust::default(),
            rtmfp: None,
            http: ([127, 0, 0, 1], 8080).into(),
        }
    }
}

impl Default for Rtmfp {
    fn default() -> Self {
        Self {
            enabled: true,
            peers: Introductions::default(),
            developer_key: None,
        }
    }
}

impl Default for Play {
    fn default() -> Self {
        Self {
            coalesce: COALESCE,
            chunk_size: 60_000,
            linger: Duration::from_secs(5),
            interrupted: Duration::from_secs(30),
        }
    }
}

impl Default for Publish {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(30),
            wait: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
        }
    }
}

impl Default for Objects {
    fn default() -> Self {
        Self {
            policy: Conflict::default(),
            last_writer_wins: Vec::new(),
            write_wait: Duration::from_secs(5),
            linger: Duration::from_secs(5),
            under_way: 16,
            read: vec!["/".into()],
            write: vec!["/".into()],
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_000,
            connections_per_address: 8_000,
            streams: 8_192,
            connect_time: Duration::from_secs(10),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Invalid> {
        EdgeId::new(&self.id)
            .map_err(|e| Invalid::new("id", &self.id, format!("a name without slashes: {e}")))?;
        if !(128..=65_536).contains(&self.play.chunk_size) {
            let expected = "a number of bytes from 128 to 65536";
            return Err(Invalid::new(
                "play.chunk_size",
                self.play.chunk_size,
                expected,
            ));
        }
        if self.play.coalesce > Duration::from_secs(1) {
            let value = node::config::format_duration(self.play.coalesce);
            return Err(Invalid::new("play.coalesce", value, "at most 1s"));
        }
        if self.shards > 256 {
            return Err(Invalid::new(
                "shards",
                self.shards,
                "at most 256, or 0 for one per core",
            ));
        }
        let limits = &self.limits;
        for (key, value) in [
            ("limits.connections", limits.connections),
            (
                "limits.connections_per_address",
                limits.connections_per_address,
            ),
            ("limits.streams", limits.streams),
            ("objects.under_way", self.objects.under_way),
        ] {
            if value == 0 {
                return Err(Invalid::new(key, value, "at least 1"));
            }
        }
        for (key, value) in [
            ("drain_grace", self.drain_grace),
            ("play.linger", self.play.linger),
            ("play.interrupted", self.play.interrupted),
            ("publish.keep", self.publish.keep),
            ("publish.wait", self.publish.wait),
            ("publish.timeout", self.publish.timeout),
            ("objects.write_wait", self.objects.write_wait),
            ("objects.linger", self.objects.linger),
            ("limits.connect_time", limits.connect_time),
        ] {
            if value > PATIENCE_MAX {
                let value = node::config::format_duration(value);
                return Err(Invalid::new(key, value, "at most one day"));
            }
        }
        let empty = |key: &Secret| key.expose().is_empty();
        if self.rtmfp.developer_key.as_ref().is_some_and(empty) {
            let expected = "a key, or none at all";
            return Err(Invalid::new("rtmfp.developer_key", "''", expected));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            return Err(Invalid::new(
                "tls.key",
                "absent",
                "both tls.cert and tls.key, or neither",
            ));
        }
        if self.tls.cert.is_some() && self.tls.self_signed {
            return Err(Invalid::new(
                "tls.self_signed",
                true,
                "false beside tls.cert",
            ));
        }
        let material = self.tls.cert.is_some() || self.tls.self_signed;
        if self.listen.rtmps.is_some() && !material {
            let expected = "tls.cert and tls.key, or tls.self_signed, for listen.rtmps";
            return Err(Invalid::new("tls.cert", "absent", expected));
        }
        if let Err(text) = self.listen.proxy_protocol.networks() {
            let expected = "true, false, or networks such as [\"10.0.0.0/8\"]";
            return Err(Invalid::new(
                "listen.proxy_protocol",
                format!("{text:?}"),
                expected,
            ));
        }
        if self.origins.is_empty() {
            let expected = "at least one host:port, unix:/path or dns:name:port";
            return Err(Invalid::new("origins", "[]", expected));
        }
        for origin in &self.origins {
            origin.parse::<node::resolve::Entry>().map_err(|_| {
                let expected = "host:port, unix:/path or dns:name:port";
                Invalid::new("origins", format!("{origin:?}"), expected)
            })?;
        }
        self.link.validate().map_err(|e| e.within("link"))?;
        self.admin.validate().map_err(|e| e.within("admin"))?;
        self.metrics.validate().map_err(|e| e.within("metrics"))?;
        self.log.validate().map_err(|e| e.within("log"))?;
        self.trace.validate().map_err(|e| e.within("trace"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_refuses_unknown_keys() {
        assert_eq!(
            node::config::lenient_tables::<Config>(),
            Vec::<String>::new()
        );
    }
}
