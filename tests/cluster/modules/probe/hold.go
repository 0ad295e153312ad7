// Many connections that are held: idle ones, and ones that say what they have to say a byte at a time.
package main

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

type held struct {
	count int
	say   string
	drip  time.Duration
	time  time.Duration
}

// hold prints a line when all have been tried, and another, which counts those that were broken off, when the time is over or all of
// them were.
func hold(target string, held held) {
	var opened, refused, ended atomic.Int64
	var tried, going sync.WaitGroup
	over := time.Now().Add(held.time)
	atOnce := make(chan struct{}, 128)
	for range held.count {
		atOnce <- struct{}{}
		tried.Add(1)
		go func() {
			conn, err := net.DialTimeout("tcp", target, 5*time.Second)
			<-atOnce
			if err != nil {
				refused.Add(1)
				tried.Done()
				return
			}
			opened.Add(1)
			going.Add(1)
			defer going.Done()
			tried.Done()
			_ = conn.SetDeadline(over)
			go speak(conn, held)
			// Held open on this side when the other side has said all that it has to say.
			if _, err := io.Copy(io.Discard, conn); err == nil {
				time.Sleep(time.Until(over))
			} else if time.Now().Before(over) {
				ended.Add(1)
			}
		}()
	}
	tried.Wait()
	fmt.Printf("%d opened, %d refused\n", opened.Load(), refused.Load())
	going.Wait()
	fmt.Printf("%d ended before the time\n", ended.Load())
}

func speak(conn net.Conn, held held) {
	if held.drip == 0 {
		_, _ = io.WriteString(conn, held.say)
		return
	}
	for i := range len(held.say) {
		if _, err := io.WriteString(conn, held.say[i:i+1]); err != nil {
			return
		}
		time.Sleep(held.drip)
	}
}
