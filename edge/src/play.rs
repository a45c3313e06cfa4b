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
use media::limits::MARKS_MAX;
use media::{Backlog, Marks, Read, View};
use model::{Frame, Kind, MediaTime, Position, StreamKey};
use node::telemetry::SpanPlace;
use node::telemetry::frames::{KeyValue, Passing, figure, wall_micros};
use rtmp::{MessageKind, StreamId};
use session::{Notice, PlayWindow};
use tokio::time::Instant;

use crate::channel::{ChannelId, Item};
use crate::connection::Connection;
use crate::follow::{Tracing, Viewed};
use crate::limits::TRACED_VIEWERS_MAX;

/// A stream that viewers of this shard watch.
pub(crate) struct LocalChannel {
    /// The stream.
    pub(crate) key: StreamKey,
    /// The channel's number, once the upstream task has answered.
    pub(crate) id: Cell<Option<ChannelId>>,
    /// When viewers are to be written to; `None` when nothing waits.
    pub(crate) flush_at: Cell<Option<Instant>>,
    /// Where its publish stands in a trace.
    pub(crate) publish: Cell<Option<SpanPlace>>,
    /// When the oldest of what viewers have not been written came from its publisher:
    /// microseconds since 1970, or 0.
    ingest_micros: Cell<u64>,
    /// Traced frames that the next walk comes to; there are some when `to_be_followed`.
    arrived: RefCell<Vec<Rc<Viewed>>>,
    to_be_followed: Cell<bool>,
    /// Frames that were followed here.
    followed: Cell<usize>,
    store: RefCell<Store>,
    viewers: RefCell<Vec<Rc<Connection>>>,
}

struct Store {
    backlog: Backlog,
    images: Images,
    bursts: Vec<Burst>,
    /// The frames that viewers are watched for.
    traced: Marks<()>,
}

impl Store {
    fn new(backlog: Backlog) -> Self {
        Self {
            backlog,
            images: Images::default(),
            bursts: Vec::new(),
            traced: Marks::new(),
        }
    }
}

impl LocalChannel {
    /// A channel that has not been joined yet.
    pub(crate) fn new(key: StreamKey) -> Self {
        Self {
            key,
            id: Cell::new(None),
            flush_at: Cell::new(None),
            publish: Cell::new(None),
            ingest_micros: Cell::new(0),
            arrived: RefCell::default(),
            to_be_followed: Cell::new(false),
            followed: Cell::new(0),
            store: RefCell::new(Store::new(Backlog::new(media::Limits::default()))),
            viewers: RefCell::default(),
        }
    }

    /// Takes over what the edge's channel holds.
    pub(crate) fn joined(&self, id: ChannelId, backlog: Backlog) {
        self.id.set(Some(id));
        *self.store.borrow_mut() = Store::new(backlog);
    }

    /// Takes what arrived in a shard, some of it traced. The viewers see it at the next walk.
    pub(crate) fn push(
        &self,
        items: &[Item],
        traced: Vec<(Position, Passing)>,
        ingest_micros: u64,
        here: (usize, &Tracing),
    ) {
        if self.ingest_micros.get() == 0 {
            self.ingest_micros.set(ingest_micros);
        }
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
        store.bursts.clear();
        let tail = store.backlog.tail();
        store.images.forget_before(tail);
        store.traced.forget_before(tail);
        drop(store);
        if !traced.is_empty() {
            self.follow(traced, here);
        }
    }

    /// Some viewers are watched for traced frames that have just come.
    fn follow(&self, traced: Vec<(Position, Passing)>, (shard, tracing): (usize, &Tracing)) {
        self.to_be_followed.set(true);
        let viewers = self.viewers.borrow();
        let mut arrived = self.arrived.borrow_mut();
        for (at, passing) in traced.into_iter().take(MARKS_MAX) {
            self.store.borrow_mut().traced.note(at, ());
            let viewed = Rc::new(Viewed {
                at,
                passing,
                walked_micros: Cell::new(0),
                edge: tracing.edge.to_string(),
                shard,
            });
            // Others the next time, where there are more than are watched.
            let turn = self.followed.replace(self.followed.get().wrapping_add(1));
            let step = viewers.len().div_ceil(TRACED_VIEWERS_MAX).max(1);
            for viewer in viewers.iter().skip(turn % step).step_by(step) {
                viewer.follow(self, &viewed);
            }
            if arrived.len() == MARKS_MAX {
                arrived.remove(0);
            }
            arrived.push(viewed);
        }
    }

    /// Whether traced frames have come since the last walk.
    pub(crate) fn is_to_be_followed(&self) -> bool {
        self.to_be_followed.get()
    }

    /// A walk begins that comes to traced frames.
    pub(crate) fn walk_comes(&self) {
        self.to_be_followed.set(false);
        let now = wall_micros();
        for viewed in self.arrived.take() {
            let mut passing = viewed.passing;
            passing.pass(
                "frame.edge.backlog",
                now,
                vec![
                    KeyValue::new("selvage.edge", viewed.edge.clone()),
                    figure("selvage.shard", viewed.shard),
                    figure("selvage.viewers", self.viewers.borrow().len()),
                    figure("selvage.queue.frames", self.frames_from(viewed.at)),
                ],
            );
            viewed.walked_micros.set(passing.until_micros);
        }
    }

    fn frames_from(&self, at: Position) -> u64 {
        let head = self.store.borrow().backlog.head();
        head.map_or(0, |head| (head.seq + 1).saturating_sub(at.seq))
    }

    /// Where a traced frame ends in bytes that a viewer was given last.
    fn end_of(&self, at: Position, given: &Bytes) -> Option<usize> {
        let store = self.store.borrow();
        let mut bursts = store.bursts.iter();
        let burst = bursts.find(|burst| burst.bytes.as_ptr() == given.as_ptr())?;
        let mut ends = burst.ends.iter();
        ends.find(|(of, _)| *of == at).map(|(_, end)| *end)
    }

    /// The viewers have been written to: how long, in seconds, what they were written took
    /// since its publisher's edge read it. The clocks of two edges may differ; what seems to
    /// come from the future took no time.
    pub(crate) fn delay(&self) -> Option<f64> {
        let since = self.ingest_micros.replace(0);
        let micros = wall_micros().saturating_sub(since);
        // Fractions of a microsecond are not measured, and a float holds centuries of them.
        #[allow(clippy::cast_precision_loss, reason = "see above")]
        let seconds = micros as f64 / 1e6;
        (since != 0).then_some(seconds)
    }

    /// Plays of this stream here.
    pub(crate) fn viewers(&self) -> usize {
        self.viewers.borrow().len()
    }

    /// What its backlog costs, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.store.borrow().backlog.bytes()
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
        store.bursts.clear();
        store.traced = Marks::new();
    }

    /// Whether what one viewer is given is likely to be given to another too.
    fn is_shared(&self) -> bool {
        self.viewers.borrow().len() > 1
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
pub(crate) enum Next<T> {
    /// Media to write.
    Media(T),
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

    /// Whether it is there for a frame at this place that comes.
    pub(crate) fn awaits(&self, at: Position) -> bool {
        let next = self.view.cursor().next();
        !self.paused && self.view.wants_video() && next.is_none_or(|next| next <= at)
    }

    /// Where it stands.
    pub(crate) fn next_position(&self) -> Option<Position> {
        self.view.cursor().next()
    }

    /// How many frames it has still to read.
    pub(crate) fn lag(&self) -> u64 {
        self.view.lag(&self.channel.store.borrow().backlog).frames
    }

    /// Where a traced frame ends in what it was given last; `None` if that does not hold it.
    pub(crate) fn end_of(&self, at: Position, given: &Bytes) -> Option<usize> {
        let behind = Position {
            seq: at.seq + 1,
            ..at
        };
        let alone = || (self.next_position() == Some(behind)).then_some(given.len());
        self.channel.end_of(at, given).or_else(alone)
    }

    /// The next bytes for this viewer, for chunks of `chunk_size` bytes.
    pub(crate) fn next(&mut self, chunk_size: u32) -> Next<Bytes> {
        if !self.may_read() {
            return Next::Nothing;
        }
        let mut store = self.channel.store.borrow_mut();
        let Store {
            backlog,
            images,
            bursts,
            traced,
        } = &mut *store;
        let shape = Shape {
            stream: self.stream,
            chunk_size,
        };
        if self.length.is_none() && self.channel.is_shared() {
            if let Some(burst) = bursts
                .iter()
                .find(|burst| burst.shape == shape && burst.before == self.view)
            {
                self.view = burst.after.clone();
                return Next::Media(burst.bytes.clone());
            }
            if bursts.len() < BURSTS
                && let Some(burst) = Burst::build(&self.view, backlog, shape, traced)
            {
                self.view = burst.after.clone();
                let bytes = burst.bytes.clone();
                bursts.push(burst);
                return Next::Media(bytes);
            }
        }
        let (view, length, began) = (&mut self.view, self.length, &mut self.began);
        match read(view, backlog, length, began) {
            Next::Media(found) => {
                let build = || image(found.frame, found.time, shape.stream, chunk_size);
                Next::Media(match found.at {
                    Some(at) => images.get(shape, at, build),
                    None => build(),
                })
            }
            Next::Notice(notice) => Next::Notice(notice),
            Next::Nothing => Next::Nothing,
        }
    }

    /// The next frame for this viewer, and its time, where messages are carried whole.
    pub(crate) fn next_frame(&mut self) -> Next<(Frame, MediaTime)> {
        if !self.may_read() {
            return Next::Nothing;
        }
        let store = self.channel.store.borrow();
        let (view, length, began) = (&mut self.view, self.length, &mut self.began);
        match read(view, &store.backlog, length, began) {
            Next::Media(found) => Next::Media((found.frame.clone(), found.time)),
            Next::Notice(notice) => Next::Notice(notice),
            Next::Nothing => Next::Nothing,
        }
    }

    /// Before the edge's channel has answered there is only an empty backlog here, and a
    /// view that read it would count as present from the start.
    fn may_read(&self) -> bool {
        !self.paused && self.channel.id.get().is_some()
    }
}

/// A frame where a view stands.
struct Found<'a> {
    frame: &'a Frame,
    time: MediaTime,
    /// Absent for what is in force where a view joins.
    at: Option<Position>,
}

/// What a view reads next, for one who plays `length` milliseconds since `began`.
fn read<'a>(
    view: &mut View,
    backlog: &'a Backlog,
    length: Option<u64>,
    began: &mut Option<MediaTime>,
) -> Next<Found<'a>> {
    match view.read(backlog) {
        Read::InForce { frame, time, .. } => Next::Media(Found {
            frame,
            time,
            at: None,
        }),
        Read::Frame(item) => {
            let time = item.frame.time;
            if let Some(length) = length {
                let began = *began.get_or_insert(time);
                if time.0.saturating_sub(began.0) >= length {
                    return Next::Notice(Notice::Complete);
                }
            }
            Next::Media(Found {
                frame: &item.frame,
                time,
                at: Some(item.at),
            })
        }
        Read::Skipped { .. } => Next::Notice(Notice::InsufficientBandwidth),
        Read::Pending => Next::Nothing,
    }
}

/// The kind of message that carries frames of a kind.
pub(crate) fn message_kind(kind: Kind) -> MessageKind {
    match kind {
        Kind::Audio => MessageKind::Audio,
        Kind::Video => MessageKind::Video,
        Kind::Data => MessageKind::DataAmf0,
    }
}

/// The chunked bytes of one message.
fn image(frame: &Frame, time: MediaTime, stream: StreamId, chunk_size: u32) -> Bytes {
    let mut out = BytesMut::new();
    draw(frame, time, Shape { stream, chunk_size }, &mut out);
    out.freeze()
}

fn draw(frame: &Frame, time: MediaTime, shape: Shape, out: &mut BytesMut) {
    let kind = message_kind(frame.kind);
    let Shape { stream, chunk_size } = shape;
    let time = time.wire();
    out.reserve(rtmp::chunk::image_len(
        time,
        frame.payload.len(),
        chunk_size,
    ));
    rtmp::chunk::image(kind, stream, time, &frame.payload, chunk_size, out);
}

/// What a view reads next, drawn once for all viewers that stand where it stands.
///
/// Reading is a function of the view and the backlog. So between two changes of the
/// backlog, who has the same view gets the same bytes and has the same view afterwards;
/// after a walk that is nearly everybody, and each costs one comparison instead of a read
/// per frame.
struct Burst {
    shape: Shape,
    before: View,
    after: View,
    bytes: Bytes,
    /// Where the frames end in it that viewers are watched for.
    ends: Vec<(Position, usize)>,
}

/// Bursts kept between two changes of a backlog. The usual case needs one; who joins
/// together shares some more.
const BURSTS: usize = 8;

/// Bytes of a burst, but for its last frame.
const BURST_BYTES: usize = 128 * 1024;

impl Burst {
    /// Frames from where `view` stands; `None` when something else than a frame is next.
    fn build(view: &View, backlog: &Backlog, shape: Shape, traced: &Marks<()>) -> Option<Self> {
        let mut out = BytesMut::new();
        let mut ends = Vec::new();
        let mut after = view.clone();
        let mut reader = view.clone();
        while out.len() < BURST_BYTES
            && let Read::Frame(item) = reader.read(backlog)
        {
            draw(&item.frame, item.frame.time, shape, &mut out);
            after = reader.clone();
            if !traced.is_empty() && traced.get(item.at).is_some() {
                ends.push((item.at, out.len()));
            }
        }
        (!out.is_empty()).then(|| Self {
            shape,
            before: view.clone(),
            after,
            bytes: out.freeze(),
            ends,
        })
    }
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
