#!/usr/bin/env bash
# image.sh NAME:TAG DOCKERFILE CONTEXT OUT.tar: build an image into a docker archive, with Docker where there is an
# engine, else with buildah. Without an engine only `FROM scratch` and COPY can work: nothing is pulled.
set -euo pipefail
[ $# = 4 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
name=$1 dockerfile=$2 context=$3 out=$4
mkdir -p "$(dirname "$out")"

if docker info > /dev/null 2>&1; then
  docker build --quiet --tag "$name" --file "$dockerfile" "$context" > /dev/null
  docker save --output "$out.new" "$name"
elif command -v buildah > /dev/null; then
  # A store of its own, thrown away: nothing of a build is worth keeping beside the archive, and nobody else's is touched.
  store=$(mktemp -d)
  trap 'rm -rf "$store"' EXIT
  export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
  b=(buildah --root "$store/root" --runroot "$store/run")
  # Without a time stamp of its own the same input would make another image each time, and a roll-out of it.
  "${b[@]}" bud --quiet --timestamp 0 --tag "$name" --file "$dockerfile" "$context" > /dev/null
  rm -f "$out.new"
  "${b[@]}" push --quiet "$name" "docker-archive:$out.new:$name"
else
  echo "image.sh: needs a Docker engine, or buildah (apt-get install buildah)" >&2
  exit 1
fi
mv "$out.new" "$out"
