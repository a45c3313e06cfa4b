//! States of the ledger in files.
//!
//! ```text
//!   file = "SELVAGE SNAP 1\n\0"  instance u64  index u64  term u64  length u64  data  crc32c u32
//! ```
//!
//! A file gets its name when it is whole and on the disk, so a file with the name that does
//! not verify has been damaged since.

use bytes::Bytes;
use crc32c::crc32c;

use super::disk::{Disk, write_all};
use super::{Error, Snapshot};

const MAGIC: &[u8; 16] = b"SELVAGE SNAP 1\n\0";
const HEAD_BYTES: usize = 16 + 8 * 4;
const SUFFIX: &str = ".snapshot";
/// What is written before it has its name.
const UNFINISHED: &str = "unfinished.snapshot-part";

/// How many are kept: if the newest is damaged, the one before it and the log serve.
pub(super) const KEPT: usize = 2;

fn name(index: u64, term: u64) -> String {
    format!("{index:016x}-{term:016x}{SUFFIX}")
}

/// Index and term by the file's name.
fn parse(name: &str) -> Option<(u64, u64)> {
    let (index, term) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |text: &str| {
        (text.len() == 16)
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten()
    };
    Some((number(index)?, number(term)?))
}

/// Those that are there, newest first.
pub(super) fn list(names: &[String]) -> Vec<(u64, u64)> {
    let mut found: Vec<_> = names.iter().filter_map(|name| parse(name)).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

pub(super) fn save(disk: &mut dyn Disk, instance: u64, snapshot: &Snapshot) -> Result<(), Error> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    for number in [
        instance,
        snapshot.index,
        snapshot.term,
        snapshot.data.len() as u64,
    ] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(crc32c(&head), &snapshot.data);
    let failed = |source| Error::io("write the snapshot", UNFINISHED, source);
    let mut file = disk.create(UNFINISHED).map_err(failed)?;
    for part in [&head[..], &snapshot.data, &crc.to_le_bytes()] {
        write_all(file.as_mut(), part).map_err(failed)?;
    }
    file.sync().map_err(failed)?;
    drop(file);
    let name = name(snapshot.index, snapshot.term);
    disk.rename(UNFINISHED, &name)
        .and_then(|()| disk.sync_dir())
        .map_err(|source| Error::io("name the snapshot", &name, source))
}

pub(super) fn load(
    disk: &dyn Disk,
    instance: u64,
    (index, term): (u64, u64),
) -> Result<Snapshot, Error> {
    let name = name(index, term);
    let bytes = disk
        .read(&name)
        .map(Bytes::from)
        .map_err(|source| Error::io("read the snapshot", &name, source))?;
    let broken = |offset, what| Error::Broken {
        file: name.clone(),
        offset,
        what,
    };
    let end = bytes.len();
    if end < HEAD_BYTES + 4 {
        return Err(broken(end as u64, "it ends too early"));
    }
    let (said, crc) = bytes.split_at(end - 4);
    if crc32c(said).to_le_bytes() != crc {
        return Err(broken(0, "its checksum is wrong"));
    }
    let data = bytes.slice(HEAD_BYTES..end - 4);
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(MAGIC);
    for number in [instance, index, term, data.len() as u64] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    if !bytes.starts_with(&head) {
        return Err(broken(0, "it belongs to another folder or version"));
    }
    Ok(Snapshot { index, term, data })
}

/// Removes all but the newest [`KEPT`], and what was never finished. Returns the oldest that
/// is kept.
pub(super) fn tidy(disk: &mut dyn Disk, newest_only: bool) -> Result<Option<u64>, Error> {
    let names = disk
        .names()
        .map_err(|source| Error::io("list", "the folder", source))?;
    let found = list(&names);
    let keep = if newest_only { 1 } else { KEPT };
    for &(index, term) in found.iter().skip(keep) {
        let name = name(index, term);
        disk.remove(&name)
            .map_err(|source| Error::io("remove", &name, source))?;
    }
    Ok(found.iter().take(keep).next_back().map(|kept| kept.0))
}

/// Gives a damaged file a name under which nobody takes it for whole, and a person finds it.
pub(super) fn set_aside(disk: &mut dyn Disk, (index, term): (u64, u64)) -> Result<(), Error> {
    let name = name(index, term);
    disk.rename(&name, &format!("{name}.damaged"))
        .and_then(|()| disk.sync_dir())
        .map_err(|source| Error::io("set aside", &name, source))
}
