//! A pod, a pod template or a change of a pod → everything that speaks against it.
//!
//! Promise: empty means admitted; all that is wrong is said at once, each with the path of its field, the rule and the remedy. In: the pod
//! (after [`inject`](super::inject())), the scope of the AIWorkload that selects it, the guard's settings. Out: errors. Whether they refuse (Enforce)
//! or warn (Observe) is the caller's.
//!
//! One function is one rule; the lists below name them all. What no rule names is allowed; volumes and variables are judged the other way
//! round: what no rule knows is refused. Left alone on purpose:
//! - `nodeName`, tolerations, priorities, scheduler: where a pod runs does not change what it may reach.
//! - `dnsPolicy`, `dnsConfig`, `hostAliases`: the guard answers DNS itself and asks the servers that its policy names; an address is known
//!   to it only by what it resolved itself. They lead the app to nothing.
//! - `runtimeClassName`: where the redirect cannot be set up, the pod does not start.
//! - `imagePullSecrets` and image volumes: the kubelet reads them, as it does for the app's own image.
//!
//! Paths begin at `spec` or `metadata` of the pod; for a template its owner's path stands before them (`spec.template.`).
//!
//! A field of a Kubernetes newer than the types cannot be seen here.
//!
//! `advice` is said, and refuses nothing. `guard` ours are in place; `pod`, `container`, `context` (security contexts of both) and `volume` what others bring; `update` changes.

mod advice;
mod container;
mod context;
#[cfg(test)]
pub(super) mod fixture;
mod guard;
mod pod;
mod update;
mod volume;

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::context::Context;
use super::FieldError;
use super::inject::GuardSettings;
use crate::policy::pod::{GUARD_CONTAINER, REDIRECT_CONTAINER};
use crate::scope::Scope;

pub use self::advice::advice;
pub use self::guard::guarded_for;
pub use self::update::{admit_ours, admit_update};

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// As it will be stored: injected.
    Pod,
    /// Not injected yet, so what injection adds may be absent.
    Template,
}

/// What it is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    /// Of the AIWorkload that selects the pod.
    pub scope: &'a Scope,
    pub workload_uid: &'a str,
    pub settings: &'a GuardSettings,
    pub debugging: Debugging,
}

/// Whether an exception for debugging lasts ([`crate::plan::BreakGlass`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debugging {
    Refused,
    Allowed,
}

/// Everything that speaks against a pod that an AIWorkload selects.
pub fn admit(metadata: &ObjectMeta, spec: &PodSpec, subject: Subject, admission: &Admission<'_>) -> Vec<FieldError> {
    let judged = Judged { metadata, spec, subject, admission };
    let mut errors = Vec::new();
    for rule in POD_RULES {
        rule(&judged, &mut errors);
    }
    for container in others(spec) {
        for rule in CONTAINER_RULES {
            rule(&judged, &container, &mut errors);
        }
    }
    for context in std::iter::once(Context::of_pod(spec)).chain(others(spec).iter().map(Listed::context)) {
        for rule in CONTEXT_RULES {
            rule(&context, &mut errors);
        }
    }
    errors
}

/// What speaks against a pod that no AIWorkload selects: posing as a guard, or as its user.
pub fn admit_unscoped(spec: &PodSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    guard::names_unused(spec, &mut errors);
    for context in std::iter::once(Context::of_pod(spec)).chain(everybody(spec).iter().map(Listed::context)) {
        context::reserved_ids(&context, &mut errors);
    }
    errors
}

struct Judged<'a> {
    metadata: &'a ObjectMeta,
    spec: &'a PodSpec,
    subject: Subject,
    admission: &'a Admission<'a>,
}

const POD_RULES: &[fn(&Judged<'_>, &mut Vec<FieldError>)] = &[
    guard::in_place,
    guard::no_other_of_our_names,
    guard::volumes_in_place,
    guard::volumes_of_the_guard_only,
    pod::host_namespaces,
    pod::user_namespace,
    pod::processes,
    pod::sysctls,
    pod::operating_system,
    pod::account,
    pod::devices,
    pod::ephemeral_containers,
    pod::annotations,
    volume::kinds,
    volume::projections,
    volume::undeclared,
    volume::claims,
    volume::tokens,
];

const CONTAINER_RULES: &[fn(&Judged<'_>, &Listed<'_>, &mut Vec<FieldError>)] = &[
    container::privileged,
    container::added_capabilities,
    container::kept_capabilities,
    container::escalation,
    container::proc_mount,
    container::filtered,
    container::host_ports,
    container::probed_hosts,
    container::variables,
    container::users_known,
];

const CONTEXT_RULES: &[fn(&Context<'_>, &mut Vec<FieldError>)] =
    &[context::reserved_ids, context::seccomp, context::app_armor, context::se_linux, context::windows];

/// A container and where it stands. (Ephemeral ones have a type of their own: only what is common is kept.)
struct Listed<'a> {
    path: String,
    init: bool,
    name: &'a str,
    security: Option<&'a SecurityContext>,
    container: Option<&'a Container>,
}

impl<'a> Listed<'a> {
    fn context(&self) -> Context<'a> {
        Context::of_container(format!("{}.securityContext", self.path), self.security)
    }
}

/// Every container of every list.
fn everybody(spec: &PodSpec) -> Vec<Listed<'_>> {
    let regular = [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)];
    let mut all = Vec::new();
    for (list, containers) in regular {
        for c in containers {
            let path = format!("spec.{list}[name={}]", c.name);
            let security = c.security_context.as_ref();
            all.push(Listed { path, init: list == "initContainers", name: &c.name, security, container: Some(c) });
        }
    }
    for c in spec.ephemeral_containers.iter().flatten() {
        let path = format!("spec.ephemeralContainers[name={}]", c.name);
        all.push(Listed { path, init: false, name: &c.name, security: c.security_context.as_ref(), container: None });
    }
    all
}

/// All but our two init containers, which `guard` compares as a whole. A name of ours elsewhere exempts nobody.
fn others(spec: &PodSpec) -> Vec<Listed<'_>> {
    let mut all = everybody(spec);
    all.retain(|c| !(c.init && is_ours(c.name)));
    all
}

fn is_ours(name: &str) -> bool {
    name == REDIRECT_CONTAINER || name == GUARD_CONTAINER
}

fn error(path: impl Into<String>, message: impl Into<String>) -> FieldError {
    FieldError { path: path.into(), message: message.into() }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::fixture::{
        BASE_URLS, GID, IMAGE, INSPECTED, KUBERNETES, SPEC, UID, WORKLOAD_UID, any_good_pod, bot, example, injected, pod, put, scope,
        settings, token_volume,
    };
    use super::*;
    use crate::plan::fixture;

    fn judge(pod: &Pod, subject: Subject, scope: &Scope) -> Vec<String> {
        let admission = Admission { scope, workload_uid: WORKLOAD_UID, settings: &settings(), debugging: Debugging::Refused };
        let errors = admit(&pod.metadata, pod.spec.as_ref().unwrap(), subject, &admission);
        errors.iter().map(ToString::to_string).collect()
    }

    /// The template of the bot: what the API server adds to pods is not in it.
    fn template() -> Value {
        let mut value = bot();
        let spec = &mut value["spec"];
        spec["volumes"].as_array_mut().unwrap().pop();
        spec["containers"][0]["volumeMounts"].as_array_mut().unwrap().pop();
        value
    }

    fn stored() -> Value {
        serde_json::to_value(injected(&pod(bot()), &scope())).unwrap()
    }

    #[test]
    fn the_example_passes() {
        let example = example();
        assert_eq!(judge(&injected(&pod(bot()), &example), Subject::Pod, &example), Vec::<String>::new());
        assert_eq!(judge(&pod(template()), Subject::Template, &example), Vec::<String>::new());
        assert_eq!(judge(&pod(stored()), Subject::Template, &scope()), Vec::<String>::new(), "a template made from a pod");
    }

    proptest! {
        #[test]
        fn what_was_injected_passes(pod in any_good_pod(), kubernetes in any::<bool>(), http in any::<bool>(), inspected in any::<bool>()) {
            let more = |holds: bool, more: &'static str| if holds { more } else { "" };
            let (kubernetes, http, inspected) = (more(kubernetes, KUBERNETES), more(http, BASE_URLS), more(inspected, INSPECTED));
            let scope = fixture::scope(&format!("{SPEC}{kubernetes}{http}{inspected}"));
            prop_assert_eq!(judge(&injected(&pod, &scope), Subject::Pod, &scope), Vec::<String>::new());
        }
    }

    /// Each case: where, what is put there, the path of the error, words of its message. True in a pod and in a template.
    #[test]
    fn refused_in_pods_and_templates() {
        let bot = "/spec/containers/0";
        let context = |field: &str| format!("/spec/containers/0/securityContext/{field}");
        let volume = |source: Value| {
            let mut volume = json!({"name": "x"});
            volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            ("/spec/volumes/-".to_owned(), volume)
        };
        let projected = |source: Value| volume(json!({"projected": {"sources": [source]}}));
        let cases: Vec<((String, Value), &str, &str)> = vec![
            (("/spec/hostNetwork".into(), json!(true)), "spec.hostNetwork", "host's network; leave it out"),
            (("/spec/hostPID".into(), json!(true)), "spec.hostPID", "could be seen"),
            (("/spec/hostIPC".into(), json!(true)), "spec.hostIPC", "memory"),
            (("/spec/hostUsers".into(), json!(false)), "spec.hostUsers", "up to 65535 only"),
            (("/spec/shareProcessNamespace".into(), json!(true)), "spec.shareProcessNamespace", "traced"),
            (
                ("/spec/securityContext/sysctls".into(), json!([{"name": "net.ipv4.ping_group_range", "value": "0 1"}])),
                "spec.securityContext.sysctls[name=net.ipv4.ping_group_range]",
                "the redirect rests",
            ),
            (("/spec/os".into(), json!({"name": "windows"})), "spec.os.name", "for linux only"),
            (
                ("/spec/serviceAccountName".into(), json!("admin")),
                "spec.serviceAccountName",
                "AIWorkload `support-bot` runs as `support-bot`, not as `admin`; leave it out",
            ),
            (("/spec/resourceClaims".into(), json!([{"name": "nic"}])), "spec.resourceClaims[name=nic]", "device"),
            (
                ("/spec/ephemeralContainers".into(), json!([{"name": "debugger", "image": "x"}])),
                "spec.ephemeralContainers[name=debugger]",
                "kubectl remit break-glass",
            ),
            (
                ("/metadata/annotations".into(), json!({"container.apparmor.security.beta.kubernetes.io/bot": "unconfined"})),
                "metadata.annotations[container.apparmor.security.beta.kubernetes.io/bot]",
                "confinement",
            ),
            (
                ("/metadata/annotations".into(), json!({"seccomp.security.alpha.kubernetes.io/pod": "unconfined"})),
                "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]",
                "system call",
            ),
            (
                ("/metadata/annotations".into(), json!({"container.seccomp.security.alpha.kubernetes.io/bot": "unconfined"})),
                "metadata.annotations[container.seccomp.security.alpha.kubernetes.io/bot]",
                "system call",
            ),
            (
                ("/metadata/annotations".into(), json!({"k8s.v1.cni.cncf.io/networks": "storage"})),
                "metadata.annotations[k8s.v1.cni.cncf.io/networks]",
                "no NetworkPolicy",
            ),
            (
                ("/metadata/annotations".into(), json!({"v1.multus-cni.io/default-network": "x"})),
                "metadata.annotations[v1.multus-cni.io/default-network]",
                "no NetworkPolicy",
            ),
            // Security contexts, of the pod and of a container.
            (("/spec/securityContext/runAsUser".into(), json!(UID)), "spec.securityContext.runAsUser", "2000000000 to 2099999999"),
            (("/spec/securityContext/runAsGroup".into(), json!(2_099_999_999)), "spec.securityContext.runAsGroup", "kept for guards"),
            (("/spec/securityContext/fsGroup".into(), json!(2_000_000_000)), "spec.securityContext.fsGroup", "kept for guards"),
            (
                ("/spec/securityContext/supplementalGroups".into(), json!([7, GID])),
                "spec.securityContext.supplementalGroups",
                "choose an id below",
            ),
            ((context("runAsUser"), json!(UID)), "spec.containers[name=bot].securityContext.runAsUser", "kept for guards"),
            ((context("runAsGroup"), json!(GID)), "spec.containers[name=bot].securityContext.runAsGroup", "kept for guards"),
            (
                ("/spec/securityContext/seccompProfile".into(), json!({"type": "Unconfined"})),
                "spec.securityContext.seccompProfile.type",
                "set RuntimeDefault",
            ),
            (
                (context("seccompProfile"), json!({"type": "Unconfined"})),
                "spec.containers[name=bot].securityContext.seccompProfile.type",
                "set RuntimeDefault",
            ),
            (
                ("/spec/securityContext/appArmorProfile".into(), json!({"type": "Unconfined"})),
                "spec.securityContext.appArmorProfile.type",
                "confinement",
            ),
            (
                (context("appArmorProfile"), json!({"type": "Unconfined"})),
                "spec.containers[name=bot].securityContext.appArmorProfile.type",
                "confinement",
            ),
            (
                ("/spec/securityContext/seLinuxOptions".into(), json!({"type": "spc_t"})),
                "spec.securityContext.seLinuxOptions.type",
                "leave it out",
            ),
            (
                (context("seLinuxOptions"), json!({"user": "system_u"})),
                "spec.containers[name=bot].securityContext.seLinuxOptions.user",
                "leave it out",
            ),
            (
                (context("seLinuxOptions"), json!({"role": "system_r"})),
                "spec.containers[name=bot].securityContext.seLinuxOptions.role",
                "leave it out",
            ),
            (("/spec/securityContext/windowsOptions".into(), json!({})), "spec.securityContext.windowsOptions", "Linux"),
            (
                (context("windowsOptions"), json!({"hostProcess": true})),
                "spec.containers[name=bot].securityContext.windowsOptions",
                "Linux",
            ),
            // One container.
            ((context("privileged"), json!(true)), "spec.containers[name=bot].securityContext.privileged", "owns the node"),
            (
                (context("capabilities"), json!({"drop": ["ALL"], "add": ["NET_ADMIN"]})),
                "spec.containers[name=bot].securityContext.capabilities.add",
                "NET_ADMIN could lead round",
            ),
            (
                (context("allowPrivilegeEscalation"), json!(true)),
                "spec.containers[name=bot].securityContext.allowPrivilegeEscalation",
                "set false",
            ),
            ((context("procMount"), json!("Unmasked")), "spec.containers[name=bot].securityContext.procMount", "Unmasked"),
            (
                (format!("{bot}/ports/0/hostPort"), json!(8080)),
                "spec.containers[name=bot].ports[containerPort=8080].hostPort",
                "use a Service",
            ),
            (
                (format!("{bot}/livenessProbe"), json!({"httpGet": {"host": "169.254.169.254", "port": 80}})),
                "spec.containers[name=bot].livenessProbe.httpGet.host",
                "the node would connect",
            ),
            (
                (format!("{bot}/readinessProbe"), json!({"tcpSocket": {"host": "127.0.0.1", "port": 10250}})),
                "spec.containers[name=bot].readinessProbe.tcpSocket.host",
                "the node would connect",
            ),
            (
                (format!("{bot}/startupProbe"), json!({"httpGet": {"host": "a.example.com", "port": 80}})),
                "spec.containers[name=bot].startupProbe.httpGet.host",
                "the node would connect",
            ),
            (
                (format!("{bot}/lifecycle/postStart"), json!({"httpGet": {"host": "127.0.0.1", "port": 80}})),
                "spec.containers[name=bot].lifecycle.postStart.httpGet.host",
                "the node would connect",
            ),
            (
                (format!("{bot}/lifecycle/preStop"), json!({"tcpSocket": {"host": "127.0.0.1", "port": 80}})),
                "spec.containers[name=bot].lifecycle.preStop.tcpSocket.host",
                "the node would connect",
            ),
            (
                (format!("{bot}/env/-"), json!({"name": "NEW", "valueFrom": {"fileKeyRef": {"key": "k", "volumeName": "x", "path": "p"}}})),
                "spec.containers[name=bot].env[name=NEW].valueFrom",
                "does not look",
            ),
            // What is read and mounted.
            (volume(json!({"hostPath": {"path": "/"}})), "spec.volumes[name=x].hostPath", "the node's own disk"),
            (volume(json!({"csi": {"driver": "secrets-store.csi.k8s.io"}})), "spec.volumes[name=x]", "nothing was declared"),
            (volume(json!({"nfs": {"server": "10.0.0.1", "path": "/"}})), "spec.volumes[name=x]", "nothing was declared"),
            (
                volume(
                    json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "y"}}}}}),
                ),
                "spec.volumes[name=x]",
                "declare a PersistentVolumeClaim",
            ),
            (volume(json!({"ofTomorrow": {}})), "spec.volumes[name=x]", "nothing was declared"),
            (projected(json!({"podCertificate": {}})), "spec.volumes[name=x].projected.sources[0]", "does not know"),
            (
                volume(json!({"configMap": {"name": "other"}})),
                "spec.volumes[name=x].configMap.name",
                "ConfigMap `other` is not declared; add {type: ConfigMap, configMap: {name: other}} to dataSources of AIWorkload `support-bot`",
            ),
            (
                volume(json!({"secret": {"secretName": "other"}})),
                "spec.volumes[name=x].secret.secretName",
                "Secret `other` is not declared; add {type: Secret, secret: {name: other}}",
            ),
            // Declared, but of the other kind.
            (volume(json!({"secret": {"secretName": "support-prompts"}})), "spec.volumes[name=x].secret.secretName", "not declared"),
            (volume(json!({"secret": {"secretName": "kube-root-ca.crt"}})), "spec.volumes[name=x].secret.secretName", "not declared"),
            (
                projected(json!({"configMap": {"name": "other"}})),
                "spec.volumes[name=x].projected.sources[0].configMap.name",
                "not declared",
            ),
            (projected(json!({"secret": {"name": "other"}})), "spec.volumes[name=x].projected.sources[0].secret.name", "not declared"),
            (
                (format!("{bot}/env/-"), json!({"name": "K", "valueFrom": {"configMapKeyRef": {"name": "other", "key": "k"}}})),
                "spec.containers[name=bot].env[name=K].valueFrom.configMapKeyRef.name",
                "not declared",
            ),
            (
                (format!("{bot}/env/-"), json!({"name": "K", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}})),
                "spec.containers[name=bot].env[name=K].valueFrom.secretKeyRef.name",
                "not declared",
            ),
            (
                (format!("{bot}/envFrom"), json!([{"configMapRef": {"name": "other"}}])),
                "spec.containers[name=bot].envFrom[0].configMapRef.name",
                "not declared",
            ),
            (
                (format!("{bot}/envFrom"), json!([{"secretRef": {"name": "other"}}])),
                "spec.containers[name=bot].envFrom[0].secretRef.name",
                "not declared",
            ),
            (
                volume(json!({"persistentVolumeClaim": {"claimName": "other"}})),
                "spec.volumes[name=x].persistentVolumeClaim.claimName",
                "PersistentVolumeClaim `other` is not declared",
            ),
            (
                projected(json!({"serviceAccountToken": {"path": "t"}})),
                "spec.volumes[name=x].projected.sources[0].serviceAccountToken",
                "declare a source of type Kubernetes",
            ),
            (
                projected(json!({"serviceAccountToken": {"path": "t", "audience": "remit.dev"}})),
                "spec.volumes[name=x].projected.sources[0].serviceAccountToken",
                "for guards alone",
            ),
            (
                projected(json!({"serviceAccountToken": {"path": "t", "audience": "vault"}})),
                "spec.volumes[name=x].projected.sources[0].serviceAccountToken",
                "identity.serviceAccountName",
            ),
            // Ours.
            (
                (format!("{bot}/volumeMounts/-"), json!({"name": "remit-policy", "mountPath": "/x", "subPath": "policy.note"})),
                "spec.containers[name=bot].volumeMounts[name=remit-policy]",
                "the guard's own volume",
            ),
            ((format!("{bot}/name"), json!("remit-guard")), "spec.containers[name=remit-guard]", "bears the name"),
        ];
        for ((at, value), path, words) in cases {
            for (subject, mut object) in [(Subject::Pod, stored()), (Subject::Template, template())] {
                put(&mut object, &at, value.clone());
                expect(&judge(&pod(object), subject, &scope()), path, words, &format!("{subject:?} {at} {value}"));
            }
        }
    }

    /// What injection put in must still be there.
    #[test]
    fn refused_in_pods_only() {
        let guard = "/spec/initContainers/1";
        let context = "/spec/containers/0/securityContext";
        let cases: Vec<(String, Value, &str, &str)> = vec![
            ("/spec/initContainers".into(), json!([]), "spec.initContainers[name=remit-redirect]", "nothing leads to the guard"),
            (
                "/spec/initContainers/0/args".into(),
                json!(["redirect", "--uid=1000", "--gid=1000"]),
                "spec.initContainers[name=remit-redirect]",
                "leave it out",
            ),
            (format!("{guard}/name"), json!("other"), "spec.initContainers[name=remit-guard]", "number 2"),
            (format!("{guard}/image"), json!("evil"), "spec.initContainers[name=remit-guard].image", "not as Remit injected it"),
            (format!("{guard}/command"), json!(["sleep"]), "spec.initContainers[name=remit-guard].command", "not as Remit"),
            (format!("{guard}/env"), json!([{"name": "LD_PRELOAD"}]), "spec.initContainers[name=remit-guard].env", "not as Remit"),
            (
                format!("{guard}/args/2"),
                json!("--workload=support/support-bot/uid-2"),
                "spec.initContainers[name=remit-guard].args",
                "not as Remit",
            ),
            (format!("{guard}/imagePullPolicy"), json!("Never"), "spec.initContainers[name=remit-guard].imagePullPolicy", "not as Remit"),
            (
                format!("{guard}/volumeMounts/-"),
                json!({"name": "prompts", "mountPath": "/x"}),
                "spec.initContainers[name=remit-guard].volumeMounts",
                "not as Remit",
            ),
            // Not the token volume of the API server, but a directory to share with the app.
            (
                format!("{guard}/volumeMounts/-"),
                json!({"name": "prompts", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}),
                "spec.initContainers[name=remit-guard].volumeMounts",
                "not as Remit",
            ),
            (
                format!("{guard}/securityContext/runAsUser"),
                json!(2_000_000_009),
                "spec.initContainers[name=remit-guard].securityContext",
                "not as Remit",
            ),
            (
                "/spec/initContainers/0/securityContext/capabilities/add".into(),
                json!(["SYS_ADMIN"]),
                "spec.initContainers[name=remit-redirect].securityContext",
                "not as Remit",
            ),
            (
                "/spec/volumes/0".into(),
                json!({"name": "remit-policy", "emptyDir": {}}),
                "spec.volumes[name=remit-policy]",
                "not the policy",
            ),
            (
                "/spec/volumes/0/configMap/name".into(),
                json!("remit-another"),
                "spec.volumes[name=remit-policy]",
                "policy of AIWorkload `support-bot`",
            ),
            ("/spec/serviceAccountName".into(), json!("default"), "spec.serviceAccountName", "not as `default`"),
            (
                "/spec/volumes/-".into(),
                token_volume(),
                "spec.volumes[name=kube-api-access-x7k2p].projected.sources[0].serviceAccountToken",
                "take it out",
            ),
            (format!("{context}/capabilities"), json!({}), "spec.containers[name=bot].securityContext.capabilities.drop", "drop [ALL]"),
            (
                format!("{context}/allowPrivilegeEscalation"),
                Value::Null,
                "spec.containers[name=bot].securityContext.allowPrivilegeEscalation",
                "set false",
            ),
            (
                "/spec/securityContext".into(),
                json!({}),
                "spec.containers[name=bot].securityContext.seccompProfile",
                "set type RuntimeDefault",
            ),
        ];
        for (at, value, path, words) in cases {
            let mut object = stored();
            put(&mut object, &at, value.clone());
            expect(&judge(&pod(object), Subject::Pod, &scope()), path, words, &format!("{at} {value}"));
        }
    }

    /// Whom the app trusts it never writes, and the authority's key it never sees.
    #[test]
    fn volumes_of_a_guard_that_looks_into_tls() {
        let scope = fixture::scope(&format!("{SPEC}{INSPECTED}"));
        let stored = || serde_json::to_value(injected(&pod(bot()), &scope)).unwrap();
        let trust = |more: Value| {
            let mut mount = json!({"name": "remit-trust", "mountPath": "/x"});
            mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            mount
        };
        let (bot_mounts, ca) = ("/spec/containers/0/volumeMounts/-", json!({"name": "remit-ca", "mountPath": "/x", "readOnly": true}));
        let container = |mount: Value| json!({"name": "setup", "image": IMAGE, "volumeMounts": [mount], "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
        assert_eq!(judge(&pod(stored()), Subject::Pod, &scope), Vec::<String>::new());
        let last = stored()["spec"]["containers"][0]["volumeMounts"].as_array().unwrap().len() - 1;
        let injected_mount = format!("/spec/containers/0/volumeMounts/{last}/readOnly");
        let cases: Vec<(&str, Value, &str, &str)> = vec![
            (&injected_mount, json!(false), "spec.containers[name=bot].volumeMounts[name=remit-trust]", "readOnly: true"),
            (&injected_mount, Value::Null, "spec.containers[name=bot].volumeMounts[name=remit-trust]", "the guard alone writes it"),
            (bot_mounts, trust(json!({})), "spec.containers[name=bot].volumeMounts[name=remit-trust]", "readOnly: true"),
            (bot_mounts, trust(json!({"subPath": "ca.pem"})), "spec.containers[name=bot].volumeMounts[name=remit-trust]", "readOnly: true"),
            (bot_mounts, ca.clone(), "spec.containers[name=bot].volumeMounts[name=remit-ca]", "the guard's own volume"),
            ("/spec/initContainers/-", container(ca), "spec.initContainers[name=setup].volumeMounts[name=remit-ca]", "the guard's own"),
            (
                "/spec/initContainers/-",
                container(trust(json!({}))),
                "spec.initContainers[name=setup].volumeMounts[name=remit-trust]",
                "readOnly",
            ),
            (
                "/spec/containers/0/volumeDevices",
                json!([{"name": "remit-ca", "devicePath": "/dev/x"}]),
                "spec.containers[name=bot].volumeDevices[name=remit-ca]",
                "the guard's own",
            ),
            (
                "/spec/volumes/1",
                json!({"name": "remit-trust", "configMap": {"name": "support-prompts"}}),
                "spec.volumes[name=remit-trust]",
                "not as Remit injected it",
            ),
            (
                "/spec/volumes/2",
                json!({"name": "remit-ca", "persistentVolumeClaim": {"claimName": "support-store"}}),
                "spec.volumes[name=remit-ca]",
                "not as Remit injected it",
            ),
            ("/spec/volumes/2/emptyDir", json!({}), "spec.volumes[name=remit-ca]", "not as Remit injected it"),
            (
                "/spec/initContainers/1/args/3",
                json!("--trust-store=/tmp"),
                "spec.initContainers[name=remit-guard].args",
                "not as Remit injected it",
            ),
            (
                "/spec/initContainers/1/args/4",
                json!("--ca=/var/run/remit/trust"),
                "spec.initContainers[name=remit-guard].args",
                "not as Remit injected it",
            ),
            (
                "/spec/initContainers/1/volumeMounts/2/mountPath",
                json!("/x"),
                "spec.initContainers[name=remit-guard].volumeMounts",
                "not as Remit injected it",
            ),
            // Without the arguments the volumes are nobody's.
            (
                "/spec/initContainers/1/args",
                json!(["run", "--trust=remit-policy+00000000+key", "--workload=support/support-bot/uid-1"]),
                "spec.volumes[name=remit-ca]",
                "not as Remit injected it",
            ),
        ];
        for (at, value, path, words) in cases {
            let mut object = stored();
            put(&mut object, at, value.clone());
            expect(&judge(&pod(object.clone()), Subject::Pod, &scope), path, words, &format!("{at} {value}"));
            assert_eq!(guarded_for(pod(object).spec.as_ref().unwrap(), &settings()), None, "{at} {value}: no guard of ours");
        }
        let mut object = stored();
        put(&mut object, bot_mounts, trust(json!({"readOnly": true})));
        put(&mut object, "/spec/initContainers/-", container(trust(json!({"readOnly": true}))));
        assert_eq!(judge(&pod(object.clone()), Subject::Pod, &scope), Vec::<String>::new(), "reading it is free");
        assert!(guarded_for(pod(object).spec.as_ref().unwrap(), &settings()).is_some());
        // The other form passes as well, whole: the scope may have changed a moment ago.
        let plain = super::fixture::scope();
        assert_eq!(judge(&pod(stored()), Subject::Pod, &plain), Vec::<String>::new());
        assert_eq!(judge(&injected(&pod(bot()), &plain), Subject::Pod, &scope), Vec::<String>::new());
        // Where nothing is looked into, the names are Remit's all the same.
        for name in ["remit-trust", "remit-ca"] {
            let mut object = serde_json::to_value(injected(&pod(bot()), &plain)).unwrap();
            put(&mut object, "/spec/volumes/-", json!({"name": name, "emptyDir": {"medium": "Memory"}}));
            expect(&judge(&pod(object), Subject::Pod, &plain), &format!("spec.volumes[name={name}]"), "not as Remit injected it", name);
        }
    }

    #[test]
    fn variables_that_the_pod_sets_are_only_spoken_of() {
        let scope = fixture::scope(&format!("{SPEC}{BASE_URLS}"));
        for (variable, said) in [
            (json!({"name": "HELP_URL", "value": "https://help.example.com"}), true),
            (json!({"name": "HELP_URL", "value": ""}), true),
            (json!({"name": "HELP_URL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}), true),
            (json!({"name": "HELP_URL", "value": "http://127.0.0.1:15474/help/v1"}), false),
            (json!({"name": "OTHER", "value": "https://help.example.com"}), false),
        ] {
            let mut object = bot();
            put(&mut object, "/spec/containers/0/env/-", variable.clone());
            let pod = injected(&pod(object), &scope);
            assert_eq!(judge(&pod, Subject::Pod, &scope), Vec::<String>::new());
            let words: Vec<String> = advice(pod.spec.as_ref().unwrap(), &scope).iter().map(ToString::to_string).collect();
            let expected = "spec.containers[name=bot].env[name=HELP_URL]: stays as the pod sets it, though AIWorkload `support-bot` declares it for the base URL http://127.0.0.1:15474/help; leave it out and Remit sets it";
            assert_eq!(words, if said { vec![expected] } else { vec![] }, "{variable}");
        }
    }

    /// A template need not hold ours; if it holds any, then all and as they are.
    #[test]
    fn ours_in_a_template() {
        let mut object = stored();
        put(&mut object, "/spec/initContainers/1/image", json!("evil"));
        expect(&judge(&pod(object), Subject::Template, &scope()), "spec.initContainers[name=remit-guard].image", "leave it out", "image");
        let mut object = template();
        put(&mut object, "/spec/initContainers", json!([{"name": "remit-guard", "image": "evil"}]));
        expect(
            &judge(&pod(object), Subject::Template, &scope()),
            "spec.initContainers[name=remit-redirect]",
            "leave it out",
            "no redirect",
        );
        let mut object = template();
        put(&mut object, "/spec/volumes/-", json!({"name": "remit-policy", "emptyDir": {}}));
        expect(&judge(&pod(object), Subject::Template, &scope()), "spec.volumes[name=remit-policy]", "leave it out", "volume");
    }

    /// A name of ours outside of the init containers exempts nobody.
    #[test]
    fn our_names_do_not_exempt() {
        let mut object = stored();
        put(&mut object, "/spec/containers/-", json!({"name": "remit-guard", "securityContext": {"privileged": true}}));
        let errors = judge(&pod(object), Subject::Pod, &scope());
        expect(&errors, "spec.containers[name=remit-guard].securityContext.privileged", "owns the node", "name");
    }

    #[test]
    fn another_before_ours() {
        let mut object = stored();
        let list = object["spec"]["initContainers"].as_array_mut().unwrap();
        list.insert(0, json!({"name": "istio-init", "image": "x", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}));
        let errors = judge(&pod(object), Subject::Pod, &scope());
        expect(&errors, "spec.initContainers[name=remit-redirect]", "number 1 of the init containers", "order");
        expect(&errors, "spec.initContainers[name=remit-guard]", "number 2 of the init containers", "order");
    }

    /// Init containers and sidecars of the app are judged like its containers.
    #[test]
    fn init_containers_of_others() {
        let mut object = stored();
        put(&mut object, "/spec/initContainers/-", json!({"name": "setup", "securityContext": {"privileged": true, "runAsUser": UID}}));
        let errors = judge(&pod(object), Subject::Pod, &scope());
        for (field, words) in [("privileged", "node"), ("runAsUser", "guards"), ("capabilities.drop", "ALL")] {
            expect(&errors, &format!("spec.initContainers[name=setup].securityContext.{field}"), words, field);
        }
    }

    /// What is pulled after the pod was stored must not choose the user: the pod names it, or the image is of before.
    #[test]
    fn an_image_bears_no_user_of_afterwards() {
        let short = IMAGE.strip_suffix('f').unwrap();
        let upper = format!("{short}F");
        for (of_pod, own, image, fine) in [
            (None, None, "bot:1", false),
            (None, None, "", false),
            (None, None, IMAGE, true),
            (None, None, short, false),
            (None, None, upper.as_str(), false),
            (None, None, "bot@sha512:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", false),
            (None, Some(1000), "bot:1", true),
            (Some(1000), None, "bot:1", true),
            (Some(1000), Some(0), "bot:1", true),
        ] {
            for at in ["containers", "initContainers"] {
                for (subject, mut object) in [(Subject::Pod, stored()), (Subject::Template, template())] {
                    let mut security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
                    if let Some(user) = own {
                        security["runAsUser"] = json!(user);
                    }
                    put(&mut object, &format!("/spec/{at}/-"), json!({"name": "x", "image": image, "securityContext": security}));
                    if let Some(user) = of_pod {
                        put(&mut object, "/spec/securityContext/runAsUser", json!(user));
                    }
                    let errors = judge(&pod(object), subject, &scope());
                    assert_eq!(errors.is_empty(), fine, "{subject:?} {of_pod:?} {own:?} {image}: {errors:?}");
                    if !fine {
                        expect(
                            &errors,
                            &format!("spec.{at}[name=x].securityContext.runAsUser"),
                            "name the user, or pull the image by digest",
                            image,
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn devices_that_may_reach_a_network() {
        for (name, fine) in [
            ("cpu", true),
            ("memory", true),
            ("ephemeral-storage", true),
            ("hugepages-2Mi", true),
            ("nvidia.com/gpu", true),
            ("gpu.intel.com/i915", true),
            ("nvidia.com/gpu-nic", false),
            ("rdma/hca_shared_devices_a", false),
            ("intel.com/sriov", false),
            ("deviceclass.resource.kubernetes.io/nic", false),
        ] {
            for (at, path) in [("containers/0", "spec.containers[name=bot]"), ("initContainers/1", "spec.initContainers[name=remit-guard]")]
            {
                for member in ["limits", "requests"] {
                    let mut object = stored();
                    put(&mut object, &format!("/spec/{at}/resources/{member}"), json!({name: "1"}));
                    let errors = judge(&pod(object), Subject::Pod, &scope());
                    assert_eq!(errors.is_empty(), fine, "{name}: {errors:?}");
                    if !fine {
                        expect(&errors, &format!("{path}.resources.{member}[{name}]"), "guard.allowedDevices", name);
                    }
                }
            }
        }
        let mut object = template();
        put(&mut object, "/spec/containers/0/resources/limits", json!({"rdma/hca": 1}));
        expect(
            &judge(&pod(object), Subject::Template, &scope()),
            "spec.containers[name=bot].resources.limits[rdma/hca]",
            "take it out",
            "",
        );
    }

    /// A claim that is declared for reading is mounted so, or not at all.
    #[test]
    fn claims_are_written_only_if_declared() {
        let files = |read_only: bool| json!({"name": "x", "persistentVolumeClaim": {"claimName": "support-files", "readOnly": read_only}});
        let store = json!({"name": "x", "persistentVolumeClaim": {"claimName": "support-store"}});
        let mount = |read_only: bool| ("volumeMounts", json!({"name": "x", "mountPath": "/x", "readOnly": read_only}));
        let device = ("volumeDevices", json!({"name": "x", "devicePath": "/dev/x"}));
        let cases = [
            (files(false), mount(false), false),
            (files(false), mount(true), true),
            (files(true), mount(false), true),
            (files(false), device.clone(), false),
            (files(true), device.clone(), true),
            (store.clone(), mount(false), true),
            (store, device, true),
        ];
        for (volume, (list, mount), fine) in cases {
            let mut object = stored();
            put(&mut object, "/spec/volumes/-", volume.clone());
            put(&mut object, &format!("/spec/containers/0/{list}"), json!([mount]));
            let errors = judge(&pod(object), Subject::Pod, &scope());
            assert_eq!(errors.is_empty(), fine, "{volume} {mount}: {errors:?}");
            if !fine {
                expect(&errors, "spec.volumes[name=x].persistentVolumeClaim.readOnly", "declare access: ReadWrite", "claim");
            }
        }
    }

    #[test]
    fn tokens_by_what_is_declared() {
        let kubernetes = fixture::scope(&format!("{SPEC}{KUBERNETES}"));
        let brought = fixture::scope(&format!("identity: {{serviceAccountName: cloud}}\n{SPEC}"));
        let cases = [
            (&kubernetes, "", true),
            (&kubernetes, "vault", false),
            (&brought, "vault", true),
            (&brought, "", false),
            (&brought, "remit.dev/guard", false),
            (&brought, "remit.dev", false),
            (&brought, "https://kubernetes.default.svc.cluster.local", false),
            (&brought, "https://kubernetes.default.svc", false),
            (&brought, "https://kubernetes.default.svc.example.org", false),
            (&brought, "kubernetes.default", false),
            (&brought, "kubernetes", false),
            (&brought, "https://vault.kubernetes.example.com", true),
            (&kubernetes, "https://kubernetes.default.svc", true),
        ];
        for (scope, audience, fine) in cases {
            let mut object = serde_json::to_value(injected(&pod(bot()), scope)).unwrap();
            let token = json!({"name": "x", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": audience}}]}});
            put(&mut object, "/spec/volumes/-", token);
            let errors = judge(&pod(object), Subject::Pod, scope);
            assert_eq!(errors.is_empty(), fine, "{audience:?} {errors:?}");
        }
    }

    /// What the API server, its plugins and autoscalers write into every container.
    #[test]
    fn what_others_may_write_into_ours() {
        let scope = fixture::scope(&format!("{SPEC}{KUBERNETES}"));
        let mut object = serde_json::to_value(injected(&pod(bot()), &scope)).unwrap();
        let token =
            json!({"name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
        for i in 0..2 {
            let ours = format!("/spec/initContainers/{i}");
            put(&mut object, &format!("{ours}/resources/limits/cpu"), json!("1"));
            put(&mut object, &format!("{ours}/resizePolicy"), json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}]));
            put(&mut object, &format!("{ours}/imagePullPolicy"), json!("Always"));
            if i == 0 {
                put(&mut object, &format!("{ours}/volumeMounts"), json!([token]));
            } else {
                put(&mut object, &format!("{ours}/volumeMounts/-"), token.clone());
            }
        }
        assert_eq!(judge(&pod(object), Subject::Pod, &scope), Vec::<String>::new());
    }

    #[test]
    fn unscoped_pods() {
        let unscoped =
            |value: Value| -> Vec<String> { admit_unscoped(pod(value).spec.as_ref().unwrap()).iter().map(ToString::to_string).collect() };
        assert_eq!(unscoped(bot()), Vec::<String>::new());
        let cases = [
            ("/spec/containers/0/securityContext/runAsUser", json!(UID), "spec.containers[name=bot].securityContext.runAsUser", "guards"),
            ("/spec/securityContext/fsGroup", json!(GID), "spec.securityContext.fsGroup", "guards"),
            (
                "/spec/ephemeralContainers",
                json!([{"name": "d", "securityContext": {"runAsGroup": GID}}]),
                "spec.ephemeralContainers[name=d].securityContext.runAsGroup",
                "guards",
            ),
            ("/spec/initContainers", json!([{"name": "remit-redirect"}]), "spec.initContainers[name=remit-redirect]", "no AIWorkload"),
            ("/spec/containers/0/name", json!("remit-guard"), "spec.containers[name=remit-guard]", "choose another"),
            ("/spec/volumes/0/name", json!("remit-policy"), "spec.volumes[name=remit-policy]", "choose another"),
            ("/spec/volumes/0/name", json!("remit-trust"), "spec.volumes[name=remit-trust]", "choose another"),
            ("/spec/volumes/0/name", json!("remit-ca"), "spec.volumes[name=remit-ca]", "choose another"),
        ];
        for (at, value, path, words) in cases {
            let mut object = bot();
            put(&mut object, at, value);
            expect(&unscoped(object), path, words, at);
        }
    }

    fn expect(errors: &[String], path: &str, words: &str, case: &str) {
        assert!(errors.iter().any(|e| e.starts_with(&format!("{path}: ")) && e.contains(words)), "{case}: {errors:#?}");
    }
}
