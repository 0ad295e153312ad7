//! Evicts pods without a guard, one by one, where the AIWorkload asks for it.
//!
//! What to do next decides [`plan::replace`]; here it is remembered in the status before it is done, so that neither an operator that ends
//! in between nor another that takes over evicts more than it should.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use super::guarded::Guards;
use super::reconcile::{Next, Reconciler};
use super::status::Outcome;
use crate::api::{Replacing, UnguardedPods};
use crate::cluster::{RequestError, WorkloadFact};
use crate::plan::replace::{self, Step};
use crate::scope::ObjectName;

/// How often it is looked while pods are to be replaced.
const LOOK: Duration = Duration::from_secs(2);

/// How far it is, for the status.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement {
    pub last: Option<Replacing>,
    pub words: String,
}

/// What to do next; None: nothing is to be replaced, or it cannot be looked.
pub async fn step(r: &Reconciler, workload: &WorkloadFact, guards: &Guards) -> Option<Step> {
    let Guards::Known(counted) = guards else { return None };
    let asked = workload.object.spec.unguarded_pods == UnguardedPods::Evict;
    // Where guards are refused, so would be what comes instead.
    if !asked || (counted.guarded >= counted.matched && counted.unjudged == 0) || counted.refused_by.is_some() {
        return None;
    }
    let scope = workload.scope.as_ref().ok()?;
    match r.hands.pods(&scope.workload.namespace, &scope.selector, replace::kept).await {
        Ok(pods) => {
            let enforced = workload.object.status.as_ref().and_then(|status| status.enforced_since.as_ref()).map(|since| since.0);
            Some(replace::next(&pods, last(workload), enforced, Timestamp::now()))
        }
        Err(error) => {
            tracing::warn!(workload = %scope.workload, error = error.message(), "could not look for pods without a guard");
            r.metrics.failed("Pods");
            None
        }
    }
}

/// The pod that was evicted last, as the status says.
pub fn last(workload: &WorkloadFact) -> Option<&Replacing> {
    workload.object.status.as_ref()?.pods.as_ref()?.replacing.as_ref()
}

/// Does it, and says so. In: the outcome without it.
pub async fn take(
    r: &Reconciler,
    name: &ObjectName,
    workload: &WorkloadFact,
    step: Option<Step>,
    mut outcome: Outcome<'_>,
) -> (bool, Next) {
    let Some(step) = step else { return (r.say(&workload.object, &outcome).await, Next::Change) };
    let before = last(workload);
    let (record, next) = match &step {
        Step::Done { .. } => (None, Next::Change),
        Step::Wait { .. } => (before.cloned(), Next::After(LOOK)),
        Step::Evict(pod) => (Some(pod.clone()), Next::After(LOOK)),
    };
    let mut replacement = Replacement { last: record, words: step.words() };
    let Step::Evict(pod) = step else {
        outcome.replacement = Some(replacement);
        return (r.say(&workload.object, &outcome).await, next);
    };
    if before != Some(&pod) {
        outcome.replacement = Some(replacement.clone());
        if !r.say(&workload.object, &outcome).await {
            return (false, Next::Retry);
        }
    }
    let of = ObjectName::new(&name.namespace, &pod.pod);
    match r.hands.evict(&of, &pod.uid).await {
        Ok(()) => {
            let about = workload.object.object_ref(&());
            let note =
                format!("Pod {} has no guard and is evicted, so that one with a guard comes in its place (unguardedPods: Evict)", pod.pod);
            r.events.tell(&about, Some(reference(&of, &pod.uid)), "PodEvicted", "Evict", &note).await;
        }
        Err(error) => replacement.words = refused(&error, &pod.pod, name, &r.hands.account),
    }
    // The first say is in the world already; this one changes something only where the eviction was refused.
    outcome.replacement = Some(replacement);
    let current = r.world.read().workloads.get(name).map(|fact| fact.object.clone());
    let written = match current {
        Some(current) => r.say(&current, &outcome).await,
        None => true,
    };
    (written, next)
}

fn refused(error: &RequestError, pod: &str, workload: &ObjectName, account: &ObjectName) -> String {
    if error.is_forbidden() {
        return format!(
            "they are to be replaced (unguardedPods: Evict), and the operator may not evict pods here: name the namespace in the chart's evict.namespaces, or kubectl create rolebinding remit-evict -n {} --clusterrole=remit-evict --serviceaccount={}:{}",
            workload.namespace, account.namespace, account.name
        );
    }
    // Foreign words may differ each time, and each status that differs is written; those of a budget do not.
    let why = if error.is_too_many() { error.message() } else { "the API server refused (the operator's log says how)".to_owned() };
    tracing::warn!(workload = %workload, pod, error = error.message(), "could not evict a pod");
    format!("they are replaced one by one (unguardedPods: Evict); {pod} cannot be evicted yet: {why}")
}

fn reference(of: &ObjectName, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(of.namespace.clone()),
        name: Some(of.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
