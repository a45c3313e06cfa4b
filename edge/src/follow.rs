//! Frames that are followed from their publisher to viewers.
//!
//! A few key frames are chosen where they are published ([`Chooser`]). Beside the frame travels
//! its [`Passing`](node::telemetry::frames::Passing), from hop to hop, noted in
//! [`media::Marks`] wherever frames are kept; nobody looks there while nothing is noted. Each hop
//! makes its span when it ends:
//!
//! ```text
//!  first byte  accepted      in a batch    at the origin  in a batch   at the edge  walk     written
//!      ├─ read ───┼─ edge.queue ──┼─ hop.origin ──┼─ origin.backlog ─┼─ hop.edge ─┼─ edge.backlog ─┼─ viewer.write ─┤
//! ```

mod chosen;
mod followed;

pub(crate) use self::chosen::{Arrived, Asked, Chooser, Departure, Leaving, Tracing};
pub(crate) use self::followed::{Followed, Viewed};
