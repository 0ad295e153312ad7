//! The key that vouches for the operator before guards: policies are signed with it, and the control channel is served with it.
//!
//! Promise: made once, kept in a Secret of ours, the same in every replica; one that somebody deletes comes back as it was, because the guards
//! that run trust no other. One that somebody changes is taken: that is how it is replaced, and every pod with a guard must be restarted
//! then (until that it goes on with the policy that it has).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;

use crate::policy::signed::{Signer, Trust};

/// The Secret in the operator's namespace, and its key: 32 bytes.
pub(super) const SECRET: &str = "remit-guard-key";
const SEED: &str = "seed";
const FIELD_MANAGER: &str = "remit-keys";
const EVERY: Duration = Duration::from_secs(30);
const AFTER_ERROR: Duration = Duration::from_secs(3);
/// What stands before the 32 bytes of an Ed25519 key in PKCS #8 (RFC 8410).
const PKCS8: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The key.
pub struct Key {
    seed: [u8; 32],
    signer: Signer,
    trust: String,
}

impl Key {
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let signer = Signer::from_seed(&seed);
        let trust = signer.trust().to_string();
        Self { seed, signer, trust }
    }

    /// What guards are told: whose signature counts.
    pub fn trust(&self) -> &str {
        &self.trust
    }

    /// The same, to open notes with.
    pub fn verifier(&self) -> &Trust {
        self.signer.trust()
    }

    /// The signed note of a text.
    pub fn sign(&self, text: &str) -> String {
        self.signer.sign(text)
    }

    /// For TLS.
    pub fn pkcs8(&self) -> Vec<u8> {
        [PKCS8.as_slice(), &self.seed].concat()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed: _, signer: _, trust } = self;
        f.debug_struct("Key").field("trust", trust).finish_non_exhaustive()
    }
}

/// The key that holds now; clones share it.
#[derive(Clone, Debug)]
pub struct Keys(watch::Sender<Option<Arc<Key>>>);

impl Default for Keys {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Keys {
    /// None: it has not been read yet.
    pub fn current(&self) -> Option<Arc<Key>> {
        self.0.borrow().clone()
    }

    /// Told of each change.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Key>>> {
        self.0.subscribe()
    }

    pub fn set(&self, seed: [u8; 32]) {
        self.0.send_if_modified(|held| {
            let other = held.as_ref().is_none_or(|held| held.seed != seed);
            if other {
                let key = Key::from_seed(seed);
                if held.is_some() {
                    tracing::warn!(trust = key.trust, "the key of guards was replaced: restart every pod with a guard");
                }
                *held = Some(Arc::new(key));
            }
            other
        });
    }

    /// Reads and keeps it, for as long as this runs.
    pub async fn keep(self, client: kube::Client, namespace: String) {
        let secrets: Api<Secret> = Api::namespaced(client, &namespace);
        loop {
            let wait = match self.round(&secrets).await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::warn!(%error, secret = SECRET, "the key of guards cannot be kept");
                    AFTER_ERROR
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn round(&self, secrets: &Api<Secret>) -> Result<(), KeepError> {
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let found = secrets.get_opt(SECRET).await?;
        if let Some(seed) = found.as_ref().and_then(read) {
            self.set(seed);
            return Ok(());
        }
        // One that is damaged or gone comes back as it was.
        let seed = match self.current() {
            Some(key) => key.seed,
            None => random()?,
        };
        let data = Some([(SEED.to_owned(), ByteString(seed.to_vec()))].into());
        let written = match found {
            Some(found) => secrets.replace(SECRET, &params, &Secret { data, ..found }).await,
            None => {
                let labels = Some([("app.kubernetes.io/part-of".to_owned(), "remit".to_owned())].into());
                let metadata = ObjectMeta { name: Some(SECRET.to_owned()), labels, ..ObjectMeta::default() };
                secrets.create(&params, &Secret { metadata, data, ..Secret::default() }).await
            }
        };
        match written {
            Ok(written) => {
                tracing::info!(secret = SECRET, "the key of guards is stored");
                self.set(read(&written).ok_or(KeepError::Lost)?);
                Ok(())
            }
            // Another replica was first: its key counts.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let theirs = secrets.get(SECRET).await?;
                self.set(read(&theirs).ok_or(KeepError::Lost)?);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Cluster(#[from] kube::Error),
    #[error("no randomness")]
    Random,
    #[error("it was changed while it was written")]
    Lost,
}

fn read(secret: &Secret) -> Option<[u8; 32]> {
    secret.data.as_ref()?.get(SEED)?.0.as_slice().try_into().ok()
}

fn random() -> Result<[u8; 32], KeepError> {
    let mut seed = [0; 32];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut seed).map_err(|_| KeepError::Random)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_for_policies_and_for_tls() {
        let key = Key::from_seed([7; 32]);
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key.pkcs8()).unwrap();
        let trust: crate::policy::signed::Trust = key.trust().parse().unwrap();
        assert_eq!(ring::signature::KeyPair::public_key(&pair).as_ref(), trust.public_key());
        assert_eq!(trust.open(&key.sign("{}\n")), Ok("{}\n"));
        assert!(!format!("{key:?}").contains("seed"));
    }

    #[test]
    fn changes_are_told_once() {
        let keys = Keys::default();
        let mut changes = keys.changes();
        keys.set([1; 32]);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        keys.set([1; 32]);
        assert!(!changes.has_changed().unwrap());
        keys.set([2; 32]);
        assert!(changes.has_changed().unwrap());
    }

    #[test]
    fn secrets_that_hold_no_key() {
        let of = |bytes: &[u8]| Secret { data: Some([(SEED.to_owned(), ByteString(bytes.to_vec()))].into()), ..Secret::default() };
        assert_eq!(read(&of(&[7; 32])), Some([7; 32]));
        for secret in [of(&[]), of(&[7; 31]), of(&[7; 33]), Secret::default()] {
            assert_eq!(read(&secret), None);
        }
    }
}
