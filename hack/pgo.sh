#!/usr/bin/env bash
# Profile-guided optimisation of the release build: the compiler is told how often each function and branch ran under load, so
# that what a request needs lies together, and what is hardly ever needed is small and elsewhere. It is told by a file that is
# committed: a release is built in one go, and is the same everywhere. Functions that are newer than the file are built
# without it.
#
#   hack/pgo.sh flags   # rustc's flags; `make binary PROFILE=release` uses them
#   hack/pgo.sh train   # measures anew (`make pgo`): before a release, and where a request's path has changed
#
# Training takes twenty minutes where bench/scale.sh's API server is built already. What runs is the load of bench/, every
# scenario, and thousands of routes beside a real API server: a start and edits.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    echo "pgo.sh: $*" >&2
    exit 1
}

hack/apt.sh xz:xz-utils
kept=hack/release.profdata.xz
folder=${HEADGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/headgate}/pgo

flags() {
    local unpacked
    unpacked=$folder/$(sha256sum < "$kept" | cut -c1-16).profdata
    if [ ! -e "$unpacked" ]; then
        mkdir -p "$folder"
        xz -dc "$kept" > "$unpacked.$$"
        mv "$unpacked.$$" "$unpacked"
    fi
    # The linker keeps apart what the compiler marks as hot, as for the start only, and as unlikely.
    echo "-C profile-use=$unpacked -C link-arg=-Wl,-z,keep-text-section-prefix"
}

train() {
    local target tools counts binary
    target=$(uname -m)-unknown-linux-gnu
    tools=$(rustc --print sysroot)/lib/rustlib/$target/bin
    if [ ! -x "$tools/llvm-profdata" ]; then
        rustup component add llvm-tools || die "llvm-profdata is missing: rustup component add llvm-tools"
    fi
    # Always the same: it is among the flags, and others would have everything built again.
    counts=$folder/counts
    rm -rf "$counts"

    # As the release build is, or its functions have other names; only the last step is a quicker one.
    CARGO_TARGET_DIR=$folder/target CARGO_PROFILE_RELEASE_STRIP=none \
        env "CARGO_TARGET_$(tr a-z- A-Z_ <<< "$target")_RUSTFLAGS=$(< hack/static.flags) -C profile-generate=$counts" \
        cargo rustc --locked --profile release --target "$target" -p headgate -- -C lto=thin
    binary=$folder/target/$target/release/headgate

    bench/run.sh --headgate "$binary" --rounds 1 --seconds 1 > /dev/null
    bench/scale.sh --headgate "$binary" --routes 5000 --starts 1 --counted 100 --edits 300 --samples 40 --requests 5000 > /dev/null

    "$tools/llvm-profdata" merge -o "$counts/release.profdata" "$counts"/*.profraw
    xz -9 --stdout "$counts/release.profdata" > "$kept"
    echo "pgo.sh: $kept is new: $(stat -c %s "$kept") bytes" >&2
}

case ${1:-} in
    flags | train) "$1" ;;
    *) die "flags or train, not '${1:-}'" ;;
esac
