//! When servers are left that have asked for it.

use std::time::Instant;

use super::server::Link;
use super::{Machine, Phase};

impl Machine {
    /// A server asks us to leave, and the program wants that done.
    pub(in crate::multi) fn asked_to_leave(&mut self, server: usize, now: Instant) {
        if let Some(Link::Up { leaving, .. }) = self.servers.get_mut(server).map(|s| &mut s.link) {
            *leaving = true;
            self.leave(now);
        }
    }

    /// Whether the program publishes. That goes through the primary, which is not left
    /// meanwhile: another server would have to take the publish over, with a gap.
    pub(in crate::multi) fn publishes(&mut self, publishes: bool, now: Instant) {
        self.publishes = publishes;
        self.leave(now);
    }

    /// Leaves those that have asked for it, once there is another. Not before the setup is
    /// over, which may need all of them: who drains does not let us in again.
    pub(super) fn leave(&mut self, now: Instant) {
        let stays = |link| matches!(link, Link::Up { leaving: false, .. });
        if self.phase != Phase::Running || !self.servers.iter().any(|s| stays(s.link)) {
            return;
        }
        for server in 0..self.servers.len() {
            let link = self.servers.get(server).map(|s| s.link);
            let kept = self.publishes && self.primary == Some(server);
            if !kept && matches!(link, Some(Link::Up { leaving: true, .. })) {
                self.give_up(server, "it asked us to leave", now);
            }
        }
    }
}
