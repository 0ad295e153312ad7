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

/// The same for a call of gRPC: the fields of an answer that has only trailers.
pub fn refuse_grpc(records: &Records, denied: &Denied, attempt: &Attempt) -> Vec<(&'static str, String)> {
    let Denied { reason, policy } = denied;
    let id = records.judged(Outcome::Refused, *reason, attempt, policy.as_deref());
    // PERMISSION_DENIED, UNAVAILABLE, INVALID_ARGUMENT.
    let code: u8 = match reason.status() {
        400 | 431 => 3,
        _ if reason.retryable() => 14,
        _ => 7,
    };
    let declare = match attempt {
        Attempt::Request { declare: Some(declare), .. } if reason.declarable() => declare.as_str(),
        _ => "",
    };
    let message = format!("{}; {}", reason.means(), reason.remedy());
    let mut metadata = vec![("requestId", id.as_str())];
    if !declare.is_empty() {
        metadata.push(("declare", declare));
    }
    let details =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD_NO_PAD, status(code, &message, reason.code(), &metadata));
    vec![
        ("content-type", "application/grpc".to_owned()),
        ("grpc-status", code.to_string()),
        ("grpc-message", escaped(&message)),
        ("grpc-status-details-bin", details),
    ]
}

/// As gRPC wants its message: what is no printable character of ASCII, and `%`, is escaped.
fn escaped(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(byte as char);
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// `google.rpc.Status` with one `google.rpc.ErrorInfo`, as bytes of Protocol Buffers.
fn status(code: u8, message: &str, reason: &str, metadata: &[(&str, &str)]) -> Vec<u8> {
    fn part(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
        out.push(field << 3 | 2);
        let mut length = bytes.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(bytes);
    }
    let mut info = Vec::new();
    part(&mut info, 1, reason.as_bytes());
    part(&mut info, 2, b"remit.dev");
    for (key, value) in metadata {
        let mut entry = Vec::new();
        part(&mut entry, 1, key.as_bytes());
        part(&mut entry, 2, value.as_bytes());
        part(&mut info, 3, &entry);
    }
    let mut any = Vec::new();
    part(&mut any, 1, b"type.googleapis.com/google.rpc.ErrorInfo");
    part(&mut any, 2, &info);
    let mut out = vec![1 << 3, code];
    part(&mut out, 2, message.as_bytes());
    part(&mut out, 3, &any);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::guard::record::tests::{Log, policy};

    fn denied(reason: Reason) -> (Records, Log, Denied) {
        let log = Log::default();
        (Records::to(Box::new(log.clone())), log, Denied::by(Arc::new(policy("Enforce", "d")), reason))
    }

    fn attempt(declare: Option<&str>) -> Attempt {
        Attempt::Request { method: "POST".into(), host: "help.example.com".into(), path: "/a".into(), declare: declare.map(str::to_owned) }
    }

    #[test]
    fn a_problem_document_says_it_to_programs_people_and_models() {
        let (records, log, denied) = denied(Reason::MethodNotDeclared);
        let Answer { status, body } = refuse(&records, &denied, &attempt(Some("dataSources: …")));
        let mut problem: Value = serde_json::from_slice(&body).unwrap();
        let detail = problem["detail"].take().as_str().unwrap().to_owned();
        let id = problem["requestId"].take();
        assert_eq!((status, &id), (403, &log.records()[0]["requestId"]), "under which it is written down");
        assert!(detail.starts_with("Not allowed: ") && detail.contains("Trying again will not help. What helps: "), "{detail}");
        let expected = json!({
            "type": "https://remit.dev/reasons/method_not_declared", "title": "outside the scope of support/bot", "status": 403, "detail": null,
            "reason": "method_not_declared", "attempted": {"method": "POST", "host": "help.example.com", "path": "/a"}, "retryable": false,
            "declare": "dataSources: …", "requestId": null,
        });
        assert_eq!(problem, expected);
    }

    #[test]
    fn what_failed_may_be_tried_again() {
        for (reason, status, title, again) in [
            (Reason::Unreachable, 502, "could not be done within the scope of support/bot", true),
            (Reason::UpstreamSlow, 504, "could not be done within the scope of support/bot", true),
            (Reason::HostMismatch, 421, "outside the scope of support/bot", false),
        ] {
            let (records, _, denied) = denied(reason);
            let answer = refuse(&records, &denied, &attempt(Some("what is not declarable is not offered")));
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(
                (answer.status, problem["title"].as_str(), problem["retryable"].as_bool()),
                (status, Some(title), Some(again)),
                "{reason}"
            );
            assert!(problem["declare"].is_null() && problem["detail"].as_str().unwrap().contains("again"), "{problem}");
        }
        let (records, _, _) = denied(Reason::NoPolicy);
        let answer = refuse(&records, &Denied { reason: Reason::NoPolicy, policy: None }, &attempt(None));
        assert!(String::from_utf8(answer.body).unwrap().contains(r#""title":"there is no scope""#));
    }

    #[test]
    fn a_call_of_grpc_is_told_in_its_own_way() {
        for (reason, code) in
            [(Reason::PathNotDeclared, "7"), (Reason::Unreachable, "14"), (Reason::RequestMalformed, "3"), (Reason::RequestTooLarge, "3")]
        {
            let (records, log, denied) = denied(reason);
            let fields = refuse_grpc(&records, &denied, &attempt(Some("declare: é")));
            let field = |name: &str| fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str()).unwrap();
            assert_eq!((field("grpc-status"), field("content-type")), (code, "application/grpc"), "{reason}");
            assert!(field("grpc-message").bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{reason}");
            let details =
                base64::Engine::decode(&base64::engine::general_purpose::STANDARD_NO_PAD, field("grpc-status-details-bin")).unwrap();
            let text = String::from_utf8_lossy(&details).into_owned();
            let id = log.records()[0]["requestId"].as_str().unwrap().to_owned();
            assert!(
                text.contains("type.googleapis.com/google.rpc.ErrorInfo") && text.contains(reason.code()) && text.contains(&id),
                "{text}"
            );
            assert_eq!(text.contains("declare: é"), reason.declarable(), "{text}");
        }
        assert_eq!(escaped("a%b\né"), "a%25b%0A%C3%A9");
    }
}
