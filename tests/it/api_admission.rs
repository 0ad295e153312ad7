//! Nobody grants what they do not hold, nobody sets pods free without the right to, and nobody edits what Remit generated. Needs the API tier.
//!
//! The chart's own webhooks and ValidatingAdmissionPolicies on the real API server, asked by people who are impersonated and bound to the
//! cluster's own roles. The webhook leads to the real operator.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::{Api, Operator, OperatorConfig, World, check, eventually, eventually_within, kind, run, workload};

/// A GitOps controller: holds everything, and is named in the configuration.
const APPLIER: &str = "system:serviceaccount:argocd:controller";

/// The world of this file, but for the tests that stop the operator or take policies away.
async fn world() -> &'static World {
    static WORLD: OnceCell<(World, Operator)> = OnceCell::const_new();
    &WORLD.get_or_init(|| async { guarded("admission").await }).await.0
}

/// A world with the chart's admission and an operator that answers.
async fn guarded(name: &str) -> (World, Operator) {
    let (world, operator, _) = guarded_by(name).await;
    (world, operator)
}

async fn guarded_by(name: &str) -> (World, Operator, OperatorConfig) {
    let world = World::new(name).await;
    let mut config = world.admission().await;
    config.settings["appliers"] = json!([APPLIER]);
    let operator = world.operator_with(&world.proxy, config.clone()).await;
    let probe = world.namespace("probe").await;
    let labeller = world.labeller().await;
    let nobody = world.person("nobody", &[(&probe, "remit-edit"), (&probe, &labeller)]).await;
    answers(&nobody, &probe).await;
    records(&world, &probe).await;
    holds(&world.admin, &nobody, &probe).await;
    (world, operator, config)
}

/// Waits until the recorder is called.
async fn records(world: &World, probe: &str) {
    let mut writes = 0;
    eventually("the recorder notes a write", || {
        writes += 1;
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "probe", "namespace": probe, "labels": {"write": writes.to_string()}},
        });
        async {
            world.admin.apply(role).await.map_err(|e| e.to_string())?;
            let map = world.admin.get("ConfigMap", &world.system(), "remit-recorded-writes").await.ok_or("nothing is recorded")?;
            check(map["data"].to_string().contains("roles"), || map["data"].to_string())
        }
    })
    .await;
}

/// Waits until the API server holds both admission policies: it learns of one some time after it was written.
async fn holds(admin: &Api, nobody: &Api, probe: &str) {
    let forged = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": {}},
        "metadata": {"name": "probe", "namespace": probe, "labels": {"app.kubernetes.io/managed-by": "remit"}},
    });
    let leave = json!({"metadata": {"labels": {"remit.dev/enrolled": null}}});
    let policies = format!("{}?dryRun=All", kind("NetworkPolicy").path(probe, ""));
    let namespace = format!("{}?dryRun=All", kind("Namespace").path("", probe));
    eventually("the API server holds remit-protect-generated", || async {
        let answer = admin.request("POST", &policies, None, Some(&forged)).await;
        check(answer.as_ref().is_err_and(|e| e.message.contains("marks what Remit generates")), || format!("{answer:?}"))
    })
    .await;
    eventually("the API server holds remit-keep-enrolled", || async {
        let answer = nobody.request("PATCH", &namespace, Some("application/merge-patch+json"), Some(&leave)).await;
        check(answer.as_ref().is_err_and(|e| e.message.contains("needs the verb release")), || format!("{answer:?}"))
    })
    .await;
}

/// Waits until the webhook is called, and answers.
async fn answers(nobody: &Api, probe: &str) {
    let secret = "dataSources: [{name: s, type: Secret, secret: {name: s}}]";
    eventually("the webhook answers", || async {
        match nobody.apply(workload(probe, "probe", secret)).await {
            Ok(_) => {
                let _ = nobody.patch("AIWorkload", probe, "probe", json!({"metadata": {"finalizers": null}})).await;
                Err("it is not asked yet".to_owned())
            }
            Err(refused) => check(refused.message.contains("nobody does not hold"), || refused.message.clone()),
        }
    })
    .await;
}

/// It is refused, and the message has all these words.
fn refused<T: std::fmt::Debug>(answer: Result<T, crate::support::Refused>, what: &str, words: &[&str]) {
    let refusal = answer.expect_err(what);
    for word in words {
        assert!(refusal.message.contains(word), "{what}: no `{word}` in: {refusal}");
    }
}

const ORDERS: &str =
    "dataSources: [{name: orders, class: Public, type: Kubernetes, kubernetes: {apiGroups: [shop.example.com], resources: [orders]}}]";

#[test]
fn nobody_grants_what_they_do_not_hold() {
    run(async {
        let world = world().await;
        let own = world.namespace("grants").await;
        // May write AIWorkloads and look around, but not at Secrets.
        let vic = world.person("vic", &[(&own, "view"), (&own, "remit-edit")]).await;
        let secret = workload(&own, "bot", "dataSources: [{name: key, type: Secret, secret: {name: api-key}}]");
        refused(
            vic.apply(secret.clone()).await,
            "a Secret to mount",
            &[
                "dataSources[name=key].secret",
                &format!("\"get secrets api-key in namespace {own}\", which vic does not hold (nobody grants what they do not hold)"),
                &format!(
                    "someone who holds it can apply this, or an admin grants it: kubectl create role get-secrets -n {own} --verb=get --resource=secrets --resource-name=api-key"
                ),
                "--user=vic",
            ],
        );
        let object = "dataSources: [{name: key, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [secrets]}}]";
        refused(
            vic.apply(workload(&own, "bot", object)).await,
            "Secrets as objects",
            &["reading secrets is never granted by Remit", "vic does not hold", "declare a data source of type Secret"],
        );
        let words = format!("\"get,list,watch orders.shop.example.com in namespace {own}\", which vic does not hold");
        refused(vic.apply(workload(&own, "bot", ORDERS)).await, "objects", &[&words]);
        // One who may read Secrets may declare one.
        let dana = world.person("dana", &[(&own, "edit")]).await;
        dana.apply(secret).await.expect("edit may read Secrets");
        // Whoever changes it afterwards is asked only for what is added.
        let renamed = "purpose: Answers\ndataSources: [{name: key, type: Secret, secret: {name: api-key}}, {name: settings, type: ConfigMap, configMap: {name: settings}}]";
        vic.apply_as("vic", workload(&own, "bot", renamed)).await.expect("a ConfigMap that vic may read is added; the Secret was there");
        // Another selector would give the Secret to other pods: that counts as adding everything.
        let moved = json!({"spec": {"selector": {"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "Exists"}]}}});
        refused(vic.patch("AIWorkload", &own, "bot", moved).await, "other pods", &["get secrets api-key", "vic does not hold"]);
        // With the right, it goes.
        world
            .admin
            .apply(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "orders", "namespace": own},
                "rules": [{"apiGroups": ["shop.example.com"], "resources": ["orders"], "verbs": ["get", "list", "watch"]}],
            }))
            .await
            .unwrap();
        world
            .admin
            .apply(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "orders", "namespace": own},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "orders"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "vic"}],
            }))
            .await
            .unwrap();
        eventually("vic may declare what vic holds", || async {
            vic.apply(workload(&own, "other", &format!("{ORDERS}\nselector: {{matchLabels: {{app: other}}}}")))
                .await
                .map_err(|e| e.to_string())
        })
        .await;
        world.is_ready(&own, "other").await;
    });
}

#[test]
fn services_of_other_namespaces_need_a_ceiling_and_the_right_to_see_them() {
    run(async {
        let world = world().await;
        let (own, shop) = (world.namespace("services").await, world.namespace("servicesshop").await);
        world.service(&shop, "orders", 5432, json!(5432)).await;
        let dana = world.person("dana", &[(&own, "edit")]).await;
        let db = |namespace: &str| {
            format!(
                "dataSources: [{{name: db, class: Public, type: Service, access: ReadWrite, service: {{name: orders, namespace: {namespace}, port: 5432, protocol: TCP}}}}]"
            )
        };
        refused(
            dana.apply(workload(&own, "bot", &db(&shop))).await,
            "no ceiling",
            &[
                &format!("Service {shop}/orders port 5432 needs a ScopeCeiling over namespace {own}"),
                "ask an admin for one with services:",
                &format!("\"get services orders in namespace {shop}\", which dana does not hold"),
            ],
        );
        let ceiling = format!(
            "unscopedPods: Allow\nclasses: [Public]\nservices: [{{name: shop, namespace: {shop}, services: [orders], ports: [5432]}}]"
        );
        world.ceiling("services", json!({"kubernetes.io/metadata.name": own}), &ceiling).await;
        eventually("with the ceiling, only the right is missing", || async {
            let message = dana.apply(workload(&own, "bot", &db(&shop))).await.expect_err("dana may not see it").message;
            check(!message.contains("ScopeCeiling") && message.contains("get services orders"), || message)
        })
        .await;
        let dana = world.person("dana", &[(&shop, "view")]).await;
        eventually("dana may declare what dana may see", || async {
            dana.apply(workload(&own, "bot", &db(&shop))).await.map_err(|e| e.to_string())
        })
        .await;
        // A class outside the ceiling, and the remedy.
        let restricted = "dataSources: [{name: mine, type: ConfigMap, configMap: {name: c}}]";
        refused(
            dana.apply(workload(&own, "other", restricted)).await,
            "a class",
            &["dataSources[name=mine].class", "a data source without a class counts as Restricted", "classes: [Restricted]"],
        );
    });
}

#[test]
fn an_applier_needs_a_ceiling_instead_of_rights() {
    run(async {
        let world = world().await;
        let own = world.namespace("applier").await;
        let argo = world.admin.as_user(APPLIER, &["system:masters"]);
        refused(
            argo.apply(workload(&own, "bot", ORDERS)).await,
            "no ceiling",
            &["its author is a declared applier, which needs a ceiling for what it adds", "ask an admin for one with kubernetes:"],
        );
        let ceiling = "unscopedPods: Allow\nclasses: [Public]\nkubernetes: [{name: orders, apiGroups: [shop.example.com], resources: [orders], access: Read}]";
        world.ceiling("applier", json!({"kubernetes.io/metadata.name": own}), ceiling).await;
        eventually("with a ceiling it may", || async { argo.apply(workload(&own, "bot", ORDERS)).await.map_err(|e| e.to_string()) }).await;
        let write = ORDERS.replace("type: Kubernetes,", "type: Kubernetes, access: ReadWrite,");
        refused(
            argo.apply(workload(&own, "bot", &write)).await,
            "beyond the ceiling",
            &["is not within ScopeCeiling", "access: ReadWrite"],
        );
        let until = (Timestamp::now() + SignedDuration::from_mins(30)).to_string();
        let exception = json!({"until": until, "by": APPLIER, "reason": "it hangs"}).to_string();
        refused(
            argo.patch("AIWorkload", &own, "bot", json!({"metadata": {"annotations": {"remit.dev/break-glass": exception}}})).await,
            "an exception",
            &["names the person who asks for it", "kubectl remit break-glass"],
        );
        // Asked for the verb like anybody, and it holds all.
        argo.patch("AIWorkload", &own, "bot", json!({"spec": {"mode": "Observe"}})).await.expect("it may set pods free");
    });
}

#[test]
fn setting_pods_free_needs_the_verb_release() {
    run(async {
        let world = world().await;
        let own = world.namespace("release").await;
        let dana = world.person("dana", &[(&own, "edit")]).await;
        let ada = world.person("ada", &[(&own, "admin")]).await;
        let spec = "selector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}";
        dana.apply(workload(&own, "bot", spec)).await.unwrap();
        world.is_ready(&own, "bot").await;
        let release = "\"release aiworkloads.remit.dev bot in namespace";
        let patch = |person: &Api, patch: Value| {
            let (person, own) = (person.clone(), own.clone());
            async move { person.patch("AIWorkload", &own, "bot", patch).await }
        };
        let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "mine", "uid": "00000000-0000-0000-0000-000000000001"}]}});
        let ways = [
            ("Observe", json!({"spec": {"mode": "Observe"}}), "mode: this sets pods free"),
            (
                "fewer pods",
                json!({"spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}]}}}),
                "selector: this sets pods free",
            ),
            (
                "the annotation",
                json!({"metadata": {"annotations": {"remit.dev/release": "true"}}}),
                "metadata.annotations[remit.dev/release]",
            ),
            ("an owner that dana may delete", owner, "metadata.ownerReferences"),
        ];
        for (what, change, path) in &ways {
            refused(patch(&dana, change.clone()).await, what, &[path, release, "which dana does not hold"]);
        }
        refused(dana.delete("AIWorkload", &own, "bot").await, "deletion", &["deletion: this sets pods free", release]);

        // What sets nobody free is nobody's business: more pods, less data, a label, the purpose, suspension.
        let harmless = [
            json!({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}}}),
            json!({"spec": {"purpose": "Answers"}}),
            json!({"spec": {"suspend": true}}),
            json!({"spec": {"suspend": false}}),
            json!({"spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b", "c"]}]}}}),
        ];
        for change in harmless {
            patch(&dana, change.clone()).await.unwrap_or_else(|e| panic!("{change}: {e}"));
        }
        // The finalizer, while pods are held.
        world.pod(&own, "bot-1", json!({"app": "a"})).await;
        ada.delete("AIWorkload", &own, "bot").await.expect("ada may release");
        world.condition(&own, "bot", "Ready", "False", "Waiting").await;
        refused(patch(&dana, json!({"metadata": {"finalizers": null}})).await, "the finalizer", &["metadata.finalizers", release]);
        refused(patch(&dana, ways[2].1.clone()).await, "the annotation at the end", &[release]);
        patch(&ada, ways[2].1.clone()).await.expect("ada may release");
        eventually("it goes", || async { check(world.admin.get("AIWorkload", &own, "bot").await.is_none(), || "it is there".into()) })
            .await;

        // An Observe workload holds nobody.
        dana.apply(workload(&own, "watched", "mode: Observe")).await.unwrap();
        dana.delete("AIWorkload", &own, "watched").await.expect("nobody is set free");
    });
}

#[test]
fn taking_a_namespace_out_needs_release_and_labels_cannot_be_forged() {
    run(async {
        let world = world().await;
        let own = world.namespace("enrolment").await;
        let labeller = world.labeller().await;
        let dana = world.person("dana", &[(&own, "edit"), (&own, &labeller)]).await;
        let ada = world.person("ada", &[(&own, "admin"), (&own, &labeller)]).await;
        world.declare(&own, "bot", "").await;
        world.is_ready(&own, "bot").await;
        for value in [json!(null), json!("false")] {
            let leave = json!({"metadata": {"labels": {"remit.dev/enrolled": value}}});
            refused(
                dana.patch("Namespace", "", &own, leave).await,
                "leaving",
                &["taking an enrolled namespace out of Remit sets its AI services free: it needs the verb release"],
            );
        }
        dana.patch("Namespace", "", &own, json!({"metadata": {"labels": {"team": "a"}}})).await.expect("other labels are free");

        // Objects that pretend to be generated.
        let forged = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "forged", "namespace": own, "labels": {"app.kubernetes.io/managed-by": "remit"}},
            "spec": {"podSelector": {}},
        });
        refused(dana.create(forged.clone()).await, "a forged label", &["app.kubernetes.io/managed-by: remit marks what Remit generates"]);
        let mut plain = forged;
        plain["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "me"});
        dana.create(plain).await.expect("a policy of one's own");
        let label = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "remit"}}});
        refused(dana.patch("NetworkPolicy", &own, "forged", label).await, "a label put on", &["marks what Remit generates"]);

        ada.patch("Namespace", "", &own, json!({"metadata": {"labels": {"remit.dev/enrolled": null}}})).await.expect("ada may release");
        eventually("the operator removes what it generated", || async {
            let left = world.generated(&own, "bot").await;
            check(left.is_empty(), || format!("{left:?}"))
        })
        .await;
    });
}

#[test]
fn what_remit_generated_is_edited_through_its_aiworkload_only() {
    run(async {
        let (world, operator) = guarded("protect").await;
        let own = world.namespace("own").await;
        let dana = world.person("dana", &[(&own, "edit"), (&own, "admin")]).await;
        world
            .declare(&own, "bot", "dataSources: [{name: c, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [configmaps]}}]")
            .await;
        world.is_ready(&own, "bot").await;
        let role = format!("remit.{own}.bot");
        let open = json!([{"op": "add", "path": "/spec/egress", "value": [{}]}]);
        let unlabel = json!([{"op": "remove", "path": "/metadata/labels/app.kubernetes.io~1managed-by"}]);
        let all = json!([{"op": "add", "path": "/rules", "value": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"]}]}]);
        let somebody = json!([{"op": "add", "path": "/subjects/-", "value": {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory"}}]);
        let edits = [
            ("NetworkPolicy", "remit-bot", open),
            ("NetworkPolicy", "remit-bot", unlabel.clone()),
            ("Role", role.as_str(), all),
            ("RoleBinding", role.as_str(), somebody),
            ("ServiceAccount", "bot", unlabel.clone()),
            ("ConfigMap", "remit-bot", json!([{"op": "add", "path": "/data/policy.note", "value": "{}"}])),
            ("ConfigMap", "remit-bot", unlabel),
        ];
        // Not what the operator keeps of itself (its lease, what the recorder saw).
        let before = world.tally_in(&[&own]);
        // While the operator answers, and while it is away: the API server itself holds these policies.
        for away in [false, true] {
            if away {
                operator.kill();
            }
            for (who, person) in [("edit", &dana), ("cluster-admin", &world.admin)] {
                for (kind, name, patch) in &edits {
                    let what = format!("{who}, operator away: {away}, {kind} {patch}");
                    refused(
                        person.patch(kind, &own, name, patch.clone()).await,
                        &what,
                        &[&format!("is generated by Remit: edit AIWorkload bot in namespace {own} instead")],
                    );
                    refused(person.delete(kind, &own, name).await, &what, &["is generated by Remit"]);
                }
            }
        }
        assert_eq!(world.tally_in(&[&own]), before, "there was nothing to revert");
    });
}

#[test]
fn without_the_webhook_no_spec_passes_and_namespaces_can_still_go() {
    run(async {
        let (world, operator, config) = guarded_by("down").await;
        let (own, watched) = (world.namespace("own").await, world.namespace("watched").await);
        world.declare(&own, "bot", "").await;
        world.is_ready(&own, "bot").await;
        world.declare(&watched, "bot", "mode: Observe").await;
        world.condition(&watched, "bot", "Ready", "True", "Observed").await;
        operator.kill();

        let dana = world.person("dana", &[(&own, "edit")]).await;
        // The API server names the URL to whom it refuses for want of an answer: that of /scope, never that of /record (src/operator/webhook/paths.rs).
        let secret = world.admin.get("Secret", &world.system(), "remit-webhook-path").await.expect("the paths' secrets");
        let decoded = |name: &str| {
            let bytes: k8s_openapi::ByteString = serde_json::from_value(secret["data"][name].clone()).expect("base64");
            String::from_utf8(bytes.0).expect("digits")
        };
        let told = dana.apply(workload(&own, "new", "selector: {matchLabels: {app: new}}")).await.expect_err("nobody answers").message;
        assert!(told.contains(&decoded("scope")) && !told.contains(&decoded("record")), "{told}");
        for (who, person) in [("edit", &dana), ("cluster-admin", &world.admin)] {
            refused(
                person.apply(workload(&own, "new", "selector: {matchLabels: {app: new}}")).await,
                who,
                &["failed calling webhook \"aiworkloads.remit.dev\""],
            );
            refused(person.patch("AIWorkload", &own, "bot", json!({"spec": {"suspend": true}})).await, who, &["failed calling webhook"]);
            refused(person.delete("AIWorkload", &own, "bot").await, who, &["failed calling webhook"]);
        }
        // Metadata are never held up, and nothing else waits for Remit.
        dana.patch("AIWorkload", &own, "bot", json!({"metadata": {"labels": {"team": "a"}}})).await.expect("metadata");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map", "namespace": own}});
        dana.create(map).await.expect("a ConfigMap");
        world.service(&own, "db", 5432, json!(5432)).await;
        world.ceiling("late", json!({"never": "matches"}), "unscopedPods: Allow").await;

        // A namespace with an Observe workload goes without the operator; one that holds pods waits for it, and nothing else.
        for namespace in [&own, &watched] {
            world.admin.delete("Namespace", "", namespace).await.unwrap();
        }
        let gone = |namespace: String| {
            let admin = world.admin.clone();
            async move {
                let object = admin.get("Namespace", "", &namespace).await;
                check(object.is_none(), || object.unwrap()["status"].to_string())
            }
        };
        eventually_within(Duration::from_secs(120), "a namespace goes without the operator", || gone(watched.clone())).await;
        eventually("the AIWorkload is being deleted", || async {
            let bot = world.admin.get("AIWorkload", &own, "bot").await.ok_or("gone")?;
            check(bot["metadata"]["deletionTimestamp"].is_string(), || bot["metadata"].to_string())
        })
        .await;
        let _operator = world.operator_with(&world.proxy, config).await;
        eventually_within(Duration::from_secs(120), "the namespace goes with the operator", || gone(own.clone())).await;
    });
}

#[test]
fn the_recorder_knows_who_wrote_and_the_certificate_is_kept() {
    run(async {
        let (world, _operator) = guarded("recorder").await;
        let own = world.namespace("own").await;
        world.declare(&own, "bot", "").await;
        world.is_ready(&own, "bot").await;
        // An attacker with rights takes the protection down first.
        let mallory = world.admin.as_user("mallory@example.com", &["system:masters"]);
        mallory.delete("ValidatingAdmissionPolicyBinding", "", &world.name("remit-protect-generated")).await.unwrap();
        let open = json!([{"op": "add", "path": "/spec/egress", "value": [{}]}]);
        eventually("the protection is down", || async {
            mallory.patch("NetworkPolicy", &own, "remit-bot", open.clone()).await.map_err(|e| e.to_string())
        })
        .await;
        eventually("the Event names the person", || async {
            let events = world.admin.list("Event", &own, "").await;
            let notes: Vec<&str> = events.iter().filter_map(|e| e["note"].as_str()).collect();
            check(notes.iter().any(|n| n.contains("was changed (spec.egress) by mallory@example.com; restored")), || format!("{notes:?}"))
        })
        .await;

        for (configuration, count) in [("remit-scope", 2), ("remit-recorder", 2)] {
            let name = world.name(configuration);
            let bundles = || async {
                let object = world.admin.get("ValidatingWebhookConfiguration", "", &name).await.ok_or("gone")?;
                let webhooks = object["webhooks"].as_array().cloned().unwrap_or_default();
                let bundles: Vec<String> =
                    webhooks.iter().filter_map(|w| w["clientConfig"]["caBundle"].as_str().map(str::to_owned)).collect();
                check(bundles.len() == count, || format!("{} bundles", bundles.len())).map(|()| bundles)
            };
            let before = bundles().await.unwrap();
            world
                .admin
                .patch("ValidatingWebhookConfiguration", "", &name, json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]))
                .await
                .unwrap();
            let (after, _) = eventually("a missing caBundle is put back", bundles).await;
            assert_eq!(before, after);
        }
        let probe = world.name("probe");
        answers(&world.person("nobody", &[(&probe, "remit-edit")]).await, &probe).await;
    });
}

#[test]
fn only_who_knows_the_path_is_answered() {
    run(async {
        let (world, operator, config) = guarded_by("path").await;
        let own = world.namespace("own").await;
        let published = async || {
            let mut all = Vec::new();
            for configuration in ["remit-scope", "remit-recorder"] {
                let object = world.admin.get("ValidatingWebhookConfiguration", "", &world.name(configuration)).await.unwrap();
                let path = |w: &Value| w["clientConfig"]["service"]["path"].as_str().unwrap_or_default().to_owned();
                all.extend(object["webhooks"].as_array().unwrap().iter().map(path));
            }
            all
        };
        let [scope, also_scope, record, also_record] = &published().await[..] else { panic!("four webhooks") };
        let secret = |path: &str, name: &str| {
            let secret = path.strip_prefix(name).unwrap_or_else(|| panic!("{name} begins {path}")).to_owned();
            assert_eq!(secret.len(), 64);
            secret
        };
        let secrets = [secret(scope, "/scope/"), secret(record, "/record/")];
        assert!(scope == also_scope && record == also_record && secrets[0] != secrets[1]);

        // A second replica, on a port of its own.
        let mut other = OperatorConfig { name: "operator-1".to_owned(), ..config.clone() };
        let other_port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        other.settings["webhook"]["port"] = json!(other_port);
        let replica = world.operator_with(&world.another_proxy().await, other).await;
        assert_eq!(published().await, [scope, scope, record, record].map(String::clone), "it takes what is there");

        let review = |user: &str| {
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
                "uid": "u-1", "kind": {"group": "rbac.authorization.k8s.io", "version": "v1", "kind": "Role"},
                "resource": {"group": "rbac.authorization.k8s.io", "version": "v1", "resource": "roles"},
                "name": format!("written-by-{user}"), "namespace": own, "operation": "UPDATE", "userInfo": {"username": user}}})
        };
        let ports = [config.settings["webhook"]["port"].as_u64().unwrap(), u64::from(other_port)];
        let strange = [
            "/".to_owned(),
            "/scope".to_owned(),
            "/record".to_owned(),
            format!("/record/{}", "0".repeat(64)),
            format!("/scope/{}", "0".repeat(64)),
            format!("/record/{}", secrets[0]),
            format!("/scope/{}", secrets[1]),
        ];
        let webhook = |port: u64| {
            let mut config = kube::Config::new(format!("https://localhost:{port}").parse().unwrap());
            config.accept_invalid_certs = true;
            config.default_retry = false;
            Api { client: kube::Client::try_from(config.clone()).unwrap(), config }
        };
        for (port, operator) in ports.iter().zip([&operator, &replica]) {
            let webhook = webhook(*port);
            for path in &strange {
                let answer = webhook.request("POST", path, None, Some(&review("framed"))).await;
                assert!(answer.as_ref().is_err_and(|e| e.code == 404), "{port}{path}: {answer:?}");
            }
            assert_eq!(operator.metric("remit_webhook_strangers_total", &[]).await, Some(strange.len() as f64));
            // Positive controls, the recorder's written after all that it should not have kept.
            let judged = webhook.request("POST", scope, None, Some(&review("framed"))).await.unwrap();
            assert_eq!(judged["response"]["allowed"], json!(false), "{judged}");
            let noted = webhook.request("POST", record, None, Some(&review(&format!("known-{port}")))).await.unwrap();
            assert_eq!(noted["response"]["allowed"], json!(true), "{noted}");
        }
        let recorded = || async {
            let map = world.admin.get("ConfigMap", &world.system(), "remit-recorded-writes").await.ok_or("nothing is recorded")?;
            let text = map["data"].to_string();
            check(ports.iter().all(|port| text.contains(&format!("known-{port}"))), || text.clone()).map(|()| text)
        };
        let (text, _) = eventually("both recorders note a write", recorded).await;
        assert!(!text.contains("framed"), "{text}");

        // Whoever leads the API server elsewhere does so for a moment.
        for (configuration, path) in [("remit-scope", "/scope"), ("remit-recorder", record)] {
            let elsewhere = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/path", "value": path}, {"op": "remove", "path": "/webhooks/1/clientConfig/service/path"}]);
            world.admin.patch("ValidatingWebhookConfiguration", "", &world.name(configuration), elsewhere).await.unwrap();
        }
        eventually("the paths are put back", || async {
            let now = published().await;
            check(now == [scope, scope, record, record].map(String::clone), || format!("{now:?}"))
        })
        .await;
        let probe = world.name("probe");
        let nobody = world.person("nobody", &[(&probe, "remit-edit")]).await;
        answers(&nobody, &probe).await;
        // Either may have put them back; the first one published them in the beginning.
        for (log, said) in [(operator.log_text(), "published"), (replica.log_text(), "serving a new webhook certificate")] {
            assert!(log.contains(said) && !secrets.iter().any(|secret| log.contains(&secret[..16])), "{log}");
        }

        // An administrator gives the path of /scope another secret. (The edit of a configuration has them look at once.)
        let another = "5".repeat(64);
        let secret = json!({"stringData": {"scope": another}});
        world.admin.patch("Secret", &world.system(), "remit-webhook-path", secret).await.unwrap();
        let gone = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/service/path"}]);
        world.admin.patch("ValidatingWebhookConfiguration", "", &world.name("remit-scope"), gone).await.unwrap();
        let new = format!("/scope/{another}");
        eventually("the new path is published", || async {
            let now = published().await;
            check(now == [&new, &new, record, record].map(String::clone), || format!("{now:?}"))
        })
        .await;
        for port in ports {
            for path in [scope, &new] {
                eventually(&format!("{port} answers at {path}"), || async {
                    webhook(port).request("POST", path, None, Some(&review("framed"))).await.map_err(|e| e.to_string())
                })
                .await;
            }
        }
        answers(&nobody, &probe).await;
    });
}

#[test]
fn a_certificate_that_somebody_else_keeps_leaves_the_path_to_the_operator() {
    run(async {
        let (world, operator, mut config) = guarded_by("files").await;
        let name = world.name("remit-scope");
        let first = async || {
            let object = world.admin.get("ValidatingWebhookConfiguration", "", &name).await.unwrap();
            object["webhooks"][0]["clientConfig"].clone()
        };
        let before = first().await;
        // What cert-manager would have written.
        let secret = world.admin.get("Secret", &world.system(), "remit-webhook-tls").await.expect("the certificate");
        let directory = tempfile::tempdir().unwrap();
        for file in ["tls.crt", "tls.key"] {
            let bytes: k8s_openapi::ByteString = serde_json::from_value(secret["data"][file].clone()).unwrap();
            std::fs::write(directory.path().join(file), bytes.0).unwrap();
        }
        operator.kill();
        let without = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}, {"op": "remove", "path": "/webhooks/0/clientConfig/service/path"}]);
        world.admin.patch("ValidatingWebhookConfiguration", "", &name, without).await.unwrap();
        config.settings["webhook"]["certificate"] = json!({"type": "Files", "directory": directory.path()});
        let _operator = world.operator_with(&world.proxy, config).await;
        eventually("the path is put back", || async {
            let now = first().await;
            check(now["service"]["path"] == before["service"]["path"], || now.to_string())
        })
        .await;
        assert!(first().await.get("caBundle").is_none(), "the caBundle is not the operator's");
        let injected = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": before["caBundle"]}]);
        world.admin.patch("ValidatingWebhookConfiguration", "", &name, injected).await.unwrap();
        let probe = world.name("probe");
        answers(&world.person("nobody", &[(&probe, "remit-edit")]).await, &probe).await;
        assert_eq!(first().await, before, "and both stay");
    });
}

#[test]
fn the_operators_own_account_can_hand_out_no_more_than_is_grantable() {
    run(async {
        let world = world().await;
        let (own, elsewhere) = (world.namespace("account").await, world.namespace("accountother").await);
        world.admin.delete("RoleBinding", &elsewhere, "remit-grantable").await.unwrap();
        let role = |namespace: &str, name: &str, rule: Value| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": [rule]});
        let orders = json!({"apiGroups": ["shop.example.com"], "resources": ["orders"], "verbs": ["get"]});
        eventually("what is grantable can be granted", || async {
            world.account.apply(role(&own, "orders", orders.clone())).await.map_err(|e| e.to_string())
        })
        .await;
        eventually("but not where it is not bound", || async {
            let answer = world.account.apply(role(&elsewhere, "orders", orders.clone())).await;
            check(answer.as_ref().is_err_and(|e| e.message.contains("attempting to grant RBAC permissions not currently held")), || {
                format!("{answer:?}")
            })
        })
        .await;
        for (what, rule) in [
            ("Secrets", json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})),
            ("everything", json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})),
            ("exec", json!({"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]})),
            ("more verbs", json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"]})),
        ] {
            refused(
                world.account.apply(role(&own, "more", rule)).await,
                what,
                &["attempting to grant RBAC permissions not currently held"],
            );
        }
        // Nor can it bind a role that it does not hold, or help itself by other means.
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "admin", "namespace": own},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "remit", "namespace": world.system()}],
        });
        refused(world.account.create(binding).await, "a binding", &["attempting to grant RBAC permissions not currently held"]);
        let label = json!({"metadata": {"labels": {"remit.dev/enrolled": "true"}}});
        refused(world.account.patch("Namespace", "", &own, label).await, "a namespace", &["cannot patch resource \"namespaces\""]);
        refused(world.account.request("GET", "/api/v1/secrets", None, None).await, "Secrets", &["cannot list resource \"secrets\""]);
        refused(world.account.patch("Pod", &own, "any", json!({})).await, "a pod", &["cannot patch resource \"pods\""]);
        let more = json!([{"op": "add", "path": "/rules/-", "value": {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}}]);
        refused(
            world.account.patch("ClusterRole", "", "remit-grantable-values", more).await,
            "what is grantable",
            &["cannot patch resource \"clusterroles\""],
        );
    });
}

#[test]
fn a_ceiling_that_nobody_could_read_is_refused_with_the_field() {
    run(async {
        let world = world().await;
        let object = json!({
            "apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": world.name("unreadable")},
            "spec": {"namespaceSelector": {}, "services": [{"name": "own", "services": ["*"], "addresses": ["nonsense"]}]},
        });
        refused(world.admin.create(object).await, "an address", &["services[name=own].addresses"]);
    });
}
