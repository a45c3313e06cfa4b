//! A UDP socket that takes and gives many datagrams in one system call.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use quinn_udp::{RecvMeta, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Buffers for one system call of receiving. Each holds as many datagrams of one sender as
/// the kernel has put together.
const BUFFERS: usize = 32;

/// The length of one.
const BUFFER: usize = 64 * 1024;

/// Bytes that one system call of sending takes: as many datagrams as the kernel cuts out of
/// one of the greatest length, and room for the one that does not fit any more.
pub(super) const BATCH: usize = 60 * 1024;

/// A socket of one shard.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    /// Registers a bound socket with the shard's reactor.
    ///
    /// # Errors
    /// It cannot be registered or set up.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        socket.set_nonblocking(true)?;
        let io = UdpSocket::from_std(socket)?;
        Ok(Self { io, state })
    }

    /// Waits for datagrams. Says how many buffers of `room` are filled.
    ///
    /// # Errors
    /// As the system has it.
    pub(super) async fn receive(&self, room: &mut Room) -> io::Result<usize> {
        loop {
            self.io.readable().await?;
            let mut buffers = room.bytes.chunks_exact_mut(BUFFER);
            let mut slices: [_; BUFFERS] =
                std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
            let received = self.io.try_io(Interest::READABLE, || {
                let socket = (&self.io).into();
                self.state.recv(socket, &mut slices, &mut room.metas)
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Sends datagrams of the length `segment`, of which the last may be shorter, and waits
    /// while the socket has no room. What cannot be sent is lost, as it may be on its way.
    pub(super) async fn send(&self, to: SocketAddr, datagrams: &[u8], segment: usize) {
        let transmit = quinn_udp::Transmit {
            destination: to,
            ecn: None,
            contents: datagrams,
            segment_size: (segment < datagrams.len()).then_some(segment),
            src_ip: None,
        };
        loop {
            let sent = self.io.try_io(Interest::WRITABLE, || {
                self.state.try_send((&self.io).into(), &transmit)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.io.writable().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::trace!(%to, %error, "datagrams were not sent");
                    return;
                }
                Ok(()) => return,
            }
        }
    }

    /// Datagrams that one batch holds at most.
    pub(super) fn batch_max(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }
}

/// What datagrams are received into.
pub(super) struct Room {
    /// One buffer after the other. What was never written to takes no memory.
    bytes: Vec<u8>,
    metas: [RecvMeta; BUFFERS],
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; BUFFERS * BUFFER],
            metas: [RecvMeta::default(); BUFFERS],
        }
    }

    /// The datagrams in the first so many buffers, each with its sender.
    pub(super) fn datagrams(
        &mut self,
        count: usize,
    ) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        let buffers = self
            .bytes
            .chunks_exact_mut(BUFFER)
            .zip(&self.metas)
            .take(count);
        buffers.flat_map(|(buffer, meta)| {
            let datagrams = buffer.get_mut(..meta.len).unwrap_or_default();
            let datagrams = datagrams.chunks_mut(meta.stride.max(1));
            datagrams.map(|datagram| (meta.addr, datagram))
        })
    }
}
