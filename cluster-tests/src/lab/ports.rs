//! Addresses for servers that must be known before they start, and after they died.
//!
//! A port that the system chose is free again as soon as its holder is gone, and the system
//! may give it to somebody's outgoing connection before the server is back. So these lie
//! below the range that the system chooses from, each test process begins elsewhere, and none
//! is handed out twice by one process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Linux chooses from 32768 on, unless told otherwise.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// As many addresses of this machine that nobody listens at.
///
/// # Panics
/// When there are none.
#[must_use]
#[track_caller]
pub fn free(count: usize) -> Vec<SocketAddr> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Neighbours among processes lie far apart.
    let start = std::process::id().wrapping_mul(7_919);
    let mut found = Vec::new();
    for _ in 0..COUNT {
        if found.len() == count {
            return found;
        }
        let place = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + place).expect("the range ends below 65536");
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            found.push(addr);
        }
    }
    panic!("only {} of {count} ports are free", found.len());
}
