//! A disk that a test can fill up or slow down.
//!
//! * In memory: a file system of a few megabytes of its own (`tmpfs`). A ballast file
//!   fills it, and the kernel says "no space left" to everybody else, as it does of any disk.
//! * On the machine's disk: a folder. The kernel counts what one control group writes to
//!   the device and lets through so many requests a second (`blkio.throttle`), so every
//!   fsync of the processes in it really takes long.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;

/// What a disk in memory holds: the log of a minute of heavy writing and two snapshots.
const MEMORY_MIB: usize = 96;

/// Requests that a slow disk takes in a second. An fsync is two or three of them.
const SLOW_REQUESTS: u32 = 15;

/// Where control groups of block devices are.
const GROUPS: &str = "/sys/fs/cgroup/blkio";

/// A disk of one process.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Memory,
    Machine(Option<Group>),
}

/// A control group, and the device that it is kept from.
#[derive(Debug)]
struct Group {
    folder: PathBuf,
    device: String,
}

impl Disk {
    /// A disk in memory.
    ///
    /// # Panics
    /// When it may not be mounted: that needs the rights of netlab.
    #[track_caller]
    pub fn memory() -> Self {
        let folder = folder();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let options = format!("size={MEMORY_MIB}m");
        let options = std::ffi::CString::new(options).expect("no zero in it");
        mount(
            "tmpfs",
            folder.path(),
            "tmpfs",
            flags,
            Some(options.as_c_str()),
        )
        .unwrap_or_else(|error| {
            panic!(
                "a disk in memory cannot be mounted at {}: {error}; run the test as root or \
                     with cluster-tests/netlab/rootless",
                folder.path().display()
            )
        });
        let kind = Kind::Memory;
        Self { folder, kind }
    }

    /// A folder of the machine's disk.
    ///
    /// # Panics
    /// When there is no room for one.
    #[track_caller]
    pub fn machine() -> Self {
        let folder = folder();
        let kind = Kind::Machine(Group::of(folder.path()));
        Self { folder, kind }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether it can be full.
    #[must_use]
    pub fn can_be_full(&self) -> bool {
        matches!(self.kind, Kind::Memory)
    }

    /// Whether it can be slow: it is the machine's, and the kernel has the control group.
    #[must_use]
    pub fn can_be_slow(&self) -> bool {
        matches!(self.kind, Kind::Machine(Some(_)))
    }

    /// Takes all the room that is left.
    ///
    /// # Panics
    /// When something else is wrong than that there is no more.
    #[track_caller]
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a ballast file");
        // The last pages in small pieces.
        for piece in [vec![0; 1 << 20], vec![0; 4096]] {
            let full = loop {
                if let Err(error) = ballast.write_all(&piece) {
                    break error;
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
        }
    }

    /// Gives it back.
    pub fn empty(&self) {
        let _there_is_none = fs::remove_file(self.ballast());
    }

    /// What this process writes is under the disk's rule from now on.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn serve(&self, pid: u32) {
        if let Kind::Machine(Some(group)) = &self.kind {
            group.write("cgroup.procs", &pid.to_string());
        }
    }

    /// Makes it slow, or as fast as it is.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[track_caller]
    pub fn slow(&self, slow: bool) {
        if let Kind::Machine(Some(group)) = &self.kind {
            // 0 takes the rule away.
            let rate = if slow { SLOW_REQUESTS } else { 0 };
            let rule = format!("{} {rate}", group.device);
            group.write("blkio.throttle.write_iops_device", &rule);
        }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        match &self.kind {
            // Whoever still has a file open keeps it for himself.
            Kind::Memory => {
                let _left = unmount(self.folder.path(), UnmountFlags::DETACH);
            }
            Kind::Machine(group) => {
                if let Some(group) = group {
                    let _left = fs::remove_dir(&group.folder);
                }
            }
        }
    }
}

impl Group {
    /// A new group, if the kernel has such groups and the folder is on a device.
    fn of(folder: &Path) -> Option<Self> {
        let device = device_of(folder)?;
        let name = folder.file_name()?;
        let group = Path::new(GROUPS).join(name);
        fs::create_dir(&group).ok()?;
        Some(Self {
            folder: group,
            device,
        })
    }

    #[track_caller]
    fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// `major:minor` of the whole device that a folder is on: rules do not name partitions.
fn device_of(folder: &Path) -> Option<String> {
    let device = fs::metadata(folder).ok()?.dev();
    let name = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let known = PathBuf::from(format!("/sys/dev/block/{name}"));
    if !known.exists() {
        return None;
    }
    if known.join("partition").exists() {
        let whole = known.canonicalize().ok()?.parent()?.join("dev");
        return Some(fs::read_to_string(whole).ok()?.trim().to_owned());
    }
    Some(name)
}

const PREFIX: &str = "selvage-disk-";

/// A folder with this process' number in its name. What processes left that were killed is
/// cleared away first.
#[track_caller]
fn folder() -> TempDir {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let of = name.to_str().and_then(|name| {
            let (pid, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
            Pid::from_raw(pid.parse().ok()?)
        });
        if of.is_some_and(|pid| test_kill_process(pid).is_err()) {
            let _nothing_mounted = unmount(entry.path(), UnmountFlags::DETACH);
            let _no_group = fs::remove_dir(Path::new(GROUPS).join(&name));
            let _left = fs::remove_dir_all(entry.path());
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir()
        .expect("a temporary folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_and_an_emptied_one_does() {
        let disk = Disk::memory();
        let file = disk.path().join("file");
        let write = || fs::write(&file, vec![1; 64 << 10]).map_err(|error| error.kind());
        assert_eq!(write(), Ok(()));
        fs::remove_file(&file).unwrap();
        disk.fill();
        assert_eq!(write(), Err(io::ErrorKind::StorageFull));
        disk.empty();
        assert_eq!(write(), Ok(()));
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists());
    }
}
