//! The guard in real pods: injected whatever owns the pod, unavoidable from inside, fail closed when parts of Remit are away.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cluster, Namespace, RESTRICTED, cluster, eventually, installed, pods_ready, server};

/// Both families.
const HELP: [&str; 2] = ["https4://help.example.com/", "https6://help.example.com/"];

/// Nobody declares these, and a NetworkPolicy for the help centre's port does not open them.
const OUT: [&str; 2] = ["line://203.0.113.11:80", "line://[2001:db8:ffff::11]:80"];

/// A support bot that may ask `orders` and the help centre, and a stranger without Remit beside it.
pub struct Setting {
    pub support: Namespace,
    pub shop: Namespace,
    pub web: Namespace,
}

impl Setting {
    pub fn new(purpose: &str) -> Self {
        Self::made(purpose, |_| ())
    }

    /// With a pod of the bot, `elder`, that is older than its AIWorkload: without a guard, and held by the network alone.
    pub fn with_elder(purpose: &str) -> Self {
        let setting = Self::made(purpose, |setting| {
            setting.bot("elder");
            assert_eq!(cluster().reached(&setting.support.name, "elder", &OUT.map(str::to_owned)), OUT, "before its AIWorkload it is free");
        });
        setting.only_network_holds_the_elder();
        setting
    }

    fn only_network_holds_the_elder(&self) {
        cluster().settles(&self.support.name, "elder", &OUT.map(str::to_owned), &[], "the AIWorkload's own NetworkPolicy holds it");
    }

    /// A colleague's NetworkPolicy: everything, for every pod.
    pub fn wide(&self) -> String {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: allow-debug, namespace: {}}}, spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{}}]}}}}",
            self.support.name
        )
    }

    /// It is in force: the network holds no pod of the bot any more, and what stops one is its guard.
    pub fn wide_holds(&self) {
        cluster().settles(&self.support.name, "elder", &OUT.map(str::to_owned), &OUT.map(str::to_owned), "the wide policy is in force");
    }

    fn made(purpose: &str, before: impl FnOnce(&Self)) -> Self {
        let setting = Self {
            support: Namespace::enrolled(purpose),
            shop: Namespace::new(&format!("{purpose}-shop"), &[]),
            web: Namespace::new(&format!("{purpose}-web"), &[]),
        };
        let mut objects = server(&setting.shop.name, "orders", 5432, 15432);
        objects += &server(&setting.shop.name, "ledger", 8443, 18443);
        objects += &super::client(&setting.web.name, "stranger", "{app: stranger}");
        cluster().apply(&objects);
        cluster().apply(&setting.ceiling());
        before(&setting);
        cluster().apply(&setting.workload("Enforce", ""));
        pods_ready(&setting.shop.name);
        pods_ready(&setting.web.name);
        cluster().wait_ready(&setting.support.name, "support-bot");
        setting
    }

    /// With one pod of the bot, named `bot`.
    pub fn with_bot(purpose: &str) -> Self {
        let setting = Self::new(purpose);
        setting.with_its_bot();
        setting
    }

    pub fn with_its_bot(&self) {
        self.bot("bot");
        eventually("the bot reaches what is declared", Duration::from_secs(30), || {
            (cluster().reached(&self.support.name, "bot", &self.declared()) == self.declared()).then_some(())
        });
    }

    pub fn bot(&self, name: &str) {
        cluster().apply(&super::client(&self.support.name, name, "{app: support-bot}"));
        cluster().kubectl(&["wait", "-n", &self.support.name, "pod", name, "--for=condition=Ready", "--timeout=60s"]);
    }

    fn ceiling(&self) -> String {
        format!(
            "
apiVersion: remit.dev/v1alpha1
kind: ScopeCeiling
metadata: {{name: {ns}}}
spec:
  namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {ns}}}}}
  unscopedPods: Allow
  classes: [Internal, Public]
  services: [{{name: own, services: ['*']}}, {{name: orders, namespace: {shop}, services: [orders, ledger]}}]
  hosts: [{{name: help, host: help.example.com, ports: [443]}}]
---
",
            ns = self.support.name,
            shop = self.shop.name
        )
    }

    pub fn workload(&self, mode: &str, more: &str) -> String {
        format!(
            "
apiVersion: remit.dev/v1alpha1
kind: AIWorkload
metadata: {{name: support-bot, namespace: {ns}}}
spec:
  selector: {{matchLabels: {{app: support-bot}}}}
  mode: {mode}
  dataSources:
  - {{name: orders, class: Internal, type: Service, access: ReadWrite, service: {{name: orders, namespace: {shop}, port: 5432, protocol: TCP}}}}
  - {{name: help, class: Public, type: Host, access: ReadWrite, host: {{name: help.example.com, port: 443}}}}
{more}
---
",
            ns = self.support.name,
            shop = self.shop.name
        )
    }

    pub fn service(&self, scheme: &str, name: &str, port: u16) -> String {
        format!("{scheme}://{name}.{}.svc.cluster.local:{port}", self.shop.name)
    }

    pub fn declared(&self) -> Vec<String> {
        let mut all = vec![self.service("line4", "orders", 5432), self.service("line6", "orders", 5432)];
        all.extend(HELP.map(str::to_owned));
        all.sort();
        all
    }

    /// What is not declared, by name and by address, over both families, TCP, UDP and DNS. Connections prove nothing before an answer
    /// comes: the guard takes each of them.
    pub fn forbidden(&self) -> Vec<String> {
        let cluster = cluster();
        let mut all: Vec<String> = [
            // The declared host's port elsewhere, its other ports, and without TLS.
            "https4://evil.example.net/",
            "https6://evil.example.net/",
            "https://203.0.113.11/",
            "https://[2001:db8:ffff::11]/",
            "https://203.0.113.10/",
            "line4://help.example.com:443",
            "line4://help.example.com:80",
            "line://203.0.113.10:443",
            "http://169.254.169.254/",
            "http://[fd00:ec2::254]/",
            "line://203.0.113.11:53",
            // Datagrams, and names that are not declared.
            "udp://203.0.113.11:443",
            "udp://203.0.113.11:53",
            "udp://[2001:db8:ffff::11]:9999",
            "dns://evil.example.net",
            "dns://secret.help.example.com",
        ]
        .map(str::to_owned)
        .into();
        all.push(self.service("line4", "ledger", 8443));
        all.push(format!("dns://ledger.{}.svc.cluster.local", self.shop.name));
        for ip in cluster.pod_addresses(&self.shop.name, "ledger") {
            all.push(address("line", &ip, 18443));
            all.push(address("udp", &ip, 18443));
        }
        for ip in cluster.pod_addresses(&self.shop.name, "orders") {
            all.push(address("line", &ip, 9999));
        }
        let node = cluster.json(&["get", "node", "node1"]);
        for node in node["status"]["addresses"].as_array().expect("addresses").iter().filter(|a| a["type"] == "InternalIP") {
            let ip = node["address"].as_str().expect("an address");
            all.push(address("https", ip, 10250));
            all.push(address("https", ip, 6443));
        }
        all.push("https://kubernetes.default.svc.cluster.local/".into());
        all.push("https://10.96.0.1/".into());
        all.sort();
        all.dedup();
        all
    }

    /// Packets that arrived outside from the pod and were not for the help centre's port.
    pub fn strayed(&self, pod: &str) -> Vec<(String, i64, i64)> {
        let from = cluster().pod_addresses(&self.support.name, pod);
        let help = |to: &str, port| port == 443 && ["203.0.113.10", "2001:db8:ffff::10"].contains(&to);
        cluster().arrived_outside(&from).into_iter().filter(|(to, port, _)| !help(to, *port)).collect()
    }
}

fn address(scheme: &str, ip: &str, port: u16) -> String {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    if scheme.starts_with("http") { format!("{scheme}://{host}:{port}/") } else { format!("{scheme}://{host}:{port}") }
}

/// Init containers of a pod, in order.
pub fn init_containers(pod: &Value) -> Vec<String> {
    let init = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    init.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_guarded_pod_reaches_what_is_declared_and_nothing_else() {
    let (cluster, _installed) = installed();
    let setting = Setting::with_bot("guard");
    let (ns, forbidden) = (&setting.support.name, setting.forbidden());
    // Positive control: a pod without Remit reaches every one of them.
    let open = cluster.probe(&setting.web.name, "stranger", &forbidden);
    let dead: Vec<_> = open.iter().filter(|(target, p)| !p.ok && !target.contains("secret.help")).collect();
    assert!(dead.is_empty(), "the positive control failed: {dead:?}");
    let strange = cluster.pod_addresses(&setting.web.name, "stranger");
    assert!(!cluster.arrived_outside(&strange).is_empty(), "the outside counts what arrives");

    let pod = cluster.json(&["get", "pod", "-n", ns, "bot"]);
    assert_eq!(init_containers(&pod), ["remit-redirect", "remit-guard"]);
    assert_eq!(pod["spec"]["serviceAccountName"], "support-bot", "the account of the scope");
    cluster.ok("cluster.sh", &["counts", "reset"]);
    assert_eq!(cluster.reached(ns, "bot", &[forbidden, setting.declared()].concat()), setting.declared());
    assert_eq!(setting.strayed("bot"), vec![], "nothing arrived outside but what was for the help centre");
}

/// The guard itself is the wall, not the NetworkPolicy alone: a colleague's policy beside it opens nothing.
#[test]
fn a_wide_policy_of_a_colleague_opens_nothing() {
    let (cluster, _installed) = installed();
    let setting = Setting::with_elder("beside");
    setting.with_its_bot();
    let ns = &setting.support.name;
    cluster.apply(&setting.wide());
    setting.wide_holds();
    cluster.ok("cluster.sh", &["counts", "reset"]);
    for _ in 0..3 {
        assert_eq!(cluster.reached(ns, "bot", &[setting.forbidden(), setting.declared()].concat()), setting.declared());
    }
    assert_eq!(setting.strayed("bot"), vec![]);
    setting.wide_holds();
}

#[test]
fn pods_of_every_owner_are_guarded() {
    let (cluster, _installed) = installed();
    let setting = Setting::new("owners");
    let ns = &setting.support.name;
    let template = |restart: &str, command: &str| {
        format!(
            "{{metadata: {{labels: {{app: support-bot}}}}, spec: {{restartPolicy: {restart}, terminationGracePeriodSeconds: 1, containers: [{{name: main, image: 'remit.test/probe:1', imagePullPolicy: Never, command: {command}, securityContext: {RESTRICTED}}}]}}}}"
        )
    };
    let serve = template("Always", "[probe, sleep]");
    let once = template("Never", &format!("[probe, line, --timeout, 5s, '{}']", setting.service("line4", "orders", 5432)));
    let selector = "selector: {matchLabels: {app: support-bot}}";
    cluster.apply(&format!(
        "
{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: deployment, namespace: {ns}}}, spec: {{{selector}, template: {serve}}}}}
---
{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: stateful, namespace: {ns}}}, spec: {{{selector}, serviceName: none, template: {serve}}}}}
---
{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: daemon, namespace: {ns}}}, spec: {{{selector}, template: {serve}}}}}
---
{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: replica, namespace: {ns}}}, spec: {{selector: {{matchLabels: {{app: support-bot, of: replica}}}}, template: {replica}}}}}
---
{{apiVersion: batch/v1, kind: Job, metadata: {{name: job, namespace: {ns}}}, spec: {{backoffLimit: 0, template: {once}}}}}
---
{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: cron, namespace: {ns}}}, spec: {{schedule: '0 0 1 1 *', jobTemplate: {{spec: {{backoffLimit: 0, template: {once}}}}}}}}}
",
        replica = serve.replace("{app: support-bot}", "{app: support-bot, of: replica}"),
    ));
    cluster.kubectl(&["create", "job", "-n", ns, "of-cron", "--from=cronjob/cron"]);
    // Jobs end, and did what is declared on the way.
    for job in ["job", "of-cron"] {
        cluster.kubectl(&["wait", "-n", ns, "job", job, "--for=condition=Complete", "--timeout=90s"]);
    }
    for rollout in ["deployment/deployment", "statefulset/stateful", "daemonset/daemon"] {
        cluster.kubectl(&["rollout", "status", "-n", ns, rollout, "--timeout=90s"]);
    }
    let pods = cluster.json(&["get", "pods", "-n", ns]);
    let pods = pods["items"].as_array().expect("a list");
    assert!(pods.len() >= 6, "{}", pods.len());
    for pod in pods {
        assert_eq!(init_containers(pod), ["remit-redirect", "remit-guard"], "{}", pod["metadata"]["name"]);
    }
    // Each with a user of its own.
    let users: std::collections::BTreeSet<_> =
        pods.iter().map(|pod| pod["spec"]["initContainers"][1]["securityContext"]["runAsUser"].as_i64()).collect();
    assert_eq!(users.len(), pods.len());
}

/// The process id of the guard of a pod, on the node.
pub fn guard_pid(cluster: &Cluster, namespace: &str, pod: &str) -> Option<String> {
    let pod = cluster.json(&["get", "pod", "-n", namespace, pod]);
    let user = pod["spec"]["initContainers"][1]["securityContext"]["runAsUser"].as_i64()?.to_string();
    let script = r#"for p in /proc/[0-9]*; do if grep -qs "^Uid:[[:space:]]$0[[:space:]]" $p/status; then basename $p; fi; done"#;
    let found = cluster.ok("cluster.sh", &["exec", "bash", "-c", script, &user]);
    found.lines().next().map(str::to_owned)
}

#[test]
fn without_its_guard_a_pod_reaches_nothing_and_with_it_again() {
    let (cluster, _installed) = installed();
    let setting = Setting::with_bot("faults");
    let (ns, all) = (&setting.support.name, [setting.forbidden(), setting.declared()].concat());
    let signal = |signal: &str| {
        let pid = guard_pid(cluster, ns, "bot").expect("the guard runs");
        cluster.ok("cluster.sh", &["exec", "kill", signal, &pid]);
    };
    // Stopped: it answers nobody.
    signal("-STOP");
    cluster.ok("cluster.sh", &["counts", "reset"]);
    assert_eq!(cluster.reached(ns, "bot", &all), Vec::<String>::new());
    assert_eq!(cluster.arrived_outside(&cluster.pod_addresses(ns, "bot")), vec![]);
    signal("-CONT");
    eventually("it goes on", Duration::from_secs(20), || {
        (cluster.reached(ns, "bot", &setting.declared()) == setting.declared()).then_some(())
    });
    // Killed, and killed again: the kubelet starts it anew; meanwhile nothing passes.
    for _ in 0..2 {
        signal("-KILL");
        let reached = cluster.reached(ns, "bot", &all);
        assert!(reached.iter().all(|target| setting.declared().contains(target)), "{reached:?}");
        eventually("it is back", Duration::from_secs(60), || {
            (cluster.reached(ns, "bot", &setting.declared()) == setting.declared()).then_some(())
        });
    }
    assert_eq!(setting.strayed("bot"), vec![]);
}

/// A connection that the bot holds, and nobody says anything on.
struct Stream {
    kubectl: Child,
    lines: Receiver<String>,
}

impl Stream {
    fn open(setting: &Setting, service: &str, port: u16) -> Self {
        let target = format!("{service}.{}.svc.cluster.local:{port}", setting.shop.name);
        let mut kubectl = cluster().command(&cluster().kubectl);
        kubectl.args(["exec", "-n", &setting.support.name, "bot", "--", "probe", "hold", "--for=120s", "--say=hold", &target]);
        let mut kubectl = kubectl.stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let (to, lines) = channel();
        let said = BufReader::new(kubectl.stdout.take().expect("piped"));
        std::thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        let stream = Self { kubectl, lines };
        assert_eq!(stream.lines.recv_timeout(Duration::from_secs(20)).as_deref(), Ok("1 opened, 0 refused"), "{target}");
        stream
    }

    fn goes_on(&self) -> bool {
        self.lines.try_recv() == Err(TryRecvError::Empty)
    }

    /// It is broken off, so long after that moment.
    fn is_cut(&self, since: Instant, within: Duration, what: &str) -> Duration {
        assert_eq!(self.lines.recv_timeout(Duration::from_secs(40)).as_deref(), Ok("1 ended before the time"), "{what}");
        let took = since.elapsed();
        println!("{what}: cut after {took:?}");
        assert!(took <= within, "{what}: {took:?}");
        took
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        _ = self.kubectl.kill();
        _ = self.kubectl.wait();
    }
}

/// From the moment that a narrower scope is written, to the end of what it forbids.
const CUT: Duration = Duration::from_secs(3);
/// Since an operator that was away is back: a guard looks for it every ten seconds, and again after five where it did not answer.
const CATCH_UP: Duration = Duration::from_secs(30);

impl Setting {
    /// The records that the bot's guard wrote for this reason, of connections to this port.
    fn records(&self, reason: &str, port: u16) -> usize {
        let log = cluster().kubectl(&["logs", "-n", &self.support.name, "bot", "-c", "remit-guard"]);
        let records = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let here = format!(":{port}\"");
        records.filter(|r| r["event"] == "denied" && r["reason"] == reason && r["attempted"].to_string().contains(&here)).count()
    }

    /// The status says of the bot's only pod that its guard enforces this generation.
    fn reported(&self) {
        eventually("the guard reports the current policy", Duration::from_secs(20), || {
            let workload = cluster().json(&["get", "aiw", "-n", &self.support.name, "support-bot"]);
            let status = &workload["status"];
            let guarded = status["conditions"].as_array()?.iter().find(|c| c["type"] == "Guarded")?;
            let now = guarded["observedGeneration"] == workload["metadata"]["generation"];
            let said = (status["pods"]["summary"].as_str(), guarded["status"].as_str(), guarded["reason"].as_str());
            (now && said == (Some("1/1"), Some("True"), Some("Guarded"))).then_some(())
        });
    }
}

#[test]
fn a_scope_that_is_narrowed_cuts_what_is_open() {
    let (cluster, _installed) = installed();
    let setting = Setting::with_elder("narrow");
    setting.with_its_bot();
    let ns = &setting.support.name;
    let ledger = format!(
        "  - {{name: ledger, class: Internal, type: Service, access: ReadWrite, service: {{name: ledger, namespace: {}, port: 8443, protocol: TCP}}}}",
        setting.shop.name
    );
    let declared = |what: &str| vec![setting.service("line4", what, if what == "orders" { 5432 } else { 8443 })];
    let narrow = setting.workload("Enforce", &ledger).lines().filter(|l| !l.contains("name: orders,")).collect::<Vec<_>>().join("\n");
    cluster.apply(&setting.workload("Enforce", &ledger));
    // Nothing but the guard: the network lets every pod of the bot out, before and after.
    cluster.apply(&setting.wide());
    setting.wide_holds();
    cluster.settles(ns, "bot", &declared("ledger"), &declared("ledger"), "declared");
    let (orders, other) = (Stream::open(&setting, "orders", 5432), Stream::open(&setting, "ledger", 8443));
    assert_eq!(setting.records("destination_not_declared", 5432), 0);

    let began = Instant::now();
    cluster.apply(&narrow);
    orders.is_cut(began, CUT, "narrowed");
    eventually("the cut is written down", CUT, || (setting.records("destination_not_declared", 5432) == 1).then_some(()));
    assert!(cluster.reached(ns, "bot", &declared("orders")).is_empty());
    assert_eq!(cluster.reached(ns, "elder", &declared("orders")), declared("orders"), "the network would let it through");
    assert_eq!(cluster.reached(ns, "bot", &declared("ledger")), declared("ledger"));
    assert!(other.goes_on(), "what is declared goes on");
    // The elder has no guard, and would count.
    cluster.kubectl(&["delete", "pod", "-n", ns, "elder", "--wait=true"]);
    setting.reported();

    cluster.apply(&setting.workload("Enforce", &ledger));
    cluster.settles(ns, "bot", &declared("orders"), &declared("orders"), "declared again");
    let orders = Stream::open(&setting, "orders", 5432);
    let began = Instant::now();
    cluster.kubectl(&["patch", "-n", ns, "aiw", "support-bot", "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#]);
    orders.is_cut(began, CUT, "suspended");
    other.is_cut(began, CUT, "suspended, since before");
    for port in [5432, 8443] {
        eventually("the cut is written down", CUT, || (setting.records("suspended", port) == 1).then_some(()));
    }
    assert!(cluster.reached(ns, "bot", &[setting.declared(), declared("ledger")].concat()).is_empty());
    setting.reported();
}

/// Who is away stops nobody else: guards go on, kube-system is never held up, and in enrolled namespaces no pod starts without a guard.
#[test]
fn the_operator_is_away() {
    drop(installed());
    let _alone = super::INSTALLED.write().unwrap_or_else(|e| e.into_inner());
    let cluster = cluster();
    let setting = Setting::with_bot("away");
    let (ns, all) = (&setting.support.name, [setting.forbidden(), setting.declared()].concat());
    let replicas = |n: &str| {
        cluster.kubectl(&["scale", "deployment", "-n", "remit-system", "remit-operator", &format!("--replicas={n}")]);
    };
    /// Other tests need it, also if this one fails.
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            let scale = ["scale", "deployment", "-n", "remit-system", "remit-operator", "--replicas=1"];
            _ = super::cluster().run("kubectl", &scale);
            let wait = ["rollout", "status", "-n", "remit-system", "deployment/remit-operator", "--timeout=120s"];
            _ = super::cluster().run("kubectl", &wait);
        }
    }
    let _back = Back;
    replicas("0");
    cluster.kubectl(&["wait", "-n", "remit-system", "pod", "-l", "app.kubernetes.io/component=operator", "--for=delete", "--timeout=60s"]);
    cluster.ok("cluster.sh", &["counts", "reset"]);
    assert_eq!(cluster.reached(ns, "bot", &all), setting.declared(), "the guard goes on with what it has");
    let refused = cluster.apply_with(&super::client(ns, "later", "{app: support-bot}"), &[]);
    assert!(!refused.status.success(), "a pod of an enrolled namespace waits for the operator");
    let said = super::text(&refused.stderr);
    assert!(said.contains("remit") && said.contains("webhook"), "{said}");
    // A guard that starts while the operator is away has the policy that is mounted.
    let pid = guard_pid(cluster, ns, "bot").expect("the guard runs");
    cluster.ok("cluster.sh", &["exec", "kill", "-KILL", &pid]);
    eventually("a guard starts without the operator", Duration::from_secs(60), || {
        (cluster.reached(ns, "bot", &setting.declared()) == setting.declared()).then_some(())
    });
    // Others do not wait: kube-system, namespaces that are not enrolled, and a namespace that goes.
    for namespace in ["kube-system", "default"] {
        cluster.apply(&super::client(namespace, "not-held-up", "{app: not-held-up}"));
        cluster.kubectl(&["wait", "-n", namespace, "pod", "not-held-up", "--for=condition=Ready", "--timeout=60s"]);
        cluster.kubectl(&["delete", "pod", "-n", namespace, "not-held-up", "--wait=false"]);
    }
    let empty = Namespace::enrolled("goes");
    cluster.kubectl(&["delete", "namespace", &empty.name, "--timeout=60s"]);
    assert_eq!(setting.strayed("bot"), vec![]);
    // Narrowed meanwhile: a ceiling can be tightened without the operator, and holds as soon as it is back. The network lets everything
    // through, so it is the guard that does.
    cluster.apply(&setting.wide());
    let (orders, help) = (vec![setting.service("line4", "orders", 5432)], HELP.map(str::to_owned));
    let open = Stream::open(&setting, "orders", 5432);
    cluster.apply(&setting.ceiling().replace("services: [orders, ledger]", "services: [ledger]"));
    assert_eq!(cluster.reached(ns, "bot", &setting.declared()), setting.declared(), "the guard goes on");
    assert!(open.goes_on());
    replicas("1");
    cluster.kubectl(&["rollout", "status", "-n", "remit-system", "deployment/remit-operator", "--timeout=120s"]);
    open.is_cut(Instant::now(), CATCH_UP, "narrowed while the operator was away, since it is back");
    eventually("the cut is written down", CUT, || (setting.records("destination_not_declared", 5432) == 1).then_some(()));
    assert!(cluster.reached(ns, "bot", &orders).is_empty());
    assert_eq!(cluster.reached(ns, "bot", &help), help, "what is within the ceiling goes on");
    setting.bot("later");
    assert_eq!(init_containers(&cluster.json(&["get", "pod", "-n", ns, "later"])), ["remit-redirect", "remit-guard"]);
}

/// Everything at once: no control plane, no container, and then all of it again, with Remit in it.
#[test]
fn the_cluster_restarts_from_cold() {
    drop(installed());
    let _alone = super::INSTALLED.write().unwrap_or_else(|e| e.into_inner());
    let cluster = cluster();
    let setting = Setting::with_bot("cold");
    let ns = &setting.support.name;
    let service = |name: &str, what: &str| _ = cluster.ok("cluster.sh", &["service", name, what]);
    for name in ["kubelet", "kube-controller-manager", "kube-scheduler", "kube-apiserver", "etcd"] {
        service(name, "stop");
    }
    let end = "for t in $(ctr -n k8s.io tasks list -q); do ctr -n k8s.io tasks kill -s KILL $t; done";
    cluster.ok("cluster.sh", &["exec", "bash", "-c", end]);
    for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"] {
        service(name, "start");
    }
    eventually("the API server is back", Duration::from_secs(60), || {
        cluster.run("kubectl", &["get", "--raw", "/readyz"]).status.success().then_some(())
    });
    // Ready, as it was, would be believed: the containers are new ones.
    eventually("the operator and the DNS are back", Duration::from_secs(180), || {
        let ready = |ns: &str| {
            let pods = cluster.json(&["get", "pods", "-n", ns]);
            let statuses =
                pods["items"].as_array()?.iter().flat_map(|p| p["status"]["containerStatuses"].as_array().cloned().unwrap_or_default());
            let all: Vec<_> = statuses.collect();
            (!all.is_empty() && all.iter().all(|s| s["ready"] == true && s["restartCount"].as_i64() > Some(0))).then_some(())
        };
        // The bot's as well: nobody can be told to probe before.
        ready("remit-system").and(ready("kube-system")).and(ready(ns)).and(ready(&setting.shop.name))
    });
    eventually("the bot is back behind its guard", Duration::from_secs(120), || {
        (cluster.reached(ns, "bot", &setting.declared()) == setting.declared()).then_some(())
    });
    cluster.ok("cluster.sh", &["counts", "reset"]);
    assert_eq!(cluster.reached(ns, "bot", &[setting.forbidden(), setting.declared()].concat()), setting.declared());
    assert_eq!(setting.strayed("bot"), vec![]);
    setting.bot("new");
}
