//! What an origin without a cluster may do after it has asked around: a function of what it
//! heard.
//!
//! The rule behind all others: *no answer is never taken for no cluster*. A founder that has
//! lost its disk cannot be told from one that has just been made, but by the others.

use std::collections::BTreeMap;
use std::fmt;

use fabric::v1::ClusterStatus;
use member::about;
use model::NodeId;
use node::link::Address;

/// Who asks.
pub(super) struct Me<'a> {
    pub(super) node: NodeId,
    pub(super) stamp: u64,
    pub(super) name: &'a str,
    /// Where the others reach it.
    pub(super) address: &'a str,
}

/// What became of one question.
pub(super) struct Answer {
    /// Who was asked, for people.
    pub(super) at: String,
    /// Which founder is expected there, if one is.
    pub(super) founder: Option<NodeId>,
    /// Where it was asked, and what it said of this cluster.
    pub(super) said: Option<(Address, ClusterStatus)>,
}

/// What may be done.
#[derive(Debug)]
pub(super) enum Verdict<'a> {
    /// There is a cluster, and this one of it is to be asked.
    Belong(&'a Address, &'a ClusterStatus),
    /// There is none, and these found it.
    Found(Vec<(NodeId, consensus::About)>),
    /// Ask again.
    Wait(Why),
}

/// Why there is no cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It may come about by itself.
    NotYet(String),
    /// Somebody is set up wrongly.
    Never(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet(why) | Self::Never(why) => f.write_str(why),
        }
    }
}

/// The founders as they are told to others.
pub(super) fn listed(founders: &BTreeMap<NodeId, Address>) -> Vec<fabric::v1::Member> {
    founders
        .iter()
        .map(|(id, address)| fabric::v1::Member {
            node: id.0.get(),
            address: address.to_string(),
            ..fabric::v1::Member::default()
        })
        .collect()
}

/// What an origin with an empty folder may do.
pub(super) fn judge<'a>(
    me: &Me<'_>,
    founders: &BTreeMap<NodeId, Address>,
    heard: &'a [Answer],
) -> Verdict<'a> {
    if let Some((address, status)) = cluster(heard) {
        return Verdict::Belong(address, status);
    }
    if !founders.contains_key(&me.node) {
        return Verdict::Wait(Why::NotYet(none_to_join(me, heard)));
    }
    match all_blank(me, founders, heard) {
        Ok(()) => {}
        Err(why) => return Verdict::Wait(why),
    }
    let mut all = Vec::new();
    for (id, address) in founders {
        let text = address.to_string();
        let said = heard.iter().find(|answer| answer.founder == Some(*id));
        let about = match said.and_then(|answer| answer.said.as_ref()) {
            Some((_, status)) => about::write(status.stamp, &status.name, &text),
            // Every other founder has answered.
            None => about::write(me.stamp, me.name, &text),
        };
        all.push((*id, about));
    }
    Verdict::Found(all)
}

/// One that belongs to a cluster, preferably one that knows who leads it.
fn cluster(heard: &[Answer]) -> Option<(&Address, &ClusterStatus)> {
    let said = heard.iter().filter_map(|answer| answer.said.as_ref());
    let standing = said.filter(|(_, status)| !status.blank && !status.members.is_empty());
    standing
        .max_by_key(|(_, status)| (status.leader != 0, status.applied))
        .map(|(address, status)| (address, status))
}

fn none_to_join(me: &Me<'_>, heard: &[Answer]) -> String {
    let others = heard.iter().filter(|answer| !is_me(me, answer));
    let told: Vec<_> = others
        .map(|answer| match &answer.said {
            None => format!("{} does not answer", answer.at),
            Some((_, status)) if status.removed => format!("{} was removed from one", answer.at),
            Some(_) => format!("{} belongs to none either", answer.at),
        })
        .collect();
    if told.is_empty() {
        return "no cluster to join: nobody else is known".to_owned();
    }
    format!("no cluster to join yet: {}", told.join(", "))
}

/// Whether everybody who was to be asked has said that it belongs to no cluster, and agrees on
/// who the founders are.
fn all_blank(
    me: &Me<'_>,
    founders: &BTreeMap<NodeId, Address>,
    heard: &[Answer],
) -> Result<(), Why> {
    let list = listed(founders);
    for answer in heard.iter().filter(|answer| !is_me(me, answer)) {
        let at = &answer.at;
        let who = match answer.founder {
            Some(id) => format!("peer {id} at {at}"),
            None => at.clone(),
        };
        let Some((_, status)) = &answer.said else {
            return Err(Why::NotYet(match answer.founder {
                Some(_) => format!("{who} does not answer"),
                None => format!("{who} does not answer, and may belong to a cluster"),
            }));
        };
        if status.removed {
            let why = format!("{who} was removed from a cluster, which does not answer");
            return Err(Why::NotYet(why));
        }
        if !status.blank {
            let why = format!("{who} has begun, and has no members yet");
            return Err(Why::NotYet(why));
        }
        if let Some(id) = answer.founder
            && status.node != id.0.get()
        {
            return Err(Why::Never(format!(
                "{at} is configured as peer {id}, and says that it is {}",
                status.node
            )));
        }
        // Who only joins need not know the founders; two lists of them would be two clusters.
        let only_joins = answer.founder.is_none() && status.members.is_empty();
        if !only_joins && status.members != list {
            return Err(Why::Never(format!("{who} is configured with other peers")));
        }
    }
    Ok(())
}

/// Whether who was asked is who asks: a list of all origins has this one in it as well.
fn is_me(me: &Me<'_>, answer: &Answer) -> bool {
    answer.at == me.address
        || answer
            .said
            .as_ref()
            .is_some_and(|(_, status)| status.stamp == me.stamp && status.name == me.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NodeId {
        NodeId(std::num::NonZeroU64::new(number).unwrap())
    }

    fn founders(count: u64) -> BTreeMap<NodeId, Address> {
        (1..=count)
            .map(|number| (id(number), at(number).parse().unwrap()))
            .collect()
    }

    fn at(number: u64) -> String {
        format!("origin-{}:1", number - 1)
    }

    fn me(number: u64) -> (NodeId, String, String) {
        (id(number), format!("origin-{}", number - 1), at(number))
    }

    /// What a blank origin with these founders says.
    fn blank(number: u64, founders: &BTreeMap<NodeId, Address>) -> Option<ClusterStatus> {
        Some(ClusterStatus {
            node: number,
            name: format!("origin-{}", number - 1),
            stamp: 100 + number,
            blank: true,
            members: listed(founders),
            ..ClusterStatus::default()
        })
    }

    fn standing(number: u64, leader: u64, applied: u64) -> Option<ClusterStatus> {
        Some(ClusterStatus {
            node: number,
            name: format!("origin-{}", number - 1),
            stamp: 200 + number,
            leader,
            applied,
            members: vec![fabric::v1::Member::default()],
            ..ClusterStatus::default()
        })
    }

    fn asked(number: u64, founder: bool, said: Option<ClusterStatus>) -> Answer {
        Answer {
            at: at(number),
            founder: founder.then(|| id(number)),
            said: said.map(|status| (at(number).parse().unwrap(), status)),
        }
    }

    /// What it comes to, in words.
    fn verdict(number: u64, founders: &BTreeMap<NodeId, Address>, heard: &[Answer]) -> String {
        let (node, name, address) = me(number);
        let me = Me {
            node,
            stamp: 100 + number,
            name: &name,
            address: &address,
        };
        match judge(&me, founders, heard) {
            Verdict::Belong(address, _) => format!("belong {address}"),
            Verdict::Found(all) => {
                let all = all
                    .iter()
                    .map(|(id, about)| format!("{id}:{}", about.stamp));
                format!("found {}", all.collect::<Vec<_>>().join(" "))
            }
            Verdict::Wait(Why::NotYet(why)) => format!("not yet: {why}"),
            Verdict::Wait(Why::Never(why)) => format!("never: {why}"),
        }
    }

    #[test]
    fn founders_found_together_when_all_are_there_and_blank() {
        let three = founders(3);
        let heard = [2, 3].map(|number| asked(number, true, blank(number, &three)));
        assert_eq!(verdict(1, &three, &heard), "found 1:101 2:102 3:103");
        let heard = [asked(2, true, blank(2, &three)), asked(3, true, None)];
        let waits = "not yet: peer 3 at origin-2:1 does not answer";
        assert_eq!(verdict(1, &three, &heard), waits);
        let heard = [asked(2, true, blank(3, &three))];
        let never = "never: origin-1:1 is configured as peer 2, and says that it is 3";
        assert_eq!(verdict(1, &three, &heard), never);
        let heard = [asked(2, true, blank(2, &founders(2)))];
        let never = "never: peer 2 at origin-1:1 is configured with other peers";
        assert_eq!(verdict(1, &three, &heard), never);
    }

    #[test]
    fn a_single_founder_founds_nothing_while_one_that_it_may_join_is_silent() {
        let one = founders(1);
        // The list holds itself, whose name the DNS may not have yet.
        let all = |third| {
            [
                asked(1, false, None),
                asked(2, false, blank(2, &one)),
                asked(3, false, third),
            ]
        };
        let waits = "not yet: origin-2:1 does not answer, and may belong to a cluster";
        assert_eq!(verdict(1, &one, &all(None)), waits);
        let belongs = "belong origin-2:1";
        assert_eq!(verdict(1, &one, &all(standing(3, 0, 7))), belongs);
        assert_eq!(verdict(1, &one, &all(blank(3, &one))), "found 1:101");
    }

    #[test]
    fn who_is_no_founder_never_founds_anything() {
        let one = founders(1);
        let heard = [
            asked(1, true, None),
            asked(2, false, blank(2, &one)),
            asked(3, false, blank(3, &one)),
        ];
        let waits = "not yet: no cluster to join yet: origin-0:1 does not answer, \
                     origin-1:1 belongs to none either";
        assert_eq!(verdict(3, &one, &heard), waits);
        let waits = "not yet: no cluster to join: nobody else is known";
        assert_eq!(verdict(3, &BTreeMap::new(), &[]), waits);
    }

    #[test]
    fn the_one_that_knows_a_leader_is_asked_first() {
        let heard = [
            asked(1, false, standing(1, 0, 9)),
            asked(2, false, standing(2, 2, 5)),
        ];
        assert_eq!(verdict(3, &founders(1), &heard), "belong origin-1:1");
    }

    #[test]
    fn one_that_was_removed_has_seen_a_cluster_and_belongs_to_none() {
        let one = founders(1);
        let removed = Some(ClusterStatus {
            node: 2,
            removed: true,
            ..ClusterStatus::default()
        });
        let heard = [asked(2, false, removed)];
        let waits = "not yet: origin-1:1 was removed from a cluster, which does not answer";
        assert_eq!(verdict(1, &one, &heard), waits);
        let waits = "not yet: no cluster to join yet: origin-1:1 was removed from one";
        assert_eq!(verdict(3, &one, &heard), waits);
    }

    #[test]
    fn two_lists_of_founders_found_nothing() {
        let one = founders(1);
        let other = BTreeMap::from([(id(2), at(2).parse().unwrap())]);
        let heard = [asked(2, false, blank(2, &other))];
        let never = "never: origin-1:1 is configured with other peers";
        assert_eq!(verdict(1, &one, &heard), never);
        // Who joins by the list of all, and has been told of no founder, is no founder.
        let heard = [asked(2, false, blank(2, &BTreeMap::new()))];
        assert_eq!(verdict(1, &one, &heard), "found 1:101");
    }
}
