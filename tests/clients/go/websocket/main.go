// websocket is a client of github.com/coder/websocket.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"

	"remit.dev/tests/clients/check"
)

func main() {
	base := check.Base()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	talk := func(act func(*websocket.Conn) error) error {
		socket, _, err := websocket.Dial(ctx, base.String()+"/ws", &websocket.DialOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			return err
		}
		defer socket.CloseNow()
		socket.SetReadLimit(16 << 20)
		return errors.Join(act(socket), socket.Close(websocket.StatusNormalClosure, "done"))
	}
	echoed := func(socket *websocket.Conn, kind websocket.MessageType, message []byte) error {
		if err := socket.Write(ctx, kind, message); err != nil {
			return err
		}
		gotKind, got, err := socket.Read(ctx)
		return errors.Join(err, check.Equal("kind", gotKind, kind), check.Equal("message", bytes.Equal(got, message), true))
	}
	check.That("text", func() error {
		return talk(func(socket *websocket.Conn) error {
			return errors.Join(check.Equal("subprotocol", socket.Subprotocol(), "echo"), echoed(socket, websocket.MessageText, []byte("hällo")))
		})
	})
	check.That("binary", func() error {
		return talk(func(socket *websocket.Conn) error {
			return echoed(socket, websocket.MessageBinary, make([]byte, 1<<20))
		})
	})
	check.That("many", func() error {
		return talk(func(socket *websocket.Conn) error {
			for i := range 100 {
				if err := echoed(socket, websocket.MessageText, fmt.Append(nil, i)); err != nil {
					return err
				}
			}
			return nil
		})
	})
	check.That("quiet", func() error {
		return talk(func(socket *websocket.Conn) error {
			time.Sleep(2 * time.Second)
			return echoed(socket, websocket.MessageText, []byte("still there"))
		})
	})
	check.That("denied", func() error {
		_, response, err := websocket.Dial(ctx, base.String()+"/undeclared", nil)
		if response == nil {
			return fmt.Errorf("no answer: %w", err)
		}
		return check.Equal("status", response.StatusCode, 403)
	})
	check.Exit()
}
