//! `remit-operator uninstall`: leaves nothing of Remit behind but the custom resources and their definitions.
//!
//! In this order, so that nothing hangs and nothing is made again: the operator, the admission policies and webhooks, the finalizers, the generated
//! objects (what grants first, what denies last), our own leftovers. Idempotent; repeated as a whole until it succeeds or the time is up.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PartialObjectMeta, Patch, PatchParams};
use kube::core::Selector;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use super::config::{Certificate, Config};
use super::keys::SECRET as KEY_SECRET;
use super::run::{self, RunError};
use super::webhook::PATH_SECRET;
use crate::api::{self, AIWorkload};
use crate::plan::{Kind, ObjectKey, UNSCOPED_POLICY, workload_of};
use crate::scope::ObjectName;

/// Admission policies of the chart and their bindings.
const POLICIES: [&str; 10] = [
    "remit-confine-policies",
    "remit-protect-generated",
    "remit-keep-enrolled",
    "remit-guarded-pods",
    "remit-guards",
    "remit-guard-tokens",
    "remit-guard-access",
    "remit-guard-notes",
    "remit-restricted-pods",
    "remit-warned-pods",
];
/// Webhook configurations of the chart, beside those that the configuration names.
const WEBHOOKS: [&str; 3] = ["remit-scope", "remit-recorder", "remit-pods"];
const MUTATING_WEBHOOKS: [&str; 1] = ["remit-inject"];
/// Where the recorder keeps what it saw.
const RECORDED: &str = "remit-recorded-writes";
/// All of it may take so long, one request so long.
const LIMIT: Duration = Duration::from_secs(120);
const REQUEST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum UninstallError {
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("pods of Deployment {0} still run")]
    StillRunning(String),
}

/// Removes everything.
pub async fn uninstall(config: Config) -> Result<(), RunError> {
    let client = run::client().await?;
    let deadline = Instant::now() + LIMIT;
    loop {
        match once(&client, &config).await {
            Ok(()) => {
                tracing::info!("nothing of Remit is left but the custom resources and their definitions");
                return Ok(());
            }
            Err(error) if Instant::now() + PAUSE < deadline => tracing::warn!(error = %error, "not yet; trying again"),
            Err(error) => return Err(RunError::Uninstall(error.to_string())),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(client: &Client, config: &Config) -> Result<(), UninstallError> {
    stop_operator(client, config).await?;
    // Bindings first: a policy without binding judges nothing.
    for name in POLICIES {
        delete(&Api::<ValidatingAdmissionPolicyBinding>::all(client.clone()), name).await?;
    }
    for name in config.webhook.configurations.iter().map(String::as_str).chain(WEBHOOKS) {
        delete(&Api::<ValidatingWebhookConfiguration>::all(client.clone()), name).await?;
    }
    // What judges goes before what injects: in between, nothing is refused for want of a guard.
    for name in config.webhook.mutating_configurations.iter().map(String::as_str).chain(MUTATING_WEBHOOKS) {
        delete(&Api::<MutatingWebhookConfiguration>::all(client.clone()), name).await?;
    }
    for name in POLICIES {
        delete(&Api::<ValidatingAdmissionPolicy>::all(client.clone()), name).await?;
    }
    remove_finalizers(client).await?;
    for kind in Kind::ALL.into_iter().rev() {
        remove_generated(client, kind).await?;
    }
    delete(&Api::<Lease>::namespaced(client.clone(), &config.namespace), &config.lease.name).await?;
    delete(&Api::<ConfigMap>::namespaced(client.clone(), &config.namespace), RECORDED).await?;
    let secrets = Api::<Secret>::namespaced(client.clone(), &config.namespace);
    delete(&secrets, PATH_SECRET).await?;
    delete(&secrets, KEY_SECRET).await?;
    if let Certificate::SelfSigned { secret_name } = &config.webhook.certificate {
        delete(&secrets, secret_name).await?;
    }
    Ok(())
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, UninstallError> {
    Ok(tokio::time::timeout(REQUEST, request).await.map_err(|_| UninstallError::Timeout)??)
}

/// Deletes it if it is there.
async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), UninstallError>
where
    K: Resource + DeserializeOwned + Clone + std::fmt::Debug,
{
    match within(api.delete(name, &DeleteParams::background())).await {
        Ok(_) => {
            tracing::info!(resource = api.resource_url(), name, "deleted");
            Ok(())
        }
        Err(UninstallError::Kube(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Nobody may make again what is removed below.
async fn stop_operator(client: &Client, config: &Config) -> Result<(), UninstallError> {
    let named = config.deployment.clone().or_else(|| std::env::var("REMIT_DEPLOYMENT").ok().filter(|name| !name.is_empty()));
    let Some(name) = named else {
        tracing::info!("no Deployment is named (deployment): the operator is taken to be stopped");
        return Ok(());
    };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &config.namespace);
    let Some(deployment) = within(deployments.get_opt(&name)).await? else { return Ok(()) };
    let selector = deployment.spec.map(|spec| spec.selector).unwrap_or_default();
    // Without replicas first: the Deployment itself must outlive a retry, because it tells which pods are its own.
    let patch = json!({"spec": {"replicas": 0}});
    within(deployments.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await?;
    let Ok(selector) = Selector::try_from(selector) else { return delete(&deployments, &name).await };
    let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(client.clone(), &config.namespace);
    let parameters = ListParams::default().labels_from(&selector).limit(1);
    let until = Instant::now() + Duration::from_secs(60);
    while !within(pods.list(&parameters)).await?.items.is_empty() {
        if Instant::now() > until {
            return Err(UninstallError::StillRunning(name));
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::info!(name, "the operator is stopped");
    delete(&deployments, &name).await
}

async fn remove_finalizers(client: &Client) -> Result<(), UninstallError> {
    let all: Api<PartialObjectMeta<AIWorkload>> = Api::all(client.clone());
    let found = match within(all.list(&ListParams::default())).await {
        // The definitions are gone, and everything with them.
        Err(UninstallError::Kube(kube::Error::Api(status))) if status.is_not_found() => return Ok(()),
        found => found?,
    };
    for object in found {
        let meta = object.metadata;
        let (Some(name), Some(namespace)) = (meta.name, meta.namespace) else { continue };
        let finalizers = meta.finalizers.unwrap_or_default();
        if !finalizers.iter().any(|f| f == api::FINALIZER) {
            continue;
        }
        let rest: Vec<&String> = finalizers.iter().filter(|f| *f != api::FINALIZER).collect();
        let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "finalizers": rest}});
        let workloads: Api<PartialObjectMeta<AIWorkload>> = Api::namespaced(client.clone(), &namespace);
        match within(workloads.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await {
            Ok(_) => tracing::info!(namespace, name, "removed the finalizer"),
            Err(UninstallError::Kube(kube::Error::Api(status))) if status.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Only what we made: labels *and* names must be ours.
async fn remove_generated(client: &Client, kind: Kind) -> Result<(), UninstallError> {
    let (group, plural) = kind.resource();
    let gvk = GroupVersionKind::gvk(group, "v1", kind.as_str());
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let labelled = ListParams::default().labels(&format!("{}={}", api::MANAGED_BY_LABEL, api::MANAGED_BY));
    for object in within(all.list(&labelled)).await? {
        let meta = object.metadata;
        let (Some(name), Some(namespace)) = (meta.name.clone(), meta.namespace.clone()) else { continue };
        let key = ObjectKey { kind, object: ObjectName::new(&namespace, &name) };
        let isolation = kind == Kind::NetworkPolicy && name == UNSCOPED_POLICY;
        if isolation || workload_of(&meta).is_some_and(|workload| key.may_be_of(&workload)) {
            delete(&Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, &resource), &name).await?;
        }
    }
    Ok(())
}
