//! A UDP socket that takes many datagrams in one system call.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};

use quinn_udp::{RecvMeta, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Buffers for one system call. Each holds as many datagrams as the kernel has put together.
const BUFFERS: usize = 4;

/// What all sockets of a measurement receive into, one after the other.
#[derive(Debug)]
pub(super) struct Room {
    buffers: [Vec<u8>; BUFFERS],
    metas: [RecvMeta; BUFFERS],
}

impl Default for Room {
    fn default() -> Self {
        Self {
            buffers: std::array::from_fn(|_| vec![0; 64 * 1024]),
            metas: [RecvMeta::default(); BUFFERS],
        }
    }
}

/// A socket at a free port of the loopback.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    pub(super) fn new() -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let state = UdpSocketState::new((&socket).into())?;
        // A burst of pictures for every player waits here while others are read.
        let _ = state.set_recv_buffer_size((&socket).into(), 4 << 20);
        socket.set_nonblocking(true)?;
        let io = UdpSocket::from_std(socket)?;
        Ok(Self { io, state })
    }

    pub(super) fn addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Waits for datagrams, and gives each to `take`.
    pub(super) async fn receive(
        &self,
        room: &RefCell<Room>,
        mut take: impl FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<()> {
        loop {
            self.io.readable().await?;
            let mut room = room.borrow_mut();
            let Room { buffers, metas } = &mut *room;
            let mut slices = buffers.each_mut().map(|it| IoSliceMut::new(it));
            let received = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), &mut slices, metas)
            });
            let count = match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                done => done?,
            };
            for (buffer, meta) in buffers.iter_mut().zip(metas).take(count) {
                let datagrams = buffer.get_mut(..meta.len).unwrap_or_default();
                for datagram in datagrams.chunks_mut(meta.stride.max(1)) {
                    take(meta.addr, datagram);
                }
            }
            return Ok(());
        }
    }

    /// Sends one datagram. What cannot be sent is lost, as on any network.
    pub(super) async fn send(&self, to: SocketAddr, datagram: &[u8]) {
        let _ = self.io.send_to(datagram, to).await;
    }
}
