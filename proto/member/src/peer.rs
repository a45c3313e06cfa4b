//! What members say to each other.
//!
//! ```text
//!   kind u8 | stamp of the sender u64 | stamp of the receiver u64 | body
//! ```
//!
//! A stamp is that of a data folder. 0 is one that is not known: a newcomer does not know
//! who speaks to it.

use bytes::{BufMut, Bytes, BytesMut};
use model::{EdgeId, EdgeLife};

use crate::limits::CONTACTS_MAX;

/// What a message between members is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message of the log.
    Log,
    /// A message of the log whose state travels beside it.
    State,
    /// The edges that are attached to the sender.
    Contacts,
}

/// Whose folders speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamps {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

const HEAD: usize = 17;

pub(crate) fn encode(kind: Kind, stamps: Stamps, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + body.len());
    out.put_u8(match kind {
        Kind::Log => 1,
        Kind::State => 2,
        Kind::Contacts => 3,
    });
    out.put_u64(stamps.from);
    out.put_u64(stamps.to);
    out.put_slice(body);
    out.freeze()
}

pub(crate) fn decode(message: &Bytes) -> Option<(Kind, Stamps, Bytes)> {
    let (head, _) = message.split_first_chunk::<HEAD>()?;
    let (kind, words) = head.split_first()?;
    let kind = match kind {
        1 => Kind::Log,
        2 => Kind::State,
        3 => Kind::Contacts,
        _ => return None,
    };
    let (from, to) = words.split_first_chunk::<8>()?;
    let stamps = Stamps {
        from: u64::from_be_bytes(*from),
        to: u64::from_be_bytes(to.try_into().ok()?),
    };
    Some((kind, stamps, message.slice(HEAD..)))
}

pub(crate) fn encode_contacts(edges: &[EdgeLife]) -> Bytes {
    let mut out = BytesMut::new();
    for life in edges.iter().take(CONTACTS_MAX) {
        let name = life.edge.as_str().as_bytes();
        // Names are at most 64 bytes long.
        out.put_u8(u8::try_from(name.len()).unwrap_or_default());
        out.put_slice(name);
        out.put_u64(life.incarnation);
    }
    out.freeze()
}

pub(crate) fn decode_contacts(mut body: &[u8]) -> Option<Vec<EdgeLife>> {
    let mut edges = Vec::new();
    while let Some((len, rest)) = body.split_first() {
        if edges.len() == CONTACTS_MAX {
            return None;
        }
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        edges.push(EdgeLife {
            edge: EdgeId::new(std::str::from_utf8(name).ok()?).ok()?,
            incarnation: u64::from_be_bytes(*incarnation),
        });
        body = rest;
    }
    Some(edges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_survive_their_bytes() {
        let edges: Vec<_> = (0..3)
            .map(|number| EdgeLife {
                edge: EdgeId::new(&format!("edge-{number}")).unwrap(),
                incarnation: u64::MAX - number,
            })
            .collect();
        let bytes = encode_contacts(&edges);
        assert_eq!(decode_contacts(&bytes), Some(edges));
        assert_eq!(decode_contacts(&bytes[1..]), None);
        assert_eq!(decode_contacts(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn a_message_keeps_its_kind_and_its_stamps() {
        let stamps = Stamps { from: 7, to: 9 };
        for kind in [Kind::Log, Kind::State, Kind::Contacts] {
            let message = encode(kind, stamps, b"body");
            let body = Bytes::from_static(b"body");
            assert_eq!(decode(&message), Some((kind, stamps, body)));
        }
        assert_eq!(decode(&Bytes::from_static(b"\x04 short")), None);
        let stranger = [&[4][..], &[0; 16]].concat();
        assert_eq!(decode(&stranger.into()), None);
    }
}
