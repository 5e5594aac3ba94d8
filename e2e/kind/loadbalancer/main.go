// Command loadbalancer gives the cluster's Services of type LoadBalancer their addresses, as a cloud would: it
// writes status.loadBalancer.ingress, and kube-proxy does the rest. It honours spec.loadBalancerIP, leaves a Service
// pending that wants an address outside of the range or one that is taken, and takes an address back when its Service
// goes or is no longer of that type. Services with a load-balancer class belong to somebody else.
//
// The cluster holds the only lasting state: after a restart the addresses in the Services' statuses are adopted
// before any new one is given.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
)

// A refused write is repeated after 50 ms at first and after a second at most, so that tests never wait for long.
const retryFirst, retryMost = 50 * time.Millisecond, time.Second

type controller struct {
	client   kubernetes.Interface
	services listers.ServiceLister
	queue    workqueue.TypedRateLimitingInterface[string]
	pool     *pool
}

func ours(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass == nil && s.DeletionTimestamp == nil
}

func current(s *corev1.Service) string {
	if len(s.Status.LoadBalancer.Ingress) == 1 {
		return s.Status.LoadBalancer.Ingress[0].IP
	}
	return ""
}

// adopt learns from the statuses which addresses are given already.
func (c *controller) adopt() error {
	services, err := c.services.List(labels.Everything())
	for _, s := range services {
		if key := cache.MetaObjectToName(s).String(); ours(s) && current(s) != "" {
			if _, err := c.pool.take(key, current(s)); err != nil {
				log.Printf("%s: not adopted: %v", key, err)
			}
		}
	}
	return err
}

// release gives the address of a Service back, and lets those who wait for one try again.
func (c *controller) release(key string) {
	if !c.pool.release(key) {
		return
	}
	log.Printf("%s: released", key)
	services, _ := c.services.List(labels.Everything())
	for _, s := range services {
		if ours(s) && current(s) == "" {
			c.queue.Add(cache.MetaObjectToName(s).String())
		}
	}
}

func (c *controller) sync(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return err
	}
	service, err := c.services.Services(namespace).Get(name)
	if err != nil || !ours(service) {
		c.release(key)
		if err == nil && service.Spec.Type != corev1.ServiceTypeLoadBalancer && current(service) != "" {
			return c.write(ctx, service, "")
		}
		return nil
	}
	wish := service.Spec.LoadBalancerIP //nolint:staticcheck // deprecated, and what a Gateway's address becomes
	have := c.pool.of(key)
	if have.IsValid() && (wish == "" || wish == have.String()) {
		return c.write(ctx, service, have.String())
	}
	c.release(key)
	address, err := c.pool.take(key, wish)
	if err != nil {
		log.Printf("%s: pending: %v", key, err)
		return c.write(ctx, service, "")
	}
	log.Printf("%s: %s", key, address)
	return c.write(ctx, service, address.String())
}

// write makes the address, or none for "", the Service's only one. The resource version is part of the write: what
// is decided here is about this version of the Service, a later one comes with an event of its own.
func (c *controller) write(ctx context.Context, service *corev1.Service, address string) error {
	if have := service.Status.LoadBalancer.Ingress; current(service) == address && (address != "" || len(have) == 0) {
		return nil
	}
	service = service.DeepCopy()
	service.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	if address != "" {
		service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: address}}
	}
	_, err := c.client.CoreV1().Services(service.Namespace).UpdateStatus(ctx, service, metav1.UpdateOptions{})
	if errors.IsNotFound(err) {
		return nil
	}
	return err
}

func (c *controller) next(ctx context.Context) bool {
	key, stop := c.queue.Get()
	if stop {
		return false
	}
	defer c.queue.Done(key)
	if err := c.sync(ctx, key); err != nil {
		log.Printf("%s: %v", key, err)
		c.queue.AddRateLimited(key)
		return true
	}
	c.queue.Forget(key)
	return true
}

func run(ctx context.Context, client kubernetes.Interface, addresses netip.Prefix) error {
	factory := informers.NewSharedInformerFactory(client, 0)
	informer := factory.Core().V1().Services()
	c := &controller{
		client:   client,
		services: informer.Lister(),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryMost)),
		pool: newPool(addresses),
	}
	enqueue := func(object any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object); err == nil {
			c.queue.Add(key)
		}
	}
	if _, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: enqueue, UpdateFunc: func(_, object any) { enqueue(object) }, DeleteFunc: enqueue,
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := c.adopt(); err != nil {
		return err
	}
	log.Printf("giving addresses of %s", addresses)
	context.AfterFunc(ctx, c.queue.ShutDown)
	for c.next(ctx) {
	}
	return nil
}

func main() {
	addresses := flag.String("range", "172.31.0.0/24", "the addresses to give")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := func() error {
		prefix, err := netip.ParsePrefix(*addresses)
		if err != nil {
			return err
		}
		config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
		if err != nil {
			return err
		}
		config.QPS, config.Burst = 100, 200 // 64 Services at once must not wait for the client's own limit
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		return run(ctx, client, prefix)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadbalancer:", err)
		os.Exit(1)
	}
}
