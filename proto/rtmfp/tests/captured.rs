//! Packets of independent endpoints: all are read, and written again to the same bytes.

use rtmfp::chunk::{Chunk, kind};
use rtmfp::option::Opt;
use rtmfp::packet::{Packet, PacketWriter};
use selvage_rtmfp as rtmfp;

fn hex(text: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs.map(|pair| u8::from_str_radix(pair, 16)).collect()
}

fn name(chunk: &Chunk<'_>) -> &'static str {
    match chunk.kind() {
        kind::INITIATOR_HELLO => "IHello",
        kind::FORWARDED_HELLO => "FIHello",
        kind::RESPONDER_HELLO => "RHello",
        kind::REDIRECT => "Redirect",
        kind::INITIATOR_KEYING => "IIKeying",
        kind::RESPONDER_KEYING => "RIKeying",
        kind::USER_DATA => "UserData",
        kind::NEXT_USER_DATA => "NextUserData",
        kind::ACK_RANGES => "AckRanges",
        _ => "another",
    }
}

#[test]
fn captured_packets_are_read_and_written_again() {
    let text = include_str!("vectors/packets.txt");
    let mut count = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (expected, wire) = line.split_once(' ').unwrap();
        let wire = hex(wire).unwrap();
        let packet = Packet::parse(&wire).unwrap();
        let mut chunks = packet.chunks();
        let all: Vec<_> = chunks.by_ref().collect();
        assert_eq!(chunks.skipped(), 0, "{line}");

        let mut buffer = vec![0; wire.len()];
        let mut again = PacketWriter::new(&mut buffer, &packet.header).unwrap();
        let mut read = String::new();
        for chunk in &all {
            let before = again.room();
            again.chunk(chunk).unwrap();
            read += &format!("{}({})", name(chunk), before - again.room() - 3);
        }
        assert_eq!(read, expected);
        let len = again.finish();
        assert_eq!(buffer[..len], wire[..len]);
        assert!(
            wire[len..].iter().all(|byte| *byte == 0xff),
            "only padding is left"
        );
        count += 1;
    }
    assert!(count > 100, "{count} packets");
}

#[test]
fn captured_flows_name_their_metadata_and_association() {
    let text = include_str!("vectors/packets.txt");
    let mut options = Vec::new();
    for line in text
        .lines()
        .filter(|line| line.starts_with("UserData(263)"))
    {
        let wire = hex(line.split_once(' ').unwrap().1).unwrap();
        let packet = Packet::parse(&wire).unwrap();
        for chunk in packet.chunks() {
            if let Chunk::UserData(data) = chunk {
                options.extend(
                    data.options
                        .into_iter()
                        .flatten()
                        .map(|Opt { kind, value }| (kind, value.to_vec())),
                );
            }
        }
    }
    assert_eq!(options[0], (rtmfp::option::METADATA, b"TC\x04\0".to_vec()));
}
