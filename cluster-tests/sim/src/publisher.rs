//! A publisher: it wants a name, holds it for a while, and lets go or is killed.

use std::time::Duration;

use model::{Epoch, StreamKey};

use super::dice::Dice;

/// A publisher at one edge.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    /// The edge's number for it.
    pub(super) publication: u64,
    /// What it wants.
    pub(super) key: StreamKey,
    /// The publish must be newer than this.
    pub(super) above: Epoch,
    /// What it has.
    pub(super) holds: Option<Epoch>,
    /// Whether it answers when it is challenged.
    pub(super) alive: bool,
    /// When it lets go.
    pub(super) until: Duration,
}

impl Publisher {
    /// A publisher that stays for some seconds.
    pub(super) fn new(
        publication: u64,
        key: StreamKey,
        above: Epoch,
        now: Duration,
        dice: &mut Dice,
    ) -> Self {
        Self {
            publication,
            key,
            above,
            holds: None,
            alive: !dice.in_thousand(200),
            until: now + dice.between(Duration::from_millis(200), Duration::from_secs(6)),
        }
    }
}
