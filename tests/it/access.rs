//! Effective access beside independent implementations: NetworkPolicy beside Cyclonus' matcher, RBAC beside the API server's own answers
//! (`api_access.rs`). Cases are drawn from a seed, from few words, so that they meet often.

use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use remit::drift::Snapshot;
use remit::drift::network::{End, Network, Port, Protocol, Verdict};
use serde_json::{Value, json};

use crate::draw::Draw;
use crate::repository;

const CASES: u64 = 2_000;
const OUTSIDE: [&str; 2] = ["203.0.113.7", "2001:db8:ffff::7"];
const PORTS: [(&str, &str, u16); 4] = [("web", "TCP", 80), ("alt", "TCP", 8080), ("dns", "UDP", 53), ("sig", "SCTP", 80)];

/// Everything has this label. The oracle takes an absent one for a value that `NotIn` does not let in; the API server's own code does not
/// (`labels.Requirement`), and neither do we: the tables in `src/scope/selector.rs` have that.
const ALWAYS: &str = "team";

/// Namespaces, ends and policies.
struct Case {
    namespaces: Vec<(String, Value)>,
    pods: Vec<Value>,
    policies: Vec<Value>,
}

fn labels(draw: &mut Draw) -> Value {
    let mut labels = serde_json::Map::new();
    for key in ["app", "tier", ALWAYS] {
        if key == ALWAYS || draw.one_in(2) {
            labels.insert(key.into(), (*draw.of(&["a", "b", "c"])).into());
        }
    }
    labels.into()
}

fn selector(draw: &mut Draw) -> Value {
    let mut selector = json!({});
    if draw.one_in(3) {
        selector["matchLabels"] = labels(draw);
    }
    let expressions: Vec<Value> = (0..draw.below(3)).map(|_| expression(draw)).collect();
    if !expressions.is_empty() {
        selector["matchExpressions"] = expressions.into();
    }
    selector
}

fn expression(draw: &mut Draw) -> Value {
    let key = *draw.of(&["app", "tier", ALWAYS]);
    match draw.below(4) {
        0 => json!({"key": key, "operator": "Exists"}),
        1 => json!({"key": key, "operator": "DoesNotExist"}),
        n => {
            let values: Vec<&str> = (0..=draw.below(2)).map(|_| *draw.of(&["a", "b", "c"])).collect();
            let (key, operator) = if n == 2 { (key, "In") } else { (ALWAYS, "NotIn") };
            json!({"key": key, "operator": operator, "values": values})
        }
    }
}

fn peer(draw: &mut Draw) -> Value {
    match draw.below(6) {
        0 => json!({"podSelector": selector(draw)}),
        1 => json!({"namespaceSelector": selector(draw)}),
        2 => json!({"podSelector": selector(draw), "namespaceSelector": selector(draw)}),
        3 => json!({"ipBlock": {"cidr": draw.of(&["10.0.0.0/16", "10.0.1.0/24", "0.0.0.0/0", "203.0.113.0/24", "10.0.1.2/32"])}}),
        4 => json!({"ipBlock": {"cidr": "10.0.0.0/16", "except": [draw.of(&["10.0.1.0/24", "10.0.0.1/32", "10.0.0.0/30"])]}}),
        _ => json!({"ipBlock": {"cidr": draw.of(&["2001:db8::/32", "2001:db8:ffff::/48", "::/0"])}}),
    }
}

fn port(draw: &mut Draw) -> Value {
    let mut port = json!({});
    if draw.one_in(2) {
        port["protocol"] = (*draw.of(&["TCP", "UDP", "SCTP"])).into();
    }
    match draw.below(4) {
        0 => port["port"] = (*draw.of(&[80, 8080, 53, 81])).into(),
        1 => port["port"] = (*draw.of(&["web", "alt", "dns", "none"])).into(),
        2 => (port["port"], port["endPort"]) = ((*draw.of(&[1, 53, 80])).into(), (*draw.of(&[80, 8080, 9000])).into()),
        _ => {}
    }
    port
}

fn policy(draw: &mut Draw, number: u64, namespaces: usize) -> Value {
    let rules = |draw: &mut Draw, of: &str| -> Value {
        let rule = |draw: &mut Draw| {
            let mut rule = json!({});
            if draw.one_in(4) {
                rule[of] = json!([]);
            } else if !draw.one_in(4) {
                rule[of] = (0..=draw.below(2)).map(|_| peer(draw)).collect();
            }
            if draw.one_in(2) {
                rule["ports"] = (0..draw.below(3)).map(|_| port(draw)).collect();
            }
            rule
        };
        (0..draw.below(3)).map(|_| rule(draw)).collect()
    };
    let types = draw.of(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]).to_vec();
    let mut spec = json!({"podSelector": selector(draw), "policyTypes": types});
    if types.contains(&"Ingress") && !draw.one_in(5) {
        spec["ingress"] = rules(draw, "from");
    }
    if types.contains(&"Egress") && !draw.one_in(5) {
        spec["egress"] = rules(draw, "to");
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": format!("p{number}"), "namespace": format!("n{}", draw.below(namespaces as u64))}, "spec": spec,
    })
}

fn case(draw: &mut Draw) -> Case {
    let namespaces: Vec<_> = (0..=draw.below(3)).map(|n| (format!("n{n}"), labels(draw))).collect();
    let pods = (0..2 + draw.below(4)).map(|n| {
        let namespace = draw.below(namespaces.len() as u64);
        // Its name in each: which number that is differs between pods.
        let shift = draw.below(2) as u16;
        let ports: Vec<Value> =
            PORTS.iter().map(|(name, protocol, number)| json!({"name": name, "protocol": protocol, "containerPort": number + shift})).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod{n}"), "namespace": format!("n{namespace}"), "labels": labels(draw)},
            "spec": {"containers": [{"name": "main", "ports": ports}]}, "status": {"podIP": format!("10.0.{namespace}.{n}")},
        })
    });
    let pods: Vec<Value> = pods.collect();
    let policies = (0..draw.below(5)).map(|n| policy(draw, n, namespaces.len())).collect();
    Case { namespaces, pods, policies }
}

fn tried() -> Vec<Port> {
    let ports = [(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Tcp, 8080), (Protocol::Udp, 53), (Protocol::Sctp, 80)];
    ports.map(|(protocol, number)| Port { protocol, number }).into()
}

impl Case {
    /// As the oracle reads it.
    fn asked(&self) -> Value {
        let pods = self.pods.iter().map(|pod| {
            let ports = pod["spec"]["containers"][0]["ports"].as_array().expect("a list").iter();
            let ports: Vec<Value> =
                ports.map(|p| json!({"name": p["name"], "number": p["containerPort"], "protocol": p["protocol"]})).collect();
            let metadata = &pod["metadata"];
            json!({"namespace": metadata["namespace"], "labels": metadata["labels"], "address": pod["status"]["podIP"], "ports": ports})
        });
        let outside = OUTSIDE.map(|address| json!({"address": address}));
        let namespaces: serde_json::Map<String, Value> = self.namespaces.iter().cloned().collect();
        let mut namespaces = Value::from(namespaces);
        for (name, labels) in namespaces.as_object_mut().expect("an object") {
            labels["kubernetes.io/metadata.name"] = name.clone().into();
        }
        let ports: Vec<Value> = tried().iter().map(|port| json!({"number": port.number, "protocol": port.protocol.to_string()})).collect();
        json!({"namespaces": namespaces, "ends": pods.chain(outside).collect::<Vec<_>>(), "policies": self.policies, "ports": ports})
    }

    /// One letter for each source, destination and port.
    fn answer(&self) -> String {
        let namespaces = self
            .namespaces
            .iter()
            .map(|(name, labels)| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}));
        let (snapshot, problems) = Snapshot::read(namespaces.chain(self.pods.iter().cloned()).chain(self.policies.iter().cloned()));
        assert_eq!(problems, [""; 0], "{:#?}", self.policies);
        let network = Network::new(&snapshot);
        let pods = self.pods.iter().map(|pod| {
            let name = &pod["metadata"]["name"];
            End::Pod(snapshot.pods.iter().find(|fact| fact.name.name == *name).expect("it is there"))
        });
        let outside = OUTSIDE.map(|address| End::Address(address.parse::<IpAddr>().expect("an address")));
        let ends: Vec<End<'_>> = pods.chain(outside).collect();
        let mut letters = String::new();
        for from in &ends {
            for to in &ends {
                for port in tried() {
                    letters.push(if matches!(network.verdict(*from, *to, port), Verdict::Allowed(_)) { '+' } else { '-' });
                }
            }
        }
        letters
    }
}

/// What the oracle says of each case.
fn oracle(cases: &[Case]) -> Vec<String> {
    let program = repository("target/access/oracle");
    assert!(program.exists(), "the oracle is not built: tests/access/setup.sh, or the whole with `make test-access`");
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let text: String = cases.iter().map(|case| case.asked().to_string() + "\n").collect();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads all");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("letters").lines().map(str::to_owned).collect()
}

#[test]
fn network_policies_mean_what_an_independent_implementation_says() {
    let cases: Vec<Case> = (0..CASES).map(|seed| case(&mut Draw::new(seed))).collect();
    let said = oracle(&cases);
    assert_eq!(said.len(), cases.len());
    let (mut verdicts, mut denied, mut wrong) = (0, 0, Vec::new());
    for (seed, (case, said)) in cases.iter().zip(&said).enumerate() {
        let ours = case.answer();
        verdicts += ours.len();
        denied += ours.bytes().filter(|letter| *letter == b'-').count();
        if ours != *said {
            let at = ours.bytes().zip(said.bytes()).position(|(a, b)| a != b);
            wrong.push(format!(
                "seed {seed}, at {at:?}:\n ours {ours}\n said {said}\n{}",
                serde_json::to_string_pretty(&case.asked()).unwrap_or_default()
            ));
        }
    }
    println!("access: {} cases, {verdicts} verdicts, {denied} of them denied, {} cases differ", cases.len(), wrong.len());
    assert!(denied * 10 > verdicts && denied * 10 < 9 * verdicts, "{denied} of {verdicts}: the cases say little");
    assert!(wrong.is_empty(), "{} cases differ; the first: {}", wrong.len(), wrong[0]);
}
