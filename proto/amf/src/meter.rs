//! What a message has cost so far.

use crate::limits::{Limit, Limits};

/// Counts what is read or written against the limits of one message.
///
/// Whoever is about to handle values pays for them first: a container pays for its elements,
/// the message for its top-level values. A count that the limits do not cover is refused
/// before anything is allocated for it.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    values: usize,
    bytes: usize,
    depth: usize,
    /// The deepest level reached inside the containers that are open.
    deepest: usize,
    /// How many containers of this top-level value were opened: the number of the next one.
    ordinal: u32,
}

/// What everything inside a container costs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weight {
    values: usize,
    bytes: usize,
    /// Levels below the container's parent.
    height: usize,
}

/// The state of the meter when a container was opened.
#[derive(Debug)]
pub(crate) struct Entered {
    /// The container's number in its top-level value, in order of appearance.
    pub(crate) ordinal: u32,
    values: usize,
    bytes: usize,
    deepest: usize,
}

impl Meter {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            values: 0,
            bytes: 0,
            depth: 0,
            deepest: 0,
            ordinal: 0,
        }
    }

    /// Another top-level value begins.
    pub(crate) const fn renumber(&mut self) {
        self.ordinal = 0;
    }

    pub(crate) fn pay_values(&mut self, count: usize) -> Result<(), Limit> {
        if count > self.limits.values - self.values {
            return Err(Limit::Values);
        }
        self.values += count;
        Ok(())
    }

    pub(crate) fn pay_bytes(&mut self, count: usize) -> Result<(), Limit> {
        if count > self.limits.bytes - self.bytes {
            return Err(Limit::Bytes);
        }
        self.bytes += count;
        Ok(())
    }

    /// Pays for a reference as if its referent stood here.
    pub(crate) fn pay_again(&mut self, weight: Weight) -> Result<(), Limit> {
        let bottom = self.depth + weight.height;
        if bottom > self.limits.depth {
            return Err(Limit::Depth);
        }
        self.deepest = self.deepest.max(bottom);
        self.pay_values(weight.values)?;
        self.pay_bytes(weight.bytes)
    }

    pub(crate) fn enter(&mut self) -> Result<Entered, Limit> {
        if self.depth == self.limits.depth {
            return Err(Limit::Depth);
        }
        let entered = Entered {
            ordinal: self.ordinal,
            values: self.values,
            bytes: self.bytes,
            deepest: self.deepest,
        };
        self.depth += 1;
        self.deepest = self.depth;
        self.ordinal = self.ordinal.saturating_add(1);
        Ok(entered)
    }

    pub(crate) fn leave(&mut self, entered: &Entered) -> Weight {
        self.depth -= 1;
        let weight = Weight {
            values: self.values - entered.values,
            bytes: self.bytes - entered.bytes,
            height: self.deepest - self.depth,
        };
        self.deepest = self.deepest.max(entered.deepest);
        weight
    }

    pub(crate) const fn depth(&self) -> usize {
        self.depth
    }

    /// Climbs back out of containers whose writing failed. What they cost stays paid.
    pub(crate) const fn climb_to(&mut self, depth: usize) {
        self.depth = depth;
    }
}

impl Weight {
    /// A value without parts beside these bytes.
    pub(crate) const fn leaf(bytes: usize) -> Self {
        Self {
            values: 0,
            bytes,
            height: 0,
        }
    }
}
