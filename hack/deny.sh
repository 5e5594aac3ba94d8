#!/usr/bin/env bash
# cargo-deny over the dependencies: licences, sources and bans always; known vulnerabilities from RustSec's database,
# which is fetched from GitHub. Where GitHub can't be reached that part can't be done, and this says so.
set -euo pipefail
cd "$(dirname "$0")/.."

deny=$(hack/tool.sh cargo-deny)
"$deny" --locked check --hide-inclusion-graph bans licenses sources
if timeout 20 git ls-remote --quiet https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
    "$deny" --locked check --hide-inclusion-graph advisories
else
    echo "deny.sh: github.com can't be reached: vulnerabilities were NOT checked" >&2
fi
