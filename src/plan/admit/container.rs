//! What one container brings: powers, ports of the node, and what the kubelet is to do for it.

use k8s_openapi::api::core::v1::{HTTPGetAction, TCPSocketAction};

use super::{Judged, Listed, Subject, error};
use crate::plan::FieldError;

pub(super) fn privileged(_: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    if listed.security.is_some_and(|s| s.privileged == Some(true)) {
        errors.push(error(format!("{}.securityContext.privileged", listed.path), "a privileged container owns the node; leave it out"));
    }
}

/// Any: NET_ADMIN undoes the redirect, SETUID becomes the guard, and the list of Linux grows.
pub(super) fn added_capabilities(_: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    let added: Vec<&str> =
        listed.security.iter().flat_map(|s| &s.capabilities).flat_map(|c| c.add.iter().flatten()).map(String::as_str).collect();
    if !added.is_empty() {
        let message = format!("{} could lead round the guard; take it out (runtimes let anyone listen below port 1024)", added.join(", "));
        errors.push(error(format!("{}.securityContext.capabilities.add", listed.path), message));
    }
}

pub(super) fn kept_capabilities(judged: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    let mut dropped = listed.security.iter().flat_map(|s| &s.capabilities).flat_map(|c| c.drop.iter().flatten());
    if judged.subject == Subject::Pod && !dropped.any(|c| c == "ALL") {
        let message = "those that a runtime gives by default let root become the guard's user; drop [ALL]";
        errors.push(error(format!("{}.securityContext.capabilities.drop", listed.path), message));
    }
}

pub(super) fn escalation(judged: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    let bad = match listed.security.and_then(|s| s.allow_privilege_escalation) {
        Some(allowed) => allowed,
        None => judged.subject == Subject::Pod,
    };
    if bad {
        let message = "a program of the image could gain another user's rights; set false";
        errors.push(error(format!("{}.securityContext.allowPrivilegeEscalation", listed.path), message));
    }
}

pub(super) fn proc_mount(_: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    let mount = listed.security.and_then(|s| s.proc_mount.as_deref()).unwrap_or("Default");
    if mount != "Default" {
        let message = format!("{mount} shows parts of /proc that change the kernel; leave it out");
        errors.push(error(format!("{}.securityContext.procMount", listed.path), message));
    }
}

/// Some profile holds it, its own or the pod's.
pub(super) fn filtered(judged: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    let own = listed.security.is_some_and(|s| s.seccomp_profile.is_some());
    let of_pod = judged.spec.security_context.as_ref().is_some_and(|s| s.seccomp_profile.is_some());
    if judged.subject == Subject::Pod && !own && !of_pod {
        let message = "without one every system call is open; set type RuntimeDefault";
        errors.push(error(format!("{}.securityContext.seccompProfile", listed.path), message));
    }
}

pub(super) fn host_ports(_: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    for port in listed.container.iter().flat_map(|c| c.ports.iter().flatten()) {
        if port.host_port.unwrap_or_default() != 0 {
            let path = format!("{}.ports[containerPort={}].hostPort", listed.path, port.container_port);
            errors.push(error(path, "opens the pod to whoever reaches the node, past the declared clients; use a Service"));
        }
    }
}

/// The kubelet asks from the node, which no policy and no guard holds.
pub(super) fn probed_hosts(_: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    let Some(container) = listed.container else { return };
    let lifecycle = container.lifecycle.as_ref();
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    let handlers = [
        ("lifecycle.postStart", lifecycle.and_then(|l| l.post_start.as_ref())),
        ("lifecycle.preStop", lifecycle.and_then(|l| l.pre_stop.as_ref())),
    ];
    let probes = probes.into_iter().filter_map(|(name, p)| p.as_ref().map(|p| (name, p.http_get.as_ref(), p.tcp_socket.as_ref())));
    let handlers = handlers.into_iter().filter_map(|(name, h)| h.map(|h| (name, h.http_get.as_ref(), h.tcp_socket.as_ref())));
    for (name, http, tcp) in probes.chain(handlers) {
        let hosts = [
            ("httpGet", http.and_then(|h: &HTTPGetAction| h.host.as_deref())),
            ("tcpSocket", tcp.and_then(|t: &TCPSocketAction| t.host.as_deref())),
        ];
        for (action, _) in hosts.iter().filter(|(_, host)| host.is_some_and(|h| !h.is_empty())) {
            let path = format!("{}.{name}.{action}.host", listed.path);
            errors.push(error(path, "the node would connect wherever it says; leave it out, then it is the pod itself"));
        }
    }
}

/// The guard's ids stand in the pod as soon as it is stored, and the kubelet pulls later: whoever can push what it pulls could give it these.
/// Where the pod names the user the image cannot, and what a digest names was made before.
pub(super) fn users_known(judged: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    // An ephemeral container comes after the ids: `update` has its rule.
    let Some(container) = listed.container else { return };
    let of_pod = judged.spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let named = listed.security.and_then(|s| s.run_as_user).or(of_pod).is_some();
    if !named && !container.image.as_deref().is_some_and(by_digest) {
        let message = "name the user, or pull the image by digest (…@sha256:…): an image that is pushed once the pod is there could bear the guard's user, which everybody can read in it";
        errors.push(error(format!("{}.securityContext.runAsUser", listed.path), message));
    }
}

fn by_digest(image: &str) -> bool {
    let digest = image.rsplit_once("@sha256:").map_or("", |(_, digest)| digest);
    digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Variables come from what is declared (`volume::undeclared`), from the pod, or stand there.
pub(super) fn variables(_: &Judged<'_>, listed: &Listed<'_>, errors: &mut Vec<FieldError>) {
    for variable in listed.container.iter().flat_map(|c| c.env.iter().flatten()) {
        let Some(from) = &variable.value_from else { continue };
        let known = from.field_ref.is_some()
            || from.resource_field_ref.is_some()
            || from.config_map_key_ref.is_some()
            || from.secret_key_ref.is_some();
        if !known {
            let path = format!("{}.env[name={}].valueFrom", listed.path, variable.name);
            errors.push(error(path, "comes from where this version of Remit does not look; use a declared ConfigMap or Secret"));
        }
    }
}
