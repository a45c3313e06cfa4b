//! What the membership holds of an origin: its name and where it is.
//!
//! ```text
//!   name  line feed  address
//! ```
//!
//! A name holds no control characters. Who founds or adds a member writes it so; a member
//! takes the name from it when an origin has left the cluster.

use std::collections::BTreeSet;

use bytes::Bytes;
use consensus::{About, Membership};
use model::OriginId;

/// What is kept of an origin whose data folder has this stamp.
#[must_use]
pub fn write(stamp: u64, name: &str, address: &str) -> About {
    About {
        stamp,
        text: Bytes::from(format!("{name}\n{address}")),
    }
}

/// Name and address; empty where they are not known.
#[must_use]
pub fn read(text: &[u8]) -> (&str, &str) {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.split_once('\n'))
        .unwrap_or_default()
}

/// The names of all members, as far as they are known.
pub(crate) fn names(membership: &Membership) -> BTreeSet<OriginId> {
    let members = membership.about.values();
    members
        .filter_map(|about| OriginId::new(read(&about.text).0).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_address_are_read_as_they_were_written() {
        let about = write(7, "origin-0", "10.0.0.1:9350");
        assert_eq!(about.stamp, 7);
        assert_eq!(read(&about.text), ("origin-0", "10.0.0.1:9350"));
        assert_eq!(read(b"origin-0"), ("", ""));
        assert_eq!(read(b"\xff\n"), ("", ""));
    }
}
