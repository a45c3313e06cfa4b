//! Headers of codecs in FLV form: classification of media messages, and FLV files.
//!
//! Media enters the system through [`frame`]: it takes a message's body, looks at its first
//! bytes once, and gives a [`model::Frame`] with the verdict that everything behind it goes
//! by. Nothing here decodes pictures or reads a codec's configuration; the body is never
//! rewritten, only sliced.
//!
//! ```
//! # use selvage_flv as flv;
//! use bytes::Bytes;
//! use model::{Class, Kind, MediaTime};
//!
//! let header = Bytes::from_static(b"\x17\x00\0\0\0\x01\x64\x00\x1f");
//! let frame = flv::frame(Kind::Video, MediaTime(0), header)?.ok_or("nothing to relay")?;
//! assert_eq!((frame.class, frame.codec.to_string()), (Class::Config, "avc1".into()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What each message becomes:
//!
//! | message | class |
//! |---|---|
//! | codec sequence header, MPEG-2 TS sequence start, `colorInfo`, channel map | `Config` |
//! | picture of a key frame or generated key frame | `Key` |
//! | any other picture, end of sequence, command frame, video cut short | `Delta` |
//! | sound, silence (an empty message), end of sequence, audio cut short | `Audio` |
//! | `@setDataFrame` (cut off), a bare `onMetaData` | `Config` |
//! | `@clearDataFrame` | `Clear` |
//! | other data | `Data` |
//!
//! Slots keep apart what may be in force side by side: the layout is in [`slot`](mod@slot)
//! for audio and video; for data it is a hash of the name, [`slot_of`].
//!
//! FLV files are read and written by [`file`](mod@file). Bounds are in [`limits`].

pub mod file;
pub mod limits;

#[doc(hidden)]
pub mod fuzzing;

mod audio;
mod error;
mod metadata;
mod tag;
mod verdict;
mod video;

use bytes::Bytes;
use model::{FourCc, Frame, Kind, MediaTime};

pub use audio::classify_audio;
pub use error::{Error, Feature, Limit, Misbehaviour};
pub use metadata::slot_of;
pub use verdict::{Verdict, slot};
pub use video::classify_video;

/// Makes a frame of a message: the door through which media enters.
///
/// `None` if there is nothing to relay: an empty video or data message. (An empty audio
/// message means silence and is relayed.)
///
/// # Errors
/// A data frame is set or cleared without a name. Nothing else is refused: what cannot be
/// classified is relayed as a frame at which nobody joins.
pub fn frame(kind: Kind, time: MediaTime, payload: Bytes) -> Result<Option<Frame>, Error> {
    let (verdict, payload) = match kind {
        Kind::Audio => (classify_audio(&payload), payload),
        Kind::Video if payload.is_empty() => return Ok(None),
        Kind::Video => (classify_video(&payload), payload),
        Kind::Data => match metadata::classify(payload)? {
            None => return Ok(None),
            Some(data) => (
                Verdict {
                    class: data.class,
                    codec: FourCc::NONE,
                    slot: data.slot,
                },
                data.body,
            ),
        },
    };
    let Verdict { class, codec, slot } = verdict;
    Ok(Some(Frame {
        kind,
        class,
        slot,
        codec,
        time,
        payload,
    }))
}
