#!/usr/bin/env bash
# apt.sh PROGRAM:PACKAGE...: installs the Debian packages of those programs that are missing, where it may; elsewhere it
# names them and fails.
set -euo pipefail

missing=()
for program in "$@"; do
    command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "apt.sh: please install: ${missing[*]} (the names are Debian's packages)" >&2
    exit 1
fi
echo "apt.sh: apt-get install ${missing[*]}" >&2
# One broken source of many is no obstacle: the installation decides.
apt-get update -qq || true
# Services aren't started (101 is policy-rc.d's word for that): they would take ports and CPU time.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
