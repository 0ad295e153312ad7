//! The webhook's paths, `/scope/<secret>` and `/record/<secret>`: whoever knows one is taken for an API server.
//!
//! An API server shows no certificate of its own unless its administrator made one, and no NetworkPolicy can name its address on every
//! cluster; but it is told the path. Promise: each path has 32 random bytes of its own, made once, kept in a Secret of ours (whoever keeps
//! the certificate), published in the webhook configurations, compared in constant time, never logged.
//!
//! Who can read them: whoever may get ValidatingWebhookConfigurations (the cluster's roles view, edit and admin may not) or the Secret (edit
//! and admin may, where they are bound in the operator's namespace), and whoever reads the API servers' logs. One more learns the path of
//! `/scope`: the author of a change that nobody answers for is told the URL by the API server. So `/record` has a secret of its own, which
//! is in no such message: its failures are ignored.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::{GetRandomFailed, SecureRandom};
use subtle::{Choice, ConstantTimeEq};

/// The Secret in the operator's namespace.
pub(in crate::operator) const SECRET: &str = "remit-webhook-path";
const BYTES: usize = 32;

/// What is asked at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Scope,
    Record,
}

/// The secret part of each path, in hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Paths {
    scope: String,
    record: String,
}

/// The paths that are answered; clones share them. They change only if somebody changes the Secret; those before stay known, for the API
/// servers that have not heard of it, until there are newer ones or the process ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<RwLock<Vec<Paths>>>);

impl Endpoint {
    /// What a webhook of this name asks.
    pub fn of(webhook: &str) -> Self {
        if webhook == "record.remit.dev" || webhook.ends_with(".record.remit.dev") { Self::Record } else { Self::Scope }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Scope => "scope",
            Self::Record => "record",
        }
    }
}

impl Paths {
    pub fn random(random: &dyn SecureRandom) -> Result<Self, GetRandomFailed> {
        let secret = || {
            let mut bytes = [0; BYTES];
            random.fill(&mut bytes)?;
            Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
        };
        Ok(Self { scope: secret()?, record: secret()? })
    }

    /// None if one is missing or not what we make.
    pub fn read(secret: &Secret) -> Option<Self> {
        let text = |endpoint: Endpoint| {
            let text = String::from_utf8(secret.data.as_ref()?.get(endpoint.name())?.0.clone()).ok()?;
            let whole = text.len() == 2 * BYTES && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            whole.then_some(text)
        };
        Some(Self { scope: text(Endpoint::Scope)?, record: text(Endpoint::Record)? })
    }

    pub fn write(&self, secret: &mut Secret) {
        let entry = |endpoint: Endpoint| (endpoint.name().to_owned(), ByteString(self.secret(endpoint).into()));
        secret.data = Some([Endpoint::Scope, Endpoint::Record].map(entry).into());
    }

    pub fn path(&self, endpoint: Endpoint) -> String {
        format!("/{}/{}", endpoint.name(), self.secret(endpoint))
    }

    fn secret(&self, endpoint: Endpoint) -> &str {
        match endpoint {
            Endpoint::Scope => &self.scope,
            Endpoint::Record => &self.record,
        }
    }
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope: _, record: _ } = self;
        f.debug_struct("Paths").finish_non_exhaustive()
    }
}

impl Known {
    pub fn current(&self) -> Option<Paths> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    pub fn set(&self, paths: Paths) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.first() != Some(&paths) {
            known.insert(0, paths);
            known.truncate(2);
        }
    }

    /// What is asked at this path, if it is one of ours.
    pub fn endpoint(&self, path: &str) -> Option<Endpoint> {
        let (name, secret) = path.strip_prefix('/')?.split_once('/')?;
        let endpoint = [Endpoint::Scope, Endpoint::Record].into_iter().find(|e| e.name() == name)?;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let same = |any: Choice, paths: &Paths| any | paths.secret(endpoint).as_bytes().ct_eq(secret.as_bytes());
        bool::from(known.iter().fold(Choice::from(0), same)).then_some(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random() -> Paths {
        Paths::random(rustls::crypto::ring::default_provider().secure_random).unwrap()
    }

    #[test]
    fn only_whole_paths_are_known_and_each_leads_to_its_own() {
        let (known, paths) = (Known::default(), random());
        let [scope, record] = [Endpoint::Scope, Endpoint::Record].map(|e| paths.path(e));
        assert_eq!(known.endpoint(&scope), None, "nothing is known yet");
        assert_eq!(known.endpoint("/scope/"), None, "the empty one neither");
        known.set(paths.clone());
        assert_eq!(known.endpoint(&scope), Some(Endpoint::Scope));
        assert_eq!(known.endpoint(&record), Some(Endpoint::Record));
        let wrong = [
            String::new(),
            "/".into(),
            "/scope".into(),
            "/record".into(),
            "/scope/".into(),
            "/record/".into(),
            format!("/record/{}", paths.scope),
            format!("/scope/{}", paths.record),
            format!("/scope/{}", random().scope),
            format!("/other/{}", paths.scope),
            format!("/{}", paths.scope),
            format!("scope/{}", paths.scope),
            scope[..scope.len() - 1].into(),
            format!("{scope}0"),
            format!("{scope}/"),
            scope.to_uppercase(),
        ];
        for path in wrong {
            assert_eq!(known.endpoint(&path), None, "{path}");
        }
    }

    #[test]
    fn the_ones_before_are_known_for_as_long_as_they_may_be_asked() {
        let (known, all) = (Known::default(), [random(), random(), random()]);
        let mut knows = |set: &Paths| {
            known.set(set.clone());
            known.set(set.clone());
            assert_eq!(known.current().as_ref(), Some(set));
            all.each_ref().map(|paths| known.endpoint(&paths.path(Endpoint::Record)).is_some())
        };
        assert_eq!(all.each_ref().map(&mut knows), [[true, false, false], [true, true, false], [false, true, true]]);
    }

    #[test]
    fn kept_in_a_secret() {
        let (paths, mut secret) = (random(), Secret::default());
        assert!(paths != random() && paths.scope != paths.record);
        assert_eq!(Paths::read(&secret), None);
        paths.write(&mut secret);
        assert_eq!(Paths::read(&secret), Some(paths.clone()));
        let whole = &paths.scope;
        for damaged in ["", "x", &whole[1..], &format!("{whole}0"), &whole.to_uppercase().replace(char::is_numeric, "A"), &"/".repeat(64)] {
            let mut secret = secret.clone();
            secret.data.as_mut().unwrap().insert("scope".into(), ByteString(damaged.into()));
            assert_eq!(Paths::read(&secret), None, "{damaged}");
        }
        assert!(!format!("{paths:?}").contains(&paths.scope[..8]), "secrets are not printed");
    }

    #[test]
    fn a_webhooks_name_says_what_it_asks() {
        for (name, endpoint) in [
            ("aiworkloads.remit.dev", Endpoint::Scope),
            ("scopeceilings.remit.dev", Endpoint::Scope),
            ("namespaced.record.remit.dev", Endpoint::Record),
            ("cluster.record.remit.dev", Endpoint::Record),
            ("record.remit.dev", Endpoint::Record),
            ("norecord.remit.dev", Endpoint::Scope),
        ] {
            assert_eq!(Endpoint::of(name), endpoint, "{name}");
        }
    }
}
