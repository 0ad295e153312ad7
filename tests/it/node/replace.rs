//! Pods that are older than their AIWorkload get a guard where it says so, while the service stays up.

use std::time::Duration;

use super::{Namespace, RESTRICTED, eventually, installed};

#[test]
fn older_pods_are_replaced_while_the_service_stays_up() {
    let (cluster, _installed) = installed();
    let support = Namespace::enrolled("replace");
    let ns = &support.name;
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "remit-evict",
        "-n",
        ns,
        "--clusterrole=remit-evict",
        "--serviceaccount=remit-system:remit",
    ]);
    cluster.apply(&format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: support-bot, namespace: {ns}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: support-bot}}}}
  template:
    metadata: {{labels: {{app: support-bot}}}}
    spec:
      terminationGracePeriodSeconds: 1
      automountServiceAccountToken: false
      containers:
      - name: main
        image: remit.test/probe:1
        imagePullPolicy: Never
        command: [probe, serve, --name, bot, --tcp, '8080']
        securityContext: {RESTRICTED}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: support-bot, namespace: {ns}}}
spec: {{maxUnavailable: 1, selector: {{matchLabels: {{app: support-bot}}}}}}
"
    ));
    cluster.kubectl(&["rollout", "status", "-n", ns, "deployment/support-bot", "--timeout=60s"]);
    let says = |field: &str| cluster.kubectl(&["get", "aiw", "-n", ns, "support-bot", "-o", &format!("jsonpath={{{field}}}")]);
    let workload = |more: &str| {
        cluster.apply(&format!(
            "
apiVersion: remit.dev/v1alpha1
kind: AIWorkload
metadata: {{name: support-bot, namespace: {ns}}}
spec:
  selector: {{matchLabels: {{app: support-bot}}}}
  mode: Enforce
{more}
"
        ));
    };
    workload("");
    let message = ".status.conditions[?(@.type==\"Guarded\")].message";
    eventually("they are counted and named, and stay", Duration::from_secs(30), || {
        (says(".status.pods.summary") == "0/3" && says(message).contains("restart them")).then_some(())
    });
    workload("  unguardedPods: Evict");
    let (_, took) = eventually("all have a guard", Duration::from_secs(120), || {
        let available = cluster.kubectl(&["get", "deployment", "-n", ns, "support-bot", "-o", "jsonpath={.status.availableReplicas}"]);
        assert!(available.parse::<u32>().is_ok_and(|available| available >= 2), "available: {available:?}; {}", says(message));
        (says(".status.pods.summary") == "3/3").then_some(())
    });
    println!("3 pods were replaced in {took:?}");
    assert_eq!(says(".status.pods.replacing"), "");
    let events = cluster.json(&["get", "events", "-n", ns, "--field-selector", "reason=PodEvicted"]);
    assert_eq!(events["items"].as_array().map(Vec::len), Some(3), "{events}");
}
