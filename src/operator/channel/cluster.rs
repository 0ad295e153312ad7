//! What the API server is asked for guards. Few at once: it is asked for much else.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;

use crate::operator::events::Events;
use crate::operator::{Keys, config};
use crate::plan::{GuardSettings, guarded_for};
use crate::policy::WorkloadId;
use crate::policy::pod::{GUARD_CONTAINER, TOKEN_AUDIENCE};
use crate::scope::ObjectName;

/// Questions at once.
const REVIEWS: usize = 16;
const PODS: usize = 8;
/// For one of them, with the wait for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// A pod, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenPod {
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// None: it has none, or one that is not as it was injected.
    pub guard: Option<SeenGuard>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenGuard {
    /// For which it was injected.
    pub workload: ObjectName,
    /// Of its container.
    pub restarts: i32,
}

#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Cluster(#[from] kube::Error),
    #[error("the API server did not answer in time")]
    Slow,
}

pub trait Cluster: Send + Sync + 'static {
    /// Whose token it is.
    fn review(&self, token: &str) -> impl Future<Output = Result<TokenReviewStatus, AskError>> + Send;
    /// None: there is none.
    fn pod(&self, pod: &ObjectName) -> impl Future<Output = Result<Option<SeenPod>, AskError>> + Send;
    /// A warning about an AIWorkload.
    fn warn(&self, about: ObjectReference, reason: &'static str, note: String) -> impl Future<Output = ()> + Send;
}

pub struct ApiServer {
    client: kube::Client,
    events: Events,
    guard: config::Guard,
    keys: Keys,
    reviews: Semaphore,
    pods: Semaphore,
}

impl ApiServer {
    pub(in crate::operator) fn new(client: kube::Client, events: Events, guard: config::Guard, keys: Keys) -> Self {
        Self { client, events, guard, keys, reviews: Semaphore::new(REVIEWS), pods: Semaphore::new(PODS) }
    }
}

impl Cluster for ApiServer {
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, AskError> {
        let spec = TokenReviewSpec { audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let asked = async {
            let _place = self.reviews.acquire().await;
            Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| AskError::Slow)??;
        Ok(answer.status.unwrap_or_default())
    }

    async fn pod(&self, pod: &ObjectName) -> Result<Option<SeenPod>, AskError> {
        let asked = async {
            let _place = self.pods.acquire().await;
            Api::<Pod>::namespaced(self.client.clone(), &pod.namespace).get_opt(&pod.name).await
        };
        let found = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| AskError::Slow)??;
        // Guards trust the key that is there, or none that calls.
        let trust = self.keys.current().map(|key| key.trust().to_owned()).unwrap_or_default();
        Ok(found.map(|pod| seen(pod, &self.guard.settings(&trust))))
    }

    async fn warn(&self, about: ObjectReference, reason: &'static str, note: String) {
        self.events.warn(&about, None, reason, "Refuse", &note).await;
    }
}

fn seen(pod: Pod, settings: &GuardSettings) -> SeenPod {
    let Pod { metadata, spec, status } = pod;
    let statuses = status.and_then(|status| status.init_container_statuses).unwrap_or_default();
    let restarts = statuses.iter().find(|status| status.name == GUARD_CONTAINER).map_or(0, |status| status.restart_count);
    let guard = spec.and_then(|spec| guarded_for(&spec, settings));
    let guard = guard.map(|WorkloadId { namespace, name, uid: _ }| SeenGuard { workload: ObjectName { namespace, name }, restarts });
    SeenPod { uid: metadata.uid.unwrap_or_default(), labels: metadata.labels.unwrap_or_default(), guard }
}
