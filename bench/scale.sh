#!/usr/bin/env bash
# Headgate beside a real API server with 1,000, 5,000 and 20,000 routes: how soon it serves, its memory, how soon a change is
# served, what it costs, and whether anything fails meanwhile. See README.md here for what the figures mean.
#
#   bench/scale.sh                                     # the release build: a quarter of an hour after it is built
#   bench/scale.sh --profile fast --routes 1000,5000   # the build of `make run`, and other sizes
#   bench/scale.sh --headgate FILE --routes 5000       # a binary that is there
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/env.sh

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
    *) echo "bench/scale.sh: --profile is release or fast, not '$profile'" >&2; exit 2 ;;
esac

for command in cargo go; do
    command -v "$command" > /dev/null || die "$command is missing: see https://rustup.rs and https://go.dev/doc/install"
done
hack/apt.sh ip:iproute2 unshare:util-linux setpriv:util-linux jq:jq git:git cc:build-essential cmake:cmake

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
if [ -z "$headgate" ]; then
    make --no-print-directory binary PROFILE="$profile"
    headgate=$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-gnu/$profile/headgate
fi
# The driver waits more than it works, but is optimised as well: it has the same two CPUs.
cargo build --locked --profile fast -p headgate-bench-scale
programs=$(e2e/kind/control-plane.sh)
module=$(gateway_api_module)

work=$(mktemp -d)
pid=
# The programs that the driver started end with it, and its network namespace with the last of them.
stop() {
    trap - EXIT INT TERM
    if [ -n "$pid" ]; then
        kill "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    fi
    # They may still be writing while they end.
    until_true 10 rm -rf "$work" 2> /dev/null || echo "bench/scale.sh: $work could not be removed" >&2
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Thousands of connections to backends.
ulimit -n "$(ulimit -Hn)"
# Who isn't root is it in a user namespace, where the kernel lets everybody have one.
own=(--net)
[ "$(id -u)" = 0 ] || own+=(--user --map-root-user)
unshare "${own[@]}" -- setpriv --pdeathsig TERM -- "$CARGO_TARGET_DIR/fast/headgate-bench-scale" \
    --headgate "$headgate" --profile "$profile" --programs "$programs" --work "$work" --results target/bench \
    --crds "$module/config/crd/experimental" --crds charts/headgate/files/crds "$@" &
pid=$!
status=0
wait "$pid" || status=$?
pid=
exit "$status"
