//! Sessions: what of them was applied, and what became of it.

use std::collections::{BTreeMap, VecDeque};

use model::{EdgeLife, Epoch, LogIndex, ObjectKey, ObjectKind, SessionId, Version};

use crate::effect::Answer;
use crate::limits::{EDGES_MAX, SESSIONS_MAX, WINDOW};

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    table: BTreeMap<SessionId, Session>,
    /// Sessions that may be forgotten, by when they last asked for something.
    silent: BTreeMap<LogIndex, SessionId>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// The newest request that was applied.
    pub(crate) last: u64,
    /// When it was applied.
    pub(crate) touched: LogIndex,
    /// The edge that the session last spoke through, if it is registered still.
    pub(crate) edge: Option<EdgeLife>,
    pub(crate) durable: bool,
    /// Whether the edge speaks in its own name.
    pub(crate) own: bool,
    /// What became of the newest requests, the newest last.
    pub(crate) answers: VecDeque<Kept>,
}

/// An answer as it is remembered: small, and without what can be found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It waits for a lock and is not answered.
    Waits,
    Done,
    /// What it is to be told is found again from what it has.
    Opened(Box<ObjectKey>),
    OtherKind(ObjectKind),
    Full(&'static str),
    Written(Version, Box<[u16]>),
    NotOpen,
    Locked(u64),
    NotLocked,
    Granted(Epoch),
    Contending,
    Standby,
    NotHolder,
    Nothing,
}

/// Where a request stands in its session.
pub(crate) enum Place<'a> {
    /// It is the next.
    Next,
    /// It was applied; what is remembered of it.
    Duplicate(Option<&'a Kept>),
    /// One before it is missing.
    Gap {
        /// The number that must come next.
        expected: u64,
    },
}

impl Sessions {
    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.table.get(&id)
    }

    /// All, in order.
    pub(crate) fn all(&self) -> &BTreeMap<SessionId, Session> {
        &self.table
    }

    /// Puts back what a snapshot holds.
    pub(crate) fn restored(table: BTreeMap<SessionId, Session>) -> Option<Self> {
        let mut silent = BTreeMap::new();
        for (id, session) in &table {
            if !session.own && silent.insert(session.touched, *id).is_some() {
                return None;
            }
        }
        Some(Self { table, silent })
    }

    /// Where a request stands.
    pub(crate) fn place(&self, id: SessionId, seq: u64) -> Place<'_> {
        let session = self.table.get(&id);
        let last = session.map_or(0, |session| session.last);
        if seq > last {
            return match last + 1 {
                next if next == seq => Place::Next,
                expected => Place::Gap { expected },
            };
        }
        Place::Duplicate(session.and_then(|session| {
            let back = usize::try_from(last - seq).ok()?;
            session.answers.iter().rev().nth(back)
        }))
    }

    /// The session's next request is applied; what becomes of it is not known yet.
    pub(crate) fn begin(
        &mut self,
        (id, seq): (SessionId, u64),
        edge: &EdgeLife,
        durable: bool,
        index: LogIndex,
    ) -> Moved {
        let mut moved = Moved::No;
        let session = self.table.entry(id).or_insert_with(|| {
            moved = Moved::New;
            Session {
                last: 0,
                touched: LogIndex(0),
                edge: Some(edge.clone()),
                durable,
                own: false,
                answers: VecDeque::new(),
            }
        });
        if session.edge.as_ref() != Some(edge) {
            moved = Moved::From(session.edge.replace(edge.clone()));
        }
        session.last = seq;
        session.durable = durable;
        if !session.own {
            self.silent.remove(&session.touched);
            self.silent.insert(index, id);
        }
        session.touched = index;
        if session.answers.len() as u64 >= WINDOW {
            session.answers.pop_front();
        }
        session.answers.push_back(Kept::Waits);
        moved
    }

    /// The session speaks through this edge.
    pub(crate) fn move_to(&mut self, id: SessionId, edge: &EdgeLife) -> Moved {
        match self.table.get_mut(&id) {
            Some(session) if session.edge.as_ref() != Some(edge) => {
                Moved::From(session.edge.replace(edge.clone()))
            }
            Some(_) | None => Moved::No,
        }
    }

    /// The session's edge is lost.
    pub(crate) fn detach(&mut self, id: SessionId) {
        if let Some(session) = self.table.get_mut(&id) {
            session.edge = None;
        }
    }

    /// What became of a request.
    pub(crate) fn answered(&mut self, id: SessionId, seq: u64, answer: Kept) {
        let Some(session) = self.table.get_mut(&id) else {
            return;
        };
        let back = usize::try_from(session.last.saturating_sub(seq)).unwrap_or(usize::MAX);
        if let Some(kept) = session.answers.iter_mut().rev().nth(back) {
            *kept = answer;
        }
    }

    /// The edge speaks in its own name in this session.
    pub(crate) fn set_own(&mut self, id: SessionId) {
        if let Some(session) = self.table.get_mut(&id) {
            session.own = true;
            self.silent.remove(&session.touched);
        }
    }

    /// Forgets a session.
    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.table.remove(&id)?;
        if !session.own {
            self.silent.remove(&session.touched);
        }
        Some(session)
    }

    /// Who must be forgotten because there are too many.
    pub(crate) fn surplus(&self) -> Option<SessionId> {
        if self.table.len() <= SESSIONS_MAX {
            return None;
        }
        self.silent.first_key_value().map(|(_, id)| *id)
    }
}

// There is always a session that may be forgotten.
const _: () = assert!(EDGES_MAX < SESSIONS_MAX);

/// Whether a session changed its edge.
pub(crate) enum Moved {
    No,
    New,
    From(Option<EdgeLife>),
}

impl Kept {
    /// What is kept of an answer; `opened` is the object that a request opens.
    pub(crate) fn of(answer: &Answer, opened: Option<&ObjectKey>) -> Self {
        match answer {
            Answer::Done => Self::Done,
            Answer::Opened(_) => match opened {
                Some(key) => Self::Opened(Box::new(key.clone())),
                None => Self::Done,
            },
            Answer::OtherKind { kind } => Self::OtherKind(*kind),
            Answer::Full { limit } => Self::Full(limit),
            Answer::Written { version, refused } => {
                Self::Written(*version, refused.as_slice().into())
            }
            Answer::NotOpen => Self::NotOpen,
            Answer::Locked { token } => Self::Locked(*token),
            Answer::NotLocked => Self::NotLocked,
            Answer::Granted { epoch } => Self::Granted(*epoch),
            Answer::Contending => Self::Contending,
            Answer::Standby => Self::Standby,
            Answer::NotHolder => Self::NotHolder,
            Answer::Nothing => Self::Nothing,
            // These are about requests that were not applied.
            Answer::OutOfOrder { .. }
            | Answer::Forgotten
            | Answer::UnknownEdge
            | Answer::Outlived { .. } => Self::Done,
        }
    }

    /// The answer again; `None` while there is none, and for what must be found again.
    pub(crate) fn answer(&self) -> Option<Answer> {
        Some(match self {
            Self::Waits | Self::Opened(_) => return None,
            Self::Done => Answer::Done,
            Self::OtherKind(kind) => Answer::OtherKind { kind: *kind },
            Self::Full(limit) => Answer::Full { limit },
            Self::Written(version, refused) => Answer::Written {
                version: *version,
                refused: refused.to_vec(),
            },
            Self::NotOpen => Answer::NotOpen,
            Self::Locked(token) => Answer::Locked { token: *token },
            Self::NotLocked => Answer::NotLocked,
            Self::Granted(epoch) => Answer::Granted { epoch: *epoch },
            Self::Contending => Answer::Contending,
            Self::Standby => Answer::Standby,
            Self::NotHolder => Answer::NotHolder,
            Self::Nothing => Answer::Nothing,
        })
    }
}

#[cfg(test)]
mod tests {
    use model::EdgeId;

    use super::*;

    #[test]
    fn a_window_of_answers_is_remembered_and_the_silent_are_forgotten_first() {
        let edge = EdgeLife {
            edge: EdgeId::new("edge-0").unwrap(),
            incarnation: 1,
        };
        let mut sessions = Sessions::default();
        let id = SessionId(0);
        for seq in 1..=WINDOW + 1 {
            assert!(matches!(sessions.place(id, seq), Place::Next));
            sessions.begin((id, seq), &edge, false, LogIndex(seq));
            sessions.answered(id, seq, Kept::Locked(seq));
        }
        assert!(matches!(sessions.place(id, 1), Place::Duplicate(None)));
        assert!(matches!(
            sessions.place(id, 2),
            Place::Duplicate(Some(Kept::Locked(2)))
        ));
        assert!(
            matches!(sessions.place(id, WINDOW + 3), Place::Gap { expected } if expected == WINDOW + 2)
        );
        for number in 1..=SESSIONS_MAX as u64 {
            assert_eq!(sessions.surplus(), None);
            let id = SessionId(number.into());
            sessions.begin((id, 1), &edge, false, LogIndex(1000 + number));
        }
        assert_eq!(sessions.surplus(), Some(id));
        sessions.set_own(id);
        assert_eq!(sessions.surplus(), Some(SessionId(1)));
    }
}
