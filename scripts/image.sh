#!/usr/bin/env bash
# Builds the static binary and the image from it: scripts/image.sh [TAG]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag=${1:-postern:dev}
target=x86_64-unknown-linux-gnu
[[ $(uname -m) == aarch64 ]] && target=aarch64-unknown-linux-gnu

# glibc, linked statically: it resolves names from files and by DNS without plugins.
RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$target" --bin postern
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "${CARGO_TARGET_DIR:-target}/$target/release/postern" "$context/postern"
strip "$context/postern"
chmod 0755 "$context/postern"
cp /etc/ssl/certs/ca-certificates.crt "$context/"
cp Dockerfile "$context/"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
DOCKER_BUILDKIT=0 docker build -q -t "$tag" --build-arg VERSION="$version" --build-arg REVISION="$revision" "$context"
docker image inspect --format '{{.Size}} bytes' "$tag"
