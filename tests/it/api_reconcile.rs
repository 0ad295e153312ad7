//! What the operator makes of AIWorkloads, on the real API server. Needs the API tier.
//!
//! One operator for all tests of this file, but where a test restarts it. Each test has namespaces of its own.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::{Operator, World, always, check, eventually, eventually_within, opened, run};

/// What is promised for changes of Services and for tightened ceilings.
const PROMISED: Duration = Duration::from_secs(2);

/// The world and the operator of this file.
async fn world() -> &'static World {
    static WORLD: OnceCell<(World, Operator)> = OnceCell::const_new();
    let (world, _) = WORLD
        .get_or_init(|| async {
            let world = World::new("reconcile").await;
            let operator = world.operator().await;
            (world, operator)
        })
        .await;
    world
}

/// A ceiling over this namespace that allows what the tests declare.
async fn wide(world: &World, namespace: &str, others: &str) -> String {
    let short = format!("wide-{}", namespace.rsplit('-').next().unwrap());
    world
        .ceiling(
            &short,
            json!({"kubernetes.io/metadata.name": namespace}),
            &format!(
                "unscopedPods: Allow
classes: [Public, Internal, Restricted]
hosts: [{{name: help, host: help.example.com, ports: [443]}}]
services: [{{name: own, services: ['*']}}, {{name: others, namespace: {others}, services: ['*']}}]
kubernetes:
- {{name: own, apiGroups: ['', shop.example.com], resources: [configmaps, orders], access: ReadWrite}}
- {{name: others, namespace: {others}, apiGroups: ['', shop.example.com], resources: [configmaps, orders], access: ReadWrite}}"
            ),
        )
        .await
}

const CONFIGMAPS: &str = "dataSources: [{name: settings, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [configmaps]}}]";

#[test]
fn a_workload_becomes_exactly_its_plan_with_one_write_per_object() {
    run(async {
        let world = world().await;
        let (own, shop) = (world.namespace("planbot").await, world.namespace("planshop").await);
        wide(world, &own, &shop).await;
        world.service(&shop, "orders", 5432, json!("postgres")).await;
        world.service(&own, "cache", 6379, json!(6380)).await;
        world
            .declare(
                &own,
                "bot",
                &format!(
                    "dataSources:
- {{name: db, type: Service, access: ReadWrite, service: {{name: orders, namespace: {shop}, port: 5432, protocol: TCP}}}}
- {{name: cache, type: Service, access: ReadWrite, service: {{name: cache, port: 6379, protocol: TCP}}}}
- {{name: status, type: Kubernetes, access: ReadWrite, kubernetes: {{apiGroups: [shop.example.com], resources: [orders], namespace: {shop}}}}}
- {{name: settings, type: Kubernetes, kubernetes: {{apiGroups: [''], resources: [configmaps], resourceNames: [a, b]}}}}
- {{name: prompts, type: ConfigMap, configMap: {{name: prompts}}}}
capabilities: {{clients: [{{name: web, namespace: {shop}, podSelector: {{matchLabels: {{app: web}}}}, port: 8080}}]}}"
                ),
            )
            .await;
        world.is_ready(&own, "bot").await;

        // One write per object, one finalizer, one status.
        let tally = world.tally_in(&[&own, &shop]);
        let expected = [
            ("patch aiworkloads", 1),
            ("apply networkpolicies", 1),
            ("apply configmaps", 1),
            ("apply serviceaccounts", 1),
            ("apply roles", 2),
            ("apply rolebindings", 2),
            ("apply aiworkloads/status", 1),
        ];
        assert_eq!(tally, expected.map(|(what, count)| (what.to_owned(), count)).into());

        let policy = world.policy(&own, "bot").await.unwrap();
        let pods = |namespace: &str, app: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}, "podSelector": {"matchLabels": {"app": app}}});
        assert_eq!(policy["podSelector"], json!({"matchLabels": {"app": "bot"}}));
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["ingress"], json!([{"from": [pods(&shop, "web")], "ports": [{"port": 8080, "protocol": "TCP"}]}]));
        let egress = policy["egress"].as_array().unwrap();
        for (namespace, app, port) in [(&shop, "orders", json!("postgres")), (&own, "cache", json!(6380))] {
            let rule = json!({"to": [pods(namespace, app)], "ports": [{"port": port, "protocol": "TCP"}]});
            assert!(egress.contains(&rule), "no {rule} in {policy}");
        }
        // The rest is the API server, and DNS where this cluster has it.
        assert!(egress.iter().any(|r| r["to"][0]["ipBlock"]["cidr"] == "198.51.100.1/32"), "the API server is opened: {policy}");

        let account = world.admin.get("ServiceAccount", &own, "bot").await.unwrap();
        assert_eq!(account["automountServiceAccountToken"], true, "permissions are declared");
        let name = format!("remit.{own}.bot");
        let all = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
        let rules = world.admin.get("Role", &shop, &name).await.unwrap()["rules"].take();
        assert_eq!(rules, json!([{"apiGroups": ["shop.example.com"], "resources": ["orders"], "verbs": all}]));
        let rules = world.admin.get("Role", &own, &name).await.unwrap()["rules"].take();
        let read = json!(["get", "list", "watch"]);
        assert_eq!(rules, json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a", "b"], "verbs": read}]));
        for namespace in [&own, &shop] {
            let binding = world.admin.get("RoleBinding", namespace, &name).await.unwrap();
            assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": "bot", "namespace": own}]));
            assert_eq!(binding["roleRef"], json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}));
        }

        // What grants in the namespace is owned; what lies elsewhere cannot be, and bears the labels. The policies must outlive their AIWorkload.
        let workload = world.admin.get("AIWorkload", &own, "bot").await.unwrap();
        assert_eq!(world.admin.get("NetworkPolicy", &own, "remit-bot").await.unwrap()["metadata"]["ownerReferences"], Value::Null);
        assert_eq!(world.admin.get("ConfigMap", &own, "remit-bot").await.unwrap()["metadata"]["ownerReferences"], Value::Null);
        let owner = &world.admin.get("Role", &own, &name).await.unwrap()["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["uid"], &owner["controller"]), (&workload["metadata"]["uid"], &json!(true)));
        let away = world.admin.get("Role", &shop, &name).await.unwrap();
        assert_eq!(away["metadata"]["ownerReferences"], Value::Null);
        assert_eq!(away["metadata"]["labels"]["remit.dev/workload-namespace"], own.as_str());

        // The whole status, for tools that wait on it.
        let status = &workload["status"];
        assert_eq!(status["observedGeneration"], workload["metadata"]["generation"]);
        assert!(status["scopeDigest"].is_string());
        let judged: Vec<&str> = status["sources"].as_array().unwrap().iter().map(|s| s["judgedBy"].as_str().unwrap()).collect();
        assert!(judged.contains(&"Permissions") && judged.contains(&"Address"), "{judged:?}");
        let types: Vec<&str> = status["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["Accepted", "Applied", "Ready", "Guarded"], "Reconciling and Stalled are there only while true");
    });
}

#[test]
fn a_namespace_that_is_not_enrolled_gets_nothing_and_is_told_how() {
    run(async {
        let world = world().await;
        let own = world.namespace_with("notenrolled", json!({})).await;
        world.declare(&own, "bot", "").await;
        let message = world.condition(&own, "bot", "Accepted", "False", "NamespaceNotEnrolled").await;
        assert!(message.contains("remit.dev/enrolled=true"), "{message}");
        assert_eq!(world.generated(&own, "bot").await, [""; 0]);
        world.admin.patch("Namespace", "", &own, json!({"metadata": {"labels": {"remit.dev/enrolled": "true"}}})).await.unwrap();
        world.is_ready(&own, "bot").await;
        assert_eq!(world.generated(&own, "bot").await.len(), 3);
        world.admin.patch("Namespace", "", &own, json!({"metadata": {"labels": {"remit.dev/enrolled": null}}})).await.unwrap();
        world.condition(&own, "bot", "Accepted", "False", "NamespaceNotEnrolled").await;
        assert_eq!(world.generated(&own, "bot").await, [""; 0], "the operator removes what it generated");
    });
}

#[test]
fn of_two_that_could_select_one_pod_the_older_governs() {
    run(async {
        let world = world().await;
        let own = world.namespace("conflict").await;
        world.declare(&own, "older", "selector: {matchLabels: {app: bot}}").await;
        world.is_ready(&own, "older").await;
        // Creation times have whole seconds; of equals the smaller name is older.
        world.declare(&own, "younger", "selector: {matchLabels: {tier: ai}}").await;
        let message = world.condition(&own, "younger", "Accepted", "False", "Conflict").await;
        assert!(message.contains("AIWorkload older is older"), "{message}");
        assert_eq!(world.generated(&own, "younger").await, [""; 0]);
        world.is_ready(&own, "older").await;
        world.admin.delete("AIWorkload", &own, "older").await.unwrap();
        world.is_ready(&own, "younger").await;
        assert_eq!(world.generated(&own, "younger").await.len(), 3, "it takes over");
        assert_eq!(world.generated(&own, "older").await, [""; 0]);
    });
}

#[test]
fn one_that_goes_and_holds_nothing_keeps_nobody_from_governing() {
    run(async {
        let world = world().await;
        let own = world.namespace("leaving").await;
        // Kept by somebody's finalizer, and made to enforce only while it goes: it never held anything.
        world.declare(&own, "a-leaving", "mode: Observe\nselector: {matchExpressions: [{key: none, operator: DoesNotExist}]}").await;
        world.condition(&own, "a-leaving", "Ready", "True", "Observed").await;
        world.admin.patch("AIWorkload", &own, "a-leaving", json!({"metadata": {"finalizers": ["example.com/stay"]}})).await.unwrap();
        world.admin.delete("AIWorkload", &own, "a-leaving").await.unwrap();
        world.admin.patch("AIWorkload", &own, "a-leaving", json!({"spec": {"mode": "Enforce"}})).await.unwrap();
        world.declare(&own, "bot", "").await;
        world.is_ready(&own, "bot").await;
        assert!(world.policy(&own, "bot").await.is_some(), "its pods are free");
        world.admin.patch("AIWorkload", &own, "a-leaving", json!({"metadata": {"finalizers": null}})).await.unwrap();
    });
}

#[test]
fn an_older_one_that_begins_to_overlap_does_not_set_pods_free() {
    run(async {
        let world = world().await;
        let own = world.namespace("overlap").await;
        world.service(&own, "db", 5432, json!(5432)).await;
        let sources = "dataSources: [{name: db, type: Service, access: ReadWrite, service: {name: db, port: 5432, protocol: TCP}}]";
        world.declare(&own, "a-older", "selector: {matchLabels: {app: other}}").await;
        world.is_ready(&own, "a-older").await;
        world.declare(&own, "b-younger", &format!("selector: {{matchLabels: {{app: bot}}}}\n{sources}")).await;
        world.is_ready(&own, "b-younger").await;
        let before = world.policy(&own, "b-younger").await.unwrap();
        world.declare(&own, "a-older", "selector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}").await;
        world.condition(&own, "b-younger", "Accepted", "False", "Conflict").await;
        let after = world.policy(&own, "b-younger").await.expect("its pods stay denied");
        assert_eq!(after["podSelector"], before["podSelector"]);
        assert!(["ingress", "egress"].iter().all(|list| after.get(list).and_then(Value::as_array).is_none_or(Vec::is_empty)), "{after}");
        let guards = world.guard_policy(&own, "b-younger").await.expect("its guards are told");
        assert_eq!((&guards["suspended"], &guards["destinations"]), (&json!(true), &json!([])));
        world.declare(&own, "a-older", "selector: {matchLabels: {app: other}}").await;
        world.is_ready(&own, "b-younger").await;
        assert_eq!(world.policy(&own, "b-younger").await.unwrap(), before);
        assert_eq!(world.guard_policy(&own, "b-younger").await.unwrap()["suspended"], false);
    });
}

#[test]
fn a_ceiling_refuses_at_reconcile_and_a_tightened_one_narrows_the_running_plan() {
    run(async {
        let world = world().await;
        let own = world.namespace("ceiling").await;
        let here = json!({"kubernetes.io/metadata.name": own});
        world.service(&own, "cache", 6379, json!(6379)).await;
        let spec = "
dataSources:
- {name: cache, class: Public, type: Service, access: ReadWrite, service: {name: cache, port: 6379, protocol: TCP}}
- {name: help, class: Public, type: Host, access: ReadWrite, host: {name: help.example.com, port: 443}}";
        world.declare(&own, "bot", spec).await;
        let message = world.condition(&own, "bot", "Accepted", "False", "CeilingExceeded").await;
        assert!(message.contains("host help.example.com port 443 needs a ScopeCeiling"), "{message}");
        let egress = |policy: Option<Value>| policy.map(|p| opened(&p)).unwrap_or_default();
        let to_outside = |rules: &[Value]| rules.iter().any(|r| r["to"][0].get("ipBlock").is_some() && r["ports"][0]["port"] == 443);
        let rules = egress(world.policy(&own, "bot").await);
        assert!(!to_outside(&rules) && rules.len() == 1, "the rest stays applied: {rules:?}");

        let both = "unscopedPods: Allow\nclasses: [Public]\nservices: [{name: own, services: ['*']}]\nhosts: [{name: help, host: '*.example.com', ports: [443]}]";
        world.ceiling("tight", here.clone(), both).await;
        world.is_ready(&own, "bot").await;
        let rules = egress(world.policy(&own, "bot").await);
        assert!(to_outside(&rules), "{rules:?}");

        let tightened = "unscopedPods: Allow\nclasses: [Public]\nservices: [{name: own, services: ['*']}]\nhosts: [{name: help, host: '*.example.org', ports: [443]}]";
        let name = world.ceiling("tight", here.clone(), tightened).await;
        let ((), took) = eventually("the running plan is narrowed", || async {
            let rules = egress(world.policy(&own, "bot").await);
            check(!to_outside(&rules) && rules.len() == 1, || format!("{rules:?}"))
        })
        .await;
        println!("a tightened ceiling narrowed the running plan after {took:?}");
        assert!(took < PROMISED, "{took:?}");
        let message = world.condition(&own, "bot", "Accepted", "False", "CeilingExceeded").await;
        assert!(message.contains(&format!("is not within ScopeCeiling {name}")), "{message}");

        // A second one, which the schema lets through and nobody can read: it allows nothing.
        let unreadable = "unscopedPods: Allow\nclasses: [Public]\nservices: [{name: own, services: ['*'], addresses: [nonsense]}]";
        world.ceiling("unreadable", here, unreadable).await;
        eventually("an unreadable ceiling allows nothing", || async {
            let rules = egress(world.policy(&own, "bot").await);
            check(rules.is_empty(), || format!("{rules:?}"))
        })
        .await;
    });
}

#[test]
fn changes_of_a_service_are_followed_within_two_seconds() {
    run(async {
        let world = world().await;
        let own = world.namespace("follow").await;
        world.service(&own, "db", 5432, json!(5432)).await;
        world
            .declare(
                &own,
                "bot",
                "dataSources: [{name: db, type: Service, access: ReadWrite, service: {name: db, port: 5432, protocol: TCP}}]",
            )
            .await;
        world.is_ready(&own, "bot").await;
        let rule = || async { world.policy(&own, "bot").await.unwrap()["egress"][0].take() };
        let mut worst = Duration::ZERO;
        for round in 0..5 {
            let target = json!(6000 + round);
            world.service(&own, "db", 5432, target.clone()).await;
            let ((), took) = eventually("the new target port is followed", || async {
                let rule = rule().await;
                check(rule["ports"][0]["port"] == target, || rule.to_string())
            })
            .await;
            worst = worst.max(took);
            let app = format!("db-{round}");
            world.admin.patch("Service", &own, "db", json!({"spec": {"selector": {"app": app}}})).await.unwrap();
            let ((), took) = eventually("the new selector is followed", || async {
                let rule = rule().await;
                check(rule["to"][0]["podSelector"]["matchLabels"]["app"] == app, || rule.to_string())
            })
            .await;
            worst = worst.max(took);
        }
        println!("changes of a Service: 10 followed, the slowest after {worst:?}");
        assert!(worst < PROMISED, "{worst:?}");

        world.admin.delete("Service", &own, "db").await.unwrap();
        eventually("without the Service nothing is open", || async {
            let policy = world.policy(&own, "bot").await.unwrap();
            check(opened(&policy).is_empty(), || policy.to_string())
        })
        .await;
        let message = world.condition(&own, "bot", "Accepted", "False", "NotFound").await;
        assert!(message.contains("does not exist (yet)"), "{message}");
        let external = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": own}, "spec": {"type": "ExternalName", "externalName": "evil.example.com"}});
        world.admin.apply(external).await.unwrap();
        let message = world.condition(&own, "bot", "Accepted", "False", "ExternalName").await;
        assert!(message.contains("declare a source of type Host instead"), "{message}");
    });
}

#[test]
fn changes_of_slices_nodes_and_service_ranges_are_followed_within_two_seconds() {
    run(async {
        // A world of its own: what a Node adds would be written into the policies of the other tests.
        let world = World::new("facts").await;
        let _operator = world.operator().await;
        let own = world.namespace("facts").await;
        let ceiling = "unscopedPods: Allow
classes: [Public, Internal, Restricted]
hosts: [{name: help, host: help.example.com, ports: [443]}]
services: [{name: own, services: ['*'], addresses: [203.0.113.16/28]}]";
        world.ceiling("facts", json!({"kubernetes.io/metadata.name": own}), ceiling).await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": own}, "spec": {"ports": [{"name": "main", "port": 5432}]}});
        let slice = |address: &str| {
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": "db-1", "namespace": own, "labels": {"kubernetes.io/service-name": "db"}},
                "addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": [{"name": "main", "port": 5432, "protocol": "TCP"}],
            })
        };
        for object in [service, slice("203.0.113.17")] {
            world.admin.apply(object).await.unwrap();
        }
        let spec = "
dataSources:
- {name: db, class: Public, type: Service, access: ReadWrite, service: {name: db, port: 5432, protocol: TCP}}
- {name: help, class: Public, type: Host, access: ReadWrite, host: {name: help.example.com, port: 443}}";
        world.declare(&own, "bot", spec).await;
        world.is_ready(&own, "bot").await;

        let blocks = || async {
            let policy = world.policy(&own, "bot").await.unwrap_or_default();
            let rules = policy["egress"].as_array().cloned().unwrap_or_default();
            let peers = rules.iter().flat_map(|rule| rule["to"].as_array().cloned().unwrap_or_default());
            peers.map(|mut peer| peer["ipBlock"].take()).filter(|block| !block.is_null()).collect::<Vec<_>>()
        };
        let followed = async |what: &str, change: Value, holds: &dyn Fn(&[Value]) -> bool| {
            assert!(!holds(&blocks().await), "{what}: before it happened");
            world.admin.apply(change).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            let ((), took) = eventually(what, || async {
                let blocks = blocks().await;
                check(holds(&blocks), || format!("{blocks:?}"))
            })
            .await;
            println!("{what}: followed after {took:?}");
            assert!(took < PROMISED, "{what}: {took:?}");
        };
        let opened = |blocks: &[Value], block: &str| blocks.iter().any(|b| b["cidr"] == block);
        let excepted =
            |blocks: &[Value], block: &str| blocks.iter().any(|b| b["except"].as_array().is_some_and(|e| e.contains(&json!(block))));

        followed("a slice's new address", slice("203.0.113.18"), &|blocks| {
            opened(blocks, "203.0.113.18/32") && !opened(blocks, "203.0.113.17/32")
        })
        .await;

        // Whoever writes a slice chooses its labels.
        let declared = async |source: &str| {
            let map = world.guard_policy(&own, "bot").await.unwrap_or_default();
            map["destinations"].as_array().into_iter().flatten().any(|destination| destination["source"] == source)
        };
        assert!(declared("db").await && declared("help").await);
        let mut disguised = slice("203.0.113.99");
        disguised["metadata"]["name"] = json!("db-2");
        disguised["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("endpointslice-controller.k8s.io");
        world.admin.apply(disguised).await.unwrap();
        let message = world.condition(&own, "bot", "Accepted", "False", "AddressNotAllowed").await;
        assert!(message.contains("203.0.113.99:5432"), "{message}");
        eventually("no guard connects to the Service", || async {
            check(!declared("db").await && declared("help").await, || "it still does".to_owned())
        })
        .await;
        world.admin.delete("EndpointSlice", &own, "db-2").await.unwrap();
        world.is_ready(&own, "bot").await;

        // Named like everything of this world: its proxy shows them to nobody else's operator.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": world.name("node")}, "spec": {"podCIDR": "192.0.2.0/28", "podCIDRs": ["192.0.2.0/28"]}});
        followed("a Node's pod range", node, &|blocks| excepted(blocks, "192.0.2.0/28")).await;

        // Of IPv6 only: the API server takes addresses of new Services from every range, and those of the tests are IPv4.
        let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": world.name("range")}, "spec": {"cidrs": ["2001:db8:5c::/112"]}});
        followed("a ServiceCIDR", range, &|blocks| excepted(blocks, "2001:db8:5c::/112")).await;

        for (kind, short, block) in [("Node", "node", "192.0.2.0/28"), ("ServiceCIDR", "range", "2001:db8:5c::/112")] {
            world.admin.delete(kind, "", &world.name(short)).await.unwrap();
            eventually("what is gone is the outside again", || async {
                let blocks = blocks().await;
                check(!excepted(&blocks, block), || format!("{kind}: {blocks:?}"))
            })
            .await;
        }
    });
}

#[test]
fn a_foreign_object_of_a_generated_name_is_refused_and_never_adopted() {
    run(async {
        let world = world().await;
        for kind in ["NetworkPolicy", "ConfigMap", "ServiceAccount", "Role", "RoleBinding"] {
            let own = world.namespace(&format!("taken{}", kind.to_lowercase())).await;
            let role = format!("remit.{own}.bot");
            let (version, name, content) = match kind {
                "NetworkPolicy" => {
                    ("networking.k8s.io/v1", "remit-bot", json!({"spec": {"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]}}))
                }
                "ConfigMap" => ("v1", "remit-bot", json!({"data": {"policy.note": "anything"}})),
                "ServiceAccount" => ("v1", "bot", json!({"automountServiceAccountToken": true})),
                "Role" => (
                    "rbac.authorization.k8s.io/v1",
                    role.as_str(),
                    json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}),
                ),
                _ => (
                    "rbac.authorization.k8s.io/v1",
                    role.as_str(),
                    json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}}),
                ),
            };
            let mut foreign = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": own}});
            for (key, value) in content.as_object().unwrap() {
                foreign[key] = value.clone();
            }
            let before = world.admin.create(foreign).await.unwrap();
            world.declare(&own, "bot", CONFIGMAPS).await;
            let message = world.condition(&own, "bot", "Applied", "False", "NameTaken").await;
            assert!(message.contains(&format!("{kind} {own}/{name} is there already and is not Remit's")), "{message}");
            assert_eq!(message.contains("its guards do not get their policy"), kind == "ConfigMap", "{message}");
            let after = world.admin.get(kind, &own, name).await.unwrap();
            assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"], "{kind}: it was not touched");
            let denying = match kind {
                "NetworkPolicy" => Some("ConfigMap"),
                "ConfigMap" => Some("NetworkPolicy"),
                _ => None,
            };
            if let Some(other) = denying {
                assert_eq!(
                    world.generated(&own, "bot").await,
                    [format!("{other} {own}/remit-bot")],
                    "what cannot be denied is not granted"
                );
            }
            // Deleting the AIWorkload leaves it alone as well.
            world.admin.delete("AIWorkload", &own, "bot").await.unwrap();
            eventually("the AIWorkload goes", || async {
                check(world.admin.get("AIWorkload", &own, "bot").await.is_none(), || "still there".into())
            })
            .await;
            let after = world.admin.get(kind, &own, name).await.unwrap_or_else(|| panic!("{kind}: it was deleted"));
            assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"], "{kind}: it was not touched");
        }
    });
}

#[test]
fn an_account_that_somebody_made_under_the_name_of_our_field_manager_is_not_adopted() {
    run(async {
        let world = world().await;
        let own = world.namespace("mimic").await;
        let role = format!("remit.{own}.bot");
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": false,
            "metadata": {"name": "bot", "namespace": own, "annotations": {"cloud.example.com/role": "admin"}},
        });
        // Bound to another account, until then.
        let cloudy = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "cloudy", "namespace": own}});
        world.admin.create(cloudy).await.unwrap();
        world.declare(&own, "bot", &format!("identity: {{serviceAccountName: cloudy}}\n{CONFIGMAPS}")).await;
        world.is_ready(&own, "bot").await;
        let before = world.admin.apply_as("remit", account).await.unwrap();
        world.declare(&own, "bot", CONFIGMAPS).await;
        let message = world.condition(&own, "bot", "Applied", "False", "NameTaken").await;
        assert!(message.contains(&format!("ServiceAccount {own}/bot is there already and is not Remit's")), "{message}");
        let after = world.admin.get("ServiceAccount", &own, "bot").await.unwrap();
        assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"], "it was not touched");
        let binding = || world.admin.get("RoleBinding", &own, &role);
        assert!(binding().await.is_none(), "somebody else's account is granted nothing");
        assert!(world.policy(&own, "bot").await.is_some(), "its pods are denied all the same");
        world.admin.delete("ServiceAccount", &own, "bot").await.unwrap();
        world.is_ready(&own, "bot").await;
        assert_eq!(binding().await.expect("bound")["subjects"], json!([{"kind": "ServiceAccount", "name": "bot", "namespace": own}]));
    });
}

#[test]
fn a_policy_that_the_api_server_refuses_is_written_empty() {
    run(async {
        let world = world().await;
        let own = world.namespace("refused").await;
        for (service, port) in [("db", 5432), ("cache", 6379)] {
            world.service(&own, service, port, json!(port)).await;
        }
        let spec = |service: &str, port: u16| {
            format!(
                "dataSources:
- {{name: one, type: Service, access: ReadWrite, service: {{name: {service}, port: {port}, protocol: TCP}}}}
- {{name: settings, type: Kubernetes, kubernetes: {{apiGroups: [''], resources: [configmaps]}}}}"
            )
        };
        world.declare(&own, "older", &spec("db", 5432)).await;
        world.is_ready(&own, "older").await;

        // Validation knows no plan that the API server would not take, so the cluster's own rules refuse it, with the same 422.
        let name = world.name("no-egress");
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "resources": ["networkpolicies"], "operations": ["CREATE", "UPDATE"],
                }]},
                "validations": [{"expression": "!has(object.spec.egress) || object.spec.egress.size() == 0", "reason": "Invalid"}],
            },
        });
        let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": own}}});
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": here},
        });
        for object in [policy, binding] {
            world.admin.apply(object).await.unwrap();
        }
        let probe = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "probe", "namespace": own},
            "spec": {"podSelector": {}, "egress": [{}]},
        });
        let path = format!("{}?dryRun=All", crate::support::kind("NetworkPolicy").path(&own, ""));
        eventually("the rule is in force", || async {
            let answer = world.admin.request("POST", &path, None, Some(&probe)).await;
            check(answer.as_ref().is_err_and(|refused| refused.code == 422), || format!("{answer:?}"))
        })
        .await;

        world.declare(&own, "older", &spec("cache", 6379)).await;
        world.declare(&own, "newer", &spec("cache", 6379)).await;
        for bot in ["older", "newer"] {
            let message = world.condition(&own, bot, "Applied", "False", "WriteFailed").await;
            assert!(message.contains(&format!("NetworkPolicy {own}/remit-{bot}")) && message.contains(&name), "{message}");
            let policy = world.policy(&own, bot).await.unwrap_or_else(|| panic!("{bot}: its pods are open"));
            assert_eq!(policy["podSelector"], json!({"matchLabels": {"app": bot}}));
            assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
            assert!(policy.get("egress").is_none_or(|rules| *rules == json!([])), "{bot}: {policy}");
        }
        let denying = [format!("NetworkPolicy {own}/remit-newer"), format!("ConfigMap {own}/remit-newer")];
        assert_eq!(world.generated(&own, "newer").await, denying, "and nothing is granted");

        for kind in ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"] {
            world.admin.delete(kind, "", &name).await.unwrap();
        }
        for bot in ["older", "newer"] {
            world.is_ready(&own, bot).await;
            let policy = world.policy(&own, bot).await.unwrap();
            assert!(policy["egress"].as_array().is_some_and(|rules| rules.iter().any(|r| r["ports"][0]["port"] == 6379)), "{policy}");
        }
    });
}

#[test]
fn observe_writes_nothing_that_denies_and_leaving_enforce_removes() {
    run(async {
        let world = world().await;
        let own = world.namespace("observe").await;
        world.declare(&own, "bot", &format!("mode: Observe\n{CONFIGMAPS}")).await;
        world.condition(&own, "bot", "Ready", "True", "Observed").await;
        let guards = [format!("ConfigMap {own}/remit-bot")];
        assert_eq!(world.generated(&own, "bot").await, guards);
        assert_eq!(world.guard_policy(&own, "bot").await.unwrap()["mode"], "Observe");
        let tally = [("apply configmaps".to_owned(), 1), ("apply aiworkloads/status".to_owned(), 1)];
        assert_eq!(world.tally_in(&[&own]), tally.into(), "what tells the guards to record, one status, nothing else");
        world.declare(&own, "bot", CONFIGMAPS).await;
        world.condition(&own, "bot", "Ready", "True", "Held").await;
        assert_eq!(world.generated(&own, "bot").await.len(), 5);
        assert_eq!(world.guard_policy(&own, "bot").await.unwrap()["mode"], "Enforce");
        world.declare(&own, "bot", &format!("mode: Observe\n{CONFIGMAPS}")).await;
        world.condition(&own, "bot", "Ready", "True", "Observed").await;
        assert_eq!(world.generated(&own, "bot").await, guards);
        assert_eq!(world.guard_policy(&own, "bot").await.unwrap()["mode"], "Observe");
    });
}

#[test]
fn suspend_denies_everything_and_resuming_restores_it() {
    run(async {
        let world = world().await;
        let own = world.namespace("suspend").await;
        world.service(&own, "db", 5432, json!(5432)).await;
        let spec = "
dataSources:
- {name: db, type: Service, access: ReadWrite, service: {name: db, port: 5432, protocol: TCP}}
- {name: settings, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [configmaps]}}
capabilities: {clients: [{name: any, podSelector: {}, port: 80}]}";
        world.declare(&own, "bot", spec).await;
        world.is_ready(&own, "bot").await;
        let before = world.policy(&own, "bot").await.unwrap();
        let role = format!("remit.{own}.bot");
        let rules = world.admin.get("Role", &own, &role).await.unwrap()["rules"].take();
        let empty = |list: Option<&Value>| list.and_then(Value::as_array).is_none_or(Vec::is_empty);

        world.declare(&own, "bot", &format!("suspend: true\n{spec}")).await;
        let ((), took) = eventually("everything is denied", || async {
            let policy = world.policy(&own, "bot").await.ok_or("no policy")?;
            let role = world.admin.get("Role", &own, &role).await.ok_or("no Role")?;
            check(opened(&policy).is_empty() && empty(policy.get("ingress")) && empty(role.get("rules")), || format!("{policy} {role}"))
        })
        .await;
        println!("suspend held after {took:?}");
        assert_eq!(world.guard_policy(&own, "bot").await.unwrap()["suspended"], true);
        assert!(took < PROMISED, "{took:?}");
        let message = world.condition(&own, "bot", "Accepted", "True", "Valid").await;
        assert!(message.contains("Suspended"), "{message}");

        world.declare(&own, "bot", spec).await;
        world.is_ready(&own, "bot").await;
        assert_eq!(world.policy(&own, "bot").await.unwrap(), before);
        assert_eq!(world.admin.get("Role", &own, &role).await.unwrap()["rules"].take(), rules);
    });
}

/// What is left while pods of a deleted workload run: policies that allow nothing, and no grant.
async fn denied_and_waiting(world: &World, namespace: &str) -> Result<(), String> {
    let workload = world.admin.get("AIWorkload", namespace, "bot").await.ok_or("the AIWorkload is gone")?;
    check(workload["metadata"]["deletionTimestamp"].is_string(), || "it is not being deleted".into())?;
    let policy = world.policy(namespace, "bot").await.ok_or("the policy is gone")?;
    let nothing = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    check(opened(&policy).is_empty() && nothing(&policy["ingress"]), || policy.to_string())?;
    check(policy["policyTypes"] == json!(["Ingress", "Egress"]), || policy.to_string())?;
    let left = world.generated(namespace, "bot").await;
    check(left == [format!("NetworkPolicy {namespace}/remit-bot"), format!("ConfigMap {namespace}/remit-bot")], || format!("{left:?}"))?;
    let guards = world.guard_policy(namespace, "bot").await.ok_or("the guards' policy is gone")?;
    let same = guards["workload"]["uid"] == workload["metadata"]["uid"] && guards["mode"] == "Enforce";
    check(same && guards["suspended"] == true, || guards.to_string())
}

#[test]
fn deletion_keeps_pods_denied_until_they_are_gone() {
    run(async {
        let world = world().await;
        let (own, shop) = (world.namespace("delpods").await, world.namespace("delshop").await);
        wide(world, &own, &shop).await;
        let spec = format!(
            "dataSources: [{{name: orders, type: Kubernetes, kubernetes: {{apiGroups: [shop.example.com], resources: [orders], namespace: {shop}}}}}]"
        );
        world.declare(&own, "bot", &spec).await;
        world.is_ready(&own, "bot").await;
        assert_eq!(world.generated(&own, "bot").await.len(), 5);
        world.pod(&own, "bot-1", json!({"app": "bot"})).await;
        world.pod(&own, "other", json!({"app": "other"})).await;
        world.admin.delete("AIWorkload", &own, "bot").await.unwrap();
        eventually("grants are gone and nothing is open", || denied_and_waiting(world, &own)).await;
        always(Duration::from_secs(3), "it stays so while the pod is there", || denied_and_waiting(world, &own)).await;
        let message = world.condition(&own, "bot", "Ready", "False", "Waiting").await;
        assert!(message.contains("remit.dev/release"), "{message}");
        world.admin.delete("Pod", &own, "bot-1").await.unwrap();
        eventually("the AIWorkload goes with its last pod", || async {
            check(world.admin.get("AIWorkload", &own, "bot").await.is_none(), || "it is still there".into())
        })
        .await;
        assert_eq!(world.generated(&own, "bot").await, [""; 0]);
    });
}

#[test]
fn deletion_of_the_loser_of_a_conflict_keeps_its_pods_denied_as_well() {
    run(async {
        let world = world().await;
        let own = world.namespace("delloser").await;
        world.declare(&own, "a-older", "selector: {matchLabels: {app: other}}").await;
        world.is_ready(&own, "a-older").await;
        world.declare(&own, "bot", CONFIGMAPS).await;
        world.is_ready(&own, "bot").await;
        world.pod(&own, "bot-1", json!({"app": "bot"})).await;
        world.declare(&own, "a-older", "selector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}").await;
        world.condition(&own, "bot", "Accepted", "False", "Conflict").await;
        world.admin.delete("AIWorkload", &own, "bot").await.unwrap();
        world.condition(&own, "bot", "Ready", "False", "Waiting").await;
        // Whatever the older one does meanwhile: it may govern other pods again.
        always(Duration::from_secs(3), "it stays so while the pod is there", || denied_and_waiting(world, &own)).await;
        world.admin.delete("Pod", &own, "bot-1").await.unwrap();
        eventually("the AIWorkload goes with its last pod", || async {
            check(world.admin.get("AIWorkload", &own, "bot").await.is_none(), || "it is still there".into())
        })
        .await;
        assert_eq!(world.generated(&own, "bot").await, [""; 0]);
    });
}

#[test]
fn deletion_in_the_foreground_keeps_pods_denied_as_well() {
    run(async {
        let world = world().await;
        let own = world.namespace("delforeground").await;
        world.declare(&own, "bot", CONFIGMAPS).await;
        world.is_ready(&own, "bot").await;
        world.pod(&own, "bot-1", json!({"app": "bot"})).await;
        let path = format!("{}?propagationPolicy=Foreground", crate::support::kind("AIWorkload").path(&own, "bot"));
        world.admin.request("DELETE", &path, None, None).await.unwrap();
        eventually("grants are gone and nothing is open", || denied_and_waiting(world, &own)).await;
        // The garbage collector removes first what is owned: the policy must not be.
        always(Duration::from_secs(4), "it stays so while the pod is there", || denied_and_waiting(world, &own)).await;
        world.admin.delete("Pod", &own, "bot-1").await.unwrap();
        eventually("the AIWorkload goes", || async {
            check(world.admin.get("AIWorkload", &own, "bot").await.is_none(), || "still there".into())
        })
        .await;
    });
}

#[test]
fn the_release_annotation_sets_pods_free_at_once() {
    run(async {
        let world = world().await;
        let own = world.namespace("delrelease").await;
        world.declare(&own, "bot", CONFIGMAPS).await;
        world.is_ready(&own, "bot").await;
        world.pod(&own, "bot-1", json!({"app": "bot"})).await;
        world.admin.delete("AIWorkload", &own, "bot").await.unwrap();
        eventually("it waits", || denied_and_waiting(world, &own)).await;
        world.admin.patch("AIWorkload", &own, "bot", json!({"metadata": {"annotations": {"remit.dev/release": "true"}}})).await.unwrap();
        eventually("the AIWorkload goes", || async {
            check(world.admin.get("AIWorkload", &own, "bot").await.is_none(), || "still there".into())
        })
        .await;
        assert_eq!(world.generated(&own, "bot").await, [""; 0]);
        assert!(world.admin.get("Pod", &own, "bot-1").await.is_some(), "the pod is left alone");
    });
}

#[test]
fn a_namespace_can_be_deleted_with_everything_in_it() {
    run(async {
        let world = world().await;
        let (own, shop) = (world.namespace("nsgone").await, world.namespace("nsshop").await);
        wide(world, &own, &shop).await;
        let spec = format!(
            "dataSources: [{{name: orders, type: Kubernetes, kubernetes: {{apiGroups: [shop.example.com], resources: [orders], namespace: {shop}}}}}]"
        );
        world.declare(&own, "bot", &spec).await;
        world.declare(&own, "watcher", "mode: Observe").await;
        world.is_ready(&own, "bot").await;
        world.pod(&own, "bot-1", json!({"app": "bot"})).await;
        world.admin.delete("Namespace", "", &own).await.unwrap();
        let ((), took) = eventually_within(Duration::from_secs(120), "the namespace goes", || async {
            let namespace = world.admin.get("Namespace", "", &own).await;
            check(namespace.is_none(), || namespace.unwrap()["status"].to_string())
        })
        .await;
        println!("a namespace with pods and AIWorkloads was gone after {took:?}");
        eventually("nothing of it is left elsewhere", || async {
            let left = world.generated(&own, "bot").await;
            check(left.is_empty(), || format!("{left:?}"))
        })
        .await;
    });
}

#[test]
fn an_identity_of_ones_own_is_kept_and_bound() {
    run(async {
        let world = world().await;
        let own = world.namespace("identity").await;
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "cloudy", "namespace": own, "annotations": {"cloud.example.com/role": "reader"}}});
        let before = world.admin.create(account).await.unwrap();
        world.declare(&own, "bot", &format!("identity: {{serviceAccountName: cloudy}}\n{CONFIGMAPS}")).await;
        world.is_ready(&own, "bot").await;
        let name = format!("remit.{own}.bot");
        let subjects = world.admin.get("RoleBinding", &own, &name).await.unwrap()["subjects"].take();
        assert_eq!(subjects, json!([{"kind": "ServiceAccount", "name": "cloudy", "namespace": own}]));
        assert!(world.admin.get("ServiceAccount", &own, "bot").await.is_none(), "none is generated");
        let after = world.admin.get("ServiceAccount", &own, "cloudy").await.unwrap();
        assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"], "it is kept as it is");
        // From a given identity to a generated one: the binding follows.
        world.declare(&own, "bot", CONFIGMAPS).await;
        world.is_ready(&own, "bot").await;
        let subjects = world.admin.get("RoleBinding", &own, &name).await.unwrap()["subjects"].take();
        assert_eq!(subjects, json!([{"kind": "ServiceAccount", "name": "bot", "namespace": own}]));
        assert!(world.admin.get("ServiceAccount", &own, "cloudy").await.is_some(), "and the given one stays");
    });
}

#[test]
fn unscoped_pods_are_isolated_where_a_ceiling_says_so() {
    run(async {
        let world = world().await;
        let own = world.namespace("unscoped").await;
        let policy = || async { world.admin.get("NetworkPolicy", &own, "remit.unscoped").await.map(|mut p| p["spec"].take()) };
        let here = json!({"kubernetes.io/metadata.name": own});
        world.ceiling("isolating", here.clone(), "unscopedPods: Isolate").await;
        let (spec, _) = eventually("the policy appears", || async { policy().await.ok_or("not there".to_owned()) }).await;
        assert_eq!(spec["podSelector"], json!({}), "every pod");
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        assert!(["ingress", "egress"].iter().all(|d| spec[d].as_array().is_none_or(Vec::is_empty)), "{spec}");

        world.declare(&own, "watched", "mode: Observe\nselector: {matchLabels: {app: watched}}").await;
        let excluded = json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["watched"]}]});
        eventually("pods of an Observe workload are left as they are", || async {
            let spec = policy().await.ok_or("gone")?;
            check(spec["podSelector"] == excluded, || spec.to_string())
        })
        .await;
        world.admin.delete("AIWorkload", &own, "watched").await.unwrap();
        eventually("and no longer when it is gone", || async {
            let spec = policy().await.ok_or("gone")?;
            check(spec["podSelector"] == json!({}), || spec.to_string())
        })
        .await;
        world.ceiling("isolating", here, "unscopedPods: Allow").await;
        eventually("the policy goes", || async { check(policy().await.is_none(), || "still there".into()) }).await;
    });
}

#[test]
fn permissions_in_other_namespaces_come_and_go_with_the_declaration() {
    run(async {
        let world = world().await;
        let (own, shop, stock) =
            (world.namespace("crossbot").await, world.namespace("crossshop").await, world.namespace("crossstock").await);
        wide(world, &own, &shop).await;
        let orders = |namespace: &str| {
            format!(
                "dataSources: [{{name: orders, type: Kubernetes, kubernetes: {{apiGroups: [shop.example.com], resources: [orders], namespace: {namespace}}}}}]"
            )
        };
        world.declare(&own, "bot", &orders(&shop)).await;
        world.is_ready(&own, "bot").await;
        let name = format!("remit.{own}.bot");
        assert!(world.admin.get("Role", &shop, &name).await.is_some());
        // The ceiling does not name this one.
        world.declare(&own, "bot", &orders(&stock)).await;
        world.condition(&own, "bot", "Accepted", "False", "CeilingExceeded").await;
        for (kind, namespace) in [("Role", &shop), ("RoleBinding", &shop), ("Role", &stock), ("RoleBinding", &stock)] {
            assert!(world.admin.get(kind, namespace, &name).await.is_none(), "{kind} in {namespace}");
        }
        world.declare(&own, "bot", &orders(&shop)).await;
        world.is_ready(&own, "bot").await;
        world.admin.delete("AIWorkload", &own, "bot").await.unwrap();
        eventually("all of it goes with the AIWorkload", || async {
            let left = world.generated(&own, "bot").await;
            check(left.is_empty(), || format!("{left:?}"))
        })
        .await;
    });
}

#[test]
fn the_longest_names_are_applied() {
    run(async {
        let world = world().await;
        let short = "l".repeat(63 - world.name("").len());
        let own = world.namespace(&short).await;
        assert_eq!(own.len(), 63);
        let name = "n".repeat(52);
        world.declare(&own, &name, CONFIGMAPS).await;
        world.is_ready(&own, &name).await;
        assert_eq!(world.generated(&own, &name).await.len(), 5);
    });
}

#[test]
fn what_may_not_be_handed_out_is_refused_by_the_api_server_and_said() {
    run(async {
        let world = world().await;
        let own = world.namespace("notgrantable").await;
        let here = json!({"kubernetes.io/metadata.name": own});
        let ceiling = "unscopedPods: Allow\nclasses: [Restricted]\nservices: [{name: own, services: ['*']}]\nkubernetes: [{name: k, apiGroups: ['', events.k8s.io], resources: [configmaps, events], access: ReadWrite}]";
        world.ceiling("grantable", here, ceiling).await;
        world
            .declare(
                &own,
                "bot",
                "dataSources: [{name: events, type: Kubernetes, kubernetes: {apiGroups: [events.k8s.io], resources: [events]}}]",
            )
            .await;
        let message = world.condition(&own, "bot", "Applied", "False", "NotGrantable").await;
        assert!(message.contains("remit-grantable") && message.contains("attempting to grant"), "{message}");
        let role = format!("remit.{own}.bot");
        let nothing = |role: Option<Value>| role.is_none_or(|r| r["rules"].as_array().is_none_or(Vec::is_empty));
        assert!(nothing(world.admin.get("Role", &own, &role).await), "nothing is granted");

        // The way down from what was granted works, also where the operator may not grant the new content.
        world.declare(&own, "bot", CONFIGMAPS).await;
        world.is_ready(&own, "bot").await;
        world.admin.delete("RoleBinding", &own, "remit-grantable").await.unwrap();
        world.declare(&own, "bot", "dataSources: [{name: one, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [configmaps], resourceNames: [one]}}]").await;
        world.condition(&own, "bot", "Applied", "False", "NotGrantable").await;
        assert!(nothing(world.admin.get("Role", &own, &role).await), "a Role that may not be narrowed is emptied");
    });
}

#[test]
fn steady_state_writes_nothing_also_over_a_restart() {
    run(async {
        let world = World::new("steady").await;
        let operator = world.operator().await;
        let (own, shop) = (world.namespace("bots").await, world.namespace("shop").await);
        wide(&world, &own, &shop).await;
        world.ceiling("isolating", json!({"kubernetes.io/metadata.name": shop}), "unscopedPods: Isolate").await;
        world.service(&shop, "orders", 5432, json!(5432)).await;
        let spec = format!(
            "dataSources:
- {{name: db, type: Service, access: ReadWrite, service: {{name: orders, namespace: {shop}, port: 5432, protocol: TCP}}}}
- {{name: orders, type: Kubernetes, kubernetes: {{apiGroups: [shop.example.com], resources: [orders], namespace: {shop}}}}}"
        );
        for n in 0..5 {
            world.declare(&own, &format!("bot-{n}"), &spec).await;
        }
        world
            .declare(
                &own,
                "gone",
                "dataSources: [{name: none, type: Service, access: ReadWrite, service: {name: none, port: 1, protocol: TCP}}]",
            )
            .await;
        world.declare(&own, "twin", "selector: {matchLabels: {app: bot-0}}").await;
        world.pod(&own, "dying-1", json!({"app": "dying"})).await;
        world.declare(&own, "dying", "").await;
        for n in 0..5 {
            world.is_ready(&own, &format!("bot-{n}")).await;
        }
        world.condition(&own, "gone", "Accepted", "False", "NotFound").await;
        world.condition(&own, "twin", "Accepted", "False", "Conflict").await;
        world.is_ready(&own, "dying").await;
        world.admin.delete("AIWorkload", &own, "dying").await.unwrap();
        world.condition(&own, "dying", "Ready", "False", "Waiting").await;
        eventually("the isolation is there", || async {
            world.admin.get("NetworkPolicy", &shop, "remit.unscoped").await.map(drop).ok_or("not yet".to_owned())
        })
        .await;

        let quiet = async |period| {
            always(Duration::from_secs(period), "nothing to do, nothing written", || async {
                let writes = world_writes(&world);
                check(writes.is_empty(), || format!("{writes:?}"))
            })
            .await;
        };
        world.proxy.clear();
        quiet(10).await;
        operator.kill();
        let operator = world.operator().await;
        assert!(operator.metric("remit_leader", &[]).await.is_some());
        // What it reads once at the start has been read when every kind was listed and it leads.
        eventually("the new process leads", || async {
            let leads = operator.metric("remit_leader", &[]).await;
            check(leads == Some(1.0), || format!("{leads:?}"))
        })
        .await;
        quiet(10).await;
    });
}

fn world_writes(world: &World) -> Vec<String> {
    world.proxy.writes().iter().map(|s| format!("{:?} {} {}/{} {}", s.verb, s.resource, s.namespace, s.name, s.code)).collect()
}
