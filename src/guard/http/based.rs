//! Answers to whom knows a data source by its base URL only.
//!
//! Promise: a redirect of the upstream to itself leads to the base URL, so that the next request is judged as one to the same data source. A
//! cookie stays that data source's: to clients all base URLs are one host, and what one source sets would be sent to every other.

use super::means_the_guard;
use crate::scope::Authority;

/// A data source that was asked by its base URL, as redirects to itself must name it.
#[derive(Clone, Copy)]
pub struct Based<'a> {
    pub source: &'a str,
    pub scheme: &'a str,
    pub authority: &'a Authority,
    /// What the client calls the guard.
    pub own: &'a Authority,
    /// What was asked for, below the base URL.
    pub path: &'a str,
}

/// What clients speak with the guard.
const CLIENT: &str = "http";

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// A label that some read as a number: then its host is an address.
fn is_number(label: &str) -> bool {
    label.starts_with(|c: char| c.is_ascii_digit())
}

/// A path without `.` and `..`, however they are written, as clients resolve them (RFC 3986); never above its root.
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment.to_ascii_lowercase().replace("%2e", ".").as_str() {
            ".." => _ = kept.pop(),
            "." => {}
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

impl Based<'_> {
    /// What a field of an answer is to the client. None: as the upstream says it.
    pub fn field(&self, name: &str, value: &[u8]) -> Option<Vec<u8>> {
        if name.eq_ignore_ascii_case("location") {
            self.location(value).map(String::into_bytes)
        } else if name.eq_ignore_ascii_case("set-cookie") {
            Some(self.cookie(value))
        } else {
            None
        }
    }

    /// Where a redirect leads. None: as it says; the client's next request is judged in its turn.
    ///
    /// It is read as clients read it, the most generous of them: what leads to the guard, by whatever words, leads to this data source. To the
    /// client all base URLs are one host, so it would take what it says to one of them along to another.
    fn location(&self, value: &[u8]) -> Option<String> {
        let Self { source, scheme, authority, own, path } = self;
        let text: String = String::from_utf8_lossy(value).chars().filter(|c| *c != '\t').collect();
        let text = text.trim();
        let (there, rest) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
        let there = there.replace('\\', "/");
        let (said, there) = match there.split_once(':') {
            Some((said, there)) if is_scheme(said) => (Some(said.to_ascii_lowercase()), there),
            _ => (None, &*there),
        };
        // Without slashes it is relative to a URL of the same scheme.
        let is_whole = there.starts_with("//") || said.as_deref().is_some_and(|said| said != CLIENT);
        if is_whole {
            let there = there.trim_start_matches('/');
            let (host, below) = there.split_at(there.find('/').unwrap_or(there.len()));
            // What a user is called is no part of it.
            let host = host.rsplit('@').next().unwrap_or_default();
            let of = said.as_deref().unwrap_or(CLIENT);
            let default = if of == "https" { 443 } else { 80 };
            let is = |it: &Authority, other: &Authority| it.port.unwrap_or(default) == other.port.unwrap_or(default);
            let leads = match host.parse::<Authority>() {
                Ok(host) => {
                    let back = said.as_deref() == Some(*scheme) && host.host == authority.host && is(&host, authority);
                    back || of == CLIENT && (means_the_guard(&host) || host.host == own.host) && is(&host, own)
                }
                // Some read numbers as an address.
                Err(_) => of == CLIENT && host.split(':').next().unwrap_or_default().rsplit('.').any(is_number),
            };
            let below = if below.is_empty() { String::new() } else { resolved(below) };
            return leads.then(|| format!("/{source}{below}{rest}"));
        }
        if there.is_empty() {
            return None;
        }
        let below = match there.starts_with('/') {
            true => resolved(there),
            false => resolved(&format!("{}/{there}", path.rsplit_once('/').map_or("", |(before, _)| before))),
        };
        Some(format!("/{source}{below}{rest}"))
    }

    /// A cookie (RFC 6265): below the base URL, whatever it says of its host and path. One that is `__Host-` must have the path `/`, so
    /// strict clients drop it.
    fn cookie(&self, value: &[u8]) -> Vec<u8> {
        let mut parts = value.split(|byte| *byte == b';');
        let mut cookie = parts.next().unwrap_or_default().to_vec();
        let mut path: &[u8] = b"";
        for part in parts {
            let part = part.trim_ascii();
            let end = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
            let name = part[..end].trim_ascii();
            if name.eq_ignore_ascii_case(b"path") {
                path = part.get(end + 1..).unwrap_or_default().trim_ascii();
            } else if !name.eq_ignore_ascii_case(b"domain") {
                cookie.extend_from_slice(b"; ");
                cookie.extend_from_slice(part);
            }
        }
        cookie.extend_from_slice(b"; Path=/");
        cookie.extend_from_slice(self.source.as_bytes());
        // `/` of the upstream is all of the base URL.
        if path.starts_with(b"/") && path != b"/" {
            cookie.extend_from_slice(path);
        }
        cookie
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_cookie_says_it_is_of_its_source(value in "[ -~]{0,20}(;[ \t]?([pP]ath|[dD]omain|[a-z]{0,4}) ?=?[ -~]{0,9}){0,5}") {
            let (authority, own) = ("help.example.com".parse().unwrap(), "localhost:15474".parse().unwrap());
            let cookie = Based { source: "help", scheme: "https", authority: &authority, own: &own, path: "/" }.cookie(value.as_bytes());
            let attributes: Vec<&[u8]> = cookie.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii).collect();
            let named = |attribute: &[u8], name: &str| {
                attribute.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(name.as_bytes())
            };
            let paths: Vec<_> = attributes.iter().filter(|attribute| named(attribute, "path")).collect();
            prop_assert!(!attributes.iter().any(|attribute| named(attribute, "domain")));
            prop_assert!(matches!(paths[..], [path] if **path == *b"Path=/help" || path.starts_with(b"Path=/help/")), "{:?}", paths);
        }
    }

    #[test]
    fn where_redirects_of_a_base_url_lead() {
        let (authority, own) = ("help.example.com".parse().unwrap(), "localhost:15474".parse().unwrap());
        let based = Based { source: "help", scheme: "https", authority: &authority, own: &own, path: "/x/y" };
        for (location, expected) in [
            ("/a?b", Some("/help/a?b")),
            ("https://help.example.com/a", Some("/help/a")),
            ("https://HELP.example.com:443", Some("/help")),
            ("//help.example.com/a", None),
            ("http://help.example.com/a", None),
            ("https://help.example.com:8443/a", None),
            ("https://evil.example/a", None),
            ("https://evil.example/help.example.com", None),
            ("https://help.example.com@evil.example/", None),
            ("mailto:a@help.example.com", None),
            ("", None),
            ("?a", None),
            ("#a", None),
            ("a/b?../c", Some("/help/x/a/b?../c")),
            ("./a/", Some("/help/x/a/")),
            // What leads to the guard leads to this data source, and to no other.
            ("..", Some("/help/")),
            ("../..", Some("/help/")),
            ("../../../orders/a", Some("/help/orders/a")),
            ("/../orders/a", Some("/help/orders/a")),
            ("/a/%2e%2E/.%2e/orders", Some("/help/orders")),
            ("..\\..\\orders", Some("/help/orders")),
            (".\t./../orders", Some("/help/orders")),
            ("/\\orders/a", None),
            ("https://help.example.com/../../orders", Some("/help/orders")),
            ("http:/orders/a", Some("/help/orders/a")),
            ("http:../../orders", Some("/help/orders")),
            ("http://localhost:15474/orders/a?b", Some("/help/orders/a?b")),
            ("HTTP://127.0.0.1:15474/orders", Some("/help/orders")),
            ("http://[::1]:15474", Some("/help")),
            ("http://a@127.9.9.9:15474/orders", Some("/help/orders")),
            ("http:///127.0.0.1:15474/orders", Some("/help/orders")),
            ("//127.0.0.1:15474/orders", Some("/help/orders")),
            ("\\\\127.0.0.1:15474\\orders", Some("/help/orders")),
            ("/\t/127.0.0.1:15474/orders", Some("/help/orders")),
            ("http://127.1:15474/orders", Some("/help/orders")),
            ("http://2130706433:15474/orders", Some("/help/orders")),
            // Another program of this machine.
            ("http://localhost:3000/callback", None),
            ("https://localhost:15474/", None),
        ] {
            assert_eq!(based.location(location.as_bytes()).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn cookies_stay_with_their_source() {
        let authority = "help.example.com".parse().unwrap();
        let based = Based { source: "help", scheme: "https", authority: &authority, own: &authority, path: "/" };
        for (cookie, expected) in [
            ("a=b", "a=b; Path=/help"),
            ("a=b; Path=/", "a=b; Path=/help"),
            ("a=b;path = /x ;HttpOnly", "a=b; HttpOnly; Path=/help/x"),
            ("a=b; Path=/x; Path=/y; Domain=example.com; Max-Age=5; SameSite=Lax", "a=b; Max-Age=5; SameSite=Lax; Path=/help/y"),
            ("a=\"b=c\"; domain", "a=\"b=c\"; Path=/help"),
            ("a=b; Path=../other", "a=b; Path=/help"),
            ("", "; Path=/help"),
        ] {
            assert_eq!(String::from_utf8(based.field("Set-Cookie", cookie.as_bytes()).unwrap()).unwrap(), expected, "{cookie}");
        }
        assert_eq!(based.field("set-cookie2", b"a=b"), None);
    }
}
