# shellcheck shell=bash
# Sourced by every script here: the pinned versions, the paths, and the few functions that the scripts share.
# In a shell of your own: `. e2e/env.sh; k get pods -A`.
# shellcheck disable=SC2034 # what is set here is used by those who source it

KIND_VERSION=v0.33.0
# The last minor version for containerd 1.x (Debian 12's) and for cgroup v1. go.mod in kind/ has it too.
KUBERNETES_VERSION=v1.35.4
KUBERNETES_LDFLAGS="-s -w -X k8s.io/component-base/version.gitVersion=$KUBERNETES_VERSION -X k8s.io/component-base/version.gitMajor=1"
KUBERNETES_LDFLAGS+=" -X k8s.io/component-base/version.gitMinor=35 -X k8s.io/component-base/version.gitTreeState=clean"
COREDNS_VERSION=v1.13.1
ETCD_TAG=3.6.6-0 # what kubeadm asks for; the binary is the one that Kubernetes' module requires
PAUSE_TAG=3.10
HELM_VERSION=v4.3.1
DEBIAN=bookworm # systemd 252: later ones do without cgroup v1
# Where Docker and a registry can be reached; the node image is made from packages otherwise.
STOCK_NODE_IMAGE=${HEADGATE_NODE_IMAGE:-kindest/node:v1.35.0@sha256:452d707d4862f52530247495d180205e029056831160e22870e37e3f6c1ac31f}

# The CRDs and the suite: those of conformance/, or of a folder there that this names (v1.6), for a new cluster.
GATEWAY_API=${GATEWAY_API:-}
SUITE=conformance${GATEWAY_API:+/$GATEWAY_API} # below e2e/

CLUSTER=headgate
LOADBALANCER_RANGE=172.31.0.0/24
GATEWAY_CLASS=headgate
NAMESPACE=headgate-system # of the product
IMAGE=headgate.dev/headgate:dev

E2E=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$E2E")
OUT=$ROOT/target/e2e
CACHE=${HEADGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/headgate}
RUN=$CACHE/run # the running cluster: everything that ends with it
# One per cache, as the engine in it: checkouts with caches of their own run beside each other.
NETNS=$CLUSTER-$(cksum <<< "$CACHE" | cut -d" " -f1)
export KUBECONFIG=$RUN/kubeconfig
export PATH=$RUN/bin:$PATH
export CGO_ENABLED=0 GOTOOLCHAIN=auto GOFLAGS=${GOFLAGS:--buildvcs=false}
mkdir -p "$CACHE" "$RUN/bin" "$OUT"
[ -e "$E2E/$SUITE/go.mod" ] || { echo "error: GATEWAY_API=$GATEWAY_API: there is no e2e/$SUITE" >&2; exit 1; }

# The engine of the running cluster: `own` is a dockerd in a network namespace of its own, `host` the machine's Docker.
engine() { cat "$RUN/engine" 2> /dev/null || echo none; }
if [ "$(engine)" = own ]; then export DOCKER_HOST=unix://$RUN/docker.sock; fi

# Run a program where the cluster's addresses are. Not `ip netns exec`: that one hides the cgroups behind a new /sys.
inside() { if [ "$(engine)" = own ]; then nsenter --net="/run/netns/$NETNS" "$@"; else "$@"; fi; }
k() { inside kubectl "$@"; }

say() { printf '\033[1m== %4ds %s\033[0m\n' "$SECONDS" "$*" >&2; }
die() { echo "error: $*" >&2; exit 1; }

# until_true SECONDS COMMAND...: poll it, and say whether it became true in time.
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || return 1
    sleep .2
  done
}

# key TEXT... [-- FILE...]: a hash that names a cache entry after everything that went into it. Files are given relative
# to e2e/, folders with all that is in them, so that every checkout with the same inputs shares the entry.
key() {
  local text=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do text+=("$1"); shift; done
  shift || true
  {
    printf '%s\n' "${text[@]}" "$(uname -m)"
    [ $# = 0 ] || (cd "$E2E" && find "$@" -type f ! -name '*_test.go' -print0 | sort -z | xargs -0 sha256sum)
  } | sha256sum | cut -c1-16
}

# need COMMAND:PACKAGE...: install the Debian packages of the commands that are missing.
need() {
  local pair missing=()
  for pair in "$@"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" > /dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    die "these Debian packages are missing, and only root can install them with apt-get: ${missing[*]}"
  fi
  say "apt-get install ${missing[*]}"
  apt-get update -qq || true # one broken source of many is no obstacle: the installation decides
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

# The folder of the very module that the suite is built against.
gateway_api_module() { (cd "$E2E/$SUITE" && go mod download -json sigs.k8s.io/gateway-api | jq -r .Dir); }

# Processes that outlive a script: NAME.pid holds the id and the start time, so that a recorded id that the kernel has
# given to somebody else in the meantime is never signalled.
started() { awk '{print $22}' "/proc/$1/stat" 2> /dev/null; }
record() { echo "$2 $(started "$2")" > "$RUN/$1.pid"; }
alive() {
  local pid start
  read -r pid start 2> /dev/null < "$RUN/$1.pid" && [ -n "$start" ] && [ "$(started "$pid")" = "$start" ]
}
gone() { ! alive "$1"; }
stop() {
  local pid
  if alive "$1"; then
    read -r pid _ < "$RUN/$1.pid"
    kill "$pid" 2> /dev/null || true
    until_true 20 gone "$1" || { kill -KILL "$pid" 2> /dev/null || true; until_true 5 gone "$1" || die "$1 ($pid) does not end"; }
  fi
  rm -f "$RUN/$1.pid"
}

# One script at a time changes the cluster. The lock ends with the script: programs left running must close descriptor 9.
lock() { exec 9> "$CACHE/lock"; flock -w 1800 9 || die "another run holds $CACHE/lock"; }

# A folder that may hold mounts of an interrupted run.
discard() {
  local mount
  while read -r mount; do umount -l "$mount"; done < <(awk -v d="$1/" 'index($2, d) == 1 {print $2}' /proc/mounts | sort -r)
  rm -rf --one-file-system "$1"
}
