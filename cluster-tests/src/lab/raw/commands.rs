//! Commands and what answers them, over any carrier.

use std::io;

use super::Message;
use super::amf::{self, Amf};

/// The body of an AMF0 command.
pub(in crate::lab) fn body(name: &str, transaction: f64, args: &[Amf]) -> Vec<u8> {
    let mut body = amf::bytes(&[Amf::text(name), Amf::Number(transaction)]);
    body.extend(amf::bytes(args));
    body
}

/// The values of the `_result` of a transaction; what else is read before is dropped.
///
/// # Errors
/// Those of `read`, or with the text of an `_error`.
pub(in crate::lab) fn result(
    transaction: f64,
    mut read: impl FnMut() -> io::Result<Message>,
) -> io::Result<Vec<Amf>> {
    loop {
        let Some(values) = read()?.command() else {
            continue;
        };
        if values.get(1).and_then(Amf::as_number) != Some(transaction) {
            continue;
        }
        match values.first().and_then(Amf::as_text) {
            Some("_result") => return Ok(values),
            Some("_error") => return Err(io::Error::other(format!("_error: {values:?}"))),
            _ => {}
        }
    }
}

/// The number in the `_result` of `createStream`.
///
/// # Errors
/// There is none that a stream can have.
pub(in crate::lab) fn stream_number(result: &[Amf]) -> io::Result<u32> {
    let number = result.get(3).and_then(Amf::as_number).unwrap_or(0.0);
    format!("{number}").parse().map_err(io::Error::other)
}
