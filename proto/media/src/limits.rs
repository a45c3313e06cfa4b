//! What a backlog may hold, and why.

use model::Frame;

/// Bytes charged for every frame beside its payload: the ring's slot, and the part of the
/// allocation behind the payload that belongs to nobody else. Without it a stream of empty
/// messages would cost nothing.
pub const FRAME_COST: usize = 128;

/// The bounds of one [`Backlog`](crate::Backlog).
///
/// The defaults are a budget for one stream: some 16 MiB, and a join burst that a player can
/// swallow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in memory: payloads, [`FRAME_COST`] for each frame, and the configuration sets
    /// pinned to key frames. 16 MiB hold 13 s of a 10 Mbit/s stream, so the usual group of
    /// pictures of 2 to 10 s fits. Beyond it even the join point is given up: readers then
    /// wait for the next key frame. The newest frame is always kept.
    pub bytes: usize,
    /// Frames. A join replays at most this many: 8192 frames are 76 s of 60 pictures and 47
    /// AAC frames a second. It bounds the burst when a camera is switched off and only audio
    /// follows the last key frame.
    pub frames: usize,
    /// Milliseconds of media time kept behind the head where no join needs it, that is in
    /// front of the newest key frame (everything, where there is none). 8 s ride out a
    /// reader's stall or the change to another origin.
    pub time_ms: u64,
    /// Configurations in force at once. A stream has one for each codec track and each data
    /// name; 32 are enough for a ladder of tracks and stop a publisher that invents names.
    /// What does not fit is delivered, but not kept for those who join later.
    pub configs: usize,
    /// Bytes of payload of the configurations in force. They are sent to every reader that
    /// joins; real ones have some hundred bytes, XMP or a cover picture in a data frame some
    /// hundred thousand.
    pub config_bytes: usize,
    /// Milliseconds without any video after which a stream that has no key frame to join at
    /// is taken as one without video: readers join at its head and hear it.
    pub video_silence_ms: u64,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        bytes: 16 * 1024 * 1024,
        frames: 8192,
        time_ms: 8_000,
        configs: 32,
        config_bytes: 1024 * 1024,
        video_silence_ms: 10_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// A full set of configurations leaves room for media.
const _: () = assert!(Limits::DEFAULT.config_bytes * 4 <= Limits::DEFAULT.bytes);
// The bookkeeping of a full ring fits as well.
const _: () = assert!(Limits::DEFAULT.frames * FRAME_COST * 4 <= Limits::DEFAULT.bytes);
// A frame's place in the ring is covered by what is charged for it.
const _: () = assert!(size_of::<Frame>() + 40 <= FRAME_COST);

/// Frames of one stream about which something is noted at a time ([`Marks`](crate::Marks)).
/// Noted are key frames that are traced, and four groups of pictures are more than a path from a
/// publisher to a viewer holds, unless the viewer is about to skip.
pub const MARKS_MAX: usize = 4;
