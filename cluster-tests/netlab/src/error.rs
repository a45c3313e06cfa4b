//! What can go wrong while a lab is built.

use std::io;

/// Why there is no lab, or no host in it. Nothing here is a peer's fault: it is the
/// machine's, or the caller's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not make networks.
    #[error(
        "making a network needs root, and {what} is refused: run as root, or where users may \
         have namespaces and open /dev/net/tun, through cluster-tests/netlab/rootless"
    )]
    NotPermitted {
        /// What was refused.
        what: String,
    },
    /// A program is not installed.
    #[error("{program} is not installed (Debian: apt-get install {package})")]
    Missing {
        /// Its name.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A program did not do what it was asked.
    #[error("{command} failed: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// The system refused something else.
    #[error("{what}")]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// There are as many labs on this machine as there can be, or as many hosts in this
    /// one.
    #[error("no more than {max} {what}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        max: usize,
    },
    /// A host's name is empty, too long, taken, or no word of `a-z`, `0-9` and `-`.
    #[error("a host cannot be called {name:?}: {why}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
}

impl Error {
    /// An error of the system, sorted by whether it is a matter of permission.
    pub(crate) fn system(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::NotPermitted { what }
        } else {
            Self::System { what, source }
        }
    }
}
