//! Generates the wire's code from `ticker/v1/*.proto` with protox, a protobuf compiler in Rust: no protoc is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["event", "session", "market_data", "ingest", "relay"].map(|f| format!("ticker/v1/{f}.proto"));
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost_encode(&descriptors))?;
    tonic_prost_build::configure().bytes(".none").compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=ticker");
    Ok(())
}

fn prost_encode(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
