#!/usr/bin/env bash
# test.sh [FLAGS]: everything that only a cluster can show: the cluster itself, the scenarios, the conformance suite
# (with the flags). What there is to see after a failure is in target/e2e/.
set -euo pipefail
. "$(dirname "$0")/env.sh"
finish() { local status=$?; [ $status = 0 ] || bash "$E2E/collect.sh" || true; exit $status; }
trap finish EXIT
"$E2E/up.sh"
"$E2E/kind/check.sh"
# A failure of the one is no reason not to see the other.
failed=()
"$E2E/scenarios.sh" || failed+=(scenarios)
"$E2E/conformance.sh" "$@" || failed+=(conformance)
[ ${#failed[@]} = 0 ] || die "failed: ${failed[*]}; see $OUT"
say "passed"
