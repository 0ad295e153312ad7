//! A world: namespaces of its own, the chart's rights and admission bound to them, a proxy that shows operators nothing else.
//!
//! Names of a world begin with one prefix. The chart is rendered by Helm for the world's system namespace; what is cluster-scoped gets the
//! prefix, and what would act on all namespaces is bound to the world's by a label.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use remit::policy::signed::Signer;
use remit::policy::{Document, GuardPolicy};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{documents_of, program};
use super::proxy::WORLDS;
use super::{Api, Operator, OperatorConfig, Proxy, check, eventually};

/// The label on every namespace of a world.
pub const WORLD_LABEL: &str = "remit.test/world";

/// What the operators of tests may hand out.
const VALUES: &str = r#"
webhook: {timeoutSeconds: 5}
grantable:
  rules:
  - {apiGroups: [""], resources: [configmaps, pods], verbs: [get, list, watch]}
  - {apiGroups: [shop.example.com], resources: [orders, customers], verbs: [get, list, watch, create, update, patch, delete]}
"#;

/// A part of the API server for one test, or for the tests of one file.
pub struct World {
    /// The administrator.
    pub admin: Api,
    /// The operator's own account, with the chart's rights.
    pub account: Api,
    /// The proxy of operators started with [`World::operator`].
    pub proxy: Proxy,
    prefix: String,
    directory: PathBuf,
    namespaces: Mutex<Vec<String>>,
    settings: Value,
}

/// A namespace of a world.
pub type Namespace = String;

impl World {
    /// A new world. `name` is for people who read logs.
    pub async fn new(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        static RUN: LazyLock<String> = LazyLock::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            format!("{:x}{:x}", since.as_secs() % 0xff_ffff, std::process::id() % 0xfff)
        });
        let admin = Api::admin().await;
        sweep(&admin).await;
        let prefix = format!("{WORLDS}{}-{name}{}-", *RUN, COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("api").join(mark(&prefix));
        std::fs::create_dir_all(&directory).expect("a directory for logs");
        let system = format!("{prefix}system");
        admin
            .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": system, "labels": {WORLD_LABEL: mark(&prefix)}}}))
            .await
            .expect("the system namespace");
        for object in rendered(&system).await.iter().filter(|o| is_right(o)) {
            admin.apply(of_world(&prefix, object)).await.unwrap_or_else(|e| panic!("{}: {e}", object["metadata"]["name"]));
        }
        let account = admin.as_account(&system, "remit").await;
        let proxy = Proxy::start(account.clone(), &prefix).await;
        let settings = json!({
            "namespace": system,
            "serviceAccount": "remit",
            "webhook": {"configurations": [], "mutatingConfigurations": []},
            "lease": {"name": "remit-operator", "durationSeconds": 15},
            "cluster": {"podRanges": ["10.244.0.0/16", "2001:db8:10:244::/64"]},
            "guard": {"image": "none.example.com/guard:1", "cpuRequest": "10m", "memoryRequest": "24Mi", "memoryLimit": "96Mi"},
        });
        Self { admin, account, proxy, prefix, directory, namespaces: Mutex::new(vec![system]), settings }
    }

    /// The full name of a namespace (or of a cluster-scoped object) of this world.
    pub fn name(&self, short: &str) -> String {
        format!("{}{short}", self.prefix)
    }

    pub fn system(&self) -> String {
        self.name("system")
    }

    /// A new enrolled namespace, in which the operator may hand out what is grantable.
    pub async fn namespace(&self, short: &str) -> Namespace {
        self.namespace_with(short, json!({"remit.dev/enrolled": "true"})).await
    }

    /// A new namespace with these labels.
    pub async fn namespace_with(&self, short: &str, labels: Value) -> Namespace {
        let name = self.name(short);
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        object["metadata"]["labels"][WORLD_LABEL] = json!(mark(&self.prefix));
        self.admin.apply(object).await.unwrap_or_else(|e| panic!("namespace {name}: {e}"));
        self.namespaces.lock().expect("no panic while locked").push(name.clone());
        // As the chart's grantable.namespaces would.
        self.admin
            .apply(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": "remit-grantable", "namespace": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "remit-grantable"},
                "subjects": [{"kind": "ServiceAccount", "name": "remit", "namespace": self.system()}],
            }))
            .await
            .expect("the binding of what is grantable");
        name
    }

    /// A ScopeCeiling over the namespaces of this world that also bear the labels.
    pub async fn ceiling(&self, short: &str, labels: Value, spec: &str) -> String {
        let name = self.name(short);
        let mut spec = documents_of(spec).pop().unwrap_or_else(|| json!({}));
        let mut labels = labels;
        labels[WORLD_LABEL] = json!(mark(&self.prefix));
        spec["namespaceSelector"] = json!({"matchLabels": labels});
        self.admin
            .apply(json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": name}, "spec": spec}))
            .await
            .unwrap_or_else(|e| panic!("ceiling {short}: {e}"));
        name
    }

    /// An operator behind the world's proxy, ready.
    pub async fn operator(&self) -> Operator {
        self.operator_with(&self.proxy, OperatorConfig::default()).await
    }

    pub async fn operator_with(&self, proxy: &Proxy, config: OperatorConfig) -> Operator {
        let operator = self.start(proxy, &config);
        operator.ready().await;
        operator
    }

    /// An operator that may still be starting.
    pub fn start(&self, proxy: &Proxy, config: &OperatorConfig) -> Operator {
        let kubeconfig = self.directory.join(format!("kubeconfig-{}", proxy.port));
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://127.0.0.1:{}", proxy.port)}}],
            "users": [{"name": "none", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "none"}}],
        });
        std::fs::write(&kubeconfig, serde_json::to_vec(&content).expect("JSON")).expect("the kubeconfig is written");
        Operator::start(&self.directory, &kubeconfig, &self.system(), self.settings.clone(), config)
    }

    /// One more proxy with the operator's account, for a second operator.
    pub async fn another_proxy(&self) -> Proxy {
        Proxy::start(self.account.clone(), &self.prefix).await
    }

    /// The chart's webhooks and admission policies, acting on the namespaces of this world only. The webhooks lead to the operator's port
    /// on this machine; returns the settings that an operator needs for it.
    pub async fn admission(&self) -> OperatorConfig {
        self.admission_of(&["remit-scope", "remit-recorder"], &[]).await
    }

    /// The same, and pods are injected and judged as well.
    pub async fn admission_of_pods(&self) -> OperatorConfig {
        let mut config = self.admission_of(&["remit-scope", "remit-recorder", "remit-pods"], &["remit-inject"]).await;
        // What the chart's admission policies take for Remit's own.
        config.settings["guard"] = json!({"image": concat!("ghcr.io/remit-dev/remit-guard:", env!("CARGO_PKG_VERSION")), "cpuRequest": "10m", "memoryRequest": "24Mi", "memoryLimit": "96Mi"});
        let [port] = super::operator::free_ports();
        config.settings["guard"]["channel"] = json!({"port": port});
        config
    }

    async fn admission_of(&self, validating: &[&str], mutating: &[&str]) -> OperatorConfig {
        let [port] = super::operator::free_ports();
        let system = self.system();
        // The API server asks Services for webhooks; an ExternalName leads it to this machine, with the right name on the certificate.
        self.admin
            .apply(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "remit-webhook", "namespace": system},
                "spec": {"type": "ExternalName", "externalName": "localhost"},
            }))
            .await
            .expect("the webhook's Service");
        for object in rendered(&system).await.iter().filter(|o| is_admission(o)) {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if is_webhook(object) && !validating.contains(&name) && !mutating.contains(&name) {
                continue;
            }
            // The nets below the webhook would answer in its place (tests/chart/pods.sh asks them), or refuse every pod where there is none.
            if ["remit-guarded-pods", "remit-guards", "remit-guard-access", "remit-guard-tokens"]
                .contains(&name.trim_end_matches("-binding"))
            {
                continue;
            }
            let mut object = of_world(&self.prefix, object);
            let here = json!({WORLD_LABEL: mark(&self.prefix)});
            if object["kind"] == "ValidatingAdmissionPolicyBinding" {
                object["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] = here;
            } else if is_webhook(&object) {
                for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
                    webhook["clientConfig"]["service"]["port"] = json!(port);
                    if webhook["rules"].as_array().is_some_and(|rules| rules.iter().all(|r| r["scope"] == "Cluster")) {
                        let ours = format!("(object == null ? oldObject : object).metadata.name.startsWith('{}')", self.prefix);
                        let condition = json!({"name": "of-this-world", "expression": ours});
                        match webhook["matchConditions"].as_array_mut() {
                            Some(all) => all.push(condition),
                            None => webhook["matchConditions"] = json!([condition]),
                        }
                    } else {
                        for (key, value) in here.as_object().expect("a map") {
                            webhook["namespaceSelector"]["matchLabels"][key] = value.clone();
                        }
                    }
                }
            }
            self.admin.apply(object.clone()).await.unwrap_or_else(|e| panic!("{}: {e}", object["metadata"]["name"]));
        }
        OperatorConfig {
            settings: json!({"webhook": {"port": port, "service": "remit-webhook",
                "configurations": validating.iter().map(|n| self.name(n)).collect::<Vec<_>>(),
                "mutatingConfigurations": mutating.iter().map(|n| self.name(n)).collect::<Vec<_>>()}}),
            ..OperatorConfig::default()
        }
    }

    /// Applies an AIWorkload as the administrator, see [`workload`].
    pub async fn declare(&self, namespace: &str, name: &str, spec: &str) -> Value {
        self.admin.apply(workload(namespace, name, spec)).await.unwrap_or_else(|e| panic!("AIWorkload {namespace}/{name}: {e}"))
    }

    /// A Service with a selector `app: <name>` and one port.
    pub async fn service(&self, namespace: &str, name: &str, port: u16, target: Value) {
        self.admin
            .apply(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"app": name}, "ports": [{"name": "main", "port": port, "targetPort": target, "protocol": "TCP"}]},
            }))
            .await
            .unwrap_or_else(|e| panic!("Service {namespace}/{name}: {e}"));
    }

    /// A pod that stays Pending: there is no node.
    pub async fn pod(&self, namespace: &str, name: &str, labels: Value) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"containers": [{"name": "main", "image": "none.example.com/none:1"}], "terminationGracePeriodSeconds": 0},
        });
        // A new namespace has its default ServiceAccount a moment later.
        eventually(&format!("pod {namespace}/{name} can be made"), || async {
            self.admin.apply(pod.clone()).await.map_err(|e| e.to_string())
        })
        .await;
    }

    /// The spec of the workload's NetworkPolicy, if it is there.
    pub async fn policy(&self, namespace: &str, workload: &str) -> Option<Value> {
        Some(self.admin.get("NetworkPolicy", namespace, &format!("remit-{workload}")).await?["spec"].take())
    }

    /// The guards' policy of a workload, if it is there. The operator must have signed it.
    pub async fn guard_policy(&self, namespace: &str, workload: &str) -> Option<Value> {
        let map = self.admin.get("ConfigMap", namespace, &format!("remit-{workload}")).await?;
        let note = map["data"]["policy.note"].as_str().unwrap_or_else(|| panic!("no policy in {map}"));
        let secret = self.admin.get("Secret", &self.system(), "remit-guard-key").await.expect("the operator's key");
        let seed: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["seed"].clone()).expect("base64");
        let signer = Signer::from_seed(&seed.0.try_into().expect("32 bytes"));
        let text = signer.trust().open(note).unwrap_or_else(|e| panic!("{e}:\n{note}"));
        let document = Document::read(text.as_bytes()).expect("a document");
        GuardPolicy::try_from(document).expect("one that guards take");
        Some(serde_json::from_str(text).expect("JSON"))
    }

    /// Every generated object of a workload, in all namespaces, as `Kind namespace/name`.
    pub async fn generated(&self, namespace: &str, workload: &str) -> Vec<String> {
        let labels = format!("app.kubernetes.io/managed-by=remit,remit.dev/workload={workload},remit.dev/workload-namespace={namespace}");
        let mut all = Vec::new();
        for kind in ["NetworkPolicy", "ConfigMap", "ServiceAccount", "Role", "RoleBinding"] {
            for object in self.admin.list(kind, "", &labels).await {
                let meta = &object["metadata"];
                all.push(format!(
                    "{kind} {}/{}",
                    meta["namespace"].as_str().unwrap_or_default(),
                    meta["name"].as_str().unwrap_or_default()
                ));
            }
        }
        all
    }

    /// Successful writes of the operator in these namespaces.
    pub fn tally_in(&self, namespaces: &[&str]) -> std::collections::BTreeMap<String, usize> {
        let seen: Vec<_> = self.proxy.writes().into_iter().filter(|s| namespaces.contains(&s.namespace.as_str())).collect();
        super::proxy::tally(&seen)
    }

    /// Somebody who is bound to these ClusterRoles in these namespaces.
    pub async fn person(&self, user: &str, rights: &[(&str, &str)]) -> Api {
        for (namespace, role) in rights {
            self.admin
                .apply(json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"name": format!("{user}-{role}"), "namespace": namespace},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
                }))
                .await
                .unwrap_or_else(|e| panic!("{role} for {user}: {e}"));
        }
        let person = self.admin.as_user(user, &[]);
        if let Some((namespace, _)) = rights.last() {
            self.is_known(&person, user, namespace).await;
        }
        person
    }

    /// Waits until the API server's authorizer knows the bindings that were written so far: it learns of them in their order, so the
    /// last one's right, which nobody had before, shows them all.
    async fn is_known(&self, person: &Api, user: &str, namespace: &str) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("known-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let metadata = json!({"name": name, "namespace": namespace});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [{"apiGroups": ["remit.test"], "resources": ["rights"], "resourceNames": [name], "verbs": ["know"]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        for object in [role, binding] {
            self.admin.create(object).await.unwrap_or_else(|e| panic!("{name} for {user}: {e}"));
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"group": "remit.test", "resource": "rights", "verb": "know", "name": name, "namespace": namespace}},
        });
        eventually(&format!("the rights of {user} in {namespace} are known"), || async {
            let answer = person.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", None, Some(&review)).await;
            let answer = answer.map_err(|e| e.to_string())?;
            check(answer["status"]["allowed"] == true, || answer["status"].to_string())
        })
        .await;
    }

    /// A ClusterRole that may label namespaces.
    pub async fn labeller(&self) -> String {
        let name = self.name("labeller");
        self.admin
            .apply(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
                "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "patch", "update"]}],
            }))
            .await
            .expect("a ClusterRole");
        name
    }

    /// Waits until the AIWorkload's condition is so, and speaks of the newest generation; returns its message.
    pub async fn condition(&self, namespace: &str, name: &str, type_: &str, status: &str, reason: &str) -> String {
        eventually(&format!("{namespace}/{name} is {type_}={status} ({reason})"), || async {
            let workload = self.admin.get("AIWorkload", namespace, name).await.ok_or("it is gone")?;
            has_condition(&workload, type_, status, reason)
        })
        .await
        .0
    }

    /// Waits until the AIWorkload is Ready.
    pub async fn is_ready(&self, namespace: &str, name: &str) {
        self.condition(namespace, name, "Ready", "True", "").await;
    }
}

/// An AIWorkload: `spec` is YAML; without a selector it selects `app: <name>`, without a mode it is Enforce.
pub fn workload(namespace: &str, name: &str, spec: &str) -> Value {
    let mut spec = documents_of(spec).pop().unwrap_or_else(|| json!({}));
    if spec.get("selector").is_none() {
        spec["selector"] = json!({"matchLabels": {"app": name}});
    }
    if spec.get("mode").is_none() {
        spec["mode"] = json!("Enforce");
    }
    json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

/// What a policy opens beside the way of guards to the operator (and to DNS, which the API tier has not).
pub fn opened(policy: &Value) -> Vec<Value> {
    let operator = |rule: &Value| rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "operator";
    policy["egress"].as_array().into_iter().flatten().filter(|rule| !operator(rule)).cloned().collect()
}

/// The message of the condition if it is so ("" for any reason) for the newest generation.
pub fn has_condition(workload: &Value, type_: &str, status: &str, reason: &str) -> Result<String, String> {
    let generation = &workload["metadata"]["generation"];
    let conditions = workload["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions
        .iter()
        .find(|c| c["type"] == type_)
        .filter(|c| c["status"] == status && (reason.is_empty() || c["reason"] == reason) && c["observedGeneration"] == *generation);
    match found {
        Some(condition) => Ok(condition["message"].as_str().unwrap_or_default().to_owned()),
        None => Err(format!("generation {generation}: {}", workload["status"])),
    }
}

impl Drop for World {
    /// Lets its namespaces go, without waiting; finalizers are taken off, because no operator is left to do so.
    fn drop(&mut self) {
        if std::env::var_os("REMIT_TEST_KEEP").is_some() {
            return;
        }
        let admin = self.admin.clone();
        let prefix = self.prefix.clone();
        let namespaces = std::mem::take(&mut *self.namespaces.lock().expect("no panic while locked"));
        // On a thread of its own: this one may be in the middle of polling a test, whose wake-ups would get lost.
        let done = std::thread::spawn(move || super::RUNTIME.block_on(clear(&admin, &prefix, namespaces))).join();
        if done.is_err() {
            eprintln!("a world of the tests could not be cleared away");
        }
    }
}

/// Takes a world away, without waiting for its namespaces to be gone.
async fn clear(admin: &Api, prefix: &str, namespaces: Vec<String>) {
    let cluster_scoped = [
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicy",
        "ScopeCeiling",
        "ClusterRoleBinding",
        "ClusterRole",
        "Node",
        "ServiceCIDR",
    ];
    for kind in cluster_scoped {
        for object in admin.list(kind, "", "").await {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if name.starts_with(prefix) {
                let _ = admin.delete(kind, "", name).await;
            }
        }
    }
    for namespace in namespaces {
        for workload in admin.list("AIWorkload", &namespace, "").await {
            let name = workload["metadata"]["name"].as_str().unwrap_or_default();
            let _ = admin.patch("AIWorkload", &namespace, name, json!({"metadata": {"finalizers": null}})).await;
        }
        let _ = admin.delete("Namespace", "", &namespace).await;
    }
}

/// Once per process: takes away the worlds of earlier runs that had no time to do so.
async fn sweep(admin: &Api) {
    const OLD: u64 = 20 * 60;
    static DONE: OnceCell<()> = OnceCell::const_new();
    DONE.get_or_init(|| async {
        let namespaces = admin.request("GET", "/api/v1/namespaces?labelSelector=remit.test%2Fworld", None, None).await.expect("namespaces");
        let now = SystemTime::now();
        for namespace in namespaces["items"].as_array().into_iter().flatten() {
            let meta = &namespace["metadata"];
            let created = meta["creationTimestamp"].as_str().and_then(|t| t.parse::<k8s_openapi::jiff::Timestamp>().ok()).expect("a time");
            let age = now.duration_since(SystemTime::from(created)).unwrap_or_default();
            if age.as_secs() > OLD && meta.get("deletionTimestamp").is_none() {
                let prefix = format!("{}-", meta["labels"][WORLD_LABEL].as_str().unwrap_or("rt-none"));
                clear(admin, &prefix, vec![meta["name"].as_str().unwrap_or_default().to_owned()]).await;
            }
        }
    })
    .await;
}

/// The prefix as a label's value.
fn mark(prefix: &str) -> &str {
    prefix.trim_end_matches('-')
}

/// The chart, rendered for this system namespace.
async fn rendered(system: &str) -> Vec<Value> {
    const PLACE: &str = "remit-test-system";
    static CHART: OnceCell<String> = OnceCell::const_new();
    let text = CHART
        .get_or_init(|| async {
            let values = Path::new(env!("CARGO_TARGET_TMPDIR")).join("values.yaml");
            std::fs::write(&values, VALUES).expect("the values are written");
            let output = Command::new(program("helm"))
                .args([
                    "template",
                    "remit",
                    concat!(env!("CARGO_MANIFEST_DIR"), "/charts/remit"),
                    "--namespace",
                    PLACE,
                    "--set",
                    "podSecurity=None",
                    "--values",
                ])
                .arg(&values)
                .output()
                .expect("helm starts");
            assert!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("UTF-8")
        })
        .await;
    documents_of(&text.replace(PLACE, system))
}

fn is_right(object: &Value) -> bool {
    let hook = object["metadata"]["annotations"].get("helm.sh/hook").is_some();
    matches!(object["kind"].as_str(), Some("ServiceAccount" | "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding")) && !hook
}

fn is_admission(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| kind.starts_with("Validating") || kind.starts_with("Mutating"))
}

fn is_webhook(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| kind.ends_with("WebhookConfiguration"))
}

/// The same object with names that are the world's own, where several worlds would share it. The roles of people and what is
/// grantable are the same for all.
fn of_world(prefix: &str, object: &Value) -> Value {
    let mut object = object.clone();
    let own = |name: &str| format!("{prefix}{name}");
    let shared = |name: &str| {
        ["remit-grantable", "remit-grantable-values", "remit-evict", "remit-view", "remit-edit", "remit-release"].contains(&name)
    };
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if (kind.starts_with("Cluster") || is_admission(&object)) && !shared(&name) {
        object["metadata"]["name"] = json!(own(&name));
    }
    if object["roleRef"]["kind"] == "ClusterRole" {
        let role = object["roleRef"]["name"].as_str().unwrap_or_default().to_owned();
        if !shared(&role) {
            object["roleRef"]["name"] = json!(own(&role));
        }
    }
    if let Some(policy) = object["spec"]["policyName"].as_str().map(own) {
        object["spec"]["policyName"] = json!(policy);
    }
    if kind == "ClusterRole" {
        for rule in object["rules"].as_array_mut().into_iter().flatten() {
            let renamed: HashMap<&str, String> =
                ["remit-scope", "remit-recorder", "remit-pods", "remit-inject"].map(|n| (n, own(n))).into();
            for name in rule["resourceNames"].as_array_mut().into_iter().flatten() {
                if let Some(new) = name.as_str().and_then(|n| renamed.get(n)) {
                    *name = json!(new);
                }
            }
        }
    }
    object
}
