//! `kubectl remit`, run as people run it: its output for the examples, its exit codes, and what it says of bad input.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{assert_generated, repository, text};

const FACTS: &str = "tests/it/data/facts";

struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(args: &[&str]) -> Run {
    run_with(args, "")
}

fn run_with(args: &[&str], stdin: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-remit"))
        .args(args)
        .current_dir(repository(""))
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What does not read its stdin may be gone before it is written.
    _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn examples_render_as_they_did() {
    for name in ["support-bot", "kubernetes-source", "http-rules", "http-inspected"] {
        let example = format!("examples/{name}.yaml");
        let run = run(&["render", "-f", &example, "-f", "examples/ceiling.yaml", "--facts", FACTS]);
        assert_eq!((run.stderr.as_str(), run.code), ("", 0), "{name}");
        assert_generated(&format!("tests/it/data/{name}.yaml"), &format!("# `make generate` writes it.\n{}", run.stdout));
    }
}

#[test]
fn the_order_of_files_and_documents_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let facts = text(&format!("{FACTS}/cluster.yaml"));
    let mut documents: Vec<&str> = facts.split("\n---\n").collect();
    documents.reverse();
    std::fs::write(directory.path().join("reversed.yml"), documents.join("\n---\n")).unwrap();
    let facts = directory.path().to_str().unwrap();
    let one = run(&["render", "-f", "examples/support-bot.yaml", "-f", "examples/ceiling.yaml", "--facts", FACTS]);
    let other = run(&["render", "-f", "examples/ceiling.yaml", "-f", "examples/support-bot.yaml", "--facts", facts]);
    assert_eq!((one.stdout, one.code), (other.stdout, other.code));
}

#[test]
fn json_says_the_same_as_yaml() {
    let args = ["render", "-f", "examples/support-bot.yaml", "-f", "examples/ceiling.yaml", "--facts", FACTS];
    let yaml: Vec<serde_json::Value> = serde_saphyr::from_multiple(&run(&args).stdout).unwrap();
    let json: serde_json::Value = serde_json::from_str(&run(&[&args[..], &["-o", "json"]].concat()).stdout).unwrap();
    assert_eq!((json["apiVersion"].as_str(), json["kind"].as_str()), (Some("v1"), Some("List")));
    assert_eq!(json["items"], serde_json::Value::Array(yaml));
}

#[test]
fn what_it_renders_it_reads_as_facts() {
    // A List on stdin, and the facts as one file.
    let list = run(&["render", "-f", "examples/support-bot.yaml", "-f", "examples/ceiling.yaml", "--facts", FACTS, "-o", "json"]).stdout;
    let run = run_with(&["-v", "render", "-f", "-", "-f", "examples/support-bot.yaml", "--facts", &format!("{FACTS}/cluster.yaml")], &list);
    assert!(
        run.stderr.contains("stdin: document 1 (line 1), items[0]: ignored: NetworkPolicy of networking.k8s.io/v1\n"),
        "{}",
        run.stderr
    );
}

#[test]
fn without_facts_everything_is_refused_with_a_hint() {
    let run = run(&["render", "-f", "examples/support-bot.yaml"]);
    assert_eq!(run.code, 1);
    // What guards need: the operator and DNS.
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&run.stdout).unwrap();
    let policy = documents.iter().find(|d| d["kind"] == "NetworkPolicy").unwrap();
    let to = |rule: &serde_json::Value| rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].clone();
    let opened: Vec<_> = policy["spec"]["egress"].as_array().unwrap().iter().map(to).collect();
    assert_eq!(opened, ["kube-system", "remit-system"]);
    let expected = [
        "refused: AIWorkload support/support-bot: spec.dataSources[name=help-centre]: ",
        "refused: AIWorkload support/support-bot: spec.dataSources[name=orders-db]: Service shop/orders port 5432 needs a ScopeCeiling",
        "hint: give the ScopeCeilings with -f or --facts\n",
    ];
    for line in expected {
        assert!(run.stderr.contains(line), "{line}\nin\n{}", run.stderr);
    }
    let quiet = self::run(&["render", "-q", "-f", "examples/support-bot.yaml"]);
    assert!(!quiet.stderr.contains("hint: ") && quiet.stderr.contains("refused: "), "{}", quiet.stderr);
}

#[test]
fn guards_are_told_where_the_operator_is() {
    let run = run(&["render", "-f", "examples/support-bot.yaml", "--operator-namespace", "elsewhere", "--domain", "cluster.example"]);
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&run.stdout).unwrap();
    let map = documents.iter().find(|d| d["kind"] == "ConfigMap").unwrap();
    let policy: serde_json::Value = serde_json::from_str(map["data"]["policy.note"].as_str().unwrap()).unwrap();
    assert_eq!(policy["channel"], serde_json::json!({"name": "remit-guards.elsewhere.svc.cluster.example", "port": 9444}));
    assert!(run.stdout.contains("kubernetes.io/metadata.name: elsewhere\n"), "{}", run.stdout);
}

#[test]
fn the_older_of_two_governs() {
    let bot = text("examples/support-bot.yaml");
    let young = bot.replace("name: support-bot\n  namespace", "name: young\n  namespace");
    let old = bot.replace("name: support-bot\n  namespace", "name: zold\n  creationTimestamp: \"2024-01-01T00:00:00Z\"\n  namespace");
    let run = run_with(&["render", "-f", "-", "-f", "examples/ceiling.yaml", "--facts", FACTS], &format!("{young}\n---\n{old}"));
    assert_eq!(run.code, 1);
    let said = "refused: AIWorkload support/young: AIWorkload support/zold is older and could select the same pods";
    assert!(run.stderr.starts_with(said), "{}", run.stderr);
    assert!(run.stdout.contains("remit-zold") && !run.stdout.contains("remit-young"));

    // As the operator judges it: one in Observe gives way, however old, also where it is rendered as if it were not.
    let watching = old.replace("mode: Enforce", "mode: Observe");
    let run = run_with(&["render", "-f", "-", "-f", "examples/ceiling.yaml", "--facts", FACTS], &format!("{watching}\n---\n{young}"));
    assert_eq!(run.code, 1);
    let said = "refused: AIWorkload support/zold: AIWorkload support/young is in mode Enforce, this one in Observe, and could select";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    assert!(run.stdout.contains("remit-young") && !run.stdout.contains("remit-zold"));
}

#[test]
fn modes_and_enrolment_are_said() {
    let observe = text("examples/support-bot.yaml").replace("mode: Enforce", "mode: Observe");
    let args = ["render", "-f", "-", "-f", "examples/ceiling.yaml", "--facts", FACTS];
    let run = run_with(&args, &observe);
    assert_eq!(
        (run.stderr.as_str(), run.code),
        ("note: AIWorkload support/support-bot is in mode Observe: this is what Enforce would write\n", 0)
    );
    let enforced = run_with(&args, &text("examples/support-bot.yaml"));
    assert_eq!(run.stdout, enforced.stdout);
    let elsewhere = text("examples/support-bot.yaml").replace("namespace: support", "namespace: web");
    let run = run_with(&["render", "-f", "-", "--facts", FACTS], &elsewhere);
    assert!(run.stderr.contains("note: namespace `web` is not enrolled"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: `kubectl label namespace web remit.dev/enrolled=true` enrols it\n"), "{}", run.stderr);
}

#[test]
fn namespaces_of_objects_that_name_none() {
    let bot = text("examples/support-bot.yaml").replace("  namespace: support\n", "");
    assert!(run_with(&["render", "-f", "-"], &bot).stdout.contains("namespace: default\n"));
    assert!(run_with(&["render", "-f", "-", "-n", "chat"], &bot).stdout.contains("namespace: chat\n"));
    let run = run(&["render", "-f", "examples/support-bot.yaml", "-n", "chat"]);
    assert_eq!((run.code, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains("metadata.namespace: is `support`, but --namespace says `chat`"), "{}", run.stderr);
}

/// Bad input, and what is said of it: the file, the document, the field, the remedy.
#[test]
fn bad_input_is_told() {
    let bot = text("examples/support-bot.yaml");
    let other = "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n---\n";
    let cases: &[(String, &str)] = &[
        (
            format!("{other}{}", bot.replace("dataSources:", "datasources:")),
            "stdin: document 2 (line 10): AIWorkload support/support-bot: spec.datasources: unknown field; known are ",
        ),
        (bot.replace("mode: Enforce", "mode: Enforced"), "spec.mode: must be one of `Observe`, `Enforce`, is `Enforced`"),
        (
            bot.replace("access: ReadWrite # nothing", "access: Read # nothing"),
            "spec.dataSources[name=orders-db].access: nothing can hold a raw TCP connection to Read; declare access: ReadWrite",
        ),
        (bot.replace("port: 5432", "port: 543200"), "spec.dataSources[name=orders-db].service.port: must be from 1 to 65535"),
        (bot.replace("matchLabels: {app: support-bot}", "matchLabels: {}"), "spec.selector: name at least one label"),
        (
            bot.replace("remit.dev/v1alpha1", "remit.dev/v2"),
            "there is no AIWorkload in remit.dev/v2; known are AIWorkload and ScopeCeiling in remit.dev/v1alpha1",
        ),
        (bot.replace("  name: support-bot\n  namespace", "  namespace"), "AIWorkload: metadata.name: is missing"),
        (other.replace("---\n", ""), "no AIWorkload in -"),
        (
            format!("{bot}\n---\n{}", bot.replace("mode: Enforce", "mode: Observe")),
            "AIWorkload support/support-bot is here in another form than in stdin: document 1",
        ),
        ("kind: [".to_owned(), "stdin: document 1: "),
        ("a: 1".to_owned(), "stdin: document 1 (line 1): apiVersion and kind are missing"),
    ];
    for (input, expected) in cases {
        let run = run_with(&["render", "-f", "-"], input);
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{expected}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains(expected), "{expected}\nin\n{}", run.stderr);
    }
    let run = run(&["render", "-f", "no/such/file.yaml"]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.starts_with("error: no/such/file.yaml: "), "{}", run.stderr);
}

/// From the declaration to what a guard would say: rendered, and asked by the policy that was rendered.
#[test]
fn requests_are_explained_by_the_policy_that_is_rendered() {
    let rendered = run(&["-v", "render", "-f", "examples/http-rules.yaml", "-f", "examples/ceiling.yaml", "--facts", FACTS]);
    for said in ["help-centre is judged by Requests", "orders-db is judged by Address", "tickets is judged by Requests"] {
        assert!(rendered.stderr.contains(&format!("AIWorkload support/support-bot: data source {said}")), "{}", rendered.stderr);
    }
    let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&rendered.stdout).unwrap();
    let policy = objects.iter().find_map(|object| object["data"]["policy.note"].as_str()).expect("the guards' policy");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.json");
    std::fs::write(&file, policy).unwrap();
    let explain = |more: &[&str]| run(&[&["explain", "--policy", file.to_str().unwrap()], more].concat());
    let (help, tickets) = ("https://help.example.com", "http://tickets.support.svc.cluster.local");
    for (url, method, code, words) in [
        (
            format!("{help}/articles/7"),
            "GET",
            0,
            "let through: data source help-centre\n  asked as http://127.0.0.1:15474/help-centre/articles/7",
        ),
        (format!("{help}/articles/search"), "POST", 0, "data source help-centre"),
        (format!("{help}/articles/7"), "POST", 1, "method_not_declared"),
        (format!("{help}/articles/7"), "DELETE", 1, "with access: ReadWrite"),
        (format!("{help}/account"), "GET", 1, "path_not_declared"),
        (
            format!("{tickets}/v1/tickets"),
            "POST",
            0,
            "data source tickets\n  asked directly, or as http://127.0.0.1:15474/tickets/v1/tickets",
        ),
        ("http://tickets/v1/tickets/9".to_owned(), "GET", 0, "data source tickets"),
        ("ws://tickets/v1/events".to_owned(), "GET", 0, "data source tickets"),
        ("http://tickets/v1/tickets/9".to_owned(), "DELETE", 1, "in data source tickets, http: one rule more, {methods: [DELETE]"),
        ("https://evil.example.com/".to_owned(), "POST", 1, "name_not_declared"),
    ] {
        for words_of in [vec![url.as_str(), "--method", method], vec!["support-bot", url.as_str(), "--method", method]] {
            let run = explain(&words_of);
            assert!(run.code == code && run.stdout.contains(words) && run.stderr.is_empty(), "{words_of:?}: {}{}", run.stdout, run.stderr);
        }
    }
    let wrong = explain(&["orders.shop:5432", "--method", "GET"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("--method goes with a URL"), "{}", wrong.stderr);
    let wrong = explain(&["https://help.example.com/", "--method", "get"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("upper case"), "{}", wrong.stderr);
}

/// With a kubectl that answers from files: what lies at an address, the Services say.
#[test]
fn an_address_is_explained_by_the_services_that_lie_there() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let document = serde_json::json!({
        "format": 1, "workload": {"namespace": "support", "name": "bot", "uid": "u"}, "generation": 2, "digest": "d", "mode": "Enforce",
        "suspended": false, "network": {"domain": "cluster.local", "dns": [], "services": ["10.244.0.0/16", "10.96.0.0/16"], "own": ["10.0.0.0/8"]},
        "destinations": [
            {"source": "orders", "target": {"type": "Service", "name": "orders", "namespace": "shop", "ports": [5432]}},
            {"source": "queue", "target": {"type": "Service", "name": "queue", "namespace": "shop", "ports": [5672]}},
        ],
    });
    let answers = [
        ("configmaps", serde_json::json!({"items": [{"data": {"policy.note": document.to_string()}}]})),
        (
            "services",
            serde_json::json!({"items": [
                {"metadata": {"name": "orders"}, "spec": {"clusterIP": "10.96.7.7", "clusterIPs": ["10.96.7.7"]}},
                {"metadata": {"name": "queue"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}},
            ]}),
        ),
        ("endpointslices", serde_json::json!({"items": [{"endpoints": [{"addresses": ["10.244.1.1"], "conditions": {"ready": true}}]}]})),
    ];
    for (of, answer) in answers {
        std::fs::write(directory.path().join(of), answer.to_string()).unwrap();
    }
    // Called as `kubectl --namespace=support get WHAT …`; Services of another namespace are asked for there.
    let kubectl = directory.path().join("kubectl");
    let script = "#!/bin/sh\ncase $3 in\n\
        services|endpointslices) [ \"$4\" = --namespace=shop ] && [ ! -e \"${0%/*}/forbidden\" ] || { echo 'error: services is forbidden' >&2; exit 1; } ;;\n\
        esac\nexec cat \"${0%/*}/$3\"\n";
    std::fs::write(&kubectl, script).unwrap();
    std::fs::set_permissions(&kubectl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let explain = |what: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-remit"));
        let output =
            command.args(["explain", what, "bot", "-n", "support"]).env("KUBECTL", &kubectl).env("NO_COLOR", "1").output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    for (what, code, words) in [
        ("10.96.7.7:5432", 0, "is let through: data source orders"),
        ("10.96.7.7:22", 1, "is refused: port_not_declared"),
        ("10.244.1.1:5672", 0, "is let through: data source queue"),
        ("10.244.1.9:5672", 1, "is refused: destination_not_declared"),
    ] {
        let (found, stdout, stderr) = explain(what);
        assert!((found, stderr.as_str()) == (code, "") && stdout.contains(words), "{what}: {found} {stdout}{stderr}");
    }
    std::fs::write(directory.path().join("forbidden"), "").unwrap();
    let (code, stdout, stderr) = explain("10.96.7.7:5432");
    assert!(code == 1 && stdout.contains("unless the cluster's DNS says that a declared Service lies there"), "{code} {stdout}");
    assert_eq!(stderr, "note: kubectl get: services is forbidden\n");
}

#[test]
fn usage_reads_as_kubectl() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    assert!(help.stdout.contains("Usage: kubectl remit [OPTIONS] <COMMAND>"), "{}", help.stdout);
    assert!(run(&["render", "--help"]).stdout.contains("Usage: kubectl remit render "));
    let wrong = run(&["rendr"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (2, ""));
    assert_eq!(run(&[]).code, 2);
    let version = run(&["version"]);
    assert_eq!((version.code, version.stdout), (0, format!("kubectl-remit {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn completion_for_shells_and_for_kubectl() {
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef kubectl-remit"), ("fish", "complete -c kubectl-remit")] {
        let run = run(&["completion", shell]);
        assert_eq!(run.code, 0);
        assert!(run.stdout.contains(word), "{shell}");
    }
    // kubectl runs an executable of this name; a link will do.
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("kubectl_complete-remit");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kubectl-remit"), &link).unwrap();
    let output = Command::new(link).args(["render", "--output", ""]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "yaml\njson\n:4\n");
}

#[test]
fn a_broken_pipe_is_success() {
    let program = Path::new(env!("CARGO_BIN_EXE_kubectl-remit"));
    let mut child = Command::new(program).args(["completion", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The reader goes before or while the script is written.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

const REACHED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: bot, namespace: support}
spec: {selector: {matchLabels: {app: bot}}, template: {metadata: {labels: {app: bot}}, spec: {containers: [{name: main}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: orders-0, namespace: shop, labels: {app: orders}}
spec: {containers: [{name: main, ports: [{name: sql, containerPort: 5432}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: orders, namespace: shop}
spec: {podSelector: {matchLabels: {app: orders}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: bot}}}], ports: [{port: sql}]}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: everybody, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: Group, name: 'system:serviceaccounts', apiGroup: rbac.authorization.k8s.io}]
";

#[test]
fn reach_says_what_a_folder_of_manifests_allows() {
    let directory = tempfile::tempdir().unwrap();
    let from = directory.path().to_str().unwrap();
    std::fs::write(directory.path().join("all.yaml"), REACHED).unwrap();
    let pairs = |from: &str| run(&["reach", "--from", from, "--pairs", "--ports", "TCP/5432,TCP/80", "-o", "json"]);
    let said = pairs(from);
    let rows: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let row = |from: (&str, &str), to: (&str, &str), port: u16, by: &[&str]| serde_json::json!({"source": from.0, "sourceKind": from.1, "destination": to.0, "destinationKind": to.1, "protocol": "TCP", "port": port, "allowedBy": by});
    let (bot, orders) = (("support/bot", "Deployment"), ("shop/orders-0", "Pod"));
    let expected = [row(orders, bot, 5432, &[]), row(orders, bot, 80, &[]), row(bot, orders, 5432, &["NetworkPolicy shop/orders"])];
    assert_eq!((rows, said.stderr.as_str(), said.code), (serde_json::json!(expected), "", 0));

    let questions = serde_json::json!([
        {"user": "system:serviceaccount:support:bot", "groups": ["system:serviceaccounts"], "verb": "get", "resource": "pods", "namespace": "shop"},
        {"user": "system:serviceaccount:support:bot", "groups": ["system:serviceaccounts"], "verb": "get", "resource": "pods", "namespace": "support"},
        {"user": "root", "groups": ["system:masters"], "verb": "get", "path": "/metrics"},
    ]);
    let file = directory.path().join("questions");
    std::fs::write(&file, questions.to_string()).unwrap();
    let said = run(&["reach", "--from", from, "--rbac", file.to_str().unwrap()]);
    let answers: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let expected = serde_json::json!([
        {"allowed": true, "grantedBy": ["RoleBinding shop/everybody"]},
        {"allowed": false, "grantedBy": []},
        {"allowed": true, "grantedBy": ["group system:masters"]},
    ]);
    assert_eq!((answers, said.code), (expected, 0));
    std::fs::write(&file, r#"[{"user": "a", "verbs": "get"}]"#).unwrap();
    let said = run(&["reach", "--from", from, "--rbac", file.to_str().unwrap()]);
    assert!(said.code == 2 && said.stdout.is_empty() && said.stderr.contains("unknown field `verbs`"), "{}", said.stderr);

    // What is not analysed is said; half of a policy is no answer.
    let other = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: open, namespace: shop}\nspec: {}\n";
    std::fs::write(directory.path().join("cilium.yaml"), other).unwrap();
    let said = pairs(from);
    assert!(said.code == 0 && said.stderr.contains("CiliumNetworkPolicy.cilium.io shop/open: present, not analysed"), "{}", said.stderr);
    let wrong = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: odd, namespace: shop}\nspec: {podSelector: {}, ingress: [{from: [{}]}]}\n";
    std::fs::write(directory.path().join("odd.yaml"), wrong).unwrap();
    let said = pairs(from);
    assert!(
        said.code == 2 && said.stdout.is_empty() && said.stderr.contains("NetworkPolicy shop/odd: ingress[0].from[0]: names nobody"),
        "{}",
        said.stderr
    );
    let said = run(&["reach", "--from", from, "--pairs"]);
    assert!(said.code == 2 && said.stderr.contains("--ports"), "{}", said.stderr);
}
