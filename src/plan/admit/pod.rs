//! What a pod as a whole brings.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Judged, Subject, error, everybody};
use crate::plan::FieldError;

pub(super) fn host_namespaces(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    for (field, on, why) in [
        ("hostNetwork", judged.spec.host_network, "no policy and no guard holds a pod on the host's network"),
        ("hostPID", judged.spec.host_pid, "the guard's process, and all others of the node, could be seen and entered"),
        ("hostIPC", judged.spec.host_ipc, "memory would be shared with all processes of the node"),
    ] {
        if on == Some(true) {
            errors.push(error(format!("spec.{field}"), format!("{why}; leave it out")));
        }
    }
}

pub(super) fn user_namespace(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    if judged.spec.host_users == Some(false) {
        errors.push(error("spec.hostUsers", "a user namespace has the ids up to 65535 only, and the guard's lies above; leave it out"));
    }
}

pub(super) fn processes(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    if judged.spec.share_process_namespace == Some(true) {
        errors.push(error("spec.shareProcessNamespace", "the guard's process could be seen and traced by the app; leave it out"));
    }
}

/// Also those that Kubernetes calls safe: they are the network's of the whole pod, the guard's as well.
pub(super) fn sysctls(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    let sysctls = judged.spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    for sysctl in sysctls {
        let path = format!("spec.securityContext.sysctls[name={}]", sysctl.name);
        errors.push(error(path, "changes the kernel's settings of the pod's network, on which the redirect rests; take it out"));
    }
}

pub(super) fn operating_system(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    if judged.spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        errors.push(error("spec.os.name", "there is a guard for linux only; run the pod there"));
    }
}

/// In a template, `default` is what people write who mean none.
pub(super) fn account(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    let expected = judged.admission.scope.account.name();
    let found = judged.spec.service_account_name.as_deref().unwrap_or_default();
    let unset = judged.subject == Subject::Template && matches!(found, "" | "default");
    if found != expected && !unset {
        let workload = &judged.admission.scope.workload.name;
        let message = format!(
            "AIWorkload `{workload}` runs as `{expected}`, not as `{found}`; leave it out, or set identity.serviceAccountName in the AIWorkload"
        );
        errors.push(error("spec.serviceAccountName", message));
    }
}

/// A network card of one's own is one without policy. An extended resource is a device by another name: only what is known to be none of
/// these passes.
pub(super) fn devices(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    let plain = |name: &str| matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let allowed = &judged.admission.settings.allowed_devices;
    let is = |row: &String, name: &str| row.strip_suffix('*').map_or(row == name, |group| name.starts_with(group));
    // Ours as well: `guard` leaves resources aside.
    for listed in everybody(judged.spec) {
        let resources = listed.container.and_then(|c| c.resources.as_ref());
        for (member, quantities) in
            [("limits", resources.and_then(|r| r.limits.as_ref())), ("requests", resources.and_then(|r| r.requests.as_ref()))]
        {
            let names = quantities.into_iter().flat_map(|q| q.keys());
            for name in names.filter(|name| !plain(name) && !allowed.iter().any(|row| is(row, name))) {
                let message = "may be a device that reaches a network past the guard; take it out, or have the administrator allow it (guard.allowedDevices in Remit's chart)";
                errors.push(error(format!("{}.resources.{member}[{name}]", listed.path), message));
            }
        }
    }
    for claim in judged.spec.resource_claims.iter().flatten() {
        let path = format!("spec.resourceClaims[name={}]", claim.name);
        errors.push(error(path, "may be a device that reaches a network past the guard; take it out"));
    }
}

pub(super) fn ephemeral_containers(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    for container in judged.spec.ephemeral_containers.iter().flatten() {
        errors.push(super::update::ephemeral(&container.name));
    }
}

/// Older spellings of fields, and other networks. Each row: a key or, with `/*`, a group of keys; the bad value, if not every one is; why.
const ANNOTATIONS: [(&str, Option<&str>, &str); 5] = [
    ("container.apparmor.security.beta.kubernetes.io/*", Some("unconfined"), "takes the runtime's confinement away"),
    ("seccomp.security.alpha.kubernetes.io/pod", Some("unconfined"), "leaves every system call open"),
    ("container.seccomp.security.alpha.kubernetes.io/*", Some("unconfined"), "leaves every system call open"),
    ("k8s.v1.cni.cncf.io/networks", None, "joins a network that no NetworkPolicy holds"),
    ("v1.multus-cni.io/default-network", None, "joins a network that no NetworkPolicy holds"),
];

pub(super) fn annotations(judged: &Judged<'_>, errors: &mut Vec<FieldError>) {
    added_annotations(None, judged.metadata, errors);
}

/// Those that are not as they were. A pod that waits (schedulingGates) has no network yet.
pub(super) fn added_annotations(before: Option<&ObjectMeta>, after: &ObjectMeta, errors: &mut Vec<FieldError>) {
    let before = before.and_then(|m| m.annotations.as_ref());
    for (key, value) in after.annotations.iter().flatten().filter(|(key, value)| before.and_then(|b| b.get(*key)) != Some(value)) {
        let is = |row: &str| row.strip_suffix('*').map_or(row == key, |group| key.starts_with(group));
        let row = ANNOTATIONS.iter().find(|(row, bad, _)| is(row) && bad.is_none_or(|bad| bad == value));
        if let Some((_, _, why)) = row {
            errors.push(error(format!("metadata.annotations[{key}]"), format!("{why}; take it out")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ANNOTATIONS;

    /// A change of annotations alone is asked about only where the chart says so.
    #[test]
    fn the_webhook_is_asked_about_each() {
        let chart = include_str!("../../../charts/remit/templates/pods.yaml");
        for (row, _, _) in ANNOTATIONS {
            let expected = row.strip_suffix('*').map_or(format!("'{row}'"), |group| format!("startsWith('{group}')"));
            assert!(chart.contains(&expected), "{expected}");
        }
    }
}
