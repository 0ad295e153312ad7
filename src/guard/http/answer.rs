//! Refusals in words: a problem document (RFC 9457) for programs, with a sentence for people and for models.

use serde::Serialize;

use crate::guard::gate::Denied;
use crate::guard::record::{Outcome, Records};
use crate::policy::{Attempt, Reason};

/// The type of the body.
pub const PROBLEM: &str = "application/problem+json";

/// What the app is told instead of the upstream's answer.
pub struct Answer {
    pub status: u16,
    /// A problem document.
    pub body: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: String,
    status: u16,
    detail: &'a str,
    reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempted: Option<Attempted<'a>>,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    declare: Option<&'a str>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Attempted<'a> {
    method: &'a str,
    host: &'a str,
    path: &'a str,
}

/// Writes the refusal down, and says it.
pub fn refuse(records: &Records, denied: &Denied, attempt: &Attempt) -> Answer {
    let Denied { reason, policy } = denied;
    let id = records.judged(Outcome::Refused, *reason, attempt, policy.as_deref());
    let whose = policy.as_ref().map(|policy| format!("{}/{}", policy.workload.namespace, policy.workload.name));
    let failed = reason.status() >= 500 && reason.retryable();
    let title = match whose {
        Some(whose) if !failed => format!("outside the scope of {whose}"),
        Some(whose) => format!("could not be done within the scope of {whose}"),
        None => "there is no scope".to_owned(),
    };
    let again = if reason.retryable() { "It may be tried again later" } else { "Trying again will not help" };
    let detail = format!("Not allowed: {}. {again}. What helps: {}.", reason.means(), reason.remedy());
    let (attempted, declare) = match attempt {
        Attempt::Request { method, host, path, declare } => {
            (Some(Attempted { method, host, path }), declare.as_deref().filter(|_| reason.declarable()))
        }
        Attempt::Name(_) | Attempt::Question(_) | Attempt::Address(_) | Attempt::Server { .. } => (None, None),
    };
    let kind = format!("https://remit.dev/reasons/{}", reason.code());
    let status = reason.status();
    let problem = Problem {
        kind,
        title,
        status,
        detail: &detail,
        reason: *reason,
        attempted,
        retryable: reason.retryable(),
        declare,
        request_id: &id,
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    Answer { status, body }
}

/// The words of a status, for people.
pub fn words(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
