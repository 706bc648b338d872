#!/usr/bin/env bash
# Builds the static binary and the image from it: scripts/image.sh [TAG]
#
# SOURCE_DATE_EPOCH, else the time of the commit, is the time of every file in the image: equal files make an equal layer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tag=${1:-postern:dev}
scripts/static.sh

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
root=$context/root
mkdir -p "$root/etc/ssl/certs"
cp "${CARGO_TARGET_DIR:-target}/image/postern" "$root/postern"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp Dockerfile "$context/"
# Whatever the umask is: who runs it is not who built it.
chmod -R u=rwX,go=rX "$root"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
find "$root" -exec touch --no-dereference --date "@$epoch" {} +
DOCKER_BUILDKIT=0 docker build -q -t "$tag" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
  --build-arg CREATED="$(date --utc --date "@$epoch" +%Y-%m-%dT%H:%M:%SZ)" "$context"
docker image inspect --format '{{.Size}} bytes, layers {{join .RootFS.Layers " "}}' "$tag"
