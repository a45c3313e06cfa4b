//! Two sessions over a network that loses, repeats, reorders, holds up and rebinds. What
//! happens follows from a seed; a failure is one line with it, and `run` with that seed
//! plays it again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a broken run is to end the test at once"
)]

mod long;
mod network;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use network::{Chance, Network, Side, Weather};
use selvage_rtmfp::flow::{Options, Order, Priority, ReceiveId, SendId};
use selvage_rtmfp::session::{Config, Event, Refused};

/// How many seeds are played in every run.
const SEEDS: u64 = 1000;

#[test]
fn no_seed_gets_a_flow_stuck_or_loses_a_reliable_message() {
    for seed in 0..SEEDS {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(why)) => panic!("seed {seed}: {why}"),
            Err(_) => panic!("seed {seed}: a panic, see above"),
        }
    }
}

/// What a flow of the workload is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Everything arrives, in order.
    Reliable,
    /// Everything arrives, in any order.
    Unordered,
    /// In order; what is late does not arrive.
    Media,
    /// In any order; what is late does not arrive.
    UnorderedMedia,
}

#[derive(Debug)]
struct Flow {
    id: SendId,
    kind: Kind,
    priority: Priority,
    lifetime_ms: u64,
    to_write: u64,
    written: u64,
    closed: bool,
    finished: bool,
    late: Vec<u64>,
    far: Option<ReceiveId>,
    complete: bool,
    received: Vec<u64>,
}

fn run(seed: u64) -> Result<(), String> {
    let mut chance = Chance(seed ^ 0x5e1f);
    let weather = weather(&mut chance);
    let mut network = Network::new(weather, &config(&mut chance), seed);
    let mut flows: [Vec<Flow>; 2] = [Vec::new(), Vec::new()];
    for side in Side::BOTH {
        for number in 0..=chance.below(5) {
            flows[side as usize].push(open(&mut network, side, number, &mut chance));
        }
    }
    let end = Duration::from_secs(600);
    let mut steps = 0_u64;
    loop {
        for side in Side::BOTH {
            for flow in &mut flows[side as usize] {
                work(&mut network, side, flow, &mut chance);
            }
        }
        let next = network.now + Duration::from_millis(10 + chance.below(60));
        let busy = flows.iter().flatten().any(|flow| !flow.closed);
        let until = if busy { next } else { network.start + end };
        for (side, event) in network.step(until) {
            take(&mut network, &mut flows, side, event)?;
        }
        if flows
            .iter()
            .flatten()
            .all(|flow| flow.finished && flow.complete)
        {
            break;
        }
        steps += 1;
        let unfinished = || {
            let stuck = flows
                .iter()
                .flatten()
                .find(|flow| !(flow.finished && flow.complete));
            format!("{weather:?}: stuck after {steps} steps: {stuck:?}")
        };
        if network.now >= network.start + end || steps > 400_000 {
            return Err(unfinished());
        }
    }
    for side in Side::BOTH {
        let (_, outstanding) = network.end(side).in_flight();
        if outstanding != 0 {
            return Err(format!(
                "{side:?} counts {outstanding} bytes in flight at the end"
            ));
        }
        for flow in &flows[side as usize] {
            judge(flow)?;
        }
    }
    Ok(())
}

fn weather(chance: &mut Chance) -> Weather {
    let outage = 500 + chance.below(3000);
    Weather {
        loss_per_mille: [0, 5, 20, 50, 150, 250][usize::try_from(chance.below(6)).unwrap()],
        duplicate_per_mille: [0, 0, 20, 200][usize::try_from(chance.below(4)).unwrap()],
        delay_ms: chance.below(200),
        jitter_ms: [0, 3, 30, 120][usize::try_from(chance.below(4)).unwrap()],
        rebind_every_ms: chance.per_mille(300).then(|| 2500 + chance.below(6000)),
        stranger_per_mille: [0, 0, 50][usize::try_from(chance.below(3)).unwrap()],
        batch_ms: chance.per_mille(200).then(|| 1 + chance.below(40)),
        outage: chance.per_mille(200).then_some((outage, outage + 3000)),
        bottleneck: chance
            .per_mille(300)
            .then(|| (40 + chance.below(200), 30_000)),
    }
}

fn config(chance: &mut Chance) -> Config {
    Config {
        receive_buffer: [2_000, 70_000, 512 * 1024][usize::try_from(chance.below(3)).unwrap()],
        silence_max: Duration::from_secs(120),
        unacknowledged_max: Duration::from_secs(120),
        queue_max: 100_000,
        ..Config::default()
    }
}

fn open(network: &mut Network, side: Side, number: u64, chance: &mut Chance) -> Flow {
    let kind = [
        Kind::Reliable,
        Kind::Unordered,
        Kind::Media,
        Kind::UnorderedMedia,
    ][usize::try_from(chance.below(4)).unwrap()];
    let options = Options {
        association: None,
        time_critical: chance.per_mille(300),
    };
    let metadata = [u8::try_from(number).unwrap(), kind as u8];
    let id = network.end(side).open_flow(&metadata, options).unwrap();
    Flow {
        id,
        kind,
        priority: Priority::ALL[usize::try_from(chance.below(6)).unwrap()],
        lifetime_ms: 20 + chance.below(1500),
        to_write: chance.below(30),
        written: 0,
        closed: false,
        finished: false,
        late: Vec::new(),
        far: None,
        complete: false,
        received: Vec::new(),
    }
}

/// Writes the next messages of a flow, and closes it after the last.
fn work(network: &mut Network, side: Side, flow: &mut Flow, chance: &mut Chance) {
    if flow.closed || chance.per_mille(500) {
        return;
    }
    let now = network.now;
    if flow.written == flow.to_write {
        flow.closed = true;
        network.end(side).finish(flow.id, now);
        return;
    }
    let longest = [10, 300, 1200, 12_000][usize::try_from(chance.below(4)).unwrap()];
    let body = body(
        flow.written,
        usize::try_from(chance.below(longest)).unwrap(),
    );
    let parts = [Bytes::from(flow.written.to_be_bytes().to_vec()), body];
    let deadline = match flow.kind {
        Kind::Media | Kind::UnorderedMedia => Some(now + Duration::from_millis(flow.lifetime_ms)),
        Kind::Reliable | Kind::Unordered => None,
    };
    let (id, priority) = (flow.id, flow.priority);
    match network.end(side).write(id, parts, priority, deadline, now) {
        Ok(message) => {
            assert_eq!(message.0, flow.written);
            flow.written += 1;
        }
        Err(Refused::Full) => {}
        Err(other) => panic!("{other}"),
    }
}

fn body(number: u64, len: usize) -> Bytes {
    (0..len)
        .map(|at| u8::try_from((at as u64 * 7 + number * 13) & 0xff).unwrap())
        .collect()
}

fn take(
    network: &mut Network,
    flows: &mut [Vec<Flow>; 2],
    side: Side,
    event: Event,
) -> Result<(), String> {
    let of_far = |flows: &mut [Vec<Flow>; 2], id: ReceiveId| {
        let list = &flows[side.other() as usize];
        list.iter().position(|flow| flow.far == Some(id))
    };
    match event {
        Event::FlowOpened { flow, metadata, .. } => {
            let sender = &mut flows[side.other() as usize][usize::from(metadata[0])];
            if sender.far.replace(flow).is_some() {
                return Err(format!("{flow} opened twice"));
            }
            if matches!(sender.kind, Kind::Unordered | Kind::UnorderedMedia) {
                network.end(side).set_order(flow, Order::Arrival);
            }
        }
        Event::Message { flow, message } => {
            let at = of_far(flows, flow).ok_or("a message of no flow")?;
            let (head, rest) = message.bytes.split_at(8);
            let number = u64::from_be_bytes(head.try_into().unwrap());
            if rest != body(number, rest.len()) {
                return Err(format!("message {number} of {flow} was changed"));
            }
            flows[side.other() as usize][at].received.push(number);
        }
        Event::FlowComplete { flow } => {
            let at = of_far(flows, flow).ok_or("the end of no flow")?;
            flows[side.other() as usize][at].complete = true;
        }
        Event::FlowFinished { flow } => {
            let found = flows[side as usize].iter_mut().find(|own| own.id == flow);
            let own = found.ok_or("no such flow finished")?;
            own.finished = true;
            // The far end never learns of a flow in which nothing was sent.
            own.complete |= own.far.is_none();
        }
        Event::Late { flow, message } => {
            let found = flows[side as usize].iter_mut().find(|own| own.id == flow);
            found.ok_or("late in no flow")?.late.push(message.0);
        }
        Event::Writable { .. } | Event::Moved { .. } => {}
        Event::FlowBroken { .. }
        | Event::FlowRejected { .. }
        | Event::ForwardedHello { .. }
        | Event::Closed { .. } => return Err(format!("{side:?} saw {event:?}")),
    }
    Ok(())
}

fn judge(flow: &Flow) -> Result<(), String> {
    let mut times = BTreeMap::new();
    for number in &flow.received {
        *times.entry(*number).or_insert(0) += 1;
    }
    if let Some((number, _)) = times.iter().find(|(_, times)| **times > 1) {
        return Err(format!("message {number} came twice: {flow:?}"));
    }
    let ordered = matches!(flow.kind, Kind::Reliable | Kind::Media);
    if ordered && !flow.received.is_sorted() {
        return Err(format!("out of order: {flow:?}"));
    }
    let missing = (0..flow.written)
        .filter(|number| !times.contains_key(number))
        .find(|number| !flow.late.contains(number));
    if let Some(number) = missing {
        return Err(format!("message {number} is lost: {flow:?}"));
    }
    let reliable = matches!(flow.kind, Kind::Reliable | Kind::Unordered);
    if reliable && !flow.late.is_empty() {
        return Err(format!("a reliable message was late: {flow:?}"));
    }
    Ok(())
}

/// Sends `len` bytes from the responder and returns how many bytes a second arrive.
fn rate(weather: Weather, len: usize, time_critical: bool) -> u64 {
    let mut network = Network::new(weather, &Config::default(), 1);
    let options = Options {
        association: None,
        time_critical,
    };
    let now = network.now;
    let server = network.end(Side::Responder);
    let flow = server.open_flow(b"bulk", options).unwrap();
    let whole = vec![1; len / 16];
    for _ in 0..16 {
        let message = whole.clone();
        server
            .write(flow, message, Priority::Data, None, now)
            .unwrap();
    }
    server.finish(flow, now);
    let until = network.start + Duration::from_secs(600);
    loop {
        let events = network.step(until);
        let done = |(_, event): &(_, Event)| matches!(event, Event::FlowFinished { .. });
        if events.iter().any(done) {
            return len as u64 * 1000 / network.elapsed_ms().max(1);
        }
        assert!(network.now < until, "the transfer hangs");
    }
}

#[test]
fn throughput_is_what_the_window_allows() {
    let path = Weather {
        delay_ms: 50,
        ..Weather::default()
    };
    let clean = rate(path, 4_000_000, false);
    assert!(clean > 400_000, "clean: {clean} bytes a second");
    let lossy = Weather {
        loss_per_mille: 10,
        ..path
    };
    let bulk = rate(lossy, 2_000_000, false);
    assert!(bulk > 80_000, "1 % loss: {bulk} bytes a second");
    let critical = rate(lossy, 2_000_000, true);
    assert!(
        critical > 80_000,
        "time critical: {critical} bytes a second"
    );
    println!("clean {clean}, 1 % loss {bulk}, time critical {critical}");
}

#[test]
fn a_far_end_that_answers_many_packets_at_once_is_sent_what_the_window_allows() {
    let path = Weather {
        delay_ms: 200,
        batch_ms: Some(20),
        ..Weather::default()
    };
    let batches = rate(path, 2_000_000, false);
    // Six packets a round trip would be 17,000.
    assert!(batches > 60_000, "{batches} bytes a second");
    println!("answers every 20 ms, 400 ms of round trip: {batches}");
}

#[test]
fn a_player_that_sends_nothing_is_found_again_within_a_second() {
    let weather = Weather {
        delay_ms: 20,
        rebind_every_ms: Some(5000),
        ..Weather::default()
    };
    let mut network = Network::new(weather, &Config::default(), 3);
    let options = Options {
        association: None,
        time_critical: true,
    };
    let server = network.end(Side::Responder);
    let flow = server.open_flow(b"video", options).unwrap();
    let mut heard = network.start;
    let mut longest = Duration::ZERO;
    let mut next = network.start;
    while network.elapsed_ms() < 19_000 {
        if network.now >= next {
            let now = network.now;
            let late = Some(now + Duration::from_secs(2));
            let frame = vec![0; 4000];
            let server = network.end(Side::Responder);
            server
                .write(flow, frame, Priority::Delta, late, now)
                .unwrap();
            next += Duration::from_millis(33);
        }
        for (side, event) in network.step(next) {
            if side == Side::Initiator && matches!(event, Event::Message { .. }) {
                longest = longest.max(network.now - heard);
                heard = network.now;
            }
        }
    }
    assert_eq!(network.moves, 3);
    assert!(
        longest < Duration::from_secs(1),
        "{longest:?} without media"
    );
}
