#!/usr/bin/env bash
# What `make run` does once the binary is there: echo backends and the gateway on loopback, curl lines to try, and an
# orderly end on Ctrl-C.
#
#   hack/run.sh target/fast/headgate
set -euo pipefail
cd "$(dirname "$0")/.."

headgate=$1
pids=()

stop() {
    trap - EXIT INT TERM
    # The gateway first, so that it drains while its backends still answer.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
}
trap stop EXIT
trap 'exit 0' INT TERM

# start PROGRAM ARGUMENT...: in a process group of its own, so that Ctrl-C reaches this script alone
start() {
    set -m
    "$@" &
    set +m
    pids+=($!)
}

# answers PORT: whether something listens there
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# await PORT: waits until the last process that was started listens; fails when it ends first
await() {
    until answers "$1"; do
        kill -0 "${pids[-1]}" 2>/dev/null || { echo "run.sh: it ended before it listened on port $1" >&2; exit 1; }
        sleep 0.1
    done
}

for port in 8080 9001 9002 9003 15000; do
    ! answers "$port" || { echo "run.sh: port $port is taken: stop what listens there first" >&2; exit 1; }
done

n=9001
for name in shop web-v1 web-v2; do
    start "$headgate" echo --address 127.0.0.1 --port $n --name $name 2>/dev/null
    await $n
    n=$((n + 1))
done
start "$headgate" run -f examples/quickstart
await 8080

cat <<'TRY'

Headgate serves examples/quickstart on http://127.0.0.1:8080. Try, in another terminal:

  curl -s http://127.0.0.1:8080/shop/cart                     # by path
  curl -s -H 'x-canary: true' http://127.0.0.1:8080/web       # the canary, by header (others: one in ten)
  curl -si http://127.0.0.1:8080/old/cart                     # a redirect

Edit examples/quickstart/routes.yaml and see it change. Metrics: http://127.0.0.1:15000/metrics
Ctrl-C stops everything.

TRY
wait "${pids[-1]}"
