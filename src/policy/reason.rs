//! Why not: the closed list. Records, DNS answers and `kubectl remit explain` use its codes and words, the operator's metrics its codes;
//! `docs/reasons.md` is made from all of it.

use std::fmt;
use std::net::SocketAddr;

use serde::{Serialize, Serializer};

use crate::scope::DomainName;

/// Why something was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The guard has never read a valid policy.
    NoPolicy,
    Suspended,
    DestinationNotDeclared,
    PortNotDeclared,
    NameNotDeclared,
    AddressForbidden,
    TlsRequired,
    HelloMalformed,
    ServerNameMissing,
    ServerNameNotDeclared,
    EncryptedHello,
    ResolvesToForbiddenAddress,
    ResolutionFailed,
    Unreachable,
    QueryMalformed,
    TooManyQueries,
    TooManyConnections,
    TooSlow,
    HostMismatch,
    MethodNotDeclared,
    PathNotDeclared,
    PathAmbiguous,
    MethodOverride,
    UpgradeNotDeclared,
    NotInspected,
    SourceNotDeclared,
    RequestMalformed,
    RequestTooLarge,
    UpstreamUntrusted,
    UpstreamMalformed,
    UpstreamSlow,
}

impl Reason {
    pub const ALL: [Reason; 31] = [
        Reason::NoPolicy,
        Reason::Suspended,
        Reason::DestinationNotDeclared,
        Reason::PortNotDeclared,
        Reason::NameNotDeclared,
        Reason::AddressForbidden,
        Reason::TlsRequired,
        Reason::HelloMalformed,
        Reason::ServerNameMissing,
        Reason::ServerNameNotDeclared,
        Reason::EncryptedHello,
        Reason::ResolvesToForbiddenAddress,
        Reason::ResolutionFailed,
        Reason::Unreachable,
        Reason::QueryMalformed,
        Reason::TooManyQueries,
        Reason::TooManyConnections,
        Reason::TooSlow,
        Reason::HostMismatch,
        Reason::MethodNotDeclared,
        Reason::PathNotDeclared,
        Reason::PathAmbiguous,
        Reason::MethodOverride,
        Reason::UpgradeNotDeclared,
        Reason::NotInspected,
        Reason::SourceNotDeclared,
        Reason::RequestMalformed,
        Reason::RequestTooLarge,
        Reason::UpstreamUntrusted,
        Reason::UpstreamMalformed,
        Reason::UpstreamSlow,
    ];

    /// The code: in records, metrics and documentation. Never changes its meaning.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoPolicy => "no_policy",
            Self::Suspended => "suspended",
            Self::DestinationNotDeclared => "destination_not_declared",
            Self::PortNotDeclared => "port_not_declared",
            Self::NameNotDeclared => "name_not_declared",
            Self::AddressForbidden => "address_forbidden",
            Self::TlsRequired => "tls_required",
            Self::HelloMalformed => "hello_malformed",
            Self::ServerNameMissing => "server_name_missing",
            Self::ServerNameNotDeclared => "server_name_not_declared",
            Self::EncryptedHello => "encrypted_hello",
            Self::ResolvesToForbiddenAddress => "resolves_to_forbidden_address",
            Self::ResolutionFailed => "resolution_failed",
            Self::Unreachable => "unreachable",
            Self::QueryMalformed => "query_malformed",
            Self::TooManyQueries => "too_many_queries",
            Self::TooManyConnections => "too_many_connections",
            Self::TooSlow => "too_slow",
            Self::HostMismatch => "host_mismatch",
            Self::MethodNotDeclared => "method_not_declared",
            Self::PathNotDeclared => "path_not_declared",
            Self::PathAmbiguous => "path_ambiguous",
            Self::MethodOverride => "method_override",
            Self::UpgradeNotDeclared => "upgrade_not_declared",
            Self::NotInspected => "not_inspected",
            Self::SourceNotDeclared => "source_not_declared",
            Self::RequestMalformed => "request_malformed",
            Self::RequestTooLarge => "request_too_large",
            Self::UpstreamUntrusted => "upstream_untrusted",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamSlow => "upstream_slow",
        }
    }

    /// What it means, in one sentence.
    pub fn means(self) -> &'static str {
        match self {
            Self::NoPolicy => "the guard has no valid policy yet, so nothing is let through",
            Self::Suspended => "the AIWorkload is suspended (spec.suspend), so nothing is let through",
            Self::DestinationNotDeclared => "no data source leads to this address",
            Self::PortNotDeclared => "a data source leads to this destination, but on another port",
            Self::NameNotDeclared => "no data source has this name",
            Self::AddressForbidden => {
                "loopback, link-local (cloud metadata among them), multicast, broadcast and unspecified addresses are never reached"
            }
            Self::TlsRequired => "hosts are told apart by the server name in TLS, and this connection did not begin with TLS",
            Self::HelloMalformed => "the TLS ClientHello cannot be read",
            Self::ServerNameMissing => "the TLS ClientHello names no server",
            Self::ServerNameNotDeclared => "no data source has the server name of the TLS ClientHello on this port",
            Self::EncryptedHello => "the TLS ClientHello is encrypted (ECH), so the guard cannot see which server is meant",
            Self::ResolvesToForbiddenAddress => {
                "the declared name resolves to addresses that it may not have (private, or not the cluster's)"
            }
            Self::ResolutionFailed => "the cluster's DNS did not answer for a declared name",
            Self::Unreachable => "the destination did not accept the connection",
            Self::QueryMalformed => "the DNS query cannot be read, or asks more than one question",
            Self::TooManyQueries => "more DNS queries than the guard lets through in a second",
            Self::TooManyConnections => "more connections than the guard holds at once",
            Self::TooSlow => "the client did not say what it wants in time",
            Self::HostMismatch => {
                "the request is for another host than the connection (`Host`, `:authority`, the absolute form, the TLS server name and where the connection goes must agree)"
            }
            Self::MethodNotDeclared => {
                "the data source is declared, but not with this method on this path (`access: Read` allows GET, HEAD and OPTIONS)"
            }
            Self::PathNotDeclared => "the data source is declared, but not with this path",
            Self::PathAmbiguous => {
                "programs read this path or query differently (dot segments, backslashes, escaped separators, control characters, or text that is not escaped UTF-8)"
            }
            Self::MethodOverride => {
                "a field or parameter names another method or path (such as `X-HTTP-Method-Override`, `_method` or `X-Original-URL`), where these are told apart; or a form hides its fields (compressed, in an unusual charset, with more than one type)"
            }
            Self::UpgradeNotDeclared => "the request would switch to another protocol that the data source does not declare on this path",
            Self::NotInspected => "this host is judged request by request, and the guard cannot look into the app's own TLS",
            Self::SourceNotDeclared => "the base URL names no data source that is judged request by request",
            Self::RequestMalformed => {
                "the request is not HTTP as its standard says it, or may be read in more than one way; the connection is closed"
            }
            Self::RequestTooLarge => "the head of the request, or a form that the guard must read, is larger than the guard takes",
            Self::UpstreamUntrusted => "the certificate of the destination is not one for its name from an authority that is trusted",
            Self::UpstreamMalformed => "the answer of the destination is not HTTP as its standard says it, or ended too early",
            Self::UpstreamSlow => "the destination did not answer in time",
        }
    }

    /// What to do about it, in one sentence.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoPolicy => {
                "wait; if it lasts, the guard's log says what is wrong (event `trouble`), and so does the AIWorkload's status"
            }
            Self::Suspended => "ask who suspended it; with `suspend: false` what is declared is let through again",
            Self::DestinationNotDeclared => {
                "declare the Service or the host that lies there; an address alone cannot be declared, and a Service is reached by its own address, not by that of a pod behind it"
            }
            Self::PortNotDeclared => "declare the port in a data source as well",
            Self::NameNotDeclared => "declare the Service or the host",
            Self::AddressForbidden => "nothing: no declaration leads there",
            Self::TlsRequired => "speak TLS to hosts",
            Self::HelloMalformed => "use a client that speaks TLS as its standard says",
            Self::ServerNameMissing => "connect by name, so that the client says the name (SNI)",
            Self::ServerNameNotDeclared => "declare the host on this port",
            Self::EncryptedHello => "switch ECH off in the client",
            Self::ResolvesToForbiddenAddress => "declare as a host what has public addresses, and as a Service what lies in the cluster",
            Self::ResolutionFailed => "look whether the cluster's DNS answers, and whether the name has addresses",
            Self::Unreachable => "look whether it is up, and whether a NetworkPolicy on its side keeps the pod out",
            Self::QueryMalformed => "put one question in a message, as resolvers do",
            Self::TooManyQueries => "ask less often, for example with a resolver that keeps answers",
            Self::TooManyConnections => "close connections that are not used",
            Self::TooSlow => "say it right after connecting, or after the request before",
            Self::HostMismatch => "ask each host on a connection of its own, by the name and port that the connection was made with",
            Self::MethodNotDeclared => "declare the method on the path",
            Self::PathNotDeclared => "declare the path",
            Self::PathAmbiguous => "ask for the path in its plain form",
            Self::MethodOverride => "use the method itself, and plain forms",
            Self::UpgradeNotDeclared => "declare `upgrades: [WebSocket]`, or do without; no other protocol can be declared",
            Self::NotInspected => {
                "ask through the base URL of the data source, or declare `tlsInspection: Enabled`; where that is declared, make the pod anew: its certificate authority is only for names that were declared when the pod began"
            }
            Self::SourceNotDeclared => "use the name of a data source as the first part of the path",
            Self::RequestMalformed => "use a client that speaks HTTP as its standard says",
            Self::RequestTooLarge => "send less in fields, or less in a form",
            Self::UpstreamUntrusted => "look at the certificate; private authorities are given in the chart's `guard.roots`",
            Self::UpstreamMalformed => "look what the destination sends",
            Self::UpstreamSlow => "look whether it is overloaded",
        }
    }

    /// The status of the answer, where it is answered in HTTP.
    pub fn status(self) -> u16 {
        match self {
            Self::NoPolicy | Self::Suspended | Self::TooManyConnections | Self::TooManyQueries => 503,
            Self::RequestMalformed | Self::PathAmbiguous | Self::QueryMalformed => 400,
            Self::TooSlow => 408,
            Self::HostMismatch => 421,
            Self::RequestTooLarge => 431,
            Self::ResolutionFailed | Self::Unreachable | Self::UpstreamUntrusted | Self::UpstreamMalformed => 502,
            Self::UpstreamSlow => 504,
            Self::DestinationNotDeclared
            | Self::PortNotDeclared
            | Self::NameNotDeclared
            | Self::AddressForbidden
            | Self::TlsRequired
            | Self::HelloMalformed
            | Self::ServerNameMissing
            | Self::ServerNameNotDeclared
            | Self::EncryptedHello
            | Self::ResolvesToForbiddenAddress
            | Self::MethodNotDeclared
            | Self::PathNotDeclared
            | Self::MethodOverride
            | Self::UpgradeNotDeclared
            | Self::NotInspected
            | Self::SourceNotDeclared => 403,
        }
    }

    /// Whether a declaration of what was attempted would be an answer.
    pub fn declarable(self) -> bool {
        matches!(
            self,
            Self::DestinationNotDeclared
                | Self::PortNotDeclared
                | Self::NameNotDeclared
                | Self::ServerNameNotDeclared
                | Self::MethodNotDeclared
                | Self::PathNotDeclared
        )
    }

    /// Whether the same attempt may succeed later without a change of the scope.
    pub fn retryable(self) -> bool {
        match self {
            Self::NoPolicy
            | Self::Suspended
            | Self::ResolutionFailed
            | Self::Unreachable
            | Self::TooManyQueries
            | Self::TooManyConnections
            | Self::TooSlow
            | Self::UpstreamUntrusted
            | Self::UpstreamMalformed
            | Self::UpstreamSlow => true,
            Self::DestinationNotDeclared
            | Self::PortNotDeclared
            | Self::NameNotDeclared
            | Self::AddressForbidden
            | Self::TlsRequired
            | Self::HelloMalformed
            | Self::ServerNameMissing
            | Self::ServerNameNotDeclared
            | Self::EncryptedHello
            | Self::ResolvesToForbiddenAddress
            | Self::QueryMalformed
            | Self::HostMismatch
            | Self::MethodNotDeclared
            | Self::PathNotDeclared
            | Self::PathAmbiguous
            | Self::MethodOverride
            | Self::UpgradeNotDeclared
            | Self::NotInspected
            | Self::SourceNotDeclared
            | Self::RequestMalformed
            | Self::RequestTooLarge => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// The fields of a guard's record of an attempt, and what they mean, as `docs/reasons.md` lists them.
pub const RECORD: [(&str, &str); 9] = [
    ("time", "milliseconds since 1970"),
    ("event", "`denied`: it was refused; `would_deny`: it was let through by the mode `Observe`, and `Enforce` would have refused it"),
    ("requestId", "what `kubectl remit explain` takes; a refused DNS query is answered with it as well"),
    ("reason", "the code of a reason above"),
    (
        "attempted",
        "`{name}` or `{question}`: a DNS query; `{address}`: a connection; `{server: {name, port}}`: a TLS connection to a named server, or one that was asked for by CONNECT; `{request: {method, host, path}}`: a request of HTTP, without its query",
    ),
    ("retryable", "as above"),
    ("declare", "the lines of `spec` that would declare it; absent where none would"),
    ("workload", "`NAMESPACE/NAME` of the AIWorkload; absent while the guard has no policy"),
    ("digest", "of the scope that it was judged by; absent while the guard has no policy"),
];

/// The fields of a guard's record of a request that was let through, and what they mean, as `docs/reasons.md` lists them.
pub const ACCESS: [(&str, &str); 12] = [
    ("time", "milliseconds since 1970, when it had ended"),
    ("event", "`request`"),
    ("requestId", "tells it from others"),
    ("source", "the data source; empty for what the mode `Observe` alone lets through"),
    ("method", "as it was sent"),
    ("host", "who was asked, as it was sent"),
    ("path", "as it was sent, without the query, cut after 256 characters"),
    (
        "status",
        "of the answer; 499: the app did not wait for it; where there is a refusal of the same request besides, that one's: the request had reached the destination, in part at least",
    ),
    ("sent", "bytes of the body, from the app"),
    ("received", "bytes of the body, to the app"),
    ("microseconds", "from the request's head to the end of the answer"),
    ("trace", "the trace that the request belongs to, where its `traceparent` says one"),
];

/// What was attempted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Attempt {
    /// A DNS query.
    Name(DomainName),
    /// A DNS query for what is no name that could be declared, or one that cannot be read: escaped, and not all of it.
    Question(String),
    /// A connection to an address.
    Address(SocketAddr),
    /// A TLS connection to a named server.
    #[serde(rename_all = "camelCase")]
    Server { name: DomainName, port: u16 },
    /// A request. The path in its one form where it has one, without the query; what a client sends more of it is cut off.
    Request {
        method: String,
        host: String,
        path: String,
        /// What would declare it.
        #[serde(skip)]
        declare: Option<String>,
    },
}

impl Attempt {
    /// The lines of an AIWorkload's `spec` that would declare it, where there are any.
    pub fn declaration(&self, cluster_domain: &DomainName) -> Option<String> {
        let service = |name: &DomainName, port: &str| {
            let before = name.before(cluster_domain)?;
            let labels: Vec<&str> = before.labels().collect();
            // Longer ones are a resolver's tries.
            let ([service, namespace, "svc"] | [_, service, namespace, "svc"]) = labels.as_slice() else { return None };
            Some(format!(
                "dataSources: [{{name: {service}, type: Service, access: ReadWrite, \
                 service: {{name: {service}, namespace: {namespace}, port: {port}, protocol: TCP}}}}]"
            ))
        };
        let host = |name: &DomainName, port: u16| {
            let short = name.labels().next().unwrap_or("host").replace('_', "-");
            format!("dataSources: [{{name: {short}, type: Host, access: ReadWrite, host: {{name: {name}, port: {port}}}}}]")
        };
        match self {
            Self::Name(name) if name.before(cluster_domain).is_some() => service(name, "<port>"),
            Self::Name(name) => Some(host(name, 443)),
            Self::Server { name, port } => Some(host(name, *port)),
            Self::Request { declare, .. } => declare.clone(),
            Self::Address(_) | Self::Question(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_distinct_and_plain() {
        let codes: BTreeSet<&str> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason}");
            for words in [reason.means(), reason.remedy()] {
                assert!(!words.is_empty() && !words.ends_with('.') && !words.contains('|'), "{reason}: {words}");
            }
        }
    }

    #[test]
    fn what_would_declare_it() {
        let domain = "cluster.local".parse().unwrap();
        let name = |text: &str| Attempt::Name(text.parse().unwrap()).declaration(&domain);
        assert_eq!(
            name("ledger.finance.svc.cluster.local").unwrap(),
            "dataSources: [{name: ledger, type: Service, access: ReadWrite, service: {name: ledger, namespace: finance, port: <port>, protocol: TCP}}]"
        );
        assert_eq!(
            name("db-0.db.shop.svc.cluster.local").unwrap(),
            "dataSources: [{name: db, type: Service, access: ReadWrite, service: {name: db, namespace: shop, port: <port>, protocol: TCP}}]"
        );
        assert_eq!(name("10-0-0-1.shop.pod.cluster.local"), None);
        assert_eq!(name("payload.evil.example.support.svc.cluster.local"), None);
        assert_eq!(
            Attempt::Server { name: "api.example.com".parse().unwrap(), port: 8443 }.declaration(&domain).unwrap(),
            "dataSources: [{name: api, type: Host, access: ReadWrite, host: {name: api.example.com, port: 8443}}]"
        );
        assert_eq!(Attempt::Address("203.0.113.7:443".parse().unwrap()).declaration(&domain), None);
    }
}
