//! What a process says on standard output: which addresses it got.
//!
//! The lines are for machines: tests and scripts that gave a listener port 0 read them. Everything
//! for people goes to the log, on standard error.
//!
//! ```text
//! listening node=edge-0 what=rtmp addr=127.0.0.1:1935
//! ```

use std::fmt::Display;
use std::io::{self, Write};

/// One listener as it was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The node that listens, such as `edge-0`.
    pub node: String,
    /// What it listens for, such as `rtmp`.
    pub what: String,
    /// The address it got, with the port that the system chose.
    pub addr: String,
}

impl Listening {
    /// Reads a line of standard output. None when it is another line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("listening") {
            return None;
        }
        let mut field = |name: &str| {
            words
                .next()?
                .strip_prefix(name)?
                .strip_prefix('=')
                .map(str::to_owned)
        };
        Some(Self {
            node: field("node")?,
            what: field("what")?,
            addr: field("addr")?,
        })
    }
}

/// Announces a listener on standard output, at once.
///
/// A process whose standard output is closed serves all the same, so failures are ignored.
pub fn listening(node: impl Display, what: impl Display, addr: impl Display) {
    let _ = announce(&mut io::stdout().lock(), &node, &what, &addr);
}

fn announce(
    to: &mut impl Write,
    node: &dyn Display,
    what: &dyn Display,
    addr: &dyn Display,
) -> io::Result<()> {
    // One write, so that lines of several threads never mix.
    to.write_all(format!("listening node={node} what={what} addr={addr}\n").as_bytes())?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_line_is_read_back() {
        let mut line = Vec::new();
        announce(&mut line, &"edge-0", &"rtmp", &"[::1]:1935").unwrap();
        let line = String::from_utf8(line).unwrap();
        assert_eq!(line, "listening node=edge-0 what=rtmp addr=[::1]:1935\n");
        let listening = Listening::parse(&line).unwrap();
        assert_eq!(
            listening,
            Listening {
                node: "edge-0".into(),
                what: "rtmp".into(),
                addr: "[::1]:1935".into()
            }
        );
    }

    #[test]
    fn other_lines_are_not_announcements() {
        for line in [
            "",
            "listening",
            "listening node=a what=b",
            "hello node=a what=b addr=c",
        ] {
            assert_eq!(Listening::parse(line), None, "{line:?}");
        }
    }
}
