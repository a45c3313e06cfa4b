//! The players of a measurement: one process, one thread, woken by epoll.
//!
//! Every player reads at once when something has come. A few are looked at closely: their
//! messages are put together and the time since publishing is noted. The others only read
//! and count, so that this process costs less than any server. Like any client, all of
//! them acknowledge what they received.
//!
//! It obeys the lines on standard input (`window FROM TO`, `report`, `leave`, `joins
//! SECONDS PARALLEL`) and answers by lines on standard output (`joined`, `report`, `left`,
//! `joins`); times
//! are microseconds of the wall clock.

mod viewer;

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::LocalSet;

use super::report::Spread;
use crate::exit::{self, Failure};

/// Run the players of a measurement.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    #[arg(long)]
    addr: SocketAddr,
    #[arg(long)]
    players: usize,
    /// How many of them are looked at closely.
    #[arg(long)]
    closely: usize,
    /// How many begin in a second.
    #[arg(long)]
    ramp: u32,
}

pub(crate) fn main(flags: &Flags) -> ExitCode {
    exit::run(LocalSet::new().run_until(run(flags)))
}

/// What all players share.
#[derive(Debug)]
struct Tally {
    addr: SocketAddr,
    /// The one buffer that everybody reads into.
    scratch: RefCell<Vec<u8>>,
    window: Cell<(u64, u64)>,
    joined: Cell<usize>,
    /// Why players are no more.
    lost: RefCell<Vec<String>>,
    /// From play to the first coded frame, microseconds.
    first: RefCell<Vec<u64>>,
    /// In the window: bytes of all, bytes of those that are looked at, their pictures.
    bytes: Cell<u64>,
    close_bytes: Cell<u64>,
    close_pictures: Cell<usize>,
    /// From publishing to here, of the pictures in the window, microseconds.
    latency: RefCell<Vec<u64>>,
}

/// Room for one read: more than the largest coalesced write.
const SCRATCH: usize = 512 * 1024;

async fn run(flags: &Flags) -> Result<(), Failure> {
    let tally = Rc::new(Tally {
        addr: flags.addr,
        scratch: RefCell::new(vec![0; SCRATCH]),
        window: Cell::new((u64::MAX, u64::MAX)),
        joined: Cell::new(0),
        lost: RefCell::default(),
        first: RefCell::default(),
        bytes: Cell::default(),
        close_bytes: Cell::default(),
        close_pictures: Cell::default(),
        latency: RefCell::default(),
    });
    let began = Instant::now();
    let mut watching = Vec::new();
    // Spread over the joining time, so that they stand for all.
    let step = (flags.players / flags.closely.max(1)).max(1);
    for index in 0..flags.players {
        let turn = u32::try_from(index).unwrap_or(u32::MAX);
        let at = began + Duration::from_secs(1) * turn / flags.ramp.max(1);
        tokio::time::sleep_until(at.into()).await;
        let tally = Rc::clone(&tally);
        let closely = index % step == 0 && index / step < flags.closely;
        watching.push(tokio::task::spawn_local(async move {
            let error = viewer::watch(&tally, closely).await;
            tally.lost.borrow_mut().push(error.to_string());
        }));
    }
    while tally.joined.get() + tally.lost.borrow().len() < flags.players {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say(&format!("joined {}", tally.joined.get()));

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let wrap = |source| Failure::Here {
        what: "the measurement is gone".to_owned(),
        source,
    };
    while let Some(line) = lines.next_line().await.map_err(wrap)? {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |index: usize| {
            words
                .get(index)
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or_default()
        };
        match words.first() {
            Some(&"window") => tally.window.set((number(1), number(2))),
            Some(&"report") => say(&tally.report()),
            Some(&"leave") => {
                watching.drain(..).for_each(|player| player.abort());
                say("left");
            }
            Some(&"joins") => {
                let joins = viewer::join_and_leave(
                    &tally,
                    Duration::from_secs(number(1)),
                    usize::try_from(number(2)).unwrap_or(1),
                )
                .await;
                say(&format!("joins {joins}"));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

impl Tally {
    fn report(&self) -> String {
        let first = Spread::of(&mut self.first.borrow_mut());
        let latency = Spread::of(&mut self.latency.borrow_mut());
        let lost = self.lost.borrow();
        format!(
            "report bytes={} close_bytes={} close_pictures={} latency_p50={} latency_p99={} \
             first_p50={} first_p99={} lost={} why={}",
            self.bytes.get(),
            self.close_bytes.get(),
            self.close_pictures.get(),
            latency.p50,
            latency.p99,
            first.p50,
            first.p99,
            lost.len(),
            lost.first().map_or("-", String::as_str),
        )
    }
}

/// A line to the measuring process; if that is gone, so are we, soon.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
