//! Does what [`super::certificate`] decided: the Secret, the `caBundle` of the configurations, the certificate that is served.
//!
//! Promise: a certificate is served only after its authority was published; several replicas agree through the Secret's resource
//! version. With files (cert-manager) it only reads them again. It writes nothing of a configuration but `caBundle`.

use std::path::Path;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::stream::{StreamExt, select_all};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::certificate::{CertificateError, Pair, Stored, decide, validity};
use super::metrics::Metrics;
use super::server::{Certificates, certified};
use crate::operator::Config;
use crate::operator::config::Certificate;

/// Field manager that owns `caBundle` and nothing else.
const FIELD_MANAGER: &str = "remit-ca";
const EVERY: Duration = Duration::from_secs(30);
const AFTER_ERROR: Duration = Duration::from_secs(3);
const FILES_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Cluster(#[from] kube::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot read {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("the certificate cannot be served: {0}")]
    Unusable(String),
}

pub(super) struct Keeper {
    client: kube::Client,
    namespace: String,
    certificate: Certificate,
    configurations: Vec<String>,
    names: Vec<String>,
    certificates: Certificates,
    metrics: Metrics,
    /// The bundle which every configuration holds, and since when.
    published: Option<(String, i64)>,
    /// What was stored last, to be stored again if somebody deletes it.
    last: Option<Stored>,
}

impl Keeper {
    pub fn new(client: kube::Client, config: &Config, certificates: Certificates, metrics: Metrics) -> Self {
        let Config { namespace, webhook, .. } = config;
        Self {
            client,
            namespace: namespace.clone(),
            certificate: webhook.certificate.clone(),
            configurations: webhook.configurations.clone(),
            names: vec![format!("{}.{namespace}.svc", webhook.service)],
            certificates,
            metrics,
            published: None,
            last: None,
        }
    }

    /// Other names in the certificate than the Service's.
    #[cfg(test)]
    pub fn named(mut self, names: &[&str]) -> Self {
        self.names = names.iter().map(|n| n.to_string()).collect();
        self
    }

    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        match self.certificate.clone() {
            Certificate::Files { directory } => loop {
                if let Err(error) = self.read_files(&directory).await {
                    tracing::warn!(%error, "the webhook's certificate cannot be read");
                }
                tokio::select! {
                    () = tokio::time::sleep(FILES_EVERY) => {}
                    () = super::told(&mut stop) => return,
                }
            },
            Certificate::SelfSigned { secret_name } => {
                let mut changed = pin!(self.changes());
                loop {
                    let wait = match self.step(&secret_name, now()).await {
                        Ok(true) => Duration::ZERO,
                        Ok(false) => EVERY,
                        Err(error) => {
                            tracing::warn!(%error, "the webhook's certificate cannot be kept");
                            AFTER_ERROR
                        }
                    };
                    // A change wakes, but a failing step is not repeated at the pace of changes.
                    let calm = wait != AFTER_ERROR;
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        Some(()) = changed.next(), if calm => {}
                        () = super::told(&mut stop) => return,
                    }
                }
            }
        }
    }

    /// One item for each change of a configuration. (The Secret is only read now and then: what it held before is still trusted.)
    fn changes(&self) -> impl futures::Stream<Item = ()> + Send + use<> {
        let only = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        select_all(self.configurations.iter().map(|name| {
            let seen = watcher(configurations.clone(), only(name)).default_backoff().touched_objects();
            seen.filter_map(async |change| change.ok().map(|_| ())).boxed()
        }))
    }

    async fn read_files(&self, directory: &Path) -> Result<(), KeepError> {
        let read = async |name: &str| {
            let path = directory.join(name);
            tokio::fs::read(&path).await.map_err(|source| KeepError::File { path: path.display().to_string(), source })
        };
        let (certificate, key) = (read("tls.crt").await?, read("tls.key").await?);
        self.serve(&String::from_utf8_lossy(&certificate), &String::from_utf8_lossy(&key))
    }

    fn serve(&self, certificate: &str, key: &str) -> Result<(), KeepError> {
        let served = certified(certificate.as_bytes(), key.as_bytes()).map_err(|e| KeepError::Unusable(e.to_string()))?;
        if let Some(validity) = validity(certificate) {
            self.metrics.certificate_expires(validity.until);
        }
        if self.certificates.set(served) {
            tracing::info!("serving a new webhook certificate");
        }
        Ok(())
    }

    /// One round. True: something was written, look again at once.
    async fn step(&mut self, secret_name: &str, now: i64) -> Result<bool, KeepError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = secrets.get_opt(secret_name).await?;
        let stored = found.as_ref().and_then(Stored::read);
        // A deleted Secret comes back as it was: clients still trust it.
        let base = if found.is_none() { self.last.clone() } else { stored.clone() };
        let since =
            self.published.as_ref().filter(|(bundle, _)| base.as_ref().is_some_and(|b| b.bundle == *bundle)).map(|(_, since)| *since);
        let step = decide(base.as_ref(), since, &self.names, now);
        let wanted = match Stored::after(base.as_ref(), &step, &self.names, now)? {
            Some(new) => Some(new),
            None => base.filter(|_| found.is_none()),
        };
        if let Some(wanted) = wanted {
            return match write(&secrets, secret_name, found, &wanted).await {
                Ok(()) => {
                    tracing::info!(?step, "webhook certificate stored");
                    self.last = Some(wanted);
                    Ok(true)
                }
                // Another replica was first: what it wrote counts.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(true),
                Err(error) => Err(error.into()),
            };
        }
        let Some(stored) = stored else { return Ok(false) };
        self.last = Some(stored.clone());
        let Stored { bundle, current: Pair { certificate, key }, next: _ } = &stored;
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let mut published = Ok(());
        for name in &self.configurations {
            if let Err(error) = publish(&configurations, name, bundle).await {
                published = Err(error);
            }
        }
        match &published {
            Ok(()) if self.published.as_ref().is_none_or(|(known, _)| known != bundle) => self.published = Some((bundle.clone(), now)),
            Ok(()) => {}
            Err(_) => self.published = None,
        }
        // The first certificate of this process is served in any case: nobody is served worse by it.
        if published.is_ok() || self.certificates.current().is_none() {
            self.serve(certificate, key)?;
        }
        published?;
        Ok(false)
    }
}

async fn write(secrets: &Api<Secret>, name: &str, found: Option<Secret>, wanted: &Stored) -> Result<(), kube::Error> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match found {
        Some(mut secret) => {
            wanted.write(&mut secret);
            secrets.replace(name, &params, &secret).await?;
        }
        None => {
            let mut secret = Secret {
                metadata: ObjectMeta {
                    name: Some(name.to_owned()),
                    labels: Some([("app.kubernetes.io/part-of".to_owned(), "remit".to_owned())].into()),
                    ..ObjectMeta::default()
                },
                ..Secret::default()
            };
            wanted.write(&mut secret);
            secrets.create(&params, &secret).await?;
        }
    }
    Ok(())
}

/// The configuration, if there is one, trusts the bundle.
async fn publish(configurations: &Api<ValidatingWebhookConfiguration>, name: &str, bundle: &str) -> Result<(), kube::Error> {
    let Some(found) = configurations.get_opt(name).await? else {
        tracing::debug!(name, "no such webhook configuration");
        return Ok(());
    };
    let Some(patch) = bundles(&found, name, bundle) else { return Ok(()) };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    configurations.patch(name, &params, &Patch::Apply(patch)).await?;
    tracing::info!(name, "published the webhook's authorities");
    Ok(())
}

/// The configuration with nothing but the `caBundle` of each webhook; None if all are as they should be.
fn bundles(found: &ValidatingWebhookConfiguration, name: &str, bundle: &str) -> Option<Value> {
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let webhooks = found.webhooks.as_deref().unwrap_or_default();
    if webhooks.iter().all(|w| w.client_config.ca_bundle.as_ref() == Some(&bundle)) {
        return None;
    }
    let webhooks: Vec<Value> = webhooks.iter().map(|w| json!({"name": w.name, "clientConfig": {"caBundle": bundle}})).collect();
    Some(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": webhooks,
    }))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_secs()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bundle_is_written_and_only_when_it_differs() {
        let found = |bundles: &[Option<&str>]| -> ValidatingWebhookConfiguration {
            let webhooks: Vec<Value> = bundles
                .iter()
                .enumerate()
                .map(|(i, b)| {
                    json!({"name": format!("w{i}"), "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                    "clientConfig": {"url": "https://127.0.0.1:1/scope", "caBundle": b.map(|b| ByteString(b.into()))}})
                })
                .collect();
            serde_json::from_value(json!({"metadata": {"name": "remit-scope"}, "webhooks": webhooks})).unwrap()
        };
        for (held, written) in [(vec![], false), (vec![Some("ca")], false), (vec![Some("ca"), None], true), (vec![Some("old")], true)] {
            let patch = bundles(&found(&held), "remit-scope", "ca");
            assert_eq!(patch.is_some(), written, "{held:?}");
            for webhook in patch.iter().flat_map(|p| p["webhooks"].as_array().unwrap()) {
                assert_eq!(webhook.as_object().unwrap().keys().collect::<Vec<_>>(), ["clientConfig", "name"]);
                assert_eq!(webhook["clientConfig"], json!({"caBundle": "Y2E="}));
            }
        }
    }
}
