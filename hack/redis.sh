#!/usr/bin/env bash
# Installs redis-server, which tests of shared rate limits start for themselves, where neither it nor Valkey is there.
set -euo pipefail

command -v redis-server >/dev/null && exit
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "redis.sh: redis-server is missing, and only root can install it with apt-get: apt-get install redis-server" >&2
    exit 1
fi
echo "redis.sh: apt-get install redis-server" >&2
# One broken source of many is no obstacle: the installation decides.
apt-get update -qq || true
# The service isn't started: 101 is policy-rc.d's word for that.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null
