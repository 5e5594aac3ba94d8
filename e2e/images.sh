#!/usr/bin/env bash
# images.sh: build the images that the tests run beside Headgate; prints a line `NAME:TAG ARCHIVE` for each.
set -euo pipefail
. "$(dirname "$0")/env.sh"

# The names that the suite's manifests use. The one echo backend, of the module version in the suite's go.mod, is all of
# them, but for the DNS server of the version before.
coredns=v1.12.2
case $GATEWAY_API in
  "") program=sigs.k8s.io/gateway-api-conformance-images/echo-basic echo=registry.k8s.io/gateway-api/conformance/echo-basic
    tags=(v0.1.0 v0.2.0) ;;
  v1.6) program=sigs.k8s.io/gateway-api/conformance/echo-basic echo=registry.k8s.io/gateway-api/echo-basic
    tags=(v1.5.1 v1.6.0-dev.2 v1.6.0-dev.3) ;;
  *) die "the images of $GATEWAY_API's suite are not known" ;;
esac
dir=$CACHE/images/$(key "$GATEWAY_API" -- images.sh "$SUITE/go.mod" kind/probe kind/go.mod ../hack/image.sh)
if [ ! -d "$dir" ]; then
  say "building the images of the tests"
  if ! docker info > /dev/null 2>&1; then need buildah:buildah; fi
  new=$dir.new
  rm -rf "$new"
  mkdir -p "$new/root"
  (cd "$E2E/$SUITE" && nice -n 10 go build -ldflags '-s -w' -o "$new/root/" "$program")
  (cd "$E2E/kind" && nice -n 10 go build -ldflags '-s -w' -o "$new/root/" ./probe)
  # image NAME:TAG PROGRAM ARCHIVE [USER]. Not root, as in the suite's own image.
  image() {
    printf 'FROM scratch\nCOPY root/%s /%s\nUSER %s\nENTRYPOINT ["/%s"]\n' "$2" "$2" "${4:-65532:65532}" "$2" > "$new/Dockerfile"
    "$ROOT/hack/image.sh" "$1" "$new/Dockerfile" "$new" "$new/$3.tar"
  }
  for tag in "${tags[@]}"; do image "$echo:$tag" echo-basic "echo-$tag"; done
  image headgate.dev/e2e/probe:dev probe probe
  if [ "$GATEWAY_API" = v1.6 ]; then
    (cd / && GOBIN=$new/root nice -n 10 go install -ldflags '-s -w' "github.com/coredns/coredns@$coredns")
    image "registry.k8s.io/coredns/coredns:$coredns" coredns coredns 0:0 # its port is 53
  fi
  rm -rf "$new/root" "$new/Dockerfile"
  mv "$new" "$dir"
fi
for tag in "${tags[@]}"; do echo "$echo:$tag $dir/echo-$tag.tar"; done
echo "headgate.dev/e2e/probe:dev $dir/probe.tar"
if [ "$GATEWAY_API" = v1.6 ]; then echo "registry.k8s.io/coredns/coredns:$coredns $dir/coredns.tar"; fi
