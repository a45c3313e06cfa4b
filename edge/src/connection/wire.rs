//! How a client's messages travel: as chunks of one byte stream, or each in a flow.

use bytes::Bytes;
use rtmp::{Carrier, Message};

use crate::datagram::Flows;

/// The two ways. What a client says and is told is the same in both.
#[derive(Debug)]
pub(super) enum Wire {
    /// RTMP and RTMPS.
    Chunks(Box<Carrier>),
    /// RTMFP.
    Flows(Box<Flows>),
}

impl Wire {
    /// Whether the handshake is done.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Chunks(carrier) => carrier.is_open(),
            // A session is there before its client is.
            Self::Flows(_) => true,
        }
    }

    /// The client is accepted: says what the carrier has to say first.
    pub(super) fn begin(&mut self, chunk_size: u32) {
        match self {
            Self::Chunks(carrier) => {
                carrier.announce_window(WINDOW, WINDOW);
                carrier.set_chunk_size(chunk_size);
            }
            Self::Flows(flows) => flows.begin(),
        }
    }

    /// The next message of the client.
    pub(super) fn poll_message(&mut self) -> Option<Message> {
        match self {
            Self::Chunks(carrier) => carrier.poll_message(),
            Self::Flows(flows) => flows.poll_message(),
        }
    }

    /// Bytes are read at this time: microseconds since 1970. Flows know it themselves.
    pub(super) fn stamp(&mut self, micros: u64) {
        match self {
            Self::Chunks(carrier) => carrier.stamp(micros),
            Self::Flows(_) => {}
        }
    }

    /// It is no longer noted when bytes are read.
    pub(super) fn unstamp(&mut self) {
        self.stamp(0);
    }

    /// When the first byte of the last message was read, if that was noted. To be asked for while
    /// it is.
    pub(super) fn polled_stamp(&self) -> u64 {
        match self {
            Self::Chunks(carrier) => carrier.polled_stamp(),
            Self::Flows(flows) => flows.polled_stamp(),
        }
    }

    /// A message for the client.
    pub(super) fn write_message(&mut self, message: &Message) {
        match self {
            Self::Chunks(carrier) => carrier.write_message(message),
            Self::Flows(flows) => flows.write_message(message),
        }
    }

    /// Bytes for the client's byte stream. Flows have none.
    pub(super) fn poll_transmit(&mut self) -> Option<Bytes> {
        match self {
            Self::Chunks(carrier) => carrier.poll_transmit(),
            Self::Flows(_) => None,
        }
    }

    /// Bytes that were written and have no room yet.
    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::Chunks(_) => 0,
            Self::Flows(flows) => flows.waiting(),
        }
    }
}

/// Window Acknowledgement Size and Set Peer Bandwidth, as Flash Media Server sends them.
const WINDOW: u32 = 2_500_000;
