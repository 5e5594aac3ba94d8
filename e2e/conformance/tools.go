//go:build tools

package conformance

import _ "sigs.k8s.io/gateway-api-conformance-images/echo-basic" // the backend of the suite's manifests
