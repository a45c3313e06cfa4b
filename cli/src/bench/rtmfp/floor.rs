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
use rtmfp::crypto::{FlashSuite, Opener, Sealer, Suite, Verification};

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
    let mut suite = suite(0, secure);
    let mut batch = Vec::new();
    for _ in 0..500 {
        let payload = stream.next().payload(0);
        media += payload.len();
        batch.clear();
        for piece in payload.chunks(PIECE) {
            push(&mut suite, piece, &mut batch);
        }
        datagrams += batch.len();
    }
    media as f64 / datagrams as f64
}

/// Adds the datagram of a piece; returns its length.
fn push(suite: &mut FlashSuite, piece: &[u8], batch: &mut Vec<u8>) -> usize {
    let begin = batch.len();
    let plain = begin + SESSION_ID + suite.head_len();
    batch.resize(plain + HEADER, 0);
    batch.extend_from_slice(piece);
    let plain_len = batch.len() - plain;
    // Padding and authentication.
    batch.resize(batch.len() + 64, 0);
    let sealed = batch.get_mut(begin + SESSION_ID..).unwrap_or_default();
    let len = SESSION_ID + suite.seal(sealed, plain_len).unwrap_or_default();
    batch.truncate(begin + len);
    len
}

fn run(flags: &Flags) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let state = UdpSocketState::new((&socket).into())?;
    let _ = state.set_send_buffer_size((&socket).into(), 4 << 20);
    let segments = state.max_gso_segments().max(1);
    let mut suites: Vec<_> = (0..=u8::MAX)
        .cycle()
        .take(flags.to.len())
        .map(|player| suite(player, flags.secure))
        .collect();
    let mut stream = Synthetic::new(flags.bits);
    let began = Instant::now();
    let mut batch = Vec::new();
    loop {
        let due = stream.next();
        let at = began + Duration::from_micros(due.at_micros);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let payload = due.payload(wall_micros());
        for (to, suite) in flags.to.iter().zip(&mut suites) {
            let mut segment = 0;
            let mut count = 0;
            for piece in payload.chunks(PIECE) {
                let len = push(suite, piece, &mut batch);
                segment = segment.max(len);
                count += 1;
                if count == segments || batch.len() + segment > BATCH_MAX || piece.len() < PIECE {
                    send(&socket, &state, *to, &batch, segment)?;
                    batch.clear();
                    (segment, count) = (0, 0);
                }
            }
            if !batch.is_empty() {
                send(&socket, &state, *to, &batch, segment)?;
                batch.clear();
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
