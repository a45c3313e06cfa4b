//! One origin's seat in the cluster.

pub mod limits;

mod error;
mod member;
mod output;
mod peer;
mod state;

pub use error::{Error, RestoreError};
pub use member::Member;
pub use output::{Output, Restored, Saved, Setup, Status};
