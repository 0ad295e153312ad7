//! The document: what the operator writes for the guards of one AIWorkload, and what it means once it was read.
//!
//! It names destinations, not mechanisms. Unknown fields and values are refused: an old guard never half-understands a new document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::decide::never;
use super::http::Http;
use crate::scope::{self, Authority, DomainName, Ranges};

/// The newest format that this program writes and reads. It writes the oldest that can say it: see [`Document::oldest_format`].
pub const FORMAT: u32 = 2;
/// The oldest.
const OLDEST: u32 = 1;
/// The first that can say what is judged within a connection, whom upstreams are trusted by, and a proxy.
const WITH_HTTP: u32 = 2;
/// More destinations than this are refused.
pub const MOST_DESTINATIONS: usize = 1_024;
/// Replicas of the operator that a guard speaks to.
const MOST_OPERATORS: usize = 4;
/// More bytes than this are not read.
pub(super) const LARGEST: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    pub format: u32,
    pub workload: WorkloadId,
    /// Of the AIWorkload: a guard never goes back to an older one of the same uid.
    pub generation: i64,
    /// Of this text, and growing: what the operator knows of the cluster changes without a generation. See [`next_serial`].
    #[serde(default)]
    pub serial: u64,
    /// Of the scope.
    pub digest: String,
    pub mode: Mode,
    pub suspended: bool,
    pub network: Network,
    /// Where the operator is asked for newer policies. None: the file alone brings them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    pub destinations: Vec<Destination>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadId {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// As a guard is told whose it is.
impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, uid } = self;
        write!(f, "{namespace}/{name}/{uid}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an AIWorkload; it has the form `namespace/name/uid`")]
pub struct WorkloadIdError;

impl FromStr for WorkloadId {
    type Err = WorkloadIdError;

    fn from_str(text: &str) -> Result<Self, WorkloadIdError> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [namespace, name, uid] if ![namespace, name, uid].contains(&"") => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.to_owned() })
            }
            _ => Err(WorkloadIdError),
        }
    }
}

/// Which text it is, among all that were made of an AIWorkload's name. In reports only: what a newer guard says more of it is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edition {
    pub uid: String,
    pub generation: i64,
    pub serial: u64,
    pub digest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Lets everything pass and records what it would refuse, unless it is suspended.
    Observe,
    Enforce,
}

/// What a guard must know of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// Such as `cluster.local`.
    pub domain: DomainName,
    /// The cluster's DNS servers: names are asked there and nowhere else. Without any, no name is found.
    pub dns: Vec<SocketAddr>,
    /// Addresses that a declared Service may have: those of pods and of Services.
    pub services: Vec<IpNet>,
    /// Everything that is the cluster's own: never the outside.
    pub own: Vec<IpNet>,
    /// Whom certificates of upstreams must lead to. Absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<Roots>,
    /// Where hosts are reached through. Absent: they are reached themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
}

/// Authorities that certificates of upstreams may lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Roots {
    /// Those that the guard carries with it (Mozilla's list).
    pub public: bool,
    /// Others, in PEM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
}

/// A forward proxy that hosts are reached through, by CONNECT. It resolves their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    /// Tried in this order.
    pub addresses: Vec<SocketAddr>,
}

/// The operator's end of the control channel: every address of this name is one of its replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    pub name: DomainName,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// Name of the data source.
    pub source: String,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Target {
    /// `ports`: the Service's port, and the pods' where it is known by its number. `addresses`: where else than at pods and Services its
    /// endpoints may lie.
    Service {
        name: String,
        namespace: String,
        ports: BTreeSet<u16>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        addresses: Vec<IpNet>,
        /// Absent: bytes pass unseen.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http: Option<Http>,
    },
    /// A public host, told by the server name in TLS, or by who is asked in HTTP.
    Host {
        name: DomainName,
        port: u16,
        /// Absent: TLS passes unseen but for the server name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        http: Option<Http>,
    },
    /// The API server.
    Kubernetes { addresses: BTreeSet<SocketAddr> },
}

/// Why a document is not enforced.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("the policy is larger than {LARGEST} bytes")]
    Large,
    #[error("the policy cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the policy has format {0}, and this guard reads formats {OLDEST} to {FORMAT}; bring operator and guard to the same version")]
    Format(u32),
    #[error("the policy has {0} destinations, more than {MOST_DESTINATIONS}")]
    Many(usize),
    #[error("the cluster's domain {0} is too long for the names of Services")]
    Domain(DomainName),
    #[error("{0} is an IPv4 block in IPv6 clothes; write it as IPv4")]
    Mapped(IpNet),
    #[error("data source {of}: {name:?} is not a name that DNS knows")]
    Name { of: String, name: String },
    #[error("data source {of}: http.{fault}")]
    Http { of: String, fault: String },
    #[error("format {0} says nothing of HTTP; use format {WITH_HTTP}")]
    Older(u32),
}

/// What a valid document means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardPolicy {
    pub workload: WorkloadId,
    pub generation: i64,
    pub serial: u64,
    pub digest: String,
    pub mode: Mode,
    pub suspended: bool,
    pub domain: DomainName,
    pub dns: Vec<SocketAddr>,
    pub channel: Option<Channel>,
    pub(super) api_server_name: DomainName,
    pub(super) services: Ranges,
    pub(super) own: Ranges,
    /// By their full names.
    pub(super) service_names: BTreeMap<DomainName, DeclaredService>,
    /// What clients say instead of a Service's full name, before the resolver completes it.
    pub(super) short_names: BTreeSet<DomainName>,
    pub(super) hosts: BTreeMap<DomainName, BTreeMap<u16, Vec<Declared>>>,
    pub(super) api_server: BTreeMap<SocketAddr, String>,
    /// What base URLs lead to, by data source.
    pub(super) bases: BTreeMap<String, Base>,
    pub roots: Option<Roots>,
    pub proxy: Option<Proxy>,
}

/// What is declared on one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub source: Arc<str>,
    /// None: whatever is said there.
    pub http: Option<Arc<Http>>,
}

/// Where the base URL of a data source leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub name: DomainName,
    pub port: u16,
    /// As requests say it.
    pub authority: Authority,
    pub declared: Declared,
}

/// A Service that one or more data sources declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeclaredService {
    /// What is declared on each port; one may be the port of the pods for another.
    pub ports: BTreeMap<u16, Vec<Declared>>,
    pub addresses: Ranges,
}

impl Document {
    pub fn read(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > LARGEST {
            return Err(DocumentError::Large);
        }
        /// A newer document is told from a broken one.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes)?;
        if !(OLDEST..=FORMAT).contains(&format) {
            return Err(DocumentError::Format(format));
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

impl TryFrom<Document> for GuardPolicy {
    type Error = DocumentError;

    fn try_from(document: Document) -> Result<Self, DocumentError> {
        let Document { format, workload, generation, serial, digest, mode, suspended, network, channel, destinations } = document;
        if !(OLDEST..=FORMAT).contains(&format) {
            return Err(DocumentError::Format(format));
        }
        if format < oldest_format(&network, &destinations) {
            return Err(DocumentError::Older(format));
        }
        if destinations.len() > MOST_DESTINATIONS {
            return Err(DocumentError::Many(destinations.len()));
        }
        let Network { domain, dns, services, own, roots, proxy } = network;
        let api_server_name = format!("kubernetes.default.svc.{domain}").parse().map_err(|_| DocumentError::Domain(domain.clone()))?;
        // Addresses are compared as what they are.
        if let Some(mapped) = services.iter().chain(&own).find(|block| block.addr().to_canonical() != block.addr()) {
            return Err(DocumentError::Mapped(*mapped));
        }
        let mut policy = Self {
            api_server_name,
            services: Ranges::new(services),
            own: Ranges::new(own),
            service_names: BTreeMap::new(),
            short_names: BTreeSet::new(),
            hosts: BTreeMap::new(),
            api_server: BTreeMap::new(),
            bases: BTreeMap::new(),
            roots,
            proxy,
            workload,
            generation,
            serial,
            digest,
            mode,
            suspended,
            domain,
            dns,
            channel,
        };
        for Destination { source, target } in destinations {
            let declared = |http: Option<Http>| match http.as_ref().and_then(Http::fault) {
                Some(fault) => Err(DocumentError::Http { of: source.clone(), fault }),
                None => Ok(Declared { source: source.as_str().into(), http: http.map(Arc::new) }),
            };
            match target {
                Target::Service { name, namespace, ports, addresses, http } => {
                    let parsed = |text: String| {
                        text.parse::<DomainName>().map_err(|_| DocumentError::Name { of: source.clone(), name: text.clone() })
                    };
                    let full = parsed(format!("{name}.{namespace}.svc.{}", policy.domain))?;
                    let declared = declared(http)?;
                    let first = ports.first().copied().unwrap_or_default();
                    policy.base(&full, first, parsed(format!("{name}.{namespace}.svc"))?, &declared);
                    // `orders.123` reads as an address; nobody means the Service by it.
                    let mut short = vec![format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")];
                    if namespace == policy.workload.namespace {
                        short.push(name);
                    }
                    policy.short_names.extend(short.into_iter().filter_map(|name| name.parse().ok()));
                    let service = policy.service_names.entry(full).or_default();
                    for port in ports {
                        service.ports.entry(port).or_default().push(declared.clone());
                    }
                    service.addresses = Ranges::new(service.addresses.blocks().iter().copied().chain(addresses));
                }
                Target::Host { name, port, http } => {
                    let declared = declared(http)?;
                    policy.base(&name, port, name.clone(), &declared);
                    policy.hosts.entry(name).or_default().entry(port).or_default().push(declared);
                }
                Target::Kubernetes { addresses } => {
                    policy.api_server.extend(addresses.into_iter().map(|address| (address, source.clone())));
                    for short in ["kubernetes.default.svc", "kubernetes.default"] {
                        policy.short_names.insert(short.parse().expect("a name"));
                    }
                }
            }
        }
        Ok(policy)
    }
}

/// See [`Document::oldest_format`].
fn oldest_format(network: &Network, destinations: &[Destination]) -> u32 {
    let newer = |destination: &Destination| match &destination.target {
        Target::Service { http, .. } | Target::Host { http, .. } => http.is_some(),
        Target::Kubernetes { .. } => false,
    };
    if network.roots.is_some() || network.proxy.is_some() || destinations.iter().any(newer) { WITH_HTTP } else { OLDEST }
}

impl Document {
    /// The oldest format that can say it: guards of before go on reading what they can hold.
    pub fn oldest_format(&self) -> u32 {
        oldest_format(&self.network, &self.destinations)
    }
}

impl Edition {
    /// Whether this text may take the place of `before`: never an older one of the same AIWorkload. One that was deleted and made again
    /// counts its generations anew, and its texts do not: so what an earlier one allowed does not come back.
    pub fn may_follow(&self, before: &Self) -> bool {
        let same = self.uid == before.uid;
        self.serial >= before.serial && (!same || self.generation >= before.generation) || same && self.generation > before.generation
    }
}

/// Numbers the text that is about to be written where `previous` lies: its own serial if it says the same, else a greater one. `now`:
/// milliseconds since 1970.
pub fn next_serial(previous: Option<&Document>, new: &mut Document, now: u64) {
    new.serial = match previous {
        None => now,
        Some(previous) => {
            new.serial = previous.serial;
            if new == previous { previous.serial } else { now.max(previous.serial.saturating_add(1)) }
        }
    };
}

impl Document {
    pub fn edition(&self) -> Edition {
        let Self { workload, generation, serial, digest, .. } = self;
        Edition { uid: workload.uid.clone(), generation: *generation, serial: *serial, digest: digest.clone() }
    }
}

impl GuardPolicy {
    fn base(&mut self, name: &DomainName, port: u16, said: DomainName, declared: &Declared) {
        let Some(http) = &declared.http else { return };
        let port = http.port.unwrap_or(port);
        let authority = Authority { host: scope::Host::Name(said), port: Some(port).filter(|port| *port != http.scheme.default_port()) };
        let base = Base { name: name.clone(), port, authority, declared: declared.clone() };
        self.bases.insert(declared.source.to_string(), base);
    }

    /// Whether `next` may take this one's place: never an older one, never another AIWorkload's.
    pub fn may_become(&self, next: &GuardPolicy) -> bool {
        let WorkloadId { namespace, name, uid: _ } = &next.workload;
        *namespace == self.workload.namespace && *name == self.workload.name && next.edition().may_follow(&self.edition())
    }

    pub fn edition(&self) -> Edition {
        let Self { workload, generation, serial, digest, .. } = self;
        Edition { uid: workload.uid.clone(), generation: *generation, serial: *serial, digest: digest.clone() }
    }

    /// Where the operator may be, of the addresses that its name has: one is always found in the same order, and nothing lies within this
    /// pod or beside the node.
    pub fn operators(&self, found: &[IpAddr]) -> Vec<SocketAddr> {
        let Some(Channel { name: _, port }) = &self.channel else { return Vec::new() };
        let allowed: BTreeSet<IpAddr> = found.iter().map(IpAddr::to_canonical).filter(|address| !never(*address)).collect();
        allowed.into_iter().take(MOST_OPERATORS).map(|address| SocketAddr::new(address, *port)).collect()
    }

    /// The full names of declared Services.
    pub fn services(&self) -> impl Iterator<Item = &DomainName> {
        self.service_names.keys()
    }
}
