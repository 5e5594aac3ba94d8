#!/usr/bin/env bash
# scenarios.sh [NAME...]: the scenarios of e2e/scenarios against the running cluster, all of them or those named.
set -euo pipefail
. "$(dirname "$0")/env.sh"

# Beside the product and with the flags of `make image`: whoever has built the image has built nearly all of this.
target=$(uname -m)-unknown-linux-gnu
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
flags=CARGO_TARGET_$(tr a-z- A-Z_ <<< "$target")_RUSTFLAGS
(cd "$ROOT" && env "$flags=$(cat hack/static.flags)" \
  cargo build --quiet --locked --profile fast --target "$target" -p headgate -p headgate-e2e)

# Clients that others wrote.
need h2load:nghttp2-client redis-cli:redis-tools chromium-headless-shell:chromium-headless-shell node:nodejs
GRPCURL=$("$ROOT/hack/tool.sh" grpcurl)
export GRPCURL
EXT_AUTHZ=$("$ROOT/hack/tool.sh" extauthz)
export EXT_AUTHZ
OPENID_PROVIDER=$("$E2E/openid-provider/install.sh")
export OPENID_PROVIDER

say "running the scenarios"
inside "$CARGO_TARGET_DIR/$target/fast/headgate-e2e" --namespace "$NAMESPACE" --gateway-class "$GATEWAY_CLASS" "$@" \
  | tee "$OUT/scenarios.log"
