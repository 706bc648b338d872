//! Compiles the contract in `proto/` with protox, so that a build needs cargo alone and no `protoc`, and
//! stamps the commit that `postern --version` prints.

use std::path::{Path, PathBuf};
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
    // What the checkout is at, and nothing that other branches or worktrees do.
    for name in [Some("HEAD".to_owned()), git(&["symbolic-ref", "-q", "HEAD"])].into_iter().flatten() {
        // A path that is not there would mean a new build each time.
        if let Some(path) = git(&["rev-parse", "--git-path", &name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
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
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

/// What git answers, where there is one.
fn git(arguments: &[&str]) -> Option<String> {
    let ran = Command::new("git").args(arguments).output().ok().filter(|ran| ran.status.success())?;
    Some(String::from_utf8(ran.stdout).ok()?.trim().to_owned())
}
