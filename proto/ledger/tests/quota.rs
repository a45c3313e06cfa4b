//! What the clients of one instance may fill, and what becomes of what is empty.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that finds what it does not expect has failed"
)]

use bytes::Bytes;
use model::{
    AppInstance, AppName, EdgeId, EdgeLife, Epoch, InstanceName, LogIndex, ObjectKey, ObjectKind,
    ObjectName, Policy, SessionId, SlotName, SlotOp, SlotValue, Version, VhostName,
};
use selvage_ledger::effect::Effect;
use selvage_ledger::limits::{
    GRAVES_MAX, INSTANCE_BYTES_MAX, INSTANCE_OBJECTS_MAX, VALUE_BYTES_MAX,
};
use selvage_ledger::{Answer, Command, Ledger, Proposal, Request};

/// One edge that speaks in its own session.
struct Stage {
    ledger: Ledger,
    seq: u64,
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self {
            ledger: Ledger::new(),
            seq: 0,
        };
        assert_eq!(stage.ask(Request::Register), Answer::Done);
        stage
    }

    fn ask(&mut self, request: Request) -> Answer {
        self.seq += 1;
        let command = Command::Propose(Proposal {
            session: SessionId(1),
            seq: self.seq,
            edge: edge(),
            durable: false,
            trace: Bytes::new(),
            request,
        });
        let index = LogIndex(self.ledger.applied().0 + 1);
        match self.ledger.apply(index, &command).effects.swap_remove(0) {
            Effect::Answer { answer, .. } => answer,
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, key: &ObjectKey, kind: ObjectKind) -> Answer {
        self.ask(Request::Open {
            key: key.clone(),
            kind,
            have: None,
        })
    }

    fn close(&mut self, key: &ObjectKey) {
        let close = Request::Close { key: key.clone() };
        assert_eq!(self.ask(close), Answer::Done);
    }

    fn write(&mut self, key: &ObjectKey, op: SlotOp) -> Answer {
        self.ask(Request::Batch {
            key: key.clone(),
            epoch: Epoch(0),
            base: Version(0),
            policy: Policy::LastWriterWins,
            ops: vec![op],
        })
    }

    /// Where a persistent object begins that is opened now.
    fn begins(&mut self, key: &ObjectKey) -> (Epoch, Version) {
        match self.open(key, ObjectKind::Persistent) {
            Answer::Opened(sync) => (sync.epoch, sync.version),
            other => panic!("{other:?}"),
        }
    }
}

fn edge() -> EdgeLife {
    EdgeLife {
        edge: EdgeId::new("edge-0").unwrap(),
        incarnation: 1,
    }
}

fn key(app: &str, name: &str) -> ObjectKey {
    ObjectKey {
        at: AppInstance {
            vhost: VhostName::default_vhost(),
            app: AppName::new(app).unwrap(),
            instance: InstanceName::default_instance(),
        },
        name: ObjectName::new(name).unwrap(),
    }
}

fn set(slot: &str, bytes: usize) -> SlotOp {
    SlotOp::Set {
        slot: SlotName::new(slot).unwrap(),
        value: SlotValue(Bytes::from(vec![0; bytes])),
    }
}

#[test]
fn an_instance_that_has_its_objects_gets_no_more_and_others_do() {
    let mut stage = Stage::new();
    for number in 0..INSTANCE_OBJECTS_MAX {
        let key = key("full", &number.to_string());
        let answer = stage.open(&key, ObjectKind::Temporary);
        assert!(matches!(answer, Answer::Opened(_)));
    }
    let one_more = key("full", "more");
    let limit = "objects of the instance";
    let answer = stage.open(&one_more, ObjectKind::Persistent);
    assert_eq!(answer, Answer::Full { limit });
    let other = stage.open(&key("other", "one"), ObjectKind::Persistent);
    assert!(matches!(other, Answer::Opened(_)));
    stage.close(&key("full", "7"));
    let answer = stage.open(&one_more, ObjectKind::Persistent);
    assert!(matches!(answer, Answer::Opened(_)));
    let again = Ledger::restore(stage.ledger.snapshot()).unwrap();
    assert!(
        again == stage.ledger,
        "who comes by a snapshot counts alike"
    );
}

#[test]
fn an_instance_that_has_its_bytes_gets_no_more_and_others_do() {
    let mut stage = Stage::new();
    let per_object = 15;
    let objects = INSTANCE_BYTES_MAX / VALUE_BYTES_MAX / per_object + 1;
    let mut last = Answer::Done;
    for number in 0..objects {
        let key = key("full", &number.to_string());
        stage.open(&key, ObjectKind::Temporary);
        for slot in 0..per_object {
            last = stage.write(&key, set(&slot.to_string(), VALUE_BYTES_MAX));
        }
    }
    let limit = "bytes of the instance";
    assert_eq!(last, Answer::Full { limit });
    let other = key("other", "one");
    stage.open(&other, ObjectKind::Temporary);
    let answer = stage.write(&other, set("a", VALUE_BYTES_MAX));
    assert!(matches!(answer, Answer::Written { .. }));
    // What goes makes room.
    let full = key("full", "0");
    stage.write(&full, SlotOp::Clear);
    let answer = stage.write(&full, set("a", VALUE_BYTES_MAX));
    assert!(matches!(answer, Answer::Written { .. }));
    stage.close(&full);
    stage.open(&full, ObjectKind::Temporary);
    let again = Ledger::restore(stage.ledger.snapshot()).unwrap();
    assert!(again == stage.ledger);
}

#[test]
fn a_persistent_object_that_is_empty_goes_with_its_last_edge_and_begins_above_it() {
    let mut stage = Stage::new();
    let (empty, kept) = (key("app", "empty"), key("app", "kept"));
    let first = stage.begins(&empty);
    stage.begins(&kept);
    stage.write(&kept, set("a", 1));
    stage.write(&empty, set("a", 1));
    stage.write(&empty, SlotOp::Clear);
    stage.close(&kept);
    stage.close(&empty);
    assert!(stage.ledger.sync(&kept, None).is_some());
    assert!(stage.ledger.sync(&empty, None).is_none());
    let second = stage.begins(&empty);
    assert!(second.0 > first.0, "another incarnation");
    assert!(second.1 > Version(first.1.0 + 2), "above all that was told");
    stage.close(&empty);
    // Nobody remembers the grave of each, and still nothing begins below one.
    for number in 0..=GRAVES_MAX {
        let key = key("app", &number.to_string());
        stage.open(&key, ObjectKind::Temporary);
        stage.close(&key);
    }
    let again = Ledger::restore(stage.ledger.snapshot()).unwrap();
    assert!(again == stage.ledger);
    let third = stage.begins(&empty);
    assert!(third.1 > second.1, "{third:?}");
}
