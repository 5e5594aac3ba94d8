#!/usr/bin/env bash
# Installs redis-server, which tests of shared rate limits start for themselves, where it isn't there.
set -euo pipefail
exec "$(dirname "$0")/apt.sh" redis-server:redis-server
