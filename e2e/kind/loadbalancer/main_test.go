package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

var prefix = netip.MustParsePrefix("172.31.0.0/24")

func loadBalancer(name, wish, given string) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerIP: wish},
	}
	if given != "" {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: given}}
	}
	return s
}

func start(t *testing.T, objects ...runtime.Object) *fake.Clientset {
	client := fake.NewClientset(objects...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- run(ctx, client, prefix) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return client
}

// address polls until the Service has an address that is accepted, and fails with the last one seen.
func address(t *testing.T, client *fake.Clientset, name string, accept func(string) bool) string {
	t.Helper()
	var last string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		s, err := client.CoreV1().Services("default").Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if last = current(s); accept(last) {
			return last
		}
	}
	t.Fatalf("%s: %q", name, last)
	return ""
}

func is(want string) func(string) bool { return func(a string) bool { return a == want } }
func any1(a string) bool               { return a != "" }

func TestPoolGivesEveryOrdinaryAddressBeforeAReleasedOneComesBack(t *testing.T) {
	p := newPool(prefix)
	first, _ := p.take("0", "")
	p.release("0")
	for n := 1; n < 189; n++ {
		if a, err := p.take(fmt.Sprint(n), ""); err != nil || a == first {
			t.Fatal(n, a, err)
		}
	}
	if a, err := p.take("again", ""); err != nil || a != first {
		t.Fatal(a, err)
	}
	if a, err := p.take("one too many", ""); err == nil {
		t.Fatal(a)
	}
	if _, err := p.take("wish", "172.31.0.250"); err != nil {
		t.Fatal(err)
	}
}

func TestServicesGetDifferentAddressesAndAnotherAfterARelease(t *testing.T) {
	client := start(t, loadBalancer("a", "", ""), loadBalancer("b", "", ""))
	a, b := address(t, client, "a", any1), address(t, client, "b", any1)
	if a == b {
		t.Fatal(a, b)
	}
}

func TestAWishIsHonouredInsideTheRangeOnly(t *testing.T) {
	client := start(t, loadBalancer("out", "10.0.0.1", ""), loadBalancer("in", "172.31.0.250", ""))
	address(t, client, "in", is("172.31.0.250"))
	address(t, client, "out", is(""))
}

func TestAnAddressOutsideTheRangeIsTakenAwayWhenAsked(t *testing.T) {
	client := start(t, loadBalancer("a", "", ""))
	address(t, client, "a", any1)
	if _, err := client.CoreV1().Services("default").Update(context.Background(), loadBalancer("a", "10.0.0.1", "172.31.0.1"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	address(t, client, "a", is(""))
}

func TestATakenAddressGoesToWhoWaitsForItOnceItIsReleased(t *testing.T) {
	client := start(t, loadBalancer("first", "172.31.0.9", "172.31.0.9"), loadBalancer("second", "172.31.0.9", ""))
	address(t, client, "second", is(""))
	if err := client.CoreV1().Services("default").Delete(context.Background(), "first", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	address(t, client, "second", is("172.31.0.9"))
}

func TestAfterARestartAddressesStay(t *testing.T) {
	client := start(t, loadBalancer("a", "", ""), loadBalancer("b", "", "172.31.0.1"))
	if a := address(t, client, "a", any1); a == "172.31.0.1" {
		t.Fatal(a)
	}
	address(t, client, "b", is("172.31.0.1"))
}

func TestAServiceOfAnotherClassOrTypeIsLeftAlone(t *testing.T) {
	class := "example.com/other"
	other := loadBalancer("other", "", "")
	other.Spec.LoadBalancerClass = &class
	changed := loadBalancer("changed", "", "172.31.0.1")
	changed.Spec.Type = corev1.ServiceTypeClusterIP
	client := start(t, other, changed, loadBalancer("a", "", ""))
	address(t, client, "a", any1)
	address(t, client, "changed", is(""))
	address(t, client, "other", is(""))
}

func TestARefusedWriteIsRepeated(t *testing.T) {
	client := start(t)
	var refused atomic.Int32
	client.PrependReactor("update", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		return refused.Add(1) <= 2, nil, errors.New("refused")
	})
	if _, err := client.CoreV1().Services("default").Create(context.Background(), loadBalancer("a", "", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	address(t, client, "a", any1)
}
