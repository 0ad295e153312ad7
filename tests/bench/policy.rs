//! From the change of a scope to every guard of its pods (`make bench-policy`): 1, 10 and 100 real pods on the node tier, whose guards came by
//! injection. Needs root and the node on this machine: what the guards say of themselves is read from their logs, and this process itself
//! holds a connection open in the network of every pod. So all times are of one clock.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use remit::api::AIWorkload;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::node::{Cluster, Namespace, RESTRICTED, cluster, eventually, pods_ready};

const GUARDS: [usize; 3] = [1, 10, 100];
const PORT: u16 = 15432;
/// So many pods try again and again while they are refused; the others seldom, for that is work as well.
const EAGER: usize = 10;
const LIMIT: Duration = Duration::from_secs(60);
/// Whose processor time is counted. (Names of processes on the node.)
const PROGRAMS: [&str; 3] = ["remit-operator", "kube-apiserver", "remit-guard"];

#[test]
#[ignore = "a benchmark: make bench-policy"]
fn change_to_enforcement() {
    let cluster = cluster();
    cluster.helm_install("helm", &["--set", "logging.level=info", "--set", "lease.durationSeconds=15"]);
    let bench = Bench::new(cluster);
    let _orders = bench.orders();
    let columns: Vec<Figures> = GUARDS.iter().map(|count| bench.of(*count)).collect();
    println!("\n{} changes of each kind, ms: 50 % / 90 % / 99 % / most\n", bench.rounds);
    println!("| guards |{}", GUARDS.map(|count| format!(" {count} |")).concat());
    println!("|---|{}", "---|".repeat(GUARDS.len()));
    for (row, (name, _)) in columns[0].0.iter().enumerate() {
        println!("| {name} |{}", columns.iter().map(|figures| format!(" {} |", shown(&figures.0[row].1))).collect::<String>());
    }
}

/// Milliseconds since 1970, as guards write them.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64() * 1e3
}

/// Rows: what, and all that was measured of it.
#[derive(Default)]
struct Figures(Vec<(String, Vec<f64>)>);

impl Figures {
    fn add(&mut self, name: &str, all: impl IntoIterator<Item = f64>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, row)) => row.extend(all),
            None => self.0.push((name.to_owned(), all.into_iter().collect())),
        }
    }
}

fn shown(all: &[f64]) -> String {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    match all.as_slice() {
        [] => "–".to_owned(),
        [one] => format!("{one:.1}"),
        // The least that so many are at most: with few samples the 99th is the most.
        _ => [50, 90, 99, 100].map(|percent| format!("{:.0}", all[(all.len() * percent).div_ceil(100) - 1])).join(" / "),
    }
}

struct Bench {
    cluster: &'static Cluster,
    /// Of four changes each: a destination is taken out, put back, all is suspended, and resumed.
    rounds: usize,
    namespace: Namespace,
    runtime: Runtime,
    workloads: Api<AIWorkload>,
}

/// A pod, as this machine sees it.
struct Pod {
    uid: String,
    log: PathBuf,
}

impl Bench {
    fn new(cluster: &'static Cluster) -> Self {
        let namespace = Namespace::enrolled("pace");
        let ns = &namespace.name;
        let pod = |command: &str, more: &str| {
            format!(
                "terminationGracePeriodSeconds: 0, automountServiceAccountToken: false, containers: [{{name: main, image: 'remit.test/probe:1', imagePullPolicy: Never, command: {command}, securityContext: {RESTRICTED}{more}}}]"
            )
        };
        cluster.apply(&format!(
            "
{{apiVersion: v1, kind: Pod, metadata: {{name: orders, namespace: {ns}, labels: {{app: orders}}}}, spec: {{{orders}}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: orders, namespace: {ns}}}, spec: {{selector: {{app: orders}}, ports: [{{name: main, port: 5432, targetPort: {PORT}}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: ledger, namespace: {ns}}}, spec: {{selector: {{app: orders}}, ports: [{{name: main, port: 8443, targetPort: 18443}}]}}}}
---
{{apiVersion: remit.dev/v1alpha1, kind: AIWorkload, metadata: {{name: bot, namespace: {ns}}}, spec: {{selector: {{matchLabels: {{app: bot}}}}, mode: Enforce, dataSources: {sources}}}}}
---
{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: bot, namespace: {ns}}}, spec: {{replicas: 0, selector: {{matchLabels: {{app: bot}}}}, template: {{metadata: {{labels: {{app: bot}}}}, spec: {{{bot}}}}}}}}}
",
            orders = pod("[probe, sleep]", &format!(", ports: [{{containerPort: {PORT}}}]")),
            bot = pod("[probe, sleep]", ""),
            sources = sources(true),
        ));
        pods_ready(ns);
        cluster.wait_ready(ns, "bot");
        let runtime = Runtime::new().expect("threads");
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).expect("the kubeconfig can be read");
        let workloads = runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a usable kubeconfig");
            Api::namespaced(Client::try_from(config).expect("a client"), ns)
        });
        let rounds = std::env::var("ROUNDS").map_or(10, |rounds| rounds.parse().expect("ROUNDS is a number"));
        Self { cluster, rounds, namespace, runtime, workloads }
    }

    fn pods(&self, app: &str) -> Vec<Pod> {
        let ns = &self.namespace.name;
        let pods = self.cluster.json(&["get", "pods", "-n", ns, "-l", &format!("app={app}")]);
        let pods = pods["items"].as_array().expect("a list");
        let one = |pod: &Value| {
            let text = |name: &str| pod["metadata"][name].as_str().expect("text").to_owned();
            let (name, uid) = (text("name"), text("uid"));
            let log = self.cluster.logs().join(format!("{ns}_{name}_{uid}/remit-guard/0.log"));
            Pod { uid, log }
        };
        pods.iter().map(one).collect()
    }

    /// Answers in the place of the pod `orders`: a byte for a byte, and holds every connection.
    fn orders(&self) -> JoinHandle<()> {
        let [pod] = &self.pods("orders")[..] else { panic!("one pod") };
        inside(pod, || {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("nobody else listens");
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
                });
            }
        })
    }

    /// With so many pods.
    fn of(&self, count: usize) -> Figures {
        let ns = &self.namespace.name;
        self.cluster.kubectl(&["scale", "deployment/bot", "-n", ns, &format!("--replicas={count}")]);
        self.cluster.kubectl(&["rollout", "status", "deployment/bot", "-n", ns, "--timeout=400s"]);
        let all = format!("{count}/{count}");
        eventually("all guards are heard of", LIMIT, || {
            let workload = self.cluster.json(&["get", "aiw", "bot", "-n", ns]);
            (workload["status"]["pods"]["summary"] == all.as_str()).then_some(())
        });
        let service = self.cluster.json(&["get", "service", "orders", "-n", ns]);
        let to = SocketAddr::new(service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok()).expect("an address"), 5432);
        let pods = self.pods("bot");
        assert_eq!(pods.len(), count);
        let clients: Vec<Caller> = pods.iter().enumerate().map(|(n, pod)| Caller::start(pod, to, n < EAGER)).collect();
        eventually("all are through", LIMIT, || clients.iter().all(|client| client.first(Seen::Through).is_some()).then_some(()));

        let mut figures = Figures::default();
        // A whole turn of held questions.
        let rest = Duration::from_secs(30);
        let (before, idle_before) = (self.processors(), idle());
        std::thread::sleep(rest);
        let (at_rest, idle_at_rest, began) = (self.processors(), idle(), now());
        for round in 0..self.rounds {
            for change in CHANGES {
                self.change(&change, &pods, &clients, &mut figures);
                // Until all is quiet; the next comes at another moment of everybody's pauses.
                std::thread::sleep(Duration::from_millis(1000 + 37 * (round as u64 % 7)));
                let open = clients.iter().filter(|client| client.first(Seen::Through).is_some()).count();
                assert!(!change.narrows || open == 0, "{}: {open} connections were let through after the cut", change.name);
            }
        }
        let (after, passed) = (self.processors(), (now() - began) / rest.as_secs_f64() / 1e3);
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let busy = |idle: f64, seconds: f64| 100.0 - idle / seconds / cores / 10.0;
        figures.add("the whole machine busy at rest, %", [busy(idle_at_rest - idle_before, rest.as_secs_f64())]);
        figures.add("the same while it is changed, %", [busy(idle() - idle_at_rest, passed * rest.as_secs_f64())]);
        for (n, program) in PROGRAMS.iter().enumerate() {
            let quiet = at_rest[n] - before[n];
            figures.add(
                &format!("CPU of {program} for one change, ms"),
                [(after[n] - at_rest[n] - quiet * passed) / (self.rounds * CHANGES.len()) as f64],
            );
            figures.add(&format!("CPU of {program} at rest, ms a second"), [quiet / rest.as_secs_f64()]);
        }
        println!("{count} guards measured");
        clients.iter().for_each(|client| client.stop.store(true, Ordering::Relaxed));
        clients.into_iter().for_each(|client| client.thread.join().expect("nobody panics"));
        figures
    }

    fn change(&self, change: &Change, pods: &[Pod], clients: &[Caller], figures: &mut Figures) {
        let Change { name, patch, narrows } = *change;
        clients.iter().for_each(Caller::forget);
        let began = now();
        let patch = async { self.workloads.patch("bot", &PatchParams::default(), &Patch::Merge(patch())).await };
        let generation = self.runtime.block_on(patch).expect("the API server takes it").metadata.generation.expect("a generation");
        let answered = now();
        let (taken, _) = eventually(name, LIMIT, || pods.iter().map(|pod| taken(&pod.log, generation)).collect::<Option<Vec<Taken>>>());
        let since = |times: Vec<f64>| times.into_iter().map(move |time| time - began);
        let seen = |what: Seen, of: &[Caller]| {
            let all = || of.iter().map(|client| client.first(what)).collect::<Option<Vec<f64>>>();
            eventually(name, LIMIT, all).0
        };
        figures.add(&format!("{name}: the API server has answered"), [answered - began]);
        figures.add(&format!("{name}: the operator has made the policy"), since(taken.iter().map(|taken| taken.made).take(1).collect()));
        let times: Vec<f64> = since(taken.iter().map(|taken| taken.at).collect()).collect();
        let last = times.iter().copied().fold(f64::MIN, f64::max);
        figures.add(&format!("{name}: a guard enforces it"), times);
        figures.add(&format!("{name}: the last guard enforces it"), [last]);
        if narrows {
            figures.add(&format!("{name}: an open connection is cut"), since(seen(Seen::Cut, clients)));
            figures.add(&format!("{name}: a new one is refused"), since(seen(Seen::Refused, clients)));
        } else {
            figures.add(&format!("{name}: a connection passes"), since(seen(Seen::Through, &clients[..clients.len().min(EAGER)])));
            seen(Seen::Through, clients);
        }
    }

    /// Milliseconds of a processor that each of [`PROGRAMS`] has used.
    fn processors(&self) -> [f64; 3] {
        PROGRAMS.map(|program| {
            let script = r#"for p in /proc/[0-9]*; do read -r name 2>/dev/null <$p/comm && [ "$name" = "$0" ] && cat $p/stat; done; true"#;
            let stats = self.cluster.ok("cluster.sh", &["exec", "bash", "-c", script, program]);
            // User and system time. A tick is 10 ms on every Linux we know.
            let ticks = |stat: &str| -> f64 {
                let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
                [11, 12].iter().filter_map(|n| fields.get(*n)?.parse::<f64>().ok()).sum()
            };
            stats.lines().map(ticks).sum::<f64>() * 10.0
        })
    }
}

struct Change {
    name: &'static str,
    patch: fn() -> Value,
    narrows: bool,
}

const CHANGES: [Change; 4] = [
    Change { name: "a destination taken out", patch: || json!({"spec": {"dataSources": sources(false)}}), narrows: true },
    Change { name: "put back", patch: || json!({"spec": {"dataSources": sources(true)}}), narrows: false },
    Change { name: "suspended", patch: || json!({"spec": {"suspend": true}}), narrows: true },
    Change { name: "resumed", patch: || json!({"spec": {"suspend": false}}), narrows: false },
];

fn sources(orders: bool) -> Value {
    let service = |name: &str, port: u16| json!({"name": name, "class": "Internal", "type": "Service", "access": "ReadWrite", "service": {"name": name, "port": port, "protocol": "TCP"}});
    let ledger = service("ledger", 8443);
    Value::Array(if orders { vec![service("orders", 5432), ledger] } else { vec![ledger] })
}

/// When a guard began to enforce a policy, and when the operator had made it.
struct Taken {
    at: f64,
    made: f64,
}

/// What a guard has written of the first policy of this generation, or a later one.
fn taken(log: &Path, generation: i64) -> Option<Taken> {
    let text = std::fs::read_to_string(log).ok()?;
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(&line[line.find('{')?..]).ok());
    let mut policies = records.filter(|record| record["event"] == "policy");
    let first = policies.find(|record| record["generation"].as_i64().is_some_and(|found| found >= generation))?;
    Some(Taken { at: first["time"].as_f64()?, made: first["serial"].as_f64()? })
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    /// A new connection had its answer.
    Through,
    /// It was open, and ended.
    Cut,
    /// A new one ended without an answer.
    Refused,
}

/// Holds one connection open, and opens the next when it is cut.
struct Caller {
    seen: Arc<Mutex<Vec<(Seen, f64)>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Caller {
    fn start(pod: &Pod, to: SocketAddr, eager: bool) -> Self {
        let (seen, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (seen, stop) = (seen.clone(), stop.clone());
            let again = Duration::from_millis(if eager { 20 } else { 1000 });
            let note = move |what: Seen| seen.lock().expect("nobody panics").push((what, now()));
            inside(pod, move || {
                while !stop.load(Ordering::Relaxed) {
                    match open(to) {
                        Ok(stream) => {
                            note(Seen::Through);
                            if !ended(stream, &stop) {
                                return;
                            }
                            note(Seen::Cut);
                        }
                        Err(_) => {
                            note(Seen::Refused);
                            std::thread::sleep(again);
                        }
                    }
                }
            })
        };
        Self { seen, stop, thread }
    }

    fn first(&self, what: Seen) -> Option<f64> {
        self.seen.lock().expect("nobody panics").iter().find(|(seen, _)| *seen == what).map(|(_, at)| *at)
    }

    fn forget(&self) {
        self.seen.lock().expect("nobody panics").clear();
    }
}

fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(&[7])?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}

/// Waits for the other side to end it. False: it was told to stop.
fn ended(mut stream: TcpStream, stop: &AtomicBool) -> bool {
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut [0]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            _ => return true,
        }
    }
    false
}

/// A thread in the network of this pod.
fn inside(pod: &Pod, act: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let group = format!("pod{}", pod.uid);
    let process = std::fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path()).find(|process| {
        // By the drivers of cgroups with dashes or without.
        std::fs::read_to_string(process.join("cgroup")).is_ok_and(|text| text.contains(&group) || text.contains(&group.replace('-', "_")))
    });
    let network = File::open(process.expect("the pod runs on this machine").join("ns/net")).expect("root");
    std::thread::spawn(move || {
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("root");
        act();
    })
}

/// Milliseconds that the processors of the machine had nothing to do.
fn idle() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").expect("Linux");
    text.split_whitespace().nth(4).and_then(|ticks| ticks.parse::<f64>().ok()).expect("ticks") * 10.0
}
