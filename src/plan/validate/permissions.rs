//! Declared Kubernetes objects → permissions, one by one.
//!
//! Promise: no wildcard, nothing that is never grantable, and Read never holds a verb that writes. In: groups, resources and names.
//! Out: a set of [`Permission`]s, or errors under the source's path; how many a spec names, to be asked before they are listed.

use std::collections::BTreeSet;

use super::Errors;
use super::field::{is_label, is_subdomain};
use crate::api;
use crate::scope::{ObjectName, Permission, Verb, never_grantable};

pub(super) fn permissions(
    path: &str,
    workload: &ObjectName,
    source: &api::KubernetesSource,
    write: bool,
    errors: &mut Errors,
) -> BTreeSet<Permission> {
    let api::KubernetesSource { api_groups, resources, resource_names, namespace } = source;
    let path = format!("{path}.kubernetes");
    let namespace = namespace.clone().unwrap_or_else(|| workload.namespace.clone());
    if !is_label(&namespace, 63) {
        errors.push(format!("{path}.namespace"), "is not a valid name of a namespace");
    }
    for (field, values) in [("apiGroups", api_groups), ("resources", resources)] {
        if values.is_empty() {
            errors.push(format!("{path}.{field}"), "name at least one");
        }
        for value in values {
            if value.contains('*') {
                errors.push(format!("{path}.{field}"), "a wildcard declares what nobody has thought of; name each one");
            } else if !value.split('/').all(|part| value.is_empty() || is_subdomain(part)) {
                errors.push(format!("{path}.{field}"), format!("`{value}` is not valid; write it as `kubectl api-resources` does"));
            }
        }
    }
    for name in resource_names {
        if !is_object_name(name) {
            errors.push(format!("{path}.resourceNames"), format!("{name:?} is not the name of an object"));
        }
    }
    let verbs: &[Verb] = if write { &Verb::ALL } else { &Verb::READ };
    let names: Vec<Option<String>> =
        if resource_names.is_empty() { vec![None] } else { resource_names.iter().cloned().map(Some).collect() };
    let mut all = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for group in api_groups {
        for resource in resources {
            for verb in verbs {
                for name in &names {
                    let permission = Permission {
                        namespace: namespace.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                        verb: *verb,
                    };
                    if let Some(row) = never_grantable(&permission) {
                        refused.insert((resource.clone(), group.clone(), permission.verb.reads(), row.why));
                    }
                    all.insert(permission);
                }
            }
        }
    }
    let mut said = BTreeSet::new();
    for (resource, group, reads, why) in refused.iter().rev() {
        // A resource that may not even be read is said once.
        if said.insert((resource, group)) {
            let what = if *reads { "reading" } else { "writing" };
            let of = if group.is_empty() { String::new() } else { format!(".{group}") };
            errors.push(format!("{path}.resources"), format!("{what} {resource}{of} is never granted by Remit: {why}"));
        }
    }
    all
}

/// Names as people give them. (The API server takes nearly anything, also what is a command of a shell or breaks a line of YAML.)
fn is_object_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    name.len() <= 253 && name.bytes().all(inner) && ends(name.bytes().next()) && ends(name.bytes().next_back())
}

/// How many permissions a spec names, without listing them.
pub(super) fn permissions_named(spec: &api::AIWorkloadSpec) -> usize {
    let one = |k: &api::KubernetesSource| {
        let api::KubernetesSource { api_groups, resources, resource_names, namespace: _ } = k;
        [api_groups.len(), resources.len(), resource_names.len().max(1), Verb::ALL.len()].into_iter().fold(1, usize::saturating_mul)
    };
    spec.data_sources.iter().filter_map(|s| s.kubernetes.as_ref()).map(one).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;
    use crate::plan::validate::fixture::BASE;
    use crate::scope::Scope;

    #[test]
    fn read_is_not_write() {
        let scope = |access: &str| {
            fixture::scope(&format!(
                "{BASE}dataSources: [{{name: a, type: Kubernetes, {access} kubernetes: {{apiGroups: [shop.example.com], resources: [orders]}}}}]"
            ))
        };
        let verbs = |s: Scope| s.permissions().iter().map(|p| p.verb).collect::<BTreeSet<_>>();
        assert_eq!(verbs(scope("")), Verb::READ.into());
        assert_eq!(verbs(scope("access: Read,")), Verb::READ.into());
        assert_eq!(verbs(scope("access: ReadWrite,")), Verb::ALL.into());
    }
    #[test]
    fn names_of_objects() {
        for name in ["a", "order-1042", "shop.example.com", "system:node:a", "A_b", &"a".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", "x; rm -rf ~", "a]", "a b", "-a", "a.", "..", "a/b", "a%2fb", "a\n", "büch", &"a".repeat(254)] {
            assert!(!is_object_name(name), "{name:?}");
        }
    }
}
