# shellcheck shell=bash
# Sourced by up.sh and down.sh: the container engine under kind. Where Docker and a registry can be reached that is the
# machine's own; else a dockerd in a network namespace of its own, so that the machine's iptables and routes stay as they were.

choose_engine() {
  case $(engine) in
    own) return ;;
    host) ! docker info > /dev/null 2>&1 || return 0 ;; # the machine's Docker is gone, and the cluster with it
  esac
  if docker info > /dev/null 2>&1 \
    && { docker image inspect "$STOCK_NODE_IMAGE" > /dev/null 2>&1 || docker pull --quiet "$STOCK_NODE_IMAGE" > /dev/null; }; then
    echo host > "$RUN/engine"
    return
  fi
  [ "$(id -u)" = 0 ] || die "neither Docker with $STOCK_NODE_IMAGE is within reach, nor is this root, who could do without"
  echo own > "$RUN/engine"
  export DOCKER_HOST=unix://$RUN/docker.sock
}

engine_answers() { docker version > /dev/null 2>&1; }

start_engine() {
  [ "$(engine)" = own ] || return 0
  need dockerd:docker.io nsenter:util-linux ip:iproute2 iptables:iptables
  ln -sf /usr/bin/docker "$RUN/bin/docker" # the client that came with the daemon: another may stand earlier in PATH
  if alive dockerd && engine_answers; then return; fi
  say "starting dockerd"
  stop dockerd
  # A name without a namespace is what a machine leaves behind that went down with its /run on disk.
  if ! nsenter --net="/run/netns/$NETNS" true 2> /dev/null; then
    rm -f "/run/netns/$NETNS"
    ip netns add "$NETNS"
  fi
  inside ip link set lo up
  # dockerd takes any living process with a recorded id for its own.
  local pid
  rm -f "$RUN/docker.pid" "$RUN/docker.sock"
  if pid=$(cat "$RUN/docker-exec/containerd/containerd.pid" 2> /dev/null) && [ "$(cat "/proc/$pid/comm" 2> /dev/null)" != containerd ]; then
    rm -f "$RUN/docker-exec/containerd/containerd.pid"
  fi
  setsid nsenter --net="/run/netns/$NETNS" dockerd --host "$DOCKER_HOST" --data-root "$RUN/docker" --exec-root "$RUN/docker-exec" \
    --pidfile "$RUN/docker.pid" --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs --oom-score-adjust 0 \
    --bip 10.201.0.1/24 --default-address-pool base=10.202.0.0/16,size=24 --ip6tables=false \
    --add-runtime "restricted=$TOOLS/runc-restricted" --default-runtime restricted \
    > "$RUN/dockerd.log" 2>&1 < /dev/null 9>&- &
  record dockerd $!
  until_true 30 engine_answers || die "dockerd does not answer: $RUN/dockerd.log"
}

stop_engine() {
  [ "$(engine)" = own ] || return 0
  stop dockerd
  ip netns del "$NETNS" 2> /dev/null || true
  local mount controller
  while read -r mount; do umount -l "$mount"; done < <(awk -v d="$RUN/" 'index($2, d) == 1 {print $2}' /proc/mounts | sort -r)
  for controller in /sys/fs/cgroup/*/docker; do
    [ ! -d "$controller" ] || find "$controller" -depth -type d -exec rmdir {} + 2> /dev/null || true
  done
  rm -f "$RUN/docker.sock"
}
