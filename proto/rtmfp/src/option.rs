//! Options and lists of options (RFC 7016 §2.1.3, §2.1.4).
//!
//! An option is a length, a type and a value; the length covers the type. A list ends with
//! an empty option, the marker. Flows, certificates, session keying components and endpoint
//! discriminators are made of them; the last three end with their bytes instead of a marker.

use crate::vlu;
use crate::wire::{NoRoom, Reader, Writer};

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// What kind of option it is.
    pub kind: u64,
    /// Its value.
    pub value: &'a [u8],
}

impl Opt<'_> {
    /// How many bytes it takes on the wire, its length included.
    #[must_use]
    pub const fn wire_len(&self) -> usize {
        let payload = vlu::len(self.kind) + self.value.len();
        vlu::len(payload as u64) + payload
    }

    /// Writes it.
    ///
    /// # Errors
    /// When there is no room for all of it; nothing is written then.
    pub fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        if out.room() < self.wire_len() {
            return Err(NoRoom);
        }
        out.vlu((vlu::len(self.kind) + self.value.len()) as u64)?;
        out.vlu(self.kind)?;
        out.bytes(self.value)
    }
}

/// What stands at the front of bytes that should hold an option.
enum Next<'a> {
    Option(Opt<'a>),
    Marker,
}

fn next<'a>(reader: &mut Reader<'a>) -> Option<Next<'a>> {
    let payload = reader.counted()?;
    if payload.is_empty() {
        return Some(Next::Marker);
    }
    let mut payload = Reader::new(payload);
    let kind = payload.vlu()?;
    Some(Next::Option(Opt {
        kind,
        value: payload.rest(),
    }))
}

/// The options of a list whose syntax was found right. Iterate over a copy of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// The options without a marker.
    bytes: &'a [u8],
}

impl<'a> Options<'a> {
    /// Takes a list with its marker off the front of `reader`. Nothing when the list is
    /// broken or has no marker; how far `reader` is then is undefined.
    #[must_use]
    pub fn take_list(reader: &mut Reader<'a>) -> Option<Self> {
        let all = reader.rest();
        loop {
            let len = all.len() - reader.rest().len();
            match next(reader)? {
                Next::Option(_) => {}
                Next::Marker => {
                    return Some(Self { bytes: &all[..len] });
                }
            }
        }
    }

    /// All of `bytes` as options. Markers among them are allowed and mean nothing. Nothing
    /// when the last one is incomplete.
    #[must_use]
    pub fn parse_all(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            next(&mut reader)?;
        }
        Some(Self { bytes })
    }

    /// The bytes of the options, without a marker.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Opt<'a>;

    fn next(&mut self) -> Option<Opt<'a>> {
        let mut reader = Reader::new(self.bytes);
        while !reader.is_empty() {
            let found = next(&mut reader)?;
            self.bytes = reader.rest();
            match found {
                Next::Option(option) => return Some(option),
                Next::Marker => {}
            }
        }
        None
    }
}

/// The type of a flow's metadata option (§2.3.11.1.1).
pub const METADATA: u64 = 0x00;
/// The type of a flow's return association option (§2.3.11.1.2).
pub const RETURN_FLOW: u64 = 0x0a;
/// A flow with an option that is not understood must be rejected if its type is below this,
/// and the option must be ignored if it is not (§2.3.11.1).
pub const IGNORABLE_FROM: u64 = 0x2000;

/// An option of a flow (§2.3.11.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowOption<'a> {
    /// What the user says the flow is.
    Metadata(&'a [u8]),
    /// The flow of the other direction that this one answers.
    ReturnFlow(u64),
    /// One that is not known, or a return association without a number. The flow is to be
    /// rejected.
    NotUnderstood {
        /// Its type.
        kind: u64,
    },
    /// One that is not known and may be ignored.
    Ignorable {
        /// Its type.
        kind: u64,
    },
}

impl<'a> From<Opt<'a>> for FlowOption<'a> {
    fn from(option: Opt<'a>) -> Self {
        let Opt { kind, value } = option;
        match kind {
            METADATA => Self::Metadata(value),
            RETURN_FLOW => vlu::parse(value).map_or(Self::NotUnderstood { kind }, |(flow, _)| {
                Self::ReturnFlow(flow)
            }),
            _ if kind < IGNORABLE_FROM => Self::NotUnderstood { kind },
            _ => Self::Ignorable { kind },
        }
    }
}

/// Writes the options of a new flow in the order that known peers demand: metadata first,
/// the return association next. No marker is written; [`crate::chunk::UserData`] does.
///
/// # Errors
/// When there is no room for both.
pub fn write_flow_options(
    out: &mut Writer<'_>,
    metadata: &[u8],
    return_flow: Option<u64>,
) -> Result<(), NoRoom> {
    Opt {
        kind: METADATA,
        value: metadata,
    }
    .write(out)?;
    let Some(flow) = return_flow else {
        return Ok(());
    };
    let mut value = [0; vlu::LEN_MAX];
    let len = vlu::write(flow, &mut value).ok_or(NoRoom)?;
    Opt {
        kind: RETURN_FLOW,
        value: &value[..len],
    }
    .write(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_at_its_marker() {
        let wire = [0x02, 0x1e, 0x07, 0x01, 0x0a, 0x00, 0xaa];
        let mut reader = Reader::new(&wire);
        let list: Vec<_> = Options::take_list(&mut reader).unwrap().collect();
        assert_eq!(reader.rest(), [0xaa]);
        assert_eq!(
            list,
            [
                Opt {
                    kind: 0x1e,
                    value: &[7]
                },
                Opt {
                    kind: 0x0a,
                    value: &[]
                },
            ]
        );
    }

    #[test]
    fn a_list_cut_anywhere_is_no_list() {
        let wire = [0x02, 0x1e, 0x07, 0x03, 0xc0, 0x00, 0x01, 0x00];
        assert!(Options::take_list(&mut Reader::new(&wire)).is_some());
        for len in 0..wire.len() {
            assert_eq!(Options::take_list(&mut Reader::new(&wire[..len])), None);
        }
    }

    #[test]
    fn a_length_that_ends_inside_the_type_is_broken() {
        assert_eq!(Options::parse_all(&[0x01, 0x80, 0x01]), None);
    }

    #[test]
    fn a_flow_rejects_what_is_not_understood_below_8192_only() {
        let of = |kind| FlowOption::from(Opt { kind, value: &[] });
        assert_eq!(of(0x1fff), FlowOption::NotUnderstood { kind: 0x1fff });
        assert_eq!(of(0x2000), FlowOption::Ignorable { kind: 0x2000 });
        assert_eq!(of(0), FlowOption::Metadata(&[]));
        assert_eq!(of(0x0a), FlowOption::NotUnderstood { kind: 0x0a });
    }

    #[test]
    fn the_return_association_follows_the_metadata() {
        let mut buffer = [0; 32];
        let mut out = Writer::new(&mut buffer);
        write_flow_options(&mut out, b"TC\x04\0", Some(2)).unwrap();
        assert_eq!(
            out.written(),
            [0x05, 0x00, b'T', b'C', 0x04, 0x00, 0x02, 0x0a, 0x02]
        );
    }
}
