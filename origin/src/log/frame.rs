//! How records stand in a segment.
//!
//! ```text
//!   segment = head  frame*
//!   head    = "SELVAGE LOG 1\n\0\0"  number u64  instance u64  crc32c u32
//!   frame   = length u32  sequence u64  crc32c of these u32  crc32c of the body u32  body
//!   body    = record*
//!   record  = kind u8  index u64  term u64  length u32  payload
//! ```
//!
//! All numbers are little endian. **A frame is what one sync made durable**: the next one is
//! only written when this one is on the disk. So after a crash at most the last frame is
//! torn, and whatever stands behind a broken frame proves that it was whole once.
//!
//! The checksums start from the segment's number and the folder's instance, so what is left
//! on a disk of another file is never taken for ours.

use bytes::Bytes;
use crc32c::{crc32c, crc32c_append};

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The first record of a segment: the entry before the first that stands behind it.
    Begin { index: u64, term: u64 },
    /// A snapshot took the place of all entries: the next one is behind this.
    Restart { index: u64, term: u64 },
    /// Entries behind this one are not valid any more.
    Truncate { index: u64, term: u64 },
    /// An entry.
    Entry {
        index: u64,
        term: u64,
        payload: Bytes,
    },
    /// What must not be forgotten of votes and terms; the last one counts.
    HardState(Bytes),
}

const BEGIN: u8 = 1;
const RESTART: u8 = 2;
const TRUNCATE: u8 = 3;
const ENTRY: u8 = 4;
const HARD_STATE: u8 = 5;

pub(super) const HEAD_BYTES: usize = 16 + 8 + 8 + 4;
const MAGIC: &[u8; 16] = b"SELVAGE LOG 1\n\0\0";
const MAGIC_OF_ANY_VERSION: &[u8] = b"SELVAGE LOG ";

const FRAME_HEAD: usize = 4 + 8 + 4 + 4;
const RECORD_HEAD: usize = 1 + 8 + 8 + 4;

/// Disks write this much at once, or not at all.
const SECTOR: usize = 512;

/// Where a segment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) instance: u64,
}

impl Place {
    fn seed(self) -> u32 {
        let seed = crc32c(&self.number.to_le_bytes());
        crc32c_append(seed, &self.instance.to_le_bytes())
    }

    pub(super) fn head(self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&self.number.to_le_bytes());
        head.extend_from_slice(&self.instance.to_le_bytes());
        let crc = crc32c(&head);
        head.extend_from_slice(&crc.to_le_bytes());
        head
    }
}

/// What is wrong with a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    /// It was never whole.
    Torn,
    /// Another version wrote it.
    Version,
    /// It belongs to another folder or another place in it.
    Foreign,
    /// Its bytes are not those that were written.
    Broken,
}

pub(super) fn check_head(bytes: &[u8], place: Place) -> Result<(), BadHead> {
    let Some(head) = bytes.get(..HEAD_BYTES) else {
        return Err(BadHead::Torn);
    };
    let (text, crc) = head.split_at(HEAD_BYTES - 4);
    if crc32c(text).to_le_bytes() != crc {
        if bytes.iter().take(SECTOR).all(|byte| *byte == 0) {
            return Err(BadHead::Torn);
        }
        return Err(BadHead::Broken);
    }
    if head == place.head() {
        return Ok(());
    }
    if !head.starts_with(MAGIC) && head.starts_with(MAGIC_OF_ANY_VERSION) {
        return Err(BadHead::Version);
    }
    Err(BadHead::Foreign)
}

/// Adds a frame with these records to `out`.
pub(super) fn write(place: Place, sequence: u64, records: &[Record], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + FRAME_HEAD, 0);
    for record in records {
        let (kind, index, term, payload): (_, _, _, &[u8]) = match record {
            Record::Begin { index, term } => (BEGIN, *index, *term, &[]),
            Record::Restart { index, term } => (RESTART, *index, *term, &[]),
            Record::Truncate { index, term } => (TRUNCATE, *index, *term, &[]),
            Record::Entry {
                index,
                term,
                payload,
            } => (ENTRY, *index, *term, payload),
            Record::HardState(payload) => (HARD_STATE, 0, 0, payload),
        };
        out.push(kind);
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&term.to_le_bytes());
        // A payload is bounded by the largest message, far below 4 GiB.
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(payload);
    }
    let (head, body) = out.split_at_mut(start + FRAME_HEAD);
    let Some(head) = head.get_mut(start..) else {
        return;
    };
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut said = [0; 12];
    said[..4].copy_from_slice(&len.to_le_bytes());
    said[4..].copy_from_slice(&sequence.to_le_bytes());
    let head_crc = crc32c_append(place.seed(), &said);
    head[..12].copy_from_slice(&said);
    head[12..16].copy_from_slice(&head_crc.to_le_bytes());
    head[16..].copy_from_slice(&crc32c_append(head_crc, body).to_le_bytes());
}

/// How reading at a place in a segment went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A frame that is whole.
    Frame {
        records: Vec<Record>,
        /// Where the next begins.
        next: usize,
    },
    /// The segment ends here.
    End,
    /// A frame that a crash left unfinished: nothing valid stands behind it.
    Torn,
    /// Bytes that are not what was written, and why they are not a torn tail.
    Broken(&'static str),
}

/// Reads the frame at `at`, which must have this sequence number.
pub(super) fn read(bytes: &Bytes, at: usize, place: Place, sequence: u64) -> Read {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Read::End;
    }
    match intact(rest, place) {
        Some((found, body)) if found == sequence => {
            let from = at + FRAME_HEAD;
            let next = from + body;
            match records(&bytes.slice(from..next)) {
                Some(records) => Read::Frame { records, next },
                None => Read::Broken("its records do not fit into it"),
            }
        }
        Some(_) => Read::Broken("it stands in another's place"),
        None => why(rest, at, place),
    }
}

/// The sequence number and the body's length of the frame that `rest` begins with, if it is
/// whole.
fn intact(rest: &[u8], place: Place) -> Option<(u64, usize)> {
    let (len, sequence, head_crc) = frame_head(rest, place)?;
    let crc = u32::from_le_bytes(rest.get(16..20)?.try_into().ok()?);
    let body = rest.get(FRAME_HEAD..)?.get(..len)?;
    (crc32c_append(head_crc, body) == crc).then_some((sequence, len))
}

fn frame_head(rest: &[u8], place: Place) -> Option<(usize, u64, u32)> {
    let said = rest.get(..12)?;
    let crc = u32::from_le_bytes(rest.get(12..16)?.try_into().ok()?);
    if crc32c_append(place.seed(), said) != crc {
        return None;
    }
    let len = u32::from_le_bytes(said.get(..4)?.try_into().ok()?);
    let sequence = u64::from_le_bytes(said.get(4..)?.try_into().ok()?);
    Some((usize::try_from(len).ok()?, sequence, crc))
}

/// Tells a frame that was never whole from one that is not whole any more.
fn why(rest: &[u8], at: usize, place: Place) -> Read {
    // Heads are checked first: their checksum is cheap.
    let follows = (1..rest.len()).any(|skip| {
        rest.get(skip..)
            .is_some_and(|rest| intact(rest, place).is_some())
    });
    if follows {
        return Read::Broken("its checksum is wrong, and what was written later is whole");
    }
    let ends_early = match frame_head(rest, place) {
        Some((len, _, _)) => rest.len() < FRAME_HEAD + len,
        None => rest.len() < FRAME_HEAD,
    };
    if ends_early || lacks_a_sector(rest, at) {
        Read::Torn
    } else {
        Read::Broken("its checksum is wrong, and no part of it is missing")
    }
}

/// Whether a sector of the file was never written: the size of a file may be on the disk
/// before its bytes are, which then are zero. A part of a sector counts where the frame
/// begins or ends in it.
fn lacks_a_sector(rest: &[u8], at: usize) -> bool {
    let first = SECTOR - at % SECTOR;
    let (first, others) = rest.split_at(first.min(rest.len()));
    std::iter::once(first)
        .chain(others.chunks(SECTOR))
        .any(|sector| sector.iter().all(|byte| *byte == 0))
}

fn records(body: &Bytes) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let head = body.get(at..at + RECORD_HEAD)?;
        let kind = *head.first()?;
        let index = u64::from_le_bytes(head.get(1..9)?.try_into().ok()?);
        let term = u64::from_le_bytes(head.get(9..17)?.try_into().ok()?);
        let len = u32::from_le_bytes(head.get(17..21)?.try_into().ok()?);
        at += RECORD_HEAD;
        let end = at.checked_add(usize::try_from(len).ok()?)?;
        if end > body.len() {
            return None;
        }
        let payload = body.slice(at..end);
        at = end;
        records.push(match kind {
            BEGIN => Record::Begin { index, term },
            RESTART => Record::Restart { index, term },
            TRUNCATE => Record::Truncate { index, term },
            ENTRY => Record::Entry {
                index,
                term,
                payload,
            },
            HARD_STATE => Record::HardState(payload),
            _ => return None,
        });
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        number: 3,
        instance: 0xfeed,
    };

    fn entry(index: u64, payload: &'static [u8]) -> Record {
        Record::Entry {
            index,
            term: 2,
            payload: Bytes::from_static(payload),
        }
    }

    fn frame(sequence: u64, records: &[Record]) -> Vec<u8> {
        let mut out = Vec::new();
        write(PLACE, sequence, records, &mut out);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let all = [
            Record::Begin { index: 1, term: 2 },
            Record::Restart { index: 3, term: 4 },
            Record::Truncate { index: 5, term: 1 },
            entry(6, b"abc"),
            Record::HardState(Bytes::from_static(b"vote")),
        ];
        let bytes = Bytes::from(frame(9, &all));
        let read = read(&bytes, 0, PLACE, 9);
        let next = bytes.len();
        assert_eq!(
            read,
            Read::Frame {
                records: all.to_vec(),
                next
            }
        );
    }

    #[test]
    fn a_frame_that_ends_early_is_torn_and_one_with_a_flipped_bit_is_broken() {
        let whole = frame(0, &[entry(1, b"some bytes that matter")]);
        for len in 1..whole.len() {
            let cut = Bytes::copy_from_slice(&whole[..len]);
            assert_eq!(read(&cut, 0, PLACE, 0), Read::Torn, "{len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = read(&Bytes::from(bad), 0, PLACE, 0);
            assert!(matches!(found, Read::Broken(_)), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn a_sector_that_was_never_written_is_torn_unless_something_follows() {
        static LONG: [u8; 2000] = [7; 2000];
        let mut bytes = frame(0, &[entry(1, &LONG)]);
        bytes[512..1024].fill(0);
        assert_eq!(read(&Bytes::from(bytes.clone()), 0, PLACE, 0), Read::Torn);
        write(PLACE, 1, &[entry(2, b"x")], &mut bytes);
        let found = read(&Bytes::from(bytes), 0, PLACE, 0);
        assert!(matches!(found, Read::Broken(_)), "{found:?}");
    }

    #[test]
    fn a_frame_of_another_folder_is_not_ours() {
        let bytes = Bytes::from(frame(0, &[entry(1, b"x")]));
        let other = Place {
            instance: 1,
            ..PLACE
        };
        assert!(matches!(read(&bytes, 0, other, 0), Read::Broken(_)));
        assert!(matches!(read(&bytes, 0, PLACE, 1), Read::Broken(_)));
    }

    #[test]
    fn a_head_says_what_is_wrong_with_it() {
        let head = PLACE.head();
        assert_eq!(check_head(&head, PLACE), Ok(()));
        assert_eq!(check_head(&head[..20], PLACE), Err(BadHead::Torn));
        assert_eq!(check_head(&[0; 100], PLACE), Err(BadHead::Torn));
        let other = Place { number: 4, ..PLACE };
        assert_eq!(check_head(&head, other), Err(BadHead::Foreign));
        let mut broken = head.clone();
        broken[18] ^= 1;
        assert_eq!(check_head(&broken, PLACE), Err(BadHead::Broken));
        let mut later = head;
        later[12] = b'2';
        let crc = crc32c(&later[..HEAD_BYTES - 4]);
        later[HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check_head(&later, PLACE), Err(BadHead::Version));
    }
}
