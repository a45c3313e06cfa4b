//! Who may say on whose behalf a connection is made.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `listen.proxy_protocol`: whether connections must begin with a PROXY header, and from whom
/// one is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Trust {
    /// Everybody must send one, and is believed; or nobody sends one.
    All(bool),
    /// Whoever comes from these networks must send one, and is believed. Nobody else is let in.
    From(Vec<String>),
}

impl Default for Trust {
    fn default() -> Self {
        Self::All(false)
    }
}

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    ip: IpAddr,
    bits: u8,
}

impl Trust {
    /// The networks from which a header is wanted and believed: `None` if no header is.
    ///
    /// # Errors
    /// The text that is no network.
    pub fn networks(&self) -> Result<Option<Vec<Network>>, String> {
        match self {
            Self::All(false) => Ok(None),
            Self::All(true) => Ok(Some(vec![
                Network {
                    ip: IpAddr::from([0; 4]),
                    bits: 0,
                },
                Network {
                    ip: IpAddr::from([0; 16]),
                    bits: 0,
                },
            ])),
            Self::From(networks) => {
                let parsed = networks
                    .iter()
                    .map(|text| text.parse().map_err(|()| text.clone()));
                parsed.collect::<Result<_, _>>().map(Some)
            }
        }
    }
}

impl Network {
    /// Whether an address is in it.
    #[must_use]
    pub fn has(&self, ip: IpAddr) -> bool {
        let differ = match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => u128::from(own.to_bits() ^ ip.to_bits()) << 96,
            (IpAddr::V6(own), IpAddr::V6(ip)) => own.to_bits() ^ ip.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differ.leading_zeros() >= u32::from(self.bits)
    }
}

impl FromStr for Network {
    type Err = ();

    /// `10.0.0.0/8`, or an address alone.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.trim().parse().map_err(|_| ())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.trim().parse().map_err(|_| ())?,
        };
        (bits <= most).then_some(Self { ip, bits }).ok_or(())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_what_begins_like_it() {
        let has =
            |network: &str, ip: &str| network.parse::<Network>().unwrap().has(ip.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("10.1.2.3", "10.1.2.3") && !has("10.1.2.3", "10.1.2.4"));
        assert!(has("fd00::/8", "fd12::1") && !has("fd00::/8", "fe80::1"));
        assert!(has("::/0", "fe80::1") && !has("::/0", "10.0.0.1"));
        assert!(has("0.0.0.0/0", "203.0.113.9"));
        for wrong in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "host",
            "",
            "10.0.0.0/-1",
        ] {
            assert_eq!(wrong.parse::<Network>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn nobody_everybody_or_some() {
        let any: IpAddr = [203, 0, 113, 9].into();
        assert_eq!(Trust::default().networks(), Ok(None));
        let all = Trust::All(true).networks().unwrap().unwrap();
        assert!(all.iter().any(|network| network.has(any)));
        let some = |text: &str| Trust::From(vec![text.to_owned()]).networks();
        assert_eq!(some("nonsense"), Err("nonsense".to_owned()));
        assert!(!some("10.0.0.0/8").unwrap().unwrap()[0].has(any));
    }
}
