#!/usr/bin/env bash
# Checks the charts: lint, golden renders, the schemas of Kubernetes, wrong values, packages, and what is rendered run with
# the real binary: scripts/charts.sh [TEST…]
#
#   UPDATE=1 scripts/charts.sh      writes README.md, values.schema.json and tests/charts/golden anew
#   POSTERN_BIN=… says which binary; else that of target/release, or target/debug
#   POSTERN_IMAGE=… says which image; without it nothing is run in containers
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/helm.sh --install
[[ -x .venv/bin/pip ]] || python3 -m venv .venv
wanted=(kubernetes-validate==1.37.0 cel-python==0.5.0 PyYAML jsonschema)
if ! .venv/bin/python -c 'import celpy, jsonschema, kubernetes_validate, yaml' 2>/dev/null; then
  .venv/bin/pip install --quiet --disable-pip-version-check "${wanted[@]}"
fi

if [[ -z ${POSTERN_BIN:-} ]]; then
  for build in release debug; do
    binary=${CARGO_TARGET_DIR:-target}/$build/postern
    [[ -x $binary ]] && break
  done
  [[ -x $binary ]] || { echo "there is no binary; build it (cargo build --bin postern) or set POSTERN_BIN" >&2; exit 1; }
  POSTERN_BIN=$PWD/$binary
fi
export POSTERN_BIN

[[ -z ${UPDATE:-} ]] || .venv/bin/python scripts/chart-docs.py --write
exec .venv/bin/python tests/charts/check.py "$@"
