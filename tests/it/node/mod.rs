//! The node tier: a real node, real pods, packets.
//!
//! What only a cluster can show: that a declared scope is all that is reached, over both address families, each refusal against a
//! positive control; and that the chart comes and goes and leaves nothing behind. Needs the embedded cluster
//! (`make cluster`) with the project's images loaded; fails, never skips, where it is missing.

mod account;
mod attacks;
mod attacks_http;
mod certificates;
mod guard;
mod http;
mod lifecycle;
mod memory;
mod network;
mod replace;
mod starts;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{OnceLock, RwLock};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

/// The embedded cluster.
pub struct Cluster {
    root: PathBuf,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

/// The outcome of one probe.
#[derive(Debug, Clone, Deserialize)]
pub struct Probe {
    pub ok: bool,
    #[serde(default)]
    pub answer: String,
}

/// Tests of the installed operator share it; those of installing have the cluster for themselves.
static INSTALLED: RwLock<()> = RwLock::new(());

/// Image of the operator in the cluster's containerd.
const OPERATOR_IMAGE: &str = "remit.test/operator";
/// And of the guard.
const GUARD_IMAGE: &str = "remit.test/guard";

pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let base = root.join("target/cluster");
        let kubeconfig = base.join("kubeconfig");
        assert!(kubeconfig.exists(), "the node tier needs a cluster: run `make cluster` (root), or the whole with `make test`");
        Cluster { kubectl: base.join("bin/kubectl"), root, kubeconfig }
    })
}

/// The cluster with the operator installed from the chart.
pub fn installed() -> (&'static Cluster, std::sync::RwLockReadGuard<'static, ()>) {
    static ONCE: OnceLock<()> = OnceLock::new();
    let cluster = cluster();
    ONCE.get_or_init(|| {
        let _alone = INSTALLED.write().unwrap_or_else(|e| e.into_inner());
        cluster.helm_install("helm", &[]);
    });
    (cluster, INSTALLED.read().unwrap_or_else(|e| e.into_inner()))
}

impl Cluster {
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where the logs of the pods lie.
    pub fn logs(&self) -> PathBuf {
        self.root.join("target/cluster/state/varlog/pods")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command
    }

    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        let path = match program {
            "kubectl" => self.kubectl.clone(),
            "cluster.sh" => self.root.join("tests/cluster/cluster.sh"),
            other => self.root.join("target/cluster/bin").join(other),
        };
        self.command(&path).args(args).output().unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Standard output; panics with everything the command said where it fails.
    pub fn ok(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args);
        assert!(output.status.success(), "{program} {args:?}\n{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        self.ok("kubectl", args)
    }

    pub fn apply(&self, yaml: &str) {
        let output = self.apply_with(yaml, &[]);
        assert!(output.status.success(), "kubectl apply: {}\n{yaml}", text(&output.stderr));
    }

    pub fn apply_with(&self, yaml: &str, args: &[&str]) -> Output {
        let mut child = self
            .command(&self.kubectl)
            .args(["apply", "-f", "-"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        child.stdin.take().expect("piped").write_all(yaml.as_bytes()).expect("kubectl reads");
        child.wait_with_output().expect("kubectl ends")
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.kubectl(&args)).expect("kubectl prints JSON")
    }

    /// All targets at once, from inside the pod.
    pub fn probe(&self, namespace: &str, pod: &str, targets: &[String]) -> BTreeMap<String, Probe> {
        let mut args = vec!["exec", "-n", namespace, pod, "--", "probe", "batch", "--timeout", "1500ms"];
        args.extend(targets.iter().map(String::as_str));
        serde_json::from_str(&self.kubectl(&args)).expect("probe prints JSON")
    }

    /// Those of the targets that were reached.
    pub fn reached(&self, namespace: &str, pod: &str, targets: &[String]) -> Vec<String> {
        let mut reached: Vec<String> = self.probe(namespace, pod, targets).into_iter().filter(|(_, p)| p.ok).map(|(t, _)| t).collect();
        reached.sort();
        reached
    }

    /// Exactly these of the targets are reached, as soon as the node's policy engine has caught up (Ready speaks of the API), and again.
    pub fn settles(&self, namespace: &str, pod: &str, targets: &[String], expected: &[String], why: &str) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.reached(namespace, pod, targets) != expected && Instant::now() < deadline {}
        assert_eq!(self.reached(namespace, pod, targets), expected, "{why}");
    }

    /// Connections and packets which arrived outside the cluster from these addresses: (to, port, packets).
    pub fn arrived_outside(&self, from: &[String]) -> Vec<(String, i64, i64)> {
        let counts: Value = serde_json::from_str(&self.ok("cluster.sh", &["counts"])).expect("counts are JSON");
        counts
            .as_array()
            .expect("a list")
            .iter()
            .filter(|c| from.iter().any(|f| c["from"] == f.as_str()))
            .map(|c| {
                let seen = c["packets"].as_i64().unwrap_or(0).max(c["accepted"].as_i64().unwrap_or(0));
                (c["to"].as_str().unwrap_or_default().to_owned(), c["port"].as_i64().unwrap_or(0), seen)
            })
            .collect()
    }

    pub fn pod_addresses(&self, namespace: &str, pod: &str) -> Vec<String> {
        let pod = self.json(&["get", "pod", "-n", namespace, pod]);
        pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|a| a["ip"].as_str().map(str::to_owned)).collect()
    }

    pub fn wait_ready(&self, namespace: &str, workload: &str) {
        self.kubectl(&["wait", "-n", namespace, "aiw", workload, "--for=condition=Ready", "--timeout=30s"]);
    }

    /// Install (or upgrade to) the chart of this checkout with the image of this checkout.
    pub fn helm_install(&self, helm: &str, more: &[&str]) {
        let chart = self.root.join("charts/remit");
        let chart = chart.to_str().expect("a path in UTF-8");
        let image = format!("image.repository={OPERATOR_IMAGE}");
        let mut args =
            vec!["upgrade", "--install", "remit", chart, "-n", "remit-system", "--create-namespace", "--wait", "--timeout", "120s"];
        let guard = format!("guard.image.repository={GUARD_IMAGE}");
        args.extend(["--set", &guard, "--set", "guard.image.tag=dev", "--set", "guard.image.pullPolicy=Never"]);
        args.extend(["--set", &image, "--set", "image.tag=dev", "--set", "image.pullPolicy=Never"]);
        args.extend(["--set", "lease.durationSeconds=5", "--set", "logging.level=debug"]);
        // Whom the hosts outside have their certificate from.
        let roots = format!("guard.roots.certificates={}", self.root.join("target/cluster/state/pki/internet-ca.crt").display());
        args.extend(["--set-file", &roots]);
        args.extend_from_slice(more);
        self.ok(helm, &args);
    }
}

/// A namespace with its own name that goes with the value; enrolled or not.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(purpose: &str, labels: &[&str]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("it-{purpose}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let cluster = cluster();
        cluster.kubectl(&["create", "namespace", &name]);
        for label in labels {
            cluster.kubectl(&["label", "namespace", &name, label]);
        }
        // Pods need their account, which the controller manager makes a moment later.
        eventually("the default account", Duration::from_secs(20), || {
            cluster.run("kubectl", &["get", "serviceaccount", "default", "-n", &name]).status.success().then_some(())
        });
        Self { name }
    }

    pub fn enrolled(purpose: &str) -> Self {
        Self::new(purpose, &["remit.dev/enrolled=true"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        _ = cluster().run("kubectl", &["delete", "namespace", &self.name, "--wait=false"]);
        // A ceiling of a test bears the name of the namespace that it is over.
        _ = cluster().run("kubectl", &["delete", "scopeceiling", &self.name, "--ignore-not-found"]);
    }
}

/// Awaits a condition; what it was is in the panic where it does not come in time. Answers how long it took.
pub fn eventually<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> (T, Duration) {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return (value, began.elapsed());
        }
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What an enrolled namespace asks of every container.
pub const RESTRICTED: &str = "{allowPrivilegeEscalation: false, runAsNonRoot: true, runAsUser: 65532, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";

/// A server that answers with its name on these TCP ports, with a dual-stack Service on `port`.
pub fn server(namespace: &str, app: &str, port: u16, target: u16) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {app}, namespace: {namespace}, labels: {{app: {app}}}}}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers:
  - name: main
    image: remit.test/probe:1
    imagePullPolicy: Never
    command: [probe, serve, --name, {app}, --tcp, '{target}', --tcp, '9999', --tcp, '443', --udp, '{target}']
    ports: [{{name: main, containerPort: {target}}}, {{name: other, containerPort: 9999}}]
    securityContext: {RESTRICTED}
---
apiVersion: v1
kind: Service
metadata: {{name: {app}, namespace: {namespace}}}
spec: {{selector: {{app: {app}}}, ipFamilyPolicy: PreferDualStack, ports: [{{name: main, port: {port}, targetPort: main}}]}}
---
"
    )
}

/// A pod that waits to be told what to probe.
pub fn client(namespace: &str, name: &str, labels: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}
spec:
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers:
  - name: main
    image: remit.test/probe:1
    imagePullPolicy: Never
    command: [probe, serve, --name, {name}, --tcp, '8080', --tcp, '8081']
    securityContext: {RESTRICTED}
---
"
    )
}

pub fn pods_ready(namespace: &str) {
    cluster().kubectl(&["wait", "-n", namespace, "pod", "--all", "--for=condition=Ready", "--timeout=60s"]);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
