package main

// Talking to the kernel, through the nft program.

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

const (
	table = "netpol"
	// flushedTable is empty. While it exists no engine of this network namespace enforces anything.
	flushedTable = "netpol_flushed"
)

// errFlushed: the kernel refused the table because somebody ran `netpol flush`.
var errFlushed = errors.New("flushed: not enforcing until `netpol resume`")

// apply runs one nft batch: all of it or nothing.
func apply(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if strings.Contains(script, "create table inet "+flushedTable) && exists(ctx, flushedTable) {
		return errFlushed
	}
	return fmt.Errorf("nft: %w: %s", err, out)
}

func exists(ctx context.Context, name string) bool {
	out, err := exec.CommandContext(ctx, "nft", "list", "tables", "inet").Output()
	return err == nil && slices.Contains(strings.Split(string(out), "\n"), "table inet "+name)
}

// flush stops all enforcement, also that of engines which run now or start later.
func flush(ctx context.Context) error {
	return apply(ctx, "add table inet "+table+"\ndelete table inet "+table+"\nadd table inet "+flushedTable+"\n")
}

// resume lets running engines enforce again, which they notice by themselves.
func resume(ctx context.Context) error {
	return apply(ctx, "add table inet "+flushedTable+"\ndelete table inet "+flushedTable+"\n")
}
