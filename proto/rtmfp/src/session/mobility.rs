//! A far end whose address changes (RFC 7016 §3.5.3, §3.5.4.2).
//!
//! Nothing is sent to a new address but one small ping at a time, which only the holder of
//! the session's keys at that address can answer. The ping says what it is, when it was
//! sent, and a code over that and the address: nothing has to be remembered to know it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The message of a ping that checks an address: a mark, when it was sent in milliseconds
/// of this end's clock, and a code.
pub(super) const CHECK_LEN: usize = 1 + 8 + CODE_LEN;

const MARK: u8 = b'M';
const CODE_LEN: usize = 16;

/// No more than one check in this time, whatever comes from other addresses.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A check that is not answered goes out again after this, so that one loss does not cost
/// the far end until its next keepalive.
const REPEAT_AFTER: Duration = Duration::from_millis(300);

/// So often a check is sent to one address.
const REPEATS: u8 = 4;

/// An answer that took longer is none.
const GOOD_FOR: Duration = Duration::from_secs(120);

/// The state of one session's address.
#[derive(Debug)]
pub(super) struct Mobility {
    secret: [u8; 32],
    origin: Instant,
    /// When the last check of a newly seen address was begun.
    begun: Option<Instant>,
    /// The newest check that was answered, in milliseconds.
    answered: Option<u64>,
    checking: Option<Checking>,
}

#[derive(Clone, Copy, Debug)]
struct Checking {
    address: SocketAddr,
    due: Instant,
    left: u8,
}

impl Mobility {
    pub(super) const fn new(secret: [u8; 32], origin: Instant) -> Self {
        Self {
            secret,
            origin,
            begun: None,
            answered: None,
            checking: None,
        }
    }

    /// A valid packet came from an address that is not the far end's.
    pub(super) fn handle_stranger(&mut self, from: SocketAddr, now: Instant) {
        let recently = self
            .begun
            .is_some_and(|begun| now.saturating_duration_since(begun) < CHECK_EVERY);
        let being_checked = self.checking.is_some_and(|check| check.address == from);
        if !recently && !being_checked {
            self.begun = Some(now);
            self.checking = Some(Checking {
                address: from,
                due: now,
                left: REPEATS,
            });
        }
    }

    /// When a check is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.checking.map(|check| check.due)
    }

    /// The check that is due: where to send it, and the message of the ping.
    pub(super) fn poll_check(&mut self, now: Instant) -> Option<(SocketAddr, [u8; CHECK_LEN])> {
        let check = self.checking.as_mut().filter(|check| check.due <= now)?;
        let address = check.address;
        check.due = now + REPEAT_AFTER;
        check.left -= 1;
        if check.left == 0 {
            self.checking = None;
        }
        let mut message = [0; CHECK_LEN];
        message[0] = MARK;
        message[1..9].copy_from_slice(&self.millis(now).to_be_bytes());
        let code = self.code(&message[..9], address);
        message[9..].copy_from_slice(&code[..CODE_LEN]);
        Some((address, message))
    }

    /// A ping's reply came. Says whether it proves that the far end is at `from`.
    pub(super) fn handle_reply(&mut self, message: &[u8], from: SocketAddr, now: Instant) -> bool {
        let Some((head, code)) = message.split_at_checked(9) else {
            return false;
        };
        let Some((&MARK, sent)) = head.split_first() else {
            return false;
        };
        let Ok(sent) = sent.try_into().map(u64::from_be_bytes) else {
            return false;
        };
        let right = code.len() == CODE_LEN
            && self.mac(head, from).verify_truncated_left(code).is_ok()
            && sent <= self.millis(now)
            && u128::from(self.millis(now) - sent) <= GOOD_FOR.as_millis()
            && self.answered.is_none_or(|answered| answered < sent);
        if right {
            self.answered = Some(sent);
            self.checking = None;
        }
        right
    }

    fn millis(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.origin);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn mac(&self, head: &[u8], address: SocketAddr) -> Hmac<Sha256> {
        // A key that is shorter than the hash's block is padded with zeros (RFC 2104 §2).
        let mut block = [0; 64];
        block[..self.secret.len()].copy_from_slice(&self.secret);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(head);
        match address.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&address.port().to_be_bytes());
        mac
    }

    fn code(&self, head: &[u8], address: SocketAddr) -> [u8; 32] {
        self.mac(head, address).finalize().into_bytes().into()
    }
}
