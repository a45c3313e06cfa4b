//! Address translators: hosts behind one are seen by others at its address only.
//!
//! What a translator does is told by two habits (RFC 4787 §4.1, §5): which port outside a
//! port inside is given, and who may send to it.
//!
//! | kind               | port outside         | who may send to it                    |
//! |--------------------|----------------------|---------------------------------------|
//! | full cone          | one for each inside  | everybody                             |
//! | address-restricted | one for each inside  | addresses that were sent to           |
//! | port-restricted    | one for each inside  | addresses and ports that were sent to |
//! | symmetric          | another for each far | the one for whom it is                |
//!
//! Only UDP over IPv4 passes. Hosts behind one translator reach each other directly, and not
//! by its own address: many that there are do not turn packets round (RFC 4787 §6).

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::dice::Dice;
use crate::limits::MAPPINGS_MAX;
use crate::wires::{Mac, Port, mac};

/// What kind of translator it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nat {
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address and port-dependent filtering.
    PortRestricted,
    /// Address and port-dependent mapping and filtering.
    Symmetric,
}

impl Nat {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
    ];
}

/// One translator and what it remembers.
#[derive(Debug)]
pub(crate) struct Translator {
    kind: Nat,
    /// What it answers to on the wire.
    mac: Mac,
    addr: Ipv4Addr,
    hosts: Vec<Port>,
    dice: Dice,
    mappings: Vec<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    host: Port,
    inside: SocketAddrV4,
    /// For whom it is, if it is for one.
    far: Option<SocketAddrV4>,
    outside: u16,
    sent_to: Vec<SocketAddrV4>,
}

/// Where ports outside are taken from: above those that hosts have.
const OUTSIDE: std::ops::Range<u16> = 61_000..65_000;

impl Translator {
    /// `number` is no host's.
    pub(crate) fn new(kind: Nat, number: Port, addr: Ipv4Addr, hosts: &[Port], seed: u64) -> Self {
        Self {
            kind,
            mac: mac(number),
            addr,
            hosts: hosts.to_vec(),
            dice: Dice::of_link(seed, "translator", &number.to_string()),
            mappings: Vec::new(),
        }
    }

    pub(crate) fn is_before(&self, host: Port) -> bool {
        self.hosts.contains(&host)
    }

    pub(crate) fn hosts(&self) -> &[Port] {
        &self.hosts
    }

    pub(crate) fn mac(&self) -> Mac {
        self.mac
    }

    /// As after a power cut: ports are given anew, and those before are nobody's.
    pub(crate) fn forget(&mut self) {
        self.mappings.clear();
    }

    /// Rewrites a frame of a host that goes out. Says whether it may.
    pub(crate) fn send(&mut self, host: Port, frame: &mut [u8]) -> bool {
        let Some(mut packet) = Packet::parse(frame) else {
            return false;
        };
        let Some(outside) = self.outside(host, packet.source(), packet.destination()) else {
            return false;
        };
        packet.set_source(SocketAddrV4::new(self.addr, outside));
        frame[6..12].copy_from_slice(&self.mac);
        true
    }

    /// Rewrites a frame that came to the translator, for the host that is to have it.
    pub(crate) fn receive(&self, frame: &mut [u8]) -> Option<Port> {
        let mut packet = Packet::parse(frame)?;
        let (from, to) = (packet.source(), packet.destination());
        let mapping = self
            .mappings
            .iter()
            .find(|mapping| mapping.outside == to.port())?;
        let passes = match self.kind {
            Nat::FullCone => true,
            Nat::AddressRestricted => mapping.sent_to.iter().any(|far| far.ip() == from.ip()),
            Nat::PortRestricted => mapping.sent_to.contains(&from),
            Nat::Symmetric => mapping.far == Some(from),
        };
        if !passes {
            return None;
        }
        packet.set_destination(mapping.inside);
        let host = mapping.host;
        frame[..6].copy_from_slice(&mac(host));
        Some(host)
    }

    /// The answer to a question who has the translator's address.
    pub(crate) fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        // RFC 826, for Ethernet and IPv4.
        let question = frame.get(14..42)?;
        if frame[12..14] != [0x08, 0x06]
            || question[..8] != [0, 1, 8, 0, 6, 4, 0, 1]
            || question[24..28] != self.addr.octets()
        {
            return None;
        }
        let (asker, asker_addr) = (&question[8..14], &question[14..18]);
        let mut answer = [asker, &self.mac, &[0x08, 0x06]].concat();
        answer.extend([0, 1, 8, 0, 6, 4, 0, 2]);
        answer.extend(self.mac);
        answer.extend(self.addr.octets());
        answer.extend(asker);
        answer.extend(asker_addr);
        Some(answer)
    }

    /// The port outside for what a host sends.
    fn outside(&mut self, host: Port, inside: SocketAddrV4, far: SocketAddrV4) -> Option<u16> {
        let only = (self.kind == Nat::Symmetric).then_some(far);
        let known = |mapping: &&mut Mapping| mapping.inside == inside && mapping.far == only;
        if let Some(mapping) = self.mappings.iter_mut().find(known) {
            if !mapping.sent_to.contains(&far) && mapping.sent_to.len() < MAPPINGS_MAX {
                mapping.sent_to.push(far);
            }
            return Some(mapping.outside);
        }
        if self.mappings.len() >= MAPPINGS_MAX {
            return None;
        }
        let outside = self.free_port();
        self.mappings.push(Mapping {
            host,
            inside,
            far: only,
            outside,
            sent_to: vec![far],
        });
        Some(outside)
    }

    fn free_port(&mut self) -> u16 {
        loop {
            let share = self.dice.share() * f64::from(OUTSIDE.end - OUTSIDE.start);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "less than the length of the range"
            )]
            let port = OUTSIDE.start + share as u16;
            if self.mappings.iter().all(|mapping| mapping.outside != port) {
                return port;
            }
        }
    }
}

/// A whole UDP datagram over IPv4, in its frame.
struct Packet<'a> {
    ip: &'a mut [u8],
    /// Where UDP begins.
    udp: usize,
}

impl<'a> Packet<'a> {
    fn parse(frame: &'a mut [u8]) -> Option<Self> {
        if frame.get(12..14)? != [0x08, 0x00] {
            return None;
        }
        let ip = frame.get_mut(14..)?;
        let udp = usize::from(ip.first()? & 0x0f) * 4;
        let is_v4 = ip[0] >> 4 == 4 && udp >= 20 && ip.len() >= udp + 8;
        // Neither one of several fragments.
        let is_udp = is_v4 && ip[9] == 17 && u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff == 0;
        is_udp.then_some(Self { ip, udp })
    }

    fn source(&self) -> SocketAddrV4 {
        self.at(12, self.udp)
    }

    fn destination(&self) -> SocketAddrV4 {
        self.at(16, self.udp + 2)
    }

    fn set_source(&mut self, to: SocketAddrV4) {
        self.put(12, self.udp, to);
    }

    fn set_destination(&mut self, to: SocketAddrV4) {
        self.put(16, self.udp + 2, to);
    }

    fn at(&self, addr: usize, port: usize) -> SocketAddrV4 {
        let octets: [u8; 4] = std::array::from_fn(|n| self.ip[addr + n]);
        let port = u16::from_be_bytes([self.ip[port], self.ip[port + 1]]);
        SocketAddrV4::new(octets.into(), port)
    }

    fn put(&mut self, addr: usize, port: usize, to: SocketAddrV4) {
        self.ip[addr..addr + 4].copy_from_slice(&to.ip().octets());
        self.ip[port..port + 2].copy_from_slice(&to.port().to_be_bytes());
        // UDP's checksum may be left out over IPv4 (RFC 768).
        self.ip[self.udp + 6..self.udp + 8].fill(0);
        self.ip[10..12].fill(0);
        let words = self.ip[..self.udp].chunks_exact(2);
        let sum: u32 = words
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        let [.., high, low] = (!folded).to_be_bytes();
        self.ip[10..12].copy_from_slice(&[high, low]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 253);

    fn at(host: u8, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, host + 1), port)
    }

    fn frame(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let mut frame = [mac(9), mac(1)].concat();
        frame.extend([0x08, 0x00, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(from.ip().octets());
        frame.extend(to.ip().octets());
        frame.extend(from.port().to_be_bytes());
        frame.extend(to.port().to_be_bytes());
        frame.extend([0, 12, 0xab, 0xcd, 1, 2, 3, 4]);
        frame
    }

    /// What a host's datagram to somebody comes from.
    fn seen(nat: &mut Translator, to: SocketAddrV4) -> SocketAddrV4 {
        let mut frame = frame(at(1, 1000), to);
        assert!(nat.send(1, &mut frame));
        let packet = Packet::parse(&mut frame).unwrap();
        assert_eq!(packet.destination(), to);
        packet.source()
    }

    fn passes(nat: &Translator, from: SocketAddrV4, to: SocketAddrV4) -> bool {
        let mut frame = frame(from, to);
        let host = nat.receive(&mut frame);
        if host.is_some() {
            assert_eq!(frame[..6], mac(1));
            let packet = Packet::parse(&mut frame).unwrap();
            assert_eq!((packet.source(), packet.destination()), (from, at(1, 1000)));
        }
        host == Some(1)
    }

    #[test]
    fn each_kind_gives_ports_and_lets_in_as_it_is_called() {
        let (far, other_port, other) = (at(2, 1), at(2, 2), at(3, 1));
        for (kind, same_port, from_port, from_other) in [
            (Nat::FullCone, true, true, true),
            (Nat::AddressRestricted, true, true, false),
            (Nat::PortRestricted, true, false, false),
            (Nat::Symmetric, false, false, false),
        ] {
            let mut nat = Translator::new(kind, 252, OUT, &[1], 7);
            let first = seen(&mut nat, far);
            assert_eq!(*first.ip(), OUT);
            assert!(passes(&nat, far, first), "{kind:?}");
            assert_eq!(passes(&nat, other_port, first), from_port, "{kind:?}");
            assert_eq!(passes(&nat, other, first), from_other, "{kind:?}");
            let second = seen(&mut nat, other);
            assert_eq!(first == second, same_port, "{kind:?}");
            assert!(passes(&nat, other, second), "{kind:?}");
            assert_eq!(seen(&mut nat, far), first, "{kind:?}");
            nat.forget();
            assert!(!passes(&nat, far, first), "{kind:?}");
            assert_ne!(seen(&mut nat, far), first, "{kind:?}");
        }
    }

    #[test]
    fn a_header_has_its_checksum_and_what_is_no_datagram_stays_out() {
        let mut nat = Translator::new(Nat::FullCone, 252, OUT, &[1], 7);
        let mut whole = frame(at(1, 1000), at(2, 1));
        assert!(nat.send(1, &mut whole));
        let sum: u32 = whole[14..34]
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        for (place, byte) in [(12, 0x86), (23, 6), (20, 0x20), (14, 0x65)] {
            let mut other = frame(at(1, 1000), at(2, 1));
            other[place] = byte;
            assert!(!nat.send(1, &mut other), "byte {place}");
        }
        assert!(!nat.send(1, &mut [0; 30]));
    }
}
