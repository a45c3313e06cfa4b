//! Clients of one object at different edges see one history, and what is kept is kept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::io::Write;
use std::time::Duration;

use model::ObjectKind;
use rustix::process::Signal;
use selvage_cluster_tests::judge::{self, Answer, Recorder};
use selvage_cluster_tests::lab::Cluster;
use selvage_cluster_tests::lab::cluster::Node;
use selvage_cluster_tests::lab::objects::{Member, is_made, remove, set, until_level};
use selvage_cluster_tests::lab::raw::Raw;
use selvage_cluster_tests::lab::raw::amf::Amf;
use selvage_cluster_tests::lab::raw::object::Batch;
use selvage_cluster_tests::lab::{pace, until};

/// What an edge is told besides.
fn config(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_clients_at_two_edges_who_write_at_once_see_one_history() {
    let cluster = Cluster::start(3, 2);
    let recorder = Recorder::new("four clients", 0);
    let mut writers = Vec::new();
    for client in 0..4_u32 {
        let edge = cluster.edges[client as usize % 2].addr;
        let member = Member::join(edge, "board", client, &recorder)
            .await
            .unwrap();
        writers.push(tokio::spawn(async move {
            let mut refused = 0;
            for round in 0..60 {
                let value = format!("{client}.{round}");
                let own = format!("own{client}");
                let ops = match round % 4 {
                    0 => vec![set("all", &value)],
                    1 => vec![set(&own, &value), set("all", &value)],
                    2 => vec![remove("all"), set(&own, &value)],
                    _ => vec![set(&own, &value)],
                };
                let wanted = ops.len();
                let answer = member.write(ops).await;
                let Answer::Written { refused: no, .. } = answer else {
                    panic!("{value} of client {client} became {answer:?}");
                };
                refused += no.len();
                assert!(
                    no.is_empty() || round % 4 != 3,
                    "nobody else writes {own}, and {value} was refused: {no:?}"
                );
                assert!(no.len() < wanted || wanted == 1, "{own} was refused too");
            }
            (member, refused)
        }));
    }
    let mut members = Vec::new();
    let mut refused = 0;
    for writer in writers {
        let (member, count) = writer.await.expect("no fault");
        refused += count;
        members.push(member);
    }
    let all: Vec<&Member> = members.iter().collect();
    until_level(&all).await;
    let slots = members[0].look(|seen| seen.slots.clone());
    for member in &members {
        assert_eq!(member.look(|seen| seen.slots.clone()), slots);
    }
    println!("240 writes, {refused} steps of them refused");
    judge::demand(&recorder.history());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_write_a_slot_at_once_one_is_refused_and_told_the_others_value() {
    let cluster = Cluster::start(3, 2);
    let recorder = Recorder::new("race", 0);
    let [a, b] = race(&cluster, &recorder).await;
    let mut races = 0;
    for round in 0..40 {
        until_level(&[&a, &b]).await;
        let values = [format!("a{round}"), format!("b{round}")];
        let answers = tokio::join!(a.set("slot", &values[0]), b.set("slot", &values[1]));
        match (&answers.0, &answers.1) {
            (one, two) if is_made(one) && is_made(two) => {}
            (Answer::Written { refused, .. }, winner) if is_made(winner) => {
                assert_eq!(refused[&0].as_deref(), Some(&*values[1]), "{answers:?}");
                races += 1;
            }
            (winner, Answer::Written { refused, .. }) if is_made(winner) => {
                assert_eq!(refused[&0].as_deref(), Some(&*values[0]), "{answers:?}");
                races += 1;
            }
            other => panic!("round {round}: {other:?}"),
        }
    }
    println!("{races} of 40 rounds were races, and each had one winner");
    assert!(races > 0, "nobody was ever refused");
    judge::demand(&recorder.history());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_application_where_the_last_writer_wins_nobody_is_refused() {
    let file = config("[objects]\nlast_writer_wins = ['live']\n");
    let path = file.path().display().to_string();
    let cluster = Cluster::start_with(3, 2, &["--config", &path]);
    let recorder = Recorder::new("last writer wins", 0);
    let [a, b] = race(&cluster, &recorder).await;
    for round in 0..40 {
        let values = [format!("a{round}"), format!("b{round}")];
        let answers = tokio::join!(a.set("slot", &values[0]), b.set("slot", &values[1]));
        assert!(is_made(&answers.0) && is_made(&answers.1), "{answers:?}");
    }
    until_level(&[&a, &b]).await;
    assert_eq!(a.slot("slot"), b.slot("slot"));
}

/// Two clients at two edges.
async fn race(cluster: &Cluster, recorder: &Recorder) -> [Member; 2] {
    let a = Member::join(cluster.edges[0].addr, "raced", 0, recorder);
    let b = Member::join(cluster.edges[1].addr, "raced", 1, recorder);
    let (a, b) = tokio::join!(a, b);
    [a.unwrap(), b.unwrap()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persistent_objects_survive_the_death_of_all_origins_at_once() {
    let mut cluster = Cluster::start(3, 2);
    let recorder = Recorder::new("all origins die", 0);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let a = Member::join_kept(edges[0], "kept", 0, &recorder)
        .await
        .unwrap();
    for round in 0..20 {
        let slot = format!("s{}", round % 7);
        assert!(is_made(&a.set(&slot, &format!("{round}")).await));
    }
    assert!(is_made(&a.write(vec![remove("s3")]).await));
    let (version, slots) = a.look(|seen| (seen.version, seen.slots.clone()));

    for origin in &mut cluster.origins {
        origin.process.signal(Signal::KILL);
    }
    for origin in &mut cluster.origins {
        origin.process.kill();
    }
    for origin in &mut cluster.origins {
        origin.start_again();
    }

    let fresh = Node::edge(2, &addrs(&cluster), &[]);
    for (client, edge) in [edges[1], fresh.addr].into_iter().enumerate() {
        let client = u32::try_from(client).unwrap() + 1;
        let late = until_joined(edge, "kept", client, &recorder).await;
        assert_eq!(
            late.look(|seen| (seen.version, seen.slots.clone())),
            (version, slots.clone())
        );
    }
    assert_eq!(a.over(), None, "the client's connection was closed");
    until_made(&a, "s0", "after").await;
    judge::demand(&recorder.history());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_origin_by_itself_keeps_persistent_objects_over_a_restart() {
    let mut cluster = Cluster::start(1, 1);
    let recorder = Recorder::new("one origin", 0);
    let edge = cluster.edges[0].addr;
    let a = Member::join_kept(edge, "kept", 0, &recorder).await.unwrap();
    for round in 0..10 {
        assert!(is_made(&a.set("slot", &format!("{round}")).await));
    }
    let (version, slots) = a.look(|seen| (seen.version, seen.slots.clone()));
    cluster.origins[0].restart();
    let fresh = Node::edge(1, &addrs(&cluster), &[]);
    let late = until_joined(fresh.addr, "kept", 1, &recorder).await;
    assert_eq!(
        late.look(|seen| (seen.version, seen.slots.clone())),
        (version, slots)
    );
    until_made(&a, "slot", "after").await;
    judge::demand(&recorder.history());
}

/// Where the origins of a cluster are.
fn addrs(cluster: &Cluster) -> Vec<std::net::SocketAddr> {
    cluster.origins.iter().map(|origin| origin.addr).collect()
}

/// Uses a persistent object as soon as it can be used.
async fn until_joined(
    edge: std::net::SocketAddr,
    name: &str,
    client: u32,
    recorder: &Recorder,
) -> Member {
    let mut why = String::new();
    for _ in 0..6 {
        match Member::join_kept(edge, name, client, recorder).await {
            Ok(member) => return member,
            Err(error) => why = error.to_string(),
        }
    }
    panic!("client {client} cannot use {name}: {why}")
}

/// Writes until it succeeds; each time another value.
async fn until_made(member: &Member, slot: &str, value: &str) {
    let mut answers = Vec::new();
    for round in 0..8 {
        let answer = member.set(slot, &format!("{value}.{round}")).await;
        let made = is_made(&answer);
        answers.push(answer);
        if made {
            return;
        }
    }
    panic!("no write was made: {answers:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_temporary_object_lives_as_long_as_anybody_anywhere_uses_it() {
    let file = config("[objects]\nlinger = '200ms'\n");
    let path = file.path().display().to_string();
    let cluster = Cluster::start_with(3, 2, &["--config", &path]);
    let recorder = Recorder::new("temporary", 0);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let a = Member::join(edges[0], "room", 0, &recorder).await.unwrap();
    let b = Member::join(edges[1], "room", 1, &recorder).await.unwrap();
    for round in 0..5 {
        assert!(is_made(&a.set("slot", &format!("{round}")).await));
    }
    let version = a.version();
    a.leave().await;
    // Much longer than an edge keeps what nobody uses.
    for _ in 0..3 {
        tokio::task::spawn_blocking(|| pace(Duration::from_millis(500)))
            .await
            .unwrap();
        let c = Member::join(edges[0], "room", 2, &recorder).await.unwrap();
        assert_eq!(
            (c.version(), c.slot("slot").as_deref()),
            (version, Some("4"))
        );
        c.leave().await;
    }
    assert_eq!(b.version(), version);
    judge::demand(&recorder.history());
    b.leave().await;

    let recorder = Recorder::new("temporary, anew", 0);
    let mut seen = Vec::new();
    for edge in edges.into_iter().cycle().take(20) {
        tokio::task::spawn_blocking(|| pace(Duration::from_millis(500)))
            .await
            .unwrap();
        let d = Member::join(edge, "room", 3, &recorder).await.unwrap();
        let (now, slots) = d.look(|seen| (seen.version, seen.slots.clone()));
        d.leave().await;
        if slots.is_empty() {
            println!("the object ended at version {version} and began anew at {now}");
            assert!(now > version, "version {now} came after {version}");
            return;
        }
        seen.push((now, slots));
    }
    panic!("the object is still there: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_dies_takes_its_interest_in_temporary_objects_with_it() {
    let file = config("[objects]\nlinger = '200ms'\n");
    let path = file.path().display().to_string();
    let mut cluster = Cluster::start_with(3, 2, &["--config", &path]);
    let recorder = Recorder::new("dead edge", 0);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let a = Member::join(edges[0], "room", 0, &recorder).await.unwrap();
    assert!(is_made(&a.set("slot", "1").await));
    let version = a.version();
    cluster.edges[0].process.kill();
    until("the client notices", Duration::from_secs(10), || {
        a.over().is_some()
    });
    let recorder = Recorder::new("dead edge, anew", 0);
    for round in 0..20 {
        // The edge counts as lost five seconds after it was last heard of.
        tokio::task::spawn_blocking(|| pace(Duration::from_secs(1)))
            .await
            .unwrap();
        let b = Member::join(edges[1], "room", 1, &recorder).await.unwrap();
        let (now, slots) = b.look(|seen| (seen.version, seen.slots.clone()));
        b.leave().await;
        if slots.is_empty() {
            println!("gone in round {round}: version {version}, then {now}");
            assert!(now > version);
            return;
        }
    }
    panic!("the object of a dead edge is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_lets_others_wait_until_it_is_given_back_or_runs_out() {
    let cluster = Cluster::start(3, 2);
    let recorder = Recorder::new("lock", 0);
    let a = Member::join(cluster.edges[0].addr, "locked", 0, &recorder)
        .await
        .unwrap();
    let b = Member::join(cluster.edges[1].addr, "locked", 1, &recorder)
        .await
        .unwrap();
    assert!(is_made(&b.set("slot", "before").await));
    a.lock(60_000).await.unwrap();
    let (waiting, made) = tokio::join!(b.set("slot", "waits"), async {
        let made = a.write(vec![set("other", "1"), set("third", "1")]).await;
        let before = b.version();
        tokio::task::spawn_blocking(|| pace(Duration::from_millis(500)))
            .await
            .unwrap();
        assert_eq!(b.slot("slot").as_deref(), Some("before"), "b did not wait");
        assert!(b.version() >= before);
        a.unlock().await.unwrap();
        made
    });
    assert!(is_made(&made), "{made:?}");
    assert!(is_made(&waiting), "{waiting:?}");

    // A lease that runs out frees those who wait.
    a.lock(1_000).await.unwrap();
    let since = std::time::Instant::now();
    let waited = b.set("slot", "waits for the lease").await;
    assert!(
        is_made(&waited),
        "{waited:?} after {:?} for a lease of a second",
        since.elapsed()
    );
    let waited = since.elapsed();
    println!("a lease of 1 s held others up for {waited:?}");
    assert!(waited > Duration::from_millis(300), "{waited:?}");
    judge::demand(&recorder.history());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_reach_everybody_the_sender_too_once_and_in_one_order() {
    let cluster = Cluster::start(3, 2);
    let recorder = Recorder::new("messages", 0);
    let mut senders = Vec::new();
    let quiet = Member::join(cluster.edges[1].addr, "said", 9, &recorder)
        .await
        .unwrap();
    for client in 0..4_u32 {
        let edge = cluster.edges[client as usize % 2].addr;
        let member = Member::join(edge, "said", client, &recorder).await.unwrap();
        senders.push(member);
    }
    let senders: Vec<_> = senders
        .into_iter()
        .map(|member| {
            tokio::spawn(async move {
                for round in 0..50 {
                    let id = format!("{}.{round}", member.client());
                    assert_eq!(member.send(&id).await, Answer::Done, "{id}");
                }
                member
            })
        })
        .collect();
    let mut members = Vec::new();
    for sender in senders {
        members.push(sender.await.expect("no fault"));
    }
    members.push(quiet);
    until("all messages are there", Duration::from_secs(20), || {
        members
            .iter()
            .all(|member| member.look(|seen| seen.messages.len()) == 200)
    });
    let first = members[0].look(|seen| seen.messages.clone());
    for member in &members {
        assert_eq!(member.look(|seen| seen.messages.clone()), first);
    }
    judge::demand(&recorder.history());
}

#[test]
fn a_client_that_comes_back_at_another_edge_is_told_what_it_missed_and_never_less() {
    let cluster = Cluster::start(3, 2);
    let [one, two] = [cluster.edges[0].addr, cluster.edges[1].addr];
    let mut writer = Raw::connect(one, "live").unwrap();
    let welcome = writer
        .ask(&Batch::new("back", 0).kept().use_it())
        .expect("the object can be used");
    let mut version = welcome.version;
    for round in 0..50_u32 {
        let slot = format!("s{}", round % 5);
        let told = writer
            .ask(
                &Batch::new("back", version)
                    .kept()
                    .set(&slot, &Amf::Number(round.into())),
            )
            .unwrap();
        assert_eq!(told.slots(5), [slot], "{told:?}");
        assert_eq!(told.version, version + 1, "{told:?}");
        version = told.version;
        if round % 10 == 9 {
            // At the other edge, at once, with a version that is three behind.
            let mut back = Raw::connect(two, "live").unwrap();
            let told = back
                .ask(&Batch::new("back", version - 3).kept().use_it())
                .unwrap();
            assert_eq!(told.version, version, "{told:?}");
            assert!(told.has(11), "{told:?}");
            assert!(!told.has(8), "only what is new was asked for: {told:?}");
            assert_eq!(told.slots(4).len(), 3, "{told:?}");
            // Who claims to know more than there is gets all of it.
            let mut ahead = Raw::connect(two, "live").unwrap();
            let told = ahead
                .ask(&Batch::new("back", version + 100).kept().use_it())
                .unwrap();
            assert!(told.has(8) && told.version >= version, "{told:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_whose_kind_differs_is_refused_wherever_it_is_asked_for() {
    let cluster = Cluster::start(3, 2);
    let recorder = Recorder::new("kinds", 0);
    let edges = [cluster.edges[0].addr, cluster.edges[1].addr];
    let _a = Member::join(edges[0], "kind", 0, &recorder).await.unwrap();
    for edge in edges {
        let refused = Member::join_kept(edge, "kind", 1, &recorder).await;
        let text = refused.err().map(|error| error.to_string());
        assert!(
            text.as_deref()
                .is_some_and(|text| text.contains("SharedObject.BadPersistence")),
            "{text:?}"
        );
    }
    let b = Member::join(edges[1], "kind", 2, &recorder).await.unwrap();
    let c = b
        .again(edges[0], ObjectKind::Temporary, &recorder)
        .await
        .unwrap();
    assert_eq!(b.version(), c.version());
    // Nor for a client that says the wrong kind only later.
    let mut raw = Raw::connect(edges[0], "live").unwrap();
    let answer = raw.ask(&Batch::new("kind", 0).kept().use_it()).unwrap();
    assert_eq!(
        answer.status().as_deref(),
        Some("SharedObject.BadPersistence"),
        "{answer:?}"
    );
}
