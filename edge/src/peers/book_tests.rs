use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn start() -> Instant {
    Instant::now() + SECOND
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn seat(shard: usize, session: u32) -> Seat {
    Seat {
        shard,
        session: SessionId(session),
    }
}

const ALICE: Fingerprint = [0xa1; 32];
const BOB: Fingerprint = [0xb0; 32];
const ORIGIN: LinkId = LinkId(1);
const OTHER: LinkId = LinkId(2);

fn book(policy: Introductions) -> Book {
    Book::new(policy, Arc::default())
}

fn hello(target: Fingerprint, from: &str) -> Hello {
    Hello {
        shard: 0,
        target,
        from: at(from),
        tag: b"tag".to_vec(),
        room: 84,
    }
}

fn initiator(app: &str) -> Initiator {
    Initiator {
        observed: at("198.51.100.1:1000"),
        reported: vec![at("10.0.0.1:1")],
        app: app.to_owned(),
        tag: b"tag".to_vec(),
    }
}

fn outputs(book: &mut Book) -> Vec<Output> {
    std::iter::from_fn(|| book.poll_output()).collect()
}

fn texts(addresses: &[Address]) -> Vec<String> {
    let text = |it: &Address| format!("{:?} {}", it.origin, it.at);
    addresses.iter().map(text).collect()
}

fn come(book: &mut Book, seat: Seat, id: Fingerprint, from: &str, now: Instant) {
    book.came(seat, id, "live/_definst_".to_owned(), at(from), now);
}

#[test]
fn peers_of_one_edge_are_introduced_with_all_their_addresses() {
    let now = start();
    let mut book = book(Introductions::All);
    come(&mut book, seat(0, 2), ALICE, "[::ffff:192.0.2.1]:1", now);
    come(&mut book, seat(1, 3), BOB, "192.0.2.2:2", now);
    let own = [
        "10.0.0.1:1",
        "192.0.2.1:1",
        "0.0.0.0:5",
        "10.0.0.1:0",
        "127.0.0.1:1",
        "255.255.255.255:1",
        "224.0.0.1:1",
    ];
    book.reported(seat(0, 2), own.map(at).to_vec());
    book.reported(seat(1, 3), vec![at("10.0.0.2:2")]);
    book.hello(hello(BOB, "[::ffff:192.0.2.1]:1"), now);
    let found = outputs(&mut book);
    let [
        Output::Redirect { addresses, .. },
        Output::Forward { seat: to, from, .. },
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!(
        texts(addresses),
        ["Observed 192.0.2.2:2", "Reported 10.0.0.2:2"]
    );
    assert_eq!(texts(from), ["Observed 192.0.2.1:1", "Reported 10.0.0.1:1"]);
    assert_eq!(*to, seat(1, 3));
}

#[test]
fn a_peer_is_where_it_came_last_and_where_it_was_seen_last() {
    let now = start();
    let mut book = book(Introductions::All);
    come(&mut book, seat(0, 2), BOB, "192.0.2.2:2", now);
    come(&mut book, seat(1, 3), BOB, "192.0.2.2:3", now);
    book.moved(seat(1, 3), at("192.0.2.2:4"));
    let where_is = |book: &mut Book| {
        book.hello(hello(BOB, "192.0.2.9:9"), now);
        match &outputs(book)[..] {
            [Output::Redirect { addresses, .. }, Output::Forward { .. }] => texts(addresses),
            _ => Vec::new(),
        }
    };
    assert_eq!(where_is(&mut book), ["Observed 192.0.2.2:4"]);
    book.left(seat(1, 3));
    assert_eq!(where_is(&mut book), ["Observed 192.0.2.2:2"]);
    book.left(seat(0, 2));
    assert!(where_is(&mut book).is_empty());
    assert!(book.by_id.is_empty() && book.by_address.is_empty());
}

#[test]
fn who_is_introduced_is_a_matter_of_policy() {
    let now = start();
    for (policy, app, told) in [
        (Introductions::All, "", true),
        (Introductions::SameApp, "live/_definst_", true),
        (Introductions::SameApp, "other/_definst_", false),
        (Introductions::SameApp, "", false),
        (Introductions::None, "live/_definst_", false),
    ] {
        let mut book = book(policy);
        come(&mut book, seat(0, 2), BOB, "192.0.2.2:2", now);
        book.asked((ORIGIN, 7), BOB, initiator(app), now);
        let verdict = if told {
            Verdict::Forwarded
        } else {
            Verdict::Refused
        };
        let found = outputs(&mut book);
        assert_eq!(found.len(), 1 + usize::from(told), "{policy:?} {app}");
        assert_eq!(
            found.last(),
            Some(&Output::Verdict {
                link: ORIGIN,
                id: 7,
                verdict
            })
        );
        // At the edge itself it is the application of the session that counts.
        come(&mut book, seat(0, 4), ALICE, "192.0.2.1:1", now);
        book.hello(hello(BOB, "192.0.2.1:1"), now);
        let told = policy != Introductions::None;
        assert_eq!(outputs(&mut book).len(), 2 * usize::from(told));
        book.hello(hello(BOB, "192.0.2.1:2"), now);
        let told = policy == Introductions::All;
        assert_eq!(outputs(&mut book).len(), 2 * usize::from(told));
    }
}

#[test]
fn a_peer_is_handed_a_hello_from_another_edge_once_more_when_its_sender_knows_of_it() {
    let now = start();
    let mut book = book(Introductions::All);
    come(&mut book, seat(0, 2), BOB, "192.0.2.2:2", now);
    come(&mut book, seat(0, 4), ALICE, "192.0.2.1:1", now);
    for peer in [ALICE, BOB] {
        book.asked((ORIGIN, 7), peer, initiator(""), now);
    }
    assert_eq!(outputs(&mut book).len(), 4);
    let due = book.deadline().unwrap();
    assert_eq!(due, now + FORWARD_AGAIN);
    book.handle_timeout(due - SECOND / 1000);
    assert!(outputs(&mut book).is_empty());
    book.left(seat(0, 4));
    book.handle_timeout(due);
    let [Output::Forward { target, from, .. }] = &outputs(&mut book)[..] else {
        panic!("not once")
    };
    // Only where its sender was seen: nobody else has asked for two answers.
    assert_eq!(
        (*target, texts(from)),
        (BOB, vec!["Observed 198.51.100.1:1000".to_owned()])
    );
    assert_eq!(book.deadline(), None);
    // At one edge the sender is told first.
    book.hello(hello(BOB, "192.0.2.9:1"), now);
    assert_eq!(book.deadline(), None);
}

#[test]
fn a_thousand_hellos_for_one_peer_become_few() {
    let now = start();
    let mut book = book(Introductions::All);
    come(&mut book, seat(0, 2), BOB, "192.0.2.2:2", now);
    for n in 0..1000_u32 {
        let [.., c, d] = n.to_be_bytes();
        book.hello(hello(BOB, &format!("10.0.{c}.{d}:1")), now);
    }
    let told = outputs(&mut book).len() / 2;
    assert_eq!(told, PEER_RATE as usize);
    // One alone does not use that up, at whichever edge it asks.
    let later = now + SECOND;
    for n in 0..1000_u32 {
        book.hello(hello(BOB, "10.9.9.9:9"), later);
        let mut initiator = initiator("");
        initiator.observed = at("10.9.9.9:9");
        book.asked((ORIGIN, n.into()), BOB, initiator, later);
    }
    let told = outputs(&mut book);
    let told = told
        .iter()
        .filter(|it| matches!(it, Output::Forward { .. }));
    assert_eq!(told.count(), PAIR_RATE as usize);
    let now = later;
    for n in 0..1000_u32 {
        let mut target = ALICE;
        target[..4].copy_from_slice(&n.to_be_bytes());
        book.link_up(ORIGIN, 1);
        book.hello(hello(target, "192.0.2.9:9"), now);
    }
    assert_eq!(outputs(&mut book).len(), SOURCE_RATE as usize);
}

#[test]
fn a_peer_elsewhere_is_asked_for_at_one_origin_after_the_other() {
    let now = start();
    let mut book = book(Introductions::All);
    come(&mut book, seat(0, 2), ALICE, "192.0.2.1:1", now);
    book.link_up(ORIGIN, 5);
    book.link_up(OTHER, 9);
    book.hello(hello(BOB, "192.0.2.1:1"), now);
    let asked = outputs(&mut book);
    let [
        Output::Seek {
            link: OTHER,
            id,
            target: BOB,
            initiator,
        },
    ] = &asked[..]
    else {
        panic!("{asked:?}");
    };
    assert_eq!(initiator.app, "live/_definst_");
    // The wrong origin is not listened to.
    book.answered(ORIGIN, *id, Answer::Refused, now);
    book.answered(OTHER, *id, Answer::Unknown, now);
    let asked = outputs(&mut book);
    let [
        Output::Seek {
            link: ORIGIN, id, ..
        },
    ] = &asked[..]
    else {
        panic!("{asked:?}");
    };
    let answer = Answer::Found {
        observed: at("192.0.2.2:2"),
        reported: vec![at("10.0.0.2:2")],
    };
    book.answered(ORIGIN, *id, answer.clone(), now);
    // The peer answers first.
    assert!(outputs(&mut book).is_empty());
    book.handle_timeout(now + REDIRECT_AFTER);
    let found = outputs(&mut book);
    let [Output::Redirect { addresses, .. }] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(addresses.len(), 2);
    book.answered(ORIGIN, *id, answer, now);
    assert_eq!(outputs(&mut book), [], "an answer counts once");
}

#[test]
fn that_a_peer_is_nowhere_is_believed_for_a_moment_and_only_if_all_said_so() {
    let now = start();
    let mut book = book(Introductions::All);
    book.link_up(ORIGIN, 5);
    book.link_up(OTHER, 9);
    let ask = |book: &mut Book, now| {
        book.hello(hello(BOB, "192.0.2.1:1"), now);
        match &outputs(book)[..] {
            [Output::Seek { link, id, .. }] => Some((*link, *id)),
            _ => None,
        }
    };
    let next = |book: &mut Book| match &outputs(book)[..] {
        [Output::Seek { link, id, .. }] => Some((*link, *id)),
        _ => None,
    };
    // One does not answer, and the other does not know.
    let (link, id) = ask(&mut book, now).unwrap();
    assert_eq!(link, OTHER);
    assert_eq!(book.deadline(), Some(now + SEEK_TIMEOUT));
    book.handle_timeout(now + SEEK_TIMEOUT);
    let (link, second) = next(&mut book).unwrap();
    book.answered(OTHER, id, Answer::Unknown, now);
    book.answered(link, second, Answer::Unknown, now);
    assert_eq!((next(&mut book), book.deadline()), (None, None));
    // So it is asked for again, and now it is nowhere for certain.
    let (link, id) = ask(&mut book, now).unwrap();
    book.answered(link, id, Answer::Unknown, now);
    let (link, id) = next(&mut book).unwrap();
    book.answered(link, id, Answer::Unknown, now);
    assert_eq!(ask(&mut book, now), None);
    assert!(ask(&mut book, now + ABSENT_TIME).is_some());
    // The loss of a link is no answer either.
    book.link_down(OTHER, now);
    assert_eq!(next(&mut book).map(|(link, _)| link), Some(ORIGIN));
    book.link_down(ORIGIN, now);
    assert_eq!(next(&mut book), None);
    assert_eq!(ask(&mut book, now + SECOND), None, "there is nobody to ask");
    book.link_up(ORIGIN, 5);
    assert!(ask(&mut book, now + SECOND).is_some());
}

#[test]
fn an_origin_is_told_of_all_when_it_comes_and_then_of_what_changes() {
    let now = start();
    let mut book = book(Introductions::All);
    come(&mut book, seat(0, 2), ALICE, "192.0.2.1:1", now);
    come(&mut book, seat(0, 4), BOB, "192.0.2.2:2", now);
    assert!(!book.has_news(ORIGIN));
    book.link_up(ORIGIN, 1);
    let later = now + SECOND;
    let told = book.news(ORIGIN, 1, later);
    let presence = |observed: &str| Presence {
        observed: at(observed),
        reported: Vec::new(),
        age: SECOND,
    };
    assert_eq!(told, [(ALICE, Some(presence("192.0.2.1:1")))]);
    assert!(book.has_news(ORIGIN));
    // What changes twice before it is told is told once.
    book.left(seat(0, 4));
    come(&mut book, seat(0, 6), BOB, "192.0.2.2:3", now);
    let told = book.news(ORIGIN, 9, later);
    assert_eq!(told, [(BOB, Some(presence("192.0.2.2:3")))]);
    assert!(!book.has_news(ORIGIN));
    book.left(seat(0, 6));
    assert_eq!(book.news(ORIGIN, 9, later), [(BOB, None)]);
    book.link_down(ORIGIN, later);
    book.link_up(OTHER, 1);
    assert_eq!(book.news(OTHER, 9, later).len(), 1);
}
