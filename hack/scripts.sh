#!/usr/bin/env bash
# Runs shellcheck over every shell script of the repository; where it isn't installed, at least their syntax.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t scripts < <(git grep -lE '^#!.*\b(bash|sh)$' -- . ':!*.rs')
if command -v shellcheck >/dev/null; then
    shellcheck --severity=warning "${scripts[@]}"
else
    echo "scripts.sh: shellcheck is missing (apt-get install shellcheck): only the syntax is checked" >&2
    for script in "${scripts[@]}"; do bash -n "$script"; done
fi
