//! What the guard and the operator say to each other. Bytes → values, strictly; no sockets.
//!
//! The guard asks with a [`Report`]; the operator answers with a signed policy, with nothing, or with a [`Refusal`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::document::{Edition, LARGEST, Mode};

/// Where the operator is asked (POST).
pub const PATH: &str = "/v1/guard";
/// The format of reports that this program writes and reads.
pub const REPORT_FORMAT: u32 = 1;
/// More bytes than these are not read: of a report, of a signed policy, of a refusal.
pub const LARGEST_REPORT: usize = 64 * 1024;
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

/// What a guard says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    pub format: u32,
    /// Of the guard.
    pub version: String,
    /// None: it has no valid policy yet.
    pub enforced: Option<Enforced>,
    /// Denials since the last report that was answered, by the code of the reason.
    pub denials: BTreeMap<String, u64>,
    pub up_seconds: u64,
}

/// What a guard enforces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enforced {
    pub edition: Edition,
    pub mode: Mode,
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
        let Self { format: _, version, enforced, denials, up_seconds: _ } = &report;
        word("version", version)?;
        if let Some(Enforced { edition: Edition { uid, generation: _, serial: _, digest }, mode: _ }) = enforced {
            word("enforced.edition.uid", uid)?;
            word("enforced.edition.digest", digest)?;
        }
        if denials.len() > MOST_REASONS {
            return Err(ReportError::Reasons);
        }
        denials.keys().try_for_each(|reason| word("denials", reason))?;
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
            "format": 1, "version": "0.1.0", "upSeconds": 7, "denials": {"name_not_declared": 3},
            "enforced": {"mode": "Enforce", "edition": {"uid": "u", "generation": 1, "serial": 5, "digest": "d"}},
        })
    }

    #[test]
    fn what_is_read() {
        type Change = fn(&mut Value);
        let table: &[(&str, Change, Option<&str>)] = &[
            ("as it is", |_| {}, None),
            ("no policy yet", |r| r["enforced"] = json!(null), None),
            ("newer", |r| (r["format"], r["more"]) = (json!(2), json!(1)), Some("has format 2")),
            ("more", |r| r["more"] = json!(1), Some("unknown field `more`")),
            ("a long version", |r| r["version"] = json!("v".repeat(257)), Some("version is longer")),
            ("a line break", |r| r["enforced"]["edition"]["digest"] = json!("a\nb"), Some("enforced.edition.digest is longer")),
            ("an odd reason", |r| r["denials"] = json!({"a b": 1}), Some("denials is longer")),
            (
                "many",
                |r| r["denials"] = (0..65).map(|n| (format!("r{n}"), json!(1))).collect::<serde_json::Map<_, _>>().into(),
                Some("more than 64"),
            ),
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
    fn keys_in_tls() {
        assert_eq!(public_key(&spki(&[7; 32])), Some([7; 32]));
        for bad in [&[][..], &SPKI_HEAD, &[0; SPKI_LENGTH], &[&spki(&[7; 32])[..], &[0]].concat()] {
            assert_eq!(public_key(bad), None, "{bad:?}");
        }
    }
}
