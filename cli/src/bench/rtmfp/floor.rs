//! The floor: the least that relaying over RTMFP can cost.
//!
//! A bare loop cuts the messages of a synthetic stream into datagrams of the usual length,
//! encrypts those of each player under a key of its own, and gives all of a message to the
//! kernel in one call. There are no sessions, no acknowledgements and no publisher, and
//! nothing is ever sent again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use quinn_udp::{Transmit, UdpSocketState};
use rtmfp::crypto::{FlashSuite, Opener, Sealer, Shape, Verification};

use crate::bench::stream::Synthetic;
use crate::bench::wall_micros;
use crate::exit::{self, Failure};

/// Run the floor of a measurement.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Flags {
    /// The players.
    #[arg(long, value_delimiter = ',')]
    to: Vec<SocketAddr>,
    #[arg(long)]
    bits: u64,
    /// Authenticates and numbers packets.
    #[arg(long)]
    secure: bool,
}

/// Bytes of a message in one datagram.
const PIECE: usize = 1120;

/// What packet, chunk and flow say about them.
const HEADER: usize = 20;

/// The number of the session.
const SESSION_ID: usize = 4;

/// What one system call takes at most.
const BATCH_MAX: usize = 60 * 1024;

pub(crate) fn main(flags: &Flags) -> ExitCode {
    exit::report(run(flags).map_err(|source| Failure::Here {
        what: "the floor cannot send".to_owned(),
        source,
    }))
}

/// The suite of one player.
fn suite(player: u8, secure: bool) -> FlashSuite {
    let verification = if secure {
        Verification {
            hmac_len: Some(16),
            sequence: true,
        }
    } else {
        Verification::CHECKSUM
    };
    let keys = (&[player; 16], &[player; 32]);
    FlashSuite::new(
        Sealer::new(keys.0, keys.1, verification),
        Opener::new(keys.0, keys.1, verification),
    )
}

/// How many bytes of a stream are in a byte of its datagrams.
pub(super) fn share_of_media(bits: u64, secure: bool) -> f64 {
    let mut stream = Synthetic::new(bits);
    let (mut media, mut datagrams) = (0, 0);
    let mut row = Row::new(0, secure);
    for _ in 0..500 {
        let payload = stream.next().payload(0);
        media += payload.len();
        for pieces in payload.chunks(PIECE * 8) {
            datagrams += row.seal(pieces).0.len();
        }
    }
    media as f64 / datagrams as f64
}

/// The datagrams of one player, one after the other.
struct Row {
    suite: FlashSuite,
    bytes: Vec<u8>,
}

impl Row {
    fn new(player: u8, secure: bool) -> Self {
        let bytes = vec![0; BATCH_MAX + rtmfp::limits::DATAGRAM_MAX];
        let suite = suite(player, secure);
        Self { suite, bytes }
    }

    /// Seals what a message has for one call. Returns the datagrams and the length of each but
    /// the last.
    fn seal(&mut self, message: &[u8]) -> (&[u8], usize) {
        let mut plain = Vec::with_capacity(BATCH_MAX / PIECE);
        let stride = SESSION_ID + self.suite.sealed_len(0, HEADER + message.len().min(PIECE));
        for (index, piece) in message.chunks(PIECE).enumerate() {
            let begin = index * stride + SESSION_ID + self.suite.head_len_ahead(index) + HEADER;
            if let Some(room) = self.bytes.get_mut(begin..begin + piece.len()) {
                room.copy_from_slice(piece);
            }
            plain.push(HEADER + piece.len());
        }
        let shape = Shape {
            stride,
            skip: SESSION_ID,
        };
        let len = self.suite.seal_row(&mut self.bytes, shape, &plain);
        let len = len.unwrap_or_default();
        (self.bytes.get(..len).unwrap_or_default(), stride)
    }
}

fn run(flags: &Flags) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let state = UdpSocketState::new((&socket).into())?;
    let _ = state.set_send_buffer_size((&socket).into(), 4 << 20);
    let pieces = state.max_gso_segments().clamp(1, BATCH_MAX / (PIECE + 64));
    let mut rows: Vec<_> = (0..=u8::MAX)
        .cycle()
        .take(flags.to.len())
        .map(|player| Row::new(player, flags.secure))
        .collect();
    let mut stream = Synthetic::new(flags.bits);
    let began = Instant::now();
    loop {
        let due = stream.next();
        let at = began + Duration::from_micros(due.at_micros);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let payload = due.payload(wall_micros());
        for (to, row) in flags.to.iter().zip(&mut rows) {
            for part in payload.chunks(PIECE * pieces) {
                let (datagrams, segment) = row.seal(part);
                send(&socket, &state, *to, datagrams, segment)?;
            }
        }
    }
}

fn send(
    socket: &UdpSocket,
    state: &UdpSocketState,
    to: SocketAddr,
    batch: &[u8],
    segment: usize,
) -> io::Result<()> {
    let transmit = Transmit {
        destination: to,
        ecn: None,
        contents: batch,
        segment_size: (segment < batch.len()).then_some(segment),
        src_ip: None,
    };
    loop {
        match state.try_send(socket.into(), &transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_micros(200));
            }
            // A player that is gone does not stop the others.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(()),
            done => return done,
        }
    }
}
