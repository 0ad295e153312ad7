//! The decision: a name that is asked for, a connection that begins, a server that is named.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::document::{DeclaredService, GuardPolicy, Mode};
use super::reason::Reason;
use crate::scope::DomainName;

/// Leave to reach one destination. Made by [`GuardPolicy`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    upstream: Upstream,
    source: String,
    observed: Option<Reason>,
}

/// Where a permitted connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// To this address of a declared Service.
    Service {
        name: DomainName,
        address: SocketAddr,
    },
    Kubernetes(SocketAddr),
    /// Where the guard itself finds the host to be.
    Host {
        name: DomainName,
        port: u16,
    },
    /// Where the client wanted to go: in Observe.
    Anywhere(SocketAddr),
}

impl Permit {
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The data source that declares it; empty when it is let through by Observe alone.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Why Enforce would have refused it.
    pub fn observed(&self) -> Option<Reason> {
        self.observed
    }
}

/// What is asked of DNS. Other kinds of records are never needed: an answer without records says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    A,
    Aaaa,
    Other,
}

/// What becomes of a DNS query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Ask the cluster's DNS for its addresses; only [`GuardPolicy::addresses`] of the answer are passed on.
    Resolve,
    /// The name is declared; it has no records of this kind.
    Empty,
    /// A resolver tries its search list on a declared name: there is no such name, try the next.
    NotThere,
    /// Pass query and answer on; Enforce would refuse.
    Observed(Reason),
    Refuse(Reason),
}

/// What becomes of a connection, as far as its address tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connect {
    Permitted(Permit),
    /// Hosts are told apart by what the client says first.
    ReadHello,
    Denied(Reason),
}

impl GuardPolicy {
    /// Whether everything is let through that Enforce would refuse. Whoever suspends an AIWorkload means it: nothing is let through then.
    pub fn observes(&self) -> bool {
        self.mode == Mode::Observe && !self.suspended
    }

    /// A name is asked for. `search` is the search list of the pod.
    pub fn lookup(&self, name: &DomainName, record: Record, search: &[DomainName]) -> Lookup {
        let reason = if self.suspended {
            Reason::Suspended
        } else if self.declares(name) {
            return if record == Record::Other { Lookup::Empty } else { Lookup::Resolve };
        } else if self.short_names.contains(name) || search.iter().filter_map(|suffix| name.before(suffix)).any(|rest| self.means(&rest)) {
            return Lookup::NotThere;
        } else {
            Reason::NameNotDeclared
        };
        if self.observes() { Lookup::Observed(reason) } else { Lookup::Refuse(reason) }
    }

    /// The addresses that a declared name may have, of those that DNS says.
    pub fn addresses(&self, name: &DomainName, found: &[IpAddr]) -> Result<Vec<IpAddr>, Reason> {
        let canonical = found.iter().map(IpAddr::to_canonical);
        let allowed: Vec<IpAddr> = if *name == self.api_server_name {
            canonical.filter(|a| !never(*a) && self.api_server.keys().any(|known| known.ip() == *a)).collect()
        } else if let Some(service) = self.service_of(name) {
            canonical.filter(|a| self.may_be_at(service, *a)).collect()
        } else {
            canonical.filter(|a| self.own.is_outside(*a)).collect()
        };
        // A name without addresses is no offence.
        if allowed.is_empty() && !found.is_empty() { Err(Reason::ResolvesToForbiddenAddress) } else { Ok(allowed) }
    }

    /// A connection begins. `names`: what the guard itself resolved to this address, of late.
    pub fn connect<'a>(&self, to: SocketAddr, names: impl IntoIterator<Item = &'a DomainName>) -> Connect {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        if self.suspended {
            return self.refuse(to, Reason::Suspended);
        }
        if never(to.ip()) {
            // Observe as well: what lies there is the guard itself, or nobody's business.
            return Connect::Denied(Reason::AddressForbidden);
        }
        if let Some(source) = self.api_server.get(&to) {
            return permit(Upstream::Kubernetes(to), source);
        }
        let mut other_port = false;
        for name in names {
            let Some(service) = self.service_of(name).filter(|service| self.may_be_at(service, to.ip())) else { continue };
            match service.ports.get(&to.port()) {
                Some(source) => return permit(Upstream::Service { name: name.clone(), address: to }, source),
                None => other_port = true,
            }
        }
        if self.own.is_outside(to.ip()) {
            if self.hosts.values().any(|ports| ports.contains_key(&to.port())) {
                return Connect::ReadHello;
            }
            if !self.hosts.is_empty() {
                return self.refuse(to, Reason::PortNotDeclared);
            }
        }
        self.refuse(to, if other_port { Reason::PortNotDeclared } else { Reason::DestinationNotDeclared })
    }

    /// After [`Connect::ReadHello`]: the server that the client names, or why there is none.
    pub fn hello(&self, to: SocketAddr, server: Result<DomainName, Reason>) -> Connect {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let name = match server {
            Ok(name) => name,
            Err(reason) => return self.refuse(to, reason),
        };
        // What changed while the hello was read counts.
        if self.suspended {
            return self.refuse(to, Reason::Suspended);
        }
        match self.hosts.get(&name).and_then(|ports| ports.get(&to.port())) {
            Some(source) => permit(Upstream::Host { name, port: to.port() }, source),
            None => self.refuse(to, Reason::ServerNameNotDeclared),
        }
    }

    /// Whether a connection that was permitted before still would be. `reached`: its address, once there is one.
    pub fn still(&self, permit: &Permit, reached: Option<IpAddr>) -> Result<(), Reason> {
        if self.observes() {
            return Ok(());
        }
        if self.suspended {
            return Err(Reason::Suspended);
        }
        let declared = match &permit.upstream {
            Upstream::Host { name, port } => self.hosts.get(name).is_some_and(|ports| ports.contains_key(port)),
            Upstream::Kubernetes(address) => self.api_server.contains_key(address),
            Upstream::Service { name, address } => self
                .service_of(name)
                .is_some_and(|service| service.ports.contains_key(&address.port()) && self.may_be_at(service, address.ip())),
            Upstream::Anywhere(_) => false,
        };
        if !declared {
            return Err(Reason::DestinationNotDeclared);
        }
        // The permits for Services and the API server are for one address; a host is where it was found, by what was its own then.
        match (&permit.upstream, reached) {
            (Upstream::Host { .. }, Some(address)) if !self.own.is_outside(address) => Err(Reason::ResolvesToForbiddenAddress),
            _ => Ok(()),
        }
    }

    /// The data source that declares this name on this port, wherever it leads to.
    pub fn by_name(&self, name: &DomainName, port: u16) -> Result<&str, Reason> {
        if self.suspended {
            return Err(Reason::Suspended);
        }
        let ports: BTreeMap<u16, &String> = if let Some(ports) = self.hosts.get(name) {
            ports.iter().map(|(port, source)| (*port, source)).collect()
        } else if let Some(service) = self.service_of(name) {
            service.ports.iter().map(|(port, source)| (*port, source)).collect()
        } else if *name == self.api_server_name {
            self.api_server.iter().map(|(address, source)| (address.port(), source)).collect()
        } else {
            BTreeMap::new()
        };
        match ports.get(&port) {
            Some(source) => Ok(source.as_str()),
            None if ports.is_empty() => Err(Reason::NameNotDeclared),
            None => Err(Reason::PortNotDeclared),
        }
    }

    /// The full names that a client may mean by this one, as a pod's search list completes it; the name itself last.
    pub fn meant(&self, name: &DomainName) -> Vec<DomainName> {
        let suffixes =
            [format!("{}.svc.{}", self.workload.namespace, self.domain), format!("svc.{}", self.domain), self.domain.to_string()];
        let mut all: Vec<DomainName> =
            suffixes.iter().filter_map(|suffix| format!("{name}.{suffix}").parse().ok()).filter(|full| self.declares(full)).collect();
        all.push(name.clone());
        all
    }

    /// The hosts that are declared on this port.
    pub fn hosts_on(&self, port: u16) -> impl Iterator<Item = &DomainName> {
        self.hosts.iter().filter(move |(_, ports)| ports.contains_key(&port)).map(|(name, _)| name)
    }

    fn refuse(&self, to: SocketAddr, reason: Reason) -> Connect {
        if self.observes() {
            Connect::Permitted(Permit { upstream: Upstream::Anywhere(to), source: String::new(), observed: Some(reason) })
        } else {
            Connect::Denied(reason)
        }
    }

    /// Whether a declared Service may have this address.
    pub fn may_be_a_service(&self, address: IpAddr) -> bool {
        self.service_names.values().any(|service| self.may_be_at(service, address.to_canonical()))
    }

    fn declares(&self, name: &DomainName) -> bool {
        self.hosts.contains_key(name) || self.service_of(name).is_some() || (*name == self.api_server_name && !self.api_server.is_empty())
    }

    /// Whether a client that says this name may mean something declared.
    fn means(&self, name: &DomainName) -> bool {
        self.declares(name) || self.short_names.contains(name)
    }

    /// The Service of this name, or of this name without its first label (a pod of a headless Service).
    fn service_of(&self, name: &DomainName) -> Option<&DeclaredService> {
        self.service_names.get(name).or_else(|| self.service_names.get(&name.parent()?))
    }

    /// The cluster's DNS and the API server are no declared Service, whatever its endpoints say: DNS is the guard's alone, and the API
    /// server is reached as itself.
    fn may_be_at(&self, service: &DeclaredService, address: IpAddr) -> bool {
        let other = self.dns.iter().chain(self.api_server.keys()).any(|known| known.ip().to_canonical() == address);
        !never(address) && !other && (self.services.contains(address) || service.addresses.contains(address))
    }
}

fn permit(upstream: Upstream, source: &str) -> Connect {
    Connect::Permitted(Permit { upstream, source: source.to_owned(), observed: None })
}

/// Addresses that no declaration leads to.
pub(super) fn never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_loopback() || a.is_unspecified() || a.is_link_local() || a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unspecified() || a.is_unicast_link_local() || a.is_multicast(),
    }
}
