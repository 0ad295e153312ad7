//! Kubernetes Events. Each is one write; a failure to write one is logged and forgotten.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::metrics::Metrics;
use crate::plan::{Kind, ObjectKey};

/// Notes may have at most 1024 bytes.
pub const NOTE: usize = 1000;

#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    metrics: Metrics,
}

impl Events {
    pub fn new(client: Client, instance: String, metrics: Metrics) -> Self {
        let reporter = Reporter { controller: "remit.dev/operator".to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(client, reporter), metrics }
    }

    /// Something that somebody should look at.
    pub async fn warn(&self, about: &ObjectReference, related: Option<&ObjectKey>, reason: &str, action: &str, note: &str) {
        self.publish(EventType::Warning, about, related.map(reference), reason, action, note).await;
    }

    /// Something that is as it should be.
    pub async fn tell(&self, about: &ObjectReference, related: Option<ObjectReference>, reason: &str, action: &str, note: &str) {
        self.publish(EventType::Normal, about, related, reason, action, note).await;
    }

    async fn publish(
        &self,
        type_: EventType,
        about: &ObjectReference,
        related: Option<ObjectReference>,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let end = (0..=note.len().min(NOTE)).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
        let event =
            Event { type_, reason: reason.to_owned(), note: Some(note[..end].to_owned()), action: action.to_owned(), secondary: related };
        let sent = tokio::time::timeout(std::time::Duration::from_secs(5), self.recorder.publish(&event, about)).await;
        match sent {
            Ok(Ok(())) => self.metrics.wrote("Event", "create"),
            Ok(Err(error)) => tracing::warn!(reason, error = %error, "could not record an event"),
            Err(_) => tracing::warn!(reason, "could not record an event in time"),
        }
    }
}

fn reference(key: &ObjectKey) -> ObjectReference {
    let (group, _) = key.kind.resource();
    let version = match key.kind {
        Kind::ConfigMap | Kind::ServiceAccount => "v1".to_owned(),
        Kind::NetworkPolicy | Kind::Role | Kind::RoleBinding => format!("{group}/v1"),
    };
    ObjectReference {
        api_version: Some(version),
        kind: Some(key.kind.as_str().to_owned()),
        namespace: Some(key.object.namespace.clone()),
        name: Some(key.object.name.clone()),
        ..ObjectReference::default()
    }
}
