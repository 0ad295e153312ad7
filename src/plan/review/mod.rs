//! Nobody grants what they do not hold, nobody grants above the ceiling, and nobody sets pods free without the right to.
//!
//! Promise: every *added* item of a changed AIWorkload is bounded by the ceilings and asked of its author; whatever sets governed
//! pods free is asked as the verb `release`; everything else passes. In: what changes, the ceilings over the namespace, the kind of
//! author. Out: refusals, and questions for the authorizer, each with the field that needs it; [`Review::denials`] makes messages of
//! the answers. It asks nobody itself: no client, no clock.
//!
//! `release` (does it set pods free); `break_glass` (may they be debugged); `evict` (may they be evicted); `added` (what is new) → `ceiling` (is it within; if not, `remedy`) and `held` (must the author
//! hold it). `question` is what the authorizer is asked, `denial` what its answers mean.

mod added;
mod break_glass;
mod ceiling;
mod denial;
mod evict;
#[cfg(test)]
mod fixture;
mod held;
mod question;
mod release;
mod remedy;

use k8s_openapi::jiff::Timestamp;

use self::added::{added, before};
use self::held::secrets_as_objects;
use super::{FieldError, validate};
use crate::api::{AIWorkload, ENROLLED_LABEL, ScopeCeiling};
use crate::scope::{Ceilings, Source, Target};

pub use self::question::{Check, Question, Rule};

/// What happens to an AIWorkload.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    Create(&'a AIWorkload),
    Update { old: &'a AIWorkload, new: &'a AIWorkload },
    Delete(&'a AIWorkload),
}

/// The kind of author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// Anybody: asked for what they add.
    Person,
    /// Named in the configuration (a GitOps controller, which holds everything): a ceiling must allow what it adds, explicitly.
    Applier,
    /// The namespace controller, the garbage collector, the operator itself: deletes and tidies metadata unasked. A spec that it
    /// writes is a person's.
    Controller,
}

/// What the change is judged against.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    pub author: Author,
    /// Their name.
    pub user: &'a str,
    pub now: Timestamp,
    /// The ceilings over the namespace.
    pub ceilings: &'a Ceilings,
    /// Whether the namespace is enrolled.
    pub enrolled: bool,
}

/// The judgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Refused, whoever asks.
    pub refusals: Vec<FieldError>,
    /// Allowed only if the authorizer says yes to each.
    pub checks: Vec<Check>,
    /// Said to the author, and nothing more.
    pub warnings: Vec<String>,
}

/// What this change of an AIWorkload needs.
pub fn review(change: Change<'_>, circumstances: Circumstances<'_>) -> Review {
    let Circumstances { author, user: _, now: _, ceilings: _, enrolled } = circumstances;
    let mut review = Review::default();
    match change {
        Change::Create(new) => {
            review.freed_by_creation(new, author);
            review.break_glass(None, new, circumstances);
            review.evicting(None, new, circumstances);
            review.left_out_of_isolation(None, new, circumstances);
            review.declared(None, new, circumstances);
        }
        Change::Update { old, new } => {
            if author != Author::Controller {
                review.freed_by_metadata(old, new);
            }
            review.break_glass(Some(old), new, circumstances);
            if old.spec != new.spec {
                review.evicting(Some(old), new, circumstances);
                review.freed_by_spec(old, new);
                review.left_out_of_isolation(Some(old), new, circumstances);
                review.declared(Some(old), new, circumstances);
            }
        }
        Change::Delete(old) => {
            review.freed_by_deletion(old, author);
            return review;
        }
    }
    if !enrolled && let Change::Create(new) | Change::Update { old: _, new } = change {
        let namespace = new.metadata.namespace.as_deref().unwrap_or_default();
        review.warnings.push(format!(
            "namespace {namespace} is not enrolled, so nothing is enforced there; its admin enrols it: kubectl label namespace {namespace} {ENROLLED_LABEL}=true"
        ));
    }
    review
}

/// What a new or changed ScopeCeiling needs.
pub fn review_ceiling(new: &ScopeCeiling) -> Review {
    Review { refusals: super::ceiling(new).err().unwrap_or_default(), ..Review::default() }
}

impl Review {
    fn refuse(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.refusals.push(FieldError { path: path.into(), message: message.into() });
    }

    /// What the spec adds, bounded by the ceilings and asked of its author.
    fn declared(&mut self, old: Option<&AIWorkload>, new: &AIWorkload, circumstances: Circumstances<'_>) {
        let Circumstances { author, user: _, now: _, ceilings, enrolled: _ } = circumstances;
        let scope = match validate(new) {
            Ok(scope) => scope,
            Err(errors) => {
                self.refusals.extend(errors);
                if author != Author::Applier {
                    self.checks.extend(secrets_as_objects(new));
                }
                return;
            }
        };
        let before = before(old, &scope);
        let added = added(before.as_ref(), &scope, true);
        for source in &added {
            self.bounded(&scope, source, author, ceilings);
        }
        if author != Author::Applier {
            self.ask(before.as_ref(), &scope);
        }
        self.stays_above(&scope, added, ceilings);
    }
}

/// The field in which an item of a source is declared.
fn field(source: &Source) -> String {
    format!("dataSources[name={}].{}", source.name, member(&source.target))
}

fn member(target: &Target) -> &'static str {
    match target {
        Target::Service { .. } => "service",
        Target::Host { .. } => "host",
        Target::Kubernetes(_) => "kubernetes",
        Target::ConfigMap(_) => "configMap",
        Target::Secret(_) => "secret",
        Target::PersistentVolumeClaim { .. } => "persistentVolumeClaim",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::fixture::{OPEN, ceilings, host, judge, kubernetes, object, of, service, workload};
    use super::*;

    #[test]
    fn metadata_of_an_invalid_workload_is_never_held_up() {
        let broken = |labels: Value| {
            workload(
                json!({"labels": labels, "finalizers": []}),
                json!({"selector": {}, "dataSources": [kubernetes(json!({"apiGroups": [""], "resources": ["secrets"]})), host("h", "evil.example.com")]}),
            )
        };
        let (old, new) = (broken(json!({})), broken(json!({"a": "b"})));
        assert_eq!(
            judge(Change::Update { old: &old, new: &new }, Author::Person, &ceilings(&[("tight", "classes: []")])),
            Review::default()
        );
    }

    #[test]
    fn a_ceiling_must_be_valid() {
        let object = |classes: Value| {
            serde_json::from_value::<ScopeCeiling>(json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": "c"}, "spec": {"namespaceSelector": {}, "hosts": classes}})).unwrap()
        };
        assert_eq!(review_ceiling(&object(json!([{"name": "h", "host": "help.example.com", "ports": [443]}]))).refusals, vec![]);
        assert_eq!(review_ceiling(&object(json!([{"name": "h", "host": "10.0.0.1", "ports": [0]}]))).refusals.len(), 2);
    }

    fn any_source() -> impl Strategy<Value = Value> {
        prop_oneof![
            (0..3u8, 0..3u8).prop_map(|(s, n)| service(
                &format!("s{s}{n}"),
                [None, Some("shop"), Some("finance")][n as usize],
                &format!("s{s}")
            )),
            (0..4u8).prop_map(|h| host(&format!("h{h}"), &format!("h{h}.example.com"))),
            (0..3u8, any::<bool>(), proptest::collection::btree_set(0..3u8, 0..3)).prop_map(|(r, write, names)| {
                let names: Vec<String> = names.into_iter().map(|n| format!("n{n}")).collect();
                let mut source = kubernetes(json!({"resources": [format!("r{r}")], "resourceNames": names}));
                source["name"] = json!(format!("k{r}{write}{}", names.len()));
                source["access"] = json!(if write { "ReadWrite" } else { "Read" });
                source
            }),
            (0..3u8, any::<bool>()).prop_map(|(i, write)| {
                let mut source = object(
                    &format!("o{i}{write}"),
                    ["Secret", "ConfigMap", "PersistentVolumeClaim"][i as usize],
                    ["secret", "configMap", "persistentVolumeClaim"][i as usize],
                );
                if write && i == 2 {
                    source["access"] = json!("ReadWrite");
                }
                source
            }),
        ]
    }

    proptest! {
        /// Taking things away asks nothing but release, and no ceiling stands in its way.
        #[test]
        fn a_removal_asks_nothing(sources in proptest::collection::vec((any_source(), any::<bool>()), 0..8), purpose in any::<bool>(), applier in any::<bool>(), over in 0..3usize) {
            let mut named: BTreeMap<String, (Value, bool)> = BTreeMap::new();
            for (source, keep) in sources {
                named.insert(source["name"].to_string(), (source, keep));
            }
            let all: Vec<Value> = named.values().map(|(s, _)| s.clone()).collect();
            let rest: Vec<Value> = named.values().filter(|(_, keep)| *keep).map(|(s, _)| s.clone()).collect();
            let old = of(json!(all));
            let new = workload(json!({}), json!({"dataSources": rest, "purpose": if purpose { "less" } else { "as before" }}));
            let over = [vec![], vec![("none", "classes: []")], vec![("open", OPEN), ("none", "classes: []")]][over].clone();
            let author = if applier { Author::Applier } else { Author::Person };
            let review = judge(Change::Update { old: &old, new: &new }, author, &ceilings(&over));
            prop_assert!(review.checks.iter().all(|c| c.rule == Rule::Release), "{:?}", review);
            prop_assert_eq!(review.refusals, vec![]);
        }

        /// Whatever a person adds that is not bounded away is asked: creating asks at least what updating asks.
        #[test]
        fn an_update_asks_no_more_than_a_creation(before in proptest::collection::vec(any_source(), 0..6), after in proptest::collection::vec(any_source(), 0..6)) {
            let unique = |sources: Vec<Value>| of(json!(sources.into_iter().map(|s| (s["name"].to_string(), s)).collect::<BTreeMap<_, _>>().into_values().collect::<Vec<_>>()));
            let (old, new) = (unique(before), unique(after));
            let open = ceilings(&[]);
            let update: BTreeSet<Check> = judge(Change::Update { old: &old, new: &new }, Author::Person, &open).checks.into_iter().collect();
            let create: BTreeSet<Check> = judge(Change::Create(&new), Author::Person, &open).checks.into_iter().collect();
            prop_assert!(update.is_subset(&create));
            // What is not asked on the update, the old one declared (which its author was asked).
            let asked_before: BTreeSet<Question> = judge(Change::Create(&old), Author::Person, &open).checks.into_iter().map(|c| c.question).collect();
            for check in create.difference(&update) {
                let all_names = Question { name: None, ..check.question.clone() };
                prop_assert!(asked_before.contains(&check.question) || asked_before.contains(&all_names), "{:?}", check);
            }
        }
    }
}
