//! `selvage bench fanout`: one publisher, many players.

use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use client::Target;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::observed;
use super::peer::{Kind, Peer, Watched, this_program};
use super::publisher::{Log, publish};
use super::report::{Row, Spread, table};
use super::{usage, wall_micros};
use crate::exit::{self, Failure};

/// Measure one publisher and many players, beside the floor and beside other servers.
///
/// Everything runs on this machine, over the loopback, one server after the other. The
/// players are one process with one thread that reads by epoll as soon as something has
/// come, the same for every server.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    /// How many players.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=19_000))]
    pub(super) players: u32,
    /// Which other servers to measure beside ours.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "none")]
    against: Vec<Other>,
    /// Where SRS is.
    #[arg(long, value_name = "FILE")]
    srs_bin: Option<PathBuf>,
    /// Coalescing times of ours and of the floor.
    #[arg(
        long,
        value_name = "MS",
        value_delimiter = ',',
        default_value = "0,40,350"
    )]
    pub(super) coalesce: Vec<u64>,
    /// How long to measure each.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub(super) seconds: u64,
    /// Bits per second of the stream; k and M are understood.
    #[arg(long, default_value = "2500k", value_parser = bit_rate)]
    pub(super) bitrate: u64,
    /// Also measure how many players can connect, play and leave in a second.
    #[arg(long)]
    join_rate: bool,
    /// Threads of our edge that hold connections; 0 takes one per core.
    #[arg(long, default_value_t = 0)]
    pub(super) shards: u16,
    /// How many players are started in a second.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..))]
    ramp: u32,
    /// Measure what tracing costs instead: 0 is no export, N is one in N key frames. Each is
    /// measured without and with a scrape of the metrics every second.
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub(super) frame_traces: Vec<u32>,
    /// How often each of them is measured, in turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rounds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Other {
    Nginx,
    Srs,
    None,
}

/// Players whose messages are looked at one by one.
const CLOSELY: usize = 20;

/// From a server's start to the first player: the publisher is there, with a key frame or two.
const WARM_UP: Duration = Duration::from_secs(3);

/// From the last player's join to the window: what joining cost must not be counted.
const SETTLE: Duration = Duration::from_secs(2);

/// From the window's end to the report: what was published in it has arrived.
const TAIL: Duration = Duration::from_secs(1);

/// How long joins are measured, and how many players do it at a time.
const JOIN_SECONDS: u64 = 5;
const JOIN_PARALLEL: usize = 32;

pub(crate) fn main(flags: &Flags) -> ExitCode {
    exit::run(LocalSet::new().run_until(run(flags)))
}

async fn run(flags: &Flags) -> Result<(), Failure> {
    if !flags.frame_traces.is_empty() {
        return observed::run(flags).await;
    }
    let plan = plan(flags)?;
    print(&format!(
        "{} players, {} kbit/s, {} s each; prompt readers (epoll, one thread); 1 publisher\n\
         load of this machine before: {}\n",
        flags.players,
        flags.bitrate / 1000,
        flags.seconds,
        usage::load().as_deref().unwrap_or("unknown"),
    ));
    let mut rows: Vec<Row> = Vec::new();
    for kind in plan {
        rows.push(measure(flags, &kind).await?);
        // Each line as soon as it is known; the whole table at the end.
        if let Some(row) = rows.last() {
            print(&format!(
                "  {} {}: {:.4} CPU s/player/min\n",
                row.server,
                row.coalesce_ms
                    .map_or_else(String::new, |ms| format!("{ms} ms")),
                row.cpu
            ));
        }
    }
    print(&format!("\n{}", table(&rows)));
    Ok(())
}

fn plan(flags: &Flags) -> Result<Vec<Kind>, Failure> {
    let mut plan = Vec::new();
    for &coalesce_ms in &flags.coalesce {
        plan.push(Kind::Floor { coalesce_ms });
        plan.push(Kind::Ours {
            coalesce_ms,
            shards: flags.shards,
            watched: Watched::default(),
        });
    }
    for other in &flags.against {
        match other {
            Other::None => {}
            Other::Nginx => plan.push(Kind::Nginx),
            Other::Srs => {
                let program = flags.srs_bin.clone().filter(|program| program.is_file());
                let program = program.ok_or_else(|| {
                    let what = "--against srs needs the server's program: --srs-bin FILE";
                    Failure::Usage(what.to_owned())
                })?;
                plan.push(Kind::Srs { program });
            }
        }
    }
    Ok(plan)
}

/// Measures one server.
pub(super) async fn measure(flags: &Flags, kind: &Kind) -> Result<Row, Failure> {
    let peer = Peer::start(kind, flags.bitrate).await?;
    let target: Target = format!("rtmp://{}/live/bench", peer.addr)
        .parse()
        .map_err(|error| Failure::Client(client::Error::Url(error)))?;
    let log = Log::default();
    let publishing = async {
        if kind.relays() {
            match publish(&target, flags.bitrate, &log).await? {}
        }
        std::future::pending().await
    };
    let row = tokio::select! {
        row = watch(flags, kind, &peer, &log) => row,
        never = observed::scrape(kind, &peer) => match never {},
        failed = publishing => match failed {
            Ok(never) => never,
            Err(error) => Err(Failure::Client(error)),
        },
    };
    peer.stop().await;
    row
}

async fn watch(flags: &Flags, kind: &Kind, peer: &Peer, log: &Log) -> Result<Row, Failure> {
    sleep(WARM_UP).await;
    let before = resident(peer)?;
    let mut players = Players::start(flags, peer)?;
    // A server that is slow to let players in still gets its chance.
    let ramp = Duration::from_secs(30 + u64::from(flags.players / flags.ramp) * 2);
    let joined = players.answer("joined", ramp).await?;
    let joined: f64 = joined.parse().unwrap_or_default();
    if joined == 0.0 {
        return Err(Failure::Ended("no player could join".to_owned()));
    }
    sleep(SETTLE).await;

    let from = wall_micros();
    let to = from + flags.seconds * 1_000_000;
    players.tell(&format!("window {from} {to}")).await?;
    let cpu_before = cpu(peer)?;
    sleep(Duration::from_secs(flags.seconds)).await;
    let seconds = (wall_micros() - from) as f64 / 1e6;
    let spent = cpu(peer)?.saturating_sub(cpu_before);
    let after = resident(peer)?;
    sleep(TAIL).await;
    players.tell("report").await?;
    let report = Report(players.answer("report", Duration::from_secs(10)).await?);

    let joins = if flags.join_rate && kind.relays() {
        Some(join_rate(peer, &mut players).await?)
    } else {
        None
    };
    let pictures = if kind.relays() {
        log.between(from, to)
    } else {
        // The floor makes 30 a second by the clock.
        usize::try_from(flags.seconds * 30).unwrap_or(usize::MAX)
    };
    let lost = report.number("lost");
    Ok(Row {
        server: kind.name(),
        coalesce_ms: kind.coalesce_ms(),
        cpu: spent.as_secs_f64() / joined / seconds * 60.0,
        memory: after.saturating_sub(before) as f64 / joined,
        delivered: report.delivered(f64::from(flags.players), pictures as f64),
        latency: report.spread("latency"),
        first: report.spread("first"),
        joins,
        lost: (lost > 0.0).then(|| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count of players, at most 19,000"
            )]
            let lost = lost as u64;
            (lost, report.rest("why"))
        }),
    })
}

/// How many players connect, play and leave per CPU second of the server, and per second
/// of the clock. Nobody else watches meanwhile.
async fn join_rate(peer: &Peer, players: &mut Players) -> Result<(f64, f64), Failure> {
    players.tell("leave").await?;
    players.answer("left", Duration::from_secs(10)).await?;
    sleep(SETTLE).await;
    let before = cpu(peer)?;
    let time = Duration::from_secs(JOIN_SECONDS);
    sleep(time).await;
    let idle = cpu(peer)?.saturating_sub(before);
    let before = cpu(peer)?;
    players
        .tell(&format!("joins {JOIN_SECONDS} {JOIN_PARALLEL}"))
        .await?;
    let joins = players
        .answer("joins", time + Duration::from_secs(10))
        .await?;
    let joins: f64 = joins.parse().unwrap_or_default();
    let spent = cpu(peer)?.saturating_sub(before).saturating_sub(idle);
    Ok((
        joins / spent.as_secs_f64().max(0.01),
        joins / time.as_secs_f64(),
    ))
}

/// The players' process.
struct Players {
    /// Killed when this is dropped.
    _child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Players {
    fn start(flags: &Flags, peer: &Peer) -> Result<Self, Failure> {
        let wrap = |source| Failure::Here {
            what: "cannot start the players".to_owned(),
            source,
        };
        let mut child = Command::new(this_program()?)
            .args(["bench", "players", "--addr", &peer.addr.to_string()])
            .args(["--players", &flags.players.to_string()])
            .args(["--closely", &CLOSELY.to_string()])
            .args(["--ramp", &flags.ramp.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(wrap)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Self {
                _child: child,
                input,
                lines: BufReader::new(output).lines(),
            }),
            (None, _) | (_, None) => Err(wrap(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    async fn tell(&mut self, line: &str) -> Result<(), Failure> {
        self.input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .map_err(|source| Failure::Here {
                what: "the players are gone".to_owned(),
                source,
            })
    }

    /// What stands behind the word on the next line.
    async fn answer(&mut self, word: &str, patience: Duration) -> Result<String, Failure> {
        let gone = |source| Failure::Here {
            what: format!("no '{word}' from the players"),
            source,
        };
        let line = timeout(patience, self.lines.next_line())
            .await
            .map_err(|_| gone(std::io::ErrorKind::TimedOut.into()))?
            .map_err(gone)?;
        line.as_deref()
            .and_then(|line| line.strip_prefix(word))
            .map(|rest| rest.trim().to_owned())
            .ok_or_else(|| gone(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

/// `key=number` pairs; the last one may be a text.
struct Report(String);

impl Report {
    fn number(&self, key: &str) -> f64 {
        self.0
            .split_ascii_whitespace()
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .and_then(|(_, number)| number.parse().ok())
            .unwrap_or_default()
    }

    fn rest(&self, key: &str) -> String {
        let text = self
            .0
            .split_once(&format!("{key}="))
            .map_or("", |(_, text)| text);
        text.to_owned()
    }

    fn spread(&self, key: &str) -> Spread {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "microseconds, written by ourselves"
        )]
        let micros = |name: &str| self.number(&format!("{key}_{name}")) as u64;
        Spread {
            p50: micros("p50"),
            p99: micros("p99"),
        }
    }

    /// The part of the pictures that arrived. Those who are looked at tell which part of
    /// theirs did; the others are set beside them by their bytes.
    fn delivered(&self, players: f64, pictures: f64) -> f64 {
        let closely = players.min(CLOSELY as f64);
        let close_bytes = self.number("close_bytes") / closely;
        if pictures == 0.0 || close_bytes == 0.0 {
            return 0.0;
        }
        let close = self.number("close_pictures") / closely / pictures;
        close * (self.number("bytes") / players / close_bytes)
    }
}

fn cpu(peer: &Peer) -> Result<Duration, Failure> {
    usage::cpu(peer.pid).ok_or_else(|| Failure::Ended("the server has ended".to_owned()))
}

fn resident(peer: &Peer) -> Result<u64, Failure> {
    usage::resident(peer.pid).ok_or_else(|| Failure::Ended("the server has ended".to_owned()))
}

pub(super) fn bit_rate(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1000),
        None => text
            .strip_suffix('M')
            .map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let range = 200_000..=100_000_000;
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|rate| range.contains(rate))
        .ok_or_else(|| "a bit rate from 200k to 100M is needed".to_owned())
}

pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Who closes our output does not want the figures.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_rates_have_units() {
        assert_eq!(bit_rate("2500k"), Ok(2_500_000));
        assert_eq!(bit_rate("4M"), Ok(4_000_000));
        assert_eq!(bit_rate("300000"), Ok(300_000));
        assert!(bit_rate("1").is_err());
        assert!(bit_rate("k").is_err());
        assert!(bit_rate("99999999999999999999M").is_err());
    }

    #[test]
    fn half_of_the_bytes_are_half_of_what_the_close_ones_got() {
        let text = "bytes=60000 close_bytes=20000 close_pictures=540 lost=2 why=end of file";
        let report = Report(text.to_owned());
        // 20 close players with 1000 bytes and 27 of 30 pictures; 100 players with 600 each.
        let delivered = report.delivered(100.0, 30.0);
        assert!((delivered - 0.9 * 0.6).abs() < 1e-9, "{delivered}");
        assert_eq!(report.rest("why"), "end of file");
    }

    #[test]
    fn srs_is_measured_only_where_it_is() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            flags: Flags,
        }
        let parse = |line: &[&str]| <Line as clap::Parser>::try_parse_from(line).unwrap().flags;
        let flags = parse(&["x", "--against", "nginx", "--coalesce", "0,40"]);
        let names: Vec<_> = plan(&flags).unwrap().iter().map(Kind::name).collect();
        assert_eq!(
            names,
            ["floor", "selvage", "floor", "selvage", "nginx-rtmp"]
        );
        assert!(plan(&parse(&["x", "--against", "srs"])).is_err());
    }
}
