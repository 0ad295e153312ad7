//! What is known of the cluster: one cache per watched kind, and who depends on what.
//!
//! In: watch events and the answers to our own writes. Out: the keys whose plans must be made anew. Nothing here decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ipnet::IpNet;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::conflicts::Conflicts;
use super::facts::{CeilingFact, Live, NamespaceFact, NodeFact, PodFact, RangeFact, SliceFact, WorkloadFact};
use super::table::{Change, Table};
use crate::api;
use crate::plan::{ChannelFact, ClusterRanges, ObjectKey, ServiceFact, UNSCOPED_POLICY};
use crate::policy::{Proxy, Roots};
use crate::scope::{DomainName, ObjectName, Ranges};

/// Something to reconcile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    Workload(ObjectName),
    /// The isolation of a namespace.
    Namespace(String),
}

/// Where the cluster's own pods run.
pub const SYSTEM_NAMESPACE: &str = "kube-system";

/// What the admin says of the cluster beside what is found.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub pod_ranges: Vec<IpNet>,
    pub service_ranges: Vec<IpNet>,
    pub other_ranges: Vec<IpNet>,
    pub dns_services: Vec<ObjectName>,
    pub dns_addresses: Vec<IpAddr>,
    pub domain: DomainName,
    /// Where the operator is.
    pub namespace: String,
    /// None: there are no guards.
    pub channel: Option<ChannelFact>,
    /// Of guards: see [`crate::plan::Facts`].
    pub roots: Option<Roots>,
    pub proxy: Option<Proxy>,
}

#[derive(Debug, Default)]
pub struct World {
    pub settings: Settings,
    pub services: Table<ObjectName, ServiceFact>,
    pub slices: Table<ObjectName, SliceFact>,
    pub namespaces: Table<String, NamespaceFact>,
    pub nodes: Table<String, NodeFact>,
    pub service_cidrs: Table<String, RangeFact>,
    pub workloads: Table<ObjectName, WorkloadFact>,
    pub ceilings: Table<String, CeilingFact>,
    /// Those that run or will. Their guards ask which AIWorkload governs them; plans rest on selectors, and do not change with them.
    pub pods: Table<ObjectName, PodFact>,
    /// One cache for each of the managed kinds.
    pub objects: BTreeMap<crate::plan::Kind, Table<ObjectName, Live>>,
    /// Ticks when a policy of guards may be another.
    policies: watch::Sender<u64>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
    objects_of: BTreeMap<ObjectName, BTreeSet<ObjectKey>>,
    conflicts: BTreeMap<String, Conflicts>,
    ranges: ClusterRanges,
}

/// The world, shared.
#[derive(Clone, Debug, Default)]
pub struct SharedWorld(Arc<RwLock<World>>);

impl SharedWorld {
    pub fn new(settings: Settings) -> Self {
        let objects = crate::plan::Kind::ALL.into_iter().map(|kind| (kind, Table::default())).collect();
        let mut world = World { settings, objects, ..World::default() };
        world.measure();
        Self(Arc::new(RwLock::new(world)))
    }

    // A panic while the lock was held leaves data that the next relist replaces.
    pub fn read(&self) -> RwLockReadGuard<'_, World> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, World> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// Whether every kind has been listed once.
    pub fn is_ready(&self) -> bool {
        self.services.is_ready()
            && self.slices.is_ready()
            && self.namespaces.is_ready()
            && self.nodes.is_ready()
            && self.service_cidrs.is_ready()
            && self.workloads.is_ready()
            && self.ceilings.is_ready()
            && self.pods.is_ready()
            && self.objects.values().all(Table::is_ready)
    }

    /// Everything there is to reconcile, orphans included.
    pub fn all_keys(&self) -> BTreeSet<Key> {
        let workloads = self.workloads.iter().map(|(name, _)| name).chain(self.objects_of.keys());
        let namespaces = self.namespaces.iter().map(|(name, _)| Key::Namespace(name.clone()));
        workloads.cloned().map(Key::Workload).chain(namespaces).collect()
    }

    /// The generated objects that bear a workload's labels.
    pub fn objects_of(&self, workload: &ObjectName) -> BTreeMap<ObjectKey, Arc<Live>> {
        let keys = self.objects_of.get(workload).into_iter().flatten();
        keys.filter_map(|key| Some((key.clone(), self.object(key)?.clone()))).collect()
    }

    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Live>> {
        self.objects.get(&key.kind)?.get(&key.object)
    }

    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<SliceFact>> {
        self.slices_of.get(service).into_iter().flatten().filter_map(|slice| self.slices.get(slice))
    }

    /// The workload that governs in its place (see [`crate::plan::governing`]).
    pub fn older(&self, workload: &ObjectName) -> Option<&str> {
        self.conflicts.get(&workload.namespace)?.older(&workload.name)
    }

    /// The workload that governs pods with these labels, enrolled or not.
    pub fn governing(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Option<&ObjectName> {
        let governs = |name: &ObjectName, fact: &WorkloadFact| {
            name.namespace == namespace
                && !fact.is_leaving()
                && fact.selector.as_ref().is_some_and(|selector| selector.matches(labels))
                && self.older(name).is_none()
        };
        self.workloads.iter().find(|(name, fact)| governs(name, fact)).map(|(name, _)| name)
    }

    /// The pods of a namespace that run or will.
    pub fn pods_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a ObjectName, &'a Arc<PodFact>)> {
        self.pods.starting_at(ObjectName::new(namespace, "")).take_while(move |(name, _)| name.namespace == namespace)
    }

    /// Ticks when a policy of guards may be another.
    pub fn policies(&self) -> watch::Receiver<u64> {
        self.policies.subscribe()
    }

    pub fn ranges(&self) -> &ClusterRanges {
        &self.ranges
    }

    /// Whether the namespace is Remit's to hold. Never the cluster's own nor the operator's, whatever their labels: a slip must not cut off DNS.
    pub fn enrolled(&self, namespace: &str) -> bool {
        let held = namespace != SYSTEM_NAMESPACE && namespace != self.settings.namespace;
        held && self.namespaces.get(&namespace.to_owned()).is_some_and(|n| n.labels.get(api::ENROLLED_LABEL).is_some_and(|v| v == "true"))
    }

    pub fn on_service(&mut self, event: Event<(ObjectName, ServiceFact)>) -> BTreeSet<Key> {
        let changed: BTreeSet<_> = self.services.handle(event).into_iter().map(|c| c.key).collect();
        self.naming(&changed)
    }

    pub fn on_slice(&mut self, event: Event<(ObjectName, SliceFact)>) -> BTreeSet<Key> {
        let mut services = BTreeSet::new();
        let mut everybody = false;
        for Change { key, old, new } in self.slices.handle(event) {
            if let Some(old) = old {
                self.slices_of.get_mut(&old.service).map(|set| set.remove(&key));
                everybody |= !old.api_server.is_empty();
                services.insert(old.service.clone());
            }
            if let Some(new) = new {
                self.slices_of.entry(new.service.clone()).or_default().insert(key);
                everybody |= !new.api_server.is_empty();
                services.insert(new.service.clone());
            }
        }
        self.slices_of.retain(|_, slices| !slices.is_empty());
        if everybody { self.all_workloads() } else { self.naming(&services) }
    }

    pub fn on_namespace(&mut self, event: Event<(String, NamespaceFact)>) -> BTreeSet<Key> {
        let changed: BTreeSet<_> = self.namespaces.handle(event).into_iter().map(|c| c.key).collect();
        let workloads = self.workloads.iter().map(|(name, _)| name).filter(|name| changed.contains(&name.namespace));
        workloads.cloned().map(Key::Workload).chain(changed.iter().cloned().map(Key::Namespace)).collect()
    }

    pub fn on_node(&mut self, event: Event<(String, NodeFact)>) -> BTreeSet<Key> {
        if self.nodes.handle(event).is_empty() { BTreeSet::new() } else { self.measure() }
    }

    pub fn on_service_cidr(&mut self, event: Event<(String, RangeFact)>) -> BTreeSet<Key> {
        if self.service_cidrs.handle(event).is_empty() { BTreeSet::new() } else { self.measure() }
    }

    pub fn on_pod(&mut self, event: Event<(ObjectName, PodFact)>) -> BTreeSet<Key> {
        self.pods.handle(event);
        BTreeSet::new()
    }

    pub fn on_ceiling(&mut self, event: Event<(String, CeilingFact)>) -> BTreeSet<Key> {
        if self.ceilings.handle(event).is_empty() { BTreeSet::new() } else { self.all_keys() }
    }

    pub fn on_workload(&mut self, event: Event<(ObjectName, WorkloadFact)>) -> BTreeSet<Key> {
        let changes = self.workloads.handle(event);
        self.workloads_changed(changes)
    }

    /// The API server's answer to a write of ours. It may hold somebody else's change as well, so it counts as an event.
    pub fn put_workload(&mut self, name: ObjectName, fact: WorkloadFact) -> BTreeSet<Key> {
        let change = self.workloads.put(name, fact);
        self.workloads_changed(change)
    }

    pub fn on_object(&mut self, kind: crate::plan::Kind, event: Event<(ObjectName, Live)>) -> BTreeSet<Key> {
        let changes = self.objects.entry(kind).or_default().handle(event);
        self.objects_changed(kind, changes)
    }

    /// The API server's answer to a write of ours; None: it is gone.
    pub fn put_object(&mut self, key: &ObjectKey, live: Option<Live>) {
        let table = self.objects.entry(key.kind).or_default();
        let change = match live {
            Some(live) => table.put(key.object.clone(), live),
            None => table.remove(&key.object),
        };
        self.objects_changed(key.kind, change);
    }

    fn workloads_changed(&mut self, changes: impl IntoIterator<Item = Change<ObjectName, WorkloadFact>>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for Change { key, old: _, new } in changes {
            let contender = new.as_ref().and_then(|new| new.contends()).map(|(seniority, selector)| (seniority, selector.clone()));
            let conflicts = self.conflicts.entry(key.namespace.clone()).or_default();
            let others = conflicts.set(&key.name, contender);
            if conflicts.is_empty() {
                self.conflicts.remove(&key.namespace);
            }
            keys.extend(others.into_iter().map(|name| Key::Workload(ObjectName::new(&key.namespace, name))));
            // Pods of Observe workloads are left out of the isolation.
            keys.insert(Key::Namespace(key.namespace.clone()));
            keys.insert(Key::Workload(key));
        }
        keys
    }

    fn objects_changed(&mut self, kind: crate::plan::Kind, changes: impl IntoIterator<Item = Change<ObjectName, Live>>) -> BTreeSet<Key> {
        let mut keys = BTreeSet::new();
        for Change { key, old, new } in changes {
            let object = ObjectKey { kind, object: key };
            if kind == crate::plan::Kind::ConfigMap {
                self.policies.send_modify(|count| *count = count.wrapping_add(1));
            }
            // Whatever labels it bears: a workload's would lead away from the isolation that it is.
            if kind == crate::plan::Kind::NetworkPolicy && object.object.name == UNSCOPED_POLICY {
                keys.insert(Key::Namespace(object.object.namespace.clone()));
            }
            for (live, present) in [(old, false), (new, true)] {
                let Some(workload) = live.and_then(|live| live.object.workload()) else { continue };
                let of = self.objects_of.entry(workload.clone()).or_default();
                if present {
                    of.insert(object.clone());
                } else {
                    of.remove(&object);
                }
                if of.is_empty() {
                    self.objects_of.remove(&workload);
                }
                keys.insert(Key::Workload(workload));
            }
        }
        keys
    }

    fn all_workloads(&self) -> BTreeSet<Key> {
        self.workloads.iter().map(|(name, _)| Key::Workload(name.clone())).collect()
    }

    /// The workloads that name one of these Services. DNS concerns all.
    fn naming(&self, services: &BTreeSet<ObjectName>) -> BTreeSet<Key> {
        if self.settings.dns_services.iter().any(|dns| services.contains(dns)) {
            return self.all_workloads();
        }
        let names = |fact: &WorkloadFact| !fact.services.is_disjoint(services);
        self.workloads.iter().filter(|(_, fact)| names(fact)).map(|(name, _)| Key::Workload(name.clone())).collect()
    }

    /// The cluster's own ranges, anew. Returns everybody if they changed.
    fn measure(&mut self) -> BTreeSet<Key> {
        let merged = |blocks: &mut dyn Iterator<Item = IpNet>| Ranges::new(blocks).blocks().to_vec();
        let Settings {
            pod_ranges,
            service_ranges,
            other_ranges,
            dns_services: _,
            dns_addresses: _,
            domain: _,
            namespace: _,
            channel: _,
            roots: _,
            proxy: _,
        } = &self.settings;
        let nodes = || self.nodes.iter().map(|(_, node)| node);
        let addresses: BTreeSet<IpAddr> = nodes().flat_map(|n| n.addresses.iter().copied()).collect();
        let ranges = ClusterRanges {
            pods: merged(&mut pod_ranges.iter().copied().chain(nodes().flat_map(|n| n.pods.iter().copied()))),
            services: merged(&mut service_ranges.iter().copied().chain(self.service_cidrs.iter().flat_map(|(_, r)| r.0.iter().copied()))),
            nodes: addresses.into_iter().collect(),
            others: merged(&mut other_ranges.iter().copied()),
        };
        if ranges == self.ranges {
            return BTreeSet::new();
        }
        self.ranges = ranges;
        self.all_workloads()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clusters_own_namespace_and_the_operators_are_never_enrolled() {
        let mut world = World { settings: Settings { namespace: "remit-system".to_owned(), ..Settings::default() }, ..World::default() };
        for name in ["support", "kube-system", "remit-system"] {
            let labels = [(api::ENROLLED_LABEL.to_owned(), "true".to_owned())].into();
            world.on_namespace(Event::Apply((name.to_owned(), NamespaceFact { labels, ..NamespaceFact::default() })));
            assert_eq!(world.enrolled(name), name == "support", "{name}");
        }
    }
}
