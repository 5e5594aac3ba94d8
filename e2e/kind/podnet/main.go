// Command podnet is the smallest network for a kind node, in the place of kindnetd, which cannot be had as a Go
// module: it writes the CNI configuration with the node's own range of pod addresses, keeps a route to every other
// node's range, and masquerades what leaves the pod network. IPv4 only, no network policies.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const cniPath = "/etc/cni/net.d/10-podnet.conflist"

const cniConfig = `{"cniVersion": "1.0.0", "name": "podnet", "plugins": [
  {"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state",
    "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": %q}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

func run(command ...string) error {
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}

// writeCNI replaces the file in one step: containerd watches the folder and would read half a file.
func writeCNI(podCIDR string) error {
	want := fmt.Sprintf(cniConfig, podCIDR)
	if have, err := os.ReadFile(cniPath); err == nil && string(have) == want {
		return nil
	}
	if err := os.WriteFile(cniPath+".new", []byte(want), 0o644); err != nil {
		return err
	}
	return os.Rename(cniPath+".new", cniPath)
}

func sync(nodes []corev1.Node, me, pods string) error {
	for _, node := range nodes {
		if node.Spec.PodCIDR == "" {
			continue
		}
		if node.Name == me {
			if err := writeCNI(node.Spec.PodCIDR); err != nil {
				return err
			}
			continue
		}
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP && !strings.Contains(address.Address, ":") {
				if err := run("ip", "route", "replace", node.Spec.PodCIDR, "via", address.Address); err != nil {
					return err
				}
			}
		}
	}
	rule := strings.Fields("POSTROUTING -s " + pods + " ! -d " + pods + " -m addrtype ! --dst-type LOCAL -j MASQUERADE")
	nat := []string{"iptables", "-w", "-t", "nat"}
	if run(append(append(nat, "-C"), rule...)...) == nil {
		return nil
	}
	return run(append(append(nat, "-A"), rule...)...)
}

func main() {
	config, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	// The API server's own address: its Service only works once kube-proxy does, which need not be yet.
	config.Host = "https://" + os.Getenv("CONTROL_PLANE_ENDPOINT")
	config.Timeout = 5 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	for ; ; time.Sleep(time.Second) {
		nodes, err := client.CoreV1().Nodes().List(context.Background(), metav1.ListOptions{ResourceVersion: "0"})
		if err == nil {
			err = sync(nodes.Items, os.Getenv("NODE_NAME"), os.Getenv("POD_SUBNET"))
		}
		if err != nil {
			log.Print(err)
		}
	}
}
