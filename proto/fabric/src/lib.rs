//! The wire between edge and origin: gRPC services and their conversions.
//!
//! Edge and origin never name each other; they meet here. `proto/fabric/v1/*.proto` is
//! the contract and holds its explanation, [`v1`] is what is generated from it, and the
//! modules of this crate are what both sides must do alike:
//!
//! * [`convert`]: names and frames to and from their wire form. What comes from the wire is
//!   checked once, here, and refused with the name of the field that is wrong.
//! * [`credit`]: the arithmetic of the credits that bound what is under way for each
//!   publication and subscription of a link.
//! * [`limits`]: the sizes both sides rely upon.
//! * [`peers`]: who wants to talk with whom, checked in the same way.
//! * [`status`]: why a link ended, as a gRPC status and back.
//!
//! ```text
//!   edge                                     origin
//!    │  Hello ─────────────────────────────▶   │
//!    │  ◀───────────────────────────── Welcome │
//!    │  Publish{id} ───────────────────────▶   │  may I?
//!    │  ◀──────── Granted{id, epoch, next, credit}
//!    │  Frames ────────────────────────────▶   │  while credit > 0
//!    │  ◀───────────────────────────── Credit  │
//!    │  Subscribe{id, credit} ─────────────▶   │
//!    │  ◀────────── Source{id, ..} then Frames │  while credit > 0
//!    │  Credit ────────────────────────────▶   │
//! ```
//!
//! Beside the media there are more services: `Shared` carries the replicated state to edges,
//! `Raft` the log between origins, and `Cluster` is for people who run them. What their
//! messages hold is opaque here; the `.proto` files say why. `Peers` tells origins which edge
//! holds which RTMFP peer, and carries introductions between edges.
//!
//! A frame's payload is never copied by the conversions:
//!
//! ```
//! use selvage_fabric::convert::{self, Arrival};
//! use model::{Class, Epoch, FourCc, Frame, Kind, MediaTime, Position, Sequenced, Slot};
//!
//! let frame = Frame {
//!     kind: Kind::Video,
//!     class: Class::Key,
//!     slot: Slot(0),
//!     codec: FourCc(*b"avc1"),
//!     time: MediaTime(40),
//!     payload: bytes::Bytes::from_static(b"\x17\x01"),
//! };
//! let wire = convert::numbered(7, 12, &frame);
//! assert_eq!(wire.codec, 0x6176_6331);
//! assert_eq!(convert::arrival(wire)?, Arrival::Numbered { seq: 12, frame });
//! # Ok::<(), selvage_fabric::convert::Invalid>(())
//! ```

pub mod convert;
pub mod credit;
pub mod limits;
pub mod peers;
pub mod status;

/// What is generated from `proto/fabric/v1/*.proto`; the comments are there.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::use_self,
    clippy::unused_async,
    clippy::semicolon_if_nothing_returned,
    reason = "generated code; the contract is documented in the .proto files"
)]
pub mod v1 {
    tonic::include_proto!("selvage.fabric.v1");
}

pub use convert::{Arrival, Invalid};
pub use credit::{Credit, Owed};
pub use limits::{BATCH_BYTES, BATCH_FRAMES_MAX, GRPC_MESSAGE_MAX, LINK_CREDIT};
pub use status::LinkError;
