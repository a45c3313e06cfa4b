//! Sets aside what a folder holds, so that a new log can be begun in it and nothing is deleted.
//!
//! Every file gets an ending with the number of the node and the instance of its log, which no
//! other has. A mark says that this goes on, so that what a crash interrupts is finished when
//! the folder is opened the next time, and never half a log is read.

use super::Error;
use super::disk::Disk;

/// Begins the mark's name, and stands in every ending.
const BEGIN: &str = "removed-";

/// Whether a file was set aside.
pub(super) fn is_aside(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(_, ending)| ending.starts_with(BEGIN))
}

/// Sets everything aside as the log of this node. Its files must not be open any more.
pub(super) fn set(disk: &mut dyn Disk, node: u64, instance: u64) -> Result<(), Error> {
    let mark = format!("{BEGIN}{node}-{instance:016x}");
    let failed = |source| Error::io("write", &mark, source);
    disk.create(&mark)
        .and_then(|mut file| file.sync())
        .and_then(|()| disk.sync_dir())
        .map_err(failed)?;
    go_on(disk, &mark)
}

/// Finishes what a crash has interrupted.
pub(super) fn finish(disk: &mut dyn Disk) -> Result<(), Error> {
    let names = names(disk)?;
    match names.into_iter().find(|name| name.starts_with(BEGIN)) {
        Some(mark) => go_on(disk, &mark),
        None => Ok(()),
    }
}

fn go_on(disk: &mut dyn Disk, mark: &str) -> Result<(), Error> {
    for name in names(disk)? {
        if name == mark || is_aside(&name) {
            continue;
        }
        disk.rename(&name, &format!("{name}.{mark}"))
            .map_err(|source| Error::io("set aside", &name, source))?;
    }
    let failed = |source| Error::io("remove", mark, source);
    // The names first: without the mark they are the log's again.
    disk.sync_dir().map_err(failed)?;
    disk.remove(mark)
        .and_then(|()| disk.sync_dir())
        .map_err(failed)
}

fn names(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    disk.names()
        .map_err(|source| Error::io("list", "the folder", source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Crash, Entry, Log, Owner, Ram, Write};
    use bytes::Bytes;

    fn owner() -> Owner {
        Owner {
            name: "origin-0".into(),
            node: 1,
            cluster: 1,
        }
    }

    fn written() -> Ram {
        let disk = Ram::new();
        let (mut log, _) = Log::open(Box::new(disk.clone()), owner(), 7).unwrap();
        let entry = Entry {
            index: 1,
            term: 1,
            payload: Bytes::from_static(b"payload"),
        };
        let entries = vec![entry];
        log.append(&[Write {
            entries,
            ..Write::default()
        }])
        .unwrap();
        disk
    }

    #[test]
    fn a_log_is_set_aside_whole_and_another_begun_in_its_place() {
        let disk = written();
        let (log, recovered) = Log::open(Box::new(disk.clone()), owner(), 8).unwrap();
        assert_eq!((log.instance(), recovered.entries.len()), (7, 1));
        let before = disk.names().unwrap();
        let fresh = log.set_aside(1, 9).unwrap();
        assert_eq!((fresh.instance(), fresh.last()), (9, 0));
        drop(fresh);
        let names = disk.names().unwrap();
        for name in before {
            let aside = format!("{name}.removed-1-0000000000000007");
            assert!(names.contains(&aside), "{names:?}");
        }
        let (log, recovered) = Log::open(Box::new(disk.clone()), owner(), 10).unwrap();
        assert!(recovered.is_blank());
        // And again, beside the first.
        log.set_aside(1, 11).unwrap();
        let aside = |name: &&String| is_aside(name);
        assert_eq!(disk.names().unwrap().iter().filter(aside).count(), 4);
    }

    #[test]
    fn what_a_crash_interrupts_is_finished_when_the_folder_is_opened() {
        // The mark is there, and so many names of the two have changed.
        for renamed in 0..=2 {
            let mut disk = written();
            disk.create("removed-1-0000000000000007").unwrap();
            for name in disk.names().unwrap().iter().take(renamed) {
                if !name.starts_with(BEGIN) {
                    let aside = format!("{name}.removed-1-0000000000000007");
                    disk.rename(name, &aside).unwrap();
                }
            }
            disk.sync_dir().unwrap();
            let disk = disk.crash(Crash::Keeps(0));
            let (log, recovered) = Log::open(Box::new(disk.clone()), owner(), 9).unwrap();
            assert!(recovered.is_blank(), "after {renamed}");
            assert_eq!(log.instance(), 9);
            let names = disk.names().unwrap();
            assert_eq!(names.iter().filter(|name| is_aside(name)).count(), 2);
            assert!(!names.iter().any(|name| name.starts_with(BEGIN)));
        }
    }
}
