use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn pair(verification: Verification) -> (Sealer, Opener) {
    let (key, hmac_key) = (&[3; 16], &[4; 32]);
    (
        Sealer::new(key, hmac_key, verification),
        Opener::new(key, hmac_key, verification),
    )
}

fn sealed(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; plain.len() + 80];
    let head = sealer.head_len();
    packet[head..head + plain.len()].copy_from_slice(plain);
    let len = sealer.seal(&mut packet, plain.len()).unwrap();
    packet.truncate(len);
    packet
}

const BOTH: Verification = Verification {
    hmac_len: Some(10),
    sequence: true,
};

#[test]
fn the_checksum_is_that_of_the_internet() {
    // The example of RFC 1071 §3.
    assert_eq!(
        checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
        !0xddf2
    );
    assert_eq!(checksum(&[]), 0xffff);
    assert_eq!(checksum(&[0x12]), !0x12, "a byte left over is the low half");
}

#[test]
fn every_changed_bit_is_noticed() {
    for verification in [Verification::CHECKSUM, BOTH] {
        let (mut sealer, opener) = pair(verification);
        let packet = sealed(&mut sealer, b"\x0d\0\x01\x01\0\0plain packet of two blocks");
        for bit in 0..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(opener.clone().open(&mut changed).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_packet_cut_anywhere_is_refused() {
    for verification in [Verification::CHECKSUM, BOTH] {
        let (mut sealer, opener) = pair(verification);
        let packet = sealed(&mut sealer, b"\x0d\0\x01\x01\0\0plain packet of two blocks");
        for len in 0..packet.len() {
            let mut cut = packet[..len].to_vec();
            assert!(opener.clone().open(&mut cut).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn a_packet_is_opened_once_when_numbered() {
    let (mut sealer, mut opener) = pair(BOTH);
    let packets: Vec<_> = (0..5).map(|n| sealed(&mut sealer, &[0x0d, n])).collect();
    for n in [0, 2, 1, 4, 3] {
        assert!(opener.open(&mut packets[n].clone()).is_ok());
    }
    for (n, packet) in packets.iter().enumerate() {
        let sequence = n as u64;
        assert_eq!(
            opener.open(&mut packet.clone()),
            Err(Error::Replayed { sequence })
        );
    }
}

#[test]
fn a_forged_packet_does_not_move_the_window() {
    let (mut sealer, mut opener) = pair(BOTH);
    let first = sealed(&mut sealer, b"\x0d");
    let mut far = pair(BOTH).0;
    far.sequence = Some(1 << 40);
    let mut forged = sealed(&mut far, b"\x0d");
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(opener.open(&mut forged), Err(Error::NotAuthentic));
    assert!(opener.open(&mut first.clone()).is_ok());
}

#[test]
fn numbers_beyond_32_bits_go_on() {
    let (mut sealer, mut opener) = pair(BOTH);
    sealer.sequence = Some((1 << 32) - 2);
    for _ in 0..4 {
        let mut packet = sealed(&mut sealer, b"\x0d");
        assert!(opener.open(&mut packet).is_ok());
    }
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(
        plain in vec(any::<u8>(), 1..200),
        hmac_len in option::of(4..=32_u8),
        sequence: bool,
        slack in 0..40_usize,
    ) {
        let verification = Verification { hmac_len, sequence };
        let (mut sealer, mut opener) = pair(verification);
        let mut packet = sealed(&mut sealer, &plain);
        // As much as fits a packet, and not a byte more.
        let (fresh, _) = pair(verification);
        let max = fresh.plain_max(packet.len() + slack % 16);
        prop_assert!(max >= plain.len() && max < plain.len() + 16);
        let opened = opener.open(&mut packet).unwrap();
        let (data, padding) = opened.split_at(plain.len());
        prop_assert_eq!(data, &plain);
        prop_assert!(padding.len() < 16 && padding.iter().all(|byte| *byte == 0xff));
    }

    #[test]
    fn whatever_comes_is_opened_without_harm(bytes in vec(any::<u8>(), 0..100)) {
        for verification in [Verification::CHECKSUM, BOTH] {
            let _ = pair(verification).1.open(&mut bytes.clone());
        }
    }
}
