//! A disk in memory that loses what real ones may lose: for tests and simulations.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::{Disk, DiskFile};

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Ram(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What the process sees.
    names: BTreeMap<String, usize>,
    /// What is seen after a crash.
    durable_names: BTreeMap<String, usize>,
    files: Vec<Contents>,
    faults: Faults,
    syncs: u64,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    synced: usize,
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A write takes at most so many bytes.
    pub short_writes: Option<usize>,
    /// So many bytes still fit.
    pub room: Option<usize>,
    /// A sync says that it is done, and is not.
    pub lost_syncs: bool,
    /// Every sync fails.
    pub failing_syncs: bool,
    /// No sync comes back.
    pub hanging_syncs: bool,
}

/// What a crash leaves of the bytes that were not synced.
#[derive(Clone, Copy, Debug)]
pub enum Crash {
    /// The first so many of each file.
    Keeps(usize),
    /// The size, but of the bytes those of every sector whose bit is 0 here are zero.
    Sectors(u64),
}

const SECTOR: usize = 512;

/// How often a sync that hangs looks whether it still does.
const HANGING: Duration = Duration::from_millis(5);

impl Ram {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// How often something was synced.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// How many bytes of all files are not synced.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        let inner = self.lock();
        inner
            .files
            .iter()
            .map(|file| file.bytes.len().saturating_sub(file.synced))
            .sum()
    }

    /// What the disk holds after a crash. This one is as it was.
    #[must_use]
    pub fn crash(&self, how: Crash) -> Self {
        let inner = self.lock();
        let mut files = inner.files.clone();
        for file in &mut files {
            let (len, synced) = (file.bytes.len(), file.synced.min(file.bytes.len()));
            match how {
                Crash::Keeps(bytes) => file.bytes.truncate(len.min(synced.saturating_add(bytes))),
                Crash::Sectors(bits) => {
                    for (at, byte) in file.bytes.iter_mut().enumerate().skip(synced) {
                        if bits >> (at / SECTOR % 64) & 1 == 0 {
                            *byte = 0;
                        }
                    }
                }
            }
            file.synced = file.bytes.len();
        }
        Self(Arc::new(Mutex::new(Inner {
            names: inner.durable_names.clone(),
            durable_names: inner.durable_names.clone(),
            files,
            faults: Faults::default(),
            syncs: 0,
        })))
    }

    /// Changes what stands in a file, as a failing disk does.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        if let Some(file) = inner.file(name) {
            change(&mut file.bytes);
            file.synced = file.bytes.len();
        }
    }

    /// Removes a file for good, as a person does.
    pub fn lose(&self, name: &str) {
        let mut inner = self.lock();
        inner.names.remove(name);
        inner.durable_names.remove(name);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn file(&mut self, name: &str) -> Option<&mut Contents> {
        let at = *self.names.get(name)?;
        self.files.get_mut(at)
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for Ram {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut inner = self.lock();
        inner
            .file(name)
            .map(|file| file.bytes.clone())
            .ok_or_else(missing)
    }

    fn create(&mut self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        let at = inner.files.len();
        inner.files.push(Contents::default());
        inner.names.insert(name.to_owned(), at);
        Ok(Box::new(RamFile {
            disk: self.clone(),
            at,
        }))
    }

    fn append(&mut self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let at = *self.lock().names.get(name).ok_or_else(missing)?;
        Ok(Box::new(RamFile {
            disk: self.clone(),
            at,
        }))
    }

    fn cut(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let file = inner.file(name).ok_or_else(missing)?;
        file.bytes
            .truncate(usize::try_from(len).unwrap_or(usize::MAX));
        file.synced = file.bytes.len();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        let at = inner.names.remove(from).ok_or_else(missing)?;
        inner.names.insert(to.to_owned(), at);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.lock()
            .names
            .remove(name)
            .map(|_| ())
            .ok_or_else(missing)
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.durable_names = inner.names.clone();
        Ok(())
    }
}

struct RamFile {
    disk: Ram,
    at: usize,
}

impl DiskFile for RamFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.disk.lock();
        let mut len = bytes.len();
        if let Some(most) = inner.faults.short_writes {
            len = len.min(most);
        }
        if let Some(room) = &mut inner.faults.room {
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            len = len.min(*room);
            *room -= len;
        }
        let file = inner.files.get_mut(self.at).ok_or_else(missing)?;
        file.bytes.extend(bytes.iter().take(len));
        Ok(len)
    }

    fn sync(&mut self) -> io::Result<()> {
        while self.disk.lock().faults.hanging_syncs {
            std::thread::park_timeout(HANGING);
        }
        let mut inner = self.disk.lock();
        inner.syncs += 1;
        if inner.faults.failing_syncs {
            return Err(io::Error::other("the disk does not answer"));
        }
        if inner.faults.lost_syncs {
            return Ok(());
        }
        let file = inner.files.get_mut(self.at).ok_or_else(missing)?;
        file.synced = file.bytes.len();
        Ok(())
    }
}
