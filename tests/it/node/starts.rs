//! Many pods start, each with programs that try what is forbidden from their first moment on: not one packet arrives. It takes longer than
//! a rotation of the webhook's certificate, which therefore happens meanwhile.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::certificates::Aged;
use super::guard::Setting;
use super::{Cluster, RESTRICTED, cluster, eventually, installed};

/// Pods in all, and at a time.
const PODS: usize = 200;
const AT_ONCE: usize = 10;
/// As fast as it fails: TCP, UDP and DNS, both families.
const TRIED: [&str; 6] = [
    "line://203.0.113.11:80",
    "line://203.0.113.11:443",
    "line://[2001:db8:ffff::11]:80",
    "line://[2001:db8:ffff::11]:443",
    "udp://203.0.113.11:53",
    "http://169.254.169.254/",
];

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

/// The targets of a container's attempts, from its log on the node: asking the API server for so many would take longer than the pods.
fn tried(cluster: &Cluster, namespace: &str, pod: &str, container: &str) -> Vec<String> {
    let pods = std::fs::read_dir(cluster.logs()).expect("the node's logs");
    let of_this = format!("{namespace}_{pod}_");
    let directory = pods.flatten().find(|entry| entry.file_name().to_string_lossy().starts_with(&of_this));
    let log = directory.and_then(|entry| std::fs::read_to_string(entry.path().join(container).join("0.log")).ok()).unwrap_or_default();
    let attempts = log.lines().filter_map(|line| serde_json::from_str::<Value>(line.split_once(" F ")?.1).ok());
    attempts.filter_map(|attempt| attempt["target"].as_str().map(str::to_owned)).collect()
}

fn nothing_leaves(cluster: &Cluster, setting: &Setting) {
    let ns = &setting.support.name;
    // In an init container and in the app.
    let attack = format!("[probe, loop, --interval, 100ms, --timeout, 200ms, {}]", TRIED.map(|target| format!("'{target}'")).join(", "));
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
        // Each has tried everything, from both of its containers.
        for name in &names {
            for container in ["early", "main"] {
                let what = format!("{container} of {name} tried everything");
                let (tried, _) = eventually(&what, Duration::from_secs(60), || {
                    let tried = tried(cluster, ns, name, container);
                    TRIED.iter().all(|target| tried.iter().any(|one| one == target)).then_some(tried.len())
                });
                attempts += tried;
            }
        }
        cluster.kubectl(
            &[&["delete", "pod", "-n", ns, "--wait=false"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat(),
        );
    }
    let arrived = cluster.arrived_outside(&addresses);
    println!("{PODS} pods started in {:?}; {attempts} attempts seen; arrived outside: {arrived:?}", began.elapsed());
    assert_eq!(arrived, vec![]);
    // The outside does count: the same from a stranger.
    let mut all = TRIED.map(str::to_owned);
    all.sort();
    assert_eq!(cluster.reached(&setting.web.name, "stranger", &all), all);
    assert!(!cluster.arrived_outside(&cluster.pod_addresses(&setting.web.name, "stranger")).is_empty());
}
