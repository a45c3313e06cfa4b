//! Commands: what stands in the log.

use bytes::Bytes;

use super::{Coded, Error, Reader, decode, encode, put_bytes, put_several};
use crate::command::{Command, Proposal, Request};
use crate::limits::{BATCH_OPS_MAX, COMMAND_BYTES_MAX, TOKEN_BYTES_MAX, TRACE_BYTES_MAX};

impl Command {
    /// The command as it stands in the log.
    ///
    /// Nothing is checked here: a command that exceeds a limit has a form that nobody
    /// takes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode(self)
    }

    /// The command that these bytes are. Byte strings are copied out of them, because what
    /// is kept must not keep its message.
    ///
    /// # Errors
    /// They are not the canonical form of a command within the [limits](crate::limits).
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode(Reader::copying(bytes), COMMAND_BYTES_MAX)
    }
}

impl Coded for Command {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Propose(proposal) => {
                to.push(0);
                proposal.put(to);
            }
            Self::EdgeLost(edge) => {
                to.push(1);
                edge.put(to);
            }
            Self::LockExpired { key, token } => {
                to.push(2);
                key.put(to);
                token.put(to);
            }
            Self::OriginRemoved(origin) => {
                to.push(3);
                origin.put(to);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Propose(Coded::take(from)?),
            1 => Self::EdgeLost(Coded::take(from)?),
            2 => Self::LockExpired {
                key: Coded::take(from)?,
                token: Coded::take(from)?,
            },
            3 => Self::OriginRemoved(Coded::take(from)?),
            tag => return Reader::no_case("command", tag),
        })
    }
}

impl Coded for Proposal {
    fn put(&self, to: &mut Vec<u8>) {
        self.session.put(to);
        self.seq.put(to);
        self.edge.put(to);
        self.durable.put(to);
        put_bytes(to, &self.trace);
        self.request.put(to);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            session: Coded::take(from)?,
            seq: Coded::take(from)?,
            edge: Coded::take(from)?,
            durable: Coded::take(from)?,
            trace: from.bytes("trace", TRACE_BYTES_MAX)?,
            request: Coded::take(from)?,
        })
    }
}

impl Coded for Request {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Self::Register => to.push(0),
            Self::Open { key, kind, have } => {
                to.push(1);
                key.put(to);
                kind.put(to);
                have.put(to);
            }
            Self::Close { key } => {
                to.push(2);
                key.put(to);
            }
            Self::EndSessions(sessions) => {
                to.push(3);
                put_several(to, sessions.iter());
            }
            Self::Claim {
                key,
                publication,
                token,
                above,
            } => {
                to.push(4);
                key.put(to);
                publication.put(to);
                put_bytes(to, token);
                above.put(to);
            }
            Self::Affirm { key, epoch } => {
                to.push(5);
                key.put(to);
                epoch.put(to);
            }
            Self::Release { key, publication } => {
                to.push(6);
                key.put(to);
                publication.put(to);
            }
            Self::Place { key, epoch, origin } => {
                to.push(7);
                key.put(to);
                epoch.put(to);
                origin.put(to);
            }
            Self::Home { at, origin } => {
                to.push(8);
                at.put(to);
                origin.put(to);
            }
            Self::Batch {
                key,
                epoch,
                base,
                policy,
                ops,
            } => {
                to.push(9);
                key.put(to);
                epoch.put(to);
                base.put(to);
                policy.put(to);
                put_several(to, ops.iter());
            }
            Self::Send { key, payload } => {
                to.push(10);
                key.put(to);
                put_bytes(to, payload);
            }
            Self::Lock { key, lease_ms } => {
                to.push(11);
                key.put(to);
                lease_ms.put(to);
            }
            Self::Unlock { key } => {
                to.push(12);
                key.put(to);
            }
            Self::Void => to.push(13),
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match from.u8()? {
            0 => Self::Register,
            1 => Self::Open {
                key: Coded::take(from)?,
                kind: Coded::take(from)?,
                have: Coded::take(from)?,
            },
            2 => Self::Close {
                key: Coded::take(from)?,
            },
            3 => Self::EndSessions(from.several("sessions", COMMAND_BYTES_MAX)?),
            4 => Self::Claim {
                key: Coded::take(from)?,
                publication: Coded::take(from)?,
                token: from.bytes("token", TOKEN_BYTES_MAX)?,
                above: Coded::take(from)?,
            },
            5 => Self::Affirm {
                key: Coded::take(from)?,
                epoch: Coded::take(from)?,
            },
            6 => Self::Release {
                key: Coded::take(from)?,
                publication: Coded::take(from)?,
            },
            7 => Self::Place {
                key: Coded::take(from)?,
                epoch: Coded::take(from)?,
                origin: Coded::take(from)?,
            },
            8 => Self::Home {
                at: Coded::take(from)?,
                origin: Coded::take(from)?,
            },
            9 => Self::Batch {
                key: Coded::take(from)?,
                epoch: Coded::take(from)?,
                base: Coded::take(from)?,
                policy: Coded::take(from)?,
                ops: from.several("operations", BATCH_OPS_MAX)?,
            },
            10 => Self::Send {
                key: Coded::take(from)?,
                payload: from.bytes("payload", COMMAND_BYTES_MAX)?,
            },
            11 => Self::Lock {
                key: Coded::take(from)?,
                lease_ms: Coded::take(from)?,
            },
            12 => Self::Unlock {
                key: Coded::take(from)?,
            },
            13 => Self::Void,
            tag => return Reader::no_case("request", tag),
        })
    }
}
