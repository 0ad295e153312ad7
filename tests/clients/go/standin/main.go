// standin stands in for the guard where there is none: it proves that the clients, and what is expected of them, are right.
// It routes by the first segment of the path and is a forward proxy, as the guard's own listener is; it decides nothing.
//
//	standin -listen ADDRESS -trust FILE -source NAME=URL...
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:15474", "address")
	trust := flag.String("trust", "", "PEM file of the CAs of the sources")
	sources := map[string]*url.URL{}
	flag.Func("source", "NAME=URL", func(s string) error {
		name, to, _ := strings.Cut(s, "=")
		parsed, err := url.Parse(to)
		sources[name] = parsed
		return err
	})
	flag.Parse()
	roots := x509.NewCertPool()
	if pem, err := os.ReadFile(*trust); err != nil || !roots.AppendCertsFromPEM(pem) {
		log.Fatal("no certificates in ", *trust, ": ", err)
	}
	// The version of HTTP is kept.
	versions := map[int]*http.Transport{}
	for major := 1; major <= 2; major++ {
		versions[major] = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: new(http.Protocols), DisableCompression: true}
	}
	versions[1].Protocols.SetHTTP1(true)
	versions[2].Protocols.SetHTTP2(true)
	versions[2].Protocols.SetUnencryptedHTTP2(true)

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			tunnel(w, r)
			return
		}
		to, prefix, rest := r.URL, "", r.URL.EscapedPath()
		if r.URL.Host == "" {
			source, below, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
			if to = sources[source]; to == nil {
				http.Error(w, "no such source", http.StatusForbidden)
				return
			}
			prefix, rest = "/"+source, "/"+below
		}
		path, err := url.PathUnescape(rest)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		(&httputil.ReverseProxy{
			Transport:     versions[r.ProtoMajor],
			FlushInterval: -1,
			Rewrite: func(p *httputil.ProxyRequest) {
				p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = to.Scheme, to.Host, to.Host
				p.Out.URL.Path, p.Out.URL.RawPath = path, rest
			},
			ModifyResponse: func(response *http.Response) error {
				if location := response.Header.Get("Location"); strings.HasPrefix(location, "/") {
					response.Header.Set("Location", prefix+location)
				}
				return nil
			},
		}).ServeHTTP(w, r)
	})
	server := &http.Server{Addr: *listen, Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	log.Print("serving")
	log.Fatal(server.ListenAndServe())
}

func tunnel(w http.ResponseWriter, r *http.Request) {
	to, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	if _, err := io.WriteString(from, "HTTP/1.1 200 Connected\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(to, buffered)
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(from, to)
}
