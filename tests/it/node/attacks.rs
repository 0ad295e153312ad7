//! The attack suite: the rows of the list of threats that concern admission, the network, DNS, HTTP and the pod, each tried as an attack
//! from inside a real pod, or as a user with the role `edit` of the namespace.
//!
//! One line per row: where it is stopped, and by what one sees it. A row passes only if the attack is stopped where the row says; where it
//! can be shown, a stranger without Remit does the same and gets through. What nothing can stop is shown as well, as a limit that
//! docs/limits.md names. `make test-attacks` runs this file alone.

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use super::attacks_http as http;
use super::guard::{Setting, init_containers};
use super::http::Asked;
use super::{Cluster, Namespace, RESTRICTED, eventually, installed, text};

/// What was seen, or what went wrong.
pub type Outcome = Result<String, String>;

/// Which layer stops it.
#[derive(Clone, Copy)]
enum Layer {
    Admission,
    Guard,
    Redirect,
    Rights,
    Operator,
    /// Nobody: docs/limits.md says so.
    Limit,
}

struct Row<A = Arena> {
    number: u8,
    attack: &'static str,
    layer: Layer,
    run: fn(&A) -> Outcome,
}

struct Arena {
    cluster: &'static Cluster,
    setting: Setting,
}

const fn row<A>(number: u8, attack: &'static str, layer: Layer, run: fn(&A) -> Outcome) -> Row<A> {
    Row { number, attack, layer, run }
}

const ROWS: &[Row] = &[
    row(1, "a pod on the host's network", Layer::Admission, |a| {
        a.pod_refused("hostNetwork: true", "", "hostNetwork|node's namespaces|no guard is in place")
    }),
    row(2, "the node: kubelet, API server, a node port", Layer::Guard, node_addresses),
    row(3, "the metadata address, in twelve spellings", Layer::Guard, metadata_spellings),
    row(4, "data in DNS names, other DNS servers", Layer::Guard, dns_tunnel),
    row(5, "a declared name that resolves to the inside", Layer::Guard, rebinding),
    row(6, "ping with a payload", Layer::Redirect, |a| a.nothing_from_inside(&["ping://203.0.113.11", "ping://2001:db8:ffff::11"])),
    row(7, "IPv6 instead of IPv4", Layer::Guard, |a| {
        a.nothing_from_inside(&["https6://evil.example.net/", "line://[2001:db8:ffff::11]:80", "http://[fd00:ec2::254]/"])
    }),
    row(8, "QUIC, and other datagrams", Layer::Redirect, |a| {
        a.nothing_from_inside(&["udp://203.0.113.11:443", "udp://[2001:db8:ffff::11]:443", "udp://203.0.113.11:9999"])
    }),
    row(9, "an init container that talks before the guard", Layer::Guard, early_init),
    row(11, "an ephemeral container (kubectl debug)", Layer::Admission, |a| debugged(a, &[], EPHEMERAL)),
    row(11, "an ephemeral container among the guard's processes", Layer::Admission, |a| {
        debugged(a, &["--target=remit-guard"], AMONG_THE_GUARD)
    }),
    row(11, "exec into the guard", Layer::Admission, |a| {
        a.refused_of(&["exec", "-n", a.ns(), "bot", "-c", "remit-guard", "--", "/remit-guard", "--version"], INTO_THE_GUARD)
    }),
    row(11, "attach to the guard", Layer::Admission, |a| {
        a.refused_of(&["attach", "-n", a.ns(), "bot", "-c", "remit-guard"], INTO_THE_GUARD)
    }),
    row(12, "taking the label off the running pod", Layer::Admission, |a| {
        a.refused_of(&["label", "pod", "-n", a.ns(), "bot", "app-"], "no longer select")
    }),
    row(13, "taking the namespace out of Remit", Layer::Rights, |a| {
        a.refused_of(&["label", "namespace", a.ns(), "remit.dev/enrolled-"], "taking an enrolled namespace out of Remit")
    }),
    row(14, "another pod with the service's account", Layer::Admission, |a| {
        a.passes(&a.pod("{app: other}", "", ""))?;
        a.refused(&a.pod("{app: other}", "serviceAccountName: support-bot", ""), "`support-bot` is the account of AIWorkload `support-bot`")
    }),
    row(16, "a static pod, from the kubelet's directory", Layer::Limit, static_pod),
    row(17, "a pod that is older than its AIWorkload", Layer::Operator, older_pod),
    row(18, "an app with a user that is kept for guards", Layer::Admission, |a| {
        a.pod_refused("securityContext: {runAsUser: 2000000007}", "", "kept for guards")
    }),
    row(18, "an app with a group that is kept for guards", Layer::Admission, |a| {
        a.pod_refused("securityContext: {supplementalGroups: [2000000007]}", "", "kept for guards")
    }),
    row(19, "a privileged container", Layer::Admission, |a| {
        a.container_refused("privileged: true, capabilities: {drop: [ALL]}", "securityContext.privileged|no container may be privileged")
    }),
    row(19, "NET_ADMIN", Layer::Admission, |a| {
        let context = "allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [NET_ADMIN]}";
        a.container_refused(context, "capabilities.add|drop ALL capabilities")
    }),
    row(19, "the host's processes", Layer::Admission, |a| a.pod_refused("hostPID: true", "", "hostPID|node's namespaces")),
    row(19, "a directory of the host", Layer::Admission, |a| {
        a.pod_refused("volumes: [{name: host, hostPath: {path: /}}]", "", "volumes[name=host]|volumes must be")
    }),
    row(20, "one process namespace with the guard", Layer::Admission, |a| {
        a.pod_refused("shareProcessNamespace: true", "", "shareProcessNamespace|one for processes")
    }),
    row(21, "mounting the guard's volume", Layer::Admission, |a| {
        a.pod_refused("", "volumeMounts: [{name: remit-policy, mountPath: /x}]", "remit-policy")
    }),
    row(22, "abstract sockets of the guard", Layer::Guard, abstract_sockets),
    row(23, "the guard's ports on loopback", Layer::Guard, loopback_ports),
    row(24, "ten thousand idle connections", Layer::Guard, flood),
    row(24, "connections that begin their hello and never end it", Layer::Guard, slow_hellos),
    row(25, "a socket with a mark", Layer::Redirect, |a| a.trick("--mark=1", &[])),
    row(25, "a socket that is bound to the pod's device", Layer::Redirect, |a| a.trick("--through=eth0", &TRICKED)),
    row(25, "the guard's ports as a connection's source", Layer::Redirect, |a| a.trick("--source-port=15471", &TRICKED)),
    row(25, "a port of a server as a connection's source", Layer::Redirect, |a| a.trick("--source-port=53", &TRICKED)),
    row(26, "the API token of the account", Layer::Admission, no_token),
    row(26, "a projected token", Layer::Admission, |a| {
        a.pod_refused("volumes: [{name: t, projected: {sources: [{serviceAccountToken: {path: t}}]}}]", "", "volumes[name=t]")
    }),
    row(26, "an undeclared Secret in the environment", Layer::Admission, |a| {
        a.pod_refused("", "env: [{name: K, valueFrom: {secretKeyRef: {name: payment, key: k}}}]", "payment")
    }),
    row(41, "hand-written endpoints of a declared Service (54 as well)", Layer::Guard, hand_written_endpoints),
    row(42, "deleting the AIWorkload under the pods", Layer::Rights, |a| {
        a.refused_of(&["delete", "aiw", "-n", a.ns(), "support-bot", "--wait=false"], "sets pods free")
    }),
    row(45, "declaring what one does not hold", Layer::Rights, widen_own_scope),
    row(46, "another image for the running guard", Layer::Admission, |a| {
        let patch = r#"[{"op": "replace", "path": "/spec/initContainers/1/image", "value": "remit.test/probe:1"}]"#;
        a.refused_of(
            &["patch", "pod", "-n", a.ns(), "bot", "--type=json", "-p", patch],
            "initContainers[name=remit-guard]|never change on a running pod",
        )
    }),
    row(47, "a token with the guards' audience", Layer::Admission, |a| {
        a.refused_of(&["create", "token", "-n", a.ns(), "support-bot", "--audience=remit.dev/guard"], "remit.dev/guard")
    }),
    row(49, "a pod that bears a public address", Layer::Guard, public_pod),
    row(50, "a port-forward to the guard's ports", Layer::Admission, |a| {
        a.refused_of(&["port-forward", "-n", a.ns(), "pod/bot", ":15471"], "port-forward")
    }),
    row(53, "writing the policy that guards mount", Layer::Admission, |a| {
        let patch = r#"{"data": {"policy.note": "{}"}}"#;
        a.refused_of(&["patch", "configmap", "-n", a.ns(), "remit-support-bot", "--type=merge", "-p", patch], "generated by Remit")
    }),
    row(53, "a note of another AIWorkload, in the policy's place before Remit", Layer::Admission, |a| {
        let note = foreign_note(a);
        a.refused(&map_with(a.ns(), "remit-next", &note), "Remit alone writes it")
    }),
    row(53, "the same, before the namespace was enrolled", Layer::Guard, foreign_note_from_before),
    row(55, "leaving Enforce", Layer::Rights, |a| {
        a.refused_of(
            &["patch", "aiw", "-n", a.ns(), "support-bot", "--type=merge", "-p", r#"{"spec": {"mode": "Observe"}}"#],
            "sets pods free",
        )
    }),
    row(55, "a narrower selector", Layer::Rights, |a| {
        let patch = r#"{"spec": {"selector": {"matchLabels": {"never": "there"}}}}"#;
        a.refused_of(&["patch", "aiw", "-n", a.ns(), "support-bot", "--type=merge", "-p", patch], "sets pods free")
    }),
    row(39, "a colleague's NetworkPolicy that allows everything", Layer::Guard, wide_policy),
    row(42, "deleted by who may: pods stay denied", Layer::Operator, deleted_by_an_admin),
];

/// On a bot whose requests are judged one by one.
const HTTP: &[Row<Asked>] = &[
    row(27, "server name, Host, absolute form and :authority that disagree", Layer::Guard, http::fronting),
    row(28, "CONNECT to another port or host, and then no TLS", Layer::Guard, http::tunnels),
    row(29, "a redirect from a declared host to what is not", Layer::Guard, http::redirects),
    row(30, "requests within requests", Layer::Guard, http::smuggling),
    row(31, "paths and methods that are read in two ways", Layer::Guard, http::paths),
    row(32, "an upgrade that is not declared", Layer::Guard, http::upgrades),
    row(33, "a form that hides its fields", Layer::Guard, http::hidden_forms),
];

/// What every namespace would feel: the cluster is theirs alone.
const ALONE: &[Row] = &[row(15, "the webhook's configurations deleted", Layer::Admission, without_webhooks)];

/// Said of an ephemeral container, by the webhook and by the API server's own policy; by another of its own of one that enters the guard.
const EPHEMERAL: &str = "would run in the guard's network with a user and powers of its own";
const AMONG_THE_GUARD: &str =
    "would run in the guard's network with a user and powers of its own|an ephemeral container must not enter the guard";
/// And of who would enter the guard.
const INTO_THE_GUARD: &str = "whoever enters the guard's container has its user|container `remit-guard` is Remit's own";

/// What a socket's options are tried on.
const TRICKED: [&str; 4] =
    ["line4://203.0.113.11:80", "udp4://203.0.113.11:9999", "line6://[2001:db8:ffff::11]:80", "udp6://[2001:db8:ffff::11]:9999"];

const DANA: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: dana, namespace: NS}
rules:
- {apiGroups: [''], resources: [pods/ephemeralcontainers], verbs: [update, patch]}
- {apiGroups: [''], resources: [namespaces], verbs: [get, update, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: dana-more, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: dana}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: dana}]
";

#[test]
fn every_row_is_stopped_where_it_says() {
    let (cluster, _installed) = installed();
    stops(&Arena::new(cluster, "attacks"), ROWS);
}

#[test]
fn every_row_of_http_is_stopped_where_it_says() {
    let _installed = installed();
    stops(&Asked::new("attacks-http"), HTTP);
}

#[test]
fn every_row_that_the_whole_cluster_feels_is_stopped_where_it_says() {
    let cluster = installed().0;
    let _alone = super::INSTALLED.write().unwrap_or_else(|e| e.into_inner());
    stops(&Arena::new(cluster, "attacks-alone"), ALONE);
}

/// The first words of an answer.
fn one_line(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 180 { line } else { line.chars().take(179).chain(['…']).collect() }
}

/// One probe, with what went wrong.
#[derive(Debug, serde::Deserialize)]
struct Tried {
    ok: bool,
    #[serde(default)]
    error: String,
}

/// One line for each row; fails where one is not stopped.
fn stops<A>(arena: &A, rows: &[Row<A>]) {
    let mut failed = Vec::new();
    for Row { number, attack, layer, run } in rows {
        let layer = match layer {
            Layer::Admission => "admission",
            Layer::Guard => "guard",
            Layer::Redirect => "redirect",
            Layer::Rights => "rights",
            Layer::Operator => "operator",
            Layer::Limit => "nobody",
        };
        let stopped = if layer == "nobody" { "a limit" } else { "stopped" };
        match run(arena) {
            Ok(evidence) => println!("attack {number:>2}  {stopped}  {layer:<9}  {attack}: {}", one_line(&evidence)),
            Err(error) => {
                println!("attack {number:>2}  NOT STOPPED  {layer:<9}  {attack}: {}", one_line(&error));
                failed.push(format!("{number} {attack}: {error}"));
            }
        }
    }
    let limits = rows.iter().filter(|row| matches!(row.layer, Layer::Limit)).count();
    println!("attacks: {} of {} stopped, {limits} a limit", rows.len() - limits - failed.len(), rows.len());
    assert!(failed.is_empty(), "{failed:#?}");
}

impl Arena {
    /// A bot with its guard, one without, and dana, who is an editor and a little more.
    fn new(cluster: &'static Cluster, purpose: &str) -> Self {
        let setting = Setting::with_elder(purpose);
        setting.with_its_bot();
        let arena = Self { cluster, setting };
        cluster.kubectl(&["create", "rolebinding", "dana", "-n", arena.ns(), "--clusterrole=edit", "--user=dana"]);
        // More than an editor: what is refused to her is not refused for want of a right.
        cluster.apply(&DANA.replace("NS", arena.ns()));
        eventually("dana is an editor", Duration::from_secs(10), || {
            let can = |what: &[&str]| {
                let args = ["auth", "can-i", "-n", arena.ns(), "--as", "dana"];
                cluster.run("kubectl", &[args.as_slice(), what].concat()).status.success()
            };
            let debug = can(&["patch", "pods", "--subresource=ephemeralcontainers"]);
            (can(&["create", "pods"]) && debug && can(&["patch", &format!("namespace/{}", arena.ns())])).then_some(())
        });
        arena
    }

    fn ns(&self) -> &str {
        &self.setting.support.name
    }

    /// As the editor of the namespace; refused, with these words.
    fn refused_of(&self, args: &[&str], words: &str) -> Outcome {
        // What is let through might never end by itself.
        let kubectl = self.cluster.kubectl.to_str().expect("a path in UTF-8");
        let args = [&["20", kubectl, "--as", "dana"], args].concat();
        self.judged(&self.cluster.run("/usr/bin/timeout", &args), words)
    }

    fn refused(&self, yaml: &str, words: &str) -> Outcome {
        let output = self.cluster.apply_with(yaml, &["--as", "dana"]);
        if output.status.success() {
            // The next attacks bear the same name.
            _ = self.cluster.run("kubectl", &["delete", "pod,deployment", "-n", self.ns(), "attack", "--ignore-not-found"]);
        }
        self.judged(&output, words)
    }

    /// Control: as the same user, without what is refused. (Nothing is made.)
    fn passes(&self, yaml: &str) -> Result<(), String> {
        let output = self.cluster.apply_with(yaml, &["--as", "dana", "--dry-run=server"]);
        if output.status.success() { Ok(()) } else { Err(format!("control: refused as well: {}", text(&output.stderr))) }
    }

    fn judged(&self, output: &Output, words: &str) -> Outcome {
        let said = format!("{}{}", text(&output.stderr), text(&output.stdout));
        // The webhook and the API server's own policies judge at the same time: whichever is first is heard.
        match (output.status.success(), words.split('|').any(|words| said.contains(words))) {
            (false, true) => Ok(said),
            (false, false) => Err(format!("refused without a word of {words:?}: {said}")),
            (true, _) => Err(format!("it was taken: {said}")),
        }
    }

    fn pod(&self, labels: &str, spec: &str, container: &str) -> String {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: attack, namespace: {ns}, labels: {labels}}}
spec:
  terminationGracePeriodSeconds: 1
  {spec}
  containers:
  - name: main
    image: remit.test/probe:1
    imagePullPolicy: Never
    command: [probe, sleep]
    securityContext: {RESTRICTED}
    {container}
",
            ns = self.ns()
        )
    }

    /// The same as a bare pod and in a template: refused in both, by the same rule.
    fn pod_refused(&self, spec: &str, container: &str, words: &str) -> Outcome {
        self.both_refused(&self.pod("{app: support-bot}", spec, container), words)
    }

    fn container_refused(&self, context: &str, words: &str) -> Outcome {
        let pod = self.pod("{app: support-bot}", "", "");
        let context =
            format!("securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}, {context}}}");
        self.both_refused(&pod.replace(&format!("securityContext: {RESTRICTED}"), &context), words)
    }

    fn both_refused(&self, pod: &str, words: &str) -> Outcome {
        let unchanged = self.pod("{app: support-bot}", "", "");
        self.passes(&unchanged)?;
        self.passes(&self.deployment(&unchanged)).map_err(|e| format!("as a Deployment: {e}"))?;
        let seen = self.refused(pod, words)?;
        self.refused(&self.deployment(pod), words).map_err(|e| format!("as a Deployment: {e}"))?;
        Ok(seen)
    }

    /// Of pods like this one.
    fn deployment(&self, pod: &str) -> String {
        let spec = pod.split_once("\nspec:\n").expect("a spec").1;
        let indented: String = spec.lines().map(|line| format!("    {line}\n")).collect();
        format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: attack, namespace: {ns}}}
spec:
  selector: {{matchLabels: {{app: support-bot}}}}
  template:
    metadata: {{labels: {{app: support-bot}}}}
    spec:
{indented}",
            ns = self.ns()
        )
    }

    /// The stranger reaches each of these, the bot none, and nothing arrives outside.
    fn nothing_from_inside(&self, targets: &[&str]) -> Outcome {
        let targets: Vec<String> = targets.iter().map(|t| (*t).to_owned()).collect();
        let open = self.cluster.probe(&self.setting.web.name, "stranger", &targets);
        if let Some((target, probe)) = open.iter().find(|(_, probe)| !probe.ok) {
            return Err(format!("positive control: a stranger does not reach {target} either ({})", probe.answer));
        }
        self.only_declared(&targets)
    }

    /// With this option on its sockets: a stranger reaches these (and nobody the others), the bot none.
    fn trick(&self, option: &str, open: &[&str]) -> Outcome {
        let with = |namespace: &str, pod: &str| {
            let args = ["exec", "-n", namespace, pod, "--", "probe", "batch", "--timeout=1500ms", option];
            let answers = self.cluster.kubectl(&[args.as_slice(), &TRICKED].concat());
            serde_json::from_str::<std::collections::BTreeMap<String, Tried>>(&answers).expect("probe prints JSON")
        };
        let stranger = with(&self.setting.web.name, "stranger");
        if let Some(wrong) = stranger.iter().find(|(target, tried)| tried.ok != open.contains(&target.as_str())) {
            return Err(format!("control: a stranger, {wrong:?}"));
        }
        self.cluster.ok("cluster.sh", &["counts", "reset"]);
        let tried = with(self.ns(), "bot");
        let strayed = self.setting.strayed("bot");
        let why: std::collections::BTreeSet<&str> = tried.values().filter_map(|t| t.error.rsplit(": ").next()).collect();
        match (tried.values().any(|tried| tried.ok), strayed.as_slice()) {
            (false, []) => {
                Ok(format!("0 of {} reached, 0 packets arrived outside ({})", tried.len(), why.into_iter().collect::<Vec<_>>().join(", ")))
            }
            _ => Err(format!("{tried:?}, arrived outside {strayed:?}")),
        }
    }

    fn only_declared(&self, targets: &[String]) -> Outcome {
        self.cluster.ok("cluster.sh", &["counts", "reset"]);
        let reached = self.cluster.reached(self.ns(), "bot", targets);
        let strayed = self.setting.strayed("bot");
        match (reached.as_slice(), strayed.as_slice()) {
            ([], []) => Ok(format!("0 of {} reached, 0 packets arrived outside", targets.len())),
            _ => Err(format!("reached {reached:?}, arrived outside {strayed:?}")),
        }
    }
}

/// What the operator signed for an AIWorkload in Observe: under it everything passes.
fn foreign_note(a: &Arena) -> String {
    a.cluster.apply(&format!(
        "{{apiVersion: remit.dev/v1alpha1, kind: AIWorkload, metadata: {{name: watched, namespace: {}}}, spec: {{mode: Observe, selector: {{matchLabels: {{app: watched}}}}}}}}",
        a.ns()
    ));
    let get = ["get", "configmap", "-n", a.ns(), "remit-watched", "-o", "json"];
    let (note, _) = eventually("it is signed", Duration::from_secs(30), || {
        let output = a.cluster.run("kubectl", &get);
        let map: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        map["data"]["policy.note"].as_str().map(str::to_owned)
    });
    a.cluster.kubectl(&["delete", "aiw", "-n", a.ns(), "watched"]);
    note
}

fn map_with(namespace: &str, name: &str, note: &str) -> String {
    let metadata = serde_json::json!({"name": name, "namespace": namespace});
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"policy.note": note}}).to_string()
}

fn foreign_note_from_before(a: &Arena) -> Outcome {
    let note = foreign_note(a);
    let namespace = Namespace::new("attacks-before", &[]);
    let ns = namespace.name.as_str();
    a.cluster.apply(&map_with(ns, "remit-next", &note));
    a.cluster.kubectl(&["label", "namespace", ns, "remit.dev/enrolled=true"]);
    a.cluster.apply(&format!(
        "{{apiVersion: remit.dev/v1alpha1, kind: AIWorkload, metadata: {{name: next, namespace: {ns}}}, spec: {{mode: Enforce, selector: {{matchLabels: {{app: next}}}}, identity: {{serviceAccountName: default}}}}}}"
    ));
    a.cluster.kubectl(&["wait", "-n", ns, "aiw", "next", "--for=condition=Applied=false", "--timeout=30s"]);
    let status = a.cluster.json(&["get", "aiw", "-n", ns, "next"])["status"].to_string();
    if !status.contains("NameTaken") || !status.contains("guards do not get their policy") {
        return Err(status);
    }
    a.cluster.ok("cluster.sh", &["counts", "reset"]);
    let talks = "command: [probe, loop, --interval, 100ms, --timeout, 300ms, 'line://203.0.113.11:80', 'line://203.0.113.11:443', 'line://[2001:db8:ffff::11]:443']";
    let pod = super::client(ns, "next", "{app: next}");
    let command = pod.lines().find(|line| line.contains("command:")).expect("a command").trim().to_owned();
    a.cluster.apply(&pod.replace(&command, talks));
    let log = || text(&a.cluster.run("kubectl", &["logs", "-n", ns, "next", "-c", "remit-guard"]).stdout);
    let (said, _) = eventually("the guard refuses the note", Duration::from_secs(60), || {
        log().lines().find(|line| line.contains("and this guard was made for")).map(str::to_owned)
    });
    // Asked every second; a guard that takes it says yes at the first or the second time.
    eventually("it was asked again and again whether it is ready", Duration::from_secs(60), || {
        let events = a.cluster.json(&["get", "events", "-n", ns, "--field-selector=reason=Unhealthy,involvedObject.name=next"]);
        let asked = events["items"].as_array()?.iter().filter_map(|event| event["count"].as_i64()).sum::<i64>();
        (asked >= 5).then_some(())
    });
    let ready = a.cluster.kubectl(&["get", "pod", "-n", ns, "next", "-o", "jsonpath={.status.initContainerStatuses[1].started}"]);
    let arrived = a.cluster.arrived_outside(&a.cluster.pod_addresses(ns, "next"));
    if ready.trim() != "false" || !arrived.is_empty() {
        return Err(format!("the guard started: {ready}, arrived outside {arrived:?}"));
    }
    // With the foreign one away, the operator writes its own, the same guard takes it, and the app begins to talk: to nobody.
    a.cluster.kubectl(&["delete", "configmap", "-n", ns, "remit-next"]);
    let (_, took) = eventually("the guard takes its own", Duration::from_secs(240), || {
        let started = a.cluster.kubectl(&["get", "pod", "-n", ns, "next", "-o", "jsonpath={.status.initContainerStatuses[1].started}"]);
        (started.trim() == "true").then_some(())
    });
    eventually("the app talks", Duration::from_secs(60), || {
        text(&a.cluster.run("kubectl", &["logs", "-n", ns, "next", "-c", "main", "--tail=50"]).stdout).contains("\"target\"").then_some(())
    });
    let arrived = a.cluster.arrived_outside(&a.cluster.pod_addresses(ns, "next"));
    if !arrived.is_empty() {
        return Err(format!("with its own policy arrived outside {arrived:?}"));
    }
    Ok(format!("0 packets arrived outside, the guard not ready: {said}; its own taken after {took:?}"))
}

/// As good as an ephemeral container can be: within Pod Security, and with a user of its own.
fn debugged(a: &Arena, more: &[&str], words: &str) -> Outcome {
    let container = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(container.path(), r#"{"securityContext": {"runAsUser": 65532}}"#).expect("it is written");
    let custom = format!("--custom={}", container.path().display());
    let debug = ["debug", "-n", a.ns(), "bot", "--image=remit.test/probe:1", "--profile=restricted", &custom];
    a.refused_of(&[&debug, more, &["--", "/bin/probe", "sleep"]].concat(), words)
}

fn node_addresses(a: &Arena) -> Outcome {
    a.cluster.kubectl(&[
        "patch",
        "service",
        "-n",
        &a.setting.shop.name,
        "ledger",
        "--type=merge",
        "-p",
        r#"{"spec": {"type": "NodePort"}}"#,
    ]);
    let port = a.cluster.json(&["get", "service", "-n", &a.setting.shop.name, "ledger"])["spec"]["ports"][0]["nodePort"].to_string();
    let node = a.cluster.json(&["get", "node", "node1"]);
    let mut targets = Vec::new();
    for address in node["status"]["addresses"].as_array().expect("addresses").iter().filter(|a| a["type"] == "InternalIP") {
        let ip = address["address"].as_str().expect("an address");
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        targets.extend([format!("https://{host}:10250/"), format!("https://{host}:6443/")]);
        if !ip.contains(':') {
            targets.push(format!("line://{host}:{port}"));
        }
    }
    a.nothing_from_inside(&targets.iter().map(String::as_str).collect::<Vec<_>>())
}

fn metadata_spellings(a: &Arena) -> Outcome {
    let targets = [
        "http://169.254.169.254/",
        "http://169.254.169.254:80/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[fd00:ec2::254]/",
        "http://0251.0376.0251.0376/",
        "http://2852039166/",
        "http://0xA9FEA9FE/",
        "http://0xa9.0xfe.0xa9.0xfe/",
        "http://169.254.43518/",
        "http://metadata.rebind.test/",
        "http://[64:ff9b::a9fe:a9fe]/",
    ];
    let targets: Vec<String> = targets.map(str::to_owned).into();
    let open = a.cluster.reached(&a.setting.web.name, "stranger", &targets);
    if open.len() < 5 {
        return Err(format!("positive control: a stranger reaches {open:?} only"));
    }
    a.only_declared(&targets)
}

fn dns_tunnel(a: &Arena) -> Outcome {
    let long = "a".repeat(60);
    let targets = [
        format!("dns://{long}.{long}.evil.example.net"),
        "dns://evil.example.net".to_owned(),
        "dns://secret.evil.example.com".to_owned(),
        "dns://help.example.com.evil.example.net".to_owned(),
        "udp://203.0.113.11:53".to_owned(),
        "line://203.0.113.11:53".to_owned(),
        "udp://[2001:db8:ffff::11]:53".to_owned(),
    ];
    a.nothing_from_inside(&targets.iter().map(String::as_str).collect::<Vec<_>>())
}

fn rebinding(a: &Arena) -> Outcome {
    let flips = format!("flips-{}.dyn.test", std::process::id());
    let leads = |to: &[&str]| _ = a.cluster.ok("cluster.sh", &[["dns", &flips].as_slice(), to].concat());
    let inside = ["api", "metadata", "loopback", "node"].map(|name| format!("{name}.rebind.test"));
    let all = inside.iter().map(String::as_str).chain(["mixed.rebind.test", &flips]);
    let hosts: String = all
        .enumerate()
        .map(|(n, name)| {
            format!("  - {{name: host-{n}, class: Public, type: Host, access: ReadWrite, host: {{name: {name}, port: 443}}}}\n")
        })
        .collect();
    let ceiling = format!(
        "{{apiVersion: remit.dev/v1alpha1, kind: ScopeCeiling, metadata: {{name: {ns}}}, spec: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {ns}}}}}, unscopedPods: Allow, classes: [Internal, Public], services: [{{name: own, services: ['*']}}, {{name: orders, namespace: {shop}, services: [orders, ledger]}}], hosts: [{{name: help, host: help.example.com, ports: [443]}}, {{name: rebind, host: '*.rebind.test', ports: [443]}}, {{name: flips, host: '*.dyn.test', ports: [443]}}]}}}}",
        ns = a.ns(),
        shop = a.setting.shop.name
    );
    leads(&["203.0.113.10"]);
    a.cluster.apply(&ceiling);
    a.cluster.apply(&a.setting.workload("Enforce", &hosts));
    let (flip, mixed) = (format!("https4://{flips}/"), "https4://mixed.rebind.test/".to_owned());
    // Who answers, of those outside.
    let outside = |pod: (&str, &str), target: &String| {
        let answers = a.cluster.probe(pod.0, pod.1, std::slice::from_ref(target));
        answers[target].ok.then(|| answers[target].answer.contains("203.0.113.10"))
    };
    let (bot, stranger) = ((a.ns(), "bot"), (a.setting.web.name.as_str(), "stranger"));
    eventually("a name that leads outside is reached", Duration::from_secs(60), || (outside(bot, &flip) == Some(true)).then_some(()));

    // Of an answer that leads both ways, what leads inside is left out.
    let both = "dns4://mixed.rebind.test".to_owned();
    let of = |pod: (&str, &str)| a.cluster.probe(pod.0, pod.1, std::slice::from_ref(&both))[&both].answer.clone();
    if (of(stranger).as_str(), of(bot).as_str()) != ("10.96.0.1,203.0.113.10", "203.0.113.10") {
        return Err(format!("mixed: {} for a stranger, {} for the bot", of(stranger), of(bot)));
    }
    if (0..8).any(|_| outside(bot, &mixed) != Some(true)) {
        return Err("mixed: not always outside".to_owned());
    }

    let forbidden = |name: &str| {
        let log = a.cluster.kubectl(&["logs", "-n", a.ns(), "bot", "-c", "remit-guard"]);
        let records = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        records.filter(|r| r["reason"] == "resolves_to_forbidden_address" && r["attempted"].to_string().contains(name)).count()
    };
    let targets: Vec<String> = inside.iter().map(|name| format!("https://{name}/")).collect();
    for name in &inside {
        eventually(&format!("a record of {name}"), Duration::from_secs(60), || {
            let reached = a.cluster.reached(a.ns(), "bot", &targets);
            assert_eq!(reached, Vec::<String>::new());
            (forbidden(name) > 0).then_some(())
        });
    }
    let outcome = a.only_declared(&targets);

    // Declared, reached, and now it leads to the API server; and back.
    leads(&["10.96.0.1"]);
    eventually("a stranger is led inside", Duration::from_secs(20), || (outside(stranger, &flip) == Some(false)).then_some(()));
    let (_, flipped) = eventually("the flipped name is refused", Duration::from_secs(60), || {
        assert_ne!(outside(bot, &flip), Some(false), "the API server answered");
        (forbidden(&flips) > 0).then_some(())
    });
    if let Some(reached) = (0..8).find_map(|_| outside(bot, &flip)) {
        return Err(format!("{flips} is reached after it was refused; outside: {reached}"));
    }
    leads(&["203.0.113.10"]);
    eventually("it leads outside again", Duration::from_secs(60), || (outside(bot, &flip) == Some(true)).then_some(()));
    leads(&[]);
    a.cluster.apply(&a.setting.workload("Enforce", ""));
    outcome.map(|o| format!("{o}; a record of each; a name that flips refused after {flipped:?}"))
}

fn early_init(a: &Arena) -> Outcome {
    let loops = "[probe, line, --timeout, 300ms, '203.0.113.11:80', '203.0.113.11:443', '169.254.169.254:80', '[2001:db8:ffff::11]:443']";
    let pod = a.pod("{app: support-bot}", "", "").replace("name: attack,", "name: early,").replace(
        "  containers:\n",
        &format!(
            "  initContainers: [{{name: early, image: 'remit.test/probe:1', imagePullPolicy: Never, restartPolicy: Always, command: {}, securityContext: {RESTRICTED}}}]\n  containers:\n",
            loops.replace("[probe, line,", "[probe, loop, --interval, 20ms,")
        ),
    );
    a.cluster.ok("cluster.sh", &["counts", "reset"]);
    let output = a.cluster.apply_with(&pod, &["--as", "dana"]);
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    a.cluster.kubectl(&["wait", "-n", a.ns(), "pod", "early", "--for=condition=Ready", "--timeout=60s"]);
    let order = init_containers(&a.cluster.json(&["get", "pod", "-n", a.ns(), "early"]));
    let tried = eventually("it tried", Duration::from_secs(20), || {
        let log = a.cluster.kubectl(&["logs", "-n", a.ns(), "early", "-c", "early"]);
        (log.lines().count() >= 8).then(|| log.lines().count())
    });
    let strayed = a.setting.strayed("early");
    a.cluster.kubectl(&["delete", "pod", "-n", a.ns(), "early", "--wait=false"]);
    match (order.as_slice(), strayed.is_empty()) {
        ([one, two, _], true) if one == "remit-redirect" && two == "remit-guard" => {
            Ok(format!("{} attempts, 0 packets arrived outside", tried.0))
        }
        _ => Err(format!("order {order:?}, arrived outside {strayed:?}")),
    }
}

/// With the webhooks' configurations gone, the API server's own policies refuse a pod without a guard. (The operator puts nothing back: Helm does.)
fn without_webhooks(a: &Arena) -> Outcome {
    let saved: Vec<String> = [("mutatingwebhookconfiguration", "remit-inject"), ("validatingwebhookconfiguration", "remit-pods")]
        .map(|(kind, name)| {
            let mut object = a.cluster.json(&["get", kind, name]);
            for member in ["resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"] {
                object["metadata"].as_object_mut().expect("metadata").remove(member);
            }
            a.cluster.kubectl(&["delete", kind, name]);
            object.to_string()
        })
        .into();
    let pod = a.pod("{app: support-bot}", "", "");
    let mut outcome = Err("the policies were never asked".to_owned());
    // The API server needs a moment to forget the webhooks.
    for _ in 0..40 {
        outcome = a.refused(&pod, "remit-guarded-pods");
        if outcome.is_ok() {
            break;
        }
        _ = a.cluster.run("kubectl", &["delete", "pod", "-n", a.ns(), "attack", "--ignore-not-found", "--wait=true"]);
        std::thread::sleep(Duration::from_millis(250));
    }
    for object in saved {
        a.cluster.apply(&object);
    }
    eventually("the webhooks are back", Duration::from_secs(60), || {
        let output = a.cluster.apply_with(&pod.replace("name: attack,", "name: back,"), &["--dry-run=server", "-o", "json"]);
        text(&output.stdout).contains("remit-guard").then_some(())
    });
    outcome
}

/// The kubelet asks nobody; what it tells the API server of the pod is refused, and it runs all the same.
fn static_pod(a: &Arena) -> Outcome {
    // Packets to this port are nobody else's.
    const PORT: i64 = 7016;
    let pod = a
        .pod("{app: support-bot}", "hostNetwork: true", "")
        .replace("name: attack,", "name: static,")
        .replace("command: [probe, sleep]", &format!("command: [probe, loop, --interval, 200ms, 'line://203.0.113.11:{PORT}']"));
    let file = "/run/remit/state/static/attack.yaml";
    a.cluster.ok("cluster.sh", &["exec", "sh", "-c", r#"printf %s "$1" >"${0%/*}/.new"; mv "${0%/*}/.new" "$0""#, file, &pod]);
    let arrived = || {
        let counts: Vec<serde_json::Value> = serde_json::from_str(&a.cluster.ok("cluster.sh", &["counts"])).expect("counts are JSON");
        counts.into_iter().find(|c| c["port"] == PORT)
    };
    let began = Instant::now();
    let mut seen = None;
    while seen.is_none() && began.elapsed() < Duration::from_secs(40) {
        seen = arrived();
    }
    let mirror = a.cluster.run("kubectl", &["get", "pod", "-n", a.ns(), "static-node1"]);
    a.cluster.ok("cluster.sh", &["exec", "rm", file]);
    match (seen, mirror.status.success()) {
        (Some(seen), false) => {
            Ok(format!("it runs on the node's network, is no pod in the API, and {} of its packets arrive outside", seen["packets"]))
        }
        (None, _) => Err("its packets do not arrive outside: it is no limit any more, or it does not run".to_owned()),
        (_, true) => Err("its mirror was let in".to_owned()),
    }
}

/// It has no guard: the status counts it and names it, and the network holds what it can.
fn older_pod(a: &Arena) -> Outcome {
    a.cluster.apply(&super::client(a.ns(), "older", "{app: older}"));
    a.cluster.kubectl(&["wait", "-n", a.ns(), "pod", "older", "--for=condition=Ready", "--timeout=60s"]);
    let late = "{apiVersion: remit.dev/v1alpha1, kind: AIWorkload, metadata: {name: late, namespace: NS}, spec: {selector: {matchLabels: {app: older}}, mode: Enforce}}";
    a.cluster.apply(&late.replace("NS", a.ns()));
    let said = eventually("the status knows it", Duration::from_secs(60), || {
        let status = a.cluster.json(&["get", "aiw", "-n", a.ns(), "late"])["status"].take();
        let guarded = status["conditions"].as_array()?.iter().find(|c| c["type"] == "Guarded")?;
        let counted = (status["pods"]["matched"].as_i64(), status["pods"]["guarded"].as_i64()) == (Some(1), Some(0));
        (counted && guarded["reason"] == "Unguarded").then(|| guarded["message"].as_str().unwrap_or_default().to_owned())
    });
    let forbidden = ["line://203.0.113.11:80".to_owned(), "line://[2001:db8:ffff::11]:80".to_owned()];
    let (_, held) = eventually("the network holds it", Duration::from_secs(20), || {
        a.cluster.reached(a.ns(), "older", &forbidden).is_empty().then_some(())
    });
    a.cluster.kubectl(&["delete", "aiw", "-n", a.ns(), "late", "--wait=false"]);
    a.cluster.kubectl(&["delete", "pod", "-n", a.ns(), "older", "--wait=false"]);
    match said.0.contains("older") {
        true => Ok(format!("0/1 guarded; {}; held by the network after {held:?}", said.0)),
        false => Err(said.0),
    }
}

/// What the app's own connections do to the guard of its pod.
struct Pressed {
    /// What the attacker's program said.
    said: String,
    /// A connection that was there before.
    before: String,
    restarts: i64,
    /// The most memory that the guard's container had, in MiB.
    peak: u64,
}

impl Arena {
    /// `probe hold` with these arguments, from the bot; meanwhile only what is declared is reached, and names are answered.
    fn pressed(&self, args: &[&str]) -> Result<Pressed, String> {
        let restarts = || {
            let pod = self.cluster.json(&["get", "pod", "-n", self.ns(), "bot"]);
            pod["status"]["initContainerStatuses"][1]["restartCount"].as_i64().unwrap_or(-1)
        };
        let orders = format!("orders.{}.svc.cluster.local:5432", self.setting.shop.name);
        let exec = ["exec", "-n", self.ns(), "bot", "--", "probe", "hold"];
        let (held, before) = (self.setting.declared(), restarts());
        self.cluster.ok("cluster.sh", &["counts", "reset"]);
        let mut stream = self.cluster.command(&self.cluster.kubectl);
        stream.args(exec).args(["--for=15s", "--say=hold", &orders]).stdout(Stdio::piped());
        let mut earlier = stream.spawn().expect("kubectl starts");
        let mut lines = BufReader::new(earlier.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let opened = lines.next().unwrap_or_default();
        let said = std::thread::scope(|scope| {
            let flood = scope.spawn(|| self.cluster.kubectl(&[&exec, ["--for=10s"].as_slice(), args].concat()));
            while !flood.is_finished() {
                let reached = self.cluster.reached(self.ns(), "bot", &self.setting.forbidden());
                assert_eq!(reached, Vec::<String>::new());
            }
            flood.join().expect("the attack ends")
        });
        let stream = format!("{opened}, {}", lines.next().unwrap_or_default());
        let (_, took) = eventually("there is room again", Duration::from_secs(60), || {
            (self.cluster.reached(self.ns(), "bot", &held) == held).then_some(())
        });
        _ = earlier.wait();
        let strayed = self.setting.strayed("bot");
        if !strayed.is_empty() {
            return Err(format!("arrived outside {strayed:?}"));
        }
        let pid = super::guard::guard_pid(self.cluster, self.ns(), "bot").ok_or("no guard")?;
        let peak = self.cluster.ok("cluster.sh", &["exec", "bash", "-c", PEAK, &pid]).trim().parse::<u64>().map_err(|e| e.to_string())?;
        Ok(Pressed {
            said: format!("{}; room again after {took:?}", said.trim()),
            before: stream,
            restarts: restarts() - before,
            peak: peak >> 20,
        })
    }
}

/// The most memory of a process' container, in bytes.
const PEAK: &str = r#"
if [ -d /sys/fs/cgroup/memory ]; then cat "/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' "/proc/$0/cgroup")/memory.max_usage_in_bytes"
else cat "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$0/cgroup")/memory.peak"; fi"#;

fn flood(a: &Arena) -> Outcome {
    let orders = format!("orders.{}.svc.cluster.local:5432", a.setting.shop.name);
    judge(a.pressed(&["--count=10000", "--say=hold", &orders])?)
}

fn slow_hellos(a: &Arena) -> Outcome {
    // The head of a record that announces more than ever comes.
    judge(a.pressed(&["--count=2000", "--drip=500ms", r"--say=\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "help.example.com:443"])?)
}

fn judge(Pressed { said, before, restarts, peak }: Pressed) -> Outcome {
    let evidence = format!("{said}; the stream of before: {before}; {restarts} restarts, {peak} MiB at most");
    let goes_on = before == "1 opened, 0 refused, 0 ended before the time";
    if goes_on && restarts == 0 { Ok(evidence) } else { Err(evidence) }
}

fn abstract_sockets(a: &Arena) -> Outcome {
    let sockets = a.cluster.kubectl(&["exec", "-n", a.ns(), "bot", "--", "/bin/busybox", "cat", "/proc/net/unix"]);
    // Pairs that a process made for itself have no name.
    match sockets.lines().filter(|line| line.contains('@')).count() {
        0 => Ok("none is open in the pod's network".to_owned()),
        _ => Err(sockets),
    }
}

fn loopback_ports(a: &Arena) -> Outcome {
    let targets: Vec<String> = ["127.0.0.1", "[::1]"]
        .iter()
        .flat_map(|host| [15471, 15473].map(|port| format!("http://{host}:{port}/")))
        .chain(["http://127.0.0.1:15470/policy".to_owned(), "http://127.0.0.1:15470/metrics".to_owned()])
        .collect();
    let answers = a.cluster.probe(a.ns(), "bot", &targets);
    match answers.iter().find(|(_, p)| p.ok && !p.answer.starts_with("404")) {
        None => Ok("redirected ports reset, the health port says 404 but to /readyz".to_owned()),
        Some(found) => Err(format!("{found:?}")),
    }
}

fn no_token(a: &Arena) -> Outcome {
    // A pod as people write it: it does not say that it wants no token.
    let pod = |namespace: &str| {
        let pod = super::client(namespace, "plain", "{app: support-bot}").replace("  automountServiceAccountToken: false\n", "");
        a.cluster.apply(&pod);
        a.cluster.kubectl(&["wait", "-n", namespace, "pod", "plain", "--for=condition=Ready", "--timeout=60s"]);
        let list = ["/bin/busybox", "ls", "/var/run/secrets/kubernetes.io/serviceaccount", "/etc/remit"];
        let output = a.cluster.run("kubectl", &[["exec", "-n", namespace, "plain", "--"].as_slice(), &list].concat());
        a.cluster.kubectl(&["delete", "pod", "-n", namespace, "plain", "--wait=false"]);
        (text(&output.stdout), text(&output.stderr).matches("No such file").count())
    };
    let control = pod(&a.setting.web.name);
    if !control.0.lines().any(|file| file == "token") {
        return Err(format!("control: no token in a pod without Remit either: {control:?}"));
    }
    match pod(a.ns()) {
        (files, 2) if files.is_empty() => Ok("neither the account's nor the guard's token is in the app".to_owned()),
        found => Err(format!("{found:?}")),
    }
}

fn hand_written_endpoints(a: &Arena) -> Outcome {
    let shop = &a.setting.shop.name;
    a.cluster.apply(&format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: orders-evil, namespace: {shop}, labels: {{kubernetes.io/service-name: orders}}}}
addressType: IPv4
ports: [{{name: main, port: 443, protocol: TCP}}]
endpoints: [{{addresses: [203.0.113.11], conditions: {{ready: true}}}}]
"
    ));
    // The node's Service rules follow when a stranger is led there.
    eventually("a stranger is led outside", Duration::from_secs(20), || {
        let answers = a.cluster.probe(&a.setting.web.name, "stranger", &[a.setting.service("line4", "orders", 5432)]);
        answers.values().any(|p| p.answer.contains("203.0.113.11")).then_some(())
    });
    // Until the operator has seen the slice, it leads the bot as well: docs/limits.md.
    let orders = [a.setting.service("line4", "orders", 5432)];
    let began = Instant::now();
    while !a.cluster.reached(a.ns(), "bot", &orders).is_empty() && began.elapsed() < Duration::from_secs(20) {}
    let took = began.elapsed();
    a.cluster.ok("cluster.sh", &["counts", "reset"]);
    for _ in 0..12 {
        _ = a.cluster.reached(a.ns(), "bot", &orders);
    }
    let strayed = a.setting.strayed("bot");
    a.cluster.kubectl(&["delete", "endpointslice", "-n", shop, "orders-evil"]);
    if strayed.is_empty() {
        Ok(format!("denied after {took:?}; then 12 calls of the Service, 0 packets arrived outside"))
    } else {
        Err(format!("{strayed:?}"))
    }
}

fn widen_own_scope(a: &Arena) -> Outcome {
    let ledger = format!(
        "  - {{name: ledger, class: Internal, type: Service, access: ReadWrite, service: {{name: ledger, namespace: {}, port: 8443, protocol: TCP}}}}",
        a.setting.shop.name
    );
    a.refused(&a.setting.workload("Enforce", &ledger), "dana does not hold")
}

fn public_pod(a: &Arena) -> Outcome {
    let addresses = a.cluster.pod_addresses(&a.setting.shop.name, "ledger");
    let public = addresses.iter().find(|ip| ip.starts_with("2001:db8:")).ok_or("no pod bears a public address")?;
    a.nothing_from_inside(&[&format!("line://[{public}]:443"), &format!("line://[{public}]:18443")])
}

fn wide_policy(a: &Arena) -> Outcome {
    let output = a.cluster.apply_with(&a.setting.wide(), &["--as", "dana"]);
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    a.setting.wide_holds();
    let outcome = a.only_declared(&a.setting.forbidden());
    a.cluster.kubectl(&["delete", "networkpolicy", "-n", a.ns(), "allow-debug"]);
    outcome.map(|o| format!("an older pod without a guard is let out by it; {o}"))
}

fn deleted_by_an_admin(a: &Arena) -> Outcome {
    a.cluster.kubectl(&["delete", "aiw", "-n", a.ns(), "support-bot", "--wait=false"]);
    let all = [a.setting.forbidden(), a.setting.declared()].concat();
    let (_, took) =
        eventually("denied altogether", Duration::from_secs(20), || a.cluster.reached(a.ns(), "bot", &all).is_empty().then_some(()));
    a.only_declared(&all).map(|o| format!("{o}; {took:?} after the deletion"))
}
