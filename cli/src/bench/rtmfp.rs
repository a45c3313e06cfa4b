//! `selvage bench rtmfp`: one publisher and many players over RTMFP, handshakes, and idle
//! sessions.

mod client;
pub(super) mod floor;
mod socket;

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::sleep;

use self::client::{Client, Common, Errand};
use self::socket::Socket;
use super::peer::{Peer, this_program};
use super::report::Spread;
use super::stream::Synthetic;
use super::{usage, wall_micros};
use crate::exit::{self, Failure};

/// Measure RTMFP: relaying, handshakes and idle sessions, beside the floor.
///
/// Everything runs on this machine, over the loopback, one server after the other. The
/// clients are one thread of this process; each has a socket of its own and reads as soon
/// as something has come. The floor encrypts the same bytes and gives them to the kernel.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    /// How many players; 0 leaves relaying out.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(..=1000))]
    players: u16,
    /// Bits per second of the stream; k and M are understood.
    #[arg(long, default_value = "10M", value_parser = super::fanout::bit_rate)]
    bitrate: u64,
    /// How long to measure each.
    #[arg(long, value_name = "S", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    /// Also relay with authenticated and numbered packets.
    #[arg(long)]
    secure: bool,
    /// An independent server to measure beside ours: the tcserver of rtmfp-cpp.
    #[arg(long, value_name = "FILE")]
    tcserver: Option<PathBuf>,
    /// Seconds of handshakes; 0 leaves them out.
    #[arg(long, value_name = "S", default_value_t = 5)]
    handshakes: u64,
    /// How many idle sessions; 0 leaves them out.
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u16).range(..=18_000))]
    idle: u16,
    /// Threads of our edge that hold connections; 0 takes one per core.
    #[arg(long, default_value_t = 0)]
    shards: u16,
}

/// From the last client to what is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// The same for relaying: what a server keeps of a stream of 10 Mbit/s has grown as large as
/// it gets, and windows are open.
const FILL: Duration = Duration::from_secs(15);

/// How long a client may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two keepalives of each session.
const KEEPALIVES: Duration = Duration::from_secs(30);

/// How many clients shake hands at a time.
const PARALLEL: usize = 16;

/// For ever, where a moment has to be named.
const LONG: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Floor,
    Ours,
    TcServer(&'a Path),
}

impl Kind<'_> {
    const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Ours => "selvage",
            Self::TcServer(_) => "tcserver",
        }
    }
}

pub(crate) fn main(flags: &Flags) -> ExitCode {
    exit::run(LocalSet::new().run_until(run(flags)))
}

async fn run(flags: &Flags) -> Result<(), Failure> {
    let load = usage::load();
    print(&format!(
        "load of this machine before: {}\n",
        load.as_deref().unwrap_or("unknown")
    ));
    let servers: Vec<_> = std::iter::once(Kind::Ours)
        .chain(flags.tcserver.as_deref().map(Kind::TcServer))
        .collect();
    if flags.players > 0 {
        relay(flags, &servers).await?;
    }
    if flags.handshakes > 0 {
        for kind in &servers {
            handshakes(flags, *kind).await?;
        }
    }
    if flags.idle > 0 {
        for kind in &servers {
            idle(flags, *kind).await?;
        }
    }
    Ok(())
}

async fn start(flags: &Flags, kind: Kind<'_>) -> Result<Peer, Failure> {
    match kind {
        Kind::Floor | Kind::Ours => {
            let mut command = Command::new(this_program()?);
            command.args(["dev", "--origins", "1", "--edges", "1", "--rtmp-port", "0"]);
            command.args(["--rtmps-port", "0", "--http-port", "0"]);
            command.args(["--shards", &flags.shards.to_string()]);
            Peer::announced(command, "rtmfp").await
        }
        Kind::TcServer(program) => {
            let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr());
            let addr = free.map_err(|source| here("no free port", source))?;
            let mut command = Command::new(program);
            // It takes clients that neither authenticate nor number their packets, too.
            command.args(["-H", "-S", "-B", &addr.to_string()]);
            Peer::told(command, addr)
        }
    }
}

// ----- relaying

struct Row {
    name: &'static str,
    secure: bool,
    /// Bytes of media that all players were given, per second.
    rate: f64,
    cpu_per_gb: f64,
    /// CPU seconds per player and minute.
    cpu: f64,
    /// 1 is everything.
    delivered: f64,
    latency: Spread,
}

async fn relay(flags: &Flags, servers: &[Kind<'_>]) -> Result<(), Failure> {
    print(&format!(
        "1 publisher of {} kbit/s, {} players, {} s each\n",
        flags.bitrate / 1000,
        flags.players,
        flags.seconds
    ));
    let mut rows = Vec::new();
    for secure in [false, true].into_iter().filter(|it| !it || flags.secure) {
        rows.push(measure_floor(flags, secure).await?);
        for kind in servers {
            rows.push(measure(flags, *kind, secure).await?);
        }
    }
    print(&table(&rows));
    Ok(())
}

/// The tasks of clients, which end with this.
#[derive(Default)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn measure(flags: &Flags, kind: Kind<'_>, secure: bool) -> Result<Row, Failure> {
    let peer = start(flags, kind).await?;
    let common = Common::new(peer.addr, secure);
    let mut tasks = Tasks::default();
    let failed = Rc::new(RefCell::new(None));
    let mut publisher = client(&common, Errand::Publish).await?;
    let (bits, note) = (flags.bitrate, Rc::clone(&failed));
    tasks.0.push(spawn_local(async move {
        let Err(error) = publish(&mut publisher, bits).await;
        note.replace(Some(format!("the publisher is gone: {error}")));
    }));
    for _ in 0..flags.players {
        let mut player = client(&common, Errand::Play).await?;
        let note = Rc::clone(&failed);
        tasks.0.push(spawn_local(async move {
            if let Err(error) = player.run(Instant::now() + LONG).await {
                note.replace(Some(format!("a player is gone: {error}")));
            }
        }));
    }
    let row = window(flags, &peer, &common, 1.0, (kind.name(), secure)).await?;
    if let Some(why) = failed.take() {
        return Err(Failure::Ended(format!("{}: {why}", kind.name())));
    }
    drop(tasks);
    peer.stop().await;
    Ok(row)
}

async fn measure_floor(flags: &Flags, secure: bool) -> Result<Row, Failure> {
    let wrap = |source| here("no socket", source);
    let unused = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let common = Common::new(unused, secure);
    let mut tasks = Tasks::default();
    let mut to = Vec::new();
    for _ in 0..flags.players {
        let socket = Socket::new().map_err(wrap)?;
        to.push(socket.addr().map_err(wrap)?.to_string());
        let common = Rc::clone(&common);
        tasks.0.push(spawn_local(async move {
            let count = |_, datagram: &mut [u8]| {
                if common.is_in_window() {
                    let bytes = &common.bytes;
                    bytes.set(bytes.get() + datagram.len() as u64);
                }
            };
            while socket.receive(common.room(), count).await.is_ok() {}
        }));
    }
    let mut command = Command::new(this_program()?);
    command.args(["bench", "rtmfp-floor", "--to", &to.join(",")]);
    command.args(["--bits", &flags.bitrate.to_string()]);
    command.args(secure.then_some("--secure"));
    let peer = Peer::told(command, unused)?;
    let share = floor::share_of_media(flags.bitrate, secure);
    let row = window(flags, &peer, &common, share, (Kind::Floor.name(), secure)).await?;
    drop(tasks);
    peer.stop().await;
    Ok(row)
}

/// Measures for the time asked for. Of the bytes that were counted `share` are media.
async fn window(
    flags: &Flags,
    peer: &Peer,
    common: &Common,
    share: f64,
    (name, secure): (&'static str, bool),
) -> Result<Row, Failure> {
    sleep(FILL).await;
    let from = wall_micros();
    let to = from + flags.seconds * 1_000_000;
    common.set_window(from, to);
    let before = cpu(peer)?;
    sleep(Duration::from_secs(flags.seconds)).await;
    let seconds = (wall_micros() - from) as f64 / 1e6;
    let spent = cpu(peer)?.saturating_sub(before).as_secs_f64();
    let bytes = common.bytes.get() as f64 * share;
    let expected = flags.bitrate as f64 / 8.0 * seconds * f64::from(flags.players);
    let row = Row {
        name,
        secure,
        rate: bytes / seconds,
        cpu_per_gb: spent / bytes * 1e9,
        cpu: spent / f64::from(flags.players) / seconds * 60.0,
        delivered: bytes / expected,
        latency: Spread::of(&mut common.latency.borrow_mut()),
    };
    print(&format!(
        "  {name}{}: {:.2} CPU s/GB\n",
        if secure { ", secure" } else { "" },
        row.cpu_per_gb
    ));
    Ok(row)
}

/// A client that has come as far as it wants.
async fn client(common: &Rc<Common>, errand: Errand) -> Result<Client, Failure> {
    let wrap = |source| here("a client cannot connect", source);
    let mut client = Client::new(common, errand).map_err(wrap)?;
    client.ready(PATIENCE).await.map_err(wrap)?;
    Ok(client)
}

async fn publish(client: &mut Client, bits: u64) -> std::io::Result<std::convert::Infallible> {
    for (kind, payload) in Synthetic::configs() {
        client.publish(kind, 0, payload);
    }
    let mut stream = Synthetic::new(bits);
    let began = Instant::now();
    loop {
        let due = stream.next();
        client
            .run(began + Duration::from_micros(due.at_micros))
            .await?;
        client.publish(due.kind, due.time(), due.payload(wall_micros()));
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "\n{:<9} {:>6} {:>10} {:>8} {:>17} {:>8} {:>10} {:>12} {:>8}\n",
        "server",
        "secure",
        "CPU s/GB",
        "x floor",
        "CPU s/player/min",
        "MB/s",
        "delivered",
        "latency p50",
        "p99 ms"
    );
    for row in rows {
        let floor = rows
            .iter()
            .find(|other| other.name == Kind::Floor.name() && other.secure == row.secure)
            .map_or(f64::NAN, |floor| floor.cpu_per_gb);
        let millis = |micros: u64| micros as f64 / 1000.0;
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:<9} {:>6} {:>10.2} {:>8.2} {:>17.3} {:>8.1} {:>8.2} % {:>12.1} {:>8.1}",
            row.name,
            if row.secure { "yes" } else { "no" },
            row.cpu_per_gb,
            row.cpu_per_gb / floor,
            row.cpu,
            row.rate / 1e6,
            row.delivered * 100.0,
            millis(row.latency.p50),
            millis(row.latency.p99),
        );
    }
    text
}

// ----- handshakes

async fn handshakes(flags: &Flags, kind: Kind<'_>) -> Result<(), Failure> {
    let peer = start(flags, kind).await?;
    let common = Common::new(peer.addr, false);
    for (errand, what) in [
        (Errand::Session, "sessions"),
        (Errand::Connect, "sessions and connects"),
    ] {
        // One is there before the clock runs: the server serves.
        client(&common, errand).await?.leave().await;
        sleep(SETTLE).await;
        let time = Duration::from_secs(flags.handshakes);
        let idle = cpu(&peer)?;
        sleep(time).await;
        let before = cpu(&peer)?;
        let idle = before.saturating_sub(idle);
        let until = Instant::now() + time;
        let done = Rc::new(Cell::new(0_u32));
        let mut workers = Vec::new();
        for _ in 0..PARALLEL {
            let (common, done) = (Rc::clone(&common), Rc::clone(&done));
            workers.push(spawn_local(async move {
                while Instant::now() < until {
                    if let Ok(client) = client(&common, errand).await {
                        done.set(done.get() + 1);
                        client.leave().await;
                    }
                }
            }));
        }
        for worker in workers {
            // A worker does not panic.
            let _ = worker.await;
        }
        let spent = cpu(&peer)?.saturating_sub(before).saturating_sub(idle);
        let count = f64::from(done.get());
        print(&format!(
            "{}: {:.0} {what} per CPU second ({:.0} per second of the clock)\n",
            kind.name(),
            count / spent.as_secs_f64().max(0.01),
            count / time.as_secs_f64(),
        ));
    }
    peer.stop().await;
    Ok(())
}

// ----- idle sessions

async fn idle(flags: &Flags, kind: Kind<'_>) -> Result<(), Failure> {
    let peer = start(flags, kind).await?;
    let common = Common::new(peer.addr, false);
    client(&common, Errand::Connect).await?.leave().await;
    sleep(SETTLE).await;
    let alone = cpu(&peer)?;
    sleep(KEEPALIVES).await;
    let alone = cpu(&peer)?.saturating_sub(alone).as_secs_f64();
    let gone = || Failure::Ended("the server has ended".to_owned());
    let before = usage::resident(peer.pid).ok_or_else(gone)?;
    let left = Rc::new(Cell::new(flags.idle));
    let (there, lost) = (Rc::new(Cell::new(0_u32)), Rc::new(Cell::new(0_u32)));
    let tasks = Rc::new(RefCell::new(Tasks::default()));
    let mut workers = Vec::new();
    for _ in 0..PARALLEL {
        let (common, left, there) = (Rc::clone(&common), Rc::clone(&left), Rc::clone(&there));
        let (tasks, lost) = (Rc::clone(&tasks), Rc::clone(&lost));
        workers.push(spawn_local(async move {
            while let Some(rest) = left.get().checked_sub(1) {
                left.set(rest);
                let Ok(mut client) = client(&common, Errand::Connect).await else {
                    continue;
                };
                there.set(there.get() + 1);
                let lost = Rc::clone(&lost);
                tasks.borrow_mut().0.push(spawn_local(async move {
                    let _ = client.run(Instant::now() + LONG).await;
                    lost.set(lost.get() + 1);
                }));
            }
        }));
    }
    for worker in workers {
        let _ = worker.await;
    }
    sleep(Duration::from_secs(flags.seconds)).await;
    let cpu_before = cpu(&peer)?;
    sleep(KEEPALIVES).await;
    let spent = cpu(&peer)?.saturating_sub(cpu_before).as_secs_f64();
    let grown = usage::resident(peer.pid)
        .ok_or_else(gone)?
        .saturating_sub(before);
    print(&format!(
        "{}: {} idle sessions ({} lost): {:.1} MB more ({:.1} kB each), {:.2} % of a core \
         ({:.2} % without them)\n",
        kind.name(),
        there.get(),
        lost.get(),
        grown as f64 / 1e6,
        grown as f64 / 1e3 / f64::from(there.get()).max(1.0),
        spent / KEEPALIVES.as_secs_f64() * 100.0,
        alone / KEEPALIVES.as_secs_f64() * 100.0,
    ));
    drop(tasks);
    peer.stop().await;
    Ok(())
}

fn cpu(peer: &Peer) -> Result<Duration, Failure> {
    usage::cpu(peer.pid).ok_or_else(|| Failure::Ended("the server has ended".to_owned()))
}

fn here(what: &str, source: std::io::Error) -> Failure {
    Failure::Here {
        what: what.to_owned(),
        source,
    }
}

fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Who closes our output does not want the figures.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
