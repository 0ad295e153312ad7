//! What the API server is asked for guards. Few at once: it is asked for much else.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;

use crate::operator::events::Events;
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
    /// Of the guard's container. None: it has no guard.
    pub restarts: Option<i32>,
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
    reviews: Semaphore,
    pods: Semaphore,
}

impl ApiServer {
    pub(in crate::operator) fn new(client: kube::Client, events: Events) -> Self {
        Self { client, events, reviews: Semaphore::new(REVIEWS), pods: Semaphore::new(PODS) }
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
        Ok(found.map(seen))
    }

    async fn warn(&self, about: ObjectReference, reason: &'static str, note: String) {
        self.events.warn(&about, None, reason, "Refuse", &note).await;
    }
}

fn seen(pod: Pod) -> SeenPod {
    let Pod { metadata, spec, status } = pod;
    let guarded = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).any(|c| c.name == GUARD_CONTAINER);
    let statuses = status.and_then(|status| status.init_container_statuses).unwrap_or_default();
    let restarts = statuses.iter().find(|status| status.name == GUARD_CONTAINER).map_or(0, |status| status.restart_count);
    SeenPod { uid: metadata.uid.unwrap_or_default(), labels: metadata.labels.unwrap_or_default(), restarts: guarded.then_some(restarts) }
}
