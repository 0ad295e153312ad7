package main

// From the API server's objects and the CNI's attachments to a World.

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
)

// Build makes the world. node is the name of this node; empty means that every pod runs here. A pod of this node has
// the addresses that it was attached with, whatever its status says (yet, or still); where two pods have the same
// address, it belongs to the one attached last: attachments come in that order. A pod of another node has the
// addresses of its status, as far as no pod of this node has them.
func Build(pods []*corev1.Pod, namespaces []*corev1.Namespace, policies []*netv1.NetworkPolicy, attachments []Attachment, node string) *World {
	w := &World{Namespaces: map[string]map[string]string{}, Policies: slices.Clone(policies)}
	for _, ns := range namespaces {
		w.Namespaces[ns.Name] = ns.Labels
	}
	local, taken := map[string]*Pod{}, map[netip.Addr]bool{}
	var remote []*corev1.Pod
	for _, p := range pods {
		switch {
		case !networked(p):
		case node == "" || p.Spec.NodeName == node:
			local[string(p.UID)] = &Pod{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Ports: portsOf(p), Local: true}
		default:
			remote = append(remote, p)
		}
	}
	for _, attachment := range attachments {
		for _, addr := range attachment.Addrs {
			// also when the pod is finished or gone: whoever had the address before does not get it back
			if pod := local[attachment.UID]; pod != nil && !taken[addr.IP] {
				pod.Addrs = append(pod.Addrs, addr)
			}
			taken[addr.IP] = true
		}
	}
	for _, pod := range local {
		if len(pod.Addrs) > 0 {
			w.Pods = append(w.Pods, *pod)
		}
	}
	for _, p := range remote {
		pod := Pod{Namespace: p.Namespace, Name: p.Name, Labels: p.Labels, Ports: portsOf(p)}
		for _, ip := range p.Status.PodIPs {
			if addr, err := netip.ParseAddr(ip.IP); err == nil && !taken[addr.Unmap()] {
				pod.Addrs = append(pod.Addrs, Addr{IP: addr.Unmap()})
			}
		}
		if len(pod.Addrs) > 0 {
			w.Pods = append(w.Pods, pod)
		}
	}
	// the same objects in any order make the same world
	slices.SortFunc(w.Pods, func(a, b Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(w.Policies, func(a, b *netv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return w
}

// networked: running or about to, and not with the node's own addresses.
func networked(p *corev1.Pod) bool {
	return !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
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
