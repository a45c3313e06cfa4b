//! Measures how many startups one core answers in a second, for each group.
//!
//! `cargo run --release -p selvage-rtmfp --example handshakes`
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement"
)]

use std::time::{Duration, Instant};

use rtmfp::chunk::InitiatorKeying;
use rtmfp::crypto::identity::Identity;
use rtmfp::crypto::keying::{Initiation, Policy};
use rtmfp::crypto::{Group, KeyPair};
use rtmfp::startup::{Cookie, Cookies, answer};
use selvage_rtmfp as rtmfp;

fn main() {
    let mut state = 1_u64;
    let mut entropy = move |out: &mut [u8]| {
        for byte in out {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
    };
    let from = "192.0.2.1:5000".parse().unwrap();
    for group in Group::ALL {
        let pair = KeyPair::generate(group, &mut entropy).unwrap();
        let is_static = Identity::with_static_keys(vec![pair], true, None).unwrap();
        let ephemeral = Identity::ephemeral(&[group], true, None, &mut entropy).unwrap();
        let client = Identity::ephemeral(&[group], false, None, &mut entropy).unwrap();
        for (name, server) in [("static", is_static), ("ephemeral", ephemeral)] {
            let far = server.certificate();
            let begun =
                Initiation::new(&client, &far, group, Policy::ALWAYS, &mut entropy).unwrap();
            let begin = Instant::now();
            let cookies = Cookies::new([1; 32], begin);
            let cookie = cookies.make(from, begin);
            let request = InitiatorKeying {
                session: 1,
                cookie: &cookie,
                certificate: client.as_bytes(),
                component: begun.component(),
                signature: b"X",
            };
            let mut count = 0_u32;
            while begin.elapsed() < Duration::from_secs(1) {
                assert_eq!(cookies.check(request.cookie, from, begin), Cookie::Good);
                let policy = Policy::MIRROR;
                let (opened, _) =
                    answer(&request, from, &server, 2, &policy, &mut entropy).unwrap();
                std::hint::black_box(opened.keys.suite());
                count += 1;
            }
            let rate = f64::from(count) / begin.elapsed().as_secs_f64();
            println!("group {:2} {name:9} {rate:6.0} handshakes/s", group.id());
        }
    }
}
