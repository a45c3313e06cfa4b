//! Bytes read as entries of a log in a small world: names are few, so that they meet.

use bytes::Bytes;
use model::{
    AppInstance, AppName, EdgeId, EdgeLife, Epoch, InstanceName, ObjectKey, ObjectKind, ObjectName,
    OriginId, Policy, SessionId, SlotName, SlotOp, SlotValue, StreamKey, StreamName, Version,
    VhostName,
};

use crate::command::{Command, Proposal, Request};
use crate::ledger::Ledger;

pub(super) struct Input<'a> {
    bytes: &'a [u8],
}

/// Sessions from this on are the edges' own.
const OWN: u128 = 100;

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next byte; zeros behind the end.
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.bytes.split_first() else {
            return 0;
        };
        self.bytes = rest;
        *byte
    }

    /// The next entry.
    pub(super) fn command(&mut self, ledger: &Ledger) -> Option<Command> {
        let (kind, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        let who = self.byte();
        let life = EdgeLife {
            edge: edge_id(who & 1),
            // The other life comes rarely: it ends this one.
            incarnation: u64::from(who & 0x7c == 0),
        };
        Some(match kind % 32 {
            0 => Command::EdgeLost(life),
            1 => {
                let key = self.object();
                let held = ledger.locks().find(|(locked, ..)| **locked == key);
                let token = held.map_or(u64::from(who), |(_, token, _)| token);
                Command::LockExpired { key, token }
            }
            2 => Command::OriginRemoved(self.origin()),
            kind @ 3..=15 => self.own(kind, life, ledger),
            kind => {
                let session = SessionId(u128::from(who >> 1 & 3));
                let request = self.clients(kind, ledger);
                self.propose(session, life, who & 8 != 0, request, ledger)
            }
        })
    }

    fn own(&mut self, kind: u8, life: EdgeLife, ledger: &Ledger) -> Command {
        let number = u128::from(life.edge.as_str().ends_with('1'));
        let session = SessionId(OWN + number * 2 + u128::from(life.incarnation));
        let request = if ledger.knows(&life) {
            self.edges(kind, ledger)
        } else {
            Request::Register
        };
        self.propose(session, life, false, request, ledger)
    }

    fn propose(
        &mut self,
        session: SessionId,
        edge: EdgeLife,
        durable: bool,
        request: Request,
        ledger: &Ledger,
    ) -> Command {
        let last = ledger
            .sessions
            .get(session)
            .map_or(0, |session| session.last);
        let seq = match self.byte() {
            0..=7 => last + 2,
            8..=15 => last,
            16..=19 => last.saturating_sub(1),
            _ => last + 1,
        };
        Command::Propose(Proposal {
            session,
            seq,
            edge,
            durable,
            trace: Bytes::new(),
            request,
        })
    }

    fn edges(&mut self, kind: u8, ledger: &Ledger) -> Request {
        match kind {
            3..=6 => {
                let key = self.object();
                let temporary = !self.byte().is_multiple_of(8);
                let have = ledger
                    .sync(&key, None)
                    .map(|sync| (sync.epoch, sync.version));
                Request::Open {
                    key,
                    kind: if temporary {
                        ObjectKind::Temporary
                    } else {
                        ObjectKind::Persistent
                    },
                    have,
                }
            }
            7 => Request::Close { key: self.object() },
            8 => {
                let sessions = self.byte();
                let ends = (0..8).filter(|bit| sessions >> bit & 1 == 1);
                Request::EndSessions(ends.map(|bit| SessionId(bit / 4 * OWN + bit % 4)).collect())
            }
            9..=11 => Request::Claim {
                key: self.stream(),
                publication: u64::from(self.byte() % 3),
                token: Bytes::copy_from_slice(&[b't'; 2][..usize::from(self.byte() % 3)]),
                above: Epoch(u64::from(self.byte() / 16)),
            },
            12 => {
                let key = self.stream();
                let epoch = self.near_epoch(ledger.stream(&key).epoch);
                Request::Affirm { key, epoch }
            }
            13 => Request::Release {
                key: self.stream(),
                publication: u64::from(self.byte() % 3),
            },
            14 => {
                let key = self.stream();
                let epoch = self.near_epoch(ledger.stream(&key).epoch);
                let origin = self.origin();
                Request::Place { key, epoch, origin }
            }
            _ => Request::Home {
                at: at(self.byte() % 2),
                origin: self.origin(),
            },
        }
    }

    fn clients(&mut self, kind: u8, ledger: &Ledger) -> Request {
        let key = self.object();
        match kind {
            16 => Request::Void,
            17 | 18 => Request::Send {
                key,
                payload: Bytes::from_static(b"hello"),
            },
            19 => Request::Lock {
                key,
                lease_ms: 1000,
            },
            20 => Request::Unlock { key },
            _ => {
                let sync = ledger.sync(&key, None);
                let (epoch, version) = sync.map_or((Epoch(0), 0), |s| (s.epoch, s.version.0));
                let shape = self.byte();
                Request::Batch {
                    key,
                    epoch: self.near_epoch(epoch),
                    base: Version(version.saturating_sub(u32::from(shape & 3))),
                    policy: if shape & 0x1c == 0 {
                        Policy::LastWriterWins
                    } else {
                        Policy::Optimistic
                    },
                    ops: (0..shape >> 5).map(|_| self.op()).collect(),
                }
            }
        }
    }

    fn op(&mut self) -> SlotOp {
        let byte = self.byte();
        let slot = slot(byte >> 4 & 3);
        match byte & 15 {
            0 => SlotOp::Clear,
            1..=3 => SlotOp::Remove { slot },
            value => SlotOp::Set {
                slot,
                value: SlotValue(Bytes::copy_from_slice(&[value & 3])),
            },
        }
    }

    fn near_epoch(&mut self, epoch: Epoch) -> Epoch {
        Epoch(epoch.0 + u64::from(self.byte() == 1))
    }

    fn object(&mut self) -> ObjectKey {
        let number = self.byte() % 3;
        ObjectKey {
            at: at(0),
            name: ObjectName::new(&format!("o{number}")).unwrap(),
        }
    }

    fn stream(&mut self) -> StreamKey {
        let number = self.byte() % 2;
        StreamKey {
            at: at(0),
            name: StreamName::new(&format!("s{number}")).unwrap(),
        }
    }

    fn origin(&mut self) -> OriginId {
        let number = self.byte() % 2;
        OriginId::new(&format!("origin-{number}")).unwrap()
    }
}

fn edge_id(number: u8) -> EdgeId {
    EdgeId::new(&format!("edge-{number}")).unwrap()
}

fn at(number: u8) -> AppInstance {
    AppInstance {
        vhost: VhostName::default_vhost(),
        app: AppName::new(&format!("app{number}")).unwrap(),
        instance: InstanceName::default_instance(),
    }
}

/// One of the four slots of this world.
pub(super) fn slot(number: u8) -> SlotName {
    SlotName::new(&format!("slot{number}")).unwrap()
}
