//! The handler against an authorizer of few words, and the server over TLS on the loopback.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::core::v1::Pod;
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::access::{Cluster, Surroundings};
use super::certificate::{Step, Stored};
use super::handler::{Authors, Handler};
use super::metrics::Metrics;
use super::paths::{Endpoint, Known, Paths};
use super::pods::Pods;
use super::recorder::{Queue, Recorder};
use super::server::{self, Certificates, certified};
use crate::api::{FINALIZER, RELEASE_ANNOTATION};
use crate::cluster::{SharedWorld, WorkloadFact, facts};
use crate::operator::{Config, Keys, Writers};
use crate::plan::{Kind, ObjectKey, Question};
use crate::scope::ObjectName;

/// Allows nothing but `get` to the admin, or is away.
#[derive(Default)]
struct Fake {
    away: bool,
    workloads: Vec<DynamicObject>,
    pods: Vec<Pod>,
}

impl Fake {
    fn trouble(&self) -> Result<(), kube::Error> {
        match self.away {
            true => Err(kube::Error::Service("connection refused".into())),
            false => Ok(()),
        }
    }
}

impl Cluster for Fake {
    async fn surroundings(&self, _: &str) -> Result<Surroundings, kube::Error> {
        self.trouble()?;
        Ok(Surroundings { enrolled: true, ..Surroundings::default() })
    }

    async fn lacking(&self, user: &UserInfo, questions: BTreeSet<Question>) -> Result<BTreeSet<Question>, kube::Error> {
        self.trouble()?;
        Ok(if user.username.as_deref() == Some("admin") { BTreeSet::new() } else { questions })
    }

    async fn workloads(&self, _: &str) -> Result<Vec<(ObjectName, WorkloadFact)>, kube::Error> {
        self.trouble()?;
        Ok(self.workloads.iter().cloned().map(facts::workload).collect())
    }

    async fn pod(&self, _: &str, name: &str) -> Result<Option<Pod>, kube::Error> {
        self.trouble()?;
        Ok(self.pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).cloned())
    }
}

fn handler(away: bool) -> (Handler<Fake>, Writers, Queue) {
    let config: Config =
        serde_json::from_value(json!({"namespace": "remit-system", "appliers": ["system:serviceaccount:argocd:controller"]})).unwrap();
    let writers = Writers::default();
    let (recorder, queue) = Recorder::new(writers.clone());
    let (paths, metrics) = (Known::default(), Metrics::default());
    paths.set(random_paths());
    (
        Handler {
            authors: Authors::new(&config),
            cluster: Fake { away, ..Fake::default() },
            recorder,
            paths,
            pods: Pods::default(),
            metrics,
        },
        writers,
        queue,
    )
}

fn random_paths() -> Paths {
    Paths::random(rustls::crypto::ring::default_provider().secure_random).unwrap()
}

fn asked(kind: &str, operation: &str, user: &str, old: Option<Value>, new: Option<Value>) -> Value {
    let group = if kind == "Role" { "rbac.authorization.k8s.io" } else { "remit.dev" };
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": group, "version": "v1alpha1", "kind": kind},
        "resource": {"group": group, "version": "v1alpha1", "resource": format!("{}s", kind.to_lowercase())},
        "name": "bot", "namespace": "support", "operation": operation, "userInfo": {"username": user, "groups": ["system:authenticated"]},
        "object": new, "oldObject": old, "dryRun": false}})
}

fn workload(metadata: Value, spec: Value) -> Value {
    let mut all = json!({"name": "bot", "namespace": "support"});
    all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": all, "spec": spec})
}

fn spec(sources: Value) -> Value {
    json!({"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce", "dataSources": sources})
}

fn secret() -> Value {
    json!([{"name": "s", "type": "Secret", "secret": {"name": "thing"}}])
}

#[tokio::test]
async fn answers() {
    let plain = || workload(json!({}), spec(json!([])));
    let labelled = || workload(json!({"labels": {"a": "b"}, "finalizers": [FINALIZER]}), spec(json!([])));
    let freed = || workload(json!({"annotations": {RELEASE_ANNOTATION: "now"}}), spec(json!([])));
    let with_secret = || workload(json!({}), spec(secret()));
    let unreadable = |labels: Value| workload(json!({"labels": labels}), json!({"mode": "Perhaps"}));
    let ceiling = |host: &str| {
        json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": "c"},
        "spec": {"namespaceSelector": {}, "hosts": [{"name": "h", "host": host, "ports": [443]}]}})
    };
    let collector = "system:serviceaccount:kube-system:generic-garbage-collector";
    let own = "system:serviceaccount:remit-system:remit";
    // (what, kind, operation, user, old, new, code: 200 is allowed, part of the message); judged twice: with the API server and without.
    #[rustfmt::skip]
    let cases: Vec<(&str, &str, &str, &str, Option<Value>, Option<Value>, [u16; 2], &str)> = vec![
        ("nothing declared", "AIWorkload", "CREATE", "dana", None, Some(plain()), [200, 500], ""),
        ("a Secret", "AIWorkload", "CREATE", "dana", None, Some(with_secret()), [403, 500], "get secrets thing in namespace support\", which dana does not hold"),
        ("a Secret by who holds it", "AIWorkload", "CREATE", "admin", None, Some(with_secret()), [200, 500], ""),
        ("a Secret by an applier without ceiling", "AIWorkload", "CREATE", "system:serviceaccount:argocd:controller", None, Some(with_secret()), [403, 500], "there is none"),
        ("a Secret added by the operator itself", "AIWorkload", "UPDATE", own, Some(plain()), Some(with_secret()), [403, 500], "does not hold"),
        ("metadata", "AIWorkload", "UPDATE", "dana", Some(plain()), Some(labelled()), [200, 200], ""),
        ("metadata of what cannot be read", "AIWorkload", "UPDATE", "dana", Some(unreadable(json!({}))), Some(unreadable(json!({"a": "b"}))), [200, 200], ""),
        ("mending what cannot be read", "AIWorkload", "UPDATE", "admin", Some(unreadable(json!({}))), Some(plain()), [200, 500], ""),
        ("mending it without release", "AIWorkload", "UPDATE", "dana", Some(unreadable(json!({}))), Some(plain()), [403, 500], "release"),
        ("a spec that cannot be read", "AIWorkload", "UPDATE", "admin", Some(plain()), Some(unreadable(json!({}))), [403, 403], "cannot be read"),
        ("release", "AIWorkload", "UPDATE", "dana", Some(plain()), Some(freed()), [403, 500], "release aiworkloads.remit.dev bot"),
        ("release by who may", "AIWorkload", "UPDATE", "admin", Some(plain()), Some(freed()), [200, 500], ""),
        ("removal of a source", "AIWorkload", "UPDATE", "dana", Some(with_secret()), Some(plain()), [200, 500], ""),
        ("delete", "AIWorkload", "DELETE", "dana", Some(plain()), None, [403, 500], "release"),
        ("delete of what cannot be read", "AIWorkload", "DELETE", "dana", Some(unreadable(json!({}))), None, [403, 500], "release"),
        ("delete by the garbage collector", "AIWorkload", "DELETE", collector, Some(plain()), None, [200, 200], ""),
        ("a ceiling", "ScopeCeiling", "CREATE", "dana", None, Some(ceiling("help.example.com")), [200, 200], ""),
        ("a bad ceiling", "ScopeCeiling", "UPDATE", "dana", Some(ceiling("help.example.com")), Some(ceiling("10.0.0.1")), [403, 403], "hosts[name=h].host"),
        ("a ceiling deleted", "ScopeCeiling", "DELETE", "dana", Some(ceiling("help.example.com")), None, [200, 200], ""),
        ("another kind", "Role", "CREATE", "admin", None, Some(plain()), [403, 403], "correct the webhook configuration"),
        ("a connection", "AIWorkload", "CONNECT", "admin", None, Some(plain()), [403, 403], "correct the webhook configuration"),
        ("no object", "AIWorkload", "CREATE", "admin", None, None, [403, 403], "no object"),
    ];
    for (what, kind, operation, user, old, new, codes, message) in cases {
        for (away, code) in [false, true].into_iter().zip(codes) {
            let body = serde_json::to_vec(&asked(kind, operation, user, old.clone(), new.clone())).unwrap();
            let answer = serde_json::to_value(handler(away).0.answer(Endpoint::Scope, &body).await.unwrap()).unwrap();
            let response = &answer["response"];
            assert_eq!((&answer["apiVersion"], &response["uid"]), (&json!("admission.k8s.io/v1"), &json!("u-1")), "{what}");
            assert_eq!(response["allowed"], json!(code == 200), "{what}, away {away}: {response}");
            if code != 200 {
                assert_eq!(response["status"]["code"], json!(code), "{what}, away {away}: {response}");
                let said = response["status"]["message"].as_str().unwrap();
                assert!(said.contains(if code == 500 { "could not judge" } else { message }), "{what}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn malformed_reviews_are_no_reviews() {
    let (handler, ..) = handler(false);
    let bodies = [
        "",
        "{",
        "[]",
        "{}",
        "null",
        r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#,
        r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {}}"#,
    ];
    for endpoint in [Endpoint::Scope, Endpoint::Record] {
        for body in bodies {
            assert!(handler.answer(endpoint, body.as_bytes()).await.is_err(), "{endpoint:?} {body}");
        }
    }
}

#[tokio::test]
async fn the_recorder_remembers_and_never_refuses() {
    let key = ObjectKey { kind: Kind::Role, object: ObjectName::new("support", "bot") };
    let cases = [
        ("dana", false, None, true),
        ("dana", true, None, false),
        ("dana", false, Some("status"), false),
        ("system:serviceaccount:remit-system:remit", false, None, false),
    ];
    for (user, dry_run, subresource, noted) in cases {
        let (handler, writers, _queue) = handler(true);
        let mut review = asked("Role", "DELETE", user, Some(json!({"metadata": {"name": "bot"}})), None);
        review["request"]["dryRun"] = json!(dry_run);
        review["request"]["subResource"] = json!(subresource);
        let answer = serde_json::to_value(handler.answer(Endpoint::Record, &serde_json::to_vec(&review).unwrap()).await.unwrap()).unwrap();
        assert_eq!(answer["response"]["allowed"], json!(true));
        assert_eq!(writers.last(&key).map(|w| w.user), noted.then(|| user.to_owned()), "{user} {dry_run} {subresource:?}");
    }
}

/// A bot and what it may mount, in this mode.
fn bot(mode: &str, purpose: &str) -> DynamicObject {
    let sources = json!([{"name": "key", "type": "Secret", "secret": {"name": "key"}}]);
    let selector = json!({"matchLabels": {"app": "bot"}});
    serde_json::from_value(workload(
        json!({"resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}),
        json!({"selector": selector, "mode": mode, "purpose": purpose, "dataSources": if purpose == "nothing" { json!([]) } else { sources }}),
    ))
    .unwrap()
}

/// What the watch has seen, what is there now, whether the API server is away.
fn judging(cached: &[DynamicObject], now: &[DynamicObject], away: bool, unscoped: &str) -> Handler<Fake> {
    let (mut handler, ..) = handler(away);
    let world = SharedWorld::default();
    let mut write = world.write();
    write.namespaces.absent();
    write.workloads.absent();
    write.ceilings.absent();
    for object in cached {
        write.on_workload(Event::Apply(facts::workload(object.clone())));
    }
    let ceiling =
        json!({"metadata": {"name": "strict"}, "spec": {"namespaceSelector": {}, "unscopedPods": unscoped, "classes": ["Restricted"]}});
    write.on_ceiling(Event::Apply(facts::ceiling(serde_json::from_value(ceiling).unwrap())));
    drop(write);
    let guard = json!({"image": "guard:1", "cpuRequest": "10m", "memoryRequest": "24Mi", "memoryLimit": "96Mi"});
    let keys = Keys::default();
    keys.set([7; 32]);
    handler.pods = Pods { world, guard: serde_json::from_value(guard).unwrap(), keys };
    handler.cluster.workloads = now.to_vec();
    handler
}

fn pod_of(labels: Value, secret: &str) -> Value {
    let volume = json!({"name": "key", "secret": {"secretName": secret}, "futureField": 1});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "bot-", "labels": labels}, "spec": {
        "serviceAccountName": "default", "containers": [{"name": "main", "image": format!("bot@sha256:{:064}", 1), "futureField": {"a": 1}}], "volumes": [volume]}})
}

fn about(resource: &str, operation: &str, old: Option<Value>, new: Option<Value>) -> Value {
    let (group, rest) = resource.split_once('|').unwrap_or(("", resource));
    let (resource, sub) = rest.split_once('/').map_or((rest, None), |(resource, sub)| (resource, Some(sub)));
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": group, "version": "v1", "kind": "Thing"}, "resource": {"group": group, "version": "v1", "resource": resource},
        "subResource": sub, "name": "", "namespace": "support", "operation": operation, "userInfo": {"username": "dana"},
        "object": new, "oldObject": old, "dryRun": false}})
}

async fn asks(handler: &Handler<Fake>, endpoint: Endpoint, review: &Value) -> Value {
    let mut answer = serde_json::to_value(handler.answer(endpoint, &serde_json::to_vec(review).unwrap()).await.unwrap()).unwrap();
    answer["response"].take()
}

/// The pod as the API server goes on with it.
async fn injected(handler: &Handler<Fake>, pod: &Value) -> Value {
    let response = asks(handler, Endpoint::Inject, &about("pods", "CREATE", None, Some(pod.clone()))).await;
    assert_eq!(response["allowed"], true, "{response}");
    let mut pod = pod.clone();
    if let Some(patch) = response.get("patch").filter(|p| !p.is_null()) {
        assert_eq!(response["patchType"], "JSONPatch");
        let bytes: Vec<u8> = match patch {
            Value::Array(_) => serde_json::from_value(patch.clone()).unwrap(),
            other => serde_json::from_value::<k8s_openapi::ByteString>(other.clone()).unwrap().0,
        };
        json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&bytes).unwrap()).unwrap();
    }
    pod
}

fn said(response: &Value) -> String {
    format!("{} {} {}", response["allowed"], response["status"]["message"].as_str().unwrap_or_default(), response["warnings"])
}

/// Each case is a pod at its creation: injected, then judged.
#[tokio::test]
async fn pods_at_their_creation() {
    let (ours, others) = (json!({"app": "bot"}), json!({"app": "other"}));
    let enforce = [bot("Enforce", "")];
    let observe = [bot("Observe", "")];
    let narrow = [bot("Enforce", "nothing")];
    let invalid = {
        let mut object = bot("Enforce", "");
        object.data["spec"]["dataSources"] = json!([{"name": "x", "type": "Telepathy"}]);
        [object]
    };
    let none: [DynamicObject; 0] = [];
    // What, cached, there now, away, unscopedPods, labels, Secret, guarded, the answer's beginning, part of it.
    #[rustfmt::skip]
    let cases: Vec<(&str, &[DynamicObject], &[DynamicObject], bool, &str, &Value, &str, bool, &str)> = vec![
        ("selected", &enforce, &enforce, false, "Allow", &ours, "key", true, "true  null"),
        ("selected, and no question is needed", &enforce, &none, true, "Deny", &ours, "key", true, "true  null"),
        ("nobody's", &none, &none, false, "Allow", &others, "key", false, "true  null"),
        ("nobody's, isolated", &enforce, &enforce, false, "Isolate", &others, "key", false, "true  null"),
        ("nobody's, denied", &enforce, &enforce, false, "Deny", &others, "key", false, "false metadata.labels: no AIWorkload selects this pod, and ScopeCeiling `strict` lets none"),
        ("the watch is late", &none, &enforce, false, "Allow", &ours, "key", true, "true  null"),
        ("the watch is late, denied", &none, &enforce, false, "Deny", &ours, "key", true, "true  null"),
        ("the watch is late: Observe", &observe, &enforce, false, "Allow", &ours, "other", true, "false spec.volumes[name=key].secret.secretName: Secret `other` is not declared"),
        ("the watch is late: widened", &narrow, &enforce, false, "Allow", &ours, "key", true, "true  null"),
        ("undeclared", &enforce, &enforce, false, "Allow", &ours, "other", true, "false spec.volumes[name=key].secret.secretName: Secret `other` is not declared"),
        ("observed", &observe, &observe, false, "Allow", &ours, "key", true, "true  null"),
        ("observed, undeclared", &observe, &observe, false, "Allow", &ours, "other", true, "true  [\"AIWorkload bot in Enforce would refuse: spec.volumes[name=key].secret.secretName: Secret `other` is not declared; add\",\"  {type: Secret"),
        ("invalid", &invalid, &invalid, false, "Allow", &ours, "key", false, "false metadata.labels: AIWorkload `bot`, which selects the pod, is not valid (spec: cannot be read"),
        ("invalid, and another's pod", &invalid, &invalid, false, "Allow", &others, "key", false, "true  null"),
    ];
    for (what, cached, now, away, unscoped, labels, secret, guarded, expected) in cases {
        let handler = judging(cached, now, away, unscoped);
        let raw = pod_of(labels.clone(), secret);
        let pod = injected(&handler, &raw).await;
        let names: Vec<&str> = pod["spec"]["initContainers"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(names, if guarded { vec!["remit-redirect", "remit-guard"] } else { vec![] }, "{what}");
        assert_eq!(pod["spec"]["containers"][0]["futureField"], raw["spec"]["containers"][0]["futureField"], "{what}");
        let response = asks(&handler, Endpoint::Admit, &about("pods", "CREATE", None, Some(pod.clone()))).await;
        assert!(said(&response).starts_with(expected), "{what}: {}", said(&response));
        for warning in response["warnings"].as_array().into_iter().flatten() {
            assert!(warning.as_str().unwrap().chars().count() <= 120, "{warning}");
        }
        if guarded
            && expected.starts_with("true  null")
            && handler.pods.world.read().workloads.iter().all(|(_, w)| w.object.spec.mode == crate::api::Mode::Enforce)
        {
            let bare = asks(&handler, Endpoint::Admit, &about("pods", "CREATE", None, Some(raw.clone()))).await;
            assert_eq!(bare["allowed"], json!(false), "{what}: without a guard");
            // Ids that the pod brings along are not taken.
            let again = injected(&handler, &pod).await;
            let args = |pod: &Value| pod["spec"]["initContainers"][0]["args"].clone();
            assert!(args(&again) != args(&pod), "{what}: drawn anew");
        }
    }
}

#[tokio::test]
async fn the_account_of_an_aiworkload_is_for_its_pods() {
    let (enforce, observe) = ([bot("Enforce", "")], [bot("Observe", "")]);
    for (workloads, account, expected) in [
        (&enforce, "bot", "false spec.serviceAccountName: `bot` is the account of AIWorkload `bot`"),
        (&enforce, "other", "true  null"),
        (&observe, "bot", "true  null"),
    ] {
        let mut pod = pod_of(json!({"app": "other"}), "x");
        pod["spec"]["serviceAccountName"] = json!(account);
        let answer = asks(&judging(workloads, workloads, false, "Allow"), Endpoint::Admit, &about("pods", "CREATE", None, Some(pod))).await;
        assert!(said(&answer).starts_with(expected), "{account}: {}", said(&answer));
    }
}

/// The kubelet runs it already, and nobody may change it.
#[tokio::test]
async fn a_mirror_of_a_static_pod_is_refused_unchanged() {
    let enforce = [bot("Enforce", "")];
    let handler = judging(&enforce, &enforce, false, "Allow");
    let mut mirror = pod_of(json!({"app": "bot"}), "key");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert_eq!(injected(&handler, &mirror).await, mirror);
    let answer = asks(&handler, Endpoint::Admit, &about("pods", "CREATE", None, Some(mirror))).await;
    assert!(said(&answer).contains("spec.initContainers[name=remit-redirect]: is not there"), "{answer}");
}

#[tokio::test]
async fn without_the_means_nothing_is_judged() {
    let (labels, none): (_, [DynamicObject; 0]) = (json!({"app": "bot"}), []);
    let review = about("pods", "CREATE", None, Some(pod_of(labels, "key")));
    let both = async |handler: &Handler<Fake>| {
        let answers = [asks(handler, Endpoint::Inject, &review).await, asks(handler, Endpoint::Admit, &review).await];
        answers.map(|a| {
            (a["allowed"].as_bool().unwrap(), a["status"]["code"].as_u64().unwrap_or_default(), a["status"]["message"].to_string())
        })
    };
    for (what, handler, part) in [
        ("the API server is away", judging(&none, &none, true, "Allow"), "The API server said"),
        (
            "nothing was listed",
            {
                let mut handler = judging(&none, &none, false, "Allow");
                handler.pods.world = SharedWorld::default();
                handler
            },
            "has not got the list of AIWorkloads yet",
        ),
        (
            "no key",
            {
                let mut handler = judging(&none, &none, false, "Allow");
                handler.pods.keys = Keys::default();
                handler
            },
            "has not got the key",
        ),
    ] {
        for (allowed, code, message) in both(&handler).await {
            assert!(!allowed && code == 500 && message.contains(part), "{what}: {message}");
        }
    }
    let mut off = judging(&none, &none, true, "Deny");
    off.pods.guard = None;
    assert!(both(&off).await.iter().all(|(allowed, ..)| *allowed), "without guard settings nobody is asked");
}

#[tokio::test]
async fn what_makes_pods() {
    let template = |secret: &str| pod_of(json!({"app": "bot"}), secret);
    let wrapped = |kind: &str, template: Value| match kind {
        "batch|cronjobs" => json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}),
        "podtemplates" => json!({"template": template}),
        _ => json!({"spec": {"replicas": 1, "template": template}}),
    };
    let enforce = [bot("Enforce", "")];
    for (kind, path) in [
        ("apps|deployments", "spec.template."),
        ("apps|replicasets", "spec.template."),
        ("apps|statefulsets", "spec.template."),
        ("apps|daemonsets", "spec.template."),
        ("batch|jobs", "spec.template."),
        ("batch|cronjobs", "spec.jobTemplate.spec.template."),
        ("replicationcontrollers", "spec.template."),
        ("podtemplates", "template."),
    ] {
        let (handler, denying) = (judging(&enforce, &enforce, false, "Allow"), judging(&enforce, &enforce, false, "Deny"));
        let (good, bad) = (wrapped(kind, template("key")), wrapped(kind, template("other")));
        let expected = format!("false {path}spec.volumes[name=key].secret.secretName: Secret `other` is not declared");
        let mut scaled = bad.clone();
        scaled["metadata"] = json!({"labels": {"a": "b"}});
        scaled["spec"]["replicas"] = json!(7);
        let mut going = bad.clone();
        going["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let stranger = wrapped(kind, pod_of(json!({"app": "other"}), "x"));
        let ask = async |handler: &Handler<Fake>, operation: &str, old: Option<&Value>, new: &Value| {
            said(&asks(handler, Endpoint::Admit, &about(kind, operation, old.cloned(), Some(new.clone()))).await)
        };
        assert_eq!(ask(&handler, "CREATE", None, &good).await, "true  null", "{kind}");
        let refused = ask(&handler, "CREATE", None, &bad).await;
        assert!(refused.starts_with(&expected), "{kind}: {refused}");
        let refused = ask(&handler, "UPDATE", Some(&good), &bad).await;
        assert!(refused.starts_with(&expected), "{kind}: {refused}");
        assert_eq!(ask(&handler, "UPDATE", Some(&bad), &scaled).await, "true  null", "{kind}: what stays is not judged again");
        assert_eq!(ask(&handler, "UPDATE", Some(&good), &going).await, "true  null", "{kind}: it goes");
        assert_eq!(ask(&handler, "UPDATE", Some(&bad), &good).await, "true  null", "{kind}: mended");
        assert_eq!(ask(&handler, "CREATE", None, &stranger).await, "true  null", "{kind}");
        let refused = ask(&denying, "CREATE", None, &stranger).await;
        assert!(refused.starts_with(&format!("false {path}metadata.labels: no AIWorkload selects")), "{kind}: {refused}");
        assert_eq!(ask(&denying, "UPDATE", Some(&stranger), &stranger).await, "true  null", "{kind}: it was there before");
    }
    let handler = judging(&enforce, &enforce, false, "Allow");
    let other = asks(&handler, Endpoint::Admit, &about("apps|controllerrevisions", "CREATE", None, Some(json!({})))).await;
    assert!(said(&other).contains("correct the webhook configuration"), "{other}");
}

#[tokio::test]
async fn changes_of_pods() {
    let enforce = [bot("Enforce", "")];
    let observe = [bot("Observe", "")];
    let none: [DynamicObject; 0] = [];
    let guarded = injected(&judging(&enforce, &enforce, false, "Allow"), &pod_of(json!({"app": "bot"}), "key")).await;
    let changed = |at: &str, value: Value| {
        let mut pod = guarded.clone();
        *pod.pointer_mut(at).unwrap_or_else(|| panic!("nothing at {at}")) = value;
        pod
    };
    let mut debugged = guarded.clone();
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "debugger", "image": "x"}]);
    let plain = pod_of(json!({"app": "other"}), "x");
    let labelled = pod_of(json!({"app": "bot"}), "x");
    let evil = changed("/spec/initContainers/1/image", json!("evil"));
    let left = changed("/metadata/labels", json!({}));
    let invalid = {
        let mut object = bot("Enforce", "");
        object.data["spec"]["dataSources"] = json!([{"name": "x", "type": "Telepathy"}]);
        [object]
    };
    let mut joined = guarded.clone();
    joined["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/networks": "storage"});
    let renamed = changed("/metadata/generateName", json!("x"));
    let newer = changed("/spec/containers/0/image", json!("bot:2"));
    let named = |pod: &Value| {
        let mut pod = pod.clone();
        pod["spec"]["securityContext"]["runAsUser"] = json!(1000);
        pod
    };
    let (user, user_newer) = (named(&guarded), named(&newer));
    // What, the mode, subresource, before, after, whether the API server is away, the answer's beginning.
    #[rustfmt::skip]
    let cases: Vec<(&str, &[DynamicObject], &str, &Value, &Value, bool, &str)> = vec![
        ("metadata", &enforce, "pods", &guarded, &renamed, true, "true  null"),
        ("the app's image", &enforce, "pods", &user, &user_newer, true, "true  null"),
        ("the app's image, and any user with it", &enforce, "pods", &guarded, &newer, false, "false spec.containers[name=main].image: could bear the guard's user"),
        ("the guard's image", &enforce, "pods", &guarded, &evil, false, "false spec.initContainers[name=remit-guard].image: is Remit's own"),
        ("the guard's image, nobody's pod", &none, "pods", &guarded, &evil, false, "false spec.initContainers[name=remit-guard].image: is Remit's own"),
        ("the guard's image, observed", &observe, "pods", &guarded, &evil, false, "false spec.initContainers[name=remit-guard].image: is Remit's own"),
        ("a debugger", &enforce, "pods/ephemeralcontainers", &guarded, &debugged, false, "false spec.ephemeralContainers[name=debugger]: would run"),
        ("another network", &enforce, "pods", &guarded, &joined, false, "false metadata.annotations[k8s.v1.cni.cncf.io/networks]: joins"),
        ("another network, observed", &observe, "pods", &guarded, &joined, false, "true  [\"AIWorkload bot in Enforce would refuse: metadata.annotations"),
        ("labels that leave", &enforce, "pods", &guarded, &left, false, "false metadata.labels: AIWorkload `bot` would no longer select"),
        ("labels that enter", &enforce, "pods", &plain, &labelled, false, "false metadata.labels: AIWorkload `bot` would select"),
        ("labels that enter, observed", &observe, "pods", &plain, &labelled, false, "true  [\"AIWorkload bot in Enforce would refuse: metadata.labels"),
        ("labels that leave one that is not valid", &invalid, "pods", &guarded, &left, false, "false metadata.labels: AIWorkload `bot`, which selects the pod, is not valid"),
        ("labels that enter one that is not valid", &invalid, "pods", &plain, &labelled, false, "false metadata.labels: AIWorkload `bot`, which selects the pod, is not valid"),
        ("the app's image under one that is not valid", &invalid, "pods", &guarded, &newer, false, "true  null"),
        ("nobody's labels", &none, "pods", &plain, &labelled, false, "true  null"),
    ];
    for (what, workloads, resource, old, new, away, expected) in cases {
        let handler = judging(workloads, workloads, away, "Allow");
        let answer = asks(&handler, Endpoint::Admit, &about(resource, "UPDATE", Some(old.clone()), Some(new.clone()))).await;
        assert!(said(&answer).starts_with(expected), "{what}: {}", said(&answer));
    }
    // From one in Observe into one in Enforce: with the other's guard, or with none.
    let mut other = bot("Enforce", "");
    (other.metadata.name, other.data["spec"]["selector"]) = (Some("other".into()), json!({"matchLabels": {"app": "other"}}));
    let both = [bot("Observe", ""), other];
    let review = about("pods", "UPDATE", Some(guarded.clone()), Some(changed("/metadata/labels/app", json!("other"))));
    let answer = asks(&judging(&both, &both, false, "Allow"), Endpoint::Admit, &review).await;
    assert!(said(&answer).starts_with("false metadata.labels: AIWorkload `other` would select"), "{}", said(&answer));
}

#[tokio::test]
async fn connections_into_pods() {
    let enforce = [bot("Enforce", "")];
    let observe = [bot("Observe", "")];
    let mut guarded = injected(&judging(&enforce, &enforce, false, "Allow"), &pod_of(json!({"app": "bot"}), "key")).await;
    guarded["metadata"]["name"] = json!("bot-1");
    let mut misled = guarded.clone();
    misled["metadata"]["name"] = json!("misled");
    misled["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "remit-guard"});
    let mut plain = pod_of(json!({"app": "other"}), "x");
    plain["metadata"]["name"] = json!("plain");
    // How, into which pod, the options, Enforce's answer, Observe's, and whether it can be given without the API server.
    #[rustfmt::skip]
    let cases = [
        ("exec", "bot-1", json!({"container": "main"}), "true  null", "true  null", true),
        ("exec", "bot-1", json!({}), "true  null", "true  null", false),
        ("exec", "bot-1", json!({"container": ""}), "true  null", "true  null", false),
        ("exec", "bot-1", json!({"container": "remit-guard"}), "false exec: container `remit-guard` is Remit's own", "false exec", true),
        ("attach", "bot-1", json!({"container": "remit-redirect"}), "false attach: container `remit-redirect` is", "false attach", true),
        ("attach", "bot-1", json!({"container": "main"}), "true  null", "true  null", true),
        ("exec", "misled", json!({}), "false exec: container `remit-guard` is Remit's own", "false exec", false),
        ("portforward", "bot-1", json!({"ports": [1]}), "false port-forward: it reaches", "true  [\"AIWorkload bot in Enforce would refuse: port-forward", false),
        ("portforward", "plain", json!({}), "true  null", "true  null", false),
        ("portforward", "gone", json!({}), "true  null", "true  null", false),
        ("proxy", "bot-1", json!({"path": "/"}), "false pods/proxy: ", "true  [\"AIWorkload bot in Enforce would refuse: pods/proxy", false),
        ("proxy", "bot-1:8080", json!({}), "false pods/proxy: ", "true  [", false),
        ("proxy", "https:bot-1:8443", json!({}), "false pods/proxy: ", "true  [", false),
        ("proxy", "a:b:c:d", json!({}), "false `a:b:c:d` names no pod", "false", true),
        ("proxy", "plain:80", json!({}), "true  null", "true  null", false),
        ("teleport", "bot-1", json!({}), "false /admit knows exec", "false", true),
    ];
    for (sub, name, options, enforced, observed, offline) in cases {
        for (workloads, away, expected) in [
            (&enforce, false, enforced),
            (&observe, false, observed),
            (&enforce, true, if offline { enforced } else { "false Remit could not judge" }),
        ] {
            let mut handler = judging(workloads, workloads, away, "Allow");
            handler.cluster.pods = [&guarded, &misled, &plain].map(|pod| serde_json::from_value(pod.clone()).unwrap()).into();
            let mut review = about(&format!("pods/{sub}"), "CONNECT", None, Some(options.clone()));
            review["request"]["name"] = json!(name);
            let answer = asks(&handler, Endpoint::Admit, &review).await;
            assert!(said(&answer).starts_with(expected), "{sub} {name} {options}, away {away}: {}", said(&answer));
        }
    }
}

#[tokio::test]
async fn an_exception_lets_in_until_it_ends() {
    let until = |hours: i64| {
        let mut object = bot("Enforce", "");
        let until = k8s_openapi::jiff::Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_hours(hours);
        let text = json!({"until": until, "by": "dana", "reason": "it hangs"}).to_string();
        object.metadata.annotations = Some([(crate::api::BREAK_GLASS_ANNOTATION.to_owned(), text)].into());
        [object]
    };
    let mut guarded = injected(&judging(&until(1), &until(1), false, "Allow"), &pod_of(json!({"app": "bot"}), "key")).await;
    guarded["metadata"]["name"] = json!("bot-1");
    let mut debugged = guarded.clone();
    let context = json!({"runAsUser": 1000, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "debugger", "image": "x", "securityContext": context}]);
    for (hours, allowed) in [(1, true), (-1, false), (9, false)] {
        let mut handler = judging(&until(hours), &until(hours), false, "Allow");
        handler.cluster.pods = vec![serde_json::from_value(guarded.clone()).unwrap()];
        for (sub, options, allowed) in
            [("exec", json!({"container": "remit-guard"}), false), ("portforward", json!({}), allowed), ("proxy", json!({}), false)]
        {
            let mut review = about(&format!("pods/{sub}"), "CONNECT", None, Some(options));
            review["request"]["name"] = json!("bot-1");
            let answer = asks(&handler, Endpoint::Admit, &review).await;
            assert!(said(&answer).starts_with(&allowed.to_string()), "{sub} {hours}: {}", said(&answer));
        }
        let review = about("pods/ephemeralcontainers", "UPDATE", Some(guarded.clone()), Some(debugged.clone()));
        let answer = asks(&handler, Endpoint::Admit, &review).await;
        assert!(said(&answer).starts_with(&allowed.to_string()), "a debugger, {hours}: {}", said(&answer));
    }
}

struct Served {
    port: u16,
    stored: Stored,
    certificates: Certificates,
    scope: String,
    record: String,
    writers: Writers,
    metrics: Metrics,
    drain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
    _queue: Queue,
}

fn names() -> Vec<String> {
    vec!["remit-webhook.remit-system.svc".to_owned()]
}

fn now() -> i64 {
    k8s_openapi::jiff::Timestamp::now().as_second()
}

async fn served() -> Served {
    let stored = Stored::after(None, &Step::Begin, &names(), now()).unwrap().unwrap();
    let certificates = Certificates::default();
    certificates.set(certified(stored.current.certificate.as_bytes(), stored.current.key.as_bytes()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (stop, stopped) = watch::channel(false);
    let (drain, draining) = watch::channel(false);
    let (handler, writers, _queue) = handler(false);
    let paths = handler.paths.current().unwrap();
    let [scope, record] = [Endpoint::Scope, Endpoint::Record].map(|endpoint| paths.path(endpoint));
    let metrics = handler.metrics.clone();
    let tls = server::tls(certificates.clone()).unwrap();
    let server = tokio::spawn(server::serve(listener, tls, Arc::new(handler), draining, stopped));
    Served { port, stored, certificates, scope, record, writers, metrics, drain, stop, server, _queue }
}

async fn connect(port: u16, bundle: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(names()[0].clone()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(("127.0.0.1", port)).await?).await
}

fn head(path: &str, length: usize) -> String {
    format!("POST {path}?timeout=5s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
}

/// What comes back until the first answer is whole, or the server closes.
async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = read(stream, &mut buffer).await {
        text.extend_from_slice(&buffer[..n]);
        let so_far = String::from_utf8_lossy(&text);
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok()));
            if length.is_some_and(|length| body.len() >= length) {
                break;
            }
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut buffer = ReadBuf::new(buffer);
    poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut buffer)).await?;
    Ok(buffer.filled().len())
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await?;
        bytes = &bytes[written..];
    }
    poll_fn(|context| Pin::new(&mut *stream).poll_flush(context)).await
}

async fn post(port: u16, bundle: &str, path: &str, body: &[u8]) -> String {
    let mut stream = connect(port, bundle).await.unwrap();
    write_all(&mut stream, head(path, body.len()).as_bytes()).await.unwrap();
    // The server may answer and close before it has read all.
    let _ = write_all(&mut stream, body).await;
    answer(&mut stream).await
}

#[tokio::test]
async fn a_round_trip_over_tls() {
    let Served { port, stored, scope, record, drain, stop, server, .. } = &mut served().await;
    let good = serde_json::to_vec(&asked("AIWorkload", "CREATE", "dana", None, Some(workload(json!({}), spec(secret()))))).unwrap();
    let text = post(*port, &stored.bundle, scope, &good).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"allowed\":false") && text.contains("dana does not hold"), "{text}");
    // Two on one connection.
    let mut stream = connect(*port, &stored.bundle).await.unwrap();
    for _ in 0..2 {
        write_all(&mut stream, head(record, good.len()).as_bytes()).await.unwrap();
        write_all(&mut stream, &good).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.contains("\"allowed\":true"), "{text}");
    }
    for (body, status) in [(&b"{"[..], "400"), (b"", "400"), (&vec![b' '; 4 * 1024 * 1024], "400")] {
        let text = post(*port, &stored.bundle, scope, body).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{} bytes: {text}", body.len());
    }
    // Too much without saying how much.
    let mut many = connect(*port, &stored.bundle).await.unwrap();
    write_all(&mut many, format!("POST {scope} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    for chunk in [4 * 1024 * 1024, 1] {
        write_all(&mut many, format!("{chunk:x}\r\n{}\r\n", " ".repeat(chunk)).as_bytes()).await.unwrap();
    }
    assert!(answer(&mut many).await.starts_with("HTTP/1.1 413"));
    // A length that is a lie is refused by it, not by what comes.
    write_all(&mut stream, head(scope, usize::MAX / 2).as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 413"));
    let mut stream = connect(*port, &stored.bundle).await.unwrap();
    write_all(&mut stream, format!("GET {scope} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 405"));
    let mut stream = connect(*port, &stored.bundle).await.unwrap();
    let long = format!("GET {scope} HTTP/1.1\r\nX: {}", "x".repeat(80 * 1024));
    let _ = write_all(&mut stream, long.as_bytes()).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 431"));
    // An authority of no concern is not enough.
    let stranger = Stored::after(None, &Step::Begin, &names(), now()).unwrap().unwrap();
    assert!(connect(*port, &stranger.bundle).await.is_err());
    // Told to drain, it answers whoever is connected and whoever comes, and keeps no connection.
    let idle = connect(*port, &stored.bundle).await.unwrap();
    drain.send(true).unwrap();
    for mut stream in [idle, connect(*port, &stored.bundle).await.unwrap()] {
        write_all(&mut stream, head(record, good.len()).as_bytes()).await.unwrap();
        write_all(&mut stream, &good).await.unwrap();
        let text = answer(&mut stream).await;
        assert!(text.contains("\"allowed\":true") && text.to_lowercase().contains("connection: close"), "{text}");
    }
    // Told to stop, it ends although a connection is open and idle.
    let _idle = connect(*port, &stored.bundle).await.unwrap();
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn slow_clients_are_let_go_and_keep_nobody_waiting() {
    let Served { port, stored, scope, stop, server, .. } = &mut served().await;
    // One that never speaks TLS, one that stops in its body.
    let mut silent = TcpStream::connect(("127.0.0.1", *port)).await.unwrap();
    let mut slow = connect(*port, &stored.bundle).await.unwrap();
    write_all(&mut slow, head(scope, 100).as_bytes()).await.unwrap();
    write_all(&mut slow, b"{").await.unwrap();
    let begun = std::time::Instant::now();
    let text = post(*port, &stored.bundle, scope, b"{").await;
    assert!(text.starts_with("HTTP/1.1 400") && begun.elapsed() < Duration::from_secs(2), "others are served meanwhile");
    let text = tokio::time::timeout(Duration::from_secs(15), answer(&mut slow)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    let closed = tokio::time::timeout(Duration::from_secs(15), read(&mut silent, &mut [0])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn strangers_get_nothing() {
    let Served { port, stored, scope, record, writers, metrics, .. } = &served().await;
    let forged = serde_json::to_vec(&asked("Role", "DELETE", "dana", Some(json!({"metadata": {"name": "bot"}})), None)).unwrap();
    let key = ObjectKey { kind: Kind::Role, object: ObjectName::new("support", "bot") };
    let (not_theirs, other) = (record.replace("/record", "/scope"), random_paths().path(Endpoint::Record));
    for path in ["/", "/scope", "/record", "/scope/", "/record/", &not_theirs, &other] {
        let text = post(*port, &stored.bundle, path, &forged).await;
        assert!(text.starts_with("HTTP/1.1 404") && !text.contains("uid"), "{path}: {text}");
        assert_eq!(writers.last(&key), None, "{path}");
    }
    // The method makes no difference, the body is not waited for, and the connection is over.
    for length in [0, 100] {
        let mut stream = connect(*port, &stored.bundle).await.unwrap();
        write_all(&mut stream, head("/record", length).replace("POST", "PUT").as_bytes()).await.unwrap();
        let began = std::time::Instant::now();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 404"), "{length}");
        let closed = matches!(read(&mut stream, &mut [0]).await, Ok(0) | Err(_));
        assert!(closed && began.elapsed() < Duration::from_secs(2), "{length}");
    }
    assert_eq!(count(metrics, "remit_webhook_strangers_total"), 9);
    // Positive controls.
    assert!(post(*port, &stored.bundle, scope, &forged).await.contains("correct the webhook configuration"));
    assert!(post(*port, &stored.bundle, record, &forged).await.contains("\"allowed\":true"));
    assert_eq!(writers.last(&key).map(|w| w.user), Some("dana".to_owned()));
}

/// Whether the server keeps it open without a word.
async fn is_held(stream: &mut TcpStream) -> bool {
    tokio::time::timeout(Duration::from_millis(300), read(stream, &mut [0])).await.is_err()
}

fn count(metrics: &Metrics, name: &str) -> u64 {
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    value.trim().parse().unwrap()
}

#[tokio::test]
async fn one_peer_cannot_hold_all_connections() {
    let Served { port, stored, scope, metrics, .. } = &served().await;
    let from = async |address: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(([127, 0, 0, 1], *port).into()).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..server::MOST_OF_A_PEER {
        held.push(from([127, 0, 0, 2]).await);
    }
    for _ in 0..3 {
        let mut refused = from([127, 0, 0, 2]).await;
        assert!(!is_held(&mut refused).await, "one more is closed at once");
    }
    assert_eq!(count(metrics, "remit_webhook_connections_refused_total"), 3);
    assert!(is_held(held.last_mut().unwrap()).await, "those within the share stay");
    let text = post(*port, &stored.bundle, scope, b"{").await;
    assert!(text.starts_with("HTTP/1.1 400"), "other peers are served: {text}");
    // What a peer lets go it may take again.
    drop(held.pop());
    let mut again = false;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        again = again || is_held(&mut from([127, 0, 0, 2]).await).await;
    }
    assert!(again);
}

#[tokio::test]
async fn a_rotation_refuses_nobody_who_holds_the_published_bundle() {
    let Served { port, stored, certificates, scope, .. } = &served().await;
    let staged = Stored::after(Some(stored), &Step::Stage, &names(), now()).unwrap().unwrap();
    let promoted = Stored::after(Some(&staged), &Step::Promote, &names(), now()).unwrap().unwrap();
    assert!(connect(*port, &staged.bundle).await.is_ok(), "the old certificate, the new bundle");
    let mut open = connect(*port, &stored.bundle).await.unwrap();
    assert!(certificates.set(certified(promoted.current.certificate.as_bytes(), promoted.current.key.as_bytes()).unwrap()));
    assert!(connect(*port, &staged.bundle).await.is_ok(), "the new certificate, the new bundle");
    assert!(connect(*port, &stored.bundle).await.is_err(), "the new certificate is another authority's");
    write_all(&mut open, head(scope, 1).as_bytes()).await.unwrap();
    write_all(&mut open, b"{").await.unwrap();
    assert!(answer(&mut open).await.starts_with("HTTP/1.1 400"), "open connections stay");
}

/// A real API server calls the webhook, as `make cluster-api` offers one: `KUBECONFIG=… cargo test --lib webhook -- --ignored`.
mod real {
    use super::*;
    use crate::api::{AIWorkload, ScopeCeiling, definitions};
    use crate::operator::webhook::{PATH_SECRET, Readiness, access::ApiServer, keeper::Keeper, recorder};
    use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
    use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role};
    use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
    use kube::{Client, Resource};
    use serde::de::DeserializeOwned;

    const NAMESPACE: &str = "webhook-test";

    async fn user(name: &str) -> Client {
        let mut config = kube::Config::infer().await.unwrap();
        config.auth_info.impersonate = Some(name.to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:authenticated".to_owned()]);
        Client::try_from(config).unwrap()
    }

    async fn apply<K>(api: &Api<K>, object: Value)
    where
        K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    /// Until it holds, or the test fails.
    async fn until<T>(what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..150 {
            if let Some(found) = holds().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("waited in vain: {what}")
    }

    fn refusal<T>(answer: Result<T, kube::Error>) -> String {
        match answer {
            Err(kube::Error::Api(status)) => {
                println!("{} {}: {}\n", status.code, status.reason, status.message);
                status.message.clone()
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("was let through"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs an API server in KUBECONFIG: make cluster-api"]
    async fn an_api_server_refuses_what_the_webhook_refuses() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let admin = Client::try_default().await.unwrap();
        let crds = Api::all(admin.clone());
        for definition in definitions() {
            apply::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>(
                &crds,
                serde_json::to_value(definition).unwrap(),
            )
            .await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(admin.clone());
        // The keeper leaves URLs alone, so they lead to paths that are stored beforehand.
        let secrets: Api<Secret> = Api::namespaced(admin.clone(), NAMESPACE);
        for name in ["remit-webhook-tls", PATH_SECRET] {
            let _ = secrets.delete(name, &DeleteParams::default()).await;
        }
        let (paths, mut stored) = (random_paths(), Secret::default());
        paths.write(&mut stored);
        stored.metadata.name = Some(PATH_SECRET.to_owned());
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"remit.dev/enrolled": "true"}}});
        until("the namespace takes a Secret (one of an earlier run may still be going)", async || {
            apply::<Namespace>(&Api::all(admin.clone()), namespace.clone()).await;
            secrets.create(&PostParams::default(), &stored).await.ok()
        })
        .await;
        let webhook = |name: &str, endpoint: Endpoint, policy: &str, rules: Value| {
            json!({"name": name, "admissionReviewVersions": ["v1"], "failurePolicy": policy, "timeoutSeconds": 5,
                "sideEffects": if endpoint == Endpoint::Scope { "None" } else { "NoneOnDryRun" },
                "clientConfig": {"url": format!("https://127.0.0.1:{port}{}", paths.path(endpoint))}, "rules": rules,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}},
                "matchConditions": [{"name": "ours", "expression": "request.namespace == 'webhook-test' || request.name.startsWith('webhook-test')"}]})
        };
        let rule = |group: &str, version: &str, resources: Value| json!([{"apiGroups": [group], "apiVersions": [version], "resources": resources, "operations": ["CREATE", "UPDATE", "DELETE"]}]);
        let kept = [
            (
                "webhook-test-scope",
                webhook(
                    "scope.test.remit.dev",
                    Endpoint::Scope,
                    "Fail",
                    rule("remit.dev", "v1alpha1", json!(["aiworkloads", "scopeceilings"])),
                ),
            ),
            (
                "webhook-test-record",
                webhook(
                    "record.test.remit.dev",
                    Endpoint::Record,
                    "Ignore",
                    rule("rbac.authorization.k8s.io", "v1", json!(["roles", "rolebindings"])),
                ),
            ),
        ];
        for (name, webhook) in kept.clone() {
            let _ = configurations.delete(name, &DeleteParams::default()).await;
            apply(&configurations, json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name}, "webhooks": [webhook]})).await;
        }

        let config: Config =
            serde_json::from_value(json!({"namespace": NAMESPACE, "webhook": {"configurations": kept.clone().map(|k| k.0)},
            "appliers": ["applier"]}))
            .unwrap();
        let (stop, stopped) = watch::channel(false);
        let Readiness { certificates, paths: known } = Readiness::default();
        let metrics = Metrics::default();
        // Two replicas agree on one certificate and on the paths.
        let mut parts = tokio::task::JoinSet::new();
        let other = Known::default();
        for (certificates, known) in [(certificates.clone(), known.clone()), (Certificates::default(), other.clone())] {
            parts.spawn(
                Keeper::new(admin.clone(), &config, certificates, known, metrics.clone()).named(&["127.0.0.1"]).run(stopped.clone()),
            );
        }
        let (here, there) = (Writers::default(), Writers::default());
        let (recorder, queue) = Recorder::new(here.clone());
        let (_other, other_queue) = Recorder::new(there.clone());
        parts.spawn(recorder::keep(admin.clone(), NAMESPACE.into(), here.clone(), queue, stopped.clone()));
        parts.spawn(recorder::keep(admin.clone(), NAMESPACE.into(), there.clone(), other_queue, stopped.clone()));
        let handler = Handler {
            authors: Authors::new(&config),
            cluster: ApiServer::new(admin.clone()),
            recorder,
            paths: known.clone(),
            pods: Pods::default(),
            metrics,
        };
        parts.spawn(server::serve(
            listener,
            server::tls(certificates.clone()).unwrap(),
            Arc::new(handler),
            watch::channel(false).1,
            stopped,
        ));
        until("a certificate is served", async || certificates.current()).await;
        until("the other replica knows the paths", async || other.current()).await;
        assert!(known.current() == other.current() && known.current() == Some(paths.clone()));

        // dana may write AIWorkloads, read orders, and no Secret; she does not hold release.
        let rbac = "rbac.authorization.k8s.io/v1";
        apply::<ClusterRole>(&Api::all(admin.clone()), json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": NAMESPACE}, "rules": [
            {"apiGroups": ["remit.dev"], "resources": ["aiworkloads", "scopeceilings"], "verbs": ["create", "get", "patch", "update", "delete"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]})).await;
        apply::<ClusterRoleBinding>(
            &Api::all(admin.clone()),
            json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAMESPACE},
            "subjects": (["dana", "applier"].map(|u| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": u})))}),
        )
        .await;
        let bots = async |name: &str| Api::<AIWorkload>::namespaced(user(name).await, NAMESPACE);
        let (admins, danas, appliers) =
            (Api::<AIWorkload>::namespaced(admin.clone(), NAMESPACE), bots("dana").await, bots("applier").await);
        let bot = |sources: Value| -> AIWorkload {
            let mut bot = workload(json!({}), spec(sources));
            bot["metadata"]["namespace"] = json!(NAMESPACE);
            serde_json::from_value(bot).unwrap()
        };
        let create = async |api: &Api<AIWorkload>, sources: Value| {
            api.create(&PostParams { dry_run: true, ..PostParams::default() }, &bot(sources)).await
        };
        let kubernetes =
            |resource: &str| json!([{"name": "k", "type": "Kubernetes", "kubernetes": {"apiGroups": [""], "resources": [resource]}}]);
        // The API server learns of a caBundle a moment after it was written.
        until("the API server trusts the webhook", async || create(&danas, json!([])).await.ok()).await;
        let ceilings: Api<ScopeCeiling> = Api::all(admin.clone());
        let _of_a_run_that_failed = ceilings.delete(NAMESPACE, &DeleteParams::default()).await;

        let text = refusal(create(&danas, secret()).await);
        assert!(
            text.contains("scope.test.remit.dev")
                && text.contains("get secrets thing in namespace webhook-test\", which dana does not hold"),
            "{text}"
        );
        create(&admins, secret()).await.expect("positive control");
        let text = refusal(create(&danas, kubernetes("secrets")).await);
        assert!(text.contains("never granted by Remit") && text.contains("which nobody can grant"), "{text}");
        refusal(create(&admins, kubernetes("secrets")).await);
        create(&danas, kubernetes("configmaps")).await.expect("what dana holds she may declare");
        refusal(create(&danas, kubernetes("endpoints")).await);
        refusal(create(&appliers, kubernetes("configmaps")).await);
        let outside = json!([{"name": "h", "type": "Host", "access": "ReadWrite", "host": {"name": "help.example.com", "port": 443}}]);
        refusal(create(&danas, outside.clone()).await);
        let ceiling = |host: &str| {
            json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": NAMESPACE}, "spec": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}, "classes": ["Restricted"],
            "hosts": [{"name": "h", "host": host, "ports": [443]}], "kubernetes": [{"name": "k", "apiGroups": [""], "resources": ["configmaps"]}]}})
        };
        apply(&ceilings, ceiling("help.example.com")).await;
        create(&danas, outside.clone()).await.expect("allowed");
        create(&appliers, kubernetes("configmaps")).await.expect("allowed");
        apply(&ceilings, ceiling("other.example.com")).await;
        refusal(create(&danas, outside).await);

        // Held, then freed only with release.
        let _ = admins.delete("bot", &DeleteParams::default()).await;
        danas.create(&PostParams::default(), &bot(json!([]))).await.unwrap();
        let patch = async |api: &Api<AIWorkload>, patch: Value| api.patch("bot", &PatchParams::default(), &Patch::Merge(patch)).await;
        for freeing in [
            json!({"spec": {"mode": "Observe"}}),
            json!({"spec": {"selector": {"matchLabels": {"app": "bot", "tier": "none"}}}}),
            json!({"metadata": {"annotations": {RELEASE_ANNOTATION: "now"}}}),
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]}}),
        ] {
            assert!(refusal(patch(&danas, freeing).await).contains("release aiworkloads.remit.dev bot"));
        }
        patch(&danas, json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["remit.dev/deny-until-gone"]}, "spec": {"suspend": true}}))
            .await
            .unwrap();
        assert!(refusal(danas.delete("bot", &DeleteParams::default()).await).contains("release aiworkloads.remit.dev bot"));
        admins.delete("bot", &DeleteParams::default()).await.unwrap();
        assert!(refusal(patch(&danas, json!({"metadata": {"finalizers": null}})).await).contains("metadata.finalizers"));
        patch(&admins, json!({"metadata": {"finalizers": null}})).await.unwrap();

        // Both replicas know who wrote a Role; a dry run is nothing.
        let roles: Api<Role> = Api::namespaced(admin.clone(), NAMESPACE);
        let _ = roles.delete("noted", &DeleteParams::default()).await;
        let role: Role = serde_json::from_value(json!({"metadata": {"name": "noted"}, "rules": []})).unwrap();
        roles
            .create(
                &PostParams { dry_run: true, ..PostParams::default() },
                &Role { metadata: kube::api::ObjectMeta { name: Some("dry".into()), ..Default::default() }, ..role.clone() },
            )
            .await
            .unwrap();
        roles.create(&PostParams::default(), &role).await.unwrap();
        let key = |name: &str| ObjectKey { kind: Kind::Role, object: ObjectName::new(NAMESPACE, name) };
        let writer = until("the other replica knows", async || there.last(&key("noted"))).await;
        println!("recorded: {writer:?}");
        assert_eq!(there.last(&key("dry")), None);
        assert_eq!(Some(writer.user), here.last(&key("noted")).map(|w| w.user));

        // Secrets that somebody deletes and a caBundle that somebody empties come back, the Secrets as they were.
        let names = ["remit-webhook-tls", PATH_SECRET];
        let mut before = Vec::new();
        for name in names {
            before.push(secrets.get(name).await.unwrap());
            secrets.delete(name, &DeleteParams::default()).await.unwrap();
        }
        let emptied = json!({"webhooks": [{"name": "scope.test.remit.dev", "clientConfig": {"caBundle": null}}]});
        configurations.patch("webhook-test-scope", &PatchParams::default(), &Patch::Strategic(emptied)).await.unwrap();
        let trusted = async || {
            let held = configurations.get("webhook-test-scope").await.ok()?;
            held.webhooks.into_iter().flatten().next()?.client_config.ca_bundle
        };
        until("the caBundle comes back", trusted).await;
        for (name, before) in names.iter().zip(before) {
            let after = until("the Secret comes back", async || secrets.get_opt(name).await.ok().flatten()).await;
            assert!(before.data == after.data && before.metadata.uid != after.metadata.uid, "{name}");
        }
        until("the API server trusts the webhook still", async || create(&danas, json!([])).await.ok()).await;
        let held = configurations.get("webhook-test-scope").await.unwrap();
        let owned: Vec<String> = held
            .metadata
            .managed_fields
            .into_iter()
            .flatten()
            .filter(|m| m.manager.as_deref() == Some("remit-ca"))
            .map(|m| format!("{:?}", m.fields_v1))
            .collect();
        println!("remit-ca owns {owned:?}");
        assert!(owned.len() == 1 && !owned[0].contains("failurePolicy") && !owned[0].contains("rules"));

        stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(5), async { while parts.join_next().await.is_some() {} }).await.expect("all parts end");
        // Nobody answers: closed for spec changes.
        let text = refusal(create(&admins, json!([])).await);
        assert!(text.contains("failed calling webhook"), "{text}");
        for (name, _) in kept {
            configurations.delete(name, &DeleteParams::default()).await.unwrap();
        }
        ceilings.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
        Api::<ClusterRoleBinding>::all(admin.clone()).delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
        Api::<ClusterRole>::all(admin.clone()).delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), NAMESPACE);
        println!("{:?}", maps.get("remit-recorded-writes").await.unwrap().data);
        // (An API tier without controllers leaves it Terminating.)
        Api::<Namespace>::all(admin).delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    }
}
