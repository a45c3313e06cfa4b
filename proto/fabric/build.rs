//! Compiles the contract with protox, so that no machine needs `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let files = protox::compile(
        [
            "fabric/v1/media.proto",
            "fabric/v1/shared.proto",
            "fabric/v1/raft.proto",
            "fabric/v1/cluster.proto",
            "fabric/v1/peers.proto",
        ],
        ["proto"],
    )?;
    // `bytes(".")`: payloads are `Bytes`, which tonic fills with slices of the receive
    // buffer. With `Vec<u8>` every frame would be copied once more per hop.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
