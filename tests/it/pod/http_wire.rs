//! HTTP/1 as it stands on the wire, read by a parser that takes one form only, and an upstream that keeps what it gets.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{HELP, ORDERS, World, in_namespace};
use crate::http_cases::Body;

/// Longer than this nothing may take.
pub const DEADLINE: Duration = Duration::from_secs(3);
/// Of the Service: with all that ReadWrite gives, and with rules.
pub const PORTS: [u16; 2] = [8080, 8081];
/// What the upstream says to everything, unless it is told otherwise.
pub const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// The policy with two sources that are one Service, and a host with plain HTTP.
pub fn policy() -> Value {
    let mut policy = super::policy();
    policy["format"] = json!(2);
    let service = |port: u16, http: Value| json!({"type": "Service", "name": "orders", "namespace": "shop", "ports": [port], "http": http});
    let open = json!({"scheme": "Http", "port": PORTS[0], "access": "ReadWrite"});
    let ruled = json!({"scheme": "Http", "port": PORTS[1], "access": "Read", "rules": [
        {"methods": ["GET"], "paths": [{"type": "PathPrefix", "value": "/articles"}]},
        {"methods": ["POST"], "paths": [{"type": "Exact", "value": "/search"}]},
        {"methods": ["GET"], "paths": [{"type": "Exact", "value": "/live"}], "upgrades": ["websocket"]},
    ]});
    policy["destinations"] = json!([
        {"source": "orders", "target": service(PORTS[0], open.clone())},
        {"source": "ledger", "target": service(PORTS[1], ruled)},
        {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 443}},
        {"source": "plain", "target": {"type": "Host", "name": "help.example.com", "port": PORTS[0], "http": open}},
    ]);
    policy
}

/// A message that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its head, but for the fields that frame its body.
    pub head: String,
    pub body: Body,
    /// As many bytes it has.
    pub length: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Partial,
    Whole(Message),
    Wrong(&'static str),
}

impl Message {
    pub fn first(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.first().split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn content(&self) -> &[u8] {
        match &self.body {
            Body::None => &[],
            Body::Length(bytes) | Body::Chunked(bytes) => bytes,
        }
    }
}

/// A request in the one form in which the guard sends them: Host first, names in lower case, one space here and none there.
pub fn request(bytes: &[u8]) -> Reading {
    let lower = |name: &str| !name.bytes().any(|b| b.is_ascii_uppercase());
    let (line, fields, length) = match head(bytes) {
        Ok(Some(parts)) => parts,
        Ok(None) => return Reading::Partial,
        Err(why) => return Reading::Wrong(why),
    };
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        [method, target, "HTTP/1.1"] if method.bytes().all(token) && !target.is_empty() && !target.contains(char::is_control) => {}
        _ => return Reading::Wrong("the line"),
    }
    if fields.first().is_none_or(|(name, _)| name != "host") || fields.iter().filter(|(name, _)| name == "host").count() != 1 {
        return Reading::Wrong("Host");
    }
    if !fields.iter().all(|(name, _)| lower(name)) {
        return Reading::Wrong("a name in upper case");
    }
    message(bytes, &line, &fields, length, Rest::Nothing)
}

/// An answer. Of what was asked, whether the answer has no body at all. What came is all that comes?
pub fn answer(bytes: &[u8], to_head: bool, ended: bool) -> Reading {
    let (line, fields, length) = match head(bytes) {
        Ok(Some(parts)) => parts,
        Ok(None) => return Reading::Partial,
        Err(why) => return Reading::Wrong(why),
    };
    let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..4)).and_then(|status| status.strip_suffix(' ')?.parse().ok());
    let Some(status @ 100..=999) = status else { return Reading::Wrong("the status") };
    let rest = match status {
        _ if to_head => Rest::Bodiless,
        100..200 | 204 | 304 => Rest::Bodiless,
        _ if ended => Rest::All,
        _ => Rest::UntilTheEnd,
    };
    message(bytes, &line, &fields, length, rest)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Without framing there is no body.
    Nothing,
    /// Whatever the framing says.
    Bodiless,
    /// Without framing the body goes on until the connection ends, which it has not.
    UntilTheEnd,
    /// It has.
    All,
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

type Parts = (String, Vec<(String, String)>, usize);

fn head(bytes: &[u8]) -> Result<Option<Parts>, &'static str> {
    // Nothing but whole lines may come before the end, and no other ends of lines.
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let so_far = &bytes[..end.unwrap_or(bytes.len())];
    let mut lines = Vec::new();
    for line in so_far.split(|b| *b == b'\n') {
        lines.push(line);
    }
    for (number, line) in lines.iter().enumerate() {
        let last = number + 1 == lines.len();
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if text.iter().any(|b| b.is_ascii_control() && *b != b'\t') || (!last && text.len() == line.len()) {
            return Err("a control character");
        }
    }
    let Some(end) = end else { return Ok(None) };
    // What is not UTF-8 is kept, one character for a byte.
    let text: String = match std::str::from_utf8(so_far) {
        Ok(text) => text.to_owned(),
        Err(_) => so_far.iter().map(|b| char::from(*b)).collect(),
    };
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let mut fields = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Err("a field without colon") };
        if name.is_empty() || !name.bytes().all(token) {
            return Err("a name");
        }
        let value = value.strip_prefix(' ').unwrap_or(value);
        if value.trim_matches([' ', '\t']) != value {
            return Err("spaces around a value");
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    Ok(Some((line, fields, end + 4)))
}

fn message(bytes: &[u8], line: &str, fields: &[(String, String)], at: usize, rest: Rest) -> Reading {
    let values = |wanted: &str| -> Vec<&str> {
        fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str()).collect()
    };
    let framing = |name: &str| name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding");
    let others = fields.iter().filter(|(name, _)| !framing(name));
    let head = format!("{line}\r\n{}\r\n", others.map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>());
    let whole = |body, length| Reading::Whole(Message { head: head.clone(), body, length });
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => match rest {
            Rest::Nothing | Rest::Bodiless => whole(Body::None, at),
            Rest::UntilTheEnd => Reading::Partial,
            Rest::All => whole(Body::Length(bytes[at..].to_vec()), bytes.len()),
        },
        ([length], []) => match length.parse::<usize>() {
            Ok(number) if number.to_string() == **length => match bytes.get(at..).and_then(|body| body.get(..number)) {
                _ if rest == Rest::Bodiless => whole(Body::None, at),
                Some(body) => whole(Body::Length(body.to_vec()), at + number),
                None => Reading::Partial,
            },
            _ => Reading::Wrong("Content-Length"),
        },
        ([], ["chunked"]) if rest == Rest::Bodiless => whole(Body::None, at),
        ([], ["chunked"]) => match chunked(&bytes[at..]) {
            Ok(Some((body, length))) => whole(Body::Chunked(body), at + length),
            Ok(None) => Reading::Partial,
            Err(why) => Reading::Wrong(why),
        },
        _ => Reading::Wrong("Content-Length or Transfer-Encoding"),
    }
}

/// The bytes of chunks without extensions and trailers, and as many bytes as they are on the wire.
fn chunked(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return if rest.len() > 18 { Err("a chunk's size") } else { Ok(None) };
        };
        if end == 0 || end > 16 || !rest[..end].iter().all(u8::is_ascii_hexdigit) {
            return Err("a chunk's size");
        }
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok()).ok_or("a chunk's size")?;
        at += end + 2;
        let Some(data) = bytes.get(at..).filter(|rest| rest.len() >= size.saturating_add(2)) else { return Ok(None) };
        if &data[size..size + 2] != b"\r\n" {
            return Err("the end of a chunk");
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// What an upstream got on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    Whole(Message),
    /// It began, and the connection ended.
    Partial(Vec<u8>),
    Wrong(&'static str, Vec<u8>),
}

#[derive(Default)]
pub struct Seen {
    pub arrivals: Vec<Arrival>,
    pub bytes: usize,
    pub connections: usize,
    pub open: usize,
    /// Connections on which a request began and is not whole.
    pub pending: usize,
    /// Connections on which something else than `ANSWER` was said.
    pub told: usize,
    /// Whether it is said as soon as the head of the request is there.
    pub early: bool,
    /// What is said to the next request, and whether the connection ends then. None: `ANSWER`, and it does not.
    pub answer: Option<(Vec<u8>, bool)>,
}

/// The Service, at both ports, and the host.
#[derive(Clone, Default)]
pub struct Upstream(Arc<Mutex<Seen>>);

impl Upstream {
    pub fn new(world: &World) -> Self {
        let upstream = Self::default();
        in_namespace(&world.world, || {
            for to in [(ORDERS, PORTS[0]), (ORDERS, PORTS[1]), (HELP[0], PORTS[0]), (HELP[1], PORTS[0])] {
                let listener = TcpListener::bind(to).expect("a TCP port");
                let upstream = upstream.clone();
                std::thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        let upstream = upstream.clone();
                        upstream.look(|seen| {
                            seen.connections += 1;
                            seen.open += 1;
                        });
                        std::thread::spawn(move || {
                            let told = upstream.serve(stream);
                            upstream.look(|seen| {
                                seen.open -= 1;
                                seen.told -= usize::from(told);
                            });
                        });
                    }
                });
            }
        });
        upstream
    }

    pub fn look<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().expect("no panic while locked"))
    }

    /// Whether something else than `ANSWER` was said.
    fn serve(&self, mut stream: TcpStream) -> bool {
        let (mut buffer, mut got) = (vec![0; 64 * 1024], Vec::new());
        let (mut began, mut told) = (false, false);
        loop {
            let reading = request(&got);
            let begins = reading == Reading::Partial && !got.is_empty();
            if begins != began {
                self.look(|seen| if begins { seen.pending += 1 } else { seen.pending -= 1 });
                began = begins;
            }
            match reading {
                Reading::Whole(message) => {
                    got.drain(..message.length);
                    let to_head = message.head.starts_with("HEAD ");
                    let answer = self.look(|seen| {
                        seen.arrivals.push(Arrival::Whole(message));
                        let answer = seen.answer.take();
                        seen.told += usize::from(answer.is_some() && !told);
                        answer
                    });
                    told |= answer.is_some();
                    let (bytes, ends) = answer.unwrap_or_else(|| {
                        let all = ANSWER.len();
                        (ANSWER.as_bytes()[..if to_head { all - 2 } else { all }].to_vec(), false)
                    });
                    if stream.write_all(&bytes).is_err() || ends {
                        return told;
                    }
                    continue;
                }
                Reading::Wrong(why) => {
                    self.look(|seen| seen.arrivals.push(Arrival::Wrong(why, got)));
                    return told;
                }
                Reading::Partial => {
                    let head = got.windows(4).any(|four| four == b"\r\n\r\n");
                    let answer = self.look(|seen| if head && seen.early { seen.answer.take() } else { None });
                    if let Some((bytes, ends)) = answer {
                        self.look(|seen| seen.told += usize::from(!told));
                        told = true;
                        if stream.write_all(&bytes).is_err() || ends {
                            self.look(|seen| {
                                seen.pending -= 1;
                                seen.arrivals.push(Arrival::Partial(got));
                            });
                            return told;
                        }
                    }
                }
            }
            match stream.read(&mut buffer) {
                Ok(length @ 1..) => {
                    self.look(|seen| seen.bytes += length);
                    got.extend_from_slice(&buffer[..length]);
                }
                _ => {
                    if !got.is_empty() {
                        self.look(|seen| {
                            seen.pending -= 1;
                            seen.arrivals.push(Arrival::Partial(got));
                        });
                    }
                    return told;
                }
            }
        }
    }
}

/// A client's side of a connection.
pub struct Client {
    pub stream: TcpStream,
    got: Vec<u8>,
    began: Instant,
}

/// What comes next of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Answer(Message),
    Ended,
    /// It ended within an answer, or what came is none.
    Wrong(String),
    /// Nothing came until the deadline.
    Silence,
}

impl Client {
    pub fn connect(address: &str, port: u16) -> std::io::Result<Self> {
        let stream = super::connect(address, port)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, got: Vec::new(), began: Instant::now() })
    }

    /// Says it as far as the other side listens.
    pub fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn shut(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The next final answer.
    pub fn next(&mut self, to_head: bool) -> Next {
        let mut ended = false;
        loop {
            if ended && self.got.is_empty() {
                return Next::Ended;
            }
            match answer(&self.got, to_head, ended) {
                Reading::Whole(message) => {
                    self.got.drain(..message.length);
                    if matches!(message.status(), 100 | 102..200) {
                        continue;
                    }
                    return Next::Answer(message);
                }
                Reading::Wrong(why) => return Next::Wrong(format!("{why} in {}", self.got.escape_ascii())),
                Reading::Partial if ended => return Next::Wrong(format!("it ended within {}", self.got.escape_ascii())),
                Reading::Partial => {}
            }
            let left = DEADLINE.saturating_sub(self.began.elapsed());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return Next::Silence;
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(length) => self.got.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Next::Silence,
                Err(_) => ended = true,
            }
        }
    }

    /// What came and was not asked for, until the other side ends it. None: it does not.
    pub fn rest(&mut self) -> Option<Vec<u8>> {
        let mut all = std::mem::take(&mut self.got);
        let mut buffer = [0; 16 * 1024];
        loop {
            let left = DEADLINE.saturating_sub(self.began.elapsed());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return None;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Some(all),
                Ok(length) => all.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(_) => return Some(all),
            }
        }
    }
}

#[test]
fn the_parser_takes_one_form_only() {
    let whole = |text: &str| match request(text.as_bytes()) {
        Reading::Whole(message) => message,
        other => panic!("{text:?}: {other:?}"),
    };
    let message = whole("POST /a HTTP/1.1\r\nhost: a\r\nx: y\r\ncontent-length: 2\r\n\r\nhimore");
    assert_eq!((message.head.as_str(), &message.body), ("POST /a HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n", &Body::Length(b"hi".into())));
    let chunks = "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let message = whole(&format!("{chunks}more"));
    assert_eq!((&message.body, message.length), (&Body::Chunked(b"hi".into()), chunks.len()));
    for text in [
        " GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nx: y\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y \r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 05\r\n\r\nhello",
        "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;a\r\nhi\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\r\n\r\n",
    ] {
        assert!(matches!(request(text.as_bytes()), Reading::Wrong(_)), "{text:?}: {:?}", request(text.as_bytes()));
    }
    for at in 0..chunks.len() {
        assert_eq!(request(&chunks.as_bytes()[..at]), Reading::Partial, "{at}");
    }
}
