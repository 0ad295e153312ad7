//! The chart comes and goes: install, upgrade, rollback, uninstall, with both Helms, and nothing of Remit stays but the CRDs.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Cluster, INSTALLED, Namespace, cluster, eventually};

/// Everything in the cluster that could be ours, by kind/namespace/name.
fn inventory(cluster: &Cluster) -> BTreeSet<String> {
    let kinds = "clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,networkpolicies,configmaps,secrets,services,deployments,jobs,leases,poddisruptionbudgets,validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,namespaces";
    let columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name";
    let list = cluster.kubectl(&["get", kinds, "-A", "-o", columns, "--no-headers"]);
    list.lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join("/"))
        .filter(|l| !l.contains("/it-") && !l.contains("/remit-system"))
        .collect()
}

const WORKLOAD: &str = "
apiVersion: remit.dev/v1alpha1
kind: AIWorkload
metadata: {name: idle, namespace: NS}
spec: {selector: {matchLabels: {app: idle}}, mode: Enforce, dataSources: [{name: prompts, type: ConfigMap, configMap: {name: prompts}}]}
";

#[test]
fn installs_upgrades_rolls_back_and_leaves_nothing_but_the_definitions() {
    let cluster = cluster();
    let _alone = INSTALLED.write().unwrap_or_else(|e| e.into_inner());
    let was_installed = cluster.run("helm", &["status", "remit", "-n", "remit-system"]).status.success();
    if was_installed {
        cluster.ok("helm", &["uninstall", "remit", "-n", "remit-system", "--wait", "--timeout", "180s"]);
    }
    let before = inventory(cluster);
    for helm in ["helm", "helm3"] {
        let ns = Namespace::enrolled("life");
        cluster.helm_install(helm, &[]);
        cluster.apply(&WORKLOAD.replace("NS", &ns.name));
        cluster.kubectl(&["wait", "-n", &ns.name, "aiw", "idle", "--for=condition=Accepted", "--timeout=30s"]);
        let logs = cluster.run(helm, &["test", "remit", "-n", "remit-system", "--timeout", "120s"]);
        assert!(logs.status.success(), "helm test: {}{}", super::text(&logs.stdout), super::text(&logs.stderr));
        cluster.helm_install(helm, &["--set", "replicas=2"]);
        cluster.ok(helm, &["rollback", "remit", "1", "-n", "remit-system", "--wait", "--timeout", "120s"]);
        let policy = cluster.run("kubectl", &["get", "networkpolicy", "-n", &ns.name, "remit-idle"]);
        assert!(policy.status.success(), "the scope holds across upgrade and rollback");

        // With the AIWorkload still there: its finalizer must not outlive the operator.
        cluster.ok(helm, &["uninstall", "remit", "-n", "remit-system", "--wait", "--timeout", "180s"]);
        let left: Vec<String> = inventory(cluster).difference(&before).cloned().collect();
        assert_eq!(left, Vec::<String>::new(), "{helm}");
        let own = cluster.kubectl(&[
            "get",
            "all,configmaps,secrets,leases,roles,rolebindings,networkpolicies,serviceaccounts",
            "-n",
            "remit-system",
            "-o",
            "name",
        ]);
        let own: Vec<&str> = own.lines().filter(|l| *l != "configmap/kube-root-ca.crt" && *l != "serviceaccount/default").collect();
        assert_eq!(own, Vec::<&str>::new(), "{helm}");
        let generated = cluster.kubectl(&[
            "get",
            "networkpolicy,configmap,role,rolebinding,serviceaccount",
            "-A",
            "-l",
            "app.kubernetes.io/managed-by=remit",
            "-o",
            "name",
        ]);
        assert_eq!(generated, "");
        let definitions = cluster.kubectl(&["get", "crd", "-o", "name"]);
        assert!(
            definitions.contains("aiworkloads.remit.dev") && definitions.contains("scopeceilings.remit.dev"),
            "Helm keeps the definitions"
        );
        // The AIWorkload is data now, and goes at once, with or without its namespace.
        cluster.kubectl(&["delete", "aiw", "-n", &ns.name, "idle", "--timeout=20s"]);
        cluster.kubectl(&["delete", "namespace", &ns.name, "--timeout=60s"]);
    }
    if was_installed {
        cluster.helm_install("helm", &[]);
    }
}

#[test]
fn a_namespace_can_go_at_any_time() {
    let (cluster, _installed) = super::installed();
    let ns = Namespace::enrolled("gone");
    cluster.apply(&WORKLOAD.replace("NS", &ns.name));
    // A pod of it needs its account.
    cluster.wait_ready(&ns.name, "idle");
    cluster.apply(&super::client(&ns.name, "idle", "{app: idle}"));
    super::pods_ready(&ns.name);
    cluster.kubectl(&["delete", "namespace", &ns.name, "--timeout=60s"]);
    eventually("the namespace is gone", Duration::from_secs(1), || {
        (!cluster.run("kubectl", &["get", "namespace", &ns.name]).status.success()).then_some(())
    });
}
