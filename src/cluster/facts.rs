//! What is kept of each watched object, and how it is read.
//!
//! An object which cannot be read never blinds the operator to the others: an AIWorkload becomes an invalid one, a ScopeCeiling one
//! that allows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::api::{DynamicObject, PartialObjectMeta};

use super::table::Projection;
use crate::api::{
    self, AIWorkload, AIWorkloadSpec, AIWorkloadStatus, BREAK_GLASS_ANNOTATION, FINALIZER, RELEASE_ANNOTATION, ScopeCeiling,
    ScopeCeilingSpec,
};
use crate::plan::{self, EndpointFact, FieldError, ManagedObject, Origin, ServiceFact};
use crate::scope::{Ceiling, Mode, ObjectName, Scope, Selector, Unscoped};

/// Field manager of everything generated.
pub const FIELD_MANAGER: &str = "remit";

/// An AIWorkload, read once.
#[derive(Clone, Debug)]
pub struct WorkloadFact {
    /// With what is kept of its metadata.
    pub object: AIWorkload,
    pub scope: Result<Scope, Vec<FieldError>>,
    /// Read by itself: also an otherwise invalid workload keeps others from its pods.
    pub selector: Option<Selector>,
    /// The Services it names.
    pub services: BTreeSet<ObjectName>,
}

/// A ScopeCeiling, read once.
#[derive(Clone, Debug, PartialEq)]
pub struct CeilingFact {
    /// None: it cannot be read; over every namespace.
    pub namespaces: Option<Selector>,
    pub ceiling: Ceiling,
    pub errors: Vec<String>,
}

/// A generated object as it lies in the cluster.
#[derive(Clone, Debug)]
pub struct Live {
    /// Without managedFields.
    pub object: ManagedObject,
    /// The field manager that wrote last.
    pub manager: Option<String>,
    /// Whether we once applied it: it is ours, whatever became of its labels.
    pub applied_by_us: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceFact {
    pub labels: BTreeMap<String, String>,
    pub uid: String,
    pub terminating: bool,
}

/// A pod that runs or will.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFact {
    pub uid: String,
    /// In seconds.
    pub created: i64,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFact {
    pub pods: Vec<IpNet>,
    pub addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SliceFact {
    pub service: ObjectName,
    pub endpoints: Vec<EndpointFact>,
    pub api_server: Vec<(IpAddr, u16)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RangeFact(pub Vec<IpNet>);

impl WorkloadFact {
    pub fn origin(&self) -> Origin {
        let ObjectMeta { uid, generation, .. } = &self.object.metadata;
        Origin { uid: uid.clone().unwrap_or_default(), generation: generation.unwrap_or_default() }
    }

    /// It is being deleted, and nothing of ours waits for its pods: whatever keeps it is somebody else's.
    pub fn is_leaving(&self) -> bool {
        let ObjectMeta { deletion_timestamp, finalizers, .. } = &self.object.metadata;
        deletion_timestamp.is_some() && !finalizers.iter().flatten().any(|f| f == FINALIZER)
    }

    /// Its seniority and selector, by which it is found who governs. None: it keeps nobody from governing.
    pub fn contends(&self) -> Option<(i64, &Selector)> {
        let created = self.object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |t| t.0.as_second());
        let mode = match self.object.spec.mode {
            api::Mode::Observe => Mode::Observe,
            api::Mode::Enforce => Mode::Enforce,
        };
        let selector = self.selector.as_ref().filter(|_| !self.is_leaving())?;
        Some((plan::seniority(mode, created), selector))
    }
}

impl Projection for WorkloadFact {
    fn version(&self) -> u64 {
        version(&self.object.metadata)
    }
    fn same(&self, other: &Self) -> bool {
        let plain = |o: &AIWorkload| ObjectMeta { resource_version: None, ..o.metadata.clone() };
        self.object.spec == other.object.spec && self.object.status == other.object.status && plain(&self.object) == plain(&other.object)
    }
}

impl Projection for Live {
    fn version(&self) -> u64 {
        version(self.object.metadata())
    }
    fn same(&self, other: &Self) -> bool {
        let plain = |live: &Self| {
            let mut object = live.object.clone();
            object.metadata_mut().resource_version = None;
            object
        };
        plain(self) == plain(other)
    }
}

macro_rules! plain {
    ($($fact:ty),*) => {$(
        impl Projection for $fact {
            fn same(&self, other: &Self) -> bool {
                self == other
            }
        }
    )*};
}
plain!(CeilingFact, NamespaceFact, NodeFact, PodFact, SliceFact, RangeFact, ServiceFact);

/// Resource versions are numbers that grow; anything else counts as 0, which orders nothing.
fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Name and namespace of an object.
pub fn name(meta: &ObjectMeta) -> ObjectName {
    ObjectName::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// What is kept of an AIWorkload's metadata: what is decided by, and nothing that its author could make long.
fn kept(metadata: ObjectMeta) -> ObjectMeta {
    let ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        finalizers,
        mut annotations,
        deletion_grace_period_seconds: _,
        generate_name: _,
        labels: _,
        managed_fields: _,
        owner_references: _,
        self_link: _,
    } = metadata;
    if let Some(annotations) = &mut annotations {
        annotations.retain(|key, _| [RELEASE_ANNOTATION, BREAK_GLASS_ANNOTATION].contains(&key.as_str()));
    }
    ObjectMeta {
        name,
        namespace,
        uid,
        resource_version,
        generation,
        creation_timestamp,
        deletion_timestamp,
        finalizers,
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    }
}

/// An AIWorkload.
pub fn workload(object: DynamicObject) -> (ObjectName, WorkloadFact) {
    let DynamicObject { types: _, metadata, data } = object;
    let metadata = kept(metadata);
    let status: Option<AIWorkloadStatus> = data.get("status").and_then(|s| serde_json::from_value(s.clone()).ok());
    let read: Result<AIWorkloadSpec, _> = serde_json::from_value(data.get("spec").cloned().unwrap_or_default());
    let key = name(&metadata);
    let fact = match read {
        Ok(spec) => known_workload(AIWorkload { metadata, spec, status }),
        Err(error) => {
            let selector: Option<api::LabelSelector> = serde_json::from_value(data["spec"]["selector"].clone()).ok();
            let spec = AIWorkloadSpec {
                purpose: None,
                selector: selector.clone().unwrap_or_default(),
                mode: if data["spec"]["mode"] == "Observe" { api::Mode::Observe } else { api::Mode::Enforce },
                identity: None,
                data_sources: Vec::new(),
                capabilities: None,
                unguarded_pods: api::UnguardedPods::Keep,
                suspend: data["spec"]["suspend"] == true,
            };
            let errors = vec![FieldError { path: "spec".to_owned(), message: format!("cannot be read by this version: {error}") }];
            let bare = known_workload(AIWorkload { metadata, spec, status });
            WorkloadFact { scope: Err(errors), selector: bare.selector.filter(|_| selector.is_some()), ..bare }
        }
    };
    (key, fact)
}

/// An AIWorkload that could be read, e.g. an API server's answer.
pub fn known_workload(mut object: AIWorkload) -> WorkloadFact {
    object.metadata = kept(object.metadata);
    let scope = plan::validate(&object);
    let selector = match &scope {
        Ok(scope) => Some(scope.selector.clone()),
        Err(_) => {
            let spec = AIWorkloadSpec { identity: None, data_sources: Vec::new(), capabilities: None, ..object.spec.clone() };
            plan::validate(&AIWorkload { metadata: object.metadata.clone(), spec, status: None }).ok().map(|scope| scope.selector)
        }
    };
    let own = object.metadata.namespace.clone().unwrap_or_default();
    let services = object.spec.data_sources.iter().filter_map(|source| source.service.as_ref());
    let services = services.map(|s| ObjectName::new(s.namespace.clone().unwrap_or_else(|| own.clone()), &s.name)).collect();
    WorkloadFact { object, scope, selector, services }
}

/// A ScopeCeiling. One that cannot be read allows nothing: over the namespaces it selects if at least those can be read, else over all.
pub fn ceiling(object: DynamicObject) -> (String, CeilingFact) {
    let DynamicObject { types: _, metadata, data } = object;
    let name = metadata.name.clone().unwrap_or_default();
    let read: Result<ScopeCeilingSpec, _> = serde_json::from_value(data.get("spec").cloned().unwrap_or_default());
    let nothing = |unscoped| Ceiling {
        name: name.clone(),
        unscoped,
        hosts: Vec::new(),
        services: Vec::new(),
        kubernetes: Vec::new(),
        classes: BTreeSet::new(),
    };
    let spec = match read {
        Ok(spec) => spec,
        Err(error) => {
            let unscoped = match data["spec"]["unscopedPods"].as_str() {
                Some("Allow") => Unscoped::Allow,
                Some("Deny") => Unscoped::Deny,
                _ => Unscoped::Isolate,
            };
            let fact = CeilingFact {
                namespaces: None,
                ceiling: nothing(unscoped),
                errors: vec![format!("spec: cannot be read by this version: {error}")],
            };
            return (name, fact);
        }
    };
    let fact = match plan::ceiling(&ScopeCeiling { metadata: metadata.clone(), spec: spec.clone() }) {
        Ok((namespaces, ceiling)) => CeilingFact { namespaces: Some(namespaces), ceiling, errors: Vec::new() },
        Err(errors) => {
            let unscoped = plan::unscoped(spec.unscoped_pods);
            let bare = ScopeCeilingSpec { hosts: Vec::new(), services: Vec::new(), kubernetes: Vec::new(), classes: Vec::new(), ..spec };
            let namespaces = plan::ceiling(&ScopeCeiling { metadata, spec: bare }).ok().map(|(namespaces, _)| namespaces);
            CeilingFact { namespaces, ceiling: nothing(unscoped), errors: errors.iter().map(ToString::to_string).collect() }
        }
    };
    (name, fact)
}

/// A Namespace.
pub fn namespace(object: Namespace) -> (String, NamespaceFact) {
    let meta = object.metadata;
    let fact = NamespaceFact {
        labels: meta.labels.unwrap_or_default(),
        uid: meta.uid.unwrap_or_default(),
        terminating: meta.deletion_timestamp.is_some(),
    };
    (meta.name.unwrap_or_default(), fact)
}

/// A Pod, of which the metadata are enough.
pub fn pod(object: PartialObjectMeta<Pod>) -> (ObjectName, PodFact) {
    let key = name(&object.metadata);
    let ObjectMeta { uid, labels, creation_timestamp, .. } = object.metadata;
    let created = creation_timestamp.map_or(0, |time| time.0.as_second());
    (key, PodFact { uid: uid.unwrap_or_default(), created, labels: labels.unwrap_or_default() })
}

/// A Node.
pub fn node(object: &Node) -> (String, NodeFact) {
    let (mut pods, mut addresses) = plan::project::node(object);
    pods.sort();
    addresses.sort();
    (object.metadata.name.clone().unwrap_or_default(), NodeFact { pods, addresses })
}

/// A generated object.
pub fn live(mut object: ManagedObject) -> Live {
    let fields = object.metadata_mut().managed_fields.take().unwrap_or_default();
    let own = |f: &ManagedFieldsEntry| f.manager.as_deref() == Some(FIELD_MANAGER) && f.operation.as_deref() == Some("Apply");
    let applied_by_us = fields.iter().any(own);
    let manager = fields.into_iter().max_by_key(|f| f.time.as_ref().map(|t| t.0)).and_then(|f| f.manager);
    Live { object, manager, applied_by_us }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn dynamic(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_unreadable_workload_is_an_invalid_one() {
        let (key, fact) = workload(dynamic(json!({
            "metadata": {"namespace": "a", "name": "b"},
            "spec": {"mode": "Enforce", "suspend": true, "selector": {"matchLabels": {"app": "b"}}, "dataSources": [{"name": "x", "type": "Telepathy"}]},
        })));
        assert_eq!(key, ObjectName::new("a", "b"));
        assert!(fact.object.spec.suspend);
        assert!(fact.scope.unwrap_err()[0].message.contains("Telepathy"));
    }

    #[test]
    fn nothing_long_is_kept_of_metadata() {
        let long = "x".repeat(200_000);
        let metadata = json!({
            "namespace": "a", "name": "b", "uid": "u", "resourceVersion": "7", "generation": 3, "finalizers": [FINALIZER],
            "labels": {"l": &long}, "annotations": {"kubectl.kubernetes.io/last-applied-configuration": &long, RELEASE_ANNOTATION: "true"},
            "managedFields": [{"manager": &long}], "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": &long, "uid": "u"}],
        });
        let spec = json!({"mode": "Enforce", "selector": {"matchLabels": {"app": "b"}}});
        let (_, fact) = workload(dynamic(json!({"metadata": metadata, "spec": spec})));
        let kept = serde_json::to_value(&fact.object.metadata).unwrap();
        assert_eq!(
            kept,
            json!({"namespace": "a", "name": "b", "uid": "u", "resourceVersion": "7", "generation": 3, "finalizers": [FINALIZER],
                "annotations": {RELEASE_ANNOTATION: "true"}})
        );
    }

    #[test]
    fn an_invalid_workload_still_holds_its_selector() {
        let (_, fact) = workload(dynamic(json!({
            "metadata": {"namespace": "a", "name": "b"},
            "spec": {"mode": "Enforce", "selector": {"matchLabels": {"app": "b"}}, "dataSources": [
                {"name": "x", "type": "Service", "access": "Read", "service": {"name": "db", "port": 1, "protocol": "TCP"}}]},
        })));
        assert!(fact.scope.is_err());
        assert_eq!(fact.selector, Selector::labels([("app", "b")]).ok());
        assert_eq!(fact.services, [ObjectName::new("a", "db")].into());
    }

    #[test]
    fn an_invalid_ceiling_allows_nothing() {
        let (_, unreadable) = ceiling(dynamic(json!({"metadata": {"name": "c"}, "spec": {"classes": ["Odd"]}})));
        assert_eq!((unreadable.namespaces, unreadable.ceiling.unscoped), (None, Unscoped::Isolate));
        let (_, invalid) = ceiling(dynamic(json!({"metadata": {"name": "c"}, "spec": {
            "namespaceSelector": {"matchLabels": {"team": "x"}}, "unscopedPods": "Allow", "classes": ["Public"],
            "hosts": [{"name": "ok", "host": "api.example.com", "ports": [443]}],
            "services": [{"name": "bad", "services": ["db"], "addresses": ["10.0.0.0/99"]}],
        }})));
        assert_eq!(invalid.namespaces, Selector::labels([("team", "x")]).ok());
        assert!(invalid.ceiling.hosts.is_empty() && invalid.ceiling.classes.is_empty() && !invalid.errors.is_empty());
    }
}
