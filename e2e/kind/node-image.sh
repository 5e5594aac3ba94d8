#!/usr/bin/env bash
# node-image.sh: a node image for kind without any image registry: Debian packages, Kubernetes, etcd and CoreDNS from Go
# modules, and the files of kind's own base image; prints the archive of its root file system. It does what kind's
# images/base/Dockerfile and `kind build node-image` do, and preloads the same images that those preload.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
HERE=$E2E/kind
PACKAGES=systemd,systemd-sysv,dbus,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,libseccomp2,pigz,e2fsprogs
PACKAGES+=,bash,ca-certificates,curl,jq,procps,containerd,runc,containernetworking-plugins,ebtables,socat,iputils-ping

debian=$CACHE/debian/$(key "$DEBIAN" "$PACKAGES")
image=$CACHE/node/$(key "$KIND_VERSION" "$KUBERNETES_VERSION" "$COREDNS_VERSION" "$ETCD_TAG" "$PAUSE_TAG" "$DEBIAN" "$PACKAGES" \
  -- kind/node-image.sh kind/control-plane.sh kind/go.mod kind/etcd kind/podnet kind/pod-network.yaml kind/pause.c ../hack/image.sh).tar
if [ -e "$image" ]; then echo "$image"; exit; fi
[ "$(id -u)" = 0 ] || die "only root can make a node image; with Docker and a registry within reach none needs to be made"
need debootstrap:debootstrap containerd:containerd runc:runc jq:jq gcc:gcc buildah:buildah

work=$CACHE/node/work
discard "$work"
mkdir -p "$work/bin" "$work/images"

# debootstrap waits for the network more than for a processor: beside the Go builds.
bootstrap() {
  [ ! -d "$debian" ] || return 0
  discard "$debian.new"
  mkdir -p "$(dirname "$debian")"
  debootstrap --variant=minbase --include="$PACKAGES" "$DEBIAN" "$debian.new" > "$OUT/debootstrap.log" 2>&1 || return
  rm -rf "$debian.new"/var/cache/apt/archives/*.deb "$debian.new"/var/lib/apt/lists/*
  mv "$debian.new" "$debian"
}
bootstrap &
bootstrap=$!

say "building Kubernetes $KUBERNETES_VERSION, etcd and CoreDNS $COREDNS_VERSION (about 10 minutes on 2 cores the first time)"
control_plane=$("$HERE/control-plane.sh")
cp "$control_plane"/{kube-apiserver,etcd} "$work/bin/"
(cd "$HERE" && nice -n 10 go build -ldflags "$KUBERNETES_LDFLAGS" -o "$work/bin/" \
  k8s.io/kubernetes/cmd/{kubeadm,kubectl,kubelet,kube-controller-manager,kube-scheduler,kube-proxy} ./podnet)
GOBIN=$work/bin nice -n 10 go install -ldflags '-s -w' "github.com/coredns/coredns@$COREDNS_VERSION"
gcc -Os -static -s -o "$work/bin/pause" "$HERE/pause.c"
wait "$bootstrap" || die "debootstrap failed: $OUT/debootstrap.log"

say "building the images that the node starts with"
# The network programs run iptables, nft and ip: take them out of the root file system, with the libraries that ldd
# finds. The plug-ins of iptables have some of their own.
tools=$work/nettools
mkdir -p "$tools"/{usr/sbin,usr/lib/x86_64-linux-gnu,lib64,run,etc,tmp}
ln -s usr/sbin "$tools/sbin"
ln -s usr/lib "$tools/lib"
tar -C "$debian" -c usr/sbin/xtables-nft-multi usr/sbin/nft usr/lib/x86_64-linux-gnu/xtables etc/protocols etc/services | tar -C "$tools" -x
cp -L "$debian/bin/ip" "$tools/usr/sbin/ip"
for name in {iptables,ip6tables}{,-save,-restore}; do ln -s xtables-nft-multi "$tools/usr/sbin/$name"; done
(cd "$tools" && find usr/sbin usr/lib -type f -printf '/%p\n') | while read -r file; do chroot "$debian" ldd "$file" 2> /dev/null || true; done \
  | grep -o '/[^ ]*' | sort -u | while read -r library; do
    [ -e "$tools$library" ] || [ ! -e "$debian$library" ] || { mkdir -p "$tools$(dirname "$library")"; cp -L "$debian$library" "$tools$library"; }
  done
# A match without its library kills every Service with two endpoints, hours later: fail here instead.
chroot "$tools" /usr/sbin/iptables -m statistic --help > /dev/null

# make_image NAME:TAG BINARY FOLDER-IN-THE-IMAGE [ENTRYPOINT]
make_image() {
  local context=$work/context
  rm -rf "$context"
  mkdir -p "$context/root$3" "$context/root/tmp"
  case $2 in kube-proxy | podnet) cp -a "$tools/." "$context/root/" ;; esac
  cp "$work/bin/$2" "$context/root$3/"
  printf 'FROM scratch\nCOPY root /\nENV PATH=/usr/local/bin:/usr/sbin\n%s\n' "${4:+ENTRYPOINT [\"$4\"]}" > "$context/Dockerfile"
  "$ROOT/hack/image.sh" "$1" "$context/Dockerfile" "$context" "$work/images/$2.tar"
}
for c in kube-apiserver kube-controller-manager kube-scheduler kube-proxy; do make_image "registry.k8s.io/$c:$KUBERNETES_VERSION" $c /usr/local/bin; done
make_image "registry.k8s.io/etcd:$ETCD_TAG" etcd /usr/local/bin
make_image "registry.k8s.io/coredns/coredns:$COREDNS_VERSION" coredns "" /coredns
make_image "registry.k8s.io/pause:$PAUSE_TAG" pause "" /pause
make_image headgate.dev/e2e/podnet:dev podnet /usr/local/bin

say "putting the node's root file system together"
node=$work/node
cp -a "$debian" "$node"
base=$(go mod download -json "sigs.k8s.io/kind@$KIND_VERSION" | jq -r .Dir)/images/base/files
(cd "$base" && find kind/bin usr/local/bin/entrypoint -type f) | while read -r f; do install -D -m 755 "$base/$f" "$node/$f"; done
(cd "$base" && find etc -type f) | while read -r f; do install -D -m 644 "$base/$f" "$node/$f"; done
chmod 755 "$node/kind" "$node/kind/bin"
# Without CAP_SYS_RESOURCE runc may not lower oom_score_adj. The proxy plug-in is a snapshotter that Debian lacks.
sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' -e '/^\[proxy_plugins/,/^ *address/d' "$node/etc/containerd/config.toml"
units=$node/lib/systemd/system
rm -f "$node/etc/systemd/system/containerd-fuse-overlayfs.service" "$units/containerd.service"
find "$units/sysinit.target.wants/" -name systemd-tmpfiles-setup.service -delete
rm -f "$units"/{multi-user,local-fs,basic}.target.wants/* "$node"/etc/systemd/system/*.wants/* "$units"/sockets.target.wants/*{udev,initctl}*
echo ReadKMsg=no >> "$node/etc/systemd/journald.conf"
ln -sf /usr/lib/systemd/systemd "$node/sbin/init"
chroot "$node" systemctl -q enable kubelet containerd undo-mount-hacks
chroot "$node" systemctl -q mask systemd-binfmt
mkdir -p "$node"/{etc/kubernetes/manifests,opt/cni/bin,kind/manifests}
for b in containerd ctr containerd-shim-runc-v2; do ln -sf "/usr/bin/$b" "$node/usr/local/bin/$b"; done
cp -a "$node"/usr/lib/cni/* "$node/opt/cni/bin/"
install -m 755 "$work"/bin/{kubeadm,kubelet,kubectl} "$node/usr/bin/"
# Containers inherit the node's limits: CAP_SYS_RESOURCE again.
chroot "$node" ctr oci spec | jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
  > "$node/etc/containerd/cri-base.json"
printf %s "$KUBERNETES_VERSION" > "$node/kind/version"
cp "$HERE/pod-network.yaml" "$node/kind/manifests/default-cni.yaml"
# kind applies this file without asking; nothing here needs volumes.
printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: local-path-storage}\n' > "$node/kind/manifests/default-storage.yaml"

# Into the node's containerd store, not unpacked: the node does that.
state=$work/containerd
mkdir -p "$state"
printf 'version = 2\nroot = "%s"\nstate = "%s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "%s"\n' \
  "$node/var/lib/containerd" "$state/state" "$state/sock" > "$state/config.toml"
containerd --config "$state/config.toml" > "$state/log" 2>&1 &
pid=$!
trap 'kill $pid 2> /dev/null || true' EXIT
until_true 30 test -S "$state/sock" || die "containerd does not start: $state/log"
for archive in "$work"/images/*.tar; do
  ctr --address "$state/sock" --namespace k8s.io images import --all-platforms --no-unpack --digests "$archive" > /dev/null
done
kill $pid
wait $pid || true
trap - EXIT

tar -C "$node" -c --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' . > "$image.new"
mv "$image.new" "$image"
discard "$work"
say "node image made"
echo "$image"
