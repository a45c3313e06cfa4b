//! Who an endpoint is, and whom a hello is for (RFC 7425 §4.3, §4.4).
//!
//! A certificate is a list of options. The SHA-256 of its canonical section (what stands
//! before the first marker) is its fingerprint, which users know as *peer ID*.

use sha2::{Digest, Sha256};

use super::{Entropy, Group, KeyPair};
use crate::error::Error;
use crate::limits;
use crate::option::{Opt, Options};
use crate::vlu;
use crate::wire::{Reader, Writer};

/// The SHA-256 of the canonical section of a certificate: the peer ID.
pub type Fingerprint = [u8; 32];

mod kind {
    pub(super) const HOSTNAME: u64 = 0x00;
    pub(super) const ACCEPTS_ANCILLARY: u64 = 0x0a;
    pub(super) const EXTRA_RANDOMNESS: u64 = 0x0e;
    pub(super) const EPHEMERAL_GROUP: u64 = 0x15;
    pub(super) const STATIC_KEY: u64 = 0x1d;
    pub(super) const EPD_HOSTNAME: u64 = 0x00;
    pub(super) const EPD_ANCILLARY: u64 = 0x0a;
    pub(super) const EPD_FINGERPRINT: u64 = 0x0f;
}

/// A certificate whose syntax was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    bytes: &'a [u8],
    canonical: Options<'a>,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no list of options, is longer than
    /// [`limits::CERTIFICATE_MAX`], has two hostnames, or has both static and ephemeral
    /// keys.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let malformed = Error::Malformed {
            what: "certificate",
        };
        if bytes.len() > limits::CERTIFICATE_MAX {
            return Err(malformed);
        }
        let mut rest = Reader::new(bytes);
        let canonical = match Options::take_list(&mut rest) {
            Some(canonical) => canonical,
            None => {
                rest = Reader::new(&[]);
                Options::parse_all(bytes).ok_or(malformed)?
            }
        };
        Options::parse_all(rest.rest()).ok_or(malformed)?;
        let count = |kind| canonical.filter(|option| option.kind == kind).count();
        let is_static = count(kind::STATIC_KEY) > 0;
        if count(kind::HOSTNAME) > 1 || is_static && count(kind::EPHEMERAL_GROUP) > 0 {
            return Err(malformed);
        }
        Ok(Self { bytes, canonical })
    }

    /// All of it.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The section that its fingerprint is of.
    #[must_use]
    pub const fn canonical(&self) -> &'a [u8] {
        self.canonical.as_bytes()
    }

    /// Its fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Sha256::digest(self.canonical()).into()
    }

    fn first(&self, kind: u64) -> Option<&'a [u8]> {
        let mut canonical = self.canonical;
        let found = canonical.find(|option| option.kind == kind);
        found.map(|option| option.value)
    }

    /// The endpoint's hostname.
    #[must_use]
    pub fn hostname(&self) -> Option<&'a [u8]> {
        self.first(kind::HOSTNAME)
    }

    /// Whether the endpoint wants hellos with ancillary data: a server does.
    #[must_use]
    pub fn accepts_ancillary(&self) -> bool {
        self.first(kind::ACCEPTS_ANCILLARY).is_some()
    }

    /// Whether the endpoint can do ephemeral keying in `group`.
    #[must_use]
    pub fn supports_ephemeral(&self, group: Group) -> bool {
        let mut canonical = self.canonical;
        canonical.any(|option| {
            option.kind == kind::EPHEMERAL_GROUP
                && vlu::parse(option.value).is_some_and(|(id, _)| id == u64::from(group.id()))
        })
    }

    /// The endpoint's static public key in `group`.
    #[must_use]
    pub fn static_key(&self, group: Group) -> Option<&'a [u8]> {
        let mut canonical = self.canonical;
        canonical.find_map(|option| {
            let mut value = Reader::new(option.value);
            let found = option.kind == kind::STATIC_KEY && value.vlu()? == u64::from(group.id());
            found.then(|| value.rest())
        })
    }

    /// Whether the endpoint uses static keys.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.first(kind::STATIC_KEY).is_some()
    }
}

/// A certificate of ours, with the keys that belong to it.
#[derive(Clone, Debug)]
pub struct Identity {
    certificate: Vec<u8>,
    fingerprint: Fingerprint,
    keys: Vec<KeyPair>,
}

/// How many random bytes make a certificate unlike any other.
const RANDOMNESS: usize = 64;

impl Identity {
    /// An endpoint with ephemeral keys in `groups`. `accepts_ancillary` for a server.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when `hostname` is too long for a certificate.
    pub fn ephemeral(
        groups: &[Group],
        accepts_ancillary: bool,
        hostname: Option<&[u8]>,
        entropy: &mut dyn Entropy,
    ) -> Result<Self, Error> {
        let mut buffer = [0; limits::CERTIFICATE_MAX];
        let mut out = Writer::new(&mut buffer);
        Self::write_begin(&mut out, accepts_ancillary, hostname)?;
        let mut value = [0; RANDOMNESS];
        entropy.fill(&mut value);
        let kind = kind::EXTRA_RANDOMNESS;
        Opt {
            kind,
            value: &value,
        }
        .write(&mut out)?;
        for group in groups {
            Opt {
                kind: kind::EPHEMERAL_GROUP,
                value: &[group.id()],
            }
            .write(&mut out)?;
        }
        Ok(Self::new(out.written(), Vec::new()))
    }

    /// An endpoint with static keys, one for each group. `accepts_ancillary` for a server.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when the keys are too long for a certificate.
    pub fn with_static_keys(
        keys: Vec<KeyPair>,
        accepts_ancillary: bool,
        hostname: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let mut buffer = [0; limits::CERTIFICATE_MAX];
        let mut out = Writer::new(&mut buffer);
        Self::write_begin(&mut out, accepts_ancillary, hostname)?;
        for key in &keys {
            let mut value = vec![key.group().id()];
            value.extend_from_slice(key.public());
            Opt {
                kind: kind::STATIC_KEY,
                value: &value,
            }
            .write(&mut out)?;
        }
        Ok(Self::new(out.written(), keys))
    }

    fn write_begin(
        out: &mut Writer<'_>,
        accepts_ancillary: bool,
        hostname: Option<&[u8]>,
    ) -> Result<(), Error> {
        if accepts_ancillary {
            let kind = kind::ACCEPTS_ANCILLARY;
            Opt { kind, value: &[] }.write(out)?;
        }
        if let Some(value) = hostname {
            let kind = kind::HOSTNAME;
            Opt { kind, value }.write(out)?;
        }
        Ok(())
    }

    fn new(canonical: &[u8], keys: Vec<KeyPair>) -> Self {
        Self {
            certificate: canonical.to_vec(),
            fingerprint: Sha256::digest(canonical).into(),
            keys,
        }
    }

    /// The certificate.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.certificate
    }

    /// The certificate, to be asked.
    #[must_use]
    pub fn certificate(&self) -> Certificate<'_> {
        Certificate {
            bytes: &self.certificate,
            // It was written without a marker: all of it is canonical.
            canonical: Options::parse_all(&self.certificate).unwrap_or_default(),
        }
    }

    /// The peer ID.
    #[must_use]
    pub const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The static key in `group`.
    #[must_use]
    pub fn static_key(&self, group: Group) -> Option<&KeyPair> {
        self.keys.iter().find(|key| key.group() == group)
    }

    /// Whether the keys are static.
    #[must_use]
    pub const fn is_static(&self) -> bool {
        !self.keys.is_empty()
    }
}

/// The length of a discriminator that names one fingerprint and nothing else (§4.4.4).
pub const CANONICAL_LEN: usize = 34;

/// Whom a hello is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discriminator<'a> {
    /// One certificate and no other.
    pub fingerprint: Option<&'a Fingerprint>,
    /// A server: its URL, or only the path in it.
    pub ancillary: Option<&'a [u8]>,
    /// The hostname that the certificate must have.
    pub hostname: Option<&'a [u8]>,
}

impl<'a> Discriminator<'a> {
    /// Reads a discriminator. Options that are not known are ignored.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it is no list of options, longer than
    /// [`limits::DISCRIMINATOR_MAX`], or has an option twice.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let malformed = Error::Malformed {
            what: "endpoint discriminator",
        };
        if bytes.len() > limits::DISCRIMINATOR_MAX {
            return Err(malformed);
        }
        let mut found = Self {
            fingerprint: None,
            ancillary: None,
            hostname: None,
        };
        for option in Options::parse_all(bytes).ok_or(malformed)? {
            let twice = match option.kind {
                kind::EPD_FINGERPRINT => {
                    let value = option.value.try_into().map_err(|_| malformed)?;
                    found.fingerprint.replace(value).is_some()
                }
                kind::EPD_ANCILLARY => found.ancillary.replace(option.value).is_some(),
                kind::EPD_HOSTNAME => found.hostname.replace(option.value).is_some(),
                _ => false,
            };
            if twice {
                return Err(malformed);
            }
        }
        Ok(found)
    }

    /// Whether a certificate is meant (§4.4.3).
    #[must_use]
    pub fn selects(&self, certificate: &Certificate<'_>) -> bool {
        self.selects_known(certificate, &certificate.fingerprint())
    }

    /// Whether an identity of ours is meant (§4.4.3).
    #[must_use]
    pub fn selects_identity(&self, identity: &Identity) -> bool {
        self.selects_known(&identity.certificate(), identity.fingerprint())
    }

    fn selects_known(&self, certificate: &Certificate<'_>, fingerprint: &Fingerprint) -> bool {
        if let Some(wanted) = self.fingerprint {
            return wanted == fingerprint;
        }
        let hostname = self
            .hostname
            .is_none_or(|wanted| certificate.hostname() == Some(wanted));
        let ancillary = self.ancillary.is_none() || certificate.accepts_ancillary();
        let asks = self.hostname.is_some() || self.ancillary.is_some();
        asks && hostname && ancillary
    }

    /// The discriminator of one certificate (§4.4.4).
    #[must_use]
    pub fn canonical(fingerprint: &Fingerprint) -> [u8; CANONICAL_LEN] {
        let mut bytes = [0; CANONICAL_LEN];
        bytes[0] = 0x21;
        bytes[1] = 0x0f;
        bytes[2..].copy_from_slice(fingerprint);
        bytes
    }

    /// The discriminator of a server by its URL.
    #[must_use]
    pub fn server(url: &[u8]) -> Vec<u8> {
        let option = Opt {
            kind: kind::EPD_ANCILLARY,
            value: url,
        };
        let mut bytes = vec![0; option.wire_len()];
        // The room is exactly what it needs.
        let written = option.write(&mut Writer::new(&mut bytes));
        debug_assert!(written.is_ok());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: [u8; RANDOMNESS] = [7; RANDOMNESS];

    fn server() -> Identity {
        let groups = [Group::Modp1024, Group::Modp2048];
        let mut entropy = |out: &mut [u8]| out.copy_from_slice(&RANDOM);
        Identity::ephemeral(&groups, true, None, &mut entropy).unwrap()
    }

    #[test]
    fn a_server_certificate_is_laid_out_as_known_servers_do() {
        let mut expected = vec![0x01, 0x0a, 0x41, 0x0e];
        expected.extend(RANDOM);
        expected.extend([0x02, 0x15, 0x02, 0x02, 0x15, 0x0e]);
        let identity = server();
        assert_eq!(identity.as_bytes(), expected);
        let read = Certificate::parse(&expected).unwrap();
        assert!(read.accepts_ancillary() && !read.is_static());
        assert!(read.supports_ephemeral(Group::Modp2048));
        assert!(!read.supports_ephemeral(Group::Modp4096));
        assert_eq!(&read.fingerprint(), identity.fingerprint());
    }

    #[test]
    fn what_follows_the_marker_is_not_in_the_fingerprint() {
        let all = [1, 0x0a, 2, 0x15, 2, 0, 2, 0x15, 14, 0, 0];
        let certificate = Certificate::parse(&all).unwrap();
        assert_eq!(certificate.canonical(), &all[..5]);
        assert!(certificate.supports_ephemeral(Group::Modp1024));
        assert!(!certificate.supports_ephemeral(Group::Modp2048));
        let short = Certificate::parse(&all[..5]).unwrap();
        assert_eq!(certificate.fingerprint(), short.fingerprint());
    }

    #[test]
    fn broken_certificates_are_refused() {
        let malformed = Err(Error::Malformed {
            what: "certificate",
        });
        for broken in [
            &[2, 0x15][..],
            &[1, 0x0a, 0, 5],
            &[2, 0, b'a', 2, 0, b'b'],
            &[2, 0x15, 2, 3, 0x1d, 2, 9],
            &[0; limits::CERTIFICATE_MAX + 1],
        ] {
            assert_eq!(Certificate::parse(broken), malformed);
        }
        assert!(Certificate::parse(&[]).is_ok());
    }

    #[test]
    fn a_discriminator_selects_as_figure_1_says() {
        let identity = server();
        let selects = |bytes: &[u8]| {
            Discriminator::parse(bytes)
                .unwrap()
                .selects_identity(&identity)
        };
        assert!(selects(&Discriminator::server(b"rtmfp://host/app")));
        assert!(selects(&Discriminator::server(b"live")));
        assert!(selects(&Discriminator::canonical(identity.fingerprint())));
        assert!(!selects(&Discriminator::canonical(&[1; 32])));
        assert!(!selects(&[]), "nothing asked for");
        assert!(!selects(&[2, 0, b'h']), "we have no hostname");
        assert!(!selects(&[2, 0x0a, b'x', 2, 0, b'h']));
        let mut both = Discriminator::canonical(identity.fingerprint()).to_vec();
        both.extend([2, 0, b'h']);
        assert!(selects(&both), "a fingerprint decides alone");

        let mut entropy = |out: &mut [u8]| out.fill(1);
        let peer =
            Identity::ephemeral(&[Group::Modp1024], false, Some(b"h"), &mut entropy).unwrap();
        let selects = |bytes: &[u8]| {
            Discriminator::parse(bytes)
                .unwrap()
                .selects(&peer.certificate())
        };
        assert!(selects(&[2, 0, b'h']));
        assert!(!selects(&[2, 0, b'i']));
        assert!(
            !selects(&[2, 0, b'h', 2, 0x0a, b'x']),
            "takes no ancillary data"
        );
    }

    #[test]
    fn broken_discriminators_are_refused() {
        for broken in [
            &[2, 0x0a][..],
            &[2, 0x0f, 1],
            &[2, 0x0a, 1, 2, 0x0a, 1],
            &[0; limits::DISCRIMINATOR_MAX + 1],
        ] {
            assert!(Discriminator::parse(broken).is_err());
        }
    }
}
