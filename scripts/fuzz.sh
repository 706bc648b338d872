#!/usr/bin/env bash
# Fuzzes every target for a while: scripts/fuzz.sh [SECONDS FOR EACH] [TARGET…]
# Needs clang's runtime only through libfuzzer-sys, which builds it; works on the stable toolchain. Inputs that fail are
# kept in fuzz/artifacts.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(condition program documents scope_action wire bundle)

export PATH="$PWD/.tools/bin:$PATH"
command -v cargo-fuzz >/dev/null || cargo install --quiet --root .tools cargo-fuzz

# Seeds: the cases and the example tenant.
python3 - <<'PY'
import hashlib, json, pathlib
corpus = pathlib.Path("fuzz/corpus")
def seed(target, data):
    folder = corpus / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
for path in sorted(pathlib.Path("tests/cases").glob("*.jsonl")):
    for line in path.read_text().splitlines():
        case = json.loads(line)
        given = case.get("given") or {}
        request = case.get("request") or {}
        condition = given.get("condition") if isinstance(given, dict) else None
        if isinstance(condition, str):
            attributes = {}
            for bag in (request.get("attributes") or {}).values():
                attributes.update(bag or {})
            seed("condition", condition.encode() + b"\0" + json.dumps(attributes).encode())
        if isinstance(given, dict) and "role_definitions" in given:
            seed("documents", b"\0" + json.dumps(given).encode())
        for scope in (request.get("resource"), case.get("scope")):
            action = request.get("action") or case.get("action")
            if isinstance(scope, str) and isinstance(action, str):
                seed("scope_action", f"{scope}\n{scope}".encode())
                seed("scope_action", f"*/read\n{action}".encode())
def field(number, data):
    return bytes([number << 3 | 2, *varint(len(data))]) + data
def varint(value):
    while value > 127:
        yield value & 127 | 128
        value >>= 7
    yield value
for line in pathlib.Path("tests/cases/contoso.jsonl").read_text().splitlines():
    case = json.loads(line)
    action = field(1, case["action"].encode()) + (b"\x10\1" if case["data_action"] else b"")
    subject = field(1, case["principal"].encode()) + b"".join(field(3, g.encode()) for g in case["groups"])
    text = field(2, field(1, b"a:n") + field(2, field(1, b"text")))
    resource = field(1, case["scope"].encode()) + text
    seed("wire", field(1, subject) + field(2, action) + field(3, resource))
# Edits of the bundle: where, and four bytes to put there.
for at in range(4096, 30000, 256):
    for value in (0, 1, 7, 0xFFFFFFFF):
        seed("bundle", b"\6" + at.to_bytes(4, "little") + value.to_bytes(4, "little"))
for path in sorted(pathlib.Path("examples").rglob("*")):
    choice = {".json": b"\0", ".yaml": b"\1"}.get(path.suffix)
    if choice and path.is_file():
        seed("documents", choice + path.read_bytes())
PY

# The fuzzer's flags are nightly ones; nothing else of nightly is used.
export RUSTC_BOOTSTRAP=1
for target in "${targets[@]}"; do
  mkdir -p "fuzz/corpus/$target"
  printf '\n=== %s, %s s\n' "$target" "$seconds"
  cargo fuzz build "$target"
  cargo fuzz run "$target" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 2>&1 |
    grep -E '^(#|stat::|SUMMARY|==|thread|panicked|Done|assertion|  left|  right)|panicked at' | tail -25
done
