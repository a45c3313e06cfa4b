//! The life of a session, packet by packet.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a broken example is to end the test at once"
)]

mod large;
mod life;
mod odd;
mod receiving;
mod sending;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use selvage_rtmfp::chunk::{Ack, AckForm, Chunk, Fragment, UserData};
use selvage_rtmfp::flow::{Options, Order, Priority, ReceiveId, SendId};
use selvage_rtmfp::limits::DATAGRAM_MAX;
use selvage_rtmfp::option::Options as WireOptions;
use selvage_rtmfp::packet::{Header, Mode, Packet, PacketWriter};
use selvage_rtmfp::session::{Closed, Config, Event, Manners, Refused, Session};

/// A session and a far end that is played by hand.
struct Played {
    session: Session,
    now: Instant,
    far: SocketAddr,
}

/// A chunk as the test reads it: its type code and some of what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Data {
        sequence: u64,
        forward: u64,
        abandoned: bool,
        last: bool,
        len: usize,
    },
    Ack {
        flow: u64,
        blocks: u64,
        cumulative: u64,
        beyond: Vec<(u64, u64)>,
    },
    Exception {
        flow: u64,
        code: u64,
    },
    Probe,
    Ping(Vec<u8>),
    PingReply(Vec<u8>),
    Close,
    CloseAck,
}

fn seen(chunk: Chunk<'_>) -> Seen {
    match chunk {
        Chunk::UserData(data) | Chunk::NextUserData(data) => Seen::Data {
            sequence: data.sequence,
            forward: data.forward,
            abandoned: data.abandoned,
            last: data.last,
            len: data.data.len(),
        },
        Chunk::Ack(ack) => Seen::Ack {
            flow: ack.flow,
            blocks: ack.buffer_blocks,
            cumulative: ack.cumulative,
            beyond: ack
                .received()
                .map(|range| (*range.start(), *range.end()))
                .collect(),
        },
        Chunk::FlowException { flow, code } => Seen::Exception { flow, code },
        Chunk::BufferProbe { .. } => Seen::Probe,
        Chunk::Ping(message) => Seen::Ping(message.to_vec()),
        Chunk::PingReply(message) => Seen::PingReply(message.to_vec()),
        Chunk::Close => Seen::Close,
        Chunk::CloseAck => Seen::CloseAck,
        other => panic!("not expected: {other:?}"),
    }
}

impl Played {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "a test needs some instant to start from"
        )]
        let start = Instant::now();
        let far = SocketAddr::from(([192, 0, 2, 1], 5000));
        Self {
            session: Session::new(config, Mode::Responder, far, [1; 32], start),
            now: start,
            far,
        }
    }

    fn receive(&mut self, chunks: &[Chunk<'_>]) {
        self.receive_from(self.far, chunks);
    }

    fn receive_from(&mut self, from: SocketAddr, chunks: &[Chunk<'_>]) {
        let mut buffer = [0; 4096];
        let header = Header::new(Mode::Initiator);
        let mut packet = PacketWriter::new(&mut buffer, &header).unwrap();
        for chunk in chunks {
            packet.chunk(chunk).unwrap();
        }
        let len = packet.finish();
        self.session.handle_packet(from, &buffer[..len], self.now);
    }

    /// The packets that go out, with where they go.
    fn sent_to(&mut self) -> Vec<(SocketAddr, Vec<Seen>)> {
        let mut buffer = [0; DATAGRAM_MAX];
        let mut sent = Vec::new();
        while let Some(packet) = self.session.poll_transmit(&mut buffer, self.now) {
            let read = Packet::parse(&buffer[..packet.len]).unwrap();
            assert_eq!(read.header.mode, Mode::Responder);
            assert!(
                read.header.timestamp.is_some(),
                "every packet has a timestamp"
            );
            sent.push((packet.to, read.chunks().map(seen).collect()));
        }
        sent
    }

    fn sent(&mut self) -> Vec<Vec<Seen>> {
        self.sent_to()
            .into_iter()
            .map(|(_, chunks)| chunks)
            .collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Lets time pass, and what is due happen. Returns what is sent meanwhile.
    fn wait(&mut self, ms: u64) -> Vec<Vec<Seen>> {
        let until = self.now + Duration::from_millis(ms);
        let mut sent = Vec::new();
        while let Some(due) = self.session.next_deadline()
            && due.at <= until
        {
            self.now = self.now.max(due.at);
            self.session.handle_timeout(self.now);
            sent.extend(self.sent());
        }
        self.now = until;
        sent
    }

    fn write(&mut self, flow: SendId, bytes: &'static [u8]) {
        let written = self
            .session
            .write(flow, bytes, Priority::Data, None, self.now);
        written.unwrap();
    }

    fn open(&mut self) -> SendId {
        self.session.open_flow(b"m", Options::default()).unwrap()
    }

    fn ack(&mut self, flow: SendId, blocks: u64, cumulative: u64, ranges: &[u8]) {
        self.receive(&[Chunk::Ack(Ack {
            flow: flow.0,
            buffer_blocks: blocks,
            cumulative,
            form: AckForm::Ranges,
            beyond: ranges,
        })]);
    }
}

/// Metadata `m` as an option.
const METADATA: &[u8] = &[2, 0, b'm'];

fn data(sequence: u64, forward: u64, bytes: &[u8]) -> UserData<'_> {
    UserData {
        flow: 9,
        sequence,
        forward,
        fragment: Fragment::Whole,
        abandoned: false,
        last: false,
        options: WireOptions::parse_all(METADATA),
        data: bytes,
    }
}

fn ack(cumulative: u64, beyond: &[(u64, u64)]) -> Seen {
    Seen::Ack {
        flow: 9,
        blocks: 512,
        cumulative,
        beyond: beyond.to_vec(),
    }
}
