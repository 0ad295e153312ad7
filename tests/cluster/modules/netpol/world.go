package main

// From the API server's objects and the kernel's routes to a World.

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
)

// Bindings remembers on which interface each pod owns each address. The first sight decides, for good: the
// address of a dying pod is free in the kernel before the pod is gone from the API, and a successor which
// gets it (on a new interface) must not be taken for the dead.
type Bindings map[binding]string

type binding struct {
	uid string
	ip  netip.Addr
}

// Build makes the world. node is the name of this node; empty means that every pod runs here.
// unbound tells whether a pod has an address that no interface leads to: worth another look soon.
func (b Bindings) Build(pods []*corev1.Pod, namespaces []*corev1.Namespace, policies []*netv1.NetworkPolicy,
	routes map[netip.Addr]string, node string) (w *World, unbound bool) {
	w = &World{Namespaces: map[string]map[string]string{}, Policies: slices.Clone(policies)}
	for _, ns := range namespaces {
		w.Namespaces[ns.Name] = ns.Labels
	}
	slices.SortFunc(w.Policies, func(a, b *netv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	pods = slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !networked(p) })
	slices.SortFunc(pods, precedence)
	live, taken := Bindings{}, map[netip.Addr]bool{}
	for _, p := range pods {
		pod := Pod{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Ports: portsOf(p), Local: node == "" || p.Spec.NodeName == node}
		for _, ip := range addressesOf(p) {
			addr := Addr{IP: ip}
			if pod.Local {
				key := binding{string(p.UID), ip}
				if iface, seen := b[key]; seen {
					live[key] = iface
				} else if routes[ip] != "" {
					live[key] = routes[ip]
				}
				addr.Iface = live[key]
				if addr.Iface == "" || addr.Iface != routes[ip] {
					unbound = unbound || p.DeletionTimestamp == nil
					continue // its interface is not there, or no longer there: the address is nobody's
				}
			}
			if !taken[ip] {
				taken[ip] = true
				pod.Addrs = append(pod.Addrs, addr)
			}
		}
		if len(pod.Addrs) > 0 {
			w.Pods = append(w.Pods, pod)
		}
	}
	slices.SortFunc(w.Pods, func(a, b Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	clear(b) // forget the pods that are gone
	for key, iface := range live {
		b[key] = iface
	}
	return w, unbound
}

// networked: running or about to, and not with the node's own addresses.
func networked(p *corev1.Pod) bool {
	return !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// precedence decides who an address belongs to when two pods report it: one that is not being deleted, then the younger.
func precedence(a, b *corev1.Pod) int {
	dying := func(p *corev1.Pod) int {
		if p.DeletionTimestamp != nil {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(dying(a), dying(b)), b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
}

func addressesOf(p *corev1.Pod) (out []netip.Addr) {
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil && !slices.Contains(out, addr.Unmap()) {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// portsOf: named ports are those of the containers and of sidecars; other init containers are over when traffic comes.
func portsOf(p *corev1.Pod) (out []corev1.ContainerPort) {
	for _, c := range p.Spec.Containers {
		out = append(out, c.Ports...)
	}
	for _, c := range p.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c.Ports...)
		}
	}
	return out
}

// InfraOf: the addresses of nodes and of the API server (the endpoints of the Service `kubernetes`).
func InfraOf(nodes []*corev1.Node, apiServer []string) (out []netip.Addr) {
	for _, node := range nodes {
		for _, a := range node.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				out = append(out, addr.Unmap())
			}
		}
	}
	for _, text := range apiServer {
		if addr, err := netip.ParseAddr(text); err == nil {
			out = append(out, addr.Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
