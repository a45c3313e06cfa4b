//! Who belongs to the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU64;

use bytes::{BufMut, Bytes, BytesMut};
use model::NodeId;

use crate::limits::{ABOUT_BYTES_MAX, DEPARTED_MAX, MEMBERS_MAX, REMOVED_MAX};

/// What is kept of a node beside its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The stamp of its data folder: drawn at random when the folder is made, kept in it. A
    /// node whose stamp is another one has lost what it had promised.
    pub stamp: u64,
    /// Its name and address, in a form that its shell understands. At most
    /// [`ABOUT_BYTES_MAX`] bytes.
    pub text: Bytes,
}

/// Who belongs to the cluster, as of one entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Those whose majority decides.
    pub voters: BTreeSet<NodeId>,
    /// Those who are told and do not count.
    pub learners: BTreeSet<NodeId>,
    /// While a change is under way: those whose majority must agree as well.
    pub outgoing: BTreeSet<NodeId>,
    /// While a change is under way: those of `outgoing` who will be learners after it.
    pub learners_next: BTreeSet<NodeId>,
    /// The change that is under way ends by itself.
    pub auto_leave: bool,
    /// What is kept of each of them.
    pub about: BTreeMap<NodeId, About>,
    /// Numbers that were given and are not given again.
    pub removed: BTreeSet<NodeId>,
    /// What was kept of those of them that have the greatest numbers, at most
    /// [`DEPARTED_MAX`]. While a change is under way one may be a member yet.
    pub departed: BTreeMap<NodeId, About>,
}

/// One step of a change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A newcomer is told everything from now on.
    AddLearner {
        /// Its number, which nobody ever had.
        id: NodeId,
        /// What is kept of it.
        about: About,
    },
    /// A learner votes.
    Promote {
        /// Which.
        id: NodeId,
    },
    /// A node belongs to the cluster no more.
    Remove {
        /// Which.
        id: NodeId,
    },
}

/// Why a change of the membership is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is nothing to change, or one node is named twice.
    Malformed,
    /// The number belongs to a node, or belonged to one.
    NumberTaken(NodeId),
    /// The node is not a learner.
    NotLearner(NodeId),
    /// The node is not in the cluster.
    NotMember(NodeId),
    /// Nobody could vote any more.
    LastVoter,
    /// A limit of the cluster.
    Full,
    /// Another change is under way.
    Pending,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the change changes nothing, or one node twice"),
            Self::NumberTaken(id) => write!(f, "the number {id} is taken, or was"),
            Self::NotLearner(id) => write!(f, "node {id} is not a learner"),
            Self::NotMember(id) => write!(f, "node {id} is not in the cluster"),
            Self::LastVoter => f.write_str("nobody could vote any more"),
            Self::Full => f.write_str("the cluster has as many nodes as it may have"),
            Self::Pending => f.write_str("another change is under way"),
        }
    }
}

impl std::error::Error for Refusal {}

impl Membership {
    /// A cluster of these voters.
    #[must_use]
    pub fn of(founders: impl IntoIterator<Item = (NodeId, About)>) -> Self {
        let about: BTreeMap<_, _> = founders.into_iter().collect();
        Self {
            voters: about.keys().copied().collect(),
            about,
            ..Self::default()
        }
    }

    /// Whether a node belongs to it in any role.
    #[must_use]
    pub fn has(&self, id: NodeId) -> bool {
        self.about.contains_key(&id)
    }

    /// Whether a node's vote counts.
    #[must_use]
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// All of them in the order of their numbers.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        self.about.keys().copied()
    }

    /// Whether a change may be proposed.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, changes: &[Change]) -> Result<(), Refusal> {
        if changes.is_empty() || changes.len() > MEMBERS_MAX {
            return Err(Refusal::Malformed);
        }
        if !self.outgoing.is_empty() {
            return Err(Refusal::Pending);
        }
        let mut named = BTreeSet::new();
        let mut voters = self.voters.len();
        let mut members = self.about.len();
        let mut removed = self.removed.len();
        for change in changes {
            if !named.insert(change.id()) {
                return Err(Refusal::Malformed);
            }
            match change {
                Change::AddLearner { id, about } => {
                    if self.has(*id) || self.removed.contains(id) {
                        return Err(Refusal::NumberTaken(*id));
                    }
                    if about.text.len() > ABOUT_BYTES_MAX {
                        return Err(Refusal::Malformed);
                    }
                    members += 1;
                }
                Change::Promote { id } if self.learners.contains(id) => voters += 1,
                Change::Promote { id } => return Err(Refusal::NotLearner(*id)),
                Change::Remove { id } if self.voters.contains(id) => {
                    voters -= 1;
                    removed += 1;
                }
                Change::Remove { id } if self.learners.contains(id) => removed += 1,
                Change::Remove { id } => return Err(Refusal::NotMember(*id)),
            }
        }
        if voters == 0 {
            return Err(Refusal::LastVoter);
        }
        if members > MEMBERS_MAX || removed > REMOVED_MAX {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// Notes what a change says about its nodes; who has which role is raft's to say.
    pub(crate) fn note(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::AddLearner { id, about } => {
                    self.about.insert(*id, about.clone());
                }
                Change::Promote { .. } => {}
                Change::Remove { id } => {
                    self.removed.insert(*id);
                    if let Some(about) = self.about.get(id) {
                        self.departed.insert(*id, about.clone());
                    }
                }
            }
        }
        while self.departed.len() > DEPARTED_MAX {
            self.departed.pop_first();
        }
    }

    /// Forgets what was kept of those who have no role any more.
    pub(crate) fn settle(&mut self) {
        let roles = [&self.voters, &self.learners, &self.outgoing];
        let here: BTreeSet<_> = roles.into_iter().flatten().copied().collect();
        self.about.retain(|id, _| here.contains(id));
        for id in here {
            self.about.entry(id).or_default();
        }
    }

    /// Whether it is one that can come about.
    pub(crate) fn is_sound(&self) -> bool {
        let apart = |a: &BTreeSet<_>, b: &BTreeSet<_>| a.is_disjoint(b);
        let known = |set: &BTreeSet<NodeId>| set.iter().all(|id| self.about.contains_key(id));
        let text = |about: &About| about.text.len() <= ABOUT_BYTES_MAX;
        !self.voters.is_empty()
            && self.about.len() <= MEMBERS_MAX
            && self.removed.len() <= REMOVED_MAX
            && apart(&self.voters, &self.learners)
            && apart(&self.outgoing, &self.learners)
            && apart(&self.voters, &self.learners_next)
            && self.learners_next.is_subset(&self.outgoing)
            && (!self.auto_leave || !self.outgoing.is_empty())
            && known(&self.voters)
            && known(&self.learners)
            && known(&self.outgoing)
            && self.about.values().all(text)
            && self.departed.len() <= DEPARTED_MAX
            && self.departed.values().all(text)
            && self.departed.keys().all(|id| self.removed.contains(id))
            && self
                .about
                .keys()
                .all(|id| self.is_voter(*id) || self.learners.contains(id))
    }

    /// Its one form in bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        for set in [
            &self.voters,
            &self.learners,
            &self.outgoing,
            &self.learners_next,
            &self.removed,
        ] {
            put_count(&mut out, set.len());
            for id in set {
                out.put_u64(id.0.get());
            }
        }
        out.put_u8(self.auto_leave.into());
        put_count(&mut out, self.about.len());
        for (id, about) in &self.about {
            put_about(&mut out, *id, about);
        }
        // Nothing stands for nobody, which is also how it was before this was remembered.
        if !self.departed.is_empty() {
            put_count(&mut out, self.departed.len());
            for (id, about) in &self.departed {
                put_about(&mut out, *id, about);
            }
        }
        out.freeze()
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` if it is not that, or not sound.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let mut sets: [BTreeSet<NodeId>; 5] = Default::default();
        for set in &mut sets {
            let count = input.count(REMOVED_MAX)?;
            for _ in 0..count {
                set.insert(input.id()?);
            }
        }
        let [voters, learners, outgoing, learners_next, removed] = sets;
        let auto_leave = input.u8()? == 1;
        let mut about = BTreeMap::new();
        for _ in 0..input.count(MEMBERS_MAX)? {
            let (id, one) = input.about()?;
            about.insert(id, one);
        }
        let mut departed = BTreeMap::new();
        if !input.0.is_empty() {
            for _ in 0..input.count(DEPARTED_MAX)? {
                let (id, one) = input.about()?;
                departed.insert(id, one);
            }
        }
        let membership = Self {
            voters,
            learners,
            outgoing,
            learners_next,
            auto_leave,
            about,
            removed,
            departed,
        };
        // The form is canonical: what is not written like this was not written by us.
        (input.0.is_empty() && membership.is_sound() && membership.encode() == bytes)
            .then_some(membership)
    }
}

impl Change {
    /// Whom it concerns.
    #[must_use]
    pub fn id(&self) -> NodeId {
        match self {
            Self::AddLearner { id, .. } | Self::Promote { id } | Self::Remove { id } => *id,
        }
    }
}

const ADD_LEARNER: u8 = 1;
const PROMOTE: u8 = 2;
const REMOVE: u8 = 3;

/// Changes as they stand in an entry, beside what raft itself must know of them.
pub(crate) fn encode_changes(changes: &[Change]) -> Bytes {
    let mut out = BytesMut::new();
    for change in changes {
        match change {
            Change::AddLearner { id, about } => {
                out.put_u8(ADD_LEARNER);
                put_about(&mut out, *id, about);
            }
            Change::Promote { id } => {
                out.put_u8(PROMOTE);
                out.put_u64(id.0.get());
            }
            Change::Remove { id } => {
                out.put_u8(REMOVE);
                out.put_u64(id.0.get());
            }
        }
    }
    out.freeze()
}

pub(crate) fn decode_changes(bytes: &[u8]) -> Option<Vec<Change>> {
    let mut input = Input(bytes);
    let mut changes = Vec::new();
    while !input.0.is_empty() {
        if changes.len() == MEMBERS_MAX {
            return None;
        }
        changes.push(match input.u8()? {
            ADD_LEARNER => {
                let (id, about) = input.about()?;
                Change::AddLearner { id, about }
            }
            PROMOTE => Change::Promote { id: input.id()? },
            REMOVE => Change::Remove { id: input.id()? },
            _ => return None,
        });
    }
    Some(changes)
}

fn put_count(out: &mut BytesMut, count: usize) {
    // All counts have limits far below.
    out.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
}

fn put_about(out: &mut BytesMut, id: NodeId, about: &About) {
    out.put_u64(id.0.get());
    out.put_u64(about.stamp);
    put_count(out, about.text.len());
    out.put_slice(&about.text);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u64(&mut self) -> Option<u64> {
        let bytes = self.take(8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    }

    fn id(&mut self) -> Option<NodeId> {
        NonZeroU64::new(self.u64()?).map(NodeId)
    }

    fn count(&mut self, max: usize) -> Option<usize> {
        let bytes = self.take(4)?.try_into().ok()?;
        let count = usize::try_from(u32::from_be_bytes(bytes)).ok()?;
        (count <= max).then_some(count)
    }

    fn about(&mut self) -> Option<(NodeId, About)> {
        let id = self.id()?;
        let stamp = self.u64()?;
        let len = self.count(ABOUT_BYTES_MAX)?;
        let text = Bytes::copy_from_slice(self.take(len)?);
        Some((id, About { stamp, text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId(NonZeroU64::new(number).unwrap())
    }

    fn about(stamp: u64) -> About {
        About {
            stamp,
            text: Bytes::from_static(b"origin-0 10.0.0.1:7000"),
        }
    }

    fn three() -> Membership {
        Membership::of([(id(1), about(11)), (id(2), about(22)), (id(3), about(33))])
    }

    #[test]
    fn a_membership_survives_its_bytes_and_nothing_else_is_one() {
        let mut membership = three();
        membership.learners.insert(id(4));
        membership.about.insert(id(4), about(44));
        membership.removed.insert(id(9));
        let bytes = membership.encode();
        assert_eq!(Membership::decode(&bytes), Some(membership.clone()));
        membership.departed.insert(id(9), about(99));
        let more = membership.encode();
        assert_eq!(more[..bytes.len()], bytes);
        assert_eq!(Membership::decode(&more), Some(membership.clone()));
        membership.departed.insert(id(8), about(88));
        assert_eq!(
            Membership::decode(&membership.encode()),
            None,
            "8 is not removed"
        );
        for len in (0..bytes.len()).chain(bytes.len() + 1..more.len()) {
            assert_eq!(Membership::decode(&more[..len]), None);
        }
        assert_eq!(Membership::decode(&[bytes.as_ref(), b"x"].concat()), None);
        assert_eq!(Membership::decode(&Membership::default().encode()), None);
    }

    #[test]
    fn a_number_is_given_once() {
        let mut membership = three();
        membership.removed.insert(id(9));
        for taken in [3, 9] {
            let change = Change::AddLearner {
                id: id(taken),
                about: about(0),
            };
            assert_eq!(
                membership.check(&[change]),
                Err(Refusal::NumberTaken(id(taken)))
            );
        }
    }

    #[test]
    fn who_was_removed_lately_is_remembered() {
        let mut membership = three();
        membership.note(&[Change::Remove { id: id(2) }]);
        membership.voters.remove(&id(2));
        membership.settle();
        assert_eq!(membership.departed, BTreeMap::from([(id(2), about(22))]));
        for number in 4..4 + DEPARTED_MAX as u64 {
            membership.learners.insert(id(number));
            let about = about(number);
            let add = Change::AddLearner {
                id: id(number),
                about,
            };
            membership.note(&[add]);
            membership.learners.remove(&id(number));
            membership.note(&[Change::Remove { id: id(number) }]);
            membership.settle();
        }
        assert_eq!(membership.departed.len(), DEPARTED_MAX);
        assert!(!membership.departed.contains_key(&id(2)));
        assert!(membership.removed.contains(&id(2)));
        assert!(membership.is_sound());
    }

    #[test]
    fn the_last_voter_stays() {
        let changes = [1, 2, 3].map(|number| Change::Remove { id: id(number) });
        assert_eq!(three().check(&changes), Err(Refusal::LastVoter));
        assert_eq!(three().check(&changes[..2]), Ok(()));
    }

    #[test]
    fn changes_survive_their_bytes() {
        let changes = vec![
            Change::AddLearner {
                id: id(5),
                about: about(55),
            },
            Change::Promote { id: id(4) },
            Change::Remove { id: id(1) },
        ];
        assert_eq!(decode_changes(&encode_changes(&changes)), Some(changes));
        assert_eq!(decode_changes(&[7]), None);
    }
}
