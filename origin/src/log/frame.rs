//! How records stand in a segment.
//!
//! ```text
//!   segment = head  frame*
//!   head    = "SELVAGE LOG 2\n\0\0"  number u64  instance u64  crc32c u32
//!   frame   = said  mark, and a mark as the last byte of every sector of the file
//!   said    = length u32  sequence u64  crc32c of these u32  crc32c of the body u32  body
//!   body    = record*
//!   record  = kind u8  index u64  term u64  length u32  payload
//! ```
//!
//! All numbers are little endian. **A frame is what one sync made durable**: the next one is
//! only written when this one is on the disk. So after a crash at most the last frame is
//! torn, and whatever stands behind a broken frame proves that it was whole once.
//!
//! The last frame has nothing behind it, and rot in it must not pass for a tear: that would
//! cut what was acknowledged. A tear leaves sectors that were never written and read as
//! zero. **Every part of a sector that a frame fills ends with a mark**, which is not zero
//! and does not become zero by a flipped bit, whatever the records say. So zero alone means
//! never written, and everything else that is wrong is rot.
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
const MAGIC: &[u8; 16] = b"SELVAGE LOG 2\n\0\0";
const MAGIC_OF_ANY_VERSION: &[u8] = b"SELVAGE LOG ";

const FRAME_HEAD: usize = 4 + 8 + 4 + 4;
const RECORD_HEAD: usize = 1 + 8 + 8 + 4;

/// Disks write this much at once, or not at all.
const SECTOR: usize = 512;

/// Ends each part of a sector that a frame fills. With four bits set it takes as many flipped
/// ones to look unwritten.
const MARK: u8 = 0xa5;

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

/// Adds a frame with these records to `out`. It will stand at `at` in the file.
pub(super) fn write(place: Place, sequence: u64, records: &[Record], at: u64, out: &mut Vec<u8>) {
    let mut frame = vec![0; FRAME_HEAD];
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
        frame.push(kind);
        frame.extend_from_slice(&index.to_le_bytes());
        frame.extend_from_slice(&term.to_le_bytes());
        // A payload is bounded by the largest message, far below 4 GiB.
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        frame.extend_from_slice(&len.to_le_bytes());
        frame.extend_from_slice(payload);
    }
    let (head, body) = frame.split_at_mut(FRAME_HEAD);
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut said = [0; 12];
    said[..4].copy_from_slice(&len.to_le_bytes());
    said[4..].copy_from_slice(&sequence.to_le_bytes());
    let head_crc = crc32c_append(place.seed(), &said);
    head[..12].copy_from_slice(&said);
    head[12..16].copy_from_slice(&head_crc.to_le_bytes());
    head[16..].copy_from_slice(&crc32c_append(head_crc, body).to_le_bytes());
    lay(&frame, at, out);
}

/// Adds `frame` with its marks.
fn lay(frame: &[u8], at: u64, out: &mut Vec<u8>) {
    let mut room = room(at);
    let mut rest = frame;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(room.min(rest.len()));
        out.extend_from_slice(part);
        out.push(MARK);
        (rest, room) = (behind, SECTOR - 1);
    }
}

/// Bytes from a place in the file up to its sector's mark.
fn room(at: u64) -> usize {
    let into = usize::try_from(at % SECTOR as u64).unwrap_or(0);
    SECTOR - 1 - into
}

/// The first `len` bytes that were laid at `at` in the file, which `rest` begins with, and
/// how many bytes they take there, with the mark behind them. `None` if they are not all
/// there, or a mark is not.
fn lift(rest: &[u8], at: usize, len: usize) -> Option<(Vec<u8>, usize)> {
    let taken = laid(at, len)?;
    let mut said = Vec::with_capacity(len.min(rest.len()));
    let mut room = room(at as u64);
    let mut rest = rest.get(..taken)?;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(room.min(rest.len() - 1));
        said.extend_from_slice(part);
        let (&mark, behind) = behind.split_first()?;
        if mark != MARK {
            return None;
        }
        (rest, room) = (behind, SECTOR - 1);
    }
    Some((said, taken))
}

/// How many bytes of the file a frame of `len` takes at `at`.
fn laid(at: usize, len: usize) -> Option<usize> {
    let marks = len.checked_add(at % SECTOR)?.div_ceil(SECTOR - 1);
    len.checked_add(marks)
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
    match intact(rest, at, place) {
        Some(whole) if whole.sequence == sequence => match records(&whole.body) {
            Some(records) => Read::Frame {
                records,
                next: at + whole.taken,
            },
            None => Read::Broken("its records do not fit into it"),
        },
        Some(_) => Read::Broken("it stands in another's place"),
        None => why(rest, at, place, sequence),
    }
}

/// A frame that is whole.
struct Whole {
    sequence: u64,
    body: Bytes,
    /// Bytes of the file.
    taken: usize,
}

/// The frame that `rest` begins with, if it is whole.
fn intact(rest: &[u8], at: usize, place: Place) -> Option<Whole> {
    let head = frame_head(rest, at, place)?;
    let (said, taken) = lift(rest, at, FRAME_HEAD.checked_add(head.body)?)?;
    let body = Bytes::from(said).slice(FRAME_HEAD..);
    (crc32c_append(head.crc, &body) == head.body_crc).then_some(Whole {
        sequence: head.sequence,
        body,
        taken,
    })
}

/// What a frame says of itself.
struct FrameHead {
    sequence: u64,
    /// Its length.
    body: usize,
    crc: u32,
    body_crc: u32,
}

fn frame_head(rest: &[u8], at: usize, place: Place) -> Option<FrameHead> {
    let mut head = [0; FRAME_HEAD];
    // The mark of the sector may stand between.
    let (first, second) = head.split_at_mut(room(at as u64).min(FRAME_HEAD));
    first.copy_from_slice(rest.get(..first.len())?);
    if !second.is_empty() {
        let behind = rest.get(first.len() + 1..)?;
        second.copy_from_slice(behind.get(..second.len())?);
    }
    let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
    let crc = number(12)?;
    if crc32c_append(place.seed(), &head[..12]) != crc {
        return None;
    }
    Some(FrameHead {
        sequence: u64::from_le_bytes(head.get(4..12)?.try_into().ok()?),
        body: usize::try_from(number(0)?).ok()?,
        crc,
        body_crc: number(16)?,
    })
}

/// Tells a frame that was never whole from one that is not whole any more.
fn why(rest: &[u8], at: usize, place: Place, sequence: u64) -> Read {
    // Heads are checked first: their checksum is cheap. A frame whose first mark alone is
    // missing is whole one byte further, and not later.
    let follows = (1..rest.len()).any(|skip| {
        rest.get(skip..)
            .and_then(|rest| intact(rest, at + skip, place))
            .is_some_and(|later| later.sequence > sequence)
    });
    if follows {
        return Read::Broken("its checksum is wrong, and what was written later is whole");
    }
    let said = frame_head(rest, at, place).map_or(0, |head| head.body);
    let needed = FRAME_HEAD
        .checked_add(said)
        .and_then(|len| laid(at, len))
        .unwrap_or(usize::MAX);
    let ends_early = rest.len() < needed;
    if ends_early || lacks_a_sector(rest, at) {
        Read::Torn
    } else {
        Read::Broken("its checksum is wrong, and no part of it is missing")
    }
}

/// Whether a sector of the file was never written: the size of a file may be on the disk
/// before its bytes are, which then are zero. A part of a sector counts where the frame
/// begins or ends in it. The marks keep what was written from looking like this.
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
        write(PLACE, sequence, records, 0, &mut out);
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
        let at = bytes.len() as u64;
        write(PLACE, 1, &[entry(2, b"x")], at, &mut bytes);
        let found = read(&Bytes::from(bytes), 0, PLACE, 0);
        assert!(matches!(found, Read::Broken(_)), "{found:?}");
    }

    static ZEROS: [u8; 3000] = [0; 3000];

    /// A file up to a place, and a frame of zeros behind it, of which so many sectors count.
    fn zeros_at(at: usize, len: usize) -> (Vec<u8>, usize) {
        let mut file = vec![1; at];
        write(PLACE, 0, &[entry(1, &ZEROS[..len])], at as u64, &mut file);
        let sectors = file.len().div_ceil(SECTOR) - at / SECTOR;
        (file, sectors)
    }

    #[test]
    fn what_is_laid_anywhere_is_lifted_again() {
        for at in 0..2 * SECTOR {
            for len in [0, 1, 470, 471, 489, 490, 491, 1000, 1022] {
                let (file, _) = zeros_at(at, len);
                let next = file.len();
                let found = read(&Bytes::from(file), at, PLACE, 0);
                let records = vec![entry(1, &ZEROS[..len])];
                assert_eq!(found, Read::Frame { records, next }, "{len} at {at}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_a_frame_of_zeros_is_never_taken_for_a_tear() {
        // The frame ends with its sector, one or two bytes behind, or fills one with zeros.
        for (at, len, step) in [
            (436, 34, 1),
            (436, 35, 1),
            (436, 36, 1),
            (511, 5, 1),
            (436, 600, 61),
        ] {
            let (file, _) = zeros_at(at, len);
            for bit in (at * 8..file.len() * 8).step_by(step) {
                let mut bad = file.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let found = read(&Bytes::from(bad), at, PLACE, 0);
                assert!(
                    matches!(found, Read::Broken(_)),
                    "{len} at {at}, bit {bit}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn a_frame_is_torn_whichever_of_its_sectors_are_missing() {
        for (at, len) in [(436, 545), (436, 546), (436, 547), (511, 480), (500, 3)] {
            let (file, sectors) = zeros_at(at, len);
            for written in 0..(1u32 << sectors) - 1 {
                for cut in [0, 1, 200, 600] {
                    let mut torn = file.clone();
                    for (place, byte) in torn.iter_mut().enumerate().skip(at) {
                        if written >> (place / SECTOR - at / SECTOR) & 1 == 0 {
                            *byte = 0;
                        }
                    }
                    torn.truncate((file.len() - cut.min(file.len() - at)).max(at + 1));
                    let found = read(&Bytes::from(torn), at, PLACE, 0);
                    assert_eq!(found, Read::Torn, "{len} at {at}: {written:b}, less {cut}");
                }
            }
        }
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
        later[12] = b'3';
        let crc = crc32c(&later[..HEAD_BYTES - 4]);
        later[HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check_head(&later, PLACE), Err(BadHead::Version));
    }
}
