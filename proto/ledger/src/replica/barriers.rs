//! Subscriptions of objects that are open already: what is held may be older than what the
//! client has seen elsewhere, so a barrier is asked for. All that come while one is under
//! way share the next.

use std::time::Instant;

use model::ObjectKey;

use super::interface::{Misbehaviour, Output};
use super::limits::USES_WAITING_MAX;
use super::{Link, Replica};
use crate::wire::ToOrigin;

/// Barriers, at most one under way.
#[derive(Debug, Default)]
pub(super) struct Barriers {
    last: u64,
    under_way: Option<(u64, Vec<(ObjectKey, u64)>)>,
    /// Objects and numbers of their [`Use`](super::object::Use)s.
    waiting: Vec<(ObjectKey, u64)>,
}

impl Barriers {
    /// The question was lost with the attachment.
    pub(super) fn interrupted(&mut self) {
        if let Some((_, uses)) = self.under_way.take() {
            self.waiting.extend(uses);
        }
    }
}

impl Replica {
    pub(super) fn await_barrier(&mut self, key: ObjectKey, number: u64) {
        // While nobody leads no barrier passes; who has given up meanwhile makes room.
        let waiting = &mut self.barriers.waiting;
        if waiting.len() >= 2 * USES_WAITING_MAX {
            let objects = &self.objects;
            waiting.retain(|(key, number)| {
                let object = objects.get(key);
                // They stand in the order of their numbers.
                object
                    .is_some_and(|it| it.uses.binary_search_by_key(number, |it| it.number).is_ok())
            });
        }
        self.barriers.waiting.push((key, number));
        self.ask_barrier();
    }

    pub(super) fn ask_barrier(&mut self) {
        let barriers = &mut self.barriers;
        if self.link != Link::Attached
            || barriers.under_way.is_some()
            || barriers.waiting.is_empty()
        {
            return;
        }
        barriers.last += 1;
        let id = barriers.last;
        barriers.under_way = Some((id, std::mem::take(&mut barriers.waiting)));
        self.outputs
            .push_back(Output::ToOrigin(ToOrigin::Barrier { id }));
    }

    pub(super) fn barrier_passed(&mut self, id: u64, now: Instant) -> Result<(), Misbehaviour> {
        let uses = match self.barriers.under_way.take() {
            Some((asked, uses)) if asked == id => uses,
            other => {
                self.barriers.under_way = other;
                return Err(Misbehaviour::UnknownBarrier(id));
            }
        };
        for (key, number) in uses {
            let Some(object) = self.objects.get_mut(&key) else {
                continue;
            };
            let waiting = object.uses.iter_mut().find(|use_| use_.number == number);
            if let Some(waiting) = waiting {
                waiting.fresh = true;
                self.settle_uses(&key, now);
            }
        }
        self.ask_barrier();
        Ok(())
    }
}
