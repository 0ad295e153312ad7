//! `remit-operator selftest`: what `helm test` runs.
//!
//! The operator is ready; the API server takes an AIWorkload that declares nothing, and refuses one that declares Secrets, by the
//! webhook and not for another reason; it refuses an object that bears Remit's label, by the admission policy. Everything is a dry run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::config::Config;
use super::run;
use crate::api::{self, AIWorkload};

const SERVICE: &str = "remit-http";
const NAME: &str = "remit-selftest";
/// A fresh release may still be starting.
const LIMIT: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

/// Runs every check; the error names the first that does not hold.
pub async fn selftest(config: Config) -> Result<(), String> {
    let client = run::client().await.map_err(|error| error.to_string())?;
    let workloads: Api<AIWorkload> = Api::namespaced(client.clone(), &config.namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(client, &config.namespace);
    let dry = PostParams { dry_run: true, ..PostParams::default() };

    let until = Instant::now() + LIMIT;
    loop {
        let ready = async {
            ready(&config).await?;
            let answer = workloads.create(&dry, &workload(&config.namespace, &[])).await;
            answer.map(drop).map_err(|error| format!("an AIWorkload that declares nothing is refused: {error}"))
        };
        match tokio::time::timeout(REQUEST, ready).await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(()) => break,
            Err(error) if Instant::now() > until => return Err(error),
            Err(error) => tracing::info!(error, "not yet; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::info!("ok: the operator is ready, and an AIWorkload that declares nothing is accepted");

    let secrets = json!({
        "name": "secrets", "type": "Kubernetes", "class": "Internal", "access": "Read",
        "kubernetes": {"apiGroups": [""], "resources": ["secrets"]},
    });
    let wide = workload(&config.namespace, &[secrets]);
    refused("an AIWorkload that declares Secrets", "aiworkloads.remit.dev", workloads.create(&dry, &wide).await)?;

    let forged = serde_json::from_value(json!({"metadata": {"name": NAME, "labels": {api::MANAGED_BY_LABEL: api::MANAGED_BY}}}))
        .expect("a ServiceAccount is well-formed");
    refused("an object that bears Remit's label", "remit-protect-generated", accounts.create(&dry, &forged).await)
}

fn workload(namespace: &str, sources: &[Value]) -> AIWorkload {
    let spec = json!({"mode": "Enforce", "selector": {"matchLabels": {"app": NAME}}, "dataSources": sources});
    let metadata = json!({"name": NAME, "namespace": namespace});
    serde_json::from_value(json!({"apiVersion": "remit.dev/v1alpha1", "kind": "AIWorkload", "metadata": metadata, "spec": spec}))
        .expect("an AIWorkload is well-formed")
}

/// Refused, and by whom we think.
fn refused<K>(what: &str, by: &str, answer: kube::Result<K>) -> Result<(), String> {
    match answer {
        Ok(_) => Err(format!("{what} is accepted; {by} should refuse it")),
        Err(kube::Error::Api(status)) if status.message.contains(by) && !status.message.contains("failed calling webhook") => {
            tracing::info!(answer = status.message, "ok: {what} is refused");
            Ok(())
        }
        Err(error) => Err(format!("{what} is refused, but not by {by}: {error}")),
    }
}

async fn ready(config: &Config) -> Result<(), String> {
    let host = format!("{SERVICE}.{}.svc", config.namespace);
    let (called, port) = (host.clone(), config.http.port);
    let call = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((called.as_str(), port))?;
        stream.set_read_timeout(Some(REQUEST))?;
        stream.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {called}\r\nConnection: close\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.take(65_536).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = tokio::task::spawn_blocking(call).await.map_err(|error| error.to_string())?;
    match answer {
        Ok(text) if text.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(text) => Err(format!("{host}/readyz: {}", text.trim())),
        Err(error) => Err(format!("{host}:{}: {error}", config.http.port)),
    }
}
