//! The control channel of a real operator: tokens that the API server bound to pods, policies as they lie in the cluster, and what the status
//! says of guards. The guard's end is the library's; nothing runs in the pods. Needs the API tier.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use remit::guard::channel::{Answer, Client};
use remit::plan::{GuardSettings, Injection, inject, validate};
use remit::policy::channel::{REPORT_FORMAT, Report, Usage};
use remit::policy::pod::IDS;
use remit::policy::signed::{Signer, Trust};
use remit::policy::{Document, Edition};
use serde_json::{Value, json};

use crate::support::{Operator, OperatorConfig, World, check, eventually, kind, run};

/// A pod with the guard of AIWorkload bot, and a token of its guard. (No webhook is asked here.)
async fn pod(world: &World, namespace: &str, name: &str, app: &str, audience: &str, trust: &Trust) -> String {
    let workload = json!({
        "apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": {"name": "bot", "namespace": namespace},
        "spec": {"mode": "Observe", "selector": {"matchLabels": {"app": "bot"}}},
    });
    let scope = validate(&serde_json::from_value(workload).unwrap()).expect("a scope");
    let settings = GuardSettings {
        image: "none.example.com/guard:0".into(),
        trust: trust.to_string(),
        image_pull_policy: "IfNotPresent".into(),
        cpu_request: "10m".into(),
        memory_request: "24Mi".into(),
        memory_limit: "96Mi".into(),
        allowed_devices: Vec::new(),
    };
    let plain = serde_json::from_value(unguarded(namespace, name, app)).unwrap();
    let injection = Injection { settings: &settings, scope: &scope, workload_uid: "u", uid: *IDS.start(), gid: *IDS.end() };
    made(world, serde_json::to_value(inject(&plain, &injection)).unwrap(), audience).await
}

fn unguarded(namespace: &str, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}},
        "spec": {"containers": [{"name": "main", "image": "none.example.com/none:1"}], "terminationGracePeriodSeconds": 0},
    })
}

/// Makes the pod, and a token that is bound to it.
async fn made(world: &World, pod: Value, audience: &str) -> String {
    let (name, namespace) = (pod["metadata"]["name"].clone(), pod["metadata"]["namespace"].as_str().unwrap().to_owned());
    let (pod, _) = eventually("the pod can be made", || async { world.admin.apply(pod.clone()).await.map_err(|e| e.to_string()) }).await;
    let reference = json!({"kind": "Pod", "apiVersion": "v1", "name": name, "uid": pod["metadata"]["uid"]});
    let spec = json!({"audiences": [audience], "expirationSeconds": 3600, "boundObjectRef": reference});
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let path = format!("{}/token", kind("ServiceAccount").path(&namespace, "default"));
    let answer = world.admin.request("POST", &path, None, Some(&request)).await.expect("a token");
    answer["status"]["token"].as_str().expect("a token").to_owned()
}

async fn client(world: &World) -> (Client, Trust) {
    let secret = world.admin.get("Secret", &world.system(), "remit-guard-key").await.expect("the operator's key");
    let seed: k8s_openapi::ByteString = serde_json::from_value(secret["data"]["seed"].clone()).expect("base64");
    let signer = Signer::from_seed(&seed.0.try_into().expect("32 bytes"));
    (Client::new(signer.trust().public_key()).expect("a client"), signer.trust().clone())
}

/// One question, on a connection of its own.
async fn ask(client: &Client, operator: &Operator, token: &str, enforced: Option<&Edition>) -> Answer {
    say(client, operator, token, &report(enforced)).await
}

async fn say(client: &Client, operator: &Operator, token: &str, report: &Report) -> Answer {
    let mut connection = client.connect(SocketAddr::from(([127, 0, 0, 1], operator.guards))).await.expect("connected");
    connection.ask(token, report).await.expect("an answer")
}

fn report(enforced: Option<&Edition>) -> Report {
    Report {
        format: REPORT_FORMAT,
        version: "0".into(),
        reads: 1,
        life: 1,
        enforced: enforced.cloned(),
        denials: Default::default(),
        would_deny: Default::default(),
        usage: Default::default(),
    }
}

fn edition(trust: &Trust, answer: Answer) -> Edition {
    let Answer::Policy(note) = answer else { panic!("{answer:?}") };
    let text = trust.open(std::str::from_utf8(&note).expect("text")).expect("signed").as_bytes().to_vec();
    Document::read(&text).expect("a policy").edition()
}

fn refused(answer: Answer) -> (u16, String) {
    match answer {
        Answer::Refused { status, reason, message: _ } => (status, reason),
        other => panic!("{other:?}"),
    }
}

async fn says(world: &World, namespace: &str, summary: &str, reason: &str) {
    eventually(&format!("{summary} and {reason}"), || async {
        let workload = world.admin.get("AIWorkload", namespace, "bot").await.ok_or("gone")?;
        let conditions = workload["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let guarded = conditions.into_iter().find(|c| c["type"] == "Guarded").unwrap_or_default();
        check(workload["status"]["pods"]["summary"] == summary && guarded["reason"] == reason, || workload["status"].to_string())
    })
    .await;
}

#[test]
fn a_guard_gets_the_policy_of_its_pod_and_the_status_says_so() {
    run(async {
        let world = World::new("channel").await;
        let operator = &world.operator().await;
        let own = world.namespace("own").await;
        world.declare(&own, "bot", "{}").await;
        world.is_ready(&own, "bot").await;
        says(&world, &own, "0/0", "NoPods").await;
        let (guard, trust) = client(&world).await;
        let token = &pod(&world, &own, "bot-1", "bot", "remit.dev/guard", &trust).await;
        let first = edition(&trust, ask(&guard, operator, token, None).await);

        // A change while the guard waits.
        let changes = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            says(&world, &own, "1/1", "Guarded").await;
            let began = Instant::now();
            world.declare(&own, "bot", "suspend: true").await;
            began
        };
        let asks = async { (ask(&guard, operator, token, Some(&first)).await, Instant::now()) };
        let (began, (answer, at)) = tokio::join!(changes, asks);
        println!("a kill switch was with the guard {:?} after it was asked for", at - began);
        assert!(at - began < Duration::from_secs(2));
        let second = edition(&trust, answer);
        assert!(second.may_follow(&first) && second.generation > first.generation && second.serial > first.serial);
        says(&world, &own, "0/1", "Stale").await;
        tokio::select! {
            answer = ask(&guard, operator, token, Some(&second)) => panic!("{answer:?}"),
            () = says(&world, &own, "1/1", "Guarded") => {}
        }

        // Made before the enrolment, say: the name, the first places and a token do not make a guard.
        let mut posing = unguarded(&own, "posing", "bot");
        let container = |name: &str| json!({"name": name, "image": "none.example.com/guard:1", "restartPolicy": "Always"});
        posing["spec"]["initContainers"] = json!([container("remit-redirect"), container("remit-guard")]);
        let posing = made(&world, posing, "remit.dev/guard").await;
        assert_eq!(refused(ask(&guard, operator, &posing, None).await), (403, "NotGuarded".to_owned()));
        world.admin.delete("Pod", &own, "posing").await.unwrap();

        // Others, with tokens that are good for something else.
        let stray = pod(&world, &own, "stray", "other", "remit.dev/guard", &trust).await;
        assert_eq!(refused(ask(&guard, operator, &stray, None).await), (403, "NotGuarded".to_owned()));
        let api = pod(&world, &own, "bot-2", "bot", "https://kubernetes.default.svc", &trust).await;
        assert_eq!(refused(ask(&guard, operator, &api, None).await), (401, "TokenRefused".to_owned()));
        let outside = world.namespace_with("outside", json!({})).await;
        let outside = pod(&world, &outside, "bot-1", "bot", "remit.dev/guard", &trust).await;
        assert_eq!(refused(ask(&guard, operator, &outside, None).await), (403, "NotEnrolled".to_owned()));

        // Another key with the pod's token.
        let (thief, _) = client(&world).await;
        assert_eq!(refused(ask(&thief, operator, token, None).await), (403, "KeyRefused".to_owned()));
        eventually("the key is warned of", || async {
            let events = world.admin.list("Event", &own, "").await;
            check(events.iter().any(|e| e["reason"] == "GuardKeyRefused"), || format!("{} events", events.len()))
        })
        .await;

        // A pod that has no guard is named, once the operator has run for a while; one that is gone is not counted.
        says(&world, &own, "1/2", "Unguarded").await;
        for gone in ["bot-1", "bot-2"] {
            world.admin.delete("Pod", &own, gone).await.unwrap();
        }
        says(&world, &own, "0/0", "NoPods").await;
    });
}

#[test]
fn what_guards_count_is_shown_as_metrics_of_their_aiworkload() {
    run(async {
        let world = World::new("usage").await;
        let operator = &world.operator().await;
        let own = world.namespace("own").await;
        world.service(&own, "orders", 5432, json!(5432)).await;
        let sources =
            "dataSources: [{name: orders-db, type: Service, access: ReadWrite, service: {name: orders, port: 5432, protocol: TCP}}]";
        world.declare(&own, "bot", sources).await;
        world.is_ready(&own, "bot").await;
        let (guard, trust) = client(&world).await;
        let token = &pod(&world, &own, "bot-1", "bot", "remit.dev/guard", &trust).await;
        let usage = |connections| Usage { connections, sent: 20 * connections, received: 300 * connections, ..Usage::default() };
        let said = |connections| Report {
            denials: [("suspended".to_owned(), 7), ("of-tomorrow".to_owned(), 1)].into(),
            would_deny: [("too_slow".to_owned(), 3)].into(),
            usage: [("orders-db".to_owned(), usage(connections)), ("unheard-of".to_owned(), usage(1))].into(),
            ..report(None)
        };
        for connections in [2, 5, 5, 4] {
            assert!(matches!(say(&guard, operator, token, &said(connections)).await, Answer::Policy(_)));
        }
        let (namespace, workload) = (format!("namespace=\"{own}\""), "workload=\"bot\"".to_owned());
        let metric = async |name: &str, labels: &[&str]| {
            let labels: Vec<&str> = [namespace.as_str(), workload.as_str()].iter().chain(labels).copied().collect();
            operator.metric(name, &labels).await
        };
        let table: &[(&str, &[&str], Option<f64>)] = &[
            ("remit_guard_connections_total", &["source=\"orders-db\""], Some(5.0)),
            ("remit_guard_connections_total", &["source=\"_other\""], Some(1.0)),
            ("remit_guard_connections_total", &["source=\"unheard-of\""], None),
            ("remit_guard_bytes_total", &["source=\"orders-db\"", "direction=\"sent\""], Some(100.0)),
            ("remit_guard_bytes_total", &["source=\"orders-db\"", "direction=\"received\""], Some(1500.0)),
            ("remit_guard_denials_total", &["reason=\"suspended\""], Some(7.0)),
            ("remit_guard_denials_total", &["reason=\"_other\""], Some(1.0)),
            ("remit_guard_would_deny_total", &["reason=\"too_slow\""], Some(3.0)),
        ];
        for (name, labels, expected) in table {
            assert_eq!(metric(name, labels).await, *expected, "{name} {labels:?}");
        }
        assert_eq!(operator.metric("remit_guards", &["version=\"0\"", "reads=\"1\""]).await, Some(1.0));

        // Only the leader says it: sums over replicas are right.
        let second = &world.operator_with(&world.proxy, OperatorConfig { name: "operator-1".into(), ..OperatorConfig::default() }).await;
        assert!(matches!(say(&guard, second, token, &said(5)).await, Answer::Policy(_)));
        assert_eq!(second.metric("remit_guard_connections_total", &[]).await, None);

        // Rows go with what they are of.
        world.declare(&own, "bot", "{}").await;
        eventually("the source's rows go", || async {
            let found = metric("remit_guard_connections_total", &["source=\"orders-db\""]).await;
            check(found.is_none(), || format!("{found:?}"))
        })
        .await;
        assert_eq!(metric("remit_guard_connections_total", &[]).await, Some(1.0), "_other stays");
        world.admin.delete("Pod", &own, "bot-1").await.unwrap();
        world.admin.delete("AIWorkload", &own, "bot").await.unwrap();
        eventually("the AIWorkload's rows go", || async {
            let found = metric("remit_guard_denials_total", &[]).await;
            check(found.is_none(), || format!("{found:?}"))
        })
        .await;
    });
}
