//! Break-glass: for a bounded time, with a reason and a name, the pods of one AIWorkload may be debugged.
//!
//! It stands in an annotation of the AIWorkload, so it ends by itself whatever happens to the operator. While it lasts, ephemeral containers
//! that are no more than the app and port-forward pass admission; the scope and the guard hold as before. In: annotations and the time.
//! Out: the exception, or why it is none. Who may write it is asked in [`super::review()`].

use std::char::REPLACEMENT_CHARACTER;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

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

    /// The one that admission honours at this time.
    pub fn lasting(annotations: Option<&BTreeMap<String, String>>, now: Timestamp) -> Option<Self> {
        Self::of(annotations).filter(|exception| exception.lasts(now))
    }

    /// Whether it lasts. (One that was written past our judgement may name any time: longer than allowed it is none.)
    pub fn lasts(&self, now: Timestamp) -> bool {
        now < self.until && self.until.duration_since(now) <= LONGEST
    }

    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    /// How long it will stay as it is at this time. None: it has ended.
    pub fn stays(&self, now: Timestamp) -> Option<Duration> {
        let left = self.until.duration_since(now);
        // One that is longer than allowed is none until that much has passed.
        let stays = if left > LONGEST { left - LONGEST } else { left };
        (!self.has_ended(now)).then(|| stays.unsigned_abs())
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
        if !reason.chars().all(is_plain) {
            return Err("`reason` must be one line of plain text, without control characters".to_owned());
        }
        Ok(asked)
    }
}

/// In conditions, Events and logs.
impl fmt::Display for BreakGlass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { until, by, reason } = self;
        write!(f, "Until {until}, by {}: {}", plain(by, LONGEST_REASON), plain(reason, LONGEST_REASON))
    }
}

/// Text of others, to be shown: one line of at most so many bytes, which a terminal takes for text.
pub fn plain(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for c in text.chars().map(|c| if is_plain(c) { c } else { REPLACEMENT_CHARACTER }) {
        if shown.len() + c.len_utf8() > most {
            return shown + "…";
        }
        shown.push(c);
    }
    shown
}

/// Whether it neither moves a cursor nor turns the direction of what follows.
fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
            assert_eq!(BreakGlass::lasting(Some(&annotations), at(now)).is_some(), lasts, "{now}");
        }
        for (now, seconds) in [
            ("2026-01-01T11:59:59Z", Some(1)),
            ("2026-01-01T12:00:00Z", None),
            ("2026-01-02T00:00:00Z", None),
            ("2026-01-01T04:00:00Z", Some(8 * 3600)),
            ("2026-01-01T03:59:58Z", Some(2)),
            ("-009999-01-02T01:59:59Z", Some(379_472_263_201)),
        ] {
            assert_eq!(exception.stays(at(now)).map(|d| d.as_secs()), seconds, "{now}");
            assert_eq!(exception.has_ended(at(now)), seconds.is_none(), "{now}");
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
            (text("2026-01-01T12:30:00Z", "dana", "es hängt: 二 👩\u{200d}💻"), ""),
            (text("2026-01-01T12:30:00Z", "dana", "it hangs\nsam approved"), "`reason` must be one line"),
            (text("2026-01-01T12:30:00Z", "dana", "\u{1b}[2Kx"), "`reason` must be one line"),
            (text("2026-01-01T12:30:00Z", "dana", "x\u{9b}2K"), "`reason` must be one line"),
            (text("2026-01-01T12:30:00Z", "dana", "x\u{2028}y"), "`reason` must be one line"),
            (text("2026-01-01T12:30:00Z", "dana", "x\u{202e}y"), "`reason` must be one line"),
            ("yes".to_owned(), "cannot be read"),
            (r#"{"until": "2026-01-01T12:30:00Z", "by": "dana", "reason": "x", "more": 1}"#.to_owned(), "cannot be read"),
        ] {
            match BreakGlass::asked(&annotation, "dana", now) {
                Ok(_) => assert_eq!(words, "", "{annotation}"),
                Err(message) => assert!(!words.is_empty() && message.contains(words), "{annotation}: {message}"),
            }
        }
    }

    #[test]
    fn what_is_shown_is_one_plain_bounded_line() {
        let shown =
            |by: &str, reason: &str| BreakGlass { until: at("2026-01-01T12:30:00Z"), by: by.into(), reason: reason.into() }.to_string();
        assert_eq!(shown("dana@example.com", "it hängs, INC-4711"), "Until 2026-01-01T12:30:00Z, by dana@example.com: it hängs, INC-4711");
        // One that was written past our judgement.
        assert_eq!(shown("da\nna", "\u{1b}[31mx\r\u{202e}y\t\u{9b}"), "Until 2026-01-01T12:30:00Z, by da�na: �[31mx��y��");
        for long in ["x".repeat(100_000), "ä".repeat(100_000), "\n".repeat(100_000)] {
            let shown = shown(&long, &long);
            assert!(shown.len() < 600 && shown.ends_with('…'), "{}", shown.len());
        }
        assert_eq!((plain("abc", 3), plain("abcd", 3), plain("aäb", 2)), ("abc".into(), "abc…".into(), "a…".into()));
    }
}
