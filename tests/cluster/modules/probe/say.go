// What a client says byte for byte, and what comes back.
package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

type saying struct {
	tls, insecure bool
	sni           string
	time          time.Duration
}

// say fails where nobody takes the connection, or TLS does not come about. A connection that ends early is an answer as well.
func say(target, text string, saying saying) {
	conn, err := net.DialTimeout("tcp", target, saying.time)
	if err != nil {
		fail("%s: %v", kind(err), err)
	}
	_ = conn.SetDeadline(time.Now().Add(saying.time))
	if saying.tls {
		if saying.sni == "" {
			saying.sni, _, _ = net.SplitHostPort(target)
		}
		within := tls.Client(conn, &tls.Config{ServerName: saying.sni, InsecureSkipVerify: saying.insecure})
		if err := within.Handshake(); err != nil {
			fail("%s: %v", kind(err), err)
		}
		conn = within
	}
	_, failed := io.WriteString(conn, text)
	_, err = io.Copy(os.Stdout, conn)
	if err == nil {
		err = failed
	}
	end := "reset"
	switch {
	case err == nil, errors.Is(err, io.ErrUnexpectedEOF):
		end = "ended"
	case errors.Is(err, os.ErrDeadlineExceeded):
		end = "open"
	}
	fmt.Printf("\n(%s)\n", end)
}
