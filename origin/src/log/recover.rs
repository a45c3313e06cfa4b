//! Opening a log: what is there, whether it is whole, and where it goes on.

use bytes::Bytes;

use super::aside;
use super::disk::Disk;
use super::frame::{self, BadHead, HEAD_BYTES, Place, Read, Record};
use super::snapshot;
use super::stamp::{self, Stamp};
use super::{Entry, Error, Log, Owner, Recovered, Segment, create_segment, segment_name};

pub(super) fn open(
    mut disk: Box<dyn Disk>,
    owner: Owner,
    fresh: u64,
    segment_bytes: u64,
) -> Result<(Log, Recovered), Error> {
    aside::finish(disk.as_mut())?;
    let found = names(disk.as_ref())?;
    let Stamp { owner, instance } = match stamp::read(disk.as_ref(), &found, &owner)? {
        Some(stamp) => stamp,
        None => begin(disk.as_mut(), &found, owner, fresh)?,
    };
    let names = names(disk.as_ref())?;
    let mut replay = Replay::new(disk.as_mut(), instance);
    replay.segments(&names)?;
    let Replay {
        segments,
        len,
        sequence,
        before,
        entries,
        hard_state,
        ..
    } = replay;
    let Some(last_segment) = segments.last() else {
        return Err(Error::Gap {
            file: segment_name(1),
            what: "no segment is left".into(),
        });
    };
    let name = segment_name(last_segment.number);
    let file = disk
        .append(&name)
        .map_err(|source| Error::io("open", &name, source))?;
    let mut log = Log {
        disk,
        owner,
        instance,
        segment_bytes,
        segments,
        file,
        len,
        sequence,
        last: before.0,
        terms: vec![before],
        hard_state: hard_state.clone(),
        owed: false,
        failed: false,
        buffer: Vec::new(),
        syncs: None,
    };
    for entry in &entries {
        log.push(entry.index, entry.term);
    }
    let snapshot = pick(&mut log, before.0)?;
    let mut recovered = Recovered {
        hard_state,
        snapshot,
        before,
        // What was read holds its whole segment.
        entries: entries
            .into_iter()
            .map(|entry| Entry {
                payload: Bytes::copy_from_slice(&entry.payload),
                ..entry
            })
            .collect(),
    };
    if let Some(snapshot) = &recovered.snapshot
        && log.term(snapshot.index) != Some(snapshot.term)
    {
        // It came from another origin, and a crash came before the log said so.
        log.restart(snapshot.index, snapshot.term)?;
        recovered.before = (snapshot.index, snapshot.term);
        recovered.entries.clear();
    }
    Ok((log, recovered))
}

fn names(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    disk.names()
        .map_err(|source| Error::io("list", "the folder", source))
}

/// Begins a log. The stamp comes last: with it the log must be there.
fn begin(disk: &mut dyn Disk, names: &[String], owner: Owner, fresh: u64) -> Result<Stamp, Error> {
    let first = segment_name(1);
    let place = Place {
        number: 1,
        instance: fresh,
    };
    for name in names {
        let ours = *name == first
            && disk
                .read(name)
                .is_ok_and(|bytes| bytes.len() <= unborn_bytes());
        if !ours && name != stamp::UNFINISHED && !aside::is_aside(name) {
            return Err(Error::Broken {
                file: stamp::FILE.into(),
                offset: 0,
                what: if name.ends_with(".log") || name.ends_with(".snapshot") {
                    "it is missing beside a log"
                } else {
                    "it is missing, and the folder holds files that are not ours"
                },
            });
        }
    }
    create_segment(disk, place, (0, 0), None)?;
    stamp::write(disk, &owner, fresh)?;
    Ok(Stamp {
        owner,
        instance: fresh,
    })
}

/// The size of a first segment to which nothing was ever added.
fn unborn_bytes() -> usize {
    let place = Place {
        number: 1,
        instance: 0,
    };
    let mut bytes = place.head();
    let at = bytes.len() as u64;
    let records = [Record::Begin { index: 0, term: 0 }];
    frame::write(place, 0, &records, at, &mut bytes);
    bytes.len()
}

/// The segments, read one after another.
struct Replay<'a> {
    disk: &'a mut dyn Disk,
    instance: u64,
    segments: Vec<Segment>,
    /// Of the last segment.
    len: u64,
    sequence: u64,
    before: (u64, u64),
    entries: Vec<Entry>,
    hard_state: Option<Bytes>,
}

impl<'a> Replay<'a> {
    fn new(disk: &'a mut dyn Disk, instance: u64) -> Self {
        Self {
            disk,
            instance,
            segments: Vec::new(),
            len: 0,
            sequence: 0,
            before: (0, 0),
            entries: Vec::new(),
            hard_state: None,
        }
    }

    fn segments(&mut self, names: &[String]) -> Result<(), Error> {
        let mut numbers: Vec<u64> = names
            .iter()
            .filter_map(|name| name.strip_suffix(".log")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        for (at, &number) in numbers.iter().enumerate() {
            if let Some(before) = self.segments.last()
                && before.number + 1 != number
            {
                return Err(Error::Gap {
                    file: segment_name(number),
                    what: format!("{} is missing", segment_name(before.number + 1)),
                });
            }
            self.segment(number, at + 1 == numbers.len())?;
        }
        Ok(())
    }

    fn segment(&mut self, number: u64, is_last: bool) -> Result<(), Error> {
        let name = segment_name(number);
        let place = Place {
            number,
            instance: self.instance,
        };
        let bytes = self
            .disk
            .read(&name)
            .map(Bytes::from)
            .map_err(|source| Error::io("read", &name, source))?;
        let broken = |offset: usize, what| Error::Broken {
            file: name.clone(),
            offset: offset as u64,
            what,
        };
        // The first segment of all was whole before the stamp was there.
        let may_be_unborn = is_last && !self.segments.is_empty();
        match frame::check_head(&bytes, place) {
            Ok(()) => {}
            Err(BadHead::Torn) if may_be_unborn => return self.unborn(&name),
            Err(BadHead::Torn) => return Err(broken(0, "its head was never whole")),
            Err(BadHead::Broken) => return Err(broken(0, "the checksum of its head is wrong")),
            Err(BadHead::Foreign) => return Err(broken(0, "it belongs to another folder")),
            Err(BadHead::Version) => {
                let found = bytes.get(..16).unwrap_or_default();
                return Err(Error::Version {
                    file: name,
                    found: String::from_utf8_lossy(found).into_owned(),
                });
            }
        }
        let mut at = HEAD_BYTES;
        let mut sequence = 0;
        loop {
            match frame::read(&bytes, at, place, sequence) {
                Read::Frame { records, next } => {
                    for (nth, record) in records.into_iter().enumerate() {
                        let first = sequence == 0 && nth == 0;
                        self.record(record, first, number, &name)?;
                    }
                    at = next;
                    sequence += 1;
                }
                Read::End if sequence == 0 && may_be_unborn => return self.unborn(&name),
                Read::End if sequence == 0 => return Err(broken(at, "it is empty")),
                Read::End => break,
                Read::Torn if sequence == 0 && may_be_unborn => return self.unborn(&name),
                Read::Torn if is_last && sequence > 0 => {
                    let lost = bytes.len() - at;
                    tracing::warn!(file = name, offset = at, bytes = lost, "cut a torn tail");
                    self.disk
                        .cut(&name, at as u64)
                        .map_err(|source| Error::io("cut", &name, source))?;
                    break;
                }
                Read::Torn => return Err(broken(at, "it ends too early")),
                Read::Broken(what) => return Err(broken(at, what)),
            }
        }
        self.len = at as u64;
        self.sequence = sequence;
        Ok(())
    }

    /// A crash came before the segment was on the disk.
    fn unborn(&mut self, name: &str) -> Result<(), Error> {
        tracing::warn!(file = name, "removed a segment that was never finished");
        self.disk
            .remove(name)
            .and_then(|()| self.disk.sync_dir())
            .map_err(|source| Error::io("remove", name, source))
    }

    fn record(
        &mut self,
        record: Record,
        first: bool,
        number: u64,
        name: &str,
    ) -> Result<(), Error> {
        let gap = |what: String| {
            Err(Error::Gap {
                file: name.to_owned(),
                what,
            })
        };
        match record {
            Record::Begin { index, term } if first => {
                if self.segments.is_empty() {
                    self.before = (index, term);
                } else if self.last() != (index, term) {
                    let (have, of) = self.last();
                    return gap(format!(
                        "it begins behind entry {index} of term {term}, and the last is \
                         {have} of term {of}"
                    ));
                }
                self.segments.push(Segment {
                    number,
                    begin: index,
                });
            }
            Record::Begin { .. } => return gap("a segment begins twice".into()),
            _ if first => return gap("it does not say where it begins".into()),
            Record::Restart { index, term } => {
                self.before = (index, term);
                self.entries.clear();
            }
            Record::Truncate { index, term } => match index.checked_sub(self.before.0) {
                Some(keep) => {
                    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
                    self.entries.truncate(keep);
                }
                // What was taken back stood in segments that are gone: a state includes what
                // took its place.
                None => {
                    self.entries.clear();
                    self.before = (index, term);
                }
            },
            Record::Entry {
                index,
                term,
                payload,
            } => {
                let (last, _) = self.last();
                if index != last + 1 {
                    return gap(format!("entry {index} follows entry {last}"));
                }
                self.entries.push(Entry {
                    index,
                    term,
                    payload,
                });
            }
            Record::HardState(hard_state) => {
                self.hard_state = Some(Bytes::copy_from_slice(&hard_state));
            }
        }
        Ok(())
    }

    fn last(&self) -> (u64, u64) {
        self.entries
            .last()
            .map_or(self.before, |last| (last.index, last.term))
    }
}

/// The newest state that is whole and from which the log goes on.
fn pick(log: &mut Log, before: u64) -> Result<Option<super::Snapshot>, Error> {
    let found = snapshot::list(&names(log.disk.as_ref())?);
    let mut damaged: Option<Error> = None;
    let mut aside = Vec::new();
    let mut chosen = None;
    for &at in &found {
        match snapshot::load(log.disk.as_ref(), log.instance, at) {
            Ok(snapshot) => {
                if before > snapshot.index {
                    return Err(damaged.unwrap_or_else(|| Error::Gap {
                        file: segment_name(log.segments.first().map_or(1, |first| first.number)),
                        what: format!(
                            "the newest state ends with entry {}, and the log begins behind {before}",
                            snapshot.index
                        ),
                    }));
                }
                chosen = Some(snapshot);
                break;
            }
            // A state from another origin that the log never had the entries of.
            Err(error @ Error::Broken { .. }) if at.0 > log.last => return Err(error),
            Err(error @ Error::Broken { .. }) => {
                tracing::error!(%error, "a state is damaged; trying the one before it");
                damaged.get_or_insert(error);
                aside.push(at);
            }
            Err(error) => return Err(error),
        }
    }
    if chosen.is_none() && before > 0 {
        return Err(damaged.unwrap_or_else(|| Error::Gap {
            file: segment_name(log.segments.first().map_or(1, |first| first.number)),
            what: format!("there is no state, and the log begins behind {before}"),
        }));
    }
    for at in aside {
        snapshot::set_aside(log.disk.as_mut(), at)?;
    }
    Ok(chosen)
}
