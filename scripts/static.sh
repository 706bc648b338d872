#!/usr/bin/env bash
# Builds the static binary as it lies in the image, and prints its digest: scripts/static.sh
#
# The same commit and the same Rust, C compiler and linker give the same bytes, wherever the checkout, the target
# directory and Cargo's home lie: no path, time or name of this machine is in them. docs/kubernetes.md shows how to compare.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=x86_64-unknown-linux-gnu
[[ $(uname -m) == aarch64 ]] && target=aarch64-unknown-linux-gnu
build=${CARGO_TARGET_DIR:-target}
mkdir -p "$build"
build=$(cd "$build" && pwd)
home=${CARGO_HOME:-$HOME/.cargo}

# glibc, linked statically: it resolves names from files and by DNS without plugins. Of two prefixes that fit a path the
# later one counts.
flags=(-C target-feature=+crt-static)
places=("$PWD=/postern" "$build=/postern/target" "$home=/cargo")
for place in "${places[@]}"; do flags+=("--remap-path-prefix=$place"); done
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
# What is written in C names its files, too.
CFLAGS="${CFLAGS:-}$(printf ' -ffile-prefix-map=%q' "${places[@]}")"
export CFLAGS
# Stripped, so there is no use for debug information; it would name paths, and the id of the build hangs on it.
export CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols CARGO_INCREMENTAL=0

cargo build --release --locked --target "$target" --bin postern
mkdir -p "$build/image"
# Beside and renamed: a container may run the one before.
cp "$build/$target/release/postern" "$build/image/postern.next"
chmod 0755 "$build/image/postern.next"
mv "$build/image/postern.next" "$build/image/postern"
sha256sum "$build/image/postern"
