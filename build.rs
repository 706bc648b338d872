//! Compiles the contract in `proto/` with protox, so that a build needs cargo alone and no `protoc`, and
//! stamps the commit that `postern --version` prints.

use std::path::PathBuf;
use std::process::Command;

use prost::Message;

const PROTOS: [&str; 1] = ["proto/postern/v1/authorization.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for proto in PROTOS {
        println!("cargo:rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // The reflection service serves the same descriptors that the code was generated from.
    std::fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;

    println!("cargo:rerun-if-env-changed=POSTERN_COMMIT");
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/refs/heads");
    println!("cargo:rustc-env=POSTERN_COMMIT={}", commit());
    Ok(())
}

/// The commit of the checkout; a build outside one (a source archive, an image) names it in `POSTERN_COMMIT`.
fn commit() -> String {
    if let Ok(commit) = std::env::var("POSTERN_COMMIT")
        && !commit.is_empty()
    {
        return commit;
    }
    Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |hash| hash.trim().to_owned())
}
