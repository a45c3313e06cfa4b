//! Data messages: which are kept for those who join later.

use bytes::{Buf, Bytes};
use model::{Class, Slot};

use crate::error::{Error, Misbehaviour};
use crate::verdict::Fnv;

/// A data message, ready to be relayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    pub(crate) class: Class,
    pub(crate) slot: Slot,
    /// An AMF0 body (message type 18) without `@setDataFrame`, a slice of what came in.
    pub(crate) body: Bytes,
}

/// Classifies the body of a data message, type 18 or 15. `None` if there is nothing in it.
///
/// * `@setDataFrame, name, …` sets what everybody who joins later is told: `Config` in the
///   slot of `name`. The command itself is not for players and is cut off.
/// * `@clearDataFrame, name` ends that: `Clear`.
/// * `onMetaData, …` as it stands is taken as if it had been set. Some encoders publish
///   their metadata this way, and a player that joins later wants it all the same.
/// * Anything else is delivered once: `Data`.
pub(crate) fn classify(mut body: Bytes) -> Result<Option<Data>, Error> {
    // A type 15 body is an AMF0 body behind a selector byte 0 (values that are AMF3 are
    // marked one by one). A type 18 body cannot begin with it: 0 is the marker of a number,
    // and a data message begins with the name of a handler.
    if body.first() == Some(&0) {
        body.advance(1);
    }
    if body.is_empty() {
        return Ok(None);
    }
    let data = match string(&body) {
        Some((SET, len)) => {
            body.advance(len);
            if body.is_empty() {
                return Ok(None);
            }
            Data {
                class: Class::Config,
                slot: named(&body)?,
                body,
            }
        }
        Some((CLEAR, len)) => {
            let slot = named(body.get(len..).unwrap_or_default())?;
            Data {
                class: Class::Clear,
                slot,
                body,
            }
        }
        Some((name, _)) => {
            let class = if name == ON_META_DATA {
                Class::Config
            } else {
                Class::Data
            };
            Data {
                class,
                slot: slot_of(name),
                body,
            }
        }
        None => Data {
            class: Class::Data,
            slot: Slot(0),
            body,
        },
    };
    Ok(Some(data))
}

/// The slot of a data frame's name: FNV-1a, so that every process finds the same.
#[must_use]
pub fn slot_of(name: &[u8]) -> Slot {
    Slot(Fnv::new().bytes(name).finish())
}

fn named(body: &[u8]) -> Result<Slot, Error> {
    match string(body) {
        Some((name, _)) => Ok(slot_of(name)),
        None => Err(Error::PeerMisbehaved(Misbehaviour::UnnamedDataFrame)),
    }
}

/// The AMF0 string at the front and its length with the marker (AMF 0 §2.4, §2.14).
fn string(body: &[u8]) -> Option<(&[u8], usize)> {
    let (start, len) = match *body {
        [0x02, a, b, ..] => (3, usize::from(u16::from_be_bytes([a, b]))),
        [0x0c, a, b, c, d, ..] => (5, usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?),
        _ => return None,
    };
    let end = len.checked_add(start)?;
    Some((body.get(start..end)?, end))
}

const SET: &[u8] = b"@setDataFrame";
const CLEAR: &[u8] = b"@clearDataFrame";
const ON_META_DATA: &[u8] = b"onMetaData";
