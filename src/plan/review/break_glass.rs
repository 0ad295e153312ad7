//! An exception for debugging is asked as the verb `break-glass`, whoever writes it, and names a person: appliers are refused. Ending one needs nothing.

use super::{Author, Check, Circumstances, Question, Review, Rule};
use crate::api::{AIWorkload, BREAK_GLASS_ANNOTATION};
use crate::plan::BreakGlass;

impl Review {
    pub(super) fn break_glass(&mut self, old: Option<&AIWorkload>, new: &AIWorkload, circumstances: Circumstances<'_>) {
        let Circumstances { author, user, now, ceilings: _, enrolled: _ } = circumstances;
        let annotation = |w: &AIWorkload| w.metadata.annotations.as_ref()?.get(BREAK_GLASS_ANNOTATION).cloned();
        let Some(wanted) = annotation(new).filter(|wanted| old.and_then(annotation).as_ref() != Some(wanted)) else { return };
        let path = format!("metadata.annotations[{BREAK_GLASS_ANNOTATION}]");
        if author == Author::Applier {
            let message = format!(
                "{user} applies what others wrote, and an exception names the person who asks for it; ask for it yourself (kubectl remit break-glass)"
            );
            return self.refuse(path, message);
        }
        match BreakGlass::asked(&wanted, user, now) {
            Ok(_) => self.checks.push(Check { path, rule: Rule::BreakGlass, question: Question::break_glass(new) }),
            Err(message) => self.refuse(path, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::review::fixture::{NOW, all_lacking, judge, workload};
    use crate::plan::review::{Author, Change};
    use crate::scope::Ceilings;

    #[test]
    fn asking_needs_the_verb_and_ending_needs_nothing() {
        let none = Ceilings::default();
        let plain = workload(json!({}), json!({}));
        let exception = |until: &str| {
            let text = json!({"until": until, "by": "dana@example.com", "reason": "it hangs"}).to_string();
            workload(json!({"annotations": {BREAK_GLASS_ANNOTATION: text}}), json!({}))
        };
        let (half, hour) = (exception("2026-01-01T12:30:00Z"), exception("2026-01-01T13:00:00Z"));
        assert_eq!(NOW, "2026-01-01T12:00:00Z");
        let long = exception("2026-01-02T12:00:00Z");
        let update = |old, new| Change::Update { old, new };
        for (what, change, asked, refused) in [
            ("asked for", update(&plain, &half), 1, 0),
            ("longer", update(&half, &hour), 1, 0),
            ("with the AIWorkload", Change::Create(&half), 1, 0),
            ("as it was", update(&half, &half), 0, 0),
            ("ended", update(&half, &plain), 0, 0),
            ("too long", update(&plain, &long), 0, 1),
        ] {
            for author in [Author::Person, Author::Applier, Author::Controller] {
                let (asked, refused) = if author == Author::Applier { (0, asked + refused) } else { (asked, refused) };
                let review = judge(change, author, &none);
                let checks = review.checks.iter().filter(|c| c.rule == Rule::BreakGlass).count();
                assert_eq!((checks, review.refusals.len()), (asked, refused), "{what} by {author:?}: {review:?}");
            }
        }
        let lines = all_lacking(&judge(update(&plain, &half), Author::Person, &none));
        assert!(lines[0].contains("needs \"break-glass aiworkloads.remit.dev bot in namespace support\""), "{lines:?}");
        assert!(lines[0].contains("kubectl create role break-glass-aiworkloads -n support --verb=break-glass"), "{lines:?}");
    }
}
