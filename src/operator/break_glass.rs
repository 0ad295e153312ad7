//! An exception for debugging, as people see it: the condition BreakGlass while it lasts, an Event when it begins and when it ends, and the
//! annotation taken away afterwards.
//!
//! Admission honours the annotation by the clock and asks nothing of this. In: the annotation, the time, and the condition that is there, by
//! which a restarted operator knows what has been told. Out: the condition, and when to look again. An annotation that cannot be read, or
//! that names a time too far ahead, is no exception: it is left as it is, and nothing is said of it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use super::events;
use super::reconcile::{Next, Reconciler, Written};
use super::status;
use crate::api::{self, AIWorkload};
use crate::plan::{self, BreakGlass};
use crate::scope::ObjectName;

/// The longest time without a look: timers do not follow a clock that is set, nor count while the machine sleeps.
const LOOK: Duration = Duration::from_secs(60);

impl Reconciler {
    /// Shows the exception that lasts, and takes away one that has ended.
    pub async fn break_glass(&self, name: &ObjectName) -> Next {
        let current = || self.world.read().workloads.get(name).cloned();
        let now = Timestamp::now();
        let Some(fact) = current() else { return Next::Change };
        if !self.show(&fact.object, now).await {
            return Next::Retry;
        }
        // As the write of the status left it.
        let Some(fact) = current() else { return Next::Change };
        let Some(exception) = BreakGlass::of(fact.object.metadata.annotations.as_ref()) else { return Next::Change };
        if let Some(stays) = exception.stays(now) {
            return Next::After(stays.min(LOOK));
        }
        match self.hands.end_exception(&fact.object).await {
            Ok(keys) => self.changed(keys),
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(workload = %name, error = error.message(), "could not take away an exception that has ended");
                self.metrics.failed("BreakGlass");
                return Next::Retry;
            }
        }
        Next::Change
    }

    /// Returns whether the status says what lasts.
    async fn show(&self, workload: &AIWorkload, now: Timestamp) -> bool {
        let status = workload.status.as_ref();
        let before = status.and_then(|status| api::condition(&status.conditions, api::BREAK_GLASS));
        let wanted = condition(workload, before, now);
        if wanted.as_ref() == before {
            return true;
        }
        // An Event of the one that leads, and before the condition: what dies between the two tells it again, and does not forget it.
        if let Some(news) = news(before, wanted.as_ref()).filter(|_| (self.hands.gate)()) {
            self.tell(workload, &news).await;
        }
        self.write_status(workload, &status::with_exception(status, wanted)).await != Written::Failed
    }

    async fn tell(&self, workload: &AIWorkload, news: &News) {
        let mut about = workload.object_ref(&());
        // The recorder takes what has the same reason for the same again, and forgets its note.
        about.resource_version = workload.metadata.resource_version.clone();
        let name = crate::cluster::facts::name(&workload.metadata);
        match news {
            News::Begun(note) => {
                tracing::warn!(workload = %name, note, "an exception for debugging begins");
                self.events.warn(&about, None, "BreakGlassBegun", "BreakGlass", note).await;
            }
            News::Ended(note) => {
                tracing::info!(workload = %name, note, "an exception for debugging has ended");
                self.events.tell(&about, None, "BreakGlassEnded", "BreakGlass", note).await;
            }
        }
    }
}

/// The condition to be there.
fn condition(workload: &AIWorkload, before: Option<&Condition>, now: Timestamp) -> Option<Condition> {
    let exception = BreakGlass::lasting(workload.metadata.annotations.as_ref(), now)?;
    let status = "True".to_owned();
    let since = before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
    Some(Condition {
        type_: api::BREAK_GLASS.to_owned(),
        last_transition_time: since.unwrap_or_else(|| Time(status::whole_seconds(now))),
        status,
        reason: "Debugging".to_owned(),
        message: exception.to_string(),
        observed_generation: workload.metadata.generation,
    })
}

/// What an Event tells, with its note.
#[derive(Clone, Debug, PartialEq, Eq)]
enum News {
    Begun(String),
    Ended(String),
}

fn news(before: Option<&Condition>, after: Option<&Condition>) -> Option<News> {
    let note = |note: &str| plan::plain(note, events::NOTE);
    match (before.map(|c| &c.message), after.map(|c| &c.message)) {
        (None, None) => None,
        (Some(before), Some(after)) if before == after => None,
        (None, Some(after)) => Some(News::Begun(note(after))),
        (Some(before), Some(after)) => Some(News::Begun(note(&format!("{after} (in place of: {before})")))),
        (Some(before), None) => Some(News::Ended(note(&format!("No longer in force: {before}")))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn workload(annotation: Option<&str>) -> AIWorkload {
        let annotations = annotation.map(|text| json!({api::BREAK_GLASS_ANNOTATION: text}));
        serde_json::from_value(json!({
            "apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload",
            "metadata": {"name": "bot", "namespace": "support", "generation": 3, "annotations": annotations},
            "spec": {"selector": {"matchLabels": {"app": "bot"}}, "mode": "Enforce"},
        }))
        .unwrap()
    }

    fn exception(until: &str, reason: &str) -> String {
        json!({"until": until, "by": "dana", "reason": reason}).to_string()
    }

    #[test]
    fn it_is_shown_while_admission_honours_it() {
        let noon = exception("2026-01-01T12:00:00Z", "it hangs");
        for (annotation, now, shown) in [
            (Some(noon.as_str()), "2026-01-01T11:59:59.9Z", true),
            (Some(&noon), "2026-01-01T12:00:00Z", false),
            (Some(&noon), "2026-01-01T04:00:00Z", true),
            (Some(&noon), "2026-01-01T03:59:59Z", false),
            (Some("soon"), "2026-01-01T11:00:00Z", false),
            (None, "2026-01-01T11:00:00Z", false),
        ] {
            let found = condition(&workload(annotation), None, at(now));
            let expected =
                shown.then(|| ("True".into(), "Debugging".into(), "Until 2026-01-01T12:00:00Z, by dana: it hangs".into(), Some(3)));
            assert_eq!(found.map(|c| (c.status, c.reason, c.message, c.observed_generation)), expected, "{annotation:?} {now}");
        }
    }

    #[test]
    fn it_begins_once_however_often_it_is_extended() {
        let (first, longer) = (exception("2026-01-01T12:00:00Z", "x"), exception("2026-01-01T13:00:00Z", "x"));
        let began = condition(&workload(Some(&first)), None, at("2026-01-01T11:00:00.5Z")).unwrap();
        assert_eq!(began.last_transition_time.0, at("2026-01-01T11:00:00Z"));
        let later = at("2026-01-01T11:30:00Z");
        assert_eq!(condition(&workload(Some(&first)), Some(&began), later), Some(began.clone()), "nothing is written");
        let extended = condition(&workload(Some(&longer)), Some(&began), later).unwrap();
        assert_eq!(extended.last_transition_time, began.last_transition_time);
        assert_ne!(extended.message, began.message);
        // Whoever writes False into our condition does not end anything.
        let denied = Condition { status: "False".into(), ..began.clone() };
        assert_eq!(condition(&workload(Some(&first)), Some(&denied), later).unwrap().last_transition_time.0, later);
    }

    #[test]
    fn what_changed_is_told_and_nothing_else() {
        let said = |message: &str| {
            let now = at("2026-01-01T11:00:00Z");
            let any = condition(&workload(Some(&exception("2026-01-01T12:00:00Z", "x"))), None, now).unwrap();
            Some(Condition { message: message.into(), ..any })
        };
        let (one, two) = (said("one"), said("two"));
        for (before, after, told) in [
            (&None, &None, None),
            (&one, &one, None),
            (&None, &one, Some(News::Begun("one".into()))),
            (&one, &two, Some(News::Begun("two (in place of: one)".into()))),
            (&one, &None, Some(News::Ended("No longer in force: one".into()))),
            // Whoever may write the status may have written anything there.
            (&said("\u{1b}[2K\n"), &None, Some(News::Ended("No longer in force: �[2K�".into()))),
        ] {
            assert_eq!(news(before.as_ref(), after.as_ref()), told);
        }
        let Some(News::Ended(long)) = news(said(&"x".repeat(9000)).as_ref(), None) else { panic!() };
        assert!(long.len() <= events::NOTE + 3);
    }
}
