//! Which peer is at which edge, as edges say, and introductions between edges.
//!
//! A synchronous machine: the time is an argument, what it wants said comes out of
//! [`Directory::poll_output`]. Nothing here is in the log. An edge is believed as long as its
//! link lives; a link that is silent for [`PEERS_SILENCE`] is over, and with it goes all that was
//! said on it. An edge that comes back says all of it again.
//!
//! Who is at several edges is where it came last: a client whose edge was lost and that is
//! somewhere else already is found there before anybody has noticed the loss.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fabric::limits::PEERS_SILENCE;
use fabric::peers::PeerId;
use fabric::v1::{Initiator, outcome, verdict};

use crate::limits::{INTRODUCTION_TIME, INTRODUCTIONS_MAX, PEERS_MAX, PEERS_PER_EDGE};

/// An edge's link, and which one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// An edge process: its name, and what differs from run to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// The edge's name.
    pub edge: String,
    /// The same on all links of one run.
    pub incarnation: u64,
}

/// A peer at an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Where the edge sees it.
    pub observed: SocketAddr,
    /// Where it says it is itself.
    pub reported: Vec<SocketAddr>,
    /// For how long it has been there.
    pub age: Duration,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// To the edge of a peer: tell it of someone.
    Introduction {
        /// The edge's link.
        link: LinkId,
        /// To be answered with it.
        id: u64,
        /// Whom to tell.
        peer: PeerId,
        /// Of whom.
        initiator: Initiator,
    },
    /// To the edge that asked.
    Outcome {
        /// The edge's link.
        link: LinkId,
        /// What it asked under.
        id: u64,
        /// How it ended.
        state: outcome::State,
        /// Where the peer is, if it is found.
        presence: Option<Presence>,
    },
    /// The link is over: nothing was heard on it for too long, or its edge has a newer one.
    End {
        /// Which.
        link: LinkId,
    },
}

/// What was counted. Each figure only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Peers that edges asked for.
    pub lookups: u64,
    /// Those that were found and told.
    pub hits: u64,
    /// Those that are at no edge.
    pub misses: u64,
    /// Introductions handed to edges.
    pub forwarded: u64,
    /// Peers of which no note was taken, because there were too many.
    pub left_out: u64,
}

#[derive(Debug)]
struct Link {
    life: Life,
    heard: Instant,
    peers: BTreeSet<PeerId>,
}

#[derive(Debug)]
struct Entry {
    link: LinkId,
    came: Instant,
    observed: SocketAddr,
    reported: Vec<SocketAddr>,
}

/// A seek whose peer's edge was asked.
#[derive(Debug)]
struct Introducing {
    asked_by: LinkId,
    seek: u64,
    asked: LinkId,
    peer: PeerId,
    until: Instant,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Directory {
    links: BTreeMap<LinkId, Link>,
    /// Where each peer is, the newest last.
    peers: BTreeMap<PeerId, Vec<Entry>>,
    entries: usize,
    /// What edges were asked, oldest first.
    introducing: BTreeMap<u64, Introducing>,
    next: u64,
    /// The most entries, and the most of one edge.
    max: (usize, usize),
    outputs: VecDeque<Output>,
    counts: Counts,
}

impl Default for Directory {
    fn default() -> Self {
        Self::with_room(PEERS_MAX, PEERS_PER_EDGE)
    }
}

impl Directory {
    /// A directory of so many peers at most, and so many of one edge.
    #[must_use]
    pub const fn with_room(peers: usize, per_edge: usize) -> Self {
        Self {
            links: BTreeMap::new(),
            peers: BTreeMap::new(),
            entries: 0,
            introducing: BTreeMap::new(),
            next: 0,
            max: (peers, per_edge),
            outputs: VecDeque::new(),
            counts: Counts {
                lookups: 0,
                hits: 0,
                misses: 0,
                forwarded: 0,
                left_out: 0,
            },
        }
    }

    /// What was counted.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Peers that are known, each as often as edges say they hold it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries
    }

    /// Whether no peer is known.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// An edge has greeted. An earlier link of the same life is over.
    pub fn link_up(&mut self, link: LinkId, life: Life, now: Instant) {
        let older = self.links.iter().find(|(_, other)| other.life == life);
        if let Some(older) = older.map(|(id, _)| *id) {
            self.end(older);
        }
        let peers = BTreeSet::new();
        let heard = now;
        self.links.insert(link, Link { life, heard, peers });
    }

    /// A link is over, and what was said on it is not known any more.
    pub fn link_down(&mut self, link: LinkId) {
        let Some(gone) = self.links.remove(&link) else {
            return;
        };
        for peer in gone.peers {
            self.remove_entry(&peer, link);
        }
        // Those who asked may ask elsewhere at once.
        let lost = self.introducing.iter();
        let lost = lost.filter(|(_, it)| it.asked == link || it.asked_by == link);
        let lost: Vec<_> = lost.map(|(id, _)| *id).collect();
        for id in lost {
            if let Some(it) = self.introducing.remove(&id)
                && it.asked == link
            {
                self.answer(it.asked_by, it.seek, outcome::State::Busy);
            }
        }
    }

    /// Something was heard on a link.
    pub fn heard(&mut self, link: LinkId, now: Instant) {
        if let Some(link) = self.links.get_mut(&link) {
            link.heard = now;
        }
    }

    /// An edge says where a peer is, or with `None` that it does not hold it any more.
    pub fn news(&mut self, link: LinkId, peer: PeerId, presence: Option<Presence>, now: Instant) {
        let Some(said) = self.links.get_mut(&link) else {
            return;
        };
        if said.peers.remove(&peer) {
            self.remove_entry(&peer, link);
        }
        let Some(presence) = presence else { return };
        let said = self.links.get_mut(&link);
        let Some(said) = said.filter(|it| it.peers.len() < self.max.1 && self.entries < self.max.0)
        else {
            self.counts.left_out += 1;
            return;
        };
        said.peers.insert(peer);
        self.entries += 1;
        let Presence {
            observed,
            reported,
            age,
        } = presence;
        let entry = Entry {
            link,
            came: now.checked_sub(age).unwrap_or(now),
            observed,
            reported,
        };
        let entries = self.peers.entry(peer).or_default();
        let place = entries.partition_point(|other| other.came <= entry.came);
        entries.insert(place, entry);
    }

    /// An edge looks for a peer, for someone who wants to talk with it.
    pub fn seek(
        &mut self,
        (link, seek): (LinkId, u64),
        peer: PeerId,
        initiator: Initiator,
        now: Instant,
    ) {
        self.counts.lookups += 1;
        while let Some(first) = self.introducing.first_entry()
            && first.get().until <= now
        {
            // Who asked has given up by now.
            first.remove();
        }
        let entries = self.peers.get(&peer).into_iter().flatten();
        // An edge that holds a peer itself does not ask for it: it has just lost it.
        let Some(asked) = entries.rev().map(|it| it.link).find(|at| *at != link) else {
            self.counts.misses += 1;
            return self.answer(link, seek, outcome::State::Unknown);
        };
        if self.introducing.len() >= INTRODUCTIONS_MAX {
            return self.answer(link, seek, outcome::State::Busy);
        }
        let id = self.next;
        self.next += 1;
        let introducing = Introducing {
            asked_by: link,
            seek,
            asked,
            peer,
            until: now + INTRODUCTION_TIME,
        };
        self.introducing.insert(id, introducing);
        self.counts.forwarded += 1;
        self.outputs.push_back(Output::Introduction {
            link: asked,
            id,
            peer,
            initiator,
        });
    }

    /// The edge of a peer answers [`Output::Introduction`].
    pub fn verdict(&mut self, link: LinkId, id: u64, verdict: verdict::State) {
        if self.introducing.get(&id).is_none_or(|it| it.asked != link) {
            return;
        }
        let Some(it) = self.introducing.remove(&id) else {
            return;
        };
        let entries = self.peers.get(&it.peer).into_iter().flatten();
        let presence = entries.rev().find(|entry| entry.link == link);
        let presence = presence.map(|entry| Presence {
            observed: entry.observed,
            reported: entry.reported.clone(),
            age: Duration::ZERO,
        });
        let (state, presence) = match (verdict, presence) {
            (verdict::State::Forwarded, Some(presence)) => {
                self.counts.hits += 1;
                (outcome::State::Found, Some(presence))
            }
            (verdict::State::Refused, _) => (outcome::State::Refused, None),
            // It left while it was asked. Its next place may be under way here.
            (verdict::State::Forwarded | verdict::State::Gone | verdict::State::Unspecified, _) => {
                (outcome::State::Busy, None)
            }
        };
        self.outputs.push_back(Output::Outcome {
            link: it.asked_by,
            id: it.seek,
            state,
            presence,
        });
    }

    /// When nothing more will have been heard on a link for too long.
    #[must_use]
    pub fn dies_at(&self, link: LinkId) -> Option<Instant> {
        self.links.get(&link).map(|it| it.heard + PEERS_SILENCE)
    }

    /// Ends the links on which nothing was heard.
    pub fn handle_timeout(&mut self, now: Instant) {
        let silent = self.links.iter();
        let silent = silent.filter(|(_, link)| link.heard + PEERS_SILENCE <= now);
        let silent: Vec<_> = silent.map(|(id, _)| *id).collect();
        for link in silent {
            self.end(link);
        }
    }

    /// What is to be said next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn end(&mut self, link: LinkId) {
        self.link_down(link);
        self.outputs.push_back(Output::End { link });
    }

    fn answer(&mut self, link: LinkId, id: u64, state: outcome::State) {
        self.outputs.push_back(Output::Outcome {
            link,
            id,
            state,
            presence: None,
        });
    }

    fn remove_entry(&mut self, peer: &PeerId, link: LinkId) {
        let Some(entries) = self.peers.get_mut(peer) else {
            return;
        };
        let before = entries.len();
        entries.retain(|entry| entry.link != link);
        self.entries -= before - entries.len();
        if entries.is_empty() {
            self.peers.remove(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);
    const C: LinkId = LinkId(3);
    const PEER: PeerId = [7; 32];

    fn life(edge: &str, incarnation: u64) -> Life {
        Life {
            edge: edge.to_owned(),
            incarnation,
        }
    }

    fn presence(port: u16, age_ms: u64) -> Presence {
        Presence {
            observed: ([192, 0, 2, 1], port).into(),
            reported: vec![([10, 0, 0, 1], port).into()],
            age: Duration::from_millis(age_ms),
        }
    }

    /// Three edges, and a moment at which the machine can look back.
    fn three() -> (Directory, Instant) {
        let now = Instant::now() + Duration::from_secs(100);
        let mut directory = Directory::with_room(4, 3);
        for (link, edge) in [(A, "a"), (B, "b"), (C, "c")] {
            directory.link_up(link, life(edge, 1), now);
        }
        (directory, now)
    }

    fn said(directory: &mut Directory) -> Vec<Output> {
        std::iter::from_fn(|| directory.poll_output()).collect()
    }

    /// Which edge is asked when A looks for the peer.
    fn asked(directory: &mut Directory, now: Instant) -> Option<(LinkId, u64)> {
        directory.seek((A, 5), PEER, Initiator::default(), now);
        match &said(directory)[..] {
            [Output::Introduction { link, id, .. }] => Some((*link, *id)),
            [
                Output::Outcome {
                    link: A,
                    id: 5,
                    state: outcome::State::Unknown,
                    presence: None,
                },
            ] => None,
            other => panic!("{other:?}"),
        }
    }

    /// What A is told then.
    fn outcome_of(directory: &mut Directory) -> (outcome::State, Option<u16>) {
        match &said(directory)[..] {
            [
                Output::Outcome {
                    link: A,
                    id: 5,
                    state,
                    presence,
                },
            ] => (*state, presence.as_ref().map(|it| it.observed.port())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_peer_is_found_where_an_edge_says_it_is_until_it_says_that_it_left() {
        let (mut directory, now) = three();
        assert_eq!(asked(&mut directory, now), None);
        directory.news(B, PEER, Some(presence(1, 0)), now);
        let (link, id) = asked(&mut directory, now).unwrap();
        assert_eq!(link, B);
        // Nobody answers for another edge.
        directory.verdict(C, id, verdict::State::Forwarded);
        assert_eq!(said(&mut directory), []);
        directory.verdict(B, id, verdict::State::Forwarded);
        assert_eq!(outcome_of(&mut directory), (outcome::State::Found, Some(1)));
        directory.verdict(B, id, verdict::State::Forwarded);
        assert_eq!(said(&mut directory), [], "it is answered once");
        // A change of address is news like any other.
        directory.news(B, PEER, Some(presence(2, 10)), now);
        let (_, id) = asked(&mut directory, now).unwrap();
        directory.verdict(B, id, verdict::State::Forwarded);
        assert_eq!(outcome_of(&mut directory).1, Some(2));
        directory.news(B, PEER, None, now);
        assert_eq!(asked(&mut directory, now), None);
        assert!(directory.is_empty());
        let counts = directory.counts();
        assert_eq!((counts.lookups, counts.hits, counts.misses), (4, 2, 2));
    }

    #[test]
    fn what_the_edge_of_the_peer_says_is_passed_on() {
        let (mut directory, now) = three();
        directory.news(B, PEER, Some(presence(1, 0)), now);
        for (verdict, outcome) in [
            (verdict::State::Refused, outcome::State::Refused),
            (verdict::State::Gone, outcome::State::Busy),
        ] {
            let (_, id) = asked(&mut directory, now).unwrap();
            directory.verdict(B, id, verdict);
            assert_eq!(outcome_of(&mut directory), (outcome, None));
        }
        // The peer is forgotten while its edge is asked, or its edge is lost.
        let (_, id) = asked(&mut directory, now).unwrap();
        directory.news(B, PEER, None, now);
        directory.verdict(B, id, verdict::State::Forwarded);
        assert_eq!(outcome_of(&mut directory), (outcome::State::Busy, None));
        directory.news(B, PEER, Some(presence(1, 0)), now);
        asked(&mut directory, now).unwrap();
        directory.link_down(B);
        assert_eq!(outcome_of(&mut directory), (outcome::State::Busy, None));
    }

    #[test]
    fn who_is_at_two_edges_is_where_it_came_last_in_whatever_order_they_say_so() {
        for order in [[B, C], [C, B]] {
            let (mut directory, now) = three();
            for link in order {
                let age = if link == B { 9000 } else { 50 };
                directory.news(link, PEER, Some(presence(1, age)), now);
            }
            assert_eq!(asked(&mut directory, now).unwrap().0, C);
            directory.link_down(C);
            said(&mut directory);
            assert_eq!(asked(&mut directory, now).unwrap().0, B);
        }
    }

    #[test]
    fn an_edge_does_not_find_its_own() {
        let (mut directory, now) = three();
        directory.news(A, PEER, Some(presence(1, 0)), now);
        assert_eq!(asked(&mut directory, now), None);
    }

    #[test]
    fn a_silent_link_ends_and_its_peers_go_with_it() {
        let (mut directory, now) = three();
        directory.news(B, PEER, Some(presence(1, 0)), now);
        let later = now + PEERS_SILENCE - Duration::from_millis(1);
        directory.heard(A, later);
        directory.heard(C, later);
        directory.handle_timeout(later);
        assert_eq!(said(&mut directory), []);
        assert_eq!(directory.dies_at(B), Some(now + PEERS_SILENCE));
        directory.handle_timeout(now + PEERS_SILENCE);
        assert_eq!(said(&mut directory), [Output::End { link: B }]);
        assert_eq!(asked(&mut directory, later), None);
        // What comes on it afterwards is not believed.
        directory.news(B, PEER, Some(presence(1, 0)), later);
        assert!(directory.is_empty() && directory.dies_at(B).is_none());
    }

    #[test]
    fn a_new_link_of_the_same_life_replaces_the_old_one_and_another_life_does_not() {
        let (mut directory, now) = three();
        directory.news(B, PEER, Some(presence(1, 0)), now);
        directory.link_up(LinkId(4), life("b", 2), now);
        assert_eq!(said(&mut directory), []);
        assert_eq!(asked(&mut directory, now).unwrap().0, B);
        directory.link_up(LinkId(5), life("b", 1), now);
        assert_eq!(
            said(&mut directory),
            [
                Output::Outcome {
                    link: A,
                    id: 5,
                    state: outcome::State::Busy,
                    presence: None
                },
                Output::End { link: B }
            ]
        );
        assert_eq!(asked(&mut directory, now), None);
        directory.news(LinkId(5), PEER, Some(presence(1, 0)), now);
        assert_eq!(asked(&mut directory, now).unwrap().0, LinkId(5));
    }

    #[test]
    fn no_edge_takes_more_room_than_its_own_and_none_more_than_there_is() {
        let (mut directory, now) = three();
        let peer = |n: u8| [n; 32];
        for n in 0..5 {
            directory.news(A, peer(n), Some(presence(1, 0)), now);
        }
        assert_eq!(directory.len(), 3);
        for n in 5..9 {
            directory.news(B, peer(n), Some(presence(1, 0)), now);
        }
        assert_eq!((directory.len(), directory.counts().left_out), (4, 5));
        // News of one that is known is always taken.
        directory.news(A, peer(0), Some(presence(9, 0)), now);
        assert_eq!(directory.len(), 4);
        directory.link_down(A);
        directory.link_down(B);
        assert!(directory.is_empty() && directory.peers.is_empty());
    }

    #[test]
    fn what_is_under_way_is_bounded_and_forgotten_in_time() {
        let (mut directory, now) = three();
        directory.news(B, PEER, Some(presence(1, 0)), now);
        let seek = |directory: &mut Directory, now| {
            directory.seek((A, 5), PEER, Initiator::default(), now);
            matches!(said(directory)[..], [Output::Introduction { .. }])
        };
        let taken = (0..INTRODUCTIONS_MAX + 10)
            .filter(|_| seek(&mut directory, now))
            .count();
        assert_eq!(taken, INTRODUCTIONS_MAX);
        assert!(seek(&mut directory, now + INTRODUCTION_TIME));
        assert_eq!(directory.introducing.len(), 1);
    }
}
