//! What the fuzz target `proxy` does with its input, here so that ordinary tests replay its
//! corpus.

use crate::{Parsed, V1_MAX, V2_BODY_MAX, parse};

/// Reads a header from the beginning of the input, as it would come from a socket, and checks
/// what must hold for any bytes: there is an end, nothing beyond the header is wanted, and what
/// follows changes nothing of what was decided.
///
/// # Panics
/// If something does not hold.
pub fn run(input: &[u8]) {
    let (mut have, mut reads) = (0, 0);
    loop {
        match parse(&input[..have]) {
            Ok(Parsed::Wants(len)) => {
                assert!(len > have, "{have} bytes are there, and {len} are wanted");
                assert!(len <= 16 + V2_BODY_MAX, "{len} bytes are wanted");
                reads += 1;
                assert!(reads <= V1_MAX, "a header takes {reads} reads");
                if len > input.len() {
                    return;
                }
                have = len;
            }
            decided => {
                assert_eq!(parse(input), decided, "what follows matters");
                if decided.is_ok() {
                    for less in 0..have {
                        let before = parse(&input[..less]);
                        assert!(
                            matches!(before, Ok(Parsed::Wants(len)) if len > less && len <= have),
                            "{less} of {have} bytes are {before:?}"
                        );
                    }
                }
                return;
            }
        }
    }
}
