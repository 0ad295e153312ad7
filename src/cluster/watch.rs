//! The watches that keep the [`World`](super::world::World) up to date.
//!
//! Each kind is listed and watched for as long as its future runs; errors are logged and retried with growing delay. Objects are projected
//! as they arrive and never kept whole, but for the few of our own kinds.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::facts::{self, RangeFact, SliceFact};
use super::hands::Clients;
use super::world::{Key, SharedWorld, World};
use crate::api::{self, AIWorkload, ScopeCeiling};
use crate::plan::{Kind, ManagedObject, project};
use crate::scope::ObjectName;

/// A silently dropped connection is noticed after so many seconds.
const TIMEOUT: u32 = 60;

/// Called with the keys that each event concerns, once everything has been listed.
pub type Notify = Arc<dyn Fn(BTreeSet<Key>) + Send + Sync>;

/// All watches, each a future that never ends by itself.
pub fn watches(clients: &Clients, world: &SharedWorld, notify: &Notify) -> Vec<BoxFuture<'static, ()>> {
    let client = &clients.own;
    let config = || watcher::Config::default().timeout(TIMEOUT);
    // Anybody's objects, of any size: few at once.
    let few = || config().page_size(20);
    let mut all = vec![
        follow(world, notify, Api::<Service>::all(client.clone()), few(), |s| project::service(&s), World::on_service),
        // All of them: whose hand wrote one its labels do not tell.
        follow(world, notify, Api::all(client.clone()), few(), slice, World::on_slice),
        follow(world, notify, Api::<Namespace>::all(client.clone()), few(), facts::namespace, World::on_namespace),
        follow(world, notify, Api::<Node>::all(client.clone()), config(), |n| facts::node(&n), World::on_node),
        follow(world, notify, Api::<ServiceCIDR>::all(client.clone()), config(), service_cidr, World::on_service_cidr),
        follow(world, notify, dynamic::<AIWorkload>(client), few(), facts::workload, World::on_workload),
        follow(world, notify, dynamic::<ScopeCeiling>(client), config(), facts::ceiling, World::on_ceiling),
    ];
    if world.read().settings.channel.is_some() {
        // Their guards are asked after; where there are none, nobody asks.
        let alive = few().fields("status.phase!=Succeeded,status.phase!=Failed");
        let pods = Api::<PartialObjectMeta<Pod>>::all(client.clone());
        all.push(follow(world, notify, pods, alive, facts::pod, World::on_pod));
    } else {
        world.write().pods.absent();
    }
    for kind in Kind::ALL {
        let client = clients.of(kind);
        all.push(match kind {
            Kind::NetworkPolicy => managed(client, world, notify, kind, ManagedObject::NetworkPolicy as fn(NetworkPolicy) -> _),
            Kind::ConfigMap => managed(client, world, notify, kind, ManagedObject::ConfigMap as fn(ConfigMap) -> _),
            Kind::ServiceAccount => managed(client, world, notify, kind, ManagedObject::ServiceAccount as fn(ServiceAccount) -> _),
            Kind::Role => managed(client, world, notify, kind, ManagedObject::Role as fn(Role) -> _),
            Kind::RoleBinding => managed(client, world, notify, kind, ManagedObject::RoleBinding as fn(RoleBinding) -> _),
        });
    }
    all
}

/// Custom resources are read one by one, so that one which cannot be read hides no other.
fn dynamic<K: Resource<DynamicType = ()>>(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

fn managed<K>(client: &Client, world: &SharedWorld, notify: &Notify, kind: Kind, wrap: fn(K) -> ManagedObject) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    let config = watcher::Config::default().timeout(TIMEOUT).labels(&format!("{}={}", api::MANAGED_BY_LABEL, api::MANAGED_BY));
    let project = move |object: K| (facts::name(object.meta()), facts::live(wrap(object)));
    follow(world, notify, Api::<K>::all(client.clone()), config, project, move |world: &mut World, event| world.on_object(kind, event))
}

fn slice(slice: EndpointSlice) -> (ObjectName, SliceFact) {
    let key = facts::name(&slice.metadata);
    // One that names no Service belongs to none of any name.
    let (service, endpoints) = project::endpoints(&slice).unwrap_or_else(|| (ObjectName::new(&key.namespace, ""), Vec::new()));
    (key, SliceFact { service, endpoints, api_server: project::api_server(&slice) })
}

fn service_cidr(range: ServiceCIDR) -> (String, RangeFact) {
    (range.metadata.name.clone().unwrap_or_default(), RangeFact(project::service_cidr(&range)))
}

fn follow<K, P, V>(
    world: &SharedWorld,
    notify: &Notify,
    api: Api<K>,
    config: watcher::Config,
    project: impl Fn(K) -> (P, V) + Send + 'static,
    take: impl Fn(&mut World, Event<(P, V)>) -> BTreeSet<Key> + Send + 'static,
) -> BoxFuture<'static, ()>
where
    K: Resource + DeserializeOwned + Clone + Debug + Send + 'static,
    P: Send + 'static,
    V: Send + 'static,
{
    let (world, notify) = (world.clone(), notify.clone());
    let url = api.resource_url().to_owned();
    async move {
        let mut events = std::pin::pin!(watch(api, config).default_backoff());
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(Event::Init) => Event::Init,
                Ok(Event::InitApply(object)) => Event::InitApply(project(object)),
                Ok(Event::InitDone) => Event::InitDone,
                Ok(Event::Apply(object)) => Event::Apply(project(object)),
                Ok(Event::Delete(object)) => Event::Delete(project(object)),
                Err(error) => {
                    if unserved(&error) && url.ends_with("/servicecidrs") {
                        world.write().service_cidrs.absent();
                    } else {
                        tracing::warn!(resource = url, error = %error, "watch failed; trying again");
                    }
                    continue;
                }
            };
            let (keys, ready) = {
                let mut world = world.write();
                let was_ready = world.is_ready();
                let keys = take(&mut world, event);
                (if was_ready || !world.is_ready() { keys } else { world.all_keys() }, world.is_ready())
            };
            if ready && !keys.is_empty() {
                notify(keys);
            }
        }
    }
    .boxed()
}

/// The kind does not exist in this cluster (ServiceCIDR is younger than 1.33).
fn unserved(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.is_not_found())
}
