//! Our two containers and the policy's volume: in place, as injected, and nobody else's.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde::Serialize;
use serde_json::Value;

use super::{Judged, Subject, error, everybody, is_ours, others};
use crate::plan::FieldError;
use crate::plan::inject::{guard_container, is_token_volume, named_ids, policy_volume, redirect_container};
use crate::policy::pod::{POLICY_VOLUME, REDIRECT_CONTAINER};

/// Where the API server mounts an account's token.
const TOKEN_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const LEAVE_IT: &str = "leave it out and Remit puts it in";

/// Our two come first, in order, exactly as injected.
pub(super) fn in_place(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    let Judged { spec, admission, .. } = judged;
    if absent_from_template(judged) {
        return;
    }
    let Some((uid, gid)) = named_ids(spec) else {
        let path = format!("spec.initContainers[name={REDIRECT_CONTAINER}]");
        errors.push(error(path, format!("is not there with arguments that Remit writes, so nothing leads to the guard; {LEAVE_IT}")));
        return;
    };
    let expected = [redirect_container(admission.settings, uid, gid), guard_container(admission.settings, uid, gid)];
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (position, expected) in expected.iter().enumerate() {
        let path = format!("spec.initContainers[name={}]", expected.name);
        match init.get(position).filter(|found| found.name == expected.name) {
            None => errors.push(error(
                path,
                format!(
                    "must be number {} of the init containers: what starts before it is not held; a webhook that puts its own first must run before Remit's",
                    position + 1
                ),
            )),
            Some(found) => {
                let mut found = pinned(found, spec);
                // AlwaysPullImages, and stricter than anything else.
                if found.image_pull_policy.as_deref() == Some("Always") {
                    found.image_pull_policy = expected.image_pull_policy.clone();
                }
                for member in differences(&pinned(expected, spec), &found) {
                    errors.push(error(format!("{path}.{member}"), format!("is not as Remit injected it; {LEAVE_IT}")));
                }
            }
        }
    }
}

/// Whoever else bore our names would be taken for ours.
pub(super) fn no_other_of_our_names(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    let mut seen = BTreeSet::new();
    for container in everybody(judged.spec).iter().filter(|c| is_ours(c.name)) {
        if !(container.init && seen.insert(container.name)) {
            errors.push(error(&container.path, "bears the name of a container of Remit; choose another"));
        }
    }
}

/// The volume is the policy of the AIWorkload that selects the pod.
pub(super) fn volume_in_place(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    if absent_from_template(judged) {
        return;
    }
    let expected = policy_volume(&judged.admission.scope.workload.name);
    let found: Vec<_> = judged.spec.volumes.iter().flatten().filter(|v| v.name == POLICY_VOLUME).collect();
    if found != [&expected] {
        let path = format!("spec.volumes[name={POLICY_VOLUME}]");
        errors.push(error(path, format!("is not the policy of AIWorkload `{}`; {LEAVE_IT}", judged.admission.scope.workload.name)));
    }
}

/// Nobody mounts it but our own (which `in_place` compares).
pub(super) fn volume_of_the_guard_only(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    for container in others(judged.spec) {
        let mounts = container.container.iter().flat_map(|c| c.volume_mounts.iter().flatten());
        if mounts.into_iter().any(|m| m.name == POLICY_VOLUME) {
            let path = format!("{}.volumeMounts[name={POLICY_VOLUME}]", container.path);
            errors.push(error(path, "is the guard's own volume; take the mount out"));
        }
    }
}

/// In a pod that no AIWorkload selects, our names mean somebody poses as guarded.
pub(super) fn names_unused(spec: &PodSpec, errors: &mut Vec<FieldError>) {
    const MESSAGE: &str = "is a name of Remit's own, and no AIWorkload selects this pod; choose another";
    errors.extend(everybody(spec).iter().filter(|c| is_ours(c.name)).map(|c| error(&c.path, MESSAGE)));
    if spec.volumes.iter().flatten().any(|v| v.name == POLICY_VOLUME) {
        errors.push(error(format!("spec.volumes[name={POLICY_VOLUME}]"), MESSAGE));
    }
}

fn absent_from_template(judged: &Judged<'_>) -> bool {
    judged.subject == Subject::Template
        && !everybody(judged.spec).iter().any(|c| is_ours(c.name))
        && !judged.spec.volumes.iter().flatten().any(|v| v.name == POLICY_VOLUME)
}

/// What must not differ. Left aside is what other parts of Kubernetes write into any container and what opens no way out: resources
/// (LimitRange, autoscalers, resizing in place; a starved guard lets nothing pass), and the mount of the token volume, which the API server
/// adds to every container of a pod after webhooks.
pub(super) fn pinned(container: &Container, spec: &PodSpec) -> Container {
    let mut container = container.clone();
    container.resources = None;
    container.resize_policy = None;
    let is_token = |name: &str| spec.volumes.iter().flatten().any(|v| v.name == name && is_token_volume(v));
    let mut mounts = container.volume_mounts.take().unwrap_or_default();
    mounts.retain(|m| !(m.mount_path == TOKEN_DIRECTORY && m.read_only == Some(true) && is_token(&m.name)));
    container.volume_mounts = Some(mounts).filter(|m| !m.is_empty());
    container
}

/// The members in which two objects differ.
pub(super) fn differences<T: Serialize>(one: &T, other: &T) -> Vec<String> {
    let members = |object: &T| match serde_json::to_value(object).expect("Kubernetes objects have only string keys") {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    let (one, other) = (members(one), members(other));
    let mut names: Vec<String> = one.keys().chain(other.keys()).filter(|k| one.get(*k) != other.get(*k)).cloned().collect();
    names.sort();
    names.dedup();
    names
}
