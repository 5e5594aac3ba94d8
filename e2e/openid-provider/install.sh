#!/usr/bin/env bash
# install.sh: prints the path of the provider, after installing what it needs from npm's registry into the cache.
set -euo pipefail
. "$(dirname "$0")/../env.sh"

need npm:npm
made=$CACHE/openid-provider/$(key -- openid-provider)
if [ ! -e "$made" ]; then
  say "installing the OpenID provider from npm"
  mkdir -p "${made%/*}"
  new=$(mktemp -d "$made.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  cp "$E2E"/openid-provider/{package.json,package-lock.json,provider.mjs} "$new"
  npm ci --prefix "$new" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
  mv -T "$new" "$made" 2> /dev/null || [ -e "$made" ] # another one was faster
fi
echo "$made/provider.mjs"
