//! The origin's half alone: who is told what, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds what it does not expect has failed"
)]

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::{
    AppInstance, AppName, EdgeId, EdgeLife, Epoch, InstanceName, LogIndex, NodeId, ObjectKey,
    ObjectKind, ObjectName, Policy, SessionId, SlotName, SlotOp, SlotValue, Version, VhostName,
};
use selvage_ledger::effect::Effect;
use selvage_ledger::watchers::{AttachId, Output, Refusal};
use selvage_ledger::wire::{ToEdge, ToOrigin};
use selvage_ledger::{Command, Leases, Ledger, LogName, Proposal, Request, Watchers};

struct Origin {
    now: Instant,
    ledger: Ledger,
    watchers: Watchers,
    leases: Leases,
}

impl Origin {
    fn new() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an Instant must come from somewhere"
        )]
        let now = Instant::now();
        let ledger = Ledger::new();
        let mut leases = Leases::default();
        leases.handle_role(true, &ledger, now);
        Self {
            now,
            ledger,
            watchers: Watchers::new(),
            leases,
        }
    }

    fn says(&mut self, id: u64, message: ToOrigin) {
        let (ledger, now) = (&self.ledger, self.now);
        self.watchers
            .handle_message(AttachId(id), message, ledger, now);
    }

    fn attach(&mut self, id: u64, edge: &EdgeLife) -> Vec<Output> {
        self.watchers.handle_attach(AttachId(id), self.now);
        self.says(id, hello(edge, 0));
        self.outputs()
    }

    fn apply(&mut self, command: &Command) -> Vec<Output> {
        let index = LogIndex(self.ledger.applied().0 + 1);
        let applied = self.ledger.apply(index, command);
        self.watchers.handle_applied(&self.ledger, &applied);
        self.leases.handle_applied(&applied, self.now);
        self.outputs()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.watchers.poll_output()).collect()
    }

    /// Edges 1 and 2 attached as 1 and 2, registered, with the object open.
    fn with_two_edges() -> Self {
        let mut origin = Self::new();
        for n in [1, 2] {
            origin.attach(n, &edge(n));
            origin.apply(&propose(n, 1, Request::Register));
            let open = Request::Open {
                key: key(),
                kind: ObjectKind::Temporary,
                have: None,
            };
            origin.apply(&propose(n, 2, open));
        }
        origin
    }
}

fn edge(n: u64) -> EdgeLife {
    EdgeLife {
        edge: EdgeId::new(&format!("edge-{n}")).unwrap(),
        incarnation: n,
    }
}

fn key() -> ObjectKey {
    ObjectKey {
        at: AppInstance {
            vhost: VhostName::default_vhost(),
            app: AppName::new("app").unwrap(),
            instance: InstanceName::default_instance(),
        },
        name: ObjectName::new("chat").unwrap(),
    }
}

fn hello(edge: &EdgeLife, seen: u64) -> ToOrigin {
    ToOrigin::Attach {
        edge: edge.clone(),
        log: LogName::default(),
        seen: LogIndex(seen),
        objects: Vec::new(),
        streams: Vec::new(),
    }
}

fn propose(edge_number: u64, seq: u64, request: Request) -> Command {
    Command::Propose(Proposal {
        session: SessionId(edge_number.into()),
        seq,
        edge: edge(edge_number),
        durable: false,
        trace: Bytes::new(),
        request,
    })
}

fn batch(value: &'static str) -> Request {
    Request::Batch {
        key: key(),
        epoch: Epoch(0),
        base: Version(0),
        policy: Policy::LastWriterWins,
        ops: vec![SlotOp::Set {
            slot: SlotName::new("a").unwrap(),
            value: SlotValue(Bytes::from_static(value.as_bytes())),
        }],
    }
}

fn to_edges(outputs: Vec<Output>) -> Vec<(u64, ToEdge)> {
    outputs
        .into_iter()
        .filter_map(|output| match output {
            Output::ToEdge { id, message } => Some((id.0, ToEdge::decode(message).unwrap())),
            _ => None,
        })
        .collect()
}

#[test]
fn an_edge_is_told_what_concerns_it_and_nobody_else_is() {
    let mut origin = Origin::with_two_edges();
    origin.attach(3, &edge(3));
    let told = to_edges(origin.apply(&propose(1, 3, batch("x"))));
    let effects: Vec<(u64, usize)> = told
        .iter()
        .map(|(id, message)| match message {
            ToEdge::Applied(applied) => (*id, applied.effects.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    let mut sorted = effects.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [(1, 2), (2, 1)],
        "the answer and the change, the change"
    );
}

#[test]
fn edges_that_are_told_the_same_are_sent_the_same_bytes() {
    let mut origin = Origin::with_two_edges();
    origin.attach(3, &edge(3));
    origin.apply(&propose(3, 1, Request::Register));
    let open = Request::Open {
        key: key(),
        kind: ObjectKind::Temporary,
        have: None,
    };
    origin.apply(&propose(3, 2, open));
    let outputs = origin.apply(&propose(1, 3, batch("x")));
    let others: Vec<&Bytes> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::ToEdge { id, message } if id.0 != 1 => Some(message),
            _ => None,
        })
        .collect();
    assert_eq!(others.len(), 2);
    assert_eq!(others[0].as_ptr(), others[1].as_ptr());
}

#[test]
fn who_attaches_is_told_who_leads_and_those_that_attach_twice_are_ended() {
    let mut origin = Origin::new();
    let leader = NodeId(NonZeroU64::MIN);
    origin.watchers.handle_leader(Some(leader));
    let told = to_edges(origin.attach(1, &edge(1)));
    assert!(matches!(told[0].1, ToEdge::Attached { known: false, .. }));
    assert_eq!(told[1].1, ToEdge::Leader(Some(leader)));
    let outputs = origin.attach(2, &edge(1));
    let superseded = Output::Refuse {
        id: AttachId(1),
        why: Refusal::Superseded,
    };
    assert_eq!(outputs[0], superseded);
    assert_eq!(origin.watchers.contacts(), [edge(1)]);
    origin.watchers.handle_leader(None);
    assert_eq!(to_edges(origin.outputs()), [(2, ToEdge::Leader(None))]);
    origin.watchers.leaving();
    assert_eq!(to_edges(origin.outputs()), [(2, ToEdge::Leaving)]);
    origin.watchers.handle_detach(AttachId(2));
    assert_eq!(origin.watchers.contacts(), []);
}

#[test]
fn an_edge_speaks_for_itself_and_for_nobody_else() {
    let refused = |command: Bytes| {
        let mut origin = Origin::with_two_edges();
        origin.says(1, ToOrigin::Propose(command));
        origin.outputs()
    };
    let own = propose(1, 3, batch("x")).encode();
    assert_eq!(refused(own.clone()), [Output::Propose(own)]);
    let why = [Output::Refuse {
        id: AttachId(1),
        why: Refusal::BadCommand,
    }];
    assert_eq!(refused(propose(2, 3, batch("x")).encode()), why);
    assert_eq!(refused(Command::EdgeLost(edge(2)).encode()), why);
    assert_eq!(refused(Bytes::from_static(b"nonsense")), why);
}

#[test]
fn who_does_not_say_who_it_is_is_refused() {
    let mut origin = Origin::new();
    origin.watchers.handle_attach(AttachId(1), origin.now);
    origin.says(1, ToOrigin::Barrier { id: 1 });
    let refused = |id| {
        [Output::Refuse {
            id: AttachId(id),
            why: Refusal::NotAttached,
        }]
    };
    assert_eq!(origin.outputs(), refused(1));
    origin.watchers.handle_attach(AttachId(2), origin.now);
    let at = origin.watchers.deadline().unwrap();
    origin.watchers.handle_timeout(at);
    assert_eq!(origin.outputs(), refused(2));
    assert_eq!(origin.watchers.deadline(), None);
}

#[test]
fn barriers_asked_together_share_a_read_index_that_is_asked_again() {
    let mut origin = Origin::with_two_edges();
    origin.says(1, ToOrigin::Barrier { id: 1 });
    assert_eq!(origin.outputs(), [Output::ReadIndex { ctx: 1 }]);
    origin.says(1, ToOrigin::Barrier { id: 2 });
    origin.says(2, ToOrigin::Barrier { id: 3 });
    assert_eq!(origin.outputs(), []);
    // It was dropped, since there was no leader: all share the next.
    let again = origin.watchers.deadline().unwrap();
    assert_eq!(again, origin.now + Duration::from_millis(500));
    origin.watchers.handle_timeout(again);
    assert_eq!(origin.outputs(), [Output::ReadIndex { ctx: 2 }]);
    let next = LogIndex(origin.ledger.applied().0 + 1);
    origin.watchers.handle_read_index(1, next, again);
    assert_eq!(origin.outputs(), [], "an answer to what was given up");
    origin.watchers.handle_read_index(2, next, again);
    assert_eq!(origin.outputs(), [], "not applied here");
    let told = to_edges(origin.apply(&propose(1, 3, batch("x"))));
    let barriers: Vec<(u64, ToEdge)> = told[2..].to_vec();
    assert!(matches!(
        told[..2],
        [(_, ToEdge::Applied(_)), (_, ToEdge::Applied(_))]
    ));
    assert_eq!(
        barriers,
        [
            (1, ToEdge::Barrier { id: 1 }),
            (1, ToEdge::Barrier { id: 2 }),
            (2, ToEdge::Barrier { id: 3 }),
        ],
        "behind the effects"
    );
}

#[test]
fn an_entry_without_effects_lets_a_barrier_pass() {
    let mut origin = Origin::with_two_edges();
    origin.says(1, ToOrigin::Barrier { id: 1 });
    let next = LogIndex(origin.ledger.applied().0 + 1);
    origin.watchers.handle_read_index(1, next, origin.now);
    origin.outputs();
    origin.ledger.skip(next);
    origin.watchers.handle_progress(&origin.ledger);
    assert_eq!(to_edges(origin.outputs()), [(1, ToEdge::Barrier { id: 1 })]);
}

#[test]
fn a_ledger_from_a_snapshot_ends_all_attachments() {
    let mut origin = Origin::with_two_edges();
    origin.watchers.handle_restored(&origin.ledger);
    let refused = |id| Output::Refuse {
        id: AttachId(id),
        why: Refusal::Restored,
    };
    assert_eq!(origin.outputs(), [refused(1), refused(2)]);
}

#[test]
fn who_comes_back_is_told_the_difference() {
    let mut origin = Origin::with_two_edges();
    let epoch = origin.ledger.sync(&key(), None).unwrap().epoch;
    origin.watchers.handle_detach(AttachId(2));
    origin.apply(&propose(1, 3, batch("x")));
    // The origin began anew, and cannot say how its state came about.
    origin.watchers = Watchers::new();
    origin.watchers.handle_attach(AttachId(9), origin.now);
    let mut back = hello(&edge(2), 1);
    if let ToOrigin::Attach { objects, .. } = &mut back {
        objects.push((key(), epoch, Version(1)));
    }
    origin.says(9, back);
    let told = to_edges(origin.outputs());
    let (_, ToEdge::Attached { known, objects, .. }) = &told[0] else {
        panic!("{told:?}");
    };
    assert!(known);
    assert!(!objects[0].1.reset);
    assert_eq!(objects[0].1.slots.len(), 1);
}

#[test]
fn an_edge_that_nobody_hears_of_is_proposed_to_be_lost_until_it_is() {
    let mut origin = Origin::with_two_edges();
    let start = origin.now;
    let second = Duration::from_secs(1);
    origin.leases.handle_contact(&[edge(1)], start + 3 * second);
    assert_eq!(origin.leases.deadline(), Some(start + 5 * second));
    assert_eq!(origin.leases.handle_timeout(start + 4 * second), []);
    let lost = Command::EdgeLost(edge(2));
    assert_eq!(
        origin.leases.handle_timeout(start + 5 * second),
        std::slice::from_ref(&lost)
    );
    assert_eq!(origin.leases.handle_timeout(start + 5 * second), []);
    assert_eq!(
        origin.leases.handle_timeout(start + 6 * second),
        std::slice::from_ref(&lost)
    );
    let told = to_edges(origin.apply(&lost));
    assert!(told.iter().any(|(id, message)| *id == 2
        && matches!(message, ToEdge::Applied(applied)
            if applied.effects == [Effect::EdgeLost { edge: edge(2) }])));
    assert_eq!(origin.leases.deadline(), Some(start + 8 * second));
}

#[test]
fn a_lock_that_nobody_gives_back_expires_and_a_new_leader_begins_anew() {
    let mut origin = Origin::with_two_edges();
    let start = origin.now;
    let lock = Request::Lock {
        key: key(),
        lease_ms: 2000,
    };
    origin.apply(&propose(1, 3, lock));
    let end = start + Duration::from_secs(2);
    assert_eq!(origin.leases.deadline(), Some(end));
    let mut next = Leases::default();
    next.handle_role(true, &origin.ledger, start + Duration::from_secs(1));
    assert_eq!(next.deadline(), Some(end + Duration::from_secs(1)));
    next.handle_role(false, &origin.ledger, start);
    assert_eq!(next.deadline(), None);
    let over = origin.leases.handle_timeout(end);
    assert!(matches!(over[..], [Command::LockExpired { .. }]));
    origin.apply(&over[0]);
    assert_eq!(origin.ledger.locks().count(), 0);
    assert_eq!(
        origin.leases.deadline(),
        Some(start + Duration::from_secs(5)),
        "the edges' leases"
    );
}
