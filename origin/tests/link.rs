//! The origin as edges see it: a real gRPC link over an in-process pipe, and an edge that
//! says exactly what a test tells it to say.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the message it expects and fails on every other"
)]

// The attribute tells clippy that this, too, is test code.
#[cfg(test)]
mod fake_edge;

use std::time::Duration;

use fabric::v1::refused::Reason;
use fabric::v1::source::State;
use fabric::v1::{self, to_edge, to_origin};
use fake_edge::{Edge, Running, config, delta, key_frame, numbered};
use tokio::time::Instant;
use tonic::Code;

#[tokio::test]
async fn what_one_edge_publishes_another_receives_in_order_and_unchanged() {
    let origin = Running::start();
    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "s", 1 << 20).await;
    assert_eq!(watcher.source(1).await, (State::Waiting, 0));

    let mut publisher = Edge::connect(&origin, "a").await;
    let granted = publisher.publish(4, "s").await.unwrap();
    assert_eq!((granted.next, granted.credit), (0, fabric::LINK_CREDIT));
    assert_eq!(watcher.source(1).await, (State::Published, granted.epoch));

    let sent = [config(0), key_frame(1), delta(2), delta(3)];
    publisher.send(4, 77, numbered(0, &sent)).await;
    publisher.unpublish(4, false).await;
    let (frames, ingest) = watcher.frames(4).await;
    assert_eq!(ingest, 77);
    for (seq, (frame, sent)) in frames.iter().zip(&sent).enumerate() {
        assert_eq!(
            (frame.id, frame.seq, frame.in_force),
            (1, seq as u64, false)
        );
        assert_eq!(
            *frame,
            v1::Frame {
                id: 1,
                seq: seq as u64,
                ..sent.clone()
            }
        );
    }
    assert_eq!(watcher.source(1).await, (State::Unpublished, granted.epoch));
    assert_eq!(origin.hub.bytes(), 0);
}

#[tokio::test]
async fn who_joins_in_mid_stream_gets_what_is_in_force_and_the_newest_key_frame() {
    let origin = Running::start();
    let mut publisher = Edge::connect(&origin, "a").await;
    let granted = publisher.publish(1, "s").await.unwrap();
    let sent = [config(0), key_frame(1), delta(2), key_frame(3), delta(4)];
    publisher.send(1, 0, numbered(0, &sent)).await;
    origin
        .until(|hub| hub.counters().frames_in.get() == 5)
        .await;

    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "s", 1 << 20).await;
    assert_eq!(watcher.source(1).await, (State::Published, granted.epoch));
    let (frames, _) = watcher.frames(3).await;
    let seen: Vec<_> = frames
        .iter()
        .map(|frame| (frame.in_force, frame.seq))
        .collect();
    assert_eq!(seen, [(true, 3), (false, 3), (false, 4)]);
    assert_eq!(frames[0].payload, sent[0].payload);
}

#[tokio::test(start_paused = true)]
async fn a_publish_goes_on_over_a_new_link_and_watchers_notice_nothing() {
    let origin = Running::start();
    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "s", 1 << 20).await;
    watcher.source(1).await;
    let mut publisher = Edge::connect(&origin, "a").await;
    let granted = publisher.publish(1, "s").await.unwrap();
    publisher
        .send(1, 0, numbered(0, &[config(0), key_frame(1)]))
        .await;
    watcher.source(1).await;
    watcher.frames(2).await;
    drop(publisher);
    origin.until(|hub| hub.links() == 1).await;

    let mut publisher = Edge::connect(&origin, "a").await;
    let resume = v1::Resume {
        epoch: granted.epoch,
        next: 5,
    };
    let again = publisher.resume(9, "s", resume).await.unwrap();
    assert_eq!((again.epoch, again.next), (granted.epoch, 2));
    publisher
        .send(9, 0, numbered(2, &[delta(2), delta(3), delta(4)]))
        .await;
    let (frames, _) = watcher.frames(3).await;
    assert_eq!(
        frames.iter().map(|frame| frame.seq).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    // The grace that had begun means nothing any more.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(origin.hub.published(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_does_not_come_back_loses_its_name_when_the_grace_ends() {
    let origin = Running::start();
    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "s", 1 << 20).await;
    watcher.source(1).await;
    let mut publisher = Edge::connect(&origin, "a").await;
    let granted = publisher.publish(1, "s").await.unwrap();
    watcher.source(1).await;
    drop(publisher);
    origin.until(|hub| hub.links() == 1).await;
    let lost = Instant::now();
    let resume = v1::Resume {
        epoch: granted.epoch,
        next: 0,
    };
    let refused = watcher.resume(2, "s", resume).await.unwrap_err();
    assert_eq!(refused, Reason::Superseded);

    assert_eq!(watcher.source(1).await, (State::Unpublished, granted.epoch));
    let waited = lost.elapsed();
    assert!(waited <= Duration::from_millis(3100), "{waited:?}");
    assert!(waited >= Duration::from_millis(2900), "{waited:?}");
    assert_eq!(origin.hub.published(), 0);
}

#[tokio::test]
async fn of_two_hundred_publishes_of_one_name_the_latest_holds_it() {
    let origin = Running::start();
    let mut edges = [
        Edge::connect(&origin, "a").await,
        Edge::connect(&origin, "b").await,
    ];
    for id in 0..100 {
        for (edge, which) in edges.iter_mut().zip(0..) {
            let epoch = fake_edge::EPOCH + 2 * u64::from(id) + which;
            let granted = v1::Resume { epoch, next: 0 };
            edge.say(fake_edge::publish(id, "s", Some(granted))).await;
        }
    }
    for (edge, held) in edges.iter_mut().zip([0, 1]) {
        let (mut answers, mut holds) = (0, 0);
        while answers < 100 || holds > held {
            match edge.next().await.unwrap() {
                to_edge::Body::Granted(_) => (answers, holds) = (answers + 1, holds + 1),
                to_edge::Body::Refused(refused) => {
                    assert_eq!(refused.reason(), Reason::Superseded);
                    answers += 1;
                }
                to_edge::Body::Ended(_) => holds -= 1,
                other => panic!("{other:?} is not about a publish"),
            }
        }
        assert_eq!(holds, held);
    }
    assert_eq!(origin.hub.published(), 1);
}

#[tokio::test]
async fn a_publish_that_the_log_did_not_grant_is_refused() {
    let origin = Running::start();
    let mut edge = Edge::connect(&origin, "a").await;
    edge.say(fake_edge::publish(1, "s", None)).await;
    assert_eq!(edge.answer().await.unwrap_err(), Reason::Invalid);
    // The log is behind this epoch from its beginning, and has given it to nobody.
    let never = v1::Resume { epoch: 0, next: 0 };
    let refused = edge.resume(2, "s", never).await.unwrap_err();
    assert_eq!(refused, Reason::Superseded);
    assert_eq!(origin.hub.published(), 0);
}

#[tokio::test]
async fn a_newer_epoch_ends_the_older_one_and_an_older_one_is_refused() {
    let origin = Running::start();
    let mut old = Edge::connect(&origin, "a").await;
    let granted = old.publish(1, "s").await.unwrap();
    let mut new = Edge::connect(&origin, "b").await;
    let resume = |epoch| v1::Resume { epoch, next: 0 };
    let refused = new
        .resume(1, "s", resume(granted.epoch - 1))
        .await
        .unwrap_err();
    assert_eq!(refused, Reason::Superseded);
    assert!(new.resume(2, "s", resume(granted.epoch + 1)).await.is_ok());
    let ended = old.next().await.unwrap();
    let reason = Reason::Superseded.into();
    assert_eq!(ended, to_edge::Body::Ended(v1::Ended { id: 1, reason }));
    // What was under way from the old one is ignored.
    old.send(1, 0, numbered(0, &[config(0)])).await;
    origin
        .until(|hub| hub.counters().frames_ignored.get() == 1)
        .await;
    assert_eq!(origin.hub.bytes(), 0);
}

#[tokio::test]
async fn a_subscription_without_credit_holds_up_no_other_on_its_link() {
    let origin = Running::start();
    let mut publisher = Edge::connect(&origin, "a").await;
    publisher.publish(1, "s").await.unwrap();
    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "s", 10).await;
    watcher.source(1).await;
    watcher.subscribe(2, "s", 1 << 20).await;
    watcher.source(2).await;
    let sent: Vec<_> = (0..50)
        .map(|n| if n == 0 { key_frame(0) } else { delta(n) })
        .collect();
    publisher.send(1, 0, numbered(0, &sent)).await;
    let mut seen = [0, 0, 0];
    while seen[2] < 50 {
        for frame in watcher.frames(1).await.0 {
            seen[frame.id as usize] += 1;
        }
    }
    // A frame has 100 bytes: the first goes through, then the credit is overdrawn.
    assert_eq!(seen, [0, 1, 50]);
    watcher
        .say(to_origin::Body::Credit(v1::Credit { id: 1, bytes: 291 }))
        .await;
    let (frames, _) = watcher.frames(3).await;
    assert_eq!(
        frames
            .iter()
            .map(|frame| (frame.id, frame.seq))
            .collect::<Vec<_>>(),
        [(1, 1), (1, 2), (1, 3)]
    );
}

#[tokio::test]
async fn credit_comes_back_to_the_publisher_as_it_is_used_up() {
    let origin = Running::start();
    let mut publisher = Edge::connect(&origin, "a").await;
    let granted = publisher.publish(1, "s").await.unwrap();
    let mut given = 0;
    let big = fake_edge::sized(key_frame(0), 1 << 20);
    for seq in 0..8 {
        publisher
            .send(1, 0, numbered(seq, std::slice::from_ref(&big)))
            .await;
        let to_edge::Body::Credit(credit) = publisher.next().await.unwrap() else {
            panic!()
        };
        assert_eq!(credit.id, 1);
        given += credit.bytes;
    }
    assert_eq!(given, 8 << 20);
    assert!(given > granted.credit);
}

#[tokio::test]
async fn an_edge_that_does_not_read_holds_up_no_other_edge() {
    let origin = Running::start();
    let mut publisher = Edge::connect(&origin, "a").await;
    publisher.publish(1, "s").await.unwrap();
    let mut stuck = Edge::connect(&origin, "stuck").await;
    stuck.subscribe(1, "s", u64::MAX).await;
    stuck.source(1).await;
    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "s", u64::MAX).await;
    watcher.source(1).await;
    // More than all windows and buffers between the origin and the one that is stuck.
    let big = fake_edge::sized(key_frame(0), 1 << 20);
    for seq in 0..40 {
        publisher
            .send(1, 0, numbered(seq, std::slice::from_ref(&big)))
            .await;
        let (frames, _) = watcher.frames(1).await;
        assert_eq!(frames[0].seq, seq);
    }
    assert!(origin.hub.bytes() <= media::Limits::DEFAULT.bytes);
    // When it reads again, it is told where the stream is.
    let mut last = 0;
    while last < 39 {
        last = stuck.frames(1).await.0.last().unwrap().seq;
    }
    assert!(origin.hub.counters().frames_skipped.get() > 0);
}

#[tokio::test]
async fn a_busy_stream_shares_the_link_with_a_quiet_one() {
    let origin = Running::start();
    let mut publisher = Edge::connect(&origin, "a").await;
    publisher.publish(1, "busy").await.unwrap();
    publisher.publish(2, "quiet").await.unwrap();
    let busy: Vec<_> = std::iter::once(key_frame(0))
        .chain((1..200).map(delta))
        .map(|frame| fake_edge::sized(frame, 8000))
        .collect();
    publisher.send(1, 0, numbered(0, &busy)).await;
    publisher.send(2, 0, numbered(0, &[key_frame(0)])).await;
    origin
        .until(|hub| hub.counters().frames_in.get() == 201)
        .await;
    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "busy", u64::MAX).await;
    watcher.subscribe(2, "quiet", u64::MAX).await;
    let mut before = 0;
    loop {
        match watcher.next().await.unwrap() {
            to_edge::Body::Frames(batch) => {
                assert!(
                    fabric::convert::payload_bytes(&batch.frames) <= 3 * fabric::BATCH_BYTES / 2
                );
                match batch.frames.iter().position(|frame| frame.id == 2) {
                    Some(at) => break before += at,
                    None => before += batch.frames.len(),
                }
            }
            to_edge::Body::Source(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // 1.6 MB of the busy stream wait. How much of it is under way before the second
    // subscription is known is chance; that it is not all of it is the promise.
    assert!(
        before < 150,
        "{before} frames of the busy stream came first"
    );
}

#[tokio::test]
async fn a_hostile_edge_is_told_what_was_wrong_and_disturbs_nobody() {
    use to_origin::Body;
    let origin = Running::with(|config| config.limits.publication_credit = 1000);
    let mut publisher = Edge::connect(&origin, "a").await;
    publisher.publish(1, "s").await.unwrap();
    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "s", 1 << 20).await;
    watcher.source(1).await;

    let hello = |edge: &str| {
        Body::Hello(v1::Hello {
            edge: edge.into(),
            incarnation: 1,
        })
    };
    let frames = |frames| {
        Body::Frames(v1::Frames {
            frames,
            ingest_micros: 0,
            traces: Vec::new(),
        })
    };
    let granted = v1::Resume {
        epoch: fake_edge::EPOCH,
        next: 0,
    };
    let publish = fake_edge::publish(1, "mine", Some(granted));
    let half = |id| v1::Frame {
        id,
        ..fake_edge::sized(delta(0), 17 << 18)
    };
    let overdrawn = vec![half(1), half(1)];
    let oversized = vec![fake_edge::sized(delta(0), 10 << 20)];
    let bad_verdict = v1::Frame {
        id: 1,
        verdict: 0x0907,
        ..delta(0)
    };
    let subscribe = fake_edge::subscribe(1, "mine", 1);
    let attacks: Vec<(Vec<Option<Body>>, Code, &str)> = vec![
        (
            vec![None],
            Code::InvalidArgument,
            "ToOrigin.body is missing",
        ),
        (
            vec![Some(publish.clone())],
            Code::FailedPrecondition,
            "the first message must be Hello",
        ),
        (
            vec![Some(hello(""))],
            Code::InvalidArgument,
            "Hello.edge: the name is empty",
        ),
        (
            vec![Some(hello("x")), Some(hello("x"))],
            Code::FailedPrecondition,
            "a second Hello",
        ),
        (
            vec![
                Some(hello("x")),
                Some(publish.clone()),
                Some(publish.clone()),
            ],
            Code::FailedPrecondition,
            "Publish.id 1 is in use",
        ),
        (
            vec![Some(hello("x")), Some(subscribe.clone()), Some(subscribe)],
            Code::FailedPrecondition,
            "Subscribe.id 1 is in use",
        ),
        (
            vec![
                Some(hello("x")),
                Some(publish.clone()),
                Some(frames(vec![bad_verdict])),
            ],
            Code::InvalidArgument,
            "Frame.verdict: 0x0907 is no known kind and class",
        ),
        (
            vec![
                Some(hello("x")),
                Some(frames(vec![v1::Frame::default(); 70_000])),
            ],
            Code::ResourceExhausted,
            "limit exceeded: 70000 frames in one batch, at most 65536 are allowed",
        ),
        (
            vec![
                Some(hello("x")),
                Some(publish.clone()),
                Some(frames(overdrawn)),
            ],
            Code::ResourceExhausted,
            "limit exceeded: the credit of publication 1",
        ),
        (
            vec![Some(hello("x")), Some(frames(oversized))],
            Code::OutOfRange,
            "decoded message length too large",
        ),
    ];
    for (messages, code, text) in attacks {
        let mut edge = Edge::silent(&origin).await;
        for body in messages {
            edge.say_raw(v1::ToOrigin { body }).await;
        }
        let status = edge.status().await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }

    publisher.send(1, 0, numbered(0, &[key_frame(0)])).await;
    assert_eq!(watcher.frames(1).await.0.len(), 1);
}

#[tokio::test]
async fn a_bad_name_is_refused_and_the_link_goes_on() {
    let origin = Running::start();
    let mut edge = Edge::connect(&origin, "a").await;
    assert_eq!(edge.publish(1, "../s").await.unwrap_err(), Reason::Invalid);
    edge.subscribe(2, "../s", 1).await;
    assert_eq!(edge.source(2).await, (State::Refused, 0));
    assert!(edge.publish(3, "s").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_never_greets_is_sent_away() {
    let origin = Running::start();
    let mut edge = Edge::silent(&origin).await;
    let status = edge.status().await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::FailedPrecondition, "no Hello within 5 s")
    );
    origin.until(|hub| hub.links() == 0).await;
}

#[tokio::test]
async fn each_limit_refuses_the_one_too_many() {
    let origin = Running::with(|config| {
        config.limits.links = 2;
        config.limits.streams = 3;
        config.limits.publications_per_link = 2;
        config.limits.subscriptions_per_link = 2;
    });
    let mut edge = Edge::connect(&origin, "a").await;
    assert!(edge.publish(1, "one").await.is_ok());
    assert!(edge.publish(2, "two").await.is_ok());
    assert_eq!(edge.publish(3, "three").await.unwrap_err(), Reason::Limit);
    edge.subscribe(1, "one", 1).await;
    edge.source(1).await;
    edge.subscribe(2, "three", 1).await;
    edge.source(2).await;
    edge.subscribe(3, "two", 1).await;
    assert_eq!(edge.source(3).await, (State::Refused, 0));
    let mut second = Edge::connect(&origin, "b").await;
    assert_eq!(second.publish(1, "four").await.unwrap_err(), Reason::Limit);
    second.subscribe(1, "four", 1).await;
    assert_eq!(second.source(1).await, (State::Refused, 0));
    let status = Edge::refused(&origin).await;
    assert_eq!(
        (status.code(), status.message()),
        (Code::ResourceExhausted, "limit exceeded: 2 links")
    );
    // What is let go is free again.
    edge.unpublish(2, false).await;
    assert!(edge.publish(4, "four").await.is_ok());
}

#[tokio::test]
async fn an_edge_that_asks_and_does_not_read_is_cut_off() {
    let origin = Running::with(|config| config.limits.control_per_link = 100);
    let mut edge = Edge::narrow(&origin, "a").await;
    let mut id = 0;
    while origin.hub.links() == 1 {
        id += 1;
        edge.try_say(fake_edge::publish(
            id,
            &format!("../{}", "x".repeat(200)),
            None,
        ))
        .await;
        assert!(id < 1_000_000, "it was never cut off");
    }
}

#[tokio::test(start_paused = true)]
async fn a_draining_origin_says_so_grants_nothing_and_leaves_when_all_have_moved() {
    let mut origin = Running::start();
    let mut publisher = Edge::connect(&origin, "a").await;
    let granted = publisher.publish(1, "s").await.unwrap();
    let mut watcher = Edge::connect(&origin, "b").await;
    watcher.subscribe(1, "s", 1 << 20).await;
    watcher.source(1).await;
    let started = Instant::now();
    origin.drain.start();
    for edge in [&mut publisher, &mut watcher] {
        assert_eq!(
            edge.next().await.unwrap(),
            to_edge::Body::Draining(v1::Draining {})
        );
    }
    assert_eq!(
        publisher.publish(2, "t").await.unwrap_err(),
        Reason::Draining
    );
    publisher.unpublish(1, true).await;
    assert_eq!(watcher.source(1).await, (State::Moved, granted.epoch));
    assert_eq!(watcher.status().await.code(), Code::Unavailable);
    assert_eq!(publisher.status().await.code(), Code::Unavailable);
    drop((watcher, publisher));
    origin.ended().await;
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_draining_origin_does_not_wait_for_ever() {
    let mut origin = Running::start();
    let mut publisher = Edge::connect(&origin, "a").await;
    publisher.publish(1, "s").await.unwrap();
    let started = Instant::now();
    origin.drain.start();
    origin.ended().await;
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_secs(20) && waited < Duration::from_secs(23),
        "{waited:?}"
    );
}
