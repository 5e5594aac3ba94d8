#!/usr/bin/env bash
# What the release build is optimised by. A profile tells the compiler how often each function and branch ran under load, so
# that what a request needs lies together, and what is hardly ever needed is small and elsewhere. A list tells the linker
# what runs at all: the kernel maps 64 KiB around whatever does, and what lies there takes memory too. Both are files that are
# committed: a release is built in one go, and is the same everywhere. Functions that are newer are built without.
#
#   hack/pgo.sh flags   # rustc's flags for everything; `make binary PROFILE=release` uses them
#   hack/pgo.sh link    # and for the last step
#   hack/pgo.sh check B # fails where the profile knew next to nothing of what is in a binary
#   hack/pgo.sh train   # measures anew (`make pgo`): before a release, and where a request's path has changed
#
# Training takes half an hour where bench/scale.sh's API server is built already. What runs is the load of bench/,
# every scenario, and thousands of routes beside a real API server: a start and edits.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    echo "pgo.sh: $*" >&2
    exit 1
}

hack/apt.sh xz:xz-utils
profile=hack/release.profdata.xz
order=hack/release.order.xz
folder=${HEADGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/headgate}/pgo
target=$(uname -m)-unknown-linux-gnu

# A committed file, unpacked: under another name whenever it is another, so that what is built by it is built again.
unpacked() {
    local file
    file=$folder/$(sha256sum < "$1" | cut -c1-16)
    if [ ! -e "$file" ]; then
        mkdir -p "$folder"
        xz -dc "$1" > "$file.$$"
        mv "$file.$$" "$file"
    fi
    echo "$file"
}

flags() {
    # The linker keeps apart what the compiler marks as hot, as for the start only, and as unlikely.
    echo "-C profile-use=$(unpacked "$profile") -C link-arg=-Wl,-z,keep-text-section-prefix"
}

link() {
    # Of LLVM's linker, which is rustc's own there. The list has what is hot in the order of its calls.
    if [ "$target" = x86_64-unknown-linux-gnu ]; then
        echo "-C link-arg=-Wl,--symbol-ordering-file=$(unpacked "$order"),--no-warn-symbol-ordering,--call-graph-profile-sort=none"
    fi
}

# Functions go by names that are made of the profile in Cargo.toml as well: where they are others, nothing is known to be hot, and
# no compiler says so.
check() {
    local hot
    # Of others nothing was measured.
    [ "$target" = x86_64-unknown-linux-gnu ] || return 0
    hack/apt.sh readelf:binutils
    hot=$(readelf --wide --section-headers "$1" | sed -n 's/.* \.text\.hot  *PROGBITS  *[0-9a-f]* [0-9a-f]* \([0-9a-f]*\) .*/\1/p')
    hot=$((16#${hot:-0} / 1024))
    if [ "$hot" -lt 1024 ]; then
        die "$1 has $hot KiB that are known to be hot: $profile is of something else; run \`make pgo\`"
    fi
    echo "pgo.sh: $hot KiB of it are known to be hot"
}

# cargo rustc for the release with symbols, with flags of ours.
build() {
    local flags=$1
    shift
    env "CARGO_TARGET_$(tr a-z- A-Z_ <<< "$target")_RUSTFLAGS=$(< hack/static.flags) $flags" \
        cargo rustc --locked --profile release --target "$target" -p headgate --bin headgate -- "$@"
}

train() {
    local tools counts
    tools=$(rustc --print sysroot)/lib/rustlib/$target/bin
    if [ ! -x "$tools/llvm-profdata" ]; then
        rustup component add llvm-tools || die "llvm-profdata is missing: rustup component add llvm-tools"
    fi
    # Always the same: it is among the flags, and others would have everything built again.
    counts=$folder/counts
    rm -rf "$counts"

    # As the release build is, or its functions have other names; only the last step is a quicker one.
    CARGO_TARGET_DIR=$folder/target build "-C profile-generate=$counts" -C lto=thin
    counted "$folder/target/$target/release/headgate"
    "$tools/llvm-profdata" merge -o "$counts/release.profdata" "$counts"/*.profraw
    xz -9 --stdout "$counts/release.profdata" > "$profile"

    build "$(flags)"
    listed "${CARGO_TARGET_DIR:-$PWD/target}/$target/release/headgate"
    echo "pgo.sh: new: $(stat -c '%n %s bytes' "$profile" "$order" | paste -sd, -)" >&2
}

# Counts by everything that bench/ measures.
counted() {
    bench/run.sh --headgate "$1" --rounds 1 --seconds 1 > /dev/null
    bench/scale.sh --headgate "$1" --routes 5000 --starts 1 --counted 100 --edits 300 --samples 40 --requests 5000 > /dev/null
}

# Lists what runs at a start, while routes change and requests come, libraries of C among it. Then the rest of what is hot, which
# other loads need, as the linker has it.
listed() {
    local work
    hack/apt.sh nm:binutils
    work=$(mktemp -d)
    cc -O1 -Wall -o "$work/ran" hack/ran.c
    nm --numeric-sort --format=sysv "$1" > "$work/symbols"
    printf '#!/bin/sh\nexec %s %s %s "$@" < %s\n' "$work/ran" "$work/ran.txt" "$1" "$work/symbols" > "$work/headgate"
    chmod +x "$work/headgate"
    bench/scale.sh --headgate "$work/headgate" --routes 1000 --starts 1 --counted 10 --edits 100 --samples 20 --requests 1000 > /dev/null
    sort -u -o "$work/ran.txt" "$work/ran.txt"
    awk -F '|' '{ gsub(/ /, ""); if ($7 ~ /^\.text/) print $1, $7 }' "$work/symbols" > "$work/all"
    {
        awk 'NR == FNR { ran[$1]; next } $1 in ran { print $1 }' "$work/ran.txt" "$work/all"
        awk 'NR == FNR { ran[$1]; next } !($1 in ran) && $2 == ".text.hot" { print $1 }' "$work/ran.txt" "$work/all"
    } | xz -9 --stdout > "$order"
    rm -rf "$work"
}

case ${1:-} in
    flags | link | train) "$1" ;;
    check) check "${2:?a binary}" ;;
    *) die "flags, link, check or train, not '${1:-}'" ;;
esac
