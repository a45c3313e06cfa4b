//! What an entry did, on its way to an edge.

use super::{Coded, Error, Reader, put_bytes, put_several};
use crate::effect::{Answer, Applied, Decision, Effect, ObjectChange, ObjectSync, StreamState};
use crate::limits::{
    BATCH_OPS_MAX, COMMAND_BYTES_MAX, LIMIT_NAMES, MESSAGE_BYTES_MAX, SLOTS_MAX, TRACE_BYTES_MAX,
};

impl Coded for Applied {
    fn put(&self, to: &mut Vec<u8>) {
        self.index.put(to);
        put_bytes(to, &self.trace);
        put_several(to, self.effects.iter());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            index: Coded::take(from)?,
            trace: from.bytes("trace", TRACE_BYTES_MAX)?,
            effects: from.several("effects", MESSAGE_BYTES_MAX)?,
        })
    }
}

impl Coded for Effect {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Answer {
                to,
                session,
                seq,
                answer,
            } => {
                out.push(0);
                to.put(out);
                session.put(out);
                seq.put(out);
                answer.put(out);
            }
            Self::Object {
                key,
                epoch,
                by,
                change,
            } => {
                out.push(1);
                key.put(out);
                epoch.put(out);
                by.put(out);
                change.put(out);
            }
            Self::Stream { key, state } => {
                out.push(2);
                key.put(out);
                state.put(out);
            }
            Self::Challenge {
                to,
                key,
                epoch,
                publication,
            } => {
                out.push(3);
                to.put(out);
                key.put(out);
                epoch.put(out);
                publication.put(out);
            }
            Self::Claim {
                to,
                key,
                publication,
                decision,
            } => {
                out.push(4);
                to.put(out);
                key.put(out);
                publication.put(out);
                decision.put(out);
            }
            Self::EdgeLost { edge } => {
                out.push(5);
                edge.put(out);
            }
            Self::Locked {
                key,
                token,
                lease_ms,
            } => {
                out.push(6);
                key.put(out);
                token.put(out);
                lease_ms.put(out);
            }
            Self::Unlocked { key, token } => {
                out.push(7);
                key.put(out);
                token.put(out);
            }
            Self::Home { at, origin } => {
                out.push(8);
                at.put(out);
                origin.put(out);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Answer {
                to: Coded::take(from)?,
                session: Coded::take(from)?,
                seq: Coded::take(from)?,
                answer: Coded::take(from)?,
            },
            1 => Self::Object {
                key: Coded::take(from)?,
                epoch: Coded::take(from)?,
                by: Coded::take(from)?,
                change: Coded::take(from)?,
            },
            2 => Self::Stream {
                key: Coded::take(from)?,
                state: Coded::take(from)?,
            },
            3 => Self::Challenge {
                to: Coded::take(from)?,
                key: Coded::take(from)?,
                epoch: Coded::take(from)?,
                publication: Coded::take(from)?,
            },
            4 => Self::Claim {
                to: Coded::take(from)?,
                key: Coded::take(from)?,
                publication: Coded::take(from)?,
                decision: Coded::take(from)?,
            },
            5 => Self::EdgeLost {
                edge: Coded::take(from)?,
            },
            6 => Self::Locked {
                key: Coded::take(from)?,
                token: Coded::take(from)?,
                lease_ms: Coded::take(from)?,
            },
            7 => Self::Unlocked {
                key: Coded::take(from)?,
                token: Coded::take(from)?,
            },
            8 => Self::Home {
                at: Coded::take(from)?,
                origin: Coded::take(from)?,
            },
            tag => return Reader::no_case("effect", tag),
        })
    }
}

impl Coded for ObjectChange {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Slots {
                version,
                cleared,
                slots,
            } => {
                to.push(0);
                version.put(to);
                cleared.put(to);
                put_several(to, slots.iter());
            }
            Self::Send { payload } => {
                to.push(1);
                put_bytes(to, payload);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Slots {
                version: Coded::take(from)?,
                cleared: Coded::take(from)?,
                slots: from.several("slots", SLOTS_MAX + BATCH_OPS_MAX)?,
            },
            1 => Self::Send {
                payload: from.bytes("payload", COMMAND_BYTES_MAX)?,
            },
            tag => return Reader::no_case("change", tag),
        })
    }
}

impl Coded for Answer {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Done => to.push(0),
            Self::Opened(sync) => {
                to.push(1);
                sync.put(to);
            }
            Self::OtherKind { kind } => {
                to.push(2);
                kind.put(to);
            }
            Self::Full { limit } => {
                to.push(3);
                to.push(limit_number(limit));
            }
            Self::Written { version, refused } => {
                to.push(4);
                version.put(to);
                put_several(to, refused.iter());
            }
            Self::NotOpen => to.push(5),
            Self::Locked { token } => {
                to.push(6);
                token.put(to);
            }
            Self::NotLocked => to.push(7),
            Self::Granted { epoch } => {
                to.push(8);
                epoch.put(to);
            }
            Self::Contending => to.push(9),
            Self::Standby => to.push(10),
            Self::NotHolder => to.push(11),
            Self::OutOfOrder { expected } => {
                to.push(12);
                expected.put(to);
            }
            Self::Forgotten => to.push(13),
            Self::UnknownEdge => to.push(14),
            Self::Outlived { incarnation } => {
                to.push(15);
                incarnation.put(to);
            }
            Self::Nothing => to.push(16),
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Done,
            1 => Self::Opened(Coded::take(from)?),
            2 => Self::OtherKind {
                kind: Coded::take(from)?,
            },
            3 => {
                let number = from.u8()?;
                match LIMIT_NAMES.get(usize::from(number)) {
                    Some(limit) => Self::Full { limit },
                    None => return Reader::no_case("limit", number),
                }
            }
            4 => Self::Written {
                version: Coded::take(from)?,
                refused: from.several("refused", BATCH_OPS_MAX)?,
            },
            5 => Self::NotOpen,
            6 => Self::Locked {
                token: Coded::take(from)?,
            },
            7 => Self::NotLocked,
            8 => Self::Granted {
                epoch: Coded::take(from)?,
            },
            9 => Self::Contending,
            10 => Self::Standby,
            11 => Self::NotHolder,
            12 => Self::OutOfOrder {
                expected: Coded::take(from)?,
            },
            13 => Self::Forgotten,
            14 => Self::UnknownEdge,
            15 => Self::Outlived {
                incarnation: Coded::take(from)?,
            },
            16 => Self::Nothing,
            tag => return Reader::no_case("answer", tag),
        })
    }
}

/// A limit's place in the list. The text is for people, so one that is not in the list
/// may become the list's first, which says nothing in particular.
fn limit_number(limit: &str) -> u8 {
    let number = LIMIT_NAMES.iter().position(|name| *name == limit);
    number.and_then(|n| u8::try_from(n).ok()).unwrap_or(0)
}

impl Coded for Decision {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Granted { epoch, takeover } => {
                to.push(0);
                epoch.put(to);
                takeover.put(to);
            }
            Self::Refused => to.push(1),
            Self::Ended { epoch } => {
                to.push(2);
                epoch.put(to);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Granted {
                epoch: Coded::take(from)?,
                takeover: Coded::take(from)?,
            },
            1 => Self::Refused,
            2 => Self::Ended {
                epoch: Coded::take(from)?,
            },
            tag => return Reader::no_case("decision", tag),
        })
    }
}

impl Coded for StreamState {
    fn put(&self, to: &mut Vec<u8>) {
        self.epoch.put(to);
        self.holder.put(to);
        self.origin.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            epoch: Coded::take(from)?,
            holder: Coded::take(from)?,
            origin: Coded::take(from)?,
        })
    }
}

impl Coded for ObjectSync {
    fn put(&self, to: &mut Vec<u8>) {
        self.epoch.put(to);
        self.version.put(to);
        self.kind.put(to);
        self.reset.put(to);
        put_several(to, self.slots.iter());
        put_several(to, self.removed.iter());
        self.forgotten.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            epoch: Coded::take(from)?,
            version: Coded::take(from)?,
            kind: Coded::take(from)?,
            reset: Coded::take(from)?,
            slots: from.several("slots", SLOTS_MAX)?,
            removed: from.several("removed slots", SLOTS_MAX)?,
            forgotten: Coded::take(from)?,
        })
    }
}
