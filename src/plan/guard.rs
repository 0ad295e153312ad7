//! What the guards of a workload enforce: the policy document.
//!
//! Promise: it names what the NetworkPolicy opens and nothing beyond; what the network layer refuses is not in it. In: a narrowed scope,
//! ceilings, facts. Out: a document. (Nothing hands it out yet: see ARCHITECTURE.md, "The guard".)

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Facts, PortTarget, ServiceFact, Transport, network};
use crate::policy::{Destination, Document, FORMAT, Mode, Network, Target, WorkloadId};
use crate::scope::{self, Ceilings, ObjectName, Scope};

const DNS_PORT: u16 = 53;

/// The AIWorkload that a policy is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub uid: String,
    pub generation: i64,
}

/// What the guards of this scope enforce. The scope is narrowed by the ceilings already ([`super::Plan::scope`]).
pub fn guard_policy(scope: &Scope, origin: &Origin, ceilings: &Ceilings, facts: &Facts) -> Document {
    let Scope { workload, mode, suspended, selector: _, account: _, sources, clients: _ } = scope;
    let Facts { services: _, endpoints: _, api_server, api_service, ranges, dns, dns_addresses, domain } = facts;
    let mut destinations = Vec::new();
    for source in sources {
        let target = match &source.target {
            scope::Target::Service { service, port } => to_service(scope, service, *port, ceilings, facts),
            // The outside cannot be told from a pod: the network layer says so.
            scope::Target::Host { .. } if ranges.pods.is_empty() => None,
            scope::Target::Host { host, port } => host.parse().ok().map(|name| Target::Host { name, port: *port }),
            scope::Target::Kubernetes(_) => {
                let addresses = api_server.iter().chain(api_service).map(|(address, port)| socket(*address, *port));
                Some(Target::Kubernetes { addresses: addresses.collect() })
            }
            scope::Target::ConfigMap(_) | scope::Target::Secret(_) | scope::Target::PersistentVolumeClaim { .. } => None,
        };
        destinations.extend(target.map(|target| Destination { source: source.name.clone(), target }));
    }
    let dns: BTreeSet<SocketAddr> =
        dns.iter().flat_map(|dns| &dns.addresses).chain(dns_addresses).map(|address| socket(*address, DNS_PORT)).collect();
    Document {
        format: FORMAT,
        workload: WorkloadId { namespace: workload.namespace.clone(), name: workload.name.clone(), uid: origin.uid.clone() },
        generation: origin.generation,
        // Whoever hands it out knows the text before: `policy::next_serial`.
        serial: 0,
        digest: scope.digest(),
        mode: match mode {
            scope::Mode::Observe => Mode::Observe,
            scope::Mode::Enforce => Mode::Enforce,
        },
        suspended: *suspended,
        network: Network {
            domain: domain.clone(),
            dns: dns.into_iter().collect(),
            services: scope::Ranges::new(ranges.pods.iter().chain(&ranges.services).copied()).blocks().to_vec(),
            own: facts.own_ranges().blocks().to_vec(),
        },
        channel: None,
        destinations,
    }
}

fn to_service(scope: &Scope, service: &ObjectName, port: u16, ceilings: &Ceilings, facts: &Facts) -> Option<Target> {
    let ServiceFact { selector, ports, external_name, addresses: _ } = facts.services.get(service)?;
    let fact = ports.iter().find(|fact| fact.port == port && fact.transport == Transport::Tcp)?;
    if external_name.is_some() {
        return None;
    }
    let mut all = BTreeSet::from([port]);
    if let PortTarget::Number(number) = fact.target {
        all.insert(number);
    }
    let mut elsewhere = Vec::new();
    if selector.is_empty() {
        let (allowed, _) = network::endpoints(scope, service, fact, ceilings, facts);
        all.extend(allowed.iter().map(SocketAddr::port));
        elsewhere = scope::Ranges::new(allowed.iter().map(|endpoint| IpNet::from(endpoint.ip()))).blocks().to_vec();
    }
    Some(Target::Service { name: service.name.clone(), namespace: service.namespace.clone(), ports: all, addresses: elsewhere })
}

fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, FULL, WIDE};
    use crate::policy::GuardPolicy;

    fn of(spec: &str, facts: &Facts) -> Document {
        let ceilings = fixture::ceilings(&[WIDE]);
        let (scope, _) = ceilings.narrow(&fixture::scope(spec));
        guard_policy(&scope, &Origin { uid: "uid-1".to_owned(), generation: 7 }, &ceilings, facts)
    }

    /// What a guard lets through, one line each.
    fn destinations(document: &Document) -> Vec<String> {
        let mut all = Vec::new();
        for Destination { source: _, target } in &document.destinations {
            match target {
                Target::Service { name, namespace, ports, addresses } => {
                    all.extend(ports.iter().map(|port| format!("{name}.{namespace}:{port}")));
                    all.extend(addresses.iter().map(|address| format!("{name}.{namespace} at {address}")));
                }
                Target::Host { name, port } => all.push(format!("{name}:{port}")),
                Target::Kubernetes { addresses } => all.extend(addresses.iter().map(|address| format!("api server {address}"))),
            }
        }
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn it_names_what_the_network_layer_opens() {
        let document = of(FULL, &fixture::facts());
        assert_eq!(
            destinations(&document),
            [
                "api server 10.96.0.1:443",
                "api server 10.99.0.2:6443",
                "api server [fd00:10:96::1]:443",
                "cache.support:16379",
                "cache.support:6379",
                "help.example.com:443",
                "old-db.shop at 10.50.0.7/32",
                "old-db.shop at 10.50.0.8/32",
                "old-db.shop:13306",
                "old-db.shop:3306",
                "orders.shop:5432",
                "status.example.com:8443",
            ]
        );
        assert_eq!((document.generation, document.workload.uid.as_str()), (7, "uid-1"));
        let dns: Vec<String> = document.network.dns.iter().map(ToString::to_string).collect();
        assert_eq!(dns, ["10.96.0.10:53", "169.254.20.10:53", "[fd00:10:96::a]:53"]);
        GuardPolicy::try_from(document).expect("a guard can enforce it");
    }

    #[test]
    fn what_the_network_layer_refuses_is_not_in_it() {
        let source = |service: &str, port: u16| {
            format!(
                "selector: {{matchLabels: {{app: a}}}}\nmode: Enforce\ndataSources: [{{name: s, class: Internal, type: Service, access: ReadWrite, service: {{name: {service}, port: {port}, protocol: TCP}}}}]"
            )
        };
        let facts = fixture::facts();
        assert_eq!(of(&source("missing", 1), &facts).destinations, vec![]);
        assert_eq!(of(&source("cache", 1), &facts).destinations, vec![]);
        let mut external = facts.clone();
        external.services.get_mut(&ObjectName::new("support", "cache")).unwrap().external_name = Some("evil.example".into());
        assert_eq!(of(&source("cache", 6379), &external).destinations, vec![]);
        let mut unknown = facts;
        unknown.ranges.pods.clear();
        assert!(of(FULL, &unknown).destinations.iter().all(|d| !matches!(d.target, Target::Host { .. })));
    }
}
