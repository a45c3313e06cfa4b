//! Headers of codecs in FLV form: classification of media messages, and FLV files.

pub mod file;
pub mod limits;

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
