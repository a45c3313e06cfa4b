//! The floor: the least that fanning out over TCP can cost.
//!
//! Players are let in by the real server session, by a thread of its own. Then a bare
//! loop writes the chunks of a synthetic stream to all sockets: each message by one write,
//! or what has come together within the coalescing time by one vectored write. There is
//! no publisher, no cache and no reading.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtmp::{Carrier, StreamId};
use session::{Event, Output, Reply, ServerSession, ServerSetup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::stream::Synthetic;
use super::wall_micros;
use crate::exit::{self, Failure};

/// Run the floor of a measurement.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    #[arg(long)]
    coalesce_ms: u64,
    #[arg(long)]
    bits: u64,
}

/// The message stream that the first createStream of a session gives.
const STREAM: StreamId = StreamId(1);

/// Slices of one vectored write; Linux takes at most 1024.
const SLICES_MAX: usize = 1024;

pub(crate) fn main(flags: &Flags) -> ExitCode {
    exit::report(run(flags))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let here = |what: &str| {
        let what = what.to_owned();
        move |source| Failure::Here { what, source }
    };
    let (joined, joins) = mpsc::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(here("cannot start the runtime"))?;
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .map_err(here("cannot listen"))?;
    let addr = listener.local_addr().map_err(here("cannot listen"))?;
    std::thread::spawn(move || runtime.block_on(accept(listener, joined)));
    node::announce::listening("floor", "rtmp", addr);
    fan_out(flags, &joins);
    Ok(())
}

async fn accept(listener: TcpListener, joined: mpsc::Sender<TcpStream>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let joined = joined.clone();
        tokio::spawn(async move {
            // A player that fails to join is missed by the players' side of the measurement.
            if let Ok(Some(tcp)) = admit(tcp).await {
                let _ = joined.send(tcp);
            }
        });
    }
}

/// Serves a client until it plays; `None` if it goes before.
async fn admit(mut tcp: tokio::net::TcpStream) -> io::Result<Option<TcpStream>> {
    tcp.set_nodelay(true)?;
    let now = Instant::now();
    let mut carrier = Carrier::server(1);
    let mut session = ServerSession::new(ServerSetup::new(1), now);
    let mut input = BytesMut::new();
    let mut plays = false;
    loop {
        if tcp.read_buf(&mut input).await? == 0 {
            return Ok(None);
        }
        carrier.handle_bytes(&mut input).map_err(io::Error::other)?;
        while let Some(message) = carrier.poll_message() {
            session
                .handle_message(message, now)
                .map_err(io::Error::other)?;
        }
        while let Some(output) = session.poll_output() {
            match output {
                Output::Message(message) => carrier.write_message(&message),
                Output::Event(Event::Connect { request, .. }) => {
                    carrier.set_chunk_size(chunk_size());
                    session
                        .handle_reply(request, Reply::Accept, now)
                        .map_err(io::Error::other)?;
                }
                Output::Event(Event::Play { request, .. }) => {
                    plays = true;
                    session
                        .handle_reply(request, Reply::Accept, now)
                        .map_err(io::Error::other)?;
                }
                Output::Event(_) => {}
            }
        }
        while let Some(bytes) = carrier.poll_transmit() {
            tcp.write_all(&bytes).await?;
        }
        if plays {
            return Ok(Some(tcp.into_std()?));
        }
    }
}

/// The chunk size of our edges, so that the floor writes the same bytes.
fn chunk_size() -> u32 {
    edge::Config::default().play.chunk_size
}

/// A player's socket, and what it did not take of the last write.
struct Socket {
    tcp: TcpStream,
    rest: Vec<u8>,
}

fn fan_out(flags: &Flags, joins: &mpsc::Receiver<TcpStream>) {
    let mut sockets: Vec<Socket> = Vec::new();
    let mut stream = Synthetic::new(flags.bits);
    let coalesce = Duration::from_millis(flags.coalesce_ms);
    let began = Instant::now();
    let mut waiting: Vec<Bytes> = Vec::new();
    let mut write_at = None;
    let mut due = stream.next();
    loop {
        let due_at = began + Duration::from_micros(due.at_micros);
        let next = write_at.map_or(due_at, |at: Instant| at.min(due_at));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if due_at <= Instant::now() {
            let payload = due.payload(wall_micros());
            let mut image = BytesMut::new();
            rtmp::chunk::image(
                due.kind,
                STREAM,
                due.time(),
                &payload,
                chunk_size(),
                &mut image,
            );
            waiting.push(image.freeze());
            write_at.get_or_insert(due_at + coalesce);
            due = stream.next();
        }
        if write_at.is_some_and(|at| at <= Instant::now()) {
            write_at = None;
            sockets.extend(joins.try_iter().map(|tcp| Socket {
                tcp,
                rest: Vec::new(),
            }));
            let slices: Vec<IoSlice<'_>> = waiting
                .iter()
                .take(SLICES_MAX)
                .map(|image| IoSlice::new(image))
                .collect();
            sockets.retain_mut(|socket| socket.write(&slices).is_ok());
            waiting.clear();
        }
    }
}

/// Bytes that a socket may be behind before it misses messages.
const REST_MAX: usize = 4 * 1024 * 1024;

impl Socket {
    /// Writes once. What does not fit is kept and goes first the next time, because
    /// messages must not be torn.
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        if !self.rest.is_empty() {
            if self.rest.len() < REST_MAX {
                self.keep(slices, 0);
            }
            let written = none_if_full(self.tcp.write(&self.rest))?;
            self.rest.drain(..written);
            return Ok(());
        }
        let written = none_if_full(match slices {
            [one] => self.tcp.write(one),
            many => self.tcp.write_vectored(many),
        })?;
        self.keep(slices, written);
        Ok(())
    }

    /// Keeps all but the first `written` bytes.
    fn keep(&mut self, slices: &[IoSlice<'_>], mut written: usize) {
        for slice in slices {
            let taken = written.min(slice.len());
            written -= taken;
            self.rest
                .extend_from_slice(slice.get(taken..).unwrap_or_default());
        }
    }
}

fn none_if_full(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
