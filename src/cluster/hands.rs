//! Everything that changes the cluster, one function per kind of write.
//!
//! Before each write the caller's gate is asked (does this process still hold the lease?); each write has a deadline, shorter than what the
//! gate promises, so that no write of a former leader arrives late. Each is counted. Answers go into the [`World`](super::world::World) at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{DeleteParams, EvictParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Selector;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::facts::{self, FIELD_MANAGER, Live};
use super::world::{Key, SharedWorld};
use crate::api::{AIWorkload, AIWorkloadStatus, BREAK_GLASS_ANNOTATION};
use crate::plan::{Kind, ManagedObject, ObjectKey};
use crate::scope::ObjectName;

/// Field manager of statuses.
pub const STATUS_MANAGER: &str = "remit-status";
/// Field manager of the finalizer.
pub const FINALIZER_MANAGER: &str = "remit-finalizer";
/// Field manager of an exception's end.
pub const BREAK_GLASS_MANAGER: &str = "remit-break-glass";

/// Objects of a page.
const FEW: u32 = 10;

/// What the storage behind the API server says of an object that it cannot take.
const TOO_LARGE: [&str; 2] = ["request is too large", "message larger than max"];

/// Whether this process may write now.
pub type Gate = Arc<dyn Fn() -> bool + Send + Sync>;
/// Told of each write that the API server accepted: kind and verb.
pub type Count = Arc<dyn Fn(&'static str, &'static str) + Send + Sync>;

/// Two accounts. What an account may write anywhere it may hand out anywhere: the operator's own must not write ConfigMaps everywhere.
#[derive(Clone)]
pub struct Clients {
    pub own: Client,
    /// The operator's own, which asks once: what is refused for now is said, and not asked again in silence until the time is up.
    pub once: Client,
    /// Of the account that writes the guards' policies and does nothing else.
    pub policies: Client,
}

impl Clients {
    /// Who reads and writes objects of this kind.
    pub fn of(&self, kind: Kind) -> &Client {
        let Self { own, once: _, policies } = self;
        match kind {
            Kind::ConfigMap => policies,
            Kind::NetworkPolicy | Kind::ServiceAccount | Kind::Role | Kind::RoleBinding => own,
        }
    }
}

#[derive(Clone)]
pub struct Hands {
    pub clients: Clients,
    pub world: SharedWorld,
    pub gate: Gate,
    pub count: Count,
    /// The most that one request may take.
    pub timeout: Duration,
    /// Our own account, for the remedies in messages.
    pub account: ObjectName,
}

/// Why a request had no effect (or, after a timeout, an unknown one: it is repeated, and all writes may be).
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("this process does not hold the lease (any more)")]
    NotHolding,
    #[error("the API server did not answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Kube(kube::Error),
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        Self::Kube(error)
    }
}

impl RequestError {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// The object will not be taken as it stands, however often it is sent: it is not valid, or too large. (The storage behind the API server
    /// says the latter with 500.)
    pub fn is_invalid(&self) -> bool {
        self.status()
            .is_some_and(|s| matches!(s.code, 413 | 422) || s.code == 500 && TOO_LARGE.iter().any(|words| s.message.contains(words)))
    }

    fn is_bad_request(&self) -> bool {
        self.status().is_some_and(|s| s.code == 400)
    }

    pub fn is_too_many(&self) -> bool {
        self.status().is_some_and(|s| s.code == 429)
    }

    pub fn is_forbidden(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_forbidden)
    }

    /// The escalation check: we do not hold what we would hand out.
    pub fn is_escalation(&self) -> bool {
        self.status().is_some_and(|s| s.is_forbidden() && s.message.contains("attempting to grant"))
    }

    /// What the API server said, or what went wrong on the way.
    pub fn message(&self) -> String {
        self.status().map_or_else(|| self.to_string(), |status| status.message.clone())
    }
}

type Answer<T> = Result<T, RequestError>;

impl Hands {
    async fn within<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Answer<T> {
        match tokio::time::timeout(self.timeout, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(RequestError::Timeout(self.timeout)),
        }
    }

    async fn write<T>(&self, kind: &'static str, verb: &'static str, request: impl Future<Output = kube::Result<T>>) -> Answer<T> {
        if !(self.gate)() {
            return Err(RequestError::NotHolding);
        }
        let answer = self.within(request).await?;
        (self.count)(kind, verb);
        Ok(answer)
    }

    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self, key: &ObjectKey) -> Api<K> {
        Api::namespaced(self.clients.of(key.kind).clone(), &key.object.namespace)
    }

    fn workloads(&self, namespace: &str) -> Api<AIWorkload> {
        Api::namespaced(self.clients.own.clone(), namespace)
    }

    fn seen(&self, key: &ObjectKey, object: ManagedObject) -> Live {
        let live = facts::live(object);
        self.world.write().put_object(key, Some(live.clone()));
        live
    }

    /// What lies there, whoever made it.
    pub async fn get(&self, key: &ObjectKey) -> Answer<Option<Live>> {
        let name = &key.object.name;
        let found = match key.kind {
            Kind::NetworkPolicy => self.within(self.api(key).get_opt(name)).await?.map(ManagedObject::NetworkPolicy),
            Kind::ConfigMap => self.within(self.api(key).get_opt(name)).await?.map(ManagedObject::ConfigMap),
            Kind::ServiceAccount => self.within(self.api(key).get_opt(name)).await?.map(ManagedObject::ServiceAccount),
            Kind::Role => self.within(self.api(key).get_opt(name)).await?.map(ManagedObject::Role),
            Kind::RoleBinding => self.within(self.api(key).get_opt(name)).await?.map(ManagedObject::RoleBinding),
        };
        Ok(found.map(facts::live))
    }

    /// Server-side apply, with force. Metadata with a uid: only if the object is still that one.
    pub async fn apply(&self, object: &ManagedObject) -> Answer<Live> {
        async fn send<K>(hands: &Hands, key: &ObjectKey, object: &K) -> Answer<K>
        where
            K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
        {
            let (api, parameters) = (hands.api::<K>(key), PatchParams::apply(FIELD_MANAGER).force());
            hands.write(key.kind.as_str(), "apply", api.patch(&key.object.name, &parameters, &Patch::Apply(object))).await
        }
        let key = object.key();
        let answer = match object {
            ManagedObject::NetworkPolicy(o) => ManagedObject::NetworkPolicy(send::<NetworkPolicy>(self, &key, o).await?),
            ManagedObject::ConfigMap(o) => ManagedObject::ConfigMap(send::<ConfigMap>(self, &key, o).await?),
            ManagedObject::ServiceAccount(o) => ManagedObject::ServiceAccount(send::<ServiceAccount>(self, &key, o).await?),
            ManagedObject::Role(o) => ManagedObject::Role(send::<Role>(self, &key, o).await?),
            ManagedObject::RoleBinding(o) => ManagedObject::RoleBinding(send::<RoleBinding>(self, &key, o).await?),
        };
        Ok(self.seen(&key, answer))
    }

    /// Exactly this content, if the object still has the resource version it names.
    pub async fn replace(&self, object: &ManagedObject) -> Answer<Live> {
        async fn send<K>(hands: &Hands, key: &ObjectKey, object: &K) -> Answer<K>
        where
            K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
        {
            let parameters = PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) };
            let api = hands.api::<K>(key);
            hands.write(key.kind.as_str(), "update", api.replace(&key.object.name, &parameters, object)).await
        }
        let key = object.key();
        let answer = match object {
            ManagedObject::NetworkPolicy(o) => ManagedObject::NetworkPolicy(send::<NetworkPolicy>(self, &key, o).await?),
            ManagedObject::ConfigMap(o) => ManagedObject::ConfigMap(send::<ConfigMap>(self, &key, o).await?),
            ManagedObject::ServiceAccount(o) => ManagedObject::ServiceAccount(send::<ServiceAccount>(self, &key, o).await?),
            ManagedObject::Role(o) => ManagedObject::Role(send::<Role>(self, &key, o).await?),
            ManagedObject::RoleBinding(o) => ManagedObject::RoleBinding(send::<RoleBinding>(self, &key, o).await?),
        };
        Ok(self.seen(&key, answer))
    }

    /// Deletes this very object; that it is gone already is no error.
    pub async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Answer<()> {
        let preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        async fn send<K>(hands: &Hands, key: &ObjectKey, parameters: &DeleteParams) -> Answer<()>
        where
            K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned + Clone + Debug,
        {
            let api = hands.api::<K>(key);
            hands.write(key.kind.as_str(), "delete", api.delete(&key.object.name, parameters)).await.map(drop)
        }
        let deleted = match key.kind {
            Kind::NetworkPolicy => send::<NetworkPolicy>(self, key, &parameters).await,
            Kind::ConfigMap => send::<ConfigMap>(self, key, &parameters).await,
            Kind::ServiceAccount => send::<ServiceAccount>(self, key, &parameters).await,
            Kind::Role => send::<Role>(self, key, &parameters).await,
            Kind::RoleBinding => send::<RoleBinding>(self, key, &parameters).await,
        };
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => {
                self.world.write().put_object(key, None);
                Ok(())
            }
        }
    }

    /// Whether a pod that still runs matches.
    pub async fn any_pod(&self, namespace: &str, selector: &LabelSelector) -> Answer<bool> {
        // A selector that cannot be said matches who knows what.
        let Ok(selector) = Selector::try_from(selector.clone()) else { return Ok(true) };
        let parameters = ListParams::default().labels_from(&selector).fields("status.phase!=Succeeded,status.phase!=Failed").limit(1);
        let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(self.clients.own.clone(), namespace);
        match self.within(pods.list(&parameters)).await {
            Ok(pods) => Ok(!pods.items.is_empty()),
            // A selector that the API server cannot read matches nothing there.
            Err(error) if error.is_bad_request() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The pods that this selects, each as far as it is kept.
    pub async fn pods(&self, namespace: &str, selector: &crate::scope::Selector, kept: impl Fn(Pod) -> Pod) -> Answer<Vec<Pod>> {
        // A selector that cannot be said is asked for here instead.
        let said = Selector::try_from(crate::plan::label_selector(selector)).unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(self.clients.own.clone(), namespace);
        // Anybody's objects, of any size: few at once.
        let (mut all, mut page) = (Vec::new(), ListParams::default().labels_from(&said).limit(FEW));
        let matches =
            |pod: &Pod| pod.metadata.labels.as_ref().map_or_else(|| selector.matches(&BTreeMap::new()), |labels| selector.matches(labels));
        loop {
            let listed = self.within(pods.list(&page)).await?;
            all.extend(listed.items.into_iter().filter(matches).map(&kept));
            match listed.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(all),
            }
        }
    }

    /// Asks for this very pod's eviction; that it is gone already is no error.
    pub async fn evict(&self, pod: &ObjectName, uid: &str) -> Answer<()> {
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters =
            EvictParams { delete_options: Some(DeleteParams { preconditions, ..DeleteParams::default() }), ..EvictParams::default() };
        let api: Api<Pod> = Api::namespaced(self.clients.once.clone(), &pod.namespace);
        match self.write("Pod", "evict", api.evict(&pod.name, &parameters)).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    /// Sets the finalizers of a workload. Returns who needs a look because somebody else changed something as well.
    pub async fn set_finalizers(&self, workload: &AIWorkload, finalizers: &[String]) -> Answer<BTreeSet<Key>> {
        self.set_metadata(workload, FINALIZER_MANAGER, json!({"finalizers": finalizers})).await
    }

    /// Takes the exception for debugging off a workload, if nobody has changed anything since: it may be a newer one.
    pub async fn end_exception(&self, workload: &AIWorkload) -> Answer<BTreeSet<Key>> {
        self.set_metadata(workload, BREAK_GLASS_MANAGER, json!({"annotations": {BREAK_GLASS_ANNOTATION: null}})).await
    }

    async fn set_metadata(&self, workload: &AIWorkload, manager: &str, mut metadata: Value) -> Answer<BTreeSet<Key>> {
        let name = facts::name(&workload.metadata);
        metadata["resourceVersion"] = json!(workload.metadata.resource_version);
        let patch = json!({"metadata": metadata});
        let parameters = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let api = self.workloads(&name.namespace);
        let answer = self.write("AIWorkload", "patch", api.patch(&name.name, &parameters, &Patch::Merge(&patch))).await?;
        Ok(self.world.write().put_workload(name, facts::known_workload(answer)))
    }

    /// Writes the status of this very workload.
    pub async fn set_status(&self, workload: &AIWorkload, status: &AIWorkloadStatus) -> Answer<BTreeSet<Key>> {
        let name = facts::name(&workload.metadata);
        let patch = json!({
            "apiVersion": AIWorkload::api_version(&()),
            "kind": AIWorkload::kind(&()),
            "metadata": {"name": name.name, "namespace": name.namespace, "uid": workload.metadata.uid},
            "status": status,
        });
        let api = self.workloads(&name.namespace);
        let parameters = PatchParams::apply(STATUS_MANAGER).force();
        let answer = self.write("AIWorkloadStatus", "apply", api.patch_status(&name.name, &parameters, &Patch::Apply(&patch))).await?;
        Ok(self.world.write().put_workload(name, facts::known_workload(answer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_never_be_taken() {
        let error = |code: u16, message: &str| {
            RequestError::Kube(kube::Error::Api(Box::new(kube::core::Status::failure(message, "Some").with_code(code))))
        };
        for (code, message, never) in [
            (422, "spec.egress: Invalid value", true),
            (413, "limit is 3145728", true),
            (500, "etcdserver: request is too large", true),
            (500, "rpc error: trying to send message larger than max", true),
            (500, "etcdserver: leader changed", false),
            (409, "too large", false),
            (403, "too large", false),
        ] {
            assert_eq!(error(code, message).is_invalid(), never, "{code} {message}");
        }
    }
}
