//! What the log needs of a disk, and the one that is there.
//!
//! The trait is as small as the promises that matter: what was synced is there after a
//! crash, and a name is there once its folder was synced. Everything else may be lost or
//! torn, and [`Ram`](super::Ram) does so on purpose.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::Error;

/// One flat folder of files.
pub trait Disk: Send {
    /// The names in it.
    ///
    /// # Errors
    /// The system's.
    fn names(&self) -> io::Result<Vec<String>>;
    /// A whole file.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// A new file; what had the name is gone.
    ///
    /// # Errors
    /// The system's.
    fn create(&mut self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// A file that exists, to be written at its end.
    ///
    /// # Errors
    /// The system's.
    fn append(&mut self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Shortens a file to so many bytes, on the disk when it returns.
    ///
    /// # Errors
    /// The system's.
    fn cut(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Gives a file another name; what had that name is gone.
    ///
    /// # Errors
    /// The system's.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// What was created, renamed and removed is so on the disk when it returns.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&mut self) -> io::Result<()>;
}

/// A file that is written at its end.
pub trait DiskFile: Send {
    /// Writes some of `bytes` and says how many.
    ///
    /// # Errors
    /// The system's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// What was written is on the disk when it returns.
    ///
    /// # Errors
    /// The system's. What was written since the last success may or may not be there, and
    /// trying again proves nothing: the system may have dropped it.
    fn sync(&mut self) -> io::Result<()>;
}

/// Writes all of `bytes`.
pub(super) fn write_all(file: &mut dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(some) => bytes = bytes.get(some..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A folder of the file system, held by this process alone while this value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    dir: File,
    /// Locked until it is closed.
    _lock: File,
}

/// The file whose lock says that a process has the folder.
const LOCK: &str = "lock";

impl Folder {
    /// Takes the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// Another process has it, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |what| {
            let file = path.display().to_string();
            move |source| Error::io(what, file, source)
        };
        make(path, &mut |folder| File::open(folder)?.sync_all())
            .map_err(failed("make the folder"))?;
        let dir = File::open(path).map_err(failed("open the folder"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK))
            .map_err(failed("open the lock of"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    folder: path.display().to_string(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        Ok(Self {
            path: path.to_owned(),
            dir,
            _lock: lock,
        })
    }
}

/// Makes a folder and those above it that are not there. `sync` makes the name of each durable
/// in the folder above it, before the next is made: a log in a folder without a durable name
/// is lost with the name.
fn make(path: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    // A path of one part lies in the present folder.
    let above = match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    if path.is_dir() {
        // A process that made it may have ended before it synced. What belongs to somebody
        // else, and cannot be synced by us, we did not make.
        return match sync(above) {
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    make(above, sync)?;
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        // Whoever made it at the same time may not have synced it yet.
        Ok(()) | Err(_) => sync(above),
    }
}

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            // Folders are not ours: a file system of its own has one for what it finds.
            if !entry.file_type()?.is_dir()
                && let Ok(name) = entry.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.path.join(name))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn create(&mut self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(self.path.join(name))?))
    }

    fn append(&mut self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().append(true).open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn cut(&mut self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        self.dir.sync_all()
    }
}

impl DiskFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_that_is_made_is_synced_into_the_one_above_it() {
        let place = std::env::temp_dir().join(format!("selvage-folders-{}", std::process::id()));
        let top = &place.join("top");
        std::fs::create_dir_all(top).unwrap();
        let mut synced = Vec::new();
        let mut sync = |folder: &Path| {
            synced.push(folder.to_owned());
            Ok(())
        };
        make(&top.join("a/b/c"), &mut sync).unwrap();
        make(&top.join("a/b/c"), &mut sync).unwrap();
        make(&top.join("a/d"), &mut sync).unwrap();
        let [of_a, of_b, of_c] = ["", "a", "a/b"].map(|below| top.join(below));
        let first = [place.clone(), of_a.clone(), of_b.clone(), of_c.clone()];
        assert_eq!(synced[..4], first);
        assert_eq!(synced[4..], [of_c, of_a, of_b], "found, found and made");
        assert!(top.join("a/b/c").is_dir() && top.join("a/d").is_dir());
        drop(Folder::open(&top.join("e/f")).unwrap());
        std::fs::write(top.join("file"), "").unwrap();
        assert!(Folder::open(&top.join("file")).is_err());
        assert!(Folder::open(&top.join("file/below")).is_err());
        std::fs::create_dir(top.join("e/f/lost+found")).unwrap();
        let folder = Folder::open(&top.join("e/f")).unwrap();
        assert_eq!(folder.names().unwrap(), Vec::<String>::new());
        std::fs::remove_dir_all(place).unwrap();
    }
}
