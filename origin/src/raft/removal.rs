//! Which origins may be removed, and what has to happen before: a function of what the leader
//! knows.
//!
//! Several are removed in one step, by the majorities of before and after alike: from three to
//! one without the two voters between, of which none may fail.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use consensus::Membership;
use consensus::limits::MEMBERS_MAX;
use fabric::v1::Removed;
use member::about;
use model::NodeId;
use tonic::Status;

/// What the leader knows.
pub(super) struct Known<'a> {
    /// The leader.
    pub(super) me: NodeId,
    pub(super) membership: &'a Membership,
    /// Whom it heard of lately, and how far each is.
    pub(super) active: &'a dyn Fn(NodeId) -> Option<u64>,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// Propose that these leave, which may be nobody, and then answer this.
    Remove(BTreeSet<NodeId>, Vec<Removed>),
    /// This one must lead first.
    HandOver(NodeId),
}

/// What removing those who are called so takes.
pub(super) fn plan(known: &Known<'_>, called: &[String], force: bool) -> Result<Plan, Status> {
    if called.is_empty() || called.len() > MEMBERS_MAX {
        return Err(Status::invalid_argument(format!(
            "{} origins to remove, expected 1 to {MEMBERS_MAX}",
            called.len()
        )));
    }
    let mut told = Vec::new();
    let mut leaving = BTreeSet::new();
    for called in called {
        let removed = find(known.membership, called)?;
        if !removed.before
            && let Some(id) = NonZeroU64::new(removed.node).map(NodeId)
            && !leaving.insert(id)
        {
            continue;
        }
        told.push(removed);
    }
    let stay: BTreeSet<NodeId> = known
        .membership
        .voters
        .difference(&leaving)
        .copied()
        .collect();
    if leaving.is_empty() || known.membership.voters.is_disjoint(&leaving) {
        return Ok(Plan::Remove(leaving, told));
    }
    if stay.is_empty() {
        return Err(Status::failed_precondition(
            "nobody could vote any more: the last origin stays",
        ));
    }
    let here = |id: &NodeId| *id == known.me || (known.active)(*id).is_some();
    let silent: Vec<_> = stay.iter().filter(|id| !here(id)).collect();
    let enough = stay.len() - silent.len() > stay.len() / 2;
    if !enough && !force {
        let silent: Vec<_> = silent
            .iter()
            .map(|id| name_of(known.membership, **id))
            .collect();
        return Err(Status::aborted(format!(
            "of the {} that would be left, too few were heard of lately: not {}",
            stay.len(),
            silent.join(", ")
        )));
    }
    if leaving.contains(&known.me) {
        let reached = stay
            .iter()
            .filter_map(|id| Some(((known.active)(*id)?, *id)));
        if let Some((_, next)) = reached.max() {
            return Ok(Plan::HandOver(next));
        }
    }
    Ok(Plan::Remove(leaving, told))
}

fn find(membership: &Membership, called: &str) -> Result<Removed, Status> {
    let number = called.parse().ok().and_then(NonZeroU64::new).map(NodeId);
    let named = |text: &[u8]| about::read(text).0 == called;
    let name = |id: &NodeId| {
        let about = membership.about.get(id).or(membership.departed.get(id));
        about.map_or_else(String::new, |about| about::read(&about.text).0.to_owned())
    };
    let there = match number {
        Some(id) => membership.has(id).then_some(id),
        None => {
            let mut members = membership.about.iter();
            let found = members.find(|(_, about)| named(&about.text));
            found.map(|(id, _)| *id)
        }
    };
    let gone = match number {
        Some(id) => membership.removed.contains(&id).then_some(id),
        None => {
            let departed = membership.departed.iter().rev();
            let mut departed = departed.filter(|(_, about)| named(&about.text));
            departed.next().map(|(id, _)| *id)
        }
    };
    let (id, before) = match (there, gone) {
        (Some(id), _) => (id, false),
        (None, Some(id)) => (id, true),
        (None, None) => {
            return Err(Status::not_found(format!(
                "no origin {called} belongs to the cluster, and none is known that did"
            )));
        }
    };
    Ok(Removed {
        node: id.0.get(),
        name: name(&id),
        before,
    })
}

fn name_of(membership: &Membership, id: NodeId) -> String {
    let name = membership
        .about
        .get(&id)
        .map(|about| about::read(&about.text).0);
    match name {
        Some(name) if !name.is_empty() => format!("{id} ({name})"),
        Some(_) | None => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId(NonZeroU64::new(number).unwrap())
    }

    fn of(count: u64) -> Membership {
        Membership::of((1..=count).map(|number| {
            let name = format!("origin-{}", number - 1);
            (id(number), about::write(number, &name, "a:1"))
        }))
    }

    /// What the leader 1 does, having heard of these, of whom the last is furthest.
    fn planned(membership: &Membership, active: &[u64], called: &str, force: bool) -> String {
        let known = Known {
            me: id(1),
            membership,
            active: &|of| {
                let at = active.iter().position(|number| id(*number) == of)?;
                Some(at as u64)
            },
        };
        let called: Vec<_> = called.split_whitespace().map(str::to_owned).collect();
        match plan(&known, &called, force) {
            Ok(Plan::HandOver(to)) => format!("hand over to {to}"),
            Ok(Plan::Remove(leaving, told)) => {
                let leaving: Vec<_> = leaving.iter().map(NodeId::to_string).collect();
                let before = told.iter().filter(|one| one.before);
                let before: Vec<_> = before
                    .map(|one| format!("{}={}", one.node, one.name))
                    .collect();
                format!(
                    "remove [{}] before [{}]",
                    leaving.join(" "),
                    before.join(" ")
                )
            }
            Err(status) => format!("{:?}: {}", status.code(), status.message()),
        }
    }

    #[test]
    fn by_name_or_by_number_and_each_once() {
        let three = of(3);
        let all = [2, 3];
        assert_eq!(
            planned(&three, &all, "origin-2", false),
            "remove [3] before []"
        );
        assert_eq!(
            planned(&three, &all, "3 origin-2", false),
            "remove [3] before []"
        );
        assert_eq!(
            planned(&three, &all, "origin-7", false),
            "NotFound: no origin origin-7 belongs to the cluster, and none is known that did"
        );
        assert!(planned(&three, &all, "9", false).starts_with("NotFound"));
        assert!(planned(&three, &all, "", false).starts_with("InvalidArgument"));
    }

    #[test]
    fn what_is_gone_is_gone() {
        let mut membership = of(3);
        membership.voters.remove(&id(3));
        let about = membership.about.remove(&id(3)).unwrap();
        membership.removed.extend([id(3), id(7)]);
        membership.departed.insert(id(3), about.clone());
        for called in ["3", "origin-2"] {
            let gone = "remove [] before [3=origin-2]";
            assert_eq!(planned(&membership, &[2], called, false), gone);
        }
        assert_eq!(
            planned(&membership, &[2], "7", false),
            "remove [] before [7=]"
        );
        // It came back under another number, and that one is meant.
        membership.learners.insert(id(8));
        membership.about.insert(id(8), about);
        assert_eq!(
            planned(&membership, &[2], "origin-2", false),
            "remove [8] before []"
        );
    }

    #[test]
    fn a_majority_of_those_who_are_left_must_be_there() {
        let three = of(3);
        // From three to one in one step, with one of them dead.
        assert_eq!(
            planned(&three, &[2], "2 3", false),
            "remove [2 3] before []"
        );
        assert_eq!(planned(&three, &[2], "3", false), "remove [3] before []");
        let dead = "Aborted: of the 2 that would be left, too few were heard of lately: \
                    not 3 (origin-2)";
        assert_eq!(planned(&three, &[2], "2", false), dead);
        assert_eq!(planned(&three, &[2], "2", true), "remove [2] before []");
        assert_eq!(planned(&of(5), &[2, 3], "4", false), "remove [4] before []");
    }

    #[test]
    fn the_last_stays_and_one_that_leads_hands_over_first() {
        let last = "FailedPrecondition: nobody could vote any more: the last origin stays";
        assert_eq!(planned(&of(1), &[], "1", true), last);
        assert_eq!(planned(&of(3), &[2, 3], "1 2 3", true), last);
        assert_eq!(planned(&of(3), &[2, 3], "1", false), "hand over to 3");
        assert_eq!(planned(&of(3), &[3, 2], "1", false), "hand over to 2");
        assert_eq!(planned(&of(3), &[2, 3], "1 3", false), "hand over to 2");
        // A learner goes whoever is there.
        let mut membership = of(1);
        membership.learners.insert(id(2));
        membership
            .about
            .insert(id(2), about::write(2, "origin-1", "a:1"));
        assert_eq!(
            planned(&membership, &[], "origin-1", false),
            "remove [2] before []"
        );
    }
}
