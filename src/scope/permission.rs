//! Permissions on the Kubernetes API, and those which are never handed out.
//!
//! A permission here is one atom: one namespace, group, resource, verb, and one name or all names. What a declaration means is a
//! set of atoms, so that "more", "less" and "within" are set operations and no wildcard needs interpreting.

use std::fmt;

use serde::Serialize;

/// The right to do one thing with one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Permission {
    pub namespace: String,
    pub group: String,
    /// `resource` or `resource/subresource`.
    pub resource: String,
    /// One object, or all.
    pub name: Option<String>,
    pub verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
}

impl Verb {
    pub const READ: [Verb; 3] = [Verb::Get, Verb::List, Verb::Watch];
    pub const ALL: [Verb; 7] = [Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete];

    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
        }
    }

    pub fn reads(self) -> bool {
        Self::READ.contains(&self)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, group, resource, name, verb } = self;
        write!(f, "{} {resource}", verb.as_str())?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if let Some(name) = name {
            write!(f, " {name}")?;
        }
        write!(f, " in namespace {namespace}")
    }
}

/// A row of [`NEVER_GRANTABLE`].
#[derive(Debug, PartialEq, Eq)]
pub struct NeverGrantable {
    /// The group; `*.` and a suffix matches groups below it.
    pub group: &'static str,
    /// The resource; `*` matches all, `NAME/*` the subresources of NAME.
    pub resource: &'static str,
    /// Whether reading is refused as well.
    pub reads_too: bool,
    /// What a holder could do with it.
    pub why: &'static str,
}

/// What no AIWorkload may declare, whoever writes it: each of these would be a way round the scope itself.
pub const NEVER_GRANTABLE: &[NeverGrantable] = &[
    row("", "secrets", true, "its holder reads credentials; declare a data source of type Secret for one that the pods may mount"),
    row("", "pods", false, "its holder starts pods outside the scope"),
    row("", "pods/*", false, "its holder acts inside other pods"),
    row("", "pods/exec", true, "its holder acts inside other pods"),
    row("", "pods/attach", true, "its holder acts inside other pods"),
    row("", "pods/portforward", true, "its holder reaches other pods past every network policy"),
    row("", "pods/proxy", true, "its holder reaches other pods past every network policy"),
    row("", "services/proxy", true, "its holder reaches other pods past every network policy"),
    row("", "nodes", true, "its holder reaches the nodes"),
    row("", "nodes/*", true, "its holder reaches the nodes"),
    row("", "serviceaccounts", false, "its holder changes who services are"),
    row("", "serviceaccounts/*", true, "its holder becomes other services"),
    row("", "namespaces", false, "its holder takes namespaces out of the policies that select them"),
    row("", "namespaces/*", false, "its holder takes namespaces out of the policies that select them"),
    row("", "services", false, "its holder leads declared names to other destinations"),
    row("", "services/*", false, "its holder leads declared names to other destinations"),
    row("", "endpoints", false, "its holder leads declared names to other destinations"),
    row("", "replicationcontrollers", false, "its holder starts pods outside the scope"),
    row("", "replicationcontrollers/*", false, "its holder starts pods outside the scope"),
    row("", "podtemplates", false, "its holder starts pods outside the scope"),
    row("", "persistentvolumes", false, "its holder mounts other data"),
    row("", "users", true, "its holder becomes somebody else"),
    row("", "groups", true, "its holder becomes somebody else"),
    row("apps", "*", false, "its holder starts pods outside the scope"),
    row("batch", "*", false, "its holder starts pods outside the scope"),
    row("discovery.k8s.io", "*", false, "its holder leads declared names to other destinations"),
    row("networking.k8s.io", "*", false, "its holder widens the network"),
    row("policy.networking.k8s.io", "*", false, "its holder widens the network"),
    row("cilium.io", "*", false, "its holder widens the network"),
    row("projectcalico.org", "*", false, "its holder widens the network"),
    row("crd.projectcalico.org", "*", false, "its holder widens the network"),
    row("gateway.networking.k8s.io", "*", false, "its holder widens the network"),
    row("rbac.authorization.k8s.io", "*", false, "its holder grants itself more"),
    row("authentication.k8s.io", "*", true, "its holder becomes somebody else"),
    row("certificates.k8s.io", "*", false, "its holder becomes somebody else"),
    row("admissionregistration.k8s.io", "*", false, "its holder switches admission off"),
    row("apiextensions.k8s.io", "*", false, "its holder changes the API itself"),
    row("apiregistration.k8s.io", "*", false, "its holder changes the API itself"),
    row("agents.x-k8s.io", "*", false, "its holder starts pods outside the scope"),
    row("extensions.agents.x-k8s.io", "*", false, "its holder starts pods outside the scope"),
    row("argoproj.io", "*", false, "its holder applies objects with another's rights"),
    row("remit.dev", "*", false, "its holder changes the scope itself"),
];

const fn row(group: &'static str, resource: &'static str, reads_too: bool, why: &'static str) -> NeverGrantable {
    NeverGrantable { group, resource, reads_too, why }
}

/// The row that forbids this permission, if one does.
pub fn never_grantable(permission: &Permission) -> Option<&'static NeverGrantable> {
    NEVER_GRANTABLE.iter().find(|row| row.forbids(permission))
}

impl NeverGrantable {
    fn forbids(&self, permission: &Permission) -> bool {
        if self.group != permission.group || (permission.verb.reads() && !self.reads_too) {
            return false;
        }
        match self.resource.strip_suffix("/*") {
            Some(parent) => permission.resource.split_once('/').is_some_and(|(p, _)| p == parent),
            None => self.resource == "*" || self.resource == permission.resource,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(group: &str, resource: &str, verb: Verb) -> Permission {
        Permission { namespace: "support".into(), group: group.into(), resource: resource.into(), name: None, verb }
    }

    #[test]
    fn never_grantable_table() {
        use Verb::*;
        let cases = [
            ("", "secrets", Get, true),
            ("", "secrets", List, true),
            ("", "configmaps", Update, false),
            ("", "pods", Get, false),
            ("", "pods", Create, true),
            ("", "pods/log", Get, false),
            ("", "pods/exec", Get, true), // exec over websocket is a GET
            ("", "pods/exec", Create, true),
            ("", "pods/ephemeralcontainers", Patch, true),
            ("", "pods/proxy", Get, true),
            ("", "serviceaccounts/token", Create, true),
            ("", "nodes/proxy", Get, true),
            ("apps", "deployments", Get, false),
            ("apps", "deployments", Patch, true),
            ("apps", "deployments/scale", Update, true),
            ("batch", "jobs", Create, true),
            ("networking.k8s.io", "networkpolicies", Delete, true),
            ("networking.k8s.io", "networkpolicies", Get, false),
            ("rbac.authorization.k8s.io", "rolebindings", Create, true),
            ("remit.dev", "aiworkloads", Patch, true),
            ("shop.example.com", "orders", Delete, false),
            ("shop.example.com", "secrets", Get, false), // same word in another group is another thing
        ];
        for (group, resource, verb, forbidden) in cases {
            assert_eq!(never_grantable(&permission(group, resource, verb)).is_some(), forbidden, "{verb:?} {resource}.{group}");
        }
    }
}
