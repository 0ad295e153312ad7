package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func apiPod(name string, change func(*corev1.Pod), statusIPs ...string) *corev1.Pod {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID = "x", name, types.UID(name)
	p.Spec.NodeName = "node1"
	p.Status.Phase = corev1.PodRunning
	for _, ip := range statusIPs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	if change != nil {
		change(p)
	}
	return p
}

func attached(uid, iface string, ips ...string) Attachment {
	a := Attachment{UID: uid}
	for _, ip := range ips {
		a.Addrs = append(a.Addrs, Addr{IP: netip.MustParseAddr(ip), Iface: iface})
	}
	return a
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

func TestWhoOwnsAnAddress(t *testing.T) {
	phase := func(to corev1.PodPhase) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.Phase = to } }
	elsewhere := func(p *corev1.Pod) { p.Spec.NodeName = "node2" }
	for name, c := range map[string]struct {
		pods        []*corev1.Pod
		attachments []Attachment // the latest first
		want        []string
	}{
		"attached, the status is still empty": {
			pods:        []*corev1.Pod{apiPod("a", phase(corev1.PodPending))},
			attachments: []Attachment{attached("a", "veth1", "10.0.0.1", "fd00::1")},
			want:        []string{"a veth1 10.0.0.1", "a veth1 fd00::1"},
		},
		"a status without an attachment is nothing": {pods: []*corev1.Pod{apiPod("a", nil, "10.0.0.1")}},
		"an attachment without a pod is nothing":    {attachments: []Attachment{attached("a", "veth1", "10.0.0.1")}},
		"succeeded: unknown again": {
			pods:        []*corev1.Pod{apiPod("a", phase(corev1.PodSucceeded), "10.0.0.1")},
			attachments: []Attachment{attached("a", "veth1", "10.0.0.1")},
		},
		"failed: unknown again": {
			pods:        []*corev1.Pod{apiPod("a", phase(corev1.PodFailed), "10.0.0.1")},
			attachments: []Attachment{attached("a", "veth1", "10.0.0.1")},
		},
		"hostNetwork pods are the node": {
			pods:        []*corev1.Pod{apiPod("a", func(p *corev1.Pod) { p.Spec.HostNetwork = true }, "10.0.0.1")},
			attachments: []Attachment{attached("a", "veth1", "10.0.0.1")},
		},
		"a new pod with a dead pod's address, the dead one still in the API": {
			pods:        []*corev1.Pod{apiPod("old", nil, "10.0.0.1"), apiPod("new", phase(corev1.PodPending))},
			attachments: []Attachment{attached("new", "veth2", "10.0.0.1"), attached("old", "veth1", "10.0.0.1")},
			want:        []string{"new veth2 10.0.0.1"},
		},
		"the new one is not in the API yet: the address is nobody's": {
			pods:        []*corev1.Pod{apiPod("old", nil, "10.0.0.1")},
			attachments: []Attachment{attached("new", "veth2", "10.0.0.1"), attached("old", "veth1", "10.0.0.1")},
		},
		"the same name, another pod": {
			pods:        []*corev1.Pod{apiPod("a", func(p *corev1.Pod) { p.UID = "second" })},
			attachments: []Attachment{attached("first", "veth1", "10.0.0.1")},
		},
		"a pod of another node": {
			pods:        []*corev1.Pod{apiPod("far", elsewhere, "10.0.9.1")},
			attachments: []Attachment{attached("other", "veth1", "10.0.0.1")},
			want:        []string{"far  10.0.9.1"},
		},
		"a pod of another node cannot take an address from here": {
			pods:        []*corev1.Pod{apiPod("far", elsewhere, "10.0.0.1"), apiPod("a", nil)},
			attachments: []Attachment{attached("a", "veth1", "10.0.0.1")},
			want:        []string{"a veth1 10.0.0.1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := Build(c.pods, nil, nil, c.attachments, "node1")
			if got := owners(w); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q; want %q", got, c.want)
			}
			slices.Reverse(c.pods)
			if again := owners(Build(c.pods, nil, nil, c.attachments, "node1")); !reflect.DeepEqual(again, c.want) {
				t.Errorf("in another order: %q", again)
			}
		})
	}
}

const cacheFile = `{"kind":"cniCacheV1","containerId":"c","config":"e30=","ifName":"eth0","networkName":"n",
 "cniArgs":[["IgnoreUnknown","1"],["K8S_POD_UID","uid-1"]],
 "result":{"cniVersion":"1.0.0","interfaces":[{"name":"veth1a","mac":"02:00:00:00:00:01"},{"name":"eth0","sandbox":"/run/netns/c"}],
 "ips":[{"interface":1,"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"interface":1,"address":"2001:db8::5/64"}]}}`

func TestParseAttachment(t *testing.T) {
	for name, c := range map[string]struct {
		raw  string
		want Attachment
		bad  bool
	}{
		"a veth pair":    {raw: cacheFile, want: attached("uid-1", "veth1a", "10.0.0.5", "2001:db8::5")},
		"half written":   {raw: cacheFile[:200], bad: true},
		"empty":          {bad: true},
		"another format": {raw: strings.Replace(cacheFile, "cniCacheV1", "cniCacheV9", 1), bad: true},
		"loopback":       {raw: strings.Replace(cacheFile, `{"name":"veth1a","mac":"02:00:00:00:00:01"},`, "", 1), want: Attachment{UID: "uid-1"}},
		"not a pod's":    {raw: strings.Replace(cacheFile, "K8S_POD_UID", "X", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseAttachment([]byte(c.raw))
			if !reflect.DeepEqual(got, c.want) || (err != nil) != c.bad {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestAttachmentsComeAndGo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	changes := make(chan struct{}, 100)
	if err := watchDir(dir, func() { changes <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	source := Attachments{dir: dir}
	interfaces := []string{"lo", "veth1a"}
	uids := func() (out []string) {
		all, err := source.Read(interfaces)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			out = append(out, a.UID)
		}
		return out
	}
	step := func(what string, do func() error, want ...string) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changes:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: not noticed", what)
		}
		if got := uids(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	write := func(name, text string) func() error {
		return func() error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	step("half a file", write("one", cacheFile[:100]))
	step("the whole file", write("one", cacheFile), "uid-1")
	time.Sleep(20 * time.Millisecond) // file times
	step("a later one comes first", write("two", strings.Replace(cacheFile, "uid-1", "uid-2", 1)), "uid-2", "uid-1")
	interfaces = []string{"lo", "veth9"}
	if got := uids(); got != nil {
		t.Errorf("their interface is gone: %q", got)
	}
	interfaces = []string{"lo", "veth1a"}
	step("removed", func() error { return os.Remove(filepath.Join(dir, "one")) }, "uid-2")
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
