package main

// The nftables table as text. The same world always gives the same text.

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Options is what the command line fixes.
type Options struct {
	PodCIDRs []netip.Prefix
	// PodInterfaces is the nft pattern of the node's ends of the pods' veth pairs. Whatever such an interface
	// carries is a pod's, also from a link-local or made-up source.
	PodInterfaces string
	// BlocksExcludePods makes ipBlocks skip pods, nodes and the API server, as Cilium reads them by default.
	BlocksExcludePods bool
}

// Transaction replaces the whole table in one step. It fails as a whole, and changes nothing, while the
// table that `netpol flush` leaves behind exists: `create` refuses a name that is taken.
func Transaction(w *World, opt Options) string {
	return "create table inet " + flushedTable + "\ndelete table inet " + flushedTable + "\n" +
		"add table inet " + table + "\ndelete table inet " + table + "\n" + Table(w, opt)
}

// Table renders the table. Of both families:
//
//	pods4/6     interface and address of each local pod that is known
//	remote4/6   addresses of known pods on other nodes
//	infra4/6    what ipBlocks do not reach (only with BlocksExcludePods)
//	known_*     drop what comes from or goes to a pod that is not known (yet, or any more)
//	from_pods, to_pods   one chain per isolated pod and direction
func Table(w *World, opt Options) string {
	r := renderer{opt: opt, dispatch: map[Direction]map[family][]string{Ingress: {}, Egress: {}}}
	pods := w.Pods
	n := 0
	for i := range pods {
		if !pods[i].Local || len(pods[i].Addrs) == 0 {
			continue
		}
		for _, dir := range []Direction{Egress, Ingress} {
			if isolated, allows := w.Permissions(&pods[i], dir); isolated {
				r.podChain(n, &pods[i], dir, allows)
			}
		}
		n++
	}
	var o strings.Builder
	fmt.Fprintf(&o, "table inet %s {\n", table)
	for _, f := range families {
		o.WriteString(set("pods"+f.suffix, "type ifname . "+f.addrType, local(pods, f)))
		o.WriteString(set("remote"+f.suffix, "type "+f.addrType, remote(pods, f)))
		if opt.BlocksExcludePods {
			o.WriteString(set("infra"+f.suffix, "type "+f.addrType+"; flags interval; auto-merge", infra(w, opt, f)))
		}
	}
	o.WriteString(r.chains.String())
	o.WriteString(r.known("known_source", "iifname", "saddr"))
	o.WriteString(r.known("known_target", "oifname", "daddr"))
	o.WriteString(r.dispatcher("from_pods", Egress))
	o.WriteString(r.dispatcher("to_pods", Ingress))
	// No exception for neighbour discovery here: it is never forwarded.
	o.WriteString(`	chain forwarded {
		type filter hook forward priority 10; policy accept;
		ct state established,related accept
		jump known_source
		jump known_target
		jump from_pods
		jump to_pods
	}
	chain to_node {
		type filter hook input priority 10; policy accept;
		ct state established,related accept
		iif lo accept
		ip6 hoplimit 255 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
		jump known_source
		jump from_pods
	}
}
`)
	return o.String()
}

type family struct{ name, suffix, addrType string }

var (
	v4       = family{"ip", "4", "ipv4_addr"}
	v6       = family{"ip6", "6", "ipv6_addr"}
	families = []family{v4, v6}
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

type renderer struct {
	opt      Options
	chains   strings.Builder
	dispatch map[Direction]map[family][]string
}

var sides = map[Direction]struct{ prefix, peer, self string }{
	Ingress: {"to_pod", "saddr", "daddr"},
	Egress:  {"from_pod", "daddr", "saddr"},
}

// podChain: `return` lets the packet go on to the other direction's check; what matches no permission is dropped.
func (r *renderer) podChain(n int, pod *Pod, dir Direction, allows []Allow) {
	side := sides[dir]
	name := fmt.Sprintf("%s%d", side.prefix, n)
	fmt.Fprintf(&r.chains, "\tchain %s { # %s/%s\n", name, pod.Namespace, pod.Name)
	lines := []string{}
	for _, f := range families {
		var own []netip.Addr
		for _, addr := range pod.Addrs {
			if familyOf(addr.IP) == f {
				own = append(own, addr.IP)
				r.dispatch[dir][f] = append(r.dispatch[dir][f], fmt.Sprintf("%s : jump %s", addr.IP, name))
			}
		}
		if len(own) > 0 { // a pod always reaches itself, through a Service too
			lines = append(lines, fmt.Sprintf("%s %s %s return", f.name, side.peer, braces(own)))
		}
	}
	for _, allow := range allows {
		for _, line := range r.permission(allow, side.peer) {
			if !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	for _, line := range lines {
		fmt.Fprintf(&r.chains, "\t\t%s\n", line)
	}
	r.chains.WriteString("\t\tcounter drop\n\t}\n")
}

func (r *renderer) permission(allow Allow, peer string) (lines []string) {
	tail := portMatch(allow.Port) + "return"
	switch {
	case allow.Any:
		return []string{tail}
	case allow.Block != nil:
		f := familyOf(allow.Block.CIDR.Addr())
		var except []netip.Prefix
		for _, e := range allow.Block.Except {
			if familyOf(e.Addr()) == f {
				except = append(except, e)
			}
		}
		line := fmt.Sprintf("%s %s %s ", f.name, peer, allow.Block.CIDR)
		if allow.Block.CIDR.Bits() == 0 { // nft refuses /0 in some places; the family says it all
			line = "meta nfproto " + map[family]string{v4: "ipv4 ", v6: "ipv6 "}[f]
		}
		if len(except) > 0 {
			line += fmt.Sprintf("%s %s != %s ", f.name, peer, braces(disjoint(except)))
		}
		if r.opt.BlocksExcludePods {
			line += fmt.Sprintf("%s %s != @infra%s fib %s type != local ", f.name, peer, f.suffix, peer)
		}
		return []string{line + tail}
	}
	for _, f := range families {
		var addrs []netip.Addr
		for _, a := range allow.Addrs {
			if familyOf(a) == f {
				addrs = append(addrs, a)
			}
		}
		if len(addrs) > 0 {
			lines = append(lines, fmt.Sprintf("%s %s %s %s", f.name, peer, braces(addrs), tail))
		}
	}
	return lines
}

func portMatch(p Port) string {
	switch {
	case p.Proto == "":
		return ""
	case p.From == 0 && p.To == 0:
		return "meta l4proto " + p.Proto + " "
	case p.From == p.To:
		return fmt.Sprintf("%s dport %d ", p.Proto, p.From)
	}
	return fmt.Sprintf("%s dport %d-%d ", p.Proto, p.From, p.To)
}

// known drops what claims or names a pod address without being that pod, and all else on a pod's interface.
func (r *renderer) known(name, iface, side string) string {
	var o strings.Builder
	fmt.Fprintf(&o, "\tchain %s {\n", name)
	for _, f := range families {
		fmt.Fprintf(&o, "\t\t%s . %s %s @pods%s return\n", iface, f.name, side, f.suffix)
		fmt.Fprintf(&o, "\t\t%s != %q %s %s @remote%s return\n", iface, r.opt.PodInterfaces, f.name, side, f.suffix)
	}
	for _, f := range families {
		if cidrs := only(r.opt.PodCIDRs, f); len(cidrs) > 0 {
			fmt.Fprintf(&o, "\t\t%s %s %s counter drop\n", f.name, side, braces(disjoint(cidrs)))
		}
	}
	fmt.Fprintf(&o, "\t\t%s %q counter drop\n\t}\n", iface, r.opt.PodInterfaces)
	return o.String()
}

func (r *renderer) dispatcher(name string, dir Direction) string {
	var o strings.Builder
	fmt.Fprintf(&o, "\tchain %s {\n", name)
	for _, f := range families {
		if jumps := r.dispatch[dir][f]; len(jumps) > 0 {
			fmt.Fprintf(&o, "\t\t%s %s vmap { %s }\n", f.name, sides[dir].self, strings.Join(jumps, ", "))
		}
	}
	return o.String() + "\t}\n"
}

func set(name, kind string, elements []string) string {
	slices.Sort(elements)
	elements = slices.Compact(elements)
	if len(elements) == 0 {
		return fmt.Sprintf("\tset %s { %s; }\n", name, kind)
	}
	return fmt.Sprintf("\tset %s { %s; elements = { %s }; }\n", name, kind, strings.Join(elements, ", "))
}

func local(pods []Pod, f family) (out []string) {
	for _, pod := range pods {
		for _, a := range pod.Addrs {
			if pod.Local && familyOf(a.IP) == f {
				out = append(out, fmt.Sprintf("%q . %s", a.Iface, a.IP))
			}
		}
	}
	return out
}

func remote(pods []Pod, f family) (out []string) {
	for _, pod := range pods {
		for _, a := range pod.Addrs {
			if !pod.Local && familyOf(a.IP) == f {
				out = append(out, a.IP.String())
			}
		}
	}
	return out
}

func infra(w *World, opt Options, f family) (out []string) {
	for _, cidr := range only(opt.PodCIDRs, f) {
		out = append(out, cidr.String())
	}
	for _, a := range w.Infra {
		if familyOf(a) == f {
			out = append(out, a.String())
		}
	}
	return out
}

func only(cidrs []netip.Prefix, f family) (out []netip.Prefix) {
	for _, c := range cidrs {
		if familyOf(c.Addr()) == f {
			out = append(out, c)
		}
	}
	return out
}

// disjoint leaves out ranges that lie in another one: nft refuses overlapping elements.
func disjoint(cidrs []netip.Prefix) (out []netip.Prefix) {
	cidrs = slices.Clone(cidrs)
	slices.SortFunc(cidrs, func(a, b netip.Prefix) int {
		if a.Bits() != b.Bits() {
			return a.Bits() - b.Bits()
		}
		return a.Addr().Compare(b.Addr())
	})
	for _, c := range cidrs {
		if !slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Overlaps(c) }) {
			out = append(out, c)
		}
	}
	return out
}

func braces[T fmt.Stringer](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = item.String()
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}
