#!/usr/bin/env bash
# Starts the release binary on the example tenant and free ports, waits until it is ready, asks it, and stops it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
postern=${CARGO_TARGET_DIR:-target}/release/postern
policy=examples/contoso

"$postern" --version
"$postern" validate "$policy"

read -r port admin < <(python3 - <<'PY'
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))
PY
)
log=$(mktemp)
"$postern" serve --policy "$policy" --tcp "127.0.0.1:$port" --admin "127.0.0.1:$admin" >"$log" 2>&1 &
pid=$!
stop() {
  local code=$?
  kill "$pid" 2>/dev/null || true
  if ((code != 0)); then
    echo "the log of postern serve:"
    cat "$log"
  fi
  rm -f "$log"
}
trap stop EXIT

# get PATH: the status and body of an admin path; the machine may lack curl.
get() {
  python3 - "http://127.0.0.1:$admin$1" <<'PY'
import sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(sys.argv[1], timeout=5) as answer:
        sys.stdout.write(answer.read().decode())
except (urllib.error.URLError, OSError) as error:
    sys.exit(str(error))
PY
}

ready=no
for _ in $(seq 100); do
  kill -0 "$pid" 2>/dev/null || { echo "postern serve ended"; exit 1; }
  if get /readyz >/dev/null 2>&1; then
    ready=yes
    break
  fi
  sleep 0.1
done
[[ $ready == yes ]] || { get /readyz || true; echo "postern serve is not ready after 10 s"; exit 1; }
get /livez >/dev/null
get /metrics | grep -c '^[a-z]' | sed 's/^/metrics: /'

vault=/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod/providers/Microsoft.KeyVault/vaults/kv-contoso-prod

# check EXIT-CODE PRINCIPAL ARGUMENT…: asks the sidecar, then the directory; both must exit alike.
check() {
  local wanted=$1 principal=$2 code
  shift 2
  for from in "--connect=http://127.0.0.1:$port" "--policy=$policy"; do
    code=0
    "$postern" check "$from" --principal "$principal" "$@" || code=$?
    if ((code != wanted)); then
      echo "postern check $from exited with $code, wanted $wanted"
      exit 1
    fi
  done
}
check 0 00000000-0000-4000-a002-000000000005 --action Microsoft.KeyVault/vaults/secrets/getSecret/action --data-action --scope "$vault"
check 3 00000000-0000-4000-a002-000000000005 --action Microsoft.KeyVault/vaults/write --scope "$vault"
check 3 00000000-0000-4000-a002-000000000003 --action Microsoft.KeyVault/vaults/delete --scope "$vault"

kill -TERM "$pid"
code=0
wait "$pid" || code=$?
((code == 0)) || { echo "postern serve exited with $code on SIGTERM"; exit 1; }
echo "served, answered and stopped"
