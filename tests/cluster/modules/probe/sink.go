// The outside world of the test cluster: runs in the network namespace `internet`, answers on its addresses
// and counts what arrives there, so that a test can tell "nothing was sent" from "nothing answered".
package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
)

var (
	sinkTCP = []string{"53", "80", "443", "5432", "8080"}
	sinkUDP = []string{"53", "443", "9999"}
)

func sink(addresses []string, counts, device string) {
	counter := newCounter()
	capture := openCapture(device, counter, counts)
	answer := func(k key) string { return "hello from " + net.JoinHostPort(k.To, fmt.Sprint(k.Port)) }
	for _, address := range addresses {
		for _, port := range sinkTCP {
			listenTCP(net.JoinHostPort(address, port), counter, answer)
		}
		for _, port := range sinkUDP {
			listenUDP(net.JoinHostPort(address, port), counter, answer)
		}
	}
	http.HandleFunc("/counts", func(w http.ResponseWriter, r *http.Request) {
		capture.drain()
		_, _ = w.Write(counter.json())
	})
	http.HandleFunc("/heard", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(counter.heardJSON()) })
	http.HandleFunc("/reset", func(w http.ResponseWriter, r *http.Request) {
		capture.drain()
		counter.reset()
		_, _ = w.Write([]byte("[]\n"))
	})
	go capture.run()
	fmt.Printf("sink on %s, counts on %s\n", strings.Join(addresses, ","), counts)
	if err := http.ListenAndServe(counts, nil); err != nil {
		fail("%v", err)
	}
}

// capture reads every IP packet which arrives on the device (a packet socket: also what no server listens for).
type capture struct {
	socket  int
	counter *counter
	ignore  netip.AddrPort
}

func openCapture(device string, counter *counter, ignore string) *capture {
	swap := func(v uint16) uint16 { return v<<8 | v>>8 } // the kernel wants the protocol in network order
	link, err := net.InterfaceByName(device)
	if err != nil {
		fail("%s: %v", device, err)
	}
	socket, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM, int(swap(syscall.ETH_P_ALL)))
	if err != nil {
		fail("packet socket: %v", err)
	}
	if err := syscall.Bind(socket, &syscall.SockaddrLinklayer{Protocol: swap(syscall.ETH_P_ALL), Ifindex: link.Index}); err != nil {
		fail("packet socket: %v", err)
	}
	return &capture{socket, counter, netip.MustParseAddrPort(ignore)}
}

func (c *capture) read(flags int) bool {
	buffer := make([]byte, 256)
	n, from, err := syscall.Recvfrom(c.socket, buffer, flags)
	if err != nil {
		return err == syscall.EINTR
	}
	if link, ok := from.(*syscall.SockaddrLinklayer); !ok || link.Pkttype != syscall.PACKET_HOST {
		return true
	}
	if k, ok := parsePacket(buffer[:n]); ok && !(k.To == c.ignore.Addr().String() && k.Port == int(c.ignore.Port())) {
		c.counter.add(k, 1, 0)
	}
	return true
}

func (c *capture) run() {
	for c.read(0) {
	}
	fail("the packet socket broke")
}

func (c *capture) drain() {
	for c.read(syscall.MSG_DONTWAIT) {
	}
}

// parsePacket gives the key of a first packet: a TCP SYN, a UDP datagram or an ICMP echo request.
// IPv6 extension headers are not followed: nothing in the test cluster sends them.
func parsePacket(p []byte) (key, bool) {
	var from, to netip.Addr
	var protocol byte
	var payload []byte
	switch {
	case len(p) >= 20 && p[0]>>4 == 4 && len(p) >= int(p[0]&15)*4:
		from, to = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		protocol, payload = p[9], p[int(p[0]&15)*4:]
	case len(p) >= 40 && p[0]>>4 == 6:
		from, to = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
		protocol, payload = p[6], p[40:]
	default:
		return key{}, false
	}
	k := key{To: to.String(), From: from.String()}
	const syn, ack = 0x02, 0x10
	switch {
	case protocol == syscall.IPPROTO_TCP && len(payload) >= 14 && payload[13]&(syn|ack) == syn:
		k.Protocol, k.Port = "tcp", int(binary.BigEndian.Uint16(payload[2:4]))
	case protocol == syscall.IPPROTO_UDP && len(payload) >= 8:
		k.Protocol, k.Port = "udp", int(binary.BigEndian.Uint16(payload[2:4]))
	case protocol == syscall.IPPROTO_ICMP && len(payload) > 0 && payload[0] == 8,
		protocol == syscall.IPPROTO_ICMPV6 && len(payload) > 0 && payload[0] == 128:
		k.Protocol = "icmp"
	default:
		return key{}, false
	}
	return k, true
}
