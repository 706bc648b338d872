#!/usr/bin/env bash
# Publishes to a bucket: starts moto, a server that speaks S3, from .tools/, and runs the test that needs it.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=5.2.0
venv=.tools/moto
if [[ ! -x $venv/bin/moto_server ]]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "moto[server,s3]>=$version"
fi

port=${POSTERN_S3_PORT:-5555}
log=$(mktemp)
"$venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$log" 2>&1 &
pid=$!
stop() {
  local code=$?
  kill "$pid" 2>/dev/null || true
  ((code == 0)) || tail -n 40 "$log"
  echo "requests that moto answered: $(grep -c HTTP "$log")"
  rm -f "$log"
}
trap stop EXIT

export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
export AWS_ENDPOINT="http://127.0.0.1:$port" POSTERN_S3_URL=s3://policies
python3 - "$AWS_ENDPOINT/policies" <<'PY'
import sys, time, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for _ in range(100):
    try:
        opener.open(urllib.request.Request(sys.argv[1], method="PUT"), timeout=5)
        sys.exit()
    except urllib.error.HTTPError as error:
        sys.exit(f"the bucket was not made: {error}")
    except OSError:
        time.sleep(0.2)
sys.exit("moto does not answer")
PY
cargo test --test repository a_bucket_has_conditional_writes -- --exact --nocapture
