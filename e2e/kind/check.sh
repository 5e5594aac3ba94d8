#!/usr/bin/env bash
# check.sh: use the cluster as the tests will, so that what fails later is not the cluster's fault. "Ready" proves little:
# only a Service with two endpoints, names, and every way in show that kube-proxy, DNS and the load-balancer loop work.
set -euo pipefail # so no `grep -q` after a pipe: whoever writes to it would fail
. "$(dirname "$0")/../env.sh"
NS=cluster-check
ok() { echo "ok    $*"; }

# Where an address comes from one of Kubernetes' own controllers, it follows the object by up to a second or two.
show() { k -n $NS get "$1" -o jsonpath="$2"; }
get() { inside curl --silent --fail --max-time 3 "http://$1/"; }
pods() { for _ in {1..20}; do get "$1" | jq -r .pod || true; done | sort -u | wc -l; }
both_answer() { [ "$(pods "$1")" = 2 ]; }
address_of() { show "service/$1" '{.status.loadBalancer.ingress[0].ip}'; }
has_address() { [ -n "$(address_of "$1")" ]; }
# shellcheck disable=SC2016 # the inner shell expands it
datagram() { inside timeout 3 bash -c 'exec 3<> "/dev/udp/$0/53" && echo hello >&3 && head -c 20 <&3' "$1" 2> /dev/null | grep hello > /dev/null; }
# probe URL: the answer that a pod in the cluster gets.
probe() { k -n $NS run "probe-$RANDOM" --image=headgate.dev/e2e/probe:dev --restart=Never --attach --rm --quiet -- "$1"; }
probe_finds() { probe "$1" 2> /dev/null | grep '"pod"' > /dev/null; }

k delete namespace $NS --ignore-not-found > /dev/null
trap 'k delete namespace $NS --wait=false > /dev/null' EXIT
k apply -f "$E2E/kind/check.yaml" > /dev/null
k -n $NS rollout status deployment/echo --timeout=90s > /dev/null
k -n $NS rollout status deployment/udp --timeout=90s > /dev/null
ok "the suite's backend runs on both workers, and its probes pass"

cluster_ip=$(show service/echo '{.spec.clusterIP}')
inside_node() { docker exec "$CLUSTER-worker2" curl --silent --fail --max-time 3 "http://$1/" | jq -r .pod; }
both_from_node() { [ "$(for _ in {1..20}; do inside_node "$1" || true; done | sort -u | wc -l)" = 2 ]; }
until_true 20 both_from_node "$cluster_ip" || die "not both endpoints answer at the cluster address $cluster_ip"
ok "both endpoints answer at the cluster address"

until_true 30 probe_finds "http://echo.$NS.svc.cluster.local/" || die "a pod doesn't reach echo.$NS.svc.cluster.local: $(probe "http://echo.$NS.svc.cluster.local/" 2>&1)"
ok "a pod finds the Service by its name"

node_port=$(show service/echo '{.spec.ports[0].nodePort}')
for node in $(k get nodes -o jsonpath='{.items[*].status.addresses[?(@.type=="InternalIP")].address}'); do
  until_true 15 both_answer "$node:$node_port" || die "not both endpoints answer at node port $node:$node_port"
done
ok "both endpoints answer at every node's port"

until_true 5 has_address echo || die "the Service has no load-balancer address: $RUN/loadbalancer.log"
address=$(address_of echo)
until_true 15 both_answer "$address" || die "not both endpoints answer at $address"
ok "both endpoints answer at the load-balancer address $address"

until_true 5 has_address udp || die "a Service that asks for an address has none: $RUN/loadbalancer.log"
[ "$(address_of udp)" = 172.31.0.240 ] || die "loadBalancerIP isn't honoured: $(address_of udp)"
until_true 15 datagram 172.31.0.240 || die "no echo of a datagram from 172.31.0.240"
ok "a datagram comes back from an address that was asked for"

if has_address outside; then die "an address outside of the range was given"; fi
ok "an address outside of the range is not given"

k -n $NS logs deployment/echo 2> /dev/null | grep . > /dev/null || die "no logs"
ok "logs"
