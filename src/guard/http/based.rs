//! Answers to whom knows a data source by its base URL only.
//!
//! Promise: a redirect of the upstream to itself leads to the base URL, so that the next request is judged as one to the same data source. A
//! cookie stays that data source's: to clients all base URLs are one host, and what one source sets would be sent to every other.

use crate::scope::Authority;

/// A data source that was asked by its base URL, as redirects to itself must name it.
#[derive(Clone, Copy)]
pub struct Based<'a> {
    pub source: &'a str,
    pub scheme: &'a str,
    pub authority: &'a Authority,
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
    fn location(&self, value: &[u8]) -> Option<String> {
        let Self { source, scheme, authority } = self;
        let text = std::str::from_utf8(value).ok()?;
        if text.starts_with('/') && !text.starts_with("//") {
            return Some(format!("/{source}{text}"));
        }
        let (said, rest) = text.split_once("://").filter(|(said, _)| said.eq_ignore_ascii_case(scheme))?;
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host: Authority = host.parse().ok()?;
        let default = if said.eq_ignore_ascii_case("https") { 443 } else { 80 };
        let same = host.host == authority.host && host.port.unwrap_or(default) == authority.port.unwrap_or(default);
        same.then(|| format!("/{source}{path}"))
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
            let authority = "help.example.com".parse().unwrap();
            let cookie = Based { source: "help", scheme: "https", authority: &authority }.cookie(value.as_bytes());
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
        let authority = "help.example.com".parse().unwrap();
        let based = Based { source: "help", scheme: "https", authority: &authority };
        for (location, expected) in [
            ("/a?b", Some("/help/a?b")),
            ("https://help.example.com/a", Some("/help/a")),
            ("https://HELP.example.com:443", Some("/help")),
            ("//help.example.com/a", None),
            ("http://help.example.com/a", None),
            ("https://help.example.com:8443/a", None),
            ("https://evil.example/a", None),
            ("a/b", None),
        ] {
            assert_eq!(based.location(location.as_bytes()).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn cookies_stay_with_their_source() {
        let authority = "help.example.com".parse().unwrap();
        let based = Based { source: "help", scheme: "https", authority: &authority };
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
