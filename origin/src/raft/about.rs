//! What the membership holds of an origin: its name and where it is.
//!
//! A name, a line's end, an address. Names hold no control characters.

use bytes::Bytes;
use consensus::About;

pub(super) fn write(stamp: u64, name: &str, address: &str) -> About {
    About {
        stamp,
        text: Bytes::from(format!("{name}\n{address}")),
    }
}

/// Name and address; empty where they are not known.
pub(super) fn read(text: &[u8]) -> (&str, &str) {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.split_once('\n'))
        .unwrap_or_default()
}
