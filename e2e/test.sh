#!/usr/bin/env bash
# test.sh: everything that only a cluster can show: the cluster itself, the scenarios, the conformance suite. What there
# is to see after a failure is in target/e2e/.
set -euo pipefail
. "$(dirname "$0")/env.sh"
finish() { local status=$?; [ $status = 0 ] || bash "$E2E/collect.sh" || true; exit $status; }
trap finish EXIT
"$E2E/up.sh"
"$E2E/kind/check.sh"
"$E2E/conformance.sh" "$@"
say "passed"
