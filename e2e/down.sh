#!/usr/bin/env bash
# down.sh: end the cluster and everything that was started for it. What was built stays in the cache.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$E2E/kind/engine.sh"
lock
stop loadbalancer
if [ "$(engine)" != none ]; then
  TOOLS=$("$E2E/kind/tools.sh")
  # After an unclean stop there may be containers left without a dockerd: only a dockerd gets rid of them.
  start_engine
  inside "$TOOLS/kind" delete cluster --name "$CLUSTER"
  [ "$(engine)" = host ] || docker network rm kind > /dev/null 2>&1 || true
  stop_engine
fi
rm -rf "$RUN/loaded" "$RUN/cluster" "$RUN/engine" "$KUBECONFIG"
say "down"
