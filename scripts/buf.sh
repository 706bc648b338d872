#!/usr/bin/env bash
# Runs buf from .venv, where it is installed on first use: scripts/buf.sh lint
set -euo pipefail

version=1.75.0
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
buf=$root/.venv/bin/buf

if [[ ! -x $buf || $("$buf" --version 2>/dev/null) != "$version" ]]; then
  [[ -x $root/.venv/bin/pip ]] || python3 -m venv "$root/.venv"
  "$root/.venv/bin/pip" install --quiet --disable-pip-version-check "buf-bin==$version"
fi
exec "$buf" "$@"
