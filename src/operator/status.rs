//! Step 5, status: what is said of a workload. Pure but for the time, which the caller gives.
//!
//! A condition's transition time moves only with its status; kstatus's Reconciling and Stalled are there only while true. What would be
//! written equals what is there when nothing changed, so that it need not be written.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::guarded::{Guards, Words};
use super::replace::Replacement;
use super::standing::Standing;
use crate::api::{self, AIWorkloadStatus};
use crate::cluster::Failure;
use crate::plan::{Refusal, RefusalReason};

/// Other types are others' affair.
const OURS: [&str; 7] = [api::ACCEPTED, api::APPLIED, api::READY, api::GUARDED, api::BREAK_GLASS, api::RECONCILING, api::STALLED];
/// The most bytes of a message.
const MESSAGE: usize = 4096;

/// What came of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<'a> {
    pub generation: Option<i64>,
    /// When the AIWorkload was made.
    pub created: Option<Timestamp>,
    pub standing: Standing<'a>,
    /// Of the scope as it is held, if one is.
    pub digest: Option<String>,
    /// What judges each of its data sources.
    pub sources: Vec<api::SourceStatus>,
    pub suspended: bool,
    pub refusals: &'a [Refusal],
    pub failures: &'a [Failure],
    /// How many objects the plan has.
    pub objects: usize,
    /// Something that passes by itself is waited for.
    pub waiting: Option<String>,
    pub guards: Guards,
    /// Of pods without a guard.
    pub replacement: Option<Replacement>,
}

struct Said {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Said {
    fn new(holds: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { holds, reason, message: message.into() }
    }
}

/// The status to be there, given the one that is. Of exceptions it says what was said: see [`super::break_glass`].
pub fn status(outcome: &Outcome<'_>, current: Option<&AIWorkloadStatus>, now: Timestamp) -> AIWorkloadStatus {
    let accepted = accepted(outcome);
    let applied = applied(outcome);
    let ready = match (&accepted, &applied, &outcome.waiting) {
        (_, _, Some(waiting)) => Said::new(false, "Waiting", waiting.clone()),
        (not, _, None) | (_, not, None) if !not.holds => Said::new(false, not.reason, not.message.clone()),
        _ if applied.reason == "Observed" => Said::new(true, "Observed", "The plan is computed and not held (mode: Observe)"),
        _ => Said::new(true, "Held", "Every object of the plan is in place"),
    };
    let passes = outcome.waiting.is_some()
        || outcome.failures.iter().any(|f| f.reason >= crate::cluster::FailureReason::NotFound)
        || (!accepted.holds && outcome.refusals.iter().all(|r| r.reason == RefusalReason::NotFound) && !outcome.refusals.is_empty());
    let mut said = vec![(api::ACCEPTED, accepted), (api::APPLIED, applied)];
    if !ready.holds {
        let type_ = if passes { api::RECONCILING } else { api::STALLED };
        said.push((type_, Said::new(true, ready.reason, ready.message.clone())));
    }
    said.push((api::READY, ready));
    if let Guards::Known(counted) = &outcome.guards {
        let Words { holds, reason, message } = counted.words(outcome.replacement.as_ref());
        said.push((api::GUARDED, Said { holds, reason, message }));
    }
    let conditions = said.into_iter().map(|(type_, Said { holds, reason, message })| {
        let status = if holds { "True" } else { "False" }.to_owned();
        let before = current.and_then(|c| api::condition(&c.conditions, type_)).filter(|c| c.status == status);
        Condition {
            type_: type_.to_owned(),
            last_transition_time: before.map_or_else(|| Time(whole_seconds(now)), |c| c.last_transition_time.clone()),
            status,
            reason: reason.to_owned(),
            message: bounded(message),
            observed_generation: outcome.generation,
        }
    });
    let mut conditions: Vec<Condition> = conditions.collect();
    let exception = current.and_then(|c| api::condition(&c.conditions, api::BREAK_GLASS)).cloned();
    conditions.extend(exception.map(|c| Condition { observed_generation: outcome.generation, ..c }));
    let pods = match &outcome.guards {
        Guards::None => None,
        Guards::NotYet => {
            conditions.extend(current.and_then(|c| api::condition(&c.conditions, api::GUARDED)).cloned());
            current.and_then(|c| c.pods.clone())
        }
        Guards::Known(counted) => Some(counted.status(outcome.replacement.as_ref())),
    };
    AIWorkloadStatus {
        observed_generation: outcome.generation,
        scope_digest: outcome.digest.clone(),
        sources: outcome.sources.clone(),
        enforced_since: enforced_since(outcome, current, now),
        pods,
        conditions,
    }
}

/// What is there, with another condition BreakGlass, or none.
pub fn with_exception(current: Option<&AIWorkloadStatus>, exception: Option<Condition>) -> AIWorkloadStatus {
    let mut status = current.cloned().unwrap_or_default();
    status.conditions.retain(|c| OURS.contains(&c.type_.as_str()) && c.type_ != api::BREAK_GLASS);
    status.conditions.extend(exception);
    status
}

/// Whether the status that is there needs no writing.
pub fn is_written(wanted: &AIWorkloadStatus, current: Option<&AIWorkloadStatus>) -> bool {
    let Some(current) = current else { return false };
    let AIWorkloadStatus { observed_generation, scope_digest, enforced_since, pods, sources, conditions } = wanted;
    *observed_generation == current.observed_generation
        && *scope_digest == current.scope_digest
        && *enforced_since == current.enforced_since
        && *pods == current.pods
        && *sources == current.sources
        && OURS.iter().all(|type_| api::condition(conditions, type_) == api::condition(&current.conditions, type_))
}

/// What was made in Enforce was judged from its beginning on.
fn enforced_since(outcome: &Outcome<'_>, current: Option<&AIWorkloadStatus>, now: Timestamp) -> Option<Time> {
    match &outcome.standing {
        Standing::Enforce(_) => current.and_then(|current| current.enforced_since.clone()).or_else(|| {
            // Pods say whole seconds: one that was made within this second was perhaps made before.
            let after = || Timestamp::from_second(now.as_second().saturating_add(1)).unwrap_or(now);
            let begun = outcome.created.filter(|_| outcome.generation == Some(1) && current.is_none()).unwrap_or_else(after);
            Some(Time(whole_seconds(begun)))
        }),
        // Nobody judges then.
        Standing::Observe(_) | Standing::NotEnrolled => None,
        Standing::Invalid(_) | Standing::Conflict { older: _ } => current.and_then(|c| c.enforced_since.clone()),
    }
}

fn accepted(outcome: &Outcome<'_>) -> Said {
    match &outcome.standing {
        Standing::NotEnrolled => Said::new(
            false,
            "NamespaceNotEnrolled",
            format!(
                "The namespace is not enrolled; its admin can label it {}=true (kube-system and the operator's own never are)",
                api::ENROLLED_LABEL
            ),
        ),
        Standing::Conflict { older } => Said::new(
            false,
            "Conflict",
            format!(
                "AIWorkload {older} is older (or enforced, and this one observed) and could select the same pods: it governs, and this one generates nothing. Make the selectors exclude each other by a label"
            ),
        ),
        Standing::Invalid(errors) => Said::new(false, "Invalid", list(errors)),
        Standing::Enforce(_) | Standing::Observe(_) => match outcome.refusals.first() {
            Some(first) => Said::new(false, first.reason.as_str(), list(outcome.refusals)),
            None if outcome.suspended => Said::new(
                true,
                "Valid",
                match outcome.standing {
                    Standing::Observe(_) => {
                        "Suspended: guards let nothing through, in Observe as well; pods without a guard and permissions stay as they are (mode: Observe)"
                    }
                    _ => "Suspended: nothing is let through, guards cut open connections, and every permission is withdrawn",
                },
            ),
            None => Said::new(true, "Valid", "The scope is valid and within its ceilings"),
        },
    }
}

fn applied(outcome: &Outcome<'_>) -> Said {
    if let Some(first) = outcome.failures.first() {
        let messages: Vec<&str> = outcome.failures.iter().map(|f| f.message.as_str()).collect();
        return Said::new(false, first.reason.as_str(), list(&messages));
    }
    match &outcome.standing {
        Standing::Enforce(_) => Said::new(true, "Applied", format!("Every object of the plan is in place ({})", outcome.objects)),
        Standing::Observe(_) if outcome.objects == 0 => Said::new(true, "Observed", "Nothing is written (mode: Observe)"),
        Standing::Observe(_) => Said::new(true, "Observed", "Only the guards' policy is written, so that they record (mode: Observe)"),
        Standing::Invalid(_) => Said::new(false, "NotAccepted", "What was applied before stays until the AIWorkload is valid"),
        Standing::NotEnrolled | Standing::Conflict { older: _ } => Said::new(false, "NotAccepted", "Nothing is generated"),
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE {
        let end = (0..=MESSAGE - 4).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
        message.truncate(end);
        message.push_str(" …");
    }
    message
}

/// As it is stored.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FailureReason;
    use crate::plan::{FieldError, Kind, ObjectKey};
    use crate::scope::{Account, Mode, ObjectName, Scope, Selector};

    fn scope() -> Scope {
        let workload = ObjectName::new("a", "b");
        let selector = Selector::labels([("app", "b")]).unwrap();
        Scope {
            workload,
            mode: Mode::Enforce,
            suspended: false,
            selector,
            account: Account::Generated("b".into()),
            sources: vec![],
            clients: vec![],
        }
    }

    fn outcome(standing: Standing<'_>) -> Outcome<'_> {
        Outcome {
            generation: Some(3),
            created: None,
            standing,
            digest: None,
            sources: vec![],
            suspended: false,
            refusals: &[],
            failures: &[],
            objects: 2,
            waiting: None,
            guards: Guards::None,
            replacement: None,
        }
    }

    fn row(status: &AIWorkloadStatus) -> Vec<(String, String, String)> {
        status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect()
    }

    fn rows(expected: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        expected.iter().map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string())).collect()
    }

    #[test]
    fn reasons() {
        let (scope, now) = (scope(), Timestamp::UNIX_EPOCH);
        let held = status(&outcome(Standing::Enforce(&scope)), None, now);
        assert_eq!(row(&held), rows(&[("Accepted", "True", "Valid"), ("Applied", "True", "Applied"), ("Ready", "True", "Held")]));
        let observed = |objects, suspended| {
            let status = status(&Outcome { objects, suspended, ..outcome(Standing::Observe(&scope)) }, None, now);
            [0, 1].map(|n| status.conditions[n].message.clone())
        };
        assert_eq!(observed(0, false)[1], "Nothing is written (mode: Observe)", "without guards");
        assert!(observed(1, false)[1].starts_with("Only the guards' policy is written"));
        assert!(observed(1, true)[0].starts_with("Suspended: guards let nothing through, in Observe as well"));
        let errors = [FieldError { path: "x".into(), message: "y".into() }];
        let invalid = status(&outcome(Standing::Invalid(&errors)), None, now);
        assert_eq!(
            row(&invalid),
            rows(&[
                ("Accepted", "False", "Invalid"),
                ("Applied", "False", "NotAccepted"),
                ("Stalled", "True", "Invalid"),
                ("Ready", "False", "Invalid")
            ])
        );
        let key = ObjectKey { kind: Kind::Role, object: ObjectName::new("a", "r") };
        let failures = [Failure { key, reason: FailureReason::WriteFailed, message: "m".into() }];
        let failed = status(&Outcome { failures: &failures, ..outcome(Standing::Enforce(&scope)) }, None, now);
        assert_eq!(row(&failed)[2], rows(&[("Reconciling", "True", "WriteFailed")])[0]);
        let missing = [Refusal { reason: RefusalReason::NotFound, path: "p".into(), message: "m".into() }];
        let missing = status(&Outcome { refusals: &missing, ..outcome(Standing::Enforce(&scope)) }, None, now);
        assert_eq!(
            row(&missing)[0..3],
            rows(&[("Accepted", "False", "NotFound"), ("Applied", "True", "Applied"), ("Reconciling", "True", "NotFound")])
        );
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let scope = scope();
        let (then, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(100).unwrap());
        let first = status(&outcome(Standing::Enforce(&scope)), None, then);
        let same = status(&outcome(Standing::Enforce(&scope)), Some(&first), later);
        assert!(is_written(&same, Some(&first)), "nothing changed, nothing is written");
        let sources = vec![api::SourceStatus { name: "a".into(), judged_by: api::JudgedBy::Requests }];
        let judged = status(&Outcome { sources, ..outcome(Standing::Enforce(&scope)) }, Some(&first), later);
        assert!(!is_written(&judged, Some(&first)), "what judges a data source is said");
        assert_eq!(judged.conditions, first.conditions);
        let next = status(&outcome(Standing::NotEnrolled), Some(&first), later);
        assert!(!is_written(&next, Some(&first)));
        assert!(next.conditions.iter().all(|c| c.last_transition_time.0 == later));
        let mut foreign = first.clone();
        foreign.conditions.push(Condition { type_: "Theirs".into(), ..first.conditions[0].clone() });
        assert!(is_written(&same, Some(&foreign)));
    }

    #[test]
    fn an_exception_stays_as_it_was_said_and_nothing_else_changes_with_it() {
        let (scope, now) = (scope(), Timestamp::UNIX_EPOCH);
        let plain = status(&outcome(Standing::Enforce(&scope)), None, now);
        let exception = Condition { type_: api::BREAK_GLASS.into(), message: "m".into(), ..plain.conditions[0].clone() };
        let mut foreign = plain.clone();
        foreign.conditions.push(Condition { type_: "Theirs".into(), ..plain.conditions[0].clone() });
        let shown = with_exception(Some(&foreign), Some(exception.clone()));
        let both = [plain.conditions.as_slice(), std::slice::from_ref(&exception)].concat();
        assert_eq!(shown.conditions, both, "theirs is not taken over");
        assert!(!is_written(&shown, Some(&plain)) && !is_written(&plain, Some(&shown)));
        let later = status(&Outcome { generation: Some(4), ..outcome(Standing::NotEnrolled) }, Some(&shown), now);
        let kept = api::condition(&later.conditions, api::BREAK_GLASS);
        assert_eq!(kept, Some(&Condition { observed_generation: Some(4), ..exception }));
        assert_eq!(with_exception(Some(&shown), None), plain);
        assert_eq!(with_exception(None, None), AIWorkloadStatus::default());
    }

    #[test]
    fn enforce_begins_with_the_aiworkload_or_with_the_change_to_it() {
        let (scope, at) = (scope(), |second| Timestamp::from_second(second).unwrap());
        let since = |standing, generation, current: Option<i64>| {
            let current = current.map(|since| AIWorkloadStatus { enforced_since: Some(Time(at(since))), ..AIWorkloadStatus::default() });
            let outcome = Outcome { generation: Some(generation), created: Some(at(10)), ..outcome(standing) };
            status(&outcome, current.as_ref(), at(100)).enforced_since.map(|since| since.0.as_second())
        };
        assert_eq!(since(Standing::Enforce(&scope), 1, None), Some(10), "made so");
        assert_eq!(since(Standing::Enforce(&scope), 2, None), Some(101), "changed to it");
        assert_eq!(since(Standing::NotEnrolled, 1, Some(50)), None, "where nothing is enrolled nothing is refused");
        assert_eq!(since(Standing::Enforce(&scope), 3, Some(50)), Some(50), "and stays");
        assert_eq!(since(Standing::Invalid(&[]), 3, Some(50)), Some(50), "also while it is not valid");
        assert_eq!(since(Standing::Observe(&scope), 3, Some(50)), None, "in Observe nothing is refused");
    }

    #[test]
    fn messages_are_bounded() {
        let long = bounded("ä".repeat(5000));
        assert!(long.len() <= MESSAGE && long.ends_with('…'));
    }
}
