package main

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

func endpoints(git string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, "the clients' test server")
	})
	mux.HandleFunc("/echo/", echoed)
	mux.HandleFunc("/upload", uploaded)
	mux.HandleFunc("/bytes/{n}", bytes)
	mux.HandleFunc("/chunked", chunked)
	mux.HandleFunc("/events", events)
	mux.HandleFunc("/gzip", zipped)
	mux.HandleFunc("/redirect", redirected)
	mux.HandleFunc("/ws", talked)
	// What a guard says in the upstream's place, for the ways in which there is none.
	mux.HandleFunc("/undeclared", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintln(w, `{"status": 403, "reason": "path_not_declared"}`)
	})
	if git != "" {
		mux.Handle("/git/", repositories(git))
	}
	return mux
}

// echoed says how the request looked when it arrived.
func echoed(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64*1024))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	headers := map[string]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	said := map[string]any{
		"method": r.Method, "host": r.Host, "path": r.RequestURI, "proto": r.Proto, "tls": r.TLS != nil, "headers": headers, "body": string(body),
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Add("Set-Cookie", "first=1; Path=/")
	w.Header().Add("Set-Cookie", "second=2; Path=/")
	w.Header().Set("X-Method", r.Method)
	to := json.NewEncoder(w)
	to.SetEscapeHTML(false)
	_ = to.Encode(said)
}

// uploaded counts what comes.
func uploaded(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"bytes": n, "sha256": hex.EncodeToString(sum.Sum(nil)), "length": r.ContentLength})
}

// pattern is byte i = i modulo 251.
func pattern(n int) []byte {
	all := make([]byte, n)
	for i := range all {
		all[i] = byte(i % 251)
	}
	return all
}

func bytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.PathValue("n"))
	if err != nil || n < 0 || n > 1<<30 {
		http.Error(w, "a number up to a GiB", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	block := pattern(251 * 256)
	for ; n > 0; n -= len(block) {
		if _, err := w.Write(block[:min(n, len(block))]); err != nil {
			return
		}
	}
}

func number(r *http.Request, name string, otherwise int) int {
	if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil && n >= 0 && n <= 1000 {
		return n
	}
	return otherwise
}

// chunked sends lines, each in a chunk of its own (in HTTP/1.1).
func chunked(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	for i := range number(r, "n", 16) {
		fmt.Fprintf(w, "line %d\n", i)
		w.(http.Flusher).Flush()
	}
}

// events sends n events, one every so many milliseconds.
func events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	every := time.Duration(number(r, "every", 200)) * time.Millisecond
	for i := range number(r, "n", 4) {
		if i > 0 {
			time.Sleep(every)
		}
		fmt.Fprintf(w, "id: %d\ndata: {\"n\": %d}\n\n", i, i)
		w.(http.Flusher).Flush()
	}
}

func zipped(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		http.Error(w, "gzip is not accepted", http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Encoding", "gzip")
	zip := gzip.NewWriter(w)
	defer zip.Close()
	_, _ = io.WriteString(zip, strings.Repeat("zipped\n", 1000))
}

// redirected sends to where `to` says, word for word (http.Redirect would complete it).
func redirected(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Location", r.URL.Query().Get("to"))
	w.WriteHeader(http.StatusFound)
}

// talked echoes the messages of a WebSocket.
func talked(w http.ResponseWriter, r *http.Request) {
	socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer socket.CloseNow()
	socket.SetReadLimit(16 << 20)
	for {
		kind, message, err := socket.Read(r.Context())
		if err != nil {
			return
		}
		if err := socket.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func repositories(directory string) http.Handler {
	git, err := exec.LookPath("git")
	if err != nil {
		return http.NotFoundHandler()
	}
	return &cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Root: "/git",
		Env: []string{"GIT_PROJECT_ROOT=" + directory, "GIT_HTTP_EXPORT_ALL=1"},
	}
}
