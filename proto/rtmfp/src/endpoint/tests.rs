use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::crypto::KeyPair;
use crate::crypto::identity::Discriminator;
use crate::flow::{Options, Priority};

mod hostile;
mod opening;

#[allow(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn entropy(seed: u64) -> impl FnMut(&mut [u8]) + Send {
    let mut state = seed;
    move |out: &mut [u8]| {
        for byte in out {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new([192, 0, 2, 1].into(), port)
}

const GROUPS: &[Group] = &[Group::Modp1024];

fn ephemeral(seed: u64) -> Identity {
    Identity::ephemeral(GROUPS, true, None, &mut entropy(seed)).unwrap()
}

fn with_static_key(seed: u64) -> Identity {
    let pair = KeyPair::generate(Group::Modp1024, &mut entropy(seed)).unwrap();
    Identity::with_static_keys(vec![pair], false, None).unwrap()
}

/// Endpoints, each at its address, and a network that loses nothing.
struct World {
    now: Instant,
    ends: Vec<(SocketAddr, Endpoint)>,
    network: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    events: Vec<(usize, Event)>,
    /// Datagrams that endpoints may give at once.
    max: usize,
    /// How often they gave some.
    batches: usize,
    /// Datagrams and bytes from and to an address.
    sent: Vec<(SocketAddr, SocketAddr, usize)>,
}

impl World {
    fn new(now: Instant) -> Self {
        Self {
            now,
            ends: Vec::new(),
            network: VecDeque::new(),
            events: Vec::new(),
            max: 1,
            batches: 0,
            sent: Vec::new(),
        }
    }

    fn add(&mut self, port: u16, identity: Identity) -> usize {
        self.add_with(port, Config::new(identity))
    }

    fn add_with(&mut self, port: u16, config: Config) -> usize {
        let cookies = Cookies::new([port.to_be_bytes()[1]; 32], self.now);
        let entropy = Box::new(entropy(u64::from(port)));
        self.ends
            .push((at(port), Endpoint::new(config, cookies, entropy, self.now)));
        self.ends.len() - 1
    }

    /// Lets everything happen that happens without time going by.
    fn settle(&mut self) {
        let mut buffer = vec![0; limits::STARTUP_DATAGRAM_MAX.max(self.max * limits::DATAGRAM_MAX)];
        for _ in 0..10_000 {
            let mut idle = true;
            for (place, (from, end)) in self.ends.iter_mut().enumerate() {
                let batch = end.poll_batch(self.now, &mut buffer, self.max);
                match batch.output {
                    Output::Transmit { to, len } => {
                        assert!(batch.segment <= limits::DATAGRAM_MAX);
                        assert!(len.div_ceil(batch.segment) <= self.max);
                        for datagram in buffer[..len].chunks(batch.segment) {
                            self.sent.push((*from, to, datagram.len()));
                            self.network.push_back((*from, to, datagram.to_vec()));
                        }
                        self.batches += 1;
                        idle = false;
                    }
                    Output::Event(event) => {
                        self.events.push((place, event));
                        idle = false;
                    }
                    Output::Timeout(_) => {}
                }
            }
            while let Some((from, to, mut datagram)) = self.network.pop_front() {
                if let Some((_, end)) = self.ends.iter_mut().find(|(at, _)| *at == to) {
                    end.handle_datagram(from, &mut datagram, self.now);
                    idle = false;
                }
            }
            if idle {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    fn opened(&self, place: usize) -> Vec<SessionId> {
        let of_place = self.events.iter().filter(|(at, _)| *at == place);
        of_place
            .filter_map(|(_, event)| {
                if let Event::Opened { session, .. } = event {
                    Some(*session)
                } else {
                    None
                }
            })
            .collect()
    }
}

fn client_and_server() -> (World, usize, usize) {
    let mut world = World::new(start());
    let client = world.add(5000, with_static_key(1));
    let server = world.add(1935, ephemeral(2));
    (world, client, server)
}

fn open(world: &mut World, from: usize, wanted: &[u8], to: u16) {
    let now = world.now;
    world.ends[from].1.open(wanted, &[at(to)], now);
    world.settle();
    speak(world, from);
}

/// What shows that the keys are held: a client's first message.
fn speak(world: &mut World, from: usize) {
    let ids = world.opened(from);
    let (now, end) = (world.now, &mut world.ends[from].1);
    if let Some(session) = ids.last().and_then(|id| end.session_mut(*id)) {
        let flow = session.open_flow(b"x", Options::default()).unwrap();
        let message = bytes::Bytes::from_static(b"m");
        session
            .write(flow, message, Priority::ALL[0], None, now)
            .unwrap();
    }
    world.settle();
}

const URL: &[u8] = b"\x0e\x0artmfp://h/app";

#[test]
fn a_session_opens_and_carries_a_message() {
    let (mut world, client, server) = client_and_server();
    let url = Discriminator::server(b"rtmfp://h/app");
    open(&mut world, client, &url, 1935);
    let (near, far) = (world.opened(client), world.opened(server));
    assert_eq!((near.len(), far.len()), (1, 1));
    let now = world.now;
    let session = world.ends[client].1.session_mut(near[0]).unwrap();
    let flow = session.open_flow(b"TC\x04\0", Options::default()).unwrap();
    let message = bytes::Bytes::from(vec![9; 5000]);
    session
        .write(flow, message.clone(), Priority::ALL[0], None, now)
        .unwrap();
    world.settle();
    let got = world.events.iter().find_map(|(place, event)| {
        if let Event::Session {
            event: session::Event::Message { message, .. },
            ..
        } = event
            && *place == server
            && message.bytes.len() > 1
        {
            Some(message.bytes.clone())
        } else {
            None
        }
    });
    assert_eq!(got, Some(message));
    assert_eq!(world.ends[server].1.stats().dropped, 0);
}

/// What comes of messages of all lengths, and in how many turns they went.
fn carried(policy: Policy, max: usize) -> (Vec<usize>, usize, usize) {
    let mut world = World::new(start());
    let mut config = Config::new(with_static_key(1));
    config.begin.1 = policy;
    let client = world.add_with(5000, config);
    let server = world.add(1935, ephemeral(2));
    open(&mut world, client, URL, 1935);
    world.settle();
    world.max = max;
    (world.batches, world.sent) = (0, Vec::new());
    let id = world.opened(client)[0];
    let now = world.now;
    let session = world.ends[client].1.session_mut(id).unwrap();
    for (metadata, lens) in [(b"a", [1, 60_000]), (b"b", [2000, 300]), (b"c", [5, 6])] {
        let flow = session.open_flow(metadata, Options::default()).unwrap();
        for len in lens {
            let message: Vec<u8> = (0..len).map(|n: u32| n.to_be_bytes()[3]).collect();
            session
                .write(flow, message, Priority::ALL[0], None, now)
                .unwrap();
        }
    }
    world.settle();
    let mut lens = Vec::new();
    for (at, event) in &world.events {
        if let Event::Session { event, .. } = event
            && let session::Event::Message { message, .. } = event
            && *at == server
        {
            let right = (0_u32..).map(|n| n.to_be_bytes()[3]);
            let as_sent = message
                .bytes
                .iter()
                .copied()
                .eq(right.take(message.bytes.len()));
            assert!(as_sent || &message.bytes[..] == b"m");
            lens.push(message.bytes.len());
        }
    }
    lens.sort_unstable();
    (lens, world.batches, world.sent.len())
}

#[test]
fn datagrams_that_are_given_together_are_those_that_are_given_alone() {
    for policy in [Policy::ALWAYS, Policy::MIRROR] {
        let (alone, turns, datagrams) = carried(policy, 1);
        assert_eq!(alone, [1, 1, 5, 6, 300, 2000, 60_000]);
        assert_eq!(turns, datagrams);
        for max in [2, 7, 8, 9, 64] {
            let (together, turns, datagrams) = carried(policy, max);
            assert_eq!(together, alone);
            assert!(turns < datagrams, "{turns} turns for {datagrams} datagrams");
        }
    }
}

#[test]
fn a_hello_leaves_nothing_behind() {
    let (mut world, _, server) = client_and_server();
    let mut suite = FlashSuite::startup();
    let chunk = Chunk::InitiatorHello(crate::chunk::InitiatorHello {
        discriminator: &Discriminator::server(b"rtmfp://h/app"),
        tag: &[3; 16],
    });
    let mut buffer = [0; 200];
    let len = startup::write_datagram(&mut suite, &mut buffer, 0, 1, &chunk).unwrap();
    for port in 10_000..11_000 {
        world
            .network
            .push_back((at(port), at(1935), buffer[..len].to_vec()));
    }
    world.settle();
    let (_, end) = &world.ends[server];
    assert!(end.is_empty() && end.by_address.is_empty() && end.timers.is_empty());
    assert!(
        end.stats().hellos > 0 && end.stats().limited > 0,
        "{:?}",
        end.stats()
    );
    assert!(world.sent.len() <= limits::STARTUP_QUEUE_MAX);
}

#[test]
fn who_names_nobody_meets_silence() {
    let (mut world, client, _) = client_and_server();
    open(&mut world, client, &[2, 0, b'h'], 1935);
    assert!(world.sent.iter().all(|(from, _, _)| *from != at(1935)));
    world.wait(Duration::from_secs(95));
    let failed = |(_, event): &(usize, Event)| matches!(event, Event::OpenFailed { .. });
    assert_eq!(world.events.iter().filter(|event| failed(event)).count(), 1);
}

#[test]
fn a_front_port_sends_hellos_elsewhere() {
    let (mut world, client, shard) = client_and_server();
    let mut config = Config::new(ephemeral(2));
    config.redirect = vec![Address {
        at: at(1935),
        origin: Origin::Relay,
    }];
    let front = world.add_with(80, config);
    open(&mut world, client, URL, 80);
    assert_eq!(world.opened(front), []);
    assert_eq!(world.opened(shard).len(), 1);
    let answered: Vec<_> = world
        .sent
        .iter()
        .filter(|(from, _, _)| *from == at(80))
        .collect();
    assert!(answered.iter().all(|(_, _, len)| *len <= world.sent[0].2));
}

#[test]
fn two_peers_are_introduced() {
    let (mut world, a, server) = client_and_server();
    let b = world.add(6000, ephemeral(3));
    open(&mut world, a, URL, 1935);
    open(&mut world, b, URL, 1935);
    world.settle();
    let target = *world.ends[b].1.identity().fingerprint();
    open(&mut world, a, &Discriminator::canonical(&target), 1935);
    let asked = world.events.iter().find_map(|(place, event)| {
        if let Event::Introduce {
            target,
            held,
            from,
            tag,
            room,
        } = event
            && *place == server
        {
            Some((*target, *held, *from, tag.clone(), *room))
        } else {
            None
        }
    });
    let (wanted, held, from, tag, room) = asked.unwrap();
    assert_eq!((wanted, from), (target, at(5000)));
    let (now, end) = (world.now, &mut world.ends[server].1);
    let held = held.unwrap();
    let addresses = end.addresses_of(held);
    assert_eq!(addresses[0].at, at(6000));
    end.redirect(from, &tag, &addresses, room, now);
    let reply = Address {
        at: from,
        origin: Origin::Observed,
    };
    assert!(end.forward(held, &Discriminator::canonical(&wanted), reply, &tag));
    world.settle();
    speak(&mut world, a);
    assert_eq!(world.opened(a).len(), 2, "{:?}", world.events);
    assert_eq!(world.opened(b).len(), 2);
}

#[test]
fn two_who_begin_at_once_have_one_session() {
    let mut world = World::new(start());
    let (a, b) = (world.add(5000, ephemeral(1)), world.add(6000, ephemeral(2)));
    let now = world.now;
    let [id_a, id_b] = [a, b].map(|end| *world.ends[end].1.identity().fingerprint());
    world.ends[a]
        .1
        .open(&Discriminator::canonical(&id_b), &[at(6000)], now);
    world.ends[b]
        .1
        .open(&Discriminator::canonical(&id_a), &[at(5000)], now);
    world.settle();
    for end in [a, b] {
        assert_eq!(world.opened(end).len(), 1);
        let (_, end) = &world.ends[end];
        assert_eq!((end.len(), end.openings.len()), (1, 0));
    }
}

#[test]
fn one_who_comes_back_with_its_static_key_replaces_its_old_session() {
    let (mut world, client, server) = client_and_server();
    open(&mut world, client, URL, 1935);
    let old = world.opened(server)[0];
    // The same peer from another address, as after a crash.
    let again = world.add(7000, with_static_key(1));
    open(&mut world, again, URL, 1935);
    let closed = world.events.iter().filter(|(place, event)| {
        *place == server
            && matches!(event, Event::Session { session, event: session::Event::Closed { .. } } if *session == old)
    });
    assert_eq!(closed.count(), 1);
    assert_eq!(world.ends[server].1.len(), 1);
}

#[test]
fn a_keying_that_comes_twice_is_answered_alike() {
    let (mut world, client, server) = client_and_server();
    let now = world.now;
    world.ends[client].1.open(URL, &[at(1935)], now);
    // The keying is the second datagram of the client.
    let mut buffer = [0; limits::STARTUP_DATAGRAM_MAX];
    let mut transmit = |world: &mut World, place: usize| loop {
        match world.ends[place].1.poll_output(now, &mut buffer) {
            Output::Transmit { len, .. } => return Some(buffer[..len].to_vec()),
            Output::Event(_) => {}
            Output::Timeout(_) => return None,
        }
    };
    let mut hello = transmit(&mut world, client).unwrap();
    world.ends[server]
        .1
        .handle_datagram(at(5000), &mut hello, now);
    let mut answer = transmit(&mut world, server).unwrap();
    world.ends[client]
        .1
        .handle_datagram(at(1935), &mut answer, now);
    let keying = transmit(&mut world, client).unwrap();
    let mut answers = Vec::new();
    for _ in 0..3 {
        world.ends[server]
            .1
            .handle_datagram(at(5000), &mut keying.clone(), now);
        answers.push(transmit(&mut world, server).unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(world.ends[server].1.len(), 1);
    assert_eq!(world.ends[server].1.stats().keyings, 1);
    // From another address it only earns a cookie.
    world.ends[server]
        .1
        .handle_datagram(at(5001), &mut keying.clone(), now);
    let changed = transmit(&mut world, server).unwrap();
    assert!(changed.len() < keying.len());
    assert_eq!(world.ends[server].1.len(), 1);
}

#[test]
fn whatever_comes_is_borne() {
    let (mut world, client, server) = client_and_server();
    open(&mut world, client, URL, 1935);
    let mut noise = entropy(77);
    let now = world.now;
    for len in 0..600 {
        let mut datagram = vec![0; len];
        noise(&mut datagram);
        world.ends[server]
            .1
            .handle_datagram(at(5000), &mut datagram, now);
    }
    world.settle();
    assert_eq!(world.ends[server].1.len(), 1);
}
