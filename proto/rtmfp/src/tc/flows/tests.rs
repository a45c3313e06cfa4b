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

/// Gives messages to a server's flows as though each came in a flow of its own number.
fn give(pair: &mut Pair, flow: u64, message: &Message) -> Told {
    let now = pair.now;
    let (session, flows) = &mut pair.ends[SERVER];
    let bytes = Bytes::from(super::super::encode(message).parts().concat());
    let message = crate::flow::Delivered {
        bytes,
        sequence: 1,
        gap: false,
        began: now,
    };
    let flow = ReceiveId(flow);
    flows.handle_event(session, Event::Message { flow, message }, now)
}

/// A server that has `count` flows of stream 1, with the numbers from 100 on.
fn with_flows(count: u64) -> Pair {
    let mut pair = connected(1 << 20);
    for flow in 100..100 + count {
        pair.ends[SERVER]
            .1
            .receiving
            .insert(ReceiveId(flow), StreamId(1));
    }
    pair
}

fn numbered(number: u32) -> Message {
    let mut message = message(MessageKind::Video, 1, 1);
    message.time = number;
    message
}

fn times(pair: &mut Pair) -> Vec<u32> {
    let messages = pair.received(SERVER);
    messages.iter().map(|message| message.time).collect()
}

#[test]
fn flows_wait_for_each_other_as_in_figure_2() {
    let mut pair = with_flows(2);
    let sync = |id| super::super::flow_sync(id, 2);
    let (first, second) = (100, 101);
    // What each flow has, in an order that would be wrong.
    give(&mut pair, first, &numbered(1));
    give(&mut pair, first, &numbered(2));
    give(&mut pair, first, &numbered(4));
    give(&mut pair, first, &sync(8));
    give(&mut pair, first, &sync(13));
    give(&mut pair, first, &numbered(7));
    assert_eq!(times(&mut pair), [1, 2, 4]);
    give(&mut pair, second, &numbered(3));
    assert_eq!(times(&mut pair), [3]);
    assert_eq!(give(&mut pair, second, &sync(8)), Told::Nothing);
    give(&mut pair, second, &numbered(5));
    assert_eq!(times(&mut pair), [5], "the first is at the next barrier");
    assert_eq!(give(&mut pair, second, &sync(13)), Told::Message);
    give(&mut pair, second, &numbered(6));
    assert_eq!(times(&mut pair), [7, 6]);
}

#[test]
fn a_barrier_of_three_and_four_flows_opens_with_the_last() {
    for count in 3..5_u32 {
        let mut pair = with_flows(u64::from(count));
        for flow in 0..count {
            assert_eq!(times(&mut pair), [], "{flow} of {count}");
            give(
                &mut pair,
                100 + u64::from(flow),
                &super::super::flow_sync(1, count),
            );
            give(&mut pair, 100 + u64::from(flow), &numbered(flow));
        }
        let mut got = times(&mut pair);
        got.sort_unstable();
        assert!(got.into_iter().eq(0..count));
    }
}

#[test]
fn a_flow_that_is_lost_holds_nobody_up() {
    // The control flow and two; one of them ends before it comes to the barrier.
    let mut pair = with_flows(2);
    let now = pair.now;
    give(&mut pair, 100, &super::super::flow_sync(1, 3));
    give(&mut pair, 100, &numbered(9));
    assert_eq!(times(&mut pair), []);
    let (session, flows) = &mut pair.ends[SERVER];
    let flow = ReceiveId(101);
    let told = flows.handle_event(session, Event::FlowComplete { flow }, now);
    assert_eq!(told, Told::Message);
    assert_eq!(times(&mut pair), [9]);
}

#[test]
fn a_barrier_that_is_not_reached_opens_after_a_while() {
    let mut pair = with_flows(2);
    give(&mut pair, 100, &super::super::flow_sync(1, 2));
    give(&mut pair, 100, &numbered(9));
    pair.now += std::time::Duration::from_secs(4);
    assert_eq!(times(&mut pair), []);
    give(&mut pair, 101, &numbered(8));
    assert_eq!(times(&mut pair), [8, 9]);
    // One that counts one flow or none, and one that nobody can reach, hold nothing up.
    for count in [0, 1, u32::MAX] {
        give(&mut pair, 100, &super::super::flow_sync(2, count));
        give(&mut pair, 100, &numbered(1));
        assert_eq!(times(&mut pair), [1], "{count}");
    }
}

#[test]
fn what_comes_in_a_flow_that_waits_is_neither_lost_nor_mixed_up() {
    let mut pair = connected(1 << 20);
    pair.write(CLIENT, &message(MessageKind::Audio, 1, 1));
    pair.settle();
    pair.received(SERVER);
    let now = pair.now;
    let (session, flows) = &mut pair.ends[CLIENT];
    let audio = flows.sending[&(StreamId(1), Lane::Audio)].flow.unwrap();
    let barrier = super::super::encode(&super::super::flow_sync(1, 3));
    session
        .write(audio, barrier, Priority::Audio, None, now)
        .unwrap();
    // Far more than the session buffers: the sender has to wait until the barrier opens,
    // which no other flow ever comes to.
    for len in 1..100 {
        pair.write(CLIENT, &message(MessageKind::Audio, 1, len * 100));
    }
    pair.write(CLIENT, &message(MessageKind::Video, 1, 7));
    for _ in 0..20 {
        pair.settle();
        pair.write(CLIENT, &message(MessageKind::Video, 1, 7));
    }
    let got = pair.received(SERVER);
    let audio: Vec<_> = got
        .iter()
        .filter(|message| message.kind == MessageKind::Audio)
        .map(|message| message.payload.len())
        .collect();
    assert!(audio.into_iter().eq((1..100).map(|len| len * 100)));
}
