//! Why a packet or a handshake is refused, and who is to blame.
//!
//! Whoever can reach the port can send anything, so that almost nothing here ends a
//! session: a packet that is wrong is dropped and counted as though it had not come.

use std::fmt;

/// Who has to change something for this not to happen again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The network changed the bytes, or someone forged them. No one that can be named.
    Nobody,
    /// The peer broke the protocol, or a limit.
    PeerMisbehaved,
    /// The peer has no part in common with us, which is no fault of it.
    PeerIncompatible,
}

/// Why a packet or a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A packet ends before what it must have.
    PacketTooShort {
        /// Its length in bytes.
        len: usize,
    },
    /// A packet has the mode 0, which is forbidden (RFC 7016 §2.2.4).
    PacketMode,
    /// The cipher's blocks or the length of the authentication do not fit the packet.
    PacketLength {
        /// The length of the sealed packet in bytes.
        len: usize,
    },
    /// The checksum or the authentication code is wrong.
    NotAuthentic,
    /// The session sequence number came before, or is too far behind to know.
    Replayed {
        /// The number.
        sequence: u64,
    },
    /// A buffer of the caller's has no room for a sealed packet.
    NoRoom,
    /// An endpoint discriminator, a certificate or a keying component is broken.
    Malformed {
        /// What it is.
        what: &'static str,
    },
    /// There is no Diffie-Hellman group, or no public key in it, that both sides have.
    NoCommonGroup,
    /// A public key is one that gives the shared secret away (RFC 7425 §4.6.2).
    WeakPublicKey,
    /// The peer does not send what we require.
    Required {
        /// What it is.
        what: &'static str,
    },
    /// A cookie that is not ours, or too old.
    Cookie,
    /// A certificate that is not the one that was asked for.
    OtherCertificate,
    /// The entropy handed in gave no usable private key, many times over.
    Entropy,
}

impl Error {
    /// Who is to blame.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::PacketTooShort { .. }
            | Self::PacketLength { .. }
            | Self::NotAuthentic
            | Self::Replayed { .. }
            | Self::Cookie
            | Self::NoRoom
            | Self::Entropy => Blame::Nobody,
            Self::PacketMode
            | Self::Malformed { .. }
            | Self::WeakPublicKey
            | Self::OtherCertificate => Blame::PeerMisbehaved,
            Self::NoCommonGroup | Self::Required { .. } => Blame::PeerIncompatible,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PacketTooShort { len } => write!(f, "a packet of {len} bytes ends too early"),
            Self::PacketMode => f.write_str("a packet of the forbidden mode 0"),
            Self::PacketLength { len } => {
                write!(f, "a sealed packet cannot have {len} bytes")
            }
            Self::NotAuthentic => f.write_str("a packet's checksum or authentication is wrong"),
            Self::Replayed { sequence } => {
                write!(
                    f,
                    "the packet {sequence} came before or is too late to know"
                )
            }
            Self::NoRoom => f.write_str("no room for a sealed packet"),
            Self::Malformed { what } => write!(f, "broken {what}"),
            Self::NoCommonGroup => f.write_str("no Diffie-Hellman group in common"),
            Self::WeakPublicKey => f.write_str("a public key gives the secret away"),
            Self::Required { what } => {
                write!(f, "the peer does not send {what}, which is required")
            }
            Self::Cookie => f.write_str("a cookie that is not ours or too old"),
            Self::OtherCertificate => f.write_str("a certificate that was not asked for"),
            Self::Entropy => f.write_str("the entropy gives no usable private key"),
        }
    }
}

impl std::error::Error for Error {}

impl From<crate::wire::NoRoom> for Error {
    fn from(_: crate::wire::NoRoom) -> Self {
        Self::NoRoom
    }
}
