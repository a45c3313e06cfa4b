//! Sessions: what of them was applied, and what became of it.

use std::collections::{BTreeMap, VecDeque};

use model::{EdgeLife, Epoch, LogIndex, ObjectKey, ObjectKind, SessionId, Version};

use crate::effect::Answer;
use crate::limits::{ADRIFT_ENTRIES, ANSWER_BYTES_MAX, EDGES_MAX, SESSIONS_MAX, WINDOW};

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    table: BTreeMap<SessionId, Session>,
    /// Sessions that may be forgotten, by when they last asked for something.
    silent: BTreeMap<LogIndex, SessionId>,
    /// Those of them that speak through no edge, because the edge was lost.
    adrift: BTreeMap<LogIndex, SessionId>,
    /// Bytes that all answers have beside their places.
    bytes: usize,
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
    Written(Version, Refused),
    /// It was answered, and there was no room to remember how.
    Forgotten,
    NotOpen,
    Locked(u64),
    NotLocked,
    Granted(Epoch),
    Contending,
    Standby,
    NotHolder,
    Nothing,
}

/// The places of a batch that were refused: a bit for each, up to the last that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused(Box<[u8]>);

impl Refused {
    /// These places, ascending.
    pub(crate) fn of(places: &[u16]) -> Self {
        let Some(last) = places.last() else {
            return Self::default();
        };
        let mut bits = vec![0; usize::from(*last) / 8 + 1];
        for place in places {
            if let Some(byte) = bits.get_mut(usize::from(*place) / 8) {
                *byte |= 1 << (place % 8);
            }
        }
        Self(bits.into())
    }

    /// What is written down; `None` if it is not the one form of anything.
    pub(crate) fn from_bits(bits: &[u8]) -> Option<Self> {
        (bits.last() != Some(&0)).then(|| Self(bits.into()))
    }

    pub(crate) fn bits(&self) -> &[u8] {
        &self.0
    }

    fn places(&self) -> Vec<u16> {
        let places = (0..).zip(self.0.iter()).flat_map(|(at, byte): (u16, _)| {
            (0..8)
                .filter(move |bit| byte & (1 << bit) != 0)
                .map(move |bit| at * 8 + bit)
        });
        places.collect()
    }
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
        let mut adrift = BTreeMap::new();
        let mut bytes = 0;
        for (id, session) in &table {
            if !session.own && silent.insert(session.touched, *id).is_some() {
                return None;
            }
            if !session.own && session.edge.is_none() {
                adrift.insert(session.touched, *id);
            }
            bytes += session.answers.iter().map(Kept::bytes).sum::<usize>();
        }
        Some(Self {
            table,
            silent,
            adrift,
            bytes,
        })
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
        self.adrift.remove(&session.touched);
        if !session.own {
            self.silent.remove(&session.touched);
            self.silent.insert(index, id);
        }
        session.touched = index;
        if session.answers.len() as u64 >= WINDOW
            && let Some(oldest) = session.answers.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
        session.answers.push_back(Kept::Waits);
        moved
    }

    /// The session speaks through this edge.
    pub(crate) fn move_to(&mut self, id: SessionId, edge: &EdgeLife) -> Moved {
        match self.table.get_mut(&id) {
            Some(session) if session.edge.as_ref() != Some(edge) => {
                self.adrift.remove(&session.touched);
                Moved::From(session.edge.replace(edge.clone()))
            }
            Some(_) | None => Moved::No,
        }
    }

    /// The session's edge is lost.
    pub(crate) fn detach(&mut self, id: SessionId) {
        if let Some(session) = self.table.get_mut(&id) {
            session.edge = None;
            if !session.own {
                self.adrift.insert(session.touched, id);
            }
        }
    }

    /// What became of a request.
    pub(crate) fn answered(&mut self, id: SessionId, seq: u64, answer: Kept) {
        let Some(session) = self.table.get_mut(&id) else {
            return;
        };
        let back = usize::try_from(session.last.saturating_sub(seq)).unwrap_or(usize::MAX);
        if let Some(kept) = session.answers.iter_mut().rev().nth(back) {
            let others = self.bytes - kept.bytes();
            // Without room it is only remembered that it was answered.
            let is_too_much = answer.bytes() > 0 && others + answer.bytes() > ANSWER_BYTES_MAX;
            *kept = if is_too_much { Kept::Forgotten } else { answer };
            self.bytes = others + kept.bytes();
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
        self.bytes -= session.answers.iter().map(Kept::bytes).sum::<usize>();
        self.adrift.remove(&session.touched);
        if !session.own {
            self.silent.remove(&session.touched);
        }
        Some(session)
    }

    /// Who must be forgotten as of this entry: one that lost its edge so long ago that its
    /// client will not come back, or one of too many.
    pub(crate) fn surplus(&self, now: LogIndex) -> Option<SessionId> {
        let adrift = self.adrift.first_key_value();
        if let Some((_, id)) = adrift.filter(|(at, _)| now.0 - at.0 > ADRIFT_ENTRIES) {
            return Some(*id);
        }
        if self.table.len() <= SESSIONS_MAX {
            return None;
        }
        let silent = self.silent.first_key_value();
        adrift.or(silent).map(|(_, id)| *id)
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
            Answer::Written { version, refused } => Self::Written(*version, Refused::of(refused)),
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
                refused: refused.places(),
            },
            Self::NotOpen => Answer::NotOpen,
            Self::Locked(token) => Answer::Locked { token: *token },
            Self::NotLocked => Answer::NotLocked,
            Self::Granted(epoch) => Answer::Granted { epoch: *epoch },
            Self::Contending => Answer::Contending,
            Self::Standby => Answer::Standby,
            Self::NotHolder => Answer::NotHolder,
            Self::Nothing => Answer::Nothing,
            Self::Forgotten => Answer::Forgotten,
        })
    }

    /// Bytes that it has beside its place.
    fn bytes(&self) -> usize {
        match self {
            Self::Written(_, refused) => refused.bits().len(),
            Self::Waits
            | Self::Done
            | Self::Opened(_)
            | Self::OtherKind(_)
            | Self::Full(_)
            | Self::NotOpen
            | Self::Locked(_)
            | Self::NotLocked
            | Self::Granted(_)
            | Self::Contending
            | Self::Standby
            | Self::NotHolder
            | Self::Nothing
            | Self::Forgotten => 0,
        }
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
            assert_eq!(sessions.surplus(LogIndex(1000 + number)), None);
            let id = SessionId(number.into());
            sessions.begin((id, 1), &edge, false, LogIndex(1000 + number));
        }
        let now = LogIndex(1001 + SESSIONS_MAX as u64);
        assert_eq!(sessions.surplus(now), Some(id));
        sessions.set_own(id);
        assert_eq!(sessions.surplus(now), Some(SessionId(1)));
        // Whose edge is gone goes before those whose edge is there.
        sessions.detach(SessionId(7));
        assert_eq!(sessions.surplus(now), Some(SessionId(7)));
    }

    fn edge() -> EdgeLife {
        EdgeLife {
            edge: EdgeId::new("edge-0").unwrap(),
            incarnation: 1,
        }
    }

    #[test]
    fn a_session_whose_edge_was_lost_is_forgotten_when_enough_happened_since() {
        let mut sessions = Sessions::default();
        let (gone, back, here) = (SessionId(1), SessionId(2), SessionId(3));
        for (id, at) in [(gone, 1), (back, 2), (here, 3)] {
            sessions.begin((id, 1), &edge(), true, LogIndex(at));
        }
        sessions.detach(gone);
        sessions.detach(back);
        assert_eq!(sessions.surplus(LogIndex(1 + ADRIFT_ENTRIES)), None);
        let late = LogIndex(5 + ADRIFT_ENTRIES);
        assert_eq!(sessions.surplus(late), Some(gone));
        sessions.remove(gone);
        sessions.move_to(back, &edge());
        assert_eq!(sessions.surplus(late), None, "it has an edge again");
        let again = Sessions::restored(sessions.table.clone());
        assert_eq!(again, Some(sessions));
    }

    #[test]
    fn refusals_take_a_bit_each_and_come_back_as_they_were() {
        for places in [&[][..], &[0], &[7, 8], &[3, 100, 1023]] {
            let refused = Refused::of(places);
            assert_eq!(refused.places(), places);
            assert_eq!(Refused::from_bits(refused.bits()), Some(refused.clone()));
            assert!(refused.bits().len() <= 128);
        }
        assert_eq!(Refused::from_bits(&[1, 0]), None, "a longer form of one");
    }

    #[test]
    fn what_has_no_room_is_remembered_without_its_refusals() {
        let mut sessions = Sessions::default();
        let large = || Kept::Written(Version(1), Refused::of(&[1023]));
        let each = large().bytes() * usize::try_from(WINDOW).unwrap();
        let mut index = 0;
        for id in 0..=(ANSWER_BYTES_MAX / each) as u128 {
            for seq in 1..=WINDOW {
                index += 1;
                sessions.begin((SessionId(id), seq), &edge(), true, LogIndex(index));
                sessions.answered(SessionId(id), seq, large());
            }
        }
        assert!(sessions.bytes <= ANSWER_BYTES_MAX);
        let last = |sessions: &Sessions, id: SessionId| match sessions.place(id, WINDOW) {
            Place::Duplicate(kept) => kept.and_then(Kept::answer),
            Place::Next | Place::Gap { .. } => None,
        };
        let newest = SessionId((ANSWER_BYTES_MAX / each) as u128);
        assert_eq!(last(&sessions, newest), Some(Answer::Forgotten));
        // What refuses nothing needs no room, and what ends makes some.
        let plain = Kept::Written(Version(2), Refused::default());
        sessions.answered(newest, WINDOW, plain);
        assert!(matches!(
            last(&sessions, newest),
            Some(Answer::Written { .. })
        ));
        sessions.remove(SessionId(0));
        sessions.answered(newest, WINDOW, large());
        assert!(matches!(
            last(&sessions, newest),
            Some(Answer::Written { .. })
        ));
    }
}
