//! Unsigned integers of variable length (RFC 7016 §2.1.2).
//!
//! Seven bits a byte, most significant first; the high bit says that another byte follows.

/// The most bytes a number takes: 64 bits in groups of seven.
pub const LEN_MAX: usize = 10;

/// The number at the front of `bytes`, and how many bytes it takes. Leading zero digits
/// are allowed, as the specification does not forbid them.
///
/// Nothing when `bytes` ends inside the number, when the number takes more than
/// [`LEN_MAX`] bytes or when it does not fit 64 bits.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(LEN_MAX).enumerate() {
        if value >> 57 != 0 {
            return None;
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

/// How many bytes `value` takes, 1 to [`LEN_MAX`].
#[must_use]
pub const fn len(value: u64) -> usize {
    let bits = 64 - value.leading_zeros() as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

/// Writes `value` to the front of `out` in as few bytes as there can be. Returns how many,
/// or nothing when `out` is too short; `out` is then as it was.
#[must_use]
pub fn write(value: u64, out: &mut [u8]) -> Option<usize> {
    let len = len(value);
    let out = out.get_mut(..len)?;
    let mut rest = value;
    for (from_end, byte) in out.iter_mut().rev().enumerate() {
        let more = if from_end == 0 { 0 } else { 0x80 };
        *byte = (rest & 0x7f) as u8 | more;
        rest >>= 7;
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn both_ways(value: u64, wire: &[u8]) {
        let mut out = [0; LEN_MAX];
        let len = write(value, &mut out).unwrap();
        assert_eq!(&out[..len], wire);
        assert_eq!(parse(wire), Some((value, wire.len())));
    }

    #[test]
    fn numbers_are_written_most_significant_digit_first() {
        both_ways(0, &[0]);
        both_ways(127, &[0x7f]);
        both_ways(128, &[0x81, 0x00]);
        both_ways(16_383, &[0xff, 0x7f]);
        both_ways(16_384, &[0x81, 0x80, 0x00]);
        both_ways(1 << 32, &[0x90, 0x80, 0x80, 0x80, 0x00]);
        both_ways(
            u64::MAX,
            &[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        );
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        let mut wire = [0xff; 10];
        wire[9] = 0x7f;
        wire[0] = 0x82;
        assert_eq!(parse(&wire), None);
        assert_eq!(parse(&[0x80; 11]), None);
        let mut eleven = [0x80; 11];
        eleven[10] = 1;
        assert_eq!(parse(&eleven), None, "eleven bytes, though the value is 1");
    }

    #[test]
    fn leading_zero_digits_are_read() {
        assert_eq!(parse(&[0x80, 0x80, 0x05, 9]), Some((5, 3)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value: u64) {
            let mut out = [0; LEN_MAX];
            let written = write(value, &mut out).unwrap();
            prop_assert_eq!(written, len(value));
            prop_assert_eq!(parse(&out[..written]), Some((value, written)));
            prop_assert_eq!(parse(&out[..written - 1]), None);
            prop_assert_eq!(write(value, &mut out[..written - 1]), None);
        }
    }
}
