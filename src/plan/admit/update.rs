//! What may not change on a running pod. The API server lets images, ephemeral containers and labels be changed at any time.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::guard::{differences, pinned};
use super::{Admission, admit_unscoped, error, is_ours};
use crate::plan::FieldError;

/// What speaks against a change of a pod. `admission` is of the AIWorkload that selects the pod before or after; None if none does.
///
/// Old and new are compared with each other, not with today's settings: a pod with an older guard may go on until it is replaced.
pub fn admit_update(old: &Pod, new: &Pod, admission: Option<&Admission<'_>>) -> Vec<FieldError> {
    let none = PodSpec::default();
    let (before, after) = (old.spec.as_ref().unwrap_or(&none), new.spec.as_ref().unwrap_or(&none));
    let mut errors = Vec::new();
    our_containers(before, after, &mut errors);
    if admission.is_some() || ours(before).next().is_some() {
        added_ephemeral(before, after, &mut errors);
    }
    match admission {
        Some(admission) => labels(old, new, admission, &mut errors),
        None => {
            let known = admit_unscoped(before);
            errors.extend(admit_unscoped(after).into_iter().filter(|e| !known.contains(e)));
        }
    }
    errors
}

/// The kubelet restarts a container whose image was changed, here with the user whose traffic passes.
fn our_containers(before: &PodSpec, after: &PodSpec, errors: &mut Vec<FieldError>) {
    for new in ours(after) {
        let path = format!("spec.initContainers[name={}]", new.name);
        let Some(old) = ours(before).find(|old| old.name == new.name) else { continue };
        for member in differences(&pinned(old, before), &pinned(new, after)) {
            errors.push(error(format!("{path}.{member}"), "is Remit's own and never changes on a running pod; replace the pod instead"));
        }
    }
}

fn added_ephemeral(before: &PodSpec, after: &PodSpec, errors: &mut Vec<FieldError>) {
    let before = before.ephemeral_containers.as_deref().unwrap_or_default();
    let added = after.ephemeral_containers.iter().flatten().filter(|c| !before.contains(c));
    errors.extend(added.map(|c| ephemeral(&c.name)));
}

pub(super) fn ephemeral(name: &str) -> FieldError {
    error(
        format!("spec.ephemeralContainers[name={name}]"),
        "would run in the guard's network with a user and powers of its own; debug a copy (kubectl debug --copy-to), without the labels that are selected",
    )
}

/// A pod is guarded from its creation or not at all.
fn labels(old: &Pod, new: &Pod, admission: &Admission<'_>, errors: &mut Vec<FieldError>) {
    let none = BTreeMap::new();
    let matches = |pod: &Pod| admission.scope.selector.matches(pod.metadata.labels.as_ref().unwrap_or(&none));
    let workload = &admission.scope.workload.name;
    let message = match (matches(old), matches(new)) {
        (true, false) => {
            format!("AIWorkload `{workload}` would no longer select the pod, and nothing would hold it; delete the pod instead")
        }
        (false, true) => {
            format!("AIWorkload `{workload}` would select the pod, which has no guard of its own; create it with these labels instead")
        }
        _ => return,
    };
    errors.push(error("metadata.labels", message));
}

fn ours(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().filter(|c| is_ours(&c.name))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::admit::fixture::{UID, bot, injected, pod, put, scope, settings};

    fn errors(before: &Value, changes: &[(&str, Value)], admission: bool) -> Vec<String> {
        let mut after = before.clone();
        for (at, value) in changes {
            put(&mut after, at, value.clone());
        }
        let (scope, settings) = (scope(), settings());
        let admission = admission.then_some(Admission { scope: &scope, settings: &settings });
        admit_update(&pod(before.clone()), &pod(after), admission.as_ref()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_of_a_running_pod() {
        let guarded = || serde_json::to_value(injected(&pod(bot()), &scope())).unwrap();
        let debugger = || json!([{"name": "debugger", "image": "x"}]);
        let leaves = "metadata.labels: AIWorkload `support-bot` would no longer select";
        let enters = "metadata.labels: AIWorkload `support-bot` would select the pod";
        let mut outside = bot();
        outside["metadata"]["labels"] = json!({"app": "other"});
        let mut older = guarded();
        older["spec"]["initContainers"][1]["image"] = json!("remit-guard:older");
        let mut debugged = guarded();
        debugged["spec"]["ephemeralContainers"] = debugger();
        // Before, where, what, whether an AIWorkload selects it before or after, the beginning of the error.
        let cases: Vec<(Value, &str, Value, bool, &str)> = vec![
            (guarded(), "/metadata/labels/track", json!("canary"), true, ""),
            (guarded(), "/spec/containers/0/image", json!("bot:2"), true, ""),
            (guarded(), "/spec/tolerations", json!([{"operator": "Exists"}]), true, ""),
            (guarded(), "/spec/initContainers/1/resources/limits/memory", json!("1Gi"), true, ""),
            (older, "/metadata/finalizers", json!(["x"]), true, ""),
            (debugged, "/metadata/labels/track", json!("canary"), true, ""),
            (outside.clone(), "/spec/ephemeralContainers", debugger(), false, ""),
            (
                guarded(),
                "/spec/initContainers/0/image",
                json!("evil"),
                true,
                "spec.initContainers[name=remit-redirect].image: is Remit's own",
            ),
            (guarded(), "/spec/initContainers/1/image", json!("evil"), true, "spec.initContainers[name=remit-guard].image: is Remit's own"),
            // Also after the AIWorkload has gone.
            (
                guarded(),
                "/spec/initContainers/1/image",
                json!("evil"),
                false,
                "spec.initContainers[name=remit-guard].image: is Remit's own",
            ),
            (guarded(), "/spec/ephemeralContainers", debugger(), true, "spec.ephemeralContainers[name=debugger]: would run"),
            (guarded(), "/spec/ephemeralContainers", debugger(), false, "spec.ephemeralContainers[name=debugger]: would run"),
            (bot(), "/spec/ephemeralContainers", debugger(), true, "spec.ephemeralContainers[name=debugger]: would run"),
            (guarded(), "/metadata/labels", json!({}), true, leaves),
            (guarded(), "/metadata/labels/app", json!("other"), true, leaves),
            (outside.clone(), "/metadata/labels/app", json!("support-bot"), true, enters),
            (
                outside,
                "/spec/ephemeralContainers",
                json!([{"name": "d", "securityContext": {"runAsUser": UID}}]),
                false,
                "spec.ephemeralContainers[name=d].securityContext.runAsUser: 2000000000",
            ),
        ];
        for (before, at, value, admission, expected) in cases {
            let errors = errors(&before, &[(at, value.clone())], admission);
            match expected {
                "" => assert_eq!(errors, Vec::<String>::new(), "{at} {value}"),
                _ => assert!(errors.len() == 1 && errors[0].starts_with(expected), "{at} {value}: {errors:?}"),
            }
        }
    }
}
