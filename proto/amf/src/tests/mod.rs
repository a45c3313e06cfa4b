//! Tests over the whole crate.

mod amf0_vectors;
mod amf3_vectors;
mod command;
mod corpus;
mod hostile;
mod properties;

/// Bytes from hexadecimal digits, as they stand in a specification; white space does not count.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap())
        .collect()
}

/// A length or count of AMF3 as it stands on the wire, with the flag that something follows.
fn follows(count: u32) -> [u8; 4] {
    let number = count << 1 | 1;
    let [a, b, c, d] = [
        number >> 22,
        number >> 15 & 0x7F,
        number >> 8 & 0x7F,
        number & 0xFF,
    ]
    .map(|part| u8::try_from(part).unwrap());
    [a | 0x80, b | 0x80, c | 0x80, d]
}
