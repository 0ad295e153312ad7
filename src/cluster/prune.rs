//! What a workload no longer needs goes.
//!
//! Only objects that bear the workload's labels *and* lie where a plan of it could have put them: whoever may edit a foreign object can put
//! our labels on it, and must not make us delete it. Deletion names the uid, so that nobody else's successor is hit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::apply::{Failure, FailureReason, Report};
use super::facts::Live;
use super::hands::{Hands, RequestError};
use crate::plan::{Kind, ManagedObject, ObjectKey};
use crate::scope::ObjectName;

/// What lies there and is not in the plan.
pub fn stale(workload: &ObjectName, plan: &[ManagedObject], live: &BTreeMap<ObjectKey, Arc<Live>>) -> BTreeMap<ObjectKey, Arc<Live>> {
    let planned: BTreeSet<ObjectKey> = plan.iter().map(ManagedObject::key).collect();
    let stale = live.iter().filter(|(key, _)| key.may_be_of(workload) && !planned.contains(key));
    stale.map(|(key, live)| (key.clone(), live.clone())).collect()
}

/// Removes those of one kind.
pub async fn remove(hands: &Hands, stale: &BTreeMap<ObjectKey, Arc<Live>>, kind: Kind, report: &mut Report) {
    for (key, live) in stale.iter().filter(|(key, _)| key.kind == kind) {
        if live.object.metadata().deletion_timestamp.is_some() {
            continue;
        }
        if let Err(error) = hands.delete(key, live.object.metadata().uid.as_deref()).await {
            report.failures.push(failure(key, &error));
        }
    }
}

/// Removes everything of a workload, what grants first.
pub async fn remove_all(hands: &Hands, workload: &ObjectName, live: &BTreeMap<ObjectKey, Arc<Live>>) -> Report {
    let mut report = Report::default();
    let stale = stale(workload, &[], live);
    for kind in Kind::ALL.into_iter().rev() {
        remove(hands, &stale, kind, &mut report).await;
    }
    report
}

fn failure(key: &ObjectKey, error: &RequestError) -> Failure {
    Failure { key: key.clone(), reason: FailureReason::WriteFailed, message: format!("{key} cannot be removed: {}", error.message()) }
}
