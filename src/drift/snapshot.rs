//! What is known of a cluster at one moment, as far as access depends on it: own small structs, never whole objects.
//!
//! Promise: what cannot be read is a problem that names the object and the field; what is of a kind that changes access and is not analysed
//! is [`Omitted`]. Other kinds say nothing of access and are passed over.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, PodTemplateSpec, ReplicationController};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::network::{ClusterPolicy, Policy, Port, Protocol, Spec};
use super::rbac::Rbac;
use crate::plan::NAMESPACE_NAME_LABEL;
use crate::scope::ObjectName;

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Labels of the namespaces, of those as well in which only something else lies.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    pub pods: Vec<PodFact>,
    pub policies: Vec<Policy>,
    pub cluster_policies: Vec<ClusterPolicy>,
    pub rbac: Rbac,
    /// What is there and is not analysed.
    pub omitted: Vec<Omitted>,
}

/// A pod, or what makes pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFact {
    pub kind: &'static str,
    pub name: ObjectName,
    pub labels: BTreeMap<String, String>,
    /// None: it has none yet, as in a file.
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<NamedPort>,
    pub host_network: bool,
    pub account: String,
}

/// A port that a container names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    pub port: Port,
}

/// Present, not analysed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Omitted {
    pub kind: String,
    pub name: String,
}

/// Whose types nobody else here needs.
#[derive(Deserialize)]
struct ClusterObject {
    metadata: ObjectMeta,
    spec: Spec,
}

/// Kinds that open or close the network, by their API groups.
const NOT_ANALYSED: [(&str, &[&str]); 5] = [
    ("cilium.io", &["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "CiliumLocalRedirectPolicy", "CiliumEgressGatewayPolicy"]),
    ("crd.projectcalico.org", &["NetworkPolicy", "GlobalNetworkPolicy"]),
    ("projectcalico.org", &["NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy"]),
    ("policy.networking.k8s.io", &["AdminNetworkPolicy", "BaselineAdminNetworkPolicy"]),
    ("crd.antrea.io", &["NetworkPolicy", "ClusterNetworkPolicy"]),
];

impl Snapshot {
    /// Of objects as they are written; a list counts as what is in it. Also what cannot be read, a line each.
    pub fn read(objects: impl IntoIterator<Item = Value>) -> (Self, Vec<String>) {
        let (mut snapshot, mut problems) = (Self::default(), Vec::new());
        for object in objects {
            snapshot.add(object, &mut problems);
        }
        snapshot.rbac.aggregate();
        snapshot.omitted.sort();
        snapshot.pods.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        (snapshot, problems)
    }

    fn add(&mut self, object: Value, problems: &mut Vec<String>) {
        let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if kind.ends_with("List")
            && let Some(items) = object["items"].as_array()
        {
            for item in items {
                let mut item = item.clone();
                if item["kind"].is_null() {
                    // As the API server lists them.
                    (item["kind"], item["apiVersion"]) = (kind.trim_end_matches("List").into(), api_version.clone().into());
                }
                self.add(item, problems);
            }
            return;
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let shown = |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap_or("(no name)");
            match object["metadata"]["namespace"].as_str() {
                Some(namespace) => format!("{kind} {namespace}/{name}"),
                None => format!("{kind} {name}"),
            }
        };
        let what = shown(&object);
        let result = match (group, kind.as_str()) {
            ("", "Namespace") => parse::<Namespace>(object).map(|namespace| self.namespace(namespace.metadata)),
            ("", "Pod") => parse::<Pod>(object).map(|pod| self.pod(pod)),
            ("", "ReplicationController") => parse(object).map(|ReplicationController { metadata, spec, .. }| {
                self.template("ReplicationController", metadata, spec.and_then(|s| s.template))
            }),
            ("apps", "Deployment") => {
                parse(object).map(|Deployment { metadata, spec, .. }| self.template("Deployment", metadata, spec.map(|s| s.template)))
            }
            ("apps", "StatefulSet") => {
                parse(object).map(|StatefulSet { metadata, spec, .. }| self.template("StatefulSet", metadata, spec.map(|s| s.template)))
            }
            ("apps", "DaemonSet") => {
                parse(object).map(|DaemonSet { metadata, spec, .. }| self.template("DaemonSet", metadata, spec.map(|s| s.template)))
            }
            ("apps", "ReplicaSet") => {
                parse(object).map(|ReplicaSet { metadata, spec, .. }| self.template("ReplicaSet", metadata, spec.and_then(|s| s.template)))
            }
            ("batch", "Job") => parse(object).map(|Job { metadata, spec, .. }| self.template("Job", metadata, spec.map(|s| s.template))),
            ("batch", "CronJob") => parse(object).map(|CronJob { metadata, spec, .. }| {
                self.template("CronJob", metadata, spec.and_then(|s| s.job_template.spec).map(|s| s.template))
            }),
            ("networking.k8s.io", "NetworkPolicy") => parse::<NetworkPolicy>(object).and_then(|mut policy| {
                policy.metadata.namespace.get_or_insert_with(|| "default".into());
                self.policies.push(Policy::read(policy).map_err(|error| error.to_string())?);
                Ok(())
            }),
            ("policy.networking.k8s.io", "ClusterNetworkPolicy") => parse::<ClusterObject>(object).and_then(|policy| {
                let ClusterObject { metadata, spec } = policy;
                let policy = ClusterPolicy::read(metadata.name.unwrap_or_default(), spec).map_err(|error| error.to_string())?;
                if !policy.unread.is_empty() {
                    let name = format!("{} ({})", policy.name, policy.unread.join(", "));
                    self.omitted.push(Omitted { kind: "ClusterNetworkPolicy.policy.networking.k8s.io".into(), name });
                }
                self.cluster_policies.push(policy);
                Ok(())
            }),
            ("rbac.authorization.k8s.io", "Role") => parse::<Role>(object).map(|role| self.rbac.role(role)),
            ("rbac.authorization.k8s.io", "ClusterRole") => parse::<ClusterRole>(object).and_then(|role| self.rbac.cluster_role(role)),
            ("rbac.authorization.k8s.io", "RoleBinding") => parse::<RoleBinding>(object).map(|binding| self.rbac.binding(binding)),
            ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
                parse::<ClusterRoleBinding>(object).map(|binding| self.rbac.cluster_binding(binding))
            }
            (group, kind) if NOT_ANALYSED.iter().any(|(of, kinds)| *of == group && kinds.contains(&kind)) => {
                self.omitted
                    .push(Omitted { kind: format!("{kind}.{group}"), name: what.split_once(' ').map_or("", |(_, name)| name).to_owned() });
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(error) = result {
            problems.push(format!("{what}: {error}"));
        }
    }

    fn namespace(&mut self, metadata: ObjectMeta) {
        let name = metadata.name.unwrap_or_default();
        let labels = self.known(&name);
        labels.extend(metadata.labels.unwrap_or_default());
        // Nobody can give it another value.
        labels.insert(NAMESPACE_NAME_LABEL.into(), name);
    }

    fn known(&mut self, namespace: &str) -> &mut BTreeMap<String, String> {
        self.namespaces.entry(namespace.to_owned()).or_insert_with(|| [(NAMESPACE_NAME_LABEL.to_owned(), namespace.to_owned())].into())
    }

    fn pod(&mut self, pod: Pod) {
        let Pod { metadata, spec, status } = pod;
        let status = status.unwrap_or_default();
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            // It has ended: its address may be another's.
            return;
        }
        let all = status.pod_ips.into_iter().flatten().map(|ip| ip.ip).chain(status.pod_ip);
        let mut addresses: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        self.push("Pod", metadata.clone(), metadata.labels, spec.unwrap_or_default(), addresses);
    }

    fn template(&mut self, kind: &'static str, metadata: ObjectMeta, template: Option<PodTemplateSpec>) {
        // What another makes is known by that other.
        let owned = metadata.owner_references.iter().flatten().any(|owner| owner.controller == Some(true));
        if let Some(PodTemplateSpec { metadata: of_pods, spec }) = template.filter(|_| !owned) {
            self.push(kind, metadata, of_pods.and_then(|m| m.labels), spec.unwrap_or_default(), Vec::new());
        }
    }

    fn push(
        &mut self,
        kind: &'static str,
        metadata: ObjectMeta,
        labels: Option<BTreeMap<String, String>>,
        spec: PodSpec,
        addresses: Vec<IpAddr>,
    ) {
        let name = ObjectName::new(metadata.namespace.unwrap_or_else(|| "default".into()), metadata.name.unwrap_or_default());
        self.known(&name.namespace);
        let sidecars = spec.init_containers.into_iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.into_iter().chain(sidecars).flat_map(|container| container.ports.unwrap_or_default());
        let ports = ports.filter_map(|port| {
            let protocol: Protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
            Some(NamedPort { name: port.name?, port: Port { protocol, number: u16::try_from(port.container_port).ok()? } })
        });
        self.pods.push(PodFact {
            kind,
            name,
            labels: labels.unwrap_or_default(),
            addresses,
            ports: ports.collect(),
            host_network: spec.host_network == Some(true),
            account: spec.service_account_name.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".into()),
        });
    }
}

fn parse<T: DeserializeOwned>(object: Value) -> Result<T, String> {
    serde_json::from_value(object).map_err(|error| error.to_string())
}
