//! Does what [`super::certificate`] decided: the Secret, the `caBundle` of the configurations, the certificate that is served; and keeps the
//! [`super::paths`].
//!
//! Promise: a certificate is served only after its authority was published, a path published only after it was stored and is answered;
//! several replicas agree through the Secrets' resource versions. With files (cert-manager) it only reads them again and leaves `caBundle`
//! alone. It writes nothing of a configuration but `caBundle` and the `path` of webhooks behind a Service (one with a URL has its path there).

use std::fmt::Debug;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::certificate::{CertificateError, Pair, Stored, decide, validity};
use super::metrics::Metrics;
use super::paths::{self, Endpoint, Known, Paths};
use super::server::{Certificates, certified};
use crate::operator::Config;
use crate::operator::config::Certificate;

/// Field manager that owns `caBundle` and `path`, and nothing else.
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
    #[error("no randomness for the webhook's paths")]
    Random,
}

pub(super) struct Keeper {
    client: kube::Client,
    namespace: String,
    certificate: Certificate,
    validating: Vec<String>,
    mutating: Vec<String>,
    names: Vec<String>,
    certificates: Certificates,
    paths: Known,
    metrics: Metrics,
    /// The bundle which every configuration holds, and since when.
    published: Option<(String, i64)>,
    /// What was stored last, to be stored again if somebody deletes it.
    last: Option<Stored>,
}

impl Keeper {
    pub fn new(client: kube::Client, config: &Config, certificates: Certificates, paths: Known, metrics: Metrics) -> Self {
        let Config { namespace, webhook, .. } = config;
        Self {
            client,
            namespace: namespace.clone(),
            certificate: webhook.certificate.clone(),
            validating: webhook.configurations.clone(),
            mutating: webhook.mutating_configurations.clone(),
            names: vec![format!("{}.{namespace}.svc", webhook.service)],
            certificates,
            paths,
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
        let mut changed = pin!(self.changes());
        loop {
            let wait = match self.round(now()).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => match self.certificate {
                    Certificate::Files { .. } => FILES_EVERY,
                    Certificate::SelfSigned { .. } => EVERY,
                },
                Err(error) => {
                    tracing::warn!(%error, "the webhook's certificate or path cannot be kept");
                    AFTER_ERROR
                }
            };
            // A change wakes, but a failing round is not repeated at the pace of changes.
            let calm = wait != AFTER_ERROR;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Some(()) = changed.next(), if calm => {}
                () = crate::operator::tls::told(&mut stop) => return,
            }
        }
    }

    /// One item for each change of a configuration. (The Secrets are only read now and then: what they held before still counts.)
    fn changes(&self) -> impl futures::Stream<Item = ()> + Send + use<> {
        let validating = self.validating.iter().map(|name| touched::<ValidatingWebhookConfiguration>(&self.client, name));
        let mutating = self.mutating.iter().map(|name| touched::<MutatingWebhookConfiguration>(&self.client, name));
        select_all(validating.chain(mutating))
    }

    /// True: something was written, look again at once.
    async fn round(&mut self, now: i64) -> Result<bool, KeepError> {
        match self.certificate.clone() {
            Certificate::Files { directory } => {
                // Files need no API server.
                let read = self.read_files(&directory).await;
                let Some(paths) = self.keep_paths().await? else { return Ok(true) };
                self.publish(None, &paths).await?;
                read.map(|()| false)
            }
            Certificate::SelfSigned { secret_name } => {
                let Some(paths) = self.keep_paths().await? else { return Ok(true) };
                self.keep_certificate(&secret_name, &paths, now).await
            }
        }
    }

    /// The paths as they are stored; made if there are none. None: another replica was first, look again.
    async fn keep_paths(&self) -> Result<Option<Paths>, KeepError> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = secrets.get_opt(paths::SECRET).await?;
        let paths = match found.as_ref().and_then(Paths::read) {
            Some(paths) => paths,
            None => {
                let random = rustls::crypto::ring::default_provider().secure_random;
                let known = self.paths.current();
                let paths = Paths::complete(found.as_ref(), known.as_ref(), random).map_err(|_| KeepError::Random)?;
                match write(&secrets, paths::SECRET, found, |secret| paths.write(secret)).await {
                    Ok(()) => tracing::info!("webhook paths stored"),
                    Err(kube::Error::Api(status)) if status.code == 409 => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
                paths
            }
        };
        self.paths.set(paths.clone());
        Ok(Some(paths))
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

    async fn keep_certificate(&mut self, secret_name: &str, paths: &Paths, now: i64) -> Result<bool, KeepError> {
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
            return match write(&secrets, secret_name, found, |secret| wanted.write(secret)).await {
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
        let published = self.publish(Some(bundle), paths).await;
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

    /// Every configuration that there is leads here, and trusts the bundle (None: somebody else's care).
    async fn publish(&self, bundle: Option<&str>, paths: &Paths) -> Result<(), kube::Error> {
        let mut published = Ok(());
        for name in &self.validating {
            published = published.and(publish::<ValidatingWebhookConfiguration>(&self.client, name, bundle, paths).await);
        }
        for name in &self.mutating {
            published = published.and(publish::<MutatingWebhookConfiguration>(&self.client, name, bundle, paths).await);
        }
        published
    }
}

/// A kind of webhook configuration.
trait Configuration:
    kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + DeserializeOwned + Clone + Debug + Send + 'static
{
    /// The webhooks by their names.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

macro_rules! configuration {
    ($($kind:ty),*) => {$(
        impl Configuration for $kind {
            fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
                self.webhooks.iter().flatten().map(|w| (w.name.as_str(), &w.client_config)).collect()
            }
        }
    )*};
}
configuration!(ValidatingWebhookConfiguration, MutatingWebhookConfiguration);

/// One item for each change of this one.
fn touched<K: Configuration>(client: &kube::Client, name: &str) -> BoxStream<'static, ()> {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let seen = watcher(Api::<K>::all(client.clone()), only).default_backoff().touched_objects();
    seen.filter_map(async |change| change.ok().map(|_| ())).boxed()
}

async fn write(secrets: &Api<Secret>, name: &str, found: Option<Secret>, fill: impl Fn(&mut Secret)) -> Result<(), kube::Error> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match found {
        Some(mut secret) => {
            fill(&mut secret);
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
            fill(&mut secret);
            secrets.create(&params, &secret).await?;
        }
    }
    Ok(())
}

async fn publish<K: Configuration>(client: &kube::Client, name: &str, bundle: Option<&str>, paths: &Paths) -> Result<(), kube::Error> {
    let configurations: Api<K> = Api::all(client.clone());
    let Some(found) = configurations.get_opt(name).await? else {
        tracing::debug!(name, "no such webhook configuration");
        return Ok(());
    };
    let Some(patch) = patch(&found, name, bundle, paths) else { return Ok(()) };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    configurations.patch(name, &params, &Patch::Apply(patch)).await?;
    tracing::info!(name, "published the way to the webhook");
    Ok(())
}

/// The configuration with nothing but what is ours of each webhook; None if all are as they should be.
fn patch<K: Configuration>(found: &K, name: &str, bundle: Option<&str>, paths: &Paths) -> Option<Value> {
    let bundle = bundle.map(|bundle| ByteString(bundle.as_bytes().to_vec()));
    let mut same = true;
    let mut webhooks = Vec::new();
    for (webhook, client) in found.webhooks() {
        let mut ours = json!({});
        if let Some(bundle) = &bundle {
            same &= client.ca_bundle.as_ref() == Some(bundle);
            ours["caBundle"] = json!(bundle);
        }
        if let Some(service) = &client.service {
            let path = paths.path(Endpoint::of(webhook));
            same &= service.path.as_ref() == Some(&path);
            ours["service"] = json!({"path": path});
        }
        webhooks.push(json!({"name": webhook, "clientConfig": ours}));
    }
    (!same).then(|| {
        json!({
            "apiVersion": K::api_version(&()),
            "kind": K::kind(&()),
            "metadata": {"name": name},
            "webhooks": webhooks,
        })
    })
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_secs()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bundle_and_the_path_are_written_and_only_when_they_differ() {
        let paths = Paths::random(rustls::crypto::ring::default_provider().secure_random).unwrap();
        let [scope, record] = [Endpoint::Scope, Endpoint::Record].map(|e| json!(paths.path(e)));
        let (ca, old, none) = (json!("Y2E="), json!("b2xk"), Value::Null);
        let url = json!("https://127.0.0.1:1/scope");
        let service = |path: &Value| json!({"name": "remit-webhook", "namespace": "remit-system", "port": 443, "path": path});
        // (what, webhooks: name, held caBundle, held service or URL), written with a bundle, written without one.
        let cases = [
            ("no webhook", vec![], false, false),
            ("all in place", vec![("a.remit.dev", &ca, service(&scope)), ("a.record.remit.dev", &ca, service(&record))], false, false),
            ("a fresh release", vec![("a.remit.dev", &none, service(&none)), ("b.remit.dev", &none, service(&none))], true, true),
            ("no bundle", vec![("a.remit.dev", &none, service(&scope))], true, false),
            ("an old bundle", vec![("a.remit.dev", &ca, service(&scope)), ("b.remit.dev", &old, service(&scope))], true, false),
            ("no path", vec![("a.remit.dev", &ca, service(&none))], true, true),
            ("the other's path", vec![("a.record.remit.dev", &ca, service(&scope))], true, true),
            ("a URL", vec![("a.remit.dev", &ca, url.clone())], false, false),
            ("a URL without bundle", vec![("a.remit.dev", &none, url)], true, false),
        ];
        for (what, held, with_bundle, without) in cases {
            let webhooks: Vec<Value> = held
                .iter()
                .map(|(name, bundle, target)| {
                    let target_field = if target.is_string() { "url" } else { "service" };
                    json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                    "clientConfig": {target_field: target, "caBundle": bundle}})
                })
                .collect();
            let found = json!({"metadata": {"name": "remit-scope"}, "webhooks": webhooks});
            let validating: ValidatingWebhookConfiguration = serde_json::from_value(found.clone()).unwrap();
            let mutating: MutatingWebhookConfiguration = serde_json::from_value(found).unwrap();
            for (bundle, written) in [(Some("ca"), with_bundle), (None, without)] {
                let [patch, other] = [patch(&validating, "remit-scope", bundle, &paths), patch(&mutating, "remit-scope", bundle, &paths)];
                assert_eq!(other.as_ref().map(|p| &p["webhooks"]), patch.as_ref().map(|p| &p["webhooks"]), "one as the other");
                assert!(other.is_none_or(|p| p["kind"] == "MutatingWebhookConfiguration"));
                assert_eq!(patch.is_some(), written, "{what}, {bundle:?}");
                for (webhook, (name, _, target)) in patch.iter().flat_map(|p| p["webhooks"].as_array().unwrap()).zip(&held) {
                    let mut expected = json!({"name": name, "clientConfig": {}});
                    if bundle.is_some() {
                        expected["clientConfig"]["caBundle"] = ca.clone();
                    }
                    if target.is_object() {
                        let path = if name.ends_with("record.remit.dev") { &record } else { &scope };
                        expected["clientConfig"]["service"] = json!({"path": path});
                    }
                    assert_eq!(*webhook, expected, "{what}, {bundle:?}");
                }
            }
        }
    }
}
