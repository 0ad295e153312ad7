//! The ceiling: the most that AIWorkloads of a namespace may declare, and the only place where it meets a scope.
//!
//! Whatever is absent from a ceiling is denied. Several ceilings intersect: an item must be within each. Without any ceiling an
//! AIWorkload keeps its own namespace's Services and Kubernetes objects, and nothing else.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Class, ObjectName, Permission, Scope, Source, Target};

/// One ScopeCeiling, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    pub name: String,
    pub unscoped: Unscoped,
    pub hosts: Vec<CeilingHost>,
    pub services: Vec<CeilingService>,
    pub kubernetes: Vec<CeilingKubernetes>,
    pub classes: BTreeSet<Class>,
}

/// What becomes of pods that no AIWorkload selects; what is stricter comes later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unscoped {
    #[default]
    Allow,
    Isolate,
    /// Those that run are isolated.
    Deny,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeilingHost {
    pub host: HostPattern,
    pub ports: BTreeSet<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    Exact(String),
    /// Every name below this domain, not the domain itself.
    Below(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeilingService {
    /// None: the workload's own.
    pub namespace: Option<String>,
    pub services: Names,
    /// Empty: all.
    pub ports: BTreeSet<u16>,
    /// Where a Service without selector may lead to.
    pub addresses: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeilingKubernetes {
    /// None: the workload's own.
    pub namespace: Option<String>,
    pub groups: BTreeSet<String>,
    pub resources: BTreeSet<String>,
    pub names: Names,
    pub write: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    All,
    These(BTreeSet<String>),
}

/// The ceilings over one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceilings(pub Vec<Ceiling>);

/// Something a scope declares and a ceiling does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Name of the data source.
    pub source: String,
    /// What is not allowed.
    pub what: String,
    /// The ceiling; None: there is no ceiling over the namespace, and the default is its own namespace only.
    pub ceiling: Option<String>,
}

impl Ceilings {
    /// The scope with everything taken out that exceeds a ceiling, and what that was.
    pub fn narrow(&self, scope: &Scope) -> (Scope, Vec<Excess>) {
        let mut narrowed = Scope { sources: Vec::new(), ..scope.clone() };
        let mut excesses = Vec::new();
        for source in &scope.sources {
            let (kept, mut out) = self.narrow_source(&scope.workload.namespace, source);
            narrowed.sources.extend(kept);
            excesses.append(&mut out);
        }
        (narrowed, excesses)
    }

    fn narrow_source(&self, own: &str, source: &Source) -> (Option<Source>, Vec<Excess>) {
        let mut out = Vec::new();
        let mut excess = |what: String, ceiling: Option<&Ceiling>| {
            out.push(Excess { source: source.name.clone(), what, ceiling: ceiling.map(|c| c.name.clone()) });
        };
        for ceiling in &self.0 {
            if !ceiling.classes.contains(&source.class) {
                excess(format!("class {:?}", source.class), Some(ceiling));
                return (None, out);
            }
        }
        match &source.target {
            Target::Kubernetes(permissions) => {
                let mut kept = BTreeSet::new();
                for permission in permissions {
                    match self.first_refusal(|c| c.allows_permission(own, permission), permission.namespace == own) {
                        None => _ = kept.insert(permission.clone()),
                        Some(ceiling) => excess(permission.to_string(), ceiling),
                    }
                }
                let target = Target::Kubernetes(kept.clone());
                ((!kept.is_empty()).then(|| Source { target, ..source.clone() }), out)
            }
            target => {
                let refusal: Option<(String, Option<&Ceiling>)> = match target {
                    Target::Service { service, port, http: _ } => self
                        .first_refusal(|c| c.allows_service(own, service, *port).is_some(), service.namespace == own)
                        .map(|c| (format!("Service {service} port {port}"), c)),
                    Target::Host { host, port, http: _ } => {
                        self.first_refusal(|c| c.allows_host(host, *port), false).map(|c| (format!("host {host} port {port}"), c))
                    }
                    // What pods mount lies in their own namespace; the class is all that a ceiling says of it.
                    Target::ConfigMap(_) | Target::Secret(_) | Target::PersistentVolumeClaim { .. } => None,
                    Target::Kubernetes(_) => unreachable!("matched above"),
                };
                match refusal {
                    None => (Some(source.clone()), out),
                    Some((what, ceiling)) => {
                        excess(what, ceiling);
                        (None, out)
                    }
                }
            }
        }
    }

    /// None: allowed by all. Some(None): there is no ceiling and it is not the default. Some(Some(c)): c does not allow it.
    fn first_refusal(&self, allows: impl Fn(&Ceiling) -> bool, by_default: bool) -> Option<Option<&Ceiling>> {
        if self.0.is_empty() {
            return (!by_default).then_some(None);
        }
        self.0.iter().find(|c| !allows(c)).map(Some)
    }

    /// Whether a Service without selector may lead to this address.
    pub fn allows_address(&self, own: &str, service: &ObjectName, port: u16, address: IpAddr) -> bool {
        !self.0.is_empty()
            && self.0.iter().all(|c| {
                c.services
                    .iter()
                    .filter(|s| s.allows(own, service, port))
                    .any(|s| s.addresses.iter().any(|block| block.contains(&address.to_canonical())))
            })
    }

    /// What becomes of pods that no AIWorkload selects: the strictest that any ceiling says.
    pub fn unscoped(&self) -> Unscoped {
        self.0.iter().map(|c| c.unscoped).max().unwrap_or_default()
    }

    /// Whether those that run are cut off.
    pub fn isolate_unscoped(&self) -> bool {
        self.unscoped() >= Unscoped::Isolate
    }
}

impl Ceiling {
    fn allows_host(&self, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|h| h.host.matches(host) && h.ports.contains(&port))
    }

    fn allows_service(&self, own: &str, service: &ObjectName, port: u16) -> Option<&CeilingService> {
        self.services.iter().find(|s| s.allows(own, service, port))
    }

    fn allows_permission(&self, own: &str, permission: &Permission) -> bool {
        self.kubernetes.iter().any(|k| {
            k.namespace.as_deref().unwrap_or(own) == permission.namespace
                && k.groups.contains(&permission.group)
                && k.resources.contains(&permission.resource)
                && (k.write || permission.verb.reads())
                && match (&k.names, &permission.name) {
                    (Names::All, _) => true,
                    (Names::These(names), Some(name)) => names.contains(name),
                    (Names::These(_), None) => false,
                }
        })
    }
}

impl CeilingService {
    fn allows(&self, own: &str, service: &ObjectName, port: u16) -> bool {
        self.namespace.as_deref().unwrap_or(own) == service.namespace
            && match &self.services {
                Names::All => true,
                Names::These(names) => names.contains(&service.name),
            }
            && (self.ports.is_empty() || self.ports.contains(&port))
    }
}

impl HostPattern {
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("*.") {
            Some(domain) => Self::Below(domain.to_ascii_lowercase()),
            None => Self::Exact(text.to_ascii_lowercase()),
        }
    }

    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(domain) => host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl Excess {
    /// What is not allowed, by which ceiling.
    pub fn message(&self) -> String {
        let Self { source: _, what, ceiling } = self;
        match ceiling {
            Some(ceiling) => format!("{what} is not within ScopeCeiling {ceiling}"),
            None => format!(
                "{what} needs a ScopeCeiling over this namespace that allows it (without one, only the namespace's own can be declared)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_says_what_becomes_of_unscoped_pods() {
        let ceiling = |unscoped| Ceiling {
            name: "c".into(),
            unscoped,
            hosts: Vec::new(),
            services: Vec::new(),
            kubernetes: Vec::new(),
            classes: BTreeSet::new(),
        };
        use Unscoped::{Allow, Deny, Isolate};
        for (all, expected, isolated) in [
            (&[][..], Allow, false),
            (&[Allow], Allow, false),
            (&[Allow, Isolate], Isolate, true),
            (&[Deny, Isolate, Allow], Deny, true),
            (&[Allow, Deny], Deny, true),
        ] {
            let ceilings = Ceilings(all.iter().copied().map(ceiling).collect());
            assert_eq!((ceilings.unscoped(), ceilings.isolate_unscoped()), (expected, isolated), "{all:?}");
        }
    }
}
