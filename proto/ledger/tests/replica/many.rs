//! What is too much for one message.

use std::time::Duration;

use bytes::Bytes;
use model::object::ObjectAsk;
use model::{ObjectKey, ObjectKind, ObjectName, Policy, SessionId, SlotOp, SlotValue, Version};
use selvage_ledger::limits::{MESSAGE_BYTES_MAX, PART_BYTES};
use selvage_ledger::replica::{Access, Subscriber, SubscriberId};

use crate::lab::{Lab, at, slot};

/// Objects of one client with the longest names there are.
const PER_CLIENT: usize = 250;

fn object(client: u64, number: usize) -> ObjectKey {
    let name = format!("{client}-{number}-");
    let rest = "x".repeat(ObjectName::MAX_LEN - name.len());
    ObjectKey {
        at: at(),
        name: ObjectName::new(&(name + &rest)).unwrap(),
    }
}

fn ask(lab: &mut Lab, client: u64, number: usize, ask: ObjectAsk) {
    let now = lab.now;
    lab.edges[0].replica.handle_ask(
        Subscriber {
            id: SubscriberId(client),
            session: SessionId(0xc11e_0000 + u128::from(client)),
            durable: false,
        },
        object(client, number),
        ObjectKind::Temporary,
        Version(0),
        Access::FULL,
        Policy::LastWriterWins,
        vec![ask],
        Bytes::new(),
        now,
    );
}

fn with_clients(clients: u64, objects: usize) -> Lab {
    let mut lab = Lab::attached(3, 2, 1);
    for client in 1..=clients {
        for number in 0..objects {
            ask(&mut lab, client, number, ObjectAsk::Use);
        }
        lab.run();
    }
    lab.updates(0);
    lab
}

fn bytes_of_attach(lab: &Lab) -> Vec<usize> {
    let link = lab.edges[0].link.as_ref().unwrap();
    link.up
        .iter()
        .map(|message| message.encode().len())
        .collect()
}

#[test]
fn an_edge_that_holds_more_than_a_message_attaches_in_parts() {
    // More than one part of names.
    let clients = u64::try_from(PART_BYTES / ObjectName::MAX_LEN / PER_CLIENT).unwrap() + 1;
    let mut lab = with_clients(clients, PER_CLIENT);
    lab.attach(0, 1);
    lab.updates(0);
    let sizes = bytes_of_attach(&lab);
    assert!(sizes.len() > 1, "{sizes:?}");
    assert!(
        sizes.iter().all(|size| *size < MESSAGE_BYTES_MAX),
        "{sizes:?}"
    );
    // One that remembers nothing tells the state of each.
    lab.origins[1].watchers = selvage_ledger::Watchers::new();
    lab.attach(0, 1);
    lab.set_leader(1, true);
    lab.run();
    assert_eq!(lab.edges[0].refusals, []);
    let before = lab.log.len();
    ask(&mut lab, 1, 7, ObjectAsk::Write(vec![large(1)]));
    lab.run();
    assert_eq!(lab.log.len(), before + 1, "nothing was opened anew");
    assert_eq!(
        lab.edges[0].replica.held(&object(1, 7)).unwrap().1,
        Version(2)
    );
}

fn large(number: usize) -> SlotOp {
    SlotOp::Set {
        slot: slot(&number.to_string()),
        value: SlotValue(Bytes::from(vec![0; 60_000])),
    }
}

#[test]
fn objects_that_changed_by_more_than_a_message_come_in_parts() {
    let mut lab = with_clients(1, 20);
    for number in 0..20 {
        for n in 0..10 {
            ask(&mut lab, 1, number, ObjectAsk::Write(vec![large(n)]));
        }
    }
    // The edge's answers are lost, so it knows nothing of all that.
    while lab.step_up(0) {}
    lab.detach(0);
    lab.run();
    lab.origins[1].watchers = selvage_ledger::Watchers::new();
    lab.set_leader(1, true);
    lab.attach(0, 1);
    while lab.step_up(0) {}
    let link = lab.edges[0].link.as_ref().unwrap();
    let sizes: Vec<usize> = link.down.iter().map(Bytes::len).collect();
    assert!(sizes.iter().sum::<usize>() > PART_BYTES, "{sizes:?}");
    assert!(
        sizes.len() > 3,
        "a part, the last, and who leads: {sizes:?}"
    );
    assert!(
        sizes.iter().all(|size| *size < MESSAGE_BYTES_MAX),
        "{sizes:?}"
    );
    lab.pass(Duration::from_secs(3));
    assert_eq!(lab.edges[0].refusals, []);
    for number in 0..20 {
        let truth = lab.truth.sync(&object(1, number), None).unwrap();
        let held = lab.edges[0].replica.held(&object(1, number));
        assert_eq!(held, Some((truth.epoch, truth.version)));
    }
}

#[test]
fn what_nobody_uses_is_dropped_while_no_origin_is_in_reach_and_closed_later() {
    let mut lab = with_clients(4, 40);
    lab.detach(0);
    let now = lab.now;
    for client in 1..=3 {
        lab.edges[0].replica.handle_left(SubscriberId(client), now);
    }
    lab.pass(Duration::from_secs(6));
    assert_eq!(lab.edges[0].replica.held(&object(1, 0)), None);
    // One of them is wanted again.
    ask(&mut lab, 4, 0, ObjectAsk::Release);
    ask(&mut lab, 4, 0, ObjectAsk::Use);
    lab.attach(0, 1);
    lab.updates(0);
    assert_eq!(
        bytes_of_attach(&lab).len(),
        1,
        "they are not said to be held"
    );
    lab.pass(Duration::from_secs(1));
    let life = lab.edges[0].replica.life().clone();
    assert_eq!(lab.truth.objects_of(&life).count(), 40);
    assert!(lab.edges[0].replica.held(&object(4, 0)).is_some());
}
