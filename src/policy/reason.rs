//! Why not: the closed list. Code, words and remedies are used by records, DNS answers, metrics and the reference docs alike.

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
}

impl Reason {
    pub const ALL: [Reason; 18] = [
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
            Self::AddressForbidden => "loopback, link-local, metadata, multicast and node addresses are never reached",
            Self::TlsRequired => "hosts are told apart by the server name in TLS, and this connection did not begin with TLS",
            Self::HelloMalformed => "the TLS ClientHello cannot be read",
            Self::ServerNameMissing => "the TLS ClientHello names no server",
            Self::ServerNameNotDeclared => "no data source has the server name of the TLS ClientHello on this port",
            Self::EncryptedHello => "the TLS ClientHello is encrypted (ECH), so the guard cannot see which server is meant",
            Self::ResolvesToForbiddenAddress => {
                "the declared name resolves to addresses that it may not have (private, or not the cluster's)"
            }
            Self::ResolutionFailed => "the cluster's DNS did not answer for a declared name",
            Self::Unreachable => "the declared destination did not accept the connection",
            Self::QueryMalformed => "the DNS query cannot be read, or asks more than one question",
            Self::TooManyQueries => "more DNS queries than the guard lets through in a second",
            Self::TooManyConnections => "more connections than the guard holds at once",
            Self::TooSlow => "the client did not say what it wants in time",
        }
    }

    /// Whether a declaration of what was attempted would be an answer.
    pub fn declarable(self) -> bool {
        matches!(self, Self::DestinationNotDeclared | Self::PortNotDeclared | Self::NameNotDeclared | Self::ServerNameNotDeclared)
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
            | Self::TooSlow => true,
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
            | Self::QueryMalformed => false,
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
}

impl Attempt {
    /// The lines of an AIWorkload's `spec` that would declare it, where one could. `namespace` is the workload's own.
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
            assert!(!reason.means().is_empty() && !reason.means().ends_with('.'), "{reason}");
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
