//! A workload that is being deleted.
//!
//! Deletion does not set pods free: its policy is emptied (nothing in, nothing out), its guards are suspended, its grants are removed, and
//! all stay so until no pod that it selects runs or the release annotation is set. Only then its objects and the finalizer go.

use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicySpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::reconcile::{self, Next, Reconciler};
use super::standing::Standing;
use super::status::Outcome;
use crate::api::{self, FINALIZER};
use crate::cluster::{self, Gathered, Key, WorkloadFact};
use crate::plan::{self, ManagedObject};
use crate::scope::Scope;

/// How often pods are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// Keep the pods denied while there are any.
pub async fn hold(r: &Reconciler, gathered: &Gathered, workload: &WorkloadFact, standing: Standing<'_>) -> Next {
    if !holds_finalizer(workload) {
        return Next::Change;
    }
    let plan = denying(gathered, workload, &standing);
    let selector = plan.iter().find_map(|object| match object {
        ManagedObject::NetworkPolicy(policy) => Some(policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default()),
        ManagedObject::ConfigMap(_) | ManagedObject::ServiceAccount(_) | ManagedObject::Role(_) | ManagedObject::RoleBinding(_) => None,
    });
    let Some(selector) = selector else { return let_go(r, gathered).await };
    let key = Key::Workload(gathered.name.clone());
    let Some(mut plan) = reconcile::signed(plan, &r.keys, gathered, &r.memory(&key)) else { return Next::Retry };
    let held = plan.len();
    // In a namespace that is going, what is gone cannot be made again.
    if gathered.terminating {
        plan.retain(|object| gathered.live.contains_key(&object.key()));
    }
    let mut failed = false;
    if !plan.is_empty() {
        let memory = r.memory(&key);
        let report = cluster::apply::apply(&r.hands, &gathered.name, &plan, &gathered.live, &memory.known).await;
        failed = !r.applied(key, &workload.object, plan, memory, report).await.is_empty() && !gathered.terminating;
    }
    match r.hands.any_pod(&gathered.name.namespace, &selector).await {
        // Also where the policy could not be written (its name may be taken): there is nobody to deny anything.
        Ok(false) => let_go(r, gathered).await,
        Ok(true) if failed => Next::Retry,
        Ok(true) => {
            let waiting = format!(
                "Being deleted, while pods that it selects still run: they reach nothing until they are gone or annotation {} is set",
                api::RELEASE_ANNOTATION
            );
            let outcome = Outcome {
                generation: workload.object.metadata.generation,
                created: workload.object.metadata.creation_timestamp.as_ref().map(|time| time.0),
                standing,
                digest: None,
                sources: Vec::new(),
                suspended: workload.object.spec.suspend,
                refusals: &[],
                failures: &[],
                objects: held,
                waiting: Some(waiting),
                guards: r.guards(&gathered.name),
                replacement: None,
            };
            r.say(&workload.object, &outcome).await;
            Next::After(LOOK)
        }
        Err(error) => {
            tracing::warn!(workload = %gathered.name, error = error.message(), "could not look for pods");
            r.metrics.failed("Pods");
            Next::Retry
        }
    }
}

/// Remove everything, then the finalizer.
pub async fn let_go(r: &Reconciler, gathered: &Gathered) -> Next {
    // What was written a moment ago counts as well.
    let live = r.world.read().objects_of(&gathered.name);
    let report = cluster::prune::remove_all(&r.hands, &gathered.name, &live).await;
    if !report.failures.is_empty() {
        r.count(&report.failures);
        return Next::Retry;
    }
    r.remember(Key::Workload(gathered.name.clone()), None);
    let current = r.world.read().workloads.get(&gathered.name).cloned();
    let Some(current) = current.filter(|current| holds_finalizer(current)) else { return Next::Change };
    let rest: Vec<String> = current.object.metadata.finalizers.iter().flatten().filter(|f| *f != FINALIZER).cloned().collect();
    match r.hands.set_finalizers(&current.object, &rest).await {
        Ok(keys) => {
            r.changed(keys);
            Next::Change
        }
        Err(error) if error.is_not_found() => Next::Change,
        Err(error) => {
            tracing::warn!(workload = %gathered.name, error = error.message(), "could not remove the finalizer");
            r.metrics.failed("Finalizer");
            Next::Retry
        }
    }
}

fn holds_finalizer(workload: &WorkloadFact) -> bool {
    workload.object.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// What denies everything to the pods of this workload; empty: there is nothing to hold. It has no owner: a foreground deletion removes
/// first what is owned.
fn denying(gathered: &Gathered, workload: &WorkloadFact, standing: &Standing<'_>) -> Vec<ManagedObject> {
    let mut objects: Vec<ManagedObject> = match standing {
        Standing::Enforce(scope) => {
            let suspended = Scope { suspended: true, ..(*scope).clone() };
            plan::compile(&suspended, Some(&workload.origin()), &gathered.ceilings, &gathered.facts).objects
        }
        Standing::Invalid(_) | Standing::Conflict { older: _ } => {
            let live = gathered.live.iter().filter(|(key, _)| key.may_be_of(&gathered.name));
            live.map(|(_, live)| denied(gathered, workload, &planned(&live.object))).collect()
        }
        Standing::Observe(_) | Standing::NotEnrolled => Vec::new(),
    };
    objects.retain(|object| cluster::apply::denies(object.kind()));
    for object in &mut objects {
        object.metadata_mut().owner_references = None;
    }
    objects
}

/// A live object as a plan would say it.
pub fn planned(live: &ManagedObject) -> ManagedObject {
    let mut object = live.clone();
    let meta = object.metadata_mut();
    let ours = [api::MANAGED_BY_LABEL, api::WORKLOAD_LABEL, api::WORKLOAD_NAMESPACE_LABEL];
    let ObjectMeta { name, namespace, labels, owner_references, .. } = std::mem::take(meta);
    let labels = labels.map(|labels| labels.into_iter().filter(|(key, _)| ours.contains(&key.as_str())).collect());
    *meta = ObjectMeta { name, namespace, labels, owner_references, ..ObjectMeta::default() };
    if let ManagedObject::ServiceAccount(account) = &mut object {
        (account.secrets, account.image_pull_secrets) = (None, None);
    }
    object
}

/// The same object, allowing nothing. The guards' policy is to be signed yet.
pub fn denied(gathered: &Gathered, workload: &WorkloadFact, object: &ManagedObject) -> ManagedObject {
    let mut object = object.clone();
    match &mut object {
        ManagedObject::NetworkPolicy(policy) => {
            let NetworkPolicySpec { pod_selector, .. } = policy.spec.take().unwrap_or_default();
            let both = Some(vec!["Ingress".to_owned(), "Egress".to_owned()]);
            policy.spec = Some(NetworkPolicySpec { pod_selector, policy_types: both, ingress: Some(Vec::new()), egress: Some(Vec::new()) });
        }
        ManagedObject::ConfigMap(_) => return plan::suspended(&gathered.name, &workload.origin(), &gathered.facts),
        ManagedObject::Role(role) => role.rules = Some(Vec::new()),
        ManagedObject::ServiceAccount(_) | ManagedObject::RoleBinding(_) => {}
    }
    object
}
