//! Which origin owns a stream: rendezvous hashing.
//!
//! Every edge that sees the same set of origins finds the same owner without asking
//! anybody, and when an origin comes or goes only its own streams move. Edges that
//! disagree about the set disagree about owners until they see the same set again; the
//! promise of one publisher per name holds while they agree (ARCHITECTURE.md).

use model::{OriginId, StreamKey};

/// The owner of `key` among `origins`; `None` when there are none.
pub fn owner<'a>(
    key: &StreamKey,
    origins: impl IntoIterator<Item = &'a OriginId>,
) -> Option<&'a OriginId> {
    let stream = digest(
        [
            key.at.vhost.as_str(),
            key.at.app.as_str(),
            key.at.instance.as_str(),
            key.name.as_str(),
        ]
        .into_iter(),
    );
    origins.into_iter().max_by_key(|origin| {
        (
            mix(stream ^ digest(std::iter::once(origin.as_str()))),
            origin.as_str(),
        )
    })
}

/// The order in which an edge tries the addresses of origins, where any will do: edges
/// spread over them, and each prefers the same ones again.
pub(crate) fn preference(edge: &str, address: &str) -> u64 {
    mix(digest([edge].into_iter()) ^ digest([address].into_iter()))
}

/// FNV-1a over the parts, each closed by a byte that no name holds.
fn digest<'a>(parts: impl Iterator<Item = &'a str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain(std::iter::once(0)) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// FNV alone spreads short inputs badly over the high bits that decide a maximum; this
/// is the finaliser of splitmix64.
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AppInstance, AppName, InstanceName, StreamName, VhostName};
    use std::collections::BTreeMap;

    fn key(n: u32) -> StreamKey {
        StreamKey {
            at: AppInstance {
                vhost: VhostName::default_vhost(),
                app: AppName::new("live").unwrap(),
                instance: InstanceName::default_instance(),
            },
            name: StreamName::new(&format!("s{n}")).unwrap(),
        }
    }

    #[test]
    fn streams_spread_evenly_and_only_the_lost_origins_streams_move() {
        let origins: Vec<_> = (0..5)
            .map(|n| OriginId::new(&format!("origin-{n}")).unwrap())
            .collect();
        let mut counts = BTreeMap::new();
        for n in 0..5000 {
            let before = owner(&key(n), &origins).unwrap();
            *counts.entry(before.clone()).or_insert(0) += 1;
            let after = owner(&key(n), &origins[1..]).unwrap();
            if *before != origins[0] {
                assert_eq!(before, after);
            }
        }
        assert_eq!(counts.len(), 5);
        assert!(
            counts.values().all(|n| (800..1200).contains(n)),
            "{counts:?}"
        );
        assert_eq!(owner(&key(1), &[]), None);
    }

    #[test]
    fn every_build_finds_the_same_owner() {
        // Edges of different versions must agree: these are part of the protocol.
        let origins: Vec<_> = (0..3)
            .map(|n| OriginId::new(&format!("origin-{n}")).unwrap())
            .collect();
        let owners: Vec<_> = (0..8)
            .map(|n| owner(&key(n), &origins).unwrap().as_str())
            .collect();
        // Computed by another program from the definition above.
        let expected = [1, 1, 0, 2, 0, 2, 0, 2].map(|n| format!("origin-{n}"));
        assert_eq!(owners, expected);
    }
}
