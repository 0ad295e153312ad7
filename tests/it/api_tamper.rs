//! Whoever edits what Remit generated is undone, reported and counted. Needs the API tier.
//!
//! The editor is cluster-admin, with no admission policy in the way: an attacker with rights would take those down first.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Operator, World, always, check, eventually, run};

/// What is promised.
const PROMISED: Duration = Duration::from_secs(2);
/// A repair is followed by a pause in which the next waits (see the operator's REPAIR_INTERVAL): let it pass between two cases.
const PAUSE: Duration = Duration::from_millis(1100);

const SPEC: &str = "
dataSources:
- {name: db, type: Service, access: ReadWrite, service: {name: db, port: 5432, protocol: TCP}}
- {name: settings, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [configmaps]}}
capabilities: {clients: [{name: web, podSelector: {matchLabels: {app: web}}, port: 8080}]}";

/// Kind, what is done, the JSON patch. An empty patch deletes the object.
fn cases() -> Vec<(&'static str, &'static str, Value)> {
    let add = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    let stranger = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "00000000-0000-0000-0000-000000000000"}]);
    let mut cases = vec![
        ("NetworkPolicy", "egress to anybody", add("/spec/egress", json!([{}]))),
        ("NetworkPolicy", "one more egress rule", add("/spec/egress/-", json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}))),
        ("NetworkPolicy", "ingress from anybody", add("/spec/ingress", json!([{}]))),
        ("NetworkPolicy", "one more peer", add("/spec/egress/0/to/-", json!({"podSelector": {}}))),
        ("NetworkPolicy", "one more port", add("/spec/egress/0/ports/-", json!({"port": 22, "protocol": "TCP"}))),
        ("NetworkPolicy", "other pods", add("/spec/podSelector", json!({"matchLabels": {"app": "nobody"}}))),
        ("NetworkPolicy", "fewer pods", add("/spec/podSelector/matchLabels/also", json!("this"))),
        ("NetworkPolicy", "no egress type", add("/spec/policyTypes", json!(["Ingress"]))),
        ("Role", "one more rule", add("/rules/-", json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}))),
        ("Role", "everything", add("/rules", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]))),
        ("Role", "one more verb", add("/rules/0/verbs/-", json!("delete"))),
        (
            "RoleBinding",
            "one more subject",
            add("/subjects/-", json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory"})),
        ),
        ("RoleBinding", "another subject", add("/subjects/0/name", json!("default"))),
        ("ConfigMap", "another policy for the guards", add("/data/policy.note", json!("{}"))),
        ("ConfigMap", "one more key", add("/data/more", json!("x"))),
        ("ConfigMap", "bytes beside", add("/binaryData", json!({"bytes": "AAAA"}))),
        ("ConfigMap", "no policy", json!([{"op": "remove", "path": "/data"}])),
        ("ServiceAccount", "no token", add("/automountServiceAccountToken", json!(false))),
    ];
    for kind in ["NetworkPolicy", "ConfigMap", "ServiceAccount", "Role", "RoleBinding"] {
        cases.push((kind, "a foreign finalizer", add("/metadata/finalizers", json!(["example.com/stay"]))));
        // The policies have none: they must outlive the AIWorkload while pods run.
        if matches!(kind, "NetworkPolicy" | "ConfigMap") {
            cases.push((kind, "an owner", add("/metadata/ownerReferences", stranger.clone())));
        } else {
            cases.push((kind, "no owner", json!([{"op": "remove", "path": "/metadata/ownerReferences"}])));
            cases.push((kind, "one more owner", json!([{"op": "add", "path": "/metadata/ownerReferences/-", "value": stranger[0]}])));
        }
        cases.push((kind, "our label removed", json!([{"op": "remove", "path": "/metadata/labels/app.kubernetes.io~1managed-by"}])));
        cases.push((kind, "all labels removed", json!([{"op": "remove", "path": "/metadata/labels"}])));
        cases.push((kind, "another workload's label", add("/metadata/labels/remit.dev~1workload", json!("other"))));
        cases.push((kind, "deleted", json!([])));
    }
    cases
}

struct Scene {
    world: World,
    operator: Operator,
    own: String,
}

/// A world with one workload `bot`, held.
async fn scene(name: &str) -> Scene {
    let world = World::new(name).await;
    let operator = world.operator().await;
    let own = world.namespace("own").await;
    world.service(&own, "db", 5432, json!(5432)).await;
    world.declare(&own, "bot", SPEC).await;
    world.is_ready(&own, "bot").await;
    Scene { world, operator, own }
}

impl Scene {
    fn name_of(&self, kind: &str) -> String {
        match kind {
            "NetworkPolicy" | "ConfigMap" => "remit-bot".to_owned(),
            "ServiceAccount" => "bot".to_owned(),
            _ => format!("remit.{}.bot", self.own),
        }
    }

    /// The object but for what changes by itself.
    async fn content(&self, kind: &str) -> Option<Value> {
        let mut object = self.world.admin.get(kind, &self.own, &self.name_of(kind)).await?;
        for volatile in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
            object["metadata"].as_object_mut().unwrap().remove(volatile);
        }
        Some(object)
    }

    async fn tamper(&self, kind: &str, patch: &Value) {
        let (admin, own, name) = (&self.world.admin, &self.own, self.name_of(kind));
        let done = if patch.as_array().is_some_and(Vec::is_empty) {
            admin.delete(kind, own, &name).await
        } else {
            admin.patch(kind, own, &name, patch.clone()).await
        };
        done.unwrap_or_else(|e| panic!("{kind} {patch}: {e}"));
    }

    async fn restored(&self, kind: &str, what: &str, before: &Value) -> Duration {
        eventually(&format!("{kind}, {what}: restored"), || async {
            let now = self.content(kind).await.ok_or("it is gone")?;
            check(now == *before, || format!("{now} instead of {before}"))
        })
        .await
        .1
    }

    async fn reverted(&self, kind: &str) -> f64 {
        self.operator.metric("remit_tampering_reverted_total", &[&format!("kind=\"{kind}\"")]).await.unwrap_or(0.0)
    }
}

#[test]
fn every_edit_of_every_kind_is_undone_reported_and_counted() {
    run(async {
        // Side by side: each kind waits for its own pauses.
        let kinds = ["NetworkPolicy", "ConfigMap", "ServiceAccount", "Role", "RoleBinding"];
        let all = kinds.map(|kind| async move {
            let scene = scene(&format!("tamper{}", kind.to_lowercase())).await;
            let before = scene.content(kind).await.unwrap();
            let mut times = Vec::new();
            for (_, what, patch) in cases().into_iter().filter(|case| case.0 == kind) {
                tokio::time::sleep(PAUSE).await;
                let counted = scene.reverted(kind).await;
                scene.tamper(kind, &patch).await;
                times.push((scene.restored(kind, what, &before).await, what));
                // An owner that is not there may be taken off by the garbage collector before the operator looks.
                if what == "one more owner" {
                    continue;
                }
                eventually(&format!("{kind}, {what}: counted"), || async {
                    let now = scene.reverted(kind).await;
                    check(now > counted, || format!("{now}"))
                })
                .await;
            }
            let key = format!("{kind} {}/{}", scene.own, scene.name_of(kind));
            eventually("an Event says so", || async {
                let events = scene.world.admin.list("Event", &scene.own, "").await;
                let said = events.iter().filter(|e| e["reason"] == "TamperingReverted").filter_map(|e| e["note"].as_str());
                let said: Vec<&str> = said.filter(|note| note.contains(&key)).collect();
                check(!said.is_empty(), || format!("{} events, none of {key}", events.len()))
            })
            .await;
            world_is_as_planned(&scene).await;
            (kind, times)
        });
        for (kind, mut times) in futures::future::join_all(all).await {
            times.sort();
            let (worst, what) = times.last().unwrap();
            println!("{kind}: {} edits undone; median {:?}, slowest {worst:?} ({what})", times.len(), times[times.len() / 2].0);
            assert!(*worst < PROMISED, "{kind}, {what}: {worst:?}");
        }
    });
}

async fn world_is_as_planned(scene: &Scene) {
    assert_eq!(scene.world.generated(&scene.own, "bot").await.len(), 5);
    scene.world.is_ready(&scene.own, "bot").await;
}

#[test]
fn a_binding_that_was_replaced_by_one_to_another_role_is_put_back() {
    run(async {
        let scene = scene("rebind").await;
        let before = scene.content("RoleBinding").await.unwrap();
        let mut other = before.clone();
        other["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
        scene.world.admin.delete("RoleBinding", &scene.own, &scene.name_of("RoleBinding")).await.unwrap();
        // The operator may be quicker; then the name is taken, and the replacement has failed.
        let replaced = scene.world.admin.create(other).await.is_ok();
        let took = scene.restored("RoleBinding", "roleRef", &before).await;
        println!("a binding to another role (made: {replaced}) was put back after {took:?}");
        assert!(took < PROMISED, "{took:?}");
    });
}

#[test]
fn the_isolation_of_a_namespace_is_put_back() {
    run(async {
        let world = World::new("isolated").await;
        let _operator = world.operator().await;
        let own = world.namespace("own").await;
        world.ceiling("isolating", json!({}), "unscopedPods: Isolate").await;
        let spec = || async {
            world.admin.get("NetworkPolicy", &own, "remit.unscoped").await.map(|mut p| p["spec"].take()).ok_or("not there".to_owned())
        };
        let (before, _) = eventually("the policy appears", spec).await;
        let cases = [
            json!([{"op": "add", "path": "/spec/egress", "value": [{}]}]),
            json!([{"op": "add", "path": "/spec/podSelector", "value": {"matchLabels": {"a": "b"}}}]),
            json!([{"op": "remove", "path": "/metadata/labels"}]),
            json!([]),
        ];
        for patch in cases {
            tokio::time::sleep(PAUSE).await;
            if patch.as_array().is_some_and(Vec::is_empty) {
                world.admin.delete("NetworkPolicy", &own, "remit.unscoped").await.unwrap();
            } else {
                world.admin.patch("NetworkPolicy", &own, "remit.unscoped", patch.clone()).await.unwrap();
            }
            let ((), took) = eventually(&format!("{patch} is undone"), || async {
                let policy = world.admin.get("NetworkPolicy", &own, "remit.unscoped").await.ok_or("gone")?;
                let ours = policy["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "remit";
                check(policy["spec"] == before && ours, || policy.to_string())
            })
            .await;
            assert!(took < PROMISED, "{patch}: {took:?}");
        }
    });
}

/// A policy under the name of the isolation that opens everything.
fn hole(namespace: &str, metadata: Value) -> Value {
    let mut policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata,
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]},
    });
    policy["metadata"]["namespace"] = json!(namespace);
    policy["metadata"]["name"] = json!("remit.unscoped");
    policy
}

/// The isolation as it should be: ours, every pod, nothing in or out.
async fn isolated(world: &World, namespace: &str) -> Result<Value, String> {
    let policy = world.admin.get("NetworkPolicy", namespace, "remit.unscoped").await.ok_or("not there")?;
    let (meta, mut spec) = (&policy["metadata"], policy["spec"].clone());
    // The API server leaves out what is empty.
    let nothing = |list: Option<Value>| list.is_none_or(|list| list == json!([]));
    let empty = ["ingress", "egress"].map(|list| spec.as_object_mut().and_then(|spec| spec.remove(list))).into_iter().all(nothing);
    let kept = ["finalizers", "ownerReferences", "deletionTimestamp"].iter().any(|member| meta.get(member).is_some());
    let all = spec == json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let ours = meta["labels"]["app.kubernetes.io/managed-by"] == "remit";
    check(empty && all && ours && !kept, || policy.to_string()).map(|()| policy)
}

#[test]
fn whoever_took_the_name_of_the_isolation_first_does_not_keep_it_away() {
    run(async {
        let world = World::new("unscoped").await;
        let operator = world.operator().await;
        let owner = json!([{"apiVersion": "v1", "kind": "Namespace", "name": "none", "uid": "00000000-0000-0000-0000-000000000000"}]);
        let labels = |namespace: &str| json!({"app.kubernetes.io/managed-by": "remit", "remit.dev/workload": "bot", "remit.dev/workload-namespace": namespace, "team": "x"});
        let mut cases = Vec::new();
        for short in ["bare", "labelled", "owned", "stays", "going"] {
            let own = world.namespace(short).await;
            let metadata = match short {
                "bare" => json!({}),
                "labelled" => json!({"labels": labels(&own)}),
                "owned" => json!({"labels": {"team": "x"}, "ownerReferences": owner}),
                _ => json!({"labels": {"team": "x"}, "finalizers": ["example.com/stay"]}),
            };
            // The garbage collector may be quicker where the owner is none.
            world.admin.apply_as("mallory", hole(&own, metadata)).await.unwrap();
            if short == "going" {
                world.admin.delete("NetworkPolicy", &own, "remit.unscoped").await.unwrap();
            }
            cases.push((short, own));
        }
        always(Duration::from_secs(2), "where no isolation is wanted it is nobody's affair", || async {
            let writes = world.tally_in(&cases.iter().map(|(_, own)| own.as_str()).collect::<Vec<_>>());
            check(writes.is_empty(), || format!("{writes:?}"))
        })
        .await;

        world.ceiling("isolating", json!({}), "unscopedPods: Isolate").await;
        for (short, own) in &cases {
            let (policy, took) = eventually(&format!("{short}: isolated"), || isolated(&world, own)).await;
            println!("{short}: isolated after {took:?}");
            if matches!(*short, "labelled" | "stays") {
                assert_eq!(policy["metadata"]["labels"]["team"], "x", "labels beside ours are others' affair");
            }
            if *short == "owned" {
                continue;
            }
            eventually(&format!("{short}: an Event says so"), || async {
                let events = world.admin.list("Event", own, "").await;
                let said = |e: &Value| e["reason"] == "TakenOver" && e["regarding"]["kind"] == "Namespace" && e["type"] == "Warning";
                let notes: Vec<&str> = events.iter().filter(|e| said(e)).filter_map(|e| e["note"].as_str()).collect();
                let names = |note: &&str| note.contains(&format!("{own}/remit.unscoped")) && note.contains("calls itself mallory");
                check(notes.iter().any(names), || format!("{notes:?} of {} events", events.len()))
            })
            .await;
        }
        let taken = operator.metric("remit_reconcile_errors_total", &["NameTaken"]).await;
        assert_eq!(taken.unwrap_or(0.0), 0.0);

        // From now on it is held like any other, whatever labels it bears.
        tokio::time::sleep(PAUSE).await;
        for (short, own) in &cases {
            let open = json!([{"op": "add", "path": "/spec/egress", "value": [{}]}]);
            world.admin.patch("NetworkPolicy", own, "remit.unscoped", open).await.unwrap();
            let (_, took) = eventually(&format!("{short}: an edit is undone"), || isolated(&world, own)).await;
            assert!(took < PROMISED, "{short}: {took:?}");
        }
    });
}

#[test]
fn whoever_makes_the_isolation_anew_again_and_again_causes_few_writes_and_loses() {
    run(async {
        let world = World::new("remade").await;
        let operator = world.operator().await;
        let own = world.namespace("own").await;
        world.ceiling("isolating", json!({}), "unscopedPods: Isolate").await;
        eventually("isolated", || isolated(&world, &own)).await;
        world.proxy.clear();
        let began = Instant::now();
        let mut made = 0;
        while began.elapsed() < Duration::from_secs(5) {
            // The operator may be quicker with either.
            let _ = world.admin.delete("NetworkPolicy", &own, "remit.unscoped").await;
            made += usize::from(world.admin.create(hole(&own, json!({}))).await.is_ok());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let writes = world.tally_in(&[&own]);
        let (total, seconds) = (writes.values().sum::<usize>(), began.elapsed().as_secs_f64());
        println!("made {made} times in {seconds:.1} s, which caused {writes:?}");
        assert!(made > 5 && total >= 2 && (total as f64) < 2.0 * seconds + 2.0, "made {made} times in {seconds:.1} s, {writes:?}");
        let (_, took) = eventually("isolated in the end", || isolated(&world, &own)).await;
        assert!(took < PROMISED, "{took:?}");
        let reverted = operator.metric("remit_tampering_reverted_total", &["kind=\"NetworkPolicy\""]).await;
        assert!(reverted.is_some_and(|count| count >= 2.0), "it is counted: {reverted:?}");
    });
}

#[test]
fn an_edit_while_the_operator_is_away_is_undone_when_it_comes_back() {
    run(async {
        let mut scene = scene("away").await;
        let before = [scene.content("NetworkPolicy").await.unwrap(), scene.content("Role").await.unwrap()];
        scene.operator.kill();
        scene.tamper("NetworkPolicy", &json!([{"op": "add", "path": "/spec/egress", "value": [{}]}])).await;
        scene.tamper("NetworkPolicy", &json!([{"op": "remove", "path": "/metadata/labels"}])).await;
        scene
            .tamper("Role", &json!([{"op": "add", "path": "/rules", "value": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}]))
            .await;
        scene.operator = scene.world.operator().await;
        scene.restored("NetworkPolicy", "edited, unlabelled", &before[0]).await;
        scene.restored("Role", "edited", &before[1]).await;
    });
}

#[test]
fn somebody_who_edits_again_and_again_causes_few_writes_and_never_wins_for_long() {
    run(async {
        let scene = scene("stubborn").await;
        let before = scene.content("NetworkPolicy").await.unwrap();
        scene.world.proxy.clear();
        let began = Instant::now();
        let mut edits = 0;
        while began.elapsed() < Duration::from_secs(5) {
            scene.tamper("NetworkPolicy", &json!([{"op": "add", "path": "/spec/egress", "value": [{}]}])).await;
            edits += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let writes = scene.world.tally_in(&[&scene.own]);
        let total: usize = writes.values().sum();
        let seconds = began.elapsed().as_secs_f64();
        println!("{edits} edits in {seconds:.1} s caused {writes:?}");
        // Once a second, an apply and at most one update each; never idle.
        assert!(total >= 2 && (total as f64) < 2.0 * seconds + 2.0, "{edits} edits in {seconds:.1} s, {writes:?}");
        let took = scene.restored("NetworkPolicy", "the last edit", &before).await;
        assert!(took < PROMISED, "{took:?}");
    });
}
