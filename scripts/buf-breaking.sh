#!/usr/bin/env bash
# Compares the contract with the one it grew from: the point where this branch left main, or on main itself the
# commit before. Breaks callers? Then it fails. With a commit as argument it compares with that one.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

skip() {
  echo "buf breaking: skipped, $1"
  exit 0
}

head=$(git rev-parse --verify --quiet HEAD) || skip "this is no git checkout"
base=${1:-}
if [[ -z $base ]]; then
  for main in origin/main main; do
    if git rev-parse --verify --quiet "$main^{commit}" >/dev/null; then
      base=$(git merge-base HEAD "$main" || true)
      break
    fi
  done
fi
if [[ -z $base || $base == "$head" ]]; then
  base=$(git rev-parse --verify --quiet 'HEAD^1^{commit}') || skip "there is no earlier commit to compare with"
fi
[[ -n $(git ls-tree -r --name-only "$base" -- proto) ]] || skip "commit ${base:0:12} has no contract"

before=$(mktemp -d)
trap 'rm -rf "$before"' EXIT
git archive "$base" proto | tar -x -C "$before"
echo "comparing with commit ${base:0:12}"
scripts/buf.sh breaking proto --against "$before/proto"
echo "nothing breaks"
