//! HTTP's words: who is asked, for what, and how. Parsed and normalised once; what is ambiguous is no word.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::DomainName;

/// Methods that change nothing, by their definition. TRACE is one, and is never let through: it hands back what the guard adds.
pub const SAFE_METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
/// A method is no longer.
pub const LONGEST_METHOD: usize = 32;

/// Whether this is a method as programs write it: letters in upper case, and dashes.
pub fn is_method(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_METHOD && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
}

/// Who is asked: a name or an address, and a port where one was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub host: Host,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Name(DomainName),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a host, or a host and a port")]
pub struct AuthorityError;

impl FromStr for Authority {
    type Err = AuthorityError;

    /// No user, no empty port, no address in a form that programs read differently.
    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(AuthorityError)?;
                // A zone is a device of this host: nobody's business beyond it.
                let address: Ipv6Addr = address.parse().map_err(|_| AuthorityError)?;
                (
                    Host::Address(IpAddr::V6(address).to_canonical()),
                    if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(AuthorityError)?) },
                )
            }
            None => {
                let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
                let host = match host.parse() {
                    Ok(address) => Host::Address(IpAddr::V4(address)),
                    Err(_) => Host::Name(host.parse().map_err(|_| AuthorityError)?),
                };
                (host, port)
            }
        };
        let number = |port: &str| {
            let plain = !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
            port.parse().ok().filter(|number| plain && *number != 0)
        };
        Ok(Self { host, port: port.map(|port| number(port).ok_or(AuthorityError)).transpose()? })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => f.write_str(name.as_str())?,
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// The path and query of a request in their one form: what is judged, and what is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    path: Cow<'a, str>,
    query: Option<&'a str>,
    /// See [`Self::layered`].
    layered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("a path begins with one slash")]
    Start,
    #[error("a path has no `.` or `..` segments, however they are written")]
    Dots,
    #[error("a backslash is a separator to some and a letter to others")]
    Backslash,
    #[error("`%` begins two hexadecimal digits")]
    Escape,
    #[error("a path has printable characters of ASCII only, and escapes of UTF-8 text")]
    Character,
}

impl<'a> RequestTarget<'a> {
    /// Of `/path?query`. Escaped letters, digits and `-._~` become themselves, other escapes upper case; what URLs may not hold is escaped.
    pub fn parse(text: &'a str) -> Result<Self, PathError> {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        // `http://host?query` asks for its root.
        let path = if path.is_empty() { "/" } else { path };
        // `//host/path` names a host to some.
        if !path.starts_with('/') || path.starts_with("//") {
            return Err(PathError::Start);
        }
        if query.is_some_and(|query| !query.bytes().all(|b| b.is_ascii_graphic() && b != b'#')) {
            return Err(PathError::Character);
        }
        let plain = path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'~'));
        let (path, layered) = if plain { (Cow::Borrowed(path), false) } else { normal(path)? };
        Ok(Self { path, query, layered })
    }

    /// Escaped in its one form.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// Whether it holds an escaped separator, or escapes that would make one (or dots) if they were read twice: one path to some
    /// programs, another to others.
    pub fn layered(&self) -> bool {
        self.layered
    }

    /// Whether a parameter of the query is taken for the method by some frameworks.
    pub fn names_a_method(&self) -> bool {
        self.query.is_some_and(names_a_method)
    }
}

impl fmt::Display for RequestTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        self.query.map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}

/// Whether a parameter of a query, or of a form, is taken for the method by some frameworks.
pub fn names_a_method(parameters: &str) -> bool {
    const NAMES: [&str; 6] = ["_method", "_httpmethod", "$httpmethod", "x-http-method-override", "x-http-method", "x-method-override"];
    parameters.split(['&', ';']).any(|parameter| {
        let name = decode(parameter.split('=').next().unwrap_or_default().as_bytes());
        // Frameworks end it there, or leave it out.
        if name.iter().any(|b| *b < b' ' && !b"\r\n\t".contains(b)) {
            return true;
        }
        // As they fold names: PHP takes `.` and ` ` for `_` and lets spaces lead, Rack lets brackets.
        let lead = |b: &&u8| b" +\r\n\t[]".contains(*b);
        let fold = |b: &u8| if b" .".contains(b) { b'_' } else { b.to_ascii_lowercase() };
        let folded: Vec<u8> = name.iter().skip_while(lead).take_while(|b| !b"[]\r\n\t".contains(*b)).map(fold).collect();
        NAMES.iter().any(|name| folded == name.as_bytes())
    })
}

/// Every valid escape read once.
fn decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'%', [a, b, after @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                out.push(nibble(*a) << 4 | nibble(*b));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn nibble(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or_default() as u8
}

/// The one form of a path, and whether it is layered.
fn normal(path: &str) -> Result<(Cow<'_, str>, bool), PathError> {
    let mut text = String::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let mut layered = false;
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let Some([a, b]) = bytes.get(at..at + 2) else { return Err(PathError::Escape) };
                if !a.is_ascii_hexdigit() || !b.is_ascii_hexdigit() {
                    return Err(PathError::Escape);
                }
                at += 2;
                let byte = nibble(*a) << 4 | nibble(*b);
                if byte.is_ascii_control() {
                    return Err(PathError::Character);
                }
                layered |= matches!(byte, b'/' | b'\\');
                decoded.push(byte);
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    text.push(byte as char);
                } else {
                    escape(&mut text, byte);
                }
            }
            b'\\' => return Err(PathError::Backslash),
            // Clients send them as they are, and no URL may hold them.
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                decoded.push(byte);
                escape(&mut text, byte);
            }
            _ if byte.is_ascii_graphic() && byte != b'#' => {
                decoded.push(byte);
                text.push(byte as char);
            }
            _ => return Err(PathError::Character),
        }
    }
    if std::str::from_utf8(&decoded).is_err() {
        return Err(PathError::Character);
    }
    if has_dots(&decoded) {
        return Err(PathError::Dots);
    }
    let twice = decode(&decoded);
    layered |= twice != decoded && (has_dots(&twice) || separators(&twice) != separators(&decoded));
    Ok((if text == path { Cow::Borrowed(path) } else { Cow::Owned(text) }, layered))
}

fn escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.extend(['%', DIGITS[usize::from(byte >> 4)] as char, DIGITS[usize::from(byte & 15)] as char]);
}

/// With or without parameters, as some servers cut them off.
fn has_dots(path: &[u8]) -> bool {
    let name = |segment: &[u8]| segment.split(|b| *b == b';').next().is_some_and(|name| matches!(name, b"." | b".."));
    path.split(|b| matches!(b, b'/' | b'\\')).any(name)
}

fn separators(path: &[u8]) -> usize {
    path.iter().filter(|b| matches!(b, b'/' | b'\\')).count()
}

/// Paths that are declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", deny_unknown_fields)]
pub enum PathPattern {
    /// This one.
    Exact(Path),
    /// This one and what lies below it.
    PathPrefix(Path),
}

/// A path in its one form, without a query.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(String);

impl Path {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Start);
        }
        let target = RequestTarget::parse(text)?;
        // Two readings of a declaration are one too many.
        if target.query.is_some() || target.layered {
            return Err(PathError::Character);
        }
        Ok(Self(target.path.into_owned()))
    }
}

impl TryFrom<String> for Path {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse()
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

impl PathPattern {
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact.0,
            Self::PathPrefix(prefix) => path
                .strip_prefix(prefix.0.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() && !prefix.0.ends_with('/') || rest.starts_with('/')),
        }
    }
}

impl PathPattern {
    /// Whether every path of the other is one of these.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Exact(path)) => self.matches(path.as_str()),
            (Self::PathPrefix(_), Self::PathPrefix(prefix)) => self.matches(prefix.as_str()),
            (Self::Exact(_), Self::PathPrefix(_)) => false,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path) = match self {
            Self::Exact(path) => ("Exact", path),
            Self::PathPrefix(path) => ("PathPrefix", path),
        };
        write!(f, "{{type: {kind}, value: {}}}", path.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked() {
        for (text, expected) in [
            ("Help.Example.com", Some("help.example.com")),
            ("help.example.com.", Some("help.example.com")),
            ("help.example.com:8443", Some("help.example.com:8443")),
            ("orders", Some("orders")),
            ("10.96.0.7:80", Some("10.96.0.7:80")),
            ("[2001:DB8::7]", Some("[2001:db8::7]")),
            ("[2001:db8::7]:443", Some("[2001:db8::7]:443")),
            ("[::ffff:10.0.0.1]:80", Some("10.0.0.1:80")),
            ("", None),
            (":80", None),
            ("a:", None),
            ("a:0", None),
            ("a:080", Some("a:80")),
            ("a:65536", None),
            ("a:+80", None),
            ("a:80:80", None),
            ("user@a", None),
            ("a/b", None),
            ("a b", None),
            ("2001:db8::7", None),
            ("[2001:db8::7", None),
            ("[2001:db8::7]80", None),
            ("[fe80::1%25eth0]", None),
            ("127.1", None),
            ("0x7f.1", None),
            ("010.0.0.1", None),
            ("b\u{fc}ch.example", None),
        ] {
            assert_eq!(text.parse::<Authority>().ok().map(|a| a.to_string()).as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_one_form_of_a_target() {
        use PathError::*;
        for (text, expected) in [
            ("/", Ok("/")),
            ("/a/b?x=%2e&y", Ok("/a/b?x=%2e&y")),
            ("/a?", Ok("/a?")),
            ("/a//b", Ok("/a//b")),
            ("/%41%7e%2D", Ok("/A~-")),
            ("/a%c3%bc", Ok("/a%C3%BC")),
            ("/a|b{c}", Ok("/a%7Cb%7Bc%7D")),
            ("/a%7cb", Ok("/a%7Cb")),
            ("/a;b=c,(d)[e]", Ok("/a;b=c,(d)[e]")),
            ("/v1.2/x.y/...", Ok("/v1.2/x.y/...")),
            ("/a%3bb", Ok("/a%3Bb")),
            ("/a%252e", Ok("/a%252e")),
            ("", Ok("/")),
            ("a", Err(Start)),
            ("*", Err(Start)),
            ("//a", Err(Start)),
            ("?a", Ok("/?a")),
            ("/.", Err(Dots)),
            ("/a/../b", Err(Dots)),
            ("/a/..", Err(Dots)),
            ("/a/%2e%2E/b", Err(Dots)),
            ("/a/.%2e", Err(Dots)),
            ("/a/..;x/b", Err(Dots)),
            ("/a/..%3bx/b", Err(Dots)),
            ("/a%2f..%2fb", Err(Dots)),
            ("/a%5c..%5cb", Err(Dots)),
            ("/a\\b", Err(Backslash)),
            ("/a%", Err(Escape)),
            ("/a%2", Err(Escape)),
            ("/a%zz", Err(Escape)),
            ("/a%00", Err(Character)),
            ("/a%0d%0a", Err(Character)),
            ("/a%7f", Err(Character)),
            ("/a#b", Err(Character)),
            ("/a?b#c", Err(Character)),
            ("/a b", Err(Character)),
            ("/a?b c", Err(Character)),
            ("/\u{fc}", Err(Character)),
            ("/%ff", Err(Character)),
            ("/%c0%ae%c0%ae/", Err(Character)),
        ] {
            assert_eq!(RequestTarget::parse(text).map(|t| t.to_string()).as_deref().map_err(|e| *e), expected, "{text:?}");
        }
    }

    #[test]
    fn what_has_layers() {
        for (text, expected) in [
            ("/a/b.c", false),
            ("/a%20b", false),
            ("/100%25", false),
            ("/a%2541", false),
            ("/a%2fb", true),
            ("/a%5Cb", true),
            ("/a%252fb", true),
            ("/a%255cb", true),
            ("/a/%252e%252e/b", true),
        ] {
            assert_eq!(RequestTarget::parse(text).unwrap().layered(), expected, "{text}");
        }
    }

    #[test]
    fn its_form_is_stable() {
        for text in ["/a%c3%bc|%41", "/%7B%7D", "/a%252e"] {
            let once = RequestTarget::parse(text).unwrap().to_string();
            assert_eq!(RequestTarget::parse(&once).unwrap().to_string(), once);
        }
    }

    #[test]
    fn parameters_that_name_a_method() {
        for (query, expected) in [
            ("_method=DELETE", true),
            ("a=b&_METHOD=PUT", true),
            ("a=b;%5fmethod=PUT", true),
            ("+_method=PUT", true),
            (".method=PUT", true),
            ("_method[]=PUT", true),
            ("X-HTTP-Method-Override=PUT", true),
            ("_method%00=PUT", true),
            ("_method%00x=PUT", true),
            ("[_method]=PUT", true),
            ("]_method=PUT", true),
            ("_HttpMethod=PATCH", true),
            ("a=_method", false),
            ("my_method=x", false),
            ("method=x", false),
            ("", false),
        ] {
            assert_eq!(RequestTarget::parse(&format!("/?{query}")).unwrap().names_a_method(), expected, "{query}");
        }
    }

    #[test]
    fn patterns() {
        let exact = |text: &str| PathPattern::Exact(text.parse().unwrap());
        let prefix = |text: &str| PathPattern::PathPrefix(text.parse().unwrap());
        for (pattern, path, expected) in [
            (exact("/a"), "/a", true),
            (exact("/a"), "/a/", false),
            (exact("/%61"), "/a", true),
            (exact("/a"), "/A", false),
            (prefix("/a"), "/a", true),
            (prefix("/a"), "/a/b", true),
            (prefix("/a"), "/ab", false),
            (prefix("/a"), "/a;x/b", false),
            (prefix("/a/"), "/a/b", true),
            (prefix("/a/"), "/a", false),
            (prefix("/"), "/", true),
            (prefix("/"), "/a", true),
        ] {
            assert_eq!(pattern.matches(path), expected, "{pattern} {path}");
        }
        for bad in ["", "a", "/..", "/a?b", "/a%2fb", "/a#b"] {
            assert!(bad.parse::<Path>().is_err(), "{bad:?}");
        }
        assert_eq!(serde_json::to_string(&prefix("/a")).unwrap(), r#"{"type":"PathPrefix","value":"/a"}"#);
    }
}
