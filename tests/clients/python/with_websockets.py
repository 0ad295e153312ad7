"""A client of websockets. Trust and proxies come from the environment alone."""

import time

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import check

args = check.arguments()
checks = check.Checks()
base = "ws" + args.base.removeprefix("http")


def socket(path="/ws"):
    return connect(base + path, subprotocols=["echo"], max_size=16 << 20, open_timeout=20)


def echoed(with_, message):
    with_.send(message)
    got = with_.recv(timeout=20)
    check.equal("message is the same", got == message, True)


def text():
    with socket() as with_:
        check.equal("subprotocol", with_.subprotocol, "echo")
        echoed(with_, "hällo")


def binary():
    with socket() as with_:
        echoed(with_, bytes(1 << 20))


def many():
    with socket() as with_:
        for i in range(100):
            echoed(with_, str(i))


def ping():
    with socket() as with_:
        check.equal("pong", with_.ping().wait(10), True)


def quiet():
    with socket() as with_:
        time.sleep(2)
        echoed(with_, "still there")


def denied():
    try:
        socket("/undeclared").close()
    except InvalidStatus as refused:
        check.equal("status", refused.response.status_code, 403)
    else:
        raise AssertionError("it was opened")


checks.that("text", text)
checks.that("binary", binary)
checks.that("many", many)
checks.that("ping", ping)
checks.that("quiet", quiet)
checks.that("denied", denied)
checks.exit()
