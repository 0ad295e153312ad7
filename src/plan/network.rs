//! The NetworkPolicy of a workload: nothing in, nothing out, but what the scope names.
//!
//! Pods are reached by selectors and ports of their own, never by address (engines differ on whether an address block covers pods,
//! and an address list is only as good as whoever may edit it). The outside is every public address that is not the cluster's own.
//! The network layer cannot tell one host from another: it opens the port. Empties are spelled out, because an omitted list is a
//! list that somebody else may fill.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::object::metadata;
use super::{ChannelFact, DnsFact, Facts, ManagedObject, PortTarget, Refusal, RefusalReason, ServiceFact, ServicePortFact, Transport};
use crate::policy::Proxy;
use crate::policy::pod::{OPERATOR_LABELS, generated_name};
use crate::scope::{Ceilings, ClientPeer, ObjectName, Requirement, Scope, Selector, Target};

/// The label which every Namespace bears with its own name, whoever wrote it.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A Service's selector is its editor's: one of a megabyte would keep every policy that names it from being written.
pub(super) const MOST_LABELS: usize = 32;

/// Name of the NetworkPolicy of a workload.
pub(super) fn name(workload: &ObjectName) -> String {
    generated_name(&workload.name)
}

/// It has no owner: a foreground deletion of the AIWorkload would remove it before the pods are gone.
pub(super) fn policy(scope: &Scope, ceilings: &Ceilings, facts: &Facts, refusals: &mut Vec<Refusal>) -> ManagedObject {
    let mut openings = openings(scope, ceilings, facts, refusals);
    let mut ingress = ingress(scope);
    if scope.suspended {
        // Guards hear from the operator when it is over.
        let to_operator = to_operator(facts).map(|(peer, _)| peer);
        openings.retain(|peer, _| to_operator.as_ref() == Some(peer));
        ingress.clear();
    }
    let egress = egress(openings, facts);
    ManagedObject::NetworkPolicy(NetworkPolicy {
        metadata: metadata(&scope.workload, None, &scope.workload.namespace, &name(&scope.workload)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(&scope.selector)),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    })
}

fn ingress(scope: &Scope) -> Vec<NetworkPolicyIngressRule> {
    scope
        .clients
        .iter()
        .map(|client| NetworkPolicyIngressRule {
            from: Some(vec![match &client.peer {
                ClientPeer::Pods { namespace, selector } => pods(namespace, selector),
                ClientPeer::Block { cidr, except } => block(cidr, except),
            }]),
            ports: Some(vec![port(Transport::Tcp, &PortTarget::Number(client.port))]),
        })
        .collect()
}

/// Who is reached on which ports. One entry per peer, so that the rules do not depend on the order of the sources.
type Openings = BTreeMap<Peer, BTreeSet<(Transport, PortTarget)>>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    Pods { namespace: String, selector: Selector },
    Address(IpNet),
    Outside,
}

fn openings(scope: &Scope, ceilings: &Ceilings, facts: &Facts, refusals: &mut Vec<Refusal>) -> Openings {
    let mut openings = Openings::new();
    let mut names_are_needed = false;
    let mut refuse = |source: &str, member: &str, reason, message| {
        refusals.push(Refusal { reason, path: format!("dataSources[name={source}].{member}"), message });
    };
    for source in &scope.sources {
        match &source.target {
            Target::Service { service, port, http: _ } => {
                names_are_needed = true;
                if let Err((reason, message)) = open_service(scope, service, *port, ceilings, facts, &mut openings) {
                    refuse(&source.name, "service", reason, message);
                }
            }
            Target::Host { host, port, http: _ } => {
                names_are_needed = true;
                if facts.ranges.pods.is_empty() {
                    refuse(
                        &source.name,
                        "host",
                        RefusalReason::ClusterRangesUnknown,
                        format!("{host} cannot be told from a pod: no Node has a podCIDR; give the chart's value cluster.podRanges"),
                    );
                } else if let Some(Proxy { addresses }) = &facts.proxy {
                    // The guard asks it for the host; the host itself is nobody's to reach.
                    for address in addresses {
                        let peer = Peer::Address(IpNet::from(address.ip().to_canonical()));
                        openings.entry(peer).or_default().insert((Transport::Tcp, PortTarget::Number(address.port())));
                    }
                } else {
                    openings.entry(Peer::Outside).or_default().insert((Transport::Tcp, PortTarget::Number(*port)));
                }
            }
            Target::Kubernetes(_) => {
                names_are_needed = true;
                for (address, port) in &facts.api_server {
                    let block = IpNet::from(address.to_canonical());
                    openings.entry(Peer::Address(block)).or_default().insert((Transport::Tcp, PortTarget::Number(*port)));
                }
            }
            Target::ConfigMap(_) | Target::Secret(_) | Target::PersistentVolumeClaim { .. } => {}
        }
    }
    // The guard looks the operator up, and asks it.
    if let Some((peer, port)) = to_operator(facts) {
        names_are_needed = true;
        openings.entry(peer).or_default().insert((Transport::Tcp, PortTarget::Number(port)));
    }
    if names_are_needed {
        open_dns(facts, &mut openings);
    }
    openings
}

/// The operator's pods, and the port that guards ask.
fn to_operator(facts: &Facts) -> Option<(Peer, u16)> {
    let ChannelFact { service, port } = facts.channel.as_ref()?;
    let selector = Selector::labels(OPERATOR_LABELS).expect("labels are well-formed");
    Some((Peer::Pods { namespace: service.namespace.clone(), selector }, *port))
}

fn egress(openings: Openings, facts: &Facts) -> Vec<NetworkPolicyEgressRule> {
    let outside = facts.own_ranges().outside();
    openings
        .into_iter()
        .map(|(peer, ports)| NetworkPolicyEgressRule {
            to: Some(match &peer {
                Peer::Pods { namespace, selector } => vec![pods(namespace, selector)],
                Peer::Address(cidr) => vec![block(cidr, &[])],
                Peer::Outside => outside.iter().map(|b| block(&b.cidr, &b.except)).collect(),
            }),
            ports: Some(ports.iter().map(|(transport, target)| port(*transport, target)).collect()),
        })
        // A rule without peers would allow everybody.
        .filter(|rule| rule.to.as_ref().is_some_and(|to| !to.is_empty()))
        .collect()
}

/// Where a slice leads a Service that selects pods out of the cluster: one that somebody wrote, whatever its labels say, or that of a pod
/// outside of the known ranges. The address that clients call is the Service's own, so neither the guard nor the
/// policy, where it opens the outside for a host, would see it.
pub(super) fn led_outside(service: &ObjectName, facts: &Facts) -> Option<std::net::IpAddr> {
    let own = facts.own_ranges();
    facts.endpoints.get(service)?.iter().map(|endpoint| endpoint.address.to_canonical()).find(|address| own.is_outside(*address))
}

fn open_service(
    scope: &Scope,
    service: &ObjectName,
    port: u16,
    ceilings: &Ceilings,
    facts: &Facts,
    openings: &mut Openings,
) -> Result<(), (RefusalReason, String)> {
    let Some(ServiceFact { selector, ports, external_name, addresses: _ }) = facts.services.get(service) else {
        return Err((RefusalReason::NotFound, format!("Service {service} does not exist (yet); it is denied until it does")));
    };
    if let Some(name) = external_name {
        return Err((
            RefusalReason::ExternalName,
            format!(
                "Service {service} is an ExternalName ({name}), which leads wherever its editors say; declare a source of type Host instead"
            ),
        ));
    }
    let Some(fact) = ports.iter().find(|p| p.port == port && p.transport == Transport::Tcp) else {
        let known: Vec<String> = ports.iter().filter(|p| p.transport == Transport::Tcp).map(|p| p.port.to_string()).collect();
        return Err((RefusalReason::NotFound, format!("Service {service} has no TCP port {port} (it has {})", known.join(", "))));
    };
    if selector.len() > MOST_LABELS {
        return Err((
            RefusalReason::AddressNotAllowed,
            format!(
                "Service {service} selects pods by more than {MOST_LABELS} labels, which would make the policy too large; it needs fewer"
            ),
        ));
    }
    if !selector.is_empty() {
        if let Some(address) = led_outside(service, facts) {
            return Err((
                RefusalReason::AddressNotAllowed,
                format!(
                    "Service {service} selects pods, and an EndpointSlice leads it to {address}, outside of the cluster: with a declared host, that would be let through; delete the slice that somebody wrote (kubectl get endpointslices -n {} -l kubernetes.io/service-name={}), or, if it is a pod's address, name its range in the chart's cluster.podRanges",
                    service.namespace, service.name
                ),
            ));
        }
        let selector = Selector::labels(selector.clone())
            .map_err(|e| (RefusalReason::NotFound, format!("Service {service} has a selector that matches no pod: {e}")))?;
        let peer = Peer::Pods { namespace: service.namespace.clone(), selector };
        openings.entry(peer).or_default().insert((Transport::Tcp, fact.target.clone()));
        return Ok(());
    }
    let (allowed, mut refused) = endpoints(scope, service, fact, ceilings, facts);
    for endpoint in allowed {
        openings
            .entry(Peer::Address(IpNet::from(endpoint.ip())))
            .or_default()
            .insert((Transport::Tcp, PortTarget::Number(endpoint.port())));
    }
    if refused.is_empty() {
        return Ok(());
    }
    refused.sort();
    refused.dedup();
    Err((
        RefusalReason::AddressNotAllowed,
        format!(
            "Service {service} has no selector and leads to {}: no ScopeCeiling names that address for it (services[].addresses), or it is the cluster's own, or the port is not the Service's targetPort",
            refused.join(", ")
        ),
    ))
}

/// The endpoints of a Service without selector: those that may be reached, and those that may not.
pub(super) fn endpoints(
    scope: &Scope,
    service: &ObjectName,
    fact: &ServicePortFact,
    ceilings: &Ceilings,
    facts: &Facts,
) -> (Vec<SocketAddr>, Vec<String>) {
    let ServicePortFact { name, port, target, transport } = fact;
    let own = facts.own_ranges();
    let (mut allowed, mut refused) = (Vec::new(), Vec::new());
    for endpoint in facts.endpoints.get(service).into_iter().flatten() {
        if endpoint.port_name != *name || endpoint.transport != *transport {
            continue;
        }
        let address = endpoint.address.to_canonical();
        let named = ceilings.allows_address(&scope.workload.namespace, service, *port, address);
        // Whoever writes the slice chooses neither the address nor the port.
        let expected = match target {
            PortTarget::Number(number) => *number,
            PortTarget::Name(_) => *port,
        };
        let found = SocketAddr::new(address, endpoint.port);
        if named && endpoint.port == expected && !own.contains(address) && !never_a_destination(address) {
            allowed.push(found);
        } else {
            refused.push(found.to_string());
        }
    }
    (allowed, refused)
}

/// Addresses which no EndpointSlice may lead to, whatever a ceiling says: loopback, link-local (metadata), multicast, unspecified.
pub fn never_a_destination(address: std::net::IpAddr) -> bool {
    let link_local = match address {
        std::net::IpAddr::V4(a) => a.is_link_local() || a.is_broadcast(),
        std::net::IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified()
}

fn open_dns(facts: &Facts, openings: &mut Openings) {
    for DnsFact { namespace, selector, ports, addresses: _ } in &facts.dns {
        if selector.is_empty() || selector.len() > MOST_LABELS {
            continue;
        }
        let Ok(selector) = Selector::labels(selector.clone()) else { continue };
        openings.entry(Peer::Pods { namespace: namespace.clone(), selector }).or_default().extend(ports.iter().cloned());
    }
    for address in &facts.dns_addresses {
        let ports = [Transport::Tcp, Transport::Udp].map(|t| (t, PortTarget::Number(53)));
        openings.entry(Peer::Address(IpNet::from(address.to_canonical()))).or_default().extend(ports);
    }
}

fn pods(namespace: &str, selector: &Selector) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some([(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned())].into()),
            match_expressions: None,
        }),
        pod_selector: Some(label_selector(selector)),
        ip_block: None,
    }
}

fn block(cidr: &IpNet, except: &[IpNet]) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: cidr.to_string(),
            except: (!except.is_empty()).then(|| except.iter().map(ToString::to_string).collect()),
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn port(transport: Transport, target: &PortTarget) -> NetworkPolicyPort {
    let protocol = match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Sctp => "SCTP",
    };
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(match target {
            PortTarget::Number(number) => IntOrString::Int(i32::from(*number)),
            PortTarget::Name(name) => IntOrString::String(name.clone()),
        }),
        end_port: None,
    }
}

/// A selector as Kubernetes writes it: `key: value` where it can, expressions elsewhere, both in a fixed order.
pub fn label_selector(selector: &Selector) -> LabelSelector {
    let mut labels = BTreeMap::new();
    let mut expressions = Vec::new();
    for (key, requirement) in selector.requirements() {
        let (operator, values) = match requirement {
            Requirement::In(values) if values.len() == 1 && !labels.contains_key(key) => {
                labels.extend(values.first().map(|v| (key.to_owned(), v.clone())));
                continue;
            }
            Requirement::In(values) => ("In", Some(values)),
            Requirement::NotIn(values) => ("NotIn", Some(values)),
            Requirement::Exists => ("Exists", None),
            Requirement::DoesNotExist => ("DoesNotExist", None),
        };
        expressions.push(LabelSelectorRequirement {
            key: key.to_owned(),
            operator: operator.to_owned(),
            values: values.map(|v| v.iter().cloned().collect()),
        });
    }
    LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    }
}
