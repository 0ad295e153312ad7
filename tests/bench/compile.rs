//! What deciding costs: validate, compile and compare one workload.

use std::hint::black_box;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use remit::api::{AIWorkload, ScopeCeiling};
use remit::plan::{self, Facts, project};
use remit::scope::Ceilings;
use serde_json::json;

use super::table;

const ROUNDS: usize = 300;
const PER_ROUND: u32 = 20;

/// Median and worst of many rounds.
fn measured<T>(mut work: impl FnMut() -> T) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..PER_ROUND {
                black_box(work());
            }
            began.elapsed() / PER_ROUND
        })
        .collect();
    times.sort();
    (times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}

/// A workload with so many sources of each kind, and what surrounds it.
fn scene(sources: usize) -> (AIWorkload, Ceilings, Facts) {
    let mut declared = Vec::new();
    let mut facts = Facts::default();
    facts.ranges.pods.push("10.244.0.0/16".parse().expect("a range"));
    facts.api_server.push(("198.51.100.1".parse().expect("an address"), 6443));
    for n in 0..sources {
        let name = format!("service-{n}");
        declared.push(json!({"name": name, "type": "Service", "access": "ReadWrite", "service": {"name": name, "namespace": "shop", "port": 80, "protocol": "TCP"}}));
        declared.push(json!({"name": format!("host-{n}"), "type": "Host", "access": "ReadWrite", "host": {"name": format!("h{n}.example.com"), "port": 443}}));
        declared.push(json!({"name": format!("objects-{n}"), "type": "Kubernetes", "kubernetes": {"apiGroups": ["shop.example.com"], "resources": [format!("things{n}")]}}));
        let service: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
        }))
        .expect("a Service");
        facts.services.extend([project::service(&service)]);
    }
    let workload = serde_json::from_value(json!({
        "metadata": {"name": "bot", "namespace": "bots", "uid": "1"},
        "spec": {"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce", "dataSources": declared},
    }))
    .expect("an AIWorkload");
    let things: Vec<String> = (0..sources).map(|n| format!("things{n}")).collect();
    let ceiling: ScopeCeiling = serde_json::from_value(json!({
        "metadata": {"name": "wide"},
        "spec": {
            "namespaceSelector": {}, "classes": ["Public", "Internal", "Restricted"],
            "hosts": [{"name": "any", "host": "*.example.com", "ports": [443]}],
            "services": [{"name": "shop", "namespace": "shop", "services": ["*"]}],
            "kubernetes": [{"name": "own", "apiGroups": ["shop.example.com"], "resources": things}],
        },
    }))
    .expect("a ScopeCeiling");
    let (_, ceiling) = plan::ceiling(&ceiling).expect("a readable ceiling");
    (workload, Ceilings(vec![ceiling]), facts)
}

#[test]
#[ignore = "a benchmark: make bench"]
fn compile_one_workload() {
    let mut rows = Vec::new();
    for sources in [1, 5, 20] {
        let (workload, ceilings, facts) = scene(sources);
        let scope = plan::validate(&workload).expect("valid");
        let origin = plan::Origin { uid: "1".to_owned(), generation: 1 };
        let compiled = plan::compile(&scope, Some(&origin), &ceilings, &facts);
        assert!(compiled.refusals.is_empty(), "{:?}", compiled.refusals);
        let validate = measured(|| plan::validate(&workload));
        let compile = measured(|| plan::compile(&scope, Some(&origin), &ceilings, &facts));
        let compare = measured(|| compiled.objects.iter().map(|o| plan::differences(o, o).len()).sum::<usize>());
        for (what, (median, worst)) in [("validate", validate), ("compile", compile), ("compare", compare)] {
            rows.push((format!("{what}, {} data sources", sources * 3), format!("median {median:?}, 99 % {worst:?}")));
        }
    }
    table("One workload, in memory", &rows);
}
