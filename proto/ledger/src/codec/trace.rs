//! The trace context of what travels, without the rest of it.
//!
//! Whoever hands a command on reads its context in place: a few lengths are stepped over, and
//! nothing is copied. What is malformed has none, and is refused elsewhere.

use model::SessionId;

use super::{Coded as _, Error, FORMAT, Reader};
use crate::command::Command;
use crate::limits::{COMMAND_BYTES_MAX, TRACE_BYTES_MAX};
use crate::wire::ToOrigin;

impl Command {
    /// The trace context of the command that these bytes are; empty when it has none.
    #[must_use]
    pub fn trace_of(command: &[u8]) -> &[u8] {
        trace(command).unwrap_or_default()
    }
}

impl ToOrigin {
    /// The trace context of the command in the message that these bytes are; empty when it has
    /// none, or is no [`Propose`](Self::Propose).
    #[must_use]
    pub fn trace_of(message: &[u8]) -> &[u8] {
        proposed(message).map_or(&[], Command::trace_of)
    }
}

fn proposed(message: &[u8]) -> Result<&[u8], Error> {
    let mut from = Reader::copying(message);
    if (from.u8()?, from.u8()?) != (FORMAT, 1) {
        return Ok(&[]);
    }
    let len = from.count("command", COMMAND_BYTES_MAX)?;
    from.raw(len)
}

fn trace(command: &[u8]) -> Result<&[u8], Error> {
    let mut from = Reader::copying(command);
    if (from.u8()?, from.u8()?) != (FORMAT, 0) {
        return Ok(&[]);
    }
    SessionId::take(&mut from)?;
    let _seq = from.u64()?;
    let _edge = from.text(model::EdgeId::MAX_LEN)?;
    let _incarnation = from.u64()?;
    let _durable = from.u8()?;
    let len = from.count("trace", TRACE_BYTES_MAX)?;
    from.raw(len)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use model::{EdgeId, EdgeLife};

    use super::*;
    use crate::command::{Proposal, Request};

    #[test]
    fn the_context_is_found_in_place_and_in_nothing_else() {
        let context = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let edge = EdgeLife {
            edge: EdgeId::new("edge-0").unwrap(),
            incarnation: u64::MAX,
        };
        let with = |trace: &'static [u8]| {
            Command::Propose(Proposal {
                session: SessionId(u128::MAX - 7),
                seq: 300,
                edge: edge.clone(),
                durable: true,
                trace: Bytes::from_static(trace),
                request: Request::Void,
            })
        };
        let bytes = with(context).encode();
        assert_eq!(Command::trace_of(&bytes), context);
        let message = ToOrigin::Propose(bytes.clone()).encode();
        assert_eq!(ToOrigin::trace_of(&message), context);
        assert_eq!(Command::trace_of(&with(b"").encode()), b"");
        assert_eq!(
            ToOrigin::trace_of(&ToOrigin::Barrier { id: 7 }.encode()),
            b""
        );
        let lost = Command::EdgeLost(edge.clone());
        assert_eq!(Command::trace_of(&lost.encode()), b"");
        for cut in 0..bytes.len() {
            // Whatever is left, it is looked at within its bounds.
            let _ = Command::trace_of(&bytes[..cut]);
            let _ = ToOrigin::trace_of(&message[..cut]);
        }
    }
}
