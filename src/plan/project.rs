//! Kubernetes objects → facts. The only place that reads the cluster's own types, so that the operator and `kubectl remit render`
//! see one and the same.
//!
//! What cannot be read (an address that is none, a port out of range, a transport nobody knows) leads nowhere and is left out: absent means denied.
//! Left out as well are ExternalName targets of EndpointSlices (`addressType: FQDN`) and endpoint ports without a number.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::network::MOST_LABELS;
use super::{DnsFact, EndpointFact, PortTarget, ServiceFact, ServicePortFact, Transport};
use crate::scope::{ObjectName, parse_block};

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Services which are the cluster's DNS when nothing says otherwise: namespace and name. None in a namespace that somebody else could make.
pub const DNS_SERVICES: [(&str, &str); 1] = [("kube-system", "kube-dns")];

/// A Service.
pub fn service(service: &Service) -> (ObjectName, ServiceFact) {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.into_iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        Some(ServicePortFact {
            name: port.name.unwrap_or_default(),
            port: number,
            target: match port.target_port {
                None | Some(IntOrString::Int(0)) => PortTarget::Number(number),
                Some(IntOrString::Int(target)) => PortTarget::Number(u16::try_from(target).ok()?),
                Some(IntOrString::String(name)) => PortTarget::Name(name),
            },
            transport: transport(port.protocol.as_deref())?,
        })
    });
    let fact = ServiceFact {
        ports: ports.collect(),
        // One label more than are taken is enough to know that there are too many.
        selector: spec.selector.into_iter().flatten().take(MOST_LABELS + 1).collect(),
        addresses: spec
            .cluster_ips
            .iter()
            .flatten()
            .chain(&spec.cluster_ip)
            .filter_map(|a| a.parse().ok())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        external_name: (spec.type_.as_deref() == Some("ExternalName")).then(|| spec.external_name.unwrap_or_default()),
    };
    (name(&service.metadata), fact)
}

/// The endpoints of an EndpointSlice and the Service they belong to; None if it names no Service.
pub fn endpoints(slice: &EndpointSlice) -> Option<(ObjectName, Vec<EndpointFact>)> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    let mut endpoints = Vec::new();
    for address in addresses(slice) {
        for port in slice.ports.iter().flatten() {
            let (Some(number), Some(transport)) = (port.port.and_then(|p| u16::try_from(p).ok()), transport(port.protocol.as_deref()))
            else {
                continue;
            };
            endpoints.push(EndpointFact { address, port_name: port.name.clone().unwrap_or_default(), port: number, transport });
        }
    }
    endpoints.sort();
    Some((ObjectName::new(name(&slice.metadata).namespace, service), endpoints))
}

/// Where the API server listens, from an EndpointSlice of `default/kubernetes`; nothing from any other.
pub fn api_server(slice: &EndpointSlice) -> Vec<(IpAddr, u16)> {
    match endpoints(slice) {
        Some((service, endpoints)) if service == ObjectName::new("default", "kubernetes") => {
            endpoints.iter().filter(|e| e.transport == Transport::Tcp).map(|e| (e.address, e.port)).collect()
        }
        _ => Vec::new(),
    }
}

/// The pod ranges of a Node, and its own addresses.
pub fn node(node: &Node) -> (Vec<IpNet>, Vec<IpAddr>) {
    let spec = node.spec.clone().unwrap_or_default();
    let mut ranges: Vec<IpNet> =
        spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr).filter_map(|range| parse_block(range).ok()).collect();
    ranges.sort();
    ranges.dedup();
    let addresses = node.status.iter().flat_map(|s| s.addresses.iter().flatten()).filter_map(|a| a.address.parse().ok());
    (ranges, addresses.collect())
}

/// The ranges of a ServiceCIDR.
pub fn service_cidr(range: &ServiceCIDR) -> Vec<IpNet> {
    range.spec.iter().flat_map(|s| s.cidrs.iter().flatten()).filter_map(|cidr| parse_block(cidr).ok()).collect()
}

/// A DNS Service made of pods (see [`DnsFact::of`]).
pub fn dns(service: &Service) -> Option<DnsFact> {
    let (ObjectName { namespace, name: _ }, fact) = self::service(service);
    DnsFact::of(&namespace, &fact)
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let named = slice.address_type == "FQDN";
    slice.endpoints.iter().filter(move |_| !named).flat_map(|e| &e.addresses).filter_map(|a| a.parse().ok())
}

fn transport(protocol: Option<&str>) -> Option<Transport> {
    match protocol {
        None | Some("" | "TCP") => Some(Transport::Tcp),
        Some("UDP") => Some(Transport::Udp),
        Some("SCTP") => Some(Transport::Sctp),
        Some(_) => None,
    }
}

fn name(meta: &ObjectMeta) -> ObjectName {
    ObjectName::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// The Service through which pods reach the API server.
pub const API_SERVICE: (&str, &str) = ("default", "kubernetes");

/// Where pods reach the API server.
pub fn api_service(service: &ServiceFact) -> Vec<(IpAddr, u16)> {
    let ports = service.ports.iter().filter(|p| p.transport == Transport::Tcp).map(|p| p.port);
    ports.flat_map(|port| service.addresses.iter().map(move |address| (*address, port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn object<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn services_and_their_target_ports() {
        let (key, fact) = service(&object(json!({
            "metadata": {"namespace": "shop", "name": "orders"},
            "spec": {"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7", "fd00::7"], "selector": {"app": "orders"}, "ports": [
                {"name": "sql", "port": 5432, "targetPort": "postgres"},
                {"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"},
                {"name": "same", "port": 90},
                {"name": "udp", "port": 91, "protocol": "UDP"},
                {"name": "odd", "port": 92, "protocol": "QUIC"},
                {"name": "far", "port": 70000},
            ]},
        })));
        assert_eq!(key, ObjectName::new("shop", "orders"));
        assert_eq!(fact.selector, [("app".to_owned(), "orders".to_owned())].into());
        let ports: Vec<_> = fact.ports.iter().map(|p| (p.name.as_str(), p.port, p.target.clone(), p.transport)).collect();
        assert_eq!(
            ports,
            [
                ("sql", 5432, PortTarget::Name("postgres".into()), Transport::Tcp),
                ("web", 80, PortTarget::Number(8080), Transport::Tcp),
                ("same", 90, PortTarget::Number(90), Transport::Tcp),
                ("udp", 91, PortTarget::Number(91), Transport::Udp),
            ]
        );
        assert_eq!((fact.external_name, fact.addresses), (None, vec!["10.96.7.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]));
        let (_, external) =
            service(&object(json!({"metadata": {"name": "x"}, "spec": {"type": "ExternalName", "externalName": "evil.example.com"}})));
        assert_eq!(external.external_name.as_deref(), Some("evil.example.com"));
        let (_, headless) = service(&object(json!({"metadata": {"name": "x"}, "spec": {
            "clusterIP": "None", "clusterIPs": ["None"], "selector": {"app": "orders"}, "ports": [{"port": 5432}],
        }})));
        assert_eq!((headless.addresses, headless.external_name), (vec![], None), "its name leads to the pods themselves");
        assert_eq!((headless.selector, headless.ports[0].target.clone()), (fact.selector, PortTarget::Number(5432)));
    }

    #[test]
    fn endpoints_of_a_slice() {
        let slice = |kind: &str, address: &str, service: &str, namespace: &str| -> EndpointSlice {
            object(json!({
                "metadata": {"namespace": namespace, "name": "s", "labels": {SERVICE_NAME_LABEL: service}},
                "addressType": kind,
                "endpoints": [{"addresses": [address]}],
                "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}, {"name": "any"}],
            }))
        };
        let fact = EndpointFact { address: "192.0.2.7".parse().unwrap(), port_name: "https".into(), port: 6443, transport: Transport::Tcp };
        assert_eq!(endpoints(&slice("IPv4", "192.0.2.7", "db", "shop")), Some((ObjectName::new("shop", "db"), vec![fact])));
        assert_eq!(endpoints(&slice("FQDN", "192.0.2.7", "db", "shop")), Some((ObjectName::new("shop", "db"), vec![])));
        assert_eq!(endpoints(&slice("IPv4", "db.example.com", "db", "shop")), Some((ObjectName::new("shop", "db"), vec![])));
        assert_eq!(endpoints(&object(json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": []}))), None);
        assert_eq!(api_server(&slice("IPv6", "2001:db8::1", "kubernetes", "default")), [("2001:db8::1".parse().unwrap(), 6443)]);
        assert_eq!(api_server(&slice("IPv4", "192.0.2.7", "kubernetes", "shop")), []);
    }

    #[test]
    fn ranges_of_nodes_and_services() {
        let (ranges, addresses) = node(&object(json!({
            "metadata": {"name": "n"},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "2001:db8:1::/64"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n"}]},
        })));
        assert_eq!(ranges, ["10.244.0.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()]);
        assert_eq!(addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let cidrs = service_cidr(&object(json!({"metadata": {"name": "c"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00::/112"]}})));
        assert_eq!(cidrs, ["10.96.0.0/16".parse().unwrap(), "fd00::/112".parse().unwrap()]);
    }

    #[test]
    fn dns_is_what_stands_behind_port_53() {
        let service = |selector: Value| -> Service {
            object(json!({"metadata": {"namespace": "openshift-dns", "name": "dns-default"}, "spec": {"selector": selector, "ports": [
                {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "targetPort": "dns-tcp", "protocol": "TCP"},
                {"name": "metrics", "port": 9154, "targetPort": "metrics"},
            ]}}))
        };
        let fact = dns(&service(json!({"dns": "default"}))).unwrap();
        assert_eq!(fact.namespace, "openshift-dns");
        assert_eq!(fact.ports, [(Transport::Tcp, PortTarget::Name("dns-tcp".into())), (Transport::Udp, PortTarget::Name("dns".into()))]);
        assert_eq!(dns(&service(json!({}))), None);
    }
}
