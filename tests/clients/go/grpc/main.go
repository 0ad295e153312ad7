// grpc is a client of grpc-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"remit.dev/tests/clients/check"
	"remit.dev/tests/clients/echo"
)

func main() {
	base := check.Base()
	port, how := "80", insecure.NewCredentials()
	if base.Scheme == "https" {
		port, how = "443", credentials.NewTLS(nil)
	}
	if base.Port() != "" {
		port = base.Port()
	}
	to, err := grpc.NewClient("dns:///"+net.JoinHostPort(base.Hostname(), port), grpc.WithTransportCredentials(how))
	if err != nil {
		check.That("client", func() error { return err })
		check.Exit()
	}
	defer to.Close()

	call := func(method, in string) (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		out := new(wrapperspb.StringValue)
		err := to.Invoke(ctx, echo.Method(method), wrapperspb.String(in), out)
		return out.GetValue(), err
	}
	stream := func(method string, act func(grpc.ClientStream) error) error {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stream, err := to.NewStream(ctx, echo.Streams[method], echo.Method(method))
		if err != nil {
			return err
		}
		return act(stream)
	}
	receive := func(stream grpc.ClientStream) (string, error) {
		out := new(wrapperspb.StringValue)
		err := stream.RecvMsg(out)
		return out.GetValue(), err
	}
	failure := func(method string, code codes.Code, reason, domain string) error {
		_, err := call(method, "")
		got := status.Convert(err)
		for _, detail := range got.Details() {
			if info, ok := detail.(*errdetails.ErrorInfo); ok {
				return errors.Join(check.Equal("code", got.Code(), code), check.Equal("reason", info.Reason, reason), check.Equal("domain", info.Domain, domain))
			}
		}
		return fmt.Errorf("no details: %w", err)
	}

	check.That("unary", func() error {
		got, err := call("Unary", "hello")
		return errors.Join(err, check.Equal("answer", got, "hello"))
	})
	check.That("server-stream", func() error {
		return stream("ServerStream", func(stream grpc.ClientStream) error {
			if err := errors.Join(stream.SendMsg(wrapperspb.String("4")), stream.CloseSend()); err != nil {
				return err
			}
			var at []time.Time
			for {
				_, err := receive(stream)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return err
				}
				at = append(at, time.Now())
			}
			if err := check.Equal("messages", len(at), 4); err != nil {
				return err
			}
			return check.Equal("messages come one by one", at[3].Sub(at[0]) > 200*time.Millisecond, true)
		})
	})
	check.That("client-stream", func() error {
		return stream("ClientStream", func(stream grpc.ClientStream) error {
			for _, one := range []string{"a", "b", "c"} {
				if err := stream.SendMsg(wrapperspb.String(one)); err != nil {
					return err
				}
			}
			if err := stream.CloseSend(); err != nil {
				return err
			}
			got, err := receive(stream)
			return errors.Join(err, check.Equal("answer", got, "a,b,c"))
		})
	})
	check.That("bidi", func() error {
		return stream("Bidi", func(stream grpc.ClientStream) error {
			for _, one := range []string{"a", "b", "c"} {
				if err := stream.SendMsg(wrapperspb.String(one)); err != nil {
					return err
				}
				got, err := receive(stream)
				if err := errors.Join(err, check.Equal("answer", got, "re: "+one)); err != nil {
					return err
				}
			}
			if err := stream.CloseSend(); err != nil {
				return err
			}
			if _, err := receive(stream); !errors.Is(err, io.EOF) {
				return fmt.Errorf("not the end: %w", err)
			}
			return nil
		})
	})
	check.That("error", func() error {
		_, err := call("Fail", "")
		return errors.Join(failure("Fail", codes.FailedPrecondition, "try_later", "example.com"),
			check.Equal("message", status.Convert(err).Message(), "not now: 100 % sure, für alle"))
	})
	check.That("deadline", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		stream, err := to.NewStream(ctx, echo.Streams["ServerStream"], echo.Method("ServerStream"))
		if err != nil {
			return err
		}
		if err := errors.Join(stream.SendMsg(wrapperspb.String("100")), stream.CloseSend()); err != nil {
			return err
		}
		for err == nil {
			_, err = receive(stream)
		}
		return check.Equal("code", status.Code(err), codes.DeadlineExceeded)
	})
	check.That("denied", func() error { return failure("Undeclared", codes.PermissionDenied, "path_not_declared", "remit.dev") })
	check.That("after-denied", func() error {
		got, err := call("Unary", "again")
		return errors.Join(err, check.Equal("answer", got, "again"))
	})
	check.Exit()
}
