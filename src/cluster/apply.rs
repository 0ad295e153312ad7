//! The plan of one workload → the cluster.
//!
//! Order: what denies is written first; then stale grants are removed; then what grants is written; then stale rest is removed, what
//! denied last of all. Where what denies could not be written, nothing is granted: grants are only narrowed. Where the account is somebody
//! else's, nothing is bound to it. No write happens for an object that is exactly as planned. An object under our name which is not ours is
//! never touched, but for the isolation of a namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::facts::Live;
use super::hands::{Hands, RequestError};
use super::prune;
use crate::plan::{Difference, Kind, ManagedObject, ObjectKey, differences};
use crate::scope::ObjectName;

/// How often one object is tried again at once when somebody else wrote it meanwhile.
const CONFLICTS: usize = 3;

/// What a previous apply left: by its uid an object is known to be ours, whatever became of its labels.
pub type Known = BTreeMap<ObjectKey, String>;

/// What was done and what could not be done.
#[derive(Debug, Default)]
pub struct Report {
    pub changes: Vec<Changed>,
    pub failures: Vec<Failure>,
    /// Every object that is now exactly as planned, with its uid.
    pub held: Known,
}

/// An object that was not as planned, and is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    pub key: ObjectKey,
    /// What differed; empty: it was not there.
    pub fields: Vec<Difference>,
    /// The field manager that had written last.
    pub manager: Option<String>,
    /// It was somebody else's.
    pub foreign: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub key: ObjectKey,
    pub reason: FailureReason,
    pub message: String,
}

/// Why the cluster does not hold a part of the plan. The name is the reason of the condition, in the order of weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureReason {
    /// Something of that name is there which is not ours.
    NameTaken,
    /// We may not hand it out.
    NotGrantable,
    /// The namespace does not exist.
    NotFound,
    /// The API server refused or did not answer.
    WriteFailed,
}

impl FailureReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NameTaken => "NameTaken",
            Self::NotGrantable => "NotGrantable",
            Self::NotFound => "NotFound",
            Self::WriteFailed => "WriteFailed",
        }
    }
}

/// Whether objects of a kind take permission away rather than give it.
pub fn denies(kind: Kind) -> bool {
    match kind {
        Kind::NetworkPolicy | Kind::ConfigMap => true,
        Kind::ServiceAccount | Kind::Role | Kind::RoleBinding => false,
    }
}

/// Makes the cluster hold exactly this plan of one workload.
pub async fn apply(
    hands: &Hands,
    workload: &ObjectName,
    plan: &[ManagedObject],
    live: &BTreeMap<ObjectKey, Arc<Live>>,
    known: &Known,
) -> Report {
    let mut report = Report::default();
    let of = |kind: Kind| plan.iter().filter(move |object| object.kind() == kind);
    for kind in Kind::ALL.into_iter().filter(|k| denies(*k)) {
        for object in of(kind) {
            ensure(hands, object, known, &mut report).await;
        }
    }
    let denied = report.failures.is_empty();
    let stale = prune::stale(workload, plan, live);
    for kind in [Kind::RoleBinding, Kind::Role] {
        prune::remove(hands, &stale, kind, &mut report).await;
    }
    for kind in Kind::ALL.into_iter().filter(|k| !denies(*k)) {
        if kind == Kind::RoleBinding && report.failures.iter().any(takes_account) {
            prune::remove(hands, &prune::stale(workload, &[], live), kind, &mut report).await;
            continue;
        }
        for object in of(kind) {
            if denied || live.get(&object.key()).is_some_and(|live| narrows(object, &live.object)) {
                ensure(hands, object, known, &mut report).await;
            }
        }
    }
    if denied {
        for kind in [Kind::ServiceAccount, Kind::ConfigMap, Kind::NetworkPolicy] {
            prune::remove(hands, &stale, kind, &mut report).await;
        }
    }
    report.failures.sort_by(|a, b| (a.reason, &a.key).cmp(&(b.reason, &b.key)));
    report
}

/// Bindings name accounts: who made the account would hold what is bound to its name.
fn takes_account(failure: &Failure) -> bool {
    failure.key.kind == Kind::ServiceAccount && failure.reason == FailureReason::NameTaken
}

/// Makes one object be as planned.
pub async fn ensure(hands: &Hands, object: &ManagedObject, known: &Known, report: &mut Report) {
    let key = object.key();
    let mut tried = try_ensure(hands, object, known, false).await;
    for _ in 0..CONFLICTS {
        match &tried {
            // Somebody was faster: what is known of the object is old.
            Err(EnsureError::Request(error)) if error.is_conflict() => tried = try_ensure(hands, object, known, true).await,
            _ => break,
        }
    }
    match tried {
        Ok((uid, changed)) => {
            report.changes.extend(changed);
            report.held.insert(key, uid);
        }
        Err(error) => {
            let (reason, message) = match error {
                EnsureError::Taken => {
                    let lacking = match key.kind {
                        Kind::ConfigMap => "; until then its guards do not get their policy, and let nothing of a new pod pass",
                        Kind::NetworkPolicy | Kind::ServiceAccount | Kind::Role | Kind::RoleBinding => "",
                    };
                    let message =
                        format!("{key} is there already and is not Remit's; rename or delete it, or rename the AIWorkload{lacking}");
                    (FailureReason::NameTaken, message)
                }
                EnsureError::Differs(fields) => (
                    FailureReason::WriteFailed,
                    format!("{key}: something (an admission webhook?) changes {} whenever it is written", names(&fields)),
                ),
                EnsureError::Request(error) if error.is_escalation() => {
                    if let Err(EnsureError::Request(error)) = empty(hands, object, known).await {
                        tracing::warn!(object = %key, error = %error.message(), "could not empty a Role that may not be granted");
                    }
                    (FailureReason::NotGrantable, not_grantable(&key, &hands.account, &error))
                }
                EnsureError::Request(error) if error.is_invalid() => {
                    // What denies must be there, whatever cannot be said in it.
                    if let Some(denied) = denying(object)
                        && let Err(EnsureError::Request(error)) = Box::pin(try_ensure(hands, &denied, known, false)).await
                    {
                        tracing::warn!(object = %key, error = error.message(), "could not empty a policy that the API server refuses");
                    }
                    (FailureReason::WriteFailed, format!("{key}: {}", error.message()))
                }
                EnsureError::Request(error) if error.is_not_found() => {
                    (FailureReason::NotFound, format!("{key}: namespace {} does not exist", key.object.namespace))
                }
                EnsureError::Request(error) => (FailureReason::WriteFailed, format!("{key}: {}", error.message())),
            };
            report.failures.push(Failure { key, reason, message });
        }
    }
}

enum EnsureError {
    Taken,
    Differs(Vec<Difference>),
    Request(RequestError),
}

impl From<RequestError> for EnsureError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// Returns the uid of what is there now, and what was changed.
async fn try_ensure(hands: &Hands, object: &ManagedObject, known: &Known, anew: bool) -> Result<(String, Option<Changed>), EnsureError> {
    let key = object.key();
    let cached = hands.world.read().object(&key).cloned();
    let live = match cached {
        Some(live) if !anew => Some(live),
        // The watch sees only what bears our label: look for what does not.
        _ => hands.get(&key).await?.map(Arc::new),
    };
    let Some(live) = live else {
        let answer = settle(hands, object, hands.apply(object).await?).await?;
        return Ok((uid(&answer), Some(Changed { key, fields: Vec::new(), manager: None, foreign: false })));
    };
    let foreign = !is_ours(object, &live, known);
    if foreign && !takes_over(object) {
        return Err(EnsureError::Taken);
    }
    let fields = differences(object, &live.object);
    if fields.is_empty() {
        return Ok((uid(&live), None));
    }
    let changed = Changed { key: key.clone(), manager: live.manager.clone(), fields, foreign };
    if !same_role(object, &live.object) {
        // A binding's role cannot be changed.
        hands.delete(&key, live.object.metadata().uid.as_deref()).await?;
        let answer = settle(hands, object, hands.apply(object).await?).await?;
        return Ok((uid(&answer), Some(changed)));
    }
    let mut body = object.clone();
    body.metadata_mut().uid = live.object.metadata().uid.clone();
    let answer = settle(hands, object, hands.apply(&body).await?).await?;
    Ok((uid(&answer), Some(changed)))
}

/// What server-side apply leaves of others' additions is taken away by an update.
async fn settle(hands: &Hands, object: &ManagedObject, answer: Live) -> Result<Live, EnsureError> {
    if differences(object, &answer.object).is_empty() {
        return Ok(answer);
    }
    let answer = hands.replace(&exactly(object, &answer.object)).await?;
    let rest = differences(object, &answer.object);
    if rest.is_empty() { Ok(answer) } else { Err(EnsureError::Differs(rest)) }
}

/// The plan's content for this live object, keeping what others rightly keep on it (see [`crate::plan::differences`]).
fn exactly(object: &ManagedObject, live: &ManagedObject) -> ManagedObject {
    let mut body = object.clone();
    let theirs = live.metadata().clone();
    let meta = body.metadata_mut();
    let mut labels = theirs.labels.unwrap_or_default();
    labels.extend(meta.labels.take().unwrap_or_default());
    meta.labels = Some(labels);
    meta.annotations = theirs.annotations;
    meta.uid = theirs.uid;
    meta.resource_version = theirs.resource_version;
    if let (ManagedObject::ServiceAccount(body), ManagedObject::ServiceAccount(live)) = (&mut body, live) {
        body.secrets = live.secrets.clone();
        body.image_pull_secrets = live.image_pull_secrets.clone();
    }
    body
}

/// By its labels, by its uid, or because we once applied it.
fn is_ours(object: &ManagedObject, live: &Live, known: &Known) -> bool {
    let same = |uid: &String| live.object.metadata().uid.as_ref() == Some(uid);
    object.workload().is_some_and(|workload| live.object.workload() == Some(workload))
        || known.get(&object.key()).is_some_and(same)
        || (live.applied_by_us && (object.kind() != Kind::ServiceAccount || owned_alike(object, &live.object)))
}

/// Whether it is written whoever made what is there. Only the isolation of a namespace, which belongs to no workload, is: that foreign objects
/// are never adopted protects what others hold, and under this name they hold nothing but a hole. It denies only, so nobody loses more
/// than what they opened.
fn takes_over(object: &ManagedObject) -> bool {
    object.kind() == Kind::NetworkPolicy && object.workload().is_none()
}

/// Anybody can call a client `remit`: an account that somebody else made is not taken for ours by that.
fn owned_alike(object: &ManagedObject, live: &ManagedObject) -> bool {
    object.metadata().owner_references.is_some() && object.metadata().owner_references == live.metadata().owner_references
}

fn uid(live: &Live) -> String {
    live.object.metadata().uid.clone().unwrap_or_default()
}

fn same_role(object: &ManagedObject, live: &ManagedObject) -> bool {
    match (object, live) {
        (ManagedObject::RoleBinding(object), ManagedObject::RoleBinding(live)) => object.role_ref == live.role_ref,
        _ => true,
    }
}

/// The way down: a Role that may not be granted is left without rules.
async fn empty(hands: &Hands, object: &ManagedObject, known: &Known) -> Result<(), EnsureError> {
    let ManagedObject::Role(role) = object else { return Ok(()) };
    let mut role = role.clone();
    role.rules = Some(Vec::new());
    try_ensure(hands, &ManagedObject::Role(role), known, false).await.map(drop)
}

/// The policy with nothing in it but its pods, if it says more.
fn denying(object: &ManagedObject) -> Option<ManagedObject> {
    let ManagedObject::NetworkPolicy(policy) = object else { return None };
    let mut policy = policy.clone();
    let spec = policy.spec.as_mut()?;
    (spec.ingress, spec.egress) = (Some(Vec::new()), Some(Vec::new()));
    let denied = ManagedObject::NetworkPolicy(policy);
    (denied != *object).then_some(denied)
}

fn not_grantable(key: &ObjectKey, account: &ObjectName, error: &RequestError) -> String {
    let ns = &key.object.namespace;
    format!(
        "{key}: the operator may not hand this out in namespace {ns}; an admin of the namespace can allow it with `kubectl create rolebinding \
         remit-grantable -n {ns} --clusterrole=remit-grantable --serviceaccount={}:{}`, or the permission is missing in ClusterRole remit-grantable. \
         The API server said: {}",
        account.namespace,
        account.name,
        error.message()
    )
}

fn names(fields: &[Difference]) -> String {
    fields.iter().map(|Difference(path)| *path).collect::<Vec<_>>().join(", ")
}

/// Whether writing this object over the live one provably grants nothing new.
fn narrows(object: &ManagedObject, live: &ManagedObject) -> bool {
    match (object, live) {
        (ManagedObject::Role(object), ManagedObject::Role(live)) => {
            let live = live.rules.iter().flatten().collect::<Vec<_>>();
            object.rules.iter().flatten().all(|rule| live.iter().any(|wider| within(rule, wider)))
        }
        _ => false,
    }
}

fn within(rule: &PolicyRule, wider: &PolicyRule) -> bool {
    let subset = |a: &Option<Vec<String>>, b: &Option<Vec<String>>| a.iter().flatten().all(|x| b.iter().flatten().any(|y| x == y));
    let names = match &wider.resource_names {
        None => true,
        Some(names) if names.is_empty() => true,
        Some(_) => {
            rule.resource_names.as_ref().is_some_and(|names| !names.is_empty()) && subset(&rule.resource_names, &wider.resource_names)
        }
    };
    names
        && subset(&rule.api_groups, &wider.api_groups)
        && subset(&rule.resources, &wider.resources)
        && subset(&rule.non_resource_urls, &wider.non_resource_urls)
        && rule.verbs.iter().all(|verb| wider.verbs.contains(verb))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(rules: serde_json::Value) -> ManagedObject {
        ManagedObject::Role(serde_json::from_value(json!({"metadata": {"namespace": "a", "name": "r"}, "rules": rules})).unwrap())
    }

    #[test]
    fn narrowing_is_provable_or_not_claimed() {
        let rule = |names: &[&str], verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": names, "verbs": verbs}]);
        assert!(narrows(&role(json!([])), &role(rule(&[], &["get"]))));
        assert!(narrows(&role(rule(&["x"], &["get"])), &role(rule(&[], &["get", "list"]))));
        assert!(!narrows(&role(rule(&[], &["get"])), &role(rule(&["x"], &["get"]))));
        assert!(!narrows(&role(rule(&["x"], &["get", "update"])), &role(rule(&["x"], &["get"]))));
    }

    #[test]
    fn an_update_keeps_what_others_keep_and_nothing_else() {
        let object = |value| ManagedObject::ServiceAccount(serde_json::from_value(value).unwrap());
        let planned =
            object(json!({"metadata": {"namespace": "a", "name": "s", "labels": {"ours": "1"}}, "automountServiceAccountToken": false}));
        let live = object(json!({
            "metadata": {"namespace": "a", "name": "s", "resourceVersion": "7", "uid": "u", "labels": {"ours": "2", "theirs": "3"},
                         "annotations": {"cloud": "role"}, "finalizers": ["evil/x"], "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}]},
            "automountServiceAccountToken": true, "imagePullSecrets": [{"name": "pull"}],
        }));
        let body = exactly(&planned, &live);
        let ManagedObject::ServiceAccount(account) = &body else { panic!() };
        assert_eq!(account.automount_service_account_token, Some(false));
        assert_eq!(account.image_pull_secrets.as_ref().map(Vec::len), Some(1));
        let meta = body.metadata();
        assert_eq!(meta.labels, Some([("ours".into(), "1".into()), ("theirs".into(), "3".into())].into()));
        assert_eq!((meta.finalizers.clone(), meta.owner_references.clone(), meta.resource_version.as_deref()), (None, None, Some("7")));
        assert!(meta.annotations.is_some());
    }
}
