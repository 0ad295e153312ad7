// An echo request through a datagram socket, which any user may open where net.ipv4.ping_group_range allows it (containers: everybody).
package main

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"
)

func ping(rest string, deadline time.Time) (string, error) {
	address, err := netip.ParseAddr(rest)
	if err != nil {
		return "", err
	}
	const icmpV6 = 58
	family, protocol, request, to := syscall.AF_INET, syscall.IPPROTO_ICMP, byte(8), syscall.Sockaddr(nil)
	if address.Is6() {
		family, protocol, request = syscall.AF_INET6, icmpV6, 128
		to = &syscall.SockaddrInet6{Addr: address.As16()}
	} else {
		to = &syscall.SockaddrInet4{Addr: address.As4()}
	}
	socket, err := syscall.Socket(family, syscall.SOCK_DGRAM, protocol)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	defer syscall.Close(socket)
	wait := syscall.NsecToTimeval(max(time.Until(deadline), time.Millisecond).Nanoseconds())
	if err := syscall.SetsockoptTimeval(socket, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &wait); err != nil {
		return "", os.NewSyscallError("setsockopt", err)
	}
	// Type, code, checksum (the kernel's), identifier, sequence, and what somebody might carry out.
	message := append([]byte{request, 0, 0, 0, 0, 0, 0, 1}, "secret"...)
	if family == syscall.AF_INET {
		var sum uint32
		for i := 0; i < len(message); i += 2 {
			sum += uint32(message[i])<<8 | uint32(message[i+1])
		}
		sum = sum>>16 + sum&0xffff
		message[2], message[3] = byte(^sum>>8), byte(^sum)
	}
	if err := syscall.Sendto(socket, message, 0, to); err != nil {
		return "", os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 256)
	if _, _, err := syscall.Recvfrom(socket, answer, 0); err != nil {
		if errors.Is(err, syscall.EAGAIN) {
			return "", os.ErrDeadlineExceeded
		}
		return "", os.NewSyscallError("recvfrom", err)
	}
	return "echo", nil
}
