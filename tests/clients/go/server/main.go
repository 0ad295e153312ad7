// server is the world that the clients talk to: plain HTTP (1.1 and 2), HTTPS, gRPC, WebSockets, Git, and DNS for its names.
//
//	server pki DIR NAME...     writes a CA and a certificate of these names: ca.pem, cert.pem, key.pem
//	server -plain ADDRESS -tls ADDRESS -pki DIR -dns ADDRESS -name NAME=ADDRESS,... -git DIR -log FILE
//
// Every ClientHello and every request that arrives is a line of the log, in JSON.
package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"remit.dev/tests/clients/echo"
)

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// arrivals is the log.
type arrivals struct {
	sync.Mutex
	to *os.File
}

type arrival struct {
	Time     string      `json:"time"`
	Event    string      `json:"event"` // hello or request
	Listener string      `json:"listener"`
	Method   string      `json:"method,omitempty"`
	Host     string      `json:"host,omitempty"`
	Path     string      `json:"path,omitempty"`
	Proto    string      `json:"proto,omitempty"`
	TLS      bool        `json:"tls"`
	SNI      string      `json:"sni,omitempty"`
	ALPN     []string    `json:"alpn,omitempty"`
	Headers  http.Header `json:"headers,omitempty"`
}

func (a *arrivals) note(what arrival) {
	what.Time = time.Now().UTC().Format("15:04:05.000000")
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	a.Lock()
	defer a.Unlock()
	fmt.Fprintf(a.to, "%s\n", line)
}

func (a *arrivals) requests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		what := arrival{
			Event: "request", Listener: local.String(), Method: r.Method, Host: r.Host, Path: r.RequestURI, Proto: r.Proto, Headers: r.Header,
		}
		if r.TLS != nil {
			what.TLS, what.SNI, what.ALPN = true, r.TLS.ServerName, []string{r.TLS.NegotiatedProtocol}
		}
		a.note(what)
		next.ServeHTTP(w, r)
	})
}

func (a *arrivals) hello(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	a.note(arrival{Event: "hello", Listener: hello.Conn.LocalAddr().String(), TLS: true, SNI: hello.ServerName, ALPN: hello.SupportedProtos})
	return nil, nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) > 3 && os.Args[1] == "pki" {
		if err := pki(os.Args[2], os.Args[3:]); err != nil {
			log.Fatal(err)
		}
		return
	}
	var plain, encrypted, questions, names list
	flag.Var(&plain, "plain", "address for plain HTTP")
	flag.Var(&encrypted, "tls", "address for HTTPS")
	flag.Var(&questions, "dns", "address of the DNS server")
	flag.Var(&names, "name", "NAME=ADDRESS,... that the DNS server knows")
	keys := flag.String("pki", "", "where cert.pem and key.pem are")
	git := flag.String("git", "", "directory of the repositories below /git/")
	logged := flag.String("log", "", "where arrivals are logged (default: stdout)")
	flag.Parse()

	a := &arrivals{to: os.Stdout}
	if *logged != "" {
		var err error
		if a.to, err = os.OpenFile(*logged, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
			log.Fatal(err)
		}
	}
	calls := grpc.NewServer()
	echo.Register(calls)
	web := endpoints(*git)
	handler := a.requests(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.ProtoMajor != 2 || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			web.ServeHTTP(w, r)
		case r.Header.Get("Te") != "trailers":
			// So do servers of gRPC's C core (C++, Python, ...); grpc-go takes it.
			http.Error(w, "te: trailers is missing", http.StatusBadRequest)
		default:
			calls.ServeHTTP(w, r)
		}
	}))

	failed := make(chan error)
	for _, address := range questions {
		socket, err := net.ListenPacket("udp", address)
		if err != nil {
			log.Fatal(err)
		}
		go func() { failed <- nameServer(socket, names) }()
	}
	for _, address := range plain {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
		server.Protocols.SetHTTP1(true)
		server.Protocols.SetUnencryptedHTTP2(true)
		go func() { failed <- server.Serve(listener) }()
	}
	for _, address := range encrypted {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		server := &http.Server{Handler: handler, TLSConfig: &tls.Config{GetConfigForClient: a.hello}, ErrorLog: log.New(os.Stderr, "", 0)}
		go func() {
			failed <- server.ServeTLS(listener, filepath.Join(*keys, "cert.pem"), filepath.Join(*keys, "key.pem"))
		}()
	}
	log.Print("serving")
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
