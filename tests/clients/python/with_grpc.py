"""A client of grpcio. Trust and proxies come from the environment alone."""

import time
from urllib.parse import urlsplit

import grpc
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

import check

args = check.arguments()
checks = check.Checks()
base = urlsplit(args.base)
to = f"{base.hostname}:{base.port or (443 if base.scheme == 'https' else 80)}"
channel = grpc.secure_channel(to, grpc.ssl_channel_credentials()) if base.scheme == "https" else grpc.insecure_channel(to)


def method(kind, name):
    made = getattr(channel, kind)("/remit.test.Echo/" + name, StringValue.SerializeToString, StringValue.FromString)
    return lambda value, **options: made(value, **{"timeout": 20, **options})


def say(text):
    return StringValue(value=text)


def unary(text="hello"):
    check.equal("answer", method("unary_unary", "Unary")(say(text)).value, text)


def server_stream():
    at = [time.monotonic() for _ in method("unary_stream", "ServerStream")(say("4"))]
    check.equal("messages", len(at), 4)
    check.equal("messages come one by one", at[3] - at[0] > 0.2, True)


def client_stream():
    check.equal("answer", method("stream_unary", "ClientStream")(say(text) for text in "abc").value, "a,b,c")


def bidi():
    got = [answer.value for answer in method("stream_stream", "Bidi")(say(text) for text in "abc")]
    check.equal("answers", got, ["re: a", "re: b", "re: c"])


def failure(name, code, reason, domain):
    try:
        method("unary_unary", name)(say(""))
    except grpc.RpcError as error:
        check.equal("code", error.code(), code)
        info = ErrorInfo()
        status = rpc_status.from_call(error)
        if status is None or not status.details or not status.details[0].Unpack(info):
            raise AssertionError(f"no details: {error.details()}")
        check.equal("details", (info.reason, info.domain), (reason, domain))
        return error.details()
    raise AssertionError("no error")


def error():
    said = failure("Fail", grpc.StatusCode.FAILED_PRECONDITION, "try_later", "example.com")
    check.equal("message", said, "not now: 100 % sure, für alle")


def deadline():
    try:
        list(method("unary_stream", "ServerStream")(say("100"), timeout=0.3))
    except grpc.RpcError as error:
        check.equal("code", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    else:
        raise AssertionError("no error")


checks.that("unary", unary)
checks.that("server-stream", server_stream)
checks.that("client-stream", client_stream)
checks.that("bidi", bidi)
checks.that("error", error)
checks.that("deadline", deadline)
checks.that("denied", lambda: failure("Undeclared", grpc.StatusCode.PERMISSION_DENIED, "path_not_declared", "remit.dev"))
checks.that("after-denied", lambda: unary("again"))
checks.exit()
