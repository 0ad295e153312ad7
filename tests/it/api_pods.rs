//! Pods of enrolled namespaces are guarded from their creation, and what would go round the guard is refused. Needs the API tier.
//!
//! The chart's own webhooks on the real API server lead to the real operator. No controller runs there, so pods are made directly.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::{Api, Operator, Refused, World, check, eventually, kind, run, workload};

async fn world() -> &'static World {
    static WORLD: OnceCell<(World, Operator)> = OnceCell::const_new();
    &WORLD.get_or_init(|| async { guarding("pods").await }).await.0
}

/// A world whose API server asks the operator about pods.
async fn guarding(name: &str) -> (World, Operator) {
    let world = World::new(name).await;
    let config = world.admission_of_pods().await;
    let operator = world.operator_with(&world.proxy, config).await;
    let probe = world.namespace("probe").await;
    world.declare(&probe, "bot", "").await;
    // The API server learns of a configuration some time after it was written.
    eventually("pods are injected", || async {
        let pod = made(&world.admin, &probe, "bot-", json!({"app": "bot"}), json!({})).await.map_err(|e| e.to_string())?;
        check(ours(&pod) == OURS, || pod["spec"]["initContainers"].to_string())
    })
    .await;
    eventually("pods are judged", || async {
        let answer = made(&world.admin, &probe, "bot-", json!({"app": "bot"}), json!({"hostNetwork": true})).await;
        check(answer.as_ref().is_err_and(|e| e.message.contains("spec.hostNetwork")), || format!("{answer:?}"))
    })
    .await;
    eventually("templates are judged", || async {
        let answer = world.admin.create(deployment(&probe, "probe", json!({"hostNetwork": true}))).await;
        check(answer.as_ref().is_err_and(|e| e.message.contains("hostNetwork")), || format!("{answer:?}, made anew each time"))
    })
    .await;
    eventually("connections are judged", || async {
        let answer = connect(&world.admin, &probe, "none", "exec?container=remit-guard&command=sh").await;
        check(answer.message.contains("Remit's own"), || answer.to_string())
    })
    .await;
    (world, operator)
}

const OURS: [&str; 2] = ["remit-redirect", "remit-guard"];

fn ours(pod: &Value) -> Vec<&str> {
    pod["spec"]["initContainers"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).take(2).collect()
}

fn spec(more: Value) -> Value {
    let image = format!("none.example.com/none@sha256:{:064}", 1);
    let mut spec = json!({"containers": [{"name": "main", "image": image}], "terminationGracePeriodSeconds": 0});
    spec.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
    spec
}

/// A new pod, tried again until the namespace has its account.
async fn made(api: &Api, namespace: &str, name: &str, labels: Value, more: Value) -> Result<Value, Refused> {
    let metadata = json!({"generateName": name, "namespace": namespace, "labels": labels});
    created(api, json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec(more)})).await
}

async fn created(api: &Api, object: Value) -> Result<Value, Refused> {
    let mut answer = api.create(object.clone()).await;
    while answer.as_ref().is_err_and(|e| e.message.contains("error looking up service account")) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        answer = api.create(object.clone()).await;
    }
    answer
}

fn deployment(namespace: &str, name: &str, more: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "bot"}}, "template": {"metadata": {"labels": {"app": "bot"}}, "spec": spec(more)}}})
}

async fn connect(api: &Api, namespace: &str, pod: &str, how: &str) -> Refused {
    let path = format!("{}/{how}", kind("Pod").path(namespace, pod));
    api.request("POST", &path, None, None).await.expect_err("there is no kubelet")
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Refused>, what: &str, words: &[&str]) {
    let refusal = answer.expect_err(what);
    for word in words {
        assert!(refusal.message.contains(word), "{what}: no `{word}` in: {refusal}");
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("a name").to_owned()
}

#[test]
fn a_pod_made_right_after_its_aiworkload_is_guarded() {
    run(async {
        let world = world().await;
        let own = world.namespace("race").await;
        made(&world.admin, &own, "first-", json!({}), json!({})).await.expect("the namespace takes pods");
        let mut ids = BTreeSet::new();
        for n in 0..100 {
            let app = format!("bot{n}");
            world.admin.create(workload(&own, &app, "")).await.expect("an AIWorkload");
            let pod = made(&world.admin, &own, "bot-", json!({"app": app}), json!({})).await.expect("a pod");
            assert_eq!(ours(&pod), OURS, "{n}: {pod}");
            assert_eq!(pod["spec"]["serviceAccountName"], json!(app));
            ids.insert(pod["spec"]["initContainers"][0]["args"].to_string());
        }
        assert!(ids.len() > 95, "each pod has ids of its own: {}", ids.len());
    });
}

#[test]
fn other_injectors_before_or_after_do_not_displace_it() {
    run(async {
        let world = world().await;
        for (when, has_guard) in [("before", "!"), ("after", "")] {
            let own = world.namespace(&format!("mesh{when}")).await;
            world.declare(&own, "bot", "{}").await;
            let name = world.name(&format!("mesh-{when}"));
            let list = "object.spec.?initContainers.orValue([])";
            let container = "Object.spec.initContainers{name: 'mesh', image: 'none.example.com/mesh:1', securityContext: Object.spec.initContainers.securityContext{runAsUser: 1337}}";
            // Asked each time, so that it is asked again after us.
            let acts = format!("{has_guard}{list}.exists(c, c.name == 'remit-guard') && !{list}.exists(c, c.name == 'mesh')");
            let patch = format!("{acts} ? [JSONPatch{{op: 'add', path: '/spec/initContainers/0', value: {container}}}] : []");
            let policy = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
                "spec": {
                    "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
                    "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
                    "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
                },
            });
            let binding = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
                "spec": {"policyName": name, "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": own}}}},
            });
            for object in [policy, binding] {
                world.admin.apply(object).await.expect("an injector");
            }
            let (pod, _) = eventually("another injector acts", || async {
                let setup = json!([{"name": "setup", "image": "none.example.com/none:1"}]);
                let more = json!({"initContainers": setup, "securityContext": {"runAsUser": 1000}});
                let pod = made(&world.admin, &own, "bot-", json!({"app": "bot"}), more).await.map_err(|e| e.to_string())?;
                let acted = pod["spec"]["initContainers"].as_array().is_some_and(|list| list.iter().any(|c| c["name"] == "mesh"));
                check(acted, || pod.to_string()).map(|()| pod)
            })
            .await;
            let names: Vec<_> = pod["spec"]["initContainers"].as_array().expect("a list").iter().map(|c| &c["name"]).collect();
            assert_eq!(names, ["remit-redirect", "remit-guard", "mesh", "setup"], "{when} ours");
            for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
                world.admin.delete(kind, "", &name).await.expect("it goes");
            }
        }
    });
}

#[test]
fn pods_are_injected_and_templates_are_left_alone() {
    run(async {
        let world = world().await;
        let own = world.namespace("inject").await;
        world.declare(&own, "bot", "dataSources: [{name: key, type: Secret, class: Internal, secret: {name: key}}]").await;
        let deployed = world.admin.create(deployment(&own, "bot", json!({}))).await.expect("a Deployment");
        assert_eq!(deployed["spec"]["template"]["spec"].get("initContainers"), None);
        // A mutating webhook before ours put a container first, and somebody poses as ours.
        let foreign = json!([
            {"name": "mesh-init", "image": "none.example.com/mesh:1", "securityContext": {"runAsUser": 1337}},
            {"name": "remit-guard", "image": "none.example.com/evil:1", "restartPolicy": "Always"},
            {"name": "remit-redirect", "image": "none.example.com/evil:1", "args": ["redirect", "--uid=2000000001", "--gid=2000000001"]},
        ]);
        let key = json!([{"name": "key", "secret": {"secretName": "key"}}, {"name": "remit-policy", "emptyDir": {}}]);
        let more = json!({"initContainers": foreign, "volumes": key});
        let pod = made(&world.admin, &own, "bot-", json!({"app": "bot"}), more.clone()).await.expect("a pod");
        let names: Vec<_> = pod["spec"]["initContainers"].as_array().expect("a list").iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["remit-redirect", "remit-guard", "mesh-init"]);
        assert!(!pod.to_string().contains("evil") && !pod.to_string().contains("2000000001"), "{pod}");
        assert!(!pod["spec"]["volumes"].to_string().contains("kube-api-access"), "no token: {}", pod["spec"]["volumes"]);
        assert_eq!(pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"], json!(false));
        // A dry run is the same.
        let path = format!("{}?dryRun=All", kind("Pod").path(&own, ""));
        let object =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dry", "labels": {"app": "bot"}}, "spec": spec(json!({}))});
        let dry = world.admin.request("POST", &path, None, Some(&object)).await.expect("a dry run");
        assert_eq!(ours(&dry), OURS);
        // Another's pods, and other namespaces.
        let plain = made(&world.admin, &own, "other-", json!({"app": "other"}), json!({})).await.expect("a pod");
        assert_eq!(ours(&plain), Vec::<&str>::new());
        refused(made(&world.admin, &own, "other-", json!({"app": "other"}), more).await, "posing as guarded", &["a name of Remit's own"]);
        let free = world.namespace_with("free", json!({})).await;
        let pod = made(&world.admin, &free, "bot-", json!({"app": "bot"}), json!({"hostNetwork": true})).await.expect("not enrolled");
        assert_eq!(ours(&pod), Vec::<&str>::new());
        // What a newer Kubernetes writes is nothing that this API server would store: it takes it away before webhooks are asked
        // (src/plan/patch.rs has the test of that).
    });
}

/// Where TLS is looked into, the app is given whom to trust, to read; and what is declared for base URLs it is told.
#[test]
fn apps_are_told_and_trust_what_they_cannot_write() {
    run(async {
        let world = world().await;
        let own = world.namespace("inspect").await;
        let source = "{name: help, type: Service, class: Internal, service: {name: help, port: 443, protocol: HTTPS, tlsInspection: Enabled, baseURLEnv: [HELP_URL]}}";
        world.declare(&own, "bot", &format!("dataSources: [{source}]")).await;
        let labels = || json!({"app": "bot"});
        let pod = made(&world.admin, &own, "bot-", labels(), json!({})).await.expect("a pod");
        assert_eq!(ours(&pod), OURS);
        let guard = &pod["spec"]["initContainers"][1];
        let arguments: Vec<_> = guard["args"].as_array().expect("a list").iter().skip(3).collect();
        assert_eq!(arguments, ["--trust-store=/var/run/remit/trust", "--ca=/var/run/remit/ca"]);
        let main = &pod["spec"]["containers"][0];
        let trust = json!([{"name": "remit-trust", "mountPath": "/var/run/remit/trust", "readOnly": true}]);
        assert_eq!(main["volumeMounts"], trust);
        assert_eq!(main["env"][0], json!({"name": "HELP_URL", "value": "http://127.0.0.1:15474/help"}));
        assert!(main["env"].to_string().contains("SSL_CERT_FILE"), "{}", main["env"]);
        let volumes: Vec<_> = pod["spec"]["volumes"].as_array().expect("a list").iter().map(|v| &v["name"]).collect();
        assert_eq!(volumes[..3], ["remit-policy", "remit-trust", "remit-ca"]);
        let mounts = |name: &str, read_only: bool| {
            let image = format!("none.example.com/none@sha256:{:064}", 1);
            json!({"containers": [{"name": "main", "image": image, "volumeMounts": [{"name": name, "mountPath": "/x", "readOnly": read_only}]}]})
        };
        refused(made(&world.admin, &own, "bot-", labels(), mounts("remit-ca", true)).await, "the key", &["the guard's own volume"]);
        // What bears our names is put right.
        let pod = made(&world.admin, &own, "bot-", labels(), mounts("remit-trust", false)).await.expect("a pod");
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"], trust);
        // Its own word counts, and is spoken of.
        let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own", "namespace": own, "labels": {"app": "bot"}}, "spec": spec(json!({}))});
        object["spec"]["containers"][0]["env"] = json!([{"name": "HELP_URL", "value": "https://help.own"}]);
        let warnings = warnings(&world.admin, &kind("Pod").path(&own, ""), &object).await;
        assert!(warnings.iter().any(|w| w.contains("env[name=HELP_URL]: stays as the pod sets it")), "{warnings:?}");
        // The form is stored without it, and passes as it is.
        let unlooked = world.namespace("unlooked").await;
        world.declare(&unlooked, "bot", "").await;
        let plain = made(&world.admin, &unlooked, "bot-", labels(), json!({})).await.expect("a pod");
        assert!(!plain.to_string().contains("remit-trust") && !plain.to_string().contains("SSL_CERT_FILE"), "{plain}");
    });
}

#[test]
fn what_would_go_round_the_guard_is_refused() {
    run(async {
        let world = world().await;
        let own = world.namespace("refuse").await;
        world.declare(&own, "bot", "").await;
        made(&world.admin, &own, "first-", json!({}), json!({})).await.expect("the namespace takes pods");
        let dana = world.person("dana", &[(&own, "edit")]).await;
        let labels = || json!({"app": "bot"});
        let secret = json!({"volumes": [{"name": "s", "secret": {"secretName": "other"}}]});
        for (more, words) in [
            (json!({"hostNetwork": true}), ["spec.hostNetwork", "leave it out"]),
            (secret.clone(), ["Secret `other` is not declared", "to dataSources of AIWorkload `bot`"]),
            (json!({"securityContext": {"runAsUser": 2_000_000_007}}), ["spec.securityContext.runAsUser", "kept for guards"]),
            (
                json!({"containers": [{"name": "main", "image": "none.example.com/none:1"}], "schedulingGates": [{"name": "wait"}]}),
                ["spec.containers[name=main].securityContext.runAsUser", "pull the image by digest"],
            ),
        ] {
            refused(made(&dana, &own, "bot-", labels(), more).await, words[0], &words);
        }
        // All at once.
        let mut both = secret.clone();
        both["hostPID"] = json!(true);
        refused(made(&dana, &own, "bot-", labels(), both).await, "two errors", &["- spec.hostPID", "- spec.volumes[name=s]"]);

        let pod = name(&made(&dana, &own, "bot-", labels(), json!({})).await.expect("a pod"));
        let patch = |patch: Value| {
            let (dana, own, pod) = (dana.clone(), own.clone(), pod.clone());
            async move { dana.patch("Pod", &own, &pod, patch).await }
        };
        for i in [0, 1] {
            let image = json!([{"op": "replace", "path": format!("/spec/initContainers/{i}/image"), "value": "none.example.com/evil:1"}]);
            refused(patch(image).await, "the guard's image", &["is Remit's own and never changes on a running pod"]);
        }
        refused(patch(json!({"metadata": {"labels": {"app": "other"}}})).await, "labels that leave", &["would no longer select the pod"]);
        patch(json!({"metadata": {"labels": {"track": "canary"}, "finalizers": ["remit.test/kept"]}})).await.expect("metadata");
        patch(json!({"metadata": {"finalizers": null}})).await.expect("metadata");
        let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "none.example.com/none:2"}]);
        refused(patch(image.clone()).await, "an image with any user", &["could bear the guard's user", "runAsUser"]);
        let gated = name(&made(&dana, &own, "gated-", labels(), json!({"schedulingGates": [{"name": "wait"}]})).await.expect("a pod"));
        for key in ["k8s.v1.cni.cncf.io/networks", "seccomp.security.alpha.kubernetes.io/pod"] {
            let annotated = dana.patch("Pod", &own, &gated, json!({"metadata": {"annotations": {key: "unconfined"}}})).await;
            refused(annotated, key, &["admission webhook \"created.pods.remit.dev\" denied", &format!("metadata.annotations[{key}]")]);
        }
        dana.patch("Pod", &own, &gated, json!({"metadata": {"annotations": {"a": "b"}}})).await.expect("another annotation");
        let user = json!({"securityContext": {"runAsUser": 1000}});
        let named = name(&made(&dana, &own, "named-", labels(), user).await.expect("a pod"));
        dana.patch("Pod", &own, &named, image).await.expect("the app's image, where the pod names the user");
        let debugger = json!({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "none.example.com/x:1", "terminationMessagePolicy": "File"}]}});
        let path = format!("{}/ephemeralcontainers", kind("Pod").path(&own, &pod));
        let answer = world.admin.request("PATCH", &path, Some("application/strategic-merge-patch+json"), Some(&debugger)).await;
        refused(answer, "a debugger", &["spec.ephemeralContainers[name=debugger]", "kubectl remit break-glass"]);
        let other = name(&made(&dana, &own, "other-", json!({"app": "other"}), json!({})).await.expect("a pod"));
        refused(
            dana.patch("Pod", &own, &other, json!({"metadata": {"labels": {"app": "bot"}}})).await,
            "labels that enter",
            &["which has no guard of its own"],
        );

        // A Secret that is declared in the same breath.
        let mut declared = workload(&own, "bot", "dataSources: [{name: s, type: Secret, class: Internal, secret: {name: other}}]");
        for n in 0..20 {
            declared["spec"]["dataSources"][0]["secret"]["name"] = json!(format!("other{n}"));
            world.admin.apply(declared.clone()).await.expect("an AIWorkload");
            let mut more = secret.clone();
            more["volumes"][0]["secret"]["secretName"] = json!(format!("other{n}"));
            made(&dana, &own, "bot-", labels(), more).await.unwrap_or_else(|e| panic!("{n}: {e}"));
        }
    });
}

#[test]
fn connections_reach_the_app_and_not_the_guard() {
    run(async {
        let world = world().await;
        let own = world.namespace("connect").await;
        world.declare(&own, "bot", "").await;
        let pod = name(&made(&world.admin, &own, "bot-", json!({"app": "bot"}), json!({})).await.expect("a pod"));
        let plain = name(&made(&world.admin, &own, "plain-", json!({}), json!({})).await.expect("a pod"));
        let guard = "is Remit's own";
        // Which pod, how, words of the refusal; without any it goes on to the kubelet, which does not exist.
        let cases = [
            (&pod, "exec?container=remit-guard&command=sh".to_owned(), Some(guard)),
            (&pod, "attach?container=remit-redirect".to_owned(), Some(guard)),
            (&pod, "exec?container=main&command=sh".to_owned(), None),
            (&pod, "exec?command=sh".to_owned(), None),
            (&pod, "attach?container=main".to_owned(), None),
            (&pod, "portforward?ports=8080".to_owned(), Some("use the Service")),
            (&pod, "proxy/".to_owned(), Some("use the Service")),
            (&plain, "portforward?ports=8080".to_owned(), None),
            (&plain, "proxy/".to_owned(), None),
        ];
        for (pod, how, words) in cases {
            let answer = connect(&world.admin, &own, pod, &how).await;
            let ours = answer.message.contains("denied the request");
            assert!(words.is_none_or(|words| answer.message.contains(words)) && ours == words.is_some(), "{how}: {answer}");
        }
        for name in [format!("{pod}:8080"), format!("http:{pod}:8080")] {
            let answer = connect(&world.admin, &own, &name, "proxy/").await;
            assert!(answer.message.contains("use the Service"), "{name}: {answer}");
        }
    });
}

#[test]
fn templates_are_refused_where_they_are_written() {
    run(async {
        let world = world().await;
        let own = world.namespace("templates").await;
        let metadata = |name: &str| json!({"name": name, "namespace": own});
        let template = |more: Value| json!({"metadata": {"labels": {"app": "bot"}}, "spec": spec(more)});
        let make = |kind: &str, more: Value| {
            let selector = json!({"matchLabels": {"app": "bot"}});
            let once = |mut template: Value| {
                template["spec"]["restartPolicy"] = json!("Never");
                json!({"template": template})
            };
            let mut object = match kind {
                "Job" => json!({"spec": once(template(more))}),
                "CronJob" => json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": once(template(more))}}}),
                "PodTemplate" => json!({"template": template(more)}),
                "ReplicationController" => json!({"spec": {"selector": {"app": "bot"}, "template": template(more)}}),
                "StatefulSet" => json!({"spec": {"serviceName": "bot", "selector": selector, "template": template(more)}}),
                _ => json!({"spec": {"selector": selector, "template": template(more)}}),
            };
            object["apiVersion"] = json!(crate::support::kind(kind).version);
            object["kind"] = json!(kind);
            object["metadata"] = metadata("bot");
            object
        };
        for (kind, path) in [
            ("Deployment", "spec.template.spec.hostPID"),
            ("ReplicaSet", "spec.template.spec.hostPID"),
            ("StatefulSet", "spec.template.spec.hostPID"),
            ("DaemonSet", "spec.template.spec.hostPID"),
            ("Job", "spec.template.spec.hostPID"),
            ("CronJob", "spec.jobTemplate.spec.template.spec.hostPID"),
            ("ReplicationController", "spec.template.spec.hostPID"),
            ("PodTemplate", "template.spec.hostPID"),
        ] {
            // It was there before.
            let mut old = make(kind, json!({"hostPID": true}));
            old["metadata"]["name"] = json!("old");
            old["metadata"]["finalizers"] = json!(["remit.test/kept"]);
            created(&world.admin, old).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
            let bot = world.declare(&own, "bot", "").await;
            refused(world.admin.create(make(kind, json!({"hostPID": true}))).await, kind, &[path, "leave it out"]);
            created(&world.admin, make(kind, json!({}))).await.unwrap_or_else(|e| panic!("{kind}: {e}"));
            let patch = |patch: Value| world.admin.patch(kind, &own, "old", patch);
            patch(json!({"metadata": {"labels": {"a": "b"}}})).await.unwrap_or_else(|e| panic!("{kind}, metadata: {e}"));
            if ["Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"].contains(&kind) {
                patch(json!({"spec": {"replicas": 3}})).await.unwrap_or_else(|e| panic!("{kind}, scaled: {e}"));
            }
            world.admin.delete(kind, &own, "old").await.unwrap_or_else(|e| panic!("{kind}: {e}"));
            patch(json!({"metadata": {"finalizers": null}})).await.unwrap_or_else(|e| panic!("{kind}, at the end: {e}"));
            if kind == "Deployment" {
                let worse = json!({"spec": {"template": {"spec": {"hostPID": true}}}});
                refused(world.admin.patch(kind, &own, "bot", worse).await, "an update", &[path]);
            }
            let _ = world.admin.delete(kind, &own, "bot").await;
            assert_eq!(bot["kind"], "AIWorkload");
            // So that the next kind begins without it.
            world
                .admin
                .patch("AIWorkload", &own, "bot", json!({"metadata": {"annotations": {"remit.dev/release": "true"}}}))
                .await
                .expect("release");
            let _ = world.admin.delete("AIWorkload", &own, "bot").await;
            eventually("the AIWorkload goes", || async {
                check(world.admin.get("AIWorkload", &own, "bot").await.is_none(), || "it is there".into())
            })
            .await;
        }
    });
}

#[test]
fn observe_warns_and_only_puts_the_guard_in() {
    run(async {
        let world = world().await;
        let own = world.namespace("observe").await;
        world.declare(&own, "bot", "mode: Observe").await;
        made(&world.admin, &own, "first-", json!({}), json!({})).await.expect("the namespace takes pods");
        let secret = json!({"hostPID": true, "volumes": [{"name": "s", "secret": {"secretName": "other"}}]});
        let pod = made(&world.admin, &own, "bot-", json!({"app": "bot"}), secret.clone()).await.expect("it is let through");
        assert_eq!(ours(&pod), OURS);
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        let context = pod["spec"]["containers"][0].get("securityContext");
        assert!(context.is_none() || context == Some(&json!({})), "{context:?}");
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "warned", "namespace": own, "labels": {"app": "bot"}}, "spec": spec(secret)});
        let warnings = warnings(&world.admin, &kind("Pod").path(&own, ""), &object).await;
        assert!(warnings.iter().any(|w| w.contains("AIWorkload bot in Enforce would refuse: spec.hostPID")), "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("Secret `other` is not declared")), "{warnings:?}");
    });
}

/// The warnings that come with an answer.
async fn warnings(api: &Api, path: &str, object: &Value) -> Vec<String> {
    let request = hyper::Request::post(path)
        .header("content-type", "application/json")
        .body(kube::client::Body::from(serde_json::to_vec(object).expect("JSON")))
        .expect("a request");
    let response = api.client.send(request).await.expect("an answer");
    assert!(response.status().is_success(), "{}", response.status());
    response.headers().get_all("warning").iter().map(|w| w.to_str().expect("text").to_owned()).collect()
}

#[test]
fn unscoped_pods_can_be_denied() {
    run(async {
        let world = world().await;
        let own = world.namespace_with("deny", json!({"remit.dev/enrolled": "true", "deny": "yes"})).await;
        let running = name(&made(&world.admin, &own, "before-", json!({}), json!({})).await.expect("no ceiling yet"));
        let ceiling = world.ceiling("deny", json!({"deny": "yes"}), "unscopedPods: Deny\nclasses: [Public, Internal, Restricted]").await;
        let words = ["no AIWorkload selects this pod", ceiling.as_str(), "declare an AIWorkload that selects its labels"];
        eventually("they are denied", || async {
            let answer = made(&world.admin, &own, "bot-", json!({"app": "bot"}), json!({})).await;
            check(answer.as_ref().is_err_and(|e| words.iter().all(|w| e.message.contains(w))), || format!("{answer:?}"))
        })
        .await;
        refused(
            world.admin.create(deployment(&own, "bot", json!({}))).await,
            "a template",
            &["spec.template.metadata.labels: no AIWorkload"],
        );
        world.admin.patch("Pod", &own, &running, json!({"metadata": {"annotations": {"a": "b"}}})).await.expect("it runs on");
        eventually("those that run are isolated", || async {
            world.admin.get("NetworkPolicy", &own, "remit.unscoped").await.ok_or_else(|| "there is no policy".to_owned())
        })
        .await;
        world.declare(&own, "bot", "").await;
        let pod = made(&world.admin, &own, "bot-", json!({"app": "bot"}), json!({})).await.expect("one that is selected");
        assert_eq!(ours(&pod), OURS);
        world.admin.create(deployment(&own, "bot", json!({}))).await.expect("and its template");
    });
}

#[test]
fn without_the_operator_no_pod_starts_and_those_that_run_are_left_alone() {
    run(async {
        let (world, operator) = guarding("podsdown").await;
        let own = world.namespace("own").await;
        world.declare(&own, "bot", "").await;
        let pod = name(&made(&world.admin, &own, "bot-", json!({"app": "bot"}), json!({})).await.expect("a pod"));
        operator.kill();
        let answer = made(&world.admin, &own, "bot-", json!({"app": "bot"}), json!({})).await;
        refused(answer, "nobody answers", &["failed calling webhook \"pods.inject.remit.dev\""]);
        let metadata = json!({"metadata": {"labels": {"app": "bot"}, "annotations": {"a": "b"}, "finalizers": ["remit.test/kept"]}});
        world.admin.patch("Pod", &own, &pod, metadata).await.expect("metadata");
        world.admin.patch_status("Pod", &own, &pod, json!({"status": {"message": "x"}})).await.expect("status");
        world.admin.delete("Pod", &own, &pod).await.expect("deletion");
        world.admin.patch("Pod", &own, &pod, json!({"metadata": {"finalizers": null}})).await.expect("the end");
        let free = world.namespace_with("free", json!({})).await;
        made(&world.admin, &free, "bot-", json!({"app": "bot"}), json!({})).await.expect("other namespaces do not wait");
    });
}
