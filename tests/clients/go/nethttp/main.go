// nethttp is a client of Go's net/http.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"remit.dev/tests/clients/check"
)

const size = 4 << 20

var (
	base   string
	client *http.Client
	major  int
)

type seen struct {
	Method, Host, Path, Proto, Body string
	Headers                         map[string]string
}

// ask sends a request; the answer must be of the version that was asked for.
func ask(method, url string, body io.Reader, change func(*http.Request)) (*http.Response, []byte, error) {
	request, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, nil, err
	}
	if change != nil {
		change(request)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, nil, err
	}
	return response, got, check.Equal("HTTP", response.ProtoMajor, major)
}

// echoed asks an echo and reads it.
func echoed(method, url string, body io.Reader, change func(*http.Request)) (got seen, err error) {
	response, text, err := ask(method, url, body, change)
	if err != nil {
		return got, err
	}
	if err := check.Equal("status", response.StatusCode, 200); err != nil {
		return got, fmt.Errorf("%w: %s", err, text)
	}
	return got, json.Unmarshal(text, &got)
}

func pattern(n int) []byte {
	all := make([]byte, n)
	for i := range all {
		all[i] = byte(i % 251)
	}
	return all
}

func uploaded(body io.Reader) error {
	response, text, err := ask("POST", base+"/upload", body, nil)
	if err != nil {
		return err
	}
	var got struct {
		Bytes  int
		SHA256 string
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return fmt.Errorf("%s: %w: %s", response.Status, err, text)
	}
	sum := sha256.Sum256(pattern(size))
	return errors.Join(check.Equal("length", got.Bytes, size), check.Equal("hash", got.SHA256, hex.EncodeToString(sum[:])))
}

func main() {
	base = check.Base().String()
	major = *check.HTTP
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, Protocols: new(http.Protocols)}
	switch {
	case major == 1:
		transport.Protocols.SetHTTP1(true)
	case strings.HasPrefix(base, "http:"):
		transport.Protocols.SetUnencryptedHTTP2(true)
		transport.Protocols.SetHTTP2(true)
	default:
		transport.Protocols = nil // its own choice
		transport.ForceAttemptHTTP2 = true
	}
	client = &http.Client{Transport: transport, Timeout: 30 * time.Second}

	check.That("get", func() error {
		got, err := echoed("GET", base+"/echo/a%20b/c?x=1&y=%C3%A9", nil, func(r *http.Request) {
			r.Header.Set("X-Remit-Test", "one, two; three=\"four\"")
			r.Header.Set("Cookie", "a=1; b=2")
		})
		return errors.Join(err, check.Equal("path", got.Path, "/echo/a%20b/c?x=1&y=%C3%A9"), check.Equal("host", got.Host, check.Host()),
			check.Equal("method", got.Method, "GET"), check.Equal("protocol", got.Proto, fmt.Sprintf("HTTP/%d.%d", major, 2-major)),
			check.Equal("header", got.Headers["x-remit-test"], "one, two; three=\"four\""), check.Equal("cookie", got.Headers["cookie"], "a=1; b=2"))
	})
	check.That("head", func() error {
		response, text, err := ask("HEAD", base+"/echo/head", nil, nil)
		if err != nil {
			return err
		}
		return errors.Join(check.Equal("status", response.StatusCode, 200), check.Equal("body", len(text), 0),
			check.Equal("method", response.Header.Get("X-Method"), "HEAD"), check.Equal("cookies", len(response.Cookies()), 2))
	})
	check.That("post", func() error {
		got, err := echoed("POST", base+"/echo/post", strings.NewReader(`{"q": "ü"}`), func(r *http.Request) { r.Header.Set("Content-Type", "application/json") })
		return errors.Join(err, check.Equal("body", got.Body, `{"q": "ü"}`), check.Equal("type", got.Headers["content-type"], "application/json"))
	})
	check.That("methods", func() error {
		var all error
		for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS"} {
			got, err := echoed(method, base+"/echo/methods", nil, nil)
			all = errors.Join(all, err, check.Equal("method", got.Method, method))
		}
		return all
	})
	check.That("download", func() error {
		_, got, err := ask("GET", fmt.Sprintf("%s/bytes/%d", base, size), nil, nil)
		return errors.Join(err, check.Equal("content", bytes.Equal(got, pattern(size)), true))
	})
	check.That("upload", func() error { return uploaded(bytes.NewReader(pattern(size))) })
	// A reader of unknown length.
	check.That("upload-stream", func() error { return uploaded(io.MultiReader(bytes.NewReader(pattern(size)))) })
	check.That("chunked", func() error {
		_, got, err := ask("GET", base+"/chunked?n=16", nil, nil)
		return errors.Join(err, check.Equal("lines", strings.Count(string(got), "\n"), 16))
	})
	check.That("events", func() error {
		response, err := client.Get(base + "/events?n=4&every=200")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		var at []time.Time
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: ") {
				at = append(at, time.Now())
			}
		}
		if err := errors.Join(lines.Err(), check.Equal("events", len(at), 4)); err != nil {
			return err
		}
		return check.Equal("events come one by one", at[3].Sub(at[0]) > 400*time.Millisecond, true)
	})
	check.That("gzip", func() error {
		_, got, err := ask("GET", base+"/gzip", nil, nil)
		return errors.Join(err, check.Equal("text is there", string(got) == strings.Repeat("zipped\n", 1000), true))
	})
	check.That("redirect", func() error {
		got, err := echoed("GET", base+"/redirect?to=/echo/there", nil, nil)
		return errors.Join(err, check.Equal("path", got.Path, "/echo/there"))
	})
	if *check.Other != "" {
		check.That("redirect-away", func() error {
			// The other host may speak another version.
			response, err := client.Get(base + "/redirect?to=" + url.QueryEscape(*check.Other))
			if err != nil {
				return err
			}
			defer response.Body.Close()
			var got seen
			if err := json.NewDecoder(response.Body).Decode(&got); err != nil {
				return err
			}
			other, _ := url.Parse(*check.Other)
			return check.Equal("host", got.Host, other.Host)
		})
	}
	check.That("parallel", func() error {
		ended := make(chan error)
		for i := range 20 {
			go func() {
				path := fmt.Sprintf("/echo/parallel/%d", i)
				got, err := echoed("GET", base+path, nil, nil)
				ended <- errors.Join(err, check.Equal("path", got.Path, path))
			}()
		}
		var all error
		for range 20 {
			all = errors.Join(all, <-ended)
		}
		return all
	})
	check.That("denied", func() error {
		response, text, err := ask("GET", base+"/undeclared", nil, nil)
		if err != nil {
			return err
		}
		var got struct{ Reason string }
		err = json.Unmarshal(text, &got)
		return errors.Join(err, check.Equal("status", response.StatusCode, 403), check.Equal("reason", got.Reason, "path_not_declared"),
			check.Equal("type", response.Header.Get("Content-Type"), "application/problem+json"))
	})
	check.That("after-denied", func() error {
		_, err := echoed("GET", base+"/echo/after", nil, nil)
		return err
	})
	check.Exit()
}
