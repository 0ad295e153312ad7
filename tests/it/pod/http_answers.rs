//! Answers that two parsers would read differently, and those that nobody asked for: the client sees them whole and as they were judged, or
//! sees that the upstream cannot be understood; and no answer is ever that to another request.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::http_wire::{self, Arrival, Client, DEADLINE, Next, PORTS, Upstream};
use super::{ORDERS, World};
use crate::http_cases::{HOST, RULED, SMUGGLED};

/// What the client must see.
enum Seen {
    /// 502 `upstream_malformed`, and the end of the upstream's connection.
    Malformed,
    /// A head that was well, then the end of both connections in the midst of the body.
    Broken,
    /// This status and this body. Whatever the upstream said beyond that is nobody's.
    Passed(u16, Vec<u8>),
}

struct Case {
    name: String,
    method: &'static str,
    answer: Vec<u8>,
    /// Whether the upstream closes then.
    ends: bool,
    seen: Seen,
}

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |name: &str, method: &'static str, answer: &[u8], ends: bool, seen: Seen| {
        all.push(Case { name: name.to_owned(), method, answer: answer.to_vec(), ends, seen });
    };
    let with = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");

    // The line.
    for (name, line) in [
        ("space-first", " HTTP/1.1 200 OK"),
        ("tab-after-version", "HTTP/1.1\t200 OK"),
        ("two-spaces", "HTTP/1.1  200 OK"),
        ("two-digits", "HTTP/1.1 20 OK"),
        ("four-digits", "HTTP/1.1 2000 OK"),
        ("no-digits", "HTTP/1.1 OK"),
        ("letters", "HTTP/1.1 2x0 OK"),
        ("plus", "HTTP/1.1 +20 OK"),
        ("minus", "HTTP/1.1 -20 OK"),
        ("hex", "HTTP/1.1 0x8 OK"),
        ("status-000", "HTTP/1.1 000 OK"),
        ("status-099", "HTTP/1.1 099 OK"),
        ("no-status", "HTTP/1.1"),
        ("no-status-but-space", "HTTP/1.1 "),
        ("version-0-9", "HTTP/0.9 200 OK"),
        ("version-1-2", "HTTP/1.2 200 OK"),
        ("version-2", "HTTP/2 200 OK"),
        ("version-2-0", "HTTP/2.0 200 OK"),
        ("lower-case", "http/1.1 200 OK"),
        ("icy", "ICY 200 OK"),
        ("dash", "HTTP-1.1 200 OK"),
        ("nul-in-reason", "HTTP/1.1 200 O\0K"),
        ("control-in-reason", "HTTP/1.1 200 O\x07K"),
        ("cr-in-reason", "HTTP/1.1 200 O\rK"),
        ("a-request", "GET / HTTP/1.1"),
        ("empty-line-first", "\r\nHTTP/1.1 200 OK"),
        ("text", "hello"),
    ] {
        let answer = format!("{line}\r\nContent-Length: 2\r\n\r\nok");
        add(&format!("line-{name}"), "GET", answer.as_bytes(), true, Seen::Malformed);
    }
    add("line-lf-everywhere", "GET", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", true, Seen::Malformed);
    add("line-lf-after-it", "GET", b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", true, Seen::Malformed);
    add("line-cr-everywhere", "GET", b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok", true, Seen::Malformed);
    add("line-body-only", "GET", b"<html>hello</html>", true, Seen::Malformed);
    add("line-tls-alert", "GET", b"\x15\x03\x03\x00\x02\x02\x28", true, Seen::Malformed);

    // Fields.
    for (name, field) in [
        ("space-before-colon", "A : b\r\n"),
        ("tab-before-colon", "A\t: b\r\n"),
        ("space-before-colon-of-coding", "Transfer-Encoding : chunked\r\n"),
        ("fold", "A: b\r\n c\r\n"),
        ("fold-tab", "A: b\r\n\tc\r\n"),
        ("fold-of-a-coding", "Transfer-Encoding:\r\n chunked\r\n"),
        ("fold-first", " A: b\r\n"),
        ("without-colon", "A\r\n"),
        ("without-name", ": b\r\n"),
        ("name-with-separator", "A(b): c\r\n"),
        ("name-not-ascii", "\u{e4}: b\r\n"),
        ("nul", "A: b\0c\r\n"),
        ("nul-in-name", "A\0: b\r\n"),
        ("control", "A: b\x07c\r\n"),
        ("cr", "A: b\rc\r\n"),
        ("lf", "A: b\nC: d\r\n"),
        ("lf-hides-a-coding", "A: b\nTransfer-Encoding: chunked\r\n"),
        ("delete", "A: b\x7f\r\n"),
    ] {
        add(&format!("field-{name}"), "GET", with(&format!("{field}Content-Length: 2\r\n"), "ok").as_bytes(), true, Seen::Malformed);
    }

    // How the body is framed.
    for (name, fields) in [
        ("length-and-coding", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
        ("coding-and-length", "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n"),
        ("two-lengths", "Content-Length: 2\r\nContent-Length: 3\r\n"),
        ("length-twice", "Content-Length: 2\r\nContent-Length: 2\r\n"),
        ("length-list", "Content-Length: 2, 2\r\n"),
        ("length-list-of-different", "Content-Length: 2, 3\r\n"),
        ("length-plus", "Content-Length: +2\r\n"),
        ("length-minus", "Content-Length: -2\r\n"),
        ("length-hex", "Content-Length: 0x2\r\n"),
        ("length-empty", "Content-Length:\r\n"),
        ("length-word", "Content-Length: two\r\n"),
        ("length-unit", "Content-Length: 2 bytes\r\n"),
        ("length-of-20-digits", "Content-Length: 00000000000000000002\r\n"),
        ("length-that-wraps", "Content-Length: 18446744073709551618\r\n"),
        ("coding-twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("coding-twice-in-a-list", "Transfer-Encoding: chunked, chunked\r\n"),
        ("coding-gzip", "Transfer-Encoding: gzip\r\n"),
        ("coding-gzip-chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        ("coding-chunked-identity", "Transfer-Encoding: chunked, identity\r\n"),
        ("coding-identity", "Transfer-Encoding: identity\r\n"),
        ("coding-vt", "Transfer-Encoding: \x0bchunked\r\n"),
        ("coding-empty", "Transfer-Encoding:\r\n"),
        ("coding-garbage", "Transfer-Encoding: xchunked\r\n"),
        ("coding-quotes", "Transfer-Encoding: \"chunked\"\r\n"),
    ] {
        let answer = with(fields, &format!("2\r\nok\r\n0\r\n\r\n{POISON}"));
        add(&format!("framing-{name}"), "GET", answer.as_bytes(), false, Seen::Malformed);
    }
    let chunked = |body: &str| with("Transfer-Encoding: chunked\r\n", body);
    for (name, body) in [
        ("hex-prefix", "0x2\r\nok\r\n0\r\n\r\n"),
        ("plus", "+2\r\nok\r\n0\r\n\r\n"),
        ("minus", "-2\r\nok\r\n0\r\n\r\n"),
        ("letters", "zz\r\nok\r\n0\r\n\r\n"),
        ("empty", "\r\nok\r\n0\r\n\r\n"),
        ("17-digits", "00000000000000002\r\nok\r\n0\r\n\r\n"),
        ("wraps", "10000000000000002\r\nok\r\n0\r\n\r\n"),
        ("lf-after-size", "2\nok\r\n0\r\n\r\n"),
        ("cr-after-size", "2\rok\r\n0\r\n\r\n"),
        ("lf-after-data", "2\r\nok\n0\r\n\r\n"),
        ("nothing-after-data", "2\r\nok0\r\n\r\n"),
        ("data-longer", "1\r\nok\r\n0\r\n\r\n"),
        ("lf-at-the-end", "2\r\nok\r\n0\r\n\n"),
        ("trailer-fold", "2\r\nok\r\n0\r\nA: b\r\n c\r\n\r\n"),
        ("trailer-without-colon", "2\r\nok\r\n0\r\nA\r\n\r\n"),
        ("trailer-nul", "2\r\nok\r\n0\r\nA: \0\r\n\r\n"),
        ("an-answer", POISON),
    ] {
        add(&format!("chunk-{name}"), "GET", chunked(body).as_bytes(), false, Seen::Broken);
    }
    for (name, answer) in [
        ("in-chunked-size", chunked("2")),
        ("in-chunked-data", chunked("5\r\nok")),
        ("after-chunked-data", chunked("2\r\nok\r\n")),
        ("after-last-size", chunked("2\r\nok\r\n0\r\n")),
        ("before-any-chunk", chunked("")),
        ("in-a-length", with("Content-Length: 5\r\n", "ok")),
        ("before-a-length", with("Content-Length: 5\r\n", "")),
    ] {
        add(&format!("ended-{name}"), "GET", answer.as_bytes(), true, Seen::Broken);
    }
    let whole = with("Content-Length: 2\r\nA: b\r\n", "ok");
    for at in [1, 5, 8, 9, 12, 15, 16, 17, 20, 32, 34, 35, 36, 42, 43] {
        add(&format!("ended-at-{at}"), "GET", &whole.as_bytes()[..at], true, Seen::Malformed);
    }
    add("ended-at-once", "GET", b"", true, Seen::Malformed);

    // Too much of it.
    add("flood-of-fields", "GET", with(&"A: b\r\n".repeat(10_000), "").as_bytes(), true, Seen::Malformed);
    add("flood-of-a-field", "GET", with(&format!("A: {}\r\n", "b".repeat(300_000)), "").as_bytes(), true, Seen::Malformed);
    add("flood-of-a-line", "GET", format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(300_000)).as_bytes(), true, Seen::Malformed);
    add("flood-of-continue", "GET", "HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000).as_bytes(), true, Seen::Malformed);
    add("flood-of-early-hints", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(10_000).as_bytes(), true, Seen::Malformed);
    add("flood-of-trailers", "GET", chunked(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(20_000))).as_bytes(), true, Seen::Broken);

    // Answers that switch what is spoken, without having been asked to.
    for (name, answer) in [
        ("without-upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        ("to-websocket", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        ("to-h2c", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("then-an-answer", "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
    ] {
        add(&format!("switch-{name}"), "GET", answer.as_bytes(), false, Seen::Malformed);
    }

    // Interim answers: what has a body in them has none.
    let interim = |first: &str| format!("{first}{}", with("Content-Length: 2\r\n", "ok"));
    for (name, first) in [
        ("continue", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("continue-twice", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"),
        ("processing", "HTTP/1.1 102 Processing\r\n\r\n"),
        ("early-hints", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    ] {
        add(&format!("interim-{name}"), "GET", interim(first).as_bytes(), false, Seen::Passed(200, b"ok".to_vec()));
    }
    add("interim-with-body", "GET", interim("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello").as_bytes(), true, Seen::Malformed);
    add("interim-and-the-end", "GET", b"HTTP/1.1 100 Continue\r\n\r\n", true, Seen::Malformed);
    add("interim-with-lf", "GET", interim("HTTP/1.1 100 Continue\n\n").as_bytes(), true, Seen::Malformed);

    // What is said beyond the answer is no answer to anybody.
    let ok = with("Content-Length: 2\r\n", "ok");
    for (name, method, answer, status, body) in [
        ("answer", "GET", format!("{ok}{POISON}"), 200, "ok"),
        ("answer-twice", "GET", format!("{ok}{POISON}{POISON}"), 200, "ok"),
        ("bytes", "GET", format!("{ok}more"), 200, "ok"),
        ("empty-lines", "GET", format!("{ok}\r\n\r\n"), 200, "ok"),
        ("chunks", "GET", chunked(&format!("2\r\nok\r\n0\r\n\r\n{POISON}")), 200, "ok"),
        ("empty", "GET", with("Content-Length: 0\r\n", POISON), 200, ""),
        ("interim", "GET", format!("{ok}HTTP/1.1 100 Continue\r\n\r\n"), 200, "ok"),
        ("no-content", "GET", format!("HTTP/1.1 204 No Content\r\n\r\n{POISON}"), 204, ""),
        ("not-modified", "GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n{POISON}"), 304, ""),
        (
            "not-modified-chunked",
            "GET",
            format!("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{POISON}"),
            304,
            "",
        ),
        ("head", "HEAD", with("Content-Length: 44\r\n", POISON), 200, ""),
        ("head-chunked", "HEAD", chunked(&format!("6\r\npoison\r\n0\r\n\r\n{POISON}")), 200, ""),
        ("head-and-nothing", "HEAD", with("", POISON), 200, ""),
    ] {
        add(&format!("beyond-{name}"), method, answer.as_bytes(), false, Seen::Passed(status, body.into()));
    }

    // And these are well.
    for (name, answer, ends, status, body) in [
        ("length", ok.clone(), false, 200, "ok"),
        ("chunks", chunked("1\r\no\r\n1\r\nk\r\n0\r\n\r\n"), false, 200, "ok"),
        ("until-the-end", with("", "ok"), true, 200, "ok"),
        ("until-the-end-and-nothing", with("", ""), true, 200, ""),
        ("reason-empty", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok".to_owned(), false, 200, "ok"),
        ("reason-of-words", "HTTP/1.1 404 It is not here\r\nContent-Length: 2\r\n\r\nok".to_owned(), false, 404, "ok"),
        ("status-599", "HTTP/1.1 599 X\r\nContent-Length: 2\r\n\r\nok".to_owned(), false, 599, "ok"),
        ("no-content", "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), false, 204, ""),
        ("not-modified", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n".to_owned(), false, 304, ""),
        ("close", with("Connection: close\r\nContent-Length: 2\r\n", "ok"), true, 200, "ok"),
    ] {
        add(&format!("well-{name}"), "GET", answer.as_bytes(), ends, Seen::Passed(status, body.into()));
    }
    all
}

fn ask(client: &mut Client, method: &str) -> Next {
    client.say(format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
    client.next(method == "HEAD")
}

/// The next request on this connection has an answer of its own, or none; so has one on another.
fn on_their_own(client: &mut Client) -> Result<(), String> {
    let same = ask(client, "GET");
    let other = Client::connect(ORDERS, PORTS[0]).map(|mut other| ask(&mut other, "GET"));
    let well = |next: &Next| matches!(next, Next::Answer(message) if message.status() == 200 && message.content() == b"ok");
    if (well(&same) || same == Next::Ended) && other.as_ref().is_ok_and(well) {
        return Ok(());
    }
    Err(format!("then {same:?}, and another {other:?}"))
}

/// The connection on which the upstream said it is not used any more.
fn left(upstream: &Upstream) -> Result<(), String> {
    let began = Instant::now();
    while upstream.look(|seen| seen.told) != 0 {
        if began.elapsed() > DEADLINE {
            return Err("the upstream's connection is not closed".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn play(upstream: &Upstream, case: &Case) -> Result<(), String> {
    let mut client = Client::connect(ORDERS, PORTS[0]).map_err(|error| format!("no connection: {error}"))?;
    upstream.look(|seen| {
        seen.arrivals.clear();
        seen.answer = Some((case.answer.clone(), case.ends));
    });
    let next = ask(&mut client, case.method);
    if upstream.look(|seen| (seen.arrivals.len(), seen.answer.is_none())) != (1, true) {
        return Err(format!("the upstream was not asked once: {next:?}"));
    }
    match (&case.seen, &next) {
        (Seen::Malformed, Next::Answer(message)) if message.status() == 502 => {
            let problem: Value = serde_json::from_slice(message.content()).unwrap_or_default();
            if problem["reason"] != "upstream_malformed" {
                return Err(format!("it is no such problem: {message:?}"));
            }
            left(upstream)?;
            on_their_own(&mut client)
        }
        // It may be cut before the client has seen the head.
        (Seen::Broken, Next::Ended) => left(upstream),
        (Seen::Broken, Next::Wrong(what)) if what.starts_with("it ended within HTTP/1.1 200 ") && !what.contains("poison") => {
            left(upstream)
        }
        (Seen::Passed(status, body), Next::Answer(message)) if message.status() == *status && message.content() == body => {
            on_their_own(&mut client)?;
            if case.name.starts_with("beyond-") { left(upstream) } else { Ok(()) }
        }
        (_, next) => Err(format!("{next:?}")),
    }
}

#[test]
fn answers_are_whole_or_none() {
    let all = cases();
    assert!(all.len() >= 40, "{}", all.len());
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    let mut failures = Vec::new();
    let began = Instant::now();
    world.in_pod(|| {
        let mut slow = 0;
        for case in &all {
            let began = Instant::now();
            if let Err(complaint) = play(&upstream, case) {
                let answer = case.answer.escape_ascii().to_string();
                let wanted = match &case.seen {
                    Seen::Malformed => "502 upstream_malformed, and the upstream's connection closed".to_owned(),
                    Seen::Broken => "an end within the body, and both closed".to_owned(),
                    Seen::Passed(status, body) => format!("{status} {}", body.escape_ascii()),
                };
                failures.push(format!(
                    "{} {}\n    upstream {answer:.500}\n    expected {wanted}\n    got      {complaint:.1500}\n",
                    case.method, case.name
                ));
                // Nobody else's turn.
                upstream.look(|seen| seen.answer = None);
            }
            slow += usize::from(began.elapsed() >= DEADLINE);
            assert!(slow < 30, "too much hangs:\n{}", failures.join("\n"));
        }
    });
    println!("{} answers in {:?}", all.len(), began.elapsed());
    assert!(!world.log().contains("panicked"), "{}", world.log());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), all.len(), failures.join("\n"));
}

/// An upstream may close an idle connection just when a request comes, and may have heard it.
#[test]
fn what_may_change_something_is_asked_once() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    world.in_pod(|| {
        for (method, fields) in [("POST", ""), ("POST", "Content-Length: 0\r\n"), ("PATCH", ""), ("POST", "Transfer-Encoding: chunked\r\n")]
        {
            let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
            let well = |next: Next| matches!(next, Next::Answer(message) if message.status() == 200);
            assert!(well(ask(&mut client, "GET")), "the connection to the upstream is kept");
            upstream.look(|seen| {
                seen.arrivals.clear();
                seen.answer = Some((Vec::new(), true));
            });
            let body = if fields.contains("chunked") { "0\r\n\r\n" } else { "" };
            client.say(format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}").as_bytes());
            let next = client.next(false);
            let arrived = upstream.look(|seen| seen.arrivals.len());
            assert_eq!(arrived, 1, "{method} {fields:?}: {next:?}");
            assert!(matches!(&next, Next::Answer(message) if message.status() == 502), "{method} {fields:?}: {next:?}");
        }
    });
}

/// Whoever answers before it has heard all: what the client says on is still the body of that request, and no other.
#[test]
fn an_answer_that_comes_early_makes_no_request_of_a_body() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    world.in_pod(|| {
        for (framing, before, after) in [
            ("Content-Length: 300", String::new(), SMUGGLED.to_owned()),
            ("Content-Length: 300", "hello".to_owned(), SMUGGLED.to_owned()),
            ("Content-Length: 5", String::new(), format!("hello{SMUGGLED}")),
            ("Transfer-Encoding: chunked", String::new(), SMUGGLED.to_owned()),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n".to_owned(), format!("{:x}\r\n{SMUGGLED}\r\n", SMUGGLED.len())),
        ] {
            for ends in [false, true] {
                let what = format!("{framing}, {before:?}, then {after:?}; the upstream's connection ends: {ends}");
                let mut client = Client::connect(ORDERS, PORTS[0]).expect("a connection");
                upstream.look(|seen| {
                    seen.arrivals.clear();
                    seen.early = true;
                    seen.answer = Some((b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno".to_vec(), ends));
                });
                client.say(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n{before}").as_bytes());
                let next = client.next(false);
                assert!(matches!(&next, Next::Answer(message) if message.status() == 413), "{what}: {next:?}");
                client.say(after.as_bytes());
                client.shut();
                let rest = client.rest();
                left(&upstream).expect(&what);
                // That of five bytes may go on to be whole, and another come after it.
                let five = framing.ends_with(": 5");
                let arrivals = upstream.look(|seen| std::mem::take(&mut seen.arrivals));
                let others = |arrival: &Arrival| !matches!(arrival, Arrival::Partial(_));
                assert!(five || rest.as_deref() == Some(&[]), "{what}: {rest:?}");
                assert!(five || !arrivals.iter().any(others), "{what}: {arrivals:?}");
                assert!(arrivals.iter().filter(|arrival| others(arrival)).count() <= 2, "{what}: {arrivals:?}");
            }
        }
    });
}

/// A tunnel begins when the upstream agrees, and not before; whoever is not let into one goes on in HTTP, judged.
#[test]
fn only_what_was_agreed_on_switches() {
    let world = World::guarded(&http_wire::policy());
    let upstream = Upstream::new(&world);
    let asks = |path: &str, more: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {RULED}\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
        )
    };
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let smuggled = SMUGGLED.replace(HOST, RULED);
    world.in_pod(|| {
        let open = |said: &str, answer: &str| {
            let mut client = Client::connect(ORDERS, PORTS[1]).expect("a connection");
            upstream.look(|seen| {
                seen.arrivals.clear();
                seen.answer = Some((answer.as_bytes().to_vec(), false));
            });
            client.say(said.as_bytes());
            client
        };
        let heads = || {
            let arrivals = upstream.look(|seen| seen.arrivals.clone());
            let first = |arrival: &Arrival| match arrival {
                Arrival::Whole(message) => message.first().to_owned(),
                other => format!("{other:?}"),
            };
            arrivals.iter().map(first).collect::<Vec<_>>()
        };
        // What the upstream agrees to is a tunnel: whatever is said there is the two ends' own.
        let mut client = open(&asks("/live", ""), agreed);
        assert!(matches!(client.next(false), Next::Answer(message) if message.status() == 101));
        client.say(SMUGGLED.replace("Host:", "host:").as_bytes());
        assert!(matches!(client.next(false), Next::Answer(message) if message.content() == b"ok"), "bytes pass both ways");
        drop(client);
        left(&upstream).expect("the tunnel has ended");

        // What it does not agree to is none, and what was said ahead of it is a request, and judged.
        for (name, answer, status) in [
            ("refuses", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno", 426),
            ("answers", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
            ("answers as if", "HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nok", 200),
        ] {
            let mut client = open(&format!("{}{smuggled}", asks("/live", "")), answer);
            let next = client.next(false);
            assert!(matches!(&next, Next::Answer(message) if message.status() == status), "{name}: {next:?}");
            let next = client.next(false);
            assert!(matches!(&next, Next::Answer(message) if message.status() == 403) || next == Next::Ended, "{name}: {next:?}");
            assert_eq!(heads(), ["GET /live HTTP/1.1"], "{name}");
        }
        // It switches to something else than was asked for, or says that it does.
        for (name, answer) in [
            ("nothing", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            ("no connection", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"),
            ("no upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"),
            ("h2c", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
            ("two", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n"),
            ("twice", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n"),
            ("length and coding", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ] {
            let mut client = open(&asks("/live", ""), answer);
            let next = client.next(false);
            assert!(matches!(&next, Next::Answer(message) if message.status() == 502), "{name}: {next:?}");
            left(&upstream).expect(name);
        }
        // Not asked of whom it is declared, or in two ways.
        for (name, said, status) in [
            ("another path", asks("/articles", ""), 403),
            ("below the path", asks("/live/x", ""), 403),
            ("another method", asks("/live", "").replace("GET", "POST"), 403),
            ("another protocol", asks("/live", "").replace("WebSocket\r\n", "h3\r\n"), 403),
            ("two protocols", asks("/live", "").replace("WebSocket\r\n", "websocket, h2c\r\n"), 403),
            ("two fields", asks("/live", "Upgrade: h2c\r\n"), 400),
        ] {
            let mut client = open(&format!("{said}{smuggled}"), agreed);
            let next = client.next(false);
            assert!(matches!(&next, Next::Answer(message) if message.status() == status), "{name}: {next:?}");
            client.shut();
            let _ = client.rest();
            assert_eq!(heads(), Vec::<String>::new(), "{name}");
            upstream.look(|seen| seen.answer = None);
        }
    });
}
