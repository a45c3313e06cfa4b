//! A small RTMP client over a blocking socket, written from the specification and apart
//! from the product's code: it judges what our side sends, and it can say what no honest
//! client would.

pub mod amf;
pub(super) mod commands;
pub mod object;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use amf::Amf;

use super::until::SOON;

/// Message type ids (RTMP 1.0 §5.4, §7.1).
pub mod kind {
    /// Set Chunk Size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW: u8 = 5;
    /// Set Peer Bandwidth.
    pub const PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Command with AMF3.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data.
    pub const DATA: u8 = 18;
    /// Shared object.
    pub const SHARED_OBJECT: u8 = 19;
    /// Command.
    pub const COMMAND: u8 = 20;
    /// Aggregate.
    pub const AGGREGATE: u8 = 22;
}

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type id, see [`kind`].
    pub kind: u8,
    /// Its message stream.
    pub stream: u32,
    /// Its timestamp.
    pub time: u32,
    /// Its body.
    pub body: Vec<u8>,
}

impl Message {
    /// Whether it is audio, video or data.
    pub fn is_media(&self) -> bool {
        matches!(self.kind, kind::AUDIO | kind::VIDEO | kind::DATA)
    }

    /// The values of an AMF0 command.
    pub fn command(&self) -> Option<Vec<Amf>> {
        match self.kind {
            kind::COMMAND => amf::values(&self.body),
            kind::COMMAND_AMF3 => amf::values(self.body.get(1..)?),
            _ => None,
        }
    }

    /// `code` of an `onStatus`.
    pub fn status(&self) -> Option<String> {
        let values = self.command()?;
        if values.first()?.as_text()? != "onStatus" {
            return None;
        }
        Some(values.get(3)?.get("code")?.as_text()?.to_owned())
    }
}

/// One connection.
#[derive(Debug)]
pub struct Raw {
    socket: TcpStream,
    chunks_in: BTreeMap<u32, Incoming>,
    chunk_in: usize,
    chunk_out: usize,
    window: u32,
    received: u32,
    acknowledged: u32,
    transaction: f64,
}

/// What is remembered of a chunk stream that we read.
#[derive(Debug, Default)]
struct Incoming {
    time: u32,
    step: u32,
    extended: bool,
    length: usize,
    kind: u8,
    stream: u32,
    body: Vec<u8>,
}

/// A TCP connection with the patience of a test.
///
/// # Errors
/// When nobody listens.
pub fn dial(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&addr, SOON)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SOON))?;
    socket.set_write_timeout(Some(SOON))?;
    Ok(socket)
}

/// Waits until the other side has closed the connection, whatever it says before.
///
/// # Panics
/// When it is still open after `patience`.
#[track_caller]
pub fn until_closed(socket: &mut TcpStream, patience: Duration) {
    let started = Instant::now();
    let mut sink = vec![0; 65536];
    loop {
        let left = patience.saturating_sub(started.elapsed());
        assert!(
            !left.is_zero(),
            "the connection is still open after {patience:?}"
        );
        let _bad_socket_shows_below = socket.set_read_timeout(Some(left));
        match socket.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if is_timeout(&error) => {}
            // A reset: the other side closed while something of ours was under way.
            Err(_) => return,
        }
    }
}

/// Whether a read or write gave up waiting.
pub fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl Raw {
    /// Connects and shakes hands (the plain handshake, RTMP 1.0 §5.2).
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn open(addr: SocketAddr) -> io::Result<Self> {
        Self::open_behind(addr, b"")
    }

    /// As [`Self::open`], with what a load balancer says first.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn open_behind(addr: SocketAddr, said: &[u8]) -> io::Result<Self> {
        let mut socket = dial(addr)?;
        socket.write_all(said)?;
        let mut hello = vec![0_u8; 1537];
        hello[0] = 3;
        hello[9..]
            .iter_mut()
            .zip((0..251).cycle())
            .for_each(|(byte, value)| *byte = value);
        socket.write_all(&hello)?;
        let mut answer = vec![0_u8; 1 + 1536 + 1536];
        socket.read_exact(&mut answer)?;
        if answer[0] != 3 {
            return Err(io::Error::other(
                "the server speaks another version of RTMP",
            ));
        }
        socket.write_all(&answer[1..1537])?;
        Ok(Self {
            socket,
            chunks_in: BTreeMap::new(),
            chunk_in: 128,
            chunk_out: 128,
            window: 2_500_000,
            received: 0,
            acknowledged: 0,
            transaction: 0.0,
        })
    }

    /// Connects, shakes hands, connects to an application.
    ///
    /// # Errors
    /// When the connection breaks or the application is refused.
    pub fn connect(addr: SocketAddr, app: &str) -> io::Result<Self> {
        let mut raw = Self::open(addr)?;
        raw.connect_app(addr, app)?;
        Ok(raw)
    }

    /// `connect`.
    ///
    /// # Errors
    /// When the connection breaks or the application is refused.
    pub fn connect_app(&mut self, addr: SocketAddr, app: &str) -> io::Result<()> {
        let object = Amf::Object(vec![
            ("app".into(), Amf::text(app)),
            ("type".into(), Amf::text("nonprivate")),
            ("flashVer".into(), Amf::text("LNX 9,0,124,2")),
            ("tcUrl".into(), Amf::text(&format!("rtmp://{addr}/{app}"))),
            ("fpad".into(), Amf::Boolean(false)),
            ("objectEncoding".into(), Amf::Number(0.0)),
        ]);
        self.call(0, "connect", &[object]).map(drop)
    }

    /// `createStream`.
    ///
    /// # Errors
    /// When the connection breaks or the server refuses.
    pub fn create_stream(&mut self) -> io::Result<u32> {
        let result = self.call(0, "createStream", &[Amf::Null])?;
        commands::stream_number(&result)
    }

    /// `publish`, and the code of the status that answers it.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn publish(&mut self, stream: u32, name: &str) -> io::Result<String> {
        let args = [Amf::Null, Amf::text(name), Amf::text("live")];
        self.command(stream, "publish", 0.0, &args)?;
        self.next_status()
    }

    /// `play` (whatever there is, or will be), and the code of the first status behind
    /// `NetStream.Play.Reset`.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn play(&mut self, stream: u32, name: &str) -> io::Result<String> {
        self.command(
            stream,
            "play",
            0.0,
            &[Amf::Null, Amf::text(name), Amf::Number(-2000.0)],
        )?;
        loop {
            let code = self.next_status()?;
            if code != "NetStream.Play.Reset" {
                return Ok(code);
            }
        }
    }

    /// The code of the next `onStatus`; media before it is dropped.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn next_status(&mut self) -> io::Result<String> {
        loop {
            if let Some(code) = self.read()?.status() {
                return Ok(code);
            }
        }
    }

    /// A remote call and its `_result`, all four or more values of it.
    ///
    /// # Errors
    /// When the connection breaks, or with the text of an `_error`.
    pub fn call(&mut self, stream: u32, name: &str, args: &[Amf]) -> io::Result<Vec<Amf>> {
        self.transaction += 1.0;
        let transaction = self.transaction;
        self.command(stream, name, transaction, args)?;
        commands::result(transaction, || self.read())
    }

    /// Sends a command without waiting for anything.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn command(
        &mut self,
        stream: u32,
        name: &str,
        transaction: f64,
        args: &[Amf],
    ) -> io::Result<()> {
        let body = commands::body(name, transaction, args);
        self.send(kind::COMMAND, stream, 0, &body)
    }

    /// Sends a message on the chunk stream that goes with its type.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send(&mut self, kind: u8, stream: u32, time: u32, body: &[u8]) -> io::Result<()> {
        let chunk_stream = match kind {
            kind::AUDIO => 4,
            kind::VIDEO => 6,
            kind::DATA => 5,
            kind::COMMAND | kind::COMMAND_AMF3 => 3,
            _ => 2,
        };
        let mut out = header(chunk_stream, kind, stream, time, body.len());
        for (number, part) in body.chunks(self.chunk_out).enumerate() {
            if number > 0 {
                out.push(0xc0 | chunk_stream);
                if time >= 0xff_ffff {
                    out.extend(time.to_be_bytes());
                }
            }
            out.extend(part);
        }
        self.socket.write_all(&out)
    }

    /// Announces and uses larger chunks.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn set_chunk_size(&mut self, size: u32) -> io::Result<()> {
        self.send(kind::SET_CHUNK_SIZE, 0, 0, &size.to_be_bytes())?;
        self.chunk_out = usize::try_from(size).map_err(io::Error::other)?;
        Ok(())
    }

    /// The socket, to say what no client says.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The next message. Chunk sizes, acknowledgements and pings are dealt with on the
    /// way.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for long.
    pub fn read(&mut self) -> io::Result<Message> {
        loop {
            let message = self.read_message()?;
            let number = message
                .body
                .first_chunk()
                .map(|bytes| u32::from_be_bytes(*bytes));
            match (message.kind, number) {
                (kind::SET_CHUNK_SIZE, Some(size @ 1..)) => {
                    self.chunk_in = usize::try_from(size).map_err(io::Error::other)?;
                }
                (kind::WINDOW, Some(window)) => self.window = window,
                (kind::USER_CONTROL, _) if message.body.starts_with(&[0, 6]) => {
                    let mut pong = message.body;
                    pong[1] = 7;
                    self.send(kind::USER_CONTROL, 0, 0, &pong)?;
                }
                (kind::ABORT | kind::ACKNOWLEDGEMENT | kind::PEER_BANDWIDTH, _) => {}
                _ => return Ok(message),
            }
        }
    }

    /// The next audio, video or data message.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for long.
    pub fn read_media(&mut self) -> io::Result<Message> {
        loop {
            let message = self.read()?;
            if message.is_media() {
                return Ok(message);
            }
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.socket.read_exact(bytes)?;
        let count = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.received = self.received.wrapping_add(count);
        Ok(())
    }

    /// Chunks until one completes a message (RTMP 1.0 §5.3.1).
    fn read_message(&mut self) -> io::Result<Message> {
        loop {
            if self.received.wrapping_sub(self.acknowledged) >= self.window {
                self.acknowledged = self.received;
                self.send(kind::ACKNOWLEDGEMENT, 0, 0, &self.received.to_be_bytes())?;
            }
            let [first] = self.take()?;
            let id = match first & 0x3f {
                0 => 64 + u32::from(self.take::<1>()?[0]),
                1 => 64 + u32::from(u16::from_le_bytes(self.take()?)),
                id => u32::from(id),
            };
            let format = first >> 6;
            let mut incoming = self.chunks_in.remove(&id).unwrap_or_default();
            let fresh = incoming.body.is_empty();
            if !fresh && format != 3 {
                return Err(io::Error::other("a new header inside a message"));
            }
            if format < 3 {
                let [a, b, c] = self.take()?;
                incoming.step = u32::from_be_bytes([0, a, b, c]);
                incoming.extended = incoming.step == 0xff_ffff;
            }
            if format < 2 {
                let [a, b, c, kind] = self.take()?;
                incoming.length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                incoming.kind = kind;
            }
            if format == 0 {
                incoming.stream = u32::from_le_bytes(self.take()?);
            }
            if incoming.extended {
                let time = u32::from_be_bytes(self.take()?);
                if format < 3 {
                    incoming.step = time;
                }
            }
            if fresh {
                let base = if format == 0 { 0 } else { incoming.time };
                incoming.time = base.wrapping_add(incoming.step);
            }
            let part = (incoming.length - incoming.body.len()).min(self.chunk_in);
            let start = incoming.body.len();
            incoming.body.resize(start + part, 0);
            self.fill(&mut incoming.body[start..])?;
            let done = incoming.body.len() == incoming.length;
            let message = done.then(|| Message {
                kind: incoming.kind,
                stream: incoming.stream,
                time: incoming.time,
                body: std::mem::take(&mut incoming.body),
            });
            self.chunks_in.insert(id, incoming);
            if let Some(message) = message {
                return Ok(message);
            }
        }
    }
}

/// A format-0 chunk header on a chunk stream below 64; `length` is what it claims.
pub fn header(chunk_stream: u8, kind: u8, stream: u32, time: u32, length: usize) -> Vec<u8> {
    let mut out = vec![chunk_stream];
    let [_, a, b, c] = time.min(0xff_ffff).to_be_bytes();
    out.extend([a, b, c]);
    let [.., a, b, c] = length.to_be_bytes();
    out.extend([a, b, c, kind]);
    out.extend(stream.to_le_bytes());
    if time >= 0xff_ffff {
        out.extend(time.to_be_bytes());
    }
    out
}
