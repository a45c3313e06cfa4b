//! Containers that appear more than once, and containers inside themselves.
//!
//! Containers are numbered through a top-level value in order of their first appearance, in
//! AMF0 and in AMF3 parts alike. This number is what [`Value::Reference`] holds. It is not the
//! index on the wire: that one counts through the message in AMF0, counts dates, XML and byte
//! arrays too in AMF3, and begins anew in every AMF3 part.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::meter::Weight;
use crate::value::Value;

/// What the references of a message that is read can point to.
#[derive(Debug, Default)]
pub(crate) struct Referents {
    slots: Vec<Slot>,
}

#[derive(Debug)]
enum Slot {
    Open { ordinal: u32 },
    Closed { value: Value, weight: Weight },
}

impl Referents {
    /// Takes the next index for a container whose elements follow.
    pub(crate) fn open(&mut self, ordinal: u32) -> usize {
        self.slots.push(Slot::Open { ordinal });
        self.slots.len() - 1
    }

    /// The container at this index is complete.
    pub(crate) fn close(&mut self, index: usize, value: &Value, weight: Weight) {
        self.slots[index] = Slot::Closed {
            value: value.clone(),
            weight,
        };
    }

    /// Takes the next index for a value without elements.
    pub(crate) fn leaf(&mut self, value: &Value, weight: Weight) {
        self.slots.push(Slot::Closed {
            value: value.clone(),
            weight,
        });
    }

    /// Another handle to what is at this index, and what it costs.
    pub(crate) fn resolve(&self, index: usize) -> Option<(Value, Weight)> {
        Some(match self.slots.get(index)? {
            Slot::Open { ordinal } => (Value::Reference(*ordinal), Weight::default()),
            Slot::Closed { value, weight } => (value.clone(), *weight),
        })
    }
}

/// Whether a container that was written is repeated or referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// By reference: the bytes depend on which handles are the same.
    Refer,
    /// In full: equal values have equal bytes.
    Repeat,
}

/// Which container this is, if it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    address: usize,
    /// There are other handles, so it may appear again.
    shared: bool,
}

impl Identity {
    /// A place in a reference table that nothing is going to refer to.
    pub(crate) const LEAF: Self = Self {
        address: 0,
        shared: false,
    };

    pub(crate) fn of<T>(handle: &Arc<T>) -> Self {
        Self {
            address: Arc::as_ptr(handle).addr(),
            shared: Arc::strong_count(handle) > 1,
        }
    }
}

/// The containers of a top-level value that is being written.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    /// The numbers of shared containers by address. Looked up, never iterated: addresses
    /// differ from run to run.
    ordinals: BTreeMap<usize, u32>,
    next: u32,
    open: Vec<Open>,
    scopes: u32,
}

/// A container that is being written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) ordinal: u32,
    /// Which AMF3 part of the message it is in; 0 is AMF0.
    pub(crate) scope: u32,
    /// Its index in the reference table of that part.
    pub(crate) index: usize,
    /// The number that was next when it was opened.
    before: u32,
}

impl Visits {
    /// Another top-level value begins.
    pub(crate) fn renumber(&mut self) {
        self.ordinals.clear();
        self.open.clear();
        self.next = 0;
    }

    pub(crate) fn enter(&mut self, identity: Identity, scope: u32, index: usize) -> Open {
        let before = self.next;
        let ordinal = if identity.shared {
            *self.ordinals.entry(identity.address).or_insert(before)
        } else {
            before
        };
        // A container written once more has the numbers it had, and so do its elements.
        self.next = ordinal.saturating_add(1);
        let open = Open {
            ordinal,
            scope,
            index,
            before,
        };
        self.open.push(open);
        open
    }

    pub(crate) fn leave(&mut self, open: &Open) {
        self.open.pop();
        self.next = self.next.max(open.before);
    }

    /// Forgets that this container, and any inside it, was opened.
    pub(crate) fn abandon(&mut self, open: &Open) {
        while self
            .open
            .pop()
            .is_some_and(|last| last.ordinal != open.ordinal)
        {}
        self.next = open.before;
    }

    /// The container with this number, if it is open.
    pub(crate) fn find(&self, ordinal: u32) -> Option<&Open> {
        self.open.iter().rev().find(|open| open.ordinal == ordinal)
    }

    /// A number for another AMF3 part.
    pub(crate) fn new_scope(&mut self) -> u32 {
        self.scopes = self.scopes.saturating_add(1);
        self.scopes
    }
}

/// The reference table of a part that is written.
#[derive(Debug, Default)]
pub(crate) struct Indices {
    by_address: BTreeMap<usize, usize>,
    by_index: Vec<usize>,
}

impl Indices {
    /// Where this container was written in this part, if it was.
    pub(crate) fn find(&self, identity: Identity) -> Option<usize> {
        if !identity.shared {
            return None;
        }
        let index = *self.by_address.get(&identity.address)?;
        // An index that was taken back may have gone to another container.
        (self.by_index.get(index) == Some(&identity.address)).then_some(index)
    }

    /// Takes the next index.
    pub(crate) fn push(&mut self, identity: Identity) -> usize {
        let index = self.by_index.len();
        self.by_index.push(identity.address);
        if identity.shared {
            self.by_address.insert(identity.address, index);
        }
        index
    }

    /// Takes back this index and those after it.
    pub(crate) fn truncate(&mut self, index: usize) {
        self.by_index.truncate(index);
    }
}
