//! Whether a live object is exactly what the plan says.
//!
//! The whole object counts, not the fields we once wrote: what the plan leaves out must be absent. Left alone is only what others
//! rightly keep on our objects: labels and annotations beside ours, and a ServiceAccount's secrets and image pull secrets (clusters
//! add those to every account).

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ManagedObject;

/// A part of an object that is not as planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference(pub &'static str);

/// Where the live object differs from the plan. Empty: it is exactly as planned.
pub fn differences(desired: &ManagedObject, live: &ManagedObject) -> Vec<Difference> {
    let mut found = metadata(desired.metadata(), live.metadata());
    let mut differ = |same: bool, path: &'static str| {
        if !same {
            found.push(Difference(path));
        }
    };
    match (desired, live) {
        (ManagedObject::NetworkPolicy(desired), ManagedObject::NetworkPolicy(live)) => {
            let NetworkPolicy { metadata: _, spec: desired } = desired;
            let NetworkPolicySpec { pod_selector, policy_types, ingress, egress } = desired.clone().unwrap_or_default();
            let live = live.spec.clone().unwrap_or_default();
            differ(pod_selector.unwrap_or_default() == live.pod_selector.unwrap_or_default(), "spec.podSelector");
            differ(policy_types.unwrap_or_default() == live.policy_types.unwrap_or_default(), "spec.policyTypes");
            differ(ingress.unwrap_or_default() == live.ingress.unwrap_or_default(), "spec.ingress");
            differ(egress.unwrap_or_default() == live.egress.unwrap_or_default(), "spec.egress");
        }
        (ManagedObject::ConfigMap(desired), ManagedObject::ConfigMap(live)) => {
            let ConfigMap { metadata: _, data, binary_data, immutable } = desired;
            differ(data.clone().unwrap_or_default() == live.data.clone().unwrap_or_default(), "data");
            differ(binary_data.clone().unwrap_or_default() == live.binary_data.clone().unwrap_or_default(), "binaryData");
            differ(immutable.unwrap_or_default() == live.immutable.unwrap_or_default(), "immutable");
        }
        (ManagedObject::ServiceAccount(desired), ManagedObject::ServiceAccount(live)) => {
            let ServiceAccount { metadata: _, automount_service_account_token, image_pull_secrets: _, secrets: _ } = desired;
            differ(*automount_service_account_token == live.automount_service_account_token, "automountServiceAccountToken");
        }
        (ManagedObject::Role(desired), ManagedObject::Role(live)) => {
            let Role { metadata: _, rules } = desired;
            differ(rules.clone().unwrap_or_default() == live.rules.clone().unwrap_or_default(), "rules");
        }
        (ManagedObject::RoleBinding(desired), ManagedObject::RoleBinding(live)) => {
            let RoleBinding { metadata: _, role_ref, subjects } = desired;
            differ(*role_ref == live.role_ref, "roleRef");
            differ(normal(subjects) == normal(&live.subjects), "subjects");
        }
        _ => differ(false, "kind"),
    }
    found
}

/// Subjects as the API server completes them.
fn normal(subjects: &Option<Vec<k8s_openapi::api::rbac::v1::Subject>>) -> Vec<k8s_openapi::api::rbac::v1::Subject> {
    subjects
        .iter()
        .flatten()
        .cloned()
        .map(|mut subject| {
            if subject.api_group.as_deref() == Some("") {
                subject.api_group = None;
            }
            subject
        })
        .collect()
}

fn metadata(desired: &ObjectMeta, live: &ObjectMeta) -> Vec<Difference> {
    let mut found = Vec::new();
    let ours = desired.labels.iter().flatten().all(|(k, v)| live.labels.as_ref().and_then(|l| l.get(k)) == Some(v));
    if !ours {
        found.push(Difference("metadata.labels"));
    }
    // A foreign owner would let the garbage collector delete the object, a foreign finalizer would keep it for ever.
    if desired.owner_references.clone().unwrap_or_default() != live.owner_references.clone().unwrap_or_default() {
        found.push(Difference("metadata.ownerReferences"));
    }
    if desired.finalizers.clone().unwrap_or_default() != live.finalizers.clone().unwrap_or_default() {
        found.push(Difference("metadata.finalizers"));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::fixture::{self, FULL, WIDE, facts, scope};

    fn planned() -> Vec<ManagedObject> {
        crate::plan::compile(&scope(FULL), Some(&fixture::origin()), &fixture::ceilings(&[WIDE]), &facts()).objects
    }

    fn parse(like: &ManagedObject, value: Value) -> Option<ManagedObject> {
        Some(match like {
            ManagedObject::NetworkPolicy(_) => ManagedObject::NetworkPolicy(serde_json::from_value(value).ok()?),
            ManagedObject::ConfigMap(_) => ManagedObject::ConfigMap(serde_json::from_value(value).ok()?),
            ManagedObject::ServiceAccount(_) => ManagedObject::ServiceAccount(serde_json::from_value(value).ok()?),
            ManagedObject::Role(_) => ManagedObject::Role(serde_json::from_value(value).ok()?),
            ManagedObject::RoleBinding(_) => ManagedObject::RoleBinding(serde_json::from_value(value).ok()?),
        })
    }

    /// Every way to change one place of a JSON value: replace a leaf, drop a member, add an element.
    fn mutations(value: &Value, at: &str) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    let path = format!("{at}.{key}");
                    let mut without = map.clone();
                    without.remove(key);
                    all.push((format!("{path} dropped"), Value::Object(without)));
                    for (what, changed) in mutations(inner, &path) {
                        let mut with = map.clone();
                        with.insert(key.clone(), changed);
                        all.push((what, Value::Object(with)));
                    }
                }
            }
            Value::Array(items) => {
                for (i, inner) in items.iter().enumerate() {
                    let mut without = items.clone();
                    without.remove(i);
                    all.push((format!("{at}[{i}] dropped"), Value::Array(without)));
                    for (what, changed) in mutations(inner, &format!("{at}[{i}]")) {
                        let mut with = items.clone();
                        with[i] = changed;
                        all.push((what, Value::Array(with)));
                    }
                }
                // What an attacker adds: a rule that allows everything, one more word.
                for extra in [json!({}), json!("extra")] {
                    let mut more = items.clone();
                    more.push(extra);
                    all.push((format!("{at} extended"), Value::Array(more)));
                }
            }
            Value::String(text) => all.push((format!("{at} changed"), json!(format!("{text}x")))),
            Value::Number(number) => all.push((format!("{at} changed"), json!(number.as_i64().unwrap_or(0) + 1))),
            Value::Bool(value) => all.push((format!("{at} changed"), json!(!value))),
            Value::Null => {}
        }
        all
    }

    #[test]
    fn every_changed_field_is_seen() {
        let mut seen = 0;
        for object in planned() {
            assert_eq!(differences(&object, &object), vec![]);
            let value = serde_json::to_value(&object).unwrap();
            for (what, mutated) in mutations(&value, object.kind().as_str()) {
                // The object's name and namespace say which object it is; kind and version are no content.
                if ["metadata.name ", "metadata.namespace ", "apiVersion", "kind "].iter().any(|p| what.contains(p))
                    && !what.contains("subjects")
                    && !what.contains("roleRef")
                    && !what.contains("ownerReferences")
                {
                    continue;
                }
                let Some(live) = parse(&object, mutated) else { continue };
                if serde_json::to_value(&live).unwrap() == value {
                    continue; // a dropped empty list reads as an empty list, an unknown member as nothing
                }
                seen += 1;
                assert!(!differences(&object, &live).is_empty(), "{what} was not seen");
            }
        }
        assert!(seen > 200, "only {seen} mutations were tried");
    }

    #[test]
    fn what_others_add_beside_the_plan_is_seen() {
        let objects = planned();
        let add = |index: usize, path: &str, extra: Value| {
            let mut value = serde_json::to_value(&objects[index]).unwrap();
            *value.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = extra;
            differences(&objects[index], &parse(&objects[index], value).unwrap())
        };
        for (index, object) in objects.iter().enumerate() {
            let mut value = serde_json::to_value(object).unwrap();
            value["metadata"]["finalizers"] = json!(["example.com/stay"]);
            assert_eq!(differences(object, &parse(object, value.clone()).unwrap()), [Difference("metadata.finalizers")]);
            value["metadata"]["finalizers"] = json!(null);
            value["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "u"}]);
            assert_eq!(differences(object, &parse(object, value.clone()).unwrap()), [Difference("metadata.ownerReferences")], "{index}");
            // Beside ours, others may keep labels and annotations.
            let mut value = serde_json::to_value(object).unwrap();
            value["metadata"]["labels"]["team"] = json!("x");
            value["metadata"]["annotations"] = json!({"a": "b"});
            assert_eq!(differences(object, &parse(object, value).unwrap()), vec![]);
        }
        assert_eq!(add(0, "/spec/egress", json!([{}])), [Difference("spec.egress")]);
        assert_eq!(add(0, "/spec/policyTypes", json!(["Ingress"])), [Difference("spec.policyTypes")]);
    }
}
