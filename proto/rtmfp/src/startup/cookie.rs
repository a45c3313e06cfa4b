//! Cookies: what a responder remembers of a hello is in the initiator's hands.
//!
//! ```text
//!  │ time 8 │ MAC of the time 28 │ MAC of time and address 28 │
//! ```
//!
//! The first MAC tells a cookie of ours from a forged one even when the address is another,
//! so that only the former is answered with a new cookie.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto;
use crate::limits::{COOKIE_LEN, COOKIE_LIFETIME};

const TIME_LEN: usize = 8;
const MAC_LEN: usize = (COOKIE_LEN - TIME_LEN) / 2;

/// What a cookie that came back is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    /// It is ours, young enough, and for this address.
    Good,
    /// It is ours and young enough, and for another address.
    OtherAddress,
    /// It is not ours.
    Forged,
    /// It is too old.
    Expired,
}

/// Makes cookies and knows them again. All shards that may see one another's cookies have
/// the same secret and the same origin of time.
#[derive(Clone)]
pub struct Cookies {
    /// Has taken the secret in, which costs as much as a short message does.
    keyed: Hmac<Sha256>,
    origin: Instant,
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cookies").finish_non_exhaustive()
    }
}

impl Cookies {
    /// `secret` is random and no one else's; `origin` is not after any cookie.
    #[must_use]
    pub fn new(secret: [u8; 32], origin: Instant) -> Self {
        let secret = Zeroizing::new(secret);
        Self {
            keyed: crypto::keyed(&*secret),
            origin,
        }
    }

    fn mac(&self, time: [u8; TIME_LEN], address: Option<SocketAddr>) -> [u8; MAC_LEN] {
        let mut mac = self.keyed.clone();
        mac.update(&time);
        if let Some(address) = address {
            match address.ip() {
                IpAddr::V4(ip) => mac.update(&ip.octets()),
                IpAddr::V6(ip) => mac.update(&ip.octets()),
            }
            mac.update(&address.port().to_be_bytes());
        }
        let full: [u8; 32] = mac.finalize().into_bytes().into();
        let mut cut = [0; MAC_LEN];
        cut.copy_from_slice(&full[..MAC_LEN]);
        cut
    }

    /// A cookie for `address`.
    #[must_use]
    pub fn make(&self, address: SocketAddr, now: Instant) -> [u8; COOKIE_LEN] {
        let elapsed = now.saturating_duration_since(self.origin).as_millis();
        let time = u64::try_from(elapsed).unwrap_or(u64::MAX).to_be_bytes();
        let mut cookie = [0; COOKIE_LEN];
        cookie[..TIME_LEN].copy_from_slice(&time);
        cookie[TIME_LEN..TIME_LEN + MAC_LEN].copy_from_slice(&self.mac(time, None));
        cookie[TIME_LEN + MAC_LEN..].copy_from_slice(&self.mac(time, Some(address)));
        cookie
    }

    /// What `cookie`, which came back from `address`, is worth.
    #[must_use]
    pub fn check(&self, cookie: &[u8], address: SocketAddr, now: Instant) -> Cookie {
        let Ok(cookie) = <&[u8; COOKIE_LEN]>::try_from(cookie) else {
            return Cookie::Forged;
        };
        let mut time = [0; TIME_LEN];
        time.copy_from_slice(&cookie[..TIME_LEN]);
        let (ours, bound) = cookie[TIME_LEN..].split_at(MAC_LEN);
        if !bool::from(self.mac(time, None).ct_eq(ours)) {
            return Cookie::Forged;
        }
        let made = Duration::from_millis(u64::from_be_bytes(time));
        let elapsed = now.saturating_duration_since(self.origin);
        if elapsed.saturating_sub(made) > COOKIE_LIFETIME {
            Cookie::Expired
        } else if bool::from(self.mac(time, Some(address)).ct_eq(bound)) {
            Cookie::Good
        } else {
            Cookie::OtherAddress
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_95_seconds() {
        let origin = start();
        let cookies = Cookies::new([1; 32], origin);
        let [a, b] = ["192.0.2.1:1", "192.0.2.1:2"].map(|text| text.parse().unwrap());
        let at = origin + Duration::from_secs(1000);
        let cookie = cookies.make(a, at);
        assert_eq!(cookies.check(&cookie, a, at), Cookie::Good);
        assert_eq!(
            cookies.check(&cookie, a, at + COOKIE_LIFETIME),
            Cookie::Good
        );
        assert_eq!(cookies.check(&cookie, b, at), Cookie::OtherAddress);
        let late = at + COOKIE_LIFETIME + Duration::from_millis(1);
        assert_eq!(cookies.check(&cookie, a, late), Cookie::Expired);
        assert_eq!(cookies.check(&cookie, b, late), Cookie::Expired);
    }

    #[test]
    fn no_bit_of_a_cookie_can_be_changed() {
        let origin = start();
        let cookies = Cookies::new([1; 32], origin);
        let address = "[2001:db8::1]:1935".parse().unwrap();
        let cookie = cookies.make(address, origin);
        for bit in 0..COOKIE_LEN * 8 {
            let mut changed = cookie;
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < (TIME_LEN + MAC_LEN) * 8 {
                Cookie::Forged
            } else {
                Cookie::OtherAddress
            };
            assert_eq!(cookies.check(&changed, address, origin), expected);
        }
        for len in 0..COOKIE_LEN {
            assert_eq!(
                cookies.check(&cookie[..len], address, origin),
                Cookie::Forged
            );
        }
        let others = Cookies::new([2; 32], origin);
        assert_eq!(others.check(&cookie, address, origin), Cookie::Forged);
    }
}
