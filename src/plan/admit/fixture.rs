//! Fixtures of the tests of `inject` and `admit`: a pod as the API server shows it to webhooks, and many like it.

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::plan::inject::{GuardSettings, Injection, inject};
use crate::plan::{fixture, validate};
use crate::scope::Scope;

pub const UID: u32 = 2_000_000_007;
pub const GID: u32 = 2_000_000_008;
pub const WORKLOAD_UID: &str = "uid-1";

/// An image that nobody can change.
pub const IMAGE: &str = "registry.example.com/bot:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Objects of each kind, and no Kubernetes.
pub const SPEC: &str = "
selector: {matchLabels: {app: support-bot}}
mode: Enforce
dataSources:
- {name: prompts, class: Internal, type: ConfigMap, configMap: {name: support-prompts}}
- {name: key, type: Secret, secret: {name: support-key}}
- {name: files, type: PersistentVolumeClaim, persistentVolumeClaim: {name: support-files}}
- {name: store, type: PersistentVolumeClaim, access: ReadWrite, persistentVolumeClaim: {name: support-store}}";

pub const KUBERNETES: &str = "
- {name: orders, class: Internal, type: Kubernetes, kubernetes: {apiGroups: [shop.example.com], resources: [orders]}}";

pub const BASE_URLS: &str = "
- {name: help, class: Public, type: Host, host: {name: help.example.com, port: 443, protocol: HTTPS, baseURLEnv: [HELP_URL]}}
- {name: shop, class: Internal, type: Service, service: {name: shop, port: 80, protocol: HTTP, baseURLEnv: [SHOP]}}";

pub const INSPECTED: &str = "
- {name: search, class: Public, type: Host, host: {name: search.example.com, port: 443, protocol: HTTPS, tlsInspection: Enabled}}";

pub fn settings() -> GuardSettings {
    GuardSettings {
        image: "registry.example.com/remit-guard@sha256:1234".into(),
        trust: "remit-policy+00000000+key".into(),
        image_pull_policy: "IfNotPresent".into(),
        cpu_request: "10m".into(),
        memory_request: "24Mi".into(),
        memory_limit: "96Mi".into(),
        allowed_devices: ["nvidia.com/gpu", "gpu.intel.com/*"].map(str::to_owned).into(),
    }
}

pub fn scope() -> Scope {
    fixture::scope(SPEC)
}

/// The first example of `examples/`.
pub fn example() -> Scope {
    let yaml = include_str!("../../../examples/support-bot.yaml");
    validate(&serde_saphyr::from_str(yaml).unwrap()).unwrap_or_else(|e| panic!("{e:?}"))
}

pub fn injected(pod: &Pod, scope: &Scope) -> Pod {
    inject(pod, &Injection { settings: &settings(), scope, workload_uid: WORKLOAD_UID, uid: UID, gid: GID })
}

pub fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

/// The support bot of the demo.
pub fn bot() -> Value {
    json!({
        "metadata": {"generateName": "support-bot-", "namespace": "support", "labels": {"app": "support-bot"}},
        "spec": {
            "serviceAccountName": "default",
            "serviceAccount": "default",
            "containers": [{
                "name": "bot",
                "image": IMAGE,
                "args": ["bot"],
                "env": [{"name": "MODE", "value": "friendly"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                "volumeMounts": [
                    {"name": "prompts", "mountPath": "/prompts", "readOnly": true},
                    {"name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true},
                ],
            }],
            "volumes": [{"name": "prompts", "configMap": {"name": "support-prompts"}}, token_volume()],
        },
    })
}

/// What the API server adds.
pub fn token_volume() -> Value {
    json!({"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Sets what stands at a JSON pointer; objects on the way are made, `-` appends to a list.
pub fn put(at: &mut Value, pointer: &str, value: Value) {
    let Some(rest) = pointer.strip_prefix('/') else {
        *at = value;
        return;
    };
    let (part, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if at.is_null() {
        *at = if part == "-" { json!([]) } else { json!({}) };
    }
    let next = match at {
        Value::Array(list) => {
            let i = part.parse().unwrap_or(list.len());
            if i == list.len() {
                list.push(Value::Null);
            }
            &mut list[i]
        }
        object => &mut object[part],
    };
    put(next, rest, value);
}

/// Pods against which nothing speaks once they are injected: with containers of other injectors, sidecars, what bears our names.
pub fn any_good_pod() -> impl Strategy<Value = Pod> {
    let token = json!({"name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
    let init = vec![
        json!({"name": "istio-init", "image": IMAGE, "args": ["first"]}),
        json!({"name": "own-sidecar", "image": IMAGE, "restartPolicy": "Always", "volumeMounts": [token]}),
        json!({"name": "migrate", "image": "migrate", "securityContext": {"runAsUser": 0, "capabilities": {"drop": ["NET_RAW"]}}}),
        json!({"name": "remit-redirect", "image": "evil", "args": ["redirect", "--uid=2000000001", "--gid=2000000001"]}),
        json!({"name": "remit-guard", "image": "evil", "command": ["sleep"]}),
    ];
    let volumes = vec![
        json!({"name": "remit-policy", "emptyDir": {}}),
        json!({"name": "scratch", "emptyDir": {}}),
        json!({"name": "self", "downwardAPI": {"items": []}}),
        json!({"name": "model", "image": {"reference": "registry.example.com/model:1"}}),
        json!({"name": "key", "projected": {"sources": [{"secret": {"name": "support-key"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}}),
        json!({"name": "store", "persistentVolumeClaim": {"claimName": "support-store"}}),
        json!({"name": "files", "persistentVolumeClaim": {"claimName": "support-files", "readOnly": true}}),
        token_volume(),
    ];
    let context = prop_oneof![
        Just(Value::Null),
        Just(json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true})),
        Just(json!({"capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}, "runAsUser": 1000})),
    ];
    let some = |list: Vec<Value>| proptest::sample::subsequence(list.clone(), 0..=list.len()).prop_shuffle();
    let fields = vec![
        ("restartPolicy", json!("Never")),
        ("securityContext", json!({"runAsNonRoot": true, "fsGroup": 2000, "supplementalGroups": [1_999_999_999, 2_100_000_000]})),
        ("hostAliases", json!([{"ip": "192.0.2.1", "hostnames": ["a"]}])),
        ("dnsPolicy", json!("None")),
        ("nodeName", json!("node-1")),
        ("automountServiceAccountToken", json!(true)),
    ];
    let fields = proptest::sample::subsequence(fields.clone(), 0..=fields.len());
    (some(init), some(volumes), context, fields, any::<bool>()).prop_map(|(init, volumes, context, fields, second)| {
        let mut value = bot();
        for (field, v) in fields {
            value["spec"][field] = v;
        }
        value["spec"]["initContainers"] = init.into();
        value["spec"]["volumes"].as_array_mut().unwrap().retain(|v| v["name"] == "prompts");
        value["spec"]["volumes"].as_array_mut().unwrap().extend(volumes);
        value["spec"]["containers"][0]["securityContext"] = context;
        if second {
            put(&mut value, "/spec/containers/-", json!({"name": "second", "image": IMAGE}));
        }
        pod(value)
    })
}
