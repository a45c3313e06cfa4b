//! What can be wrong, and whose fault it is.

use std::fmt;

/// Why bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The peer, or the file, breaks the rules.
    PeerMisbehaved(Misbehaviour),
    /// It is within the rules, but not done here.
    Unsupported(Feature),
    /// It is larger than is accepted.
    LimitExceeded(Limit),
}

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    /// `@setDataFrame` or `@clearDataFrame` without a name behind it.
    UnnamedDataFrame,
    /// The file does not begin with `FLV`.
    NotFlv,
    /// The file's header claims to be shorter than a header is.
    ShortHeader {
        /// The length it claims.
        claimed: u32,
    },
}

/// Something not done here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Tags with the filter bit: encrypted files (FLV 10.1, annex F).
    FilteredTag,
    /// A file version other than 1.
    Version(u8),
}

/// An exceeded limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A tag's payload.
    TagSize {
        /// Bytes it has.
        len: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// The file's header.
    HeaderSize {
        /// Bytes it has.
        len: u32,
        /// Bytes it may have.
        max: u32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerMisbehaved(Misbehaviour::UnnamedDataFrame) => {
                f.write_str("a data frame is set or cleared without a name")
            }
            Self::PeerMisbehaved(Misbehaviour::NotFlv) => f.write_str("this is no FLV file"),
            Self::PeerMisbehaved(Misbehaviour::ShortHeader { claimed }) => {
                write!(
                    f,
                    "the file's header claims {claimed} bytes, it has at least 9"
                )
            }
            Self::Unsupported(Feature::FilteredTag) => f.write_str("the file is encrypted"),
            Self::Unsupported(Feature::Version(version)) => {
                write!(f, "FLV version {version} is unknown")
            }
            Self::LimitExceeded(Limit::TagSize { len, max }) => {
                write!(f, "a tag has {len} bytes, at most {max} are accepted")
            }
            Self::LimitExceeded(Limit::HeaderSize { len, max }) => {
                write!(
                    f,
                    "the file's header has {len} bytes, at most {max} are accepted"
                )
            }
        }
    }
}

impl std::error::Error for Error {}
