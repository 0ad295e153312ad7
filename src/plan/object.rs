//! The generated objects and their one list of kinds: apply, prune, gather, the chart's RBAC test and the comparison all use it.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;

use crate::api;
use crate::scope::ObjectName;

/// A generated object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ManagedObject {
    NetworkPolicy(NetworkPolicy),
    ConfigMap(ConfigMap),
    ServiceAccount(ServiceAccount),
    Role(Role),
    RoleBinding(RoleBinding),
}

/// The managed kinds, in the order in which they are written: what denies first, what grants last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    NetworkPolicy,
    /// What the guards enforce.
    ConfigMap,
    ServiceAccount,
    Role,
    RoleBinding,
}

/// Where a generated object lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub kind: Kind,
    pub object: ObjectName,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::NetworkPolicy, Kind::ConfigMap, Kind::ServiceAccount, Kind::Role, Kind::RoleBinding];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::NetworkPolicy => "NetworkPolicy",
            Kind::ConfigMap => "ConfigMap",
            Kind::ServiceAccount => "ServiceAccount",
            Kind::Role => "Role",
            Kind::RoleBinding => "RoleBinding",
        }
    }

    /// API group and plural.
    pub fn resource(self) -> (&'static str, &'static str) {
        match self {
            Kind::NetworkPolicy => ("networking.k8s.io", "networkpolicies"),
            Kind::ConfigMap => ("", "configmaps"),
            Kind::ServiceAccount => ("", "serviceaccounts"),
            Kind::Role => ("rbac.authorization.k8s.io", "roles"),
            Kind::RoleBinding => ("rbac.authorization.k8s.io", "rolebindings"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ObjectKey {
    /// Whether a plan of this workload could hold an object there. Labels alone prove nothing: anybody who may edit an object sets them.
    pub fn may_be_of(&self, workload: &ObjectName) -> bool {
        let own = self.object.namespace == workload.namespace;
        match self.kind {
            Kind::NetworkPolicy => own && self.object.name == super::network::name(workload),
            Kind::ConfigMap => own && self.object.name == super::guard::name(workload),
            Kind::ServiceAccount => own && self.object.name == workload.name,
            Kind::Role | Kind::RoleBinding => self.object.name == super::rbac::name(workload),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.object)
    }
}

impl ManagedObject {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Role(_) => Kind::Role,
            Self::RoleBinding(_) => Kind::RoleBinding,
        }
    }

    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::NetworkPolicy(o) => &o.metadata,
            Self::ConfigMap(o) => &o.metadata,
            Self::ServiceAccount(o) => &o.metadata,
            Self::Role(o) => &o.metadata,
            Self::RoleBinding(o) => &o.metadata,
        }
    }

    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::NetworkPolicy(o) => &mut o.metadata,
            Self::ConfigMap(o) => &mut o.metadata,
            Self::ServiceAccount(o) => &mut o.metadata,
            Self::Role(o) => &mut o.metadata,
            Self::RoleBinding(o) => &mut o.metadata,
        }
    }

    pub fn key(&self) -> ObjectKey {
        let meta = self.metadata();
        ObjectKey {
            kind: self.kind(),
            object: ObjectName::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default()),
        }
    }

    /// The workload whose labels the object bears, if it bears ours.
    pub fn workload(&self) -> Option<ObjectName> {
        workload_of(self.metadata())
    }
}

/// The workload whose labels these are, if they are ours.
pub fn workload_of(meta: &ObjectMeta) -> Option<ObjectName> {
    let labels = meta.labels.as_ref()?;
    if labels.get(api::MANAGED_BY_LABEL)? != api::MANAGED_BY {
        return None;
    }
    Some(ObjectName::new(labels.get(api::WORKLOAD_NAMESPACE_LABEL)?, labels.get(api::WORKLOAD_LABEL)?))
}

/// Metadata of an object generated for a workload. Objects in the workload's own namespace are owned by it; elsewhere, labels and
/// the finalizer do what an owner reference cannot.
pub(super) fn metadata(workload: &ObjectName, uid: Option<&str>, namespace: &str, name: &str) -> ObjectMeta {
    let owner = (namespace == workload.namespace).then_some(uid).flatten().map(|uid| OwnerReference {
        api_version: format!("{}/v1alpha1", api::GROUP),
        kind: "AIWorkload".to_owned(),
        name: workload.name.clone(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    });
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels(workload)),
        owner_references: owner.map(|o| vec![o]),
        ..ObjectMeta::default()
    }
}

fn labels(workload: &ObjectName) -> BTreeMap<String, String> {
    [(api::MANAGED_BY_LABEL, api::MANAGED_BY), (api::WORKLOAD_LABEL, &workload.name), (api::WORKLOAD_NAMESPACE_LABEL, &workload.namespace)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into()
}
