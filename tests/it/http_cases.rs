//! HTTP/1 requests as an adversary writes them, each with what must become of it. Made from tables, so that what is tried in one place is
//! tried in all of them. The same bytes are seeds of the fuzz targets.

use std::collections::BTreeSet;

/// The Service that all of them mean.
pub const HOST: &str = "orders.shop.svc.cluster.local:8080";
/// The same Service's port that has rules.
pub const RULED: &str = "orders.shop.svc.cluster.local:8081";
/// As the base URL of its sources has it sent.
const BASE: &str = "orders.shop.svc:8080";
const RULED_BASE: &str = "orders.shop.svc:8081";
/// A host outside that is declared with plain HTTP and ReadWrite.
pub const PLAIN: &str = "help.example.com:8080";
/// What is said of the connection to the upstream where a body may be passed over there: nothing that follows it is a request.
const CLOSE: &str = "connection: close\r\n";
/// What a request smuggles that is understood differently than it was judged.
pub const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: orders.shop.svc.cluster.local:8080\r\n\r\n";

/// Where it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// To the Service's port that is declared with ReadWrite and without rules.
    Open,
    /// To its port with Read and rules: GET below `/articles`, POST to `/search`, WebSockets at `/live`.
    Ruled,
    /// To the guard's own listener, where the first is `orders` and the second `ledger`.
    Loopback,
    /// To an address outside, where a host is declared with plain HTTP.
    Outside,
}

/// What follows the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client listens.
    Open,
    /// The client says that this was all.
    Shut,
    /// The client says nothing more, and does not go.
    Silent,
}

/// What must become of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The upstream gets exactly this head (but for how the body is framed, which is in `body`), and this body.
    Passed { head: String, body: Body },
    /// An answer with this status, and not a byte at the upstream. An empty reason: any that has this status.
    Refused { status: u16, reason: &'static str },
    /// As `Refused`, but its head was well, and may have gone before: the upstream never sees the whole of it.
    Broken,
    /// It is no HTTP/1: whatever is said, it ends, and not a byte arrives.
    Closed,
    /// It ended too early: at most an answer that refuses it; the upstream never sees the whole of it.
    Cut,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<u8>),
}

pub struct Case {
    pub name: String,
    pub door: Door,
    pub bytes: Vec<u8>,
    pub end: End,
    pub steps: Vec<Step>,
}

/// The reasons and their statuses, as far as they are met here.
const MALFORMED: (u16, &str) = (400, "request_malformed");
const TOO_LARGE: (u16, &str) = (431, "request_too_large");
const MISMATCH: (u16, &str) = (421, "host_mismatch");
const METHOD: (u16, &str) = (403, "method_not_declared");
const PATH: (u16, &str) = (403, "path_not_declared");
const AMBIGUOUS: (u16, &str) = (400, "path_ambiguous");
const OVERRIDE: (u16, &str) = (403, "method_override");
const UPGRADE: (u16, &str) = (403, "upgrade_not_declared");
const SOURCE: (u16, &str) = (403, "source_not_declared");
/// Some 400: of two reasons that both hold, either may be said.
const BAD: (u16, &str) = (400, "");

/// The inputs alone, with names that are names of files: those that a parser tells apart, and none that a fuzzer makes of another at once.
pub fn seeds() -> Vec<(String, Vec<u8>)> {
    const BEGIN: [&str; 5] = ["cut-", "rule-", "override-", "no-override-", "pipeline-after-"];
    const END: [&str; 4] = ["-below-a-rule", "-and-length", "-in-ones", "-is-not-declared"];
    let kept = |case: &Case| {
        let name = case.name.as_str();
        case.bytes.len() <= 1_024 && !BEGIN.iter().any(|begin| name.starts_with(begin)) && !END.iter().any(|end| name.ends_with(end))
    };
    cases().into_iter().filter(kept).map(|case| (case.name, case.bytes)).collect()
}

pub fn cases() -> Vec<Case> {
    let mut list = List::default();
    request_lines(&mut list);
    methods(&mut list);
    line_ends(&mut list);
    fields(&mut list);
    hosts(&mut list);
    lengths(&mut list);
    codings(&mut list);
    chunks(&mut list);
    pipelines(&mut list);
    hop_by_hop(&mut list);
    targets(&mut list);
    paths(&mut list);
    rules(&mut list);
    floods(&mut list);
    cuts(&mut list);
    loopback(&mut list);
    outside(&mut list);
    let mut names = BTreeSet::new();
    for Case { name, .. } in &list.0 {
        assert!(names.insert(name.clone()), "two cases have the name {name}");
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
    }
    list.0
}

#[derive(Default)]
struct List(Vec<Case>);

impl List {
    fn add(&mut self, name: &str, door: Door, bytes: impl AsRef<[u8]>, end: End, steps: Vec<Step>) {
        self.0.push(Case { name: name.to_owned(), door, bytes: bytes.as_ref().to_vec(), end, steps });
    }

    fn refused(&mut self, name: &str, why: (u16, &'static str), bytes: impl AsRef<[u8]>) {
        self.add(name, Door::Open, bytes, End::Open, vec![refused(why)]);
    }

    /// One request without a body, which arrives with this head.
    fn passed(&mut self, name: &str, bytes: impl AsRef<[u8]>, head: &str) {
        self.add(name, Door::Open, bytes, End::Open, vec![passed(head, Body::None)]);
    }
}

fn refused((status, reason): (u16, &'static str)) -> Step {
    Step::Refused { status, reason }
}

fn passed(head: &str, body: Body) -> Step {
    Step::Passed { head: head.to_owned(), body }
}

/// A request that names the Service as it must, with these lines after its first.
fn request(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: {HOST}\r\n{fields}\r\n")
}

/// Its head as the upstream gets it.
fn head(line: &str, fields: &str) -> String {
    format!("{line}\r\nhost: {HOST}\r\n{fields}\r\n")
}

/// A request to the port that has rules.
fn ruled(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: {RULED}\r\n{fields}\r\n")
}

fn ruled_head(line: &str, fields: &str) -> String {
    format!("{line}\r\nhost: {RULED}\r\n{fields}\r\n")
}

/// Bytes in the place of `@`.
fn at(template: &str, bytes: &[u8]) -> Vec<u8> {
    let (before, after) = template.split_once('@').expect("a place");
    [before.as_bytes(), bytes, after.as_bytes()].concat()
}

/// Bytes as a part of a name.
fn slug(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join("-")
}

fn request_lines(list: &mut List) {
    const WRONG: &[(&str, &str)] = &[
        ("two-spaces-after-method", "GET  / HTTP/1.1"),
        ("two-spaces-after-target", "GET /  HTTP/1.1"),
        ("space-first", " GET / HTTP/1.1"),
        ("tab-first", "\tGET / HTTP/1.1"),
        ("space-last", "GET / HTTP/1.1 "),
        ("tab-last", "GET / HTTP/1.1\t"),
        ("tab-after-method", "GET\t/ HTTP/1.1"),
        ("tab-after-target", "GET /\tHTTP/1.1"),
        ("tab-and-space", "GET \t/ HTTP/1.1"),
        ("space-in-target", "GET /a b HTTP/1.1"),
        ("version-in-target", "GET / HTTP/1.1 HTTP/1.1"),
        ("two-targets", "GET /articles /admin HTTP/1.1"),
        ("no-version", "GET /"),
        ("no-version-but-space", "GET / "),
        ("method-only", "GET"),
        ("method-and-space", "GET "),
        ("no-method", "/ HTTP/1.1"),
        ("no-method-but-space", " / HTTP/1.1"),
        ("no-target", "GET HTTP/1.1"),
        ("no-target-but-spaces", "GET  HTTP/1.1"),
        ("version-only", "HTTP/1.1"),
        ("answer", "HTTP/1.1 200 OK"),
        ("version-0-9", "GET / HTTP/0.9"),
        ("version-1-0", "GET / HTTP/1.0"),
        ("version-1-2", "GET / HTTP/1.2"),
        ("version-1-9", "GET / HTTP/1.9"),
        ("version-2-0", "GET / HTTP/2.0"),
        ("version-2", "GET / HTTP/2"),
        ("version-3", "GET / HTTP/3"),
        ("version-1", "GET / HTTP/1"),
        ("version-1-dot", "GET / HTTP/1."),
        ("version-1-10", "GET / HTTP/1.10"),
        ("version-1-01", "GET / HTTP/1.01"),
        ("version-01-1", "GET / HTTP/01.1"),
        ("version-11", "GET / HTTP/11"),
        ("version-1-1-1", "GET / HTTP/1.1.1"),
        ("version-plus", "GET / HTTP/+1.1"),
        ("version-minus", "GET / HTTP/1.-1"),
        ("version-comma", "GET / HTTP/1,1"),
        ("version-space", "GET / HTTP/ 1.1"),
        ("version-space-before-slash", "GET / HTTP /1.1"),
        ("version-more", "GET / HTTP/1.1x"),
        ("version-question", "GET / HTTP/1.1?x"),
        ("version-lower-case", "GET / http/1.1"),
        ("version-mixed-case", "GET / Http/1.1"),
        ("version-https", "GET / HTTPS/1.1"),
        ("version-shttp", "GET / S-HTTP/1.1"),
        ("version-rtsp", "GET / RTSP/1.0"),
        ("version-icy", "GET / ICY/1.1"),
        ("version-dash", "GET / HTTP-1.1"),
        ("version-backslash", "GET / HTTP\\1.1"),
        ("version-full-width", "GET / HTTP/1.\u{ff11}"),
    ];
    for (name, line) in WRONG {
        list.refused(&format!("line-{name}"), MALFORMED, request(line, "") + SMUGGLED);
    }
    list.add("line-09-alone", Door::Open, "GET /\r\n", End::Silent, vec![Step::Cut]);
    list.add("line-09-alone-shut", Door::Open, "GET /\r\n", End::Shut, vec![Step::Cut]);
    list.refused("line-09-without-fields", MALFORMED, "GET /smuggled\r\n\r\n");
    list.refused("line-empty-before", MALFORMED, format!("\r\n{SMUGGLED}"));
    list.refused("line-two-empty-before", MALFORMED, format!("\r\n\r\n{SMUGGLED}"));
    list.refused("line-lf-before", MALFORMED, format!("\n{SMUGGLED}"));
    list.refused("line-nul-before", MALFORMED, format!("\0{SMUGGLED}"));
    list.refused("line-space-and-end-before", MALFORMED, format!(" \r\n{SMUGGLED}"));
    list.refused("line-bom-before", MALFORMED, format!("\u{feff}{SMUGGLED}"));
    list.refused("line-proxy-protocol", MALFORMED, format!("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n{SMUGGLED}"));
    list.refused(
        "line-proxy-protocol-2",
        MALFORMED,
        [b"\r\n\r\n\0\r\nQUIT\n \x11\0\x0c".as_slice(), &[127; 12], SMUGGLED.as_bytes()].concat(),
    );
    list.refused("line-fields-only", MALFORMED, format!("Host: {HOST}\r\n\r\n"));
    list.refused("line-tls", MALFORMED, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n");
    list.refused("line-ssh", MALFORMED, "SSH-2.0-OpenSSH_9.9\r\n\r\n");
    list.refused("line-smtp", MALFORMED, "EHLO evil.example\r\nMAIL FROM:<a@evil.example>\r\n\r\n");
    list.refused("line-redis", MALFORMED, "*1\r\n$8\r\nFLUSHALL\r\n\r\n");
    list.add("line-h2-preface-with-lf", Door::Open, format!("PRI * HTTP/2.0\n\n{SMUGGLED}"), End::Open, vec![Step::Closed]);
    list.add("line-h2-preface-cut", Door::Open, format!("PRI * HTTP/2.0\r\n\r\n{SMUGGLED}"), End::Open, vec![Step::Closed]);
    list.add(
        "line-h2-preface-then-http-1",
        Door::Open,
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}"),
        End::Open,
        vec![Step::Closed],
    );
    list.refused("line-h2-preface-lower", MALFORMED, format!("pri * HTTP/2.0\r\n\r\nSM\r\n\r\n{SMUGGLED}"));
    const PLACES: &[(&str, &str)] = &[
        ("method-first", "@GET / HTTP/1.1"),
        ("method", "G@ET / HTTP/1.1"),
        ("method-last", "GET@ / HTTP/1.1"),
        ("target", "GET /a@b HTTP/1.1"),
        ("query", "GET /?a@b HTTP/1.1"),
        ("version", "GET / HTTP/1.@1"),
        ("version-last", "GET / HTTP/1.1@"),
    ];
    for (place, template) in PLACES {
        for byte in [0, 1, 8, 0x0b, 0x0c, 0x0d, 0x1b, 0x7f, 0x80, 0x85, 0xa0, 0xff] {
            let template = request(template, "");
            let why = if place.starts_with("target") || place.starts_with("query") { BAD } else { MALFORMED };
            let more = if why == BAD { "" } else { SMUGGLED };
            list.refused(&format!("line-{byte:02x}-in-{place}"), why, [&at(&template, &[byte]), more.as_bytes()].concat());
        }
    }
}

fn methods(list: &mut List) {
    for byte in b"\"(),/:;<=>?@[\\]{}" {
        let bytes = [b"G", [*byte].as_slice(), b"ET / HTTP/1.1\r\nHost: ", HOST.as_bytes(), b"\r\n\r\n"].concat();
        list.refused(&format!("method-with-{byte:02x}"), MALFORMED, bytes);
    }
    for (name, method) in [
        ("of-webdav", "PROPFIND"),
        ("with-dash", "M-SEARCH"),
        ("of-marks", "!#$%&'*+-.^_`|~"),
        ("of-digits", "1"),
        ("lower-case", "get"),
        ("mixed-case", "Post"),
        ("like-a-version", "HTTP"),
        ("pri-with-path", "PRI"),
    ] {
        let line = format!("{method} / HTTP/1.1");
        list.passed(&format!("method-{name}"), request(&line, ""), &head(&line, ""));
    }
    // It hands back what a guard adds.
    list.refused("method-trace", METHOD, request("TRACE / HTTP/1.1", ""));
    list.refused("method-trace-with-hops", METHOD, request("TRACE / HTTP/1.1", "Max-Forwards: 0\r\n"));
    // What is no method for one is none of the declared ones for another.
    for method in ["get", "Get", "GETS", "GE", "PRI", "TRACE", "PUT", "PATCH", "DELETE", "post", "PROPFIND", "*", "GET|PUT"] {
        let name = format!("method-{}-is-not-declared", slug(method.as_bytes()));
        list.add(&name, Door::Ruled, ruled(&format!("{method} /articles HTTP/1.1"), ""), End::Open, vec![refused(METHOD)]);
    }
    list.refused("method-longer-than-a-head", (0, ""), request(&format!("{} / HTTP/1.1", "A".repeat(70_000)), ""));
}

fn line_ends(list: &mut List) {
    const PLACES: &[(&str, &str)] = &[
        ("line", "GET / HTTP/1.1@Host: HOST\r\nA: b\r\n\r\n"),
        ("host", "GET / HTTP/1.1\r\nHost: HOST@A: b\r\n\r\n"),
        ("field", "GET / HTTP/1.1\r\nHost: HOST\r\nA: b@C: d\r\n\r\n"),
        ("last-field", "GET / HTTP/1.1\r\nHost: HOST\r\nA: b@\r\n"),
        ("head", "GET / HTTP/1.1\r\nHost: HOST\r\nA: b\r\n@"),
    ];
    const ENDS: &[(&str, &str)] = &[
        ("lf", "\n"),
        ("cr", "\r"),
        ("cr-cr-lf", "\r\r\n"),
        ("lf-cr", "\n\r"),
        ("lf-lf", "\n\n"),
        ("cr-nul-lf", "\r\0\n"),
        ("cr-space-lf", "\r \n"),
        ("nul", "\0"),
        ("vt", "\x0b"),
        ("ff", "\x0c"),
    ];
    for (place, template) in PLACES {
        for (end, bytes) in ENDS {
            let text = at(&template.replace("HOST", HOST), bytes.as_bytes());
            list.refused(&format!("end-{end}-after-{place}"), MALFORMED, [&text, SMUGGLED.as_bytes()].concat());
        }
    }
    let hides = |what: &str| request("POST / HTTP/1.1", what) + SMUGGLED;
    list.refused("end-lf-everywhere", MALFORMED, SMUGGLED.replace("\r\n", "\n"));
    list.add("end-cr-everywhere", Door::Open, SMUGGLED.replace("\r\n", "\r"), End::Shut, vec![Step::Cut]);
    list.refused("end-lf-hides-a-coding", MALFORMED, hides("Content-Length: 67\r\nA: b\nTransfer-Encoding: chunked\r\n"));
    list.refused("end-cr-hides-a-coding", MALFORMED, hides("Content-Length: 67\r\nA: b\rTransfer-Encoding: chunked\r\n"));
    list.refused("end-cr-hides-a-length", MALFORMED, hides("A: b\rContent-Length: 67\r\n"));
    list.refused(
        "end-lf-hides-a-request",
        MALFORMED,
        request("GET / HTTP/1.1", &format!("A: b\n\nGET /smuggled HTTP/1.1\nHost: {HOST}\n\n\r\n")),
    );
}

fn fields(list: &mut List) {
    let line = "GET / HTTP/1.1";
    for byte in b" \t\"(),/;<=>?@[\\]{}\0\x01\x0b\x0c\r\x1b\x7f\x80\xa0\xff" {
        let name = format!("name-with-{byte:02x}");
        list.refused(&name, MALFORMED, at(&request(line, "A@b: c\r\n"), &[*byte]));
    }
    for (name, bytes) in
        [("space", " "), ("tab", "\t"), ("two-spaces", "  "), ("vt", "\x0b"), ("nul", "\0"), ("cr", "\r"), ("nbsp", "\u{a0}")]
    {
        for field in ["A: b", "Transfer-Encoding: chunked", "Content-Length: 67"] {
            let (before, after) = field.split_once(':').expect("a field");
            let slug = before.to_ascii_lowercase();
            let [colon, fold] = [format!("{before}{bytes}:{after}\r\n"), format!("{bytes}{field}\r\n")];
            list.refused(&format!("{name}-before-colon-of-{slug}"), MALFORMED, request("POST / HTTP/1.1", &colon) + "0\r\n\r\n" + SMUGGLED);
            list.refused(&format!("{name}-before-{slug}"), MALFORMED, request("POST / HTTP/1.1", &fold) + "0\r\n\r\n" + SMUGGLED);
        }
    }
    const WRONG: &[(&str, &str)] = &[
        ("without-colon", "A\r\n"),
        ("without-colon-but-value", "A b\r\n"),
        ("without-name", ": b\r\n"),
        ("colon-only", ":\r\n"),
        ("two-colons-first", ":: b\r\n"),
        ("fold", "A: b\r\n c\r\n"),
        ("fold-tab", "A: b\r\n\tc\r\n"),
        ("fold-empty", "A: b\r\n \r\n"),
        ("fold-of-an-empty-one", "A:\r\n b\r\n"),
        ("fold-hides-a-coding", "A: b\r\n Transfer-Encoding: chunked\r\n"),
        ("fold-of-a-coding", "Transfer-Encoding:\r\n chunked\r\n"),
        ("fold-of-a-coding-after", "Transfer-Encoding: chunked\r\n , identity\r\n"),
        ("fold-of-a-length", "Content-Length:\r\n 67\r\n"),
        ("fold-of-a-length-after", "Content-Length: 6\r\n 7\r\n"),
        ("name-not-ascii", "\u{e4}: b\r\n"),
        ("name-long-s", "Tran\u{17f}fer-Encoding: chunked\r\n"),
        ("name-kelvin", "\u{212a}: b\r\n"),
        ("soft-hyphen", "Transfer\u{ad}-Encoding: chunked\r\n"),
        ("html", "<a>: b\r\n"),
    ];
    for (name, field) in WRONG {
        list.refused(&format!("field-{name}"), MALFORMED, request("POST / HTTP/1.1", field) + "0\r\n\r\n" + SMUGGLED);
    }
    list.refused("field-fold-before-the-first", MALFORMED, format!("{line}\r\n Host: {HOST}\r\n\r\n"));
    list.refused("field-fold-after-the-line", MALFORMED, format!("{line}\r\n x\r\nHost: {HOST}\r\n\r\n"));
    for byte in (0..0x20).filter(|b| *b != 9).chain([0x7f]) {
        list.refused(
            &format!("value-with-{byte:02x}"),
            MALFORMED,
            [&at(&request(line, "A: b@c\r\n"), &[byte]), SMUGGLED.as_bytes()].concat(),
        );
    }
    for byte in [0, 1, 0x0b, 0x0c, 0x0d, 0x7f] {
        list.refused(&format!("value-begins-with-{byte:02x}"), MALFORMED, at(&request(line, "A:@b\r\n"), &[byte]));
        list.refused(&format!("value-ends-with-{byte:02x}"), MALFORMED, at(&request(line, "A: b@\r\n"), &[byte]));
    }
    for (name, field, seen) in [
        ("spaces-around", "A:   b  \r\n", "a: b\r\n"),
        ("tabs-around", "A:\tb\t\r\n", "a: b\r\n"),
        ("no-space", "A:b\r\n", "a: b\r\n"),
        ("empty", "A:\r\n", "a: \r\n"),
        ("spaces-only", "A:  \t \r\n", "a: \r\n"),
        ("colons", "A: b: c:d\r\n", "a: b: c:d\r\n"),
        ("space-within", "A: b  c\r\n", "a: b  c\r\n"),
        ("twice", "A: b\r\na: c\r\n", "a: b\r\na: c\r\n"),
        ("every-token-mark", "!#$%&'*+-.^_`|~09aZ: b\r\n", "!#$%&'*+-.^_`|~09az: b\r\n"),
        ("upper-case", "ACCEPT: B\r\n", "accept: B\r\n"),
        ("utf-8", "A: \u{e4}\u{2028}\r\n", "a: \u{e4}\u{2028}\r\n"),
        ("cookie", "Cookie: a=b; c=\"d\"\r\nCookie: e=f\r\n", "cookie: a=b; c=\"d\"\r\ncookie: e=f\r\n"),
        ("forwarded-host", "X-Forwarded-Host: evil.example\r\n", "x-forwarded-host: evil.example\r\n"),
        ("underscore-length", "Content_Length: 67\r\n", "content_length: 67\r\n"),
        ("underscore-coding", "Transfer_Encoding: chunked\r\n", "transfer_encoding: chunked\r\n"),
        ("override-where-all-is-declared", "X-HTTP-Method-Override: DELETE\r\n", "x-http-method-override: DELETE\r\n"),
    ] {
        list.passed(&format!("field-{name}"), request(line, field), &head(line, seen));
    }
}

fn hosts(list: &mut List) {
    let line = "GET / HTTP/1.1";
    let named = |hosts: &str| format!("{line}\r\n{hosts}\r\n");
    const WRONG: &[(&str, &str)] = &[
        ("missing", ""),
        ("missing-but-forwarded", "X-Forwarded-Host: HOST\r\n"),
        ("empty", "Host:\r\n"),
        ("spaces", "Host:   \r\n"),
        ("twice", "Host: HOST\r\nHost: HOST\r\n"),
        ("twice-lower", "Host: HOST\r\nhost: HOST\r\n"),
        ("two", "Host: HOST\r\nHost: evil.example\r\n"),
        ("two-other-first", "Host: evil.example\r\nHost: HOST\r\n"),
        ("two-apart", "Host: HOST\r\nA: b\r\nHost: evil.example\r\n"),
        ("two-one-empty", "Host:\r\nHost: HOST\r\n"),
        ("list", "Host: HOST, evil.example\r\n"),
        ("list-of-one", "Host: HOST,\r\n"),
        ("two-words", "Host: HOST evil.example\r\n"),
        ("tab", "Host: HOST\tevil.example\r\n"),
        ("userinfo", "Host: a@HOST\r\n"),
        ("userinfo-password", "Host: a:b@HOST\r\n"),
        ("as-userinfo", "Host: HOST@evil.example\r\n"),
        ("path", "Host: HOST/\r\n"),
        ("path-of-other", "Host: HOST/evil.example\r\n"),
        ("query", "Host: HOST?x\r\n"),
        ("fragment", "Host: HOST#x\r\n"),
        ("backslash", "Host: HOST\\evil.example\r\n"),
        ("url", "Host: http://HOST/\r\n"),
        ("scheme-relative", "Host: //HOST\r\n"),
        ("port-empty", "Host: NAME:\r\n"),
        ("port-letters", "Host: NAME:http\r\n"),
        ("port-too-large", "Host: NAME:65536\r\n"),
        ("port-that-wraps", "Host: NAME:73616\r\n"),
        ("port-minus", "Host: NAME:-1\r\n"),
        ("port-plus", "Host: NAME:+8080\r\n"),
        ("port-spaces", "Host: NAME: 8080\r\n"),
        ("port-twice", "Host: HOST:8080\r\n"),
        ("port-hex", "Host: NAME:0x1f90\r\n"),
        ("port-only", "Host: :8080\r\n"),
        ("percent", "Host: orders%2eshop.svc.cluster.local:8080\r\n"),
        ("not-ascii", "Host: \u{f6}rders.shop.svc.cluster.local:8080\r\n"),
        ("full-width-dot", "Host: orders\u{ff0e}shop.svc.cluster.local:8080\r\n"),
        ("wildcard", "Host: *.shop.svc.cluster.local:8080\r\n"),
        ("two-dots", "Host: orders..shop.svc.cluster.local:8080\r\n"),
        ("dot-first", "Host: .orders.shop.svc.cluster.local:8080\r\n"),
        ("brackets", "Host: [orders.shop.svc.cluster.local]:8080\r\n"),
        ("bracket-open", "Host: [::1:8080\r\n"),
        ("quotes", "Host: \"HOST\"\r\n"),
        ("zone", "Host: [fe80::1%25eth0]:8080\r\n"),
        ("semicolon", "Host: HOST;x\r\n"),
        ("port-0", "Host: NAME:0\r\n"),
        ("port-of-six-digits", "Host: NAME:008080\r\n"),
        ("address-decimal", "Host: 174065415:8080\r\n"),
        ("address-hex", "Host: 0x0a600707:8080\r\n"),
        ("address-short", "Host: 10.96.1799:8080\r\n"),
        ("address-octal", "Host: 012.0140.07.07:8080\r\n"),
        ("address-zeros", "Host: 10.96.007.007:8080\r\n"),
        ("address-of-five", "Host: 10.96.7.7.0:8080\r\n"),
        ("two-dots-last", "Host: NAME..:8080\r\n"),
        ("dot-only", "Host: .\r\n"),
    ];
    for (name, hosts) in WRONG {
        let name_only = HOST.split(':').next().expect("a name");
        list.refused(&format!("host-{name}"), MALFORMED, named(&hosts.replace("HOST", HOST).replace("NAME", name_only)) + SMUGGLED);
    }
    for (name, host) in [
        ("other", "evil.example:8080"),
        ("declared-elsewhere", "help.example.com"),
        ("other-service", "ledger.shop.svc.cluster.local:8080"),
        ("other-namespace", "orders.support.svc.cluster.local:8080"),
        ("other-port", "orders.shop.svc.cluster.local:8081"),
        ("no-port", "orders.shop.svc.cluster.local"),
        ("port-80", "orders.shop.svc.cluster.local:80"),
        ("too-short", "orders:8080"),
        ("half-a-domain", "orders.shop.svc.cluster:8080"),
        ("other-address", "10.96.7.8:8080"),
        ("of-outside", PLAIN),
        ("other-domain", "orders.shop.svc.cluster.local.evil.example:8080"),
        ("shorter", "rders.shop.svc.cluster.local:8080"),
        ("longer", "xorders.shop.svc.cluster.local:8080"),
        ("loopback", "127.0.0.1:15474"),
        ("localhost", "localhost:8080"),
        ("metadata", "169.254.169.254:8080"),
        ("kubernetes", "kubernetes.default.svc:443"),
    ] {
        list.refused(&format!("host-{name}"), MISMATCH, named(&format!("Host: {host}\r\n")));
    }
    for (name, field) in
        [("lower-case", "host: HOST"), ("upper-case", "HOST: HOST"), ("no-space", "Host:HOST"), ("spaces", "Host: \t HOST \t")]
    {
        let text = field.replacen("HOST", "\u{1}", usize::from(name == "upper-case")).replace("HOST", HOST).replace('\u{1}', "HOST");
        list.passed(&format!("host-field-in-{name}"), format!("{line}\r\n{text}\r\n\r\n"), &head(line, ""));
    }
    list.passed("host-last", format!("{line}\r\nA: b\r\nHost: {HOST}\r\n\r\n"), &head(line, "a: b\r\n"));
    for (name, said, seen) in [
        ("short", "orders.shop:8080", "orders.shop:8080"),
        ("of-the-service", BASE, BASE),
        ("dot-last", "orders.shop.svc.cluster.local.:8080", HOST),
        ("zero-before-port", "orders.shop.svc.cluster.local:08080", HOST),
        ("address", "10.96.7.7:8080", "10.96.7.7:8080"),
        ("address-mapped", "[::ffff:10.96.7.7]:8080", "10.96.7.7:8080"),
    ] {
        list.passed(&format!("host-{name}"), named(&format!("Host: {said}\r\n")), &format!("{line}\r\nhost: {seen}\r\n\r\n"));
    }
    list.passed("host-in-upper-case", format!("{line}\r\nHost: {}\r\n\r\n", HOST.to_ascii_uppercase()), &head(line, ""));
}

fn lengths(list: &mut List) {
    let post = "POST / HTTP/1.1";
    const WRONG: &[(&str, &str)] = &[
        ("plus", "+5"),
        ("minus", "-5"),
        ("minus-0", "-0"),
        ("hex", "0x5"),
        ("hex-digits", "1f"),
        ("octal", "0o5"),
        ("fraction", "5.0"),
        ("exponent", "5e0"),
        ("list-of-equals", "5,5"),
        ("list-with-space", "5, 5"),
        ("list-of-different", "5, 6"),
        ("list-ends", "5,"),
        ("list-begins", ",5"),
        ("spaces-within", "5 5"),
        ("tab-within", "5\t5"),
        ("empty", ""),
        ("space", "  "),
        ("semicolon", "5;"),
        ("quotes", "\"5\""),
        ("apostrophes", "'5'"),
        ("brackets", "[5]"),
        ("word", "five"),
        ("none", "none"),
        ("underscore", "5_0"),
        ("unit", "5 bytes"),
        ("vt", "\x0b5"),
        ("ff", "5\x0c"),
        ("nul", "5\0"),
        ("nbsp", "\u{a0}5"),
        ("arabic", "\u{665}"),
        ("full-width", "\u{ff15}"),
        ("superscript", "\u{b2}"),
        ("twenty-digits", "00000000000000000005"),
        ("two-to-64", "18446744073709551616"),
        ("two-to-64-and-5", "18446744073709551621"),
        ("thirty-digits", "100000000000000000000000000005"),
        ("colon", ":5"),
        ("equals", "=5"),
        ("infinite", "Infinity"),
    ];
    for (name, value) in WRONG {
        list.refused(&format!("length-{name}"), MALFORMED, request(post, &format!("Content-Length: {value}\r\n")) + "hello" + SMUGGLED);
    }
    for (name, fields) in [
        ("twice", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("twice-other-case", "Content-Length: 5\r\ncontent-length: 5\r\n"),
        ("two", "Content-Length: 5\r\nContent-Length: 72\r\n"),
        ("two-larger-first", "Content-Length: 72\r\nContent-Length: 5\r\n"),
        ("two-apart", "Content-Length: 5\r\nA: b\r\nContent-Length: 72\r\n"),
        ("two-one-empty", "Content-Length: 5\r\nContent-Length:\r\n"),
        ("two-one-zero", "Content-Length: 0\r\nContent-Length: 5\r\n"),
        ("two-one-written-differently", "Content-Length: 5\r\nContent-Length: 05\r\n"),
        ("three", "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 5\r\n"),
    ] {
        list.refused(&format!("length-{name}"), MALFORMED, request(post, fields) + "hello" + SMUGGLED);
    }
    let body = |bytes: &str| Body::Length(bytes.as_bytes().to_vec());
    for (name, fields, said) in [
        ("zero", "Content-Length: 0\r\n", ""),
        ("zeros", "Content-Length: 000\r\n", ""),
        ("leading-zeros", "Content-Length: 0000000000000000005\r\n", "hello"),
        ("not-octal", "Content-Length: 010\r\n", "helloworld"),
        ("spaces-around", "Content-Length:  5 \t\r\n", "hello"),
        ("no-space", "CONTENT-LENGTH:5\r\n", "hello"),
        ("of-a-request", "Content-Length: 72\r\n", SMUGGLED),
    ] {
        let said = if said == SMUGGLED { &format!("{SMUGGLED:<72}")[..72] } else { said };
        list.add(&format!("length-{name}"), Door::Open, request(post, fields) + said, End::Open, vec![passed(&head(post, ""), body(said))]);
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let line = format!("{method} / HTTP/1.1");
        let name = format!("length-of-{}", method.to_ascii_lowercase());
        let bytes = request(&line, "Content-Length: 72\r\n") + &format!("{SMUGGLED:<72}")[..72];
        list.add(&name, Door::Open, bytes, End::Open, vec![passed(&head(&line, CLOSE), body(&format!("{SMUGGLED:<72}")[..72]))]);
    }
}

fn codings(list: &mut List) {
    let post = "POST / HTTP/1.1";
    const WRONG: &[(&str, &str)] = &[
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("gzip-chunked", "gzip, chunked"),
        ("chunked-gzip", "chunked, gzip"),
        ("chunked-identity", "chunked, identity"),
        ("identity-chunked", "identity, chunked"),
        ("twice-in-a-list", "chunked, chunked"),
        ("list-ends", "chunked,"),
        ("list-begins", ",chunked"),
        ("list-without-space", "x,chunked"),
        ("parameter", "chunked;q=1"),
        ("parameter-empty", "chunked;"),
        ("quotes", "\"chunked\""),
        ("apostrophes", "'chunked'"),
        ("garbage-after", "chunkedx"),
        ("garbage-before", "xchunked"),
        ("dash", "x-chunked"),
        ("short", "chunk"),
        ("two-words", "chunked chunked"),
        ("word-before", "x chunked"),
        ("vt-before", "\x0bchunked"),
        ("vt-after", "chunked\x0b"),
        ("ff-before", "\x0cchunked"),
        ("nul-after", "chunked\0"),
        ("cr-before", "\rchunked"),
        ("nbsp-before", "\u{a0}chunked"),
        ("not-ascii", "\u{ff43}hunked"),
        ("tab-within", "chun\tked"),
        ("empty", ""),
        ("space", " "),
        ("colon", ": chunked"),
        ("brackets", "[chunked]"),
        ("trailers", "trailers"),
        ("q", "chunked q=0"),
        ("line-in-a-value", "x\\r\\nTransfer-Encoding: chunked"),
    ];
    for (name, value) in WRONG {
        list.refused(
            &format!("coding-{name}"),
            MALFORMED,
            request(post, &format!("Transfer-Encoding: {value}\r\n")) + "0\r\n\r\n" + SMUGGLED,
        );
        // Whoever does not understand the coding goes by the length, whoever does by the chunks.
        let both = format!("Content-Length: 5\r\nTransfer-Encoding: {value}\r\n");
        list.refused(&format!("coding-{name}-and-length"), MALFORMED, request(post, &both) + "0\r\n\r\n" + SMUGGLED);
    }
    for (name, fields) in [
        ("and-length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("after-length", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("and-length-zero", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        ("and-length-empty", "Transfer-Encoding: chunked\r\nContent-Length:\r\n"),
        ("twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("twice-other-case", "Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("two", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ("two-other-first", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        ("two-one-empty", "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"),
        ("two-apart", "Transfer-Encoding: chunked\r\nA: b\r\nTransfer-Encoding: x\r\n"),
    ] {
        list.refused(&format!("coding-{name}"), MALFORMED, request(post, fields) + "0\r\n\r\n" + SMUGGLED);
    }
    for (name, field) in [
        ("upper-case", "Transfer-Encoding: CHUNKED"),
        ("mixed-case", "Transfer-Encoding: Chunked"),
        ("exact", "Transfer-Encoding: chunked"),
        ("field-upper-case", "TRANSFER-ENCODING: chunked"),
        ("spaces", "Transfer-Encoding: \t chunked \t"),
    ] {
        let bytes = request(post, &format!("{field}\r\n")) + "5\r\nhello\r\n0\r\n\r\n";
        list.add(&format!("coding-{name}"), Door::Open, bytes, End::Open, vec![passed(&head(post, ""), Body::Chunked(b"hello".to_vec()))]);
    }
    for method in ["GET", "HEAD", "DELETE"] {
        let line = format!("{method} / HTTP/1.1");
        let bytes = request(&line, "Transfer-Encoding: chunked\r\n") + "43\r\n" + SMUGGLED + "\r\n0\r\n\r\n";
        let bytes = bytes.replace("43\r\n", &format!("{:x}\r\n", SMUGGLED.len()));
        let name = format!("coding-of-{}", method.to_ascii_lowercase());
        list.add(&name, Door::Open, bytes, End::Open, vec![passed(&head(&line, CLOSE), Body::Chunked(SMUGGLED.into()))]);
    }
}

fn chunks(list: &mut List) {
    let post = "POST / HTTP/1.1";
    let chunked = |body: &str| request(post, "Transfer-Encoding: chunked\r\n") + body;
    const WRONG: &[(&str, &str)] = &[
        ("hex-prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("hex-prefix-upper", "0X5\r\nhello\r\n0\r\n\r\n"),
        ("plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("minus-0", "-0\r\n\r\n"),
        ("underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("underscore-last", "5_\r\nhello\r\n0\r\n\r\n"),
        ("letters", "g\r\nhello\r\n0\r\n\r\n"),
        ("h", "5h\r\nhello\r\n0\r\n\r\n"),
        ("dot", "5.0\r\nhello\r\n0\r\n\r\n"),
        ("comma", "5,5\r\nhello\r\n0\r\n\r\n"),
        ("empty", "\r\nhello\r\n0\r\n\r\n"),
        ("space-only", " \r\nhello\r\n0\r\n\r\n"),
        ("space-before", " 5\r\nhello\r\n0\r\n\r\n"),
        ("space-after", "5 \r\nhello\r\n0\r\n\r\n"),
        ("tab-after", "5\t\r\nhello\r\n0\r\n\r\n"),
        ("vt-after", "5\x0b\r\nhello\r\n0\r\n\r\n"),
        ("nul-after", "5\0\r\nhello\r\n0\r\n\r\n"),
        ("not-ascii", "\u{ff15}\r\nhello\r\n0\r\n\r\n"),
        ("17-digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("17-digits-last", "5\r\nhello\r\n00000000000000000\r\n\r\n"),
        ("wraps-at-64", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("wraps-at-64-to-0", "10000000000000000\r\n\r\n"),
        (
            "hundred-digits",
            "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        ("extension", "5;a=b\r\nhello\r\n0\r\n\r\n"),
        ("extension-name", "5;a\r\nhello\r\n0\r\n\r\n"),
        ("extension-empty", "5;\r\nhello\r\n0\r\n\r\n"),
        ("extension-space", "5 ;a\r\nhello\r\n0\r\n\r\n"),
        ("extension-quoted", "5;a=\"b\r\n\"\r\nhello\r\n0\r\n\r\n"),
        ("extension-with-lf", "5;\n\r\nhello\r\n0\r\n\r\n"),
        ("extension-with-cr", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("extension-of-the-last", "5\r\nhello\r\n0;a=b\r\n\r\n"),
        ("extension-without-name", "5;=b\r\nhello\r\n0\r\n\r\n"),
        ("lf-after-size", "5\nhello\r\n0\r\n\r\n"),
        ("cr-after-size", "5\rhello\r\n0\r\n\r\n"),
        ("cr-cr-lf-after-size", "5\r\r\nhello\r\n0\r\n\r\n"),
        ("lf-cr-after-size", "5\n\rhello\r\n0\r\n\r\n"),
        ("cr-x-after-size", "5\rxhello\r\n0\r\n\r\n"),
        ("lf-after-data", "5\r\nhello\n0\r\n\r\n"),
        ("cr-after-data", "5\r\nhello\r0\r\n\r\n"),
        ("nothing-after-data", "5\r\nhello0\r\n\r\n"),
        ("xx-after-data", "5\r\nhelloxx0\r\n\r\n"),
        ("cr-x-after-data", "5\r\nhello\rx0\r\n\r\n"),
        ("x-lf-after-data", "5\r\nhellox\n0\r\n\r\n"),
        ("data-longer", "4\r\nhello\r\n0\r\n\r\n"),
        ("data-much-longer", "5\r\nhello, world\r\n0\r\n\r\n"),
        ("crlf-more", "5\r\nhello\r\n\r\n0\r\n\r\n"),
        ("lf-after-last-size", "5\r\nhello\r\n0\n\r\n"),
        ("cr-after-last-size", "5\r\nhello\r\n0\r\r\n"),
        ("lf-at-the-end", "5\r\nhello\r\n0\r\n\n"),
        ("cr-lf-lf-at-the-end", "5\r\nhello\r\n0\r\n\r\r\n"),
        ("x-at-the-end", "5\r\nhello\r\n0\r\nx\r\n\r\n"),
        ("lf-everywhere", "5\nhello\n0\n\n"),
        ("no-size-but-a-request", "GET /smuggled HTTP/1.1\r\n\r\n"),
        ("percent", "%35\r\nhello\r\n0\r\n\r\n"),
        ("quotes", "\"5\"\r\nhello\r\n0\r\n\r\n"),
    ];
    for (name, body) in WRONG {
        list.add(&format!("chunk-{name}"), Door::Open, chunked(body) + SMUGGLED, End::Open, vec![Step::Broken]);
    }
    const TRAILERS: &[(&str, &str)] = &[
        ("without-colon", "A\r\n"),
        ("without-name", ": b\r\n"),
        ("space-before-colon", "A : b\r\n"),
        ("fold", "A: b\r\n c\r\n"),
        ("space-first", " A: b\r\n"),
        ("lf", "A: b\n"),
        ("cr", "A: b\rC: d\r\n"),
        ("nul", "A: b\0\r\n"),
        ("control", "A: b\x07\r\n"),
        ("name-not-ascii", "\u{e4}: b\r\n"),
        ("a-request", "GET /smuggled HTTP/1.1\r\n"),
        ("of-length", "Content-Length: 67\r\n"),
        ("of-coding", "Transfer-Encoding: chunked\r\n"),
        ("of-host", "Host: evil.example\r\n"),
    ];
    for (name, trailer) in TRAILERS {
        list.add(&format!("trailer-{name}"), Door::Open, chunked(&format!("0\r\n{trailer}\r\n{SMUGGLED}")), End::Open, vec![Step::Broken]);
    }
    let many = "A: b\r\n".repeat(200);
    list.add("trailer-of-200-fields", Door::Open, chunked(&format!("0\r\n{many}\r\n")), End::Open, vec![Step::Broken]);
    list.add("trailer-of-70-kib", Door::Open, chunked(&format!("0\r\nA: {}\r\n\r\n", "b".repeat(70_000))), End::Open, vec![Step::Broken]);
    for (name, trailer) in [
        ("dropped", "A: b\r\n"),
        ("of-connection", "Connection: close\r\n"),
        ("of-override", "X-HTTP-Method-Override: DELETE\r\n"),
        ("of-authorization", "Authorization: Bearer x\r\n"),
    ] {
        let step = passed(&head(post, ""), Body::Chunked(b"hello".to_vec()));
        list.add(&format!("trailer-{name}"), Door::Open, chunked(&format!("5\r\nhello\r\n0\r\n{trailer}\r\n")), End::Open, vec![step]);
    }
    let smuggled = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    for (name, body, seen) in [
        ("empty-body", "0\r\n\r\n", ""),
        ("upper-case", "A\r\nhelloworld\r\n0\r\n\r\n", "helloworld"),
        ("lower-case", "a\r\nhelloworld\r\n0\r\n\r\n", "helloworld"),
        ("zeros-before", "0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("zeros-last", "5\r\nhello\r\n0000\r\n\r\n", "hello"),
        ("in-ones", "1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", "hi"),
        ("of-line-ends", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
        ("of-an-end", "5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
        ("of-a-request", smuggled.as_str(), SMUGGLED),
    ] {
        let step = passed(&head(post, ""), Body::Chunked(seen.into()));
        list.add(&format!("chunks-{name}"), Door::Open, chunked(body), End::Open, vec![step]);
    }
}

fn pipelines(list: &mut List) {
    let [get, post] = ["GET / HTTP/1.1", "POST / HTTP/1.1"];
    let first = || passed(&head(get, ""), Body::None);
    let second = || passed(&head("GET /smuggled HTTP/1.1", ""), Body::None);
    let posted = |body: Body| passed(&head(post, ""), body);
    let mut add = |name: &str, bytes: String, steps: Vec<Step>| list.add(&format!("pipeline-{name}"), Door::Open, bytes, End::Open, steps);
    add("of-two", request(get, "") + SMUGGLED, vec![first(), second()]);
    add("of-ten", SMUGGLED.repeat(10), (0..10).map(|_| second()).collect());
    add(
        "after-a-length",
        request(post, "Content-Length: 5\r\n") + "hello" + SMUGGLED,
        vec![posted(Body::Length(b"hello".into())), second()],
    );
    add("after-length-0", request(post, "Content-Length: 0\r\n") + SMUGGLED, vec![posted(Body::Length(Vec::new())), second()]);
    add("after-no-length", request(post, "") + SMUGGLED, vec![posted(Body::None), second()]);
    add(
        "after-chunks",
        request(post, "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
        vec![posted(Body::Chunked(b"hello".into())), second()],
    );
    add(
        "shorter-length",
        request(post, "Content-Length: 4\r\n") + "hello" + SMUGGLED,
        vec![
            posted(Body::Length(b"hell".into())),
            // What is left is a method of its own.
            passed(&head("oGET /smuggled HTTP/1.1", ""), Body::None),
        ],
    );
    add(
        "longer-length",
        request(post, "Content-Length: 6\r\n") + "hello" + SMUGGLED,
        vec![posted(Body::Length(b"helloG".into())), passed(&head("ET /smuggled HTTP/1.1", ""), Body::None)],
    );
    for (name, more) in [
        ("crlf", "\r\n"),
        ("lf", "\n"),
        ("nul", "\0"),
        ("garbage", "xyz\r\n\r\n"),
        ("an-end-of-chunks", "0\r\n\r\n"),
        ("version-1-0", "GET /smuggled HTTP/1.0\r\n\r\n"),
        ("lf-only", "GET /smuggled HTTP/1.1\nHost: x\n\n"),
        ("no-host", "GET /smuggled HTTP/1.1\r\n\r\n"),
    ] {
        add(&format!("then-{name}"), request(get, "") + more + SMUGGLED, vec![first(), refused(MALFORMED)]);
        let bytes = request(post, "Content-Length: 5\r\n") + "hello" + more + SMUGGLED;
        add(&format!("after-a-length-then-{name}"), bytes, vec![posted(Body::Length(b"hello".into())), refused(MALFORMED)]);
        let bytes = request(post, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n" + more + SMUGGLED;
        add(&format!("after-chunks-then-{name}"), bytes, vec![posted(Body::Chunked(Vec::new())), refused(MALFORMED)]);
    }
    add("then-other-host", request(get, "") + "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n" + SMUGGLED, vec![first(), refused(MISMATCH)]);
    add(
        "then-both",
        request(get, "") + &request(post, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + SMUGGLED,
        vec![first(), refused(MALFORMED)],
    );
    add("closed-by-the-first", request(get, "Connection: close\r\n") + SMUGGLED, vec![first()]);
    add("h2-preface", request(get, "") + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", vec![first(), refused(MALFORMED)]);
}

fn hop_by_hop(list: &mut List) {
    let [get, post] = ["GET / HTTP/1.1", "POST / HTTP/1.1"];
    for (name, fields, seen) in [
        ("connection-keep-alive", "Connection: keep-alive\r\n", ""),
        ("connection-twice", "Connection: keep-alive\r\nConnection: keep-alive\r\n", ""),
        ("connection-empty", "Connection:\r\n", ""),
        ("connection-names", "Connection: a\r\nA: b\r\nC: d\r\n", "c: d\r\n"),
        ("connection-names-before", "A: b\r\nConnection: A\r\nC: d\r\n", "c: d\r\n"),
        ("connection-names-many", "Connection: a, C ,,e\r\nA: b\r\nC: d\r\nE: f\r\n", ""),
        ("connection-names-what-is-not", "Connection: x\r\nA: b\r\n", "a: b\r\n"),
        ("keep-alive", "Keep-Alive: timeout=5\r\n", ""),
        ("proxy-connection", "Proxy-Connection: keep-alive\r\n", ""),
        ("proxy-authorization", "Proxy-Authorization: Basic YTpi\r\n", ""),
        ("te", "TE: trailers\r\nConnection: TE\r\n", ""),
        ("te-chunked", "TE: chunked\r\n", ""),
        ("trailer", "Trailer: A\r\n", ""),
    ] {
        list.passed(&format!("hop-{name}"), request(get, fields), &head(get, seen));
    }
    for (name, nominated) in [
        ("length", "content-length"),
        ("length-upper", "CONTENT-LENGTH"),
        ("length-after", "keep-alive, Content-Length"),
        ("host", "host"),
        ("coding", "transfer-encoding"),
        ("connection", "connection"),
    ] {
        // The fields that say what is meant are no field of this hop, whatever a client calls them.
        let bytes = request(post, &format!("Connection: {nominated}\r\nContent-Length: 5\r\n")) + "hello" + SMUGGLED;
        list.refused(&format!("hop-nominates-{name}"), MALFORMED, bytes);
    }
    for (name, value) in [("space", "a b"), ("separator", "a;b"), ("quotes", "\"close\""), ("slash", "close/1"), ("not-ascii", "\u{e4}")] {
        // It is no name of a field, so it names none.
        list.passed(
            &format!("hop-connection-with-{name}"),
            request(get, &format!("Connection: {value}\r\nA: b\r\n")),
            &head(get, "a: b\r\n"),
        );
    }
    for (name, fields) in [
        ("http-2", "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n"),
        ("tls", "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n"),
        ("list", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
        ("list-h2c-first", "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n"),
        (
            "websocket",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        ),
        ("other", "Connection: Upgrade\r\nUpgrade: x\r\n"),
    ] {
        list.refused(&format!("upgrade-{name}"), UPGRADE, request(get, fields));
    }
    // A wish for HTTP/2 may be passed over, and one that `Connection` does not name is none.
    for (name, fields) in [
        ("h2c", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("h2c-upper", "Connection: upgrade, http2-settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("h2c-without-settings", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        ("h2", "Connection: Upgrade\r\nUpgrade: h2\r\n"),
        ("settings-only", "HTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("not-named", "Upgrade: websocket\r\n"),
        ("not-named-but-another", "Connection: keep-alive\r\nUpgrade: x\r\n"),
        ("named-only", "Connection: Upgrade\r\n"),
    ] {
        list.passed(&format!("upgrade-passed-over-{name}"), request(get, fields), &head(get, ""));
    }
    list.refused("upgrade-two", MALFORMED, request(get, "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"));
    list.refused("upgrade-two-equal", MALFORMED, request(get, "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: h2c\r\n"));
    let bytes = request(post, "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n") + "hello";
    let step = passed(&head(post, ""), Body::Length(b"hello".into()));
    list.add("upgrade-passed-over-with-a-body", Door::Open, bytes, End::Open, vec![step]);
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n";
    list.refused("upgrade-with-a-body", UPGRADE, request(post, fields) + "hello");
    list.refused("upgrade-of-get-with-a-body", MALFORMED, request(get, fields) + "hello");
    let names = "a,".repeat(20_000);
    list.refused("connection-names-very-many", TOO_LARGE, request(get, &format!("Connection: {names}\r\n")));
    for (name, value) in [("other", "x"), ("list", "100-continue, x"), ("parameter", "100-continue;a=b"), ("empty", ""), ("200", "200-ok")]
    {
        let bytes = request(post, &format!("Expect: {value}\r\nContent-Length: 5\r\n")) + "hello";
        list.refused(&format!("expect-{name}"), MALFORMED, bytes);
    }
    for (name, value) in [("continue", "100-continue"), ("continue-upper", "100-CONTINUE")] {
        let bytes = request(post, &format!("Expect: {value}\r\nContent-Length: 5\r\n")) + "hello";
        // Both ends know it.
        let step = passed(&head(post, &format!("expect: {value}\r\n")), Body::Length(b"hello".into()));
        list.add(&format!("expect-{name}"), Door::Open, bytes, End::Open, vec![step]);
    }
}

fn targets(list: &mut List) {
    for (name, line) in [
        ("asterisk-of-get", "GET * HTTP/1.1"),
        ("asterisk-twice", "OPTIONS ** HTTP/1.1"),
        ("asterisk-with-path", "OPTIONS */ HTTP/1.1"),
        ("authority", "GET HOST HTTP/1.1"),
        ("absolute", "GET http://HOST/ HTTP/1.1"),
        ("absolute-of-another", "GET http://evil.example/ HTTP/1.1"),
        ("absolute-https", "GET https://HOST/ HTTP/1.1"),
        ("absolute-userinfo", "GET http://a@HOST/ HTTP/1.1"),
        ("absolute-without-host", "GET http:/// HTTP/1.1"),
        ("absolute-upper-case", "GET HTTP://HOST/ HTTP/1.1"),
        ("absolute-one-slash", "GET http:/HOST/ HTTP/1.1"),
        ("absolute-no-slash", "GET http:HOST HTTP/1.1"),
        ("absolute-other-scheme", "GET file:///etc/passwd HTTP/1.1"),
        ("absolute-gopher", "GET gopher://HOST/ HTTP/1.1"),
        ("absolute-javascript", "GET javascript:x HTTP/1.1"),
        ("relative", "GET a HTTP/1.1"),
        ("relative-dots", "GET ../a HTTP/1.1"),
        ("query-only", "GET ?a HTTP/1.1"),
        ("fragment-only", "GET #a HTTP/1.1"),
        ("backslash-first", "GET \\a HTTP/1.1"),
        ("fragment", "GET /a#b HTTP/1.1"),
        ("fragment-after-query", "GET /?a#b HTTP/1.1"),
        ("fragment-empty", "GET /# HTTP/1.1"),
        ("two-slashes", "GET // HTTP/1.1"),
        ("two-slashes-host", "GET //evil.example/ HTTP/1.1"),
        ("three-slashes", "GET ///a HTTP/1.1"),
        ("slash-backslash", "GET /\\evil.example/ HTTP/1.1"),
        ("two-slashes-encoded", "GET /%2Fevil.example/../ HTTP/1.1"),
        ("non-ascii", "GET /\u{e4} HTTP/1.1"),
        ("non-ascii-query", "GET /?\u{e4} HTTP/1.1"),
        ("full-width-dots", "GET /\u{ff0e}\u{ff0e}/a HTTP/1.1"),
        ("full-width-slash", "GET /a\u{ff0f}b HTTP/1.1"),
        ("division-slash", "GET /a\u{2215}b HTTP/1.1"),
        ("two-dot-leader", "GET /\u{2025}/a HTTP/1.1"),
    ] {
        list.refused(&format!("target-{name}"), BAD, request(&line.replace("HOST", HOST), ""));
    }
    // Nobody is a proxy here.
    for (name, line) in [
        ("connect", "CONNECT HOST HTTP/1.1"),
        ("connect-other", "CONNECT evil.example:443 HTTP/1.1"),
        ("connect-path", "CONNECT / HTTP/1.1"),
        ("connect-absolute", "CONNECT http://HOST/ HTTP/1.1"),
        ("connect-without-port", "CONNECT evil.example HTTP/1.1"),
    ] {
        list.refused(&format!("target-{name}"), (0, ""), request(&line.replace("HOST", HOST), ""));
    }
    // It has no path that could be declared.
    list.refused("target-asterisk", BAD, request("OPTIONS * HTTP/1.1", ""));
    list.passed("target-asterisk-in-path", request("GET /* HTTP/1.1", ""), &head("GET /* HTTP/1.1", ""));
}

fn paths(list: &mut List) {
    const AMBIGUOUS_PATHS: &[(&str, &str)] = &[
        ("dot", "/."),
        ("dots", "/.."),
        ("dot-slash", "/./a"),
        ("dots-slash", "/../a"),
        ("dots-within", "/a/../b"),
        ("dot-within", "/a/./b"),
        ("dots-last", "/a/.."),
        ("dot-last", "/a/."),
        ("dots-many", "/a/../../../../etc/passwd"),
        ("dots-encoded", "/%2e%2e/a"),
        ("dots-encoded-upper", "/%2E%2E/a"),
        ("dots-half-encoded", "/.%2e/a"),
        ("dots-other-half-encoded", "/%2e./a"),
        ("dot-encoded", "/%2e/a"),
        ("dot-encoded-last", "/a/%2e"),
        ("dots-encoded-slash", "/a/..%2fb"),
        ("dots-encoded-slash-upper", "/a/..%2Fb"),
        ("all-encoded", "/a%2f%2e%2e%2fb"),
        ("dots-parameter", "/a/..;/b"),
        ("dots-parameter-named", "/a/..;x=1/b"),
        ("dot-parameter", "/a/.;/b"),
        ("dots-encoded-parameter", "/a/%2e%2e;/b"),
        ("dots-parameter-encoded", "/a/..%3b/b"),
        ("dots-parameter-encoded-upper", "/a/..%3Bx/b"),
        ("dots-backslash", "/a/..\\b"),
        ("backslash", "/a\\b"),
        ("backslash-encoded", "/a%5cb"),
        ("backslash-encoded-upper", "/a%5Cb"),
        ("backslash-dots-encoded", "/a/..%5c..%5cb"),
        ("nul", "/a%00"),
        ("nul-within", "/a%00.png"),
        ("control", "/a%01"),
        ("lf", "/a%0ab"),
        ("cr-lf", "/a%0d%0ax:y"),
        ("tab", "/a%09b"),
        ("delete", "/a%7f"),
        ("escape-cut", "/a%"),
        ("escape-of-one", "/a%2"),
        ("escape-not-hex", "/a%zz"),
        ("escape-half-hex", "/a%2g"),
        ("escape-u", "/a%u002e%u002e/b"),
        ("escape-of-percent", "/a%%32e"),
        ("escape-space", "/a% 2e"),
        ("escape-sign", "/a%+2e"),
        ("overlong-dot", "/%c0%ae%c0%ae/a"),
        ("overlong-slash", "/a%c0%afb"),
        ("overlong-slash-of-three", "/a%e0%80%afb"),
        ("overlong-nul", "/a%c0%80"),
        ("surrogate", "/a%ed%a0%80"),
        ("too-large", "/a%f4%90%80%80"),
        ("utf-8-cut", "/a%e2%82"),
        ("utf-8-continuation", "/a%80"),
        ("latin-1", "/a%e4"),
        ("ff", "/a%ff"),
        ("slash-encoded", "/a%2fb"),
        ("slash-twice-encoded", "/a%252fb"),
        ("dots-twice-encoded", "/a/%252e%252e/b"),
        ("dots-half-twice-encoded", "/a/.%252e/b"),
        ("backslash-twice-encoded", "/a%255cb"),
        ("dots-parameter-twice-encoded", "/a/..%253bx/b"),
    ];
    // Where every path is declared, it does not matter how often these are read.
    const LAYERED: &[&str] = &[
        "backslash-encoded",
        "backslash-encoded-upper",
        "slash-encoded",
        "slash-twice-encoded",
        "dots-twice-encoded",
        "dots-half-twice-encoded",
        "backslash-twice-encoded",
        "dots-parameter-twice-encoded",
    ];
    for (name, path) in AMBIGUOUS_PATHS {
        // A raw space is no path at all.
        let why = if path.contains(' ') { MALFORMED } else { AMBIGUOUS };
        if !LAYERED.contains(name) {
            list.refused(&format!("path-{name}"), why, request(&format!("GET {path} HTTP/1.1"), ""));
        }
        let name = format!("path-{name}-below-a-rule");
        list.add(&name, Door::Ruled, ruled(&format!("GET /articles{path} HTTP/1.1"), ""), End::Open, vec![refused(why)]);
    }
    for (name, path, seen) in [
        ("plain", "/a", "/a"),
        ("query", "/a?b=c", "/a?b=c"),
        ("query-empty", "/a?", "/a?"),
        ("query-marks", "/a?b=/../c?d", "/a?b=/../c?d"),
        ("unreserved", "/%41%7a%30%2d%5f%7e", "/Az0-_~"),
        ("dot-in-a-word", "/a%2eb", "/a.b"),
        ("dot-first", "/.a", "/.a"),
        ("dot-first-encoded", "/%2ea", "/.a"),
        ("dots-first", "/..a", "/..a"),
        ("three-dots", "/...", "/..."),
        ("hex-in-upper-case", "/%c3%a4%3f", "/%C3%A4%3F"),
        ("twice-encoded", "/%252e%252e/a", "/%252e%252e/a"),
        ("twice-encoded-slash", "/a%252fb", "/a%252fb"),
        ("twice-encoded-nul", "/a%2500", "/a%2500"),
        ("thrice-encoded", "/%25252e", "/%25252e"),
        ("slash-encoded-without-rules", "/a%2fb", "/a%2Fb"),
        ("slashes-within", "/a//b", "/a//b"),
        ("slash-last", "/a/", "/a/"),
        ("case", "/A/b", "/A/b"),
        ("parameter", "/a;x=1/b", "/a;x=1/b"),
        ("parameter-encoded", "/a%3bx", "/a%3Bx"),
        ("space-encoded", "/a%20b", "/a%20b"),
        ("plus", "/a+b", "/a+b"),
        ("reserved", "/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
        ("backslash-encoded-without-rules", "/a%5cb", "/a%5Cb"),
        ("what-no-url-holds", "/\"<>^`{|}", "/%22%3C%3E%5E%60%7B%7C%7D"),
        ("brackets", "/[a]", "/[a]"),
        ("query-escapes", "/?%2e%zz%", "/?%2e%zz%"),
        ("query-what-no-url-holds", "/?\"<>^`{|}\\", "/?\"<>^`{|}\\"),
        ("reserved-encoded", "/%21%24%26%3d%3a%40", "/%21%24%26%3D%3A%40"),
        ("question-encoded", "/a%3fb", "/a%3Fb"),
        ("number-encoded", "/a%23b", "/a%23b"),
        ("full-width-dots-encoded", "/%ef%bc%8e%ef%bc%8e/a", "/%EF%BC%8E%EF%BC%8E/a"),
        ("combining", "/%cc%81", "/%CC%81"),
        ("query-like-absolute", "/?http://evil.example/", "/?http://evil.example/"),
        ("colon-first-segment", "/http://evil.example/", "/http://evil.example/"),
    ] {
        let (line, seen) = (format!("GET {path} HTTP/1.1"), format!("GET {seen} HTTP/1.1"));
        list.passed(&format!("path-{name}"), request(&line, ""), &head(&seen, ""));
    }
}

fn rules(list: &mut List) {
    let get = |path: &str| ruled(&format!("GET {path} HTTP/1.1"), "");
    for (name, path) in [
        ("root", "/"),
        ("other", "/admin"),
        ("longer", "/articlesx"),
        ("shorter", "/article"),
        ("case", "/Articles"),
        ("case-encoded", "/%41rticles"),
        ("parameter", "/articles;x"),
        ("parameter-encoded", "/articles%3bx"),
        ("dot", "/articles."),
        ("space", "/articles%20"),
        ("dash", "/articles-admin"),
        ("question-encoded", "/articles%3f"),
        ("number-encoded", "/articles%23"),
        ("percent", "/articles%25"),
        ("nbsp", "/articles%c2%a0"),
        ("twice-encoded", "/%2561rticles"),
        ("full-width", "/%ef%bd%81rticles"),
        ("in-query", "/?/articles"),
        ("later", "/admin/articles"),
        ("two-slashes-within", "/x//articles"),
    ] {
        list.add(&format!("rule-{name}"), Door::Ruled, get(path), End::Open, vec![refused(PATH)]);
    }
    list.add("rule-exact-of-another-method", Door::Ruled, get("/search"), End::Open, vec![refused(METHOD)]);
    // Which of the two is missing, the path or the method, is a matter of words.
    for (name, path) in [
        ("slash", "/search/"),
        ("below", "/search/x"),
        ("longer", "/searches"),
        ("parameter", "/search;x"),
        ("of-get", "/articles"),
        ("root", "/"),
    ] {
        let bytes = ruled(&format!("POST {path} HTTP/1.1"), "Content-Length: 0\r\n");
        list.add(&format!("rule-post-{name}"), Door::Ruled, bytes, End::Open, vec![Step::Refused { status: 403, reason: "" }]);
    }
    for (name, path, seen) in [
        ("exact", "/articles", "/articles"),
        ("slash", "/articles/", "/articles/"),
        ("below", "/articles/1", "/articles/1"),
        ("encoded", "/%61rticles", "/articles"),
        ("query", "/articles?x", "/articles?x"),
        ("below-parameter", "/articles/1;x", "/articles/1;x"),
    ] {
        for method in ["GET", "HEAD"] {
            let [line, seen] = [path, seen].map(|path| format!("{method} {path} HTTP/1.1"));
            let name = format!("rule-declared-{name}-{}", method.to_ascii_lowercase());
            list.add(&name, Door::Ruled, ruled(&line, ""), End::Open, vec![passed(&ruled_head(&seen, ""), Body::None)]);
        }
    }
    for (name, path) in
        [("slash-encoded", "/articles%2f1"), ("slash-encoded-upper", "/articles%2F..%2Fadmin"), ("slash-encoded-below", "/articles/a%2fb")]
    {
        list.add(&format!("rule-{name}"), Door::Ruled, get(path), End::Open, vec![refused(AMBIGUOUS)]);
    }
    for name in [
        "X_HTTP_Method_Override",
        "X-HTTP_Method",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "x-http-method-override",
        "X-METHOD-OVERRIDE",
    ] {
        for (value, what) in [("DELETE", "delete"), ("GET", "get"), ("", "nothing")] {
            let bytes = ruled("GET /articles HTTP/1.1", &format!("{name}: {value}\r\n"));
            let case = if name.bytes().any(|b| b == b'_') {
                "-underscores"
            } else if name.starts_with("X-H") || name == "X-Method-Override" {
                ""
            } else {
                "-other-case"
            };
            let name = format!("override-{}-{what}{case}", name.to_ascii_lowercase().replace('_', "-"));
            list.add(&name, Door::Ruled, bytes, End::Open, vec![refused(OVERRIDE)]);
        }
    }
    // CGI makes one sign of all that are no letters; and these name the path.
    for name in ["X.HTTP.Method.Override", "X~HTTP~Method", "X-Original-URL", "X-Rewrite-URL", "X_Original_URL"] {
        let bytes = ruled("GET /articles HTTP/1.1", &format!("{name}: /admin\r\n"));
        let case = name.to_ascii_lowercase().replace(['.', '~'], "-dotted-").replace('_', "-low-");
        list.add(&format!("override-by-{case}"), Door::Ruled, bytes, End::Open, vec![refused(OVERRIDE)]);
    }
    for (name, query) in [
        ("only", "_method=DELETE"),
        ("lower", "_method=delete"),
        ("of-the-same", "_method=GET"),
        ("empty", "_method="),
        ("bare", "_method"),
        ("second", "a=b&_method=PUT"),
        ("between", "a=b&_method=PUT&c=d"),
        ("twice", "_method=GET&_method=PUT"),
        ("encoded", "%5fmethod=PUT"),
        ("encoded-letters", "_%6dethod=PUT"),
        ("all-encoded", "%5F%6D%65%74%68%6F%64=PUT"),
        ("after-semicolon", "a=b;_method=PUT"),
        ("upper", "_METHOD=PUT"),
        ("array", "_method[]=PUT"),
        ("array-encoded", "_method%5B%5D=PUT"),
        ("space", "+_method=PUT"),
        ("space-encoded", "%20_method=PUT"),
        ("dot", ".method=PUT"),
        ("like-a-field", "X-HTTP-Method-Override=PUT"),
        ("nul", "_method%00=PUT"),
        ("nul-and-more", "_method%00a=PUT"),
        ("brackets", "[_method]=PUT"),
        ("bracket", "]_method=PUT"),
        ("other-name", "_HttpMethod=PUT"),
    ] {
        let bytes = get(&format!("/articles?{query}"));
        // Of these some frameworks make the same parameter, others do not: whatever is refused is refused for this.
        list.add(&format!("override-query-{name}"), Door::Ruled, bytes, End::Open, vec![refused(OVERRIDE)]);
    }
    for (name, query) in [
        ("value", "a=_method"),
        ("longer", "_methods=PUT"),
        ("prefix", "x_method=PUT"),
        ("path", "a/_method"),
        ("after-question", "?_method=PUT"),
    ] {
        let line = format!("GET /articles?{query} HTTP/1.1");
        list.add(
            &format!("no-override-query-{name}"),
            Door::Ruled,
            ruled(&line, ""),
            End::Open,
            vec![passed(&ruled_head(&line, ""), Body::None)],
        );
    }
    forms(list);
}

fn forms(list: &mut List) {
    let form = "application/x-www-form-urlencoded";
    let multipart = "multipart/form-data; boundary=x";
    let part = |name: &str| format!("--x\r\nContent-Disposition: form-data; {name}\r\n\r\nDELETE\r\n--x--\r\n");
    let typed = |kind: &str| format!("Content-Type: {kind}\r\n");
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x8b\xcf\x4d\x2d\xc9\xc8\x4f\xb1\x75\x71\xf5\x71\x0d\x71\x05\x00\x65\xfc\x26\xb0\x0e\x00\x00\x00";
    let mut cases: Vec<(String, String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, fields: String, body: &[u8]| cases.push((name.to_owned(), fields, body.to_vec()));
    for (name, body) in [
        ("only", "_method=DELETE"),
        ("second", "a=b&_method=DELETE"),
        ("encoded", "%5fmethod=DELETE"),
        ("upper", "_METHOD=DELETE"),
        ("semicolon", "a=b;_method=DELETE"),
        ("line", "a=b\r\n&_method=DELETE"),
        ("array", "_method[]=DELETE"),
        ("dot", ".method=DELETE"),
    ] {
        add(name, typed(form), body.as_bytes());
    }
    for (name, kind) in [
        ("with-charset", "application/x-www-form-urlencoded; charset=utf-8"),
        ("with-parameter", "application/x-www-form-urlencoded;a=b"),
        ("with-space", "application/x-www-form-urlencoded ; a=b"),
        ("in-upper-case", "Application/X-WWW-Form-URLEncoded"),
        ("in-a-list", "text/plain, application/x-www-form-urlencoded"),
    ] {
        add(&format!("type-{name}"), typed(kind), b"_method=DELETE");
    }
    // Of two types some take the first, others the last.
    add("type-second", typed("text/plain") + &typed(form), b"_method=DELETE");
    add("type-first", typed(form) + &typed("text/plain"), b"_method=DELETE");
    for (name, name_of) in [
        ("quotes", "name=\"_method\""),
        ("bare", "name=_method"),
        ("upper", "NAME=\"_METHOD\""),
        ("apostrophes", "name='_method'"),
        ("dot", "name=\".method\""),
        ("space", "name=\" _method\""),
        ("tab", "name=\t\"_method\""),
        ("array", "name=\"_method[]\""),
        ("extended", "name*=utf-8''%5fmethod"),
        ("backslash", "name=\"\\_method\""),
        ("second-name", "name=\"a\"; name=\"_method\""),
        ("nul", "name=\"_method\0\""),
        ("brackets", "name=\"[_method]\""),
        ("encoded-word", "name=\"=?utf-8?Q?=5Fmethod?=\""),
        ("no-name", "a=b\r\nContent-ID: _method"),
    ] {
        add(&format!("multipart-{name}"), typed(multipart), part(name_of).as_bytes());
    }
    add("multipart-mixed", typed("multipart/mixed; boundary=x"), part("name=\"_method\"").as_bytes());
    // What the guard cannot read, others can.
    add("gzip", typed(form) + "Content-Encoding: gzip\r\n", gzip);
    add("x-gzip", typed(form) + "Content-Encoding: x-gzip\r\n", gzip);
    add("coding-in-a-list", typed(form) + "Content-Encoding: identity, gzip\r\n", gzip);
    add("utf-16", typed("application/x-www-form-urlencoded; charset=utf-16be"), b"%00_%00m%00e%00t%00h%00o%00d=%00D%00E%00L%00E%00T%00E");
    add(
        "utf-16-quoted",
        typed("application/x-www-form-urlencoded; charset=\"UTF-16LE\""),
        b"_%00m%00e%00t%00h%00o%00d%00=D%00E%00L%00E%00T%00E%00",
    );
    add("ebcdic", typed("application/x-www-form-urlencoded; charset=ibm037"), b"%6D%94%85%A3%88%96%84=%C4%C5%D3%C5%E3%C5");
    add("utf-7", typed("application/x-www-form-urlencoded; charset=utf-7"), b"%2BAF8-method=DELETE");
    for (name, fields, body) in cases {
        let refused = |bytes| (Door::Ruled, bytes, End::Open, vec![Step::Refused { status: 0, reason: "" }]);
        let head = ruled("POST /search HTTP/1.1", &format!("{fields}Content-Length: {}\r\n", body.len()));
        let (door, bytes, end, steps) = refused([head.as_bytes(), &body].concat());
        list.add(&format!("override-form-{name}"), door, bytes, end, steps);
        let mut bytes = ruled("POST /search HTTP/1.1", &format!("{fields}Transfer-Encoding: chunked\r\n")).into_bytes();
        for byte in &body {
            bytes.extend_from_slice(&[b"1\r\n", [*byte].as_slice(), b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        let (door, bytes, end, steps) = refused(bytes);
        list.add(&format!("override-form-{name}-in-ones"), door, bytes, end, steps);
    }
    let post = "POST /search HTTP/1.1";
    let fields = format!("content-type: {form}\r\n");
    let bytes = ruled(post, &format!("Content-Type: {form}\r\nContent-Length: 9\r\n")) + "a=_method";
    list.add(
        "no-override-form-value",
        Door::Ruled,
        bytes,
        End::Open,
        vec![passed(&ruled_head(post, &fields), Body::Length(b"a=_method".into()))],
    );
    // Whoever has no type is taken for a form by some: it gets one that is none.
    for (name, fields) in [("missing", ""), ("empty", "Content-Type:\r\n")] {
        let bytes = ruled(post, &format!("{fields}Content-Length: 14\r\n")) + "_method=DELETE";
        let head = ruled_head(post, "content-type: application/octet-stream\r\n");
        let step = passed(&head, Body::Length(b"_method=DELETE".into()));
        list.add(&format!("no-form-type-{name}"), Door::Ruled, bytes, End::Open, vec![step]);
    }
}

fn floods(list: &mut List) {
    let get = "GET / HTTP/1.1";
    let many = |count: usize| (0..count).map(|n| format!("A{n}: b\r\n")).collect::<String>();
    // The Host is one of them.
    list.passed("flood-of-128-fields", request(get, &many(127)), &head(get, &many(127).to_lowercase()));
    list.refused("flood-of-129-fields", TOO_LARGE, request(get, &many(128)));
    list.refused("flood-of-10000-fields", TOO_LARGE, request(get, &many(10_000)));
    list.refused("flood-of-empty-fields", TOO_LARGE, request(get, &"A:\r\n".repeat(20_000)));
    let long = |length: usize| format!("A: {}\r\n", "b".repeat(length));
    list.passed("flood-of-60-kib-in-a-field", request(get, &long(60 * 1024)), &head(get, &long(60 * 1024).to_lowercase()));
    list.refused("flood-of-65-kib-in-a-field", TOO_LARGE, request(get, &long(65 * 1024)));
    list.refused("flood-of-1-mib-in-a-field", TOO_LARGE, request(get, &long(1024 * 1024)));
    list.refused("flood-of-65-kib-in-a-name", TOO_LARGE, request(get, &format!("{}: b\r\n", "A".repeat(65 * 1024))));
    list.refused("flood-of-65-kib-in-a-target", TOO_LARGE, request(&format!("GET /{} HTTP/1.1", "a".repeat(65 * 1024)), ""));
    list.refused("flood-without-line-ends", (0, ""), "A".repeat(200 * 1024));
    list.refused("flood-of-line-ends", MALFORMED, "\r\n".repeat(100 * 1024));
    let line = format!("GET /{} HTTP/1.1", "a".repeat(60 * 1024));
    list.passed("flood-of-60-kib-in-a-target", request(&line, ""), &head(&line, ""));
    let step = passed(&head("POST / HTTP/1.1", ""), Body::Chunked(vec![b'x'; 3_000]));
    let ones = "1\r\nx\r\n".repeat(3_000) + "0\r\n\r\n";
    list.add("flood-of-chunks", Door::Open, request("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n") + &ones, End::Open, vec![step]);
    let step = passed(&head("POST / HTTP/1.1", ""), Body::Length(vec![b'x'; 300_000]));
    list.add(
        "flood-of-a-body",
        Door::Open,
        request("POST / HTTP/1.1", "Content-Length: 300000\r\n") + &"x".repeat(300_000),
        End::Open,
        vec![step],
    );
}

/// Cut at every place where something is over, and in the midst of it.
fn cuts(list: &mut List) {
    let whole = [
        ("get", request("GET /cut HTTP/1.1", "A: b\r\n"), ""),
        ("length", request("POST /cut HTTP/1.1", "Content-Length: 5\r\n"), "hello"),
        ("chunks", request("POST /cut HTTP/1.1", "Transfer-Encoding: chunked\r\n"), "5\r\nhello\r\n0\r\nA: b\r\n\r\n"),
    ];
    for (name, head, body) in whole {
        let text = format!("{head}{body}");
        let border = |at: usize| {
            let [before, after] = [text.as_bytes()[at - 1], text.as_bytes()[at]];
            before.is_ascii_alphanumeric() != after.is_ascii_alphanumeric() || !before.is_ascii_alphanumeric() || at >= head.len()
        };
        for at in (1..text.len()).filter(|at| border(*at)) {
            for (end, how) in [(End::Shut, "shut"), (End::Silent, "silent")] {
                // Of the head each second place is enough for those who wait.
                if end == End::Silent && at < head.len() && at % 2 == 0 {
                    continue;
                }
                list.add(&format!("cut-{name}-at-{at}-{how}"), Door::Open, &text[..at], end, vec![Step::Cut]);
            }
        }
    }
    list.add("cut-nothing-shut", Door::Open, "", End::Shut, vec![Step::Cut]);
    list.add("cut-nothing-silent", Door::Open, "", End::Silent, vec![Step::Cut]);
    let large = request("POST /cut HTTP/1.1", "Content-Length: 9223372036854775808\r\n") + "hello";
    list.add("cut-large-length-shut", Door::Open, large.clone(), End::Shut, vec![Step::Cut]);
    list.add("cut-large-length-silent", Door::Open, large, End::Silent, vec![Step::Cut]);
    let large = request("POST /cut HTTP/1.1", "Content-Length: 9999999999999999999\r\n") + "hello";
    list.add("cut-largest-length-shut", Door::Open, large, End::Shut, vec![Step::Cut]);
    let large = request("POST /cut HTTP/1.1", "Transfer-Encoding: chunked\r\n") + "ffffffffffffffff\r\nhello";
    list.add("cut-largest-chunk-shut", Door::Open, large.clone(), End::Shut, vec![Step::Cut]);
    list.add("cut-largest-chunk-silent", Door::Open, large, End::Silent, vec![Step::Cut]);
}

fn loopback(list: &mut List) {
    let own = "127.0.0.1:15474";
    let said = |line: &str, host: &str| format!("{line}\r\nHost: {host}\r\n\r\n");
    let mut add = |name: &str, bytes: String, step: Step| list.add(&format!("base-{name}"), Door::Loopback, bytes, End::Open, vec![step]);
    for (name, line, seen) in [
        ("root", "GET /orders HTTP/1.1", "GET / HTTP/1.1"),
        ("slash", "GET /orders/ HTTP/1.1", "GET / HTTP/1.1"),
        ("path", "GET /orders/a/b?c HTTP/1.1", "GET /a/b?c HTTP/1.1"),
        ("query", "GET /orders?c HTTP/1.1", "GET /?c HTTP/1.1"),
        ("name-again", "GET /orders/orders HTTP/1.1", "GET /orders HTTP/1.1"),
        ("other-name-below", "GET /orders/ledger HTTP/1.1", "GET /ledger HTTP/1.1"),
    ] {
        add(name, said(line, own), passed(&format!("{seen}\r\nhost: {BASE}\r\n\r\n"), Body::None));
    }
    for (name, line) in [
        ("nothing", "GET / HTTP/1.1"),
        ("unknown", "GET /evil/ HTTP/1.1"),
        ("upper-case", "GET /ORDERS/ HTTP/1.1"),
        ("encoded", "GET /%6frders/a HTTP/1.1"),
        ("longer", "GET /ordersx/ HTTP/1.1"),
        ("shorter", "GET /order/ HTTP/1.1"),
        ("parameter", "GET /orders;x/ HTTP/1.1"),
        ("dot-after", "GET /orders./ HTTP/1.1"),
        ("twice-encoded", "GET /%256frders/ HTTP/1.1"),
        ("host", "GET /orders.shop.svc.cluster.local/ HTTP/1.1"),
    ] {
        add(name, said(line, own), refused(SOURCE));
    }
    for (name, line) in [
        ("dots", "GET /orders/../ledger/admin HTTP/1.1"),
        ("dots-encoded", "GET /orders/%2e%2e/ledger/admin HTTP/1.1"),
        ("dots-first", "GET /../orders/ HTTP/1.1"),
        ("dot-first", "GET /./orders/ HTTP/1.1"),
        ("dots-parameter", "GET /orders/..;/ledger HTTP/1.1"),
        ("backslash", "GET /orders\\..\\ledger HTTP/1.1"),
        ("two-slashes-first", "GET //orders/ HTTP/1.1"),
        ("two-slashes-after", "GET /orders//evil.example/ HTTP/1.1"),
        ("slash-encoded-name", "GET /orders%2fadmin HTTP/1.1"),
        ("nul-after", "GET /orders%00/ HTTP/1.1"),
        ("slash-encoded-first", "GET /%2forders/ HTTP/1.1"),
        ("fragment", "GET /orders#/ledger HTTP/1.1"),
        ("relative", "GET orders/ HTTP/1.1"),
    ] {
        // No source has such a name, or it has no such path.
        add(name, said(line, own), Step::Refused { status: 0, reason: "" });
    }
    for (name, line) in [
        ("other-path", "GET /ledger/admin HTTP/1.1"),
        ("other-prefix", "GET /ledger/articlesx HTTP/1.1"),
        ("of-root", "GET /ledger/ HTTP/1.1"),
    ] {
        add(name, said(line, own), refused(PATH));
    }
    add("method", said("PUT /ledger/articles HTTP/1.1", own), refused(METHOD));
    add(
        "declared",
        said("GET /ledger/articles/1 HTTP/1.1", own),
        passed(&format!("GET /articles/1 HTTP/1.1\r\nhost: {RULED_BASE}\r\n\r\n"), Body::None),
    );
    // The path says which data source is meant; who was misled by its DNS to come here says another host.
    for (name, host) in [
        ("evil", "evil.example"),
        ("evil-port", "evil.example:15474"),
        ("below-localhost", "evil.localhost"),
        ("other-address", "203.0.113.66:15474"),
        ("other-source", "help.example.com"),
        ("nothing", ""),
    ] {
        add(
            &format!("host-{name}"),
            said("GET /orders/ HTTP/1.1", host),
            if host.is_empty() { refused(MALFORMED) } else { refused(MISMATCH) },
        );
    }
    for (name, host) in [
        ("other-port", "127.0.0.1:80"),
        ("of-the-source", BASE),
        ("localhost", "localhost:15474"),
        ("upper-case", "LOCALHOST"),
        ("loopback", "127.9.9.9"),
        ("loopback6", "[::1]:15474"),
    ] {
        add(
            &format!("host-{name}"),
            said("GET /orders/ HTTP/1.1", host),
            passed(&format!("GET / HTTP/1.1\r\nhost: {BASE}\r\n\r\n"), Body::None),
        );
    }
    for (name, host) in
        [("attached", "127.0.0.1:15474.evil.example"), ("userinfo", "a@127.0.0.1:15474"), ("path", "127.0.0.1:15474/orders")]
    {
        add(&format!("host-{name}"), said("GET /orders/ HTTP/1.1", host), refused(MALFORMED));
    }
    add("host-two", format!("GET /orders/ HTTP/1.1\r\nHost: {own}\r\nHost: {HOST}\r\n\r\n"), refused(MALFORMED));

    let mut add = |name: &str, bytes: String, step: Step| list.add(&format!("proxy-{name}"), Door::Loopback, bytes, End::Open, vec![step]);
    let line = |target: &str| format!("GET {target} HTTP/1.1");
    for (name, target, seen) in [
        ("path", "http://PLAIN/a", "/a"),
        ("nothing", "http://PLAIN", "/"),
        ("query-only", "http://PLAIN?a", "/?a"),
        ("scheme-upper-case", "HTTP://PLAIN/a", "/a"),
        ("host-upper-case", "http://HELP.Example.com:8080/a", "/a"),
    ] {
        add(
            name,
            said(&line(&target.replace("PLAIN", PLAIN)), PLAIN),
            passed(&format!("{}\r\nhost: {PLAIN}\r\n\r\n", line(seen)), Body::None),
        );
    }
    for (name, target, host) in [
        ("userinfo", "http://a@PLAIN/", PLAIN),
        ("userinfo-password", "http://a:b@PLAIN/", PLAIN),
        ("as-userinfo", "http://PLAIN@evil.example/", PLAIN),
        ("backslash", "http://PLAIN\\@evil.example/", PLAIN),
        ("fragment", "http://PLAIN/#x", PLAIN),
        ("fragment-first", "http://PLAIN#@evil.example/", PLAIN),
        ("one-slash", "http:/PLAIN/", PLAIN),
        ("three-slashes", "http:///PLAIN/", PLAIN),
        ("four-slashes", "http:////PLAIN/", PLAIN),
        ("port-empty", "http://help.example.com:/", PLAIN),
        ("port-letters", "http://help.example.com:x/", PLAIN),
        ("port-too-large", "http://help.example.com:73616/", PLAIN),
        ("dots", "http://PLAIN/../a", PLAIN),
        ("host-encoded", "http://%68elp.example.com:8080/", PLAIN),
        ("host-not-ascii", "http://help\u{3002}example.com:8080/", PLAIN),
        ("space", "http://PLAIN /", PLAIN),
        ("other-scheme", "ftp://PLAIN/", PLAIN),
        ("websocket", "ws://PLAIN/", PLAIN),
        ("https", "https://PLAIN/", PLAIN),
    ] {
        add(name, said(&line(&target.replace("PLAIN", PLAIN)), host), Step::Refused { status: 400, reason: "" });
    }
    for (name, target, host) in [
        ("host-differs", "http://PLAIN/", "evil.example:8080"),
        ("host-differs-in-port", "http://PLAIN/", HOST),
        ("target-differs", "http://evil.example/", PLAIN),
        ("host-is-the-listener", "http://PLAIN/", own),
    ] {
        add(name, said(&line(&target.replace("PLAIN", PLAIN)), host), refused(MALFORMED));
    }
    for (name, target) in [
        ("other", "http://evil.example/"),
        ("metadata", "http://169.254.169.254/"),
        ("itself", "http://127.0.0.1:15474/orders/"),
        ("health", "http://127.0.0.1:15470/"),
    ] {
        let host = target.split('/').nth(2).expect("a host").to_owned();
        add(name, said(&line(target), &host), Step::Refused { status: 403, reason: "" });
    }
    let mut add = |name: &str, target: &str, host: &str, status: u16| {
        let bytes = said(&format!("CONNECT {target} HTTP/1.1"), host);
        list.add(&format!("connect-{name}"), Door::Loopback, bytes, End::Open, vec![Step::Refused { status, reason: "" }]);
    };
    add("plain-http", HOST, HOST, 403);
    add("other", "evil.example:443", "evil.example:443", 403);
    add("other-port", "help.example.com:80", "help.example.com:80", 403);
    add("metadata", "169.254.169.254:80", "169.254.169.254:80", 403);
    add("loopback", "127.0.0.1:15470", "127.0.0.1:15470", 403);
    add("host-differs", "help.example.com:443", "evil.example:443", 400);
    for (name, target) in [
        ("without-port", "help.example.com"),
        ("port-empty", "help.example.com:"),
        ("port-0", "help.example.com:0"),
        ("port-too-large", "help.example.com:65979"),
        ("path", "help.example.com:443/"),
        ("absolute", "https://help.example.com:443"),
        ("userinfo", "a@help.example.com:443"),
        ("origin", "/orders/"),
        ("asterisk", "*"),
        ("two-ports", "help.example.com:443:80"),
        ("not-ascii", "help\u{3002}example.com:443"),
    ] {
        add(name, target, "help.example.com:443", 400);
    }
}

/// Plain HTTP to an address outside: whoever the Host names is asked, if it is declared on this port, and nobody else.
fn outside(list: &mut List) {
    let mut add = |name: &str, bytes: String, step: Step| list.add(&format!("outside-{name}"), Door::Outside, bytes, End::Open, vec![step]);
    let line = "GET /a HTTP/1.1";
    for (name, host) in [("declared", PLAIN), ("upper-case", "HELP.EXAMPLE.COM:8080"), ("dot-last", "help.example.com.:8080")] {
        add(name, format!("{line}\r\nHost: {host}\r\n\r\n"), passed(&format!("{line}\r\nhost: {PLAIN}\r\n\r\n"), Body::None));
    }
    for (name, host) in [
        ("other", "evil.example:8080"),
        ("below", "a.help.example.com:8080"),
        ("above", "example.com:8080"),
        ("longer", "xhelp.example.com:8080"),
        ("attached", "help.example.com.evil.example:8080"),
        ("no-port", "help.example.com"),
        ("port-of-tls", "help.example.com:443"),
        ("service", "orders.shop.svc.cluster.local:8080"),
        ("address", "203.0.113.10:8080"),
        ("address-6", "[2001:db8:ffff::10]:8080"),
        ("loopback", "127.0.0.1:8080"),
    ] {
        // Not declared, or not this connection's.
        let step = Step::Refused { status: 0, reason: "" };
        add(name, format!("{line}\r\nHost: {host}\r\n\r\n"), step);
    }
    add("connect", format!("CONNECT {PLAIN} HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n"), refused((0, "")));
    for (name, bytes) in [
        ("two-hosts", format!("{line}\r\nHost: {PLAIN}\r\nHost: evil.example:8080\r\n\r\n")),
        ("absolute", format!("GET http://{PLAIN}/ HTTP/1.1\r\nHost: {PLAIN}\r\n\r\n")),
        ("no-host", format!("{line}\r\n\r\n")),
        ("lf", format!("{line}\nHost: {PLAIN}\n\n")),
        ("space-first", format!(" {line}\r\nHost: {PLAIN}\r\n\r\n")),
        ("empty-line-first", format!("\r\n{line}\r\nHost: {PLAIN}\r\n\r\n")),
    ] {
        add(name, bytes, refused(BAD));
    }
}
