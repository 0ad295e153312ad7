//! 500 AIWorkloads on a real API server: what is written, how long it takes, what the operator needs beside the API server. Needs the API tier.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use serde_json::json;

use super::{seconds, table};
use crate::support::{Operator, World, always, check, eventually_within, run_within, workload};

const NAMESPACES: usize = 25;
const PER_NAMESPACE: usize = 20;
const ALL: usize = NAMESPACES * PER_NAMESPACE;
const LIMIT: Duration = Duration::from_secs(300);

/// Kind of write, how many there must be.
const EXPECTED: [(&str, usize); 7] = [
    ("patch aiworkloads", ALL),
    ("apply networkpolicies", ALL),
    ("apply configmaps", ALL),
    ("apply serviceaccounts", ALL),
    ("apply roles", ALL),
    ("apply rolebindings", ALL),
    ("apply aiworkloads/status", ALL),
];

/// CPU time and resident memory of a process.
#[derive(Clone, Copy)]
struct Usage {
    cpu: Duration,
    resident: u64,
}

/// From /proc; a tick is 10 ms on every Linux we know.
fn usage(pid: u32) -> Usage {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let after_name: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|i| after_name[*i].parse::<u64>().ok()).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    Usage { cpu: Duration::from_millis(ticks * 10), resident: resident.unwrap_or_default() }
}

/// The API server of the kubeconfig, if it runs on this machine.
fn api_server(world: &World) -> Option<u32> {
    let port = format!("--secure-port={}", world.admin.config.cluster_url.port_u16()?);
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.contains("kube-apiserver") && line.split('\0').any(|argument| argument == port)
    })
}

async fn all_ready(operator: &Operator) -> Result<(), String> {
    let ready = operator.metric("remit_workloads", &["ready=\"True\""]).await.unwrap_or_default();
    check(ready >= ALL as f64, || format!("{ready} of {ALL} are Ready"))
}

#[test]
#[ignore = "a benchmark: make bench"]
fn five_hundred_aiworkloads() {
    run_within(LIMIT * 3, async {
        let world = World::new("many").await;
        let mut namespaces = Vec::new();
        for n in 0..NAMESPACES {
            let namespace = world.namespace(&format!("n{n}")).await;
            world.service(&namespace, "db", 5432, json!(5432)).await;
            namespaces.push(namespace);
        }
        let operator = world.operator().await;
        let server = api_server(&world);
        let before = (usage(operator.pid), server.map(usage));
        world.proxy.clear();

        let spec = "dataSources:
- {name: db, type: Service, access: ReadWrite, service: {name: db, port: 5432, protocol: TCP}}
- {name: settings, type: Kubernetes, kubernetes: {apiGroups: [''], resources: [configmaps]}}";
        let began = Instant::now();
        let declared = stream::iter((0..ALL).map(|n| {
            let object = workload(&namespaces[n / PER_NAMESPACE], &format!("bot-{n}"), spec);
            async { world.admin.create(object).await.expect("created") }
        }));
        declared.buffer_unordered(8).collect::<Vec<_>>().await;
        let created = began.elapsed();
        eventually_within(LIMIT, "all are Ready", || all_ready(&operator)).await;
        let ready = began.elapsed();
        let after = (usage(operator.pid), server.map(usage));
        let tally = world.proxy.tally();
        let expected: BTreeMap<String, usize> = EXPECTED.iter().map(|(what, count)| (what.to_string(), *count)).collect();

        // Nothing to do: nothing written, and how much CPU that takes.
        world.proxy.clear();
        let idle = usage(operator.pid);
        always(Duration::from_secs(10), "nothing to do, nothing written", || async {
            check(world.proxy.tally().is_empty(), || format!("{:?}", world.proxy.tally()))
        })
        .await;
        let idle = (usage(operator.pid).cpu - idle.cpu) / 10;

        // A restart.
        operator.kill();
        let began = Instant::now();
        let operator = world.operator().await;
        eventually_within(LIMIT, "it leads", || async {
            let leads = operator.metric("remit_leader", &[]).await;
            check(leads == Some(1.0), || format!("{leads:?}"))
        })
        .await;
        let restarted = began.elapsed();
        eventually_within(LIMIT, "all are looked at", || async {
            let length = operator.metric("remit_queue_length", &[]).await;
            check(length == Some(0.0), || format!("{length:?}"))
        })
        .await;
        let looked = began.elapsed();
        let again = world.proxy.tally();
        let anew = usage(operator.pid);

        // One change that concerns all.
        let began = Instant::now();
        world.ceiling("all", json!({}), "unscopedPods: Allow\nclasses: [Restricted]\nservices: [{name: none, services: [none]}]").await;
        let open = ALL * 2;
        eventually_within(LIMIT, "every plan is narrowed", || async {
            let writes = world.proxy.writes().len();
            check(writes >= open, || format!("{writes} of at least {open} writes"))
        })
        .await;
        let narrowed = began.elapsed();

        let mut rows: Vec<(String, String)> = tally.iter().map(|(what, count)| (what.clone(), count.to_string())).collect();
        rows.push(("writes in all".into(), format!("{} (one per object, one finalizer, one status each)", tally.values().sum::<usize>())));
        table(&format!("{ALL} AIWorkloads in {NAMESPACES} namespaces: writes"), &rows);
        let share = |used: Duration, of: Duration| {
            format!("{} CPU ({:.0} % of one core)", seconds(used), 100.0 * used.as_secs_f64() / of.as_secs_f64())
        };
        let megabytes = |kilobytes: u64| format!("{} MB", kilobytes / 1024);
        let mut rows = vec![
            ("created".to_owned(), seconds(created)),
            ("all Ready".to_owned(), seconds(ready)),
            ("operator until then".to_owned(), share(after.0.cpu - before.0.cpu, ready)),
            ("operator, resident before, after".to_owned(), format!("{}, {}", megabytes(before.0.resident), megabytes(after.0.resident))),
            ("operator, idle".to_owned(), format!("{idle:?} CPU per second")),
        ];
        if let (Some(start), Some(end)) = (before.1, after.1) {
            rows.push(("API server until then".to_owned(), share(end.cpu - start.cpu, ready)));
            rows.push((
                "API server, resident before, after".to_owned(),
                format!("{}, {}", megabytes(start.resident), megabytes(end.resident)),
            ));
        }
        rows.push((
            "restart until it leads, until all are looked at".to_owned(),
            format!("{}, {}; {} writes", seconds(restarted), seconds(looked), again.len()),
        ));
        rows.push(("operator after the restart, resident".to_owned(), megabytes(anew.resident)));
        rows.push(("a ceiling over all: every plan narrowed".to_owned(), seconds(narrowed)));
        table("Time, CPU, memory", &rows);

        assert_eq!(tally, expected, "one write per object, one finalizer, one status");
        assert!(again.is_empty(), "a restart writes nothing: {again:?}");
    });
}
