//! The chart beside the code: what the operator and its second account may do is what the list of managed kinds needs and little more.
//!
//! Needs Helm: `$HELM`, else `target/cluster/bin/helm` (`make cluster-tools`), else `helm` on the PATH.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use remit::api::{BREAK_GLASS_ANNOTATION, FINALIZER, RELEASE_ANNOTATION};
use remit::plan::{Kind, TEMPLATES};
use remit::policy::pod::{
    CA_ARGUMENT, CA_DIRECTORY, CA_VOLUME, CHANNEL_PORT, CHANNEL_SERVICE, GUARD_CONTAINER, IDS, OPERATOR_LABELS, POLICY_DIRECTORY,
    POLICY_FILE, POLICY_VOLUME, REDIRECT_CONTAINER, TOKEN_AUDIENCE, TOKEN_FILE, TOKEN_SECONDS, TRUST_ARGUMENT, TRUST_DIRECTORY,
    TRUST_VOLUME, generated_name,
};
use remit::scope::NEVER_GRANTABLE;
use serde_json::Value;

use crate::{repository, text};

/// What the operator does with its generated objects.
const MANAGE: [&str; 7] = ["create", "delete", "get", "list", "patch", "update", "watch"];

#[test]
fn the_managed_kinds_are_written_by_the_operator_and_config_maps_by_another_account() {
    let all = |rules: &[Rule], group: &str, resource: &str| -> BTreeSet<String> {
        rules.iter().filter(|r| r.is(group, resource) && r.names.is_empty()).map(|r| r.verb.clone()).collect()
    };
    let rules = cluster_rules();
    for kind in Kind::ALL {
        let (group, resource) = kind.resource();
        let own = all(&rules, group, resource);
        let expected: BTreeSet<String> = if kind == Kind::ConfigMap { [].into() } else { MANAGE.map(str::to_owned).into() };
        assert_eq!(own, expected, "{resource}.{group}");
    }
    let managed: BTreeSet<(String, String)> = Kind::ALL.map(|kind| kind.resource()).map(|(g, r)| (g.to_owned(), r.to_owned())).into();
    // Everything else that it may change anywhere in the cluster. A line more here is a line to think about.
    let expected: BTreeSet<&str> = [
        "create subjectaccessreviews.authorization.k8s.io",
        "create tokenreviews.authentication.k8s.io",
        "create events.events.k8s.io",
        "patch events.events.k8s.io",
        "patch aiworkloads.remit.dev",
        "patch aiworkloads/status.remit.dev",
        "update aiworkloads/finalizers.remit.dev",
        "patch validatingwebhookconfigurations.admissionregistration.k8s.io remit-scope",
        "patch validatingwebhookconfigurations.admissionregistration.k8s.io remit-recorder",
        "patch validatingwebhookconfigurations.admissionregistration.k8s.io remit-pods",
        "patch mutatingwebhookconfigurations.admissionregistration.k8s.io remit-inject",
    ]
    .into();
    let found: BTreeSet<String> = rules
        .iter()
        .filter(|r| !["get", "list", "watch"].contains(&r.verb.as_str()) && !managed.contains(&(r.group.clone(), r.resource.clone())))
        .map(Rule::shown)
        .collect();
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
}

/// What an account holds it may hand out: the operator's own must not hold ConfigMaps of the cluster.
#[test]
fn the_account_of_policies_holds_config_maps_and_nothing_else() {
    let shown: BTreeSet<String> = rules("ClusterRole", "remit-policies").iter().map(Rule::shown).collect();
    assert_eq!(shown, MANAGE.map(|verb| format!("{verb} configmaps")).into());
    let objects = rendered(&["--set", "grantable.namespaces={shop}"]);
    let bound = |o: &&Value| o["subjects"].as_array().into_iter().flatten().any(|s| s["name"] == "remit-policies");
    let bindings: Vec<_> = objects.iter().filter(bound).map(|o| (kind(o), o["metadata"]["name"].as_str().unwrap())).collect();
    assert_eq!(bindings, [("ClusterRoleBinding", "remit-policies")]);
    let account = objects.iter().find(|o| kind(o) == "ServiceAccount" && o["metadata"]["name"] == "remit-policies").expect("the account");
    assert_eq!(account["automountServiceAccountToken"], false);
    // No pod runs as it.
    assert!(objects.iter().all(|o| o["spec"]["template"]["spec"]["serviceAccountName"] != "remit-policies"));

    // The operator gets at it by its tokens, and at no other account's.
    let tokens: Vec<String> = [cluster_rules(), own_namespace_rules()]
        .concat()
        .iter()
        .filter(|r| r.resource.starts_with("serviceaccounts/"))
        .map(Rule::shown)
        .collect();
    assert_eq!(tokens, ["create serviceaccounts/token remit-policies"]);
    assert!(own_namespace_rules().iter().any(|r| r.resource == "serviceaccounts/token"), "in its own namespace only");
    for rule in [cluster_rules(), own_namespace_rules()].concat().iter().filter(|r| r.resource == "configmaps") {
        assert!(rule.verb == "create" || rule.names == ["remit-recorded-writes"], "{}", rule.shown());
    }
    assert!(cluster_rules().iter().all(|r| r.resource != "configmaps"), "no ConfigMap outside of its own namespace");
}

#[test]
fn the_operator_has_no_way_round() {
    let rules: Vec<Rule> = cluster_rules().into_iter().chain(own_namespace_rules()).collect();
    for rule in &rules {
        let shown = rule.shown();
        for part in [&rule.group, &rule.resource, &rule.verb] {
            assert!(!part.contains('*'), "a wildcard: {shown}");
        }
        assert!(!["escalate", "bind", "impersonate", "release", "deletecollection"].contains(&rule.verb.as_str()), "{shown}");
        assert!(rule.resource != "secrets" || rule.verb == "create" || rule.names.len() == 1, "secrets by name only: {shown}");
        if ["pods", "namespaces", "nodes"].contains(&rule.resource.split('/').next().unwrap_or_default()) && rule.group.is_empty() {
            assert!(["get", "list", "watch"].contains(&rule.verb.as_str()) && !rule.resource.contains('/'), "{shown}");
        }
        // (tokenreviews: it learns whose a token is that it was shown; that lets it do nothing.)
        assert!(!["users", "groups"].contains(&rule.resource.as_str()), "{shown}");
    }
    assert!(cluster_rules().iter().all(|r| r.resource != "secrets"), "no Secret outside of its own namespace");
}

/// What the operator may read in the whole cluster it can hand out without the value `grantable`: a Read is get, list and watch.
#[test]
fn what_goes_without_grantable_is_what_the_docs_say() {
    let mut verbs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for rule in cluster_rules().into_iter().filter(|r| r.names.is_empty()) {
        verbs.entry(rule.resource).or_default().insert(rule.verb);
    }
    let reads = ["get", "list", "watch"].map(str::to_owned);
    let readable: BTreeSet<String> =
        verbs.into_iter().filter(|(_, verbs)| reads.iter().all(|r| verbs.contains(r))).map(|(r, _)| r).collect();
    let page = text("docs/install.md");
    let (_, after) = page.split_once("go only reads that the\noperator needs itself").expect("the sentence about `grantable`");
    let (sentence, _) = after.split_once(". ").unwrap();
    let said: BTreeSet<String> = sentence.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(said, readable, "docs/install.md, step 2");
}

/// As the operator reads it at its start.
#[cfg(feature = "operator")]
#[test]
fn the_operator_reads_the_configuration_of_the_chart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    for values in [None, Some("full"), Some("cert-manager"), Some("least")] {
        let values = values.map(|name| repository(&format!("tests/chart/values/{name}.yaml")));
        let args: Vec<&str> = values.iter().flat_map(|path| ["--values", path.to_str().unwrap()]).collect();
        let objects = rendered(&args);
        let map = objects.iter().find(|o| kind(o) == "ConfigMap" && o["metadata"]["name"] == "remit-operator").expect("the ConfigMap");
        std::fs::write(&file, map["data"]["config.yaml"].as_str().unwrap()).unwrap();
        let config = remit::operator::config::Config::read(&file).unwrap_or_else(|error| panic!("{values:?}: {error}"));
        assert_eq!((config.namespace.as_str(), config.guard.is_some()), ("remit-system", true), "{values:?}");
    }
}

/// The API server asks about every kind that the operator can judge, and closed; in enrolled namespaces, never in the system's or our own.
#[test]
fn the_webhooks_of_pods_ask_about_what_the_operator_judges() {
    let objects = rendered(&[]);
    let webhooks = |of: &str, name: &str| {
        let found = objects.iter().find(|o| kind(o) == of && o["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {of} {name}"))["webhooks"].as_array().unwrap().clone()
    };
    let (inject, admit) =
        (webhooks("MutatingWebhookConfiguration", "remit-inject"), webhooks("ValidatingWebhookConfiguration", "remit-pods"));
    let asked = |webhooks: &[Value]| {
        let mut asked = BTreeSet::new();
        for rule in webhooks.iter().flat_map(|w| w["rules"].as_array().unwrap()) {
            let words = |key: &str| rule[key].as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>();
            assert_eq!(words("apiVersions"), ["v1"]);
            for resource in words("resources") {
                assert!(asked.insert((words("apiGroups").join(","), resource, words("operations").join(","))), "{rule}");
            }
        }
        asked
    };
    let row = |group: &str, resource: &str, operations: &str| (group.to_owned(), resource.to_owned(), operations.to_owned());
    assert_eq!(asked(&inject), [row("", "pods", "CREATE")].into());
    let mut expected: BTreeSet<_> = TEMPLATES.iter().map(|t| row(t.group, t.resource, "CREATE,UPDATE")).collect();
    expected.extend([row("", "pods", "CREATE,UPDATE"), row("", "pods/ephemeralcontainers", "UPDATE")]);
    expected.extend(["exec", "attach", "portforward", "proxy"].map(|sub| row("", &format!("pods/{sub}"), "CONNECT")));
    assert_eq!(asked(&admit), expected);
    for webhook in inject.iter().chain(&admit) {
        let name = webhook["name"].as_str().unwrap();
        let selector = serde_json::json!({
            "matchLabels": {"remit.dev/enrolled": "true"},
            "matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "remit-system"]}],
        });
        assert_eq!(webhook["namespaceSelector"], selector, "{name}");
        // An admission policy refuses exec into the guard while the operator is away.
        let policy = if name == "exec.pods.remit.dev" { "Ignore" } else { "Fail" };
        assert_eq!((webhook["failurePolicy"].as_str(), webhook["sideEffects"].as_str()), (Some(policy), Some("None")), "{name}");
        assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 5, "{name}");
        let domain = if inject.contains(webhook) { ".inject.remit.dev" } else { ".pods.remit.dev" };
        assert!(name.ends_with(domain), "{name} gets the path by its name");
    }
    assert_eq!(inject[0]["reinvocationPolicy"], "IfNeeded");
}

#[test]
fn the_operator_hands_out_only_what_the_admin_allows() {
    // Bound by the chart: the operator's own role, in the cluster; remit-grantable and remit-evict, per namespace and only there.
    let bindings: BTreeSet<String> = rendered(&["--set", "grantable.namespaces={shop}", "--set", "evict.namespaces={support}"])
        .iter()
        .filter(|o| ["ClusterRoleBinding", "RoleBinding"].contains(&kind(o)) && !is_hook(o))
        .map(|o| {
            let namespace = o["metadata"]["namespace"].as_str().unwrap_or("-");
            format!("{} {namespace}: {} {}", kind(o), o["roleRef"]["kind"].as_str().unwrap(), o["roleRef"]["name"].as_str().unwrap())
        })
        .collect();
    let expected = [
        "ClusterRoleBinding -: ClusterRole remit-operator",
        "ClusterRoleBinding -: ClusterRole remit-policies",
        "RoleBinding remit-system: Role remit-operator",
        "RoleBinding shop: ClusterRole remit-grantable",
        "RoleBinding support: ClusterRole remit-evict",
    ];
    assert_eq!(bindings.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn the_chart_knows_what_is_never_grantable() {
    let file: Value = serde_saphyr::from_str(&text("charts/remit/files/never-grantable.yaml")).unwrap();
    let rows: Vec<(&str, &str, bool, &str)> = file["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let word = |key: &str| row[key].as_str().unwrap();
            (word("group"), word("resource"), row["readsToo"].as_bool().unwrap(), word("why"))
        })
        .collect();
    let code: Vec<_> = NEVER_GRANTABLE.iter().map(|row| (row.group, row.resource, row.reads_too, row.why)).collect();
    assert_eq!(rows, code);
}

/// What operator and guard agree on stands in the chart's expressions as text.
#[test]
fn the_chart_says_what_the_code_says() {
    let objects = rendered(&[]);
    let named = |of: &str, name: &str| {
        let found = objects.iter().find(|o| kind(o) == of && o["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {of} {name}"))
    };
    let policy = |name: &str| named("ValidatingAdmissionPolicy", name).to_string();
    let quoted = |word: &str| format!("'{word}'");
    let (first, last) = (IDS.start().to_string(), IDS.end().to_string());
    let bounds = format!("id < {first} || id > {last}");
    let (redirect, guard) = (quoted(REDIRECT_CONTAINER), quoted(GUARD_CONTAINER));
    let ours = format!("[{redirect}, {guard}]");
    let volume = quoted(POLICY_VOLUME);
    let prefix = quoted(&generated_name(""));
    let expected: &[(&str, &[&str])] = &[
        (
            "remit-guarded-pods",
            &[&redirect, &guard, &volume, &prefix, &quoted(FINALIZER), &quoted(RELEASE_ANNOTATION), &quoted(BREAK_GLASS_ANNOTATION)],
        ),
        (
            "remit-guards",
            &[
                &ours,
                &volume,
                &prefix,
                &bounds,
                &quoted(POLICY_DIRECTORY),
                &quoted(POLICY_FILE),
                &format!("path.orValue('') == {}", quoted(TOKEN_FILE)),
                &quoted(TOKEN_AUDIENCE),
                &format!("expirationSeconds.orValue(0) == {TOKEN_SECONDS})"),
                &format!("['{TRUST_VOLUME}', '{CA_VOLUME}']"),
                &format!("args[3] == '{TRUST_ARGUMENT}{TRUST_DIRECTORY}'"),
                &format!("args[4] == '{CA_ARGUMENT}{CA_DIRECTORY}'"),
                &format!("mounts[1].name == '{TRUST_VOLUME}' && variables.mounts[1].mountPath == '{TRUST_DIRECTORY}'"),
                &format!("mounts[2].name == '{CA_VOLUME}' && variables.mounts[2].mountPath == '{CA_DIRECTORY}'"),
                &format!("m.name in ['{POLICY_VOLUME}', '{CA_VOLUME}']"),
            ],
        ),
        ("remit-guard-tokens", &[&quoted(TOKEN_AUDIENCE)]),
        ("remit-guard-access", &[&ours]),
        ("remit-guard-notes", &[&quoted(POLICY_FILE), &prefix]),
        ("remit-confine-policies", &[&prefix]),
        ("remit-restricted-pods", &[&redirect]),
    ];
    for (name, words) in expected {
        let text = policy(name);
        words.iter().for_each(|word| assert!(text.contains(word), "{name}: no {word}"));
    }

    // As a pattern: what all of them begin with, and then any digits.
    let same = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
    let (head, rest) = first.split_at(same);
    assert!(
        first.len() == last.len() && rest.bytes().all(|b| b == b'0') && last[same..].bytes().all(|b| b == b'9'),
        "{IDS:?} is no pattern"
    );
    let pattern = format!("{head}[0-9]{{{}}}", rest.len());
    for name in ["remit-guards", "remit-restricted-pods"] {
        let text = policy(name);
        for argument in ["uid", "gid"] {
            assert!(text.contains(&format!("matches('^--{argument}={pattern}$')")), "{name}: --{argument}={pattern}");
        }
        assert_eq!(text.matches("=20[").count(), 2, "{name}: and no other pattern");
    }

    let webhooks = named("ValidatingWebhookConfiguration", "remit-scope").to_string();
    for word in [FINALIZER, RELEASE_ANNOTATION, BREAK_GLASS_ANNOTATION] {
        assert!(webhooks.contains(&quoted(word)), "remit-scope: no {word}");
    }
    let service = named("Service", CHANNEL_SERVICE);
    assert_eq!(service["spec"]["ports"][0]["port"], CHANNEL_PORT);
    let pods = &named("Deployment", "remit-operator")["spec"]["template"];
    let port = serde_json::json!({"name": "guards", "containerPort": CHANNEL_PORT});
    assert!(pods["spec"]["containers"][0]["ports"].as_array().unwrap().contains(&port));
    for (key, value) in OPERATOR_LABELS {
        assert_eq!(pods["metadata"]["labels"][key], value, "guards find the operator's pods by it");
    }
}

/// One right of a rule.
#[derive(Clone, Debug)]
struct Rule {
    group: String,
    resource: String,
    verb: String,
    names: Vec<String>,
}

impl Rule {
    fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    fn shown(&self) -> String {
        let Self { group, resource, verb, names } = self;
        let of = if group.is_empty() { String::new() } else { format!(".{group}") };
        let names = names.iter().map(|n| format!(" {n}")).collect::<String>();
        format!("{verb} {resource}{of}{names}")
    }
}

fn cluster_rules() -> Vec<Rule> {
    rules("ClusterRole", "remit-operator")
}

fn own_namespace_rules() -> Vec<Rule> {
    rules("Role", "remit-operator")
}

fn rules(of: &str, name: &str) -> Vec<Rule> {
    let objects = rendered(&[]);
    let role = objects.iter().find(|o| kind(o) == of && o["metadata"]["name"] == name && !is_hook(o));
    let role = role.unwrap_or_else(|| panic!("no {of} {name} in the chart"));
    let strings = |value: &Value| value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut found = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        let known: BTreeMap<&str, ()> = ["apiGroups", "resources", "verbs", "resourceNames"].map(|k| (k, ())).into();
        assert!(rule.as_object().unwrap().keys().all(|k| known.contains_key(k.as_str())), "{rule}");
        // One right per name: what may be done to one object is not what may be done to two.
        let names = strings(&rule["resourceNames"]);
        let names: Vec<Vec<String>> = if names.is_empty() { vec![vec![]] } else { names.into_iter().map(|n| vec![n]).collect() };
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    for names in &names {
                        found.push(Rule { group: group.clone(), resource: resource.clone(), verb: verb.clone(), names: names.clone() });
                    }
                }
            }
        }
    }
    found
}

fn rendered(args: &[&str]) -> Vec<Value> {
    let output = Command::new(helm())
        .args(["template", "remit", "--namespace", "remit-system"])
        .args(args)
        .arg(repository("charts/remit"))
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `make cluster-tools` builds Helm, or set HELM", helm().display()));
    assert!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap()
}

fn helm() -> PathBuf {
    let built = repository("target/cluster/bin/helm");
    match std::env::var_os("HELM") {
        Some(helm) => PathBuf::from(helm),
        None if built.exists() => built,
        None => PathBuf::from("helm"),
    }
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// Hooks (uninstall, tests) have accounts of their own.
fn is_hook(object: &Value) -> bool {
    object["metadata"]["annotations"].get("helm.sh/hook").is_some()
}
