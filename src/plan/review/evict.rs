//! Having pods evicted is asked as the right to evict them; that they stay needs nothing.

use super::{Author, Check, Circumstances, Question, Review, Rule};
use crate::api::{AIWorkload, UnguardedPods};

impl Review {
    pub(super) fn evicting(&mut self, old: Option<&AIWorkload>, new: &AIWorkload, circumstances: Circumstances<'_>) {
        let Circumstances { author, user: _, now: _, ceilings: _, enrolled: _ } = circumstances;
        let wanted = |workload: &AIWorkload| workload.spec.unguarded_pods == UnguardedPods::Evict;
        // Another selector means other pods, another mode means all of them. Who applies on behalf of others holds every right: the operator's own binds there.
        let asked_before = old.is_some_and(|old| wanted(old) && old.spec.selector == new.spec.selector && old.spec.mode == new.spec.mode);
        if wanted(new) && !asked_before && author != Author::Applier {
            self.checks.push(Check { path: "unguardedPods".to_owned(), rule: Rule::Evict, question: Question::evict(new) });
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::plan::review::fixture::{all_lacking, judge, workload};
    use crate::plan::review::{Author, Change, Rule};
    use crate::scope::Ceilings;

    #[test]
    fn having_pods_evicted_needs_the_right_to_evict_them() {
        let none = Ceilings::default();
        let of = |more| workload(json!({}), more);
        let (keep, evict) = (of(json!({})), of(json!({"unguardedPods": "Evict"})));
        let wider = of(json!({"unguardedPods": "Evict", "selector": {"matchLabels": {"tier": "ai"}}}));
        let suspended = of(json!({"unguardedPods": "Evict", "suspend": true}));
        let observed = of(json!({"unguardedPods": "Evict", "mode": "Observe"}));
        let update = |old, new| Change::Update { old, new };
        for (what, change, asked) in [
            ("made", Change::Create(&evict), true),
            ("made, and they stay", Change::Create(&keep), false),
            ("asked for", update(&keep, &evict), true),
            ("taken back", update(&evict, &keep), false),
            ("of other pods", update(&evict, &wider), true),
            ("of those that were not judged", update(&observed, &evict), true),
            ("something else changes", update(&evict, &suspended), false),
        ] {
            for (author, asked) in [(Author::Person, asked), (Author::Controller, asked), (Author::Applier, false)] {
                let review = judge(change, author, &none);
                assert_eq!(review.checks.iter().any(|c| c.rule == Rule::Evict), asked, "{what} by {author:?}: {review:?}");
            }
        }
        let lines = all_lacking(&judge(update(&keep, &evict), Author::Person, &none));
        assert_eq!(lines.len(), 1);
        for words in ["unguardedPods: Evict", "\"create pods/eviction in namespace support\"", "--verb=create --resource=pods/eviction"] {
            assert!(lines[0].contains(words), "{lines:?}");
        }
    }
}
