//! Fan-out: one stream inside one shard, and the viewers it has there.
//!
//! What arrives for the stream is put into the shard's backlog and, once per batch or
//! per coalescing interval, the shard walks the stream's viewers and writes to each what
//! its cursor finds, in one vectored write of shared wire images. No viewer's task is
//! woken for that; it sleeps unless its socket pushes back or its client speaks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use media::{Backlog, Read, View};
use model::{Frame, Kind, MediaTime, Position, StreamKey};
use rtmp::{MessageKind, StreamId};
use session::{Notice, PlayWindow};
use tokio::time::Instant;

use crate::channel::{ChannelId, Item};
use crate::connection::Connection;

/// A stream that viewers of this shard watch.
pub(crate) struct LocalChannel {
    /// The stream.
    pub(crate) key: StreamKey,
    /// The channel's number, once the upstream task has answered.
    pub(crate) id: Cell<Option<ChannelId>>,
    /// When viewers are to be written to; `None` when nothing waits.
    pub(crate) flush_at: Cell<Option<Instant>>,
    store: RefCell<Store>,
    viewers: RefCell<Vec<Rc<Connection>>>,
}

struct Store {
    backlog: Backlog,
    images: Images,
}

impl LocalChannel {
    /// A channel that has not been joined yet.
    pub(crate) fn new(key: StreamKey) -> Self {
        Self {
            key,
            id: Cell::new(None),
            flush_at: Cell::new(None),
            store: RefCell::new(Store {
                backlog: Backlog::new(media::Limits::default()),
                images: Images::default(),
            }),
            viewers: RefCell::default(),
        }
    }

    /// Takes over what the edge's channel holds.
    pub(crate) fn joined(&self, id: ChannelId, backlog: Backlog) {
        self.id.set(Some(id));
        *self.store.borrow_mut() = Store {
            backlog,
            images: Images::default(),
        };
    }

    /// Takes what arrived. The viewers see it at the next walk.
    pub(crate) fn push(&self, items: &[Item]) {
        let mut store = self.store.borrow_mut();
        for item in items {
            match item {
                Item::InForce(at, frame) => store.backlog.prime_at(*at, frame.clone()),
                // The edge's channel has already dropped what comes twice.
                Item::Frame(frame) => {
                    let _ = store.backlog.push(frame.at, frame.frame.clone());
                }
            }
        }
        let tail = store.backlog.tail();
        store.images.forget_before(tail);
    }

    /// Adds a viewer, once however many plays it has here.
    pub(crate) fn add(&self, viewer: Rc<Connection>) {
        self.viewers.borrow_mut().push(viewer);
    }

    /// Removes a viewer; says whether it was there and the last.
    pub(crate) fn remove(&self, viewer: &Rc<Connection>) -> bool {
        let mut viewers = self.viewers.borrow_mut();
        let Some(at) = viewers.iter().position(|v| Rc::ptr_eq(v, viewer)) else {
            return false;
        };
        viewers.swap_remove(at);
        viewers.is_empty()
    }

    /// The publisher has left: who comes later does not join what has ended.
    pub(crate) fn ended(&self) {
        let mut store = self.store.borrow_mut();
        store.backlog.end();
        store.images = Images::default();
    }

    /// Calls `visit` for every viewer. Viewers are neither added nor removed meanwhile.
    pub(crate) fn each(&self, mut visit: impl FnMut(&Rc<Connection>)) {
        for viewer in self.viewers.borrow().iter() {
            visit(viewer);
        }
    }
}

/// One play of one connection.
pub(crate) struct Viewer {
    /// The message stream it plays on.
    pub(crate) stream: StreamId,
    /// What it plays.
    pub(crate) channel: Rc<LocalChannel>,
    view: View,
    paused: bool,
    /// Media time to play, and where it began.
    length: Option<u64>,
    began: Option<MediaTime>,
}

/// What a viewer gets next.
pub(crate) enum Next {
    /// Bytes to write.
    Image(Bytes),
    /// Something its session has to say first.
    Notice(Notice),
    /// Nothing for now.
    Nothing,
}

impl Viewer {
    /// A play from the live point.
    pub(crate) fn new(stream: StreamId, channel: Rc<LocalChannel>, window: PlayWindow) -> Self {
        // Longer than any stream lasts is the same as no limit.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates"
        )]
        let length = window.seconds.map(|seconds| (seconds * 1000.0) as u64);
        Self {
            stream,
            channel,
            view: View::join(),
            paused: false,
            length,
            began: None,
        }
    }

    /// `receiveAudio`.
    pub(crate) fn receive_audio(&mut self, wanted: bool) {
        self.view.receive_audio(wanted);
    }

    /// `receiveVideo`.
    pub(crate) fn receive_video(&mut self, wanted: bool) {
        self.view.receive_video(wanted);
    }

    /// `pause`; playing goes on at the live point.
    pub(crate) fn pause(&mut self, paused: bool) {
        if self.paused && !paused {
            self.view.rejoin();
        }
        self.paused = paused;
    }

    /// The next bytes for this viewer, for chunks of `chunk_size` bytes.
    pub(crate) fn next(&mut self, chunk_size: u32) -> Next {
        // Before the edge's channel has answered there is only an empty backlog here, and a
        // view that read it would count as present from the start.
        if self.paused || self.channel.id.get().is_none() {
            return Next::Nothing;
        }
        let mut store = self.channel.store.borrow_mut();
        let Store { backlog, images } = &mut *store;
        match self.view.read(backlog) {
            Read::InForce { frame, time, .. } => {
                Next::Image(image(frame, time, self.stream, chunk_size))
            }
            Read::Frame(item) => {
                let time = item.frame.time;
                if let Some(length) = self.length {
                    let began = *self.began.get_or_insert(time);
                    if time.0.saturating_sub(began.0) >= length {
                        return Next::Notice(Notice::Complete);
                    }
                }
                let shape = Shape {
                    stream: self.stream,
                    chunk_size,
                };
                Next::Image(images.get(shape, item.at, || {
                    image(&item.frame, time, self.stream, chunk_size)
                }))
            }
            Read::Skipped { .. } => Next::Notice(Notice::InsufficientBandwidth),
            Read::Pending => Next::Nothing,
        }
    }
}

/// The chunked bytes of one message.
fn image(frame: &Frame, time: MediaTime, stream: StreamId, chunk_size: u32) -> Bytes {
    let kind = match frame.kind {
        Kind::Audio => MessageKind::Audio,
        Kind::Video => MessageKind::Video,
        Kind::Data => MessageKind::DataAmf0,
    };
    let chunks = frame.payload.len() / (chunk_size.max(1) as usize) + 1;
    let mut out = BytesMut::with_capacity(frame.payload.len() + chunks * 8 + 16);
    rtmp::chunk::image(
        kind,
        stream,
        time.wire(),
        &frame.payload,
        chunk_size,
        &mut out,
    );
    out.freeze()
}

/// What makes wire images differ between viewers of one stream.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    stream: StreamId,
    chunk_size: u32,
}

/// Wire images of the frames in the backlog, built when the first viewer needs them.
///
/// Nearly every viewer has the same shape (our chunk size, message stream 1), so it is
/// built once per shard. A client can choose message streams up to the limit of the
/// session; only the first few shapes are kept, others build their own each time.
#[derive(Default)]
struct Images {
    rows: Vec<Row>,
}

struct Row {
    shape: Shape,
    first: Position,
    images: VecDeque<Bytes>,
}

/// The message stream of a client that has created one.
const USUAL: StreamId = StreamId(1);

/// Shapes kept per stream.
const SHAPES: usize = 4;

impl Images {
    fn get(&mut self, shape: Shape, at: Position, build: impl FnOnce() -> Bytes) -> Bytes {
        let row = match self.rows.iter().position(|row| row.shape == shape) {
            Some(found) => &mut self.rows[found],
            // The last place is for the shape that nearly everybody has.
            None if self.rows.len() + usize::from(shape.stream != USUAL) < SHAPES => {
                self.rows.push(Row {
                    shape,
                    first: at,
                    images: VecDeque::new(),
                });
                let last = self.rows.len() - 1;
                &mut self.rows[last]
            }
            None => return build(),
        };
        if row.first.epoch != at.epoch {
            row.images.clear();
            row.first = at;
        }
        if row.images.is_empty() {
            row.first = at;
        }
        // A viewer that lags behind the first image kept: fill up to it.
        while at.seq < row.first.seq {
            row.images.push_front(Bytes::new());
            row.first.seq -= 1;
        }
        let Ok(index) = usize::try_from(at.seq - row.first.seq) else {
            return build();
        };
        // The backlog bounds how many frames there are, and so how far this can grow.
        if index >= row.images.len() {
            row.images.resize(index + 1, Bytes::new());
        }
        let image = &mut row.images[index];
        if image.is_empty() {
            *image = build();
        }
        image.clone()
    }

    /// Forgets the images of frames that the backlog no longer holds.
    fn forget_before(&mut self, tail: Option<Position>) {
        let Some(tail) = tail else { return };
        for row in &mut self.rows {
            if row.first.epoch != tail.epoch {
                row.images.clear();
            }
            while row.first.seq < tail.seq && row.images.pop_front().is_some() {
                row.first.seq += 1;
            }
        }
        // A shape that nobody reads any more gives its place to another.
        self.rows.retain(|row| !row.images.is_empty());
    }
}
