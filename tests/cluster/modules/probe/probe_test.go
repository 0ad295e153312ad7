package main

import (
	"encoding/hex"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"
)

func TestFirstPacketsAreCounted(t *testing.T) {
	tcp := func(flags string) string {
		return "45000028000000004006000" + "00af40003cb00710a" + "c000" + "01bb" + "0000000000000000" + "50" + flags + "ffff00000000"
	}
	cases := []struct {
		name, packet string
		want         key
		counted      bool
	}{
		{"SYN", tcp("02"), key{"tcp", "203.0.113.10", 443, "10.244.0.3"}, true},
		{"SYN with ECN", tcp("c2"), key{"tcp", "203.0.113.10", 443, "10.244.0.3"}, true},
		{"SYN+ACK", tcp("12"), key{}, false},
		{"ACK", tcp("10"), key{}, false},
		{"UDP over IPv6", "6000000000081140" + "20010db8001002440000000000000003" + "20010db8ffff00000000000000000010" + "c000003500080000",
			key{"udp", "2001:db8:ffff::10", 53, "2001:db8:10:244::3"}, true},
		{"ping", "4500001c000000004001000" + "00af40003cb00710a" + "0800000000000000", key{"icmp", "203.0.113.10", 0, "10.244.0.3"}, true},
		{"cut short", "4500", key{}, false},
		{"nothing", "", key{}, false},
	}
	for _, c := range cases {
		raw, err := hex.DecodeString(c.packet)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got, counted := parsePacket(raw); counted != c.counted || got != c.want {
			t.Errorf("%s: got %+v %v, want %+v %v", c.name, got, counted, c.want, c.counted)
		}
	}
}

func TestChecksSayWhatHappened(t *testing.T) {
	counter := newCounter()
	port := freePorts(3)
	listenTCP("127.0.0.1:"+port[0], counter, func(key) string { return "bee" })
	listenUDP("127.0.0.1:"+port[1], counter, func(key) string { return "bee" })
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	options := options{timeout: 500 * time.Millisecond}
	for _, c := range []struct{ target, answer, errorKind string }{
		{"127.0.0.1:" + port[0], "127.0.0.1:" + port[0], ""},
		{"line4://127.0.0.1:" + port[0], "bee", ""},
		{"http://127.0.0.1:" + port[0] + "/", "200 bee", ""},
		{"https://127.0.0.1:" + port[0] + "/", "200 bee", ""},
		{"udp://127.0.0.1:" + port[1], "bee", ""},
		{"tcp://127.0.0.1:" + port[2], "", "refused"},
		{"line://" + silent.Addr().String(), "", "timeout"},
		{"http6://127.0.0.1:" + port[0] + "/", "", "other"},
		{"smoke://signal", "", "other"},
	} {
		got := check(c.target, options)
		if got.OK != (c.errorKind == "") || got.Answer != c.answer || !strings.HasPrefix(got.Error, c.errorKind) {
			t.Errorf("%s: %+v", c.target, got)
		}
	}
	var tallies []tally
	if err := json.Unmarshal(counter.json(), &tallies); err != nil || len(tallies) != 2 || tallies[0].Accepted != 4 || tallies[1].Accepted != 1 {
		t.Errorf("tallies: %+v %v", tallies, err)
	}
}

func TestWhatIsSaidIsRemembered(t *testing.T) {
	counter := newCounter()
	port := freePorts(1)[0]
	listenTCP("127.0.0.1:"+port, counter, func(key) string { return "bee" })
	for _, scheme := range []string{"http", "https"} {
		if got := check(scheme+"://127.0.0.1:"+port+"/"+scheme, options{timeout: 5 * time.Second}); !got.OK {
			t.Fatalf("%s: %+v", scheme, got)
		}
	}
	var heard []struct{ From, Text string }
	if err := json.Unmarshal(counter.heardJSON(), &heard); err != nil || len(heard) != 2 {
		t.Fatalf("%+v %v", heard, err)
	}
	for i, start := range []string{"GET /http HTTP/1.1\r\n", "GET /https HTTP/1.1\r\n"} {
		if heard[i].From != "127.0.0.1" || !strings.HasPrefix(heard[i].Text, start) || !strings.HasSuffix(heard[i].Text, "\r\n\r\n") {
			t.Errorf("%+v", heard[i])
		}
	}
}
