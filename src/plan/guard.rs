//! What the guards of a workload enforce: the policy document, in the ConfigMap that its pods mount.
//!
//! Promise: it names what the NetworkPolicy opens and nothing beyond; what the network layer refuses is not in it. In: a narrowed scope,
//! ceilings, facts. Out: a document; a ConfigMap with its text, which the operator signs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;

use super::object::metadata;
use super::{Facts, ManagedObject, PortTarget, ServiceFact, Transport, network};
use crate::policy::pod::{POLICY_FILE, generated_name};
use crate::policy::{
    Channel, Destination, Document, FORMAT, Http, HttpAccess, HttpRule, Inspect, Mode, Network, Scheme, Target, WorkloadId,
};
use crate::scope::{self, Ceilings, ObjectName, Scope};

const DNS_PORT: u16 = 53;

/// The AIWorkload that a plan is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub uid: String,
    pub generation: i64,
}

/// Name of the ConfigMap of a workload.
pub(super) fn name(workload: &ObjectName) -> String {
    generated_name(&workload.name)
}

/// None: there are no guards.
pub(super) fn config_map(scope: &Scope, origin: Option<&Origin>, ceilings: &Ceilings, facts: &Facts) -> Option<ManagedObject> {
    facts.channel.as_ref()?;
    let origin = origin.cloned().unwrap_or_default();
    Some(holding(&scope.workload, &guard_policy(scope, &origin, ceilings, facts)))
}

/// The ConfigMap under which nothing passes any more. Made anew, not from what lies there: that may be anybody's.
pub fn suspended(workload: &ObjectName, origin: &Origin, facts: &Facts) -> ManagedObject {
    let digest = String::new();
    holding(workload, &Document { suspended: true, ..document(workload, origin, facts, Mode::Enforce, digest, Vec::new()) })
}

/// What the guards of this scope enforce. The scope is narrowed by the ceilings already ([`super::Plan::scope`]).
pub fn guard_policy(scope: &Scope, origin: &Origin, ceilings: &Ceilings, facts: &Facts) -> Document {
    let Scope { workload, mode, suspended, selector: _, account: _, sources, clients: _ } = scope;
    let mut destinations = Vec::new();
    for source in sources {
        let target = match &source.target {
            scope::Target::Service { service, port, http } => {
                let http = http.as_ref().map(|requests| judged(requests, *port));
                to_service(scope, service, *port, http, ceilings, facts)
            }
            // The outside cannot be told from a pod: the network layer says so.
            scope::Target::Host { .. } if facts.ranges.pods.is_empty() => None,
            scope::Target::Host { host, port, http } => {
                let http = http.as_ref().map(|requests| judged(requests, *port));
                host.parse().ok().map(|name| Target::Host { name, port: *port, http })
            }
            scope::Target::Kubernetes(_) => {
                let addresses = facts.api_server.iter().chain(&facts.api_service).map(|(address, port)| socket(*address, *port));
                Some(Target::Kubernetes { addresses: addresses.collect() })
            }
            scope::Target::ConfigMap(_) | scope::Target::Secret(_) | scope::Target::PersistentVolumeClaim { .. } => None,
        };
        destinations.extend(target.map(|target| Destination { source: source.name.clone(), target }));
    }
    let mode = match mode {
        scope::Mode::Observe => Mode::Observe,
        scope::Mode::Enforce => Mode::Enforce,
    };
    Document { suspended: *suspended, ..document(workload, origin, facts, mode, scope.digest(), destinations) }
}

/// What may be asked, as guards read it.
fn judged(requests: &scope::Requests, port: u16) -> Http {
    let scope::Requests { scheme, inspected, write, rules } = requests;
    Http {
        scheme: match scheme {
            scope::Scheme::Http => Scheme::Http,
            scope::Scheme::Https => Scheme::Https,
        },
        inspect: if *inspected { Inspect::Intercept } else { Inspect::BaseUrl },
        port: Some(port),
        access: if *write { HttpAccess::ReadWrite } else { HttpAccess::Read },
        rules: rules
            .iter()
            .map(|scope::RequestRule { methods, paths, upgrades }| HttpRule {
                methods: methods.clone(),
                paths: paths.iter().cloned().collect(),
                upgrades: upgrades.clone(),
            })
            .collect(),
    }
}

fn document(workload: &ObjectName, origin: &Origin, facts: &Facts, mode: Mode, digest: String, destinations: Vec<Destination>) -> Document {
    let Facts { services: _, endpoints: _, api_server: _, api_service: _, ranges, dns, dns_addresses, domain, channel, roots, proxy } =
        facts;
    let dns: BTreeSet<SocketAddr> =
        dns.iter().flat_map(|dns| &dns.addresses).chain(dns_addresses).map(|address| socket(*address, DNS_PORT)).collect();
    let channel = channel.as_ref().and_then(|channel| Some(Channel { name: channel.name(domain)?, port: channel.port }));
    // Only where they are needed: guards of before read the rest.
    let begins_tls = |destination: &Destination| match &destination.target {
        Target::Service { http, .. } | Target::Host { http, .. } => http.as_ref().is_some_and(|http| http.scheme == Scheme::Https),
        Target::Kubernetes { .. } => false,
    };
    let roots = roots.clone().filter(|_| destinations.iter().any(begins_tls));
    let to_host = |destination: &Destination| matches!(destination.target, Target::Host { .. });
    let proxy = proxy.clone().filter(|_| destinations.iter().any(to_host));
    let mut document = Document {
        format: FORMAT,
        workload: WorkloadId { namespace: workload.namespace.clone(), name: workload.name.clone(), uid: origin.uid.clone() },
        generation: origin.generation,
        // Whoever hands it out knows the text before: `policy::next_serial`.
        serial: 0,
        digest,
        mode,
        suspended: false,
        network: Network {
            domain: domain.clone(),
            dns: dns.into_iter().collect(),
            services: scope::Ranges::new(ranges.pods.iter().chain(&ranges.services).copied()).blocks().to_vec(),
            own: facts.own_ranges().blocks().to_vec(),
            roots,
            proxy,
        },
        channel,
        destinations,
    };
    // Guards of before go on reading what they can hold.
    document.format = document.oldest_format();
    document
}

/// It has no owner, like the NetworkPolicy: a foreground deletion would remove it while its pods run.
fn holding(workload: &ObjectName, document: &Document) -> ManagedObject {
    let text = serde_json::to_string_pretty(document).expect("a document has only string keys and finite numbers") + "\n";
    ManagedObject::ConfigMap(ConfigMap {
        metadata: metadata(workload, None, &workload.namespace, &name(workload)),
        data: Some([(POLICY_FILE.to_owned(), text)].into()),
        binary_data: None,
        immutable: None,
    })
}

fn to_service(scope: &Scope, service: &ObjectName, port: u16, http: Option<Http>, ceilings: &Ceilings, facts: &Facts) -> Option<Target> {
    let ServiceFact { selector, ports, external_name, addresses: _ } = facts.services.get(service)?;
    let fact = ports.iter().find(|fact| fact.port == port && fact.transport == Transport::Tcp)?;
    if external_name.is_some() {
        return None;
    }
    if !selector.is_empty() && network::led_outside(service, facts).is_some() {
        return None;
    }
    let (allowed, refused) =
        if selector.is_empty() { network::endpoints(scope, service, fact, ceilings, facts) } else { (Vec::new(), Vec::new()) };
    // The guard sees the Service's own address only: it cannot let through some of what stands behind it.
    if !refused.is_empty() {
        return None;
    }
    let mut all = BTreeSet::from([port]);
    if let PortTarget::Number(number) = fact.target {
        all.insert(number);
    }
    all.extend(allowed.iter().map(SocketAddr::port));
    let elsewhere = scope::Ranges::new(allowed.iter().map(|endpoint| IpNet::from(endpoint.ip()))).blocks().to_vec();
    Some(Target::Service { name: service.name.clone(), namespace: service.namespace.clone(), ports: all, addresses: elsewhere, http })
}

fn socket(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

/// What a guard would let through, one line each: for tests of the whole plan.
#[cfg(test)]
pub(super) fn passed(map: &ConfigMap) -> Vec<String> {
    let document = Document::read(map.data.as_ref().unwrap()[POLICY_FILE].as_bytes()).unwrap();
    let all = if document.suspended { Vec::new() } else { tests::destinations(&document) };
    all.into_iter().map(|line| format!("guard: {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, FULL, WIDE};
    use crate::policy::{GuardPolicy, Proxy, Roots};

    fn of(spec: &str, facts: &Facts) -> Document {
        let ceilings = fixture::ceilings(&[WIDE]);
        let (scope, _) = ceilings.narrow(&fixture::scope(spec));
        guard_policy(&scope, &fixture::origin(), &ceilings, facts)
    }

    /// What a guard lets through, one line each.
    pub fn destinations(document: &Document) -> Vec<String> {
        let mut all = Vec::new();
        for Destination { source: _, target } in &document.destinations {
            match target {
                Target::Service { name, namespace, ports, addresses, http: _ } => {
                    all.extend(ports.iter().map(|port| format!("{name}.{namespace}:{port}")));
                    all.extend(addresses.iter().map(|address| format!("{name}.{namespace} at {address}")));
                }
                Target::Host { name, port, http: _ } => all.push(format!("{name}:{port}")),
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
                // Not old-db: some of what stands behind it is refused.
                "orders.shop:5432",
                "status.example.com:8443",
            ]
        );
        assert_eq!((document.generation, document.workload.uid.as_str()), (7, "uid-1"));
        let dns: Vec<String> = document.network.dns.iter().map(ToString::to_string).collect();
        assert_eq!(dns, ["10.96.0.10:53", "169.254.20.10:53", "[fd00:10:96::a]:53"]);
        let channel = document.channel.clone().expect("there is one");
        assert_eq!((channel.name.as_str(), channel.port), ("remit-guards.remit-system.svc.cluster.example", 9445));
        GuardPolicy::try_from(document).expect("a guard can enforce it");
    }

    #[test]
    fn what_it_says_of_http() {
        let spec = |sources: &str| format!("selector: {{matchLabels: {{app: a}}}}\nmode: Enforce\ndataSources: [{sources}]");
        let http = "{name: help, class: Public, type: Host, host: {name: help.example.com, port: 8443, protocol: HTTPS, tlsInspection: Enabled, http: [{methods: [POST], paths: [{type: Exact, value: /%73earch}]}, {paths: [{type: PathPrefix, value: /a}], upgrades: [WebSocket]}]}}";
        let cache = "{name: cache, class: Internal, type: Service, access: ReadWrite, service: {name: cache, port: 6379, protocol: HTTP}}";
        let document = of(&spec(&format!("{http}, {cache}")), &fixture::facts());
        assert_eq!(
            serde_json::to_value(&document.destinations).unwrap(),
            serde_json::json!([
                {"source": "cache", "target": {"type": "Service", "name": "cache", "namespace": "support", "ports": [6379, 16379],
                    "http": {"scheme": "Http", "inspect": "BaseUrl", "port": 6379, "access": "ReadWrite"}}},
                {"source": "help", "target": {"type": "Host", "name": "help.example.com", "port": 8443, "http": {
                    "scheme": "Https", "inspect": "Intercept", "port": 8443, "access": "Read", "rules": [
                        {"paths": [{"type": "PathPrefix", "value": "/a"}], "upgrades": ["websocket"]},
                        {"methods": ["POST"], "paths": [{"type": "Exact", "value": "/search"}]},
                    ]}}},
            ])
        );
        assert_eq!((document.format, &document.network.roots, &document.network.proxy), (2, &None, &None));
        GuardPolicy::try_from(document).expect("a guard can enforce it");

        // What the chart says besides, where it is needed.
        let roots = Some(Roots { public: false, certificates: vec!["PEM".into()] });
        let proxy = Some(Proxy { addresses: vec!["203.0.113.200:3128".parse().unwrap()] });
        let facts = Facts { roots: roots.clone(), proxy: proxy.clone(), ..fixture::facts() };
        let tunnel = "{name: t, class: Public, type: Host, access: ReadWrite, host: {name: t.example.com, port: 443}}";
        let raw = "{name: cache, class: Internal, type: Service, access: ReadWrite, service: {name: cache, port: 6379, protocol: TCP}}";
        let secure = cache.replace("HTTP", "HTTPS");
        for (sources, format, has_roots, has_proxy) in [
            (http, 2, true, true),
            (cache, 2, false, false),
            (secure.as_str(), 2, true, false),
            (tunnel, 2, false, true),
            (raw, 1, false, false),
            ("", 1, false, false),
        ] {
            let document = of(&spec(sources), &facts);
            let expected = (format, roots.clone().filter(|_| has_roots), proxy.clone().filter(|_| has_proxy));
            assert_eq!((document.format, document.network.roots.clone(), document.network.proxy.clone()), expected, "{sources}");
            let before = of(&spec(raw), &fixture::facts());
            assert_eq!(before.format, 1, "guards of before read what says nothing of HTTP");
        }
    }

    #[test]
    fn it_travels_in_a_config_map_without_owner() {
        let (scope, ceilings) = (fixture::scope(FULL), fixture::ceilings(&[WIDE]));
        let of = |facts: &Facts| config_map(&scope, Some(&fixture::origin()), &ceilings, facts);
        let Some(ManagedObject::ConfigMap(map)) = of(&fixture::facts()) else { panic!("none") };
        let ConfigMap { metadata, data, binary_data, immutable } = map;
        assert_eq!((metadata.name.as_deref(), metadata.namespace.as_deref()), (Some("remit-support-bot"), Some("support")));
        assert_eq!((metadata.owner_references, binary_data, immutable), (None, None, None));
        let data = data.unwrap();
        assert_eq!(data.keys().collect::<Vec<_>>(), [POLICY_FILE]);
        let text = &data[POLICY_FILE];
        assert!(text.ends_with("}\n"), "a note's text ends in a newline");
        assert_eq!(Document::read(text.as_bytes()).unwrap(), super::tests::of(FULL, &fixture::facts()));
        assert_eq!(of(&fixture::unguarded()), None, "without guards there is none");
    }

    #[test]
    fn suspended_lets_nothing_pass_and_is_one_that_guards_take() {
        let facts = fixture::facts();
        let workload = ObjectName::new("support", "support-bot");
        let ManagedObject::ConfigMap(map) = suspended(&workload, &fixture::origin(), &facts) else { panic!("another kind") };
        assert_eq!(passed(&map), [""; 0]);
        let document = Document::read(map.data.unwrap()[POLICY_FILE].as_bytes()).unwrap();
        let Document { suspended, mode, destinations, channel, network, .. } = document.clone();
        assert_eq!((suspended, mode, destinations), (true, Mode::Enforce, vec![]));
        // It still finds the operator, who may have another one.
        assert_eq!((channel, network), (of(FULL, &facts).channel, of(FULL, &facts).network));
        let policy = |document| GuardPolicy::try_from(document).unwrap();
        assert!(policy(of(FULL, &facts)).may_become(&policy(document)), "running guards take it");
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
        // Behind one address of a Service there is all that its slices say, or nothing.
        let (old_db, orders) = (ObjectName::new("shop", "old-db"), ObjectName::new("shop", "orders"));
        let mut facts = facts;
        facts.endpoints.get_mut(&old_db).unwrap().truncate(1);
        for (service, port, passed) in [(&old_db, 3306, 3), (&orders, 5432, 1)] {
            let source = source(&service.name, port).replace("service: {", "service: {namespace: shop, ");
            assert_eq!(destinations(&of(&source, &facts)).len(), passed, "{service}");
            for (address, led) in [("203.0.113.66", true), ("2001:db8:ffff::66", true), ("127.0.0.1", service.name == "old-db")] {
                let mut elsewhere = facts.clone();
                let endpoints = elsewhere.endpoints.entry(service.clone()).or_default();
                let mut endpoint = facts.endpoints[&old_db][0].clone();
                endpoint.address = address.parse().unwrap();
                endpoints.push(endpoint);
                assert_eq!(of(&source, &elsewhere).destinations.is_empty(), led, "{service} at {address}");
            }
        }
        let mut unknown = facts;
        unknown.ranges.pods.clear();
        assert!(of(FULL, &unknown).destinations.iter().all(|d| !matches!(d.target, Target::Host { .. })));
    }
}
