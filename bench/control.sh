#!/usr/bin/env bash
# What a change costs Headgate's control plane, with 1,000, 5,000 and 20,000 routes: builds and runs bench/control. Needs
# nothing but Rust; see README.md here for what the figures mean.
#
#   bench/control.sh                              # a minute, after a build of minutes
#   bench/control.sh --routes 1000,20000 --times 400
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "bench/control.sh: cargo is missing: see https://rustup.rs" >&2; exit 1; }
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --quiet --locked --profile fast -p headgate-bench-control
exec "$CARGO_TARGET_DIR/fast/headgate-bench-control" "$@"
