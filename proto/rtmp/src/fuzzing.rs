//! Bodies of the fuzz targets, replayed over the committed corpora by an ordinary test.
//!
//! Each holds the input against what must always be true: how a stream is cut does not
//! matter, memory follows what was received, and what was read can be written and read
//! again.

use bytes::{Bytes, BytesMut};

use crate::message::Message;
use crate::{Carrier, Error, chunk, handshake, limits};

/// Arbitrary bytes from the first one of a connection, to both roles.
pub fn handshake(data: &[u8]) {
    hold_together(|| Carrier::server(1), data);
    hold_together(|| Carrier::client(1), data);
}

/// Arbitrary bytes behind the handshake.
pub fn chunk(data: &[u8]) {
    let messages = hold_together(Carrier::opened, data);
    write_and_read(&messages, 1 + u32::from(data.first().copied().unwrap_or(0)));
}

/// A carrier that needs no handshake, for benches and tests of other crates.
#[must_use]
pub fn opened() -> Carrier {
    Carrier::opened()
}

/// What came of some bytes. Acknowledgements are not in it: their number depends on how
/// the bytes were cut.
#[derive(Debug, PartialEq)]
struct Outcome {
    messages: Vec<Message>,
    greeting: Vec<u8>,
    kind: Option<handshake::Kind>,
    error: Option<Error>,
    ignored: u64,
}

fn hold_together(make: impl Fn() -> Carrier, data: &[u8]) -> Vec<Message> {
    let whole = feed(make(), data, &[usize::MAX]);
    assert_eq!(feed(make(), data, &[1]), whole, "byte by byte");
    assert_eq!(
        feed(make(), data, &[1, 2, 3, 5, 7, 11, 600, 1460]),
        whole,
        "cut in parts"
    );
    whole.messages
}

fn feed(mut carrier: Carrier, data: &[u8], cuts: &[usize]) -> Outcome {
    let mut cuts = cuts.iter().cycle();
    let (mut input, mut rest) = (BytesMut::new(), data);
    let (mut messages, mut greeting) = (Vec::new(), Vec::new());
    let mut error = None;
    while !rest.is_empty() && error.is_none() {
        let (now, later) = rest.split_at(cuts.next().map_or(1, |cut| rest.len().min(*cut)));
        rest = later;
        input.extend_from_slice(now);
        error = carrier.handle_bytes(&mut input).err();
        messages.extend(std::iter::from_fn(|| carrier.poll_message()));
        while let Some(bytes) = carrier.poll_transmit() {
            greeting.extend_from_slice(&bytes);
        }
        assert_eq!(carrier.transmit_len(), 0);
        assert!(carrier.bytes_held() <= limits::ASSEMBLY_BYTES_MAX);
        assert!(carrier.bytes_held() as u64 <= carrier.bytes_received());
        let kept = if carrier.is_open() { 18 } else { 1536 };
        assert!(
            error.is_some() || input.len() < kept,
            "{} bytes left behind",
            input.len()
        );
    }
    if error.is_some() {
        assert_eq!(
            carrier.handle_bytes(&mut input).err(),
            error,
            "an error is final"
        );
    }
    greeting.truncate(limits::HANDSHAKE_BYTES);
    if carrier.handshake().is_none() && carrier.is_open() {
        greeting.clear();
    }
    Outcome {
        messages,
        greeting,
        kind: carrier.handshake(),
        error,
        ignored: carrier.ignored(),
    }
}

fn write_and_read(messages: &[Message], chunk_size: u32) {
    let (mut writer, mut reader) = (Carrier::opened(), Carrier::opened());
    writer.set_chunk_size(chunk_size);
    let mut expected = BytesMut::new();
    while let Some(bytes) = writer.poll_transmit() {
        expected.extend_from_slice(&bytes);
    }
    let mut wire = expected.clone();
    for message in messages {
        writer.write_message(message);
        let Message {
            kind,
            stream,
            time,
            ref payload,
        } = *message;
        let before = expected.len();
        chunk::image(kind, stream, time, payload, chunk_size, &mut expected);
        assert_eq!(
            expected.len() - before,
            chunk::image_len(time, payload.len(), chunk_size)
        );
    }
    while let Some(bytes) = writer.poll_transmit() {
        wire.extend_from_slice(&bytes);
    }
    assert_eq!(wire, expected, "an image is what a writer writes");
    assert_eq!(reader.handle_bytes(&mut wire), Ok(()));
    assert!(wire.is_empty());
    for message in messages {
        assert_eq!(reader.poll_message().as_ref(), Some(message));
    }
    assert_eq!(reader.poll_message(), None);
    let _: Option<Bytes> = reader.poll_transmit();
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../fuzz/corpus")
            .join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
            run(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 10, "only {count} files in {}", folder.display());
    }

    #[test]
    fn the_handshake_corpus_holds() {
        replay("handshake", super::handshake);
    }

    #[test]
    fn the_chunk_corpus_holds() {
        replay("chunk", super::chunk);
    }
}
