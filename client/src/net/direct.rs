//! Streams between peers, on the task of a connection.

use std::net::SocketAddr;
use std::time::Instant;

use amf::Value;
use rtmfp::endpoint::Endpoint;
use rtmp::{Message, MessageKind, StreamId};

use super::stream::Lane;
use super::task::Task;
use crate::Error;
use crate::limits::PEER_STREAMS_MAX;
use crate::peers::Peers;

impl Task {
    /// Does something about peers; where the server is goes along.
    pub(super) fn with_peers<T>(
        &mut self,
        act: impl FnOnce(&mut Peers, &mut Endpoint, &[SocketAddr]) -> T,
    ) -> Result<T, Error> {
        self.connection.with_peers(act).ok_or(Error::NoPeers)
    }

    pub(super) fn open_between_peers(
        &mut self,
        lane: Lane,
        make: impl FnOnce(&mut Peers) -> StreamId,
    ) -> Result<StreamId, Error> {
        let stream = self
            .with_peers(|peers, _, _| (peers.streams() < PEER_STREAMS_MAX).then(|| make(peers)))?;
        let stream = stream.ok_or(Error::Overloaded("streams"))?;
        self.streams.insert(stream, lane);
        Ok(stream)
    }

    pub(super) fn is_between_peers(&mut self, stream: StreamId) -> bool {
        self.of_peers(|peers, _, _| peers.has(stream))
    }

    pub(super) fn publish_to_peers(&mut self, stream: StreamId, name: &str) -> bool {
        let now = Instant::now();
        self.of_peers(|peers, endpoint, _| peers.publish(endpoint, stream, name, now))
    }

    pub(super) fn play_from_peer(&mut self, stream: StreamId, name: &str) -> bool {
        let now = Instant::now();
        self.of_peers(|peers, endpoint, server| peers.play(endpoint, server, stream, name, now))
    }

    pub(super) fn send_to_peers(&mut self, message: &Message) -> bool {
        let now = Instant::now();
        self.of_peers(|peers, endpoint, _| peers.send(endpoint, message, now))
    }

    pub(super) fn close_between_peers(&mut self, stream: StreamId) -> bool {
        let now = Instant::now();
        self.of_peers(|peers, endpoint, _| {
            let known = peers.has(stream);
            if known {
                peers.close(endpoint, stream, now);
            }
            known
        })
    }

    pub(super) fn delete_between_peers(&mut self, stream: StreamId) -> bool {
        let now = Instant::now();
        self.of_peers(|peers, endpoint, _| {
            let known = peers.has(stream);
            if known {
                peers.delete(endpoint, stream, now);
            }
            known
        })
    }

    /// Whether something about peers was done. Without RTMFP there are none.
    fn of_peers(
        &mut self,
        act: impl FnOnce(&mut Peers, &mut Endpoint, &[SocketAddr]) -> bool,
    ) -> bool {
        self.connection.with_peers(act).unwrap_or_default()
    }
}

/// A data message: the handler's name, then values.
pub(super) fn data(
    stream: StreamId,
    time: u32,
    handler: &str,
    args: Vec<Value>,
) -> Result<Message, Error> {
    let values: Vec<Value> = std::iter::once(handler.into()).chain(args).collect();
    let payload = amf::amf0::write_all(&values).map_err(session::client::Error::Unwritable)?;
    Ok(Message {
        kind: MessageKind::DataAmf0,
        stream,
        time,
        payload,
    })
}
