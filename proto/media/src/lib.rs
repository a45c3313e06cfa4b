//! Time and memory of a live stream: backlog, cursors, join points.

mod backlog;
mod config;
mod cursor;
mod keys;
pub mod limits;
mod rebase;
mod view;

pub use backlog::{Backlog, PushError, Pushed, Read};
pub use cursor::{Cursor, JoinAt, Lag};
pub use limits::Limits;
pub use rebase::{Rebase, STEP_MS};
pub use view::{Selection, View};
