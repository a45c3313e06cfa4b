//! What a machine can check of the architecture: which crate may name which, what the
//! pure crates must not reach, and habits of the source tree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking, in their helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

/// Who may name whom: the arrows of the architecture, for the crates' own code. A crate
/// that is not listed may not exist. Whatever may be named may also be left alone.
const ARROWS: &[(&str, &[&str])] = &[
    // Words and codecs.
    ("model", &[]),
    ("amf", &[]),
    ("rtmp", &[]),
    ("rtmfp", &["rtmp"]),
    ("flv", &["amf", "model"]),
    ("proxy", &[]),
    // Machines.
    ("session", &["amf", "flv", "model", "rtmp"]),
    ("media", &["model"]),
    ("ledger", &["model"]),
    ("consensus", &["model"]),
    ("member", &["consensus", "ledger", "model"]),
    // Where edge and origin meet.
    ("fabric", &["model"]),
    // Shells. The floor knows no protocol.
    ("node", &[]),
    (
        "edge",
        &[
            "amf", "fabric", "flv", "ledger", "media", "model", "node", "proxy", "rtmfp", "rtmp",
            "session",
        ],
    ),
    (
        "origin",
        &[
            "consensus",
            "fabric",
            "flv",
            "ledger",
            "media",
            "member",
            "model",
            "node",
        ],
    ),
    (
        "client",
        &["amf", "flv", "model", "node", "rtmfp", "rtmp", "session"],
    ),
    // Outside: sees everything.
    (
        "cli",
        &[
            "amf", "client", "edge", "fabric", "flv", "media", "model", "node", "origin", "rtmfp",
            "rtmp", "session",
        ],
    ),
    // A network for tests, which knows nothing of what runs in it.
    ("netlab", &[]),
    ("sim", &["consensus", "ledger", "member", "model"]),
    // The simulator composes the machines themselves.
    (
        "cluster-tests",
        &[
            "amf",
            "client",
            "consensus",
            "flv",
            "ledger",
            "member",
            "model",
            "netlab",
            "rtmfp",
            "rtmp",
            "session",
        ],
    ),
];

/// The crates under proto/ that may reach an operating system.
const PROTO_WITH_IO: &[&str] = &["fabric"];

/// What no other crate under proto/ may reach, at any distance: sockets, runtimes,
/// clocks, ambient randomness.
const IMPURE: &[&str] = &[
    "async-std",
    "chrono",
    "fastrand",
    "futures-util",
    "getrandom",
    "hyper",
    "mio",
    "rand",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tonic",
    "tracing",
];

/// What a pure crate reaches all the same, with the reason.
const PURE_ALL_THE_SAME: &[(&str, &[&str])] = &[
    // raft draws its election timeouts from `rand`, which brings `getrandom`. `consensus`
    // draws each of them again from its seed before it is used, and its tests compare two
    // runs bit by bit.
    ("consensus", &["rand", "getrandom"]),
    ("member", &["rand", "getrandom"]),
];

/// Crates that are visible to a single one of ours.
const BEHIND_ONE_DOOR: &[(&str, &str)] = &[
    ("rml_amf0", "amf"),
    ("raft", "consensus"),
    ("raft-proto", "consensus"),
    ("slog", "consensus"),
];

/// Crates that may not be in the tree at all: they need more than a Rust toolchain.
const ABSENT: &[&str] = &["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"];

/// Names that say the idea was not found.
const NO_IDEA: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "types",
];

/// A file with more lines has taken on a second idea.
const LINES_MAX: usize = 700;

#[test]
fn every_crate_names_only_crates_below_it() {
    let known: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, uses) in our_dependencies() {
        match known.get(name.as_str()) {
            None => wrong.push(format!("{name} is not in the table of arrows")),
            Some(may) => wrong.extend(
                uses.iter()
                    .filter(|used| !may.contains(&used.as_str()))
                    .map(|used| format!("{name} must not name {used}")),
            ),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_of_arrows_has_no_circle_and_keeps_edge_and_origin_apart() {
    for (place, (name, uses)) in ARROWS.iter().enumerate() {
        let above: Vec<_> = ARROWS[place..].iter().map(|(name, _)| *name).collect();
        assert!(
            uses.iter().all(|used| !above.contains(used)),
            "{name} names what is above it"
        );
    }
    let uses = |name| ARROWS.iter().find(|(crate_, _)| *crate_ == name).unwrap().1;
    assert!(!uses("edge").contains(&"origin"));
    assert!(!uses("origin").contains(&"edge"));
}

#[test]
fn pure_crates_reach_no_socket_no_clock_and_no_dice() {
    let mut wrong = Vec::new();
    for (id, name) in ours() {
        let pure = folder_of(&id).starts_with(root().join("proto"))
            && !PROTO_WITH_IO.contains(&name.as_str());
        if pure {
            let reached = reached_from(&id);
            let excused = PURE_ALL_THE_SAME
                .iter()
                .find(|(crate_, _)| *crate_ == name)
                .map_or::<&[_], _>(&[], |(_, reasons)| reasons);
            let impure = IMPURE
                .iter()
                .filter(|crate_| reached.contains(**crate_) && !excused.contains(*crate_));
            wrong.extend(impure.map(|crate_| format!("{name} reaches {crate_}")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn difficult_crates_stay_behind_their_door() {
    for (difficult, door) in BEHIND_ONE_DOOR {
        for (id, name) in ours() {
            let named = metadata()[&id]
                .dependencies
                .iter()
                .any(|used| used.name == *difficult);
            assert!(
                !named || name == *door,
                "{name} names {difficult}, which belongs to {door}"
            );
        }
    }
}

#[test]
fn nothing_needs_more_than_a_rust_toolchain() {
    let packages: BTreeSet<_> = metadata()
        .packages
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    let present: Vec<_> = ABSENT
        .iter()
        .filter(|absent| packages.contains(**absent))
        .collect();
    assert!(present.is_empty(), "{present:?} are in the dependency tree");
}

#[test]
fn every_crate_obeys_the_workspace() {
    for (id, name) in ours() {
        let manifest = metadata()[&id].manifest_path.as_std_path();
        let text = std::fs::read_to_string(manifest).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let inherits = |table: &str, key: &str| {
            let value = manifest.get(table).and_then(|table| match key {
                "" => table.get("workspace"),
                key => table.get(key)?.get("workspace"),
            });
            value.and_then(toml::Value::as_bool) == Some(true)
        };
        assert!(inherits("lints", ""), "{name} has lints of its own");
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            assert!(inherits("package", key), "{name} has a {key} of its own");
        }
        let folder = folder_of(&id);
        let folder = folder.file_name().unwrap().to_str().unwrap();
        assert_eq!(name, folder, "a crate is named after its folder");
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (dependency, value) in manifest
                .get(table)
                .and_then(|t| t.as_table())
                .into_iter()
                .flatten()
            {
                let inherited = value.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(
                    inherited,
                    Some(true),
                    "{name}: {dependency} has a version of its own"
                );
            }
        }
    }
}

#[test]
fn the_witness_of_purity_is_in_its_place_and_alone() {
    let witness = root().join("proto/clippy.toml");
    let text = std::fs::read_to_string(&witness).unwrap();
    for banned in [
        "std::time::Instant::now",
        "std::time::SystemTime::now",
        "std::thread::spawn",
        "std::collections::HashMap::iter",
        "std::net::TcpStream",
        "std::net::UdpSocket",
        "std::collections::hash_map::RandomState",
    ] {
        assert!(
            text.contains(banned),
            "proto/clippy.toml no longer bans {banned}"
        );
    }
    let nearer = tree(&root().join("proto"), |path| {
        path != witness && matches!(name_of(path), "clippy.toml" | ".clippy.toml")
    });
    assert!(nearer.is_empty(), "{nearer:?} would hide proto/clippy.toml");
}

#[test]
fn names_of_files_and_folders_name_an_idea() {
    let nameless = tree(&root(), |path| {
        let name = name_of(path);
        NO_IDEA.contains(&name.split('.').next().unwrap_or(name))
    });
    assert!(nameless.is_empty(), "{nameless:#?}");
}

#[test]
fn no_file_has_grown_beyond_one_idea() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|path| (lines_of(&path).len(), path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "more than {LINES_MAX} lines: {long:#?}");
}

#[test]
fn no_test_is_ignored_and_no_test_of_the_whole_sleeps() {
    let ignored = ["#[", "ignore"].concat();
    let sleep = ["sleep", "("].concat();
    let mut wrong = Vec::new();
    for path in sources() {
        let whole = path.starts_with(root().join("cluster-tests/tests"));
        for (number, line) in lines_of(&path).iter().enumerate() {
            if line.contains(&ignored) || whole && line.contains(&sleep) {
                wrong.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

// What cargo says.

fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        let manifest = root().join("Cargo.toml");
        MetadataCommand::new()
            .manifest_path(manifest)
            .exec()
            .expect("cargo metadata")
    })
}

/// The workspace's crates with their names as they are imported.
fn ours() -> Vec<(PackageId, String)> {
    let members = metadata().workspace_packages().into_iter();
    let named = members.map(|package| {
        let name = package.name.strip_prefix("selvage-").map(str::to_owned);
        (
            package.id.clone(),
            name.unwrap_or_else(|| panic!("{} is not ours", package.name)),
        )
    });
    named.collect()
}

/// What the code of each crate names of ours; what only its tests name does not count.
fn our_dependencies() -> Vec<(String, Vec<String>)> {
    let uses = |id: &PackageId| {
        let own_code = |kind| kind != DependencyKind::Development;
        let all = metadata()[id]
            .dependencies
            .iter()
            .filter(|used| own_code(used.kind));
        all.filter_map(|used| used.name.strip_prefix("selvage-").map(str::to_owned))
            .collect()
    };
    ours()
        .into_iter()
        .map(|(id, name)| (name, uses(&id)))
        .collect()
}

/// The names of all crates that a crate links, at any distance.
fn reached_from(start: &PackageId) -> BTreeSet<String> {
    let resolve = metadata()
        .resolve
        .as_ref()
        .expect("cargo resolves the workspace");
    let linked: BTreeMap<_, Vec<_>> = resolve
        .nodes
        .iter()
        .map(|node| {
            let normal = node.deps.iter().filter(|dependency| {
                dependency
                    .dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal)
            });
            (&node.id, normal.map(|dependency| &dependency.pkg).collect())
        })
        .collect();
    let mut reached = BTreeSet::new();
    let mut ahead = vec![start];
    while let Some(id) = ahead.pop() {
        for next in &linked[id] {
            if reached.insert(*next) {
                ahead.push(next);
            }
        }
    }
    reached
        .into_iter()
        .map(|id| metadata()[id].name.to_string())
        .collect()
}

fn folder_of(id: &PackageId) -> PathBuf {
    metadata()[id]
        .manifest_path
        .parent()
        .expect("a manifest lies in a folder")
        .into()
}

// What lies in the tree.

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn sources() -> Vec<PathBuf> {
    tree(&root(), |path| {
        path.extension().is_some_and(|extension| extension == "rs")
    })
}

/// Files and folders below a folder that are wanted; what cargo, cargo-fuzz and git
/// make is left out.
fn tree(folder: &Path, wanted: impl Fn(&Path) -> bool + Copy) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if matches!(
            name_of(&path),
            "target" | ".git" | "corpus" | "artifacts" | "coverage"
        ) {
            continue;
        }
        if wanted(&path) {
            found.push(path.clone());
        }
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path, wanted));
        }
    }
    found
}

fn name_of(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn lines_of(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}
