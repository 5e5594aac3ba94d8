#!/usr/bin/env bash
# Tests of the chart that need no cluster: lint, render with several values, and values that the schema must refuse.
# An installation is e2e's affair.
set -euo pipefail
cd "$(dirname "$0")/.."

helm=$(hack/tool.sh helm)
chart=charts/headgate
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

fail() { echo "chart.sh: $*" >&2; exit 1; }

# render NAME ARGUMENT...: the manifests, in $out/NAME.yaml
render() {
    local name=$1
    shift
    "$helm" template headgate "$chart" --namespace headgate-system "$@" >"$out/$name.yaml" || fail "$name doesn't render"
}

# has NAME TEXT
has() { grep -qF -- "$2" "$out/$1.yaml" || fail "$1 lacks: $2"; }
# made NAME KIND, unmade NAME KIND: whether there is an object of that kind
made() { grep -qx "kind: $2" "$out/$1.yaml" || fail "$1 has no $2"; }
unmade() { ! grep -qx "kind: $2" "$out/$1.yaml" || fail "$1 has a $2"; }

# refused TEXT ARGUMENT...: the schema says no, and its message has TEXT
refused() {
    local text=$1
    shift
    if "$helm" template headgate "$chart" "$@" >/dev/null 2>"$out/error"; then fail "accepted: $*"; fi
    grep -qF -- "$text" "$out/error" || fail "refused for another reason: $*: $(cat "$out/error")"
}

"$helm" lint --strict --quiet "$chart"

render default
for kind in Deployment ServiceAccount ClusterRole ClusterRoleBinding Role RoleBinding GatewayClass PodDisruptionBudget \
    CustomResourceDefinition Service; do
    made default "$kind"
done
unmade default ServiceMonitor
unmade default NetworkPolicy
has default "image: \"headgate.dev/headgate:$(sed -n 's/^appVersion: //p' $chart/Chart.yaml)\""
has default "replicas: 2"
has default "readOnlyRootFilesystem: true"
has default "runAsNonRoot: true"
has default "allowPrivilegeEscalation: false"
# Least privilege: no wildcard anywhere in the rules.
grep -E '^ *(apiGroups|resources|verbs):.*\*' "$out/default.yaml" && fail "a rule has a wildcard"
# Secrets are read only.
awk '/resources: \[.*secrets/ { getline; if (/create|update|patch|delete/) exit 1 }' "$out/default.yaml" ||
    fail "a rule writes Secrets"

render everything --set image.repository=example.com/headgate --set image.tag=v9 --set replicas=3 --set threads=2 \
    --set 'secretNamespaces={default,infra}' --set metrics.serviceMonitor.enabled=true \
    --set networkPolicy.enabled=true --set gatewayService.type=NodePort --set gatewayService.loadBalancerClass=example.com/lb \
    --set 'extraArgs={--log-level=debug}' --set podAnnotations.a=b --set priorityClassName=system-cluster-critical
has everything 'image: "example.com/headgate:v9"'
has everything "replicas: 3"
made everything ServiceMonitor
made everything NetworkPolicy
has everything "--secret-namespaces=default,infra"
has everything "--service-type=NodePort"
has everything "--load-balancer-class=example.com/lb"
# Secrets come from these namespaces only: the rule stands in a Role in each, not in the ClusterRole.
[ "$(grep -cF 'resources: [secrets]' "$out/everything.yaml")" = 2 ] || fail "one rule for Secrets in each namespace"

render little --set gatewayClass.create=false --set crds.install=false --set metrics.service.enabled=false \
    --set podDisruptionBudget.enabled=false --set serviceAccount.create=false --set serviceAccount.name=mine
for kind in GatewayClass CustomResourceDefinition PodDisruptionBudget ServiceAccount; do unmade little "$kind"; done
has little "serviceAccountName: mine"

# The arguments that the chart gives are ones the binary knows.
if [ -n "${HEADGATE:-}" ]; then
    "$HEADGATE" run --help >"$out/help.txt"
    grep -ohE -- '- --[a-z-]+' "$out"/*.yaml | sort -u | while read -r _ flag; do
        grep -qE -- "(^|[ ,])$flag( |$|=)" "$out/help.txt" || fail "headgate run has no $flag"
    done
fi

refused replicas --set replicas=many
refused replica --set replica=3
refused gatewayService --set gatewayService.type=loadbalancer
refused accessLog --set accessLog=xml
refused pullPolicy --set image.pullPolicy=Sometimes
refused controllerName --set controllerName=headgate
refused portRange --set portRange.first=80
refused secretNamespaces --set 'secretNamespaces={Not_A_Namespace}'

echo "chart.sh: ok"
