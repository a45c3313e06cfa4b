use super::*;
use crate::packet::Mode;
use crate::session::Config;
use std::net::SocketAddr;

/// A client and a server with nothing lost between them.
struct Pair {
    now: Instant,
    ends: [(Session, Flows); 2],
    told: Vec<(usize, Told)>,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn new(queue_max: usize) -> Self {
        let now = Instant::now();
        let config = || Config {
            queue_max,
            ..Config::default()
        };
        let session = |mode, port| {
            let far = SocketAddr::new([192, 0, 2, 1].into(), port);
            Session::new(config(), mode, far, [7; 32], now)
        };
        Self {
            now,
            ends: [
                (session(Mode::Initiator, 1935), Flows::client()),
                (session(Mode::Responder, 5000), Flows::server()),
            ],
            told: Vec::new(),
        }
    }

    fn settle(&mut self) {
        let mut buffer = [0; 1200];
        // Each round is a packet from each side, or a quarter of a second.
        for _ in 0..1000 {
            let mut idle = true;
            for end in [CLIENT, SERVER] {
                let (session, flows) = &mut self.ends[end];
                while let Some(event) = session.poll_event() {
                    let told = flows.handle_event(session, event, self.now);
                    self.told.push((end, told));
                    idle = false;
                }
                if let Some(packet) = session.poll_transmit(&mut buffer, self.now) {
                    let plain = buffer[..packet.len].to_vec();
                    let (other, far) = (1 - end, self.ends[1 - end].0.far());
                    self.ends[other].0.handle_packet(far, &plain, self.now);
                    idle = false;
                }
            }
            if idle {
                self.now += std::time::Duration::from_millis(250);
                for (session, _) in &mut self.ends {
                    session.handle_timeout(self.now);
                }
                if self
                    .ends
                    .iter()
                    .all(|(session, flows)| flows.unsent(session) == 0)
                {
                    return;
                }
            }
        }
        panic!("it does not come to rest");
    }

    fn write(&mut self, end: usize, message: &Message) {
        let (session, flows) = &mut self.ends[end];
        flows.write(session, message, self.now);
    }

    fn received(&mut self, end: usize) -> Vec<Message> {
        std::iter::from_fn(|| self.ends[end].1.poll_message()).collect()
    }
}

fn message(kind: MessageKind, stream: u32, len: usize) -> Message {
    Message {
        kind,
        stream: StreamId(stream),
        time: 5,
        payload: Bytes::from(vec![1; len]),
    }
}

/// A connection whose control flows are there.
fn connected(queue_max: usize) -> Pair {
    let mut pair = Pair::new(queue_max);
    let command = message(MessageKind::CommandAmf0, 0, 100);
    pair.write(CLIENT, &command);
    pair.settle();
    assert_eq!(pair.received(SERVER), std::slice::from_ref(&command));
    pair.write(SERVER, &command);
    pair.settle();
    assert_eq!(pair.received(CLIENT), [command]);
    pair
}

#[test]
fn messages_of_each_kind_have_a_flow_that_answers_the_far_control_flow() {
    let mut pair = connected(1 << 20);
    for end in [CLIENT, SERVER] {
        for kind in [
            MessageKind::CommandAmf0,
            MessageKind::Audio,
            MessageKind::Video,
        ] {
            pair.write(end, &message(kind, 3, 2000));
        }
        pair.settle();
        let mut got = pair.received(1 - end);
        got.sort_by_key(|message| message.kind.type_id());
        let kinds: Vec<_> = got.iter().map(|message| message.kind.type_id()).collect();
        assert_eq!(kinds, [8, 9, 20]);
        assert!(got.iter().all(|message| message.stream == StreamId(3)));
        // The connection's own and three.
        assert_eq!(pair.ends[1 - end].1.receiving.len(), 4);
    }
}

#[test]
fn what_has_no_room_waits_and_goes_in_order() {
    let mut pair = connected(4000);
    for len in 1000..1020 {
        pair.write(CLIENT, &message(MessageKind::Video, 1, len));
    }
    let (session, flows) = &pair.ends[CLIENT];
    assert!(flows.waiting() > 0 && !flows.has_room_for_media(StreamId(1)));
    assert!(flows.unsent(session) > 20 * 1000);
    pair.settle();
    let got = pair.received(SERVER);
    assert!(got.iter().map(|m| m.payload.len()).eq(1000..1020));
    assert!(pair.ends[CLIENT].1.has_room_for_media(StreamId(1)));
}

#[test]
fn a_held_connection_keeps_what_comes_until_it_is_let_go() {
    let mut pair = connected(1 << 20);
    let now = pair.now;
    let (session, flows) = &mut pair.ends[SERVER];
    flows.hold(session, true);
    let words = message(MessageKind::CommandAmf0, 0, 9);
    let (session, flows) = &mut pair.ends[CLIENT];
    flows.write(session, &words, now);
    pair.settle();
    assert_eq!(pair.received(SERVER), []);
    let (session, flows) = &mut pair.ends[SERVER];
    flows.hold(session, false);
    pair.settle();
    assert_eq!(pair.received(SERVER), [words]);
}

#[test]
fn a_client_that_finishes_is_over_when_all_it_sent_arrived() {
    let mut pair = connected(1 << 20);
    pair.write(CLIENT, &message(MessageKind::Video, 1, 50_000));
    let now = pair.now;
    let (session, flows) = &mut pair.ends[CLIENT];
    flows.finish(session, now);
    assert!(!flows.is_finished());
    pair.settle();
    assert!(pair.ends[CLIENT].1.is_finished());
    assert_eq!(pair.received(SERVER).len(), 1);
    assert!(pair.told.contains(&(SERVER, Told::Over(Over::There))));
}

#[test]
fn a_flow_that_is_not_the_servers_is_rejected_by_a_client() {
    let mut pair = connected(1 << 20);
    let now = pair.now;
    let (session, _) = &mut pair.ends[SERVER];
    let flow = session
        .open_flow(&metadata(StreamId(1)), Options::default())
        .unwrap();
    let payload = super::super::encode(&message(MessageKind::Video, 1, 9));
    session
        .write(flow, payload, Priority::Key, None, now)
        .unwrap();
    pair.settle();
    assert_eq!(pair.received(CLIENT), []);
}

#[test]
fn a_rejected_stream_is_left_alone_and_rejected_commands_end_the_connection() {
    let mut pair = connected(1 << 20);
    pair.write(CLIENT, &message(MessageKind::Video, 1, 9));
    pair.settle();
    let (session, flows) = &mut pair.ends[SERVER];
    let of = |wanted| {
        let found = flows
            .receiving
            .iter()
            .find(|(_, stream)| **stream == wanted);
        *found.unwrap().0
    };
    let (media, control) = (of(StreamId(1)), of(StreamId::CONNECTION));
    session.reject(media, 0);
    pair.settle();
    pair.write(CLIENT, &message(MessageKind::Video, 1, 9));
    assert_eq!(pair.ends[CLIENT].1.waiting(), 0);
    assert!(!pair.told.contains(&(CLIENT, Told::Over(Over::Rejected))));
    pair.ends[SERVER].0.reject(control, 0);
    pair.settle();
    assert!(pair.told.contains(&(CLIENT, Told::Over(Over::Rejected))));
}
