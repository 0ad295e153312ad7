//! Domain names, normalised once: lower case, no dot at the end, letters that DNS and TLS agree on.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name of at least one label, such as `api.example.com`. Never an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainNameError {
    #[error("a name has 1 to 253 characters")]
    Length,
    #[error("a label of a name has 1 to 63 characters")]
    Label,
    #[error("a name has letters of ASCII, digits, `-` and `_` only (write other letters in their `xn--` form)")]
    Character,
    #[error("an address is not a name")]
    Address,
}

impl DomainName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The name before this suffix: `orders.shop` for `orders.shop.svc.example` and suffix `svc.example`.
    pub fn before(&self, suffix: &DomainName) -> Option<Self> {
        self.0.strip_suffix(suffix.as_str())?.strip_suffix('.').map(|rest| Self(rest.to_owned()))
    }

    /// The name without its first label.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_once('.').map(|(_, rest)| Self(rest.to_owned()))
    }
}

/// The domain of most clusters.
impl Default for DomainName {
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() || text.len() > 253 {
            return Err(DomainNameError::Length);
        }
        for label in text.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(DomainNameError::Label);
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return Err(DomainNameError::Character);
            }
        }
        // Also what resolvers of the C library take for an address: 127.1, 0x7f000001, 2130706433.
        let last = text.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|b| b.is_ascii_digit())
            || last.strip_prefix("0x").or_else(|| last.strip_prefix("0X")).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if number || text.parse::<IpAddr>().is_ok() {
            return Err(DomainNameError::Address);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for DomainName {
    type Error = DomainNameError;

    fn try_from(text: String) -> Result<Self, DomainNameError> {
        text.parse()
    }
}

impl From<DomainName> for String {
    fn from(name: DomainName) -> Self {
        name.0
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_names() {
        let long = format!("{}.example", "a".repeat(64));
        let cases: &[(&str, Result<&str, DomainNameError>)] = &[
            ("API.Example.com.", Ok("api.example.com")),
            ("_grpc._tcp.db.shop.svc.cluster.local", Ok("_grpc._tcp.db.shop.svc.cluster.local")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("orders", Ok("orders")),
            ("1password.com", Ok("1password.com")),
            ("", Err(DomainNameError::Length)),
            (".", Err(DomainNameError::Length)),
            ("a..b", Err(DomainNameError::Label)),
            (".a", Err(DomainNameError::Label)),
            ("a..", Err(DomainNameError::Label)),
            (&long, Err(DomainNameError::Label)),
            ("büch.example", Err(DomainNameError::Character)),
            ("a b", Err(DomainNameError::Character)),
            ("a\0b", Err(DomainNameError::Character)),
            ("*.example.com", Err(DomainNameError::Character)),
            ("10.0.0.1", Err(DomainNameError::Address)),
            ("10.0.0.1.", Err(DomainNameError::Address)),
            ("127.1", Err(DomainNameError::Address)),
            ("2130706433", Err(DomainNameError::Address)),
            ("0x7f000001", Err(DomainNameError::Address)),
            ("0X7F.0x1", Err(DomainNameError::Address)),
            ("::1", Err(DomainNameError::Character)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<DomainName>().as_ref().map(DomainName::as_str).map_err(|e| *e), *expected, "{text:?}");
        }
        assert!(format!("{}example", "a.".repeat(130)).parse::<DomainName>().is_err());
    }

    #[test]
    fn suffixes_end_at_a_dot() {
        let name = |text: &str| text.parse::<DomainName>().unwrap();
        assert_eq!(name("orders.shop.svc.example").before(&name("svc.example")), Some(name("orders.shop")));
        assert_eq!(name("evil-svc.example").before(&name("svc.example")), None);
        assert_eq!(name("svc.example").before(&name("svc.example")), None);
        assert_eq!(name("a.b").parent(), Some(name("b")));
        assert_eq!(name("b").parent(), None);
    }
}
