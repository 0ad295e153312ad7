package main

// Which interface leads to which pod. The ptp plugin gives every pod a veth pair of its own and routes the
// pod's addresses to it one by one; those host routes are read from the kernel.

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// HostRoutes reads the single-address routes of both families.
func HostRoutes() (map[netip.Addr]string, error) {
	routes := map[netip.Addr]string{}
	for path, parse := range map[string]func(io.Reader, map[netip.Addr]string) error{
		"/proc/self/net/route": parseRoutes4, "/proc/self/net/ipv6_route": parseRoutes6,
	} {
		file, err := os.Open(path)
		if os.IsNotExist(err) {
			continue // a kernel without IPv6
		} else if err != nil {
			return nil, err
		}
		err = parse(file, routes)
		file.Close()
		if err != nil {
			return nil, err
		}
	}
	return routes, nil
}

// parseRoutes4: Iface Destination Gateway Flags RefCnt Use Metric Mask ..., addresses as little-endian hexadecimal numbers.
func parseRoutes4(r io.Reader, routes map[netip.Addr]string) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 8 || field[7] != "FFFFFFFF" {
			continue
		}
		raw, err := hex.DecodeString(field[1])
		if err != nil || len(raw) != 4 {
			continue
		}
		slices.Reverse(raw)
		addr, _ := netip.AddrFromSlice(raw)
		routes[addr] = field[0]
	}
	return lines.Err()
}

// parseRoutes6: destination prefix-length source prefix-length gateway metric refcnt use flags iface, all hexadecimal.
// The kernel also lists the node's own addresses here (RTF_LOCAL, RTF_ANYCAST): those lead nowhere.
func parseRoutes6(r io.Reader, routes map[netip.Addr]string) error {
	const local, anycast = 0x80000000, 0x00100000
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		field := strings.Fields(lines.Text())
		if len(field) < 10 || field[1] != "80" {
			continue
		}
		flags, err := strconv.ParseUint(field[8], 16, 32)
		raw, err2 := hex.DecodeString(field[0])
		if err != nil || err2 != nil || len(raw) != 16 || flags&(local|anycast) != 0 {
			continue
		}
		addr, _ := netip.AddrFromSlice(raw)
		if addr.IsMulticast() || addr.IsLinkLocalUnicast() {
			continue
		}
		routes[addr] = field[9]
	}
	return lines.Err()
}
