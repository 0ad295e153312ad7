//! `AIWorkload`: what an AI service may reach.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The scope of an AI service: the data sources it may reach and who may call it. Whatever is absent is denied.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[kube(
    group = "remit.dev",
    version = "v1alpha1",
    kind = "AIWorkload",
    plural = "aiworkloads",
    shortname = "aiw",
    category = "remit",
    namespaced,
    status = "AIWorkloadStatus",
    doc = "AIWorkload declares what one AI service may reach. Remit compiles it to network policies and Kubernetes permissions; whatever it does not name is denied.",
    selectable = ".spec.mode",
    derive = "PartialEq",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", description = "Observe or Enforce"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "True when every object of the plan is in place (Observe: the plan is computed)"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "Why Ready is as it is"),
    printcolumn(name = "Guarded", type_ = "string", json_path = ".status.pods.summary", description = "Governed pods whose guard enforces the current policy, of all"),
    printcolumn(name = "Purpose", type_ = "string", json_path = ".spec.purpose", priority = 1, description = "What the service is for"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since creation"),
    validation = Rule::new("self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name: use at most 52 lower-case letters, digits and dashes (generated objects carry it as a label)"),
)]
#[serde(rename_all = "camelCase")]
pub struct AIWorkloadSpec {
    /// What the service is for, in a sentence a reviewer understands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub purpose: Option<String>,

    /// The pods this scope governs, whatever owns them. New ones get their guard and their account when they are made; running ones are never edited. Two AIWorkloads of a namespace whose selectors could
    /// select one pod conflict: one in Enforce governs before one in Observe, then the older. At least one requirement is needed.
    #[x_kube(validation = Rule::new("(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)").message("selector: name at least one label, for example matchLabels: {app: my-service}; an empty selector would govern every pod of the namespace"))]
    pub selector: LabelSelector,

    /// Enforce holds the plan: the network layer, permissions, admission, and guards that refuse what is not declared. Observe writes nothing
    /// that denies: it computes the plan, and guards let everything pass and write down what Enforce would refuse.
    pub mode: Mode,

    /// The ServiceAccount that the Kubernetes permissions are bound to. When absent, Remit makes one with the name of the AIWorkload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,

    /// What the service may reach. Absent or empty: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub data_sources: Vec<DataSource>,

    /// How the service may act and be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,

    /// What becomes of governed pods that have no guard because they are older than their AIWorkload.
    #[serde(default)]
    pub unguarded_pods: UnguardedPods,

    /// Kill switch: while true, every connection is denied, guards cut those that are open, and every Kubernetes permission is withdrawn,
    /// whatever else is declared. In Observe as well, as far as the guard reaches: pods without one, and permissions, stay as they are.
    #[serde(default)]
    pub suspend: bool,
}

/// Whether the scope is held or only computed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Compute the plan and report; guards let everything pass and write down what Enforce would refuse.
    Observe,
    /// Hold the plan; guards refuse what is not declared.
    Enforce,
}

/// What becomes of governed pods that have no guard.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnguardedPods {
    /// They are counted and named in the status, and stay.
    #[default]
    Keep,
    /// Those of Deployments, ReplicaSets, StatefulSets and DaemonSets are evicted one by one, the next when a pod with a guard is ready
    /// in place of the last. PodDisruptionBudgets hold. Needs the right to create `pods/eviction`: of its author, and in that namespace of
    /// the operator (the chart's `evict.namespaces`).
    Evict,
}

/// A label selector: all requirements must hold.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), extend("additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement on a label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.operator in ['In', 'NotIn'] ? (has(self.values) && size(self.values) > 0) : (!has(self.values) || size(self.values) == 0)").message("values: needed with In and NotIn, not allowed with Exists and DoesNotExist"))]
#[serde(rename_all = "camelCase")]
pub struct LabelRequirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 316))]
    pub key: String,
    /// How the label's value is compared.
    pub operator: LabelOperator,
    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// Who the service is towards the Kubernetes API.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// An existing ServiceAccount of this namespace. It is kept as it is (so a cloud identity bound to it stays).
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account_name: String,
}

/// Something the service may reach.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("(self.type == 'Service') == has(self.service)").message("service: set it exactly when type is Service"),
    validation = Rule::new("(self.type == 'Host') == has(self.host)").message("host: set it exactly when type is Host"),
    validation = Rule::new("(self.type == 'Kubernetes') == has(self.kubernetes)").message("kubernetes: set it exactly when type is Kubernetes"),
    validation = Rule::new("(self.type == 'ConfigMap') == has(self.configMap)").message("configMap: set it exactly when type is ConfigMap"),
    validation = Rule::new("(self.type == 'Secret') == has(self.secret)").message("secret: set it exactly when type is Secret"),
    validation = Rule::new("(self.type == 'PersistentVolumeClaim') == has(self.persistentVolumeClaim)").message("persistentVolumeClaim: set it exactly when type is PersistentVolumeClaim"),
    validation = Rule::new("self.access == 'ReadWrite' || !((has(self.service) && self.service.protocol == 'TCP') || (has(self.host) && self.host.protocol == 'TLS'))").message("access: nothing can hold a raw TCP connection to Read; declare access: ReadWrite, so that nobody believes it is read-only"),
    validation = Rule::new("!(self.type in ['ConfigMap', 'Secret']) || self.access == 'Read'").message("access: a mounted ConfigMap or Secret is read-only; leave access out or declare Read"),
    validation = Rule::new("self.access == 'ReadWrite' || ((!has(self.service) || !has(self.service.http) || self.service.http.all(r, !has(r.methods) || r.methods.all(m, m in ['GET', 'HEAD', 'OPTIONS', 'POST']))) && (!has(self.host) || !has(self.host.http) || self.host.http.all(r, !has(r.methods) || r.methods.all(m, m in ['GET', 'HEAD', 'OPTIONS', 'POST']))))").message("http[].methods: with access Read only GET, HEAD, OPTIONS and POST can be declared; declare access: ReadWrite"),
    validation = Rule::new("self.access == 'ReadWrite' || ((!has(self.service) || !has(self.service.http) || self.service.http.all(r, (has(r.paths) && size(r.paths) > 0) || ((!has(r.upgrades) || size(r.upgrades) == 0) && (!has(r.methods) || !('POST' in r.methods))))) && (!has(self.host) || !has(self.host.http) || self.host.http.all(r, (has(r.paths) && size(r.paths) > 0) || ((!has(r.upgrades) || size(r.upgrades) == 0) && (!has(r.methods) || !('POST' in r.methods))))))").message("http[].paths: with access Read, POST and upgrades need the paths on which they only read; name the paths, or declare access: ReadWrite")
)]
#[serde(rename_all = "camelCase")]
pub struct DataSource {
    /// A name of your choice, unique in this AIWorkload; findings and denials refer to it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How sensitive the data are. Absent counts as Restricted; a ScopeCeiling may forbid a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// What kind of thing it is; the member of the same name describes it.
    #[serde(rename = "type")]
    pub type_: DataSourceType,
    /// Read is not write. Absent means Read; an access that no layer can hold is refused.
    #[serde(default)]
    pub access: Access,
    /// A Service of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSource>,
    /// A host outside the cluster, told from others by the guard: by the server name in TLS, or by who is asked in HTTP. The network layer alone, which
    /// holds pods without a guard, opens its port towards all public addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostSource>,
    /// Objects of the Kubernetes API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesSource>,
    /// A ConfigMap of this namespace that the pods may mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ObjectSource>,
    /// A Secret of this namespace that the pods may mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectSource>,
    /// A PersistentVolumeClaim of this namespace that the pods may mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ObjectSource>,
}

/// How sensitive data are.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Anybody may know it.
    Public,
    /// Anybody in the organisation may know it.
    Internal,
    /// Few may know it.
    Restricted,
}

/// The kinds of data source.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSourceType {
    /// A Service of this cluster.
    Service,
    /// A host outside the cluster.
    Host,
    /// Objects of the Kubernetes API.
    Kubernetes,
    /// A ConfigMap that the pods may mount.
    ConfigMap,
    /// A Secret that the pods may mount.
    Secret,
    /// A PersistentVolumeClaim that the pods may mount.
    PersistentVolumeClaim,
}

/// What may be done with a data source.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Look, and change nothing.
    #[default]
    Read,
    /// Look and change.
    ReadWrite,
}

/// Variables that a base URL may not be put into: programs take them for something else, or Remit sets them. A `*` at the end stands for anything.
pub const NEVER_A_BASE_URL: [&str; 39] = [
    "BASH_ENV",
    "CLASSPATH",
    "CORECLR_*",
    "DOTNET_*",
    "DYLD_*",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "HOME",
    "HOSTNAME",
    "IFS",
    "JAVA_OPTS",
    "JDK_JAVA_OPTIONS",
    "KUBERNETES_*",
    "LD_*",
    "LUA_*",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PATH",
    "PERL5LIB",
    "PERL5OPT",
    "PYTHON*",
    "RUBYLIB",
    "RUBYOPT",
    "SHELL",
    "TMPDIR",
    "USER",
    "_JAVA_OPTIONS",
    "AWS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "DENO_CERT",
    "GIT_SSL_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "JAVA_TOOL_OPTIONS",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
];
const BASE_URL_ENV_RULE: &str = "self.all(n, !(n in ['BASH_ENV', 'CLASSPATH', 'ENV', 'GCONV_PATH', 'GLIBC_TUNABLES', 'HOME', 'HOSTNAME', 'IFS', 'JAVA_OPTS', 'JDK_JAVA_OPTIONS', 'NODE_OPTIONS', 'NODE_PATH', 'PATH', 'PERL5LIB', 'PERL5OPT', 'RUBYLIB', 'RUBYOPT', 'SHELL', 'TMPDIR', 'USER', '_JAVA_OPTIONS', 'AWS_CA_BUNDLE', 'CURL_CA_BUNDLE', 'DENO_CERT', 'GIT_SSL_CAINFO', 'GRPC_DEFAULT_SSL_ROOTS_FILE_PATH', 'HTTPLIB2_CA_CERTS', 'JAVA_TOOL_OPTIONS', 'NODE_EXTRA_CA_CERTS', 'PIP_CERT', 'REQUESTS_CA_BUNDLE', 'SSL_CERT_FILE']) && !n.startsWith('CORECLR_') && !n.startsWith('DOTNET_') && !n.startsWith('DYLD_') && !n.startsWith('KUBERNETES_') && !n.startsWith('LD_') && !n.startsWith('LUA_') && !n.startsWith('PYTHON'))";
const BASE_URL_ENV_MESSAGE: &str =
    "baseURLEnv: programs take this variable for something else, or Remit sets it; name the one that your client reads its base URL from";

/// A Service of this cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("self.protocol != 'TCP' || ((!has(self.http) || size(self.http) == 0) && (!has(self.baseURLEnv) || size(self.baseURLEnv) == 0))").message("http, baseURLEnv: only what is HTTP can be judged request by request; set protocol: HTTP or HTTPS, or leave them out"),
    validation = Rule::new("self.protocol == 'HTTPS' || !has(self.tlsInspection) || self.tlsInspection == 'Disabled'").message("tlsInspection: there is TLS to look into with protocol HTTPS only; leave it out")
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSource {
    /// The Service's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The Service's namespace; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// The Service's port (not the port of its pods).
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// What is spoken on the port.
    pub protocol: Protocol,
    /// What may be asked, request by request: whatever one of the rules allows. Absent or empty: every path, with the methods that `access` allows. Goes
    /// with protocol HTTP and HTTPS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub http: Vec<HttpRule>,
    /// Whether the guard also ends the app's own TLS, with a certificate of an authority that the pod's app is given to trust. Absent means Disabled: the
    /// app asks through its base URL, `http://127.0.0.1:15474/<name of the data source>`, and its own TLS is refused. Goes with protocol HTTPS. Pods
    /// that are older than this field's change have no such authority: make them anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_inspection: Option<TlsInspection>,
    /// Variables that new pods' containers get with the base URL, where the pod does not set them itself. Goes with protocol HTTP and HTTPS.
    #[serde(default, rename = "baseURLEnv", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$")))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new(BASE_URL_ENV_RULE).message(BASE_URL_ENV_MESSAGE))]
    pub base_url_env: Vec<String>,
}

/// What is spoken on a port of a Service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Any TCP; nothing inside the connection is judged.
    TCP,
    /// HTTP/1.1 or HTTP/2 in the clear: every request is judged.
    HTTP,
    /// HTTP in TLS: every request is judged that comes through the base URL, or with tlsInspection; the guard begins the TLS.
    HTTPS,
}

/// A host outside the cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("self.protocol != 'TLS' || ((!has(self.http) || size(self.http) == 0) && (!has(self.baseURLEnv) || size(self.baseURLEnv) == 0))").message("http, baseURLEnv: only what is HTTP can be judged request by request; set protocol: HTTP or HTTPS, or leave them out"),
    validation = Rule::new("self.protocol == 'HTTPS' || !has(self.tlsInspection) || self.tlsInspection == 'Disabled'").message("tlsInspection: there is TLS to look into with protocol HTTPS only; leave it out")
)]
#[serde(rename_all = "camelCase")]
pub struct HostSource {
    /// The host's full DNS name, in lower case; no address, no wildcard.
    #[schemars(length(min = 4, max = 253), regex(pattern = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"))]
    pub name: String,
    /// The TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// What is spoken on the port.
    #[serde(default)]
    pub protocol: HostProtocol,
    /// What may be asked, request by request: whatever one of the rules allows. Absent or empty: every path, with the methods that `access` allows. Goes
    /// with protocol HTTP and HTTPS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub http: Vec<HttpRule>,
    /// Whether the guard also ends the app's own TLS, with a certificate of an authority that the pod's app is given to trust. Absent means Disabled: the
    /// app asks through its base URL, `http://127.0.0.1:15474/<name of the data source>`, and its own TLS is refused. Goes with protocol HTTPS. Pods
    /// that are older than this field's change have no such authority: make them anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_inspection: Option<TlsInspection>,
    /// Variables that new pods' containers get with the base URL, where the pod does not set them itself. Goes with protocol HTTP and HTTPS.
    #[serde(default, rename = "baseURLEnv", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$")))]
    #[x_kube(merge_strategy = ListMerge::Set, validation = Rule::new(BASE_URL_ENV_RULE).message(BASE_URL_ENV_MESSAGE))]
    pub base_url_env: Vec<String>,
}

/// What is spoken on a port of a host.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostProtocol {
    /// TLS that is passed on by its server name; nothing inside it is judged.
    #[default]
    TLS,
    /// HTTP/1.1 or HTTP/2 in the clear: every request is judged.
    HTTP,
    /// HTTP in TLS: every request is judged that comes through the base URL, or with tlsInspection; the guard begins the TLS.
    HTTPS,
}

/// What may be asked: one of the methods on one of the paths.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[x_kube(validation = Rule::new("!has(self.upgrades) || size(self.upgrades) == 0 || !has(self.methods) || size(self.methods) == 0 || 'GET' in self.methods").message("upgrades: a WebSocket begins with GET; name GET among the methods, or leave methods out"))]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    /// Methods, in upper case; HEAD goes wherever GET does. Absent or empty: GET, HEAD and OPTIONS with access Read, any with ReadWrite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32), regex(pattern = r"^[A-Z]([-A-Z]*[A-Z])?$")))]
    #[x_kube(validation = Rule::new("self.all(m, !(m in ['CONNECT', 'TRACE']))").message("methods: CONNECT and TRACE are never let through; leave them out"))]
    pub methods: Vec<String>,
    /// Paths. Absent or empty: every path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub paths: Vec<HttpPath>,
    /// Protocols that a GET may switch to. What is said in them is not judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1))]
    pub upgrades: Vec<Upgrade>,
}

/// Paths that are declared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HttpPath {
    /// How it is compared.
    #[serde(rename = "type")]
    pub type_: HttpPathType,
    /// The path, without query, as in `/v1/articles`. Case counts, and escapes mean what they stand for.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^/[^?#\\\s]*$"))]
    pub value: String,
}

/// How a path is compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpPathType {
    /// This path.
    Exact,
    /// This path and what lies below it, segment by segment: `/a` holds `/a` and `/a/b`, not `/ab`.
    PathPrefix,
}

/// A protocol that a connection may switch to.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// WebSocket (RFC 6455).
    WebSocket,
}

/// Whether the guard looks into the app's own TLS.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsInspection {
    /// No: the app asks through its base URL.
    Disabled,
    /// Yes: the guard ends the TLS with a certificate of its own.
    Enabled,
}

/// Objects of the Kubernetes API. Read becomes get, list and watch; ReadWrite adds create, update, patch and delete.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesSource {
    /// API groups; "" is the core group. No wildcard.
    #[schemars(length(min = 1, max = 8), inner(length(max = 253), regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")))]
    pub api_groups: Vec<String>,
    /// Resources in the plural, as in `kubectl api-resources`; a subresource as resource/subresource. No wildcard.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9][-a-z0-9.]*(/[a-z0-9][-a-z0-9.]*)?$"))
    )]
    pub resources: Vec<String>,
    /// Only objects with these names; absent or empty: all names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9._:]*[A-Za-z0-9])?$")))]
    pub resource_names: Vec<String>,
    /// The namespace of the objects; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// An object of this namespace, by name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectSource {
    /// The object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// How the service may act and be called.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Who may call the service. Absent or empty: nobody (the kubelet's probes always pass).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub clients: Vec<Client>,
}

/// A caller of the service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("has(self.podSelector) != has(self.ipBlock)").message("clients: give podSelector or ipBlock, and only one of them"),
    validation = Rule::new("!has(self.ipBlock) || !has(self.namespace)").message("namespace: goes with podSelector, not with ipBlock")
)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// A name of your choice, unique in this AIWorkload.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The namespace of the calling pods; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// The calling pods. An empty selector means every pod of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Addresses outside the cluster, such as a load balancer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
    /// The port of the service's pods that is called.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

/// A block of addresses.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IpBlock {
    /// The block, for example 192.0.2.0/24 or 2001:db8::/64.
    #[schemars(length(min = 3, max = 49))]
    pub cidr: String,
    /// Parts of the block that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 3, max = 49)))]
    pub except: Vec<String>,
}

/// What the operator found and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AIWorkloadStatus {
    /// The generation this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Digest of the scope as it is held, after ceilings. Equal digests mean equal scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_digest: Option<String>,
    /// Since when it is in Enforce. Pods that are older were never judged by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced_since: Option<Time>,
    /// The pods that it governs, and their guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodsStatus>,
    /// What judges each of the data sources that are held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sources: Vec<SourceStatus>,
    /// Accepted: the scope is valid and within its ceilings. Applied: every object of the plan is in place (Observe: the plan is computed). Ready: both. Guarded: a guard enforces the scope of every governed pod. BreakGlass, only while it lasts: an exception for debugging, until when, by whom and why. Reconciling and Stalled as kstatus reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A data source that is held.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Its name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// What is looked at.
    pub judged_by: JudgedBy,
}

/// What is looked at where a data source is used.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum JudgedBy {
    /// The guard judges every request: who is asked, method and path.
    Requests,
    /// The guard passes TLS by its server name; what is said in it nobody sees.
    ServerName,
    /// The guard passes connections by where they go; what is said on them nobody sees.
    Address,
    /// The API server judges every request, by the permissions of the account.
    Permissions,
    /// Admission judges what pods mount.
    Mounts,
}

/// The pods that an AIWorkload governs, and their guards.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodsStatus {
    /// Pods that it selects, and that run or will.
    #[serde(default)]
    pub matched: i32,
    /// Those whose guard was heard of within the last minute and enforces a policy.
    #[serde(default)]
    pub guarded: i32,
    /// Those with a guard that are older than Enforce: what their templates ask for was never refused.
    #[serde(default)]
    pub unjudged: i32,
    /// Those whose guard enforces another policy than the current one.
    #[serde(default)]
    pub stale: i32,
    /// How many pods were judged and have a guard that enforces the current policy, of how many: for people.
    #[serde(default)]
    pub summary: String,
    /// The pod that was evicted last, to be replaced by one with a guard (unguardedPods: Evict).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacing: Option<Replacing>,
}

/// A pod that is evicted, to be replaced by one with a guard.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Replacing {
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its controller: kind and name, of a ReplicaSet the name of its Deployment.
    pub controller: String,
    /// How many pods of that controller had a guard then: one more, and the next may be evicted.
    pub guarded: i32,
    /// When its eviction was decided.
    pub since: Time,
}
