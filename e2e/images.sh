#!/usr/bin/env bash
# images.sh: build the images that the tests run beside Headgate; prints a line `NAME:TAG ARCHIVE` for each.
set -euo pipefail
. "$(dirname "$0")/env.sh"

# The names that the suite's manifests use. The one program, of the module version in conformance/go.mod, is all of them.
echo=registry.k8s.io/gateway-api/conformance/echo-basic
dir=$CACHE/images/$(key -- images.sh conformance/go.mod kind/probe kind/go.mod ../hack/image.sh)
if [ ! -d "$dir" ]; then
  say "building the images of the tests"
  if ! docker info > /dev/null 2>&1; then need buildah:buildah; fi
  new=$dir.new
  rm -rf "$new"
  mkdir -p "$new/root"
  (cd "$E2E/conformance" && nice -n 10 go build -ldflags '-s -w' -o "$new/root/" sigs.k8s.io/gateway-api-conformance-images/echo-basic)
  (cd "$E2E/kind" && nice -n 10 go build -ldflags '-s -w' -o "$new/root/" ./probe)
  # image NAME:TAG PROGRAM ARCHIVE. Not root, as in the suite's own image.
  image() {
    printf 'FROM scratch\nCOPY root/%s /%s\nUSER 65532:65532\nENTRYPOINT ["/%s"]\n' "$2" "$2" "$2" > "$new/Dockerfile"
    "$ROOT/hack/image.sh" "$1" "$new/Dockerfile" "$new" "$new/$3.tar"
  }
  image $echo:v0.1.0 echo-basic echo-1
  image $echo:v0.2.0 echo-basic echo-2
  image headgate.dev/e2e/probe:dev probe probe
  rm -rf "$new/root" "$new/Dockerfile"
  mv "$new" "$dir"
fi
echo "$echo:v0.1.0 $dir/echo-1.tar"
echo "$echo:v0.2.0 $dir/echo-2.tar"
echo "headgate.dev/e2e/probe:dev $dir/probe.tar"
