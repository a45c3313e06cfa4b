//! Real processes on the loopback: our cluster, and the programs of others that talk to it.

pub mod arena;
pub mod cluster;
pub mod collector;
pub mod crowd;
pub mod datagrams;
pub mod disk;
pub mod facade;
pub mod field;
pub mod front;
pub mod http;
pub mod live;
pub mod objects;
pub mod origins;
pub mod peer;
pub mod ports;
pub mod process;
pub mod raw;
pub mod strangers;
pub mod until;
pub mod weather;

pub use arena::Arena;
pub use cluster::{Cluster, Dev};
pub use collector::{Collector, Span};
pub use front::Front;
pub use live::{Live, Pace, Viewer};
pub use process::{Finished, Process};
pub use until::{PLAYER, SOON, pace, until, until_async, until_some};
