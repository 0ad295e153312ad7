package main

// Which pod owns which address on which interface, from the one who gave it: after each successful ADD, libcni (the
// library of every CNI runtime) writes the result into a file of its cache, and removes the file after DEL. So a pod
// is known before its first container starts, by its UID, and long before its status names the address.

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
	"unsafe"
)

// Attachment is one pod's connection to the pod network.
type Attachment struct {
	UID   string
	Addrs []Addr
	Since time.Time
}

// Attachments reads libcni's cache. Files never change once written, so each is read once. Those whose interface is
// not there are left out: remains of a node that did not end in order, or another node's in the same directory.
type Attachments struct {
	dir   string
	files map[string]Attachment
}

func (a *Attachments) Read(interfaces []string) ([]Attachment, error) {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, err
	}
	known := a.files
	a.files = map[string]Attachment{}
	var out []Attachment
	for _, entry := range entries {
		attachment, ok := known[entry.Name()]
		if !ok {
			raw, err := os.ReadFile(filepath.Join(a.dir, entry.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // gone in the meantime
			} else if err != nil {
				return nil, err
			}
			if attachment, err = parseAttachment(raw); err != nil {
				continue // half written: its end will be noticed
			}
			if info, err := entry.Info(); err == nil {
				attachment.Since = info.ModTime()
			}
		}
		a.files[entry.Name()] = attachment
		if len(attachment.Addrs) > 0 && slices.Contains(interfaces, attachment.Addrs[0].Iface) {
			out = append(out, attachment)
		}
	}
	// the latest first: an address that two pods have is the latter's
	slices.SortFunc(out, func(a, b Attachment) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.UID, b.UID))
	})
	return out, nil
}

// parseAttachment gives no addresses for what is no pod's veth pair, such as the loopback interface.
func parseAttachment(raw []byte) (Attachment, error) {
	var file struct {
		Kind    string
		CniArgs [][2]string
		Result  struct {
			Interfaces []struct{ Name, Sandbox string }
			IPs        []struct{ Address string }
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return Attachment{}, err
	}
	if file.Kind != "cniCacheV1" {
		return Attachment{}, fmt.Errorf("unknown kind %q", file.Kind)
	}
	var out Attachment
	for _, arg := range file.CniArgs {
		if arg[0] == "K8S_POD_UID" {
			out.UID = arg[1]
		}
	}
	iface := ""
	for _, i := range file.Result.Interfaces {
		if i.Sandbox == "" { // the node's end
			iface = i.Name
		}
	}
	if out.UID == "" || iface == "" {
		return out, nil
	}
	for _, ip := range file.Result.IPs {
		if prefix, err := netip.ParsePrefix(ip.Address); err == nil {
			out.Addrs = append(out.Addrs, Addr{IP: prefix.Addr().Unmap(), Iface: iface})
		}
	}
	return out, nil
}

// interfaceNames lists the interfaces of this network namespace.
func interfaceNames() (names []string, err error) {
	interfaces, err := net.Interfaces()
	for _, i := range interfaces {
		names = append(names, i.Name)
	}
	return names, err
}

// watchDir calls changed whenever a file of the directory was completely written or removed.
func watchDir(dir string, changed func()) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	notices, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := syscall.InotifyAddWatch(notices, dir, syscall.IN_CLOSE_WRITE|syscall.IN_MOVED_TO|syscall.IN_DELETE); err != nil {
		syscall.Close(notices)
		return fmt.Errorf("watching %s: %w", dir, err)
	}
	go func() {
		defer syscall.Close(notices)
		buffer := make([]byte, 64*(unsafe.Sizeof(syscall.InotifyEvent{})+syscall.NAME_MAX+1))
		for {
			if _, err := syscall.Read(notices, buffer); err != nil && err != syscall.EINTR {
				return
			}
			changed()
		}
	}()
	return nil
}
