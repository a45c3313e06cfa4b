//! The figures of an edge.
//!
//! What happens for every read and write is counted by the shard alone ([`Counts`]) and added up
//! when somebody scrapes; no figure is kept for a client, and for a stream if somebody wants that.

use std::collections::BTreeMap;
use std::sync::Arc;

use fabric::v1::Load;
use node::metrics::{
    About, Counter, Counters, Gauge, Gauges, Histogram, LocalCounter, LocalHistogram, Metrics,
    Named, PerStream, SECONDS, Settings, catch_up, level,
};
use tokio::sync::oneshot;

use crate::accept::{Permits, Refused};
use crate::datagram::Handshakes;
use crate::shard::{ShardHandle, Standing, ToShard};
use crate::upstream::Reachable;

/// How a client comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// RTMP over TCP.
    Rtmp,
    /// RTMP over TLS.
    Rtmps,
    /// RTMFP.
    Rtmfp,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Rtmp, Self::Rtmps, Self::Rtmfp];

    /// What figures and traces call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Rtmps => "rtmps",
            Self::Rtmfp => "rtmfp",
        }
    }
}

/// The figures of one edge. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Figures(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connections: Gauges,
    connected: Counters,
    refused: Counters,
    bytes: Counters,
    delivery: Histogram,
    frames: Counter,
    skips: Counter,
    requests: Histogram,
    viewers: Gauge,
    streams: Gauges,
    backlog: Gauge,
    links: Gauge,
    handshakes: Counters,
}

/// What one shard counts.
pub(crate) struct Counts {
    received: [LocalCounter; 3],
    sent: [LocalCounter; 3],
    /// From its publisher's edge to the write to its viewers here.
    pub(crate) delivery: LocalHistogram,
    /// Frames of publishers here.
    pub(crate) frames: LocalCounter,
    /// Viewers that fell behind and skipped.
    pub(crate) skips: LocalCounter,
    /// From what a client asks of a SharedObject to its answer.
    pub(crate) requests: LocalHistogram,
}

impl Counts {
    /// Bytes were read from a client.
    pub(crate) fn received(&self, protocol: Protocol, bytes: usize) {
        self.received[protocol as usize].inc_by(bytes as u64);
    }

    /// Bytes were written to a client.
    pub(crate) fn sent(&self, protocol: Protocol, bytes: usize) {
        self.sent[protocol as usize].inc_by(bytes as u64);
    }

    /// Adds everything up.
    pub(crate) fn flush(&self) {
        for counter in self.received.iter().chain(&self.sent) {
            counter.flush();
        }
        self.delivery.flush();
        self.frames.flush();
        self.skips.flush();
        self.requests.flush();
    }
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Figures {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let figures = Inner {
            connections: metrics.gauges(
                "selvage_connections",
                "Clients that are connected.",
                &["protocol"],
            ),
            connected: metrics.counters(
                "selvage_connections_total",
                "Clients that were taken in.",
                &["protocol"],
            ),
            refused: metrics.counters(
                "selvage_connections_refused_total",
                "Clients that were not taken in: a limit, or no PROXY header.",
                &["reason"],
            ),
            bytes: metrics.counters(
                "selvage_client_bytes_total",
                "What was read from clients and written to them.",
                &["protocol", "direction"],
            ),
            delivery: metrics.histogram(
                "selvage_media_delivery_seconds",
                "From a publisher's edge reading a batch of frames to this edge writing it to \
                 the viewers of a shard. The clocks of both edges have to agree.",
                SECONDS,
            ),
            frames: metrics.counter(
                "selvage_media_frames_published_total",
                "Frames of clients that publish here.",
            ),
            skips: metrics.counter(
                "selvage_media_skips_total",
                "How often a viewer had fallen behind so far that it skipped frames.",
            ),
            requests: metrics.histogram(
                "selvage_object_request_seconds",
                "From what a client asks of a SharedObject to its answer.",
                SECONDS,
            ),
            viewers: metrics.gauge("selvage_viewers", "Plays of clients."),
            streams: metrics.gauges(
                "selvage_streams",
                "Streams that clients publish here, and that they watch (counted once for each \
                 shard that has viewers).",
                &["role"],
            ),
            backlog: metrics.gauge(
                "selvage_backlog_bytes",
                "What the shards' backlogs of watched streams cost.",
            ),
            links: metrics.gauge(
                "selvage_origins_reachable",
                "Origins that streams can be given to.",
            ),
            handshakes: metrics.counters(
                "selvage_rtmfp_handshakes_total",
                "How far RTMFP clients came: hellos answered, keys agreed upon, sessions taken in, \
                 sessions not taken in, cookies that were forged or too old, and what was not \
                 done because it was done too often.",
                &["what"],
            ),
        };
        // A figure is there before it moves.
        for protocol in Protocol::ALL {
            let name = protocol.name();
            figures.connections.with_label_values(&[name]).set(0);
            figures.connected.with_label_values(&[name]).inc_by(0);
            for direction in ["in", "out"] {
                figures
                    .bytes
                    .with_label_values(&[name, direction])
                    .inc_by(0);
            }
        }
        for reason in ["total", "address", "proxy_header"] {
            figures.refused.with_label_values(&[reason]).inc_by(0);
        }
        Self(Arc::new(figures))
    }

    /// For one shard, in its thread.
    pub(crate) fn counts(&self) -> Counts {
        let figures = &self.0;
        let bytes = |direction| {
            Protocol::ALL.map(|protocol| {
                let labels = [protocol.name(), direction];
                figures.bytes.with_label_values(&labels).local()
            })
        };
        Counts {
            received: bytes("in"),
            sent: bytes("out"),
            delivery: figures.delivery.local(),
            frames: figures.frames.local(),
            skips: figures.skips.local(),
            requests: figures.requests.local(),
        }
    }

    /// A client was taken in.
    pub(crate) fn connected(&self, protocol: Protocol) -> Connected {
        let name = [protocol.name()];
        self.0.connected.with_label_values(&name).inc();
        let present = self.0.connections.with_label_values(&name);
        present.inc();
        Connected(present)
    }

    /// A client was not taken in.
    pub(crate) fn refused(&self, why: Refused) {
        let reason = match why {
            Refused::Total => "total",
            Refused::Address => "address",
            Refused::Header => "proxy_header",
        };
        self.0.refused.with_label_values(&[reason]).inc();
    }

    fn shake(&self, hands: Handshakes) {
        for (what, counted) in [
            ("begun", hands.begun),
            ("agreed", hands.agreed),
            ("completed", hands.completed),
            ("refused", hands.refused),
            ("forged", hands.forged),
            ("limited", hands.limited),
        ] {
            catch_up(&self.0.handshakes.with_label_values(&[what]), counted);
        }
    }

    /// Has what the shards know asked for at every scrape.
    pub(crate) fn watch(
        &self,
        metrics: &Metrics,
        shards: Vec<ShardHandle>,
        reachable: tokio::sync::watch::Receiver<Reachable>,
    ) {
        let figures = self.clone();
        metrics.on_scrape(move || {
            let (figures, shards) = (figures.clone(), shards.clone());
            figures.0.links.set(level(reachable.borrow().len()));
            async move {
                let standing = ask(&shards).await;
                figures.0.viewers.set(level(standing.viewers));
                figures.0.backlog.set(level(standing.backlog));
                figures.shake(standing.handshakes);
                for (role, count) in [
                    ("published", standing.published),
                    ("watched", standing.watched),
                ] {
                    figures
                        .0
                        .streams
                        .with_label_values(&[role])
                        .set(level(count));
                }
            }
        });
    }
}

/// Has the audience of single streams asked for at every scrape, if somebody wants that.
pub(crate) fn watch_streams(metrics: &Metrics, settings: Settings, shards: Vec<ShardHandle>) {
    let about = [About {
        name: "selvage_stream_viewers",
        help: "Plays of this stream by clients here.",
        grows: false,
    }];
    let Some(streams) = PerStream::new(metrics, settings, about).map(Arc::new) else {
        return;
    };
    metrics.on_scrape(move || {
        let (streams, shards) = (Arc::clone(&streams), shards.clone());
        async move {
            let mut present = BTreeMap::new();
            for told in each(&shards, ToShard::Audience) {
                for (key, viewers) in told.await.unwrap_or_default() {
                    let named = Named {
                        vhost: key.at.vhost.to_string(),
                        app: key.at.app.to_string(),
                        instance: key.at.instance.to_string(),
                        stream: key.name.to_string(),
                    };
                    let [all] = present.entry(named).or_insert([0]);
                    *all += viewers as u64;
                }
            }
            streams.show(&present);
        }
    });
}

/// Asks every shard; one that has ended does not answer.
fn each<T>(
    shards: &[ShardHandle],
    question: impl Fn(oneshot::Sender<T>) -> ToShard,
) -> Vec<oneshot::Receiver<T>> {
    let ask = |shard: &ShardHandle| {
        let (answer, told) = oneshot::channel();
        shard.send(question(answer));
        told
    };
    shards.iter().map(ask).collect()
}

/// How all shards stand together, which add up what they have counted.
pub(crate) async fn ask(shards: &[ShardHandle]) -> Standing {
    let mut all = Standing::default();
    for told in each(shards, ToShard::Count) {
        // A shard that has ended has nothing.
        let one = told.await.unwrap_or_default();
        all.viewers += one.viewers;
        all.published += one.published;
        all.watched += one.watched;
        all.backlog += one.backlog;
        all.handshakes += one.handshakes;
    }
    all
}

/// How much the edge has to do, for the origins.
pub(crate) async fn load(shards: &[ShardHandle], permits: &Permits) -> Load {
    let standing = ask(shards).await;
    Load {
        connections: permits.held() as u64,
        viewers: standing.viewers as u64,
        published: standing.published as u64,
        watched: standing.watched as u64,
    }
}
