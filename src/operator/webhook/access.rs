//! What the API server is asked while a change is judged: the ceilings over the namespace, and whether the author may.
//!
//! Read afresh for each change: AIWorkloads are written rarely, and a stale ceiling would let something through. An error is an
//! error, never a yes. A ceiling that cannot be read allows nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::ApiResource;
use tokio::sync::Semaphore;

use crate::api::{AIWorkload, ENROLLED_LABEL, ScopeCeiling};
use crate::cluster::{WorkloadFact, facts};
use crate::plan::Question;
use crate::scope::{Ceiling, Ceilings, ObjectName};

/// Questions asked at the same time: for one change, and for all. The API server counts them with everything else that the operator asks.
const CONCURRENCY: usize = 16;
const OF_ALL: usize = 32;
/// AIWorkloads of a page: they may be as large as the API server takes them.
const PAGE: u32 = 20;

/// What is known of a namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    pub ceilings: Ceilings,
    pub enrolled: bool,
}

/// The questions that judgements put to the cluster.
pub(super) trait Cluster: Send + Sync + 'static {
    fn surroundings(&self, namespace: &str) -> impl Future<Output = Result<Surroundings, kube::Error>> + Send;
    /// Those of the questions which the authorizer answers with no.
    fn lacking(
        &self,
        user: &UserInfo,
        questions: BTreeSet<Question>,
    ) -> impl Future<Output = Result<BTreeSet<Question>, kube::Error>> + Send;
    /// The AIWorkloads of a namespace as they are now, not as a cache has them.
    fn workloads(&self, namespace: &str) -> impl Future<Output = Result<Vec<(ObjectName, WorkloadFact)>, kube::Error>> + Send;
    /// A pod as it is now.
    fn pod(&self, namespace: &str, name: &str) -> impl Future<Output = Result<Option<Pod>, kube::Error>> + Send;
}

pub(super) struct ApiServer {
    client: kube::Client,
    room: Semaphore,
}

impl ApiServer {
    pub fn new(client: kube::Client) -> Self {
        Self { client, room: Semaphore::new(OF_ALL) }
    }
}

impl Cluster for ApiServer {
    async fn surroundings(&self, namespace: &str) -> Result<Surroundings, kube::Error> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        // Untyped: one ceiling that cannot be read must not hide the others.
        let ceilings: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::erase::<ScopeCeiling>(&()));
        let all = ListParams::default();
        let (namespace, ceilings) = futures::try_join!(namespaces.get(namespace), ceilings.list(&all))?;
        let labels = namespace.metadata.labels.unwrap_or_default();
        let enrolled = labels.get(ENROLLED_LABEL).is_some_and(|v| v == "true");
        Ok(Surroundings { ceilings: over(&labels, ceilings.items), enrolled })
    }

    async fn lacking(&self, user: &UserInfo, questions: BTreeSet<Question>) -> Result<BTreeSet<Question>, kube::Error> {
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answers = stream::iter(questions).map(|question| {
            let (reviews, review) = (reviews.clone(), access_review(user, &question));
            async move {
                let _place = self.room.acquire().await;
                let answer = reviews.create(&PostParams::default(), &review).await?;
                let allowed = answer.status.is_some_and(|s| s.allowed && s.denied != Some(true));
                Ok((!allowed).then_some(question))
            }
        });
        answers.buffer_unordered(CONCURRENCY).try_filter_map(|lacking| async move { Ok(lacking) }).try_collect().await
    }

    async fn workloads(&self, namespace: &str) -> Result<Vec<(ObjectName, WorkloadFact)>, kube::Error> {
        let _place = self.room.acquire().await;
        let workloads: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &ApiResource::erase::<AIWorkload>(&()));
        let (mut all, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
        loop {
            // Without a resource version: nothing that was written before the question is missing.
            let listed = workloads.list(&page).await?;
            all.extend(listed.items.into_iter().map(facts::workload));
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, kube::Error> {
        let _place = self.room.acquire().await;
        Api::<Pod>::namespaced(self.client.clone(), namespace).get_opt(name).await
    }
}

/// The ceilings whose selector matches these labels. One that cannot be read counts as it does in every reconcile: it allows nothing.
fn over(labels: &BTreeMap<String, String>, objects: Vec<DynamicObject>) -> Ceilings {
    let facts = objects.into_iter().map(|object| facts::ceiling(object).1);
    let mut all: Vec<Ceiling> =
        facts.filter(|fact| fact.namespaces.as_ref().is_none_or(|selector| selector.matches(labels))).map(|fact| fact.ceiling).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ceilings(all)
}

fn access_review(user: &UserInfo, question: &Question) -> SubjectAccessReview {
    let Question { namespace, group, resource, subresource, name, verb } = question;
    let UserInfo { username, groups, uid, extra } = user;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: username.clone(),
            groups: groups.clone(),
            uid: uid.clone(),
            extra: extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.clone()),
                group: Some(group.clone()),
                resource: Some(resource.clone()),
                subresource: subresource.clone(),
                name: name.clone(),
                verb: Some((*verb).to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ceilings_over_a_namespace() {
        let object = |name: &str, spec: serde_json::Value| -> DynamicObject {
            serde_json::from_value(
                json!({"apiVersion": "remit.dev/v1alpha1", "kind": "ScopeCeiling", "metadata": {"name": name}, "spec": spec}),
            )
            .unwrap()
        };
        let invalid = |name: &str, team: &str| {
            let hosts = json!([{"name": "a", "host": "10.0.0.1", "ports": [1]}]);
            object(name, json!({"namespaceSelector": {"matchLabels": {"team": team}}, "hosts": hosts}))
        };
        let labels = [("team".to_owned(), "ai".to_owned())].into();
        let objects = vec![
            object("unreadable", json!({"namespaceSelector": 3})),
            object("all", json!({"namespaceSelector": {}})),
            object("team", json!({"namespaceSelector": {"matchLabels": {"team": "ai"}}})),
            object("other", json!({"namespaceSelector": {"matchLabels": {"team": "web"}}})),
            invalid("invalid", "ai"),
            invalid("invalid elsewhere", "web"),
        ];
        let names: Vec<String> = over(&labels, objects).0.into_iter().map(|c| c.name).collect();
        assert_eq!(names, ["all", "invalid", "team", "unreadable"]);
    }

    #[test]
    fn the_whole_user_is_asked_about() {
        let user = UserInfo {
            username: Some("dana".into()),
            groups: Some(vec!["devs".into()]),
            uid: Some("u".into()),
            extra: Some([("scopes".to_owned(), vec!["x".to_owned()])].into()),
        };
        let question = Question {
            namespace: "support".into(),
            group: "shop.example.com".into(),
            resource: "orders".into(),
            subresource: Some("status".into()),
            name: Some("a".into()),
            verb: "get",
        };
        assert_eq!(
            serde_json::to_value(access_review(&user, &question).spec).unwrap(),
            json!({"user": "dana", "groups": ["devs"], "uid": "u", "extra": {"scopes": ["x"]}, "resourceAttributes":
                {"namespace": "support", "group": "shop.example.com", "resource": "orders", "subresource": "status", "name": "a", "verb": "get"}})
        );
    }
}
