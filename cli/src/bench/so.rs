//! `selvage bench so`: writes to shared objects beside writes to etcd, and one writer with
//! many subscribers.

mod etcd;
mod ours;

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::report::Spread;
use super::usage;
use crate::exit::{self, Failure};

/// Measure writes to shared objects, beside etcd.
///
/// Three origins with their logs on this disk and two edges, all processes of their own on
/// this machine; the writers are RTMP clients of the edges. etcd is three members with its
/// defaults on the same disk, written by gRPC. A writer has one write under way. One is
/// measured after the other.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    /// How many write at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,64,512")]
    writers: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    value: u16,
    /// How long to measure each.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Do not measure etcd.
    #[arg(long)]
    without_etcd: bool,
    /// Subscribers of the object that one writes; 0 leaves the fan-out out.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Writes of the fan-out.
    #[arg(long, default_value_t = 100)]
    writes: usize,
}

/// What is not measured: connections, first elections, caches.
const WARM_UP: Duration = Duration::from_secs(2);

/// Between two writes of the fan-out.
const EVERY: Duration = Duration::from_millis(100);

/// Answered writes.
#[derive(Clone, Debug, Default)]
struct Sample {
    /// Microseconds of each.
    times: Vec<u64>,
}

impl Sample {
    /// Notes a write that began then and is answered now, if it lies in the window.
    fn note(&mut self, begun: Instant, from: Instant, until: Instant) {
        let now = Instant::now();
        if begun >= from && now <= until {
            let time = now.duration_since(begun).as_micros();
            self.times.push(u64::try_from(time).unwrap_or(u64::MAX));
        }
    }

    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
    }
}

struct Row {
    server: &'static str,
    writers: usize,
    rate: f64,
    spread: Spread,
    /// CPU microseconds of the servers for each write.
    cpu: f64,
}

pub(crate) fn main(flags: &Flags) -> ExitCode {
    exit::run(run(flags))
}

async fn run(flags: &Flags) -> Result<(), Failure> {
    say(&format!(
        "values of {} bytes, {} s each; three nodes and their disks on this machine\n\
         load of this machine before: {}\n",
        flags.value,
        flags.seconds,
        usage::load().as_deref().unwrap_or("unknown"),
    ));
    let value = usize::from(flags.value);
    let seconds = Duration::from_secs(flags.seconds);
    let mut rows = Vec::new();
    {
        let ours = ours::Ours::start().await?;
        for &writers in &flags.writers {
            let before = cpu_of(&ours.pids());
            let sample = ours.write(writers, value, seconds, WARM_UP).await?;
            let spent = cpu_of(&ours.pids()).saturating_sub(before);
            rows.push(row("selvage", writers, seconds, sample, spent));
        }
        if flags.subscribers > 0 {
            let mut fanout = ours
                .fan_out(flags.subscribers, value, flags.writes, EVERY)
                .await?;
            let (committed, last) = (
                Spread::of(&mut fanout.committed),
                Spread::of(&mut fanout.last),
            );
            say(&format!(
                "fan-out: 1 writer, {} subscribers on 2 edges, {} writes: {:.2} CPU us per told \
                 change; write to own answer p50 {:.2} ms, p99 {:.2} ms; write to the last \
                 subscriber p50 {:.2} ms, p99 {:.2} ms\n",
                flags.subscribers,
                flags.writes,
                fanout.cpu,
                millis(committed.p50),
                millis(committed.p99),
                millis(last.p50),
                millis(last.p99),
            ));
        }
    }
    if !flags.without_etcd {
        let etcd = etcd::Etcd::start().await?;
        for &writers in &flags.writers {
            let from = Instant::now() + WARM_UP;
            let before = cpu_of(&etcd.pids());
            let sample = etcd.write(writers, value, from, from + seconds).await?;
            let spent = cpu_of(&etcd.pids()).saturating_sub(before);
            rows.push(row("etcd", writers, seconds, sample, spent));
        }
    }
    say(&table(&rows));
    Ok(())
}

fn row(
    server: &'static str,
    writers: usize,
    seconds: Duration,
    mut sample: Sample,
    spent: Duration,
) -> Row {
    let count = sample.times.len();
    // The CPU time was taken over the warm-up as well.
    let share = seconds.as_secs_f64() / (seconds + WARM_UP).as_secs_f64();
    let row = Row {
        server,
        writers,
        rate: count as f64 / seconds.as_secs_f64(),
        spread: Spread::of(&mut sample.times),
        cpu: spent.as_secs_f64() * share * 1e6 / count.max(1) as f64,
    };
    say(&format!(
        "  {server} {writers} writers: {:.0} writes/s\n",
        row.rate
    ));
    row
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| server | writers | writes/s | x etcd | p50 ms | p99 ms | CPU us per write |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let beside = rows
            .iter()
            .find(|other| other.server == "etcd" && other.writers == row.writers);
        let ratio = beside.map_or_else(
            || "-".to_owned(),
            |etcd| format!("{:.2}", row.rate / etcd.rate.max(1e-9)),
        );
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {ratio} | {:.2} | {:.2} | {:.0} |",
            row.server,
            row.writers,
            row.rate,
            millis(row.spread.p50),
            millis(row.spread.p99),
            row.cpu
        );
    }
    text
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// The CPU time of processes together.
fn cpu_of(pids: &[u32]) -> Duration {
    pids.iter().filter_map(|pid| usage::cpu(*pid)).sum()
}

/// A text of so many bytes that differs from turn to turn.
fn text(len: usize, turn: u64) -> String {
    let mut text = format!("{turn:016x}");
    while text.len() < len {
        text.push('x');
    }
    text.truncate(len.max(1));
    text
}

fn value(len: usize, turn: u64) -> Bytes {
    text(len, turn).into()
}

fn say(text: &str) {
    // A closed pipe is the reader's choice.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn here(what: &str, source: std::io::Error) -> Failure {
    Failure::Here {
        what: what.to_owned(),
        source,
    }
}
