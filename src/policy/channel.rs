//! What the guard and the operator say to each other. Bytes → values, strictly; no sockets.
//!
//! The guard asks with a [`Report`]; the operator answers with a signed policy, with nothing, or with a [`Refusal`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::{Edition, LARGEST};

/// Where the operator is asked (POST).
pub const PATH: &str = "/v1/guard";
/// The format of reports that this program writes and reads.
pub const REPORT_FORMAT: u32 = 1;
/// More bytes than these are not read: of a report, of a signed policy, of a refusal.
pub const LARGEST_REPORT: usize = 128 * 1024;
/// The text, and room for its signatures.
pub const LARGEST_NOTE: usize = LARGEST + 4096;
pub const LARGEST_REFUSAL: usize = 4096;
/// A token is not longer.
pub const LARGEST_TOKEN: usize = 16 * 1024;
/// How long the operator holds back the answer that there is nothing new.
pub const HOLD_SECONDS: u64 = 25;
/// Kinds of denials in a report, and the length of words in it.
const MOST_REASONS: usize = 64;
const LONGEST_WORD: usize = 256;
/// Data sources in a report, with [`OTHER`]. An AIWorkload declares 64 at most; those that a guard has seen come and go are more.
pub const MOST_SOURCES: usize = 256;
/// The name of a data source is not longer.
pub const LONGEST_SOURCE: usize = 63;
/// Stands for everything that has no name of its own in a count. No data source and no reason is called so.
pub const OTHER: &str = "_other";

/// What a guard says of itself. All counts are totals since its start, so a report that comes twice says nothing twice.
///
/// Guards may be newer than the operator: fields that it does not know are passed over. They may be older as well: fields that are added
/// have a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub format: u32,
    /// Of the guard.
    pub version: String,
    /// The newest format of policies that the guard reads.
    pub reads: u32,
    /// Drawn at the guard's start: counts of two lives are added, counts of one are not.
    pub life: u64,
    /// Which policy holds. None: no valid one has come yet.
    #[serde(default)]
    pub enforced: Option<Edition>,
    /// What was refused, by the code of the reason.
    #[serde(default)]
    pub denials: BTreeMap<String, u64>,
    /// What Observe let through and Enforce would have refused.
    #[serde(default)]
    pub would_deny: BTreeMap<String, u64>,
    /// What passed, by the name of the data source.
    #[serde(default)]
    pub usage: BTreeMap<String, Usage>,
}

/// What passed to and from a data source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// That were let through, and found their destination.
    pub connections: u64,
    /// Bytes, from the app.
    pub sent: u64,
    /// Bytes, to the app.
    pub received: u64,
    /// Where requests are judged.
    #[serde(default, skip_serializing_if = "Requests::are_none")]
    pub requests: Requests,
}

/// Requests that were let through, by the class of the answer's status, in the order of [`CLASSES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, u64>", into = "BTreeMap<&'static str, u64>")]
pub struct Requests(pub [u64; CLASSES.len()]);

/// The first has those for the answer of which nobody waited, and answers of no class.
pub const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl Requests {
    /// Where answers of this status are counted.
    pub fn class(status: u16) -> usize {
        Some(usize::from(status / 100)).filter(|class| *class < CLASSES.len()).unwrap_or_default()
    }

    fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

impl From<BTreeMap<String, u64>> for Requests {
    /// Classes that a newer guard may know are counted as the first.
    fn from(counts: BTreeMap<String, u64>) -> Self {
        let mut requests = Self::default();
        for (class, count) in counts {
            let class = CLASSES.iter().position(|known| *known == class).unwrap_or_default();
            requests.0[class] = requests.0[class].saturating_add(count);
        }
        requests
    }
}

impl From<Requests> for BTreeMap<&'static str, u64> {
    fn from(requests: Requests) -> Self {
        CLASSES.into_iter().zip(requests.0).filter(|(_, count)| *count > 0).collect()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// A code, for programs.
    pub reason: String,
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("larger than {LARGEST_REPORT} bytes")]
    Large,
    #[error("cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("has format {0}, and this operator reads format {REPORT_FORMAT}; bring operator and guard to the same version")]
    Format(u32),
    #[error("{0} is longer than {LONGEST_WORD} bytes, or not made of plain characters")]
    Word(&'static str),
    #[error("more than {MOST_REASONS} reasons")]
    Reasons,
    #[error("more than {MOST_SOURCES} data sources")]
    Sources,
}

impl Report {
    pub fn read(bytes: &[u8]) -> Result<Self, ReportError> {
        if bytes.len() > LARGEST_REPORT {
            return Err(ReportError::Large);
        }
        /// A newer report is told from a broken one.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes)?;
        if format != REPORT_FORMAT {
            return Err(ReportError::Format(format));
        }
        let report: Self = serde_json::from_slice(bytes)?;
        let Self { format: _, version, reads: _, life: _, enforced, denials, would_deny, usage } = &report;
        word("version", version)?;
        if let Some(Edition { uid, generation: _, serial: _, digest }) = enforced {
            word("enforced.uid", uid)?;
            word("enforced.digest", digest)?;
        }
        if denials.len().max(would_deny.len()) > MOST_REASONS {
            return Err(ReportError::Reasons);
        }
        if usage.len() > MOST_SOURCES {
            return Err(ReportError::Sources);
        }
        denials.keys().try_for_each(|reason| word("denials", reason))?;
        would_deny.keys().try_for_each(|reason| word("wouldDeny", reason))?;
        usage.keys().try_for_each(|source| word("usage", source))?;
        Ok(report)
    }
}

impl Refusal {
    /// Whatever it is that was said: it goes into a log only.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let Self { reason, message } = serde_json::from_slice(bytes.get(..bytes.len().min(LARGEST_REFUSAL))?).ok()?;
        Some(Self { reason, message })
    }
}

fn word(field: &'static str, text: &str) -> Result<(), ReportError> {
    let plain = text.len() <= LONGEST_WORD && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(()) } else { Err(ReportError::Word(field)) }
}

/// How an Ed25519 public key stands in TLS (RFC 7250, RFC 8410).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
pub const SPKI_LENGTH: usize = SPKI_HEAD.len() + 32;

pub fn spki(public_key: &[u8; 32]) -> [u8; SPKI_LENGTH] {
    let mut all = [0; SPKI_LENGTH];
    all[..SPKI_HEAD.len()].copy_from_slice(&SPKI_HEAD);
    all[SPKI_HEAD.len()..].copy_from_slice(public_key);
    all
}

/// The key in it. None: it is not an Ed25519 key.
pub fn public_key(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_HEAD)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn report() -> Value {
        json!({
            "format": 1, "version": "0.1.0", "reads": 1, "life": u64::MAX, "denials": {"name_not_declared": 3}, "wouldDeny": {},
            "usage": {"orders": {"connections": 1, "sent": 2, "received": 3, "requests": {"2xx": 4, "other": 1}}},
            "enforced": {"uid": "u", "generation": 1, "serial": 5, "digest": "d"},
        })
    }

    /// A guard that could write more than the operator reads would get no policies any more.
    #[test]
    fn the_largest_report_is_read() {
        let denials: BTreeMap<String, u64> = crate::policy::Reason::ALL.into_iter().map(|r| (r.code().to_owned(), u64::MAX)).collect();
        let usage = Usage { connections: u64::MAX, sent: u64::MAX, received: u64::MAX, requests: Requests([u64::MAX; CLASSES.len()]) };
        let report = Report {
            format: REPORT_FORMAT,
            version: "v".repeat(LONGEST_WORD),
            reads: u32::MAX,
            life: u64::MAX,
            enforced: Some(Edition {
                uid: "u".repeat(LONGEST_WORD),
                generation: i64::MIN,
                serial: u64::MAX,
                digest: "d".repeat(LONGEST_WORD),
            }),
            would_deny: denials.clone(),
            denials,
            usage: (0..MOST_SOURCES).map(|n| (format!("{n:0>LONGEST_SOURCE$}"), usage)).collect(),
        };
        assert_eq!(report.usage.len(), MOST_SOURCES);
        assert_eq!(Report::read(&serde_json::to_vec(&report).unwrap()).unwrap(), report);
    }

    /// Guards and operators of several versions meet: see ARCHITECTURE.md.
    #[test]
    fn what_newer_guards_say_more_is_passed_over() {
        let newer = json!({
            "format": 1, "version": "9", "reads": 7, "life": 5, "more": [1],
            "enforced": {"uid": "u", "generation": 1, "serial": 5, "digest": "d", "mode": "Inspect"},
            "usage": {"orders": {"connections": 1, "sent": 2, "received": 3, "calls": {}, "requests": {"2xx": 1, "7xx": 5}}}, "denials": {"a_new_reason": 1},
        });
        let read = Report::read(newer.to_string().as_bytes()).unwrap();
        assert_eq!((read.reads, read.usage["orders"].received, read.enforced.unwrap().serial), (7, 3, 5));
        assert_eq!((read.denials["a_new_reason"], read.would_deny.len()), (1, 0));
        assert_eq!(read.usage["orders"].requests, Requests([5, 0, 1, 0, 0, 0]));
    }

    #[test]
    fn what_is_read() {
        type Change = fn(&mut Value);
        let table: &[(&str, Change, Option<&str>)] = &[
            ("as it is", |_| {}, None),
            ("no policy yet", |r| r["enforced"] = json!(null), None),
            ("newer", |r| (r["format"], r["more"]) = (json!(2), json!(1)), Some("has format 2")),
            ("no life", |r| r["life"] = json!(null), Some("invalid type: null")),
            ("a long version", |r| r["version"] = json!("v".repeat(257)), Some("version is longer")),
            ("a line break", |r| r["enforced"]["digest"] = json!("a\nb"), Some("enforced.digest is longer")),
            ("an odd reason", |r| r["denials"] = json!({"a b": 1}), Some("denials is longer")),
            (
                "many",
                |r| r["denials"] = (0..65).map(|n| (format!("r{n}"), json!(1))).collect::<serde_json::Map<_, _>>().into(),
                Some("more than 64"),
            ),
            ("odd in Observe", |r| r["wouldDeny"] = json!({"a b": 1}), Some("wouldDeny is longer")),
            ("an odd source", |r| r["usage"]["a\u{e9}"] = json!({"connections": 1, "sent": 2, "received": 3}), Some("usage is longer")),
            (
                "many sources",
                |r| {
                    let one = json!({"connections": 1, "sent": 2, "received": 3});
                    r["usage"] = (0..=MOST_SOURCES).map(|n| (format!("s{n}"), one.clone())).collect::<serde_json::Map<_, _>>().into();
                },
                Some("more than 256 data sources"),
            ),
            ("an older guard", |r| _ = r["usage"]["orders"].as_object_mut().unwrap().remove("requests"), None),
            ("half a source", |r| r["usage"]["a"] = json!({"connections": 1}), Some("missing field `sent`")),
            ("fewer than none", |r| r["denials"] = json!({"a": -1}), Some("invalid value")),
            ("large", |r| r["version"] = json!("v".repeat(LARGEST_REPORT)), Some("larger than")),
        ];
        for (what, change, expected) in table {
            let mut value = report();
            change(&mut value);
            let read = Report::read(&serde_json::to_vec(&value).unwrap());
            match (read, expected) {
                (Ok(read), None) => assert_eq!(serde_json::to_value(&read).unwrap(), value, "{what}"),
                (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{what}: {error}"),
                (other, _) => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn classes_of_statuses() {
        for (status, class) in
            [(101, "1xx"), (200, "2xx"), (304, "3xx"), (499, "4xx"), (599, "5xx"), (600, "other"), (999, "other"), (0, "other")]
        {
            assert_eq!(CLASSES[Requests::class(status)], class, "{status}");
        }
    }

    #[test]
    fn keys_in_tls() {
        assert_eq!(public_key(&spki(&[7; 32])), Some([7; 32]));
        for bad in [&[][..], &SPKI_HEAD, &[0; SPKI_LENGTH], &[&spki(&[7; 32])[..], &[0]].concat()] {
            assert_eq!(public_key(bad), None, "{bad:?}");
        }
    }
}
