// Package echo is a gRPC service without generated code: its messages are google.protobuf.StringValue.
package echo

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const name = "remit.test.Echo"

// Method is the path of a method.
func Method(method string) string { return "/" + name + "/" + method }

// Streams describes the streaming methods, for servers and clients alike.
var Streams = map[string]*grpc.StreamDesc{
	"ServerStream": {StreamName: "ServerStream", ServerStreams: true, Handler: serverStream},
	"ClientStream": {StreamName: "ClientStream", ClientStreams: true, Handler: clientStream},
	"Bidi":         {StreamName: "Bidi", ServerStreams: true, ClientStreams: true, Handler: bidi},
}

// Register adds the service to a server.
func Register(server *grpc.Server) {
	desc := grpc.ServiceDesc{
		ServiceName: name,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Unary", Handler: unary(func(in string) (string, error) { return in, nil })},
			{MethodName: "Fail", Handler: unary(func(string) (string, error) {
				return "", failure(codes.FailedPrecondition, "not now: 100 % sure, für alle", "try_later", "example.com")
			})},
			// What a guard says in the upstream's place, for the ways in which there is none.
			{MethodName: "Undeclared", Handler: unary(func(string) (string, error) {
				return "", failure(codes.PermissionDenied, "outside the scope", "path_not_declared", "remit.dev")
			})},
		},
	}
	for _, stream := range Streams {
		desc.Streams = append(desc.Streams, *stream)
	}
	server.RegisterService(&desc, struct{}{})
}

func failure(code codes.Code, message, reason, domain string) error {
	with, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: domain})
	if err != nil {
		return err
	}
	return with.Err()
}

func unary(act func(string) (string, error)) grpc.MethodHandler {
	return func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		out, err := act(in.GetValue())
		if err != nil {
			return nil, err
		}
		return wrapperspb.String(out), nil
	}
}

// serverStream counts to the number that it is given, slowly.
func serverStream(_ any, stream grpc.ServerStream) error {
	in := new(wrapperspb.StringValue)
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	n, err := strconv.Atoi(in.GetValue())
	if err != nil {
		return status.Error(codes.InvalidArgument, "not a number")
	}
	for i := range n {
		if err := stream.SendMsg(wrapperspb.String(strconv.Itoa(i))); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// clientStream joins what it is given.
func clientStream(_ any, stream grpc.ServerStream) error {
	var all []string
	for {
		in := new(wrapperspb.StringValue)
		err := stream.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			return stream.SendMsg(wrapperspb.String(strings.Join(all, ",")))
		}
		if err != nil {
			return err
		}
		all = append(all, in.GetValue())
	}
}

// bidi answers each message before the next one comes.
func bidi(_ any, stream grpc.ServerStream) error {
	for {
		in := new(wrapperspb.StringValue)
		err := stream.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.SendMsg(wrapperspb.String("re: " + in.GetValue())); err != nil {
			return err
		}
	}
}
