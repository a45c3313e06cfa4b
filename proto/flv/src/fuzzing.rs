//! What the fuzz target `flv` does with its input, here so that ordinary tests replay its
//! corpus.

use bytes::{Bytes, BytesMut};
use model::{Class, Kind, MediaTime};

use crate::file::{Reader, Tag, Writer};

/// Takes the input as a message of each kind and as a file, and checks what must hold for
/// any bytes.
///
/// # Panics
/// If something does not hold.
#[allow(clippy::panic, reason = "a broken property is what a fuzzer looks for")]
pub fn run(input: &[u8]) {
    let payload = Bytes::copy_from_slice(input);
    for kind in [Kind::Audio, Kind::Video, Kind::Data] {
        let Ok(Some(frame)) = crate::frame(kind, MediaTime(0), payload.clone()) else {
            continue;
        };
        let fits = match frame.class {
            Class::Config => true,
            Class::Clear | Class::Data => kind == Kind::Data,
            Class::Key | Class::Delta => kind == Kind::Video,
            Class::Audio => kind == Kind::Audio,
        };
        assert!(fits, "{frame:?} is of the wrong class");
        assert!(payload.ends_with(&frame.payload), "{frame:?} was rewritten");
        assert!(
            kind == Kind::Data || frame.payload == payload,
            "{frame:?} was cut"
        );
    }

    let (mut reader, mut file) = (Reader::new(), BytesMut::from(input));
    while let Ok(Some(tag)) = reader.handle_bytes(&mut file) {
        let Ok(bytes) = Writer::tag(tag.type_id, tag.time, &tag.payload) else {
            panic!("a tag that was read cannot be written: {tag:?}")
        };
        let mut copy = BytesMut::from(&Writer::header(true, true)[..]);
        copy.extend_from_slice(&bytes);
        let again: Result<Option<Tag>, _> = Reader::new().handle_bytes(&mut copy);
        assert_eq!(again, Ok(Some(tag)), "a tag reads back otherwise");
    }
}
