//! What sets pods free is asked as the verb `release`.
//!
//! Promise: no change frees pods that were governed, or leaves pods out of the isolation of a namespace, without that question; only what
//! controllers delete and tidy passes unasked. In: the AIWorkload before and after, the kind of author, whether unscoped pods are
//! isolated. Out: checks of [`Rule::Release`], each with the field that frees. What else a change adds is not looked at.
//!
//! Three ways round the verb `release` lie in the metadata and are asked as well: the release annotation, an added owner
//! (whoever deletes the owner lets the garbage collector delete the AIWorkload), and our finalizer taken off an AIWorkload that is
//! being deleted. All other updates that leave the spec alone pass without a question.

use super::{Author, Check, Circumstances, Question, Review, Rule};
use crate::api::{self, AIWorkload, FINALIZER, RELEASE_ANNOTATION};
use crate::plan::{left_out, validate};

impl Review {
    pub(super) fn freed_by_creation(&mut self, new: &AIWorkload, author: Author) {
        if annotation(new).is_some() {
            self.release(new, format!("metadata.annotations[{RELEASE_ANNOTATION}]"));
        }
        if author != Author::Controller && new.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty()) {
            self.release(new, "metadata.ownerReferences".to_owned());
        }
    }

    pub(super) fn freed_by_metadata(&mut self, old: &AIWorkload, new: &AIWorkload) {
        if annotation(new).is_some() && annotation(new) != annotation(old) {
            self.release(old, format!("metadata.annotations[{RELEASE_ANNOTATION}]"));
        }
        let owners = |w: &AIWorkload| w.metadata.owner_references.clone().unwrap_or_default();
        if !owners(new).iter().all(|owner| owners(old).contains(owner)) {
            self.release(old, "metadata.ownerReferences".to_owned());
        }
        let held = |w: &AIWorkload| w.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER);
        if old.metadata.deletion_timestamp.is_some() && held(old) && !held(new) {
            self.release(old, "metadata.finalizers".to_owned());
        }
    }

    pub(super) fn freed_by_spec(&mut self, old: &AIWorkload, new: &AIWorkload) {
        if old.spec.mode != api::Mode::Enforce {
            return;
        }
        if new.spec.mode != api::Mode::Enforce {
            self.release(old, "mode".to_owned());
        }
        let narrowed = match (validate(old), validate(new)) {
            (Ok(old), Ok(new)) => !new.selector.covers(&old.selector),
            _ => old.spec.selector != new.spec.selector,
        };
        if narrowed {
            self.release(old, "selector".to_owned());
        }
    }

    /// Where unscoped pods are isolated, the pods of an Observe workload are left out of the isolation: naming them sets them free.
    /// From Enforce to Observe is asked already.
    pub(super) fn left_out_of_isolation(&mut self, old: Option<&AIWorkload>, new: &AIWorkload, circumstances: Circumstances<'_>) {
        if new.spec.mode != api::Mode::Observe || !circumstances.ceilings.isolate_unscoped() {
            return;
        }
        let Some(old) = old else { return self.release(new, "mode".to_owned()) };
        if old.spec.mode != api::Mode::Observe {
            return;
        }
        let widened = match (validate(old), validate(new)) {
            (Ok(old), Ok(new)) => !left_out(&old.selector).covers(&left_out(&new.selector)),
            _ => old.spec.selector != new.spec.selector,
        };
        if widened {
            self.release(new, "selector".to_owned());
        }
    }

    pub(super) fn freed_by_deletion(&mut self, old: &AIWorkload, author: Author) {
        if author != Author::Controller && old.spec.mode == api::Mode::Enforce {
            self.release(old, "deletion".to_owned());
            self.warnings.push(format!(
                "the pods of {name} stay denied until they are gone; to set them free at once: kubectl annotate aiworkload {name} -n {namespace} {RELEASE_ANNOTATION}=true",
                name = old.metadata.name.as_deref().unwrap_or_default(),
                namespace = old.metadata.namespace.as_deref().unwrap_or_default(),
            ));
        }
    }

    fn release(&mut self, workload: &AIWorkload, path: String) {
        self.checks.push(Check { path, rule: Rule::Release, question: Question::release(workload) });
    }
}

fn annotation(workload: &AIWorkload) -> Option<&String> {
    workload.metadata.annotations.as_ref()?.get(RELEASE_ANNOTATION)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::review::Change;
    use crate::plan::review::fixture::{ceilings, judge, workload};
    use crate::scope::Ceilings;

    #[test]
    fn what_sets_pods_free_needs_release() {
        let none = Ceilings::default();
        let enforce = workload(json!({}), json!({}));
        let observe = workload(json!({}), json!({"mode": "Observe"}));
        let labels = |labels: Value| workload(json!({}), json!({"selector": {"matchLabels": labels}}));
        let annotated = |value: &str| workload(json!({"annotations": {RELEASE_ANNOTATION: value}}), json!({}));
        let owned = workload(json!({"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]}), json!({}));
        let going = |finalizers: Value| workload(json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}), json!({}));
        let suspended = workload(json!({}), json!({"suspend": true, "identity": {"serviceAccountName": "x"}}));
        let cases = [
            ("Enforce to Observe", Change::Update { old: &enforce, new: &observe }, vec!["mode"]),
            ("Observe to Enforce", Change::Update { old: &observe, new: &enforce }, vec![]),
            ("narrowed selector", Change::Update { old: &enforce, new: &labels(json!({"app": "bot", "x": "y"})) }, vec!["selector"]),
            ("widened selector", Change::Update { old: &labels(json!({"app": "bot", "x": "y"})), new: &enforce }, vec![]),
            ("moved selector", Change::Update { old: &enforce, new: &labels(json!({"app": "other"})) }, vec!["selector"]),
            ("identity and suspend", Change::Update { old: &enforce, new: &suspended }, vec![]),
            ("delete Enforce", Change::Delete(&enforce), vec!["deletion"]),
            ("delete Observe", Change::Delete(&observe), vec![]),
            ("annotate", Change::Update { old: &enforce, new: &annotated("true") }, vec!["metadata.annotations[remit.dev/release]"]),
            (
                "change the annotation",
                Change::Update { old: &annotated("true"), new: &annotated("now") },
                vec!["metadata.annotations[remit.dev/release]"],
            ),
            ("remove the annotation", Change::Update { old: &annotated("true"), new: &enforce }, vec![]),
            ("create annotated", Change::Create(&annotated("true")), vec!["metadata.annotations[remit.dev/release]"]),
            ("add an owner", Change::Update { old: &enforce, new: &owned }, vec!["metadata.ownerReferences"]),
            ("remove an owner", Change::Update { old: &owned, new: &enforce }, vec![]),
            ("add the finalizer", Change::Update { old: &enforce, new: &workload(json!({"finalizers": [FINALIZER]}), json!({})) }, vec![]),
            (
                "our finalizer while it goes",
                Change::Update { old: &going(json!([FINALIZER, "x/y"])), new: &going(json!(["x/y"])) },
                vec!["metadata.finalizers"],
            ),
            (
                "another's finalizer while it goes",
                Change::Update { old: &going(json!([FINALIZER, "x/y"])), new: &going(json!([FINALIZER])) },
                vec![],
            ),
        ];
        for (what, change, expected) in cases {
            // An applier is asked like anybody; who lets it free no pods gives it all verbs but `release`.
            for author in [Author::Person, Author::Applier] {
                let review = judge(change, author, &none);
                let paths: Vec<&str> = review.checks.iter().map(|c| c.path.as_str()).collect();
                assert_eq!((paths, &review.refusals), (expected.clone(), &vec![]), "{what}");
                assert!(review.checks.iter().all(|c| c.rule == Rule::Release && c.question == Question::release(&enforce)), "{what}");
            }
            let unchanged = match change {
                Change::Create(_) => false,
                Change::Update { old, new } => old.spec == new.spec,
                Change::Delete(_) => true,
            };
            if unchanged {
                assert_eq!(judge(change, Author::Controller, &none).checks, vec![], "{what}");
            }
        }
    }

    #[test]
    fn an_owner_from_the_start_needs_release_as_well() {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "mine", "uid": "u"});
        let owned = workload(json!({"ownerReferences": [owner]}), json!({}));
        let checks = |change| judge(change, Author::Person, &Ceilings::default()).checks;
        assert_eq!(checks(Change::Create(&owned))[0].path, "metadata.ownerReferences");
        // The same uid under another name leads the garbage collector elsewhere.
        let mut renamed = owned.clone();
        renamed.metadata.owner_references.as_mut().unwrap()[0].name = "nowhere".into();
        assert_eq!(checks(Change::Update { old: &owned, new: &renamed })[0].path, "metadata.ownerReferences");
        assert_eq!(checks(Change::Update { old: &owned, new: &owned }), vec![]);
    }

    #[test]
    fn an_observe_workload_in_an_isolated_namespace_needs_release() {
        let observed = |app: &str| workload(json!({}), json!({"mode": "Observe", "selector": {"matchLabels": {"app": app}}}));
        let (bot, both) = (
            observed("bot"),
            workload(json!({}), json!({"mode": "Observe", "selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}})),
        );
        let within = workload(json!({}), json!({"mode": "Observe", "selector": {"matchLabels": {"app": "bot", "tier": "ai"}}}));
        let other = workload(json!({}), json!({"mode": "Observe", "selector": {"matchLabels": {"a": "b", "app": "bot"}}}));
        let isolated = ceilings(&[("c", "unscopedPods: Isolate")]);
        let open = ceilings(&[("c", "unscopedPods: Allow")]);
        let release = |change, ceilings| judge(change, Author::Person, ceilings).checks.iter().filter(|c| c.rule == Rule::Release).count();
        let enforced = workload(json!({}), json!({}));
        let cases = [
            (Change::Create(&bot), &isolated, 1),
            (Change::Create(&bot), &open, 0),
            (Change::Create(&enforced), &isolated, 0),
            (Change::Update { old: &bot, new: &both }, &isolated, 1), // leaves more pods out
            (Change::Update { old: &bot, new: &within }, &isolated, 0),
            (Change::Update { old: &bot, new: &other }, &isolated, 1), // narrower by one label, but other pods are left out
            (Change::Update { old: &both, new: &bot }, &isolated, 0),
            (Change::Update { old: &bot, new: &both }, &open, 0),
            (Change::Update { old: &bot, new: &enforced }, &isolated, 0),
            (Change::Update { old: &enforced, new: &bot }, &isolated, 1),
        ];
        for (change, ceilings, expected) in cases {
            assert_eq!(release(change, ceilings), expected, "{change:?}");
        }
    }
}
