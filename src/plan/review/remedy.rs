//! A refused source in words: what it is, and the lines of a ceiling that would allow it.
//!
//! Promise: what is said is what the source declares. In: a source, or what is left of it. Out: text for people, and lines
//! for an admin to put into a ScopeCeiling; nothing is decided by it.

use std::collections::BTreeSet;
use std::fmt;

use crate::scope::{Permission, Source, Target, Verb};

pub(super) fn describe(target: &Target) -> String {
    match target {
        Target::Service { service, port, http: _ } => format!("Service {service} port {port}"),
        Target::Host { host, port, http: _ } => format!("host {host} port {port}"),
        Target::ConfigMap(object) => format!("ConfigMap {object}"),
        Target::Secret(object) => format!("Secret {object}"),
        Target::PersistentVolumeClaim { claim, write: _ } => format!("PersistentVolumeClaim {claim}"),
        Target::Kubernetes(permissions) => {
            let verbs: BTreeSet<Verb> = permissions.iter().map(|p| p.verb).collect();
            let things: BTreeSet<String> = permissions
                .iter()
                .map(|p| {
                    let Permission { namespace: _, group, resource, name, verb: _ } = p;
                    let group = if group.is_empty() { String::new() } else { format!(".{group}") };
                    let name = name.as_ref().map(|n| format!(" {n}")).unwrap_or_default();
                    format!("{resource}{group}{name}")
                })
                .collect();
            let namespaces: BTreeSet<&str> = permissions.iter().map(|p| p.namespace.as_str()).collect();
            format!(
                "{} {} in namespace {}",
                verbs.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(","),
                things.into_iter().collect::<Vec<_>>().join(", "),
                List(&namespaces)
            )
        }
    }
}

/// The lines of a ceiling that would allow this source.
pub(super) fn remedy(own: &str, source: &Source, with_class: bool) -> String {
    let name = &source.name;
    let namespace = |namespace: &str| if namespace == own { String::new() } else { format!(" namespace: {namespace},") };
    let allow = match &source.target {
        Target::Service { service, port, http: _ } => {
            Some(format!("services: [{{name: {name},{} services: [{}], ports: [{port}]}}]", namespace(&service.namespace), service.name))
        }
        Target::Host { host, port, http: _ } => Some(format!("hosts: [{{name: {name}, host: {host}, ports: [{port}]}}]")),
        Target::Kubernetes(permissions) => {
            let set = |f: fn(&Permission) -> &str| -> BTreeSet<&str> { permissions.iter().map(f).collect() };
            let groups = set(|p| if p.group.is_empty() { "\"\"" } else { &p.group });
            let resources = set(|p| &p.resource);
            let names: Option<BTreeSet<&str>> = permissions.iter().map(|p| p.name.as_deref()).collect();
            let names = names.map(|n| format!(" resourceNames: [{}],", List(&n))).unwrap_or_default();
            let access = if permissions.iter().all(|p| p.verb.reads()) { "Read" } else { "ReadWrite" };
            let of = permissions.first().map(|p| namespace(&p.namespace)).unwrap_or_default();
            Some(format!(
                "kubernetes: [{{name: {name},{of} apiGroups: [{}], resources: [{}],{names} access: {access}}}]",
                List(&groups),
                List(&resources)
            ))
        }
        Target::ConfigMap(_) | Target::Secret(_) | Target::PersistentVolumeClaim { .. } => None,
    };
    let class = (with_class || allow.is_none()).then(|| format!("classes: [{:?}]", source.class));
    allow.into_iter().chain(class).collect::<Vec<_>>().join(", ")
}

/// `a, b`
struct List<'a, 'b>(&'a BTreeSet<&'b str>);

impl fmt::Display for List<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
