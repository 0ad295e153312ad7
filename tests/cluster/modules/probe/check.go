// The asking side: one check of one target.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sort"
	"strings"
	"syscall"
	"time"
)

type options struct {
	timeout time.Duration
	family  string
	// What a socket may ask of the kernel to get round rules: zero is not to ask.
	mark       int
	device     string
	sourcePort int
}

// control sets up a socket before it is bound or connected.
func (o options) control(network, address string, socket syscall.RawConn) error {
	var failed error
	err := socket.Control(func(fd uintptr) {
		if o.mark != 0 {
			failed = os.NewSyscallError("SO_MARK", syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, o.mark))
		}
		if o.device != "" && failed == nil {
			failed = os.NewSyscallError("SO_BINDTODEVICE", syscall.BindToDevice(int(fd), o.device))
		}
		if o.sourcePort != 0 && failed == nil {
			failed = os.NewSyscallError("bind", bind(int(fd), network, o.sourcePort))
		}
	})
	return errors.Join(err, failed)
}

// bind takes the port at the pod's own address: what listens on loopback does not keep it.
func bind(fd int, network string, port int) error {
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, address := range addresses {
		prefix, err := netip.ParsePrefix(address.String())
		own := prefix.Addr()
		if err != nil || !own.IsGlobalUnicast() || own.Is6() != strings.HasSuffix(network, "6") {
			continue
		}
		if own.Is6() {
			return syscall.Bind(fd, &syscall.SockaddrInet6{Port: port, Addr: own.As16()})
		}
		return syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: own.As4()})
	}
	return syscall.EADDRNOTAVAIL
}

type result struct {
	OK           bool   `json:"ok"`
	Milliseconds int64  `json:"ms"`
	Answer       string `json:"answer,omitempty"`
	Error        string `json:"error,omitempty"`
}

func check(target string, options options) result {
	scheme, rest, found := strings.Cut(target, "://")
	if !found {
		scheme, rest = "tcp", target
	}
	if name := strings.TrimRight(scheme, "46"); name != scheme {
		scheme, options.family = name, scheme[len(name):]
	}
	ctx, cancel := context.WithTimeout(context.Background(), options.timeout)
	defer cancel()
	began := time.Now()
	answer, err := ask(ctx, scheme, rest, options)
	result := result{OK: err == nil, Milliseconds: time.Since(began).Milliseconds(), Answer: answer}
	if err != nil {
		result.Error = kind(err) + ": " + err.Error()
	}
	return result
}

type statusError int

func (s statusError) Error() string { return fmt.Sprintf("HTTP status %d", int(s)) }

func ask(ctx context.Context, scheme, rest string, options options) (string, error) {
	family := options.family
	dialer := net.Dialer{Control: options.control}
	deadline, _ := ctx.Deadline()
	switch scheme {
	case "tcp":
		conn, err := dialer.DialContext(ctx, "tcp"+family, rest)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return conn.RemoteAddr().String(), nil
	case "line", "udp":
		network := map[string]string{"line": "tcp", "udp": "udp"}[scheme]
		conn, err := dialer.DialContext(ctx, network+family, rest)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		_ = conn.SetDeadline(deadline)
		if _, err := io.WriteString(conn, "hello\n"); err != nil {
			return "", err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if line != "" {
			err = nil
		}
		return strings.TrimSpace(line), err
	case "http", "https":
		transport := &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return dialer.DialContext(ctx, network+family, address)
			},
		}
		request, err := http.NewRequestWithContext(ctx, "GET", scheme+"://"+rest, nil)
		if err != nil {
			return "", err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		answer := fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(body)))
		if response.StatusCode >= 500 {
			return answer, statusError(response.StatusCode)
		}
		return answer, nil
	case "ping":
		return ping(rest, deadline)
	case "dns":
		name, server, given := strings.Cut(rest, "@")
		resolver := &net.Resolver{PreferGo: true}
		if given {
			if _, _, err := net.SplitHostPort(server); err != nil {
				server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
			}
			resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, server)
			}
		}
		found, err := resolver.LookupNetIP(ctx, "ip"+family, name)
		if err != nil {
			return "", err
		}
		var addresses []string
		for _, address := range found {
			addresses = append(addresses, address.Unmap().String())
		}
		sort.Strings(addresses)
		return strings.Join(addresses, ","), nil
	}
	return "", fmt.Errorf("unknown scheme %q", scheme)
}

// kind is the one word by which tests tell failures apart: a policy drops (timeout), a closed port refuses.
func kind(err error) string {
	var status statusError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &status):
		return "status"
	case errors.As(err, &dns):
		return "dns"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "unreachable"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "eof"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "other"
}

func get(url string, timeout time.Duration) error {
	client := http.Client{Timeout: timeout, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return statusError(response.StatusCode)
	}
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
