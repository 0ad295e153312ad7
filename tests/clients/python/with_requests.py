"""A client of requests (HTTP/1.1). Trust and proxies come from the environment alone."""

import requests

import check

args = check.arguments()
session = requests.Session()


def ask(method, url, headers, data, redirects):
    answer = session.request(method, url, headers=headers, data=data, allow_redirects=redirects, timeout=30)
    return answer.status_code, answer.headers, answer.content


def lines(url):
    with session.get(url, stream=True, timeout=30) as answer:
        yield from answer.iter_lines(chunk_size=1, decode_unicode=True)


check.http(args, ask, lines)
