#!/usr/bin/env bash
# Lets the reference client of The Update Framework (python-tuf, from .tools/) read what the debug binary publishes.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.tools/tuf
if [[ ! -x $venv/bin/python ]] || ! "$venv/bin/python" -c 'import tuf' 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'tuf>=6,<8'
fi
cargo build --bin postern
postern=${CARGO_TARGET_DIR:-target}/debug/postern
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
where=(--at "$work/repo" --keys "$work/keys")
publish=("$postern" publish "$work/contoso.bundle" --to "$work/repo" --keys "$work/keys")

"$postern" repo init "${where[@]}"
echo one >"$work/contoso.bundle" && "${publish[@]}"
for role in timestamp snapshot targets root; do
  "$postern" repo rotate-key "$role" "${where[@]}"
done
echo two >"$work/contoso.bundle" && "${publish[@]}"
"$postern" repo refresh "${where[@]}"

"$venv/bin/python" - "$work" <<'PY'
import functools, http.server, pathlib, sys, threading
from tuf.ngclient import Updater

work = pathlib.Path(sys.argv[1])


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


handler = functools.partial(Quiet, directory=str(work / "repo"))
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}/"
local = work / "client"
local.mkdir()
updater = Updater(str(local), base, str(local), base + "targets/", bootstrap=(work / "repo/1.root.json").read_bytes())
updater.refresh()
target = updater.get_targetinfo("policy.bundle")
content = pathlib.Path(updater.download_target(target)).read_text()
assert content == "two\n", content
print("python-tuf reads serial", target.custom["serial"], "after four rotations")
PY
