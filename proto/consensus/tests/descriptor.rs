//! The checked-in descriptors are those of the file that raft-proto brings.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;

/// When this fails after raft was updated, read what changed in eraftpb.proto, then copy
/// the file that the message names.
#[test]
fn the_descriptors_are_made_of_raft_protos_own_file() {
    let includes = [
        folder("raft-proto", "proto"),
        folder("protobuf-build", "include"),
    ];
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("eraftpb.proto").unwrap();
    let made = compiler.encode_file_descriptor_set();

    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("eraftpb.desc");
    if std::fs::read(&kept).unwrap_or_default() != made {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("eraftpb.desc");
        std::fs::write(&fresh, made).unwrap();
        panic!("cp {} {}", fresh.display(), kept.display());
    }
}

/// A folder of a package that cargo has fetched.
fn folder(package: &str, folder: &str) -> PathBuf {
    let metadata = MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .exec()
        .unwrap();
    let found = metadata
        .packages
        .iter()
        .find(|p| p.name.as_str() == package);
    let manifest = &found.unwrap().manifest_path;
    manifest.parent().unwrap().join(folder).into_std_path_buf()
}
