//! Pods without a guard are replaced one by one where the AIWorkload says so. Needs the API tier: its controllers make pods anew, and the
//! test plays the kubelet.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{World, always, check, eventually, run};

struct Bots<'a> {
    world: &'a World,
    namespace: String,
}

impl Bots<'_> {
    /// Those that stay, with a guard or without.
    async fn pods(&self, guarded: bool) -> BTreeSet<String> {
        let pods = self.world.admin.list("Pod", &self.namespace, "app=bot").await;
        let has = |pod: &Value| pod["spec"]["initContainers"].as_array().into_iter().flatten().any(|c| c["name"] == "remit-guard");
        let stays = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && has(pod) == guarded);
        stays.map(|pod| pod["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    }

    async fn are(&self, without: usize, with: usize) {
        eventually(&format!("{without} without a guard, {with} with one"), || async {
            let (old, new) = (self.pods(false).await, self.pods(true).await);
            check((old.len(), new.len()) == (without, with), || format!("{old:?} {new:?}"))
        })
        .await;
    }

    /// As the kubelet would say.
    async fn run(&self, pods: &BTreeSet<String>) {
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        for pod in pods {
            self.world.admin.patch_status("Pod", &self.namespace, pod, status.clone()).await.expect("a pod's status");
        }
    }

    async fn says(&self, words: &str) {
        eventually(words, || async {
            let bot = self.world.admin.get("AIWorkload", &self.namespace, "bot").await.ok_or("gone")?;
            let conditions = bot["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let guarded = conditions.into_iter().find(|c| c["type"] == "Guarded").unwrap_or_default();
            check(guarded["message"].as_str().is_some_and(|message| message.contains(words)), || bot["status"].to_string())
        })
        .await;
    }
}

#[test]
fn pods_without_a_guard_are_replaced_one_by_one() {
    run(async {
        let world = &World::new("replace").await;
        let config = world.admission_of_pods().await;
        let operator = world.operator_with(&world.proxy, config.clone()).await;
        let bots = Bots { world, namespace: world.namespace("own").await };
        let own = &bots.namespace;
        let metadata = |name: &str| json!({"name": name, "namespace": own});
        let labels = json!({"app": "bot"});
        let container = json!({"name": "main", "image": "none.example.com/none:1", "securityContext": {"runAsUser": 1000}});
        let spec = json!({"replicas": 3, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}}});
        world
            .admin
            .create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": metadata("bot"), "spec": spec}))
            .await
            .unwrap();
        bots.are(3, 0).await;
        bots.run(&bots.pods(false).await).await;
        let budget = json!({"minAvailable": 3, "selector": {"matchLabels": labels}});
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata("bot"), "spec": budget});
        world.admin.create(budget).await.unwrap();

        // They stay where nothing else is said.
        world.declare(own, "bot", "{}").await;
        bots.says("restart them").await;
        // The admin has not allowed it here.
        world.declare(own, "bot", "unguardedPods: Evict").await;
        bots.says("the operator may not evict pods here").await;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata("remit-evict"),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "remit-evict"},
            "subjects": [{"kind": "ServiceAccount", "name": "remit", "namespace": world.system()}],
        });
        world.admin.create(binding).await.unwrap();
        bots.says("cannot be evicted yet: Cannot evict pod as it would violate the pod's disruption budget").await;
        bots.are(3, 0).await;
        world.admin.delete("PodDisruptionBudget", own, "bot").await.unwrap();

        bots.are(2, 1).await;
        let new = bots.pods(true).await.pop_first().expect("one");
        bots.says(&format!("the next when {new}, which has a guard, is ready")).await;
        // An operator that begins anew knows how far it was.
        operator.kill();
        let operator = world.operator_with(&world.proxy, config).await;
        bots.says(&new).await;
        // Nor is a replacement that is gone again a reason to go on.
        always(Duration::from_secs(3), "one is missing at most", || async {
            let old = bots.pods(false).await;
            check(old.len() == 2, || format!("{old:?}"))
        })
        .await;
        for without in [1, 0] {
            bots.run(&bots.pods(true).await).await;
            bots.are(without, 3 - without).await;
        }
        bots.says("look at the logs of their container remit-guard").await;
        let bot = world.admin.get("AIWorkload", own, "bot").await.expect("still there");
        assert_eq!(bot["status"]["pods"]["replacing"], Value::Null);
        let events: Vec<Value> = world.admin.list("Event", own, "").await.into_iter().filter(|e| e["reason"] == "PodEvicted").collect();
        assert_eq!(events.len(), 3, "{events:?}");
        drop(operator);
    });
}
