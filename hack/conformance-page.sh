#!/usr/bin/env bash
# Writes docs/conformance.md anew: what the kept report of the Gateway API's conformance suite says, profile by profile and
# feature by feature, beside what other implementations have published. With --check, fails where the page isn't what it
# would write.
#
# The others' reports are those in the suite's own Go module, at the version in e2e/conformance/go.mod: nothing is copied here.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

OURS=e2e/conformance/report.yaml
PROFILES=(GATEWAY-HTTP GATEWAY-GRPC GATEWAY-TLS GATEWAY-TCP GATEWAY-UDP)
# The newest report of each in the module, experimental channel, default mode.
OTHERS=(
    agentgateway=v1.6/agentgateway-agentgateway/v1.5.0-report.yaml
    Cilium=v1.6/cilium/experimental-v1.20.0-default-report.yaml
    "Envoy Gateway=v1.6/envoy-gateway/experimental-v1.9.0-default-report.yaml"
    Istio=v1.6/istio-istio/1.31.0-default-report.yaml
    kgateway=v1.6/kgateway/v2.4.5-report.yaml
    Kong=v1.6/kong-operator/experimental-v2.3.2-expressions-standard-report.yaml
    "NGINX GF=v1.6/nginx-nginx-gateway-fabric/experimental-2.7.0-default-report.yaml"
    Traefik=v1.6/traefik-traefik/experimental-v3.7.10-default-report.yaml
)

page=docs/conformance.md
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# facts NAME REPORT: the report's contents, a tab-separated fact a line, in $out/NAME
facts() {
    awk -v OFS='\t' '
        function clean(text) { gsub(/^[ -]+|["\047\r]/, "", text); return text }
        function flush_profile(   i) {
            print "result", name, "core", result["core"], passed["core"] + 0, failed["core"] + 0, skipped["core"] + 0
            print "result", name, "extended", result["extended"], passed["extended"] + 0, failed["extended"] + 0, skipped["extended"] + 0
            for (i = 1; i <= n; i++) print kind[i], name, item[i]
        }
        /^gatewayAPIVersion:/ { print "suite", clean($2) }
        /^date:/ { print "date", substr(clean($2), 1, 10) }
        /^  version:/ { print "version", clean($2) }
        /^profiles:/ { within = 1; next }
        /^[a-z]/ { within = 0 }
        !within { next }
        # Reports differ in how far lists are indented, so only what stands in a line counts.
        { key = $1 == "-" ? $2 : $1 }
        $1 == "-" && key ~ /:$/ { n = 0; split("", result); split("", passed); split("", failed); split("", skipped) }
        key == "core:" || key == "extended:" { part = clean(key); sub(/:/, "", part); list = "" }
        key == "result:" { result[part] = $2 }
        key == "Passed:" { passed[part] = $2 }
        key == "Failed:" { failed[part] = $2 }
        key == "Skipped:" { skipped[part] = $2 }
        key ~ /:$/ { list = "" }
        key ~ /^(supported|unsupported)Features:$/ || key ~ /^(failed|skipped)Tests:$/ { list = key; sub(/(Features|Tests):/, "", list) }
        $1 == "-" && list != "" { n++; kind[n] = list; item[n] = clean($2) }
        key == "name:" { name = $NF; flush_profile() }
    ' "$2" >"$out/$1"
}

# fact NAME KEY: the value of a fact that a report has once
fact() { awk -F'\t' -v key="$2" '$1 == key { print $2 }' "$out/$1"; }

# counts NAME PROFILE: core and extended tests, as "40 + 31"
counts() {
    awk -F'\t' -v profile="$2" '
        $1 == "result" && $2 == profile {
            all = $5 + $6 + $7
            text = ($6 + $7 == 0) ? all : ($5 " of " all)
            if ($3 == "core") core = text; else extended = text
        }
        END { print (core == "") ? "–" : core " + " extended }
    ' "$out/$1"
}

# mark NAME FEATURE [PROFILE]: ✓ supported and its tests pass, ✗ claimed and a test fails, – not supported, empty: unknown
# to that version of the suite
mark() {
    awk -F'\t' -v feature="$2" -v only="${3:-}" '
        # What 1.7 calls otherwise.
        function now(name) {
            if (name == "GatewayInfrastructurePropagation") return "GatewayInfrastructure"
            if (name == "HTTPRouteRetry") return "HTTPRouteRetryCodes"
            return name
        }
        only != "" && $2 != only { next }
        $1 == "result" && $3 == "extended" { bad[$2] = $6 > 0 }
        $1 == "supported" && now($3) == feature { mark = bad[$2] ? "✗" : (mark == "✗" ? mark : "✓") }
        $1 == "unsupported" && now($3) == feature && mark == "" { mark = "–" }
        END { print mark }
    ' "$out/$1"
}

row() { printf '|'; printf ' %s |' "$@"; echo; }
rule() { printf '|%.0s---' $(seq "$1"); echo '|'; }

facts ours "$OURS"
module=$(cd e2e/conformance && GOTOOLCHAIN=auto go mod download -json sigs.k8s.io/gateway-api/conformance | jq -r '.Dir, .Version')
{ read -r folder; read -r version; } <<<"$module"
names=()
for other in "${OTHERS[@]}"; do
    names+=("${other%%=*}")
    facts "${other%%=*}" "$folder/reports/${other#*=}"
done
mapfile -t features < <(awk -F'\t' '$1 == "supported" || $1 == "unsupported" { print $3 }' "$out/ours" | sort -u)

{
    cat <<HEAD
# Conformance

<!-- Written by hack/conformance-page.sh from e2e/conformance/report.yaml: run \`make gen\`. -->

The [Gateway API's own conformance suite](https://gateway-api.sigs.k8s.io/concepts/conformance/), $(fact ours suite), experimental channel, against the chart's
installation with two replicas in a kind cluster; \`make test\` runs it. The report of $(fact ours date) is kept in
[e2e/conformance/report.yaml](../e2e/conformance/report.yaml).

With the CRDs of v1.6.3, that version's suite passes as well, all five profiles, nothing skipped: \`GATEWAY_API=v1.6 e2e/up.sh\`, then
\`e2e/conformance.sh\`; [its report](../e2e/conformance/v1.6/report.yaml).

## Headgate, by profile

HEAD
    row Profile Core Passed Failed Skipped Extended Passed Failed Skipped
    rule 9
    for profile in "${PROFILES[@]}"; do
        mapfile -t cells < <(awk -F'\t' -v profile="$profile" '
            $1 == "result" && $2 == profile { print $4; print $5; print $6; print $7 }' "$out/ours")
        [ ${#cells[@]} -gt 0 ] || cells=("not run" "" "" "" "not run" "" "" "")
        row "\`$profile\`" "${cells[@]}"
    done
    for kind in failed skipped; do
        awk -F'\t' -v kind="$kind" '$1 == kind { print "\n- `" $3 "` of " $2 ": " kind }' "$out/ours"
    done
    cat <<'TEXT'

## Headgate, by extended feature

✓ supported, and its tests pass (for `ClusterTrustBundle`, `GatewayListenerFilters` and both `GatewayAddressRoutability…` the suite has none: unit
tests of ours stand in); ✗ claimed, and a test of the profile fails; – not supported; empty: not of that profile, or
the profile wasn't run.

TEXT
    row Feature "${PROFILES[@]#GATEWAY-}"
    rule $((${#PROFILES[@]} + 1))
    for feature in "${features[@]}"; do
        cells=()
        for profile in "${PROFILES[@]}"; do cells+=("$(mark ours "$feature" "$profile")"); done
        row "\`$feature\`" "${cells[@]}"
    done
    cat <<TEXT

## Beside others

What they have published themselves, in the reports that the suite's module \`sigs.k8s.io/gateway-api/conformance@$version\` holds. They were
made with the version of the suite that stands below, which has fewer tests than Headgate's: compare features, not counts.

TEXT
    row Implementation Version Suite Report "${PROFILES[@]#GATEWAY-}"
    rule $((${#PROFILES[@]} + 4))
    for name in ours "${names[@]}"; do
        link='[report](../e2e/conformance/report.yaml)'
        label=Headgate
        for other in "${OTHERS[@]}"; do
            [ "${other%%=*}" = "$name" ] || continue
            label=$name
            link="[report](https://github.com/kubernetes-sigs/gateway-api/blob/$version/conformance/reports/${other#*=})"
        done
        cells=()
        for profile in "${PROFILES[@]}"; do cells+=("$(counts "$name" "$profile")"); done
        row "$label" "$(fact "$name" version)" "$(fact "$name" suite)" "$link" "${cells[@]}"
    done
    cat <<'TEXT'

Core + extended tests that passed; – the profile is not in the report. By feature, in any profile (empty: their version of the suite
doesn't know it; `GatewayInfrastructurePropagation` and `HTTPRouteRetry` of 1.6 stand in the rows of their successors):

TEXT
    row Feature Headgate "${names[@]}"
    rule $((${#names[@]} + 2))
    for feature in "${features[@]}"; do
        cells=()
        for name in ours "${names[@]}"; do cells+=("$(mark "$name" "$feature")"); done
        row "\`$feature\`" "${cells[@]}"
    done
} >"$out/page"

if [ "${1:-}" = --check ]; then
    diff -u "$page" "$out/page" || { echo "conformance-page.sh: $page is out of date: run \`make gen\`" >&2; exit 1; }
else
    cp "$out/page" "$page"
fi
