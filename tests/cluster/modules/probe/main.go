// probe is what test pods run: it asks (tcp, http, udp, dns; one, many at once, or again and again) and it
// answers (serve). On the node it is also the outside world (sink). One static program, standard library only.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const usage = `usage:
  probe tcp|line|http|https|udp|dns TARGET...   one check per target, a line each; exit 1 if one fails
  probe batch TARGET...                         all at once; prints {"TARGET": {"ok", "ms", "answer", "error"}}
  probe get URL...                              prints the body
  probe hold [--count 1] [--say TEXT] [--drip 0s] [--for 10s] HOST:PORT
                                                many connections, which say TEXT (\xNN: a byte; with --drip one at a time) and are held
  probe loop [--interval 100ms] TARGET...       again and again; a JSON line per attempt
  probe say [--tls] [--sni NAME] [--insecure] [--for 2s] HOST:PORT TEXT
                                                says TEXT (\xNN: a byte), prints what comes back, and how it ended: the last line is
                                                "(ended)", "(reset)", or "(open)" after the time; TLS trusts whom SSL_CERT_FILE names
  probe serve [--tcp PORT]... [--udp PORT]... [--name NAME]
                                                answers NAME; GET /counts says who asked how often, /heard what each connection said
  probe sink --address ADDR... --counts ADDR:PORT [--certificate FILE --key FILE]
                                                the outside world of the test cluster (see sink.go)
  probe ports N                                 N TCP ports which are free on 127.0.0.1 now
  probe sleep                                   does nothing until it is told to end

TARGET is scheme://rest. The schemes:
  tcp://HOST:PORT      the connection is established (the default scheme: HOST:PORT alone)
  line://HOST:PORT     ... and the server answers "hello" with a line
  http://HOST[:PORT]/  the status is below 500; https:// does not verify the certificate
  udp://HOST:PORT      a datagram is answered
  ping://ADDR          an echo request is answered (a datagram socket: no capability needed)
  dns://NAME[@SERVER]  the name resolves (SERVER: HOST[:PORT], default the pod's own)
  A 4 or 6 behind the scheme (tcp4://, http6://) allows that address family only.

Flags of the checks: --timeout 1s, --family 4|6, --mark N, --through DEVICE, --source-port PORT (of TCP and UDP sockets)
An error begins with one word: timeout, refused, unreachable, reset, eof, dns, status, or other.
`

// values collects a flag which may be given several times.
type values []string

func (v *values) String() string     { return strings.Join(*v, ",") }
func (v *values) Set(s string) error { *v = append(*v, s); return nil }

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "probe: "+format+"\n", args...)
	os.Exit(2)
}

// parse reads flags and operands in any order, as people write them.
func parse(flags *flag.FlagSet, args []string) (operands []string) {
	for {
		_ = flags.Parse(args) // ExitOnError
		if flags.NArg() == 0 {
			return operands
		}
		operands = append(operands, flags.Arg(0))
		args = flags.Args()[1:]
	}
}

func main() {
	if len(os.Args) < 2 || os.Args[1] == "help" || os.Args[1] == "--help" {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	// PID 1 of a container has no default signal handlers: without this a pod takes its whole grace period to end.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-ended; os.Exit(0) }()

	command, args := os.Args[1], os.Args[2:]
	flags := flag.NewFlagSet(command, flag.ExitOnError)
	var options options
	flags.DurationVar(&options.timeout, "timeout", time.Second, "")
	flags.StringVar(&options.family, "family", "", "")
	flags.IntVar(&options.mark, "mark", 0, "")
	flags.StringVar(&options.device, "through", "", "")
	flags.IntVar(&options.sourcePort, "source-port", 0, "")
	switch command {
	case "tcp", "line", "http", "https", "udp", "dns":
		if !each(command, parse(flags, args), options) {
			os.Exit(1)
		}
	case "get":
		for _, url := range parse(flags, args) {
			if err := get(url, options.timeout); err != nil {
				fail("%v", err)
			}
		}
	case "batch":
		batch(parse(flags, args), options)
	case "hold":
		var held held
		flags.IntVar(&held.count, "count", 1, "")
		flags.StringVar(&held.say, "say", "", "")
		flags.DurationVar(&held.drip, "drip", 0, "")
		flags.DurationVar(&held.time, "for", 10*time.Second, "")
		target := strings.Join(parse(flags, args), "")
		if text, err := strconv.Unquote(`"` + held.say + `"`); err == nil {
			held.say = text
		}
		hold(target, held)
	case "say":
		var saying saying
		flags.BoolVar(&saying.tls, "tls", false, "")
		flags.StringVar(&saying.sni, "sni", "", "")
		flags.BoolVar(&saying.insecure, "insecure", false, "")
		flags.DurationVar(&saying.time, "for", 2*time.Second, "")
		operands := parse(flags, args)
		if len(operands) != 2 {
			fail("say HOST:PORT TEXT")
		}
		text, err := strconv.Unquote(`"` + operands[1] + `"`)
		if err != nil {
			fail("%q: %v", operands[1], err)
		}
		say(operands[0], text, saying)
	case "loop":
		interval := flags.Duration("interval", 100*time.Millisecond, "")
		loop(parse(flags, args), *interval, options)
	case "serve":
		var tcp, udp values
		host, _ := os.Hostname()
		flags.Var(&tcp, "tcp", "")
		flags.Var(&udp, "udp", "")
		name := flags.String("name", host, "")
		parse(flags, args)
		serve(tcp, udp, *name)
	case "sink":
		var addresses values
		flags.Var(&addresses, "address", "")
		counts := flags.String("counts", "", "")
		device := flags.String("device", "eth0", "")
		flags.StringVar(&certificateFile, "certificate", "", "")
		flags.StringVar(&keyFile, "key", "", "")
		parse(flags, args)
		sink(addresses, *counts, *device)
	case "ports":
		count := parse(flags, args)
		n, err := strconv.Atoi(strings.Join(count, ""))
		if err != nil {
			fail("ports: %v", err)
		}
		fmt.Println(strings.Join(freePorts(n), " "))
	case "sleep":
		select {}
	default:
		fail("unknown command %q\n%s", command, usage)
	}
}

func each(scheme string, targets []string, options options) bool {
	all := true
	for _, target := range targets {
		full := target
		if !strings.Contains(target, "://") {
			full = scheme + "://" + target
		}
		result := check(full, options)
		if result.OK {
			fmt.Printf("ok %s %d ms %s\n", target, result.Milliseconds, result.Answer)
		} else {
			fmt.Printf("FAIL %s %d ms %s\n", target, result.Milliseconds, result.Error)
		}
		all = all && result.OK
	}
	return all
}

func batch(targets []string, options options) {
	results, lock, done := map[string]result{}, sync.Mutex{}, sync.WaitGroup{}
	for _, target := range targets {
		done.Go(func() {
			result := check(target, options)
			lock.Lock()
			defer lock.Unlock()
			results[target] = result
		})
	}
	done.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(results)
}

func loop(targets []string, interval time.Duration, options options) {
	lock, out := sync.Mutex{}, json.NewEncoder(os.Stdout)
	for _, target := range targets {
		go func() {
			for next := time.Now(); ; {
				began := time.Now()
				outcome := check(target, options)
				lock.Lock()
				_ = out.Encode(struct {
					Time   string `json:"time"`
					Target string `json:"target"`
					Ended  string `json:"ended"`
					result
				}{began.UTC().Format(time.RFC3339Nano), target, time.Now().UTC().Format(time.RFC3339Nano), outcome})
				lock.Unlock()
				next = next.Add(interval)
				if late := time.Until(next); late > 0 {
					time.Sleep(late)
				} else {
					next = time.Now()
				}
			}
		}()
	}
	select {}
}
