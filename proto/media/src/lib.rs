//! Time and memory of a live stream: backlog, cursors, join points.
//!
//! A [`Backlog`] is a ring of numbered frames with a pinned join point. The same struct is
//! the origin's hub, an edge's cache and the replay buffer of the edge that holds the
//! publisher. Readers are [`Cursor`]s: values of a few words that the backlog knows nothing
//! of, so a slow reader costs nothing but its own skip.
//!
//! ```text
//!        tail                 join point           head
//!         |                       |                 |
//!   ... [ a  v  v  a  v ][ C ][ K  a  v  v  a  C' v ]
//!                           \___/              \
//!             in force at K: C     C' is met on the way
//! ```
//!
//! A reader that joins at K is given C, although C' is newer: the pictures up to C' were
//! encoded with C. So every key frame pins the configurations that were in force at it.
//!
//! # What a backlog takes
//!
//! [`Backlog::append`] numbers frames (at the publisher's edge), [`Backlog::push`] takes
//! numbered ones from a link. A *run* is a contiguous sequence of frames of one epoch. A
//! gap or a newer epoch begins a new run: older frames are dropped, and the configuration
//! in force is what [`Backlog::prime_at`] supplied for its first frame. Frames of older
//! epochs are refused, frames it had already are ignored.
//!
//! # What a reader gets
//!
//! * **Joins.** First each configuration in force at the join point
//!   ([`Read::InForce`]: data, video, audio), then every frame from there on. The join
//!   point is the newest key frame (of the least slot, where there are several tracks). A
//!   stream without video is joined at its head: what is in force, then the frames that
//!   follow. While a key frame may be expected, the reader waits.
//! * **From the start.** A reader that was there before an epoch began reads it from frame
//!   0, as long as that is kept. One that waited on a stream without video misses nothing
//!   either.
//! * **Loss.** When its next frame is gone, it gets [`Read::Skipped`] with the number of
//!   frames it misses, and joins anew. It never goes back within an epoch: if the newest
//!   key frame lies behind it, it waits for the next one. Frames of an epoch that ended
//!   count as missed if it had not read them.
//! * **Resumption.** [`Cursor::resume_after`] goes on exactly behind a frame if the backlog
//!   has what follows.
//! * Configurations met on the way are ordinary frames, and so are `Clear`s, which links
//!   pass on and players never see.
//!
//! # Players
//!
//! Players read through a [`View`]: it leaves out audio or video that is not wanted and
//! pictures of a track whose key frame was not given. [`Rebase`] keeps a player's time
//! going on across epochs; it is fed with the `at.epoch` and the time of what is sent, for
//! [`Read::InForce`] the time that comes with it.
//!
//! ```
//! # use selvage_media as media;
//! # use bytes::Bytes;
//! # use model::{Class, Epoch, FourCc, Frame, Kind, MediaTime, Slot};
//! # let frame = |class, time| Frame {
//! #     kind: Kind::Video, class, slot: Slot(0), codec: FourCc(*b"avc1"),
//! #     time: MediaTime(time), payload: Bytes::new(),
//! # };
//! use media::{Backlog, Limits, Read, View};
//!
//! let mut backlog = Backlog::new(Limits::DEFAULT);
//! for (class, time) in [(Class::Config, 0), (Class::Key, 0), (Class::Delta, 40)] {
//!     backlog.append(Epoch(1), frame(class, time));
//! }
//! let mut view = View::join();
//! let mut got = Vec::new();
//! loop {
//!     match view.read(&backlog) {
//!         Read::InForce { frame, .. } => got.push(frame.class),
//!         Read::Frame(item) => got.push(item.frame.class),
//!         Read::Skipped { .. } => {}
//!         Read::Pending => break,
//!     }
//! }
//! assert_eq!(got, [Class::Config, Class::Key, Class::Delta]);
//! ```
//!
//! # What it costs
//!
//! Reads and pushes take constant time (a configuration copies the set in force, at most
//! [`Limits::configs`] handles; a join looks its key frame up). Reads allocate nothing.
//! Memory is bounded by [`Limits`]. The group of pictures behind the newest key frame is
//! kept until bytes or frames run out; then the join point is lost, and readers wait for
//! the next one.

mod backlog;
mod config;
mod cursor;
mod keys;
pub mod limits;
mod marks;
mod rebase;
mod view;

pub use backlog::{Backlog, PushError, Pushed, Read};
pub use cursor::{Cursor, JoinAt, Lag};
pub use limits::Limits;
pub use marks::Marks;
pub use rebase::{CONTINUES_MS, Rebase, STEP_MS};
pub use view::{Selection, View};
