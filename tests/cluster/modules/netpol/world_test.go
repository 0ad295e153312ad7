package main

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var born = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func apiPod(name string, age int, change func(*corev1.Pod), ips ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(born.Add(-time.Duration(age) * time.Second))}}
	p.Spec.NodeName = "node1"
	p.Status.Phase = corev1.PodRunning
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	if change != nil {
		change(p)
	}
	return p
}

func dying(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: born} }

func routesOf(pairs ...string) map[netip.Addr]string {
	routes := map[netip.Addr]string{}
	for i := 0; i < len(pairs); i += 2 {
		routes[netip.MustParseAddr(pairs[i])] = pairs[i+1]
	}
	return routes
}

// owners writes a world as "name iface address" lines.
func owners(w *World) (out []string) {
	for _, pod := range w.Pods {
		for _, a := range pod.Addrs {
			out = append(out, strings.Join([]string{pod.Name, a.Iface, a.IP.String()}, " "))
		}
	}
	return out
}

// Each case is a story: every step is one state of API and kernel, seen with the same bindings.
func TestWhoOwnsAnAddress(t *testing.T) {
	type step struct {
		pods    []*corev1.Pod
		routes  map[netip.Addr]string
		want    []string
		unbound bool
	}
	for name, story := range map[string][]step{
		"known when its address is in the status": {
			{pods: []*corev1.Pod{apiPod("a", 1, nil)}, routes: routesOf("10.0.0.1", "veth1")},
			{pods: []*corev1.Pod{apiPod("a", 1, nil, "10.0.0.1", "fd00::1")}, routes: routesOf("10.0.0.1", "veth1", "fd00::1", "veth1"), want: []string{"a veth1 10.0.0.1", "a veth1 fd00::1"}},
		},
		"finished pods are unknown again": {
			{pods: []*corev1.Pod{apiPod("a", 1, nil, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth1"), want: []string{"a veth1 10.0.0.1"}},
			{pods: []*corev1.Pod{apiPod("a", 1, func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth1")},
			{pods: []*corev1.Pod{apiPod("a", 1, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth1")},
		},
		"a dying pod is known while it lives": {
			{pods: []*corev1.Pod{apiPod("a", 1, dying, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth1"), want: []string{"a veth1 10.0.0.1"}},
		},
		"hostNetwork pods are the node": {
			{pods: []*corev1.Pod{apiPod("a", 1, func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth1")},
		},
		"an address without an interface is nobody's, for now": {
			{pods: []*corev1.Pod{apiPod("a", 1, nil, "10.0.0.1")}, routes: routesOf(), unbound: true},
			{pods: []*corev1.Pod{apiPod("a", 1, nil, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth1"), want: []string{"a veth1 10.0.0.1"}},
		},
		"a dead pod's address on a successor's interface": {
			{pods: []*corev1.Pod{apiPod("old", 9, nil, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth1"), want: []string{"old veth1 10.0.0.1"}},
			// the old pod's network is gone, it is still in the API
			{pods: []*corev1.Pod{apiPod("old", 9, dying, "10.0.0.1")}, routes: routesOf()},
			// the new pod runs with that address; its status does not say so yet
			{pods: []*corev1.Pod{apiPod("old", 9, dying, "10.0.0.1"), apiPod("new", 1, nil)}, routes: routesOf("10.0.0.1", "veth2")},
			{pods: []*corev1.Pod{apiPod("old", 9, dying, "10.0.0.1"), apiPod("new", 1, nil, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth2"), want: []string{"new veth2 10.0.0.1"}},
			{pods: []*corev1.Pod{apiPod("new", 1, nil, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth2"), want: []string{"new veth2 10.0.0.1"}},
		},
		"both seen for the first time: the one that is not dying": {
			{pods: []*corev1.Pod{apiPod("old", 1, dying, "10.0.0.1"), apiPod("new", 9, nil, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth2"), want: []string{"new veth2 10.0.0.1"}},
		},
		"both seen for the first time: the younger": {
			{pods: []*corev1.Pod{apiPod("old", 9, nil, "10.0.0.1"), apiPod("new", 1, nil, "10.0.0.1")}, routes: routesOf("10.0.0.1", "veth2"), want: []string{"new veth2 10.0.0.1"}},
		},
		"a pod of another node has no interface here": {
			{pods: []*corev1.Pod{apiPod("far", 1, func(p *corev1.Pod) { p.Spec.NodeName = "node2" }, "10.0.9.1")}, routes: routesOf(), want: []string{"far  10.0.9.1"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bindings := Bindings{}
			for i, s := range story {
				w, unbound := bindings.Build(s.pods, nil, nil, s.routes, "node1")
				if got := owners(w); !reflect.DeepEqual(got, s.want) || unbound != s.unbound {
					t.Errorf("step %d: %q unbound %v; want %q %v", i, got, unbound, s.want, s.unbound)
				}
			}
		})
	}
}

func TestBindingsForgetThePodsThatAreGone(t *testing.T) {
	b := Bindings{}
	b.Build([]*corev1.Pod{apiPod("a", 1, nil, "10.0.0.1")}, nil, nil, routesOf("10.0.0.1", "veth1"), "")
	b.Build(nil, nil, nil, routesOf(), "")
	if len(b) != 0 {
		t.Errorf("%v", b)
	}
}

func TestTheWorldDoesNotDependOnOrder(t *testing.T) {
	build := func(pods ...*corev1.Pod) []string {
		w, _ := Bindings{}.Build(pods, nil, nil, routesOf("10.0.0.1", "veth1", "10.0.0.2", "veth2"), "")
		return owners(w)
	}
	a, b := apiPod("a", 1, dying, "10.0.0.1"), apiPod("b", 9, nil, "10.0.0.2")
	if one, two := build(a, b), build(b, a); !reflect.DeepEqual(one, two) || len(one) != 2 {
		t.Errorf("%q, %q", one, two)
	}
}

func TestPortsOfSidecarsCountAndThoseOfOtherInitContainersDoNot(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	port := func(n int32) []corev1.ContainerPort { return []corev1.ContainerPort{{ContainerPort: n}} }
	p := &corev1.Pod{}
	p.Spec.Containers = []corev1.Container{{Ports: port(1)}}
	p.Spec.InitContainers = []corev1.Container{{Ports: port(2)}, {Ports: port(3), RestartPolicy: &always}}
	if got, want := portsOf(p), append(port(1), port(3)...); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestInfra(t *testing.T) {
	node := &corev1.Node{}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.9.0.2"}, {Type: corev1.NodeHostName, Address: "node1"}, {Type: corev1.NodeInternalIP, Address: "fd09::2"}}
	got := InfraOf([]*corev1.Node{node}, []string{"10.9.0.2", "10.9.0.7"})
	want := []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("fd09::2")}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
