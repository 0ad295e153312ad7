// netpol enforces networking.k8s.io/v1 NetworkPolicies on the one node of a test cluster.
//
//	netpol --kubeconfig FILE --pod-cidr CIDR [--pod-cidr CIDR] [--node-name NAME] [--once] [--ipblock-excludes-pods]
//	netpol flush     stop enforcing, until
//	netpol resume    a running engine takes up its work again
//
// What it promises:
//   - The whole of NetworkPolicy v1: selectors with expressions, ipBlock with except, numeric, named and ranged
//     ports, TCP, UDP and SCTP, both address families, the defaults of policyTypes, empty versus absent rules.
//   - No start window. What comes from or goes to a pod that it does not know (yet, or any more) is dropped: every
//     address of the pod CIDRs, and every packet on a pod's interface. A pod is known from the moment the CNI plugin
//     has connected it, which is before its first container starts, until it has finished, failed or is gone.
//   - A pod is its address on its interface. An address that another pod gets later, or makes up, opens nothing.
//   - One nftables table, `inet netpol`, replaced as a whole or not at all. It stays in force when the engine ends,
//     and a starting engine replaces it only when it has seen everything.
//   - Pod to node (and so to the API server) is filtered, in the input hook. Node to pod never is: kubelet probes pass.
//
// What it does not:
//   - Established connections live on when a new policy forbids them (`ct state established accept`), as with most
//     engines. A policy judges the first packet of a connection.
//   - hostNetwork pods are the node: neither filtered nor meant by selectors.
//   - It needs nft, a CNI plugin which gives each pod an interface of its own on the node and routes to it (ptp), and
//     libcni's cache of results. Static pods are not in there under the UID that the API knows: they stay dropped.
//   - Nothing makes a container wait for the engine. A packet which comes before the table is dropped, never let
//     through: TCP repeats it a second later.
//   - Where the API leaves a choice, other engines choose otherwise. Its own reading: an ipBlock reaches pods, nodes
//     and the API server when their addresses lie in it; a Service's address is judged after translation to a pod's;
//     a pod always reaches itself; a rule with a named port and an ipBlock allows nothing.
//     With --ipblock-excludes-pods ipBlocks reach none of pods, nodes and the API server, as in Cilium's default.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

type prefixes []netip.Prefix

func (p *prefixes) String() string { return fmt.Sprint(*p) }

func (p *prefixes) Set(text string) error {
	cidr, err := netip.ParsePrefix(text)
	if err == nil {
		*p = append(*p, cidr.Masked())
	}
	return err
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !(errors.Is(err, context.Canceled) && ctx.Err() != nil) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) error {
	var engine Engine
	flags := flag.NewFlagSet("netpol", flag.ExitOnError)
	kubeconfig := flags.String("kubeconfig", "", "`file` with access to pods, namespaces and networkpolicies (list, watch)")
	flags.Var((*prefixes)(&engine.opt.PodCIDRs), "pod-cidr", "`range` of the pods' addresses; repeat for the other family")
	flags.StringVar(&engine.opt.PodInterfaces, "pod-interfaces", "veth*", "nft `pattern` of the node's ends of the pods' veth pairs")
	flags.StringVar(&engine.node, "node-name", "", "`name` of this node; without it every pod is taken to run here")
	flags.StringVar(&engine.attached.dir, "cni-results", "/var/lib/cni/results", "`directory` of libcni's cache")
	flags.BoolVar(&engine.once, "once", false, "make the table once and exit")
	flags.BoolVar(&engine.opt.BlocksExcludePods, "ipblock-excludes-pods", false, "ipBlocks never mean pods, nodes or the API server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch command := flags.Arg(0); {
	case flags.NArg() > 1:
		return fmt.Errorf("too many arguments: %q", flags.Args())
	case command == "flush":
		return flush(ctx)
	case command == "resume":
		return resume(ctx)
	case command != "":
		return fmt.Errorf("unknown command %q: flush or resume", command)
	case len(engine.opt.PodCIDRs) == 0:
		return errors.New("--pod-cidr is needed: without it unknown pods could not be told from the world")
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if engine.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	return engine.Run(ctx)
}
