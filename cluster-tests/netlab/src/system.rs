//! What is asked of the machine: a number for the lab, namespaces, interfaces.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tappers::{Interface, Tap};

use crate::error::Error;
use crate::limits::LABS_MAX;
use crate::wires::{Port, mac};

/// Where the locks lie by which labs have their numbers.
const LOCKS: &str = "/run/selvage-netlab";

/// Where `ip netns` keeps names of namespaces.
const NAMESPACES: &str = "/run/netns";

/// A number that no other living lab on this machine has. Everything that is named in
/// the system is named after it, so that a dead lab's remains can be told from a living
/// one's: the kernel gives up the lock of a process that dies.
#[derive(Debug)]
pub(crate) struct Number {
    number: usize,
    _lock: File,
}

impl Number {
    /// Takes a free number, and clears away what labs have left that died.
    pub(crate) fn take() -> Result<Self, Error> {
        fs::create_dir_all(LOCKS).map_err(|e| Error::system(format!("making {LOCKS}"), e))?;
        let mut mine = None;
        let left = remains();
        for number in 0..LABS_MAX {
            let prefix = prefix(number);
            let left: Vec<_> = left
                .iter()
                .filter(|name| name.starts_with(&prefix))
                .collect();
            if mine.is_some() && left.is_empty() {
                continue;
            }
            let Some(lock) = lock(number)? else {
                continue;
            };
            for name in left {
                remove_namespace(name);
            }
            mine.get_or_insert(Self {
                number,
                _lock: lock,
            });
        }
        mine.ok_or(Error::Full {
            what: "labs on one machine",
            max: LABS_MAX,
        })
    }

    pub(crate) fn get(&self) -> usize {
        self.number
    }

    /// The namespace of a host.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}{host}", prefix(self.number))
    }

    /// The interface of the outside host.
    pub(crate) fn uplink(&self) -> String {
        format!("selvage{}", self.number)
    }

    pub(crate) fn addr(&self, port: Port) -> Ipv4Addr {
        let [high, low] = self.octets();
        // .0 is the network.
        Ipv4Addr::new(198, 18 + high, low, port + 1)
    }

    pub(crate) fn addr6(&self, port: Port) -> Ipv6Addr {
        let [high, low] = self.octets();
        let network = u16::from_be_bytes([high, low]);
        // A unique local prefix (RFC 4193).
        Ipv6Addr::new(0xfd73, 0x6c76, network, 0, 0, 0, 0, u16::from(port) + 1)
    }

    fn octets(&self) -> [u8; 2] {
        u16::try_from(self.number).unwrap_or(u16::MAX).to_be_bytes()
    }
}

fn prefix(number: usize) -> String {
    format!("selvage-{number}-")
}

/// The lock of a number, if nobody holds it.
fn lock(number: usize) -> Result<Option<File>, Error> {
    let path = PathBuf::from(LOCKS).join(number.to_string());
    let what = |error| Error::system(format!("locking {}", path.display()), error);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(what)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(what(error)),
    }
}

/// The namespaces of all labs, living or dead.
fn remains() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMESPACES) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("selvage-")).collect()
}

/// Where a namespace can be opened.
pub(crate) fn path_of(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

/// Makes a namespace.
pub(crate) fn add_namespace(namespace: &str) -> Result<(), Error> {
    ip(&["netns", "add", namespace], None).map(drop)
}

/// Ends what runs in a namespace and takes its name away. What fails is left to the next
/// lab, which clears away remains.
pub(crate) fn remove_namespace(namespace: &str) {
    if let Ok(pids) = ip(&["netns", "pids", namespace], None) {
        let pids = pids
            .split_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok());
        for pid in pids.filter(|pid| *pid != std::process::id()) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // One that is gone already is no error.
                let _gone = kill_process(pid, Signal::KILL);
            }
        }
    }
    let _left = ip(&["netns", "del", namespace], None);
}

/// Makes a TAP interface, in a namespace or here. It vanishes with the value.
pub(crate) fn open_tap(namespace: Option<&Path>, name: &str) -> Result<Tap, Error> {
    let what = || match namespace {
        Some(path) => format!("making the interface {name} in {}", path.display()),
        None => format!("making the interface {name}"),
    };
    let open = || -> io::Result<Tap> {
        let mut tap = Tap::new_named(Interface::new(name)?)?;
        tap.set_nonblocking(true)?;
        Ok(tap)
    };
    let opened = match namespace {
        None => open(),
        Some(path) => inside(path, open)?,
    };
    opened.map_err(|error| Error::system(what(), error))
}

/// Gives an interface its addresses and sets it up.
pub(crate) fn configure(
    namespace: Option<&str>,
    interface: &str,
    port: Port,
    addr: Ipv4Addr,
    addr6: Option<Ipv6Addr>,
) -> Result<(), Error> {
    let mac = mac(port).map(|byte| format!("{byte:02x}")).join(":");
    let mut lines = format!("link set dev {interface} address {mac}\n");
    lines += &format!("addr add {addr}/24 broadcast + dev {interface}\n");
    if let Some(addr6) = addr6 {
        // Nobody else can have it, so nobody is asked first.
        lines += &format!("addr add {addr6}/64 dev {interface} nodad\n");
    }
    lines += &format!("link set dev {interface} up\n");
    let Some(namespace) = namespace else {
        return ip(&["-batch", "-"], Some(&lines)).map(drop);
    };
    lines += "link set dev lo up\n";
    // For groups and for 255.255.255.255.
    lines += &format!("route add default dev {interface}\n");
    ip(&["-n", namespace, "-batch", "-"], Some(&lines)).map(drop)
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// Does something on a thread of its own that is in a namespace.
pub(crate) fn inside<T: Send>(
    namespace: &Path,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    let what = || format!("entering {}", namespace.display());
    let entered = || -> io::Result<T> {
        let file = File::open(namespace)?;
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network)?;
        Ok(work())
    };
    let done = std::thread::scope(|scope| scope.spawn(entered).join());
    match done {
        Ok(done) => done.map_err(|error| Error::system(what(), error)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The launcher of a program in a namespace. Unlike `ip netns exec` it mounts no other
/// /sys, which would hide the control groups.
pub(crate) fn launcher(namespace: &Path) -> Command {
    let mut option = OsString::from("--net=");
    option.push(namespace);
    let mut launcher = Command::new("nsenter");
    launcher.arg(option).arg("--");
    launcher
}

/// Runs `ip` with these lines as its input, and gives what it says.
fn ip(args: &[&str], input: Option<&str>) -> Result<String, Error> {
    let command = || format!("ip {}", args.join(" "));
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                let (program, package) = ("ip", "iproute2");
                return Error::Missing { program, package };
            }
            Error::system(command(), error)
        })?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // One that stopped reading says why below.
        let _stopped = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| Error::system(command(), error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        return Err(Error::NotPermitted { what: command() });
    }
    Err(Error::Failed {
        command: command(),
        said,
    })
}
