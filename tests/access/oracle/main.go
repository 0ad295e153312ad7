// The independent implementation of NetworkPolicy (Cyclonus' matcher), asked case by case: what tests/it/access.rs compares with.
//
// A case is a line of JSON on stdin; the answer, on a line of stdout, has one letter for each source, destination and port in their order:
// `+` allowed, `-` denied.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

type testCase struct {
	Namespaces map[string]map[string]string
	Ends       []end
	Policies   []*networkingv1.NetworkPolicy
	Ports      []port
}

// A pod, or an address outside: that one has no namespace.
type end struct {
	Namespace string
	Labels    map[string]string
	Address   string
	Ports     []port
}

type port struct {
	Name     string
	Number   int
	Protocol v1.Protocol
}

func (c *testCase) peer(e end) *matcher.TrafficPeer {
	if e.Namespace == "" {
		return &matcher.TrafficPeer{IP: e.Address}
	}
	return &matcher.TrafficPeer{IP: e.Address, Internal: &matcher.InternalPeer{PodLabels: e.Labels, NamespaceLabels: c.Namespaces[e.Namespace], Namespace: e.Namespace}}
}

func (c *testCase) answer() string {
	policy := matcher.BuildNetworkPolicies(false, c.Policies)
	var out strings.Builder
	for _, from := range c.Ends {
		for _, to := range c.Ends {
			for _, at := range c.Ports {
				name := ""
				for _, known := range to.Ports {
					if known.Number == at.Number && known.Protocol == at.Protocol {
						name = known.Name
					}
				}
				traffic := &matcher.Traffic{Source: c.peer(from), Destination: c.peer(to), ResolvedPort: at.Number, ResolvedPortName: name, Protocol: at.Protocol}
				if policy.IsTrafficAllowed(traffic).IsAllowed() {
					out.WriteByte('+')
				} else {
					out.WriteByte('-')
				}
			}
		}
	}
	return out.String()
}

func main() {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	decoder := json.NewDecoder(lines)
	for decoder.More() {
		var c testCase
		if err := decoder.Decode(&c); err != nil {
			log.Fatal(err)
		}
		fmt.Fprintln(out, c.answer())
	}
}
