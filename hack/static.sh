#!/usr/bin/env bash
# Fails unless a binary runs in an empty root file system: no interpreter, no shared library.
#
#   hack/static.sh target/x86_64-unknown-linux-gnu/release/headgate
set -euo pipefail

binary=$1
command -v readelf >/dev/null || { echo "static.sh: readelf is missing: apt-get install binutils" >&2; exit 1; }
headers=$(readelf --wide --program-headers --dynamic "$binary")
for sign in INTERP '(NEEDED)'; do
    if grep -F "$sign" <<<"$headers" >&2; then
        echo "static.sh: $binary isn't static" >&2
        exit 1
    fi
done
"$binary" version >/dev/null
echo "static.sh: $binary is static, $(($(stat -c %s "$binary") / 1024)) KiB"
