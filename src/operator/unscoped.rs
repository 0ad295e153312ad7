//! The isolation of a namespace: one policy over all its pods, where a ceiling says so, and none where not.
//!
//! Where it is wanted, what somebody else made under its name is taken over; where not, only what we applied is removed.

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::Instant;

use super::reconcile::{Memory, Next, Reconciler};
use crate::cluster::{self, Key, Report, gather_namespace};
use crate::plan::{Kind, ManagedObject, ObjectKey, UNSCOPED_POLICY, differences, unscoped_policy};
use crate::scope::ObjectName;

impl Reconciler {
    /// One reconcile of one namespace.
    pub async fn namespace(&self, name: &str) -> Next {
        let gathered = gather_namespace(&self.world.read(), name);
        if gathered.terminating {
            return Next::Change;
        }
        let key = Key::Namespace(name.to_owned());
        let object = ObjectKey { kind: Kind::NetworkPolicy, object: ObjectName::new(name, UNSCOPED_POLICY) };
        let live = self.world.read().object(&object).cloned();
        let memory = self.memory(&key);
        let mut report = Report::default();
        if !gathered.isolate {
            // Only what we made: anybody can put our label on a policy of that name.
            if let Some(live) = live.filter(|live| live.applied_by_us && live.object.metadata().deletion_timestamp.is_none())
                && let Err(error) = self.hands.delete(&object, live.object.metadata().uid.as_deref()).await
            {
                tracing::warn!(object = %object, error = error.message(), "could not remove the isolation");
                self.metrics.failed("WriteFailed");
                return Next::Retry;
            }
            self.remember(key, None);
            return Next::Change;
        }
        let policy = ManagedObject::NetworkPolicy(unscoped_policy(name, &gathered.observed));
        let untouched = live.is_some_and(|live| differences(&policy, &live.object).is_empty());
        if let Some(since) = memory.repaired.map(|at| at.elapsed()).filter(|since| !untouched && *since < super::reconcile::REPAIR_INTERVAL)
        {
            return Next::After(super::reconcile::REPAIR_INTERVAL - since);
        }
        cluster::apply::ensure(&self.hands, &policy, &memory.known, &mut report).await;
        self.count(&report.failures);
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(name.to_owned()),
            namespace: Some(name.to_owned()),
            uid: Some(gathered.uid),
            ..ObjectReference::default()
        };
        let plan = [policy];
        let repaired = self.reverted(&about, &plan, &memory, &report.changes).await;
        let held = plan.into_iter().map(|object| (object.key(), object)).filter(|(key, _)| report.held.contains_key(key)).collect();
        let repaired = if repaired { Some(Instant::now()) } else { memory.repaired };
        self.remember(key, Some(Memory { plan: held, known: report.held, repaired }));
        if report.failures.is_empty() { Next::Change } else { Next::Retry }
    }
}
