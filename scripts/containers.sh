#!/usr/bin/env bash
# Runs the tests that need Docker: scripts/containers.sh [TEST…]
# The image of the sidecar is built by the tests themselves; that of the web server here, from Debian's nginx, since no
# image registry is needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! docker info >/dev/null 2>&1; then
  echo "there is no Docker engine here, so the container tests cannot run" >&2
  exit 1
fi

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/root/tmp" "$context/root/etc" "$context/root/www" "$context/package"
chmod 755 "$context" "$context/root"
(
  cd "$context/package"
  # The lists of packages of a new machine are empty.
  apt-get download -qq nginx 2>/dev/null || { apt-get update -qq && apt-get download -qq nginx; }
  dpkg-deb -x nginx_*.deb .
)
server=$context/package/usr/sbin/nginx
if ldd "$server" | grep 'not found'; then
  echo "nginx needs libraries that are not installed here" >&2
  exit 1
fi
mkdir -p "$context/root/usr/sbin"
cp "$server" "$context/root/usr/sbin/"
ldd "$server" | grep -o '/[^ ]*' | while read -r library; do
  cp --parents --dereference "$library" "$context/root/"
done
cp tests/web/nginx.conf "$context/root/etc/"
echo 'root:x:0:0::/:' >"$context/root/etc/passwd"
echo 'nobody:x:65534:65534::/:' >>"$context/root/etc/passwd"
echo 'root:x:0:' >"$context/root/etc/group"
echo 'nogroup:x:65534:' >>"$context/root/etc/group"
cp tests/web/Dockerfile "$context/"
rm -r "$context/package"
DOCKER_BUILDKIT=0 docker build -q -t postern-web:test "$context"

# What the chart renders is what the pods run.
scripts/helm.sh --install
# One at a time: the tests print times from a publication to its enforcement, and how much memory was taken.
cargo test --test containers --test pods -- --ignored --nocapture --test-threads 1 "$@"
