"""A client of httpx (HTTP/1.1 and HTTP/2). Trust and proxies come from the environment alone."""

import asyncio

import httpx

import check

args = check.arguments()
# HTTP/2 in plain text is by prior knowledge: without HTTP/1.1. Another host is another client, for it may not speak it.
plain2 = args.http == 2 and args.base.startswith("http:")
client = httpx.Client(http1=not plain2, http2=args.http == 2, timeout=30)
anywhere = httpx.Client(timeout=30)


def ask(method, url, headers, data, redirects):
    answer = client.request(method, url, headers=headers, content=data)
    version = "HTTP/2" if args.http == 2 else "HTTP/1.1"
    check.equal("version", answer.http_version, version)
    if redirects:
        to = answer.next_request.url
        with_ = client if str(to).startswith(args.base.split("/", 3)[0] + "//" + args.base.split("/", 3)[2]) else anywhere
        answer = with_.get(to)
    return answer.status_code, answer.headers, answer.content


def lines(url):
    with client.stream("GET", url) as answer:
        yield from answer.iter_lines()


def at_once(urls):
    """Requests of one thread: with several, this client loses its count of HTTP/2 streams, whoever the server is."""

    async def all_of_them():
        async with httpx.AsyncClient(http1=not plain2, http2=args.http == 2, timeout=30) as many:
            return [answer.content for answer in await asyncio.gather(*(many.get(url) for url in urls))]

    return asyncio.run(all_of_them())


check.http(args, ask, lines, at_once)
