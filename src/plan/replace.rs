//! Pods without a guard get one by being replaced, and so do those that were never judged: which is evicted next.
//!
//! One at a time, and not one more before a pod with a guard is ready in the place of the last: where replacements cannot be made, or do
//! not work under the scope, one pod is lost and the others stay. In: the pods that the AIWorkload selects, and the one that was evicted
//! last. Out: a step. Pure. That a PodDisruptionBudget holds is the API server's part.

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;

use crate::api::Replacing;
use crate::policy::pod::GUARD_CONTAINER;

/// Whose pods are made anew when one is evicted. (A Job counts it as a failure.)
const REPLACING: [(&str, &str); 4] =
    [("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"), ("v1", "ReplicationController")];

/// By this label a Deployment tells its ReplicaSets apart, whose names end in it.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// No pod is left that could be replaced. Those that are left have no controller that would.
    Done { left: Vec<String> },
    /// For a pod.
    Wait { pod: String, until: Until },
    /// Ask for this pod's eviction, and remember it first.
    Evict(Replacing),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It has a guard.
    Ready,
    Gone,
    /// It was evicted.
    Replaced,
}

/// The next step. Pods that have ended are passed over; a guard counts in pods that are not older than Enforce.
pub fn next(pods: &[Pod], last: Option<&Replacing>, enforced: Option<Timestamp>, now: Timestamp) -> Step {
    let running = || pods.iter().filter(|pod| !has_ended(pod));
    let judged = |pod: &Pod| created(pod) >= enforced;
    let (guarded, without): (Vec<&Pod>, Vec<&Pod>) = running().partition(|pod| has_guard(pod) && judged(pod));
    let stays = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let mut candidates: Vec<(&Pod, String)> =
        without.iter().copied().filter(stays).filter_map(|pod| Some((pod, replaced_by(pod)?))).collect();
    candidates.sort_by_key(|(pod, _)| (created(pod), name(pod)));
    let Some((oldest, controller)) = candidates.first() else {
        let left = without.iter().copied().filter(stays).map(name).collect();
        return Step::Done { left };
    };
    // Of those that come in place of others: what else is not ready is its author's affair.
    let comes = |pod: &&Pod| {
        replaced_by(pod).is_some_and(|of| candidates.iter().any(|(_, one)| *one == of) || last.is_some_and(|last| last.controller == of))
    };
    if let Some(starting) = guarded.iter().copied().filter(stays).filter(comes).find(|pod| !is_ready(pod)) {
        return Step::Wait { pod: name(starting), until: Until::Ready };
    }
    if let Some(going) = without.iter().copied().find(|pod| !stays(pod)) {
        return Step::Wait { pod: name(going), until: Until::Gone };
    }
    let guarded_of =
        |controller: &str| guarded.iter().copied().filter(stays).filter(|pod| replaced_by(pod).as_deref() == Some(controller)).count();
    // What was remembered and then not evicted (a budget forbade it, or the operator ended in between) is asked for again.
    let again = |last: &Replacing| candidates.iter().any(|(pod, _)| pod.metadata.uid.as_ref() == Some(&last.uid));
    match last {
        Some(last) if again(last) => Step::Evict(last.clone()),
        Some(last) if guarded_of(&last.controller) <= usize::try_from(last.guarded).unwrap_or(0) => {
            Step::Wait { pod: last.pod.clone(), until: Until::Replaced }
        }
        _ => Step::Evict(Replacing {
            pod: name(oldest),
            uid: oldest.metadata.uid.clone().unwrap_or_default(),
            controller: controller.clone(),
            guarded: i32::try_from(guarded_of(controller)).unwrap_or(i32::MAX),
            since: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        }),
    }
}

/// What is read of a pod here. The rest may be as long as its author made it.
pub fn kept(pod: Pod) -> Pod {
    let has_guard = has_guard(&pod);
    let Pod { metadata, spec: _, status } = pod;
    let hash = metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH)).filter(|hash| hash.len() <= 63).cloned();
    let owners = metadata.owner_references.into_iter().flatten().filter(|owner| owner.controller == Some(true));
    let ready = |condition: &PodCondition| condition.type_ == "Ready";
    let guard = Container { name: GUARD_CONTAINER.to_owned(), ..Container::default() };
    Pod {
        metadata: ObjectMeta {
            name: metadata.name,
            uid: metadata.uid,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            owner_references: Some(owners.collect()),
            labels: hash.map(|hash| [(TEMPLATE_HASH.to_owned(), hash)].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { init_containers: has_guard.then(|| vec![guard]), ..PodSpec::default() }),
        status: status.map(|status| PodStatus {
            phase: status.phase,
            conditions: Some(status.conditions.into_iter().flatten().filter(ready).collect()),
            ..PodStatus::default()
        }),
    }
}

impl Step {
    /// Continues "No guard enforces the scope of …;".
    pub fn words(&self) -> String {
        match self {
            Self::Done { left } if left.is_empty() => {
                "they have one that was not heard of: look at the logs of their container remit-guard".to_owned()
            }
            Self::Done { left } => {
                format!("no controller would replace {} after an eviction: delete it and make it anew", left.join(", "))
            }
            Self::Wait { pod, until: Until::Ready } => {
                format!("they are replaced one by one (unguardedPods: Evict), the next when {pod}, which has a guard, is ready")
            }
            Self::Wait { pod, until: Until::Gone } => {
                format!("they are replaced one by one (unguardedPods: Evict), the next when {pod} is gone")
            }
            Self::Wait { pod, until: Until::Replaced } => format!(
                "they are replaced one by one (unguardedPods: Evict), the next when a pod with a guard is ready in place of {pod}; where none comes, look at the Events of its controller"
            ),
            Self::Evict(Replacing { pod, .. }) => format!("they are replaced one by one (unguardedPods: Evict); {pod} is evicted"),
        }
    }
}

fn has_guard(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|container| container.name == GUARD_CONTAINER)
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Who would make it anew: kind and name. A Deployment makes another ReplicaSet when its template changes, so that counts as one.
fn replaced_by(pod: &Pod) -> Option<String> {
    let controller = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let OwnerReference { api_version, kind, name, .. } = controller;
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
    let of = hash.and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-')).unwrap_or(name);
    REPLACING.contains(&(api_version.as_str(), kind.as_str())).then(|| format!("{kind} {of}"))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// `name guarded|old ready|starting|going|ended SECOND OWNER`
    fn pod(words: &str) -> Pod {
        let [name, guard, state, second, owner] = words.split(' ').collect::<Vec<_>>()[..] else { panic!("{words}") };
        let (kind, uid) = owner.split_once('/').unwrap_or((owner, ""));
        let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let owners = if kind == "-" {
            json!([])
        } else {
            json!([{"apiVersion": version, "kind": kind, "name": uid, "uid": "u", "controller": true}])
        };
        let init: Vec<Value> = if guard == "guarded" { vec![json!({"name": GUARD_CONTAINER})] } else { vec![] };
        let mut pod = json!({
            "metadata": {"name": name, "uid": format!("u-{name}"), "ownerReferences": owners, "creationTimestamp": at(second.parse().unwrap()).to_string()},
            "spec": {"containers": [{"name": "app"}], "initContainers": init},
            "status": {"phase": if state == "ended" { "Failed" } else { "Running" },
                "conditions": [{"type": "Ready", "status": if state == "ready" { "True" } else { "False" }}]},
        });
        // Of a Deployment: `ReplicaSet/bot-HASH`.
        if let Some((_, hash)) = uid.split_once('-') {
            pod["metadata"]["labels"] = json!({TEMPLATE_HASH: hash});
        }
        if state == "going" {
            pod["metadata"]["deletionTimestamp"] = json!(at(0).to_string());
        }
        serde_json::from_value(pod).unwrap()
    }

    fn evicted(name: &str, controller: &str, guarded: i32) -> Replacing {
        Replacing { pod: name.into(), uid: format!("u-{name}"), controller: controller.into(), guarded, since: Time(at(100)) }
    }

    #[test]
    fn one_after_another() {
        let wait = |pod: &str, until| Step::Wait { pod: pod.into(), until };
        let done = |left: &[&str]| Step::Done { left: left.iter().map(|s| s.to_string()).collect() };
        let first = |name, controller, guarded| Step::Evict(evicted(name, controller, guarded));
        let was = |name, guarded| Some(evicted(name, "ReplicaSet rs", guarded));
        let (a, b) = ("a old ready 1 ReplicaSet/rs", "b old ready 2 ReplicaSet/rs");
        let n = "n guarded ready 51 ReplicaSet/rs";
        let table: Vec<(&str, Vec<&str>, Option<Replacing>, Step)> = vec![
            ("nothing", vec![], None, done(&[])),
            ("all have one", vec!["n guarded starting 9 ReplicaSet/rs"], None, done(&[])),
            ("the oldest", vec![b, a], None, first("a", "ReplicaSet rs", 0)),
            ("and what is there is counted", vec![b, n, a], None, first("a", "ReplicaSet rs", 1)),
            ("the first of equals", vec!["d old ready 1 DaemonSet/d", "c old ready 1 StatefulSet/s"], None, first("c", "StatefulSet s", 0)),
            ("whatever its state", vec!["a old starting 1 ReplicaSet/rs"], None, first("a", "ReplicaSet rs", 0)),
            ("what ended is passed over", vec!["a old ended 1 ReplicaSet/rs", b], None, first("b", "ReplicaSet rs", 0)),
            (
                "nobody would replace them",
                vec!["bare old ready 1 -", "j old ready 1 Job/j", "x old ready 1 Sandbox/x"],
                None,
                done(&["bare", "j", "x"]),
            ),
            ("some can be", vec!["bare old ready 1 -", b], None, first("b", "ReplicaSet rs", 0)),
            ("a guard older than Enforce", vec!["o guarded ready 0 ReplicaSet/rs", b], None, first("o", "ReplicaSet rs", 0)),
            ("a guard starts", vec![a, "n guarded starting 9 ReplicaSet/rs"], None, wait("n", Until::Ready)),
            (
                "one that stands for nobody",
                vec![a, "n guarded starting 9 -", "m guarded starting 9 ReplicaSet/other"],
                None,
                first("a", "ReplicaSet rs", 0),
            ),
            ("a guard goes", vec![a, "n guarded going 9 ReplicaSet/rs"], None, first("a", "ReplicaSet rs", 0)),
            ("one goes", vec!["a old going 1 ReplicaSet/rs", b], was("a", 0), wait("a", Until::Gone)),
            ("somebody deletes one", vec!["a old going 1 ReplicaSet/rs", b], None, wait("a", Until::Gone)),
            ("gone, and nothing came", vec![b], was("a", 0), wait("a", Until::Replaced)),
            ("no more than there were", vec![b, n], was("a", 1), wait("a", Until::Replaced)),
            ("of another controller", vec![b, "n guarded ready 51 ReplicaSet/other"], was("a", 0), wait("a", Until::Replaced)),
            ("without a guard", vec![b, "n old ready 51 ReplicaSet/rs"], was("a", 0), wait("a", Until::Replaced)),
            ("starting", vec![b, "n guarded starting 51 ReplicaSet/rs"], was("a", 0), wait("n", Until::Ready)),
            ("it came", vec![b, n], was("a", 0), first("b", "ReplicaSet rs", 1)),
            (
                "from another template",
                vec!["b old ready 2 ReplicaSet/rs-1", "n guarded ready 51 ReplicaSet/rs-2"],
                was("a", 0),
                first("b", "ReplicaSet rs", 1),
            ),
            ("the last of its controller, and nothing came", vec!["c old ready 1 StatefulSet/s"], was("a", 0), wait("a", Until::Replaced)),
            ("remembered and not evicted", vec![a, b], was("b", 0), Step::Evict(evicted("b", "ReplicaSet rs", 0))),
            ("the last", vec![n], was("a", 0), done(&[])),
        ];
        for (what, pods, last, expected) in table {
            let pods: Vec<Pod> = pods.into_iter().map(pod).map(kept).collect();
            let step = next(&pods, last.as_ref(), Some(at(1)), at(100));
            assert_eq!(step, expected, "{what}");
            assert!(!step.words().is_empty());
        }
    }

    /// However the world answers, never more than one pod without a guard is missing that no pod with a guard stands in for.
    #[test]
    fn no_more_than_one_is_lost() {
        for comes in [true, false] {
            let mut pods: Vec<Pod> = (0..5).map(|n| pod(&format!("p{n} old ready {n} ReplicaSet/rs"))).collect();
            let mut last = None;
            for second in 100..140 {
                if let Step::Evict(next) = next(&pods, last.as_ref(), None, at(second)) {
                    pods.retain(|pod| pod.metadata.uid.as_ref() != Some(&next.uid));
                    if comes {
                        pods.push(pod(&format!("n{second} guarded ready {second} ReplicaSet/rs")));
                    }
                    last = Some(next);
                }
                assert!(pods.len() >= if comes { 5 } else { 4 });
            }
            assert_eq!(pods.iter().filter(|pod| has_guard(pod)).count(), if comes { 5 } else { 0 });
        }
    }
}
