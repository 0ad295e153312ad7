//! The network: who may open a connection to whom, by every policy that selects one of them.
//!
//! Promise: as the API's own words say it. ClusterNetworkPolicies of the Admin tier come first, then NetworkPolicies, then the Baseline tier.
//! A pod that none of them decides on is open; one that NetworkPolicies select may do what any of them allows. Pods of the host's network are
//! the node, which none governs. Whether an `ipBlock` covers the addresses of pods is up to the network plugin; here it does, where the pod's
//! address is known.

mod cluster;
mod policy;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

pub use cluster::{Action, ClusterPolicy, Spec, Tier};
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

/// Whether a connection may be opened, and what decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// By these; by none where nothing is said of either end.
    Allowed(Vec<By<'a>>),
    /// In this direction, by these.
    Denied(Direction, Vec<By<'a>>),
}

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    NetworkPolicy(&'a Policy),
    ClusterNetworkPolicy(&'a ClusterPolicy),
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkPolicy(policy) => write!(f, "NetworkPolicy {}", policy.name),
            Self::ClusterNetworkPolicy(policy) => write!(f, "ClusterNetworkPolicy {}", policy.name),
        }
    }
}

/// The policies of a snapshot, by the pods that they select.
pub struct Network<'a> {
    namespaces: &'a BTreeMap<String, BTreeMap<String, String>>,
    policies: BTreeMap<&'a str, Vec<&'a Policy>>,
    /// In their order.
    cluster: Vec<&'a ClusterPolicy>,
}

/// What governs one pod.
#[derive(Default)]
pub struct Governed<'a> {
    /// NetworkPolicies. None: it is open to what they could say.
    ingress: Option<Vec<&'a Policy>>,
    egress: Option<Vec<&'a Policy>>,
    /// In their order, both tiers.
    cluster: Vec<&'a ClusterPolicy>,
}

impl<'a> Governed<'a> {
    /// NetworkPolicies that select it. None: none says anything of it.
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
        let mut cluster: Vec<&ClusterPolicy> = snapshot.cluster_policies.iter().collect();
        cluster.sort_by_key(|policy| (policy.tier, policy.priority, &policy.name));
        Self { namespaces: &snapshot.namespaces, policies, cluster }
    }

    pub fn governed(&self, pod: &PodFact) -> Governed<'a> {
        if pod.host_network {
            return Governed::default();
        }
        let selecting = |direction| {
            let of_namespace = self.policies.get(pod.name.namespace.as_str()).into_iter().flatten();
            let all: Vec<&Policy> =
                of_namespace.copied().filter(|p| p.rules(direction).is_some() && p.selects.matches(&pod.labels)).collect();
            Some(all).filter(|all| !all.is_empty())
        };
        Governed {
            ingress: selecting(Direction::Ingress),
            egress: selecting(Direction::Egress),
            cluster: self.cluster.iter().copied().filter(|policy| policy.selects(pod, self)).collect(),
        }
    }

    /// Whether one may open a connection to the other.
    pub fn verdict(&self, from: End<'_>, to: End<'_>, port: Port) -> Verdict<'a> {
        let governed = |end: End<'_>| match end {
            End::Pod(pod) => self.governed(pod),
            End::Address(_) => Governed::default(),
        };
        self.judge((from, &governed(from)), (to, &governed(to)), port)
    }

    /// The same, where it is known what governs them.
    pub fn judge(&self, from: (End<'_>, &Governed<'a>), to: (End<'_>, &Governed<'a>), port: Port) -> Verdict<'a> {
        let mut all = Vec::new();
        for (governed, direction, peer) in [(from.1, Direction::Egress, to.0), (to.1, Direction::Ingress, from.0)] {
            match self.decide(governed, direction, peer, to.0, port) {
                Ok(by) => all.extend(by),
                Err(by) => return Verdict::Denied(direction, by),
            }
        }
        Verdict::Allowed(all)
    }

    /// One direction: by what it is allowed, or denied.
    fn decide(
        &self,
        governed: &Governed<'a>,
        direction: Direction,
        peer: End<'_>,
        to: End<'_>,
        port: Port,
    ) -> Result<Vec<By<'a>>, Vec<By<'a>>> {
        let tier = |tier| {
            let of_tier = governed.cluster.iter().filter(|policy| policy.tier == tier);
            of_tier.filter_map(|policy| Some((*policy, policy.decides(direction, peer, to, port, self)?))).next()
        };
        match tier(Tier::Admin) {
            Some((policy, Action::Accept)) => return Ok(vec![By::ClusterNetworkPolicy(policy)]),
            Some((policy, Action::Deny)) => return Err(vec![By::ClusterNetworkPolicy(policy)]),
            Some((_, Action::Pass)) | None => {}
        }
        if let Some(policies) = governed.by(direction) {
            let allowing = policies.iter().filter(|policy| self.allows(policy, direction, peer, to, port));
            let allowing: Vec<_> = allowing.map(|policy| By::NetworkPolicy(policy)).collect();
            return if allowing.is_empty() { Err(policies.iter().map(|policy| By::NetworkPolicy(policy)).collect()) } else { Ok(allowing) };
        }
        match tier(Tier::Baseline) {
            Some((policy, Action::Accept)) => Ok(vec![By::ClusterNetworkPolicy(policy)]),
            Some((policy, Action::Deny)) => Err(vec![By::ClusterNetworkPolicy(policy)]),
            Some((_, Action::Pass)) | None => Ok(Vec::new()),
        }
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
                    Some(namespaces) => self.namespace_matches(namespaces, &pod.name.namespace),
                };
                there && pods.matches(&pod.labels)
            }
        }
    }

    fn namespace_matches(&self, selector: &Selector, namespace: &str) -> bool {
        selector.is_empty() || self.namespaces.get(namespace).is_some_and(|labels| selector.matches(labels))
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

    #[test]
    fn tiers() {
        let cluster = |name: &str, tier: &str, priority: i32, rules: Value| {
            json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": name},
                "spec": {"tier": tier, "priority": priority, "subject": {"namespaces": {"matchLabels": {"team": "x"}}}, "ingress": rules}})
        };
        let rule = |action: &str, from: Value| json!({"action": action, "from": [from]});
        let all = || json!({"namespaces": {}});
        let (only_b, nobody) = (
            json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}}]}]}),
            json!({"podSelector": {}}),
        );
        let b = || json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}}});
        for (what, clusters, policy, allowed) in [
            ("deny before", vec![cluster("c", "Admin", 1, json!([rule("Deny", all())]))], Some(&only_b), &[][..]),
            ("accept before", vec![cluster("c", "Admin", 1, json!([rule("Accept", all())]))], Some(&nobody), &["y/a", "y/b"]),
            ("pass before", vec![cluster("c", "Admin", 1, json!([rule("Pass", all())]))], Some(&only_b), &["y/b"]),
            (
                "pass skips a later deny",
                vec![cluster("c", "Admin", 1, json!([rule("Pass", b())])), cluster("d", "Admin", 2, json!([rule("Deny", all())]))],
                None,
                &["y/b"],
            ),
            (
                "accept skips a later deny",
                vec![cluster("c", "Admin", 2, json!([rule("Deny", all())])), cluster("d", "Admin", 1, json!([rule("Accept", b())]))],
                Some(&nobody),
                &["y/b"],
            ),
            (
                "the first rule decides",
                vec![cluster("c", "Admin", 1, json!([rule("Deny", b()), rule("Accept", all())]))],
                Some(&nobody),
                &["y/a"],
            ),
            (
                "no rule matches",
                vec![cluster("c", "Admin", 1, json!([rule("Deny", json!({"namespaces": {"matchLabels": {"team": "z"}}}))]))],
                None,
                &["y/a", "y/b"],
            ),
            ("baseline, where nothing selects", vec![cluster("c", "Baseline", 1, json!([rule("Deny", all())]))], None, &[]),
            ("baseline, where something selects", vec![cluster("c", "Baseline", 1, json!([rule("Deny", all())]))], Some(&only_b), &["y/b"]),
            (
                "passed to nothing",
                vec![
                    cluster("c", "Admin", 1, json!([rule("Pass", all())])),
                    cluster("d", "Baseline", 1, json!([rule("Pass", b()), rule("Deny", all())])),
                ],
                None,
                &["y/b"],
            ),
        ] {
            let mut objects = vec![];
            for (namespace, team) in [("x", "x"), ("y", "y")] {
                objects.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {"team": team}}}));
            }
            objects.extend([pod("x", "a", json!({})), pod("y", "a", json!({})), pod("y", "b", json!({}))]);
            objects.extend(clusters);
            objects.extend(policy.map(|spec| super::tests::policy(spec.clone())));
            let (snapshot, problems) = Snapshot::read(objects);
            assert!(problems.is_empty() && snapshot.omitted.is_empty(), "{problems:?}");
            let network = Network::new(&snapshot);
            let find = |name: &str| End::Pod(snapshot.pods.iter().find(|pod| pod.name.to_string() == name).unwrap());
            for from in ["y/a", "y/b"] {
                let verdict = network.verdict(find(from), find("x/a"), Port { protocol: Protocol::Tcp, number: 8080 });
                assert_eq!(matches!(verdict, Verdict::Allowed(_)), allowed.contains(&from), "{what}: {from}: {verdict:?}");
            }
        }
    }

    #[test]
    fn ports_and_networks_of_the_cluster() {
        let spec = json!({"tier": "Admin", "priority": 0, "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "a"}}}}, "egress": [
            {"action": "Accept", "to": [{"pods": {"namespaceSelector": {}, "podSelector": {}}}], "protocols": [{"tcp": {"destinationPort": {"range": {"start": 80, "end": 90}}}}, {"destinationNamedPort": "dns"}]},
            {"action": "Accept", "to": [{"networks": ["203.0.113.0/24", "2001:db8::/32"]}], "protocols": [{"udp": {}}]},
            {"action": "Accept", "to": [{"domainNames": ["example.com"]}]},
            {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}, {"namespaces": {}}]},
        ]});
        let policy = json!({"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "c"}, "spec": spec});
        let (snapshot, problems) = Snapshot::read([policy, pod("x", "a", json!({})), pod("x", "b", json!({}))]);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(snapshot.cluster_policies[0].unread, ["egress[2] peer 0"]);
        let network = Network::new(&snapshot);
        let find = |name: &str| snapshot.pods.iter().find(|pod| pod.name.name == name).unwrap();
        for (to, protocol, number, allowed) in [
            ("b", Protocol::Tcp, 80, true),
            ("b", Protocol::Tcp, 90, true),
            ("b", Protocol::Tcp, 91, false),
            ("b", Protocol::Udp, 53, true),
            ("b", Protocol::Tcp, 53, false),
            ("203.0.113.9", Protocol::Udp, 1, true),
            ("203.0.113.9", Protocol::Tcp, 1, false),
            ("198.51.100.1", Protocol::Udp, 1, false),
            ("2001:db9::1", Protocol::Udp, 1, true),
        ] {
            let end = to.parse().map_or_else(|_| End::Pod(find(to)), End::Address);
            let verdict = network.verdict(End::Pod(find("a")), end, Port { protocol, number });
            assert_eq!(matches!(verdict, Verdict::Allowed(_)), allowed, "{to} {protocol} {number}");
        }
    }
}
