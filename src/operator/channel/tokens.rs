//! A token → the pod that it was made for, by the API server's word (TokenReview). Kept for a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use sha2::{Digest, Sha256};

use crate::policy::pod::TOKEN_AUDIENCE;
use crate::scope::ObjectName;

const KNOWN: Duration = Duration::from_secs(60);
/// A pod that was made a moment ago may not be known everywhere yet.
const REFUSED: Duration = Duration::from_secs(5);
/// So many are kept. Whoever comes with tokens that he made up fills the second only.
const MOST_KNOWN: usize = 8 * 1024;
const MOST_REFUSED: usize = 1024;

/// One pod, not one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodIdentity {
    pub pod: ObjectName,
    pub uid: String,
}

/// What a review says. Err: why this is no guard's token.
pub(super) fn pod_of(status: &TokenReviewStatus) -> Result<PodIdentity, &'static str> {
    let TokenReviewStatus { audiences, authenticated, error: _, user } = status;
    if *authenticated != Some(true) {
        return Err("the API server does not know this token");
    }
    if !audiences.iter().flatten().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err("the token is for somebody else (audience)");
    }
    let Some(UserInfo { username, extra, groups: _, uid: _ }) = user else { return Err("the token is nobody's") };
    let account = username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:")?.split_once(':'));
    let Some((namespace, account)) = account.filter(|(namespace, account)| !namespace.is_empty() && !account.is_empty()) else {
        return Err("the token is not a ServiceAccount's");
    };
    if account.contains(':') {
        return Err("the token is not a ServiceAccount's");
    }
    let extra = |key: &str| match extra.as_ref()?.get(key)?.as_slice() {
        [one] if !one.is_empty() => Some(one.clone()),
        _ => None,
    };
    match (extra("authentication.kubernetes.io/pod-name"), extra("authentication.kubernetes.io/pod-uid")) {
        (Some(name), Some(uid)) => Ok(PodIdentity { pod: ObjectName::new(namespace, name), uid }),
        _ => Err("the token is bound to no pod"),
    }
}

type Known = Result<PodIdentity, &'static str>;
type Table = HashMap<[u8; 32], (Instant, Known)>;

/// Reviews of the last minute, by the hash of the token.
#[derive(Default)]
pub(super) struct Tokens {
    known: Mutex<Table>,
    refused: Mutex<Table>,
}

impl Tokens {
    pub fn get(&self, token: &str, now: Instant) -> Option<Known> {
        let key = key(token);
        [&self.known, &self.refused].into_iter().find_map(|table| {
            let table = table.lock().unwrap_or_else(PoisonError::into_inner);
            table.get(&key).filter(|(until, _)| *until > now).map(|(_, known)| known.clone())
        })
    }

    pub fn put(&self, token: &str, known: Known, now: Instant) {
        let (table, time, most) = match known {
            Ok(_) => (&self.known, KNOWN, MOST_KNOWN),
            Err(_) => (&self.refused, REFUSED, MOST_REFUSED),
        };
        let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= most {
            table.retain(|_, (until, _)| *until > now);
        }
        if table.len() < most {
            table.insert(key(token), (now + time, known));
        }
    }
}

fn key(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn whose_tokens_count() {
        type Change = fn(&mut Value);
        let table: &[(&str, Change, Result<(), &str>)] = &[
            ("a guard's", |_| {}, Ok(())),
            ("and for others", |s| s["audiences"] = json!(["a", TOKEN_AUDIENCE]), Ok(())),
            ("unknown", |s| s["authenticated"] = json!(false), Err("does not know")),
            ("nothing said", |s| _ = s.as_object_mut().unwrap().remove("authenticated"), Err("does not know")),
            ("another audience", |s| s["audiences"] = json!(["https://kubernetes.default.svc"]), Err("audience")),
            ("no audience", |s| _ = s.as_object_mut().unwrap().remove("audiences"), Err("audience")),
            ("nobody", |s| _ = s.as_object_mut().unwrap().remove("user"), Err("nobody's")),
            ("a person", |s| s["user"]["username"] = json!("alice"), Err("not a ServiceAccount's")),
            ("a strange name", |s| s["user"]["username"] = json!("system:serviceaccount:a:b:c"), Err("not a ServiceAccount's")),
            ("no namespace", |s| s["user"]["username"] = json!("system:serviceaccount::b"), Err("not a ServiceAccount's")),
            ("no name", |s| s["user"]["username"] = json!("system:serviceaccount:a:"), Err("not a ServiceAccount's")),
            ("a node's", |s| s["user"]["username"] = json!("system:node:a"), Err("not a ServiceAccount's")),
            ("bound to nothing", |s| s["user"]["extra"] = json!({}), Err("bound to no pod")),
            (
                "without uid",
                |s| _ = s["user"]["extra"].as_object_mut().unwrap().remove("authentication.kubernetes.io/pod-uid"),
                Err("bound to no pod"),
            ),
            ("two names", |s| s["user"]["extra"]["authentication.kubernetes.io/pod-name"] = json!(["a", "b"]), Err("bound to no pod")),
            ("an empty name", |s| s["user"]["extra"]["authentication.kubernetes.io/pod-name"] = json!([""]), Err("bound to no pod")),
        ];
        for (what, change, expected) in table {
            let mut status = json!({
                "authenticated": true, "audiences": [TOKEN_AUDIENCE],
                "user": {"username": "system:serviceaccount:support:bot", "uid": "x", "extra": {
                    "authentication.kubernetes.io/pod-name": ["bot-1"], "authentication.kubernetes.io/pod-uid": ["u-1"],
                }},
            });
            change(&mut status);
            let found = pod_of(&serde_json::from_value(status).unwrap());
            match expected {
                Ok(()) => assert_eq!(found, Ok(PodIdentity { pod: ObjectName::new("support", "bot-1"), uid: "u-1".into() }), "{what}"),
                Err(words) => assert!(found.as_ref().is_err_and(|e| e.contains(words)), "{what}: {found:?}"),
            }
        }
    }

    #[test]
    fn kept_for_a_while_and_so_many() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let pod = PodIdentity { pod: ObjectName::new("a", "b"), uid: "u".into() };
        tokens.put("good", Ok(pod.clone()), now);
        tokens.put("bad", Err("no"), now);
        assert_eq!(tokens.get("good", now), Some(Ok(pod)));
        assert_eq!((tokens.get("bad", now), tokens.get("other", now)), (Some(Err("no")), None));
        assert!(tokens.get("good", now + KNOWN).is_none() && tokens.get("bad", now + REFUSED).is_none());
        for n in 0..MOST_REFUSED * 2 {
            tokens.put(&n.to_string(), Err("no"), now);
        }
        assert!(tokens.refused.lock().unwrap().len() <= MOST_REFUSED && tokens.get("good", now).is_some());
    }
}
