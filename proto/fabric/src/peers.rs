//! Peers and their addresses, from their wire form and to it.

use std::net::{IpAddr, SocketAddr};

use crate::convert::Invalid;
use crate::limits::{PEER_ADDRESSES_MAX, PEER_APP_MAX, PEER_TAG_MAX};
use crate::v1;

/// A peer's ID: the fingerprint of its certificate.
pub type PeerId = [u8; 32];

/// Reads a peer's ID.
///
/// # Errors
/// [`Invalid::Length`] when it has not 32 bytes.
pub fn id(bytes: &[u8]) -> Result<PeerId, Invalid> {
    bytes.try_into().map_err(|_| Invalid::Length {
        field: "peer",
        len: bytes.len(),
    })
}

/// Reads an address that must be there.
///
/// # Errors
/// [`Invalid::Missing`], and what [`address`] refuses.
pub fn observed(wire: Option<&v1::PeerAddress>) -> Result<SocketAddr, Invalid> {
    address(wire.ok_or(Invalid::Missing { field: "observed" })?)
}

/// Reads the addresses that a peer reports of itself, of which no more than
/// [`PEER_ADDRESSES_MAX`] are taken.
///
/// # Errors
/// What [`address`] refuses.
pub fn reported(wire: &[v1::PeerAddress]) -> Result<Vec<SocketAddr>, Invalid> {
    wire.iter().take(PEER_ADDRESSES_MAX).map(address).collect()
}

/// Reads an address.
///
/// # Errors
/// [`Invalid::Length`] when its IP has neither 4 nor 16 bytes, or its port more than 16 bits.
pub fn address(wire: &v1::PeerAddress) -> Result<SocketAddr, Invalid> {
    let wrong = |field, len| Invalid::Length { field, len };
    let ip = match <[u8; 4]>::try_from(&wire.ip[..]) {
        Ok(four) => IpAddr::from(four),
        Err(_) => <[u8; 16]>::try_from(&wire.ip[..])
            .map(IpAddr::from)
            .map_err(|_| wrong("PeerAddress.ip", wire.ip.len()))?,
    };
    let port = u16::try_from(wire.port).map_err(|_| wrong("PeerAddress.port", 4))?;
    Ok(SocketAddr::new(ip, port))
}

/// Checks what is handed on of someone who wants to talk with a peer.
///
/// # Errors
/// [`Invalid`] with the field that is wrong.
pub fn initiator(wire: Option<v1::Initiator>) -> Result<v1::Initiator, Invalid> {
    let mut wire = wire.ok_or(Invalid::Missing { field: "initiator" })?;
    observed(wire.observed.as_ref())?;
    wire.reported.truncate(PEER_ADDRESSES_MAX);
    reported(&wire.reported)?;
    for (field, len, max) in [
        ("Initiator.app", wire.app.len(), PEER_APP_MAX),
        ("Initiator.tag", wire.tag.len(), PEER_TAG_MAX),
    ] {
        if len > max {
            return Err(Invalid::Length { field, len });
        }
    }
    Ok(wire)
}

impl From<SocketAddr> for v1::PeerAddress {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Self {
            ip: ip.into(),
            port: address.port().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_go_both_ways() {
        for text in ["192.0.2.1:1935", "[2001:db8::1]:80"] {
            let there: SocketAddr = text.parse().unwrap();
            assert_eq!(address(&there.into()), Ok(there));
        }
        let wrong = |len: usize, port| {
            address(&v1::PeerAddress {
                ip: vec![1; len].into(),
                port,
            })
        };
        for len in [0, 3, 5, 15, 17] {
            assert!(wrong(len, 1).is_err(), "{len}");
        }
        assert!(wrong(4, 65_536).is_err());
        assert!(id(&[1; 31]).is_err() && id(&[1; 32]).is_ok());
    }

    #[test]
    fn what_is_handed_on_is_bounded() {
        let at: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let right = v1::Initiator {
            observed: Some(at.into()),
            reported: vec![at.into(); 100],
            app: "live".into(),
            tag: vec![1; 16].into(),
        };
        let taken = initiator(Some(right.clone())).unwrap();
        assert_eq!(taken.reported.len(), PEER_ADDRESSES_MAX);
        for wrong in [
            v1::Initiator {
                tag: vec![1; PEER_TAG_MAX + 1].into(),
                ..right.clone()
            },
            v1::Initiator {
                app: "a".repeat(PEER_APP_MAX + 1),
                ..right.clone()
            },
            v1::Initiator {
                observed: None,
                ..right
            },
        ] {
            assert!(initiator(Some(wrong)).is_err());
        }
        assert!(initiator(None).is_err());
    }
}
