#!/usr/bin/env bash
# up.sh [cluster]: a running cluster with load-balancer addresses, the Gateway API and Headgate's newest image; with
# `cluster`, without Headgate. What is there already and is not out of date is left alone.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$E2E/kind/engine.sh"
lock
IMAGE_ARCHIVE=${HEADGATE_IMAGE_ARCHIVE:-$ROOT/target/image/headgate.tar}
[ "${1:-}" = cluster ] || [ -e "$IMAGE_ARCHIVE" ] || die "no $IMAGE_ARCHIVE: run \`make image\` first"

node_image() {
  if [ "$(engine)" = host ]; then echo "$STOCK_NODE_IMAGE"; return; fi
  local archive name
  archive=$("$E2E/kind/node-image.sh")
  name=headgate.dev/e2e/node:$(basename "$archive" .tar)
  docker image inspect "$name" > /dev/null 2>&1 || {
    say "importing the node image"
    docker import --change 'ENV container=docker' --change 'ENTRYPOINT [ "/usr/local/bin/entrypoint", "/sbin/init" ]' "$archive" "$name" > /dev/null
  }
  echo "$name"
}

cluster_runs() {
  [ "$(cat "$RUN/cluster" 2> /dev/null)" = "$1" ] || return 1
  k get --raw=/readyz --request-timeout=5s > /dev/null 2>&1 || return 1
  k wait --for=condition=Ready nodes --all --timeout=10s > /dev/null 2>&1
}

start_cluster() {
  local image version workload
  image=$(node_image)
  version=$(key "$image" -- kind/cluster.yaml)
  cluster_runs "$version" && return
  say "creating the cluster"
  stop loadbalancer
  rm -rf "$RUN/loaded" "$RUN/cluster"
  inside kind delete cluster --quiet --name "$CLUSTER"
  inside kind create cluster --quiet --name "$CLUSTER" --config "$E2E/kind/cluster.yaml" --image "$image" --wait 180s
  # kind waits for the control plane's node alone, and a node is Ready without a working kube-proxy or DNS.
  k wait --for=condition=Ready nodes --all --timeout=120s > /dev/null
  for workload in $(k -n kube-system get daemonsets,deployments -o name); do
    k -n kube-system rollout status "$workload" --timeout=120s > /dev/null
  done
  [ "$(engine)" = host ] || docker image prune --all --force > /dev/null # node images of the past
  echo "$version" > "$RUN/cluster"
}

loadbalancer_ready() { grep -q 'giving addresses' "$RUN/loadbalancer.log"; }

start_loadbalancer() {
  local node root=() enter=()
  node=$(k get node "$CLUSTER-worker" -o jsonpath='{.status.addresses[?(@.type=="InternalIP")].address}')
  [ "$(id -u)" = 0 ] || root=(sudo)
  inside "${root[@]}" ip route replace "$LOADBALANCER_RANGE" via "$node"
  # Until kube-proxy has the rules of an address, connections to it are refused rather than lost: a SYN that is lost once
  # is lost again with every repetition, for the kernel remembers that it wasn't translated.
  inside docker exec "$CLUSTER-worker" ip route replace unreachable "$LOADBALANCER_RANGE"
  if alive loadbalancer && [ "$(cat "$RUN/loadbalancer.version")" = "$TOOLS" ]; then return; fi
  stop loadbalancer
  : > "$RUN/loadbalancer.log"
  # Not by `inside`: a shell would stand between us and the process whose id is recorded, and could end before it.
  [ "$(engine)" != own ] || enter=(nsenter --net="/run/netns/$NETNS")
  setsid "${enter[@]}" "$TOOLS/loadbalancer" -range "$LOADBALANCER_RANGE" > "$RUN/loadbalancer.log" 2>&1 < /dev/null 9>&- &
  record loadbalancer $!
  echo "$TOOLS" > "$RUN/loadbalancer.version"
  until_true 30 loadbalancer_ready || die "the load-balancer loop does not start: $RUN/loadbalancer.log"
}

image_id() { tar -xOf "$1" manifest.json | sha256sum | cut -c1-16; }

# load NAME:TAG ARCHIVE: into every node, unless this very image is there.
load() {
  local stamp=$RUN/loaded/${1//\//_} id
  id=$(image_id "$2")
  [ "$(cat "$stamp" 2> /dev/null)" != "$id" ] || return 0
  say "loading $1"
  inside kind load image-archive --quiet --name "$CLUSTER" "$2"
  mkdir -p "$RUN/loaded"
  echo "$id" > "$stamp"
}

# The CRDs of the experimental channel. Server-side: HTTPRoute is larger than an annotation may be.
apply_gateway_api() {
  local module
  module=$(gateway_api_module)
  k apply --server-side --force-conflicts -k "$module/config/crd/experimental" > /dev/null
  k wait --for=condition=Established crd --all --timeout=60s > /dev/null
}

install_headgate() {
  load "$IMAGE" "$IMAGE_ARCHIVE"
  say "installing the chart"
  # The tag never changes: the image's own identity in the pods' template is what makes a new image roll, and an old one not.
  inside helm upgrade --install headgate "$ROOT/charts/headgate" --namespace "$NAMESPACE" --create-namespace \
    --values "$E2E/values.yaml" --set-string "podAnnotations.headgate\.dev/image=$(image_id "$IMAGE_ARCHIVE")" \
    --wait --timeout 180s > /dev/null || {
    k -n "$NAMESPACE" get pods >&2
    k -n "$NAMESPACE" logs deployment/headgate --tail=20 >&2 || true
    die "Headgate does not become ready"
  }
  k wait --for=condition=Accepted "gatewayclass/$GATEWAY_CLASS" --timeout=60s > /dev/null
  until_true 60 says_its_features || die "GatewayClass $GATEWAY_CLASS doesn't list the features of this image"
}

# The suite reads there what to test. After an upgrade the list is the old one until the new leader has begun.
says_its_features() {
  local binary=$ROOT/target/image/context/headgate
  [ -x "$binary" ] || return 0 # somebody else's image
  diff -q <(k get gatewayclass "$GATEWAY_CLASS" -o json | jq -S .status.supportedFeatures) \
    <(k get gatewayclass "$GATEWAY_CLASS" -o json | jq 'del(.status)' | "$binary" translate -f - --output json 2> /dev/null |
      jq -S '.statuses[0].status.supportedFeatures') > /dev/null
}

choose_engine
TOOLS=$("$E2E/kind/tools.sh")
for tool in kind kubectl helm; do ln -sf "$TOOLS/$tool" "$RUN/bin/"; done
need jq:jq
start_engine
start_cluster
start_loadbalancer
while read -r name archive; do load "$name" "$archive"; done < <("$E2E/images.sh")
apply_gateway_api
[ "${1:-}" = cluster ] || install_headgate
say "up: KUBECONFIG=$KUBECONFIG$([ "$(engine)" = host ] || echo ", inside nsenter --net=/run/netns/$NETNS")"
