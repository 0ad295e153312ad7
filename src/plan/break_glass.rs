//! Break-glass: for a bounded time, with a reason and a name, the pods of one AIWorkload may be debugged.
//!
//! It stands in an annotation of the AIWorkload, so it ends by itself whatever happens to the operator. While it lasts, ephemeral containers,
//! port-forward, and exec and attach into the guard pass admission; the scope and the guard hold as before. In: annotations and the time.
//! Out: the exception, or why it is none. Who may write it is asked in [`super::review()`].

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::BREAK_GLASS_ANNOTATION;

/// No exception is longer.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(8);
const LONGEST_REASON: usize = 256;

/// The exception, as the annotation says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakGlass {
    pub until: Timestamp,
    /// The user who asked for it.
    pub by: String,
    pub reason: String,
}

impl BreakGlass {
    /// The annotation; None: there is none, or one that cannot be read, which is no exception.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Option<Self> {
        serde_json::from_str(annotations?.get(BREAK_GLASS_ANNOTATION)?).ok()
    }

    /// Whether it lasts. (One that was written past our judgement may name any time: longer than allowed it is none.)
    pub fn lasts(&self, now: Timestamp) -> bool {
        now < self.until && self.until.duration_since(now) <= LONGEST
    }

    /// The exception that this user asks for at this time, or what speaks against it.
    pub fn asked(annotation: &str, user: &str, now: Timestamp) -> Result<Self, String> {
        let asked: Self = serde_json::from_str(annotation).map_err(|e| {
            format!("cannot be read ({e}); `kubectl remit break-glass` writes it: {{\"until\": \"2026-01-31T12:00:00Z\", \"by\": \"you\", \"reason\": \"why\"}}")
        })?;
        let Self { until, by, reason } = &asked;
        if *until <= now {
            return Err(format!("`until` has passed ({until}); name a time that lies ahead"));
        }
        if until.duration_since(now) > LONGEST {
            return Err(format!("`until` is more than {} hours ahead; ask again when it has ended", LONGEST.as_hours()));
        }
        if by != user {
            return Err(format!("`by` is {by:?}, and you are {user:?}: an exception bears the name of who asks for it"));
        }
        if reason.trim().is_empty() || reason.len() > LONGEST_REASON {
            return Err(format!("`reason` must have 1 to {LONGEST_REASON} bytes: it is what people read afterwards"));
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn text(until: &str, by: &str, reason: &str) -> String {
        serde_json::to_string(&BreakGlass { until: at(until), by: by.into(), reason: reason.into() }).unwrap()
    }

    #[test]
    fn it_lasts_until_its_end() {
        let annotations = [(BREAK_GLASS_ANNOTATION.to_owned(), text("2026-01-01T12:00:00Z", "dana", "x"))].into();
        let exception = BreakGlass::of(Some(&annotations)).unwrap();
        for (now, lasts) in [
            ("2026-01-01T11:59:59Z", true),
            ("2026-01-01T12:00:00Z", false),
            ("2026-01-02T00:00:00Z", false),
            ("2026-01-01T04:00:00Z", true),
            ("2026-01-01T03:59:59Z", false),
        ] {
            assert_eq!(exception.lasts(at(now)), lasts, "{now}");
        }
        for broken in ["", "{}", "true", r#"{"until": "soon", "by": "a", "reason": "b"}"#] {
            let annotations = [(BREAK_GLASS_ANNOTATION.to_owned(), broken.to_owned())].into();
            assert_eq!(BreakGlass::of(Some(&annotations)), None, "{broken}");
        }
        assert_eq!(BreakGlass::of(None), None);
    }

    #[test]
    fn who_asks_says_who_and_why_and_until_when() {
        let now = at("2026-01-01T12:00:00Z");
        for (annotation, words) in [
            (text("2026-01-01T12:30:00Z", "dana", "the bot hangs"), ""),
            (text("2026-01-01T20:00:00Z", "dana", "x"), ""),
            (text("2026-01-01T20:00:01Z", "dana", "x"), "more than 8 hours"),
            (text("2026-01-01T12:00:00Z", "dana", "x"), "has passed"),
            (text("2026-01-01T12:30:00Z", "sam", "x"), "`by` is \"sam\", and you are \"dana\""),
            (text("2026-01-01T12:30:00Z", "dana", " "), "`reason`"),
            (text("2026-01-01T12:30:00Z", "dana", &"x".repeat(257)), "`reason`"),
            ("yes".to_owned(), "cannot be read"),
            (r#"{"until": "2026-01-01T12:30:00Z", "by": "dana", "reason": "x", "more": 1}"#.to_owned(), "cannot be read"),
        ] {
            match BreakGlass::asked(&annotation, "dana", now) {
                Ok(_) => assert_eq!(words, "", "{annotation}"),
                Err(message) => assert!(!words.is_empty() && message.contains(words), "{annotation}: {message}"),
            }
        }
    }
}
