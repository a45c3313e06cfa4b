//! The reference tables of AMF3 (§2.2): strings, traits, complex objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::graph::{Indices, Referents};

/// What the objects of a class have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Traits {
    /// The class; empty for anonymous objects.
    pub(super) class: Arc<str>,
    /// The names of the sealed members.
    pub(super) sealed: Vec<Arc<str>>,
    /// Whether other members follow the sealed ones.
    pub(super) dynamic: bool,
    /// Whether the body is the business of the class.
    pub(super) externalizable: bool,
}

impl Traits {
    /// The bytes of the names.
    pub(super) fn text_len(&self) -> usize {
        self.class.len() + self.sealed.iter().map(|name| name.len()).sum::<usize>()
    }
}

/// The tables of a reader.
#[derive(Debug, Default)]
pub(super) struct ReadTables {
    pub(super) strings: Vec<Arc<str>>,
    pub(super) traits: Vec<Arc<Traits>>,
    pub(super) objects: Referents,
}

/// The tables of a writer.
#[derive(Debug, Default)]
pub(super) struct WriteTables {
    strings: Numbered<Arc<str>>,
    traits: Numbered<Traits>,
    pub(super) objects: Indices,
}

impl WriteTables {
    /// The index of a string that was written; otherwise it takes the next one.
    pub(super) fn string(&mut self, text: &Arc<str>) -> Option<usize> {
        self.strings.find_or_insert(text)
    }

    /// The index of traits that were written; otherwise they take the next one.
    pub(super) fn traits(&mut self, traits: &Traits) -> Option<usize> {
        self.traits.find_or_insert(traits)
    }
}

/// Things numbered in order of insertion.
#[derive(Debug)]
struct Numbered<T> {
    indices: BTreeMap<T, usize>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            indices: BTreeMap::new(),
        }
    }
}

impl<T: Ord + Clone> Numbered<T> {
    fn find_or_insert(&mut self, item: &T) -> Option<usize> {
        if let Some(index) = self.indices.get(item) {
            return Some(*index);
        }
        self.indices.insert(item.clone(), self.indices.len());
        None
    }
}
