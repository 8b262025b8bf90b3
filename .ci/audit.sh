#!/usr/bin/env bash
# Known vulnerabilities in the versions that are shipped, and secrets in the files that git tracks. Both tools live in an
# environment of their own: what they need shall not decide about what the project needs.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:?the cache folder}/audit
[ -x "$venv/bin/pip-audit" ] || {
  python3 -m venv --clear "$venv"
  env -u PIP_CONSTRAINT "$venv/bin/pip" install -qq pip-audit==2.10.1 detect-secrets==1.5.0
}

# Every find is either removed, or looked at and entered by `detect-secrets scan --slim --baseline .ci/secrets.json`.
git ls-files -z -- . ':!.ci/secrets.json' | xargs -0 "$venv/bin/detect-secrets-hook" --baseline .ci/secrets.json
echo 'no secrets in tracked files beyond what was looked at'

.venv/bin/pip check
"$venv/bin/pip-audit" --progress-spinner off -r .ci/constraints.txt --no-deps --disable-pip --format json --output "$venv/found.json" || true
python3 - "$venv/found.json" <<'PYTHON'
import json
import sys

dependencies = json.load(open(sys.argv[1]))["dependencies"]
looked_up = [it for it in dependencies if "skip_reason" not in it]
for it in looked_up:
    for found in it["vulns"]:
        print(f"{it['name']} {it['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'no version'}")
print(f"{len(looked_up)} of {len(dependencies)} dependencies were looked up")
if not looked_up:
    print("NOT AUDITED: this machine's package index does not tell of vulnerabilities; run it where it does")
sys.exit(any(it["vulns"] for it in looked_up))
PYTHON
