//! What the account of a workload can do: exactly the declared verbs.

use std::collections::BTreeSet;

use super::{Namespace, cluster, installed};

/// What `kubectl auth can-i --list` prints for this account in this namespace, a line each.
fn abilities(user: &str, namespace: &str) -> BTreeSet<String> {
    let list = cluster().kubectl(&["auth", "can-i", "--list", "--as", user, "-n", namespace, "--no-headers"]);
    list.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_account_can_do_exactly_what_is_declared() {
    let (cluster, _installed) = installed();
    let (support, shop) = (Namespace::enrolled("support"), Namespace::new("shop", &[]));
    let account = format!("system:serviceaccount:{}:reader", support.name);
    let stranger = format!("system:serviceaccount:{}:nobody-bound-this", support.name);
    for ns in [&support.name, &shop.name] {
        cluster.kubectl(&[
            "create",
            "rolebinding",
            "remit-grantable",
            "-n",
            ns,
            "--clusterrole=edit",
            "--serviceaccount=remit-system:remit",
        ]);
    }
    cluster.apply(&format!(
        "
apiVersion: remit.dev/v1alpha1
kind: ScopeCeiling
metadata: {{name: {ns}}}
spec:
  namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {ns}}}}}
  classes: [Restricted]
  kubernetes:
  - {{name: own, apiGroups: [''], resources: [configmaps], access: ReadWrite}}
  - {{name: shop, namespace: {shop}, apiGroups: [''], resources: [configmaps, events]}}
---
apiVersion: remit.dev/v1alpha1
kind: AIWorkload
metadata: {{name: reader, namespace: {ns}}}
spec:
  selector: {{matchLabels: {{app: reader}}}}
  mode: Enforce
  dataSources:
  - {{name: settings, type: Kubernetes, access: ReadWrite, kubernetes: {{apiGroups: [''], resources: [configmaps], resourceNames: [settings]}}}}
  - {{name: shop, type: Kubernetes, kubernetes: {{apiGroups: [''], resources: [configmaps], namespace: {shop}}}}}
",
        ns = support.name,
        shop = shop.name
    ));
    cluster.wait_ready(&support.name, "reader");
    let gained =
        |namespace: &str| -> Vec<String> { abilities(&account, namespace).difference(&abilities(&stranger, namespace)).cloned().collect() };
    assert_eq!(gained(&support.name), ["configmaps [] [settings] [get list watch create update patch delete]"]);
    assert_eq!(gained(&shop.name), ["configmaps [] [] [get list watch]"]);
    assert_eq!(gained("default"), Vec::<String>::new());
    // The word of the API server itself, verb by verb.
    let can = |args: &[&str]| {
        let args: Vec<&str> = ["auth", "can-i", "--as", &account, "-n", &shop.name].iter().chain(args).copied().collect();
        cluster.run("kubectl", &args).status.success()
    };
    assert!(can(&["get", "configmaps"]) && can(&["watch", "configmaps"]));
    for denied in ["create", "update", "patch", "delete", "deletecollection"] {
        assert!(!can(&[denied, "configmaps"]), "{denied}");
    }
    assert!(!can(&["get", "secrets"]) && !can(&["get", "pods"]));
    // Suspended: nothing.
    cluster.kubectl(&["patch", "-n", &support.name, "aiw", "reader", "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#]);
    super::eventually("the permissions are withdrawn", std::time::Duration::from_secs(5), || {
        (gained(&support.name).is_empty() && gained(&shop.name).is_empty()).then_some(())
    });
}
