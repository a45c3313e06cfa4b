use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::time::Instant;

use super::*;

fn entry(text: &str) -> Entry {
    text.parse().unwrap()
}

fn texts(addresses: &Addresses) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// A name server that gives these answers in turn and then none at all.
fn answers(answers: &[Result<&[&str], io::ErrorKind>]) -> LookUp {
    let answers: VecDeque<io::Result<Vec<SocketAddr>>> = answers
        .iter()
        .map(|answer| match answer {
            Ok(addrs) => Ok(addrs.iter().map(|addr| addr.parse().unwrap()).collect()),
            Err(kind) => Err(io::Error::from(*kind)),
        })
        .collect();
    let answers = Mutex::new(answers);
    Arc::new(move |host, port| {
        assert_eq!((host.as_str(), port), ("origin", 4000));
        let answer = answers.lock().unwrap().pop_front();
        Box::pin(async move {
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    })
}

fn settings() -> Settings {
    let s = Duration::from_secs;
    Settings {
        every: s(5),
        retry: s(1),
        timeout: s(2),
    }
}

#[test]
fn entries_print_as_they_are_read() {
    for text in [
        "origin-0:4000",
        "[::1]:4000",
        "unix:/run/origin",
        "dns:origin.svc:4000",
    ] {
        assert_eq!(entry(text).to_string(), text);
    }
    for bad in [
        "",
        "origin",
        "origin:99999",
        "dns:origin",
        "dns::1",
        "dns:[::1]:1",
        "unix:",
        ":1",
    ] {
        assert!(bad.parse::<Entry>().is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn a_given_list_is_known_at_once_and_sorted() {
    let list = ["b:2", "a:1", "unix:/run/c", "a:1"].map(entry);
    let mut known = follow(list, &Settings::default());
    assert_eq!(
        texts(&known.borrow_and_update()),
        ["a:1", "b:2", "unix:/run/c"]
    );
    // It neither changes nor ends.
    assert!(
        tokio::time::timeout(Duration::ZERO, known.changed())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_is_looked_up_again_and_only_changes_are_told() {
    let look_up = answers(&[
        Ok(&["10.0.0.2:4000", "10.0.0.1:4000"]),
        Ok(&["10.0.0.1:4000", "10.0.0.2:4000"]),
        Ok(&["10.0.0.3:4000"]),
    ]);
    let start = Instant::now();
    let list = [entry("dns:origin:4000"), entry("zed:1")];
    let mut known = follow_with(list, &settings(), look_up);
    assert_eq!(texts(&known.borrow_and_update()), ["zed:1"]);
    known.changed().await.unwrap();
    assert_eq!(
        texts(&known.borrow_and_update()),
        ["10.0.0.1:4000", "10.0.0.2:4000", "zed:1"]
    );
    known.changed().await.unwrap();
    assert_eq!(
        texts(&known.borrow_and_update()),
        ["10.0.0.3:4000", "zed:1"]
    );
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_failed_an_empty_and_a_late_answer_change_nothing_and_are_soon_repeated() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let inner = answers(&[
        Ok(&["10.0.0.1:4000"]),
        Err(io::ErrorKind::TimedOut),
        Ok(&[]),
        Ok(&["10.0.0.2:4000"]),
    ]);
    let look_up: LookUp = Arc::new({
        let asked = Arc::clone(&asked);
        move |host, port| {
            asked.lock().unwrap().push(start.elapsed().as_secs());
            inner(host, port)
        }
    });
    let mut known = follow_with([entry("dns:origin:4000")], &settings(), look_up);
    known.changed().await.unwrap();
    assert_eq!(texts(&known.borrow_and_update()), ["10.0.0.1:4000"]);
    known.changed().await.unwrap();
    assert_eq!(texts(&known.borrow_and_update()), ["10.0.0.2:4000"]);
    // The fifth look-up is never answered; the sixth follows its time limit.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(*asked.lock().unwrap(), [0, 5, 6, 7, 12, 15]);
    assert_eq!(texts(&known.borrow()), ["10.0.0.2:4000"]);
    assert!(!known.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn looking_up_ends_with_the_last_receiver() {
    let look_up = answers(&[]);
    let witness = Arc::downgrade(&look_up);
    let known = follow_with([entry("dns:origin:4000")], &settings(), look_up);
    tokio::task::yield_now().await;
    assert!(witness.upgrade().is_some());
    drop(known);
    while witness.upgrade().is_some() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_name_of_this_host_resolves() {
    let mut known = follow([entry("dns:localhost:4000")], &Settings::default());
    let known = known
        .wait_for(|addresses| !addresses.is_empty())
        .await
        .unwrap();
    assert!(texts(&known).iter().all(|addr| addr.ends_with(":4000")));
}
