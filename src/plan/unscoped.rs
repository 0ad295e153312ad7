//! Namespace isolation: what `unscopedPods: Isolate` writes.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::network::label_selector;
use crate::api;
use crate::scope::{Requirement, Selector};

/// Name of the policy, in every isolated namespace. No AIWorkload's name can hold a dot, so no workload's policy bears it.
pub const UNSCOPED_POLICY: &str = "remit.unscoped";

/// A policy that selects every pod of the namespace and allows nothing: the workloads' own policies add to it. Pods of Observe
/// workloads must stay as they are found: one requirement of each such selector is negated, the first in a fixed order. A pod that
/// is named by that requirement alone is left out as well; a label selector cannot say more.
pub fn unscoped_policy(namespace: &str, observed: &[Selector]) -> NetworkPolicy {
    let mut negated: Vec<_> = observed
        .iter()
        .filter_map(|selector| left_out(selector).requirements().next().map(|(key, requirement)| (key.to_owned(), requirement.negated())))
        .collect();
    negated.sort();
    negated.dedup();
    let selector = Selector::new(negated).expect("negated requirements of valid selectors are valid");
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(UNSCOPED_POLICY.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some([(api::MANAGED_BY_LABEL.to_owned(), api::MANAGED_BY.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(label_selector(&selector)),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
        }),
    }
}

/// The pods that the isolation leaves out for an Observe workload: those of one of its requirements, the first that names values if
/// there is one. Whoever changes it changes who is isolated.
pub fn left_out(selector: &Selector) -> Selector {
    let named = selector.requirements().find(|(_, requirement)| matches!(requirement, Requirement::In(_)));
    let one = named.or_else(|| selector.requirements().next());
    Selector::new(one.map(|(key, requirement)| (key.to_owned(), requirement.clone()))).expect("a requirement of a valid selector is valid")
}
