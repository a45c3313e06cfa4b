//! The PROXY protocol, versions 1 and 2: who a client is whose connection a load balancer
//! carries.
//!
//! The parser is a function of the bytes that have come. It says how many it wants in all, never
//! more than the header has, so that what follows the header is not touched: TLS, or RTMP.
//!
//! What a header may add beside the addresses (TLV) is passed over.
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>

#[doc(hidden)]
pub mod fuzzing;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of a header of version 1, at most: two IPv6 addresses and ports, and the line's end
/// (§2.1).
pub const V1_MAX: usize = 107;

/// Bytes that follow the fixed part of a header of version 2, at most. Two paths of Unix sockets
/// take 216; the rest is for what load balancers add, of which a certificate's name is the
/// longest.
pub const V2_BODY_MAX: usize = 4096;

const V1: &[u8] = b"PROXY ";
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;

/// The shortest line: `PROXY UNKNOWN` and its end.
const V1_MIN: usize = 15;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header: so many bytes are wanted in all.
    Wants(usize),
    /// A header.
    Whole(Source),
}

/// On whose behalf a connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// On that of who made it, such as a load balancer that looks whether we are well, or of
    /// somebody whose address it cannot tell (`LOCAL`, `UNKNOWN`).
    Itself,
    /// On that of this client.
    Client(SocketAddr),
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is none.
    #[error("the connection begins with no PROXY header")]
    None,
    /// A line that is not as the protocol has it.
    #[error("the PROXY line is malformed")]
    Line,
    /// A version, command, family or transport that the protocol does not have.
    #[error("the PROXY header has an unknown {0}")]
    Unknown(&'static str),
    /// The addresses do not fit into what follows.
    #[error("the PROXY header is too short for its addresses")]
    Short,
    /// It is longer than anything that is needed.
    #[error("the PROXY header has {0} bytes, at most {V2_BODY_MAX} are taken")]
    Long(usize),
}

/// Looks at what has come.
///
/// # Errors
/// It is no header, or a malformed one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Fault> {
    let begins = |signature: &[u8]| {
        let len = bytes.len().min(signature.len());
        bytes[..len] == signature[..len]
    };
    if begins(V1) {
        if bytes.len() < V1.len() {
            return Ok(Parsed::Wants(V1.len()));
        }
        line(bytes)
    } else if begins(V2) {
        if bytes.len() < V2_FIXED {
            return Ok(Parsed::Wants(V2_FIXED));
        }
        binary(bytes)
    } else {
        Err(Fault::None)
    }
}

/// Reads one word of a line.
type Word<T> = fn(Option<&str>) -> Result<T, Fault>;

/// Version 1 (§2.1).
fn line(bytes: &[u8]) -> Result<Parsed, Fault> {
    let searched = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = searched.windows(2).position(|two| two == b"\r\n") else {
        // No line is longer, and none ends before the shortest; one step is one byte when it
        // can be the line's last.
        let next = bytes.len() + if bytes.ends_with(b"\r") { 1 } else { 2 };
        return if bytes.len() >= V1_MAX {
            Err(Fault::Line)
        } else {
            Ok(Parsed::Wants(next.clamp(V1_MIN, V1_MAX)))
        };
    };
    let text = std::str::from_utf8(&bytes[V1.len()..end]).map_err(|_| Fault::Line)?;
    let mut words = text.split(' ');
    let (source, destination): (IpAddr, Word<IpAddr>) = match words.next() {
        // The rest of the line is nobody's business.
        Some("UNKNOWN") => return Ok(Parsed::Whole(Source::Itself)),
        Some("TCP4") => (ip::<Ipv4Addr>(words.next())?, ip::<Ipv4Addr>),
        Some("TCP6") => (ip::<Ipv6Addr>(words.next())?, ip::<Ipv6Addr>),
        Some(_) | None => return Err(Fault::Unknown("family")),
    };
    // Where the client went is not used, but must be there.
    destination(words.next())?;
    let from = port(words.next())?;
    port(words.next())?;
    if words.next().is_some() {
        return Err(Fault::Line);
    }
    Ok(Parsed::Whole(Source::Client((source, from).into())))
}

fn ip<T: std::str::FromStr + Into<IpAddr>>(text: Option<&str>) -> Result<IpAddr, Fault> {
    word::<T>(text).map(Into::into)
}

fn word<T: std::str::FromStr>(word: Option<&str>) -> Result<T, Fault> {
    word.and_then(|word| word.parse().ok()).ok_or(Fault::Line)
}

/// Digits alone: a number may also be written with a sign.
fn port(text: Option<&str>) -> Result<u16, Fault> {
    let digits = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    word(digits)
}

/// Version 2 (§2.2).
fn binary(bytes: &[u8]) -> Result<Parsed, Fault> {
    let (version, command) = (bytes[12] >> 4, bytes[12] & 15);
    let (family, transport) = (bytes[13] >> 4, bytes[13] & 15);
    let len = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if version != 2 {
        return Err(Fault::Unknown("version"));
    }
    if len > V2_BODY_MAX {
        return Err(Fault::Long(len));
    }
    if bytes.len() < V2_FIXED + len {
        return Ok(Parsed::Wants(V2_FIXED + len));
    }
    let body = &bytes[V2_FIXED..V2_FIXED + len];
    match command {
        0 => return Ok(Parsed::Whole(Source::Itself)),
        1 => {}
        _ => return Err(Fault::Unknown("command")),
    }
    if transport > 2 {
        return Err(Fault::Unknown("transport"));
    }
    let client = match family {
        // Nobody comes to us through these two: who it is cannot be told.
        0 | 3 => return Ok(Parsed::Whole(Source::Itself)),
        1 => body.first_chunk::<12>().map(|body| {
            let [a, b, c, d, .., high, low, _, _] = *body;
            (Ipv4Addr::new(a, b, c, d).into(), [high, low])
        }),
        2 => body.first_chunk::<36>().and_then(|body| {
            let ip = Ipv6Addr::from(*body.first_chunk::<16>()?);
            Some((IpAddr::from(ip), [body[32], body[33]]))
        }),
        _ => return Err(Fault::Unknown("family")),
    };
    let (ip, port): (IpAddr, _) = client.ok_or(Fault::Short)?;
    let port = u16::from_be_bytes(port);
    Ok(Parsed::Whole(Source::Client((ip, port).into())))
}

#[cfg(test)]
mod tests;
