//! The guards' policies and the account that writes them. Needs the API tier.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Api, OperatorConfig, World, always, check, eventually, kind, run};

/// What is promised for a narrowed scope.
const PROMISED: Duration = Duration::from_secs(2);

const SPEC: &str = "
dataSources:
- {name: db, type: Service, access: ReadWrite, service: {name: db, port: 5432, protocol: TCP}}
- {name: cache, type: Service, access: ReadWrite, service: {name: cache, port: 6379, protocol: TCP}}
- {name: settings, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [configmaps]}}";

/// The names of the data sources that the guards let through.
async fn passed(world: &World, namespace: &str) -> Vec<String> {
    let policy = world.guard_policy(namespace, "bot").await.unwrap_or_default();
    let all = policy["destinations"].as_array().into_iter().flatten();
    all.filter_map(|d| d["source"].as_str().map(str::to_owned)).collect()
}

/// Asks for a token of an account, and says who it would be.
async fn token(who: &Api, namespace: &str, name: &str) -> Result<Value, String> {
    let path = format!("{}/token", kind("ServiceAccount").path(namespace, name));
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    who.request("POST", &path, None, Some(&request)).await.map_err(|e| e.to_string())
}

#[test]
fn the_policy_says_what_the_plan_says_and_follows_it() {
    run(async {
        let world = World::new("policies").await;
        let operator = world.operator().await;
        let own = world.namespace("own").await;
        for (name, port, target) in [("db", 5432, 5433), ("cache", 6379, 6379)] {
            world.service(&own, name, port, json!(target)).await;
        }
        world.declare(&own, "bot", SPEC).await;
        world.is_ready(&own, "bot").await;
        let workload = world.admin.get("AIWorkload", &own, "bot").await.unwrap();
        let policy = world.guard_policy(&own, "bot").await.unwrap();
        assert_eq!(policy["workload"], json!({"namespace": own, "name": "bot", "uid": workload["metadata"]["uid"]}));
        assert_eq!(policy["generation"], workload["metadata"]["generation"]);
        assert_eq!(policy["digest"], workload["status"]["scopeDigest"]);
        assert_eq!((&policy["mode"], &policy["suspended"]), (&json!("Enforce"), &json!(false)));
        let name = format!("remit-guards.{}.svc.cluster.local", world.system());
        assert_eq!(policy["channel"], json!({"name": name, "port": 9444}));
        let db = json!({"source": "db", "target": {"type": "Service", "name": "db", "namespace": own, "ports": [5432, 5433]}});
        assert!(policy["destinations"].as_array().unwrap().contains(&db), "{policy}");
        let api = policy["destinations"].as_array().unwrap().iter().find(|d| d["source"] == "settings").unwrap();
        assert!(
            api["target"]["addresses"].as_array().unwrap().contains(&json!("198.51.100.1:6443")) || api["target"]["type"] == "Kubernetes"
        );
        // The way to where the channel leads is open.
        let network = world.policy(&own, "bot").await.unwrap();
        let operators = json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.system()}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "remit", "app.kubernetes.io/component": "operator"}},
        });
        let rule = json!({"to": [operators], "ports": [{"port": 9444, "protocol": "TCP"}]});
        assert!(network["egress"].as_array().unwrap().contains(&rule), "{network}");

        // A narrowed scope.
        let narrowed = SPEC.replace("- {name: cache,", "#");
        world.declare(&own, "bot", &narrowed).await;
        let ((), took) = eventually("the policy is narrowed", || async {
            let names = passed(&world, &own).await;
            check(names == ["db", "settings"], || format!("{names:?}"))
        })
        .await;
        println!("a narrowed scope was in the guards' policy after {took:?}");
        assert!(took < PROMISED, "{took:?}");
        let generation = |value: &Value| value["generation"].as_i64().unwrap();
        assert!(generation(&world.guard_policy(&own, "bot").await.unwrap()) > generation(&policy));
        // A Service that goes.
        world.admin.delete("Service", &own, "db").await.unwrap();
        eventually("what does not exist is not in it", || async {
            let names = passed(&world, &own).await;
            check(names == ["settings"], || format!("{names:?}"))
        })
        .await;

        // One that is not valid any more keeps its policy, also when the operator knows of no plan, and can be stopped all the same.
        let invalid = "dataSources: [{name: s, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [secrets]}}]";
        world.declare(&own, "bot", invalid).await;
        world.condition(&own, "bot", "Accepted", "False", "Invalid").await;
        let kept = world.guard_policy(&own, "bot").await;
        drop(operator);
        let operator = world.operator().await;
        world.declare(&own, "bot", &format!("{invalid}\npurpose: more")).await;
        world.condition(&own, "bot", "Accepted", "False", "Invalid").await;
        assert_eq!(world.guard_policy(&own, "bot").await, kept);
        world.declare(&own, "bot", &format!("suspend: true\n{invalid}")).await;
        eventually("the kill switch works", || async {
            let policy = world.guard_policy(&own, "bot").await.ok_or("gone")?;
            check(policy["suspended"] == true && policy["destinations"] == json!([]), || policy.to_string())
        })
        .await;

        // Another key: everything is signed anew.
        world.declare(&own, "bot", &narrowed).await;
        world.condition(&own, "bot", "Accepted", "False", "NotFound").await;
        drop(operator);
        let seed = json!({"data": {"seed": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}});
        world.admin.patch("Secret", &world.system(), "remit-guard-key", seed).await.unwrap();
        let _operator = world.operator().await;
        eventually("signed with the key that holds", || async {
            let note = world.admin.get("ConfigMap", &own, "remit-bot").await.ok_or("gone")?["data"]["policy.note"].take();
            let trust = remit::policy::signed::Signer::from_seed(&[0; 32]);
            check(trust.trust().open(note.as_str().unwrap_or_default()).is_ok(), || note.to_string())
        })
        .await;
    });
}

#[test]
fn the_account_of_policies_writes_those_and_nothing_else() {
    run(async {
        let world = World::new("confined").await;
        world.admission().await;
        let (own, plain) = (world.namespace("own").await, world.namespace_with("plain", json!({})).await);
        let account = world.admin.as_account(&world.system(), "remit-policies").await;
        let map = |namespace: &str, name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, "labels": labels}, "data": {"a": "b"}});
        let ours = json!({"app.kubernetes.io/managed-by": "remit"});
        eventually("the account is known and confined", || async {
            account.apply(map(&own, "remit-known", ours.clone())).await.map_err(|e| e.to_string())?;
            let refused = account.apply(map(&own, "other", ours.clone())).await;
            let held = refused.as_ref().is_err_and(|e| e.message.contains("this account writes ConfigMaps named remit-*"));
            if refused.is_ok() {
                world.admin.delete("ConfigMap", &own, "other").await.map_err(|e| e.to_string())?;
            }
            check(held, || format!("{refused:?}"))
        })
        .await;
        // Each namespace's copy of the policy is held once one is.
        let system = world.system();
        for (what, namespace, name, labels) in [
            ("another name", own.as_str(), "other", ours.clone()),
            ("a name that only begins alike", own.as_str(), "remit", ours.clone()),
            ("no label", own.as_str(), "remit-bot", json!({})),
            ("another label", own.as_str(), "remit-bot", json!({"app.kubernetes.io/managed-by": "me"})),
            ("a namespace that is not enrolled", plain.as_str(), "remit-bot", ours.clone()),
            ("Remit's own namespace", system.as_str(), "remit-bot", ours.clone()),
        ] {
            let refused = account.create(map(namespace, name, labels)).await.expect_err(what);
            assert!(refused.message.contains("remit-confine-policies"), "{what}: {refused}");
        }
        // Objects that are there.
        for (namespace, name) in [(&own, "mine"), (&system, "remit-operator"), (&own, "remit-mine")] {
            world.admin.create(map(namespace, name, json!({}))).await.unwrap();
            let edit = account.patch("ConfigMap", namespace, name, json!({"data": {"a": "c"}})).await;
            assert!(edit.as_ref().is_err_and(|e| e.code == 403), "{name}: {edit:?}");
            let gone = account.delete("ConfigMap", namespace, name).await;
            assert!(gone.as_ref().is_err_and(|e| e.code == 403), "{name}: {gone:?}");
        }
        let unlabel = json!([{"op": "remove", "path": "/metadata/labels/app.kubernetes.io~1managed-by"}]);
        account.patch("ConfigMap", &own, "remit-known", unlabel).await.expect_err("the label stays");
        // A namespace that left: what was written can go, and nothing can come.
        world.admin.patch("Namespace", "", &own, json!({"metadata": {"labels": {"remit.dev/enrolled": null}}})).await.unwrap();
        eventually("nothing can come", || async {
            let answer = account.patch("ConfigMap", &own, "remit-known", json!({"data": {"a": "d"}})).await;
            check(answer.is_err(), || "it can".into())
        })
        .await;
        account.delete("ConfigMap", &own, "remit-known").await.expect("what is its own can go");
        // Nothing else, anywhere.
        for (kind, name) in
            [("Secret", "remit-guard-key"), ("NetworkPolicy", "remit-bot"), ("AIWorkload", "bot"), ("Role", "r"), ("Pod", "p")]
        {
            let answer = account.request("GET", &crate::support::kind(kind).path(&system, name), None, None).await;
            assert!(answer.as_ref().is_err_and(|e| e.code == 403), "{kind}: {answer:?}");
        }
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "maps", "namespace": own},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
        });
        assert!(account.create(role).await.is_err_and(|e| e.code == 403), "it hands nothing out");
        assert!(token(&account, &system, "remit").await.is_err(), "nor becomes somebody else");

        // The operator's own account becomes this one, and nobody else.
        eventually("the operator gets a token of it", || token(&world.account, &system, "remit-policies")).await;
        for (namespace, name) in [(&system, "remit"), (&system, "default"), (&own, "default"), (&own, "remit-policies")] {
            let answer = token(&world.account, namespace, name).await;
            assert!(answer.as_ref().is_err_and(|e| e.contains("cannot create resource \"serviceaccounts/token\"")), "{name}: {answer:?}");
        }
        let maps = world.account.request("GET", &kind("ConfigMap").path("", ""), None, None).await;
        assert!(maps.is_err_and(|e| e.code == 403), "the operator's own account holds no ConfigMaps");
    });
}

#[test]
fn without_a_token_it_is_not_ready_and_says_why_and_goes_on_once_it_can() {
    run(async {
        let world = World::new("tokenless").await;
        let own = world.namespace("own").await;
        let name = "remit-operator";
        let role = world.admin.get("Role", &world.system(), name).await.unwrap();
        let mut without = role.clone();
        without["rules"].as_array_mut().unwrap().retain(|rule| rule["resources"] != json!(["serviceaccounts/token"]));
        assert_ne!(without["rules"], role["rules"]);
        world.admin.patch("Role", &world.system(), name, json!({"rules": without["rules"]})).await.unwrap();
        eventually("it may not ask for tokens", || async {
            check(token(&world.account, &world.system(), "remit-policies").await.is_err(), || "it may".into())
        })
        .await;
        let operator = world.start(&world.proxy, &OperatorConfig::default());
        world.declare(&own, "bot", "").await;
        eventually("it says why", || async {
            let log = operator.log_text();
            let said = log.contains("no token of the account that writes the guards' policies") && log.contains("serviceaccounts/token");
            check(said, || log)
        })
        .await;
        always(Duration::from_secs(2), "it is not ready, and writes nothing", || async {
            let (code, body) = crate::support::http_get(operator.http, "/readyz").await?;
            check(code != 200 && body.contains("account of policies"), || format!("{code} {body}"))?;
            let left = world.generated(&own, "bot").await;
            check(left.is_empty(), || format!("{left:?}"))
        })
        .await;
        world.admin.patch("Role", &world.system(), name, json!({"rules": role["rules"]})).await.unwrap();
        operator.ready().await;
        world.is_ready(&own, "bot").await;
        assert!(world.guard_policy(&own, "bot").await.is_some());

        // The account is made anew: its tokens of before are nobody's.
        let account = world.admin.get("ServiceAccount", &world.system(), "remit-policies").await.unwrap();
        world.admin.delete("ServiceAccount", &world.system(), "remit-policies").await.unwrap();
        let metadata = json!({"name": "remit-policies", "namespace": world.system(), "labels": account["metadata"]["labels"]});
        world.admin.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})).await.unwrap();
        for n in 0..3 {
            world.declare(&own, &format!("new-{n}"), "").await;
            world.is_ready(&own, &format!("new-{n}")).await;
            assert!(world.guard_policy(&own, &format!("new-{n}")).await.is_some());
        }
    });
}
