//! Roles and RoleBindings: exactly the declared permissions, in the namespaces where the objects lie.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};

use super::ManagedObject;
use super::object::metadata;
use crate::scope::{ObjectName, Permission, Scope};

/// Name of the Role and RoleBinding of a workload, in every namespace: a dot occurs in neither part.
pub(super) fn name(workload: &ObjectName) -> String {
    format!("remit.{}.{}", workload.namespace, workload.name)
}

/// One Role and one RoleBinding per namespace. While suspended the Roles are empty (the way down always works) and the bindings stay.
pub(super) fn roles_and_bindings(scope: &Scope, uid: Option<&str>) -> Vec<ManagedObject> {
    let mut by_namespace: BTreeMap<String, BTreeSet<Permission>> = BTreeMap::new();
    for permission in scope.permissions() {
        by_namespace.entry(permission.namespace.clone()).or_default().insert(permission);
    }
    let name = name(&scope.workload);
    let mut objects = Vec::new();
    for (namespace, permissions) in by_namespace {
        let rules = if scope.suspended { Vec::new() } else { rules(&permissions) };
        objects.push(ManagedObject::Role(Role { metadata: metadata(&scope.workload, uid, &namespace, &name), rules: Some(rules) }));
        objects.push(ManagedObject::RoleBinding(RoleBinding {
            metadata: metadata(&scope.workload, uid, &namespace, &name),
            role_ref: RoleRef { api_group: "rbac.authorization.k8s.io".into(), kind: "Role".into(), name: name.clone() },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".into(),
                name: scope.account.name().to_owned(),
                namespace: Some(scope.workload.namespace.clone()),
                api_group: None,
            }]),
        }));
    }
    objects
}

/// The fewest rules which say exactly these permissions, in a fixed order: one for each (group, names, verbs).
fn rules(permissions: &BTreeSet<Permission>) -> Vec<PolicyRule> {
    // (group, resource, name) → verbs, then join names with equal verbs, then resources with equal names and verbs.
    let mut verbs: BTreeMap<(&str, &str, Option<&str>), BTreeSet<_>> = BTreeMap::new();
    for p in permissions {
        verbs.entry((&p.group, &p.resource, p.name.as_deref())).or_default().insert(p.verb);
    }
    let mut names: BTreeMap<(&str, &str, bool, Vec<_>), BTreeSet<&str>> = BTreeMap::new();
    for ((group, resource, name), verbs) in verbs {
        let entry = names.entry((group, resource, name.is_some(), verbs.into_iter().collect())).or_default();
        entry.extend(name);
    }
    let mut resources: BTreeMap<(&str, Vec<&str>, Vec<_>), BTreeSet<&str>> = BTreeMap::new();
    for ((group, resource, _, verbs), names) in names {
        resources.entry((group, names.into_iter().collect(), verbs)).or_default().insert(resource);
    }
    let strings = |s: &[&str]| s.iter().map(|s| s.to_string()).collect::<Vec<_>>();
    resources
        .into_iter()
        .map(|((group, names, verbs), resources)| PolicyRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(resources.into_iter().map(str::to_owned).collect()),
            resource_names: (!names.is_empty()).then(|| strings(&names)),
            verbs: verbs.into_iter().map(|v: crate::scope::Verb| v.as_str().to_owned()).collect(),
            non_resource_urls: None,
        })
        .collect()
}
