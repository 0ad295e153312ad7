//! `ScopeCeiling`: the most that AIWorkloads of some namespaces may declare.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Class, LabelSelector};

/// The most that AIWorkloads of the selected namespaces may declare. Whatever is absent is denied.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "remit.dev",
    version = "v1alpha1",
    kind = "ScopeCeiling",
    plural = "scopeceilings",
    category = "remit",
    doc = "ScopeCeiling bounds what the AIWorkloads of the selected namespaces may declare. Several ceilings: their intersection. A namespace without any: its own Services and Kubernetes objects only.",
    derive = "PartialEq",
    printcolumn(
        name = "Unscoped",
        type_ = "string",
        json_path = ".spec.unscopedPods",
        description = "What happens to pods that no AIWorkload selects"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since creation")
)]
#[serde(rename_all = "camelCase")]
pub struct ScopeCeilingSpec {
    /// The namespaces this ceiling bounds, by their labels. An empty selector bounds all.
    pub namespace_selector: LabelSelector,

    /// What happens, in an enrolled namespace, to pods that no AIWorkload selects. Several ceilings: the strictest.
    /// A namespace without any ceiling leaves them as they are.
    #[serde(default)]
    pub unscoped_pods: UnscopedPods,

    /// Hosts outside the cluster that may be declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hosts: Vec<CeilingHost>,

    /// Services that may be declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub services: Vec<CeilingService>,

    /// Kubernetes objects that may be declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub kubernetes: Vec<CeilingKubernetes>,

    /// Classes of data that may be declared. A data source without a class counts as Restricted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub classes: Vec<Class>,
}

/// What happens to pods of an enrolled namespace that no AIWorkload selects.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnscopedPods {
    /// They are left as they are.
    Allow,
    /// They reach nothing and nobody reaches them.
    #[default]
    Isolate,
    /// They are refused, and so are the templates of their owners; those that run are isolated.
    Deny,
}

/// Hosts that may be declared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CeilingHost {
    /// A name of your choice, unique in this list.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// A full DNS name, or `*.` and a domain for every name below it (not the domain itself).
    #[schemars(
        length(min = 4, max = 253),
        regex(pattern = r"^(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
    )]
    pub host: String,
    /// TCP ports.
    #[schemars(length(min = 1, max = 32), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<i32>,
}

/// Services that may be declared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CeilingService {
    /// A name of your choice, unique in this list.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The namespace of the Services; absent: the AIWorkload's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Names of Services, or `*` for all of the namespace.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63), regex(pattern = r"^(\*|[a-z]([-a-z0-9]*[a-z0-9])?)$")))]
    pub services: Vec<String>,
    /// Service ports; absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<i32>,
    /// Addresses that a Service without selector may lead to. Absent or empty: none, so that whoever may edit its EndpointSlices cannot choose a destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 3, max = 49)))]
    pub addresses: Vec<String>,
}

/// Kubernetes objects that may be declared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CeilingKubernetes {
    /// A name of your choice, unique in this list.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The namespace of the objects; absent: the AIWorkload's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// API groups; "" is the core group.
    #[schemars(length(min = 1, max = 16), inner(length(max = 253)))]
    pub api_groups: Vec<String>,
    /// Resources in the plural.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    pub resources: Vec<String>,
    /// Only objects with these names; absent or empty: all names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub resource_names: Vec<String>,
    /// The most that may be declared. Absent means Read.
    #[serde(default)]
    pub access: super::Access,
}
