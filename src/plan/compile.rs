//! `Scope` + `Ceilings` + `Facts` → `Plan`.

use std::fmt;

use super::{Facts, Kind, ManagedObject, Origin};
use super::{guard, identity, network, rbac};
use crate::scope::{Ceilings, Mode, Scope};

/// Everything that the cluster must hold for one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The scope that is held: what was declared, narrowed by the ceilings.
    pub scope: Scope,
    pub digest: String,
    /// In the order of [`super::Kind`], then by namespace and name. In Observe only what tells the guards to record.
    pub objects: Vec<ManagedObject>,
    /// What was declared and is not in the plan, and why. Sorted.
    pub refusals: Vec<Refusal>,
}

/// Something declared that is not in the plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    pub reason: RefusalReason,
    /// Where it was declared, e.g. `dataSources[name=orders-db].service`.
    pub path: String,
    pub message: String,
}

/// Why something declared is not in the plan. The name is the reason of the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// A ceiling does not allow it.
    CeilingExceeded,
    /// It leads to addresses that no scope may reach.
    AddressNotAllowed,
    /// An ExternalName Service leads anywhere its editors say.
    ExternalName,
    /// The cluster's pod ranges are unknown, so that the outside cannot be told from a pod.
    ClusterRangesUnknown,
    /// It is not there (yet).
    NotFound,
}

impl RefusalReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CeilingExceeded => "CeilingExceeded",
            Self::AddressNotAllowed => "AddressNotAllowed",
            Self::ExternalName => "ExternalName",
            Self::ClusterRangesUnknown => "ClusterRangesUnknown",
            Self::NotFound => "NotFound",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason: _, path, message } = self;
        write!(f, "{path}: {message}")
    }
}

/// What this scope compiles to. No `origin`: offline, without owner references. The guards' policy is not signed yet.
pub fn compile(scope: &Scope, origin: Option<&Origin>, ceilings: &Ceilings, facts: &Facts) -> Plan {
    let uid = origin.map(|origin| origin.uid.as_str());
    let (scope, excesses) = ceilings.narrow(scope);
    let mut refusals: Vec<Refusal> = excesses
        .iter()
        .map(|excess| Refusal {
            reason: RefusalReason::CeilingExceeded,
            path: format!("dataSources[name={}]", excess.source),
            message: excess.message(),
        })
        .collect();
    let mut objects = vec![network::policy(&scope, ceilings, facts, &mut refusals)];
    objects.extend(guard::config_map(&scope, origin, ceilings, facts));
    objects.extend(identity::service_account(&scope, uid));
    objects.extend(rbac::roles_and_bindings(&scope, uid));
    if scope.mode == Mode::Observe {
        objects.retain(|object| object.kind() == Kind::ConfigMap);
    }
    objects.sort_by_key(ManagedObject::key);
    refusals.sort();
    refusals.dedup();
    Plan { digest: scope.digest(), scope, objects, refusals }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::plan::fixture::{self, FULL, WIDE, facts, scope, unguarded};
    use crate::scope::{ObjectName, Source, Target};

    fn yaml(objects: &[ManagedObject]) -> String {
        objects.iter().map(|o| serde_saphyr::to_string(o).unwrap()).collect::<Vec<_>>().join("---\n")
    }

    /// Every single thing that the objects allow: (who, what) pairs, flattened.
    fn allowed(plan: &Plan) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for object in &plan.objects {
            match object {
                ManagedObject::NetworkPolicy(policy) => {
                    let spec = policy.spec.as_ref().unwrap();
                    for rule in spec.egress.iter().flatten() {
                        for to in rule.to.iter().flatten() {
                            for port in rule.ports.iter().flatten() {
                                all.insert(format!("to {} {}", serde_json::to_string(to).unwrap(), serde_json::to_string(port).unwrap()));
                            }
                        }
                    }
                    for rule in spec.ingress.iter().flatten() {
                        for from in rule.from.iter().flatten() {
                            for port in rule.ports.iter().flatten() {
                                all.insert(format!(
                                    "from {} {}",
                                    serde_json::to_string(from).unwrap(),
                                    serde_json::to_string(port).unwrap()
                                ));
                            }
                        }
                    }
                }
                ManagedObject::Role(role) => {
                    for rule in role.rules.iter().flatten() {
                        for verb in &rule.verbs {
                            for resource in rule.resources.iter().flatten() {
                                let names = rule.resource_names.clone().unwrap_or_else(|| vec!["any".into()]);
                                for name in names {
                                    all.insert(format!("{:?} {verb} {resource} {:?} {name}", role.metadata.namespace, rule.api_groups));
                                }
                            }
                        }
                    }
                }
                ManagedObject::ConfigMap(map) => all.extend(guard::passed(map)),
                ManagedObject::ServiceAccount(_) | ManagedObject::RoleBinding(_) => {}
            }
        }
        all
    }

    #[test]
    fn the_full_scope_as_objects() {
        let plan = compile(&scope(FULL), Some(&fixture::origin()), &fixture::ceilings(&[WIDE]), &facts());
        let expected = include_str!("testdata/full.yaml");
        let got = yaml(&plan.objects);
        if std::env::var_os("REMIT_GENERATE").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan/testdata/full.yaml"), &got).unwrap();
            return;
        }
        assert_eq!(got, expected, "REMIT_GENERATE=1 rewrites src/plan/testdata/full.yaml; read its diff");
    }

    #[test]
    fn absent_means_denied_at_every_level() {
        let selector = "selector: {matchLabels: {app: a}}\nmode: Enforce\n";
        for more in ["", "dataSources: []", "capabilities: {}", "capabilities: {clients: []}"] {
            let plan = compile(&scope(&format!("{selector}{more}")), None, &fixture::ceilings(&[WIDE]), &unguarded());
            assert_eq!(allowed(&plan), BTreeSet::new(), "{more}");
            let ManagedObject::NetworkPolicy(policy) = &plan.objects[0] else { panic!("the policy comes first") };
            let spec = policy.spec.as_ref().unwrap();
            // Spelled out: an omitted list is one that somebody else may fill.
            assert_eq!(spec.egress, Some(vec![]));
            assert_eq!(spec.ingress, Some(vec![]));
            assert_eq!(spec.policy_types, Some(vec!["Ingress".into(), "Egress".into()]));
        }
        // An empty ceiling allows nothing of what it bounds; clients are the workload's own side.
        let empty = fixture::ceilings(&["namespaceSelector: {}"]);
        let plan = compile(&scope(FULL), None, &empty, &unguarded());
        assert!(allowed(&plan).iter().all(|a| a.starts_with("from ")), "{:?}", allowed(&plan));
        // No facts: nothing but the API server's and clients' rules could be known, and it is not.
        let plan = compile(&scope(FULL), None, &fixture::ceilings(&[WIDE]), &Facts::default());
        assert!(allowed(&plan).iter().all(|a| !a.starts_with("to ")), "{:?}", allowed(&plan));
    }

    #[test]
    fn without_a_ceiling_only_the_own_namespace() {
        let plan = compile(&scope(FULL), None, &Ceilings::default(), &facts());
        let kept: Vec<&str> = plan.scope.sources.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(kept, ["cache", "files", "prompts", "settings", "token"]);
        assert!(plan.refusals.iter().all(|r| r.reason == RefusalReason::CeilingExceeded));
    }

    /// What guards keep while nothing is allowed.
    const TO_OPERATOR: &str = r#"to {"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"remit-system"}},"podSelector":{"matchLabels":{"app.kubernetes.io/component":"operator","app.kubernetes.io/name":"remit"}}} {"port":9445,"protocol":"TCP"}"#;

    #[test]
    fn suspended_and_observed_allow_nothing() {
        let suspended = compile(&scope(&format!("{FULL}\nsuspend: true")), None, &fixture::ceilings(&[WIDE]), &facts());
        assert_eq!(allowed(&suspended).into_iter().collect::<Vec<_>>(), [TO_OPERATOR]);
        assert_eq!(suspended.objects.len(), compile(&scope(FULL), None, &fixture::ceilings(&[WIDE]), &facts()).objects.len());
        let observed = compile(&scope(&FULL.replace("Enforce", "Observe")), None, &fixture::ceilings(&[WIDE]), &facts());
        let kinds: Vec<Kind> = observed.objects.iter().map(ManagedObject::kind).collect();
        assert_eq!(kinds, [Kind::ConfigMap], "Observe tells the guards to record, and writes nothing that denies");
        assert!(yaml(&observed.objects).contains("\"mode\": \"Observe\""));
        let unguarded = compile(&scope(&FULL.replace("Enforce", "Observe")), None, &fixture::ceilings(&[WIDE]), &unguarded());
        assert_eq!(unguarded.objects, vec![], "without guards it writes nothing");
    }

    #[test]
    fn guards_reach_the_operator_and_need_its_name() {
        let nothing = scope("selector: {matchLabels: {app: a}}\nmode: Enforce");
        let plan = compile(&nothing, None, &fixture::ceilings(&[WIDE]), &facts());
        let opened: Vec<String> = allowed(&plan).into_iter().collect();
        assert!(opened.iter().any(|o| o == TO_OPERATOR), "{opened:#?}");
        let dns = |o: &&String| o.contains("\"port\":53") && (o.contains("kube-dns") || o.contains("169.254.20.10/32"));
        assert_eq!((opened.len(), opened.iter().filter(dns).count()), (5, 4), "the operator and DNS: {opened:#?}");
        let suspended = scope("selector: {matchLabels: {app: a}}\nmode: Enforce\nsuspend: true");
        assert_eq!(allowed(&compile(&suspended, None, &fixture::ceilings(&[WIDE]), &unguarded())), BTreeSet::new());
        let kinds = |plan: &Plan| plan.objects.iter().map(ManagedObject::kind).collect::<Vec<_>>();
        assert_eq!(kinds(&plan), [Kind::NetworkPolicy, Kind::ConfigMap, Kind::ServiceAccount]);
        assert_eq!(kinds(&compile(&nothing, None, &fixture::ceilings(&[WIDE]), &unguarded())), [Kind::NetworkPolicy, Kind::ServiceAccount]);
    }

    /// Whoever may write EndpointSlices beside a declared Service leads its callers nowhere that the scope does not name.
    #[test]
    fn a_service_that_a_slice_leads_out_of_the_cluster_is_refused() {
        let spec = "selector: {matchLabels: {app: a}}\nmode: Enforce\ndataSources: [{name: s, class: Internal, type: Service, access: ReadWrite, service: {name: cache, port: 6379, protocol: TCP}}]";
        let cache = ObjectName::new("support", "cache");
        for (address, refused) in
            [("203.0.113.11", true), ("2001:db8:ffff::11", true), ("::ffff:203.0.113.11", true), ("10.244.0.9", false)]
        {
            let mut facts = facts();
            let address = address.parse().unwrap();
            facts.endpoints.insert(
                cache.clone(),
                vec![crate::plan::EndpointFact { address, port_name: String::new(), port: 443, transport: crate::plan::Transport::Tcp }],
            );
            let plan = compile(&scope(spec), None, &fixture::ceilings(&[WIDE]), &facts);
            assert_eq!(plan.refusals.iter().any(|r| r.reason == RefusalReason::AddressNotAllowed), refused, "{address}");
            let text = yaml(&plan.objects);
            assert_eq!(text.contains("\"name\": \"cache\""), !refused, "{address}: {text}");
        }
    }

    /// Then the outside is closed, and the proxy open for those who declare a host.
    #[test]
    fn hosts_behind_a_proxy() {
        let spec = |sources: &str| scope(&format!("selector: {{matchLabels: {{app: a}}}}\nmode: Enforce\ndataSources: [{sources}]"));
        let addresses = ["203.0.113.200:3128", "[2001:db8:7::8]:3129", "[::ffff:203.0.113.201]:8080"].map(|a| a.parse().unwrap()).into();
        let facts = Facts { proxy: Some(crate::policy::Proxy { addresses }), ..facts() };
        let opened = |sources: &str, facts: &Facts| -> Vec<String> {
            let plan = compile(&spec(sources), None, &fixture::ceilings(&[WIDE]), facts);
            allowed(&plan).into_iter().filter(|a| a.contains("ipBlock") && !a.contains("169.254.20.10")).collect()
        };
        let host = "{name: help, class: Public, type: Host, access: ReadWrite, host: {name: help.example.com, port: 443}}";
        let to = |cidr: &str, port: u16| format!(r#"to {{"ipBlock":{{"cidr":"{cidr}"}}}} {{"port":{port},"protocol":"TCP"}}"#);
        assert_eq!(opened(host, &facts), [to("2001:db8:7::8/128", 3129), to("203.0.113.200/32", 3128), to("203.0.113.201/32", 8080)]);
        let service =
            "{name: cache, class: Internal, type: Service, access: ReadWrite, service: {name: cache, port: 6379, protocol: HTTP}}";
        assert_eq!(opened(service, &facts), [""; 0], "Services are reached themselves");
        assert!(opened(host, &fixture::facts()).iter().any(|o| o.contains("0.0.0.0/0")), "without one, the outside");
    }

    #[test]
    fn a_selector_too_large_for_a_policy_is_refused() {
        let service = |labels: usize| {
            let mut facts = facts();
            let selector = (0..labels).map(|n| (format!("label-{n}"), "x".to_owned())).collect();
            facts.services.get_mut(&ObjectName::new("support", "cache")).unwrap().selector = selector;
            compile(&scope(FULL), None, &fixture::ceilings(&[WIDE]), &facts)
        };
        let refused = |plan: &Plan| plan.refusals.iter().any(|r| r.path == "dataSources[name=cache].service");
        let opened = |plan: &Plan| yaml(&plan.objects).contains("label-31");
        let (most, more) = (service(32), service(33));
        assert!(!refused(&most) && opened(&most));
        assert!(refused(&more) && !opened(&more), "{:?}", more.refusals);
    }

    #[test]
    fn every_refusal_says_why() {
        let mut spec = FULL.to_owned();
        spec = spec.replace("capabilities:", "- {name: gone, class: Public, type: Service, access: ReadWrite, service: {name: gone, port: 1, protocol: TCP}}\n- {name: away, class: Public, type: Service, access: ReadWrite, service: {name: elsewhere, namespace: shop, port: 80, protocol: TCP}}\n- {name: wrong-port, class: Public, type: Service, access: ReadWrite, service: {name: cache, port: 6380, protocol: TCP}}\ncapabilities:");
        let wide = WIDE.replace("- {name: own,", "- {name: shop-all, namespace: shop, services: ['*']}\n- {name: own,");
        let mut facts = facts();
        facts.ranges.pods.clear();
        let plan = compile(&scope(&spec), None, &fixture::ceilings(&[&wide]), &facts);
        let said: Vec<(RefusalReason, &str)> = plan.refusals.iter().map(|r| (r.reason, r.path.as_str())).collect();
        use RefusalReason::*;
        assert_eq!(
            said,
            [
                (AddressNotAllowed, "dataSources[name=old-db].service"),
                (ExternalName, "dataSources[name=away].service"),
                (ClusterRangesUnknown, "dataSources[name=help].host"),
                (ClusterRangesUnknown, "dataSources[name=status].host"),
                (NotFound, "dataSources[name=gone].service"),
                (NotFound, "dataSources[name=wrong-port].service"),
            ]
        );
    }

    fn subset(of: &Scope, keep: &[bool]) -> Scope {
        let sources: Vec<Source> = of.sources.iter().zip(keep).filter(|(_, k)| **k).map(|(s, _)| s.clone()).collect();
        let clients = of.clients.iter().zip(keep.iter().rev()).filter(|(_, k)| **k).map(|(c, _)| c.clone()).collect();
        Scope { sources, clients, ..of.clone() }
    }

    /// Ceilings that allow parts of FULL.
    fn any_ceilings() -> impl Strategy<Value = Ceilings> {
        proptest::collection::vec(proptest::collection::vec(any::<bool>(), 8), 0..3).prop_map(|many| {
            Ceilings(
                many.iter()
                    .enumerate()
                    .map(|(i, keep)| {
                        let mut all = fixture::ceilings(&[WIDE]).0.remove(0);
                        all.name = format!("c{i}");
                        let mut keep = keep.iter().copied().cycle();
                        all.hosts.retain(|_| keep.next().unwrap());
                        all.services.retain(|_| keep.next().unwrap());
                        all.kubernetes.retain(|_| keep.next().unwrap());
                        all.classes.retain(|_| keep.next().unwrap());
                        all
                    })
                    .collect(),
            )
        })
    }

    fn atoms(scope: &Scope) -> BTreeSet<String> {
        scope
            .sources
            .iter()
            .flat_map(|s| match &s.target {
                Target::Kubernetes(permissions) => permissions.iter().map(ToString::to_string).collect(),
                target => vec![format!("{target:?}")],
            })
            .collect()
    }

    proptest! {
        #[test]
        fn adding_never_removes_and_removing_never_adds(small in proptest::collection::vec(any::<bool>(), 10), more in proptest::collection::vec(any::<bool>(), 10)) {
            let (full, wide) = (scope(FULL), fixture::ceilings(&[WIDE]));
            let both: Vec<bool> = small.iter().zip(&more).map(|(a, b)| *a || *b).collect();
            let less = compile(&subset(&full, &small), None, &wide, &facts());
            let more = compile(&subset(&full, &both), None, &wide, &facts());
            prop_assert!(allowed(&less).is_subset(&allowed(&more)));
        }

        #[test]
        fn what_is_held_exceeds_neither_scope_nor_any_ceiling(keep in proptest::collection::vec(any::<bool>(), 10), some in any_ceilings(), another in any_ceilings()) {
            let declared = subset(&scope(FULL), &keep);
            let (held, excesses) = some.narrow(&declared);
            prop_assert!(atoms(&held).is_subset(&atoms(&declared)));
            prop_assert_eq!(excesses.is_empty(), held == declared);
            for one in &some.0 {
                let (again, _) = Ceilings(vec![one.clone()]).narrow(&held);
                prop_assert_eq!(&again, &held, "everything held is within each ceiling");
            }
            // One more ceiling never adds (two of none and some differ: none is a default of its own).
            if !some.0.is_empty() {
                let joined = Ceilings(some.0.iter().chain(&another.0).cloned().collect());
                prop_assert!(atoms(&joined.narrow(&declared).0).is_subset(&atoms(&held)));
                let with = compile(&declared, None, &joined, &facts());
                let without = compile(&declared, None, &some, &facts());
                prop_assert!(allowed(&with).is_subset(&allowed(&without)));
            }
        }

        #[test]
        fn the_plan_does_not_depend_on_order(seed in any::<u64>()) {
            let mut workload = fixture::workload(FULL);
            let by = |name: &str| { use std::hash::{DefaultHasher, Hash, Hasher}; let mut h = DefaultHasher::new(); (seed, name).hash(&mut h); h.finish() };
            workload.spec.data_sources.sort_by_key(|s| by(&s.name));
            workload.spec.capabilities.as_mut().unwrap().clients.sort_by_key(|c| by(&c.name));
            let wide = fixture::ceilings(&[WIDE]);
            let shuffled = compile(&crate::plan::validate(&workload).unwrap(), None, &wide, &facts());
            prop_assert_eq!(shuffled, compile(&scope(FULL), None, &wide, &facts()));
        }

        /// Whatever an editor of EndpointSlices writes, nothing outside of the ceiling's addresses, and never the cluster's own, becomes reachable.
        #[test]
        fn endpoints_never_widen(addresses in proptest::collection::vec((any::<u32>(), any::<u16>()), 0..8), forbidden in prop_oneof![Just("169.254.169.254"), Just("10.244.9.9"), Just("10.96.0.1"), Just("198.18.7.7"), Just("10.99.0.2"), Just("127.0.0.1"), Just("::1"), Just("2001:db8:10:244::9"), Just("::ffff:10.96.0.1")]) {
            let mut facts = facts();
            let endpoints = facts.endpoints.values_mut().next().unwrap();
            for (address, port) in addresses {
                endpoints.push(crate::plan::EndpointFact { address: std::net::IpAddr::V4(address.into()), port_name: "my".into(), port, transport: crate::plan::Transport::Tcp });
            }
            endpoints.push(crate::plan::EndpointFact { address: forbidden.parse().unwrap(), port_name: "my".into(), port: 6443, transport: crate::plan::Transport::Tcp });
            let mut spec = scope(FULL);
            spec.sources.retain(|s| s.name == "old-db");
            let everything = WIDE.replace("addresses: [10.50.0.0/24, 198.51.100.0/24, 169.254.169.254, 10.244.0.0/16]", "addresses: [10.50.0.0/24, 169.254.169.254, 10.244.0.0/16, 10.96.0.0/16, 198.18.7.7, 10.99.0.2, 127.0.0.1, '::/0']");
            let plan = compile(&spec, None, &fixture::ceilings(&[&everything]), &facts);
            let ceiling: ipnet::IpNet = "10.50.0.0/24".parse().unwrap();
            for allowed in allowed(&plan).into_iter().filter(|a| a.starts_with("to ")) {
                let Some(at) = allowed.find("\"cidr\":\"") else { continue };
                let cidr: ipnet::IpNet = allowed[at + 8..].split('"').next().unwrap().parse().unwrap();
                prop_assert!(ceiling.contains(&cidr) || cidr == "169.254.20.10/32".parse::<ipnet::IpNet>().unwrap(), "{}", allowed);
            }
        }
    }
}
