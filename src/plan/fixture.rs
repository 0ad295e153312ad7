//! Fixtures of the tests: one AIWorkload with everything in it, and a small cluster. All values differ, so that swapped ones show.

use crate::api::{AIWorkload, ScopeCeiling};
use crate::plan::{ChannelFact, ClusterRanges, DnsFact, EndpointFact, Facts, Origin, PortTarget, ServiceFact, ServicePortFact, Transport};
use crate::scope::{Ceilings, ObjectName, Scope};

pub fn workload(spec: &str) -> AIWorkload {
    let spec: String = spec.lines().map(|l| format!("  {l}\n")).collect();
    let yaml = format!(
        "apiVersion: remit.dev/v1alpha1\nkind: AIWorkload\nmetadata: {{name: support-bot, namespace: support, uid: uid-1}}\nspec:\n{spec}"
    );
    serde_saphyr::from_str(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

pub fn ceiling(name: &str, spec: &str) -> ScopeCeiling {
    let spec: String = spec.lines().map(|l| format!("  {l}\n")).collect();
    let yaml = format!("apiVersion: remit.dev/v1alpha1\nkind: ScopeCeiling\nmetadata: {{name: {name}}}\nspec:\n{spec}");
    serde_saphyr::from_str(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

pub fn scope(spec: &str) -> Scope {
    super::validate(&workload(spec)).unwrap_or_else(|e| panic!("{e:?}"))
}

pub fn ceilings(specs: &[&str]) -> Ceilings {
    Ceilings(
        specs
            .iter()
            .enumerate()
            .map(|(i, s)| super::ceiling(&ceiling(&format!("c{i}"), s)).unwrap_or_else(|e| panic!("{e:?}")).1)
            .collect(),
    )
}

/// Of which AIWorkload the plans are.
pub fn origin() -> Origin {
    Origin { uid: "uid-1".to_owned(), generation: 7 }
}

/// Everything a scope can declare.
pub const FULL: &str = "
selector: {matchLabels: {app: support-bot}, matchExpressions: [{key: track, operator: NotIn, values: [canary]}]}
mode: Enforce
dataSources:
- {name: orders-db, class: Internal, type: Service, access: ReadWrite, service: {name: orders, namespace: shop, port: 5432, protocol: TCP}}
- {name: cache, class: Internal, type: Service, access: ReadWrite, service: {name: cache, port: 6379, protocol: TCP}}
- {name: old-db, class: Internal, type: Service, access: ReadWrite, service: {name: old-db, namespace: shop, port: 3306, protocol: TCP}}
- {name: help, class: Public, type: Host, access: ReadWrite, host: {name: help.example.com, port: 443}}
- {name: status, class: Public, type: Host, access: ReadWrite, host: {name: status.example.com, port: 8443}}
- {name: order-objects, class: Internal, type: Kubernetes, kubernetes: {apiGroups: [shop.example.com], resources: [orders], namespace: shop}}
- {name: settings, class: Internal, type: Kubernetes, access: ReadWrite, kubernetes: {apiGroups: [''], resources: [configmaps], resourceNames: [settings]}}
- {name: prompts, class: Internal, type: ConfigMap, configMap: {name: support-prompts}}
- {name: token, type: Secret, secret: {name: support-token}}
- {name: files, class: Internal, type: PersistentVolumeClaim, persistentVolumeClaim: {name: support-files}}
capabilities:
  clients:
  - {name: shop-front, namespace: web, podSelector: {matchLabels: {app: shop-front}}, port: 8080}
  - {name: balancer, ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.9/32]}, port: 8081}";

/// A ceiling that allows all of FULL.
pub const WIDE: &str = "
namespaceSelector: {}
unscopedPods: Allow
classes: [Public, Internal, Restricted]
hosts: [{name: example, host: '*.example.com', ports: [443, 8443]}]
services:
- {name: own, services: ['*']}
- {name: shop, namespace: shop, services: [orders], ports: [5432]}
- {name: old, namespace: shop, services: [old-db], addresses: [10.50.0.0/24, 198.51.100.0/24, 169.254.169.254, 10.244.0.0/16]}
kubernetes:
- {name: orders, namespace: shop, apiGroups: [shop.example.com], resources: [orders]}
- {name: settings, apiGroups: [''], resources: [configmaps], access: ReadWrite}";

/// The same cluster without guards.
pub fn unguarded() -> Facts {
    Facts { channel: None, ..facts() }
}

/// A cluster whose IPv6 pods bear numbers of a global block.
pub fn facts() -> Facts {
    let tcp = |name: &str, port, target| ServicePortFact { name: name.into(), port, target, transport: Transport::Tcp };
    let selected = |app: &str, port| ServiceFact {
        selector: [("app".to_owned(), app.to_owned())].into(),
        ports: vec![port],
        ..ServiceFact::default()
    };
    let endpoint = |address: &str, port_name: &str, port| EndpointFact {
        address: address.parse().unwrap(),
        port_name: port_name.into(),
        port,
        transport: Transport::Tcp,
    };
    Facts {
        services: [
            (ObjectName::new("shop", "orders"), selected("orders-pg", tcp("pg", 5432, PortTarget::Name("postgres".into())))),
            (ObjectName::new("support", "cache"), selected("redis", tcp("", 6379, PortTarget::Number(16379)))),
            (
                ObjectName::new("shop", "old-db"),
                ServiceFact { ports: vec![tcp("my", 3306, PortTarget::Number(13306))], ..ServiceFact::default() },
            ),
            (
                ObjectName::new("shop", "elsewhere"),
                ServiceFact {
                    external_name: Some("evil.example.net".into()),
                    ports: vec![tcp("", 80, PortTarget::Number(80))],
                    ..ServiceFact::default()
                },
            ),
        ]
        .into(),
        endpoints: [(
            ObjectName::new("shop", "old-db"),
            vec![
                endpoint("10.50.0.7", "my", 13306),
                endpoint("10.50.0.9", "my", 22),           // not the Service's port
                endpoint("10.50.0.7", "other", 22),        // another port of the slice
                endpoint("10.60.0.1", "my", 13306),        // not within the ceiling
                endpoint("169.254.169.254", "my", 13306),  // never, though the ceiling names it
                endpoint("10.244.3.4", "my", 13306),       // a pod, though the ceiling names it
                endpoint("::ffff:10.50.0.8", "my", 13306), // mapped: 10.50.0.8
            ],
        )]
        .into(),
        api_server: vec![("10.99.0.2".parse().unwrap(), 6443)],
        api_service: vec![("10.96.0.1".parse().unwrap(), 443), ("fd00:10:96::1".parse().unwrap(), 443)],
        ranges: ClusterRanges {
            pods: vec!["10.244.0.0/16".parse().unwrap(), "2001:db8:10:244::/64".parse().unwrap()],
            services: vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()],
            nodes: vec!["198.18.7.7".parse().unwrap()],
            others: vec!["203.0.113.128/25".parse().unwrap()],
        },
        dns: vec![DnsFact {
            namespace: "kube-system".into(),
            selector: [("k8s-app".to_owned(), "kube-dns".to_owned())].into(),
            ports: vec![(Transport::Udp, PortTarget::Number(53)), (Transport::Tcp, PortTarget::Number(53))],
            addresses: vec!["10.96.0.10".parse().unwrap(), "fd00:10:96::a".parse().unwrap()],
        }],
        dns_addresses: vec!["169.254.20.10".parse().unwrap()],
        domain: "cluster.example".parse().unwrap(),
        channel: Some(ChannelFact { service: ObjectName::new("remit-system", "remit-guards"), port: 9445 }),
        roots: None,
        proxy: None,
    }
}
