//! Those who send datagrams to an edge and are no clients: single startup packets from any
//! address of the loopback network, and a network that is not kind to what passes it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rtmfp::chunk::{Chunk, InitiatorHello, InitiatorKeying, ResponderHello};
use rtmfp::crypto::identity::{Certificate, Discriminator, Identity};
use rtmfp::crypto::keying::{Initiation, Policy};
use rtmfp::crypto::{FlashSuite, Group, Suite};
use rtmfp::packet::{Packet, open_multiplex};
use rtmfp::startup::write_datagram;

/// A startup packet with one chunk, as a datagram.
///
/// # Panics
/// When it is longer than a startup packet may be.
pub fn startup(chunk: &Chunk<'_>) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let suite = &mut FlashSuite::startup();
    let len = write_datagram(suite, &mut buffer, 0, 1, chunk);
    buffer[..len.unwrap_or_else(|error| panic!("{error}"))].to_vec()
}

/// A hello for the server itself.
pub fn hello() -> Vec<u8> {
    startup(&Chunk::InitiatorHello(InitiatorHello {
        discriminator: &Discriminator::server(b"rtmfp://edge/live"),
        tag: &[7; 16],
    }))
}

/// One who can say that it wants a session, and never uses it.
#[derive(Debug)]
pub struct Stranger {
    socket: UdpSocket,
    edge: SocketAddr,
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl Stranger {
    /// Someone at an address of the loopback network: 127.0.0.`host`.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn new(host: u8, edge: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, host), 0))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, edge })
    }

    /// Where it is.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket")
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// As the system has it.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.edge).map(drop)
    }

    /// Takes what came without waiting, and counts its datagrams and bytes.
    pub fn heard(&self) -> (usize, usize) {
        let mut buffer = [0; 4096];
        let (mut count, mut bytes) = (0, 0);
        // A socket that cannot be told so would only wait.
        if self.socket.set_nonblocking(true).is_ok() {
            while let Ok((len, _)) = self.socket.recv_from(&mut buffer) {
                count += 1;
                bytes += len;
            }
        }
        (count, bytes)
    }

    /// Asks for a cookie and agrees on keys, and goes no further. Says whether the edge
    /// agreed.
    ///
    /// # Errors
    /// When the edge does not give a cookie.
    pub fn half_open(&self, wish: &Wish, session: u32) -> io::Result<bool> {
        self.send(&hello())?;
        let mut buffer = [0; 4096];
        let (len, _) = self.socket.recv_from(&mut buffer)?;
        let keying = with_hello(&mut buffer[..len], |answer| {
            wish.keying(answer.cookie, session)
        });
        self.send(&keying.ok_or(io::ErrorKind::InvalidData)?)?;
        Ok(self.socket.recv_from(&mut buffer).is_ok())
    }

    /// The certificate of the edge.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn certificate(&self) -> io::Result<Vec<u8>> {
        self.send(&hello())?;
        let mut buffer = [0; 4096];
        let (len, _) = self.socket.recv_from(&mut buffer)?;
        with_hello(&mut buffer[..len], |answer| answer.certificate.to_vec())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// What an answer to a hello says.
fn with_hello<T>(datagram: &mut [u8], then: impl FnOnce(ResponderHello<'_>) -> T) -> Option<T> {
    let (_, sealed) = open_multiplex(datagram).ok()?;
    let mut suite = FlashSuite::startup();
    let packet = Packet::parse(suite.open(sealed).ok()?).ok()?;
    match packet.chunks().next() {
        Some(Chunk::ResponderHello(answer)) => Some(then(answer)),
        Some(_) | None => None,
    }
}

/// What somebody wants a session with. The same serves for any number of them, so that they
/// cost the edge more than the one who asks.
#[derive(Debug)]
pub struct Wish {
    certificate: Vec<u8>,
    component: Vec<u8>,
}

impl Wish {
    /// A wish for sessions with an edge of this certificate.
    ///
    /// # Panics
    /// When the edge has no common group with it.
    pub fn new(edge: &[u8]) -> Self {
        let mut state = 1_u8;
        let mut chance = move |out: &mut [u8]| {
            for byte in out {
                state = state.wrapping_mul(181).wrapping_add(97);
                *byte = state;
            }
        };
        let group = Group::Modp1024;
        let made = Identity::ephemeral(&[group], false, None, &mut chance).and_then(|near| {
            let far = Certificate::parse(edge)?;
            let begun = Initiation::new(&near, &far, group, Policy::ALWAYS, &mut chance)?;
            Ok(Self {
                certificate: near.as_bytes().to_vec(),
                component: begun.component().to_vec(),
            })
        });
        made.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The keying of it.
    pub fn keying(&self, cookie: &[u8], session: u32) -> Vec<u8> {
        startup(&Chunk::InitiatorKeying(InitiatorKeying {
            session,
            cookie,
            certificate: &self.certificate,
            component: &self.component,
            signature: b"X",
        }))
    }
}

/// A network between one client and an edge that hands everything on, and with it whatever
/// `more` makes of each datagram, in both directions.
#[derive(Debug)]
pub struct Mangler {
    /// Where the client has to go.
    pub addr: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Mangler {
    /// Begins to hand on.
    ///
    /// # Errors
    /// When there are no sockets.
    pub fn new(
        edge: SocketAddr,
        more: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Clone + 'static,
    ) -> io::Result<Self> {
        let near = UdpSocket::bind("127.0.0.1:0")?;
        let far = UdpSocket::bind("127.0.0.1:0")?;
        far.connect(edge)?;
        let addr = near.local_addr()?;
        // The client is known by its first datagram.
        let mut buffer = vec![0; 4096];
        let stop = Arc::new(AtomicBool::new(false));
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        }
        let (near_in, far_out) = (near.try_clone()?, far.try_clone()?);
        let client = Arc::new(std::sync::Mutex::new(None));
        let (known, stopped, change) = (client.clone(), stop.clone(), more.clone());
        let up = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = near_in.recv_from(&mut buffer) {
                    if let Ok(mut known) = known.lock() {
                        *known = Some(from);
                    }
                    for datagram in change(&buffer[..len]) {
                        let _lost = far_out.send(&datagram);
                    }
                    let _lost = far_out.send(&buffer[..len]);
                }
            }
        });
        let stopped = stop.clone();
        let mut buffer = vec![0; 4096];
        let down = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(len) = far.recv(&mut buffer)
                    && let Some(to) = client.lock().ok().and_then(|known| *known)
                {
                    for datagram in more(&buffer[..len]) {
                        let _lost = near.send_to(&datagram, to);
                    }
                    let _lost = near.send_to(&buffer[..len], to);
                }
            }
        });
        Ok(Self {
            addr,
            stop,
            threads: vec![up, down],
        })
    }
}

impl Drop for Mangler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}
