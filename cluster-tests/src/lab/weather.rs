//! Bad weather between datagram clients and one server: loss, delay, disorder, doubles,
//! packets that are too long, ports that change, and somebody who sends what is not theirs.
//!
//! ```text
//!   client ──▶ front ──wire──▶ a port per client ──▶ server
//!          ◀──        ◀──wire──                  ◀──
//!                        └──▶ the stranger's port ─▶
//! ```
//!
//! The same rules as on the links of a netlab, from the same dice, without the rights that
//! one needs. What the n-th packet of a direction meets follows from the seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlab::{Impairment, Wire};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How soon an order is carried out when no packet comes.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Datagrams that are under way at most, in both directions.
const FLYING_MAX: usize = 20_000;

/// Datagrams of one socket that are taken before the others have their turn.
const BURST: usize = 64;

/// The longest datagram.
const DATAGRAM_MAX: usize = 65_536;

/// The weather before one server.
#[derive(Debug)]
pub struct Weather {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

/// What somebody does who can read and send on the way to the server, but has no keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stranger {
    /// Nothing.
    #[default]
    Absent,
    /// What clients send comes from the stranger's address too, and there first.
    Copies,
    /// What clients send comes from the stranger's address only.
    Captures,
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Datagrams of clients.
    pub up: u64,
    /// Datagrams of the server.
    pub down: u64,
    /// Those that were too long to pass.
    pub too_long: u64,
    /// Those of the server to ports that are no more.
    pub to_nobody: u64,
    /// Bytes that the stranger sent to the server.
    pub strange_sent: u64,
    /// Bytes that the server sent to the stranger.
    pub strange_got: u64,
    /// The longest datagram that it sent there.
    pub strange_longest: usize,
}

#[derive(Debug)]
struct State {
    rule: Impairment,
    longest: usize,
    stranger: Stranger,
    /// How often the clients' ports have changed.
    ports: u32,
    counted: Counted,
    over: bool,
}

impl Weather {
    /// Begins before a server, with this in both directions.
    ///
    /// # Panics
    /// When there are no ports.
    #[track_caller]
    pub fn before(server: SocketAddr, rule: &Impairment, seed: u64) -> Self {
        let state = Arc::new(Mutex::new(State {
            rule: rule.clone(),
            longest: DATAGRAM_MAX,
            stranger: Stranger::Absent,
            ports: 0,
            counted: Counted::default(),
            over: false,
        }));
        let front = port().expect("a port for clients");
        let addr = front.local_addr().expect("a bound socket has an address");
        let sky = Sky {
            server,
            front,
            stranger: port().expect("a port for the stranger"),
            clients: Vec::new(),
            up: Wire::new(seed, "clients", "server", rule),
            down: Wire::new(seed, "server", "clients", rule),
            flying: BinaryHeap::new(),
            number: 0,
            ports: 0,
        };
        let shared = Arc::clone(&state);
        let thread = Some(std::thread::spawn(move || sky.run(&shared)));
        Self {
            addr,
            state,
            thread,
        }
    }

    /// Where clients reach the server.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The weather changes, in both directions.
    pub fn turns(&self, rule: &Impairment) {
        self.state().rule = rule.clone();
    }

    /// Datagrams with more than so many bytes vanish from now on, and nobody is told.
    pub fn swallows_above(&self, bytes: usize) {
        self.state().longest = bytes;
    }

    /// Every client has another port from now on, as behind a translator that has begun
    /// anew: what is sent to the old ones is lost.
    pub fn rebind(&self) {
        self.state().ports += 1;
    }

    /// Somebody does this from now on.
    pub fn stranger(&self, does: Stranger) {
        self.state().stranger = does;
    }

    /// What has happened so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.state().counted
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        self.state().over = true;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// What the thread has.
#[derive(Debug)]
struct Sky {
    server: SocketAddr,
    front: UdpSocket,
    stranger: UdpSocket,
    /// Where a client is, and the port that it has before the server.
    clients: Vec<(SocketAddr, UdpSocket)>,
    up: Wire,
    down: Wire,
    flying: BinaryHeap<Reverse<Flight>>,
    number: u64,
    ports: u32,
}

/// A datagram under way, ordered by when it arrives.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    number: u64,
    way: Way,
    bytes: Vec<u8>,
}

/// From which socket to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// From a client's port to the server.
    Up(usize),
    /// From the stranger's.
    Strange,
    /// To a client, of the server's to a port that was its then.
    Down(usize),
}

impl Sky {
    fn run(mut self, state: &Mutex<State>) {
        let mut datagram = vec![0; DATAGRAM_MAX];
        loop {
            self.wait();
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.over {
                return;
            }
            self.up.set(&state.rule);
            self.down.set(&state.rule);
            if self.ports != state.ports {
                self.ports = state.ports;
                self.rebind(&mut state);
            }
            self.take_from_clients(&mut state, &mut datagram);
            self.take_from_server(&mut state, &mut datagram);
            self.take_from_stranger(&mut state, &mut datagram);
            self.deliver();
        }
    }

    /// Until a datagram can be read or one arrives.
    fn wait(&self) {
        let due = self.flying.peek().map(|first| first.0.due);
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let wait = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: wait.subsec_nanos().into(),
        };
        let sockets = [&self.front, &self.stranger].into_iter();
        let sockets = sockets.chain(self.clients.iter().map(|(_, socket)| socket));
        let mut polled: Vec<_> = sockets
            .map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN))
            .collect();
        // A signal: it is looked at all sockets anyway.
        let _interrupted = poll(&mut polled, Some(&timeout));
    }

    fn rebind(&mut self, state: &mut State) {
        let mut rest = vec![0; DATAGRAM_MAX];
        for (_, socket) in &mut self.clients {
            while socket.recv_from(&mut rest).is_ok() {
                state.counted.to_nobody += 1;
            }
            *socket = port().expect("a port for a client");
        }
        // What was under way to the old ports as well.
        let before = self.flying.len();
        self.flying
            .retain(|flight| !matches!(flight.0.way, Way::Down(_)));
        state.counted.to_nobody += count(before - self.flying.len());
    }

    fn take_from_clients(&mut self, state: &mut State, datagram: &mut [u8]) {
        for _ in 0..BURST {
            let Ok((len, from)) = self.front.recv_from(datagram) else {
                return;
            };
            state.counted.up += 1;
            let known = self.clients.iter().position(|(client, _)| *client == from);
            let client = known.unwrap_or_else(|| {
                let port = port().expect("a port for a client");
                self.clients.push((from, port));
                self.clients.len() - 1
            });
            let bytes = &datagram[..len];
            match state.stranger {
                Stranger::Absent => self.fly(state, Way::Up(client), bytes),
                Stranger::Copies => {
                    self.strange(state, bytes);
                    self.fly(state, Way::Up(client), bytes);
                }
                Stranger::Captures => self.strange(state, bytes),
            }
        }
    }

    /// The stranger has a line of its own, and is never slower.
    fn strange(&mut self, state: &mut State, bytes: &[u8]) {
        state.counted.strange_sent += count(bytes.len());
        self.push(Instant::now(), Way::Strange, bytes);
    }

    fn take_from_server(&mut self, state: &mut State, datagram: &mut [u8]) {
        for client in 0..self.clients.len() {
            for _ in 0..BURST {
                let Ok((len, _)) = self.clients[client].1.recv_from(datagram) else {
                    break;
                };
                state.counted.down += 1;
                self.fly(state, Way::Down(client), &datagram[..len]);
            }
        }
    }

    fn take_from_stranger(&mut self, state: &mut State, datagram: &mut [u8]) {
        while let Ok((len, _)) = self.stranger.recv_from(datagram) {
            state.counted.strange_got += count(len);
            state.counted.strange_longest = state.counted.strange_longest.max(len);
        }
    }

    fn fly(&mut self, state: &mut State, way: Way, bytes: &[u8]) {
        if bytes.len() > state.longest {
            state.counted.too_long += 1;
            return;
        }
        let now = Instant::now();
        let wire = match way {
            Way::Up(_) | Way::Strange => &mut self.up,
            Way::Down(_) => &mut self.down,
        };
        for due in wire.judge(now, bytes.len()).into_iter().flatten() {
            self.push(due, way, bytes);
        }
    }

    fn push(&mut self, due: Instant, way: Way, bytes: &[u8]) {
        if self.flying.len() < FLYING_MAX {
            self.number += 1;
            self.flying.push(Reverse(Flight {
                due,
                number: self.number,
                way,
                bytes: bytes.to_vec(),
            }));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while self.flying.peek().is_some_and(|first| first.0.due <= now) {
            let Some(Reverse(flight)) = self.flying.pop() else {
                return;
            };
            // A socket whose buffer is full, or whose other end is gone, loses it.
            let _lost = match flight.way {
                Way::Up(client) => self.clients[client].1.send_to(&flight.bytes, self.server),
                Way::Strange => self.stranger.send_to(&flight.bytes, self.server),
                Way::Down(client) => self.front.send_to(&flight.bytes, self.clients[client].0),
            };
        }
    }
}

fn port() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
