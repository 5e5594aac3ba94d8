#!/usr/bin/env bash
# Prints the path of a development tool, after building it where it isn't there yet.
#
#   hack/tool.sh helm          # a path such as ~/.cache/headgate/bin/helm-v4.3.1
#
# Tools live outside the checkout, one file per version, so that every checkout and every CI run shares them.
set -euo pipefail

HELM=v4.3.1
CARGO_DENY=0.20.2
KOPIUM=0.24.1
GRPCURL=v1.9.4
# Istio's sample of an authorizer, as of Istio's main branch on that day: releases of Istio aren't modules.
EXTAUTHZ=v0.0.0-20260827124520-eed52ebb66ad

bin=${HEADGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/headgate}/bin

# install NAME PATH COMMAND...: runs COMMAND, which must leave the program NAME in $new, and moves it to PATH at once,
# so that two callers at a time, or an interrupted one, never leave half a file.
install() {
    local name=$1 path=$2
    shift 2
    if [ ! -x "$path" ]; then
        echo "tool.sh: building ${path##*/}" >&2
        new=$(mktemp -d)
        trap 'chmod -R u+w "$new"; rm -rf "$new"' EXIT
        "$@" >&2
        mkdir -p "$bin"
        mv "$new/$name" "$path.$$"
        mv "$path.$$" "$path"
    fi
    echo "$path"
}

# need PROGRAM CURE
need() {
    command -v "$1" >/dev/null || { echo "tool.sh: $1 is missing: $2" >&2; exit 1; }
}

helm() {
    need go "install Go 1.24 or newer (https://go.dev/dl)"
    # From / so that no go.mod of a checkout takes part.
    (cd / && GOBIN=$new GOTOOLCHAIN=auto GOFLAGS='' CGO_ENABLED=0 go install -ldflags='-s -w' "helm.sh/helm/v4/cmd/helm@$HELM")
}

grpcurl() {
    need go "install Go 1.24 or newer (https://go.dev/dl)"
    (cd / && GOBIN=$new GOTOOLCHAIN=auto GOFLAGS='' CGO_ENABLED=0 go install -ldflags='-s -w' "github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL")
}

extauthz() {
    need go "install Go 1.24 or newer (https://go.dev/dl)"
    (cd / && GOBIN=$new GOTOOLCHAIN=auto GOFLAGS='' CGO_ENABLED=0 go install -ldflags='-s -w' "istio.io/istio/samples/extauthz/cmd/extauthz@$EXTAUTHZ")
}

# cargo_tool NAME VERSION
cargo_tool() {
    need cargo "install Rust (https://rustup.rs)"
    (cd / && cargo install --quiet --locked --version "$2" --root "$new" --target-dir "$new/target" "$1")
    mv "$new/bin/$1" "$new/$1"
}

case ${1:-} in
    helm) install helm "$bin/helm-$HELM" helm ;;
    grpcurl) install grpcurl "$bin/grpcurl-$GRPCURL" grpcurl ;;
    extauthz) install extauthz "$bin/extauthz-$EXTAUTHZ" extauthz ;;
    cargo-deny) install cargo-deny "$bin/cargo-deny-$CARGO_DENY" cargo_tool cargo-deny "$CARGO_DENY" ;;
    kopium) install kopium "$bin/kopium-$KOPIUM" cargo_tool kopium "$KOPIUM" ;;
    *) echo "usage: hack/tool.sh helm|grpcurl|extauthz|cargo-deny|kopium" >&2; exit 2 ;;
esac
