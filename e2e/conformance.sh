#!/usr/bin/env bash
# conformance.sh [FLAGS]: the Gateway API conformance suite against the running cluster. Flags are the suite's own and
# come last, so they win: `-run-test=HTTPRouteWeight`, `-conformance-profiles=GATEWAY-GRPC`, `-cleanup-test-resources=false`.
# The supported features are those of the GatewayClass's status: nothing is claimed here.
set -euo pipefail
. "$(dirname "$0")/env.sh"

binary=$CACHE/conformance/$(key -- "$SUITE/go.mod" "$SUITE/go.sum" conformance.sh)-$(sha256sum "$E2E/conformance/conformance_test.go" | cut -c1-8)
if [ ! -e "$binary" ]; then
  say "building the conformance suite"
  mkdir -p "$(dirname "$binary")"
  source=$(mktemp -d)
  trap 'rm -rf "$source"' EXIT
  cp "$E2E/$SUITE/go.mod" "$E2E/$SUITE/go.sum" "$E2E/conformance/conformance_test.go" "$source"
  (cd "$source" && nice -n 10 go test -c -o "$binary.new" .)
  mv "$binary.new" "$binary"
fi

# That of a release is kept: cp target/e2e/report.yaml e2e/conformance/.
report=$OUT/report.yaml
rm -f "$report"

# What a run that was killed has left behind.
k delete namespace --selector gateway-conformance --timeout=180s > /dev/null 2>&1
say "running the conformance suite"
# Both addresses are for GatewayStaticAddresses: one that the load-balancer loop gives only who asks for it, and one that it refuses.
set +e
inside "$binary" -test.v -test.timeout=90m \
  -gateway-class="$GATEWAY_CLASS" -conformance-profiles=GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP \
  -usable-address=172.31.0.250 -unusable-address=192.0.2.1 \
  -report-output="$report" -organization=headgate -project=headgate -url=https://headgate.dev -version=dev \
  -contact=https://headgate.dev \
  "$@" 2>&1 | tee "$OUT/conformance.log" | grep --line-buffered -E '^ *(--- |=== RUN  |PASS|FAIL|panic)|Error:'
status=${PIPESTATUS[0]}
set -e
[ ! -e "$report" ] || chmod 644 "$report" # the suite writes it for its owner only
say "conformance: $( [ "$status" = 0 ] && echo passed || echo "failed, see $OUT/conformance.log")"
exit "$status"
