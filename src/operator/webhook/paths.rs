//! The webhook's paths, `/scope/<secret>` and so on: whoever knows one is taken for an API server.
//!
//! An API server shows no certificate of its own unless its administrator made one, and no NetworkPolicy can name its address on every
//! cluster; but it is told the path. Promise: each path has 32 random bytes of its own, made once, kept in a Secret of ours (whoever keeps
//! the certificate), published in the webhook configurations, compared in constant time, never logged.
//!
//! Who can read them: whoever may get ValidatingWebhookConfigurations or MutatingWebhookConfigurations (the cluster's roles view, edit and admin may not) or the Secret (edit
//! and admin may, where they are bound in the operator's namespace), and whoever reads the API servers' logs. One more learns the paths of
//! all but `/record`: the author of a change that nobody answers for is told the URL by the API server. So each has a secret of its own, and
//! that of `/record` is in no such message: its failures are ignored.

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
    /// What is put into a pod.
    Inject,
    /// Whether a pod, a template or a connection is admitted.
    Admit,
}

/// The secret part of each path, in hexadecimal digits, in the order of [`Endpoint::ALL`].
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Paths([String; 4]);

/// The paths that are answered; clones share them. They change only if somebody changes the Secret; those before stay known, for the API
/// servers that have not heard of it, until there are newer ones or the process ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Known(Arc<RwLock<Vec<Paths>>>);

impl Endpoint {
    pub const ALL: [Self; 4] = [Self::Scope, Self::Record, Self::Inject, Self::Admit];

    /// What a webhook of this name asks.
    pub fn of(webhook: &str) -> Self {
        let is = |domain: &str| webhook.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        match webhook {
            _ if is("record.remit.dev") => Self::Record,
            _ if is("inject.remit.dev") => Self::Inject,
            _ if is("pods.remit.dev") => Self::Admit,
            _ => Self::Scope,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Scope => "scope",
            Self::Record => "record",
            Self::Inject => "inject",
            Self::Admit => "admit",
        }
    }
}

impl Paths {
    #[cfg(test)]
    pub fn random(random: &dyn SecureRandom) -> Result<Self, GetRandomFailed> {
        Self::complete(None, None, random)
    }

    /// What is stored; for a path that is not, or is not what we make, the one that was known; else a new one. So the Secret of an earlier
    /// version gets what it lacks, and one that was damaged or deleted comes back as it was: API servers still ask there.
    pub fn complete(secret: Option<&Secret>, known: Option<&Self>, random: &dyn SecureRandom) -> Result<Self, GetRandomFailed> {
        let mut all = [const { String::new() }; 4];
        for (endpoint, path) in Endpoint::ALL.into_iter().zip(&mut all) {
            let stored = secret.and_then(|secret| stored(secret, endpoint));
            *path = match stored.or_else(|| known.map(|known| known.secret(endpoint).to_owned())) {
                Some(path) => path,
                None => {
                    let mut bytes = [0; BYTES];
                    random.fill(&mut bytes)?;
                    bytes.iter().map(|b| format!("{b:02x}")).collect()
                }
            };
        }
        Ok(Self(all))
    }

    /// None if one is missing or not what we make.
    pub fn read(secret: &Secret) -> Option<Self> {
        let [scope, record, inject, admit] = Endpoint::ALL.map(|endpoint| stored(secret, endpoint));
        Some(Self([scope?, record?, inject?, admit?]))
    }

    pub fn write(&self, secret: &mut Secret) {
        let entry = |endpoint: Endpoint| (endpoint.name().to_owned(), ByteString(self.secret(endpoint).into()));
        secret.data = Some(Endpoint::ALL.map(entry).into());
    }

    pub fn path(&self, endpoint: Endpoint) -> String {
        format!("/{}/{}", endpoint.name(), self.secret(endpoint))
    }

    fn secret(&self, endpoint: Endpoint) -> &str {
        let [scope, record, inject, admit] = &self.0;
        match endpoint {
            Endpoint::Scope => scope,
            Endpoint::Record => record,
            Endpoint::Inject => inject,
            Endpoint::Admit => admit,
        }
    }
}

fn stored(secret: &Secret, endpoint: Endpoint) -> Option<String> {
    let text = String::from_utf8(secret.data.as_ref()?.get(endpoint.name())?.0.clone()).ok()?;
    let whole = text.len() == 2 * BYTES && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    whole.then_some(text)
}

impl fmt::Debug for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
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
        let endpoint = Endpoint::ALL.into_iter().find(|e| e.name() == name)?;
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let same = |any: Choice, paths: &Paths| any | paths.secret(endpoint).as_bytes().ct_eq(secret.as_bytes());
        bool::from(known.iter().fold(Choice::from(0), same)).then_some(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(secret: Option<&Secret>, known: Option<&Paths>) -> Paths {
        Paths::complete(secret, known, rustls::crypto::ring::default_provider().secure_random).unwrap()
    }

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
        assert_eq!(Endpoint::ALL.map(|e| known.endpoint(&paths.path(e))), Endpoint::ALL.map(Some));
        let wrong = [
            String::new(),
            "/".into(),
            "/scope".into(),
            "/record".into(),
            "/scope/".into(),
            "/record/".into(),
            format!("/record/{}", paths.secret(Endpoint::Scope)),
            format!("/scope/{}", paths.secret(Endpoint::Record)),
            format!("/scope/{}", random().secret(Endpoint::Scope)),
            format!("/other/{}", paths.secret(Endpoint::Scope)),
            format!("/{}", paths.secret(Endpoint::Scope)),
            format!("scope/{}", paths.secret(Endpoint::Scope)),
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
        let different: std::collections::BTreeSet<_> = paths.0.iter().collect();
        assert!(paths != random() && different.len() == Endpoint::ALL.len());
        assert_eq!(Paths::read(&secret), None);
        paths.write(&mut secret);
        assert_eq!(Paths::read(&secret), Some(paths.clone()));
        let whole = paths.secret(Endpoint::Scope);
        for damaged in ["", "x", &whole[1..], &format!("{whole}0"), &whole.to_uppercase().replace(char::is_numeric, "A"), &"/".repeat(64)] {
            let mut secret = secret.clone();
            secret.data.as_mut().unwrap().insert("scope".into(), ByteString(damaged.into()));
            assert_eq!(Paths::read(&secret), None, "{damaged}");
            let again = complete(Some(&secret), None);
            assert_ne!(again.secret(Endpoint::Scope), whole);
            assert_eq!(again.0[1..], paths.0[1..], "the others stay");
            assert_eq!(complete(Some(&secret), Some(&paths)), paths, "what was known comes back");
        }
        // As an earlier version wrote it.
        let mut old = secret.clone();
        old.data.as_mut().unwrap().retain(|key, _| ["scope", "record"].contains(&key.as_str()));
        let added = complete(Some(&old), None);
        assert_eq!((Paths::read(&old), &added.0[..2]), (None, &paths.0[..2]));
        assert!(added.0[2] != paths.0[2] && added.0[3] != paths.0[3]);
        assert!(!format!("{paths:?}").contains(&whole[..8]), "secrets are not printed");
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
            ("pods.inject.remit.dev", Endpoint::Inject),
            ("created.pods.remit.dev", Endpoint::Admit),
            ("pods.remit.dev", Endpoint::Admit),
            ("mypods.remit.dev", Endpoint::Scope),
        ] {
            assert_eq!(Endpoint::of(name), endpoint, "{name}");
        }
    }
}
