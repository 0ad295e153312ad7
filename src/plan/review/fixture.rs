//! Fixtures of the tests: AIWorkloads and ceilings in a few words.

use serde_json::{Value, json};

use super::{Author, Change, Circumstances, Review, review};
use crate::api::AIWorkload;
use crate::plan::ceiling;
use crate::scope::Ceilings;

/// When all this happens.
pub(super) const NOW: &str = "2026-01-01T12:00:00Z";

/// A ceiling that allows what most cases declare.
pub(super) const OPEN: &str = "services: [{name: all, services: ['*']}, {name: shop, namespace: shop, services: [orders]}]
hosts: [{name: help, host: help.example.com, ports: [443]}]
kubernetes: [{name: orders, apiGroups: [shop.example.com], resources: [orders], access: Read}]
classes: [Internal, Restricted]";

pub(super) fn workload(metadata: Value, spec: Value) -> AIWorkload {
    let mut all = json!({"name": "bot", "namespace": "support"});
    merge(&mut all, metadata);
    let mut whole = json!({"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce"});
    merge(&mut whole, spec);
    serde_json::from_value(json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": all, "spec": whole})).unwrap()
}

pub(super) fn of(sources: Value) -> AIWorkload {
    workload(json!({}), json!({"dataSources": sources}))
}

pub(super) fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

pub(super) fn ceilings(specs: &[(&str, &str)]) -> Ceilings {
    let read = |(name, text): &(&str, &str)| {
        let mut spec: Value = serde_saphyr::from_str(text).unwrap();
        spec["namespaceSelector"] = json!({});
        let object = serde_json::from_value(
            json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": name}, "spec": spec}),
        );
        ceiling(&object.unwrap()).unwrap().1
    };
    Ceilings(specs.iter().map(read).collect())
}

pub(super) fn judge(change: Change<'_>, author: Author, ceilings: &Ceilings) -> Review {
    review(change, Circumstances { author, user: "dana@example.com", now: NOW.parse().unwrap(), ceilings, enrolled: true })
}

pub(super) fn all_lacking(review: &Review) -> Vec<String> {
    review.denials(&review.checks.iter().map(|c| c.question.clone()).collect(), "dana@example.com")
}

pub(super) fn kubernetes(more: Value) -> Value {
    let mut kubernetes = json!({"apiGroups": ["shop.example.com"], "resources": ["orders"]});
    merge(&mut kubernetes, more);
    json!({"name": "orders", "type": "Kubernetes", "kubernetes": kubernetes})
}

pub(super) fn object(name: &str, type_: &str, member: &str) -> Value {
    json!({"name": name, "type": type_, member: {"name": "thing"}})
}

pub(super) fn service(name: &str, namespace: Option<&str>, service: &str) -> Value {
    let mut source =
        json!({"name": name, "type": "Service", "access": "ReadWrite", "service": {"name": service, "port": 80, "protocol": "TCP"}});
    if let Some(namespace) = namespace {
        source["service"]["namespace"] = json!(namespace);
    }
    source
}

pub(super) fn host(name: &str, host: &str) -> Value {
    json!({"name": name, "type": "Host", "access": "ReadWrite", "host": {"name": host, "port": 443}})
}
