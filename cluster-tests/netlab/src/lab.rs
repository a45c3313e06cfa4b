//! The lab: hosts, and what is between them.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::host::{Host, Identity};
use crate::limits::{HOSTS_MAX, NAME_BYTES_MAX};
use crate::link::{Impairment, Link};
use crate::nat::Nat;
use crate::switch::Switch;
use crate::system::{self, Number};
use crate::wires::{Port, Wires};

/// What the outside host is called.
const HERE: &str = "here";

/// A network of its own. It ends with this value: what still runs on its hosts is killed,
/// namespaces and interfaces vanish.
#[derive(Debug)]
pub struct Netlab {
    seed: u64,
    wires: Arc<Mutex<Wires>>,
    hosts: Mutex<Vec<Host>>,
    /// How many there are. They have the last addresses.
    translators: Mutex<usize>,
    /// Before the number, so that nobody else can have that while this still runs.
    switch: Option<Switch>,
    number: Number,
}

impl Netlab {
    /// A lab without hosts. What its links do by chance follows from the seed.
    ///
    /// # Errors
    /// This process may not make networks, or there is something else that the machine
    /// lacks.
    pub fn new(seed: u64) -> Result<Self, Error> {
        let number = Number::take()?;
        let wires = Arc::new(Mutex::new(Wires::new(seed)));
        let switch = Some(Switch::start(Arc::clone(&wires))?);
        Ok(Self {
            seed,
            wires,
            hosts: Mutex::new(Vec::new()),
            translators: Mutex::new(0),
            switch,
            number,
        })
    }

    /// What it was made with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Makes a host. Names are of `a-z`, `0-9` and `-`.
    ///
    /// # Errors
    /// The name is no such word or is taken; there are too many hosts; the machine refuses.
    pub fn host(&self, name: &str) -> Result<Host, Error> {
        let wrong = |why| {
            let name = name.to_owned();
            Err(Error::Name { name, why })
        };
        let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
            return wrong("a name is a short word of a-z, 0-9 and -");
        }
        if name == HERE {
            return wrong("that is the outside host");
        }
        let mut hosts = self.hosts();
        if hosts.iter().any(|host| host.name() == name) {
            return wrong("it is taken");
        }
        let namespace = self.number.namespace(name);
        system::add_namespace(&namespace)?;
        let made = self.make(&mut hosts, name, Some(namespace.clone()));
        if made.is_err() {
            system::remove_namespace(&namespace);
        }
        made
    }

    /// Several hosts at once.
    ///
    /// # Errors
    /// As [`Self::host`].
    pub fn hosts_named<const N: usize>(&self, names: [&str; N]) -> Result<[Host; N], Error> {
        let mut made = Vec::with_capacity(N);
        for name in names {
            made.push(self.host(name)?);
        }
        <[Host; N]>::try_from(made).map_err(|_| Error::Full {
            what: "hosts",
            max: HOSTS_MAX,
        })
    }

    /// The outside host: this process, and everything else where this process is. With
    /// the first call the lab gets an interface here, and what is sent to its hosts' addresses
    /// from here goes through the switch like everything else.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn here(&self) -> Result<Host, Error> {
        let mut hosts = self.hosts();
        let known = hosts.iter().find(|host| host.name() == HERE);
        match known {
            Some(host) => Ok(host.clone()),
            None => self.make(&mut hosts, HERE, None),
        }
    }

    /// Puts an address translator before some hosts, and gives its address: everybody else
    /// sees them there, and only there. They reach each other as before.
    ///
    /// # Errors
    /// There are too many hosts.
    ///
    /// # Panics
    /// When a host is of another lab, or behind a translator already.
    pub fn translate(&self, kind: Nat, hosts: &[&Host]) -> Result<Ipv4Addr, Error> {
        let ports: Vec<Port> = hosts.iter().map(|host| self.port(host)).collect();
        let known = self.hosts();
        let mut count = self
            .translators
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (what, max) = ("hosts", HOSTS_MAX);
        let last = HOSTS_MAX.checked_sub(*count + 1);
        let number = last
            .filter(|last| known.len() <= *last)
            .and_then(|last| Port::try_from(last).ok())
            .ok_or(Error::Full { what, max })?;
        let mut wires = self.wires();
        for port in &ports {
            assert!(!wires.is_translated(*port), "a translator before another");
        }
        *count += 1;
        let addr = self.number.addr(number);
        wires.translate(kind, number, addr, &ports);
        Ok(addr)
    }

    /// The translator before a host begins anew: it gives other ports from now on, and
    /// those that it gave lead nowhere.
    ///
    /// # Panics
    /// When the host is of another lab.
    pub fn forget_ports(&self, host: &Host) {
        let port = self.port(host);
        self.wires().forget(port);
    }

    /// The link from one host to another.
    ///
    /// # Panics
    /// When a host is of another lab.
    #[must_use]
    pub fn link(&self, from: &Host, to: &Host) -> Link<'_> {
        Link::new(&self.wires, self.port(from), self.port(to))
    }

    /// Both links between two hosts do this from now on.
    ///
    /// # Panics
    /// When a host is of another lab.
    pub fn set_between(&self, one: &Host, other: &Host, rule: &Impairment) {
        self.link(one, other).set(rule.clone());
        self.link(other, one).set(rule.clone());
    }

    /// All links do this from now on, those of hosts that come later too.
    pub fn set_everywhere(&self, rule: &Impairment) {
        self.wires().set_everywhere(rule);
    }

    /// Cuts one direction: nothing gets from one host to the other any more.
    ///
    /// # Panics
    /// When a host is of another lab.
    pub fn cut(&self, from: &Host, to: &Host) {
        self.link(from, to).cut();
    }

    /// Cuts both directions.
    ///
    /// # Panics
    /// When a host is of another lab.
    pub fn cut_between(&self, one: &Host, other: &Host) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// Mends both directions.
    ///
    /// # Panics
    /// When a host is of another lab.
    pub fn mend_between(&self, one: &Host, other: &Host) {
        self.link(one, other).mend();
        self.link(other, one).mend();
    }

    /// Parts the named hosts: two of them reach each other if a group has both, and not
    /// otherwise. A host in two groups is a bridge; one in a group of its own is alone
    /// among the named; one in no group keeps what it has.
    ///
    /// # Panics
    /// When a host is of another lab.
    pub fn partition(&self, groups: &[&[&Host]]) {
        let ports = |group: &&[&Host]| group.iter().map(|host| self.port(host)).collect();
        let groups: Vec<Vec<Port>> = groups.iter().map(ports).collect();
        let mut wires = self.wires();
        for from in groups.iter().flatten() {
            for to in groups.iter().flatten() {
                let together = |group: &Vec<Port>| group.contains(from) && group.contains(to);
                wires.cut(*from, *to, !groups.iter().any(together));
            }
        }
    }

    /// Cuts a host off from all others, in both directions.
    ///
    /// # Panics
    /// When it is of another lab.
    pub fn isolate(&self, host: &Host) {
        self.cut_all(host, true);
    }

    /// Undoes [`Self::isolate`], and every other cut of the host's links.
    ///
    /// # Panics
    /// When it is of another lab.
    pub fn rejoin(&self, host: &Host) {
        self.cut_all(host, false);
    }

    /// Mends everything that was cut. Impairments stay.
    pub fn heal(&self) {
        self.wires().heal();
    }

    fn cut_all(&self, host: &Host, cut: bool) {
        let port = self.port(host);
        let others: Vec<Port> = self.hosts().iter().map(|other| self.port(other)).collect();
        let mut wires = self.wires();
        for other in others {
            wires.cut(port, other, cut);
            wires.cut(other, port, cut);
        }
    }

    fn make(
        &self,
        hosts: &mut Vec<Host>,
        name: &str,
        namespace: Option<String>,
    ) -> Result<Host, Error> {
        let full = Error::Full {
            what: "hosts",
            max: HOSTS_MAX,
        };
        let port = Port::try_from(hosts.len())
            .ok()
            .filter(|port| usize::from(*port) < HOSTS_MAX - self.translators())
            .ok_or(full)?;
        let addr = self.number.addr(port);
        let addr6 = system::has_ipv6().then(|| self.number.addr6(port));
        let interface = match namespace {
            Some(_) => "eth0".to_owned(),
            None => self.number.uplink(),
        };
        let path = namespace.as_deref().map(system::path_of);
        let tap = system::open_tap(path.as_deref(), &interface)?;
        system::configure(namespace.as_deref(), &interface, port, addr, addr6)?;
        let host = Host::new(Identity {
            name: name.to_owned(),
            lab: self.number.get(),
            port,
            addr,
            addr6,
            interface,
            namespace,
        });
        self.wires().add(name);
        if let Some(switch) = &self.switch {
            switch.plug(tap);
        }
        hosts.push(host.clone());
        Ok(host)
    }

    fn port(&self, host: &Host) -> Port {
        let identity = host.identity();
        assert!(
            identity.lab == self.number.get(),
            "{} is a host of another lab",
            identity.name
        );
        identity.port
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn translators(&self) -> usize {
        *self
            .translators
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn hosts(&self) -> MutexGuard<'_, Vec<Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Netlab {
    fn drop(&mut self) {
        let hosts = std::mem::take(&mut *self.hosts());
        // The interfaces vanish with the switch.
        self.switch = None;
        for host in hosts {
            if let Some(namespace) = &host.identity().namespace {
                system::remove_namespace(namespace);
            }
        }
    }
}
