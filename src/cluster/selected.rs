//! Which AIWorkload of a namespace holds a pod, by the pod's labels.
//!
//! In: the AIWorkloads as they are cached or as they were just listed, and the ceilings. Out: the one that governs, or why the one that
//! would cannot. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::facts::WorkloadFact;
use super::gather;
use super::world::World;
use crate::api;
use crate::plan::{self, BreakGlass, Contender, Debugging};
use crate::scope::{Ceilings, Mode, ObjectName, Scope, Selector};

/// The AIWorkloads of one namespace, and the ceilings over it.
#[derive(Clone, Debug, Default)]
pub struct Residents {
    workloads: Vec<Resident>,
    pub ceilings: Ceilings,
}

#[derive(Clone, Debug)]
struct Resident {
    name: String,
    fact: Arc<WorkloadFact>,
    /// The one that governs in its place.
    older: Option<String>,
}

/// Who holds a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Selected {
    Nobody,
    /// This one, as far as the ceilings let it.
    By(Box<Scope>),
    /// One in Enforce that cannot govern.
    Stuck(Stuck),
}

/// An AIWorkload in Enforce that selects a pod and cannot govern it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stuck {
    pub workload: String,
    pub selector: Selector,
    pub why: String,
}

impl Residents {
    /// As the watches say.
    pub fn cached(world: &World, namespace: &str) -> Self {
        let own = world.workloads.iter().filter(|(name, _)| name.namespace == namespace);
        let resident = |(name, fact): (&ObjectName, &Arc<WorkloadFact>)| Resident {
            name: name.name.clone(),
            fact: fact.clone(),
            older: world.older(name).map(str::to_owned),
        };
        Self { workloads: own.map(resident).collect(), ceilings: gather::ceilings(world, namespace) }
    }

    /// As they were just listed.
    pub fn listed(listed: Vec<(ObjectName, WorkloadFact)>, ceilings: Ceilings) -> Self {
        let facts: Vec<_> = listed.into_iter().map(|(name, fact)| (name.name, Arc::new(fact))).collect();
        let contenders: Vec<Contender<'_>> = facts
            .iter()
            .filter_map(|(name, fact)| fact.contends().map(|(created, selector)| Contender { name, created, selector }))
            .collect();
        let losers: BTreeMap<String, String> =
            plan::governing(&contenders).into_iter().map(|(loser, older)| (loser.to_owned(), older.to_owned())).collect();
        let workloads = facts.into_iter().map(|(name, fact)| Resident { older: losers.get(&name).cloned(), name, fact }).collect();
        Self { workloads, ceilings }
    }

    /// The AIWorkload in Enforce that runs as this account. Not `default`: every pod that names none has that.
    pub fn runs_as(&self, account: &str) -> Option<&str> {
        let enforced = self.workloads.iter().filter(|w| w.older.is_none() && !w.fact.is_leaving());
        let runs = |w: &&Resident| w.fact.scope.as_ref().is_ok_and(|s| s.mode == Mode::Enforce && s.account.name() == account);
        enforced.filter(|_| account != "default").find(runs).map(|w| w.name.as_str())
    }

    /// Of this AIWorkload.
    pub fn uid(&self, workload: &str) -> &str {
        let of = self.workloads.iter().find(|resident| resident.name == workload);
        of.and_then(|resident| resident.fact.object.metadata.uid.as_deref()).unwrap_or_default()
    }

    /// Whether the pods of this AIWorkload may be debugged now.
    pub fn debugging(&self, workload: &str, now: Timestamp) -> Debugging {
        let of = self.workloads.iter().find(|resident| resident.name == workload);
        match of.and_then(|resident| BreakGlass::lasting(resident.fact.object.metadata.annotations.as_ref(), now)) {
            Some(_) => Debugging::Allowed,
            None => Debugging::Refused,
        }
    }

    /// Who holds a pod with these labels. One that is being deleted does so until its pods are gone.
    pub fn selected(&self, labels: &BTreeMap<String, String>) -> Selected {
        let mut stuck = None;
        for Resident { name, fact, older } in &self.workloads {
            let Some(selector) = fact.selector.as_ref().filter(|s| s.matches(labels) && !fact.is_leaving()) else { continue };
            let why = match (older, &fact.scope) {
                (None, Ok(scope)) => return Selected::By(Box::new(self.ceilings.narrow(scope).0)),
                (None, Err(errors)) => {
                    let first = errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                    format!("is not valid{first}; correct it first")
                }
                (Some(older), _) => {
                    format!(
                        "does not govern, because AIWorkload `{older}` could select the same pods; make their selectors exclude each other"
                    )
                }
            };
            // One in Observe holds nothing anyway.
            if fact.object.spec.mode == api::Mode::Enforce {
                stuck.get_or_insert_with(|| Stuck { workload: name.clone(), selector: selector.clone(), why });
            }
        }
        stuck.map_or(Selected::Nobody, Selected::Stuck)
    }
}

#[cfg(test)]
mod tests {
    use kube::api::DynamicObject;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::facts;

    fn workload(name: &str, second: u8, metadata: Value, spec: Value) -> DynamicObject {
        let mut all = json!({"name": name, "namespace": "support", "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")});
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": all, "spec": spec})).unwrap()
    }

    #[test]
    fn one_governs_or_says_why_not() {
        let app = |app: &str, mode: &str| json!({"selector": {"matchLabels": {"app": app}}, "mode": mode});
        let broad = |mode: &str| json!({"selector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, "mode": mode});
        let invalid = |mode: &str| {
            let sources =
                json!([{"name": "x", "type": "Service", "access": "Read", "service": {"name": "db", "port": 1, "protocol": "TCP"}}]);
            json!({"selector": {"matchLabels": {"app": "bot"}}, "mode": mode, "dataSources": sources})
        };
        let unreadable = || json!({"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce", "dataSources": [{"type": "Telepathy"}]});
        let none = || json!({});
        let going = |finalizer: &str| json!({"deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": [finalizer]});
        let (bot, tiered) = (json!({"app": "bot"}), json!({"app": "other", "tier": "ai"}));
        // What there is, the pod's labels, who holds it (a star: cannot).
        let cases: Vec<(&str, Vec<DynamicObject>, &Value, &str)> = vec![
            ("nothing", vec![], &bot, ""),
            ("one", vec![workload("a", 1, none(), app("bot", "Enforce"))], &bot, "a"),
            ("another's", vec![workload("a", 1, none(), app("shop", "Enforce"))], &bot, ""),
            ("in Observe", vec![workload("a", 1, none(), app("bot", "Observe"))], &bot, "a"),
            (
                "Enforce before Observe",
                vec![workload("a", 1, none(), app("bot", "Observe")), workload("b", 2, none(), app("bot", "Enforce"))],
                &bot,
                "b",
            ),
            ("the older", vec![workload("b", 1, none(), app("bot", "Enforce")), workload("a", 2, none(), broad("Enforce"))], &bot, "b"),
            (
                "only one that does not govern",
                vec![workload("b", 1, none(), app("bot", "Enforce")), workload("a", 2, none(), broad("Enforce"))],
                &tiered,
                "*a",
            ),
            (
                "the same in Observe",
                vec![workload("b", 1, none(), app("bot", "Enforce")), workload("a", 2, none(), broad("Observe"))],
                &tiered,
                "",
            ),
            ("invalid", vec![workload("a", 1, none(), invalid("Enforce"))], &bot, "*a"),
            ("invalid in Observe", vec![workload("a", 1, none(), invalid("Observe"))], &bot, ""),
            ("of another schema, with a selector that can be read", vec![workload("a", 1, none(), unreadable())], &bot, "*a"),
            ("of another schema", vec![workload("a", 1, none(), json!({"selector": 3, "mode": "Enforce"}))], &bot, ""),
            ("held in deletion", vec![workload("a", 1, going(api::FINALIZER), app("bot", "Enforce"))], &bot, "a"),
            ("going, and another's finalizer", vec![workload("a", 1, going("x/y"), app("bot", "Enforce"))], &bot, ""),
        ];
        for (what, objects, labels, expected) in cases {
            let labels = serde_json::from_value(labels.clone()).unwrap();
            let found =
                match Residents::listed(objects.iter().cloned().map(facts::workload).collect(), Ceilings::default()).selected(&labels) {
                    Selected::Nobody => String::new(),
                    Selected::By(scope) => scope.workload.name.clone(),
                    Selected::Stuck(Stuck { workload, selector, why }) => {
                        assert!(selector.matches(&labels) && why.contains(';'), "{what}: {why}");
                        format!("*{workload}")
                    }
                };
            assert_eq!(found, expected, "{what}");
            // The cache says the same.
            let mut world = World::default();
            for object in objects {
                world.on_workload(kube::runtime::watcher::Event::Apply(facts::workload(object)));
            }
            let cached = Residents::cached(&world, "support").selected(&labels);
            let again = match &cached {
                Selected::Nobody => String::new(),
                Selected::By(scope) => scope.workload.name.clone(),
                Selected::Stuck(stuck) => format!("*{}", stuck.workload),
            };
            assert_eq!(again, expected, "{what}, cached");
            assert_eq!(Residents::cached(&world, "elsewhere").selected(&labels), Selected::Nobody);
        }
    }

    #[test]
    fn a_pod_is_held_by_what_the_ceilings_leave() {
        let sources = json!([{"name": "key", "type": "Secret", "class": "Restricted", "secret": {"name": "key"}}]);
        let bot =
            workload("a", 1, json!({}), json!({"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce", "dataSources": sources}));
        for (classes, left) in [(json!(["Public"]), 0), (json!(["Public", "Restricted"]), 1)] {
            let ceiling = json!({"metadata": {"name": "c"}, "spec": {"namespaceSelector": {}, "classes": classes}});
            let (_, facts::CeilingFact { ceiling, .. }) = facts::ceiling(serde_json::from_value(ceiling).unwrap());
            let residents = Residents::listed(vec![facts::workload(bot.clone())], Ceilings(vec![ceiling]));
            match residents.selected(&[("app".to_owned(), "bot".to_owned())].into()) {
                Selected::By(scope) => assert_eq!(scope.sources.len(), left, "{classes}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
