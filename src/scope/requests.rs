//! What may be asked of a destination that speaks HTTP, request by request, and whether one declaration allows no more than others.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{PathPattern, SAFE_METHODS};

/// Of one data source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Requests {
    pub scheme: Scheme,
    /// Whether the guard ends the app's own TLS as well.
    pub inspected: bool,
    pub write: bool,
    /// Sorted. None: every path, with the methods that the access allows.
    pub rules: Vec<RequestRule>,
}

/// What the destination speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Scheme {
    Http,
    Https,
}

/// One of the methods on one of the paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RequestRule {
    /// None: those that the access allows.
    pub methods: BTreeSet<String>,
    /// None: every path.
    pub paths: BTreeSet<PathPattern>,
    /// Protocols that a GET may switch to, in lower case.
    pub upgrades: BTreeSet<String>,
}

/// The smallest thing that is allowed.
#[derive(Clone, Copy)]
struct Atom<'a> {
    /// None: any.
    method: Option<&'a str>,
    /// None: any.
    path: Option<&'a PathPattern>,
    upgrade: Option<&'a str>,
}

impl Requests {
    /// Whether everything that it allows one of `held` allows, which are of the same destination. Where that cannot be told, it does not.
    pub fn is_within(&self, held: &[&Self]) -> bool {
        let every = RequestRule::default();
        let same: Vec<&Self> = held.iter().copied().filter(|held| held.scheme == self.scheme).collect();
        self.rules_or(&every).iter().all(|rule| {
            let methods: Vec<Option<&str>> = match (rule.methods.is_empty(), self.write) {
                (false, _) => rule.methods.iter().map(|method| Some(method.as_str())).collect(),
                (true, false) => SAFE_METHODS.map(Some).to_vec(),
                (true, true) => vec![None],
            };
            let paths: Vec<Option<&PathPattern>> = if rule.paths.is_empty() { vec![None] } else { rule.paths.iter().map(Some).collect() };
            let upgrades = rule.upgrades.iter().map(|upgrade| (Some("GET"), Some(upgrade.as_str())));
            let all: Vec<_> = methods.into_iter().map(|method| (method, None)).chain(upgrades).collect();
            all.into_iter().all(|(method, upgrade)| {
                paths.iter().all(|path| same.iter().any(|held| held.allows(Atom { method, path: *path, upgrade })))
            })
        })
    }

    fn allows(&self, atom: Atom<'_>) -> bool {
        let every = RequestRule::default();
        self.rules_or(&every).iter().any(|rule| {
            let method = match (rule.methods.is_empty(), atom.method) {
                (true, None) => self.write,
                (true, Some(method)) => self.write || SAFE_METHODS.contains(&method),
                (false, None) => false,
                (false, Some(method)) => rule.methods.contains(method) || method == "HEAD" && rule.methods.contains("GET"),
            };
            let path = rule.paths.is_empty() || atom.path.is_some_and(|path| rule.paths.iter().any(|held| held.covers(path)));
            method && path && atom.upgrade.is_none_or(|upgrade| rule.upgrades.contains(upgrade))
        })
    }

    fn rules_or<'a>(&'a self, every: &'a RequestRule) -> &'a [RequestRule] {
        if self.rules.is_empty() { std::slice::from_ref(every) } else { &self.rules }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `GET,POST /a =/b +websocket; …`: `=` is exact, no method or path is any.
    fn requests(write: bool, text: &str) -> Requests {
        let rules = text.split(';').filter(|_| !text.is_empty()).map(|rule| {
            let mut parsed = RequestRule::default();
            for word in rule.split_whitespace() {
                match word.split_at(1) {
                    ("/", _) => _ = parsed.paths.insert(PathPattern::PathPrefix(word.parse().unwrap())),
                    ("=", path) => _ = parsed.paths.insert(PathPattern::Exact(path.parse().unwrap())),
                    ("+", upgrade) => _ = parsed.upgrades.insert(upgrade.to_owned()),
                    _ => parsed.methods.extend(word.split(',').map(str::to_owned)),
                }
            }
            parsed
        });
        Requests { scheme: Scheme::Https, inspected: false, write, rules: rules.collect() }
    }

    #[test]
    fn what_is_within() {
        let (read, write) = (false, true);
        for (new, old, expected) in [
            ((read, ""), (read, ""), true),
            ((read, ""), (write, ""), true),
            ((write, ""), (read, ""), false),
            ((write, "GET"), (read, ""), true),
            ((read, "/a"), (read, ""), true),
            ((read, ""), (read, "/a"), false),
            ((read, ""), (read, "/"), false),
            ((read, "/a/b"), (read, "/a"), true),
            ((read, "=/a"), (read, "/a"), true),
            ((read, "/a"), (read, "=/a"), false),
            ((read, "/ab"), (read, "/a"), false),
            ((read, "/a /b"), (read, "/a;/b"), true),
            ((read, "/a /c"), (read, "/a;/b"), false),
            ((read, "HEAD /a"), (read, "GET /a"), true),
            ((read, "GET /a"), (read, "HEAD /a"), false),
            ((read, "GET,HEAD,OPTIONS"), (read, ""), true),
            ((read, "POST /search"), (read, ""), false),
            ((read, "POST =/search"), (read, "POST /search"), true),
            ((read, "/a"), (read, "GET /a"), false),
            ((write, "/a"), (write, "GET,POST,PUT,PATCH,DELETE /a"), false),
            ((write, "PUT /a"), (write, "/a"), true),
            ((write, "GET /a;PUT /b"), (write, "GET,PUT /a /b"), true),
            ((write, "GET,PUT /a /b"), (write, "GET /a;PUT /b"), false),
            ((write, "GET /a +websocket"), (write, ""), false),
            ((write, "GET /a"), (write, "GET /a +websocket"), true),
            ((write, "GET /a +websocket"), (write, "GET / +websocket"), true),
            ((write, "/a +websocket"), (write, "/a"), false),
        ] {
            let (one, other) = (requests(new.0, new.1), requests(old.0, old.1));
            assert_eq!(one.is_within(&[&other]), expected, "{new:?} within {old:?}");
            assert!(one.is_within(&[&one]) && !one.is_within(&[]), "{new:?}");
        }
        let (gets, puts) = (requests(true, "GET /a"), requests(true, "PUT /b"));
        assert!(requests(true, "GET /a;PUT /b").is_within(&[&gets, &puts]), "by two together");
        assert!(!Requests { scheme: Scheme::Http, ..gets.clone() }.is_within(&[&gets]), "in the clear is another thing");
        assert!(Requests { inspected: true, ..gets.clone() }.is_within(&[&gets]), "another way to the same");
    }
}
