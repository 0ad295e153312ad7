package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer answers for these names, NAME=ADDRESS,..., and that there is no other.
func nameServer(socket net.PacketConn, names []string) error {
	known := map[string][]netip.Addr{}
	for _, one := range names {
		name, addresses, _ := strings.Cut(one, "=")
		for address := range strings.SplitSeq(addresses, ",") {
			parsed, err := netip.ParseAddr(address)
			if err != nil {
				return fmt.Errorf("name server: %s: %w", one, err)
			}
			known[name+"."] = append(known[name+"."], parsed)
		}
	}
	buffer := make([]byte, 4096)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if answer, err := answered(buffer[:n], known); err == nil {
			_, _ = socket.WriteTo(answer, from)
		}
	}
}

func answered(query []byte, known map[string][]netip.Addr) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	addresses, found := known[strings.ToLower(question.Name.String())]
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true,
		},
		Questions: []dnsmessage.Question{question},
	}
	if !found {
		answer.RCode = dnsmessage.RCodeNameError
	}
	for _, address := range addresses {
		head := dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 5}
		switch {
		case question.Type == dnsmessage.TypeA && address.Is4():
			answer.Answers = append(answer.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: address.As4()}})
		case question.Type == dnsmessage.TypeAAAA && address.Is6():
			answer.Answers = append(answer.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: address.As16()}})
		}
	}
	return answer.Pack()
}
