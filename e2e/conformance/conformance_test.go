// Package conformance runs the Gateway API's own conformance suite, unchanged, against the cluster of KUBECONFIG.
package conformance

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) { conformance.RunConformance(t) }
