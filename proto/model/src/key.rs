//! What names a thing in the whole cluster.

use std::fmt;

use crate::name::{AppName, InstanceName, StreamName, VhostName};

/// An application instance: `chat/room1`. They are ordered by what tells most of them apart
/// first, since maps compare them all the time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppInstance {
    /// The instance.
    pub instance: InstanceName,
    /// The application.
    pub app: AppName,
    /// The virtual host.
    pub vhost: VhostName,
}

impl fmt::Display for AppInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.instance)
    }
}

/// A stream: `live/_definst_/a`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// Where it is.
    pub at: AppInstance,
    /// Its published name.
    pub name: StreamName,
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.at, self.name)
    }
}
