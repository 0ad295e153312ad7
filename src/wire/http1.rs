//! HTTP/1.1 (RFC 9110, RFC 9112), strictly: one message has one reading, or none.
//!
//! Promise: what may be read in more than one way is [`Fault::Malformed`]: bare CR or LF, folded lines, more than one length, a length
//! beside a transfer coding, other codings than `chunked`, extensions of chunks, other versions. What is written is in one form: names in
//! lower case, `host` first, the length last, and nothing that is for one hop only. Nothing here is read twice; heads and lines of chunks are
//! bounded.

use bytes::{Bytes, BytesMut};

use crate::scope::{Authority, LONGEST_METHOD};

/// Bytes of a head, or of trailers.
pub const LARGEST_HEAD: usize = 64 * 1024;
/// Fields of a head, or of trailers.
pub const MOST_FIELDS: usize = 128;

/// Why a message ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it has no reading, or more than one")]
    Malformed,
    #[error("its head is larger than {LARGEST_HEAD} bytes or {MOST_FIELDS} fields")]
    TooLarge,
}

use Fault::Malformed;

/// Looks for the end of a head in bytes that grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Everything before was looked at.
    at: usize,
    /// Where the line begins.
    line: usize,
}

impl Scan {
    /// How long the head at the beginning of these bytes is, once all of it is there. `bytes` are those of the last call, and more.
    pub fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.at..]) {
            let end = self.at + found;
            if end == 0 || bytes[end - 1] != b'\r' {
                return Err(Malformed);
            }
            let empty = end - 1 == self.line;
            (self.at, self.line) = (end + 1, end + 1);
            if self.at > LARGEST_HEAD {
                return Err(Fault::TooLarge);
            }
            if empty {
                // There is no line before it: an empty head.
                return if end == 1 { Err(Malformed) } else { Ok(Some(self.at)) };
            }
        }
        self.at = bytes.len();
        if bytes.len() > LARGEST_HEAD { Err(Fault::TooLarge) } else { Ok(None) }
    }
}

/// A field that is for the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a str,
    pub value: &'a [u8],
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    None,
    Fixed(u64),
    Chunked,
    /// Until the connection ends: of responses only.
    UntilEnd,
}

/// Whether a connection serves for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    KeepAlive,
    Close,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/path?query`
    Origin(&'a str),
    /// `http://authority/path?query`
    Absolute { authority: &'a str, path: &'a str },
    /// `host:port`, of CONNECT.
    Authority(&'a str),
    /// `*`
    Asterisk,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    pub method: &'a str,
    pub target: Target<'a>,
    pub host: Authority,
    /// Those that are for the other end, without `host` and the length.
    pub fields: Vec<Field<'a>>,
    pub length: Length,
    pub persistence: Persistence,
    /// The protocol that it wants to switch to. Never HTTP/2: that wish is passed over.
    pub upgrade: Option<&'a str>,
    /// A field that some frameworks take for the method, or for the path, is among them.
    pub names_a_method: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    pub status: u16,
    pub reason: &'a str,
    pub fields: Vec<Field<'a>>,
    pub length: Length,
    pub persistence: Persistence,
    /// The protocol that it switches to.
    pub upgrade: Option<&'a str>,
}

/// Fields that mean something on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    /// For one hop only, or leading past the guard.
    Hop,
    MethodOverride,
    Other,
}

fn known(name: &str) -> Known {
    const NAMES: [(&str, Known); 20] = [
        // These name another path.
        ("x-original-url", Known::MethodOverride),
        ("x-rewrite-url", Known::MethodOverride),
        ("expect", Known::Expect),
        ("host", Known::Host),
        ("content-length", Known::ContentLength),
        ("transfer-encoding", Known::TransferEncoding),
        ("connection", Known::Connection),
        ("upgrade", Known::Upgrade),
        ("keep-alive", Known::Hop),
        ("proxy-connection", Known::Hop),
        ("proxy-authorization", Known::Hop),
        ("proxy-authenticate", Known::Hop),
        ("proxy-authentication-info", Known::Hop),
        ("te", Known::Hop),
        ("trailer", Known::Hop),
        ("http2-settings", Known::Hop),
        ("alt-svc", Known::Hop),
        ("x-http-method-override", Known::MethodOverride),
        ("x-http-method", Known::MethodOverride),
        ("x-method-override", Known::MethodOverride),
    ];
    // Most names differ in their length already.
    NAMES.iter().find(|(known, _)| known.len() == name.len() && known.eq_ignore_ascii_case(name)).map_or(Known::Other, |(_, known)| *known)
}

/// Whether this field means something on one hop only, and is never passed on as it is.
pub fn is_for_one_hop(name: &str) -> bool {
    match known(name) {
        Known::Host | Known::TransferEncoding | Known::Connection | Known::Upgrade | Known::Hop => true,
        Known::ContentLength | Known::Expect | Known::MethodOverride | Known::Other => false,
    }
}

/// Whether some frameworks take this field for the method, or for the path.
pub fn names_a_method(name: &str) -> bool {
    // Some read `_` as `-`, and CGI every sign as `_`.
    known(name) == Known::MethodOverride
        || is_odd(name) && known(&name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")) == Known::MethodOverride
}

/// Whether it has signs that some read as others.
fn is_odd(name: &str) -> bool {
    name.bytes().any(|b| !b.is_ascii_alphanumeric() && b != b'-')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Spaces and tabs around it.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A line that ends in CR LF, without these.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let end = memchr::memchr(b'\n', rest).ok_or(Malformed)?;
    let (line, after) = rest.split_at(end + 1);
    *rest = after;
    line.strip_suffix(b"\r\n").ok_or(Malformed)
}

fn field(line: &[u8]) -> Result<Field<'_>, Fault> {
    let colon = memchr::memchr(b':', line).ok_or(Malformed)?;
    let (name, value) = (&line[..colon], trimmed(&line[colon + 1..]));
    let good = !name.is_empty() && name.iter().all(|b| is_token(*b)) && value.iter().all(|b| *b == b'\t' || !b.is_ascii_control());
    let name = std::str::from_utf8(name).ok().filter(|_| good).ok_or(Malformed)?;
    Ok(Field { name, value })
}

/// The elements of a list of tokens.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trimmed).filter(|token| !token.is_empty())
}

/// What the fields of a message say of it and of its connection.
struct Fields<'a> {
    all: Vec<Field<'a>>,
    host: Option<&'a [u8]>,
    length: Option<Length>,
    close: bool,
    /// `Connection: upgrade` was said.
    upgrades: bool,
    upgrade: Option<&'a [u8]>,
    expects: bool,
    names_a_method: bool,
}

fn fields<'a>(mut rest: &'a [u8]) -> Result<Fields<'a>, Fault> {
    let mut found = Fields {
        all: Vec::with_capacity(16),
        host: None,
        length: None,
        close: false,
        upgrades: false,
        upgrade: None,
        expects: false,
        names_a_method: false,
    };
    let mut nominated: Vec<&[u8]> = Vec::new();
    let mut count = 0;
    loop {
        let line = line(&mut rest)?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > MOST_FIELDS {
            return Err(Fault::TooLarge);
        }
        let field = field(line)?;
        match known(field.name) {
            Known::Host => once(&mut found.host, field.value)?,
            Known::ContentLength => {
                let digits = (1..=19).contains(&field.value.len()) && field.value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(field.value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
                once(&mut found.length, Length::Fixed(number.ok_or(Malformed)?))?;
            }
            Known::TransferEncoding => {
                if !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed);
                }
                once(&mut found.length, Length::Chunked)?;
            }
            Known::Connection => {
                for token in tokens(field.value) {
                    if token.eq_ignore_ascii_case(b"close") {
                        found.close = true;
                    } else if token.eq_ignore_ascii_case(b"upgrade") {
                        found.upgrades = true;
                    } else if !token.eq_ignore_ascii_case(b"keep-alive") {
                        let name = std::str::from_utf8(token).map_err(|_| Malformed)?;
                        // To take these away would make another message of it.
                        if matches!(known(name), Known::Host | Known::ContentLength | Known::TransferEncoding | Known::Connection) {
                            return Err(Malformed);
                        }
                        if nominated.len() >= MOST_FIELDS {
                            return Err(Fault::TooLarge);
                        }
                        nominated.push(token);
                    }
                }
            }
            Known::Expect => {
                if found.expects || !field.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Malformed);
                }
                found.expects = true;
                found.all.push(field);
            }
            Known::Upgrade => once(&mut found.upgrade, field.value)?,
            Known::Hop => {}
            Known::MethodOverride => {
                found.names_a_method = true;
                found.all.push(field);
            }
            Known::Other => {
                found.names_a_method |= is_odd(field.name) && names_a_method(field.name);
                found.all.push(field);
            }
        }
    }
    if !rest.is_empty() {
        return Err(Malformed);
    }
    if !nominated.is_empty() {
        found.all.retain(|field| !nominated.iter().any(|name| name.eq_ignore_ascii_case(field.name.as_bytes())));
    }
    Ok(found)
}

/// What is said twice is not said at all, whichever of them is right.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Fault> {
    if place.is_some() {
        return Err(Malformed);
    }
    *place = Some(value);
    Ok(())
}

impl Fields<'_> {
    fn persistence(&self) -> Persistence {
        if self.close { Persistence::Close } else { Persistence::KeepAlive }
    }
}

impl<'a> Request<'a> {
    /// Of the bytes that [`Scan::head`] found.
    pub fn read(head: &'a [u8]) -> Result<Self, Fault> {
        let mut rest = head;
        let first = line(&mut rest)?;
        let mut words = first.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(Malformed);
        };
        // Python's http.client asks for tunnels so. It is nothing but the target, and what follows is not of this version.
        let old = version == b"HTTP/1.0" && method == b"CONNECT";
        if version != b"HTTP/1.1" && !old {
            return Err(Malformed);
        }
        if method.is_empty() || method.len() > LONGEST_METHOD || !method.iter().all(|b| is_token(*b)) {
            return Err(Malformed);
        }
        // Escapes and the like are judged by whoever knows what a path is.
        if target.is_empty() || target.iter().any(|b| b.is_ascii_control()) {
            return Err(Malformed);
        }
        let (method, target) = (text(method)?, text(target)?);
        let target = match target {
            "*" if method == "OPTIONS" => Target::Asterisk,
            _ if method == "CONNECT" => Target::Authority(target),
            _ if target.starts_with('/') => Target::Origin(target),
            _ => {
                let after = strip_scheme(target).ok_or(Malformed)?;
                let (authority, path) = after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len()));
                // `http://host` asks for its root.
                Target::Absolute { authority, path: if path.is_empty() { "/" } else { path } }
            }
        };
        let fields = fields(rest)?;
        let host = match (fields.host, target) {
            (None, Target::Authority(authority)) if old => authority,
            (host, _) => text(host.ok_or(Malformed)?)?,
        };
        let host: Authority = host.parse().map_err(|_| Malformed)?;
        let other = match target {
            Target::Absolute { authority, path: _ } | Target::Authority(authority) => Some(authority),
            Target::Origin(_) | Target::Asterisk => None,
        };
        if let Some(other) = other {
            let other: Authority = other.parse().map_err(|_| Malformed)?;
            if !same(&other, &host, method) {
                return Err(Malformed);
            }
        }
        let length = fields.length.filter(|length| *length != Length::Fixed(0) || !matches!(method, "GET" | "HEAD" | "OPTIONS"));
        // CONNECT has no body: what follows belongs to nobody yet.
        if method == "CONNECT" && length.is_some() {
            return Err(Malformed);
        }
        let persistence = fields.persistence();
        let upgrade = fields.upgrade.filter(|_| fields.upgrades).map(text).transpose()?;
        // A wish that may be passed over, and is: nobody is let out of HTTP/1.1 into HTTP/2 halfway.
        let upgrade = upgrade.filter(|protocol| !protocol.eq_ignore_ascii_case("h2c") && !protocol.eq_ignore_ascii_case("h2"));
        // Who passes over the wish may pass over the body as well, and take it for the next request.
        if upgrade.is_some() && length.is_some() && method == "GET" {
            return Err(Malformed);
        }
        let Fields { all, names_a_method, .. } = fields;
        Ok(Self { method, target, host, fields: all, length: length.unwrap_or(Length::None), persistence, upgrade, names_a_method })
    }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_at_checked("http://".len())?;
    scheme.eq_ignore_ascii_case("http://").then_some(rest)
}

/// Whether the two name one host; the port that HTTP has by default need not be said.
fn same(target: &Authority, host: &Authority, method: &str) -> bool {
    if method == "CONNECT" {
        // Some clients leave the port out of Host, which it must not; the target must bear it.
        return target.host == host.host && target.port.is_some() && (host.port.is_none() || host.port == target.port);
    }
    target.host == host.host && target.port.unwrap_or(80) == host.port.unwrap_or(80)
}

impl<'a> Response<'a> {
    /// Of the bytes that [`Scan::head`] found, in answer to this method.
    pub fn read(head: &'a [u8], method: &str) -> Result<Self, Fault> {
        let mut rest = head;
        let first = line(&mut rest)?;
        let (version, after) = first.split_at_checked(9).ok_or(Malformed)?;
        let old = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(Malformed),
        };
        let (code, reason) = after.split_at_checked(3).ok_or(Malformed)?;
        // The space before the reason is often missing, where there is none.
        let reason = if reason.is_empty() { reason } else { reason.strip_prefix(b" ").ok_or(Malformed)? };
        if !code.iter().all(u8::is_ascii_digit) || reason.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return Err(Malformed);
        }
        let status: u16 = text(code)?.parse().map_err(|_| Malformed)?;
        if !(100..=599).contains(&status) {
            return Err(Malformed);
        }
        // It is for people, in whatever letters.
        let reason = std::str::from_utf8(reason).unwrap_or_default();
        let fields = fields(rest)?;
        if old && fields.length == Some(Length::Chunked) {
            return Err(Malformed);
        }
        let none = method == "HEAD" || status < 200 || status == 204 || status == 304;
        if (status < 200 || status == 204) && fields.length == Some(Length::Chunked) {
            return Err(Malformed);
        }
        let length = match fields.length {
            // What they say is about another answer.
            _ if none => Length::None,
            Some(length) => length,
            None => Length::UntilEnd,
        };
        let mut persistence = fields.persistence();
        if old || length == Length::UntilEnd {
            persistence = Persistence::Close;
        }
        let upgrade = fields.upgrade.filter(|_| fields.upgrades && status == 101).map(text).transpose()?;
        let mut all = fields.all;
        // The length that GET would have, of HEAD.
        if none && let Some(Length::Fixed(_)) = fields.length {
            let value = head_length(head).ok_or(Malformed)?;
            if method == "HEAD" || status == 304 {
                all.push(Field { name: "content-length", value });
            }
        }
        Ok(Self { status, reason, fields: all, length, persistence, upgrade })
    }
}

/// The value of the length, of a head that has one.
fn head_length(mut head: &[u8]) -> Option<&[u8]> {
    line(&mut head).ok()?;
    loop {
        let field = field(line(&mut head).ok()?).ok()?;
        if known(field.name) == Known::ContentLength {
            return Some(field.value);
        }
    }
}

/// A body on its way.
#[derive(Clone, Debug)]
pub struct Body(State);

#[derive(Clone, Debug)]
enum State {
    /// So many bytes more.
    Fixed(u64),
    UntilEnd,
    /// A line with the size of a chunk comes next.
    Size,
    /// So many bytes of a chunk more, then its end.
    Chunk(u64),
    ChunkEnd,
    Trailers(Scan),
    Ended,
}

/// What a body gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    /// Nothing before there is more to read.
    Wait,
    End,
}

impl Body {
    pub fn new(length: Length) -> Self {
        Self(match length {
            Length::None | Length::Fixed(0) => State::Ended,
            Length::Fixed(length) => State::Fixed(length),
            Length::Chunked => State::Size,
            Length::UntilEnd => State::UntilEnd,
        })
    }

    pub fn has_ended(&self) -> bool {
        matches!(self.0, State::Ended)
    }

    /// What the end of the connection means: an end, or that something is missing.
    pub fn may_end(&self) -> bool {
        matches!(self.0, State::Ended | State::UntilEnd)
    }

    /// Takes what belongs to it, and nothing behind it.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Piece, Fault> {
        loop {
            match &mut self.0 {
                State::Ended => return Ok(Piece::End),
                State::UntilEnd if bytes.is_empty() => return Ok(Piece::Wait),
                State::UntilEnd => return Ok(Piece::Data(bytes.split().freeze())),
                State::Fixed(left) | State::Chunk(left) if *left > 0 => {
                    if bytes.is_empty() {
                        return Ok(Piece::Wait);
                    }
                    let data = bytes.split_to(bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX))).freeze();
                    *left -= data.len() as u64;
                    if matches!(self.0, State::Fixed(0)) {
                        self.0 = State::Ended;
                    }
                    return Ok(Piece::Data(data));
                }
                State::Fixed(_) => self.0 = State::Ended,
                State::Chunk(_) => self.0 = State::ChunkEnd,
                State::ChunkEnd => match bytes.as_ref() {
                    [b'\r', b'\n', ..] => {
                        let _ = bytes.split_to(2);
                        self.0 = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Piece::Wait),
                    _ => return Err(Malformed),
                },
                State::Size => {
                    // Sixteen digits, CR, LF.
                    let digits = bytes.iter().take(17).take_while(|b| b.is_ascii_hexdigit()).count();
                    if digits > 16 {
                        return Err(Malformed);
                    }
                    match (digits, &bytes[digits..]) {
                        (1.., [b'\r', b'\n', ..]) => {
                            let size = std::str::from_utf8(&bytes[..digits]).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
                            let size = size.ok_or(Malformed)?;
                            let _ = bytes.split_to(digits + 2);
                            self.0 = if size == 0 { State::Trailers(Scan::default()) } else { State::Chunk(size) };
                        }
                        (_, []) | (1.., [b'\r']) => return Ok(Piece::Wait),
                        _ => return Err(Malformed),
                    }
                }
                State::Trailers(scan) => {
                    if bytes.starts_with(b"\r\n") {
                        let _ = bytes.split_to(2);
                        self.0 = State::Ended;
                        continue;
                    }
                    if matches!(bytes.as_ref(), [] | [b'\r']) {
                        return Ok(Piece::Wait);
                    }
                    let Some(length) = scan.head(bytes)? else { return Ok(Piece::Wait) };
                    // Read, so that nothing hides in them, and dropped.
                    let found = fields(&bytes[..length])?;
                    if found.host.is_some() || found.length.is_some() || found.upgrade.is_some() {
                        return Err(Malformed);
                    }
                    let _ = bytes.split_to(length);
                    self.0 = State::Ended;
                }
            }
        }
    }
}

/// Writes a head's first line and its fields in their one form. `authority`: of a request.
pub fn write_head(out: &mut Vec<u8>, first: std::fmt::Arguments<'_>, authority: Option<&Authority>, fields: &[Field<'_>], ends: Ends<'_>) {
    use std::io::Write;
    // A vector takes everything.
    let _ = write!(out, "{first}\r\n");
    if let Some(authority) = authority {
        let _ = write!(out, "host: {authority}\r\n");
    }
    for Field { name, value } in fields {
        out.extend(name.bytes().map(|b| b.to_ascii_lowercase()));
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    let Ends { length, connection, upgrade } = ends;
    if let Some(upgrade) = upgrade {
        let _ = write!(out, "connection: upgrade\r\nupgrade: {upgrade}\r\n");
    } else if connection == Persistence::Close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    match length {
        Length::Fixed(length) => _ = write!(out, "content-length: {length}\r\n"),
        Length::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Length::None | Length::UntilEnd => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// How a head ends.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    pub length: Length,
    pub connection: Persistence,
    pub upgrade: Option<&'a str>,
}

/// Writes the beginning of a chunk; after its data come CR and LF.
pub fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    use std::io::Write;
    let _ = write!(out, "{size:x}\r\n");
}

/// What ends a body in chunks.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(bytes: &[u8]) -> Result<Option<usize>, Fault> {
        Scan::default().head(bytes)
    }

    fn request(head: &str) -> Result<String, Fault> {
        let bytes = head.as_bytes();
        let length = scan(bytes)?.ok_or(Malformed)?;
        let request = Request::read(&bytes[..length])?;
        let fields: Vec<String> = request.fields.iter().map(|f| format!("{}={}", f.name, String::from_utf8_lossy(f.value))).collect();
        Ok(format!(
            "{} {:?} {} {:?} {:?} {:?} [{}]{}",
            request.method,
            request.target,
            request.host,
            request.length,
            request.persistence,
            request.upgrade.unwrap_or("-"),
            fields.join(" "),
            if request.names_a_method { " names a method" } else { "" },
        ))
    }

    #[test]
    fn good_requests() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", r#"GET Origin("/") a None KeepAlive "-" []"#),
            ("GET /x?y HTTP/1.1\r\nhost:A:80\r\nAccept:  */* \t\r\n\r\nrest", r#"GET Origin("/x?y") a:80 None KeepAlive "-" [Accept=*/*]"#),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", r#"GET Origin("/") a None KeepAlive "-" []"#),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", r#"POST Origin("/") a Fixed(0) KeepAlive "-" []"#),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n", r#"POST Origin("/") a Fixed(12) KeepAlive "-" []"#),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", r#"POST Origin("/") a Chunked KeepAlive "-" []"#),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-A\r\nX-A: 1\r\nX-B: 2\r\nTE: trailers\r\n\r\n",
                r#"GET Origin("/") a None Close "-" [X-B=2]"#,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n",
                r#"GET Origin("/") a None KeepAlive "WebSocket" []"#,
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\r\n", r#"GET Origin("/") a None KeepAlive "-" []"#),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
                r#"GET Origin("/") a None KeepAlive "-" []"#,
            ),
            (
                "GET HTTP://a/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n",
                r#"GET Absolute { authority: "a", path: "/x?y" } a:80 None KeepAlive "-" []"#,
            ),
            ("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", r#"GET Absolute { authority: "a", path: "/" } a None KeepAlive "-" []"#),
            ("CONNECT a:443 HTTP/1.0\r\n\r\n", r#"CONNECT Authority("a:443") a:443 None KeepAlive "-" []"#),
            (
                "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: x\r\n\r\n",
                r#"CONNECT Authority("a:443") a None KeepAlive "-" []"#,
            ),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", r#"OPTIONS Asterisk a None KeepAlive "-" []"#),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nX_HTTP_Method_Override: PUT\r\n\r\n",
                r#"GET Origin("/") a None KeepAlive "-" [X_HTTP_Method_Override=PUT] names a method"#,
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\nX-Text: b\u{fc}ch\r\n\r\n", "GET Origin(\"/\") a None KeepAlive \"-\" [X-Text=b\u{fc}ch]"),
        ] {
            assert_eq!(request(head).as_deref(), Ok(expected), "{head:?}");
        }
    }

    #[test]
    fn requests_that_have_no_reading_or_two() {
        let with = |field: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        let mut all: Vec<String> = [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Content-Length:",
            "Content-Length: 1 1",
            "Content-Length: 12345678901234567890",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: \"chunked\"",
            "Transfer-Encoding: chunked;a",
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked,",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding : chunked",
            " Transfer-Encoding: chunked",
            "X: a\r\n b",
            "X: a\r\n\tb",
            "X : a",
            ": a",
            "X",
            "X: a\0b",
            "X: a\rb",
            "X: a\x7fb",
            "X: a\nY: b",
            "X\u{fc}: a",
            "X(: a",
            "Host: a",
            "Host: b",
            "Connection: host",
            "Connection: close, Content-Length",
            "Connection: transfer-encoding",
            "Connection: connection",
            "Expect: x",
            "Expect: 100-continue, x",
            "Expect:",
            "Expect: 100-continue\r\nExpect: 100-continue",
            "Connection: \u{ff}\u{ff}\0",
        ]
        .map(with)
        .into();
        all.extend(
            [
                "GET / HTTP/1.1\r\n\r\n",
                "GET / HTTP/1.1\r\nHost:\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
                "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
                "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
                "GET / http/1.1\r\nHost: a\r\n\r\n",
                "GET /\r\nHost: a\r\n\r\n",
                "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
                " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n\n",
                "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
                "CONNECT a:443 HTTP/1.1\r\n\r\n",
                "CONNECT a:443 HTTP/1.0\r\nHost: b:443\r\n\r\n",
                "CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
                "CONNECT a:443 HTTP/1.1\r\nHost: a:80\r\n\r\n",
                "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
                "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
                "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
                "G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
                "\r\n\r\n",
                "GET /",
            ]
            .map(str::to_owned),
        );
        all.push(format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(LONGEST_METHOD + 1)));
        for head in all {
            assert_eq!(request(&head), Err(Malformed), "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MOST_FIELDS));
        assert_eq!(request(&many), Err(Fault::TooLarge));
        assert_eq!(scan("a".repeat(LARGEST_HEAD + 1).as_bytes()), Err(Fault::TooLarge));
    }

    #[test]
    fn a_bare_line_feed_ends_it_before_the_head_is_whole() {
        assert_eq!(scan(b"GET / HTTP/1.1\nHost"), Err(Malformed));
        assert_eq!(scan(b"\n"), Err(Malformed));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nHost: a\r"), Ok(None));
    }

    fn response(head: &str, method: &str) -> Result<String, Fault> {
        let length = scan(head.as_bytes())?.ok_or(Malformed)?;
        let Response { status, reason, fields, length, persistence, upgrade } = Response::read(&head.as_bytes()[..length], method)?;
        let fields: Vec<String> = fields.iter().map(|f| format!("{}={}", f.name, String::from_utf8_lossy(f.value))).collect();
        Ok(format!("{status} {reason:?} {length:?} {persistence:?} {} [{}]", upgrade.unwrap_or("-"), fields.join(" ")))
    }

    #[test]
    fn responses() {
        for (method, head, expected) in [
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\n", Ok(r#"200 "OK" Fixed(3) KeepAlive - [X=y]"#)),
            ("GET", "HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n", Ok(r#"200 "" Fixed(3) KeepAlive - []"#)),
            ("GET", "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", Ok(r#"200 "" Chunked KeepAlive - []"#)),
            ("GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", Ok(r#"200 "OK" UntilEnd Close - []"#)),
            ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", Ok(r#"200 "OK" Fixed(3) Close - []"#)),
            ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Ok(r#"200 "OK" None KeepAlive - [content-length=3]"#)),
            ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", Ok(r#"200 "OK" None KeepAlive - []"#)),
            (
                "GET",
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
                Ok(r#"304 "Not Modified" None KeepAlive - [content-length=3]"#),
            ),
            ("DELETE", "HTTP/1.1 204 No Content\r\n\r\n", Ok(r#"204 "No Content" None KeepAlive - []"#)),
            (
                "GET",
                "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                Ok(r#"101 "Switching" None KeepAlive websocket []"#),
            ),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nAlt-Svc: h3=\":443\"\r\n\r\n", Ok(r#"200 "OK" Fixed(3) KeepAlive - []"#)),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.1 99 OK\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.1 600 OK\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.1 2000 OK\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.1  200 OK\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/2 200 OK\r\n\r\n", Err(Malformed)),
            ("GET", "ICY 200 OK\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Err(Malformed)),
            ("GET", "HTTP/1.1 200 OK\r\nX : a\r\n\r\n", Err(Malformed)),
        ] {
            assert_eq!(response(head, method).as_deref().map_err(|e| *e), expected, "{head:?}");
        }
    }

    /// All of it, or why not; and what is left.
    fn decoded(length: Length, bytes: &[u8]) -> Result<(Vec<u8>, bool, Vec<u8>), Fault> {
        let (mut body, mut buffer, mut data) = (Body::new(length), BytesMut::from(bytes), Vec::new());
        loop {
            match body.next(&mut buffer)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::Wait => return Ok((data, false, buffer.to_vec())),
                Piece::End => return Ok((data, true, buffer.to_vec())),
            }
        }
    }

    #[test]
    fn bodies() {
        let ok = |data: &str, ended: bool, rest: &str| Ok((data.as_bytes().to_vec(), ended, rest.as_bytes().to_vec()));
        for (length, bytes, expected) in [
            (Length::None, "rest", ok("", true, "rest")),
            (Length::Fixed(3), "abcd", ok("abc", true, "d")),
            (Length::Fixed(3), "ab", ok("ab", false, "")),
            (Length::UntilEnd, "ab", ok("ab", false, "")),
            (Length::Chunked, "3\r\nabc\r\n0A\r\n0123456789\r\n0\r\n\r\nrest", ok("abc0123456789", true, "rest")),
            (Length::Chunked, "3\r\nabc\r\n0\r\nX: y\r\n\r\nrest", ok("abc", true, "rest")),
            (Length::Chunked, "3\r\nabc\r\n0\r\nX: y\r\n", ok("abc", false, "X: y\r\n")),
            (Length::Chunked, "3\r\nabc", ok("abc", false, "")),
            (Length::Chunked, "0000000000000003\r\nabc\r\n", ok("abc", false, "")),
            (Length::Chunked, "00000000000000003\r\nabc\r\n", Err(Malformed)),
            (Length::Chunked, "3;a=b\r\nabc\r\n", Err(Malformed)),
            (Length::Chunked, "3 \r\nabc\r\n", Err(Malformed)),
            (Length::Chunked, " 3\r\nabc\r\n", Err(Malformed)),
            (Length::Chunked, "0x3\r\nabc\r\n", Err(Malformed)),
            (Length::Chunked, "+3\r\nabc\r\n", Err(Malformed)),
            (Length::Chunked, "-3\r\nabc\r\n", Err(Malformed)),
            (Length::Chunked, "3\nabc\r\n", Err(Malformed)),
            (Length::Chunked, "3\rabc\r\n", Err(Malformed)),
            (Length::Chunked, "\r\nabc\r\n", Err(Malformed)),
            (Length::Chunked, "3\r\nabcd\r\n", Err(Malformed)),
            (Length::Chunked, "3\r\nabc\n", Err(Malformed)),
            (Length::Chunked, "3\r\nabc\r\r", Err(Malformed)),
            (Length::Chunked, "0\r\nX: y\n\r\n", Err(Malformed)),
            (Length::Chunked, "0\r\nX : y\r\n\r\n", Err(Malformed)),
            (Length::Chunked, "0\r\nContent-Length: 3\r\n\r\n", Err(Malformed)),
            (Length::Chunked, "0\r\nHost: b\r\n\r\n", Err(Malformed)),
        ] {
            assert_eq!(decoded(length, bytes.as_bytes()), expected, "{length:?} {bytes:?}");
        }
    }

    #[test]
    fn the_one_form() {
        let mut out = Vec::new();
        let fields = [Field { name: "X-A", value: b"1" }];
        let ends = Ends { length: Length::Fixed(3), connection: Persistence::KeepAlive, upgrade: None };
        write_head(&mut out, format_args!("POST /x HTTP/1.1"), Some(&"a:81".parse().unwrap()), &fields, ends);
        assert_eq!(String::from_utf8(out).unwrap(), "POST /x HTTP/1.1\r\nhost: a:81\r\nx-a: 1\r\ncontent-length: 3\r\n\r\n");
    }

    proptest! {
        /// In whatever pieces it comes.
        #[test]
        fn pieces_make_no_difference(cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let whole = b"3\r\nabc\r\n0a\r\n0123456789\r\n1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n";
            let (mut body, mut buffer, mut data, mut rest) = (Body::new(Length::Chunked), BytesMut::new(), Vec::new(), &whole[..]);
            for cut in cuts.iter().cycle() {
                while let Piece::Data(piece) = body.next(&mut buffer).unwrap() {
                    data.extend_from_slice(&piece);
                }
                if rest.is_empty() { break }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                buffer.extend_from_slice(now);
                rest = later;
            }
            prop_assert!(body.has_ended());
            prop_assert_eq!(data, b"abc0123456789x");
        }

        #[test]
        fn heads_in_pieces(cuts in proptest::collection::vec(1usize..9, 1..40)) {
            let whole = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nGET";
            let (mut scan, mut have) = (Scan::default(), 0);
            for cut in cuts.iter().cycle() {
                if let Some(found) = scan.head(&whole[..have]).unwrap() {
                    prop_assert_eq!(found, whole.len() - 3);
                    break;
                }
                have = (have + cut).min(whole.len());
            }
        }

        /// What is written is read again as the same.
        #[test]
        fn what_is_written_reads_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
            head.extend(bytes);
            head.extend(b"\r\n\r\n");
            let Ok(Some(length)) = scan(&head) else { return Ok(()) };
            let Ok(request) = Request::read(&head[..length]) else { return Ok(()) };
            let mut out = Vec::new();
            let ends = Ends { length: request.length, connection: request.persistence, upgrade: None };
            write_head(&mut out, format_args!("GET / HTTP/1.1"), Some(&request.host), &request.fields, ends);
            let again = Request::read(&out).unwrap();
            prop_assert_eq!(again.fields.len(), request.fields.len());
            prop_assert!(again.fields.iter().zip(&request.fields).all(|(a, b)| a.value == b.value && a.name.eq_ignore_ascii_case(b.name)));
        }
    }
}
