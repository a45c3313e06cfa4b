//! The carrier: handshake, then chunks, then messages, for one connection.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::aggregate::Aggregate;
use crate::chunk::{RawMessage, Reader, Writer};
use crate::handshake::{self, Handshake, Scheme};
use crate::message::{Message, MessageKind, StreamId};
use crate::window::Window;
use crate::{Error, limits};

const SET_CHUNK_SIZE: u8 = 1;
const ABORT: u8 = 2;
const ACKNOWLEDGEMENT: u8 = 3;
const WINDOW_ACKNOWLEDGEMENT_SIZE: u8 = 5;
const SET_PEER_BANDWIDTH: u8 = 6;
const AGGREGATE: u8 = 22;

/// The limit type of Set Peer Bandwidth that Flash Media Server sends: 2, dynamic.
const DYNAMIC: u8 = 2;

/// One side of an RTMP connection over a byte stream. The crate's documentation tells how
/// it is driven.
#[derive(Debug)]
pub struct Carrier {
    /// Until the connection is open.
    handshake: Option<Handshake>,
    kind: Option<handshake::Kind>,
    /// What the handshake has to send; before all that `writer` holds.
    greeting: BytesMut,
    reader: Reader,
    writer: Writer,
    window: Window,
    incoming: VecDeque<Incoming>,
    received: u64,
    sent: u64,
    acknowledged: Option<u32>,
    ignored: u64,
    unwritable: u64,
    /// What the message that was polled last is stamped with.
    polled_stamp: u64,
    /// A carrier that gave up stays so.
    failed: Option<Error>,
}

/// A message that is there as a whole.
#[derive(Debug)]
enum Incoming {
    /// With its stamp.
    One(Message, u64),
    Row(Aggregate),
}

impl Carrier {
    /// The side that accepted the connection. The seed fills the random parts of the
    /// handshake; it should differ from connection to connection and guards no secret.
    #[must_use]
    pub fn server(seed: u64) -> Self {
        Self::new(Some(Handshake::server(seed)), BytesMut::new())
    }

    /// The side that made the connection. It has something to transmit at once.
    #[must_use]
    pub fn client(seed: u64) -> Self {
        // Of the two schemes, the one that ffmpeg sends, so every server has met it.
        Self::client_with(seed, Scheme::DigestFirst)
    }

    pub(crate) fn client_with(seed: u64, scheme: Scheme) -> Self {
        let mut greeting = BytesMut::with_capacity(limits::HANDSHAKE_BYTES);
        let handshake = Handshake::client(seed, scheme, &mut greeting);
        Self::new(Some(handshake), greeting)
    }

    /// Without a handshake, for tests of what comes behind it.
    pub(crate) fn opened() -> Self {
        Self::new(None, BytesMut::new())
    }

    fn new(handshake: Option<Handshake>, greeting: BytesMut) -> Self {
        Self {
            handshake,
            kind: None,
            greeting,
            reader: Reader::new(),
            writer: Writer::new(),
            window: Window::new(),
            incoming: VecDeque::new(),
            received: 0,
            sent: 0,
            acknowledged: None,
            ignored: 0,
            unwritable: 0,
            polled_stamp: 0,
            failed: None,
        }
    }

    /// Takes what the peer sent off the front of `input`. What it leaves there (less than
    /// a handshake block or a chunk header) must be at the front of the next call's input.
    ///
    /// Then drain [`Self::poll_message`] and [`Self::poll_transmit`].
    ///
    /// # Errors
    /// What the peer did wrong. The carrier reads nothing more: every later call gives the
    /// same error. Messages that were whole before can still be polled.
    pub fn handle_bytes(&mut self, input: &mut BytesMut) -> Result<(), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let before = input.len();
        let result = self.read(input);
        self.received += (before - input.len()) as u64;
        self.failed = result.err();
        if result.is_ok()
            && self.is_open()
            && let Some(sequence) = self.window.acknowledge(self.received)
        {
            self.writer
                .control(ACKNOWLEDGEMENT, &sequence.to_be_bytes());
        }
        result
    }

    /// Stamps the messages that begin in what is handed in from now on, be it with a time or
    /// something else that the caller knows them by. 0 is no stamp.
    pub const fn stamp(&mut self, stamp: u64) {
        self.reader.set_stamp(stamp);
    }

    /// What the message that was polled last is stamped with, by the handing in that brought
    /// its first chunk. The parts of an aggregate have no stamp.
    #[must_use]
    pub const fn polled_stamp(&self) -> u64 {
        self.polled_stamp
    }

    /// The next message of the peer. Protocol control messages are not among them, and
    /// aggregates come as their parts.
    pub fn poll_message(&mut self) -> Option<Message> {
        loop {
            match self.incoming.front_mut() {
                None => {
                    self.incoming.shrink_to(limits::QUEUE_KEPT);
                    return None;
                }
                Some(Incoming::Row(row)) => {
                    if let Some(message) = row.next(&mut self.ignored) {
                        self.polled_stamp = 0;
                        return Some(message);
                    }
                    self.incoming.pop_front();
                }
                Some(Incoming::One(..)) => {
                    if let Some(Incoming::One(message, stamp)) = self.incoming.pop_front() {
                        self.polled_stamp = stamp;
                        return Some(message);
                    }
                }
            }
        }
    }

    /// Queues a message. Before the connection is open it waits for that.
    ///
    /// A payload longer than [`limits::MESSAGE_LENGTH_MAX`] cannot be written; it is left
    /// out and counted in [`Self::unwritable`].
    pub fn write_message(&mut self, message: &Message) {
        if !self.writer.message(message) {
            self.unwritable += 1;
        }
    }

    /// Queues an [`image`](crate::chunk::image) that was made for
    /// [`Self::send_chunk_size`]. A long one is not copied.
    pub fn write_image(&mut self, image: Bytes) {
        self.writer.bytes(image);
    }

    /// The next bytes for the peer. What is given out must be sent.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        let bytes = if self.greeting.is_empty() {
            if !self.is_open() {
                return None;
            }
            self.writer.poll_transmit()?
        } else {
            std::mem::take(&mut self.greeting).freeze()
        };
        self.sent += bytes.len() as u64;
        Some(bytes)
    }

    /// How many bytes wait in [`Self::poll_transmit`], including those that wait for the
    /// connection to open.
    #[must_use]
    pub fn transmit_len(&self) -> usize {
        self.greeting.len() + self.writer.len()
    }

    /// Whether the handshake is done.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.handshake.is_none()
    }

    /// How the two sides greeted each other, once the connection is open.
    #[must_use]
    pub const fn handshake(&self) -> Option<handshake::Kind> {
        self.kind
    }

    /// Queues a Set Chunk Size and writes all that follows with it. The size is clamped to
    /// 1 to [`limits::CHUNK_SIZE_MAX`]; nothing happens if it is in force already.
    pub fn set_chunk_size(&mut self, size: u32) {
        let size = size.clamp(1, limits::CHUNK_SIZE_MAX);
        if size != self.writer.chunk_size() {
            self.writer.control(SET_CHUNK_SIZE, &size.to_be_bytes());
            self.writer.set_chunk_size(size);
        }
    }

    /// The chunk size of what is written.
    #[must_use]
    pub const fn send_chunk_size(&self) -> u32 {
        self.writer.chunk_size()
    }

    /// Queues a Window Acknowledgement Size (we want to hear after so many bytes) and a
    /// Set Peer Bandwidth (the peer should let us hear after so many bytes; dynamic), both
    /// in bytes. A server does this before it answers `connect`.
    pub fn announce_window(&mut self, window_ack: u32, peer_bandwidth: u32) {
        self.announce_window_size(window_ack);
        let [a, b, c, d] = peer_bandwidth.to_be_bytes();
        self.writer
            .control(SET_PEER_BANDWIDTH, &[a, b, c, d, DYNAMIC]);
    }

    /// How many bytes were taken in all, the handshake among them.
    #[must_use]
    pub const fn bytes_received(&self) -> u64 {
        self.received
    }

    /// How many bytes were given out to be sent.
    #[must_use]
    pub const fn bytes_sent(&self) -> u64 {
        self.sent
    }

    /// The sequence number of the peer's last Acknowledgement: how many bytes it received,
    /// modulo 2^32. Peers differ in whether they count the handshake.
    #[must_use]
    pub const fn acknowledged(&self) -> Option<u32> {
        self.acknowledged
    }

    /// How many messages had a type that nobody knows.
    #[must_use]
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }

    /// How many messages were too long to be written.
    #[must_use]
    pub const fn unwritable(&self) -> u64 {
        self.unwritable
    }

    /// How many bytes of incomplete messages are held.
    #[must_use]
    pub const fn bytes_held(&self) -> usize {
        self.reader.held()
    }

    fn read(&mut self, input: &mut BytesMut) -> Result<(), Error> {
        if let Some(handshake) = &mut self.handshake {
            if !handshake.handle_bytes(input, &mut self.greeting)? {
                return Ok(());
            }
            self.kind = Some(handshake.kind());
            self.handshake = None;
        }
        while let Some(message) = self.reader.next(input)? {
            self.sort(message)?;
        }
        Ok(())
    }

    /// Protocol control messages take effect here (§5.4), wherever they come: that they
    /// belong on chunk stream 2 and message stream 0 is not insisted on.
    fn sort(&mut self, raw: RawMessage) -> Result<(), Error> {
        match raw.type_id {
            SET_CHUNK_SIZE => {
                let size = word(&raw)?;
                if size == 0 || size > limits::CHUNK_SIZE_MAX {
                    return Err(Error::ChunkSize { size });
                }
                self.reader.set_chunk_size(size);
            }
            ABORT => self.reader.abort(word(&raw)?),
            ACKNOWLEDGEMENT => self.acknowledged = Some(word(&raw)?),
            WINDOW_ACKNOWLEDGEMENT_SIZE => self.window.handle_size(word(&raw)?),
            SET_PEER_BANDWIDTH => {
                if let Some(size) = self.window.handle_peer_bandwidth(word(&raw)?) {
                    self.announce_window_size(size);
                }
            }
            AGGREGATE => self.incoming.push_back(Incoming::Row(Aggregate::new(raw)?)),
            other => match MessageKind::from_type_id(other) {
                Some(kind) => {
                    let message = Message {
                        kind,
                        stream: StreamId(raw.stream),
                        time: raw.time,
                        payload: raw.payload,
                    };
                    self.incoming.push_back(Incoming::One(message, raw.stamp));
                }
                None => self.ignored += 1,
            },
        }
        Ok(())
    }

    fn announce_window_size(&mut self, size: u32) {
        self.window.announce(size);
        self.writer
            .control(WINDOW_ACKNOWLEDGEMENT_SIZE, &size.to_be_bytes());
    }
}

/// The number that every protocol control message begins with.
fn word(raw: &RawMessage) -> Result<u32, Error> {
    raw.payload
        .first_chunk::<4>()
        .map(|bytes| u32::from_be_bytes(*bytes))
        .ok_or(Error::ControlTooShort {
            type_id: raw.type_id,
            len: raw.payload.len(),
        })
}
