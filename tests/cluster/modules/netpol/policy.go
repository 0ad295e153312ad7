package main

// What networking.k8s.io/v1 NetworkPolicies mean for one pod, as pure functions.

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Permissions tells whether any policy isolates the pod in this direction, and if so, all that the policies
// together let through. An isolated pod without permissions reaches nobody (but itself).
func (w *World) Permissions(pod *Pod, dir Direction) (isolated bool, allows []Allow) {
	for _, policy := range w.Policies {
		if policy.Namespace != pod.Namespace || !matches(&policy.Spec.PodSelector, pod.Labels) || !concerns(&policy.Spec, dir) {
			continue
		}
		isolated = true
		if dir == Ingress {
			for _, rule := range policy.Spec.Ingress {
				allows = append(allows, w.ingress(pod, policy.Namespace, rule)...)
			}
		} else {
			for _, rule := range policy.Spec.Egress {
				allows = append(allows, w.egress(policy.Namespace, rule)...)
			}
		}
	}
	return isolated, allows
}

// concerns applies the default of policyTypes: always Ingress, and Egress if there are egress rules.
func concerns(spec *netv1.NetworkPolicySpec, dir Direction) bool {
	if len(spec.PolicyTypes) == 0 {
		return dir == Ingress || len(spec.Egress) > 0
	}
	if dir == Ingress {
		return slices.Contains(spec.PolicyTypes, netv1.PolicyTypeIngress)
	}
	return slices.Contains(spec.PolicyTypes, netv1.PolicyTypeEgress)
}

// ingress: the ports are the selected pod's own, so a named port has the same number for every peer.
func (w *World) ingress(pod *Pod, namespace string, rule netv1.NetworkPolicyIngressRule) (allows []Allow) {
	for _, port := range resolve(rule.Ports, pod) {
		if len(rule.From) == 0 {
			allows = append(allows, Allow{Any: true, Port: port})
		}
		for _, peer := range rule.From {
			if block := blockOf(peer); block != nil {
				allows = append(allows, Allow{Block: block, Port: port})
			} else if addrs := addresses(w.selected(namespace, peer)); len(addrs) > 0 {
				allows = append(allows, Allow{Addrs: addrs, Port: port})
			}
		}
	}
	return allows
}

// egress: the ports are the peer's, so a named port has to be looked up in every peer. Where the peer is an
// address range there is nothing to look a name up in: a named port allows nothing there.
func (w *World) egress(namespace string, rule netv1.NetworkPolicyEgressRule) (allows []Allow) {
	if len(rule.To) == 0 {
		for _, port := range resolve(rule.Ports, nil) {
			allows = append(allows, Allow{Any: true, Port: port})
		}
		if names := named(rule.Ports); len(names) > 0 {
			allows = append(allows, byPort(names, pointers(w.Pods))...)
		}
		return allows
	}
	for _, peer := range rule.To {
		if block := blockOf(peer); block != nil {
			for _, port := range resolve(rule.Ports, nil) {
				allows = append(allows, Allow{Block: block, Port: port})
			}
			continue
		}
		allows = append(allows, byPort(rule.Ports, w.selected(namespace, peer))...)
	}
	return allows
}

// byPort groups the peers by the port that the rule means in each of them. No ports at all mean every port.
func byPort(ports []netv1.NetworkPolicyPort, peers []*Pod) (allows []Allow) {
	var order []Port
	group := map[Port][]*Pod{}
	for _, peer := range peers {
		for _, port := range resolve(ports, peer) {
			if _, ok := group[port]; !ok {
				order = append(order, port)
			}
			group[port] = append(group[port], peer)
		}
	}
	for _, port := range order {
		if addrs := addresses(group[port]); len(addrs) > 0 {
			allows = append(allows, Allow{Addrs: addrs, Port: port})
		}
	}
	return allows
}

func named(ports []netv1.NetworkPolicyPort) (out []netv1.NetworkPolicyPort) {
	for _, port := range ports {
		if port.Port != nil && port.Port.Type == intstr.String {
			out = append(out, port)
		}
	}
	return out
}

// resolve turns a rule's ports into numbers, with the names of the target pod; without a target, names are
// left out. An absent list means everything; a list none of whose names is known means nothing.
func resolve(ports []netv1.NetworkPolicyPort, target *Pod) (out []Port) {
	if len(ports) == 0 {
		return []Port{{}}
	}
	for _, port := range ports {
		proto := corev1.ProtocolTCP
		if port.Protocol != nil {
			proto = *port.Protocol
		}
		got := Port{Proto: strings.ToLower(string(proto))}
		switch {
		case port.Port == nil:
		case port.Port.Type == intstr.String:
			if got.From = target.named(port.Port.StrVal, proto); got.From == 0 {
				continue
			}
			got.To = got.From
		default:
			got.From, got.To = port.Port.IntVal, port.Port.IntVal
			if port.EndPort != nil {
				got.To = *port.EndPort
			}
		}
		if got.From <= got.To && !slices.Contains(out, got) {
			out = append(out, got)
		}
	}
	return out
}

func (pod *Pod) named(name string, proto corev1.Protocol) int32 {
	if pod == nil {
		return 0
	}
	for _, port := range pod.Ports {
		if port.Name == name && (port.Protocol == proto || port.Protocol == "" && proto == corev1.ProtocolTCP) {
			return port.ContainerPort
		}
	}
	return 0
}

// selected: the pods that a peer with selectors means. Without a namespaceSelector they are in the policy's
// own namespace. A peer with no selector at all (the API server refuses it) means nobody.
func (w *World) selected(namespace string, peer netv1.NetworkPolicyPeer) (out []*Pod) {
	if peer.PodSelector == nil && peer.NamespaceSelector == nil {
		return nil
	}
	for i := range w.Pods {
		pod := &w.Pods[i]
		if peer.NamespaceSelector == nil && pod.Namespace != namespace {
			continue
		}
		if peer.NamespaceSelector != nil {
			// a namespace which is not known yet has no labels to judge by: not even the empty selector takes it
			if labels, known := w.Namespaces[pod.Namespace]; !known || !matches(peer.NamespaceSelector, labels) {
				continue
			}
		}
		if peer.PodSelector == nil || matches(peer.PodSelector, pod.Labels) {
			out = append(out, pod)
		}
	}
	return out
}

// blockOf reads an ipBlock; one that cannot be read allows nothing, because a peer without selectors selects nobody.
func blockOf(peer netv1.NetworkPolicyPeer) *Block {
	if peer.IPBlock == nil {
		return nil
	}
	cidr, err := netip.ParsePrefix(peer.IPBlock.CIDR)
	if err != nil {
		return nil
	}
	block := &Block{CIDR: cidr.Masked()}
	for _, text := range peer.IPBlock.Except {
		except, err := netip.ParsePrefix(text)
		if err != nil {
			return nil // an exception that cannot be kept: rather no permission at all
		}
		block.Except = append(block.Except, except.Masked())
	}
	return block
}

// matches: an invalid selector (the API server refuses it) matches nothing.
func matches(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}

func addresses(pods []*Pod) (out []netip.Addr) {
	for _, pod := range pods {
		for _, addr := range pod.Addrs {
			out = append(out, addr.IP)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func pointers(pods []Pod) (out []*Pod) {
	for i := range pods {
		out = append(out, &pods[i])
	}
	return out
}
