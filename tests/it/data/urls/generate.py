#!/usr/bin/env python3
"""Writes ../urls.json: what real clients make of URLs, asked directly and through a proxy.

Each client is given every URL, and the way to it is a SOCKS proxy of our own, which is told the name that the client would connect to, or an
HTTP proxy of our own. Neither leads anywhere: they keep what is said. Clients that are not there are left as they stand in the file.
"""

import base64
import json
import pathlib
import shutil
import socketserver
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).parent
TABLE = HERE.parent / "urls.json"
CLIENTS = {
    "curl": ["python3", "client.py", "curl"],
    "go": ["go", "run", "client.go"],
    "java": ["java", "Client.java"],
    "node": ["node", "client.mjs"],
    "python-requests": ["python3", "client.py", "requests"],
    "python-urllib": ["python3", "client.py", "urllib"],
}

GOOD, PORT, EVIL = "help.example.com", "8080", "evil.example"
G = f"{GOOD}:{PORT}"
E = f"{EVIL}:{PORT}"
URLS = [
    # What everybody reads in one way.
    f"http://{G}/", f"http://{G}", f"http://{G}/a?b=c", f"http://{G}/a?b#c", f"http://{G}?a", f"http://{G}#a",
    f"http://{E}/", f"http://{EVIL}/", f"http://{GOOD}/", f"http://{GOOD}:80/", f"http://{GOOD}:8081/",
    # Scheme and slashes.
    f"HTTP://{G}/", f"hTtP://{G}/", f"http:/{G}/", f"http:{G}/", f"http:///{G}/", f"http:////{G}/", f"http:\\\\{G}\\", f"http:/\\{G}/",
    f"http:\\/{G}/", f"//{G}/", f"{G}/", f"http//{G}/", f"http:// {G}/", f" http://{G}/", f"http://{G}/ ", f"\thttp://{G}/", f"ht\ntp://{G}/",
    f"http:\t//{G}/", f"http:/\n/{G}/", f"http://http://{G}/", f"http://http:{G}/", f"url:http://{G}/", f"view-source:http://{G}/",
    # Users.
    f"http://a@{G}/", f"http://a:b@{G}/", f"http://@{G}/", f"http://:@{G}/", f"http://{E}@{G}/", f"http://{G}@{E}/", f"http://{GOOD}@{E}/",
    f"http://a@{E}@{G}/", f"http://a@{G}@{E}/", f"http://{G}@@{E}/", f"http://a%40{G}/", f"http://{GOOD}%40{E}/", f"http://{G}:b@{E}/",
    f"http://{GOOD}:{PORT}:@{E}/", f"http://a:b:c@{G}/", f"http://{G}%2F@{E}/", f"http://{G}%00@{E}/", f"http://{G}%20@{E}/",
    # What ends a host.
    f"http://{G}#@{E}/", f"http://{G}?@{E}/", f"http://{G}/@{E}/", f"http://{G}\\@{E}/", f"http://{E}#@{G}/", f"http://{E}?@{G}/",
    f"http://{E}/@{G}/", f"http://{E}\\@{G}/", f"http://{E}\\.{G}/", f"http://{G};@{E}/", f"http://{G}\\\\@{E}/", f"http://{E}#{G}/",
    f"http://{E}%23@{G}/", f"http://{E}%2f@{G}/", f"http://{E}%5c@{G}/", f"http://{E}&@{G}#@x/", f"http://{G} @{E}/", f"http://{G}\t@{E}/",
    f"http://{G}\n@{E}/", f"http://{G}\r\nX:%20y/", f"http://{EVIL} {G}/", f"http://{EVIL}\t{G}/", f"http://{EVIL}\0{G}/", f"http://{G}\0.{EVIL}/",
    f"http://{GOOD}%00.{EVIL}:{PORT}/", f"http://{EVIL}%00.{G}/", f"http://{GOOD},{EVIL}:{PORT}/", f"http://{G},{E}/", f"http://{GOOD};{EVIL}:{PORT}/",
    f"http://{GOOD}|{EVIL}:{PORT}/", f"http://{GOOD}^{EVIL}:{PORT}/", f"http://<{GOOD}>:{PORT}/", f"http://{GOOD}`:{PORT}/", f"http://{GOOD}\"{EVIL}:{PORT}/",
    # Ports.
    f"http://{GOOD}:/", f"http://{GOOD}:08080/", f"http://{GOOD}:0000008080/", f"http://{GOOD}:73616/", f"http://{GOOD}:+8080/",
    f"http://{GOOD}:-8080/", f"http://{GOOD}:8080 /", f"http://{GOOD}: 8080/", f"http://{GOOD}:8080a/", f"http://{GOOD}:0x1f90/",
    f"http://{G}:80/", f"http://{GOOD}:80:{PORT}/", f"http://{GOOD}::{PORT}/", f"http://{GOOD}:8080\\@{EVIL}:80/", f"http://{GOOD}:８０８０/",
    f"http://{GOOD}:٨٠٨٠/", f"http://{GOOD}:80%38%30/", f"http://{GOOD}:8_080/", f"http://{GOOD}:4294975376/", f"http://{GOOD}:80\t80/",
    # Names.
    f"http://HELP.Example.COM:{PORT}/", f"http://{GOOD}.:{PORT}/", f"http://{GOOD}..:{PORT}/", f"http://.{GOOD}:{PORT}/", f"http://help..example.com:{PORT}/",
    f"http://%68elp.example.com:{PORT}/", f"http://help%2eexample%2ecom:{PORT}/", f"http://help.example.com%2e{EVIL}:{PORT}/", f"http://help%E3%80%82example.com:{PORT}/",
    f"http://help。example。com:{PORT}/", f"http://help．example．com:{PORT}/", f"http://help｡example.com:{PORT}/", f"http://ｈｅｌｐ.example.com:{PORT}/",
    f"http://Ⓗelp.example.com:{PORT}/", f"http://hel\u00adp.example.com:{PORT}/", f"http://hel\u200bp.example.com:{PORT}/", f"http://hel\u200dp.example.com:{PORT}/",
    f"http://\u202ehelp.example.com:{PORT}/", f"http://hełp.example.com:{PORT}/", f"http://help.example.com\u2044@{E}/", f"http://help.example.com\uff0f@{E}/",
    f"http://help.example.com\uff03@{E}/", f"http://help.example.com\u2100.{EVIL}:{PORT}/", f"http://{EVIL}\u2488{GOOD}:{PORT}/", f"http://xn--help-.example.com:{PORT}/",
    f"http://help.exampLe.com:{PORT}/", f"http://help.example.ſom:{PORT}/", f"http://help.example.com\u3000:{PORT}/", f"http://help%20.example.com:{PORT}/",
    f"http://help_.example.com:{PORT}/", f"http://*.example.com:{PORT}/", f"http://~{GOOD}:{PORT}/", f"http://[{GOOD}]:{PORT}/", f"http://{GOOD}]:{PORT}/", "http:///", "http://", "http://:8080/", "http://@/",
    # Addresses: of a host, which is none by its address, and of a Service, which is one.
    "http://203.0.113.10:8080/", "http://3405803786:8080/", "http://0xcb.0.0x71.10:8080/", "http://0313.0.0161.012:8080/", "http://203.0.28938:8080/",
    "http://[2001:db8:ffff::10]:8080/", "http://[2001:DB8:FFFF:0::10]:8080/", "http://[::ffff:203.0.113.10]:8080/", "http://2001:db8:ffff::10:8080/",
    "http://10.96.7.7:8080/", "http://174065415:8080/", "http://174065415./", "http://0x0a600707:8080/", "http://0xa.0x60.7.7:8080/", "http://012.0140.7.7:8080/",
    "http://10.96.1799:8080/", "http://10.6293255:8080/", "http://10.96.7.7.:8080/", "http://10.96.007.007:8080/", "http://10.96.7.07:8080/",
    "http://[::ffff:10.96.7.7]:8080/", "http://[::ffff:a60:707]:8080/", "http://[::10.96.7.7]:8080/", "http://[64:ff9b::10.96.7.7]:8080/", "http://10。96。7。7:8080/",
    "http://１０.96.7.7:8080/", "http://⑩.96.7.7:8080/", "http://10.96.7.7%00:8080/", "http://10.96.7.263:8080/", "http://10.96.7.7.0:8080/", "http://4469032711:8080/",
    "http://[fe80::1%25eth0]:8080/", "http://[::1%25lo]:8080/", "http://[10.96.7.7]:8080/", "http://[::ffff:10.96.7.7:8080/", "http://[v1.a]:8080/",
    "http://10.96.7.7@evil.example:8080/", "http://evil.example@10.96.7.7:8080/", "http://127.0.0.1:8080/", "http://127.1:8080/", "http://0:8080/", "http://0.0.0.0:8080/",
    "http://localhost:8080/", "http://[::]:8080/", "http://[::1]:8080/", "http://2852039166:8080/", "http://[::ffff:169.254.169.254]:8080/",
    # A Service by its names.
    "http://orders.shop.svc.cluster.local:8080/", "http://orders.shop:8080/", "http://ORDERS.shop.svc:8080/", "http://orders.shop.svc.cluster.local.:8080/", "http://orders:8080/",
    # Paths, as clients send them.
    f"http://{G}/../a", f"http://{G}/a/../b", f"http://{G}/a/%2e%2e/b", f"http://{G}/./a", f"http://{G}/a\\b", f"http://{G}/a\\..\\b", f"http://{G}//a", f"http://{G}//{E}/",
    f"http://{G}/\\{E}/", f"http://{G}/a b", f"http://{G}/a\tb", f"http://{G}/a\nb", f"http://{G}/ä", f"http://{G}/a%", f"http://{G}/a%zz", f"http://{G}/a%2fb", f"http://{G}/a%252e",
    f"http://{G}/a|b{{c}}", f"http://{G}/a;b", f"http://{G}/..;/a", f"http://{G}/a%00b", f"http://{G}/?ä", f"http://{G}/?a b", f"http://{G}/?a%0d%0ab", f"http://{G}/a\r\nHost: {E}\r\n/",
    f"http://{G}/http://{E}/", f"http://{G}/@{E}", f"http://{G}/:80", f"http://{G}/．．/a", f"http://{G}/%u002e",
]


class Way(socketserver.StreamRequestHandler):
    """Keeps who is asked (of SOCKS), and the head of what is said."""

    timeout = 3

    def handle(self):
        said = {}
        self.server.said = said
        if self.server.kind == "socks":
            version, methods = self.rfile.read(2)
            self.rfile.read(methods)
            self.wfile.write(b"\5\0")
            _, _, _, kind = self.rfile.read(4)
            length = {1: 4, 4: 16}.get(kind) or self.rfile.read(1)[0]
            host = self.rfile.read(length)
            import ipaddress

            name = host.decode("utf-8", "backslashreplace") if kind == 3 else str(ipaddress.ip_address(host))
            said["connects"] = f"{name} {int.from_bytes(self.rfile.read(2), 'big')}"
            self.wfile.write(b"\5\0\0\1" + bytes(6))
        head = b""
        while not head.endswith(b"\r\n\r\n") and (line := self.rfile.readline()):
            # What says nothing of the URL, but the client's version.
            if not line.lower().startswith((b"user-agent:", b"accept", b"connection:", b"proxy-connection:")):
                head += line
        if head:
            said["says"] = head.decode("latin-1")
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, *_):
        pass


def run(command, kind):
    """What became of every URL."""
    with Server(("127.0.0.1", 0), Way) as server:
        server.kind, server.said = kind, {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = subprocess.Popen([*command, kind, str(server.server_address[1])], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        found = []
        for url in URLS:
            server.said = {}
            program.stdin.write(base64.b64encode(url.encode()).decode() + "\n")
            program.stdin.flush()
            program.stdout.readline()
            found.append(dict(server.said))
        program.stdin.close()
        program.wait()
        server.shutdown()
        return found


def load():
    """By URL and client."""
    rows = json.loads(TABLE.read_text()) if TABLE.exists() else []
    return {row["url"]: {client: one for one in row["readings"] for client in one["by"]} for row in rows}


def main():
    assert len(URLS) == len(set(URLS))
    before = load()
    table = {url: dict(before.get(url, {})) for url in URLS}
    for client, command in CLIENTS.items():
        if not shutil.which(command[0]) or (client == "curl" and not shutil.which("curl")):
            print(f"{client} is not there: as it was", file=sys.stderr)
            continue
        direct, proxied = run(command, "socks"), run(command, "http")
        for url, one, other in zip(URLS, direct, proxied):
            table[url][client] = {**one, **({"says_to_proxy": other["says"]} if "says" in other else {})}
    lines = []
    for url, clients in table.items():
        readings = {}
        for client, one in sorted(clients.items()):
            key = json.dumps({name: one[name] for name in one if name != "by"}, sort_keys=True)
            readings.setdefault(key, []).append(client)
        lines.append(json.dumps({"url": url, "readings": [{"by": by, **json.loads(key)} for key, by in readings.items()]}))
    TABLE.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
