"""A client of websockets. Trust and proxies come from the environment alone.

The one of asyncio, not the one of threads: that reads in one thread and writes in another of the same OpenSSL object, which OpenSSL does not
allow, and with TLS 1.3 loses its first request when the server's session tickets are read meanwhile (seen without a guard as well).
"""

import asyncio

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import check

args = check.arguments()
checks = check.Checks()
base = "ws" + args.base.removeprefix("http")


def socket(path="/ws"):
    return connect(base + path, subprotocols=["echo"], max_size=16 << 20, open_timeout=20)


async def echoed(with_, message):
    await with_.send(message)
    got = await asyncio.wait_for(with_.recv(), 20)
    check.equal("message is the same", got == message, True)


async def text():
    async with socket() as with_:
        check.equal("subprotocol", with_.subprotocol, "echo")
        await echoed(with_, "hällo")


async def binary():
    async with socket() as with_:
        await echoed(with_, bytes(1 << 20))


async def many():
    async with socket() as with_:
        for i in range(100):
            await echoed(with_, str(i))


async def ping():
    async with socket() as with_:
        await asyncio.wait_for(await with_.ping(), 10)


async def quiet():
    async with socket() as with_:
        await asyncio.sleep(2)
        await echoed(with_, "still there")


async def denied():
    try:
        await socket("/undeclared")
    except InvalidStatus as refused:
        check.equal("status", refused.response.status_code, 403)
    else:
        raise AssertionError("it was opened")


for check_ in (text, binary, many, ping, quiet, denied):
    checks.that(check_.__name__, lambda: asyncio.run(check_()))
checks.exit()
