#!/usr/bin/env bash
# control-plane.sh: kube-apiserver and etcd, built from Go modules; prints the folder that holds them. They are a part of
# the node image, and all of a cluster that bench/scale.sh needs.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
dir=$CACHE/control-plane/$(key "$KUBERNETES_VERSION" "$KUBERNETES_LDFLAGS" -- kind/control-plane.sh kind/go.mod kind/etcd)
if [ ! -d "$dir" ]; then
  command -v go > /dev/null || die "needs Go 1.26 or later"
  # Whoever else builds it at the same time has a folder of its own.
  new=$dir.$$
  mkdir -p "$new"
  say "building kube-apiserver $KUBERNETES_VERSION and etcd (minutes the first time)"
  (cd "$E2E/kind" && nice -n 10 go build -ldflags "$KUBERNETES_LDFLAGS" -o "$new/" k8s.io/kubernetes/cmd/kube-apiserver ./etcd)
  mv -T "$new" "$dir" 2> /dev/null || rm -rf "$new"
fi
echo "$dir"
