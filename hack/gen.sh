#!/usr/bin/env bash
# Writes anew what is generated of kinds: Rust types from the CRDs of the Gateway API, and the schemas of all that files may hold. With
# --check, fails where the files aren't what it would write. Headgate's own schemas come from the chart: hack/crds.sh comes first.
#
# The CRDs are those of the Go module that the conformance suite is built from, so that there is one version of them.
set -euo pipefail
cd "$(dirname "$0")/.."

# Kinds whose types the gateway-api crate doesn't have in full at this version; `make gen` writes them.
TYPES=(gateways grpcroutes httproutes listenersets tcproutes udproutes xbackends xbackendtrafficpolicies)
# Kinds that files may hold: those of the Gateway API, and of Kubernetes itself. Headgate's own are the chart's.
SCHEMAS=(backendtlspolicies gatewayclasses gateways grpcroutes httproutes listenersets referencegrants tcproutes tlsroutes udproutes xbackends xbackendtrafficpolicies)
BUILT_IN=(ClusterTrustBundles ConfigMaps EndpointSlices Namespaces ObjectMeta Secrets Services)

out=.
if [ "${1:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
types=controller/src/api/generated
schemas=controller/src/source/schema
mkdir -p "$out/$types" "$out/$schemas"

module=$(cd e2e/conformance && GOTOOLCHAIN=auto go mod download -json sigs.k8s.io/gateway-api | jq -r .Dir)
crd() {
    case $1 in
        x*) echo "$module/config/crd/experimental/gateway.networking.x-k8s.io_$1.yaml" ;;
        *) echo "$module/config/crd/experimental/gateway.networking.k8s.io_$1.yaml" ;;
    esac
}
kopium=$(hack/tool.sh kopium)
for plural in "${TYPES[@]}"; do
    "$kopium" --schema=derived --derive=Default --derive=PartialEq --smart-derive-elision -f - \
        < "$(crd "$plural")" > "$out/$types/$plural.rs"
done
cargo build --quiet --locked -p headgate-crds --example kind_schema
kind_schema=${CARGO_TARGET_DIR:-target}/debug/examples/kind_schema
for plural in "${SCHEMAS[@]}"; do
    "$kind_schema" < "$(crd "$plural")" > "$out/$schemas/$plural.json"
done
for own in charts/headgate/files/crds/*.headgate.dev.yaml; do
    plural=${own##*/}
    "$kind_schema" < "$own" > "$out/$schemas/${plural%.headgate.dev.yaml}.json"
done
for plural in "${BUILT_IN[@]}"; do
    "$kind_schema" "${plural%s}" > "$out/$schemas/${plural,,}.json"
done

if [ "$out" != . ]; then
    for folder in "$types" "$schemas"; do
        # Only what is generated: mod.rs and the like are written by hand.
        for file in "$out/$folder"/*; do
            diff -u "$folder/${file##*/}" "$file" || { echo "gen.sh: $folder/${file##*/} is out of date: run \`make gen\`" >&2; exit 1; }
        done
    done
fi
