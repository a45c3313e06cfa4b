//! The replicated state: what every origin knows, and the edge's half of it.
//!
//! ```text
//!   clients ── Replica ══ wire ══▶ Watchers ── Command ──▶ the log ──▶ Ledger::apply
//!              (edge)              (origin)                                │
//!   clients ◀─ Replica ◀══ wire ══ Watchers ◀───────── Applied { effects } ┘
//! ```
//!
//! * [`command`]: what may stand in the log. [`Command`]s are bytes with one canonical form.
//! * [`Ledger`] is the state machine. It is deterministic: no clock, no chance, no order
//!   that differs from run to run. The same log gives the same [`effect`]s and the same
//!   digest on every origin.
//! * [`Watchers`](watchers) is the origin's half of the conversation with edges: who is
//!   attached here, and what each must be told, in the order of the log.
//! * [`Replica`](replica) is the edge's half: what its clients ask becomes proposals, and
//!   what is applied becomes what each subscriber must be told, in order.
//! * [`leases`] is what the leader adds: edges that nobody hears of and locks that nobody
//!   gives back end by an entry, never by a clock.
//!
//! # The promises
//!
//! * Every object has one history. Equal (epoch, version) means equal slots, everywhere.
//! * A request is applied at most once, and requests of one session in their order: they
//!   are numbered from 1, a number that was applied is answered again, and a number that
//!   leaves a gap is not applied ([`effect::Answer::OutOfOrder`]).
//! * An answer is given where the change is applied, in one step with it.

mod claim;
pub mod codec;
pub mod command;
mod dedup;
pub mod effect;
#[doc(hidden)]
pub mod fuzzing;
mod graveyard;
mod home;
mod instance;
mod interest;
pub mod leases;
mod ledger;
pub mod limits;
mod lock;
mod name;
mod object;
pub mod replica;
mod snapshot;
pub mod watchers;
pub mod wire;

pub use command::{Command, Proposal, Request};
pub use effect::{Answer, Applied, Effect};
pub use leases::Leases;
pub use ledger::{Counts, Ledger};
pub use name::LogName;
pub use replica::Replica;
pub use watchers::Watchers;
