//! A pod → the same pod behind its guard.
//!
//! Promise: the redirect and the guard are the first init containers, in this order, whatever was there; twice is as once; images, commands,
//! environment and ports of others stay. In: a pod at its creation, the guard's settings, the scope that governs it, ids drawn for it. Out:
//! the pod to be stored, with every field of ours spelled out that the API server would fill in, so that it can be compared later.
//!
//! In Observe only the guard is added, and the variables that the scope declares: identity and security contexts stay as found, so that nothing
//! that ran before stops. A variable that a container sets itself stays as it is: what it is set to opens nothing, for the guard judges anyway.
//! Some pods are left as they are, see `unfit`; [`admit`](super::admit()) says what speaks against them.
//!
//! It does not judge. What the types do not know (fields of a newer Kubernetes) cannot be seen here: whoever makes a patch keeps it.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, EmptyDirVolumeSource, EnvVar, HTTPGetAction, KeyToPath, Pod, PodSpec, Probe,
    ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::policy::WorkloadId;
use crate::policy::pod::{
    CA_ARGUMENT, CA_DIRECTORY, CA_VOLUME, GUARD_CONTAINER, HEALTH_PORT, IDS, POLICY_DIRECTORY, POLICY_FILE, POLICY_VOLUME,
    REDIRECT_CONTAINER, TOKEN_AUDIENCE, TOKEN_FILE, TOKEN_SECONDS, TRUST_ARGUMENT, TRUST_BUNDLE, TRUST_CA, TRUST_DIRECTORY, TRUST_JAVA,
    TRUST_VOLUME, VOLUMES, base_url, generated_name,
};
use crate::scope::{Mode, ObjectName, Scope};

/// What the operator's configuration says about guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    pub image: String,
    /// The key that policies are signed with, as the guard is told it (`--trust`).
    pub trust: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    pub cpu_request: String,
    pub memory_request: String,
    pub memory_limit: String,
    /// Devices that containers may ask for; `*` at the end of a name stands for anything.
    pub allowed_devices: Vec<String>,
}

/// One pod's injection.
#[derive(Clone, Copy, Debug)]
pub struct Injection<'a> {
    pub settings: &'a GuardSettings,
    pub scope: &'a Scope,
    /// Of the AIWorkload.
    pub workload_uid: &'a str,
    /// Drawn from [`IDS`] for this pod by the caller, anew at each call: ids that a pod brings along were chosen by its author.
    pub uid: u32,
    pub gid: u32,
}

/// The ConfigMap that every namespace has: the API server's certificate.
pub(super) const ROOT_CERTIFICATES: &str = "kube-root-ca.crt";

pub fn inject(pod: &Pod, injection: &Injection<'_>) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = pod.spec.as_mut().filter(|spec| !unfit(spec)) {
        if injection.scope.mode == Mode::Enforce {
            identify(spec, injection.scope);
            harden(spec);
        }
        place(spec, injection);
        tell(spec, injection.scope);
    }
    pod
}

/// The ids that an injected pod names. To judge by, never to inject with: see [`Injection::uid`].
pub fn ids(pod: &Pod) -> Option<(u32, u32)> {
    named_ids(pod.spec.as_ref()?)
}

pub(super) fn named_ids(spec: &PodSpec) -> Option<(u32, u32)> {
    let redirect = spec.init_containers.iter().flatten().find(|c| c.name == REDIRECT_CONTAINER)?;
    let [command, uid, gid] = redirect.args.as_deref()? else { return None };
    let id = |argument: &str, name| argument.strip_prefix(name)?.parse().ok().filter(|id| IDS.contains(id));
    Some((id(uid, "--uid=")?, id(gid, "--gid=")?)).filter(|_| command == "redirect")
}

/// Pods that a guard would not hold, but break: on the host's network the redirect would take the *node's* traffic, in a user
/// namespace our ids cannot be mapped, and Windows has no such thing.
pub(super) fn unfit(spec: &PodSpec) -> bool {
    spec.host_network == Some(true) || spec.host_users == Some(false) || spec.os.as_ref().is_some_and(|os| os.name != "linux")
}

/// The scope's account, and a token only if Kubernetes objects are declared.
fn identify(spec: &mut PodSpec, scope: &Scope) {
    let name = scope.account.name().to_owned();
    spec.service_account = Some(name.clone());
    spec.service_account_name = Some(name);
    let token = !scope.permissions().is_empty();
    spec.automount_service_account_token = Some(token);
    if token {
        return;
    }
    // The API server has mounted one already, before any webhook was asked.
    let volumes = spec.volumes.take().unwrap_or_default();
    let (tokens, others): (Vec<_>, Vec<_>) = volumes.into_iter().partition(is_token_volume);
    spec.volumes = Some(others).filter(|v| !v.is_empty());
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let mut mounts = container.volume_mounts.take().unwrap_or_default();
        mounts.retain(|mount| tokens.iter().all(|volume| volume.name != mount.name));
        container.volume_mounts = Some(mounts).filter(|m| !m.is_empty());
    }
}

/// Whether this is the volume that the API server adds to pods: its name, and exactly its three sources.
pub(super) fn is_token_volume(volume: &Volume) -> bool {
    let Volume { name, projected: Some(ProjectedVolumeSource { sources: Some(sources), .. }), .. } = volume else { return false };
    let token =
        |p: &VolumeProjection| p.service_account_token.as_ref().is_some_and(|t| t.audience.as_deref().unwrap_or_default().is_empty());
    let root = |p: &VolumeProjection| p.config_map.as_ref().is_some_and(|c| c.name == ROOT_CERTIFICATES);
    let namespace = |p: &VolumeProjection| {
        let items = p.downward_api.as_ref().and_then(|d| d.items.as_deref());
        matches!(items, Some([item]) if item.field_ref.as_ref().is_some_and(|f| f.field_path == "metadata.namespace"))
    };
    name.starts_with("kube-api-access-")
        && sources.len() == 3
        && sources.iter().any(token)
        && sources.iter().any(root)
        && sources.iter().any(namespace)
}

/// What takes the ways round the guard from the app: with the capabilities that a runtime gives by default, root may become any user.
fn harden(spec: &mut PodSpec) {
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        let context = container.security_context.get_or_insert_default();
        let capabilities = context.capabilities.get_or_insert_default();
        // Beside these the API server takes no `false`, and would say so before admission says what is wrong.
        let powerful = context.privileged == Some(true) || capabilities.add.iter().flatten().any(|c| c == "CAP_SYS_ADMIN");
        if !powerful {
            context.allow_privilege_escalation.get_or_insert(false);
        }
        let drop = capabilities.drop.get_or_insert_default();
        if !drop.iter().any(|c| c == "ALL") {
            drop.push("ALL".to_owned());
        }
    }
    spec.security_context.get_or_insert_default().seccomp_profile.get_or_insert_with(runtime_default);
}

/// Ours come first; what bears our names goes.
fn place(spec: &mut PodSpec, injection: &Injection<'_>) {
    let Injection { settings, scope, workload_uid, uid, gid } = *injection;
    let foreign = |name: &str| name != REDIRECT_CONTAINER && name != GUARD_CONTAINER;
    spec.containers.retain(|c| foreign(&c.name));
    let (form, workload) = (Form::of(scope), whose(&scope.workload, workload_uid));
    let mut init = vec![redirect_container(settings, uid, gid), guard_container(settings, &workload, form, uid, gid)];
    init.extend(spec.init_containers.take().into_iter().flatten().filter(|c| foreign(&c.name)));
    spec.init_containers = Some(init);
    let mut volumes = guard_volumes(&scope.workload.name, form);
    volumes.extend(spec.volumes.take().into_iter().flatten().filter(|v| !VOLUMES.contains(&v.name.as_str())));
    spec.volumes = Some(volumes);
}

/// Variables by which programs find whom to trust, and the file that each is given.
pub(super) const TRUSTED_BY: [(&str, &str); 10] = [
    ("SSL_CERT_FILE", TRUST_BUNDLE),
    ("REQUESTS_CA_BUNDLE", TRUST_BUNDLE),
    ("CURL_CA_BUNDLE", TRUST_BUNDLE),
    ("GIT_SSL_CAINFO", TRUST_BUNDLE),
    ("AWS_CA_BUNDLE", TRUST_BUNDLE),
    ("PIP_CERT", TRUST_BUNDLE),
    ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", TRUST_BUNDLE),
    ("HTTPLIB2_CA_CERTS", TRUST_BUNDLE),
    ("NODE_EXTRA_CA_CERTS", TRUST_CA),
    ("DENO_CERT", TRUST_CA),
];
/// Java takes options in one variable.
pub(super) const JAVA_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
const JAVA_TRUST: &str = "-Djavax.net.ssl.trustStore=";

/// The app's containers are told their base URLs, and whom to trust where the guard ends their TLS.
fn tell(spec: &mut PodSpec, scope: &Scope) {
    let form = Form::of(scope);
    let ours = |name: &str| name == REDIRECT_CONTAINER || name == GUARD_CONTAINER;
    for container in spec.init_containers.iter_mut().flatten().filter(|c| !ours(&c.name)).chain(&mut spec.containers) {
        let mut told: Vec<(String, String)> = base_urls(scope).map(|(name, url)| (name.to_owned(), url)).collect();
        if form == Form::Inspecting {
            let file = |file: &str| format!("{TRUST_DIRECTORY}/{file}");
            told.extend(TRUSTED_BY.map(|(name, of)| (name.to_owned(), file(of))));
            let java = format!("{JAVA_TRUST}{}", file(TRUST_JAVA));
            let set = container.env.iter_mut().flatten().find(|variable| variable.name == JAVA_OPTIONS);
            match set.map(|variable| (&variable.value_from, &mut variable.value)) {
                None => told.push((JAVA_OPTIONS.to_owned(), java)),
                // What comes from elsewhere nobody can add to.
                Some((Some(_), _)) => {}
                Some((None, Some(value))) if value.contains(JAVA_TRUST) => {}
                Some((None, Some(value))) if !value.is_empty() => *value = format!("{value} {java}"),
                Some((None, value)) => *value = Some(java),
            }
            let mounts = container.volume_mounts.get_or_insert_default();
            mounts.retain(|mount| mount.name != TRUST_VOLUME);
            mounts.push(mount(TRUST_VOLUME, TRUST_DIRECTORY, true));
        }
        told.retain(|(name, _)| container.env.iter().flatten().all(|variable| variable.name != *name));
        if !told.is_empty() {
            // First, so that variables of the app can be made from them: `$(HELP_URL)/v1`.
            let told = told.into_iter().map(|(name, value)| EnvVar { name, value: Some(value), value_from: None });
            container.env = Some(told.chain(container.env.take().unwrap_or_default()).collect());
        }
    }
}

/// The variables that the scope declares, and their base URLs.
pub(super) fn base_urls(scope: &Scope) -> impl Iterator<Item = (&str, String)> {
    scope.sources.iter().flat_map(|source| source.base_url_env.iter().map(|name| (name.as_str(), base_url(&source.name))))
}

/// What of ours a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    /// The guard ends TLS of the app, and the app trusts it.
    Inspecting,
}

impl Form {
    /// In Observe no app is made to trust anybody.
    fn of(scope: &Scope) -> Self {
        if scope.mode == Mode::Enforce && scope.inspects() { Self::Inspecting } else { Self::Plain }
    }

    /// As the guard in this pod was told.
    pub(super) fn found(spec: &PodSpec) -> Self {
        let guard = spec.init_containers.iter().flatten().find(|c| c.name == GUARD_CONTAINER);
        let mut arguments = guard.into_iter().flat_map(|guard| guard.args.iter().flatten());
        if arguments.any(|argument| argument.starts_with(TRUST_ARGUMENT)) { Self::Inspecting } else { Self::Plain }
    }
}

fn mount(volume: &str, directory: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: directory.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

pub(super) fn redirect_container(settings: &GuardSettings, uid: u32, gid: u32) -> Container {
    let arguments = vec!["redirect".to_owned(), format!("--uid={uid}"), format!("--gid={gid}")];
    container(REDIRECT_CONTAINER, arguments, settings, confined((0, 0), Some("NET_ADMIN")))
}

pub(super) fn whose(workload: &ObjectName, uid: &str) -> WorkloadId {
    WorkloadId { namespace: workload.namespace.clone(), name: workload.name.clone(), uid: uid.to_owned() }
}

pub(super) const WORKLOAD_ARGUMENT: &str = "--workload=";

pub(super) fn guard_container(settings: &GuardSettings, workload: &WorkloadId, form: Form, uid: u32, gid: u32) -> Container {
    let mut arguments = vec!["run".to_owned(), format!("--trust={}", settings.trust), format!("{WORKLOAD_ARGUMENT}{workload}")];
    let mut mounts = vec![mount(POLICY_VOLUME, POLICY_DIRECTORY, true)];
    if form == Form::Inspecting {
        arguments.extend([format!("{TRUST_ARGUMENT}{TRUST_DIRECTORY}"), format!("{CA_ARGUMENT}{CA_DIRECTORY}")]);
        mounts.extend([mount(TRUST_VOLUME, TRUST_DIRECTORY, false), mount(CA_VOLUME, CA_DIRECTORY, false)]);
    }
    Container {
        restart_policy: Some("Always".to_owned()),
        // The app starts when this one succeeds: long enough for a slow node, and asked often, because every pod waits for it.
        startup_probe: Some(probe(1, 120)),
        readiness_probe: Some(probe(5, 3)),
        volume_mounts: Some(mounts),
        ..container(GUARD_CONTAINER, arguments, settings, confined((uid, gid), None))
    }
}

/// All volumes of ours, in their order.
pub(super) fn guard_volumes(workload: &str, form: Form) -> Vec<Volume> {
    let in_memory = |name: &str, size: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { medium: Some("Memory".to_owned()), size_limit: Some(Quantity(size.to_owned())) }),
        ..Volume::default()
    };
    let mut all = vec![policy_volume(workload)];
    if form == Form::Inspecting {
        all.extend([in_memory(TRUST_VOLUME, TRUST_SIZE), in_memory(CA_VOLUME, CA_SIZE)]);
    }
    all
}

/// Three files with some hundred certificates each, and those that take their place. Counted as the guard's memory.
const TRUST_SIZE: &str = "4Mi";
/// A key and a certificate.
const CA_SIZE: &str = "1Mi";

/// The policy of a workload, without which the guard does not start, and the token by which the operator knows the guard.
fn policy_volume(workload: &str) -> Volume {
    let policy = ConfigMapProjection {
        name: generated_name(workload),
        items: Some(vec![KeyToPath { key: POLICY_FILE.to_owned(), path: POLICY_FILE.to_owned(), mode: None }]),
        optional: Some(false),
    };
    let token = ServiceAccountTokenProjection {
        audience: Some(TOKEN_AUDIENCE.to_owned()),
        expiration_seconds: Some(TOKEN_SECONDS),
        path: TOKEN_FILE.to_owned(),
    };
    Volume {
        name: POLICY_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![
                VolumeProjection { config_map: Some(policy), ..VolumeProjection::default() },
                VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
            ]),
            default_mode: Some(0o444),
        }),
        ..Volume::default()
    }
}

fn container(name: &str, arguments: Vec<String>, settings: &GuardSettings, security_context: SecurityContext) -> Container {
    let GuardSettings { image, trust: _, image_pull_policy, cpu_request, memory_request, memory_limit, allowed_devices: _ } = settings;
    let quantities = |list: &[(&str, &String)]| Some(list.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).clone()))).collect());
    Container {
        name: name.to_owned(),
        image: Some(image.clone()),
        image_pull_policy: Some(image_pull_policy.clone()),
        args: Some(arguments),
        resources: Some(ResourceRequirements {
            // No limit on processor time: a throttled guard delays every connection of the pod.
            requests: quantities(&[("cpu", cpu_request), ("memory", memory_request)]),
            limits: quantities(&[("memory", memory_limit)]),
            ..ResourceRequirements::default()
        }),
        security_context: Some(security_context),
        termination_message_path: Some("/dev/termination-log".to_owned()),
        // Why it ended stands on stderr; it writes no file.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn confined((uid, gid): (u32, u32), capability: Option<&str>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: capability.map(|c| vec![c.to_owned()]), drop: Some(vec!["ALL".to_owned()]) }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_user: Some(uid.into()),
        run_as_group: Some(gid.into()),
        run_as_non_root: Some(uid != 0),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn probe(period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/readyz".to_owned()),
            port: IntOrString::Int(HEALTH_PORT.into()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        success_threshold: Some(1),
        timeout_seconds: Some(1),
        ..Probe::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::admit::fixture::{
        BASE_URLS, GID, INSPECTED, KUBERNETES, SPEC, UID, any_good_pod, bot, injected, pod, put, scope, token_volume,
    };
    use crate::plan::fixture;

    fn injected_json(value: Value, scope: &Scope) -> Value {
        serde_json::to_value(injected(&pod(value), scope)).unwrap()
    }

    fn names(pod: &Pod) -> Vec<&str> {
        pod.spec.as_ref().unwrap().init_containers.iter().flatten().map(|c| c.name.as_str()).collect()
    }

    /// The whole of ours, as the API server must store it.
    #[test]
    fn ours_in_full() {
        let pod = injected_json(bot(), &scope());
        let image = "registry.example.com/remit-guard@sha256:1234";
        let resources = json!({"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "96Mi"}});
        let probe = |period: u32, failures: u32| {
            json!({
                "httpGet": {"path": "/readyz", "port": 15470, "scheme": "HTTP"},
                "periodSeconds": period, "failureThreshold": failures, "successThreshold": 1, "timeoutSeconds": 1,
            })
        };
        let context = |uid: u32, gid: u32, capabilities: Value| {
            json!({
                "allowPrivilegeEscalation": false, "capabilities": capabilities, "privileged": false, "readOnlyRootFilesystem": true,
                "runAsUser": uid, "runAsGroup": gid, "runAsNonRoot": uid != 0, "seccompProfile": {"type": "RuntimeDefault"},
            })
        };
        assert_eq!(
            pod["spec"]["initContainers"],
            json!([
                {
                    "name": "remit-redirect", "image": image, "imagePullPolicy": "IfNotPresent",
                    "args": ["redirect", "--uid=2000000007", "--gid=2000000008"],
                    "resources": resources,
                    "securityContext": context(0, 0, json!({"add": ["NET_ADMIN"], "drop": ["ALL"]})),
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "FallbackToLogsOnError",
                },
                {
                    "name": "remit-guard", "image": image, "imagePullPolicy": "IfNotPresent", "args": ["run", "--trust=remit-policy+00000000+key", "--workload=support/support-bot/uid-1"], "restartPolicy": "Always",
                    "resources": resources,
                    "securityContext": context(2_000_000_007, 2_000_000_008, json!({"drop": ["ALL"]})),
                    "startupProbe": probe(1, 120), "readinessProbe": probe(5, 3),
                    "volumeMounts": [{"name": "remit-policy", "mountPath": "/etc/remit/policy", "readOnly": true}],
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "FallbackToLogsOnError",
                },
            ])
        );
        assert_eq!(
            pod["spec"]["volumes"][0],
            json!({"name": "remit-policy", "projected": {"defaultMode": 292, "sources": [
                {"configMap": {"name": "remit-support-bot", "items": [{"key": "policy.note", "path": "policy.note"}], "optional": false}},
                {"serviceAccountToken": {"audience": "remit.dev/guard", "expirationSeconds": 3600, "path": "token"}},
            ]}})
        );
    }

    /// Names of the init containers that a pod comes with, and of those after ours.
    #[test]
    fn order_table() {
        let cases: Vec<(Value, Vec<&str>)> = vec![
            (json!([]), vec![]),
            (json!([{"name": "migrate"}]), vec!["migrate"]),
            // A Job with a native sidecar of its own.
            (json!([{"name": "cache", "restartPolicy": "Always"}, {"name": "migrate"}]), vec!["cache", "migrate"]),
            // Another injector that came before, and one that came between our two calls.
            (json!([{"name": "istio-init"}, {"name": "istio-proxy", "restartPolicy": "Always"}]), vec!["istio-init", "istio-proxy"]),
            (
                json!([{"name": "istio-init"}, {"name": "remit-redirect"}, {"name": "migrate"}, {"name": "remit-guard"}]),
                vec!["istio-init", "migrate"],
            ),
        ];
        for (init, rest) in cases {
            let mut object = bot();
            put(&mut object, "/spec/restartPolicy", json!("Never"));
            put(&mut object, "/spec/initContainers", init.clone());
            let pod = injected(&pod(object), &scope());
            assert_eq!(names(&pod), [vec!["remit-redirect", "remit-guard"], rest].concat(), "{init}");
        }
    }

    /// What bears our names is replaced, wherever it stands.
    #[test]
    fn our_names_are_ours() {
        let mut object = bot();
        put(&mut object, "/spec/containers/-", json!({"name": "remit-guard", "image": "evil"}));
        put(
            &mut object,
            "/spec/initContainers",
            json!([{"name": "remit-guard", "image": "evil"}, {"name": "remit-redirect", "image": "evil"}]),
        );
        put(&mut object, "/spec/volumes/-", json!({"name": "remit-policy", "emptyDir": {}}));
        assert_eq!(injected_json(object, &scope()), injected_json(bot(), &scope()));
    }

    #[test]
    fn the_app_is_hardened_where_it_says_nothing() {
        let all = json!({"drop": ["ALL"]});
        let cases = [
            (json!(null), json!({"allowPrivilegeEscalation": false, "capabilities": all})),
            (json!({"runAsUser": 7}), json!({"runAsUser": 7, "allowPrivilegeEscalation": false, "capabilities": all})),
            (
                json!({"allowPrivilegeEscalation": true, "capabilities": {"drop": ["NET_RAW"], "add": ["CHOWN"]}}),
                json!({"allowPrivilegeEscalation": true, "capabilities": {"drop": ["NET_RAW", "ALL"], "add": ["CHOWN"]}}),
            ),
            (json!({"capabilities": all}), json!({"allowPrivilegeEscalation": false, "capabilities": all})),
            // The API server would refuse `false` here without saying why it is there.
            (json!({"privileged": true}), json!({"privileged": true, "capabilities": all})),
            (json!({"capabilities": {"add": ["CAP_SYS_ADMIN"]}}), json!({"capabilities": {"add": ["CAP_SYS_ADMIN"], "drop": ["ALL"]}})),
        ];
        for (context, expected) in cases {
            let mut object = bot();
            put(&mut object, "/spec/containers/0/securityContext", context.clone());
            put(&mut object, "/spec/initContainers", json!([{"name": "setup", "securityContext": context}]));
            let pod = injected_json(object, &scope());
            assert_eq!(pod["spec"]["containers"][0]["securityContext"], expected);
            assert_eq!(pod["spec"]["initContainers"][2]["securityContext"], expected);
        }
        let mut object = bot();
        assert_eq!(
            injected_json(object.clone(), &scope())["spec"]["securityContext"],
            json!({"seccompProfile": {"type": "RuntimeDefault"}})
        );
        put(&mut object, "/spec/securityContext", json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}, "fsGroup": 5}));
        let said = object["spec"]["securityContext"].clone();
        assert_eq!(injected_json(object, &scope())["spec"]["securityContext"], said);
    }

    #[test]
    fn the_account_and_its_token() {
        let none = injected_json(bot(), &scope());
        assert_eq!(none["spec"]["serviceAccountName"], "support-bot");
        assert_eq!(none["spec"]["serviceAccount"], "support-bot");
        assert_eq!(none["spec"]["automountServiceAccountToken"], false);
        assert!(!none.to_string().contains("kube-api-access"), "the volume and its mounts are stripped");

        let kubernetes = fixture::scope(&format!("identity: {{serviceAccountName: brought}}\n{SPEC}{KUBERNETES}"));
        let some = injected_json(bot(), &kubernetes);
        assert_eq!(some["spec"]["serviceAccountName"], "brought");
        assert_eq!(some["spec"]["automountServiceAccountToken"], true);
        assert_eq!(some["spec"]["volumes"][2], token_volume());
        assert_eq!(some["spec"]["containers"][0]["volumeMounts"], bot()["spec"]["containers"][0]["volumeMounts"]);
    }

    /// Only the volume that the API server made is stripped; what merely looks like it is left to admission.
    #[test]
    fn lookalikes_of_the_token_volume() {
        let name = |volume: &mut Value| volume["name"] = json!("kube-api-acces");
        let audience = |volume: &mut Value| volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("vault");
        let map = |volume: &mut Value| volume["projected"]["sources"][1]["configMap"]["name"] = json!("other");
        let field = |volume: &mut Value| {
            volume["projected"]["sources"][2]["downwardAPI"]["items"][0]["fieldRef"]["fieldPath"] = json!("metadata.name");
        };
        let more = |volume: &mut Value| put(volume, "/projected/sources/-", json!({"secret": {"name": "x"}}));
        let other = |volume: &mut Value| *volume = json!({"name": "kube-api-access-x7k2p", "emptyDir": {}});
        let changes: [&dyn Fn(&mut Value); 6] = [&name, &audience, &map, &field, &more, &other];
        for (i, change) in changes.iter().enumerate() {
            let mut object = bot();
            change(&mut object["spec"]["volumes"][1]);
            let expected = object["spec"]["volumes"][1].clone();
            assert_eq!(injected_json(object, &scope())["spec"]["volumes"][2], expected, "{i}");
        }
    }

    fn with(sources: &str) -> Scope {
        fixture::scope(&format!("{SPEC}{sources}"))
    }

    /// The first container of an injected pod that has these variables.
    fn told(env: Value, scope: &Scope) -> Value {
        let mut object = bot();
        object["spec"]["containers"][0]["env"] = env;
        injected_json(object, scope)["spec"]["containers"][0].clone()
    }

    #[test]
    fn base_urls_are_told_and_what_is_set_stays() {
        let scope = with(BASE_URLS);
        let (help, shop) = (
            json!({"name": "HELP_URL", "value": "http://127.0.0.1:15474/help"}),
            json!({"name": "SHOP", "value": "http://127.0.0.1:15474/shop"}),
        );
        let (other, own, from) = (
            json!({"name": "MODE", "value": "x"}),
            json!({"name": "HELP_URL", "value": "https://help.example.com"}),
            json!({"name": "SHOP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
        );
        let made = json!({"name": "API", "value": "$(HELP_URL)/v1"});
        for (env, expected) in [
            (json!(null), json!([help, shop])),
            (json!([other, made]), json!([help, shop, other, made])),
            (json!([own]), json!([shop, own])),
            (json!([from, other]), json!([help, from, other])),
            (json!([own, from]), json!([own, from])),
        ] {
            assert_eq!(told(env, &scope)["env"], expected);
        }
        let observe = fixture::scope(&format!("{SPEC}{BASE_URLS}").replace("Enforce", "Observe"));
        assert_eq!(told(json!([]), &observe)["env"], json!([help, shop]), "in Observe as well, so that requests are seen");
        let mut object = bot();
        put(&mut object, "/spec/initContainers", json!([{"name": "setup"}]));
        let spec = injected_json(object, &scope)["spec"].clone();
        assert_eq!(spec["initContainers"][2]["env"], json!([help, shop]), "init containers of the app");
        assert!((0..2).all(|i| spec["initContainers"][i].get("env").is_none()), "ours are told nothing");
    }

    /// The guard writes whom to trust, the app reads it, and the authority's key is the guard's alone.
    #[test]
    fn where_tls_is_looked_into() {
        let scope = with(INSPECTED);
        let mut object = bot();
        put(&mut object, "/spec/initContainers", json!([{"name": "setup", "volumeMounts": [{"name": "remit-trust", "mountPath": "/x"}]}]));
        put(&mut object, "/spec/volumes/-", json!({"name": "remit-ca", "hostPath": {"path": "/"}}));
        let spec = injected_json(object, &scope)["spec"].clone();
        let in_memory = |name: &str, size: &str| json!({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}});
        assert_eq!(spec["volumes"][0]["name"], "remit-policy");
        assert_eq!(spec["volumes"][1], in_memory("remit-trust", "4Mi"));
        assert_eq!(spec["volumes"][2], in_memory("remit-ca", "1Mi"));
        assert_eq!(spec["volumes"].to_string().matches("remit-ca").count(), 1);
        let guard = &spec["initContainers"][1];
        assert_eq!(
            guard["args"],
            json!([
                "run",
                "--trust=remit-policy+00000000+key",
                "--workload=support/support-bot/uid-1",
                "--trust-store=/var/run/remit/trust",
                "--ca=/var/run/remit/ca"
            ])
        );
        assert_eq!(
            guard["volumeMounts"],
            json!([
                {"name": "remit-policy", "mountPath": "/etc/remit/policy", "readOnly": true},
                {"name": "remit-trust", "mountPath": "/var/run/remit/trust"},
                {"name": "remit-ca", "mountPath": "/var/run/remit/ca"},
            ])
        );
        let trust = json!({"name": "remit-trust", "mountPath": "/var/run/remit/trust", "readOnly": true});
        for container in [&spec["initContainers"][2], &spec["containers"][0]] {
            let mounts = container["volumeMounts"].as_array().unwrap();
            assert_eq!(mounts.iter().filter(|m| m["name"] == "remit-trust").collect::<Vec<_>>(), [&trust]);
            assert!(mounts.iter().all(|m| m["name"] != "remit-ca" && m["name"] != "remit-policy"));
            let env = container["env"].as_array().unwrap();
            let value = |name: &str| env.iter().find(|v| v["name"] == name).map(|v| v["value"].as_str().unwrap().to_owned());
            for name in [
                "SSL_CERT_FILE",
                "REQUESTS_CA_BUNDLE",
                "CURL_CA_BUNDLE",
                "GIT_SSL_CAINFO",
                "AWS_CA_BUNDLE",
                "PIP_CERT",
                "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
                "HTTPLIB2_CA_CERTS",
            ] {
                assert_eq!(value(name).as_deref(), Some("/var/run/remit/trust/bundle.pem"), "{name}");
            }
            for name in ["NODE_EXTRA_CA_CERTS", "DENO_CERT"] {
                assert_eq!(value(name).as_deref(), Some("/var/run/remit/trust/ca.pem"), "{name}");
            }
            assert_eq!(value("JAVA_TOOL_OPTIONS").as_deref(), Some("-Djavax.net.ssl.trustStore=/var/run/remit/trust/truststore.jks"));
        }
        let java = "-Djavax.net.ssl.trustStore=/var/run/remit/trust/truststore.jks";
        for (set, expected) in [
            (json!({"value": "-Xmx1g"}), json!({"value": format!("-Xmx1g {java}")})),
            (json!({"value": "-Djavax.net.ssl.trustStore=/mine"}), json!({"value": "-Djavax.net.ssl.trustStore=/mine"})),
            (json!({"value": ""}), json!({"value": java})),
            (json!({}), json!({"value": java})),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
                json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
            ),
        ] {
            let (mut variable, mut expected) = (set.clone(), expected);
            variable["name"] = json!("JAVA_TOOL_OPTIONS");
            expected["name"] = json!("JAVA_TOOL_OPTIONS");
            let env = told(json!([variable, {"name": "SSL_CERT_FILE", "value": "/mine"}]), &scope)["env"].clone();
            let env = env.as_array().unwrap();
            assert_eq!(env.iter().filter(|v| v["name"] == "JAVA_TOOL_OPTIONS").collect::<Vec<_>>(), [&expected], "{set}");
            assert_eq!(
                env.iter().filter(|v| v["name"] == "SSL_CERT_FILE").collect::<Vec<_>>(),
                [&json!({"name": "SSL_CERT_FILE", "value": "/mine"})]
            );
        }
        // In Observe nobody is made to trust anybody.
        let observe = fixture::scope(&format!("{SPEC}{INSPECTED}").replace("Enforce", "Observe"));
        let observed = injected_json(bot(), &observe).to_string();
        assert!(!observed.contains("remit-trust") && !observed.contains("SSL_CERT_FILE"), "{observed}");
    }

    /// What the webhook sets is nothing that a scope may set.
    #[test]
    fn variables_that_are_set_here_are_no_base_urls() {
        for name in TRUSTED_BY.map(|(name, _)| name).into_iter().chain([JAVA_OPTIONS]) {
            assert!(crate::api::NEVER_A_BASE_URL.contains(&name), "{name}");
        }
    }

    #[test]
    fn in_observe_only_the_guard_is_added() {
        let observe = fixture::scope(&SPEC.replace("Enforce", "Observe"));
        let before = bot();
        let mut after = injected_json(before.clone(), &observe);
        assert_eq!(names(&injected(&pod(before.clone()), &observe)), ["remit-redirect", "remit-guard"]);
        after["spec"].as_object_mut().unwrap().remove("initContainers");
        after["spec"]["volumes"].as_array_mut().unwrap().remove(0);
        assert_eq!(after, serde_json::to_value(pod(before)).unwrap());
    }

    #[test]
    fn pods_that_a_guard_would_break() {
        for (at, value) in [("/spec/hostNetwork", json!(true)), ("/spec/hostUsers", json!(false)), ("/spec/os", json!({"name": "windows"}))]
        {
            let mut object = bot();
            put(&mut object, at, value);
            let object = pod(object);
            assert_eq!(injected(&object, &scope()), object, "{at}");
        }
    }

    #[test]
    fn ids_of_injected_pods() {
        assert_eq!(ids(&injected(&pod(bot()), &scope())), Some((UID, GID)));
        assert_eq!(ids(&pod(bot())), None);
        for arguments in [
            json!(["redirect", "--uid=1000", "--gid=2000000008"]),
            json!(["redirect", "--uid=2000000007", "--gid=2100000000"]),
            json!(["run", "--uid=2000000007", "--gid=2000000008"]),
            json!(["redirect", "--gid=2000000007", "--uid=2000000008"]),
            json!(["redirect", "--uid=2000000007", "--gid=2000000008", "--uid=2000000009"]),
            json!([]),
        ] {
            let mut object = bot();
            put(&mut object, "/spec/initContainers", json!([{"name": "remit-redirect", "args": arguments}]));
            assert_eq!(ids(&pod(object)), None, "{arguments}");
        }
    }

    proptest! {
        #[test]
        fn twice_is_as_once_and_others_stay(original in any_good_pod(), kubernetes in any::<bool>(), http in 0..4usize, observe in any::<bool>()) {
            let http_of = ["", BASE_URLS, INSPECTED, &format!("{BASE_URLS}{INSPECTED}")][http].to_owned();
            let spec = format!("{SPEC}{}{http_of}", if kubernetes { KUBERNETES } else { "" });
            let scope = fixture::scope(&if observe { spec.replace("Enforce", "Observe") } else { spec });
            let once = injected(&original, &scope);
            prop_assert_eq!(&injected(&once, &scope), &once);
            prop_assert_eq!(&names(&once)[..2], ["remit-redirect", "remit-guard"]);

            let (before, after) = (original.spec.as_ref().unwrap(), once.spec.as_ref().unwrap());
            let theirs = |spec: &PodSpec| -> Vec<_> {
                let init = spec.init_containers.iter().flatten().filter(|c| !c.name.starts_with("remit-"));
                init.chain(&spec.containers).map(|c| (c.name.clone(), c.image.clone(), c.command.clone(), c.args.clone(), c.ports.clone())).collect()
            };
            prop_assert_eq!(theirs(before), theirs(after));
            // What they set themselves they keep, in its order, and last.
            let env = |spec: &PodSpec| -> Vec<Vec<EnvVar>> {
                let init = spec.init_containers.iter().flatten().filter(|c| !c.name.starts_with("remit-"));
                init.chain(&spec.containers).map(|c| c.env.clone().unwrap_or_default()).collect()
            };
            for (before, after) in env(before).iter().zip(env(after)) {
                prop_assert!(after.ends_with(before) && (http > 0 || after == *before));
            }
        }
    }
}
