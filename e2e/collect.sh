#!/usr/bin/env bash
# collect.sh: what one wants to see after a failure, into target/e2e/cluster/.
. "$(dirname "$0")/env.sh" # without -e: what cannot be had must not hide the rest
dir=$OUT/cluster
rm -rf "$dir"
mkdir -p "$dir/logs"
ours='gateway.networking.k8s.io|gateway.networking.x-k8s.io|headgate.dev'

for kind in $(k api-resources --verbs=list -o name | grep -E "\.($ours)$") services endpointslices.discovery.k8s.io leases.coordination.k8s.io; do
  k get "$kind" -A -o yaml > "$dir/$kind.yaml" 2>&1
done
k get events -A --sort-by=.lastTimestamp > "$dir/events.txt" 2>&1
k get nodes,pods -A -o wide > "$dir/pods.txt" 2>&1
k -n "$NAMESPACE" describe pods > "$dir/headgate-pods.txt" 2>&1
k get pods -A -o jsonpath='{range .items[*]}{.metadata.namespace} {.metadata.name}{"\n"}{end}' | while read -r namespace pod; do
  k -n "$namespace" logs "$pod" --all-containers --tail=20000 > "$dir/logs/$namespace.$pod.log" 2>&1 < /dev/null
  k -n "$namespace" logs "$pod" --all-containers --previous > "$dir/logs/$namespace.$pod.previous.log" 2> /dev/null < /dev/null \
    || rm -f "$dir/logs/$namespace.$pod.previous.log"
done
cp "$RUN"/*.log "$dir/logs/" 2> /dev/null
echo "collected: $dir" >&2
