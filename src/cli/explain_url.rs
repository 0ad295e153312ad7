//! `kubectl remit explain URL`: what a guard would say of one request, and the lines that would declare it.
//!
//! The destination is looked up in the policy by its name; the request is judged by the guard's own function, as if it came by the base URL:
//! what is allowed there is what is allowed by any other way, and which ways there are is said beside it.

use super::explain::{by_name, said};
use crate::policy::pod::base_url;
use crate::policy::{
    Arrived, Connect, Destination, Document, First, GuardPolicy, Http, HttpAccess, Inspect, MethodField, Of, Reason, Request, Scheme, Site,
    Target,
};
use crate::scope::{Authority, DomainName, Host, RequestTarget, SAFE_METHODS, is_method};

/// A request, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    scheme: Scheme,
    name: DomainName,
    port: u16,
    /// Path and query.
    target: String,
    method: String,
    websocket: bool,
}

pub(super) fn is_url(text: &str) -> bool {
    text.contains("://")
}

impl Url {
    pub(super) fn parse(text: &str, method: Option<&str>) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("{text} is no URL"))?;
        let (scheme, websocket) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, false),
            "https" => (Scheme::Https, false),
            "ws" => (Scheme::Http, true),
            "wss" => (Scheme::Https, true),
            other => return Err(format!("{other}:// is not judged request by request; http, https, ws and wss are")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let Authority { host, port } = authority.parse().map_err(|error| format!("{authority}: {error}"))?;
        let Host::Name(name) = host else {
            return Err(format!("{authority} is an address: explain it as ADDRESS:PORT, or say the name that the app asks for"));
        };
        let method = method.unwrap_or("GET");
        if !is_method(method) {
            return Err(format!("{method:?} is no method; write it in upper case, as GET"));
        }
        if websocket && method != "GET" {
            return Err("a WebSocket begins with GET; leave --method out".to_owned());
        }
        Ok(Self { scheme, name, port: port.unwrap_or(scheme.default_port()), target, method: method.to_owned(), websocket })
    }
}

/// A data source that leads where the URL does.
struct Found<'a> {
    source: &'a str,
    name: DomainName,
    is_host: bool,
    http: Option<&'a Http>,
}

/// What the guards of this policy make of it, and whether they refuse it.
pub(super) fn judged(document: &Document, policy: &GuardPolicy, url: &Url) -> (String, bool) {
    let of = format!("{}/{}", policy.workload.namespace, policy.workload.name);
    let shown = |name: &DomainName| format!("{} {}://{name}:{}{}", url.method, url.scheme.as_str(), url.port, url.target);
    let refuse = |name: &DomainName, reason: Reason| {
        let refused = !policy.observes();
        (said(&of, &shown(name), reason, refused), refused)
    };
    let target = match RequestTarget::parse(&url.target) {
        Ok(target) => target,
        Err(error) => {
            let (lines, refused) = refuse(&url.name, Reason::PathAmbiguous);
            return (format!("{lines}  {error}\n"), refused);
        }
    };
    let found = found(document, policy, url);
    let Some(first) = found.first() else {
        // What is nowhere declared is told as any destination, but for the lines.
        let (lines, refused) = by_name(policy, &of, &url.name, url.port);
        return match lines.split_once("  to declare it: ") {
            Some((told, declare)) => (format!("{told}  to declare it: {}\n", whole(declare.trim_end(), url, &target)), refused),
            None => (lines, refused),
        };
    };
    if policy.suspended {
        return (said(&of, &shown(&first.name), Reason::Suspended, true), true);
    }
    let unseen = found.iter().find(|found| found.http.is_none());
    if let Some(Found { source, name, is_host, http: _ }) = unseen {
        let by = if *is_host { "by the server name in TLS" } else { "by its address" };
        return match (is_host, url.scheme) {
            (true, Scheme::Http) => refuse(name, Reason::TlsRequired),
            _ => (format!("{of}: {} is let through: data source {source}, {by}; nobody sees the request\n", shown(name)), false),
        };
    }
    let mut why = None;
    for Found { source, name, is_host: _, http } in &found {
        let Some(http) = http.filter(|http| http.scheme == url.scheme) else { continue };
        let upgrade = url.websocket.then_some("websocket");
        let request = Request { of: Of::Source(source), method: &url.method, target: &target, upgrade, method_field: MethodField::Absent };
        match policy.request(&Site::OWN, &request) {
            Ok(permit) => match permit.observed() {
                None => {
                    let lines = format!("{of}: {} is let through: data source {source}\n", shown(name));
                    return (lines + &ways(http, source, &target), false);
                }
                Some(reason) => _ = why.get_or_insert((reason, *source, name, http)),
            },
            Err(reason) => _ = why.get_or_insert((reason, *source, name, http)),
        }
    }
    let Some((reason, source, name, http)) = why else {
        return refuse(&first.name, otherwise(policy, first, url));
    };
    let (mut lines, refused) = refuse(name, reason);
    if let Some(rule) = rule(reason, http, url, &target) {
        lines += &format!("  to declare it: in data source {source}, {rule}\n");
    }
    (lines, refused)
}

/// The data sources that are declared where the URL leads, with its name completed as a pod's search list would.
fn found<'a>(document: &'a Document, policy: &GuardPolicy, url: &Url) -> Vec<Found<'a>> {
    let names = policy.meant(&url.name);
    let of = |Destination { source, target }: &'a Destination| {
        let (name, at_port, is_host, http) = match target {
            Target::Service { name, namespace, ports, addresses: _, http } => {
                (format!("{name}.{namespace}.svc.{}", policy.domain).parse().ok()?, ports.contains(&url.port), false, http)
            }
            Target::Host { name, port, http } => (name.clone(), *port == url.port, true, http),
            Target::Kubernetes { .. } => return None,
        };
        (at_port && names.contains(&name)).then_some(Found { source, name, is_host, http: http.as_ref() })
    };
    document.destinations.iter().filter_map(of).collect()
}

/// Why what is declared to speak otherwise is refused.
fn otherwise(policy: &GuardPolicy, found: &Found<'_>, url: &Url) -> Reason {
    let first = match url.scheme {
        Scheme::Https => First::Hello(Ok(found.name.clone())),
        Scheme::Http => First::Other,
    };
    let connect = policy.connect(Arrived::For { name: &found.name, port: url.port }, Some(&first));
    match (connect, found.is_host, url.scheme) {
        (Connect::Denied(reason), true, _) => reason,
        (Connect::Permitted(permit), true, _) => permit.observed().unwrap_or(Reason::TlsRequired),
        (_, _, Scheme::Http) => Reason::TlsRequired,
        // TLS is no HTTP.
        (_, _, Scheme::Https) => Reason::RequestMalformed,
    }
}

/// How the app may ask.
fn ways(http: &Http, source: &str, target: &RequestTarget<'_>) -> String {
    let base = format!("{}{target}", base_url(source));
    match (http.scheme, http.inspect) {
        (Scheme::Https, Inspect::BaseUrl) => {
            format!("  asked as {base}; the app's own TLS is refused: {}\n", Reason::NotInspected)
        }
        _ => format!("  asked directly, or as {base}\n"),
    }
}

/// The rule that would allow it, where one could.
fn rule(reason: Reason, http: &Http, url: &Url, target: &RequestTarget<'_>) -> Option<String> {
    if !matches!(reason, Reason::MethodNotDeclared | Reason::PathNotDeclared | Reason::UpgradeNotDeclared) {
        return None;
    }
    let more = this(url, target)?;
    // Without rules everything is allowed that the access allows, and with one no longer.
    let rules = if http.rules.is_empty() { format!("http: [{{}}, {more}]") } else { format!("http: one rule more, {more}") };
    let access = if http.access == HttpAccess::Read && is_writing(&url.method) { ", with access: ReadWrite" } else { "" };
    Some(format!("{rules}{access}"))
}

fn this(url: &Url, target: &RequestTarget<'_>) -> Option<String> {
    let upgrades = if url.websocket { ", upgrades: [WebSocket]" } else { "" };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~' | b'%');
    let path = target.path();
    let path = if path.bytes().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', "''")) };
    let rule = format!("{{methods: [{}], paths: [{{type: Exact, value: {path}}}]{upgrades}}}", url.method);
    (!target.layered() && !matches!(url.method.as_str(), "CONNECT" | "TRACE")).then_some(rule)
}

fn is_writing(method: &str) -> bool {
    method != "POST" && !SAFE_METHODS.contains(&method)
}

/// A data source of its own, made from the lines that would declare the destination alone.
fn whole(lines: &str, url: &Url, target: &RequestTarget<'_>) -> String {
    let http = this(url, target).map(|rule| format!(", http: [{rule}]")).unwrap_or_default();
    let protocol = format!("protocol: {}{http}", url.scheme.as_str().to_ascii_uppercase());
    let lines = if is_writing(&url.method) { lines.to_owned() } else { lines.replace(" access: ReadWrite,", "") };
    match lines.strip_suffix("protocol: TCP}}]") {
        Some(before) => format!("{before}{protocol}}}}}]"),
        None => format!("{}, {protocol}}}}}]", lines.trim_end_matches("}}]")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::explain::read;

    fn policy(mode: &str) -> (Document, GuardPolicy) {
        let exact = |path: &str| json!([{"type": "Exact", "value": path}]);
        let document = json!({
            "format": 2, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": 2, "digest": "d", "mode": mode,
            "suspended": false,
            "network": {"domain": "cluster.local", "dns": ["10.96.0.10:53"], "services": ["10.244.0.0/16", "10.96.0.0/16"], "own": ["10.0.0.0/8"]},
            "destinations": [
                {"source": "orders", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [80, 8080],
                    "http": {"scheme": "Http", "port": 80, "access": "Read"}}},
                {"source": "db", "target": {"type": "Service", "name": "db", "namespace": "shop", "ports": [5432]}},
                {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 443, "http": {
                    "scheme": "Https", "port": 443, "access": "Read", "rules": [
                        {"methods": ["GET"], "paths": [{"type": "PathPrefix", "value": "/articles"}]},
                        {"methods": ["POST"], "paths": exact("/search")},
                    ]}}},
                {"source": "chat", "target": {"type": "Host", "name": "chat.example.com", "port": 443, "http": {
                    "scheme": "Https", "inspect": "Intercept", "port": 443, "access": "ReadWrite",
                    "rules": [{"paths": exact("/ws"), "upgrades": ["websocket"]}]}}},
                {"source": "tunnel", "target": {"type": "Host", "name": "tunnel.example.com", "port": 443}},
            ],
        });
        read(&document.to_string()).unwrap()
    }

    #[test]
    fn requests() {
        let (document, enforce) = policy("Enforce");
        // The URL, the method, whether it is refused, all of what is said after the workload and the request.
        for (url, method, refused, expected) in [
            (
                "https://help.example.com/articles/1?x=y",
                "GET",
                false,
                "is let through: data source help\n  asked as http://127.0.0.1:15474/help/articles/1?x=y; the app's own TLS is refused: not_inspected\n",
            ),
            (
                "https://help.example.com/search",
                "POST",
                false,
                "is let through: data source help\n  asked as http://127.0.0.1:15474/help/search; ",
            ),
            (
                "https://help.example.com/articles/1",
                "DELETE",
                true,
                "is refused: method_not_declared\n  the data source is declared, but not with this method on this path (`access: Read` allows GET, HEAD and OPTIONS)\n  to declare it: in data source help, http: one rule more, {methods: [DELETE], paths: [{type: Exact, value: /articles/1}]}, with access: ReadWrite\n",
            ),
            (
                "https://help.example.com/admin",
                "GET",
                true,
                "to declare it: in data source help, http: one rule more, {methods: [GET], paths: [{type: Exact, value: /admin}]}\n",
            ),
            ("https://help.example.com/a,b", "GET", true, "paths: [{type: Exact, value: '/a,b'}]"),
            ("https://help.example.com/articles/../admin", "GET", true, "is refused: path_ambiguous"),
            ("https://help.example.com/articles/%2e%2e%2fadmin", "GET", true, "is refused: path_ambiguous"),
            ("https://help.example.com:8443/", "GET", true, "is refused: port_not_declared"),
            ("http://help.example.com:443/articles", "GET", true, "is refused: tls_required"),
            ("http://orders.shop/", "GET", false, "data source orders\n  asked directly, or as http://127.0.0.1:15474/orders/\n"),
            ("http://orders.shop:8080/", "HEAD", false, "data source orders"),
            (
                "http://orders.shop/1",
                "POST",
                true,
                "to declare it: in data source orders, http: [{}, {methods: [POST], paths: [{type: Exact, value: /1}]}]\n",
            ),
            ("https://orders.shop:80/", "GET", true, "is refused: request_malformed"),
            ("http://db.shop:5432/", "GET", false, "data source db, by its address; nobody sees the request"),
            ("https://tunnel.example.com/", "DELETE", false, "data source tunnel, by the server name in TLS; nobody sees the request"),
            ("http://tunnel.example.com:443/", "GET", true, "is refused: tls_required"),
            ("wss://chat.example.com/ws", "GET", false, "data source chat\n  asked directly, or as http://127.0.0.1:15474/chat/ws\n"),
            (
                "wss://help.example.com/articles",
                "GET",
                true,
                "is refused: upgrade_not_declared\n  the request would switch to another protocol that the data source does not declare on this path\n  to declare it: in data source help, http: one rule more, {methods: [GET], paths: [{type: Exact, value: /articles}], upgrades: [WebSocket]}\n",
            ),
            (
                "https://evil.example.com/drop?a=b",
                "POST",
                true,
                "to declare it: dataSources: [{name: evil, type: Host, host: {name: evil.example.com, port: 443, protocol: HTTPS, http: [{methods: [POST], paths: [{type: Exact, value: /drop}]}]}}]\n",
            ),
            (
                "http://ledger.finance.svc.cluster.local:8080/entries/7",
                "PUT",
                true,
                "to declare it: dataSources: [{name: ledger, type: Service, access: ReadWrite, service: {name: ledger, namespace: finance, port: 8080, protocol: HTTP, http: [{methods: [PUT], paths: [{type: Exact, value: /entries/7}]}]}}]\n",
            ),
        ] {
            let (lines, is_refused) = judged(&document, &enforce, &Url::parse(url, Some(method)).unwrap());
            assert!(lines.starts_with("support/bot: ") && lines.contains(expected) && is_refused == refused, "{method} {url}: {lines}");
        }
        // What it says would declare it, an AIWorkload can say.
        let (lines, _) = judged(&document, &enforce, &Url::parse("https://evil.example.com/drop", Some("PUT")).unwrap());
        let (_, declare) = lines.split_once("to declare it: ").unwrap();
        let spec = format!("selector: {{matchLabels: {{app: a}}}}\nmode: Enforce\n{declare}");
        let object = format!(
            "apiVersion: remit.dev/v1alpha1\nkind: AIWorkload\nmetadata: {{name: a, namespace: b}}\nspec:\n{}",
            spec.lines().map(|line| format!("  {line}\n")).collect::<String>()
        );
        assert_eq!(crate::plan::validate(&serde_saphyr::from_str(&object).unwrap()).map(|scope| scope.sources.len()), Ok(1), "{object}");
    }

    #[test]
    fn in_observe_and_suspended() {
        let (document, observe) = policy("Observe");
        let url = |text: &str, method: &str| Url::parse(text, Some(method)).unwrap();
        for (text, method, words) in [
            ("https://help.example.com/articles", "PUT", "is let through by Observe; Enforce would refuse it: method_not_declared"),
            ("https://help.example.com/articles", "GET", "is let through: data source help"),
            ("https://evil.example.com/", "GET", "Enforce would refuse it: name_not_declared"),
        ] {
            let (lines, refused) = judged(&document, &observe, &url(text, method));
            assert!(lines.contains(words) && !refused, "{text}: {lines}");
        }
        let (document, mut suspended) = policy("Enforce");
        suspended.suspended = true;
        for text in ["https://help.example.com/articles", "https://tunnel.example.com/", "https://evil.example.com/"] {
            let (lines, refused) = judged(&document, &suspended, &url(text, "GET"));
            assert!(lines.contains("is refused: suspended") && refused, "{text}: {lines}");
        }
    }

    #[test]
    fn what_is_no_request() {
        for (text, method, words) in [
            ("ftp://a.example.com/", None, "http, https, ws and wss are"),
            ("https:///a", None, "not a host"),
            ("https://user@a.example.com/", None, "not a host"),
            ("https://203.0.113.7/", None, "explain it as ADDRESS:PORT"),
            ("https://a.example.com/", Some("get"), "upper case"),
            ("wss://a.example.com/", Some("POST"), "begins with GET"),
        ] {
            let error = Url::parse(text, method).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let url = Url::parse("HTTPS://A.example.com?x#y", None).unwrap();
        assert_eq!((url.target.as_str(), url.port, url.name.as_str(), url.method.as_str()), ("/?x", 443, "a.example.com", "GET"));
    }
}
