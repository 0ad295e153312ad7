//! The network: who may open a connection to whom, by every NetworkPolicy that selects one of them.
//!
//! Promise: as the API's own words say it. A pod that no policy selects for a direction is open in it; one that some select may do what any
//! of them allows. Pods of the host's network are the node, which no NetworkPolicy governs. Whether an `ipBlock` covers the addresses of pods
//! is up to the network plugin; here it does, where the pod's address is known.

mod policy;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) use policy::selector;
pub use policy::{Direction, Peer, Peers, Policy, PolicyError, PortMatch, Ports, Protocol, Rule};

use super::snapshot::{PodFact, Snapshot};
use crate::scope::Selector;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    Pod(&'a PodFact),
    /// Outside of all pods.
    Address(IpAddr),
}

/// A port of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub protocol: Protocol,
    pub number: u16,
}

/// Whether a connection may be opened, and what lets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// By these policies; by none where no policy says anything of either end.
    Allowed(Vec<&'a Policy>),
    /// In this direction: these policies select the end, and none allows it.
    Denied(Direction, Vec<&'a Policy>),
}

/// The policies of a snapshot, by the pods that they select.
pub struct Network<'a> {
    namespaces: &'a BTreeMap<String, BTreeMap<String, String>>,
    policies: BTreeMap<&'a str, Vec<&'a Policy>>,
}

/// The policies that govern one pod, in each direction. None: it is open.
pub struct Governed<'a> {
    ingress: Option<Vec<&'a Policy>>,
    egress: Option<Vec<&'a Policy>>,
}

impl<'a> Governed<'a> {
    fn open() -> Self {
        Self { ingress: None, egress: None }
    }

    /// None: no policy says anything of it.
    pub fn by(&self, direction: Direction) -> Option<&[&'a Policy]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

impl<'a> Network<'a> {
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut policies: BTreeMap<&str, Vec<&Policy>> = BTreeMap::new();
        for policy in &snapshot.policies {
            policies.entry(&policy.name.namespace).or_default().push(policy);
        }
        Self { namespaces: &snapshot.namespaces, policies }
    }

    pub fn governed(&self, pod: &PodFact) -> Governed<'a> {
        if pod.host_network {
            return Governed::open();
        }
        let selecting = |direction| {
            let of_namespace = self.policies.get(pod.name.namespace.as_str()).into_iter().flatten();
            let all: Vec<&Policy> =
                of_namespace.copied().filter(|p| p.rules(direction).is_some() && p.selects.matches(&pod.labels)).collect();
            Some(all).filter(|all| !all.is_empty())
        };
        Governed { ingress: selecting(Direction::Ingress), egress: selecting(Direction::Egress) }
    }

    /// Whether one may open a connection to the other.
    pub fn verdict(&self, from: End<'_>, to: End<'_>, port: Port) -> Verdict<'a> {
        let governed = |end: End<'_>| match end {
            End::Pod(pod) => self.governed(pod),
            End::Address(_) => Governed::open(),
        };
        self.judge((from, &governed(from)), (to, &governed(to)), port)
    }

    /// The same, where it is known what governs them.
    pub fn judge(&self, from: (End<'_>, &Governed<'a>), to: (End<'_>, &Governed<'a>), port: Port) -> Verdict<'a> {
        let mut by = Vec::new();
        for (governed, direction, peer) in [(from.1, Direction::Egress, to.0), (to.1, Direction::Ingress, from.0)] {
            let Some(policies) = governed.by(direction) else { continue };
            let allowing = policies.iter().filter(|policy| self.allows(policy, direction, peer, to.0, port));
            let before = by.len();
            by.extend(allowing.copied());
            if by.len() == before {
                return Verdict::Denied(direction, policies.to_vec());
            }
        }
        Verdict::Allowed(by)
    }

    fn allows(&self, policy: &Policy, direction: Direction, peer: End<'_>, to: End<'_>, port: Port) -> bool {
        policy.rules(direction).unwrap_or_default().iter().any(|rule| {
            let peers = match &rule.peers {
                Peers::All => true,
                Peers::Only(peers) => peers.iter().any(|one| self.is(policy, one, peer)),
            };
            peers && rule.ports.hold(to, port)
        })
    }

    fn is(&self, policy: &Policy, peer: &Peer, end: End<'_>) -> bool {
        match (peer, end) {
            (Peer::Block(block), End::Address(address)) => block.contains(address),
            (Peer::Block(block), End::Pod(pod)) => pod.addresses.iter().any(|address| block.contains(*address)),
            (Peer::Pods { .. }, End::Address(_)) => false,
            // It comes as its node.
            (Peer::Pods { .. }, End::Pod(pod)) if pod.host_network => false,
            (Peer::Pods { namespaces, pods }, End::Pod(pod)) => {
                let there = match namespaces {
                    None => pod.name.namespace == policy.name.namespace,
                    Some(namespaces) => namespaces.is_empty() || self.namespace_matches(namespaces, &pod.name.namespace),
                };
                there && pods.matches(&pod.labels)
            }
        }
    }

    fn namespace_matches(&self, selector: &Selector, namespace: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|labels| selector.matches(labels))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(namespace: &str, app: &str, more: Value) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": app, "labels": {"app": app}},
            "spec": {"containers": [{"name": "main", "ports": [{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]}});
        for (key, value) in more.as_object().into_iter().flatten() {
            pod[key] = value.clone();
        }
        pod
    }

    fn policy(spec: Value) -> Value {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "x", "name": "p"}, "spec": spec})
    }

    /// Two namespaces, three pods each, with this policy in `x`.
    fn snapshot(specs: &[Value]) -> Snapshot {
        let mut all = vec![
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"team": "x"}}}),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "y", "labels": {"team": "y"}}}),
        ];
        for namespace in ["x", "y"] {
            for app in ["a", "b", "c"] {
                let address = format!("10.0.{}.{}", u8::from(namespace == "y"), app.as_bytes()[0]);
                all.push(pod(namespace, app, json!({"status": {"podIP": address}})));
            }
        }
        all.push(pod("y", "host", json!({"spec": {"hostNetwork": true, "containers": []}, "status": {"podIP": "192.0.2.1"}})));
        all.extend(specs.iter().map(|spec| policy(spec.clone())));
        let (snapshot, problems) = Snapshot::read(all);
        assert!(problems.is_empty(), "{problems:?}");
        snapshot
    }

    /// Who of all reaches `x/a` and whom `x/a` reaches, at these ports.
    fn reached(specs: &[Value], from: &str, to: &str, port: (Protocol, u16)) -> bool {
        let snapshot = snapshot(specs);
        let network = Network::new(&snapshot);
        let find = |name: &str| snapshot.pods.iter().find(|pod| pod.name.to_string() == name);
        let end = |name: &str| find(name).map_or_else(|| End::Address(name.parse().unwrap()), End::Pod);
        matches!(network.verdict(end(from), end(to), Port { protocol: port.0, number: port.1 }), Verdict::Allowed(_))
    }

    const WEB: (Protocol, u16) = (Protocol::Tcp, 8080);

    #[test]
    fn shapes_of_emptiness() {
        let a = json!({"matchLabels": {"app": "a"}});
        for (what, spec, into, out) in [
            ("no rules, no types: ingress", json!({"podSelector": a}), false, true),
            ("null rules", json!({"podSelector": a, "ingress": null, "policyTypes": ["Ingress"]}), false, true),
            ("an empty list of rules", json!({"podSelector": a, "ingress": []}), false, true),
            ("an empty rule", json!({"podSelector": a, "ingress": [{}]}), true, true),
            ("a rule with empty lists", json!({"podSelector": a, "ingress": [{"from": [], "ports": []}]}), true, true),
            ("egress rules: both, ingress has none", json!({"podSelector": a, "egress": [{}]}), false, true),
            ("egress type alone", json!({"podSelector": a, "policyTypes": ["Egress"]}), true, false),
            ("both types", json!({"podSelector": a, "policyTypes": ["Ingress", "Egress"]}), false, false),
            (
                "rules of a type that is not named",
                json!({"podSelector": a, "policyTypes": ["Egress"], "ingress": [], "egress": [{}]}),
                true,
                true,
            ),
            ("an empty selector selects all", json!({"podSelector": {}}), false, true),
            ("no selector is an empty one", json!({}), false, true),
            ("another pod", json!({"podSelector": {"matchLabels": {"app": "b"}}}), true, true),
            (
                "an empty pod selector as peer: its own namespace",
                json!({"podSelector": a, "ingress": [{"from": [{"podSelector": {}}]}]}),
                false,
                true,
            ),
            ("an empty namespace selector: all", json!({"podSelector": a, "ingress": [{"from": [{"namespaceSelector": {}}]}]}), true, true),
            (
                "a port without a number: all of its protocol",
                json!({"podSelector": a, "ingress": [{"ports": [{"protocol": "UDP"}]}]}),
                false,
                true,
            ),
        ] {
            assert_eq!(reached(std::slice::from_ref(&spec), "y/b", "x/a", WEB), into, "in: {what}");
            assert_eq!(reached(std::slice::from_ref(&spec), "x/a", "y/b", WEB), out, "out: {what}");
        }
    }

    #[test]
    fn peers() {
        let from = |peer: Value| json!({"podSelector": {}, "ingress": [{"from": [peer]}]});
        for (what, peer, allowed) in [
            ("pods here", json!({"podSelector": {"matchLabels": {"app": "b"}}}), &["x/b"][..]),
            (
                "pods there",
                json!({"namespaceSelector": {"matchLabels": {"team": "y"}}, "podSelector": {"matchLabels": {"app": "b"}}}),
                &["y/b"],
            ),
            ("a namespace", json!({"namespaceSelector": {"matchLabels": {"team": "y"}}}), &["y/a", "y/b"]),
            (
                "not a namespace",
                json!({"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["y"]}]}}),
                &["x/b"],
            ),
            ("a block", json!({"ipBlock": {"cidr": "10.0.1.0/24", "except": ["10.0.1.98/32"]}}), &["y/a"]),
            ("the outside", json!({"ipBlock": {"cidr": "203.0.113.0/24"}}), &["203.0.113.7"]),
            ("the node", json!({"ipBlock": {"cidr": "192.0.2.0/24"}}), &["y/host"]),
            ("everybody's pods are not the node", json!({"namespaceSelector": {}, "podSelector": {}}), &["x/b", "y/a", "y/b"]),
        ] {
            for one in ["x/b", "y/a", "y/b", "y/host", "203.0.113.7"] {
                assert_eq!(reached(&[from(peer.clone())], one, "x/a", WEB), allowed.contains(&one), "{what}: {one}");
            }
        }
    }

    #[test]
    fn ports() {
        use Protocol::{Sctp, Tcp, Udp};
        let at = |port: Value| json!({"podSelector": {}, "ingress": [{"ports": [port]}]});
        for (what, port, allowed) in [
            ("a number", json!({"port": 8080}), &[(Tcp, 8080)][..]),
            ("a name", json!({"port": "web"}), &[(Tcp, 8080)]),
            ("a name of another protocol", json!({"port": "dns"}), &[]),
            ("the same, as it is", json!({"port": "dns", "protocol": "UDP"}), &[(Udp, 53)]),
            ("a name that is not there", json!({"port": "none"}), &[]),
            ("a range", json!({"port": 8000, "endPort": 8080}), &[(Tcp, 8080), (Tcp, 8000)]),
            ("a protocol", json!({"protocol": "SCTP"}), &[(Sctp, 8080), (Sctp, 53)]),
        ] {
            for one in [(Tcp, 8080), (Tcp, 8000), (Tcp, 8081), (Udp, 53), (Tcp, 53), (Sctp, 8080), (Sctp, 53), (Udp, 8080)] {
                assert_eq!(reached(&[at(port.clone())], "y/b", "x/a", one), allowed.contains(&one), "{what}: {one:?}");
            }
        }
    }

    #[test]
    fn policies_only_ever_add_up_and_both_ends_must_agree() {
        let none = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        let open = json!({"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [{}], "egress": [{}]});
        assert!(!reached(std::slice::from_ref(&none), "x/a", "x/b", WEB));
        assert!(reached(&[none.clone(), open.clone()], "x/a", "y/b", WEB));
        assert!(!reached(&[none.clone(), open.clone()], "x/a", "x/b", WEB), "x/b takes nothing");
        assert!(!reached(&[none.clone(), open.clone()], "x/b", "x/a", WEB), "x/b sends nothing");
        let snapshot = snapshot(&[none, open]);
        let network = Network::new(&snapshot);
        let find = |name: &str| End::Pod(snapshot.pods.iter().find(|pod| pod.name.to_string() == name).unwrap());
        let port = Port { protocol: Protocol::Tcp, number: 1 };
        let Verdict::Allowed(by) = network.verdict(find("x/a"), find("y/b"), port) else { panic!("denied") };
        assert_eq!(by.len(), 1, "and the one that allows it is named");
        let Verdict::Denied(Direction::Ingress, by) = network.verdict(find("x/a"), find("x/b"), port) else { panic!("allowed") };
        assert_eq!(by.len(), 1);
        let Verdict::Allowed(by) = network.verdict(find("y/a"), find("y/b"), port) else { panic!("denied") };
        assert!(by.is_empty(), "nothing selects them");
    }
}
