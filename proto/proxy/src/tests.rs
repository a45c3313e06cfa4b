use proptest::prelude::*;

use super::*;

fn whole(bytes: &[u8]) -> Source {
    match parse(bytes) {
        Ok(Parsed::Whole(source)) => source,
        other => panic!("{other:?}"),
    }
}

fn client(text: &str) -> Source {
    Source::Client(text.parse().unwrap())
}

fn binary_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&V2[..], &[0x20 | command, family], &len, body].concat()
}

#[test]
fn a_line_says_who_the_client_is() {
    let four = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 1935\r\n";
    assert_eq!(whole(four), client("203.0.113.7:56324"));
    let six = b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n";
    assert_eq!(whole(six), client("[2001:db8::7]:56324"));
    assert_eq!(whole(b"PROXY UNKNOWN\r\n"), Source::Itself);
    let rest = b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n";
    assert_eq!(whole(rest), Source::Itself);
    let longest = format!(
        "PROXY UNKNOWN {} {} 65535 65535\r\n",
        "f".repeat(39),
        "f".repeat(39)
    );
    assert!(longest.len() <= V1_MAX);
    assert_eq!(whole(longest.as_bytes()), Source::Itself);
}

#[test]
fn a_line_that_is_not_as_it_must_be_is_refused() {
    for wrong in [
        "PROXY TCP4 203.0.113.7 192.0.2.1 56324\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 56324 1935 1\r\n",
        "PROXY TCP4  203.0.113.7 192.0.2.1 56324 1935\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 +5632 1935\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 65536 1935\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 56324 1935\r\n",
        "PROXY TCP6 203.0.113.7 192.0.2.1 56324 1935\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 \u{0} 1935\r\n",
    ] {
        assert_eq!(parse(wrong.as_bytes()), Err(Fault::Line), "{wrong:?}");
    }
    let udp = b"PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n";
    assert_eq!(parse(udp), Err(Fault::Unknown("family")));
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    assert_eq!(parse(&endless), Err(Fault::Line));
    assert_eq!(parse(&endless[..V1_MAX]), Err(Fault::Line));
}

#[test]
fn a_binary_header_says_who_the_client_is() {
    let four = [203, 0, 113, 7, 192, 0, 2, 1, 0xdc, 0x04, 0x07, 0x8f];
    assert_eq!(
        whole(&binary_header(1, 0x11, &four)),
        client("203.0.113.7:56324")
    );
    let mut six = [0; 36];
    six[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    (six[15], six[32], six[33]) = (7, 0xdc, 0x04);
    assert_eq!(
        whole(&binary_header(1, 0x21, &six)),
        client("[2001:db8::7]:56324")
    );
    // What follows the addresses is passed over.
    let more = [&four[..], &[0x03, 0, 4, 1, 2, 3, 4], &[0xee; 9]].concat();
    assert_eq!(
        whole(&binary_header(1, 0x11, &more)),
        client("203.0.113.7:56324")
    );
    for (command, family, body) in [
        (0, 0x00, &[][..]),
        (0, 0x11, &four),
        (1, 0x00, &[1, 2, 3]),
        (1, 0x31, &[0; 216]),
    ] {
        assert_eq!(whole(&binary_header(command, family, body)), Source::Itself);
    }
}

#[test]
fn a_binary_header_that_is_not_as_it_must_be_is_refused() {
    let mut version = binary_header(1, 0x11, &[0; 12]);
    version[12] = 0x11;
    assert_eq!(parse(&version), Err(Fault::Unknown("version")));
    let refused = |command, family, body: &[u8]| parse(&binary_header(command, family, body));
    assert_eq!(refused(2, 0x11, &[0; 12]), Err(Fault::Unknown("command")));
    assert_eq!(refused(1, 0x41, &[0; 12]), Err(Fault::Unknown("family")));
    assert_eq!(refused(1, 0x13, &[0; 12]), Err(Fault::Unknown("transport")));
    assert_eq!(refused(1, 0x11, &[0; 11]), Err(Fault::Short));
    assert_eq!(refused(1, 0x21, &[0; 35]), Err(Fault::Short));
    let long = binary_header(0, 0, &[0; V2_BODY_MAX + 1]);
    assert_eq!(parse(&long[..V2_FIXED]), Err(Fault::Long(V2_BODY_MAX + 1)));
}

#[test]
fn what_begins_otherwise_is_no_header() {
    for other in [
        &b"\x03"[..],
        b"GET / HTTP/1.1",
        b"\x16\x03\x01",
        b"PROXI",
        b"\r\n\r\n\0\r\nQUIX",
    ] {
        assert_eq!(parse(other), Err(Fault::None), "{other:?}");
    }
    assert_eq!(parse(b""), Ok(Parsed::Wants(V1.len())));
}

proptest! {
    /// Whatever comes, in whatever pieces: there is an end, nothing beyond it is wanted, and
    /// more bytes change nothing of what was decided.
    #[test]
    fn any_bytes_are_judged_within_the_bounds(
        begin in 0..3_usize,
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let begin = [&b""[..], V1, &V2[..]][begin];
        let bytes = [begin, &rest].concat();
        let mut have = 0;
        loop {
            match parse(&bytes[..have]) {
                Ok(Parsed::Wants(len)) => {
                    prop_assert!(len > have && len <= V2_FIXED + V2_BODY_MAX);
                    if len > bytes.len() {
                        break;
                    }
                    have = len;
                }
                Ok(Parsed::Whole(source)) => {
                    prop_assert_eq!(parse(&bytes), Ok(Parsed::Whole(source)));
                    for less in 0..have {
                        prop_assert!(matches!(parse(&bytes[..less]), Ok(Parsed::Wants(_))));
                    }
                    break;
                }
                Err(fault) => {
                    prop_assert_eq!(parse(&bytes), Err(fault));
                    break;
                }
            }
        }
    }

    #[test]
    fn every_address_is_read_as_it_was_written(source: SocketAddr, to: SocketAddr) {
        let family = |addr: &SocketAddr| if addr.is_ipv4() { "TCP4" } else { "TCP6" };
        prop_assume!(family(&source) == family(&to));
        let (from, at) = (source.ip(), to.ip());
        let line = format!(
            "PROXY {} {from} {at} {} {}\r\n", family(&source), source.port(), to.port()
        );
        prop_assert_eq!(
            parse(line.as_bytes()),
            Ok(Parsed::Whole(Source::Client((from, source.port()).into())))
        );
    }
}
