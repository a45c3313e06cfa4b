//! Who is who.

use std::fmt;

use crate::name::NameError;
use crate::name::name_type;

name_type! {
    /// An edge process, unique in the cluster; `edge-0` or a pod's name.
    EdgeId, max = 64, slashes = false
}

name_type! {
    /// An origin process, unique in the cluster; `origin-0` or a pod's name.
    OriginId, max = 64, slashes = false
}

/// One incarnation of a publish. A later publish of a name has a greater epoch, so
/// whatever carries a smaller one is from the dead and is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// One life of an edge's process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeLife {
    /// Its name.
    pub edge: EdgeId,
    /// Different after a restart.
    pub incarnation: u64,
}

impl fmt::Display for EdgeLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:x}", self.edge, self.incarnation)
    }
}

/// An origin's number in the replicated log; never 0, never given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub std::num::NonZeroU64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in the replicated log. The first entry has 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogIndex(pub u64);

impl fmt::Display for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One client's session at an edge. Drawn at random by the edge, or brought by a client
/// that speaks to several edges under one identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
