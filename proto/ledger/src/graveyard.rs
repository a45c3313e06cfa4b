//! Objects that are gone, for as long as somebody may come who knew them.

use std::collections::{BTreeMap, BTreeSet};

use model::{LogIndex, ObjectKey, Version};

use crate::limits::GRAVES_MAX;

/// The graves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Graveyard {
    graves: BTreeMap<ObjectKey, Grave>,
    /// The oldest first.
    by_age: BTreeSet<(LogIndex, ObjectKey)>,
    /// The highest version in the graves that made room. Whoever comes back to an object
    /// names the version that he has and nothing else.
    floor: Version,
}

/// One grave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grave {
    /// The object's last version.
    pub(crate) version: Version,
    /// The entry that ended it.
    pub(crate) at: LogIndex,
}

impl Graveyard {
    /// All graves, in order.
    pub(crate) fn all(&self) -> &BTreeMap<ObjectKey, Grave> {
        &self.graves
    }

    /// Buries an object. The oldest graves make room.
    pub(crate) fn bury(&mut self, key: ObjectKey, grave: Grave) {
        self.by_age.insert((grave.at, key.clone()));
        self.graves.insert(key, grave);
        while self.graves.len() > GRAVES_MAX {
            let Some((_, key)) = self.by_age.pop_first() else {
                return;
            };
            if let Some(grave) = self.graves.remove(&key) {
                self.raise(grave.version);
            }
        }
    }

    /// The highest version that may be known of an object without a grave.
    pub(crate) fn floor(&self) -> Version {
        self.floor
    }

    /// Versions up to this one may be known.
    pub(crate) fn raise(&mut self, floor: Version) {
        self.floor = self.floor.max(floor);
    }

    /// The version with which a new object of that name begins: above the last of the one
    /// before it, so that what somebody kept of that one never looks valid.
    pub(crate) fn leave(&mut self, key: &ObjectKey) -> Version {
        let last = match self.graves.remove(key) {
            Some(grave) => {
                self.by_age.remove(&(grave.at, key.clone()));
                grave.version
            }
            None => self.floor,
        };
        Version(last.0.checked_add(1).unwrap_or(1))
    }
}
