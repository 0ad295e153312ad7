#!/usr/bin/env python3
"""client.py urllib|requests|curl socks|http PORT: asks for each URL, one in Base64 on each line of its input."""

import base64
import socket
import subprocess
import sys
import urllib.request

program, kind, port = sys.argv[1:]
port = int(port)
real = socket.getaddrinfo


def through_socks(host, to, *_, **__):
    """Python has no SOCKS of its own: the name is told to the proxy when the connection to what it "resolves" to is made."""
    if host == "127.0.0.1" and to == port:
        return real(host, to)
    wanted.append((host, int(to)))
    return real("127.0.0.1", port)


wanted = []
connect = socket.socket.connect


def connect_through(self, address):
    connect(self, address)
    if address[1] == port and wanted:
        host, to = wanted.pop()
        name = host.encode() if isinstance(host, str) else host
        self.sendall(b"\5\1\0")
        self.recv(2)
        self.sendall(b"\5\1\0\3" + bytes([len(name)]) + name + to.to_bytes(2, "big"))
        self.recv(10)


def ask_urllib(url):
    proxies = {"http": f"http://127.0.0.1:{port}"} if kind == "http" else {}
    urllib.request.build_opener(urllib.request.ProxyHandler(proxies)).open(url, timeout=3).read()


def ask_requests(url):
    import requests

    session = requests.Session()
    session.trust_env = False
    proxies = {"http": f"http://127.0.0.1:{port}"} if kind == "http" else {}
    session.get(url, proxies=proxies, timeout=3, allow_redirects=False, headers={"Connection": "close"})


def ask_curl(url):
    way = ["--socks5-hostname" if kind == "socks" else "--proxy", f"127.0.0.1:{port}"]
    subprocess.run(["curl", "-q", "-s", "-g", "-m", "3", "-o", "/dev/null", *way, "--", url], check=True)


if kind == "socks" and program != "curl":
    socket.getaddrinfo, socket.socket.connect = through_socks, connect_through
for line in sys.stdin:
    wanted.clear()
    try:
        globals()[f"ask_{program}"](base64.b64decode(line).decode())
        print("ok", flush=True)
    except Exception:
        print("error", flush=True)
