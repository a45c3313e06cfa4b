//! Internet addresses as RTMFP writes them (RFC 7016 §2.1.5).

use std::net::{IpAddr, SocketAddr};

use crate::wire::{NoRoom, Reader, Writer};

/// Where an address is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Not known. Some clients refuse such an address: never send it in a redirect.
    Unknown = 0,
    /// The peer reported it as one of its own interfaces.
    Reported = 1,
    /// Packets were seen to come from it.
    Observed = 2,
    /// A relay, a proxy or an introducer: ask there.
    Relay = 3,
}

/// An address and where it is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The address and port.
    pub at: SocketAddr,
    /// Where it is known from.
    pub origin: Origin,
}

const INET6: u8 = 0x80;

impl Address {
    /// The most bytes an address takes.
    pub const LEN_MAX: usize = 1 + 16 + 2;

    /// Takes one off the front of `reader`. Nothing when it is incomplete.
    #[must_use]
    pub fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let flags = reader.u8()?;
        let ip = if flags & INET6 == 0 {
            IpAddr::from(reader.array::<4>()?)
        } else {
            IpAddr::from(reader.array::<16>()?)
        };
        let origin = match flags & 3 {
            0 => Origin::Unknown,
            1 => Origin::Reported,
            2 => Origin::Observed,
            _ => Origin::Relay,
        };
        Some(Self {
            at: SocketAddr::new(ip, reader.u16()?),
            origin,
        })
    }

    /// Writes it.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn write(&self, out: &mut Writer<'_>) -> Result<(), NoRoom> {
        let origin = self.origin as u8;
        match self.at.ip() {
            IpAddr::V4(ip) => {
                out.u8(origin)?;
                out.bytes(&ip.octets())?;
            }
            IpAddr::V6(ip) => {
                out.u8(INET6 | origin)?;
                out.bytes(&ip.octets())?;
            }
        }
        out.u16(self.at.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn both_ways(at: &str, origin: Origin, wire: &[u8]) {
        let address = Address {
            at: at.parse().unwrap(),
            origin,
        };
        let mut buffer = [0; Address::LEN_MAX];
        let mut out = Writer::new(&mut buffer);
        address.write(&mut out).unwrap();
        assert_eq!(out.written(), wire);
        assert_eq!(Address::take(&mut Reader::new(wire)), Some(address));
        for len in 0..wire.len() {
            assert_eq!(Address::take(&mut Reader::new(&wire[..len])), None);
        }
    }

    #[test]
    fn both_families_and_all_origins_are_written_and_read() {
        let four = |origin| [origin, 192, 0, 2, 1, 0x07, 0x8f];
        both_ways("192.0.2.1:1935", Origin::Unknown, &four(0));
        both_ways("192.0.2.1:1935", Origin::Reported, &four(1));
        both_ways("192.0.2.1:1935", Origin::Observed, &four(2));
        let mut six = [0; 19];
        six[0] = 0x83;
        six[1..5].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        six[16] = 1;
        six[18] = 80;
        both_ways("[2001:db8::1]:80", Origin::Relay, &six);
    }
}
