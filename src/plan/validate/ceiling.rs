//! A ScopeCeiling → the namespaces that it lies over, and the most that it allows.
//!
//! Promise: `*` among Services means all of them; among API groups and resources it is an error. In: the object. Out: a [`Selector`] of
//! namespaces and a [`Ceiling`], or every error of every field.

use std::collections::BTreeSet;

use super::field::{block, class, is_host, port, selector};
use super::{Errors, FieldError};
use crate::api::{self, ScopeCeiling};
use crate::scope::{Ceiling, CeilingHost, CeilingKubernetes, CeilingService, HostPattern, Names, Selector, Unscoped};

/// What a ScopeCeiling means.
pub fn ceiling(object: &ScopeCeiling) -> Result<(Selector, Ceiling), Vec<FieldError>> {
    let api::ScopeCeilingSpec { namespace_selector, unscoped_pods, hosts, services, kubernetes, classes } = &object.spec;
    let mut errors = Errors::default();
    let namespaces = selector("namespaceSelector", namespace_selector, &mut errors);
    let ports = |path: String, ports: &[i32], errors: &mut Errors| -> BTreeSet<u16> {
        ports.iter().filter_map(|p| port(&path, *p, errors)).collect()
    };
    let mut ceiling = Ceiling {
        name: object.metadata.name.clone().unwrap_or_default(),
        unscoped: unscoped(*unscoped_pods),
        hosts: Vec::new(),
        services: Vec::new(),
        kubernetes: Vec::new(),
        classes: classes.iter().copied().map(class).collect(),
    };
    for api::CeilingHost { name, host, ports: p } in hosts {
        let path = format!("hosts[name={name}]");
        if !is_host(host.strip_prefix("*.").unwrap_or(host)) {
            errors.push(format!("{path}.host"), "is not a full DNS name, nor `*.` and one");
        }
        let ports = ports(format!("{path}.ports"), p, &mut errors);
        ceiling.hosts.push(CeilingHost { host: HostPattern::parse(host), ports });
    }
    for api::CeilingService { name, namespace, services, ports: p, addresses } in services {
        let path = format!("services[name={name}]");
        let addresses = addresses.iter().filter_map(|a| block(&format!("{path}.addresses"), a, &mut errors)).collect();
        let ports = ports(format!("{path}.ports"), p, &mut errors);
        ceiling.services.push(CeilingService { namespace: namespace.clone(), services: names(services), ports, addresses });
    }
    for api::CeilingKubernetes { name, namespace, api_groups, resources, resource_names, access } in kubernetes {
        for value in api_groups.iter().chain(resources) {
            if value.contains('*') {
                errors.push(format!("kubernetes[name={name}]"), "a wildcard allows what nobody has thought of; name each one");
            }
        }
        ceiling.kubernetes.push(CeilingKubernetes {
            namespace: namespace.clone(),
            groups: api_groups.iter().cloned().collect(),
            resources: resources.iter().cloned().collect(),
            names: if resource_names.is_empty() { Names::All } else { Names::These(resource_names.iter().cloned().collect()) },
            write: *access == api::Access::ReadWrite,
        });
    }
    errors.finish((namespaces, ceiling))
}

/// What is said of pods that no AIWorkload selects.
pub fn unscoped(value: api::UnscopedPods) -> Unscoped {
    match value {
        api::UnscopedPods::Allow => Unscoped::Allow,
        api::UnscopedPods::Isolate => Unscoped::Isolate,
        api::UnscopedPods::Deny => Unscoped::Deny,
    }
}

fn names(list: &[String]) -> Names {
    if list.iter().any(|n| n == "*") { Names::All } else { Names::These(list.iter().cloned().collect()) }
}
