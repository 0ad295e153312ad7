//! Our two containers and the policy's volume: in place, as injected, and nobody else's.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume, VolumeMount};
use serde::Serialize;
use serde_json::Value;

use super::context::{Context, reserved_ids};
use super::{Judged, Listed, Subject, error, everybody, is_ours, others};
use crate::plan::FieldError;
use crate::plan::inject::{
    Form, GuardSettings, WORKLOAD_ARGUMENT, guard_container, guard_volumes, is_token_volume, named_ids, redirect_container, unfit, whose,
};
use crate::policy::WorkloadId;
use crate::policy::pod::{POLICY_VOLUME, REDIRECT_CONTAINER, TRUST_VOLUME, VOLUMES};

/// Where the API server mounts an account's token.
const TOKEN_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const LEAVE_IT: &str = "leave it out and Remit puts it in";

/// Our two come first, in order, exactly as injected. Whether the guard ends the app's TLS, its arguments say: a scope that changed a moment ago
/// does not refuse the pod, and without its volumes a guard ends none.
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
    let workload = whose(&admission.scope.workload, admission.workload_uid);
    let form = Form::found(spec);
    let expected = [redirect_container(admission.settings, uid, gid), guard_container(admission.settings, &workload, form, uid, gid)];
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

/// The volumes are as injected: the policy is that of the AIWorkload that selects the pod.
pub(super) fn volumes_in_place(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    if absent_from_template(judged) {
        return;
    }
    let workload = &judged.admission.scope.workload.name;
    let expected = guard_volumes(workload, Form::found(judged.spec));
    for name in VOLUMES {
        let found: Vec<_> = ours_of(judged.spec).filter(|v| v.name == name).collect();
        if found != expected.iter().filter(|v| v.name == name).collect::<Vec<_>>() {
            let path = format!("spec.volumes[name={name}]");
            let what = if name == POLICY_VOLUME {
                format!("is not the policy of AIWorkload `{workload}`")
            } else {
                "is not as Remit injected it".to_owned()
            };
            errors.push(error(path, format!("{what}; {LEAVE_IT}")));
        }
    }
}

/// Nobody mounts them but our own (which `in_place` compares); what the app is to trust it reads, and never writes.
pub(super) fn volumes_of_the_guard_only(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    for listed in others(judged.spec) {
        errors.extend(listed.container.iter().flat_map(|container| taken(&listed.path, container)));
    }
}

/// What a container of the app takes of ours.
fn taken<'a>(path: &'a str, container: &'a Container) -> impl Iterator<Item = FieldError> + 'a {
    let devices = container.volume_devices.iter().flatten().filter(|device| VOLUMES.contains(&device.name.as_str()));
    let device = move |name: &str| error(format!("{path}.volumeDevices[name={name}]"), "is the guard's own volume; take the device out");
    let mounts = container.volume_mounts.iter().flatten().filter_map(move |mount| mounted(path, mount));
    mounts.chain(devices.map(move |found| device(&found.name)))
}

/// What speaks against a mount in a container of the app.
pub(super) fn mounted(container: &str, mount: &VolumeMount) -> Option<FieldError> {
    let path = format!("{container}.volumeMounts[name={}]", mount.name);
    match mount.name.as_str() {
        TRUST_VOLUME if mount.read_only == Some(true) => None,
        TRUST_VOLUME => {
            Some(error(path, "is what the app trusts, and the guard alone writes it; set readOnly: true, or take the mount out"))
        }
        name if VOLUMES.contains(&name) => Some(error(path, "is the guard's own volume; take the mount out")),
        _ => None,
    }
}

fn ours_of(spec: &PodSpec) -> impl Iterator<Item = &Volume> {
    spec.volumes.iter().flatten().filter(|v| VOLUMES.contains(&v.name.as_str()))
}

/// In a pod that no AIWorkload selects, our names mean somebody poses as guarded.
pub(super) fn names_unused(spec: &PodSpec, errors: &mut Vec<FieldError>) {
    const MESSAGE: &str = "is a name of Remit's own, and no AIWorkload selects this pod; choose another";
    errors.extend(everybody(spec).iter().filter(|c| is_ours(c.name)).map(|c| error(&c.path, MESSAGE)));
    errors.extend(ours_of(spec).map(|v| error(format!("spec.volumes[name={}]", v.name), MESSAGE)));
}

/// The AIWorkload for which this pod was injected. None: it has no guard, or none that nothing in the pod goes round; what was made before its
/// namespace was enrolled may bear any name.
///
/// Of any version of the guard (the image's repository counts): an older one goes on until its pod is replaced.
pub fn guarded_for(spec: &PodSpec, settings: &GuardSettings) -> Option<WorkloadId> {
    const FREE: [&str; 6] =
        ["image", "imagePullPolicy", "startupProbe", "readinessProbe", "terminationMessagePath", "terminationMessagePolicy"];
    let (uid, gid) = named_ids(spec)?;
    let [redirect, guard, rest @ ..] = spec.init_containers.as_deref()? else { return None };
    let workload: WorkloadId = guard.args.iter().flatten().find_map(|a| a.strip_prefix(WORKLOAD_ARGUMENT))?.parse().ok()?;
    let form = Form::found(spec);
    let expected = [redirect_container(settings, uid, gid), guard_container(settings, &workload, form, uid, gid)];
    let as_injected = [redirect, guard].into_iter().zip(&expected).all(|(found, expected)| {
        let same_image = repository(found.image.as_deref().unwrap_or_default()) == repository(&settings.image);
        let differing = differences(&pinned(expected, spec), &pinned(found, spec));
        same_image && differing.iter().all(|member| FREE.contains(&member.as_str()))
    });
    let poses = |c: &Container| is_ours(&c.name) || taken("", c).next().is_some();
    let posing = rest.iter().chain(&spec.containers).any(poses);
    let mut reserved = Vec::new();
    for context in std::iter::once(Context::of_pod(spec)).chain(others(spec).iter().map(Listed::context)) {
        reserved_ids(&context, &mut reserved);
    }
    let volumes: Vec<_> = ours_of(spec).cloned().collect();
    let held = as_injected && !posing && reserved.is_empty() && volumes == guard_volumes(&workload.name, form) && !unfit(spec);
    held.then_some(workload)
}

/// Of an image, without tag and digest.
fn repository(image: &str) -> &str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(name, _)| name)
}

fn absent_from_template(judged: &Judged<'_>) -> bool {
    judged.subject == Subject::Template && !everybody(judged.spec).iter().any(|c| is_ours(c.name)) && ours_of(judged.spec).next().is_none()
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::admit::fixture::{UID, bot, injected, pod, put, scope, settings, token_volume};

    fn of(value: &Value) -> Option<String> {
        guarded_for(pod(value.clone()).spec.as_ref().unwrap(), &settings()).map(|workload| workload.to_string())
    }

    #[test]
    fn what_is_a_guard() {
        let stored = || serde_json::to_value(injected(&pod(bot()), &scope())).unwrap();
        let changed = |changes: &[(&str, Value)]| {
            let mut value = stored();
            changes.iter().for_each(|(at, to)| put(&mut value, at, to.clone()));
            of(&value)
        };
        let expected = Some("support/support-bot/uid-1".to_owned());
        assert_eq!(of(&stored()), expected);
        let (redirect, guard) = ("/spec/initContainers/0", "/spec/initContainers/1");
        let of_version = |image: &str| changed(&[(&format!("{redirect}/image"), json!(image)), (&format!("{guard}/image"), json!(image))]);
        for image in
            ["registry.example.com/remit-guard:0.0.9", "registry.example.com/remit-guard@sha256:0", "registry.example.com/remit-guard"]
        {
            assert_eq!(of_version(image), expected, "{image}");
        }
        for image in ["evil", "registry.example.com/remit-guard-evil:1", "registry.example.com:5000/remit-guard", "evil/remit-guard:1", ""]
        {
            assert_eq!(of_version(image), None, "{image}");
        }
        let goes_on = [
            ("more memory", format!("{guard}/resources/limits/memory"), json!("1Gi")),
            ("probes of another version", format!("{guard}/readinessProbe/periodSeconds"), json!(9)),
            ("another init container after them", "/spec/initContainers/-".into(), json!({"name": "setup"})),
            ("the API server's token", "/spec/volumes/-".into(), token_volume()),
        ];
        for (what, at, value) in goes_on {
            assert_eq!(changed(&[(&at, value)]), expected, "{what}");
        }
        let poses = [
            ("the name alone", "/spec/initContainers".into(), json!([{"name": "remit-guard", "image": settings().image}])),
            ("no init containers", "/spec/initContainers".into(), json!([])),
            ("no redirect", redirect.into(), json!({"name": "setup"})),
            ("a redirect that lets another user pass", format!("{redirect}/args/1"), json!("--uid=2000000009")),
            ("the guard's image for one alone", format!("{redirect}/image"), json!("evil")),
            ("a command", format!("{guard}/command"), json!(["sh"])),
            ("another key", format!("{guard}/args/1"), json!("--trust=remit-policy+00000000+other")),
            ("for nobody", format!("{guard}/args/2"), json!("--x")),
            ("for another, with this one's policy", format!("{guard}/args/2"), json!("--workload=support/other/uid-1")),
            ("more arguments", format!("{guard}/args/-"), json!("--policy=/tmp/mine")),
            ("powers", format!("{guard}/securityContext/privileged"), json!(true)),
            ("a second of the name", "/spec/containers/-".into(), json!({"name": "remit-guard"})),
            ("another volume", "/spec/volumes/0".into(), json!({"name": "remit-policy", "emptyDir": {}})),
            ("an app with its token", "/spec/containers/0/volumeMounts/-".into(), json!({"name": "remit-policy", "mountPath": "/x"})),
            ("an app as its user", "/spec/containers/0/securityContext/runAsUser".into(), json!(UID)),
            ("the node's network", "/spec/hostNetwork".into(), json!(true)),
        ];
        for (what, at, value) in poses {
            assert_eq!(changed(&[(&at, value)]), None, "{what}");
        }
        assert_eq!(of(&bot()), None);
    }
}
