//! Many pods start, each with programs that try what is forbidden from their first moment on: not one packet arrives. It takes longer than
//! a rotation of the webhook's certificate, which therefore happens meanwhile.

use std::time::{Duration, Instant};

use super::certificates::Aged;
use super::guard::Setting;
use super::{Cluster, RESTRICTED, cluster, eventually, installed};

/// Pods in all, and at a time.
const PODS: usize = 200;
const AT_ONCE: usize = 10;

#[test]
fn nothing_leaves_two_hundred_starting_pods_while_certificates_rotate() {
    drop(installed());
    // Addresses are used again: nobody else may be counted under those of these pods.
    let _alone = super::INSTALLED.write().unwrap_or_else(|e| e.into_inner());
    let cluster = cluster();
    let setting = Setting::new("starts");
    let aged = Aged::new(cluster);
    std::thread::scope(|scope| {
        scope.spawn(|| aged.rotates_under_creates(&setting.support.name));
        nothing_leaves(cluster, &setting);
    });
}

fn nothing_leaves(cluster: &Cluster, setting: &Setting) {
    let ns = &setting.support.name;
    // Tried as fast as they fail: TCP, UDP and DNS, both families, in an init container and in the app.
    let attack = "[probe, loop, --interval, 100ms, --timeout, 200ms, 'line://203.0.113.11:80', 'line://203.0.113.11:443', 'line://[2001:db8:ffff::11]:80', 'udp://203.0.113.11:53', 'http://169.254.169.254/']";
    cluster.ok("cluster.sh", &["counts", "reset"]);
    let began = Instant::now();
    let mut attempts = 0;
    let mut addresses = Vec::new();
    for batch in 0..PODS / AT_ONCE {
        let names: Vec<String> = (0..AT_ONCE).map(|n| format!("start-{batch}-{n}")).collect();
        let pods: String = names
            .iter()
            .map(|name| {
                format!(
                    "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, labels: {{app: support-bot}}}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers: [{{name: early, image: 'remit.test/probe:1', imagePullPolicy: Never, restartPolicy: Always, command: {attack}, securityContext: {RESTRICTED}}}]
  containers: [{{name: main, image: 'remit.test/probe:1', imagePullPolicy: Never, command: {attack}, securityContext: {RESTRICTED}}}]
---
"
                )
            })
            .collect();
        cluster.apply(&pods);
        let wait = ["wait", "-n", ns, "pod", "--for=condition=Ready", "--timeout=180s"];
        cluster.kubectl(&[wait.as_slice(), names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
        for name in &names {
            addresses.extend(cluster.pod_addresses(ns, name));
        }
        // Each has tried.
        let sample = &names[batch % AT_ONCE];
        let ((), _) = eventually("it tried", Duration::from_secs(20), || {
            let lines = cluster.kubectl(&["logs", "-n", ns, sample, "-c", "main", "--limit-bytes=20000"]).lines().count();
            attempts += lines;
            (lines >= 10).then_some(())
        });
        cluster.kubectl(
            &[&["delete", "pod", "-n", ns, "--wait=false"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat(),
        );
    }
    let arrived = cluster.arrived_outside(&addresses);
    println!("{PODS} pods started in {:?}; {attempts} attempts seen in samples; arrived outside: {arrived:?}", began.elapsed());
    assert_eq!(arrived, vec![]);
    // The outside does count: the same from a stranger.
    let target = ["line://203.0.113.11:80".to_owned()];
    assert_eq!(cluster.reached(&setting.web.name, "stranger", &target), target);
    assert!(!cluster.arrived_outside(&cluster.pod_addresses(&setting.web.name, "stranger")).is_empty());
}
