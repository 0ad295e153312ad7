//! NetworkPolicies as they are meant. What the API leaves out or empty is a word of its own here, for it means all in one place and nothing
//! in another.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::{End, Port};
use crate::scope::{AddressBlock, ObjectName, Requirement, Selector, SelectorError, parse_block};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Direction {
    Ingress,
    Egress,
}

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: ObjectName,
    pub selects: Selector,
    /// None: it says nothing of that direction. No rules: it allows nothing.
    pub ingress: Option<Vec<Rule>>,
    pub egress: Option<Vec<Rule>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub peers: Peers,
    pub ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    All,
    Only(Vec<Peer>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `namespaces`: None is the policy's own.
    Pods {
        namespaces: Option<Selector>,
        pods: Selector,
    },
    Block(AddressBlock),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    All,
    Only(Vec<(Protocol, PortMatch)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortMatch {
    Any,
    /// First and last.
    Numbers(u16, u16),
    /// Of the destination's containers.
    Name(String),
}

/// What the API server would not have taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("{field}: {source}")]
    Selector {
        field: String,
        #[source]
        source: SelectorError,
    },
    #[error("{field}: `{operator}` is no operator of a label selector; use In, NotIn, Exists or DoesNotExist")]
    Operator { field: String, operator: String },
    #[error("{field}: `{text}` is no block of addresses")]
    Block { field: String, text: String },
    #[error("{field}: names nobody; use podSelector, namespaceSelector or ipBlock")]
    Peer { field: String },
    #[error("{field}: `{text}` is no protocol; use TCP, UDP or SCTP")]
    Protocol { field: String, text: String },
    #[error("{field}: 1 to 65535, the last not before the first")]
    Port { field: String },
    #[error("policyTypes: `{0}` is no direction; use Ingress or Egress")]
    Type(String),
}

// === impl Policy ===

impl Policy {
    /// None: it says nothing of that direction.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    pub fn read(policy: NetworkPolicy) -> Result<Self, PolicyError> {
        let NetworkPolicy { metadata, spec } = policy;
        let spec = spec.unwrap_or_default();
        let types = match spec.policy_types {
            Some(types) if !types.is_empty() => types,
            // The API server's default.
            _ if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) => vec!["Ingress".into(), "Egress".into()],
            _ => vec!["Ingress".into()],
        };
        if let Some(unknown) = types.iter().find(|kind| !matches!(kind.as_str(), "Ingress" | "Egress")) {
            return Err(PolicyError::Type(unknown.clone()));
        }
        let governs = |direction: &str| types.iter().any(|kind| kind == direction);
        let ingress = spec.ingress.unwrap_or_default().into_iter().map(|NetworkPolicyIngressRule { from, ports }| (from, ports));
        let egress = spec.egress.unwrap_or_default().into_iter().map(|NetworkPolicyEgressRule { to, ports }| (to, ports));
        let (ingress, egress) = (rules("ingress", "from", ingress)?, rules("egress", "to", egress)?);
        Ok(Self {
            name: ObjectName::new(metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default()),
            selects: selector("podSelector", spec.pod_selector.unwrap_or_default())?,
            ingress: governs("Ingress").then_some(ingress),
            egress: governs("Egress").then_some(egress),
        })
    }
}

type Said = (Option<Vec<NetworkPolicyPeer>>, Option<Vec<NetworkPolicyPort>>);

fn rules(direction: &str, of: &str, said: impl Iterator<Item = Said>) -> Result<Vec<Rule>, PolicyError> {
    said.enumerate()
        .map(|(at, (peers, ports))| {
            let field = format!("{direction}[{at}]");
            let peers = peers.unwrap_or_default().into_iter().enumerate();
            let peers = peers.map(|(n, one)| peer(&format!("{field}.{of}[{n}]"), one)).collect::<Result<Vec<_>, _>>()?;
            let ports = ports.unwrap_or_default().into_iter().enumerate();
            let ports = ports.map(|(n, one)| port(&format!("{field}.ports[{n}]"), one)).collect::<Result<Vec<_>, _>>()?;
            Ok(Rule {
                peers: if peers.is_empty() { Peers::All } else { Peers::Only(peers) },
                ports: if ports.is_empty() { Ports::All } else { Ports::Only(ports) },
            })
        })
        .collect()
}

fn peer(field: &str, said: NetworkPolicyPeer) -> Result<Peer, PolicyError> {
    let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = said;
    if let Some(IPBlock { cidr, except }) = ip_block {
        let block =
            |text: &str| parse_block(text).map_err(|_| PolicyError::Block { field: format!("{field}.ipBlock"), text: text.to_owned() });
        let except = except.unwrap_or_default().iter().map(|text| block(text)).collect::<Result<_, _>>()?;
        return Ok(Peer::Block(AddressBlock { cidr: block(&cidr)?, except }));
    }
    if namespace_selector.is_none() && pod_selector.is_none() {
        return Err(PolicyError::Peer { field: field.to_owned() });
    }
    let namespaces = namespace_selector.map(|said| selector(&format!("{field}.namespaceSelector"), said)).transpose()?;
    Ok(Peer::Pods { namespaces, pods: selector(&format!("{field}.podSelector"), pod_selector.unwrap_or_default())? })
}

fn port(field: &str, said: NetworkPolicyPort) -> Result<(Protocol, PortMatch), PolicyError> {
    let NetworkPolicyPort { end_port, port, protocol } = said;
    let protocol = match protocol {
        None => Protocol::Tcp,
        Some(text) => text.parse().map_err(|()| PolicyError::Protocol { field: field.to_owned(), text })?,
    };
    let number = |number: i32| u16::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| PolicyError::Port { field: field.to_owned() });
    let matches = match (port, end_port) {
        (None, None) => PortMatch::Any,
        (Some(IntOrString::Int(first)), end) => {
            let (first, last) = (number(first)?, end.map(number).transpose()?);
            let last = last.unwrap_or(first);
            if last < first {
                return Err(PolicyError::Port { field: field.to_owned() });
            }
            PortMatch::Numbers(first, last)
        }
        (Some(IntOrString::String(name)), None) => PortMatch::Name(name),
        (Some(IntOrString::String(_)) | None, Some(_)) => return Err(PolicyError::Port { field: field.to_owned() }),
    };
    Ok((protocol, matches))
}

/// Of the cluster's own kind of selectors.
pub(in crate::drift) fn selector(field: &str, said: LabelSelector) -> Result<Selector, PolicyError> {
    let LabelSelector { match_expressions, match_labels } = said;
    let mut all: Vec<(String, Requirement)> =
        match_labels.unwrap_or_default().into_iter().map(|(key, value)| (key, Requirement::In([value].into()))).collect();
    for expression in match_expressions.unwrap_or_default() {
        let values = expression.values.unwrap_or_default().into_iter().collect();
        let requirement = match expression.operator.as_str() {
            "In" => Requirement::In(values),
            "NotIn" => Requirement::NotIn(values),
            "Exists" => Requirement::Exists,
            "DoesNotExist" => Requirement::DoesNotExist,
            _ => return Err(PolicyError::Operator { field: field.to_owned(), operator: expression.operator }),
        };
        all.push((expression.key, requirement));
    }
    Selector::new(all).map_err(|source| PolicyError::Selector { field: field.to_owned(), source })
}

// === impl Ports ===

impl Ports {
    pub(super) fn hold(&self, to: End<'_>, port: Port) -> bool {
        let Self::Only(all) = self else { return true };
        all.iter().any(|(protocol, matches)| {
            *protocol == port.protocol
                && match matches {
                    PortMatch::Any => true,
                    PortMatch::Numbers(first, last) => (*first..=*last).contains(&port.number),
                    PortMatch::Name(name) => match to {
                        End::Pod(pod) => pod.ports.iter().any(|known| known.name == *name && known.port == port),
                        // Nobody knows the names of its ports.
                        End::Address(_) => false,
                    },
                }
        })
    }
}

// === impl Protocol ===

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}
