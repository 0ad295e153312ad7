package main

// Notices when a table is removed behind the engine's back, so that `netpol resume` takes effect at once and a table
// which something else deleted comes back. Costs nothing while nothing happens.

import (
	"encoding/binary"
	"syscall"
)

const (
	groupNftables = 7           // NFNLGRP_NFTABLES
	deletedTable  = 10<<8 | 0x2 // NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
)

// watchTables calls removed whenever any nft table of this network namespace was deleted, or news may have been lost.
func watchTables(removed func()) error {
	socket, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	if err := syscall.Bind(socket, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: 1 << (groupNftables - 1)}); err != nil {
		syscall.Close(socket)
		return err
	}
	go func() {
		defer syscall.Close(socket)
		buffer := make([]byte, 1<<16)
		for {
			n, _, err := syscall.Recvfrom(socket, buffer, 0)
			switch {
			case err == syscall.EINTR:
			case err == syscall.ENOBUFS: // messages were lost
				removed()
			case err != nil:
				return
			case deletes(buffer[:n]):
				removed()
			}
		}
	}()
	return nil
}

// deletes looks for a table's deletion among netlink messages.
func deletes(messages []byte) bool {
	for len(messages) >= syscall.NLMSG_HDRLEN {
		length := int(binary.NativeEndian.Uint32(messages))
		if binary.NativeEndian.Uint16(messages[4:]) == deletedTable {
			return true
		}
		if length = (length + 3) &^ 3; length < syscall.NLMSG_HDRLEN || length > len(messages) {
			return false
		}
		messages = messages[length:]
	}
	return false
}
