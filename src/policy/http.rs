//! HTTP in a policy: what may be asked of a destination, and whether one request may be.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::scope::{Authority, PathPattern, RequestTarget, SAFE_METHODS, is_method};

/// More rules than this are refused.
pub const MOST_RULES: usize = 64;
/// More methods, paths or upgrades of a rule than this are refused.
pub const MOST_OF_A_RULE: usize = 64;

/// A destination whose requests are judged one by one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http {
    pub scheme: Scheme,
    #[serde(default)]
    pub inspect: Inspect,
    /// Where the base URL leads: the declared port. Absent: that of the destination, or its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub access: HttpAccess,
    /// None: every path, with the methods that the access allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<HttpRule>,
}

/// What the destination speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// How the guard gets to see requests to a destination that speaks TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Inspect {
    /// The app asks the guard's own port; its own TLS to the destination is refused.
    #[default]
    BaseUrl,
    /// The guard ends the app's TLS with a certificate of its own as well.
    Intercept,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HttpAccess {
    /// Safe methods, and what rules declare beyond.
    Read,
    ReadWrite,
}

/// What is allowed together: one of the methods on one of the paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRule {
    /// None: those that the access allows.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub methods: BTreeSet<String>,
    /// None: every path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
    /// Protocols that a GET may switch to, in lower case.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub upgrades: BTreeSet<String>,
}

/// What is asked, as it will be sent.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub of: Of<'a>,
    pub method: &'a str,
    pub target: &'a RequestTarget<'a>,
    /// The protocol that it wants to switch to, in lower case.
    pub upgrade: Option<&'a str>,
    /// Whether a field is taken for the method, or for the path, by some frameworks.
    pub method_field: MethodField,
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// Whom the client names.
    Authority(&'a Authority),
    /// The data source that the base URL names.
    Source(&'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodField {
    Absent,
    Present,
}

impl Http {
    /// None if a guard can hold it, else what is wrong.
    pub(super) fn fault(&self) -> Option<String> {
        let Self { scheme, inspect, port, access, rules } = self;
        if *port == Some(0) {
            return Some("port: 1 to 65535".into());
        }
        if *scheme == Scheme::Http && *inspect == Inspect::Intercept {
            return Some("inspect: there is no TLS to intercept where scheme is Http".into());
        }
        if rules.len() > MOST_RULES {
            return Some(format!("rules: {} of them, more than {MOST_RULES}", rules.len()));
        }
        rules.iter().enumerate().find_map(|(at, rule)| {
            let HttpRule { methods, paths, upgrades } = rule;
            let fault = |what: &str| Some(format!("rules[{at}]: {what}"));
            let most = [methods.len(), paths.len(), upgrades.len()].into_iter().max().unwrap_or_default();
            if most > MOST_OF_A_RULE {
                return fault(&format!("{most} entries of a kind, more than {MOST_OF_A_RULE}"));
            }
            if let Some(method) = methods.iter().find(|method| !is_method(method) || matches!(method.as_str(), "CONNECT" | "TRACE")) {
                return fault(&format!("methods: {method:?} is no method that can be let through"));
            }
            let write = methods.iter().find(|method| !SAFE_METHODS.contains(&method.as_str()));
            if let (HttpAccess::Read, Some(method)) = (access, write) {
                if method != "POST" {
                    return fault(&format!(
                        "methods: {method} is no reading; only POST may be declared beyond the safe methods where access is Read"
                    ));
                }
                if paths.is_empty() {
                    return fault("paths: with access Read, POST needs the paths on which it only reads");
                }
            }
            if let Some(upgrade) = upgrades.iter().find(|upgrade| upgrade.as_str() != "websocket") {
                return fault(&format!("upgrades: {upgrade:?} cannot be let through; `websocket` can"));
            }
            let get = methods.is_empty() || methods.contains("GET");
            if !upgrades.is_empty() && !get {
                return fault("upgrades: a WebSocket begins with GET, which the rule does not allow");
            }
            None
        })
    }

    /// Whether this request may be made of it.
    pub(super) fn judge(&self, request: &Request<'_>) -> Result<(), Reason> {
        let Request { of: _, method, target, upgrade, method_field } = request;
        let limits_paths = self.rules.iter().any(|rule| !rule.paths.is_empty());
        if (self.limits_methods() || limits_paths) && (*method_field == MethodField::Present || target.names_a_method()) {
            return Err(Reason::MethodOverride);
        }
        if limits_paths && target.layered() {
            return Err(Reason::PathAmbiguous);
        }
        let every = HttpRule { methods: BTreeSet::new(), paths: Vec::new(), upgrades: BTreeSet::new() };
        let rules = if self.rules.is_empty() { std::slice::from_ref(&every) } else { &self.rules };
        let mut refused = Reason::PathNotDeclared;
        for rule in rules {
            if !(rule.paths.is_empty() || rule.paths.iter().any(|pattern| pattern.matches(target.path()))) {
                continue;
            }
            if !self.method_of(rule, method) {
                if refused == Reason::PathNotDeclared {
                    refused = Reason::MethodNotDeclared;
                }
                continue;
            }
            match upgrade {
                Some(protocol) if *method != "GET" || !rule.upgrades.contains(*protocol) => refused = Reason::UpgradeNotDeclared,
                _ => return Ok(()),
            }
        }
        Err(refused)
    }

    fn method_of(&self, rule: &HttpRule, method: &str) -> bool {
        if rule.methods.is_empty() {
            return match self.access {
                HttpAccess::Read => SAFE_METHODS.contains(&method),
                HttpAccess::ReadWrite => !matches!(method, "CONNECT" | "TRACE"),
            };
        }
        // HEAD is GET without the body.
        rule.methods.contains(method) || (method == "HEAD" && rule.methods.contains("GET"))
    }

    /// Whether methods are told apart: then bodies that could name another are looked at.
    pub fn limits_methods(&self) -> bool {
        self.access == HttpAccess::Read || self.rules.iter().any(|rule| !rule.methods.is_empty())
    }
}
