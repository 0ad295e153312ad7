//! The facts a plan is made from: small projections of what lies in the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::policy::{Proxy, Roots};
use crate::scope::{DomainName, ObjectName, Ranges};

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub services: BTreeMap<ObjectName, ServiceFact>,
    /// Endpoints from EndpointSlices that nobody derives from a selector, by Service.
    pub endpoints: BTreeMap<ObjectName, Vec<EndpointFact>>,
    /// Where the API server itself listens (policies act after the Service's address is translated).
    pub api_server: Vec<(IpAddr, u16)>,
    /// Where pods reach it.
    pub api_service: Vec<(IpAddr, u16)>,
    pub ranges: ClusterRanges,
    pub dns: Vec<DnsFact>,
    /// DNS servers that are no pods, such as NodeLocal DNSCache.
    pub dns_addresses: Vec<IpAddr>,
    /// The cluster's DNS domain.
    pub domain: DomainName,
    /// Where guards ask for their policy. None: there are no guards.
    pub channel: Option<ChannelFact>,
    /// Whom certificates of upstreams must lead to. None: the public authorities.
    pub roots: Option<Roots>,
    /// Where hosts are reached through. None: they are reached themselves.
    pub proxy: Option<Proxy>,
}

/// The operator's end of the control channel: a Service whose name leads to its pods, and the port on which these listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFact {
    pub service: ObjectName,
    pub port: u16,
}

impl ChannelFact {
    /// The Service's full name, if it can be one.
    pub fn name(&self, domain: &DomainName) -> Option<DomainName> {
        let ObjectName { namespace, name } = &self.service;
        format!("{name}.{namespace}.svc.{domain}").parse().ok()
    }
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFact {
    /// Empty: no selector, its EndpointSlices are somebody's work.
    pub selector: BTreeMap<String, String>,
    pub ports: Vec<ServicePortFact>,
    pub external_name: Option<String>,
    /// Its own: none where it is headless.
    pub addresses: Vec<IpAddr>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePortFact {
    pub name: String,
    pub port: u16,
    pub target: PortTarget,
    pub transport: Transport,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortTarget {
    Number(u16),
    /// A port of the pods, by its name.
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// One address of an EndpointSlice, with one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointFact {
    pub address: IpAddr,
    pub port_name: String,
    pub port: u16,
    pub transport: Transport,
}

/// The cluster's own addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterRanges {
    /// Of pods. Unknown (empty) means that no host outside can be told from a pod: such sources are refused.
    pub pods: Vec<IpNet>,
    pub services: Vec<IpNet>,
    pub nodes: Vec<IpAddr>,
    /// Given by the admin.
    pub others: Vec<IpNet>,
}

/// A DNS service made of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsFact {
    pub namespace: String,
    pub selector: BTreeMap<String, String>,
    pub ports: Vec<(Transport, PortTarget)>,
    /// Where clients ask it.
    pub addresses: Vec<IpAddr>,
}

impl DnsFact {
    /// A DNS Service made of pods: those pods, on what stands behind port 53 (OpenShift's listen elsewhere). None: it has no selector or no port 53.
    pub fn of(namespace: &str, service: &ServiceFact) -> Option<Self> {
        let ServiceFact { selector, ports, external_name, addresses } = service;
        let mut ports: Vec<_> = ports.iter().filter(|p| p.port == 53).map(|p| (p.transport, p.target.clone())).collect();
        ports.sort();
        let found = external_name.is_none() && !selector.is_empty() && !ports.is_empty();
        found.then(|| Self { namespace: namespace.to_owned(), selector: selector.clone(), ports, addresses: addresses.clone() })
    }
}

impl Facts {
    /// All of the cluster's own addresses.
    pub fn own_ranges(&self) -> Ranges {
        let ClusterRanges { pods, services, nodes, others } = &self.ranges;
        Ranges::new(
            pods.iter()
                .chain(services)
                .chain(others)
                .copied()
                .chain(nodes.iter().copied().chain(self.api_server.iter().map(|(a, _)| *a)).map(|a| IpNet::from(a.to_canonical()))),
        )
    }
}
