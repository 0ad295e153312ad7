package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// ownNetwork puts the test into a network namespace of its own, which ends with it. Needs root and nft.
func ownNetwork(t *testing.T) context.Context {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and nft")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and the namespace with the thread
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		t.Skip(err)
	}
	return t.Context()
}

func TestFlushHoldsUntilResume(t *testing.T) {
	ctx := ownNetwork(t)
	removed := make(chan struct{}, 100)
	if err := watchTables(func() { removed <- struct{}{} }); err != nil {
		t.Fatal(err)
	}
	noticed := func(what string) {
		t.Helper()
		select {
		case <-removed:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s was not noticed", what)
		}
		for { // one transaction may be told in several messages
			select {
			case <-removed:
			case <-time.After(50 * time.Millisecond):
				return
			}
		}
	}
	check := func(what string, err error, tableThere bool) {
		t.Helper()
		if err != nil || exists(ctx, table) != tableThere {
			t.Fatalf("%s: %v, table there: %v", what, err, !tableThere)
		}
	}
	script := Transaction(testWorld(), testOptions)
	check("resume without a flush", resume(ctx), false)
	check("apply", apply(ctx, script), true)
	check("apply again", apply(ctx, script), true)
	noticed("replacing")
	check("flush", flush(ctx), false)
	noticed("the flush")
	check("flush twice", flush(ctx), false)
	if err := apply(ctx, script); !errors.Is(err, errFlushed) || exists(ctx, table) {
		t.Fatalf("applied while flushed: %v", err)
	}
	check("resume", resume(ctx), false)
	noticed("resuming")
	check("apply after it", apply(ctx, script), true)
}

func TestABadTableLeavesTheOldOneInForce(t *testing.T) {
	ctx := ownNetwork(t)
	if err := apply(ctx, Transaction(&World{}, testOptions)); err != nil {
		t.Fatal(err)
	}
	if err := apply(ctx, Transaction(&World{}, testOptions)+"nonsense\n"); err == nil || errors.Is(err, errFlushed) {
		t.Errorf("%v", err)
	}
	if !exists(ctx, table) {
		t.Error("the old table is gone")
	}
}

func TestDeletes(t *testing.T) {
	message := func(kind uint16, length uint32) []byte {
		m := make([]byte, (length+3)&^3)
		binary.NativeEndian.PutUint32(m, length)
		binary.NativeEndian.PutUint16(m[4:], kind)
		return m
	}
	for name, c := range map[string]struct {
		messages []byte
		want     bool
	}{
		"nothing":       {nil, false},
		"a new table":   {message(10<<8, 24), false},
		"a deleted one": {message(10<<8|2, 24), true},
		"behind others": {append(append(message(10<<8, 21), message(10<<8|3, 16)...), message(10<<8|2, 20)...), true},
		"cut off":       {message(10<<8, 24)[:20], false},
		"no length":     {make([]byte, 64), false},
		"another subsystem's message of the same number": {message(2, 24), false},
	} {
		if got := deletes(c.messages); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
