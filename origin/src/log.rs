//! The replicated log on disk.
//!
//! ```text
//!   folder/  lock              held while a process uses it
//!            stamp             whose it is: node, cluster, and an instance drawn once
//!            0000000000000001.log, …2.log      segments of 64 MiB
//!            <index>-<term>.snapshot           the two newest states
//!            *.removed-<node>-<instance>       of an earlier member, for people (`aside.rs`)
//! ```
//!
//! * [`Log`] is synchronous: a call to [`Log::append`] writes everything it is given as one
//!   frame and syncs once. [`worker`] runs it on a thread of its own and hands it all
//!   that waits.
//! * What was synced is never dropped silently. After a crash the end of the *last* segment
//!   may be torn, and is cut; anything else that is not as it was written is an error that
//!   names the file and the place, and the origin does not start. The frame's form makes the
//!   two cases distinct as far as that can be (`frame.rs`).
//! * A failed write or sync is final: what is on the disk is then unknown, and whoever tries
//!   again may be told that all is well. The process has to end.
//!
//! Segments are deleted from the front when the older of the two kept snapshots includes
//! them, so a snapshot that is damaged later costs nothing but time.

mod aside;
mod disk;
mod frame;
mod ram;
mod recover;
mod snapshot;
mod stamp;
pub mod worker;

use std::io;
use std::time::Instant;

use bytes::Bytes;
use node::metrics::Histogram;

pub use disk::{Disk, DiskFile, Folder};
pub use ram::{Crash, Faults, Ram};

use disk::write_all;
use frame::{Place, Record};

/// A segment that has reached this size is followed by the next. Large enough that creating
/// one costs nothing, small enough that what a snapshot made superfluous goes soon, and that
/// one is read into memory at once when an origin starts.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// One entry of the log. The payload is what the consensus gave, with the kind it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place, from 1.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// Opaque here.
    pub payload: Bytes,
}

/// What must be durable together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// A state from another origin, which takes the place of everything before. The entries
    /// follow it.
    pub snapshot: Option<Snapshot>,
    /// Votes and terms, if they changed. Opaque here.
    pub hard_state: Option<Bytes>,
    /// Entries in order. They take the place of those that have their index or a greater
    /// one.
    pub entries: Vec<Entry>,
    /// The hard state may wait until something else is written: it only spares work.
    pub lazy: bool,
}

/// A state that takes the place of all entries up to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last entry it includes.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// Opaque here.
    pub data: Bytes,
}

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The origin's name.
    pub name: String,
    /// Its number. A log that exists knows it better than who opens it.
    pub node: u64,
    /// The cluster's.
    pub cluster: u64,
}

/// What a log held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last one written.
    pub hard_state: Option<Bytes>,
    /// The newest state.
    pub snapshot: Option<Snapshot>,
    /// The entry before the first of `entries`; index 0 where the log is whole. Not above
    /// the snapshot's.
    pub before: (u64, u64),
    /// Without a gap, in order. They may begin below the snapshot's index.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// Whether nothing was ever written.
    #[must_use]
    pub const fn is_blank(&self) -> bool {
        self.hard_state.is_none() && self.snapshot.is_none() && self.entries.is_empty()
    }
}

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refuses something.
    #[error("cannot {what} {file}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// There is no room.
    #[error("the disk is full: cannot {what} {file}")]
    Full {
        /// What was tried.
        what: &'static str,
        /// With what.
        file: String,
    },
    /// The bytes are not those that were written. What was acknowledged may be lost, so
    /// nothing is repaired here: a person must decide, and can let the origin join anew
    /// with an empty folder.
    #[error("{file} is damaged at byte {offset}: {what}")]
    Broken {
        /// Which file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Something is missing.
    #[error("{file} does not go on where what is before it ends: {what}")]
    Gap {
        /// The file behind the gap.
        file: String,
        /// What is missing.
        what: String,
    },
    /// Another process has the folder.
    #[error("{folder} is in use by another process")]
    Locked {
        /// The folder.
        folder: String,
    },
    /// Another version wrote it.
    #[error("{file} has a format that this version does not know: {found:?}")]
    Version {
        /// Which file.
        file: String,
        /// What it says of itself.
        found: String,
    },
    /// The folder belongs to somebody else.
    #[error(
        "the log is that of {} in cluster {:016x}, and this is {} in cluster {:016x}",
        found.name, found.cluster, owner.name, owner.cluster
    )]
    Foreign {
        /// Whose it is.
        found: Owner,
        /// Who asks.
        owner: Owner,
    },
    /// An earlier write failed, and what is on the disk is unknown.
    #[error("the log failed before")]
    Failed,
}

impl Error {
    pub(crate) fn io(what: &'static str, file: impl Into<String>, source: io::Error) -> Self {
        let file = file.into();
        if source.kind() == io::ErrorKind::StorageFull {
            Self::Full { what, file }
        } else {
            Self::Io { what, file, source }
        }
    }
}

/// A log that is open. See the [module](self).
pub struct Log {
    disk: Box<dyn Disk>,
    owner: Owner,
    instance: u64,
    /// When a segment is full.
    segment_bytes: u64,
    /// Oldest first; the last is written.
    segments: Vec<Segment>,
    file: Box<dyn DiskFile>,
    len: u64,
    sequence: u64,
    /// The newest entry, or what stands in its place.
    last: u64,
    /// Where terms begin: (first index, term). The first stands for the entry before the
    /// first.
    terms: Vec<(u64, u64)>,
    hard_state: Option<Bytes>,
    /// The hard state is newer than what is on the disk.
    owed: bool,
    failed: bool,
    buffer: Vec<u8>,
    /// How long syncs take, if somebody wants to know.
    syncs: Option<Histogram>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    /// The entry before its first.
    begin: u64,
}

fn segment_name(number: u64) -> String {
    format!("{number:016}.log")
}

impl Log {
    /// Opens the log of `owner`, or begins one on an empty disk. `fresh` is the instance
    /// that a new one is given: drawn at random.
    ///
    /// # Errors
    /// It is not whole, or somebody else's.
    pub fn open(disk: Box<dyn Disk>, owner: Owner, fresh: u64) -> Result<(Self, Recovered), Error> {
        Self::open_with(disk, owner, fresh, SEGMENT_BYTES)
    }

    /// As [`Self::open`], with segments of another size.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        disk: Box<dyn Disk>,
        owner: Owner,
        fresh: u64,
        segment_bytes: u64,
    ) -> Result<(Self, Recovered), Error> {
        recover::open(disk, owner, fresh, segment_bytes)
    }

    /// What tells this log from any other that this node may have had: drawn when it was
    /// begun.
    #[must_use]
    pub const fn instance(&self) -> u64 {
        self.instance
    }

    /// The number of the node whose log it is.
    #[must_use]
    pub const fn node(&self) -> u64 {
        self.owner.node
    }

    /// Gives the node of a log that holds nothing yet another number.
    ///
    /// # Errors
    /// The disk's.
    pub fn renumber(&mut self, node: u64) -> Result<(), Error> {
        let owner = Owner {
            node,
            ..self.owner.clone()
        };
        stamp::write(self.disk.as_mut(), &owner, self.instance)?;
        self.owner = owner;
        Ok(())
    }

    /// Sets all files of this log aside, and begins another one for `node` in the same folder.
    ///
    /// # Errors
    /// The disk's. What is left undone is done when the folder is opened again.
    pub fn set_aside(self, node: u64, fresh: u64) -> Result<Self, Error> {
        let Self {
            mut disk,
            owner,
            instance,
            segment_bytes,
            file,
            ..
        } = self;
        drop(file);
        aside::set(disk.as_mut(), owner.node, instance)?;
        let owner = Owner { node, ..owner };
        Ok(recover::open(disk, owner, fresh, segment_bytes)?.0)
    }

    /// Has every sync of a write measured from now on.
    pub fn time_syncs(&mut self, seconds: Histogram) {
        self.syncs = Some(seconds);
    }

    /// The newest entry's index.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Makes all of it durable, with one sync, or one for each state from elsewhere. What is
    /// lazy is written with the next that is not. Says whether all of it is durable now.
    ///
    /// # Errors
    /// The disk's. The log cannot be used any more.
    pub fn append(&mut self, writes: &[Write]) -> Result<bool, Error> {
        let mut records = Vec::new();
        let mut due = false;
        for write in writes {
            if let Some(snapshot) = &write.snapshot {
                self.flush(&mut records)?;
                due = false;
                self.install(snapshot)?;
            }
            if let Some(first) = write.entries.first()
                && first.index <= self.last
            {
                self.truncate(first.index);
                records.push(Record::Truncate {
                    index: self.last,
                    term: self.term(self.last).unwrap_or_default(),
                });
            }
            for entry in &write.entries {
                if entry.index != self.last + 1 {
                    self.failed = true;
                    return Err(Error::Gap {
                        file: self.name(),
                        what: format!("entry {} after {}", entry.index, self.last),
                    });
                }
                self.push(entry.index, entry.term);
                records.push(Record::Entry {
                    index: entry.index,
                    term: entry.term,
                    payload: entry.payload.clone(),
                });
            }
            if let Some(hard_state) = &write.hard_state {
                self.hard_state = Some(hard_state.clone());
                self.owed = true;
                due |= !write.lazy;
            }
        }
        if due || !records.is_empty() {
            self.flush(&mut records)?;
        }
        Ok(!self.owed)
    }

    /// Writes what was lazy.
    ///
    /// # Errors
    /// The disk's.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.flush(&mut Vec::new())
    }

    fn flush(&mut self, records: &mut Vec<Record>) -> Result<(), Error> {
        if self.owed {
            records.extend(self.hard_state.clone().map(Record::HardState));
            self.owed = false;
        }
        if records.is_empty() {
            return Ok(());
        }
        self.write(records)?;
        records.clear();
        if self.len >= self.segment_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Keeps a state that was made here, and drops what it makes superfluous. One at the
    /// first entries of all is the founding of the cluster.
    ///
    /// # Errors
    /// The disk's. The log cannot be used any more.
    pub fn save(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.keep(snapshot, false)
    }

    fn install(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.keep(snapshot, true)
    }

    fn keep(&mut self, snapshot: &Snapshot, install: bool) -> Result<(), Error> {
        self.check()?;
        let kept = self.try_keep(snapshot, install);
        self.failed |= kept.is_err();
        kept
    }

    fn try_keep(&mut self, snapshot: &Snapshot, install: bool) -> Result<(), Error> {
        snapshot::save(self.disk.as_mut(), self.instance, snapshot)?;
        if install {
            self.restart(snapshot.index, snapshot.term)?;
        }
        if let Some(oldest) = snapshot::tidy(self.disk.as_mut(), install)? {
            self.compact(oldest)?;
        }
        Ok(())
    }

    fn restart(&mut self, index: u64, term: u64) -> Result<(), Error> {
        self.last = index;
        self.terms = vec![(index, term)];
        self.write(&[Record::Restart { index, term }])
    }

    /// Deletes the segments that hold nothing behind `through`.
    fn compact(&mut self, through: u64) -> Result<(), Error> {
        let mut removed = false;
        while let [first, next, ..] = self.segments[..]
            && next.begin <= through
        {
            let name = segment_name(first.number);
            self.disk
                .remove(&name)
                .map_err(|source| Error::io("remove", &name, source))?;
            // One after another, so that a crash leaves no gap.
            self.sync_dir()?;
            self.segments.remove(0);
            removed = true;
        }
        if removed && let Some(first) = self.segments.first() {
            let begin = first.begin;
            let known = self.terms.partition_point(|&(from, _)| from <= begin);
            self.terms.drain(..known.saturating_sub(1));
        }
        Ok(())
    }

    /// The term of an entry; `None` when it is not known (any more).
    fn term(&self, index: u64) -> Option<u64> {
        if index > self.last {
            return None;
        }
        let behind = self.terms.partition_point(|&(from, _)| from <= index);
        let at = behind.checked_sub(1)?;
        self.terms.get(at).map(|&(_, term)| term)
    }

    fn push(&mut self, index: u64, term: u64) {
        self.last = index;
        if self.terms.last().is_none_or(|&(_, last)| last != term) {
            self.terms.push((index, term));
        }
    }

    fn truncate(&mut self, from: u64) {
        self.last = from.saturating_sub(1);
        // The first stands for what is before the first entry, which is never truncated.
        while self.terms.len() > 1 && self.terms.last().is_some_and(|&(first, _)| first >= from) {
            self.terms.pop();
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.failed {
            Err(Error::Failed)
        } else {
            Ok(())
        }
    }

    fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        self.check()?;
        self.buffer.clear();
        frame::write(
            self.place(),
            self.sequence,
            records,
            self.len,
            &mut self.buffer,
        );
        let name = self.name();
        let written = write_all(self.file.as_mut(), &self.buffer)
            .map_err(|source| Error::io("write", &name, source))
            .and_then(|()| {
                let began = Instant::now();
                let synced = self.file.sync();
                if let Some(seconds) = &self.syncs {
                    seconds.observe(began.elapsed().as_secs_f64());
                }
                synced.map_err(|source| Error::io("sync", &name, source))
            });
        self.failed = written.is_err();
        self.len += self.buffer.len() as u64;
        self.sequence += 1;
        // One large write must not be held for ever.
        self.buffer.shrink_to(1 << 20);
        written
    }

    fn rotate(&mut self) -> Result<(), Error> {
        let number = self.place().number + 1;
        let begin = (self.last, self.term(self.last).unwrap_or_default());
        let made = create_segment(
            self.disk.as_mut(),
            Place {
                number,
                instance: self.instance,
            },
            begin,
            self.hard_state.clone(),
        );
        self.failed |= made.is_err();
        let (file, len) = made?;
        self.file = file;
        self.len = len;
        self.sequence = 1;
        self.segments.push(Segment {
            number,
            begin: begin.0,
        });
        Ok(())
    }

    fn sync_dir(&mut self) -> Result<(), Error> {
        self.disk
            .sync_dir()
            .map_err(|source| Error::io("sync", "the folder", source))
    }

    fn place(&self) -> Place {
        Place {
            number: self.segments.last().map_or(1, |last| last.number),
            instance: self.instance,
        }
    }

    fn name(&self) -> String {
        segment_name(self.place().number)
    }
}

/// Makes a segment with its first frame, on the disk when it returns.
fn create_segment(
    disk: &mut dyn Disk,
    place: Place,
    (index, term): (u64, u64),
    hard_state: Option<Bytes>,
) -> Result<(Box<dyn DiskFile>, u64), Error> {
    let mut bytes = place.head();
    let mut records = vec![Record::Begin { index, term }];
    records.extend(hard_state.map(Record::HardState));
    let at = bytes.len() as u64;
    frame::write(place, 0, &records, at, &mut bytes);
    let name = segment_name(place.number);
    let failed = |source| Error::io("create", &name, source);
    let mut file = disk.create(&name).map_err(failed)?;
    write_all(file.as_mut(), &bytes).map_err(failed)?;
    file.sync().map_err(failed)?;
    disk.sync_dir().map_err(failed)?;
    Ok((file, bytes.len() as u64))
}

#[cfg(test)]
mod tests;
