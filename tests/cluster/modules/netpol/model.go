package main

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
)

// World is everything a table is computed from: one consistent view, with no client and no clock behind it.
type World struct {
	Pods       []Pod
	Namespaces map[string]map[string]string // name -> labels
	Policies   []*netv1.NetworkPolicy
	// Infra holds the addresses of nodes and of the API server. It is read only when ipBlocks are to exclude them.
	Infra []netip.Addr
}

// Pod is a running pod with addresses of its own (never a hostNetwork pod, never a finished one).
type Pod struct {
	Namespace, Name string
	Labels          map[string]string
	Ports           []corev1.ContainerPort // of containers and sidecars, for named ports
	Local           bool                   // runs on this node: its chains are rendered here
	Addrs           []Addr
}

// Addr is an address a pod owns. A local pod owns it on one interface only: another interface which uses
// the same address is somebody else.
type Addr struct {
	IP    netip.Addr
	Iface string // host side of the pod's veth pair; empty for a pod of another node
}

// Direction is seen from the pod that a policy selects.
type Direction int

const (
	Ingress Direction = iota
	Egress
)

// Port says which packets of an allowed peer pass. The zero value lets everything pass, ICMP too.
type Port struct {
	Proto    string // tcp, udp, sctp; empty: every protocol
	From, To int32  // both 0: every port of the protocol
}

// Allow is one permission: from or to one kind of peer, on one port or range.
// Exactly one of Any, Addrs and Block says who the peer is.
type Allow struct {
	Any   bool
	Addrs []netip.Addr
	Block *Block
	Port  Port
}

// Block is an ipBlock.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}
