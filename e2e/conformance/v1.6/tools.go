//go:build tools

// Package conformance holds the version before: its CRDs, and its suite. Its test is ../conformance_test.go.
package conformance

import (
	_ "sigs.k8s.io/gateway-api/conformance"
	_ "sigs.k8s.io/gateway-api/conformance/echo-basic" // the backend of the suite's manifests
)
