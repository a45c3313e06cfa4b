//! A network for tests: hosts with addresses, and links between them that delay, lose
//! and break as a test wants.
//!
//! ```text
//!   namespace o1       namespace o2       namespace e1      this process
//!   198.18.0.1         198.18.0.2         198.18.0.3        198.18.0.4  (here)
//!       eth0               eth0               eth0            selvage0
//!         │ TAP              │ TAP              │ TAP            │ TAP
//!   ┌─────┴──────────────────┴──────────────────┴────────────────┴─────┐
//!   │  the switch: one thread of this process; one wire for each       │
//!   │  ordered pair of hosts                                           │
//!   └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A [`Host`] is a network namespace of the kernel, so what runs on it is the real
//! program over the real TCP. The [`Netlab`] is the wire between them: a frame that one
//! host sends is taken from its interface, judged by the [`Link`] to its recipient, and
//! given to the other's interface when its time has come.
//!
//! ```no_run
//! use std::time::Duration;
//! use selvage_netlab::{Impairment, Netlab};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lab = Netlab::new(7)?;
//! let [o1, o2, o3] = lab.hosts_named(["o1", "o2", "o3"])?;
//! let mut server = o1.command("selvage").arg("origin").spawn()?;
//!
//! lab.set_between(&o1, &o2, &Impairment::delay(Duration::from_millis(25)));
//! lab.link(&o2, &o3).set(Impairment::loss(0.1));
//!
//! lab.partition(&[&[&o1], &[&o2, &o3]]); // a minority
//! lab.cut(&o1, &o2); //                     one way
//! lab.isolate(&o3);
//! lab.heal();
//!
//! let here = lab.here()?; // this process' own sockets reach o1.addr()
//! lab.cut_between(&here, &o1);
//! # server.kill()?;
//! # Ok(())
//! # }
//! ```
//!
//! # What can be relied on
//!
//! * The fate of the n-th frame on a link follows from the seed, the two names and the
//!   link's rules, whatever happens elsewhere. Which packet is the n-th is up to the kernel's
//!   clock; a run cannot be repeated bit by bit, its chances can.
//! * A link keeps the order of frames, also with jitter, unless it is told to reorder.
//! * A cut loses what is on its way. Nobody is told: connections hang, as they do when a
//!   cable is pulled far away.
//! * Frames that only find addresses (ARP, IPv6 neighbour discovery) pass at once and
//!   through every cut. Otherwise a link that is cut one way would be cut both ways as soon as
//!   addresses are forgotten, and a partition would be answered with "no route to host" after
//!   three seconds. Real clusters lie behind routers, where neither happens.
//! * Queues are bounded: a link with a rate drops what its queue has no room for, and no
//!   link holds more than [`limits::IN_FLIGHT_BYTES_MAX`].
//! * Hosts behind a translator of addresses ([`Netlab::translate`]) send and get UDP over IPv4,
//!   and nothing else, but among themselves. Whoever is outside knows its address only.
//! * Broadcast and multicast reach every host whose link lets them.
//!
//! # What it costs
//!
//! Two cores, optimised, MTU 1500 (`examples/measure.rs`):
//!
//! | delay each way | round trip: least, middle, most of 100 | TCP        |
//! |----------------|----------------------------------------|------------|
//! | none           | 0.04, 0.05, 3 ms                       | 680 Mbit/s |
//! | 1 ms           | 2.2, 2.3, 7 ms                         | 606 Mbit/s |
//! | 25 ms          | 50.3, 50.5, 73 ms                      | 251 Mbit/s |
//! | 50 ms          | 100.4, 100.5, 114 ms                   | 155 Mbit/s |
//!
//! With a delay it is TCP's own window, which grows while three seconds pass, that limits.
//! A rate of 20 Mbit/s gives TCP 19.1. A lab of five hosts is made in 80 ms. A delay is
//! never cut short; it is exceeded when the switch's thread has to wait for a core.
//!
//! # What it needs
//!
//! Root, or a user namespace in which one is root (`cluster-tests/netlab/rootless COMMAND`);
//! /dev/net/tun; the programs `ip` and `nsenter`. A kernel without netem is enough. When
//! something is missing, [`Netlab::new`] or [`Netlab::host`] says what.
//!
//! Labs do not disturb each other: each has a number, held by a lock on a file in
//! /run/selvage-netlab that ends with the process, and its own /24 network and names
//! (`selvage-<number>-<host>`). A lab that is dropped leaves nothing behind; what a killed
//! process left is cleared away by the next lab.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "tests fail by panicking"
    )
)]

mod dice;
mod error;
mod host;
mod lab;
pub mod limits;
mod link;
mod nat;
mod switch;
mod system;
mod wires;

pub use error::Error;
pub use host::Host;
pub use lab::Netlab;
pub use link::{Impairment, Link, LinkStats};
pub use nat::Nat;
pub use wires::Wire;
