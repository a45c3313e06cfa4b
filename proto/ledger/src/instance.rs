//! What each application instance has of the objects.

use std::collections::BTreeMap;

use model::AppInstance;

use crate::limits::{INSTANCE_BYTES_MAX, INSTANCE_OBJECTS_MAX};

/// All instances that have objects. Found again from these, so no part of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instances {
    table: BTreeMap<AppInstance, Usage>,
}

/// What one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    objects: usize,
    bytes: usize,
}

impl Instances {
    /// Whether the instance may have no more objects.
    pub(crate) fn is_full(&self, at: &AppInstance) -> bool {
        self.table
            .get(at)
            .is_some_and(|usage| usage.objects >= INSTANCE_OBJECTS_MAX)
    }

    /// Bytes by which its objects may still grow.
    pub(crate) fn room(&self, at: &AppInstance) -> usize {
        let bytes = self.table.get(at).map_or(0, |usage| usage.bytes);
        INSTANCE_BYTES_MAX.saturating_sub(bytes)
    }

    /// It has one more object.
    pub(crate) fn add(&mut self, at: &AppInstance, bytes: usize) {
        let usage = match self.table.get_mut(at) {
            Some(usage) => usage,
            None => self.table.entry(at.clone()).or_default(),
        };
        usage.objects += 1;
        usage.bytes += bytes;
    }

    /// An object of these bytes is gone.
    pub(crate) fn remove(&mut self, at: &AppInstance, bytes: usize) {
        if let Some(usage) = self.table.get_mut(at) {
            usage.objects -= 1;
            usage.bytes -= bytes;
            if usage.objects == 0 {
                self.table.remove(at);
            }
        }
    }

    /// An object weighs something else.
    pub(crate) fn reweigh(&mut self, at: &AppInstance, before: usize, after: usize) {
        if let Some(usage) = self.table.get_mut(at) {
            usage.bytes = usage.bytes + after - before;
        }
    }
}
