//! Where application instances live.

use std::collections::BTreeMap;

use model::{AppInstance, OriginId};

use crate::limits::HOMES_MAX;

/// All homes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Homes {
    pub(crate) table: BTreeMap<AppInstance, OriginId>,
}

impl Homes {
    /// The instance's home: this origin, if it has none yet. Names the limit if it cannot
    /// have one.
    pub(crate) fn settle(
        &mut self,
        at: &AppInstance,
        origin: &OriginId,
    ) -> Result<OriginId, &'static str> {
        if let Some(home) = self.table.get(at) {
            return Ok(home.clone());
        }
        if self.table.len() >= HOMES_MAX {
            return Err("homes");
        }
        self.table.insert(at.clone(), origin.clone());
        Ok(origin.clone())
    }

    /// The instances that lived at the origin, in order. They have no home any more.
    pub(crate) fn leave(&mut self, origin: &OriginId) -> Vec<AppInstance> {
        self.table
            .extract_if(.., |_, home| home == origin)
            .map(|(at, _)| at)
            .collect()
    }
}
