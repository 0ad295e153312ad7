//! The rows of the attack suite that are attacks on HTTP: bytes from inside the pod, an answer that says why, and what the servers heard.

use super::attacks::Outcome;
use super::http::{Asked, Pod};

/// Bytes of a client, and how a guard answers them.
struct Said {
    options: &'static [&'static str],
    /// Where the bot says them; `open`, where the stranger does, who has no guard to ask.
    to: String,
    open: String,
    bytes: Vec<u8>,
    /// What the bot's answer must say; nothing: that its connection ends without one is enough.
    answer: &'static str,
}

const PROXY: &str = "127.0.0.1:15474";

impl Said {
    fn plainly(asked: &Asked, bytes: impl Into<Vec<u8>>, answer: &'static str) -> Self {
        let to = format!("{}:80", asked.tickets());
        Self { options: &[], open: to.clone(), to, bytes: bytes.into(), answer }
    }

    fn by_proxy(open: &str, bytes: String, answer: &'static str) -> Self {
        Self { options: &[], to: PROXY.to_owned(), open: open.to_owned(), bytes: bytes.into(), answer }
    }

    fn within_tls(bytes: String, answer: &'static str) -> Self {
        let to = "wiki.example.com:443".to_owned();
        Self { options: &["--tls"], open: to.clone(), to, bytes: bytes.into(), answer }
    }
}

/// The stranger's bytes arrive, with the mark in each; the bot's are answered as they should be, and of them not one byte arrives.
fn not_a_byte(asked: &Asked, mark: &str, attacks: &[Said]) -> Outcome {
    controlled(asked, mark, attacks)?;
    let before = asked.heard(Pod::Bot).concat().len();
    let reasons = refused(asked, attacks)?;
    let heard = asked.heard(Pod::Bot).concat();
    match heard.len() - before {
        0 => Ok(format!("{} of {} refused ({reasons}), 0 bytes of them arrived; a stranger's did", attacks.len(), attacks.len())),
        bytes => Err(format!("{bytes} bytes arrived, at the end of {heard}")),
    }
}

fn controlled(asked: &Asked, mark: &str, attacks: &[Said]) -> Result<(), String> {
    let marks = |heard: Vec<String>| heard.iter().map(|text| usize::from(text.contains(mark))).sum::<usize>();
    let before = marks(asked.heard(Pod::Stranger));
    for Said { options, open, bytes, .. } in attacks {
        let options: Vec<&str> =
            options.iter().copied().chain((!options.is_empty()).then_some("--insecure")).chain(["--for=500ms"]).collect();
        asked.say(Pod::Stranger, &options, open, bytes);
    }
    match marks(asked.heard(Pod::Stranger)) - before {
        arrived if arrived == attacks.len() => Ok(()),
        arrived => Err(format!("control: of {} that a stranger said, {arrived} arrived", attacks.len())),
    }
}

/// Each is answered as it should be; the reasons, each once.
fn refused(asked: &Asked, attacks: &[Said]) -> Outcome {
    let mut reasons = std::collections::BTreeSet::new();
    for Said { options, to, bytes, answer, .. } in attacks {
        let said = asked.say(Pod::Bot, options, to, bytes);
        if said.contains("200 OK") || !said.contains(answer) {
            return Err(format!("{:?} was answered {said:?} instead of {answer:?}", String::from_utf8_lossy(bytes)));
        }
        reasons.insert(*answer);
    }
    Ok(reasons.into_iter().collect::<Vec<_>>().join(", "))
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a small frame");
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A GET in HTTP/2, its fields as they are, in the clear.
fn http2(fields: &[(&str, &str)]) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text");
    let field = |(name, value): &(&str, &str)| [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat();
    let block: Vec<u8> = fields.iter().flat_map(field).collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(1, 5, 1, &block)].concat()
}

pub fn fronting(asked: &Asked) -> Outcome {
    let host = asked.tickets();
    let two = |authority: &str, field: &str| {
        http2(&[(":method", "GET"), (":scheme", "http"), (":path", "/v1/row27"), (":authority", authority), ("host", field)])
    };
    let evil = "evil.example.net";
    let outcome = not_a_byte(
        asked,
        "row27",
        &[
            Said::plainly(asked, format!("GET /v1/row27 HTTP/1.1\r\nHost: {evil}\r\n\r\n"), "host_mismatch"),
            Said::plainly(asked, format!("GET /v1/row27 HTTP/1.1\r\nHost: {host}\r\nHost: {evil}\r\n\r\n"), "request_malformed"),
            Said::plainly(asked, format!("GET /v1/row27 HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"), "request_malformed"),
            Said::plainly(asked, format!("GET http://{evil}/v1/row27 HTTP/1.1\r\nHost: {host}\r\n\r\n"), "request_malformed"),
            Said::plainly(asked, format!("GET http://{host}/v1/row27 HTTP/1.1\r\nHost: {evil}\r\n\r\n"), "request_malformed"),
            Said::by_proxy(
                "plain.example.com:80",
                format!("GET http://plain.example.com/row27 HTTP/1.1\r\nHost: {evil}\r\n\r\n"),
                "request_malformed",
            ),
            Said::by_proxy(
                "evil.example.net:80",
                format!("GET http://{evil}/row27 HTTP/1.1\r\nHost: plain.example.com\r\n\r\n"),
                "request_malformed",
            ),
            Said::by_proxy("evil.example.net:80", format!("GET http://{evil}/row27 HTTP/1.1\r\nHost: {evil}\r\n\r\n"), "name_not_declared"),
            Said::by_proxy("plain.example.com:80", format!("GET /help/row27 HTTP/1.1\r\nHost: {evil}\r\n\r\n"), "host_mismatch"),
            Said::within_tls(format!("GET /row27 HTTP/1.1\r\nHost: {evil}\r\n\r\n"), "host_mismatch"),
            Said::within_tls("GET /row27 HTTP/1.1\r\nHost: help.example.com\r\n\r\n".to_owned(), "host_mismatch"),
            Said::plainly(asked, two(&host, evil), "host_mismatch"),
            Said::plainly(asked, two(evil, &host), "host_mismatch"),
        ],
    )?;
    // Where both agree it is HTTP/2 that arrives.
    asked.say(Pod::Bot, &["--for=500ms"], &format!("{host}:80"), &two(&host, &host));
    let agreed = asked.heard(Pod::Bot).iter().filter(|text| text.starts_with("PRI * HTTP/2.0")).count();
    if agreed == 1 { Ok(outcome) } else { Err(format!("control: what agrees arrived {agreed} times")) }
}

pub fn tunnels(asked: &Asked) -> Outcome {
    let connect = |to: &str, inside: &str| format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n{inside}");
    let get = |host: &str| format!("GET /row28 HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (files, plain, evil) = ("files.example.com", "plain.example.com", "evil.example.net");
    let outcome = not_a_byte(
        asked,
        "row28",
        &[
            Said::by_proxy("files.example.com:80", connect("files.example.com:80", &get(files)), "port_not_declared"),
            Said::by_proxy("plain.example.com:8080", connect("plain.example.com:8080", &get(plain)), "port_not_declared"),
            Said::by_proxy("evil.example.net:80", connect("evil.example.net:80", &get(evil)), "name_not_declared"),
            Said::by_proxy("203.0.113.11:80", connect("203.0.113.11:80", &get(evil)), "403 "),
            // Agreed to, and then it is no TLS, or leads somewhere else.
            Said::by_proxy("files.example.com:443", connect("files.example.com:443", &get(files)), "200 "),
            Said::by_proxy("files.example.com:443", connect("files.example.com:443", "SSH-2.0-row28\r\n"), "200 "),
            Said::by_proxy("evil.example.net:80", connect("plain.example.com:80", &get(evil)), "host_mismatch"),
            Said::by_proxy(
                "plain.example.com:80",
                connect("plain.example.com:80", &connect("evil.example.net:80", &get(evil))),
                "upgrade_not_declared",
            ),
        ],
    )?;
    // TLS within the tunnel, by curl: to whom it was asked for, and to another.
    let curl = |args: &[&str]| asked.curl(Pod::Bot, &[["-k", "-x", "http://127.0.0.1:15474"].as_slice(), args].concat());
    let good = curl(&["https://files.example.com/good28"]);
    let other = curl(&["--connect-to", "evil.example.net:443:files.example.com:443", "https://evil.example.net/other28"]);
    let fronted = curl(&["--connect-to", "files.example.com:443:help.example.com:443", "https://files.example.com/other28"]);
    let arrived = (asked.arrived(Pod::Bot, "/good28").len(), asked.arrived(Pod::Bot, "/other28").len());
    match (good.status, other.status, fronted.status, arrived) {
        (200, 0, 0, (1, 0)) => Ok(format!("{outcome}; another server name within the tunnel: nothing arrived")),
        seen => Err(format!("{seen:?} {good:?} {other:?} {fronted:?}")),
    }
}

pub fn redirects(asked: &Asked) -> Outcome {
    let tickets = asked.tickets();
    let mut said = Vec::new();
    // Of curl's last answer: where the connection is not let through there is none after the redirect.
    for (to, path, status) in [
        ("http://evil.example.net/row29", "/row29", 302),
        ("http://169.254.169.254/meta29", "/meta29", 302),
        ("/admin29", "/admin29", 403),
        ("http://127.0.0.1:15474/help/admin29b", "/admin29b", 403),
    ] {
        let url = format!("http://{tickets}/v1/redirect?to={to}");
        let from = format!("/v1/redirect?to={to}");
        let open = asked.curl(Pod::Stranger, &["-L", &url]);
        // Nothing listens on the stranger's loopback.
        if !to.contains("127.0.0.1") && (open.status != 200 || asked.arrived(Pod::Stranger, path).len() != 1) {
            return Err(format!("control: a stranger is not led to {to}: {open:?}"));
        }
        let led = asked.curl(Pod::Bot, &["-L", &url]);
        let arrived = (asked.arrived(Pod::Bot, &from).len(), asked.arrived(Pod::Bot, path).len());
        if led.status != status || arrived != (1, 0) {
            return Err(format!("{to}: {led:?}, arrived {arrived:?}"));
        }
        said.push(format!("{to} {status}"));
    }
    Ok(format!("each redirect came to the app, and of what it led to nothing arrived: {}", said.join(", ")))
}

pub fn smuggling(asked: &Asked) -> Outcome {
    let host = asked.tickets();
    let inner = format!("GET /row30 HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let post = |fields: &str, body: &str| format!("POST /v1/search HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n{body}");
    let (chunked, none) = ("Transfer-Encoding: chunked\r\n", format!("0\r\n\r\n{inner}"));
    let length = |length: usize| format!("Content-Length: {length}\r\n");
    let malformed = |bytes: String| Said::plainly(asked, bytes, "request_malformed");
    let outcome = not_a_byte(
        asked,
        "row30",
        &[
            malformed(post(&(length(none.len()) + chunked), &none)),
            malformed(post(&(chunked.to_owned() + &length(4)), &format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()))),
            malformed(post(&format!("{chunked}Transfer-Encoding: identity\r\n"), &none)),
            malformed(post("Transfer-Encoding: xchunked\r\n", &none)),
            malformed(post("Transfer-Encoding : chunked\r\n", &none)),
            malformed(post("Transfer-Encoding:\r\n chunked\r\n", &none)),
            malformed(post(&format!("{}{}", length(0), length(inner.len())), &inner)),
            malformed(post(&format!("Content-Length: +{}\r\n", inner.len()), &inner)),
            malformed(post(&length(0), &inner).replace("\r\n", "\n")),
            malformed(format!("GET /v1/x HTTP/1.1\r\nHost: {host}\r\nX: a\rb\r\n\r\n{inner}")),
            malformed(format!("GET /v1/x HTTP/1.1\r\nHost: {host}\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n{none}")),
        ],
    )?;
    // What shows in a body only: its head has gone by then, and the rest is never ended. What the server heard decides.
    let in_chunks = |body: &str| Said::plainly(asked, post(chunked, body), "");
    let bodies = [
        in_chunks(&format!("2;x=\"\n\"\r\nab\r\n{none}")),
        in_chunks(&format!("2;\nxx\r\nab\r\n{none}")),
        in_chunks(&format!("2\nab\r\n{none}")),
        in_chunks(&format!("0x2\r\nab\r\n{none}")),
        in_chunks(&format!("fffffffffffffffff\r\nab\r\n{none}")),
        in_chunks(&format!("2\r\nabX\r\n{none}")),
    ];
    controlled(asked, "row30", &bodies)?;
    refused(asked, &bodies)?;
    // A second request that is one: judged as such, whatever stood before it.
    let pipelined = asked.say(Pod::Bot, &["--for=1s"], &format!("{host}:80"), post(&length(0), &inner).as_bytes());
    let heard: Vec<String> = asked.heard(Pod::Bot).into_iter().filter(|text| text.contains("row30")).collect();
    let good = asked.curl(Pod::Bot, &[&format!("http://{host}/v1/after30")]);
    match (pipelined.contains("200 OK") && pipelined.contains("path_not_declared"), heard.as_slice(), good.status) {
        (true, [], 200) => Ok(format!(
            "{outcome}; {} malformed bodies cut off before what they carried; one after a whole request is judged",
            bodies.len()
        )),
        seen => Err(format!("{seen:?} {pipelined}")),
    }
}

pub fn paths(asked: &Asked) -> Outcome {
    let host = asked.tickets();
    let get = |path: &str, answer| Said::plainly(asked, format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"), answer);
    let with = |field: &str| Said::plainly(asked, format!("GET /v1/row31 HTTP/1.1\r\nHost: {host}\r\n{field}\r\n\r\n"), "method_override");
    let form = |body: &str| {
        let head = format!("POST /v1/search HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n");
        Said::plainly(asked, format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()), "method_override")
    };
    not_a_byte(
        asked,
        "row31",
        &[
            get("/v1/../row31", "path_ambiguous"),
            get("/v1/%2e%2e/row31", "path_ambiguous"),
            get("/v1/.%2E/row31", "path_ambiguous"),
            get("/v1/..%2frow31", "path_ambiguous"),
            get("/v1%2frow31", "path_ambiguous"),
            get("/v1/..;/row31", "path_ambiguous"),
            get("/v1/..;a=b/row31", "path_ambiguous"),
            get("/v1/..\\row31", "path_ambiguous"),
            get("/v1/..%5crow31", "path_ambiguous"),
            get("/v1/row31%00", "path_ambiguous"),
            get("/v1/%c0%ae%c0%ae/row31", "path_ambiguous"),
            get("//v1/row31", "path_ambiguous"),
            get("//evil.example.net/v1/row31", "path_ambiguous"),
            get("/V1/row31", "path_not_declared"),
            get("/%76%31x/row31", "path_not_declared"),
            with("X-HTTP-Method-Override: DELETE"),
            with("X-Method-Override: DELETE"),
            with("X-Original-URL: /admin"),
            with("X-Rewrite-URL: /admin"),
            get("/v1/row31?_method=DELETE", "method_override"),
            form("_method=DELETE&q=row31"),
            form("q=row31&%5Fmethod=DELETE"),
        ],
    )
}

pub fn upgrades(asked: &Asked) -> Outcome {
    let host = asked.tickets();
    let upgrade = |path: &str, to: &str, more: &str| {
        format!("GET /v1/{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade{more}\r\nUpgrade: {to}\r\n")
    };
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let websocket = upgrade("row32", "websocket", "") + key;
    let to = format!("{host}:80");
    let open = asked.say(Pod::Stranger, &["--for=500ms"], &to, websocket.as_bytes());
    if !open.starts_with("HTTP/1.1 101") {
        return Err(format!("control: a stranger gets no WebSocket: {open}"));
    }
    let outcome = not_a_byte(
        asked,
        "row32",
        &[
            Said::plainly(asked, websocket.clone(), "upgrade_not_declared"),
            Said::plainly(asked, upgrade("row32", "TLS/1.0", "") + "\r\n", "upgrade_not_declared"),
            Said::plainly(asked, upgrade("row32", "websocket, h2c", "") + key, "upgrade_not_declared"),
        ],
    )?;
    // A wish for h2c is passed over, and what it brings with it does not arrive: the answer comes in HTTP/1.1.
    let h2c = upgrade("h2c32", "h2c", ", HTTP2-Settings") + "HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let said = asked.say(Pod::Bot, &["--for=1s"], &to, h2c.as_bytes());
    let heard: Vec<String> = asked.heard(Pod::Bot).into_iter().filter(|text| text.contains("/v1/h2c32")).collect();
    let [text] = heard.as_slice() else { return Err(format!("{said} {heard:?}")) };
    let request = text.split("/v1/h2c32").nth(1).unwrap_or_default().to_ascii_lowercase();
    match said.starts_with("HTTP/1.1 200") && !request.contains("upgrade") && !request.contains("http2-settings") {
        true => Ok(format!("{outcome}; a wish for h2c arrived as a request of HTTP/1.1 without it")),
        false => Err(format!("{said} {heard:?}")),
    }
}

/// `_method=DELETE&q=33` as gzip has it.
const ZIPPED: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x8b, 0xcf, 0x4d, 0x2d, 0xc9, 0xc8, 0x4f, 0xb1, 0x75, 0x71, 0xf5, 0x71,
    0x0d, 0x71, 0x55, 0x2b, 0xb4, 0x35, 0x36, 0x06, 0x00, 0x6d, 0x5d, 0x4f, 0x79, 0x13, 0x00, 0x00, 0x00,
];

pub fn hidden_forms(asked: &Asked) -> Outcome {
    let host = asked.tickets();
    let form = |kind: &str, more: &str, body: &[u8], answer| {
        let head = format!(
            "POST /v1/search HTTP/1.1\r\nHost: {host}\r\nX: row33\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\n\r\n",
            body.len()
        );
        Said::plainly(asked, [head.as_bytes(), body].concat(), answer)
    };
    let usual = "application/x-www-form-urlencoded";
    let utf16: Vec<u8> = "_method=DELETE".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let outcome = not_a_byte(
        asked,
        "row33",
        &[
            form(usual, "Content-Encoding: gzip\r\n", ZIPPED, "method_override"),
            form(usual, "Content-Encoding: identity, gzip\r\n", ZIPPED, "method_override"),
            form(usual, "Content-Encoding: br\r\n", b"_method=DELETE", "method_override"),
            form("application/x-www-form-urlencoded; charset=utf-16le", "", &utf16, "method_override"),
            form(
                "multipart/form-data; boundary=b",
                "",
                b"--b\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE\r\n--b--\r\n",
                "method_override",
            ),
        ],
    )?;
    // Larger than what the guard reads before it knows.
    let large = asked
        .curl(Pod::Bot, &["-H", "Expect:", "-d", &format!("q={}&_method=DELETE", "x".repeat(70_000)), &format!("http://{host}/v1/search")]);
    let plain = asked.curl(Pod::Bot, &["-d", "q=plain33", &format!("http://{host}/v1/search")]);
    let arrived = asked.heard(Pod::Bot).iter().filter(|text| text.contains("q=plain33")).count();
    match (large.status, large.body.contains("request_too_large"), plain.status, arrived) {
        (431, true, 200, 1) => Ok(format!("{outcome}; a plain form arrives, one of 70 kB does not")),
        seen => Err(format!("{seen:?} {large:?} {plain:?}")),
    }
}
