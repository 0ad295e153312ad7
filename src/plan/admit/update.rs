//! What may not change on a running pod. The API server lets images, ephemeral containers and labels be changed at any time.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::guard::{differences, mounted, pinned};
use super::pod::added_annotations;
use super::volume::mounted_claims;
use super::{Admission, CONTAINER_RULES, CONTEXT_RULES, Debugging, Judged, Listed, Subject, admit_unscoped, error, is_ours};
use crate::plan::FieldError;

/// What speaks against a change of a pod. `admission` is of the AIWorkload that selects the pod before or after; None if none does.
///
/// Old and new are compared with each other, not with today's settings: a pod with an older guard may go on until it is replaced.
pub fn admit_update(old: &Pod, new: &Pod, admission: Option<&Admission<'_>>) -> Vec<FieldError> {
    let none = PodSpec::default();
    let (before, after) = (old.spec.as_ref().unwrap_or(&none), new.spec.as_ref().unwrap_or(&none));
    let mut errors = Vec::new();
    our_containers(before, after, &mut errors);
    match admission {
        Some(admission) if admission.debugging == Debugging::Allowed => debugged(new, before, after, admission, &mut errors),
        Some(_) => added_ephemeral(before, after, &mut errors),
        None if ours(before).next().is_some() => added_ephemeral(before, after, &mut errors),
        None => {}
    }
    if admission.is_some() || ours(before).next().is_some() {
        added_annotations(Some(&old.metadata), &new.metadata, &mut errors);
    }
    match admission {
        Some(admission) => {
            labels(old, new, admission, &mut errors);
            images(before, after, &mut errors);
        }
        None => {
            let known = admit_unscoped(before);
            errors.extend(admit_unscoped(after).into_iter().filter(|e| !known.contains(e)));
        }
    }
    errors
}

/// What speaks against a change of a pod in whatever mode: nobody but us changes our containers.
pub fn admit_ours(old: &Pod, new: &Pod) -> Vec<FieldError> {
    let none = PodSpec::default();
    let mut errors = Vec::new();
    our_containers(old.spec.as_ref().unwrap_or(&none), new.spec.as_ref().unwrap_or(&none), &mut errors);
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

/// While an exception lasts, ephemeral containers are let in that are no more than the app: a user that is not the guard's (an image can
/// bear any, and the guard's stands in the pod), no powers, nothing of the guard's, nothing that is not in the pod already.
fn debugged(pod: &Pod, before: &PodSpec, after: &PodSpec, admission: &Admission<'_>, errors: &mut Vec<FieldError>) {
    let known = before.ephemeral_containers.as_deref().unwrap_or_default();
    let added: Vec<_> = after.ephemeral_containers.iter().flatten().filter(|c| !known.contains(c)).collect();
    let judged = Judged { metadata: &pod.metadata, spec: after, subject: Subject::Pod, admission };
    let of_pod = after.security_context.as_ref().and_then(|s| s.run_as_user);
    for container in added {
        let path = format!("spec.ephemeralContainers[name={}]", container.name);
        let security = container.security_context.as_ref();
        let listed = Listed { path: path.clone(), init: false, name: &container.name, security, container: None };
        for rule in CONTAINER_RULES {
            rule(&judged, &listed, errors);
        }
        for rule in CONTEXT_RULES {
            rule(&listed.context(), errors);
        }
        if security.and_then(|s| s.run_as_user).or(of_pod).is_none() {
            let message = "must be named: its image could bear the guard's user (kubectl debug --custom=FILE, with securityContext)";
            errors.push(error(format!("{path}.securityContext.runAsUser"), message));
        }
        if container.target_container_name.as_deref().is_some_and(is_ours) {
            errors.push(error(format!("{path}.targetContainerName"), "would see the guard's processes; name a container of the app"));
        }
        errors.extend(container.volume_mounts.iter().flatten().filter_map(|mount| mounted(&path, mount)));
        mounted_claims(&judged, &path, container, errors);
        let from = container.env.iter().flatten().any(|e| e.value_from.is_some()) || container.env_from.iter().flatten().next().is_some();
        if from {
            errors.push(error(format!("{path}.env"), "would bring in what the pod does not have; give values only"));
        }
    }
}

/// A new image may bear the guard's user, which stands in the pod for everybody to read. Where the pod names the user, the image cannot.
fn images(before: &PodSpec, after: &PodSpec, errors: &mut Vec<FieldError>) {
    let user_of_pod = after.security_context.as_ref().and_then(|s| s.run_as_user);
    let apps = |spec: &PodSpec| -> Vec<(&'static str, Container)> {
        let init = spec.init_containers.iter().flatten().filter(|c| !is_ours(&c.name)).map(|c| ("initContainers", c.clone()));
        init.chain(spec.containers.iter().map(|c| ("containers", c.clone()))).collect()
    };
    for (list, new) in apps(after) {
        let old = apps(before).into_iter().find(|(_, old)| old.name == new.name);
        let named = new.security_context.as_ref().and_then(|s| s.run_as_user).or(user_of_pod).is_some();
        if old.is_some_and(|(_, old)| old.image != new.image) && !named {
            let message = "could bear the guard's user, which everybody can read in this pod; replace the pod instead, or name the user (runAsUser) in its template";
            errors.push(error(format!("spec.{list}[name={}].image", new.name), message));
        }
    }
}

pub(super) fn ephemeral(name: &str) -> FieldError {
    error(
        format!("spec.ephemeralContainers[name={name}]"),
        "would run in the guard's network with a user and powers of its own; ask for an exception (kubectl remit break-glass)",
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
    use crate::plan::admit::fixture::{UID, WORKLOAD_UID, bot, injected, pod, put, scope, settings};

    fn errors(before: &Value, changes: &[(&str, Value)], admission: bool) -> Vec<String> {
        errors_while(Debugging::Refused, before, changes, admission)
    }

    fn errors_while(debugging: Debugging, before: &Value, changes: &[(&str, Value)], admission: bool) -> Vec<String> {
        let mut after = before.clone();
        for (at, value) in changes {
            put(&mut after, at, value.clone());
        }
        let (scope, settings) = (scope(), settings());
        let admission = admission.then_some(Admission { scope: &scope, workload_uid: WORKLOAD_UID, settings: &settings, debugging });
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
        let mut named_user = guarded();
        put(&mut named_user, "/spec/containers/0/securityContext/runAsUser", json!(1000));
        let mut older = guarded();
        older["spec"]["initContainers"][1]["image"] = json!("remit-guard:older");
        let mut debugged = guarded();
        debugged["spec"]["ephemeralContainers"] = debugger();
        let networks = |value: &str| json!({"k8s.v1.cni.cncf.io/networks": value});
        let joins = "metadata.annotations[k8s.v1.cni.cncf.io/networks]: joins a network";
        let mut joined = guarded();
        joined["metadata"]["annotations"] = networks("x");
        // Before, where, what, whether an AIWorkload selects it before or after, the beginning of the error.
        let cases: Vec<(Value, &str, Value, bool, &str)> = vec![
            (guarded(), "/metadata/labels/track", json!("canary"), true, ""),
            (guarded(), "/spec/containers/0/image", json!("bot:2"), true, "spec.containers[name=bot].image: could bear the guard's user"),
            (named_user.clone(), "/spec/containers/0/image", json!("bot:2"), true, ""),
            (
                named_user,
                "/spec/initContainers/1/image",
                json!("evil"),
                true,
                "spec.initContainers[name=remit-guard].image: is Remit's own",
            ),
            (outside.clone(), "/spec/containers/0/image", json!("bot:2"), false, ""),
            (guarded(), "/spec/tolerations", json!([{"operator": "Exists"}]), true, ""),
            (guarded(), "/metadata/annotations", json!({"a": "b"}), true, ""),
            (guarded(), "/metadata/annotations", networks("x"), true, joins),
            (guarded(), "/metadata/annotations", networks("x"), false, joins),
            (joined.clone(), "/metadata/annotations", networks("y"), true, joins),
            (joined.clone(), "/metadata/annotations/a", json!("b"), true, ""),
            (joined, "/metadata/annotations", json!({}), true, ""),
            (outside.clone(), "/metadata/annotations", networks("x"), false, ""),
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

    #[test]
    fn while_an_exception_lasts() {
        let mut guarded = serde_json::to_value(injected(&pod(bot()), &scope())).unwrap();
        for (name, claim, read_only) in [
            ("files", "support-files", false),
            ("read", "support-files", true),
            ("store", "support-store", false),
            ("other", "other", true),
        ] {
            put(
                &mut guarded,
                "/spec/volumes/-",
                json!({"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": read_only}}),
            );
        }
        let good = || {
            let context = json!({"runAsUser": 1000, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
            json!({"name": "debugger", "image": "x", "targetContainerName": "bot", "securityContext": context})
        };
        let with = |at: &str, value: Value| {
            let mut container = good();
            put(&mut container, at, value);
            container
        };
        let mount = |name: &str, read_only: bool| with("/volumeMounts", json!([{"name": name, "mountPath": "/x", "readOnly": read_only}]));
        let cases = [
            (good(), ""),
            (with("/securityContext/runAsUser", json!(UID)), "runAsUser: 2000000000"),
            (with("/securityContext/capabilities/add", json!(["SYS_PTRACE"])), "SYS_PTRACE could lead round"),
            (with("/securityContext/privileged", json!(true)), "privileged"),
            (with("/securityContext/runAsUser", Value::Null), "its image could bear the guard's user"),
            (with("/securityContext/capabilities", Value::Null), "drop [ALL]"),
            (with("/targetContainerName", json!("remit-guard")), "would see the guard's processes"),
            (with("/volumeMounts", json!([{"name": "remit-policy", "mountPath": "/x"}])), "the guard's own volume"),
            (with("/volumeMounts", json!([{"name": "remit-ca", "mountPath": "/x", "readOnly": true}])), "the guard's own volume"),
            (with("/volumeMounts", json!([{"name": "remit-trust", "mountPath": "/x"}])), "set readOnly: true"),
            (with("/volumeMounts", json!([{"name": "remit-trust", "mountPath": "/x", "readOnly": true}])), ""),
            (with("/env", json!([{"name": "K", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}])), "give values only"),
            (mount("files", false), "volumeMounts[name=files]: claim `support-files` is declared to be read only"),
            (mount("files", true), ""),
            (mount("read", false), ""),
            (mount("store", false), ""),
            (mount("other", true), "volumeMounts[name=other]: PersistentVolumeClaim `other` is not declared"),
            (mount("prompts", false), ""),
            (
                with("/volumeDevices", json!([{"name": "files", "devicePath": "/dev/x"}])),
                "volumeDevices[name=files]: claim `support-files`",
            ),
            (with("/envFrom", json!([{"secretRef": {"name": "other"}}])), "give values only"),
        ];
        for (container, words) in cases {
            let change = [("/spec/ephemeralContainers", json!([container]))];
            let errors = errors_while(Debugging::Allowed, &guarded, &change, true);
            match words {
                "" => assert_eq!(errors, Vec::<String>::new()),
                _ => assert!(errors.len() == 1 && errors[0].contains(words), "{container}: {errors:?}"),
            }
            assert!(!errors_while(Debugging::Refused, &guarded, &change, true).is_empty());
        }
        // What else changes is judged as always.
        let image = [("/spec/initContainers/1/image", json!("evil"))];
        assert_eq!(errors_while(Debugging::Allowed, &guarded, &image, true).len(), 1);
    }
}
