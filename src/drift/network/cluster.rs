//! ClusterNetworkPolicies (`policy.networking.k8s.io`, v1alpha2 and v1beta1): tiers around NetworkPolicies, rules in their order.
//!
//! Promise: the first rule that matches decides, by tier, priority and place. Accept is final; Pass leaves the rest of the tier out. Peers by
//! node and by domain name match nothing here, and [`ClusterPolicy::unread`] says so. Two policies of one priority have no order in the API;
//! here their names have.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

use super::policy::{PolicyError, Protocol, selector};
use super::{Direction, End, Network, Port};
use crate::drift::snapshot::PodFact;
use crate::scope::{AddressBlock, Selector, parse_block};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPolicy {
    pub name: String,
    pub tier: Tier,
    pub priority: i32,
    subject: Pods,
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
    /// Fields that say something and are not analysed.
    pub unread: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Tier {
    /// Before NetworkPolicies.
    Admin,
    /// Where no NetworkPolicy selects the pod.
    Baseline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Action {
    Accept,
    Deny,
    Pass,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    action: Action,
    peers: Vec<Peer>,
    /// None: all.
    ports: Option<Vec<Ports>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Peer {
    Pods(Pods),
    Block(AddressBlock),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pods {
    namespaces: Selector,
    pods: Selector,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ports {
    Numbers(Protocol, u16, u16),
    /// Of the destination's containers, whichever protocol it has.
    Name(String),
}

// === impl ClusterPolicy ===

impl ClusterPolicy {
    pub fn read(name: String, spec: Spec) -> Result<Self, PolicyError> {
        let Spec { tier, priority, subject, ingress, egress } = spec;
        let mut unread = Vec::new();
        let subject = match subject {
            SaidPods { pods: Some(pods), namespaces: _ } => pods.meant("subject.pods")?,
            SaidPods { namespaces: Some(namespaces), pods: None } => Pods::of(selector("subject.namespaces", namespaces)?),
            SaidPods { namespaces: None, pods: None } => return Err(PolicyError::Peer { field: "subject".into() }),
        };
        let mut rules = |direction: &str, said: Vec<SaidRule>| -> Result<Vec<Rule>, PolicyError> {
            said.into_iter().enumerate().map(|(at, rule)| rule.meant(&format!("{direction}[{at}]"), &mut unread)).collect()
        };
        let (ingress, egress) = (rules("ingress", ingress)?, rules("egress", egress)?);
        Ok(Self { name, tier, priority, subject, ingress, egress, unread })
    }

    pub(super) fn selects(&self, pod: &PodFact, network: &Network<'_>) -> bool {
        self.subject.are(pod, network)
    }

    /// By the first rule that matches.
    pub(super) fn decides(&self, direction: Direction, peer: End<'_>, to: End<'_>, port: Port, network: &Network<'_>) -> Option<Action> {
        let rules = match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        };
        rules.iter().find(|rule| rule.peers.iter().any(|one| one.is(peer, network)) && rule.hold(to, port)).map(|rule| rule.action)
    }
}

impl Rule {
    fn hold(&self, to: End<'_>, port: Port) -> bool {
        self.ports.as_ref().is_none_or(|all| {
            all.iter().any(|ports| match (ports, to) {
                (Ports::Numbers(protocol, first, last), _) => *protocol == port.protocol && (*first..=*last).contains(&port.number),
                (Ports::Name(name), End::Pod(pod)) => pod.ports.iter().any(|known| known.name == *name && known.port == port),
                (Ports::Name(_), End::Address(_)) => false,
            })
        })
    }
}

impl Peer {
    fn is(&self, end: End<'_>, network: &Network<'_>) -> bool {
        match (self, end) {
            (Self::Pods(pods), End::Pod(pod)) => pods.are(pod, network),
            (Self::Pods(_), End::Address(_)) => false,
            (Self::Block(block), End::Pod(pod)) => pod.addresses.iter().any(|address| block.contains(*address)),
            (Self::Block(block), End::Address(address)) => block.contains(address),
        }
    }
}

impl Pods {
    /// All of these namespaces.
    fn of(namespaces: Selector) -> Self {
        Self { namespaces, pods: Selector::default() }
    }

    fn are(&self, pod: &PodFact, network: &Network<'_>) -> bool {
        !pod.host_network && network.namespace_matches(&self.namespaces, &pod.name.namespace) && self.pods.matches(&pod.labels)
    }
}

// === what is written ===

#[derive(Clone, Debug, Deserialize)]
pub struct Spec {
    tier: Tier,
    priority: i32,
    subject: SaidPods,
    #[serde(default)]
    ingress: Vec<SaidRule>,
    #[serde(default)]
    egress: Vec<SaidRule>,
}

#[derive(Clone, Debug, Deserialize)]
struct SaidPods {
    namespaces: Option<LabelSelector>,
    pods: Option<NamespacedPod>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamespacedPod {
    #[serde(default)]
    namespace_selector: LabelSelector,
    #[serde(default)]
    pod_selector: LabelSelector,
}

#[derive(Clone, Debug, Deserialize)]
struct SaidRule {
    action: Action,
    #[serde(default, alias = "to")]
    from: Vec<SaidPeer>,
    #[serde(default)]
    protocols: Vec<SaidProtocol>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidPeer {
    namespaces: Option<LabelSelector>,
    pods: Option<NamespacedPod>,
    #[serde(default)]
    networks: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidProtocol {
    tcp: Option<SaidPort>,
    udp: Option<SaidPort>,
    sctp: Option<SaidPort>,
    destination_named_port: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidPort {
    destination_port: Option<Numbers>,
}

#[derive(Clone, Debug, Deserialize)]
struct Numbers {
    number: Option<i32>,
    range: Option<Range>,
}

#[derive(Clone, Debug, Deserialize)]
struct Range {
    start: i32,
    end: i32,
}

impl NamespacedPod {
    fn meant(self, field: &str) -> Result<Pods, PolicyError> {
        let Self { namespace_selector, pod_selector } = self;
        let namespaces = selector(&format!("{field}.namespaceSelector"), namespace_selector)?;
        Ok(Pods { namespaces, pods: selector(&format!("{field}.podSelector"), pod_selector)? })
    }
}

impl SaidRule {
    fn meant(self, field: &str, unread: &mut Vec<String>) -> Result<Rule, PolicyError> {
        let Self { action, from, protocols } = self;
        let mut peers = Vec::new();
        for (at, SaidPeer { namespaces, pods, networks }) in from.into_iter().enumerate() {
            let field = format!("{field} peer {at}");
            let before = peers.len();
            if let Some(namespaces) = namespaces {
                peers.push(Peer::Pods(Pods::of(selector(&field, namespaces)?)));
            }
            if let Some(pods) = pods {
                peers.push(Peer::Pods(pods.meant(&field)?));
            }
            for text in networks {
                let cidr = parse_block(&text).map_err(|_| PolicyError::Block { field: field.clone(), text })?;
                peers.push(Peer::Block(AddressBlock { cidr, except: Vec::new() }));
            }
            if peers.len() == before {
                unread.push(field);
            }
        }
        let ports = protocols.into_iter().enumerate().map(|(at, said)| said.meant(&format!("{field}.protocols[{at}]")));
        let ports = ports.collect::<Result<Vec<_>, _>>()?;
        Ok(Rule { action, peers, ports: Some(ports).filter(|ports| !ports.is_empty()) })
    }
}

impl SaidProtocol {
    fn meant(self, field: &str) -> Result<Ports, PolicyError> {
        let wrong = || PolicyError::Port { field: field.to_owned() };
        let Self { tcp, udp, sctp, destination_named_port } = self;
        let (protocol, SaidPort { destination_port }) = match (tcp, udp, sctp, destination_named_port) {
            (Some(port), None, None, None) => (Protocol::Tcp, port),
            (None, Some(port), None, None) => (Protocol::Udp, port),
            (None, None, Some(port), None) => (Protocol::Sctp, port),
            (None, None, None, Some(name)) => return Ok(Ports::Name(name)),
            _ => return Err(wrong()),
        };
        let (first, last) = match destination_port {
            None => return Ok(Ports::Numbers(protocol, 0, u16::MAX)),
            Some(Numbers { number: Some(number), range: None }) => (number, number),
            Some(Numbers { number: None, range: Some(Range { start, end }) }) => (start, end),
            Some(_) => return Err(wrong()),
        };
        let number = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if last < first { Err(wrong()) } else { Ok(Ports::Numbers(protocol, first, last)) }
    }
}
