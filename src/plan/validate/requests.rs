//! What is declared of HTTP → what may be asked.
//!
//! Promise: every method, path and variable in its one form, Read never with a method that writes, nothing that a guard would refuse to read.
//! In: the members of a Service or a host. Out: [`Requests`] and variables, or errors under their path; what data sources say of each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Errors;
use crate::api;
use crate::scope::{Path, PathPattern, RequestRule, Requests, SAFE_METHODS, Scheme, Source, Target, is_method};

/// More rules, methods and paths than this in one AIWorkload are refused: guards read no larger policy.
const MOST_HTTP: usize = 1_000;

/// The members that a Service and a host have in common.
pub(super) struct Declared<'a> {
    /// None: bytes pass unseen.
    pub scheme: Option<Scheme>,
    pub write: bool,
    pub http: &'a [api::HttpRule],
    pub tls_inspection: Option<api::TlsInspection>,
    pub base_url_env: &'a [String],
}

pub(super) fn requests(path: &str, declared: &Declared<'_>, errors: &mut Errors) -> (Option<Requests>, BTreeSet<String>) {
    let Declared { scheme, write, http, tls_inspection, base_url_env } = declared;
    let inspected = *tls_inspection == Some(api::TlsInspection::Enabled);
    if inspected && *scheme != Some(Scheme::Https) {
        errors.push(format!("{path}.tlsInspection"), "there is TLS to look into with protocol HTTPS only; leave it out");
    }
    let Some(scheme) = *scheme else {
        for (member, empty) in [("http", http.is_empty()), ("baseURLEnv", base_url_env.is_empty())] {
            if !empty {
                let message = "only what is HTTP can be judged request by request; set protocol: HTTP or HTTPS, or leave it out";
                errors.push(format!("{path}.{member}"), message);
            }
        }
        return (None, BTreeSet::new());
    };
    let mut rules: Vec<RequestRule> =
        http.iter().enumerate().map(|(at, declared)| rule(&format!("{path}.http[{at}]"), declared, *write, errors)).collect();
    rules.sort();
    rules.dedup();
    for name in *base_url_env {
        let plain = name.bytes().enumerate().all(|(at, b)| b.is_ascii_alphabetic() || b == b'_' || at > 0 && b.is_ascii_digit());
        if name.is_empty() || name.len() > 128 || !plain {
            errors.push(format!("{path}.baseURLEnv"), format!("{name:?} is not the name of a variable; use letters, digits and `_`"));
        } else if is_never_a_base_url(name) {
            let message = format!(
                "programs take {name} for something else, or Remit sets it; name the variable that your client reads its base URL from"
            );
            errors.push(format!("{path}.baseURLEnv"), message);
        }
    }
    (Some(Requests { scheme, inspected, write: *write, rules }), base_url_env.iter().cloned().collect())
}

fn is_never_a_base_url(name: &str) -> bool {
    api::NEVER_A_BASE_URL.iter().any(|row| row.strip_suffix('*').map_or(*row == name, |group| name.starts_with(group)))
}

fn rule(path: &str, declared: &api::HttpRule, write: bool, errors: &mut Errors) -> RequestRule {
    let api::HttpRule { methods, paths, upgrades } = declared;
    for method in methods {
        let wrong = if !is_method(method) {
            format!("{method:?} is no method; write methods in upper case, as GET")
        } else if matches!(method.as_str(), "CONNECT" | "TRACE") {
            format!("{method} is never let through; leave it out")
        } else if !write && method != "POST" && !SAFE_METHODS.contains(&method.as_str()) {
            format!("{method} is no reading: with access Read only GET, HEAD, OPTIONS and POST can be declared; declare access: ReadWrite")
        } else {
            continue;
        };
        errors.push(format!("{path}.methods"), wrong);
    }
    if !write && paths.is_empty() {
        let what = if methods.iter().any(|method| method == "POST") { Some("POST needs") } else { None };
        let what = what.or((!upgrades.is_empty()).then_some("a WebSocket needs"));
        if let Some(what) = what {
            let message =
                format!("with access Read, {what} the paths on which it only reads; name the paths, or declare access: ReadWrite");
            errors.push(format!("{path}.paths"), message);
        }
    }
    if !upgrades.is_empty() && !methods.is_empty() && !methods.iter().any(|method| method == "GET") {
        errors.push(format!("{path}.upgrades"), "a WebSocket begins with GET; name GET among the methods, or leave methods out");
    }
    let pattern = |errors: &mut Errors, at: usize, declared: &api::HttpPath| {
        let api::HttpPath { type_, value } = declared;
        match value.parse::<Path>() {
            Ok(value) => Some(match type_ {
                api::HttpPathType::Exact => PathPattern::Exact(value),
                api::HttpPathType::PathPrefix => PathPattern::PathPrefix(value),
            }),
            Err(error) => {
                errors.push(format!("{path}.paths[{at}].value"), format!("{value:?} can be read in more than one way: {error}"));
                None
            }
        }
    };
    RequestRule {
        methods: methods.iter().cloned().collect(),
        paths: paths.iter().enumerate().filter_map(|(at, path)| pattern(errors, at, path)).collect(),
        upgrades: upgrades.iter().map(|api::Upgrade::WebSocket| "websocket".to_owned()).collect(),
    }
}

/// How many rules, methods and paths a spec names, before they are read.
pub(super) fn is_too_much(spec: &api::AIWorkloadSpec) -> Option<String> {
    let http = spec.data_sources.iter().flat_map(|source| {
        let service = source.service.iter().flat_map(|service| &service.http);
        service.chain(source.host.iter().flat_map(|host| &host.http))
    });
    let named = http.map(|rule| 1 + rule.methods.len() + rule.paths.len()).fold(0, usize::saturating_add);
    (named > MOST_HTTP).then(|| {
        format!("names {named} rules, methods and paths of HTTP, more than {MOST_HTTP}; declare prefixes, or split the AIWorkload")
    })
}

/// What one data source takes from another: a variable, or the judging of requests.
pub(super) fn together(sources: &[Source], errors: &mut Errors) {
    let mut variables: BTreeMap<&str, &str> = BTreeMap::new();
    for source in sources {
        let member = match &source.target {
            Target::Service { .. } => "service",
            Target::Host { .. } => "host",
            _ => continue,
        };
        let path = format!("dataSources[name={}].{member}", source.name);
        for variable in &source.base_url_env {
            if let Some(first) = variables.insert(variable, &source.name) {
                let message = format!("{variable} is given the base URL of data source `{first}` as well; give each a variable of its own");
                errors.push(format!("{path}.baseURLEnv"), message);
            }
        }
        let unseen = |other: &&Source| match (&source.target, &other.target) {
            (Target::Service { service, port, http: Some(_) }, Target::Service { service: s, port: p, http: None }) => {
                service == s && port == p
            }
            (Target::Host { host, port, http: Some(_) }, Target::Host { host: h, port: p, http: None }) => host == h && port == p,
            _ => false,
        };
        if let Some(other) = sources.iter().find(unseen) {
            let message = format!(
                "data source `{}` lets everything pass there unseen, so that no request would be judged; take one of the two out",
                other.name
            );
            errors.push(format!("{path}.protocol"), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::fixture;
    use crate::plan::validate::fixture::{BASE, errors};

    fn host(access: &str, more: &str) -> String {
        format!("{{name: a, type: Host, access: {access}, host: {{name: a.example.com, port: 443, {more}}}}}")
    }

    /// Each case: access, what the host has, the member and words of the message; no words: it is valid.
    #[test]
    fn http_table() {
        let many = |n: usize| (0..n).map(|n| format!("{{type: Exact, value: /{n}}}")).collect::<Vec<_>>().join(", ");
        let cases = [
            ("Read", "protocol: HTTPS", "", ""),
            ("Read", "protocol: HTTP", "", ""),
            ("ReadWrite", "protocol: HTTPS", "", ""),
            ("ReadWrite", "protocol: TLS", "", ""),
            ("Read", "protocol: TLS", ".access", "nothing can hold a raw TCP connection to Read"),
            ("ReadWrite", "http: [{methods: [GET]}]", ".host.http", "set protocol: HTTP or HTTPS"),
            ("ReadWrite", "baseURLEnv: [HELP_URL]", ".host.baseURLEnv", "set protocol: HTTP or HTTPS"),
            ("ReadWrite", "tlsInspection: Enabled", ".host.tlsInspection", "protocol HTTPS only"),
            ("ReadWrite", "tlsInspection: Disabled", "", ""),
            ("Read", "protocol: HTTP, tlsInspection: Enabled", ".host.tlsInspection", "protocol HTTPS only"),
            ("Read", "protocol: HTTPS, tlsInspection: Enabled", "", ""),
            ("Read", "protocol: HTTPS, http: [{methods: [GET], paths: [{type: PathPrefix, value: /v1}]}]", "", ""),
            ("Read", "protocol: HTTPS, http: [{methods: [get]}]", ".host.http[0].methods", "upper case"),
            ("Read", "protocol: HTTPS, http: [{methods: ['A B']}]", ".host.http[0].methods", "is no method"),
            ("ReadWrite", "protocol: HTTPS, http: [{methods: [CONNECT]}]", ".host.http[0].methods", "never let through"),
            ("ReadWrite", "protocol: HTTPS, http: [{methods: [GET]}, {methods: [TRACE]}]", ".host.http[1].methods", "never let through"),
            ("Read", "protocol: HTTPS, http: [{methods: [PUT]}]", ".host.http[0].methods", "declare access: ReadWrite"),
            ("Read", "protocol: HTTPS, http: [{methods: [PURGE]}]", ".host.http[0].methods", "declare access: ReadWrite"),
            ("ReadWrite", "protocol: HTTPS, http: [{methods: [PURGE]}]", "", ""),
            ("Read", "protocol: HTTPS, http: [{methods: [POST]}]", ".host.http[0].paths", "POST needs the paths"),
            ("Read", "protocol: HTTPS, http: [{methods: [POST], paths: [{type: Exact, value: /search}]}]", "", ""),
            ("ReadWrite", "protocol: HTTPS, http: [{methods: [POST]}]", "", ""),
            ("Read", "protocol: HTTPS, http: [{upgrades: [WebSocket]}]", ".host.http[0].paths", "a WebSocket needs the paths"),
            ("Read", "protocol: HTTPS, http: [{paths: [{type: Exact, value: /ws}], upgrades: [WebSocket]}]", "", ""),
            ("ReadWrite", "protocol: HTTPS, http: [{methods: [POST], upgrades: [WebSocket]}]", ".host.http[0].upgrades", "name GET"),
            ("ReadWrite", "protocol: HTTPS, http: [{upgrades: [WebSocket]}]", "", ""),
            (
                "Read",
                "protocol: HTTPS, http: [{paths: [{type: Exact, value: a}]}]",
                ".host.http[0].paths[0].value",
                "begins with one slash",
            ),
            ("Read", "protocol: HTTPS, http: [{paths: [{type: Exact, value: /a/../b}]}]", ".host.http[0].paths[0].value", "`..` segments"),
            (
                "Read",
                "protocol: HTTPS, http: [{paths: [{type: Exact, value: '/a?b'}]}]",
                ".host.http[0].paths[0].value",
                "more than one way",
            ),
            (
                "Read",
                "protocol: HTTPS, http: [{paths: [{type: Exact, value: /a%2fb}]}]",
                ".host.http[0].paths[0].value",
                "more than one way",
            ),
            ("Read", "protocol: HTTPS, baseURLEnv: [HELP_URL, help2]", "", ""),
            ("Read", "protocol: HTTPS, baseURLEnv: ['2A']", ".host.baseURLEnv", "name of a variable"),
            ("Read", "protocol: HTTPS, baseURLEnv: ['']", ".host.baseURLEnv", "name of a variable"),
            ("Read", "protocol: HTTPS, baseURLEnv: [A=B]", ".host.baseURLEnv", "name of a variable"),
            ("Read", "protocol: HTTPS, baseURLEnv: [LD_PRELOAD]", ".host.baseURLEnv", "something else"),
            ("Read", "protocol: HTTPS, baseURLEnv: [PATH]", ".host.baseURLEnv", "something else"),
            ("Read", "protocol: HTTPS, baseURLEnv: [NODE_OPTIONS]", ".host.baseURLEnv", "something else"),
            ("Read", "protocol: HTTPS, baseURLEnv: [PYTHONSTARTUP]", ".host.baseURLEnv", "something else"),
            ("Read", "protocol: HTTPS, baseURLEnv: [SSL_CERT_FILE]", ".host.baseURLEnv", "Remit sets it"),
            ("Read", &format!("protocol: HTTPS, http: [{{paths: [{}]}}]", many(999)), "", ""),
        ];
        for (access, more, member, words) in cases {
            let found = errors(&format!("dataSources: [{}]", host(access, more)));
            if words.is_empty() {
                assert_eq!(found, Vec::<String>::new(), "{access} {more}");
                continue;
            }
            let path = format!("dataSources[name=a]{member}: ");
            assert!(found.len() == 1 && found[0].starts_with(&path) && found[0].contains(words), "{access} {more}\n{found:?}");
        }
        let more = format!("protocol: HTTPS, http: [{{paths: [{}]}}]", many(1_000));
        let found = errors(&format!("dataSources: [{}]", host("Read", &more)));
        assert!(found.len() == 1 && found[0].starts_with("dataSources: names 1001 rules"), "{found:?}");
    }

    #[test]
    fn services_say_the_same() {
        let service = |access: &str, more: &str| {
            errors(&format!("dataSources: [{{name: a, type: Service, access: {access}, service: {{name: x, port: 80, {more}}}}}]"))
        };
        assert_eq!(service("Read", "protocol: HTTP"), [""; 0]);
        for (access, more, member) in [
            ("Read", "protocol: TCP", ".access"),
            ("ReadWrite", "protocol: TCP, http: [{}]", ".service.http"),
            ("ReadWrite", "protocol: HTTP, tlsInspection: Enabled", ".service.tlsInspection"),
            ("Read", "protocol: HTTPS, http: [{methods: [DELETE]}]", ".service.http[0].methods"),
        ] {
            let found = service(access, more);
            assert!(found.len() == 1 && found[0].starts_with(&format!("dataSources[name=a]{member}: ")), "{more}: {found:?}");
        }
    }

    #[test]
    fn data_sources_beside_each_other() {
        let source =
            |name: &str, more: &str| format!("{{name: {name}, type: Host, access: ReadWrite, host: {{name: a.example.com, {more}}}}}");
        let (seen, variable) = ("port: 443, protocol: HTTPS", "port: 443, protocol: HTTPS, baseURLEnv: [A]");
        for (one, other, expected) in [
            (seen, seen, ""),
            (seen, "port: 443, protocol: HTTP", ""),
            (seen, "port: 8443", ""),
            (seen, "port: 443", "dataSources[name=one].host.protocol: data source `other` lets everything pass there unseen"),
            ("port: 443", seen, "dataSources[name=other].host.protocol: data source `one` lets everything pass there unseen"),
            (variable, variable, "dataSources[name=other].host.baseURLEnv: A is given the base URL of data source `one` as well"),
        ] {
            let found = errors(&format!("dataSources: [{}, {}]", source("one", one), source("other", other)));
            assert!(found.len() == usize::from(!expected.is_empty()), "{found:?}");
            assert!(found.iter().all(|e| e.starts_with(expected)), "{found:?}");
        }
    }

    /// However it was written, one scope.
    #[test]
    fn one_form() {
        let of =
            |http: &str| fixture::scope(&format!("{BASE}dataSources: [{}]", host("ReadWrite", &format!("protocol: HTTPS, http: {http}"))));
        let one = of("[{methods: [PUT, GET], paths: [{type: Exact, value: /%41}]}, {paths: [{type: PathPrefix, value: /b}]}]");
        let other = of("[{paths: [{type: PathPrefix, value: /b}]}, {methods: [GET, PUT, GET], paths: [{type: Exact, value: /A}]}]");
        assert_eq!((one.digest(), &one), (other.digest(), &other));
        assert_ne!(one.digest(), of("[{paths: [{type: PathPrefix, value: /b}]}]").digest());
    }
}
