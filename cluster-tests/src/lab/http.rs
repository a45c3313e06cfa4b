//! As much of HTTP as asking for a node's health takes.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use super::raw::dial;

/// The status code and the body of a page.
///
/// # Errors
/// When nobody answers, or not in HTTP.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut socket = dial(addr)?;
    // To 1.0 nobody answers in chunks.
    write!(
        socket,
        "GET {path} HTTP/1.0\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    status
        .zip(body)
        .ok_or_else(|| io::Error::other(format!("no HTTP: {answer}")))
}
