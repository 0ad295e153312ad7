//! The world → what one plan is made from. Only what the workload names is copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::facts::{Live, WorkloadFact};
use super::world::{Settings, World};
use crate::plan::{DnsFact, Facts, ObjectKey, project};
use crate::scope::{Ceilings, Mode, ObjectName, Selector};

/// Everything that a reconcile of one workload needs to know.
#[derive(Clone, Debug)]
pub struct Gathered {
    pub name: ObjectName,
    /// None: there is no such workload (any more).
    pub workload: Option<Arc<WorkloadFact>>,
    pub enrolled: bool,
    /// The namespace is being deleted: nothing can be created in it.
    pub terminating: bool,
    pub ceilings: Ceilings,
    pub facts: Facts,
    /// The workload that governs in its place (see [`crate::plan::governing`]).
    pub older: Option<String>,
    /// The generated objects that bear its labels.
    pub live: BTreeMap<ObjectKey, Arc<Live>>,
}

/// What a reconcile of a namespace's isolation needs to know.
#[derive(Clone, Debug)]
pub struct GatheredNamespace {
    pub name: String,
    pub uid: String,
    pub terminating: bool,
    pub isolate: bool,
    /// Selectors of the Observe workloads that govern.
    pub observed: Vec<Selector>,
}

pub fn gather(world: &World, name: &ObjectName) -> Gathered {
    let workload = world.workloads.get(name).cloned();
    let facts = workload.as_ref().map(|workload| facts(world, workload)).unwrap_or_default();
    Gathered {
        name: name.clone(),
        workload,
        enrolled: world.enrolled(&name.namespace),
        terminating: terminating(world, &name.namespace),
        ceilings: ceilings(world, &name.namespace),
        facts,
        older: world.older(name).map(str::to_owned),
        live: world.objects_of(name),
    }
}

pub fn gather_namespace(world: &World, name: &str) -> GatheredNamespace {
    let governs = |object: &ObjectName| object.namespace == name && world.older(object).is_none();
    let observed = world.workloads.iter().filter(|(object, _)| governs(object)).filter_map(|(_, fact)| match &fact.scope {
        Ok(scope) if scope.mode == Mode::Observe && !fact.is_leaving() => Some(scope.selector.clone()),
        _ => None,
    });
    GatheredNamespace {
        name: name.to_owned(),
        uid: world.namespaces.get(&name.to_owned()).map(|n| n.uid.clone()).unwrap_or_default(),
        terminating: terminating(world, name),
        isolate: world.enrolled(name) && ceilings(world, name).isolate_unscoped(),
        observed: observed.collect(),
    }
}

fn terminating(world: &World, namespace: &str) -> bool {
    world.namespaces.get(&namespace.to_owned()).is_none_or(|n| n.terminating)
}

/// The ceilings over a namespace. One that cannot be read is over all.
pub fn ceilings(world: &World, namespace: &str) -> Ceilings {
    let labels = world.namespaces.get(&namespace.to_owned()).map(|n| n.labels.clone()).unwrap_or_default();
    let over = world.ceilings.iter().filter(|(_, fact)| fact.namespaces.as_ref().is_none_or(|selector| selector.matches(&labels)));
    Ceilings(over.map(|(_, fact)| fact.ceiling.clone()).collect())
}

fn facts(world: &World, workload: &WorkloadFact) -> Facts {
    let Settings {
        pod_ranges: _,
        service_ranges: _,
        other_ranges: _,
        dns_services,
        dns_addresses,
        domain,
        namespace: _,
        channel,
        roots,
        proxy,
    } = &world.settings;
    let services = workload.services.iter().filter_map(|name| Some((name.clone(), world.services.get(name)?.as_ref().clone())));
    let endpoints = workload.services.iter().filter_map(|name| {
        let mut endpoints: Vec<_> = world.slices_of(name).flat_map(|slice| slice.endpoints.iter().cloned()).collect();
        endpoints.sort();
        endpoints.dedup();
        (!endpoints.is_empty()).then(|| (name.clone(), endpoints))
    });
    let mut api_server: Vec<_> =
        world.slices_of(&ObjectName::new("default", "kubernetes")).flat_map(|slice| slice.api_server.iter().copied()).collect();
    api_server.sort();
    api_server.dedup();
    let (namespace, name) = project::API_SERVICE;
    let api_service =
        world.services.get(&ObjectName::new(namespace, name)).map(|service| project::api_service(service)).unwrap_or_default();
    let mut dns: Vec<DnsFact> =
        dns_services.iter().filter_map(|name| DnsFact::of(&name.namespace, world.services.get(name)?.as_ref())).collect();
    dns.sort_by(|a, b| (&a.namespace, &a.selector).cmp(&(&b.namespace, &b.selector)));
    Facts {
        services: services.collect(),
        endpoints: endpoints.collect(),
        api_server,
        api_service,
        ranges: world.ranges().clone(),
        dns,
        dns_addresses: dns_addresses.clone(),
        domain: domain.clone(),
        channel: channel.clone(),
        roots: roots.clone(),
        proxy: proxy.clone(),
    }
}
