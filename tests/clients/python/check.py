"""What the clients in Python have in common: their command line, one line for each check, and the checks of those that speak HTTP."""

import argparse
import gzip
import hashlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

SIZE = 4 << 20
PATTERN = (bytes(range(251)) * (SIZE // 251 + 1))[:SIZE]


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--host", help="the host that the server must see (default: that of BASE)")
    parser.add_argument("--other", help="a URL of another host, to be redirected to")
    parser.add_argument("--http", type=int, default=1)
    args = parser.parse_args()
    args.base = args.base.rstrip("/")
    args.host = args.host or urlsplit(args.base).netloc
    return args


class Checks:
    def __init__(self):
        self.failed = False

    def that(self, name, act):
        try:
            act()
        except Exception as error:  # whatever goes wrong is the check's
            self.failed = True
            print(f"FAIL {name}: {type(error).__name__}: {error}".replace("\n", "; ")[:300], flush=True)
        else:
            print(f"ok {name}", flush=True)

    def exit(self):
        sys.exit(1 if self.failed else 0)


def equal(what, got, want):
    if got != want:
        raise AssertionError(f"{what} is {got!r}, not {want!r}")


def http(args, ask, lines, at_once=None):
    """ask(method, url, headers, data, redirects) gives (status, headers, body); lines(url) gives the lines of an answer, as they come."""
    checks = Checks()

    def echoed(method, path, headers=None, data=None, redirects=False):
        status, _, body = ask(method, args.base + path, headers or {}, data, redirects)
        equal("status", status, 200)
        return json.loads(body)

    def get():
        headers = {"X-Remit-Test": 'one, two; three="four"', "Cookie": "a=1; b=2"}
        got = echoed("GET", "/echo/a%20b/c?x=1&y=%C3%A9", headers)
        equal("path", got["path"], "/echo/a%20b/c?x=1&y=%C3%A9")
        equal("host", got["host"], args.host)
        equal("method", got["method"], "GET")
        equal("protocol", got["proto"], "HTTP/2.0" if args.http == 2 else "HTTP/1.1")
        equal("header", got["headers"].get("x-remit-test"), headers["X-Remit-Test"])
        equal("cookie", got["headers"].get("cookie"), headers["Cookie"])

    def head():
        status, headers, body = ask("HEAD", args.base + "/echo/head", {}, None, False)
        equal("answer", (status, headers["x-method"], body), (200, "HEAD", b""))

    def post():
        got = echoed("POST", "/echo/post", {"Content-Type": "application/json"}, '{"q": "ü"}'.encode())
        equal("body", got["body"], '{"q": "ü"}')
        equal("type", got["headers"].get("content-type"), "application/json")

    def methods():
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
            equal("method", echoed(method, "/echo/methods")["method"], method)

    def download():
        _, _, body = ask("GET", f"{args.base}/bytes/{SIZE}", {}, None, False)
        equal("content is the same", body == PATTERN, True)

    def uploaded(data):
        got = echoed("POST", "/upload", {"Content-Type": "application/octet-stream"}, data)
        equal("upload", (got["bytes"], got["sha256"]), (SIZE, hashlib.sha256(PATTERN).hexdigest()))

    def chunked():
        _, _, body = ask("GET", args.base + "/chunked?n=16", {}, None, False)
        equal("lines", body.count(b"\n"), 16)

    def events():
        at = [time.monotonic() for line in lines(args.base + "/events?n=4&every=200") if line.startswith("data: ")]
        equal("events", len(at), 4)
        equal("events come one by one", at[3] - at[0] > 0.4, True)

    def zipped():
        _, headers, body = ask("GET", args.base + "/gzip", {"Accept-Encoding": "gzip"}, None, False)
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        equal("text is there", body == b"zipped\n" * 1000, True)
        equal("encoding", headers["content-encoding"], "gzip")

    def redirect():
        equal("path", echoed("GET", "/redirect?to=/echo/there", redirects=True)["path"], "/echo/there")

    def redirect_away():
        got = echoed("GET", "/redirect?to=" + args.other, redirects=True)
        equal("host", got["host"], urlsplit(args.other).netloc)

    def parallel():
        paths = [f"/echo/parallel/{i}" for i in range(20)]
        if at_once:
            answers = [json.loads(body) for body in at_once([args.base + path for path in paths])]
        else:
            with ThreadPoolExecutor(10) as pool:
                answers = list(pool.map(lambda path: echoed("GET", path), paths))
        for path, got in zip(paths, answers, strict=True):
            equal("path", got["path"], path)

    def denied():
        status, headers, body = ask("GET", args.base + "/undeclared", {}, None, False)
        equal("answer", (status, json.loads(body)["reason"], headers["content-type"]), (403, "path_not_declared", "application/problem+json"))

    checks.that("get", get)
    checks.that("head", head)
    checks.that("post", post)
    checks.that("methods", methods)
    checks.that("download", download)
    checks.that("upload", lambda: uploaded(PATTERN))
    checks.that("upload-stream", lambda: uploaded(PATTERN[i : i + 65536] for i in range(0, SIZE, 65536)))
    checks.that("chunked", chunked)
    checks.that("events", events)
    checks.that("gzip", zipped)
    checks.that("redirect", redirect)
    if args.other:
        checks.that("redirect-away", redirect_away)
    checks.that("parallel", parallel)
    checks.that("denied", denied)
    checks.that("after-denied", lambda: echoed("GET", "/echo/after"))
    checks.exit()
