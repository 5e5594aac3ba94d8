#!/usr/bin/env bash
# The definitions of Headgate's own resources, as their types say: one file each in the chart, from where `headgate crds` has them.
#
#   hack/crds.sh write|check
set -euo pipefail
cd "$(dirname "$0")/.."

folder=charts/headgate/files/crds
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

cargo run --quiet --locked -p headgate-crds --example definitions >"$out/all"
mkdir "$out/crds"
# Documents are separated by "---"; the first "  name:" of one is the definition's name, plural.group.
awk -v folder="$out/crds" '
    function flush() { if (text != "") { if (name == "") exit 1; printf "%s", text > (folder "/" name ".yaml") } text = ""; name = "" }
    /^---$/ { flush(); next }
    /^  name: / && name == "" { name = $2 }
    { text = text $0 "\n" }
    END { flush() }' "$out/all"

case ${1:-} in
    write)
        rm -rf "$folder"
        mkdir -p "$folder"
        cp "$out"/crds/*.yaml "$folder/"
        ;;
    check)
        diff -ru "$folder" "$out/crds" >&2 || { echo "crds.sh: $folder isn't what the types say: run make gen" >&2; exit 1; }
        ;;
    *) echo "usage: hack/crds.sh write|check" >&2; exit 2 ;;
esac
