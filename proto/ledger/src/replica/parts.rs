//! What comes in parts, until the last of it.

use std::collections::BTreeMap;

use model::{ObjectKey, StreamKey};

use super::interface::Misbehaviour;
use super::{Replica, limits};
use crate::effect::{Applied, Effect, ObjectSync, StreamState};
use crate::limits::APPLIED_PARTS_MAX;

/// The parts that have come.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) objects: BTreeMap<ObjectKey, ObjectSync>,
    pub(super) streams: BTreeMap<StreamKey, StreamState>,
    effects: Vec<Effect>,
    /// How many there were of what an entry did.
    count: usize,
}

impl Replica {
    /// A part of what the edge is to be attached with. It is told of what it holds only.
    pub(super) fn holds(
        &mut self,
        objects: Vec<(ObjectKey, ObjectSync)>,
        streams: Vec<(StreamKey, StreamState)>,
    ) -> Result<(), Misbehaviour> {
        let mine = objects
            .into_iter()
            .filter(|(key, _)| self.objects.contains_key(key));
        self.parts.objects.extend(mine);
        self.parts.streams.extend(streams);
        if self.parts.streams.len() > limits::FOLLOWED_MAX + limits::PUBLICATIONS_MAX {
            return Err(Misbehaviour::TooMuch);
        }
        Ok(())
    }

    /// A part of what an entry did.
    pub(super) fn part(&mut self, part: Applied) -> Result<(), Misbehaviour> {
        self.parts.count += 1;
        self.parts.effects.extend(part.effects);
        if self.parts.count > APPLIED_PARTS_MAX {
            return Err(Misbehaviour::TooMuch);
        }
        Ok(())
    }

    /// The entry with the parts that came before.
    pub(super) fn whole(&mut self, mut last: Applied) -> Applied {
        if self.parts.count > 0 {
            let mut effects = std::mem::take(&mut self.parts).effects;
            effects.append(&mut last.effects);
            last.effects = effects;
        }
        last
    }
}
