#!/usr/bin/env bash
# tools.sh: kind, kubectl, helm and the programs of the harness, built from Go modules; prints the folder that holds them.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
dir=$CACHE/tools/$(key "$KIND_VERSION" "$HELM_VERSION" "$KUBERNETES_VERSION" -- kind/go.mod kind/loadbalancer kind/probe kind/runc-restricted)
if [ ! -d "$dir" ]; then
  command -v go > /dev/null || die "needs Go 1.26 or later"
  new=$dir.new
  rm -rf "$new"
  mkdir -p "$new"
  say "building kind, helm, kubectl and the programs of the harness"
  GOBIN=$new nice -n 10 go install -ldflags '-s -w' "sigs.k8s.io/kind@$KIND_VERSION"
  GOBIN=$new nice -n 10 go install -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@$HELM_VERSION"
  (cd "$E2E/kind" && nice -n 10 go build -ldflags "$KUBERNETES_LDFLAGS" \
    -o "$new/" k8s.io/kubernetes/cmd/kubectl ./loadbalancer ./probe ./runc-restricted)
  mv "$new" "$dir"
fi
echo "$dir"
