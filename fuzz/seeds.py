#!/usr/bin/env python3
"""The seeds of the fuzz targets: one small file for each thing that a parser tells apart, with a name that says what it is.

  seeds.py write   writes fuzz/seeds/<target>/, and removes what it would not write
  seeds.py check   fails where the files are not what it would write
"""

import copy
import json
import pathlib
import struct
import sys

ROOT = pathlib.Path(__file__).parent / "seeds"

A, CNAME, AAAA, OPT, HTTPS = 1, 5, 28, 41, 65
RESPONSE, TRUNCATED, RECURSION = 0x8000, 0x0200, 0x0100


def words(*numbers):
    return b"".join(struct.pack(">H", number) for number in numbers)


# DNS


def labels(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def options(payload, data=b"", version=0):
    return b"\0" + words(OPT, payload) + bytes([0, version, 0, 0]) + words(len(data)) + data


def query(name="a.example", kind=A, number=7, flags=RECURSION, extra=b"", counts=None, klass=1):
    return words(number, flags, *(counts or (1, 0, 0, 1 if extra else 0))) + labels(name) + words(kind, klass) + extra


LONGEST = ".".join(["a" * 63] * 3 + ["b" * 61])

# The id of a query chooses the answer (fuzz_targets/dns_query.rs): code + 6 * n, and above it addresses, words, TCP.
QUERIES = {
    "a": query(),
    "aaaa": query(kind=AAAA),
    "https": query(kind=HTTPS),
    "upper-case": query("API.Example.COM"),
    "root": query(""),
    "address": query("10.0.0.1"),
    "service": query("orders.shop.svc.cluster.local"),
    "underscores": query("_grpc._tcp.db.shop.svc.cluster.local"),
    "long": query(LONGEST),
    "long-edns": query(LONGEST, extra=options(512)),
    "long-aaaa-edns": query(LONGEST, kind=AAAA, extra=options(1232)),
    "edns": query(extra=options(1232)),
    "edns-small": query(extra=options(0)),
    "edns-large": query(kind=AAAA, extra=options(65535)),
    "edns-cookie": query(extra=options(1232, words(10, 8) + b"12345678")),
    "edns-version-1": query(extra=options(1232, version=1)),
    "not-edns": query(extra=b"\0" + words(A, 1232) + bytes(6)),
    "no-recursion": query(flags=0),
    "chaos": query("version.bind", 16, klass=3),
    "update": query(flags=0x2800),
    "answer": query(flags=RESPONSE),
    "two-questions": query(counts=(2, 0, 0, 0)),
    "an-answer-within": query(counts=(1, 1, 0, 0)),
    "jump": words(7, RECURSION, 1, 0, 0, 0) + b"\xc0\x0c" + words(A, 1),
    "dot-in-label": words(7, RECURSION, 1, 0, 0, 0) + b"\x09a.example\0" + words(A, 1),
    "more-bytes": query() + b"\0",
    "fewer-bytes": query()[:-1],
    "header-only": words(7, RECURSION, 1, 0, 0, 0),
    "answer-addresses": query(number=6 * 43, extra=options(1232)),
    "answer-many": query(kind=AAAA, number=6 * 130),
    "answer-refused": query(number=6 * 171 + 1, extra=options(1232)),
    "answer-tcp": query(kind=AAAA, number=6 * 811, extra=options(512)),
}


def record(owner, kind, data, ttl=60, klass=1):
    owner = owner if isinstance(owner, bytes) else labels(owner)
    return owner + words(kind, klass) + struct.pack(">I", ttl) + words(len(data)) + data


def reply(*records, kind=A, flags=RESPONSE, name="a.example"):
    return words(7, flags, 1, len(records), 0, 0) + labels(name) + words(kind, 1) + b"".join(records)


HERE = b"\xc0\x0c"
FOUR, SIX = bytes([203, 0, 113, 7]), bytes.fromhex("20010db8000000000000000000000007")

ANSWERS = {
    "one": reply(record(HERE, A, FOUR)),
    "one-aaaa": reply(record(HERE, AAAA, SIX), kind=AAAA),
    "several": reply(*[record(HERE, A, bytes([203, 0, 113, n])) for n in range(3)]),
    "many": reply(*[record(HERE, A, bytes([203, 0, 113, n])) for n in range(40)]),
    "none": reply(),
    "no-such-name": reply(flags=RESPONSE | 3),
    "failed": reply(flags=RESPONSE | 2),
    "truncated": reply(flags=RESPONSE | TRUNCATED),
    "other-case": reply(record("A.EXAMPLE", A, FOUR), name="A.Example"),
    "other-name": reply(record("b.example", A, FOUR)),
    "other-family": reply(record(HERE, AAAA, SIX)),
    "other-class": reply(record(HERE, A, FOUR, klass=3)),
    "alias": reply(record(HERE, CNAME, labels("b.example")), record("b.example", A, FOUR)),
    "alias-jump": reply(record(HERE, CNAME, b"\x01b\xc0\x0e"), record(b"\x01b\xc0\x0e", A, FOUR)),
    "alias-after": reply(record("b.example", A, FOUR), record(HERE, CNAME, labels("b.example"))),
    "alias-chain": reply(
        *[record(f"{chr(97 + n)}.example", CNAME, labels(f"{chr(98 + n)}.example")) for n in range(10)], record("k.example", A, FOUR)
    ),
    "alias-circle": reply(record(HERE, CNAME, labels("b.example")), record("b.example", CNAME, HERE)),
    "alias-itself": reply(record(HERE, CNAME, HERE)),
    "alias-too-long": reply(record(HERE, CNAME, labels("b.example") + b"\0")),
    "jump-itself": reply(record(b"\xc0\x1b", A, FOUR)),
    "jump-forward": reply(record(b"\xc0\xff", A, FOUR)),
    "jumps": reply(
        record(HERE, CNAME, b"\x01b" + HERE), record(b"\x01b" + HERE, CNAME, b"\x01c\xc0\x27"), record(b"\x01c\xc0\x27", A, FOUR)
    ),
    "short-address": reply(record(HERE, A, FOUR[:3])),
    "long-address": reply(record(HERE, AAAA, SIX + b"\0"), kind=AAAA),
    "ttl-0": reply(record(HERE, A, FOUR, ttl=0)),
    "ttl-largest": reply(record(HERE, A, FOUR, ttl=0xFFFFFFFF)),
    "unknown-record": reply(record(HERE, 46, b"signature"), record(HERE, A, FOUR)),
    "fewer-records": words(7, RESPONSE, 1, 2, 0, 0) + reply(record(HERE, A, FOUR))[12:],
    "question": query(),
}

# TLS


def long(data):
    return words(len(data)) + data


def extension(kind, data):
    return words(kind) + long(data)


def server(name, kind=0):
    return bytes([kind]) + long(name.encode())


def sni(name):
    return extension(0, long(server(name)))


def hello(*extensions, version=0x0303, session=b"", ciphers=words(0x1301), compression=b"\0"):
    body = words(version) + bytes([7]) * 32 + bytes([len(session)]) + session + long(ciphers) + bytes([len(compression)]) + compression
    body += long(b"".join(extensions)) if extensions else b""
    return b"\1" + struct.pack(">I", len(body))[1:] + body


def records(message, size=16384):
    return b"".join(b"\x16\3\1" + long(message[at : at + size]) for at in range(0, len(message), size))


GROUPS = extension(10, words(2, 29))


def padded(length):
    """A message of this length."""
    rest = length - len(hello(sni("a.example"), extension(21, b"")))
    return hello(sni("a.example"), extension(21, bytes(rest)))


NAMED = hello(GROUPS, sni("help.example.com"))

HELLOS = {
    "name": records(NAMED),
    "name-upper-case": records(hello(sni("HELP.Example.com"))),
    "no-name": records(hello(GROUPS)),
    "no-extensions": records(hello()),
    "session": records(hello(sni("a.example"), session=bytes(32))),
    "session-too-long": records(hello(sni("a.example"), session=bytes(33))),
    "key-share": records(hello(sni("a.example"), extension(51, long(words(0x11EC) + long(bytes(1216)))))),
    "encrypted": records(hello(sni("front.example"), extension(0xFE0D, bytes(9)))),
    "encrypted-draft": records(hello(sni("front.example"), extension(0xFFCE, bytes(9)))),
    "two-names": records(hello(extension(0, long(server("a.example") + server("b.example"))))),
    "two-lists": records(hello(sni("a.example"), sni("b.example"))),
    "name-of-another-kind": records(hello(extension(0, long(server("a.example", kind=1))))),
    "name-address": records(hello(sni("203.0.113.7"))),
    "name-with-dot-at-end": records(hello(sni("a.example."))),
    "name-with-nul": records(hello(sni("a.example\0.evil.example"))),
    "name-empty": records(hello(sni(""))),
    "bytes-after-list": records(hello(extension(0, long(server("a.example")) + b"\0"))),
    "length-beyond-end": records(hello(b"\0\0\xff\xff")),
    "ssl-2": bytes([0x80, 0x2E, 1, 0, 2]),
    "ssl-3": records(hello(sni("a.example"), version=0x0300)),
    "http": b"GET / HTTP/1.1\r\n",
    "alert": bytes([21, 3, 3, 0, 2, 1, 0]),
    "server-hello": records(b"\2\0\0\1\0"),
    "empty-record": bytes([22, 3, 1, 0, 0]),
    "empty-message": records(b"\1\0\0\0"),
    "large-record": bytes([22, 3, 1, 0x50, 0]),
    "large-message": records(b"\1\xff\xff\xff"),
    "in-two": records(NAMED, 40),
    "in-ones": records(NAMED, 1),
    "header-in-two": records(NAMED[:3]) + records(NAMED[3:]),
    "another-record-between": records(NAMED[:9]) + bytes([23, 3, 3, 0, 1, 0]),
    "more-in-record": records(NAMED + b"\1"),
    "more-after": records(NAMED) + bytes([20, 3, 3, 0, 1, 1]),
    "cut": records(NAMED)[:50],
    "largest": records(padded(16384 - 5)),
    "too-large": records(padded(16384)),
}

# Policy documents

FULL = {
    "format": 1,
    "workload": {"namespace": "support", "name": "bot", "uid": "u-1"},
    "generation": 3,
    "digest": "d",
    "mode": "Enforce",
    "suspended": False,
    "network": {
        "domain": "cluster.local",
        "dns": ["10.96.0.10:53", "[fd00:10:96::a]:53"],
        "services": ["10.244.0.0/16", "10.96.0.0/16", "fd00:10:96::/112"],
        "own": ["10.244.0.0/16", "10.96.0.0/16", "fd00:10:96::/112", "192.0.2.1/32"],
    },
    "destinations": [
        {"source": "orders", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [5432]}},
        {
            "source": "legacy",
            "target": {"type": "Service", "name": "legacy", "namespace": "support", "ports": [443], "addresses": ["192.168.7.0/24"]},
        },
        {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 443}},
        {"source": "api", "target": {"type": "Kubernetes", "addresses": ["10.96.0.1:443", "192.0.2.1:6443"]}},
    ],
}


def document(**changes):
    changed = copy.deepcopy(FULL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = changed
        for key in parents:
            place = place[key]
        place[last] = value
    return json.dumps(changed, separators=(",", ":")).encode()


def only(*numbers):
    return document(destinations=[FULL["destinations"][number] for number in numbers])


HTTP = {"scheme": "Http", "access": "Read", "rules": [{"paths": [{"type": "PathPrefix", "value": "/articles"}]},
        {"methods": ["POST"], "paths": [{"type": "Exact", "value": "/search"}]}]}


def with_http(scheme="Http", port=443, host=True, **more):
    target = {"type": "Host", "name": "help.example.com", "port": port} if host else {
        "type": "Service", "name": "orders", "namespace": "shop", "ports": [port]}
    destinations = [{"source": "x", "target": {**target, "http": {**HTTP, "scheme": scheme, **more}}}]
    return document(format=2, destinations=destinations)


def with_target(**target):
    return document(destinations=[{"source": "x", "target": target}])


DOCUMENTS = {
    "http-service": with_http(host=False, port=5432),
    "http-host": with_http(),
    "http-write": with_http(access="ReadWrite", rules=[]),
    "http-base-url": with_http("Https"),
    "http-intercepted": with_http("Https", inspect="Intercept"),
    "http-intercepted-service": with_http("Https", host=False, inspect="Intercept"),
    "http-upgrade": with_http(rules=[{"methods": ["GET"], "upgrades": ["websocket"]}]),
    "http-delete-is-no-reading": with_http(rules=[{"methods": ["DELETE"]}]),
    "http-in-format-1": with_http().replace(b'"format":2', b'"format":1'),
    "roots-and-proxy": document(format=2, network__roots={"public": False, "certificates": ["x"]}, network__proxy={"addresses": ["10.0.0.1:3128"]}),
    "full": document(),
    "observe": document(mode="Observe"),
    "suspended": document(suspended=True),
    "observe-suspended": document(mode="Observe", suspended=True),
    "empty": only(),
    "service": only(0),
    "service-elsewhere": only(1),
    "host": only(2),
    "kubernetes": only(3),
    "other-domain": document(network__domain="example.org"),
    "long-domain": document(network__domain=".".join(["a" * 60] * 4), destinations=[]),
    "domain-address": document(network__domain="10.0.0.1"),
    "no-dns": document(network__dns=[]),
    "no-ranges": document(network__services=[], network__own=[]),
    "all-own": document(network__own=["0.0.0.0/0", "::/0"]),
    "all-services": document(network__services=["0.0.0.0/0", "::/0"]),
    "mapped": document(network__own=["::ffff:0.0.0.0/96"]),
    "block-of-one": document(network__own=["203.0.113.7/32"], network__services=["192.0.2.1/24"]),
    "kubernetes-as-service": with_target(type="Service", name="kubernetes", namespace="default", ports=[443]),
    "service-of-everywhere": with_target(type="Service", name="orders", namespace="shop", ports=[443, 53], addresses=["::/0", "0.0.0.0/0"]),
    "service-with-dots": with_target(type="Service", name="a.b", namespace="c.d", ports=[443]),
    "service-bad-name": with_target(type="Service", name="or/ders", namespace="shop", ports=[443]),
    "host-in-cluster": with_target(type="Host", name="orders.shop.svc.cluster.local", port=443),
    "kubernetes-loopback": with_target(type="Kubernetes", addresses=["127.0.0.1:443", "[::1]:443", "169.254.169.254:443"]),
    "kubernetes-scoped": with_target(type="Kubernetes", addresses=["[fe80::1%3]:443", "[::ffff:10.96.0.1]:443"]),
    "two-of-one-service": document(
        destinations=[
            {"source": "a", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [443]}},
            {"source": "b", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [5432], "addresses": ["203.0.113.7/32"]}},
        ]
    ),
    "escapes": document(digest="\u00e9\0\"\\\U0001f600"),
    "generation-smallest": document(generation=-(2**63)),
    "unknown-field": document(more=1),
    "unknown-type": with_target(type="Cookie"),
    "newer": document(format=2),
    "twice": document().replace(b'"mode"', b'"format":1,"mode"', 1),
    "cut": document()[:-1],
}

MESSAGES = {
    "report": b'{"format":1,"version":"0.1.0","reads":1,"life":17426183648225943,"enforced":{"uid":"u-1","generation":3,"serial":1764000000000,"digest":"d"},"denials":{"name_not_declared":2},"wouldDeny":{"too_slow":1},"usage":{"orders":{"connections":3,"sent":512,"received":70000},"_other":{"connections":1,"sent":0,"received":0}}}',
    "report-of-a-start": b'{"format":1,"version":"0.1.0","reads":1,"life":0,"enforced":null,"denials":{},"wouldDeny":{},"usage":{}}',
    "report-of-tomorrow": b'{"format":1,"version":"9","reads":2,"life":1,"enforced":{"uid":"u","generation":1,"serial":1,"digest":"d","more":1},"usage":{"a":{"connections":1,"sent":2,"received":3,"calls":4}},"more":[{}]}',
    "refusal": b'{"reason":"second_key","message":"another key came first for this pod"}',
    "note": "{}\n\n\u2014 remit-policy IhXq85HRvA5Sy9YyDXf7OYhXzxLNS8xWwSx7Q0vyzSyQz7yM9Lk0nZ0hJ1k2m3n4o5p6q7r8s9t0u1v2w3x4y5z6A7A=\n".encode(),
    "key": bytes.fromhex("302a300506032b6570032100") + bytes(range(32)),
    "trust": b"remit-policy+2215eaf3+AepKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs",
}

# HTTP. The first byte chooses (fuzz_targets/http_message.rs): even a request, odd an answer and the method that was asked with.


def asked(line="GET /a?b HTTP/1.1", *fields, body=b""):
    return b"\0" + "\r\n".join([line, "Host: orders.shop", *fields, "", ""]).encode("latin-1") + body


def answered(*head, method=0, body=b""):
    return bytes([1 + 2 * method]) + "\r\n".join([*head, "", ""]).encode("latin-1") + body


CHUNKS = b"5\r\nhello\r\n0A\r\n0123456789\r\n0\r\nx-trailer: y\r\n\r\nrest"

HTTP_MESSAGES = {
    "get": asked(),
    "post": asked("POST /search HTTP/1.1", "Content-Type: application/json", "Content-Length: 5", body=b"hello!"),
    "chunks": asked("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=CHUNKS),
    "chunk-extension": asked("POST / HTTP/1.1", "Transfer-Encoding: chunked", body=b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    "absolute": asked("GET http://orders.shop:80/x HTTP/1.1"),
    "connect": asked("CONNECT orders.shop:443 HTTP/1.1"),
    "asterisk": asked("OPTIONS * HTTP/1.1"),
    "upgrade": asked("GET /live HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "h2c": asked("GET / HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    "nominated": asked("GET / HTTP/1.1", "Connection: close, X-A", "X-A: 1", "X-B: 2", "TE: trailers"),
    "override": asked("POST / HTTP/1.1", "X-HTTP-Method-Override: DELETE", "Content-Length: 0"),
    "expect": asked("POST / HTTP/1.1", "Expect: 100-continue", "Content-Length: 1"),
    "two-lengths": asked("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 2"),
    "length-and-chunks": asked("POST / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"),
    "folded": asked("GET / HTTP/1.1", "X: a", " b"),
    "bare-line-feed": asked("GET / HTTP/1.1", "X: a\nY: b"),
    "space-before-colon": asked("GET / HTTP/1.1", "X : a"),
    "two-hosts": asked("GET / HTTP/1.1", "Host: other"),
    "old": asked("GET / HTTP/1.0"),
    "other-letters": asked("GET / HTTP/1.1", "X: b\xfcch"),
    "answer": answered("HTTP/1.1 200 OK", "Content-Length: 5", body=b"hello"),
    "answer-chunks": answered("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", body=CHUNKS),
    "answer-until-end": answered("HTTP/1.1 200 OK", "Connection: close", body=b"hello"),
    "answer-old": answered("HTTP/1.0 200 OK", "Content-Length: 5", body=b"hello"),
    "answer-to-head": answered("HTTP/1.1 200 OK", "Content-Length: 5", method=1),
    "no-content": answered("HTTP/1.1 204 No Content"),
    "not-modified": answered("HTTP/1.1 304 Not Modified", "Content-Length: 5", 'ETag: "a"'),
    "switching": answered("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket"),
    "early-hints": answered("HTTP/1.1 103 Early Hints", "Link: </a>; rel=preload"),
    "no-reason": answered("HTTP/1.1 200", "Content-Length: 0"),
}

# A target, who is asked, or a form behind its type.
HTTP_TARGETS = {
    **{f"target-{name}": b"\0" + text.encode() for name, text in {
        "plain": "/articles/7?q=a", "escapes": "/a%2f%41%c3%bc%7e", "dots": "/a/../b", "hidden-dots": "/a/%2e%2e;x/b", "twice": "/a/%252e%252e%252fb",
        "method": "/?a=b&_method=PUT", "odd": "/a|b{c}[d];e", "query": "?a", "slashes": "//host/a", "backslash": "/a\\b"}.items()},
    **{f"authority-{name}": b"\1" + text.encode() for name, text in {
        "name": "help.example.com", "port": "help.example.com:8443", "four": "10.96.0.7:80", "six": "[2001:db8::7]:443", "mapped": "[::ffff:10.0.0.1]",
        "user": "user@host", "dot": "Help.Example.COM.", "number": "2130706433"}.items()},
    "form-fields": b"\2application/x-www-form-urlencoded; charset=utf-8\0a=b&c=%5fmethod",
    "form-parts": b'\2multipart/form-data; boundary=x\0--x\r\nContent-Disposition: form-data; name="_method"\r\n\r\nPUT\r\n--x--\r\n',
    "form-hidden": b"\2application/x-www-form-urlencoded; charset=utf-16be\0\0_\0m",
    "form-other": b"\2application/json\0{}",
}

SEEDS = {"dns_query": QUERIES, "dns_answer": ANSWERS, "client_hello": HELLOS, "policy_document": DOCUMENTS, "channel_message": MESSAGES, "http_message": HTTP_MESSAGES, "http_target": HTTP_TARGETS}


def main(command):
    wanted = {ROOT / target / name: data for target, seeds in SEEDS.items() for name, data in seeds.items()}
    found = {path for path in ROOT.rglob("*") if path.is_file()}
    if command == "check":
        wrong = [p for p in found | set(wanted) if p not in found or p not in wanted or p.read_bytes() != wanted[p]]
        for path in sorted(wrong):
            print(f"{path.relative_to(ROOT.parent)} is not what seeds.py writes", file=sys.stderr)
        return 1 if wrong else 0
    for path in found - set(wanted):
        path.unlink()
    for path, data in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["write"], ["check"]):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
