//! The API server, as somebody: requests by kind, answers as JSON, refusals as data.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hyper::Request;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// A user of the API server.
#[derive(Clone)]
pub struct Api {
    pub client: Client,
    pub config: Config,
}

/// What the API server refused.
#[derive(Clone, Debug)]
pub struct Refused {
    pub code: u16,
    pub reason: String,
    pub message: String,
}

/// A kind that tests touch: where its objects lie.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub version: &'static str,
    pub plural: &'static str,
    namespaced: bool,
}

/// Kind, apiVersion, plural, namespaced.
const KINDS: &[(&str, &str, &str, bool)] = &[
    ("AIWorkload", "remit.dev/v1alpha1", "aiworkloads", true),
    ("ScopeCeiling", "remit.dev/v1alpha1", "scopeceilings", false),
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions", false),
    ("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", true),
    ("Role", "rbac.authorization.k8s.io/v1", "roles", true),
    ("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings", true),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", false),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
    ("ServiceAccount", "v1", "serviceaccounts", true),
    ("Service", "v1", "services", true),
    ("Endpoints", "v1", "endpoints", true),
    ("EndpointSlice", "discovery.k8s.io/v1", "endpointslices", true),
    ("Namespace", "v1", "namespaces", false),
    ("Node", "v1", "nodes", false),
    ("ServiceCIDR", "networking.k8s.io/v1", "servicecidrs", false),
    ("Pod", "v1", "pods", true),
    ("ConfigMap", "v1", "configmaps", true),
    ("Secret", "v1", "secrets", true),
    ("Event", "events.k8s.io/v1", "events", true),
    ("Lease", "coordination.k8s.io/v1", "leases", true),
    ("ValidatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", false),
    ("MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", false),
    ("MutatingAdmissionPolicy", "admissionregistration.k8s.io/v1", "mutatingadmissionpolicies", false),
    ("MutatingAdmissionPolicyBinding", "admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings", false),
    ("ValidatingAdmissionPolicy", "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", false),
    ("ValidatingAdmissionPolicyBinding", "admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", false),
    ("Deployment", "apps/v1", "deployments", true),
    ("ReplicaSet", "apps/v1", "replicasets", true),
    ("StatefulSet", "apps/v1", "statefulsets", true),
    ("DaemonSet", "apps/v1", "daemonsets", true),
    ("Job", "batch/v1", "jobs", true),
    ("CronJob", "batch/v1", "cronjobs", true),
    ("ReplicationController", "v1", "replicationcontrollers", true),
    ("PodTemplate", "v1", "podtemplates", true),
    ("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets", true),
];

/// The kind of this name.
pub fn kind(name: &str) -> Kind {
    let row = KINDS.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("no row for kind {name} in KINDS"));
    Kind { version: row.1, plural: row.2, namespaced: row.3 }
}

impl Kind {
    /// The path of an object, or of the collection if `object` is empty. An empty namespace means all of them.
    pub fn path(&self, namespace: &str, object: &str) -> String {
        let root = if self.version.contains('/') { "apis" } else { "api" };
        let namespace = if self.namespaced && !namespace.is_empty() { format!("/namespaces/{namespace}") } else { String::new() };
        let object = if object.is_empty() { String::new() } else { format!("/{object}") };
        format!("/{root}/{}{namespace}/{}{object}", self.version, self.plural)
    }
}

/// The kubeconfig of the API tier: `REMIT_TEST_API_KUBECONFIG`, or where `make cluster-api` writes it.
pub fn kubeconfig_path() -> PathBuf {
    let path = match std::env::var_os("REMIT_TEST_API_KUBECONFIG") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/cluster-api/kubeconfig")),
    };
    assert!(
        path.exists(),
        "no API server for the tests: {} does not exist; `make cluster-api` brings one up, or REMIT_TEST_API_KUBECONFIG names another",
        path.display()
    );
    path
}

/// A program of the test cluster, or of the PATH.
pub fn program(name: &str) -> PathBuf {
    let ours = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/cluster/bin")).join(name);
    if ours.exists() { ours } else { PathBuf::from(name) }
}

impl Api {
    /// The administrator (cluster-admin). The first caller also brings the custom resources in step.
    pub async fn admin() -> Self {
        static ADMIN: OnceCell<Api> = OnceCell::const_new();
        ADMIN
            .get_or_init(|| async {
                let api = Self::of(Self::admin_config().await);
                for definition in remit::api::definitions() {
                    let name = definition.metadata.name.clone().unwrap_or_default();
                    let definition = serde_json::to_value(&definition).expect("a CRD is JSON");
                    api.apply(definition).await.unwrap_or_else(|e| panic!("the API server refuses CRD {name}: {e}"));
                    super::eventually(&format!("CRD {name} is served"), || async {
                        let crd = api.get("CustomResourceDefinition", "", &name).await.ok_or("gone")?;
                        let established = |c: &Value| c["type"] == "Established" && c["status"] == "True";
                        let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
                        super::check(conditions.iter().any(established), || format!("{conditions:?}"))
                    })
                    .await;
                }
                api
            })
            .await
            .clone()
    }

    pub(super) async fn admin_config() -> Config {
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        let path = PATH.get_or_init(kubeconfig_path);
        let kubeconfig = Kubeconfig::read_from(path).expect("the kubeconfig can be read");
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a usable kubeconfig");
        config.default_retry = false;
        config.disable_compression = true;
        config
    }

    pub(super) fn of(config: Config) -> Self {
        Self { client: Client::try_from(config.clone()).expect("a client"), config }
    }

    /// Somebody else, by impersonation.
    pub fn as_user(&self, user: &str, groups: &[&str]) -> Self {
        let mut config = self.config.clone();
        config.auth_info.impersonate = Some(user.to_owned());
        let groups = groups.iter().copied().chain(["system:authenticated"]);
        config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).collect());
        Self::of(config)
    }

    /// Somebody who says by a header of each request who they are.
    pub fn as_nobody(&self) -> Self {
        let mut config = self.config.clone();
        config.auth_info = kube::config::AuthInfo::default();
        Self::of(config)
    }

    /// A ServiceAccount, with a token of its own.
    pub async fn as_account(&self, namespace: &str, name: &str) -> Self {
        let path = format!("{}/token", kind("ServiceAccount").path(namespace, name));
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}});
        let answer = self.request("POST", &path, None, Some(&request)).await.expect("a token");
        let mut config = self.config.clone();
        config.auth_info = kube::config::AuthInfo {
            token: Some(answer["status"]["token"].as_str().expect("a token").to_owned().into()),
            ..kube::config::AuthInfo::default()
        };
        Self::of(config)
    }

    /// Any request. `content` is the media type of the body. An API server that is (re)making the storage of a changed definition says so with
    /// 429, and every client waits for it.
    pub async fn request(&self, method: &str, path: &str, content: Option<&str>, body: Option<&Value>) -> Result<Value, Refused> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match self.request_once(method, path, content, body).await {
                Err(refused) if refused.code == 429 && refused.message.contains("initializing") && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn request_once(&self, method: &str, path: &str, content: Option<&str>, body: Option<&Value>) -> Result<Value, Refused> {
        let bytes = body.map(|b| serde_json::to_vec(b).expect("JSON")).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content.unwrap_or("application/json"))
            .body(Body::from(bytes))
            .expect("a request");
        let unreachable = |e: kube::Error| Refused { code: 0, reason: "Unreachable".into(), message: e.to_string() };
        let response = self.client.send(request).await.map_err(unreachable)?;
        let code = response.status();
        let bytes = response.into_body().collect_bytes().await.map_err(unreachable)?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        if code.is_success() {
            return Ok(answer);
        }
        let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
        Err(Refused {
            code: code.as_u16(),
            reason: text("reason"),
            message: if answer.is_string() { answer.to_string() } else { text("message") },
        })
    }

    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        match self.request("GET", &self::kind(kind).path(namespace, name), None, None).await {
            Ok(object) => Some(object),
            Err(refused) if refused.code == 404 => None,
            Err(refused) => panic!("get {kind} {namespace}/{name}: {refused}"),
        }
    }

    /// All of a namespace ("" for all namespaces) that bear the labels (`a=b,c`; "" for all).
    pub async fn list(&self, kind: &str, namespace: &str, labels: &str) -> Vec<Value> {
        let path = format!("{}?labelSelector={}", self::kind(kind).path(namespace, ""), labels.replace('=', "%3D").replace(',', "%2C"));
        let list = self.request("GET", &path, None, None).await.unwrap_or_else(|e| panic!("list {kind}: {e}"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Server-side apply, as `kubectl apply --server-side --force-conflicts`.
    pub async fn apply(&self, object: Value) -> Result<Value, Refused> {
        self.apply_as("tests", object).await
    }

    /// Server-side apply by a named field manager.
    pub async fn apply_as(&self, manager: &str, object: Value) -> Result<Value, Refused> {
        let path = format!("{}?fieldManager={manager}&force=true", path_of(&object));
        self.request("PATCH", &path, Some("application/apply-patch+yaml"), Some(&object)).await
    }

    pub async fn create(&self, object: Value) -> Result<Value, Refused> {
        let kind = self::kind(object["kind"].as_str().expect("kind"));
        let path = kind.path(object["metadata"]["namespace"].as_str().unwrap_or_default(), "");
        self.request("POST", &path, None, Some(&object)).await
    }

    /// A merge patch if it is an object, a JSON patch if it is a list.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, patch: Value) -> Result<Value, Refused> {
        let content = if patch.is_array() { "application/json-patch+json" } else { "application/merge-patch+json" };
        self.request("PATCH", &self::kind(kind).path(namespace, name), Some(content), Some(&patch)).await
    }

    pub async fn patch_status(&self, kind: &str, namespace: &str, name: &str, patch: Value) -> Result<Value, Refused> {
        let path = format!("{}/status", self::kind(kind).path(namespace, name));
        self.request("PATCH", &path, Some("application/merge-patch+json"), Some(&patch)).await
    }

    pub async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<Value, Refused> {
        self.request("DELETE", &self::kind(kind).path(namespace, name), None, None).await
    }

    /// kubectl as this user, with the administrator's kubeconfig: exit code 0, stdout.
    pub fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program("kubectl"));
        command.arg("--kubeconfig").arg(kubeconfig_path());
        if let Some(user) = &self.config.auth_info.impersonate {
            command.arg("--as").arg(user);
        }
        for group in self.config.auth_info.impersonate_groups.iter().flatten() {
            command.arg("--as-group").arg(group);
        }
        let output = command.args(args).output().expect("kubectl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, reason, message } = self;
        write!(f, "{code} {reason}: {message}")
    }
}

/// YAML documents as JSON.
pub fn documents_of(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap_or_else(|e| panic!("{e} in:\n{yaml}"));
    documents.into_iter().filter(|d| !d.is_null()).collect()
}

fn path_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    kind(&text(&object["kind"])).path(&text(&object["metadata"]["namespace"]), &text(&object["metadata"]["name"]))
}
