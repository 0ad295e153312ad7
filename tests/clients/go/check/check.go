// Package check is what the clients in Go have in common: their command line, and one line for each check.
package check

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
)

var (
	host  = flag.String("host", "", "the host that the server must see (default: that of BASE)")
	Other = flag.String("other", "", "a URL of another host, to be redirected to")
	HTTP  = flag.Int("http", 1, "version of HTTP, 1 or 2")
)

var failed bool

// Base reads the command line: BASE first, options after it, as with the clients in other languages.
func Base() *url.URL {
	if len(os.Args) < 2 {
		fmt.Fprintf(os.Stderr, "usage: %s BASE [--host NAME] [--other URL] [--http 1|2]\n", os.Args[0])
		os.Exit(2)
	}
	_ = flag.CommandLine.Parse(os.Args[2:])
	base, err := url.Parse(strings.TrimSuffix(os.Args[1], "/"))
	if err != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "wrong arguments:", err, flag.Args())
		os.Exit(2)
	}
	if *host == "" {
		*host = base.Host
	}
	return base
}

// Host is what the server must see.
func Host() string { return *host }

// That runs one check.
func That(name string, act func() error) {
	if err := act(); err != nil {
		failed = true
		fmt.Printf("FAIL %s: %.300s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	fmt.Printf("ok %s\n", name)
}

// Equal compares.
func Equal[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, not %v", what, got, want)
	}
	return nil
}

// Exit ends with 1 if a check has failed.
func Exit() {
	if failed {
		os.Exit(1)
	}
}
