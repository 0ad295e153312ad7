// The answering side: every port answers one line, plain or as HTTP, and counts who asked.
package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"
)

// key is what is counted apart: protocol, the address and port asked for, and who asked.
type key struct {
	Protocol string `json:"protocol"`
	To       string `json:"to"`
	Port     int    `json:"port"`
	From     string `json:"from"`
}

// tally of one key. Packets: SYNs or datagrams seen on the wire, whether or not anything answered them
// (sink only). Accepted: connections or datagrams which a server of ours took.
type tally struct {
	key
	Packets  int `json:"packets"`
	Accepted int `json:"accepted"`
}

type counter struct {
	sync.Mutex
	tallies map[key]*tally
	heard   []*heard
}

// heard is what one connection said, within TLS where it spoke that: the beginning of it, byte for byte.
type heard struct {
	key
	lock sync.Mutex
	text []byte
}

// The last so many connections are remembered, and so much of each.
const connectionsHeard, bytesHeard = 4096, 1 << 16

func (h *heard) Write(said []byte) (int, error) {
	h.lock.Lock()
	defer h.lock.Unlock()
	h.text = append(h.text, said[:min(len(said), bytesHeard-len(h.text))]...)
	return len(said), nil
}

func (h *heard) MarshalJSON() ([]byte, error) {
	h.lock.Lock()
	defer h.lock.Unlock()
	return json.Marshal(struct {
		key
		Text string `json:"text"`
	}{h.key, string(h.text)})
}

// listen remembers what a connection will say. A reset does not forget it: others may be counting.
func (c *counter) listen(k key) *heard {
	c.Lock()
	defer c.Unlock()
	h := &heard{key: k}
	c.heard = append(c.heard[max(0, len(c.heard)-connectionsHeard+1):], h)
	return h
}

func (c *counter) heardJSON() []byte {
	c.Lock()
	defer c.Unlock()
	out, _ := json.Marshal(append([]*heard{}, c.heard...))
	return append(out, '\n')
}

func newCounter() *counter { return &counter{tallies: map[key]*tally{}} }

func (c *counter) add(k key, packets, accepted int) {
	c.Lock()
	defer c.Unlock()
	t := c.tallies[k]
	if t == nil {
		t = &tally{key: k}
		c.tallies[k] = t
	}
	t.Packets += packets
	t.Accepted += accepted
}

func (c *counter) reset() {
	c.Lock()
	defer c.Unlock()
	c.tallies = map[key]*tally{}
}

func (c *counter) json() []byte {
	c.Lock()
	defer c.Unlock()
	list := []*tally{}
	for _, t := range c.tallies {
		list = append(list, t)
	}
	sort.Slice(list, func(i, j int) bool { return fmt.Sprint(list[i].key) < fmt.Sprint(list[j].key) })
	out, _ := json.MarshalIndent(list, "", " ")
	return append(out, '\n')
}

func endpoints(protocol string, local, remote net.Addr) key {
	host := func(a net.Addr) (string, int) {
		switch a := a.(type) {
		case *net.TCPAddr:
			return a.AddrPort().Addr().Unmap().WithZone("").String(), a.Port
		case *net.UDPAddr:
			return a.AddrPort().Addr().Unmap().WithZone("").String(), a.Port
		}
		return "", 0
	}
	to, port := host(local)
	from, _ := host(remote)
	return key{protocol, to, port, from}
}

// listenTCP answers each connection with one line: as HTTP if the caller speaks HTTP, else as it is; within TLS if the caller
// begins with it. Who says "hold" is held until he goes. A caller which says nothing gets the line after a moment, as a database's greeting would come.
func listenTCP(address string, counter *counter, answer func(key) string) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		fail("%v", err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				fail("%v", err)
			}
			k := endpoints("tcp", conn.LocalAddr(), conn.RemoteAddr())
			counter.add(k, 0, 1)
			go func() {
				defer conn.Close()
				peek := func(reader *bufio.Reader, within time.Duration) []byte {
					_ = conn.SetDeadline(time.Now().Add(within))
					start, _ := reader.Peek(4)
					_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
					return start
				}
				reader := bufio.NewReader(conn)
				start := peek(reader, 200*time.Millisecond)
				if len(start) > 0 && start[0] == handshakeRecord {
					conn = tls.Server(peeked{conn, reader}, serverTLS())
					defer conn.Close()
					reader = bufio.NewReader(conn)
					start = peek(reader, 5*time.Second)
				}
				heard := counter.listen(k)
				said, _ := reader.Peek(reader.Buffered())
				_, _ = heard.Write(said)
				reader = bufio.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(said)), io.TeeReader(conn, heard)))
				if string(start) == "hold" {
					_ = conn.SetDeadline(time.Time{})
					_, _ = io.Copy(io.Discard, reader)
					return
				}
				if method := string(start); method != "GET " && method != "POST" && method != "PUT " && method != "HEAD" && method != "DELE" && method != "PATC" && method != "OPTI" {
					_, _ = io.WriteString(conn, answer(k)+"\n")
					return
				}
				for answerHTTP(conn, reader, k, counter, answer) {
					_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
				}
			}()
		}
	}()
}

// answerHTTP answers one request, with a line for most paths; true: there may be another. Below any path, /redirect?to=URL leads there, /stream goes on
// until the caller goes, a WebSocket begins and says nothing.
func answerHTTP(conn net.Conn, reader *bufio.Reader, k key, counter *counter, answer func(key) string) bool {
	request, err := http.ReadRequest(reader)
	if err != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, request.Body); err != nil {
		return false
	}
	status, more, body := "200 OK", "", []byte(answer(k)+"\n")
	switch path := request.URL.Path; {
	case path == "/counts":
		body = counter.json()
	case path == "/heard":
		body = counter.heardJSON()
	case strings.HasSuffix(path, "/redirect"):
		status, more = "302 Found", "Location: "+request.URL.Query().Get("to")+"\r\n"
	case strings.HasSuffix(path, "/stream"):
		_ = conn.SetDeadline(time.Time{})
		_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for err == nil {
			_, err = io.WriteString(conn, "6\r\nmore\n\n\r\n")
			time.Sleep(100 * time.Millisecond)
		}
		return false
	case strings.EqualFold(request.Header.Get("Upgrade"), "websocket"):
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(io.Discard, reader)
		return false
	}
	if request.Close {
		more += "Connection: close\r\n"
	}
	head := fmt.Sprintf("HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n", status, len(body), more)
	if request.Method == "HEAD" {
		body = nil
	}
	_, err = conn.Write(append([]byte(head), body...))
	return err == nil && !request.Close
}

const handshakeRecord = 0x16

// peeked is a connection of which the beginning was read already.
type peeked struct {
	net.Conn
	reader *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.reader.Read(b) }

// Files of the certificate that is shown. Without: one that is made anew at each start and that nobody trusts.
var certificateFile, keyFile string

var serverTLS = sync.OnceValue(func() *tls.Config {
	if certificateFile != "" {
		certificate, err := tls.LoadX509KeyPair(certificateFile, keyFile)
		if err != nil {
			fail("%v", err)
		}
		return &tls.Config{Certificates: []tls.Certificate{certificate}}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fail("%v", err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * 365 * time.Hour), DNSNames: []string{"*.example.com", "*.example.net"}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		fail("%v", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
})

func listenUDP(address string, counter *counter, answer func(key) string) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		fail("%v", err)
	}
	go func() {
		buffer := make([]byte, 2048)
		for {
			_, from, err := conn.ReadFrom(buffer)
			if err != nil {
				continue
			}
			k := endpoints("udp", conn.LocalAddr(), from)
			counter.add(k, 0, 1)
			_, _ = conn.WriteTo([]byte(answer(k)+"\n"), from)
		}
	}()
}

func serve(tcp, udp []string, name string) {
	counter := newCounter()
	answer := func(key) string { return name }
	for _, port := range tcp {
		listenTCP(":"+port, counter, answer)
	}
	for _, port := range udp {
		listenUDP(":"+port, counter, answer)
	}
	fmt.Printf("%s serves tcp %s udp %s\n", name, strings.Join(tcp, ","), strings.Join(udp, ","))
	select {}
}

// freePorts holds all of them open until it knows the last one, so that they differ.
func freePorts(n int) (ports []string) {
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fail("%v", err)
		}
		defer listener.Close()
		_, port, _ := net.SplitHostPort(listener.Addr().String())
		ports = append(ports, port)
	}
	return ports
}
