//! One player.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtmp::{Carrier, Message, MessageKind};
use session::ClientSession;
use session::client::{Event, Output, PlayRequest, Setup};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::Tally;
use crate::bench::{stream, wall_micros};

/// After how many bytes a player acknowledges: the window that servers announce.
const WINDOW: u64 = 2_500_000;

/// Joins and reads until the connection ends; returns why it did.
pub(super) async fn watch(tally: &Tally, closely: bool) -> io::Error {
    match try_watch(tally, closely).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn try_watch(tally: &Tally, closely: bool) -> io::Result<std::convert::Infallible> {
    let mut link = Link::open(tally).await?;
    let first = link.join(tally).await?;
    tally.first.borrow_mut().push(first);
    tally.joined.set(tally.joined.get() + 1);
    if closely {
        loop {
            let read = link.step(tally).await?;
            if tally.in_window() {
                tally.bytes.set(tally.bytes.get() + read);
                tally.close_bytes.set(tally.close_bytes.get() + read);
            }
            while let Some(message) = link.carrier.poll_message() {
                tally.look_at(&message);
            }
        }
    }
    // From here on nothing is looked at.
    let Link {
        mut tcp, carrier, ..
    } = link;
    let mut received = carrier.bytes_received();
    drop(carrier);
    let mut acknowledged = received;
    loop {
        let read = read(&mut tcp, tally, |_| {}).await?;
        received += read;
        if tally.in_window() {
            tally.bytes.set(tally.bytes.get() + read);
        }
        if received - acknowledged >= WINDOW {
            acknowledged = received;
            tcp.write_all(&acknowledgement(received)).await?;
        }
    }
}

/// Connects, plays until the first frame and leaves, by so many players at a time, for so
/// long; returns how many did.
pub(super) async fn join_and_leave(tally: &Rc<Tally>, time: Duration, parallel: usize) -> usize {
    let until = Instant::now() + time;
    let done = Rc::new(Cell::new(0));
    let mut tasks = Vec::new();
    for _ in 0..parallel {
        let (tally, done) = (Rc::clone(tally), Rc::clone(&done));
        tasks.push(tokio::task::spawn_local(async move {
            while Instant::now() < until {
                let Ok(mut link) = Link::open(&tally).await else {
                    continue;
                };
                if link.join(&tally).await.is_ok() {
                    done.set(done.get() + 1);
                }
                // No TIME-WAIT is left behind, or the ports would run out.
                let _ = link.tcp.set_zero_linger();
            }
        }));
    }
    for task in tasks {
        let _ = task.await;
    }
    done.get()
}

impl Tally {
    fn in_window(&self) -> bool {
        let (from, to) = self.window.get();
        // Saves the clock before the window is known.
        from != u64::MAX && (from..to).contains(&wall_micros())
    }

    fn look_at(&self, message: &Message) {
        if message.kind != MessageKind::Video {
            return;
        }
        let Some(stamp) = stream::stamp_of(message.kind, &message.payload) else {
            return;
        };
        let (from, to) = self.window.get();
        if (from..to).contains(&stamp) {
            self.close_pictures.set(self.close_pictures.get() + 1);
            self.latency
                .borrow_mut()
                .push(wall_micros().saturating_sub(stamp));
        }
    }
}

/// A connection whose messages are put together.
struct Link {
    tcp: TcpStream,
    carrier: Carrier,
    session: ClientSession,
    input: BytesMut,
}

impl Link {
    async fn open(tally: &Tally) -> io::Result<Self> {
        let tcp = TcpStream::connect(tally.addr).await?;
        tcp.set_nodelay(true)?;
        let setup = Setup::new("live", format!("rtmp://{}/live", tally.addr));
        let session = ClientSession::new(&setup, Instant::now()).map_err(io::Error::other)?;
        Ok(Self {
            tcp,
            carrier: Carrier::client(1),
            session,
            input: BytesMut::new(),
        })
    }

    /// Plays until the first coded frame has come; returns the microseconds from sending
    /// play to it.
    async fn join(&mut self, tally: &Tally) -> io::Result<u64> {
        let mut played_at = None;
        self.send().await?;
        loop {
            self.step(tally).await?;
            while let Some(message) = self.carrier.poll_message() {
                if stream::stamp_of(message.kind, &message.payload).is_some()
                    && let Some(at) = played_at
                {
                    let waited = Instant::now().saturating_duration_since(at);
                    return Ok(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
                }
                self.session
                    .handle_message(message)
                    .map_err(io::Error::other)?;
            }
            if self.advance()? {
                played_at = Some(Instant::now());
            }
            self.send().await?;
        }
    }

    /// Acts upon the events; true when play was asked for.
    fn advance(&mut self) -> io::Result<bool> {
        let mut plays = false;
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Message(message) => self.carrier.write_message(&message),
                Output::Event(Event::Connected(_)) => {
                    self.session.create_stream().map_err(io::Error::other)?;
                }
                Output::Event(Event::StreamReady { stream, .. }) => {
                    let request = PlayRequest::default();
                    self.session
                        .play(stream, "bench", request)
                        .map_err(io::Error::other)?;
                    plays = true;
                }
                Output::Event(Event::Closed { reason }) => {
                    return Err(io::Error::other(format!("{reason:?}")));
                }
                Output::Event(_) => {}
            }
        }
        Ok(plays)
    }

    /// Reads once, and answers what the carrier answers.
    async fn step(&mut self, tally: &Tally) -> io::Result<u64> {
        let input = &mut self.input;
        let read = read(&mut self.tcp, tally, |bytes| input.extend_from_slice(bytes)).await?;
        self.carrier
            .handle_bytes(&mut self.input)
            .map_err(io::Error::other)?;
        self.send().await?;
        Ok(read)
    }

    async fn send(&mut self) -> io::Result<()> {
        self.advance()?;
        while let Some(bytes) = self.carrier.poll_transmit() {
            self.tcp.write_all(&bytes).await?;
        }
        Ok(())
    }
}

/// Reads once into the shared buffer when something is there.
async fn read(tcp: &mut TcpStream, tally: &Tally, mut look: impl FnMut(&[u8])) -> io::Result<u64> {
    let read = std::future::poll_fn(|cx| {
        let mut scratch = tally.scratch.borrow_mut();
        let mut buf = ReadBuf::new(&mut scratch);
        Pin::new(&mut *tcp).poll_read(cx, &mut buf).map_ok(|()| {
            look(buf.filled());
            buf.filled().len() as u64
        })
    })
    .await?;
    if read == 0 {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(read)
    }
}

/// The chunk of an Acknowledgement (RTMP 1.0 §5.4.3): type 3 on chunk stream 2.
fn acknowledgement(received: u64) -> [u8; 16] {
    let mut chunk = [2, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 0, 0];
    let sequence = u32::try_from(received & u64::from(u32::MAX)).unwrap_or_default();
    for (to, from) in chunk.iter_mut().skip(12).zip(sequence.to_be_bytes()) {
        *to = from;
    }
    chunk
}
