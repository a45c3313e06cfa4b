//! Names of peers.

use std::fmt;
use std::str::FromStr;

/// Who a peer is: the SHA-256 of its certificate (`NetConnection.nearID`, `farID`). It is
/// written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

/// What is no [`PeerId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer's ID has 64 hexadecimal digits")]
pub struct NotAPeerId;

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = NotAPeerId;

    fn from_str(text: &str) -> Result<Self, NotAPeerId> {
        let mut id = [0; 32];
        if text.len() != 2 * id.len() || !text.is_ascii() {
            return Err(NotAPeerId);
        }
        for (byte, at) in id.iter_mut().zip((0..text.len()).step_by(2)) {
            let digits = text.get(at..at + 2).unwrap_or_default();
            // A sign would be taken for a number's.
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(NotAPeerId);
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotAPeerId)?;
        }
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let mut id = PeerId([0xa5; 32]);
        id.0[0] = 0x0f;
        let text = id.to_string();
        assert_eq!(text.len(), 64);
        assert!(text.starts_with("0fa5"));
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
        for wrong in ["", &text[1..], &text.replace("0f", "+f"), &"ä".repeat(32)] {
            assert_eq!(wrong.parse::<PeerId>(), Err(NotAPeerId));
        }
    }
}
