//! Whether a live object is exactly what the plan says.
//!
//! The whole object counts, not the fields we once wrote: what the plan leaves out must be absent. Left alone is only what others
//! rightly keep on our objects: labels and annotations beside ours, and a ServiceAccount's secrets and image pull secrets (clusters
//! add those to every account).

use k8s_openapi::api::core::v1::ServiceAccount;
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
