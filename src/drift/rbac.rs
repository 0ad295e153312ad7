//! The Kubernetes API: who may do what, by every role and binding.
//!
//! Promise: the API server's own answers, for what RBAC decides. Other authorizers (Node, webhooks, ABAC) say nothing here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef as RefersTo, Subject as Said};
use serde::{Deserialize, Serialize};

use super::network::selector;
use crate::scope::{ObjectName, Selector};

/// Members may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";

#[derive(Clone, Debug, Default)]
pub struct Rbac {
    roles: BTreeMap<RoleName, Vec<PolicyRule>>,
    bindings: Vec<Binding>,
    /// Of ClusterRoles: whose rules they take over, and by which labels they are found themselves.
    aggregating: BTreeMap<String, Vec<Selector>>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
}

/// A role, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoleName {
    Cluster(String),
    Namespaced(ObjectName),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// None: a ClusterRoleBinding, which holds everywhere.
    pub namespace: Option<String>,
    pub name: String,
    pub role: RoleName,
    pub subjects: Vec<Subject>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    User(String),
    Group(String),
    Account(ObjectName),
}

/// What is asked, in the words of a SubjectAccessReview.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Query {
    pub user: String,
    pub groups: BTreeSet<String>,
    pub verb: String,
    pub api_group: String,
    pub resource: String,
    pub subresource: String,
    /// Empty: of no object in particular.
    pub name: String,
    /// Empty: of the cluster, or in all namespaces.
    pub namespace: String,
    /// Of a request that is for no resource.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub allowed: bool,
    /// `RoleBinding namespace/name`, `ClusterRoleBinding name` or `group system:masters`.
    pub granted_by: Vec<String>,
}

// === impl Rbac ===

impl Rbac {
    pub(super) fn role(&mut self, role: Role) {
        let name = ObjectName::new(role.metadata.namespace.unwrap_or_else(|| "default".into()), role.metadata.name.unwrap_or_default());
        self.roles.insert(RoleName::Namespaced(name), role.rules.unwrap_or_default());
    }

    pub(super) fn cluster_role(&mut self, role: ClusterRole) -> Result<(), String> {
        let ClusterRole { metadata, rules, aggregation_rule } = role;
        let name = metadata.name.unwrap_or_default();
        if let Some(rule) = aggregation_rule {
            let selectors = rule.cluster_role_selectors.unwrap_or_default().into_iter().enumerate();
            let selectors = selectors.map(|(at, said)| selector(&format!("aggregationRule.clusterRoleSelectors[{at}]"), said));
            let selectors = selectors.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
            self.aggregating.insert(name.clone(), selectors);
        }
        self.labels.insert(name.clone(), metadata.labels.unwrap_or_default());
        self.roles.insert(RoleName::Cluster(name), rules.unwrap_or_default());
        Ok(())
    }

    pub(super) fn binding(&mut self, binding: RoleBinding) {
        let RoleBinding { metadata, role_ref, subjects } = binding;
        let namespace = metadata.namespace.unwrap_or_else(|| "default".into());
        self.push(Some(namespace), metadata.name, role_ref, subjects);
    }

    pub(super) fn cluster_binding(&mut self, binding: ClusterRoleBinding) {
        let ClusterRoleBinding { metadata, role_ref, subjects } = binding;
        self.push(None, metadata.name, role_ref, subjects);
    }

    fn push(&mut self, namespace: Option<String>, name: Option<String>, role: RefersTo, subjects: Option<Vec<Said>>) {
        let role = match (role.kind.as_str(), &namespace) {
            ("ClusterRole", _) => RoleName::Cluster(role.name),
            ("Role", Some(namespace)) => RoleName::Namespaced(ObjectName::new(namespace, role.name)),
            // Nothing that could be bound.
            _ => return,
        };
        let subjects = subjects.unwrap_or_default().into_iter().filter_map(|subject| match subject.kind.as_str() {
            "User" => Some(Subject::User(subject.name)),
            "Group" => Some(Subject::Group(subject.name)),
            "ServiceAccount" => {
                let of = subject.namespace.filter(|namespace| !namespace.is_empty()).or_else(|| namespace.clone())?;
                Some(Subject::Account(ObjectName::new(of, subject.name)))
            }
            _ => None,
        });
        let subjects = subjects.collect();
        self.bindings.push(Binding { namespace, name: name.unwrap_or_default(), role, subjects });
    }

    /// What a controller does in a cluster: an aggregating ClusterRole has the rules of those that its selectors find, and no others.
    pub(super) fn aggregate(&mut self) {
        // One may take over what another has taken over.
        for _ in 0..=self.aggregating.len() {
            let mut changed = false;
            for (name, selectors) in &self.aggregating {
                let mut rules: Vec<PolicyRule> = Vec::new();
                for (other, labels) in &self.labels {
                    if other != name && selectors.iter().any(|selector| selector.matches(labels)) {
                        let found = self.roles.get(&RoleName::Cluster(other.clone())).into_iter().flatten();
                        rules.extend(found.filter(|rule| !rules.contains(rule)).cloned().collect::<Vec<_>>());
                    }
                }
                let role = self.roles.entry(RoleName::Cluster(name.clone())).or_default();
                if *role != rules {
                    *role = rules;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
    }

    pub fn answer(&self, query: &Query) -> Answer {
        let mut granted_by = BTreeSet::new();
        if query.groups.contains(MASTERS) {
            granted_by.insert(format!("group {MASTERS}"));
        }
        for binding in &self.bindings {
            let here = binding.namespace.as_ref().is_none_or(|namespace| !query.namespace.is_empty() && *namespace == query.namespace);
            if !here || !binding.subjects.iter().any(|subject| subject.is(query)) {
                continue;
            }
            let rules = self.roles.get(&binding.role).into_iter().flatten();
            // What is for no namespace is bound by no RoleBinding.
            let of_paths = binding.namespace.is_none();
            if rules.into_iter().any(|rule| allows(rule, query, of_paths)) {
                granted_by.insert(binding.to_string());
            }
        }
        Answer { allowed: !granted_by.is_empty(), granted_by: granted_by.into_iter().collect() }
    }
}

impl Subject {
    fn is(&self, query: &Query) -> bool {
        match self {
            Self::User(name) => *name == query.user,
            Self::Group(name) => query.groups.contains(name),
            Self::Account(ObjectName { namespace, name }) => {
                let rest = query.user.strip_prefix("system:serviceaccount:");
                rest.and_then(|rest| rest.split_once(':')) == Some((namespace.as_str(), name.as_str()))
            }
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "RoleBinding {namespace}/{}", self.name),
            None => write!(f, "ClusterRoleBinding {}", self.name),
        }
    }
}

fn allows(rule: &PolicyRule, query: &Query, of_paths: bool) -> bool {
    let PolicyRule { api_groups, non_resource_urls, resource_names, resources, verbs } = rule;
    let has = |all: &Option<Vec<String>>, one: &str| all.iter().flatten().any(|said| said == "*" || said == one);
    if !verbs.iter().any(|said| said == "*" || *said == query.verb) {
        return false;
    }
    if !query.path.is_empty() {
        return of_paths && non_resource_urls.iter().flatten().any(|said| path_matches(said, &query.path));
    }
    let names = resource_names.iter().flatten();
    let named = names.clone().next().is_none() || names.into_iter().any(|said| *said == query.name);
    has(api_groups, &query.api_group) && resources.iter().flatten().any(|said| resource_matches(said, query)) && named
}

fn resource_matches(said: &str, query: &Query) -> bool {
    if said == "*" {
        return true;
    }
    if query.subresource.is_empty() {
        return said == query.resource;
    }
    match said.split_once('/') {
        Some(("*", subresource)) => subresource == query.subresource,
        Some((resource, subresource)) => resource == query.resource && subresource == query.subresource,
        None => false,
    }
}

fn path_matches(said: &str, path: &str) -> bool {
    match said.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => said == path,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::drift::Snapshot;

    use super::*;

    fn role(kind: &str, name: &str, more: Value) -> Value {
        let mut role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name, "namespace": "x"}});
        for (key, value) in more.as_object().into_iter().flatten() {
            role[key] = value.clone();
        }
        role
    }

    /// In namespace `x`, or everywhere.
    fn bind(kind: &str, role: (&str, &str), subject: Value) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "b", "namespace": "x"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}, "subjects": [subject]})
    }

    fn user() -> Value {
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "dana"})
    }

    fn query(words: &str) -> Query {
        let mut query = Query { user: "dana".into(), namespace: "x".into(), ..Query::default() };
        let (verb, what) = words.split_once(' ').unwrap();
        query.verb = verb.into();
        if what.starts_with('/') {
            (query.path, query.namespace) = (what.into(), String::new());
            return query;
        }
        let (resource, name) = what.split_once(' ').unwrap_or((what, ""));
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        (query.resource, query.subresource, query.api_group, query.name) = (resource.into(), subresource.into(), group.into(), name.into());
        query
    }

    fn answer(objects: &[Value], query: &Query) -> Answer {
        let (snapshot, problems) = Snapshot::read(objects.to_vec());
        assert!(problems.is_empty(), "{problems:?}");
        snapshot.rbac.answer(query)
    }

    #[test]
    fn rules() {
        let rule = |groups: &[&str], resources: &[&str], names: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "resourceNames": names, "verbs": verbs});
        let pods = rule(&[""], &["pods"], &[], &["get", "list"]);
        let paths = json!({"nonResourceURLs": ["/healthz", "/logs/*"], "verbs": ["get"]});
        for (rule, words, allowed) in [
            (&pods, "get pods", true),
            (&pods, "get pods a", true),
            (&pods, "delete pods", false),
            (&pods, "get pods/log", false),
            (&pods, "get secrets", false),
            (&pods, "get pods.metrics.k8s.io", false),
            (&rule(&[""], &["pods/log"], &[], &["get"]), "get pods/log a", true),
            (&rule(&[""], &["pods/log"], &[], &["get"]), "get pods a", false),
            (&rule(&[""], &["*/log"], &[], &["get"]), "get pods/log", true),
            (&rule(&[""], &["*/log"], &[], &["get"]), "get pods/exec", false),
            (&rule(&[""], &["pods/*"], &[], &["get"]), "get pods/log", false),
            (&rule(&["*"], &["*"], &[], &["*"]), "deletecollection jobs.batch/status a", true),
            (&rule(&[""], &["secrets"], &["a", "b"], &["get"]), "get secrets a", true),
            (&rule(&[""], &["secrets"], &["a", "b"], &["get"]), "get secrets c", false),
            (&rule(&[""], &["secrets"], &["a", "b"], &["list"]), "list secrets", false),
            (&rule(&[""], &["secrets"], &["*"], &["get"]), "get secrets a", false),
            (&rule(&[], &["pods"], &[], &["get"]), "get pods", false),
            (&rule(&[""], &[], &[], &["get"]), "get pods", false),
            (&rule(&[""], &["pods"], &[], &[]), "get pods", false),
            (&paths, "get /healthz", true),
            (&paths, "get /healthz/etcd", false),
            (&paths, "get /logs/a/b", true),
            (&paths, "get /logs", false),
            (&paths, "post /healthz", false),
            (&rule(&["*"], &["*"], &[], &["*"]), "get /healthz", false),
            (&json!({"nonResourceURLs": ["*"], "verbs": ["*"]}), "get /anything", true),
            (&json!({"nonResourceURLs": ["*"], "verbs": ["*"]}), "get pods", false),
        ] {
            let objects = [role("ClusterRole", "r", json!({"rules": [rule]})), bind("ClusterRoleBinding", ("ClusterRole", "r"), user())];
            let found = answer(&objects, &query(words));
            assert_eq!((found.allowed, found.granted_by.is_empty()), (allowed, !allowed), "{rule}: {words}");
        }
    }

    #[test]
    fn where_bindings_hold() {
        let pods =
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, {"nonResourceURLs": ["/x"], "verbs": ["get"]}]});
        let of = |namespace: &str| Query { namespace: namespace.into(), ..query("get pods") };
        for (kind, role_kind, query, expected) in [
            ("RoleBinding", "Role", of("x"), Some("RoleBinding x/b")),
            ("RoleBinding", "ClusterRole", of("x"), Some("RoleBinding x/b")),
            ("RoleBinding", "ClusterRole", of("y"), None),
            ("RoleBinding", "ClusterRole", of(""), None),
            ("RoleBinding", "ClusterRole", query("get /x"), None),
            ("ClusterRoleBinding", "ClusterRole", of("y"), Some("ClusterRoleBinding b")),
            ("ClusterRoleBinding", "ClusterRole", of(""), Some("ClusterRoleBinding b")),
            ("ClusterRoleBinding", "ClusterRole", query("get /x"), Some("ClusterRoleBinding b")),
            ("ClusterRoleBinding", "Role", of("x"), None),
        ] {
            let objects = [role(role_kind, "r", pods.clone()), bind(kind, (role_kind, "r"), user())];
            assert_eq!(answer(&objects, &query).granted_by, Vec::from_iter(expected), "{kind} of a {role_kind}, {query:?}");
        }
        // A role that is not there grants nothing.
        assert!(!answer(&[bind("ClusterRoleBinding", ("ClusterRole", "gone"), user())], &of("x")).allowed);
    }

    #[test]
    fn subjects() {
        let pods = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
        let account = "system:serviceaccount:x:bot";
        for (subject, name, groups, allowed) in [
            (json!({"kind": "User", "name": "dana"}), "dana", &[][..], true),
            (json!({"kind": "User", "name": "dana"}), "dan", &["dana"], false),
            (json!({"kind": "Group", "name": "dana"}), "dana", &[], false),
            (
                json!({"kind": "Group", "name": "system:serviceaccounts:x"}),
                account,
                &["system:serviceaccounts", "system:serviceaccounts:x"],
                true,
            ),
            (json!({"kind": "Group", "name": "system:serviceaccounts:y"}), account, &["system:serviceaccounts:x"], false),
            (json!({"kind": "ServiceAccount", "name": "bot", "namespace": "x"}), account, &[], true),
            (json!({"kind": "ServiceAccount", "name": "bot"}), account, &[], true),
            (json!({"kind": "ServiceAccount", "name": "bot", "namespace": "y"}), account, &[], false),
            (json!({"kind": "User", "name": account}), account, &[], true),
            (json!({"kind": "Group", "name": "others"}), "root", &["system:masters"], true),
        ] {
            let objects = [role("Role", "r", pods.clone()), bind("RoleBinding", ("Role", "r"), subject.clone())];
            let asked = Query { user: name.into(), groups: groups.iter().map(|group| (*group).into()).collect(), ..query("get pods") };
            assert_eq!(answer(&objects, &asked).allowed, allowed, "{subject}: {name} {groups:?}");
        }
    }

    #[test]
    fn aggregation() {
        let labelled = |name: &str, labels: Value, resource: &str| {
            let rules = json!([{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]);
            role("ClusterRole", name, json!({"metadata": {"name": name, "labels": labels}, "rules": rules}))
        };
        let aggregating = |name: &str, labels: Value, wants: &str| {
            let rules = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]);
            role(
                "ClusterRole",
                name,
                json!({"metadata": {"name": name, "labels": labels}, "rules": rules, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {wants: "true"}}]}}),
            )
        };
        let objects = [
            aggregating("r", json!({}), "to-r"),
            aggregating("between", json!({"to-r": "true"}), "to-between"),
            labelled("one", json!({"to-r": "true"}), "pods"),
            labelled("two", json!({"to-between": "true"}), "secrets"),
            labelled("other", json!({"to-r": "false"}), "services"),
            bind("ClusterRoleBinding", ("ClusterRole", "r"), user()),
        ];
        for (words, allowed) in [("get pods", true), ("get secrets", true), ("get services", false), ("get nodes", false)] {
            assert_eq!(answer(&objects, &query(words)).allowed, allowed, "{words}");
        }
    }
}
