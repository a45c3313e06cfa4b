//! A UDP socket that takes and gives many datagrams in one system call.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use quinn_udp::{RecvMeta, UdpSocketState};
use rtmfp::limits::STARTUP_DATAGRAM_MAX;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Buffers for one system call of receiving. Each holds as many datagrams of one sender as
/// the kernel has put together.
const BUFFERS: usize = 8;

/// The length of one.
const BUFFER: usize = 64 * 1024;

/// Bytes that one system call of sending takes at most: a datagram of the greatest length,
/// which the kernel cuts.
const BATCH_MAX: usize = 60 * 1024;

/// A socket of one shard.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// Bytes of datagrams, headers of UDP not counted.
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let (received, sent) = (self.received.get(), self.sent.get());
        tracing::info!(received, sent, "no more datagrams");
    }
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
        Ok(Self {
            io,
            state,
            received: Cell::new(0),
            sent: Cell::new(0),
        })
    }

    /// Waits for datagrams, and gives each to `take` with its sender.
    ///
    /// # Errors
    /// As the system has it.
    pub(super) async fn receive(
        &self,
        room: &mut Room,
        mut take: impl FnMut(SocketAddr, &mut [u8]),
    ) -> io::Result<()> {
        let count = loop {
            self.io.readable().await?;
            let mut slices = room.buffers.each_mut().map(|it| IoSliceMut::new(it));
            let received = self.io.try_io(Interest::READABLE, || {
                let socket = (&self.io).into();
                self.state.recv(socket, &mut slices, &mut room.metas)
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => break done?,
            }
        };
        for (buffer, meta) in room.buffers.iter_mut().zip(&room.metas).take(count) {
            let datagrams = buffer.get_mut(..meta.len).unwrap_or_default();
            self.received
                .set(self.received.get() + datagrams.len() as u64);
            for datagram in datagrams.chunks_mut(meta.stride.max(1)) {
                take(meta.addr, datagram);
            }
        }
        Ok(())
    }

    /// Sends what a batch holds, and waits while the socket has no room. A datagram that
    /// cannot be sent is lost, as it may be on its way.
    pub(super) async fn send(&self, batch: &mut Batch) {
        let Some(to) = batch.to.take() else { return };
        let len = std::mem::take(&mut batch.len);
        let transmit = quinn_udp::Transmit {
            destination: to,
            ecn: None,
            contents: &batch.bytes[..len],
            segment_size: (batch.segment < len).then_some(batch.segment),
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
                    tracing::trace!(%to, %error, "a datagram was not sent");
                    return;
                }
                Ok(()) => {
                    self.sent.set(self.sent.get() + len as u64);
                    return;
                }
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
    buffers: [Vec<u8>; BUFFERS],
    metas: [RecvMeta; BUFFERS],
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            buffers: std::array::from_fn(|_| vec![0; BUFFER]),
            metas: [RecvMeta::default(); BUFFERS],
        }
    }
}

/// Datagrams to one address: all of one length, but for the last, which may be shorter.
pub(super) struct Batch {
    bytes: Vec<u8>,
    len: usize,
    to: Option<SocketAddr>,
    segment: usize,
    count: usize,
    /// The last one is shorter than the others.
    ended: bool,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; BATCH_MAX + STARTUP_DATAGRAM_MAX],
            len: 0,
            to: None,
            segment: 0,
            count: 0,
            ended: false,
        }
    }

    /// Where the next datagram is to be written.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.len..]
    }

    /// Takes the datagram of `len` bytes that was written to [`Self::room`], if it fits the
    /// others. Otherwise send them first, and say [`Self::restart`].
    pub(super) fn push(&mut self, to: SocketAddr, len: usize, max: usize) -> bool {
        match self.to {
            None => {
                self.to = Some(to);
                self.segment = len;
                self.count = 0;
                self.ended = false;
            }
            Some(other) => {
                let fits = other == to
                    && !self.ended
                    && len <= self.segment
                    && self.count < max
                    && self.len + len <= BATCH_MAX;
                if !fits {
                    return false;
                }
                self.ended = len < self.segment;
            }
        }
        self.count += 1;
        self.len += len;
        true
    }

    /// After the batch of `before` bytes was sent: begins with the datagram that did not fit.
    pub(super) fn restart(&mut self, before: usize, to: SocketAddr, len: usize) {
        self.bytes.copy_within(before..before + len, 0);
        self.push(to, len, 1);
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_to_one_address_and_of_one_length_but_for_its_last() {
        let (a, b): (SocketAddr, SocketAddr) =
            (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let mut batch = Batch::new();
        batch.room()[..4].copy_from_slice(b"1111");
        assert!(batch.push(a, 4, 8));
        batch.room()[..4].copy_from_slice(b"2222");
        assert!(!batch.push(b, 4, 8), "to another");
        assert!(!batch.push(a, 5, 8), "longer");
        assert!(!batch.push(a, 4, 1), "too many");
        assert!(batch.push(a, 3, 8));
        assert!(!batch.push(a, 3, 8), "after a shorter one");
        let before = batch.len();
        assert_eq!(&batch.bytes[..before], b"1111222");
        batch.room()[..2].copy_from_slice(b"33");
        assert!(!batch.push(b, 2, 8));
        (batch.to, batch.len) = (None, 0);
        batch.restart(before, b, 2);
        assert_eq!(
            (batch.to, &batch.bytes[..batch.len()]),
            (Some(b), &b"33"[..])
        );
    }
}
