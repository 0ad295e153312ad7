package main

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// world: three namespaces; every pod is dual-stack.
func testWorld() *World {
	pod := func(ns, name, v4, v6 string, labels map[string]string, ports ...corev1.ContainerPort) Pod {
		return Pod{Namespace: ns, Name: name, Labels: labels, Ports: ports, Local: true, Addrs: []Addr{
			{IP: netip.MustParseAddr(v4), Iface: "veth" + name}, {IP: netip.MustParseAddr(v6), Iface: "veth" + name}}}
	}
	http := func(n int32) corev1.ContainerPort { return corev1.ContainerPort{Name: "http", ContainerPort: n} }
	return &World{
		Namespaces: map[string]map[string]string{"x": {"ns": "x"}, "y": {"ns": "y", "team": "b"}, "z": {"ns": "z", "team": "b"}},
		Pods: []Pod{
			pod("x", "a", "10.0.0.1", "fd00::1", map[string]string{"app": "a"}, http(80), corev1.ContainerPort{Name: "dns", ContainerPort: 53, Protocol: "UDP"}),
			pod("x", "b", "10.0.0.2", "fd00::2", map[string]string{"app": "b", "tier": "back"}, http(8080)),
			pod("y", "a", "10.0.1.1", "fd00::11", map[string]string{"app": "a"}, http(8081)),
			pod("z", "c", "10.0.2.1", "fd00::21", map[string]string{"app": "c"}),
		},
	}
}

func policy(t *testing.T, ns, spec string) *netv1.NetworkPolicy {
	t.Helper()
	p := &netv1.NetworkPolicy{}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	p.Namespace, p.Name = ns, "p"
	return p
}

// show writes a permission as one word: peers@proto/port.
func show(allows []Allow) (out []string) {
	for _, a := range allows {
		peer := "any"
		if a.Block != nil {
			peer = a.Block.CIDR.String()
			for _, e := range a.Block.Except {
				peer += "-" + e.String()
			}
		}
		if a.Addrs != nil {
			peer = ""
			for _, ip := range a.Addrs {
				if ip.Is4() { // the other family is tested once, below
					peer += "+" + ip.String()
				}
			}
		}
		out = append(out, strings.TrimSpace(peer+" "+strings.TrimSuffix(portMatch(a.Port), " ")))
	}
	return out
}

func TestPermissions(t *testing.T) {
	for name, c := range map[string]struct {
		pod      int // index into testWorld().Pods; 0 is x/a
		ns, spec string
		dir      Direction
		isolated bool
		allows   []string
	}{
		"no policy in the pod's namespace":    {ns: "y", spec: `{podSelector: {}}`},
		"selector does not match":             {ns: "x", spec: `{podSelector: {matchLabels: {app: other}}}`},
		"empty selector takes every pod":      {ns: "x", spec: `{podSelector: {}}`, isolated: true},
		"default types: ingress":              {ns: "x", spec: `{podSelector: {}}`, isolated: true},
		"default types: no egress":            {ns: "x", spec: `{podSelector: {}}`, dir: Egress},
		"default types: empty egress is none": {ns: "x", spec: `{podSelector: {}, egress: []}`, dir: Egress},
		"default types: egress with a rule":   {ns: "x", spec: `{podSelector: {}, egress: [{}]}`, dir: Egress, isolated: true, allows: []string{"any"}},
		"type Egress only: ingress open":      {ns: "x", spec: `{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`},
		"type Egress only: egress closed":     {ns: "x", spec: `{podSelector: {}, policyTypes: [Egress]}`, dir: Egress, isolated: true},
		"type Ingress only: egress ignored":   {ns: "x", spec: `{podSelector: {}, policyTypes: [Ingress], egress: [{}]}`, dir: Egress},
		"empty list of rules":                 {ns: "x", spec: `{podSelector: {}, ingress: []}`, isolated: true},
		"empty rule is everything":            {ns: "x", spec: `{podSelector: {}, ingress: [{}]}`, isolated: true, allows: []string{"any"}},
		"empty from and ports":                {ns: "x", spec: `{podSelector: {}, ingress: [{from: [], ports: []}]}`, isolated: true, allows: []string{"any"}},
		"ports only":                          {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{port: 80}, {port: 53, protocol: UDP}]}]}`, isolated: true, allows: []string{"any tcp dport 80", "any udp dport 53"}},
		"protocol only":                       {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{protocol: SCTP}]}]}`, isolated: true, allows: []string{"any meta l4proto sctp"}},
		"empty port is every TCP port":        {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{}]}]}`, isolated: true, allows: []string{"any meta l4proto tcp"}},
		"range":                               {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}`, isolated: true, allows: []string{"any tcp dport 80-90"}},
		"backward range":                      {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}]}]}`, isolated: true},
		"same port twice":                     {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{port: 80}, {port: http}]}]}`, isolated: true, allows: []string{"any tcp dport 80"}},
		"ingress name is the selected pod's":  {pod: 1, ns: "x", spec: `{podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{port: http}]}]}`, isolated: true, allows: []string{"+10.0.0.1+10.0.0.2 tcp dport 8080"}},
		"name of another protocol":            {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{port: dns}]}]}`, isolated: true},
		"name with its protocol":              {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{port: dns, protocol: UDP}]}]}`, isolated: true, allows: []string{"any udp dport 53"}},
		"unknown name is not every port":      {ns: "x", spec: `{podSelector: {}, ingress: [{ports: [{port: nope}]}]}`, isolated: true},
		"podSelector: own namespace":          {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}`, isolated: true, allows: []string{"+10.0.0.1"}},
		"namespaceSelector: all its pods":     {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}`, isolated: true, allows: []string{"+10.0.0.1+10.0.0.2"}},
		"empty namespaceSelector: everywhere": {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: a}}}]}]}`, isolated: true, allows: []string{"+10.0.0.1+10.0.1.1"}},
		"both selectors: and":                 {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: a}}}]}]}`, isolated: true, allows: []string{"+10.0.1.1"}},
		"two peers: or":                       {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: z}}}, {podSelector: {matchLabels: {app: a}}}]}]}`, isolated: true, allows: []string{"+10.0.2.1", "+10.0.0.1"}},
		"expressions":                         {ns: "x", spec: `{podSelector: {matchExpressions: [{key: app, operator: In, values: [a, q]}]}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: Exists}, {key: ns, operator: NotIn, values: [z]}]}}, {podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}]}]}`, isolated: true, allows: []string{"+10.0.1.1", "+10.0.0.1"}},
		"NotIn takes pods without the key":    {ns: "x", spec: `{podSelector: {matchExpressions: [{key: nope, operator: NotIn, values: [v]}]}}`, isolated: true},
		"invalid selector selects nothing":    {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Never}]}}]}]}`, isolated: true},
		"peer with nothing in it is nobody":   {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{}]}]}`, isolated: true},
		"selector that selects nobody":        {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: nope}}}]}]}`, isolated: true},
		"ipBlock":                             {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.9/24, except: [10.0.0.5/32]}}], ports: [{port: 1}]}]}`, isolated: true, allows: []string{"10.0.0.0/24-10.0.0.5/32 tcp dport 1"}},
		"ipBlock v6":                          {ns: "x", spec: `{podSelector: {}, egress: [{to: [{ipBlock: {cidr: "fd00::/8"}}]}]}`, dir: Egress, isolated: true, allows: []string{"fd00::/8"}},
		"unreadable ipBlock":                  {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: nonsense}}]}]}`, isolated: true},
		"unreadable exception":                {ns: "x", spec: `{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [nonsense]}}]}]}`, isolated: true},
		"egress: name is each peer's":         {ns: "x", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}`, dir: Egress, isolated: true, allows: []string{"+10.0.0.1 tcp dport 80", "+10.0.0.2 tcp dport 8080", "+10.0.1.1 tcp dport 8081"}},
		"egress: name to anywhere":            {ns: "x", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}, {port: 53, protocol: UDP}]}]}`, dir: Egress, isolated: true, allows: []string{"any udp dport 53", "+10.0.0.1 tcp dport 80", "+10.0.0.2 tcp dport 8080", "+10.0.1.1 tcp dport 8081"}},
		"egress: name to an ipBlock":          {ns: "x", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: http}]}]}`, dir: Egress, isolated: true},
		"egress: peers share a port":          {ns: "x", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 5, endPort: 6}]}]}`, dir: Egress, isolated: true, allows: []string{"+10.0.0.1+10.0.0.2 tcp dport 5-6"}},
		"egress: no ports":                    {ns: "x", spec: `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]}`, dir: Egress, isolated: true, allows: []string{"+10.0.0.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := testWorld()
			w.Policies = []*netv1.NetworkPolicy{policy(t, c.ns, c.spec)}
			isolated, allows := w.Permissions(&w.Pods[c.pod], c.dir)
			if got := show(allows); isolated != c.isolated || !reflect.DeepEqual(got, c.allows) {
				t.Errorf("isolated %v, allows %q; want %v, %q", isolated, got, c.isolated, c.allows)
			}
		})
	}
}

func TestPoliciesAddUp(t *testing.T) {
	w := testWorld()
	w.Policies = []*netv1.NetworkPolicy{
		policy(t, "x", `{podSelector: {}}`),
		policy(t, "x", `{podSelector: {}, ingress: [{ports: [{port: 1}]}]}`),
		policy(t, "y", `{podSelector: {}, ingress: [{ports: [{port: 2}]}]}`),
		policy(t, "x", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}`),
	}
	_, allows := w.Permissions(&w.Pods[0], Ingress)
	if got, want := show(allows), []string{"any tcp dport 1", "+10.0.0.2"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPeersHaveBothFamilies(t *testing.T) {
	w := testWorld()
	w.Policies = []*netv1.NetworkPolicy{policy(t, "x", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}`)}
	_, allows := w.Permissions(&w.Pods[0], Ingress)
	if want := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}; !reflect.DeepEqual(allows[0].Addrs, want) {
		t.Errorf("%v, want %v", allows[0].Addrs, want)
	}
}

func TestUnknownNamespaceMatchesNoSelector(t *testing.T) {
	w := testWorld()
	delete(w.Namespaces, "y")
	w.Policies = []*netv1.NetworkPolicy{policy(t, "x", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: a}}}]}]}`)}
	_, allows := w.Permissions(&w.Pods[0], Ingress)
	if got, want := show(allows), []string{"+10.0.0.1"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
