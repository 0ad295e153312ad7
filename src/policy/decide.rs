//! The decision: a name that is asked for, a connection that begins, a server that is named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::document::{Base, Declared, DeclaredService, GuardPolicy, Mode};
use super::http::{Http, Inspect, Of, Request, Scheme};
use super::reason::Reason;
use crate::scope::{Authority, DomainName, Host};

/// Leave to reach one destination. Made by [`GuardPolicy`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    upstream: Upstream,
    leg: Leg,
    source: Arc<str>,
    observed: Option<Reason>,
    /// As who is asked, for what came by a base URL.
    authority: Option<Authority>,
    forms: Forms,
}

/// What becomes of a form in the body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forms {
    /// It passes like every body.
    Pass,
    /// It may not name a method: see [`crate::scope::names_a_method`].
    NameNoMethod,
}

/// Where what is permitted goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// To this address of a declared Service.
    Service {
        name: DomainName,
        address: SocketAddr,
    },
    Kubernetes(SocketAddr),
    /// Where the guard itself finds the name to be: a host, or a Service that a base URL leads to.
    Named {
        name: DomainName,
        port: u16,
    },
    /// Where the client wanted to go: in Observe.
    Anywhere(SocketAddr),
}

/// What is spoken with the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// Bytes, as they come.
    Bytes,
    Http(Scheme),
}

impl Permit {
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub fn leg(&self) -> Leg {
        self.leg
    }

    /// The data source that declares it; empty when it is let through by Observe alone.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Why Enforce would have refused it.
    pub fn observed(&self) -> Option<Reason> {
        self.observed
    }

    pub fn forms(&self) -> Forms {
        self.forms
    }

    /// As who the upstream is asked, where the client did not say it.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Of this permit's making; for the same destination by other words.
    fn bytes(upstream: Upstream, source: Arc<str>) -> Self {
        Self { upstream, leg: Leg::Bytes, source, observed: None, authority: None, forms: Forms::Pass }
    }
}

/// How a connection came, with what that tells of where it is to go.
#[derive(Clone, Copy, Debug)]
pub enum Arrived<'a> {
    /// Redirected, on its way to this address. `names`: what the guard itself resolved to it, of late.
    At { to: SocketAddr, names: &'a [DomainName] },
    /// The client asked the guard itself for a connection to this host.
    For { name: &'a DomainName, port: u16 },
}

/// What a connection begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// TLS: the server that the client names, or why there is none.
    Hello(Result<DomainName, Reason>),
    Other,
}

/// Whom the requests of a connection may be for, before the first was read. [`GuardPolicy::request`] judges each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    of: Candidates,
    scheme: Scheme,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Candidates {
    /// Services that this address is known by.
    Services { to: SocketAddr, names: Vec<DomainName> },
    /// Hosts on this port. `to`: where the client wanted to go.
    Hosts { to: SocketAddr },
    /// This host: it was named before.
    Host { name: DomainName, port: u16 },
    /// Whatever has a base URL, and hosts: at the guard's own port.
    Own,
}

impl Site {
    /// At the guard's own port.
    pub const OWN: Self = Self { of: Candidates::Own, scheme: Scheme::Http };

    /// What the client speaks; with [`Scheme::Https`] the guard ends the client's TLS.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The port that is asked. None: at the guard's own, whatever is said.
    pub fn port(&self) -> Option<u16> {
        match &self.of {
            Candidates::Services { to, .. } | Candidates::Hosts { to } => Some(to.port()),
            Candidates::Host { name: _, port } => Some(*port),
            Candidates::Own => None,
        }
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

/// What becomes of a connection, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connect {
    Permitted(Permit),
    /// Its requests are judged one by one.
    Http(Site),
    /// Destinations are told apart by what the client says first.
    ReadFirst,
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

    /// A connection begins. `first`: what was read of it, after [`Connect::ReadFirst`].
    pub fn connect(&self, arrived: Arrived<'_>, first: Option<&First>) -> Connect {
        match arrived {
            Arrived::At { to, names } => self.redirected(SocketAddr::new(to.ip().to_canonical(), to.port()), names, first),
            Arrived::For { name, port } => self.asked(name, port, first),
        }
    }

    fn redirected(&self, to: SocketAddr, names: &[DomainName], first: Option<&First>) -> Connect {
        if self.suspended {
            return self.refuse(to, Reason::Suspended);
        }
        if never(to.ip()) {
            // Observe as well: what lies there is the guard itself, or nobody's business.
            return Connect::Denied(Reason::AddressForbidden);
        }
        if let Some(source) = self.api_server.get(&to) {
            return Connect::Permitted(Permit::bytes(Upstream::Kubernetes(to), source.as_str().into()));
        }
        let mut other_port = false;
        let mut judged = Vec::new();
        for name in names {
            let Some(service) = self.service_of(name).filter(|service| self.may_be_at(service, to.ip())) else { continue };
            let Some(declared) = service.ports.get(&to.port()) else {
                other_port = true;
                continue;
            };
            if let Some(Declared { source, http: _ }) = declared.iter().find(|declared| declared.http.is_none()) {
                return Connect::Permitted(Permit::bytes(Upstream::Service { name: name.clone(), address: to }, source.clone()));
            }
            judged.extend(declared.iter().filter_map(|declared| Some((name, declared.http.as_ref()?))));
        }
        if !judged.is_empty() {
            return self.requests_to(to, &judged, first);
        }
        if self.own.is_outside(to.ip()) {
            let mut on_port = self.hosts.values().filter_map(|ports| ports.get(&to.port())).flatten().peekable();
            if on_port.peek().is_some() {
                let plain = on_port.any(|declared| declared.http.as_ref().is_some_and(|http| http.scheme == Scheme::Http));
                return match first {
                    None => Connect::ReadFirst,
                    Some(First::Other) if plain => Connect::Http(Site { of: Candidates::Hosts { to }, scheme: Scheme::Http }),
                    Some(First::Other) => self.refuse(to, Reason::TlsRequired),
                    Some(First::Hello(Err(reason))) => self.refuse(to, *reason),
                    Some(First::Hello(Ok(name))) => self.host(name, to.port()).unwrap_or_else(|reason| self.refuse(to, reason)),
                };
            }
            if !self.hosts.is_empty() {
                return self.refuse(to, Reason::PortNotDeclared);
            }
        }
        self.refuse(to, if other_port { Reason::PortNotDeclared } else { Reason::DestinationNotDeclared })
    }

    /// To Services of which every declaration judges requests.
    fn requests_to(&self, to: SocketAddr, judged: &[(&DomainName, &Arc<Http>)], first: Option<&First>) -> Connect {
        let site = |scheme, of: &dyn Fn(&DomainName, &Http) -> bool| {
            let fits = judged.iter().filter(|(name, http)| http.scheme == scheme && of(name, http));
            let mut names: Vec<DomainName> = fits.map(|(name, _)| (*name).clone()).collect();
            names.dedup();
            (!names.is_empty()).then_some(Connect::Http(Site { of: Candidates::Services { to, names }, scheme }))
        };
        let plain = || site(Scheme::Http, &|_, _| true);
        if judged.iter().all(|(_, http)| http.scheme == Scheme::Http) {
            return plain().unwrap_or(Connect::Denied(Reason::DestinationNotDeclared));
        }
        match first {
            None => Connect::ReadFirst,
            Some(First::Other) => plain().unwrap_or_else(|| self.refuse(to, Reason::TlsRequired)),
            Some(First::Hello(Err(reason))) => self.refuse(to, *reason),
            Some(First::Hello(Ok(said))) => {
                if !judged.iter().any(|(name, _)| self.is_meant(said, name)) {
                    return self.refuse(to, Reason::ServerNameNotDeclared);
                }
                let seen = |name: &DomainName, http: &Http| http.inspect == Inspect::Intercept && self.is_meant(said, name);
                self.intercepted(site(Scheme::Https, &seen)).unwrap_or_else(|reason| self.refuse(to, reason))
            }
        }
    }

    fn intercepted(&self, site: Option<Connect>) -> Result<Connect, Reason> {
        // Whom Observe governs may not know the guard's certificate.
        site.filter(|_| !self.observes()).ok_or(Reason::NotInspected)
    }

    /// Towards a host that the client named in TLS.
    fn host(&self, name: &DomainName, port: u16) -> Result<Connect, Reason> {
        let declared = self.hosts.get(name).and_then(|ports| ports.get(&port)).ok_or(Reason::ServerNameNotDeclared)?;
        if let Some(Declared { source, http: _ }) = declared.iter().find(|declared| declared.http.is_none()) {
            return Ok(Connect::Permitted(Permit::bytes(Upstream::Named { name: name.clone(), port }, source.clone())));
        }
        let seen = declared.iter().flat_map(|declared| &declared.http).any(|http| http.inspect == Inspect::Intercept);
        let site = Site { of: Candidates::Host { name: name.clone(), port }, scheme: Scheme::Https };
        self.intercepted(seen.then_some(Connect::Http(site)))
    }

    /// The client asked for this host at the guard's own port.
    fn asked(&self, name: &DomainName, port: u16, first: Option<&First>) -> Connect {
        let refuse = |reason| {
            if self.observes() {
                let upstream = Upstream::Named { name: name.clone(), port };
                Connect::Permitted(Permit { observed: Some(reason), ..Permit::bytes(upstream, "".into()) })
            } else {
                Connect::Denied(reason)
            }
        };
        if self.suspended {
            return refuse(Reason::Suspended);
        }
        let Some(declared) = self.hosts.get(name).and_then(|ports| ports.get(&port)) else {
            return refuse(if self.hosts.contains_key(name) { Reason::PortNotDeclared } else { Reason::NameNotDeclared });
        };
        let plain = declared.iter().flat_map(|declared| &declared.http).any(|http| http.scheme == Scheme::Http);
        match first {
            None => Connect::ReadFirst,
            Some(First::Other) if plain => Connect::Http(Site { of: Candidates::Host { name: name.clone(), port }, scheme: Scheme::Http }),
            Some(First::Other) => refuse(Reason::TlsRequired),
            Some(First::Hello(Err(reason))) => refuse(*reason),
            Some(First::Hello(Ok(said))) if said != name => refuse(Reason::ServerNameNotDeclared),
            Some(First::Hello(Ok(_))) => self.host(name, port).unwrap_or_else(refuse),
        }
    }

    /// Leave to greet whom the requests of this connection will be for, where the guard ends the app's TLS for this server: TLS alone, by
    /// which it is learned what is spoken there. Each request is judged for itself.
    pub fn greet(&self, site: &Site, server: &DomainName) -> Result<Permit, Reason> {
        let Site { of, scheme } = site;
        if self.suspended {
            return Err(Reason::Suspended);
        }
        if *scheme != Scheme::Https || self.observes() {
            return Err(Reason::NotInspected);
        }
        let permit = |declared: &[Declared], upstream| {
            let seen = declared.iter().find(|declared| declared.http.as_ref().is_some_and(|http| http.inspect == Inspect::Intercept))?;
            let leg = Leg::Http(Scheme::Https);
            Some(Permit { leg, ..Permit::bytes(upstream, seen.source.clone()) })
        };
        let greeted = match of {
            Candidates::Host { name, port } if name == server => {
                let declared = self.hosts.get(name).and_then(|ports| ports.get(port));
                declared.and_then(|declared| permit(declared, Upstream::Named { name: name.clone(), port: *port }))
            }
            Candidates::Services { to, names } => names.iter().find_map(|name| {
                let is_it = |service: &&DeclaredService| self.is_meant(server, name) && self.may_be_at(service, to.ip());
                let declared = self.service_of(name).filter(is_it)?.ports.get(&to.port())?;
                permit(declared, Upstream::Service { name: name.clone(), address: *to })
            }),
            Candidates::Host { .. } | Candidates::Hosts { .. } | Candidates::Own => None,
        };
        greeted.ok_or(Reason::NotInspected)
    }

    /// The servers for which the guard ends the app's TLS, by every name that a client may say. (Names of the pods of a headless Service lie
    /// below its own.)
    pub fn inspected(&self) -> BTreeSet<DomainName> {
        let seen = |ports: &BTreeMap<u16, Vec<Declared>>| {
            ports.values().flatten().flat_map(|declared| &declared.http).any(|http| http.inspect == Inspect::Intercept)
        };
        let hosts = self.hosts.iter().filter(|(_, ports)| seen(ports)).map(|(name, _)| name.clone());
        let services = self.service_names.iter().filter(|(_, service)| seen(&service.ports)).flat_map(|(full, _)| {
            let within = [&self.domain.to_string(), "svc", &self.workload.namespace].map(|suffix| suffix.parse::<DomainName>().ok());
            let mut said = vec![full.clone()];
            for suffix in within.iter().flatten() {
                // `orders.123` reads as an address; nobody means the Service by it.
                let shorter = said.last().and_then(|longer| longer.before(suffix)).and_then(|shorter| shorter.as_str().parse().ok());
                said.extend(shorter);
            }
            said
        });
        hosts.chain(services).collect()
    }

    /// A request on a connection that [`Self::connect`] found to be of this site.
    pub fn request(&self, site: &Site, request: &Request<'_>) -> Result<Permit, Reason> {
        let Site { of, scheme } = site;
        if self.suspended {
            return Err(Reason::Suspended);
        }
        let permit = |upstream, declared: &Declared, http: &Http, authority| Permit {
            upstream,
            leg: Leg::Http(http.scheme),
            source: declared.source.clone(),
            observed: None,
            authority,
            forms: if http.limits_methods() && !self.observes() { Forms::NameNoMethod } else { Forms::Pass },
        };
        // The first declaration that allows it, or why the first does not.
        let first_of = |declared: &[Declared], scheme: Scheme, upstream: &dyn Fn() -> Upstream, mismatch| {
            let mut why = None;
            for declared in declared {
                let Some(http) = declared.http.as_ref().filter(|http| http.scheme == scheme) else { continue };
                match http.judge(request) {
                    Ok(()) => return Ok(permit(upstream(), declared, http, None)),
                    Err(reason) => _ = why.get_or_insert(reason),
                }
            }
            Err(why.unwrap_or(mismatch))
        };
        let named = |name: &DomainName, port| {
            let declared = self.hosts.get(name).ok_or(Reason::NameNotDeclared)?.get(&port).ok_or(Reason::PortNotDeclared)?;
            first_of(declared, *scheme, &|| Upstream::Named { name: name.clone(), port }, Reason::PortNotDeclared)
        };
        let judged = match (of, request.of) {
            (Candidates::Own, Of::Source(source)) => self.bases.get(source).ok_or(Reason::SourceNotDeclared).and_then(|base| {
                let Base { name, port, authority, declared } = base;
                let http = declared.http.as_ref().ok_or(Reason::SourceNotDeclared)?;
                http.judge(request)?;
                let upstream = Upstream::Named { name: name.clone(), port: *port };
                Ok(permit(upstream, declared, http, Some(authority.clone())))
            }),
            (Candidates::Own, Of::Authority(Authority { host: Host::Name(name), port })) => named(name, port.unwrap_or(80)),
            (_, Of::Source(_)) | (Candidates::Own, Of::Authority(_)) => Err(Reason::NameNotDeclared),
            (Candidates::Hosts { to }, Of::Authority(Authority { host: Host::Name(name), port }))
                if port.unwrap_or(scheme.default_port()) == to.port() =>
            {
                named(name, to.port())
            }
            (Candidates::Host { name, port }, Of::Authority(Authority { host: Host::Name(said), port: said_port }))
                if said == name && said_port.unwrap_or(scheme.default_port()) == *port =>
            {
                named(name, *port)
            }
            (Candidates::Services { to, names }, Of::Authority(Authority { host, port }))
                if port.unwrap_or(scheme.default_port()) == to.port() =>
            {
                let mut why = Reason::HostMismatch;
                let found = names.iter().find_map(|name| {
                    let is_it = match host {
                        Host::Name(said) => self.is_meant(said, name),
                        Host::Address(said) => *said == to.ip(),
                    };
                    let service = self.service_of(name).filter(|service| is_it && self.may_be_at(service, to.ip()))?;
                    let declared = service.ports.get(&to.port()).map(Vec::as_slice).unwrap_or_default();
                    let upstream = || Upstream::Service { name: name.clone(), address: *to };
                    first_of(declared, *scheme, &upstream, Reason::DestinationNotDeclared).map_err(|reason| why = reason).ok()
                });
                found.ok_or(why)
            }
            _ => Err(Reason::HostMismatch),
        };
        match judged {
            Err(reason) if self.observes() => self.observed(site, request, reason),
            judged => judged,
        }
    }

    /// What Observe lets through, if it is known where to.
    fn observed(&self, site: &Site, request: &Request<'_>, reason: Reason) -> Result<Permit, Reason> {
        let Site { of, scheme } = site;
        let upstream = match (of, request.of) {
            (Candidates::Services { to, .. } | Candidates::Hosts { to }, _) => Upstream::Anywhere(*to),
            (Candidates::Host { name, port }, _) => Upstream::Named { name: name.clone(), port: *port },
            (Candidates::Own, Of::Authority(Authority { host: Host::Name(name), port })) => {
                Upstream::Named { name: name.clone(), port: port.unwrap_or(80) }
            }
            (Candidates::Own, Of::Source(source)) => {
                let Some(Base { name, port, authority, declared: Declared { http: Some(http), .. } }) = self.bases.get(source) else {
                    return Err(reason);
                };
                return Ok(Permit {
                    upstream: Upstream::Named { name: name.clone(), port: *port },
                    leg: Leg::Http(http.scheme),
                    source: "".into(),
                    observed: Some(reason),
                    authority: Some(authority.clone()),
                    forms: Forms::Pass,
                });
            }
            (Candidates::Own, Of::Authority(_)) => return Err(reason),
        };
        Ok(Permit { upstream, leg: Leg::Http(*scheme), source: "".into(), observed: Some(reason), authority: None, forms: Forms::Pass })
    }

    /// Leave for a connection of this site as bytes: in Observe, where its requests have no reading.
    pub fn unread(&self, site: &Site, reason: Reason) -> Option<Permit> {
        let upstream = match &site.of {
            Candidates::Services { to, .. } | Candidates::Hosts { to } => Upstream::Anywhere(*to),
            Candidates::Host { name, port } => Upstream::Named { name: name.clone(), port: *port },
            Candidates::Own => return None,
        };
        let plain = self.observes() && site.scheme == Scheme::Http;
        plain.then(|| Permit { observed: Some(reason), ..Permit::bytes(upstream, "".into()) })
    }

    /// As who a data source's upstream is asked, by its base URL.
    pub fn base_authority(&self, source: &str) -> Option<&Authority> {
        self.bases.get(source).map(|base| &base.authority)
    }

    /// The lines of an AIWorkload's `spec` that would declare a request that was refused for this reason, where there are any.
    pub fn declaration_of(&self, site: &Site, request: &Request<'_>, reason: Reason) -> Option<String> {
        let method = request.method;
        let path = request.target.path();
        // What is quoted here is a line of YAML to be copied.
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%".contains(&b));
        if !plain(path) || !crate::scope::is_method(method) {
            return None;
        }
        let rule = format!("[{{methods: [{method}], paths: [{{type: Exact, value: {path}}}]}}]");
        match reason {
            Reason::MethodNotDeclared | Reason::PathNotDeclared => {
                let of_port = |name: &DomainName, port: u16| {
                    let host = self.hosts.get(name).and_then(|ports| ports.get(&port)).map(|declared| ("host", declared));
                    host.or_else(|| Some(("service", self.service_of(name)?.ports.get(&port)?)))
                };
                let found = match (&site.of, request.of) {
                    (Candidates::Own, Of::Source(source)) => {
                        let Base { name, port, .. } = self.bases.get(source)?;
                        of_port(name, *port)
                    }
                    (Candidates::Own, Of::Authority(Authority { host: Host::Name(name), port })) => of_port(name, port.unwrap_or(80)),
                    (Candidates::Hosts { to }, Of::Authority(Authority { host: Host::Name(name), .. })) => of_port(name, to.port()),
                    (Candidates::Host { name, port }, _) => of_port(name, *port),
                    (Candidates::Services { to, names }, _) => names.iter().find_map(|name| of_port(name, to.port())),
                    _ => None,
                };
                let (member, declared) = found?;
                let source = &declared.iter().find(|declared| declared.http.is_some())?.source;
                Some(format!("dataSources[name={source}].{member}.http: {rule}"))
            }
            Reason::NameNotDeclared | Reason::PortNotDeclared => {
                let Of::Authority(Authority { host: Host::Name(name), port }) = request.of else { return None };
                let port = port.unwrap_or(site.scheme.default_port());
                let short = name.labels().next().unwrap_or("host").replace('_', "-");
                let access = if crate::scope::SAFE_METHODS.contains(&method) { "Read" } else { "ReadWrite" };
                let protocol = site.scheme.as_str().to_ascii_uppercase();
                name.before(&self.domain).is_none().then(|| {
                    format!("dataSources: [{{name: {short}, type: Host, access: {access}, host: {{name: {name}, port: {port}, protocol: {protocol}}}}}]")
                })
            }
            _ => None,
        }
    }

    /// Whether a connection whose requests are judged may stay open between them.
    pub fn still_of(&self, site: &Site) -> Result<(), Reason> {
        let Site { of, scheme } = site;
        if self.observes() {
            // Nobody's TLS is ended in Observe.
            return if *scheme == Scheme::Https { Err(Reason::NotInspected) } else { Ok(()) };
        }
        if self.suspended {
            return Err(Reason::Suspended);
        }
        let speaks = |declared: &Vec<Declared>| declared.iter().flat_map(|declared| &declared.http).any(|http| http.scheme == *scheme);
        let host = |name, port| self.hosts.get(name).and_then(|ports| ports.get(port)).is_some_and(speaks);
        let declared = match of {
            Candidates::Own => true,
            Candidates::Hosts { to } => self.hosts.values().filter_map(|ports| ports.get(&to.port())).any(speaks),
            Candidates::Host { name, port } => host(name, port),
            Candidates::Services { to, names } => names.iter().any(|name| {
                let service = self.service_of(name).filter(|service| self.may_be_at(service, to.ip()));
                service.and_then(|service| service.ports.get(&to.port())).is_some_and(speaks)
            }),
        };
        if declared { Ok(()) } else { Err(Reason::DestinationNotDeclared) }
    }

    /// Whether a connection that was permitted before still would be. `reached`: its address, once there is one.
    pub fn still(&self, permit: &Permit, reached: Option<IpAddr>) -> Result<(), Reason> {
        if self.observes() {
            return Ok(());
        }
        if self.suspended {
            return Err(Reason::Suspended);
        }
        if let Some(reason) = permit.observed {
            return Err(if let Upstream::Anywhere(_) = permit.upstream { Reason::DestinationNotDeclared } else { reason });
        }
        let speaks = |declared: &Vec<Declared>| {
            declared.iter().any(|declared| match (permit.leg, &declared.http) {
                (Leg::Bytes, http) => http.is_none(),
                (Leg::Http(scheme), Some(http)) => http.scheme == scheme,
                (Leg::Http(_), None) => false,
            })
        };
        let declared = match &permit.upstream {
            Upstream::Named { name, port } => {
                let of_host = self.hosts.get(name).and_then(|ports| ports.get(port));
                of_host.or_else(|| self.service_of(name)?.ports.get(port)).is_some_and(speaks)
            }
            Upstream::Kubernetes(address) => self.api_server.contains_key(address),
            Upstream::Service { name, address } => self
                .service_of(name)
                .is_some_and(|service| service.ports.get(&address.port()).is_some_and(speaks) && self.may_be_at(service, address.ip())),
            Upstream::Anywhere(_) => false,
        };
        if !declared {
            return Err(Reason::DestinationNotDeclared);
        }
        // The other permits are for one address; a name is where it was found, by what was its own then.
        match (&permit.upstream, reached) {
            (Upstream::Named { name, .. }, Some(address)) if self.proxy.is_none() => self.addresses(name, &[address]).map(drop),
            _ => Ok(()),
        }
    }

    /// The data source that declares this name on this port, wherever it leads to.
    pub fn by_name<'a>(&'a self, name: &DomainName, port: u16) -> Result<&'a str, Reason> {
        if self.suspended {
            return Err(Reason::Suspended);
        }
        let of = |ports: &'a BTreeMap<u16, Vec<Declared>>| -> BTreeMap<u16, &'a str> {
            ports.iter().filter_map(|(port, declared)| Some((*port, &*declared.first()?.source))).collect()
        };
        let ports = if let Some(ports) = self.hosts.get(name) {
            of(ports)
        } else if let Some(service) = self.service_of(name) {
            of(&service.ports)
        } else if *name == self.api_server_name {
            self.api_server.iter().map(|(address, source)| (address.port(), source.as_str())).collect()
        } else {
            BTreeMap::new()
        };
        match ports.get(&port) {
            Some(source) => Ok(source),
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
            Connect::Permitted(Permit { observed: Some(reason), ..Permit::bytes(Upstream::Anywhere(to), "".into()) })
        } else {
            Connect::Denied(reason)
        }
    }

    /// Whether a declared Service may have this address.
    pub fn may_be_a_service(&self, address: IpAddr) -> bool {
        self.service_names.values().any(|service| self.may_be_at(service, address.to_canonical()))
    }

    /// Whether a client that says this name means the Service, or the pod of a headless one, of this full name, as a search list completes it.
    fn is_meant(&self, said: &DomainName, full: &DomainName) -> bool {
        let is = |full: &str| {
            let Some(rest) = full.strip_prefix(said.as_str()) else { return false };
            let Some(rest) = rest.strip_prefix('.') else { return rest.is_empty() };
            let domain = self.domain.as_str();
            let before = if rest == domain { Some("") } else { rest.strip_suffix(domain).and_then(|before| before.strip_suffix('.')) };
            match before {
                Some("" | "svc") => true,
                Some(before) => before.strip_suffix(".svc") == Some(self.workload.namespace.as_str()),
                None => false,
            }
        };
        is(full.as_str()) || !self.service_names.contains_key(full) && full.as_str().split_once('.').is_some_and(|(_, service)| is(service))
    }

    /// Whether this is no name of the cluster's: such as are reached through a proxy, where there is one.
    pub fn is_host(&self, name: &DomainName) -> bool {
        self.service_of(name).is_none() && name.before(&self.domain).is_none()
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

/// Addresses that no declaration leads to.
pub(super) fn never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_loopback() || a.is_unspecified() || a.is_link_local() || a.is_multicast() || a.is_broadcast(),
        IpAddr::V6(a) => a.is_loopback() || a.is_unspecified() || a.is_unicast_link_local() || a.is_multicast(),
    }
}
