//! One media message, classified once.

use std::fmt;

use bytes::Bytes;

use crate::id::Epoch;
use crate::time::MediaTime;

/// One audio, video or data message of a stream, with the verdict about it.
///
/// The verdict is given at the door (`flv::classify`); nobody behind it opens the
/// payload again. The payload is the message body as it was published and is never
/// rewritten (a data frame lost its leading `@setDataFrame` string, and nothing else).
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which kind of message carries it.
    pub kind: Kind,
    /// The verdict.
    pub class: Class,
    /// Which of several parallel configurations of one kind this frame is or sets.
    pub slot: Slot,
    /// The codec as an enhanced-RTMP FourCC (legacy codecs are mapped to one), or
    /// [`FourCc::NONE`] for data.
    pub codec: FourCc,
    /// The publisher's timestamp.
    pub time: MediaTime,
    /// The message body.
    pub payload: Bytes,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}/{:?}/{} {} @{} {} B",
            self.kind,
            self.class,
            self.slot.0,
            self.codec,
            self.time,
            self.payload.len()
        )
    }
}

/// The message kind a frame travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// RTMP message type 8.
    Audio,
    /// RTMP message type 9.
    Video,
    /// RTMP message types 18 and 15.
    Data,
}

/// What a cache or a queue must know about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Replaces the configuration in force in its slot: codec sequence headers, and data
    /// kept for late joiners (`@setDataFrame`).
    Config,
    /// Ends the configuration in its slot (`@clearDataFrame`). Never sent to players.
    Clear,
    /// Video that can be decoded from the configuration alone.
    Key,
    /// Video that needs what came before.
    Delta,
    /// Audio; every frame stands alone.
    Audio,
    /// Data that is delivered once and not kept.
    Data,
}

/// Tells parallel configurations of one [`Kind`] apart: the track id of enhanced RTMP
/// for audio and video, a hash of the data frame's name for data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A codec's four characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FourCc(pub [u8; 4]);

impl FourCc {
    /// No codec: data messages.
    pub const NONE: Self = Self([0; 4]);
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("-");
        }
        for byte in self.0 {
            write!(f, "{}", byte.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a frame stands in its stream: the incarnation of the publish and the frame's
/// number in it. Numbers start at 0 and have no gaps; they are given by the edge that
/// holds the publisher, so they survive the loss of the owning origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which publish.
    pub epoch: Epoch,
    /// Which frame of it.
    pub seq: u64,
}

/// A frame with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// The place.
    pub at: Position,
    /// The frame.
    pub frame: Frame,
}
