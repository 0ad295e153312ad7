package main

// The engine: informers, and a loop which renders the world after every change.

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	netv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const retryNft = time.Second

// Engine keeps the kernel's table equal to what the API says.
type Engine struct {
	client kubernetes.Interface
	opt    Options
	node   string
	once   bool

	changed  chan struct{} // holds at most one token: any number of changes while a table is rendered make one more
	removed  chan struct{} // likewise: some table was deleted, perhaps ours
	attached Attachments
	lists    struct {
		pods, namespaces, policies, nodes, apiServer cache.SharedIndexInformer
	}
}

// Run returns when the context ends, or after the first table with once. The table stays behind either way:
// a dead engine leaves its last word in force, and pods that it never knew stay dropped.
func (e *Engine) Run(ctx context.Context) error {
	e.changed, e.removed = make(chan struct{}, 1), make(chan struct{}, 1)
	if err := watchTables(func() { notify(e.removed) }); err != nil {
		return err
	}
	if !exists(ctx, table) {
		// first start on this node: until all is known, no pod is
		if err := apply(ctx, Transaction(&World{}, e.opt)); err != nil && !errors.Is(err, errFlushed) {
			return err
		}
	}
	if err := watchDir(e.attached.dir, func() { notify(e.changed) }); err != nil {
		return err
	}
	if err := e.sync(ctx); err != nil {
		return err
	}
	last := ""
	retry := time.NewTimer(0) // the first round
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.changed:
		case <-retry.C:
		case <-e.removed:
			if exists(ctx, table) {
				continue // it was replaced, by us
			}
			last = ""
		}
		start := time.Now()
		world, err := e.world()
		if err != nil {
			return err
		}
		script := Transaction(world, e.opt)
		if script == last {
			continue
		}
		switch err := apply(ctx, script); {
		case errors.Is(err, errFlushed):
			last = "" // the end of the flush will be noticed as a removed table
			log.Print(err)
			if e.once {
				return err
			}
		case err != nil && ctx.Err() == nil:
			log.Printf("the old table stays in force: %v", err) // new pods are dropped meanwhile
			last = ""
			retry.Reset(retryNft)
			if e.once {
				return err
			}
		case err == nil:
			last = script
			log.Printf("applied %d policies, %d pods, %d bytes in %v", len(world.Policies), len(world.Pods), len(script), time.Since(start).Round(time.Millisecond))
			if e.once {
				return nil
			}
		}
	}
}

func (e *Engine) sync(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(e.client, 0, informers.WithTransform(slim))
	e.lists.pods = factory.Core().V1().Pods().Informer()
	e.lists.namespaces = factory.Core().V1().Namespaces().Informer()
	e.lists.policies = factory.Networking().V1().NetworkPolicies().Informer()
	all := []cache.SharedIndexInformer{e.lists.pods, e.lists.namespaces, e.lists.policies}
	if e.opt.BlocksExcludePods {
		e.lists.nodes = factory.Core().V1().Nodes().Informer()
		e.lists.apiServer = factory.Discovery().V1().EndpointSlices().Informer()
		all = append(all, e.lists.nodes, e.lists.apiServer)
	}
	notice := func() { notify(e.changed) }
	var synced []cache.InformerSynced
	for _, informer := range all {
		handler, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { notice() }, UpdateFunc: func(_, _ any) { notice() }, DeleteFunc: func(any) { notice() },
		})
		if err != nil {
			return err
		}
		synced = append(synced, handler.HasSynced)
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("stopped before the caches were filled: %w", ctx.Err())
	}
	return nil
}

func notify(token chan struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

func (e *Engine) world() (*World, error) {
	interfaces, err := interfaceNames()
	if err != nil {
		return nil, err
	}
	attachments, err := e.attached.Read(interfaces)
	if err != nil {
		return nil, err
	}
	w := Build(listOf[*corev1.Pod](e.lists.pods), listOf[*corev1.Namespace](e.lists.namespaces),
		listOf[*netv1.NetworkPolicy](e.lists.policies), attachments, e.node)
	if e.opt.BlocksExcludePods {
		w.Infra = e.infra()
	}
	return w, nil
}

func (e *Engine) infra() []netip.Addr {
	var apiServer []string
	for _, slice := range listOf[*discoveryv1.EndpointSlice](e.lists.apiServer) {
		if slice.Namespace == "default" && slice.Labels[discoveryv1.LabelServiceName] == "kubernetes" {
			for _, endpoint := range slice.Endpoints {
				apiServer = append(apiServer, endpoint.Addresses...)
			}
		}
	}
	return InfraOf(listOf[*corev1.Node](e.lists.nodes), apiServer)
}

func listOf[T runtime.Object](informer cache.SharedIndexInformer) (out []T) {
	_ = cache.ListAll(informer.GetStore(), labels.Everything(), func(o any) { out = append(out, o.(T)) })
	return out
}

// slim drops what no rule reads.
func slim(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	return o, nil
}
