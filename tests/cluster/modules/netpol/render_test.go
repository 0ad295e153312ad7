package main

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	netv1 "k8s.io/api/networking/v1"
)

var testOptions = Options{PodInterfaces: "veth*", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00::/64")}}

// chain cuts one chain's rules out of a table.
func chain(t *testing.T, table, name string) (rules []string) {
	t.Helper()
	inside := false
	for _, line := range strings.Split(table, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "chain "+name+" {"):
			inside = true
		case inside && line == "}":
			return rules
		case inside:
			rules = append(rules, line)
		}
	}
	t.Fatalf("no chain %s in\n%s", name, table)
	return nil
}

func TestRules(t *testing.T) {
	for name, c := range map[string]struct {
		spec  string
		chain string
		skip  bool // --ipblock-excludes-pods
		want  []string
	}{
		"deny all": {spec: `{podSelector: {matchLabels: {app: a}}}`, chain: "to_pod0", want: nil},
		"anyone on a port": {spec: `{podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 80}]}]}`, chain: "to_pod0",
			want: []string{"tcp dport 80 return"}},
		"pods of both families": {spec: `{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {}}]}]}`, chain: "to_pod0",
			want: []string{"ip saddr { 10.0.0.1, 10.0.0.2 } return", "ip6 saddr { fd00::1, fd00::2 } return"}},
		"egress looks at the target": {spec: `{podSelector: {matchLabels: {app: a}}, egress: [{to: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 1, endPort: 2, protocol: UDP}]}]}`, chain: "from_pod0",
			want: []string{"ip daddr { 10.0.0.2 } udp dport 1-2 return", "ip6 daddr { fd00::2 } udp dport 1-2 return"}},
		"block with exceptions": {spec: `{podSelector: {matchLabels: {app: a}}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.2.0/24]}}]}]}`, chain: "from_pod0",
			want: []string{"ip daddr 10.0.0.0/8 ip daddr != { 10.1.0.0/16 } return"}},
		"the whole of a family is not the other one": {spec: `{podSelector: {matchLabels: {app: a}}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}]}]}`, chain: "from_pod0",
			want: []string{"meta nfproto ipv4 return", "meta nfproto ipv6 return"}},
		"blocks that exclude pods": {spec: `{podSelector: {matchLabels: {app: a}}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}]}`, chain: "from_pod0", skip: true,
			want: []string{"meta nfproto ipv4 ip daddr != @infra4 fib daddr type != local tcp dport 443 return"}},
		"the same permission once": {spec: `{podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 80}]}, {ports: [{port: 80}]}]}`, chain: "to_pod0",
			want: []string{"tcp dport 80 return"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := testWorld()
			w.Policies = []*netv1.NetworkPolicy{policy(t, "x", c.spec)}
			opt := testOptions
			opt.BlocksExcludePods = c.skip
			side := "saddr"
			if strings.HasPrefix(c.chain, "from") {
				side = "daddr"
			}
			want := append([]string{"ip " + side + " { 10.0.0.1 } return", "ip6 " + side + " { fd00::1 } return"}, c.want...)
			want = append(want, "counter drop")
			if got := chain(t, Table(w, opt), c.chain); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestUnknownPodsAreDroppedBothWays(t *testing.T) {
	for name, c := range map[string][3]string{"known_source": {"iifname", "saddr"}, "known_target": {"oifname", "daddr"}} {
		iface, side := c[0], c[1]
		want := []string{
			iface + " . ip " + side + " @pods4 return",
			iface + ` != "veth*" ip ` + side + " @remote4 return",
			iface + " . ip6 " + side + " @pods6 return",
			iface + ` != "veth*" ip6 ` + side + " @remote6 return",
			"ip " + side + " { 10.0.0.0/16 } counter drop",
			"ip6 " + side + " { fd00::/64 } counter drop",
			iface + ` "veth*" counter drop`,
		}
		if got := chain(t, Table(&World{}, testOptions), name); !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s", name, strings.Join(got, "\n"))
		}
	}
}

func TestDisjoint(t *testing.T) {
	var in []netip.Prefix
	for _, text := range []string{"10.1.2.0/24", "10.1.0.0/16", "10.1.0.0/16", "10.2.0.0/16", "10.1.3.3/32"} {
		in = append(in, netip.MustParsePrefix(text))
	}
	if got := braces(disjoint(in)); got != "{ 10.1.0.0/16, 10.2.0.0/16 }" {
		t.Error(got)
	}
}

// The kernel itself reads every kind of rule, in a network namespace of the test's own. Needs root and nft.
func TestTheKernelTakesTheTable(t *testing.T) {
	if os.Geteuid() != 0 || exec.Command("unshare", "--net", "nft", "list", "tables").Run() != nil {
		t.Skip("needs root and nft")
	}
	w := testWorld()
	w.Pods = append(w.Pods, Pod{Namespace: "far", Name: "r", Addrs: []Addr{{IP: netip.MustParseAddr("10.0.9.9")}, {IP: netip.MustParseAddr("fd00::9:9")}}})
	w.Infra = []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd09::2")}
	for _, spec := range []string{
		`{podSelector: {}, policyTypes: [Ingress, Egress]}`,
		`{podSelector: {}, ingress: [{}], egress: [{}]}`,
		`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}, {namespaceSelector: {}}], ports: [{port: http}, {port: 1, endPort: 9, protocol: SCTP}, {protocol: UDP}]}],
		  egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}, {port: 53, protocol: UDP}]}, {ports: [{port: http}]}]}`,
		`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 10.1.0.0/16]}}, {ipBlock: {cidr: "::/0", except: ["fd00::/8"]}}]}],
		  egress: [{to: [{ipBlock: {cidr: 203.0.113.7/32}}, {ipBlock: {cidr: "2001:db8::/32", except: ["2001:db8:1::/48", "2001:db8::1/128"]}}], ports: [{port: 443}]}]}`,
	} {
		w.Policies = append(w.Policies, policy(t, "x", spec))
	}
	for _, exclude := range []bool{false, true} {
		for _, world := range []*World{{}, w} {
			opt := testOptions
			opt.BlocksExcludePods = exclude
			cmd := exec.CommandContext(context.Background(), "unshare", "--net", "sh", "-c", "cat >/dev/shm/$$ && nft -f /dev/shm/$$ && nft -f /dev/shm/$$; rc=$?; rm /dev/shm/$$; exit $rc")
			cmd.Stdin = strings.NewReader(Transaction(world, opt))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}
	}
}
