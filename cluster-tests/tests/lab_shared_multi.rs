//! One client of several edges: when an edge dies its writes are made once, and it sees one
//! history.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amf::Value;
use client::{
    MultiConnection, MultiEvent, MultiOptions, Options, ServerState, SetupStatus, SoOutcome,
    SyncCode,
};
use selvage_cluster_tests::judge::Recorder;
use selvage_cluster_tests::lab::objects::Member;
use selvage_cluster_tests::lab::{Cluster, SOON, until, until_async};

/// What a facade was told.
#[derive(Debug, Default)]
struct Told {
    /// Version, code, slot and value of each change.
    changes: Vec<(u32, SyncCode, String, Option<Value>)>,
    primary: Option<usize>,
    setup: Option<SetupStatus>,
    messages: Vec<String>,
}

/// A facade, and what it is told while it is there.
async fn facade(urls: &[String]) -> (MultiConnection, Arc<Mutex<Told>>) {
    facade_with(urls, MultiOptions::default()).await
}

async fn facade_with(
    urls: &[String],
    options: MultiOptions,
) -> (MultiConnection, Arc<Mutex<Told>>) {
    let (mc, mut events) = MultiConnection::with(options);
    let told: Arc<Mutex<Told>> = Arc::default();
    let kept = Arc::clone(&told);
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let mut told = kept.lock().unwrap();
            match event {
                MultiEvent::Sync { event, .. } => {
                    for change in event.list {
                        let line = (event.version, change.code, change.name, change.value);
                        told.changes.push(line);
                    }
                }
                MultiEvent::Server {
                    server,
                    state: ServerState::Primary,
                } => told.primary = Some(server),
                MultiEvent::OnStatus(status) => told.setup = Some(status),
                MultiEvent::Message { args, .. } => {
                    let text = args.first().and_then(Value::as_str).unwrap_or_default();
                    told.messages.push(text.to_owned());
                }
                MultiEvent::Server { .. }
                | MultiEvent::SoStatus { .. }
                | MultiEvent::NsStatus { .. }
                | MultiEvent::NetStatus { .. }
                | MultiEvent::Call { .. } => {}
            }
        }
    });
    mc.connect(urls).await.unwrap();
    until_async("the setup is over", SOON, || {
        told.lock().unwrap().setup.is_some()
    })
    .await;
    (mc, told)
}

/// How long clients may stay at an edge that drains: far longer than one that leaves by itself.
const GRACE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_facade_that_follows_leaves_an_edge_that_drains_and_goes_on_writing() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("edge.toml");
    std::fs::write(&config, format!("drain_grace = \"{}s\"\n", GRACE.as_secs())).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let mut cluster = Cluster::start_with(1, 2, &args);
    let edges = cluster.edges.iter();
    let urls: Vec<_> = edges
        .map(|edge| format!("rtmp://{}/live", edge.addr))
        .collect();
    let options = MultiOptions {
        connect: Options::player().following(),
        ..MultiOptions::default()
    };
    let (mc, told) = facade_with(&urls, options).await;
    mc.shared_object_setup("faced", false).await.unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let (writer, counted, stop) = (mc.clone(), Arc::clone(&made), Arc::clone(&over));
    let writer = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            let round = counted.load(Ordering::Relaxed).to_string();
            let asked = Instant::now();
            let outcome = writer.set_so_value("faced.data.slot", round.as_str().into());
            let outcome = outcome.await.expect("the facade is there");
            assert!(matches!(outcome, SoOutcome::Success { .. }), "{outcome:?}");
            longest = longest.max(asked.elapsed());
            counted.fetch_add(1, Ordering::Relaxed);
        }
        longest
    });
    until_async("writes are made", SOON, || {
        made.load(Ordering::Relaxed) > 50
    })
    .await;
    let primary = told.lock().unwrap().primary.expect("a primary");
    let edge = &mut cluster.edges[primary];
    let asked = Instant::now();
    edge.process.terminate();
    until_async(
        "the edge has ended, long before the grace is over",
        SOON,
        || edge.process.ended().is_some(),
    )
    .await;
    println!("{} ended after {:?}", edge.id, asked.elapsed());
    let then = made.load(Ordering::Relaxed);
    until_async("writes are made at the other", SOON, || {
        made.load(Ordering::Relaxed) > then + 50
    })
    .await;
    assert_eq!(told.lock().unwrap().primary, Some(1 - primary));
    over.store(true, Ordering::Relaxed);
    let longest = writer.await.expect("every write is made");
    println!("the longest write took {longest:?}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_its_primary_edge_is_killed_every_write_of_a_facade_is_made_once() {
    let mut cluster = Cluster::start(3, 3);
    let urls: Vec<String> = (0..2)
        .map(|edge| format!("rtmp://{}/live", cluster.edges[edge].addr))
        .collect();
    let (mc, told) = facade(&urls).await;
    let setup = told.lock().unwrap().setup.clone().unwrap();
    assert!(setup.complete, "{setup:?}");
    mc.shared_object_setup("faced", false).await.unwrap();
    // Somebody else, at an edge that nothing happens to.
    let recorder = Recorder::new("facade", 0);
    let witness = Member::join(cluster.edges[2].addr, "faced", 9, &recorder)
        .await
        .unwrap();

    // Eight slots, each with its own row of writes.
    let made = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..8)
        .map(|slot| {
            let (mc, made) = (mc.clone(), Arc::clone(&made));
            tokio::spawn(async move {
                let mut outcomes = Vec::new();
                for round in 0..120 {
                    let value = format!("{slot}.{round}");
                    let path = format!("faced.data.s{slot}");
                    let outcome = mc.set_so_value(&path, value.as_str().into()).await;
                    made.fetch_add(1, Ordering::Relaxed);
                    outcomes.push((value, outcome.expect("the facade is there")));
                }
                let said = mc
                    .so_send("faced", "said", [format!("{slot}").into()])
                    .await;
                (outcomes, said.expect("the facade is there"))
            })
        })
        .collect();
    until_async("writes are made", SOON, || {
        made.load(Ordering::Relaxed) > 200
    })
    .await;
    let primary = told.lock().unwrap().primary.expect("a primary");
    let killed = Instant::now();
    cluster.edges[primary].process.kill();
    until_async("the other edge takes over", SOON, || {
        told.lock().unwrap().primary != Some(primary)
    })
    .await;
    println!("edge-{primary} was replaced after {:?}", killed.elapsed());

    let mut outcomes = Vec::new();
    for writer in writers {
        let (writes, said) = writer.await.expect("no fault");
        assert!(matches!(said, SoOutcome::Success { .. }), "{said:?}");
        outcomes.push(writes);
    }
    for (slot, writes) in outcomes.iter().enumerate() {
        let wrong: Vec<_> = writes
            .iter()
            .filter(|(_, outcome)| !matches!(outcome, SoOutcome::Success { .. }))
            .collect();
        // Nobody else writes, and one edge is left.
        assert!(wrong.is_empty(), "slot s{slot}: {wrong:?}");
    }
    tokio::task::block_in_place(|| {
        until("the witness has seen all of it", SOON, || {
            (0..8).all(|slot| {
                let last = format!("{slot}.119");
                witness.slot(&format!("s{slot}")) == Some(last)
            })
        });
        until("the witness has heard what was said", SOON, || {
            witness.look(|seen| seen.messages.len()) >= 8
        });
    });
    // As the witness saw it each value came once, and in the order of the writes.
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let events = witness.look(|seen| seen.events.clone());
    for (_, _, events) in &events {
        for event in events {
            if let selvage_cluster_tests::judge::Event::Set { slot, value, .. } = event {
                let round = value.split('.').nth(1).and_then(|round| round.parse().ok());
                seen.entry(slot.clone()).or_default().push(round.unwrap());
            }
        }
    }
    for (slot, rounds) in &seen {
        assert!(
            rounds.windows(2).all(|two| two[0] < two[1]),
            "{slot} was told to the witness as {rounds:?}"
        );
        assert_eq!(rounds.len(), 120, "of {slot} the witness saw {rounds:?}");
    }
    let mut said = witness.look(|seen| seen.messages.clone());
    said.sort();
    said.dedup();
    assert_eq!(said.len(), 8, "{said:?}");
    assert_eq!(
        witness.look(|seen| seen.messages.len()),
        8,
        "a message came twice"
    );

    // As the facade was told, no version and no write came twice or went back.
    let told = told.lock().unwrap();
    let mut last = 0;
    let mut successes: BTreeMap<String, usize> = BTreeMap::new();
    for (version, code, slot, _) in &told.changes {
        assert!(*version >= last, "{version} after {last}");
        last = *version;
        *successes.entry(slot.clone()).or_default() += usize::from(*code == SyncCode::Success);
    }
    for (slot, count) in successes.iter().filter(|(slot, _)| !slot.is_empty()) {
        assert_eq!(*count, 120, "successes of {slot}");
    }
    let mut heard = told.messages.clone();
    heard.sort();
    assert_eq!(heard, (0..8).map(|n| n.to_string()).collect::<Vec<_>>());
    println!("960 writes over the death of an edge, each made once, at version {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_setup_fails_after_three_seconds_when_a_server_does_not_answer() {
    let cluster = Cluster::start(1, 1);
    // It takes connections and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let urls = [
        format!("rtmp://{}/live", cluster.edges[0].addr),
        format!("rtmp://{}/live", mute.local_addr().unwrap()),
    ];
    let asked = Instant::now();
    let (mc, told) = facade(&urls).await;
    let took = asked.elapsed();
    let setup = told.lock().unwrap().setup.clone().unwrap();
    println!("{setup:?} after {took:?}");
    assert_eq!(setup.code(), "NetConnection.Setup.Failed");
    assert!(
        (Duration::from_secs(3)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    // Everything is closed: a write is not made, and says so.
    let written = match mc.shared_object_setup("nothing", false).await {
        Ok(()) => mc.set_so_value("nothing.data.a", "b".into()).await,
        Err(error) => Err(error),
    };
    assert!(
        matches!(written, Err(_) | Ok(SoOutcome::Unreachable)),
        "{written:?}"
    );
}
