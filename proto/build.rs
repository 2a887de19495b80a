//! Generates the wire's code from `ticker/v1/*.proto` with protox, a protobuf compiler in Rust: no protoc is needed.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["event", "session", "market_data", "ingest", "relay"].map(|f| format!("ticker/v1/{f}.proto"));
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost_encode(&descriptors))?;
    tonic_prost_build::configure().bytes(".none").build_server(false).compile_fds(descriptors.clone())?;
    // The servers' side apart: what a session is sent has been encoded once for all readers, and goes out as it is.
    let servers = out.join("servers");
    std::fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(servers)
        .codec_path("crate::encoded::ServerCodec")
        .extern_path(".ticker.v1", "crate::v1")
        .extern_path(".ticker.v1.SubscribeResponse", "crate::EncodedMessage")
        .extern_path(".ticker.v1.SessionResponse", "crate::EncodedMessage")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=ticker");
    Ok(())
}

fn prost_encode(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
