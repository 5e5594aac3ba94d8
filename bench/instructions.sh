#!/usr/bin/env bash
# What a request costs in user instructions and system calls, which repeat on a busy machine, against what is recorded in
# instructions.json: 3 % more fails. Two minutes, after a build. See README.md here.
#
#   bench/instructions.sh                     # builds the static binary of `make image PROFILE=fast`, and compares
#   bench/instructions.sh --record            # records, where a change is meant
#   bench/instructions.sh --binary FILE       # of a binary that is there: of that build, or the figures aren't comparable
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
binary=
if [ "${1:-}" = --binary ]; then
    binary=${2:?a file}
    shift 2
fi
if [ -z "$binary" ]; then
    make --no-print-directory binary PROFILE=fast
    binary=$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-gnu/fast/headgate
fi
hack/apt.sh valgrind:valgrind strace:strace nginx:nginx h2load:nghttp2-client curl:curl taskset:util-linux
# All of the workspace's features, as the tests have them, so that nothing is built twice. Its own speed is of no account.
cargo build --quiet --locked --workspace --bin headgate-bench
"$CARGO_TARGET_DIR/debug/headgate-bench" instructions --profile fast --headgate "$binary" "$@"
