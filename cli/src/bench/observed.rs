//! What it costs to be observed: traces of frames, and metrics that somebody scrapes.
//!
//! The same server is measured in turns, each time started anew: without an exporter, and with
//! one that sends to a receiver in this process over gRPC. Turns rather than rows of one kind,
//! because a machine is not as fast at one time as at another.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::routing::post;
use node::link::{self, Listener};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::fanout::{Flags, measure, print};
use super::peer::{Kind, Peer, Watched};
use super::usage;
use crate::exit::Failure;

/// How often ours is scraped.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

/// What was measured in one way of being observed, round by round.
struct Way {
    name: String,
    watched: Watched,
    /// CPU seconds per player and minute.
    cpu: Vec<f64>,
    spans: Vec<u64>,
}

/// Measures all ways in turns.
pub(super) async fn run(flags: &Flags) -> Result<(), Failure> {
    let sink = Sink::start().await?;
    let coalesce_ms = flags.coalesce.first().copied().unwrap_or_default();
    let mut ways: Vec<Way> = Vec::new();
    for scraped in [false, true] {
        for every in &flags.frame_traces {
            let traces = (*every > 0).then_some((*every, sink.addr));
            let traced = match every {
                0 => "no traces".to_owned(),
                1 => "every key frame".to_owned(),
                every => format!("1 in {every} key frames"),
            };
            let metrics = if scraped { "scraped" } else { "no metrics" };
            ways.push(Way {
                name: format!("{traced}, {metrics}"),
                watched: Watched { traces, scraped },
                cpu: Vec::new(),
                spans: Vec::new(),
            });
        }
    }
    print(&format!(
        "{} players, {} kbit/s, coalesced {coalesce_ms} ms, {} s each, {} rounds in turns\n\
         load of this machine before: {}\n",
        flags.players,
        flags.bitrate / 1000,
        flags.seconds,
        flags.rounds,
        usage::load().as_deref().unwrap_or("unknown"),
    ));
    for round in 0..flags.rounds {
        let count = ways.len();
        for turn in 0..count {
            // Nobody always comes first.
            let way = &mut ways[(turn + round as usize) % count];
            let kind = Kind::Ours {
                coalesce_ms,
                shards: flags.shards,
                watched: way.watched,
            };
            let before = sink.spans();
            let row = measure(flags, &kind).await?;
            way.cpu.push(row.cpu);
            way.spans.push(sink.spans() - before);
            print(&format!(
                "  {} {}: {:.5} CPU s/player/min, {} spans, {:.2} % delivered\n",
                round + 1,
                way.name,
                row.cpu,
                sink.spans() - before,
                row.delivered * 100.0
            ));
        }
    }
    print(&format!("\n{}", table(&ways)));
    Ok(())
}

/// Each way beside the first.
fn table(ways: &[Way]) -> String {
    let mut text = format!(
        "{:<36} {:>16} {:>19} {:>9} {:>17} {:>6}\n",
        "observed by", "CPU s/player/min", "least to most", "x first", "least to most", "spans"
    );
    let Some(first) = ways.first() else {
        return text;
    };
    for way in ways {
        let ratios: Vec<f64> = way.cpu.iter().zip(&first.cpu).map(|(a, b)| a / b).collect();
        let (cpu, least, most) = spread(&way.cpu);
        let (ratio, lower, upper) = spread(&ratios);
        let spans: u64 = way.spans.iter().sum();
        text.push_str(&format!(
            "{:<36} {cpu:>16.5} {:>19} {ratio:>9.3} {:>17} {spans:>6}\n",
            way.name,
            format!("{least:.5} to {most:.5}"),
            format!("{lower:.3} to {upper:.3}"),
        ));
    }
    text
}

/// The middle, the least and the most.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    } else {
        at(middle)
    };
    (median, at(0), at(sorted.len().saturating_sub(1)))
}

/// Scrapes a server for as long as it is measured, if it is to be.
pub(super) async fn scrape(kind: &Kind, peer: &Peer) -> Infallible {
    let scraped = matches!(kind, Kind::Ours { watched, .. } if watched.scraped);
    let Some(http) = peer.http.filter(|_| scraped) else {
        return std::future::pending().await;
    };
    let mut page = Vec::new();
    loop {
        tokio::time::sleep(SCRAPE_EVERY).await;
        // A scrape that fails is missed by nobody but the reader of the row: say so.
        if let Err(error) = get(http, &mut page).await {
            print(&format!("  not scraped: {error}\n"));
        }
    }
}

async fn get(http: SocketAddr, page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut tcp = TcpStream::connect(http).await?;
    tcp.write_all(b"GET /metrics HTTP/1.0\r\nHost: ours\r\n\r\n")
        .await?;
    page.clear();
    tcp.read_to_end(page).await?;
    let good = page.starts_with(b"HTTP/1.0 200") || page.starts_with(b"HTTP/1.1 200");
    good.then_some(())
        .ok_or_else(|| std::io::Error::other("no page"))
}

/// A receiver of traces, over gRPC, that counts spans.
struct Sink {
    addr: SocketAddr,
    spans: Arc<AtomicU64>,
}

/// The path of `Export` in opentelemetry/proto/collector/trace/v1/trace_service.proto.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What gRPC puts before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

impl Sink {
    async fn start() -> Result<Self, Failure> {
        let here = |source| Failure::Here {
            what: "cannot listen for traces".to_owned(),
            source,
        };
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into())
            .await
            .map_err(here)?;
        let addr = listener.to_string().parse().map_err(|_| {
            let what = std::io::Error::other(format!("{listener} is no address"));
            here(what)
        })?;
        let spans = Arc::new(AtomicU64::new(0));
        let router = Router::new()
            .route(EXPORT, post(export))
            .layer(Extension(spans.clone()));
        let serving = link::server(&link::Settings::default())
            .add_routes(tonic::service::Routes::from(router))
            .serve_with_incoming(listener.incoming());
        tokio::task::spawn_local(serving);
        Ok(Self { addr, spans })
    }

    fn spans(&self) -> u64 {
        self.spans.load(Ordering::Relaxed)
    }
}

async fn export(Extension(spans): Extension<Arc<AtomicU64>>, body: Bytes) -> http::Response<Body> {
    let message = body.get(PREFIX..).unwrap_or_default();
    let traces = Export::decode(message).unwrap_or_default();
    let scopes = traces
        .resources
        .iter()
        .flat_map(|resource| &resource.scopes);
    let count = scopes.map(|scope| scope.spans.len() as u64).sum();
    spans.fetch_add(count, Ordering::Relaxed);
    // An empty ExportTraceServiceResponse.
    let mut response = http::Response::new(Body::from([0_u8; PREFIX].as_slice()));
    let headers = response.headers_mut();
    let value = http::HeaderValue::from_static;
    headers.insert("content-type", value("application/grpc"));
    headers.insert("grpc-status", value("0"));
    response
}

/// Of `ExportTraceServiceRequest`, what it takes to count spans.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    spans: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_set_beside_the_first_round_by_round() {
        let way = |name: &str, cpu: &[f64]| Way {
            name: name.to_owned(),
            watched: Watched::default(),
            cpu: cpu.to_vec(),
            spans: vec![2; cpu.len()],
        };
        let ways = [way("a", &[1.0, 2.0, 4.0]), way("b", &[1.1, 2.0, 4.4])];
        let text = table(&ways);
        assert!(text.lines().nth(2).unwrap().contains("1.100"), "{text}");
        assert!(text.contains("1.000 to 1.100"), "{text}");
        assert_eq!(spread(&[3.0, 1.0]), (2.0, 1.0, 3.0));
    }
}
