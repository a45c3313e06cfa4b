//! Bodies of the fuzz targets of sessions and flows.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Config, Event, Session};
use crate::flow::{Options, Order, Priority, ReceiveId, SendId};
use crate::limits;
use crate::packet::Mode;

const HERE: ([u8; 4], u16) = ([192, 0, 2, 1], 1000);
const THERE: ([u8; 4], u16) = ([198, 51, 100, 1], 1935);

/// So much may be held for a peer that sent little: what a packet brings, times the worst
/// that a fragment costs.
const MEMORY_PER_BYTE: usize = 80;

/// Arbitrary plain packets to an open session: each is a length, how long to wait before
/// it in 16 ms, and as many bytes.
///
/// # Panics
/// When the session does not hold what it promises.
pub fn session(mut data: &[u8], start: Instant) {
    let mut session = Session::new(
        Config::default(),
        Mode::Responder,
        THERE.into(),
        [1; 32],
        start,
    );
    let mut now = start;
    let late = |now: Instant| Some(now + Duration::from_millis(300));
    if let Ok(flow) = session.open_flow(b"fuzz", Options::default()) {
        let _ = session.write(flow, vec![7; 6000], Priority::Key, None, now);
        let _ = session.write(flow, vec![8; 3000], Priority::Delta, late(now), now);
    }
    let mut came = 0;
    while let Some((&[len, wait], rest)) = data.split_first_chunk() {
        let (packet, after) = rest.split_at(rest.len().min(usize::from(len)));
        data = after;
        now += Duration::from_millis(u64::from(wait) * 16);
        came += packet.len();
        session.handle_packet(THERE.into(), packet, now);
        settle(&mut session, now);
        assert!(
            session.received_bytes <= came * MEMORY_PER_BYTE,
            "it holds more than came"
        );
    }
}

/// Drains a session after its deadlines, and counts what goes out.
fn settle(session: &mut Session, now: Instant) {
    let mut buffer = [0; limits::DATAGRAM_MAX];
    for round in 0.. {
        let due = session.next_deadline();
        if due.is_some_and(|due| due.at <= now) {
            session.handle_timeout(now);
        }
        while session.poll_event().is_some() {}
        let mut packets = 0;
        while session.poll_transmit(&mut buffer, now).is_some() {
            packets += 1;
            assert!(packets < 1000, "it never stops sending");
        }
        if session.next_deadline().is_none_or(|due| due.at > now) {
            break;
        }
        assert!(round < 1000, "{due:?} is due for ever");
    }
}

/// Any sequence of operations on two sessions with a network between them that the input
/// commands. Afterwards the network works, and everything that is reliable arrives.
///
/// # Panics
/// When it does not.
pub fn flow(operations: &[u8], start: Instant) {
    let end = |mode, far: ([u8; 4], u16)| {
        Session::new(Config::default(), mode, far.into(), [1; 32], start)
    };
    let mut near = end(Mode::Initiator, THERE);
    let mut far = end(Mode::Responder, HERE);
    let mut flows: Vec<(SendId, u64, bool)> = Vec::new();
    let mut got: Vec<(ReceiveId, u64)> = Vec::new();
    let mut wire: VecDeque<(bool, Vec<u8>)> = VecDeque::new();
    let mut now = start;
    for pair in operations.chunks_exact(2).take(400) {
        let [what, how] = *pair else { break };
        let at = usize::from(how) % flows.len().max(1);
        let len = usize::from(how) * 23;
        match what % 10 {
            0 if flows.len() < 8 => {
                if let Ok(flow) = near.open_flow(&[how], Options::default()) {
                    flows.push((flow, 0, false));
                }
            }
            1 | 2 => {
                if let Some((flow, reliable, closed)) = flows.get_mut(at)
                    && !*closed
                {
                    let late = (what % 10 == 2).then(|| now + Duration::from_millis(150));
                    let sent = near.write(*flow, vec![how; len], Priority::Data, late, now);
                    *reliable += u64::from(sent.is_ok() && late.is_none());
                }
            }
            3 => {
                if let Some((flow, _, closed)) = flows.get_mut(at) {
                    *closed = true;
                    near.finish(*flow, now);
                }
            }
            4 => now += Duration::from_millis(u64::from(how) * 4),
            5 => drop(wire.pop_front()),
            6 => wire.rotate_left(usize::from(how).min(wire.len())),
            7 => wire.extend(wire.front().cloned()),
            8 => {
                if let Some((flow, _)) = got.get(usize::from(how) % got.len().max(1)) {
                    far.set_order(*flow, Order::Arrival);
                }
            }
            _ => pass(&mut near, &mut far, &mut wire, usize::from(how), now),
        }
        exchange(&mut near, &mut far, &mut wire, &mut got, now);
    }
    for (flow, ..) in &flows {
        near.finish(*flow, now);
    }
    for _ in 0..100_000 {
        exchange(&mut near, &mut far, &mut wire, &mut got, now);
        if wire.is_empty() {
            if near.sends.is_empty() {
                break;
            }
            let due = [near.next_deadline(), far.next_deadline()];
            now = due
                .into_iter()
                .flatten()
                .map(|due| due.at)
                .min()
                .unwrap_or(now)
                .max(now);
        }
        pass(&mut near, &mut far, &mut wire, usize::MAX, now);
    }
    if near.is_open() && far.is_open() {
        assert!(near.sends.is_empty(), "a flow is stuck");
        let reliable: u64 = flows.iter().map(|(_, reliable, _)| *reliable).sum();
        let arrived: u64 = got.iter().map(|(_, arrived)| *arrived).sum();
        assert!(arrived >= reliable, "{arrived} of {reliable} arrived");
    }
}

fn pass(
    near: &mut Session,
    far: &mut Session,
    wire: &mut VecDeque<(bool, Vec<u8>)>,
    count: usize,
    now: Instant,
) {
    for _ in 0..count.min(wire.len()) {
        let Some((to_far, packet)) = wire.pop_front() else {
            return;
        };
        if to_far {
            far.handle_packet(SocketAddr::from(HERE), &packet, now);
        } else {
            near.handle_packet(SocketAddr::from(THERE), &packet, now);
        }
    }
}

fn exchange(
    near: &mut Session,
    far: &mut Session,
    wire: &mut VecDeque<(bool, Vec<u8>)>,
    got: &mut Vec<(ReceiveId, u64)>,
    now: Instant,
) {
    let mut buffer = [0; limits::DATAGRAM_MAX];
    for (to_far, session) in [(true, &mut *near), (false, &mut *far)] {
        if session.next_deadline().is_some_and(|due| due.at <= now) {
            session.handle_timeout(now);
        }
        while let Some(packet) = session.poll_transmit(&mut buffer, now) {
            wire.push_back((to_far, buffer[..packet.len].to_vec()));
        }
        while let Some(event) = session.poll_event() {
            if let Event::Message { flow, .. } = event {
                match got.iter_mut().find(|(known, _)| *known == flow) {
                    Some((_, count)) => *count += 1,
                    None => got.push((flow, 1)),
                }
            }
        }
    }
}
