//! Which origins there are: a list that is given, or the records of a DNS name.
//!
//! An entry is an address (`host:port`, `unix:/path`) that stands as it is, or `dns:NAME:PORT`,
//! which stands for every address that the name has, looked up again and again. A look-up that
//! fails or finds nobody changes nothing and is soon repeated: the last known set stays.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::limits;
use crate::link::{Address, BadAddress};

/// The known addresses, in order.
pub type Addresses = Arc<BTreeSet<Address>>;

/// One entry of the list of origins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An address that stands as it is.
    Fixed(Address),
    /// Every address of a DNS name.
    Name {
        /// The name.
        host: String,
        /// The port at each address.
        port: u16,
    },
}

impl FromStr for Entry {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let Some(name) = text.strip_prefix("dns:") else {
            return text.parse().map(Self::Fixed);
        };
        let bad = || BadAddress { text: text.into() };
        let (host, port) = name.rsplit_once(':').ok_or_else(bad)?;
        // The same rules as for a host in an address.
        match name.parse::<Address>().map_err(|_| bad())? {
            Address::Tcp(_) if !host.starts_with('[') => Ok(Self::Name {
                host: host.into(),
                port: port.parse().map_err(|_| bad())?,
            }),
            Address::Tcp(_) | Address::Unix(_) | Address::Duplex(_) => Err(bad()),
        }
    }
}

impl From<Address> for Entry {
    fn from(address: Address) -> Self {
        Self::Fixed(address)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "dns:{host}:{port}"),
        }
    }
}

/// How often names are looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The time from one answer to the next look-up.
    #[serde(with = "crate::config::duration")]
    pub every: Duration,
    /// The time from a failure or an empty answer to the next look-up.
    #[serde(with = "crate::config::duration")]
    pub retry: Duration,
    /// How long a look-up may take before it counts as failed.
    #[serde(with = "crate::config::duration")]
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            retry: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Follows `entries` until the receiver and its clones are dropped. Must be called within a tokio
/// runtime.
///
/// Fixed addresses are there from the start, those of names as soon as they are known. The value
/// changes only when the set does.
pub fn follow(
    entries: impl IntoIterator<Item = Entry>,
    settings: &Settings,
) -> watch::Receiver<Addresses> {
    follow_with(entries, settings, Arc::new(look_up))
}

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
type LookUp = Arc<dyn Fn(String, u16) -> Answer + Send + Sync>;

fn look_up(host: String, port: u16) -> Answer {
    Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
}

fn follow_with(
    entries: impl IntoIterator<Item = Entry>,
    settings: &Settings,
    look_up: LookUp,
) -> watch::Receiver<Addresses> {
    let mut fixed = BTreeSet::new();
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Entry::Fixed(address) => {
                fixed.insert(address);
            }
            Entry::Name { host, port } => names.push((host, port)),
        }
    }
    let (known, receiver) = watch::channel(Arc::new(fixed.clone()));
    let parts = vec![BTreeSet::new(); names.len()];
    let directory = Arc::new(Directory {
        fixed,
        parts: Mutex::new(parts),
        known,
    });
    for (part, (host, port)) in names.into_iter().enumerate() {
        let follower = Follower {
            part,
            host,
            port,
            settings: settings.clone(),
        };
        tokio::spawn(follower.run(Arc::clone(&directory), Arc::clone(&look_up)));
    }
    // A channel whose sender is gone would wake its receivers for nothing.
    tokio::spawn(async move { directory.known.closed().await });
    receiver
}

struct Directory {
    fixed: BTreeSet<Address>,
    /// What each name last resolved to.
    parts: Mutex<Vec<BTreeSet<Address>>>,
    known: watch::Sender<Addresses>,
}

impl Directory {
    fn learn(&self, part: usize, addresses: BTreeSet<Address>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[part] = addresses;
        let union: BTreeSet<_> = parts.iter().flatten().chain(&self.fixed).cloned().collect();
        self.known.send_if_modified(|known| {
            let changed = **known != union;
            if changed {
                let text: Vec<_> = union.iter().map(ToString::to_string).collect();
                tracing::info!(origins = text.join(" "), "the origins are");
                *known = Arc::new(union);
            }
            changed
        });
    }
}

struct Follower {
    part: usize,
    host: String,
    port: u16,
    settings: Settings,
}

impl Follower {
    async fn run(self, directory: Arc<Directory>, look_up: LookUp) {
        loop {
            let ask =
                tokio::time::timeout(self.settings.timeout, look_up(self.host.clone(), self.port));
            let answer = tokio::select! {
                answer = ask => answer,
                () = directory.known.closed() => return,
            };
            let pause = match answer {
                Ok(Ok(found)) if !found.is_empty() => {
                    // In order first, so that the cut keeps the same ones each time.
                    let found: BTreeSet<SocketAddr> = found.into_iter().collect();
                    let found = found.into_iter().take(limits::ADDRESSES_PER_NAME);
                    let addresses = found.map(|addr| Address::Tcp(addr.to_string()));
                    directory.learn(self.part, addresses.collect());
                    self.settings.every
                }
                failed => {
                    let why = match failed {
                        Ok(Ok(_)) => "no address".to_owned(),
                        Ok(Err(error)) => error.to_string(),
                        Err(_) => "no answer in time".to_owned(),
                    };
                    tracing::warn!(
                        name = self.host,
                        why,
                        "cannot resolve, the last known origins stay"
                    );
                    self.settings.retry
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = directory.known.closed() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
