//! One host of a lab.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::error::Error;
use crate::system;
use crate::wires::Port;

/// A host: a network namespace with one interface, or, for the outside host, an interface
/// beside those that this process has anyway. Valid as long as its lab.
#[derive(Debug, Clone)]
pub struct Host(Arc<Identity>);

#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) lab: usize,
    pub(crate) port: Port,
    pub(crate) addr: Ipv4Addr,
    pub(crate) addr6: Option<Ipv6Addr>,
    pub(crate) interface: String,
    /// None for the outside host.
    pub(crate) namespace: Option<String>,
}

impl Host {
    pub(crate) fn new(identity: Identity) -> Self {
        Self(Arc::new(identity))
    }

    /// What it was called when it was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address, in 198.18.0.0/15. A server may listen on it or on 0.0.0.0; ports of
    /// other hosts are not in its way.
    #[must_use]
    pub fn addr(&self) -> Ipv4Addr {
        self.0.addr
    }

    /// Its other address, if the kernel has IPv6.
    #[must_use]
    pub fn addr6(&self) -> Option<Ipv6Addr> {
        self.0.addr6
    }

    /// The name of its interface, as its programs see it.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.0.interface
    }

    /// A command that runs on this host.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.place(&Command::new(program))
    }

    /// The same command, on this host: with its arguments, environment and folder.
    #[must_use]
    pub fn place(&self, command: &Command) -> Command {
        let mut placed = match &self.0.namespace {
            Some(namespace) => {
                let mut launcher = system::launcher(&system::path_of(namespace));
                launcher.arg(command.get_program());
                launcher
            }
            None => Command::new(command.get_program()),
        };
        placed.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => placed.env(name, value),
                None => placed.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            placed.current_dir(folder);
        }
        placed
    }

    /// Does something on a thread of its own whose sockets are this host's, and waits for
    /// it. Sockets stay where they were made: they can be used anywhere afterwards, and
    /// threads that the work starts are on this host as well.
    ///
    /// # Errors
    /// The system refuses the thread the way in.
    ///
    /// # Panics
    /// When the work does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        match &self.0.namespace {
            Some(namespace) => system::inside(&system::path_of(namespace), work),
            None => Ok(work()),
        }
    }

    /// Where the namespace can be opened (`nsenter --net=…`); none for the outside host.
    #[must_use]
    pub fn namespace(&self) -> Option<impl AsRef<Path> + use<>> {
        self.0.namespace.as_deref().map(system::path_of)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0
    }
}
