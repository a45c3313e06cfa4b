//! Sessions that last, and sessions with a lot in them.

use std::time::Duration;

use selvage_rtmfp::flow::{Options, Priority};
use selvage_rtmfp::session::{Config, Event};

use crate::network::{Network, Side, Weather};

#[test]
fn a_session_lives_for_a_day_with_a_word_now_and_then() {
    let weather = Weather {
        loss_per_mille: 20,
        delay_ms: 40,
        jitter_ms: 10,
        ..Weather::default()
    };
    let mut network = Network::new(weather, &Config::default(), 11);
    let now = network.now;
    let flow = network
        .end(Side::Initiator)
        .open_flow(b"words", Options::default())
        .unwrap();
    let mut got = 0;
    // Timestamps wrap every 262 seconds, and an hour is no multiple of that.
    for hour in 0..24_u64 {
        let at = now + Duration::from_secs(hour * 3600 + hour);
        while network.now < at {
            got += messages(network.step(at));
        }
        let now = network.now;
        network
            .end(Side::Initiator)
            .write(flow, vec![7; 3000], Priority::Data, None, now)
            .unwrap();
    }
    let end = network.now + Duration::from_secs(60);
    while network.now < end {
        got += messages(network.step(end));
    }
    assert_eq!(got, 24);
    assert!(
        Side::BOTH
            .into_iter()
            .all(|side| network.end(side).is_open())
    );
    let trip = network.end(Side::Initiator).round_trip().unwrap();
    assert!(trip < Duration::from_millis(400), "{trip:?}");
    // One asks after every fifteen quiet seconds, the other answers.
    assert!(network.packets < 24 * 3600 / 15 * 5, "{}", network.packets);
}

fn messages(events: Vec<(Side, Event)>) -> usize {
    let is_message = |(_, event): &(Side, Event)| matches!(event, Event::Message { .. });
    events.iter().filter(|event| is_message(event)).count()
}

/// What is sent of each kind, and what of it arrives in time.
#[derive(Debug, Default)]
struct Tally {
    written: u64,
    arrived: u64,
}

#[test]
fn sound_goes_before_key_frames_before_others_in_two_hundred_flows_under_loss() {
    // 80 kB/s for what wants 136.
    let weather = Weather {
        loss_per_mille: 20,
        delay_ms: 20,
        bottleneck: Some((80, 16_000)),
        ..Weather::default()
    };
    let mut network = Network::new(weather, &Config::default(), 5);
    let options = Options {
        association: None,
        time_critical: true,
    };
    let kinds = [
        (Priority::Audio, 40, 1500),
        (Priority::Key, 400, 1500),
        (Priority::Delta, 1600, 1500),
    ];
    let flows: Vec<_> = (0..200_u8)
        .map(|number| {
            let metadata = [number % 3];
            let server = network.end(Side::Responder);
            (
                usize::from(number % 3),
                server.open_flow(&metadata, options).unwrap(),
            )
        })
        .collect();
    let mut tally: [Tally; 3] = Default::default();
    let mut kind_of = std::collections::BTreeMap::new();
    for turn in 0..60_u64 {
        let now = network.now;
        for (place, (kind, flow)) in flows.iter().enumerate() {
            // Each flow has its own moment in a second.
            if (turn + place as u64).is_multiple_of(5) {
                let (priority, len, life) = kinds[*kind];
                let late = Some(now + Duration::from_millis(life));
                let server = network.end(Side::Responder);
                let written = server.write(*flow, vec![0; len], priority, late, now);
                written.unwrap();
                tally[*kind].written += 1;
            }
        }
        let until = now + Duration::from_millis(200);
        while network.now < until {
            for (_, event) in network.step(until) {
                if let Event::FlowOpened { flow, metadata, .. } = event {
                    kind_of.insert(flow, usize::from(metadata[0]));
                } else if let Event::Message { flow, .. } = event {
                    tally[kind_of[&flow]].arrived += 1;
                } else {
                    assert!(!matches!(event, Event::Closed { .. }));
                }
            }
        }
    }
    let [audio, key, delta] = tally
        .each_ref()
        .map(|it| it.arrived as f64 / it.written as f64);
    println!("sound {audio:.3}, key frames {key:.3}, others {delta:.3}");
    assert!(audio > 0.97, "{tally:?}");
    assert!(audio >= key && key > delta, "{tally:?}");
    assert!(delta < 0.9, "it was too much: {tally:?}");
}
